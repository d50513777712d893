/* SPDX-License-Identifier: MIT */
/* What the files behind numa/topology.h share: topology.c (the nodes, what is allowed, distances), cpus.c (CPUs and
 * the nodes they allocate on) and nodestat.c (figures that change). Nobody else includes it. */
#ifndef QUARRY_NUMA_SYSNODE_H
#define QUARRY_NUMA_SYSNODE_H

#include "numa/topology.h"

#define QY_NODE_PATH_MAX 96
#define QY_NODE_LIST_BUFFER 4097 /* sysfs gives at most a page of 4096 for a list of nodes, distances or a CPU mask */

/* Written by qy_topology_init alone; constant afterwards. As it stands at first it is the machine without sysfs. */
struct qy_nodes {
	int count;
	bool flat;     /* no list of nodes: one node 0 that stands for all there is */
	bool by_rseq;  /* rseq's cpu_id may be used */
	bool initialised;
};

extern struct qy_nodes qy_nodes;
extern uint16_t qy_node_ids[QY_NODES_MAX]; /* the kernel's, by dense number, ascending; as constant as the above */

QY_INLINE bool qy_is_node(int dense)
{
	return dense >= 0 && dense < qy_nodes.count;
}

/* 1, 0, or -1 when the machine does not tell. */
int qy_node_memory_listed(int dense);
int qy_node_cpus_listed(int dense);

/* The nodes that the kernel lets this process allocate on, as it says now. */
struct qy_allowed {
	unsigned long words[QY_NODES_MAX / (8 * sizeof(unsigned long))];
	bool told; /* false: it won't say, and all are */
};

void qy_allowed_ask(struct qy_allowed *allowed);
bool qy_allowed_has(const struct qy_allowed *allowed, int dense);

/* The node's logical number among those that this process may use; -1: it may not. */
int qy_allowed_index(const struct qy_allowed *allowed, int dense);

/* Of the nodes with memory that are allowed, and of set (the kernel's ids; NULL: of all), the nearest to `from`. -1. */
int qy_allowed_nearest(const struct qy_allowed *allowed, const quarry_nodeset *set, int from);

/* "/sys/devices/system/node/nodeN/leaf" */
void qy_node_path(char path[QY_NODE_PATH_MAX], int dense, const char *leaf);

/* Read a file whole and end it with 0; false when there is none, it is empty, or there is more than fits. */
bool qy_node_read(const char *path, char *buffer, size_t size);

/* The next number of a string, or -1 when there is none where *at points. Numbers too large stay large. */
long qy_take_number(const char **at);

/* Forget all CPUs and homes: of a topology that is read a second time. */
void qy_cpus_forget(void);
bool qy_rseq_registered(void);

#endif
