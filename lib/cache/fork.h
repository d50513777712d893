/* SPDX-License-Identifier: MIT */
/* fork(2): before it, all threads are out of their slow paths and all locks are held, in the order of their ranks; in
 * the child the locks are made anew and the other threads' memory is parked, to be adopted. */
#ifndef QUARRY_CACHE_FORK_H
#define QUARRY_CACHE_FORK_H

#include "lib/base/base.h"

struct qy_stopped;

void qy_fork_register(void);
void qy_threads_after_fork(void);

struct qy_copy_report {
	uint64_t held_ns;   /* how long all others were held for the copy to be made */
	uint32_t threads;   /* others that there were; 0 also when they could not be stopped, */
	uint32_t unread;    /* of them, those whose registers are not known */
	int stop_error;     /* and the errno of that */
	bool files;         /* some memory is in files, which the copy sees as they become */
};

#define QY_COPY_FAILED 254 /* the status where fn did not begin: memory in files could not be mapped */

/* Have fn run in a copy of the process, made while all threads are out of slow paths and stopped, with what stood in
 * their registers; others go on as soon as the copy is there. fn may look, and make a view, but change nothing: memory in
 * files is the parent's own, and only to be read. What it returns is the exit status. Waits for its end; the status as
 * waitpid(2) has it, or -1 with errno: EDEADLK inside another call of quarry's, EPERM, EAGAIN or ENOMEM. */
int qy_fork_copy(int (*fn)(void *ctx, const struct qy_stopped *stopped), void *ctx, struct qy_copy_report *report);

#endif
