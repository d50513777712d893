/* SPDX-License-Identifier: MIT */
/* Who is in the midst of something above the managers: has a lock of lib/lanes, or takes an object there. What such a one
 * allocates is as anybody's, but the program's functions are not called from there (lib/manager/events.h): they may call
 * anything, what is in use just now as well. */
#ifndef QUARRY_BASE_QUIET_H
#define QUARRY_BASE_QUIET_H

#include <pthread.h>

#include "lib/base/base.h"

extern __thread QY_HIDDEN uint32_t qy_quiet __attribute__((tls_model("initial-exec"))); /* so often, one within the other */

QY_INLINE void qy_hold(pthread_mutex_t *lock)
{
	qy_quiet++;
	pthread_mutex_lock(lock);
}

/* Whether it was free, and is held now. */
QY_INLINE bool qy_try_hold(pthread_mutex_t *lock)
{
	bool held = pthread_mutex_trylock(lock) == 0;

	qy_quiet += held;
	return held;
}

QY_INLINE void qy_let_go(pthread_mutex_t *lock)
{
	pthread_mutex_unlock(lock);
	qy_quiet--;
}

#endif
