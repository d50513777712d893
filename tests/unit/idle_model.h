/* SPDX-License-Identifier: MIT */
/* Threads that sleep in truth, and a kernel that is played as to whether they are blocked, and for how long. To be
 * included once. */
#ifndef QUARRY_TESTS_IDLE_MODEL_H
#define QUARRY_TESTS_IDLE_MODEL_H

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

static inline int play_blocked(int tid)
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

static inline uint64_t play_switches(int tid)
{
	(void)tid;
	atomic_fetch_add(&counted, 1);
	return atomic_load(&switches);
}

static inline void answer(int first, int then)
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

static inline void *sleep_and_do(void *arg)
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

static inline void tell(struct sleeper *s, void (*what)(struct sleeper *s))
{
	s->what = what;
	sem_post(&s->wake);
}

static inline void await(struct sleeper *s)
{
	while (sem_wait(&s->done) != 0)
		continue;
}

static inline void make(struct sleeper *s, void (*what)(struct sleeper *s))
{
	if (s->thread == 0) {
		cr_assert(sem_init(&s->wake, 0, 0) == 0 && sem_init(&s->done, 0, 0) == 0);
		cr_assert_eq(pthread_create(&s->thread, NULL, sleep_and_do, s), 0);
	}
	tell(s, what);
	await(s);
}

static inline void end(struct sleeper *s)
{
	tell(s, NULL);
	cr_assert_eq(pthread_join(s->thread, NULL), 0);
}

static inline void write_on(void *p, unsigned i)
{
	memset(p, (int)(i % 251), SIZE);
}

static inline void check(const void *p, unsigned i)
{
	const unsigned char *c = p;

	for (unsigned n = 0; n < SIZE; n++)
		cr_assert_eq(c[n], i % 251, "object %u, byte %u", i, n);
}

static inline void allocate(struct sleeper *s)
{
	for (unsigned i = 0; i < MANY; i++) {
		s->object[i] = quarry_malloc(SIZE);
		write_on(s->object[i], i);
	}
}

static inline void free_odd(struct sleeper *s)
{
	for (unsigned i = 1; i < MANY; i += 2)
		quarry_free(s->object[i]);
}

static inline void allocate_and_free_odd(struct sleeper *s)
{
	allocate(s);
	free_odd(s);
}

static inline void check_even_and_free(struct sleeper *s)
{
	for (unsigned i = 0; i < MANY; i += 2) {
		check(s->object[i], i);
		quarry_free(s->object[i]);
	}
}

static inline void check_and_free(struct sleeper *s)
{
	for (unsigned i = 0; i < MANY; i++) {
		check(s->object[i], i);
		quarry_free(s->object[i]);
	}
}

static inline void one(struct sleeper *s)
{
	s->object[0] = quarry_malloc(SIZE);
	write_on(s->object[0], 0);
}

static inline void flush(struct sleeper *s)
{
	(void)s;
	quarry_thread_flush();
}

static inline quarry_stats stats_now(void)
{
	quarry_stats stats = { .version = QUARRY_STATS_VERSION };

	cr_assert_eq(quarry_stats_get(NULL, &stats), 0);
	return stats;
}

static inline uint64_t used(void)
{
	return qy_read(&qy_manager_of_node(0)->used);
}

static inline uint64_t slabs_of(const struct qy_thread *t)
{
	uint64_t n = 0;

	for (struct qy_cache *c = t->caches; c != NULL; c = c->next)
		n += qy_read(&c->heap.slabs);
	return n;
}

static inline uint64_t orphans(void)
{
	return qy_read(&qy_manager_of_node(0)->orphans.slabs);
}

static inline uint32_t state_of(struct qy_thread *t)
{
	return atomic_load(&t->idle);
}

static inline void begin(void)
{
	quarry_free(quarry_malloc(1));
	fake_os_threads(play_blocked, play_switches);
	answer(1, 1);
}

static struct sleeper a, b;

static inline bool look_n_times(int n)
{
	bool more = false;

	for (; n > 0; n--) {
		fake_os_advance(IDLE / 4);
		more = qy_threads_idle(qy_os->now_ms(), IDLE, UINT64_MAX);
	}
	return more;
}

#endif
