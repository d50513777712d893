/* SPDX-License-Identifier: MIT */
/* Compactions: what a call, or an allocation that was refused, has the mover do, in which order. (move.c is how objects are moved,
 * background.c when nobody calls.) */
#include <errno.h>
#include <sched.h>

#include "lib/api/error.h"
#include "lib/base/lock.h"
#include "lib/lanes/events.h"
#include "lib/lanes/fast.h"
#include "numa/os.h"

#define PLAN_OLD_NS 10000000000u
#define REFUSED_NS 500000000 /* somebody's allocation takes at most so much longer, before it fails, */
#define REFUSED_WAIT_NS 20000000 /* and waits so long for scopes */
#define BURIED 16 /* spans that are swept at once, unless time is short: each may have 4096 objects */
#define ENDING 3  /* a part of the time that is kept: for what ends a call, and for what the machine takes */

/* All pages of slots are looked at once at the most: some that are empty may have to stay. */
static void trim_slots(quarry_lanes *l, const struct qy_mover *m)
{
	uint64_t pages = atomic_load_explicit(&l->slots.next, memory_order_relaxed) / QY_SLOT_PAGE;

	for (uint64_t n = 0; n <= pages && !qy_mover_late(m) && qy_slots_trim(l); n += QY_SLOT_PAGES_AT_ONCE)
		;
}

/* What was freed, and is no scope's any more. One grace period is enough for all that was freed before. */
static void bury(quarry_lanes *l, const struct qy_mover *m)
{
	bool more = true, huge = true;

	if (qy_mover_late(m) || !qy_mover_lock(l, m))
		return;
	more = !qy_list_empty(&l->dead);
	qy_let_go(&l->lock);
	if (more)
		more = qy_grace_look(qy_grace_begin());
	while ((more || huge) && !qy_mover_late(m)) {
		huge = huge && qy_huge_bury(l, 1);
		if (!qy_mover_lock(l, m))
			return;
		more = more && qy_bury_known(l, l->hurried ? 1 : BURIED);
		qy_let_go(&l->lock);
	}
}

void qy_mover_free(quarry_lanes *l, struct qy_mover *m)
{
	bool more = true;

	bury(l, m);
	if (!l->hurried)
		trim_slots(l, m);
	for (more = true; more && qy_mover_left(m, l->pace.discard) > 0;) {
		struct qy_segment *g = NULL;

		if (!qy_mover_lock(l, m))
			return;
		more = !qy_list_empty(&l->spares);
		if (more) {
			g = qy_container(l->spares.next, struct qy_segment, order);
			qy_segment_leave(l, g);
		}
		qy_let_go(&l->lock);
		if (g != NULL)
			qy_mover_give_back(l, m, g);
	}
}

bool qy_mover_enter(quarry_lanes *l, const struct qy_mover *m)
{
	bool in;

	atomic_fetch_add(&l->governor.wanted, 1);
	while (!(in = qy_try_hold(&l->moving)) && atomic_load(&l->governor.inside) && !qy_mover_late(m))
		qy_spin();
	if (in)
		atomic_store(&l->governor.inside, false);
	atomic_fetch_sub(&l->governor.wanted, 1);
	return in;
}

/* For who moves next it is no such. */
static void leave(quarry_lanes *l)
{
	l->confined = false;
	atomic_store(&l->hurried, false);
	qy_let_go(&l->moving);
}

/* Under l->moving: a call that may take its time begins at the beginning. */
static void compact(quarry_lanes *l, struct qy_mover *m, int style, size_t enough, bool promote)
{
	struct qy_plan *p = &l->plan;
	size_t most = style == QUARRY_COMPACT_FULL ? SIZE_MAX : enough;
	bool gained = false, more;

	qy_mover_begin(l);
	l->confined = qy_mover_short(m, QY_CONFINED_NS) && !(promote && l->promoted_out);
	atomic_store(&l->hurried, qy_mover_short(m, QY_SHORT_NS));
	(void)qy_recall_end_by(l, m->deadline);
	qy_lanes_flush(l); /* what the thread takes from stays where it is */
	if (promote)
		qy_promote_for_compaction(l, m->deadline);
	(void)qy_fast_trim(l, 0, m->deadline);
	qy_mover_free(l, m);
	if (style == QUARRY_COMPACT_NONE)
		return;
	if (m->deadline == 0) /* what other threads took from and left is no reason to keep a segment */
		for (qy_recall_begin(l); !qy_recall_end(l);)
			sched_yield();
	if (m->deadline == 0)
		p->home = l->homes - 1; /* the next is the first */
	if (m->deadline == 0 || p->state == QY_PLAN_NONE || m->begun - p->begun > PLAN_OLD_NS)
		qy_plan_begin(l, m->begun);
	qy_pack(l, m, most);
	while (m->deadline == 0 && m->segments * QY_SEGMENT_SIZE < most) {
		more = style == QUARRY_COMPACT_FULL && qy_plan_gained(l);
		gained |= more;
		while (style == QUARRY_COMPACT_FULL && !more && qy_plan_partly(l))
			qy_pack(l, m, most);
		if (!gained && qy_plan_last(l))
			break;
		gained = gained && !qy_plan_last(l); /* a round in which no home gained is the last */
		qy_plan_begin(l, m->begun); /* what was counted is not what is there now */
		qy_pack(l, m, most);
	}
	while (m->deadline != 0 && p->state == QY_PLAN_NONE && !qy_plan_last(l) && m->segments * QY_SEGMENT_SIZE < most && !qy_mover_late(m)) {
		qy_plan_begin(l, m->begun);
		qy_pack(l, m, most);
	}
	if (m->deadline == 0) {
		qy_hold(&l->lock);
		qy_scratch_trim(l, false);
		qy_scratch_fill(l);
		qy_let_go(&l->lock);
		qy_pages_trim(l);
	}
	if (m->deadline != 0 && p->state == QY_PLAN_NONE && p->owned > 0 && !qy_mover_late(m))
		qy_recall_try(l);
	qy_mover_free(l, m);
}

/* The same, told of when it is over. */
static void compact_and_tell(quarry_lanes *l, struct qy_mover *m, int style, size_t enough, bool promote, enum qy_lanes_tells why)
{
	uint64_t moved = qy_read(&l->moved), bytes = qy_read(&l->moved_bytes);

	compact(l, m, style, enough, promote);
	if (qy_lanes_heard(l)) {
		quarry_lanes_event e = { .count = 1,
					 .bytes = m->segments * QY_SEGMENT_SIZE,
					 .moved = qy_read(&l->moved) - moved,
					 .moved_bytes = qy_read(&l->moved_bytes) - bytes,
					 .ns = qy_os->now_ns() - m->begun };

		qy_lanes_tell(l, why, &e);
	}
	leave(l);
}

/* So many bytes are to go back before the slow lane has room. (Moves may have taken what is kept for them and for the critical:
 * then one segment less is not enough.) */
static size_t enough_for(quarry_lanes *l, size_t size, unsigned priority)
{
	uint64_t over;

	qy_hold(&l->lock);
	qy_urgency = (uint8_t)priority;
	over = qy_slow_over(l, size > QY_WHOLE_MAX ? size : QY_SEGMENT_SIZE);
	qy_urgency = QUARRY_PRIORITY_NORMAL;
	if (over > l->segment_count * QY_SEGMENT_SIZE)
		over = 0; /* in vain, whatever goes back */
	qy_let_go(&l->lock);
	return qy_max(over, QY_SEGMENT_SIZE);
}

bool qy_pack_for_refused(quarry_lanes *l, size_t size, unsigned priority)
{
	struct qy_mover m = { .begun = qy_os->now_ns(), .patience = REFUSED_WAIT_NS };
	uint64_t segments;

	m.deadline = m.begun + REFUSED_NS;
	if (qy_in_scope() || !qy_mover_enter(l, &m))
		return false;
	segments = atomic_load(&l->segment_count);
	l->plan.state = QY_PLAN_NONE;
	l->plan.home = l->homes - 1; /* threads take from the first */
	compact_and_tell(l, &m, QUARRY_COMPACT_ENOUGH, enough_for(l, size, priority), false, QY_TELL_ROOM);
	return m.segments > 0 && atomic_load(&l->segment_count) < segments;
}

int64_t quarry_compact(quarry_lanes *l, int style, size_t enough, uint64_t budget_us)
{
	bool promote = (style & QUARRY_COMPACT_PROMOTE) != 0 && style >= 0;
	struct qy_mover m = { .begun = qy_os->now_ns() };
	uint64_t budget = qy_min(budget_us, UINT32_MAX) * 1000;

	if (!qy_lanes_check(l))
		return -1;
	style -= promote ? QUARRY_COMPACT_PROMOTE : 0;
	if (style < QUARRY_COMPACT_NONE || style > QUARRY_COMPACT_FULL)
		return qy_fail(EINVAL, "style: %d is none", style);
	if (qy_in_scope())
		return qy_fail(EDEADLK, "the thread is in a scope, which a compaction would wait for");
	m.deadline = budget == 0 ? 0 : m.begun + budget - budget / ENDING;
	if (!qy_mover_enter(l, &m)) {
		if (qy_mover_late(&m) && atomic_load(&l->governor.inside))
			return 0; /* the thread in the background took as long as this may */
		return qy_fail(EBUSY, "another compaction is under way");
	}
	compact_and_tell(l, &m, style, enough, promote, QY_TELL_CALL);
	qy_events_deliver();
	return (int64_t)(m.segments * QY_SEGMENT_SIZE);
}
