/* SPDX-License-Identifier: MIT */
/* Memory that goes all at once, with whatever the program has in it: an arena's, when it is reset or ends. Who notes
 * something of the program's memory beside it hears of that here, before anybody can have the memory anew. */
#ifndef QUARRY_BASE_GONE_H
#define QUARRY_BASE_GONE_H

#include "lib/base/base.h"

/* The n bytes at p, whole units of 64 KiB. It takes no lock and allocates nothing: threads may be held meanwhile, or the
 * process be a child in fork. Set once, before there is anything to note; there is one. */
typedef void qy_gone_fn(void *p, size_t n);
extern QY_HIDDEN qy_gone_fn *_Atomic qy_gone;

QY_INLINE void qy_tell_gone(void *p, size_t n)
{
	qy_gone_fn *fn = atomic_load_explicit(&qy_gone, memory_order_acquire);

	if (fn != NULL)
		fn(p, n);
}

#endif
