/* SPDX-License-Identifier: MIT */
/* The nodes as the program sees them: by the kernel's ids, with errno. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <string.h>

#include "include/quarry/quarry.h"
#include "lib/api/init.h"
#include "numa/attrs.h"
#include "numa/topology.h"

#define INFO_SIZE_MAX 4096 /* a struct_size beyond it was never set */

static int invalid(void)
{
	errno = EINVAL;
	return -1;
}

QUARRY_API int quarry_node_count(void)
{
	qy_init_once();
	return qy_node_count();
}

QUARRY_API int quarry_node_id(int index)
{
	int id;

	qy_init_once();
	id = qy_node_kernel_id(index);
	return id < 0 ? invalid() : id;
}

/* The program's struct may be of a later version than ours: what we do not know of is zeroed. */
QUARRY_API int quarry_node_info_get(int node, quarry_node_info *info)
{
	quarry_node_info ours = { 0 };
	uint32_t size;
	int dense;

	qy_init_once();
	dense = qy_node_dense(node);
	if (!info || dense < 0)
		return invalid();
	size = info->struct_size;
	if (size < sizeof(ours) || size > INFO_SIZE_MAX)
		return invalid();
	if (qy_node_info(dense, &ours) != 0)
		return -1;
	ours.struct_size = size;
	memcpy(info, &ours, sizeof(ours));
	memset((char *)info + sizeof(ours), 0, size - sizeof(ours));
	return 0;
}

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
	return dense < 0 ? invalid() : qy_node_kernel_id(dense);
}

QUARRY_API int quarry_node_distance(int from, int to)
{
	int distance;

	qy_init_once();
	from = qy_node_dense(from);
	to = qy_node_dense(to);
	if (from < 0 || to < 0)
		return invalid();
	distance = qy_node_distance(from, to);
	if (distance < 0)
		errno = ENODATA; /* both are there, and the machine does not say how far apart */
	return distance;
}

QUARRY_API int quarry_node_attr_get(int node, int attr, int cpu, uint64_t *value)
{
	qy_init_once();
	return qy_attr_get(qy_node_dense(node), attr, cpu, value);
}
