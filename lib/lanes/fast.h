/* SPDX-License-Identifier: MIT */
/* The fast lane: chunks that threads take objects from, one behind the other.
 *
 * An object stands behind a head, which says how long it is, where its chunk begins, when it was made and how it is
 * aligned. So a chunk can be walked from its first head to its top; what lies below the top stays readable until the
 * chunk begins anew.
 *
 * Who owns a chunk makes objects in it and counts them (`own`) without an atomic operation, and takes away those that he
 * freed himself; others count what they free in `live`, downwards from 0. When the owner is done with the chunk he adds
 * the one to the other. From then on `live` is what is alive; it becomes 0 once, and whoever made it 0 puts the chunk
 * into the list of dead ones, with the epoch of then: no word leads into it any more, and the objects that it had ended
 * in that epoch or before. It begins anew when all scopes of that epoch are over. A pinned object is alive until it is
 * unpinned, so its chunk waits for it.
 *
 * Who walks a chunk (the one who moves, lanes->moving) marks it under the lock: it does not begin anew, nor end, while
 * it is walked. */
#ifndef QUARRY_LANES_FAST_H
#define QUARRY_LANES_FAST_H

#include "lib/lanes/lanes.h"

#define QY_CHUNK_SIZE ((size_t)64 << 10)
#define QY_FAST_MOST ((size_t)1000000) /* bytes of an object */

struct qy_chunk {
	char *top; /* its owner's; others see all that is below it */
	char *end;
	uint32_t own;           /* its owner's: objects alive that he made, less what he freed */
	_Atomic(int32_t) live;
	struct qy_lanes_cache *owner; /* NULL: nobody makes objects here any more */
	/* Under the lock. */
	struct qy_link link, order; /* of all; of the dead */
	uint64_t due;               /* the tick when some object in it is to be promoted */
	size_t size;
	uint32_t stamp; /* dead: the epoch of its end */
	bool dead, walked;
	uint64_t seen; /* the last pass that looked at it */
};

/* ---- what a head says ---- */

#define QY_ABOUT_TOTAL ((uint64_t)0x1ffff) /* bytes / 16, with the head */
#define QY_ABOUT_BACK_SHIFT 17             /* bytes / 16 from the chunk */
#define QY_ABOUT_TICK_SHIFT 34             /* 16 bits */
#define QY_ABOUT_ALIGNED_SHIFT 50          /* log2 of the alignment, less 4; 5 bits */

QY_INLINE size_t qy_about_total(uint64_t about)
{
	return (about & QY_ABOUT_TOTAL) * 16;
}

QY_INLINE size_t qy_about_alignment(uint64_t about)
{
	return (size_t)16 << (about >> QY_ABOUT_ALIGNED_SHIFT);
}

QY_INLINE uint32_t qy_about_age(uint64_t about, uint64_t tick)
{
	return (uint32_t)(tick - (about >> QY_ABOUT_TICK_SHIFT)) & 0xffff;
}

QY_INLINE struct qy_chunk *qy_chunk_of(const struct qy_head *head)
{
	size_t back = (head->about >> QY_ABOUT_BACK_SHIFT & QY_ABOUT_TOTAL) * 16;

	return (struct qy_chunk *)(void *)((char *)(uintptr_t)head - back);
}

QY_INLINE char *qy_chunk_first(const struct qy_chunk *k)
{
	return (char *)(uintptr_t)k + qy_align_up(sizeof(struct qy_chunk), QY_CACHE_LINE);
}

/* ---- fast.c ---- */

int qy_fast_start(quarry_lanes *l, const quarry_lanes_attr *a);
/* The lanes end: all chunks do. */
void qy_fast_destroy(quarry_lanes *l);
/* The thread makes no more objects in its chunk. */
void qy_fast_end(quarry_lanes *l, struct qy_lanes_cache *c);
/* Room for an object, as the thread's; its head is filled in but for whose it is. NULL: none. */
struct qy_head *qy_fast_take(quarry_lanes *l, struct qy_lanes_cache *c, size_t size, size_t alignment);
/* An object is over, or was moved away: in a scope. c: the calling thread's; NULL: it has none. */
void qy_fast_entomb(quarry_lanes *l, struct qy_lanes_cache *c, struct qy_head *head);
/* Dead chunks beyond so many go back to the arena, when their scopes are over, until a time (ns; 0: all of them): bytes. */
size_t qy_fast_trim(quarry_lanes *l, uint32_t keep, uint64_t deadline);
/* In a child of fork(2), of threads that are gone: what they did last may be half seen. No chunk begins anew. */
void qy_fast_keep(quarry_lanes *l);
/* Of the calling thread's record: an object of at most fast.most bytes; and freed, by a handle that is one of these lanes'. */
quarry_handle qy_fast_halloc(quarry_lanes *l, struct qy_lanes_record *r, size_t size);
int qy_fast_hfree(quarry_lanes *l, struct qy_lanes_record *r, quarry_handle h);
/* An object where its attributes say. */
quarry_handle qy_make_with(quarry_lanes *l, size_t size, const quarry_halloc_attr *attr);

/* ---- transfer.c ---- */

/* Move the objects with these handles to a lane: how many went. -1: it cannot be. */
int64_t qy_transfer(quarry_lanes *l, const quarry_handle *h, size_t count, int lane);
/* Under lanes->moving: a fork cut off who moved from lane to lane, or node to node. */
void qy_transfers_undo(quarry_lanes *l);
/* Have the one who moves promote those that saw a tick, for a compaction, until a time (ns; 0: all of them): under
 * lanes->moving. The next call goes on where one has stopped. */
void qy_promote_for_compaction(quarry_lanes *l, uint64_t deadline);
/* Objects of a few chunks leave them: whether a chunk is empty now. */
bool qy_promote_for_room(quarry_lanes *l);

#endif
