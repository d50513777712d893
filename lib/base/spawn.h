/* SPDX-License-Identifier: MIT */
/* A thread of the library's own: a guest in somebody's process. Detached, all signals blocked, on a small stack. */
#ifndef QUARRY_BASE_SPAWN_H
#define QUARRY_BASE_SPAWN_H

#include <stdbool.h>

/* False: there is none to be had; errno stays. */
bool qy_spawn(void *(*run)(void *));

#endif
