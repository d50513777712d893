/* SPDX-License-Identifier: MIT */
/* Asking the kernel of pages, for the viewer: where they are (lib/view/where.c says it page by page, and
 * lib/view/residency.c sums it up for an arena), and whether that is where they were asked to be. No state. */
#ifndef QUARRY_VIEW_PAGES_H
#define QUARRY_VIEW_PAGES_H

#include "include/quarry/quarry.h"
#include "numa/region.h"

/* How many pages are asked of at once. The kernel works through them in smaller pieces anyway; more would only take
 * more of the caller's stack, which may be a thread's of 16 KiB. */
#define QY_PAGES_BATCH 256

/* The kernel's ids of the nodes of n pages, QUARRY_NODE_NONE for those not in memory; asked of move_pages(2), and where
 * it refuses QUARRY_NODE_UNKNOWN for those that mincore(2) finds in memory. */
void qy_pages_nodes(void **pages, int *nodes, size_t n);

/* Fill in where the pages of what a view tells of are now. (item_pages.c) */
void qy_item_look_at_pages(quarry_view_item *item);

/* The node (the kernel's id) that memory so placed is wanted on: the one, or the first of the set; -1: any. */
int qy_placement_node(const struct qy_placement *placement);

/* Whether memory so placed is wanted on a node. A placement that asks for nothing, or that the kernel refused, wants
 * every one; so does any with a node that is not known. */
bool qy_placement_wants(const struct qy_placement *placement, enum qy_placed placed, int node);

/* The policy that the kernel took: on older kernels an older one than was asked for; where it refused, its default. */
int qy_placement_got(const struct qy_placement *placement, enum qy_placed placed);

#endif
