/* SPDX-License-Identifier: MIT */
/* The library is a guest in a process with one thread: it starts none of its own, so that unshare(CLONE_NEWUSER), which
 * only such a process may call, still works; and it goes on in a root directory without /proc and /sys.
 * variants: preload linked archive static */
#include <sched.h>
#include <sys/wait.h>

#include "tests/family/family.h"

static void work(uint64_t seed)
{
	static char *p[4000];
	uint64_t random = seed;

	for (int round = 0; round < 20; round++) {
		for (int i = 0; i < 4000; i++) {
			size_t n = family_size(&random, i % 50 ? 11 : 20);
			p[i] = malloc(n);
			CHECK(p[i] != NULL);
			p[i][0] = p[i][n - 1] = (char)i;
		}
		for (int i = 0; i < 4000; i++) {
			CHECK(p[i][0] == (char)i);
			free(p[i]);
		}
	}
}

/* In a child, as it cannot be undone. */
static void in_child(void (*part)(void), const char *skip)
{
	int status;
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (pid == 0) {
		part();
		_exit(0);
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		family_skip(skip);
	CHECK(WEXITSTATUS(status) == 0);
}

static void new_user(void)
{
	work(2);
	if (unshare(CLONE_NEWUSER) != 0) {
		CHECK(errno != EINVAL); /* what the kernel says to a process with threads */
		_exit(77);
	}
	work(3);
	CHECK(family_threads() == 1);
}

static void new_root(void)
{
	char name[] = "guest.XXXXXX";

	CHECK(mkdtemp(name) != NULL);
	CHECK(chdir(name) == 0);
	int refused = chroot(".");
	if (refused != 0)
		_exit(77);
	CHECK(chdir("/") == 0);
	CHECK(access("/proc/self", F_OK) != 0 && access("/sys/devices", F_OK) != 0);
	work(4);
	void *large = malloc((size_t)64 << 20);
	CHECK(large != NULL);
	memset(large, 1, (size_t)64 << 20);
	free(large);
	work(5);
}

int main(void)
{
	family_in_use();
	CHECK(family_threads() == 1);
	work(1);
	CHECK(family_threads() == 1);
	in_child(new_root, "chroot is not permitted");
	in_child(new_user, "user namespaces are not permitted");
	CHECK(family_threads() == 1);
	/* Here too, after all of that. */
	if (unshare(CLONE_FILES) != 0)
		CHECK(errno == EPERM);
	return 0;
}
