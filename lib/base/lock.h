/* SPDX-License-Identifier: MIT */
/* A lock of one word: spins a little, then sleeps in futex(2). It allocates nothing, needs no initialisation beyond
 * zero, and can be made anew in a forked child.
 *
 * Locks have ranks, and a thread takes them only in rising order (checked with --enable-debug):
 *   QY_RANK_PURGE     who gives memory back     lib/manager/purge.c
 *   QY_RANK_FORK      who holds threads still   lib/cache/hold.c
 *   QY_RANK_REGISTRY  threads and arenas        lib/cache/thread.c, lib/manager/registry.c
 *   QY_RANK_MANAGER   one manager               lib/manager/manager.c
 *   QY_RANK_WINDOW    the address space         numa/window.c
 *   QY_RANK_LEAF      nothing is taken inside   options, meta memory, topology */
#ifndef QUARRY_BASE_LOCK_H
#define QUARRY_BASE_LOCK_H

#include "lib/base/base.h"

enum qy_rank { QY_RANK_PURGE = 1, QY_RANK_FORK, QY_RANK_REGISTRY, QY_RANK_MANAGER, QY_RANK_WINDOW, QY_RANK_LEAF };

struct qy_lock {
	_Atomic(uint32_t) state; /* 0 free, 1 held, 2 held and somebody sleeps */
	uint32_t rank;
};

#define QY_LOCK_INIT(r) { 0, (r) }

/* How many locks the thread holds, or is about to take: for a signal handler that interrupts it, which must not wait
 * for what cannot be let go before it returns. It counts up before the lock's word is touched, and down after that. */
extern __thread QY_HIDDEN uint32_t qy_locks_held __attribute__((tls_model("initial-exec")));

/* Once round a loop that waits for another processor. */
QY_INLINE void qy_spin(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
	__asm__ volatile("yield" ::: "memory");
#else
	__asm__ volatile("" ::: "memory");
#endif
}

/* futex(2) on a word of this process: sleep while it is value, at most ms milliseconds (UINT64_MAX: for ever); wake one
 * sleeper, or all. May come back early. errno is left alone. */
void qy_sleep_on(_Atomic(uint32_t) *word, uint32_t value, uint64_t ms);
void qy_wake(_Atomic(uint32_t) *word);
void qy_wake_all(_Atomic(uint32_t) *word);

void qy_lock_init(struct qy_lock *lock, enum qy_rank rank);
void qy_lock_slow(struct qy_lock *lock);
void qy_unlock_slow(struct qy_lock *lock);
void qy_lock_rank_push(const struct qy_lock *lock);
void qy_lock_rank_pop(const struct qy_lock *lock);

static inline void qy_locks_count(int n)
{
	atomic_signal_fence(memory_order_seq_cst);
	qy_locks_held += (uint32_t)n;
	atomic_signal_fence(memory_order_seq_cst);
}

static inline void qy_lock(struct qy_lock *lock)
{
	uint32_t was = 0;
	qy_locks_count(1);
	if (QY_DEBUG)
		qy_lock_rank_push(lock);
	if (QY_UNLIKELY(!atomic_compare_exchange_strong_explicit(&lock->state, &was, 1, memory_order_acquire,
								 memory_order_relaxed)))
		qy_lock_slow(lock);
}

static inline bool qy_trylock(struct qy_lock *lock)
{
	uint32_t was = 0;
	qy_locks_count(1);
	if (!atomic_compare_exchange_strong_explicit(&lock->state, &was, 1, memory_order_acquire,
						     memory_order_relaxed)) {
		qy_locks_count(-1);
		return false;
	}
	if (QY_DEBUG)
		qy_lock_rank_push(lock);
	return true;
}

static inline void qy_unlock(struct qy_lock *lock)
{
	if (QY_DEBUG)
		qy_lock_rank_pop(lock);
	if (QY_UNLIKELY(atomic_exchange_explicit(&lock->state, 0, memory_order_release) == 2))
		qy_unlock_slow(lock);
	qy_locks_count(-1);
}

#endif
