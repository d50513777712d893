/* SPDX-License-Identifier: MIT */
/* The bytes of chains: copied, compared, found, brought together, told as vectors. */
#include "lib/object/chain.h"

#include <errno.h>

#include "lib/api/error.h"
#include "lib/object/copy.h"

static bool is_within(const quarry_chain *c, uint64_t at, uint64_t n)
{
	return at <= c->len && n <= c->len - at;
}

/* ---- copied ---- */

void qy_place_copy(struct qy_place from, void *dst, size_t n)
{
	unsigned char *to = dst;

	while (n > 0) {
		size_t len = qy_min(from.seg->len - from.at, n);

		qy_copy(to, from.seg->data + from.at, len);
		to += len;
		n -= len;
		from = (struct qy_place){ .seg = from.seg->next };
	}
}

QUARRY_API int quarry_chain_copy_out(const quarry_chain *chain, uint64_t at, void *dst, size_t n)
{
	if (chain == NULL || (dst == NULL && n > 0))
		return qy_chain_fail_null();
	if (!is_within(chain, at, n))
		return qy_chain_fail_range(chain, at, n);
	qy_place_copy(qy_chain_place(chain, at), dst, n);
	return 0;
}

QUARRY_API int64_t quarry_copy_chain(void *dst, size_t room, const quarry_chain *chain)
{
	if (chain == NULL || (dst == NULL && chain->len > 0))
		return qy_chain_fail_null();
	if (room < chain->len)
		return qy_fail(ERANGE, "room: %lu bytes, for a chain of %lu", (unsigned long)room,
			       (unsigned long)chain->len);
	qy_place_copy(qy_chain_place(chain, 0), dst, (size_t)chain->len);
	return (int64_t)chain->len;
}

/* 0 when n bytes from a place on may be written to by who has the chain. */
static int may_write(struct qy_place from, size_t n)
{
	while (n > 0) {
		const quarry_storage *s = from.seg->storage;

		if (s == NULL || (s->flags & QUARRY_STORAGE_READONLY))
			return qy_fail(EACCES, "at: what is there is borrowed, or for reading only");
		if (!qy_storage_is_ours(s))
			return qy_fail(EBUSY, "at: what is there is shared");
		n -= qy_min(from.seg->len - from.at, n);
		from = (struct qy_place){ .seg = from.seg->next };
	}
	return 0;
}

QUARRY_API int quarry_chain_copy_in(quarry_chain *chain, uint64_t at, const void *src, size_t n)
{
	const unsigned char *p = src;
	struct qy_place to;

	if (chain == NULL || (src == NULL && n > 0))
		return qy_chain_fail_null();
	if (!is_within(chain, at, n))
		return qy_chain_fail_range(chain, at, n);
	to = qy_chain_place(chain, at);
	if (may_write(to, n) != 0)
		return -1;
	while (n > 0) {
		size_t len = qy_min(to.seg->len - to.at, n);

		qy_copy(to.seg->data + to.at, p, len);
		p += len;
		n -= len;
		to = (struct qy_place){ .seg = to.seg->next };
	}
	return 0;
}

QUARRY_API int quarry_cseg_copy_in(quarry_cseg *seg, size_t at, const void *src, size_t n)
{
	if (seg == NULL)
		return qy_chain_fail_null();
	if (at > seg->len || n > seg->len - at)
		return qy_fail(ERANGE, "n: %lu bytes from %lu on, in a segment of %lu", (unsigned long)n,
			       (unsigned long)at, (unsigned long)seg->len);
	if (may_write((struct qy_place){ .seg = seg, .at = at }, n) != 0)
		return -1;
	return quarry_copy_in(quarry_seg_make(seg->data, seg->len), at, src, n);
}

/* ---- brought together ---- */

/* Bytes that follow the first segment go to behind it, where there is room for them. */
static void *pull_up(quarry_chain *c, size_t more)
{
	quarry_cseg *first = c->first, *off;
	void *data = first->data;
	quarry_chain rest = *c;

	rest.first = first->next;
	rest.first->prev = NULL;
	rest.len -= first->len;
	rest.origin += first->len;
	rest.segs--;
	qy_place_copy((struct qy_place){ .seg = rest.first }, first->data + first->len, more);
	off = qy_chain_take_front(&rest, more);
	first->len += more;
	first->next = rest.first;
	c->segs = rest.segs + 1;
	c->last = first;
	if (rest.first != NULL) {
		rest.first->prev = first;
		c->last = rest.last;
	}
	qy_csegs_free(off);
	return data;
}

static void *to_new_memory(quarry_chain *c, size_t n)
{
	quarry_storage *s = quarry_storage_alloc(NULL, n);
	quarry_cseg *seg, *off;
	void *data;

	if (s == NULL)
		return NULL;
	seg = qy_cseg_make(s, s->base, n);
	if (seg == NULL) {
		qy_storage_let_go(s);
		return NULL;
	}
	qy_place_copy(qy_chain_place(c, 0), seg->data, n);
	off = qy_chain_take_front(c, n);
	qy_chain_push_front(c, seg);
	data = seg->data;
	qy_csegs_free(off);
	return data;
}

QUARRY_API void *quarry_chain_coalesce(quarry_chain *chain, size_t n)
{
	const quarry_cseg *first = chain == NULL ? NULL : chain->first;

	if (first != NULL && n == QUARRY_CHAIN_ALL)
		n = (size_t)chain->len;
	if (first == NULL || n == 0) {
		qy_chain_fail_null();
		return NULL;
	}
	if (n > chain->len) {
		qy_chain_fail_range(chain, 0, n);
		return NULL;
	}
	if (n <= first->len)
		return first->data;
	if (qy_storage_is_ours(first->storage) &&
	    n <= first->storage->size - (size_t)(first->data - first->storage->base))
		return pull_up(chain, n - first->len);
	return to_new_memory(chain, n);
}

/* ---- told ---- */

QUARRY_API long quarry_chain_iov(const quarry_chain *chain, uint64_t at, struct iovec *iov, size_t max,
				 uint64_t *bytes)
{
	struct qy_place from;
	uint64_t sum = 0;
	size_t n = 0;

	if (chain == NULL || (iov == NULL && max > 0))
		return qy_chain_fail_null();
	if (at > chain->len)
		return qy_chain_fail_range(chain, at, 0);
	from = qy_chain_place(chain, at);
	for (; at + sum < chain->len && (iov == NULL || n < max); n++) {
		size_t len = from.seg->len - from.at;

		if (iov != NULL)
			iov[n] = (struct iovec){ .iov_base = from.seg->data + from.at, .iov_len = len };
		sum += len;
		from = (struct qy_place){ .seg = from.seg->next };
	}
	if (bytes != NULL)
		*bytes = sum;
	return (long)n;
}

/* ---- compared and found ---- */

size_t qy_place_match(struct qy_place from, const void *bytes, size_t n)
{
	const unsigned char *p = bytes;
	size_t done = 0;

	for (; done < n && from.seg != NULL; from = (struct qy_place){ .seg = from.seg->next }) {
		const unsigned char *at = from.seg->data + from.at;
		size_t len = qy_min(from.seg->len - from.at, n - done);

		if (memcmp(at, p + done, len) != 0)
			return done;
		done += len;
	}
	return done;
}

int64_t qy_place_find(struct qy_place from, const void *bytes, size_t n)
{
	const unsigned char *b = bytes;
	uint64_t before = 0;

	for (; from.seg != NULL; from = (struct qy_place){ .seg = from.seg->next }) {
		const unsigned char *start = from.seg->data + from.at, *p = start;
		const unsigned char *end = from.seg->data + from.seg->len;

		while (p < end && (p = memchr(p, b[0], (size_t)(end - p))) != NULL) {
			struct qy_place here = { .seg = from.seg, .at = (size_t)(p - from.seg->data) };

			if (n == 1 || qy_place_match(here, bytes, n) == n)
				return (int64_t)(before + (uint64_t)(p - start));
			p++;
		}
		before += (uint64_t)(end - start);
	}
	return -1;
}

QUARRY_API int64_t quarry_chain_find(const quarry_chain *chain, uint64_t at, const void *bytes, size_t n)
{
	int64_t found;

	if (chain == NULL || bytes == NULL || n == 0)
		return qy_chain_fail_null();
	if (at > chain->len)
		return qy_chain_fail_range(chain, at, 0);
	found = qy_place_find(qy_chain_place(chain, at), bytes, n);
	if (found >= 0)
		return found + (int64_t)at;
	errno = ENOENT; /* no error's text: to ask is no mistake */
	return -1;
}

QUARRY_API int quarry_chain_compare(const quarry_chain *a, const quarry_chain *b)
{
	struct qy_place pa = { .seg = a != NULL ? a->first : NULL }, pb = { .seg = b != NULL ? b->first : NULL };

	while (pa.seg != NULL && pb.seg != NULL) {
		size_t len = qy_min(pa.seg->len - pa.at, pb.seg->len - pb.at);
		int order = memcmp(pa.seg->data + pa.at, pb.seg->data + pb.at, len);

		if (order != 0)
			return order;
		pa.at += len;
		pb.at += len;
		if (pa.at == pa.seg->len)
			pa = (struct qy_place){ .seg = pa.seg->next };
		if (pb.at == pb.seg->len)
			pb = (struct qy_place){ .seg = pb.seg->next };
	}
	return (pa.seg != NULL) - (pb.seg != NULL);
}

QUARRY_API int quarry_chain_compare_bytes(const quarry_chain *a, const void *p, size_t n)
{
	quarry_cseg seg = { .data = (unsigned char *)(uintptr_t)p, .len = n };
	quarry_chain b = { .first = &seg, .last = &seg, .len = n, .segs = 1 };

	return quarry_chain_compare(a, p == NULL || n == 0 ? NULL : &b);
}
