/* SPDX-License-Identifier: MIT */
/* For tests of chains: a seeded generator, and a chain beside the flat string that it stands for. */
#ifndef QUARRY_TESTS_CHAIN_MODEL_H
#define QUARRY_TESTS_CHAIN_MODEL_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "include/quarry/chain.h"

#define MODEL_MAX 60000 /* bytes of one */

#define expect_error(call, error) \
	do { \
		errno = 0; \
		cr_expect((call) == -1 && errno == (error), "%s: errno %d", #call, errno); \
	} while (0)

/* What a chain stands for. */
struct model {
	quarry_chain chain;
	unsigned char *flat;
	size_t len;
};

struct rng {
	uint64_t state;
};

static inline uint64_t rng_next(struct rng *rng)
{
	uint64_t x = rng->state += 0x9e3779b97f4a7c15u;

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

/* 0 .. n - 1 */
static inline size_t rng_below(struct rng *rng, size_t n)
{
	return (size_t)(rng_next(rng) % n);
}

/* Mostly short, at most max. */
static inline size_t rng_size(struct rng *rng, size_t max)
{
	size_t n = rng_below(rng, (size_t)1 << (1 + rng_below(rng, 14)));

	return n < max ? n : max;
}

/* The seed of a test: fixed, or of the environment. Printed, so that a failure can be had again. */
static inline struct rng rng_start(uint64_t seed)
{
	const char *given = getenv("QUARRY_TEST_SEED");

	if (given != NULL)
		seed = strtoull(given, NULL, 0);
	printf("QUARRY_TEST_SEED=%llu\n", (unsigned long long)seed);
	fflush(stdout);
	return (struct rng){ seed };
}

/* As many random steps as QUARRY_STRESS_SCALE says: for long runs, with seeds of the environment. */
static inline int scaled(int steps)
{
	const char *scale = getenv("QUARRY_STRESS_SCALE");

	return scale != NULL && *scale != 0 ? (int)(steps * atof(scale)) : steps;
}

/* Few different bytes, so that what is looked for is there, and half there, often. */
static inline void rng_fill(struct rng *rng, unsigned char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (unsigned char)("abcde\r\n"[rng_next(rng) % 7]);
}

/* The promises of lib/object/chain.h, and the bytes. */
static inline void model_check(const struct model *m)
{
	const quarry_chain *c = &m->chain;
	const quarry_cseg *before = NULL;
	uint64_t index = c->origin;
	size_t segs = 0, len = 0;

	cr_assert_eq(c->len, m->len, "%llu bytes, should be %zu", (unsigned long long)c->len, m->len);
	for (const quarry_cseg *seg = c->first; seg != NULL; before = seg, seg = seg->next) {
		cr_assert(seg->len > 0 && seg->prev == before && seg->index == index, "segment %zu", segs);
		cr_assert(len + seg->len <= m->len && memcmp(seg->data, m->flat + len, seg->len) == 0,
			  "the bytes of segment %zu, from %zu on", segs, len);
		if (seg->storage != NULL) {
			const unsigned char *base = quarry_storage_data(seg->storage);

			cr_assert(quarry_storage_refs(seg->storage) > 0 && seg->data >= base);
			cr_assert_leq((size_t)(seg->data - base) + seg->len, quarry_storage_size(seg->storage));
		}
		index += seg->len;
		len += seg->len;
		segs++;
	}
	cr_assert(c->last == before && c->segs == segs && len == m->len, "%zu segments of %zu bytes", segs, len);
}

static inline void model_init(struct model *m)
{
	*m = (struct model){ .flat = malloc(2 * MODEL_MAX) };
	cr_assert_not_null(m->flat);
}

static inline void model_end(struct model *m)
{
	quarry_chain_free(&m->chain);
	free(m->flat);
}

/* The flat string's part of a change: remove `out` bytes at a place, and put n there. */
static inline void model_edit(struct model *m, size_t at, size_t out, const void *p, size_t n)
{
	cr_assert(at + out <= m->len && m->len - out + n <= 2 * MODEL_MAX);
	memmove(m->flat + at + n, m->flat + at + out, m->len - at - out);
	if (n > 0)
		memcpy(m->flat + at, p, n);
	m->len = m->len - out + n;
}

/* How many allocations there were, of all that the profile knows: each, after quarry_profile_start(1). */
static inline uint64_t allocations(void)
{
	quarry_profile_report report = { .struct_size = sizeof(report) };

	cr_assert_eq(quarry_profile_report_get(&report), 0);
	return report.allocated_objects;
}

#endif
