/* SPDX-License-Identifier: MIT */
/* What a dump of a view tells of each piece of the address space, while it is read: how much of it lives, is cached, is free
 * in slabs, or is held by nothing. Memory stays bounded, however large the heap is: all pieces are of one size, which doubles
 * when there would be too many. Each stretch has one piece in any case, and so what a file can take is as it is long. */
#ifndef QUARRY_TOOLS_CELLS_H
#define QUARRY_TOOLS_CELLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tools/dump.h"

#define CELLS_MOST 4096 /* beside one for each stretch */
#define CELL_LEAST 16   /* the logarithm of a cell's size, at first */
#define CELL_KINDS 5    /* of enum quarry_page_kind */

/* Bytes of a cell. Slabs and blocks hold them; of those of slabs some live, some are cached, and the rest is free. */
enum { CELL_LIVE, CELL_CACHED, CELL_SLABS, CELL_BLOCKS, CELL_PAGES, CELL_FIGURES = CELL_PAGES + CELL_KINDS };

struct cell {
	uint64_t bytes[CELL_FIGURES];
};

/* Regions of one arena and node that adjoin: cells of it from its address on, the last of which may be a part of one. */
struct stretch {
	uint64_t address, size;
	size_t first, count, regions;
	uint32_t arena;
	int node;
};

/* Zeroes are an empty one. */
struct cells {
	struct stretch *stretches;
	struct cell *list;
	size_t stretch_count, stretch_room, count, room;
	unsigned doubled;
};

static inline uint64_t cells_size(const struct cells *c)
{
	return (uint64_t)1 << (CELL_LEAST + c->doubled);
}

/* As they are read (and were checked); false without memory. */
bool cells_add_region(struct cells *c, const struct dump_region *region);
/* Both are in the last region. */
void cells_add_slab(struct cells *c, const struct dump_slab *slab);
void cells_add_block(struct cells *c, uint64_t address, uint64_t size);

/* Until there are no more than so many, beside one for each stretch. */
void cells_coarsen(struct cells *c, size_t most);
void cells_free(struct cells *c);

/* ---- of a cell, or a sum of them ---- */

void cell_add(struct cell *to, const struct cell *cell);
uint64_t cell_mapped(const struct cell *cell);
uint64_t cell_held(const struct cell *cell);
uint64_t cell_live(const struct cell *cell); /* in slabs and in large blocks */
uint64_t cell_free(const struct cell *cell); /* in slabs, and not cached */
/* The kind of page that most of it has. */
int cell_pages(const struct cell *cell);

#endif
