/* SPDX-License-Identifier: MIT */
/* Memory of arenas that others have made something of, in the layers above: pools, slabs of buffers, page allocators,
 * stacks, blocks with counts. Three things are known of it here.
 *
 * An arena is held while something stands in it that is used by functions of its own: it is not ended nor reset then
 * (qy_arena_end says EBUSY), so that none of these is ever without its memory. One way for all of them: each block that
 * they live by holds the arena that it is in, from before it was there until after it is free. (So an end comes before
 * both, or after.) A block may be in another arena than it was asked of: a large one, that the breaker sends elsewhere.
 * Who keeps an arena's handle, to ask for more later, holds that arena beside its blocks.
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

/* The arena has one more, or one less, of those who stand in it; NULL, the calling thread's default one, is not held.
 * hold: false with EINVAL when it is none (any more). Let go of it with what was held of it free. */
bool qy_arena_hold(const quarry_arena *arena);
void qy_arena_let_go(const quarry_arena *arena);
bool qy_arena_is_held(const quarry_arena *arena);

/* Whether p is a live block of the arena (NULL: of any), or a large one that may have been asked of it, where the breaker has sent
 * such to the arena that p is in. errno EINVAL when not. */
bool qy_arena_has(const quarry_arena *arena, const void *p);

/* Whether p is a live block of a node's default arena, which neither ends nor is reset. errno stays. */
bool qy_arena_is_nodes(const void *p);

/* Which life of its arena memory of quarry's is of: another number after each reset and end, and never the same again. */
#define QY_LIFE_NODES ((uint64_t)0) /* of a node's arena, which has one for good */
#define QY_LIFE_OVER UINT64_MAX     /* it went with its arena, and is nobody's */
uint64_t qy_arena_life(const void *p);
uint64_t qy_arena_life_now(const quarry_arena *arena);

/* Hold up the end and the reset of the arena that p is in, for a moment, where that life of it goes on; always in a node's.
 * False: it is over. *held is for letting go. As whoever has entered, one must not wait for who holds threads. */
bool qy_life_hold(const void *p, uint64_t life, void **held);
void qy_life_let_go(void *held);

/* As quarry_free and quarry_realloc (size not 0) of a block of an arena that is not a node's, in that life: nothing is done, and
 * nobody told, where that is over. NULL with ENOMEM, or ESTALE. Fill it before (at most max bytes of it). */
void qy_arena_free_in(void *p, uint64_t life);
void *qy_arena_resize_in(void *p, size_t size, uint64_t life);
void qy_arena_free_filled(void *p, uint64_t life, int byte, size_t max);

/* Whether the calling thread is in a slow path, or holds a lock of quarry's: a signal handler may be. */
bool qy_arena_is_inside(void);

/* As qy_cache_alloc, a block that holds its arena; it stays in the one that is asked where that is strict or names
 * nodes, and is refused (ENOMEM) where the breaker would send it elsewhere. NULL with ENOMEM, EINVAL (the handle is
 * none). */
void *qy_arena_alloc_held(const quarry_arena *arena, size_t size, size_t align, bool zero);

/* Free it (NULL: nothing), which is taken no more, and let its arena go after that. */
void qy_arena_free_held(void *p);

/* End an arena of one's own, in which nothing stands but some of these blocks of qy_arena_alloc_held, of which there are
 * 32 at most and NULL is none: they are freed, wherever they are, and taken no more. 0; or -1, with nothing changed, as
 * quarry_arena_destroy: EBUSY (a thread's default, or others stand in it), EPERM, EINVAL. (arena.c) */
int qy_arena_end_with(quarry_arena *arena, void *const *blocks, unsigned count);

/* Inside: of a block that was asked of an arena that was held for it, p or NULL: hold what it is in, or let go. Whether
 * what is asked of the arena so is not to be sent elsewhere. */
void *qy_arena_held(const quarry_arena *arena, void *p);
bool qy_arena_stays(const quarry_arena *arena);

/* Inside: how many stand in the head, and how many of these blocks do (elsewhere: the bits of those that do not). */
struct qy_manager;
uint32_t qy_taken_holders(const struct qy_manager *head);
uint32_t qy_taken_count(const struct qy_manager *head, void *const *blocks, unsigned count, uint32_t *elsewhere);

/* False with ENOMEM. Taken once, let go once, before it is freed (or never was, as after qy_taken_end); errno stays. */
bool qy_taken_add(const void *p);
void qy_taken_remove(const void *p);

bool qy_taken_find(const void *p);

/* In a forked child, alone: the memory of an arena is not there (quarry_fd_of), and nothing stands in it. */
void qy_taken_end(struct qy_manager *head);

QY_INLINE bool qy_taken_has(const void *p)
{
	return QY_UNLIKELY(((uintptr_t)p & (QY_TAKEN_ALIGN - 1)) == 0) && qy_taken_find(p);
}

#endif
