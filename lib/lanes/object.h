/* SPDX-License-Identifier: MIT */
/* Objects: what their parts (object.c, find.c, pin.c) know of each other. */
#ifndef QUARRY_LANES_OBJECT_H
#define QUARRY_LANES_OBJECT_H

#include "lib/lanes/lanes.h"

QY_INLINE uint32_t qy_slot_of(quarry_handle h)
{
	return (uint32_t)h;
}

QY_INLINE uint64_t qy_generation_of(quarry_handle h)
{
	return h >> 32 & 0xffff;
}

/* The marks of an object with this handle that nobody has pinned. */
QY_INLINE uint32_t qy_marks_of(quarry_handle h)
{
	return (uint32_t)(h >> 48) << QY_MARK_TYPE_SHIFT | (uint32_t)(h >> 63) * QY_MARK_SLOW;
}

enum qy_found { QY_FOUND_NONE, QY_FOUND_LIVE, QY_FOUND_COLD };

/* What a handle is at this moment, all bits of it looked at; its word; and of a cold one what it is. In a scope. */
enum qy_found qy_find_any(quarry_lanes *l, quarry_handle h, uint64_t *word, struct qy_cold_object *o);

/* The last pin of what was freed has gone: one of those who see it clears the mark, and frees. In a scope. marks: of its
 * entry, as the caller left them. */
void qy_release_zombie(quarry_lanes *l, struct qy_entry *entry, uint32_t marks);

#endif
