/* SPDX-License-Identifier: MIT */
/* Hugetlb memory and fork. The kernel shares private hugetlb pages between a process and its child until one of them
 * writes, and then needs another page of the pool. When the pool is dry and the parent writes, the kernel takes the
 * page away from the child, which is killed at its next look (Documentation/mm/hugetlbfs_reserv.rst: "Consuming
 * Reservations", and the unmapping of reference pages in mm/hugetlb.c); when the child writes, it is killed at once.
 *
 * So the child, before anything else runs in it, replaces its hugetlb regions by ordinary memory with the same contents
 * at the same addresses, and the thread that forked waits until that is done. What is above fork_copy, or does not fit
 * into the nodes, is left to the kernel and counted. A page that another thread of the parent writes, while the child
 * is copying and the pool is dry, is gone for the child: it gets it from the parent as it is by then, which is counted
 * too. What is free there is not as records say any more, and lists that lead through it are cut (late.h).
 *
 * Memory in files (QUARRY_ARENA_FD) would be the parent's and the child's alike, lists of free objects too. So the
 * kernel gives a child none of it (MADV_DONTFORK: this holds for a child that no handler knows of as well), and the
 * child reads what the files hold into ordinary memory at the same addresses. There is no copy-on-write that would keep
 * what was there at the fork: the parent must write nothing meanwhile. Its one thread waits, and the reclaimer, which
 * is held up; of other threads this cannot be had, since their hits ask nobody. Then, or where there is no copy for
 * another reason, the arena is empty in the child, which is counted. */
#ifndef QUARRY_MANAGER_FORKCOPY_H
#define QUARRY_MANAGER_FORKCOPY_H

#include "lib/base/base.h"

/* For the three handlers of fork, of one thread: before any lock is taken, and after all were released. */
struct qy_forkcopy {
	bool wanted;
	bool files; /* those too: all of the parent must stand still until qy_forkcopy_in_parent is done */
	int ends[2];
	uint64_t bytes, others; /* all that is to be copied; what of it is in no file */
};

/* alone: no other thread of the program's is known. One may become known until all are held still: then nothing in
 * files is copied after all. */
void qy_forkcopy_before(struct qy_forkcopy *copy, bool alone);
void qy_forkcopy_leave_files(struct qy_forkcopy *copy);
void qy_forkcopy_in_parent(struct qy_forkcopy *copy);

/* What had to be had of a later moment, or not at all, is noted (qy_late_any), and is to be mended before anybody
 * allocates. True when there are managers, heads of families, that are `lost`: their memory is nowhere, and they are to
 * be emptied. */
bool qy_forkcopy_in_child(struct qy_forkcopy *copy);

/* In a copy of the process that only looks: the files themselves, to be read. False when one cannot be mapped. */
bool qy_forkcopy_show_files(void);

#endif
