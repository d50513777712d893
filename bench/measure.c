/* SPDX-License-Identifier: MIT */
/* Runs one program, with a library preloaded into it and into nothing else, and prints what the kernel says of it:
 *   measure [--preload LIB.so] [--timeout SECONDS] [--output FILE] [--warm MIB] PROGRAM [ARGUMENT...]
 * The program's own output goes through untouched, or into the file; after it come, as "@name value unit", the lines
 *   @wall, @user, @sys (s), @peak (MiB, the largest resident set), @faults, @status (0, or what the shell would say).
 * With --warm so much memory is touched and given back before: what a virtual machine has not used for a while its host
 * may have taken away, and whoever touches it first waits milliseconds for each huge page. That is not the program's.
 * Processes that the program starts and waits for count as it does; the peak is the largest one's.
 * Being small matters: Linux counts into a program's peak what its process held before exec, here a forked copy of
 * this one. Exits with the program's status, 124 after the timeout. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile pid_t child;
static volatile sig_atomic_t timed_out;

/* The program is the leader of a group, so that what it started goes with it. It is not reaped before wait4 returns, so
 * the number is still its. */
static void on_alarm(int signal)
{
	(void)signal;
	timed_out = 1;
	kill(-child, SIGKILL);
}

/* A terminal's interrupt does not reach a group in the background. The program's end is waited for, as whoever sent the
 * signal may be about to remove the program's files. */
static void on_end(int signal)
{
	kill(-child, SIGKILL);
	waitpid(child, NULL, 0);
	_exit(128 + signal);
}

static void warm(size_t bytes)
{
	char *p = bytes == 0 ? MAP_FAILED
			     : mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return;
	madvise(p, bytes, MADV_HUGEPAGE);
	for (size_t at = 0; at < bytes; at += 4096)
		p[at] = 1;
	munmap(p, bytes);
}

static double seconds(struct timeval t)
{
	return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

static void run(const char *preload, const char *output, char **command)
{
	int file = output ? open(output, O_WRONLY | O_CREAT | O_TRUNC, 0666) : -1;

	if (output && (file < 0 || dup2(file, STDOUT_FILENO) < 0)) {
		fprintf(stderr, "measure: %s: %s\n", output, strerror(errno));
		_exit(127);
	}
	setpgid(0, 0);
	/* Should this program's end come before it can end the other. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (file >= 0)
		close(file);
	if (preload)
		setenv("LD_PRELOAD", preload, 1);
	else
		unsetenv("LD_PRELOAD");
	execv(command[0], command);
	fprintf(stderr, "measure: %s: %s\n", command[0], strerror(errno));
	_exit(127);
}

int main(int argc, char **argv)
{
	const char *preload = NULL, *output = NULL;
	struct timespec from, to;
	struct rusage used;
	unsigned timeout = 0;
	size_t megabytes = 0;
	int at = 1, status = 0, code;

	for (; at + 1 < argc && strncmp(argv[at], "--", 2) == 0; at += 2) {
		if (strcmp(argv[at], "--preload") == 0)
			preload = argv[at + 1];
		else if (strcmp(argv[at], "--timeout") == 0)
			timeout = (unsigned)strtoul(argv[at + 1], NULL, 10);
		else if (strcmp(argv[at], "--output") == 0)
			output = argv[at + 1];
		else if (strcmp(argv[at], "--warm") == 0)
			megabytes = strtoul(argv[at + 1], NULL, 10);
		else
			break;
	}
	if (at >= argc || strncmp(argv[at], "--", 2) == 0) {
		fputs("usage: measure [--preload LIB.so] [--timeout SECONDS] [--output FILE] [--warm MIB] PROGRAM "
		      "[ARGUMENT...]\n",
		      stderr);
		return 2;
	}
	warm(megabytes << 20);
	clock_gettime(CLOCK_MONOTONIC, &from);
	child = fork();
	if (child < 0) {
		perror("measure: fork");
		return 2;
	}
	if (child == 0)
		run(preload, output, argv + at);
	setpgid(child, child);
	signal(SIGALRM, on_alarm);
	signal(SIGINT, on_end);
	signal(SIGTERM, on_end);
	signal(SIGHUP, on_end);
	alarm(timeout);
	while (wait4(child, &status, 0, &used) < 0)
		if (errno != EINTR)
			return 2;
	alarm(0);
	clock_gettime(CLOCK_MONOTONIC, &to);
	code = timed_out ? 124 : WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
	printf("@wall %.6f s\n", (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) / 1e9);
	printf("@user %.6f s\n@sys %.6f s\n", seconds(used.ru_utime), seconds(used.ru_stime));
	printf("@peak %.3f MiB\n", (double)used.ru_maxrss / 1024);
	printf("@faults %ld count\n@status %d code\n", used.ru_minflt + used.ru_majflt, code);
	return code;
}
