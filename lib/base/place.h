/* SPDX-License-Identifier: MIT */
/* Where things are: the arithmetic of the window, the one range of address space that all of quarry's memory is in.
 * From any address to what is noted of it is a subtraction, a shift and an addition. numa/window.c fills this in.
 *
 * Granules:  page 4 KiB (what blocks are measured in, whatever the kernel's base page is), unit 64 KiB (a slab is one
 * or more units), frame 2 MiB (the huge page), zone 1 GiB (belongs to one node, so that the side arrays of a node's
 * memory are on that node).
 *
 * Side arrays run beside the window, one element per granule, committed zone by zone:
 *   slab side   64 bytes per unit     lib/manager: struct qy_slab
 *   page side   16 bytes per page     lib/block: struct qy_block
 *   frame side  256 bytes per frame   lib/manager: struct qy_frame, and struct qy_region in a region's first
 * They are zero until written. */
#ifndef QUARRY_BASE_PLACE_H
#define QUARRY_BASE_PLACE_H

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

#endif
