/* SPDX-License-Identifier: MIT */
/* Memory attributes of nodes, by hwloc. The only code that talks to it.
 *
 * hwloc is looked for and loaded on the first call, once for the process; never by malloc, never at start-up. It calls
 * malloc itself, so nothing of quarry may be locked here. quarry does not link it: a program that has it already
 * (shared or static) is served by its own, any other by dlopen(3). */
#ifndef QUARRY_NUMA_ATTRS_H
#define QUARRY_NUMA_ATTRS_H

#include <stdint.h>

/* The attribute (enum quarry_node_attr) of a node by its dense number, seen from a CPU, or with -1 from the node's own
 * CPUs; for a node without any, from the CPUs that reach it best.
 * 0; -1 with EINVAL (no such node, attribute or CPU), ENOSYS (no hwloc that fits here), ENODATA (not told; nothing is
 * told of a node that is made up, see qy_nodes_made_up). */
int qy_attr_get(int dense_node, int attr, int cpu, uint64_t *value);

#endif
