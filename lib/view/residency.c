/* SPDX-License-Identifier: MIT */
/* The sums are as true as a moving thing's can be: regions are noted down some at a time under the manager's lock, and
 * looked at without it. One that comes or goes meanwhile may be missed, or found empty. */
#include "lib/view/residency.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "lib/api/error.h"
#include "lib/api/init.h"
#include "lib/manager/manager.h"
#include "lib/view/pages.h"
#include "numa/os.h"
#include "numa/topology.h"

#define REGIONS_AT_A_TIME 32

/* What is read of a region under the lock. Its placement may be retired meanwhile, and can still be read. */
struct piece {
	const struct qy_placement *placement;
	uint32_t first, frames;
	uint8_t kind, placed;
};

/* ---- the sums ---- */

static quarry_residency *entry_of(struct qy_residencies *list, int node)
{
	size_t i = 0;

	while (i < list->count && list->at[i].node < node)
		i++;
	if (i < list->count && list->at[i].node == node)
		return &list->at[i];
	if (list->count == list->room) {
		if (list->at[0].node != QUARRY_NODE_UNKNOWN) {
			/* No room for one more: the last one becomes one of those that are not known. */
			list->at[list->room - 1].node = QUARRY_NODE_UNKNOWN;
			quarry_residency last = list->at[list->room - 1];
			memmove(&list->at[1], &list->at[0], (list->room - 1) * sizeof(list->at[0]));
			list->at[0] = last;
		}
		return &list->at[0];
	}
	memmove(&list->at[i + 1], &list->at[i], (list->count - i) * sizeof(list->at[0]));
	list->count++;
	memset(&list->at[i], 0, sizeof(list->at[i]));
	list->at[i].node = node;
	return &list->at[i];
}

static void add(struct qy_residencies *list, const struct piece *piece, int node, int kind, uint64_t bytes)
{
	quarry_residency *entry;

	if (node == QUARRY_NODE_NONE || bytes == 0)
		return;
	entry = entry_of(list, node);
	entry->bytes += bytes;
	entry->by_kind[kind] += bytes;
	if (!qy_placement_wants(piece->placement, piece->placed, node))
		entry->strayed += bytes;
}

/* ---- looking ---- */

/* Pages of which each is one of the kernel's own and as large as the step between them. */
static void look_at_whole(struct qy_residencies *list, const struct piece *piece, void **pages, size_t n, int kind,
			  size_t size)
{
	int nodes[QY_PAGES_BATCH];

	qy_pages_nodes(pages, nodes, n);
	for (size_t i = 0; i < n; i++)
		add(list, piece, nodes[i], kind, size);
}

/* A frame that is not known to be one huge page: told is whether the kernel said that it is none. Where it said
 * nothing, a frame that is not all in memory on one node is none either. */
static void look_at_pages(struct qy_residencies *list, const struct piece *piece, uintptr_t frame, bool told)
{
	size_t page = qy_os_page_size(), count = QY_FRAME / page, run = 0;
	int of_run = QUARRY_NODE_NONE;

	for (size_t done = 0; done < count;) {
		void *pages[QY_PAGES_BATCH];
		int nodes[QY_PAGES_BATCH];
		size_t n = qy_min(count - done, QY_PAGES_BATCH);

		for (size_t i = 0; i < n; i++)
			pages[i] = (void *)(frame + (done + i) * page);
		qy_pages_nodes(pages, nodes, n);
		for (size_t i = 0; i < n; i++) {
			if (nodes[i] != of_run) {
				add(list, piece, of_run, QUARRY_PAGES_BASE, run * page);
				of_run = nodes[i];
				run = 0;
			}
			run++;
		}
		done += n;
	}
	told = told || run < count || piece->kind == QUARRY_PAGES_BASE;
	add(list, piece, of_run, told ? QUARRY_PAGES_BASE : QUARRY_PAGES_AUTO, run * page);
}

static void look_at_region(struct qy_residencies *list, const struct piece *piece)
{
	uintptr_t at = (uintptr_t)qy_window_at((uintptr_t)piece->first << QY_FRAME_SHIFT);
	uintptr_t end = at + ((uintptr_t)piece->frames << QY_FRAME_SHIFT);
	bool hugetlb = piece->kind >= QUARRY_PAGES_2M;
	int kind = hugetlb ? piece->kind : QUARRY_PAGES_THP;
	size_t size = hugetlb ? qy_kind_grain(piece->kind) : QY_FRAME, n = 0;
	void *pages[QY_PAGES_BATCH / 4];

	for (; at < end; at += size) {
		bool huge = hugetlb;
		bool told = hugetlb || qy_os->page_is_huge((void *)at, &huge) == 0;

		if (!told || !huge) {
			look_at_pages(list, piece, at, told);
			continue;
		}
		/* One page of it is all that needs to be asked of. */
		pages[n++] = (void *)at;
		if (n == sizeof(pages) / sizeof(pages[0])) {
			look_at_whole(list, piece, pages, n, kind, size);
			n = 0;
		}
	}
	if (n > 0)
		look_at_whole(list, piece, pages, n, kind, size);
}

static size_t some_regions(struct qy_manager *m, size_t skip, struct piece *some)
{
	size_t got = 0;

	qy_lock(&m->lock);
	for (struct qy_region *r = m->regions; r != NULL && got < REGIONS_AT_A_TIME; r = r->next) {
		if (skip > 0) {
			skip--;
			continue;
		}
		some[got++] = (struct piece){ .placement = qy_peek(r->placement),
					      .first = (uint32_t)qy_region_frame(r),
					      .frames = r->frames,
					      .kind = r->kind,
					      .placed = qy_peek(r->placed) };
	}
	qy_unlock(&m->lock);
	return got;
}

static void look_at_manager(struct qy_residencies *list, struct qy_manager *m)
{
	struct piece some[REGIONS_AT_A_TIME];
	size_t done = 0, got;

	do {
		got = some_regions(m, done, some);
		for (size_t i = 0; i < got; i++)
			look_at_region(list, &some[i]);
		done += got;
	} while (got == REGIONS_AT_A_TIME);
}

/* ---- lists ---- */

bool qy_residencies_get(struct qy_residencies *list, quarry_arena *arena)
{
	struct qy_manager *m = qy_manager_of_arena(arena);
	struct qy_manager **locals = m != NULL ? __atomic_load_n(&m->locals, __ATOMIC_ACQUIRE) : NULL;
	size_t entries = (size_t)qy_node_count() + 1; /* and one for what is not known */

	list->at = list->few;
	list->room = sizeof(list->few) / sizeof(list->few[0]);
	list->count = list->mapped = 0;
	if (m == NULL)
		return false;
	if (entries > list->room) {
		size_t size = qy_align_up(entries * sizeof(list->at[0]), qy_os_page_size());
		void *p = qy_os->mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (p != MAP_FAILED) {
			list->at = p;
			list->mapped = size;
			list->room = size / sizeof(list->at[0]);
		}
	}
	look_at_manager(list, m);
	for (int node = 0; locals != NULL && node < qy_node_count(); node++) {
		struct qy_manager *local = __atomic_load_n(&locals[node], __ATOMIC_ACQUIRE);

		if (local != NULL)
			look_at_manager(list, local);
	}
	return true;
}

void qy_residencies_put(struct qy_residencies *list)
{
	if (list->mapped)
		qy_os->munmap(list->at, list->mapped);
	list->at = NULL;
	list->count = list->mapped = 0;
}

QUARRY_API long quarry_arena_where(quarry_arena *arena, quarry_residency *out, size_t max)
{
	struct qy_residencies list;
	long count;

	if (out == NULL && max > 0)
		return qy_fail(EINVAL, "list: NULL, for %lu entries", (unsigned long)max);
	qy_init_once();
	if (!qy_residencies_get(&list, arena))
		return errno == EINVAL ? qy_fail_arena(arena) : qy_fail(errno, "no memory for what is found");
	count = (long)list.count;
	if (max > 0)
		memcpy(out, list.at, qy_min(list.count, max) * sizeof(out[0]));
	qy_residencies_put(&list);
	return count;
}

/* ---- what was asked for ---- */

bool qy_asked_get(struct qy_asked *asked, const quarry_arena *arena)
{
	const struct qy_manager *m = qy_manager_of_arena(arena);
	const struct qy_placement *placement = m != NULL ? qy_peek(m->placement) : NULL;

	if (placement == NULL)
		return false;
	asked->policy = placement->policy;
	asked->kind = m->kind;
	asked->flags = qy_peek(placement->flags);
	asked->bind = placement->bind;
	asked->nodes = placement->nodes;
	return true;
}

const char *qy_policy_name(int policy)
{
	static const char *const names[] = {
		[QUARRY_POLICY_LOCAL] = "local",
		[QUARRY_POLICY_BIND] = "bind",
		[QUARRY_POLICY_PREFERRED] = "preferred",
		[QUARRY_POLICY_PREFERRED_MANY] = "preferred-many",
		[QUARRY_POLICY_INTERLEAVE] = "interleave",
		[QUARRY_POLICY_WEIGHTED_INTERLEAVE] = "weighted-interleave",
	};

	return policy >= 0 && policy < (int)(sizeof(names) / sizeof(names[0])) ? names[policy] : "?";
}
