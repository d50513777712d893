/* SPDX-License-Identifier: MIT */
/* profile.proto (github.com/google/pprof): quarry's own, and other heap profiles, whose functions may be named already.
 * Fields may stand in any order, so that the file is gone through more than once: strings first, then what refers to
 * them. */
#include "tools/flame.h"

#include <stdlib.h>
#include <string.h>

#define LINES_MAX 32 /* functions that are inlined at one place */
#define TYPES_MAX 64 /* values of a sample */
#define STRINGS_MAX ((size_t)8 << 20)

struct bytes {
	const uint8_t *at, *end;
};

/* A mapping, function or location: by number, and what was made of it. */
struct numbered {
	uint64_t id;
	uint32_t as;
};

struct reader {
	struct flame_profile *p;
	struct bytes *strings;
	size_t string_count, string_room;
	struct numbered *mappings, *functions, *locations;
	size_t mapping_count, mapping_room, function_count, function_room, location_count, location_room;
	int value_of[FLAME_VALUES]; /* where in a sample, or -1 */
	int types;
};

/* ---- the wire ---- */

static bool varint(struct reader *r, struct bytes *from, uint64_t *n)
{
	*n = 0;
	for (unsigned shift = 0; shift < 70; shift += 7) {
		uint8_t byte;

		if (from->at == from->end)
			return flame_fail(r->p, "a number that does not end");
		byte = *from->at++;
		if (shift == 63 && byte > 1)
			break;
		*n |= (uint64_t)(byte & 0x7f) << shift;
		if (byte < 0x80)
			return true;
	}
	return flame_fail(r->p, "a number of more than 64 bits");
}

struct field {
	uint32_t number;
	bool bytes; /* or a number */
	uint64_t n;
	struct bytes data;
};

static bool take(struct reader *r, struct bytes *from, struct field *f, uint64_t n)
{
	if (n > (uint64_t)(from->end - from->at))
		return flame_fail(r->p, "a field that is longer than what it is in");
	f->data = (struct bytes){ from->at, from->at + n };
	from->at += n;
	return true;
}

/* The next field of a message; false at its end, and after an error. */
static bool next_field(struct reader *r, struct bytes *from, struct field *f)
{
	uint64_t key, n;

	if (r->p->error || from->at == from->end || !varint(r, from, &key))
		return false;
	f->number = key >> 3 > UINT32_MAX ? 0 : (uint32_t)(key >> 3);
	f->bytes = false;
	f->n = 0;
	switch (key & 7) {
	case 0:
		return varint(r, from, &f->n);
	case 1:
		return take(r, from, f, 8) && (f->number = 0, true);
	case 2:
		f->bytes = true;
		return varint(r, from, &n) && take(r, from, f, n);
	case 5:
		return take(r, from, f, 4) && (f->number = 0, true);
	}
	return flame_fail(r->p, "not a profile: a field of no known type");
}

/* The numbers of a message without others in it; those that are not known are left alone. */
static void numbers_of(struct reader *r, struct bytes from, uint64_t *n, uint32_t count)
{
	struct field f;

	memset(n, 0, count * sizeof(*n));
	while (next_field(r, &from, &f))
		if (!f.bytes && f.number < count)
			n[f.number] = f.n;
}

static bool string_at(struct reader *r, uint64_t i, struct bytes *text)
{
	*text = i < r->string_count ? r->strings[i] : (struct bytes){ NULL, NULL };
	return i < r->string_count || flame_fail(r->p, "a string that is not there");
}

static size_t length_of(struct bytes text)
{
	return (size_t)(text.end - text.at);
}

static bool is_text(struct bytes text, const char *what)
{
	return length_of(text) == strlen(what) && memcmp(text.at, what, strlen(what)) == 0;
}

/* ---- the parts ---- */

static bool read_type(struct reader *r, struct bytes from)
{
	static const char *const names[FLAME_VALUES] = { "alloc_objects", "alloc_space", "inuse_objects", "inuse_space" };
	uint64_t n[3];
	struct bytes type;

	numbers_of(r, from, n, 3);
	if (!string_at(r, n[1], &type))
		return false;
	if (r->types == TYPES_MAX)
		return flame_fail(r->p, "more values than a sample can have");
	for (int i = 0; i < FLAME_VALUES; i++)
		if (is_text(type, names[i]) && r->value_of[i] < 0) {
			r->value_of[i] = r->types;
			r->p->has[i] = true;
		}
	r->types++;
	return true;
}

static bool read_mapping(struct reader *r, struct bytes from)
{
	struct flame_module m = { .from = 0 };
	struct bytes path, id;
	uint64_t n[7];

	numbers_of(r, from, n, 7);
	if (!string_at(r, n[5], &path) || !string_at(r, n[6], &id))
		return false;
	if (!flame_grow(r->p, &r->mappings, r->mapping_count, &r->mapping_room, sizeof(struct numbered), FLAME_MODULES_MAX,
			"more than 65536 mappings"))
		return false;
	m.from = n[2];
	m.to = n[3];
	m.offset = n[4];
	r->mappings[r->mapping_count++] = (struct numbered){ n[1], (uint32_t)r->p->module_count };
	return flame_add_module(r->p, &m, (const char *)path.at, length_of(path), (const char *)id.at, length_of(id));
}

static bool read_function(struct reader *r, struct bytes from)
{
	struct bytes name, file;
	uint64_t n[6];
	uint32_t as;

	numbers_of(r, from, n, 6);
	if (!string_at(r, n[2] ? n[2] : n[3], &name) || !string_at(r, n[4], &file))
		return false;
	if (!flame_grow(r->p, &r->functions, r->function_count, &r->function_room, sizeof(struct numbered), FLAME_PLACES_MAX,
			"more than 4194304 functions"))
		return false;
	as = flame_add_function(r->p, (const char *)name.at, length_of(name), FLAME_NONE);
	if (as == FLAME_NONE)
		return false;
	if (!r->p->functions[as].file && length_of(file))
		r->p->functions[as].file = flame_copy(r->p, (const char *)file.at, length_of(file));
	r->functions[r->function_count++] = (struct numbered){ n[1], as };
	return true;
}

static int by_id(const void *a, const void *b)
{
	uint64_t x = ((const struct numbered *)a)->id, y = ((const struct numbered *)b)->id;

	return x < y ? -1 : x > y;
}

static uint32_t find(const struct numbered *list, size_t count, uint64_t id)
{
	struct numbered like = { id, 0 }, *found = count ? bsearch(&like, list, count, sizeof(like), by_id) : NULL;

	return found ? found->as : FLAME_NONE;
}

static bool read_line(struct reader *r, struct bytes from, struct flame_place *last)
{
	uint64_t n[3];
	uint32_t function;

	numbers_of(r, from, n, 3);
	function = find(r->functions, r->function_count, n[1]);
	if (function == FLAME_NONE)
		return flame_fail(r->p, "a function that is not there");
	last->line = n[2] < INT32_MAX ? (uint32_t)n[2] : 0;
	return last->count == LINES_MAX || flame_add_function_of(r->p, last, function);
}

static bool read_location(struct reader *r, struct bytes from)
{
	uint64_t n[4];
	struct field f;
	uint32_t place;

	numbers_of(r, from, n, 4);
	if (!flame_grow(r->p, &r->locations, r->location_count, &r->location_room, sizeof(struct numbered), FLAME_PLACES_MAX,
			"more than 4194304 locations"))
		return false;
	place = flame_add_place(r->p, n[3], find(r->mappings, r->mapping_count, n[2]));
	if (place == FLAME_NONE)
		return false;
	r->locations[r->location_count++] = (struct numbered){ n[1], place };
	while (next_field(r, &from, &f))
		if (f.number == 4 && f.bytes && !read_line(r, f.data, &r->p->places[place]))
			return false;
	return true;
}

/* ---- samples ---- */

static bool add_location(struct reader *r, uint64_t id)
{
	uint32_t place = find(r->locations, r->location_count, id);

	return place == FLAME_NONE ? flame_fail(r->p, "a location that is not there") : flame_add_frame(r->p, place);
}

static bool add_value(struct reader *r, struct flame_sample *s, int *at, uint64_t n)
{
	if (*at == r->types)
		return flame_fail(r->p, "a sample of more values than there are types");
	for (int i = 0; i < FLAME_VALUES; i++)
		if (r->value_of[i] == *at)
			s->values[i] = n > INT64_MAX ? 0 : n;
	++*at;
	return true;
}

static bool read_label(struct reader *r, struct bytes from, struct flame_sample *s)
{
	struct bytes key, text;
	uint64_t n[4];

	numbers_of(r, from, n, 4);
	if (!string_at(r, n[1], &key) || !string_at(r, n[2], &text))
		return false;
	if (is_text(key, "node"))
		s->node = n[3] > INT32_MAX ? -1 : (int64_t)n[3];
	else if (!is_text(key, "arena"))
		return true;
	else if ((s->arena = flame_keep(r->p, (const char *)text.at, length_of(text))) == NULL)
		return false;
	r->p->labelled = true;
	return true;
}

/* Numbers come one by one, or packed. */
static bool read_sample(struct reader *r, struct bytes from)
{
	struct flame_sample *s = flame_add_sample(r->p);
	struct field f;
	int values = 0;

	while (s && next_field(r, &from, &f)) {
		uint64_t n = f.n;

		if (f.number == 3 && f.bytes)
			read_label(r, f.data, s);
		if (f.number != 1 && f.number != 2)
			continue;
		while (f.bytes ? f.data.at < f.data.end && varint(r, &f.data, &n) : !r->p->error) {
			if (!(f.number == 1 ? add_location(r, n) : add_value(r, s, &values, n)) || !f.bytes)
				break;
		}
	}
	if (!r->p->error && s && values != r->types)
		return flame_fail(r->p, "a sample of fewer values than there are types");
	return s && !r->p->error;
}

/* ---- the whole ---- */

static bool read_string(struct reader *r, struct bytes text)
{
	if (!flame_grow(r->p, &r->strings, r->string_count, &r->string_room, sizeof(struct bytes), STRINGS_MAX,
			"more than 8388608 strings"))
		return false;
	r->strings[r->string_count++] = text;
	return true;
}

static bool each(struct reader *r, struct bytes from, uint32_t number, bool (*read)(struct reader *r, struct bytes from))
{
	struct field f;

	while (next_field(r, &from, &f))
		if (f.number == number && f.bytes && !read(r, f.data))
			return false;
	return !r->p->error;
}

static bool sorted_once(struct reader *r, struct numbered *list, size_t count, const char *error)
{
	if (count)
		qsort(list, count, sizeof(*list), by_id);
	for (size_t i = 1; i < count; i++)
		if (list[i].id == list[i - 1].id)
			return flame_fail(r->p, error);
	return true;
}

static bool read_all(struct reader *r, struct bytes all)
{
	struct flame_profile *p = r->p;
	uint64_t n[13];

	if (!each(r, all, 6, read_string) || !each(r, all, 1, read_type))
		return false;
	if (!p->has[FLAME_OBJECTS] && !p->has[FLAME_BYTES] && !p->has[FLAME_ALLOCATED_OBJECTS] && !p->has[FLAME_ALLOCATED_BYTES])
		return flame_fail(p, "not a heap profile: no value of it is inuse_space, alloc_space or their objects");
	numbers_of(r, all, n, 13);
	p->mean = n[12];
	return each(r, all, 3, read_mapping) &&
	       sorted_once(r, r->mappings, r->mapping_count, "two mappings of one number") && each(r, all, 5, read_function) &&
	       sorted_once(r, r->functions, r->function_count, "two functions of one number") &&
	       each(r, all, 4, read_location) &&
	       sorted_once(r, r->locations, r->location_count, "two locations of one number") && each(r, all, 2, read_sample);
}

bool flame_read_pprof(struct flame_profile *p, const uint8_t *data, size_t length)
{
	struct reader r = { .p = p, .value_of = { -1, -1, -1, -1 } };
	bool done;

	p->format = "profile.proto";
	done = read_all(&r, (struct bytes){ data, data + length });
	free(r.strings);
	free(r.functions);
	free(r.locations);
	free(r.mappings);
	return done;
}
