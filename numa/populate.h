/* SPDX-License-Identifier: MIT */
/* Filling large ranges by several threads: what the kernel does in a fault, clearing pages above all, is bound by one
 * CPU. The threads live for one range, have all signals blocked, and run on CPUs of the node that the memory is for, as
 * far as the process may use them; the caller works with them. A guest in a program starts no thread that it was not
 * allowed to: none until qy_region_allow_threads (numa/region.h) says so. */
#ifndef QUARRY_NUMA_POPULATE_H
#define QUARRY_NUMA_POPULATE_H

#include "numa/region.h"

/* Fill a part; false with errno. */
typedef bool qy_fill_part(const struct qy_placement *placement, char *addr, size_t len, int kind);

/* Call fill for all of [addr, addr + len), in parts of 32 MiB, or of grain bytes if that is more; from 64 MiB on in
 * parallel. False with the errno of a part that failed; then others may have been left out. */
bool qy_populate(const struct qy_placement *placement, char *addr, size_t len, size_t grain, int kind, qy_fill_part *fill);

/* How many threads would be at so much memory of a placement, with the caller. */
unsigned qy_populate_threads(const struct qy_placement *placement, size_t len, size_t grain);

#endif
