/* SPDX-License-Identifier: MIT */
/* Programs that move their objects (quarry_should_move, quarry_malloc_dense, quarry_free_dense): what is to be moved
 * against the rule as it is written in quarry.h, worked out from a view; that memory comes back and contents stay; that
 * caches are passed by; arenas, threads that ended, and what is no object. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "include/quarry/quarry.h"
#include "lib/manager/density.h"
#include "tests/unit/model.h"

#define MOST 400000
#define SLAB 65536

/* Looks begin when they are due by what is asked, and by time: the reclaimer's thread is left out of it. */
static __attribute__((constructor(101))) void set_options(void)
{
	setenv("QUARRY_OPTIONS", "reclaim=off", 1);
}

static struct object {
	unsigned char *p;
	size_t size;
	unsigned char what;
} objects[MOST];
static size_t count;

static void add(quarry_arena *arena, size_t size)
{
	struct object *o = &objects[count++];

	cr_assert_leq(count, MOST);
	o->p = arena == NULL ? quarry_malloc(size) : quarry_arena_malloc(arena, size);
	cr_assert_not_null(o->p);
	o->size = size;
	o->what = (unsigned char)model_random();
	memset(o->p, o->what, size);
}

static void must_be_whole(const struct object *o)
{
	for (size_t i = 0; i < o->size; i++)
		model_must(o->p[i] == o->what, "byte %zu of %zu at %p", i, o->size, (void *)o->p);
}

static void drop(size_t i)
{
	must_be_whole(&objects[i]);
	quarry_free(objects[i].p);
	objects[i] = objects[--count];
}

/* So that of each 100 objects so many stay, or of each slab another share. */
static void thin_out(unsigned per_cent, bool patchy)
{
	for (size_t i = count; i-- > 0;) {
		uint64_t slab = (uintptr_t)objects[i].p / SLAB;

		if (model_below(100) >= (patchy ? model_mix(&slab) % (2 * per_cent) : per_cent))
			drop(i);
	}
	quarry_thread_flush();
}

/* All of them, as many at a time as that. */
static size_t ask(uint8_t *move, size_t batch)
{
	size_t to_go = 0;

	for (size_t i = 0; i < count; i += batch) {
		const void *ptrs[256];
		size_t n = count - i < batch ? count - i : batch;
		long r;

		for (size_t k = 0; k < n; k++)
			ptrs[k] = objects[i + k].p;
		r = quarry_should_move(ptrs, n, move + i);
		model_must(r >= 0, "no mistake");
		for (size_t k = 0; k < n; k++)
			r -= move[i + k];
		model_must(r == 0, "the sum is right");
	}
	for (size_t i = 0; i < count; i++)
		to_go += move[i];
	return to_go;
}

static uint8_t to_move[MOST];

static size_t round_of_moves(quarry_arena *arena)
{
	size_t moved = 0;

	ask(to_move, 64);
	for (size_t i = 0; i < count; i++) {
		struct object *o = &objects[i];
		unsigned char *to;

		if (!to_move[i])
			continue;
		to = arena == NULL ? quarry_malloc_dense(o->size) : quarry_arena_malloc_dense(arena, o->size);
		cr_assert_not_null(to);
		memcpy(to, o->p, o->size);
		quarry_free_dense(o->p);
		o->p = to;
		moved++;
	}
	quarry_thread_flush();
	return moved;
}

static uint64_t slabs_bytes(quarry_arena *arena);

static int add_slab(const quarry_view_item *item, void *ctx)
{
	struct { quarry_arena *arena; uint64_t bytes; } *sum = ctx;

	if (sum->arena == NULL || item->arena == sum->arena)
		sum->bytes += item->size;
	return 0;
}

static uint64_t slabs_bytes(quarry_arena *arena)
{
	struct { quarry_arena *arena; uint64_t bytes; } sum = { arena, 0 };
	quarry_view *v = quarry_view_open();

	cr_assert_not_null(v);
	quarry_view_visit(v, QUARRY_VIEW_SLAB, add_slab, &sum);
	quarry_view_close(v);
	return sum.bytes;
}

/* ---- the rule ---- */

struct slab {
	const char *at;
	uint32_t live, capacity;
	int to_go; /* -1: nothing in it was asked about */
	bool current;
};

static struct slab slabs[20000];
static size_t slab_count;
static size_t size_looked_for;

static int note_slab(const quarry_view_item *item, void *ctx)
{
	(void)ctx;
	if (item->object_size == size_looked_for)
		slabs[slab_count++] = (struct slab){ item->address, (uint32_t)(item->live + item->cached),
						     (uint32_t)item->objects, -1, false };
	return 0;
}

static struct slab *slab_of_object(const void *p)
{
	size_t low = 0, high = slab_count;

	while (high - low > 1) {
		size_t i = (low + high) / 2;

		if (slabs[i].at <= (const char *)p)
			low = i;
		else
			high = i;
	}
	return &slabs[low];
}

static void note_answers(size_t of_size)
{
	for (size_t i = 0; i < count; i++) {
		const void *p = objects[i].p;
		quarry_move_hint hint;
		struct slab *s;

		if (quarry_usable_size(p) != of_size)
			continue;
		s = slab_of_object(p);
		cr_assert_eq(quarry_should_move_hints(&p, 1, &hint, sizeof(hint)), hint.move);
		model_must(hint.known && !hint.mixed && hint.object_size == of_size && hint.objects == s->capacity,
			   "%u objects of %u", hint.objects, hint.object_size);
		model_must(hint.free == s->capacity - s->live, "%u are free of %u, %u live", hint.free, s->capacity, s->live);
		model_must(s->to_go < 0 || s->to_go == hint.move, "all of a slab goes, or nothing");
		s->to_go = hint.move;
		s->current = hint.current;
	}
}

/* Those to be filled are as many as are needed, or all that are fuller than 13/16 beside; no other is fuller, or as full
 * (by sixteenths) at a lower address. */
static void check_rule(size_t of_size)
{
	uint64_t live = 0, fill = 0, needed, least = UINT64_MAX, most = 0;
	uint32_t with_room = 0;
	bool by_fullness = true;

	for (size_t i = 0; i < slab_count; i++) {
		const struct slab *s = &slabs[i];
		uint64_t key = (uint64_t)s->live * 16 / s->capacity << 32 | (UINT32_MAX - (uint32_t)((uintptr_t)s->at >> 16));

		if (s->live == s->capacity || s->current || s->to_go < 0) {
			model_must(s->to_go < 1, "a slab that is full, or taken from, stays");
			continue;
		}
		with_room++;
		live += s->live;
		fill += s->to_go == 0;
		if (s->to_go == 0 && key < least)
			least = key;
		if (s->to_go == 1 && key > most)
			most = key;
		by_fullness = by_fullness && (s->to_go == 1) == (key >> 32 < 13);
	}
	if (with_room == 0)
		return;
	needed = (live + live / 16) / slabs[0].capacity + 1;
	model_must(most < least, "those that go are less full, or behind");
	model_must(fill == (needed < with_room ? needed : with_room) || (fill > needed && by_fullness),
		   "%" PRIu64 " of %u slabs of %zu are filled, %" PRIu64 " are needed", fill, with_room, of_size, needed);
}

/* (Each class's slabs are looked at by themselves.) */
static void check_all(void)
{
	static const size_t some[] = { 32, 64, 112, 256, 512, 1024, 3072, 10240, 32768 };
	quarry_view *v = quarry_view_open();

	cr_assert_not_null(v);
	/* A look that has all of it: one that is due begins with the first, and goes on with the others. */
	for (uint32_t round = qy_density_round(); qy_density_round() - round < 2;)
		ask(to_move, 200);
	for (size_t i = 0; i < sizeof(some) / sizeof(some[0]); i++) {
		slab_count = 0;
		size_looked_for = some[i];
		quarry_view_visit(v, QUARRY_VIEW_SLAB, note_slab, NULL);
		if (slab_count == 0)
			continue;
		note_answers(some[i]);
		check_rule(some[i]);
	}
	quarry_view_close(v);
}

static size_t some_size(void)
{
	static const size_t sizes[] = { 32, 64, 112, 256, 512, 1024, 3072, 10240, 32768 };

	return sizes[model_one_in(40) ? model_below(9) : model_below(6)];
}

Test(dense, the_rule)
{
	model_start("dense/the_rule");
	for (unsigned i = 0; i < 6; i++) {
		while (count < 150000)
			add(NULL, some_size());
		thin_out(i * 17 + 8, i % 2);
		check_all();
		round_of_moves(NULL);
		check_all();
	}
}

/* ---- what it is for ---- */

static void gives_back(unsigned per_cent, bool patchy, double held, double moved_most)
{
	size_t live = 0, moved;
	uint64_t before, after;

	while (count < 300000)
		add(NULL, 200);
	thin_out(per_cent, patchy);
	before = slabs_bytes(NULL);
	live = count * 208;
	moved = round_of_moves(NULL) * 208;
	after = slabs_bytes(NULL);
	for (size_t i = 0; i < count; i++)
		must_be_whole(&objects[i]);
	fprintf(stderr, "%u %%: %zu live, %zu held, then %zu, %zu moved\n", per_cent, live, (size_t)before, (size_t)after, moved);
	cr_assert((double)after < (double)live * held + 10 * SLAB);
	cr_assert((double)moved < (double)live * moved_most);
	/* What is dense by now stays where it is. */
	round_of_moves(NULL);
	cr_assert_lt(round_of_moves(NULL) * 208, live / 20);
}

Test(dense, a_sparse_heap_becomes_dense_in_one_round)
{
	model_start("dense/one_round");
	gives_back(25, false, 1.15, 0.8);
}

Test(dense, what_is_patchy_takes_fewer_moves)
{
	model_start("dense/patchy");
	gives_back(40, true, 1.15, 0.45);
}

Test(dense, what_is_dense_stays)
{
	model_start("dense/stays");
	while (count < 100000)
		add(NULL, 200);
	thin_out(95, false);
	cr_assert_lt(round_of_moves(NULL), count / 100);
}

Test(dense, caches_are_passed_by)
{
	static void *p[3500];
	void *next;

	for (int i = 0; i < 3500; i++)
		p[i] = quarry_malloc(48);
	/* What malloc would give out soon: it is in the cache's list, and not in its slab. */
	quarry_free(p[7]);
	for (int i = 0; i < 200; i++)
		cr_assert_neq(quarry_malloc_dense(48), p[7]);
	/* And this one is in its slab, of which nothing is taken as long as another has some. */
	quarry_free_dense(p[20]);
	for (int i = 0; i < 200; i++)
		cr_assert_neq(quarry_malloc(48), p[20]);
	cr_assert_null(quarry_malloc_dense(SIZE_MAX / 2));
	cr_assert_eq(errno, ENOMEM);
	quarry_free_dense(NULL);
	next = quarry_malloc_dense(0);
	cr_assert_not_null(next);
	quarry_free_dense(next);
	next = quarry_malloc_dense(3 << 20);
	cr_assert_geq(quarry_usable_size(next), 3 << 20);
	quarry_free_dense(next);
	errno = 5;
	quarry_free_dense(&next);
	cr_assert_eq(errno, 5);
}

Test(dense, what_is_moved_stays_in_its_arena)
{
	quarry_arena_attr attr = { .name = "items" };
	quarry_arena *items = quarry_arena_create(&attr);
	uint64_t before;

	model_start("dense/arena");
	while (count < 100000)
		add(items, 100);
	/* Other arenas are as full as can be. */
	for (int i = 0; i < 50000; i++)
		cr_assert_not_null(quarry_malloc(100));
	thin_out(20, false);
	before = slabs_bytes(items);
	cr_assert_gt(round_of_moves(items), 0);
	for (size_t i = 0; i < count; i++) {
		must_be_whole(&objects[i]);
		cr_assert_eq(quarry_arena_of(objects[i].p), items);
	}
	cr_assert_lt(slabs_bytes(items), before / 3);
	quarry_arena_destroy(items);
	for (size_t i = 0; i < count; i += 100) {
		const void *p = objects[i].p;

		cr_assert_eq(quarry_should_move(&p, 1, to_move), 0);
	}
	cr_assert_null(quarry_arena_malloc_dense(items, 100));
	cr_assert_eq(errno, EINVAL);
}

static void *make_and_end(void *unused)
{
	(void)unused;
	while (count < 200000)
		add(NULL, 150);
	thin_out(20, false);
	return NULL;
}

/* Its slabs are nobody's, then this thread's. */
Test(dense, of_a_thread_that_ended)
{
	pthread_t thread;
	uint64_t before;

	model_start("dense/ended");
	pthread_create(&thread, NULL, make_and_end, NULL);
	pthread_join(thread, NULL);
	quarry_purge(NULL);
	before = slabs_bytes(NULL);
	round_of_moves(NULL);
	quarry_purge(NULL);
	for (size_t i = 0; i < count; i++)
		must_be_whole(&objects[i]);
	cr_assert_lt(slabs_bytes(NULL), before / 2);
}

Test(dense, what_is_no_object)
{
	static char foreign[64];
	char *large = quarry_malloc(1 << 20), *small = quarry_malloc(100), *freed = quarry_malloc(5000);
	const void *ptrs[] = { NULL, foreign, &large, large, large + 5, small + 1, small + 8, (void *)UINTPTR_MAX,
			       (void *)(uintptr_t)0x1000, freed, small };
	enum { N = sizeof(ptrs) / sizeof(ptrs[0]) };
	quarry_move_hint hints[N];
	uint8_t move[N];

	quarry_free(freed);
	memset(move, 7, sizeof(move));
	cr_assert_eq(quarry_should_move(ptrs, N, move), 0);
	for (int i = 0; i < N; i++)
		cr_assert_eq(move[i], 0);
	cr_assert_eq(quarry_should_move_hints(ptrs, N, hints, sizeof(hints[0])), 0);
	for (int i = 0; i < N - 2; i++)
		cr_assert_eq(hints[i].known, 0, "%d", i);
	cr_assert(hints[N - 1].known && hints[N - 1].current && hints[N - 1].object_size == 112);
	/* Wild ones never crash. */
	model_start("dense/wild");
	for (int i = 0; i < 200000; i++) {
		const void *p = small + (int64_t)(model_random() >> (8 + model_below(50))) - (1 << 20);

		quarry_should_move_hints(&p, 1, hints, sizeof(hints[0]));
		quarry_should_move(&p, 1, move);
	}
	cr_assert_eq(quarry_should_move(NULL, 0, NULL), 0);
	cr_assert_eq(quarry_should_move(NULL, 1, move), -1);
	cr_assert_eq(errno, EINVAL);
	cr_assert_eq(quarry_should_move(ptrs, 1, NULL), -1);
	cr_assert_str_eq(quarry_error_text(), "move: NULL, for 1 pointers");
	cr_assert_eq(quarry_should_move_hints(ptrs, 1, hints, 0), -1);
	cr_assert_str_eq(quarry_error_text(), "size: 0, for 1 pointers");
	/* An older program's struct is smaller, a newer one's is larger: no byte is written beyond. */
	memset(hints, 0x55, sizeof(hints));
	quarry_should_move_hints(ptrs, N, hints, 4);
	cr_assert_eq(((unsigned char *)hints)[4 * N], 0x55);
}
