/* SPDX-License-Identifier: MIT */
/* A heap as SVG: a lane for each node, in it the arenas, and of each its stretches of the address space, cell by cell. How much
 * of a cell lives is its colour, on a scale that is as well one of grey; what pages it has is a texture over it; what is held
 * by nothing is an empty frame. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "include/quarry/quarry.h"
#include "tools/map_heap.h"
#include "tools/map_picture.h"
#include "tools/map_svg.h"

#define PAD 12.0
#define HEAD 30.0
#define CELL 11.0
#define LINE 14.0  /* of cells; */
#define PITCH 17.0 /* from one to the next */
#define PER_LINE 64
#define SIZE_AT 158.0  /* from a lane's left edge: where sizes end, */
#define CELLS_AT 170.0 /* and where cells begin */
#define LANE (CELLS_AT + PER_LINE * CELL + 56)
#define LANE_AT (MARGIN + PAD)
#define ARENA_HEAD 24.0
#define BETWEEN 2 /* cells, between stretches that stand in one line */
#define STRETCHES 256
#define ARENAS 24
#define QUARTERS 4 /* how exactly it is drawn what is cached */

struct sheet {
	FILE *out;
	const struct heap *heap;
	const struct heap_limits *limits;
	double y;
	size_t column;    /* of the line that is open: where it ends, and */
	struct cell line; /* what is in it */
};

/* (Viridis: even in lightness, and the same to those who do not see all colours.) Textures are dark beside light, so that they
 * can be seen on all of it. */
static const char style[] =
	"<style>\n"
	".o0{fill:#fde725}.o1{fill:#b5de2b}.o2{fill:#6ece58}.o3{fill:#35b779}.o4{fill:#1f9e89}\n"
	".o5{fill:#26828e}.o6{fill:#31688e}.o7{fill:#3e4989}.o8{fill:#482878}.o9{fill:#440154}\n"
	".hole{fill:none;stroke:#9aa5b1;stroke-width:.9;pointer-events:all}\n"
	".c{fill:#f4511e;stroke:#fff;stroke-width:.7;pointer-events:none}\n"
	".p0,.p2,.p3,.p4{pointer-events:none}\n"
	".p0{fill:url(#p0)}.p2{fill:url(#p2)}.p3{fill:url(#p3)}.p4{fill:url(#p4)}\n"
	".address{font-family:'DejaVu Sans Mono',Menlo,Consolas,monospace;font-size:11px;fill:#52606d}\n"
	"</style>\n"
	"<defs>\n"
	"<pattern id=\"p0\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\">"
	"<path d=\"M0 2H6\" stroke=\"#fff\" stroke-opacity=\".7\"/><path d=\"M0 3H6\" stroke=\"#000\" stroke-opacity=\".5\"/>"
	"</pattern>\n"
	"<pattern id=\"p2\" width=\"7\" height=\"7\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">"
	"<rect width=\"1\" height=\"7\" fill=\"#000\" fill-opacity=\".4\"/>"
	"<rect x=\"1\" width=\"1\" height=\"7\" fill=\"#fff\" fill-opacity=\".5\"/></pattern>\n"
	"<pattern id=\"p3\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\">"
	"<circle cx=\"3\" cy=\"3\" r=\"1.5\" fill=\"#000\" fill-opacity=\".55\" stroke=\"#fff\" stroke-opacity=\".6\" "
	"stroke-width=\".8\"/></pattern>\n"
	"<pattern id=\"p4\" width=\"8\" height=\"8\" patternUnits=\"userSpaceOnUse\">"
	"<path d=\"M0 0L8 8M8 0L0 8\" stroke=\"#fff\" stroke-opacity=\".4\" stroke-width=\"2\"/>"
	"<path d=\"M0 0L8 8M8 0L0 8\" stroke=\"#000\" stroke-opacity=\".55\" stroke-width=\".9\"/></pattern>\n"
	"</defs>\n";

/* ---- cells ---- */

/* What cells that are drawn as one have in common. */
struct tint {
	int level, pages;
	unsigned cached; /* quarters of a cell, rounded up */
};

static struct tint tint_of(const struct cell *cell)
{
	uint64_t cached = cell->bytes[CELL_CACHED], mapped = cell_mapped(cell);
	struct tint tint = { .level = heap_level(cell), .pages = cell_pages(cell) };

	if (cached)
		tint.cached = 1 + (unsigned)((double)(cached - 1) / (double)mapped * QUARTERS);
	if (tint.cached > QUARTERS)
		tint.cached = QUARTERS;
	return tint;
}

static bool same(struct tint a, struct tint b)
{
	return a.level == b.level && a.pages == b.pages && a.cached == b.cached;
}

/* One run of cells that look the same. The rect has two corners rather than svg_rect's fractions: files stay small. */
static void put_run(struct sheet *s, uint64_t address, const struct cell *sum, struct tint tint, double x, double width)
{
	uint64_t mapped = cell_mapped(sum);
	bool hole = tint.level == HEAP_HOLE;
	double inset = hole ? .5 : 0;

	if (hole)
		fputs("<rect class=\"hole\"", s->out);
	else
		fprintf(s->out, "<rect class=\"o%d\"", tint.level);
	fprintf(s->out, " x=\"%g\" y=\"%g\" width=\"%g\" height=\"%g\">", x + inset, s->y + inset, width - 2 * inset,
		LINE - 2 * inset);
	if (hole)
		svg_title(s->out, "0x%" PRIx64 " + %s: a hole; %s", address, map_short(mapped), map_kind_name(tint.pages));
	else
		svg_title(s->out, "0x%" PRIx64 " + %s: %s live, %s cached, %s free, %s large, %s holes; %s", address,
			  map_short(mapped), map_short(sum->bytes[CELL_LIVE]), map_short(sum->bytes[CELL_CACHED]),
			  map_short(cell_free(sum)), map_short(sum->bytes[CELL_BLOCKS]), map_short(mapped - cell_held(sum)),
			  map_kind_name(tint.pages));
	fputs("</rect>\n", s->out);
	if (tint.cached)
		fprintf(s->out, "<rect class=\"c\" x=\"%g\" y=\"%g\" width=\"%g\" height=\"%g\"/>\n", x,
			s->y + LINE - LINE / QUARTERS * tint.cached, width, LINE / QUARTERS * tint.cached);
}

/* Over what is held; base pages have none. */
static void put_texture(struct sheet *s, int pages, double x, double width)
{
	if (pages != QUARRY_PAGES_BASE && width > 0)
		fprintf(s->out, "<rect class=\"p%d\" x=\"%g\" y=\"%g\" width=\"%g\" height=\"%g\"/>\n", pages, x, s->y, width,
			LINE);
}

static void put_textures(struct sheet *s, const struct stretch *stretch, size_t first, size_t end, double x)
{
	for (size_t i = first, next; i < end; i = next) {
		const struct cell *cell = heap_cell(s->heap, stretch, i);
		int pages = cell_pages(cell);

		for (next = i + 1; next < end; next++) {
			const struct cell *other = heap_cell(s->heap, stretch, next);

			if (cell_pages(other) != pages || (cell_held(other) == 0) != (cell_held(cell) == 0))
				break;
		}
		if (cell_held(cell) > 0)
			put_texture(s, pages, x + (double)(i - first) * CELL, (double)(next - i) * CELL);
	}
}

/* Cells of a stretch in the line that is open, from its column on. */
static void put_cells(struct sheet *s, const struct stretch *stretch, size_t first, size_t end, double x)
{
	uint64_t size = cells_size(&s->heap->cells);

	for (size_t i = first, next; i < end; i = next) {
		struct tint tint = tint_of(heap_cell(s->heap, stretch, i));
		struct cell sum = { 0 };

		next = i;
		do {
			cell_add(&sum, heap_cell(s->heap, stretch, next++));
		} while (next < end && same(tint, tint_of(heap_cell(s->heap, stretch, next))));
		cell_add(&s->line, &sum);
		put_run(s, stretch->address + i * size, &sum, tint, x + (double)(i - first) * CELL, (double)(next - i) * CELL);
	}
	put_textures(s, stretch, first, end, x);
}

static void end_line(struct sheet *s)
{
	if (s->column > 0) {
		svg_text(s->out, "smallright", LANE_AT + LANE - 4, s->y + 11, 0, "%u %%",
			 heap_percent(cell_live(&s->line), cell_mapped(&s->line)));
		s->y += PITCH;
	}
	s->line = (struct cell){ 0 };
	s->column = 0;
}

/* ---- arenas, nodes ---- */

/* Where the next stretch begins: behind the one before it, if there is room for all of it, or in a line of its own. */
static size_t column_for(size_t column, const struct stretch *stretch)
{
	return column > 0 && column + BETWEEN + stretch->count <= PER_LINE ? column + BETWEEN : 0;
}

static void put_stretch(struct sheet *s, const struct stretch *stretch)
{
	size_t at = column_for(s->column, stretch);

	if (at == 0)
		end_line(s);
	for (size_t first = 0, end; first < stretch->count; first = end) {
		end = stretch->count - first < PER_LINE ? stretch->count : first + PER_LINE;
		if (first > 0)
			end_line(s);
		if (at == 0) {
			svg_text(s->out, "address", LANE_AT, s->y + 11, 0, "0x%012" PRIx64,
				 stretch->address + first * cells_size(&s->heap->cells));
			if (first == 0)
				svg_text(s->out, "smallright", LANE_AT + SIZE_AT, s->y + 11, 0, "%s", map_short(stretch->size));
		}
		put_cells(s, stretch, first, end, LANE_AT + CELLS_AT + (double)at * CELL);
		s->column = at + end - first;
	}
}

static double arena_height(const struct sheet *s, const struct heap_arena *arena)
{
	size_t lines = arena->hidden > 0, column = 0;

	for (size_t i = 0; i < arena->count; i++) {
		const struct heap_place *place = &s->heap->places[arena->first + i];
		size_t count = place->stretch->count;

		if (!place->drawn)
			continue;
		column = column_for(column, place->stretch);
		lines += column == 0 ? (count + PER_LINE - 1) / PER_LINE : 0;
		column += (count - 1) % PER_LINE + 1;
	}
	return ARENA_HEAD + PITCH * (double)lines + 6;
}

static void put_arena(struct sheet *s, const struct heap_arena *arena)
{
	char figures[128], kinds[128];

	heap_figures(&arena->sum, figures, sizeof(figures));
	heap_kinds(&arena->sum, kinds, sizeof(kinds));
	svg_text(s->out, "name", LANE_AT, s->y + 16, 32, "%s", arena->name[0] ? arena->name : "(no name)");
	svg_text(s->out, "smallright", LANE_AT + LANE - 4, s->y + 16, 0, "%s; %s; %zu region%s", figures, kinds, arena->regions,
		 arena->regions == 1 ? "" : "s");
	s->y += ARENA_HEAD;
	for (size_t i = 0; i < arena->count; i++)
		if (s->heap->places[arena->first + i].drawn)
			put_stretch(s, s->heap->places[arena->first + i].stretch);
	end_line(s);
	if (arena->hidden) {
		svg_text(s->out, "small", LANE_AT, s->y + 11, 0, "… and %zu more, %s (--all draws them)", arena->hidden,
			 map_short(arena->hidden_bytes));
		s->y += PITCH;
	}
	s->y += 6;
}

static void put_node(struct sheet *s, size_t first, size_t count)
{
	size_t drawn = heap_drawn(count, s->limits);
	double height = HEAD + (drawn < count ? PITCH : 0) + 4, width = LANE + 2 * PAD, end;
	char node[32];

	for (size_t i = 0; i < drawn; i++)
		height += arena_height(s, &s->heap->arenas[first + i]);
	end = s->y + height;
	svg_rect(s->out, "node", MARGIN, s->y, width, height);
	svg_rect(s->out, "head", MARGIN + 1, s->y + 1, width - 2, HEAD - 4);
	svg_text(s->out, "name", LANE_AT, s->y + 19, 0, "%s", heap_node(s->heap->arenas[first].node, node, sizeof(node)));
	svg_text(s->out, "smallright", LANE_AT + LANE - 4, s->y + 18, 0, "%s mapped",
		 map_short(heap_mapped(s->heap, first, count)));
	s->y += HEAD;
	for (size_t i = 0; i < drawn; i++)
		put_arena(s, &s->heap->arenas[first + i]);
	if (drawn < count)
		svg_text(s->out, "small", LANE_AT, s->y + 11, 0, "and %zu smaller arenas, %s mapped (--all draws them)",
			 count - drawn, map_short(heap_mapped(s->heap, first + drawn, count - drawn)));
	s->y = end + GAP;
}

/* ---- the whole ---- */

static double legend_entry(struct sheet *s, const struct tint *tint, double x, const char *what)
{
	if (tint->level == HEAP_HOLE)
		fprintf(s->out, "<rect class=\"hole\" x=\"%g\" y=\"%g\" width=\"21\" height=\"13\"/>\n", x + .5, s->y + .5);
	else
		fprintf(s->out, "<rect class=\"o%d\" x=\"%g\" y=\"%g\" width=\"22\" height=\"%g\"/>\n", tint->level, x, s->y,
			LINE);
	if (tint->cached)
		fprintf(s->out, "<rect class=\"c\" x=\"%g\" y=\"%g\" width=\"22\" height=\"%g\"/>\n", x,
			s->y + LINE - LINE / QUARTERS * tint->cached, LINE / QUARTERS * tint->cached);
	put_texture(s, tint->pages, x, 22);
	svg_text(s->out, "small", x + 28, s->y + 11, 0, "%s", what);
	return x + 28 + 7.0 * (double)strlen(what) + 18;
}

static void put_legend(struct sheet *s)
{
	const struct tint hole = { HEAP_HOLE, QUARRY_PAGES_BASE, 0 }, cached = { 3, QUARRY_PAGES_BASE, 1 };
	double x = MARGIN;
	char scale[64];

	snprintf(scale, sizeof(scale), "live of each cell of %s: 0", map_short(cells_size(&s->heap->cells)));
	svg_text(s->out, "small", x, s->y + 11, 0, "%s", scale);
	x += 6.6 * (double)strlen(scale);
	for (int level = 0; level < HEAP_LEVELS; level++, x += 22)
		fprintf(s->out, "<rect class=\"o%d\" x=\"%g\" y=\"%g\" width=\"22\" height=\"%g\"/>\n", level, x, s->y, LINE);
	svg_text(s->out, "small", x + 6, s->y + 11, 0, "100 %%");
	x = legend_entry(s, &hole, x + 70, "held by nothing");
	legend_entry(s, &cached, x, "in threads' caches, by its height");
	s->y += 22;
	x = MARGIN;
	for (int i = 0; i < MAP_KINDS; i++) {
		const struct tint kind = { 6, map_kind_order[i], 0 };

		if (s->heap->sum.bytes[CELL_PAGES + kind.pages])
			x = legend_entry(s, &kind, x, svg_fill_name(kind.pages));
	}
	svg_text(s->out, "small", x, s->y + 11, 0, "at the right: how much of a line lives");
	s->y += 30;
}

static void put_all(struct sheet *s, const struct map *map, const char *title)
{
	char summary[256];

	s->y = 40;
	svg_text(s->out, "heading", MARGIN, s->y, 0, "%s", title);
	heap_summary(s->heap, summary, sizeof(summary));
	s->y += 20;
	svg_text(s->out, "plain", MARGIN, s->y, 0, "%s", summary);
	heap_fragments(s->heap, map, summary, sizeof(summary));
	s->y += 17;
	svg_text(s->out, "plain", MARGIN, s->y, 0, "%s", summary);
	s->y += 14;
	if (map->note[0]) {
		svg_text(s->out, "alarm", MARGIN, s->y + 6, 0, "%s", map->note);
		s->y += 20;
	}
	put_legend(s);
	for (size_t i = 0; i < s->heap->arena_count; i += heap_on_node(s->heap, i))
		put_node(s, i, heap_on_node(s->heap, i));
}

/* The height is known when all is drawn, and stands first in the file. */
bool heap_print_svg(const struct map *map, const struct map_look *look, FILE *out)
{
	struct heap_limits limits = { CELLS_MOST, STRETCHES, ARENAS };
	char title[512], *body = NULL;
	struct sheet s = { .limits = &limits };
	struct heap heap;
	size_t size = 0;
	bool done;

	if (look->all)
		limits = (struct heap_limits){ CELLS_MOST, SIZE_MAX, SIZE_MAX };
	done = heap_arrange(&heap, map, &limits) && (s.out = open_memstream(&body, &size)) != NULL;
	if (done) {
		s.heap = &heap;
		map_title(map, title, sizeof(title));
		put_all(&s, map, title);
		done = fclose(s.out) == 0;
	}
	if (done) {
		svg_begin(out, LANE + 2 * PAD + 2 * MARGIN, s.y + MARGIN / 2, title);
		fputs(style, out);
		fwrite(body, 1, size, out);
		svg_end(out);
	}
	free(body);
	heap_free(&heap);
	return done;
}
