/* SPDX-License-Identifier: MIT */
/* Blocks with counts: against a plain model, at every size, and where their memory becomes something else. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "include/quarry/stack.h"
#include "lib/base/base.h"
#include "lib/object/count.h"
#include "tests/unit/blocks.h"

static const size_t sizes[] = { 0, 1, 16, 17, 48, 64, 100, 500, 1000, 3000, 8 * KIB, 20 * KIB, 40 * KIB, 70 * KIB,
				200 * KIB, MIB, 5 * MIB };

static quarry_block_figures figures(void)
{
	quarry_block_figures f;

	cr_assert_eq(quarry_block_figures_get(&f, sizeof f), 0);
	return f;
}

/* ---- one block ---- */

Test(counts, of_every_size)
{
	for (unsigned i = 0; i < COUNT(sizes); i++) {
		quarry_block b = quarry_block_alloc(NULL, sizes[i]), copy = b;
		void *p = b.p;

		cr_assert(p != NULL && b.n == sizes[i]);
		cr_assert_eq(quarry_refcount(p), 1);
		cr_assert_eq(quarry_ref(p), 0);
		cr_assert_eq(quarry_block_ref(&b), 0);
		cr_assert_eq(quarry_refcount(p), 3);
		cr_assert_eq(quarry_unref(p), 0);
		cr_assert_eq(quarry_unref(p), 0);
		cr_assert_eq(quarry_block_live(&b), 1);
		cr_assert_eq(quarry_block_unref(&b), 1);
		cr_assert(b.p == NULL && b.count == NULL);
		cr_assert_eq(quarry_block_unref(&b), 0, "none");
		refused(quarry_ref(p), ESTALE);
		refused(quarry_unref(p), ESTALE);
		refused((int)quarry_refcount(p), ESTALE);
		refused(quarry_block_ref(&copy), ESTALE);
		refused(quarry_block_unref(&copy), ESTALE);
		refused(quarry_block_resize(&copy, 10, 0), ESTALE);
		cr_assert_eq(quarry_block_live(&copy), 0);
		cr_assert_null(quarry_block_seg(&copy).p);
		cr_assert_eq(errno, ESTALE);
	}
}

Test(counts, what_never_was_a_block)
{
	char *p = quarry_malloc(100), local[64];
	quarry_block none = { .p = NULL };
	quarry_weak no_weak = { .p = NULL };
	quarry_block b = quarry_block_alloc(NULL, 200);

	refused(quarry_ref(p), EINVAL);
	refused(quarry_unref(p), EINVAL);
	refused(quarry_ref(NULL), EINVAL);
	refused(quarry_unref(NULL), EINVAL);
	refused(quarry_ref(local), EINVAL);
	refused(quarry_ref((void *)-16), EINVAL);
	refused(quarry_ref((char *)b.p + 16), EINVAL);
	refused(quarry_unref((char *)b.p + 16), EINVAL);
	refused(quarry_ref((char *)b.p + 1), EINVAL);
	cr_assert_eq(quarry_refcount(b.p), 1, "a try at its inside leaves it");
	refused(quarry_block_ref(&none), EINVAL);
	refused(quarry_block_ref(NULL), EINVAL);
	refused(quarry_weak_lock(no_weak, &b), EINVAL);
	refused(quarry_block_resize(&none, 1, 0), EINVAL);
	refused(quarry_block_resize(&b, 1, 64), EINVAL);
	cr_assert_null(quarry_block_alloc_aligned(NULL, 48, 10).p);
	cr_assert_eq(errno, EINVAL);
	cr_assert_null(quarry_block_alloc(NULL, SIZE_MAX).p);
	cr_assert_eq(errno, ENOMEM);
	refused(quarry_block_figures_get(NULL, 8), EINVAL);
	refused((int)quarry_block_check(2), EINVAL);
	quarry_free(p);
	quarry_unref(b.p);
}

/* Neighbours in a slab do not have each other's words: every object of many slabs is a block with a count of its own. */
Test(counts, neighbours_are_told_apart)
{
	enum { MANY = 5000 };
	static quarry_block b[MANY];

	for (unsigned i = 0; i < COUNT(sizes) - 3; i++) {
		size_t many = sizes[i] > 3000 ? 200 : MANY;

		for (size_t k = 0; k < many; k++) {
			b[k] = quarry_block_alloc(NULL, sizes[i]);
			for (size_t r = 0; r < k % 7; r++)
				cr_assert_eq(quarry_ref(b[k].p), 0);
		}
		for (size_t k = 0; k < many; k++)
			cr_assert_eq(quarry_refcount(b[k].p), (long)(1 + k % 7), "%zu of %zu bytes", k, sizes[i]);
		for (size_t k = 0; k < many; k++) {
			for (size_t r = 0; r < k % 7; r++)
				cr_assert_eq(quarry_unref(b[k].p), 0);
			cr_assert_eq(quarry_unref(b[k].p), 1);
		}
	}
}

/* Units become slabs of other sizes; what was there keeps nothing alive and answers nothing. */
Test(counts, memory_becomes_another_class)
{
	enum { MANY = 4000 };
	static quarry_block now[MANY], was[MANY];
	quarry_arena_attr attr = { .name = "changing" };
	quarry_arena *arena = quarry_arena_create(&attr);
	quarry_manager *m = quarry_manager_of_arena(arena);
	size_t met = 0;

	for (unsigned i = 0; i < 60; i++) {
		size_t n = sizes[1 + (i * 7 + 3) % 12], many = n > 3000 ? 200 : MANY;

		for (size_t k = 0; k < many; k++) {
			now[k] = quarry_block_alloc(m, n);
			cr_assert_not_null(now[k].p);
			cr_assert_eq(quarry_refcount(now[k].p), 1);
		}
		for (size_t k = 0; k < MANY; k++)
			if (was[k].p != NULL) {
				met += quarry_refcount(was[k].p) == 1;
				cr_assert_eq(quarry_block_live(&was[k]), 0);
				refused(quarry_block_ref(&was[k]), ESTALE);
			}
		for (size_t k = 0; k < many; k++) {
			was[k] = now[k];
			cr_assert_eq(quarry_block_unref(&now[k]), 1);
		}
		quarry_thread_flush();
		quarry_purge(arena);
	}
	cr_assert_gt(met, 0, "no address came again as another block: this shows nothing");
	cr_assert_eq(figures().overrun, 0);
	cr_assert_eq(quarry_arena_destroy(arena), 0);
}

/* Against a model: each block's count, size and contents. */
Test(counts, model)
{
	enum { SLOTS = 300, STEPS = 60000 };
	static struct {
		quarry_block b;
		quarry_weak weak;
		long count;
		unsigned char value;
	} o[SLOTS];

	model_start("counts: model");
	for (unsigned step = 0; step < STEPS; step++) {
		unsigned i = (unsigned)(model_random() % SLOTS);
		size_t n = 1 + (model_random() % 20 == 0 ? model_random() % (300 * KIB) : model_random() % 700);
		unsigned char *p = o[i].b.p;
		quarry_block again;

		if (p == NULL) {
			if (o[i].weak.p != NULL)
				refused(quarry_weak_lock(o[i].weak, &again), ESTALE);
			o[i].b = quarry_block_alloc_aligned(NULL, (size_t)1 << model_random() % 8, n);
			cr_assert_not_null(o[i].b.p);
			o[i].weak = quarry_weak_of(&o[i].b);
			o[i].count = 1;
			memset(o[i].b.p, o[i].value = (unsigned char)model_random(), n);
			continue;
		}
		cr_assert_eq(quarry_refcount(p), o[i].count);
		cr_assert(p[0] == o[i].value && p[o[i].b.n / 2] == o[i].value && p[o[i].b.n - 1] == o[i].value);
		switch (model_random() % 4) {
		case 0:
			cr_assert_eq(model_random() % 2 ? quarry_ref(p) : quarry_block_ref(&o[i].b), 0);
			o[i].count++;
			break;
		case 1:
			cr_assert_eq(quarry_weak_lock(o[i].weak, &again), 0);
			cr_assert(again.p == p && again.generation == o[i].b.generation);
			o[i].count++;
			break;
		case 2:
			if (o[i].count > 1) {
				refused(quarry_block_resize(&o[i].b, n, 0), EBUSY);
				break;
			}
			cr_assert_eq(quarry_block_resize(&o[i].b, n, 0), 0);
			p = o[i].b.p;
			cr_assert(p[0] == o[i].value && o[i].b.n == n);
			memset(p, o[i].value, n);
			o[i].weak = quarry_weak_of(&o[i].b);
			break;
		default:
			cr_assert_eq(quarry_unref(p), --o[i].count == 0);
			if (o[i].count == 0)
				o[i].b.p = NULL;
		}
	}
	for (unsigned i = 0; i < SLOTS; i++)
		while (o[i].b.p != NULL && quarry_unref(o[i].b.p) == 0)
			;
	cr_assert_eq(figures().overrun, 0);
}

/* ---- ends of ranges ---- */

Test(counts, no_more_references_than_fit)
{
	quarry_block b = quarry_block_alloc(NULL, 100);
	quarry_block again;

	for (long i = 1; i < QUARRY_REFS_MAX; i++)
		cr_assert_eq(quarry_ref(b.p), 0, "%ld", i);
	cr_assert_eq(quarry_refcount(b.p), QUARRY_REFS_MAX);
	refused(quarry_ref(b.p), EOVERFLOW);
	refused(quarry_block_ref(&b), EOVERFLOW);
	refused(quarry_weak_lock(quarry_weak_of(&b), &again), EOVERFLOW);
	cr_assert_eq(quarry_refcount(b.p), QUARRY_REFS_MAX);
	for (long i = 1; i < QUARRY_REFS_MAX; i++)
		cr_assert_eq(quarry_unref(b.p), 0);
	cr_assert_eq(quarry_unref(b.p), 1);
}

/* Counts stand beside the memory, so nothing needs to be there: at both ends of what user space may have (x86-64: 47 bits,
 * aarch64: 48), and nowhere beyond. */
Test(counts, addresses_of_48_bits)
{
	const uintptr_t good[] = { 16, ((uintptr_t)1 << 47) - 16, (uintptr_t)1 << 47, ((uintptr_t)3 << 46) + 4096 + 32,
				   ((uintptr_t)1 << 48) - 16 };
	const uintptr_t bad[] = { (uintptr_t)1 << 48, ((uintptr_t)1 << 48) + 4096, UINTPTR_MAX - 15 };
	struct quarry_count *c;
	uint32_t generation;

	for (unsigned i = 0; i < COUNT(good); i++) {
		void *p = (void *)good[i];

		refused(quarry_ref(p), EINVAL);
		c = qy_count_begin(p, 64, NULL, &generation);
		cr_assert_not_null(c, "%p", p);
		cr_assert_eq(quarry_ref(p), 0);
		cr_assert_eq(quarry_refcount(p), 2);
		cr_assert_eq(quarry_unref(p), 0);
		for (unsigned k = 0; k < COUNT(good); k++)
			cr_assert_eq((int)quarry_refcount((void *)good[k]), k <= i ? 1 : -1, "%p beside %p", (void *)good[k], p);
	}
	for (unsigned i = 0; i < COUNT(bad); i++) {
		errno = 0;
		cr_assert(qy_count_begin((void *)bad[i], 64, NULL, &generation) == NULL && errno == EINVAL);
		refused(quarry_ref((void *)bad[i]), EINVAL);
		refused(quarry_unref((void *)bad[i]), EINVAL);
		refused((int)quarry_refcount((void *)bad[i]), EINVAL);
	}
}

static void set_generation(struct quarry_count *c, uint32_t to)
{
	uint64_t word = atomic_load(&c->word);

	word &= ((uint64_t)1 << QY_COUNT_GENERATION_SHIFT) - 1;
	atomic_store(&c->word, word | (uint64_t)to << QY_COUNT_GENERATION_SHIFT);
}

/* At its last generation an address is used up: its memory is not given out again as a block, and no reference of old
 * comes to life by the number coming round. */
Test(counts, generations_do_not_come_round)
{
	quarry_block b = quarry_block_alloc(NULL, 5000), other;
	void *p = b.p;
	quarry_weak first = quarry_weak_of(&b), last;
	uint64_t retired = figures().retired;
	size_t seen = 0;

	set_generation(b.count, QY_COUNT_GENERATION_LAST - 1);
	b.generation = QY_COUNT_GENERATION_LAST - 1;
	last = quarry_weak_of(&b);
	cr_assert_eq(quarry_weak_lock(last, &other), 0);
	cr_assert_eq(quarry_block_unref(&other), 0);
	cr_assert_eq(quarry_block_unref(&b), 1);
	for (unsigned i = 0; i < 200; i++) {
		quarry_block c = quarry_block_alloc(NULL, 5000);

		cr_assert_not_null(c.p);
		seen += c.p == p;
		refused(quarry_weak_lock(first, &other), ESTALE);
		refused(quarry_weak_lock(last, &other), ESTALE);
		cr_assert_eq(quarry_block_unref(&c), 1);
	}
	cr_assert_eq(seen, 0, "the address was given out again");
	cr_assert_eq(figures().retired, retired + 1);
}

/* Somebody who looked for another block counted up, and takes it back when the owner is gone already. */
Test(counts, who_takes_a_count_back_may_be_the_last)
{
	quarry_block b = quarry_block_alloc(NULL, 100), old = b;

	uint64_t seen = atomic_fetch_add(&b.count->word, QY_COUNT_ONE);

	cr_assert_eq(quarry_block_unref(&b), 0);
	cr_assert_eq(quarry_block_live(&old), 1);
	errno = 77;
	qy_count_undo(old.count, old.p, seen);
	cr_assert_eq(errno, 77);
	cr_assert_eq(quarry_block_live(&old), 0);
	refused(quarry_ref(old.p), ESTALE);
}

/* A block of n bytes at p, of those that a manager gives; the others stay. */
static quarry_block block_at(quarry_manager *m, size_t n, const void *p)
{
	for (unsigned i = 0; i < 20000; i++) {
		quarry_block b = quarry_block_alloc(m, n);

		if (b.p == p)
			return b;
	}
	cr_assert_fail("the address did not come again");
	return (quarry_block){ NULL };
}

/* What is let go twice, or kept too long, takes nothing from the block that is there since: whatever its count. */
Test(counts, late_handles_leave_the_next_block_alone)
{
	for (long more = 0; more < 4; more++) {
		quarry_block old = quarry_block_alloc(NULL, 3000), late = old, b, again;
		quarry_weak w = quarry_weak_of(&old);

		cr_assert_eq(quarry_block_unref(&old), 1);
		b = block_at(NULL, 3000, late.p);
		for (long i = 0; i < more; i++)
			cr_assert_eq(quarry_ref(b.p), 0);
		refused(quarry_block_unref(&late), ESTALE);
		refused(quarry_block_ref(&late), ESTALE);
		refused(quarry_weak_lock(w, &again), ESTALE);
		refused(quarry_block_borrow(&late, NULL), ESTALE);
		refused(quarry_block_at_end(&late, NULL), ESTALE);
		cr_assert_eq(quarry_refcount(b.p), 1 + more);
		for (long i = 0; i < more; i++)
			cr_assert_eq(quarry_unref(b.p), 0);
		cr_assert_eq(quarry_unref(b.p), 1);
	}
}

Test(counts, resized_at_the_last_generation)
{
	quarry_block b = quarry_block_alloc(NULL, MIB);
	unsigned char *p = b.p;

	memset(p, 0x77, MIB);
	set_generation(b.count, QY_COUNT_GENERATION_LAST - 1);
	b.generation = QY_COUNT_GENERATION_LAST - 1;
	cr_assert_eq(quarry_block_resize(&b, 100 * KIB, 0), 0);
	p = b.p;
	cr_assert(quarry_block_live(&b) && b.n == 100 * KIB && p[0] == 0x77 && p[100 * KIB - 1] == 0x77);
	cr_assert_eq(quarry_block_unref(&b), 1);
}

/* ---- behind the count ---- */

static void never_called(void *p)
{
	cr_assert_fail("the end of another block: %p", p);
}

Test(counts, freed_behind_its_count)
{
	quarry_block b = quarry_block_alloc(NULL, 3000), again, old = b;
	quarry_weak w = quarry_weak_of(&b);
	bool met = false;

	cr_assert_eq(quarry_ref(b.p), 0);
	quarry_free(b.p); /* the mistake */
	for (unsigned i = 0; i < 100 && !met; i++) {
		b = quarry_block_alloc(NULL, 3000);
		cr_assert_eq(quarry_refcount(b.p), 1, "a new block has one reference");
		met = b.p == old.p;
		if (met) {
			refused(quarry_block_unref(&old), ESTALE);
			refused(quarry_weak_lock(w, &again), ESTALE);
		}
	}
	cr_assert(met, "the address did not come again");
	cr_assert_eq(figures().overrun, 1);
}

/* What stood beside the word of a block that was overrun is not the next one's: in the same array, or another. */
Test(counts, what_is_beside_an_overrun_block_goes_with_it)
{
	quarry_arena *arena = quarry_arena_create(NULL);
	quarry_manager *m = quarry_manager_of_arena(arena);

	for (unsigned other = 0; other < 2; other++) {
		quarry_block b = quarry_block_alloc(m, 64);
		void *p = b.p;

		cr_assert_eq(quarry_block_at_end(&b, never_called), 0);
		cr_assert_eq(quarry_block_borrow(&b, NULL), 0);
		cr_assert_eq(quarry_manager_clear(m), 0);
		if (other) {
			b = block_at(m, 160, p);
			cr_assert_eq(quarry_block_unref(&b), 1);
			cr_assert_eq(quarry_manager_clear(m), 0);
		}
		b = block_at(m, 64, p);
		refused(quarry_block_give_back(&b), EINVAL);
		cr_assert_eq(quarry_block_unref(&b), 1);
		cr_assert_eq(quarry_manager_clear(m), 0);
	}
	cr_assert_eq(quarry_arena_destroy(arena), 0);
}

Test(counts, an_arena_reset_or_ended_behind_them)
{
	enum { MANY = 3000 };
	static quarry_block old[MANY];
	quarry_arena *arena = quarry_arena_create(NULL);
	size_t met = 0;

	for (unsigned i = 0; i < MANY; i++) {
		old[i] = quarry_block_alloc(quarry_manager_of_arena(arena), 64);
		quarry_ref(old[i].p);
	}
	cr_assert_eq(quarry_arena_reset(arena), 0);
	for (unsigned i = 0; i < MANY; i++) {
		/* Of other sizes: they begin where others did, and elsewhere. */
		quarry_block b = quarry_block_alloc(quarry_manager_of_arena(arena), i % 2 ? 32 : 160);

		cr_assert_eq(quarry_refcount(b.p), 1);
		for (unsigned k = 0; k < MANY; k++)
			if (old[k].p == b.p) {
				met++;
				cr_assert_eq(quarry_block_live(&old[k]), 0);
			}
	}
	cr_assert_gt(met, 0);
	cr_assert_eq(quarry_arena_destroy(arena), 0);
}

/* Somebody counted up, and takes that back when an arena was reset and another block is there: nothing is taken from it. */
Test(counts, what_an_overrun_dropped_is_not_taken_back)
{
	quarry_arena *arena = quarry_arena_create(NULL);
	quarry_manager *m = quarry_manager_of_arena(arena);
	quarry_block b = quarry_block_alloc(m, 64), new;
	uint64_t seen = atomic_fetch_add(&b.count->word, QY_COUNT_ONE);

	cr_assert_eq(quarry_manager_clear(m), 0);
	new = block_at(m, 64, b.p);
	qy_count_undo(b.count, b.p, seen);
	cr_assert_eq(quarry_block_live(&new), 1);
	cr_assert_eq(quarry_refcount(new.p), 1);
	cr_assert_eq(quarry_block_unref(&new), 1);
	cr_assert_eq(quarry_arena_destroy(arena), 0);
}

/* ---- shared ---- */

Test(counts, freed_memory_is_not_shared)
{
	for (unsigned i = 0; i < 100; i++) {
		void *p = quarry_malloc(100 + i);

		cr_assert_eq(quarry_manager_owns(NULL, p), 1);
		quarry_free(p);
		cr_assert_eq(quarry_manager_owns(NULL, p), 0);
		refused(quarry_share(p, NULL), EINVAL);
	}
}

Test(counts, any_memory_can_be_shared)
{
	quarry_arena *arena = quarry_arena_create(NULL);

	for (unsigned i = 0; i < COUNT(sizes); i++) {
		char *p = i % 2 ? quarry_malloc(sizes[i]) : quarry_arena_malloc(arena, sizes[i]);
		quarry_block b;

		refused(quarry_ref(p), EINVAL);
		if (sizes[i] > 16)
			refused(quarry_share(p + 16, &b), EINVAL);
		for (size_t at = 4 * KIB; at < sizes[i]; at *= 4)
			refused(quarry_share(p + at, &b), EINVAL);
		cr_assert_eq(quarry_share(p, &b), 0, "%zu: %s", sizes[i], quarry_error_text());
		cr_assert(b.p == p && b.n >= sizes[i]);
		refused(quarry_share(p, NULL), EALREADY);
		cr_assert_eq(quarry_ref(p), 0);
		cr_assert_eq(quarry_unref(p), 0);
		cr_assert_eq(quarry_unref(p), 1);
		refused(quarry_ref(p), ESTALE);
	}
	refused(quarry_share(NULL, NULL), EINVAL);
	refused(quarry_share(&arena, NULL), EINVAL);
	cr_assert_eq(quarry_arena_destroy(arena), 0);
}

static void *unref(void *p)
{
	return (void *)(intptr_t)quarry_unref(p);
}

Test(counts, the_last_reference_goes_in_another_thread)
{
	quarry_stats before = { .version = QUARRY_STATS_VERSION }, after = { .version = QUARRY_STATS_VERSION };

	quarry_unref(quarry_block_alloc(NULL, 100).p);
	quarry_stats_get(NULL, &before);
	for (unsigned i = 0; i < 20; i++) {
		quarry_block b = quarry_block_alloc(NULL, 10 * KIB);
		pthread_t thread;
		void *r;

		cr_assert_eq(pthread_create(&thread, NULL, unref, b.p), 0);
		cr_assert_eq(pthread_join(thread, &r), 0);
		cr_assert_eq((intptr_t)r, 1);
		refused(quarry_ref(b.p), ESTALE);
	}
	quarry_stats_get(NULL, &after);
	cr_assert_eq(after.bad_frees, before.bad_frees);
}

/* ---- resizing ---- */

Test(counts, resized)
{
	for (unsigned i = 0; i < COUNT(sizes); i++)
		for (unsigned k = 0; k < COUNT(sizes); k++) {
			quarry_block b = quarry_block_alloc(NULL, sizes[i]), old = b;
			size_t both = sizes[i] < sizes[k] ? sizes[i] : sizes[k];
			unsigned char *p = memset(b.p, 0x33, sizes[i]);

			cr_assert_eq(quarry_block_resize(&b, sizes[k], QUARRY_RESIZE_ZERO), 0, "%zu to %zu: errno %d", sizes[i],
				     sizes[k], errno);
			p = b.p;
			cr_assert(b.n == sizes[k] && quarry_usable_size(p) >= sizes[k]);
			for (size_t at = 0; at < both; at++)
				cr_assert_eq(p[at], 0x33);
			for (size_t at = both; at < sizes[k]; at++)
				cr_assert_eq(p[at], 0, "byte %zu of %zu, %zu before", at, sizes[k], sizes[i]);
			cr_assert_eq(quarry_refcount(p), 1);
			if (old.p != p)
				cr_assert_eq(quarry_block_live(&old), 0);
			cr_assert_eq(quarry_block_unref(&b), 1);
		}
}

Test(counts, resized_where_it_is_or_not_at_all)
{
	quarry_block b = quarry_block_alloc(NULL, 1000);
	void *p = b.p;
	size_t usable = quarry_usable_size(p);

	refused(quarry_block_resize(&b, usable + 1, QUARRY_RESIZE_IN_PLACE), ENOMEM);
	cr_assert(b.p == p && b.n == 1000 && quarry_block_live(&b));
	cr_assert_eq(quarry_block_resize(&b, 1, QUARRY_RESIZE_IN_PLACE), 0);
	cr_assert_eq(quarry_block_resize(&b, usable, QUARRY_RESIZE_IN_PLACE), 0);
	cr_assert(b.p == p && b.n == usable);
	refused(quarry_block_resize(&b, SIZE_MAX / 2 + 2, 0), ENOMEM);
	cr_assert(b.p == p && quarry_block_live(&b), "an error leaves it");
	cr_assert_eq(quarry_refcount(p), 1);
	cr_assert_eq(quarry_block_unref(&b), 1);
}

/* A large block shrunk where it is makes room for others in its first 64 KiB: they have words of their own. */
Test(counts, shrunk_beside_new_neighbours)
{
	enum { MANY = 40 };
	quarry_block b = quarry_block_alloc(NULL, MIB), other[MANY];

	cr_assert_eq(quarry_block_resize(&b, 40 * KIB, 0), 0);
	for (unsigned i = 0; i < MANY; i++) {
		other[i] = quarry_block_alloc(NULL, (i % 5 + 1) * 40 * KIB);
		cr_assert_eq(quarry_refcount(other[i].p), 1);
		cr_assert_eq(quarry_refcount(b.p), 1);
		cr_assert_eq(quarry_block_live(&b), 1);
	}
	for (unsigned i = 0; i < MANY; i++)
		cr_assert_eq(quarry_block_unref(&other[i]), 1);
	cr_assert_eq(quarry_block_unref(&b), 1);
	cr_assert_eq(figures().overrun, 0);
}

/* ---- notes, scopes ---- */

Test(counts, what_is_borrowed_is_not_ended)
{
	quarry_block b = quarry_block_alloc(NULL, 100), c = quarry_block_alloc(NULL, 100);
	quarry_seg s;

	refused(quarry_block_give_back(&b), EINVAL);
	cr_assert_eq(quarry_block_borrow(&b, &s), 0);
	cr_assert(s.p == b.p && s.n == 100);
	cr_assert_eq(quarry_block_borrow(&b, NULL), 0);
	cr_assert_eq(quarry_block_unref(&c), 1, "its neighbour is not meant");
	refused(quarry_block_unref(&b), EBUSY);
	refused(quarry_unref(s.p), EBUSY);
	refused(quarry_block_resize(&b, 5000, 0), EBUSY);
	cr_assert(quarry_block_live(&b) && quarry_refcount(b.p) == 1);
	cr_assert_eq(quarry_block_give_back(&b), 0);
	refused(quarry_block_unref(&b), EBUSY);
	cr_assert_eq(quarry_block_give_back(&b), 0);
	refused(quarry_block_give_back(&b), EINVAL);
	cr_assert_eq(quarry_block_unref(&b), 1);
}

/* All that is asked by address finds a noted block, and no other of the same word. */
Test(counts, a_noted_block_is_found)
{
	static const size_t lengths[] = { 100, 3000, 100 * KIB };

	for (unsigned i = 0; i < COUNT(lengths); i++) {
		quarry_block b = quarry_block_alloc(NULL, lengths[i]), other, mine;
		char *p = b.p;

		cr_assert_eq(quarry_block_borrow(&b, NULL), 0);
		cr_assert_eq(quarry_ref(p), 0);
		cr_assert_eq(quarry_weak_lock(quarry_weak_of(&b), &mine), 0);
		cr_assert_eq(quarry_refcount(p), 3);
		for (size_t at = 16; at < lengths[i]; at += 16) {
			refused(quarry_ref(p + at), EINVAL);
			refused(quarry_unref(p + at), EINVAL);
		}
		refused(quarry_share(p, NULL), EALREADY);
		refused(quarry_manager_free(NULL, p), EBUSY);
		cr_assert_eq(quarry_block_from_seg(quarry_seg_make(p, lengths[i]), &other), 0);
		cr_assert(other.count == b.count && other.generation == b.generation);
		cr_assert_eq(quarry_unref(p), 0);
		cr_assert_eq(quarry_block_unref(&mine), 0);
		refused(quarry_unref(p), EBUSY);
		cr_assert_eq(quarry_block_give_back(&b), 0);
		cr_assert_eq(quarry_refcount(p), 1);
		cr_assert_eq(quarry_unref(p), 1);
		refused(quarry_unref(p), ESTALE);
		refused(quarry_block_give_back(&b), ESTALE);
	}
}

/* Whoever has seen the word of the last reference, and would end the block by a compare-and-swap, finds another word when a
 * note was given meanwhile, by one who had a reference then and has none now. */
Test(counts, a_note_is_in_the_word)
{
	quarry_block b = quarry_block_alloc(NULL, 100), mine;
	uint64_t seen = atomic_load(&b.count->word);

	for (unsigned i = 0; i < 3; i++) {
		cr_assert_eq(quarry_weak_lock(quarry_weak_of(&b), &mine), 0);
		cr_assert_eq(quarry_block_borrow(&mine, NULL), 0);
		cr_assert_eq(quarry_block_unref(&mine), 0);
		cr_assert_neq(atomic_load(&b.count->word), seen);
		cr_assert_eq(quarry_block_give_back(&b), 0);
		cr_assert_eq(atomic_load(&b.count->word), seen);
	}
	cr_assert_eq(quarry_block_unref(&b), 1);
}

/* The last reference goes while somebody who looked for another block has counted up: it is not refused then, but what is noted
 * lives until its last note is given back. Or somebody takes a reference to it again. */
Test(counts, what_is_noted_lives_on_without_references)
{
	for (unsigned again = 0; again < 2; again++) {
		quarry_block b = quarry_block_alloc(NULL, 100), old = b, mine;
		uint64_t seen;

		memset(b.p, 0x2f, 100);
		cr_assert_eq(quarry_block_borrow(&b, NULL), 0);
		cr_assert_eq(quarry_block_borrow(&b, NULL), 0);
		seen = atomic_fetch_add(&b.count->word, QY_COUNT_ONE);
		cr_assert_eq(quarry_block_unref(&b), 0);
		qy_count_undo(old.count, old.p, seen);
		cr_assert_eq(quarry_block_live(&old), 1);
		refused(quarry_block_borrow(&old, NULL), ESTALE);
		cr_assert_eq(((unsigned char *)old.p)[99], 0x2f);
		cr_assert_eq(quarry_block_give_back(&old), 0);
		cr_assert_eq(quarry_block_live(&old), 1);
		if (again)
			cr_assert_eq(quarry_weak_lock(quarry_weak_of(&old), &mine), 0);
		errno = 77;
		cr_assert_eq(quarry_block_give_back(&old), 0);
		cr_assert_eq(errno, 77);
		cr_assert_eq(quarry_block_live(&old), (int)again);
		if (again)
			cr_assert_eq(quarry_block_unref(&mine), 1);
		refused(quarry_ref(old.p), ESTALE);
		refused(quarry_block_give_back(&old), ESTALE);
	}
}

/* What an arena's reset takes along is over, notes or not, and the next block there has none. */
Test(counts, noted_blocks_of_an_arena_that_is_reset)
{
	quarry_arena *arena = quarry_arena_create(NULL);
	quarry_manager *m = quarry_manager_of_arena(arena);
	quarry_block b = quarry_block_alloc(m, 64), new;

	cr_assert_eq(quarry_block_borrow(&b, NULL), 0);
	cr_assert_eq(quarry_block_borrow(&b, NULL), 0);
	cr_assert_eq(quarry_manager_clear(m), 0);
	refused(quarry_block_give_back(&b), ESTALE);
	refused(quarry_ref(b.p), ESTALE);
	new = block_at(m, 64, b.p);
	refused(quarry_block_give_back(&b), ESTALE);
	refused(quarry_block_give_back(&new), EINVAL);
	cr_assert_eq(quarry_ref(new.p), 0);
	cr_assert_eq(quarry_unref(new.p), 0);
	cr_assert_eq(quarry_block_unref(&new), 1);
	cr_assert_eq(quarry_arena_destroy(arena), 0);
}

Test(counts, no_more_notes_than_fit)
{
	quarry_block b = quarry_block_alloc(NULL, 100);

	for (unsigned i = 0; i < 4095; i++)
		cr_assert_eq(quarry_block_borrow(&b, NULL), 0);
	refused(quarry_block_borrow(&b, NULL), EOVERFLOW);
	for (unsigned i = 0; i < 4095; i++)
		cr_assert_eq(quarry_block_give_back(&b), 0);
	cr_assert_eq(quarry_block_unref(&b), 1);
}

static void use_blocks(void)
{
	for (unsigned i = 0; i < 4000; i++) {
		quarry_block b = quarry_block_alloc(NULL, 16 + i % 2000), c;

		cr_assert_eq(quarry_weak_lock(quarry_weak_of(&b), &c), 0);
		cr_assert_eq(quarry_block_unref(&c), 0);
		cr_assert_eq(quarry_ref(b.p), 0);
		cr_assert_eq(quarry_unref(b.p), 0);
		cr_assert_eq(quarry_block_unref(&b), 1);
	}
}

/* What is asked for again and again comes from nowhere below, once all slabs that the sizes go round in have arrays. */
Test(counts, once_warm_nothing_is_allocated)
{
	quarry_stats was = { .version = QUARRY_STATS_VERSION }, now = was;
	unsigned same = 0;

	for (unsigned round = 0; round < 300 && same < 20; round++) {
		use_blocks();
		quarry_stats_get(NULL, &now);
		same = now.metadata == was.metadata && now.in_use == was.in_use && now.mapped == was.mapped ? same + 1 : 0;
		was = now;
	}
	cr_assert_eq(same, 20, "it goes on: metadata %zu, in use %zu", (size_t)now.metadata, (size_t)now.in_use);
}

static void *ended;
static quarry_weak weak_at_end;
static unsigned ends;

static void at_end(void *p)
{
	quarry_block b;

	ended = p;
	ends++;
	cr_assert_eq(((char *)p)[7], 'x', "it is called before the memory goes");
	refused(quarry_ref(p), ESTALE);
	refused(quarry_weak_lock(weak_at_end, &b), ESTALE);
	b = quarry_block_alloc(NULL, 100);
	cr_assert(b.p != NULL && b.p != p);
	cr_assert_eq(quarry_block_unref(&b), 1);
}

Test(counts, a_function_is_called_at_the_end)
{
	quarry_block b = quarry_block_alloc(NULL, 100), c = quarry_block_alloc(NULL, 100), old = b;
	void *p = b.p;

	((char *)p)[7] = 'x';
	weak_at_end = quarry_weak_of(&b);
	cr_assert_eq(quarry_block_at_end(&b, at_end), 0);
	refused(quarry_block_resize(&b, 100, 0), EBUSY);
	refused(quarry_block_resize(&b, 10000, 0), EBUSY);
	cr_assert_eq(quarry_block_ref(&b), 0);
	cr_assert_eq(quarry_unref(p), 0);
	cr_assert_eq(quarry_block_unref(&c), 1);
	cr_assert_eq(ends, 0);
	cr_assert_eq(quarry_block_unref(&b), 1);
	cr_assert(ends == 1 && ended == p);
	refused(quarry_block_at_end(&old, at_end), ESTALE);
	for (unsigned i = 0; i < 100; i++) { /* the next one there has none */
		b = quarry_block_alloc(NULL, 100);
		cr_assert_eq(quarry_block_unref(&b), 1);
	}
	cr_assert_eq(ends, 1);
	b = quarry_block_alloc(NULL, 100);
	cr_assert_eq(quarry_block_at_end(&b, at_end), 0);
	cr_assert_eq(quarry_block_at_end(&b, NULL), 0);
	cr_assert_eq(quarry_block_unref(&b), 1);
	cr_assert_eq(ends, 1);
}

static void *leave_a_scope(int early)
{
	QUARRY_AUTO(quarry_block) b = quarry_block_alloc(NULL, 100);
	QUARRY_AUTO_FREE char *text = quarry_malloc(10);
	QUARRY_AUTO_PTR(quarry_arena) arena = quarry_arena_create(NULL);

	if (early)
		return b.p;
	text[0] = 0;
	cr_assert_not_null(quarry_arena_malloc(arena, 10));
	return b.p;
}

Test(counts, scopes_end_what_they_hold)
{
	size_t arenas;

	leave_a_scope(0);
	arenas = quarry_arenas(NULL, 0);
	for (int early = 0; early < 2; early++) {
		void *p = leave_a_scope(early);

		refused(quarry_ref(p), ESTALE);
		cr_assert_eq(quarry_arenas(NULL, 0), arenas);
	}
}

/* ---- a child ---- */

Test(counts, a_child_has_them_as_they_were)
{
	quarry_block b = quarry_block_alloc(NULL, 100);
	int status;
	pid_t pid;

	quarry_ref(b.p);
	pid = fork();
	cr_assert_geq(pid, 0);
	if (pid == 0)
		_exit(quarry_refcount(b.p) == 2 && quarry_unref(b.p) == 0 && quarry_unref(b.p) == 1 &&
		      quarry_ref(b.p) == -1 && quarry_block_alloc(NULL, 100).p != NULL ? 0 : 1);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0);
	cr_assert_eq(quarry_refcount(b.p), 2);
}
