/* SPDX-License-Identifier: MIT */
/* Hugetlb memory and fork. The kernel shares private hugetlb pages between a process and its child until one of them
 * writes, and then needs another page of the pool. When the pool is dry and the parent writes, the kernel takes the page
 * away from the child, which is killed at its next look (Documentation/mm/hugetlbfs_reserv.rst: "Consuming
 * Reservations", and the unmapping of reference pages in mm/hugetlb.c); when the child writes, it is killed at once.
 *
 * So the child, before anything else runs in it, replaces its hugetlb regions by ordinary memory with the same contents
 * at the same addresses, and the thread that forked waits until that is done. What is above fork_copy, or does not fit
 * into the nodes, is left to the kernel and counted. A page that another thread of the parent writes, while the child is
 * copying and the pool is dry, is gone for the child: it gets it from the parent as it is by then, which is counted too. */
#ifndef QUARRY_MANAGER_FORKCOPY_H
#define QUARRY_MANAGER_FORKCOPY_H

#include "lib/base/base.h"

/* For the three handlers of fork, of one thread: before any lock is taken, and after all were released. */
struct qy_forkcopy {
	bool wanted;
	int ends[2];
	uint64_t bytes;
};

void qy_forkcopy_before(struct qy_forkcopy *copy);
void qy_forkcopy_in_parent(struct qy_forkcopy *copy);
void qy_forkcopy_in_child(struct qy_forkcopy *copy);

#endif
