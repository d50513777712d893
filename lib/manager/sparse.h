/* SPDX-License-Identifier: MIT */
/* Giving back pages inside slabs. A slab of which a few objects live keeps its block, and with it 64 to 256 KiB; but
 * pages in which nothing lives can go back to the kernel. The objects that stand there are parked (slab.h) until they
 * are wanted.
 *
 * This is done to slabs that nobody holds (the manager's orphans): what threads hold comes there when they sleep or end
 * (lib/cache), and what a busy thread leaves alone it gives up itself (qy_heap_shed). A slab is looked at when it has
 * not changed between two passes. It is taken out of the orphans into a heap of its own meanwhile, so that its list is
 * read and its pages are purged with no lock held that malloc can need; what is freed into it meanwhile waits in that
 * heap's mail. */
#ifndef QUARRY_MANAGER_SPARSE_H
#define QUARRY_MANAGER_SPARSE_H

#include "lib/manager/manager.h"

/* How a pass was that is to go on where it was ended. */
enum qy_sparse_cut { QY_SPARSE_WHOLE, QY_SPARSE_CUT, QY_SPARSE_CUT_AT_ONCE };

/* Take in what was sent home, then look at all orphans that changed since the last look, and give back what can go of
 * those that did not change since then; at_once: of all. After at_most bytes, or until_ns, the pass ends when a batch
 * is done, and the next one goes on there (m->sparse.goes_on). The purge lock is held, no other. Returns the bytes;
 * *again is set when some are to be looked at once more. A pass that has no time left when all mail is in is one that
 * was ended before its next batch. */
size_t qy_sparse_pass(struct qy_manager *m, uint64_t now, bool at_once, size_t at_most, uint64_t until_ns, bool *again);

/* Take in what was freed of slabs while a pass had them, and with it all that was sent home to slabs that nobody holds.
 * The purge lock is held, no other. */
void qy_sparse_forward_mail(struct qy_manager *m);

/* ---- for mixed.c, of slabs that nobody else has ---- */

#define QY_SLAB_WORDS (QY_UNIT / 16 / 64) /* a bit for each object */

/* Which objects are free: by the slab's list, never carved, or parked. False when the list is not sound. */
bool qy_slab_find_free(const struct qy_slab *s, uint64_t free_ones[QY_SLAB_WORDS]);

/* The pages that an object reaches into, as bits. */
uint64_t qy_slab_pages_of(const struct qy_class *c, uint32_t object);

void qy_slab_set_gone(struct qy_slab *s, uint64_t gone);

/* All pages of a slab's memory, and those of them in which there is nothing to be given back: they are gone, or were
 * never touched. */
uint64_t qy_slab_all_pages(const struct qy_class *c);
uint64_t qy_slab_clean_pages(const struct qy_slab *s);

/* Whether pages of a slab may go back, be it that this breaks a huge page; *again is set when it may be so soon. What
 * is too little for that stays in memory, until there is more or memory is short: a huge page is worth more. The purge
 * lock is held, and the manager's. */
bool qy_sparse_may_break(struct qy_manager *m, const struct qy_slab *slab, uint64_t now, bool *again);

/* Purge those pages; what the kernel refuses stays in memory. Returns the bytes. */
size_t qy_slab_purge_pages(struct qy_slab *s, uint64_t pages);

/* Whether pages of the slab's memory may go back by themselves: pinned memory does whole or not at all. */
bool qy_slab_can_go(struct qy_manager *m, const struct qy_slab *s);

#endif
