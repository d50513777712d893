/* SPDX-License-Identifier: MIT */
/* Managers, as blocks see them. */
#ifndef QUARRY_OBJECT_MANAGER_H
#define QUARRY_OBJECT_MANAGER_H

#include "include/quarry/block.h"
#include "lib/base/base.h"

/* Whether it is usable: NULL is. Else errno is EINVAL, with its text. */
bool qy_manager_check(const quarry_manager *manager);

/* Whether quarry_free, quarry_usable_size and quarry_realloc do for what it gives: the default one, and arenas. */
bool qy_manager_is_own(const quarry_manager *manager);

/* The arena that it is; NULL for all others. */
quarry_arena *qy_manager_arena(const quarry_manager *manager);

/* Whether live memory of quarry's begins at p, as far as quarry_inspect tells, that is no pool's, slab's or page
 * allocator's. */
bool qy_manager_is_live(const void *p);

/* Whether it is one that there is, wherever the address comes from. errno stays. */
bool qy_manager_is_arena(const quarry_arena *arena);

/* All stacks are one manager to the words of blocks: stacks come and go, and each would leave an array of words behind in
 * each unit. Which one it was stands in front of the memory. */
const quarry_manager *qy_stack_called(const quarry_manager *manager);

/* The manager that is meant by what a word says, of memory at p. */
const quarry_manager *qy_stack_meant(const quarry_manager *manager, const void *p);

/* Whether a block at `other` is of another stack than one at p, which was just begun: one that p's stack stands in. (One in
 * the same chunk is not, and if it lives by its word, it is what the stack forgot; its memory is not looked at.) False
 * where the manager that was called is no stack's. */
bool qy_stack_is_outside(const quarry_manager *manager, const void *p, const void *other);

#endif
