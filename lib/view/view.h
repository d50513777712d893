/* SPDX-License-Identifier: MIT */
/* What a view is made of, for those who go through it in ways of their own. */
#ifndef QUARRY_VIEW_VIEW_H
#define QUARRY_VIEW_VIEW_H

#include "include/quarry/quarry.h"
#include "lib/manager/manager.h"
#include "lib/manager/snapshot.h"

struct qy_view_region {
	uint32_t frame, frames;
	uint32_t arena; /* index */
	int32_t node;
	uint8_t kind;
};

struct qy_view_arena {
	struct qy_manager *manager; /* for whether it was wiped; not followed afterwards */
	quarry_arena *handle;
	char name[QUARRY_ARENA_NAME_MAX];
	bool wiped;
};

struct quarry_view {
	struct qy_snapshot snapshot;
	struct qy_view_region *regions; /* by frame */
	struct qy_view_arena *arenas;
	size_t region_room, region_count, arena_room, arena_count;
	size_t block_count; /* by offset */
	size_t mapped;
	uint64_t not_noted; /* regions for which there was no room */
	quarry_view_report report;
};

/* A slab at the moment. */
struct qy_view_slab {
	uintptr_t offset;
	unsigned cls; /* QY_CLASSES: mixed */
	bool ended;
};

/* The slab that a byte of the window was in; false when in none. */
bool qy_view_find_slab(const struct quarry_view *v, uintptr_t offset, struct qy_view_slab *slab);

#endif
