/* SPDX-License-Identifier: MIT */
/* Buffers and blocks in chains: they go back when the last chain lets go, once, and where something fails they stay the
 * caller's. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "include/quarry/block.h"
#include "include/quarry/buffers.h"
#include "include/quarry/chain.h"

#define COUNT 16u
#define SIZE 256u

#define expect_error(call, error) \
	do { \
		errno = 0; \
		cr_expect((call) == -1 && errno == (error), "%s: errno %d", #call, errno); \
	} while (0)

static quarry_buffers *slab;

static uint32_t out(void)
{
	quarry_buffers_stats stats = { .struct_size = sizeof stats };

	cr_assert_geq(quarry_buffers_collect(slab), 0);
	cr_assert_eq(quarry_buffers_stats_get(slab, &stats), 0);
	return stats.out;
}

static void make(void)
{
	quarry_buffers_attr attr = { .struct_size = sizeof attr, .size = SIZE, .count = COUNT };

	slab = quarry_buffers_create(&attr);
	cr_assert_not_null(slab, "%s", quarry_error_text());
}

static void end(void)
{
	cr_assert_eq(out(), 0);
	cr_assert_eq(quarry_buffers_destroy(slab), 0);
}

/* One with its number in it. */
static quarry_buffer get(unsigned number)
{
	quarry_buffer b;

	cr_assert_eq(quarry_buffers_get(slab, &b), 0);
	memset(b.p, (int)number, SIZE);
	return b;
}

static void *free_chain(void *chain)
{
	quarry_chain_free(chain);
	return NULL;
}

Test(chain_buffers, the_last_chain_brings_a_buffer_back, .init = make, .fini = end)
{
	quarry_chain a = { 0 }, b = { 0 }, c = { 0 };
	quarry_buffer got[3];
	pthread_t thread;
	unsigned char bytes[3 * SIZE];

	for (unsigned i = 0; i < 3; i++)
		got[i] = get(i + 1);
	cr_assert_eq(quarry_chain_from_buffers(&a, got, 3), 0);
	cr_assert(a.len == 3 * SIZE && a.segs == 3);
	cr_assert_eq(quarry_chain_split(&a, SIZE + 100, &b), 0); /* the second in both */
	cr_assert_eq(quarry_chain_clone(&b, 0, QUARRY_CHAIN_ALL, &c), 0);
	cr_assert_eq(out(), 3);
	quarry_chain_free(&a);
	cr_assert_eq(out(), 2, "the first alone is back");
	quarry_chain_free(&b);
	cr_assert_eq(out(), 2);
	cr_assert_eq(quarry_chain_copy_out(&c, 0, bytes, 2 * SIZE - 100), 0);
	for (unsigned i = 0; i < 2 * SIZE - 100; i++)
		cr_assert_eq(bytes[i], i < SIZE - 100 ? 2 : 3);
	cr_assert_eq(pthread_create(&thread, NULL, free_chain, &c), 0);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert_eq(out(), 0, "by another thread");
	expect_error(quarry_buffer_release(got[0]), EALREADY);
	expect_error(quarry_buffer_release(got[2]), EALREADY);
}

Test(chain_buffers, all_or_none, .init = make, .fini = end)
{
	quarry_chain a = { 0 };
	quarry_buffer got[5];

	cr_assert_eq(quarry_chain_append_copy(&a, "before", 6), 0);
	for (unsigned i = 0; i < 5; i++)
		got[i] = get(i);
	got[1].len = 0;
	cr_assert_eq(quarry_buffer_release(got[3]), 0);
	expect_error(quarry_chain_from_buffers(&a, got, 5), ESTALE);
	cr_assert_eq(quarry_chain_compare_bytes(&a, "before", 6), 0);
	cr_assert_eq(out(), 4, "all are the caller's");
	got[3] = got[4];
	cr_assert_eq(quarry_chain_from_buffers(&a, got, 4), 0);
	cr_assert(a.len == 6 + 3 * SIZE && a.segs == 4);
	cr_assert_eq(out(), 3, "the empty one is back");
	quarry_chain_free(&a);
	expect_error(quarry_chain_from_buffers(NULL, got, 1), EINVAL);
	expect_error(quarry_chain_from_buffers(&a, NULL, 1), EINVAL);
	cr_assert_eq(quarry_chain_from_buffers(&a, NULL, 0), 0);
}

Test(chain_buffers, late_ones_and_all_kinds, .init = make, .fini = end)
{
	quarry_chain a = { 0 };
	quarry_buffer b = get(7);
	quarry_stats stats = { .version = QUARRY_STATS_VERSION };
	quarry_arena *arena = quarry_arena_create(NULL);
	void *own = quarry_arena_malloc(arena, (size_t)1 << 20);

	cr_assert_not_null(memset(own, 9, 100));
	cr_assert_eq(quarry_buffer_release(b), 0);
	expect_error(quarry_chain_append_buffer(&a, b), ESTALE);
	expect_error(quarry_chain_append_buffer(NULL, b), EINVAL);
	cr_assert_eq(a.len, 0);
	b = get(8);
	cr_assert_eq(quarry_chain_append_buffer(&a, b), 0);
	cr_assert_eq(quarry_chain_append_buffer(&a, quarry_buffer_own(own, 100)), 0);
	cr_assert_eq(quarry_chain_append_buffer(&a, quarry_buffer_wrap((void *)(uintptr_t)"constant", 8)), 0);
	cr_assert_eq(a.len, SIZE + 108);
	quarry_chain_free(&a);
	cr_assert_eq(quarry_stats_get(arena, &stats), 0);
	cr_assert_eq(stats.in_use, 0, "it is freed");
	cr_assert_eq(quarry_arena_destroy(arena), 0);
	b = get(8);
	b.len = 0;
	cr_assert_eq(quarry_chain_append_buffer(&a, b), 0);
	cr_assert(a.len == 0 && out() == 0);
}

static void *release(void *buffer)
{
	return (void *)(intptr_t)(quarry_buffer_release(*(quarry_buffer *)buffer) == 0 ? 0 : errno);
}

static int released_elsewhere(quarry_buffer b)
{
	pthread_t thread;
	void *said;

	cr_assert_eq(pthread_create(&thread, NULL, release, &b), 0);
	cr_assert_eq(pthread_join(thread, &said), 0);
	errno = (int)(intptr_t)said;
	return errno == 0 ? 0 : -1;
}

static void make_checked(void)
{
	quarry_buffers_attr attr = { .struct_size = sizeof attr, .size = SIZE, .count = COUNT,
				     .flags = QUARRY_BUFFERS_CHECKED };

	slab = quarry_buffers_create(&attr);
	cr_assert_not_null(slab, "%s", quarry_error_text());
}

Test(chain_buffers, a_checked_slabs_are_in_one_chain, .init = make_checked, .fini = end)
{
	quarry_chain one = { 0 }, two = { 0 };
	quarry_buffer b[4], handle;

	for (unsigned life = 0; life < 3; life++) {
		for (unsigned i = 0; i < 4; i++)
			b[i] = get(i);
		cr_expect_eq(quarry_chain_append_buffer(&one, b[0]), 0);
		expect_error(quarry_chain_append_buffer(&one, b[0]), EALREADY);
		expect_error(quarry_chain_append_buffer(&two, b[0]), EALREADY);
		expect_error(quarry_chain_from_buffers(&two, (quarry_buffer[]){ b[1], b[0] }, 2), EALREADY);
		expect_error(quarry_chain_from_buffers(&two, (quarry_buffer[]){ b[1], b[2], b[1] }, 3), EALREADY);
		cr_expect_eq(two.len, 0);
		/* The chain is who releases it. */
		handle = b[0];
		expect_error(quarry_buffer_release(b[0]), EBUSY);
		expect_error(released_elsewhere(b[0]), EBUSY);
		expect_error(quarry_buffer_adopt(&handle, NULL, 0), EBUSY);
		cr_expect_eq(out(), 4);
		/* What failed left them free to be appended. */
		cr_expect_eq(quarry_chain_from_buffers(&two, b + 1, 3), 0);
		cr_expect_eq(out(), 4);
		quarry_chain_free(&one);
		cr_expect_eq(out(), 3);
		quarry_chain_free(&two);
		cr_expect_eq(out(), 0);
		expect_error(quarry_chain_append_buffer(&one, b[0]), ESTALE);
	}
}

Test(chain_buffers, a_block_lives_as_long_as_its_last_chain)
{
	quarry_block block = quarry_block_alloc(NULL, 1000), copy = block;
	quarry_chain a = { 0 }, b = { 0 };
	quarry_weak weak = quarry_weak_of(&block);
	unsigned char bytes[500];

	cr_assert_not_null(memset(block.p, 5, 1000));
	expect_error(quarry_chain_append_block(&a, &block, 600, 500), ERANGE);
	expect_error(quarry_chain_append_block(&a, &block, SIZE_MAX, 2), ERANGE);
	expect_error(quarry_chain_append_block(NULL, &block, 0, 1), EINVAL);
	cr_assert_eq(quarry_chain_append_block(&a, &block, 1000, 0), 0);
	cr_assert_eq(quarry_refcount(block.p), 1);
	cr_assert_eq(quarry_chain_append_block(&a, &block, 500, 500), 0);
	cr_assert_eq(quarry_chain_append_block(&a, &block, 0, 100), 0);
	cr_assert_eq(quarry_refcount(block.p), 3);
	cr_assert_eq(quarry_block_unref(&block), 0);
	cr_assert_eq(quarry_chain_clone(&a, 0, 400, &b), 0);
	quarry_chain_free(&a);
	cr_assert_eq(quarry_refcount(copy.p), 1);
	cr_assert_eq(quarry_chain_copy_out(&b, 0, bytes, 400), 0);
	cr_assert(bytes[0] == 5 && bytes[399] == 5);
	quarry_chain_free(&b);
	expect_error(quarry_weak_lock(weak, &block), ESTALE);
	expect_error(quarry_chain_append_block(&a, &copy, 0, 1), ESTALE);
}
