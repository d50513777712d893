/* SPDX-License-Identifier: MIT */
/* Objects that refer to each other by handles: each promise of include/quarry/trace.h alone. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "include/quarry/trace.h"
#include "tests/fake_os.h"
#include "tests/unit/lanes.h"

#define DIRECTORY "/tmp"

enum { NODE = 1, LEAF = 2, BAG = 3, OTHER = 9 };

struct node {
	quarry_handle left, right;
	long value;
};

struct heap {
	quarry_lanes *l;
	quarry_tracer *t;
	quarry_handle root;
};

static struct heap heap_made(const quarry_lanes_attr *attr)
{
	static const size_t links[] = { offsetof(struct node, left), offsetof(struct node, right) };
	struct heap h = { .l = lanes_made(attr) };

	h.t = quarry_tracer_create(h.l);
	cr_assert(h.t != NULL && quarry_tracer_type(h.t, NODE, links, 2) == 0 && quarry_tracer_type(h.t, LEAF, NULL, 0) == 0);
	return h;
}

static void heap_end(struct heap *h)
{
	cr_assert(quarry_tracer_destroy(h->t) == 0 && quarry_lanes_destroy(h->l) == 0);
}

static quarry_handle node(struct heap *heap, quarry_handle left, quarry_handle right)
{
	quarry_handle h = quarry_halloc_typed(heap->l, sizeof(struct node), 0, NODE);

	cr_assert(h != 0);
	*(struct node *)writable(heap->l, h) = (struct node){ left, right, 4711 };
	return h;
}

static struct node *at(struct heap *heap, quarry_handle h)
{
	return writable(heap->l, h);
}

static quarry_collected found(struct heap *h)
{
	quarry_collected c = { 0 };

	cr_assert(quarry_collected_get(h->t, &c) == 0);
	return c;
}

Test(lanes_trace, what_roots_lead_to_stays_and_cycles_go)
{
	struct heap h = heap_made(NULL);
	quarry_handle root = 0, a, b, c, d, leaf, other;

	cr_assert(quarry_collect(h.t, 0) == 0);
	a = node(&h, 0, 0);
	b = node(&h, a, 0);
	leaf = quarry_halloc_typed(h.l, 64, 0, LEAF);
	root = node(&h, b, leaf);
	c = node(&h, 0, a); /* a circle of two, which leads to what stays */
	d = node(&h, c, 0);
	at(&h, c)->left = d;
	at(&h, a)->right = root; /* and one that stays */
	other = quarry_halloc_typed(h.l, 64, 0, OTHER);
	cr_assert(quarry_tracer_root(h.t, &root) == 0);
	cr_assert(quarry_collect(h.t, QUARRY_COLLECT_LOOK | QUARRY_COLLECT_CYCLES) == 2 && quarry_handle_valid(h.l, c));
	cr_assert(found(&h).garbage == 2 && found(&h).reached == 4 && found(&h).cycles == 1 && found(&h).in_cycles == 2 &&
		  found(&h).bytes == 2 * quarry_hsize(h.l, c));
	cr_assert(quarry_collect(h.t, 0) == 2 && quarry_handle_state(h.l, c) == QUARRY_HANDLE_FREED && !quarry_handle_valid(h.l, d));
	cr_assert(quarry_handle_valid(h.l, a) && quarry_handle_valid(h.l, b) && quarry_handle_valid(h.l, root) &&
		  quarry_handle_valid(h.l, leaf) && quarry_handle_valid(h.l, other));
	at(&h, root)->right = 0;
	cr_assert(quarry_collect(h.t, 0) == 1 && !quarry_handle_valid(h.l, leaf));
	root = 0;
	cr_assert(quarry_collect(h.t, 0) == 3 && quarry_handle_valid(h.l, other) && figures_of(h.l).objects == 1);
	cr_assert(quarry_tracer_unroot(h.t, &root) == 0 && quarry_tracer_unroot(h.t, &root) == -1 && errno == EINVAL);
	heap_end(&h);
}

Test(lanes_trace, pinned_objects_are_roots_and_stale_handles_lead_nowhere)
{
	struct heap h = heap_made(NULL);
	quarry_handle a = node(&h, 0, 0), b = node(&h, a, 0), root = node(&h, 0, 0), second = node(&h, 0, 0), late;

	cr_assert(quarry_tracer_root(h.t, &second) == 0 && quarry_tracer_root(h.t, &root) == 0 && quarry_collect(h.t, 0) == 2);
	cr_assert(quarry_tracer_unroot(h.t, &second) == 0 && quarry_collect(h.t, 0) == 1 && quarry_handle_valid(h.l, root));
	a = node(&h, 0, 0);
	b = node(&h, a, 0);
	cr_assert( quarry_pin(h.l, b) != NULL);
	cr_assert(quarry_collect(h.t, 0) == 0 && quarry_unpin(h.l, b) == 0 && quarry_collect(h.t, 0) == 2);
	at(&h, root)->left = a;
	late = node(&h, 0, 0); /* it has the slot that a or b had */
	cr_assert((uint32_t)late == (uint32_t)a || (uint32_t)late == (uint32_t)b, "%x", (unsigned)late);
	at(&h, root)->left = (uint32_t)late == (uint32_t)a ? a : b;
	cr_assert(quarry_collect(h.t, 0) == 1 && !quarry_handle_valid(h.l, late) && quarry_handle_valid(h.l, root));
	heap_end(&h);
}

static void of_bag(quarry_tracer *t, const void *object, size_t size, void *arg)
{
	const quarry_handle *h = object;

	(*(int *)arg)++;
	for (size_t i = 0; i < size / sizeof(*h) && h[i] != 0; i++)
		quarry_trace(t, h[i]);
}

struct ends {
	struct heap *heap;
	int count;
	long sum;
	int64_t in_it;
	int error;
};

static void ended(quarry_handle h, void *object, void *arg)
{
	struct ends *e = arg;
	struct node *n = object;

	cr_assert(quarry_handle_valid(e->heap->l, h) && (n->left == 0 || quarry_handle_valid(e->heap->l, n->left)), "all is there still");
	e->count++;
	e->sum += n->value;
	e->in_it = quarry_collect(e->heap->t, 0);
	e->error = errno;
	cr_assert(quarry_tracer_destroy(e->heap->t) == -1 && errno == EBUSY);
	quarry_trace(e->heap->t, h); /* that is no news: it goes */
	quarry_trace(e->heap->t, n->left);
}

Test(lanes_trace, functions_look_and_are_told_of_the_end)
{
	struct heap h = heap_made(NULL);
	struct ends e = { .heap = &h };
	int looked = 0;
	quarry_handle bag = quarry_halloc_typed(h.l, 800, 0, BAG), n[50];

	memset(writable(h.l, bag), 0, 800);
	for (int i = 0; i < 50; i++)
		n[i] = ((quarry_handle *)writable(h.l, bag))[i] = node(&h, i > 0 ? n[i - 1] : 0, 0);
	cr_assert(quarry_set_finalizer(h.t, BAG, ended, &e) == -1 && errno == EINVAL);
	cr_assert(quarry_tracer_type_by(h.t, BAG, of_bag, &looked) == 0 && quarry_set_finalizer(h.t, NODE, ended, &e) == 0);
	cr_assert(quarry_tracer_root(h.t, &bag) == 0 && quarry_collect(h.t, 0) == 0 && looked == 1);
	((quarry_handle *)writable(h.l, bag))[20] = 0;
	cr_assert(quarry_collect(h.t, 0) == 30 && e.count == 30 && e.sum == 30 * 4711L && e.in_it == -1 && e.error == EBUSY);
	cr_assert(quarry_handle_valid(h.l, n[19]) && !quarry_handle_valid(h.l, n[20]));
	cr_assert(quarry_collect(h.t, QUARRY_COLLECT_LOOK) == 0 && e.count == 30);
	heap_end(&h);
}

/* ---- what others do meanwhile, and what cannot be read ---- */

struct thief {
	struct heap *heap;
	quarry_handle victim, newcomer;
};

static void *steal(void *arg)
{
	struct thief *t = arg;

	cr_assert(quarry_hfree(t->heap->l, t->victim) == 0);
	t->newcomer = quarry_halloc_typed(t->heap->l, 64, 0, OTHER);
	return NULL;
}

static void while_it_ends(quarry_handle h, void *object, void *arg)
{
	pthread_t thread;

	(void)h;
	(void)object;
	cr_assert(pthread_create(&thread, NULL, steal, arg) == 0 && pthread_join(thread, NULL) == 0);
}

Test(lanes_trace, whose_slot_is_anothers_is_not_freed)
{
	struct heap h = heap_made(NULL);
	struct thief thief = { .heap = &h, .victim = quarry_halloc_typed(h.l, 64, 0, LEAF) };
	quarry_handle a = node(&h, 0, 0);

	cr_assert(quarry_set_finalizer(h.t, NODE, while_it_ends, &thief) == 0);
	cr_assert(quarry_collect(h.t, 0) == 1 && !quarry_handle_valid(h.l, a), "the other one was freed already");
	cr_assert((uint32_t)thief.newcomer == (uint32_t)thief.victim, "%x", (unsigned)thief.newcomer);
	cr_assert(quarry_handle_valid(h.l, thief.newcomer) && !quarry_handle_valid(h.l, thief.victim) && found(&h).garbage == 1);
	heap_end(&h);
}

static void count_end(quarry_handle h, void *object, void *arg)
{
	(void)h;
	cr_assert(((struct node *)object)->value == 4711);
	(*(int *)arg)++;
}

Test(lanes_trace, what_cannot_be_read_frees_nothing)
{
	quarry_cold_attr cold = { .memory_limit = 1, .directory = DIRECTORY, .period_ms = 3600000 };
	quarry_lanes_attr attr = { .threshold = 1, .cold = &cold };
	quarry_lanes *there = quarry_lanes_create(&attr);
	quarry_handle root, child, n[1000];
	struct heap h;
	int ends = 0;

	if (there == NULL)
		cr_skip_test("no liblz4 here");
	quarry_lanes_destroy(there);
	fake_os_install();
	h = heap_made(&attr);
	child = node(&h, 0, 0);
	root = node(&h, child, 0);
	n[0] = root;
	for (int i = 1; i < 1000; i++)
		n[i] = node(&h, 0, 0);
	cr_assert(quarry_tracer_root(h.t, &root) == 0);
	for (int i = 0; i < 10 && quarry_handle_state(h.l, root) != QUARRY_HANDLE_EVICTED; i++) {
		cr_assert(quarry_evict(h.l, n, 1000) >= 0);
		cr_assert(quarry_evict(h.l, n, 0) >= 0);
	}
	cr_assert(quarry_handle_state(h.l, root) == QUARRY_HANDLE_EVICTED, "%d", quarry_handle_state(h.l, root));
	fake_os_fail(FAKE_READ_AT, EIO);
	cr_assert(quarry_collect(h.t, 0) == -1 && errno == EIO && found(&h).garbage == 0);
	cr_assert(quarry_collect(h.t, QUARRY_COLLECT_CYCLES) == -1 && errno == EIO);
	cr_assert(quarry_handle_valid(h.l, child) && quarry_handle_valid(h.l, n[999]));
	/* What is garbage need not be read to be found; to be told of it does. */
	cr_assert(quarry_tracer_unroot(h.t, &root) == 0 && quarry_set_finalizer(h.t, NODE, count_end, &ends) == 0);
	cr_assert(quarry_handle_state(h.l, root) == QUARRY_HANDLE_EVICTED);
	cr_assert(quarry_collect(h.t, 0) == ends && quarry_handle_valid(h.l, root) && found(&h).garbage == (uint64_t)ends);
	cr_assert(quarry_collect(h.t, 0) == 0, "those that are there cannot be read");
	fake_os_fail(FAKE_READ_AT, 0);
	cr_assert(quarry_collect(h.t, 0) > 0 && ends == 1001 && !quarry_handle_valid(h.l, root));
	heap_end(&h);
	fake_os_remove();
}

#define N 3000

/* By the model: which ones a walk over the same edges, in an array, reaches; and in which sets each leads to each. */
static int from[N][2], reached[N], far[N];

static void walk(int i)
{
	if (i < 0 || reached[i])
		return;
	reached[i] = 1;
	walk(from[i][0]);
	walk(from[i][1]);
}

static void go(int i)
{
	if (i < 0 || far[i])
		return;
	far[i] = 1;
	go(from[i][0]);
	go(from[i][1]);
}

static bool leads(int a, int b)
{
	memset(far, 0, sizeof far);
	go(from[a][0]);
	go(from[a][1]);
	return far[b];
}

static void against_the_model(struct heap *h, uint32_t seed, int count)
{
	static quarry_handle n[N], root;
	uint32_t random = seed;
	int garbage = 0, in_cycles = 0, cycles = 0;

	memset(reached, 0, sizeof reached);
	for (int i = 0; i < count; i++)
		n[i] = node(h, 0, 0);
	for (int i = 0; i < count; i++)
		for (int k = 0; k < 2; k++) {
			random = random * 1664525u + 1013904223u;
			from[i][k] = random >> 30 == 0 ? -1 : (int)((random >> 4) % (unsigned)count);
			if (random >> 30 == 1) /* more small circles */
				from[i][k] = i ^ 1;
			(k ? &at(h, n[i])->right : &at(h, n[i])->left)[0] = from[i][k] < 0 ? 0 : n[from[i][k]];
		}
	root = n[0];
	cr_assert(quarry_tracer_root(h->t, &root) == 0);
	walk(0);
	for (int i = 0; i < count; i++) {
		bool first = true;

		garbage += !reached[i];
		if (reached[i] || !leads(i, i))
			continue;
		in_cycles++;
		for (int k = 0; k < i && first; k++)
			first = reached[k] || !leads(i, k) || !leads(k, i);
		cycles += first;
	}
	(void)quarry_lanes_tick(h->l);
	(void)quarry_oneway_flush(h->l);
	(void)quarry_evict(h->l, n, (size_t)count / 2);
	cr_assert(quarry_collect(h->t, QUARRY_COLLECT_CYCLES) == garbage, "seed %u: %d", seed, garbage);
	cr_assert(found(h).cycles == (uint64_t)cycles && found(h).in_cycles == (uint64_t)in_cycles, "seed %u: %d, %d, not %d, %d", seed, cycles,
		  in_cycles, (int)found(h).cycles, (int)found(h).in_cycles);
	for (int i = 0; i < count; i++)
		cr_assert(quarry_handle_valid(h->l, n[i]) == reached[i], "seed %u, %d", seed, i);
	cr_assert(quarry_tracer_unroot(h->t, &root) == 0 && quarry_collect(h->t, 0) == count - garbage);
}

Test(lanes_trace, as_a_model_says)
{
	quarry_cold_attr cold = { .period_ms = 3600000 };
	quarry_lanes_attr attr = { .threshold = 100, .cold = &cold };
	quarry_lanes *l = quarry_lanes_create(&attr);
	struct heap h;

	if (l == NULL)
		attr.cold = NULL;
	else
		quarry_lanes_destroy(l);
	h = heap_made(&attr);
	for (uint32_t seed = 1; seed <= 40; seed++)
		against_the_model(&h, seed, 5 + (int)seed * 3);
	heap_end(&h);
}

Test(lanes_trace, a_long_list_needs_no_stack)
{
	struct heap h = heap_made(NULL);
	quarry_handle head = 0;

	for (int i = 0; i < 300000; i++)
		head = node(&h, head, 0);
	cr_assert(quarry_tracer_root(h.t, &head) == 0 && quarry_collect(h.t, 0) == 0);
	at(&h, head)->left = 0;
	cr_assert(quarry_collect(h.t, QUARRY_COLLECT_CYCLES) == 299999 && found(&h).cycles == 0);
	heap_end(&h);
}

Test(lanes_trace, what_is_wrong_is_refused)
{
	struct heap h = heap_made(NULL);
	size_t odd = 4;
	quarry_collected c = { .struct_size = 1 };

	cr_assert(quarry_tracer_create(NULL) == NULL && errno == EINVAL && quarry_tracer_destroy(NULL) == -1);
	cr_assert(quarry_tracer_type(h.t, 256, NULL, 0) == -1 && quarry_tracer_type(h.t, 1, &odd, 1) == -1 && errno == EINVAL);
	cr_assert(quarry_tracer_type(h.t, 1, NULL, 1) == -1 && quarry_tracer_type_by(h.t, 1, NULL, NULL) == -1);
	cr_assert(quarry_tracer_root(h.t, NULL) == -1 && quarry_collect(h.t, 8) == -1 && errno == EINVAL);
	cr_assert(quarry_collected_get(h.t, &c) == -1 && quarry_collected_get(h.t, NULL) == -1);
	quarry_enter();
	cr_assert(quarry_collect(h.t, 0) == -1 && errno == EDEADLK);
	quarry_leave();
	heap_end(&h);
}
