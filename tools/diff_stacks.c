/* SPDX-License-Identifier: MIT */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tools/diff_stacks.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/json.h"
#include "tools/map.h"
#include "tools/utf8.h"

#define STACKS_SHOWN 20
#define FRAMES_SHOWN 12
#define WIDTH 80
#define INDENT 4

/* ---- which are the same ---- */

static const struct dump_frame *frame_of(const struct diff_stack *s, uint32_t i)
{
	return &s->dump->frames[s->dump->numbers[s->stack->first + i]];
}

static const struct dump_module *module_of(const struct dump *d, const struct dump_frame *f)
{
	static const struct dump_module none = { (char *)"", (char *)"" };

	return f->module == DUMP_NONE ? &none : &d->modules[f->module];
}

static int compare_frames(const struct dump *c, const struct dump_frame *f, const struct dump *d, const struct dump_frame *g)
{
	const struct dump_module *m, *n;
	int order;

	if (c == d && f == g)
		return 0;
	if (f->offset != g->offset)
		return f->offset < g->offset ? -1 : 1;
	m = module_of(c, f);
	n = module_of(d, g);
	order = strcmp(m->id, n->id);
	return order != 0 || m->id[0] ? order : strcmp(m->file, n->file);
}

static int by_frames(const void *a, const void *b)
{
	const struct diff_stack *x = a, *y = b;
	int order = 0;

	if (x->stack->depth != y->stack->depth)
		return x->stack->depth < y->stack->depth ? -1 : 1;
	for (uint32_t i = 0; order == 0 && i < x->stack->depth; i++)
		order = compare_frames(x->dump, frame_of(x, i), y->dump, frame_of(y, i));
	return order;
}

/* (No figure is beyond 2^57.) */
static int64_t grown(const struct diff_stack *s)
{
	return (int64_t)(s->of[1].bytes - s->of[0].bytes);
}

static int by_growth(const void *a, const void *b)
{
	const struct diff_stack *x = a, *y = b;

	if (grown(x) != grown(y))
		return grown(x) > grown(y) ? -1 : 1;
	return by_frames(a, b);
}

/* Those of one stack, of whatever size, arena and node, become one. */
static void join(struct diff_stacks *s)
{
	size_t kept = 0;

	qsort(s->at, s->count, sizeof(s->at[0]), by_frames);
	for (size_t i = 0; i < s->count; i++) {
		if (kept == 0 || by_frames(&s->at[kept - 1], &s->at[i]) != 0) {
			s->at[kept++] = s->at[i];
			continue;
		}
		for (int k = 0; k < 2; k++) {
			s->at[kept - 1].of[k].samples += s->at[i].of[k].samples;
			s->at[kept - 1].of[k].objects += s->at[i].of[k].objects;
			s->at[kept - 1].of[k].bytes += s->at[i].of[k].bytes;
		}
	}
	s->count = kept;
}

/* ---- names ---- */

static bool place_frames(struct diff_stacks *s, int k)
{
	const struct dump *d = &s->dumps[k];

	s->places[k] = calloc(d->frame_count + 1, sizeof(uint32_t));
	for (size_t i = 0; s->places[k] && i < d->frame_count; i++) {
		const struct dump_frame *f = &d->frames[i];
		const struct dump_module *m = module_of(d, f);
		uint32_t file = f->module == DUMP_NONE ? FLAME_NONE : flame_file(&s->names, m->file, m->id);

		if (file == FLAME_NONE && f->module != DUMP_NONE)
			return false;
		s->places[k][i] = flame_place_at(&s->names, f->offset, file);
		if (s->places[k][i] == FLAME_NONE)
			return false;
	}
	return s->places[k] != NULL;
}

static const struct flame_place *place_of(const struct diff_stacks *s, const struct dump *d, const struct dump_frame *f)
{
	return &s->names.places[s->places[d == &s->dumps[1]][f - d->frames]];
}

/* What a frame is called: as in a flame graph, if the file that is here is the one that ran; else as the dump knows it, which
 * is what was exported; else where in which file it is. */
static bool dump_names(const struct diff_stacks *s, const struct flame_place *place, const struct dump_frame *f)
{
	return f->function[0] && (place->module == FLAME_NONE || s->names.modules[place->module].state != FLAME_SAME);
}

/* The functions of a frame, the innermost, which may be inlined, first. */
static uint32_t functions_of(const struct diff_stacks *s, const struct dump *d, const struct dump_frame *f)
{
	const struct flame_place *place = place_of(s, d, f);

	return dump_names(s, place, f) ? 1 : place->count;
}

static const char *name_of(const struct diff_stacks *s, const struct dump *d, const struct dump_frame *f, uint32_t i)
{
	const struct flame_place *place = place_of(s, d, f);

	if (dump_names(s, place, f))
		return flame_demangle(f->function);
	return s->names.functions[s->names.functions_of[place->first + i]].name;
}

/* ---- the whole ---- */

bool diff_stacks_get(struct diff_stacks *s, const struct dump dumps[2])
{
	s->dumps = dumps;
	if (!dumps[0].has_profile || !dumps[1].has_profile)
		return true;
	s->at = calloc(dumps[0].stack_count + dumps[1].stack_count + 1, sizeof(s->at[0]));
	if (!s->at)
		return false;
	for (int k = 0; k < 2; k++)
		for (size_t i = 0; i < dumps[k].stack_count; i++) {
			const struct dump_stack *stack = &dumps[k].stacks[i];
			struct diff_stack *to = &s->at[s->count++];

			to->dump = &dumps[k];
			to->stack = stack;
			to->of[k].samples = stack->samples;
			to->of[k].objects = stack->objects;
			to->of[k].bytes = stack->bytes;
		}
	if (!place_frames(s, 0) || !place_frames(s, 1) || !flame_name(&s->names))
		return false;
	join(s);
	qsort(s->at, s->count, sizeof(s->at[0]), by_growth);
	return true;
}

void diff_stacks_free(struct diff_stacks *s)
{
	flame_free(&s->names);
	for (int k = 0; k < 2; k++)
		free(s->places[k]);
	free(s->at);
	s->at = NULL;
}

static bool is_as_it_was(const struct diff_stack *s)
{
	return memcmp(&s->of[0], &s->of[1], sizeof(s->of[0])) == 0;
}

/* ---- printing ---- */

/* So many lines at most. */
static unsigned print_frame(const struct diff_stacks *all, const struct diff_stack *s, uint32_t i, unsigned most)
{
	const struct dump_frame *f = frame_of(s, i);
	unsigned count = functions_of(all, s->dump, f);

	for (unsigned k = 0; k < count && k < most; k++) {
		printf("%*s", INDENT, "");
		utf8_put(stdout, name_of(all, s->dump, f, k), WIDTH - INDENT);
		printf("\n");
	}
	return count;
}

static void print_stack(const struct diff_stacks *all, const struct diff_stack *s)
{
	unsigned lines = 0;

	printf("%20s %6s %12" PRId64 " %9s %9s %9s\n", "", "", (int64_t)(s->of[1].objects - s->of[0].objects),
	       map_short(s->of[0].bytes), map_short(s->of[1].bytes), diff_signed(grown(s)));
	for (uint32_t i = 0; i < s->stack->depth; i++)
		lines += print_frame(all, s, i, lines < FRAMES_SHOWN ? FRAMES_SHOWN - lines : 0);
	if (lines > FRAMES_SHOWN)
		printf("%*sand %u more\n", INDENT, "", lines - FRAMES_SHOWN);
	if (s->stack->depth == 0)
		printf("%*sno stack is known\n", INDENT, "");
}

/* What grew or shrank most is worth its lines; of what did little there may be thousands. */
void diff_stacks_text(const struct diff_stacks *s, bool all)
{
	size_t shown = 0, as_they_were = 0, left_out = 0;

	if (!s->at) {
		if (s->dumps[0].has_profile != s->dumps[1].has_profile)
			printf("\nnot by stack: the %s dump has no profile\n", s->dumps[0].has_profile ? "second" : "first");
		return;
	}
	printf("\n%-27s %12s %9s %9s %9s\n", "by stack, of samples", "objects", "before", "after", "growth");
	for (size_t i = 0; i < s->count; i++) {
		/* (The first and the last ones: those that grew, and those that shrank.) */
		bool among = shown < STACKS_SHOWN || (s->count - i <= STACKS_SHOWN / 2 && grown(&s->at[i]) < 0);

		if (is_as_it_was(&s->at[i]) && !all)
			as_they_were++;
		else if (!among && !all)
			left_out++;
		else {
			print_stack(s, &s->at[i]);
			shown++;
		}
	}
	if (left_out)
		printf("and %zu more that changed\n", left_out);
	if (as_they_were)
		printf("and %zu as they were\n", as_they_were);
}

static void print_frame_json(const struct diff_stacks *all, const struct diff_stack *s, uint32_t i)
{
	const struct dump_frame *f = frame_of(s, i);
	const struct dump_module *m = module_of(s->dump, f);
	uint32_t count = functions_of(all, s->dump, f);

	printf("%s{\"name\":", i ? "," : "");
	json_put_string(stdout, name_of(all, s->dump, f, count - 1));
	printf(",\"inlined\":[");
	for (uint32_t k = 0; k + 1 < count; k++) {
		printf("%s", k ? "," : "");
		json_put_string(stdout, name_of(all, s->dump, f, k));
	}
	printf("],\"file\":");
	json_put_string(stdout, m->file);
	printf(",\"id\":\"%s\",\"offset\":%" PRIu64 "}", m->id, f->offset);
}

void diff_stacks_json(const struct diff_stacks *s, bool all)
{
	bool first = true;

	printf(",\"stacks\":%s", s->at ? "[" : "null");
	for (size_t i = 0; i < s->count; i++) {
		const struct diff_stack *one = &s->at[i];

		if (!all && is_as_it_was(one))
			continue;
		printf("%s\n{", first ? "" : ",");
		first = false;
		for (int k = 0; k < 2; k++)
			printf("\"%s\":{\"samples\":%" PRIu64 ",\"objects\":%" PRIu64 ",\"bytes\":%" PRIu64 "},",
			       k ? "after" : "before", one->of[k].samples, one->of[k].objects, one->of[k].bytes);
		printf("\"growth\":%" PRId64 ",\"stack\":[", grown(one));
		for (uint32_t k = 0; k < one->stack->depth; k++)
			print_frame_json(s, one, k);
		printf("]}");
	}
	printf("%s}\n", s->at ? "]" : "");
}
