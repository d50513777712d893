/* SPDX-License-Identifier: MIT */
/* What taking objects from mixed slabs (mixed_take.c) and all else that becomes of them (mixed.c) share. The manager's
 * lock is held. Not for others. */
#ifndef QUARRY_MANAGER_MIXED_RINGS_H
#define QUARRY_MANAGER_MIXED_RINGS_H

#include "lib/manager/mixed.h"

/* Rings of slabs whose longest run is about the same: four for each power of two. Later ones have longer runs. */
unsigned qy_mixed_bin(uint32_t run);

/* Its longest run has changed, or what is known of it. */
void qy_mixed_relist(struct qy_mixed *mixed, struct qy_mixed_slab *r, uint32_t longest);

/* The pages that were given back may be touched again, so far as the control group allows it. */
void qy_mixed_unpark(struct qy_mixed *mixed, struct qy_mixed_slab *r);

/* A slab with room that nobody holds, and that is in no queue, becomes mixed; there is a record for it. NULL when its list
 * is not sound. */
struct qy_mixed_slab *qy_mixed_make(struct qy_manager *m, struct qy_slab *s, bool apart);

#endif
