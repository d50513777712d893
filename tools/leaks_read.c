/* SPDX-License-Identifier: MIT */
/* Reading reports of leaks, which stand alone in a file or among other lines, as where programs wrote to standard error as
 * well. Nobody vouches for the file. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tools/leaks.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tools/json.h"
#include "tools/tools.h"
#include "tools/utf8.h"

#define BEGINS "{\"quarry_leaks\":1,"
#define FRAMES_MOST 512 /* of a stack */
#define LEAKS_MOST ((size_t)1 << 20)
#define REPORTS_MOST 65536

/* What a process had loaded, and where that is in files: the same place in one is the same in all processes. */
struct mapping {
	uint64_t from, to, offset;
	uint32_t file;
};

struct reader {
	struct json json;
	struct leaks *to;
	struct leak_report *report;
	/* Of this report: */
	uint64_t *addresses;
	struct mapping *mappings;
	size_t address_count, address_room, mapping_count, mapping_room;
};

static bool read_address(struct json *j, uint64_t *address)
{
	char text[24], *end;

	if (!json_string(j, text, sizeof(text)))
		return false;
	errno = 0;
	*address = strtoull(text, &end, 16);
	return (text[0] != 0 && *end == 0 && errno == 0) || json_fail(j, "an address is expected");
}

/* ---- a leak ---- */

static void read_text_of(struct reader *r, const char **text)
{
	char buffer[JSON_STRING_MAX];

	if (json_string(&r->json, buffer, sizeof(buffer)))
		*text = flame_keep(&r->to->names, buffer, strlen(buffer));
}

static void read_stack(struct reader *r, struct leak *l)
{
	struct flame_profile *p = &r->to->names;
	bool first = true;
	uint64_t address;

	l->first = r->to->place_count + r->address_count;
	json_enter(&r->json, '[');
	while (json_next(&r->json, ']', &first) && read_address(&r->json, &address)) {
		if (l->depth == FRAMES_MOST ||
		    !flame_grow(p, &r->addresses, r->address_count, &r->address_room, sizeof(r->addresses[0]),
				FLAME_FRAMES_MAX - r->to->place_count, "more than 16777216 frames of all stacks together"))
			continue;
		r->addresses[r->address_count++] = address;
		l->depth++;
	}
}

static void read_examples(struct json *j, struct leak *l)
{
	bool first = true;
	uint64_t address;

	json_enter(j, '[');
	while (json_next(j, ']', &first) && read_address(j, &address))
		if (l->examples < LEAK_EXAMPLES)
			l->example[l->examples++] = address;
}

static bool read_figure(struct json *j, struct leak *l)
{
	const struct {
		const char *name;
		uint64_t *to;
	} figures[] = {
		{ "objects", &l->objects },		{ "bytes", &l->bytes },
		{ "held_objects", &l->held_objects },	{ "held_bytes", &l->held_bytes },
		{ "reachable_objects", &l->reachable }, { "object_size", &l->size },
	};

	for (size_t i = 0; i < sizeof(figures) / sizeof(figures[0]); i++)
		if (json_key(j, figures[i].name)) {
			json_unsigned(j, figures[i].to);
			return true;
		}
	return false;
}

static void read_leak(struct reader *r)
{
	struct leaks *to = r->to;
	struct json *j = &r->json;
	struct leak *l;
	bool first = true;

	if (!flame_grow(&to->names, &to->leaks, to->leak_count, &to->leak_room, sizeof(to->leaks[0]), LEAKS_MOST,
			"more than 1048576 places that leak"))
		return;
	l = &to->leaks[to->leak_count++];
	*l = (struct leak){ .node = -1 };
	json_enter(j, '{');
	while (json_next(j, '}', &first)) {
		if (read_figure(j, l))
			continue;
		if (json_key(j, "node"))
			json_integer(j, &l->node);
		else if (json_key(j, "arena") && !l->arena)
			read_text_of(r, &l->arena);
		else if (json_key(j, "suppressed") && !l->suppressed)
			read_text_of(r, &l->suppressed);
		else if (json_key(j, "examples"))
			read_examples(j, l);
		else if (json_key(j, "stack") && l->depth == 0)
			read_stack(r, l);
		else
			json_skip(j);
	}
}

/* ---- what was loaded ---- */

static void read_mapping(struct reader *r)
{
	struct mapping m = { .from = 0 };
	char path[JSON_STRING_MAX] = "", id[128] = "";
	struct json *j = &r->json;
	bool first = true;

	json_enter(j, '{');
	while (json_next(j, '}', &first)) {
		if (json_key(j, "from"))
			read_address(j, &m.from);
		else if (json_key(j, "to"))
			read_address(j, &m.to);
		else if (json_key(j, "offset"))
			json_unsigned(j, &m.offset);
		else if (json_key(j, "path"))
			json_string(j, path, sizeof(path));
		else if (json_key(j, "build_id"))
			json_string(j, id, sizeof(id));
		else
			json_skip(j);
	}
	m.file = flame_file(&r->to->names, path, id);
	if (m.file != FLAME_NONE && flame_grow(&r->to->names, &r->mappings, r->mapping_count, &r->mapping_room, sizeof(m),
					       FLAME_MODULES_MAX, "more than 65536 loaded files"))
		r->mappings[r->mapping_count++] = m;
}

static int by_start(const void *a, const void *b)
{
	const struct mapping *x = a, *y = b;

	return x->from < y->from ? -1 : x->from > y->from;
}

/* A call that is in one of them: 0. */
static int is_in(const void *call, const void *mapping)
{
	const struct mapping *m = mapping;
	uint64_t at = *(const uint64_t *)call;

	return at < m->from ? -1 : at >= m->to;
}

/* Return addresses: the call is before them. */
static bool place_all(struct reader *r)
{
	struct leaks *to = r->to;

	if (r->mapping_count)
		qsort(r->mappings, r->mapping_count, sizeof(r->mappings[0]), by_start);
	for (size_t i = 0; i < r->address_count; i++) {
		uint64_t call = r->addresses[i] - (r->addresses[i] > 0);
		const struct mapping *m =
			r->mapping_count ? bsearch(&call, r->mappings, r->mapping_count, sizeof(*m), is_in) : NULL;
		uint32_t place = m ? flame_place_at(&to->names, call - m->from + m->offset, m->file) :
				     flame_place_at(&to->names, call, FLAME_NONE);

		if (place == FLAME_NONE || !flame_grow(&to->names, &to->places, to->place_count, &to->place_room,
						       sizeof(place), FLAME_FRAMES_MAX, "too many frames"))
			return false;
		to->places[to->place_count++] = place;
	}
	return true;
}

/* ---- a report ---- */

static void read_list(struct reader *r, void (*read_one)(struct reader *r))
{
	bool first = true;

	json_enter(&r->json, '[');
	while (json_next(&r->json, ']', &first) && !r->to->names.error)
		read_one(r);
}

static bool read_sum(struct json *j, struct leak_sums *s)
{
	const struct {
		const char *name;
		uint64_t *sum;
	} sums[] = {
		{ "live_objects", &s->live_objects },	{ "live_bytes", &s->live_bytes },
		{ "objects", &s->objects },		{ "bytes", &s->bytes },
		{ "held_objects", &s->held_objects },	{ "held_bytes", &s->held_bytes },
		{ "suppressed_objects", &s->suppressed_objects }, { "suppressed_bytes", &s->suppressed_bytes },
		{ "threads", &s->threads },		{ "unread", &s->unread },
		{ "scans", &s->scans },			{ "inexact", &s->inexact },
	};

	for (size_t i = 0; i < sizeof(sums) / sizeof(sums[0]); i++)
		if (json_key(j, sums[i].name)) {
			json_unsigned(j, sums[i].sum);
			return true;
		}
	return false;
}

static bool read_report(struct reader *r)
{
	struct leaks *to = r->to;
	struct json *j = &r->json;
	bool first = true;

	if (!flame_grow(&to->names, &to->reports, to->report_count, &to->report_room, sizeof(to->reports[0]), REPORTS_MOST,
			"more than 65536 reports"))
		return false;
	r->report = &to->reports[to->report_count++];
	*r->report = (struct leak_report){ .first = to->leak_count };
	r->address_count = r->mapping_count = 0;
	json_enter(j, '{');
	while (json_next(j, '}', &first) && !to->names.error) {
		if (json_key(j, "leaks"))
			read_list(r, read_leak);
		else if (json_key(j, "files"))
			read_list(r, read_mapping);
		else if (json_key(j, "pid"))
			json_unsigned(j, &r->report->pid);
		else if (json_key(j, "suppressions_error"))
			read_text_of(r, &r->report->rules_error);
		else if (!read_sum(j, &r->report->sums))
			json_skip(j);
	}
	r->report->count = to->leak_count - r->report->first;
	return !j->error && !to->names.error && place_all(r);
}

/* Wherever on a line it begins: what a program had said before may have had no end. */
static int read_reports(struct reader *r, const char *name, const char *text, size_t length)
{
	const char *from = memmem(text, length, BEGINS, strlen(BEGINS)), *end = text + length;
	struct leaks *to = r->to;

	if (!from)
		return fail(STATUS_FAILED, "leaks: %s: no report of leaks as JSON; see quarry leaks --help", name);
	for (; from; from = memmem(r->json.at, (size_t)(end - r->json.at), BEGINS, strlen(BEGINS))) {
		json_init(&r->json, from, (size_t)(end - from));
		if (!read_report(r))
			break;
	}
	if (r->json.error)
		return fail(STATUS_FAILED, "leaks: %s: line %lu of report %zu: %s%s%s", name, json_line(&r->json),
			    to->report_count, utf8_shown(r->json.about), r->json.about[0] ? ": " : "", r->json.error);
	if (to->names.error || !flame_name(&to->names))
		return fail(STATUS_FAILED, "leaks: %s: %s", name, to->names.error);
	return STATUS_OK;
}

int leaks_read(struct leaks *l, const char *path)
{
	struct reader r = { .to = l };
	size_t length = 0;
	char *text = NULL;
	int status = read_input("leaks", path, &text, &length);

	if (status == STATUS_OK)
		status = read_reports(&r, input_name(path), text, length);
	free(text);
	free(r.addresses);
	free(r.mappings);
	return status;
}

void leaks_free(struct leaks *l)
{
	flame_free(&l->names);
	free(l->reports);
	free(l->leaks);
	free(l->places);
}
