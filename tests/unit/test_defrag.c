/* SPDX-License-Identifier: MIT */
/* Defragmentation of malloc'ed memory that the library does for the program: what moves, that contents and references are
 * right, that memory comes back, that the budget and the share of a processor are kept. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "include/quarry/quarry.h"
#include "numa/os.h"

#define N 100000
#define SIZE 200

static struct qy_os mine;
static uint64_t now_ns = 1000000000, step_ns;

static uint64_t clock_of_test(void)
{
	return now_ns += step_ns;
}

static __attribute__((constructor(101))) void set_up(void)
{
	setenv("QUARRY_OPTIONS", "reclaim=off", 1);
	mine = *qy_os;
	mine.now_ns = clock_of_test;
	qy_os = &mine;
}

static void *object[N];
static void **refs[N];
static size_t count;

/* Of each `keep` objects one stays; of each -keep, all but one. */
static void fill(quarry_arena *arena, int keep)
{
	count = 0;
	for (int i = 0; i < N; i++) {
		object[i] = quarry_arena_malloc(arena, SIZE);
		cr_assert_not_null(object[i]);
		memset(object[i], i, SIZE);
	}
	for (int i = 0; i < N; i++)
		if (keep > 0 ? i % keep != 0 : i % -keep == 0) {
			quarry_free(object[i]);
			object[i] = NULL;
		} else {
			refs[count++] = &object[i];
		}
	quarry_thread_flush();
}

static void check(void)
{
	for (int i = 0; i < N; i++)
		for (int k = 0; object[i] != NULL && k < SIZE; k++)
			cr_assert_eq(((unsigned char *)object[i])[k], (unsigned char)i);
}

/* Calls until nothing is moved any more; without rests. */
static size_t run(quarry_defrag *d)
{
	size_t all = 0, next = 0;

	for (int calls = 0; calls < 400; calls++) {
		long moved;

		now_ns = d->not_before;
		moved = quarry_defrag_run(d, &refs[next], count - next, 0);
		cr_assert_geq(moved, 0, "%s", quarry_error_text());
		all += (size_t)moved;
		next = (next + d->done) % count;
	}
	return all;
}

Test(defrag, memory_comes_back)
{
	quarry_arena *arena = quarry_arena_create(&(quarry_arena_attr){ .name = "a" });
	quarry_stats before = { .version = QUARRY_STATS_VERSION }, after = before;
	quarry_defrag d = { .arena = arena };
	size_t moved;

	fill(arena, 10);
	quarry_stats_get(arena, &before);
	moved = run(&d);
	quarry_thread_flush();
	quarry_stats_get(arena, &after);
	check();
	cr_assert(moved > count / 2 && d.moved == moved && d.moved_bytes >= moved * SIZE, "%zu of %zu", moved, count);
	cr_assert_lt(after.in_use, before.in_use, "%lu, %lu", before.in_use, after.in_use);
	cr_assert_lt(after.mapped - after.free_clean - after.free_dirty, N * SIZE / 4);
	cr_assert_eq(d.share, 0, "nothing is left to gain: %lu of %lu", d.gain, d.in_use);
	for (size_t i = 0; i < count; i++)
		cr_assert_eq(quarry_arena_of(*refs[i]), arena);
	quarry_arena_destroy(arena);
}

Test(defrag, dense_memory_is_left_alone)
{
	quarry_arena *arena = quarry_arena_create(NULL);
	quarry_defrag d = { .arena = arena };

	fill(arena, 1);
	cr_assert_eq(run(&d), 0);
	cr_assert_eq(d.share, 0);
	cr_assert_eq(d.wait_us, 100000);
	cr_assert(quarry_defrag_run(&d, refs, count, 0) == -1 && errno == EAGAIN);
	cr_assert_null(quarry_move_dense(object[0]));
	cr_assert_null(quarry_move_dense(NULL));
	quarry_arena_destroy(arena);
}

/* By the waste: a run of a millisecond is followed by a rest that makes it the share. */
Test(defrag, the_share_follows_the_gain)
{
	static const struct { int keep; uint64_t least, most; } cases[] = { { 20, 25, 25 }, { -4, 2, 12 } };

	for (int i = 0; i < 2; i++) {
		quarry_arena *arena = quarry_arena_create(NULL);
		quarry_defrag d = { .arena = arena };
		uint64_t began, ran;

		step_ns = 0;
		fill(arena, cases[i].keep);
		for (int looks = 0; looks < 100; looks++) { /* until one is whole that knows nothing of the arena before */
			cr_assert_geq(quarry_defrag_run(&d, refs, 64, 0), 0);
			now_ns = d.not_before;
		}
		step_ns = 100000;
		began = now_ns;
		ran = d.ran_ns;
		cr_assert_geq(quarry_defrag_run(&d, refs + 64, 640, 1000), 0);
		ran = d.ran_ns - ran;
		cr_assert(d.share >= cases[i].least && d.share <= cases[i].most, "%d: %lu: %lu of %lu", i, d.share, d.gain, d.in_use);
		cr_assert_eq(d.not_before - (began + step_ns + ran), ran * (100 - d.share) / d.share);
		cr_assert(quarry_defrag_run(&d, refs, 64, 0) == -1 && errno == EAGAIN && d.wait_us > 1000 && d.done == 0);
		step_ns = 0;
		quarry_arena_destroy(arena);
	}
}

/* Each look at the clock is a tenth of a millisecond: of a budget of one there are about ten. */
Test(defrag, a_budget_ends_it_and_the_next_goes_on)
{
	quarry_arena *arena = quarry_arena_create(NULL);
	quarry_defrag d = { .arena = arena };
	size_t next;

	fill(arena, 10);
	cr_assert_geq(quarry_defrag_run(&d, refs, 64, 0), 0);
	next = d.done;
	for (int calls = 0; calls < 5; calls++) {
		uint64_t moved = d.moved;

		now_ns = d.not_before;
		step_ns = 100000;
		cr_assert_geq(quarry_defrag_run(&d, refs + next, count - next, 1000), 0);
		step_ns = 0;
		cr_assert(d.done > 0 && d.done < 12 * 64, "%lu", d.done);
		cr_assert_leq(d.moved - moved, 12 * 8);
		next += d.done;
	}
	check();
	quarry_arena_destroy(arena);
}

Test(defrag, one_by_one)
{
	quarry_arena *arena = quarry_arena_create(NULL);
	size_t moved = 0;

	fill(arena, 10);
	for (int round = 0; round < 3; round++)
		for (size_t i = 0; i < count; i++) {
			void *to;

			errno = 4711;
			to = quarry_move_dense(*refs[i]);
			cr_assert_eq(errno, 4711);
			if (to != NULL)
				*refs[i] = to;
			moved += to != NULL;
		}
	check();
	cr_assert_gt(moved, count / 2);
	quarry_arena_destroy(arena);
}

Test(defrag, mistakes)
{
	static const quarry_defrag bad[] = { { .struct_size = 4 }, { .flags = 1 }, { .least = 30 }, { .most = 101 },
					     { .start = 100 }, { .full = 9 } };
	quarry_defrag d = { 0 };
	quarry_move_gain g;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		d = bad[i];
		cr_assert(quarry_defrag_run(&d, refs, 0, 0) == -1 && errno == EINVAL, "%zu", i);
	}
	d = (quarry_defrag){ 0 };
	cr_assert(quarry_defrag_run(NULL, refs, 0, 0) == -1 && errno == EINVAL);
	cr_assert(quarry_defrag_run(&d, NULL, 1, 0) == -1 && errno == EINVAL);
	cr_assert(quarry_move_gain_get(NULL, NULL) == -1 && errno == EINVAL);
	cr_assert(quarry_move_gain_get((quarry_arena *)&d, &g) == -1 && errno == EINVAL);
	cr_assert(quarry_move_gain_get(NULL, &g) == 0);
	refs[0] = NULL;
	refs[1] = &object[0];
	cr_assert_eq(quarry_defrag_run(&d, refs, 2, 0), 0);
}
