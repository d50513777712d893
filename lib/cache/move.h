/* SPDX-License-Identifier: MIT */
/* Moving arenas to other nodes. */
#ifndef QUARRY_CACHE_MOVE_H
#define QUARRY_CACHE_MOVE_H

#include "include/quarry/quarry.h"

/* The first node of the set that an arena cannot be moved to; -1 for none, and for an empty set. */
int qy_arena_unusable_node(const quarry_nodeset *nodes);

/* As quarry_arena_move, with arguments that were checked (nodes NULL or not empty; report NULL or usable). */
int qy_arena_move(quarry_arena *arena, const quarry_nodeset *nodes, quarry_move_report *report);

#endif
