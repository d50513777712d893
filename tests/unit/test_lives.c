/* SPDX-License-Identifier: MIT */
/* Blocks of arenas that are reset or end meanwhile, and words that two threads are at: one step of the one between two of the
 * other, in the order that would harm. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "lib/base/gone.h"
#include "lib/cache/taken.h"
#include "lib/object/count.h"
#include "lib/object/ends.h"
#include "tests/unit/blocks.h"

static quarry_arena *arena;
static quarry_manager *manager;

static void make_arena(void)
{
	arena = quarry_arena_create(NULL);
	manager = quarry_manager_of_arena(arena);
	cr_assert_not_null(manager);
}

static uint64_t bad_frees(void)
{
	quarry_stats stats = { .version = QUARRY_STATS_VERSION };

	cr_assert_eq(quarry_stats_get(NULL, &stats), 0);
	return stats.bad_frees;
}

/* A block of n bytes at p; the others stay. */
static quarry_block block_at(size_t n, const void *p)
{
	for (unsigned i = 0; i < 20000; i++) {
		quarry_block b = quarry_block_alloc(manager, n);

		if (b.p == p)
			return b;
	}
	cr_assert_fail("the address did not come again");
	return (quarry_block){ NULL };
}

static void *memory_at(size_t n, const void *p)
{
	for (unsigned i = 0; i < 20000; i++) {
		void *q = quarry_arena_malloc(arena, n);

		if (q == p)
			return q;
	}
	cr_assert_fail("the address did not come again");
	return NULL;
}

static void expect_alone(quarry_block b)
{
	cr_assert_eq(quarry_block_live(&b), 1);
	cr_assert_eq(quarry_refcount(b.p), 1);
	cr_assert_eq(quarry_block_unref(&b), 1);
}

/* ---- lives ---- */

static qy_gone_fn *told;
static void *watched;
static uint64_t life_then, is_ended;

static void watch(void *p, size_t n)
{
	if ((char *)watched >= (char *)p && (char *)watched < (char *)p + n) {
		cr_assert_eq(is_ended, 0, "it is told twice");
		cr_assert_neq(qy_arena_life(watched), life_then, "who begins a block from now on finds that");
		life_then = qy_arena_life(watched);
		is_ended = 1;
	}
	told(p, n);
}

Test(lives, words_end_before_another_begins)
{
	for (unsigned destroy = 0; destroy < 2; destroy++) {
		quarry_block b;

		make_arena();
		b = quarry_block_alloc(manager, 500);
		told = atomic_load(&qy_gone);
		cr_assert_not_null(told);
		watched = b.p;
		life_then = qy_arena_life(b.p);
		cr_assert(life_then != QY_LIFE_NODES && life_then != QY_LIFE_OVER);
		is_ended = 0;
		atomic_store(&qy_gone, watch);
		cr_assert_eq(destroy ? quarry_arena_destroy(arena) : quarry_arena_reset(arena), 0);
		atomic_store(&qy_gone, told);
		cr_assert_eq(is_ended, 1);
		cr_assert_neq(qy_arena_life(b.p), life_then, "it began when no word of the one before could be ended any more");
		cr_assert_eq(quarry_block_live(&b), 0);
		if (!destroy)
			cr_assert_eq(quarry_arena_destroy(arena), 0);
	}
	cr_assert_eq(qy_arena_life(watched), QY_LIFE_OVER);
}

Test(lives, nodes_arenas_have_one)
{
	void *p = quarry_malloc(100), *large = quarry_malloc(3 * MIB), *held;

	cr_assert_eq(qy_arena_life(p), QY_LIFE_NODES);
	cr_assert_eq(qy_arena_life(large), QY_LIFE_NODES);
	cr_assert_eq(qy_arena_life(&held), QY_LIFE_OVER);
	cr_assert(qy_life_hold(p, QY_LIFE_NODES, &held));
	qy_life_let_go(held);
	cr_assert(!qy_life_hold(p, QY_LIFE_OVER, &held));
	quarry_free(p);
	quarry_free(large);
}

static void *try_reset(void *done)
{
	cr_assert_eq(quarry_arena_reset(arena), 0);
	atomic_store((_Atomic(int) *)done, 1);
	return NULL;
}

/* What is freed or resized in a life that is over is left alone, and nobody is told; in the life that there is it is done. */
Test(lives, what_is_done_in_one_that_is_over)
{
	static const size_t sizes[] = { 100, 3000, 70 * KIB, 3 * MIB };

	for (unsigned i = 0; i < COUNT(sizes); i++) {
		size_t n = sizes[i];
		uint64_t life, bad = bad_frees();
		unsigned char *p, *to;
		void *held;

		make_arena();
		p = quarry_arena_malloc(arena, n);
		life = qy_arena_life(p);
		cr_assert_eq(quarry_arena_reset(arena), 0);
		cr_assert_eq(memory_at(n, p), p);
		memset(p, 'A', n);
		qy_arena_free_in(p, life);
		qy_arena_free_filled(p, life, 0xde, n);
		for (size_t k = n / 4; k <= 4 * n; k *= 2) {
			errno = 0;
			to = qy_arena_resize_in(p, k, life);
			cr_assert(to == p || (to == NULL && errno == ESTALE), "%zu to %zu: errno %d", n, k, errno);
			cr_assert_geq(quarry_usable_size(p), n);
		}
		cr_assert(!qy_life_hold(p, life, &held));
		for (size_t k = 0; k < n; k++)
			cr_assert_eq(p[k], 'A', "byte %zu of %zu", k, n);
		life = qy_arena_life(p);
		to = qy_arena_resize_in(p, 4 * n, life);
		cr_assert(to != NULL && to[n - 1] == 'A' && quarry_usable_size(to) >= 4 * n);
		cr_assert_eq(quarry_arena_of(to), arena);
		qy_arena_free_in(to, life);
		cr_assert_eq(bad_frees(), bad);
		cr_assert_eq(quarry_arena_destroy(arena), 0);
		qy_arena_free_in(to, life);
		cr_assert_null(qy_arena_resize_in(to, 10, life));
		cr_assert_eq(bad_frees(), bad);
	}
}

Test(lives, who_holds_one_is_waited_for, .timeout = 60)
{
	_Atomic(int) done = 0;
	pthread_t thread;
	void *p, *held;
	uint64_t life;

	make_arena();
	p = quarry_arena_malloc(arena, 100);
	life = qy_arena_life(p);
	cr_assert(qy_life_hold(p, life, &held));
	cr_assert_eq(pthread_create(&thread, NULL, try_reset, &done), 0);
	for (unsigned i = 0; i < 1000; i++)
		sched_yield();
	cr_assert_eq(atomic_load(&done), 0);
	cr_assert_eq(qy_arena_life(p), life);
	qy_life_let_go(held);
	pthread_join(thread, NULL);
	cr_assert_eq(atomic_load(&done), 1);
	cr_assert_eq(quarry_arena_destroy(arena), 0);
}

/* ---- words ---- */

/* Taken for a resize, which fails after a reset: what is there since is not touched. */
Test(lives, an_end_is_put_back_in_its_own_life_alone)
{
	for (unsigned again = 0; again < 2; again++) {
		quarry_block b, new;
		uint64_t word;

		make_arena();
		b = quarry_block_alloc(manager, 64);
		cr_assert_eq(qy_count_take(b.count, b.p, b.generation), 0);
		cr_assert_eq(quarry_arena_reset(arena), 0);
		new = block_at(64, b.p);
		if (again) {
			quarry_block ends = new;

			cr_assert_eq(quarry_block_unref(&ends), 1);
		}
		word = atomic_load(&new.count->word);
		cr_assert(!qy_count_put_back(b.count, b.generation));
		cr_assert_eq(atomic_load(&new.count->word), word);
		if (!again)
			expect_alone(new);
		cr_assert_eq(quarry_arena_destroy(arena), 0);
	}
}

/* What others count up meanwhile, and take back, stays theirs. */
Test(lives, an_end_is_put_back_with_what_others_counted)
{
	quarry_block b = quarry_block_alloc(NULL, 64);
	uint64_t seen;

	cr_assert_eq(qy_count_take(b.count, b.p, b.generation), 0);
	cr_assert_eq(quarry_block_live(&b), 0);
	seen = atomic_fetch_add(&b.count->word, QY_COUNT_ONE);
	cr_assert(qy_count_put_back(b.count, b.generation));
	cr_assert(!qy_count_put_back(b.count, b.generation), "once");
	cr_assert_eq(quarry_refcount(b.p), 2);
	qy_count_undo(b.count, b.p, seen);
	expect_alone(b);
}

/* A count up while a resize has taken the block, which fails; a reset, and another block at that word: the count is dropped, and
 * not taken from that block. */
Test(lives, a_count_from_before_an_overrun_is_of_nobody)
{
	quarry_block b, new;
	uint64_t seen;

	make_arena();
	b = quarry_block_alloc(manager, 64);
	cr_assert_eq(qy_count_take(b.count, b.p, b.generation), 0);
	seen = atomic_fetch_add(&b.count->word, QY_COUNT_ONE);
	cr_assert(qy_count_put_back(b.count, b.generation));
	cr_assert_eq(quarry_arena_reset(arena), 0);
	new = block_at(64, b.p);
	qy_count_undo(b.count, b.p, seen);
	expect_alone(new);
	cr_assert_eq(quarry_arena_destroy(arena), 0);
}

/* At the last generations an overrun goes no further. */
Test(lives, an_overrun_at_the_last_generation)
{
	for (uint32_t back = 1; back <= 2; back++) {
		quarry_block b;
		uint64_t word;

		make_arena();
		b = quarry_block_alloc(manager, 5000);
		word = atomic_load(&b.count->word) & (((uint64_t)1 << QY_COUNT_GENERATION_SHIFT) - 1);
		word |= (uint64_t)(QY_COUNT_GENERATION_LAST - back) << QY_COUNT_GENERATION_SHIFT;
		atomic_store(&b.count->word, word);
		cr_assert_eq(quarry_arena_reset(arena), 0);
		word = atomic_load(&b.count->word);
		cr_assert(qy_count_generation(word) == QY_COUNT_GENERATION_LAST && !(word & QY_COUNT_LIVE));
		cr_assert_eq(quarry_arena_destroy(arena), 0);
	}
}

/* ---- shared ---- */

static void count_end(void *p)
{
	(*(unsigned *)p)++;
}

/* Of those who begin a block at the same memory one does; and what stands beside its word is not lost by the others. */
Test(lives, shared_once)
{
	unsigned *p = quarry_malloc(100);
	quarry_block b;
	uint32_t generation;

	*p = 0;
	cr_assert_eq(quarry_share(p, &b), 0);
	cr_assert_eq(quarry_block_at_end(&b, count_end), 0);
	errno = 0;
	cr_assert(qy_count_begin_once(p, quarry_usable_size(p), &generation) == NULL && errno == EALREADY);
	cr_assert_eq(quarry_refcount(p), 1);
	cr_assert_eq(quarry_ref(p), 0);
	cr_assert_eq(quarry_unref(p), 0);
	generation = b.generation;
	cr_assert_eq(quarry_block_borrow(&b, NULL), 0);
	cr_assert(qy_count_begin_once(p, quarry_usable_size(p), &generation) == NULL && errno == EALREADY);
	cr_assert_eq(quarry_block_give_back(&b), 0);
	cr_assert_eq(*p, 0);
	cr_assert_eq(quarry_unref(p), 1);
}

enum { ROUNDS = 20000 };
static void *to_share[ROUNDS];
static _Atomic(unsigned) at_round;
static unsigned first[2];

static void *share(void *arg)
{
	unsigned me = (unsigned)(uintptr_t)arg;

	for (unsigned i = 0; i < ROUNDS; i++) {
		atomic_fetch_add(&at_round, 1);
		while (atomic_load(&at_round) < 2 * (i + 1))
			sched_yield();
		if (quarry_share(to_share[i], NULL) == 0)
			first[me]++;
		else
			cr_assert_eq(errno, EALREADY);
	}
	return NULL;
}

Test(lives, shared_by_two_at_once, .timeout = 120)
{
	pthread_t thread;

	for (unsigned i = 0; i < ROUNDS; i++)
		to_share[i] = quarry_malloc(16 + i % 200);
	cr_assert_eq(pthread_create(&thread, NULL, share, (void *)1), 0);
	share((void *)0);
	pthread_join(thread, NULL);
	cr_assert_eq(first[0] + first[1], ROUNDS, "%u and %u", first[0], first[1]);
	for (unsigned i = 0; i < ROUNDS; i++)
		cr_assert_eq(quarry_unref(to_share[i]), 1);
}

/* ---- functions for the end ---- */

static _Atomic(unsigned) called;

static void count_call(void *p)
{
	(void)p;
	atomic_fetch_add(&called, 1);
}

static void set_generation(quarry_block *b, uint32_t to)
{
	uint64_t word = atomic_load(&b->count->word) & (((uint64_t)1 << QY_COUNT_GENERATION_SHIFT) - 1);

	atomic_store(&b->count->word, word | (uint64_t)to << QY_COUNT_GENERATION_SHIFT);
	b->generation = to;
}

/* One that was set of a life that is over is called for no other; not even when its number's last bits come round. */
Test(lives, a_function_is_of_its_own_life)
{
	quarry_block old, new;

	make_arena();
	old = quarry_block_alloc(manager, 64);
	cr_assert_eq(quarry_block_at_end(&old, count_call), 0);
	cr_assert_eq(quarry_arena_reset(arena), 0);
	new = block_at(64, old.p);
	set_generation(&new, old.generation + 0x10000);
	cr_assert_eq(quarry_block_unref(&new), 1);
	cr_assert_eq(atomic_load(&called), 0, "what was left behind was dropped at a beginning");
	new = block_at(64, old.p);
	cr_assert_eq(qy_count_set_end_fn(old.count, old.p, old.generation, count_call), 0, "late");
	cr_assert_eq(quarry_block_unref(&new), 1);
	cr_assert_eq(atomic_load(&called), 0);
	cr_assert_eq(quarry_arena_destroy(arena), 0);
}

/* A late beginner of a block elsewhere, whose word this was, takes nothing that is of the new one. */
Test(lives, a_function_is_taken_by_its_own)
{
	_Atomic(uint64_t) end = 0;

	qy_end_set(&end, 7, count_end);
	cr_assert_null(qy_end_take(&end, 6));
	qy_end_drop(&end, 7);
	cr_assert(qy_end_is(atomic_load(&end), 7) && qy_end_is(atomic_load(&end), 0x10007) && !qy_end_is(atomic_load(&end), 9));
	qy_end_keep(&end, 6);
	qy_end_keep(&end, 7);
	cr_assert_null(qy_end_take(&end, 7));
	cr_assert_eq(qy_end_take(&end, 8), count_end);
	cr_assert_null(qy_end_take(&end, 8));
	qy_end_set(&end, 0xffff, count_end);
	qy_end_keep(&end, 0xffff);
	cr_assert(qy_end_is(atomic_load(&end), 0x10000));
	qy_end_drop(&end, 0x10001);
	cr_assert_eq(atomic_load(&end), 0);
	cr_assert(!qy_end_is(0, 0));
	cr_assert(qy_end_set(&end, 0xfffe, count_end));
	cr_assert(qy_end_set(&end, 0x10002, count_end) && qy_end_is(atomic_load(&end), 0x10002), "what is left of an old one");
	cr_assert(!qy_end_set(&end, 0xfffe, count_end) && !qy_end_set(&end, 0x10001, NULL), "late");
	cr_assert(qy_end_is(atomic_load(&end), 0x10002));
	cr_assert(qy_end_set(&end, 0x10002, NULL) && atomic_load(&end) == 0);
}

static quarry_block contested;
static _Atomic(unsigned) begun, over, set_so_far;

/* Takes a reference, has a function called at the end, and lets go: so that the word is as it was. */
static void *set_functions(void *arg)
{
	quarry_block mine;

	(void)arg;
	for (unsigned i = 1;; i++) {
		while (atomic_load(&begun) < i)
			;
		if (atomic_load(&over))
			return NULL;
		if (quarry_weak_lock(quarry_weak_of(&contested), &mine) == 0) {
			cr_assert_eq(quarry_block_at_end(&mine, count_call), 0);
			cr_assert_eq(quarry_block_unref(&mine), 0);
			atomic_store(&set_so_far, i);
		}
		atomic_fetch_add(&at_round, 1);
	}
}

/* Whoever resizes finds it, however late it came: what moves has none, and what stays keeps it. */
Test(lives, a_function_is_set_while_it_is_resized, .timeout = 120)
{
	unsigned moved = 0, stayed = 0, refusals = 0;
	pthread_t thread;

	atomic_store(&at_round, 0);
	cr_assert_eq(pthread_create(&thread, NULL, set_functions, NULL), 0);
	for (unsigned i = 1; i <= 4 * ROUNDS; i++) {
		bool moves = i % 2;
		quarry_block b = contested = quarry_block_alloc(NULL, moves ? 48 : 33);
		int r;

		atomic_store(&called, 0);
		atomic_store(&begun, i);
		for (volatile unsigned k = i * 7 % 150; k > 0; k--)
			;
		r = quarry_block_resize(&b, moves ? 2000 : 40, 0);
		cr_assert(r == 0 || errno == EBUSY);
		while (atomic_load(&at_round) < i)
			sched_yield();
		cr_assert(quarry_block_live(&b));
		if (moves && r == 0)
			cr_assert_neq(atomic_load(&set_so_far), i, "round %u: it moved without its function", i);
		*(r != 0 ? &refusals : moves ? &moved : &stayed) += 1;
		cr_assert_eq(quarry_block_unref(&b), 1);
		cr_assert_eq(atomic_load(&called), atomic_load(&set_so_far) == i, "round %u: called %u times", i,
			     atomic_load(&called));
	}
	atomic_store(&over, 1);
	atomic_store(&begun, UINT32_MAX);
	pthread_join(thread, NULL);
	cr_assert(moved > 0 && stayed > 0 && refusals > 0, "%u, %u, %u", moved, stayed, refusals);
}
