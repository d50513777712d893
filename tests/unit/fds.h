/* SPDX-License-Identifier: MIT */
/* How many descriptors this process has open. */
#ifndef QUARRY_TESTS_FDS_H
#define QUARRY_TESTS_FDS_H

#include <criterion/criterion.h>
#include <dirent.h>

static inline int count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int n = 0;

	cr_assert_not_null(dir);
	while (readdir(dir) != NULL)
		n++;
	closedir(dir);
	return n;
}

#endif
