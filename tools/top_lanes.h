/* SPDX-License-Identifier: MIT */
/* Lanes in `quarry top`: a line for the slow lane and one for the fast, then the largest of their classes and groups. */
#ifndef QUARRY_TOOLS_TOP_LANES_H
#define QUARRY_TOOLS_TOP_LANES_H

#include <stdio.h>

#include "tools/published.h"

#define TOP_LANES_MAX 128
#define TOP_PARTS_MAX 4096
#define TOP_PARTS_SHOWN 4 /* of each lanes, as text */

/* In a second; less than 0: not known. */
struct top_lanes_rates {
	double allocated, moved, refaults;
};

struct top_lanes_row {
	quarry_lanes_figures figures;
	struct top_lanes_rates rates;
};

struct top_lanes {
	struct top_lanes_row *rows;
	quarry_lanes_part *parts;
	size_t count, part_count;
	uint32_t left_out, parts_left_out;
};

/* Out of what was read; seconds: since `before` was (0: it is the same). False without memory. */
bool top_lanes_take(struct top_lanes *lanes, const struct published *p, const struct top_lanes *before, double seconds);
void top_lanes_free(struct top_lanes *lanes);

/* Lines of 80 columns, none of which says what the process wrote but as ASCII. */
void top_lanes_text(const struct top_lanes *lanes, void (*put)(void *ctx, const char *color, const char *text), void *ctx);
void top_lanes_json(const struct top_lanes *lanes, FILE *out);

#endif
