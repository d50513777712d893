/* SPDX-License-Identifier: MIT */
/* Reports of leaks as a file has them: one of each process that wrote there (leaks_read.c), for `quarry leaks` (leaks.c). */
#ifndef QUARRY_TOOLS_LEAKS_H
#define QUARRY_TOOLS_LEAKS_H

#include "tools/flame.h"

#define LEAK_EXAMPLES 4

struct leak {
	uint64_t objects, bytes, held_objects, held_bytes, reachable, size;
	const char *arena, *suppressed; /* suppressed: NULL: it is not */
	uint64_t example[LEAK_EXAMPLES];
	unsigned examples;
	int node;
	size_t first; /* in the list of places */
	uint32_t depth;
};

struct leak_sums {
	uint64_t live_objects, live_bytes, objects, bytes, held_objects, held_bytes, suppressed_objects, suppressed_bytes;
	uint64_t threads, unread, scans, inexact;
};

/* Of one process. */
struct leak_report {
	uint64_t pid; /* 0: not told */
	size_t first, count; /* in the list of leaks */
	struct leak_sums sums;
	const char *rules_error; /* why the process's own suppressions did not count; NULL: they did, or it had none */
};

struct leaks {
	struct flame_profile names; /* files, and places in them */
	struct leak_report *reports;
	struct leak *leaks;
	uint32_t *places; /* of all stacks, the innermost first */
	size_t report_count, report_room, leak_count, leak_room, place_count, place_room;
};

/* All reports of a file, with names; a status, after a line on standard error. */
int leaks_read(struct leaks *l, const char *path);
void leaks_free(struct leaks *l);

#endif
