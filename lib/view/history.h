/* SPDX-License-Identifier: MIT */
/* Figures as they were: rings of samples, of seconds, minutes and hours. A sample's place in its ring is the number of its
 * second, minute or hour, so that nothing is to be moved, and what is missing in between is seen by its time. */
#ifndef QUARRY_VIEW_HISTORY_H
#define QUARRY_VIEW_HISTORY_H

#include "include/quarry/quarry.h"
#include "lib/base/base.h"

#define QY_HISTORY_RINGS 3

extern QY_HIDDEN const uint32_t qy_history_counts[QY_HISTORY_RINGS]; /* samples that each has place for */

#define QY_HISTORY_SAMPLES (60 + 60 + 48) /* of all, one ring behind the other */

/* Note the figures of now in each ring. By one thread at a time, in zeroed memory of QY_HISTORY_SAMPLES. */
void qy_history_note(quarry_sample *rings, const quarry_stats *total, uint64_t now_ns);

/* Rings that may be anybody's, and of whom samples of stride bytes lie within memory, counts[] of each. */
struct qy_rings {
	const char *at;
	size_t stride;
	const uint32_t *counts;
};

/* Those of a ring, the oldest first: as quarry_history_get has them. */
long qy_history_list(const struct qy_rings *rings, int ring, quarry_sample *list, size_t max, size_t size);

#endif
