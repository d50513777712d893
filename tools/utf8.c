/* SPDX-License-Identifier: MIT */
#include "tools/utf8.h"

#include <string.h>

size_t utf8_decode(const char *s, size_t n, uint32_t *c)
{
	const unsigned char *u = (const unsigned char *)s;
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t length;

	if (n == 0)
		return 0;
	length = u[0] < 0x80 ? 1 : (u[0] & 0xe0) == 0xc0 ? 2 : (u[0] & 0xf0) == 0xe0 ? 3 : (u[0] & 0xf8) == 0xf0 ? 4 : 0;
	if (length == 0 || length > n)
		return 0;
	*c = length == 1 ? u[0] : u[0] & (0x7fu >> length);
	for (size_t i = 1; i < length; i++) {
		if ((u[i] & 0xc0) != 0x80)
			return 0;
		*c = *c << 6 | (u[i] & 0x3f);
	}
	if (*c < least[length] || *c > 0x10ffff || (*c >= 0xd800 && *c < 0xe000))
		return 0;
	return length;
}

size_t utf8_encode(uint32_t c, char bytes[4])
{
	static const unsigned char lead[] = { 0, 0, 0xc0, 0xe0, 0xf0 };
	size_t length = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;

	for (size_t i = length; i-- > 1; c >>= 6)
		bytes[i] = (char)(0x80 | (c & 0x3f));
	bytes[0] = (char)(lead[length] | c);
	return length;
}

bool utf8_shows(uint32_t c)
{
	if (c < 0x20 || (c >= 0x7f && c < 0xa0))
		return false;
	if ((c >= 0x200b && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) || (c >= 0x2060 && c <= 0x206f))
		return false;
	return c != 0xfeff && !(c >= 0xfff0 && c < 0xfffd) && (c & 0xfffe) != 0xfffe && !(c >= 0xe000 && c < 0xf900) &&
	       c < 0xe0000;
}

/* The character at s, which is one that may be shown, or else a ?; how many bytes of s it stands for. */
static size_t next_shown(const char *s, size_t n, const char **shown, size_t *length)
{
	uint32_t c;

	*length = utf8_decode(s, n, &c);
	*shown = *length && utf8_shows(c) ? s : "?";
	n = *length ? *length : 1;
	*length = *shown == s ? n : 1;
	return n;
}

static size_t characters(const char *text, size_t n)
{
	const char *shown;
	size_t count = 0, length;

	for (size_t i = 0; i < n; count++)
		i += next_shown(text + i, n - i, &shown, &length);
	return count;
}

size_t utf8_put(FILE *out, const char *text, size_t most)
{
	size_t n = strlen(text), count = characters(text, n), whole = count > most ? most - 3 : count;

	for (size_t i = 0, k = 0; k < whole; k++) {
		const char *shown;
		size_t length;

		i += next_shown(text + i, n - i, &shown, &length);
		fwrite(shown, 1, length, out);
	}
	if (count <= most)
		return count;
	fputs("...", out);
	return most;
}

const char *utf8_shown(const char *text)
{
	static char line[256];
	size_t n = strlen(text), used = 0;

	for (size_t i = 0; i < n && used < sizeof(line) - 4;) {
		const char *shown;
		size_t length;

		i += next_shown(text + i, n - i, &shown, &length);
		memcpy(line + used, shown, length);
		used += length;
	}
	line[used] = '\0';
	return line;
}
