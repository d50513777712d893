/* SPDX-License-Identifier: MIT */
/* Stacks as managers, and blocks of them: what is taken so has a header, by which it is known. */
#include "lib/object/stack.h"

#include <errno.h>
#include <string.h>

#include "lib/api/error.h"

/* In front of each allocation, 16 bytes before it: so that an address in the midst of one is, but by chance of one in two
 * million, not taken for a beginning, whatever the program has written there. */
struct header {
	uint64_t size_and_check; /* in 16 bytes << 21 | 21 bits made of all else */
	quarry_stack *stack;     /* NULL: freed */
};

#define CHECK_SHIFT 21
#define SIZE_MOST ((size_t)1 << 46)

static struct header *header_of(const void *p)
{
	return (struct header *)((uintptr_t)p - sizeof(struct header));
}

static uint64_t size_and_check(const quarry_stack *s, const void *p, size_t size)
{
	uint64_t all = ((uint64_t)(uintptr_t)p << 17 ^ (uint64_t)(uintptr_t)s ^ size) * 0x9e3779b97f4a7c15u;

	return (uint64_t)(size / 16) << CHECK_SHIFT | all >> (64 - CHECK_SHIFT);
}

static size_t size_of(const void *p)
{
	return (size_t)(header_of(p)->size_and_check >> CHECK_SHIFT) * 16;
}

static void set_header(quarry_stack *s, const void *p, size_t size)
{
	*header_of(p) = (struct header){ size_and_check(s, p, size), s };
}

/* The stack that memory at p, which is readable, is of; NULL where it is of none. */
static quarry_stack *stack_of(const void *p)
{
	const struct header *h = header_of(p);

	return h->stack != NULL && h->size_and_check == size_and_check(h->stack, p, size_of(p)) ? h->stack : NULL;
}

static void *ops_aligned(void *ctx, size_t alignment, size_t size)
{
	size_t front = qy_max(alignment, sizeof(struct header)), all, n = size;
	char *p;

	if (size > SIZE_MOST || __builtin_add_overflow(n = qy_align_up(size, 16), front, &all)) {
		qy_fail(ENOMEM, "stack: %zu bytes are more than there can be", size);
		return NULL;
	}
	p = qy_stack_take(ctx, front, all);
	if (p == NULL)
		return NULL;
	p += front;
	set_header(ctx, p, n);
	return p;
}

static void *ops_alloc(void *ctx, size_t size)
{
	return ops_aligned(ctx, 16, size);
}

/* Whether nothing was taken after what is at p, nor a mark set: what a mark is above stays, or its release would cut it
 * off, or find less than there was. */
static bool is_last(const quarry_stack *s, const void *p)
{
	return (const char *)p + size_of(p) == s->current->memory + s->used &&
	       s->current->before + (size_t)((const char *)header_of(p) - s->current->memory) >= s->floor;
}

static int ops_owns(void *ctx, const void *p)
{
	const quarry_stack *s = ctx;

	if ((uintptr_t)p % 16 != 0)
		return 0;
	for (const struct qy_chunk *c = s->current; c != NULL; c = c->previous) {
		size_t used = c == s->current ? s->used : c->next->before - c->before;

		if ((const char *)p >= c->memory + sizeof(struct header) && (const char *)p <= c->memory + used)
			return stack_of(p) == s;
	}
	return 0;
}

static int ops_free(void *ctx, void *p)
{
	quarry_stack *s = ctx;

	if (!ops_owns(ctx, p))
		return qy_fail(EINVAL, "p: %p is not the stack's", p);
	if (is_last(s, p)) {
		size_t at = (size_t)((char *)p - sizeof(struct header) - s->current->memory);

		qy_stack_fill(s->current, at, s->used);
		s->used = at;
	}
	header_of(p)->stack = NULL;
	return 0;
}

static void *ops_resize(void *ctx, void *p, size_t size)
{
	quarry_stack *s = ctx;
	size_t old, at, n = qy_align_up(size, 16);
	void *to;

	if (!ops_owns(ctx, p)) {
		qy_fail(EINVAL, "p: %p is not the stack's", p);
		return NULL;
	}
	if (size > SIZE_MOST) {
		qy_fail(ENOMEM, "stack: %zu bytes are more than there can be", size);
		return NULL;
	}
	old = size_of(p);
	if (n <= old && !is_last(s, p))
		return p;
	at = is_last(s, p) ? (size_t)((char *)p - s->current->memory) : 0;
	if (at != 0 && n <= qy_chunk_room(s->current) - at) {
		s->used = at + n;
		s->peak = qy_max(s->peak, s->current->before + s->used);
		set_header(s, p, n);
		return p;
	}
	to = ops_alloc(ctx, size);
	if (to == NULL)
		return NULL;
	memcpy(to, p, qy_min(old, size));
	header_of(p)->stack = NULL;
	return to;
}

static size_t ops_usable(void *ctx, const void *p)
{
	return ops_owns(ctx, p) ? size_of(p) : 0;
}

static int ops_clear(void *ctx)
{
	quarry_stack_reset(ctx);
	return 0;
}

static int ops_destroy(void *ctx)
{
	const quarry_stack *s = ctx;

	if (s->is_scratch)
		return qy_fail(EPERM, "stack: a thread's scratch stack ends with its thread");
	quarry_stack_destroy(ctx);
	return 0;
}

static int ops_stats(void *ctx, quarry_manager_stats *stats)
{
	const quarry_stack *s = ctx;

	*stats = (quarry_manager_stats){ s->current->before + s->used, s->held, s->limit };
	return 0;
}

static size_t ops_max(void *ctx)
{
	const quarry_stack *s = ctx;
	size_t most = s->chunk;

	if (s->flags & QUARRY_STACK_SPILL) /* the first chunk stays, and may be the greater part of the limit */
		most = s->limit == 0 ? SIZE_MOST : qy_max(s->chunk, s->limit - s->chunk);
	return most - sizeof(struct qy_chunk) - sizeof(struct header);
}

const quarry_manager_ops qy_stack_ops = {
	.struct_size = sizeof(qy_stack_ops),
	.name = "stack",
	.alloc = ops_alloc,
	.alloc_aligned = ops_aligned,
	.resize = ops_resize,
	.free = ops_free,
	.usable = ops_usable,
	.owns = ops_owns,
	.clear = ops_clear,
	.destroy = ops_destroy,
	.stats = ops_stats,
	.max_alloc = ops_max,
};

/* ---- blocks of stacks ---- */

static int any_free(void *ctx, void *p)
{
	quarry_stack *s = stack_of(p);

	(void)ctx;
	return s == NULL ? qy_fail(EINVAL, "p: %p is not a stack's", p) : ops_free(s, p);
}

static size_t any_usable(void *ctx, const void *p)
{
	quarry_stack *s = stack_of(p);

	(void)ctx;
	return s == NULL ? 0 : ops_usable(s, p);
}

static const quarry_manager_ops any_ops = {
	.struct_size = sizeof(any_ops), .name = "stacks", .free = any_free, .usable = any_usable,
};

static const quarry_manager any_stack = { &any_ops, NULL };

const quarry_manager *qy_stack_called(const quarry_manager *manager)
{
	return manager->ops == &qy_stack_ops ? &any_stack : manager;
}

const quarry_manager *qy_stack_meant(const quarry_manager *manager, const void *p)
{
	const quarry_stack *s = manager == &any_stack ? stack_of(p) : NULL;

	return s != NULL ? &s->manager : manager;
}

/* (What was just taken is in the current chunk, or was resized in one before.) */
bool qy_stack_is_outside(const quarry_manager *manager, const void *p, const void *other)
{
	const quarry_stack *s = manager == &any_stack ? stack_of(p) : NULL;
	const struct qy_chunk *c = s == NULL ? NULL : s->current;

	while (c != NULL && !qy_chunk_has(c, p))
		c = c->previous;
	return c != NULL && !qy_chunk_has(c, other);
}
