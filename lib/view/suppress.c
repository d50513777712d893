/* SPDX-License-Identifier: MIT */
/* Suppressions of leaks (what they say: rules.c). They are read once, and stay: their text is in mappings of its own. */
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
#include "lib/view/rules.h"

#define FILE_MOST ((size_t)1 << 20)

extern __typeof__(dladdr) dladdr __attribute__((weak)); /* not in every static program */

struct rules {
	struct rules *next;
	char text[]; /* as qy_rules_copy has it */
};

static _Atomic(struct rules *) all;
static _Atomic(bool) was_read; /* the environment's file (twice, by two threads at once, does no harm) */

/* ---- rules ---- */

/* 0, or an errno; *line says which one is none. */
static int add(const char *text, size_t length, unsigned *line)
{
	size_t bytes = qy_align_up(sizeof(struct rules) + length + 2, QY_PAGE);
	struct rules *r = qy_os->mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (r == MAP_FAILED)
		return ENOMEM;
	*line = qy_rules_copy(text, length, r->text);
	if (*line != 0) {
		qy_os->munmap(r, bytes);
		return EINVAL;
	}
	r->next = atomic_load_explicit(&all, memory_order_relaxed);
	while (!atomic_compare_exchange_weak_explicit(&all, &r->next, r, memory_order_release, memory_order_relaxed))
		;
	return 0;
}

static const char *file(void)
{
	return secure_getenv("QUARRY_SUPPRESSIONS");
}

static int read_file(const char *path, unsigned *line)
{
	char *text;
	ssize_t n;
	int error;

	text = qy_os->mmap(NULL, FILE_MOST, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (text == MAP_FAILED)
		return ENOMEM;
	n = qy_os->read_file(path, text, FILE_MOST);
	error = n < 0 ? errno : (size_t)n == FILE_MOST - 1 ? EFBIG : add(text, (size_t)n, line);
	qy_os->munmap(text, FILE_MOST);
	atomic_store_explicit(&was_read, error == 0, memory_order_release);
	return error;
}

void qy_leak_read_suppressions(quarry_leaks_report *report)
{
	const char *path = file();

	if (path != NULL && !atomic_load_explicit(&was_read, memory_order_acquire))
		report->suppressions_error = read_file(path, &report->suppressions_line);
}

void qy_leak_put_suppressions_error(struct qy_text *out, const quarry_leaks_report *report)
{
	const char *path = file();

	qy_text_format(out, "QUARRY_SUPPRESSIONS: '");
	if (path != NULL)
		qy_text_quoted(out, path, strlen(path), 1024);
	if (report->suppressions_line > 0)
		qy_text_format(out, "': line %u is not leak:PATTERN", report->suppressions_line);
	else
		qy_text_format(out, "': %s", strerror(report->suppressions_error));
	qy_text_format(out, ": none of its rules count");
}

QUARRY_API int quarry_leaks_suppress(const char *rules)
{
	unsigned line;
	int error;

	if (rules == NULL)
		return qy_fail(EINVAL, "rules: NULL");
	error = add(rules, strlen(rules), &line);
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
		for (const struct rules *r = atomic_load_explicit(&all, memory_order_acquire); r != NULL; r = r->next) {
			const char *rule = qy_rules_match(r->text, info.dli_sname);

			if (rule == NULL)
				rule = qy_rules_match(r->text, info.dli_fname);
			if (rule != NULL)
				return rule;
		}
	}
	return NULL;
}
