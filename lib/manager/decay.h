/* SPDX-License-Identifier: MIT */
/* How much free memory may stay dirty now. What became dirty at one time may stay for about decay_ms, ever less of it
 * as time passes: along a smoothstep, which begins and ends gently (as in jemalloc's decay), so that the kernel is not
 * given everything back at once, and what a program asks for again soon is mostly still there. Under the manager's
 * lock. */
#ifndef QUARRY_MANAGER_DECAY_H
#define QUARRY_MANAGER_DECAY_H

#include "lib/base/base.h"

#define QY_DECAY_STEPS 16

struct qy_decay {
	uint64_t at[QY_DECAY_STEPS]; /* by how many pages what is dirty grew in the step before this, in the
	                              * one before, … */
	uint64_t base;              /* how many were dirty when this step began */
	uint64_t step;              /* its number: time / the length of a step */
	uint32_t step_ms;           /* that length; 0 before the first */
	_Atomic(uint64_t) sparse_due; /* ms: when slabs that nobody holds are to be looked at (purge.c) */
};

/* Of the dirty pages that there are, some are about to become more. (It is what the sum grows by that counts: memory
 * that is freed and used again all the time is one piece, however often.) decay_ms: what is set; what is in force at
 * the time is told by qy_decay_allows. */
void qy_decay_note(struct qy_decay *decay, uint64_t dirty, uint64_t now, long decay_ms);

/* How many pages may stay of dirty ones, when all are to be gone after decay_ms (> 0). */
uint64_t qy_decay_allows(struct qy_decay *decay, uint64_t dirty, uint64_t now, long decay_ms);

#endif
