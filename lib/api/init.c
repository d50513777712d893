/* SPDX-License-Identifier: MIT */
#include "lib/api/init.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "include/quarry/quarry.h"
#include "lib/base/settings.h"
#include "lib/cache/thread.h"

QUARRY_API unsigned quarry_version(void)
{
	return QUARRY_API_VERSION;
}

QUARRY_API const char *quarry_version_string(void)
{
	return "0.1.0";
}

void qy_init_once(void)
{
	qy_start();
}

/* Where the statistics go at exit: many programs close standard error before destructors run. */
static int exit_fd = STDERR_FILENO;

/* Before any thread can be there: what a free reads without a lock is written here, once. (In the malloc library the
 * first malloc comes sooner still.) */
static __attribute__((constructor)) void start_early(void)
{
	qy_start();
	if (qy_setting(stats_at_exit) != 0) {
		int copy = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 200);

		if (copy >= 0)
			exit_fd = copy;
	}
}

/* Asked for by stats_at_exit. The program's own output comes first: destructors run after atexit handlers. */
static __attribute__((destructor)) void say_statistics(void)
{
	long how = qy_setting(stats_at_exit);

	if (how != 0)
		quarry_stats_print(exit_fd, how == 2);
}
