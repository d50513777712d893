/* SPDX-License-Identifier: MIT */
/* Events for the program (quarry_on_event): put into a ring of fixed size where they arise, by any thread, whatever
 * locks it holds, and handed to the program later by a thread that holds none and is in no slow path. When the ring is
 * full what comes is counted and dropped. */
#ifndef QUARRY_MANAGER_EVENTS_H
#define QUARRY_MANAGER_EVENTS_H

#include "include/quarry/quarry.h"
#include "lib/base/base.h"

extern QY_HIDDEN _Atomic(uint32_t) qy_events_waiting; /* in the ring, and bits for a call and tellers */

/* Note one; kind, state, was, arena, bytes, limit and count are the caller's. Nothing is noted while nobody listens. */
void qy_events_note(const quarry_event *event);

void qy_events_deliver_slow(void) QY_COLD;

/* Hand what is in the ring to the program's function. No lock may be held, and the thread must not have entered. Of a thread that is
 * in the midst of something above (lib/base/quiet.h) it stays there, for the next that comes by. */
QY_INLINE void qy_events_deliver(void)
{
	if (QY_UNLIKELY(atomic_load_explicit(&qy_events_waiting, memory_order_relaxed) != 0))
		qy_events_deliver_slow();
}

/* Have fn called by the next thread that delivers, once; always the same one. May be called in a signal handler. A forked child
 * makes the call, too. */
void qy_events_call(void (*fn)(void));

/* Somebody above who has something of his own to tell (lib/lanes/events.c), and keeps it himself until then: so nothing of it is
 * ever lost, and the ring stays for what is rare. */
struct qy_teller {
	struct qy_teller *next;
	int where; /* the list that it is in; 0: none; */
	uint32_t forks; /* in the process with so many before it */
	void (*tell)(struct qy_teller *t);
};

/* Have t->tell called by the next thread that delivers, once for all that it was asked before that; asked from inside a function that
 * is told of something, by the next after that one. Any lock of lib/lanes may be held. */
void qy_events_ask(struct qy_teller *t);
/* It is not asked any more. When this returns, t->tell is not running, unless the caller is in it. No lock may be held. */
void qy_events_forget(struct qy_teller *t);

/* Who is told, from now on (NULL: nobody). When it returns, the one before is not running any more, unless it is
 * the caller. */
void qy_events_listen(quarry_event_fn *fn, void *ctx);

uint64_t qy_events_lost(void);
void qy_events_after_fork(void); /* in the child */

#endif
