/* SPDX-License-Identifier: MIT */
/* Gzip: by zlib, or without it what quarry writes, which is packed and not compressed. */
#include "tools/flame.h"

#include <stdlib.h>
#include <string.h>

#if QUARRY_ZLIB
#include <zlib.h>

bool flame_has_zlib(void)
{
	return true;
}

static bool more_room(char **text, size_t used, size_t *size, const char **error)
{
	size_t more = *size ? 2 * *size : 65536;
	char *room;

	if (used < *size)
		return true;
	if (more > FLAME_UNPACKED_MAX) {
		*error = "more than 256 MiB when it is unpacked";
		return false;
	}
	room = realloc(*text, more + 1);
	if (!room) {
		*error = "no memory";
		return false;
	}
	*text = room;
	*size = more;
	return true;
}

static bool inflate_all(z_stream *z, char **text, size_t *unpacked, const char **error)
{
	size_t size = 0;
	int result = Z_OK;

	*unpacked = 0;
	while (result != Z_STREAM_END) {
		if (!more_room(text, *unpacked, &size, error))
			return false;
		z->next_out = (Bytef *)*text + *unpacked;
		z->avail_out = (uInt)(size - *unpacked);
		result = inflate(z, Z_NO_FLUSH);
		*unpacked = size - z->avail_out;
		if (result != Z_OK && result != Z_STREAM_END) {
			*error = result == Z_BUF_ERROR ? "the gzip file ends in the middle" : "damaged gzip";
			return false;
		}
		/* (A file may be several, one after the other.) */
		if (result == Z_STREAM_END && z->avail_in > 0)
			result = inflateReset(z);
	}
	return true;
}

bool flame_unpack(const uint8_t *data, size_t length, char **text, size_t *unpacked, const char **error)
{
	z_stream z = { .next_in = (Bytef *)data, .avail_in = (uInt)length };
	bool done;

	*text = NULL;
	if (length > FLAME_UNPACKED_MAX || inflateInit2(&z, 16 + MAX_WBITS) != Z_OK) {
		*error = length > FLAME_UNPACKED_MAX ? "more than 256 MiB" : "no memory";
		return false;
	}
	done = inflate_all(&z, text, unpacked, error);
	inflateEnd(&z);
	return done;
}

#else

bool flame_has_zlib(void)
{
	return false;
}

/* Stored blocks (RFC 1951, 3.2.4) behind a head without extras; the sum at the end is not looked at. */
bool flame_unpack(const uint8_t *data, size_t length, char **text, size_t *unpacked, const char **error)
{
	size_t at = 10;
	bool last = false;

	*unpacked = 0;
	*text = malloc(length + 1);
	*error = "no memory";
	if (!*text)
		return false;
	*error = "the gzip file ends in the middle";
	while (!last) {
		size_t n;

		if (length < 10 || length - at < 5)
			return false;
		if (data[3] || (data[at] & 6) != 0) {
			*error = "compressed gzip, and this quarry was built without zlib: gunzip it first";
			return false;
		}
		last = data[at] & 1;
		n = data[at + 1] | (size_t)data[at + 2] << 8;
		if (n > length - at - 5)
			return false;
		memcpy(*text + *unpacked, data + at + 5, n);
		*unpacked += n;
		at += 5 + n;
	}
	*error = NULL;
	return true;
}
#endif
