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

#endif
