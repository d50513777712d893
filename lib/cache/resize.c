/* SPDX-License-Identifier: MIT */
#include "lib/cache/resize.h"

#include <errno.h>
#include <string.h>

#include "lib/cache/cache.h"
#include "lib/cache/thread.h"
#include "lib/manager/manager.h"
#include "lib/manager/mistakes.h"

/* An object stays where it is while the new size needs its class, or does not waste more than half of it. */
static bool fits_object(size_t usable, size_t size)
{
	return size <= usable && (size > usable / 2 || usable <= 64);
}

/* In place, or by page tables, for blocks. NULL when it must be copied. */
static void *resize_block(void *p, size_t size)
{
	struct qy_thread *t = qy_thread_enter();
	void *to = p;

	if (t == NULL)
		return NULL;
	if (!qy_large_resize(p, size))
		to = qy_large_remap(p, size);
	qy_thread_leave(t);
	return to;
}

/* Where a copy of p is to be: NULL for the thread's default, when that is where p is as well. */
static const quarry_arena *home_of(const void *p)
{
	struct qy_manager *m = qy_manager_of(p);

	return m == NULL || m->of_node ? NULL : &qy_arenas[m->index];
}

static void *copy(void *p, size_t usable, size_t size)
{
	const quarry_arena *arena = home_of(p);
	void *to = arena == NULL ? qy_cache_malloc(size) : qy_cache_alloc(arena, size, 16, false);

	if (to == NULL)
		return NULL;
	memcpy(to, p, qy_min(usable, size));
	qy_cache_free(p);
	return to;
}

void *qy_resize(void *p, size_t size)
{
	size_t usable;

	if (p == NULL)
		return qy_cache_malloc(size);
	if (size == 0) {
		qy_cache_free(p);
		return NULL;
	}
	if (size > PTRDIFF_MAX) {
		errno = ENOMEM;
		return NULL;
	}
	usable = qy_cache_usable(p);
	if (QY_UNLIKELY(usable == 0)) {
		qy_mistake(QY_MISTAKE_FOREIGN, p);
		errno = EINVAL;
		return NULL;
	}
	if (usable > QY_CLASS_MAX) {
		void *to = resize_block(p, size);

		if (to != NULL)
			return to;
	} else if (fits_object(usable, size)) {
		return p;
	}
	return copy(p, usable, size);
}
