/* SPDX-License-Identifier: MIT */
/* `quarry top`: what a process publishes, as rows with rates (top_model.c), drawn as text (top_text.c) or told as JSON
 * (top_json.c), once or again and again on a terminal (top_screen.c). */
#ifndef QUARRY_TOOLS_TOP_H
#define QUARRY_TOOLS_TOP_H

#include <stdio.h>

#include "tools/published.h"

/* In the order in which they stand. */
enum top_column {
	TOP_NAME,
	TOP_NODE,
	TOP_MAPPED,
	TOP_RESIDENT,
	TOP_IN_USE,
	TOP_CACHED,
	TOP_FREE,
	TOP_HUGE,
	TOP_FRAG,
	TOP_LIMIT,
	TOP_REFILLS,
	TOP_REMOTE,
	TOP_PURGED,
	TOP_COLUMNS
};

/* What happened in a second, of what was counted; less than 0: not known. */
struct top_rates {
	double refills, remote, purged, passes, collapsed, minor, major;
};

struct top_row {
	uint64_t id;
	quarry_stats stats;
	struct top_rates rates;
};

/* One look. */
struct top {
	int pid;
	char program[64];
	quarry_published head;
	quarry_health_report health;
	quarry_stats total;
	struct top_rates rates;
	uint64_t now_ns, minor, major;
	struct top_row *rows; /* as many as head.arena_count */
};

/* "mapped", ...; NULL past the last. */
const char *top_column_name(int column);

/* Take a look out of what was read. False without memory. Rates come from what was seen before (NULL: nothing), and
 * stay as they were where the process has not published since. */
bool top_take(struct top *top, const struct published *p, const struct top *before);
void top_free(struct top *top);

/* Largest first, names and nodes smallest first; turned: the other way round. */
void top_sort(struct top *top, enum top_column by, bool turned);

/* Per mille: of what is mapped, in huge pages; of what is resident, not in use; of a limit, the hard one if there is, in
 * use (0: no limit). */
unsigned top_huge(const quarry_stats *stats);
unsigned top_fragmentation(const quarry_stats *stats);
unsigned top_limit(const quarry_stats *stats);

struct top_look {
	int columns, lines; /* at most */
	enum top_column by;
	bool turned;
	bool keys;      /* tell of the keys */
	bool terminal;  /* colours, and each line clears what was behind it */
};

/* Lines of at most look->columns; nothing of what the process wrote reaches a terminal but letters. */
void top_print_text(const struct top *top, const struct top_look *look, FILE *out);
void top_print_json(const struct top *top, FILE *out);

/* ---- the terminal (top_screen.c) ---- */

/* Keys without Enter or echo, on a screen of its own, until screen_leave, which any end of the program but a kill brings
 * about. False where there is no terminal. */
bool screen_enter(void);
void screen_leave(void);
/* A key, 0 when the time is over or the terminal changed, -1 at the end of input or when a signal wants an end. */
int screen_key(unsigned ms);
void screen_size(int *columns, int *lines);
/* What wanted an end; 0: nothing. */
int screen_signal(void);

#endif
