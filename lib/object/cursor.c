/* SPDX-License-Identifier: MIT */
/* Cursors. One has no count of its own: where it is follows from the index of the segment that it is in, so that going
 * on within a segment is one addition. At the end of a segment it stays there until bytes are wanted: they may be
 * appended to that one as well as behind it. */
#include <errno.h>

#include "lib/api/error.h"
#include "lib/object/chain.h"
#include "lib/object/copy.h"

#define VARINT_MAX 10 /* bytes of 64 bits by sevens */

static bool is_one(const quarry_cursor *cursor)
{
	return cursor != NULL && cursor->chain != NULL;
}

/* (To run out of bytes is no mistake: there is no text.) */
static int not_enough(void)
{
	errno = EAGAIN;
	return -1;
}

/* Where it is, as a place: at a byte, or at the end of the last segment. */
static struct qy_place place_of(const quarry_cursor *cursor)
{
	const quarry_cseg *seg = cursor->seg;
	struct qy_place place;

	if (seg == NULL)
		return (struct qy_place){ .seg = cursor->chain->first };
	place.seg = (quarry_cseg *)(uintptr_t)seg;
	place.at = (size_t)(cursor->p - seg->data);
	if (place.at == seg->len && seg->next != NULL)
		return (struct qy_place){ .seg = seg->next };
	return place;
}

static void go_to(quarry_cursor *cursor, struct qy_place place)
{
	cursor->seg = place.seg;
	cursor->p = place.seg != NULL ? place.seg->data + place.at : NULL;
}

/* n bytes further, which are there. */
static struct qy_place further(struct qy_place place, uint64_t n)
{
	while (n > 0 && n > place.seg->len - place.at) {
		n -= place.seg->len - place.at;
		place = (struct qy_place){ .seg = place.seg->next };
	}
	place.at += (size_t)n;
	return place;
}

QUARRY_API int quarry_cursor_init(quarry_cursor *cursor, const quarry_chain *chain)
{
	if (cursor == NULL || chain == NULL)
		return qy_chain_fail_null();
	cursor->chain = chain;
	go_to(cursor, (struct qy_place){ .seg = chain->first });
	return 0;
}

QUARRY_API uint64_t quarry_cursor_position(const quarry_cursor *cursor)
{
	const quarry_cseg *seg = is_one(cursor) ? cursor->seg : NULL;

	return seg == NULL ? 0 : seg->index - cursor->chain->origin + (uint64_t)(cursor->p - seg->data);
}

QUARRY_API uint64_t quarry_cursor_remaining(const quarry_cursor *cursor)
{
	return is_one(cursor) ? cursor->chain->len - quarry_cursor_position(cursor) : 0;
}

QUARRY_API int quarry_cursor_seek(quarry_cursor *cursor, uint64_t position)
{
	if (!is_one(cursor))
		return qy_chain_fail_null();
	if (position > cursor->chain->len)
		return qy_chain_fail_range(cursor->chain, position, 0);
	go_to(cursor, qy_chain_place(cursor->chain, position));
	return 0;
}

QUARRY_API int quarry_cursor_skip(quarry_cursor *cursor, uint64_t n)
{
	if (!is_one(cursor))
		return qy_chain_fail_null();
	if (n > quarry_cursor_remaining(cursor))
		return not_enough();
	if (n > 0)
		go_to(cursor, further(place_of(cursor), n));
	return 0;
}

QUARRY_API int quarry_cursor_unread(quarry_cursor *cursor, uint64_t n)
{
	struct qy_place place;

	if (!is_one(cursor))
		return qy_chain_fail_null();
	if (n > quarry_cursor_position(cursor))
		return qy_chain_fail_range(cursor->chain, quarry_cursor_position(cursor), n);
	for (place = place_of(cursor); n > place.at; place = (struct qy_place){ place.seg->prev, place.seg->prev->len })
		n -= place.at;
	place.at -= (size_t)n;
	go_to(cursor, place);
	return 0;
}

QUARRY_API int quarry_cursor_peek(const quarry_cursor *cursor, void *dst, size_t n)
{
	if (!is_one(cursor) || (dst == NULL && n > 0))
		return qy_chain_fail_null();
	if (n > quarry_cursor_remaining(cursor))
		return not_enough();
	qy_place_copy(place_of(cursor), dst, n);
	return 0;
}

QUARRY_API int quarry_cursor_read(quarry_cursor *cursor, void *dst, size_t n)
{
	const quarry_cseg *seg = is_one(cursor) ? cursor->seg : NULL;

	if (seg != NULL && dst != NULL && n <= (size_t)(seg->data + seg->len - cursor->p)) {
		qy_copy(dst, cursor->p, n);
		cursor->p += n;
		return 0;
	}
	return quarry_cursor_peek(cursor, dst, n) == 0 ? quarry_cursor_skip(cursor, n) : -1;
}

QUARRY_API const void *quarry_cursor_span(const quarry_cursor *cursor, size_t *n)
{
	struct qy_place place = { .seg = NULL };

	if (n == NULL || !is_one(cursor)) {
		qy_chain_fail_null();
		return NULL;
	}
	place = place_of(cursor);
	*n = place.seg != NULL ? place.seg->len - place.at : 0;
	return *n > 0 ? place.seg->data + place.at : NULL;
}

QUARRY_API int quarry_cursor_share(quarry_cursor *cursor, uint64_t n, quarry_chain *out)
{
	if (!is_one(cursor) || out == NULL || out == cursor->chain)
		return qy_chain_fail_null();
	if (n > quarry_cursor_remaining(cursor))
		return not_enough();
	if (n == 0)
		return 0;
	return qy_chain_share(place_of(cursor), n, out) == 0 ? quarry_cursor_skip(cursor, n) : -1;
}

QUARRY_API int quarry_cursor_is_next(quarry_cursor *cursor, const void *bytes, size_t n)
{
	uint64_t there;
	size_t alike;

	if (!is_one(cursor) || (bytes == NULL && n > 0))
		return qy_chain_fail_null();
	there = quarry_cursor_remaining(cursor);
	alike = qy_place_match(place_of(cursor), bytes, n);
	if (alike < n)
		return alike == there ? not_enough() : 0;
	return quarry_cursor_skip(cursor, n) == 0;
}

QUARRY_API int64_t quarry_cursor_find(const quarry_cursor *cursor, const void *delimiter, size_t n)
{
	int64_t found;

	if (!is_one(cursor) || delimiter == NULL || n == 0)
		return qy_chain_fail_null();
	found = qy_place_find(place_of(cursor), delimiter, n);
	return found >= 0 ? found : not_enough();
}

QUARRY_API int quarry_cursor_read_to(quarry_cursor *cursor, const void *delimiter, size_t n, void *dst, size_t room,
				     size_t *got)
{
	int64_t before;

	if ((dst == NULL && room > 0) || got == NULL)
		return qy_chain_fail_null();
	before = quarry_cursor_find(cursor, delimiter, n);
	if (before < 0)
		return -1;
	*got = (size_t)before;
	if (*got > room)
		return qy_fail(ERANGE, "room: %lu bytes, and the delimiter comes after %lu", (unsigned long)room,
			       (unsigned long)*got);
	if (*got > 0)
		qy_place_copy(place_of(cursor), dst, *got);
	return quarry_cursor_skip(cursor, *got + n);
}

QUARRY_API int quarry_cursor_varint(quarry_cursor *cursor, uint64_t *value)
{
	unsigned char raw[VARINT_MAX];
	size_t n = (size_t)qy_min(quarry_cursor_remaining(cursor), VARINT_MAX);
	uint64_t sum = 0;

	if (!is_one(cursor) || value == NULL)
		return qy_chain_fail_null();
	quarry_cursor_look(cursor, raw, n);
	for (size_t i = 0; i < n; i++) {
		sum |= (uint64_t)(raw[i] & 0x7f) << (7 * i);
		if (i == VARINT_MAX - 1 && raw[i] > 1)
			return qy_fail(EOVERFLOW, "value: it has more than 64 bits");
		if (raw[i] & 0x80)
			continue;
		*value = sum;
		return quarry_cursor_skip(cursor, i + 1);
	}
	return not_enough();
}

/* The cursor is where it belongs before anything is released: what is called then may look at both. It may also change the
 * chain, and its records are others' then: so the cursor goes to the beginning of what it has left. */
QUARRY_API int quarry_cursor_trim(quarry_cursor *cursor, quarry_chain *chain)
{
	const quarry_cseg *first;
	const unsigned char *p;
	quarry_cseg *off;
	uint64_t origin;

	if (!is_one(cursor) || chain != cursor->chain)
		return qy_fail(EINVAL, "chain: it is not the cursor's");
	off = qy_chain_take_front(chain, quarry_cursor_position(cursor));
	go_to(cursor, (struct qy_place){ .seg = chain->first });
	first = cursor->seg;
	p = cursor->p;
	origin = chain->origin;
	qy_csegs_free(off);
	if (chain->first != first || chain->origin != origin || (first != NULL && first->data != p))
		go_to(cursor, (struct qy_place){ .seg = chain->first });
	return 0;
}
