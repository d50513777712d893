/* SPDX-License-Identifier: MIT */
/* Giving back without a thread, from the program's own loop: quarry_tend. How long a call takes: test_pass_time.c. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <unistd.h>

#include "lib/cache/idle.h"
#include "lib/cache/thread.h"
#include "lib/reclaim/reclaim.h"
#include "tests/unit/tend_model.h"

#define DECAY 1000

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
