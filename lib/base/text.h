/* SPDX-License-Identifier: MIT */
/* Text without stdio: into a buffer, or through one to a file descriptor. It allocates nothing, takes no lock, knows
 * no locale (JSON needs a full stop in numbers) and may be used before libc is ready and in signal handlers. */
#ifndef QUARRY_BASE_TEXT_H
#define QUARRY_BASE_TEXT_H

#include <stdarg.h>

#include "lib/base/base.h"

struct qy_text {
	char *buffer;
	size_t size;  /* of the buffer, at least 1 */
	size_t used;  /* bytes that stand in it now; without a descriptor a 0 always follows them */
	size_t total; /* bytes put so far, with those that found no room */
	int fd;       /* where a full buffer is written; -1: what does not fit is dropped */
	int error;    /* the errno of the first write that failed, after which all is dropped; 0 */
};

void qy_text_init(struct qy_text *text, char *buffer, size_t size, int fd);

void qy_text_put(struct qy_text *text, const char *bytes, size_t count);

/* As printf, of it: %s %c %d %u %x %p %%, the lengths l, ll and z, the flags '-' and '0', a width and, for %s, a
 * precision (numbers or '*'). Anything else stops the program in a debug build and is copied as it stands otherwise. */
void qy_text_format(struct qy_text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void qy_text_vformat(struct qy_text *text, const char *format, va_list args) __attribute__((format(printf, 2, 0)));

/* A string that came from outside, on one line: control characters and quotes that would mislead become '?'.
 * At most limit bytes of it, "..." after them when there was more. */
void qy_text_quoted(struct qy_text *text, const char *bytes, size_t count, size_t limit);

/* A number of bytes for people: "512 B", "1.5 KiB", "64.0 MiB"; at most 10 characters. */
void qy_text_bytes(struct qy_text *text, uint64_t bytes);

/* The same for a column: "512", "1.5K", "64M"; at most 5 characters, set to the right of width. */
void qy_text_bytes_short(struct qy_text *text, uint64_t bytes, int width);

/* Write what is left in the buffer. Interrupted and short writes go on. 0, or -1 with errno of the first failure. */
int qy_text_flush(struct qy_text *text);

#endif
