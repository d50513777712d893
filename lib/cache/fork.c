/* SPDX-License-Identifier: MIT */
#include "lib/cache/fork.h"

#include <pthread.h>

#include "lib/cache/thread.h"
#include "lib/manager/manager.h"
#include "lib/manager/registry.h"
#include "lib/reclaim/reclaim.h"

/* The purge lock first: who holds it may be in a patched madvise that calls malloc, and must not be held up. */
static void before(void)
{
	qy_purge_hold();
	qy_threads_pause();
	qy_registry_fork_lock();
}

static void release(void)
{
	qy_registry_fork_unlock();
	qy_threads_resume();
	qy_purge_release();
}

/* All locks are held by the one thread that is left. */
static void in_child(void)
{
	qy_reclaim_after_fork();
	qy_registry_after_fork();
	qy_threads_after_fork();
	release();
}

/* Registered before the first allocation, so that of all handlers ours hold the locks for the shortest time: prepare
 * runs last, and the others run first. */
void qy_fork_register(void)
{
	pthread_atfork(before, release, in_child);
}
