/* SPDX-License-Identifier: MIT */
/* Giving back without a thread: quarry_tend and reclaim=timer, with a clock that the test moves and a timer that rings
 * when it says so. What comes of real signals: tests/stress/timer.c. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "include/quarry/quarry.h"
#include "lib/base/lock.h"
#include "lib/base/refused.h"
#include "lib/cache/idle.h"
#include "lib/cache/thread.h"
#include "lib/reclaim/reclaim.h"
#include "tests/fake_os.h"
#include "tests/unit/manager_model.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define START 1000000u
#define DECAY 1000
#define SOME 12

static __attribute__((constructor(101))) void make_machine(void)
{
	setenv("QUARRY_OPTIONS", "reclaim=off,decay_ms=1000,reclaim_signal=40,bring_home=0", 1);
	fake_os_install();
	fake_os_clock(START);
}

static void set(const char *name, const char *value)
{
	cr_assert_eq(quarry_ctl_set(name, value), 0, "%s", quarry_error_text());
}

static quarry_stats stats(void)
{
	quarry_stats now = { .version = QUARRY_STATS_VERSION };

	cr_assert_eq(quarry_stats_get(NULL, &now), 0);
	return now;
}

/* Make 64 MiB dirty, in large blocks. */
static void make_dirt(void)
{
	char *p[64];

	for (int i = 0; i < 64; i++) {
		p[i] = quarry_malloc(MIB);
		cr_assert_not_null(p[i]);
		memset(p[i], 1, MIB);
	}
	for (int i = 0; i < 64; i++)
		quarry_free(p[i]);
}

/* A thousand slabs, of each of which one object in sixteen stays. */
static void make_sparse(void)
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

static uint64_t dirty_of(quarry_arena *arena)
{
	quarry_stats now = { .version = QUARRY_STATS_VERSION };

	cr_assert_eq(quarry_stats_get(arena, &now), 0);
	return now.free_dirty;
}

/* An arena with a decay of its own, and 64 MiB of it free. */
static quarry_arena *dirty_arena(long decay_ms)
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

/* ---- quarry_tend ---- */

/* As an event loop would, without an event; returns how often it had to come. */
static unsigned loop(void)
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

Test(tend, a_loop_gives_back_what_is_free)
{
	set("reclaim", "series");
	make_dirt();
	cr_assert_geq(stats().resident, 64 * MIB);
	loop();
	cr_assert_lt(stats().resident, 4 * MIB);
	cr_assert_eq(stats().reclaimed_by, QUARRY_RECLAIMER_TENDED);
	cr_assert_eq(stats().reclaimer, 0);
}

Test(tend, and_what_the_loops_own_thread_holds)
{
	uint64_t given_up;

	set("reclaim", "series");
	quarry_tend();
	given_up = qy_read(&qy_idle_given_up);
	make_sparse();
	cr_assert_geq(stats().resident, 60 * MIB);
	loop();
	cr_assert_gt(qy_read(&qy_idle_given_up), given_up);
	cr_assert_lt(stats().resident, 12 * MIB, "1024 objects, of 2048 pages at most");
	/* And it allocates again, as before. */
	make_dirt();
	loop();
	cr_assert_lt(stats().resident, 12 * MIB);
}

Test(tend, nothing_to_do_is_said_and_cheap)
{
	uint64_t passes;

	set("reclaim", "series");
	loop();
	cr_assert_eq(quarry_tend(), -1);
	passes = qy_reclaim_passes();
	for (int i = 0; i < 1000; i++)
		cr_assert_eq(quarry_tend(), -1);
	cr_assert_eq(qy_reclaim_passes(), passes);
	make_dirt();
	cr_assert_gt(quarry_tend(), 0, "there is, now");
	cr_assert_eq(qy_reclaim_passes(), passes, "but not at once");
}

Test(tend, off_is_off)
{
	make_dirt();
	fake_os_advance(10 * DECAY);
	cr_assert_eq(quarry_tend(), -1);
	cr_assert_eq(stats().purged, 0);
	cr_assert_eq(stats().reclaimed_by, QUARRY_RECLAIMER_NONE);
}

Test(tend, errno_stays)
{
	set("reclaim", "series");
	make_dirt();
	fake_os_fail_advice(4, EINVAL); /* MADV_DONTNEED */
	fake_os_advance(DECAY);
	errno = EXFULL;
	quarry_tend();
	fake_os_advance(DECAY);
	quarry_tend();
	cr_assert_eq(errno, EXFULL);
}

/* Who has the purge lock is not waited for, nor a slow path of one's own. */
Test(tend, it_waits_for_nobody, .timeout = 20)
{
	uint64_t passes;
	struct qy_thread *t;

	set("reclaim", "series");
	quarry_tend();
	make_dirt();
	fake_os_advance(2 * DECAY);
	qy_purge_hold();
	cr_assert_eq(quarry_tend(), 20);
	qy_purge_release();
	passes = qy_reclaim_passes();
	t = qy_thread_enter();
	cr_assert_eq(quarry_tend(), 20, "inside a slow path");
	qy_thread_leave(t);
	cr_assert_eq(qy_reclaim_passes(), passes);
	fake_os_advance(2 * DECAY);
	cr_assert_gt(quarry_tend(), 0);
	cr_assert_eq(qy_reclaim_passes(), passes + 1);
	cr_assert_gt(stats().purged, 0);
}

/* With reclaim=auto it takes the thread's place, until it is no longer called. */
Test(tend, who_tends_is_asked_for_no_thread, .timeout = 60)
{
	set("large_heap", "1m");
	quarry_tend();
	set("reclaim", "auto");
	quarry_tend();
	make_dirt();
	for (int i = 0; i < 5000; i++)
		quarry_free(quarry_malloc(100 * KIB));
	cr_assert_eq(stats().reclaimed_by, QUARRY_RECLAIMER_TENDED);
	fake_os_advance(60000);
	make_dirt();
	for (int i = 0; i < 5000 && !qy_reclaim_running(); i++) {
		quarry_free(quarry_malloc(100 * KIB));
		fake_os_advance(1);
	}
	while (!qy_reclaim_running())
		usleep(1000);
	cr_assert_eq(stats().reclaimed_by, QUARRY_RECLAIMER_THREAD);
	cr_assert_eq(quarry_tend(), -1, "the thread sees to it");
}

/* ---- the timer ---- */

/* Ring until it rests; returns how often it rang. */
static unsigned ring_out(bool waiting, unsigned at_most)
{
	unsigned n = 0;

	for (; fake_os_timer() != 0 && n < at_most; n++) {
		fake_os_advance(fake_os_timer());
		fake_os_ring(waiting);
	}
	return n;
}

static void begin_timer(void)
{
	set("reclaim_interval", "1000000"); /* nothing goes back in series */
	set("reclaim", "timer");
}

Test(timer, is_armed_when_something_falls_due_and_rests_otherwise)
{
	unsigned rings;

	begin_timer();
	quarry_free(quarry_malloc(100));
	ring_out(true, 100);
	make_dirt();
	cr_assert_eq(fake_os_timer_signal(), 40);
	cr_assert_gt(fake_os_timer(), 0, "there is dirt");
	cr_assert_leq(fake_os_timer(), DECAY / 4);
	cr_assert_eq(stats().reclaimed_by, QUARRY_RECLAIMER_TIMER);
	rings = ring_out(true, 1000);
	cr_assert_eq(fake_os_timer(), 0, "at rest");
	cr_assert_lt(stats().resident, 4 * MIB);
	cr_assert_leq(rings, 30, "a handful of signals: %u", rings);
	cr_assert_eq(stats().reclaimer, 0);
}

Test(timer, gives_up_what_a_waiting_thread_holds)
{
	unsigned rings;

	begin_timer();
	make_sparse();
	rings = ring_out(true, 1000);
	cr_assert_eq(fake_os_timer(), 0);
	cr_assert_lt(stats().resident, 12 * MIB);
	cr_assert_leq(rings, 60, "%u", rings);
	/* Back, it arms the timer again. */
	make_dirt();
	cr_assert_gt(fake_os_timer(), 0);
	ring_out(true, 1000);
	cr_assert_lt(stats().resident, 12 * MIB);
}

/* Of a thread that may be in a hit, nothing is touched that is its own; and it is asked ever more rarely. */
Test(timer, leaves_a_running_thread_its_own)
{
	uint64_t given_up = qy_read(&qy_idle_given_up), longest = 0;

	begin_timer();
	make_sparse();
	make_dirt();
	for (int i = 0; i < 50; i++) {
		uint64_t ms = fake_os_timer();

		cr_assert_gt(ms, 0);
		longest = qy_max(longest, ms);
		fake_os_advance(ms);
		fake_os_ring(false);
	}
	cr_assert_eq(qy_read(&qy_idle_given_up), given_up);
	cr_assert_lt(stats().free_dirty, 2 * MIB, "what the managers have goes back");
	cr_assert_geq(stats().resident, 60 * MIB, "and what it holds stays");
	cr_assert_geq(longest, 4 * DECAY);
	/* It waits at last. */
	ring_out(true, 1000);
	cr_assert_lt(stats().resident, 12 * MIB);
}

/* While it leaves a program alone that it found at work, or waits for what an arena keeps for long, it is there for what
 * comes sooner. */
Test(timer, hears_of_dirt_while_it_is_armed_for_later)
{
	begin_timer();
	make_sparse();
	for (int i = 0; i < 20 && fake_os_timer() < 2 * DECAY; i++) {
		fake_os_advance(fake_os_timer());
		fake_os_ring(false);
	}
	cr_assert_geq(fake_os_timer(), 2 * DECAY);
	quarry_free(quarry_malloc(100 * KIB));
	quarry_free(quarry_malloc(100 * KIB));
	cr_assert_geq(fake_os_timer(), 2 * DECAY, "small change");
	make_dirt();
	cr_assert_gt(fake_os_timer(), 0);
	cr_assert_leq(fake_os_timer(), DECAY / 8);
	fake_os_advance(100);
	make_dirt();
	cr_assert_eq(fake_os_timer(), DECAY / 8 - 100, "what comes soon is not put off");
	ring_out(true, 1000);
	cr_assert_lt(stats().resident, 12 * MIB);
	dirty_arena(3600000);
	for (int i = 0; i < 20 && fake_os_timer() <= 100 * DECAY; i++) {
		fake_os_advance(fake_os_timer());
		fake_os_ring(true);
	}
	cr_assert_gt(fake_os_timer(), 100 * DECAY);
	make_dirt();
	cr_assert_leq(fake_os_timer(), DECAY / 8);
	for (int i = 0; i < 20; i++) {
		fake_os_advance(fake_os_timer());
		fake_os_ring(true);
	}
	cr_assert_lt(stats().resident, 80 * MIB);
}

/* What a thread holds tells nobody of itself: each so many slow calls it is told from who only computes. */
Test(timer, comes_soon_to_a_program_that_frees_after_it_computed)
{
	begin_timer();
	make_sparse();
	for (int i = 0; i < 20 && fake_os_timer() < 2 * DECAY; i++) {
		fake_os_advance(fake_os_timer());
		fake_os_ring(false);
	}
	cr_assert_geq(fake_os_timer(), 2 * DECAY);
	for (uint32_t calls = 1; calls < 1000000; calls++)
		qy_reclaim_tick(calls);
	cr_assert_geq(fake_os_timer(), 2 * DECAY, "a few calls");
	qy_reclaim_tick(1000000);
	cr_assert_leq(fake_os_timer(), DECAY / 8);
	fake_os_advance(100);
	qy_reclaim_tick(2000000);
	cr_assert_eq(fake_os_timer(), DECAY / 8 - 100, "it is not put off");
	ring_out(true, 1000);
	cr_assert_lt(stats().resident, 12 * MIB);
}

/* In a slow path, or with a lock, nothing is done at all, and it comes back. */
Test(timer, keeps_off_slow_paths_and_locks, .timeout = 20)
{
	static struct qy_lock lock = QY_LOCK_INIT(QY_RANK_LEAF);
	struct qy_thread *t;
	uint64_t passes;

	begin_timer();
	make_dirt();
	fake_os_advance(DECAY);
	passes = qy_reclaim_passes();
	t = qy_thread_enter();
	fake_os_ring(true);
	cr_assert_eq(fake_os_timer(), 20);
	qy_thread_leave(t);
	qy_lock(&lock);
	fake_os_ring(true);
	cr_assert_eq(fake_os_timer(), 20);
	qy_unlock(&lock);
	cr_assert(qy_trylock(&lock));
	cr_assert_not(qy_trylock(&lock));
	fake_os_ring(true);
	qy_unlock(&lock);
	cr_assert(qy_purge_try());
	fake_os_ring(true);
	qy_purge_done();
	qy_purge_hold();
	fake_os_ring(true);
	qy_purge_release();
	cr_assert_eq(qy_reclaim_passes(), passes);
	cr_assert_eq(fake_os_timer(), 20);
	fake_os_ring(true);
	cr_assert_eq(qy_reclaim_passes(), passes + 1);
	cr_assert_gt(stats().purged, 0);
}

Test(timer, small_change_is_no_reason_for_a_signal)
{
	begin_timer();
	quarry_free(quarry_malloc(100));
	ring_out(true, 1000);
	quarry_free(quarry_malloc(100 * KIB)); /* back from where it was given up */
	ring_out(true, 1000);
	cr_assert_eq(fake_os_timer(), 0);
	for (int i = 0; i < 100; i++)
		qy_reclaim_tick(1);
	cr_assert_eq(fake_os_timer(), 0);
}

/* Who wakes up every second and allocates a little is not asked each time. */
Test(timer, rings_rarely_for_a_program_that_ticks)
{
	unsigned rings = 0;
	uint64_t end;

	begin_timer();
	quarry_free(quarry_malloc(100));
	for (int second = 0; second < 600; second++) {
		end = qy_os->now_ms() + 1000;
		/* (Large enough for a slow path each time.) */
		quarry_free(quarry_malloc(40 * KIB));
		quarry_free(quarry_malloc(100));
		while (fake_os_timer() != 0 && qy_os->now_ms() + fake_os_timer() <= end) {
			fake_os_advance(fake_os_timer());
			fake_os_ring(true);
			if (second >= 300)
				rings++;
		}
		fake_os_advance(end - qy_os->now_ms());
	}
	cr_assert_leq(rings, 300, "%u in 300 seconds", rings);
}

Test(timer, that_cannot_be_had_is_done_without)
{
	fake_os_fail(FAKE_TIMER_MAKE, EAGAIN); /* RLIMIT_SIGPENDING */
	set("reclaim_interval", "10");
	set("reclaim", "timer");
	make_dirt();
	cr_assert_eq(stats().refused[QUARRY_REFUSED_TIMER], 1);
	cr_assert_eq(stats().reclaimed_by, QUARRY_RECLAIMER_SERIES);
	for (int n = 0; n < 20000; n++) {
		quarry_free(quarry_malloc(100 * KIB));
		fake_os_advance(1);
	}
	cr_assert_lt(stats().resident, 4 * MIB);
	cr_assert_eq(stats().refused[QUARRY_REFUSED_TIMER], 1, "it is asked for once");
	cr_assert_eq(stats().reclaimer, 0);
}

/* The program has taken the signal for itself since. */
Test(timer, whose_signal_was_taken_is_done_without)
{
	begin_timer();
	quarry_free(quarry_malloc(100));
	ring_out(true, 1000);
	fake_os_fail(FAKE_TIMER_SET, EBUSY);
	make_dirt();
	cr_assert_eq(stats().refused[QUARRY_REFUSED_TIMER], 1);
	cr_assert_eq(stats().reclaimed_by, QUARRY_RECLAIMER_SERIES);
}

/* It is armed, and the signal goes to a handler that the program has set meanwhile. */
Test(timer, whose_signal_goes_elsewhere_is_given_up)
{
	begin_timer();
	make_dirt();
	cr_assert_gt(fake_os_timer(), 0);
	fake_os_fail(FAKE_TIMER_SET, EBUSY);
	fake_os_advance(900);
	qy_reclaim_tick(1000000);
	cr_assert_eq(stats().refused[QUARRY_REFUSED_TIMER], 0, "it may be on its way");
	fake_os_advance(1000);
	qy_reclaim_tick(1000000);
	cr_assert_eq(stats().refused[QUARRY_REFUSED_TIMER], 1);
	cr_assert_eq(stats().reclaimed_by, QUARRY_RECLAIMER_SERIES);
}

Test(timer, of_a_child_is_made_anew)
{
	unsigned long made;
	int status;
	pid_t pid;

	begin_timer();
	make_dirt();
	made = fake_os_calls(FAKE_TIMER_MAKE);
	cr_assert_eq(made, 1);
	pid = fork();
	if (pid == 0) {
		void *p = quarry_malloc(MIB);

		if (fake_os_calls(FAKE_TIMER_MAKE) != made + 1 || fake_os_timer() == 0)
			_exit(1);
		quarry_free(p);
		ring_out(true, 1000);
		_exit(stats().resident < 4 * MIB ? 0 : 2);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%#x", (unsigned)status);
}

/* Each mode may follow each other. */
Test(timer, may_begin_and_end_at_run_time, .timeout = 60)
{
	begin_timer();
	make_dirt();
	cr_assert_gt(fake_os_timer(), 0);
	set("reclaim", "series");
	fake_os_ring(true);
	cr_assert_eq(fake_os_timer(), 0, "it is not the one any more");
	set("reclaim", "parallel");
	set("reclaim_interval", "1");
	quarry_free(quarry_malloc(100 * KIB));
	while (!qy_reclaim_running())
		usleep(1000);
	set("reclaim", "timer");
	while (qy_reclaim_running() || fake_os_timer() == 0) {
		quarry_free(quarry_malloc(MIB));
		fake_os_advance(10);
		usleep(1000);
	}
	set("reclaim_interval", "1000000");
	make_dirt();
	ring_out(true, 1000);
	cr_assert_lt(stats().resident, 4 * MIB);
}

/* ---- what is set ---- */

static void begin_tend(void)
{
	set("reclaim", "series");
	set("reclaim_interval", "1000000");
}

/* As a loop would, for so long. */
static void tend_for(uint64_t ms)
{
	uint64_t end = qy_os->now_ms() + ms;

	while (qy_os->now_ms() < end) {
		int64_t in = quarry_tend();

		fake_os_advance(in < 0 ? end - qy_os->now_ms() : qy_min((uint64_t)in, end - qy_os->now_ms()));
	}
	quarry_tend();
}

static void ring_for(uint64_t ms)
{
	uint64_t end = qy_os->now_ms() + ms;

	while (fake_os_timer() != 0 && qy_os->now_ms() + fake_os_timer() <= end) {
		fake_os_advance(fake_os_timer());
		fake_os_ring(true);
	}
	fake_os_advance(end - qy_os->now_ms());
}

Test(tend, goes_by_an_arenas_own_decay)
{
	quarry_arena *never, *soon;

	begin_tend();
	quarry_tend();
	never = dirty_arena(-1);
	tend_for(60000);
	cr_assert_geq(dirty_of(never), 60 * MIB);
	set("decay_ms", "-1");
	soon = dirty_arena(50);
	tend_for(2000);
	cr_assert_lt(dirty_of(soon), 4 * MIB);
	cr_assert_geq(dirty_of(never), 60 * MIB);
	/* Nor is it kept for as long as others keep theirs. */
	set("decay_ms", "3600000");
	tend_for(2000);
	soon = dirty_arena(50);
	tend_for(2000);
	cr_assert_lt(dirty_of(soon), 4 * MIB);
}

Test(timer, goes_by_an_arenas_own_decay)
{
	quarry_arena *never, *soon;

	begin_timer();
	never = dirty_arena(-1);
	make_dirt();
	ring_for(60000);
	cr_assert_geq(dirty_of(never), 60 * MIB);
	cr_assert_lt(stats().resident, 80 * MIB);
	set("decay_ms", "3600000");
	ring_for(2000);
	soon = dirty_arena(50);
	ring_for(2000);
	cr_assert_lt(dirty_of(soon), 4 * MIB);
	cr_assert_geq(dirty_of(never), 60 * MIB);
}

/* So little that nobody looks at pressure for it. */
static void make_some_dirt(void)
{
	char *p[16];

	for (int i = 0; i < 16; i++) {
		p[i] = quarry_malloc(MIB);
		cr_assert_not_null(p[i]);
		memset(p[i], 1, MIB);
	}
	for (int i = 0; i < 16; i++)
		quarry_free(p[i]);
}

Test(tend, hears_of_another_decay)
{
	begin_tend();
	set("decay_ms", "3600000");
	quarry_tend();
	make_some_dirt();
	tend_for(1000);
	cr_assert_geq(stats().free_dirty, 14 * MIB);
	set("decay_ms", "100");
	tend_for(2000);
	cr_assert_lt(stats().free_dirty, 4 * MIB);
	set("decay_ms", "-1");
	make_some_dirt();
	tend_for(60000);
	cr_assert_geq(stats().free_dirty, 14 * MIB);
	cr_assert_eq(quarry_mallopt(QUARRY_OPT_DECAY_MS, 100), 1);
	cr_assert_eq(stats().reclaimed_by, QUARRY_RECLAIMER_TENDED);
	tend_for(2000);
	cr_assert_lt(stats().free_dirty, 4 * MIB);
}

Test(timer, hears_of_another_decay)
{
	begin_timer();
	set("decay_ms", "-1");
	make_dirt();
	ring_for(60000);
	cr_assert_geq(stats().free_dirty, 60 * MIB);
	set("decay_ms", "100");
	cr_assert_gt(fake_os_timer(), 0);
	ring_for(2000);
	cr_assert_lt(stats().free_dirty, 4 * MIB);
	set("decay_ms", "3600000");
	make_dirt();
	ring_for(1000);
	cr_assert_gt(fake_os_timer(), 100000, "it is armed for much later");
	set("decay_ms", "100");
	cr_assert_leq(fake_os_timer(), 20);
	for (int i = 0; i < 10; i++) {
		fake_os_advance(10);
		set("decay_ms", "100");
	}
	cr_assert_eq(fake_os_timer(), 1, "and is not put off by who says it again");
	ring_for(2000);
	cr_assert_lt(stats().free_dirty, 4 * MIB);
}

Test(timer, hears_of_a_limit)
{
	quarry_arena *arena;

	begin_timer();
	set("decay_ms", "-1");
	arena = dirty_arena(-1);
	make_dirt();
	ring_for(60000);
	cr_assert_eq(quarry_arena_set_limits(arena, 0, 1), 0);
	ring_for(2000);
	cr_assert_lt(dirty_of(arena), 4 * MIB);
	cr_assert_geq(stats().free_dirty, 60 * MIB);
	set("soft_limit", "1m");
	ring_for(2000);
	cr_assert_lt(stats().free_dirty, 4 * MIB);
}

Test(timer, is_not_made_for_what_is_set_while_nothing_is_free)
{
	begin_timer();
	set("decay_ms", "10");
	set("soft_limit", "1g");
	cr_assert_eq(fake_os_timer(), 0);
	cr_assert_eq(fake_os_calls(FAKE_TIMER_MAKE), 0);
}

/* ---- how long a pass takes ---- */

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

/* ---- the real one, without a signal ---- */

static void handler(int sig)
{
	(void)sig;
}

static void nothing(const void *context)
{
	(void)context;
}

Test(os, a_timer_takes_no_handler_from_the_program)
{
	struct sigaction action = { .sa_handler = handler }, is;

	cr_assert_eq(sigaction(SIGUSR1, &action, NULL), 0);
	errno = 0;
	cr_assert_eq(qy_os_linux.timer_make(SIGUSR1, nothing), -1);
	cr_assert_eq(errno, EBUSY);
	cr_assert_eq(sigaction(SIGUSR1, NULL, &is), 0);
	cr_assert_eq(is.sa_handler, handler);
	errno = 0;
	cr_assert_eq(qy_os_linux.timer_make(SIGSEGV, nothing), -1);
	cr_assert_eq(errno, EINVAL);
	cr_assert_eq(qy_os_linux.timer_make(SIGKILL, nothing), -1);
	cr_assert_eq(qy_os_linux.timer_make(33, nothing), -1, "libc's own");
}

/* Without a timer it does again what it did. */
Test(os, a_signal_is_let_go_when_there_is_no_timer)
{
	struct rlimit none = { 0, 0 };
	struct sigaction is, ignored = { .sa_handler = SIG_IGN };

	cr_assert_eq(setrlimit(RLIMIT_SIGPENDING, &none), 0);
	errno = 0;
	cr_assert_eq(qy_os_linux.timer_make(SIGURG, nothing), -1);
	cr_assert_eq(errno, EAGAIN);
	cr_assert_eq(sigaction(SIGURG, NULL, &is), 0);
	cr_assert_eq(is.sa_handler, SIG_DFL);
	cr_assert_eq(sigaction(40, &ignored, NULL), 0);
	cr_assert_eq(qy_os_linux.timer_make(40, nothing), -1);
	cr_assert_eq(sigaction(40, NULL, &is), 0);
	cr_assert_eq(is.sa_handler, SIG_IGN);
}

Test(os, a_timer_is_lost_to_a_program_that_takes_its_signal)
{
	struct sigaction action = { .sa_handler = handler };
	int timer = qy_os_linux.timer_make(SIGURG, nothing);
	struct itimerspec left;

	cr_assert_geq(timer, 0);
	cr_assert_eq(qy_os_linux.timer_set(timer, 3600000), 0);
	cr_assert_eq(qy_os_linux.timer_set(timer, 0), 0);
	cr_assert_geq(qy_os_linux.timer_make(SIGURG, nothing), 0, "again, as a child does");
	cr_assert_eq(qy_os_linux.timer_set(timer, 3600000), 0);
	cr_assert_eq(sigaction(SIGURG, &action, NULL), 0);
	errno = 0;
	cr_assert_eq(qy_os_linux.timer_set(timer, 1), -1);
	cr_assert_eq(errno, EBUSY);
	cr_assert_eq(syscall(SYS_timer_gettime, timer, &left), 0);
	cr_assert(left.it_value.tv_sec == 0 && left.it_value.tv_nsec == 0, "what it was armed for does not come");
}

Test(os, what_can_be_read)
{
	char here[16] = "";

	cr_assert(qy_os_linux.readable(here));
	cr_assert_not(qy_os_linux.readable(NULL));
	cr_assert_not(qy_os_linux.readable((void *)(uintptr_t)4096));
}

/* ---- where a signal came ---- */

static volatile sig_atomic_t rang, was_waiting;
static int lines[2];

static void look(const void *context)
{
	was_waiting = qy_os_linux.was_waiting(context);
	rang++;
}

static void wait_in_handler(int sig)
{
	(void)sig;
	while (rang == 0)
		poll(NULL, 0, 10000);
}

static void make_ring(unsigned ms)
{
	static int timer = -1;

	if (timer < 0)
		timer = qy_os_linux.timer_make(SIGURG, look);
	cr_assert_geq(timer, 0);
	rang = 0;
	was_waiting = -1;
	cr_assert_eq(qy_os_linux.timer_set(timer, ms), 0);
}

Test(os, a_wait_is_told_from_work, .timeout = 60)
{
	volatile uint64_t sum = 0;
	struct sigaction action = { .sa_handler = wait_in_handler, .sa_flags = SA_RESTART };
	sigset_t none, one;
	char byte;

	make_ring(20);
	while (rang == 0)
		sum++;
	cr_assert_eq(was_waiting, 0, "it computes");

	make_ring(20);
	while (rang == 0)
		poll(NULL, 0, 10000);
	cr_assert_eq(was_waiting, 1, "poll, which ends with EINTR");

	make_ring(20);
	cr_assert_eq(pause(), -1);
	cr_assert_eq(was_waiting, 1);

	/* With another mask than its own. */
	sigemptyset(&none);
	make_ring(20);
	while (rang == 0)
		ppoll(NULL, 0, NULL, &none);
	cr_assert_eq(was_waiting, 1);

	/* A read, which is restarted: the handler feeds it. */
	cr_assert_eq(pipe(lines), 0);
	make_ring(20);
	if (fork() == 0) {
		poll(NULL, 0, 1000);
		cr_assert_eq(write(lines[1], "x", 1), 1);
		_exit(0);
	}
	cr_assert_eq(read(lines[0], &byte, 1), 1);
	cr_assert_eq(was_waiting, 1);

	/* In another handler, which may have interrupted anything. */
	cr_assert_eq(sigaction(SIGUSR1, &action, NULL), 0);
	make_ring(50);
	raise(SIGUSR1);
	cr_assert_eq(was_waiting, 0);

	/* A signal that has a handler is blocked: it may be that one. */
	sigemptyset(&one);
	sigaddset(&one, SIGUSR1);
	cr_assert_eq(sigprocmask(SIG_BLOCK, &one, NULL), 0);
	make_ring(20);
	while (rang == 0)
		poll(NULL, 0, 10000);
	cr_assert_eq(was_waiting, 0);
}

static void wait_on(size_t size)
{
	stack_t stack = { .ss_sp = malloc(size), .ss_size = size };

	cr_assert_not_null(stack.ss_sp);
	cr_assert_eq(sigaltstack(&stack, NULL), 0);
	make_ring(20);
	while (rang == 0)
		poll(NULL, 0, 10000);
}

Test(os, a_small_alternate_stack_is_not_for_long_work, .timeout = 60)
{
	wait_on(16 * KIB);
	cr_assert_eq(was_waiting, 0);
	wait_on(128 * KIB);
	cr_assert_eq(was_waiting, 1);
}
