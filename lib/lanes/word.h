/* SPDX-License-Identifier: MIT */
/* Words of slots, entries of objects, and what stands before those that are in no span. (lanes.h has the rules.) */
#ifndef QUARRY_LANES_WORD_H
#define QUARRY_LANES_WORD_H

#include "include/quarry/lanes.h"
#include "lib/base/base.h"

#define QY_LANES_MAX 128 /* numbers; 0 is none */
#define QY_TOMB ((uint32_t)1 << 31)
#define QY_GENERATION_LAST 0xfffeu

#define QY_MARK_PINS 0xffffu
#define QY_MARK_ZOMBIE (1u << 16) /* freed with pins: the last of them frees the memory */
#define QY_MARK_SLOW (1u << 17)   /* born in the slow lane */
#define QY_MARK_SIDE (1u << 18)   /* there is something of it in its slot's side record (group.h) */
#define QY_MARK_SAMPLED (1u << 19) /* how long it lives is told (figures.h) */
#define QY_MARK_CLAIMED (1u << 20) /* it is changing its slot (slots.c): no pin is added, nobody moves it */
#define QY_MARK_TYPE_SHIFT 24
#define QY_MARK_HELD (QY_MARK_PINS | QY_MARK_CLAIMED)

typedef _Atomic(uint64_t) qy_word;

struct qy_entry {
	_Atomic(uint32_t) whose; /* slot + 1, or QY_TOMB and the epoch; 0: nobody's */
	_Atomic(uint32_t) marks;
};

/* What stands before an object that is in no span (HEAD in its word). about: of the fast lane (fast.h); 0: beyond
 * segments. */
struct qy_head {
	struct qy_entry entry;
	uint64_t about;
};

/* An object beyond segments: this stands before it. */
struct qy_huge {
	struct qy_link link;
	void *base;
	size_t size;
	uint64_t elsewhere; /* the size again, when it is of an arena of failover */
	uint64_t padding;
	struct qy_head head;
};
_Static_assert(sizeof(struct qy_huge) == 64 && sizeof(struct qy_head) == 16, "the head is next to the object");

QY_INLINE struct qy_head *qy_head_of(const void *p)
{
	return (struct qy_head *)(void *)((char *)(uintptr_t)p - sizeof(struct qy_head));
}

QY_INLINE struct qy_huge *qy_huge_of(const void *p)
{
	return (struct qy_huge *)(void *)((char *)(uintptr_t)p - sizeof(struct qy_huge));
}

QY_INLINE void *qy_word_address(uint64_t word)
{
	return (void *)(uintptr_t)((word & QUARRY_WORD_ADDRESS) >> 1);
}

QY_INLINE uint64_t qy_word_make(uint64_t generation, const void *p)
{
	return generation << 48 | (uint64_t)(uintptr_t)p << 1;
}

/* Of a word: what says that a handle's object is there; and of one that is freed, whose memory is still its, until its
 * last pin goes. */
#define QY_WORD_STATES (QUARRY_WORD_GENERATION | QUARRY_WORD_FREE | QUARRY_WORD_COLD)
#define QY_WORD_FREED (QUARRY_WORD_FREE | QUARRY_WORD_MOVING)

#endif
