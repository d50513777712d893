/* SPDX-License-Identifier: MIT */
/* What a thread frees, by size class, in its cache: a list beside the one that malloc takes from. When that one is
 * empty, the two change places. So what is freed is used again soon, and in a program that replaces objects, however
 * large its heap, slabs are not touched at all. (With all frees going into slabs, a replacement in a heap of 1 GiB paid
 * for two slow paths and several misses: the slab was full before the free, and had one object for the malloc. With one
 * list for both, each malloc waits for the free before it: 3 % of the time of a program that computes with bignums.)
 *
 * A list that has `most` objects is full: from then on the slabs that something is freed into are turned to lists of
 * their own, one by one, until something is fetched from them again. So a program that frees all that it made pays for
 * one slow path for each slab, and its cache keeps little. What is enough adapts: where objects have to be fetched
 * though the list had been full, it may be longer.
 *
 * Objects in a list count as live in their slab. All is the thread's own. A child forked in between finds a list that
 * is whole, and a count that may be off by one (where it is 0, nobody comes to look: thread.c). */
#ifndef QUARRY_CACHE_FREELIST_H
#define QUARRY_CACHE_FREELIST_H

#include "lib/manager/slab.h"

/* Empty, as it is at first. */
QY_INLINE void qy_freelist_init(struct qy_freelist *l, unsigned cls)
{
	*l = (struct qy_freelist){ .room = qy_classes[cls].keep, .most = qy_classes[cls].keep };
}

/* Objects were fetched from the heap, as there were none. */
QY_INLINE void qy_freelist_fetched(struct qy_freelist *l, unsigned cls)
{
	if (QY_LIKELY(!l->was_full))
		return;
	l->was_full = 0;
	if (l->most < qy_classes[cls].keep_max) {
		uint32_t more = (uint32_t)qy_min(l->most, qy_classes[cls].keep_max - l->most);

		l->most = (uint16_t)(l->most + more);
		l->room += more;
	}
}

/* Whether a list goes round, as where an object was freed twice: so far as its beginning tells, which is about to be
 * handed out. */
bool qy_freelist_is_circle(const struct qy_freelist *l);

/* In such a list, what was freed last was freed before: it is in the list once from then on. What was behind it is
 * lost. */
void qy_freelist_mend(struct qy_freelist *l) QY_COLD;

#endif
