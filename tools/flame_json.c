/* SPDX-License-Identifier: MIT */
/* A profile as JSON: files, functions, and the tree as a list in which each node names its parent, so that no reader has
 * to nest as deep as stacks are. */
#include "tools/flame.h"

#include <inttypes.h>

#include "tools/json.h"

static void put_string(FILE *out, const char *name, const char *text)
{
	fprintf(out, "\"%s\":", name);
	json_put_string(out, text);
}

static void put_number(FILE *out, const char *name, uint32_t n)
{
	if (n == FLAME_NONE)
		fprintf(out, "\"%s\":null", name);
	else
		fprintf(out, "\"%s\":%" PRIu32, name, n);
}

/* (A profile without objects says nothing of them.) */
static void put_values(FILE *out, const struct flame_tree *t, const struct flame_look *look, const uint64_t self[2],
		       const uint64_t total[2])
{
	const struct flame_profile *p = t->profile;

	if (p->has[look->allocated ? FLAME_ALLOCATED_OBJECTS : FLAME_OBJECTS])
		fprintf(out, ",\"self_objects\":%" PRIu64 ",\"objects\":%" PRIu64, self[0], total[0]);
	if (p->has[look->allocated ? FLAME_ALLOCATED_BYTES : FLAME_BYTES])
		fprintf(out, ",\"self_bytes\":%" PRIu64 ",\"bytes\":%" PRIu64, self[1], total[1]);
}

static void put_files(FILE *out, const struct flame_profile *p)
{
	static const char *const states[] = { "unused", "same", "unproven", "replaced", "missing" };
	const char *comma = "";

	fputs(",\n\"files\":[", out);
	for (uint32_t i = 0; i < p->module_count; i++) {
		const struct flame_module *m = &p->modules[i];

		if (m->state == FLAME_UNUSED)
			continue;
		fprintf(out, "%s\n{\"id\":%" PRIu32 ",", comma, i);
		put_string(out, "path", m->path);
		fputc(',', out);
		put_string(out, "build_id", m->id);
		fprintf(out, ",\"state\":\"%s\",\"self_bytes\":%" PRIu64 "}", states[m->state], m->bytes);
		comma = ",";
	}
	fputc(']', out);
}

static void put_functions(FILE *out, const struct flame_tree *t, const struct flame_look *look)
{
	const struct flame_profile *p = t->profile;

	fputs(",\n\"functions\":[", out);
	for (size_t i = 0; i < t->table_count; i++) {
		const struct flame_function *f = &p->functions[t->table[i]];

		fprintf(out, "%s\n{\"id\":%" PRIu32 ",", i ? "," : "", t->table[i]);
		put_string(out, "name", f->name);
		fputc(',', out);
		put_number(out, "file", f->module);
		if (f->file) {
			fputc(',', out);
			put_string(out, "source", f->file);
		}
		put_values(out, t, look, f->self, f->total);
		fputc('}', out);
	}
	fputc(']', out);
}

static void put_tree(FILE *out, const struct flame_tree *t, const struct flame_look *look)
{
	fputs(",\n\"tree\":[", out);
	for (uint32_t i = 0; i < t->count; i++) {
		const struct flame_node *n = &t->nodes[i];

		fprintf(out, "%s\n{", i ? "," : "");
		put_number(out, "parent", i ? n->parent : FLAME_NONE);
		fputc(',', out);
		put_number(out, "function", n->function);
		if (n->line)
			fprintf(out, ",\"line\":%" PRIu32, n->line);
		put_values(out, t, look, n->self, n->total);
		fputc('}', out);
	}
	fputc(']', out);
}

void flame_print_json(const struct flame_tree *t, const struct flame_look *look, FILE *out)
{
	const struct flame_profile *p = t->profile;
	const uint64_t none[2] = { t->nodes[0].self[0], t->nodes[0].self[1] };
	char remarks[2048];

	fputc('{', out);
	put_string(out, "profile", look->file);
	fputc(',', out);
	put_string(out, "format", p->format);
	fprintf(out, ",\"of\":\"%s\",\"inverted\":%s,\"mean\":%" PRIu64 ",\"stacks\":%" PRIu64,
		look->allocated ? "allocated" : "in use", look->inverted ? "true" : "false", p->mean, t->used);
	put_values(out, t, look, none, t->nodes[0].total);
	flame_remarks(t, remarks, sizeof(remarks));
	fputc(',', out);
	put_string(out, "remarks", remarks);
	put_files(out, p);
	put_functions(out, t, look);
	put_tree(out, t, look);
	fputs("}\n", out);
}
