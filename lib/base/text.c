/* SPDX-License-Identifier: MIT */
#include "lib/base/text.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define NUMBER_MAX 24 /* digits of a 64-bit number in any base used here, and a sign */

struct directive {
	bool left, zero;
	int width;
	int precision; /* -1: none */
	int length;    /* how many 'l'; 'z' counts as one: size_t is a long on every Linux */
};

void qy_text_init(struct qy_text *text, char *buffer, size_t size, int fd)
{
	text->buffer = buffer;
	text->size = size;
	text->used = 0;
	text->total = 0;
	text->fd = fd;
	text->error = 0;
	buffer[0] = '\0';
}

int qy_text_flush(struct qy_text *text)
{
	size_t done = 0;

	while (text->fd >= 0 && !text->error && done < text->used) {
		ssize_t n = write(text->fd, text->buffer + done, text->used - done);
		if (n > 0)
			done += (size_t)n;
		else if (n == 0)
			text->error = EIO; /* not an error by write(2), but trying for ever would be one */
		else if (errno != EINTR)
			text->error = errno;
	}
	if (text->fd >= 0)
		text->used = 0;
	if (!text->error)
		return 0;
	errno = text->error;
	return -1;
}

void qy_text_put(struct qy_text *text, const char *bytes, size_t count)
{
	text->total += count;
	while (count > 0) {
		/* Without a descriptor the last byte is the terminating 0's. */
		size_t room = text->size - text->used - (text->fd < 0 ? 1 : 0);
		size_t now = qy_min(room, count);
		memcpy(text->buffer + text->used, bytes, now);
		text->used += now;
		bytes += now;
		count -= now;
		if (text->fd < 0) {
			text->buffer[text->used] = '\0';
			return;
		}
		if (text->used == text->size)
			qy_text_flush(text);
	}
}

static void put_fill(struct qy_text *text, char c, int count)
{
	for (; count > 0; count--)
		qy_text_put(text, &c, 1);
}

static void put_padded(struct qy_text *text, const struct directive *d, const char *bytes, size_t count)
{
	int fill = d->width > (int)count ? d->width - (int)count : 0;
	bool zero = d->zero && !d->left;

	if (zero && count && bytes[0] == '-') {
		qy_text_put(text, bytes++, 1);
		count--;
	}
	if (!d->left)
		put_fill(text, zero ? '0' : ' ', fill);
	qy_text_put(text, bytes, count);
	if (d->left)
		put_fill(text, ' ', fill);
}

static void put_number(struct qy_text *text, const struct directive *d, unsigned long long n, unsigned base,
		       bool negative)
{
	char digits[NUMBER_MAX];
	size_t at = sizeof(digits);

	do {
		digits[--at] = "0123456789abcdef"[n % base];
		n /= base;
	} while (n);
	if (negative)
		digits[--at] = '-';
	put_padded(text, d, digits + at, sizeof(digits) - at);
}

static const char *parse_number(const char *f, int *n)
{
	for (*n = 0; *f >= '0' && *f <= '9'; f++)
		*n = *n * 10 + (*f - '0');
	return f;
}

/* va_list is an array on some machines: passed on by address it means the same on all. */
struct arguments {
	va_list list;
};

static const char *parse_directive(const char *f, struct directive *d, struct arguments *args)
{
	*d = (struct directive){ .precision = -1 };
	for (;; f++) {
		if (*f == '-')
			d->left = true;
		else if (*f == '0')
			d->zero = true;
		else
			break;
	}
	if (*f == '*') {
		d->width = va_arg(args->list, int);
		f++;
	} else {
		f = parse_number(f, &d->width);
	}
	if (*f == '.' && f[1] == '*') {
		d->precision = va_arg(args->list, int);
		f += 2;
	} else if (*f == '.') {
		f = parse_number(f + 1, &d->precision);
	}
	for (; *f == 'l' || *f == 'z'; f++)
		d->length++;
	return f;
}

static void put_signed(struct qy_text *text, const struct directive *d, struct arguments *args)
{
	long long n = d->length == 0 ? va_arg(args->list, int) :
		      d->length == 1 ? va_arg(args->list, long) : va_arg(args->list, long long);

	put_number(text, d, n < 0 ? 0 - (unsigned long long)n : (unsigned long long)n, 10, n < 0);
}

static void put_unsigned(struct qy_text *text, const struct directive *d, unsigned base, struct arguments *args)
{
	unsigned long long n = d->length == 0 ? va_arg(args->list, unsigned) :
			       d->length == 1 ? va_arg(args->list, unsigned long) :
						va_arg(args->list, unsigned long long);

	put_number(text, d, n, base, false);
}

static void put_directive(struct qy_text *text, const struct directive *d, char kind, struct arguments *args)
{
	const char *s;
	char c;

	switch (kind) {
	case 's':
		s = va_arg(args->list, const char *);
		if (!s)
			s = "(null)";
		put_padded(text, d, s, d->precision >= 0 ? strnlen(s, (size_t)d->precision) : strlen(s));
		break;
	case 'c':
		c = (char)va_arg(args->list, int);
		put_padded(text, d, &c, 1);
		break;
	case 'd':
		put_signed(text, d, args);
		break;
	case 'u':
		put_unsigned(text, d, 10, args);
		break;
	case 'x':
		put_unsigned(text, d, 16, args);
		break;
	case 'p':
		qy_text_put(text, "0x", 2);
		put_number(text, d, (uintptr_t)va_arg(args->list, void *), 16, false);
		break;
	default:
		qy_assert(kind == '%');
		qy_text_put(text, &kind, 1);
	}
}

void qy_text_vformat(struct qy_text *text, const char *format, va_list list)
{
	struct arguments args;
	const char *f = format;

	va_copy(args.list, list);
	for (;;) {
		struct directive d;
		const char *percent = strchr(f, '%');
		if (!percent) {
			qy_text_put(text, f, strlen(f));
			break;
		}
		qy_text_put(text, f, (size_t)(percent - f));
		f = parse_directive(percent + 1, &d, &args);
		if (*f == '\0')
			break;
		put_directive(text, &d, *f++, &args);
	}
	va_end(args.list);
}

void qy_text_format(struct qy_text *text, const char *format, ...)
{
	va_list list;

	va_start(list, format);
	qy_text_vformat(text, format, list);
	va_end(list);
}

void qy_text_quoted(struct qy_text *text, const char *bytes, size_t count, size_t limit)
{
	for (size_t i = 0; i < count && i < limit; i++) {
		unsigned char c = (unsigned char)bytes[i];
		qy_text_put(text, c < 0x20 || c == 0x7f || c == '\'' ? "?" : bytes + i, 1);
	}
	if (count > limit)
		qy_text_put(text, "...", 3);
}

static const char units[] = "BKMGTPE";

/* The largest unit in which n is at least 1, and n in tenths of it, rounded down: 1023.96 MiB is not yet 1 GiB. */
static uint64_t in_unit(uint64_t n, unsigned *unit)
{
	uint64_t rest = 0;

	for (*unit = 0; n >= 1024; n /= 1024, ++*unit)
		rest = n % 1024;
	return n * 10 + rest * 10 / 1024;
}

void qy_text_bytes(struct qy_text *text, uint64_t bytes)
{
	unsigned unit;
	uint64_t tenths = in_unit(bytes, &unit);

	if (unit == 0)
		qy_text_format(text, "%llu B", (unsigned long long)bytes);
	else
		qy_text_format(text, "%llu.%llu %ciB", (unsigned long long)(tenths / 10),
			       (unsigned long long)(tenths % 10), units[unit]);
}

void qy_text_bytes_short(struct qy_text *text, uint64_t bytes, int width)
{
	unsigned unit;
	uint64_t tenths = in_unit(bytes, &unit);

	if (unit == 0)
		qy_text_format(text, "%*llu", width, (unsigned long long)bytes);
	else if (tenths < 100)
		qy_text_format(text, "%*llu.%llu%c", width > 3 ? width - 3 : 0, (unsigned long long)(tenths / 10),
			       (unsigned long long)(tenths % 10), units[unit]);
	else
		qy_text_format(text, "%*llu%c", width > 1 ? width - 1 : 0, (unsigned long long)(tenths / 10),
			       units[unit]);
}
