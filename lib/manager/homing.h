/* SPDX-License-Identifier: MIT */
/* Bringing pages home. A node that is full makes the kernel place pages elsewhere, which nobody is told; the kernel
 * only counts, for the whole machine, how many pages that were meant for a node went to others. When that count has
 * moved, the reclaimer looks at where quarry's pages are, some megabytes in a pass, and moves those that strayed as
 * soon as their node has room. While it stands still, the looks become rare (a second to about a minute). */
#ifndef QUARRY_MANAGER_HOMING_H
#define QUARRY_MANAGER_HOMING_H

#include "lib/base/base.h"

/* Memory was mapped, or moved to other nodes: look again soon. Any thread, any locks. */
void qy_homing_wake(void);

/* What is allowed has changed, and the kernel moves pages by itself, now or soon: look at all, whatever it counts, and
 * again a few times within a minute. */
void qy_homing_restart(void);

/* A pass, by the reclaimer: look at no more than at_most bytes. *next is when (ms) more is due; UINT64_MAX never.
 * Whether there is work left for another pass at once. */
bool qy_homing_pass(uint64_t now, size_t at_most, uint64_t *next);

#endif
