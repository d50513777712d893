/* SPDX-License-Identifier: MIT */
/* What is cold: its words, how it comes back, and how it went. (warm.c, cool.c) */
#ifndef QUARRY_LANES_WARM_H
#define QUARRY_LANES_WARM_H

#include "lib/lanes/cold.h"
#include "lib/lanes/segment.h"

#define QY_REF_BITS 5 /* where a reference stands in a cold object's word: as the address does */

QY_INLINE uint32_t qy_cold_extent(uint64_t word)
{
	return (uint32_t)((word & QUARRY_WORD_ADDRESS) >> (QY_REF_BITS + QY_COLD_OBJECTS_BITS));
}

QY_INLINE uint32_t qy_cold_index(uint64_t word)
{
	return (uint32_t)((word & QUARRY_WORD_ADDRESS) >> QY_REF_BITS) & (QY_COLD_OBJECTS - 1);
}

QY_INLINE uint64_t qy_cold_word(uint64_t generation, uint32_t extent, uint32_t index)
{
	return generation << 48 | ((uint64_t)extent << QY_COLD_OBJECTS_BITS | index) << QY_REF_BITS | QUARRY_WORD_COLD;
}

/* What is kept of marks while an object is cold. */
#define QY_COLD_SLOW 0x100u
#define QY_COLD_SIDE 0x200u

QY_INLINE uint16_t qy_marks_to_what(uint32_t marks)
{
	return (uint16_t)(marks >> QY_MARK_TYPE_SHIFT | (marks & QY_MARK_SLOW ? QY_COLD_SLOW : 0) |
			  (marks & QY_MARK_SIDE ? QY_COLD_SIDE : 0));
}

QY_INLINE uint32_t qy_what_to_marks(uint16_t what)
{
	return (uint32_t)(what & 0xff) << QY_MARK_TYPE_SHIFT | (what & QY_COLD_SLOW ? QY_MARK_SLOW : 0) |
	       (what & QY_COLD_SIDE ? QY_MARK_SIDE : 0);
}

struct qy_cold_object {
	uint32_t size, marks;
	bool evicted, corrupt;
};

/* In a scope: have the object of the handle, whose word is this, a cold one's, in memory. -1 with EIO (it is lost), ENOMEM.
 * 0 means that its word is to be looked at again; or *copy, if that is not NULL, is one of it (glance.h), and not NULL. asked: false,
 * this is of one who looks at all objects, and does not count. */
int qy_warm(quarry_lanes *l, quarry_handle h, uint64_t word, const void **copy, bool asked);
/* What a cold object, whose word is this, is: 1; 0: it has another word now; -1: the handle is of another type or lane. */
int qy_cold_look(quarry_lanes *l, quarry_handle h, uint64_t word, struct qy_cold_object *o);
/* The marks of the cold object of this slot, whose word is this: true; false: it has another word now. */
bool qy_cold_marks(quarry_lanes *l, uint32_t slot, uint64_t word, uint32_t *marks);
/* The cold object that this was the word of was freed, or never became cold. Its marks. */
uint32_t qy_cold_forget(quarry_lanes *l, uint64_t word, bool freed);

/* ---- cool.c ---- */

/* -1 with errno; qy_cooling_end is called in any case. */
int qy_cooling_make(quarry_lanes *l, const quarry_cold_attr *attr);
/* How long the period is to be (ms) that was so long while readers have waited so long, and `enough` would have been enough: from
 * three quarters of it to twice as long. */
uint64_t qy_cool_steer(uint64_t period, uint64_t stalled, uint64_t enough);
/* Under l->moving: cool for a while, if it is time, and until somebody wants to move. When (ns) it is time again. */
uint64_t qy_cool_slice(quarry_lanes *l, uint64_t now, _Atomic(uint32_t) *wanted);
void qy_cooling_end(quarry_lanes *l);
uint64_t qy_cool_period(const quarry_lanes *l); /* ms, as it is now; 0: nothing becomes cold */

#endif
