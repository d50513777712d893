/* SPDX-License-Identifier: MIT */
/* What a refusal at the process's limit costs, what serves before anybody is refused, and what high pressure does with
 * what sleeping threads hold. The threads are real; whether they are blocked is played. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/cache/idle.h"
#include "tests/unit/limits.h"

#define MANY 6000
#define TRIES 100

/* ---- a thread that does as it is told, and what the kernel says of it ---- */

static _Atomic(int) blocked, asked;

static int play_blocked(int tid)
{
	(void)tid;
	asked++;
	return blocked;
}

static uint64_t play_switches(int tid)
{
	(void)tid;
	return 1;
}

static struct qy_os kernel;
static const struct qy_os *fake_table;
static _Atomic(int) lives_asked;

static bool play_alive(int pid, int tid)
{
	lives_asked++;
	return fake_table->thread_alive(pid, tid);
}

struct worker {
	pthread_t thread;
	sem_t go, done;
	void (*what)(void);
};

static void *objects[MANY];

static void *work(void *arg)
{
	struct worker *w = arg;

	for (;;) {
		while (sem_wait(&w->go) != 0)
			continue;
		if (w->what == NULL)
			return NULL;
		w->what();
		sem_post(&w->done);
	}
}

static void make(struct worker *w, void (*what)(void))
{
	if (w->thread == 0) {
		cr_assert(sem_init(&w->go, 0, 0) == 0 && sem_init(&w->done, 0, 0) == 0);
		cr_assert_eq(pthread_create(&w->thread, NULL, work, w), 0);
	}
	w->what = what;
	sem_post(&w->go);
	while (sem_wait(&w->done) != 0)
		continue;
}

static void end(struct worker *w)
{
	w->what = NULL;
	sem_post(&w->go);
	cr_assert_eq(pthread_join(w->thread, NULL), 0);
}

/* Of many sizes: a thread keeps a slab of each, be it empty. */
static void take(void)
{
	for (unsigned i = 0; i < MANY; i++)
		cr_assert_not_null(objects[i] = quarry_malloc(16 + i % 80 * 16));
}

static void give(void)
{
	for (unsigned i = 0; i < MANY; i++)
		quarry_free(objects[i]);
}

static void take_and_give(void)
{
	take();
	give();
}

/* Its caches come back, with all but nothing in them. */
static void live(void)
{
	quarry_free(quarry_malloc(16));
}

static struct worker worker;

/* No byte more than is in use, and as many as are in use beside the given ones. */
static void limit_to(uint64_t more)
{
	set_bytes("hard_limit", sum_used() + more);
}

static void begin_with_threads(void)
{
	begin();
	set("idle_threads", "1");
	fake_os_threads(play_blocked, play_switches);
	fake_table = qy_os;
	kernel = *qy_os;
	kernel.thread_alive = play_alive;
	qy_os = &kernel;
	cr_assert_not_null(quarry_malloc(100));
}

/* ---- what a refusal costs ---- */

Test(denied, nothing_goes_back_for_a_refusal_at_the_limit)
{
	uint64_t passes, dirty;
	unsigned long advised;
	void *p;

	begin_with_threads();
	p = quarry_malloc(16 * MIB);
	memset(p, 1, 16 * MIB);
	quarry_free(p);
	limit_to(MIB);
	passes = qy_reclaim_passes();
	advised = fake_os_calls(FAKE_MADVISE);
	dirty = qy_read(&qy_manager_of_node(0)->dirty_pages);
	cr_assert_geq(dirty * QY_PAGE, 16 * MIB);
	for (int i = 0; i < TRIES; i++) {
		errno = 0;
		cr_assert_null(quarry_malloc(2 * MIB));
		cr_assert_eq(errno, ENOMEM);
	}
	cr_assert_eq(qy_reclaim_passes(), passes);
	cr_assert_eq(fake_os_calls(FAKE_MADVISE), advised);
	cr_assert_eq(qy_read(&qy_manager_of_node(0)->dirty_pages), dirty, "it would not have helped");
	cr_assert_not_null(p = quarry_malloc(MIB));
	quarry_free(p);
}

Test(denied, sleeping_threads_are_looked_at_once)
{
	int before;

	begin_with_threads();
	make(&worker, take_and_give);
	blocked = 1;
	limit_to(0);
	cr_assert_not_null(quarry_malloc(MIB), "what it held and did not use");
	limit_to(0);
	cr_assert_null(quarry_malloc(2 * MIB));
	before = asked + lives_asked;
	cr_assert_gt(before, 1);
	for (int i = 0; i < TRIES; i++)
		cr_assert_null(quarry_malloc(2 * MIB));
	cr_assert_eq(asked + lives_asked, before);
	end(&worker);
}

/* ---- nobody is refused while what is free would do ---- */

/* What was looked for in vain a moment ago may be there now: each time it is. */
Test(denied, what_a_thread_frees_later_serves)
{
	void *p;

	begin_with_threads();
	blocked = 1;
	make(&worker, live);
	for (int round = 0; round < 20; round++) {
		make(&worker, take);
		limit_to(0);
		for (int i = 0; i < 10; i++)
			cr_assert_null(quarry_malloc(MIB), "round %d", round);
		make(&worker, give);
		cr_assert_not_null(p = quarry_malloc(MIB), "round %d", round);
		quarry_free(p);
		set_bytes("hard_limit", 0);
	}
	end(&worker);
}

/* Busy now, asleep the next moment, with nothing of ours in between. */
Test(denied, a_thread_that_falls_asleep_is_seen)
{
	begin_with_threads();
	blocked = 0;
	make(&worker, take_and_give);
	limit_to(0);
	for (int i = 0; i < 10; i++)
		cr_assert_null(quarry_malloc(MIB));
	blocked = 1;
	cr_assert_not_null(quarry_malloc(MIB));
	end(&worker);
}

Test(denied, what_an_ended_thread_left_serves)
{
	begin_with_threads();
	set("idle_threads", "0");
	set("decay_ms", "-1");
	make(&worker, take_and_give);
	limit_to(0);
	cr_assert_null(quarry_malloc(MIB));
	end(&worker);
	cr_assert_not_null(quarry_malloc(MIB));
}

/* Objects of the asking thread, which another has freed and sent. */
Test(denied, what_was_sent_home_serves)
{
	begin_with_threads();
	blocked = 1;
	take();
	limit_to(0);
	cr_assert_null(quarry_malloc(MIB));
	make(&worker, give);
	cr_assert_not_null(quarry_malloc(MIB));
	end(&worker);
}

/* Two ask in turn: what one saw of the other says nothing to the other of itself. */
static void ask_in_vain(void)
{
	for (int i = 0; i < 3; i++)
		cr_assert_null(quarry_malloc(MIB));
}

static void ask(void)
{
	void *p = quarry_malloc(MIB);

	cr_assert_not_null(p);
	quarry_free(p);
}

Test(denied, two_that_ask_in_turn)
{
	begin_with_threads();
	blocked = 1;
	make(&worker, live);
	for (int round = 0; round < 10; round++) {
		take();
		limit_to(0);
		make(&worker, ask_in_vain);
		ask_in_vain();
		give();
		make(&worker, ask);
		ask();
		set_bytes("hard_limit", 0);
	}
	end(&worker);
}

/* An arena's own limit, and growing within it: neither is a pass worth. */
Test(denied, an_arena_at_its_limit_costs_no_pass)
{
	quarry_arena_attr attr = { .hard_limit = 4 * MIB };
	uint64_t passes;
	quarry_arena *a;
	void *p;

	begin_with_threads();
	a = quarry_arena_create(&attr);
	cr_assert_not_null(p = quarry_arena_malloc(a, 3 * MIB));
	passes = qy_reclaim_passes();
	for (int i = 0; i < TRIES; i++) {
		cr_assert_null(quarry_arena_malloc(a, 2 * MIB));
		cr_assert_null(quarry_realloc(p, 8 * MIB));
	}
	cr_assert_eq(qy_reclaim_passes(), passes);
	quarry_free(p);
	cr_assert_eq(quarry_arena_destroy(a), 0);
}

/* Nor is it where a slab of two units is what it does not allow. */
Test(denied, an_arena_with_room_for_a_small_slab_costs_no_pass)
{
	quarry_arena_attr attr = { .hard_limit = MIB + 64 * 1024 };
	quarry_arena *a;
	uint64_t passes;
	unsigned n = 0;

	begin_with_threads();
	a = quarry_arena_create(&attr);
	while (quarry_arena_malloc(a, 16384) != NULL)
		n++;
	cr_assert_eq(n, 64);
	passes = qy_reclaim_passes();
	for (int i = 0; i < TRIES; i++) {
		quarry_free(quarry_malloc(8 * MIB));
		cr_assert_null(quarry_arena_malloc(a, 16384));
	}
	cr_assert_eq(qy_reclaim_passes(), passes);
	cr_assert_eq(quarry_arena_destroy(a), 0);
}

static quarry_arena *full;

static void take_from_it(void)
{
	for (unsigned i = 0; i < MANY; i++)
		cr_assert_not_null(objects[i] = quarry_arena_malloc(full, 1008));
}

/* What was freed for a thread that sleeps is in its hands until somebody asks; but who asks all the time is not looked
 * for each time. */
Test(denied, at_an_arenas_limit_what_sleeping_threads_hold_serves)
{
	quarry_arena_attr attr = { .hard_limit = 8 * MIB };
	int before;
	void *p;

	begin_with_threads();
	blocked = 1;
	cr_assert_not_null(full = quarry_arena_create(&attr));
	make(&worker, take_from_it);
	give();
	quarry_thread_flush();
	fake_os_advance(100);
	cr_assert_not_null(p = quarry_arena_malloc(full, 7 * MIB));
	quarry_free(p);
	make(&worker, take_from_it);
	give();
	quarry_thread_flush();
	fake_os_advance(100);
	cr_assert_not_null(p = quarry_arena_malloc(full, MIB));
	cr_assert_not_null(p = quarry_arena_realloc(full, p, 7 * MIB), "growing as well");
	before = asked + lives_asked;
	for (int i = 0; i < TRIES; i++) {
		make(&worker, live);
		cr_assert_null(quarry_arena_malloc(full, 2 * MIB));
	}
	cr_assert_leq(asked + lives_asked, before);
	end(&worker);
}

/* quarry_purge of an arena gives that back as well. */
Test(denied, what_sleeping_threads_hold_of_an_arena_is_purged)
{
	begin_with_threads();
	blocked = 1;
	cr_assert_not_null(full = quarry_arena_create(NULL));
	make(&worker, take_from_it);
	give();
	quarry_thread_flush();
	cr_assert_geq(quarry_purge(full), MANY / 64 * 64 * KIB);
	end(&worker);
}

/* The limit allows it, and then the kernel does not: both are tried for. */
Test(denied, the_kernel_refuses_behind_the_limit)
{
	uint64_t passes;

	begin_with_threads();
	make(&worker, take_and_give);
	blocked = 1;
	limit_to(128 * MIB - MIB);
	passes = qy_reclaim_passes();
	fake_os_fail(FAKE_MMAP, ENOMEM);
	fake_os_fail(FAKE_MPROTECT, ENOMEM);
	cr_assert_null(quarry_malloc(128 * MIB));
	cr_assert_gt(qy_reclaim_passes(), passes);
	fake_os_fail(FAKE_MMAP, 0);
	fake_os_fail(FAKE_MPROTECT, 0);
	end(&worker);
}

/* A strict arena whose nodes are full, and the kernel without memory: what there is to give back is given back once. */
static uint64_t passes_of(void *(*ask_for)(quarry_arena *, size_t), quarry_arena *a)
{
	uint64_t passes = qy_reclaim_passes();

	for (int i = 0; i < TRIES; i++) {
		errno = 0;
		cr_assert_null(ask_for(a, 64 * MIB));
		cr_assert_eq(errno, ENOMEM);
	}
	return qy_reclaim_passes() - passes;
}

static void *strict_block;

static void *enlarge(quarry_arena *a, size_t size)
{
	cr_assert_eq(quarry_arena_of(strict_block), a);
	return quarry_realloc(strict_block, size);
}

Test(denied, a_strict_arena_on_full_nodes_costs_one_pass)
{
	quarry_arena_attr attr = { .policy = QUARRY_POLICY_BIND, .flags = QUARRY_ARENA_STRICT };
	uint64_t given = qy_read(&qy_refused[QUARRY_REFUSED_NODE_FULL]);
	quarry_arena *a;
	void *p;

	begin_with_threads();
	quarry_nodeset_add(&attr.nodes, 0);
	cr_assert_not_null(a = quarry_arena_create(&attr));
	cr_assert_not_null(strict_block = quarry_arena_malloc(a, 3 * MIB));
	cr_assert_not_null(p = quarry_malloc(16 * MIB));
	memset(p, 1, 16 * MIB);
	quarry_free(p);
	fake_os_memory(0, GIB, 0);
	/* (A region that was mapped for nothing is spared once.) */
	cr_assert_leq(passes_of(quarry_arena_malloc, a), 2);
	cr_assert_geq(qy_read(&qy_refused[QUARRY_REFUSED_NODE_FULL]), given + TRIES, "it was asked for each time");
	cr_assert_eq(qy_read(&qy_manager_of_node(0)->dirty_pages), 0);
	cr_assert_eq(passes_of(enlarge, a), 0);
	/* And what is new is given back again, whoever freed it. */
	cr_assert_not_null(p = quarry_malloc(4 * MIB));
	memset(p, 1, 4 * MIB);
	quarry_free(p);
	cr_assert_geq(qy_read(&qy_manager_of_node(0)->dirty_pages) * QY_PAGE, 4 * MIB);
	cr_assert_leq(passes_of(enlarge, a), 2);
	cr_assert_eq(qy_read(&qy_manager_of_node(0)->dirty_pages), 0);
	fake_os_memory(0, GIB, GIB);
	cr_assert_not_null(p = quarry_arena_malloc(a, 64 * MIB));
	cr_assert_eq(quarry_arena_destroy(a), 0);
}

Test(denied, a_kernel_without_memory_costs_one_pass)
{
	void *p;

	begin_with_threads();
	cr_assert_not_null(p = quarry_malloc(16 * MIB));
	memset(p, 1, 16 * MIB);
	quarry_free(p);
	fake_os_fail(FAKE_MMAP, ENOMEM);
	fake_os_fail(FAKE_MPROTECT, ENOMEM);
	cr_assert_leq(passes_of(quarry_arena_malloc, NULL), 2);
	cr_assert_eq(qy_read(&qy_manager_of_node(0)->dirty_pages), 0);
	/* What the kernel would not take back is tried again: it may take it now. */
	fake_os_fail(FAKE_MMAP, 0);
	fake_os_fail(FAKE_MPROTECT, 0);
	cr_assert_not_null(p = quarry_malloc(16 * MIB));
	memset(p, 1, 16 * MIB);
	quarry_free(p);
	fake_os_fail(FAKE_MMAP, ENOMEM);
	fake_os_fail(FAKE_MPROTECT, ENOMEM);
	fake_os_fail_advice(4, EINVAL); /* MADV_DONTNEED */
	cr_assert_null(quarry_malloc(64 * MIB));
	cr_assert_geq(qy_read(&qy_manager_of_node(0)->dirty_pages) * QY_PAGE, 16 * MIB);
	fake_os_fail_advice(4, 0);
	cr_assert_null(quarry_malloc(64 * MIB));
	cr_assert_eq(qy_read(&qy_manager_of_node(0)->dirty_pages), 0);
}

/* ---- under pressure ---- */

/* In series, so that the clock is ours. Returns after how many ms the worker held nothing; ~0: never. */
static uint64_t idle_after(uint64_t most)
{
	uint64_t began = qy_os->now_ms();

	for (uint32_t n = 1; qy_os->now_ms() - began < most; n++) {
		if (qy_read(&qy_idle_given_up) > 0)
			return qy_os->now_ms() - began;
		fake_os_advance(50);
		qy_reclaim_tick(n * 4096);
	}
	return UINT64_MAX;
}

static void begin_in_series(const char *decay_ms)
{
	begin_with_threads();
	set("reclaim", "series");
	set("reclaim_interval", "1");
	set("decay_ms", decay_ms);
	blocked = 1;
	cr_assert_not_null(quarry_malloc(64 * MIB)); /* large enough to be looked after */
	make(&worker, take_and_give);
	group(1000, 100);
}

Test(denied, under_high_pressure_sleeping_threads_keep_nothing)
{
	static const char *const decays[] = { "3600000", "-1" };

	for (int i = 0; i < 2; i++) {
		pid_t child = fork();
		int status;

		if (child == 0) {
			begin_in_series(decays[i]);
			if (idle_after(100000) != UINT64_MAX)
				_exit(1); /* too soon: nothing presses */
			used_in_group(860);
			if (idle_after(10000) != UINT64_MAX)
				_exit(2); /* some pressure: a quarter of an hour */
			used_in_group(930);
			_exit(idle_after(2000) == UINT64_MAX ? 3 : 0);
		}
		cr_assert_eq(waitpid(child, &status, 0), child);
		cr_assert_eq(status, 0, "decay_ms=%s: status %x", decays[i], (unsigned)status);
	}
}

/* One that was busy at every look, and is put off for ever longer, is not put off so long when pressure comes. */
Test(denied, under_high_pressure_nobody_is_put_off)
{
	begin_in_series("1000");
	blocked = 0;
	cr_assert_eq(idle_after(60000), UINT64_MAX);
	used_in_group(930);
	idle_after(200);
	blocked = 1;
	cr_assert_leq(idle_after(1000), 500);
	end(&worker);
}

Test(denied, never_is_never_by_time)
{
	struct qy_manager *node;
	void *p;

	begin();
	set("reclaim", "series");
	set("reclaim_interval", "1");
	set("decay_ms", "-1");
	cr_assert_not_null(p = quarry_malloc(64 * MIB));
	memset(p, 1, 64 * MIB);
	group(1000, 860);
	quarry_free(p);
	node = qy_manager_of_node(0);
	for (uint32_t n = 1; n < 1000; n++) {
		fake_os_advance(1000);
		qy_reclaim_tick(n * 4096);
	}
	cr_assert_eq(qy_pressure_level(), QUARRY_PRESSURE_SOME);
	cr_assert_geq(qy_read(&node->dirty_pages) * QY_PAGE, 64 * MIB);
	used_in_group(930);
	for (uint32_t n = 1; n < 2000 && qy_read(&node->dirty_pages) != 0; n++) {
		fake_os_advance(100);
		qy_reclaim_tick(n * 4096);
	}
	cr_assert_eq(qy_read(&node->dirty_pages), 0, "%" PRIu64 " pages", qy_read(&node->dirty_pages));
	/* And when it is over, never again. */
	used_in_group(100);
	for (int i = 0; i < 10; i++)
		tick_after(1000);
	cr_assert_eq(qy_limits_decay(-1), -1);
}
