/* SPDX-License-Identifier: MIT */
/* The viewer's printers: quarry_stats of all arenas, where their memory is and the machine that it is on, as text for
 * people (lib/view/print.c) and as one JSON object (lib/view/json.c), which `quarry map` draws. They own nothing,
 * change nothing, allocate nothing and hold no lock while they write: figures are copied one arena after the other, and
 * written through a buffer on the stack. */
#ifndef QUARRY_VIEW_PRINT_H
#define QUARRY_VIEW_PRINT_H

#include "include/quarry/quarry.h"
#include "lib/api/figures.h"
#include "lib/base/text.h"
#include "lib/view/residency.h"

#define QY_PRINT_BUFFER 4096

/* The arenas there are. Up to a hundred or so stand in the struct; more in a mapping of their own, which is not from
 * any heap, so that a program out of memory can still look. Where even that is refused the first ones are there and
 * missing counts the others. */
struct qy_arena_counts;

struct qy_arena_list {
	struct qy_arena_counts *counts; /* what would be looked for anew for each; NULL: it is */
	quarry_arena **at;
	size_t count;
	size_t missing;
	size_t mapped; /* bytes of the mapping; 0: none */
	quarry_arena *few[128];
};

/* Each list that was got must be put. */
void qy_arena_list_get(struct qy_arena_list *list);
void qy_arena_list_put(struct qy_arena_list *list);

/* The length of the well-formed UTF-8 character at s (of n bytes, at least one); 0 when there is none. */
size_t qy_utf8_length(const unsigned char *s, size_t n);

/* The figures of an arena, or with NULL of the process; false when it has gone meanwhile. */
bool qy_print_arena_stats(quarry_arena *arena, quarry_stats *stats);

/* The same of the list's i-th. */
bool qy_arena_list_stats(const struct qy_arena_list *list, size_t i, quarry_stats *stats);

/* (stats.c) What all threads' caches have counted, in one walk, and what else is alike for all: each has a cache for each
 * arena that it used, so that going through them for each arena would take the square of the time. NULL: there is no memory
 * for that. */
struct qy_arena_counts *qy_arena_counts_get(const struct qy_arena_list *list);
void qy_arena_counts_put(struct qy_arena_counts *counts);
bool qy_arena_counts_stats(const struct qy_arena_counts *counts, quarry_arena *arena, quarry_stats *stats);

/* A number that no other arena has while this one is there. */
uint64_t qy_arena_number(const quarry_arena *arena);

/* Lines of at most 80 columns. */
void qy_print_text(struct qy_text *out, const quarry_stats *total, const struct qy_arena_list *list);

/* "refused", with two lines for each thing that was; and why it mostly is, NULL when nothing is known of it. */
void qy_refusals_print(struct qy_text *out, const quarry_stats *total);
const char *qy_refusal_why(int refusal);

/* One object, a line per arena, valid whatever the arenas' names are. */
void qy_print_json(struct qy_text *out, const quarry_stats *total, const struct qy_arena_list *list);

/* A JSON string of bytes that a program chose: what is no UTF-8 becomes U+FFFD. */
void qy_print_json_string(struct qy_text *out, const char *string, size_t n);

#endif
