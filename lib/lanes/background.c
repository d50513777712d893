/* SPDX-License-Identifier: MIT */
/* The mover in the background: a thread for all lanes, that is there while one of them has something to gain, and a
 * governor for each that says how much of a processor it may take.
 *
 * The share grows with the waste, from `least` at `start` to `most` at `full` (as Redis's defragmentation does); what is
 * less than `start` percent, or less than `ignore` bytes, is none. The thread runs for a slice and sleeps for as long as
 * makes that the share. Lanes with cold memory are cooled by the same thread, for a share of its own (cool.c). A plan that
 * gained little is followed by a longer wait, and in the end only when there are news: so a heap that cannot be packed, and
 * one at rest, cost nothing. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <pthread.h>

#include "lib/base/checker.h"
#include "lib/base/lock.h"
#include "lib/base/settings.h"
#include "lib/base/spawn.h"
#include "lib/lanes/events.h"
#include "lib/lanes/lanes.h"
#include "numa/os.h"

#define SEGMENTS_MIN 4           /* smaller lanes are none of its business */
#define SLICE_NS 2000000         /* it runs so long at a time */
#define PATIENCE_NS 200000       /* and waits so long for scopes, */
#define HELD_UP_NS 20000000      /* or comes back then */
#define INTERVAL_NS 100000000u   /* between plans, at the least; */
#define INTERVAL_MAX_NS 20000000000u
#define RECALL_NS 250000000u     /* between two times that threads' spans are taken back */
#define LINGER_MS 1000           /* the thread waits so long for work before it ends */

enum { NONE, RUNS, REFUSED };

static _Atomic(int) state;
static _Atomic(uint32_t) signalled; /* futex: 1 to wake it */

/* ---- the governor ---- */

/* What is held beside what is live, in percent of that; 0: it is too little to be any. */
static uint64_t waste_of(const quarry_lanes *l)
{
	const struct qy_plan *p = &l->plan;
	/* (What an earlier plan emptied, of another home, may go in this one's time.) */
	uint64_t held = p->held - qy_min(p->held, (uint64_t)p->freed * QY_SEGMENT_SIZE);
	uint64_t ignore = l->governor.ignore != 0 ? l->governor.ignore : p->held / 16;

	if (held < p->live || held - p->live < ignore)
		return 0;
	return (held - p->live) * 100 / (p->live + 1);
}

uint64_t qy_governor_share(const struct qy_governor *g, uint64_t waste)
{
	return qy_share_for(waste, g->start, g->full, g->least, g->most);
}

/* Until there are news, and for that long at the least. */
static uint64_t calm(struct qy_governor *g, uint64_t now)
{
	g->runs = g->round = false;
	g->not_before = now + g->interval;
	return UINT64_MAX;
}

/* There is waste, and little was gained: what stood against it (pins, scopes, spans that threads took back a moment ago)
 * ends without news. So it is looked at again, at longer and longer intervals, until the longest. */
static uint64_t later(struct qy_governor *g, uint64_t now)
{
	g->interval = qy_min(2 * qy_max(g->interval, INTERVAL_NS), INTERVAL_MAX_NS);
	(void)calm(g, now);
	return g->interval < INTERVAL_MAX_NS ? g->not_before : UINT64_MAX;
}

static void same_home_again(quarry_lanes *l)
{
	l->plan.home = (l->plan.home + l->homes - 1) % l->homes;
}

/* The plan has come to its end: when (ns) there is something to do. */
static uint64_t after_plan(quarry_lanes *l, uint64_t now)
{
	struct qy_governor *g = &l->governor;
	const struct qy_plan *p = &l->plan;

	if (p->owned > 0 && now >= g->recall_at && qy_recall_begin(l) > 0) {
		g->recall_at = now + RECALL_NS;
		same_home_again(l);
		return now;
	}
	if (qy_plan_gained(l)) {
		g->interval = INTERVAL_NS;
		same_home_again(l);
		return now;
	}
	if (qy_plan_partly(l))
		return now;
	if (!qy_plan_last(l)) /* the next home may have more to gain */
		return now;
	qy_pages_trim(l);
	/* What was packed as well as may be is looked at soon again when there are news: to count costs little. */
	if (waste_of(l) >= g->start)
		return later(g, now);
	g->interval = INTERVAL_NS;
	return calm(g, now);
}

/* The plan was made just now: whether it is worth it. One that follows on another goes on to the half of what is waste
 * to begin with. */
static bool worth(struct qy_governor *g, uint64_t waste)
{
	return waste >= (g->runs ? (g->start + 1) / 2 : g->start);
}

/* What a slice did is added up until its plan has come to its end. */
static void note_packed(quarry_lanes *l, const struct qy_mover *m, uint64_t moved, uint64_t bytes, uint64_t ns)
{
	quarry_lanes_event *e = &l->governor.packed;
	uint32_t heard = atomic_load(&l->events.on);

	if (heard != l->governor.packed_for) /* what was done until now is none of his business */
		*e = (quarry_lanes_event){ 0 };
	l->governor.packed_for = heard;
	if (heard == 0)
		return;
	e->moved += qy_read(&l->moved) - moved;
	e->moved_bytes += qy_read(&l->moved_bytes) - bytes;
	e->bytes += m->segments * QY_SEGMENT_SIZE;
	e->ns += ns;
}

/* The plan is over: who wants to be told of that is, where it was not in vain. */
static void tell_packed(quarry_lanes *l)
{
	quarry_lanes_event *e = &l->governor.packed;

	e->count = 1;
	if (atomic_load(&l->events.on) == l->governor.packed_for && (e->moved > 0 || e->bytes > 0))
		qy_lanes_tell(l, QY_TELL_BACKGROUND, e);
	*e = (quarry_lanes_event){ 0 };
}

/* One slice; when (ns) the next is. Under l->moving. */
static uint64_t slice(quarry_lanes *l, uint64_t now)
{
	struct qy_governor *g = &l->governor;
	struct qy_plan *p = &l->plan;
	struct qy_mover m = { .begun = now, .deadline = now + SLICE_NS, .patience = PATIENCE_NS, .stop = &g->wanted };
	uint64_t share, ended, ran, moved = qy_read(&l->moved), bytes = qy_read(&l->moved_bytes);

	qy_mover_begin(l);
	if (!qy_recall_end(l))
		return now + HELD_UP_NS / 4;
	if (p->state == QY_PLAN_NONE) {
		atomic_store(&g->news, false);
		qy_count(&g->plans, 1);
		if (!g->round) /* each begins with the first home, wherever a call has stopped */
			p->home = l->homes - 1;
		g->round = true;
		qy_plan_begin(l, now);
	}
	if (p->state == QY_PLAN_COUNTING) {
		while (!qy_plan_count(l))
			if (qy_os->now_ns() >= m.deadline)
				return m.deadline + SLICE_NS * (100 / g->least);
		if (!worth(g, waste_of(l))) {
			p->state = QY_PLAN_NONE;
			if (g->runs && qy_plan_partly(l))
				return now;
			if (g->runs)
				qy_pages_trim(l);
			g->interval = INTERVAL_NS;
			return qy_plan_last(l) ? calm(g, now) : now;
		}
		g->runs = true;
	}
	qy_pack(l, &m, SIZE_MAX);
	ended = qy_os->now_ns();
	note_packed(l, &m, moved, bytes, ended - now);
	share = qy_governor_share(g, waste_of(l));
	if (p->state == QY_PLAN_NONE && qy_list_empty(&p->drained)) {
		tell_packed(l);
		return after_plan(l, ended);
	}
	ran = qy_min(ended - now, 2 * SLICE_NS); /* if it took longer, it had no processor meanwhile */
	return m.held_up ? ended + HELD_UP_NS : ended + ran * (100 - share) / share;
}

/* ---- the thread ---- */

/* What is due of lanes: packed, and cooled. When (ns) there is more. Under l->moving. */
static uint64_t turn(quarry_lanes *l, uint64_t now)
{
	struct qy_governor *g = &l->governor;
	uint64_t due = g->pack_due;

	if (due == UINT64_MAX && atomic_load(&g->news))
		due = g->not_before;
	if (due <= now)
		due = g->pack_due = slice(l, now);
	return l->cold == NULL ? due : qy_min(due, qy_cool_slice(l, qy_os->now_ns(), &g->wanted));
}

/* Do what is due; when (ns) there is more, UINT64_MAX: when there are news. */
static uint64_t go_round(uint64_t now)
{
	uint64_t next = UINT64_MAX;
	uint32_t id = 1;
	quarry_lanes *l;

	while ((l = qy_lanes_due(&id, now, &next)) != NULL) {
		uint64_t begun = qy_os->now_ns(), due = turn(l, begun);

		qy_count(&l->governor.ns, qy_os->now_ns() - begun);
		atomic_store(&l->governor.due, due);
		if (due == UINT64_MAX && atomic_load(&l->governor.news))
			due = l->governor.not_before;
		next = qy_min(next, due);
		qy_let_go(&l->moving);
		qy_events_deliver();
	}
	return next;
}

static void *run(void *unused)
{
	(void)unused;
	pthread_setname_np(pthread_self(), "quarry-mover");
	for (;;) {
		uint64_t now = qy_os->now_ns(), next = go_round(now);
		uint64_t ms = next == UINT64_MAX ? LINGER_MS : next <= now ? 0 : (next - now + 999999) / 1000000;

		if (ms > 0)
			qy_sleep_on(&signalled, 0, ms);
		if (atomic_exchange(&signalled, 0) != 0 || next != UINT64_MAX)
			continue;
		atomic_store(&state, NONE);
		/* Who had news meanwhile may have seen the thread there still. */
		if (atomic_exchange(&signalled, 0) == 0)
			return NULL;
		if (!atomic_compare_exchange_strong(&state, &(int){ NONE }, RUNS))
			return NULL;
	}
}

static bool may_start(void)
{
	long mode = qy_setting(reclaim);

	return mode != QY_RECLAIM_OFF && mode != QY_RECLAIM_SERIES && mode != QY_RECLAIM_TIMER &&
	       qy_checker != QY_CHECKER_MEMCHECK;
}

/* Have the thread be there, and look. */
static void call_thread(void)
{
	int none = NONE;

	atomic_store(&signalled, 1);
	if (atomic_compare_exchange_strong(&state, &none, RUNS)) {
		if (!qy_spawn(run))
			atomic_store(&state, REFUSED);
	} else {
		qy_wake(&signalled);
	}
}

QY_COLD void qy_news_slow(quarry_lanes *l)
{
	if (atomic_load_explicit(&l->segment_count, memory_order_relaxed) < SEGMENTS_MIN || !may_start() ||
	    atomic_exchange(&l->governor.news, true))
		return;
	if (atomic_load(&l->governor.due) == UINT64_MAX) /* else it is at it */
		call_thread();
}

void qy_background_cool(quarry_lanes *l)
{
	if (!l->governor.on || !may_start())
		return;
	atomic_store(&l->governor.due, qy_os->now_ns());
	call_thread();
}

void qy_background_in_child(void)
{
	atomic_store(&state, NONE);
	atomic_store(&signalled, 0);
}
