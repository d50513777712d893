/* SPDX-License-Identifier: MIT */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "lib/view/tell.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "include/quarry/quarry.h"
#include "lib/base/lock.h"
#include "lib/base/settings.h"
#include "lib/base/text.h"
#include "lib/cache/sample.h"
#include "lib/view/whole.h"
#include "numa/os.h"

#define PATH_BYTES 4096
#define LAST_MS 10000 /* so long the end of the program waits for a telling that is under way */

struct place {
	const char *variable;
	char pattern[PATH_BYTES]; /* "": not wanted */
	bool too_long;
};

static struct place profile_to = { "QUARRY_PROFILE", "", false };
static struct place view_to = { "QUARRY_VIEW", "", false };
static long run_pid; /* of what quarry run ran; 0: it ran nothing */

/* Where all else goes, and what that was: a program may have closed it, and opened something of its own. */
static int told_fd = STDERR_FILENO;
static struct stat told_file;
static bool told_is_known;

static _Atomic(uint32_t) teller; /* the process that tells now, or 0: a forked child's is not its parent's */
static unsigned number;          /* of the telling, from 1 on, of the teller's; who tells writes them */
static int number_of;

static void keep(struct place *place)
{
	const char *value = secure_getenv(place->variable);
	size_t n = value == NULL ? 0 : strlen(value);

	place->too_long = n >= sizeof(place->pattern);
	if (n > 0)
		memcpy(place->pattern, value, qy_min(n, sizeof(place->pattern) - 1));
}

/* Under `quarry run` a summary is of the program that it ran, and not of all that this started. */
static bool is_the_one(void)
{
	return run_pid == 0 || run_pid == qy_os->process_id();
}

/* Whether there is, at the end or when asked, anything for standard error but what fails. */
static bool wants_words(void)
{
	long how = qy_setting(stats_at_exit);

	return qy_setting(leaks_at_exit) != 0 || how == 1 || how == 2 || (how == 3 && is_the_one());
}

/* A copy that nobody needs would keep a pipe open whose other end waits for that. */
static void after_fork(void)
{
	if (told_fd != STDERR_FILENO && !wants_words()) {
		(void)close(told_fd);
		told_fd = STDERR_FILENO;
	}
}

void qy_tell_prepare(void)
{
	const char *of = secure_getenv("QUARRY_RUN");
	int copy;

	keep(&profile_to);
	keep(&view_to);
	run_pid = of == NULL ? 0 : strtol(of, NULL, 10);
	if (profile_to.pattern[0] == 0 && view_to.pattern[0] == 0 && !wants_words() && qy_setting(report_signal) == 0)
		return;
	told_is_known = fstat(STDERR_FILENO, &told_file) == 0;
	if (!wants_words())
		return;
	copy = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 200);
	if (copy < 0)
		return;
	told_fd = copy;
	(void)pthread_atfork(NULL, NULL, after_fork);
}

static bool is_told_file(int fd)
{
	struct stat is;

	return fstat(fd, &is) == 0 && is.st_dev == told_file.st_dev && is.st_ino == told_file.st_ino &&
	       is.st_rdev == told_file.st_rdev;
}

/* The descriptor that still is what it was; -1: none. (What was switched on later goes to what is there now.) */
static int words_to(void)
{
	if (!told_is_known || is_told_file(told_fd))
		return told_fd;
	return is_told_file(STDERR_FILENO) ? STDERR_FILENO : -1;
}

/* ---- files ---- */

/* The path with the process's number for each %p, the telling's for each %n, and % for %%. False when it is too long. */
static bool expand(const struct place *place, char *path, size_t size)
{
	const char *pattern = place->pattern;
	struct qy_text out;

	qy_text_init(&out, path, size, -1);
	for (; *pattern != 0; pattern++) {
		char sign = pattern[0] == '%' ? pattern[1] : 0;

		if (sign == 'p' || sign == 'n')
			qy_text_format(&out, "%d", sign == 'p' ? qy_os->process_id() : (int)number);
		else
			qy_text_put(&out, pattern, 1);
		pattern += sign == 'p' || sign == 'n' || sign == '%';
	}
	return !place->too_long && out.total < size;
}

static bool ends_with(const char *path, const char *end)
{
	size_t n = strlen(path), m = strlen(end);

	return n > m && strcmp(path + n - m, end) == 0;
}

static int write_profile(int fd, const void *name)
{
	const char *path = name;
	int format = ends_with(path, ".heap")        ? QUARRY_PROFILE_HEAP
		     : ends_with(path, ".collapsed") ? QUARRY_PROFILE_COLLAPSED
		     : ends_with(path, ".json")      ? QUARRY_PROFILE_JSON
						     : QUARRY_PROFILE_PPROF;

	if (atomic_load_explicit(&qy_sample_mean_last, memory_order_relaxed) != 0)
		return quarry_profile_write(fd, format);
	errno = ENODATA;
	return -1;
}

static int write_view(int fd, const void *path)
{
	quarry_view *view = quarry_view_open();
	int error, result;

	if (view == NULL)
		return -1;
	result = quarry_view_dump(view, fd, ends_with(path, ".json") ? QUARRY_DUMP_JSON : QUARRY_DUMP_BINARY);
	error = errno;
	quarry_view_close(view);
	errno = error;
	return result;
}

static __attribute__((noinline)) void tell_to(const struct place *place, int (*write_it)(int fd, const void *path))
{
	char path[PATH_BYTES], line[512];
	struct qy_text out;
	bool is_path;
	int error;

	if (place->pattern[0] == 0)
		return;
	errno = ENAMETOOLONG;
	is_path = expand(place, path, sizeof(path));
	if (is_path && qy_write_whole(path, write_it, path) == 0)
		return;
	error = errno;
	qy_text_init(&out, line, sizeof(line), -1);
	qy_text_format(&out, "%s: ", place->variable);
	qy_text_quoted(&out, is_path ? path : place->pattern, strlen(is_path ? path : place->pattern), 200);
	qy_tell_error(line, error);
}

/* ---- all of it ---- */

/* (Nobody is there to be told of an error by its return: it is said, as that of a wrong option is.) */
void qy_tell_error(const char *what, int error)
{
	char line[768];
	struct qy_text out;

	qy_text_init(&out, line, sizeof(line), words_to());
	if (out.fd < 0)
		return;
	qy_text_format(&out, "quarry: %s: %s\n", what,
		       error == ENODATA ? "no profile was kept: set the option profile, as in QUARRY_OPTIONS=profile=512k"
					: strerror(error));
	(void)qy_text_flush(&out);
}

static __attribute__((noinline)) void tell_statistics(int fd)
{
	long how = qy_setting(stats_at_exit);

	if (how == 3 && is_the_one())
		(void)qy_summary_print(fd);
	else if (how == 1 || how == 2)
		(void)quarry_stats_print(fd, how == 2);
}

static __attribute__((noinline)) void tell_leaks_error(int fd)
{
	char line[512];
	struct qy_text out;

	qy_text_init(&out, line, sizeof(line), fd);
	qy_text_format(&out, "quarry: leaks_at_exit: %s\n", quarry_error_text());
	(void)qy_text_flush(&out);
}

/* (With little on the stack: what is left over there from the program counts as its own.) */
static void tell_all(void)
{
	long leaks = qy_setting(leaks_at_exit);
	int fd;

	number = number_of == qy_os->process_id() ? number + 1 : 1;
	number_of = qy_os->process_id();
	tell_to(&profile_to, write_profile);
	tell_to(&view_to, write_view);
	fd = words_to();
	if (fd < 0)
		return;
	if (leaks != 0 && quarry_leaks_print(fd, leaks == 2) != 0)
		tell_leaks_error(fd);
	tell_statistics(fd);
}

/* A pipe that nobody reads, or a file that may not grow, is no reason to end the program by a signal. */
static __attribute__((noinline)) void hold_signals(sigset_t *before, sigset_t *ours)
{
	sigset_t waiting;

	sigemptyset(ours);
	sigaddset(ours, SIGPIPE);
	sigaddset(ours, SIGXFSZ);
	pthread_sigmask(SIG_BLOCK, ours, before);
	sigpending(&waiting);
	if (sigismember(&waiting, SIGPIPE))
		sigdelset(ours, SIGPIPE);
	if (sigismember(&waiting, SIGXFSZ))
		sigdelset(ours, SIGXFSZ);
}

static __attribute__((noinline)) void let_signals_go(const sigset_t *before, const sigset_t *ours)
{
	const struct timespec now = { 0, 0 };

	while (sigtimedwait(ours, NULL, &now) > 0)
		;
	pthread_sigmask(SIG_SETMASK, before, NULL);
}

static bool begin(uint64_t most_ms)
{
	uint64_t until = most_ms == UINT64_MAX ? UINT64_MAX : qy_os->now_ms() + most_ms;
	uint32_t me = (uint32_t)qy_os->process_id();

	for (;;) {
		uint32_t is = 0;

		if (atomic_compare_exchange_strong(&teller, &is, me) ||
		    (is != me && atomic_compare_exchange_strong(&teller, &is, me)))
			return true;
		if (qy_os->now_ms() >= until)
			return false;
		qy_sleep_on(&teller, is, 100);
	}
}

static void tell(void)
{
	sigset_t before, ours;

	hold_signals(&before, &ours);
	tell_all();
	let_signals_go(&before, &ours);
}

void qy_tell(void)
{
	if (!begin(UINT64_MAX))
		return;
	tell();
	atomic_store(&teller, 0);
	qy_wake(&teller);
}

/* (Nobody tells after it: it would be cut by the end.) */
void qy_tell_last(void)
{
	bool wanted = profile_to.pattern[0] != 0 || view_to.pattern[0] != 0 || wants_words();

	if (wanted && begin(LAST_MS))
		tell();
}
