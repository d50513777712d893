/* SPDX-License-Identifier: MIT */
#include "tools/json.h"

#include <stdio.h>
#include <string.h>

#include "tools/utf8.h"

void json_init(struct json *j, const char *text, size_t length)
{
	memset(j, 0, sizeof(*j));
	j->start = j->at = text;
	j->end = text + length;
}

bool json_fail(struct json *j, const char *error)
{
	if (!j->error) {
		j->error = error;
		snprintf(j->about, sizeof(j->about), "%s", j->key);
	}
	return false;
}

unsigned long json_line(const struct json *j)
{
	unsigned long line = 1;

	for (const char *c = j->start; c < j->at; c++)
		line += *c == '\n';
	return line;
}

static void skip_space(struct json *j)
{
	while (j->at < j->end && (*j->at == ' ' || *j->at == '\t' || *j->at == '\n' || *j->at == '\r'))
		j->at++;
}

/* The character that stands here, after space; 0 at the end. */
static char here(struct json *j)
{
	skip_space(j);
	return !j->error && j->at < j->end ? *j->at : '\0';
}

static bool expect(struct json *j, char c, const char *error)
{
	if (here(j) != c)
		return json_fail(j, j->at == j->end ? "the file ends in the middle" : error);
	j->at++;
	return true;
}

bool json_enter(struct json *j, char open)
{
	if (!expect(j, open, open == '{' ? "not an object" : "not an array"))
		return false;
	if (++j->depth > JSON_DEPTH_MAX)
		return json_fail(j, "nested too deep");
	return true;
}

/* ---- strings ---- */

struct bytes {
	char *at;
	size_t size, used;
};

static void put(struct bytes *out, const char *bytes, size_t n)
{
	if (out->used + n < out->size) {
		memcpy(out->at + out->used, bytes, n);
		out->used += n;
	} else {
		out->size = out->used + 1; /* cut between characters: nothing may follow what found no room */
	}
}

static bool hex4(struct json *j, uint32_t *value)
{
	*value = 0;
	for (int i = 0; i < 4; i++, j->at++) {
		const char *digits = "0123456789abcdef", *digit;

		if (j->at == j->end || *j->at == '\0')
			return json_fail(j, "a \\u without four digits");
		digit = strchr(digits, *j->at >= 'A' && *j->at <= 'F' ? *j->at - 'A' + 'a' : *j->at);
		if (!digit)
			return json_fail(j, "a \\u without four digits");
		*value = *value * 16 + (uint32_t)(digit - digits);
	}
	return true;
}

/* What follows "\u". */
static bool unicode_escape(struct json *j, struct bytes *out)
{
	uint32_t c, low;
	char utf8[4];

	if (!hex4(j, &c))
		return false;
	if (c >= 0xd800 && c < 0xdc00 && j->end - j->at >= 6 && j->at[0] == '\\' && j->at[1] == 'u') {
		const char *back = j->at;

		j->at += 2;
		if (!hex4(j, &low))
			return false;
		if (low >= 0xdc00 && low < 0xe000)
			c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
		else
			j->at = back;
	}
	if (c == 0 || (c >= 0xd800 && c < 0xe000))
		c = UTF8_REPLACEMENT;
	put(out, utf8, utf8_encode(c, utf8));
	return true;
}

static bool escape(struct json *j, struct bytes *out)
{
	static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
	const char *name;

	if (j->at == j->end)
		return json_fail(j, "the file ends in the middle");
	if (*j->at == 'u') {
		j->at++;
		return unicode_escape(j, out);
	}
	name = *j->at ? strchr(names, *j->at) : NULL;
	if (!name)
		return json_fail(j, "an unknown escape in a string");
	j->at++;
	put(out, &values[name - names], 1);
	return true;
}

bool json_string(struct json *j, char *string, size_t size)
{
	struct bytes out = { string, size, 0 };

	if (!expect(j, '"', "not a string"))
		return false;
	for (;;) {
		uint32_t c;
		size_t n;

		if (j->at == j->end)
			return json_fail(j, "the file ends in the middle of a string");
		if (*j->at == '"')
			break;
		if ((unsigned char)*j->at < 0x20)
			return json_fail(j, "a control character in a string");
		if (*j->at == '\\') {
			j->at++;
			if (!escape(j, &out))
				return false;
			continue;
		}
		n = utf8_decode(j->at, (size_t)(j->end - j->at), &c);
		if (n == 0)
			return json_fail(j, "a string that is not UTF-8");
		put(&out, j->at, n);
		j->at += n;
	}
	j->at++;
	string[out.used] = '\0';
	return true;
}

/* ---- numbers ---- */

static size_t digits(const struct json *j, const char *from)
{
	const char *c = from;

	while (c < j->end && *c >= '0' && *c <= '9')
		c++;
	return (size_t)(c - from);
}

/* The extent of the number that stands here, and whether it is a whole one. 0: it is none. */
static size_t number_length(const struct json *j, bool *whole)
{
	const char *c = j->at;
	size_t n;

	*whole = true;
	c += c < j->end && *c == '-';
	n = digits(j, c);
	if (n == 0 || (n > 1 && *c == '0'))
		return 0;
	c += n;
	if (c < j->end && *c == '.') {
		*whole = false;
		n = digits(j, ++c);
		c += n;
		if (n == 0)
			return 0;
	}
	if (c < j->end && (*c == 'e' || *c == 'E')) {
		*whole = false;
		c++;
		c += c < j->end && (*c == '+' || *c == '-');
		n = digits(j, c);
		c += n;
		if (n == 0)
			return 0;
	}
	return (size_t)(c - j->at);
}

static bool whole_number(struct json *j, bool *negative, uint64_t *n)
{
	bool whole;
	size_t length;

	here(j);
	if (j->error)
		return false;
	length = number_length(j, &whole);
	if (length == 0)
		return json_fail(j, j->at == j->end ? "the file ends in the middle" : "not a number");
	*negative = *j->at == '-';
	*n = 0;
	for (const char *c = j->at + *negative; whole && c < j->at + length; c++)
		whole = !__builtin_mul_overflow(*n, 10, n) && !__builtin_add_overflow(*n, (uint64_t)(*c - '0'), n);
	if (!whole)
		return json_fail(j, "not a whole number of 64 bits");
	j->at += length;
	return true;
}

bool json_unsigned(struct json *j, uint64_t *n)
{
	bool negative;

	if (!whole_number(j, &negative, n))
		return false;
	return negative && *n ? json_fail(j, "a negative number") : true;
}

bool json_integer(struct json *j, int *n)
{
	bool negative;
	uint64_t magnitude;

	if (!whole_number(j, &negative, &magnitude))
		return false;
	if (magnitude > INT32_MAX)
		return json_fail(j, "a number out of range");
	*n = negative ? -(int)magnitude : (int)magnitude;
	return true;
}

/* ---- members, elements ---- */

bool json_key(const struct json *j, const char *name)
{
	return strcmp(j->key, name) == 0;
}

bool json_next(struct json *j, char close, bool *first)
{
	char key[JSON_STRING_MAX];

	if (here(j) == close) {
		j->at++;
		j->depth--;
		return false;
	}
	if (!*first && !expect(j, ',', "no comma between two values"))
		return false;
	*first = false;
	if (close == ']')
		return !j->error;
	j->key[0] = '\0';
	if (!json_string(j, key, sizeof(key)) || !expect(j, ':', "no colon after a name"))
		return false;
	if (strlen(key) < sizeof(j->key))
		strcpy(j->key, key);
	return true;
}

static bool skip_word(struct json *j)
{
	static const char *const words[] = { "true", "false", "null" };

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		size_t n = strlen(words[i]);

		if ((size_t)(j->end - j->at) >= n && memcmp(j->at, words[i], n) == 0) {
			j->at += n;
			return true;
		}
	}
	return json_fail(j, j->at == j->end ? "the file ends in the middle" : "not a value");
}

static bool skip_number(struct json *j)
{
	bool whole;
	size_t n = number_length(j, &whole);

	j->at += n;
	return n > 0 || json_fail(j, "not a number");
}

/* The depth is bounded, and with it the recursion. */
bool json_skip(struct json *j)
{
	char string[JSON_STRING_MAX], c = here(j);
	bool first = true;

	if (j->error)
		return false;
	if (c == '{' || c == '[') {
		char close = c == '{' ? '}' : ']';

		for (json_enter(j, c); json_next(j, close, &first);)
			json_skip(j);
		return !j->error;
	}
	if (c == '"')
		return json_string(j, string, sizeof(string));
	if (c == '-' || (c >= '0' && c <= '9'))
		return skip_number(j);
	return skip_word(j);
}

bool json_end(struct json *j)
{
	here(j);
	if (!j->error && j->at != j->end)
		return json_fail(j, "more after the end (statistics of several programs?)");
	return !j->error;
}

/* ---- writing ---- */

void json_put_string(FILE *out, const char *s)
{
	size_t n = strlen(s);

	fputc('"', out);
	for (size_t i = 0; i < n;) {
		uint32_t c;
		size_t length = utf8_decode(s + i, n - i, &c);

		if (length == 0)
			fputs("\\ufffd", out);
		else if (c < 0x20 || (c >= 0x7f && c < 0xa0))
			fprintf(out, "\\u%04x", (unsigned)c);
		else if (c == '"' || c == '\\')
			fprintf(out, "\\%c", (int)c);
		else
			fwrite(s + i, 1, length, out);
		i += length ? length : 1;
	}
	fputc('"', out);
}
