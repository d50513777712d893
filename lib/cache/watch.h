/* SPDX-License-Identifier: MIT */
/* Making a snapshot (lib/manager/snapshot.h): the moment, and the going through all that is free.
 *
 * From the moment on every thread's allocations and frees enter (QY_WATCHED: their thread-local storage is turned, as
 * that of idle threads is), so that what they do is noted and they can be held; they take some tenths of a microsecond
 * then. What does not enter, and was begun before, may be under way still: a hit, a quick refill, the gathering of an
 * object. It ends as it would have, as part of the moment; and no thread's lists are looked at before it is known to
 * have ended: the thread has entered since, or the kernel has seen it blocked in a system call, or it has been on a CPU
 * for much longer than any of them takes.
 *
 * Threads that never tell when they end cannot be turned by others, and do it themselves when they enter; what they do
 * before that is not noted, and counts as not settled.
 *
 * One snapshot is made at a time; who comes second waits. A child that is forked meanwhile has none. */
#ifndef QUARRY_CACHE_WATCH_H
#define QUARRY_CACHE_WATCH_H

#include "lib/manager/snapshot.h"

struct qy_watch_report {
	uint64_t moment_ns;  /* how long all were held for the moment, and for the end: the longer one */
	uint64_t longest_ns; /* how long one was held to be looked at, at most */
	uint64_t took_ns;    /* from the moment to the end */
	uint32_t threads;    /* that had something */
	uint32_t unsettled;  /* of them, those of which it was not known what was under way */
	uint32_t missed;     /* slabs or lists that could not be held */
};

/* Called with all threads and all managers held: they must take no lock and allocate nothing. */
struct qy_watch_calls {
	void (*at_moment)(void *ctx), (*at_end)(void *ctx);
};

/* Make one; its memory is mapped here (qy_snapshot_unmap). 0; or -1 with ENOMEM; EDEADLK: inside another call of quarry's,
 * as in a patched mmap, or while the thread holds a lock of quarry's (a signal handler); ECANCELED: in a child that was
 * forked in the middle, by a signal handler. */
int qy_watch(struct qy_snapshot *snapshot, const struct qy_watch_calls *calls, void *ctx, struct qy_watch_report *report);

/* The number of the snapshot that is made, or was made last; never 0 while one is made. */
uint32_t qy_watch_number(void);

/* Whether the thread has anything to be looked at. */
struct qy_thread;
bool qy_watch_holds(struct qy_thread *t);

void qy_watch_after_fork(void); /* in the child, however it came about, before anybody enters */

#endif
