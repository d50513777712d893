/* SPDX-License-Identifier: MIT */
/* Regions: runs of frames from the kernel, with one placement and one page kind. What was asked for and what was got
 * is recorded in each. No strategy and no lock: a region belongs to whoever created it. */
#ifndef QUARRY_NUMA_REGION_H
#define QUARRY_NUMA_REGION_H

#include "include/quarry/quarry.h"
#include "numa/memfd.h"
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
	uint8_t advice;      /* enum qy_advice: what all of it was told that has no advice of its own */
	bool fresh;          /* who asked for it has not taken from it yet (the manager's) */
	bool ended;          /* its arena has: owner and placement may be another's by now */
	_Atomic(uint32_t) exceptions; /* how many frames have */
	struct qy_memfd file; /* what it is mapped from (QUARRY_ARENA_FD), all of it from the beginning; or none */
};

#define QY_REGION_SIDE_OFFSET 128
_Static_assert(sizeof(struct qy_region) <= 64, "a region's record has a quarter of a frame side element");

/* Whether its memory is in a file, shared with whoever has the descriptor. Such memory is not a forked child's. */
QY_INLINE bool qy_region_is_file(const struct qy_region *r)
{
	return r->file.fd != 0;
}

/* What the kernel was told of memory: MADV_HUGEPAGE, MADV_NOHUGEPAGE, or neither. */
enum qy_advice { QY_ADVICE_NONE, QY_ADVICE_HUGE, QY_ADVICE_BASE };

enum qy_pages_state {
	QY_PAGES_AS_TOLD, /* nothing more is known */
	QY_PAGES_HUGE,    /* one huge page, when it was last looked at */
	QY_PAGES_SMALL,   /* base pages, likewise */
	QY_PAGES_BROKEN   /* base pages: a part was given back */
};

/* What is known of the pages of one frame; in the last quarter of its side element. Advice and state may be written by
 * whoever has the frame's memory to himself and by the holder of the purge lock; the rest is collapse.c's, under that
 * lock. */
struct qy_frame_pages {
	_Atomic(uint8_t) advice; /* enum qy_advice; none: as the region */
	_Atomic(uint8_t) state;  /* enum qy_pages_state */
	uint8_t fails;           /* attempts to collapse it that failed, in a row */
	bool dense;              /* it was when last looked at, */
	uint16_t used;           /* with so many pages in use, */
	uint32_t since;          /* and since then (ms) */
	uint32_t again;          /* when to try again, after a failure (ms) */
};

#define QY_PAGES_SIDE_OFFSET 192
_Static_assert(sizeof(struct qy_frame_pages) <= 64, "and so has what is known of a frame's pages");

QY_INLINE struct qy_frame_pages *qy_pages_of_frame(uintptr_t frame)
{
	return (struct qy_frame_pages *)(void *)(qy_window.frame_side + (frame << QY_FRAME_SIDE_SHIFT) +
						 QY_PAGES_SIDE_OFFSET);
}

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

/* As a kind for qy_region_create: thp, but no fault is to wait for it. Where huge pages come without advice, and do not
 * wait then, none is given. */
#define QY_PAGES_BORN_HUGE 5

/* Get a region of at least frames frames (huge pages of 1 GiB round it up), the first aligned to align_frames.
 * kind is the highest rung to try: 1g, 2m, thp, base; a rung that fails falls to the next, unless the placement is
 * strict. Memory on a hugetlb rung is populated here, so that shortage is an error and not a SIGBUS; so is what is
 * strictly bound, after a look at what the nodes have left, since the kernel kills where it is to fault into full
 * nodes. Both are then looked at page by page.
 * NULL with ENOMEM, or with mbind's errno when strict. */
struct qy_region *qy_region_create(const struct qy_placement *placement, size_t frames, size_t align_frames, int kind,
				   void *owner);

/* Unmap it and release its address space. Of a file others may have the descriptor, and the memory then. */
void qy_region_destroy(struct qy_region *r);

/* Who is told of what becomes of regions' memory, by the thread that does it and before the kernel is asked
 * (lib/manager/regions.h): enum quarry_region_kind. NULL: nobody. */
typedef void qy_region_told(const struct qy_region *r, int kind, void *addr, size_t len);
extern QY_HIDDEN _Atomic(qy_region_told *) qy_region_teller;

QY_INLINE void qy_region_tell(const struct qy_region *r, int kind, void *addr, size_t len)
{
	qy_region_told *tell = atomic_load_explicit(&qy_region_teller, memory_order_acquire);

	if (QY_UNLIKELY(tell != NULL))
		tell(r, kind, addr, len);
}

/* How many threads may fill a large range together, with the caller; at first 1, at most 16. Process-wide.
 * (populate.c) */
void qy_region_allow_threads(unsigned most);

/* Bring [addr, addr + len) into memory; its contents stay. False with errno. (fill.c) */
bool qy_region_populate(struct qy_region *r, void *addr, size_t len);

/* How many pages of the frame at addr are in memory; 0 where that cannot be told, or it is no longer mapped. */
unsigned qy_region_resident(void *addr);

/* Give the memory of [addr, addr + len) back; afterwards it reads as zero. False when the kernel refused (mlockall)
 * or the page kind is pinned: then nothing is known of the contents.
 * A part of a frame that may be a huge page breaks it, in truth and for good: see qy_region_broken, which this calls. A
 * frame that goes back whole is as good as new. */
bool qy_region_purge(struct qy_region *r, void *addr, size_t len);

/* How many frames a region of so many may have beyond, for what is in it to grow into: nobody may ever touch them, so
 * they must cost nothing but address space of which there is plenty, nor the others the huge pages that they would be
 * born as. 0 for none. (fill.c) */
size_t qy_region_spare(const struct qy_placement *placement, size_t frames);

/* Whether so much memory of the placement can be born huge (QY_PAGES_BORN_HUGE) with no fault that waits for
 * compaction; it is promised then. of_promised: it was. (fill.c) */
bool qy_region_has_room(const struct qy_placement *placement, size_t len, bool of_promised);

/* ---- huge pages by frames (advice.c) ---- */

/* For what memory is to be told otherwise than its region. */
enum qy_want {
	QY_WANT_HUGE,        /* huge pages from the first touch on */
	QY_WANT_COLLAPSIBLE, /* that it may be collapsed */
	QY_WANT_BASE,        /* base pages from the first touch on */
	QY_WANT_HOLES        /* that khugepaged fills no holes in it */
};

/* Tell the kernel so, where that is news to it: a call for each run of frames that were told the same. False when some
 * of it could not be told: refused, or there would be too many mappings. */
bool qy_region_want(struct qy_region *r, void *addr, size_t frames, enum qy_want want);

/* Frames that were told otherwise than their regions, each of which may cost two mappings; and those that were not
 * told, because there are 8192 such or a quarter of vm.max_map_count would be spent. Process-wide. */
uint64_t qy_region_exceptions(void);
uint64_t qy_region_untold(void);

/* Whether the frame at addr may be a huge page, as far as is known without asking the kernel. */
bool qy_region_may_be_huge(const struct qy_region *r, const void *addr);

/* A part of the frame that begins at frame_addr is about to be given back, the page at `going` with it: if the frame
 * may be huge, split the huge page itself, since for a part that is merely unmapped the kernel keeps all of the page,
 * though RSS no longer shows it; and see to it that khugepaged does not fill the hole. One load when the frame is known
 * to be broken. qy_region_purge does this by itself; whoever gives memory back otherwise calls it before. */
void qy_region_broken(struct qy_region *r, void *frame_addr, void *going);

/* Time that giving back took in the kernel, of pages and of whole regions. Process-wide. */
uint64_t qy_region_purge_ns(void);

/* How many huge pages were split so. Process-wide. */
uint64_t qy_region_splits(void);

/* Nothing is in the frames any more: what they were told for the sake of what was there is undone. */
void qy_region_emptied(struct qy_region *r, void *addr, size_t frames);

/* How many of len bytes at addr, where a frame begins, were told the same: those are of one mapping, if no move has
 * come in between. */
size_t qy_region_alike(const struct qy_region *r, const void *addr, size_t len);

/* The pages of frames that were told the same, and what is known of them, were moved by mremap(2). Where they were told
 * nothing, they are told what the region is that they came to. */
void qy_region_moved(struct qy_region *from_region, void *from, size_t frames, struct qy_region *to_region, void *to);

/* Of frames that are being mapped or unmapped: forget what is known. */
void qy_region_forget(struct qy_region *r);

/* Make [addr, addr + len) of the region, whole frames, into huge pages now (MADV_COLLAPSE, Linux 6.1): a call for each
 * frame. True when all are; else errno of the first that would not. */
bool qy_region_collapse(struct qy_region *r, void *addr, size_t len);

/* Whether page tables of it are moved at all. (remap.c) */
bool qy_region_movable(const struct qy_region *r);

/* Move len bytes of pages from one place to another, both whole pages of regions of the same owner, by page tables;
 * what was at from is empty then, mapped and placed as before. The source may be of several mappings: that takes four
 * calls for each and some failed ones to find out where they meet, 512 attempts in all. What does not move when others
 * have, or is of two mappings within a frame, is copied. False when the kernel refused, then nothing has moved.
 * (remap.c) */
bool qy_region_move(struct qy_region *from_region, void *from, size_t len, struct qy_region *to_region, void *to);

/* Whether the calling thread was given a memory policy of its own (set_mempolicy(2), numactl(8)): what the program or
 * its administrator decided is not this library's to overrule, where it was not asked to. */
bool qy_region_is_threads_choice(void);

/* Give a hugetlb region ordinary memory with the same contents, at the same place, in a forked child (see
 * lib/manager/forkcopy.h). A page that the kernel has taken away is fetched by `fetch`, which says whether it could.
 * False, and as it was, when any of this cannot be had; counted. */
bool qy_region_copy(struct qy_region *r, bool (*fetch)(void *ctx, void *to, const void *from, size_t len), void *ctx);

/* Of a file: whether its descriptor still leads to it. */
bool qy_region_has_fd(const struct qy_region *r);

/* In a forked child, to which the kernel gives no memory of files (MADV_DONTFORK): ordinary memory with what the file
 * holds now, at the same place, and no file any more. False when it cannot be had; then nothing is there. */
bool qy_region_unshare(struct qy_region *r);

/* The same for one that only looks: the file itself, to be read. */
bool qy_region_show(const struct qy_region *r);

/* The policy of another placement for the pages to come, without a note of it. QY_PLACED_NO with errno. */
enum qy_placed qy_region_apply(const struct qy_region *r, const struct qy_placement *placement);

/* Place it by another placement from now on: the policy for pages to come; those that are in memory stay where they
 * are. False with errno when the kernel refuses; then nothing has changed. */
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

/* Whether its pages are for life what they were born as, huge or not. (Those of files go by settings of their own, and
 * others may have them mapped as well.) */
QY_INLINE bool qy_region_settled(const struct qy_region *r)
{
	return qy_region_pinned(r) || qy_region_is_file(r);
}

#endif
