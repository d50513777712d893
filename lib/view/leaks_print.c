/* SPDX-License-Identifier: MIT */
/* Leaks, as text for people and as one JSON object: places as they come, and the sums behind them. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "lib/api/error.h"
#include "lib/base/place.h"
#include "lib/view/leaks.h"
#include "lib/view/print.h"
#include "lib/view/profile.h"

#define MOST_OBJECTS 512 /* files that are loaded */
#define MOST_TEXT 200    /* groups; JSON has all */

struct printer {
	struct qy_text out;
	unsigned groups;
};

static unsigned long long long_of(uint64_t n)
{
	return n;
}

/* ---- text ---- */

static void text_amount(struct qy_text *out, uint64_t objects, uint64_t bytes)
{
	qy_text_format(out, "%llu %s, ", long_of(objects), objects == 1 ? "object" : "objects");
	qy_text_bytes(out, bytes);
}

static int text_leak(const quarry_leak *l, void *ctx)
{
	struct printer *p = ctx;

	if (l->suppressed != NULL || p->groups++ >= MOST_TEXT)
		return 0;
	text_amount(&p->out, l->objects, l->bytes);
	qy_text_format(&p->out, ", cannot be reached");
	if (l->held_objects > 0) {
		qy_text_format(&p->out, ", and ");
		text_amount(&p->out, l->held_objects, l->held_bytes);
		qy_text_format(&p->out, ", by %s alone", l->objects == 1 ? "it" : "them");
	}
	qy_text_format(&p->out, "\n    %zu bytes each, in %s%s", l->object_size,
		       l->arena_name[0] == 0 ? "an arena without a name" : "arena ", l->arena_name);
	for (unsigned i = 0; i < QY_LEAK_EXAMPLES && l->example[i] != NULL; i++)
		qy_text_format(&p->out, "%s%p", i == 0 ? ": " : ", ", l->example[i]);
	qy_text_format(&p->out, "%s\n", l->objects > QY_LEAK_EXAMPLES ? ", ..." : "");
	for (uint32_t i = 0; i < l->depth; i++) {
		qy_text_format(&p->out, "    #%u ", i);
		qy_put_frame(&p->out, l->frames[i]);
		qy_text_format(&p->out, "\n");
	}
	if (l->depth == 0)
		qy_text_format(&p->out, "    where it was allocated is not known (profile=1 knows)\n");
	return 0;
}

static void text_sums(struct qy_text *out, const quarry_leaks_report *r, unsigned groups)
{
	if (groups > MOST_TEXT)
		qy_text_format(out, "... and %u more places, which JSON has\n", groups - MOST_TEXT);
	qy_text_format(out, "quarry leaks: ");
	text_amount(out, r->objects, r->bytes);
	qy_text_format(out, ", cannot be reached, with ");
	text_amount(out, r->held_objects, r->held_bytes);
	qy_text_format(out, ", behind; of ");
	text_amount(out, r->live_objects, r->live_bytes);
	qy_text_format(out, ", that live\n");
	if (r->suppressed_objects > 0) {
		qy_text_format(out, "quarry leaks: suppressed among those: ");
		text_amount(out, r->suppressed_objects, r->suppressed_bytes);
		qy_text_format(out, "\n");
	}
	if (r->suppressions_error != 0) {
		qy_text_format(out, "quarry leaks: ");
		qy_leak_put_suppressions_error(out, r);
		qy_text_format(out, "\n");
	}
	if (r->unread > 0)
		qy_text_format(out, "quarry leaks: the registers of %u of %u threads could not be read: %u scans\n", r->unread,
			       r->threads, r->scans);
	if (r->skipped_bytes > 0) {
		qy_text_format(out, "quarry leaks: could not be read, and may lead to some of it: ");
		qy_text_bytes(out, r->skipped_bytes);
		qy_text_format(out, "\n");
	}
	if (r->inexact > 0)
		qy_text_format(out, "quarry leaks: %u slabs or lists could not be looked at: there may be less\n", r->inexact);
}

/* ---- JSON ---- */

static void json_frames(struct qy_text *out, const quarry_leak *l)
{
	qy_text_format(out, ",\"stack\":[");
	for (uint32_t i = 0; i < l->depth; i++)
		qy_text_format(out, "%s\"%p\"", i > 0 ? "," : "", l->frames[i]);
	qy_text_format(out, "],\"names\":[");
	for (uint32_t i = 0; i < l->depth; i++) {
		char name[QY_FRAME_NAME];
		struct qy_text text;

		qy_text_init(&text, name, sizeof(name), -1);
		qy_put_frame(&text, l->frames[i]);
		qy_text_format(out, "%s", i > 0 ? "," : "");
		qy_print_json_string(out, name, text.used);
	}
	qy_text_format(out, "]");
}

static int json_leak(const quarry_leak *l, void *ctx)
{
	struct printer *p = ctx;
	struct qy_text *out = &p->out;

	qy_text_format(out, "%s\n {\"objects\":%llu,\"bytes\":%llu,\"held_objects\":%llu,\"held_bytes\":%llu,"
		       "\"reachable_objects\":%llu,\"object_size\":%zu,\"node\":%d,\"arena\":",
		       p->groups++ > 0 ? "," : "", long_of(l->objects), long_of(l->bytes), long_of(l->held_objects),
		       long_of(l->held_bytes), long_of(l->reachable_objects), l->object_size, l->node);
	qy_print_json_string(out, l->arena_name, strlen(l->arena_name));
	if (l->suppressed != NULL) {
		qy_text_format(out, ",\"suppressed\":");
		qy_print_json_string(out, l->suppressed, strlen(l->suppressed));
	}
	qy_text_format(out, ",\"examples\":[");
	for (unsigned i = 0; i < QY_LEAK_EXAMPLES && l->example[i] != NULL; i++)
		qy_text_format(out, "%s\"%p\"", i > 0 ? "," : "", l->example[i]);
	qy_text_format(out, "]");
	json_frames(out, l);
	qy_text_format(out, "}");
	return 0;
}

static void json_sums(struct qy_text *out, const quarry_leaks_report *r)
{
	qy_text_format(out,
		       "],\n\"live_objects\":%llu,\"live_bytes\":%llu,\"objects\":%llu,\"bytes\":%llu,\"held_objects\":%llu,"
		       "\"held_bytes\":%llu,\"suppressed_objects\":%llu,\"suppressed_bytes\":%llu,\"scanned_bytes\":%llu,\"skipped_bytes\":%llu,",
		       long_of(r->live_objects), long_of(r->live_bytes), long_of(r->objects), long_of(r->bytes),
		       long_of(r->held_objects), long_of(r->held_bytes), long_of(r->suppressed_objects),
		       long_of(r->suppressed_bytes), long_of(r->scanned_bytes), long_of(r->skipped_bytes));
	qy_text_format(out, "\"stopped_ns\":%llu,\"took_ns\":%llu,\"threads\":%u,\"unread\":%u,\"scans\":%u,\"inexact\":%u",
		       long_of(r->stopped_ns), long_of(r->took_ns), r->threads, r->unread, r->scans, r->inexact);
	if (r->suppressions_error != 0) {
		char words[QY_ERROR_TEXT_MAX + 1024];
		struct qy_text text;

		qy_text_init(&text, words, sizeof(words), -1);
		qy_leak_put_suppressions_error(&text, r);
		qy_text_format(out, ",\"suppressions_error\":");
		qy_print_json_string(out, words, text.used);
	}
}

/* What names can be made of addresses with. */
static void json_objects(struct qy_text *out)
{
	size_t bytes = qy_align_up(MOST_OBJECTS * sizeof(struct qy_object), QY_PAGE), n;
	struct qy_object *list = qy_os->mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	n = list == MAP_FAILED ? 0 : qy_min(qy_objects(list, MOST_OBJECTS), MOST_OBJECTS);

	qy_text_format(out, ",\n\"files\":[");
	for (size_t i = 0; i < n; i++) {
		qy_text_format(out, "%s\n {\"from\":\"0x%llx\",\"to\":\"0x%llx\",\"offset\":%llu,\"path\":", i > 0 ? "," : "",
			       long_of(list[i].from), long_of(list[i].to), long_of(list[i].offset));
		qy_print_json_string(out, list[i].name, strlen(list[i].name));
		qy_text_format(out, ",\"build_id\":\"");
		for (unsigned b = 0; b < list[i].id_length; b++)
			qy_text_format(out, "%02x", list[i].id[b]);
		qy_text_format(out, "\"}");
	}
	qy_text_format(out, "]}\n");
	if (list != MAP_FAILED)
		qy_os->munmap(list, bytes);
}

/* ---- the calls ---- */

static __attribute__((noinline)) int print(int fd, bool json)
{
	quarry_leaks_report report = { .struct_size = sizeof(report) };
	uintptr_t stack = QY_LEAKS_STACK;
	char buffer[QY_PRINT_BUFFER];
	struct printer p = { .groups = 0 };

	if (fd < 0)
		return qy_fail(EBADF, "fd: %d is no descriptor", fd);
	qy_text_init(&p.out, buffer, sizeof(buffer), fd);
	if (json)
		qy_text_format(&p.out, "{\"quarry_leaks\":1,\"pid\":%d,\"leaks\":[", qy_os->process_id());
	if (qy_leaks_find(stack, json ? QUARRY_LEAKS_REACHABLE : 0, json ? json_leak : text_leak, &p, &report) != 0)
		return -1;
	if (json) {
		json_sums(&p.out, &report);
		json_objects(&p.out);
	} else {
		text_sums(&p.out, &report, p.groups);
	}
	return qy_text_flush(&p.out);
}

QUARRY_API int quarry_leaks_print(int fd, int json)
{
	QY_LEAKS_FROM_HERE;
	return print(fd, json != 0);
}
