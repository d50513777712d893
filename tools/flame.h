/* SPDX-License-Identifier: MIT */
/* `quarry flame`: a heap profile from a file (flame_file.c finds out what it is; flame_pprof.c, flame_heap.c and
 * flame_lines.c read it), its addresses named (flame_names.c, with flame_elf.c and flame_dwarf.c), put together to a tree
 * (flame_tree.c), and told as a picture (flame_svg.c), a table or JSON (flame_table.c).
 *
 * Nobody vouches for the file. Whatever is in it, what is read is bounded by FLAME_* below, and numbers saturate. */
#ifndef QUARRY_TOOLS_FLAME_H
#define QUARRY_TOOLS_FLAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "tools/index.h"

#define FLAME_UNPACKED_MAX ((size_t)256 << 20) /* bytes of a profile, without gzip */
#define FLAME_SAMPLES_MAX ((size_t)4 << 20)
#define FLAME_FRAMES_MAX ((size_t)16 << 20)    /* of all stacks together */
#define FLAME_PLACES_MAX ((size_t)4 << 20)     /* in programs; and functions */
#define FLAME_NODES_MAX ((size_t)4 << 20)      /* of the tree */
#define FLAME_MODULES_MAX 65536                /* loaded files */
#define FLAME_TEXT_MAX ((size_t)512 << 20)     /* bytes of all names together */
#define FLAME_DEPTH_MAX 512                    /* frames of a stack that are drawn; inlined ones count */
#define FLAME_NAME_MAX 1024                    /* bytes of a function's name; the rest is left out */

/* The values of a sample, in the order of profile.proto. */
enum flame_value { FLAME_ALLOCATED_OBJECTS, FLAME_ALLOCATED_BYTES, FLAME_OBJECTS, FLAME_BYTES, FLAME_VALUES };

#define FLAME_NONE UINT32_MAX

/* What becomes of the names of a module's addresses. */
enum flame_state {
	FLAME_UNUSED,   /* no address of it was asked for */
	FLAME_SAME,     /* the file has the build id of the profile */
	FLAME_UNPROVEN, /* there is a file, and the profile has no build id to compare */
	FLAME_REPLACED, /* the file there has another */
	FLAME_MISSING,  /* none that can be read */
};

/* A part of a loaded file. The names of a profile are text of a program's, and may be anything. */
struct flame_module {
	uint64_t from, to, offset; /* addresses, and where in the file the first one is */
	char *path;                /* may be empty */
	char *id;                  /* build id in hex, or "" */
	uint32_t same;             /* the first of this path and id */
	enum flame_state state;
	uint64_t bytes;            /* of what is drawn, in its functions without what they call */
};

/* A function: one line of the table, and what frames of the tree are compared by. */
struct flame_function {
	char *name;
	uint32_t module;     /* FLAME_NONE: not known */
	char *file;          /* where it is written; NULL: not known */
	uint64_t self[2], total[2]; /* objects, bytes */
	uint64_t seen;       /* by the sample that was counted last */
};

/* A place in a stack: the address of a call, or a name. Its functions, the innermost first, are more than one where the
 * compiler has inlined some. */
struct flame_place {
	uint64_t address;
	uint32_t module;
	uint32_t first, count; /* in functions_of */
	uint32_t line;         /* of the outermost in its file, or 0 */
};

struct flame_sample {
	size_t first; /* in frames, the innermost first */
	uint32_t count;
	uint64_t values[FLAME_VALUES];
	const char *arena; /* NULL: not told */
	int64_t node;      /* -1: not told */
};

struct flame_profile {
	const char *format;
	bool has[FLAME_VALUES];
	bool labelled;
	const char *not_allocated; /* why it has nothing of what was allocated; NULL: as is usual for the format */
	uint64_t mean; /* bytes from one sample to the next; 0: not told */
	struct flame_module *modules;
	size_t module_count, module_room;
	struct flame_function *functions;
	size_t function_count, function_room;
	struct flame_place *places;
	size_t place_count, place_room;
	uint32_t *functions_of;
	size_t functions_of_count, functions_of_room;
	uint32_t *frames; /* places */
	size_t frame_count, frame_room;
	struct flame_sample *samples;
	size_t sample_count, sample_room;
	char **texts; /* that samples point to */
	size_t text_count, text_room;
	struct index function_index, place_index, file_index, text_index;
	size_t text_bytes;
	const char *error; /* why it cannot be read, or drawn */
};

/* ---- reading ---- */

/* 0, or a status after a line on standard error. name is the file's, for that. */
int flame_read_file(struct flame_profile *p, const char *path);
/* The same of text in memory (`length` bytes, and room for one more). */
int flame_read(struct flame_profile *p, const char *name, char *text, size_t length);
void flame_free(struct flame_profile *p);

/* Each false with p->error. */
bool flame_read_pprof(struct flame_profile *p, const uint8_t *data, size_t length);
bool flame_read_heap(struct flame_profile *p, char *text, size_t length);
bool flame_read_json(struct flame_profile *p, char *text, size_t length);
bool flame_read_collapsed(struct flame_profile *p, char *text, size_t length);

/* Gzip (RFC 1952). False, and why. */
bool flame_unpack(const uint8_t *data, size_t length, char **text, size_t *unpacked, const char **error);
bool flame_has_zlib(void);

bool flame_fail(struct flame_profile *p, const char *error);
bool flame_no_memory(struct flame_profile *p);
/* A list's room for one more of `size` bytes; false without memory, and with the error where it has `most` already. */
bool flame_grow(struct flame_profile *p, void *list, size_t count, size_t *room, size_t size, size_t most, const char *error);
/* A copy for the caller, of `length` bytes at most; NULL with an error. */
char *flame_copy(struct flame_profile *p, const char *text, size_t length);
/* Numbers of what is new or was there; FLAME_NONE with an error. A name is cut, and what is not text replaced. */
uint32_t flame_add_function(struct flame_profile *p, const char *name, size_t length, uint32_t module);
uint32_t flame_place_at(struct flame_profile *p, uint64_t address, uint32_t module);
/* A new one in any case. */
uint32_t flame_add_place(struct flame_profile *p, uint64_t address, uint32_t module);
uint32_t flame_add_named_place(struct flame_profile *p, const char *name, size_t length);
/* With its addresses, offset, and copies of a path and an id of so many bytes. */
bool flame_add_module(struct flame_profile *p, const struct flame_module *like, const char *path, size_t path_length,
		      const char *id, size_t id_length);
/* One whose addresses are offsets in the file. */
uint32_t flame_file(struct flame_profile *p, const char *path, const char *id);
struct flame_sample *flame_add_sample(struct flame_profile *p);
/* To the sample that was added last. */
bool flame_add_frame(struct flame_profile *p, uint32_t place);
/* The innermost first, and all of one place before those of the next. */
bool flame_add_function_of(struct flame_profile *p, struct flame_place *place, uint32_t function);
/* The same text, as long as the profile lives; NULL with an error. */
const char *flame_keep(struct flame_profile *p, const char *text, size_t length);
uint64_t flame_sum(uint64_t a, uint64_t b);

/* ---- naming ---- */

struct flame_elf;
/* NULL when it is no ELF file of 64 bits, or cannot be read. */
struct flame_elf *flame_elf_open(const char *path);
void flame_elf_close(struct flame_elf *elf);
int flame_elf_fd(const struct flame_elf *elf);
/* The build id in hex, or "". */
const char *flame_elf_id(const struct flame_elf *elf);
/* From where in the file to the address that symbols and debug information have. */
bool flame_elf_address(const struct flame_elf *elf, uint64_t offset, uint64_t *address);
/* The least address of the file, as dladdr counts from. */
uint64_t flame_elf_base(const struct flame_elf *elf);
/* The function's, or NULL. */
const char *flame_elf_symbol(struct flame_elf *elf, uint64_t address);

/* By debug information, with what was inlined, the innermost first; or by symbols. Names live as long as it is open. */
struct flame_frames {
	struct {
		const char *name, *file; /* file: NULL: not known */
		int line;                /* in it: of the address, or of the call of what was inlined */
	} at[16];
	unsigned count;
};

struct flame_dwarf;
bool flame_has_libdw(void);
/* NULL where libdw was left out. */
struct flame_dwarf *flame_dwarf_open(const char *path, int fd);
void flame_dwarf_close(struct flame_dwarf *dwarf);
bool flame_dwarf_frames(struct flame_dwarf *dwarf, uint64_t address, struct flame_frames *found);

/* A name as it was written, in a buffer until the next call; the name itself where that cannot be told. */
const char *flame_demangle(const char *name);

/* Names all places. False with an error. */
bool flame_name(struct flame_profile *p);

/* ---- the tree ---- */

struct flame_node {
	uint32_t function; /* FLAME_NONE: the root, which is all */
	uint32_t parent, child, next;
	uint32_t depth;    /* the root's is 0 */
	uint32_t line;     /* 0: not known, or more than one */
	uint64_t total[2], self[2]; /* objects, bytes */
};

struct flame_tree {
	const struct flame_profile *profile;
	struct flame_node *nodes; /* a node stands behind its parent */
	size_t count, room;
	struct index index;
	uint32_t *table; /* functions, largest first */
	size_t table_count;
	uint32_t deepest;
	uint64_t cut; /* samples with frames beyond FLAME_DEPTH_MAX */
	uint64_t used; /* samples that were taken */
};

struct flame_look {
	bool allocated, objects, inverted;
	const char *arena; /* NULL: all */
	int64_t node;      /* -1: all */
	const char *title; /* NULL: by the file's name */
	const char *file;
};

/* Children stand largest first. Counts functions and modules too. False with the profile's error. */
bool flame_build(struct flame_tree *tree, struct flame_profile *p, const struct flame_look *look);
void flame_tree_free(struct flame_tree *tree);

/* "in use, arena x, node 0, by samples some 512.0 KiB apart": what is shown. */
void flame_what(const struct flame_profile *p, const struct flame_look *look, char *text, size_t size);
/* What is to be known of names, in words; empty: nothing. */
void flame_remarks(const struct flame_tree *tree, char *text, size_t size);
/* The last part of a path. */
const char *flame_module_name(const struct flame_profile *p, uint32_t module);

bool flame_print_svg(const struct flame_tree *tree, const struct flame_look *look, FILE *out);
void flame_print_text(const struct flame_tree *tree, const struct flame_look *look, FILE *out);
void flame_print_json(const struct flame_tree *tree, const struct flame_look *look, FILE *out);

#endif
