/* SPDX-License-Identifier: MIT */
/* Copies of what may be large: of segments, buffers, chains and cursors. From qy_copy_stream_min bytes on, what is
 * written goes past the caches (non-temporal stores): the lines of the destination are not fetched first, and what else
 * is in the caches stays there. It pays where the destination is not read soon, or is larger than the caches that it
 * would be read from. What overlaps is copied right, and by memmove(3) alone. */
#ifndef QUARRY_OBJECT_COPY_H
#define QUARRY_OBJECT_COPY_H

#include <string.h>

#include "lib/base/base.h"

extern QY_HIDDEN _Atomic(size_t) qy_copy_stream_min; /* SIZE_MAX: never */
extern QY_HIDDEN _Atomic(uint64_t) qy_copy_streamed;   /* copies that went so: for tests, since nothing else tells */

void qy_copy_past_caches(void *dst, const void *src, size_t n);

QY_INLINE void qy_copy(void *dst, const void *src, size_t n)
{
	if (QY_LIKELY(n < atomic_load_explicit(&qy_copy_stream_min, memory_order_relaxed)))
		memmove(dst, src, n);
	else
		qy_copy_past_caches(dst, src, n);
}

#endif
