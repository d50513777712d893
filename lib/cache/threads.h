/* SPDX-License-Identifier: MIT */
/* The lists of threads, for those two that go over them: thread.c, where threads come and go, and hold.c, where they are
 * held. For no others: they go by thread.h. */
#ifndef QUARRY_CACHE_THREADS_H
#define QUARRY_CACHE_THREADS_H

#include "lib/cache/thread.h"

#define QY_THREAD_PARKS 64 /* of parked threads, by node */

extern QY_HIDDEN struct qy_lock qy_threads_pause_lock, qy_threads_lock; /* see thread.h; the second is the registry's */

/* With the registry's lock held: live threads, parked ones, those whose caches are being given up, and records that
 * nobody has. */
extern QY_HIDDEN struct qy_link qy_thread_buckets[QY_THREAD_BUCKETS], qy_thread_parks[QY_THREAD_PARKS];
extern QY_HIDDEN struct qy_link qy_threads_giving_up, qy_threads_unused;
extern QY_HIDDEN bool qy_threads_watching; /* whoever comes is watched (watch.h) */

extern QY_HIDDEN _Atomic(uint32_t) qy_threads_paused;   /* 1: nobody enters */
extern QY_HIDDEN struct qy_thread *qy_thread_records;   /* all there ever were (atomic) */

/* A thread's record is parked with all that it has. The registry's lock is held. */
void qy_thread_park(struct qy_thread *t);

#endif
