/* SPDX-License-Identifier: MIT */
/* Another process's page is found by its name in /proc/PID/maps, and copied (published_memory.c). It is the other
 * process's to write, and so may be anything: how much is copied is bounded here, and what it means is the library's to
 * say. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tools/published_memory.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "tools/utf8.h"

#define LARGEST (UINT64_C(4) << 20) /* no page of ours is so large */

uint64_t published_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

enum status published_pid(const char *command, const char *text, int *pid)
{
	char *end;
	long n;

	errno = 0;
	n = strtol(text, &end, 10);
	if (*text < '0' || *text > '9' || *end)
		return fail(STATUS_USAGE, "%s: '%s' is not the number of a process", command, text);
	if (errno || n <= 0 || n > INT_MAX)
		return fail(STATUS_FAILED, "%s: %s: %s", command, text, strerror(ESRCH));
	*pid = (int)n;
	return STATUS_OK;
}

static enum status wrong(struct published *p, const char *format, ...) __attribute__((format(printf, 2, 3)));

static enum status wrong(struct published *p, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(p->error, sizeof(p->error), format, args);
	va_end(args);
	return STATUS_FAILED;
}

static enum status wrong_of(struct published *p, int error)
{
	p->gone = error == ENOENT || error == ESRCH || error == ESTALE;
	if (error == ESTALE)
		return wrong(p, "it became another program meanwhile: %s", utf8_shown(p->program));
	if (p->gone)
		return wrong(p, "%s", strerror(ESRCH));
	if (error == ENODATA)
		return wrong(p, "it is on quarry, and has published nothing (yet): QUARRY_OPTIONS=publish=on");
	if (error == EPERM || error == EACCES)
		return wrong(p, "not permitted: it takes the right to trace the process (its user, and "
				"kernel.yama.ptrace_scope=0; or root)");
	return wrong(p, "%s", strerror(error));
}

/* ---- /proc ---- */

/* "123 (a) b) S 1 ...": the name may have anything in it, so the last parenthesis counts. 0, or an errno; ESRCH: that
 * is another process, or what is left of one that has ended; ESTALE: it runs another program, whose stack begins elsewhere
 * (told to those who may trace the process, 0 to others). */
static int read_stat(struct published *p)
{
	char path[64], text[1024], *open, *close, state;
	uint64_t started, stack;

	snprintf(path, sizeof(path), "/proc/%d/stat", p->pid);
	if (!read_text(path, text, sizeof(text)))
		return errno;
	open = strchr(text, '(');
	close = strrchr(text, ')');
	if (!open || !close || close < open ||
	    sscanf(close + 1, " %c %*d %*d %*d %*d %*d %*u %" SCNu64 " %*u %" SCNu64
			      " %*u %*u %*u %*d %*d %*d %*d %*d %*d %" SCNu64 " %*u %*d %*u %*u %*u %" SCNu64,
		   &state, &p->minor, &p->major, &started, &stack) != 5)
		return EIO;
	if ((p->started && p->started != started) || state == 'Z' || state == 'X')
		return ESRCH;
	p->started = started;
	snprintf(p->program, sizeof(p->program), "%.*s", (int)(close - open - 1), open + 1);
	if (p->stack && stack && p->stack != stack)
		return ESTALE;
	p->stack = stack ? stack : p->stack;
	return 0;
}

static bool is_library(const char *line)
{
	/* (In a program that is linked statically nothing has that name.) */
	return strstr(line, "/libquarry.so") || strstr(line, "/libquarry-malloc.so");
}

/* As the process knows itself, in the innermost of its namespaces: the last of "NStgid:	23	7". 0: not told. */
static int number_inside(int pid)
{
	char path[64], text[4096], *line, *end;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	if (!read_text(path, text, sizeof(text)))
		return 0;
	line = strstr(text, "\nNStgid:");
	line = line ? line : strstr(text, "\nTgid:"); /* (a kernel without such namespaces) */
	if (!line)
		return 0;
	end = line + 1 + strcspn(line + 1, "\n");
	while (end[-1] >= '0' && end[-1] <= '9')
		end--;
	return (int)strtol(end, NULL, 10);
}

/* "7f00-7f10 rw-s 00000000 00:01 7   /memfd:quarry-published (deleted)". A child that was forked at the wrong moment has
 * its parent's as well: which is its own, their heads tell. 0, or an errno; ENODATA: there is none, ENOPKG: nor the
 * library. */
static int find_pages(struct published *p)
{
	static const char name[] = "/memfd:" QUARRY_PUBLISHED_NAME " (deleted)\n";
	char path[64], *line = NULL;
	size_t size = 0;
	bool library = false;
	uint64_t start, end;
	char rights[5];
	FILE *maps;
	int error;

	snprintf(path, sizeof(path), "/proc/%d/maps", p->pid);
	maps = fopen(path, "re");
	if (!maps)
		return errno;
	errno = 0;
	while (p->place_count < PLACES && getline(&line, &size, maps) > 0) {
		char *at = strchr(line, '/');

		library = library || is_library(line);
		if (at && strcmp(at, name) == 0 &&
		    sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s ", &start, &end, rights) == 3 &&
		    strcmp(rights, "rw-s") == 0 && start < end && end - start <= LARGEST &&
		    end - start >= sizeof(quarry_published))
			p->places[p->place_count++] = (struct place){ start, end - start };
	}
	error = ferror(maps) ? errno : 0;
	free(line);
	fclose(maps);
	return error ? error : p->place_count ? 0 : library ? ENODATA : ENOPKG;
}

/* ---- all of it ---- */

static enum status prepare(struct published *p)
{
	int error = find_pages(p);

	p->known_as = number_inside(p->pid);
	if (error == ENOPKG)
		return wrong(p, "it is not on quarry, or has published nothing yet: QUARRY_OPTIONS=publish=on");
	if (error)
		return wrong_of(p, error);
	return STATUS_OK;
}

/* Its memory went: it ended, or became another program, or is at it. */
static int why_it_is_gone(struct published *p)
{
	const struct timespec between = { 0, 2000000 };
	int error = 0;

	for (int i = 0; i < 50 && !error; i++) {
		error = read_stat(p);
		if (!error)
			nanosleep(&between, NULL);
	}
	return error ? error : ESRCH;
}

enum status published_read(struct published *p)
{
	int error = read_stat(p);

	if (error)
		return wrong_of(p, error);
	if (!p->place_count && prepare(p) != STATUS_OK)
		return STATUS_FAILED;
	error = published_copy(p);
	if (error == EIO || error == EFAULT)
		error = why_it_is_gone(p);
	if (error == EAGAIN)
		return wrong(p, "published: it is being written all the time");
	if (error == ETIMEDOUT)
		return wrong(p, "published: reading it comes to no end: who should fill its memory does not");
	if (error)
		return wrong_of(p, error);
	if (quarry_published_look(p->copy, p->size, NULL, 0, NULL, NULL) != 0)
		return wrong(p, "%s", quarry_error_text());
	return STATUS_OK;
}

bool published_ended(struct published *p)
{
	int error = read_stat(p);

	return error == ESRCH || error == ENOENT;
}

int published_process(const struct published *p)
{
#ifdef SYS_pidfd_open
	return (int)syscall(SYS_pidfd_open, p->pid, 0);
#else
	(void)p;
	errno = ENOSYS;
	return -1;
#endif
}

void published_end(struct published *p)
{
	free(p->copy);
	p->copy = NULL;
}
