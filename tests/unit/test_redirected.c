/* SPDX-License-Identifier: MIT */
/* What stands in arenas, while the breaker sends large requests to an arena of the program's: that one is held as any, is
 * not ended with what was sent there, and has all of it back. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tests/unit/limits.h"

#include "include/quarry/buffers.h"
#include "include/quarry/pages.h"
#include "include/quarry/pool.h"
#include "include/quarry/stack.h"

#define BYTES (4 * MIB)
#define BLOCK 4096

static quarry_arena *overflow; /* the program's, */
static char *mine;             /* with a block of its own in it */
static uint64_t overflow_used; /* and nothing else: what that is */
static size_t arenas;

static uint64_t used_in(quarry_arena *arena)
{
	quarry_stats s = { .version = QUARRY_STATS_VERSION };

	quarry_thread_flush();
	cr_assert_eq(quarry_stats_get(arena, &s), 0);
	return s.in_use;
}

/* From here on large requests are sent to the program's arena. */
static void begin_sending(void)
{
	void *p;

	begin();
	quarry_free(quarry_malloc(100));
	set("breaker", "redirect");
	set("breaker_at", "50");
	set_bytes("hard_limit", sum_used() + 200 * MIB);
	tick_after(1000);
	overflow = quarry_arena_create(NULL);
	cr_assert_not_null(mine = quarry_arena_malloc(overflow, BLOCK));
	memset(mine, 7, BLOCK);
	overflow_used = used_in(overflow);
	cr_assert_eq(quarry_breaker_redirect(overflow), 0);
	do
		cr_assert_not_null(p = quarry_malloc(2 * MIB));
	while (quarry_arena_of(p) != overflow);
	quarry_free(p);
	for (int node = 0; node < 2; node++)
		cr_assert_not_null(quarry_arena_of_node(node));
	arenas = quarry_arenas(NULL, 0);
}

/* It has something of another's, which keeps it. */
static void expect_held(const void *p)
{
	cr_assert_eq(quarry_arena_of(p), overflow, "it was sent there");
	errno = 0;
	cr_expect_eq(quarry_arena_destroy(overflow), -1);
	cr_expect_eq(errno, EBUSY);
	errno = 0;
	cr_expect_eq(quarry_arena_reset(overflow), -1);
	cr_expect_eq(errno, EBUSY);
	cr_expect_eq(mine[BLOCK - 1], 7);
}

/* It has its own alone, and the arena that was made for the other is gone. */
static void expect_as_before(void)
{
	cr_assert_eq(quarry_usable_size(mine), BLOCK);
	cr_expect_eq(mine[0], 7);
	cr_expect_eq(mine[BLOCK - 1], 7);
	cr_expect_eq(used_in(overflow), overflow_used);
	cr_expect_eq(quarry_arenas(NULL, 0), arenas);
	cr_assert_eq(quarry_arena_destroy(overflow), 0, "%s", quarry_error_text());
}

Test(redirected, pages_with_an_arena_of_their_own)
{
	quarry_arena_attr memory = { .name = "pages" };
	quarry_pages_attr attr = { .page_size = BLOCK, .count = BYTES / BLOCK, .memory = &memory };
	quarry_pages *pages;

	begin_sending();
	cr_assert_not_null(pages = quarry_pages_create(&attr), "%s", quarry_error_text());
	cr_expect_eq(quarry_pages_arena(pages), overflow);
	expect_held(quarry_pages_at(pages, 0));
	memset(quarry_pages_alloc(pages, 10), 1, 10 * BLOCK);
	cr_assert_eq(quarry_pages_destroy(pages), 0, "%s", quarry_error_text());
	expect_as_before();
}

Test(redirected, pages_of_an_arena)
{
	quarry_arena *arena;
	quarry_pages_attr attr = { .page_size = BLOCK, .count = BYTES / BLOCK };
	quarry_pages *pages;

	begin_sending();
	attr.arena = arena = quarry_arena_create(NULL);
	cr_assert_not_null(pages = quarry_pages_create(&attr), "%s", quarry_error_text());
	expect_held(quarry_pages_at(pages, 0));
	cr_expect_eq(quarry_arena_destroy(arena), -1, "what is noted of them is there");
	cr_assert_eq(quarry_pages_destroy(pages), 0, "%s", quarry_error_text());
	cr_assert_eq(quarry_arena_destroy(arena), 0);
	expect_as_before();
}

Test(redirected, slabs)
{
	quarry_buffers_attr attr = { .struct_size = sizeof attr, .size = BLOCK, .count = BYTES / BLOCK };
	quarry_buffers *slab;
	void *first;

	begin_sending();
	cr_assert_not_null(slab = quarry_buffers_create(&attr), "%s", quarry_error_text());
	expect_held(first = slab->base);
	memset(slab->base, 1, BYTES);
	cr_assert_eq(quarry_buffers_destroy(slab), 0, "%s", quarry_error_text());
	cr_expect_neq(quarry_usable_size(first), BYTES);
	expect_as_before();
}

Test(redirected, chunks_of_pools)
{
	quarry_pool_attr attr = { .struct_size = sizeof attr, .size = 64 * KIB };
	quarry_pool *pool;
	void *objects[100];

	begin_sending();
	cr_assert_not_null(pool = quarry_pool_create(&attr));
	for (int i = 0; i < 100; i++) {
		cr_assert_not_null(objects[i] = quarry_pool_get(pool));
		memset(objects[i], 1, 64 * KIB);
	}
	expect_held((void *)((uintptr_t)objects[99] & -2 * MIB));
	for (int i = 0; i < 100; i++)
		cr_assert_eq(quarry_pool_put(pool, objects[i], QUARRY_POOL_FAST), 0);
	cr_expect_gt(quarry_pool_trim(pool), 0);
	cr_expect_eq(used_in(overflow), overflow_used);
	cr_assert_not_null(objects[0] = quarry_pool_get(pool));
	expect_held((void *)((uintptr_t)objects[0] & -2 * MIB));
	cr_assert_eq(quarry_pool_destroy(pool, 1), 0);
	expect_as_before();
}

Test(redirected, chunks_of_stacks)
{
	quarry_arena *arena;
	quarry_stack_attr attr = { .chunk = BYTES, .flags = QUARRY_STACK_SPILL };
	quarry_stack *stack;
	void *p;

	begin_sending();
	arena = quarry_arena_create(NULL);
	attr.manager = quarry_manager_of_arena(arena);
	cr_assert_not_null(stack = quarry_stack_create(&attr));
	cr_assert_not_null(p = quarry_stack_alloc(stack, MIB));
	expect_held((void *)((uintptr_t)p & ~(uintptr_t)4095));
	cr_expect_eq(quarry_arena_destroy(arena), -1);
	quarry_stack_destroy(stack);
	cr_assert_eq(quarry_arena_destroy(arena), 0);
	expect_as_before();
}

/* What is to be on a node, or nowhere else, is refused. */
Test(redirected, what_is_meant_strictly_is_not)
{
	quarry_buffers_attr buffers = { .struct_size = sizeof buffers, .size = BLOCK, .count = BYTES / BLOCK };
	quarry_arena_attr memory = { .name = "pages" };
	quarry_pages_attr pages = { .page_size = BLOCK, .count = BYTES / BLOCK, .memory = &memory };
	quarry_pool_attr attr = { .struct_size = sizeof attr, .size = 64 * KIB };
	quarry_pool *pool;

	begin_sending();
	buffers.on_node = 1;
	for (int i = 0; i < 2; i++) {
		errno = 0;
		cr_expect_null(quarry_buffers_create(&buffers), "%d", i);
		cr_expect_eq(errno, ENOMEM);
		buffers.on_node = 0;
		buffers.flags = QUARRY_BUFFERS_STRICT;
	}
	memory.policy = QUARRY_POLICY_PREFERRED;
	quarry_nodeset_add(&memory.nodes, 1);
	errno = 0;
	cr_expect_null(quarry_pages_create(&pages));
	cr_expect_eq(errno, ENOMEM);
	cr_assert_not_null(attr.arena = quarry_arena_create(&memory));
	cr_assert_not_null(pool = quarry_pool_create(&attr));
	errno = 0;
	cr_expect_null(quarry_pool_get(pool));
	cr_expect_eq(errno, ENOMEM);
	cr_assert_eq(quarry_pool_destroy(pool, 0), 0);
	cr_assert_eq(quarry_arena_destroy(attr.arena), 0);
	expect_as_before();
}

/* ---- plain memory ---- */

/* Asked of an arena, and sent elsewhere: it is freed and resized through the arena that it was asked of, and does not go with
 * that one. */
Test(redirected, plain_memory)
{
	quarry_arena *asked, *other;
	quarry_manager *manager;
	void *p[6];

	begin_sending();
	cr_assert_not_null(asked = quarry_arena_create(NULL));
	cr_assert_not_null(other = quarry_arena_create(NULL));
	cr_assert_not_null(manager = quarry_manager_of_arena(asked));
	for (int i = 0; i < 6; i++) {
		cr_assert_not_null(p[i] = i % 2 ? quarry_manager_alloc(manager, 2 * MIB) : quarry_arena_malloc(asked, 2 * MIB));
		cr_assert_eq(quarry_arena_of(p[i]), overflow, "it was sent there");
		memset(p[i], i, 2 * MIB);
	}
	cr_expect_geq(quarry_manager_usable(manager, p[0]), 2 * MIB);
	cr_expect_eq(quarry_manager_owns(manager, p[0]), 1);
	cr_assert_eq(quarry_arena_free(asked, p[0]), 0, "%s", quarry_error_text());
	cr_assert_eq(quarry_manager_free(manager, p[1]), 0, "%s", quarry_error_text());
	errno = 0;
	cr_expect_eq(quarry_arena_free(asked, p[0]), -1, "it is free");
	cr_expect_eq(errno, EINVAL);
	cr_assert_not_null(p[2] = quarry_manager_resize(manager, p[2], 3 * MIB), "%s", quarry_error_text());
	cr_expect_eq(((char *)p[2])[2 * MIB - 1], 2);
	cr_assert_not_null(p[3] = quarry_arena_realloc(asked, p[3], 3 * MIB));
	/* What is small, within a block, or of an arena that nothing was sent to, is as it was. */
	cr_expect_eq(quarry_arena_free(asked, mine), -1);
	cr_expect_eq(quarry_arena_free(asked, (char *)p[4] + 64 * KIB), -1);
	cr_expect_eq(quarry_manager_owns(manager, mine), 0);
	p[0] = quarry_malloc(100);
	cr_expect_eq(quarry_arena_free(asked, p[0]), -1);
	quarry_free(p[0]);
	cr_assert_not_null(p[0] = quarry_arena_malloc(other, 40 * KIB));
	cr_expect_eq(quarry_arena_free(asked, p[0]), -1);
	quarry_arena_free(other, p[0]);
	cr_assert_eq(quarry_arena_free(asked, p[3]), 0);
	cr_assert_eq(quarry_manager_free(manager, p[2]), 0);
	/* It stays when that arena goes, and is freed as any; or through one that is none, not. */
	cr_assert_eq(quarry_arena_destroy(asked), 0);
	cr_expect_eq(((char *)p[5])[MIB], 5);
	cr_expect_eq(quarry_arena_free(asked, p[5]), -1);
	cr_assert_eq(quarry_arena_free(overflow, p[5]), 0);
	quarry_free(p[4]);
	cr_assert_eq(quarry_arena_destroy(other), 0);
	arenas = quarry_arenas(NULL, 0);
	expect_as_before();
}

/* A reset takes what was sent along, and with it the leave to free its like through others. */
Test(redirected, a_reset_ends_it)
{
	quarry_arena *asked;
	void *p;

	begin_sending();
	cr_assert_not_null(asked = quarry_arena_create(NULL));
	cr_assert_not_null(p = quarry_arena_malloc(asked, 2 * MIB));
	cr_assert_eq(quarry_arena_of(p), overflow);
	cr_assert_eq(quarry_arena_reset(overflow), 0);
	cr_assert_not_null(p = quarry_arena_malloc(overflow, 2 * MIB));
	errno = 0;
	cr_expect_eq(quarry_arena_free(asked, p), -1);
	cr_expect_eq(errno, EINVAL);
	cr_assert_eq(quarry_arena_free(overflow, p), 0);
	cr_assert_eq(quarry_arena_destroy(asked), 0);
}
