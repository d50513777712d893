/* SPDX-License-Identifier: MIT */
/* The lock's slow halves, and the check that locks are taken in the order of their ranks.
 *
 * The word goes 0 -> 1 by whoever takes a free lock, and to 2 by whoever is about to sleep. Who has slept takes the
 * lock as 2, since it cannot know whether others sleep still: at worst one wake too many. errno is left alone, as
 * free(3) must leave it. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "lib/base/lock.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "lib/base/quiet.h"

#define SPINS 100

__thread uint32_t qy_locks_held __attribute__((tls_model("initial-exec")));
__thread uint32_t qy_quiet __attribute__((tls_model("initial-exec")));

/* How many locks of each rank the thread holds. Counts, not a stack: fork takes every lock there is. */
static __thread uint32_t held[QY_RANK_LEAF + 1] __attribute__((tls_model("initial-exec")));

void qy_sleep_on(_Atomic(uint32_t) *word, uint32_t value, uint64_t ms)
{
	struct timespec t = { (time_t)(ms / 1000), (long)(ms % 1000) * 1000000 };
	int saved = errno;
	long rc = syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, ms == UINT64_MAX ? NULL : &t, NULL, 0);

	if (rc != 0 && errno != EAGAIN && errno != EINTR && errno != ETIMEDOUT)
		sched_yield(); /* a sandbox without futex(2): the lock still works, by polling */
	errno = saved;
}

static void wake(_Atomic(uint32_t) *word, int most)
{
	int saved = errno;

	(void)syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, most, NULL, NULL, 0);
	errno = saved;
}

void qy_wake(_Atomic(uint32_t) *word)
{
	wake(word, 1);
}

void qy_wake_all(_Atomic(uint32_t) *word)
{
	wake(word, INT_MAX);
}

void qy_lock_init(struct qy_lock *lock, enum qy_rank rank)
{
	atomic_store_explicit(&lock->state, 0, memory_order_relaxed);
	lock->rank = rank;
}

QY_COLD void qy_lock_slow(struct qy_lock *lock)
{
	for (int i = 0; i < SPINS; i++) {
		uint32_t was = atomic_load_explicit(&lock->state, memory_order_relaxed);
		if (was == 0 && atomic_compare_exchange_weak_explicit(&lock->state, &was, 1, memory_order_acquire,
								      memory_order_relaxed))
			return;
		qy_spin();
	}
	while (atomic_exchange_explicit(&lock->state, 2, memory_order_acquire) != 0)
		qy_sleep_on(&lock->state, 2, UINT64_MAX);
}

/* The lock is free by now, and its memory may be gone with its owner: the kernel only uses the address as a key. */
QY_COLD void qy_unlock_slow(struct qy_lock *lock)
{
	qy_wake(&lock->state);
}

/* Before the lock is waited for, so that a wrong order is told even when it does not deadlock this time. Several locks
 * of one rank are only for fork, which keeps all others out by its own lock first.
 *
 * In a forked child: what the forking thread held is unlocked, not made anew, and the counts stay right. */
QY_COLD void qy_lock_rank_push(const struct qy_lock *lock)
{
	qy_check(lock->rank != 0 && lock->rank <= QY_RANK_LEAF);
	for (uint32_t rank = lock->rank + 1; rank <= QY_RANK_LEAF; rank++)
		qy_check(held[rank] == 0);
	qy_check(held[lock->rank] == 0 || (held[QY_RANK_FORK] != 0 && lock->rank != QY_RANK_FORK));
	held[lock->rank]++;
}

QY_COLD void qy_lock_rank_pop(const struct qy_lock *lock)
{
	qy_check(lock->rank != 0 && lock->rank <= QY_RANK_LEAF);
	qy_check(held[lock->rank] != 0);
	held[lock->rank]--;
}
