/* SPDX-License-Identifier: MIT */
/* Chains put together, cut and shared. What reads and copies their bytes is in chain_data.c. */
#include "lib/object/chain.h"

#include <errno.h>

#include "lib/api/error.h"
#include "lib/object/copy.h"

#define FRESH 4096 /* bytes of new memory for copies, at least: room for those that follow */

int qy_chain_fail_null(void)
{
	return qy_fail(EINVAL, "chain: a pointer is NULL, or nothing is asked for");
}

int qy_chain_fail_range(const quarry_chain *c, uint64_t at, uint64_t n)
{
	return qy_fail(ERANGE, "n: %lu bytes from %lu on, of a chain of %lu", (unsigned long)n, (unsigned long)at,
		       (unsigned long)c->len);
}

int qy_chain_fail_long(const quarry_chain *c, uint64_t n)
{
	return qy_fail(EOVERFLOW, "n: %lu bytes more, for a chain of %lu", (unsigned long)n, (unsigned long)c->len);
}

struct qy_place qy_chain_place(const quarry_chain *c, uint64_t at)
{
	struct qy_place place;
	uint64_t left;

	if (at >= c->len) {
		place.seg = c->last;
		place.at = c->last != NULL ? c->last->len : 0;
		return place;
	}
	if (at <= c->len / 2) {
		place.seg = c->first;
		for (left = at; left >= place.seg->len; place.seg = place.seg->next)
			left -= place.seg->len;
		place.at = (size_t)left;
		return place;
	}
	place.seg = c->last;
	for (left = c->len - at; left > place.seg->len; place.seg = place.seg->prev)
		left -= place.seg->len;
	place.at = place.seg->len - (size_t)left;
	return place;
}

/* ---- put together ---- */

/* With a share of storage (NULL: borrowed) that is taken over when this succeeds. */
static int add(quarry_chain *chain, quarry_storage *storage, const void *p, size_t n, bool in_front)
{
	quarry_cseg *seg;

	if (qy_chain_fits(chain, n) != 0)
		return -1;
	seg = qy_cseg_make(storage, (unsigned char *)(uintptr_t)p, n);
	if (seg == NULL)
		return -1;
	if (in_front)
		qy_chain_push_front(chain, seg);
	else
		qy_chain_push_back(chain, seg);
	return 0;
}

static int add_shared(quarry_chain *chain, quarry_storage *storage, void *p, size_t n, bool in_front)
{
	if (chain == NULL || storage == NULL || (p == NULL && n > 0))
		return qy_chain_fail_null();
	if (n == 0)
		return 0;
	if (!qy_storage_has(storage, p, n))
		return qy_fail(ERANGE, "p: %lu bytes at %p are not within the storage", (unsigned long)n, p);
	if (!qy_storage_share(storage))
		return -1;
	if (add(chain, storage, p, n, in_front) == 0)
		return 0;
	qy_storage_let_go(storage);
	return -1;
}

QUARRY_API int quarry_chain_append(quarry_chain *chain, quarry_storage *storage, void *p, size_t n)
{
	return add_shared(chain, storage, p, n, false);
}

QUARRY_API int quarry_chain_prepend(quarry_chain *chain, quarry_storage *storage, void *p, size_t n)
{
	return add_shared(chain, storage, p, n, true);
}

/* Undo the making of a storage: its memory stays with the caller. */
static int take_back(quarry_storage *s)
{
	s->release = NULL;
	qy_storage_let_go(s);
	return -1;
}

QUARRY_API int quarry_chain_append_owned(quarry_chain *chain, void *p, size_t n)
{
	quarry_storage *s;

	if (chain == NULL || n == 0)
		return qy_chain_fail_null();
	s = quarry_storage_own(p);
	if (s == NULL)
		return -1;
	if (n > s->size) {
		qy_fail(ERANGE, "n: %lu bytes, and %lu are there", (unsigned long)n, (unsigned long)s->size);
		return take_back(s);
	}
	return add(chain, s, p, n, false) == 0 ? 0 : take_back(s);
}

QUARRY_API int quarry_chain_append_wrapped(quarry_chain *chain, void *p, size_t n, quarry_storage_release *release,
					   void *ctx)
{
	quarry_storage *s;

	if (chain == NULL)
		return qy_chain_fail_null();
	s = quarry_storage_wrap(p, n, release, ctx, 0);
	if (s == NULL)
		return -1;
	return add(chain, s, p, n, false) == 0 ? 0 : take_back(s);
}

QUARRY_API int quarry_chain_append_borrowed(quarry_chain *chain, const void *p, size_t n)
{
	if (chain == NULL || (p == NULL && n > 0))
		return qy_chain_fail_null();
	if (n > UINTPTR_MAX - (uintptr_t)p)
		return qy_fail(EINVAL, "p: %lu bytes at %p are no memory", (unsigned long)n, p);
	return n == 0 ? 0 : add(chain, NULL, p, n, false);
}

/* All of a chain that was made for that, or none, behind another one. */
static int append_made(quarry_chain *chain, quarry_chain *made)
{
	if (quarry_chain_append_chain(chain, made) == 0)
		return 0;
	quarry_chain_free(made);
	return -1;
}

QUARRY_API int quarry_chain_from_bufs(quarry_chain *chain, const quarry_chain_buf *bufs, size_t n)
{
	quarry_chain made = { .len = 0 };

	if (chain == NULL || (bufs == NULL && n > 0))
		return qy_chain_fail_null();
	for (size_t i = 0; i < n; i++) {
		const quarry_chain_buf *b = &bufs[i];
		int rc = b->storage != NULL ? quarry_chain_append(&made, b->storage, b->p, b->n)
					    : quarry_chain_append_borrowed(&made, b->p, b->n);

		if (rc != 0) {
			quarry_chain_free(&made);
			return -1;
		}
	}
	return append_made(chain, &made);
}

QUARRY_API int quarry_chain_from_iov(quarry_chain *chain, const struct iovec *iov, size_t n)
{
	quarry_chain made = { .len = 0 };

	if (chain == NULL || (iov == NULL && n > 0))
		return qy_chain_fail_null();
	for (size_t i = 0; i < n; i++) {
		if (quarry_chain_append_borrowed(&made, iov[i].iov_base, iov[i].iov_len) == 0)
			continue;
		quarry_chain_free(&made);
		return -1;
	}
	return append_made(chain, &made);
}

/* ---- copies in front and behind ---- */

QUARRY_API size_t quarry_chain_headroom(const quarry_chain *chain)
{
	const quarry_cseg *seg = chain == NULL ? NULL : chain->first;

	return seg != NULL && qy_storage_is_ours(seg->storage) ? (size_t)(seg->data - seg->storage->base) : 0;
}

QUARRY_API size_t quarry_chain_tailroom(const quarry_chain *chain)
{
	const quarry_cseg *seg = chain == NULL ? NULL : chain->last;

	if (seg == NULL || !qy_storage_is_ours(seg->storage))
		return 0;
	return seg->storage->size - seg->len - (size_t)(seg->data - seg->storage->base);
}

/* New memory for n bytes and more, as a segment; NULL with ENOMEM. */
static quarry_cseg *fresh(size_t n)
{
	quarry_storage *s = quarry_storage_alloc(NULL, qy_max(n, FRESH));
	quarry_cseg *seg;

	if (s == NULL)
		return NULL;
	seg = qy_cseg_make(s, s->base, n);
	if (seg == NULL)
		qy_storage_let_go(s);
	return seg;
}

QUARRY_API int quarry_chain_append_copy(quarry_chain *chain, const void *p, size_t n)
{
	size_t here = qy_min(quarry_chain_tailroom(chain), n);
	quarry_cseg *seg = NULL;

	if (chain == NULL || (p == NULL && n > 0))
		return qy_chain_fail_null();
	if (qy_chain_fits(chain, n) != 0)
		return -1;
	if (here < n) {
		seg = fresh(n - here);
		if (seg == NULL)
			return -1;
		qy_copy(seg->data, (const char *)p + here, n - here);
	}
	if (here > 0) {
		qy_copy(chain->last->data + chain->last->len, p, here);
		chain->last->len += here;
		chain->len += here;
	}
	if (seg != NULL)
		qy_chain_push_back(chain, seg);
	return 0;
}

QUARRY_API int quarry_chain_prepend_copy(quarry_chain *chain, const void *p, size_t n)
{
	quarry_cseg *seg;

	if (chain == NULL || (p == NULL && n > 0))
		return qy_chain_fail_null();
	if (n == 0)
		return 0;
	if (qy_chain_fits(chain, n) != 0)
		return -1;
	if (quarry_chain_headroom(chain) >= n) {
		seg = chain->first;
		seg->data -= n;
		seg->len += n;
		seg->index -= n;
		chain->origin -= n;
		chain->len += n;
	} else {
		seg = fresh(n);
		if (seg == NULL)
			return -1;
		seg->data = seg->storage->base + seg->storage->size - n;
		qy_chain_push_front(chain, seg);
	}
	qy_copy(seg->data, p, n);
	return 0;
}

/* ---- chains of chains ---- */

/* Move all indexes of a chain, so that it begins with origin. */
static void renumber(quarry_chain *c, uint64_t origin)
{
	uint64_t by = origin - c->origin;

	for (quarry_cseg *seg = c->first; seg != NULL; seg = seg->next)
		seg->index += by;
	c->origin = origin;
}

static void join(quarry_chain *front, quarry_chain *back)
{
	if (back->segs <= front->segs)
		renumber(back, front->origin + front->len);
	else
		renumber(front, back->origin - front->len);
	front->last->next = back->first;
	back->first->prev = front->last;
	front->last = back->last;
	front->len += back->len;
	front->segs += back->segs;
}

QUARRY_API int quarry_chain_append_chain(quarry_chain *chain, quarry_chain *other)
{
	if (chain == NULL || other == NULL || chain == other)
		return qy_chain_fail_null();
	if (other->first == NULL)
		return 0;
	if (qy_chain_fits(chain, other->len) != 0)
		return -1;
	if (chain->first == NULL)
		*chain = *other;
	else
		join(chain, other);
	*other = (quarry_chain){ .len = 0 };
	return 0;
}

QUARRY_API int quarry_chain_prepend_chain(quarry_chain *chain, quarry_chain *other)
{
	quarry_chain front;

	if (chain == NULL || other == NULL || chain == other)
		return qy_chain_fail_null();
	front = *other;
	if (quarry_chain_append_chain(&front, chain) != 0)
		return -1;
	*chain = front;
	*other = (quarry_chain){ .len = 0 };
	return 0;
}

/* ---- cut and shared ---- */

/* The segment that begins at a byte within the chain: cut off from the one it was in, when that began before. */
static quarry_cseg *cut(quarry_chain *c, uint64_t at)
{
	struct qy_place place = qy_chain_place(c, at);
	quarry_cseg *seg = place.seg, *right;

	if (place.at == 0)
		return seg;
	if (!qy_storage_share(seg->storage))
		return NULL;
	right = qy_cseg_make(seg->storage, seg->data + place.at, seg->len - place.at);
	if (right == NULL) {
		qy_storage_let_go(seg->storage);
		return NULL;
	}
	right->index = seg->index + place.at;
	right->prev = seg;
	right->next = seg->next;
	if (seg->next != NULL)
		seg->next->prev = right;
	else
		c->last = right;
	seg->next = right;
	seg->len = place.at;
	c->segs++;
	return right;
}

/* How many segments there are from one on: counted by the nearer end, as far as length tells. */
static size_t count_from(const quarry_chain *c, const quarry_cseg *seg)
{
	size_t n = 0;

	if (seg->index - c->origin > c->len / 2) {
		for (; seg != NULL; seg = seg->next)
			n++;
		return n;
	}
	for (; seg != NULL; seg = seg->prev)
		n++;
	return c->segs - n + 1;
}

QUARRY_API int quarry_chain_split(quarry_chain *chain, uint64_t at, quarry_chain *tail)
{
	quarry_cseg *seg;
	size_t segs;

	if (chain == NULL || tail == NULL || tail == chain || tail->first != NULL)
		return qy_fail(EINVAL, "tail: it is to be another chain, and empty");
	if (at > chain->len)
		return qy_chain_fail_range(chain, at, 0);
	if (at == chain->len)
		return 0;
	seg = cut(chain, at);
	if (seg == NULL)
		return -1;
	segs = count_from(chain, seg);
	*tail = (quarry_chain){ .first = seg, .last = chain->last, .len = chain->len - at, .origin = seg->index,
				.segs = segs };
	chain->last = seg->prev;
	if (seg->prev != NULL)
		seg->prev->next = NULL;
	else
		chain->first = NULL;
	seg->prev = NULL;
	chain->len = at;
	chain->segs -= segs;
	return 0;
}

/* Segments that are in no chain any more, as they are linked. What releases do may use any chain: so none is under way
 * of being changed when this is called. */
void qy_csegs_free(quarry_cseg *seg)
{
	quarry_cseg *next;

	for (; seg != NULL; seg = next) {
		next = seg->next;
		qy_cseg_free(seg);
	}
}

quarry_cseg *qy_chain_take_front(quarry_chain *c, uint64_t n)
{
	quarry_cseg *first = c->first, *seg = first;

	c->len -= n;
	c->origin += n;
	for (; seg != NULL && n >= seg->len; seg = seg->next) {
		n -= seg->len;
		c->segs--;
	}
	if (seg != NULL && n > 0) {
		seg->data += n;
		seg->index += n;
		seg->len -= (size_t)n;
	}
	if (seg == first)
		return NULL;
	if (seg == NULL) {
		c->last = NULL;
	} else {
		seg->prev->next = NULL;
		seg->prev = NULL;
	}
	c->first = seg;
	return first;
}

QUARRY_API int quarry_chain_trim_front(quarry_chain *chain, uint64_t n)
{
	if (chain == NULL)
		return qy_chain_fail_null();
	if (n > chain->len)
		return qy_chain_fail_range(chain, 0, n);
	qy_csegs_free(qy_chain_take_front(chain, n));
	return 0;
}

QUARRY_API int quarry_chain_trim_back(quarry_chain *chain, uint64_t n)
{
	quarry_cseg *seg, *off = NULL;

	if (chain == NULL)
		return qy_chain_fail_null();
	if (n > chain->len)
		return qy_chain_fail_range(chain, 0, n);
	chain->len -= n;
	for (seg = chain->last; seg != NULL && n >= seg->len; seg = seg->prev) {
		n -= seg->len;
		chain->segs--;
		off = seg;
	}
	if (seg != NULL)
		seg->len -= (size_t)n;
	if (off == NULL)
		return 0;
	chain->last = seg;
	if (seg != NULL)
		seg->next = NULL;
	else
		chain->first = NULL;
	qy_csegs_free(off);
	return 0;
}

int qy_chain_share(struct qy_place from, uint64_t n, quarry_chain *out)
{
	quarry_chain made = { .len = 0 };

	while (n > 0) {
		size_t len = (size_t)qy_min(from.seg->len - from.at, n);
		const quarry_cseg *next = from.seg->next;

		/* The count that is next is asked for before this one's locked instruction, which lets no load by. */
		if (next != NULL)
			qy_prefetch_write(next->storage);
		if (len > 0) {
			if (!qy_storage_share(from.seg->storage))
				break;
			if (add(&made, from.seg->storage, from.seg->data + from.at, len, false) != 0) {
				qy_storage_let_go(from.seg->storage);
				break;
			}
		}
		n -= len;
		from = (struct qy_place){ .seg = from.seg->next };
	}
	if (n == 0)
		return append_made(out, &made);
	quarry_chain_free(&made);
	return -1;
}

QUARRY_API int quarry_chain_clone(const quarry_chain *chain, uint64_t at, uint64_t n, quarry_chain *out)
{
	if (chain == NULL || out == NULL)
		return qy_chain_fail_null();
	if (n == QUARRY_CHAIN_ALL && at <= chain->len)
		n = chain->len - at;
	if (at > chain->len || n > chain->len - at)
		return qy_chain_fail_range(chain, at, n);
	return qy_chain_share(qy_chain_place(chain, at), n, out);
}

QUARRY_API void quarry_chain_free(quarry_chain *chain)
{
	quarry_cseg *first;

	if (chain == NULL)
		return;
	first = chain->first;
	*chain = (quarry_chain){ .len = 0 };
	qy_csegs_free(first);
}
