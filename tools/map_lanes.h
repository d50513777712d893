/* SPDX-License-Identifier: MIT */
/* Lanes (quarry/lanes.h) of a dump: how much of what they hold is live, by class and group. */
#ifndef QUARRY_TOOLS_MAP_LANES_H
#define QUARRY_TOOLS_MAP_LANES_H

#include "tools/map.h"

struct json;
struct page;

struct map_lanes_part {
	const char *kind; /* "class", "group", "tag" */
	char name[128];
	uint64_t size, objects, live, held, moved, refaults, cold_bytes;
};

struct map_lanes {
	char name[128];
	uint64_t number, objects, live, held, fast_objects, fast_live, fast_held, compacted;
	uint64_t cold_bytes, cold_compressed, cold_evicted;
	struct map_lanes_part *parts;
	size_t part_count;
};

struct map_lanes_number {
	const char *name;
	size_t offset;
};

/* The value of "lanes". */
void map_read_lanes(struct json *j, struct map *map);
void map_free_lanes(struct map *map);
void map_draw_lanes(struct page *p, const struct map *map);
void map_print_lanes_json(const struct map *map, FILE *out);

/* (map_text.c) A bar of at most so many cells for `whole`: what is live, and what is held beside it. */
void map_put_use(struct page *p, uint64_t live, uint64_t held, uint64_t whole, int cells);

#endif
