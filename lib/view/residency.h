/* SPDX-License-Identifier: MIT */
/* What was asked for an arena, and where the kernel says that its memory is, summed up by node: for
 * quarry_arena_where, and for the printers, which allocate nothing. Nothing is owned but the mapping of a long list. */
#ifndef QUARRY_VIEW_RESIDENCY_H
#define QUARRY_VIEW_RESIDENCY_H

#include "include/quarry/quarry.h"
#include "lib/base/base.h"

/* Ascending by node. A few stand in the struct; on machines of more nodes a mapping is made, which is not from any
 * heap. Where that is refused, what found no room is summed up under QUARRY_NODE_UNKNOWN. */
struct qy_residencies {
	quarry_residency *at;
	size_t count, room;
	size_t mapped; /* bytes of the mapping; 0: none */
	quarry_residency few[16];
};

/* False with EINVAL when it is no arena (any more). Each list that was got must be put. */
bool qy_residencies_get(struct qy_residencies *list, quarry_arena *arena);
void qy_residencies_put(struct qy_residencies *list);

struct qy_asked {
	int policy;           /* enum quarry_policy */
	int kind;             /* enum quarry_page_kind */
	uint32_t flags;       /* enum quarry_arena_flags */
	bool bind;            /* false: no memory policy is asked for */
	quarry_nodeset nodes; /* the kernel's ids */
};

/* False with EINVAL when it is no arena (any more). */
bool qy_asked_get(struct qy_asked *asked, const quarry_arena *arena);

/* "local", "bind", "preferred", "preferred-many", "interleave", "weighted-interleave". */
const char *qy_policy_name(int policy);

#endif
