/* SPDX-License-Identifier: MIT */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "lib/view/rules.h"

#include <string.h>

/* ---- matching ---- */

/* Whether the pattern is in the name: where it says ^ at its beginning, and where it says $ at its end. */
static bool matches(const char *pattern, const char *name)
{
	const char *star = NULL, *back = NULL;

	/* (What may begin anywhere begins with any bytes.) */
	if (*pattern == '^') {
		pattern++;
	} else {
		star = pattern;
		back = name;
	}

	for (;;) {
		if (*pattern == 0 || (pattern[0] == '$' && pattern[1] == 0 && *name == 0))
			return true;
		if (*pattern == '*') {
			star = ++pattern;
			back = name;
		} else if (*name != 0 && *name == *pattern) {
			pattern++;
			name++;
		} else if (star != NULL && *back != 0) {
			pattern = star;
			name = ++back;
		} else {
			return false;
		}
	}
}

/* ---- rules ---- */

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

/* The line's pattern, and its length; 0: there is none to be had. False: it is no rule. */
static bool read_rule(const char *line, size_t length, const char **pattern, size_t *bytes)
{
	while (length > 0 && is_blank(line[length - 1]))
		length--;
	while (length > 0 && is_blank(*line)) {
		line++;
		length--;
	}
	*bytes = 0;
	if (length == 0 || *line == '#')
		return true;
	if (length <= 5 || memcmp(line, "leak:", 5) != 0)
		return false;
	*pattern = line + 5;
	*bytes = length - 5;
	return true;
}

unsigned qy_rules_copy(const char *text, size_t length, char *to)
{
	const char *last = text + length;
	unsigned number = 1;

	for (const char *end; text < last; text = end + 1, number++) {
		const char *pattern;
		size_t bytes;

		end = memchr(text, '\n', (size_t)(last - text));
		end = end == NULL ? last : end;
		/* (A byte that ends a text is in no rule.) */
		if (memchr(text, 0, (size_t)(end - text)) != NULL || !read_rule(text, (size_t)(end - text), &pattern, &bytes))
			return number;
		memcpy(to, bytes == 0 ? "" : pattern, bytes);
		to += bytes;
		if (bytes > 0)
			*to++ = 0;
	}
	*to = 0;
	return 0;
}

const char *qy_rules_match(const char *rules, const char *name)
{
	for (const char *rule = rules; name != NULL && *rule != 0; rule += strlen(rule) + 1)
		if (matches(rule, name))
			return rule;
	return NULL;
}
