/* SPDX-License-Identifier: MIT */
/* Volatile heaps by node. A memory policy set for a mapping of shared memory is the memory's own (mbind(2)): whoever maps it gets its pages by it, so
 * the one who makes the heap asks once, for all of its addresses, before any page is there. For a file's page cache the kernel takes such a
 * policy and does not keep it: it is not asked. */
#include <errno.h>

#include "lib/api/error.h"
#include "lib/mapped/mapped.h"
#include "numa/os.h"

#define MASK_BITS ((unsigned long)QUARRY_NODES_MAX)
#define MASK_WORDS ((MASK_BITS + 8 * sizeof(unsigned long) - 1) / (8 * sizeof(unsigned long)))
#define BATCH 256u

int qy_mapped_bind(struct heap *h)
{
	unsigned long mask[MASK_WORDS] = { 0 };

	if (h->node < 0 || (unsigned long)h->node >= MASK_BITS)
		return qy_fail(EINVAL, "attr: node %d is none", (int)h->node);
	mask[(unsigned long)h->node / (8 * sizeof(mask[0]))] = 1ul << (unsigned long)h->node % (8 * sizeof(mask[0]));
	if (qy_os->mbind(h->map, h->map_len, QY_MPOL_BIND, mask, MASK_BITS, 0) != 0)
		return qy_fail(errno, "mapped heap: its memory cannot be bound to node %d", (int)h->node);
	return 0;
}

/* ---- one on each node ---- */

static void close_all(quarry_mapped **heaps, long n)
{
	int error = errno;

	while (n-- > 0)
		(void)quarry_mapped_close(heaps[n]);
	errno = error;
}

static bool has_memory(int node)
{
	quarry_node_info info = { .struct_size = sizeof(info) };

	return node >= 0 && quarry_node_info_get(node, &info) == 0 && info.has_memory != 0 && info.allowed != 0;
}

QUARRY_API long quarry_mapped_create_nodes(const quarry_mapped_attr *attr, quarry_mapped **heaps, size_t max)
{
	quarry_mapped_attr a = { 0 };
	long count = 0, made = 0;

	if (attr != NULL && attr->struct_size == 0)
		return qy_fail(EINVAL, "attr: struct_size is 0");
	if (attr != NULL)
		__builtin_memcpy(&a, attr, qy_min(attr->struct_size, sizeof(a)));
	a.struct_size = sizeof(a);
	a.mode = QUARRY_MAPPED_VOLATILE;
	a.flags |= QUARRY_MAPPED_ON_NODE;
	for (int i = 0; i < quarry_node_count(); i++)
		count += has_memory(quarry_node_id(i));
	if ((size_t)count > max)
		return count;
	for (int i = 0; i < quarry_node_count() && made < count; i++) {
		a.node = quarry_node_id(i);
		if (!has_memory(a.node))
			continue;
		heaps[made] = quarry_mapped_create(NULL, &a);
		if (heaps[made] == NULL) {
			close_all(heaps, made);
			return -1;
		}
		made++;
	}
	return made;
}

/* ---- what came of it ---- */

static void describe(const struct heap *h, quarry_page_info *info, const void *page, int node)
{
	bool huge = false, bound = h->live->on_node != 0;

	*info = (quarry_page_info){
		.address = page,
		.node = node == -ENOENT || node == -EFAULT ? QUARRY_NODE_NONE : node < 0 ? QUARRY_NODE_UNKNOWN : node,
		.wanted_node = bound ? (int32_t)(h->live->on_node - 1) : -1,
		.wanted_kind = (h->sb.flags & QUARRY_MAPPED_HUGE) != 0 ? QUARRY_PAGES_THP : QUARRY_PAGES_AUTO,
		.policy = bound ? QUARRY_POLICY_BIND : QUARRY_POLICY_LOCAL,
		.policy_got = bound ? QUARRY_POLICY_BIND : QUARRY_POLICY_LOCAL,
		.policy_applied = bound,
	};
	if (info->node == QUARRY_NODE_NONE)
		return;
	info->size = qy_os_page_size();
	if (qy_os->page_is_huge(page, &huge) == 0) {
		info->page_kind = huge ? QUARRY_PAGES_THP : QUARRY_PAGES_BASE;
		info->size = huge ? (size_t)2 << 20 : info->size;
	}
}

QUARRY_API long quarry_mapped_where(const quarry_mapped *heap, const void *p, size_t n, quarry_page_info *info, size_t max)
{
	const struct heap *h = qy_heap(heap);
	uint64_t off = (uint64_t)((const char *)p - h->pub.base), page = qy_os_page_size();
	size_t first, count;

	if (n == 0 || off >= h->pub.length || n > h->pub.length - off)
		return qy_fail(EINVAL, "p: it is not in the heap");
	if (info == NULL && max > 0)
		return qy_fail(EINVAL, "info: NULL, for %zu entries", max);
	first = off / page * page;
	count = (qy_align_up(off + n, page) - first) / page;
	for (size_t done = 0; done < count && done < max;) {
		size_t batch = qy_min(qy_min(count, max) - done, (size_t)BATCH);
		void *pages[BATCH];
		int nodes[BATCH];

		for (size_t i = 0; i < batch; i++) {
			pages[i] = h->pub.base + first + (done + i) * page;
			nodes[i] = -EIO;
		}
		(void)qy_os->move_pages(batch, pages, NULL, nodes, 0);
		for (size_t i = 0; i < batch; i++)
			describe(h, &info[done + i], pages[i], nodes[i]);
		done += batch;
	}
	return (long)count;
}
