/* SPDX-License-Identifier: MIT */
/* Stacks: chunks in a row, of which those behind the current one are kept for later. What is taken stands in order of
 * (chunk, offset), so a mark is these two numbers. */
#include "include/quarry/stack.h"

#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <string.h>

#include "lib/api/error.h"
#include "lib/base/settings.h"
#include "lib/cache/taken.h"
#include "lib/object/manager.h"
#include "lib/object/own.h"
#include "lib/object/stack.h"

#define CHUNK_DEFAULT ((size_t)64 << 10)
#define CHUNK_MIN ((size_t)256)
#define FILL 0xde

/* Without room. Where nobody else has the memory of a stack that was destroyed, who still uses it comes by here. */
static struct qy_chunk ended = { .size = sizeof(struct qy_chunk) };

/* ---- memory ---- */

/* The arena that the manager is of; NULL: of none that is to be held. */
static quarry_arena *arena_of(const quarry_manager *from)
{
	return from != NULL && qy_manager_is_own(from) ? from->ctx : NULL;
}

/* A manager's memory that is in an arena keeps that one from ending. (Of a manager of the program's, or a stack, it is
 * not known; it is to outlive the stack.) */
static void *take_from(quarry_manager *from, size_t size)
{
	return qy_manager_is_own(from) ? qy_arena_alloc_held(arena_of(from), size, 16, false)
				       : quarry_manager_alloc(from, size);
}

static void give_to(quarry_manager *from, void *p)
{
	if (qy_manager_is_own(from))
		qy_arena_free_held(p);
	else
		(void)quarry_manager_free(from, p);
}

static int fail_none(void) QY_COLD;
static int fail_none(void)
{
	return qy_fail(EINVAL, "stack: there is none");
}

/* Its answer where there is none, as far as that can be seen. */
static bool is_none(const quarry_stack *s)
{
	if (QY_LIKELY(s != NULL && s->current != &ended))
		return false;
	fail_none();
	return true;
}

/* ---- chunks ---- */

/* How large a chunk for at least n bytes is to be, where others have `held`. 0 with ENOMEM. */
static size_t size_for(const quarry_stack *s, size_t n, size_t held)
{
	size_t least = n + sizeof(struct qy_chunk), size;

	if (n > PTRDIFF_MAX - sizeof(struct qy_chunk)) {
		qy_fail(ENOMEM, "stack: %zu bytes are more than there can be", n);
		return 0;
	}
	size = qy_max(s->chunk, least);
	if (s->limit == 0 || (held <= s->limit && size <= s->limit - held))
		return size;
	if (held <= s->limit && least <= s->limit - held)
		return s->limit - held; /* the last one may be shorter than chunks are, and has all that is left */
	qy_fail(ENOMEM, "stack: %zu bytes more would pass its limit of %zu", n, s->limit);
	return 0;
}

/* Behind the current one, for at least n bytes. */
static struct qy_chunk *add_chunk(quarry_stack *s, size_t n)
{
	size_t size = size_for(s, n, s->held);
	struct qy_chunk *c;

	if (size == 0)
		return NULL;
	c = take_from(s->from, size);
	if (c == NULL)
		return NULL;
	*c = (struct qy_chunk){ .size = size, .previous = s->current };
	if (s->current != NULL) {
		c->number = s->current->number + 1;
		c->next = s->current->next;
		s->current->next = c;
	} else {
		s->first = c;
	}
	if (c->next != NULL)
		c->next->previous = c;
	s->held += size;
	return c;
}

static size_t bytes_behind(const struct qy_chunk *c)
{
	size_t bytes = 0;

	while ((c = c->next) != NULL)
		bytes += c->size;
	return bytes;
}

/* The chunks behind c, from the last one on: a manager that is a stack takes back only what it gave last. */
static size_t drop_behind(quarry_stack *s, struct qy_chunk *c)
{
	size_t bytes = bytes_behind(c);
	struct qy_chunk *last = c;

	while (last->next != NULL)
		last = last->next;
	while (last != c) {
		struct qy_chunk *gone = last;

		last = gone->previous;
		give_to(s->from, gone);
	}
	c->next = NULL;
	s->held -= bytes;
	return bytes;
}

/* Make a chunk with room for n bytes the current one. */
static bool go_on(quarry_stack *s, size_t n)
{
	struct qy_chunk *next = s->current->next;

	if (is_none(s))
		return false;
	if (!(s->flags & QUARRY_STACK_SPILL)) {
		qy_fail(ENOMEM, "stack: it is full, and does not spill");
		return false;
	}
	if (next == NULL || qy_chunk_room(next) < n) {
		if (size_for(s, n, s->held - bytes_behind(s->current)) == 0)
			return false;
		/* Those that were kept are too short, the nearest at least: they go, rather than add up. */
		drop_behind(s, s->current);
		next = add_chunk(s, n);
		if (next == NULL)
			return false;
		s->spills++;
	}
	next->number = s->current->number + 1;
	next->before = s->current->before + s->used;
	s->current = next;
	s->used = 0;
	return true;
}

/* ---- the stack ---- */

/* As the struct first was, which is what 0 means: fields that are added stand behind. */
#define ATTR_FIRST (offsetof(quarry_stack_attr, limit) + sizeof(size_t))

/* A program's struct as it is today. False with EINVAL for a size that it never had. */
static bool attr_of(quarry_stack_attr *attr, const quarry_stack_attr *given)
{
	size_t size = given->struct_size != 0 ? given->struct_size : ATTR_FIRST;

	*attr = (quarry_stack_attr){ .struct_size = sizeof(*attr) };
	if (size != ATTR_FIRST && size != sizeof(*attr)) {
		qy_fail(EINVAL, "struct_size: %zu is not the size of any quarry_stack_attr", given->struct_size);
		return false;
	}
	memcpy(attr, given, size);
	return true;
}

static bool check(const quarry_stack_attr *attr)
{
	if (attr->flags & ~(unsigned)QUARRY_STACK_SPILL)
		qy_fail(EINVAL, "flags: unknown bits in 0x%x", attr->flags);
	else if (attr->chunk != 0 && (attr->chunk < CHUNK_MIN || attr->chunk > PTRDIFF_MAX))
		qy_fail(EINVAL, "chunk: %zu is not at least %zu bytes, or far too much", attr->chunk, CHUNK_MIN);
	else if (attr->limit != 0 && attr->limit < (attr->chunk != 0 ? attr->chunk : CHUNK_DEFAULT))
		qy_fail(EINVAL, "limit: %zu bytes are less than the first chunk", attr->limit);
	else
		return qy_manager_check(attr->manager);
	return false;
}

QUARRY_API quarry_stack *quarry_stack_create(const quarry_stack_attr *attr)
{
	static const quarry_stack_attr plain = { .flags = QUARRY_STACK_SPILL };
	quarry_stack_attr a;
	quarry_stack *s;

	if (!attr_of(&a, attr == NULL ? &plain : attr) || !check(&a))
		return NULL;
	if (!qy_arena_hold(arena_of(a.manager))) {
		if (errno == EINVAL)
			qy_fail_arena(arena_of(a.manager));
		return NULL;
	}
	s = take_from(a.manager, sizeof(*s));
	if (s == NULL) {
		qy_arena_let_go(arena_of(a.manager));
		return NULL;
	}
	*s = (quarry_stack){ .from = a.manager, .chunk = a.chunk != 0 ? a.chunk : CHUNK_DEFAULT,
			     .limit = a.limit, .flags = a.flags };
	s->manager = (quarry_manager){ &qy_stack_ops, s };
	s->current = add_chunk(s, 1);
	if (s->current == NULL) {
		give_to(a.manager, s);
		qy_arena_let_go(arena_of(a.manager));
		return NULL;
	}
	return s;
}

QUARRY_API void quarry_stack_destroy(quarry_stack *stack)
{
	quarry_manager *from;
	struct qy_chunk *first;

	if (stack == NULL || is_none(stack))
		return;
	if (stack->is_scratch) { /* its thread will ask for it again, and ends it */
		quarry_stack_reset(stack);
		return;
	}
	from = stack->from;
	first = stack->first;
	drop_behind(stack, first);
	stack->current = &ended;
	stack->used = 0;
	give_to(from, first);
	give_to(from, stack);
	qy_arena_let_go(arena_of(from));
}

/* How many bytes to leave out before the next that is aligned so. */
static size_t gap(const struct qy_chunk *c, size_t used, size_t alignment)
{
	return (size_t)(-((uintptr_t)c->memory + used) & (alignment - 1));
}

/* In a further chunk, wherever that comes to lie. */
QY_NOINLINE static void *take_more(quarry_stack *s, size_t alignment, size_t n)
{
	size_t all;

	if (__builtin_add_overflow(n, alignment > 16 ? alignment : 0, &all)) {
		qy_fail(ENOMEM, "stack: %zu bytes are more than there can be", n);
		return NULL;
	}
	return go_on(s, all) ? qy_stack_take(s, alignment, n) : NULL;
}

/* (What may come after a hit is called last, so that a hit saves no registers.) */
QY_INLINE void *take(quarry_stack *s, size_t alignment, size_t n)
{
	struct qy_chunk *c = s->current;
	size_t skip = gap(c, s->used, alignment), left = qy_chunk_room(c) - s->used;

	if (QY_UNLIKELY(skip > left || n > left - skip))
		return take_more(s, alignment, n);
	s->used += skip + n;
	if (c->before + s->used > s->peak)
		s->peak = c->before + s->used;
	return c->memory + s->used - n;
}

void *qy_stack_take(quarry_stack *s, size_t alignment, size_t n)
{
	return take(s, alignment, n);
}

QUARRY_API void *quarry_stack_alloc(quarry_stack *stack, size_t n)
{
	if (QY_LIKELY(stack != NULL))
		return take(stack, 16, n);
	fail_none();
	return NULL;
}

QUARRY_API void *quarry_stack_alloc_aligned(quarry_stack *stack, size_t alignment, size_t n)
{
	if (!qy_is_pow2(alignment)) {
		qy_fail(EINVAL, "alignment: %zu is not a power of two", alignment);
		return NULL;
	}
	if (QY_LIKELY(stack != NULL))
		return take(stack, alignment, n);
	fail_none();
	return NULL;
}

QUARRY_API quarry_mark quarry_stack_mark(quarry_stack *stack)
{
	quarry_mark mark = { NULL, 0, 0, 0, 0 };

	if (!is_none(stack)) {
		mark = (quarry_mark){ stack, stack->used, stack->current->number, stack->depth++, stack->floor };
		stack->floor = stack->current->before + stack->used;
	}
	return mark;
}

void qy_stack_fill(struct qy_chunk *c, size_t from, size_t to)
{
	if (QY_UNLIKELY(qy_setting(checked) != 0))
		memset(c->memory + from, FILL, to - from);
}

static void go_back(quarry_stack *s, uint32_t number, size_t used)
{
	while (s->current->number != number) {
		struct qy_chunk *c = s->current;

		qy_stack_fill(c, 0, s->used);
		s->current = c->previous;
		s->used = c->before - s->current->before;
	}
	qy_stack_fill(s->current, used, s->used);
	s->used = used;
}

/* Of a chunk before, with memory that is to be filled, or a mark that is none. */
QY_NOINLINE static int release_more(quarry_stack *stack, size_t used_then, uint32_t chunk, uint32_t depth, size_t floor)
{
	uint32_t number = stack->current->number;
	size_t used = stack->used;

	for (const struct qy_chunk *c = stack->current; number > chunk; c = c->previous) {
		used = c->before - c->previous->before;
		number--;
	}
	if (number != chunk || used_then > used || depth >= stack->depth)
		return qy_fail(EINVAL, "mark: it was ended by the release of an earlier one");
	go_back(stack, chunk, used_then);
	stack->depth = depth;
	stack->floor = floor;
	return 0;
}

QY_COLD static int refuse(const quarry_stack *stack)
{
	return is_none(stack) ? -1 : qy_fail(EINVAL, "mark: it is of another stack");
}

QUARRY_API int quarry_stack_release_parts(quarry_stack *stack, const quarry_stack *of, size_t used, uint32_t chunk,
					  uint32_t depth, size_t floor)
{
	if (QY_UNLIKELY(stack == NULL || of != stack || stack->current == &ended))
		return refuse(stack);
	if (QY_UNLIKELY(stack->current->number != chunk || used > stack->used || depth >= stack->depth ||
			qy_setting(checked) != 0))
		return release_more(stack, used, chunk, depth, floor);
	stack->used = used;
	stack->depth = depth;
	stack->floor = floor;
	return 0;
}

QUARRY_API void quarry_stack_reset(quarry_stack *stack)
{
	if (stack == NULL || is_none(stack))
		return;
	go_back(stack, 0, 0);
	stack->depth = 0;
	stack->floor = 0;
}

QUARRY_API size_t quarry_stack_trim(quarry_stack *stack)
{
	return is_none(stack) ? 0 : drop_behind(stack, stack->current);
}

QUARRY_API int quarry_stack_stats_get(const quarry_stack *stack, quarry_stack_stats *stats)
{
	if (is_none(stack))
		return -1;
	if (stats == NULL)
		return qy_fail(EINVAL, "stats: there is none");
	*stats = (quarry_stack_stats){ .used = stack->current->before + stack->used, .held = stack->held,
				       .peak = stack->peak, .limit = stack->limit, .spills = stack->spills };
	for (const struct qy_chunk *c = stack->first; c != NULL; c = c->next)
		stats->chunks++;
	return 0;
}

QUARRY_API quarry_manager *quarry_stack_manager(quarry_stack *stack)
{
	return is_none(stack) ? NULL : &stack->manager;
}

/* ---- one for each thread ---- */

static __thread quarry_stack *scratch __attribute__((tls_model("initial-exec")));
static pthread_key_t scratch_key;
static pthread_once_t scratch_once = PTHREAD_ONCE_INIT;
static bool scratch_ends;

static void end_scratch(void *stack)
{
	quarry_stack *s = stack;

	scratch = NULL;
	s->is_scratch = false;
	quarry_stack_destroy(s);
}

static void make_key(void)
{
	scratch_ends = pthread_key_create(&scratch_key, end_scratch) == 0;
}

/* In the node's arena: what the thread chose is not to be kept from ending by what the program never sees made. */
static quarry_stack *make_scratch(void)
{
	quarry_arena *arena = qy_own_arena();
	quarry_stack_attr attr = { .flags = QUARRY_STACK_SPILL };

	attr.manager = arena == NULL ? NULL : quarry_manager_of_arena(arena);
	return attr.manager == NULL ? NULL : quarry_stack_create(&attr);
}

QUARRY_API quarry_stack *quarry_scratch(void)
{
	quarry_stack *s = scratch;

	if (QY_LIKELY(s != NULL))
		return s;
	(void)pthread_once(&scratch_once, make_key);
	s = make_scratch();
	if (s == NULL)
		return NULL;
	/* Without a key to be had it goes when the process does. */
	if (scratch_ends && pthread_setspecific(scratch_key, s) != 0) {
		quarry_stack_destroy(s);
		errno = ENOMEM;
		return NULL;
	}
	s->is_scratch = true;
	scratch = s;
	return s;
}

QUARRY_API quarry_frame quarry_frame_begin(quarry_stack *stack)
{
	quarry_frame frame = { .stack = stack != NULL ? stack : quarry_scratch() };

	if (frame.stack != NULL && is_none(frame.stack))
		frame.stack = NULL;
	if (frame.stack != NULL)
		frame.mark = quarry_stack_mark(frame.stack);
	return frame;
}

QUARRY_API void quarry_frame_end(quarry_frame *frame)
{
	if (frame == NULL || frame->stack == NULL)
		return;
	(void)quarry_stack_release(frame->stack, frame->mark);
	frame->stack = NULL;
}
