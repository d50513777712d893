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

#define CHUNK_DEFAULT ((size_t)64 << 10)
#define CHUNK_MIN ((size_t)256)
#define FILL 0xde

/* In front of its memory, which is aligned as it is. */
struct chunk {
	struct chunk *next, *previous;
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
	struct chunk *current; /* &ended, when the stack was destroyed */
	size_t used; /* of the current chunk's memory */
	struct chunk *first;
	size_t limit, held, peak, spills;
	size_t floor;   /* bytes below the newest mark: what was taken before it stays as it is */
	uint32_t depth; /* marks that were not ended */
	bool is_scratch;
	unsigned flags;
};

/* Without room. Where nobody else has the memory of a stack that was destroyed, who still uses it comes by here. */
static struct chunk ended = { .size = sizeof(struct chunk) };

static const quarry_manager_ops stack_ops;

static size_t room_of(const struct chunk *c)
{
	return c->size - sizeof(*c);
}

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
	size_t least = n + sizeof(struct chunk), size;

	if (n > PTRDIFF_MAX - sizeof(struct chunk)) {
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
static struct chunk *add_chunk(quarry_stack *s, size_t n)
{
	size_t size = size_for(s, n, s->held);
	struct chunk *c;

	if (size == 0)
		return NULL;
	c = take_from(s->from, size);
	if (c == NULL)
		return NULL;
	*c = (struct chunk){ .size = size, .previous = s->current };
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

static bool is_in_chunk(const struct chunk *c, const void *p)
{
	return (uintptr_t)p - (uintptr_t)c < c->size;
}

static size_t bytes_behind(const struct chunk *c)
{
	size_t bytes = 0;

	while ((c = c->next) != NULL)
		bytes += c->size;
	return bytes;
}

/* The chunks behind c, from the last one on: a manager that is a stack takes back only what it gave last. */
static size_t drop_behind(quarry_stack *s, struct chunk *c)
{
	size_t bytes = bytes_behind(c);
	struct chunk *last = c;

	while (last->next != NULL)
		last = last->next;
	while (last != c) {
		struct chunk *gone = last;

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
	struct chunk *next = s->current->next;

	if (is_none(s))
		return false;
	if (!(s->flags & QUARRY_STACK_SPILL)) {
		qy_fail(ENOMEM, "stack: it is full, and does not spill");
		return false;
	}
	if (next == NULL || room_of(next) < n) {
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
	s->manager = (quarry_manager){ &stack_ops, s };
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
	struct chunk *first;

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
static size_t gap(const struct chunk *c, size_t used, size_t alignment)
{
	return (size_t)(-((uintptr_t)c->memory + used) & (alignment - 1));
}

static void *take(quarry_stack *s, size_t alignment, size_t n)
{
	struct chunk *c = s->current;
	size_t skip = gap(c, s->used, alignment), left = room_of(c) - s->used;
	size_t all;

	if (QY_UNLIKELY(skip > left || n > left - skip)) {
		/* Wherever the chunk comes to lie. */
		if (__builtin_add_overflow(n, alignment > 16 ? alignment : 0, &all)) {
			qy_fail(ENOMEM, "stack: %zu bytes are more than there can be", n);
			return NULL;
		}
		if (!go_on(s, all))
			return NULL;
		c = s->current;
		skip = gap(c, 0, alignment);
	}
	s->used += skip + n;
	if (c->before + s->used > s->peak)
		s->peak = c->before + s->used;
	return c->memory + s->used - n;
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

/* With the option checked, what was taken reads as what blocks that ended do. */
static void fill(struct chunk *c, size_t from, size_t to)
{
	if (QY_UNLIKELY(qy_setting(checked) != 0))
		memset(c->memory + from, FILL, to - from);
}

static void go_back(quarry_stack *s, uint32_t number, size_t used)
{
	while (s->current->number != number) {
		struct chunk *c = s->current;

		fill(c, 0, s->used);
		s->current = c->previous;
		s->used = c->before - s->current->before;
	}
	fill(s->current, used, s->used);
	s->used = used;
}

QUARRY_API int quarry_stack_release(quarry_stack *stack, quarry_mark mark)
{
	uint32_t number;
	size_t used;

	if (is_none(stack))
		return -1;
	if (mark.stack != stack)
		return qy_fail(EINVAL, "mark: it is of another stack");
	number = stack->current->number;
	used = stack->used;
	for (const struct chunk *c = stack->current; number > mark.chunk; c = c->previous) {
		used = c->before - c->previous->before;
		number--;
	}
	if (number != mark.chunk || mark.used > used || mark.depth >= stack->depth)
		return qy_fail(EINVAL, "mark: it was ended by the release of an earlier one");
	go_back(stack, mark.chunk, mark.used);
	stack->depth = mark.depth;
	stack->floor = mark.floor;
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
	for (const struct chunk *c = stack->first; c != NULL; c = c->next)
		stats->chunks++;
	return 0;
}

/* ---- as a manager ---- */

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
	p = take(ctx, front, all);
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
	for (const struct chunk *c = s->current; c != NULL; c = c->previous) {
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

		fill(s->current, at, s->used);
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
	if (at != 0 && n <= room_of(s->current) - at) {
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
	return most - sizeof(struct chunk) - sizeof(struct header);
}

static const quarry_manager_ops stack_ops = {
	.struct_size = sizeof(stack_ops),
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
	return manager->ops == &stack_ops ? &any_stack : manager;
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
	const struct chunk *c = s == NULL ? NULL : s->current;

	while (c != NULL && !is_in_chunk(c, p))
		c = c->previous;
	return c != NULL && !is_in_chunk(c, other);
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
