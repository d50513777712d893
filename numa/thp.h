/* SPDX-License-Identifier: MIT */
/* What the machine and the process allow of transparent huge pages, and how many a node could give at once.
 *
 * Settings are read from sysfs and by prctl(2) when first asked for, and again when that was ten seconds ago; free
 * blocks from /proc/buddyinfo, at most ten times a second. In between, a question costs a look at the clock. Nothing
 * here has a lock or allocates; any thread may ask, with no lock held, since files are read. errno stays as it was. */
#ifndef QUARRY_NUMA_THP_H
#define QUARRY_NUMA_THP_H

#include "lib/base/base.h"

struct qy_thp {
	bool possible;   /* 2 MiB pages may come: neither `never` nor disabled for this process, and of that size */
	bool unasked;    /* they come without advice (`always`): memory that is to be of base pages needs the other
	                  * one */
	bool stalls;     /* a fault waits for compaction in memory that has the advice MADV_HUGEPAGE, */
	bool stalls_all; /* and in memory that has none */
	bool smaller;    /* the administrator has smaller sizes come without advice (mTHP, Linux 6.8) */
	bool shared;         /* memory in files may have them, with advice, */
	bool shared_unasked; /* and without */
	bool refills;    /* khugepaged fills holes in memory that may be huge, with more than a few pages for each */
};

/* As of the last ten seconds. Where sysfs is not to be seen: that they come unasked, and that faults wait. */
struct qy_thp qy_thp_get(void);

/* Bytes in free blocks of 2 MiB and more that the node (dense) has beyond a margin: so much can be born huge without
 * compaction. 0 when it cannot be told. Less what was promised lately, unless it is of that. */
uint64_t qy_thp_room(int dense, bool of_promised);

/* So many bytes of the node were advised to be huge, and will be touched. */
void qy_thp_promise(int dense, uint64_t bytes);

/* Forget all, and read anew when next asked: for tests. */
void qy_thp_forget(void);

#endif
