/* SPDX-License-Identifier: MIT */
/* Blocks whose last reference went, held back, so that what uses them late is seen (option checked). Most are filled, and
 * looked at as they go. Samples (apart.h) have their pages closed as well, and large blocks, whose memory goes back to the
 * kernel while their addresses stay: who reads or writes there has a SIGSEGV at once. Pages are opened again before the
 * memory goes. What the kernel refuses to close is filled, and what it refuses to open stays until it is opened.
 *
 * Two rings of places, for what is filled and what is closed; each place has a flag of one bit for a lock, which nobody
 * waits for: who finds a place taken goes to the next. (So a child of a fork that has one taken for good loses that place, and nothing else.) A place's pages are
 * closed and opened while it is taken. */
#ifndef QUARRY_OBJECT_QUARANTINE_H
#define QUARRY_OBJECT_QUARANTINE_H

#include "include/quarry/block.h"
#include "lib/base/base.h"

#define QY_QUARANTINE_FILL 0xde
#define QY_QUARANTINE_BLOCK_MAX ((size_t)4 << 20) /* filled; what is larger is closed */

/* Hold back n bytes of p, which nothing but quarry_free can end; who has been there longest goes. False where it is too
 * large for that, or no place is free: the caller frees it. is_apart: it is a sample, and ends as one when it goes. */
bool qy_quarantine_put(void *p, size_t n, bool is_apart);

/* How many were written to. With release, all go. */
long qy_quarantine_check(bool release);

/* After something was noted by the option's value of before: let it go where the option was changed meanwhile. */
void qy_quarantine_recheck(void);

struct qy_quarantine_figures {
	uint64_t late_writes, blocks, bytes, closed, closed_bytes;
};
void qy_quarantine_figures(struct qy_quarantine_figures *figures);

#endif
