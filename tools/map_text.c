/* SPDX-License-Identifier: MIT */
/* A map for a terminal of 80 columns. Each kind of page has a letter or a texture of its own, and a colour besides, so
 * that nothing is told by colour alone. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tools/map.h"

#include <stdlib.h>
#include <string.h>

#include "include/quarry/quarry.h"
#include "tools/map_heap.h"
#include "tools/map_lanes.h"
#include "tools/map_page.h"
#include "tools/utf8.h"

#define NAME_WIDTH 18
#define ARENA_BAR 22
#define MEMORY_BAR 40
#define CROWD 12 /* arenas drawn on a node without --all */

/* What a cell of a bar is: a kind of page, or one of these. */
enum { GLYPH_STRAYED = MAP_KINDS, GLYPH_OTHER, GLYPH_FREE, GLYPHS };

static const struct {
	const char *utf8, *ascii, *color;
} glyphs[GLYPHS] = {
	[QUARRY_PAGES_AUTO] = { "?", "?", "38;5;250" },	  [QUARRY_PAGES_BASE] = { "░", "b", "38;5;39" },
	[QUARRY_PAGES_THP] = { "▒", "t", "38;5;35" },	  [QUARRY_PAGES_2M] = { "▓", "2", "38;5;214" },
	[QUARRY_PAGES_1G] = { "█", "1", "38;5;170" },	  [GLYPH_STRAYED] = { "!", "!", "1;38;5;196" },
	[GLYPH_OTHER] = { "━", "-", "38;5;246" },	  [GLYPH_FREE] = { "·", ".", "38;5;240" },
};

static void put_cells(struct page *p, int glyph, int count)
{
	const char *s = p->look->ascii ? glyphs[glyph].ascii : glyphs[glyph].utf8;

	if (count <= 0)
		return;
	page_paint(p, glyphs[glyph].color);
	for (; count > 0; count--)
		page_raw(p, s, strlen(s), 1);
	page_unpaint(p);
}

/* How many cells a part takes of a bar that stands for whole: at least one when there is something. */
static int cells_of(uint64_t part, uint64_t whole, int cells)
{
	int n = whole ? (int)((double)part / (double)whole * cells + 0.5) : 0;

	return part > 0 && n < 1 ? 1 : n > cells ? cells : n;
}

/* Parts of a bar of at most cells. What rounding up has made too much is taken from the longest. */
static int put_parts(struct page *p, const int *glyph, const uint64_t *parts, int count, uint64_t whole, int cells)
{
	int n[GLYPHS], sum = 0;

	for (int i = 0; i < count; i++)
		sum += n[i] = cells_of(parts[i], whole, cells);
	while (sum > cells) {
		int longest = 0;

		for (int i = 1; i < count; i++)
			longest = n[i] > n[longest] ? i : longest;
		n[longest]--;
		sum--;
	}
	for (int i = 0; i < count; i++)
		put_cells(p, glyph[i], n[i]);
	return sum;
}

void map_put_use(struct page *p, uint64_t live, uint64_t held, uint64_t whole, int cells)
{
	static const int glyph[] = { GLYPH_OTHER, GLYPH_FREE };
	const uint64_t parts[] = { live, held > live ? held - live : 0 };

	(void)put_parts(p, glyph, parts, 2, whole, cells);
}

/* ---- a node ---- */

static void node_memory(struct page *p, const struct map_node *node)
{
	int glyph[MAP_KINDS + 2];
	uint64_t parts[MAP_KINDS + 2], held = 0, used, total = node->memory_total;

	used = total > node->memory_free ? total - node->memory_free : 0;
	for (int i = 0; i < MAP_KINDS; i++) {
		glyph[i] = map_kind_order[i];
		parts[i] = node->held_by_kind[map_kind_order[i]];
		held = map_add(held, parts[i]);
	}
	glyph[MAP_KINDS] = GLYPH_OTHER;
	parts[MAP_KINDS] = used > held ? used - held : 0;
	glyph[MAP_KINDS + 1] = GLYPH_FREE;
	parts[MAP_KINDS + 1] = total > used ? total - used : 0;
	page_box_open(p);
	page_put(p, "%-9s ", "memory");
	put_parts(p, glyph, parts, MAP_KINDS + 2, total, MEMORY_BAR);
	page_pad(p, 2 + 10 + MEMORY_BAR + 1);
	page_put(p, "%5s used of %s", map_short(used), map_short(total));
	page_box_close(p);
}

static void node_pool(struct page *p, const struct map_node *node, int pool)
{
	const int glyph[] = { pool ? QUARRY_PAGES_1G : QUARRY_PAGES_2M, GLYPH_FREE };
	uint64_t total = node->huge_total[pool], unused = node->huge_free[pool];
	uint64_t parts[] = { total > unused ? total - unused : 0, unused };

	if (total == 0 && unused == 0)
		return;
	page_box_open(p);
	page_put(p, "%-9s ", pool ? "1g pool" : "2m pool");
	put_parts(p, glyph, parts, 2, total, MEMORY_BAR);
	page_pad(p, 2 + 10 + MEMORY_BAR + 1);
	page_put(p, "%5llu used of %llu", (unsigned long long)parts[0], (unsigned long long)total);
	page_box_close(p);
}

static void node_attributes(struct page *p, const struct map_node *node)
{
	if (!node->bandwidth && !node->latency)
		return;
	page_box_open(p);
	page_put(p, "%-9s ", "reach");
	if (node->bandwidth)
		page_put(p, "%llu MiB/s%s", (unsigned long long)node->bandwidth, node->latency ? ", " : "");
	if (node->latency)
		page_put(p, "%llu ns", (unsigned long long)node->latency);
	page_box_close(p);
}

/* "thp 36M base 12M !4.0M": what does not fit behind the bar stands on a line of its own. */
static void share_details(struct page *p, const struct map_share *share)
{
	char text[160] = "";
	size_t n = 0;

	for (int i = 0; i < MAP_KINDS; i++) {
		int kind = map_kind_order[i];

		if (share->by_kind[kind])
			n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%s %s", n ? " " : "", map_kind_name(kind),
					      map_short(share->by_kind[kind]));
	}
	if (p->width + 1 + (int)n + (share->strayed ? 7 : 0) > PAGE_WIDTH - 2) {
		page_box_close(p);
		page_box_open(p);
		page_pad(p, 2 + NAME_WIDTH + 1);
	}
	page_put(p, "%s", text);
	if (share->strayed) {
		page_paint(p, glyphs[GLYPH_STRAYED].color);
		page_put(p, " !%s", map_short(share->strayed));
		page_unpaint(p);
	}
}

static void node_share(struct page *p, const struct map *map, const struct map_held *held)
{
	int glyph[MAP_KINDS + 1];
	uint64_t parts[MAP_KINDS + 1], bytes = held->share->bytes, home = bytes - held->share->strayed;

	for (int i = 0; i < MAP_KINDS; i++) {
		glyph[i] = map_kind_order[i];
		/* What strayed is a part of all kinds alike, as far as is known. */
		parts[i] = (uint64_t)((double)held->share->by_kind[map_kind_order[i]] * (double)home / (double)bytes);
	}
	glyph[MAP_KINDS] = GLYPH_STRAYED;
	parts[MAP_KINDS] = held->share->strayed;
	page_box_open(p);
	page_name(p, held->arena->name, NAME_WIDTH, 0);
	page_put(p, " ");
	put_parts(p, glyph, parts, MAP_KINDS + 1, map->largest, ARENA_BAR);
	page_pad(p, 2 + NAME_WIDTH + 1 + ARENA_BAR);
	page_put(p, "%6s  ", map_short(bytes));
	share_details(p, held->share);
	page_box_close(p);
}

static void node_shares(struct page *p, const struct map *map, const struct map_node *node)
{
	size_t count, drawn;
	struct map_held *held = map_held_on(map, node->id, &count);
	uint64_t rest = 0;

	drawn = p->look->all || count <= CROWD ? count : CROWD - 1;
	for (size_t i = 0; i < drawn; i++)
		node_share(p, map, &held[i]);
	for (size_t i = drawn; i < count; i++)
		rest = map_add(rest, held[i].share->bytes);
	if (drawn < count) {
		page_box_open(p);
		page_put(p, "and %zu smaller ones: %s (--all draws them)", count - drawn, map_short(rest));
		page_box_close(p);
	}
	free(held);
}

static void draw_node(struct page *p, const struct map *map, const struct map_node *node)
{
	char left[64], right[96];

	p->paint = node->allowed == 0 ? "2" : "";
	if (node->id == MAP_NODE_UNTOLD)
		snprintf(left, sizeof(left), "not told where");
	else
		snprintf(left, sizeof(left), "node %d", node->id);
	if (node->has_cpus == 0)
		snprintf(right, sizeof(right), "no CPUs%s", node->allowed == 0 ? ", closed by the cpuset" : "");
	else
		snprintf(right, sizeof(right), "%s%.40s%s%s", node->cpus[0] ? "CPUs " : "", utf8_shown(node->cpus),
			 node->has_memory == 0 ? ", no memory" : "", node->allowed == 0 ? ", closed by the cpuset" : "");
	page_paint(p, p->paint);
	page_box_top(p, left, right);
	if (node->memory_total)
		node_memory(p, node);
	node_pool(p, node, 0);
	node_pool(p, node, 1);
	node_attributes(p, node);
	node_shares(p, map, node);
	page_box_bottom(p);
	p->paint = "";
}

/* ---- what stands under the nodes ---- */

/* In ten letters. */
static const char *policy_word(const char *policy)
{
	return !policy					   ? "?" :
	       strcmp(policy, "preferred-many") == 0	   ? "pref.-many" :
	       strcmp(policy, "weighted-interleave") == 0 ? "weighted" :
							     policy;
}

static void draw_arena(struct page *p, const struct map *map, const struct map_arena *arena)
{
	const uint64_t columns[] = { arena->mapped, arena->bytes, arena->in_use, arena->cached, arena->free_dirty,
				     arena->free_clean };
	char remarks[256], marked[sizeof(remarks) + 2];

	page_name(p, arena->name, NAME_WIDTH, 0);
	page_put(p, " %-10s ", policy_word(arena->policy));
	page_name(p, arena->asked ? arena->asked : "?", 9, 0);
	page_put(p, " %-4s", arena->kind ? arena->kind : "?");
	for (size_t i = 0; i < sizeof(columns) / sizeof(columns[0]); i++)
		page_put(p, "%6s", map_short(columns[i]));
	page_end_line(p);
	map_remarks(map, arena, remarks, sizeof(remarks));
	if (remarks[0]) {
		snprintf(marked, sizeof(marked), "! %s", remarks);
		page_wrapped(p, marked, 2, glyphs[GLYPH_STRAYED].color);
	}
}

static void put_rest(struct page *p, uint64_t count, const char *what)
{
	if (count == 0)
		return;
	page_put(p, "and %llu %s", (unsigned long long)count, what);
	page_end_line(p);
}

static void draw_arenas(struct page *p, const struct map *map)
{
	size_t shown = 0, left_out = 0, empty = 0;

	page_end_line(p);
	page_put(p, "%-*s %-10s %-9s %-4s%6s%6s%6s%6s%6s%6s", NAME_WIDTH, "arena", "policy", "nodes", "page", "mapd",
	    "resid", "used", "cache", "dirty", "clean");
	page_end_line(p);
	for (size_t i = 0; i < map->arena_count; i++) {
		const struct map_arena *arena = &map->arenas[i];

		if (!arena->mapped && !arena->bytes) {
			empty++;
		} else if (shown < CROWD * 4 || p->look->all) {
			draw_arena(p, map, arena);
			shown++;
		} else {
			left_out++;
		}
	}
	put_rest(p, left_out, "more (--all draws them)");
	put_rest(p, empty, empty == 1 ? "empty one" : "empty ones");
	put_rest(p, map->arenas_not_listed, "that the dump does not list");
}

static void draw_distances(struct page *p, const struct map *map)
{
	const size_t at_once = (PAGE_WIDTH - 8) / 5;

	for (size_t first = 0; map->node_count > 1 && first < map->node_count; first += at_once) {
		size_t last = first + at_once < map->node_count ? first + at_once : map->node_count;
		bool any = false;

		for (size_t i = 0; i < map->node_count; i++)
			any = any || map->nodes[i].distance;
		if (!any)
			return;
		page_end_line(p);
		page_put(p, "%-8s", "distance");
		for (size_t to = first; to < last; to++)
			if (map->nodes[to].id >= 0)
				page_put(p, "%5d", map->nodes[to].id);
		page_end_line(p);
		for (size_t from = 0; from < map->node_count; from++) {
			const int *distance = map->nodes[from].distance;

			if (!distance)
				continue;
			page_put(p, "%8d", map->nodes[from].id);
			for (size_t to = first; to < last; to++) {
				if (map->nodes[to].id < 0)
					continue;
				if (distance[to] >= 0 && distance[to] < 10000)
					page_put(p, "%5d", distance[to]);
				else
					page_put(p, "%5s", "?");
			}
			page_end_line(p);
		}
	}
}

static void draw_refusals(struct page *p, const struct map *map)
{
	if (map->refused_count == 0)
		return;
	page_end_line(p);
	page_put(p, "refused by the kernel, times:");
	for (size_t i = 0; i < map->refused_count; i++) {
		char text[64];

		snprintf(text, sizeof(text), " %.24s %llu%s", utf8_shown(map->refused[i].name),
			 (unsigned long long)map->refused[i].count, i + 1 < map->refused_count ? "," : "");
		if (p->width + (int)strlen(text) > PAGE_WIDTH) {
			page_end_line(p);
			page_put(p, "   ");
		}
		page_name(p, text, 0, PAGE_WIDTH);
	}
	page_end_line(p);
}

static void legend_of(struct page *p, int glyph, const char *what)
{
	if (p->width > 0)
		page_put(p, "  ");
	put_cells(p, glyph, 2);
	page_put(p, " %s", what);
}

static void draw_legend(struct page *p, const struct map *map)
{
	bool untold = false;

	for (size_t i = 0; i < map->node_count; i++)
		untold = untold || map->nodes[i].held_by_kind[QUARRY_PAGES_AUTO];
	page_end_line(p);
	if (map->of != MAP_MACHINE) {
		legend_of(p, QUARRY_PAGES_BASE, "base pages");
		legend_of(p, QUARRY_PAGES_THP, "thp");
		legend_of(p, QUARRY_PAGES_2M, "2m hugetlb");
		legend_of(p, QUARRY_PAGES_1G, "1g hugetlb");
		if (untold)
			legend_of(p, QUARRY_PAGES_AUTO, "base or thp");
		if (map->strayed)
			legend_of(p, GLYPH_STRAYED, "strayed");
		page_end_line(p);
		legend_of(p, GLYPH_OTHER, "others' memory");
		legend_of(p, GLYPH_FREE, "free");
		if (map->largest)
			page_put(p, "  an arena's bar: %s a cell", map_short(map->largest / ARENA_BAR));
		page_end_line(p);
		return;
	}
	legend_of(p, GLYPH_OTHER, "in use");
	legend_of(p, GLYPH_FREE, "free");
	legend_of(p, QUARRY_PAGES_2M, "2 MiB pages in use");
	legend_of(p, QUARRY_PAGES_1G, "1 GiB pages in use");
	page_end_line(p);
}

bool map_print_text(const struct map *map, const struct map_look *look, FILE *out)
{
	struct page p = { .look = look, .out = out, .paint = "" };
	char title[512], summary[256], both[sizeof(title) + sizeof(summary) + 2];

	if (map->of == MAP_VIEW)
		return heap_print_text(map, look, out);
	map_title(map, title, sizeof(title));
	map_summary(map, summary, sizeof(summary));
	snprintf(both, sizeof(both), "%s: %s", title, summary);
	page_wrapped(&p, both, 0, "1");
	page_wrapped(&p, map->note, 0, "");
	for (size_t i = 0; i < map->node_count; i++)
		draw_node(&p, map, &map->nodes[i]);
	if (map->of == MAP_DUMP)
		draw_arenas(&p, map);
	map_draw_lanes(&p, map);
	draw_distances(&p, map);
	draw_refusals(&p, map);
	draw_legend(&p, map);
	return true;
}
