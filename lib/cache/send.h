/* SPDX-License-Identifier: MIT */
/* Objects on their way to other threads' heaps: gathered by heap, so that one atomic operation sends many.
 *
 * A ring gathers for one heap. For those that belong to a thread (and to a node's default arena) it is found by the
 * owner that stands in slabs: so the way of most objects reads no more than a hit does, and what a slab's class is. A
 * thread with several such heaps, as one that moved to another node has, may get an object by the wrong one of them;
 * that one sends it on.
 *
 * Where there are more owners than rings, objects are sent a few at a time, and soon. (With 64 rings, 64 threads that
 * pass on what they make sent half as often, held back more, and were 10 to 30 % slower for it.) */
#ifndef QUARRY_CACHE_SEND_H
#define QUARRY_CACHE_SEND_H

#include "lib/manager/mail.h"

#define QY_OUT_RINGS 16
#define QY_OUT_ROOM 16384      /* what a ring holds back, by weight: 64 small objects, */
#define QY_OUT_ROOM_ALL 131072 /* and all together about, where there are many: each one that is begun gets its share */

struct qy_outgoing {
	_Alignas(QY_CACHE_LINE) uintptr_t owner; /* of the slabs; QY_OUT_NOBODY where it is not found by that */
	void *first, *last;
	int32_t room;                /* for so much more, by weight; none while it is empty */
	uint32_t runs;               /* of objects in one unit each */
	struct qy_heap *heap;
	void *latest[QY_MAIL_AHEAD]; /* the first object that was gathered of each of the latest, in a ring */
};

#define QY_OUT_NOBODY (~(uintptr_t)0)

_Static_assert(QY_OUT_RINGS <= 64, "a bit for each in a word");

/* Of a thread's record, which stands so that those made just before and after it have others (thread.c); or of a heap. */
QY_INLINE unsigned qy_out_index(uintptr_t address)
{
	return address / QY_CACHE_LINE % QY_OUT_RINGS;
}

/* A child that is forked in between finds the object in the ring, or not; then it loses it. */
QY_INLINE void qy_out_push(struct qy_outgoing *out, void *p)
{
	void *first = out->first;

	if (((uintptr_t)p ^ (uintptr_t)first) >> QY_UNIT_SHIFT != 0) {
		void **latest = &out->latest[out->runs++ % QY_MAIL_AHEAD];

		/* (Of what was sent before, it leads to what is somebody's by now: no more than a hint.) */
		qy_mail_hint(p, *latest);
		*latest = p;
	}
	qy_link_object(p, first);
	__atomic_store_n(&out->first, p, __ATOMIC_RELEASE);
}

#endif
