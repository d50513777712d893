/* SPDX-License-Identifier: MIT */
/* The inside of stacks (include/quarry/stack.h), for stack.c (chunks, marks, scratch stacks) and stack_manager.c. */
#ifndef QUARRY_OBJECT_STACK_H
#define QUARRY_OBJECT_STACK_H

#include "include/quarry/stack.h"
#include "lib/base/base.h"
#include "lib/object/manager.h"

/* In front of its memory, which is aligned as it is. */
struct qy_chunk {
	struct qy_chunk *next, *previous;
	size_t size;   /* of all of it, this with it */
	size_t before; /* bytes used in the chunks before it, when it became the current one */
	uint32_t number;
	_Alignas(16) char memory[];
};

struct quarry_stack {
	/* What is freed is written to at its beginning: what tells of the end stands behind this. */
	quarry_manager manager; /* the stack itself, as one */
	quarry_manager *from;
	size_t chunk;
	struct qy_chunk *current; /* &ended, when the stack was destroyed */
	size_t used; /* of the current chunk's memory */
	struct qy_chunk *first;
	size_t limit, held, peak, spills;
	size_t floor;   /* bytes below the newest mark: what was taken before it stays as it is */
	uint32_t depth; /* marks that were not ended */
	bool is_scratch;
	unsigned flags;
};

QY_INLINE size_t qy_chunk_room(const struct qy_chunk *c)
{
	return c->size - sizeof(*c);
}

QY_INLINE bool qy_chunk_has(const struct qy_chunk *c, const void *p)
{
	return (uintptr_t)p - (uintptr_t)c < c->size;
}

extern QY_HIDDEN const quarry_manager_ops qy_stack_ops;

/* As quarry_stack_alloc_aligned, of a stack that is there. */
void *qy_stack_take(quarry_stack *s, size_t alignment, size_t n);

/* With the option checked, what was taken reads as what blocks that ended do. */
void qy_stack_fill(struct qy_chunk *c, size_t from, size_t to);

#endif
