/* SPDX-License-Identifier: MIT */
/* Where things stand in the SVG picture of a map: the nodes as boxes in rows, those with CPUs before those that are
 * only memory; under them what tools/map_tables.c has. */
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

#define BOX_LEAST 300.0
#define WIDTH_LEAST 800.0
#define COLUMNS_MOST 4
#define PAD 12.0
#define HEAD 30.0
#define SHARE 46.0 /* the height of an arena on a node */
#define CROWD 10 /* arenas drawn on a node without --all */

/* ---- a node ---- */

static size_t drawn_of(const struct picture *p, size_t count, size_t crowd)
{
	return p->look->all || count <= crowd ? count : crowd - 1;
}

static size_t count_held(const struct map *map, int node)
{
	size_t count;

	free(map_held_on(map, node, &count));
	return count;
}

static double node_height(const struct picture *p, const struct map_node *node)
{
	size_t count = count_held(p->map, node->id), drawn = drawn_of(p, count, CROWD);
	double height = HEAD + PAD;

	if (node->memory_total)
		height += 38;
	for (int pool = 0; pool < 2; pool++)
		if (node->huge_total[pool] || node->huge_free[pool])
			height += 34;
	if (node->bandwidth || node->latency)
		height += 20;
	if (count > 0)
		height += 8 + SHARE * (double)drawn + (drawn < count ? 18 : 0);
	return height;
}

static void node_head(const struct picture *p, const struct map_node *node, const struct svg_box *box)
{
	const char *class = node->allowed == 0 ? "headclosed" : node->has_cpus == 0 ? "headmemory" : "head";
	char right[192] = "";

	svg_rect(p->out, class, box->x + 1, box->y + 1, box->width - 2, HEAD - 4);
	if (node->id == MAP_NODE_UNTOLD)
		svg_text(p->out, "name", box->x + PAD, box->y + 19, 0, "the kernel would not say where");
	else
		svg_text(p->out, "name", box->x + PAD, box->y + 19, 0, "node %d", node->id);
	if (node->allowed == 0)
		snprintf(right, sizeof(right), "closed by the cpuset");
	else if (node->has_cpus == 0)
		snprintf(right, sizeof(right), "memory only, no CPUs");
	else if (node->cpus[0])
		snprintf(right, sizeof(right), "CPUs %s%s", node->cpus, node->has_memory == 0 ? ", no memory" : "");
	svg_text(p->out, "smallright", box->x + box->width - PAD, box->y + 18, (int)((box->width - 110) / 6.6), "%s", right);
}

static double bar_with_text(const struct picture *p, const struct svg_part *parts, int count, uint64_t whole,
			    const char *unit, const struct svg_box *box, const char *left, const char *right)
{
	svg_text(p->out, "small", box->x, box->y + 10, 0, "%s", left);
	svg_text(p->out, "smallright", box->x + box->width, box->y + 10, 0, "%s", right);
	svg_bar(p->out, parts, count, whole, unit,
		&(struct svg_box){ box->x, box->y + 15, box->width, box->height - 15 });
	return box->y + box->height;
}

static double node_memory(const struct picture *p, const struct map_node *node, double x, double y)
{
	struct svg_part parts[MAP_KINDS + 1];
	uint64_t total = node->memory_total, held = 0;
	uint64_t used = total > node->memory_free ? total - node->memory_free : 0;
	char right[64];

	for (int i = 0; i < MAP_KINDS; i++) {
		parts[i] = (struct svg_part){ map_kind_order[i], node->held_by_kind[map_kind_order[i]] };
		held = map_add(held, parts[i].amount);
	}
	parts[MAP_KINDS] = (struct svg_part){ SVG_OTHER, used > held ? used - held : 0 };
	snprintf(right, sizeof(right), "%s used of %s", bytes_text(used), bytes_text(total));
	return bar_with_text(p, parts, MAP_KINDS + 1, total, "bytes",
			     &(struct svg_box){ x, y, p->box - 2 * PAD, 31 }, "memory", right) + 7;
}

static double node_pool(const struct picture *p, const struct map_node *node, int pool, double x, double y)
{
	uint64_t total = node->huge_total[pool], unused = node->huge_free[pool];
	uint64_t used = total > unused ? total - unused : 0;
	struct svg_part part = { pool ? QUARRY_PAGES_1G : QUARRY_PAGES_2M, used };
	char right[64];

	if (total == 0 && unused == 0)
		return y;
	snprintf(right, sizeof(right), "%" PRIu64 " used of %" PRIu64, used, total);
	return bar_with_text(p, &part, 1, total, "pages", &(struct svg_box){ x, y, p->box - 2 * PAD, 27 },
			     pool ? "pool of 1 GiB pages" : "pool of 2 MiB pages", right) + 7;
}

static double node_attributes(const struct picture *p, const struct map_node *node, double x, double y)
{
	if (!node->bandwidth && !node->latency)
		return y;
	if (node->bandwidth)
		svg_text(p->out, "small", x, y + 10, 0, "%" PRIu64 " MiB/s", node->bandwidth);
	if (node->latency)
		svg_text(p->out, "smallright", x + p->box - 2 * PAD, y + 10, 0, "%" PRIu64 " ns", node->latency);
	return y + 20;
}

/* ---- an arena on a node ---- */

/* "thp 36M, base 12M" */
static void kinds_text(const struct map_share *share, char *text, size_t size)
{
	size_t n = 0;

	text[0] = '\0';
	for (int i = 0; i < MAP_KINDS; i++) {
		int kind = map_kind_order[i];

		if (share->by_kind[kind] && n < size)
			n += (size_t)snprintf(text + n, size - n, "%s%s %s", n ? ", " : "", map_kind_name(kind),
					      map_short(share->by_kind[kind]));
	}
}

static void draw_share(const struct picture *p, const struct map_held *held, double x, double y)
{
	const struct map_share *share = held->share;
	double home = share->bytes ? 1 - (double)share->strayed / (double)share->bytes : 1, width = p->box - 2 * PAD;
	struct svg_part parts[MAP_KINDS + 1];
	char kinds[128];

	fputs("<g>", p->out);
	svg_title(p->out, "%s: %" PRIu64 " bytes, %" PRIu64 " strayed", held->arena->name, share->bytes, share->strayed);
	svg_text(p->out, "plain", x, y + 11, (int)((width - 50) / LETTER), "%s", held->arena->name);
	svg_text(p->out, "right", x + width, y + 11, 0, "%s", map_short(share->bytes));
	fputs("</g>\n", p->out);
	/* What strayed is a part of all kinds alike, as far as is known. */
	for (int i = 0; i < MAP_KINDS; i++)
		parts[i] = (struct svg_part){ map_kind_order[i],
					      (uint64_t)((double)share->by_kind[map_kind_order[i]] * home) };
	parts[MAP_KINDS] = (struct svg_part){ SVG_STRAYED, share->strayed };
	svg_bar(p->out, parts, MAP_KINDS + 1, p->map->largest, "bytes", &(struct svg_box){ x, y + 15, width, 11 });
	kinds_text(share, kinds, sizeof(kinds));
	svg_text(p->out, "small", x, y + 37, 0, "%s", kinds);
	if (share->strayed)
		svg_text(p->out, "alarm right", x + width, y + 37, 0, "%s strayed", map_short(share->strayed));
}

static void node_shares(const struct picture *p, const struct map_node *node, double x, double y)
{
	size_t count, drawn;
	struct map_held *held = map_held_on(p->map, node->id, &count);
	uint64_t rest = 0;

	drawn = drawn_of(p, count, CROWD);
	if (count > 0)
		svg_rect(p->out, "line", x, y, p->box - 2 * PAD, 1);
	y += 6;
	for (size_t i = 0; i < drawn; i++, y += SHARE)
		draw_share(p, &held[i], x, y);
	for (size_t i = drawn; i < count; i++)
		rest = map_add(rest, held[i].share->bytes);
	if (drawn < count)
		svg_text(p->out, "small", x, y + 12, 0, "and %zu smaller ones: %s", count - drawn, map_short(rest));
	free(held);
}

static void draw_node(const struct picture *p, const struct map_node *node, double x, double y, double height)
{
	struct svg_box box = { x, y, p->box, height };
	double at = y + HEAD + 4;

	fprintf(p->out, "<g class=\"%s\">\n", node->allowed == 0 ? "faded" : "open");
	svg_rect(p->out, node->allowed == 0 ? "closed" : "node", x, y, box.width, height);
	node_head(p, node, &box);
	if (node->memory_total)
		at = node_memory(p, node, x + PAD, at);
	for (int pool = 0; pool < 2; pool++)
		at = node_pool(p, node, pool, x + PAD, at);
	at = node_attributes(p, node, x + PAD, at);
	node_shares(p, node, x + PAD, at);
	fputs("</g>\n", p->out);
}

/* The nodes of one sort (those without CPUs, and what is not known, after the others), in rows of equal height. */
static void draw_nodes(struct picture *p, bool memory_only)
{
	const struct map *map = p->map;
	size_t next = 0;

	while (next < map->node_count) {
		const struct map_node *row[COLUMNS_MOST];
		double height = 0;
		size_t n = 0;

		for (; next < map->node_count && n < p->columns; next++) {
			const struct map_node *node = &map->nodes[next];
			double own;

			if ((node->has_cpus != 1) != memory_only)
				continue;
			own = node_height(p, node);
			height = own > height ? own : height;
			row[n++] = node;
		}
		for (size_t i = 0; i < n; i++)
			draw_node(p, row[i], MARGIN + (double)i * (p->box + GAP), p->y, height);
		if (n > 0)
			p->y += height + GAP;
	}
}

/* ---- the whole ---- */

static void draw_legend(struct picture *p)
{
	int fills[SVG_FILLS], count = 0;
	bool untold = false, one_g = false;
	struct svg_box box = { MARGIN, p->y, p->width - 2 * MARGIN, 0 };

	for (size_t i = 0; i < p->map->node_count; i++) {
		untold = untold || p->map->nodes[i].held_by_kind[QUARRY_PAGES_AUTO];
		one_g = one_g || p->map->nodes[i].huge_total[1] || p->map->nodes[i].held_by_kind[QUARRY_PAGES_1G];
	}
	if (p->map->of != MAP_MACHINE) {
		fills[count++] = QUARRY_PAGES_BASE;
		fills[count++] = QUARRY_PAGES_THP;
	}
	fills[count++] = QUARRY_PAGES_2M;
	if (one_g)
		fills[count++] = QUARRY_PAGES_1G;
	if (untold)
		fills[count++] = QUARRY_PAGES_AUTO;
	if (p->map->strayed)
		fills[count++] = SVG_STRAYED;
	fills[count++] = SVG_OTHER;
	fills[count++] = SVG_FREE;
	if (p->map->of == MAP_DUMP)
		for (int fill = SVG_IN_USE; fill <= SVG_CLEAN; fill++)
			fills[count++] = fill;
	p->y = svg_legend(p->out, fills, count, &box);
	if (p->map->largest) {
		svg_text(p->out, "small", MARGIN, p->y + 10, 0, "An arena's bar on a node is full at %s.",
			 bytes_text(p->map->largest));
		p->y += 18;
	}
	p->y += 8;
}

static void choose_width(struct picture *p)
{
	size_t with = 0, without = 0, most;

	for (size_t i = 0; i < p->map->node_count; i++)
		*(p->map->nodes[i].has_cpus == 1 ? &with : &without) += 1;
	most = with > without ? with : without;
	p->columns = most <= COLUMNS_MOST ? most : most == 5 || most == 6 || most == 9 ? 3 : COLUMNS_MOST;
	if (p->columns == 0)
		p->columns = 1;
	p->width = 2 * MARGIN + (double)p->columns * BOX_LEAST + (double)(p->columns - 1) * GAP;
	if (p->width < WIDTH_LEAST)
		p->width = WIDTH_LEAST;
	p->box = (p->width - 2 * MARGIN - (double)(p->columns - 1) * GAP) / (double)p->columns;
}

static void draw_all(struct picture *p, const char *title)
{
	char summary[256];

	p->y = 40;
	svg_text(p->out, "heading", MARGIN, p->y, (int)((p->width - 2 * MARGIN) / 12.2), "%s", title);
	p->y += 20;
	map_summary(p->map, summary, sizeof(summary));
	svg_text(p->out, "plain", MARGIN, p->y, 0, "%s", summary);
	p->y += 14;
	if (p->map->note[0]) {
		svg_text(p->out, "small", MARGIN, p->y + 6, (int)((p->width - 2 * MARGIN) / 6.8), "%s", p->map->note);
		p->y += 20;
	}
	draw_legend(p);
	draw_nodes(p, false);
	draw_nodes(p, true);
	p->y += 4;
	if (p->map->of == MAP_DUMP)
		picture_arenas(p);
	picture_lanes(p);
	picture_distances(p);
	picture_refusals(p);
}

/* The height is known when all is drawn, and stands first in the file. */
bool map_print_svg(const struct map *map, const struct map_look *look, FILE *out)
{
	struct picture p = { .map = map, .look = look };
	char title[512], *body = NULL;
	size_t size = 0;

	if (map->of == MAP_VIEW)
		return heap_print_svg(map, look, out);
	p.out = open_memstream(&body, &size);
	if (!p.out)
		return false;
	map_title(map, title, sizeof(title));
	choose_width(&p);
	draw_all(&p, title);
	if (fclose(p.out) != 0) {
		free(body);
		return false;
	}
	svg_begin(out, p.width, p.y + MARGIN / 2, title);
	fwrite(body, 1, size, out);
	svg_end(out);
	free(body);
	return true;
}
