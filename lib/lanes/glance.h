/* SPDX-License-Identifier: MIT */
/* Glances: a cold object that is got now and then is read without coming back. The thread has a copy of it, until its outermost
 * scope is over; who gets the object again in that scope has the same copy.
 *
 * That is right because a copy is what an object that was moved leaves behind for those who got it before (lanes.h): it
 * is what the object was when its word said that it is cold, under the extent's lock, and nobody writes to one that is.
 * Who writes brings it back first, and so gives it another word. A word that is the same later in the scope was never
 * another: to become cold again the object would have to wait for that scope. */
#ifndef QUARRY_LANES_GLANCE_H
#define QUARRY_LANES_GLANCE_H

#include "lib/lanes/scope.h"

#define QY_GLANCES 16                       /* in a scope */
#define QY_GLANCE_MOST ((size_t)4 << 10)    /* bytes of an object; no alignment that it may have is more */
#define QY_GLANCE_ROOM ((size_t)16 << 10)   /* and of all */

/* A thread's. While there is one, its record's depth has QY_DEPTH_GLANCED. */
struct qy_glances {
	_Alignas(QY_GLANCE_MOST) unsigned char bytes[QY_GLANCE_ROOM];
	uint32_t count, used;
	struct {
		const void *at;
		uint64_t word;
		uint32_t slot, lanes;
	} of[QY_GLANCES];
};

/* The thread's; NULL: it is in no scope, or has no memory for them. */
struct qy_glances *qy_glances_of_thread(void);
/* Whether the thread tried in vain to have that slot's object without waiting: then it is to find it the next time, and is told so
 * once. */
bool qy_glance_was_refused(const quarry_lanes *l, uint32_t slot);
/* The copy that it has of the object with that word; NULL: none. */
const void *qy_glance_again(const struct qy_glances *g, const quarry_lanes *l, uint32_t slot, uint64_t word);
/* Under the extent's lock, the word being the slot's: a copy. NULL: there is no room, or no reading it, or it is better brought
 * back: *often, there were too many of late; often is NULL for who looks at all objects, which does not count. */
const void *qy_glance(struct qy_glances *g, quarry_lanes *l, uint32_t slot, uint64_t word, bool *often);
/* The same where there is no memory to bring it back to: whatever it is. */
const void *qy_glance_at_least(struct qy_glances *g, quarry_lanes *l, uint32_t slot, uint64_t word);

#endif
