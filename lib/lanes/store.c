/* SPDX-License-Identifier: MIT */
/* Values behind handles, and sequences, queues and rented objects made of them: as any program could, by the public functions. */
#include "include/quarry/store.h"

#include <errno.h>
#include <string.h>

#include "lib/api/error.h"
#include "lib/lanes/lanes.h"

#define ROOM 8 /* elements that a sequence or queue begins with */

/* ---- values ---- */

quarry_handle quarry_store(quarry_lanes *l, const void *bytes, size_t size)
{
	quarry_handle h;

	if (bytes == NULL) {
		(void)qy_fail(EINVAL, "bytes: NULL");
		return 0;
	}
	h = quarry_halloc(l, size);
	if (h != 0)
		(void)quarry_hwrite(l, h, 0, bytes, size);
	return h;
}

quarry_handle quarry_halloc_array(quarry_lanes *l, size_t count, size_t size)
{
	quarry_handle h;
	size_t bytes;
	void *p;

	if (__builtin_mul_overflow(count, size, &bytes)) {
		(void)qy_fail(ENOMEM, "%lu elements of %lu bytes are too many", (unsigned long)count, (unsigned long)size);
		return 0;
	}
	h = quarry_halloc(l, bytes);
	if (h == 0)
		return 0;
	quarry_enter();
	p = quarry_get_mut(l, h);
	if (p != NULL)
		memset(p, 0, quarry_hsize(l, h));
	quarry_leave();
	return h;
}

quarry_handle quarry_store_string(quarry_lanes *l, const char *text)
{
	return quarry_store(l, text, text == NULL ? 0 : strlen(text) + 1);
}

const void *quarry_get_span(quarry_lanes *l, quarry_handle h, size_t *size)
{
	const void *p = qy_get_sized(l, h, size);

	*size = p == NULL ? 0 : *size;
	return p;
}

const char *quarry_get_string(quarry_lanes *l, quarry_handle h)
{
	size_t size;
	const char *p = quarry_get_span(l, h, &size);

	if (p != NULL && memchr(p, 0, size) == NULL) {
		(void)qy_fail(EILSEQ, "the object has no 0");
		return NULL;
	}
	return p;
}

int quarry_hread(quarry_lanes *l, quarry_handle h, size_t offset, void *to, size_t size)
{
	const void *p;

	quarry_enter();
	p = quarry_get_range(l, h, offset, size);
	if (p != NULL)
		memcpy(to, p, size);
	quarry_leave();
	return p == NULL ? -1 : 0;
}

int quarry_hwrite(quarry_lanes *l, quarry_handle h, size_t offset, const void *from, size_t size)
{
	char *p;

	quarry_enter();
	p = quarry_get_mut(l, h); /* (first: there is to be no copy of what is cold) */
	if (p != NULL && quarry_get_range(l, h, offset, size) == NULL)
		p = NULL;
	if (p != NULL)
		memcpy(p + offset, from, size);
	quarry_leave();
	return p == NULL ? -1 : 0;
}

int64_t quarry_hfree_many(quarry_lanes *l, const quarry_handle *h, size_t count)
{
	int64_t freed = 0;
	int error = errno;

	if (!qy_lanes_check(l))
		return -1;
	if (h == NULL && count > 0)
		return qy_fail(EINVAL, "handles: NULL, for %lu", (unsigned long)count);
	for (size_t i = 0; i < count; i++)
		freed += quarry_hfree(l, h[i]) == 0;
	errno = error;
	return freed;
}

/* ---- sequences ---- */

int quarry_seq_init(quarry_seq *s, quarry_lanes *l, size_t size)
{
	if (s != NULL)
		*s = (quarry_seq){ 0 };
	if (s == NULL || size == 0 || !qy_lanes_check(l))
		return qy_fail(EINVAL, "no sequence, no lanes, or elements of no bytes");
	*s = (quarry_seq){ .lanes = l, .size = size };
	return 0;
}

/* Room for twice as many elements, of which those that are there stand at its beginning, from `first` on around the end of the
 * old ones. False: ENOMEM. */
static bool grow(quarry_lanes *l, quarry_handle *data, size_t size, size_t first, size_t count, size_t *room, size_t most)
{
	size_t more = *room == 0 ? ROOM : *room * 2, bytes, part = qy_min(count, *room - first);
	quarry_handle next;
	const char *from;
	char *to;

	more = most == 0 ? more : qy_min(more, most);
	if (__builtin_mul_overflow(more, size, &bytes)) {
		(void)qy_fail(ENOMEM, "%lu elements of %lu bytes are too many", (unsigned long)more, (unsigned long)size);
		return false;
	}
	next = quarry_halloc(l, bytes);
	if (next == 0)
		return false;
	if (count > 0) {
		quarry_enter();
		to = quarry_get_mut(l, next);
		from = quarry_get(l, *data);
		if (to != NULL && from != NULL) {
			memcpy(to, from + first * size, part * size);
			memcpy(to + part * size, from, (count - part) * size);
		}
		quarry_leave();
		if (to == NULL || from == NULL) {
			(void)quarry_hfree(l, next);
			return false;
		}
	}
	if (*data != 0)
		(void)quarry_hfree(l, *data);
	*data = next;
	*room = more;
	return true;
}

static int no_such(size_t index, size_t count)
{
	return qy_fail(ERANGE, "there is no element %lu of %lu", (unsigned long)index, (unsigned long)count);
}

int quarry_seq_insert(quarry_seq *s, size_t index, const void *element)
{
	char *p;

	if (index > s->count)
		return no_such(index, s->count);
	if (s->count == s->room && !grow(s->lanes, &s->data, s->size, 0, s->count, &s->room, 0))
		return -1;
	quarry_enter();
	p = quarry_get_mut(s->lanes, s->data);
	if (p != NULL) {
		memmove(p + (index + 1) * s->size, p + index * s->size, (s->count - index) * s->size);
		memcpy(p + index * s->size, element, s->size);
		s->count++;
	}
	quarry_leave();
	return p == NULL ? -1 : 0;
}

int quarry_seq_remove(quarry_seq *s, size_t index, void *element)
{
	char *p;

	if (index >= s->count)
		return no_such(index, s->count);
	quarry_enter();
	p = quarry_get_mut(s->lanes, s->data);
	if (p != NULL) {
		if (element != NULL)
			memcpy(element, p + index * s->size, s->size);
		s->count--;
		memmove(p + index * s->size, p + (index + 1) * s->size, (s->count - index) * s->size);
	}
	quarry_leave();
	return p == NULL ? -1 : 0;
}

int quarry_seq_push(quarry_seq *s, const void *element)
{
	return quarry_seq_insert(s, s->count, element);
}

int quarry_seq_pop(quarry_seq *s, void *element)
{
	return quarry_seq_remove(s, s->count - 1, element);
}

static bool has(const quarry_seq *s, size_t index, size_t count)
{
	return index <= s->count && count <= s->count - index;
}

int quarry_seq_get(const quarry_seq *s, size_t index, size_t count, void *elements)
{
	if (!has(s, index, count))
		return no_such(index, s->count);
	return count == 0 ? 0 : quarry_hread(s->lanes, s->data, index * s->size, elements, count * s->size);
}

int quarry_seq_set(quarry_seq *s, size_t index, size_t count, const void *elements)
{
	if (!has(s, index, count))
		return no_such(index, s->count);
	return count == 0 ? 0 : quarry_hwrite(s->lanes, s->data, index * s->size, elements, count * s->size);
}

int quarry_seq_end(quarry_seq *s)
{
	if (s == NULL || s->size == 0)
		return qy_fail(EINVAL, "this is no sequence");
	if (s->data != 0 && quarry_hfree(s->lanes, s->data) != 0 && errno == EBADMSG)
		return -1;
	s->data = 0;
	s->count = s->room = 0;
	return 0;
}

/* ---- queues ---- */

int quarry_ring_init(quarry_ring *r, quarry_lanes *l, size_t size, size_t most, uint32_t flags)
{
	if (r != NULL)
		*r = (quarry_ring){ 0 };
	if (r == NULL || size == 0 || !qy_lanes_check(l) || (flags & ~QUARRY_RING_OVERWRITE) != 0 || (flags != 0 && most == 0))
		return qy_fail(EINVAL, "no queue, no lanes, elements of no bytes, or flags");
	*r = (quarry_ring){ .lanes = l, .size = size, .most = most, .flags = flags };
	return 0;
}

int quarry_ring_push(quarry_ring *r, const void *element)
{
	if (r->most != 0 && r->count == r->most) {
		if (!(r->flags & QUARRY_RING_OVERWRITE))
			return qy_fail(EAGAIN, "it is full");
		(void)quarry_ring_pop(r, NULL);
	}
	if (r->count == r->room) {
		if (!grow(r->lanes, &r->data, r->size, r->first, r->count, &r->room, r->most))
			return -1;
		r->first = 0;
	}
	if (quarry_hwrite(r->lanes, r->data, (r->first + r->count) % r->room * r->size, element, r->size) != 0)
		return -1;
	r->count++;
	return 0;
}

int quarry_ring_peek(const quarry_ring *r, size_t index, void *element)
{
	if (index >= r->count)
		return no_such(index, r->count);
	return quarry_hread(r->lanes, r->data, (r->first + index) % r->room * r->size, element, r->size);
}

int quarry_ring_pop(quarry_ring *r, void *element)
{
	if (r->count == 0)
		return no_such(0, 0);
	if (element != NULL && quarry_ring_peek(r, 0, element) != 0)
		return -1;
	r->first = (r->first + 1) % r->room;
	r->count--;
	return 0;
}

int quarry_ring_end(quarry_ring *r)
{
	if (r == NULL || r->size == 0)
		return qy_fail(EINVAL, "this is no queue");
	if (r->data != 0 && quarry_hfree(r->lanes, r->data) != 0 && errno == EBADMSG)
		return -1;
	r->data = 0;
	r->first = r->count = r->room = 0;
	return 0;
}

/* ---- rented ---- */

quarry_rented quarry_rent(quarry_lanes *l, size_t size)
{
	quarry_rented r = { .lanes = l, .handle = quarry_halloc(l, size) };

	if (r.handle != 0)
		r.at = quarry_pin(l, r.handle);
	if (r.at == NULL && r.handle != 0)
		(void)quarry_hfree(l, r.handle);
	return r;
}

void quarry_rent_end(quarry_rented *r)
{
	if (r->at == NULL)
		return;
	(void)quarry_hfree(r->lanes, r->handle);
	(void)quarry_unpin(r->lanes, r->handle);
	r->at = NULL;
}
