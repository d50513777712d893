/* SPDX-License-Identifier: MIT */
/* Blocks whose memory ends before they do: with their arena. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "include/quarry/stack.h"
#include "lib/base/gone.h"
#include "lib/object/count.h"
#include "tests/unit/blocks.h"

static const size_t sizes[] = { 1, 16, 64, 100, 500, 3000, 20 * KIB, 40 * KIB, 200 * KIB, MIB, 5 * MIB };

/* The ways in which an arena's memory goes. */
static int by_reset(quarry_arena *arena)
{
	return quarry_arena_reset(arena);
}

static int by_clear(quarry_arena *arena)
{
	return quarry_manager_clear(quarry_manager_of_arena(arena));
}

static int by_destroy(quarry_arena *arena)
{
	return quarry_arena_destroy(arena);
}

static int by_manager(quarry_arena *arena)
{
	return quarry_manager_destroy(quarry_manager_of_arena(arena));
}

static int (*const ways[])(quarry_arena *) = { by_reset, by_clear, by_destroy, by_manager };
#define IS_KEPT(way) ((way) < 2)

static uint64_t overrun(void)
{
	quarry_block_figures f;

	cr_assert_eq(quarry_block_figures_get(&f, sizeof f), 0);
	return f.overrun;
}

static void never_called(void *p)
{
	cr_assert_fail("the end of %p was called", p);
}

/* A handle, a weak reference and an address: none finds the block. */
static void is_gone(quarry_block b, quarry_weak w)
{
	quarry_block again;
	void *p = b.p;

	cr_assert_eq(quarry_block_live(&b), 0);
	refused(quarry_weak_lock(w, &again), ESTALE);
	refused(quarry_block_ref(&b), ESTALE);
	refused(quarry_block_unref(&b), ESTALE);
	refused(quarry_ref(p), ESTALE);
	refused(quarry_unref(p), ESTALE);
}

Test(block_ends, with_their_arena)
{
	for (unsigned way = 0; way < COUNT(ways); way++) {
		quarry_arena *arena = quarry_arena_create(NULL);
		quarry_block b[COUNT(sizes) * 3], others[2];
		quarry_weak w[COUNT(b)];
		uint64_t before = overrun();

		others[0] = quarry_block_alloc(NULL, 100);
		others[1] = quarry_block_alloc(quarry_stack_manager(quarry_scratch()), 100);
		for (unsigned i = 0; i < COUNT(b); i++) {
			size_t n = sizes[i / 3];

			if (i % 3 == 0)
				b[i] = quarry_block_alloc(quarry_manager_of_arena(arena), n);
			else if (i % 3 == 1)
				cr_assert_eq(quarry_share(quarry_arena_malloc(arena, n), &b[i]), 0);
			else
				b[i] = quarry_block_alloc_aligned(quarry_manager_of_arena(arena), 64, n);
			cr_assert_not_null(b[i].p);
			w[i] = quarry_weak_of(&b[i]);
			for (unsigned k = 0; k < i % 5; k++)
				cr_assert_eq(quarry_block_ref(&b[i]), 0);
			if (i % 2)
				cr_assert_eq(quarry_block_at_end(&b[i], never_called), 0);
			else
				cr_assert_eq(quarry_block_borrow(&b[i], NULL), 0);
		}
		cr_assert_eq(ways[way](arena), 0);
		for (unsigned i = 0; i < COUNT(b); i++)
			is_gone(b[i], w[i]);
		cr_assert_eq(overrun() - before, COUNT(b));
		for (unsigned i = 0; i < COUNT(others); i++) {
			cr_assert_eq(quarry_refcount(others[i].p), 1, "others' blocks live on");
			cr_assert_eq(quarry_block_unref(&others[i]), 1);
		}
		if (IS_KEPT(way))
			cr_assert_eq(quarry_arena_destroy(arena), 0);
	}
}

/* What has the address next, without a count or with one, is nobody's to let go who was late. */
Test(block_ends, and_what_comes_there_is_not_let_go)
{
	enum { MANY = 3000 };
	static quarry_block old[MANY];
	quarry_arena *arena = quarry_arena_create(NULL);
	quarry_manager *m = quarry_manager_of_arena(arena);
	size_t met = 0;

	for (unsigned i = 0; i < MANY; i++)
		old[i] = quarry_block_alloc(m, 64);
	cr_assert_eq(quarry_arena_reset(arena), 0);
	for (unsigned i = 0; i < MANY; i++) {
		quarry_block b = { .p = NULL };
		void *p = i % 2 ? quarry_manager_alloc(m, 64) : (b = quarry_block_alloc(m, 64)).p;

		for (unsigned k = 0; k < MANY; k++)
			if (old[k].p == p) {
				met++;
				refused(quarry_block_unref(&old[k]), ESTALE);
			}
		cr_assert_eq(quarry_manager_owns(m, p), 1);
		if (b.p != NULL)
			cr_assert_eq(quarry_refcount(b.p), 1);
		else
			refused(quarry_unref(p), ESTALE);
	}
	cr_assert_gt(met, 0);
	cr_assert_eq(quarry_arena_destroy(arena), 0);
}

/* Others ask for blocks by weak references while the arena is reset again and again: who comes too late gets none, and whatever
 * was counted takes nothing from the blocks that come there next, nor leaves them anything. */
enum { PUBLISHED = 64, ROUNDS = 2000 };
static quarry_weak published[PUBLISHED];
static _Atomic(uint32_t) version; /* odd while they are written */
static _Atomic(bool) over;

static void *ask(void *arg)
{
	_Atomic(size_t) *got = arg;

	for (unsigned i = 0; !atomic_load(&over); i++) {
		uint32_t v = atomic_load(&version);
		quarry_weak w = published[i % PUBLISHED];
		quarry_block b;

		if (v % 2 != 0 || atomic_load(&version) != v || w.count == NULL)
			continue;
		if (quarry_weak_lock(w, &b) == 0) {
			int r = quarry_block_unref(&b);

			cr_assert(r == 0 || (r == -1 && errno == ESTALE), "%d", r);
			atomic_fetch_add(got, 1);
		} else {
			cr_assert_eq(errno, ESTALE);
		}
	}
	return NULL;
}

Test(block_ends, while_others_ask_for_them)
{
	quarry_arena *arena = quarry_arena_create(NULL);
	quarry_manager *m = quarry_manager_of_arena(arena);
	static quarry_block b[PUBLISHED];
	_Atomic(size_t) got[2] = { 0 };
	pthread_t threads[2];

	for (unsigned i = 0; i < COUNT(threads); i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, ask, &got[i]), 0);
	for (unsigned round = 0; round < ROUNDS || atomic_load(&got[0]) == 0; round++) {
		atomic_fetch_add(&version, 1);
		for (unsigned i = 0; i < PUBLISHED; i++) {
			b[i] = quarry_block_alloc(m, 64);
			published[i] = quarry_weak_of(&b[i]);
		}
		atomic_fetch_add(&version, 1);
		for (unsigned i = 0; i < PUBLISHED; i++)
			cr_assert_eq(quarry_block_live(&b[i]), 1);
		if (round % 4 == 0)
			sched_yield();
		cr_assert_eq(quarry_arena_reset(arena), 0);
	}
	for (unsigned i = 0; i < PUBLISHED; i++)
		b[i] = quarry_block_alloc(m, 64);
	atomic_store(&over, true);
	for (unsigned i = 0; i < COUNT(threads); i++)
		pthread_join(threads[i], NULL);
	for (unsigned i = 0; i < PUBLISHED; i++) {
		cr_assert_eq(quarry_refcount(b[i].p), 1);
		cr_assert_eq(quarry_block_unref(&b[i]), 1);
	}
	cr_assert_eq(quarry_arena_destroy(arena), 0);
}

/* An arena that does not end keeps its blocks. */
Test(block_ends, not_with_an_arena_that_stays)
{
	quarry_arena *arena = quarry_arena_create(NULL);
	quarry_block b = quarry_block_alloc(quarry_manager_of_arena(arena), 100);

	cr_assert_eq(quarry_thread_set_arena(arena, NULL), 0);
	refused(quarry_arena_reset(arena), EBUSY);
	refused(quarry_arena_destroy(arena), EBUSY);
	cr_assert_eq(quarry_refcount(b.p), 1);
	cr_assert_eq(quarry_thread_set_arena(NULL, NULL), 0);
	refused(quarry_manager_clear(NULL), EPERM);
	cr_assert_eq(quarry_block_unref(&b), 1);
	cr_assert_eq(quarry_arena_destroy(arena), 0);
}

/* A range of three zones, in the midst of the first and with nothing known of the second: all in it ends, and nothing beside
 * it. (Of words alone: no memory is there.) */
Test(block_ends, all_of_a_range_and_no_more)
{
	const uintptr_t base = ((uintptr_t)1 << 46) + 700 * MIB, gib = 1024 * MIB;
	const struct {
		uintptr_t at;
		size_t n;
		bool ends;
	} all[] = {
		{ base - 16, 16, false }, { base - 64 * KIB, MIB, false }, { base, 100, true }, { base + 96, 16, true },
		{ base + 300 * MIB, 64, true }, { base + 2 * gib - 4096, 5000, true }, { base + 2 * gib - 16, 16, true },
		{ base + 2 * gib, 64, false },
	};
	quarry_block b[COUNT(all)];

	for (unsigned i = 0; i < COUNT(all); i++) {
		b[i] = (quarry_block){ .p = (void *)all[i].at, .n = all[i].n };
		b[i].count = qy_count_begin(b[i].p, b[i].n, NULL, &b[i].generation);
		cr_assert_not_null(b[i].count);
	}
	qy_tell_gone((void *)base, 2 * gib);
	for (unsigned i = 0; i < COUNT(all); i++)
		cr_assert_eq(quarry_block_live(&b[i]), !all[i].ends, "%u", i);
	/* From within a zone that nothing is known of. */
	b[0] = (quarry_block){ .p = (void *)(base - 700 * MIB + 5 * gib), .n = 64 };
	b[0].count = qy_count_begin(b[0].p, 64, NULL, &b[0].generation);
	qy_tell_gone((void *)(base + 4 * gib - 16 * MIB), gib);
	cr_assert_eq(quarry_block_live(&b[0]), 0);
}

/* The next generation of a live block, for whoever has it alone. */
Test(block_ends, and_go_on_as_another)
{
	quarry_block b = quarry_block_alloc(NULL, 100), was = b;
	uint32_t wrong = b.generation - 1;

	cr_assert_eq(qy_count_renew(b.count, b.p, &b.generation), 0);
	cr_assert_eq(b.generation, was.generation + 1);
	cr_assert(quarry_block_live(&b) && !quarry_block_live(&was));
	refused(qy_count_renew(b.count, b.p, &wrong), ESTALE);
	cr_assert_eq(quarry_block_ref(&b), 0);
	refused(qy_count_renew(b.count, b.p, &b.generation), EBUSY);
	cr_assert_eq(quarry_unref(b.p), 0);
	cr_assert_eq(quarry_block_borrow(&b, NULL), 0);
	refused(qy_count_renew(b.count, b.p, &b.generation), EBUSY);
	cr_assert_eq(quarry_block_give_back(&b), 0);
	cr_assert_eq(quarry_block_at_end(&b, never_called), 0);
	refused(qy_count_renew(b.count, b.p, &b.generation), EBUSY);
	cr_assert_eq(quarry_block_at_end(&b, NULL), 0);
	cr_assert_eq(b.generation, was.generation + 1, "a refusal leaves it");
	cr_assert_eq(quarry_block_unref(&b), 1);
}

/* Where no generation is left for it a block grows elsewhere, or not at all; and shrinks as ever. */
Test(block_ends, at_the_last_generation)
{
	for (unsigned in_place = 0; in_place < 2; in_place++) {
		unsigned flags = in_place ? QUARRY_RESIZE_IN_PLACE : 0;
		quarry_block b = quarry_block_alloc(NULL, 3000);
		unsigned char *p = b.p;
		size_t usable = quarry_usable_size(p);

		memset(p, 0x77, 3000);
		atomic_store(&b.count->word,
			     (atomic_load(&b.count->word) & (((uint64_t)1 << QY_COUNT_GENERATION_SHIFT) - 1)) |
				     (uint64_t)(QY_COUNT_GENERATION_LAST - 1) << QY_COUNT_GENERATION_SHIFT);
		b.generation = QY_COUNT_GENERATION_LAST - 1;
		cr_assert_eq(quarry_block_resize(&b, 2500, flags), 0);
		cr_assert(b.p == (void *)p && quarry_block_live(&b));
		if (in_place) {
			refused(quarry_block_resize(&b, usable, flags), ENOMEM);
			cr_assert(b.p == (void *)p && b.n == 2500);
		} else {
			cr_assert_eq(quarry_block_resize(&b, usable, flags), 0);
			cr_assert(b.p != (void *)p && b.n == usable);
		}
		p = b.p;
		cr_assert(quarry_block_live(&b) && p[0] == 0x77 && p[2499] == 0x77);
		cr_assert_eq(quarry_refcount(p), 1);
		cr_assert_eq(quarry_block_unref(&b), 1);
	}
}
