/* SPDX-License-Identifier: MIT */
/* The count of allocations that tests of "allocates nothing" rest on: it sees one for each function and size, none
 * where there is none, and what other threads allocate. And page allocators, which allocate nothing once they are. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <pthread.h>
#include <string.h>

#include "include/quarry/pages.h"
#include "tests/unit/count_allocs.h"

static void *volatile kept[1000];

Test(count_allocs, one_for_a_malloc_of_any_size, .init = count_allocs_start, .fini = count_allocs_stop)
{
	for (size_t size = 1; size <= (size_t)8 << 20; size = size < 20000 ? size + 97 : size * 2) {
		void *p;

		cr_expect_eq(count_allocs(p = quarry_malloc(size)), 1, "%zu bytes", size);
		cr_expect_eq(count_allocs(quarry_free(p)), 0, "%zu bytes freed", size);
	}
}

Test(count_allocs, one_for_each_function, .init = count_allocs_start, .fini = count_allocs_stop)
{
	quarry_arena *arena = quarry_arena_create(NULL);
	void *p, *q;

	cr_expect_eq(count_allocs(p = quarry_calloc(3, 100)), 1);
	cr_expect_eq(count_allocs(p = quarry_realloc(p, 5000)), 1, "it moves");
	cr_expect_eq(count_allocs(q = quarry_aligned_alloc(256, 1000)), 1);
	quarry_free(p);
	quarry_free(q);
	for (int i = 0; i < 3; i++) {
		cr_expect_eq(count_allocs(p = quarry_arena_malloc(arena, 100)), 1, "round %d", i);
		cr_expect_eq(count_allocs(q = quarry_arena_calloc(arena, 1, 100000)), 1, "round %d", i);
		cr_expect_eq(count_allocs(quarry_free(p)), 0);
		cr_expect_eq(count_allocs(quarry_free(q)), 0);
	}
	cr_assert_eq(quarry_arena_destroy(arena), 0);
}

Test(count_allocs, as_many_as_there_are, .init = count_allocs_start, .fini = count_allocs_stop)
{
	cr_expect_eq(count_allocs((void)0), 0);
	for (int round = 0; round < 5; round++) {
		uint64_t n = count_allocs(for (int i = 0; i < 1000; i++) kept[i] = quarry_malloc(48));

		cr_expect_eq(n, 1000, "round %d", round);
		for (int i = 0; i < 1000; i++)
			quarry_free(kept[i]);
	}
}

/* Objects that a thread has in its lists when the count begins are counted, too. */
Test(count_allocs, lists_of_before_do_not_hide_anything, .fini = count_allocs_stop)
{
	for (int i = 0; i < 100; i++)
		kept[i] = quarry_malloc(1 + 20 * (size_t)i);
	for (int i = 0; i < 100; i++)
		quarry_free(kept[i]);
	count_allocs_start();
	for (size_t size = 1; size <= 2000; size += 7) {
		cr_expect_eq(count_allocs(kept[0] = quarry_malloc(size)), 1, "%zu bytes", size);
		quarry_free(kept[0]);
	}
}

static void *allocate_ten(void *unused)
{
	(void)unused;
	for (int i = 0; i < 10; i++)
		quarry_free(quarry_malloc(100));
	return NULL;
}

Test(count_allocs, those_of_other_threads_too, .init = count_allocs_start, .fini = count_allocs_stop)
{
	pthread_t thread;
	uint64_t n = count_allocs(pthread_create(&thread, NULL, allocate_ten, NULL); pthread_join(thread, NULL));

	cr_expect_eq(n, 10);
}

/* All that a page allocator does, but for being made. */
Test(count_allocs, runs_of_pages_allocate_nothing, .init = count_allocs_start, .fini = count_allocs_stop)
{
	quarry_pages_attr attr = { .count = 10000 };
	quarry_pages *pages = NULL;
	quarry_page_id64 id;
	uint64_t n;

	cr_expect_eq(count_allocs(pages = quarry_pages_create(&attr)), 2, "its record, and the pages");
	cr_assert_not_null(pages);
	n = count_allocs(for (uint64_t i = 1; i < 1000; i++) {
		void *p = quarry_pages_alloc(pages, i);
		void *q = i > 1 ? quarry_pages_split(pages, p, i / 2) : NULL;

		quarry_pages_resize(pages, p, 1);
		quarry_pages_to_id64(pages, p, &id);
		quarry_pages_resolve(pages, id, NULL);
		quarry_pages_free_id64(pages, id);
		quarry_pages_free_id64(pages, id);
		quarry_pages_free(pages, q);
		if (i % 100 == 0)
			quarry_pages_purge(pages, 0);
	});
	cr_expect_eq(n, 0);
	cr_assert_eq(quarry_pages_destroy(pages), 0);
}
