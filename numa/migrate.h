/* SPDX-License-Identifier: MIT */
/* Where pages are, against where a placement wants them, and moving them there: move_pages(2) in batches, so that the
 * kernel's lock on the address space is held for about a millisecond at a time and the program goes on meanwhile.
 * Nothing here allocates. The calls are made by number, past any library that patches memory calls, so that the purge
 * lock may be held; others would make their holders' waiters wait for it. */
#ifndef QUARRY_NUMA_MIGRATE_H
#define QUARRY_NUMA_MIGRATE_H

#include "numa/region.h"

/* Look at the pages of [addr, addr + len), one for each grain (the size of hugetlb pages, else the base page's),
 * without moving any. 0, or -1 with errno when the kernel would not say (EPERM, ENOSYS). */
int qy_pages_look(const struct qy_placement *placement, void *addr, size_t len, size_t grain, struct qy_brought *sum);

#endif
