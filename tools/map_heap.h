/* SPDX-License-Identifier: MIT */
/* The picture of a heap: what a view's dump tells of each cell of the address space (tools/cells.h), by node and arena. It is
 * arranged once (tools/map_heap.c), and drawn as text (map_heap_text.c), as SVG (map_heap_svg.c), or told as JSON
 * (map_heap_json.c). */
#ifndef QUARRY_TOOLS_MAP_HEAP_H
#define QUARRY_TOOLS_MAP_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "tools/cells.h"
#include "tools/map.h"

#define HEAP_LEVELS 10  /* of how much of a cell lives */
#define HEAP_HOLE (-1)  /* held by nothing: no level */
#define HEAP_SPARSE 4   /* a cell of which less than one in so many bytes lives is sparse */

struct heap_place {
	const struct stretch *stretch;
	bool drawn;
};

/* What of an arena is on a node: places[first] to [first + count - 1], by address. */
struct heap_arena {
	const char *name;
	int node;
	size_t first, count, regions, hidden;
	uint64_t hidden_bytes; /* mapped, of what is not drawn */
	struct cell sum;
};

struct heap {
	struct cells cells; /* as coarse as they are drawn */
	struct heap_place *places;
	struct heap_arena *arenas; /* by node, those with most mapped first */
	size_t arena_count;
	struct cell sum;
	/* Of the cells as they were read, which may be smaller: */
	uint64_t cell_size;
	size_t held_cells, sparse_cells;
};

/* How much of it is to be drawn. */
struct heap_limits {
	size_t cells, stretches, arenas; /* in all, beside one for each stretch; of an arena; of a node */
};

bool heap_arrange(struct heap *heap, const struct map *map, const struct heap_limits *limits); /* false: no memory */
void heap_free(struct heap *heap);

/* The arenas of a node from heap->arenas[first] on; of those, drawn ones come first. */
size_t heap_on_node(const struct heap *heap, size_t first);
size_t heap_drawn(size_t arenas, const struct heap_limits *limits);
/* Of arenas that are not drawn: how much they have mapped. */
uint64_t heap_mapped(const struct heap *heap, size_t first, size_t count);

const struct cell *heap_cell(const struct heap *heap, const struct stretch *stretch, size_t i);
int heap_level(const struct cell *cell);
/* More of it is in threads' caches than lives, and a tenth or more. */
bool heap_is_cached(const struct cell *cell);
/* Of each hundred bytes of the second, rounded. */
unsigned heap_percent(uint64_t part, uint64_t whole);

/* ---- words; text is ASCII ---- */

/* How much there is of what, and how it is broken up: a line each. */
void heap_summary(const struct heap *heap, char *text, size_t size);
void heap_fragments(const struct heap *heap, const struct map *map, char *text, size_t size);
/* "node 0", "no one node"; in the caller's. */
const char *heap_node(int node, char *text, size_t size);
/* "24M mapped, 23M held, 22M live (97 %), 12K cached" */
void heap_figures(const struct cell *sum, char *text, size_t size);
/* "base 8.0M, thp 16M" */
void heap_kinds(const struct cell *sum, char *text, size_t size);

/* ---- cells of text: of a level, or one of these ---- */

struct page;
enum { HEAP_GLYPH_CACHED = HEAP_LEVELS, HEAP_GLYPH_HOLE };
void heap_put_glyph(struct page *p, int glyph);
void heap_paint_glyph(struct page *p, int glyph);
size_t heap_cells_per_line(void);

/* ---- printers; false: no memory ---- */

bool heap_print_text(const struct map *map, const struct map_look *look, FILE *out);
bool heap_print_svg(const struct map *map, const struct map_look *look, FILE *out);
void heap_print_json(const struct map *map, FILE *out); /* a member of the map's object */

#endif
