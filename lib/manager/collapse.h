/* SPDX-License-Identifier: MIT */
/* Memory that grew dense on base pages becomes huge in the background. A frame (2 MiB) whose pages are nearly all in
 * use and in memory, and that was not being emptied for a while, is collapsed by MADV_COLLAPSE, one frame a call: the
 * kernel copies it and holds up faults of the process for that long (0.3 to 0.6 ms), so a pass has a budget of time,
 * and what it took is followed by three times as long without. Collapsing is safe on live memory; the region is kept
 * from being unmapped by the purge lock, which is released between two frames.
 *
 * It respects what MADV_COLLAPSE itself does not ask for: `never` in sysfs, and a heap that is too small to profit.
 * What the kernel refuses is tried again later: a node that has no huge page, or a control group that allows none,
 * after a time that doubles up to a minute; a frame that would not go, after a second, then a minute. */
#ifndef QUARRY_MANAGER_COLLAPSE_H
#define QUARRY_MANAGER_COLLAPSE_H

#include "lib/base/base.h"

/* A pass over all managers, after what is free was purged, by the reclaimer's thread or quarry_tend only, with no lock
 * held, and none waited for. now in ms;
 * budget_ns is how long the kernel may be at it. *next is when (ms) more is due; UINT64_MAX never, until
 * qy_collapse_wake. Whether something was collapsed. */
bool qy_collapse_pass(uint64_t now, uint64_t budget_ns, uint64_t *next);

/* Time that those took. */
uint64_t qy_collapse_ns(void);

/* Memory was mapped, or is touched again that was given back: there may be something to collapse soon. Any thread, any
 * locks. */
void qy_collapse_wake(void);

/* The process is about to fork: its pages will be shared for a while, and huge pages taken apart by whoever writes. In
 * the parent before, so that the child has it too. */
void qy_collapse_forked(void);

#endif
