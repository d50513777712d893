/* SPDX-License-Identifier: MIT */
/* Filling fresh mappings with memory of the right nodes and page kind, or finding out that there is none, without ever
 * being killed for it: by MADV_POPULATE_WRITE (Linux 5.14), which answers with an error where touching would give
 * SIGBUS, and after a look at what nodes and pools have left, since the kernel's answer to a fault into full nodes that
 * a policy binds to is its out-of-memory killer and not ENOMEM. */
#ifndef QUARRY_NUMA_FILL_H
#define QUARRY_NUMA_FILL_H

#include "numa/region.h"

/* Fault all of it in, by several threads where it is much. False with errno, counted. */
bool qy_fill(const struct qy_placement *placement, void *addr, size_t len);

/* The same from the pools of the nodes that it is bound to. What is interleaved is given out page by page, by address:
 * the kernel begins with the first node at the start of each mapping of hugetlb pages, which are short here. grain is
 * the size of the pages; 0 when no policy is to be had. */
bool qy_fill_pool(const struct qy_placement *placement, void *addr, size_t len, size_t grain);

/* Have all of a file's memory there, on the placement's nodes, by the file: where the kernel has no
 * MADV_POPULATE_WRITE, or where it is to stay. False with errno, EINVAL when there is no file. */
bool qy_fill_file(const struct qy_placement *placement, const struct qy_memfd *file, char *addr, size_t len, size_t grain);

/* Whether memory of this kind is to be filled and verified when it is mapped: it is strict, and there is something to
 * be strict about. */
bool qy_fill_is_due(const struct qy_placement *placement, int kind);

/* Fill strictly: only as far as the nodes have room, on the right nodes, of the right kind. False with errno. */
bool qy_fill_strictly(const struct qy_placement *placement, void *addr, size_t len, int kind);

/* Whether all pages that are there are on nodes of the placement; true when the kernel will not say. errno ENOMEM. */
bool qy_fill_verify(const struct qy_placement *placement, void *addr, size_t len, size_t grain);

/* Whether the pools of the placement's nodes have so many bytes of free huge pages, now, and the control group allows
 * them. When not, which of the two is counted. */
bool qy_fill_has_pool(const struct qy_placement *placement, size_t len, int kind);

#endif
