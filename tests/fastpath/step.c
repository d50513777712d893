/* SPDX-License-Identifier: MIT */
/* For fastpath.sh: how many instructions malloc and free really execute on a hit, by single-stepping a child that
 * has the library preloaded. The disassembly says how long the path is that looks like the hit; this says
 * which path is taken. x86-64 only.
 * Usage: step LIBRARY    prints "malloc N P" and "free N P": the most frequent count, and its share of the calls in
 * percent. Exits with 77 when the machine allows no tracing. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define OBJECTS 64
#define WARM 50
#define ROUNDS 8
#define COUNT_MAX 4096

static void *object[OBJECTS];

static void round_trip(void)
{
	for (unsigned i = 0; i < OBJECTS; i++)
		object[i] = malloc(48);
	for (unsigned i = 0; i < OBJECTS; i++)
		free(object[i]);
}

/* The traced half: tells where malloc and free are, stops, and goes to work. */
static int traced(int fd)
{
	uintptr_t at[2] = { (uintptr_t)dlsym(RTLD_DEFAULT, "malloc"), (uintptr_t)dlsym(RTLD_DEFAULT, "free") };

	for (unsigned i = 0; i < WARM; i++)
		round_trip();
	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
		return 77;
	if (write(fd, at, sizeof at) != (ssize_t)sizeof at)
		return 1;
	raise(SIGSTOP);
	for (unsigned i = 0; i < ROUNDS; i++)
		round_trip();
	return 0;
}

static uintptr_t reg(pid_t pid, size_t offset)
{
	return (uintptr_t)ptrace(PTRACE_PEEKUSER, pid, offset, NULL);
}

static unsigned counts[2][COUNT_MAX];

/* Step until the child ends; a call is counted from the function's first instruction to its return. */
static int step_through(pid_t pid, const uintptr_t at[2])
{
	uintptr_t back = 0;
	unsigned n = 0;
	int which = -1, status;

	for (;;) {
		uintptr_t rip = reg(pid, offsetof(struct user_regs_struct, rip));
		if (which >= 0 && rip == back) {
			counts[which][n < COUNT_MAX ? n : COUNT_MAX - 1]++;
			which = -1;
		}
		if (which < 0 && (rip == at[0] || rip == at[1])) {
			which = rip == at[1];
			back = (uintptr_t)ptrace(PTRACE_PEEKDATA, pid, reg(pid, offsetof(struct user_regs_struct, rsp)), NULL);
			n = 0;
		}
		n++;
		if (ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) != 0 || waitpid(pid, &status, 0) != pid)
			return 1;
		if (WIFEXITED(status))
			return WEXITSTATUS(status);
		if (WIFSIGNALED(status))
			return 1;
	}
}

static void report(const char *name, const unsigned *count)
{
	unsigned best = 0, calls = 0;

	for (unsigned i = 0; i < COUNT_MAX; i++) {
		calls += count[i];
		if (count[i] > count[best])
			best = i;
	}
	printf("%s %u %u\n", name, best, calls == 0 ? 0 : 100 * count[best] / calls);
}

int main(int argc, char **argv)
{
	uintptr_t at[2] = { 0, 0 };
	int pipe_fd[2], status;
	char fd[16];
	pid_t pid;

	if (argc == 3 && strcmp(argv[1], "--traced") == 0)
		return traced(atoi(argv[2]));
	if (argc != 2 || pipe(pipe_fd) != 0) {
		fprintf(stderr, "usage: step LIBRARY\n");
		return 2;
	}
	snprintf(fd, sizeof fd, "%d", pipe_fd[1]);
	pid = fork();
	if (pid == 0) {
		if (argv[1][0] != 0)
			setenv("LD_PRELOAD", argv[1], 1);
		execl("/proc/self/exe", argv[0], "--traced", fd, (char *)NULL);
		_exit(127);
	}
	close(pipe_fd[1]);
	if (pid < 0 || waitpid(pid, &status, WUNTRACED) != pid)
		return 1;
	if (!WIFSTOPPED(status))
		return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
	if (read(pipe_fd[0], at, sizeof at) != (ssize_t)sizeof at)
		return 1;
	status = step_through(pid, at);
	if (status != 0)
		return status;
	report("malloc", counts[0]);
	report("free", counts[1]);
	return 0;
}
