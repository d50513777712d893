/* SPDX-License-Identifier: MIT */
/* The page allocator's bitmaps: taking and giving back, and the search. (pages.h has the rules.) */
#include <errno.h>

#include "lib/base/lock.h"
#include "lib/object/pages.h"
#include "numa/os.h"

#define FULL UINT64_MAX
#define GROUP ((uint64_t)1 << QY_PAGES_GROUP_SHIFT)
/* Searches in vain of everything while others change something, until they are asked for quiet: 64 of up to 16,384 pages,
 * fewer of more, and 4 of a million. When memory is out servers ask again and again. Those do not count in which
 * somebody was a step before us: then a run that was there is now in use, or others are in each other's way. */
#define LOOKS 64
#define LOOKS_MIN 4
#define LOOKED_WORDS ((uint64_t)LOOKS * 256)
#define SPINS 1000 /* for what is under way to end, before sleeping for a millisecond at a time */

/* ---- summaries ---- */

static void group_opened(quarry_pages *p, uint64_t group)
{
	atomic_fetch_and(&p->full_groups[group / 64], ~((uint64_t)1 << group % 64));
}

static void words_opened(quarry_pages *p, uint64_t group, uint64_t words)
{
	if (words != 0 && atomic_fetch_and(&p->full[group], ~words) == FULL)
		group_opened(p, group);
}

/* Somebody found these words of a group full. Whoever makes room after the second look sees our bits, and clears
 * them. */
static void words_filled(quarry_pages *p, uint64_t group, uint64_t words)
{
	uint64_t was, opened = 0;

	if (words == 0)
		return;
	was = atomic_fetch_or(&p->full[group], words);
	for (uint64_t left = words; left != 0; left &= left - 1)
		if (atomic_load(&p->used[group * 64 + (uint64_t)__builtin_ctzll(left)]) != FULL)
			opened |= left & -left;
	words_opened(p, group, opened);
	if (opened == 0 && (was | words) == FULL) {
		atomic_fetch_or(&p->full_groups[group / 64], (uint64_t)1 << group % 64);
		if (atomic_load(&p->full[group]) != FULL)
			group_opened(p, group);
	}
}

static void word_filled(quarry_pages *p, uint64_t word)
{
	words_filled(p, word / 64, (uint64_t)1 << word % 64);
}

static void forget_none(quarry_pages *p, uint64_t group)
{
	if (atomic_load_explicit(&p->none[group], memory_order_relaxed) != 0)
		atomic_store_explicit(&p->none[group], 0, memory_order_relaxed);
}

/* There is room in a group that was not there; in these words there was none at all. */
static void made_room(quarry_pages *p, uint64_t group, uint64_t words)
{
	words_opened(p, group, words);
	/* A run that ends here may begin in the group before. */
	forget_none(p, group);
	if (group > 0)
		forget_none(p, group - 1);
}

/* ---- words ---- */

/* Sets *full when the word is, by that. */
static bool claim_word(quarry_pages *p, uint64_t word, uint64_t mask, bool *full)
{
	uint64_t old = atomic_load_explicit(&p->used[word], memory_order_relaxed);

	do {
		if (old & mask)
			return false;
	} while (!atomic_compare_exchange_weak(&p->used[word], &old, old | mask));
	*full = (old | mask) == FULL;
	return true;
}

bool qy_pages_claim_word(quarry_pages *p, uint64_t word, uint64_t mask)
{
	bool full;

	if (!claim_word(p, word, mask, &full))
		return false;
	if (full)
		word_filled(p, word);
	return true;
}

/* Whether it was full. (Of a word that is ours whole nobody else can change anything.) */
static bool release_word(quarry_pages *p, uint64_t word, uint64_t mask)
{
	uint64_t old;

	if (mask == FULL) {
		qy_check(atomic_load_explicit(&p->used[word], memory_order_relaxed) == FULL);
		atomic_store_explicit(&p->used[word], 0, memory_order_release);
		return true;
	}
	old = atomic_fetch_and(&p->used[word], ~mask);
	qy_check((old & mask) == mask);
	return old == FULL;
}

void qy_pages_release_word(quarry_pages *p, uint64_t word, uint64_t mask)
{
	bool was_full = release_word(p, word, mask);

	made_room(p, word / 64, (uint64_t)was_full << word % 64);
}

/* ---- ranges ---- */

/* The part of [first, first + n) in the word of first. */
static uint64_t part(uint64_t first, uint64_t n)
{
	return qy_min(64 - first % 64, n);
}

/* The part of it in the group of first. */
static uint64_t part_of_group(uint64_t first, uint64_t n)
{
	return qy_min(GROUP - first % GROUP, n);
}

/* (The summary is told once for all words of a group.) */
void qy_pages_release(quarry_pages *p, uint64_t first, uint64_t n)
{
	while (n > 0) {
		uint64_t group = first / GROUP, end = first + part_of_group(first, n), opened = 0;

		for (uint64_t here; first < end; first += here, n -= here) {
			here = part(first, n);
			if (release_word(p, first / 64, qy_mask(first % 64, here)))
				opened |= (uint64_t)1 << first / 64 % 64;
		}
		made_room(p, group, opened);
	}
}

/* As qy_pages_claim; where it fails, *blocked is the first page of the word that was in the way. */
static bool claim(quarry_pages *p, uint64_t first, uint64_t n, uint64_t *blocked)
{
	uint64_t at = first, left = n;

	while (left > 0) {
		uint64_t group = at / GROUP, end = at + part_of_group(at, left), filled = 0;
		bool full = false, got = true;

		for (uint64_t here; at < end; at += here, left -= here) {
			here = part(at, left);
			got = claim_word(p, at / 64, qy_mask(at % 64, here), &full);
			if (!got)
				break;
			filled |= (uint64_t)full << at / 64 % 64;
		}
		words_filled(p, group, filled);
		if (!got) {
			qy_pages_release(p, first, n - left);
			*blocked = at;
			return false;
		}
	}
	return true;
}

bool qy_pages_claim(quarry_pages *p, uint64_t first, uint64_t n)
{
	uint64_t blocked;

	return claim(p, first, n, &blocked);
}

void qy_pages_soil(quarry_pages *p, uint64_t first, uint64_t n)
{
	for (uint64_t here; n > 0; first += here, n -= here) {
		qy_bits *dirty = &p->dirty[first / 64];
		uint64_t mask;

		here = part(first, n);
		mask = qy_mask(first % 64, here);
		if ((atomic_load_explicit(dirty, memory_order_relaxed) & mask) != mask)
			atomic_fetch_or_explicit(dirty, mask, memory_order_relaxed);
	}
}

/* ---- the search in a word ---- */

/* The bits at which n (1 to 64) zero bits begin, at multiples of align. */
static uint64_t starts(uint64_t used, uint64_t n, uint64_t align)
{
	/* A bit in 1, 2, 4 ... 32; above, the word's first. */
	static const uint64_t aligned[] = { FULL, 0x5555555555555555u, 0x1111111111111111u, 0x0101010101010101u,
					    0x0001000100010001u, 0x0000000100000001u, 1 };
	uint64_t free = ~used;

	for (uint64_t have = 1, more; have < n; have += more) {
		more = qy_min(have, n - have);
		free &= free >> more;
	}
	return free & aligned[qy_min(qy_log2_floor(align), 6)];
}

/* Whether words are such that a run may begin at their first page. */
static bool is_aligned(uint64_t word, uint64_t align)
{
	return align <= 64 || word * 64 % align == 0;
}

static uint64_t take_in_word(quarry_pages *p, uint64_t word, uint64_t n, uint64_t align)
{
	uint64_t old = atomic_load_explicit(&p->used[word], memory_order_relaxed), found, taken;

	do {
		found = is_aligned(word, align) ? starts(old, n, align) : 0;
		if (found == 0)
			return QY_NO_PAGE;
		taken = old | qy_mask((uint64_t)__builtin_ctzll(found), n);
	} while (!atomic_compare_exchange_weak(&p->used[word], &old, taken));
	if (taken == FULL)
		word_filled(p, word);
	return word * 64 + (uint64_t)__builtin_ctzll(found);
}

/* ---- the search in a group ---- */

/* A single page, of words of the group from one on. */
static uint64_t take_one_in_group(quarry_pages *p, uint64_t group, uint64_t from)
{
	uint64_t room = ~atomic_load(&p->full[group]) & qy_mask(from % 64, 64 - from % 64);

	for (; room != 0; room &= room - 1) {
		uint64_t word = group * 64 + (uint64_t)__builtin_ctzll(room), index;

		if (word >= p->words)
			break;
		index = take_in_word(p, word, 1, 1);
		if (index != QY_NO_PAGE)
			return index;
		word_filled(p, word);
	}
	return QY_NO_PAGE;
}

/* The free pages that the search has come by last, without a gap. */
struct gap {
	uint64_t first, length;
	bool beaten; /* somebody took of one before us */
};

/* Take n of the gap, where it has room for them from a multiple of align on; where somebody else did meanwhile, the gap
 * is what lies beyond. */
static uint64_t take_of_gap(quarry_pages *p, struct gap *gap, uint64_t n, uint64_t align)
{
	uint64_t end = gap->first + gap->length, blocked;

	for (;;) {
		uint64_t first = qy_align_up(gap->first, align);

		if (first + n > end)
			return QY_NO_PAGE;
		if (claim(p, first, n, &blocked))
			return first;
		gap->beaten = true;
		gap->first = qy_min((blocked | 63) + 1, end);
		gap->length = end - gap->first;
	}
}

/* One word more: the gap grows by it, or ends in it, and another begins at its end. */
static uint64_t take_at_word(quarry_pages *p, struct gap *gap, uint64_t word, uint64_t n, uint64_t align)
{
	/* (Acquired: who sees what an operation did sees that it has begun.) */
	uint64_t used = atomic_load_explicit(&p->used[word], memory_order_acquire), index;

	if (used == FULL && gap->length == 0)
		return QY_NO_PAGE;
	if (gap->length == 0)
		gap->first = word * 64;
	if (used == 0) {
		gap->length += 64;
		return take_of_gap(p, gap, n, align);
	}
	gap->length += (uint64_t)__builtin_ctzll(used);
	index = take_of_gap(p, gap, n, align);
	if (index == QY_NO_PAGE && n <= 64)
		index = take_in_word(p, word, n, align);
	gap->length = (uint64_t)__builtin_clzll(used);
	gap->first = word * 64 + 64 - gap->length;
	return index;
}

/* A run that begins in words [from, end), and may end beyond. Sets *beaten when one was there, for a moment. */
static uint64_t take_in_words(quarry_pages *p, uint64_t from, uint64_t end, uint64_t n, uint64_t align, bool *beaten)
{
	struct gap gap = { from * 64, 0, false };

	for (uint64_t word = from; word < p->words; word++) {
		uint64_t index;

		if (word >= end && (gap.length == 0 || gap.first >= end * 64))
			break;
		index = take_at_word(p, &gap, word, n, align);
		if (index != QY_NO_PAGE)
			return index;
	}
	*beaten |= gap.beaten;
	return QY_NO_PAGE;
}

static uint64_t group_end(const quarry_pages *p, uint64_t group)
{
	return qy_min((group + 1) * 64, p->words);
}

static bool is_full_group(quarry_pages *p, uint64_t group)
{
	return atomic_load(&p->full_groups[group / 64]) >> group % 64 & 1;
}

static uint64_t take_in_group(quarry_pages *p, uint64_t group, uint64_t n, uint64_t align)
{
	uint32_t none = atomic_load_explicit(&p->none[group], memory_order_relaxed);
	bool beaten = false;
	uint64_t index;

	if (is_full_group(p, group) || (none != 0 && n >= none))
		return QY_NO_PAGE;
	if (n == 1 && align == 1)
		return take_one_in_group(p, group, 0);
	index = take_in_words(p, group * 64, group_end(p, group), n, align, &beaten);
	/* (Of aligned ones there may be none where others are.) */
	if (index == QY_NO_PAGE && align == 1)
		atomic_store_explicit(&p->none[group], (uint32_t)n, memory_order_relaxed);
	return index;
}

/* ---- the search ---- */

/* All groups from one on, the first at last once more, whole. Full ones are passed 64 at a time. */
static uint64_t take_by_hints(quarry_pages *p, uint64_t from, uint64_t n, uint64_t align)
{
	uint64_t index, group = from / 64;
	bool beaten = false;

	if (n == 1 && align == 1)
		index = take_one_in_group(p, group, from);
	else
		index = take_in_words(p, from, group_end(p, group), n, align, &beaten);
	for (uint64_t left = p->groups; index == QY_NO_PAGE && left > 0;) {
		uint64_t step = 1;

		group = group + 1 < p->groups ? group + 1 : 0;
		if (group % 64 == 0 && left >= 64 && atomic_load(&p->full_groups[group / 64]) == FULL)
			step = 64;
		else
			index = take_in_group(p, group, n, align);
		group += step - 1;
		left -= step;
	}
	return index;
}

static uint64_t take_one_of_all(quarry_pages *p)
{
	for (uint64_t word = 0; word < p->words; word++) {
		uint64_t index = QY_NO_PAGE;

		if (atomic_load_explicit(&p->used[word], memory_order_acquire) != FULL)
			index = take_in_word(p, word, 1, 1);
		if (index != QY_NO_PAGE)
			return index;
	}
	return QY_NO_PAGE;
}

/* Each word, whatever the summaries say. */
static uint64_t take_by_all(quarry_pages *p, uint64_t n, uint64_t align, bool *beaten)
{
	uint64_t index;

	atomic_fetch_add_explicit(&p->looks, 1, memory_order_relaxed);
	index = n == 1 && align == 1 ? take_one_of_all(p) : take_in_words(p, 0, p->words, n, align, beaten);
	if (index != QY_NO_PAGE)
		forget_none(p, index >> QY_PAGES_GROUP_SHIFT);
	return index;
}

/* Whether all that has begun is over, but for our own operation: *ended is what qy_pages_begun says as long as that is
 * so, and nothing was done. */
static bool is_quiet(quarry_pages *p, uint64_t *ended)
{
	*ended = qy_pages_ended(p) + 1;
	return qy_pages_begun(p) == *ended;
}

/* The last look, in which nobody does anything. In vain it is the truth, unless something under way did not end. */
static QY_COLD uint64_t take_in_quiet(quarry_pages *p, struct qy_pages_stripe *stripe, uint64_t n, uint64_t align)
{
	uint64_t patience = (uint64_t)p->patience_ms * 1000000, until, index = QY_NO_PAGE, ended;
	uint32_t mine = qy_pages_quiet(p, stripe, patience);
	bool beaten = false, known = false;

	until = qy_os->now_ns() + patience;
	for (unsigned i = 0; mine != 0 && !known && (i == 0 || qy_os->now_ns() < until); i++) {
		if (atomic_load_explicit(&p->quiet, memory_order_relaxed) != mine) {
			mine = qy_pages_quiet(p, stripe, patience);
		} else if (is_quiet(p, &ended)) {
			index = take_by_all(p, n, align, &beaten);
			known = index != QY_NO_PAGE || qy_pages_begun(p) == ended;
		} else if (i < SPINS) {
			qy_spin();
		} else {
			qy_sleep_on(&p->quiet, mine, 1);
		}
	}
	if (mine != 0)
		qy_pages_loud(p, mine);
	if (index == QY_NO_PAGE)
		errno = known ? ENOMEM : EAGAIN;
	return index;
}

/* What others have for a moment, and give back, is not gone: only when nobody did anything meanwhile (but we, who have
 * begun) is a search in vain the truth. */
static QY_COLD uint64_t take_thoroughly(quarry_pages *p, struct qy_pages_stripe *stripe, uint64_t n, uint64_t align)
{
	uint64_t most = qy_min(qy_max(LOOKED_WORDS / p->words, LOOKS_MIN), LOOKS);

	for (uint64_t look = 0, counted = 0; look < LOOKS && counted < most; look++) {
		bool beaten = false;
		uint64_t ended = qy_pages_ended(p), index = take_by_all(p, n, align, &beaten);

		if (index != QY_NO_PAGE)
			return index;
		if (qy_pages_begun(p) == ended + 1) {
			errno = ENOMEM;
			return QY_NO_PAGE;
		}
		counted += !beaten;
	}
	return take_in_quiet(p, stripe, n, align);
}

/* How far a word is from the thread's home, going up and round. */
static uint64_t way(const quarry_pages *p, const struct qy_pages_stripe *stripe, uint64_t word)
{
	return word >= stripe->home ? word - stripe->home : word + p->words - stripe->home;
}

static void move_hint(const quarry_pages *p, const struct qy_pages_stripe *stripe, _Atomic(uint64_t) *hint,
		      uint64_t word)
{
	if (way(p, stripe, word) < way(p, stripe, atomic_load_explicit(hint, memory_order_relaxed)))
		atomic_store_explicit(hint, word, memory_order_relaxed);
}

void qy_pages_hint(quarry_pages *p, struct qy_pages_stripe *stripe, uint64_t index, uint64_t n)
{
	move_hint(p, stripe, &stripe->hint, index / 64);
	if (n > 1)
		move_hint(p, stripe, &stripe->run_hint, index / 64);
}

uint64_t qy_pages_take(quarry_pages *p, struct qy_pages_stripe *stripe, uint64_t n, uint64_t align)
{
	_Atomic(uint64_t) *hint = n == 1 ? &stripe->hint : &stripe->run_hint;
	uint64_t from = atomic_load_explicit(hint, memory_order_relaxed), index = QY_NO_PAGE;

	if (n <= 64)
		index = take_in_word(p, from, n, align);
	if (index == QY_NO_PAGE)
		index = take_by_hints(p, from, n, align);
	if (index == QY_NO_PAGE)
		index = take_thoroughly(p, stripe, n, align);
	if (index != QY_NO_PAGE && index / 64 != from)
		atomic_store_explicit(hint, index / 64, memory_order_relaxed);
	return index;
}
