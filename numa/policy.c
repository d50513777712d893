/* SPDX-License-Identifier: MIT */
#include "numa/policy.h"

#include <errno.h>
#include <string.h>

#include "numa/os.h"
#include "numa/topology.h"
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

static void one_node_only(quarry_nodeset *set, int kernel_id)
{
	memset(set, 0, sizeof(*set));
	if (kernel_id >= 0)
		quarry_nodeset_add(set, (unsigned)kernel_id);
}

/* MPOL_F_STATIC_NODES: without it a change of the cpuset silently remaps the set to other nodes. */
static bool try_bind(int mode, const quarry_nodeset *set, void *addr, size_t len)
{
	return qy_os->mbind(addr, len, mode | QY_MPOL_F_STATIC_NODES, (const unsigned long *)set->bits,
			    QUARRY_NODES_MAX, 0) == 0;
}

/* The kernel's mode for a placement. What prefers nodes binds to them when it must not fall to others: strictly, or
 * for as long as huge pages are taken from pools, where the next rung at home is better than a huge page elsewhere. */
static int mode_of(const struct qy_placement *placement, bool firm)
{
	switch (placement->policy) {
	case QUARRY_POLICY_BIND:
		return QY_MPOL_BIND;
	case QUARRY_POLICY_PREFERRED_MANY:
		return firm ? QY_MPOL_BIND : QY_MPOL_PREFERRED_MANY;
	case QUARRY_POLICY_INTERLEAVE:
		return QY_MPOL_INTERLEAVE;
	case QUARRY_POLICY_WEIGHTED_INTERLEAVE:
		return QY_MPOL_WEIGHTED_INTERLEAVE;
	default: /* preferred, and local, which is bound node by node */
		return firm ? QY_MPOL_BIND : QY_MPOL_PREFERRED;
	}
}

static enum qy_placed apply(const struct qy_placement *placement, void *addr, size_t len, bool firm)
{
	quarry_nodeset set = placement->nodes;
	int mode = mode_of(placement, firm);

	_Static_assert(sizeof(unsigned long) == sizeof(uint64_t), "node masks are arrays of 64-bit words");
	if (!placement->bind)
		return QY_PLACED_YES;
	if (placement->policy == QUARRY_POLICY_PREFERRED)
		one_node_only(&set, qy_nodeset_first(&set));
	if (try_bind(mode, &set, addr, len))
		return QY_PLACED_YES;
	/* Kernels before 5.15 and 6.9 answer EINVAL to the newer policies: the nearest older one stands in. */
	if (errno == EINVAL && mode >= QY_MPOL_PREFERRED_MANY && !(qy_peek(placement->flags) & QUARRY_ARENA_STRICT)) {
		refuse_mbind(EINVAL);
		if (mode == QY_MPOL_PREFERRED_MANY) {
			int nearest = qy_node_nearest(&set, qy_node_current());

			one_node_only(&set, nearest >= 0 ? qy_node_kernel_id(nearest) : qy_nodeset_first(&set));
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

enum qy_placed qy_policy_apply(const struct qy_placement *placement, void *addr, size_t len)
{
	return apply(placement, addr, len, qy_peek(placement->flags) & QUARRY_ARENA_STRICT);
}

enum qy_placed qy_policy_apply_firm(const struct qy_placement *placement, void *addr, size_t len)
{
	return apply(placement, addr, len, true);
}

bool qy_policy_is_set(void)
{
	int mode = QY_MPOL_DEFAULT, error = errno;
	bool set = qy_os->get_mempolicy(&mode, NULL, 0, NULL, 0) == 0 && (mode & 0xff) != QY_MPOL_DEFAULT &&
		   (mode & 0xff) != QY_MPOL_LOCAL;

	errno = error;
	return set;
}

void qy_policy_prefer(int dense, void *addr, size_t len)
{
	quarry_nodeset set;

	if (dense < 0 || qy_node_count() == 1 || qy_nodes_made_up())
		return;
	one_node_only(&set, qy_node_kernel_id(dense));
	/* (A refusal is the regions' to tell, which are asked for in the same breath.) */
	(void)try_bind(QY_MPOL_PREFERRED, &set, addr, len);
}
