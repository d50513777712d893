/* SPDX-License-Identifier: MIT */
/* What tests of heaps in files share that have other processes: `path` is the heap's. */
#ifndef TESTS_UNIT_MAPPED_CHILDREN_H
#define TESTS_UNIT_MAPPED_CHILDREN_H

#include <criterion/criterion.h>
#include <sys/wait.h>
#include <unistd.h>

#include "include/quarry/mapped.h"

static char path[256];

static quarry_mapped_info told(const quarry_mapped *h)
{
	quarry_mapped_info info;

	cr_assert_eq(quarry_mapped_info_get(h, &info, sizeof(info)), 0);
	return info;
}

/* In a process of its own, for 20 s at most: 0 where it is well. */
static int in_child(void (*fn)(void))
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		alarm(20);
		fn();
		_exit(0);
	}
	cr_assert(pid > 0 && waitpid(pid, &status, 0) == pid);
	return status;
}

static void open_and_close(void)
{
	quarry_mapped *h = quarry_mapped_open(path);

	if (h == NULL || quarry_mapped_close(h) != 0)
		_exit(1);
}

#endif
