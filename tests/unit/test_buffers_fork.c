/* SPDX-License-Identifier: MIT */
/* Slabs of buffers in forked children: what other threads of the parent were at is settled, and what the child's own
 * threads are at counts. A child says by its exit status where it stopped. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/buffers.h"
#include "tests/unit/model.h"

#define COUNT 200u

#define child_must(condition) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "child: line %d: %s (errno %d, %s)\n", __LINE__, #condition, errno, quarry_error_text()); \
			_exit(1); \
		} \
	} while (0)

/* A child that hangs is ended by an alarm. */
static void in_child(void (*fn)(quarry_buffers *), quarry_buffers *slab)
{
	int status = -1;
	pid_t pid = fork();

	cr_assert_geq(pid, 0);
	if (pid == 0) {
		alarm(20);
		fn(slab);
		_exit(0);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_expect_eq(status, 0, "status 0x%x", status);
}

static quarry_buffer of_number(quarry_buffers *slab, uint32_t id)
{
	struct qy_buffers *s = (struct qy_buffers *)slab;
	quarry_buffer b = quarry_buffer_make(quarry_buffers_at(slab, id), 0, id, qy_buffer_flags(s, QUARRY_BUFFER_SLAB, 0));

	b.generation = atomic_load(&s->generation[id]) + s->seed;
	return b;
}

/* All that is out comes back, all are there once, and the slab ends. */
static void is_whole(quarry_buffers *slab)
{
	static char seen[COUNT];
	quarry_buffer b;

	for (uint32_t id = 0; id < slab->count; id++)
		if (quarry_buffer_release(of_number(slab, id)) != 0)
			child_must(errno == EALREADY);
	child_must(quarry_buffers_collect(slab) >= 0);
	memset(seen, 0, sizeof seen);
	for (uint32_t i = 0; i < slab->count; i++) {
		child_must(quarry_buffers_get(slab, &b) == 0);
		child_must(b.id < COUNT && !seen[b.id]++);
	}
	child_must(quarry_buffers_get(slab, &b) == -1 && errno == ENOBUFS);
	for (uint32_t id = 0; id < slab->count; id++)
		child_must(quarry_buffer_release(of_number(slab, id)) == 0);
	child_must(quarry_buffers_destroy(slab) == 0);
}

static void is_whole_for_another(quarry_buffers *slab)
{
	child_must(quarry_buffers_own(slab) == 0);
	is_whole(slab);
}

/* ---- who wakes ---- */

static _Atomic(int) in_wake, may_leave, left_wake;
static quarry_buffer given;

static void slow_wake(void *ctx)
{
	(void)ctx;
	atomic_fetch_add(&in_wake, 1);
	while (atomic_load(&may_leave) == 0)
		sched_yield();
	for (int i = 0; i < 1000; i++)
		sched_yield();
	atomic_fetch_add(&left_wake, 1);
}

static void on_ready(quarry_buffers_waiter *w, quarry_buffer b)
{
	(void)w;
	given = b;
}

/* One of a slab's one buffer waits, and a thread returns it and is in `wake`. */
static pthread_t begin_wake(quarry_buffers *slab, quarry_buffers_waiter *w, struct to_release *r)
{
	pthread_t thread;
	int before = atomic_load(&in_wake);

	child_must(quarry_buffers_get(slab, &r->b) == 0);
	*w = (quarry_buffers_waiter){ .ready = on_ready };
	child_must(quarry_buffers_wait(slab, w) == 1);
	child_must(pthread_create(&thread, NULL, release_it, r) == 0);
	while (atomic_load(&in_wake) == before)
		sched_yield();
	child_must(quarry_buffers_collect(slab) == 1);
	child_must(quarry_buffer_release(given) == 0);
	return thread;
}

static quarry_buffers *make_waking(void (*wake)(void *))
{
	quarry_buffers_attr attr = { .struct_size = sizeof attr, .size = 64, .count = 1, .wake = wake };

	return make_of(&attr);
}

/* The parent's thread in `wake` is not here; the child's own, in the same slab and in the next of its number, is. */
static void waits_for_its_own(quarry_buffers *slab)
{
	for (int round = 0; round < 2; round++) {
		quarry_buffers_waiter w;
		struct to_release r = { .rc = -1 };
		pthread_t thread;

		atomic_store(&may_leave, 0);
		atomic_store(&left_wake, 0);
		thread = begin_wake(slab, &w, &r);
		atomic_store(&may_leave, 1);
		child_must(quarry_buffers_destroy(slab) == 0);
		child_must(atomic_load(&left_wake) == 1);
		child_must(pthread_join(thread, NULL) == 0 && r.rc == 0);
		slab = make_waking(slow_wake);
	}
	child_must(quarry_buffers_destroy(slab) == 0);
}

Test(buffers_fork, a_child_waits_for_its_own_wakes, .timeout = 30)
{
	quarry_buffers *slab = make_waking(slow_wake);
	quarry_buffers_waiter w;
	struct to_release r = { .rc = -1 };
	pthread_t thread = begin_wake(slab, &w, &r);

	in_child(is_whole, slab);
	in_child(waits_for_its_own, slab);
	atomic_store(&may_leave, 1);
	end(slab);
	cr_assert_eq(pthread_join(thread, NULL), 0);
}

static pid_t forked;
static _Atomic(int) fork_now;

static void forking_wake(void *ctx)
{
	(void)ctx;
	while (atomic_load(&fork_now) == 0)
		sched_yield();
	forked = fork();
}

static void *release_and_look(void *arg)
{
	quarry_buffers *slab = ((void **)arg)[0];
	struct to_release *r = ((void **)arg)[1];
	int status = -1;

	r->rc = quarry_buffer_release(r->b);
	if (forked == 0) {
		alarm(20);
		child_must(r->rc == 0);
		is_whole_for_another(slab);
		slab = make_waking(slow_wake);
		child_must(quarry_buffers_destroy(slab) == 0);
		_exit(0);
	}
	cr_assert_eq(waitpid(forked, &status, 0), forked);
	cr_expect_eq(status, 0, "status 0x%x", status);
	return NULL;
}

/* The program forks in `wake`: in the child it comes out of what was begun in the parent. */
Test(buffers_fork, forked_within_a_wake, .timeout = 30)
{
	quarry_buffers *slab = make_waking(forking_wake);
	struct to_release r = { .b = get(slab) };
	quarry_buffers_waiter w = { .ready = on_ready };
	void *arg[] = { slab, &r };
	pthread_t thread;

	cr_assert_eq(quarry_buffers_wait(slab, &w), 1);
	cr_assert_eq(pthread_create(&thread, NULL, release_and_look, arg), 0);
	atomic_store(&fork_now, 1);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_expect_eq(quarry_buffers_collect(slab), 1);
	cr_expect_eq(quarry_buffer_release(given), 0);
	end(slab);
}

/* Who waits is called in the child also when another thread of the parent was about to call. */
static _Atomic(int) woken;

static void count_wake(void *ctx)
{
	(void)ctx;
	atomic_fetch_add(&woken, 1);
}

static void is_woken(quarry_buffers *slab)
{
	child_must(release_elsewhere(of_number(slab, 0)) == 0);
	child_must(atomic_load(&woken) == 1);
	child_must(quarry_buffers_collect(slab) == 1 && quarry_buffer_release(given) == 0);
	is_whole(slab);
}

Test(buffers_fork, who_waits_is_called_in_the_child)
{
	quarry_buffers *slab = make_waking(count_wake);
	quarry_buffer b = get(slab);
	quarry_buffers_waiter w = { .ready = on_ready };

	cr_assert_eq(quarry_buffers_wait(slab, &w), 1);
	/* It has seen that somebody waits, and goes no further. */
	cr_expect_eq(atomic_exchange(&((struct qy_buffers *)slab)->waits, 0), 1);
	in_child(is_woken, slab);
	cr_expect_eq(quarry_buffers_cancel(slab, &w), 0);
	cr_expect_eq(quarry_buffer_release(b), 0);
	end(slab);
}

/* ---- releases under way ---- */

/* As a thread of the parent would leave them: claimed; the lower bit set and not the upper one, and others of its word
 * returned after it. */
Test(buffers_fork, releases_under_way_are_over)
{
	quarry_buffers *slab = make(64, COUNT, 0, 0);
	struct qy_buffers *s = (struct qy_buffers *)slab;
	quarry_buffer b[COUNT];

	for (uint32_t i = 0; i < COUNT; i++)
		b[i] = get(slab);
	cr_assert_eq(qy_buffers_claim(s, b[5].id, b[5].generation - s->seed), 0);
	in_child(is_whole, slab);
	qy_buffers_send_claimed(s, b[5].id);
	cr_assert_eq(qy_buffers_claim(s, b[70].id, b[70].generation - s->seed), 0);
	atomic_fetch_or(&s->returned[b[70].id / 64], (uint64_t)1 << b[70].id % 64);
	in_child(is_whole, slab);
	cr_expect_eq(release_elsewhere(b[71]), 0);
	in_child(is_whole, slab);
	/* In the parent it goes on. */
	atomic_fetch_or(&s->above[0], 2);
	cr_expect_eq(quarry_buffers_collect(slab), 2);
	for (uint32_t i = 0; i < COUNT; i++)
		if (i != 5 && i != 70 && i != 71)
			cr_assert_eq(quarry_buffer_release(b[i]), 0);
	end(slab);
}

/* Where pins are counted a release begins with the word of the pins. */
Test(buffers_fork, a_release_that_has_closed_the_pins_is_over)
{
	quarry_buffers_attr attr = { .struct_size = sizeof attr, .size = 64, .count = 4, .pins_max = 4 };
	quarry_buffers *slab = make_of(&attr);
	struct qy_buffers *s = (struct qy_buffers *)slab;
	quarry_buffer b = get(slab);
	int status = -1;
	pid_t pid;

	cr_assert_eq(qy_buffers_close_pins(s, b.id, b.generation - s->seed), 0);
	pid = fork();
	cr_assert_geq(pid, 0);
	if (pid == 0)
		_exit(figures(slab).free == 4 && quarry_buffers_destroy(slab) == 0 ? 0 : 1);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_expect_eq(status, 0);
	atomic_store(&s->pins[b.id], 0);
	qy_buffers_note_taken(s, b.id);
	cr_expect_eq(quarry_buffer_release(b), 0);
	end(slab);
}

/* ---- an owner who is not there ---- */

static struct {
	quarry_buffers *slab;
	_Atomic(int) there, leave;
} other;

static void stay(quarry_buffers_waiter *w, quarry_buffer b)
{
	(void)w;
	atomic_store(&other.there, 1);
	while (atomic_load(&other.leave) == 0)
		sched_yield();
	cr_assert_eq(quarry_buffer_release(b), 0);
}

static void *serves(void *arg)
{
	quarry_buffers_waiter w[3] = { { .ready = stay }, { .ready = stay }, { .ready = stay } };
	quarry_buffer b[COUNT];

	model_must(quarry_buffers_own(other.slab) == 0, "errno %d", errno);
	for (uint32_t i = 0; i < COUNT; i++)
		b[i] = get(other.slab);
	for (int i = 0; i < 3; i++)
		model_must(quarry_buffers_wait(other.slab, &w[i]) == 1, "errno %d", errno);
	for (uint32_t i = 0; i < COUNT; i++)
		model_must(quarry_buffer_release(b[i]) == 0, "errno %d", errno);
	return arg;
}

Test(buffers_fork, an_owner_amid_those_who_wait, .timeout = 30)
{
	pthread_t thread;

	other.slab = make(64, COUNT, 0, 0);
	cr_assert_eq(pthread_create(&thread, NULL, serves, NULL), 0);
	while (atomic_load(&other.there) == 0)
		sched_yield();
	in_child(is_whole_for_another, other.slab);
	atomic_store(&other.leave, 1);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert_eq(quarry_buffers_own(other.slab), 0);
	end(other.slab);
}

/* One that is being made, and one that is being ended: their numbers are free in the child. */
static void has_all_numbers(quarry_buffers *slab)
{
	static quarry_buffers *all[QUARRY_BUFFERS_MAX];

	for (int i = 1; i < QUARRY_BUFFERS_MAX; i++)
		all[i] = make(64, 1, 0, 0);
	for (int i = 1; i < QUARRY_BUFFERS_MAX; i++)
		child_must(quarry_buffers_destroy(all[i]) == 0);
	is_whole(slab);
}

Test(buffers_fork, slabs_in_the_making_and_at_their_end)
{
	quarry_buffers *slab = make(64, COUNT, 0, 0), *ends = make(64, 1, 0, 0);
	struct qy_buffers *made = &qy_buffers_all[7];

	((struct qy_buffers *)ends)->ending = true;
	cr_assert_eq(atomic_exchange(&made->taken, 1), 0);
	atomic_store(&qy_buffers_numbers, 8);
	in_child(has_all_numbers, slab);
	((struct qy_buffers *)ends)->ending = false;
	atomic_store(&made->taken, 0);
	end(ends);
	end(slab);
}

/* ---- at any moment ---- */

#define HANDS 16

static _Atomic(uint64_t) hand[HANDS]; /* a buffer's number and generation, or 0 */
static _Atomic(int) over;

static void *takes(void *arg)
{
	quarry_buffers_waiter w = { .ready = on_ready };
	quarry_buffer b;
	unsigned n = 0;

	model_must(quarry_buffers_own(other.slab) == 0, "errno %d", errno);
	while (atomic_load(&over) == 0) {
		if (quarry_buffers_get(other.slab, &b) != 0) {
			/* (Beside what it tries: who waits, and does not wait any more.) */
			if (quarry_buffers_wait(other.slab, &w) == 1)
				model_must(quarry_buffers_cancel(other.slab, &w) == 0, "errno %d", errno);
			else
				model_must(quarry_buffer_release(given) == 0, "errno %d", errno);
			continue;
		}
		if (n++ % 3 == 0) {
			model_must(quarry_buffer_release(b) == 0, "errno %d", errno);
			continue;
		}
		uint64_t was = atomic_exchange(&hand[n % HANDS], (uint64_t)b.generation << 32 | (b.id + 1));
		if (was != 0) {
			b.id = (uint32_t)was - 1;
			b.generation = (uint32_t)(was >> 32);
			model_must(quarry_buffer_release(b) == 0, "errno %d", errno);
		}
	}
	return arg;
}

static void *gives_back(void *arg)
{
	quarry_buffer b = of_number(other.slab, 0);

	for (unsigned n = 0; atomic_load(&over) == 0; n++) {
		uint64_t was = atomic_exchange(&hand[n % HANDS], 0);

		if (was == 0)
			continue;
		b.id = (uint32_t)was - 1;
		b.generation = (uint32_t)(was >> 32);
		model_must(quarry_buffer_release(b) == 0, "errno %d", errno);
	}
	return arg;
}

static void hammer(uint32_t flags)
{
	pthread_t threads[3];

	atomic_store(&over, 0);
	other.slab = make(64, 70, 0, flags);
	cr_assert_eq(pthread_create(&threads[0], NULL, takes, NULL), 0);
	for (int i = 1; i < 3; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, gives_back, NULL), 0);
	for (int i = 0; i < 150; i++)
		in_child(is_whole_for_another, other.slab);
	atomic_store(&over, 1);
	for (int i = 0; i < 3; i++)
		cr_assert_eq(pthread_join(threads[i], NULL), 0);
	cr_assert_eq(quarry_buffers_own(other.slab), 0);
	for (int i = 0; i < HANDS; i++) {
		quarry_buffer b = of_number(other.slab, 0);
		uint64_t was = atomic_exchange(&hand[i], 0);

		b.id = (uint32_t)was - 1;
		b.generation = (uint32_t)(was >> 32);
		cr_assert(was == 0 || quarry_buffer_release(b) == 0);
	}
	end(other.slab);
}

Test(buffers_fork, forked_at_any_moment, .timeout = 60)
{
	hammer(0);
	hammer(QUARRY_BUFFERS_CHECKED);
}

/* ---- the program's own handler ---- */

static quarry_buffers *handlers_slab;
static bool handler_ended_it;

static void own_handler(void)
{
	alarm(20);
	handler_ended_it = handlers_slab != NULL && quarry_buffers_destroy(handlers_slab) == 0;
}

/* Registered before there is a slab, it finds slabs that are settled: nobody is in `wake` there. */
Test(buffers_fork, the_programs_handler_finds_them_settled, .timeout = 60)
{
	struct qy_buffers *s;
	int status = -1;
	pid_t pid;

	cr_assert_eq(pthread_atfork(NULL, NULL, own_handler), 0);
	handlers_slab = make(64, 4, 0, 0);
	s = (struct qy_buffers *)handlers_slab;
	atomic_fetch_add(&s->callers, 1);
	pid = fork();
	cr_assert_geq(pid, 0);
	if (pid == 0)
		_exit(handler_ended_it ? 0 : 1);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_expect_eq(status, 0);
	atomic_fetch_sub(&s->callers, 1);
	end(handlers_slab);
}
