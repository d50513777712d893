/* SPDX-License-Identifier: MIT */
/* All figures as one picture of bytes, as struct quarry_published tells of it: what metrics are written from, and what
 * is published. Also reading one that comes from elsewhere, of which nothing is trusted (published.c). */
#ifndef QUARRY_VIEW_GATHER_H
#define QUARRY_VIEW_GATHER_H

#include "include/quarry/quarry.h"
#include "lib/base/base.h"

/* The bytes that a picture with room for so many arenas takes, whole kernel pages. */
size_t qy_gather_size(size_t room);

/* Read all figures into zeroed memory of that size. What was there of an earlier call may be overwritten. Of one thread
 * at a time for one picture; allocates nothing. wait: as lib/api/sources.h has it. Returns how many bytes from its start mean anything. */
size_t qy_gather(quarry_published *picture, size_t room, bool wait);

/* In such memory: the rings of the history (history.h), which qy_gather leaves as they are; and the totals. */
void *qy_gather_history(quarry_published *picture);
const quarry_stats *qy_gather_total(const quarry_published *picture);

/* The arenas there are now. */
size_t qy_gather_arenas(void);

void qy_gather_after_fork(void); /* in the child */

#endif
