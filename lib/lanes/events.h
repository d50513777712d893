/* SPDX-License-Identifier: MIT */
/* What is told of lanes, to who made them. (events.c) */
#ifndef QUARRY_LANES_EVENTS_H
#define QUARRY_LANES_EVENTS_H

#include "lib/lanes/state.h"

QY_INLINE bool qy_lanes_heard(const quarry_lanes *l)
{
	return QY_UNLIKELY(atomic_load_explicit(&l->events.on, memory_order_relaxed) != 0);
}

/* Add to what is to be told of a kind: count, bytes, moved, moved_bytes, ns, handle are the caller's. Where they are heard; whatever
 * locks are held. */
void qy_lanes_tell(quarry_lanes *l, enum qy_lanes_tells what, const quarry_lanes_event *more) QY_COLD;
void qy_lanes_tell_grown(quarry_lanes *l, int lane, size_t bytes) QY_COLD;

/* A lane has taken so many bytes more. */
QY_INLINE void qy_lanes_grew(quarry_lanes *l, int lane, size_t bytes)
{
	if (qy_lanes_heard(l))
		qy_lanes_tell_grown(l, lane, bytes);
}

/* Whether the calling thread is in their function. */
bool qy_lanes_is_telling(quarry_lanes *l);

void qy_lanes_events_start(quarry_lanes *l);
/* Nobody is told of the lanes any more, when this returns: nobody uses them any more but the caller, and the mover. */
void qy_lanes_events_end(quarry_lanes *l);
void qy_lanes_events_in_child(quarry_lanes *l);

#endif
