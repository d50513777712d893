/* SPDX-License-Identifier: MIT */
/* `quarry diff`: what grew between two dumps of views, by arena and size class, and by stack, where both have a profile's. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/diff_stacks.h"
#include "tools/dump.h"
#include "tools/json.h"
#include "tools/map.h"
#include "tools/utf8.h"

/* A row of either, or of both. */
struct growth {
	const char *arena;
	uint32_t object_size;
	bool blocks;
	struct { uint64_t live, live_bytes, held; } of[2];
};

struct growths {
	struct growth *at;
	size_t count;
};

/* ---- the two ---- */

static int read_dump(struct dump *d, const char *path)
{
	size_t length = 0;
	char *text = NULL;
	int status = read_input("diff", path, &text, &length);

	if (status == STATUS_OK && !dump_is(text, length))
		status = fail(STATUS_FAILED, "diff: %s: no dump of a view; see quarry diff --help", input_name(path));
	else if (status == STATUS_OK)
		status = dump_read(d, "diff", input_name(path), text, length);
	free(text);
	return status;
}

static int by_name(const void *a, const void *b)
{
	const struct growth *x = a, *y = b;
	int names = strcmp(x->arena, y->arena);

	if (names != 0)
		return names;
	if (x->blocks != y->blocks)
		return x->blocks - y->blocks;
	return x->object_size < y->object_size ? -1 : x->object_size > y->object_size;
}

static void add_rows(struct growths *g, const struct dump *d, int which)
{
	for (size_t i = 0; i < d->row_count; i++) {
		const struct dump_row *row = &d->rows[i];
		struct growth *to = &g->at[g->count++];

		*to = (struct growth){ .arena = d->arenas[row->arena].name, .object_size = row->object_size,
				       .blocks = row->blocks };
		to->of[which].live = row->live;
		to->of[which].live_bytes = row->live_bytes;
		to->of[which].held = row->held;
	}
}

/* Rows of one name and size become one. */
static void join(struct growths *g)
{
	size_t kept = 0;

	qsort(g->at, g->count, sizeof(g->at[0]), by_name);
	for (size_t i = 0; i < g->count; i++) {
		if (kept == 0 || by_name(&g->at[kept - 1], &g->at[i]) != 0) {
			g->at[kept++] = g->at[i];
			continue;
		}
		for (int k = 0; k < 2; k++) {
			g->at[kept - 1].of[k].live += g->at[i].of[k].live;
			g->at[kept - 1].of[k].live_bytes += g->at[i].of[k].live_bytes;
			g->at[kept - 1].of[k].held += g->at[i].of[k].held;
		}
	}
	g->count = kept;
}

/* (No figure is beyond 2^57.) */
static int64_t grown(const struct growth *g)
{
	return (int64_t)(g->of[1].live_bytes - g->of[0].live_bytes);
}

static int by_growth(const void *a, const void *b)
{
	const struct growth *x = a, *y = b;

	if (grown(x) != grown(y))
		return grown(x) > grown(y) ? -1 : 1;
	return by_name(a, b);
}

static bool is_as_it_was(const struct growth *g)
{
	return memcmp(&g->of[0], &g->of[1], sizeof(g->of[0])) == 0;
}

/* ---- printing ---- */

const char *diff_signed(int64_t n)
{
	static char text[4][16];
	static unsigned next;
	char *t = text[next++ % 4];

	snprintf(t, sizeof(text[0]), "%s%s", n < 0 ? "-" : n > 0 ? "+" : "",
		 map_short(n < 0 ? -(uint64_t)n : (uint64_t)n));
	return t;
}

#define NAME_WIDTH 20

static void print_row(const struct growth *g, const char *arena)
{
	char size[16];
	size_t shown;

	if (g->blocks)
		snprintf(size, sizeof(size), "large");
	else if (g->object_size == 0)
		snprintf(size, sizeof(size), "mixed");
	else
		snprintf(size, sizeof(size), "%" PRIu32, g->object_size);
	shown = utf8_put(stdout, arena, NAME_WIDTH);
	printf("%*s %6s %12" PRId64 " %9s %9s %9s %8s\n", (int)(NAME_WIDTH - shown), "", size, (int64_t)(g->of[1].live - g->of[0].live),
	       map_short(g->of[0].live_bytes), map_short(g->of[1].live_bytes), diff_signed(grown(g)),
	       diff_signed((int64_t)(g->of[1].held - g->of[0].held)));
}

static void print_text(const struct growths *g, bool all)
{
	struct growth sum = { .arena = "all" };
	size_t left_out = 0;

	printf("%-20s %6s %12s %9s %9s %9s %8s\n", "arena", "size", "objects", "before", "after", "growth", "held");
	for (size_t i = 0; i < g->count; i++) {
		for (int k = 0; k < 2; k++) {
			sum.of[k].live += g->at[i].of[k].live;
			sum.of[k].live_bytes += g->at[i].of[k].live_bytes;
			sum.of[k].held += g->at[i].of[k].held;
		}
		if (!all && is_as_it_was(&g->at[i]))
			left_out++;
		else
			print_row(&g->at[i], g->at[i].arena[0] ? g->at[i].arena : "(no name)");
	}
	printf("%-20s %6s %12" PRId64 " %9s %9s %9s %8s\n", "all", "", (int64_t)(sum.of[1].live - sum.of[0].live),
	       map_short(sum.of[0].live_bytes), map_short(sum.of[1].live_bytes), diff_signed(grown(&sum)),
	       diff_signed((int64_t)(sum.of[1].held - sum.of[0].held)));
	if (left_out)
		printf("and %zu as they were\n", left_out);
}

static void print_json(const struct growths *g, bool all)
{
	bool first = true;

	printf("{\"quarry_diff\":1,\"rows\":[");
	for (size_t i = 0; i < g->count; i++) {
		const struct growth *r = &g->at[i];

		if (!all && is_as_it_was(r))
			continue;
		printf("%s\n{\"arena\":", first ? "" : ",");
		json_put_string(stdout, r->arena);
		printf(",\"kind\":\"%s\",\"object_size\":%" PRIu32, r->blocks ? "blocks" : "slabs", r->object_size);
		for (int k = 0; k < 2; k++)
			printf(",\"%s\":{\"live\":%" PRIu64 ",\"live_bytes\":%" PRIu64 ",\"held\":%" PRIu64 "}",
			       k ? "after" : "before", r->of[k].live, r->of[k].live_bytes, r->of[k].held);
		printf(",\"growth\":%" PRId64 "}", grown(r));
		first = false;
	}
	printf("]");
}

/* ---- the command ---- */

static int compare(const char *const paths[2], bool json, bool all)
{
	struct dump dumps[2] = { 0 };
	struct growths g = { NULL, 0 };
	struct diff_stacks stacks = { NULL };
	int status = read_dump(&dumps[0], paths[0]);

	if (status == STATUS_OK)
		status = read_dump(&dumps[1], paths[1]);
	if (status == STATUS_OK) {
		g.at = calloc(dumps[0].row_count + dumps[1].row_count + 1, sizeof(g.at[0]));
		if (!g.at)
			status = fail(STATUS_FAILED, "diff: %s", strerror(ENOMEM));
	}
	if (status == STATUS_OK && !diff_stacks_get(&stacks, dumps))
		status = fail(STATUS_FAILED, "diff: %s", stacks.names.error ? stacks.names.error : strerror(ENOMEM));
	if (status == STATUS_OK) {
		add_rows(&g, &dumps[0], 0);
		add_rows(&g, &dumps[1], 1);
		join(&g);
		qsort(g.at, g.count, sizeof(g.at[0]), by_growth);
		if (json)
			print_json(&g, all);
		else
			print_text(&g, all);
		if (json)
			diff_stacks_json(&stacks, all);
		else
			diff_stacks_text(&stacks, all);
	}
	free(g.at);
	diff_stacks_free(&stacks);
	dump_free(&dumps[0]);
	dump_free(&dumps[1]);
	return status;
}

int command_diff(int argc, char **argv)
{
	const char *paths[2];
	bool json = false, all = false;
	int n = 0;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--json") == 0)
			json = true;
		else if (strcmp(argv[i], "--all") == 0)
			all = true;
		else if (argv[i][0] == '-' && argv[i][1])
			return fail(STATUS_USAGE, "diff: unknown argument '%s'; see quarry diff --help", utf8_shown(argv[i]));
		else if (n == 2)
			return fail(STATUS_USAGE, "diff: two FILEs; see quarry diff --help");
		else
			paths[n++] = argv[i];
	}
	if (n < 2)
		return fail(STATUS_USAGE, "diff: two FILEs; see quarry diff --help");
	if (strcmp(paths[0], "-") == 0 && strcmp(paths[1], "-") == 0)
		return fail(STATUS_USAGE, "diff: only one of the two can be standard input");
	return compare(paths, json, all);
}
