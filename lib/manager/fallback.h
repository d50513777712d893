/* SPDX-License-Identifier: MIT */
/* Telling the program that memory was had otherwise than it was asked for (QUARRY_EVENT_FALLBACK): the first of a series
 * at once, those that follow once a second. */
#ifndef QUARRY_MANAGER_FALLBACK_H
#define QUARRY_MANAGER_FALLBACK_H

#include "lib/base/base.h"

struct qy_manager;
struct qy_region;

/* Kept in each arena's head, of each enum quarry_fallback. */
struct qy_fallback {
	_Atomic(uint64_t) told_ms, untold; /* when the last was told, + 1; how many were not since */
	_Atomic(uint64_t) last;            /* its was, state and pages: 16, 16 and 32 bits */
};
#define QY_FALLBACKS 3

/* A manager has got a region. Its lock may be held. */
void qy_fallback_region(struct qy_manager *m, const struct qy_region *r);

/* So many bytes of a manager's were found on other nodes, where it was so many the last time. */
void qy_fallback_strayed(struct qy_manager *m, uint64_t bytes, uint64_t before);

/* What of a series was not told yet is told, if it is time. Whether some still waits. By the head. */
bool qy_fallback_follow_up(struct qy_manager *head, uint64_t now);

#endif
