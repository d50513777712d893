/* SPDX-License-Identifier: MIT */
/* What keys and values are in: objects behind quarry's handles or, with --malloc, blocks of malloc's. Nothing else of
 * the server knows which of the two it is; so both can be compared.
 *
 * A ref names an object for as long as it lives. Its address is asked for in a scope, and is good until the scope's end:
 * behind handles another thread (of the library's) packs objects while this one serves. What is read is got by
 * memory_read, what is written by memory_write; objects are allocated outside of scopes, for a thread in a scope would
 * hold up the reuse of what it freed. */
#ifndef KVSTORE_MEMORY_H
#define KVSTORE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <quarry/lanes.h>

typedef uint64_t ref; /* a handle, or an address */

#define REF_NONE ((ref)0)

extern struct memory {
	quarry_lanes *lanes; /* NULL: malloc */
	size_t asked;        /* bytes of all objects that there are */
	size_t limit;        /* of those; 0: none */
} memory;

struct memory_figures {
	uint64_t live, held, moved, moved_bytes, freed; /* bytes but moved (objects); all 0 with malloc */
};

/* Have a memory. False: there is none, and it was said why. */
bool memory_begin(bool with_malloc, bool packing);
void memory_end(void);
void memory_count(struct memory_figures *figures);

/* An object of so many bytes. REF_NONE: no memory, or more than the limit. */
ref memory_allocate(size_t size);
/* size: what was asked for. */
void memory_free(ref r, size_t size);

/* Whether so many bytes more are within the limit. */
static inline bool memory_allows(size_t more)
{
	return memory.limit == 0 || (memory.asked <= memory.limit && more <= memory.limit - memory.asked);
}

static inline void memory_enter(void)
{
	if (memory.lanes != NULL)
		quarry_enter();
}

static inline void memory_leave(void)
{
	if (memory.lanes != NULL)
		quarry_leave();
}

static inline const void *memory_read(ref r)
{
	return memory.lanes != NULL ? quarry_get(memory.lanes, r) : (const void *)(uintptr_t)r;
}

static inline void *memory_write(ref r)
{
	return memory.lanes != NULL ? quarry_get_mut(memory.lanes, r) : (void *)(uintptr_t)r;
}

/* Its address will be asked for: where a handle's stands is fetched. */
static inline void memory_foresee(ref r)
{
	if (memory.lanes != NULL)
		__builtin_prefetch(&((const quarry_lanes_map *)(const void *)memory.lanes)->words[(uint32_t)r]);
}

/* So many bytes would go back if each object were renamed: a ref is a handle, whose slot stays as long as it is this
 * handle. */
static inline size_t memory_renaming_gains(void)
{
	return memory.lanes != NULL ? quarry_rehandle_gain(memory.lanes) : 0;
}

/* In a scope: the object's ref from now on, or the same. Whoever refers to it has to be told. */
static inline ref memory_rename(ref r)
{
	ref other = memory.lanes != NULL ? quarry_rehandle(memory.lanes, r) : r;

	return other != REF_NONE ? other : r;
}

/* Tables of refs, zeroed: they are nobody's values, and stay where they are. */
void *memory_table(size_t count);
void memory_table_free(void *table);

#endif
