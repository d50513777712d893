/* SPDX-License-Identifier: MIT */
#include "lib/object/storage.h"

#include <errno.h>

#include "lib/api/error.h"
#include "lib/cache/taken.h"
#include "lib/object/count.h"

static void free_owned(void *ctx, void *p, size_t n)
{
	(void)ctx;
	(void)n;
	quarry_free(p);
}

void qy_storage_overflow(quarry_storage *s)
{
	atomic_fetch_sub_explicit(&s->refs, 1, memory_order_relaxed);
	qy_fail(EOVERFLOW, "storage: the one at %p has as many shares as can be", s->base);
}

/* The record first: what release does may need one. */
void qy_storage_end(quarry_storage *s)
{
	quarry_storage_release *release = s->release;
	void *ctx = s->ctx, *p = s->base;
	size_t n = s->size;
	uint32_t buffer = s->buffer;

	s->base = NULL;
	s->flags = 0;
	atomic_store_explicit(&s->refs, 0, memory_order_relaxed);
	qy_record_put(s);
	if (buffer != 0)
		qy_storage_end_buffer(p, (uint32_t)(uintptr_t)ctx, (uint32_t)((uintptr_t)ctx >> 32), buffer);
	else if (release != NULL)
		release(ctx, p, n);
}

static quarry_storage *make(void *p, size_t n, quarry_storage_release *release, void *ctx, uint32_t flags)
{
	quarry_storage *s = qy_record_get();

	if (s == NULL)
		return NULL;
	atomic_init(&s->refs, 1);
	s->flags = flags | QY_STORAGE_LIVE;
	s->base = p;
	s->size = n;
	s->release = release;
	s->ctx = ctx;
	s->buffer = 0;
	return s;
}

QUARRY_API quarry_storage *quarry_storage_alloc(quarry_arena *arena, size_t n)
{
	quarry_storage *s;
	size_t got = 0;
	void *p;

	if (n == 0) {
		qy_fail(EINVAL, "n: a storage has at least one byte");
		return NULL;
	}
	p = quarry_arena_malloc_at_least(arena, n, &got);
	if (p == NULL) {
		if (errno == EINVAL)
			qy_fail_arena(arena);
		return NULL;
	}
	s = make(p, got, free_owned, NULL, 0);
	if (s == NULL)
		quarry_free(p);
	return s;
}

QUARRY_API quarry_storage *quarry_storage_own(void *p)
{
	size_t n = quarry_usable_size(p);

	if (n == 0 || qy_taken_has(p)) {
		qy_fail(EINVAL, "p: %p is no memory of quarry's, or a pool's, a page allocator's or a slab's", p);
		return NULL;
	}
	if (qy_count_is_held(p)) {
		qy_fail(EBUSY, "p: what is at %p is a block with references", p);
		return NULL;
	}
	return make(p, n, free_owned, NULL, 0);
}

QUARRY_API quarry_storage *quarry_storage_wrap(void *p, size_t n, quarry_storage_release *release, void *ctx,
					       unsigned flags)
{
	if (p == NULL || n == 0 || n > UINTPTR_MAX - (uintptr_t)p)
		qy_fail(EINVAL, "p: %lu bytes at %p are no memory", (unsigned long)n, p);
	else if (flags & ~(unsigned)QUARRY_STORAGE_READONLY)
		qy_fail(EINVAL, "flags: unknown bits in 0x%x", flags);
	else
		return make(p, n, release, ctx, flags);
	return NULL;
}

QUARRY_API quarry_storage *quarry_storage_ref(quarry_storage *storage)
{
	if (storage == NULL) {
		qy_fail(EINVAL, "storage: there is none");
		return NULL;
	}
	return qy_storage_share(storage) ? storage : NULL;
}

QUARRY_API void quarry_storage_unref(quarry_storage *storage)
{
	qy_storage_let_go(storage);
}

QUARRY_API unsigned quarry_storage_refs(const quarry_storage *storage)
{
	return storage == NULL ? 0 : atomic_load_explicit(&storage->refs, memory_order_acquire);
}

QUARRY_API void *quarry_storage_data(const quarry_storage *storage)
{
	return storage == NULL ? NULL : storage->base;
}

QUARRY_API size_t quarry_storage_size(const quarry_storage *storage)
{
	return storage == NULL ? 0 : storage->size;
}
