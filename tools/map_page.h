/* SPDX-License-Identifier: MIT */
/* What the text of a map is put together of: lines of a terminal, with names of any characters, colours and boxes. */
#ifndef QUARRY_TOOLS_MAP_PAGE_H
#define QUARRY_TOOLS_MAP_PAGE_H

#include <stddef.h>
#include <stdio.h>

#include "tools/map.h"

#define PAGE_WIDTH 80

enum corner { TOP_LEFT, TOP_RIGHT, BOTTOM_LEFT, BOTTOM_RIGHT, DASH, SIDE };

/* A line that is being put together: its bytes, and how many columns they take. */
struct page {
	const struct map_look *look;
	FILE *out;
	char line[4096];
	size_t used;
	int width;
	const char *paint; /* of the line, "" for none */
};

void page_raw(struct page *p, const char *bytes, size_t n, int columns);
void page_put(struct page *p, const char *format, ...) __attribute__((format(printf, 2, 3))); /* ASCII */
/* Text as somebody chose it, in so many columns (0: as many as it takes, which are at most limit). */
void page_name(struct page *p, const char *name, int columns, int limit);
void page_corner(struct page *p, enum corner which);
void page_pad(struct page *p, int column);
void page_end_line(struct page *p);
/* Text in lines of the page's width, broken at spaces; each set in by so many columns. */
void page_wrapped(struct page *p, const char *text, int indent, const char *color);

/* A colour, as ECMA-48 has it, where there are any; back to the line's own. */
void page_paint(struct page *p, const char *color);
void page_unpaint(struct page *p);

void page_box_top(struct page *p, const char *left, const char *right);
void page_box_open(struct page *p);
void page_box_close(struct page *p);
void page_box_bottom(struct page *p);

/* How a page is to look, by what was asked for, the locale, the terminal and NO_COLOR. */
struct map_look page_look(bool ascii, bool utf8, bool all);

#endif
