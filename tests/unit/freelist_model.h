/* SPDX-License-Identifier: MIT */
/* Blocks with known contents, and a tally of where each object of a thread's slabs is: the program has it, or it is in
 * malloc's list, in the list of what was freed, in its slab's own, or on its way home; and in one of these once. To be
 * included once, by a test. */
#ifndef QUARRY_TESTS_FREELIST_MODEL_H
#define QUARRY_TESTS_FREELIST_MODEL_H

#include "lib/manager/mixed.h"
#include "lib/reclaim/reclaim.h"
#include "tests/unit/idle_model.h"
#include "tests/unit/model.h"

#define BLOCKS 40000

static struct block {
	unsigned char *p;
	size_t size;
	uint64_t mark;
} blocks[BLOCKS];
static uint32_t count;

static void start(const char *name)
{
	model_start(name);
	begin();
}

static struct qy_cache *cache(void)
{
	return qy_tls.cache;
}

static struct qy_freelist *freed_list(unsigned cls)
{
	return &cache()->freed[cls];
}

static uint64_t mistakes(void)
{
	return stats_now().bad_frees;
}

/* ---- blocks ---- */

static unsigned char byte_of(const struct block *x, size_t i)
{
	return (unsigned char)(x->mark >> i % 8 * 8 ^ i);
}

/* Of what is large not each byte: it takes too long. */
static size_t step_of(const struct block *x)
{
	return x->size <= 1024 ? 1 : 61;
}

static void *add_block(void *p, size_t size)
{
	struct block *x = &blocks[count++];

	model_must(p != NULL && count <= BLOCKS, "there is memory");
	*x = (struct block){ p, size, model_random() };
	for (size_t i = 0; i < size; i += step_of(x))
		x->p[i] = byte_of(x, i);
	if (size > 0)
		x->p[size - 1] = byte_of(x, size - 1);
	return p;
}

static void check_block(const struct block *x)
{
	for (size_t i = 0; i < x->size; i += step_of(x))
		model_must(x->p[i] == byte_of(x, i), "byte %zu of %zu at %p", i, x->size, (void *)x->p);
	if (x->size > 0)
		model_must(x->p[x->size - 1] == byte_of(x, x->size - 1), "the end of %zu bytes at %p", x->size,
			   (void *)x->p);
}

static inline void check_blocks(void)
{
	for (uint32_t i = 0; i < count; i++)
		check_block(&blocks[i]);
}

/* The block is no longer the program's; its address. */
static void *forget_block(uint32_t i)
{
	void *p = blocks[i].p;

	model_must(i < count, "there is one");
	check_block(&blocks[i]);
	blocks[i] = blocks[--count];
	return p;
}

static void *take(unsigned cls)
{
	return add_block(quarry_malloc(qy_classes[cls].size), qy_classes[cls].size);
}

static inline void take_many(unsigned cls, uint32_t n)
{
	for (; n > 0; n--)
		take(cls);
}

static inline void free_last(uint32_t n)
{
	for (; n > 0; n--)
		quarry_free(forget_block(count - 1));
}

static inline void free_all(void)
{
	while (count > 0)
		quarry_free(forget_block(model_below(count)));
}

/* Until malloc has to ask for more. */
static inline void drain(unsigned cls)
{
	while (cache()->head[cls] != NULL)
		take(cls);
}

/* The next refills enter, or do not. */
static inline void refill_entering(bool entering)
{
	cache()->quick = cache()->quick_set = entering ? 1 : 1000;
}

/* ---- the tally ---- */

#define TALLIES ((size_t)4 << 30 >> QY_UNIT_SHIFT)

enum where { HAD, TO_GIVE, FREED, IN_SLAB, SENT, WHERES };

static struct tally {
	uint32_t n[WHERES];
	uint64_t seen[QY_UNIT / 16 / 64];
	bool any;
} tallies[TALLIES];
static size_t tallied[TALLIES], tallied_count;
static uint32_t objects_tallied, objects_visited, objects_missing;

static struct tally *tally_of(const struct qy_slab *s)
{
	size_t i = qy_slab_number(s) - 1;

	model_must(i < TALLIES, "the window is small");
	if (!tallies[i].any)
		tallied[tallied_count++] = i;
	tallies[i].any = true;
	return &tallies[i];
}

/* (In a mixed slab, who has what is told by its grains: test_mixed.c.) */
static void note(const void *p, enum where where)
{
	struct qy_slab *s = qy_slab_of(p);
	struct tally *t;
	size_t i;

	model_must(s != NULL, "%p is an object", p);
	if (qy_slab_is_mixed(s))
		return;
	t = tally_of(s);
	i = (size_t)((const char *)p - qy_slab_memory(s)) / qy_classes[s->cls].size;
	model_must(!(t->seen[i / 64] >> (i % 64) & 1), "%p is in two places, one of them %d", p, where);
	t->seen[i / 64] |= (uint64_t)1 << (i % 64);
	t->n[where]++;
	objects_tallied++;
}

static uint32_t note_list(const void *list, enum where where)
{
	uint32_t n = 0;

	for (const void *p = list; p != NULL; p = qy_next_object((void *)p), n++)
		note(p, where);
	return n;
}

static void note_cache(struct qy_cache *c)
{
	void *remote = atomic_load(&c->heap.remote);

	note_list(c->heap.mail, SENT);
	note_list(remote == QY_REMOTE_CLOSED ? NULL : remote, SENT);
	for (unsigned cls = 0; cls < QY_CLASSES; cls++) {
		const struct qy_class *k = &qy_classes[cls];
		const struct qy_freelist *l = &c->freed[cls];
		uint32_t n = note_list(l->head, FREED);

		note_list(c->head[cls], TO_GIVE);
		model_must(l->most >= k->keep && l->most <= k->keep_max, "class %u: %u are enough", cls, l->most);
		model_must(n + l->room == l->most, "class %u: %u are freed, %u more of %u have room", cls, n, l->room,
			   l->most);
	}
}

static void visit_slab(struct qy_heap *h, struct qy_slab *s, enum qy_slab_state state)
{
	const struct qy_class *c = &qy_classes[s->cls];
	struct tally *t = tally_of(s);
	uint32_t there = 0, uncarved = c->capacity - s->carved, parked = s->carved - s->linked;

	note_list(s->local, IN_SLAB);
	for (enum where w = 0; w < WHERES; w++)
		there += t->n[w];
	objects_visited += there;
	model_must(s->state == state && s->heap == h, "slab %p", (void *)s);
	model_must(there + uncarved + parked <= c->capacity, "slab %p: %u objects too many", (void *)s,
		   there + uncarved + parked - c->capacity);
	objects_missing += c->capacity - there - uncarved - parked;
	model_must(t->n[IN_SLAB] == (state == QY_SLAB_FULL ? 0 : s->linked - s->countdown), "slab %p: %u of its own",
		   (void *)s, t->n[IN_SLAB]);
	for (uint32_t i = 0; i < c->units; i++) {
		model_must(s[i].to == s->to && s[i].owner == h->owner, "unit %u of slab %p", i, (void *)s);
		model_must(s[i].to == qy_slab_list(s) || (h->freed != NULL && s[i].to == &h->freed[s->cls]),
			   "frees into slab %p go astray", (void *)s);
	}
}

static void visit_list(struct qy_heap *h, const struct qy_slab_list *list, enum qy_slab_state state)
{
	for (struct qy_slab *s = list->first; s != NULL; s = qy_slab_numbered(s->next))
		visit_slab(h, s, state);
}

static void visit_heap(struct qy_heap *h)
{
	for (unsigned cls = 0; cls < QY_CLASSES; cls++) {
		if (h->active[cls] != NULL)
			visit_slab(h, h->active[cls], QY_SLAB_ACTIVE);
		visit_list(h, &h->queue[cls], QY_SLAB_QUEUED);
	}
	visit_list(h, &h->full, QY_SLAB_FULL);
	for (unsigned i = 0; i < h->spares; i++)
		model_must(h->spare[i]->owner == 0 && h->spare[i]->kind == QY_SLAB_NONE, "spare %u", i);
}

/* Those that sleep, too. So many objects are lost, by mistakes. */
static void check_places(uint32_t lost)
{
	struct qy_thread *threads[3] = { qy_tls.thread };
	unsigned n = 1;

	if (a.record != NULL)
		threads[n++] = a.record;
	if (b.record != NULL)
		threads[n++] = b.record;
	objects_tallied = objects_visited = objects_missing = 0;
	for (uint32_t i = 0; i < count; i++)
		if (qy_slab_of(blocks[i].p) != NULL)
			note(blocks[i].p, HAD);
	for (unsigned i = 0; i < n; i++) {
		for (unsigned o = 0; o < QY_OUT_RINGS; o++)
			note_list(threads[i]->out[o].first, SENT);
		for (struct qy_cache *c = threads[i]->caches; c != NULL; c = c->next)
			note_cache(c);
	}
	note_list(atomic_load(&qy_manager_of_node(0)->orphans.remote), SENT);
	note_list(qy_manager_of_node(0)->orphans.mail, SENT);
	for (unsigned i = 0; i < n; i++)
		for (struct qy_cache *c = threads[i]->caches; c != NULL; c = c->next)
			visit_heap(&c->heap);
	visit_heap(&qy_manager_of_node(0)->orphans);
	model_must(objects_visited == objects_tallied, "%u objects, of %u, are in slabs that somebody has",
		   objects_visited, objects_tallied);
	model_must(objects_missing <= lost, "%u objects are nowhere", objects_missing);
	while (tallied_count > 0)
		memset(&tallies[tallied[--tallied_count]], 0, sizeof(tallies[0]));
}

/* ---- what the tests look at ---- */

static inline uint32_t length(const void *list)
{
	uint32_t n = 0;

	for (const void *p = list; p != NULL; p = qy_next_object((void *)p))
		model_must(++n < BLOCKS, "a list without end");
	return n;
}

/* No list of the thread's has anything. */
static inline bool has_nothing_listed(const struct qy_thread *t)
{
	for (const struct qy_cache *c = t->caches; c != NULL; c = c->next)
		for (unsigned cls = 0; cls < QY_CLASSES; cls++)
			if (c->head[cls] != NULL || c->freed[cls].head != NULL)
				return false;
	return true;
}

/* The index of a block in that slab, or -1. */
static inline int block_in(const struct qy_slab *s)
{
	for (uint32_t i = 0; i < count; i++)
		if (qy_slab_of(blocks[i].p) == s)
			return (int)i;
	return -1;
}

#endif
