/* SPDX-License-Identifier: MIT */
/* `quarry leaks`: reports of leaks that the library wrote as JSON, their addresses named as those of profiles are. */
#include "tools/leaks.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lib/view/rules.h"
#include "tools/json.h"
#include "tools/tools.h"
#include "tools/utf8.h"

struct look {
	const char *path, *rules_path;
	char *rules; /* as qy_rules_copy has them; NULL: there are none */
	bool all, json, check;
};

static bool is_told(const struct leak *l, const struct look *look)
{
	return look->all || (l->objects > 0 && !l->suppressed);
}

static struct leak_sums sums_of_all(const struct leaks *l)
{
	struct leak_sums all = { .objects = 0 };
	uint64_t *to = (uint64_t *)&all;

	for (size_t i = 0; i < l->report_count; i++)
		for (size_t k = 0; k < sizeof(all) / sizeof(*to); k++)
			to[k] = flame_sum(to[k], ((const uint64_t *)&l->reports[i].sums)[k]);
	return all;
}

/* Each function of the place, those that were inlined first; fn says what to do with one. */
static void each_function(const struct leaks *r, const struct leak *l,
			  void (*fn)(const struct flame_function *f, uint32_t line, unsigned number, const struct leaks *r))
{
	unsigned number = 0;

	for (uint32_t i = 0; i < l->depth; i++) {
		const struct flame_place *place = &r->names.places[r->places[l->first + i]];

		for (uint32_t k = 0; k < place->count; k++)
			fn(&r->names.functions[r->names.functions_of[place->first + k]],
			   k + 1 == place->count ? place->line : 0, number++, r);
	}
}

/* ---- suppressions ---- */

static int read_rules(struct look *look)
{
	char *text = NULL;
	size_t length = 0;
	unsigned line;
	int status = read_input("leaks", look->rules_path, &text, &length);

	if (status == STATUS_OK) {
		look->rules = malloc(length + 2);
		if (!look->rules)
			status = fail(STATUS_FAILED, "leaks: no memory");
	}
	line = look->rules ? qy_rules_copy(text, length, look->rules) : 0;
	if (line > 0)
		status = fail(STATUS_FAILED, "leaks: %s: line %u is not leak:PATTERN", input_name(look->rules_path), line);
	free(text);
	return status;
}

/* By the names that are told, which a rule may have been copied from; files are told by the last part of their paths. */
static const char *rule_for(const char *rules, const struct leaks *r, const struct leak *l)
{
	for (uint32_t i = 0; i < l->depth; i++) {
		const struct flame_place *place = &r->names.places[r->places[l->first + i]];

		for (uint32_t k = 0; k < place->count; k++) {
			const struct flame_function *f = &r->names.functions[r->names.functions_of[place->first + k]];
			const char *module = f->module == FLAME_NONE ? NULL : r->names.modules[f->module].path;
			const char *rule = qy_rules_match(rules, f->name);

			rule = rule ? rule : qy_rules_match(rules, f->file);
			rule = rule ? rule : qy_rules_match(rules, module);
			if (rule)
				return rule;
		}
	}
	return NULL;
}

static void suppress(struct leaks *r, const char *rules)
{
	for (size_t i = 0; i < r->report_count; i++) {
		struct leak_sums *sums = &r->reports[i].sums;

		for (size_t k = 0; k < r->reports[i].count; k++) {
			struct leak *l = &r->leaks[r->reports[i].first + k];

			if (l->suppressed)
				continue;
			l->suppressed = rule_for(rules, r, l);
			if (!l->suppressed)
				continue;
			sums->suppressed_objects = flame_sum(sums->suppressed_objects, flame_sum(l->objects, l->held_objects));
			sums->suppressed_bytes = flame_sum(sums->suppressed_bytes, flame_sum(l->bytes, l->held_bytes));
		}
	}
}

/* ---- as text ---- */

/* What a report has from a program: names of arenas, rules, files. */
static void put(const char *text)
{
	utf8_put(stdout, text, 1024);
}

static void put_function(const struct flame_function *f, uint32_t line, unsigned number, const struct leaks *r)
{
	printf("    #%u ", number);
	put(f->name);
	if (f->file) {
		putchar(' ');
		put(f->file);
		if (line > 0)
			printf(":%" PRIu32, line);
	} else if (f->module != FLAME_NONE) {
		printf(" (");
		put(flame_module_name(&r->names, f->module));
		putchar(')');
	}
	putchar('\n');
}

static const char *objects_text(uint64_t objects)
{
	return objects == 1 ? "object" : "objects";
}

static void put_leak(const struct leaks *r, const struct leak *l)
{
	if (l->objects > 0)
		printf("%" PRIu64 " %s, %s, cannot be reached", l->objects, objects_text(l->objects), bytes_text(l->bytes));
	else
		printf("nothing that leaked");
	if (l->held_objects > 0)
		printf(", and %" PRIu64 " %s, %s, by %s alone", l->held_objects, objects_text(l->held_objects),
		       bytes_text(l->held_bytes), l->objects == 1 ? "it" : "them");
	if (l->suppressed) {
		printf("; suppressed by ");
		put(l->suppressed);
	}
	printf("\n    %" PRIu64 " bytes each, in arena ", l->size);
	put(l->arena ? l->arena : "");
	if (l->reachable > 0)
		printf("; %" PRIu64 " more can be reached", l->reachable);
	for (unsigned i = 0; i < l->examples; i++)
		printf("%s0x%" PRIx64, i == 0 ? ": " : ", ", l->example[i]);
	printf("%s\n", l->objects > LEAK_EXAMPLES ? ", ..." : "");
	each_function(r, l, put_function);
	if (l->depth == 0)
		printf("    where it was allocated is not known (profile=1 knows)\n");
}

static void put_sums(const struct leak_sums *s)
{
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

static void put_text(const struct leaks *r, const struct look *look)
{
	struct leak_sums all = sums_of_all(r);

	for (size_t i = 0; i < r->report_count; i++) {
		const struct leak_report *report = &r->reports[i];

		if (r->report_count > 1)
			printf("%sprocess %" PRIu64 ":\n", i > 0 ? "\n" : "", report->pid);
		for (size_t k = 0; k < report->count; k++)
			if (is_told(&r->leaks[report->first + k], look))
				put_leak(r, &r->leaks[report->first + k]);
		put_sums(&report->sums);
		if (report->rules_error) {
			put(report->rules_error);
			putchar('\n');
		}
	}
	if (r->report_count > 1) {
		printf("\n%zu processes:\n", r->report_count);
		put_sums(&all);
	}
}

/* ---- as JSON ---- */

static void put_json_function(const struct flame_function *f, uint32_t line, unsigned number, const struct leaks *r)
{
	printf("%s{\"function\":", number > 0 ? "," : "");
	json_put_string(stdout, f->name);
	printf(",\"module\":");
	json_put_string(stdout, f->module == FLAME_NONE ? "" : flame_module_name(&r->names, f->module));
	printf(",\"file\":");
	json_put_string(stdout, f->file ? f->file : "");
	printf(",\"line\":%" PRIu32 "}", line);
}

static void put_json_leak(const struct leaks *r, const struct leak *l, uint64_t pid, const char *comma)
{
	printf("%s\n {\"pid\":%" PRIu64 ",\"objects\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"held_objects\":%" PRIu64
	       ",\"held_bytes\":%" PRIu64 ",\"reachable_objects\":%" PRIu64 ",\"object_size\":%" PRIu64
	       ",\"node\":%d,\"suppressed\":%s,\"arena\":",
	       comma, pid, l->objects, l->bytes, l->held_objects, l->held_bytes, l->reachable, l->size, l->node,
	       l->suppressed ? "true" : "false");
	json_put_string(stdout, l->arena ? l->arena : "");
	printf(",\"stack\":[");
	each_function(r, l, put_json_function);
	printf("]}");
}

static void put_json_sums(const struct leak_sums *s)
{
	printf("\"objects\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"held_objects\":%" PRIu64 ",\"held_bytes\":%" PRIu64
	       ",\"suppressed_objects\":%" PRIu64 ",\"live_objects\":%" PRIu64 ",\"live_bytes\":%" PRIu64 "}",
	       s->objects, s->bytes, s->held_objects, s->held_bytes, s->suppressed_objects, s->live_objects, s->live_bytes);
}

static void put_json(const struct leaks *r, const struct look *look)
{
	struct leak_sums all = sums_of_all(r);
	const char *comma = "";

	printf("{\"leaks\":[");
	for (size_t i = 0; i < r->report_count; i++)
		for (size_t k = 0; k < r->reports[i].count; k++) {
			const struct leak *l = &r->leaks[r->reports[i].first + k];

			if (!is_told(l, look))
				continue;
			put_json_leak(r, l, r->reports[i].pid, comma);
			comma = ",";
		}
	printf("],\n\"processes\":[");
	for (size_t i = 0; i < r->report_count; i++) {
		printf("%s\n {\"pid\":%" PRIu64 ",", i > 0 ? "," : "", r->reports[i].pid);
		if (r->reports[i].rules_error) {
			printf("\"suppressions_error\":");
			json_put_string(stdout, r->reports[i].rules_error);
			putchar(',');
		}
		put_json_sums(&r->reports[i].sums);
	}
	printf("],\n");
	put_json_sums(&all);
	putchar('\n');
}

/* ---- the command ---- */

static int set_rules(struct look *look, const char *path)
{
	if (!path)
		return fail(STATUS_USAGE, "leaks: --suppressions needs a FILE, or - for standard input");
	if (look->rules_path)
		return fail(STATUS_USAGE, "leaks: one file of --suppressions at a time; see quarry leaks --help");
	look->rules_path = path;
	return STATUS_OK;
}

static int parse(int argc, char **argv, struct look *look)
{
	for (int i = 1; i < argc; i++) {
		const char *a = argv[i];
		int status = STATUS_OK;

		if (strcmp(a, "--all") == 0)
			look->all = true;
		else if (strcmp(a, "--suppressions") == 0)
			status = set_rules(look, argv[++i < argc ? i : argc]);
		else if (strncmp(a, "--suppressions=", 15) == 0)
			status = set_rules(look, a + 15);
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
		if (status != STATUS_OK)
			return status;
	}
	if (look->path && look->rules_path && strcmp(look->path, "-") == 0 && strcmp(look->rules_path, "-") == 0)
		return fail(STATUS_USAGE, "leaks: one of FILE and --suppressions may be -, standard input");
	return look->path ? STATUS_OK : fail(STATUS_USAGE, "leaks: no FILE; see quarry leaks --help");
}

/* (By the sums only where a report has left places out: what is suppressed counts there with what it holds.) */
static bool leaked(const struct leaks *r)
{
	for (size_t i = 0; i < r->report_count; i++) {
		const struct leak_sums *sums = &r->reports[i].sums;
		uint64_t told = 0;

		for (size_t k = 0; k < r->reports[i].count; k++) {
			const struct leak *l = &r->leaks[r->reports[i].first + k];

			if (l->objects > 0 && !l->suppressed)
				return true;
			told = flame_sum(told, l->objects);
		}
		if (sums->objects > told && sums->objects > sums->suppressed_objects)
			return true;
	}
	return false;
}

int command_leaks(int argc, char **argv)
{
	struct look look = { 0 };
	struct leaks r = { .leak_count = 0 };
	int status = parse(argc, argv, &look);

	if (status == STATUS_OK && look.rules_path)
		status = read_rules(&look);
	if (status == STATUS_OK)
		status = leaks_read(&r, look.path);
	/* (For a script that is no answer.) */
	if (look.check && status == STATUS_FAILED)
		status = STATUS_USAGE;
	if (status == STATUS_OK) {
		if (look.rules)
			suppress(&r, look.rules);
		(look.json ? put_json : put_text)(&r, &look);
		if (look.check && leaked(&r))
			status = fail(STATUS_FAILED, "leaks: %s: there are leaks", look.path);
	}
	leaks_free(&r);
	free(look.rules);
	return status;
}
