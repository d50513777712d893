/* SPDX-License-Identifier: MIT */
/* What a thread does for the whole while it is in a slow path: send what it gathered for others, give up what it left
 * alone, and give the reclaimer its turn. */
#ifndef QUARRY_CACHE_DUTIES_H
#define QUARRY_CACHE_DUTIES_H

#include "lib/cache/thread.h"
#include "lib/reclaim/reclaim.h"

#define QY_SEND_EVERY 16 /* slow calls between two looks at what was gathered for others */

/* Count a slow call, and send what was gathered every so often. Entered. */
QY_INLINE void qy_duties_send(struct qy_thread *t)
{
	if (++t->calls % QY_SEND_EVERY == 0)
		qy_thread_send(t);
}

/* Whether the reclaimer has asked for a look at what the thread left alone, and it is not through with it. */
QY_INLINE bool qy_duties_shedding(const struct qy_thread *t)
{
	return t->shed_round != atomic_load_explicit(&qy_reclaim_round, memory_order_relaxed);
}

/* Look at some of the slabs and lists that the thread may have left alone. Entered. */
void qy_duties_shed_some(struct qy_thread *t) QY_COLD;

QY_INLINE void qy_duties_shed(struct qy_thread *t)
{
	if (QY_UNLIKELY(qy_duties_shedding(t)) && QY_LIKELY(t->depth == 1))
		qy_duties_shed_some(t);
}

/* The same for a thread that frees: it also files some of what others sent, where its mallocs have not done so for a
 * while, and more the longer that goes on. (Filing takes microseconds: in a thread that does both, it was the 99.9th
 * percentile of free, and 256 objects as soon as nothing was filed between two looks the 99.99th.) Entered. */
void qy_duties_of_freeing(struct qy_thread *t) QY_COLD;

/* After a slow path that was not inside another, of a thread that has not ended. */
QY_INLINE void qy_duties_after(const struct qy_thread *t)
{
	if (QY_LIKELY(t->depth == 0) && QY_LIKELY(!qy_thread_gone()))
		qy_reclaim_tick(t->calls);
}

#endif
