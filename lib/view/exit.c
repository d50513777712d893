/* SPDX-License-Identifier: MIT */
/* The statistics at exit, when the option stats_at_exit asks for them. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <fcntl.h>
#include <unistd.h>

#include "include/quarry/quarry.h"
#include "lib/api/init.h"
#include "lib/base/settings.h"

/* Where they go: many programs close standard error before destructors run, so that a copy is needed. */
static int exit_fd = STDERR_FILENO;

static __attribute__((constructor)) void keep_standard_error(void)
{
	int copy;

	qy_init_once();
	if (qy_setting(stats_at_exit) == 0)
		return;
	copy = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 200);
	if (copy >= 0)
		exit_fd = copy;
}

static __attribute__((destructor)) void say_statistics(void)
{
	long how = qy_setting(stats_at_exit);

	if (how != 0)
		quarry_stats_print(exit_fd, how == 2);
}
