/* SPDX-License-Identifier: MIT */
/* The window: the one range of address space in which all of quarry's regions lie, so that `p - base < size` sorts
 * out NULL, foreign and stack pointers in one compare and what is known of an address is found by arithmetic.
 *
 * The window is reserved at start (PROT_NONE, not counted against overcommit, left out of core dumps). Under
 * RLIMIT_AS, or where the reservation is refused, nothing is reserved: regions are placed one by one at addresses of
 * the window's range (MAP_FIXED_NOREPLACE), and the window is only arithmetic ("sparse").
 *
 * Granules:  page 4 KiB (what blocks are measured in, whatever the kernel's base page is), unit 64 KiB (a slab is one
 * or more units), frame 2 MiB (the huge page), zone 1 GiB (belongs to one node, so that the side arrays of a node's
 * memory are on that node).
 *
 * Side arrays run beside the window, one element per granule, committed zone by zone:
 *   slab side   64 bytes per unit     lib/manager: struct qy_slab
 *   page side   16 bytes per page     lib/block: struct qy_block
 *   frame side  256 bytes per frame   lib/manager: struct qy_frame, and struct qy_region in a region's first
 * They are zero until written.
 *
 * Lock: one, rank QY_RANK_WINDOW, held over mmap and mprotect of side arrays (rare), never over madvise. */
#ifndef QUARRY_NUMA_WINDOW_H
#define QUARRY_NUMA_WINDOW_H

#include "lib/base/base.h"

#define QY_PAGE_SHIFT 12
#define QY_UNIT_SHIFT 16
#define QY_FRAME_SHIFT 21
#define QY_ZONE_SHIFT 30
#define QY_PAGE ((size_t)1 << QY_PAGE_SHIFT)
#define QY_UNIT ((size_t)1 << QY_UNIT_SHIFT)
#define QY_FRAME ((size_t)1 << QY_FRAME_SHIFT)
#define QY_ZONE ((size_t)1 << QY_ZONE_SHIFT)
#define QY_FRAME_PAGES (1u << (QY_FRAME_SHIFT - QY_PAGE_SHIFT))
#define QY_FRAME_UNITS (1u << (QY_FRAME_SHIFT - QY_UNIT_SHIFT))
#define QY_ZONE_FRAMES (1u << (QY_ZONE_SHIFT - QY_FRAME_SHIFT))

#define QY_SLAB_SIDE_SHIFT 6  /* log2 of the bytes per unit */
#define QY_PAGE_SIDE_SHIFT 4  /* per page */
#define QY_FRAME_SIDE_SHIFT 8 /* per frame */

/* Written once by qy_window_init, read on every free: separate variables, so that each is one operand of one
 * instruction. The slab side can be read over the whole window, the other sides over the zones claimed so far. */
extern QY_HIDDEN uintptr_t qy_window_base;
extern QY_HIDDEN size_t qy_window_size;
extern QY_HIDDEN char *qy_slab_side;

struct qy_window {
	_Atomic(size_t) claimed; /* bytes of the zones claimed so far; only grows */
	char *page_side;
	char *frame_side;
};

extern QY_HIDDEN struct qy_window qy_window;

/* Where p is in the window; not less than qy_window_size when p is not in it. */
QY_INLINE uintptr_t qy_window_offset(const void *p)
{
	return (uintptr_t)p - qy_window_base;
}

QY_INLINE size_t qy_window_claimed(void)
{
	return atomic_load_explicit(&qy_window.claimed, memory_order_relaxed);
}

QY_INLINE bool qy_window_has(const void *p)
{
	return qy_window_offset(p) < qy_window_claimed();
}

QY_INLINE void *qy_window_at(uintptr_t offset)
{
	return (void *)(qy_window_base + offset);
}

/* Reserve the window. wanted: bytes, 0 by the machine's memory. Before any other call; falls to smaller windows and
 * then to a sparse one; 0, or -1 with ENOMEM. */
int qy_window_init(size_t wanted);

/* Claim frames consecutive frames, the first aligned to align_frames (a power of two), in a zone of the node
 * (dense; -1 for memory of no one node). Only address space: nothing is mapped but side arrays. NULL with ENOMEM. */
void *qy_window_claim(size_t frames, size_t align_frames, int node);

/* Give claimed frames back; their memory must be unmapped (qy_window_unmap). */
void qy_window_release(void *addr, size_t frames);

/* Map claimed address space for reading and writing; flags are added to MAP_PRIVATE|MAP_ANONYMOUS. 0 or -1, errno. */
int qy_window_map(void *addr, size_t len, int flags);

/* Take the memory away and leave the address space as it was before qy_window_map. */
int qy_window_unmap(void *addr, size_t len);

bool qy_window_sparse(void);
size_t qy_window_metadata(void);         /* bytes of side arrays committed */
size_t qy_window_metadata_touched(void); /* and in memory */
void qy_window_fork_lock(void);
void qy_window_fork_unlock(void); /* in the parent and in the child */

/* Memory for quarry's own structures: zeroed, never given back, on the node of whoever touches it first.
 * NULL with ENOMEM. Thread-safe. align is a power of two, at most 4096. */
void *qy_meta_alloc(size_t size, size_t align);
size_t qy_meta_used(void);

#endif
