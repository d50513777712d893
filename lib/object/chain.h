/* SPDX-License-Identifier: MIT */
/* What the parts of chains share: segments in and out of a chain, and a place in one.
 *
 * Of a chain always: no segment is empty; first is NULL exactly when last is, and then len and segs are 0; a segment's
 * index is the one before's plus its len, and the first's is origin (they may wrap round); len is the sum of the
 * segments', and at most QY_CHAIN_TOP. Each segment has one share of its storage. */
#ifndef QUARRY_OBJECT_CHAIN_H
#define QUARRY_OBJECT_CHAIN_H

#include "include/quarry/chain.h"
#include "lib/object/storage.h"

#define QY_CHAIN_TOP ((uint64_t)INT64_MAX) /* bytes: more could not be told */

/* A byte of a chain: seg->data[at]; or its end: seg NULL, or at == seg->len of the last. */
struct qy_place {
	quarry_cseg *seg;
	size_t at;
};

/* A segment of a storage, whose share it takes over from the caller; in no chain yet. NULL with ENOMEM. */
QY_INLINE quarry_cseg *qy_cseg_make(quarry_storage *storage, unsigned char *data, size_t len)
{
	quarry_cseg *seg = qy_record_get();

	if (QY_UNLIKELY(seg == NULL))
		return NULL;
	seg->data = data;
	seg->len = len;
	seg->storage = storage;
	return seg;
}

QY_INLINE void qy_cseg_free(quarry_cseg *seg)
{
	quarry_storage *storage = seg->storage;

	qy_record_put(seg);
	qy_storage_let_go(storage);
}

/* 0 when a chain may have n bytes more; -1, with the thread's error set: EOVERFLOW. */
int qy_chain_fail_long(const quarry_chain *c, uint64_t n) __attribute__((cold));

QY_INLINE int qy_chain_fits(const quarry_chain *c, uint64_t n)
{
	return QY_LIKELY(n <= QY_CHAIN_TOP - c->len) ? 0 : qy_chain_fail_long(c, n);
}

QY_INLINE void qy_chain_push_back(quarry_chain *c, quarry_cseg *seg)
{
	seg->index = c->origin + c->len;
	seg->next = NULL;
	seg->prev = c->last;
	if (c->last != NULL)
		c->last->next = seg;
	else
		c->first = seg;
	c->last = seg;
	c->len += seg->len;
	c->segs++;
}

QY_INLINE void qy_chain_push_front(quarry_chain *c, quarry_cseg *seg)
{
	c->origin -= seg->len;
	seg->index = c->origin;
	seg->prev = NULL;
	seg->next = c->first;
	if (c->first != NULL)
		c->first->prev = seg;
	else
		c->last = seg;
	c->first = seg;
	c->len += seg->len;
	c->segs++;
}

/* Take n bytes off the front, which are there. What is left over is to be freed by qy_csegs_free. */
quarry_cseg *qy_chain_take_front(quarry_chain *c, uint64_t n);
void qy_csegs_free(quarry_cseg *seg);

/* The place of a byte, at not more than the chain's length; by the nearer end. At its length, the end. */
struct qy_place qy_chain_place(const quarry_chain *c, uint64_t at);

/* Append n bytes from a place on, which are there, to a chain, by sharing. 0; -1 with ENOMEM or EOVERFLOW. */
int qy_chain_share(struct qy_place from, uint64_t n, quarry_chain *out);

/* Copy n bytes from a place on, which are there. */
void qy_place_copy(struct qy_place from, void *dst, size_t n);

/* How far from a place bytes begin; -1: nowhere. It takes time as the chain's length, and times n where the first of
 * the bytes is in most places. */
int64_t qy_place_find(struct qy_place from, const void *bytes, size_t n);

/* n when as many bytes are alike from a place on and at bytes. When they differ, less than n, and less than are there;
 * otherwise as many as are there. */
size_t qy_place_match(struct qy_place from, const void *bytes, size_t n);

/* -1, with the thread's error set: EINVAL, ERANGE. */
int qy_chain_fail_null(void) __attribute__((cold));
int qy_chain_fail_range(const quarry_chain *c, uint64_t at, uint64_t n) __attribute__((cold));

#endif
