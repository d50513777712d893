/* SPDX-License-Identifier: MIT */
/* `quarry leaks`: a report of leaks that the library wrote as JSON, its addresses named as those of profiles are. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/flame.h"
#include "tools/json.h"
#include "tools/tools.h"

#define BEGINS "{\"quarry_leaks\":1,"
#define FRAMES_MOST 512 /* of a stack */
#define EXAMPLES 4

struct leak {
	uint64_t objects, bytes, held_objects, held_bytes, reachable, size;
	int node;
	const char *arena, *suppressed; /* suppressed: NULL: it is not */
	char example[EXAMPLES][24];
	size_t first; /* in addresses */
	uint32_t depth;
};

struct sums {
	uint64_t live_objects, live_bytes, objects, bytes, held_objects, held_bytes, suppressed_objects, suppressed_bytes;
	uint64_t threads, unread, scans, inexact;
};

struct report {
	struct flame_profile names; /* files, and a place for each address */
	struct leak *leaks;
	size_t count, room;
	uint64_t *addresses;
	uint32_t *places;
	size_t address_count, address_room;
	struct sums sums;
};

struct look {
	const char *path;
	bool all, json, check;
};

/* ---- reading ---- */

static bool read_address(struct json *j, uint64_t *address)
{
	char text[24], *end;

	if (!json_string(j, text, sizeof(text)))
		return false;
	errno = 0;
	*address = strtoull(text, &end, 16);
	return (text[0] != 0 && *end == 0 && errno == 0) || json_fail(j, "an address is expected");
}

static void read_text_of(struct json *j, struct report *r, const char **text)
{
	char buffer[JSON_STRING_MAX];

	if (json_string(j, buffer, sizeof(buffer)))
		*text = flame_keep(&r->names, buffer, strlen(buffer));
}

static void read_stack(struct json *j, struct report *r, struct leak *l)
{
	bool first = true;
	uint64_t address;

	l->first = r->address_count;
	json_enter(j, '[');
	while (json_next(j, ']', &first) && read_address(j, &address)) {
		if (l->depth == FRAMES_MOST ||
		    !flame_grow(&r->names, &r->addresses, r->address_count, &r->address_room, sizeof(r->addresses[0])))
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
	for (unsigned n = 0; json_next(j, ']', &first) && read_address(j, &address); n++)
		if (n < EXAMPLES)
			snprintf(l->example[n], sizeof(l->example[n]), "0x%" PRIx64, address);
}

static void read_leak(struct json *j, struct report *r)
{
	struct leak *l;
	bool first = true;

	if (!flame_grow(&r->names, &r->leaks, r->count, &r->room, sizeof(r->leaks[0])))
		return;
	l = &r->leaks[r->count++];
	*l = (struct leak){ .node = -1 };
	json_enter(j, '{');
	while (json_next(j, '}', &first)) {
		if (json_key(j, "objects"))
			json_unsigned(j, &l->objects);
		else if (json_key(j, "bytes"))
			json_unsigned(j, &l->bytes);
		else if (json_key(j, "held_objects"))
			json_unsigned(j, &l->held_objects);
		else if (json_key(j, "held_bytes"))
			json_unsigned(j, &l->held_bytes);
		else if (json_key(j, "reachable_objects"))
			json_unsigned(j, &l->reachable);
		else if (json_key(j, "object_size"))
			json_unsigned(j, &l->size);
		else if (json_key(j, "node"))
			json_integer(j, &l->node);
		else if (json_key(j, "arena") && !l->arena)
			read_text_of(j, r, &l->arena);
		else if (json_key(j, "suppressed") && !l->suppressed)
			read_text_of(j, r, &l->suppressed);
		else if (json_key(j, "examples"))
			read_examples(j, l);
		else if (json_key(j, "stack") && l->depth == 0)
			read_stack(j, r, l);
		else
			json_skip(j);
	}
}

static void read_file(struct json *j, struct report *r)
{
	struct flame_module m = { .state = FLAME_UNUSED };
	char path[JSON_STRING_MAX] = "", id[128] = "";
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
	m.path = strdup(path);
	m.id = strdup(id);
	if (!m.path || !m.id || !flame_add_module(&r->names, &m)) {
		r->names.no_memory = r->names.no_memory || !m.path || !m.id;
		free(m.path);
		free(m.id);
	}
}

static void read_list(struct json *j, struct report *r, void (*read_one)(struct json *j, struct report *r))
{
	bool first = true;

	json_enter(j, '[');
	while (json_next(j, ']', &first) && !r->names.error && !r->names.no_memory)
		read_one(j, r);
}

static bool read_sum(struct json *j, struct sums *s)
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
		if (json_key(j, sums[i].name))
			return json_unsigned(j, sums[i].sum);
	return false;
}

static void read_report(struct json *j, struct report *r)
{
	bool first = true;

	json_enter(j, '{');
	while (json_next(j, '}', &first) && !r->names.error && !r->names.no_memory) {
		if (json_key(j, "leaks"))
			read_list(j, r, read_leak);
		else if (json_key(j, "files"))
			read_list(j, r, read_file);
		else if (!read_sum(j, &r->sums))
			json_skip(j);
	}
}

/* Return addresses: the call is before them. */
static bool place_all(struct report *r)
{
	struct flame_profile *p = &r->names;

	r->places = calloc(r->address_count + 1, sizeof(r->places[0]));
	for (size_t i = 0; r->places && i < r->address_count; i++) {
		uint64_t call = r->addresses[i] - (r->addresses[i] > 0);
		uint32_t module = 0;

		while (module < p->module_count && !(call >= p->modules[module].from && call < p->modules[module].to))
			module++;
		r->places[i] = flame_add_place(p, call, module < p->module_count ? module : FLAME_NONE);
		if (r->places[i] == FLAME_NONE)
			return false;
	}
	return r->places && flame_name(p);
}

/* The report alone, or among other lines, as where the program wrote to standard error as well. */
static int read_text_report(struct report *r, const char *name, const char *text, size_t length)
{
	const char *from = memmem(text, length, BEGINS, strlen(BEGINS));
	struct json j;

	if (!from || (from > text && from[-1] != '\n'))
		return fail(STATUS_FAILED, "leaks: %s: no report of leaks as JSON; see quarry leaks --help", name);
	json_init(&j, from, (size_t)(text + length - from));
	read_report(&j, r);
	if (j.error)
		return fail(STATUS_FAILED, "leaks: %s: line %lu of the report: %s%s%s", name, json_line(&j), j.about,
			    j.about[0] ? ": " : "", j.error);
	if (r->names.error)
		return fail(STATUS_FAILED, "leaks: %s: %s", name, r->names.error);
	if (r->names.no_memory || !place_all(r))
		return fail(STATUS_FAILED, "leaks: %s: %s", name, strerror(ENOMEM));
	return STATUS_OK;
}

static int read_path(struct report *r, const char *path)
{
	size_t length = 0;
	char *text = NULL;
	int status = read_input("leaks", path, &text, &length);

	if (status == STATUS_OK)
		status = read_text_report(r, input_name(path), text, length);
	free(text);
	return status;
}

/* ---- telling ---- */

static bool is_told(const struct leak *l, const struct look *look)
{
	return look->all || (l->objects > 0 && !l->suppressed);
}

/* Each function of the place, those that were inlined first; fn says what to do with one. */
static void each_function(const struct report *r, const struct leak *l,
			  void (*fn)(const struct flame_function *f, uint32_t line, unsigned number, const struct report *r))
{
	unsigned number = 0;

	for (uint32_t i = 0; i < l->depth; i++) {
		const struct flame_place *place = &r->names.places[r->places[l->first + i]];

		for (uint32_t k = 0; k < place->count; k++)
			fn(&r->names.functions[r->names.functions_of[place->first + k]],
			   k + 1 == place->count ? place->line : 0, number++, r);
	}
}

static void put_function(const struct flame_function *f, uint32_t line, unsigned number, const struct report *r)
{
	printf("    #%u %s", number, f->name);
	if (f->file && line > 0)
		printf(" %s:%" PRIu32, f->file, line);
	else if (f->file)
		printf(" %s", f->file);
	else if (f->module != FLAME_NONE)
		printf(" (%s)", flame_module_name(&r->names, f->module));
	putchar('\n');
}

static const char *objects_text(uint64_t objects)
{
	return objects == 1 ? "object" : "objects";
}

static void put_leak(const struct report *r, const struct leak *l)
{
	if (l->objects > 0)
		printf("%" PRIu64 " %s, %s, cannot be reached", l->objects, objects_text(l->objects), bytes_text(l->bytes));
	else
		printf("nothing that leaked");
	if (l->held_objects > 0)
		printf(", and %" PRIu64 " %s, %s, by %s alone", l->held_objects, objects_text(l->held_objects),
		       bytes_text(l->held_bytes), l->objects == 1 ? "it" : "them");
	printf("%s%s\n    %" PRIu64 " bytes each, in arena %s", l->suppressed ? "; suppressed by " : "",
	       l->suppressed ? l->suppressed : "", l->size, l->arena ? l->arena : "");
	if (l->reachable > 0)
		printf("; %" PRIu64 " more can be reached", l->reachable);
	for (unsigned i = 0; i < EXAMPLES && l->example[i][0]; i++)
		printf("%s%s", i == 0 ? ": " : ", ", l->example[i]);
	printf("%s\n", l->objects > EXAMPLES ? ", ..." : "");
	each_function(r, l, put_function);
	if (l->depth == 0)
		printf("    where it was allocated is not known (profile=1 knows)\n");
}

static void put_text(const struct report *r, const struct look *look)
{
	const struct sums *s = &r->sums;

	for (size_t i = 0; i < r->count; i++)
		if (is_told(&r->leaks[i], look))
			put_leak(r, &r->leaks[i]);
	printf("%" PRIu64 " %s, %s, cannot be reached", s->objects, objects_text(s->objects), bytes_text(s->bytes));
	if (s->held_objects > 0)
		printf(", with %" PRIu64 " behind, %s", s->held_objects, bytes_text(s->held_bytes));
	printf("; of %" PRIu64 " that live, %s\n", s->live_objects, bytes_text(s->live_bytes));
	if (s->suppressed_objects > 0)
		printf("%" PRIu64 " of those are suppressed, %s\n", s->suppressed_objects, bytes_text(s->suppressed_bytes));
	if (s->unread > 0)
		printf("the registers of %" PRIu64 " of %" PRIu64 " threads could not be read: %" PRIu64 " scans\n", s->unread,
		       s->threads, s->scans);
	if (s->inexact > 0)
		printf("%" PRIu64 " slabs or lists could not be looked at: there may be less\n", s->inexact);
}

static void put_json_function(const struct flame_function *f, uint32_t line, unsigned number, const struct report *r)
{
	printf("%s{\"function\":", number > 0 ? "," : "");
	json_put_string(stdout, f->name);
	printf(",\"module\":");
	json_put_string(stdout, f->module == FLAME_NONE ? "" : flame_module_name(&r->names, f->module));
	printf(",\"file\":");
	json_put_string(stdout, f->file ? f->file : "");
	printf(",\"line\":%" PRIu32 "}", line);
}

static void put_json(const struct report *r, const struct look *look)
{
	const struct sums *s = &r->sums;
	const char *comma = "";

	printf("{\"leaks\":[");
	for (size_t i = 0; i < r->count; i++) {
		const struct leak *l = &r->leaks[i];

		if (!is_told(l, look))
			continue;
		printf("%s\n {\"objects\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"held_objects\":%" PRIu64 ",\"held_bytes\":%" PRIu64
		       ",\"reachable_objects\":%" PRIu64 ",\"object_size\":%" PRIu64 ",\"node\":%d,\"suppressed\":%s,\"arena\":",
		       comma, l->objects, l->bytes, l->held_objects, l->held_bytes, l->reachable, l->size, l->node,
		       l->suppressed ? "true" : "false");
		json_put_string(stdout, l->arena ? l->arena : "");
		printf(",\"stack\":[");
		each_function(r, l, put_json_function);
		printf("]}");
		comma = ",";
	}
	printf("],\n\"objects\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"held_objects\":%" PRIu64 ",\"held_bytes\":%" PRIu64
	       ",\"suppressed_objects\":%" PRIu64 ",\"live_objects\":%" PRIu64 ",\"live_bytes\":%" PRIu64 "}\n",
	       s->objects, s->bytes, s->held_objects, s->held_bytes, s->suppressed_objects, s->live_objects, s->live_bytes);
}

/* ---- the command ---- */

static int parse(int argc, char **argv, struct look *look)
{
	for (int i = 1; i < argc; i++) {
		const char *a = argv[i];

		if (strcmp(a, "--all") == 0)
			look->all = true;
		else if (strcmp(a, "--json") == 0)
			look->json = true;
		else if (strcmp(a, "--check") == 0)
			look->check = true;
		else if (a[0] == '-' && a[1] != 0)
			return fail(STATUS_USAGE, "leaks: unknown option '%s'; see quarry leaks --help", a);
		else if (look->path)
			return fail(STATUS_USAGE, "leaks: one FILE at a time; see quarry leaks --help");
		else
			look->path = a;
	}
	return look->path ? STATUS_OK : fail(STATUS_USAGE, "leaks: no FILE; see quarry leaks --help");
}

int command_leaks(int argc, char **argv)
{
	struct report r = { .count = 0 };
	struct look look = { 0 };
	int status = parse(argc, argv, &look);

	if (status == STATUS_OK)
		status = read_path(&r, look.path);
	if (status == STATUS_OK) {
		(look.json ? put_json : put_text)(&r, &look);
		for (size_t i = 0; look.check && i < r.count && status == STATUS_OK; i++)
			if (r.leaks[i].objects > 0 && !r.leaks[i].suppressed)
				status = fail(STATUS_FAILED, "leaks: %s: there are leaks", look.path);
	}
	flame_free(&r.names);
	free(r.leaks);
	free(r.addresses);
	free(r.places);
	return status;
}
