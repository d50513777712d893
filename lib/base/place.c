/* SPDX-License-Identifier: MIT */
#include "lib/base/place.h"

#include "lib/base/gone.h"
#include "lib/base/refused.h"

uintptr_t qy_window_base;
size_t qy_window_size;
char *qy_slab_side;
struct qy_window qy_window;

qy_counter qy_refused[QUARRY_REFUSED_COUNT];
qy_gone_fn *_Atomic qy_gone;
