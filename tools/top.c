/* SPDX-License-Identifier: MIT */
/* The command `quarry top`. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tools/top.h"

#include <errno.h>
#include <langinfo.h>
#include <limits.h>
#include <locale.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tools/svg.h"

#define LEAST_INTERVAL 0.1
#define MOST_INTERVAL 3600.0

struct arguments {
	bool json;
	const char *svg; /* the file to write, or NULL */
	int pid;
	enum top_column by;
	double interval; /* seconds */
	long count;      /* looks; 0: no end */
};

/* ---- arguments ---- */

static int parse_column(const char *text, enum top_column *column)
{
	for (int i = 0; top_column_name(i); i++) {
		if (strcmp(text, top_column_name(i)) == 0) {
			*column = (enum top_column)i;
			return STATUS_OK;
		}
	}
	return fail(STATUS_USAGE, "top: --sort: no column '%s'; see quarry top --help", text);
}

static int parse_interval(const char *text, double *interval)
{
	char *end;

	*interval = strtod(text, &end);
	if (end == text || *end || !(*interval >= LEAST_INTERVAL && *interval <= MOST_INTERVAL))
		return fail(STATUS_USAGE, "top: --interval: '%s' is not a number of seconds from 0.1 to 3600", text);
	return STATUS_OK;
}

static int parse_count(const char *text, long *count)
{
	char *end;

	errno = 0;
	*count = strtol(text, &end, 10);
	if (end == text || *end || errno || *count < 1)
		return fail(STATUS_USAGE, "top: --count: '%s' is not a number above 0", text);
	return STATUS_OK;
}

static int parse_one(struct arguments *args, int argc, char **argv, int *i)
{
	const char *name = argv[*i], *value = NULL;
	static const char *const with_value[] = { "--sort", "--interval", "--count", "--svg" };

	if (strcmp(name, "--once") == 0) {
		args->count = 1;
		return STATUS_OK;
	}
	if (strcmp(name, "--json") == 0) {
		args->json = true;
		return STATUS_OK;
	}
	for (int k = 0; k < 4; k++) {
		size_t n = strlen(with_value[k]);

		if (strncmp(name, with_value[k], n) != 0 || (name[n] != '=' && name[n] != '\0'))
			continue;
		value = name[n] == '=' ? name + n + 1 : *i + 1 < argc ? argv[++*i] : NULL;
		if (!value || !*value)
			return fail(STATUS_USAGE, "top: %s needs a value", with_value[k]);
		if (k == 3) {
			args->svg = value;
			return STATUS_OK;
		}
		return k == 0 ? parse_column(value, &args->by) :
		       k == 1 ? parse_interval(value, &args->interval) : parse_count(value, &args->count);
	}
	if (name[0] == '-')
		return fail(STATUS_USAGE, "top: unknown option '%s'; see quarry top --help", name);
	if (args->pid)
		return fail(STATUS_USAGE, "top: one PID; see quarry top --help");
	return (int)published_pid("top", name, &args->pid);
}

static int parse(int argc, char **argv, struct arguments *args)
{
	int status = STATUS_OK;

	for (int i = 1; i < argc && status == STATUS_OK; i++)
		status = parse_one(args, argc, argv, &i);
	if (status == STATUS_OK && !args->pid)
		status = fail(STATUS_USAGE, "top: no PID; see quarry top --help");
	if (status == STATUS_OK && args->json && args->svg)
		status = fail(STATUS_USAGE, "top: --json or --svg, not both");
	/* (A process publishes once a second: of three looks two differ, so that there are rates.) */
	if (args->svg && !args->count)
		args->count = 3;
	return status;
}

/* ---- looking ---- */

struct session {
	const struct arguments *args;
	struct published from;
	struct top now, before;
	struct top_look look;
	bool live;
};

static bool take(struct session *s)
{
	if (published_read(&s->from) != STATUS_OK)
		return false;
	top_free(&s->before);
	s->before = s->now;
	if (!top_take(&s->now, &s->from, s->before.rows ? &s->before : NULL)) {
		snprintf(s->from.error, sizeof(s->from.error), "%s", strerror(ENOMEM));
		return false;
	}
	return true;
}

static void show(struct session *s)
{
	top_sort(&s->now, s->look.by, s->look.turned);
	if (s->args->json) {
		top_print_json(&s->now, s->args->count == 1, stdout);
		return;
	}
	if (s->live)
		screen_size(&s->look.columns, &s->look.lines);
	top_print_text(&s->now, &s->look, stdout);
}

/* Whether to go on. */
static bool obey(struct session *s, int key)
{
	switch (key) {
	case 'q':
	case 'Q':
	case 4: /* Ctrl-D */
		return false;
	case '>':
	case '.':
		s->look.by = (s->look.by + 1) % TOP_COLUMNS;
		break;
	case '<':
	case ',':
		s->look.by = (s->look.by + TOP_COLUMNS - 1) % TOP_COLUMNS;
		break;
	case 'i':
		s->look.turned = !s->look.turned;
		break;
	}
	return key >= 0;
}

/* Until it is time for the next look. */
static bool wait_with_keys(struct session *s)
{
	uint64_t end = published_now() + (uint64_t)(s->args->interval * 1e9), now;

	while ((now = published_now()) < end) {
		if (!obey(s, screen_key((unsigned)((end - now) / 1000000 + 1))))
			return false;
		show(s);
	}
	return true;
}

static bool wait_for_next(struct session *s)
{
	struct timespec t = { (time_t)s->args->interval, 0 };

	if (s->live)
		return wait_with_keys(s);
	t.tv_nsec = (long)((s->args->interval - (double)t.tv_sec) * 1e9);
	while (nanosleep(&t, &t) != 0 && errno == EINTR)
		;
	return !ferror(stdout);
}

static bool draw(FILE *out, const void *ctx)
{
	const struct session *s = ctx;

	return top_print_svg(&s->now, &s->look, out);
}

static int watch(struct session *s)
{
	for (long n = 0;; n++) {
		if (!take(s))
			return STATUS_FAILED;
		if (!s->args->svg)
			show(s);
		if ((s->args->count && n + 1 >= s->args->count) || !wait_for_next(s))
			return STATUS_OK;
	}
}

int command_top(int argc, char **argv)
{
	struct arguments args = { .by = TOP_RESIDENT, .interval = 1 };
	struct session s = { .args = &args };
	int status = parse(argc, argv, &args), drawn = STATUS_OK;

	if (status != STATUS_OK)
		return status;
	s.from.pid = args.pid;
	setlocale(LC_CTYPE, "");
	s.look = (struct top_look){ .columns = 80, .lines = INT_MAX, .by = args.by,
				    .utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0 };
	/* (What cannot be looked at at all is told before the screen changes.) */
	if (!args.json && !args.svg && args.count != 1 && take(&s))
		s.live = s.look.keys = s.look.terminal = screen_enter();
	status = *s.from.error ? STATUS_FAILED : watch(&s);
	if (status == STATUS_OK && args.svg) {
		top_sort(&s.now, s.look.by, s.look.turned);
		drawn = svg_write("top", args.svg, draw, &s);
	}
	screen_leave();
	top_free(&s.now);
	top_free(&s.before);
	published_end(&s.from);
	if (status != STATUS_OK)
		return fail(status, "top: %d: %s", args.pid, s.from.error);
	if (screen_signal()) {
		signal(screen_signal(), SIG_DFL);
		raise(screen_signal());
	}
	return drawn;
}
