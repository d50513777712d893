/* SPDX-License-Identifier: MIT */
/* What `quarry map` draws, wherever it is from: nodes, and what has memory on them. Three readers fill it (this
 * machine: tools/map.c; a dump: tools/map_file.c, map_view.c; a process: tools/map_process.c), three printers draw it
 * (tools/map_text.c, tools/map_picture.c, tools/map_json.c). What is in a view has another picture (tools/map_heap.h). Names in it are UTF-8 and otherwise as somebody chose
 * them: who prints, escapes. */
#ifndef QUARRY_TOOLS_MAP_H
#define QUARRY_TOOLS_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "tools/cells.h"
#include "tools/tools.h"

#define MAP_KINDS 5 /* of enum quarry_page_kind; AUTO: base or huge, which was not told */
#define MAP_NODES_MAX 1025
#define MAP_ARENAS_MAX 65536
#define MAP_NODE_UNTOLD (-2) /* as QUARRY_NODE_UNKNOWN: memory of which the kernel would not say where it is */

struct map_node {
	int id;
	int has_cpus, has_memory, allowed; /* 1, 0, or -1: not told */
	char cpus[128];                    /* as the kernel lists them; "": not told, or none */
	uint64_t memory_total, memory_free;
	uint64_t huge_free[2], huge_total[2]; /* pages of 2 MiB, 1 GiB */
	uint64_t bandwidth, latency;          /* MiB/s, ns; 0: not told */
	int *distance;                        /* to each node, in order; NULL: not told */
	uint64_t held;                        /* bytes of what is drawn here (map_finish) */
	uint64_t held_by_kind[MAP_KINDS];
};

/* How much of an arena is on a node. */
struct map_share {
	int node; /* id, or MAP_NODE_UNTOLD */
	uint64_t bytes, by_kind[MAP_KINDS], strayed;
};

/* An arena; of a process that is looked at from outside, what its memory is for. */
struct map_arena {
	char *name;
	const char *policy, *kind; /* names, or NULL: not told */
	char *asked;               /* the list of nodes asked for; NULL: not told */
	uint64_t mapped, resident, in_use, cached, free_dirty, free_clean, unplaced, placed_less, hard_limit;
	uint64_t kind_wanted[MAP_KINDS], kind_got[MAP_KINDS];
	struct map_share *shares;
	size_t share_count;
	uint64_t bytes, strayed; /* the sums of the shares (map_finish) */
};

struct map_refusal {
	char name[32];
	uint64_t count;
};

enum map_of { MAP_MACHINE, MAP_DUMP, MAP_PROCESS, MAP_VIEW };

struct map {
	enum map_of of;
	char program[256], version[32]; /* "": not told */
	int pid;
	char note[256]; /* what could not be told, for people; "" */
	struct map_node *nodes;
	size_t node_count;
	struct map_arena *arenas;
	size_t arena_count;
	uint64_t arenas_not_listed, metadata;
	struct map_refusal refused[32];
	size_t refused_count;
	struct map_lanes *lanes; /* of a dump: tools/map_lanes.h */
	size_t lanes_count;
	struct cells cells; /* of a view */
	uint64_t bytes, strayed, largest; /* of all shares: sums, and the largest (map_finish) */
};

/* How it is to be drawn. */
struct map_look {
	bool ascii, color, all; /* all: no arena is left out of a crowded node */
};

/* ---- tools/map_model.c ---- */

const char *map_kind_name(int kind); /* "base", "thp", "2m", "1g", "untold" */
extern const int map_kind_order[MAP_KINDS]; /* in which they are drawn */

/* One more, zeroed; NULL when there is no memory or there are too many. */
struct map_node *map_add_node(struct map *map, int id);
struct map_arena *map_add_arena(struct map *map);
struct map_share *map_share_on(struct map_arena *arena, int node);

struct map_node *map_node(const struct map *map, int id);
size_t map_node_index(const struct map *map, const struct map_node *node);
/* Ids as the kernel writes a list: "0-2,5". In memory of the caller's; NULL without. */
char *map_list(const int *ids, size_t count);

uint64_t map_add(uint64_t a, uint64_t b); /* no overflow: UINT64_MAX instead */
int map_cpu_count(const char *list);

/* Sort nodes by id, make one for each that shares name and nobody told of, and sum up. False: no memory. */
bool map_finish(struct map *map);
void map_free(struct map *map);

/* The shares on a node, the largest first; the caller frees the array. */
struct map_held {
	const struct map_arena *arena;
	const struct map_share *share;
};
struct map_held *map_held_on(const struct map *map, int node, size_t *count);

/* "1.5K", "15M", "1023K": at most 5 characters; in a buffer that the call after the eighth uses anew. */
const char *map_short(uint64_t bytes);
/* The title, one line; whatever the program's name is stands in it. */
void map_title(const struct map *map, char *title, size_t size);
void map_summary(const struct map *map, char *summary, size_t size);
/* What is to be said of an arena beside its figures; "" when all is as it was asked for. */
void map_remarks(const struct map *map, const struct map_arena *arena, char *remarks, size_t size);

/* ---- readers: a status, and what is wrong was said ---- */

int map_read_machine(struct map *map);
int map_read_file(struct map *map, const char *path);
/* A view that was dumped (tools/dump.h), by its text. */
int map_read_view(struct map *map, const char *name, const char *text, size_t length);
int map_read_process(struct map *map, int pid);

/* ---- printers ---- */

bool map_print_text(const struct map *map, const struct map_look *look, FILE *out); /* false: no memory */
bool map_print_svg(const struct map *map, const struct map_look *look, FILE *out);
void map_print_json(const struct map *map, FILE *out);

#endif
