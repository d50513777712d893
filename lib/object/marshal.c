/* SPDX-License-Identifier: MIT */
/* What is written to write slabs beside plain bytes: numbers, and lengths that are known only later. */
#include <errno.h>

#include "lib/api/error.h"
#include "lib/object/wslab.h"

QUARRY_API int quarry_wslab_put_varint(quarry_wslab *w, uint64_t value)
{
	unsigned char raw[10];
	size_t n = 0;

	for (; value > 127; value >>= 7)
		raw[n++] = (unsigned char)(value | 128);
	raw[n++] = (unsigned char)value;
	return quarry_wslab_write(w, raw, n);
}

QUARRY_API int quarry_wslab_prefix_begin(quarry_wslab *w, quarry_wslab_prefix *prefix, unsigned width)
{
	quarry_wslab_prefix made = { .width = width };

	if (prefix == NULL || (width != 1 && width != 2 && width != 4 && width != 8))
		return qy_fail(EINVAL, "width: %u, and it can be 1, 2, 4 or 8; or prefix is NULL", width);
	if (w != NULL && w->prefixes == QUARRY_WSLAB_NESTED)
		return qy_fail(EOVERFLOW, "prefix: %d are open, one in the other", QUARRY_WSLAB_NESTED);
	made.at = quarry_wslab_reserve(w, width);
	if (made.at == NULL)
		return -1;
	for (unsigned i = 0; i < 2; i++) {
		made.tail[i] = w->half[i].tail;
		made.state[i] = w->half[i].state;
	}
	made.more = w->more.len;
	if (quarry_wslab_advance(w, width) != 0)
		return -1;
	made.written = w->written;
	made.serial = ++w->serial;
	made.depth = w->prefixes++;
	w->open[made.depth] = made.serial;
	*prefix = made;
	return 0;
}

/* Its serial says so: the slab may have been reset since, or one that it was in taken back, and another be where it
 * was. */
static bool is_open(const quarry_wslab *w, const quarry_wslab_prefix *prefix)
{
	return w != NULL && prefix != NULL && prefix->at != NULL && prefix->depth < w->prefixes &&
	       w->open[prefix->depth] == prefix->serial;
}

QUARRY_API int quarry_wslab_prefix_end(quarry_wslab *w, quarry_wslab_prefix *prefix, int big_endian)
{
	uint64_t n;

	if (!is_open(w, prefix) || prefix->depth + 1 != w->prefixes)
		return qy_fail(EINVAL, "prefix: it is not open, or one in it is");
	n = w->written - prefix->written;
	if (prefix->width < 8 && n >> (8 * prefix->width) != 0)
		return qy_fail(EOVERFLOW, "prefix: %lu bytes do not fit %u bytes of length", (unsigned long)n,
			       (unsigned)prefix->width);
	for (unsigned i = 0; i < prefix->width; i++)
		prefix->at[big_endian ? prefix->width - 1 - i : i] = (unsigned char)(n >> 8 * i);
	w->prefixes--;
	prefix->at = NULL;
	return 0;
}

/* No flush began since: what was being filled still is, or is full; what was not, and is now, came after. */
QUARRY_API int quarry_wslab_prefix_cancel(quarry_wslab *w, quarry_wslab_prefix *prefix)
{
	if (!is_open(w, prefix))
		return qy_fail(EINVAL, "prefix: it is not open");
	qy_wslab_forget_reserved(w);
	for (unsigned i = 0; i < 2; i++) {
		quarry_wslab_half *h = &w->half[i];

		if (h->state != QY_WSLAB_FILLED && h->state != QY_WSLAB_FULL)
			continue;
		if (prefix->state[i] == QY_WSLAB_FILLED || prefix->state[i] == QY_WSLAB_FULL) {
			h->tail = prefix->tail[i];
			h->state = prefix->state[i];
		} else {
			h->tail = 0;
			h->state = QY_WSLAB_EMPTY;
		}
	}
	quarry_chain_trim_back(&w->more, w->more.len - prefix->more);
	w->written = prefix->written - prefix->width;
	w->prefixes = prefix->depth;
	prefix->at = NULL;
	return 0;
}
