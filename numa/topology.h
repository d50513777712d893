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
bool qy_node_allowed(int dense);              /* by the cpuset, from the kernel (mems_allowed); true when it won't say */
bool qy_node_has_memory(int dense);
bool qy_node_has_cpus(int dense);
/* The allowed nodes as the kernel's ids. */
void qy_nodes_allowed(quarry_nodeset *set);
/* Free 2 MiB (huge_shift 21) or 1 GiB (30) pages in the node's pool, now; 0 when it cannot be told. */
uint64_t qy_node_huge_free(int dense, unsigned huge_shift);
int qy_node_info(int dense, quarry_node_info *info); /* fills all but struct_size; 0 or -1 with errno */

#endif
