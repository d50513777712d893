/* SPDX-License-Identifier: MIT */
/* Blocks whose last reference went, held back and filled, so that what is written to them late is seen (option checked).
 * A ring of places that each have a flag of one bit for a lock, which nobody waits for: who finds a place taken goes to
 * the next. (So a child of a fork that has one taken for good loses that place, and nothing else.) */
#ifndef QUARRY_OBJECT_QUARANTINE_H
#define QUARRY_OBJECT_QUARANTINE_H

#include "include/quarry/block.h"
#include "lib/base/base.h"

#define QY_QUARANTINE_FILL 0xde
#define QY_QUARANTINE_BLOCK_MAX ((size_t)4 << 20)

/* Fill n bytes of p, which nothing but quarry_free can end, and hold it back; who has been there longest goes. False where it is too large for that, or no place
 * is free: the caller frees it. */
bool qy_quarantine_put(void *p, size_t n);

/* How many were written to. With release, all go. */
long qy_quarantine_check(bool release);

struct qy_quarantine_figures {
	uint64_t late_writes, blocks, bytes;
};
void qy_quarantine_figures(struct qy_quarantine_figures *figures);

#endif
