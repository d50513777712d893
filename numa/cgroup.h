/* SPDX-License-Identifier: MIT */
/* The limits that control groups put on this process's memory and hugetlb pages, v1 and v2.
 *
 * Where the files are is learnt by the first call, from /proc/self/cgroup and /proc/self/mountinfo; what they say is
 * read anew by each, since a limit may come, change and go while the process runs. A level that has a limit costs
 * three small reads, one that has none costs one; a machine without a memory controller costs a look at the
 * clock.
 * When a group that was there is gone, the process was moved, and the next look learns anew. A process that is moved
 * while its old group stays goes by the old one for at most two seconds: then what was learnt is stale.
 *
 * Nothing here allocates. Any thread may call; none waits for another: while one learns for the first time, the
 * others are told that there is no limit. The only lock is a leaf, held to copy what was learnt and never over a read
 * of a file. Because files are read, call with no lock held. errno stays as it was. */
#ifndef QUARRY_NUMA_CGROUP_H
#define QUARRY_NUMA_CGROUP_H

#include <sys/types.h>

#include "lib/base/base.h"

/* The limit that stops this process first, and how much is used under it, in bytes. Every level that can be seen
 * counts, from the process's own group to the root of the mount (the 16 lowest, where there are more): of those with
 * a limit, the one with the least room left. That may be a parent whose limit is the larger number, when others fill
 * it. Used is without the file pages that the kernel drops before it kills (inactive_file, active_file), and may exceed
 * the limit. False, and nothing is stored, when there is no limit, or when it and its use cannot be read. */
bool qy_cgroup_memory(uint64_t *limit, uint64_t *usage);

/* The same, with v2's memory.high taken for the limit of its level where it is lower than memory.max. Beyond high a
 * process is not killed but held up and made to reclaim. v1 has no such thing (its soft limit holds nobody up). */
bool qy_cgroup_memory_with_high(uint64_t *limit, uint64_t *usage);

/* A limit and what is used under it, in bytes; limit UINT64_MAX: none. */
struct qy_cgroup_bound {
	uint64_t limit, used;
};

/* Both at once, each of the level that has the least room for it. False when there is neither. */
bool qy_cgroup_memory_bounds(struct qy_cgroup_bound *max, struct qy_cgroup_bound *high);

/* How many bytes of hugetlb pages of 2 MiB, or (gigantic) of 1 GiB, the groups still allow: by hugetlb.<size>.max and
 * rsvd.max of all levels (v1: limit_in_bytes). The kernel's answer to a fault beyond the first is SIGBUS. UINT64_MAX
 * where there is no limit, or no such controller. */
uint64_t qy_cgroup_hugetlb_room(bool gigantic);

/* Read a file of the process's own group under v2 ("/memory.events"). Its length, or -1 when there is no such group,
 * or file, that can be seen. */
ssize_t qy_cgroup_read_own(const char *name, char *buffer, size_t size);

/* Forget what was learnt, and who was learning it. A forked child calls this before anything else here: it may be the
 * copy of a process that had a thread in here. No other thread may be in here meanwhile. */
void qy_cgroup_forget(void);

#endif
