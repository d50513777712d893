/* SPDX-License-Identifier: MIT */
/* reclaim=timer in a program that knows nothing of it: one thread, which frees and sleeps, and shrinks; whose handler
 * for the signal, when it has one, stays its own; and whose children, which exec or not, are as any others.
 * variants: preload both linked twice archive static */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

#include "tests/family/family.h"

#define MIB ((size_t)1 << 20)
#define BLOCKS 64
#define SECONDS 40

static volatile sig_atomic_t urgent;

static void on_urgent(int sig)
{
	(void)sig;
	urgent++;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static size_t resident(void)
{
	char text[128] = "", *at = text;
	int fd = open("/proc/self/statm", O_RDONLY);

	CHECK(fd >= 0 && read(fd, text, sizeof text - 1) > 0);
	close(fd);
	strtoul(at, &at, 10);
	return strtoul(at, NULL, 10) * (size_t)sysconf(_SC_PAGESIZE);
}

static quarry_stats stats(void)
{
	quarry_stats s = { .version = QUARRY_STATS_VERSION };

	CHECK(quarry_stats_get(NULL, &s) == 0);
	return s;
}

static void fill_and_free(void)
{
	static char *p[BLOCKS];

	for (int i = 0; i < BLOCKS; i++) {
		p[i] = malloc(MIB);
		CHECK(p[i] != NULL);
		memset(p[i], 1, MIB);
	}
	CHECK(resident() >= BLOCKS * MIB);
	for (int i = 0; i < BLOCKS; i++)
		free(p[i]);
}

static void shrink(void)
{
	double began = now();

	fill_and_free();
	while (resident() > 24 * MIB) {
		CHECK(now() - began < SECONDS);
		poll(NULL, 0, 50);
		CHECK(family_threads() == 1);
	}
	CHECK(stats().reclaimed_by == QUARRY_RECLAIMER_TIMER);
	CHECK(stats().refused[QUARRY_REFUSED_TIMER] == 0);
}

static void has_a_handler(void)
{
	struct sigaction action = { .sa_handler = on_urgent }, is;

	CHECK(sigaction(SIGURG, &action, NULL) == 0);
	fill_and_free();
	CHECK(sigaction(SIGURG, NULL, &is) == 0 && is.sa_handler == on_urgent);
	CHECK(stats().reclaimed_by == QUARRY_RECLAIMER_SERIES);
	CHECK(stats().refused[QUARRY_REFUSED_TIMER] == 1);
	/* In series it goes back too. */
	for (int i = 0; i < 1000000 && resident() > 24 * MIB; i++)
		free(malloc(100000));
	CHECK(resident() <= 24 * MIB);
	CHECK(urgent == 0);
	raise(SIGURG);
	CHECK(urgent == 1);
}

/* The kernel counts a timer as a signal that is pending. */
static void has_no_timers(void)
{
	struct rlimit none = { 0, 0 };

	CHECK(setrlimit(RLIMIT_SIGPENDING, &none) == 0);
	fill_and_free();
	CHECK(stats().reclaimed_by == QUARRY_RECLAIMER_SERIES);
	CHECK(stats().refused[QUARRY_REFUSED_TIMER] == 1);
}

static void in_child(void (*part)(void))
{
	int status;
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (pid == 0) {
		part();
		_exit(0);
	}
	while (waitpid(pid, &status, 0) != pid)
		CHECK(errno == EINTR);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void exec_true(void)
{
	fill_and_free();
	execl("/bin/true", "true", (char *)NULL);
	execl("/usr/bin/true", "true", (char *)NULL);
	_exit(1);
}

int main(int argc, char **argv)
{
	(void)argc;
	if (getenv("QUARRY_OPTIONS") == NULL) {
		CHECK(setenv("QUARRY_OPTIONS", "reclaim=timer,decay_ms=300,reclaim_interval=100", 1) == 0);
		execv("/proc/self/exe", argv);
		family_skip("no /proc/self/exe");
	}
	family_in_use();
	in_child(has_a_handler);
	in_child(has_no_timers);
	shrink();
	in_child(shrink);
	in_child(exec_true);
	shrink();
	/* As from somebody else: what is ignored by default is. */
	CHECK(raise(SIGURG) == 0);
	return 0;
}
