/* SPDX-License-Identifier: MIT */
/* A heap for a terminal: a line for so many cells, each a character that is as high as much of it lives. Colours say the same
 * once more. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tools/map_heap.h"
#include "tools/map_page.h"

#define LEFT 24  /* columns before the cells: an address, and a size */
#define RIGHT 13 /* and behind them: how much of the line lives, and its pages */
#define LINES 32 /* of cells that are all drawn, about */
#define ALIKE 2 /* so many lines that are like the one before are left out */
#define STRETCHES 12
#define ARENAS 12

static const char *const bars[HEAP_LEVELS] = { "▁", "▁", "▂", "▃", "▄", "▄", "▅", "▆", "▇", "█" };
static const char *const colors[HEAP_LEVELS] = { "38;5;220", "38;5;184", "38;5;148", "38;5;113", "38;5;72",
						 "38;5;37",  "38;5;38",	 "38;5;33",  "38;5;63",	 "38;5;99" };
static const char kind_letters[MAP_KINDS] = "?bt21";

struct sheet {
	struct page page;
	const struct heap *heap;
	size_t per_line;
	bool cached, mixed; /* whether there was something of which the legend has to tell */
};

/* A power of two, so that addresses at the left are round. */
size_t heap_cells_per_line(void)
{
	const char *told = getenv("COLUMNS");
	long columns = told ? strtol(told, NULL, 10) : PAGE_WIDTH;
	size_t n = 32;

	while (n < 128 && (long)(LEFT + 2 * n + RIGHT) <= columns)
		n *= 2;
	return n;
}

/* ---- cells ---- */

static int glyph_of(const struct cell *cell)
{
	int level = heap_level(cell);

	return level == HEAP_HOLE ? HEAP_GLYPH_HOLE : heap_is_cached(cell) ? HEAP_GLYPH_CACHED : level;
}

void heap_put_glyph(struct page *p, int glyph)
{
	if (glyph == HEAP_GLYPH_HOLE)
		page_raw(p, p->look->ascii ? "." : "·", p->look->ascii ? 1 : strlen("·"), 1);
	else if (glyph == HEAP_GLYPH_CACHED)
		page_raw(p, "c", 1, 1);
	else if (p->look->ascii)
		page_put(p, "%d", glyph);
	else
		page_raw(p, bars[glyph], strlen(bars[glyph]), 1);
}

void heap_paint_glyph(struct page *p, int glyph)
{
	page_paint(p, glyph == HEAP_GLYPH_HOLE ? "38;5;240" : glyph == HEAP_GLYPH_CACHED ? "1;38;5;203" : colors[glyph]);
}

static void put_glyphs(struct sheet *s, const struct stretch *stretch, size_t first, size_t end)
{
	int last = -1;

	for (size_t i = first; i < end; i++) {
		int glyph = glyph_of(heap_cell(s->heap, stretch, i));

		if (glyph != last)
			heap_paint_glyph(&s->page, glyph);
		heap_put_glyph(&s->page, glyph);
		s->cached = s->cached || glyph == HEAP_GLYPH_CACHED;
		last = glyph;
	}
	page_unpaint(&s->page);
}

/* Where pages are of more than one kind, letters under the cells say of which. */
static void put_letters(struct sheet *s, const struct stretch *stretch, size_t first, size_t end)
{
	page_pad(&s->page, LEFT);
	for (size_t i = first; i < end; i++)
		page_put(&s->page, "%c", kind_letters[cell_pages(heap_cell(s->heap, stretch, i))]);
	page_end_line(&s->page);
	s->mixed = true;
}

/* The glyph and kind of page of a whole line of them, or -1. */
static int all_of(const struct sheet *s, const struct stretch *stretch, size_t first)
{
	const struct cell *cell = heap_cell(s->heap, stretch, first);

	if (stretch->count - first < s->per_line)
		return -1;
	for (size_t i = first + 1; i < first + s->per_line; i++) {
		const struct cell *other = heap_cell(s->heap, stretch, i);

		if (glyph_of(other) != glyph_of(cell) || cell_pages(other) != cell_pages(cell))
			return -1;
	}
	return glyph_of(cell) * MAP_KINDS + cell_pages(cell);
}

/* How many of the lines behind this one have nothing but what it has. */
static size_t alike(const struct sheet *s, const struct stretch *stretch, size_t first)
{
	int what = all_of(s, stretch, first);
	size_t n = 0;

	while (what >= 0 && first + (n + 1) * s->per_line < stretch->count &&
	       all_of(s, stretch, first + (n + 1) * s->per_line) == what)
		n++;
	return n;
}

static void put_line(struct sheet *s, const struct stretch *stretch, size_t first)
{
	size_t end = stretch->count - first < s->per_line ? stretch->count : first + s->per_line;
	int kind = cell_pages(heap_cell(s->heap, stretch, first));
	struct cell sum = { 0 };
	bool mixed = false;

	for (size_t i = first; i < end; i++) {
		cell_add(&sum, heap_cell(s->heap, stretch, i));
		mixed = mixed || cell_pages(heap_cell(s->heap, stretch, i)) != kind;
	}
	page_put(&s->page, "  0x%012" PRIx64, stretch->address + first * cells_size(&s->heap->cells));
	if (first == 0)
		page_put(&s->page, " %5s", map_short(stretch->size));
	page_pad(&s->page, LEFT - 1);
	page_put(&s->page, " ");
	put_glyphs(s, stretch, first, end);
	page_pad(&s->page, LEFT + (int)s->per_line);
	page_put(&s->page, " %3u %% %s", heap_percent(cell_live(&sum), cell_mapped(&sum)),
		 mixed ? "mixed" : map_kind_name(kind));
	page_end_line(&s->page);
	if (mixed)
		put_letters(s, stretch, first, end);
}

/* (As hexdump(1): what is long and the same is told once.) */
static void put_stretch(struct sheet *s, const struct stretch *stretch)
{
	for (size_t first = 0; first < stretch->count; first += s->per_line) {
		size_t more = s->page.look->all ? 0 : alike(s, stretch, first);

		put_line(s, stretch, first);
		if (more < ALIKE)
			continue;
		page_put(&s->page, "  * %zu more lines much like this one", more);
		page_end_line(&s->page);
		first += more * s->per_line;
	}
}

/* ---- arenas, nodes ---- */

static void put_arena(struct sheet *s, const struct heap_arena *arena)
{
	char figures[128];

	heap_figures(&arena->sum, figures, sizeof(figures));
	page_paint(&s->page, "1");
	page_name(&s->page, arena->name[0] ? arena->name : "(no name)", 0, 24);
	page_unpaint(&s->page);
	page_put(&s->page, ": %s", figures);
	page_end_line(&s->page);
	for (size_t i = 0; i < arena->count; i++) {
		if (s->heap->places[arena->first + i].drawn)
			put_stretch(s, s->heap->places[arena->first + i].stretch);
	}
	if (arena->hidden) {
		page_put(&s->page, "  ... and %zu more, %s (--all draws them)", arena->hidden, map_short(arena->hidden_bytes));
		page_end_line(&s->page);
	}
}

static void put_node(struct sheet *s, size_t first, size_t count, const struct heap_limits *limits)
{
	size_t drawn = heap_drawn(count, limits);
	char node[32];

	page_end_line(&s->page);
	page_paint(&s->page, "1");
	page_put(&s->page, "%s ", heap_node(s->heap->arenas[first].node, node, sizeof(node)));
	while (s->page.width < PAGE_WIDTH)
		page_corner(&s->page, DASH);
	page_end_line(&s->page);
	for (size_t i = 0; i < drawn; i++)
		put_arena(s, &s->heap->arenas[first + i]);
	if (drawn < count) {
		page_put(&s->page, "and %zu smaller arenas, %s mapped (--all draws them)", count - drawn,
			 map_short(heap_mapped(s->heap, first + drawn, count - drawn)));
		page_end_line(&s->page);
	}
}

static void put_legend(struct sheet *s)
{
	page_end_line(&s->page);
	for (int level = 0; level < HEAP_LEVELS; level++) {
		if (level > 0 && !s->page.look->ascii && strcmp(bars[level], bars[level - 1]) == 0)
			continue;
		heap_paint_glyph(&s->page, level);
		heap_put_glyph(&s->page, level);
	}
	page_unpaint(&s->page);
	page_put(&s->page, " %s of a cell of %s that lives   ", s->page.look->ascii ? "tenths" : "how much",
		 map_short(cells_size(&s->heap->cells)));
	heap_paint_glyph(&s->page, HEAP_GLYPH_HOLE);
	heap_put_glyph(&s->page, HEAP_GLYPH_HOLE);
	page_unpaint(&s->page);
	page_put(&s->page, " held by nothing");
	page_end_line(&s->page);
	page_put(&s->page, "at the right: how much of a line lives, and its pages");
	page_end_line(&s->page);
	if (s->cached) {
		heap_paint_glyph(&s->page, HEAP_GLYPH_CACHED);
		heap_put_glyph(&s->page, HEAP_GLYPH_CACHED);
		page_unpaint(&s->page);
		page_put(&s->page, " more is in threads' caches than lives");
		page_end_line(&s->page);
	}
	if (s->mixed) {
		page_put(&s->page, "pages: b base  t thp  2 2m hugetlb  1 1g hugetlb  ? untold");
		page_end_line(&s->page);
	}
}

bool heap_print_text(const struct map *map, const struct map_look *look, FILE *out)
{
	struct sheet s = { .page = { .look = look, .out = out, .paint = "" }, .per_line = heap_cells_per_line() };
	struct heap_limits limits = { LINES * s.per_line, STRETCHES, ARENAS };
	char title[512], summary[256], both[sizeof(title) + sizeof(summary) + 2];
	struct heap heap;

	if (look->all)
		limits = (struct heap_limits){ CELLS_MOST, SIZE_MAX, SIZE_MAX };
	if (!heap_arrange(&heap, map, &limits)) {
		heap_free(&heap);
		return false;
	}
	s.heap = &heap;
	map_title(map, title, sizeof(title));
	heap_summary(&heap, summary, sizeof(summary));
	snprintf(both, sizeof(both), "%s: %s", title, summary);
	page_wrapped(&s.page, both, 0, "1");
	heap_fragments(&heap, map, summary, sizeof(summary));
	page_wrapped(&s.page, summary, 0, "");
	page_wrapped(&s.page, map->note, 0, "");
	for (size_t i = 0; i < heap.arena_count; i += heap_on_node(&heap, i))
		put_node(&s, i, heap_on_node(&heap, i), &limits);
	if (heap.arena_count)
		put_legend(&s);
	heap_free(&heap);
	return true;
}
