/* SPDX-License-Identifier: MIT */
/* How fast memory is copied between nodes: measured once for each pair, when it is first asked. A table for the process, of
 * words that are read without a lock; who measures holds one. */
#ifndef QUARRY_LANES_COPIES_H
#define QUARRY_LANES_COPIES_H

#include "include/quarry/lanes.h"
#include "lib/base/base.h"

#define QY_COPIES_NODES 64 /* by logical number; of others speeds are told or guessed */

/* ns that copying so many bytes takes; *known is raised to how that is known, if it is known worse. */
uint64_t qy_copy_ns(int from, int to, uint64_t bytes, int *known);

#endif
