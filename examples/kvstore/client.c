/* SPDX-License-Identifier: MIT */
/* Requests are taken apart as they come in, in whatever pieces, and replies put together. */
#include "client.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define LINE_MAX_BYTES ((size_t)64 << 10) /* of an inline command */
#define COUNT_MAX_BYTES 32                /* of a line with a number */
#define USUAL ((size_t)16 << 10)          /* bytes of a buffer */

/* ---- buffers ---- */

bool buffer_reserve(struct buffer *b, size_t more, size_t most)
{
	size_t used = b->end - b->begin, room = b->room > 0 ? b->room : USUAL;
	char *p;

	if (b->room - b->end >= more)
		return true;
	if (more > most || used > most - more)
		return false;
	if (b->begin > 0) {
		memmove(b->p, b->p + b->begin, used);
		b->begin = 0;
		b->end = used;
	}
	while (room < used + more)
		room *= 2;
	if (room == b->room)
		return true;
	p = realloc(b->p, room);
	if (p == NULL)
		return false;
	b->p = p;
	b->room = room;
	return true;
}

void buffer_free(struct buffer *b)
{
	free(b->p);
	*b = (struct buffer){ 0 };
}

void buffer_rest(struct buffer *b)
{
	if (b->begin != b->end)
		return;
	b->begin = b->end = 0;
	if (b->room > 4 * USUAL)
		buffer_free(b);
}

/* ---- numbers ---- */

bool text_to_integer(struct text t, int64_t *n)
{
	bool negative = t.n > 0 && t.p[0] == '-';
	size_t i = negative;
	uint64_t value = 0, most = (uint64_t)INT64_MAX + negative;

	if (i == t.n || (t.p[i] == '0' && t.n > 1))
		return false;
	for (; i < t.n; i++) {
		unsigned digit = (unsigned)(unsigned char)t.p[i] - '0';

		if (digit > 9 || value > (most - digit) / 10)
			return false;
		value = value * 10 + digit;
	}
	*n = (int64_t)(negative ? 0 - value : value);
	return true;
}

size_t integer_to_text(int64_t n, char *text)
{
	uint64_t value = n < 0 ? 0 - (uint64_t)n : (uint64_t)n;
	char digits[20], *p = digits + sizeof(digits);
	size_t length;

	do {
		*--p = (char)('0' + value % 10);
		value /= 10;
	} while (value > 0);
	length = (size_t)(digits + sizeof(digits) - p);
	if (n < 0)
		*text++ = '-';
	memcpy(text, p, length);
	return length + (n < 0);
}

bool text_is(struct text t, const char *word)
{
	return strlen(word) == t.n && strncasecmp(t.p, word, t.n) == 0;
}

/* ---- requests ---- */

/* Behind whole requests it is found again when these were answered. */
static enum parsed wrong(struct client *c, const char *what)
{
	if (c->ready_count == 0)
		reply_error(c, "ERR Protocol error: %s", what);
	return PARSED_WRONG;
}

static enum parsed no_memory(struct client *c)
{
	c->broken = true;
	return PARSED_WRONG;
}

static bool add_argument(struct client *c, size_t at, size_t n)
{
	if (c->argument_count == c->argument_room) {
		size_t room = c->argument_room > 0 ? 2 * c->argument_room : 8;
		struct argument *a = realloc(c->argument, room * sizeof(*a));

		if (a == NULL)
			return false;
		c->argument = a;
		c->argument_room = room;
	}
	c->argument[c->argument_count++] = (struct argument){ at, n };
	return true;
}

/* The line that begins where was parsed to: its bytes without its end; p is NULL when its end has not come. */
static struct text next_line(const struct client *c)
{
	const char *from = c->in.p + c->in.begin + c->parsed;
	size_t n = c->in.end - c->in.begin - c->parsed;
	const char *end = n > 0 ? memchr(from, '\n', n) : NULL;

	return end == NULL ? (struct text){ NULL, n } : (struct text){ from, (size_t)(end - from) };
}

/* A mark and a number from 0 on, in a line that ends with CR LF. */
static enum parsed parse_count(struct client *c, char mark, size_t most, const char *invalid, size_t *count)
{
	struct text line = next_line(c);
	int64_t n;

	if (line.n > COUNT_MAX_BYTES)
		return wrong(c, invalid);
	if (line.p == NULL)
		return PARSED_PART;
	if (line.n < 2 || line.p[0] != mark || line.p[line.n - 1] != '\r' ||
	    !text_to_integer((struct text){ line.p + 1, line.n - 2 }, &n) || n < 0 || (uint64_t)n > most)
		return wrong(c, invalid);
	*count = (size_t)n;
	c->parsed += line.n + 1;
	return PARSED_WHOLE;
}

static enum parsed parse_bulk(struct client *c)
{
	enum parsed parsed;
	size_t length;
	const char *end;

	if (c->bulk < 0) {
		parsed = parse_count(c, '$', VALUE_MAX, "invalid bulk length", &length);
		if (parsed != PARSED_WHOLE)
			return parsed;
		c->bulk = (int64_t)length;
	}
	if (c->in.end - c->in.begin - c->parsed < (size_t)c->bulk + 2)
		return PARSED_PART;
	end = c->in.p + c->in.begin + c->parsed + c->bulk;
	if (end[0] != '\r' || end[1] != '\n')
		return wrong(c, "a bulk that is longer than its length");
	if (!add_argument(c, c->parsed, (size_t)c->bulk))
		return no_memory(c);
	c->parsed += (size_t)c->bulk + 2;
	c->bulk = -1;
	c->missing--;
	return PARSED_WHOLE;
}

/* The character that a backslash in double quotes stands for, from its next one on; *i comes to stand behind it. */
static char unescaped(const char *p, size_t n, size_t *i)
{
	static const char names[] = "nrtba", characters[] = "\n\r\t\b\a";
	const char *name;
	char c;

	if (p[*i] == 'x' && n - *i >= 3 && isxdigit((unsigned char)p[*i + 1]) && isxdigit((unsigned char)p[*i + 2])) {
		char hex[3] = { p[*i + 1], p[*i + 2], '\0' };

		*i += 3;
		return (char)strtol(hex, NULL, 16);
	}
	c = p[(*i)++];
	name = memchr(names, c, sizeof(names) - 1);
	return name != NULL ? characters[name - names] : c;
}

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\v' || c == '\f' || c == '\0';
}

/* One word of a line, from *i on, unquoted where it stands: it never becomes longer. False: a quote that does not end, or
 * after which no space comes. */
static bool parse_word(char *p, size_t n, size_t *i, size_t *length)
{
	char quote = '\0';
	size_t to = *i, at = *i;

	while (at < n && (quote != '\0' || !is_space(p[at]))) {
		char c = p[at++];

		if (quote == '\0' && (c == '"' || c == '\'')) {
			quote = c;
		} else if (quote != '\0' && c == quote) {
			quote = '\0';
			if (at < n && !is_space(p[at]))
				return false;
		} else if (quote == '"' && c == '\\' && at < n) {
			p[to++] = unescaped(p, n, &at);
		} else if (quote == '\'' && c == '\\' && at < n && p[at] == '\'') {
			p[to++] = p[at++];
		} else {
			p[to++] = c;
		}
	}
	*length = to - *i;
	*i = at;
	return quote == '\0';
}

/* (It is changed where it stands: it is looked at once, when it is the next.) */
static enum parsed parse_inline(struct client *c)
{
	struct text line = next_line(c);
	char *p = c->in.p + c->in.begin;
	size_t i = 0;

	if (c->ready_count > 0)
		return PARSED_PART;

	if (line.n > LINE_MAX_BYTES)
		return wrong(c, "too big inline request");
	if (line.p == NULL)
		return PARSED_PART;
	while (i < line.n) {
		size_t at = i, length;

		if (is_space(p[i])) {
			i++;
			continue;
		}
		if (!parse_word(p, line.n, &i, &length))
			return wrong(c, "unbalanced quotes in request");
		if (!add_argument(c, at, length))
			return no_memory(c);
	}
	c->parsed = line.n + 1;
	return PARSED_WHOLE;
}

/* From where the last whole request ends: one more. */
static enum parsed parse_request(struct client *c)
{
	enum parsed parsed;

	if (c->in.end - c->in.begin == c->whole)
		return PARSED_PART;
	if (c->parsed == c->whole) {
		if (c->in.p[c->in.begin + c->whole] != '*')
			return parse_inline(c);
		parsed = parse_count(c, '*', ARGUMENTS_MAX, "invalid multibulk length", &c->missing);
		if (parsed != PARSED_WHOLE)
			return parsed;
		c->bulk = -1;
	}
	while (c->missing > 0) {
		parsed = parse_bulk(c);
		if (parsed != PARSED_WHOLE)
			return parsed;
	}
	return PARSED_WHOLE;
}

/* What was carried out goes; what came of the next request is the first now. */
static void forget_ready(struct client *c)
{
	size_t first = c->ready[c->ready_count - 1].first + c->ready[c->ready_count - 1].count;

	c->argument_count -= first;
	for (size_t i = 0; i < c->argument_count; i++)
		c->argument[i] = (struct argument){ c->argument[first + i].at - c->whole, c->argument[first + i].n };
	if (c->argument_count == 0 && c->argument_room > 1024) {
		free(c->argument);
		c->argument = NULL;
		c->argument_room = 0;
	}
	c->in.begin += c->whole;
	c->parsed -= c->whole;
	c->whole = 0;
	c->ready_count = c->ready_next = 0;
}

enum parsed client_parse(struct client *c)
{
	size_t first = 0;
	enum parsed parsed = PARSED_WHOLE;

	if (c->ready_next < c->ready_count)
		return PARSED_WHOLE;
	if (c->ready_count > 0)
		forget_ready(c);
	while (parsed == PARSED_WHOLE && c->ready_count < READY_MAX) {
		parsed = parse_request(c);
		if (parsed != PARSED_WHOLE)
			break;
		c->whole = c->parsed;
		c->ready[c->ready_count++] = (struct request){ first, c->argument_count - first };
		first = c->argument_count;
	}
	return c->ready_count > 0 ? PARSED_WHOLE : parsed;
}

bool client_next(struct client *c)
{
	if (c->ready_next == c->ready_count)
		return false;
	c->request = &c->argument[c->ready[c->ready_next].first];
	c->arguments = c->ready[c->ready_next].count;
	c->ready_next++;
	return true;
}

/* ---- replies ---- */

void reply_raw(struct client *c, const char *p, size_t n)
{
	if (c->broken)
		return;
	if (!buffer_reserve(&c->out, n, REPLY_MAX)) {
		c->broken = true;
		return;
	}
	memcpy(c->out.p + c->out.end, p, n);
	c->out.end += n;
}

void reply_ok(struct client *c)
{
	reply_literal(c, "+OK\r\n");
}

/* What a client sent may be in it: an error is one line, whatever that was. */
void reply_error(struct client *c, const char *format, ...)
{
	char line[256];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	for (char *p = line; *p != '\0'; p++)
		if ((unsigned char)*p < ' ')
			*p = ' ';
	reply_literal(c, "-");
	reply_raw(c, line, strlen(line));
	reply_literal(c, "\r\n");
}

static void reply_number(struct client *c, char mark, int64_t n)
{
	char line[24];
	size_t length = 1 + integer_to_text(n, line + 1);

	line[0] = mark;
	line[length++] = '\r';
	line[length++] = '\n';
	reply_raw(c, line, length);
}

void reply_integer(struct client *c, int64_t n)
{
	reply_number(c, ':', n);
}

void reply_bulk(struct client *c, struct text t)
{
	reply_number(c, '$', (int64_t)t.n);
	reply_raw(c, t.p, t.n);
	reply_literal(c, "\r\n");
}

void reply_null(struct client *c)
{
	reply_literal(c, "$-1\r\n");
}

void reply_array(struct client *c, size_t n)
{
	reply_number(c, '*', (int64_t)n);
}
