/* SPDX-License-Identifier: MIT */
/* The hard limits of the process and of arenas, on a machine that the test plays: nothing beyond them is had, and
 * nothing that fits is refused. What is told of them: test_events.c. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <sched.h>

#include "tests/unit/eight_threads.h"
#include "tests/unit/limits.h"

Test(hard_limit, the_processs_hard_limit_is_exact)
{
	quarry_health_report r = { .struct_size = sizeof(r) };
	uint64_t before, refused;
	void *p[64];

	begin();
	cr_assert_not_null(quarry_malloc(100)); /* (an empty slab would serve, too) */
	before = sum_used();
	refused = qy_read(&qy_refused[QUARRY_REFUSED_LIMIT]);
	set_bytes("hard_limit", before + 64 * MIB);
	for (int i = 0; i < 64; i++)
		cr_assert_not_null(p[i] = quarry_malloc(MIB), "block %d", i);
	cr_assert_eq(qy_quota_used(), before + 64 * MIB);
	cr_assert_eq(sum_used(), before + 64 * MIB);
	errno = 0;
	cr_assert_null(quarry_malloc(40 * KIB));
	cr_assert_eq(errno, ENOMEM);
	cr_assert_gt(qy_read(&qy_refused[QUARRY_REFUSED_LIMIT]), refused);
	cr_assert_null(quarry_realloc(p[0], 2 * MIB));
	cr_assert_null(quarry_aligned_alloc(4096, 40 * KIB));
	cr_assert_eq(quarry_health(&r), 0);
	cr_assert_eq(r.limit_kind, QUARRY_LIMIT_PROCESS);
	cr_assert_eq(r.limit_per_mille, 1000);
	cr_assert_gt(r.denied_process, 0);
	cr_assert(r.reasons & QUARRY_HEALTH_DENIED);
	quarry_free(p[63]);
	cr_assert_not_null(p[63] = quarry_malloc(MIB));
	/* Lowered under what is in use, it only stops new ones. */
	set_bytes("hard_limit", before + 10 * MIB);
	for (int i = 0; i < 53; i++) {
		cr_assert_null(quarry_malloc(MIB), "%d freed", i);
		quarry_free(p[i]);
	}
	quarry_free(p[53]);
	cr_assert_null(quarry_malloc(MIB));
	quarry_free(p[54]);
	cr_assert_not_null(p[54] = quarry_malloc(MIB));
	set_bytes("hard_limit", 0);
	cr_assert_not_null(quarry_malloc(100 * MIB));
}

/* A block that moves by page tables takes no second budget while it does: what it grows by is charged, and all of the
 * account is right when it shrinks, when the move fails, and when it is gone. */
Test(hard_limit, a_block_that_moves_is_charged_once)
{
	uint64_t before;
	char *p, *q, *behind, *filled[20];

	begin();
	cr_assert_not_null(quarry_malloc(100));
	before = sum_used();
	cr_assert_not_null(p = quarry_malloc(40 * MIB));
	cr_assert_not_null(behind = quarry_malloc(4 * MIB));
	p[40 * MIB - 1] = 42;
	set_bytes("hard_limit", before + 60 * MIB);
	fake_os_forget_calls();
	cr_assert_null(quarry_realloc(p, 56 * MIB + 1), "it is a byte too much");
	cr_assert_eq(qy_quota_used(), before + 44 * MIB, "%" PRIu64, qy_quota_used() - before);
	cr_assert_not_null(q = quarry_realloc(p, 56 * MIB));
	cr_assert_neq(q, p, "it has moved");
	cr_assert_gt(fake_os_calls(FAKE_MREMAP), 0);
	cr_assert_eq(q[40 * MIB - 1], 42);
	cr_assert_eq(qy_quota_used(), before + 60 * MIB);
	cr_assert_eq(sum_used(), before + 60 * MIB);
	cr_assert_not_null(p = quarry_realloc(q, 20 * MIB));
	cr_assert_eq(qy_quota_used(), before + 24 * MIB);
	cr_assert_eq(sum_used(), before + 24 * MIB);
	/* By a copy as well. */
	cr_assert_not_null(q = quarry_malloc(16 * MIB));
	memset(q, 43, 16 * MIB);
	for (int i = 0; i < 20; i++)
		cr_assert_not_null(filled[i] = quarry_malloc(MIB));
	for (int i = 0; i < 20; i += 2)
		quarry_free(filled[i]);
	fake_os_fail_from(FAKE_MREMAP, 1, ENOMEM);
	cr_assert_null(quarry_realloc(q, 26 * MIB + 1));
	cr_assert_eq(qy_quota_used(), before + 50 * MIB);
	cr_assert_not_null(q = quarry_realloc(q, 26 * MIB));
	for (size_t i = 0; i < 16 * MIB; i++)
		cr_assert_eq(q[i], 43);
	cr_assert_eq(qy_quota_used(), before + 60 * MIB);
	fake_os_heal();
	for (int i = 1; i < 20; i += 2)
		quarry_free(filled[i]);
	quarry_free(p);
	quarry_free(q);
	quarry_free(behind);
	cr_assert_eq(qy_quota_used(), before);
	cr_assert_eq(sum_used(), before);
}

/* Blocks of pages, of frames, and of arenas that cannot be moved by page tables: each grows to the last byte of the
 * limit. */
Test(hard_limit, all_that_fits_grows)
{
	static const size_t from[] = { 40 * KIB, 300 * KIB, 1900 * KIB, 2100 * KIB, 9 * MIB };
	quarry_arena_attr plain = { .hard_limit = 64 * MIB }, locked = { .hard_limit = 64 * MIB, .flags = QUARRY_ARENA_LOCKED };

	begin();
	for (unsigned kind = 0; kind < 2; kind++)
		for (unsigned i = 0; i < sizeof(from) / sizeof(from[0]); i++) {
			quarry_arena *a = quarry_arena_create(kind ? &locked : &plain);
			quarry_stats now = { .version = QUARRY_STATS_VERSION };
			char *p, *wall, *rest;

			cr_assert_not_null(p = quarry_arena_malloc(a, from[i]));
			memset(p, 42, from[i]);
			cr_assert_not_null(wall = quarry_arena_malloc(a, 40 * KIB));
			cr_assert_not_null(rest = quarry_arena_malloc(a, 50 * MIB));
			cr_assert_eq(quarry_stats_get(a, &now), 0);
			p = quarry_arena_realloc(a, p, quarry_usable_size(p) + (64 * MIB - now.in_use));
			cr_assert_not_null(p, "from %zu, kind %u", from[i], kind);
			cr_assert_eq(quarry_stats_get(a, &now), 0);
			cr_assert_eq(now.in_use, 64 * MIB);
			for (size_t k = 0; k < from[i]; k++)
				cr_assert_eq(p[k], 42);
			quarry_free(p);
			quarry_free(wall);
			quarry_free(rest);
			cr_assert_eq(quarry_stats_get(a, &now), 0);
			cr_assert_eq(now.in_use, 0);
			cr_assert_eq(quarry_arena_destroy(a), 0);
		}
}

/* Who is at the limit and makes a block smaller gets the room, and no refusal is told of. */
Test(hard_limit, shrinking_makes_room)
{
	static const size_t to[] = { 1500000, 858736, 350000, 40000, 3000, 100 };
	quarry_arena_attr attr = { .hard_limit = 64 * MIB };
	quarry_health_report r = { .struct_size = sizeof(r) };
	quarry_arena *ended;

	begin();
	cr_assert_not_null(ended = quarry_arena_create(&attr));
	cr_assert_eq(quarry_arena_destroy(ended), 0);
	for (unsigned i = 0; i < sizeof(to) / sizeof(to[0]); i++) {
		quarry_arena *a = quarry_arena_create(&attr);
		char *p = quarry_arena_malloc(a, 64 * MIB);

		cr_assert_not_null(p);
		memset(p, 42, 2 * MIB);
		cr_assert_not_null(p = quarry_arena_realloc(a, p, to[i]));
		/* Nor by the next request that fails, for another reason. */
		cr_assert_null(quarry_arena_malloc(ended, 10));
		cr_assert_eq(errno, EINVAL);
		cr_assert_leq(quarry_usable_size(p), qy_max(to[i] + 4 * KIB, 40 * KIB));
		for (size_t k = 0; k < to[i]; k++)
			cr_assert_eq(p[k], 42);
		cr_assert_not_null(quarry_arena_malloc(a, 62 * MIB));
		cr_assert_eq(quarry_health(&r), 0);
		cr_assert_eq(r.denied_arenas, 0);
		expect_no_event();
		cr_assert_eq(quarry_arena_destroy(a), 0);
	}
}

/* What one arena does not use, another gets: nobody's quantum is lost. */
Test(hard_limit, what_is_in_other_hands_is_taken_back)
{
	quarry_arena *a[20];
	uint64_t before;
	void *p;

	begin();
	cr_assert_not_null(quarry_malloc(100));
	for (int i = 0; i < 20; i++) {
		quarry_arena_attr attr = { .policy = i % 2 ? QUARRY_POLICY_LOCAL : QUARRY_POLICY_INTERLEAVE };

		a[i] = quarry_arena_create(&attr);
		cr_assert_not_null(a[i]);
		quarry_free(quarry_arena_malloc(a[i], 3 * MIB));
	}
	before = sum_used();
	cr_assert_eq(qy_quota_used(), before);
	cr_assert_gt(qy_quota_taken(), before + 20 * MIB, "they have quanta in hand");
	set_bytes("hard_limit", before + 5 * MIB);
	p = quarry_arena_malloc(a[3], 5 * MIB);
	cr_assert_not_null(p);
	cr_assert_eq(qy_quota_taken(), before + 5 * MIB);
	cr_assert_null(quarry_arena_malloc(a[4], 40 * KIB));
	quarry_free(p);
	cr_assert_not_null(quarry_arena_malloc(a[4], 5 * MIB));
	set_bytes("hard_limit", 0);
	/* An arena that ends gives all of it back, used or in hand. */
	before = sum_used() - 5 * MIB;
	for (int i = 0; i < 20; i++)
		cr_assert_eq(quarry_arena_destroy(a[i]), 0);
	cr_assert_leq(qy_quota_used(), before);
	cr_assert_eq(qy_quota_used(), sum_used());
	cr_assert_leq(qy_quota_taken(), before + 2 * QY_QUOTA_MOST);
}

#define BLOCK (256 * KIB)

static uint64_t limit_now;
static unsigned share;

static uint64_t next_random(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

/* All have their share at the same time, again and again; the shares are all that the limit allows. */
static void *take_shares(void *arg)
{
	quarry_arena *arena = arg;
	void *p[64];

	for (int round = 0; round < 200; round++) {
		pthread_barrier_wait(&barrier);
		for (unsigned i = 0; i < share; i++) {
			p[i] = quarry_arena_malloc(arena, BLOCK);
			denied += p[i] == NULL;
		}
		pthread_barrier_wait(&barrier);
		beyond += qy_quota_used() > limit_now || sum_used() > limit_now;
		pthread_barrier_wait(&barrier);
		for (unsigned i = 0; i < share; i++)
			quarry_free(p[i]);
	}
	return NULL;
}

static _Atomic(uint64_t) wanted;

static size_t random_size(uint64_t *random)
{
	return next_random(random) % (next_random(random) % 8 ? 3000 : MIB);
}

/* Whatever is asked for, the limit holds at every moment. First all take as much as they will ever have at once, and
 * only then does anybody free: one that is done before the next has begun would never come to the limit. */
static void *take_at_random(void *arg)
{
	uint64_t random = 20251121 + (uintptr_t)arg;
	void *p[64];

	for (int i = 0; i < 64; i++) {
		size_t size = random_size(&random);

		wanted += size;
		p[i] = quarry_malloc(size);
		denied += p[i] == NULL;
	}
	pthread_barrier_wait(&barrier);
	for (int i = 0; i < 20000; i++) {
		unsigned at = next_random(&random) % 64;
		size_t size = random_size(&random);

		quarry_free(p[at]);
		p[at] = quarry_malloc(size);
		denied += p[at] == NULL;
		beyond += qy_quota_taken() > limit_now;
	}
	for (int i = 0; i < 64; i++)
		quarry_free(p[i]);
	quarry_thread_flush();
	return NULL;
}

Test(hard_limit, exact_under_eight_threads, .timeout = 120)
{
	void *arenas[THREADS] = { NULL };
	uint64_t before;

	begin();
	share = 16;
	limit_now = UINT64_MAX;
	arenas[0] = quarry_arena_create(NULL);
	for (int i = 1; i < THREADS; i++)
		arenas[i] = i < 5 ? quarry_arena_create(NULL) : arenas[0];
	run(take_shares, arenas); /* everybody is known, and has what it needs besides */
	cr_assert_eq(denied, 0);
	before = qy_quota_used();
	cr_assert_eq(before, sum_used());
	limit_now = before + THREADS * share * BLOCK;
	set_bytes("hard_limit", limit_now);
	run(take_shares, arenas);
	cr_assert_eq(denied, 0, "%u requests that fit were refused", denied);
	cr_assert_eq(beyond, 0, "%u times beyond the limit", beyond);
	cr_assert_eq(qy_quota_used(), sum_used());
	/* One block less, and somebody is refused. */
	limit_now = before + THREADS * share * BLOCK - 1;
	set_bytes("hard_limit", limit_now);
	run(take_shares, arenas);
	cr_assert_geq(denied, 200, "%u", denied);
	cr_assert_eq(beyond, 0);
}

Test(hard_limit, held_at_every_moment_under_eight_threads, .timeout = 120)
{
	void *numbers[THREADS];

	begin();
	for (uintptr_t i = 0; i < THREADS; i++)
		numbers[i] = (void *)i;
	quarry_free(quarry_malloc(1));
	limit_now = sum_used() + 24 * MIB;
	set_bytes("hard_limit", limit_now);
	run(take_at_random, numbers);
	fprintf(stderr, "test_hard_limit: %u of %d requests refused\n", denied, THREADS * 20064);
	cr_assert_gt(wanted, 24 * MIB, "they want more than there is");
	cr_assert_gt(denied, 0);
	cr_assert_eq(beyond, 0, "%u times beyond the limit", beyond);
	/* (Two figures, read one after the other: the reclaimer may be putting a slab back. What is wrong stays so.) */
	for (int tries = 0; tries < 10000 && qy_quota_used() != sum_used(); tries++)
		sched_yield();
	cr_assert_eq(qy_quota_used(), sum_used());
}

static uint64_t denied_ever(void)
{
	quarry_health_report r = { .struct_size = sizeof(r) };

	cr_assert_eq(quarry_health(&r), 0);
	return r.denied_process + r.denied_arenas;
}

/* However often it was tried for, a request is refused once, or not at all. */
Test(hard_limit, a_request_counts_once)
{
	quarry_arena_attr attr = { .hard_limit = 8 * MIB };
	uint64_t ever, refused;
	quarry_arena *a;
	void *p, *q;

	begin();
	cr_assert_not_null(quarry_malloc(100));
	cr_assert_not_null(p = quarry_malloc(4 * MIB));
	cr_assert_not_null(a = quarry_arena_create(&attr));
	cr_assert_not_null(q = quarry_arena_malloc(a, 4 * MIB));
	set_bytes("hard_limit", sum_used() + 2 * MIB);
	ever = denied_ever();
	refused = qy_read(&qy_refused[QUARRY_REFUSED_LIMIT]);
	cr_assert_null(quarry_malloc(8 * MIB));
	cr_assert_eq(denied_ever(), ever + 1);
	expect_event(QUARRY_EVENT_HARD_LIMIT, 1, 0);
	cr_assert_eq(heard[0].count, 1);
	cr_assert_null(quarry_realloc(p, 40 * MIB));
	cr_assert_eq(denied_ever(), ever + 2);
	cr_assert_null(quarry_arena_realloc(a, q, 7 * MIB), "the process's limit");
	cr_assert_eq(denied_ever(), ever + 3);
	set_bytes("hard_limit", 0);
	cr_assert_null(quarry_arena_realloc(a, q, 9 * MIB), "the arena's");
	cr_assert_eq(denied_ever(), ever + 4);
	cr_assert_eq(qy_read(&qy_refused[QUARRY_REFUSED_LIMIT]), refused + 4);
}

/* What is free and in others' hands is found at the second try: nothing was refused. */
Test(hard_limit, a_request_that_is_served_does_not_count)
{
	static void *mail[64];
	uint64_t ever;

	begin();
	for (int i = 0; i < 64; i++)
		cr_assert_not_null(mail[i] = quarry_malloc(1000));
	for (int i = 0; i < 64; i++)
		quarry_free(mail[i]); /* the thread keeps some in its list, and the slab for these */
	ever = denied_ever();
	set_bytes("hard_limit", sum_used());
	cr_assert_not_null(quarry_malloc(40 * KIB));
	cr_assert_eq(denied_ever(), ever);
	expect_no_event();
}

/* The first is told at once, those that follow once a second. */
Test(hard_limit, denials_are_told_as_a_series)
{
	quarry_arena_attr attr = { .hard_limit = 10 * MIB };
	quarry_arena *a;

	begin();
	a = quarry_arena_create(&attr);
	cr_assert_null(quarry_arena_malloc(a, 11 * MIB));
	cr_assert_eq(heard_count, 1, "it is told by the call that is refused");
	cr_assert_eq(heard[0].kind, QUARRY_EVENT_HARD_LIMIT);
	cr_assert_eq(heard[0].arena, a);
	cr_assert_eq(heard[0].count, 1);
	cr_assert_eq(heard[0].bytes, 11 * MIB);
	cr_assert_eq(heard[0].limit, 10 * MIB);
	heard_count = 0;
	for (int i = 0; i < 50; i++)
		cr_assert_null(quarry_arena_malloc(a, 12 * MIB));
	cr_assert(tick_after(500), "something is to be told later");
	expect_no_event();
	/* The limit that they hit is told, be it another by then, or none. */
	cr_assert_eq(quarry_arena_set_limits(a, 0, 0), 0);
	tick_after(500);
	expect_event(QUARRY_EVENT_HARD_LIMIT, 1, 0);
	cr_assert_eq(heard[0].count, 50, "%" PRIu64, heard[0].count);
	cr_assert_eq(heard[0].bytes, 12 * MIB);
	cr_assert_eq(heard[0].limit, 10 * MIB);
	cr_assert_eq(quarry_arena_set_limits(a, 10 * MIB, 0), 0);
	tick_after(5000);
	expect_no_event();
	cr_assert_null(quarry_arena_malloc(a, 11 * MIB));
	cr_assert_eq(heard_count, 1);
}
