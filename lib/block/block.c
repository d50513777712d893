/* SPDX-License-Identifier: MIT */
#include "lib/block/block.h"

#include <string.h>

static void set_length(struct qy_block *h, uint32_t length)
{
	h->length = (h->length & ~QY_BLOCK_LENGTH_MAX) | length;
}

static void set_previous(struct qy_block *h, uint32_t length)
{
	h->previous = (h->previous & ~QY_BLOCK_LENGTH_MAX) | length;
}

static void set_flag(struct qy_block *h, uint32_t flag, bool on)
{
	h->length = on ? h->length | flag : h->length & ~flag;
}

/* Tell the block after b how long b is. */
static void tell_next(const struct qy_block_map *map, qy_page b)
{
	if (!qy_block_last(map, b))
		set_previous(qy_block_at(map, qy_block_next(map, b)), qy_block_length(map, b));
}

void qy_block_format(const struct qy_block_map *map, qy_page b, uint32_t length, bool clean)
{
	struct qy_block *h = qy_block_at(map, b);

	qy_assert(length > 0 && length <= QY_BLOCK_LENGTH_MAX && h->length == 0);
	h->length = length | QY_BLOCK_FIRST | QY_BLOCK_LAST | (clean ? QY_BLOCK_CLEAN : 0);
	h->previous = 0;
	h->link[0] = h->link[1] = 0;
}

void qy_block_erase(const struct qy_block_map *map, qy_page b)
{
	qy_assert(qy_block_first(map, b) && qy_block_last(map, b));
	memset(qy_block_at(map, b), 0, sizeof(struct qy_block));
}

void qy_block_set_used(const struct qy_block_map *map, qy_page b, bool used)
{
	qy_assert(qy_block_is(map, b));
	set_flag(qy_block_at(map, b), QY_BLOCK_USED, used);
}

void qy_block_set_clean(const struct qy_block_map *map, qy_page b, bool clean)
{
	qy_assert(qy_block_is(map, b));
	set_flag(qy_block_at(map, b), QY_BLOCK_CLEAN, clean);
}

void qy_block_set_tag(const struct qy_block_map *map, qy_page b, unsigned tag)
{
	struct qy_block *h = qy_block_at(map, b);

	qy_assert(qy_block_is(map, b) && tag < 16);
	h->previous = (h->previous & QY_BLOCK_LENGTH_MAX) | tag << QY_BLOCK_LENGTH_BITS;
}

qy_page qy_block_split(const struct qy_block_map *map, qy_page b, uint32_t length)
{
	struct qy_block *h = qy_block_at(map, b), *second = qy_block_at(map, b + length);

	qy_assert(length > 0 && length < qy_block_length(map, b) && second->length == 0);
	second->length = (h->length & ~(QY_BLOCK_LENGTH_MAX | QY_BLOCK_FIRST)) | (qy_block_length(map, b) - length);
	second->previous = (h->previous & ~QY_BLOCK_LENGTH_MAX) | length;
	second->link[0] = second->link[1] = 0;
	set_length(h, length);
	set_flag(h, QY_BLOCK_LAST, false);
	tell_next(map, b + length);
	return b + length;
}

static bool alike(const struct qy_block_map *map, qy_page a, qy_page b)
{
	return ((qy_block_at(map, a)->length ^ qy_block_at(map, b)->length) & QY_BLOCK_CLEAN) == 0 &&
	       !qy_block_used(map, a) && !qy_block_used(map, b);
}

bool qy_block_joins_next(const struct qy_block_map *map, qy_page b)
{
	return !qy_block_last(map, b) && alike(map, b, qy_block_next(map, b));
}

bool qy_block_joins_prev(const struct qy_block_map *map, qy_page b)
{
	return !qy_block_first(map, b) && alike(map, b, qy_block_prev(map, b));
}

void qy_block_absorb_next(const struct qy_block_map *map, qy_page b)
{
	struct qy_block *h = qy_block_at(map, b), *n = qy_block_at(map, qy_block_next(map, b));
	uint32_t length = qy_block_length(map, b) + (n->length & QY_BLOCK_LENGTH_MAX);

	if (!(n->length & QY_BLOCK_CLEAN))
		set_flag(h, QY_BLOCK_CLEAN, false);
	set_flag(h, QY_BLOCK_LAST, n->length & QY_BLOCK_LAST);
	memset(n, 0, sizeof(*n));
	set_length(h, length);
	tell_next(map, b);
}

qy_page qy_block_coalesce(const struct qy_block_map *map, qy_page b, void (*unlink)(void *ctx, qy_page n), void *ctx)
{
	qy_assert(!qy_block_used(map, b));
	if (qy_block_joins_next(map, b)) {
		unlink(ctx, qy_block_next(map, b));
		qy_block_absorb_next(map, b);
	}
	if (qy_block_joins_prev(map, b)) {
		b = qy_block_prev(map, b);
		unlink(ctx, b);
		qy_block_absorb_next(map, b);
	}
	return b;
}

long qy_block_check(const struct qy_block_map *map, qy_page first, uint32_t length, qy_page *bad)
{
	long count = 0;
	uint32_t before = 0;

	for (qy_page b = first; b < first + length; count++) {
		uint32_t n = qy_block_length(map, b);

		*bad = b;
		if (n == 0 || n > first + length - b || qy_block_first(map, b) != (b == first) ||
		    qy_block_last(map, b) != (b + n == first + length) ||
		    (qy_block_at(map, b)->previous & QY_BLOCK_LENGTH_MAX) != before)
			return -1;
		for (uint32_t i = 1; i < n; i++)
			if (qy_block_at(map, b + i)->length != 0)
				return -1;
		before = n;
		b += n;
	}
	return count;
}
