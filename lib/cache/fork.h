/* SPDX-License-Identifier: MIT */
/* fork(2): before it, all threads are out of their slow paths and all locks are held, in the order of their ranks; in
 * the child the locks are made anew and the other threads' memory is parked, to be adopted. */
#ifndef QUARRY_CACHE_FORK_H
#define QUARRY_CACHE_FORK_H

void qy_fork_register(void);
void qy_threads_after_fork(void);

#endif
