/* SPDX-License-Identifier: MIT */
/* What is told of lanes (quarry/lanes.h), with the names, units and helps of their figures, in one table for text, JSON and
 * metrics. The figures come by lib/api/sources.h. */
#ifndef QUARRY_VIEW_LANES_H
#define QUARRY_VIEW_LANES_H

#include "include/quarry/quarry.h"
#include "lib/base/text.h"

struct qy_lanes_field {
	const char *name, *unit; /* unit: "" for counts */
	size_t offset;           /* of the uint64_t; of what is calculated, one of these: */
	bool counter;
	const char *help;
};

enum { QY_LANES_WASTE = 0x10000, QY_LANES_FAST_WASTE, QY_PART_WASTE };

/* The index-th; NULL past the last. */
const struct qy_lanes_field *qy_lanes_field(int index);
const struct qy_lanes_field *qy_part_field(int index);
/* record: a quarry_lanes_figures, or a quarry_lanes_part. */
uint64_t qy_lanes_value(const struct qy_lanes_field *field, const void *record);

/* All lanes of this process, and their parts, in a mapping; count is 0 where there are none, or no memory. */
struct qy_lanes_list {
	quarry_lanes_figures *at;
	size_t count;
	quarry_lanes_part *parts; /* of the last qy_lanes_list_parts */
	size_t mapped;
};

void qy_lanes_list_get(struct qy_lanes_list *list);
size_t qy_lanes_list_parts(struct qy_lanes_list *list, size_t index);
void qy_lanes_list_put(struct qy_lanes_list *list);

/* A table, or nothing; an array. */
void qy_lanes_print_text(struct qy_text *out);
void qy_lanes_print_json(struct qy_text *out);

#endif
