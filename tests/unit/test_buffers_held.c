/* SPDX-License-Identifier: MIT */
/* Buffers that are out or pinned for too long: told by a clock that the test moves. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/buffers.h"

#define COUNT 100u

static quarry_buffers *start(uint32_t held_ms, uint32_t pins_max)
{
	quarry_buffers_attr attr = { .struct_size = sizeof attr, .size = 64, .count = COUNT, .held_ms = held_ms,
				     .pins_max = pins_max };

	fake_os_install();
	fake_os_clock(5000000);
	return make_of(&attr);
}

static void stop(quarry_buffers *slab)
{
	end(slab);
	fake_os_remove();
}

static quarry_buffers_held held_for(quarry_buffers *slab, uint64_t ms)
{
	quarry_buffers_held held = { .struct_size = sizeof held };

	cr_assert_eq(quarry_buffers_held_get(slab, ms, &held), 0, "errno %d", errno);
	return held;
}

/* ---- out ---- */

Test(buffers_held, out_for_too_long)
{
	quarry_buffers *slab = start(1000, 0);
	quarry_buffer first = get(slab), b[9];
	quarry_buffers_held held = held_for(slab, 0);

	cr_expect(held.out == 1 && held.held == 0 && held.oldest == first.id && held.oldest_ms == 0);
	cr_expect(held.pinned == 0 && held.oldest_pin == UINT32_MAX);
	fake_os_advance(700);
	for (int i = 0; i < 9; i++)
		b[i] = get(slab);
	fake_os_advance(300);
	cr_expect_eq(held_for(slab, 0).held, 0, "for as long, and no longer");
	fake_os_advance(1);
	held = held_for(slab, 0);
	cr_expect(held.out == 10 && held.held == 1 && held.oldest == first.id && held.oldest_ms == 1001);
	cr_expect_eq(held_for(slab, 300).held, 10);
	cr_expect_eq(held_for(slab, 301).held, 1);
	/* One that comes back and goes out again begins anew. */
	cr_expect_eq(quarry_buffer_release(first), 0);
	held = held_for(slab, 0);
	cr_expect(held.out == 9 && held.held == 0 && held.oldest_ms == 301 && held.oldest != first.id);
	first = get(slab);
	held = held_for(slab, 0);
	cr_expect(held.out == 10 && held.oldest_ms == 301);
	fake_os_advance(800);
	held = held_for(slab, 0);
	cr_expect(held.held == 9 && held.oldest_ms == 1101);
	/* Another thread's release counts when it is made. */
	cr_expect_eq(release_elsewhere(b[0]), 0);
	cr_expect_eq(held_for(slab, 0).held, 8);
	for (int i = 1; i < 9; i++)
		cr_expect_eq(quarry_buffer_release(b[i]), 0);
	cr_expect_eq(quarry_buffer_release(first), 0);
	held = held_for(slab, 1);
	cr_expect(held.out == 0 && held.held == 0 && held.oldest == UINT32_MAX && held.oldest_ms == 0);
	stop(slab);
}

static quarry_buffer given;

static void on_ready(quarry_buffers_waiter *w, quarry_buffer b)
{
	(void)w;
	given = b;
}

/* By whichever way it was taken; and what a thread has taken whose time is not noted yet is young. */
Test(buffers_held, taken_by_every_way)
{
	quarry_buffers *slab = start(10, 0);
	struct qy_buffers *s = (struct qy_buffers *)slab;
	quarry_buffers_waiter w = { .ready = on_ready };
	quarry_buffer b[4];
	int ends[2];

	/* All have been out a long time ago. */
	for (int i = 0; i < 4; i++)
		b[i] = get(slab);
	fake_os_advance(1000);
	for (int i = 0; i < 4; i++)
		quarry_buffer_release(b[i]);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	cr_assert_eq(write(ends[1], "hello", 5), 5);
	cr_expect_eq(quarry_buffers_receive(slab, ends[0], b, 2, 0), 5);
	cr_expect_eq(held_for(slab, 0).oldest_ms, 0);
	cr_expect_eq(quarry_buffers_wait(slab, &w), 0);
	cr_expect_eq(held_for(slab, 0).out, 2);
	cr_expect_eq(held_for(slab, 0).oldest_ms, 0);
	fake_os_advance(11);
	cr_expect_eq(held_for(slab, 0).held, 2);
	/* As the owner leaves it between the two. */
	atomic_fetch_add(&s->generation[given.id], 2);
	cr_expect_eq(held_for(slab, 0).held, 1);
	atomic_fetch_sub(&s->generation[given.id], 2);
	quarry_buffer_release(b[0]);
	quarry_buffer_release(given);
	close(ends[0]);
	close(ends[1]);
	stop(slab);
}

Test(buffers_held, slabs_that_do_not_know)
{
	quarry_buffers *slab = start(0, 0);
	quarry_buffers_held held = { .struct_size = sizeof held };
	quarry_buffer b = get(slab);

	expect_error(quarry_buffers_held_get(slab, 5, &held), ENOTSUP);
	cr_expect_not(b.flags & QUARRY_BUFFER_COUNTED);
	cr_expect_eq(quarry_buffer_pin(b, 3), (char *)b.p + 3);
	cr_expect_eq(quarry_buffer_release(b), 0, "pins are nothing here");
	stop(slab);
	slab = start(1, 0);
	held.struct_size = 3;
	expect_error(quarry_buffers_held_get(slab, 5, &held), EINVAL);
	expect_error(quarry_buffers_held_get(slab, 5, NULL), EINVAL);
	expect_error(quarry_buffers_held_get(NULL, 5, &held), EINVAL);
	stop(slab);
}

/* ---- pinned ---- */

Test(buffers_held, no_more_pins_than_may_be)
{
	quarry_buffers *slab = start(0, 3);
	quarry_buffer b[5];
	quarry_buffers_held held;

	for (int i = 0; i < 5; i++)
		b[i] = get(slab);
	cr_expect(b[0].flags & QUARRY_BUFFER_COUNTED);
	cr_expect_eq(quarry_buffer_kind(b[0]), QUARRY_BUFFER_SLAB);
	for (int i = 0; i < 3; i++) {
		cr_expect_eq(quarry_buffer_pin(b[i], 7), (char *)b[i].p + 7);
		fake_os_advance(100);
	}
	errno = 0;
	cr_expect_null(quarry_buffer_pin(b[3], 0));
	cr_expect_eq(errno, EAGAIN);
	/* One that is pinned may be again, as often as can be counted. */
	for (int i = 1; i < 255; i++)
		cr_assert_not_null(quarry_buffer_pin(b[1], 0));
	cr_expect_null(quarry_buffer_pin(b[1], 0));
	held = held_for(slab, 150);
	cr_expect(held.out == 0 && held.oldest == UINT32_MAX, "times are not noted");
	cr_expect(held.pinned == 3 && held.pinned_held == 2 && held.oldest_pin == b[0].id && held.oldest_pin_ms == 300);
	cr_expect_eq(held.refused, 1);
	/* What is pinned does not go: to whomever it is, whoever asks. */
	expect_error(quarry_buffer_release(b[0]), EBUSY);
	expect_error(release_elsewhere(b[0]), EBUSY);
	expect_error(quarry_buffer_adopt(&b[0], NULL, 0), EBUSY);
	cr_expect_eq(figures(slab).late, 0);
	cr_expect_eq(quarry_buffer_check(b[0]), b[0].p);
	cr_expect_eq(quarry_buffer_unpin(b[0]), 0);
	expect_error(quarry_buffer_unpin(b[0]), EINVAL);
	held = held_for(slab, 0);
	cr_expect(held.pinned == 2 && held.oldest_pin == b[1].id && held.oldest_pin_ms == 200);
	cr_expect_not_null(quarry_buffer_pin(b[3], 0));
	cr_expect_eq(quarry_buffer_unpin(b[3]), 0);
	for (int i = 0; i < 255; i++) {
		expect_error(quarry_buffer_release(b[1]), EBUSY);
		cr_expect_eq(quarry_buffer_unpin(b[1]), 0);
	}
	cr_expect_eq(quarry_buffer_unpin(b[2]), 0);
	cr_expect_eq(held_for(slab, 0).pinned, 0);
	for (int i = 0; i < 5; i++) {
		cr_expect_eq(quarry_buffer_release(b[i]), 0);
		expect_error(quarry_buffer_release(b[i]), EALREADY);
		errno = 0;
		cr_expect(quarry_buffer_pin(b[i], 0) == NULL && errno == ESTALE);
		expect_error(quarry_buffer_unpin(b[i]), EINVAL);
	}
	cr_expect_eq(held_for(slab, 0).pinned, 0);
	stop(slab);
}

/* Pins, releases and their ends by many at once: a buffer is never released while it is pinned, and the count is right. */
#define PINNERS 4

static struct {
	quarry_buffers *slab;
	quarry_buffer b;
	pthread_barrier_t barrier;
	_Atomic(int) pinned, released;
} race;

static void *owns(void *slab)
{
	cr_assert_eq(quarry_buffers_own(slab), 0);
	return NULL;
}

static void *pins_or_releases(void *arg)
{
	const int number = (int)(intptr_t)arg;

	for (int round = 0; round < 3000; round++) {
		pthread_barrier_wait(&race.barrier);
		if (number == 0) {
			quarry_buffer b = race.b;
			int error = quarry_buffer_release(b) == 0 ? 0 : errno;

			if (error == 0)
				atomic_store(&race.released, 1);
			else
				cr_assert_eq(error, EBUSY);
		} else if (quarry_buffer_pin(race.b, 0) != NULL) {
			atomic_fetch_add(&race.pinned, 1);
		} else {
			cr_assert(errno == ESTALE || errno == EAGAIN, "errno %d", errno);
		}
		pthread_barrier_wait(&race.barrier);
		if (number == 0) {
			cr_assert(!atomic_load(&race.released) == (atomic_load(&race.pinned) > 0),
				  "round %d: released %d, and %d had it pinned", round, atomic_load(&race.released),
				  atomic_load(&race.pinned));
			cr_assert_eq(held_for(race.slab, 1).pinned, atomic_load(&race.pinned) > 0);
			while (atomic_load(&race.pinned) > 0) {
				atomic_fetch_sub(&race.pinned, 1);
				cr_assert_eq(quarry_buffer_unpin(race.b), 0);
			}
			cr_assert_eq(held_for(race.slab, 1).pinned, 0);
			cr_assert_eq(atomic_load(&((struct qy_buffers *)race.slab)->pinned), 0);
			if (!atomic_exchange(&race.released, 0))
				cr_assert_eq(quarry_buffer_release(race.b), 0);
			quarry_buffers_own(race.slab);
			cr_assert_eq(quarry_buffers_get(race.slab, &race.b), 0);
			if (round % 2) /* the next round's is released by one who is not the owner */
				elsewhere(owns, race.slab);
		}
	}
	return NULL;
}

static void run_race(uint32_t pins_max)
{
	pthread_t threads[PINNERS];

	race.slab = start(0, pins_max);
	race.b = get(race.slab);
	cr_assert_eq(pthread_barrier_init(&race.barrier, NULL, PINNERS), 0);
	for (int i = 0; i < PINNERS; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, pins_or_releases, (void *)(intptr_t)i), 0);
	for (int i = 0; i < PINNERS; i++)
		cr_assert_eq(pthread_join(threads[i], NULL), 0);
	pthread_barrier_destroy(&race.barrier);
	cr_expect_eq(quarry_buffers_own(race.slab), 0);
	cr_expect_eq(quarry_buffer_release(race.b), 0);
	stop(race.slab);
}

Test(buffers_held, pinned_and_released_at_once, .timeout = 60)
{
	run_race(1);
	run_race(8);
}

static void *pins_and_unpins(void *arg)
{
	pthread_barrier_wait(&race.barrier);
	for (int i = 0; i < 100000; i++) {
		cr_assert_not_null(quarry_buffer_pin(race.b, 0));
		cr_assert_eq(quarry_buffer_unpin(race.b), 0);
	}
	return arg;
}

/* A buffer that several pin at once is one that is pinned. */
Test(buffers_held, pinned_by_many, .timeout = 60)
{
	pthread_t threads[PINNERS];

	race.slab = start(0, PINNERS + 1);
	race.b = get(race.slab);
	cr_assert_eq(pthread_barrier_init(&race.barrier, NULL, PINNERS), 0);
	for (int i = 0; i < PINNERS; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, pins_and_unpins, NULL), 0);
	for (int i = 0; i < PINNERS; i++)
		cr_assert_eq(pthread_join(threads[i], NULL), 0);
	cr_expect_eq(atomic_load(&((struct qy_buffers *)race.slab)->pinned), 0);
	cr_expect_eq(quarry_buffer_release(race.b), 0);
	stop(race.slab);
}

/* The two moments of that race, one at a time. */
Test(buffers_held, one_of_both_sees_the_other)
{
	quarry_buffers *slab = start(0, 5);
	struct qy_buffers *s = (struct qy_buffers *)slab;
	quarry_buffer b = get(slab);

	/* Pinned after the release had looked, and before it claims. */
	cr_assert_not_null(quarry_buffer_pin(b, 0));
	cr_expect_eq(qy_buffers_claim(s, b.id, b.generation - s->seed), EBUSY);
	cr_expect_eq(quarry_buffer_check(b), b.p);
	cr_expect_eq(quarry_buffer_unpin(b), 0);
	cr_expect_eq(qy_buffers_claim(s, b.id, b.generation - s->seed), 0);
	cr_expect_eq(qy_buffers_claim(s, b.id, b.generation - s->seed), EALREADY);
	qy_buffers_send_claimed(s, b.id);
	stop(slab);
}

/* A buffer of half the lives of 16 bits ago is none of today's, whatever is asked of it. */
Test(buffers_held, late_by_many_lives)
{
	quarry_buffers *slab = start(0, 5);
	struct qy_buffers *s = (struct qy_buffers *)slab;
	quarry_buffer old = get(slab), b = old;

	for (unsigned life = 0; life < 32768; life++) {
		cr_assert_eq(quarry_buffer_release(b), 0);
		b = get(slab);
	}
	cr_assert(b.id == old.id && (uint16_t)b.generation == (uint16_t)old.generation);
	cr_expect_eq(qy_buffers_close_pins(s, old.id, old.generation - s->seed), EALREADY, "a release that was late");
	cr_assert_not_null(quarry_buffer_pin(b, 0));
	expect_error(quarry_buffer_unpin(old), EINVAL);
	expect_error(quarry_buffer_release(b), EBUSY);
	cr_expect_eq(quarry_buffer_unpin(b), 0);
	cr_expect_eq(quarry_buffer_release(b), 0);
	stop(slab);
}

static quarry_buffer pinned_once;

static void *pins_for_ever(void *arg)
{
	cr_expect_not_null(quarry_buffer_pin(pinned_once, 0));
	return arg;
}

/* A child counts those that are pinned: another thread of the parent may have been about to count one. */
Test(buffers_held, pins_in_a_child)
{
	quarry_buffers *slab = start(0, 2);
	struct qy_buffers *s = (struct qy_buffers *)slab;
	int status = -1;
	pid_t pid;

	pinned_once = get(slab);
	elsewhere(pins_for_ever, NULL);
	atomic_fetch_add(&s->pinned, 1);
	pid = fork();
	cr_assert_geq(pid, 0);
	if (pid == 0) {
		quarry_buffers_held held = { .struct_size = sizeof held };
		quarry_buffer b;
		bool ok = quarry_buffers_held_get(slab, 1, &held) == 0 && held.pinned == 1 &&
			  quarry_buffers_get(slab, &b) == 0 && quarry_buffer_pin(b, 0) != NULL &&
			  quarry_buffer_unpin(b) == 0 && quarry_buffer_unpin(pinned_once) == 0 &&
			  quarry_buffer_release(b) == 0 && quarry_buffer_release(pinned_once) == 0 &&
			  quarry_buffers_destroy(slab) == 0;

		_exit(ok ? 0 : 1);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_expect_eq(status, 0);
	atomic_fetch_sub(&s->pinned, 1);
	cr_expect_eq(quarry_buffer_unpin(pinned_once), 0);
	cr_expect_eq(quarry_buffer_release(pinned_once), 0);
	stop(slab);
}
