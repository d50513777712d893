/* SPDX-License-Identifier: MIT */
/* The lines of `quarry top`: some for the process, then a table with a line for each arena. Each is made in a buffer and
 * cut at the terminal's width; nothing but ASCII is shown of what comes from the process. */
#include "tools/top.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#define NAME_WIDTH 13
#define LINE_MAX_BYTES 512

struct page {
	const struct top *top;
	const struct top_look *look;
	FILE *out;
	int lines; /* so far */
};

/* After so many characters. (All that are used here are one column wide.) */
static void cut(char *text, int columns)
{
	for (; *text; text++)
		if ((*text & 0xc0) != 0x80 && columns-- == 0)
			*text = '\0';
}

static void line(struct page *page, const char *color, const char *format, ...) __attribute__((format(printf, 3, 4)));

static void line(struct page *page, const char *color, const char *format, ...)
{
	char text[LINE_MAX_BYTES];
	va_list args;

	if (page->lines >= page->look->lines)
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	cut(text, page->look->columns);
	if (page->look->terminal)
		/* (Of the last line, no end: it would move the screen.) */
		fprintf(page->out, "%s%s%s%s\033[K", page->lines ? "\r\n" : "", color, text, *color ? "\033[0m" : "");
	else
		fprintf(page->out, "%s\n", text);
	page->lines++;
}

/* ---- fields ---- */

/* Bytes that a process chose, fit for any terminal. */
static void put_name(char *to, size_t size, const char *from, size_t n)
{
	size_t i;

	for (i = 0; i < n && from[i] && i + 1 < size; i++)
		to[i] = from[i] >= 0x20 && from[i] < 0x7f ? from[i] : '?';
	to[i] = '\0';
}

static struct field amount(double n, double unit, const char *units)
{
	struct field f;

	for (; n >= unit * 0.9995 && units[1]; units++)
		n /= unit;
	if (n < 0)
		snprintf(f.text, sizeof(f.text), "-");
	else if (*units == ' ')
		snprintf(f.text, sizeof(f.text), "%.0f", n);
	else
		snprintf(f.text, sizeof(f.text), n < 9.95 ? "%.1f%c" : "%.0f%c", n, *units);
	return f;
}

struct field top_bytes(double n)
{
	return amount(n, 1024, " KMGTPE");
}

struct field top_count(double n)
{
	return amount(n, 1000, " kMGTPE");
}

static struct field share(unsigned per_mille)
{
	struct field f;

	snprintf(f.text, sizeof(f.text), "%u.%u", per_mille / 10, per_mille % 10);
	return f;
}

static struct field percent(unsigned per_mille)
{
	struct field f;

	snprintf(f.text, sizeof(f.text), "%u", per_mille < 9990 ? (per_mille + 5) / 10 : 999);
	return f;
}

static struct field limit_of(const quarry_stats *stats)
{
	struct field f = percent(top_limit(stats));

	if (!stats->hard_limit && !stats->soft_limit)
		strcpy(f.text, "-");
	else if (!stats->hard_limit)
		strcat(f.text, "s");
	return f;
}

/* ---- the process ---- */

static const char *one_of(const char *const *words, size_t n, int32_t i)
{
	return i >= 0 && (size_t)i < n ? words[i] : "?";
}

#define ONE_OF(words, i) one_of(words, sizeof(words) / sizeof(words[0]), i)

static void print_health(struct page *page)
{
	static const char *const states[] = { "green", "yellow", "red" };
	static const char *const colors[] = { "\033[32m", "\033[33m", "\033[31m" };
	static const char *const levels[] = { "none", "some", "high", "critical" };
	static const char *const breakers[] = { "closed", "open", "half open" };
	static const char *const limits[] = { "none", "process", "cgroup", "ulimit -v" };
	const quarry_health_report *h = &page->top->health;
	char limit[64] = "none";

	if (h->limit_kind > 0)
		snprintf(limit, sizeof(limit), "%s %s%% of %s", ONE_OF(limits, h->limit_kind),
			 share(h->limit_per_mille).text, top_bytes((double)h->limit).text);
	line(page, h->state >= 0 && h->state < 3 ? colors[h->state] : "",
	     "%s: pressure %s, breaker %s; limit %s; PSI %s%% some %s%% full", ONE_OF(states, h->state),
	     ONE_OF(levels, h->level), ONE_OF(breakers, h->breaker), limit, share(h->psi_some).text,
	     share(h->psi_full).text);
}

/* What was refused most. */
static void print_refused(struct page *page)
{
	const quarry_stats *t = &page->top->total;
	const quarry_health_report *h = &page->top->health;
	char text[LINE_MAX_BYTES] = "";
	uint64_t shown = UINT64_MAX;
	int first = -1;

	for (int n = 0; n < 4; n++) {
		int most = -1;

		for (int i = 0; quarry_refusal_name(i); i++)
			if (t->refused[i] > 0 && (t->refused[i] < shown || (t->refused[i] == shown && i > first)) &&
			    (most < 0 || t->refused[i] > t->refused[most]))
				most = i;
		if (most < 0)
			break;
		shown = t->refused[most];
		first = most;
		snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s %s %s", n ? "," : "",
			 quarry_refusal_name(most), top_count((double)shown).text);
	}
	line(page, "", "denied %s; refused%s%s", top_count((double)h->denied_process + (double)h->denied_arenas +
						      (double)h->denied_cgroup).text, *text ? ":" : " nothing", text);
}

/* With its sign, in a unit of time. */
static struct field growth(const struct top_trend *t, int figure, double seconds)
{
	struct field f = { "?" }, size;
	double a_second;

	if (!top_trend_slope(t, figure, &a_second))
		return f;
	size = top_bytes((a_second < 0 ? -a_second : a_second) * seconds);
	snprintf(f.text, sizeof(f.text), "%s%.8s", strcmp(size.text, "0") == 0 ? "" : a_second < 0 ? "-" : "+", size.text);
	return f;
}

#define CELLS 30

static void put_cells(char *to, size_t size, const struct top_trend *t, unsigned cells, bool utf8)
{
	static const char *const blocks[TOP_LEVELS] = { "\u2581", "\u2582", "\u2583", "\u2584",
							"\u2585", "\u2586", "\u2587", "\u2588" };
	static const char *const marks[TOP_LEVELS] = { "_", ".", ":", "-", "=", "+", "*", "#" };
	int levels[CELLS];
	size_t n = 0;

	top_trend_cells(t, levels, cells);
	for (unsigned i = 0; i < cells && n + 4 < size; i++)
		n += (size_t)snprintf(to + n, size - n, "%s", levels[i] < 0 ? " " : utf8 ? blocks[levels[i]] : marks[levels[i]]);
}

/* Each ring in which there is enough to tell of one. */
static void print_trends(struct page *page)
{
	static const char *const units[TOP_RINGS] = { "s", "min", "h" };
	char text[LINE_MAX_BYTES];

	for (int ring = 0; ring < TOP_RINGS; ring++) {
		const struct top_trend *t = &page->top->trends[ring];
		double seconds = (double)t->step_ns / 1e9;
		int n, room;

		if (t->count < 3)
			continue;
		n = snprintf(text, sizeof(text) / 2, "trend over %u %s: in use %s/%s, resident %s/%s",
			     (unsigned)top_trend_steps(t), units[ring], growth(t, QUARRY_HISTORY_IN_USE, seconds).text,
			     units[ring], growth(t, QUARRY_HISTORY_RESIDENT, seconds).text, units[ring]);
		/* (The cells stand in one column, by the longest text.) */
		n += snprintf(text + n, sizeof(text) / 2, "%*s", n < 50 ? 50 - n : 1, "");
		room = page->look->columns - n;
		if (room >= CELLS / 3)
			put_cells(text + n, sizeof(text) - (size_t)n, t, room < CELLS ? (unsigned)room : CELLS,
				  page->look->utf8);
		line(page, "", "%s", text);
	}
}

static void print_process(struct page *page)
{
	const struct top *top = page->top;
	const quarry_stats *t = &top->total;
	const struct top_rates *r = &top->rates;
	double age = ((double)top->now_ns - (double)top->head.time_ns) / 1e9;
	char program[sizeof(top->program)];

	put_name(program, sizeof(program), top->program, sizeof(top->program));
	line(page, "", "quarry top: %s (%d), %s arena%s, %s thread%s, as of %.1f s ago", program, top->pid,
	     top_count((double)t->arenas).text, t->arenas == 1 ? "" : "s", top_count((double)t->threads).text,
	     t->threads == 1 ? "" : "s", age > 0 ? age : 0);
	print_health(page);
	line(page, "", "mapped %s, resident %s, in use %s, cached %s, free %s; records %s", top_bytes((double)t->mapped).text,
	     top_bytes((double)t->resident).text, top_bytes((double)t->in_use).text, top_bytes((double)t->cached).text,
	     top_bytes((double)t->free_dirty).text, top_bytes((double)t->metadata).text);
	line(page, "", "a second: refills %s, remote frees %s, purged %s, passes %s, faults %s+%s", top_count(r->refills).text,
	     top_count(r->remote).text, top_bytes(r->purged).text, top_count(r->passes).text, top_count(r->minor).text,
	     top_count(r->major).text);
	line(page, "", "mapped at most %s; huge %s%%, made huge %s; strayed %s; bad frees %s",
	     top_bytes((double)t->peak_mapped).text, share(top_huge(t)).text, top_count((double)t->collapsed).text,
	     top_bytes((double)t->strayed).text, top_count((double)t->bad_frees).text);
	print_refused(page);
	print_trends(page);
}

/* ---- the table ---- */

/* Columns behind the name. Together with it they take 80. */
static int width_of(int column)
{
	return column == TOP_NODE ? 4 : column >= TOP_HUGE && column <= TOP_LIMIT ? 5 : 6;
}

static void print_columns(struct page *page, const char *color, const char *name, const struct field *fields)
{
	char text[LINE_MAX_BYTES];
	int wider = (int)strlen(fields[TOP_NODE].text) - width_of(TOP_NODE); /* a head with its mark */
	int n = snprintf(text, sizeof(text), "%-*s", NAME_WIDTH - (wider > 0 ? wider : 0), name);

	for (int i = TOP_NODE; i < TOP_COLUMNS; i++)
		n += snprintf(text + n, sizeof(text) - (size_t)n, "%*s", width_of(i), fields[i].text);
	line(page, color, "%s", text);
}

/* The column that sorts has a mark. */
static void print_heads(struct page *page)
{
	static const char *const heads[TOP_COLUMNS] = { "ARENA", "NODE", "MAP", "RES", "INUSE", "CACHE", "FREE", "HUG%",
							"FRA%", "LIM%", "REF/s", "REM/s", "PRG/s" };
	struct field fields[TOP_COLUMNS] = { 0 };

	for (int i = TOP_NAME; i < TOP_COLUMNS; i++)
		snprintf(fields[i].text, sizeof(fields[i].text), "%s%s", i == (int)page->look->by ? "*" : "", heads[i]);
	print_columns(page, "\033[7m", fields[TOP_NAME].text, fields);
}

static void print_row(struct page *page, const struct top_row *row)
{
	const quarry_stats *s = &row->stats;
	struct field fields[TOP_COLUMNS] = {
		[TOP_NODE] = { "-" },
		[TOP_MAPPED] = top_bytes((double)s->mapped),
		[TOP_RESIDENT] = top_bytes((double)s->resident),
		[TOP_IN_USE] = top_bytes((double)s->in_use),
		[TOP_CACHED] = top_bytes((double)s->cached),
		[TOP_FREE] = top_bytes((double)s->free_dirty),
		[TOP_HUGE] = percent(top_huge(s)),
		[TOP_FRAG] = percent(top_fragmentation(s)),
		[TOP_LIMIT] = limit_of(s),
		[TOP_REFILLS] = top_count(row->rates.refills),
		[TOP_REMOTE] = top_count(row->rates.remote),
		[TOP_PURGED] = top_bytes(row->rates.purged),
	};
	char name[NAME_WIDTH];

	put_name(name, sizeof(name), s->name, sizeof(s->name));
	if (s->node >= 0)
		snprintf(fields[TOP_NODE].text, sizeof(fields[0].text), "%d", s->node < 99999 ? s->node : 99999);
	print_columns(page, "", *name ? name : "(no name)", fields);
}

static void put_line(void *page, const char *color, const char *text)
{
	line(page, color, "%s", text);
}

void top_print_text(const struct top *top, const struct top_look *look, FILE *out)
{
	struct page page = { .top = top, .look = look, .out = out };
	uint32_t n = top->head.arena_count;

	if (look->terminal)
		fputs("\033[H", out);
	print_process(&page);
	if (look->keys)
		line(&page, "\033[2m", "by %s%s   keys: < > sort, i turn, q quit", top_column_name((int)look->by),
		     look->turned ? ", turned" : "");
	print_heads(&page);
	for (uint32_t i = 0; i < n; i++)
		print_row(&page, &top->rows[i]);
	if (top->head.arenas_left_out)
		line(&page, "", "(%u arenas have no room in the page)", top->head.arenas_left_out);
	top_lanes_text(&top->lanes, put_line, &page);
	if (look->terminal)
		fputs("\033[J", out);
	fflush(out);
}
