/* SPDX-License-Identifier: MIT */
/* What grew between two dumps by the stack that allocated it, where both have a profile. Stacks are the same when all
 * frames are: by the module's build id (or its file's name, without one) and the offset in it. */
#ifndef QUARRY_TOOLS_DIFF_STACKS_H
#define QUARRY_TOOLS_DIFF_STACKS_H

#include "tools/dump.h"
#include "tools/flame.h"

struct diff_stack {
	const struct dump *dump;        /* where its frames are told of, */
	const struct dump_stack *stack; /* and which they are */
	struct { uint64_t samples, objects, bytes; } of[2];
};

struct diff_stacks {
	struct diff_stack *at; /* what grew most first */
	size_t count;
	const struct dump *dumps;
	struct flame_profile names; /* of frames, by files that are here */
	uint32_t *places[2];        /* theirs in it, of each dump */
};

/* False without memory. */
bool diff_stacks_get(struct diff_stacks *s, const struct dump dumps[2]);
void diff_stacks_free(struct diff_stacks *s);

/* Behind what diff.c writes; the JSON ends with it. */
void diff_stacks_text(const struct diff_stacks *s, bool all);
void diff_stacks_json(const struct diff_stacks *s, bool all);

/* A number of bytes with its sign, for a column. (diff.c) */
const char *diff_signed(int64_t n);

#endif
