/* SPDX-License-Identifier: MIT */
/* Every way to start another program: vfork and exec, posix_spawn, popen, system; the parent's heap is whole after
 * each, and in the new program the library works as well. variants: preload linked archive */
#include <malloc.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/wait.h>

#include "tests/family/family.h"

extern char **environ;

static void wait_for(pid_t pid)
{
	int status;

	CHECK(pid > 0);
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* What a child of vfork may do here: allocate and free in the parent's memory while the parent waits, then exec. */
static void with_vfork(char *self)
{
	char *kept = malloc(1000);
	char *volatile from_child = NULL;

	CHECK(kept != NULL);
	family_fill(kept, 1000, 9);
	pid_t pid = vfork();
	if (pid == 0) {
		char *arguments[] = { self, "--child", NULL };
		void *p = malloc(100000);
		from_child = malloc(300);
		free(p);
		execv(self, arguments);
		_exit(1);
	}
	wait_for(pid);
	CHECK(family_holds(kept, 1000, 9));
	free(kept);
	CHECK(from_child != NULL);
	memset(from_child, 1, 300);
	free(from_child);
}

static void with_spawn(char *self)
{
	char *arguments[] = { self, "--child", NULL };
	pid_t pid;

	CHECK(posix_spawn(&pid, self, NULL, NULL, arguments, environ) == 0);
	wait_for(pid);
}

static void with_popen(void)
{
	char line[64] = "";
	FILE *pipe = popen("echo through a pipe", "r");

	CHECK(pipe != NULL);
	CHECK(fgets(line, sizeof line, pipe) != NULL);
	CHECK(pclose(pipe) == 0);
	CHECK(strcmp(line, "through a pipe\n") == 0);
}

int main(int argc, char **argv)
{
	char self[4096];
	uint64_t random = 1;
	char *p[200];
	ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);

	family_in_use();
	if (argc > 1 && strcmp(argv[1], "--child") == 0)
		return 0;
	CHECK(n > 0);
	self[n] = 0;
	for (int round = 0; round < 40; round++) {
		for (int i = 0; i < 200; i++) {
			size_t size = family_size(&random, 16);
			p[i] = malloc(size);
			CHECK(p[i] != NULL);
			p[i][0] = p[i][size - 1] = (char)i;
		}
		with_vfork(self);
		with_spawn(self);
		with_popen();
		CHECK(system("exit 0") == 0);
		for (int i = 0; i < 200; i++) {
			CHECK(p[i][0] == (char)i);
			free(p[i]);
		}
	}
	return 0;
}
