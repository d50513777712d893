/* SPDX-License-Identifier: MIT */
#include "numa/fill.h"

#include <errno.h>

#include "lib/base/refused.h"
#include "numa/migrate.h"
#include "numa/os.h"
#include "numa/policy.h"
#include "numa/topology.h"

#define CHUNK ((size_t)64 << 20) /* between two looks at what nodes have left */

bool qy_fill(void *addr, size_t len)
{
	int r;

	do
		r = qy_os->madvise(addr, len, QY_MADV_POPULATE_WRITE);
	while (r != 0 && errno == EINTR);
	if (r != 0)
		qy_refuse(QUARRY_REFUSED_POPULATE);
	return r == 0;
}

bool qy_fill_is_due(const struct qy_placement *placement, int kind)
{
	return (qy_peek(placement->flags) & QUARRY_ARENA_STRICT) && (placement->bind || kind == QUARRY_PAGES_THP);
}

static bool is_spread(const struct qy_placement *placement)
{
	return placement->policy == QUARRY_POLICY_INTERLEAVE || placement->policy == QUARRY_POLICY_WEIGHTED_INTERLEAVE;
}

/* What is left in the placement's nodes by `ask`: of nodes that share evenly, as if all had what the poorest has. */
static uint64_t left_in(const struct qy_placement *placement, uint64_t (*ask)(int dense, int kind), int kind)
{
	uint64_t sum = 0, least = UINT64_MAX;
	unsigned nodes = 0;

	for (int i = 0; i < qy_node_count(); i++) {
		uint64_t left;

		if (placement->bind && !quarry_nodeset_has(&placement->nodes, (unsigned)qy_node_kernel_id(i)))
			continue;
		left = qy_min(ask(i, kind), (uint64_t)1 << 62);
		sum += qy_min(left, ((uint64_t)1 << 62) - sum);
		least = qy_min(least, left);
		nodes++;
		/* Of a set, preferred is the first. */
		if (placement->bind && placement->policy == QUARRY_POLICY_PREFERRED)
			break;
	}
	return is_spread(placement) && nodes > 0 ? qy_min(least, ((uint64_t)1 << 62) / nodes) * nodes : sum;
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
	return left_in(placement, pool_of, kind) >= len || pool_may_grow(kind);
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
 * on (Linux 6.1); where neither it nor the kernel's word is to be had, the advice is all that can be given. */
static bool is_all_huge(char *addr, size_t len)
{
	for (size_t at = 0; at < len; at += QY_FRAME) {
		bool huge = false, told = qy_os->page_is_huge(addr + at, &huge) == 0;

		if (huge || qy_os->madvise(addr + at, QY_FRAME, QY_MADV_COLLAPSE) == 0 || (!told && errno == EINVAL))
			continue;
		qy_refuse(QUARRY_REFUSED_THP);
		errno = ENOMEM;
		return false;
	}
	return true;
}

bool qy_fill_strictly(const struct qy_placement *placement, void *addr, size_t len, int kind)
{
	char *p = addr;

	for (size_t at = 0; at < len; at += CHUNK) {
		size_t part = qy_min(len - at, CHUNK);

		if (placement->bind && left_in(placement, room_of, kind) < part) {
			qy_refuse(QUARRY_REFUSED_NODE_FULL);
			errno = ENOMEM;
			return false;
		}
		if (!qy_fill(p + at, part))
			return false;
	}
	if (kind == QUARRY_PAGES_THP && !is_all_huge(p, len))
		return false;
	return qy_fill_verify(placement, addr, len, qy_os_page_size());
}
