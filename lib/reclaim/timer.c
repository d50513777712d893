/* SPDX-License-Identifier: MIT */
/* reclaim=timer: a process of no thread but its own, which sleeps, gives back in the handler of a timer's signal.
 *
 * The timer is armed when something falls due, once for each time, and is at rest while there is nothing. The signal is
 * the process's, and not that of the thread that armed the timer: that may end, or block the signal, and what is to be
 * done is nobody's in particular. In a process of one thread it is the same.
 *
 * The handler may strike anywhere, and what it does is a pass that waits for nobody (tend.c). Why it cannot deadlock,
 * nor see anything half done:
 *
 * - A pass in the handler is a pass by another thread, as far as it goes by locks and atomics alone: whatever the
 *   interrupted thread was at, others may come in between. What is not so: the locks that this thread holds; what is
 *   its own, and touched by no other; and whoever waits for this very thread.
 * - Locks. Each thread counts those that it holds, from before it touches the word until after it has let go
 *   (lib/base/lock.h). With any, nothing is done. Flags that are only tried (a pass is running, limits are being looked
 *   at) need no more than that: it is not tried again until the handler returns.
 * - Its own. In a slow path, entered or half so, the depth says it, and nothing is done. Hits, quick refills and
 *   gathering of objects are in no slow path; but they touch the thread's caches and nothing of a manager's, and the
 *   pass touches no thread's caches: not this one's, nor (which would begin with entering) any other's. It does so only
 *   where the interrupted instruction is a system call that the program waited in, under no other signal handler
 *   (numa/blocked.c): hits and their like make none, so that none of them is under way.
 * - Who waits for this thread. Whoever pauses threads has the purge lock first, and so has the pass: neither begins
 *   while the other goes on. It is tried; the thread that has it may be in a fork, waiting for a lock of the C
 *   library's that is held right here. All other locks are let go by who has them without waiting for anything.
 * - No other handler interrupts this one: all signals are blocked. It is done in some milliseconds.
 *
 * What it calls is system calls, and the libc's names for mmap, munmap and madvise: where those are patched (MPI,
 * RDMA), what comes behind them is no matter for a signal handler, and the program should call quarry_tend instead. The
 * program's function for events is not called, nor is a thread started: that is left to the next slow path. What may
 * take long, and what is not worth waking a process for, is left out: pages that strayed, huge pages, pressure while
 * nothing is due. */
#include "lib/reclaim/pass.h"

#include <errno.h>

#include "lib/base/refused.h"
#include "lib/base/settings.h"
#include "lib/manager/limits.h"
#include "lib/manager/manager.h"
#include "lib/manager/regions.h"
#include "numa/os.h"

enum { TIMER_NONE, TIMER_MAKING, TIMER_THERE, TIMER_REFUSED };

static _Atomic(int) state;
static _Atomic(int) timer;
static _Atomic(uint32_t) armed;
static _Atomic(uint64_t) rings_at;   /* ms, when armed */
static _Atomic(uint32_t) must;

void qy_timer_must(void)
{
	atomic_store_explicit(&must, 1, memory_order_relaxed);
}

bool qy_timer_there(void)
{
	return atomic_load_explicit(&state, memory_order_relaxed) == TIMER_THERE;
}

static void refuse(void)
{
	qy_refuse(QUARRY_REFUSED_TIMER);
	atomic_store(&state, TIMER_REFUSED);
}

static void arm(uint64_t now, uint64_t at)
{
	uint64_t ms = at <= now + QY_SHORTEST_SLEEP_MS ? QY_SHORTEST_SLEEP_MS : at - now;

	if (!qy_timer_there())
		return;
	atomic_store(&armed, 1);
	atomic_store(&rings_at, now + ms);
	if (qy_os->timer_set(atomic_load(&timer), ms) == 0)
		return;
	atomic_store(&armed, 0);
	refuse();
}

/* In a handler too: what is due is not done more often than it must be, each time may end a call with EINTR. */
void qy_timer_settle(uint64_t now, uint64_t next)
{
	uint64_t step = qy_pass_soonest();

	if (next != UINT64_MAX)
		arm(now, next <= now + QY_SHORTEST_SLEEP_MS ? next : qy_max(next, now + step));
	if (next != UINT64_MAX && !qy_pass_comes_late(now, next))
		return;
	atomic_store(&qy_asleep, 1);
	/* Dirt that appeared since the pass began: who made it may not have seen us asleep. */
	if (qy_dirt_for_sleeper() && (next == UINT64_MAX || qy_tend_is_worth_it()) &&
	    atomic_exchange(&qy_asleep, 0) != 0)
		arm(now, now + step);
}

static void ring(const void *context)
{
	uint64_t now = qy_os->now_ms(), next = now + QY_SHORTEST_SLEEP_MS;
	uint32_t looks = atomic_load(&qy_looks);

	atomic_store(&armed, 0);
	if (qy_setting(reclaim) != QY_RECLAIM_TIMER)
		return;
	/* The program's functions for regions are no matter for a signal handler. */
	if (qy_regions_heard()) {
		refuse();
		return;
	}
	if (qy_tend_may())
		next = qy_tend_pass(now, qy_os->was_waiting(context) ? QY_TEND_WAITING : QY_TEND_RUNNING);
	qy_timer_settle(now, next);
	/* (Who changed something since may have armed it before this did, for later.) */
	if (atomic_load(&qy_looks) != looks && (next != UINT64_MAX || atomic_exchange(&qy_asleep, 0) != 0))
		arm(now, now);
}

/* With the timer to oneself, in no handler. */
static bool make(void)
{
	int none = TIMER_NONE, error = errno, made;

	if (qy_regions_heard()) {
		refuse();
		return false;
	}
	if (!atomic_compare_exchange_strong(&state, &none, TIMER_MAKING))
		return none == TIMER_THERE;
	made = qy_os->timer_make((int)qy_setting(reclaim_signal), ring);
	if (made < 0) {
		refuse();
	} else {
		atomic_store(&timer, made);
		atomic_store(&state, TIMER_THERE);
	}
	errno = error;
	return made >= 0;
}

#define LATE_MS 1000 /* a signal that has not come by then went elsewhere, or nobody takes it */

/* It is armed already, and for no later than it would be for new dirt. */
static bool rings_soon(uint64_t now)
{
	uint64_t at = atomic_load(&rings_at);

	return atomic_load(&armed) != 0 && at <= now + qy_pass_soonest() && now <= at + LATE_MS;
}

void qy_timer_wake(void)
{
	uint64_t now = qy_os->now_ms();
	int error = errno;

	if (atomic_exchange(&must, 0) == 0 && !qy_tend_is_worth_it()) {
		(void)qy_dirt_take(QY_DIRT_FOR_SLEEPER);
		qy_timer_settle(now, UINT64_MAX);
	} else if (make() && !rings_soon(now)) {
		arm(now, now + qy_pass_soonest());
	}
	errno = error;
}

void qy_timer_look(void)
{
	uint64_t now = qy_os->now_ms();
	int error = errno;
	bool slept;

	if (!qy_timer_begin())
		return;
	slept = atomic_exchange(&qy_asleep, 0) != 0;
	/* (One that is about to ring is left alone: who is called again and again would put it off for ever.) */
	if (atomic_load(&armed) == 0 && slept)
		qy_timer_wake();
	else if (atomic_load(&armed) != 0 && atomic_load(&rings_at) > now + QY_SHORTEST_SLEEP_MS)
		arm(now, now);
	errno = error;
}

/* Who computes is asked ever more rarely; but then it freed what it had, and may be about to wait. */
void qy_timer_stir(void)
{
	uint64_t now = qy_os->now_ms();
	int error = errno;

	if (qy_tend_put_off() && atomic_load(&armed) != 0 && !rings_soon(now))
		arm(now, now + qy_pass_soonest());
	errno = error;
}

/* The program may have set a handler of its own since the timer was armed: who arms it anew finds out. */
static void ask_again(void)
{
	uint64_t now = qy_os->now_ms();
	int error = errno;

	if (now > atomic_load(&rings_at) + LATE_MS)
		arm(now, now);
	errno = error;
}

bool qy_timer_begin(void)
{
	if (atomic_load_explicit(&armed, memory_order_relaxed) != 0)
		ask_again();
	if (atomic_load_explicit(&state, memory_order_relaxed) == TIMER_REFUSED)
		return false;
	/* (Nobody waits at first, nor after another way was tried.) */
	if (atomic_load_explicit(&armed, memory_order_relaxed) == 0 &&
	    atomic_load_explicit(&qy_asleep, memory_order_relaxed) == 0)
		atomic_store(&qy_asleep, 1);
	return true;
}

/* The kernel gives a child no timers. */
void qy_timer_after_fork(void)
{
	int there = TIMER_THERE;

	atomic_compare_exchange_strong(&state, &there, TIMER_NONE);
	atomic_store(&armed, 0);
	atomic_store(&must, 1);
	atomic_store(&qy_dirt_seen, QY_DIRT_NEW);
	atomic_store(&qy_asleep, qy_setting(reclaim) == QY_RECLAIM_TIMER);
}
