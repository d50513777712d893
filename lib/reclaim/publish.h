/* SPDX-License-Identifier: MIT */
/* When the figures are published. For lib/reclaim; the viewer sets how (reclaim.h). */
#ifndef QUARRY_RECLAIM_PUBLISH_H
#define QUARRY_RECLAIM_PUBLISH_H

#include "lib/base/base.h"

/* Publish, when it is due: in no slow path, no lock held, not in a signal handler. UINT64_MAX, or when (ms) it will be:
 * then what happened since the last time is not told yet. */
uint64_t qy_publish_if_due(uint64_t now);

/* The same, in passing, after so many slow calls of this thread; true: the reclaimer's thread is to be woken for it. */
bool qy_publish_tick(uint32_t calls);

void qy_publish_after_fork(void); /* in the child */

#endif
