/* SPDX-License-Identifier: MIT */
/* A map from a dump of statistics, as quarry_stats_print(fd, 1) writes it. Nobody vouches for the file: what is not as
 * it must be is named, with the line that it stands in. Members that are not known are left alone, so that dumps of
 * later versions can be drawn. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tools/map.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "include/quarry/quarry.h"
#include "tools/dump.h"
#include "tools/json.h"
#include "tools/map_lanes.h"
#include "tools/utf8.h"

#define NO_MEMORY "no memory"

/* ---- nodes ---- */

/* As many as there are nodes, which is known when all have been read. */
static void read_distances(struct json *j, struct map_node *node, size_t *count)
{
	int *distance = calloc(MAP_NODES_MAX, sizeof(int));
	bool first = true;

	*count = 0;
	if (!distance) {
		json_fail(j, NO_MEMORY);
		return;
	}
	for (json_enter(j, '['); json_next(j, ']', &first);) {
		if (*count == MAP_NODES_MAX)
			json_fail(j, "more distances than there can be nodes");
		else
			json_integer(j, &distance[(*count)++]);
	}
	free(node->distance);
	node->distance = distance;
}

static bool read_node_number(struct json *j, struct map_node *node)
{
	const struct {
		const char *name;
		uint64_t *to;
	} numbers[] = {
		{ "memory_total", &node->memory_total },     { "memory_free", &node->memory_free },
		{ "huge_free_2m", &node->huge_free[0] },     { "huge_total_2m", &node->huge_total[0] },
		{ "huge_free_1g", &node->huge_free[1] },     { "huge_total_1g", &node->huge_total[1] },
		{ "bandwidth", &node->bandwidth },	     { "latency", &node->latency },
	};

	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		if (json_key(j, numbers[i].name)) {
			json_unsigned(j, numbers[i].to);
			return true;
		}
	return false;
}

static void read_node(struct json *j, struct map *map, size_t *distances)
{
	struct map_node *node = map_add_node(map, MAP_NODE_UNTOLD);
	bool first = true;

	*distances = 0;
	if (!node) {
		json_fail(j, map->node_count == MAP_NODES_MAX ? "more nodes than there can be" : NO_MEMORY);
		return;
	}
	for (json_enter(j, '{'); json_next(j, '}', &first);) {
		if (json_key(j, "id"))
			json_integer(j, &node->id);
		else if (json_key(j, "has_cpus"))
			json_integer(j, &node->has_cpus);
		else if (json_key(j, "has_memory"))
			json_integer(j, &node->has_memory);
		else if (json_key(j, "allowed"))
			json_integer(j, &node->allowed);
		else if (json_key(j, "cpus"))
			json_string(j, node->cpus, sizeof(node->cpus));
		else if (json_key(j, "distance"))
			read_distances(j, node, distances);
		else if (!read_node_number(j, node))
			json_skip(j);
	}
	if (j->error)
		return;
	for (size_t i = 0; i + 1 < map->node_count; i++)
		if (map->nodes[i].id == node->id)
			json_fail(j, "two nodes of one id");
	if (node->id < 0 || node->id >= QUARRY_NODES_MAX)
		json_fail(j, "a node without an id, or with one that cannot be");
}

static void read_nodes(struct json *j, struct map *map)
{
	size_t told[MAP_NODES_MAX];
	bool first = true;

	if (map->node_count) {
		json_fail(j, "there twice");
		return;
	}
	for (json_enter(j, '['); json_next(j, ']', &first);) {
		size_t n;

		read_node(j, map, &n);
		if (!j->error)
			told[map->node_count - 1] = n;
	}
	for (size_t i = 0; i < map->node_count && !j->error; i++)
		if (map->nodes[i].distance && told[i] != map->node_count)
			json_fail(j, "not as many distances as nodes");
}

/* ---- arenas ---- */

static void read_kinds(struct json *j, uint64_t by_kind[MAP_KINDS])
{
	bool first = true;

	memset(by_kind, 0, MAP_KINDS * sizeof(by_kind[0]));
	for (json_enter(j, '{'); json_next(j, '}', &first);) {
		int kind = json_key(j, "auto") ? QUARRY_PAGES_AUTO : -1;

		for (int k = QUARRY_PAGES_BASE; k < MAP_KINDS; k++)
			if (json_key(j, map_kind_name(k)))
				kind = k;
		if (kind >= 0)
			json_unsigned(j, &by_kind[kind]);
		else
			json_skip(j);
	}
}

static void check_share(struct json *j, const struct map_share *share)
{
	uint64_t kinds = 0;

	for (int kind = 0; kind < MAP_KINDS; kind++)
		kinds = map_add(kinds, share->by_kind[kind]);
	if (share->node != MAP_NODE_UNTOLD && (share->node < 0 || share->node >= QUARRY_NODES_MAX))
		json_fail(j, "a node without a number, or with one that cannot be");
	else if (kinds != share->bytes)
		json_fail(j, "the kinds are not as many bytes as there are");
	else if (share->strayed > share->bytes)
		json_fail(j, "more bytes strayed than there are");
}

static void read_share(struct json *j, struct map_arena *arena)
{
	struct map_share read = { .node = -1 }, *share;
	bool first = true;

	for (json_enter(j, '{'); json_next(j, '}', &first);) {
		if (json_key(j, "node"))
			json_integer(j, &read.node);
		else if (json_key(j, "bytes"))
			json_unsigned(j, &read.bytes);
		else if (json_key(j, "strayed"))
			json_unsigned(j, &read.strayed);
		else if (json_key(j, "by_kind"))
			read_kinds(j, read.by_kind);
		else
			json_skip(j);
	}
	if (!j->error)
		check_share(j, &read);
	if (j->error)
		return;
	share = map_share_on(arena, read.node);
	if (!share)
		json_fail(j, NO_MEMORY);
	else if (share->bytes)
		json_fail(j, "one node twice");
	else
		*share = read;
}

static void read_shares(struct json *j, struct map_arena *arena)
{
	bool first = true;

	for (json_enter(j, '['); json_next(j, ']', &first);)
		read_share(j, arena);
}

static int ascending(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

static void read_asked(struct json *j, struct map_arena *arena)
{
	int ids[MAP_NODES_MAX];
	size_t count = 0;
	bool first = true;

	for (json_enter(j, '['); json_next(j, ']', &first);) {
		if (count == MAP_NODES_MAX)
			json_fail(j, "more nodes than there can be");
		else if (json_integer(j, &ids[count]) && (ids[count] < 0 || ids[count] >= QUARRY_NODES_MAX))
			json_fail(j, "a node that cannot be");
		else
			count++;
	}
	if (j->error)
		return;
	qsort(ids, count, sizeof(ids[0]), ascending);
	free(arena->asked);
	arena->asked = map_list(ids, count);
	if (!arena->asked)
		json_fail(j, NO_MEMORY);
}

/* One of the words that the library writes, as a constant; NULL for any other. */
static const char *read_word(struct json *j, const char *const *words, size_t count)
{
	char text[JSON_STRING_MAX];

	if (!json_string(j, text, sizeof(text)))
		return NULL;
	for (size_t i = 0; i < count; i++)
		if (strcmp(words[i], text) == 0)
			return words[i];
	return NULL;
}

static bool read_arena_number(struct json *j, struct map_arena *arena)
{
	const struct {
		const char *name;
		uint64_t *to;
	} numbers[] = {
		{ "mapped", &arena->mapped },	      { "resident", &arena->resident },
		{ "in_use", &arena->in_use },	      { "cached", &arena->cached },
		{ "free_dirty", &arena->free_dirty }, { "free_clean", &arena->free_clean },
		{ "unplaced", &arena->unplaced },     { "placed_less", &arena->placed_less },
		{ "hard_limit", &arena->hard_limit },
	};

	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		if (json_key(j, numbers[i].name)) {
			json_unsigned(j, numbers[i].to);
			return true;
		}
	return false;
}

static bool read_arena_words(struct json *j, struct map_arena *arena)
{
	static const char *const policies[] = { "local",      "bind",	    "preferred", "preferred-many",
						"interleave", "weighted-interleave" };
	static const char *const kinds[] = { "auto", "base", "thp", "2m", "1g" };
	char name[JSON_STRING_MAX];

	if (json_key(j, "policy")) {
		arena->policy = read_word(j, policies, sizeof(policies) / sizeof(policies[0]));
	} else if (json_key(j, "kind")) {
		arena->kind = read_word(j, kinds, sizeof(kinds) / sizeof(kinds[0]));
	} else if (json_key(j, "name")) {
		if (!json_string(j, name, sizeof(name)))
			return true;
		free(arena->name);
		arena->name = strdup(name[0] ? name : "(no name)");
		if (!arena->name)
			json_fail(j, NO_MEMORY);
	} else {
		return false;
	}
	return true;
}

static void read_arena(struct json *j, struct map *map)
{
	struct map_arena *arena = map_add_arena(map);
	bool first = true;

	if (!arena) {
		json_fail(j, map->arena_count == MAP_ARENAS_MAX ? "more arenas than there can be" : NO_MEMORY);
		return;
	}
	for (json_enter(j, '{'); json_next(j, '}', &first);) {
		if (json_key(j, "kind_wanted"))
			read_kinds(j, arena->kind_wanted);
		else if (json_key(j, "kind_got"))
			read_kinds(j, arena->kind_got);
		else if (json_key(j, "on_nodes"))
			read_shares(j, arena);
		else if (json_key(j, "nodes"))
			read_asked(j, arena);
		else if (!read_arena_words(j, arena) && !read_arena_number(j, arena))
			json_skip(j);
	}
	if (!j->error && !arena->name)
		json_fail(j, "an arena without a name");
}

/* ---- the whole ---- */

static void read_process(struct json *j, struct map *map)
{
	char name[JSON_STRING_MAX];
	bool first = true;

	for (json_enter(j, '{'); json_next(j, '}', &first);) {
		if (json_key(j, "pid"))
			json_integer(j, &map->pid);
		else if (!json_key(j, "name"))
			json_skip(j);
		else if (json_string(j, name, sizeof(map->program)))
			memcpy(map->program, name, sizeof(map->program));
	}
}

static void read_refused(struct json *j, struct map *map)
{
	size_t room = sizeof(map->refused) / sizeof(map->refused[0]);
	bool first = true;

	for (json_enter(j, '{'); json_next(j, '}', &first);) {
		struct map_refusal refusal = { .count = 0 };

		if (strlen(j->key) < sizeof(refusal.name))
			strcpy(refusal.name, j->key);
		if (json_unsigned(j, &refusal.count) && refusal.count && refusal.name[0] && map->refused_count < room)
			map->refused[map->refused_count++] = refusal;
	}
}

static void read_total(struct json *j, struct map *map)
{
	bool first = true;

	for (json_enter(j, '{'); json_next(j, '}', &first);) {
		if (json_key(j, "metadata"))
			json_unsigned(j, &map->metadata);
		else
			json_skip(j);
	}
}

static void read_dump(struct json *j, struct map *map)
{
	bool first = true, arenas = false, nodes = false;

	for (json_enter(j, '{'); json_next(j, '}', &first);) {
		if (json_key(j, "quarry")) {
			json_string(j, map->version, sizeof(map->version));
		} else if (json_key(j, "process")) {
			read_process(j, map);
		} else if (json_key(j, "nodes")) {
			nodes = true;
			read_nodes(j, map);
		} else if (json_key(j, "total")) {
			read_total(j, map);
		} else if (json_key(j, "refused")) {
			read_refused(j, map);
		} else if (json_key(j, "lanes")) {
			map_read_lanes(j, map);
		} else if (json_key(j, "arenas_not_listed")) {
			json_unsigned(j, &map->arenas_not_listed);
		} else if (json_key(j, "arenas")) {
			bool first_arena = true;

			arenas = true;
			for (json_enter(j, '['); json_next(j, ']', &first_arena);)
				read_arena(j, map);
		} else {
			json_skip(j);
		}
	}
	json_end(j);
	j->key[0] = '\0';
	if (!j->error && (!map->version[0] || !arenas))
		json_fail(j, "JSON, and no statistics of quarry's");
	else if (!j->error && (!nodes || map->node_count == 0))
		json_fail(j, "statistics of a quarry that did not tell of nodes yet");
}

/* A name of a file, for one line. */
int map_read_file(struct map *map, const char *path)
{
	const char *name = input_name(path);
	size_t length = 0;
	char *text = NULL;
	struct json j;
	int status = read_input("map", path, &text, &length);

	map->of = MAP_DUMP;
	if (status != STATUS_OK || dump_is(text, length)) {
		status = status != STATUS_OK ? status : map_read_view(map, name, text, length);
		free(text);
		return status;
	}
	json_init(&j, text, length);
	read_dump(&j, map);
	if (j.error && j.about[0])
		status = fail(STATUS_FAILED, "map: %s: line %lu, near \"%s\": %s", name, json_line(&j), utf8_shown(j.about),
			      j.error);
	else if (j.error)
		status = fail(STATUS_FAILED, "map: %s: line %lu: %s", name, json_line(&j), j.error);
	else if (!map_finish(map))
		status = fail(STATUS_FAILED, "map: %s: %s", name, strerror(ENOMEM));
	free(text);
	return status;
}
