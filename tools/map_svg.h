/* SPDX-License-Identifier: MIT */
/* The elements that the SVG picture of a map is made of, beside those of all pictures: bars of parts, a legend. */
#ifndef QUARRY_TOOLS_MAP_SVG_H
#define QUARRY_TOOLS_MAP_SVG_H

#include "tools/map.h"
#include "tools/svg.h"

/* What a part of a bar is: a kind of page (enum quarry_page_kind), or one of these. */
enum {
	SVG_STRAYED = MAP_KINDS,
	SVG_OTHER,
	SVG_FREE,
	SVG_IN_USE,
	SVG_CACHED,
	SVG_DIRTY,
	SVG_CLEAN,
	SVG_FILLS
};

struct svg_part {
	int fill;
	uint64_t amount;
};

struct svg_box {
	double x, y, width, height;
};

void svg_begin(FILE *out, double width, double height, const char *title);

/* Parts of a whole that fills the box; unit is what amounts are, for the tooltips. */
void svg_bar(FILE *out, const struct svg_part *parts, int count, uint64_t whole, const char *unit,
	     const struct svg_box *box);
const char *svg_fill_name(int fill);
/* In lines within the box's width; returns where they end. */
double svg_legend(FILE *out, const int *fills, int count, const struct svg_box *box);

#endif
