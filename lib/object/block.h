/* SPDX-License-Identifier: MIT */
/* Blocks, as their parts see each other: block.c makes and counts, block_resize.c resizes. */
#ifndef QUARRY_OBJECT_BLOCK_H
#define QUARRY_OBJECT_BLOCK_H

#include "include/quarry/block.h"
#include "lib/base/base.h"

/* A block of n bytes (alignment 0: any); one whose p is NULL with errno. */
quarry_block qy_block_make(quarry_manager *manager, size_t alignment, size_t n);

/* Memory, by what words call its manager (NULL: quarry_free and quarry_usable_size do). */
void qy_block_give_back(const quarry_manager *manager, void *p);
size_t qy_block_usable(const quarry_manager *manager, const void *p);

/* ESTALE, and a mistake where such are looked for. */
int qy_block_fail_late(const void *p) QY_COLD;

#endif
