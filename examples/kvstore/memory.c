/* SPDX-License-Identifier: MIT */
/* Handles or malloc. What is behind handles is packed by a thread of the library's. */
#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HANDLES ((uint64_t)1 << 27) /* objects at once: 1 GiB of addresses, memory for those that were used */

struct memory memory;

bool memory_begin(bool with_malloc, bool packing)
{
	quarry_lanes_attr attr = { .struct_size = sizeof(attr), .handles = HANDLES,
				   .flags = packing ? 0 : QUARRY_LANES_NO_MOVER };

	if (with_malloc)
		return true;
	memory.lanes = quarry_lanes_create(&attr);
	if (memory.lanes == NULL) {
		fprintf(stderr, "kvstore: %s\n", quarry_error_text());
		return false;
	}
	return true;
}

void memory_end(void)
{
	if (memory.lanes != NULL)
		quarry_lanes_destroy(memory.lanes);
	memory.lanes = NULL;
}

void memory_count(struct memory_figures *figures)
{
	quarry_lanes_stats stats = { .struct_size = sizeof(stats) };

	memset(figures, 0, sizeof(*figures));
	if (memory.lanes == NULL || quarry_lanes_stats_get(memory.lanes, &stats) != 0)
		return;
	*figures = (struct memory_figures){ .live = stats.live, .held = stats.held, .moved = stats.moved,
					    .moved_bytes = stats.moved_bytes, .freed = stats.freed_segments << 21 };
}

ref memory_allocate(size_t size)
{
	ref r;

	if (!memory_allows(size))
		return REF_NONE;
	r = memory.lanes != NULL ? quarry_halloc(memory.lanes, size) : (ref)(uintptr_t)malloc(size);
	if (r != REF_NONE)
		memory.asked += size;
	return r;
}

void memory_free(ref r, size_t size)
{
	if (memory.lanes != NULL)
		quarry_hfree(memory.lanes, r);
	else
		free((void *)(uintptr_t)r);
	memory.asked -= size;
}

void *memory_table(size_t count)
{
	return memory.lanes != NULL ? quarry_calloc(count, sizeof(ref)) : calloc(count, sizeof(ref));
}

void memory_table_free(void *table)
{
	if (memory.lanes != NULL)
		quarry_free(table);
	else
		free(table);
}
