/* SPDX-License-Identifier: MIT */
/* A failed assertion. The heap may be in any state: no stdio, no allocation, one write. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "lib/base/base.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct line {
	char text[512];
	size_t len;
};

/* What does not fit is cut, leaving room for the newline. */
static void append(struct line *line, const char *text)
{
	size_t len = qy_min(strlen(text), sizeof(line->text) - 1 - line->len);
	memcpy(line->text + line->len, text, len);
	line->len += len;
}

static void append_number(struct line *line, unsigned n)
{
	char digits[12];
	char *at = digits + sizeof(digits) - 1;
	*at = 0;
	do
		*--at = (char)('0' + n % 10);
	while ((n /= 10) != 0);
	append(line, at);
}

void qy_assert_failed(const char *what, const char *file, int line)
{
	struct line out = { .len = 0 };

	append(&out, "quarry: ");
	append(&out, file);
	append(&out, ":");
	append_number(&out, line > 0 ? (unsigned)line : 0);
	append(&out, ": assertion failed: ");
	append(&out, what);
	out.text[out.len++] = '\n';
	/* Whether anybody reads it does not change what follows. */
	if (write(STDERR_FILENO, out.text, out.len) < 0)
		abort();
	abort();
}
