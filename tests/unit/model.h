/* SPDX-License-Identifier: MIT */
/* What the tests against models share: random numbers from a seed that is printed, and checks that are cheap enough
 * for millions of them. The seed is fixed; QUARRY_TEST_SEED in the environment overrides it, 0 takes it from the
 * clock. */
#ifndef QUARRY_TESTS_MODEL_H
#define QUARRY_TESTS_MODEL_H

#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static uint64_t model_seed, model_state;

/* splitmix64 */
static inline uint64_t model_mix(uint64_t *state)
{
	uint64_t x = *state += 0x9e3779b97f4a7c15u;

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

/* Start anew, and print with what. */
static inline void model_start(const char *test)
{
	const char *text = getenv("QUARRY_TEST_SEED");

	model_seed = text == NULL ? 1 : strtoull(text, NULL, 0);
	if (model_seed == 0)
		model_seed = (uint64_t)time(NULL) * 1000003 + (uint64_t)clock();
	model_state = model_seed;
	fprintf(stderr, "%s: QUARRY_TEST_SEED=%" PRIu64 "\n", test, model_seed);
}

static inline uint64_t model_random(void)
{
	return model_mix(&model_state);
}

/* 0 .. n - 1 */
static inline uint32_t model_below(uint32_t n)
{
	return (uint32_t)((model_random() >> 32) * n >> 32);
}

/* 1 .. n, small ones more often: their logarithms are spread evenly. */
static inline uint32_t model_size(uint32_t n)
{
	uint32_t top = 1;

	while (top < n && model_below(12) != 0)
		top *= 2;
	return 1 + model_below(top < n ? top : n);
}

static inline bool model_one_in(uint32_t n)
{
	return model_below(n) == 0;
}

/* What model_must does when it fails; a fuzz target defines its own. Criterion's assertions tell the runner of each
 * one that holds too, which is too dear for these. And each of these messages is allocated, and freed by a thread of
 * Criterion's that sends it: with AddressSanitizer (of GCC 12), whose allocator's locks a fork does not wait for, a
 * child that allocates or makes threads stands for ever when its parent's other thread was at that. Where a test forks
 * many times these are used for this reason, and in the threads that go on meanwhile. */
#ifndef MODEL_FAIL
#include <criterion/criterion.h>
#define MODEL_FAIL(...) cr_assert(false, __VA_ARGS__)
#endif

#define model_must(x, ...)                                                                         \
	do {                                                                                       \
		if (__builtin_expect(!(x), 0)) {                                                   \
			fprintf(stderr, "%s:%d: not so: %s: ", __FILE__, __LINE__, #x);            \
			fprintf(stderr, __VA_ARGS__);                                              \
			fprintf(stderr, " (QUARRY_TEST_SEED=%" PRIu64 ")\n", model_seed);          \
			MODEL_FAIL("%s (QUARRY_TEST_SEED=%" PRIu64 ")", #x, model_seed);           \
		}                                                                                  \
	} while (0)

#endif
