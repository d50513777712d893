/* SPDX-License-Identifier: MIT */
/* What there is of pages: the walk, the figures; and the free ones given back to the kernel. */
#include <errno.h>
#include <string.h>

#include "lib/api/error.h"
#include "lib/object/pages.h"

#define LOOKS 8 /* at all that there is, for one of a single moment */

#define UNSETTLED ((uint64_t)1 << 63)

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

/* Free dirty pages of a word, which nobody else has from now on. */
static uint64_t hold_word(quarry_pages *p, uint64_t word)
{
	for (;;) {
		uint64_t mask = atomic_load(&p->dirty[word]) & ~atomic_load(&p->used[word]);

		if (mask == 0 || qy_pages_claim_word(p, word, mask))
			return mask;
	}
}

/* So many held pages go back; what does not is as dirty as before. */
static size_t give_back(quarry_pages *p, uint64_t first, uint64_t n)
{
	size_t bytes = (size_t)n << p->map.page_shift;

	if (quarry_discard(qy_pages_address(p, first), bytes) != 0) {
		qy_pages_soil(p, first, n);
		return 0;
	}
	atomic_fetch_add(&p->purged, bytes);
	return bytes;
}

/* Held pages of a group, in as few calls as can be. */
static size_t give_group_back(quarry_pages *p, uint64_t first, const uint64_t *held, uint64_t words)
{
	uint64_t begin = QY_NO_PAGE;
	size_t bytes = 0;

	for (uint64_t i = 0; i <= words * 64; i++) {
		bool is_held = i < words * 64 && (held[i / 64] >> i % 64 & 1);

		if (is_held && begin == QY_NO_PAGE)
			begin = i;
		if (!is_held && begin != QY_NO_PAGE) {
			bytes += give_back(p, first + begin, i - begin);
			begin = QY_NO_PAGE;
		}
	}
	return bytes;
}

static size_t purge_group(quarry_pages *p, uint64_t group)
{
	uint64_t held[64], from = group * 64, words = qy_min(p->words - from, 64), some = 0;
	struct qy_pages_stripe *stripe = qy_pages_begin(p);
	size_t bytes = 0;

	for (uint64_t i = 0; i < words; i++) {
		held[i] = hold_word(p, from + i);
		some |= held[i];
		if (held[i] != 0)
			atomic_fetch_and(&p->dirty[from + i], ~held[i]);
	}
	if (some != 0)
		bytes = give_group_back(p, from * 64, held, words);
	for (uint64_t i = 0; i < words; i++)
		if (held[i] != 0)
			qy_pages_release_word(p, from + i, held[i]);
	qy_pages_end(p, stripe);
	return bytes;
}

QUARRY_API size_t quarry_pages_purge(quarry_pages *p)
{
	size_t bytes = 0;

	if (!qy_pages_check(p))
		return 0;
	for (uint64_t group = 0; group < p->groups; group++)
		bytes += purge_group(p, group);
	return bytes;
}
