/* SPDX-License-Identifier: MIT */
/* The hit paths, for whoever exports malloc and free: they must be compiled into those, not called by them. */
#ifndef QUARRY_API_FAST_H
#define QUARRY_API_FAST_H

#include "lib/cache/cache.h"

QY_INLINE void *qy_fast_malloc(size_t n)
{
	return qy_cache_malloc(n);
}

QY_INLINE void qy_fast_free(void *p)
{
	qy_cache_free(p);
}

#endif
