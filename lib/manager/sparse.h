/* SPDX-License-Identifier: MIT */
/* Giving back pages inside slabs. A slab of which a few objects live keeps its block, and with it 64 or 256 KiB; but
 * pages in which nothing lives can go back to the kernel. The objects that stand there are parked (slab.h) until they
 * are wanted.
 *
 * This is done to slabs that nobody holds (the manager's orphans): what threads hold comes there when they sleep or end
 * (lib/cache), and what a busy thread leaves alone it gives up itself (qy_heap_shed). A slab is looked at when it has not
 * changed between two passes. It is taken out of the orphans into a heap of its own meanwhile, so that its list is read
 * and its pages are purged with no lock held that malloc can need; what is freed into it meanwhile waits in that
 * heap's mail. */
#ifndef QUARRY_MANAGER_SPARSE_H
#define QUARRY_MANAGER_SPARSE_H

#include "lib/manager/manager.h"

/* Look at all orphans that changed since the last look, and give back what can go of those that did not change since
 * then; at_once: of all. The purge lock is held, no other. Returns the bytes; *again is set when some are to be looked
 * at once more. */
size_t qy_sparse_pass(struct qy_manager *m, uint64_t now, bool at_once, size_t at_most, bool *again);

#endif
