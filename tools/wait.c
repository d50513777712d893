/* SPDX-License-Identifier: MIT */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tools/tools.h"

#include <errno.h>
#include <time.h>

int poll_unless(const volatile sig_atomic_t *came, const sigset_t *signals, struct pollfd *fds, nfds_t count, int ms)
{
	const struct timespec limit = { ms / 1000, ms % 1000 * 1000000L };
	sigset_t before;
	int n = -1, error = EINTR;

	sigprocmask(SIG_BLOCK, signals, &before);
	if (!*came) {
		n = ppoll(fds, count, ms < 0 ? NULL : &limit, &before);
		error = errno;
	}
	sigprocmask(SIG_SETMASK, &before, NULL);
	errno = error;
	return n;
}
