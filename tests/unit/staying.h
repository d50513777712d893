/* SPDX-License-Identifier: MIT */
/* A function that is told of something, and does not return until another thread lets it: for tests of who waits for it
 * to have ended. */
#ifndef QUARRY_TESTS_STAYING_H
#define QUARRY_TESTS_STAYING_H

#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>

static _Atomic(uint32_t) entered, may_leave, left;

static inline void stay_until_let(void)
{
	atomic_store(&entered, 1);
	while (atomic_load(&may_leave) == 0)
		sched_yield();
	atomic_store(&left, 1);
}

/* A thread: after some time, so that whoever does not wait is seen. */
static inline void *let_leave(void *unused)
{
	(void)unused;
	for (int i = 0; i < 1000; i++)
		sched_yield();
	atomic_store(&may_leave, 1);
	return NULL;
}

#endif
