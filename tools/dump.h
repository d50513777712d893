/* SPDX-License-Identifier: MIT */
/* A view that was dumped (quarry_view_dump; doc/view-format.md), summed up. Nobody vouches for such a file: each record is
 * checked against those before it, and what is wrong is said. Names are UTF-8 and otherwise as somebody chose them. */
#ifndef QUARRY_TOOLS_DUMP_H
#define QUARRY_TOOLS_DUMP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tools/index.h"

#define DUMP_ARENAS_MAX 65536
#define DUMP_NAME_MAX 256
#define DUMP_OBJECT_MAX 32768
#define DUMP_SLAB_OBJECTS_MAX 4096
#define DUMP_ADDRESS_MAX ((uint64_t)1 << 57)
#define DUMP_TEXT_MAX 4096 /* of a function's or a module's name, with the 0 */
#define DUMP_ID_MAX 64     /* bytes of a build id */
#define DUMP_DEPTH_MAX 256 /* frames of a stack */
#define DUMP_NONE UINT32_MAX
#define DUMP_PIECE 65536u /* of a slab: where in it objects are is known so exactly, */
#define DUMP_PIECES 16u   /* if it is not longer than so many */

enum { DUMP_FREE, DUMP_LIVE, DUMP_CACHED, DUMP_STATES }; /* enum quarry_view_state */

/* Of one size class of an arena, of its mixed slabs (object_size 0), or of its large blocks. */
struct dump_row {
	uint32_t arena, object_size;
	bool blocks;
	uint64_t count, held, objects, live, live_bytes, cached, cached_bytes;
};

struct dump_arena {
	char *name;
};

struct dump_region {
	uint64_t address, size;
	uint32_t arena;
	int node, pages;
	uint64_t held; /* by slabs and blocks in it */
};

/* Of who allocated it: what is loaded, places in that, and stacks of those, innermost first. */
struct dump_module {
	char *id, *file; /* the id in hexadecimal; either may be empty */
};

struct dump_frame {
	uint64_t offset; /* of the call, in the file; without a module its address */
	uint32_t module; /* or DUMP_NONE */
	char *function;  /* may be empty */
};

struct dump_stack {
	uint64_t samples, objects, bytes; /* live ones; objects and bytes that the samples stand for */
	uint64_t object_size;
	uint32_t arena; /* or DUMP_NONE */
	uint32_t depth;
	size_t first;   /* in dump.numbers: the frames */
};

struct cells;

struct dump {
	struct cells *cells; /* whom else to tell (tools/cells.h), or NULL */
	struct dump_arena *arenas;
	struct dump_region *regions;
	struct dump_row *rows;
	struct index row_index;
	size_t arena_count, region_count, row_count, arena_room, region_room, row_room;
	struct dump_module *modules;
	struct dump_frame *frames;
	struct dump_stack *stacks;
	uint32_t *numbers;
	size_t module_count, frame_count, stack_count, number_count, module_room, frame_room, stack_room, number_room;
	uint64_t stack_bytes, stack_objects, stack_samples;
	uint64_t mean; /* of the profile */
	bool has_profile;
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
	uint64_t pieces[DUMP_PIECES][DUMP_STATES]; /* bytes */
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

/* Room for one more of a list, zeroed; NULL without memory. */
void *dump_one_more(void *list, size_t *count, size_t *room, size_t size);

/* ---- tools/dump_stacks.c ---- */

const char *dump_add_profile(struct dump *d, uint64_t mean);
/* Text of a dump's own: well-formed UTF-8. */
const char *dump_add_module(struct dump *d, uint64_t number, const char *id, const char *file);
const char *dump_add_frame(struct dump *d, uint64_t number, uint64_t module, uint64_t offset, const char *function);
/* Its depth frames are numbers; what it is not told of is 0. */
const char *dump_add_stack(struct dump *d, const struct dump_stack *stack, const uint32_t *numbers);
void dump_free_stacks(struct dump *d);

/* So many objects of a slab in one state; or, of a mixed one, one of so many bytes, at an offset that is not before *end. */
const char *dump_slab_run(struct dump_slab *s, uint64_t count, unsigned state);
const char *dump_slab_item(struct dump_slab *s, uint64_t offset, uint64_t size, unsigned state, uint64_t *end);

/* ---- the readers; *where is the byte, or line, that is wrong ---- */

const char *dump_read_binary(struct dump *d, const char *text, size_t length, uint64_t *where);
const char *dump_read_json(struct dump *d, const char *text, size_t length, uint64_t *where);

#endif
