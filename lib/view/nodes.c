/* SPDX-License-Identifier: MIT */
/* The nodes as the program sees them: by the kernel's ids, with errno. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "include/quarry/quarry.h"
#include "lib/api/error.h"
#include "lib/api/init.h"
#include "numa/attrs.h"
#include "numa/os.h"
#include "numa/topology.h"

#define INFO_SIZE_FIRST offsetof(quarry_node_info, huge_total_2m) /* of the struct's first version */
#define INFO_SIZE_MAX 4096 /* a struct_size beyond it was never set */

/* What is known of nodes was not told: errno says why. */
static int not_told(void)
{
	return qy_fail(errno, errno == ENOSYS    ? "there is no hwloc here, which alone tells of this"
			      : errno == ENODATA ? "this machine does not tell"
			      : errno == EINVAL  ? "attr or cpu: there is none such"
						 : "the kernel, or hwloc, does not say");
}

static int no_node(int node)
{
	return qy_fail(EINVAL, "node: there is no node %d", node);
}

static int no_cpu(int cpu)
{
	return qy_fail(EINVAL, "cpu: there is no CPU %d", cpu);
}

/* ---- the nodes that may be used --------------------------------------------------------------------------- */

/* Logical numbers are asked for anew each time: a cpuset can change under a running process. The dense numbers inside
 * are another thing, all of the machine's nodes. */
static int next_of(const quarry_nodeset *set, int dense)
{
	do
		dense++;
	while (dense < qy_node_count() && !quarry_nodeset_has(set, (unsigned)qy_node_kernel_id(dense)));
	return dense;
}

QUARRY_API int quarry_node_count(void)
{
	quarry_nodeset usable;

	qy_init_once();
	return qy_nodes_usable(&usable);
}

QUARRY_API int quarry_node_id(int index)
{
	quarry_nodeset usable;
	int dense;

	qy_init_once();
	if (index < 0 || index >= qy_nodes_usable(&usable))
		return qy_fail(EINVAL, "index: there is no node with the logical number %d", index);
	dense = next_of(&usable, -1);
	while (index-- > 0)
		dense = next_of(&usable, dense);
	return qy_node_kernel_id(dense);
}

/* The program's struct may be of an earlier version than ours, or of a later one: what we do not know of is zeroed.
 * Every version ends where its 64-bit fields do. */
static bool is_info_size(uint32_t size)
{
	return size >= INFO_SIZE_FIRST && size <= INFO_SIZE_MAX && size % sizeof(uint64_t) == 0;
}

static void give_info(void *to, quarry_node_info *ours, uint32_t size)
{
	ours->struct_size = size;
	memcpy(to, ours, size < sizeof(*ours) ? size : sizeof(*ours));
	if (size > sizeof(*ours))
		memset((char *)to + sizeof(*ours), 0, size - sizeof(*ours));
}

QUARRY_API int quarry_node_info_get(int node, quarry_node_info *info)
{
	quarry_node_info ours = { 0 };
	int dense;

	qy_init_once();
	dense = qy_node_dense(node);
	if (!info || !is_info_size(info->struct_size))
		return qy_fail(EINVAL, "info: NULL, or its struct_size is that of no quarry_node_info");
	if (dense < 0)
		return no_node(node);
	if (qy_node_info(dense, &ours) != 0)
		return not_told();
	give_info(info, &ours, info->struct_size);
	return 0;
}

static uint64_t told_or_0(int dense, int attr)
{
	uint64_t value;
	return qy_attr_get(dense, attr, -1, &value) == 0 ? value : 0;
}

QUARRY_API long quarry_nodes(quarry_node_info *list, size_t max)
{
	quarry_nodeset usable;
	int count, dense = -1;
	uint32_t size;

	qy_init_once();
	if (max > 0 && (!list || !is_info_size(list->struct_size)))
		return qy_fail(EINVAL, "list: NULL, or its struct_size is that of no quarry_node_info");
	count = qy_nodes_usable(&usable);
	if (max == 0)
		return count;
	size = list->struct_size;
	for (int i = 0; i < count && (size_t)i < max; i++) {
		quarry_node_info ours = { 0 };
		dense = next_of(&usable, dense);
		if (qy_node_info(dense, &ours) != 0)
			return not_told();
		/* One snapshot, also when the cpuset changes in the middle. */
		ours.index = i;
		if (ours.has_memory != 0)
			ours.allowed = 1;
		ours.bandwidth = told_or_0(dense, QUARRY_ATTR_BANDWIDTH);
		ours.latency = told_or_0(dense, QUARRY_ATTR_LATENCY);
		give_info((char *)list + (size_t)i * size, &ours, size);
	}
	return count;
}

/* ---- CPUs and distances ----------------------------------------------------------------------------------- */

QUARRY_API int quarry_node_current(void)
{
	qy_init_once();
	return qy_node_kernel_id(qy_node_current());
}

QUARRY_API int quarry_node_of_cpu(int cpu)
{
	int dense;

	qy_init_once();
	dense = qy_node_of_cpu(cpu);
	return dense < 0 ? no_cpu(cpu) : qy_node_kernel_id(dense);
}

/* Of nodes that are there. */
static int distance_or_nodata(int from, int to)
{
	int distance = qy_node_distance(from, to);

	if (distance < 0)
		errno = ENODATA;
	return distance;
}

QUARRY_API int quarry_node_distance(int from, int to)
{
	int here, there, distance;

	qy_init_once();
	here = qy_node_dense(from);
	there = qy_node_dense(to);
	if (here < 0 || there < 0)
		return no_node(here < 0 ? from : to);
	distance = distance_or_nodata(here, there);
	return distance < 0 ? not_told() : distance;
}

/* ---- attributes ------------------------------------------------------------------------------------------- */

/* As for hwloc's attributes: without a CPU the node's own CPUs', or those that reach it best. */
static int distance_from_best(int to)
{
	int best = -1;

	if (qy_node_has_cpus(to))
		return distance_or_nodata(to, to);
	for (int from = 0; from < qy_node_count(); from++) {
		int d = qy_node_has_cpus(from) ? qy_node_distance(from, to) : -1;
		if (d >= 0 && (best < 0 || d < best))
			best = d;
	}
	if (best < 0)
		errno = ENODATA;
	return best;
}

/* Capacity and free memory by the kernel's own word. */
static int memory_of(int dense, int attr, uint64_t *value)
{
	quarry_node_info info;

	if (qy_node_info(dense, &info) != 0)
		return -1;
	/* Nothing at all on a node that has memory: its file cannot be read. */
	if (info.memory_total == 0 && info.has_memory != 0) {
		errno = ENODATA;
		return -1;
	}
	*value = attr == QUARRY_ATTR_FREE ? info.memory_free : info.memory_total;
	return 0;
}

/* Without hwloc, or when it does not know the node, what it would tell can often be had from the kernel. */
static int attr_of(int dense, int attr, int cpu, uint64_t *value)
{
	int from, distance;

	switch (attr) {
	case QUARRY_ATTR_FREE:
		return memory_of(dense, attr, value);
	case QUARRY_ATTR_DISTANCE:
		from = qy_node_of_cpu(cpu);
		if (cpu >= 0 && from < 0) {
			errno = EINVAL;
			return -1;
		}
		distance = cpu < 0 ? distance_from_best(dense) : distance_or_nodata(from, dense);
		if (distance < 0)
			return -1;
		*value = (uint64_t)distance;
		return 0;
	default:
		if (qy_attr_get(dense, attr, cpu, value) == 0)
			return 0;
		if (attr != QUARRY_ATTR_CAPACITY || (errno != ENOSYS && errno != ENODATA))
			return -1;
		return memory_of(dense, attr, value);
	}
}

QUARRY_API int quarry_node_attr_get(int node, int attr, int cpu, uint64_t *value)
{
	int dense;

	qy_init_once();
	dense = qy_node_dense(node);
	if (dense < 0)
		return no_node(node);
	if (cpu < -1)
		return no_cpu(cpu);
	if (!value)
		return qy_fail(EINVAL, "value: it is NULL");
	return attr_of(dense, attr, cpu, value) == 0 ? 0 : not_told();
}

static bool better(int attr, uint64_t value, uint64_t than)
{
	return attr == QUARRY_ATTR_LATENCY || attr == QUARRY_ATTR_DISTANCE ? value < than : value > than;
}

/* The CPU that the caller is on; -1 when the kernel won't say. */
static int current_cpu(void)
{
	unsigned cpu;
	return qy_os->getcpu(&cpu, NULL) == 0 ? (int)cpu : -1;
}

/* A distance that is not told is farther than any. */
static int how_far(int from, int to)
{
	int d = qy_node_distance(from, to);
	return d < 0 ? INT32_MAX : d;
}

QUARRY_API int quarry_node_best(int attr, int cpu)
{
	int from, best = -1, why = ENODATA;
	uint64_t value, best_value = 0;
	quarry_nodeset allowed;

	qy_init_once();
	if (attr < QUARRY_ATTR_CAPACITY || attr > QUARRY_ATTR_DISTANCE)
		return qy_fail(EINVAL, "attr: there is none of number %d", attr);
	if (cpu < -1)
		return no_cpu(cpu);
	if (cpu >= 0) {
		from = qy_node_of_cpu(cpu);
		if (from < 0)
			return no_cpu(cpu);
	} else {
		cpu = current_cpu();
		from = cpu < 0 ? qy_node_current() : qy_node_of_cpu(cpu);
	}
	qy_nodes_allowed(&allowed);
	for (int i = 0; i < qy_node_count(); i++) {
		if (!qy_node_has_memory(i) || !quarry_nodeset_has(&allowed, (unsigned)qy_node_kernel_id(i)))
			continue;
		if (attr_of(i, attr, cpu, &value) != 0) {
			if (errno == ENOSYS || errno == ENOMEM)
				why = errno;
			continue;
		}
		if (best >= 0 && !better(attr, value, best_value) &&
		    (value != best_value || how_far(from, i) >= how_far(from, best)))
			continue;
		best = i;
		best_value = value;
	}
	if (best < 0) {
		errno = why;
		return not_told();
	}
	return qy_node_kernel_id(best);
}
