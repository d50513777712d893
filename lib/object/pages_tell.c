/* SPDX-License-Identifier: MIT */
/* What there is of pages: the walk, the figures; and the free ones given back to the kernel. */
#include <errno.h>
#include <string.h>

#include "lib/api/error.h"
#include "lib/api/huge.h"
#include "lib/object/pages.h"

#define LOOKS 8 /* at all that there is, for one of a single moment */

#define UNSETTLED ((uint64_t)1 << 63)
#define HUGE_SHIFT 21 /* bytes of a huge page */

/* ---- the walk ---- */

/* The next allocated run from *index on, or false. Where 64 pages are free, one look passes them. */
static bool next_run(quarry_pages *p, uint64_t *index, uint64_t *word)
{
	while (*index < p->map.count) {
		if (*index % 64 == 0 && atomic_load_explicit(&p->used[*index / 64], memory_order_acquire) == 0) {
			*index += 64;
			continue;
		}
		*word = atomic_load_explicit(&p->runs[*index], memory_order_acquire);
		if (qy_run_length(*word) != 0)
			return true;
		*index += 1;
	}
	return false;
}

QUARRY_API int quarry_pages_walk(quarry_pages *p, int (*fn)(const quarry_run *run, void *ctx), void *ctx)
{
	if (!qy_pages_check(p))
		return -1;
	if (fn == NULL)
		return qy_fail(EINVAL, "fn: it is NULL");
	/* A run that stays begins behind what any run told of before it ended at: so it is not passed over. */
	for (uint64_t index = 0, word; next_run(p, &index, &word); index += qy_run_length(word)) {
		quarry_run run = { qy_pages_address(p, index), index, qy_run_length(word),
				   (uint64_t)qy_run_generation(word) + 1 };
		int result = fn(&run, ctx);

		if (result != 0)
			return result;
	}
	return 0;
}

/* ---- figures ---- */

static void count_runs(quarry_pages *p, quarry_pages_stats *stats)
{
	stats->runs = stats->allocated = 0;
	for (uint64_t index = 0, word; next_run(p, &index, &word); index += qy_run_length(word)) {
		stats->runs++;
		stats->allocated += qy_run_length(word);
	}
}

/* The longest sequence of zeros in a word. */
static uint64_t longest_in(uint64_t used)
{
	uint64_t n = 0;

	for (uint64_t free = ~used; free != 0; free &= free >> 1)
		n++;
	return n;
}

static void count_bits(quarry_pages *p, quarry_pages_stats *stats)
{
	uint64_t gap = 0; /* free pages up to here */

	stats->free = stats->dirty = stats->largest = 0;
	for (uint64_t word = 0; word < p->words; word++) {
		uint64_t used = atomic_load(&p->used[word]), longest;

		stats->free += (uint64_t)__builtin_popcountll(~used);
		stats->dirty += (uint64_t)__builtin_popcountll(~used & atomic_load(&p->dirty[word]));
		if (used == 0) {
			gap += 64;
			longest = gap;
		} else {
			longest = qy_max(gap + (uint64_t)__builtin_ctzll(used), longest_in(used));
			gap = (uint64_t)__builtin_clzll(used);
		}
		stats->largest = qy_max(stats->largest, longest);
	}
}

/* What was counted while all operations that had begun were over, from before to after, is of one moment. */
static bool count_all(quarry_pages *p, quarry_pages_stats *stats)
{
	stats->epoch = qy_pages_ended(p);
	stats->retired = atomic_load(&p->retired);
	count_runs(p, stats);
	count_bits(p, stats);
	stats->committed = stats->count - stats->retired;
	if (qy_pages_begun(p) != stats->epoch)
		return false;
	if (QY_UNLIKELY(qy_pages_cut(p))) {
		stats->lost = stats->committed - stats->allocated - stats->free;
		stats->committed -= stats->lost;
	}
	return true;
}

/* While something is under way, no epoch is that of another look: what is over by the next may have changed something
 * before this one, or between. */
static uint64_t unsettled(quarry_pages *p)
{
	return UNSETTLED | atomic_fetch_add(&p->unsettled, 1);
}

QUARRY_API int quarry_pages_stats_get(quarry_pages *p, quarry_pages_stats *stats)
{
	if (!qy_pages_check(p))
		return -1;
	if (stats == NULL || (stats->struct_size != 0 && stats->struct_size != sizeof(*stats)))
		return qy_fail(EINVAL, "stats: NULL, or struct_size is not the size of any quarry_pages_stats");
	memset(stats, 0, sizeof(*stats));
	stats->struct_size = sizeof(*stats);
	stats->page_size = (uint64_t)1 << p->map.page_shift;
	stats->count = p->map.count;
	for (int look = 0; look < LOOKS && !stats->coherent; look++)
		stats->coherent = count_all(p, stats);
	if (!stats->coherent)
		stats->epoch = unsettled(p);
	qy_assert(!stats->coherent || stats->committed == stats->allocated + stats->free);
	stats->metadata = quarry_usable_size(p->memory);
	stats->failed = atomic_load(&p->failed);
	stats->purged = atomic_load(&p->purged);
	return 0;
}

QUARRY_API uint64_t quarry_pages_epoch(quarry_pages *p)
{
	uint64_t ended;

	if (!qy_pages_check(p))
		return 0;
	/* What the caller has looked at, it has seen before. */
	atomic_thread_fence(memory_order_acquire);
	ended = qy_pages_ended(p);
	return qy_pages_begun(p) == ended ? ended : unsettled(p);
}

/* ---- given back ---- */

/* Pages of a group that are held, and which of them were dirty. */
struct held {
	uint64_t first; /* of the group */
	uint64_t words;
	uint64_t page[64], dirty[64];
	bool any;
};

/* The mask in the word of first of what of [first, end) is in it; and first goes on to the next word. */
static uint64_t next_mask(uint64_t *first, uint64_t end)
{
	uint64_t from = *first % 64, n = qy_min(64 - from, end - *first);

	*first += n;
	return qy_mask(from, n);
}

static void note_held(quarry_pages *p, struct held *h, uint64_t word, uint64_t mask)
{
	uint64_t i = word - h->first / 64;

	if (mask == 0)
		return;
	h->page[i] |= mask;
	h->dirty[i] |= atomic_fetch_and(&p->dirty[word], ~mask) & mask;
	h->any = true;
}

/* Free dirty pages of [first, end), which nobody else has from now on. */
static void hold_dirty(quarry_pages *p, struct held *h, uint64_t first, uint64_t end)
{
	while (first < end) {
		uint64_t word = first / 64, within = next_mask(&first, end), mask;

		do
			mask = atomic_load(&p->dirty[word]) & ~atomic_load(&p->used[word]) & within;
		while (mask != 0 && !qy_pages_claim_word(p, word, mask));
		note_held(p, h, word, mask);
	}
}

/* All of them, or none. */
static void hold_all(quarry_pages *p, struct held *h, uint64_t first, uint64_t end)
{
	if (!qy_pages_claim(p, first, end - first))
		return;
	while (first < end) {
		uint64_t word = first / 64;

		note_held(p, h, word, next_mask(&first, end));
	}
}

/* How many pages a huge page has; the first at a multiple of that, as the base is aligned. */
static uint64_t pages_of_huge(const quarry_pages *p)
{
	return (uint64_t)1 << (HUGE_SHIFT - p->map.page_shift);
}

/* Bytes behind the last page that nobody else has, of the huge page that it is in; or none, when somebody may. */
static size_t spare_at_end(const quarry_pages *p)
{
	size_t bytes = (size_t)p->map.count << p->map.page_shift, whole = qy_align_up(bytes, (size_t)1 << HUGE_SHIFT);

	return quarry_usable_size(p->map.base) >= whole ? whole - bytes : 0;
}

/* Hold what of a huge page's pages is to go. *whole: huge pages are free from end to end, in memory or not. */
static void hold_of_huge(quarry_pages *p, struct held *h, uint64_t first, bool parts, bool *whole)
{
	uint64_t end = qy_min(first + pages_of_huge(p), p->map.count), used = 0, dirty = 0;
	bool is_whole;

	for (uint64_t at = first; at < end;) {
		uint64_t word = at / 64, mask = next_mask(&at, end), taken = atomic_load(&p->used[word]) & mask;

		used |= taken;
		dirty |= atomic_load(&p->dirty[word]) & mask & ~taken;
	}
	if (used != 0 && dirty == 0)
		return;
	if (parts || !qy_may_be_huge(qy_pages_address(p, first))) {
		hold_dirty(p, h, first, end);
		return;
	}
	is_whole = used == 0 && (end - first == pages_of_huge(p) || spare_at_end(p) != 0);
	*whole |= is_whole;
	if (is_whole && dirty != 0)
		hold_all(p, h, first, end);
}

/* So many held pages go back; what does not is as dirty as before. What goes to the last page goes to the end of its
 * huge page, where that is nobody else's. */
static size_t give_back(quarry_pages *p, const struct held *h, uint64_t first, uint64_t n)
{
	size_t bytes = (size_t)n << p->map.page_shift, more = 0;
	uint64_t last = qy_align_down(p->map.count - 1, pages_of_huge(p));

	if (first + n == p->map.count && first <= last)
		more = spare_at_end(p);
	if (quarry_discard(qy_pages_address(p, first), bytes + more) == 0) {
		atomic_fetch_add(&p->purged, bytes);
		return bytes;
	}
	for (uint64_t at = first; at < first + n;) {
		uint64_t word = at / 64, mask = next_mask(&at, first + n);

		atomic_fetch_or(&p->dirty[word], h->dirty[word - h->first / 64] & mask);
	}
	return 0;
}

/* In as few calls as can be. */
static size_t give_group_back(quarry_pages *p, const struct held *h)
{
	uint64_t begin = QY_NO_PAGE;
	size_t bytes = 0;

	for (uint64_t i = 0; i <= h->words * 64; i++) {
		bool is_held = i < h->words * 64 && (h->page[i / 64] >> i % 64 & 1);

		if (is_held && begin == QY_NO_PAGE)
			begin = i;
		if (!is_held && begin != QY_NO_PAGE) {
			bytes += give_back(p, h, h->first + begin, i - begin);
			begin = QY_NO_PAGE;
		}
	}
	return bytes;
}

static size_t purge_group(quarry_pages *p, uint64_t group, bool parts, bool *whole)
{
	struct held h = { .first = group << QY_PAGES_GROUP_SHIFT, .words = qy_min(p->words - group * 64, 64) };
	struct qy_pages_stripe *stripe = qy_pages_begin(p);
	uint64_t end = qy_min(h.first + h.words * 64, p->map.count);
	size_t bytes = 0;

	for (uint64_t first = h.first; first < end; first += pages_of_huge(p))
		hold_of_huge(p, &h, first, parts, whole);
	if (h.any)
		bytes = give_group_back(p, &h);
	for (uint64_t i = 0; h.any && i < h.words; i++)
		if (h.page[i] != 0)
			qy_pages_release_word(p, h.first / 64 + i, h.page[i]);
	qy_pages_end(p, stripe);
	return bytes;
}

static size_t purge(quarry_pages *p, bool parts, bool *whole)
{
	size_t bytes = 0;

	for (uint64_t group = 0; group < p->groups; group++)
		bytes += purge_group(p, group, parts, whole);
	return bytes;
}

QUARRY_API size_t quarry_pages_purge(quarry_pages *p, unsigned flags)
{
	bool whole = false;
	size_t bytes;

	if (!qy_pages_check(p))
		return 0;
	if (flags & ~(unsigned)QUARRY_PAGES_PURGE_PARTS) {
		qy_fail(EINVAL, "flags: unknown bits in 0x%x", flags);
		return 0;
	}
	bytes = purge(p, flags & QUARRY_PAGES_PURGE_PARTS, &whole);
	/* (Where huge pages are free that went before, asking again takes nothing apart.) */
	if (bytes == 0 && !whole)
		bytes = purge(p, true, &whole);
	return bytes;
}
