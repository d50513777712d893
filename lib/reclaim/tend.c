/* SPDX-License-Identifier: MIT */
/* A pass for whoever cannot be held up: an event loop (quarry_tend) or a signal handler (timer.c).
 *
 * Nothing is waited for that takes long. The purge lock, under which memory goes back, arenas move and end, and fork
 * begins, is tried; who has it is no longer waited for, and nobody pauses threads while we have it. What else is waited
 * for (managers, the window, the lists of threads) is held by others for some instructions, in which they call nothing
 * that could wait for us. */
#include "lib/reclaim/pass.h"

#include "lib/base/lock.h"
#include "lib/base/settings.h"
#include "lib/manager/collapse.h"
#include "lib/manager/events.h"
#include "lib/manager/homing.h"
#include "lib/manager/limits.h"
#include "lib/manager/manager.h"
#include "lib/reclaim/publish.h"
#include "numa/os.h"

#define TIME_NS 2000000              /* in one pass; then it is done with what it has begun, 8 MiB at most */
#define BYTES ((size_t)64 << 20)     /* of one manager, in one pass */
#define HOMING_BYTES ((size_t)4 << 20)
#define COLLAPSE_NS 1                /* one huge page */
#define RUNNING_MOST 5               /* log2 of what multiplies the time to the next signal for a program at work */
#define GRACE_MS 2000                /* so late a program has stopped calling */
#define LEAST_DIRT ((uint64_t)1 << 20) /* less is no reason for a signal */

static _Atomic(uint64_t) due;        /* ms; when quarry_tend is to be called next, as it was told */
static _Atomic(bool) called;
static _Atomic(unsigned) running;    /* signals in a row that found a program at work; written by one pass at a time */

bool qy_tend_may(void)
{
	return qy_locks_held == 0 && !qy_purge_is_caller() && (qy_layer == NULL || !qy_layer->inside());
}

bool qy_tend_is_worth_it(void)
{
	uint64_t pages = 0;

	for (struct qy_manager *m = qy_manager_next(NULL); m != NULL; m = qy_manager_next(m)) {
		pages += qy_read(&m->dirty_pages);
		if (atomic_load_explicit(&m->decay.sparse_due, memory_order_relaxed) != UINT64_MAX)
			return true;
	}
	return pages << QY_PAGE_SHIFT >= LEAST_DIRT;
}

/* With the purge lock. First what threads hold, so that what comes of it can go back at once. */
static uint64_t give_back(uint64_t now, enum qy_tending how)
{
	long decay_ms = qy_limits_decay(qy_setting(decay_ms));
	struct qy_pass pass = { .now = now, .decay_ms = decay_ms, .each = BYTES, .at_most = SIZE_MAX, .locked = true };
	uint64_t next = UINT64_MAX, half = qy_os->now_ns() + TIME_NS / 2, purged;

	pass.until_ns = half + TIME_NS / 2;
	qy_pass_note(now, decay_ms);
	if (qy_layer != NULL && how != QY_TEND_RUNNING && (how == QY_TEND_CALLED || qy_layer->known())) {
		enum qy_chore_left left = qy_layer->chore(now, half);

		if (left != QY_CHORE_NONE)
			next = left == QY_CHORE_CUT ? now : now + qy_pass_step(decay_ms);
		next = qy_min(next, qy_layer->own(now, half));
		atomic_store_explicit(&running, 0, memory_order_relaxed);
	} else if (qy_layer != NULL) {
		unsigned so_often = atomic_load_explicit(&running, memory_order_relaxed);

		/* What was not looked at is looked at later; but who computes for an hour is not to be asked all the
		 * while. */
		next = now + (qy_pass_step(decay_ms) << so_often);
		atomic_store_explicit(&running, (unsigned)qy_min(so_often + 1, RUNNING_MOST), memory_order_relaxed);
	}
	purged = qy_pass_over_managers(&pass) ? pass.next : now;
	/* (Pages inside slabs take long: who is at work is not to spend a tenth of his time on them.) */
	if (how == QY_TEND_RUNNING && purged > now)
		purged = qy_max(purged, now + qy_pass_step(decay_ms));
	if (how != QY_TEND_CALLED && purged > now && !qy_tend_is_worth_it())
		return next;
	return qy_min(next, purged);
}

/* What takes long, or is not worth a signal. */
static uint64_t look_after_places(uint64_t now)
{
	uint64_t homing, collapse;

	qy_homing_pass(now, HOMING_BYTES, &homing);
	qy_collapse_pass(now, COLLAPSE_NS, &collapse);
	return qy_min(homing, collapse);
}

uint64_t qy_tend_pass(uint64_t now, enum qy_tending how)
{
	uint64_t next = now + QY_SHORTEST_SLEEP_MS;
	bool watch;

	if (!qy_pass_begin())
		return next;
	if (qy_purge_try()) {
		/* (What appears from here on is seen at the end, or by this pass.) */
		(void)qy_dirt_take(QY_DIRT_FOR_SLEEPER);
		watch = how != QY_TEND_RUNNING && qy_limits_tick(now);
		next = give_back(now, how);
		qy_purge_done();
		if (how == QY_TEND_CALLED) {
			next = qy_min(next, look_after_places(now));
			if (watch)
				next = qy_min(next, now + QY_LIMITS_MS);
		}
	}
	qy_pass_end();
	return next;
}

static bool have_thread(void)
{
	long mode = qy_setting(reclaim);

	return qy_reclaim_running() && mode != QY_RECLAIM_SERIES && mode != QY_RECLAIM_TIMER;
}

static int64_t until(uint64_t now, uint64_t next)
{
	if (next == UINT64_MAX)
		return -1;
	return next <= now ? QY_SHORTEST_SLEEP_MS : (int64_t)(next - now);
}

int64_t qy_reclaim_tend(void)
{
	uint64_t now = qy_os->now_ms(), next = atomic_load(&due);
	uint32_t looks = atomic_load(&qy_looks);

	if (!qy_tend_may())
		return QY_SHORTEST_SLEEP_MS;
	qy_events_deliver();
	(void)qy_publish_if_due(now);
	if (qy_setting(reclaim) == QY_RECLAIM_OFF || have_thread())
		return -1;
	/* New dirt is left alone for a while. */
	if (qy_dirt_for_sleeper())
		next = qy_min(next, now + qy_pass_soonest());
	if (now >= next || !atomic_load_explicit(&called, memory_order_relaxed)) {
		next = qy_tend_pass(now, QY_TEND_CALLED);
		if (next <= now)
			next = now + QY_SHORTEST_SLEEP_MS;
		qy_events_deliver();
		if (qy_setting(reclaim) == QY_RECLAIM_TIMER)
			qy_timer_settle(now, next);
	}
	atomic_store(&due, next);
	atomic_store_explicit(&called, true, memory_order_relaxed);
	if (atomic_load(&qy_looks) != looks)
		qy_tend_look();
	return until(now, qy_min(next, atomic_load(&due)));
}

bool qy_tend_put_off(void)
{
	return atomic_load_explicit(&running, memory_order_relaxed) > 1;
}

void qy_tend_look(void)
{
	uint64_t now = qy_os->now_ms(), next = atomic_load(&due);

	while (next > now && !atomic_compare_exchange_weak(&due, &next, now))
		;
}

bool qy_tended(uint64_t now)
{
	uint64_t next = atomic_load_explicit(&due, memory_order_relaxed);

	if (!atomic_load_explicit(&called, memory_order_relaxed))
		return false;
	/* It was told that there is nothing: the time that it has begins with what is new. */
	if (next == UINT64_MAX && qy_dirt_for_sleeper())
		atomic_compare_exchange_strong(&due, &next, now);
	return next == UINT64_MAX || now < next + GRACE_MS;
}

void qy_tend_after_fork(void)
{
	atomic_store(&due, 0);
	atomic_store(&called, false);
}
