/* SPDX-License-Identifier: MIT */
#include "numa/fill.h"

#include <errno.h>

#include "lib/base/refused.h"
#include "numa/cgroup.h"
#include "numa/migrate.h"
#include "numa/os.h"
#include "numa/policy.h"
#include "numa/populate.h"
#include "numa/thp.h"
#include "numa/topology.h"

#define SPARE_SHIFT 3 /* a region with what it has to spare is an eighth of the window at most */

/* Kernels before 5.14: ordinary memory can be touched as well, which neither fails nor kills where the other would not
 * have; huge pages of a pool cannot, as that would be SIGBUS. What is there stays, whoever writes to it at this
 * moment. */
static bool touch(void *addr, size_t len)
{
	const size_t page = qy_os_page_size();

	for (size_t at = 0; at < len; at += page)
		__atomic_fetch_or((char *)addr + at, 0, __ATOMIC_RELAXED);
	return true;
}

/* The kernel holds the process's map for as long as one call takes, and every mmap and munmap waits for that: where the
 * host has to find the memory, 5 ms for a huge page. */
#define FILL_AT_A_TIME ((size_t)2 << 20)

static bool fill_some(void *addr, size_t len, bool pool)
{
	int r;

	do
		r = qy_os->madvise(addr, len, QY_MADV_POPULATE_WRITE);
	while (r != 0 && errno == EINTR);
	if (r != 0 && errno == EINVAL && !pool)
		return touch(addr, len);
	if (r != 0)
		qy_refuse(QUARRY_REFUSED_POPULATE);
	return r == 0;
}

static bool fill(char *addr, size_t len, bool pool)
{
	for (size_t at = 0; at < len; at += FILL_AT_A_TIME)
		if (!fill_some(addr + at, qy_min(len - at, FILL_AT_A_TIME), pool))
			return false;
	return true;
}

static bool fill_plain_part(const struct qy_placement *placement, char *addr, size_t len, int kind)
{
	(void)placement;
	(void)kind;
	return fill(addr, len, false);
}

bool qy_fill(const struct qy_placement *placement, void *addr, size_t len)
{
	return qy_populate(placement, addr, len, QY_PAGE, QUARRY_PAGES_BASE, fill_plain_part);
}

bool qy_region_populate(struct qy_region *r, void *addr, size_t len)
{
	uintptr_t page = qy_os_page_size();
	uintptr_t first = qy_align_down((uintptr_t)addr, page), end = qy_align_up((uintptr_t)addr + len, page);

	/* What is pinned was filled when it was mapped. */
	return qy_region_pinned(r) || len == 0 || qy_fill(qy_peek(r->placement), (void *)first, end - first);
}

static bool fill_pool_part(const struct qy_placement *placement, char *addr, size_t len, int kind)
{
	(void)placement;
	(void)kind;
	return fill(addr, len, true);
}

bool qy_fill_file(const struct qy_placement *placement, const struct qy_memfd *file, char *addr, size_t len, size_t grain)
{
	if (file->fd == 0) {
		errno = EINVAL;
		return false;
	}
	/* (Interleaved pages of a pool were bound one by one.) */
	if (grain != qy_os_page_size())
		qy_policy_apply_firm(placement, addr, len);
	if (qy_os->allocate(file->fd, 0, len) != 0) {
		qy_refuse(QUARRY_REFUSED_POPULATE);
		return false;
	}
	/* They are in the file, and come into the page tables when they are touched, without more memory. */
	for (size_t at = 0; at < len; at += grain)
		__atomic_load_n(addr + at, __ATOMIC_RELAXED);
	return true;
}

bool qy_fill_is_due(const struct qy_placement *placement, int kind)
{
	return (qy_peek(placement->flags) & QUARRY_ARENA_STRICT) && (placement->bind || kind == QUARRY_PAGES_THP);
}

/* Where a page of an interleaved region goes: to its turn of the nodes, or to the next that has one, unless
 * strictly. */
static bool fill_in_turn(const struct qy_placement *placement, char *page, size_t grain, const short *nodes, size_t count)
{
	bool strict = qy_peek(placement->flags) & QUARRY_ARENA_STRICT;
	size_t first = (uintptr_t)page / grain % count;

	for (size_t i = 0; i < (strict ? 1 : count); i++)
		if (qy_policy_bind_one(nodes[(first + i) % count], page, grain) && fill(page, grain, true))
			return true;
	return false;
}

bool qy_fill_pool(const struct qy_placement *placement, void *addr, size_t len, size_t grain)
{
	short nodes[QUARRY_NODES_MAX];
	size_t count = 0;

	if (!placement->bind || grain == 0 || !qy_placement_is_spread(placement))
		return qy_populate(placement, addr, len, grain, QUARRY_PAGES_2M, fill_pool_part);
	for (int i = 0; i < qy_node_count(); i++)
		if (quarry_nodeset_has(&placement->nodes, (unsigned)qy_node_kernel_id(i)) && qy_node_allowed(i))
			nodes[count++] = (short)qy_node_kernel_id(i);
	for (size_t at = 0; at < len && count > 0; at += grain)
		if (!fill_in_turn(placement, (char *)addr + at, grain, nodes, count))
			return false;
	return count > 0;
}

/* What is left in the placement's nodes by `ask`; evenly: as if all had what the poorest has. */
static uint64_t left_in(const struct qy_placement *placement, uint64_t (*ask)(int dense, int kind), int kind, bool evenly)
{
	uint64_t sum = 0, least = UINT64_MAX;
	unsigned nodes = 0;
	quarry_nodeset allowed;

	qy_nodes_allowed(&allowed);
	for (int i = 0; i < qy_node_count(); i++) {
		unsigned id = (unsigned)qy_node_kernel_id(i);
		uint64_t left;

		/* (The kernel, too, takes of a set what is allowed.) */
		if (placement->bind && (!quarry_nodeset_has(&placement->nodes, id) || !quarry_nodeset_has(&allowed, id)))
			continue;
		left = qy_min(ask(i, kind), (uint64_t)1 << 62);
		sum += qy_min(left, ((uint64_t)1 << 62) - sum);
		least = qy_min(least, left);
		nodes++;
		/* Of a set, preferred is the first. */
		if (placement->bind && placement->policy == QUARRY_POLICY_PREFERRED)
			break;
	}
	return evenly && nodes > 0 ? qy_min(least, ((uint64_t)1 << 62) / nodes) * nodes : sum;
}

static uint64_t room_of(int dense, int kind)
{
	(void)kind;
	return qy_node_room(dense);
}

static uint64_t pool_of(int dense, int kind)
{
	unsigned shift = kind == QUARRY_PAGES_1G ? QY_ZONE_SHIFT : QY_FRAME_SHIFT;

	return qy_node_huge_free(dense, shift) << shift;
}

static uint64_t huge_room_of(int dense, int of_promised)
{
	return qy_thp_room(dense, of_promised);
}

/* What the placement's nodes can give in huge pages without a fault that waits. */
static uint64_t huge_room(const struct qy_placement *placement, bool of_promised)
{
	struct qy_thp thp = qy_thp_get();

	if (!thp.possible)
		return 0;
	if (!(thp.unasked ? thp.stalls_all : thp.stalls))
		return UINT64_MAX;
	return placement->node >= 0 ? qy_thp_room(placement->node, of_promised)
				    : left_in(placement, huge_room_of, of_promised, qy_placement_is_spread(placement));
}

size_t qy_region_spare(const struct qy_placement *placement, size_t frames)
{
	size_t most = qy_window_size >> QY_FRAME_SHIFT >> SPARE_SHIFT;
	uint64_t huge;

	/* (Where the kernel commits no more memory than there is, address space is counted as memory.) */
	if (qy_window_sparse() || qy_memfd_may_run_dry())
		return 0;
	/* (What cannot be born huge as it is can be as large as it likes.) */
	huge = huge_room(placement, false) >> QY_FRAME_SHIFT;
	if (huge >= frames)
		most = qy_min(most, huge);
	return most > frames ? most - frames : 0;
}

bool qy_region_has_room(const struct qy_placement *placement, size_t len, bool of_promised)
{
	uint64_t room = huge_room(placement, of_promised);
	unsigned nodes = 0;

	if (room < len)
		return false;
	if (room == UINT64_MAX)
		return true;
	if (placement->node >= 0) {
		qy_thp_promise(placement->node, of_promised ? 0 : len);
		return true;
	}
	for (int pass = 0; pass < 2 && !of_promised; pass++)
		for (int i = 0; i < qy_node_count(); i++)
			if (!placement->bind || quarry_nodeset_has(&placement->nodes, (unsigned)qy_node_kernel_id(i))) {
				if (pass == 0)
					nodes++;
				else
					qy_thp_promise(i, len / nodes);
			}
	return true;
}

/* A pool may grow when asked (nr_overcommit_hugepages): then mmap(2) and filling find out. */
static bool pool_may_grow(int kind)
{
	char text[32];
	const char *path = kind == QUARRY_PAGES_1G ? "/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_overcommit_hugepages"
						   : "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_overcommit_hugepages";

	return qy_os->read_file(path, text, sizeof(text)) > 0 && text[0] != '0';
}

bool qy_fill_has_pool(const struct qy_placement *placement, size_t len, int kind)
{
	if (qy_cgroup_hugetlb_room(kind == QUARRY_PAGES_1G) < len) {
		qy_refuse(QUARRY_REFUSED_HUGE_CGROUP);
		return false;
	}
	if (left_in(placement, pool_of, kind, false) >= len || pool_may_grow(kind))
		return true;
	qy_refuse(kind == QUARRY_PAGES_1G ? QUARRY_REFUSED_HUGE_1G : QUARRY_REFUSED_HUGE_2M);
	return false;
}

bool qy_fill_verify(const struct qy_placement *placement, void *addr, size_t len, size_t grain)
{
	struct qy_brought sum = { 0, 0, 0, 0 };

	if (!placement->bind || qy_pages_look(placement, addr, len, grain, &sum) != 0 || sum.strayed == 0)
		return true;
	errno = ENOMEM;
	return false;
}

/* Huge pages are wanted and nothing else. Collapsing says yes to what is huge already, and needs no THP setting to be
 * on (Linux 6.1; it says yes to nothing at all where it is known); where neither it nor the kernel's word is to be had,
 * the advice is all that can be given. */
static bool is_all_huge(char *addr, size_t len)
{
	bool knows_collapse = qy_os->madvise(addr, 0, QY_MADV_COLLAPSE) == 0;

	for (size_t at = 0; at < len; at += QY_FRAME) {
		bool huge = false, told = qy_os->page_is_huge(addr + at, &huge) == 0;

		if (huge || qy_os->madvise(addr + at, QY_FRAME, QY_MADV_COLLAPSE) == 0 || (!told && !knows_collapse))
			continue;
		qy_refuse(QUARRY_REFUSED_THP);
		errno = ENOMEM;
		return false;
	}
	return true;
}

/* Bytes that threads are about to fill strictly: what one of them has seen to be left, the others must not count on. */
static _Atomic(uint64_t) filling;

/* Between two looks at what nodes have left. */
static bool fill_part(const struct qy_placement *placement, char *addr, size_t len, int kind)
{
	uint64_t with_others = atomic_fetch_add(&filling, len) + len;
	bool filled = false;

	if (placement->bind && left_in(placement, room_of, kind, qy_placement_is_spread(placement)) < with_others) {
		qy_refuse(QUARRY_REFUSED_NODE_FULL);
		errno = ENOMEM;
	} else {
		filled = fill(addr, len, false);
	}
	atomic_fetch_sub(&filling, len);
	return filled;
}

bool qy_fill_strictly(const struct qy_placement *placement, void *addr, size_t len, int kind)
{
	if (!qy_populate(placement, addr, len, QY_PAGE, kind, fill_part))
		return false;
	if (kind == QUARRY_PAGES_THP && !is_all_huge(addr, len))
		return false;
	if (!qy_fill_verify(placement, addr, len, qy_os_page_size()))
		return false;
	/* All pages are there: what comes now are copies for a forked child, and pages that were swapped out. Those may
	 * be anywhere, where the kernel would kill for them in a full node; they come home. */
	qy_policy_apply_soft(placement, addr, len);
	return true;
}
