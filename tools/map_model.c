/* SPDX-License-Identifier: MIT */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tools/map.h"

#include <stdlib.h>
#include <string.h>

#include "include/quarry/quarry.h"
#include "tools/map_lanes.h"
#include "tools/utf8.h"

const int map_kind_order[MAP_KINDS] = { QUARRY_PAGES_1G, QUARRY_PAGES_2M, QUARRY_PAGES_THP, QUARRY_PAGES_BASE,
					QUARRY_PAGES_AUTO };

const char *map_kind_name(int kind)
{
	static const char *const names[MAP_KINDS] = { "untold", "base", "thp", "2m", "1g" };

	return kind >= 0 && kind < MAP_KINDS ? names[kind] : "?";
}

uint64_t map_add(uint64_t a, uint64_t b)
{
	uint64_t sum;

	return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}

/* Room for one more element behind count; doubled at powers of two. */
static void *grow(void *array, size_t count, size_t size)
{
	if (count & (count - 1))
		return array;
	return reallocarray(array, count ? 2 * count : 1, size);
}

struct map_node *map_add_node(struct map *map, int id)
{
	struct map_node *nodes;

	if (map->node_count >= MAP_NODES_MAX)
		return NULL;
	nodes = grow(map->nodes, map->node_count, sizeof(*nodes));
	if (!nodes)
		return NULL;
	map->nodes = nodes;
	nodes += map->node_count++;
	memset(nodes, 0, sizeof(*nodes));
	nodes->id = id;
	nodes->has_cpus = nodes->has_memory = nodes->allowed = -1;
	return nodes;
}

struct map_arena *map_add_arena(struct map *map)
{
	struct map_arena *arenas;

	if (map->arena_count >= MAP_ARENAS_MAX)
		return NULL;
	arenas = grow(map->arenas, map->arena_count, sizeof(*arenas));
	if (!arenas)
		return NULL;
	map->arenas = arenas;
	arenas += map->arena_count++;
	memset(arenas, 0, sizeof(*arenas));
	return arenas;
}

struct map_share *map_share_on(struct map_arena *arena, int node)
{
	struct map_share *shares;

	for (size_t i = 0; i < arena->share_count; i++)
		if (arena->shares[i].node == node)
			return &arena->shares[i];
	if (arena->share_count >= MAP_NODES_MAX)
		return NULL;
	shares = grow(arena->shares, arena->share_count, sizeof(*shares));
	if (!shares)
		return NULL;
	arena->shares = shares;
	shares += arena->share_count++;
	memset(shares, 0, sizeof(*shares));
	shares->node = node;
	return shares;
}

struct map_node *map_node(const struct map *map, int id)
{
	for (size_t i = 0; i < map->node_count; i++)
		if (map->nodes[i].id == id)
			return &map->nodes[i];
	return NULL;
}

size_t map_node_index(const struct map *map, const struct map_node *node)
{
	return (size_t)(node - map->nodes);
}

char *map_list(const int *ids, size_t count)
{
	char *list = NULL;
	size_t size;
	FILE *out = open_memstream(&list, &size);

	if (!out)
		return NULL;
	for (size_t i = 0; i < count;) {
		size_t last = i;

		while (last + 1 < count && ids[last + 1] == ids[last] + 1)
			last++;
		fprintf(out, i ? ",%d" : "%d", ids[i]);
		if (last > i)
			fprintf(out, "%c%d", last > i + 1 ? '-' : ',', ids[last]);
		i = last + 1;
	}
	return fclose(out) == 0 ? list : NULL;
}

int map_cpu_count(const char *list)
{
	int count = 0;

	while (*list) {
		char *end;
		long first = strtol(list, &end, 10), last = first;

		if (end == list)
			break;
		if (*end == '-')
			last = strtol(end + 1, &end, 10);
		if (first < 0 || last < first || last > 1 << 20)
			break;
		count += (int)(last - first + 1);
		list = *end == ',' ? end + 1 : end + strlen(end);
	}
	return count;
}

/* ---- finishing ---- */

/* Where nobody knows stands last. */
static bool after(const struct map_node *a, const struct map_node *b)
{
	return (unsigned)a->id > (unsigned)b->id;
}

/* Distances are told in the order in which nodes are: they are put in the new order with them. */
static bool sort_nodes(struct map *map)
{
	size_t n = map->node_count;
	size_t *from = calloc(n + 1, sizeof(*from));
	struct map_node *sorted = calloc(n + 1, sizeof(*sorted));

	if (!from || !sorted) {
		free(from);
		free(sorted);
		return false;
	}
	for (size_t i = 0; i < n; i++) {
		size_t at = i;

		for (; at > 0 && after(&map->nodes[from[at - 1]], &map->nodes[i]); at--)
			from[at] = from[at - 1];
		from[at] = i;
	}
	for (size_t i = 0; i < n; i++) {
		int *distance = map->nodes[from[i]].distance, *moved = distance ? calloc(n + 1, sizeof(int)) : NULL;

		sorted[i] = map->nodes[from[i]];
		for (size_t to = 0; moved && to < n; to++)
			moved[to] = distance[from[to]];
		sorted[i].distance = moved;
	}
	for (size_t i = 0; i < n; i++)
		free(map->nodes[i].distance);
	if (n > 0)
		memcpy(map->nodes, sorted, n * sizeof(*sorted));
	free(from);
	free(sorted);
	return true;
}

/* Shares may be on nodes that nobody told of: those get a node of which nothing is known, and no distance. */
static bool add_missing_nodes(struct map *map)
{
	size_t told = map->node_count;

	for (size_t a = 0; a < map->arena_count; a++)
		for (size_t s = 0; s < map->arenas[a].share_count; s++) {
			int id = map->arenas[a].shares[s].node;

			if (!map_node(map, id) && !map_add_node(map, id))
				return false;
		}
	for (size_t i = 0; i < told && map->node_count > told; i++) {
		int *distance = map->nodes[i].distance;

		if (!distance)
			continue;
		distance = reallocarray(distance, map->node_count, sizeof(int));
		if (!distance)
			return false;
		for (size_t to = told; to < map->node_count; to++)
			distance[to] = -1;
		map->nodes[i].distance = distance;
	}
	return true;
}

static void sum_up(struct map *map)
{
	for (size_t a = 0; a < map->arena_count; a++) {
		struct map_arena *arena = &map->arenas[a];

		for (size_t s = 0; s < arena->share_count; s++) {
			const struct map_share *share = &arena->shares[s];
			struct map_node *node = map_node(map, share->node);

			arena->bytes = map_add(arena->bytes, share->bytes);
			arena->strayed = map_add(arena->strayed, share->strayed);
			node->held = map_add(node->held, share->bytes);
			for (int kind = 0; kind < MAP_KINDS; kind++)
				node->held_by_kind[kind] = map_add(node->held_by_kind[kind], share->by_kind[kind]);
			if (share->bytes > map->largest)
				map->largest = share->bytes;
		}
		map->bytes = map_add(map->bytes, arena->bytes);
		map->strayed = map_add(map->strayed, arena->strayed);
	}
}

bool map_finish(struct map *map)
{
	if (!add_missing_nodes(map) || !sort_nodes(map))
		return false;
	sum_up(map);
	return true;
}

void map_free(struct map *map)
{
	for (size_t i = 0; i < map->node_count; i++)
		free(map->nodes[i].distance);
	for (size_t i = 0; i < map->arena_count; i++) {
		free(map->arenas[i].name);
		free(map->arenas[i].asked);
		free(map->arenas[i].shares);
	}
	free(map->nodes);
	free(map->arenas);
	map_free_lanes(map);
	cells_free(&map->cells);
}

static int by_size(const void *a, const void *b)
{
	const struct map_held *x = a, *y = b;

	if (x->share->bytes != y->share->bytes)
		return x->share->bytes < y->share->bytes ? 1 : -1;
	return x->arena < y->arena ? -1 : 1;
}

struct map_held *map_held_on(const struct map *map, int node, size_t *count)
{
	struct map_held *held = calloc(map->arena_count + 1, sizeof(*held));

	*count = 0;
	for (size_t a = 0; held && a < map->arena_count; a++)
		for (size_t s = 0; s < map->arenas[a].share_count; s++)
			if (map->arenas[a].shares[s].node == node && map->arenas[a].shares[s].bytes > 0)
				held[(*count)++] = (struct map_held){ &map->arenas[a], &map->arenas[a].shares[s] };
	if (held)
		qsort(held, *count, sizeof(*held), by_size);
	return held;
}

/* ---- words ---- */

const char *map_short(uint64_t bytes)
{
	static char texts[8][8];
	static unsigned next;
	char *text = texts[next++ % 8];
	uint64_t n = bytes, rest = 0;
	int unit = 0;

	for (; n >= 1024; n /= 1024, unit++)
		rest = n % 1024;
	if (unit == 0)
		snprintf(text, sizeof(texts[0]), "%u", (unsigned)(n & 1023));
	else if (n < 10)
		snprintf(text, sizeof(texts[0]), "%u.%u%c", (unsigned)(n & 15), (unsigned)(rest * 10 / 1024) & 15,
			 "BKMGTPE"[unit]);
	else
		snprintf(text, sizeof(texts[0]), "%u%c", (unsigned)(n & 1023), "BKMGTPE"[unit]);
	return text;
}

static const char *plural(uint64_t n)
{
	return n == 1 ? "" : "s";
}

void map_title(const struct map *map, char *title, size_t size)
{
	size_t n;

	if (map->of == MAP_MACHINE) {
		snprintf(title, size, "this machine");
		return;
	}
	if (map->of == MAP_VIEW) {
		snprintf(title, size, "what lived at one moment");
		return;
	}
	n = (size_t)snprintf(title, size, "%.200s (%d)", map->program[0] ? map->program : "(no name)", map->pid);
	if (map->of == MAP_DUMP)
		snprintf(title + n, size - n, " on quarry %s", map->version);
}

static void machine_summary(const struct map *map, char *summary, size_t size)
{
	uint64_t total = 0, unused = 0;
	int cpus = 0;

	for (size_t i = 0; i < map->node_count; i++) {
		total = map_add(total, map->nodes[i].memory_total);
		unused = map_add(unused, map->nodes[i].memory_free);
		cpus += map_cpu_count(map->nodes[i].cpus);
	}
	snprintf(summary, size, "%zu node%s, %d CPU%s, %s of memory, %s free", map->node_count,
		 plural(map->node_count), cpus, plural((uint64_t)cpus), bytes_text(total), bytes_text(unused));
}

void map_summary(const struct map *map, char *summary, size_t size)
{
	size_t n;

	if (map->of == MAP_MACHINE) {
		machine_summary(map, summary, size);
		return;
	}
	n = (size_t)snprintf(summary, size, "%s in memory", bytes_text(map->bytes));
	if (map->of == MAP_DUMP)
		n += (size_t)snprintf(summary + n, size - n, ", %zu arena%s", map->arena_count, plural(map->arena_count));
	if (map->strayed)
		snprintf(summary + n, size - n, ", %s strayed", bytes_text(map->strayed));
}

static uint64_t kinds_sum(const uint64_t *by_kind)
{
	uint64_t sum = 0;

	for (int kind = 0; kind < MAP_KINDS; kind++)
		sum = map_add(sum, by_kind[kind]);
	return sum;
}

/* "asked for 2m, got thp 8.0M, base 2.0M" when that is not one and the same. */
static size_t kind_remark(const struct map_arena *arena, char *remarks, size_t size)
{
	size_t n = 0;

	for (int kind = QUARRY_PAGES_THP; kind < MAP_KINDS; kind++) {
		if (arena->kind_wanted[kind] <= arena->kind_got[kind])
			continue;
		n = (size_t)snprintf(remarks, size, "asked for %s pages, got", map_kind_name(kind));
		for (int i = 0; i < MAP_KINDS; i++) {
			int got = map_kind_order[i];

			if (arena->kind_got[got])
				n += (size_t)snprintf(remarks + n, size - n, " %s %s",
						      got ? map_kind_name(got) : "auto", map_short(arena->kind_got[got]));
		}
		return n;
	}
	return n;
}

void map_remarks(const struct map *map, const struct map_arena *arena, char *remarks, size_t size)
{
	const struct {
		uint64_t bytes;
		const char *what;
	} lines[] = {
		{ arena->strayed, "on other nodes than asked for" },
		{ arena->unplaced, "the kernel refused to place" },
		{ arena->placed_less, "by an older policy than asked for" },
	};
	size_t n;

	remarks[0] = '\0';
	if (map->of != MAP_DUMP)
		return;
	n = kinds_sum(arena->kind_wanted) ? kind_remark(arena, remarks, size) : 0;
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
		if (lines[i].bytes && n < size)
			n += (size_t)snprintf(remarks + n, size - n, "%s%s %s", n ? "; " : "", map_short(lines[i].bytes),
					      lines[i].what);
}
