/* SPDX-License-Identifier: MIT */
#include "lib/view/pages.h"

#include "lib/base/refused.h"
#include "numa/os.h"
#include "numa/topology.h"

/* What move_pages(2) would not tell: mincore(2) at least knows what is in memory. */
static void ask_mincore(void **pages, int *nodes, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		unsigned char in = 0;
		int r = qy_os->mincore(pages[i], qy_os_page_size(), &in);

		nodes[i] = r == 0 && !(in & 1) ? QUARRY_NODE_NONE : QUARRY_NODE_UNKNOWN;
	}
}

void qy_pages_nodes(void **pages, int *nodes, size_t n)
{
	if (qy_os->move_pages(n, pages, NULL, nodes, 0) != 0) {
		qy_refuse(QUARRY_REFUSED_MOVE_PAGES);
		ask_mincore(pages, nodes, n);
		return;
	}
	/* ENOENT: not in memory. EFAULT: the shared zero page, which has no place of its own. */
	for (size_t i = 0; i < n; i++)
		if (nodes[i] < 0)
			nodes[i] = QUARRY_NODE_NONE;
}

int qy_placement_node(const struct qy_placement *placement)
{
	if (!placement->bind)
		return -1;
	return placement->node >= 0 ? qy_node_kernel_id(placement->node) : qy_nodeset_first(&placement->nodes);
}

bool qy_placement_wants(const struct qy_placement *placement, enum qy_placed placed, int node)
{
	if (!placement->bind || placed == QY_PLACED_NO || node < 0)
		return true;
	if (placement->node >= 0 || placement->policy == QUARRY_POLICY_PREFERRED)
		return node == qy_placement_node(placement);
	return quarry_nodeset_has(&placement->nodes, (unsigned)node);
}

int qy_placement_got(const struct qy_placement *placement, enum qy_placed placed)
{
	if (placed == QY_PLACED_NO)
		return QUARRY_POLICY_LOCAL;
	if (placed == QY_PLACED_YES || placement->policy < QUARRY_POLICY_PREFERRED_MANY)
		return placement->policy;
	return placement->policy == QUARRY_POLICY_PREFERRED_MANY ? QUARRY_POLICY_PREFERRED : QUARRY_POLICY_INTERLEAVE;
}
