/* SPDX-License-Identifier: MIT */
/* What stands under the nodes in the SVG picture of a map: the arenas as they were asked for, the distances, and what the
 * kernel refused. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <inttypes.h>

#include "tools/map_picture.h"
#include "tools/map_svg.h"

#define ROWS 40 /* arenas in the table without --all */
#define TABLE_WIDE 1000.0 /* from here on a bar has room beside the figures */
#define MATRIX_MOST 64

/* ---- the table of arenas ---- */

static const struct column {
	const char *name;
	double x; /* where it starts, or ends when it is of numbers */
	bool number;
} columns[] = {
	{ "arena", 0, false },	   { "policy", 176, false },  { "nodes", 312, false }, { "pages", 392, false },
	{ "mapped", 486, true },   { "in memory", 560, true }, { "in use", 612, true }, { "cached", 664, true },
	{ "dirty", 706, true },	   { "clean", 750, true },
};

static void table_head(struct picture *p)
{
	svg_text(p->out, "section", MARGIN, p->y + 14, 0, "Arenas: what was asked for, and how it is used");
	p->y += 24;
	for (size_t i = 0; i < sizeof(columns) / sizeof(columns[0]); i++)
		svg_text(p->out, columns[i].number ? "smallright" : "small", MARGIN + columns[i].x, p->y + 12, 0, "%s",
			 columns[i].name);
	p->y += 18;
	svg_rect(p->out, "line", MARGIN, p->y, p->width - 2 * MARGIN, 1);
	p->y += 4;
}

/* As long as the arena is large: behind the figures where there is room for it, or else under them. */
static void table_bar(struct picture *p, const struct map_arena *arena, uint64_t whole)
{
	const struct svg_part parts[] = { { SVG_IN_USE, arena->in_use },
					  { SVG_CACHED, arena->cached },
					  { SVG_DIRTY, arena->free_dirty },
					  { SVG_CLEAN, arena->free_clean } };
	bool beside = p->width >= TABLE_WIDE;
	double x = MARGIN + (beside ? 774 : 0), room = p->width - MARGIN - x;
	double width = whole ? (double)arena->mapped / (double)whole * room : 0;

	if (width < 2)
		width = 2;
	svg_bar(p->out, parts, 4, arena->mapped, "bytes",
		&(struct svg_box){ x, p->y + (beside ? 3 : 19), width, beside ? 12 : 8 });
	p->y += beside ? 22 : 34;
}

static void table_row(struct picture *p, const struct map_arena *arena, uint64_t whole)
{
	const uint64_t numbers[] = { arena->mapped, arena->bytes,      arena->in_use,
				     arena->cached, arena->free_dirty, arena->free_clean };
	char remarks[256];

	fputs("<g>", p->out);
	svg_title(p->out, "%s: %" PRIu64 " bytes mapped, %" PRIu64 " in memory", arena->name, arena->mapped, arena->bytes);
	svg_text(p->out, "plain", MARGIN, p->y + 13, (int)(168 / LETTER), "%s", arena->name);
	fputs("</g>\n", p->out);
	svg_text(p->out, "small", MARGIN + columns[1].x, p->y + 13, 20, "%s", arena->policy ? arena->policy : "?");
	svg_text(p->out, "small", MARGIN + columns[2].x, p->y + 13, 11, "%s", arena->asked ? arena->asked : "?");
	svg_text(p->out, "small", MARGIN + columns[3].x, p->y + 13, 6, "%s", arena->kind ? arena->kind : "?");
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		svg_text(p->out, "right", MARGIN + columns[4 + i].x, p->y + 13, 0, "%s", map_short(numbers[i]));
	table_bar(p, arena, whole);
	map_remarks(p->map, arena, remarks, sizeof(remarks));
	if (remarks[0]) {
		svg_text(p->out, "alarm", MARGIN, p->y + 8, (int)((p->width - 2 * MARGIN) / 7.4), "%s", remarks);
		p->y += 18;
	}
}

static void put_rest(struct picture *p, uint64_t count, const char *what)
{
	if (count == 0)
		return;
	svg_text(p->out, "small", MARGIN, p->y + 10, 0, "and %" PRIu64 " %s", count, what);
	p->y += 18;
}

void picture_arenas(struct picture *p)
{
	const struct map *map = p->map;
	uint64_t whole = 0, empty = 0, left_out = 0;
	size_t rows = 0;

	table_head(p);
	for (size_t i = 0; i < map->arena_count; i++)
		whole = map->arenas[i].mapped > whole ? map->arenas[i].mapped : whole;
	for (size_t i = 0; i < map->arena_count; i++) {
		const struct map_arena *arena = &map->arenas[i];

		if (!arena->mapped && !arena->bytes) {
			empty++;
		} else if (rows < ROWS || p->look->all) {
			table_row(p, arena, whole);
			rows++;
		} else {
			left_out++;
		}
	}
	put_rest(p, left_out, "more (--all draws them)");
	put_rest(p, empty, empty == 1 ? "empty one" : "empty ones");
	put_rest(p, map->arenas_not_listed, "that the dump does not list");
	p->y += GAP;
}

/* ---- distances ---- */

/* From near (light) to far (dark); white text where it is dark. */
static void distance_cell(FILE *out, int distance, int most, const struct svg_box *box)
{
	double far = most > 10 ? (double)(distance - 10) / (double)(most - 10) : 0;
	int red, green, blue;

	if (distance < 0 || far < 0)
		far = 0;
	red = (int)(232 - 178 * far);
	green = (int)(241 - 138 * far);
	blue = (int)(249 - 93 * far);
	fprintf(out, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"#%02x%02x%02x\"/>\n", box->x, box->y,
		box->width - 1, box->height - 1, red, green, blue);
	if (distance >= 0)
		svg_text(out, far > .55 ? "light" : "middle", box->x + box->width / 2, box->y + box->height / 2 + 4, 0, "%d",
			 distance);
	else
		svg_text(out, "middle", box->x + box->width / 2, box->y + box->height / 2 + 4, 0, "?");
}

static size_t told_distances(const struct map *map, int *most)
{
	size_t told = 0;

	*most = 10;
	for (size_t from = 0; from < map->node_count; from++) {
		const int *distance = map->nodes[from].distance;

		told += distance != NULL;
		for (size_t to = 0; distance && to < map->node_count; to++)
			*most = distance[to] > *most ? distance[to] : *most;
	}
	return told;
}

void picture_distances(struct picture *p)
{
	const struct map *map = p->map;
	double left = MARGIN + 70, size = (p->width - MARGIN - left) / (double)(map->node_count ? map->node_count : 1);
	int most;
	size_t told = told_distances(map, &most);

	if (map->node_count < 2 || told == 0)
		return;
	svg_text(p->out, "section", MARGIN, p->y + 14, 0, "Distances, as the kernel tells them (10 is local)");
	p->y += 26;
	if (told > MATRIX_MOST) {
		svg_text(p->out, "small", MARGIN, p->y + 10, 0, "%zu nodes are too many to draw; --json has them", told);
		p->y += 24;
		return;
	}
	size = size > 46 ? 46 : size < 26 ? 26 : size;
	for (size_t to = 0; to < map->node_count; to++)
		if (map->nodes[to].distance)
			svg_text(p->out, "middle", left + ((double)to + .5) * size, p->y + 11, 0, "%d", map->nodes[to].id);
	p->y += 16;
	for (size_t from = 0; from < map->node_count; from++) {
		if (!map->nodes[from].distance)
			continue;
		svg_text(p->out, "smallright", left - 8, p->y + 15, 0, "node %d", map->nodes[from].id);
		for (size_t to = 0; to < map->node_count; to++)
			if (map->nodes[to].distance)
				distance_cell(p->out, map->nodes[from].distance[to], most,
					      &(struct svg_box){ left + (double)to * size, p->y, size, 22 });
		p->y += 22;
	}
	p->y += GAP;
}

void picture_refusals(struct picture *p)
{
	const struct map *map = p->map;

	if (map->refused_count == 0)
		return;
	svg_text(p->out, "section", MARGIN, p->y + 14, 0, "What the kernel refused");
	p->y += 24;
	for (size_t i = 0; i < map->refused_count; i++, p->y += 16)
		svg_text(p->out, "small", MARGIN, p->y + 10, 0, "%s: %" PRIu64 " time%s", map->refused[i].name,
			 map->refused[i].count, map->refused[i].count == 1 ? "" : "s");
	p->y += GAP;
}
