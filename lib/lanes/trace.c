/* SPDX-License-Identifier: MIT */
/* What nothing leads to: marked from roots, swept, and, if asked for, its cycles found (R. Tarjan, Depth-first search and linear
 * graph algorithms, 1972). By slots, of which the objects of registered types are noted first, with their generations: whose slot is another's
 * meanwhile is gone, and whatever else becomes of the other slots is none of its business. */
#include "include/quarry/trace.h"

#include <errno.h>
#include <string.h>

#include "lib/api/error.h"
#include "lib/lanes/canary.h"
#include "lib/lanes/lanes.h"

#define MAGIC 0x7265636172u
#define TYPES 256

struct type {
	bool known;
	size_t *offset, count;
	void (*edges)(quarry_tracer *t, const void *object, size_t size, void *arg);
	void *arg;
	void (*last)(quarry_handle h, void *object, void *arg);
	void *last_arg;
};

struct quarry_tracer {
	uint64_t magic;
	quarry_lanes *lanes;
	struct type type[TYPES];
	const quarry_handle **root;
	size_t roots, root_room;
	/* While it collects: bits by slot, */
	uint32_t slots;
	uint64_t *ours, *reached;
	uint16_t *generation;  /* by slot: which object was noted, for the slot may be another's meanwhile; */
	uint32_t *rank;        /* of the first garbage of each 64 slots; */
	/* what is to be looked at, or edges that were found, slots or ranks; */
	uint32_t *list;
	size_t count, room;
	void (*visit)(quarry_tracer *t, uint32_t slot); /* NULL: it does not collect */
	int failed;            /* the errno */
	quarry_collected last;
};

/* ---- lists and bits ---- */

static bool more_room(void *array, size_t *room, size_t size)
{
	size_t next = *room == 0 ? 64 : *room * 2;
	void *p = quarry_realloc(*(void **)array, next * size);

	if (p == NULL)
		return false;
	*(void **)array = p;
	*room = next;
	return true;
}

static void push(quarry_tracer *t, uint32_t n)
{
	if (t->count == t->room && !more_room(&t->list, &t->room, sizeof(*t->list)))
		t->failed = ENOMEM;
	else
		t->list[t->count++] = n;
}

static bool is_set(const uint64_t *bits, uint32_t i)
{
	return bits[i / 64] >> i % 64 & 1;
}

static void set(uint64_t *bits, uint32_t i)
{
	bits[i / 64] |= (uint64_t)1 << i % 64;
}

/* ---- types and roots ---- */

static bool is_tracer(const quarry_tracer *t)
{
	if (t != NULL && t->magic == MAGIC)
		return true;
	(void)qy_fail(EINVAL, "this is no tracer");
	return false;
}

quarry_tracer *quarry_tracer_create(quarry_lanes *l)
{
	quarry_tracer *t = qy_lanes_check(l) ? quarry_calloc(1, sizeof(*t)) : NULL;

	if (t == NULL)
		return NULL;
	t->magic = MAGIC;
	t->lanes = l;
	return t;
}

int quarry_tracer_destroy(quarry_tracer *t)
{
	if (!is_tracer(t))
		return -1;
	if (t->visit != NULL)
		return qy_fail(EBUSY, "it is collecting");
	for (unsigned i = 0; i < TYPES; i++)
		quarry_free(t->type[i].offset);
	quarry_free(t->root);
	quarry_free(t->list);
	t->magic = 0;
	quarry_free(t);
	return 0;
}

static int check_type(const quarry_tracer *t, unsigned type)
{
	if (!is_tracer(t))
		return -1;
	if (type >= TYPES)
		return qy_fail(EINVAL, "type: %u is more than 255", type);
	return t->visit == NULL ? 0 : qy_fail(EBUSY, "it is collecting");
}

int quarry_tracer_type(quarry_tracer *t, unsigned type, const size_t *offset, size_t count)
{
	size_t *copy = NULL;

	if (check_type(t, type) != 0)
		return -1;
	if (offset == NULL && count > 0)
		return qy_fail(EINVAL, "offsets: NULL, for %lu", (unsigned long)count);
	for (size_t i = 0; i < count; i++)
		if (offset[i] % sizeof(quarry_handle) != 0)
			return qy_fail(EINVAL, "offsets: %lu is no multiple of 8", (unsigned long)offset[i]);
	if (count > 0) {
		if (count > SIZE_MAX / sizeof(*copy) || (copy = quarry_malloc(count * sizeof(*copy))) == NULL)
			return qy_fail(ENOMEM, "no memory for %lu offsets", (unsigned long)count);
		memcpy(copy, offset, count * sizeof(*copy));
	}
	quarry_free(t->type[type].offset);
	t->type[type] = (struct type){ .known = true, .offset = copy, .count = count, .last = t->type[type].last,
				       .last_arg = t->type[type].last_arg };
	return 0;
}

int quarry_tracer_type_by(quarry_tracer *t, unsigned type, void (*edges)(quarry_tracer *t, const void *object, size_t size, void *arg),
			  void *arg)
{
	if (edges == NULL)
		return qy_fail(EINVAL, "edges: NULL");
	if (quarry_tracer_type(t, type, NULL, 0) != 0)
		return -1;
	t->type[type].edges = edges;
	t->type[type].arg = arg;
	return 0;
}

int quarry_set_finalizer(quarry_tracer *t, unsigned type, void (*last)(quarry_handle h, void *object, void *arg), void *arg)
{
	if (check_type(t, type) != 0)
		return -1;
	if (!t->type[type].known)
		return qy_fail(EINVAL, "type: %u is not registered", type);
	t->type[type].last = last;
	t->type[type].last_arg = arg;
	return 0;
}

int quarry_tracer_root(quarry_tracer *t, const quarry_handle *root)
{
	if (check_type(t, 0) != 0)
		return -1;
	if (root == NULL)
		return qy_fail(EINVAL, "root: NULL");
	if (t->roots == t->root_room && !more_room(&t->root, &t->root_room, sizeof(*t->root)))
		return -1;
	t->root[t->roots++] = root;
	return 0;
}

int quarry_tracer_unroot(quarry_tracer *t, const quarry_handle *root)
{
	if (check_type(t, 0) != 0)
		return -1;
	for (size_t i = t->roots; i-- > 0;)
		if (t->root[i] == root) {
			t->root[i] = t->root[--t->roots];
			return 0;
		}
	return qy_fail(EINVAL, "it is no root");
}

/* ---- edges ---- */

void quarry_trace(quarry_tracer *t, quarry_handle h)
{
	uint32_t slot = (uint32_t)h;

	if (h != 0 && t->visit != NULL && slot < t->slots && is_set(t->ours, slot) && t->generation[slot] == (uint16_t)(h >> 32) &&
	    quarry_handle_valid(t->lanes, h))
		t->visit(t, slot);
}

/* In a scope: the handle of a slot's object, and its marks. 0: it has none. */
static quarry_handle handle_of(quarry_lanes *l, uint32_t slot, uint32_t *marks)
{
	for (;;) {
		uint64_t word = atomic_load_explicit(&l->word[slot], memory_order_acquire);

		if ((word & QUARRY_WORD_FREE) || word == 0)
			return 0;
		if (!(word & QUARRY_WORD_COLD))
			*marks = atomic_load(&qy_entry_at(qy_word_address(word), word)->marks);
		else if (!qy_cold_marks(l, slot, word, marks))
			continue;
		return qy_handle_make(l, slot, word, *marks);
	}
}

/* The same of one of ours. 0: it was freed meanwhile, and the slot may have another. */
static quarry_handle ours_of(const quarry_tracer *t, uint32_t slot, uint32_t *marks)
{
	quarry_handle h = handle_of(t->lanes, slot, marks);

	return (uint16_t)(h >> 32) == t->generation[slot] ? h : 0;
}

/* In a scope: why it could not be got. One that is gone, or whose bytes are lost for good, leads nowhere; as to any other, what it leads to
 * is not known. */
static void note_failure(quarry_tracer *t, quarry_handle h, int error)
{
	if (quarry_handle_valid(t->lanes, h) && quarry_handle_state(t->lanes, h) != QUARRY_HANDLE_LOST)
		t->failed = error;
}

/* What the object of a slot leads to is visited. */
static void look_into(quarry_tracer *t, uint32_t slot)
{
	quarry_lanes *l = t->lanes;
	uint32_t marks = 0;
	quarry_handle h;
	size_t size = 0;
	const char *p;

	quarry_enter();
	h = ours_of(t, slot, &marks);
	p = h == 0 ? NULL : qy_look_at(l, h, &size);
	if (p != NULL) {
		const struct type *type = &t->type[marks >> QY_MARK_TYPE_SHIFT];

		if (type->edges != NULL)
			type->edges(t, p, size, type->arg);
		for (size_t i = 0; i < type->count; i++)
			if (type->offset[i] + sizeof(h) <= size) {
				memcpy(&h, p + type->offset[i], sizeof(h));
				quarry_trace(t, h);
			}
	} else if (h != 0) {
		note_failure(t, h, errno);
	}
	quarry_leave();
}

/* ---- marked ---- */

static void reach(quarry_tracer *t, uint32_t slot)
{
	if (is_set(t->reached, slot))
		return;
	set(t->reached, slot);
	push(t, slot);
}

/* The objects of registered types, and those of them that are pinned. */
static void note_all(quarry_tracer *t)
{
	quarry_lanes *l = t->lanes;

	for (uint32_t slot = 0; (slot = qy_slot_in_memory_from(l, slot)) < t->slots; slot++) {
		uint32_t marks = 0;
		quarry_handle h;

		quarry_enter();
		h = handle_of(l, slot, &marks);
		if (h != 0 && t->type[marks >> QY_MARK_TYPE_SHIFT].known) {
			set(t->ours, slot);
			t->generation[slot] = (uint16_t)(h >> 32);
			if (marks & QY_MARK_PINS)
				reach(t, slot);
		}
		quarry_leave();
	}
}

static void mark(quarry_tracer *t)
{
	t->visit = reach;
	note_all(t);
	for (size_t i = 0; i < t->roots; i++)
		quarry_trace(t, *t->root[i]);
	while (t->count > 0 && !t->failed)
		look_into(t, t->list[--t->count]);
}

/* ---- garbage ---- */

/* The next slot from this on whose object nothing leads to; t->slots: there is none. */
static uint32_t next_garbage(const quarry_tracer *t, uint32_t slot)
{
	while (slot < t->slots) {
		uint64_t bits = (t->ours[slot / 64] & ~t->reached[slot / 64]) >> slot % 64;

		if (bits != 0)
			return slot + (uint32_t)__builtin_ctzll(bits);
		slot += 64 - slot % 64;
	}
	return t->slots;
}

static void count_garbage(quarry_tracer *t)
{
	for (uint32_t i = 0; i < (t->slots + 63) / 64; i++) {
		t->rank[i] = (uint32_t)t->last.garbage;
		t->last.garbage += (unsigned)__builtin_popcountll(t->ours[i] & ~t->reached[i]);
		t->last.reached += (unsigned)__builtin_popcountll(t->reached[i]);
	}
}

/* Its number among the garbage. */
static uint32_t number_of(const quarry_tracer *t, uint32_t slot)
{
	uint64_t before = t->ours[slot / 64] & ~t->reached[slot / 64] & (((uint64_t)1 << slot % 64) - 1);

	return t->rank[slot / 64] + (uint32_t)__builtin_popcountll(before);
}

static void note_edge(quarry_tracer *t, uint32_t slot)
{
	if (!is_set(t->reached, slot))
		push(t, number_of(t, slot));
}

/* An object of the garbage, by number. */
struct vertex {
	size_t edge, end;    /* the next of its edges that is followed, and behind the last */
	uint32_t index, low; /* 0: not seen yet */
	uint32_t parent;     /* + 1 */
	bool open, itself;   /* on the stack of those whose set is not known yet; it leads to itself at once */
};

/* All that is above it on the stack, and it, lead to each other. */
static void close_set(quarry_tracer *t, struct vertex *v, uint32_t n, uint32_t *stack, size_t *depth)
{
	size_t members = 0;
	uint32_t m;

	do {
		m = stack[--*depth];
		v[m].open = false;
		members++;
	} while (m != n);
	if (members > 1 || v[n].itself) {
		t->last.cycles++;
		t->last.in_cycles += members;
	}
}

static void search(quarry_tracer *t, struct vertex *v, uint32_t *stack, size_t *depth, uint32_t *seen, uint32_t n)
{
	while (n != UINT32_MAX) {
		if (v[n].index == 0) {
			v[n].index = v[n].low = ++*seen;
			v[n].open = true;
			stack[(*depth)++] = n;
		}
		if (v[n].edge < v[n].end) {
			uint32_t to = t->list[v[n].edge++];

			v[n].itself |= to == n;
			if (v[to].index == 0) {
				v[to].parent = n + 1;
				n = to;
			} else if (v[to].open) {
				v[n].low = (uint32_t)qy_min(v[n].low, v[to].index);
			}
			continue;
		}
		if (v[n].low == v[n].index)
			close_set(t, v, n, stack, depth);
		if (v[n].parent == 0)
			return;
		v[v[n].parent - 1].low = (uint32_t)qy_min(v[v[n].parent - 1].low, v[n].low);
		n = v[n].parent - 1;
	}
}

static void find_cycles(quarry_tracer *t)
{
	struct vertex *v = quarry_calloc(t->last.garbage, sizeof(*v));
	uint32_t *stack = quarry_malloc(t->last.garbage * sizeof(*stack)), seen = 0, n = 0;
	size_t depth = 0;

	if (v == NULL || stack == NULL)
		t->failed = ENOMEM;
	t->visit = note_edge;
	t->count = 0;
	for (uint32_t slot = 0; !t->failed && (slot = next_garbage(t, slot)) < t->slots; slot++, n++) {
		v[n].edge = t->count;
		look_into(t, slot);
		v[n].end = t->count;
	}
	for (uint32_t i = 0; !t->failed && i < t->last.garbage; i++)
		if (v[i].index == 0)
			search(t, v, stack, &depth, &seen, i);
	quarry_free(v);
	quarry_free(stack);
}

/* ---- swept ---- */

/* It is none of the garbage: gone already, or its finalizer could not be called. */
static void stay(quarry_tracer *t, uint32_t slot)
{
	t->ours[slot / 64] &= ~((uint64_t)1 << slot % 64);
	t->last.garbage--;
}

/* (A finalizer's quarry_trace is no news.) */
static void ignore(quarry_tracer *t, uint32_t slot)
{
	(void)t;
	(void)slot;
}

static void tell_of_end(quarry_tracer *t, uint32_t slot)
{
	uint32_t marks = 0;
	const struct type *type;
	uint64_t word = 0;
	quarry_handle h;

	quarry_enter();
	h = ours_of(t, slot, &marks);
	type = &t->type[marks >> QY_MARK_TYPE_SHIFT];
	/* (What cannot be freed as it was written beyond its end would be told each time that its end had come.) */
	if (h == 0 || (type->last != NULL && ((word = qy_settle_word(t->lanes, h)) == 0 || !qy_canary_check(t->lanes, slot, word)))) {
		stay(t, slot);
	} else {
		t->last.bytes += quarry_hsize(t->lanes, h);
		if (type->last != NULL)
			type->last(h, qy_word_address(word), type->last_arg);
	}
	quarry_leave();
}

static void sweep(quarry_tracer *t)
{
	uint32_t marks;

	for (uint32_t slot = 0; (slot = next_garbage(t, slot)) < t->slots; slot++) {
		quarry_handle h;

		quarry_enter();
		h = ours_of(t, slot, &marks);
		quarry_leave();
		if (h == 0 || quarry_hfree(t->lanes, h) != 0)
			t->last.garbage--; /* somebody else was first */
	}
}

static void note_bytes(quarry_tracer *t, bool tell)
{
	t->visit = ignore;
	for (uint32_t slot = 0; (slot = next_garbage(t, slot)) < t->slots; slot++) {
		uint32_t marks;
		quarry_handle h;

		if (tell) {
			tell_of_end(t, slot);
			continue;
		}
		quarry_enter();
		h = ours_of(t, slot, &marks);
		if (h == 0)
			stay(t, slot);
		else
			t->last.bytes += quarry_hsize(t->lanes, h);
		quarry_leave();
	}
}

static bool begin(quarry_tracer *t)
{
	size_t words;

	t->slots = atomic_load_explicit(&t->lanes->slots.next, memory_order_acquire);
	words = qy_max((t->slots + 63) / 64, 1);
	t->ours = quarry_calloc(words, sizeof(*t->ours));
	t->reached = quarry_calloc(words, sizeof(*t->reached));
	t->rank = quarry_calloc(words, sizeof(*t->rank));
	t->generation = quarry_malloc(words * 64 * sizeof(*t->generation)); /* (those of ours are written before they are read) */
	t->count = 0;
	t->failed = t->ours == NULL || t->reached == NULL || t->rank == NULL || t->generation == NULL ? ENOMEM : 0;
	t->last = (quarry_collected){ .struct_size = sizeof(t->last) };
	return t->failed == 0;
}

static void end(quarry_tracer *t)
{
	quarry_free(t->ours);
	quarry_free(t->reached);
	quarry_free(t->rank);
	quarry_free(t->generation);
	quarry_free(t->list);
	t->list = NULL;
	t->count = t->room = 0;
	t->visit = NULL;
}

int64_t quarry_collect(quarry_tracer *t, unsigned flags)
{
	if (check_type(t, 0) != 0)
		return -1;
	if ((flags & ~(QUARRY_COLLECT_LOOK | QUARRY_COLLECT_CYCLES)) != 0)
		return qy_fail(EINVAL, "flags: unknown bits in 0x%x", flags);
	if (qy_in_scope())
		return qy_fail(EDEADLK, "the thread is in a scope, and nothing would become free");
	if (begin(t))
		mark(t);
	if (!t->failed)
		count_garbage(t);
	if (!t->failed && (flags & QUARRY_COLLECT_CYCLES) && t->last.garbage > 0)
		find_cycles(t);
	if (!t->failed) {
		note_bytes(t, !(flags & QUARRY_COLLECT_LOOK));
		if (!(flags & QUARRY_COLLECT_LOOK))
			sweep(t);
	}
	end(t);
	if (t->failed != 0) {
		t->last = (quarry_collected){ .struct_size = sizeof(t->last) };
		return qy_fail(t->failed, t->failed == ENOMEM ? "no memory to collect with, and nothing was freed" :
								"a cold object could not be read, and nothing was freed");
	}
	return (int64_t)t->last.garbage;
}

int quarry_collected_get(const quarry_tracer *t, quarry_collected *c)
{
	if (!is_tracer(t))
		return -1;
	if (c == NULL || (c->struct_size != 0 && c->struct_size != sizeof(*c)))
		return qy_fail(EINVAL, "struct_size is not the size of any quarry_collected");
	*c = t->last;
	c->struct_size = sizeof(*c);
	return 0;
}
