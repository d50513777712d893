/* SPDX-License-Identifier: MIT */
/* What a sleeping thread holds goes back. The threads are real and sleep in truth; whether they are blocked, and for
 * how long, is played by the fake kernel (test_blocked.c asks the real one). Where it goes wrong, and ends:
 * test_idle_ends.c. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tests/unit/idle_model.h"

/* ---- what goes back, and what the thread finds ---- */

Test(idle, what_a_sleeping_thread_holds_is_anybodys)
{
	uint64_t before, held;
	void *mine[MANY / 2];

	begin();
	make(&a, allocate_and_free_odd);
	held = slabs_of(a.record);
	cr_assert_gt(held, 3);
	before = used();
	qy_threads_idle(qy_os->now_ms(), 0, UINT64_MAX);
	cr_assert_eq(slabs_of(a.record), 0);
	cr_assert_eq(orphans(), held);
	cr_assert_eq(state_of(a.record), QY_TURNED | QY_EMPTY);
	cr_assert_eq(stats_now().idle_given_up, 1);
	cr_assert_eq(stats_now().idle_refused, 0);
	for (unsigned i = 0; i < MANY / 2 - 100; i++) {
		mine[i] = quarry_malloc(SIZE);
		memset(mine[i], 0xee, SIZE);
	}
	cr_assert_leq(used(), before, "the room it left is used");
	make(&a, check_even_and_free);
	cr_assert_eq(state_of(a.record), 0);
	for (unsigned i = 0; i < MANY / 2 - 100; i++)
		quarry_free(mine[i]);
	make(&a, allocate);
	make(&a, check_and_free);
	make(&a, flush);
	quarry_thread_flush();
	quarry_purge(NULL);
	cr_assert_leq(used(), 2 * QY_UNIT);
	cr_assert_eq(stats_now().bad_frees, 0);
	end(&a);
}

static struct qy_tls seen;

static void look_at_tls(struct sleeper *s)
{
	(void)s;
	seen = qy_tls;
}

Test(idle, its_words_are_its_own_again_after_one_slow_path)
{
	struct qy_tls was;

	begin();
	make(&a, allocate_and_free_odd);
	make(&a, look_at_tls);
	was = seen;
	cr_assert_eq(was.owner, (uintptr_t)a.record);
	qy_threads_idle(qy_os->now_ms(), 0, UINT64_MAX);
	make(&a, look_at_tls);
	cr_assert_eq(seen.cache, &qy_no_cache);
	cr_assert_eq(seen.owner, QY_OWNER_NONE);
	cr_assert_eq(seen.thread, was.thread);
	make(&a, one);
	make(&a, look_at_tls);
	cr_assert_eq(memcmp(&seen, &was, sizeof(seen)), 0);
	/* With junk, frees stay slow. */
	qy_threads_idle(qy_os->now_ms(), 0, UINT64_MAX);
	cr_assert_eq(quarry_ctl_set("junk", "1"), 0);
	make(&a, one);
	make(&a, look_at_tls);
	cr_assert_eq(seen.cache, was.cache);
	cr_assert_eq(seen.owner, QY_OWNER_NONE);
	end(&a);
}

static void free_all_of_a(struct sleeper *s)
{
	(void)s;
	for (unsigned i = 0; i < MANY; i++)
		quarry_free(a.object[i]);
}

/* The producer sleeps for ever, the consumer has freed everything: nobody else can take it in. */
Test(idle, mail_to_a_sleeping_thread_is_taken_in)
{
	uint64_t full;

	begin();
	make(&a, allocate);
	full = used();
	make(&b, free_all_of_a);
	make(&b, flush);
	quarry_purge(NULL);
	cr_assert_lt(used(), full / 4, "%lu of %lu", (unsigned long)used(), (unsigned long)full);
	cr_assert_eq(slabs_of(a.record), 0);
	end(&a);
	end(&b);
}

static void free_a_few_of_a(struct sleeper *s)
{
	(void)s;
	for (unsigned i = 0; i < 20; i++)
		quarry_free(a.object[i]);
}

/* b has gathered some for a's heap when that is closed, and sends them later. */
Test(idle, what_comes_late_goes_where_the_slabs_went)
{
	quarry_stats before;

	begin();
	make(&a, allocate);
	make(&b, one);
	make(&b, free_a_few_of_a);
	atomic_store(&only, a.record->tid);
	qy_threads_idle(qy_os->now_ms(), 0, UINT64_MAX);
	cr_assert_eq(state_of(a.record), QY_TURNED | QY_EMPTY);
	cr_assert_eq(state_of(b.record), 0);
	before = stats_now();
	make(&b, flush);
	for (unsigned i = 20; i < MANY; i++)
		quarry_free(a.object[i]);
	quarry_thread_flush();
	answer(0, 0);
	quarry_purge(NULL);
	cr_assert_eq(stats_now().bad_frees, before.bad_frees);
	make(&a, flush);
	make(&b, flush);
	quarry_purge(NULL);
	cr_assert_leq(used(), 2 * QY_UNIT);
	end(&a);
	end(&b);
}

/* What a sleeping thread has gathered for others goes to them. */
Test(idle, what_it_has_gathered_is_sent)
{
	begin();
	make(&a, allocate);
	make(&b, free_a_few_of_a);
	qy_threads_idle(qy_os->now_ms(), 0, UINT64_MAX);
	cr_assert_eq(b.record->sending, 0);
	cr_assert_eq(stats_now().idle_given_up, 2);
	end(&a);
	end(&b);
}

/* ---- when ---- */

Test(idle, a_thread_is_given_up_after_its_time_and_costs_nothing_then)
{
	uint64_t step = IDLE / 4;

	begin();
	make(&a, allocate_and_free_odd);
	cr_assert(qy_threads_idle(qy_os->now_ms(), IDLE, UINT64_MAX), "it may become idle");
	for (int n = 1; n < 4; n++) {
		fake_os_advance(step);
		cr_assert(qy_threads_idle(qy_os->now_ms(), IDLE, UINT64_MAX));
	}
	cr_assert_eq(atomic_load(&counted) + atomic_load(&asked), 0, "nothing is asked of the kernel before its time");
	cr_assert_gt(slabs_of(a.record), 0);
	fake_os_advance(step);
	qy_threads_idle(qy_os->now_ms(), IDLE, UINT64_MAX);
	cr_assert_eq(atomic_load(&counted), 1);
	cr_assert_eq(atomic_load(&asked), 2, "before it was turned and after");
	cr_assert_eq(slabs_of(a.record), 0);
	atomic_store(&asked, 0);
	for (int n = 0; n < 20; n++) {
		fake_os_advance(step);
		cr_assert_not(qy_threads_idle(qy_os->now_ms(), IDLE, UINT64_MAX));
	}
	cr_assert_eq(atomic_load(&counted), 1, "nothing is asked of the kernel any more");
	cr_assert_eq(atomic_load(&asked), 0);
	make(&a, one);
	fake_os_advance(step);
	cr_assert(qy_threads_idle(qy_os->now_ms(), IDLE, UINT64_MAX), "it is back");
	end(&a);
}

static void refill(struct sleeper *s)
{
	free_odd(s);
	for (unsigned i = 1; i < MANY; i += 2)
		s->object[i] = quarry_malloc(SIZE);
	quarry_free(quarry_malloc(40000));
}

Test(idle, one_that_runs_is_not_idle)
{
	begin();
	make(&a, allocate);
	answer(0, 0);
	look_n_times(100);
	cr_assert_gt(slabs_of(a.record), 0);
	cr_assert_leq(atomic_load(&asked), 12, "ever more rarely");
	answer(1, 1);
	/* Nor one that refilled, whatever the kernel says; of which it is not asked. */
	look_n_times(3);
	atomic_store(&counted, 0);
	for (int n = 0; n < 10; n++) {
		make(&a, refill);
		look_n_times(1);
	}
	cr_assert_gt(slabs_of(a.record), 0);
	cr_assert_eq(atomic_load(&counted), 0);
	look_n_times(6);
	cr_assert_eq(slabs_of(a.record), 0);
	end(&a);
}

static void hit(struct sleeper *s)
{
	s->object[1] = quarry_malloc(SIZE);
	quarry_free(s->object[1]);
}

/* How often it went off its CPU meanwhile does not matter. */
Test(idle, one_that_wakes_up_and_lives_on_its_caches_is_idle)
{
	begin();
	make(&a, allocate_and_free_odd);
	cr_assert(look_n_times(1));
	for (int n = 0; n < 3; n++) {
		atomic_fetch_add(&switches, 1);
		make(&a, hit);
		cr_assert(look_n_times(1));
	}
	cr_assert_gt(slabs_of(a.record), 0);
	make(&a, hit);
	look_n_times(1);
	cr_assert_eq(slabs_of(a.record), 0);
	cr_assert_eq(stats_now().idle_refused, 0);
	make(&a, check_even_and_free);
	end(&a);
}

/* Nobody is told when one that ran at every look goes to sleep: there are more of them, ever more rarely, and then only
 * when something else is to be done. */
Test(idle, one_that_ran_when_it_was_looked_at_is_looked_at_again)
{
	begin();
	make(&a, allocate);
	answer(0, 0);
	cr_assert(look_n_times(40 * 4));
	cr_assert_leq(atomic_load(&asked), 7);
	answer(1, 1);
	look_n_times(64 * 4);
	cr_assert_eq(slabs_of(a.record), 0);
	make(&a, check_and_free);
	make(&a, allocate);
	answer(0, 0);
	cr_assert_not(look_n_times(200 * 4));
	cr_assert_gt(slabs_of(a.record), 0);
	/* What it does tells more than how often it was let be. */
	make(&a, check_and_free);
	make(&a, allocate);
	answer(1, 1);
	cr_assert(look_n_times(1));
	look_n_times(4);
	cr_assert_eq(slabs_of(a.record), 0);
	end(&a);
}

Test(idle, where_the_kernel_does_not_say_nothing_is_done)
{
	begin();
	make(&a, allocate);
	atomic_store(&switches, 0);
	cr_assert_not(look_n_times(20));
	cr_assert_gt(slabs_of(a.record), 0);
	cr_assert_leq(atomic_load(&counted), 2);
	cr_assert_eq(atomic_load(&asked), 0);
	end(&a);
}

Test(idle, the_option_switches_it_off)
{
	begin();
	make(&a, allocate_and_free_odd);
	cr_assert_eq(quarry_ctl_set("idle_threads", "0"), 0);
	quarry_purge(NULL);
	cr_assert_gt(slabs_of(a.record), 0);
	cr_assert_eq(quarry_ctl_set("idle_threads", "1"), 0);
	quarry_purge(NULL);
	cr_assert_eq(slabs_of(a.record), 0);
	end(&a);
}
