/* SPDX-License-Identifier: MIT */
/* `quarry map`: this machine, a dump of a program's statistics, or a process that runs, as a picture. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tools/map.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "include/quarry/quarry.h"
#include "tools/map_page.h"
#include "tools/svg.h"
#include "tools/utf8.h"

#define NODES "/sys/devices/system/node/"
#define LIST_MAX 8192

/* ---- this machine ---- */

/* Nodes that the cpuset forbids are drawn too; quarry_nodes leaves them out, the kernel's list has them. */
static size_t online_nodes(int *ids, size_t max)
{
	char text[LIST_MAX], *at = text;
	size_t count = 0;

	if (!read_text(NODES "online", text, sizeof(text))) {
		for (int i = 0; i < quarry_node_count() && count < max; i++)
			ids[count++] = quarry_node_id(i);
		return count;
	}
	while (*at >= '0' && *at <= '9') {
		long first = strtol(at, &at, 10), last = first;

		if (*at == '-')
			last = strtol(at + 1, &at, 10);
		for (; first <= last && first < QUARRY_NODES_MAX && count < max; first++)
			ids[count++] = (int)first;
		at += *at == ',';
	}
	return count;
}

/* What the firmware tells is known of the nodes that this process may use. */
static void add_attributes(struct map *map)
{
	size_t room = map->node_count + 1;
	quarry_node_info *list = calloc(room, sizeof(*list));
	long count;

	if (!list)
		return;
	list[0].struct_size = sizeof(list[0]);
	count = quarry_nodes(list, room);
	for (long i = 0; i < count && i < (long)room; i++) {
		struct map_node *node = map_node(map, list[i].id);

		if (node) {
			node->bandwidth = list[i].bandwidth;
			node->latency = list[i].latency;
		}
	}
	free(list);
}

static bool add_distances(struct map *map)
{
	for (size_t from = 0; from < map->node_count; from++) {
		int *distance = calloc(map->node_count, sizeof(int));

		if (!distance)
			return false;
		for (size_t to = 0; to < map->node_count; to++)
			distance[to] = quarry_node_distance(map->nodes[from].id, map->nodes[to].id);
		map->nodes[from].distance = distance;
	}
	return true;
}

static bool add_node(struct map *map, int id)
{
	quarry_node_info info = { .struct_size = sizeof(info) };
	struct map_node *node;
	char path[64];

	if (quarry_node_info_get(id, &info) != 0)
		return true; /* it went offline meanwhile */
	node = map_add_node(map, id);
	if (!node)
		return false;
	node->has_cpus = info.has_cpus;
	node->has_memory = info.has_memory;
	node->allowed = info.allowed;
	node->memory_total = info.memory_total;
	node->memory_free = info.memory_free;
	node->huge_free[0] = info.huge_free_2m;
	node->huge_free[1] = info.huge_free_1g;
	node->huge_total[0] = info.huge_total_2m;
	node->huge_total[1] = info.huge_total_1g;
	snprintf(path, sizeof(path), NODES "node%d/cpulist", id);
	if (!read_text(path, node->cpus, sizeof(node->cpus)))
		node->cpus[0] = '\0';
	return true;
}

int map_read_machine(struct map *map)
{
	int ids[QUARRY_NODES_MAX];
	size_t count = online_nodes(ids, QUARRY_NODES_MAX);
	bool done = true;

	for (size_t i = 0; i < count && done; i++)
		done = add_node(map, ids[i]);
	if (!done || !add_distances(map))
		return fail(STATUS_FAILED, "map: %s", strerror(ENOMEM));
	add_attributes(map);
	if (!map_finish(map))
		return fail(STATUS_FAILED, "map: %s", strerror(ENOMEM));
	return STATUS_OK;
}

/* ---- the command ---- */

struct arguments {
	const char *what; /* NULL: this machine */
	const char *svg;  /* the file to write, or NULL */
	bool json, ascii, utf8, all;
};

static int parse(int argc, char **argv, struct arguments *args)
{
	bool names_only = false;

	for (int i = 1; i < argc; i++) {
		const char *a = argv[i];

		if (names_only || a[0] != '-' || strcmp(a, "-") == 0) {
			if (args->what)
				return fail(STATUS_USAGE, "map: one FILE or PID at a time; see quarry map --help");
			args->what = a;
		} else if (strcmp(a, "--") == 0) {
			names_only = true;
		} else if (strncmp(a, "--svg=", 6) == 0) {
			args->svg = a + 6;
		} else if (strcmp(a, "--svg") == 0) {
			if (++i == argc)
				return fail(STATUS_USAGE, "map: --svg needs a FILE, or - for standard output");
			args->svg = argv[i];
		} else if (strcmp(a, "--json") == 0) {
			args->json = true;
		} else if (strcmp(a, "--ascii") == 0) {
			args->ascii = true;
		} else if (strcmp(a, "--utf8") == 0) {
			args->utf8 = true;
		} else if (strcmp(a, "--all") == 0) {
			args->all = true;
		} else {
			return fail(STATUS_USAGE, "map: unknown argument '%s'; see quarry map --help", utf8_shown(a));
		}
	}
	if (args->svg && !args->svg[0])
		return fail(STATUS_USAGE, "map: --svg needs a FILE, or - for standard output");
	if (args->json && args->svg)
		return fail(STATUS_USAGE, "map: --json or --svg, not both");
	if (args->ascii && args->utf8)
		return fail(STATUS_USAGE, "map: --ascii or --utf8, not both");
	return STATUS_OK;
}

/* Digits alone are a process; a file of such a name is ./NAME. */
static int read_map(struct map *map, const char *what)
{
	unsigned long pid;

	if (!what)
		return map_read_machine(map);
	if (what[0] == '\0' || what[strspn(what, "0123456789")] != '\0')
		return map_read_file(map, what);
	errno = 0;
	pid = strtoul(what, NULL, 10);
	if (errno != 0 || pid == 0 || pid > INT32_MAX)
		return fail(STATUS_FAILED, "map: %.20s: %s", what, strerror(ESRCH));
	return map_read_process(map, (int)pid);
}

struct drawing {
	const struct map *map;
	const struct map_look *look;
};

static bool draw(FILE *out, const void *ctx)
{
	const struct drawing *d = ctx;

	return map_print_svg(d->map, d->look, out);
}

int command_map(int argc, char **argv)
{
	struct arguments args = { 0 };
	struct map map = { 0 };
	struct map_look look;
	int status = parse(argc, argv, &args);

	if (status != STATUS_OK)
		return status;
	look = page_look(args.ascii, args.utf8, args.all);
	status = read_map(&map, args.what);
	if (status == STATUS_OK) {
		if (args.svg)
			status = svg_write("map", args.svg, draw, &(struct drawing){ &map, &look });
		else if (args.json)
			map_print_json(&map, stdout);
		else if (!map_print_text(&map, &look, stdout))
			status = fail(STATUS_FAILED, "map: %s", strerror(ENOMEM));
	}
	map_free(&map);
	return status;
}
