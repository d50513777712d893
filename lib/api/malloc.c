/* SPDX-License-Identifier: MIT */
/* The malloc family under quarry's own names. */
#include <errno.h>
#include <string.h>

#include "include/quarry/quarry.h"
#include "lib/api/fast.h"
#include "lib/cache/resize.h"

QUARRY_API void *quarry_malloc(size_t size)
{
	return qy_fast_malloc(size);
}

QUARRY_API void quarry_free(void *p)
{
	qy_fast_free(p);
}

QUARRY_API void *quarry_malloc_dense(size_t size)
{
	return qy_cache_alloc_dense(NULL, size);
}

QUARRY_API void quarry_free_dense(void *p)
{
	qy_cache_free_dense(p);
}

static void *no_memory(void)
{
	errno = ENOMEM;
	return NULL;
}

QUARRY_API void *quarry_calloc(size_t count, size_t size)
{
	struct qy_cache *c = qy_tls_read(cache);
	size_t n;

	if (__builtin_mul_overflow(count, size, &n))
		return no_memory();
	if (QY_LIKELY(n <= QY_TABLE_MAX)) {
		unsigned cls = c->class_of[(n + 15) >> 4];
		void *p = c->head[cls];

		if (QY_LIKELY(p != NULL)) {
			qy_cache_pop(&c->head[cls], p);
			qy_sanitizer_release();
			if (!c->zero[cls])
				return memset(p, 0, n);
			/* Of an object of fresh memory, only the link was written. */
			qy_link_object(p, NULL);
			return p;
		}
	}
	return qy_cache_alloc(NULL, n, 16, true);
}

QUARRY_API void *quarry_realloc(void *p, size_t size)
{
	return qy_resize(p, size);
}

QUARRY_API void *quarry_reallocarray(void *p, size_t count, size_t size)
{
	size_t n;

	if (__builtin_mul_overflow(count, size, &n))
		return no_memory();
	return qy_resize(p, n);
}

QUARRY_API void *quarry_aligned_alloc(size_t alignment, size_t size)
{
	if (!qy_is_pow2(alignment)) {
		errno = EINVAL;
		return NULL;
	}
	return qy_cache_alloc(NULL, size, alignment, false);
}

QUARRY_API int quarry_posix_memalign(void **out, size_t alignment, size_t size)
{
	int error = errno;
	void *p;

	if (!qy_is_pow2(alignment) || alignment % sizeof(void *) != 0)
		return EINVAL;
	p = qy_cache_alloc(NULL, size, alignment, false);
	errno = error;
	if (p == NULL)
		return ENOMEM;
	*out = p;
	return 0;
}

/* The size is no shortcut here, since who owns an object must be found anyway; where mistakes are looked for
 * (on_error), one that is too large for its block is one. */
QUARRY_API void quarry_free_sized(void *p, size_t size)
{
	qy_cache_check_size(p, size);
	qy_fast_free(p);
}

QUARRY_API void quarry_free_aligned_sized(void *p, size_t alignment, size_t size)
{
	(void)alignment;
	quarry_free_sized(p, size);
}

QUARRY_API size_t quarry_usable_size(const void *p)
{
	return qy_cache_usable(p);
}

QUARRY_API void *quarry_malloc_at_least(size_t size, size_t *got)
{
	void *p = qy_fast_malloc(size);

	if (got != NULL && p != NULL)
		*got = qy_cache_usable(p);
	return p;
}
