/* SPDX-License-Identifier: MIT */
/* A fork of a Criterion test under AddressSanitizer waits until no other thread can be amid an allocation.
 *
 * The allocator of GCC 12's AddressSanitizer has locks that a fork does not wait for: a child that allocates or makes
 * threads stands for ever when its parent's other thread held one. Such threads are there in every test: nanomsg's,
 * which frees what Criterion's assertions allocated to tell its runner, and threads of the library and of the test that
 * have just begun, for the sanitizer allocates what it knows of them. So each is waited for until the kernel has it
 * asleep in a system call. What runs on by design, as a test's own threads do that churn, is waited for a little
 * while only, and once; it does not allocate by malloc once it has begun.
 *
 * In every test program by libquarry-test (-u in LDADD); where there is no AddressSanitizer it does nothing. */
#define _GNU_SOURCE /* gettid */
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Criterion's, where the program is a Criterion test. */
extern void *criterion_initialize(void) __attribute__((weak));

#define WAIT_MS 50             /* for a thread that may run on by design */
#define WAIT_FOR_KNOWN_MS 5000 /* for nanomsg's thread and the library's, which do not */

void tests_settle_before_forks(void);   /* -u needs a name */

static pid_t me;

/* What /proc says in the first line of a file of a thread; false: nothing, as of a thread that is gone. */
static bool read_of_thread(const char *thread, const char *file, char text[static 64])
{
	char path[96];
	ssize_t length = -1;
	int fd;

	snprintf(path, sizeof path, "/proc/self/task/%.16s/%s", thread, file);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		length = read(fd, text, 63);
		close(fd);
	}
	text[length > 0 ? length : 0] = '\0';
	return length > 0;
}

/* `first`: it is the oldest beside the main one, which is nanomsg's (Criterion's runner is joined before a test is
 * begun), and rests in epoll_wait alone. */
static bool is_settled(const char *thread, bool first, bool *known)
{
	char text[64];
	long number;
	char *end;

	*known = first || (read_of_thread(thread, "comm", text) && strncmp(text, "quarry", 6) == 0);
	if (!read_of_thread(thread, "syscall", text))
		return true;
	number = strtol(text, &end, 10);   /* "running", or the call's number, -1 for a fault */
	return end != text && number >= 0 && (!first || number == SYS_epoll_wait || number == SYS_epoll_pwait);
}

/* Threads that ran on when they were waited for. */
static pid_t runs_on[16];
static unsigned run_on;

static bool is_known_to_run_on(pid_t thread)
{
	for (unsigned i = 0; i < run_on && i < 16; i++)
		if (runs_on[i] == thread)
			return true;
	return false;
}

/* Whether all but the caller are settled, or were given up after `ms` of waiting. (The kernel lists threads in the order
 * in which they began.) */
static bool are_settled(DIR *tasks, int ms)
{
	bool settled = true, first = true;
	const struct dirent *entry;

	rewinddir(tasks);
	while ((entry = readdir(tasks)) != NULL) {
		pid_t thread = atoi(entry->d_name);   /* 0: "." and ".." */
		bool is_first = first && thread != 0 && thread != me, known;

		if (is_first)
			first = false;
		if (thread == 0 || thread == gettid() || is_known_to_run_on(thread) ||
		    is_settled(entry->d_name, is_first, &known))
			continue;
		if (ms >= (known ? WAIT_FOR_KNOWN_MS : WAIT_MS))
			runs_on[run_on++ % 16] = thread;
		else
			settled = false;
	}
	return settled;
}

static void wait_until_settled(void)
{
	DIR *tasks;

	if (getpid() != me)
		return;   /* a child of a test: nanomsg's thread is not in it */
	tasks = opendir("/proc/self/task");
	for (int ms = 0; tasks != NULL && !are_settled(tasks, ms); ms++)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	if (tasks != NULL)
		closedir(tasks);
}

__attribute__((constructor)) void tests_settle_before_forks(void)
{
#ifdef __SANITIZE_ADDRESS__
	me = getpid();
	if (criterion_initialize != NULL)
		pthread_atfork(wait_until_settled, NULL, NULL);
#else
	(void)wait_until_settled;
#endif
}
