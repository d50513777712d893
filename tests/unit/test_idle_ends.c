/* SPDX-License-Identifier: MIT */
/* A thread whose caches are given up while it sleeps, when it is not asleep after all, ends, dies, or forks; and, last,
 * one as the real kernel sees it. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tests/unit/idle_model.h"

/* ---- when it is not where it seemed to be ---- */

Test(idle, one_that_runs_keeps_all)
{
	uint64_t held;
	int questions;

	begin();
	make(&a, allocate_and_free_odd);
	held = slabs_of(a.record);
	answer(1, 0);
	qy_threads_idle(qy_os->now_ms(), 0, UINT64_MAX);
	cr_assert_eq(slabs_of(a.record), held);
	cr_assert_eq(state_of(a.record), QY_TURNED);
	cr_assert_eq(orphans(), 0);
	cr_assert_eq(stats_now().idle_refused, 1);
	cr_assert_eq(stats_now().idle_given_up, 0);
	make(&a, check_even_and_free);
	cr_assert_eq(state_of(a.record), 0);
	make(&a, allocate);
	make(&a, check_and_free);
	cr_assert_eq(stats_now().bad_frees, 0);
	cr_assert_eq(orphans(), 0);
	/* It is tried again, ever more rarely, and does not ask for that itself. */
	answer(1, 1);
	atomic_store(&wakes, true);
	look_n_times(8);
	cr_assert_eq(stats_now().idle_refused, 2);
	questions = atomic_load(&asked);
	cr_assert_not(look_n_times(200));
	cr_assert_geq((atomic_load(&asked) - questions) / 2, 3);
	cr_assert_leq((atomic_load(&asked) - questions) / 2, 8);
	atomic_store(&wakes, false);
	look_n_times(64 * 4 + 8);
	cr_assert_eq(slabs_of(a.record), 0);
	end(&a);
}

static void free_the_last(struct sleeper *s)
{
	/* Of a full slab: something is due. */
	check(s->object[0], 0);
	quarry_free(s->object[0]);
}

static void wake_into_slow_path(int n)
{
	if (n != 1)
		return;
	tell(&a, free_the_last);
	while (qy_peek(a.record->depth) == 0 || atomic_load(&a.record->busy) != 0)
		sched_yield();
}

/* It had begun to free before it was turned, or woke up after: it waits to enter, blocked in a system call indeed, with
 * something left to do. */
Test(idle, one_that_waits_to_enter_is_let_in)
{
	uint64_t held;

	begin();
	make(&a, allocate);
	held = slabs_of(a.record);
	before_answer = wake_into_slow_path;
	qy_threads_idle(qy_os->now_ms(), 0, UINT64_MAX);
	before_answer = NULL;
	await(&a);
	cr_assert_eq(slabs_of(a.record), held);
	cr_assert_eq(stats_now().idle_refused, 1);
	cr_assert_eq(state_of(a.record), 0);
	make(&a, one);
	make(&a, check_and_free);
	cr_assert_eq(stats_now().bad_frees, 0);
	end(&a);
}

Test(idle, the_caller_is_never_idle)
{
	begin();
	for (unsigned i = 0; i < MANY; i++)
		cr_assert_not_null(quarry_malloc(SIZE));
	quarry_purge(NULL);
	cr_assert_eq(state_of(qy_tls.thread), 0);
	cr_assert_gt(slabs_of(qy_tls.thread), 0);
	cr_assert_eq(atomic_load(&asked), 0);
}

/* ---- ends ---- */

static uint32_t heaps(void)
{
	return atomic_load(&qy_manager_of_node(0)->heaps);
}

Test(idle, a_thread_that_was_given_up_ends_and_is_taken_over)
{
	struct qy_thread *record;
	uint32_t before;

	begin();
	make(&a, allocate_and_free_odd);
	before = heaps();
	qy_threads_idle(qy_os->now_ms(), 0, UINT64_MAX);
	cr_assert_eq(heaps(), before - 1);
	record = a.record;
	end(&a);
	cr_assert_eq(state_of(record), 0);
	cr_assert_eq(heaps(), before);
	make(&b, allocate);
	cr_assert_eq(b.record, record);
	make(&b, check_and_free);
	cr_assert_eq(stats_now().bad_frees, 0);
	end(&b);
	quarry_purge(NULL);
	cr_assert_eq(heaps(), 1);
}

/* By a bare exit: nobody is told, and it is found later. */
static struct qy_thread *die_given_up(void)
{
	struct qy_thread *record;

	begin();
	make(&a, allocate_and_free_odd);
	qy_threads_idle(qy_os->now_ms(), 0, UINT64_MAX);
	record = a.record;
	cr_assert_eq(state_of(record), QY_TURNED | QY_EMPTY);
	a.bare = true;
	end(&a);
	/* (It is joined a moment before the kernel has it gone.) */
	while (qy_os->thread_alive(record->pid, record->tid))
		sched_yield();
	fake_os_advance(2000);
	return record;
}

/* AddressSanitizer keeps its own record of each thread, and ends the process when one was not told of its end. */
static void need_silent_deaths(void)
{
#if defined(__SANITIZE_ADDRESS__)
	cr_skip("a thread that ends by a bare system call: AddressSanitizer does not bear that");
#endif
}

Test(idle, one_that_dies_given_up_and_is_taken_over)
{
	struct qy_thread *record;
	uint32_t before;

	need_silent_deaths();
	record = die_given_up();
	before = heaps();
	qy_threads_tidy(qy_os->now_ms(), UINT64_MAX - 1, UINT64_MAX);
	cr_assert_eq(record->state, QY_THREAD_PARKED);
	make(&b, allocate);
	cr_assert_eq(b.record, record);
	cr_assert_eq(state_of(record), 0);
	cr_assert_eq(heaps(), before + 1);
	make(&b, check_and_free);
	end(&b);
}

Test(idle, one_that_dies_given_up_and_is_not_taken_over)
{
	struct qy_thread *record;
	uint32_t before;

	need_silent_deaths();
	record = die_given_up();
	before = heaps();
	quarry_purge(NULL);
	cr_assert_eq(record->state, QY_THREAD_UNUSED);
	cr_assert_eq(heaps(), before);
	make(&b, allocate);
	cr_assert_eq(state_of(b.record), 0);
	make(&b, check_and_free);
	cr_assert_eq(heaps(), before + 1);
	end(&b);
	cr_assert_eq(stats_now().bad_frees, 0);
}

static quarry_arena *arena;

static void allocate_in_arena(struct sleeper *s)
{
	for (unsigned i = 0; i < MANY; i++)
		s->object[i] = quarry_arena_malloc(arena, SIZE);
}

/* Its arena ends while it sleeps. */
Test(idle, an_arena_ends_while_its_thread_sleeps)
{
	for (int given_up = 0; given_up < 2; given_up++) {
		struct sleeper *s = given_up ? &b : &a;
		struct qy_manager *m;

		begin();
		arena = quarry_arena_create(NULL);
		make(s, allocate_in_arena);
		m = qy_manager_of_arena(arena);
		cr_assert_eq(atomic_load(&m->heaps), 1);
		if (given_up) {
			qy_threads_idle(qy_os->now_ms(), 0, UINT64_MAX);
			cr_assert_eq(atomic_load(&m->heaps), 0);
		}
		cr_assert_eq(quarry_arena_reset(arena), 0);
		cr_assert_eq(atomic_load(&m->heaps), 0);
		make(s, allocate_in_arena);
		cr_assert_eq(atomic_load(&m->heaps), 1);
		qy_threads_idle(qy_os->now_ms(), 0, UINT64_MAX);
		cr_assert_eq(quarry_arena_destroy(arena), 0);
		make(s, allocate);
		make(s, check_and_free);
		end(s);
	}
	cr_assert_eq(stats_now().bad_frees, 0);
}

Test(idle, a_child_inherits_what_was_given_up)
{
	int status;
	pid_t pid;

	begin();
	make(&a, allocate_and_free_odd);
	qy_threads_idle(qy_os->now_ms(), 0, UINT64_MAX);
	pid = fork();
	cr_assert_geq(pid, 0);
	if (pid == 0) {
		for (unsigned i = 0; i < MANY; i += 2) {
			const unsigned char *c = a.object[i];

			if (c[0] != i % 251 || c[SIZE - 1] != i % 251)
				_exit(1);
			quarry_free(a.object[i]);
		}
		quarry_thread_flush();
		quarry_purge(NULL);
		if (used() > 2 * QY_UNIT || stats_now().bad_frees != 0)
			_exit(2);
		_exit(0);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", status);
	make(&a, check_even_and_free);
	end(&a);
}

/* ---- and all together, with the real kernel ---- */

Test(real, a_sleeping_thread, .timeout = 60)
{
	fake_os_threads(NULL, NULL);
	if (qy_os->thread_switches((int)syscall(SYS_gettid)) == 0)
		cr_skip_test("this kernel does not tell of threads, or is not the one under us");
	make(&a, allocate_and_free_odd);
	for (int n = 0; n < 5000 && slabs_of(a.record) != 0; n++) {
		struct timespec moment = { 0, 1000000 };

		nanosleep(&moment, NULL);
		qy_threads_idle(qy_os->now_ms(), 0, UINT64_MAX);
	}
	cr_assert_eq(slabs_of(a.record), 0);
	make(&a, check_even_and_free);
	end(&a);
}
