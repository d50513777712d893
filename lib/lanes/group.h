/* SPDX-License-Identifier: MIT */
/* What few objects have: a group, hints, a priority. It stands in a record of their slot, apart, which is there for the
 * slots of such objects and their neighbours alone; a mark in an object's entry says that there is one. Whoever writes a
 * record, or reads a group out of it, holds groups.lock.
 *
 * Who adds an object to a group marks its entry, looks at its word again, and writes the record; who frees it changes the
 * word, and looks for the mark then. So one of them sees the other, and takes the object out of the group. */
#ifndef QUARRY_LANES_GROUP_H
#define QUARRY_LANES_GROUP_H

#include "lib/lanes/figures.h"

#define QY_SIDES 1024 /* records that are made at once */

struct qy_side {
	uint32_t next, prev; /* in the group: slot + 1, in a ring */
	quarry_group *group; /* NULL: none */
	uint32_t units;      /* of 16 bytes, that the group counts for it */
	uint16_t pins;       /* of the group's making */
	_Atomic(uint8_t) flags;
	_Atomic(uint8_t) priority;
	struct qy_note *note;    /* what is known of it by name (note.h); NULL: nothing */
	_Atomic(uint32_t) back;  /* it came back from the cold, and its note does not say so yet: the tick then, and QY_SIDE_BACK */
	uint64_t came;           /* into the group: ms of the clock */
};

#define QY_SIDE_BACK ((uint32_t)1 << 31)

#define QY_GROUP_MAGIC 0x70756f7267u

struct quarry_group {
	uint64_t magic;
	quarry_lanes *lanes;
	struct qy_link link;
	uint32_t first; /* slot + 1; 0: empty */
	uint64_t objects, bytes, peak, limit, refused;
	uint64_t came, moved; /* objects */
	struct qy_lives lives;
	uint64_t ttl, due;    /* ms, 0: none; ms of the clock: when some may be over */
	uint32_t look;        /* slot + 1: the next that is looked at for it, while */
	uint64_t left;        /* so many are still to be, of which none is left out whatever else becomes of the ring */
	char name[32];
};

QY_INLINE _Atomic(struct qy_side *) *qy_sides_of(const quarry_lanes *l, uint32_t slot)
{
	_Atomic(struct qy_side *) *all = __atomic_load_n(&l->groups.side, __ATOMIC_ACQUIRE);

	return all == NULL ? NULL : &all[slot / QY_SIDES];
}

/* The record of an object whose entry is marked. */
QY_INLINE struct qy_side *qy_side_of(const quarry_lanes *l, uint32_t slot)
{
	return &atomic_load_explicit(qy_sides_of(l, slot), memory_order_acquire)[slot % QY_SIDES];
}

/* Whether there are records for the slots around this one. */
QY_INLINE bool qy_side_is_there(const quarry_lanes *l, uint32_t slot)
{
	_Atomic(struct qy_side *) *at = qy_sides_of(l, slot);

	return at != NULL && atomic_load_explicit(at, memory_order_relaxed) != NULL;
}

/* What hints an object with these marks has. (Who moves may have read them of an object that has another slot meanwhile: this
 * one's record need not be there. What he then does with its word fails.) */
QY_INLINE uint32_t qy_flags_of(const quarry_lanes *l, uint32_t slot, uint32_t marks)
{
	return (marks & QY_MARK_SIDE) && qy_side_is_there(l, slot) ? atomic_load_explicit(&qy_side_of(l, slot)->flags, memory_order_relaxed) : 0;
}

QY_INLINE int qy_priority_of(const quarry_lanes *l, uint32_t slot, uint32_t marks)
{
	return (marks & QY_MARK_SIDE) && qy_side_is_there(l, slot) ?
		       atomic_load_explicit(&qy_side_of(l, slot)->priority, memory_order_relaxed) : QUARRY_PRIORITY_NORMAL;
}

/* Whether it is one; else EINVAL. */
bool qy_group_check(const quarry_group *g);
/* Up to `room` of its members, in a scope: so who begins with *left as many as there are (qy_group_count) and calls until it is
 * 0 has had each of them that stayed. */
size_t qy_group_some(quarry_group *g, quarry_handle *h, size_t room, uint64_t *left);
uint64_t qy_group_count(quarry_group *g);
/* In a scope: the handle of a slot's object as it is now, which may be cold; 0: it has none, or one that is freed and only pinned
 * still. */
quarry_handle qy_handle_of(quarry_lanes *l, uint32_t slot);
/* Free what is over of groups with a time to live: how many objects. Not under groups.lock. */
int64_t qy_groups_expire(quarry_lanes *l);
/* It ends: its segments are nobody's (migrate.c). */
void qy_home_leave(quarry_lanes *l, const quarry_group *g);
void qy_groups_start(quarry_lanes *l);
/* The lanes end: groups and records do. */
void qy_groups_end(quarry_lanes *l);
/* The record of a slot is there: false, ENOMEM. */
bool qy_side_make(quarry_lanes *l, uint32_t slot);
/* The object of this slot is over: it leaves its group. */
void qy_side_end(quarry_lanes *l, uint32_t slot, const struct qy_lived *lived);
/* It was moved, why (enum quarry_moves), from where and where to (enum quarry_places). word: one that it had, by whose generation it is told
 * from whoever has the slot meanwhile. No lock from groups.lock on is held. */
void qy_side_went(quarry_lanes *l, uint32_t slot, uint64_t word, int why, int from, int to);
/* With the lock of the extent that it was in: it comes back. */
void qy_side_back(quarry_lanes *l, uint32_t slot);

/* It was packed. */
QY_INLINE void qy_side_moved(quarry_lanes *l, uint32_t slot, uint64_t word)
{
	qy_side_went(l, slot, word, QUARRY_MOVED_PACKED, QUARRY_LANE_SLOW, QUARRY_LANE_SLOW);
}

/* Under groups.lock, in a scope: the object's entry says that there is a record, and `more`. Its word then; 0, and the errno is
 * set: it is gone, or there is no memory. */
uint64_t qy_side_mark(quarry_lanes *l, quarry_handle h, uint32_t more);

#endif
