/* SPDX-License-Identifier: MIT */
#include "lib/manager/limits.h"

#include <string.h>

#include "lib/base/lock.h"
#include "lib/base/probe.h"
#include "lib/base/refused.h"
#include "lib/base/settings.h"
#include "lib/manager/breaker.h"
#include "lib/manager/budget.h"
#include "lib/manager/events.h"
#include "lib/manager/manager.h"
#include "lib/manager/quota.h"
#include "lib/manager/regions.h"
#include "numa/os.h"

#define LARGE_PROCESS ((uint64_t)32 << 20) /* mapped; below it no file is read while there is no pressure */
#define CALM_MS 1000                       /* lower for so long before the level falls, each time by one */
#define SERIES_MS 1000                     /* denials are told so often */
#define RECENT_MS 10000                    /* a denial is a reason of bad health for so long */
#define ABOVE_SOFT_MS 1000                 /* the longest decay of what threads hold while an arena is above its soft
                                            * limit */
#define SOFT_LEAST ((uint64_t)1 << 20) /* free above a soft limit: less is left to the next pass, and so is */
#define SOFT_SHARE 32                  /* one part in so many of the limit */
#define SLACK 50                           /* 1/1000 of a limit that it must be below where it rose */

_Atomic(int) qy_pressure_now;
_Atomic(uint32_t) qy_limits_above_soft, qy_limits_soft_arenas;

static struct qy_limit_marks process_marks;

/* What a hard limit refused the thread last. */
static __thread struct denial {
	enum qy_denied_by by;
	struct qy_manager *head; /* the arena's; NULL: the process's limit */
	size_t bytes;
	uint64_t limit;
} denial __attribute__((tls_model("initial-exec")));

static _Atomic(uint64_t) denied_arenas;
static _Atomic(uint32_t) arenas_above_soft; /* at the last look */
static _Atomic(uint64_t) denied_ms; /* when something was refused last, + 1; 0: never */

static _Atomic(uint32_t) ticking; /* who turned it from 0 to 1 has what follows to itself */
static uint64_t looked_ms;        /* + 1; 0: never */
static uint64_t high_ms;          /* when the level was last called for */
static uint64_t cgroup_denials;   /* as of the last look */
static bool wants;

/* Leaf: guards the state for the viewer. */
static struct qy_lock lock = QY_LOCK_INIT(QY_RANK_LEAF);
static struct qy_limits_state state;

/* ---- what calls for which level ---- */

unsigned qy_bound_fill(const struct qy_bound *bound)
{
	/* Sizes far beyond 2^54 do not exist, but RLIMIT_AS may be anything. */
	uint64_t limit = bound->limit >> 10, used = bound->used >> 10;

	if (bound->limit == 0)
		return 0;
	if (used >= limit)
		return 1000;
	return (unsigned)(limit < UINT64_MAX / 1000 ? used * 1000 / limit : used / (limit / 1000));
}

/* For the breaker: of what can be used. Of a control group's limit, malloc leaves some to others. */
static unsigned usable_fill(struct qy_bound bound)
{
	if (bound.kind == QUARRY_LIMIT_CGROUP)
		bound.limit -= qy_min(bound.limit - 1, qy_budget_reserve(bound.limit));
	return qy_bound_fill(&bound);
}

/* Thresholds that rise; how many of them n has reached. */
static int steps(uint64_t n, const uint64_t thresholds[3])
{
	int level = 0;

	while (level < 3 && n >= thresholds[level])
		level++;
	return level;
}

#define NEVER UINT64_MAX

static int by_fill(const struct qy_bound *bound, unsigned slack)
{
	static const uint64_t at[3] = { 850, 920, 970 };

	return bound->limit == 0 ? 0 : steps(qy_bound_fill(bound) + slack, at);
}

/* memory.high: beyond it the process is held up, and not killed. */
static int by_high(const struct qy_pressure *p, unsigned slack)
{
	static const uint64_t at[3] = { 900, 980, NEVER };
	struct qy_bound bound = { QUARRY_LIMIT_CGROUP, p->high_limit, p->high_used };

	return p->high_limit == UINT64_MAX ? 0 : steps(qy_bound_fill(&bound) + slack, at);
}

/* To stay, half of what it takes to come. */
static int by_psi(const struct qy_pressure *p, unsigned factor)
{
	static const uint64_t some[3] = { 50, 200, NEVER }, full[3] = { 20, 50, 250 };
	int by_some = steps((uint64_t)p->some * factor, some), by_full = steps((uint64_t)p->full * factor, full);

	return p->window_ms == 0 ? 0 : by_some > by_full ? by_some : by_full;
}

/* A share of the machine, but of a large one no more than some gigabytes. */
static int by_machine(const struct qy_pressure *p, unsigned eighths)
{
	static const struct {
		unsigned part;
		uint64_t most;
	} at[3] = { { 10, (uint64_t)4 << 30 }, { 20, (uint64_t)2 << 30 }, { 50, (uint64_t)512 << 20 } };
	int level = 0;

	if (p->total == UINT64_MAX || p->total == 0)
		return 0;
	while (level < 3 && p->available < qy_min(p->total / at[level].part, at[level].most) / 8 * eighths)
		level++;
	return level;
}

static int higher(int level, int by, uint32_t reason, uint32_t *reasons)
{
	if (by > 0)
		*reasons |= reason;
	return by > level ? by : level;
}

/* The level that this calls for; what is there stays on less than what it takes to come. */
static int called_for(const struct qy_pressure *p, const struct qy_bound *tightest, bool denied, bool staying,
		      uint32_t *reasons)
{
	unsigned slack = staying ? SLACK : 0;
	int level = 0;

	*reasons = 0;
	level = higher(level, by_fill(tightest, slack), QUARRY_HEALTH_LIMIT_FILL, reasons);
	level = higher(level, by_high(p, slack), QUARRY_HEALTH_LIMIT_FILL, reasons);
	level = higher(level, by_psi(p, staying ? 2 : 1), QUARRY_HEALTH_PSI, reasons);
	level = higher(level, by_machine(p, staying ? 10 : 8), QUARRY_HEALTH_MACHINE, reasons);
	level = higher(level, p->events_high != 0 || p->events_max != 0 ? QUARRY_PRESSURE_HIGH : 0,
		       QUARRY_HEALTH_CGROUP_EVENTS, reasons);
	/* What the control group has left was too little for a request: before the kernel says so. */
	return higher(level, denied ? QUARRY_PRESSURE_HIGH : 0, QUARRY_HEALTH_DENIED, reasons);
}

/* ---- the process's bounds ---- */

struct bounds {
	struct qy_bound tightest; /* by what is used */
	unsigned usable_fill;     /* for the breaker, 1/1000: that of the one that is fullest in this way, be it
	                           * another */
};

static void consider(struct bounds *bounds, int kind, uint64_t limit, uint64_t used)
{
	struct qy_bound bound = { kind, limit, used };

	if (limit == UINT64_MAX || limit == 0)
		return;
	if (bounds->tightest.limit == 0 || qy_bound_fill(&bound) > qy_bound_fill(&bounds->tightest))
		bounds->tightest = bound;
	bounds->usable_fill = qy_max(bounds->usable_fill, usable_fill(bound));
}

static struct bounds bounds_of(const struct qy_pressure *p)
{
	struct bounds bounds = { { QUARRY_LIMIT_NONE, 0, 0 }, 0 };
	uint64_t hard = (uint64_t)qy_setting(hard_limit);

	if (hard != 0)
		consider(&bounds, QUARRY_LIMIT_PROCESS, hard, qy_quota_used());
	consider(&bounds, QUARRY_LIMIT_CGROUP, p->group_limit, p->group_used);
	consider(&bounds, QUARRY_LIMIT_ADDRESS_SPACE, p->address_limit, p->address_used);
	return bounds;
}

/* ---- what is known exactly ---- */

static bool beyond(uint64_t limit, uint64_t used, uint64_t more, unsigned per_mille)
{
	uint64_t most = limit / 1000 * per_mille + limit % 1000 * per_mille / 1000;

	return used > most || more > most - used;
}

bool qy_limits_hard_beyond(uint64_t more, unsigned per_mille)
{
	uint64_t limit = (uint64_t)qy_setting(hard_limit);

	return limit != 0 && beyond(limit, qy_quota_taken(), more, per_mille) &&
	       beyond(limit, qy_quota_settle(), more, per_mille);
}

bool qy_limits_address_beyond(uint64_t more, unsigned per_mille)
{
	uint64_t limit, used, unused = 0;

	if (!qy_pressure_address(&limit, &used) || !beyond(limit, used, more, per_mille))
		return false;
	for (struct qy_manager *m = qy_manager_next(NULL); m != NULL; m = qy_manager_next(m))
		unused += qy_read(&m->mapped) - qy_min(qy_read(&m->used), qy_read(&m->mapped));
	return more > unused || beyond(limit, used, 1, per_mille);
}

/* ---- denials ---- */

static void tell_denials(struct qy_manager *head, struct qy_limit_marks *marks)
{
	quarry_event event = {
		.kind = QUARRY_EVENT_HARD_LIMIT,
		.state = 1,
		.arena = head == NULL ? NULL : &qy_arenas[qy_peek(head->index)],
		.bytes = atomic_load_explicit(&marks->last_bytes, memory_order_relaxed),
		.limit = atomic_load_explicit(&marks->last_limit, memory_order_relaxed),
		.count = atomic_exchange_explicit(&marks->untold, 0, memory_order_relaxed),
	};

	if (event.count != 0)
		qy_events_note(&event);
}

static bool may_tell(struct qy_limit_marks *marks, uint64_t now)
{
	uint64_t before = atomic_load_explicit(&marks->told_ms, memory_order_relaxed);

	return (before == 0 || now + 1 - before >= SERIES_MS) &&
	       atomic_compare_exchange_strong_explicit(&marks->told_ms, &before, now + 1, memory_order_relaxed,
						       memory_order_relaxed);
}

void qy_limits_deny(struct qy_manager *head, size_t bytes, uint64_t limit)
{
	denial = (struct denial){ head != NULL ? QY_DENIED_BY_ARENA : QY_DENIED_BY_PROCESS, head, bytes, limit };
}

enum qy_denied_by qy_limits_denied_by(void)
{
	return denial.by;
}

void qy_limits_forget_denial(void)
{
	denial.by = QY_DENIED_BY_NONE;
}

void qy_limits_tell_denial(void)
{
	struct denial d = denial;
	struct qy_limit_marks *marks = d.head != NULL ? &d.head->marks : &process_marks;
	uint64_t now;

	if (d.by == QY_DENIED_BY_NONE)
		return;
	denial.by = QY_DENIED_BY_NONE;
	QY_PROBE3(limit, d.bytes, d.limit, d.head == NULL ? -1 : (int)qy_peek(d.head->index));
	now = qy_os->now_ms();
	qy_refuse(QUARRY_REFUSED_LIMIT);
	qy_count_shared(&marks->denied, 1);
	if (d.head != NULL)
		qy_count_shared(&denied_arenas, 1);
	atomic_store_explicit(&denied_ms, now + 1, memory_order_relaxed);
	atomic_store_explicit(&marks->last_bytes, d.bytes, memory_order_relaxed);
	atomic_store_explicit(&marks->last_limit, d.limit, memory_order_relaxed);
	qy_count_shared(&marks->untold, 1);
	if (may_tell(marks, now))
		tell_denials(d.head, marks);
	if (d.head == NULL)
		qy_breaker_note_denial(qy_quota_taken(), d.limit);
}

/* Those of a series that were not told when they came. Whether there are any still. */
static bool follow_up(struct qy_manager *head, struct qy_limit_marks *marks, uint64_t now)
{
	if (atomic_load_explicit(&marks->untold, memory_order_relaxed) == 0)
		return false;
	if (may_tell(marks, now))
		tell_denials(head, marks);
	return atomic_load_explicit(&marks->untold, memory_order_relaxed) != 0;
}

/* ---- soft limits ---- */

static void mark_soft(struct qy_manager *head, _Atomic(uint32_t) *above, uint64_t bytes, uint64_t limit)
{
	uint32_t now_above = limit != 0 && bytes > limit;
	quarry_event event = {
		.kind = QUARRY_EVENT_SOFT_LIMIT,
		.state = (int)now_above,
		.was = !now_above,
		.arena = head == NULL ? NULL : &qy_arenas[qy_peek(head->index)],
		.bytes = bytes,
		.limit = limit,
		.count = 1,
	};

	if (atomic_exchange_explicit(above, now_above, memory_order_relaxed) == now_above)
		return;
	QY_PROBE4(soft_limit, now_above, bytes, limit, head == NULL ? -1 : (int)qy_peek(head->index));
	qy_events_note(&event);
}

static uint64_t dirty_of(struct qy_manager *head)
{
	uint64_t pages = 0;

	for (struct qy_manager *m = qy_family_next(head, NULL); m != NULL; m = qy_family_next(head, m))
		pages += qy_read(&m->dirty_pages);
	return pages << QY_PAGE_SHIFT;
}

void qy_limits_note_soft(void)
{
	atomic_store_explicit(&qy_limits_soft_arenas, 1, memory_order_relaxed);
}

/* That it is below again is seen by the next look: a program that goes up and down would be told of each time. */
static bool soft_due(struct qy_manager *head, _Atomic(uint32_t) *above, uint64_t held, uint64_t dirty, uint64_t limit)
{
	if (limit == 0 || held <= limit || dirty < qy_max(limit / SOFT_SHARE, SOFT_LEAST))
		return false;
	mark_soft(head, above, held, limit);
	return true;
}

bool qy_limits_soft_due(unsigned *arenas)
{
	uint64_t held = 0, dirty = 0;
	bool due = false;

	*arenas = 0;
	for (struct qy_manager *m = qy_manager_next(NULL); m != NULL; m = qy_manager_next(m), ++*arenas) {
		uint64_t soft = atomic_load_explicit(&m->soft_limit, memory_order_relaxed);

		held += qy_manager_held(m);
		dirty += qy_read(&m->dirty_pages) << QY_PAGE_SHIFT;
		if (soft != 0 && qy_peek(m->head) == m)
			due = soft_due(m, &m->marks.above_soft, qy_family_held(m), dirty_of(m), soft) || due;
	}
	return soft_due(NULL, &qy_limits_above_soft, held, dirty, (uint64_t)qy_setting(soft_limit)) || due;
}

struct sums {
	uint64_t mapped, held; /* held: in use, and free in memory */
	uint32_t arenas_above;
	bool waiting;          /* something is to be told later */
};

/* Go over the arenas: their own limits, and what all hold. */
static struct sums go_over(uint64_t now)
{
	struct sums sums = { 0, 0, 0, false };

	for (struct qy_manager *m = qy_manager_next(NULL); m != NULL; m = qy_manager_next(m)) {
		uint64_t soft;

		sums.mapped += qy_read(&m->mapped);
		sums.held += qy_manager_held(m);
		if (qy_peek(m->head) != m)
			continue;
		soft = atomic_load_explicit(&m->soft_limit, memory_order_relaxed);
		if (soft != 0 || atomic_load_explicit(&m->marks.above_soft, memory_order_relaxed) != 0)
			mark_soft(m, &m->marks.above_soft, qy_family_held(m), soft);
		sums.arenas_above += atomic_load_explicit(&m->marks.above_soft, memory_order_relaxed);
		sums.waiting = follow_up(m, &m->marks, now) || sums.waiting;
		sums.waiting = qy_fallback_follow_up(m, now) || sums.waiting;
	}
	sums.waiting = follow_up(NULL, &process_marks, now) || sums.waiting;
	return sums;
}

/* ---- the level ---- */

static void change_level(int level)
{
	quarry_event event = { .kind = QUARRY_EVENT_PRESSURE, .state = level, .was = qy_pressure_level(), .count = 1 };

	if (level == event.was)
		return;
	QY_PROBE2(pressure, level, event.was);
	atomic_store_explicit(&qy_pressure_now, level, memory_order_relaxed);
	qy_events_note(&event);
}

static void follow_level(int comes, int stays, uint64_t now)
{
	int level = qy_pressure_level();

	if (comes > level) {
		level = comes;
		high_ms = now;
	} else if (stays >= level) {
		high_ms = now;
	} else if (now - high_ms >= CALM_MS) {
		level--;
		high_ms = now;
	}
	change_level(level);
}

/* By the one who ticks. */
static void look(uint64_t now, bool ask_kernel)
{
	struct qy_pressure p = { .group_limit = UINT64_MAX, .high_limit = UINT64_MAX, .address_limit = UINT64_MAX,
				 .total = UINT64_MAX, .available = UINT64_MAX };
	uint64_t soft = (uint64_t)qy_setting(soft_limit), denials = qy_read(&qy_refused[QUARRY_REFUSED_CGROUP]);
	struct sums sums = go_over(now);
	struct bounds bounds;
	uint32_t reasons, ignored;
	bool denied = denials != cgroup_denials, watching;
	int comes, stays;

	watching = ask_kernel || sums.mapped >= LARGE_PROCESS || qy_pressure_level() != QUARRY_PRESSURE_NONE ||
		   denied || qy_setting(breaker) != QY_BREAKER_OFF;
	if (watching) {
		p = qy_pressure_look(now);
		/* A limit may have come while the heap does not grow, and go by what it has mapped. */
		if (p.group_limit != UINT64_MAX)
			qy_budget_refresh(0);
	}
	if (denied)
		atomic_store_explicit(&denied_ms, now + 1, memory_order_relaxed);
	cgroup_denials = denials;
	mark_soft(NULL, &qy_limits_above_soft, sums.held, soft);
	bounds = bounds_of(&p);
	comes = called_for(&p, &bounds.tightest, denied, false, &ignored);
	stays = called_for(&p, &bounds.tightest, denied, true, &reasons);
	follow_level(comes, stays, now);
	wants = qy_breaker_tick(now, bounds.usable_fill, qy_pressure_level());
	wants = wants || qy_pressure_level() != QUARRY_PRESSURE_NONE || sums.waiting || sums.arenas_above != 0 ||
		sums.mapped >= LARGE_PROCESS || atomic_load(&qy_limits_above_soft) != 0;
	qy_lock(&lock);
	if (watching)
		state.pressure = p;
	state.tightest = bounds.tightest;
	state.reasons = qy_pressure_level() == QUARRY_PRESSURE_NONE ? 0 : reasons;
	state.arenas_above_soft = sums.arenas_above;
	atomic_store_explicit(&arenas_above_soft, sums.arenas_above, memory_order_relaxed);
	qy_unlock(&lock);
	looked_ms = now + 1;
}

static bool tick(uint64_t now, bool at_once)
{
	bool again;

	if (atomic_exchange_explicit(&ticking, 1, memory_order_acquire) != 0)
		return true;
	if (at_once || looked_ms == 0 || now + 1 - looked_ms >= QY_PRESSURE_EVERY_MS)
		look(now, at_once);
	again = wants;
	atomic_store_explicit(&ticking, 0, memory_order_release);
	return again;
}

bool qy_limits_tick(uint64_t now)
{
	return tick(now == UINT64_MAX ? qy_os->now_ms() : now, false);
}

void qy_limits_look(uint64_t now)
{
	tick(now, true);
}

/* ---- asking ---- */

long qy_limits_decay(long decay_ms)
{
	int level = qy_pressure_level();

	if (level >= QUARRY_PRESSURE_HIGH || atomic_load_explicit(&qy_limits_above_soft, memory_order_relaxed) != 0)
		return 0;
	if (decay_ms <= 0 || level == QUARRY_PRESSURE_NONE)
		return decay_ms;
	/* (0 would be "at once".) */
	return decay_ms < 4 ? 1 : decay_ms / 4;
}

long qy_limits_threads_decay(long decay_ms)
{
	bool above = atomic_load_explicit(&arenas_above_soft, memory_order_relaxed) != 0;

	return above && (decay_ms < 0 || decay_ms > ABOVE_SOFT_MS) ? ABOVE_SOFT_MS : decay_ms;
}

struct qy_limits_state qy_limits_state(uint64_t now)
{
	uint64_t denied = atomic_load_explicit(&denied_ms, memory_order_relaxed);
	struct qy_limits_state copy;

	qy_lock(&lock);
	copy = state;
	qy_unlock(&lock);
	copy.level = qy_pressure_level();
	if (denied != 0 && now + 1 - denied < RECENT_MS)
		copy.reasons |= QUARRY_HEALTH_DENIED;
	else
		copy.reasons &= ~(uint32_t)QUARRY_HEALTH_DENIED;
	if (copy.arenas_above_soft != 0 || atomic_load(&qy_limits_above_soft) != 0)
		copy.reasons |= QUARRY_HEALTH_SOFT_LIMIT;
	copy.denied_process = qy_read(&process_marks.denied);
	copy.denied_arenas = qy_read(&denied_arenas);
	return copy;
}

void qy_limits_after_fork(void)
{
	qy_lock_init(&lock, QY_RANK_LEAF);
	atomic_store(&ticking, 0);
	looked_ms = 0;
	qy_pressure_forget();
	qy_quota_after_fork();
	qy_events_after_fork();
	qy_regions_after_fork();
	qy_breaker_after_fork();
}
