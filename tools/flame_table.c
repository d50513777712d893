/* SPDX-License-Identifier: MIT */
/* A profile as a table for a terminal, and the words that all forms share. */
#include "tools/flame.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "tools/tools.h"

#define ROWS 30 /* of functions, in the terminal */
#define BAR 12
#define NAME 35 /* with what stands before it, 80 columns */

/* ---- words ---- */

const char *flame_module_name(const struct flame_profile *p, uint32_t module)
{
	const char *path, *slash;

	if (module == FLAME_NONE)
		return "";
	path = p->modules[module].path;
	slash = strrchr(path, '/');
	return slash ? slash + 1 : *path ? path : "(no name)";
}

static void append(char *text, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));

static void append(char *text, size_t size, const char *format, ...)
{
	size_t used = strlen(text);
	va_list args;

	va_start(args, format);
	vsnprintf(text + used, size - used, format, args);
	va_end(args);
}

void flame_what(const struct flame_profile *p, const struct flame_look *look, char *text, size_t size)
{
	snprintf(text, size, "%s", look->allocated ? "allocated" : "in use");
	if (look->arena)
		append(text, size, ", arena %.60s", look->arena);
	if (look->node >= 0)
		append(text, size, ", node %" PRId64, look->node);
	if (p->mean > 1)
		append(text, size, ", by samples some %s apart", bytes_text(p->mean));
}

/* "libx.so, liby.so and 3 more": the files that are in a state. */
static size_t files_in(const struct flame_profile *p, enum flame_state state, char *text, size_t size)
{
	size_t count = 0, told = 0;

	text[0] = '\0';
	for (uint32_t i = 0; i < p->module_count; i++)
		count += p->modules[i].state == state;
	for (uint32_t i = 0; i < p->module_count && told < 3; i++)
		if (p->modules[i].state == state)
			append(text, size, "%s%.40s", told++ ? ", " : "", flame_module_name(p, i));
	if (count > told)
		append(text, size, " and %zu more", count - told);
	return count;
}

void flame_remarks(const struct flame_tree *t, char *text, size_t size)
{
	const struct flame_profile *p = t->profile;
	char files[256];

	text[0] = '\0';
	if (files_in(p, FLAME_REPLACED, files, sizeof(files)))
		append(text, size, "Replaced since, and so not named: %s. ", files);
	if (files_in(p, FLAME_MISSING, files, sizeof(files)))
		append(text, size, "Not here, and so not named: %s. ", files);
	if (files_in(p, FLAME_UNPROVEN, files, sizeof(files)))
		append(text, size, "No build id to prove that these files are those that ran: %s. ", files);
	if (p->module_count && !flame_has_libdw())
		append(text, size, "Named by symbols alone. ");
	if (t->cut)
		append(text, size, "%" PRIu64 " stacks of more than %d functions are cut. ", t->cut, FLAME_DEPTH_MAX);
	if (text[0])
		text[strlen(text) - 1] = '\0';
}

/* ---- the table ---- */

/* For any terminal. */
static void put_name(FILE *out, const char *name, int columns)
{
	for (; *name && columns > 0; name++) {
		if (((unsigned char)*name & 0xc0) == 0x80)
			continue;
		if (columns-- == 1 && name[1]) {
			fputc('>', out);
			break;
		}
		fputc(*name >= 0x20 && *name < 0x7f ? *name : '?', out);
	}
}

static const char *amount(uint64_t n, bool objects)
{
	static char texts[4][24];
	static unsigned next;
	char *text = texts[next++ % 4];

	if (!objects)
		return bytes_text(n);
	if (n < 1000000)
		snprintf(text, sizeof(texts[0]), "%" PRIu64, n);
	else
		snprintf(text, sizeof(texts[0]), n < 1000000000 ? "%.1f M" : "%.3g M", (double)n / 1e6);
	return text;
}

static double percent(uint64_t part, uint64_t whole)
{
	return whole ? (double)part / (double)whole * 100 : 0;
}

/* # for the function itself, - for what it calls. */
static void put_row(FILE *out, const struct flame_function *f, uint64_t whole, int by)
{
	int self = (int)(percent(f->self[by], whole) * BAR / 100 + .5), total = (int)(percent(f->total[by], whole) * BAR / 100 + .5);
	char bar[BAR + 1];

	for (int i = 0; i < BAR; i++)
		bar[i] = i < self ? '#' : i < total ? '-' : ' ';
	bar[BAR] = '\0';
	fprintf(out, "%9s %5.1f %9s %5.1f %s ", amount(f->self[by], by == 0), percent(f->self[by], whole),
		amount(f->total[by], by == 0), percent(f->total[by], whole), bar);
	put_name(out, f->name, NAME);
	fputc('\n', out);
}

static void put_line(FILE *out, const char *text)
{
	while (*text) {
		size_t n = strlen(text), at = n;

		if (n > 80)
			for (at = 80; at > 1 && text[at] != ' ';)
				at--;
		if (at <= 1)
			at = n > 80 ? 80 : n;
		for (size_t i = 0; i < at; i++)
			fputc(text[i] >= 0x20 && text[i] < 0x7f ? text[i] : '?', out);
		fputc('\n', out);
		text += at;
		text += strspn(text, " ");
	}
}

void flame_print_text(const struct flame_tree *t, const struct flame_look *look, FILE *out)
{
	const struct flame_profile *p = t->profile;
	const struct flame_node *all = &t->nodes[0];
	int by = !look->objects;
	char text[2048];

	put_line(out, look->title ? look->title : look->file);
	flame_what(p, look, text, sizeof(text));
	if (p->has[look->allocated ? FLAME_ALLOCATED_OBJECTS : FLAME_OBJECTS])
		append(text, sizeof(text), ": %s in %" PRIu64 " objects", bytes_text(all->total[1]), all->total[0]);
	else
		append(text, sizeof(text), ": %s", bytes_text(all->total[1]));
	put_line(out, text);
	fprintf(out, "\n%9s %5s %9s %5s %-*s %s\n", "ITSELF", "%", "WITH ALL", "%", BAR, "", "FUNCTION");
	for (size_t i = 0; i < t->table_count && i < ROWS; i++)
		put_row(out, &p->functions[t->table[i]], all->total[by], by);
	if (t->table_count > ROWS)
		fprintf(out, "and %zu more (--json has them)\n", t->table_count - ROWS);
	flame_remarks(t, text, sizeof(text));
	put_line(out, text);
}
