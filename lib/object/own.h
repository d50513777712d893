/* SPDX-License-Identifier: MIT */
/* Where pools and slabs keep what they note for themselves: in the node's default arena, which never ends. (No arena
 * named would be the one that the thread chose, which the program may end while the notes are needed.) */
#ifndef QUARRY_OBJECT_OWN_H
#define QUARRY_OBJECT_OWN_H

#include <errno.h>

#include "include/quarry/quarry.h"
#include "lib/api/error.h"
#include "lib/base/base.h"
#include "lib/cache/taken.h"

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

/* As qy_arena_end_with, of an arena that was made for one of these; with a text. */
QY_INLINE int qy_own_end(quarry_arena *arena, void *const *blocks, unsigned count)
{
	if (qy_fail_inside())
		return -1;
	if (qy_arena_end_with(arena, blocks, count) == 0)
		return 0;
	if (errno == EINVAL)
		return qy_fail_arena(arena);
	return qy_fail(errno, errno == EBUSY ? "its arena is the default arena of a thread, or something else is in it"
					     : "its arena cannot be ended");
}

#endif
