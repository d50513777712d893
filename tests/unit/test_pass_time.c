/* SPDX-License-Identifier: MIT */
/* How long a look at what is to go back takes, by whoever makes it: no longer than it may, and what it leaves goes
 * soon. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <pthread.h>

#include "lib/reclaim/reclaim.h"
#include "tests/unit/tend_model.h"

#define DECAY 1000
#define SOME 12

static pthread_barrier_t all_there;
static const struct qy_os *inner;
static struct qy_os slow;
static uint64_t clock_ns;

/* Two thirds of a millisecond pass between two looks at it: the third in a pass finds that it is late. */
static uint64_t slow_ns(void)
{
	return clock_ns += 666667;
}

static uint64_t frozen_ns(void)
{
	return clock_ns;
}

static void begin_slow(void)
{
	inner = qy_os;
	slow = *qy_os;
	slow.now_ns = slow_ns;
	qy_os = &slow;
}

/* Whatever there is to look at: one batch of 32 slabs, of which two pieces each go back, and the rest the next time. */
Test(tend, a_pass_is_over_in_time, .timeout = 60)
{
	uint64_t most = 0, before;
	int64_t ms;

	begin_tend();
	quarry_tend();
	make_sparse();
	begin_slow();
	for (unsigned calls = 0; stats().resident >= 12 * MIB; calls++) {
		before = fake_os_advised(4); /* MADV_DONTNEED */
		ms = quarry_tend();
		cr_assert_gt(ms, 0);
		cr_assert_lt(calls, 2000, "it gets nowhere: %lu MiB", stats().resident >> 20);
		most = qy_max(most, fake_os_advised(4) - before);
		fake_os_advance((uint64_t)ms);
	}
	qy_os = inner;
	cr_assert_leq(most, 64, "%lu pieces in one call", most);
	loop();
	cr_assert_lt(stats().resident, 12 * MIB);
}

Test(timer, a_pass_is_over_in_time, .timeout = 60)
{
	uint64_t most = 0, before;

	begin_timer();
	make_sparse();
	begin_slow();
	for (unsigned rings = 0; stats().resident >= 12 * MIB; rings++) {
		cr_assert_gt(fake_os_timer(), 0);
		cr_assert_lt(rings, 2000, "it gets nowhere");
		before = fake_os_advised(4);
		fake_os_advance(fake_os_timer());
		fake_os_ring(true);
		most = qy_max(most, fake_os_advised(4) - before);
	}
	qy_os = inner;
	cr_assert_leq(most, 64, "%lu pieces by one signal", most);
	ring_out(true, 1000);
	cr_assert_eq(fake_os_timer(), 0);
}

/* What was cut goes on before long: in an idle process all is back in about the time that it was to take. */
Test(timer, what_a_pass_leaves_goes_soon, .timeout = 60)
{
	uint64_t began = qy_os->now_ms();

	begin_timer();
	make_sparse();
	begin_slow();
	slow.now_ns = frozen_ns; /* so the bytes of a pass end it */
	for (unsigned rings = 0; stats().resident >= 12 * MIB; rings++) {
		cr_assert_gt(fake_os_timer(), 0);
		cr_assert_lt(rings, 2000, "it gets nowhere");
		fake_os_advance(fake_os_timer());
		fake_os_ring(true);
	}
	qy_os = inner;
	cr_assert_leq(qy_os->now_ms(), began + DECAY, "%lu ms", qy_os->now_ms() - began);
}

/* Of several arenas each has its turn, be there much to do for the first. */
Test(tend, who_had_no_time_comes_first, .timeout = 60)
{
	quarry_arena *arenas[3];
	uint64_t before[3];

	begin_tend();
	quarry_tend();
	for (int i = 0; i < 3; i++)
		arenas[i] = dirty_arena(1000);
	make_sparse();
	make_dirt();
	fake_os_advance(2 * DECAY);
	begin_slow();
	for (int i = 0; i < 3; i++)
		before[i] = dirty_of(arenas[i]);
	for (int calls = 0; calls < 10; calls++) {
		quarry_tend();
		fake_os_advance(20);
	}
	qy_os = inner;
	for (int i = 0; i < 3; i++)
		cr_assert_lt(dirty_of(arenas[i]), before[i], "number %d", i);
}

/* In series as well, which is somebody's malloc: it begins with no other arena when its time is over, and the next one
 * goes on there. Each has so little that bytes would not end it. */
Test(series, a_pass_is_over_in_time, .timeout = 60)
{
	quarry_arena *arenas[SOME];
	uint64_t before[SOME];
	unsigned touched;

	begin_tend();
	for (int i = 0; i < SOME; i++) {
		void *p;

		arenas[i] = quarry_arena_create(NULL);
		cr_assert_not_null(arenas[i]);
		cr_assert_not_null(p = quarry_arena_malloc(arenas[i], 256 * KIB));
		memset(p, 1, 256 * KIB);
		quarry_free(p);
		cr_assert_geq(dirty_of(arenas[i]), 256 * KIB);
	}
	fake_os_advance(2 * DECAY);
	begin_slow();
	for (int pass = 0; pass < 2 * SOME; pass++) {
		touched = 0;
		for (int i = 0; i < SOME; i++)
			before[i] = dirty_of(arenas[i]);
		qy_reclaim_tick(1000000);
		for (int i = 0; i < SOME; i++)
			touched += dirty_of(arenas[i]) != before[i];
		cr_assert_leq(touched, 2, "%u arenas in two milliseconds, of which each look takes two thirds of one", touched);
		fake_os_advance(20);
	}
	qy_os = inner;
	for (int i = 0; i < SOME; i++)
		cr_assert_eq(dirty_of(arenas[i]), 0, "number %d", i);
}

/* Where a pass is cut, the next slow path goes on, until the limit holds. */
Test(series, soft_limits_are_kept_by_passes_that_are_cut, .timeout = 60)
{
	static char *p[4096];
	unsigned calls = 0;
	char limit[32];

	set("reclaim", "series");
	set("reclaim_interval", "1000000");
	for (unsigned i = 0; i < 4096; i++) {
		p[i] = quarry_malloc(40 * KIB);
		cr_assert_not_null(p[i]);
		memset(p[i], 1, 40 * KIB);
	}
	for (unsigned i = 0; i < 4096; i++)
		if (i % 8 != 0)
			quarry_free(p[i]);
	quarry_thread_flush();
	begin_slow();
	snprintf(limit, sizeof(limit), "%lu", stats().in_use + 20 * MIB);
	set("soft_limit", limit);
	for (; stats().free_dirty > 21 * MIB; calls++) {
		cr_assert_lt(calls, 4000, "%lu KiB stay", stats().free_dirty >> 10);
		cr_assert_not_null(quarry_aligned_alloc(4096, 64)); /* (it makes no dirt) */
	}
	qy_os = inner;
	fprintf(stderr, "test_pass_time: %u calls\n", calls);
}

/* Regions that are free, of which each is a call that takes long. */
Test(tend, regions_are_unmapped_in_time, .timeout = 60)
{
	unsigned long most = 0, before;
	struct qy_manager *node;

	begin_tend();
	quarry_tend();
	node = qy_manager_of_node(0);
	for (int i = 0; i < 40; i++)
		cr_assert(qy_manager_more(node, 8, 1));
	/* They are spared no more, and go when anything does. */
	for (struct qy_region *r = node->regions; r != NULL; r = r->next)
		r->fresh = false;
	make_some_dirt();
	fake_os_advance(2 * DECAY);
	cr_assert_geq(stats().regions, 40);
	begin_slow();
	for (unsigned calls = 0; stats().regions > 4; calls++) {
		before = stats().regions;
		quarry_tend();
		most = qy_max(most, before - stats().regions);
		cr_assert_lt(calls, 400, "%lu stay", stats().regions);
		fake_os_advance(20);
	}
	qy_os = inner;
	cr_assert_leq(most, 12, "%lu in one call", most);
}

static void *hold_some(void *arg)
{
	for (int i = 0; i < 1000; i++)
		((void **)arg)[i % 10] = quarry_malloc(1000);
	pthread_barrier_wait(&all_there); /* so that none takes another's caches over */
	return NULL;
}

/* What ended threads held, each as much as it had. */
Test(tend, caches_are_given_up_in_time, .timeout = 60)
{
	static void *live[16][10];
	pthread_t threads[16];
	uint64_t most = 0, orphans = 0;
	struct qy_manager *node;

	begin_tend();
	quarry_tend();
	node = qy_manager_of_node(0);
	cr_assert_eq(pthread_barrier_init(&all_there, NULL, 16), 0);
	for (int i = 0; i < 16; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, hold_some, live[i]), 0);
	for (int i = 0; i < 16; i++)
		pthread_join(threads[i], NULL);
	begin_slow();
	fake_os_advance(2 * DECAY);
	for (unsigned calls = 0; calls < 100; calls++) {
		quarry_tend();
		most = qy_max(most, qy_read(&node->orphans.slabs) - orphans);
		orphans = qy_read(&node->orphans.slabs);
		fake_os_advance(DECAY / 8);
	}
	qy_os = inner;
	cr_assert_geq(orphans, 16 * 1000 * 1000 / QY_UNIT, "all of them");
	cr_assert_leq(most, 3 * orphans / 16, "%lu slabs of %lu in one call", most, orphans);
}
