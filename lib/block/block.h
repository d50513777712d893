/* SPDX-License-Identifier: MIT */
/* The block layer: runs of pages, what is carved, split and coalesced.
 *
 * A block has a header that says whether it is used, how long it is and who its neighbours are. Headers stand outside
 * the memory they describe, in an array with one slot per page (a block map); the slot of a block's first page is its
 * header, the slots of its other pages are zero. What a "page" is, and what a block is good for, is the owner's
 * affair: the manager uses one map for 4 KiB pages inside a frame and one for frames inside a region.
 *
 * This layer implements no strategy and keeps no list: two link words in the header are the owner's. It has no lock:
 * a block, its neighbours and the blocks beyond them belong to one owner, which holds the lock.
 *
 * Invariants:
 *   - the blocks of a formatted run follow each other without gap: next(b) begins where b ends;
 *   - length(prev(b)) is known to b, so both neighbours are found in O(1);
 *   - a run's first block has no prev, its last no next: blocks of two runs are never neighbours;
 *   - a slot is a header exactly when its length is not 0 (qy_block_is): a pointer that is not the start of a block is
 *     told from one that is. */
#ifndef QUARRY_BLOCK_BLOCK_H
#define QUARRY_BLOCK_BLOCK_H

#include "lib/base/base.h"

/* 16 bytes. 28 bits of length reach 1 TiB in 4 KiB pages. */
struct qy_block {
	uint32_t length;   /* bits 0-27 pages, 0: not a header; bits 28-31 flags below */
	uint32_t previous; /* bits 0-27 the length of the block before; bits 28-31 the owner's tag */
	uint32_t link[2];  /* the owner's: next and previous in a list of its own, as page numbers */
};

#define QY_BLOCK_LENGTH_BITS 28 /* above them are the flags, or the tag */
#define QY_BLOCK_LENGTH_MAX ((1u << QY_BLOCK_LENGTH_BITS) - 1)
#define QY_BLOCK_USED (1u << 28)
#define QY_BLOCK_CLEAN (1u << 29) /* its memory reads as zero */
#define QY_BLOCK_FIRST (1u << 30) /* of its run */
#define QY_BLOCK_LAST (1u << 31)

/* Slot i is at headers + i * stride. */
struct qy_block_map {
	char *headers;
	size_t stride;
};

typedef uint32_t qy_page; /* the number of a page in a map */

QY_INLINE struct qy_block *qy_block_at(const struct qy_block_map *map, qy_page b)
{
	return (struct qy_block *)(void *)(map->headers + (size_t)b * map->stride);
}

QY_INLINE bool qy_block_is(const struct qy_block_map *map, qy_page b)
{
	return (qy_block_at(map, b)->length & QY_BLOCK_LENGTH_MAX) != 0;
}

QY_INLINE uint32_t qy_block_length(const struct qy_block_map *map, qy_page b)
{
	return qy_block_at(map, b)->length & QY_BLOCK_LENGTH_MAX;
}

QY_INLINE bool qy_block_used(const struct qy_block_map *map, qy_page b)
{
	return qy_block_at(map, b)->length & QY_BLOCK_USED;
}

QY_INLINE bool qy_block_clean(const struct qy_block_map *map, qy_page b)
{
	return qy_block_at(map, b)->length & QY_BLOCK_CLEAN;
}

QY_INLINE bool qy_block_last(const struct qy_block_map *map, qy_page b)
{
	return qy_block_at(map, b)->length & QY_BLOCK_LAST;
}

QY_INLINE bool qy_block_first(const struct qy_block_map *map, qy_page b)
{
	return qy_block_at(map, b)->length & QY_BLOCK_FIRST;
}

/* The neighbours; there must be one (not last, not first). */
QY_INLINE qy_page qy_block_next(const struct qy_block_map *map, qy_page b)
{
	qy_assert(!qy_block_last(map, b));
	return b + qy_block_length(map, b);
}

QY_INLINE qy_page qy_block_prev(const struct qy_block_map *map, qy_page b)
{
	qy_assert(!qy_block_first(map, b));
	return b - (qy_block_at(map, b)->previous & QY_BLOCK_LENGTH_MAX);
}

/* The owner's tag, 0 to 15. It survives splits of the block and is lost when the block is absorbed. */
QY_INLINE unsigned qy_block_tag(const struct qy_block_map *map, qy_page b)
{
	return qy_block_at(map, b)->previous >> QY_BLOCK_LENGTH_BITS;
}

/* Make one free block of length pages, a run of its own. The slots must be zero. */
void qy_block_format(const struct qy_block_map *map, qy_page b, uint32_t length, bool clean);

/* Unmake a run that is one block again: its slots are zero afterwards. */
void qy_block_erase(const struct qy_block_map *map, qy_page b);

void qy_block_set_used(const struct qy_block_map *map, qy_page b, bool used);
void qy_block_set_clean(const struct qy_block_map *map, qy_page b, bool clean);
void qy_block_set_tag(const struct qy_block_map *map, qy_page b, unsigned tag);

/* Cut b after length pages (0 < length < its length). Returns the second part, which has b's flags and tag and no
 * links. */
qy_page qy_block_split(const struct qy_block_map *map, qy_page b, uint32_t length);

/* Whether b may absorb its next (previous) neighbour: both free and alike in being clean. */
bool qy_block_joins_next(const struct qy_block_map *map, qy_page b);
bool qy_block_joins_prev(const struct qy_block_map *map, qy_page b);

/* Absorb the next neighbour, whatever its state: the longer block is clean only if both were. The neighbour must be
 * in no list of the owner's. */
void qy_block_absorb_next(const struct qy_block_map *map, qy_page b);

/* Coalesce a free block with the free neighbours that are like it. unlink(ctx, n) is called for each neighbour before
 * it is absorbed (and for a previous neighbour that absorbs b, before that), to take it from the owner's list.
 * Returns the coalesced block. */
qy_page qy_block_coalesce(const struct qy_block_map *map, qy_page b, void (*unlink)(void *ctx, qy_page n), void *ctx);

/* Walk a run and check every invariant; returns the number of blocks, or -1 and *bad the first block that is wrong. */
long qy_block_check(const struct qy_block_map *map, qy_page first, uint32_t length, qy_page *bad);

#endif
