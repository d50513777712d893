/* SPDX-License-Identifier: MIT */
/* The reclaimer, with a clock that the test moves: who gives back, and what else is done by the way. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tests/unit/reclaim_model.h"

/* ---- who ---- */

static uint64_t passes(void)
{
	return qy_reclaim_passes();
}

Test(reclaim, off_is_off)
{
	begin(0);
	make_dirt(4 * MIB);
	fake_os_advance(10 * DECAY);
	for (uint32_t n = 1; n < 100000; n++)
		qy_reclaim_tick(n);
	cr_assert_eq(passes(), 0);
	cr_assert_not(qy_reclaim_running());
	cr_assert_eq(dirty(), 4 * MIB);
}

Test(reclaim, in_series_each_so_many_calls)
{
	uint64_t before;

	begin(0);
	set("reclaim", "series");
	set("reclaim_interval", "100");
	before = passes();
	for (uint32_t n = 1; n < 100; n++)
		qy_reclaim_tick(n);
	cr_assert_eq(passes(), before, "not yet");
	qy_reclaim_tick(100);
	cr_assert_eq(passes(), before + 1);
	make_dirt(4 * MIB);
	for (uint32_t n = 101; n <= 2000; n++)
		qy_reclaim_tick(n);
	cr_assert_gt(passes(), before + 1);
	cr_assert_eq(dirty(), 4 * MIB, "it has not decayed");
	fake_os_advance(DECAY);
	for (uint32_t n = 2001; n <= 200 * 300 && dirty() != 0; n++)
		qy_reclaim_tick(n);
	cr_assert_eq(dirty(), 0);
	cr_assert_not(qy_reclaim_running());
}

/* While there is nothing to do, passes become rare; and they become frequent when there is. */
Test(reclaim, in_series_rarely_while_there_is_nothing_to_do)
{
	uint64_t early, late;
	uint32_t n = 0;

	begin(0);
	set("reclaim", "series");
	set("reclaim_interval", "10");
	while (n < 1000)
		qy_reclaim_tick(++n);
	early = passes();
	cr_assert_gt(early, 0);
	while (n < 100000)
		qy_reclaim_tick(++n);
	late = passes();
	cr_assert_lt(late - early, 10 * early, "100 times the calls");
}

/* Slabs that nobody holds, of whose objects every other lives: there is much to look at, and nothing to give back. */
static _Atomic(int) holding;

static void *hold_the_lock(void *unused)
{
	(void)unused;
	qy_purge_hold();
	holding = 1;
	while (holding == 1)
		sched_yield();
	qy_purge_release();
	return NULL;
}

/* Somebody else gives back, or ends an arena: a malloc that would begin a pass goes on without. */
Test(reclaim, in_series_nobody_waits, .timeout = 20)
{
	pthread_t other;
	uint64_t before;

	begin(0);
	cr_assert_eq(pthread_create(&other, NULL, hold_the_lock, NULL), 0);
	while (holding == 0)
		sched_yield();
	set("reclaim", "series");
	set("reclaim_interval", "1");
	set("soft_limit", "1m");
	before = passes();
	for (int i = 0; i < 1000; i++) {
		fake_os_advance(10);
		quarry_free(quarry_malloc(4 * MIB));
	}
	cr_assert_eq(passes(), before);
	holding = 2;
	pthread_join(other, NULL);
	for (int i = 0; i < 1000; i++)
		quarry_free(quarry_malloc(4 * MIB));
	cr_assert_gt(passes(), before);
}

static void make_half_empty(uint32_t slabs)
{
	static struct qy_heap heap;
	uint64_t wanted = qy_read(&m->used) + (uint64_t)slabs * QY_UNIT;
	void *list, *next, *kept = NULL;
	bool zero;

	qy_heap_open(&heap, m, 64);
	while (qy_read(&m->used) < wanted)
		for (list = qy_heap_refill(&heap, 6, &zero); list != NULL; list = next) {
			next = qy_next_object(list);
			if ((uintptr_t)list / qy_classes[6].size % 2 != 0)
				continue;
			qy_link_object(list, kept);
			kept = list;
		}
	qy_heap_put_back(&heap, kept);
	qy_heap_abandon(&heap);
}

static uint64_t slow_ns(void)
{
	static uint64_t ns;

	return ns += 3000000;
}

/* A pass that was cut before it came to anything goes on with the next calls, not with ever later ones. */
Test(reclaim, in_series_what_was_cut_goes_on)
{
	const struct qy_os *inner;
	struct qy_os slow;
	uint64_t before;

	begin(0);
	make_half_empty(400);
	cr_assert_geq(qy_read(&m->orphans.slabs), 390);
	slow = *(inner = qy_os);
	slow.now_ns = slow_ns;
	qy_os = &slow;
	set("reclaim", "series");
	set("reclaim_interval", "10");
	before = passes();
	for (uint32_t n = 1; n <= 300; n++) {
		fake_os_advance(1);
		qy_reclaim_tick(n);
	}
	cr_assert_geq(passes() - before, 20, "%zu passes", (size_t)(passes() - before));
	qy_os = inner;
}

/* Through malloc: a program of one thread that goes on gets smaller by itself. */
Test(reclaim, a_program_that_goes_on_shrinks_in_series)
{
	static void *p[64];
	quarry_stats stats = { .version = QUARRY_STATS_VERSION };
	uint64_t peak;

	begin(0);
	set("reclaim", "series");
	set("reclaim_interval", "50");
	for (int i = 0; i < 64; i++) {
		p[i] = quarry_malloc(MIB);
		memset(p[i], 1, MIB);
	}
	cr_assert_eq(quarry_stats_get(NULL, &stats), 0);
	peak = stats.resident;
	cr_assert_geq(peak, 64 * MIB);
	for (int i = 0; i < 64; i++)
		quarry_free(p[i]);
	for (int n = 0; n < 20000; n++) {
		quarry_free(quarry_malloc(100 * KIB));
		fake_os_advance(1);
	}
	stats.version = QUARRY_STATS_VERSION;
	cr_assert_eq(quarry_stats_get(NULL, &stats), 0);
	cr_assert_lt(stats.resident, 8 * MIB);
	cr_assert_geq(stats.purged, 60 * MIB);
	cr_assert_gt(stats.passes, 0);
	cr_assert(stats.pass_ns > 0 && stats.pass_ns < UINT64_C(60000000000), "%lu ns", stats.pass_ns);
	cr_assert(stats.purge_ns > 0 && stats.purge_ns < UINT64_C(60000000000), "%lu ns", stats.purge_ns);
	cr_assert_not(qy_reclaim_running());
}

/* On demand too pages between survivors go back, at once, be the slabs those of the thread that asks. */
Test(reclaim, on_demand_pages_between_survivors_as_well)
{
	static void *p[100000];
	quarry_arena *arenas[2] = { NULL, NULL };
	quarry_stats stats;

	begin(0);
	arenas[1] = quarry_arena_create(NULL);
	for (int k = 0; k < 2; k++) {
		uint64_t full;

		for (int i = 0; i < 100000; i++) {
			p[i] = quarry_arena_malloc(arenas[k], 300);
			memset(p[i], 1, 300);
		}
		stats.version = QUARRY_STATS_VERSION;
		cr_assert_eq(quarry_stats_get(arenas[k], &stats), 0);
		full = stats.in_use;
		for (int i = 0; i < 100000; i++)
			if (i % 50 != 0)
				quarry_free(p[i]);
		cr_assert_geq(quarry_purge(arenas[k]), full / 2);
		cr_assert_eq(quarry_purge(arenas[k]), 0, "once is all of it");
		for (int i = 0; i < 100000; i += 50)
			quarry_free(p[i]);
	}
}

/* The thread does by itself what falls due. The clock is the test's; the waiting has no bound but the test's own. */
Test(reclaim, in_parallel_by_a_thread_of_its_own, .timeout = 60)
{
	begin(0);
	set("decay_ms", "30");
	set("reclaim", "parallel");
	qy_reclaim_tick(1024);
	while (!qy_reclaim_running())
		sched_yield();
	make_dirt(4 * MIB);
	qy_reclaim_tick(1);
	fake_os_advance(1000);
	while (qy_read(&m->purged) < 4 * MIB) {
		qy_reclaim_tick(1);
		sched_yield();
	}
	/* Asleep since there was nothing, it wakes for what is new. */
	make_dirt(4 * MIB);
	fake_os_advance(1000);
	while (qy_read(&m->purged) < 8 * MIB) {
		qy_reclaim_tick(1);
		sched_yield();
	}
	qy_lock(&m->lock);
	cr_assert_eq(dirty(), 0);
	qy_unlock(&m->lock);
}

static void wait_for_purged(struct qy_manager *of, uint64_t bytes)
{
	while (qy_read(&of->purged) < bytes) {
		qy_reclaim_tick(1);
		sched_yield();
	}
}

/* What others free stays for an hour, and the thread sleeps for as long as that allows. */
Test(reclaim, the_thread_hears_of_dirt_that_falls_due_before_all_else, .timeout = 60)
{
	struct qy_manager *soon;
	uint64_t before;

	fake_os_thp_disabled(1); /* what looks for dense memory comes by often at first, and would do all of it */
	begin(0);
	soon = new_manager(0);
	atomic_store(&soon->decay_ms, 30);
	set("decay_ms", "3600000");
	set("reclaim", "parallel");
	qy_reclaim_tick(1024);
	while (!qy_reclaim_running())
		sched_yield();
	before = passes();
	make_dirt(4 * MIB);
	qy_reclaim_tick(1);
	while (passes() == before)
		sched_yield();
	for (uint64_t n = 1; n <= 3; n++) {
		bool zero;
		char *p = qy_large_alloc(soon, 4 * MIB, QY_PAGE, &zero);

		cr_assert_not_null(p);
		content_write(p, 4 * MIB / QY_PAGE, 42);
		cr_assert(qy_large_free(p));
		qy_reclaim_tick(1);
		fake_os_advance(1000);
		wait_for_purged(soon, n * 4 * MIB);
		/* (It has gone to sleep again, most likely, and is to be woken.) */
		usleep(100000);
	}
	cr_assert_eq(qy_read(&m->purged), 0);
	/* It has its rest while all that there is to wait for is the others. */
	before = passes();
	usleep(300000);
	cr_assert_leq(passes(), before + 2);
}

Test(reclaim, a_thread_that_cannot_be_had_is_done_without)
{
	int status;
	pid_t child;

	begin(0);
	set("reclaim", "auto");
	set("reclaim_interval", "10");
	/* In a child, which has one thread for sure: the test runner may have started one of its own in this
	 * process. */
	child = fork();
	cr_assert_geq(child, 0);
	if (child == 0) {
		for (uint32_t n = 1; n <= 1000; n++)
			qy_reclaim_tick(n);
		_exit(qy_reclaim_running() ? 1 : passes() == 0 ? 2 : 0);
	}
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert_eq(status, 0, "one thread, a small heap: a guest starts no threads");
}

/* ---- chores ---- */

static void *allocate_and_leave(void *p)
{
	for (int i = 0; i < 3000; i++)
		((void **)p)[i % 10] = quarry_malloc(1000);
	return NULL;
}

/* What a thread that is gone held goes back after a while, and what of it is live stays. */
Test(reclaim, what_dead_threads_held_goes_back, .timeout = 60)
{
	static void *live[10];
	struct qy_manager *node;
	uint64_t used;
	pthread_t thread;

	begin(0);
	node = qy_manager_of_node(0);
	quarry_free(quarry_malloc(1)); /* this thread is known, and takes over nobody's memory */
	cr_assert_eq(pthread_create(&thread, NULL, allocate_and_leave, live), 0);
	pthread_join(thread, NULL);
	used = qy_read(&node->used);
	cr_assert_geq(used, 3000 * 1000);
	for (int i = 0; i < 10; i++)
		content_write(live[i], 0, 1);
	set("reclaim", "series");
	set("reclaim_interval", "1");
	qy_reclaim_tick(1);
	cr_assert_eq(qy_read(&node->orphans.slabs), 0, "kept whole for a thread that may come");
	fake_os_advance(DECAY);
	for (uint32_t n = 2; n < 100000 && qy_read(&node->orphans.slabs) == 0; n++)
		qy_reclaim_tick(n);
	cr_assert_gt(qy_read(&node->orphans.slabs), 0, "its slabs are nobody's now, for anyone to take over");
	for (int i = 0; i < 10; i++)
		cr_assert_geq(quarry_usable_size(live[i]), 1000);
	qy_reclaim_now();
	cr_assert_leq(qy_read(&node->used), used);
}

/* Objects sent home to slabs that nobody holds are taken in by the pass, and the slabs go back. */
Test(reclaim, mail_for_slabs_that_nobody_holds_is_taken_in)
{
	static struct qy_heap heap;
	static void *out[64];
	bool zero;
	void *list;
	unsigned n = 0;

	begin(0);
	qy_heap_open(&heap, m, 64);
	for (int k = 0; k < 4; k++)
		for (list = qy_heap_refill(&heap, 60, &zero); list != NULL; list = qy_next_object(list))
			out[n++] = list;
	qy_heap_abandon(&heap);
	cr_assert_gt(qy_read(&m->used), 0);
	for (unsigned i = 0; i < n; i++)
		qy_heap_send(&m->orphans, out[i], out[i]);
	fake_os_advance(DECAY);
	purge(DECAY);
	cr_assert_eq(qy_read(&m->used), 0);
	fake_os_advance(DECAY);
	purge(DECAY);
	cr_assert_eq(dirty(), 0);
}

/* All managers are looked at. */
Test(reclaim, now_is_all_of_it)
{
	struct qy_manager *all[5];
	size_t bytes = 0;

	begin(0);
	for (int i = 0; i < 5; i++) {
		all[i] = m = new_manager(0);
		make_dirt((size_t)(i + 1) * 4 * MIB);
	}
	bytes = qy_reclaim_now();
	cr_assert_eq(bytes, 60 * MIB);
	for (int i = 0; i < 5; i++)
		cr_assert_eq(qy_read(&all[i]->dirty_pages), 0);
	cr_assert_eq(qy_reclaim_now(), 0);
}
