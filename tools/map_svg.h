/* SPDX-License-Identifier: MIT */
/* The elements that the SVG picture of a map is made of: text, bars of parts, a legend. Units are pixels. */
#ifndef QUARRY_TOOLS_MAP_SVG_H
#define QUARRY_TOOLS_MAP_SVG_H

#include "tools/map.h"

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
void svg_end(FILE *out);

/* Escaped, and cut to so many columns; 0: whole. */
void svg_text(FILE *out, const char *class, double x, double y, int columns, const char *format, ...)
	__attribute__((format(printf, 6, 7)));
/* The tooltip of the element that is open. */
void svg_title(FILE *out, const char *format, ...) __attribute__((format(printf, 2, 3)));
void svg_rect(FILE *out, const char *class, double x, double y, double width, double height);

/* Parts of a whole that fills the box; unit is what amounts are, for the tooltips. */
void svg_bar(FILE *out, const struct svg_part *parts, int count, uint64_t whole, const char *unit,
	     const struct svg_box *box);
const char *svg_fill_name(int fill);
/* In lines within the box's width; returns where they end. */
double svg_legend(FILE *out, const int *fills, int count, const struct svg_box *box);

#endif
