/* SPDX-License-Identifier: MIT */
#include <errno.h>

#include "lib/api/error.h"
#include "lib/object/wslab.h"

#define SIZE 16384
#define SIZE_TOP ((size_t)1 << 30)

static int fail_none(void)
{
	return qy_fail(EINVAL, "in: no inflight buffer, or a pointer is NULL");
}

QUARRY_API int quarry_inflight_get(quarry_inflight *in, quarry_arena *arena, size_t n)
{
	void *p;

	if (in == NULL)
		return fail_none();
	if (n > SIZE_TOP)
		return qy_fail(EINVAL, "n: %lu bytes are more than %lu", (unsigned long)n, (unsigned long)SIZE_TOP);
	n = n == 0 ? SIZE : qy_align_up(n, QY_CACHE_LINE);
	p = quarry_arena_aligned_alloc(arena, QY_CACHE_LINE, n);
	if (p == NULL)
		return qy_wslab_fail_memory(arena, n);
	*in = (quarry_inflight){ .p = p, .size = (uint32_t)n };
	return 0;
}

QUARRY_API void quarry_inflight_put(quarry_inflight *in)
{
	if (in == NULL)
		return;
	quarry_free(in->p);
	*in = (quarry_inflight){ .p = NULL };
}

QUARRY_API void *quarry_inflight_space(quarry_inflight *in, size_t *room)
{
	if (in == NULL || in->p == NULL || room == NULL) {
		if (room != NULL)
			*room = 0;
		fail_none();
		return NULL;
	}
	/* Before there is none at all: who reads into a room of a few bytes asks the kernel for each few. */
	if (in->size - in->tail < in->head) {
		memmove(in->p, in->p + in->head, in->tail - in->head);
		in->tail -= in->head;
		in->head = 0;
	}
	*room = in->size - in->tail;
	if (*room > 0)
		return in->p + in->tail;
	errno = ENOBUFS;
	return NULL;
}

QUARRY_API int quarry_inflight_filled(quarry_inflight *in, size_t n)
{
	if (in == NULL || in->p == NULL)
		return fail_none();
	if (n > in->size - in->tail)
		return qy_fail(ERANGE, "n: %lu bytes, and room for %lu", (unsigned long)n,
			       (unsigned long)(in->size - in->tail));
	in->tail += (uint32_t)n;
	return 0;
}

QUARRY_API const void *quarry_inflight_data(const quarry_inflight *in, size_t *n)
{
	size_t there = in == NULL ? 0 : in->tail - in->head;

	if (n != NULL)
		*n = there;
	return there > 0 ? in->p + in->head : NULL;
}

QUARRY_API int quarry_inflight_take(quarry_inflight *in, size_t n)
{
	if (in == NULL || in->p == NULL)
		return fail_none();
	if (n > in->tail - in->head)
		return qy_fail(ERANGE, "n: %lu bytes, and %lu are there", (unsigned long)n,
			       (unsigned long)(in->tail - in->head));
	in->head += (uint32_t)n;
	if (in->head == in->tail)
		in->head = in->tail = 0;
	return 0;
}
