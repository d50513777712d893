/* SPDX-License-Identifier: MIT */
/* Suppressions of leaks, as LeakSanitizer has them: lines "leak:PATTERN". They are read once, and stay: their text is in
 * mappings of its own. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "lib/api/error.h"
#include "lib/base/place.h"
#include "lib/view/leaks.h"

#define FILE_MOST ((size_t)1 << 20)

extern __typeof__(dladdr) dladdr __attribute__((weak)); /* not in every static program */

/* Rules one after the other, each ended by 0, an empty one at the end. */
struct rules {
	struct rules *next;
	char text[];
};

static _Atomic(struct rules *) all;
static _Atomic(bool) was_read; /* the environment's file (twice, by two threads at once, does no harm) */

/* ---- matching ---- */

/* Whether the name begins with the pattern, up to its end, or where the pattern says $ all of it. */
static bool matches_here(const char *pattern, const char *name)
{
	const char *star = NULL, *back = NULL;

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

static bool matches(const char *pattern, const char *name)
{
	if (name == NULL)
		return false;
	if (*pattern == '^')
		return matches_here(pattern + 1, name);
	for (;; name++) {
		if (matches_here(pattern, name))
			return true;
		if (*name == 0)
			return false;
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

/* 0; or the number of the line that is none. */
static unsigned copy_rules(const char *text, char *to)
{
	unsigned number = 1;

	for (const char *end; *text != 0; text = *end == 0 ? end : end + 1, number++) {
		const char *pattern;
		size_t bytes;

		end = strchrnul(text, '\n');
		if (!read_rule(text, (size_t)(end - text), &pattern, &bytes))
			return number;
		memcpy(to, bytes == 0 ? "" : pattern, bytes);
		to += bytes;
		if (bytes > 0)
			*to++ = 0;
	}
	*to = 0;
	return 0;
}

/* 0, or an errno; *line says which one is none. */
static int add(const char *text, unsigned *line)
{
	size_t bytes = qy_align_up(sizeof(struct rules) + strlen(text) + 2, QY_PAGE);
	struct rules *r = qy_os->mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (r == MAP_FAILED)
		return ENOMEM;
	*line = copy_rules(text, r->text);
	if (*line != 0) {
		qy_os->munmap(r, bytes);
		return EINVAL;
	}
	r->next = atomic_load_explicit(&all, memory_order_relaxed);
	while (!atomic_compare_exchange_weak_explicit(&all, &r->next, r, memory_order_release, memory_order_relaxed))
		;
	return 0;
}

int qy_leak_read_suppressions(unsigned *line)
{
	const char *path = secure_getenv("QUARRY_SUPPRESSIONS");
	char *text;
	ssize_t n;
	int error;

	*line = 0;
	if (path == NULL || atomic_load_explicit(&was_read, memory_order_acquire))
		return 0;
	text = qy_os->mmap(NULL, FILE_MOST, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (text == MAP_FAILED)
		return ENOMEM;
	n = qy_os->read_file(path, text, FILE_MOST);
	error = n < 0 ? errno : (size_t)n == FILE_MOST - 1 ? EFBIG : add(text, line);
	qy_os->munmap(text, FILE_MOST);
	atomic_store_explicit(&was_read, error == 0, memory_order_release);
	return error;
}

QUARRY_API int quarry_leaks_suppress(const char *rules)
{
	unsigned line;
	int error;

	if (rules == NULL)
		return qy_fail(EINVAL, "rules: NULL");
	error = add(rules, &line);
	if (error == EINVAL)
		return qy_fail(EINVAL, "rules: line %u is not leak:PATTERN", line);
	return error == 0 ? 0 : qy_fail(error, "no address space for the rules");
}

const char *qy_leak_suppressed(void *const *frames, uint32_t depth)
{
	if (atomic_load_explicit(&all, memory_order_acquire) == NULL)
		return NULL;
	for (uint32_t i = 0; i < depth && dladdr; i++) {
		Dl_info info;

		if (dladdr((const char *)frames[i] - 1, &info) == 0)
			continue;
		for (const struct rules *r = atomic_load_explicit(&all, memory_order_acquire); r != NULL; r = r->next)
			for (const char *rule = r->text; *rule != 0; rule += strlen(rule) + 1)
				if (matches(rule, info.dli_sname) || matches(rule, info.dli_fname))
					return rule;
	}
	return NULL;
}
