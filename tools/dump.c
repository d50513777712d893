/* SPDX-License-Identifier: MIT */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tools/dump.h"

#include <stdlib.h>
#include <string.h>

#include "tools/cells.h"
#include "tools/tools.h"

#define NO_MEMORY "no memory"
#define MAGIC "QuarryVw"
#define JSON_MAGIC "{\"quarry_view_dump\":"

static bool begins(const char *text, size_t length, const char *with)
{
	return length >= strlen(with) && memcmp(text, with, strlen(with)) == 0;
}

bool dump_is(const char *text, size_t length)
{
	return begins(text, length, MAGIC) || begins(text, length, JSON_MAGIC);
}

void *dump_one_more(void *list, size_t *count, size_t *room, size_t size)
{
	char **at = list;

	if (*count == *room) {
		size_t more = *room ? 2 * *room : 64;
		char *new = reallocarray(*at, more, size);

		if (!new)
			return NULL;
		*at = new;
		*room = more;
	}
	memset(*at + *count * size, 0, size);
	return *at + (*count)++ * size;
}

/* ---- records ---- */

const char *dump_add_report(struct dump *d)
{
	if (d->has_report)
		return "a second report";
	d->has_report = true;
	d->records++;
	return NULL;
}

const char *dump_add_arena(struct dump *d, uint64_t number, const char *name, size_t length)
{
	struct dump_arena *at;
	char *copy;

	if (!d->has_report)
		return "an arena before the report";
	if (number != d->arena_count)
		return "arenas are not numbered one after the other";
	if (number == DUMP_ARENAS_MAX || length >= DUMP_NAME_MAX || memchr(name, 0, length))
		return "more arenas than there can be, or a name that cannot be";
	copy = strndup(name, length);
	at = copy ? dump_one_more(&d->arenas, &d->arena_count, &d->arena_room, sizeof(*at)) : NULL;
	if (!at) {
		free(copy);
		return NO_MEMORY;
	}
	at->name = copy;
	d->records++;
	return NULL;
}

const char *dump_add_region(struct dump *d, const struct dump_region *region)
{
	struct dump_region *at;

	if (region->arena >= d->arena_count)
		return "a region of no arena";
	if (region->size == 0 || region->address >= DUMP_ADDRESS_MAX || region->size > DUMP_ADDRESS_MAX - region->address)
		return "a region that cannot be";
	if (d->region_count && region->address < d->regions[d->region_count - 1].address + d->regions[d->region_count - 1].size)
		return "regions overlap, or are not in order";
	if (region->node < -1 || region->node >= 1024 || region->pages < 0 || region->pages > 4)
		return "a node or page kind that cannot be";
	at = dump_one_more(&d->regions, &d->region_count, &d->region_room, sizeof(*at));
	if (!at)
		return NO_MEMORY;
	*at = *region;
	at->held = 0;
	if (d->cells && !cells_add_region(d->cells, at))
		return NO_MEMORY;
	d->end = region->address;
	d->records++;
	return NULL;
}

/* Whether it stands in the last region, behind all that was told of. */
static const char *take_place(struct dump *d, uint64_t address, uint64_t size)
{
	struct dump_region *r = d->region_count ? &d->regions[d->region_count - 1] : NULL;

	if (!r || size == 0 || address < r->address || address - r->address >= r->size ||
	    size > r->size - (address - r->address))
		return "not inside its region";
	if (address < d->end)
		return "overlaps what is before it, or is not in order";
	d->end = address + size;
	r->held += size;
	return NULL;
}

/* Of the last region's arena. The one that is asked for is mostly among the last. */
static struct dump_row *row_for(struct dump *d, uint32_t object_size, bool blocks)
{
	uint32_t arena = d->regions[d->region_count - 1].arena;
	uint64_t hash = index_hash(arena, (uint64_t)object_size << 1 | blocks);
	struct dump_row *row;
	uint32_t i;

	for (size_t step = 0; (i = index_next(&d->row_index, hash, &step)) != INDEX_NONE;) {
		row = &d->rows[i];
		if (row->arena == arena && row->object_size == object_size && row->blocks == blocks)
			return row;
	}
	/* (The rows of all arenas are less than a number can be: 65,536 of 32,768 sizes.) */
	if (!index_add(&d->row_index, hash, (uint32_t)d->row_count))
		return NULL;
	row = dump_one_more(&d->rows, &d->row_count, &d->row_room, sizeof(d->rows[0]));
	if (!row)
		return NULL;
	row->arena = arena;
	row->object_size = object_size;
	row->blocks = blocks;
	return row;
}

/* (One may say twice where its objects are, and each time truly.) */
static bool has_place(const struct dump_slab *s)
{
	if (s->bytes[DUMP_FREE] + s->bytes[DUMP_LIVE] + s->bytes[DUMP_CACHED] > s->size)
		return false;
	for (uint32_t i = 0; i < DUMP_PIECES; i++) {
		const uint64_t *bytes = s->pieces[i], begin = (uint64_t)i * DUMP_PIECE;
		uint64_t room = begin >= s->size ? 0 : s->size - begin < DUMP_PIECE ? s->size - begin : DUMP_PIECE;

		if (bytes[DUMP_FREE] + bytes[DUMP_LIVE] + bytes[DUMP_CACHED] > room)
			return false;
	}
	return (uint64_t)s->objects * s->object_size <= s->size;
}

static const char *check_slab(const struct dump_slab *s)
{
	uint64_t objects = s->seen[DUMP_FREE] + s->seen[DUMP_LIVE] + s->seen[DUMP_CACHED];

	if (s->object_size > DUMP_OBJECT_MAX || s->object_size % 16 != 0)
		return "a slab of a size that cannot be";
	if (s->objects > DUMP_SLAB_OBJECTS_MAX || !has_place(s))
		return "a slab of more objects than it has place for";
	if (objects != s->objects || s->seen[DUMP_LIVE] != s->live || s->seen[DUMP_CACHED] != s->cached)
		return "a slab's objects are not as many as it says";
	return NULL;
}

const char *dump_add_slab(struct dump *d, const struct dump_slab *s)
{
	const char *error = check_slab(s);
	struct dump_row *row;

	if (!error)
		error = take_place(d, s->address, s->size);
	if (error)
		return error;
	row = row_for(d, s->object_size, false);
	if (!row)
		return NO_MEMORY;
	row->count++;
	row->held += s->size;
	row->objects += s->objects;
	row->live += s->live;
	row->cached += s->cached;
	row->live_bytes += s->bytes[DUMP_LIVE];
	row->cached_bytes += s->bytes[DUMP_CACHED];
	if (d->cells)
		cells_add_slab(d->cells, s);
	d->slabs++;
	d->objects += s->live;
	d->objects_bytes += s->bytes[DUMP_LIVE];
	d->cached += s->cached;
	d->cached_bytes += s->bytes[DUMP_CACHED];
	d->records++;
	return NULL;
}

const char *dump_add_block(struct dump *d, uint64_t address, uint64_t size)
{
	const char *error = take_place(d, address, size);
	struct dump_row *row = error ? NULL : row_for(d, 0, true);

	if (!row)
		return error ? error : NO_MEMORY;
	row->count++;
	row->live++;
	row->held += size;
	row->live_bytes += size;
	if (d->cells)
		cells_add_block(d->cells, address, size);
	d->blocks++;
	d->blocks_bytes += size;
	d->records++;
	return NULL;
}

const char *dump_end(struct dump *d, uint64_t records)
{
	if (!d->has_report)
		return "no report";
	if (records != d->records)
		return "not as many records as there were";
	if (d->said.regions != d->region_count || d->said.slabs != d->slabs || d->said.blocks != d->blocks ||
	    d->said.blocks_bytes != d->blocks_bytes || d->said.objects != d->objects ||
	    d->said.objects_bytes != d->objects_bytes || d->said.cached != d->cached ||
	    d->said.cached_bytes != d->cached_bytes)
		return "the report says another sum than there is";
	d->has_ended = true;
	return NULL;
}

/* Bytes of one state, by the pieces in which they are. What reaches behind the last is of no slab that can be told by them. */
static void note(struct dump_slab *s, uint64_t from, uint64_t to, unsigned state)
{
	for (uint64_t next; from < to && from < DUMP_PIECES * DUMP_PIECE; from = next) {
		uint64_t end = (from / DUMP_PIECE + 1) * DUMP_PIECE;

		next = to < end ? to : end;
		s->pieces[from / DUMP_PIECE][state] += next - from;
	}
}

const char *dump_slab_run(struct dump_slab *s, uint64_t count, unsigned state)
{
	uint64_t at;

	if (state >= DUMP_STATES || count > DUMP_SLAB_OBJECTS_MAX || s->seen[state] > DUMP_SLAB_OBJECTS_MAX)
		return "a state, or a number of objects, that cannot be";
	at = (s->seen[DUMP_FREE] + s->seen[DUMP_LIVE] + s->seen[DUMP_CACHED]) * s->object_size;
	note(s, at, at + count * s->object_size, state);
	s->seen[state] += count;
	s->bytes[state] += count * s->object_size;
	return NULL;
}

const char *dump_slab_item(struct dump_slab *s, uint64_t offset, uint64_t size, unsigned state, uint64_t *end)
{
	if (state >= DUMP_STATES || size == 0 || size % 16 != 0 || offset % 16 != 0 || offset < *end || offset >= s->size ||
	    size > s->size - offset)
		return "an object that cannot stand there";
	*end = offset + size;
	note(s, offset, *end, state);
	s->seen[state]++;
	s->bytes[state] += size;
	return NULL;
}

/* ---- a file ---- */

int dump_read(struct dump *d, const char *command, const char *name, const char *text, size_t length)
{
	bool binary = begins(text, length, MAGIC);
	uint64_t where = 0;
	const char *error = binary ? dump_read_binary(d, text, length, &where) : dump_read_json(d, text, length, &where);

	if (!error && !d->has_ended)
		error = "the file was cut off";
	if (!error)
		return STATUS_OK;
	return fail(STATUS_FAILED, "%s: %s: %s %llu: %s", command, name, binary ? "byte" : "line", (unsigned long long)where,
		    error);
}

void dump_free(struct dump *d)
{
	for (size_t i = 0; i < d->arena_count; i++)
		free(d->arenas[i].name);
	free(d->arenas);
	free(d->regions);
	free(d->rows);
	index_free(&d->row_index);
	dump_free_stacks(d);
	memset(d, 0, sizeof(*d));
}
