/* SPDX-License-Identifier: MIT */
/* What a sleeping thread holds goes back. The threads are real and sleep in truth; whether they are blocked, and for
 * how long, is played by the fake kernel (test_blocked.c asks the real one), but for the last test. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "include/quarry/quarry.h"
#include "lib/cache/idle.h"
#include "lib/manager/manager.h"
#include "tests/fake_os.h"

#define SIZE 112
#define MANY 3000
#define START 1000000u
#define IDLE 1000u

static __attribute__((constructor(101))) void make_machine(void)
{
	setenv("QUARRY_OPTIONS", "reclaim=off,decay_ms=1000", 1);
	fake_os_install();
	fake_os_clock(START);
}

/* ---- the kernel, played ---- */

static _Atomic(int) asked, counted;          /* calls */
static _Atomic(int) answers[8], answers_set; /* of thread_blocked, the last one for ever */
static void (*before_answer)(int n);
static _Atomic(int) only; /* the one thread that is blocked; 0: all as answered */
static _Atomic(uint64_t) switches = 1;
static _Atomic(bool) wakes; /* it is blocked at every other question only: when looked at, and no more when turned */

static int play_blocked(int tid)
{
	int n = atomic_fetch_add(&asked, 1), last = atomic_load(&answers_set) - 1;

	if (atomic_load(&only) != 0 && tid != atomic_load(&only))
		return 0;
	if (before_answer != NULL)
		before_answer(n);
	if (atomic_load(&wakes))
		return n % 2 == 0;
	return atomic_load(&answers[n < last ? n : last]);
}

static uint64_t play_switches(int tid)
{
	(void)tid;
	atomic_fetch_add(&counted, 1);
	return atomic_load(&switches);
}

static void answer(int first, int then)
{
	atomic_store(&asked, 0);
	atomic_store(&answers[0], first);
	atomic_store(&answers[1], then);
	atomic_store(&answers_set, 2);
}

/* ---- a thread that sleeps, and does something when it is told to ---- */

struct sleeper {
	pthread_t thread;
	sem_t wake, done;
	void (*what)(struct sleeper *s);
	struct qy_thread *record;
	void *object[MANY];
	bool bare; /* ends so that nobody is told */
};

static void *sleep_and_do(void *arg)
{
	struct sleeper *s = arg;

	for (;;) {
		while (sem_wait(&s->wake) != 0)
			continue;
		if (s->what == NULL && s->bare)
			syscall(SYS_exit, 0);
		if (s->what == NULL)
			return NULL;
		s->what(s);
		s->record = qy_tls.thread;
		sem_post(&s->done);
	}
}

static void tell(struct sleeper *s, void (*what)(struct sleeper *s))
{
	s->what = what;
	sem_post(&s->wake);
}

static void await(struct sleeper *s)
{
	while (sem_wait(&s->done) != 0)
		continue;
}

static void make(struct sleeper *s, void (*what)(struct sleeper *s))
{
	if (s->thread == 0) {
		cr_assert(sem_init(&s->wake, 0, 0) == 0 && sem_init(&s->done, 0, 0) == 0);
		cr_assert_eq(pthread_create(&s->thread, NULL, sleep_and_do, s), 0);
	}
	tell(s, what);
	await(s);
}

static void end(struct sleeper *s)
{
	tell(s, NULL);
	cr_assert_eq(pthread_join(s->thread, NULL), 0);
}

static void write_on(void *p, unsigned i)
{
	memset(p, (int)(i % 251), SIZE);
}

static void check(const void *p, unsigned i)
{
	const unsigned char *c = p;

	for (unsigned n = 0; n < SIZE; n++)
		cr_assert_eq(c[n], i % 251, "object %u, byte %u", i, n);
}

static void allocate(struct sleeper *s)
{
	for (unsigned i = 0; i < MANY; i++) {
		s->object[i] = quarry_malloc(SIZE);
		write_on(s->object[i], i);
	}
}

static void free_odd(struct sleeper *s)
{
	for (unsigned i = 1; i < MANY; i += 2)
		quarry_free(s->object[i]);
}

static void allocate_and_free_odd(struct sleeper *s)
{
	allocate(s);
	free_odd(s);
}

static void check_even_and_free(struct sleeper *s)
{
	for (unsigned i = 0; i < MANY; i += 2) {
		check(s->object[i], i);
		quarry_free(s->object[i]);
	}
}

static void check_and_free(struct sleeper *s)
{
	for (unsigned i = 0; i < MANY; i++) {
		check(s->object[i], i);
		quarry_free(s->object[i]);
	}
}

static void one(struct sleeper *s)
{
	s->object[0] = quarry_malloc(SIZE);
	write_on(s->object[0], 0);
}

static void flush(struct sleeper *s)
{
	(void)s;
	quarry_thread_flush();
}

static quarry_stats stats_now(void)
{
	quarry_stats stats = { .version = QUARRY_STATS_VERSION };

	cr_assert_eq(quarry_stats_get(NULL, &stats), 0);
	return stats;
}

static uint64_t used(void)
{
	return qy_read(&qy_manager_of_node(0)->used);
}

static uint64_t slabs_of(const struct qy_thread *t)
{
	uint64_t n = 0;

	for (struct qy_cache *c = t->caches; c != NULL; c = c->next)
		n += qy_read(&c->heap.slabs);
	return n;
}

static uint64_t orphans(void)
{
	return qy_read(&qy_manager_of_node(0)->orphans.slabs);
}

static uint32_t state_of(struct qy_thread *t)
{
	return atomic_load(&t->idle);
}

static void begin(void)
{
	quarry_free(quarry_malloc(1));
	fake_os_threads(play_blocked, play_switches);
	answer(1, 1);
}

/* ---- what goes back, and what the thread finds ---- */

static struct sleeper a, b;

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
	for (unsigned i = 0; i < QY_OUT_RINGS; i++)
		cr_assert_eq(b.record->out[i].objects, 0);
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

static bool look_n_times(int n)
{
	bool more = false;

	for (; n > 0; n--) {
		fake_os_advance(IDLE / 4);
		more = qy_threads_idle(qy_os->now_ms(), IDLE, UINT64_MAX);
	}
	return more;
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
