/* SPDX-License-Identifier: MIT */
/* What stands in an arena keeps it from ending; and the first page, buffer or object of a block is none of the default
 * manager's for having the block's address. */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "include/quarry/block.h"
#include "include/quarry/buffers.h"
#include "include/quarry/chain.h"
#include "include/quarry/pages.h"
#include "include/quarry/pool.h"
#include "include/quarry/stack.h"
#include "lib/cache/taken.h"

#define refused(call, error)                                                                                           \
	do {                                                                                                           \
		errno = 0;                                                                                             \
		cr_assert((call) == -1 && errno == (error), "%s: errno %d", #call, errno);                             \
	} while (0)

#define none(call, error)                                                                                              \
	do {                                                                                                           \
		errno = 0;                                                                                             \
		cr_assert((call) == NULL && errno == (error), "%s: errno %d", #call, errno);                           \
	} while (0)

/* ---- arenas ---- */

/* Neither ended nor reset, and whole after that; and a fork finds all as it was. */
static void expect_held(quarry_arena *arena, bool held)
{
	int status;
	pid_t child;

	if (held) {
		refused(quarry_arena_destroy(arena), EBUSY);
		cr_assert_not_null(strstr(quarry_error_text(), "is in it still"), "%s", quarry_error_text());
		refused(quarry_arena_reset(arena), EBUSY);
		refused(quarry_manager_clear(quarry_manager_of_arena(arena)), EBUSY);
		refused(quarry_manager_destroy(quarry_manager_of_arena(arena)), EBUSY);
	} else {
		cr_assert_eq(quarry_arena_reset(arena), 0, "%s", quarry_error_text());
		cr_assert_eq(quarry_arena_destroy(arena), 0);
	}
	child = fork();
	if (child == 0)
		_exit(0);
	cr_assert(child > 0 && waitpid(child, &status, 0) == child && status == 0);
}

Test(endings, of_the_arena_of_a_pool)
{
	quarry_arena *arena = quarry_arena_create(NULL);
	quarry_pool_attr attr = { .struct_size = sizeof attr, .size = 64, .arena = arena };
	quarry_pool *pool = quarry_pool_create(&attr);
	void *p = quarry_pool_get(pool);

	expect_held(arena, true);
	memset(p, 1, 64);
	cr_assert_eq(quarry_pool_put(pool, p, QUARRY_POOL_SAFE), 0);
	cr_assert_eq(quarry_pool_destroy(pool, 0), 0);
	expect_held(arena, false);
}

/* The arena that a thread chose is where what it takes without naming one is, and goes when the program says so. Nothing
 * of a pool without an arena may be there, nor of a slab or the thread's scratch stack. */
Test(endings, of_an_arena_that_was_chosen)
{
	quarry_arena *arena = quarry_arena_create(NULL);
	quarry_pool_attr attr = { .struct_size = sizeof attr, .size = 64 };
	quarry_buffers_attr sizes = { .struct_size = sizeof sizes, .size = 4096, .count = 100 };
	quarry_buffers *slab;
	quarry_pool *pool;
	quarry_buffer b;
	void *p[3000];

	cr_assert_eq(quarry_thread_set_arena(arena, NULL), 0);
	pool = quarry_pool_create(&attr);
	cr_assert_eq(quarry_pool_get_bulk(pool, p, 3000), 3000);
	slab = quarry_buffers_create(&sizes);
	cr_assert_not_null(quarry_stack_alloc(quarry_scratch(), 100));
	cr_assert_not_null(quarry_manager_of_arena(arena));
	refused(quarry_arena_destroy(arena), EBUSY);
	cr_assert_not_null(strstr(quarry_error_text(), "default arena of a thread"));
	cr_assert_eq(quarry_thread_set_arena(NULL, NULL), 0);
	expect_held(arena, false);
	cr_assert_eq(quarry_pool_put_bulk(pool, p, 3000, QUARRY_POOL_SAFE), 3000);
	cr_assert_eq(quarry_pool_destroy(pool, 0), 0);
	cr_assert_eq(quarry_buffers_get(slab, &b), 0);
	cr_assert_eq(quarry_buffer_release(b), 0);
	cr_assert_eq(quarry_buffers_destroy(slab), 0);
	cr_assert_not_null(quarry_stack_alloc(quarry_scratch(), 300000));
}

Test(endings, of_the_arena_of_pages)
{
	quarry_arena *arena = quarry_arena_create(NULL);
	quarry_arena_attr own = { .name = "own" };
	quarry_pages_attr attr = { .count = 1000, .arena = arena };
	quarry_pages *pages = quarry_pages_create(&attr);
	char *p = quarry_pages_alloc(pages, 3);

	expect_held(arena, true);
	memset(p, 1, 3 * 4096);
	cr_assert_eq(quarry_pages_free(pages, p), 0);
	cr_assert_eq(quarry_pages_destroy(pages), 0);
	expect_held(arena, false);

	attr = (quarry_pages_attr){ .count = 1000, .memory = &own };
	pages = quarry_pages_create(&attr);
	arena = quarry_pages_arena(pages);
	expect_held(arena, true);
	cr_assert_eq(quarry_thread_set_arena(arena, NULL), 0);
	refused(quarry_pages_destroy(pages), EBUSY);
	cr_assert_not_null(quarry_pages_alloc(pages, 1));
	refused(quarry_manager_free(NULL, quarry_pages_at(pages, 0)), EINVAL);
	cr_assert_eq(quarry_thread_set_arena(NULL, NULL), 0);
	expect_held(arena, true);
	cr_assert_eq(quarry_pages_destroy(pages), 0);
	refused(quarry_arena_reset(arena), EINVAL);
}

/* One that could not be made leaves nothing behind. */
Test(endings, of_an_arena_in_which_nothing_could_be_made)
{
	quarry_arena_attr tight = { .hard_limit = 3 << 20 };
	quarry_arena *arena = quarry_arena_create(&tight);
	quarry_pages_attr attr = { .count = 1000, .arena = arena };
	quarry_stack_attr chunks = { .chunk = 8 << 20, .manager = quarry_manager_of_arena(arena) };

	none(quarry_pages_create(&attr), ENOMEM);
	none(quarry_stack_create(&chunks), ENOMEM);
	expect_held(arena, false);
}

Test(endings, of_the_arena_of_a_stack)
{
	quarry_arena *arena = quarry_arena_create(NULL);
	quarry_stack_attr attr = { .flags = QUARRY_STACK_SPILL, .manager = quarry_manager_of_arena(arena) };
	quarry_stack *s = quarry_stack_create(&attr);

	cr_assert_not_null(quarry_stack_alloc(s, 10));
	expect_held(arena, true);
	cr_assert_not_null(quarry_stack_alloc(s, 300000));
	expect_held(arena, true);
	quarry_stack_reset(s);
	cr_assert_gt(quarry_stack_trim(s), 0);
	expect_held(arena, true);
	quarry_stack_destroy(s);
	expect_held(arena, false);

	/* Its chunks are where the thread's plain memory comes from. */
	arena = quarry_arena_create(NULL);
	s = quarry_stack_create(NULL);
	cr_assert_eq(quarry_thread_set_arena(arena, NULL), 0);
	cr_assert_not_null(quarry_stack_alloc(s, 300000));
	cr_assert_eq(quarry_thread_set_arena(NULL, NULL), 0);
	expect_held(arena, true);
	quarry_stack_destroy(s);
	expect_held(arena, false);
}

Test(endings, of_the_arena_of_a_slab)
{
	quarry_buffers_attr attr = { .struct_size = sizeof attr, .size = 4096, .count = 100 };
	quarry_buffers *slab = quarry_buffers_create(&attr);
	quarry_arena *arena = quarry_arena_of(slab->base);

	expect_held(arena, true);
	cr_assert_eq(quarry_thread_set_arena(arena, NULL), 0);
	refused(quarry_buffers_destroy(slab), EBUSY);
	cr_assert_eq(quarry_thread_set_arena(NULL, NULL), 0);
	expect_held(arena, true);
	cr_assert_eq(quarry_buffers_destroy(slab), 0);
	refused(quarry_arena_reset(arena), EINVAL);
}

struct first {
	char *p;
	unsigned told, taken;
};

static void look_at_first(const quarry_region_event *event, void *ctx)
{
	struct first *first = ctx;

	if ((uintptr_t)first->p - (uintptr_t)event->address < event->size) {
		first->told++;
		first->taken += qy_taken_find(first->p);
	}
}

/* The address is another's from the moment on at which the memory goes back: it is not taken any more by then. */
Test(endings, with_an_arena_of_ones_own_leave_its_address_free)
{
	quarry_buffers_attr sizes = { .struct_size = sizeof sizes, .size = 4096, .count = 100 };
	quarry_arena_attr own = { .name = "own" };
	quarry_pages_attr attr = { .count = 1000, .memory = &own };
	quarry_buffers *slab = quarry_buffers_create(&sizes);
	quarry_pages *pages = quarry_pages_create(&attr);
	struct first first = { .p = (char *)slab->base };

	cr_assert_eq(quarry_on_region(look_at_first, &first, QUARRY_REGION_UNMAP), 0);
	cr_assert(qy_taken_find(first.p));
	cr_assert_eq(quarry_buffers_destroy(slab), 0);
	cr_expect(first.told == 1 && first.taken == 0, "%u, %u", first.told, first.taken);
	first.p = quarry_pages_at(pages, 0);
	cr_assert(qy_taken_find(first.p));
	cr_assert_eq(quarry_pages_destroy(pages), 0);
	cr_expect(first.told == 2 && first.taken == 0, "%u, %u", first.told, first.taken);
	cr_assert_eq(quarry_on_region(look_at_first, &first, 0), 0);
}

/* In a child that has no copy of a memory file nothing stands in the arena any more. */
Test(endings, of_an_arena_that_a_child_has_nothing_of)
{
	quarry_arena_attr files = { .flags = QUARRY_ARENA_FD };
	quarry_arena *arena = quarry_arena_create(&files);
	quarry_pages_attr attr = { .count = 1024, .arena = arena };
	quarry_pages *pages = quarry_pages_create(&attr);
	int status;
	pid_t child;

	cr_assert_eq(quarry_ctl_set("fork_copy", "1m"), 0);
	memset(quarry_pages_alloc(pages, 1024), 1, 4 << 20);
	child = fork();
	if (child == 0)
		_exit(quarry_arena_destroy(arena) != 0);
	cr_assert(child > 0 && waitpid(child, &status, 0) == child);
	cr_assert_eq(status, 0);
	expect_held(arena, true);
	cr_assert_eq(quarry_pages_destroy(pages), 0);
	cr_assert_eq(quarry_arena_destroy(arena), 0);
}

Test(endings, of_a_stack_are_told)
{
	quarry_stack *s = quarry_stack_create(NULL);
	quarry_stack_stats stats;

	quarry_stack_destroy(s);
	none(quarry_stack_alloc(s, 10), EINVAL);
	none(quarry_stack_alloc_aligned(s, 64, 10), EINVAL);
	none(quarry_stack_manager(s), EINVAL);
	refused(quarry_stack_stats_get(s, &stats), EINVAL);
	errno = 0;
	quarry_stack_destroy(s);
	cr_assert_eq(errno, EINVAL);
}

Test(endings, of_a_pool_are_told)
{
	quarry_pool_attr attr = { .struct_size = sizeof attr, .size = 64 };
	quarry_pool *pool = quarry_pool_create(&attr);
	void *p = quarry_pool_get(pool);
	quarry_token t = quarry_pool_token(pool, p);
	uint32_t word = 0;

	cr_assert_eq(quarry_pool_resolve(pool, t), p);
	cr_assert_eq(quarry_pool_destroy(pool, 1), 0);
	none(quarry_pool_get(pool), EINVAL);
	none(quarry_pool_resolve(pool, t), EINVAL);
	none(quarry_pool_enter(pool, t), EINVAL);
	refused(quarry_pool_wait(pool, t, &word, 0, 0), EINVAL);
}

static quarry_buffers *ended;

/* A thread that never owned a slab has number 0, as a slab that is none has. */
static void *use_ended(void *unused)
{
	quarry_buffer b;

	refused(quarry_buffers_get(ended, &b), EINVAL);
	refused(quarry_buffers_collect(ended), EINVAL);
	refused(quarry_buffers_receive(ended, 0, &b, 1, 0), EINVAL);
	return unused;
}

Test(endings, of_a_slab_are_told)
{
	quarry_buffers_attr attr = { .struct_size = sizeof attr, .size = 64, .count = 4 };
	pthread_t thread;
	int status;
	pid_t child;

	ended = quarry_buffers_create(&attr);
	cr_assert_eq(quarry_buffers_destroy(ended), 0);
	use_ended(NULL);
	cr_assert_eq(pthread_create(&thread, NULL, use_ended, NULL), 0);
	pthread_join(thread, NULL);
	child = fork();
	if (child == 0) {
		use_ended(NULL);
		_exit(0);
	}
	cr_assert(child > 0 && waitpid(child, &status, 0) == child && status == 0);
}

/* ---- arenas that are none ---- */

Test(endings, what_is_no_arena_is_named)
{
	quarry_arena *gone = quarry_arena_create(NULL), *wrong[] = { gone, (quarry_arena *)(void *)&gone };

	cr_assert_eq(quarry_arena_destroy(gone), 0);
	for (int i = 0; i < 2; i++) {
		quarry_pool_attr pool = { .struct_size = sizeof pool, .size = 64, .arena = wrong[i] };
		quarry_pages_attr pages = { .count = 10, .arena = wrong[i] };

		none(quarry_pool_create(&pool), EINVAL);
		cr_assert_not_null(strstr(quarry_error_text(), "arena"), "%s", quarry_error_text());
		none(quarry_pages_create(&pages), EINVAL);
		cr_assert_not_null(strstr(quarry_error_text(), "arena"), "%s", quarry_error_text());
	}
}

/* ---- blocks by their first part ---- */

/* By no way but its own. */
static void expect_not_a_block(void *p)
{
	quarry_manager *arenas = quarry_manager_of_arena(quarry_arena_of(p));
	quarry_stats before = { .version = QUARRY_STATS_VERSION }, after = before;
	quarry_chain chain = { 0 };
	quarry_block b;

	cr_assert_eq(quarry_stats_get(NULL, &before), 0);
	cr_assert_eq(quarry_manager_owns(NULL, p), 0);
	cr_assert_eq(quarry_manager_owns(arenas, p), 0);
	refused(quarry_manager_free(NULL, p), EINVAL);
	refused(quarry_manager_free(arenas, p), EINVAL);
	refused(quarry_arena_free(NULL, p), EINVAL);
	refused(quarry_share(p, &b), EINVAL);
	none(quarry_storage_own(p), EINVAL);
	refused(quarry_chain_append_owned(&chain, p, 10), EINVAL);
	none(quarry_manager_resize(NULL, p, 100 << 20), EINVAL);
	none(quarry_manager_resize(NULL, p, 10), EINVAL);
	cr_assert_eq(quarry_stats_get(NULL, &after), 0);
	cr_assert_eq(after.in_use, before.in_use);
}

/* What is allocated where they were is a block like any other. */
static void expect_blocks_again(void **where, size_t n, size_t bytes)
{
	void *p[300];
	size_t there = 0;

	quarry_thread_flush();
	for (size_t i = 0; i < 300; i++) {
		p[i] = quarry_aligned_alloc(bytes, bytes);
		for (size_t k = 0; k < n; k++)
			there += p[i] == where[k];
		cr_assert_eq(quarry_manager_owns(NULL, p[i]), 1);
	}
	cr_assert_gt(there, 0, "none of %zu places of %zu bytes is used again: this tests nothing", n, bytes);
	for (size_t i = 0; i < 300; i++)
		cr_assert_eq(quarry_manager_free(NULL, p[i]), 0);
}

Test(first_parts, of_pages)
{
	quarry_pages_attr attr = { .count = 512 };
	quarry_pages *pages = quarry_pages_create(&attr);
	char *p = quarry_pages_alloc_at(pages, quarry_pages_at(pages, 0), 1);
	char *q = quarry_malloc(4 << 20);

	expect_not_a_block(p);
	/* A mistake, and nothing else. */
	quarry_free(p);
	cr_assert_eq(quarry_usable_size(p), 512 * 4096);
	expect_not_a_block(p);
	/* Others at such addresses are what they were. */
	cr_assert_eq(quarry_manager_owns(NULL, q), 1);
	cr_assert_eq(quarry_manager_free(NULL, q), 0);
	cr_assert_eq(quarry_pages_destroy(pages), 0);
	expect_blocks_again((void **)&p, 1, 512 * 4096);
}

Test(first_parts, of_slabs)
{
	for (int size = 512; size <= 8192; size *= 4) {
		quarry_buffers_attr attr = { .struct_size = sizeof attr, .size = (size_t)size, .count = 512 };
		quarry_buffers *slab = quarry_buffers_create(&attr);

		expect_not_a_block(slab->base);
		quarry_free(slab->base);
		expect_not_a_block(slab->base);
		cr_assert_eq(quarry_buffers_destroy(slab), 0);
	}
}

Test(first_parts, of_pools)
{
	static const size_t sizes[] = { 16, 100, 5000, 300000 };

	for (int round = 0; round < 8; round++) {
		quarry_pool_attr attr = { .struct_size = sizeof attr, .size = sizes[round % 4] };
		quarry_pool *pool = quarry_pool_create(&attr);
		static void *p[5000];
		size_t n = attr.size > 1000 ? 100 : 5000, first = 0, bytes = 0;
		void *base[200];

		cr_assert_eq(quarry_pool_get_bulk(pool, p, n), n);
		for (size_t i = 0; i < n; i++) {
			cr_assert_eq(quarry_manager_owns(NULL, p[i]), 0, "object %zu of %zu bytes", i, attr.size);
			if (quarry_usable_size(p[i]) != 0) {
				expect_not_a_block(p[i]);
				base[first++] = p[i];
				bytes = quarry_usable_size(p[i]);
			}
		}
		cr_assert_gt(first, 0);
		cr_assert_eq(quarry_pool_put_bulk(pool, p, n, QUARRY_POOL_SAFE), n);
		if (round < 4) {
			cr_assert_gt(quarry_pool_trim(pool), 0);
			expect_blocks_again(base, first, bytes);
			cr_assert_eq(quarry_pool_get_bulk(pool, p, n), n);
		}
		cr_assert_eq(quarry_pool_destroy(pool, 1), 0);
		if (round >= 4)
			expect_blocks_again(base, first, bytes);
	}
}
