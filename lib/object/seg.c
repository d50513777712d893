/* SPDX-License-Identifier: MIT */
/* Segments: arithmetic, and copies that stay inside. */
#include <errno.h>
#include <string.h>

#include "include/quarry/block.h"
#include "lib/api/error.h"
#include "lib/object/copy.h"

static bool has_room(quarry_seg s, size_t at, size_t n)
{
	return at <= s.n && n <= s.n - at;
}

static int fail_range(quarry_seg s, size_t at, size_t n)
{
	return qy_fail(ERANGE, "%zu bytes from %zu on are not inside a segment of %zu", n, at, s.n);
}

QUARRY_API quarry_seg quarry_seg_make(void *p, size_t n)
{
	return p == NULL || n > UINTPTR_MAX - (uintptr_t)p ? (quarry_seg){ NULL, 0 } : (quarry_seg){ p, n };
}

QUARRY_API void *quarry_seg_end(quarry_seg s)
{
	return (void *)((uintptr_t)s.p + s.n);
}

QUARRY_API int quarry_seg_slice(quarry_seg s, size_t from, size_t n, quarry_seg *out)
{
	if (!has_room(s, from, n))
		return fail_range(s, from, n);
	if (out != NULL)
		*out = (quarry_seg){ (void *)((uintptr_t)s.p + from), n };
	return 0;
}

QUARRY_API int quarry_seg_split(quarry_seg s, size_t at, quarry_seg *first, quarry_seg *second)
{
	if (at > s.n)
		return fail_range(s, 0, at);
	if (first != NULL)
		*first = (quarry_seg){ s.p, at };
	if (second != NULL)
		*second = (quarry_seg){ (void *)((uintptr_t)s.p + at), s.n - at };
	return 0;
}

QUARRY_API int quarry_seg_compare(quarry_seg a, quarry_seg b)
{
	size_t n = qy_min(a.n, b.n);
	int order = n == 0 ? 0 : memcmp(a.p, b.p, n);

	return order != 0 ? order : (a.n > b.n) - (a.n < b.n);
}

QUARRY_API int quarry_seg_contains(quarry_seg s, const void *p, size_t n)
{
	return (uintptr_t)p >= (uintptr_t)s.p && has_room(s, (uintptr_t)p - (uintptr_t)s.p, n);
}

QUARRY_API int quarry_seg_in_heap(quarry_seg s)
{
	quarry_inspection i;

	if (s.p == NULL || quarry_inspect(s.p, &i, sizeof(i)) != 0)
		return 0;
	return (i.kind == QUARRY_VIEW_OBJECT || i.kind == QUARRY_VIEW_BLOCK) && i.state != QUARRY_VIEW_FREE &&
	       i.state != QUARRY_VIEW_CACHED && s.n <= i.size - i.offset;
}

QUARRY_API void *quarry_seg_cast(quarry_seg s, size_t size, size_t alignment, size_t *count)
{
	if (size == 0 || !qy_is_pow2(alignment) || (uintptr_t)s.p % alignment != 0) {
		qy_fail(EINVAL, "segment: what is at %p is no array of elements of %zu bytes, aligned to %zu", s.p, size,
			alignment);
		return NULL;
	}
	if (count != NULL)
		*count = s.n / size;
	return s.p;
}

QUARRY_API int quarry_copy_in(quarry_seg s, size_t at, const void *src, size_t n)
{
	if (!has_room(s, at, n))
		return fail_range(s, at, n);
	if (n == 0)
		return 0;
	if (src == NULL)
		return qy_fail(EINVAL, "src: there is none");
	qy_copy((char *)s.p + at, src, n);
	return 0;
}

QUARRY_API int quarry_copy_out(quarry_seg s, size_t at, void *dst, size_t n)
{
	if (!has_room(s, at, n))
		return fail_range(s, at, n);
	if (n == 0)
		return 0;
	if (dst == NULL)
		return qy_fail(EINVAL, "dst: there is none");
	qy_copy(dst, (const char *)s.p + at, n);
	return 0;
}

QUARRY_API int quarry_copy_seg(quarry_seg dst, quarry_seg src)
{
	return quarry_copy_in(dst, 0, src.p, src.n);
}
