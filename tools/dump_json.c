/* SPDX-License-Identifier: MIT */
/* The dump of a JSON object on each line: doc/view-format.md. */
#include <string.h>

#include "tools/dump.h"
#include "tools/json.h"

enum record { UNKNOWN, REPORT, ARENA, REGION, SLAB, BLOCK, END, PROFILE, MODULE, FRAME, STACK };

/* What is too large to be made anew for each line. */
struct long_ones {
	char id[2 * DUMP_ID_MAX + 1], file[DUMP_TEXT_MAX], function[DUMP_TEXT_MAX];
	uint32_t numbers[DUMP_DEPTH_MAX];
};

/* What may stand in a line; its first member says of what it is. */
struct line {
	enum record record;
	uint64_t first;        /* that member's value */
	uint64_t arena, size, object_size, objects, live, cached, module, offset, samples, bytes;
	int node, pages;
	bool exact_is, has_objects;
	char name[DUMP_NAME_MAX];
	struct dump_slab slab; /* its states */
	const char *error;     /* of those */
	struct long_ones *longs;
	uint32_t depth;
};

static const struct {
	const char *key;
	enum record record;
} firsts[] = { { "quarry_view_dump", REPORT }, { "arena", ARENA }, { "region", REGION },
	       { "slab", SLAB }, { "block", BLOCK }, { "end", END },
	       { "profile", PROFILE }, { "module", MODULE }, { "frame", FRAME }, { "stack", STACK } };

static void read_frames(struct json *j, struct line *l)
{
	bool first = true;

	for (json_enter(j, '['); json_next(j, ']', &first);) {
		uint64_t number = 0;

		json_unsigned(j, &number);
		if (l->depth == DUMP_DEPTH_MAX || number > UINT32_MAX)
			json_fail(j, "more frames than there can be");
		else
			l->longs->numbers[l->depth++] = (uint32_t)number;
	}
}

static void read_first(struct json *j, struct line *l)
{
	for (size_t i = 0; i < sizeof(firsts) / sizeof(firsts[0]); i++)
		if (json_key(j, firsts[i].key)) {
			l->record = firsts[i].record;
			if (l->record == STACK)
				read_frames(j, l);
			else
				json_unsigned(j, &l->first);
			return;
		}
	json_skip(j);
}

/* Those of an array in an array: so many numbers, and no more. */
static bool read_numbers(struct json *j, uint64_t *numbers, size_t n)
{
	bool first = true;
	size_t i = 0;

	for (json_enter(j, '['); json_next(j, ']', &first); i++)
		if (i == n)
			json_fail(j, "more numbers than there must be");
		else
			json_unsigned(j, &numbers[i]);
	if (!j->error && i != n)
		json_fail(j, "fewer numbers than there must be");
	return !j->error;
}

static void read_runs(struct json *j, struct line *l)
{
	bool first = true;
	uint64_t run[2];

	l->slab.size = l->size > UINT32_MAX ? UINT32_MAX : (uint32_t)l->size;
	l->slab.object_size = l->object_size > UINT32_MAX ? UINT32_MAX : (uint32_t)l->object_size;
	for (json_enter(j, '['); json_next(j, ']', &first);)
		if (read_numbers(j, run, 2) && !l->error)
			l->error = run[1] >= DUMP_STATES ? "a state that cannot be" :
							   dump_slab_run(&l->slab, run[0], (unsigned)run[1]);
}

static void read_items(struct json *j, struct line *l)
{
	uint64_t item[3], end = 0;
	bool first = true;

	l->slab.size = l->size > UINT32_MAX ? UINT32_MAX : (uint32_t)l->size;
	for (json_enter(j, '['); json_next(j, ']', &first);)
		if (read_numbers(j, item, 3) && !l->error)
			l->error = item[2] >= DUMP_STATES ? "a state that cannot be" :
				   dump_slab_item(&l->slab, item[0], item[1], (unsigned)item[2], &end);
}

static void read_member(struct json *j, struct line *l)
{
	const struct { const char *name; uint64_t *to; } numbers[] = {
		{ "size", &l->size }, { "object_size", &l->object_size }, { "objects", &l->objects },
		{ "live", &l->live }, { "cached", &l->cached }, { "arena", &l->arena },
		{ "module", &l->module }, { "offset", &l->offset }, { "samples", &l->samples }, { "bytes", &l->bytes },
	};

	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		if (json_key(j, numbers[i].name)) {
			json_unsigned(j, numbers[i].to);
			return;
		}
	if (json_key(j, "name"))
		json_string(j, l->name, sizeof(l->name));
	else if (json_key(j, "id"))
		json_string(j, l->longs->id, sizeof(l->longs->id));
	else if (json_key(j, "file"))
		json_string(j, l->longs->file, sizeof(l->longs->file));
	else if (json_key(j, "function"))
		json_string(j, l->longs->function, sizeof(l->longs->function));
	else if (json_key(j, "node"))
		json_integer(j, &l->node);
	else if (json_key(j, "pages"))
		json_integer(j, &l->pages);
	else if (json_key(j, "runs"))
		read_runs(j, l);
	else if (json_key(j, "items"))
		read_items(j, l);
	else
		json_skip(j);
}

static void read_figure(struct json *j, struct dump *d)
{
	const struct { const char *name; uint64_t *to; } numbers[] = {
		{ "regions", &d->said.regions }, { "slabs", &d->said.slabs }, { "blocks", &d->said.blocks },
		{ "blocks_bytes", &d->said.blocks_bytes }, { "objects", &d->said.objects },
		{ "objects_bytes", &d->said.objects_bytes }, { "cached", &d->said.cached },
		{ "cached_bytes", &d->said.cached_bytes },
	};
	uint64_t exact = 0;

	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		if (json_key(j, numbers[i].name)) {
			json_unsigned(j, numbers[i].to);
			return;
		}
	if (json_key(j, "exact")) {
		json_unsigned(j, &exact);
		d->exact = exact == 1;
	} else {
		json_skip(j);
	}
}

static const char *add_slab(struct dump *d, struct line *l)
{
	struct dump_slab *s = &l->slab;

	if (l->error)
		return l->error;
	if (l->size > UINT32_MAX || l->object_size > DUMP_OBJECT_MAX || l->objects > DUMP_SLAB_OBJECTS_MAX ||
	    l->live > l->objects || l->cached > l->objects)
		return "a slab that cannot be";
	/* (What stood behind its objects does not count: they were read by what was before them.) */
	if (s->object_size != l->object_size || (s->size != l->size && l->objects > 0))
		return "a slab's sizes come after its objects";
	s->address = l->first;
	s->size = (uint32_t)l->size;
	s->objects = (uint32_t)l->objects;
	s->live = (uint32_t)l->live;
	s->cached = (uint32_t)l->cached;
	return dump_add_slab(d, s);
}

static const char *add_stack(struct dump *d, const struct line *l)
{
	struct dump_stack s = { .samples = l->samples, .objects = l->objects, .bytes = l->bytes, .object_size = l->object_size,
				.depth = l->depth };

	/* (That of no arena is not told of.) */
	s.arena = l->arena == UINT64_MAX ? DUMP_NONE : l->arena >= d->arena_count ? DUMP_NONE - 1 : (uint32_t)l->arena;
	return dump_add_stack(d, &s, l->longs->numbers);
}

static const char *add(struct dump *d, struct line *l)
{
	struct dump_region region = { .address = l->first, .size = l->size, .node = l->node, .pages = l->pages };

	switch (l->record) {
	case REPORT:
		return l->first == 1 ? dump_add_report(d) : "of a version that this command does not know";
	case ARENA:
		return dump_add_arena(d, l->first, l->name, strlen(l->name));
	case REGION:
		region.arena = l->arena > UINT32_MAX ? UINT32_MAX : (uint32_t)l->arena;
		return dump_add_region(d, &region);
	case SLAB:
		return add_slab(d, l);
	case BLOCK:
		return dump_add_block(d, l->first, l->size);
	case END:
		return dump_end(d, l->first);
	case PROFILE:
		return dump_add_profile(d, l->first);
	case MODULE:
		return dump_add_module(d, l->first, l->longs->id, l->longs->file);
	case FRAME:
		return dump_add_frame(d, l->first, l->module, l->offset, l->longs->function);
	case STACK:
		return add_stack(d, l);
	default:
		d->records++; /* of a later version */
		return NULL;
	}
}

static const char *read_line(struct dump *d, const char *text, size_t length, struct long_ones *longs)
{
	struct line l = { .record = UNKNOWN, .arena = UINT64_MAX, .node = -2, .pages = -1, .module = DUMP_NONE, .longs = longs };
	bool first = true, told = false;
	struct json j;

	longs->id[0] = longs->file[0] = longs->function[0] = 0;

	json_init(&j, text, length);
	for (json_enter(&j, '{'); json_next(&j, '}', &first); told = true)
		if (!told)
			read_first(&j, &l);
		else if (l.record == REPORT)
			read_figure(&j, d);
		else
			read_member(&j, &l);
	if (!j.error)
		json_end(&j);
	return j.error ? j.error : add(d, &l);
}

const char *dump_read_json(struct dump *d, const char *text, size_t length, uint64_t *where)
{
	const char *end = text + length, *error = NULL;
	struct long_ones longs;

	for (*where = 0; !error && text < end;) {
		const char *newline = memchr(text, '\n', (size_t)(end - text));

		++*where;
		if (d->has_ended)
			return "something is behind the end";
		if (!newline)
			return "the file was cut off";
		error = read_line(d, text, (size_t)(newline - text), &longs);
		text = newline + 1;
	}
	return error;
}
