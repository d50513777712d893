/* SPDX-License-Identifier: MIT */
/* Giving back without a thread, by a timer's signal: reclaim=timer. What comes of real signals:
 * tests/stress/timer.c. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/lock.h"
#include "lib/base/refused.h"
#include "lib/cache/idle.h"
#include "lib/cache/thread.h"
#include "lib/reclaim/reclaim.h"
#include "tests/unit/tend_model.h"

#define DECAY 1000

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

/* While it leaves a program alone that it found at work, or waits for what an arena keeps for long, it is there for
 * what comes sooner. */
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
