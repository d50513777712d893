/* SPDX-License-Identifier: MIT */
/* A program without a reclaimer's thread, for the tests of quarry_tend and of the timer: a clock that the test moves, a
 * timer that rings when it says so, and what there is to give back. To be included once. */
#ifndef QUARRY_TESTS_TEND_MODEL_H
#define QUARRY_TESTS_TEND_MODEL_H

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "include/quarry/quarry.h"
#include "tests/fake_os.h"
#include "tests/unit/manager_model.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define START 1000000u

static __attribute__((constructor(101))) void make_machine(void)
{
	setenv("QUARRY_OPTIONS", "reclaim=off,decay_ms=1000,reclaim_signal=40,bring_home=0", 1);
	fake_os_install();
	fake_os_clock(START);
}

static inline void set(const char *name, const char *value)
{
	cr_assert_eq(quarry_ctl_set(name, value), 0, "%s", quarry_error_text());
}

static inline quarry_stats stats(void)
{
	quarry_stats now = { .version = QUARRY_STATS_VERSION };

	cr_assert_eq(quarry_stats_get(NULL, &now), 0);
	return now;
}

static inline void make_blocks_dirty(int blocks)
{
	char *p[64];

	for (int i = 0; i < blocks; i++) {
		p[i] = quarry_malloc(MIB);
		cr_assert_not_null(p[i]);
		memset(p[i], 1, MIB);
	}
	for (int i = 0; i < blocks; i++)
		quarry_free(p[i]);
}

/* Make 64 MiB dirty, in large blocks. */
static inline void make_dirt(void)
{
	make_blocks_dirty(64);
}

/* A thousand slabs, of each of which one object in sixteen stays. */
static inline void make_sparse(void)
{
	static char *p[64 * KIB];

	for (unsigned i = 0; i < 64 * KIB; i++) {
		p[i] = quarry_malloc(1008);
		cr_assert_not_null(p[i]);
		memset(p[i], 1, 1008);
	}
	for (unsigned i = 0; i < 64 * KIB; i++)
		if (i % 64 != 0)
			quarry_free(p[i]);
}

static inline uint64_t dirty_of(quarry_arena *arena)
{
	quarry_stats now = { .version = QUARRY_STATS_VERSION };

	cr_assert_eq(quarry_stats_get(arena, &now), 0);
	return now.free_dirty;
}

/* An arena with a decay of its own, and 64 MiB of it free. */
static inline quarry_arena *dirty_arena(long decay_ms)
{
	quarry_arena_attr attr = { .flags = QUARRY_ARENA_DECAY, .decay_ms = decay_ms };
	quarry_arena *arena = quarry_arena_create(&attr);
	char *p[64];

	cr_assert_not_null(arena);
	for (int i = 0; i < 64; i++) {
		p[i] = quarry_arena_malloc(arena, MIB);
		cr_assert_not_null(p[i]);
		memset(p[i], 1, MIB);
	}
	for (int i = 0; i < 64; i++)
		quarry_free(p[i]);
	return arena;
}

/* Ring until it rests; returns how often it rang. */
static inline unsigned ring_out(bool waiting, unsigned at_most)
{
	unsigned n = 0;

	for (; fake_os_timer() != 0 && n < at_most; n++) {
		fake_os_advance(fake_os_timer());
		fake_os_ring(waiting);
	}
	return n;
}

static inline void begin_timer(void)
{
	set("reclaim_interval", "1000000"); /* nothing goes back in series */
	set("reclaim", "timer");
}

static inline void begin_tend(void)
{
	set("reclaim", "series");
	set("reclaim_interval", "1000000");
}

/* As a loop would, for so long. */
static inline void tend_for(uint64_t ms)
{
	uint64_t end = qy_os->now_ms() + ms;

	while (qy_os->now_ms() < end) {
		int64_t in = quarry_tend();

		fake_os_advance(in < 0 ? end - qy_os->now_ms() : qy_min((uint64_t)in, end - qy_os->now_ms()));
	}
	quarry_tend();
}

static inline void ring_for(uint64_t ms)
{
	uint64_t end = qy_os->now_ms() + ms;

	while (fake_os_timer() != 0 && qy_os->now_ms() + fake_os_timer() <= end) {
		fake_os_advance(fake_os_timer());
		fake_os_ring(true);
	}
	fake_os_advance(end - qy_os->now_ms());
}

/* So little that nobody looks at pressure for it. */
static inline void make_some_dirt(void)
{
	make_blocks_dirty(16);
}

/* As an event loop would, without an event; returns how often it had to come. */
static inline unsigned loop(void)
{
	int64_t ms;
	unsigned calls = 0;

	while ((ms = quarry_tend()) >= 0) {
		cr_assert_gt(ms, 0);
		cr_assert_lt(++calls, 5000, "it never ends");
		if (stats().mapped >= 32 * MIB && calls > 400)
			break; /* pressure is looked at for as long as the heap is large */
		fake_os_advance((uint64_t)ms);
	}
	return calls;
}

#endif
