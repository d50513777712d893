/* SPDX-License-Identifier: MIT */
/* Where the pages of what a view tells of are now, as the kernel says. The view is of a moment that is over: what stood
 * there may be gone, and then is not in memory. No page is touched. */
#include "lib/base/place.h"
#include "lib/view/pages.h"
#include "numa/os.h"

#define NODES 16 /* that are told apart; more than that are rare, and the least */

struct sums {
	quarry_view_item *item;
	struct { int node; size_t bytes; } at[NODES];
	size_t nodes;
};

static void add(struct sums *sums, int node, size_t bytes, bool huge)
{
	size_t i = 0;

	if (node == QUARRY_NODE_NONE)
		return;
	sums->item->resident += bytes;
	sums->item->huge += huge ? bytes : 0;
	while (i < sums->nodes && sums->at[i].node != node)
		i++;
	if (i == NODES)
		return;
	sums->nodes += i == sums->nodes;
	sums->at[i].node = node;
	sums->at[i].bytes += bytes;
}

/* From one address to another, not beyond a huge page: by its pages. */
static void look_at_pages(struct sums *sums, uintptr_t at, uintptr_t end)
{
	size_t page = qy_os_page_size();
	void *pages[QY_PAGES_BATCH];
	int nodes[QY_PAGES_BATCH];

	while (at < end) {
		size_t n = 0, i = 0;
		uintptr_t from = at;

		for (; at < end && n < QY_PAGES_BATCH; at = qy_align_down(at, page) + page)
			pages[n++] = (void *)qy_align_down(at, page);
		qy_pages_nodes(pages, nodes, n);
		for (; i < n; i++, from = qy_align_down(from, page) + page)
			add(sums, nodes[i], qy_min(qy_align_down(from, page) + page, end) - from, false);
	}
}

/* One page, as large as the step, which is asked of once. */
static void look_at_huge(struct sums *sums, uintptr_t page, size_t bytes)
{
	void *pages[1] = { (void *)page };
	int nodes[1];

	qy_pages_nodes(pages, nodes, 1);
	add(sums, nodes[0], bytes, true);
}

static void find_most(struct sums *sums)
{
	for (size_t i = 0; i < sums->nodes; i++)
		if (sums->at[i].bytes > sums->item->resident_there) {
			sums->item->resident_there = sums->at[i].bytes;
			sums->item->resident_node = sums->at[i].node;
		}
}

void qy_item_look_at_pages(quarry_view_item *item)
{
	bool hugetlb = item->page_kind >= QUARRY_PAGES_2M;
	size_t step = hugetlb ? qy_kind_grain(item->page_kind) : QY_FRAME;
	uintptr_t at = (uintptr_t)item->address, end = at + item->size;
	struct sums sums = { .item = item };

	while (at < end) {
		uintptr_t page = qy_align_down(at, step), to = qy_min(page + step, end);
		bool huge = hugetlb;

		if (huge || (qy_os->page_is_huge((void *)page, &huge) == 0 && huge))
			look_at_huge(&sums, page, to - at);
		else
			look_at_pages(&sums, at, to);
		at = to;
	}
	find_most(&sums);
}
