/* SPDX-License-Identifier: MIT */
/* Where memory really is: asked of the kernel page by page, beside what was asked for. */
#include <errno.h>

#include "include/quarry/quarry.h"
#include "lib/api/error.h"
#include "lib/manager/manager.h"
#include "lib/view/pages.h"
#include "numa/os.h"

/* What is the same for all pages of the range. A move may give the region another placement meanwhile: one is read. */
static quarry_page_info asked_of(const struct qy_region *r)
{
	const struct qy_placement *placement = qy_peek(r->placement);
	enum qy_placed placed = qy_peek(r->placed);

	return (quarry_page_info){
		.wanted_node = qy_placement_node(placement),
		.wanted_kind = r->kind_wanted,
		.policy = (uint8_t)placement->policy,
		.policy_applied = placed != QY_PLACED_NO,
		.policy_got = (uint8_t)qy_placement_got(placement, placed),
		.page_kind = r->kind >= QUARRY_PAGES_2M ? r->kind : QUARRY_PAGES_AUTO,
	};
}

static void describe(quarry_page_info *info, const struct qy_region *r, const quarry_page_info *asked, void *page,
		     int node)
{
	bool huge = false;

	*info = *asked;
	info->address = page;
	info->node = node;
	if (node == QUARRY_NODE_NONE)
		return;
	info->size = qy_kind_grain(r->kind);
	if (r->kind >= QUARRY_PAGES_2M)
		return;
	if (qy_os->page_is_huge(page, &huge) == 0) {
		info->page_kind = huge ? QUARRY_PAGES_THP : QUARRY_PAGES_BASE;
		info->size = huge ? QY_FRAME : info->size;
	} else if (r->kind == QUARRY_PAGES_BASE) {
		/* Never advised to be huge (MADV_NOHUGEPAGE), so it is not. */
		info->page_kind = QUARRY_PAGES_BASE;
	}
}

/* The region that all of [p, p + n) is in; NULL when there is none. */
static struct qy_region *region_of(const void *p, size_t n)
{
	struct qy_region *r;

	if (n == 0 || n > PTRDIFF_MAX || qy_manager_of(p) == NULL)
		return NULL;
	r = qy_region_of_frame(qy_frame_at((uint32_t)(qy_window_offset(p) >> QY_FRAME_SHIFT)));
	if (r == NULL || qy_window_offset(p) + n > (qy_region_frame(r) + r->frames) << QY_FRAME_SHIFT)
		return NULL;
	return r;
}

QUARRY_API long quarry_where(const void *p, size_t n, quarry_page_info *info, size_t max)
{
	struct qy_region *r = region_of(p, n);
	quarry_page_info asked;
	uintptr_t first, end;
	size_t grain, count = 0;

	if (r == NULL)
		return qy_fail(EINVAL, "p: %lu bytes from %p on are not quarry's", (unsigned long)n,
			       (void *)(uintptr_t)p);
	if (info == NULL && max > 0)
		return qy_fail(EINVAL, "info: NULL, for %lu entries", (unsigned long)max);
	asked = asked_of(r);
	grain = qy_kind_grain(r->kind);
	first = qy_align_down((uintptr_t)p, grain);
	end = qy_align_up((uintptr_t)p + n, grain);
	for (uintptr_t at = first; at < end && count < max;) {
		void *pages[QY_PAGES_BATCH];
		int nodes[QY_PAGES_BATCH];
		size_t batch = 0;

		for (; at < end && batch < QY_PAGES_BATCH && count + batch < max; at += grain)
			pages[batch++] = (void *)at;
		qy_pages_nodes(pages, nodes, batch);
		for (size_t i = 0; i < batch; i++)
			describe(&info[count + i], r, &asked, pages[i], nodes[i]);
		count += batch;
	}
	return (long)((end - first) / grain);
}
