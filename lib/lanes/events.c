/* SPDX-License-Identifier: MIT */
/* Telling those who made the lanes what becomes of them (quarry_lanes_on_event).
 *
 * What happens is added up where it does, under whatever locks: one sum for each kind, so that there is room for it however much
 * it is. The lanes then ask to be let tell (lib/manager/events.h), which is done by a thread that is in the midst of nothing. */
#include "lib/lanes/events.h"

#include <errno.h>
#include <string.h>

#include "lib/api/error.h"
#include "lib/lanes/fast.h"
#include "numa/os.h"

static const struct {
	int kind, why;
} kinds[QY_TELLS] = {
	[QY_TELL_CALL] = { QUARRY_LANES_COMPACTED, QUARRY_COMPACTED_CALL },
	[QY_TELL_BACKGROUND] = { QUARRY_LANES_COMPACTED, QUARRY_COMPACTED_BACKGROUND },
	[QY_TELL_ROOM] = { QUARRY_LANES_COMPACTED, QUARRY_COMPACTED_ROOM },
	[QY_TELL_FAST] = { QUARRY_LANES_GREW, QUARRY_LANE_FAST },
	[QY_TELL_SLOW] = { QUARRY_LANES_GREW, QUARRY_LANE_SLOW },
	[QY_TELL_CORRUPT] = { QUARRY_LANES_CORRUPT, 0 },
};

static uint64_t held_by(quarry_lanes *l, enum qy_lanes_tells what)
{
	uint64_t held;

	if (what != QY_TELL_FAST)
		return atomic_load(&l->segment_count) * QY_SEGMENT_SIZE + atomic_load(&l->huge);
	qy_hold(&l->lock);
	held = l->fast.held;
	qy_let_go(&l->lock);
	return held;
}

/* What has come together of one kind, and who is to be told: false, nobody, or there is nothing. */
static bool take(struct qy_lanes_events *e, enum qy_lanes_tells what, quarry_lanes_event *event, quarry_lanes_event_fn **fn,
		 void **ctx)
{
	qy_hold(&e->lock);
	*event = e->waiting[what];
	e->waiting[what] = (quarry_lanes_event){ 0 };
	*fn = e->fn;
	*ctx = e->ctx;
	qy_let_go(&e->lock);
	return *fn != NULL && event->count > 0;
}

static void set_telling(struct qy_lanes_events *e, bool telling)
{
	qy_hold(&e->lock);
	e->telling = telling;
	e->by = pthread_self();
	qy_let_go(&e->lock);
}

static void tell(struct qy_teller *t)
{
	quarry_lanes *l = qy_container(t, quarry_lanes, events.teller);
	quarry_lanes_event event;
	quarry_lanes_event_fn *fn;
	void *ctx;

	set_telling(&l->events, true);
	for (enum qy_lanes_tells what = 0; what < QY_TELLS; what++) {
		if (!take(&l->events, what, &event, &fn, &ctx))
			continue;
		event.struct_size = sizeof(event);
		event.kind = kinds[what].kind;
		event.why = kinds[what].why;
		event.lanes = l;
		event.held = held_by(l, what);
		fn(&event, ctx);
	}
	set_telling(&l->events, false);
}

void qy_lanes_tell(quarry_lanes *l, enum qy_lanes_tells what, const quarry_lanes_event *more)
{
	struct qy_lanes_events *e = &l->events;
	quarry_lanes_event *sum = &e->waiting[what];

	qy_hold(&e->lock);
	if (e->fn == NULL) { /* not any more: and the teller may have been forgotten for good */
		qy_let_go(&e->lock);
		return;
	}
	sum->count += more->count;
	sum->bytes += more->bytes;
	sum->moved += more->moved;
	sum->moved_bytes += more->moved_bytes;
	sum->ns += more->ns;
	sum->handle = more->handle;
	sum->time_ms = qy_os->now_ms();
	qy_events_ask(&e->teller);
	qy_let_go(&e->lock);
}

void qy_lanes_tell_grown(quarry_lanes *l, int lane, size_t bytes)
{
	quarry_lanes_event more = { .count = 1, .bytes = bytes };

	qy_lanes_tell(l, lane == QUARRY_LANE_FAST ? QY_TELL_FAST : QY_TELL_SLOW, &more);
}

bool qy_lanes_is_telling(quarry_lanes *l)
{
	bool is;

	qy_hold(&l->events.lock);
	is = l->events.telling && pthread_equal(l->events.by, pthread_self());
	qy_let_go(&l->events.lock);
	return is;
}

void qy_lanes_events_start(quarry_lanes *l)
{
	pthread_mutex_init(&l->events.lock, NULL);
	l->events.teller.tell = tell;
}

/* Another function, with nothing to tell of yet: whether there was one before. */
static bool set(struct qy_lanes_events *e, quarry_lanes_event_fn *fn, void *ctx)
{
	bool before;

	qy_hold(&e->lock);
	before = e->fn != NULL;
	e->fn = fn;
	e->ctx = ctx;
	memset(e->waiting, 0, sizeof(e->waiting));
	if (++e->listeners == 0)
		e->listeners = 1;
	atomic_store(&e->on, fn == NULL ? 0 : e->listeners);
	qy_let_go(&e->lock);
	return before;
}

/* (Who is about to tell of something, as the mover may be, finds that there is no function: so this is for good.) */
void qy_lanes_events_end(quarry_lanes *l)
{
	(void)set(&l->events, NULL, NULL);
	qy_events_forget(&l->events.teller);
}

void qy_lanes_events_in_child(quarry_lanes *l)
{
	struct qy_lanes_events *e = &l->events;

	memset(e->waiting, 0, sizeof(e->waiting));
	e->telling = e->telling && pthread_equal(e->by, pthread_self());
}

int quarry_lanes_on_event(quarry_lanes *l, quarry_lanes_event_fn *fn, void *ctx)
{
	struct qy_lanes_events *e;
	bool again = false;

	if (!qy_lanes_check(l))
		return -1;
	e = &l->events;
	if (!set(e, fn, ctx))
		return 0;
	qy_events_forget(&e->teller);
	/* What has come since then was asked for, and forgotten with the rest. */
	qy_hold(&e->lock);
	for (enum qy_lanes_tells what = 0; what < QY_TELLS; what++)
		again |= e->waiting[what].count > 0;
	if (again && e->fn != NULL)
		qy_events_ask(&e->teller);
	qy_let_go(&e->lock);
	return 0;
}
