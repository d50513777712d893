/* SPDX-License-Identifier: MIT */
/* How memory is used, as text and as JSON. */
#include <errno.h>
#include <string.h>

#include "lib/api/error.h"
#include "lib/view/holders.h"
#include "lib/view/print.h"
#include "lib/view/use.h"

#define NAME_WIDTH 16

static unsigned long long long_of(uint64_t n)
{
	return n;
}

/* ---- for people ---- */

static void text_report(struct qy_text *out, const quarry_view_report *r)
{
	qy_text_format(out, "objects %llu (", long_of(r->objects));
	qy_text_bytes(out, r->objects_bytes);
	qy_text_format(out, "), in caches %llu (", long_of(r->cached));
	qy_text_bytes(out, r->cached_bytes);
	qy_text_format(out, "),\nlarge blocks %llu (", long_of(r->blocks));
	qy_text_bytes(out, r->blocks_bytes);
	qy_text_format(out, ")%s\n\n", r->exact ? "" : "; not exact");
}

static void text_what(struct qy_text *out, const quarry_view_use *use)
{
	if (use->kind == QUARRY_VIEW_REGION)
		qy_text_format(out, "%8s", "by 2M");
	else if (use->kind == QUARRY_VIEW_BLOCK)
		qy_text_format(out, "%8s", "large");
	else if (use->object_size == 0)
		qy_text_format(out, "%8s", "mixed");
	else
		qy_text_format(out, "%8zu", use->object_size);
}

static void text_row(struct qy_text *out, const quarry_view_use *use, bool named)
{
	const char *name = use->arena_name[0] ? use->arena_name : "(no name)";
	size_t n = qy_min(strlen(name), NAME_WIDTH - 1);

	if (named)
		qy_text_quoted(out, name, n, n);
	qy_text_format(out, "%*s", (int)(NAME_WIDTH - (named ? n : 0)), "");
	text_what(out, use);
	qy_text_bytes_short(out, use->live_bytes, 8);
	qy_text_bytes_short(out, use->cached_bytes, 8);
	qy_text_bytes_short(out, use->held, 8);
	for (int i = 0; i < 4; i++)
		qy_text_bytes_short(out, use->held_by_use[i], 8);
	qy_text_put(out, "\n", 1);
}

static void text_rows(struct qy_text *out, const struct qy_uses *uses)
{
	const quarry_arena *before = NULL;

	qy_text_format(out, "%*s%s\n", NAME_WIDTH + 31, "", "held by what is used to less than");
	qy_text_format(out, "%-*s%8s%8s%8s%8s%8s%8s%8s%8s\n", NAME_WIDTH, "arena", "size", "live", "cached", "held", "25 %",
		       "50 %", "75 %", "more");
	for (size_t i = 0; i < uses->count; i++) {
		if (uses->rows[i].kind == 0)
			continue;
		text_row(out, &uses->rows[i], uses->rows[i].arena != before);
		before = uses->rows[i].arena;
	}
}

/* ---- for programs ---- */

static void json_report(struct qy_text *out, const quarry_view_report *r)
{
	qy_text_format(out, "{\"quarry_view\":1,\n\"exact\":%u,\"unsettled\":%u,\"missed\":%u,\"arenas_ended\":%u,\"threads\":%u,",
		       r->exact, r->unsettled, r->missed, r->arenas_ended, r->threads);
	qy_text_format(out, "\n\"moment_ns\":%llu,\"longest_ns\":%llu,\"took_ns\":%llu,", long_of(r->moment_ns),
		       long_of(r->longest_ns), long_of(r->took_ns));
	qy_text_format(out, "\n\"regions\":%llu,\"slabs\":%llu,\"blocks\":%llu,\"blocks_bytes\":%llu,", long_of(r->regions),
		       long_of(r->slabs), long_of(r->blocks), long_of(r->blocks_bytes));
	qy_text_format(out, "\"objects\":%llu,\"objects_bytes\":%llu,\"cached\":%llu,\"cached_bytes\":%llu,\n\"uses\":[",
		       long_of(r->objects), long_of(r->objects_bytes), long_of(r->cached), long_of(r->cached_bytes));
}

static void json_row(struct qy_text *out, const quarry_view_use *use, bool first)
{
	static const char *const kinds[] = { [QUARRY_VIEW_REGION] = "huge_pages", [QUARRY_VIEW_SLAB] = "slabs",
					     [QUARRY_VIEW_BLOCK] = "blocks" };

	qy_text_format(out, "%s\n{\"arena\":", first ? "" : ",");
	qy_print_json_string(out, use->arena_name, strlen(use->arena_name));
	qy_text_format(out, ",\"kind\":\"%s\",\"object_size\":%zu,\"count\":%llu,\"held\":%llu,\"objects\":%llu",
		       kinds[use->kind], use->object_size, long_of(use->count), long_of(use->held), long_of(use->objects));
	qy_text_format(out, ",\"live\":%llu,\"cached\":%llu,\"live_bytes\":%llu,\"cached_bytes\":%llu,\"held_by_use\":[",
		       long_of(use->live), long_of(use->cached), long_of(use->live_bytes), long_of(use->cached_bytes));
	for (int i = 0; i < 4; i++)
		qy_text_format(out, "%s%llu", i ? "," : "", long_of(use->held_by_use[i]));
	qy_text_format(out, "]}");
}

static void json_rows(struct qy_text *out, const struct qy_uses *uses)
{
	bool first = true;

	for (size_t i = 0; i < uses->count; i++) {
		if (uses->rows[i].kind == 0)
			continue;
		json_row(out, &uses->rows[i], first);
		first = false;
	}
	qy_text_put(out, "]", 1);
}

QUARRY_API int quarry_view_print(const quarry_view *view, int fd, int json)
{
	quarry_view_report report = { .struct_size = sizeof(report) };
	char buffer[QY_PRINT_BUFFER];
	struct qy_uses uses;
	struct qy_text out;

	if (fd < 0)
		return qy_fail(EBADF, "fd: %d is no descriptor", fd);
	if (quarry_view_report_get(view, &report) != 0)
		return -1;
	if (!qy_uses_get(&uses, view))
		return qy_fail(ENOMEM, "no memory for the rows");
	qy_text_init(&out, buffer, sizeof(buffer), fd);
	if (json) {
		json_report(&out, &report);
		json_rows(&out, &uses);
		qy_holders_json(&out, &uses);
		qy_text_format(&out, "}\n");
	} else {
		text_report(&out, &report);
		text_rows(&out, &uses);
		qy_holders_text(&out, &uses);
	}
	qy_uses_put(&uses);
	return qy_text_flush(&out) == 0 ? 0 : qy_fail(errno, "fd: not all could be written to %d", fd);
}
