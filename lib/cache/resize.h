/* SPDX-License-Identifier: MIT */
/* realloc, for plain memory and for arenas. */
#ifndef QUARRY_API_RESIZE_H
#define QUARRY_API_RESIZE_H

#include "lib/base/base.h"

/* Resize p, which stays in its arena; NULL is allocated by the thread's default. */
void *qy_resize(void *p, size_t size);

#endif
