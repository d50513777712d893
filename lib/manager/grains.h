/* SPDX-License-Identifier: MIT */
/* The grains of a mixed slab (mixed.h), as bits: which are free, which end an object, which stand in what page. For
 * mixed.c alone; the manager's lock is held, but where an object's own grains are read. */
#ifndef QUARRY_MANAGER_GRAINS_H
#define QUARRY_MANAGER_GRAINS_H

#include "lib/manager/mixed.h"

#define QY_PAGE_GRAINS (QY_PAGE / QY_MIXED_GRAIN)
#define QY_PAGE_GRAIN_WORDS (QY_PAGE_GRAINS / 64)
#define QY_UNIT_PAGES (QY_UNIT / QY_PAGE)

_Static_assert(QY_PAGE % (64 * QY_MIXED_GRAIN) == 0, "a page is whole words");

static inline bool qy_grain_is(const uint64_t *bits, uint32_t i)
{
	return bits[i / 64] >> (i % 64) & 1;
}

/* The bits from `from` to before `to`. */
static inline void qy_grains_set(uint64_t *bits, uint32_t from, uint32_t to, bool value)
{
	while (from < to) {
		uint32_t w = from / 64, n = (uint32_t)qy_min(to, (w + 1) * 64) - from;
		uint64_t mask = (n == 64 ? UINT64_MAX : ((uint64_t)1 << n) - 1) << (from % 64);

		qy_publish(bits[w], value ? bits[w] | mask : bits[w] & ~mask);
		from += n;
	}
}

/* The first bit at i or behind it that differs from those of `same`; QY_MIXED_GRAINS: none. */
static inline uint32_t qy_grains_next_other(const uint64_t *bits, uint32_t i, uint64_t same)
{
	uint32_t w = i / 64;
	uint64_t word;

	if (i >= QY_MIXED_GRAINS)
		return QY_MIXED_GRAINS;
	word = (qy_peek(bits[w]) ^ same) & UINT64_MAX << (i % 64);
	while (word == 0) {
		if (++w == QY_MIXED_WORDS)
			return QY_MIXED_GRAINS;
		word = qy_peek(bits[w]) ^ same;
	}
	return w * 64 + (uint32_t)__builtin_ctzll(word);
}

static inline uint32_t qy_grains_next_free(const struct qy_mixed_slab *r, uint32_t i)
{
	return qy_grains_next_other(r->free, i, 0);
}

static inline uint32_t qy_grains_next_used(const struct qy_mixed_slab *r, uint32_t i)
{
	return qy_grains_next_other(r->free, i, UINT64_MAX);
}

/* Where the free run begins that ends before i. */
static inline uint32_t qy_grains_run_before(const struct qy_mixed_slab *r, uint32_t i)
{
	uint32_t w = i / 64;
	uint64_t used = i % 64 == 0 ? 0 : ~r->free[w] & (((uint64_t)1 << (i % 64)) - 1);

	while (used == 0) {
		if (w-- == 0)
			return 0;
		used = ~r->free[w];
	}
	return w * 64 + 64 - (uint32_t)__builtin_clzll(used);
}

static inline uint32_t qy_grains_longest_run(const struct qy_mixed_slab *r)
{
	uint32_t longest = 0, end;

	for (uint32_t i = qy_grains_next_free(r, 0); i < QY_MIXED_GRAINS; i = qy_grains_next_free(r, end)) {
		end = qy_grains_next_used(r, i);
		longest = (uint32_t)qy_max(longest, end - i);
	}
	return longest;
}

static inline uint32_t qy_grain_of(const struct qy_slab *s, const void *p)
{
	return (uint32_t)((const char *)p - qy_slab_memory(s)) / QY_MIXED_GRAIN;
}

/* The grains of the object that begins at grain i. */
static inline uint32_t qy_grains_length(const struct qy_mixed_slab *r, uint32_t i)
{
	uint32_t last = qy_grains_next_other(r->end, i, 0);

	return (uint32_t)qy_min(last, QY_MIXED_GRAINS - 1) + 1 - i;
}

static inline bool qy_grain_is_parked(uint64_t gone, uint32_t i)
{
	return gone >> (i / QY_PAGE_GRAINS) & 1;
}

/* The pages that grains from i to before `end` stand in. */
static inline uint64_t qy_grains_pages(uint32_t i, uint32_t end)
{
	return ((uint64_t)2 << ((end - 1) / QY_PAGE_GRAINS)) - ((uint64_t)1 << (i / QY_PAGE_GRAINS));
}

static inline bool qy_grains_all_free(const struct qy_mixed_slab *r, uint32_t page)
{
	for (uint32_t w = page * QY_PAGE_GRAIN_WORDS; w < (page + 1) * QY_PAGE_GRAIN_WORDS; w++)
		if (r->free[w] != UINT64_MAX)
			return false;
	return true;
}

#endif
