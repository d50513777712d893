/* SPDX-License-Identifier: MIT */
/* Where figures of lanes come from. The viewer reads all layers under it, but not lib/lanes, which stands beside it and is
 * not in programs that do not use it: so lanes say here, when the first are made, whom to ask. */
#ifndef QUARRY_API_SOURCES_H
#define QUARRY_API_SOURCES_H

#include "include/quarry/quarry.h"
#include "lib/base/base.h"

/* Both give up to so many and return how many there are. wait: false where the caller may be anywhere, as in a signal handler, or
 * have the lanes' locks itself: what cannot be had at once is as it was told last. */
struct qy_lanes_source {
	size_t (*lanes)(quarry_lanes_figures *list, size_t max, bool wait);
	size_t (*parts)(uint32_t lanes, quarry_lanes_part *list, size_t max, bool wait); /* the largest ones */
};

/* One for the process, for ever. */
void qy_lanes_source_set(const struct qy_lanes_source *source);
/* NULL: there were never any lanes. */
const struct qy_lanes_source *qy_lanes_source(void);

#endif
