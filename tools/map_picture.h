/* SPDX-License-Identifier: MIT */
/* The SVG picture of a map while it is drawn: tools/map_picture.c (the nodes, and the whole), map_tables.c (what stands
 * under them). */
#ifndef QUARRY_TOOLS_MAP_PICTURE_H
#define QUARRY_TOOLS_MAP_PICTURE_H

#include <stddef.h>
#include <stdio.h>

#include "tools/map.h"

#define MARGIN 24.0
#define GAP 16.0
#define LETTER 7.3 /* how wide one of 12 pixels is taken to be */

struct picture {
	const struct map *map;
	const struct map_look *look;
	FILE *out;
	double width, y;
	double box; /* the width of a node's */
	size_t columns;
};

/* ---- tools/map_tables.c, map_lanes_svg.c: each goes on at p->y, and leaves it where it ended ---- */

void picture_arenas(struct picture *p);
void picture_lanes(struct picture *p);
void picture_distances(struct picture *p);
void picture_refusals(struct picture *p);

#endif
