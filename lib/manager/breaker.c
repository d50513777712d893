/* SPDX-License-Identifier: MIT */
#include "lib/manager/breaker.h"

#include "lib/base/lock.h"
#include "lib/base/probe.h"
#include "lib/base/refused.h"
#include "lib/base/settings.h"
#include "lib/manager/events.h"
#include "lib/manager/limits.h"
#include "numa/os.h"

#define RETRY_FIRST_MS 100
#define RETRY_MOST_MS 10000
#define CLOSE_BELOW 50 /* 1/1000 under the threshold */

_Atomic(int) qy_breaker_now;

/* Leaf: guards what follows. Taken when it is open, or opens. */
static struct qy_lock lock = QY_LOCK_INIT(QY_RANK_LEAF);
static uint64_t since_ms; /* when it was opened, or half opened */
static uint64_t retry_ms = RETRY_FIRST_MS;
static _Atomic(uintptr_t) redirect;
static qy_counter opened, refused, redirected, probes;
static _Atomic(uint32_t) last_fill; /* as the last tick saw it */
static _Atomic(int) last_level;
static __thread bool probing __attribute__((tls_model("initial-exec"))); /* this thread was let through */

static int state_now(void)
{
	return atomic_load_explicit(&qy_breaker_now, memory_order_relaxed);
}

static unsigned threshold(void)
{
	return (unsigned)qy_setting(breaker_at) * 10;
}

/* The lock is held. */
static void turn(int state, uint64_t now)
{
	quarry_event event = { .kind = QUARRY_EVENT_BREAKER, .state = state, .was = state_now(), .count = 1 };

	QY_PROBE2(breaker, state, event.was);
	since_ms = now;
	if (state == QUARRY_BREAKER_CLOSED)
		retry_ms = RETRY_FIRST_MS;
	else if (state == QUARRY_BREAKER_OPEN)
		qy_count_shared(&opened, 1);
	atomic_store_explicit(&qy_breaker_now, state, memory_order_relaxed);
	qy_events_note(&event);
}

/* Whether the caller is the one that may try. The lock is held. */
static bool may_probe(uint64_t now)
{
	if (now - since_ms < (state_now() == QUARRY_BREAKER_OPEN ? retry_ms : RETRY_MOST_MS))
		return false;
	/* (Half open for so long: who tried did not come back.) */
	if (state_now() == QUARRY_BREAKER_OPEN)
		turn(QUARRY_BREAKER_HALF_OPEN, now);
	else
		since_ms = now;
	qy_count_shared(&probes, 1);
	return true;
}

static void open_now(void)
{
	qy_lock(&lock);
	if (state_now() == QUARRY_BREAKER_CLOSED)
		turn(QUARRY_BREAKER_OPEN, qy_os->now_ms());
	qy_unlock(&lock);
}

/* It is closed. Whether so much more alone would lead beyond the threshold; and where the least of those that are large
 * would, it opens: one that is too large, far from it, says nothing of others. */
static bool leads_beyond(size_t more)
{
	size_t least = (size_t)qy_setting(breaker_min);

	if (!qy_limits_hard_beyond(more, threshold()) && !qy_limits_address_beyond(more, threshold()))
		return false;
	if (qy_limits_hard_beyond(least, threshold()) || qy_limits_address_beyond(least, threshold()))
		open_now();
	return true;
}

static enum qy_verdict judge_by_state(void)
{
	enum qy_verdict verdict = QY_BREAKER_REFUSE;

	qy_lock(&lock);
	if (state_now() == QUARRY_BREAKER_CLOSED)
		verdict = QY_BREAKER_PASS;
	else if (may_probe(qy_os->now_ms()))
		verdict = QY_BREAKER_PROBE;
	qy_unlock(&lock);
	probing = verdict == QY_BREAKER_PROBE;
	return verdict;
}

enum qy_verdict qy_breaker_judge(size_t size, size_t more, const quarry_arena **arena, bool may_redirect)
{
	const quarry_arena *target = (const quarry_arena *)atomic_load_explicit(&redirect, memory_order_acquire);
	enum qy_verdict verdict;

	if (!qy_breaker_minds(size) || probing || (target != NULL && *arena == target))
		return QY_BREAKER_PASS;
	if (state_now() == QUARRY_BREAKER_CLOSED)
		verdict = leads_beyond(more) ? QY_BREAKER_REFUSE : QY_BREAKER_PASS;
	else
		verdict = judge_by_state();
	if (verdict != QY_BREAKER_REFUSE)
		return verdict;
	qy_refuse(QUARRY_REFUSED_BREAKER);
	if (qy_setting(breaker) == QY_BREAKER_REDIRECTS && target != NULL && may_redirect) {
		qy_count_shared(&redirected, 1);
		*arena = target;
		return QY_BREAKER_REDIRECT;
	}
	qy_count_shared(&refused, 1);
	return QY_BREAKER_REFUSE;
}

bool qy_breaker_may_map(size_t size)
{
	return !qy_breaker_minds(size) || probing || !qy_limits_address_beyond(size, threshold());
}

void qy_breaker_probed(bool got)
{
	uint64_t now = qy_os->now_ms();

	probing = false;
	if (got)
		qy_limits_look(now);
	qy_lock(&lock);
	if (state_now() == QUARRY_BREAKER_HALF_OPEN) {
		if (got && atomic_load(&last_fill) < threshold() &&
		    atomic_load(&last_level) < QUARRY_PRESSURE_CRITICAL) {
			turn(QUARRY_BREAKER_CLOSED, now);
		} else {
			retry_ms = qy_min(2 * retry_ms, RETRY_MOST_MS);
			turn(QUARRY_BREAKER_OPEN, now);
		}
	}
	qy_unlock(&lock);
}

void qy_breaker_note_denial(uint64_t used, uint64_t limit)
{
	if (qy_setting(breaker) == QY_BREAKER_OFF || (used >> 10) * 1000 < (limit >> 10) * threshold())
		return;
	open_now();
}

bool qy_breaker_tick(uint64_t now, unsigned fill, int level)
{
	bool off = qy_setting(breaker) == QY_BREAKER_OFF, low;

	atomic_store(&last_fill, fill);
	atomic_store(&last_level, level);
	low = off || (fill + CLOSE_BELOW < threshold() && level < QUARRY_PRESSURE_CRITICAL);
	if (state_now() == QUARRY_BREAKER_CLOSED && (off || (fill < threshold() && level < QUARRY_PRESSURE_CRITICAL)))
		return false;
	qy_lock(&lock);
	if (state_now() == QUARRY_BREAKER_CLOSED)
		turn(QUARRY_BREAKER_OPEN, now);
	else if (low)
		turn(QUARRY_BREAKER_CLOSED, now);
	qy_unlock(&lock);
	return state_now() != QUARRY_BREAKER_CLOSED;
}

void qy_breaker_set_redirect(const quarry_arena *arena)
{
	atomic_store_explicit(&redirect, (uintptr_t)arena, memory_order_release);
}

void qy_breaker_forget_arena(const quarry_arena *arena)
{
	uintptr_t its = (uintptr_t)arena;

	atomic_compare_exchange_strong(&redirect, &its, 0);
}

struct qy_breaker_figures qy_breaker_figures(void)
{
	struct qy_breaker_figures figures = {
		.state = state_now(),
		.opened = qy_read(&opened),
		.refused = qy_read(&refused),
		.redirected = qy_read(&redirected),
		.probes = qy_read(&probes),
	};

	qy_lock(&lock);
	figures.retry_ms = retry_ms;
	qy_unlock(&lock);
	return figures;
}

void qy_breaker_after_fork(void)
{
	qy_lock_init(&lock, QY_RANK_LEAF);
}
