/* SPDX-License-Identifier: MIT */
#include "lib/object/wslab.h"

#include <errno.h>

#include "lib/api/error.h"
#include "lib/object/storage.h"

#define SIZE_MIN 64
#define SIZE_TOP ((uint32_t)1 << 30)
#define FRESH 4096 /* bytes of new memory for what was reserved, at least */
#define HALVES 3   /* the bits of a hold's number that tell of halves; above, one more than the chain's number */
#define SLOT_SHIFT 2

/* How many were ever made: each has serials of its own for prefixes, so that those of one before, at the same address,
 * are not taken for its own. */
static _Atomic(uint32_t) made;

static bool is_one(const quarry_wslab *w)
{
	return w != NULL && w->size > 0;
}

static int fail_none(void)
{
	return qy_fail(EINVAL, "w: no write slab, or a pointer is NULL");
}

static bool has_bytes(const quarry_wslab_half *h)
{
	return h->state == QY_WSLAB_FILLED || h->state == QY_WSLAB_FULL || h->state == QY_WSLAB_FLUSHED;
}

/* The half that is being filled, or NULL. */
static quarry_wslab_half *filled(quarry_wslab *w)
{
	for (unsigned i = 0; i < 2; i++)
		if (w->half[i].state == QY_WSLAB_FILLED)
			return &w->half[i];
	return NULL;
}

static quarry_wslab_half *empty(quarry_wslab *w)
{
	quarry_wslab_half *h = &w->half[w->oldest];

	if (h->state == QY_WSLAB_EMPTY)
		return h;
	h = &w->half[!w->oldest];
	return h->state == QY_WSLAB_EMPTY ? h : NULL;
}

/* Fill an empty half from here on. */
static void begin(quarry_wslab *w, quarry_wslab_half *h)
{
	quarry_wslab_half *before = filled(w);
	unsigned other = h == &w->half[0];

	if (before != NULL)
		before->state = QY_WSLAB_FULL;
	h->state = QY_WSLAB_FILLED;
	w->oldest = has_bytes(&w->half[other]) ? other : !other;
}

/* It has no bytes to be sent any more. */
static void end(quarry_wslab_half *h)
{
	h->head = h->tail = 0;
	h->state = h->holds > 0 ? QY_WSLAB_HELD : QY_WSLAB_EMPTY;
}

/* ---- life ---- */

int qy_wslab_fail_memory(const quarry_arena *arena, size_t n)
{
	return errno == EINVAL ? qy_fail_arena(arena) : qy_fail(errno, "no memory for %lu bytes", (unsigned long)n);
}

QUARRY_API int quarry_wslab_init(quarry_wslab *w, const quarry_wslab_attr *attr)
{
	static const quarry_wslab_attr plain = { .struct_size = sizeof(plain) };
	uint32_t size;
	void *p;

	if (attr == NULL)
		attr = &plain;
	if (w == NULL)
		return fail_none();
	if (attr->struct_size != 0 && attr->struct_size != sizeof(*attr))
		return qy_fail(EINVAL, "struct_size: %d is not the size of any quarry_wslab_attr",
			       (int)attr->struct_size);
	if (attr->flags & ~(uint32_t)QUARRY_WSLAB_GROW || attr->reserved != 0)
		return qy_fail(EINVAL, "flags: unknown bits in 0x%x, or reserved is not 0", (unsigned)attr->flags);
	size = attr->size == 0 ? QUARRY_WSLAB_SIZE : attr->size;
	if (size < SIZE_MIN || size > SIZE_TOP)
		return qy_fail(EINVAL, "size: %u is not within %u and %u", (unsigned)size, (unsigned)SIZE_MIN,
			       (unsigned)SIZE_TOP);
	size = (uint32_t)qy_align_up(size, QY_CACHE_LINE);
	p = quarry_arena_aligned_alloc(attr->arena, QY_CACHE_LINE, 2 * (size_t)size);
	if (p == NULL)
		return qy_wslab_fail_memory(attr->arena, 2 * (size_t)size);
	*w = (quarry_wslab){ .size = size, .flags = attr->flags };
	w->serial = (uint64_t)atomic_fetch_add_explicit(&made, 1, memory_order_relaxed) << 32;
	w->half[0].p = p;
	w->half[1].p = w->half[0].p + size;
	return 0;
}

static bool is_held(const quarry_wslab *w)
{
	for (unsigned i = 0; i < QUARRY_WSLAB_HOLDS; i++)
		if (w->held[i].len > 0)
			return true;
	return w->half[0].holds > 0 || w->half[1].holds > 0;
}

QUARRY_API int quarry_wslab_reset(quarry_wslab *w)
{
	if (!is_one(w))
		return fail_none();
	if (is_held(w))
		return qy_fail(EBUSY, "w: the kernel holds a part of it");
	qy_wslab_forget_reserved(w);
	quarry_chain_free(&w->more);
	quarry_chain_free(&w->out);
	for (unsigned i = 0; i < 2; i++)
		end(&w->half[i]);
	w->prefixes = 0;
	w->gone = w->written;
	w->flushing = 0;
	return 0;
}

QUARRY_API int quarry_wslab_fini(quarry_wslab *w)
{
	if (w == NULL)
		return fail_none();
	if (w->size == 0)
		return 0;
	if (quarry_wslab_reset(w) != 0)
		return -1;
	quarry_free(w->half[0].p);
	*w = (quarry_wslab){ .size = 0 };
	return 0;
}

/* ---- written ---- */

QUARRY_API size_t quarry_wslab_room(const quarry_wslab *w)
{
	size_t room = 0;

	if (!is_one(w))
		fail_none();
	if (!is_one(w) || w->more.len > 0)
		return 0;
	for (unsigned i = 0; i < 2; i++) {
		const quarry_wslab_half *h = &w->half[i];

		if (h->state == QY_WSLAB_FILLED || h->state == QY_WSLAB_EMPTY)
			room += w->size - h->tail;
	}
	return room;
}

QUARRY_API uint64_t quarry_wslab_pending(const quarry_wslab *w)
{
	if (is_one(w))
		return w->written - w->gone;
	fail_none();
	return 0;
}

/* No room for n more bytes, of which none can be had at a time than most. */
static int fail_room(size_t n, size_t most)
{
	if (n > most)
		return qy_fail(EMSGSIZE, "n: %lu bytes, and never more than %lu have room", (unsigned long)n,
			       (unsigned long)most);
	errno = EAGAIN; /* no mistake: no text */
	return -1;
}

/* Copy n bytes, for which there is room in halves. */
static void fill(quarry_wslab *w, const unsigned char *p, size_t n)
{
	quarry_wslab_half *h = filled(w);

	while (n > 0) {
		size_t len = h == NULL ? 0 : qy_min(w->size - h->tail, n);

		if (len == 0) {
			h = empty(w);
			begin(w, h);
			continue;
		}
		memcpy(h->p + h->tail, p, len);
		h->tail += (uint32_t)len;
		p += len;
		n -= len;
	}
}

QUARRY_API int quarry_wslab_write(quarry_wslab *w, const void *p, size_t n)
{
	quarry_wslab_half *h;
	size_t room, here;

	if (!is_one(w) || (p == NULL && n > 0))
		return fail_none();
	h = filled(w);
	if (QY_LIKELY(h != NULL && n <= w->size - h->tail && w->more.len == 0 && n > 0)) {
		qy_wslab_forget_reserved(w);
		memcpy(h->p + h->tail, p, n);
		h->tail += (uint32_t)n;
		w->written += n;
		return 0;
	}
	room = quarry_wslab_room(w);
	here = qy_min(room, n);
	if (n > room && !(w->flags & QUARRY_WSLAB_GROW))
		return fail_room(n, 2 * (size_t)w->size);
	qy_wslab_forget_reserved(w);
	if (n > room && quarry_chain_append_copy(&w->more, (const char *)p + here, n - here) != 0)
		return -1;
	fill(w, p, here);
	w->written += n;
	return 0;
}

/* Room in one piece in the chain: behind what is there, or new. */
static void *reserve_more(quarry_wslab *w, size_t n)
{
	const quarry_cseg *last = w->more.last;

	if (n > UINT32_MAX) {
		fail_room(n, UINT32_MAX);
		return NULL;
	}
	if (quarry_chain_tailroom(&w->more) >= n) {
		w->where = last->data + last->len;
	} else {
		w->fresh = quarry_storage_alloc(NULL, qy_max(n, FRESH));
		if (w->fresh == NULL)
			return NULL;
		w->where = quarry_storage_data(w->fresh);
	}
	w->reserved = (uint32_t)n;
	return w->where;
}

QUARRY_API void *quarry_wslab_reserve(quarry_wslab *w, size_t n)
{
	quarry_wslab_half *h;

	if (!is_one(w) || n == 0) {
		fail_none();
		return NULL;
	}
	qy_wslab_forget_reserved(w);
	h = filled(w);
	if (h == NULL || w->size - h->tail < n)
		h = empty(w);
	if (h == NULL || w->size < n || w->more.len > 0) {
		if (w->flags & QUARRY_WSLAB_GROW)
			return reserve_more(w, n);
		fail_room(n, w->size);
		return NULL;
	}
	w->reserved = (uint32_t)n;
	return w->where = h->p + h->tail;
}

static int advance_more(quarry_wslab *w, size_t n)
{
	if (w->fresh == NULL) {
		w->more.last->len += n;
		w->more.len += n;
		return 0;
	}
	return quarry_chain_append(&w->more, w->fresh, w->where, n);
}

QUARRY_API int quarry_wslab_advance(quarry_wslab *w, size_t n)
{
	size_t at;

	if (!is_one(w))
		return fail_none();
	if (n > w->reserved)
		return qy_fail(ERANGE, "n: %lu bytes, and %lu are reserved", (unsigned long)n,
			       (unsigned long)w->reserved);
	at = (size_t)((uintptr_t)w->where - (uintptr_t)w->half[0].p);
	if (n > 0 && at < 2 * (size_t)w->size) {
		quarry_wslab_half *h = &w->half[at >= w->size];

		if (h->state == QY_WSLAB_EMPTY)
			begin(w, h);
		h->tail += (uint32_t)n;
	} else if (n > 0 && advance_more(w, n) != 0) {
		return -1;
	}
	w->written += n;
	qy_wslab_forget_reserved(w);
	return 0;
}

/* ---- sent ---- */

QUARRY_API int64_t quarry_wslab_flush_begin(quarry_wslab *w)
{
	if (!is_one(w))
		return fail_none();
	if (w->flushing > 0)
		return qy_fail(EALREADY, "w: a flush is under way");
	if (w->prefixes > 0)
		return qy_fail(EBUSY, "w: a prefix is open");
	qy_wslab_forget_reserved(w);
	for (unsigned i = 0; i < 2; i++)
		if (w->half[i].state == QY_WSLAB_FILLED || w->half[i].state == QY_WSLAB_FULL)
			w->half[i].state = QY_WSLAB_FLUSHED;
	quarry_chain_append_chain(&w->out, &w->more);
	w->flushing = w->written - w->gone;
	return (int64_t)w->flushing;
}

QUARRY_API long quarry_wslab_iov(const quarry_wslab *w, struct iovec *iov, size_t max)
{
	size_t n = 0;

	if (!is_one(w) || (iov == NULL && max > 0))
		return fail_none();
	for (unsigned i = 0; i < 2 && n < max; i++) {
		const quarry_wslab_half *h = &w->half[i ^ w->oldest];

		if (h->state == QY_WSLAB_FLUSHED)
			iov[n++] = (struct iovec){ .iov_base = h->p + h->head, .iov_len = h->tail - h->head };
	}
	return (long)n + (n < max ? quarry_chain_iov(&w->out, 0, iov + n, max - n, NULL) : 0);
}

QUARRY_API int64_t quarry_wslab_sent(quarry_wslab *w, uint64_t n)
{
	unsigned first;

	if (!is_one(w))
		return fail_none();
	if (n > w->flushing)
		return qy_fail(ERANGE, "n: %lu bytes, and the flush has %lu", (unsigned long)n,
			       (unsigned long)w->flushing);
	w->flushing -= n;
	w->gone += n;
	first = w->oldest;
	for (unsigned i = 0; i < 2; i++) {
		quarry_wslab_half *h = &w->half[i ^ first];
		uint32_t len;

		if (h->state != QY_WSLAB_FLUSHED)
			continue;
		len = (uint32_t)qy_min(h->tail - h->head, n);
		h->head += len;
		n -= len;
		if (h->head == h->tail)
			end(h);
	}
	quarry_chain_trim_front(&w->out, n);
	return (int64_t)w->flushing;
}

/* ---- held ---- */

/* What is left of the flush's chain is kept by shares of its own. The number of the place, or -1. */
static int hold_chain(quarry_wslab *w)
{
	for (int i = 0; i < QUARRY_WSLAB_HOLDS; i++)
		if (w->held[i].len == 0)
			return quarry_chain_clone(&w->out, 0, QUARRY_CHAIN_ALL, &w->held[i]) == 0 ? i : -1;
	errno = EAGAIN;
	return -1;
}

QUARRY_API int quarry_wslab_hold(quarry_wslab *w)
{
	int hold = 0;

	if (!is_one(w) || w->flushing == 0)
		return qy_fail(EINVAL, "w: no flush is under way");
	if (w->out.len > 0) {
		hold = hold_chain(w);
		if (hold < 0)
			return -1;
		hold = (hold + 1) << SLOT_SHIFT;
	}
	for (unsigned i = 0; i < 2; i++) {
		if (w->half[i].state != QY_WSLAB_FLUSHED)
			continue;
		w->half[i].holds++;
		hold |= 1 << i;
	}
	return hold;
}

QUARRY_API int quarry_wslab_drop(quarry_wslab *w, int hold)
{
	int slot = (hold >> SLOT_SHIFT) - 1;

	if (!is_one(w) || hold <= 0 || slot >= QUARRY_WSLAB_HOLDS || (slot >= 0 && w->held[slot].len == 0) ||
	    ((hold & 1) && w->half[0].holds == 0) || ((hold & 2) && w->half[1].holds == 0))
		return qy_fail(EINVAL, "hold: there is none of number %d", hold);
	for (unsigned i = 0; i < 2; i++) {
		quarry_wslab_half *h = &w->half[i];

		if ((hold & HALVES & 1 << i) && --h->holds == 0 && h->state == QY_WSLAB_HELD)
			h->state = QY_WSLAB_EMPTY;
	}
	if (slot >= 0)
		quarry_chain_free(&w->held[slot]);
	return 0;
}
