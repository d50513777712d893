/* SPDX-License-Identifier: MIT */
/* Memory of arenas that others have made something of, in the layers above: pools, slabs of buffers, page allocators,
 * stacks, blocks with counts. Three things are known of it here.
 *
 * An arena is held while something stands in it that is used by functions of its own: it is not ended nor reset then
 * (qy_arena_end says EBUSY), so that none of these is ever without its memory.
 *
 * A block is taken while objects are made in it that are not blocks themselves. The first of them has the block's
 * address: whoever frees, resizes or shares a block by its address asks here first, where there can be one. A block that
 * is taken begins at a multiple of QY_TAKEN_ALIGN.
 *
 * An arena has lives, of which each reset and its end begin another: whoever has marked that a block is over, and then
 * writes to its memory and frees it, does so only in the life in which the block was. */
#ifndef QUARRY_CACHE_TAKEN_H
#define QUARRY_CACHE_TAKEN_H

#include "include/quarry/quarry.h"
#include "lib/base/base.h"

#define QY_TAKEN_ALIGN ((uintptr_t)4096)

/* The arena that p is in has one more, or one less, of those who stand in it. Of what is not quarry's: nothing. */
void qy_arena_hold(const void *p);
void qy_arena_let_go(const void *p);
bool qy_arena_is_held(const quarry_arena *arena);

/* Whether p is a live block of a node's default arena, which neither ends nor is reset. errno stays. */
bool qy_arena_is_nodes(const void *p);

/* Which life of its arena a live block is of: another number after each reset and end; 0: it is none, or went with its
 * arena. errno stays. */
uint64_t qy_arena_life(const void *p);

/* Fill a block (at most max bytes of it), and free it: with its arena's end held up; nothing, where that life is over. */
void qy_arena_free_filled(void *p, uint64_t life, int byte, size_t max);

/* Whether the calling thread is in a slow path, or holds a lock of quarry's: a signal handler may be. */
bool qy_arena_is_inside(void);

/* False with ENOMEM. Taken once, let go once, before it is freed (or never was, as after qy_taken_end); errno stays. */
bool qy_taken_add(const void *p);
void qy_taken_remove(const void *p);

bool qy_taken_find(const void *p);

/* In a forked child, alone: the memory of an arena is not there (quarry_fd_of), and nothing stands in it. */
struct qy_manager;
void qy_taken_end(struct qy_manager *head);

QY_INLINE bool qy_taken_has(const void *p)
{
	return QY_UNLIKELY(((uintptr_t)p & (QY_TAKEN_ALIGN - 1)) == 0) && qy_taken_find(p);
}

#endif
