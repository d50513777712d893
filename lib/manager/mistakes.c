/* SPDX-License-Identifier: MIT */
#include "lib/manager/mistakes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/settings.h"

static qy_counter mistakes;

static char *append(char *to, const char *text)
{
	size_t n = strlen(text);

	memcpy(to, text, n);
	return to + n;
}

static char *append_hex(char *to, uintptr_t v)
{
	int digits = v == 0 ? 1 : (int)(qy_log2_floor(v) / 4 + 1);

	to = append(to, "0x");
	while (digits-- > 0)
		*to++ = "0123456789abcdef"[v >> (digits * 4) & 15];
	return to;
}

void qy_mistake(enum qy_mistake_kind kind, const void *p)
{
	static const char *const what[QY_MISTAKES] = {
		"a pointer was freed that quarry did not give out, or that was free already: ",
		"an object was freed twice, or written to after it was freed: ",
		"an object was freed with a size that it does not have: ",
	};
	long policy = qy_setting(on_error);
	int error = errno; /* free(3) leaves it alone */
	char line[160], *end;
	ssize_t ignored;

	qy_count_shared(&mistakes, 1);
	if (policy == QY_ERROR_IGNORE)
		return;
	end = append(append_hex(append(append(line, "quarry: "), what[kind]), (uintptr_t)p), "\n");
	ignored = write(STDERR_FILENO, line, (size_t)(end - line));
	(void)ignored;
	errno = error;
	if (policy == QY_ERROR_ABORT)
		abort();
}

uint64_t qy_mistake_count(void)
{
	return qy_read(&mistakes);
}
