/* SPDX-License-Identifier: MIT */
/* What is told at exit: the statistics, when the option stats_at_exit asks for them, what cannot be reached any more, when
 * leaks_at_exit does, and the profile, when the environment says where to (QUARRY_PROFILE). */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "include/quarry/quarry.h"
#include "lib/api/init.h"
#include "lib/base/settings.h"
#include "lib/base/text.h"
#include "lib/cache/sample.h"
#include "numa/os.h"

const char qy_at_exit = 1;

/* Where they go: many programs close standard error before destructors run, so that a copy is needed. */
static int exit_fd = STDERR_FILENO;

static __attribute__((constructor)) void keep_standard_error(void)
{
	int copy;

	qy_init_once();
	if (qy_setting(profile) != 0)
		qy_sampling_start((uint64_t)qy_setting(profile), (int)qy_setting(profile_stacks));
	if (qy_setting(stats_at_exit) == 0 && qy_setting(leaks_at_exit) == 0)
		return;
	copy = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 200);
	if (copy >= 0)
		exit_fd = copy;
}

/* The path with the process's number for each %p. False when it is too long. */
static bool expand(const char *pattern, char *path, size_t size)
{
	struct qy_text out;

	qy_text_init(&out, path, size, -1);
	for (; *pattern != 0; pattern++) {
		bool number = pattern[0] == '%' && pattern[1] == 'p';

		if (number)
			qy_text_format(&out, "%d", qy_os->process_id());
		else
			qy_text_put(&out, pattern, 1);
		pattern += number;
	}
	return out.total < size;
}

static int format_of(const char *path)
{
	static const struct {
		const char *end;
		int format;
	} formats[] = {
		{ ".heap", QUARRY_PROFILE_HEAP },
		{ ".collapsed", QUARRY_PROFILE_COLLAPSED },
		{ ".json", QUARRY_PROFILE_JSON },
	};
	size_t n = strlen(path);

	for (unsigned i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
		size_t m = strlen(formats[i].end);

		if (n > m && strcmp(path + n - m, formats[i].end) == 0)
			return formats[i].format;
	}
	return QUARRY_PROFILE_PPROF;
}

/* (Nobody is there to be told of an error by its return: it is said, as that of a wrong option is.) */
static __attribute__((noinline)) void write_profile(const char *pattern)
{
	char path[4096], line[512];
	struct qy_text out;
	int fd = -1, error;

	errno = ENAMETOOLONG;
	if (expand(pattern, path, sizeof(path)))
		fd = qy_os->create(path);
	if (fd >= 0 && quarry_profile_write(fd, format_of(path)) == 0) {
		qy_os->close(fd);
		return;
	}
	error = errno;
	qy_text_init(&out, line, sizeof(line), exit_fd);
	qy_text_format(&out, "quarry: QUARRY_PROFILE: ");
	qy_text_quoted(&out, pattern, strlen(pattern), 200);
	qy_text_format(&out, ": %s\n", strerror(error));
	(void)qy_text_flush(&out);
	if (fd >= 0)
		qy_os->close(fd);
}

static __attribute__((noinline)) void say_error(void)
{
	char line[512];
	struct qy_text out;

	qy_text_init(&out, line, sizeof(line), exit_fd);
	qy_text_format(&out, "quarry: leaks_at_exit: %s\n", quarry_error_text());
	(void)qy_text_flush(&out);
}

/* (With little on the stack: what is left over there from the program counts as its own.) */
static __attribute__((destructor)) void say_all(void)
{
	long how = qy_setting(stats_at_exit), leaks = qy_setting(leaks_at_exit);
	const char *pattern = secure_getenv("QUARRY_PROFILE");

	if (pattern != NULL && atomic_load_explicit(&qy_sample_mean_last, memory_order_relaxed) != 0)
		write_profile(pattern);
	if (leaks != 0 && quarry_leaks_print(exit_fd, leaks == 2) != 0)
		say_error();
	if (how != 0)
		quarry_stats_print(exit_fd, how == 2);
}
