/* SPDX-License-Identifier: MIT */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "lib/reclaim/pass.h"

#include <errno.h>
#include <pthread.h>

#include "lib/base/checker.h"
#include "lib/base/lock.h"
#include "lib/base/settings.h"
#include "lib/base/spawn.h"
#include "lib/manager/collapse.h"
#include "lib/manager/events.h"
#include "lib/manager/homing.h"
#include "lib/manager/limits.h"
#include "lib/manager/manager.h"
#include "lib/reclaim/publish.h"
#include "numa/os.h"
#include "lib/base/refused.h"

#define SERIES_BYTES ((size_t)4 << 20) /* at most so much goes back in one pass in series, */
#define SERIES_NS 2000000              /* and for so long nothing more is begun: it is somebody's malloc */
#define SOFT_ARENAS 32  /* arenas that are gone over for a soft limit, for each slow call; */
#define SOFT_IN_VAIN 8192 /* a pass that gave nothing back counts as so many */
#define HOMING_BYTES ((size_t)64 << 20) /* looked at for pages that strayed, in one pass */
#define COLLAPSE_NS 5000000            /* made into huge pages, in one pass */
#define SERIES_STEP_MAX 16             /* the interval doubles up to so often while passes find nothing */

enum { THREAD_NONE, THREAD_STARTING, THREAD_RUNS, THREAD_REFUSED };

static _Atomic(int) thread_state;
static _Atomic(uint32_t) threads_seen;  /* the most threads that the process had */
_Atomic(uint32_t) qy_asleep;
_Atomic(uint32_t) qy_looks;
static _Atomic(uint32_t) signalled;     /* futex: 1 to wake it */
static _Atomic(uint32_t) stopping;
static __thread bool is_reclaimer __attribute__((tls_model("initial-exec")));
static _Atomic(uint32_t) at_refused;    /* threads that look for what is free before a request is refused */
static _Atomic(uint32_t) series_step;   /* log2 of what multiplies the interval */
const struct qy_reclaim_layer *qy_layer;

void qy_reclaim_set_layer(const struct qy_reclaim_layer *layer)
{
	qy_layer = layer;
}

bool qy_reclaim_running(void)
{
	return atomic_load_explicit(&thread_state, memory_order_relaxed) == THREAD_RUNS;
}

/* One look at everything, with the purge lock by qy_purge_try, or waiting for it. Returns the bytes given back; *next
 * is when (ms) something falls due. */
static size_t pass(uint64_t now, long decay_ms, size_t at_most, uint64_t until_ns, bool locked, uint64_t *next)
{
	struct qy_pass p = { .now = now, .decay_ms = decay_ms, .each = SIZE_MAX, .at_most = at_most,
			     .until_ns = until_ns, .locked = locked };
	enum qy_chore_left left = QY_CHORE_NONE;
	uint64_t half, soon = UINT64_MAX;

	qy_pass_note(now, decay_ms);
	/* First what threads hold, so that what comes of it can go back at once; but that is not to take all the
	 * time. */
	half = until_ns == UINT64_MAX ? UINT64_MAX : until_ns - SERIES_NS / 2;
	if (qy_layer != NULL)
		left = qy_layer->chore(now, half);
	if (left != QY_CHORE_NONE)
		soon = left == QY_CHORE_CUT ? now : now + qy_pass_step(decay_ms);
	*next = qy_min(qy_pass_over_managers(&p) ? p.next : now, soon);
	return p.total;
}

size_t qy_reclaim_now(void)
{
	uint64_t next;
	size_t bytes;

	qy_checker_hush(true);
	if (qy_layer != NULL)
		qy_layer->chore(QY_CHORE_ALL, UINT64_MAX);
	bytes = pass(qy_os->now_ms(), QY_DECAY_ALL, SIZE_MAX, UINT64_MAX, false, &next);
	qy_checker_hush(false);
	return bytes;
}

/* Whether there is anything that was not there when this was last asked. Who is at it meanwhile has taken the news, and
 * not all that comes of it is free yet: the same is done once more, and so waited for. */
static bool begin_for_refused(uint32_t whose)
{
	uint32_t others = atomic_fetch_add(&at_refused, 1);

	if (qy_dirt_take(whose) || others > 0)
		return true;
	atomic_fetch_sub(&at_refused, 1);
	return false;
}

static void give_all_back(void)
{
	uint64_t next, refused = qy_read(&qy_refused[QUARRY_REFUSED_PURGE]);

	pass(qy_os->now_ms(), QY_DECAY_ALL, SIZE_MAX, UINT64_MAX, false, &next);
	/* (What the kernel did not take, it may take the next time.) */
	if (qy_read(&qy_refused[QUARRY_REFUSED_PURGE]) != refused)
		qy_dirt_call(QY_DIRT_FOR_REFUSED);
}

void qy_reclaim_for_refused(bool limited)
{
	if (qy_layer != NULL)
		qy_layer->chore(QY_CHORE_ALL_AGAIN, UINT64_MAX);
	if (!begin_for_refused(limited ? QY_DIRT_FOR_LIMITED : QY_DIRT_FOR_REFUSED))
		return;
	if (!limited)
		give_all_back();
	else
		for (struct qy_manager *m = qy_manager_next(NULL); m != NULL; m = qy_manager_next(m))
			qy_manager_collect(m);
	atomic_fetch_sub(&at_refused, 1);
}

/* ---- in parallel ---- */

static void wake(void)
{
	atomic_store(&signalled, 1);
	qy_wake(&signalled);
}

/* Until that time (ms), or until somebody wakes us: for dirt as well, where it is heard. */
static void sleep_until(uint64_t now, uint64_t until, bool hear)
{
	uint64_t ms = until == UINT64_MAX                    ? UINT64_MAX
		      : until <= now + QY_SHORTEST_SLEEP_MS ? QY_SHORTEST_SLEEP_MS
							     : until - now;

	if (hear)
		atomic_store(&qy_asleep, 1);
	/* Dirt that appeared since the pass began: who made it may not have seen us asleep. */
	if (atomic_load(&stopping) == 0 && (!hear || !qy_dirt_for_sleeper()))
		qy_sleep_on(&signalled, 0, ms);
	atomic_store(&qy_asleep, 0);
}

/* Until next or later (ms), or until there is work when next is UINT64_MAX: what comes later is no reason to leave new
 * dirt lying. What comes of it sooner than all that is waited for is heard meanwhile, but not more often than is worth
 * the while. */
static void sleep_until_work(uint64_t now, uint64_t next, uint64_t later)
{
	uint64_t until = qy_min(next, later), step = qy_pass_soonest();
	bool late = qy_pass_comes_late(now, next);

	if (late) {
		sleep_until(now, qy_min(until, now + step), false);
		now += step;
	}
	if (!late || (until > now && atomic_load(&signalled) == 0))
		sleep_until(now, until, late || next == UINT64_MAX);
	atomic_store(&signalled, 0);
}

static void *run(void *unused)
{
	(void)unused;
	int starting = THREAD_STARTING;

	is_reclaimer = true;
	atomic_compare_exchange_strong(&thread_state, &starting, THREAD_RUNS);
	pthread_setname_np(pthread_self(), "quarry-reclaim");
	while (atomic_load(&stopping) == 0) {
		uint64_t now = qy_os->now_ms(), next = now + 1000, later = UINT64_MAX, collapse;
		long mode = qy_setting(reclaim);

		if (mode == QY_RECLAIM_TIMER)
			break;
		(void)qy_dirt_take(QY_DIRT_FOR_SLEEPER);
		if (mode != QY_RECLAIM_OFF && mode != QY_RECLAIM_SERIES && qy_pass_begin()) {
			bool watch = qy_limits_tick(now);

			pass(now, qy_limits_decay(qy_setting(decay_ms)), SIZE_MAX, UINT64_MAX, false, &next);
			qy_homing_pass(now, HOMING_BYTES, &later);
			if (watch)
				later = qy_min(later, now + QY_LIMITS_MS);
			qy_collapse_pass(now, COLLAPSE_NS, &collapse);
			later = qy_min(later, collapse);
			qy_pass_end();
		} else if (mode != QY_RECLAIM_OFF && mode != QY_RECLAIM_SERIES) {
			next = now + QY_SHORTEST_SLEEP_MS;
		}
		qy_events_deliver();
		later = qy_min(later, qy_publish_if_due(qy_os->now_ms()));
		sleep_until_work(now, next, later);
	}
	atomic_store(&thread_state, THREAD_NONE);
	/* (What was seen is for the timer now.) */
	if (qy_setting(reclaim) == QY_RECLAIM_TIMER && atomic_load(&stopping) == 0)
		qy_timer_wake();
	return NULL;
}

void qy_reclaim_stop(void)
{
	if (atomic_load(&thread_state) != THREAD_RUNS && atomic_load(&thread_state) != THREAD_STARTING)
		return;
	atomic_store(&stopping, 1);
	wake();
}

/* Of whoever found qy_asleep 1, and made it 0. */
static void wake_whom(void)
{
	if (qy_setting(reclaim) == QY_RECLAIM_TIMER && atomic_load(&thread_state) != THREAD_RUNS)
		qy_timer_wake();
	else
		wake();
}

void qy_reclaim_wake(void)
{
	atomic_store_explicit(&qy_dirt_seen, QY_DIRT_NEW, memory_order_relaxed);
	qy_timer_must();
	/* (For the timer this waits for the end of a slow path.) */
	if ((qy_setting(reclaim) != QY_RECLAIM_TIMER || qy_tend_may()) && atomic_exchange(&qy_asleep, 0) != 0)
		wake_whom();
}

void qy_reclaim_look(void)
{
	atomic_fetch_add(&qy_looks, 1);
	qy_dirt_call(QY_DIRT_FOR_REFUSED | QY_DIRT_FOR_SOFT);
	qy_pass_look();
	atomic_store_explicit(&series_step, 0, memory_order_relaxed);
	qy_tend_look();
	if (qy_reclaim_running())
		wake();
	else if (qy_setting(reclaim) == QY_RECLAIM_TIMER)
		qy_timer_look();
}

bool qy_reclaim_is_caller(void)
{
	return is_reclaimer;
}

static QY_COLD void start_thread(void)
{
	int none = THREAD_NONE;

	if (!atomic_compare_exchange_strong(&thread_state, &none, THREAD_STARTING))
		return;
	/* (Threads run one at a time there, and what the C library has for one that still runs at the end is called a
	 * leak.) */
	if (qy_checker == QY_CHECKER_MEMCHECK) {
		atomic_store(&thread_state, THREAD_REFUSED);
		return;
	}
	atomic_store(&stopping, 0);
	if (!qy_spawn(run)) {
		qy_refuse(QUARRY_REFUSED_THREAD);
		atomic_store(&thread_state, THREAD_REFUSED);
	}
}

/* ---- in series ---- */

/* It is somebody's malloc: while another gives back, or moves or ends an arena, nothing is waited for. */
static QY_COLD void run_series(void)
{
	uint32_t step = atomic_load_explicit(&series_step, memory_order_relaxed);
	uint64_t now = qy_os->now_ms(), next, unused;
	size_t got;
	bool busy;

	if (!qy_pass_begin())
		return;
	if (!qy_purge_try()) {
		qy_pass_end();
		return;
	}
	qy_limits_tick(now);
	got = pass(now, qy_limits_decay(qy_setting(decay_ms)), SERIES_BYTES, qy_os->now_ns() + SERIES_NS, true, &next);
	qy_purge_done();
	busy = qy_homing_pass(now, SERIES_BYTES, &unused);
	qy_pass_end();
	/* Rarely while there is nothing to do, often while there is: one that was cut has come to nothing yet. */
	if (got > 0 || busy || next <= now + QY_PASS_CUT_MS)
		step = 0;
	else if (step < SERIES_STEP_MAX)
		step++;
	atomic_store_explicit(&series_step, step, memory_order_relaxed);
}

/* Returns whether there was time for all, and nobody else at it: what is left is for the next call. */
static bool purge_for_soft_limits(size_t *bytes)
{
	struct qy_pass p = { .now = qy_os->now_ms(), .each = SIZE_MAX, .at_most = SIZE_MAX, .locked = true };
	bool all;

	if (!qy_pass_begin())
		return false;
	if (!qy_purge_try()) {
		qy_pass_end();
		return false;
	}
	p.decay_ms = qy_limits_decay(qy_setting(decay_ms));
	p.until_ns = qy_os->now_ns() + SERIES_NS;
	all = qy_pass_over_managers(&p) && p.next > p.now;
	qy_purge_done();
	qy_pass_end();
	*bytes = p.total;
	return all;
}

/* Passes in series are far apart, and a soft limit is to hold in a program that frees and then waits. (Where there is a
 * thread, it does this.) */
static QY_COLD void keep_to_soft_limits(void)
{
	static _Atomic(uint32_t) skip; /* calls for which nobody looks: many arenas take long */
	uint32_t left = atomic_load_explicit(&skip, memory_order_relaxed);
	long mode = qy_setting(reclaim);
	bool alone = mode == QY_RECLAIM_SERIES || mode == QY_RECLAIM_TIMER;
	size_t bytes = 0;
	unsigned arenas;

	if (mode == QY_RECLAIM_OFF || (qy_reclaim_running() && !alone) || !qy_setting(give_back))
		return;
	if (left > 0) {
		atomic_store_explicit(&skip, left - 1, memory_order_relaxed);
		return;
	}
	if (!qy_dirt_take(QY_DIRT_FOR_SOFT))
		return;
	if (qy_limits_soft_due(&arenas)) {
		if (!purge_for_soft_limits(&bytes))
			qy_dirt_call(QY_DIRT_FOR_SOFT);
		arenas += bytes == 0 ? SOFT_IN_VAIN : 0;
	}
	atomic_store_explicit(&skip, arenas / SOFT_ARENAS, memory_order_relaxed);
}

static bool has_soft_limits(void)
{
	return qy_setting(soft_limit) != 0 ||
	       atomic_load_explicit(&qy_limits_soft_arenas, memory_order_relaxed) != 0;
}

static bool forked; /* a child that has one thread, though its parent had more: it may be about to exec */

/* glibc (2.32) tells whether the process has ever had a second thread, ours among them: then its shortcuts for one are
 * lost already. */
extern char __libc_single_threaded __attribute__((weak));

static bool has_other_threads(void)
{
	return atomic_load_explicit(&threads_seen, memory_order_relaxed) > 1 ||
	       (!forked && &__libc_single_threaded != NULL && !__libc_single_threaded);
}

static bool wants_thread(long mode)
{
	uint64_t mapped = 0;
	struct qy_manager *m;

	if (mode == QY_RECLAIM_PARALLEL)
		return true;
	/* Whoever tends by himself has said what he thinks of threads. */
	if (qy_tended(qy_os->now_ms()))
		return false;
	if (has_other_threads())
		return true;
	for (m = qy_manager_next(NULL); m != NULL; m = qy_manager_next(m))
		mapped += qy_read(&m->mapped);
	return mapped >= (uint64_t)qy_setting(large_heap);
}

void qy_reclaim_note_threads(unsigned live)
{
	if (live > atomic_load_explicit(&threads_seen, memory_order_relaxed))
		atomic_store_explicit(&threads_seen, live, memory_order_relaxed);
}

static QY_COLD void consider(uint32_t calls)
{
	long mode = qy_setting(reclaim);
	uint32_t interval = (uint32_t)qy_setting(reclaim_interval);
	uint32_t step = atomic_load_explicit(&series_step, memory_order_relaxed);

	bool alone = mode == QY_RECLAIM_SERIES || mode == QY_RECLAIM_TIMER, none;

	if (mode == QY_RECLAIM_OFF)
		return;
	if (atomic_load_explicit(&qy_heap_grew, memory_order_relaxed) != 0)
		atomic_store_explicit(&qy_heap_grew, 0, memory_order_relaxed);
	none = atomic_load_explicit(&thread_state, memory_order_relaxed) == THREAD_NONE;
	if (mode == QY_RECLAIM_TIMER && none && qy_timer_begin() && calls % interval == 0)
		qy_timer_stir();
	if (!alone && none && wants_thread(mode))
		start_thread();
	else if ((alone || !qy_reclaim_running()) && calls % interval == 0 &&
		 (calls / interval) % ((uint32_t)1 << (step / 2)) == 0)
		run_series();
}

void qy_reclaim_tick(uint32_t calls)
{
	uint32_t interval = (uint32_t)qy_setting(reclaim_interval);

	/* (Before anybody is woken for it.) */
	if (QY_UNLIKELY(has_soft_limits()))
		keep_to_soft_limits();
	if (QY_UNLIKELY(atomic_load_explicit(&qy_asleep, memory_order_relaxed) != 0 &&
			qy_dirt_for_sleeper())) {
		if (atomic_exchange(&qy_asleep, 0) != 0)
			wake_whom();
	}
	if (QY_UNLIKELY(calls % interval == 0 ||
			((atomic_load_explicit(&threads_seen, memory_order_relaxed) > 1 ||
			  atomic_load_explicit(&qy_heap_grew, memory_order_relaxed) != 0) &&
			 atomic_load_explicit(&thread_state, memory_order_relaxed) == THREAD_NONE)))
		consider(calls);
	if (QY_UNLIKELY(qy_publish_tick(calls)))
		wake();
	qy_events_deliver();
}

void qy_reclaim_after_fork(void)
{
	atomic_store(&thread_state, THREAD_NONE);
	atomic_store(&threads_seen, 1);
	atomic_store(&qy_asleep, 0);
	atomic_store(&signalled, 0);
	atomic_store(&stopping, 0);
	atomic_store(&at_refused, 0);
	qy_pass_end();
	atomic_store(&qy_heap_grew, 0);
	forked = true;
	is_reclaimer = false;
	qy_tend_after_fork();
	qy_timer_after_fork();
	qy_publish_after_fork();
}

enum quarry_reclaimer qy_reclaim_way(void)
{
	long mode = qy_setting(reclaim);

	if (mode == QY_RECLAIM_OFF)
		return QUARRY_RECLAIMER_NONE;
	if (qy_reclaim_running() && mode != QY_RECLAIM_SERIES && mode != QY_RECLAIM_TIMER)
		return QUARRY_RECLAIMER_THREAD;
	if (qy_tended(qy_os->now_ms()))
		return QUARRY_RECLAIMER_TENDED;
	return mode == QY_RECLAIM_TIMER && qy_timer_there() ? QUARRY_RECLAIMER_TIMER : QUARRY_RECLAIMER_SERIES;
}
