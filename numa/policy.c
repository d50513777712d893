/* SPDX-License-Identifier: MIT */
#include "numa/policy.h"

#include <errno.h>
#include <string.h>

#include "numa/os.h"
#include "lib/base/refused.h"

static void refuse_mbind(int error)
{
	switch (error) {
	case EPERM:
		qy_refuse(QUARRY_REFUSED_MBIND_EPERM);
		break;
	case ENOSYS:
		qy_refuse(QUARRY_REFUSED_MBIND_ENOSYS);
		break;
	case EINVAL:
		qy_refuse(QUARRY_REFUSED_MBIND_EINVAL);
		break;
	default:
		qy_refuse(QUARRY_REFUSED_MBIND_OTHER);
	}
}

static void first_node_only(quarry_nodeset *set)
{
	for (unsigned i = 0; i < QUARRY_NODES_MAX; i++) {
		if (quarry_nodeset_has(set, i)) {
			memset(set, 0, sizeof(*set));
			quarry_nodeset_add(set, i);
			return;
		}
	}
}

/* MPOL_F_STATIC_NODES: without it a change of the cpuset silently remaps the set to other nodes. */
static bool try_bind(int mode, const quarry_nodeset *set, void *addr, size_t len)
{
	return qy_os->mbind(addr, len, mode | QY_MPOL_F_STATIC_NODES, (const unsigned long *)set->bits,
			    QUARRY_NODES_MAX, 0) == 0;
}

enum qy_placed qy_policy_apply(const struct qy_placement *placement, void *addr, size_t len)
{
	static const int modes[] = { QY_MPOL_LOCAL,          QY_MPOL_BIND,       QY_MPOL_PREFERRED,
				     QY_MPOL_PREFERRED_MANY, QY_MPOL_INTERLEAVE, QY_MPOL_WEIGHTED_INTERLEAVE };
	quarry_nodeset set = placement->nodes;
	int mode = modes[placement->policy];

	_Static_assert(sizeof(unsigned long) == sizeof(uint64_t), "node masks are arrays of 64-bit words");
	if (!placement->bind)
		return QY_PLACED_YES;
	if (placement->policy == QUARRY_POLICY_PREFERRED)
		first_node_only(&set);
	if (try_bind(mode, &set, addr, len))
		return QY_PLACED_YES;
	/* Kernels before 5.15 and 6.9 answer EINVAL to the newer policies: the nearest older one stands in. */
	if (errno == EINVAL && mode >= QY_MPOL_PREFERRED_MANY && !(qy_peek(placement->flags) & QUARRY_ARENA_STRICT)) {
		refuse_mbind(EINVAL);
		if (mode == QY_MPOL_PREFERRED_MANY) {
			first_node_only(&set);
			mode = QY_MPOL_PREFERRED;
		} else {
			mode = QY_MPOL_INTERLEAVE;
		}
		if (try_bind(mode, &set, addr, len))
			return QY_PLACED_LESS;
	}
	refuse_mbind(errno);
	return QY_PLACED_NO;
}
