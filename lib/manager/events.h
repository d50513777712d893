/* SPDX-License-Identifier: MIT */
/* Events for the program (quarry_on_event): put into a ring of fixed size where they arise, by any thread, whatever
 * locks it holds, and handed to the program later by a thread that holds none and is in no slow path. When the ring is
 * full what comes is counted and dropped. */
#ifndef QUARRY_MANAGER_EVENTS_H
#define QUARRY_MANAGER_EVENTS_H

#include "include/quarry/quarry.h"
#include "lib/base/base.h"

extern QY_HIDDEN _Atomic(uint32_t) qy_events_waiting; /* in the ring, and a bit for a call */

/* Note one; kind, state, was, arena, bytes, limit and count are the caller's. Nothing is noted while nobody listens. */
void qy_events_note(const quarry_event *event);

void qy_events_deliver_slow(void) QY_COLD;

/* Hand what is in the ring to the program's function. No lock may be held, and the thread must not have entered. */
QY_INLINE void qy_events_deliver(void)
{
	if (QY_UNLIKELY(atomic_load_explicit(&qy_events_waiting, memory_order_relaxed) != 0))
		qy_events_deliver_slow();
}

/* Have fn called by the next thread that delivers, once; always the same one. May be called in a signal handler. A forked child
 * makes the call, too. */
void qy_events_call(void (*fn)(void));

/* Who is told, from now on (NULL: nobody). When it returns, the one before is not running any more, unless it is
 * the caller. */
void qy_events_listen(quarry_event_fn *fn, void *ctx);

uint64_t qy_events_lost(void);
void qy_events_after_fork(void); /* in the child */

#endif
