/* SPDX-License-Identifier: MIT */
/* Where memory really is: asked of the kernel page by page, beside what was asked for. */
#include <errno.h>
#include <string.h>

#include "include/quarry/quarry.h"
#include "lib/cache/cache.h"
#include "lib/manager/manager.h"
#include "numa/os.h"
#include "lib/base/refused.h"

#define BATCH 256

/* What the kernel's pages of the region are at most: a hugetlb page is one entry. */
static size_t grain_of(const struct qy_region *r)
{
	return r->kind == QUARRY_PAGES_1G   ? QY_ZONE
	       : r->kind == QUARRY_PAGES_2M ? QY_FRAME
					    : qy_os_page_size();
}

static int wanted_node(const struct qy_placement *placement)
{
	if (placement->policy == QUARRY_POLICY_LOCAL)
		return -1;
	for (int n = 0; n < QUARRY_NODES_MAX; n++)
		if (quarry_nodeset_has(&placement->nodes, (unsigned)n))
			return n;
	return -1;
}

/* Nodes of a batch of pages. move_pages(2) without target nodes only tells; what it will not tell, mincore may. */
static void ask_nodes(void **pages, int *nodes, size_t n)
{
	if (qy_os->move_pages(n, pages, NULL, nodes, 0) == 0) {
		/* ENOENT: not in memory. EFAULT: the shared zero page, which has no place of its own. */
		for (size_t i = 0; i < n; i++)
			if (nodes[i] < 0)
				nodes[i] = QUARRY_NODE_NONE;
		return;
	}
	qy_refuse(QUARRY_REFUSED_MOVE_PAGES);
	for (size_t i = 0; i < n; i++) {
		unsigned char in = 0;
		int r = qy_os->mincore(pages[i], qy_os_page_size(), &in);

		nodes[i] = r == 0 && !(in & 1) ? QUARRY_NODE_NONE : QUARRY_NODE_UNKNOWN;
	}
}

static void describe(quarry_page_info *info, const struct qy_region *r, void *page, int node, size_t grain)
{
	const struct qy_placement *placement = r->placement;
	bool huge = false;

	memset(info, 0, sizeof(*info));
	info->address = page;
	info->node = node;
	info->wanted_node = placement->bind ? wanted_node(placement) : -1;
	info->wanted_kind = r->kind_wanted;
	info->policy = (uint8_t)placement->policy;
	info->policy_applied = r->placed != QY_PLACED_NO;
	info->page_kind = r->kind >= QUARRY_PAGES_2M ? r->kind : QUARRY_PAGES_AUTO;
	if (node == QUARRY_NODE_NONE)
		return;
	info->size = grain;
	if (r->kind >= QUARRY_PAGES_2M)
		return;
	if (qy_os->page_is_huge(page, &huge) == 0) {
		info->page_kind = huge ? QUARRY_PAGES_THP : QUARRY_PAGES_BASE;
		info->size = huge ? QY_FRAME : grain;
	} else if (r->kind == QUARRY_PAGES_BASE) {
		/* Never advised to be huge (MADV_NOHUGEPAGE), so it is not. */
		info->page_kind = QUARRY_PAGES_BASE;
	}
}

QUARRY_API long quarry_where(const void *p, size_t n, quarry_page_info *info, size_t max)
{
	struct qy_region *r = NULL;
	uintptr_t first, end;
	size_t grain, count = 0;

	if (qy_manager_of(p) != NULL)
		r = qy_region_of_frame(qy_frame_at((uint32_t)(qy_window_offset(p) >> QY_FRAME_SHIFT)));
	if (r == NULL || n == 0 || n > PTRDIFF_MAX || (info == NULL && max > 0) ||
	    qy_window_offset(p) + n > (qy_region_frame(r) + r->frames) << QY_FRAME_SHIFT) {
		errno = EINVAL;
		return -1;
	}
	grain = grain_of(r);
	first = qy_align_down((uintptr_t)p, grain);
	end = qy_align_up((uintptr_t)p + n, grain);
	for (uintptr_t at = first; at < end && count < max;) {
		void *pages[BATCH];
		int nodes[BATCH];
		size_t batch = 0;

		for (; at < end && batch < BATCH && count + batch < max; at += grain)
			pages[batch++] = (void *)at;
		ask_nodes(pages, nodes, batch);
		for (size_t i = 0; i < batch; i++)
			describe(&info[count + i], r, pages[i], nodes[i], grain);
		count += batch;
	}
	return (long)((end - first) / grain);
}
