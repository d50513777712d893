/* SPDX-License-Identifier: MIT */
/* Holding all managers, and the window, still around fork(2). */
#ifndef QUARRY_MANAGER_REGISTRY_H
#define QUARRY_MANAGER_REGISTRY_H

#include "lib/base/base.h"

void qy_registry_fork_lock(void);
void qy_registry_after_fork(void);  /* in the child, first */
void qy_registry_fork_unlock(void); /* in the parent and in the child */

#endif
