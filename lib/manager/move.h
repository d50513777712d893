/* SPDX-License-Identifier: MIT */
/* Moving a live manager's memory to other nodes: the policy of its regions is replaced, and what is in memory is
 * migrated a few megabytes at a time. Between two steps nothing is held; during one the purge lock is, so that no
 * region goes away, while threads go on allocating, using and freeing what is there. */
#ifndef QUARRY_MANAGER_MOVE_H
#define QUARRY_MANAGER_MOVE_H

#include "lib/manager/manager.h"

/* One round over all regions of a manager. */
struct qy_move {
	uint32_t frame;   /* where the next step begins; 0 before the first */
	unsigned attempt; /* rounds before this one that left something, for qy_region_bring */
	bool evenly;      /* spread anew what is interleaved */
	bool only_place;   /* no pages are moved */
	bool only_if_room; /* look first, and move only where the nodes have room to spare (the reclaimer) */
	uint64_t looked;  /* bytes of address space gone over */
	struct qy_brought sum;
};

/* The first node of the set that is not there, not allowed or without memory; -1 for none. */
int qy_move_unusable_node(const quarry_nodeset *nodes);

/* Ask for memory of other nodes from now on (the kernel's ids, not empty), or again of those before. False with
 * ENOMEM. The caller holds the purge lock. */
bool qy_move_begin(struct qy_manager *m, const quarry_nodeset *nodes);
bool qy_move_back(struct qy_manager *m);

/* Do a piece: 1, 0 when the round is done, -1 with errno when the kernel refuses (EPERM, ENOSYS, EINVAL). Regions that
 * were placed by an older placement of the manager are placed anew on the way. The caller holds the purge lock. */
int qy_move_step(struct qy_manager *m, struct qy_move *move);

/* Ask whether the cpuset has changed; arenas on "all nodes that are allowed" then follow. By who has entered, or holds
 * the purge lock: an arena's end waits for either. */
void qy_managers_follow_cpuset(void);

#endif
