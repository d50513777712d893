/* SPDX-License-Identifier: MIT */
/* A view that was dumped (quarry_view_dump; doc/view-format.md), summed up. Nobody vouches for such a file: each record is
 * checked against those before it, and what is wrong is said. Names are UTF-8 and otherwise as somebody chose them. */
#ifndef QUARRY_TOOLS_DUMP_H
#define QUARRY_TOOLS_DUMP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DUMP_ARENAS_MAX 65536
#define DUMP_NAME_MAX 256
#define DUMP_OBJECT_MAX 32768
#define DUMP_SLAB_OBJECTS_MAX 4096
#define DUMP_ADDRESS_MAX ((uint64_t)1 << 57)

enum { DUMP_FREE, DUMP_LIVE, DUMP_CACHED, DUMP_STATES }; /* enum quarry_view_state */

/* Of one size class of an arena, of its mixed slabs (object_size 0), or of its large blocks. */
struct dump_row {
	uint32_t arena, object_size;
	bool blocks;
	uint64_t count, held, objects, live, live_bytes, cached, cached_bytes;
	size_t next; /* of the same arena, and one; 0: none */
};

struct dump_arena {
	char *name;
	size_t rows; /* the last that was made, and one */
};

struct dump_region {
	uint64_t address, size;
	uint32_t arena;
	int node, pages;
	uint64_t held; /* by slabs and blocks in it */
};

struct dump {
	struct dump_arena *arenas;
	struct dump_region *regions;
	struct dump_row *rows;
	size_t arena_count, region_count, row_count, arena_room, region_room, row_room;
	bool exact;
	uint64_t objects, objects_bytes, blocks, blocks_bytes; /* live ones, as they were told of */
	/* While it is read: */
	uint64_t records, slabs, cached, cached_bytes, end; /* end: of what was told of last */
	struct { uint64_t regions, slabs, blocks, blocks_bytes, objects, objects_bytes, cached, cached_bytes; } said;
	bool has_report, has_ended;
};

struct dump_slab {
	uint64_t address;
	uint32_t size, object_size, objects, live, cached;
	/* What its objects add up to: */
	uint64_t seen[DUMP_STATES], bytes[DUMP_STATES];
};

/* ---- tools/dump.c ---- */

/* Whether a file that begins so is one. */
bool dump_is(const char *text, size_t length);

/* All of it; a status, and what is wrong was said, with the command's name and the file's before it. */
int dump_read(struct dump *d, const char *command, const char *name, const char *text, size_t length);
void dump_free(struct dump *d);

/* For the two readers: what is wrong with a record, or NULL. */
const char *dump_add_report(struct dump *d);
const char *dump_add_arena(struct dump *d, uint64_t number, const char *name, size_t length);
const char *dump_add_region(struct dump *d, const struct dump_region *region);
const char *dump_add_slab(struct dump *d, const struct dump_slab *slab);
const char *dump_add_block(struct dump *d, uint64_t address, uint64_t size);
const char *dump_end(struct dump *d, uint64_t records);

/* So many objects of a slab in one state; or, of a mixed one, one of so many bytes, at an offset that is not before *end. */
const char *dump_slab_run(struct dump_slab *s, uint64_t count, unsigned state);
const char *dump_slab_item(struct dump_slab *s, uint64_t offset, uint64_t size, unsigned state, uint64_t *end);

/* ---- the readers; *where is the byte, or line, that is wrong ---- */

const char *dump_read_binary(struct dump *d, const char *text, size_t length, uint64_t *where);
const char *dump_read_json(struct dump *d, const char *text, size_t length, uint64_t *where);

#endif
