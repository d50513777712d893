/* SPDX-License-Identifier: MIT */
/* Lanes in the SVG picture of a map: under the arenas that their memory is from, by lane, class, group and tag. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <inttypes.h>
#include <stdlib.h>

#include "tools/map_lanes.h"
#include "tools/map_picture.h"
#include "tools/map_svg.h"

#define PARTS_DRAWN 6 /* of each lanes, without --all */
#define BESIDE 1000.0 /* from here on a bar has room beside the figures */

static const struct column {
	const char *name;
	double x; /* where it starts, or ends when it is of numbers */
	bool number;
} columns[] = {
	{ "lanes", 0, false },	   { "", 176, false },	      { "objects", 312, true }, { "live", 392, true },
	{ "held", 472, true },	   { "waste", 540, true },    { "cold", 612, true },	  { "packed", 706, true },
};

struct row {
	const char *name, *what;
	uint64_t objects, live, held, cold, packed;
	bool part; /* of the lanes above it */
};

static void head(struct picture *p)
{
	svg_text(p->out, "section", MARGIN, p->y + 14, 0, "Lanes: objects behind handles");
	p->y += 24;
	for (size_t i = 0; i < sizeof(columns) / sizeof(columns[0]); i++)
		svg_text(p->out, columns[i].number ? "smallright" : "small", MARGIN + columns[i].x, p->y + 12, 0, "%s", columns[i].name);
	p->y += 18;
	svg_rect(p->out, "line", MARGIN, p->y, p->width - 2 * MARGIN, 1);
	p->y += 4;
}

/* What is live of what is held, as long as that is of the most that lanes hold. */
static void draw_bar(struct picture *p, const struct row *row, uint64_t largest)
{
	uint64_t held = row->held > row->live ? row->held : row->live;
	const struct svg_part parts[] = { { SVG_IN_USE, row->live }, { SVG_DIRTY, held - row->live } };
	bool beside = p->width >= BESIDE;
	double x = MARGIN + (beside ? 774 : 0), width = (double)held / (double)largest * (p->width - MARGIN - x);

	if (held > 0)
		svg_bar(p->out, parts, 2, held, "bytes",
			&(struct svg_box){ x, p->y + (beside ? 3 : 19), width < 2 ? 2 : width, beside ? 12 : 8 });
	p->y += beside ? 20 : 32;
}

static void draw_row(struct picture *p, const struct row *row, uint64_t largest)
{
	const uint64_t sizes[] = { row->live, row->held, row->cold, row->packed };
	static const int at[] = { 3, 4, 6, 7 };

	fputs("<g>", p->out);
	svg_title(p->out, "%s: %" PRIu64 " objects, %" PRIu64 " bytes live, %" PRIu64 " held", row->name, row->objects, row->live,
		  row->held);
	svg_text(p->out, row->part ? "small" : "plain", MARGIN + (row->part ? 14 : 0), p->y + 13, (int)(160 / LETTER), "%s", row->name);
	fputs("</g>\n", p->out);
	svg_text(p->out, "small", MARGIN + columns[1].x, p->y + 13, 0, "%s", row->what);
	svg_text(p->out, "right", MARGIN + columns[2].x, p->y + 13, 0, "%" PRIu64, row->objects);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		if (sizes[i] > 0)
			svg_text(p->out, "right", MARGIN + columns[at[i]].x, p->y + 13, 0, "%s", map_short(sizes[i]));
	if (row->held > 0)
		svg_text(p->out, "right", MARGIN + columns[5].x, p->y + 13, 0, "%.0f%%",
			 row->held > row->live ? 100.0 * (double)(row->held - row->live) / (double)row->held : 0.0);
	draw_bar(p, row, largest);
}

/* The longest bar, if it is longer than that: a part's objects may be more than what its lanes hold, for those may be cold. */
static uint64_t largest_of(const struct map_lanes *lanes, uint64_t largest)
{
	const uint64_t of[] = { lanes->live, lanes->held, lanes->fast_live, lanes->fast_held };

	for (size_t i = 0; i < sizeof(of) / sizeof(of[0]); i++)
		largest = of[i] > largest ? of[i] : largest;
	for (size_t i = 0; i < lanes->part_count; i++) {
		const struct map_lanes_part *part = &lanes->parts[i];
		uint64_t length = part->held > part->live ? part->held : part->live;

		largest = length > largest ? length : largest;
	}
	return largest;
}

static int by_live(const void *a, const void *b)
{
	const struct map_lanes_part *x = a, *y = b;

	return (x->live < y->live) - (x->live > y->live);
}

static void draw_lanes(struct picture *p, const struct map_lanes *lanes, uint64_t largest)
{
	size_t drawn = p->look->all || lanes->part_count <= PARTS_DRAWN ? lanes->part_count : PARTS_DRAWN - 1;
	char name[sizeof(lanes->name) + 32];

	snprintf(name, sizeof(name), "%" PRIu64 " %s", lanes->number, lanes->name);
	draw_row(p, &(struct row){ name, "slow", lanes->objects, lanes->live, lanes->held, lanes->cold_bytes,
				   map_add(lanes->cold_compressed, lanes->cold_evicted), false }, largest);
	if (lanes->fast_held > 0)
		draw_row(p, &(struct row){ "", "fast", lanes->fast_objects, lanes->fast_live, lanes->fast_held, 0, 0, false }, largest);
	if (lanes->part_count > 0)
		qsort(lanes->parts, lanes->part_count, sizeof(*lanes->parts), by_live);
	for (size_t i = 0; i < drawn; i++) {
		const struct map_lanes_part *part = &lanes->parts[i];

		draw_row(p, &(struct row){ part->name[0] ? part->name : "(no name)", part->kind, part->objects, part->live, part->held,
					   part->cold_bytes, 0, true }, largest);
	}
	if (drawn < lanes->part_count) {
		svg_text(p->out, "small", MARGIN + 14, p->y + 10, 0, "and %zu smaller classes, groups and tags (--all draws them)",
			 lanes->part_count - drawn);
		p->y += 18;
	}
	p->y += 6;
}

void picture_lanes(struct picture *p)
{
	uint64_t largest = 1;

	if (p->map->lanes_count == 0)
		return;
	for (size_t i = 0; i < p->map->lanes_count; i++)
		largest = largest_of(&p->map->lanes[i], largest);
	head(p);
	for (size_t i = 0; i < p->map->lanes_count; i++)
		draw_lanes(p, &p->map->lanes[i], largest);
	p->y += GAP;
}
