/* SPDX-License-Identifier: MIT */
/* `quarry top`: what a process publishes, as rows with rates (top_model.c), drawn as text (top_text.c) or as a picture
 * (top_svg.c) or told as JSON (top_json.c), once or again and again on a terminal (top_screen.c). */
#ifndef QUARRY_TOOLS_TOP_H
#define QUARRY_TOOLS_TOP_H

#include <stdio.h>

#include "tools/published.h"
#include "tools/top_lanes.h"

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

/* A ring of its history: the last 60 seconds, 60 minutes or 48 hours. */
#define TOP_RINGS 3

struct top_trend {
	quarry_sample samples[QUARRY_HISTORY_MOST];
	size_t count;
	uint64_t step_ns;
	unsigned length; /* steps that the ring goes back */
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
	struct top_trend trends[TOP_RINGS];
	struct top_lanes lanes;
	struct top_row *rows; /* as many as head.arena_count */
};

/* "mapped", ...; NULL past the last. */
const char *top_column_name(int column);

/* Take a look out of what was read. False without memory. Rates come from what was seen before (NULL: nothing), and
 * stay as they were where the process has not published since. */
bool top_take(struct top *top, const struct published *p, const struct top *before);
void top_free(struct top *top);

/* The trends out of what was read; all are empty where a process publishes none. */
void top_trends_take(struct top *top, const struct published *p);
/* How fast a figure (enum quarry_history_figure) grew over all of it. False: there is too little of it. */
bool top_trend_slope(const struct top_trend *t, int figure, double *a_second);
/* Over how many seconds, minutes or hours that is. */
uint64_t top_trend_steps(const struct top_trend *t);

#define TOP_LEVELS 8
/* What was in use, between the least and the most, as levels from 0 to 7, up to now; -1: not known. */
void top_trend_cells(const struct top_trend *t, int *levels, unsigned cells);

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
	bool utf8;      /* what the output takes beside ASCII */
	bool terminal;  /* colours, and each line clears what was behind it */
};

/* Lines of at most look->columns; nothing of what the process wrote reaches a terminal but letters. */
void top_print_text(const struct top *top, const struct top_look *look, FILE *out);
/* history: all samples, too. */
void top_print_json(const struct top *top, bool history, FILE *out);
/* False without memory. */
bool top_print_svg(const struct top *top, const struct top_look *look, FILE *out);

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

/* Amounts in at most five characters (top_text.c): of bytes by 1024, of all else by 1000. Below 0: "-". */
struct field {
	char text[16];
};

struct field top_bytes(double n);
struct field top_count(double n);

#endif
