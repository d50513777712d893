/* SPDX-License-Identifier: MIT */
/* Where pools and slabs keep what they note for themselves: in the node's default arena, which never ends. (No arena
 * named would be the one that the thread chose, which the program may end while the notes are needed.) */
#ifndef QUARRY_OBJECT_OWN_H
#define QUARRY_OBJECT_OWN_H

#include "include/quarry/quarry.h"
#include "lib/base/base.h"

/* NULL with errno. */
QY_INLINE quarry_arena *qy_own_arena(void)
{
	return quarry_arena_of_node(quarry_node_current());
}

/* Zeroed; NULL with ENOMEM. */
QY_INLINE void *qy_own_calloc(size_t count, size_t size)
{
	quarry_arena *arena = qy_own_arena();

	return arena == NULL ? NULL : quarry_arena_calloc(arena, count, size);
}

QY_INLINE void *qy_own_aligned(size_t alignment, size_t bytes)
{
	quarry_arena *arena = qy_own_arena();

	return arena == NULL ? NULL : quarry_arena_aligned_alloc(arena, alignment, bytes);
}

#endif
