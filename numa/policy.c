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

/* The kernel's mode for a placement. Nodes are bound to, in the kernel's sense, only where nothing may fall to others:
 * strictly, when room was seen to first, or for as long as huge pages are taken from pools, where the next rung at home
 * is better than a huge page elsewhere. Otherwise a fault into full nodes would have the kernel kill, where it can take
 * a page elsewhere, which is told and comes home. */
static int mode_of(const struct qy_placement *placement, bool firm)
{
	switch (placement->policy) {
	case QUARRY_POLICY_BIND:
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

/* What stands in for a policy that the kernel does not know (before 5.15 and 6.9), and on which nodes. For `bind` it is
 * as good: one node is preferred, and several are bound to as they were asked to be. */
static int older_mode(const struct qy_placement *placement, int mode, quarry_nodeset *set)
{
	int only = qy_nodeset_first(set), nearest;

	if (mode == QY_MPOL_WEIGHTED_INTERLEAVE)
		return QY_MPOL_INTERLEAVE;
	if (placement->policy == QUARRY_POLICY_BIND) {
		for (int i = only + 1; i < QUARRY_NODES_MAX; i++)
			if (quarry_nodeset_has(set, (unsigned)i))
				return QY_MPOL_BIND;
		return QY_MPOL_PREFERRED;
	}
	nearest = qy_node_nearest(set, qy_node_current());
	one_node_only(set, nearest >= 0 ? qy_node_kernel_id(nearest) : only);
	return QY_MPOL_PREFERRED;
}

static enum qy_placed apply(const struct qy_placement *placement, void *addr, size_t len, bool firm)
{
	quarry_nodeset set = placement->nodes;
	int mode = mode_of(placement, firm), error;

	_Static_assert(sizeof(unsigned long) == sizeof(uint64_t), "node masks are arrays of 64-bit words");
	if (!placement->bind)
		return QY_PLACED_YES;
	if (placement->policy == QUARRY_POLICY_PREFERRED)
		one_node_only(&set, qy_nodeset_first(&set));
	if (try_bind(mode, &set, addr, len))
		return QY_PLACED_YES;
	error = errno;
	if (error == EINVAL && mode >= QY_MPOL_PREFERRED_MANY &&
	    !(firm && (qy_peek(placement->flags) & QUARRY_ARENA_STRICT)) &&
	    try_bind(older_mode(placement, mode, &set), &set, addr, len)) {
		if (placement->policy == QUARRY_POLICY_BIND)
			return QY_PLACED_YES;
		refuse_mbind(EINVAL);
		return QY_PLACED_LESS;
	}
	refuse_mbind(error);
	errno = error;
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

enum qy_placed qy_policy_apply_soft(const struct qy_placement *placement, void *addr, size_t len)
{
	return apply(placement, addr, len, false);
}

bool qy_policy_is_set(void)
{
	int mode = QY_MPOL_DEFAULT, error = errno;
	bool set = qy_os->get_mempolicy(&mode, NULL, 0, NULL, 0) == 0 && (mode & 0xff) != QY_MPOL_DEFAULT &&
		   (mode & 0xff) != QY_MPOL_LOCAL;

	errno = error;
	return set;
}

bool qy_policy_bind_one(int kernel_id, void *addr, size_t len)
{
	quarry_nodeset set;

	one_node_only(&set, kernel_id);
	if (try_bind(QY_MPOL_BIND, &set, addr, len))
		return true;
	refuse_mbind(errno);
	return false;
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
