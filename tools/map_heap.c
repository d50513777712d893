/* SPDX-License-Identifier: MIT */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tools/map_heap.h"

#include <stdlib.h>
#include <string.h>

/* ---- arranging ---- */

static int by_node_and_arena(const void *a, const void *b)
{
	const struct stretch *x = ((const struct heap_place *)a)->stretch, *y = ((const struct heap_place *)b)->stretch;

	/* (What is on no one node stands last.) */
	if (x->node != y->node)
		return (unsigned)x->node < (unsigned)y->node ? -1 : 1;
	if (x->arena != y->arena)
		return x->arena < y->arena ? -1 : 1;
	return x->address < y->address ? -1 : 1;
}

static int by_address(const void *a, const void *b)
{
	return ((const struct heap_place *)a)->stretch->address < ((const struct heap_place *)b)->stretch->address ? -1 : 1;
}

static int largest_first(const void *a, const void *b)
{
	const struct stretch *x = ((const struct heap_place *)a)->stretch, *y = ((const struct heap_place *)b)->stretch;

	if (x->size != y->size)
		return x->size > y->size ? -1 : 1;
	return x->address < y->address ? -1 : 1;
}

static int by_node_and_size(const void *a, const void *b)
{
	const struct heap_arena *x = a, *y = b;
	uint64_t x_mapped = cell_mapped(&x->sum), y_mapped = cell_mapped(&y->sum);

	if (x->node != y->node)
		return (unsigned)x->node < (unsigned)y->node ? -1 : 1;
	if (x_mapped != y_mapped)
		return x_mapped > y_mapped ? -1 : 1;
	return x->first < y->first ? -1 : 1;
}

static bool copy_cells(struct cells *to, const struct cells *from)
{
	*to = *from;
	to->stretches = calloc(from->stretch_count + 1, sizeof(*to->stretches));
	to->list = calloc(from->count + 1, sizeof(*to->list));
	if (!to->stretches || !to->list)
		return false;
	if (from->stretch_count) {
		memcpy(to->stretches, from->stretches, from->stretch_count * sizeof(*to->stretches));
		memcpy(to->list, from->list, from->count * sizeof(*to->list));
	}
	return true;
}

/* The largest stretches of an arena are drawn. */
static void choose(struct heap *heap, struct heap_arena *arena, size_t most)
{
	struct heap_place *places = heap->places + arena->first;

	if (arena->count > most)
		qsort(places, arena->count, sizeof(*places), largest_first);
	for (size_t i = 0; i < arena->count; i++) {
		places[i].drawn = i < most;
		if (i >= most) {
			arena->hidden++;
			arena->hidden_bytes += places[i].stretch->size;
		}
	}
	if (arena->count > most)
		qsort(places, arena->count, sizeof(*places), by_address);
}

static void gather(struct heap *heap, const struct map *map, size_t most)
{
	for (size_t i = 0; i < heap->cells.stretch_count; i++) {
		const struct stretch *s = heap->places[i].stretch;
		struct heap_arena *arena = &heap->arenas[heap->arena_count];

		if (i > 0 && heap->places[i - 1].stretch->node == s->node && heap->places[i - 1].stretch->arena == s->arena)
			arena--;
		else
			*arena = (struct heap_arena){ .name = map->arenas[s->arena].name, .node = s->node, .first = i };
		heap->arena_count = (size_t)(arena - heap->arenas) + 1;
		arena->count++;
		arena->regions += s->regions;
		for (size_t k = 0; k < s->count; k++)
			cell_add(&arena->sum, heap_cell(heap, s, k));
	}
	for (size_t i = 0; i < heap->arena_count; i++) {
		cell_add(&heap->sum, &heap->arenas[i].sum);
		choose(heap, &heap->arenas[i], most);
	}
	qsort(heap->arenas, heap->arena_count, sizeof(*heap->arenas), by_node_and_size);
}

bool heap_arrange(struct heap *heap, const struct map *map, const struct heap_limits *limits)
{
	size_t count = map->cells.stretch_count;

	*heap = (struct heap){ .cell_size = cells_size(&map->cells) };
	heap->places = calloc(count + 1, sizeof(*heap->places));
	heap->arenas = calloc(count + 1, sizeof(*heap->arenas));
	if (!copy_cells(&heap->cells, &map->cells) || !heap->places || !heap->arenas)
		return false;
	for (size_t i = 0; i < map->cells.count; i++) {
		const struct cell *cell = &map->cells.list[i];

		heap->held_cells += cell_held(cell) > 0;
		heap->sparse_cells += cell_held(cell) > 0 && cell_live(cell) < cell_mapped(cell) / HEAP_SPARSE;
	}
	cells_coarsen(&heap->cells, limits->cells);
	for (size_t i = 0; i < count; i++)
		heap->places[i].stretch = &heap->cells.stretches[i];
	qsort(heap->places, count, sizeof(*heap->places), by_node_and_arena);
	gather(heap, map, limits->stretches);
	return true;
}

void heap_free(struct heap *heap)
{
	cells_free(&heap->cells);
	free(heap->places);
	free(heap->arenas);
}

size_t heap_on_node(const struct heap *heap, size_t first)
{
	size_t count = 0;

	while (first + count < heap->arena_count && heap->arenas[first + count].node == heap->arenas[first].node)
		count++;
	return count;
}

size_t heap_drawn(size_t arenas, const struct heap_limits *limits)
{
	return arenas <= limits->arenas ? arenas : limits->arenas;
}

uint64_t heap_mapped(const struct heap *heap, size_t first, size_t count)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < count; i++)
		sum += cell_mapped(&heap->arenas[first + i].sum);
	return sum;
}

/* ---- cells ---- */

const struct cell *heap_cell(const struct heap *heap, const struct stretch *stretch, size_t i)
{
	return &heap->cells.list[stretch->first + i];
}

int heap_level(const struct cell *cell)
{
	uint64_t mapped = cell_mapped(cell);
	double part = (double)cell_live(cell) / (double)mapped;

	if (cell_held(cell) == 0)
		return HEAP_HOLE;
	return part >= 1 ? HEAP_LEVELS - 1 : (int)(part * HEAP_LEVELS);
}

bool heap_is_cached(const struct cell *cell)
{
	uint64_t cached = cell->bytes[CELL_CACHED];

	return cached > cell_live(cell) && cached >= cell_mapped(cell) / HEAP_LEVELS;
}

unsigned heap_percent(uint64_t part, uint64_t whole)
{
	return whole ? (unsigned)((double)part / (double)whole * 100 + .5) : 0;
}

/* ---- words ---- */

void heap_summary(const struct heap *heap, char *text, size_t size)
{
	uint64_t mapped = cell_mapped(&heap->sum), held = cell_held(&heap->sum);
	size_t n;

	n = (size_t)snprintf(text, size, "%s mapped, %s held by slabs and large blocks, ", bytes_text(mapped),
			     bytes_text(held));
	snprintf(text + n, size - n, "%s live, %s cached, %s in holes", bytes_text(cell_live(&heap->sum)),
		 bytes_text(heap->sum.bytes[CELL_CACHED]), bytes_text(mapped - held));
}

void heap_fragments(const struct heap *heap, const struct map *map, char *text, size_t size)
{
	if (heap->held_cells == 0) {
		snprintf(text, size, "nothing is held%s", map->note[0] ? "" : "; exact");
		return;
	}
	snprintf(text, size, "%u %% of what is held lives; less than a quarter in %zu of the %zu cells of %s that are held%s",
		 heap_percent(cell_live(&heap->sum), cell_held(&heap->sum)), heap->sparse_cells, heap->held_cells,
		 bytes_text(heap->cell_size), map->note[0] ? "" : "; exact");
}

const char *heap_node(int node, char *text, size_t size)
{
	if (node < 0)
		snprintf(text, size, "no one node");
	else
		snprintf(text, size, "node %d", node);
	return text;
}

void heap_figures(const struct cell *sum, char *text, size_t size)
{
	uint64_t held = cell_held(sum), live = cell_live(sum);

	snprintf(text, size, "%s mapped, %s held, %s live (%u %%), %s cached", map_short(cell_mapped(sum)), map_short(held),
		 map_short(live), heap_percent(live, held), map_short(sum->bytes[CELL_CACHED]));
}

void heap_kinds(const struct cell *sum, char *text, size_t size)
{
	size_t n = 0;

	text[0] = '\0';
	for (int i = 0; i < MAP_KINDS; i++) {
		uint64_t bytes = sum->bytes[CELL_PAGES + map_kind_order[i]];

		if (bytes && n < size)
			n += (size_t)snprintf(text + n, size - n, "%s%s %s", n ? ", " : "", map_kind_name(map_kind_order[i]),
					      map_short(bytes));
	}
}
