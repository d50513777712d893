/* SPDX-License-Identifier: MIT */
/* What counts against the control group's limit: memory that was handed out and is in nobody's memory yet, once. Memory
 * in files is in test_memfd.c. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tests/unit/limits.h"

/* What the kernel says of the process, in MiB: pages of its own, in shared memory, and in huge pages of pools. */
static void resident(uint64_t own, uint64_t in_files, uint64_t huge)
{
	char text[256];

	file("/proc/self/statm", "500000 %" PRIu64 " 0 1 0 100 0\n", own * MIB / qy_os_page_size());
	snprintf(text, sizeof(text),
		 "Name:\tHugetlbPages:\nRssFile:\t 9999 kB\nRssShmem:\t %" PRIu64 " kB\nVmSwap:\t 0 kB\n"
		 "HugetlbPages:\t %" PRIu64 " kB\nThreads:\t1\n",
		 in_files * 1024, huge * 1024);
	fake_os_file("/proc/self/status", text);
}

static quarry_arena *make_huge(uint32_t flags)
{
	quarry_arena_attr attr = { .flags = flags, .page_kind = QUARRY_PAGES_2M };
	quarry_arena *arena;

	fake_os_pool(0, 21, 200);
	fake_os_pool(1, 21, 200);
	arena = quarry_arena_create(&attr);
	cr_assert_not_null(arena);
	return arena;
}

/* Whether so many MiB of base pages are to be had, which nobody touches. */
static bool may_have(size_t mib)
{
	void *p;

	fake_os_advance(1000); /* what was read before is gone by */
	p = quarry_malloc(mib * MIB);
	cr_assert(p != NULL || errno == ENOMEM);
	quarry_free(p);
	quarry_purge(NULL);
	return p != NULL;
}

/* Of 400 MiB are 100 used, and 8 and a 32nd part left to others: about 279 remain. */
Test(budget, huge_pages_that_are_in_memory_are_not_to_come)
{
	quarry_arena *arena;
	void *p;

	begin();
	group(400, 100);
	resident(1, 0, 0);
	cr_assert(may_have(250));
	arena = make_huge(0);
	cr_assert_not_null(p = quarry_arena_malloc(arena, 160 * MIB));
	resident(1, 0, 160);
	cr_assert(may_have(250));
	cr_assert_not(may_have(300));
	quarry_free(p);
	cr_assert_eq(quarry_arena_destroy(arena), 0);
}

Test(budget, nor_are_those_in_files)
{
	quarry_arena *arena;
	void *p;

	begin();
	group(400, 100);
	arena = make_huge(QUARRY_ARENA_FD);
	cr_assert_not_null(p = quarry_arena_malloc(arena, 160 * MIB));
	resident(1, 0, 160);
	cr_assert(may_have(250));
	/* Shared memory of the program's own is not mistaken for it. */
	resident(1, 160, 0);
	cr_assert_not(may_have(250));
	resident(1, 160, 80);
	cr_assert(may_have(180));
	cr_assert_not(may_have(220));
	quarry_free(p);
	cr_assert_eq(quarry_arena_destroy(arena), 0);
}

/* The program's own huge pages hide nothing that is to come. */
Test(budget, huge_pages_of_others_do_not_count)
{
	quarry_arena *arena;
	void *p, *q;

	begin();
	group(400, 100);
	resident(1, 0, 0);
	cr_assert_not_null(q = quarry_malloc(100 * MIB));
	resident(1, 0, 1000);
	cr_assert(may_have(150));
	cr_assert_not(may_have(200));
	arena = make_huge(0);
	cr_assert_not_null(p = quarry_arena_malloc(arena, 64 * MIB));
	resident(1, 0, 1000);
	cr_assert(may_have(150));
	cr_assert_not(may_have(200));
	quarry_free(p);
	quarry_free(q);
	cr_assert_eq(quarry_arena_destroy(arena), 0);
}
