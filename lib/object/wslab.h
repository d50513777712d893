/* SPDX-License-Identifier: MIT */
/* Write slabs, for what writes to them (marshal.c).
 *
 * What is written and not sent stands, in this order: in the oldest half, in the other one, in a chain. So nothing goes
 * to a half while there is a chain behind the halves, until the chain is part of a flush.
 *
 * Only one half is filled at a time. Which is the oldest is said when one begins to be filled, and matters only while
 * both have bytes. */
#ifndef QUARRY_OBJECT_WSLAB_H
#define QUARRY_OBJECT_WSLAB_H

#include "include/quarry/wslab.h"
#include "lib/base/base.h"

enum qy_wslab_state {
	QY_WSLAB_EMPTY,
	QY_WSLAB_FILLED,  /* from its beginning */
	QY_WSLAB_FULL,    /* as it was left for the other */
	QY_WSLAB_FLUSHED, /* part of the flush, and written to no more */
	QY_WSLAB_HELD     /* sent, and the kernel still reads it */
};

/* An arena has not given n bytes: -1, and errno's text is set. */
int qy_wslab_fail_memory(const quarry_arena *arena, size_t n) QY_COLD;

/* Before anything that changes what is behind the last byte: nothing can be taken in there any more. */
QY_INLINE void qy_wslab_forget_reserved(quarry_wslab *w)
{
	w->reserved = 0;
	if (QY_LIKELY(w->fresh == NULL))
		return;
	quarry_storage_unref(w->fresh);
	w->fresh = NULL;
}

#endif
