/* SPDX-License-Identifier: MIT */
/* Which memory is to be huge, and which huge page may be broken up.
 *
 * Born huge, at its first touch, is the memory of a heap that is large (option thp_min, and as much more as its threads
 * need for their slabs) and uses what it has: of some frames that were handed out, half is in memory. (What is asked for
 * and hardly touched, as stacks of coroutines are, would be 256 times as much.) A block of twice thp_min is so by itself.
 * Of a block it is whole frames only, where its tail would make more than a twelfth. And it is only so much as the node
 * has free huge blocks for: a fault is never to wait for compaction because of us. The rest is born on base pages and
 * collapsed later (collapse.h).
 *
 * The advice that a region got when it was mapped stands for all of its frames but those told otherwise
 * (numa/region.h). Each of those may cost the process two mappings, so their number is bounded. */
#ifndef QUARRY_MANAGER_HUGE_H
#define QUARRY_MANAGER_HUGE_H

#include "lib/base/base.h"

struct qy_manager;
struct qy_placement;

#define QY_DEMAND_STEPS 4 /* of decay_ms / 16 */

/* How many pages were in use at most, lately: a manager's. Written by the holder of the purge lock. */
struct qy_demand {
	uint64_t peak[QY_DEMAND_STEPS]; /* bytes, by step of time */
	uint64_t step;                  /* the number of the last step */
	uint32_t step_ms;
};

/* What a manager keeps of huge pages. */
struct qy_huge {
	struct qy_demand demand;
	/* Whether what is in use was in memory, and how much was in use when that was looked at; anybody's. */
	_Atomic(uint64_t) looked_at;
	_Atomic(bool) dense;
	uint32_t frame; /* where the look for memory to collapse goes on; the purge lock's holder's (collapse.c) */
	bool looking;   /* it has not come to the end */
	qy_counter collapsed, collapse_failed; /* huge pages made of memory that was dense; attempts that failed */
};

/* The page kind for a region of *want frames, of which a block of `frames` is to be had; *want may become less, where
 * only so much can be huge. (A kind of qy_region_create.) */
int qy_huge_kind(struct qy_manager *m, const struct qy_placement *placement, uint32_t frames, uint32_t *want);

/* Whether its memory is asked for from pools of huge pages. */
bool qy_huge_from_pools(const struct qy_manager *m);

/* Whether the heap is large enough to profit from huge pages. */
bool qy_huge_profits(struct qy_manager *m);

/* A block of whole frames was made of clean memory, and nobody has touched it yet: tell the kernel which of it is to be
 * huge, where it was told otherwise. No lock may be held. */
void qy_huge_born(struct qy_manager *m, void *block, size_t bytes);

/* Note what is in use now: at each pass of the reclaimer, before it purges, and at least every decay_ms / 16 while it
 * does. The purge lock is held (qy_huge_may_break does this too). */
void qy_huge_note_demand(struct qy_manager *m, uint64_t now);

/* Whether giving back a part of this frame is worth losing the huge page that it may be: it is none; or what the
 * manager had in use at most during the last quarter of decay_ms, so that it may soon want as much again, fits into
 * what else is free and in memory. A heap that swings faster than that keeps its huge pages so; one that stays small
 * loses them, as its memory decays. For memory that is to go at once (pressure, quarry_purge), do not ask.
 * The purge lock and the manager's are held. */
bool qy_huge_may_break(struct qy_manager *m, uint32_t frame, uint64_t now);

#endif
