/* SPDX-License-Identifier: MIT */
/* What lanes tell those who made them, and fork(2): in the midst of it, in children, and from inside the function that is told. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "include/quarry/track.h"
#include "lib/lanes/events.h"
#include "tests/unit/lanes.h"

#define MIB ((size_t)1 << 20)

static const quarry_lanes_attr alone = { .flags = QUARRY_LANES_NO_MOVER };

/* Nobody delivers but the threads of the test. */
static __attribute__((constructor(101))) void set_options(void)
{
	setenv("QUARRY_OPTIONS", "reclaim=off,idle_threads=off", 1);
}

static quarry_lanes_event told[8];
static _Atomic(unsigned) count;
static unsigned calls;

static void hear(const quarry_lanes_event *e, void *ctx)
{
	if (ctx != told || atomic_load(&count) == 8)
		abort();
	told[atomic_load(&count)] = *e;
	atomic_fetch_add(&count, 1);
}

static void run_child(void (*fn)(quarry_lanes *l), quarry_lanes *l)
{
	int status;
	pid_t pid = fork();

	cr_assert(pid >= 0);
	if (pid == 0) {
		fn(l);
		_exit(0);
	}
	cr_assert(waitpid(pid, &status, 0) == pid);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", (unsigned)status);
}

static void must(bool so, int code)
{
	if (!so)
		_exit(code);
}

static void in_child(quarry_lanes *l)
{
	qy_quiet = 0;
	must(l->governor.packed.moved == 0, 5);
	must(quarry_halloc(l, 3 * MIB) != 0, 1);
	must(atomic_load(&count) == 1 && told[0].count == 1 && told[0].bytes >= 3 * MIB, 2);
	qy_events_deliver();
	must(atomic_load(&count) == 1, 3);
	must(quarry_lanes_destroy(l) == 0, 4);
}

Test(lanes_events_fork, a_child_forgets_and_is_told_of_its_own)
{
	quarry_lanes *l = lanes_made(&alone);

	cr_assert(quarry_lanes_on_event(l, hear, told) == 0);
	qy_quiet++;
	cr_assert(quarry_halloc(l, 100) != 0);
	l->governor.packed.moved = 1;
	run_child(in_child, l);
	qy_quiet--;
	qy_events_deliver();
	cr_assert(atomic_load(&count) == 1, "the parent is told all the same");
	end_lanes(l);
}

static void after_its_fork(quarry_lanes *l)
{
	errno = 0;
	must(quarry_lanes_destroy(l) == -1 && errno == EDEADLK, 1);
}

static void fork_inside(const quarry_lanes_event *e, void *ctx)
{
	pid_t pid;
	int status;

	hear(e, ctx);
	if (atomic_load(&count) != 1)
		return;
	run_child(after_its_fork, e->lanes);
	pid = fork();
	cr_assert(pid >= 0);
	if (pid == 0)
		return; /* the child goes on */
	cr_assert(waitpid(pid, &status, 0) == pid);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 77, "status %x", (unsigned)status);
}

static quarry_lanes *forked;
static _Atomic(bool) changing, forking;

static void with_forked(const quarry_lanes_event *e, void *ctx)
{
	must(e->lanes == forked && ctx == &forked, 1);
}

static void with_told(const quarry_lanes_event *e, void *ctx)
{
	must(e->lanes == forked && ctx == told, 2);
}

/* (Registered behind those of lanes, and called before.) */
static void note_fork(void)
{
	atomic_store(&forking, true);
}

/* As quarry_lanes_on_event, stopped between the one and the other. */
static void *change_function(void *unused)
{
	struct qy_lanes_events *e = &forked->events;

	pthread_mutex_lock(&e->lock);
	e->fn = with_told;
	atomic_store(&changing, true);
	while (!atomic_load(&forking))
		sched_yield();
	for (int i = 0; i < 10000; i++)
		sched_yield();
	e->ctx = told;
	pthread_mutex_unlock(&e->lock);
	return unused;
}

static void grow_in_child(quarry_lanes *l)
{
	must(quarry_halloc(l, 3 * MIB) != 0 && quarry_lanes_destroy(l) == 0, 3);
}

/* A child has a function and the argument of that one, whoever was setting it. */
Test(lanes_events_fork, a_fork_beside_who_sets_it, .timeout = 60)
{
	pthread_t t;

	forked = lanes_made(&alone);
	cr_assert(quarry_lanes_on_event(forked, with_forked, &forked) == 0);
	cr_assert(pthread_atfork(note_fork, NULL, NULL) == 0);
	cr_assert(pthread_create(&t, NULL, change_function, NULL) == 0);
	while (!atomic_load(&changing))
		sched_yield();
	run_child(grow_in_child, forked);
	pthread_join(t, NULL);
	end_lanes(forked);
}

static void allocate_before_fork(void)
{
	qy_events_deliver(); /* as who allocates may */
}

static void use_some(const quarry_lanes_event *e, void *ctx)
{
	quarry_lanes_stats s = { 0 };

	(void)ctx;
	calls++;
	cr_assert(quarry_lanes_stats_get(e->lanes, &s) == 0);
}

/* The program's functions of pthread_atfork(3) may come between those of lanes, which has its locks by then. */
Test(lanes_events_fork, nobody_is_told_in_the_midst_of_a_fork, .timeout = 60)
{
	quarry_lanes *l;

	cr_assert(pthread_atfork(allocate_before_fork, allocate_before_fork, NULL) == 0); /* (before lanes' own) */
	l = lanes_made(&alone);
	cr_assert(quarry_lanes_on_event(l, use_some, NULL) == 0);
	qy_quiet++;
	cr_assert(quarry_halloc(l, 100) != 0);
	qy_quiet--;
	run_child(grow_in_child, l);
	cr_assert(calls == 0);
	qy_events_deliver();
	cr_assert(calls == 1);
	end_lanes(l);
}

Test(lanes_events_fork, the_function_may_fork)
{
	quarry_lanes *l = lanes_made(&alone);
	pid_t me = getpid();

	cr_assert(quarry_lanes_on_event(l, fork_inside, told) == 0);
	cr_assert(quarry_halloc(l, 100) != 0);
	if (getpid() != me) {
		must(quarry_halloc(l, 3 * MIB) != 0 && atomic_load(&count) == 2, 1);
		must(quarry_lanes_destroy(l) == 0, 2);
		_exit(77);
	}
	cr_assert(atomic_load(&count) == 1);
	end_lanes(l);
}
