/* SPDX-License-Identifier: MIT */
/* Regions: runs of frames from the kernel, with one placement and one page kind. What was asked for and what was got
 * is recorded in each. No strategy and no lock: a region belongs to whoever created it. */
#ifndef QUARRY_NUMA_REGION_H
#define QUARRY_NUMA_REGION_H

#include "include/quarry/quarry.h"
#include "numa/window.h"

/* What is asked for; written once by the owner, before the first region. */
struct qy_placement {
	int policy;           /* enum quarry_policy */
	int node;             /* dense number of the one node that the memory is of; -1 for a set */
	uint32_t flags;       /* enum quarry_arena_flags */
	bool bind;            /* false: no memory policy is asked for (one node, or QUARRY_POLICY_LOCAL) */
	quarry_nodeset nodes; /* the kernel's ids; never empty when bind */
};

enum qy_placed { QY_PLACED_NO, QY_PLACED_YES, QY_PLACED_LESS /* an older policy of the kernel stands in */ };

/* Stands in the second half of the frame side element of the region's first frame. */
struct qy_region {
	const struct qy_placement *placement;
	void *owner; /* written with qy_publish: others look on */
	struct qy_region *next, *prev; /* the owner's list */
	uint32_t frames;
	uint8_t kind_wanted; /* enum quarry_page_kind */
	uint8_t kind;        /* what the kernel granted */
	uint8_t placed;      /* enum qy_placed */
};

#define QY_REGION_SIDE_OFFSET 128
_Static_assert(sizeof(struct qy_region) <= 128, "a region's record has half a frame side element");

QY_INLINE struct qy_region *qy_region_slot(uintptr_t frame)
{
	return (struct qy_region *)(void *)(qy_window.frame_side + (frame << QY_FRAME_SIDE_SHIFT) +
					    QY_REGION_SIDE_OFFSET);
}

QY_INLINE uintptr_t qy_region_frame(const struct qy_region *r)
{
	return (uintptr_t)((const char *)r - qy_window.frame_side) >> QY_FRAME_SIDE_SHIFT;
}

QY_INLINE void *qy_region_addr(const struct qy_region *r)
{
	return qy_window_at(qy_region_frame(r) << QY_FRAME_SHIFT);
}

/* Get a region of at least frames frames (huge pages of 1 GiB round it up), the first aligned to align_frames.
 * kind is the highest rung to try: 1g, 2m, thp, base; a rung that fails falls to the next, unless the placement is
 * strict. Memory on a hugetlb rung is populated here, so that shortage is an error and not a SIGBUS.
 * NULL with ENOMEM, or with mbind's errno when strict. */
struct qy_region *qy_region_create(const struct qy_placement *placement, size_t frames, size_t align_frames, int kind,
				   void *owner);

/* Unmap it and release its address space. */
void qy_region_destroy(struct qy_region *r);

/* Give the memory of [addr, addr + len) back; afterwards it reads as zero. False when the kernel refused (mlockall)
 * or the page kind is pinned: then nothing is known of the contents. */
bool qy_region_purge(const struct qy_region *r, void *addr, size_t len);

/* Make [addr, addr + len) of the region into huge pages now (MADV_COLLAPSE, Linux 6.1). */
bool qy_region_collapse(struct qy_region *r, void *addr, size_t len);

/* Move len bytes of pages from one place to another, both whole pages of regions of the same owner, by page tables;
 * what was at from is empty then, mapped and placed as before. False when the kernel refused, then nothing has moved. */
bool qy_region_move(const struct qy_region *from_region, void *from, size_t len, const struct qy_region *to_region,
		    void *to);

/* Whether the page kind is one that is never given back page by page. */
QY_INLINE bool qy_region_pinned(const struct qy_region *r)
{
	return r->kind >= QUARRY_PAGES_2M;
}

#endif
