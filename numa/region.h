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
	bool bind;            /* false: no memory policy is asked for (one node) */
	bool any;             /* nodes are all that are allowed, and follow the cpuset */
	quarry_nodeset nodes; /* the kernel's ids; never empty when bind */
	struct qy_placement *older; /* the manager's: what this one replaced, or the next unused one */
};

/* Whether it is spread over its nodes page by page. */
QY_INLINE bool qy_placement_is_spread(const struct qy_placement *placement)
{
	return placement->policy == QUARRY_POLICY_INTERLEAVE || placement->policy == QUARRY_POLICY_WEIGHTED_INTERLEAVE;
}

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
	bool whole;          /* filled and looked at when it was mapped: goes back whole or not at all */
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
 * strict. Memory on a hugetlb rung is populated here, so that shortage is an error and not a SIGBUS; so is what is
 * strictly bound, after a look at what the nodes have left, since the kernel kills where it is to fault into full
 * nodes. Both are then looked at page by page.
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

/* Whether the calling thread was given a memory policy of its own (set_mempolicy(2), numactl(8)): what the program or
 * its administrator decided is not this library's to overrule, where it was not asked to. */
bool qy_region_is_threads_choice(void);

/* Give a hugetlb region ordinary memory with the same contents, at the same place, in a forked child (see
 * lib/manager/forkcopy.h). A page that the kernel has taken away is fetched by `fetch`, which says whether it could.
 * False, and as it was, when any of this cannot be had; counted. */
bool qy_region_copy(struct qy_region *r, bool (*fetch)(void *ctx, void *to, const void *from, size_t len), void *ctx);

/* The policy of another placement for the pages to come, without a note of it. QY_PLACED_NO with errno. */
enum qy_placed qy_region_apply(const struct qy_region *r, const struct qy_placement *placement);

/* Place it by another placement from now on: the policy for pages to come; those that are in memory stay where they are.
 * False with errno when the kernel refuses; then nothing has changed. */
bool qy_region_place(struct qy_region *r, const struct qy_placement *placement);

/* Bytes, added up over calls. What is not in memory is nowhere. */
struct qy_brought {
	uint64_t there;   /* where they are wanted */
	uint64_t strayed; /* elsewhere: before the move, when one is made */
	uint64_t moved;   /* of the strayed */
	uint64_t left;    /* of the strayed, and still elsewhere */
};

/* What is one page to move_pages(2) where the kernel granted a kind: its hugetlb page, else a base page. (migrate.c) */
size_t qy_kind_grain(int kind);

/* Look where the pages of [addr, addr + len) of the region are, against its placement. 0, or -1 with errno when the
 * kernel would not say (EPERM, ENOSYS). (migrate.c) */
int qy_region_look(const struct qy_region *r, void *addr, size_t len, struct qy_brought *sum);

/* The same, and move those that strayed. With evenly, pages that are to be interleaved go where a fresh mapping would
 * have them; otherwise any node of the set will do. attempt, counted up by the caller, varies what a page of a set is
 * tried on. The caller holds the purge lock. 0, or -1 with errno (EPERM, ENOSYS). (migrate.c) */
int qy_region_bring(const struct qy_region *r, void *addr, size_t len, bool evenly, unsigned attempt,
		    struct qy_brought *sum);

/* Whether its memory is never given back page by page: hugetlb pages, and what is strictly placed. */
QY_INLINE bool qy_region_pinned(const struct qy_region *r)
{
	return r->kind >= QUARRY_PAGES_2M || r->whole;
}

#endif
