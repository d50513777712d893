/* SPDX-License-Identifier: MIT */
/* What is told of pressure and limits: by events, in which order, how often, by whom and from inside what; and in
 * words. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/eight_threads.h"
#include "tests/unit/limits.h"
#include "tests/unit/staying.h"

static unsigned depth, deepest, calls;
static pthread_t caller;

static void use_everything(const quarry_event *event, void *ctx)
{
	quarry_arena_attr attr = { .hard_limit = MIB };
	quarry_health_report r = { .struct_size = sizeof(r) };
	quarry_stats stats = { .version = QUARRY_STATS_VERSION };
	quarry_arena *a;
	void *p[200];

	(void)event;
	cr_assert_eq(ctx, &calls);
	calls++;
	caller = pthread_self();
	if (++depth > deepest)
		deepest = depth;
	for (int i = 0; i < 200; i++)
		cr_assert_not_null(p[i] = quarry_malloc((size_t)i * 5000));
	for (int i = 0; i < 200; i++)
		quarry_free(p[i]);
	cr_assert_not_null(a = quarry_arena_create(&attr));
	/* An event from inside: told afterwards, not from here. */
	cr_assert_null(quarry_arena_malloc(a, 2 * MIB));
	cr_assert_eq(quarry_arena_destroy(a), 0);
	cr_assert_eq(quarry_health(&r), 0);
	cr_assert_eq(quarry_stats_get(NULL, &stats), 0);
	quarry_purge(NULL);
	if (calls == 3)
		cr_assert_eq(quarry_on_event(NULL, NULL), 0);
	depth--;
}

Test(limits, the_function_may_do_anything_and_is_not_called_from_inside)
{
	quarry_arena_attr attr = { .hard_limit = MIB };
	quarry_arena *a;

	begin();
	a = quarry_arena_create(&attr);
	quarry_on_event(use_everything, &calls);
	errno = 0;
	cr_assert_null(quarry_arena_malloc(a, 2 * MIB));
	cr_assert_eq(errno, ENOMEM, "%d", errno);
	cr_assert_eq(calls, 3, "its own events came after it, until it wanted no more: %u", calls);
	cr_assert_eq(deepest, 1);
	cr_assert(pthread_equal(caller, pthread_self()));
	fake_os_advance(5000);
	cr_assert_null(quarry_arena_malloc(a, 2 * MIB));
	qy_events_deliver();
	cr_assert_eq(calls, 3);
}

static void note(int state)
{
	quarry_event event = { .kind = QUARRY_EVENT_PRESSURE, .state = state, .count = 1 };

	qy_events_note(&event);
}

Test(limits, a_full_ring_counts_what_it_drops)
{
	begin();
	for (int i = 0; i < 100; i++)
		note(i);
	cr_assert_eq(qy_events_lost(), 36);
	qy_events_deliver();
	cr_assert_eq(heard_count, 64);
	for (int i = 0; i < 64; i++)
		cr_assert_eq(heard[i].state, i, "in their order");
	cr_assert_eq(heard[0].lost, 36);
	heard_count = 0;
	/* Round and round. */
	for (int i = 0; i < 1000; i++) {
		note(i);
		expect_event(QUARRY_EVENT_PRESSURE, i, 0);
	}
	/* Nobody listens: nothing is kept. */
	quarry_on_event(NULL, NULL);
	note(1);
	quarry_on_event(hear, NULL);
	expect_no_event();
	note(1);
	quarry_on_event(NULL, NULL);
	quarry_on_event(hear, NULL);
	expect_no_event();
	cr_assert_eq(qy_events_lost(), 36);
}

static unsigned called;

static void count_call(void)
{
	called++;
	if (called == 1)
		qy_events_call(count_call);
}

Test(limits, a_call_is_made_once_by_whoever_delivers)
{
	begin();
	qy_events_call(count_call);
	qy_events_call(count_call);
	cr_assert_eq(called, 0);
	note(7);
	qy_events_deliver();
	cr_assert_eq(called, 2, "and the one that it asked for itself: %u", called);
	cr_assert_eq(heard_count, 1);
	qy_events_deliver();
	cr_assert_eq(called, 2);
	cr_assert_eq(atomic_load(&qy_events_waiting), 0);
	/* With nobody who listens; and in a child. */
	quarry_on_event(NULL, NULL);
	qy_events_call(count_call);
	qy_events_after_fork();
	qy_events_deliver();
	cr_assert_eq(called, 3);
	cr_assert_eq(atomic_load(&qy_events_waiting), 0);
}

static _Atomic(unsigned) inside;

static void *note_many(void *unused)
{
	(void)unused;
	for (int i = 0; i < 20000; i++) {
		note(i);
		if (i % 4 == 0)
			qy_events_deliver();
	}
	return NULL;
}

static void hear_alone(const quarry_event *event, void *ctx)
{
	beyond += atomic_fetch_add(&inside, 1) != 0;
	hear(event, ctx);
	atomic_fetch_sub(&inside, 1);
}

Test(limits, no_event_is_told_twice_or_forgotten, .timeout = 60)
{
	void *none[THREADS] = { NULL };
	uint64_t lost;

	begin();
	quarry_on_event(hear_alone, NULL);
	lost = qy_events_lost();
	run(note_many, none);
	qy_events_deliver();
	cr_assert_eq(beyond, 0, "two at once");
	cr_assert_eq(heard_count + qy_events_lost() - lost, THREADS * 20000, "%u heard, %" PRIu64 " lost", heard_count,
		     qy_events_lost());
	cr_assert_eq(qy_events_waiting, 0);
}

static void stay(const quarry_event *event, void *ctx)
{
	(void)event;
	(void)ctx;
	stay_until_let();
}

static void *deliver(void *unused)
{
	(void)unused;
	qy_events_deliver();
	return NULL;
}

Test(limits, the_function_before_has_ended, .timeout = 60)
{
	pthread_t one, two;

	begin();
	quarry_on_event(stay, NULL);
	note(1);
	pthread_create(&one, NULL, deliver, NULL);
	while (atomic_load(&entered) == 0)
		sched_yield();
	/* Whoever comes meanwhile is not held up. */
	note(2);
	qy_events_deliver();
	pthread_create(&two, NULL, let_leave, NULL);
	quarry_on_event(NULL, NULL);
	cr_assert_eq(left, 1);
	pthread_join(one, NULL);
	pthread_join(two, NULL);
}

static int child_status;

static void fork_inside(const quarry_event *event, void *ctx)
{
	pid_t child;

	(void)event;
	(void)ctx;
	if (calls++ > 0)
		return;
	child = fork();
	if (child == 0) {
		note(7); /* of its own, told when this returns */
		return;
	}
	waitpid(child, &child_status, 0);
}

Test(limits, a_forked_child_is_told_of_its_own, .timeout = 60)
{
	pid_t parent = getpid(), child;
	int status = -1;

	begin();
	note(1);
	child = fork();
	if (child == 0) {
		qy_events_deliver();
		if (heard_count != 0)
			_exit(1);
		note(2);
		qy_events_deliver();
		_exit(heard_count == 1 && heard[0].state == 2 ? 0 : 2);
	}
	waitpid(child, &status, 0);
	cr_assert_eq(status, 0, "status %x", (unsigned)status);
	qy_events_deliver();
	cr_assert_eq(heard_count, 1);
	quarry_on_event(fork_inside, NULL);
	note(1);
	qy_events_deliver();
	if (getpid() != parent)
		_exit(calls == 2 ? 0 : 3);
	cr_assert_eq(child_status, 0, "status %x", (unsigned)child_status);
	cr_assert_eq(calls, 1);
}

/* ---- health ---- */

Test(limits, health_in_words)
{
	quarry_health_report r = { .struct_size = sizeof(r) }, old;
	struct {
		quarry_health_report r;
		uint64_t more;
	} newer = { .r = { .struct_size = sizeof(newer) }, .more = 1 };
	char text[300], few[10];

	begin();
	cr_assert_eq(quarry_health(NULL), -1);
	cr_assert_eq(errno, EINVAL);
	old.struct_size = sizeof(old.struct_size) - 1;
	cr_assert_eq(quarry_health(&old), -1);
	cr_assert_eq(quarry_health_text(&old, NULL, 0), -1);
	cr_assert_eq(quarry_health(&newer.r), 0);
	cr_assert_eq(newer.more, 0);
	cr_assert_eq(newer.r.struct_size, sizeof(newer));
	cr_assert_eq(quarry_health(&r), 0);
	cr_assert_eq(r.state, QUARRY_HEALTH_GREEN);
	cr_assert_eq(quarry_health_text(&r, text, sizeof(text)), 5);
	cr_assert_str_eq(text, "green");
	group(1000, 931);
	fake_os_advance(100);
	cr_assert_eq(quarry_health(&r), 0, "a small process, but it was asked for");
	cr_assert_eq(r.level, HIGH);
	cr_assert_eq(r.state, QUARRY_HEALTH_YELLOW);
	quarry_health_text(&r, text, sizeof(text));
	cr_assert_str_eq(text, "yellow: cgroup limit of 1000.0 MiB filled to 93.1 %");
	/* Of a caller that was built with less nothing else is written, or read. */
	memset(&old, 0x55, sizeof(old));
	old.struct_size = offsetof(quarry_health_report, psi_some);
	cr_assert_eq(quarry_health(&old), 0);
	cr_assert(old.struct_size == offsetof(quarry_health_report, psi_some) && old.level == HIGH && old.used == r.used);
	cr_assert(old.psi_some == 0x55555555 && old.events_lost == UINT64_C(0x5555555555555555));
	cr_assert_eq(quarry_health_text(&old, few, sizeof(few)), (int)strlen(text));
	cr_assert_eq(quarry_health_text(&r, few, sizeof(few)), (int)strlen(text));
	cr_assert_str_eq(few, "yellow: c");
	cr_assert_eq(quarry_health_text(&r, NULL, 0), (int)strlen(text));
	cr_assert_eq(quarry_health_text(&r, NULL, 1), -1);
	used_in_group(990);
	fake_os_advance(100);
	quarry_health(&r);
	cr_assert_eq(r.state, QUARRY_HEALTH_RED);
	/* Everything at once, and numbers that no library has written. */
	memset(&r, 0xff, sizeof(r));
	r.struct_size = sizeof(r);
	cr_assert_gt(quarry_health_text(&r, text, sizeof(text)), 100);
}
