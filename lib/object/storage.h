/* SPDX-License-Identifier: MIT */
/* Storages: memory with a count of shares that stands in a record of its own (records.h), so that taking and letting go
 * of shares never comes near the memory. No lock: the count is all that threads have in common of it, the rest is
 * written before the first share is handed on.
 *
 * Who has the only share, and sees that, is alone until it hands one on itself: so what a chain alone has a share of
 * may be written to around its segment. */
#ifndef QUARRY_OBJECT_STORAGE_H
#define QUARRY_OBJECT_STORAGE_H

#include "include/quarry/chain.h"
#include "lib/base/base.h"
#include "lib/object/records.h"

#define QY_STORAGE_REFS_MAX ((uint32_t)1 << 31)
#define QY_STORAGE_LIVE ((uint32_t)1 << 31) /* a flag from its making to its end. No record of another kind has that bit:
                                             * it would be the top one of an address */

struct quarry_storage {
	_Atomic(uint32_t) refs;
	uint32_t flags;
	unsigned char *base;
	size_t size;
	quarry_storage_release *release;
	void *ctx;
	uint32_t buffer; /* not 0: it is a buffer's, with these flags, and ctx is its number and generation */
};

_Static_assert(sizeof(struct quarry_storage) <= QY_RECORD_BODY, "a storage stands in a record");
_Static_assert(sizeof(quarry_cseg) <= QY_RECORD_BODY, "a segment stands in a record");

/* The last share is gone. */
void qy_storage_end(quarry_storage *s);

/* Of a buffer's storage: no chain has it any more, and it is released. */
void qy_storage_end_buffer(void *p, uint32_t id, uint32_t generation, uint32_t flags);

/* There are too many: take the last one back, and say so by errno. */
void qy_storage_overflow(quarry_storage *s) __attribute__((cold));

/* One more share; none is needed of what is borrowed (NULL). False with EOVERFLOW. */
QY_INLINE bool qy_storage_share(quarry_storage *s)
{
	if (s == NULL)
		return true;
	if (QY_LIKELY(atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed) < QY_STORAGE_REFS_MAX))
		return true;
	qy_storage_overflow(s);
	return false;
}

/* What one thread wrote before it let go is seen by the one that ends it. (An owner that is alone need not tell anyone:
 * it spares the locked instruction.) */
QY_INLINE void qy_storage_let_go(quarry_storage *s)
{
	uint32_t refs;

	if (s == NULL)
		return;
	qy_assert(s->flags & QY_STORAGE_LIVE);
	if (atomic_load_explicit(&s->refs, memory_order_acquire) != 1) {
		refs = atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel);
		qy_check(refs != 0); /* one share let go of twice: its record is in a list */
		if (refs != 1)
			return;
	}
	qy_storage_end(s);
}

/* Whether the one share is the caller's, and the memory may be written to. */
QY_INLINE bool qy_storage_is_ours(const quarry_storage *s)
{
	return s != NULL && !(s->flags & QUARRY_STORAGE_READONLY) &&
	       atomic_load_explicit(&s->refs, memory_order_acquire) == 1;
}

QY_INLINE bool qy_storage_has(const quarry_storage *s, const void *p, size_t n)
{
	size_t at = (size_t)((uintptr_t)p - (uintptr_t)s->base);

	return at <= s->size && n <= s->size - at;
}

#endif
