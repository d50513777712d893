/* SPDX-License-Identifier: MIT */
/* The command `quarry metrics`: what a process publishes as OpenMetrics, to standard output, into a file for
 * node_exporter's textfile collector, or to whoever connects to a Unix socket. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tools/metrics.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct arguments {
	const char *textfile, *socket;
	unsigned flags;
	int pid;
};

static int parse_one(struct arguments *args, int argc, char **argv, int *i)
{
	const char *name = argv[*i];

	for (int k = 0; k < 2; k++) {
		const char *option = k ? "--socket" : "--textfile", **to = k ? &args->socket : &args->textfile;
		size_t n = strlen(option);

		if (strncmp(name, option, n) != 0 || (name[n] != '=' && name[n] != '\0'))
			continue;
		*to = name[n] == '=' ? name + n + 1 : *i + 1 < argc ? argv[++*i] : "";
		return **to ? STATUS_OK : fail(STATUS_USAGE, "metrics: %s needs a path", option);
	}
	if (strcmp(name, "--classic") == 0)
		args->flags |= QUARRY_METRICS_CLASSIC;
	else if (strcmp(name, "--no-arenas") == 0)
		args->flags &= ~(unsigned)QUARRY_METRICS_ARENAS;
	else if (name[0] == '-')
		return fail(STATUS_USAGE, "metrics: unknown option '%s'; see quarry metrics --help", name);
	else if (args->pid)
		return fail(STATUS_USAGE, "metrics: one PID; see quarry metrics --help");
	else
		return (int)published_pid("metrics", name, &args->pid);
	return STATUS_OK;
}

static bool ends_in(const char *path, const char *end)
{
	size_t n = strlen(path), m = strlen(end);

	return n >= m && strcmp(path + n - m, end) == 0;
}

static int parse(int argc, char **argv, struct arguments *args)
{
	int status = STATUS_OK;

	for (int i = 1; i < argc && status == STATUS_OK; i++)
		status = parse_one(args, argc, argv, &i);
	if (status != STATUS_OK)
		return status;
	if (!args->pid)
		return fail(STATUS_USAGE, "metrics: no PID; see quarry metrics --help");
	if (args->textfile && args->socket)
		return fail(STATUS_USAGE, "metrics: --textfile or --socket, not both");
	if (args->textfile && !ends_in(args->textfile, ".prom"))
		return fail(STATUS_USAGE, "metrics: --textfile %s: node_exporter's textfile collector reads nothing whose name "
			    "does not end in .prom", args->textfile);
	return STATUS_OK;
}

struct text {
	const struct published *from;
	unsigned flags;
};

static int write_text(int fd, const void *ctx)
{
	const struct text *t = ctx;

	return quarry_published_metrics(t->from->copy, t->from->size, fd, t->flags) == 0 ? 0 : errno;
}

/* The collector reads *.prom at any time. */
static int write_textfile(const struct published *p, const char *path, unsigned flags)
{
	int error = write_at_once(path, WRITE_FOR_ALL, write_text, &(struct text){ p, flags | QUARRY_METRICS_CLASSIC });

	return error ? fail(STATUS_FAILED, "metrics: %s: %s", path, strerror(error)) : STATUS_OK;
}

static int write_stdout(const struct published *p, unsigned flags)
{
	if (quarry_published_metrics(p->copy, p->size, STDOUT_FILENO, flags) != 0)
		return fail(STATUS_FAILED, "standard output: %s", strerror(errno));
	return STATUS_OK;
}

int command_metrics(int argc, char **argv)
{
	struct arguments args = { .flags = QUARRY_METRICS_ARENAS };
	struct published from = { 0 };
	int status = parse(argc, argv, &args);

	if (status != STATUS_OK)
		return status;
	from.pid = args.pid;
	if (published_read(&from) != STATUS_OK)
		status = fail(STATUS_FAILED, "metrics: %d: %s", args.pid, from.error);
	else if (args.socket)
		status = metrics_serve(&from, args.socket, args.flags);
	else
		status = args.textfile ? write_textfile(&from, args.textfile, args.flags) : write_stdout(&from, args.flags);
	published_end(&from);
	return status;
}
