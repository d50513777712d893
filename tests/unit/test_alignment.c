/* SPDX-License-Identifier: MIT */
/* Alignment, from 16 bytes to 2 MiB, of all that takes one, in all sizes; and what is given without one is aligned to 16. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "include/quarry/buffers.h"
#include "include/quarry/pages.h"
#include "include/quarry/pool.h"
#include "include/quarry/stack.h"

#define MIB ((size_t)1 << 20)
#define ALIGNMENT_MAX (2 * MIB)
#define EACH 6 /* of each size: one may be aligned by chance */

static const size_t sizes[] = { 1, 15, 100, 4096, 40000, 3 * MIB };

static bool is_aligned(const void *p, size_t alignment)
{
	return p != NULL && (uintptr_t)p % alignment == 0;
}

/* What is allocated by one way, written to its last byte, and freed again when all are there. */
static void each(size_t alignment, void *(*take)(size_t alignment, size_t n), void (*give)(void *))
{
	for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
		void *p[EACH];

		for (int i = 0; i < EACH; i++) {
			p[i] = take(alignment, sizes[s]);
			cr_assert(is_aligned(p[i], alignment), "%p, %zu bytes at %zu", p[i], sizes[s], alignment);
			memset(p[i], 'x', sizes[s]);
		}
		for (int i = 0; i < EACH; i++)
			give(p[i]);
	}
}

static void *by_posix(size_t alignment, size_t n)
{
	void *p = NULL;

	cr_assert_eq(quarry_posix_memalign(&p, alignment, n), 0);
	return p;
}

static quarry_arena *arena;
static quarry_manager *manager;
static quarry_stack *stack;

static void *in_arena(size_t alignment, size_t n)
{
	return quarry_arena_aligned_alloc(arena, alignment, n);
}

static void *by_manager(size_t alignment, size_t n)
{
	return quarry_manager_alloc_aligned(manager, alignment, n);
}

static void free_by_manager(void *p)
{
	cr_assert_eq(quarry_manager_free(manager, p), 0);
}

static void *as_block(size_t alignment, size_t n)
{
	return quarry_block_alloc_aligned(NULL, alignment, n).p;
}

static void let_go(void *p)
{
	cr_assert_geq(quarry_unref(p), 0);
}

static void *on_stack(size_t alignment, size_t n)
{
	return quarry_stack_alloc_aligned(stack, alignment, n);
}

static void stays(void *p)
{
	(void)p;
}

Test(alignment, of_all_that_take_one)
{
	arena = quarry_arena_create(NULL);
	manager = quarry_manager_of_arena(arena);
	cr_assert(arena != NULL && manager != NULL);
	for (size_t alignment = 16; alignment <= ALIGNMENT_MAX; alignment *= 2) {
		each(alignment, quarry_aligned_alloc, quarry_free);
		each(alignment, by_posix, quarry_free);
		each(alignment, in_arena, quarry_free);
		each(alignment, by_manager, free_by_manager);
		each(alignment, as_block, let_go);
		stack = quarry_stack_create(NULL);
		each(alignment, on_stack, stays);
		quarry_stack_destroy(stack);
	}
	cr_assert_eq(quarry_arena_destroy(arena), 0);
}

Test(alignment, of_pools_buffers_and_pages)
{
	for (size_t alignment = 64; alignment <= ALIGNMENT_MAX; alignment *= 2) {
		quarry_pool_attr of_pool = { .struct_size = sizeof(of_pool), .size = 100, .alignment = alignment };
		quarry_buffers_attr of_buffers = { .struct_size = sizeof(of_buffers), .size = 100, .count = EACH,
						   .alignment = (uint32_t)alignment };
		quarry_pages_attr of_pages = { .count = 4096 };
		quarry_pool *pool = quarry_pool_create(&of_pool);
		quarry_buffers *slab = quarry_buffers_create(&of_buffers);
		quarry_pages *pages = quarry_pages_create(&of_pages);
		void *object[EACH];

		cr_assert(pool != NULL && slab != NULL && pages != NULL);
		for (int i = 0; i < EACH; i++) {
			object[i] = quarry_pool_get(pool);
			cr_assert(is_aligned(object[i], alignment), "an object of a pool at %zu", alignment);
			cr_assert(is_aligned(quarry_buffers_at(slab, (uint32_t)i), alignment), "a buffer at %zu", alignment);
			cr_assert(is_aligned(quarry_pages_alloc_aligned(pages, 3, alignment), alignment), "pages at %zu",
				  alignment);
		}
		cr_assert_eq(quarry_pool_put_bulk(pool, object, EACH, QUARRY_POOL_SAFE), EACH);
		cr_assert_eq(quarry_pool_destroy(pool, 0), 0);
		cr_assert_eq(quarry_buffers_destroy(slab), 0);
		cr_assert_eq(quarry_pages_destroy(pages), 0);
	}
}

Test(alignment, of_what_has_none)
{
	for (size_t n = 1; n < 5000; n = n * 5 / 4 + 1) {
		void *p = quarry_malloc(n), *on = quarry_stack_alloc(quarry_scratch(), n);
		quarry_block b = quarry_block_alloc(NULL, n);

		cr_expect(is_aligned(p, n < 16 ? 8u : 16u), "%zu bytes", n);
		cr_expect(is_aligned(on, 16) && is_aligned(b.p, n < 16 ? 8u : 16u), "%zu bytes", n);
		quarry_free(p);
		quarry_block_unref(&b);
	}
}

Test(alignment, that_is_none_is_refused)
{
	static const size_t none[] = { 0, 3, 24, 4095 };

	for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
		errno = 0;
		cr_expect(quarry_aligned_alloc(none[i], 100) == NULL && errno == EINVAL, "%zu", none[i]);
		errno = 0;
		cr_expect(quarry_block_alloc_aligned(NULL, none[i], 100).p == NULL && errno == EINVAL, "%zu", none[i]);
		errno = 0;
		cr_expect(quarry_manager_alloc_aligned(NULL, none[i], 100) == NULL && errno == EINVAL, "%zu", none[i]);
	}
}
