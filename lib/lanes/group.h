/* SPDX-License-Identifier: MIT */
/* What few objects have: a group, hints, a priority. It stands in a record of their slot, apart, which is there for the
 * slots of such objects and their neighbours alone; a mark in an object's entry says that there is one. Whoever writes a
 * record, or reads a group out of it, holds groups.lock.
 *
 * Who adds an object to a group marks its entry, writes the record, and looks at its word again; who frees it changes the
 * word, and looks for the mark then. So one of them sees the other, and takes the object out of the group. */
#ifndef QUARRY_LANES_GROUP_H
#define QUARRY_LANES_GROUP_H

#include "lib/lanes/lanes.h"

#define QY_SIDES 1024 /* records that are made at once */

struct qy_side {
	uint32_t next, prev; /* in the group: slot + 1, in a ring */
	quarry_group *group; /* NULL: none */
	uint32_t units;      /* of 16 bytes, that the group counts for it */
	uint16_t pins;       /* of the group's making */
	_Atomic(uint8_t) flags;
	_Atomic(uint8_t) priority;
};

#define QY_GROUP_MAGIC 0x70756f7267u

struct quarry_group {
	uint64_t magic;
	quarry_lanes *lanes;
	struct qy_link link;
	uint32_t first; /* slot + 1; 0: empty */
	uint64_t objects, bytes, peak, limit, refused;
	char name[32];
};

/* The record of an object whose entry is marked. */
QY_INLINE struct qy_side *qy_side_of(const quarry_lanes *l, uint32_t slot)
{
	return &atomic_load_explicit(&l->groups.side[slot / QY_SIDES], memory_order_acquire)[slot % QY_SIDES];
}

/* What hints an object with these marks has. */
QY_INLINE uint32_t qy_flags_of(const quarry_lanes *l, uint32_t slot, uint32_t marks)
{
	return marks & QY_MARK_SIDE ? atomic_load_explicit(&qy_side_of(l, slot)->flags, memory_order_relaxed) : 0;
}

QY_INLINE int qy_priority_of(const quarry_lanes *l, uint32_t slot, uint32_t marks)
{
	return marks & QY_MARK_SIDE ? atomic_load_explicit(&qy_side_of(l, slot)->priority, memory_order_relaxed) :
				      QUARRY_PRIORITY_NORMAL;
}

void qy_groups_start(quarry_lanes *l);
/* The lanes end: groups and records do. */
void qy_groups_end(quarry_lanes *l);
/* The record of a slot is there: false, ENOMEM. */
bool qy_side_make(quarry_lanes *l, uint32_t slot);
/* The object of this slot is over: it leaves its group. */
void qy_side_end(quarry_lanes *l, uint32_t slot);

#endif
