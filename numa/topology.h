/* SPDX-License-Identifier: MIT */
/* The nodes of the machine. Inside quarry a node is a dense logical number, 0 .. qy_node_count() - 1; outside, the
 * kernel's id, which may have holes and exceed 63.
 *
 * Start-up reads one small file (/sys/devices/system/node/online). Everything else is read when first asked for.
 * Nothing here allocates by malloc, and nothing here is called with a lock held but the leaf lock of its own. */
#ifndef QUARRY_NUMA_TOPOLOGY_H
#define QUARRY_NUMA_TOPOLOGY_H

#include "include/quarry/quarry.h"
#include "lib/base/base.h"

#define QY_NODES_MAX QUARRY_NODES_MAX

/* Read the list of online nodes. Without the file, or with one that makes no sense, the machine is one node, id 0.
 * With numa == false (option numa=0) as well. Called once, before any other thread can be in quarry. */
void qy_topology_init(bool numa);

/* The lowest of the kernel's ids in a set; -1 when it is empty. */
static inline int qy_nodeset_first(const quarry_nodeset *set)
{
	for (int i = 0; i < QUARRY_NODES_MAX; i++)
		if (quarry_nodeset_has(set, (unsigned)i))
			return i;
	return -1;
}

int qy_node_count(void);            /* at least 1 */
int qy_node_kernel_id(int dense);   /* the kernel's id; -1 when there is no such node */
int qy_node_dense(int kernel_id);   /* the dense number; -1 when there is no such node */

/* The dense node of the CPU that the caller runs on: with one node, 0 at once; else rseq's cpu_id (glibc 2.35 and
 * later registers it; it is only read) or getcpu(2), and a table CPU -> node that fills as CPUs are met.
 * A CPU whose node has no memory, or is not allowed, gives the nearest node that has and is. */
int qy_node_current(void);

/* True when glibc registered rseq, so that the current CPU is one load away. */
bool qy_node_by_rseq(void);

int qy_node_of_cpu(int cpu);                  /* dense; -1 when the CPU is not known */
int qy_node_distance(int from, int to);       /* dense numbers; the kernel's distance, 10 local; -1 unknown */
bool qy_node_allowed(int dense);              /* by the cpuset, from the kernel (mems_allowed); true when it won't
                                               * say */
bool qy_node_has_memory(int dense);
bool qy_node_has_cpus(int dense);
/* The allowed nodes as the kernel's ids. */
void qy_nodes_allowed(quarry_nodeset *set);
/* The nodes that this process may use, as the kernel's ids: the allowed ones, and nodes of CPUs without memory while
 * all that have memory are allowed (the kernel's own list of the allowed never has them). How many they are, at least
 * 1. */
int qy_nodes_usable(quarry_nodeset *set);

/* True when no list of nodes could be read (or numa=0): the one node is made up, and nothing may be bound to it. */
bool qy_nodes_made_up(void);

/* Ask again which nodes are allowed, by one system call. True when that has changed since it was last looked at (when a
 * CPU's home was first learnt, or here); then the homes of CPUs are learnt anew, by qy_node_current's next callers. Any
 * thread, and it takes no lock. The first look is no change. errno is kept. */
bool qy_nodes_recheck(void);

/* The nearest node to `from` (dense; -1: none is nearer than another) of a set of the kernel's ids that has memory and
 * is allowed; of those at one distance the first. -1: there is none. */
int qy_node_nearest(const quarry_nodeset *set, int from);

/* Bytes that may be allocated on the node before the kernel would have to kill: free ones above what it keeps for
 * itself, and those of clean file pages. Read anew. UINT64_MAX when it cannot be told. errno is kept. */
uint64_t qy_node_room(int dense);

/* How many pages that were meant for the node went elsewhere since boot (numa_foreign of the node's numastat; the whole
 * machine's, so that it can only say when to look). 0 when it cannot be told (also with vm.numa_stat=0). */
uint64_t qy_node_foreign(int dense);

/* Where the calling thread's current CPU can be read (rseq), on a machine of several nodes: while it is the same, so is
 * the node, unless the cpuset changed. NULL elsewhere. Valid as long as the thread lives. */
const volatile int32_t *qy_node_cpu_now(void);

/* Free 2 MiB (huge_shift 21) or 1 GiB (30) pages in the node's pool, now; 0 when it cannot be told. */
uint64_t qy_node_huge_free(int dense, unsigned huge_shift);
/* Fills all but struct_size, and 0 in what only quarry_nodes fills. 0 or -1 with errno. */
int qy_node_info(int dense, quarry_node_info *info);

#endif
