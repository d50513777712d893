/* SPDX-License-Identifier: MIT */
/* Page allocators give pages back: whole huge pages, and parts of one when they are asked for, or are all that there is.
 * On a machine whose kernel is the fake one, so that what goes is seen call by call. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "lib/object/pages.h"
#include "numa/thp.h"
#include "tests/unit/eight_nodes.h"

#define MIB ((size_t)1 << 20)
#define KIB ((size_t)1 << 10)
#define HUGE (2 * MIB)

/* What went, in order. */
static struct {
	char *p;
	size_t n;
} went[64];
static unsigned went_count;
static int (*real_madvise)(void *addr, size_t len, int advice);

static int watching_madvise(void *addr, size_t len, int advice)
{
	if (advice == MADV_DONTNEED) {
		went[went_count % 64].p = addr;
		went[went_count++ % 64].n = len;
	}
	return real_madvise(addr, len, advice);
}

static quarry_pages *make(uint64_t count, size_t page_size, int kind)
{
	quarry_arena_attr memory = { .page_kind = kind };
	quarry_pages_attr attr = { .count = count, .page_size = page_size, .memory = &memory };
	quarry_pages *pages;

	begin();
	fake_os_file("/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
	qy_thp_forget();
	if (real_madvise == NULL)
		real_madvise = kernel.madvise;
	kernel.madvise = watching_madvise;
	pages = quarry_pages_create(&attr);
	cr_assert_not_null(pages, "errno %d: %s", errno, quarry_error_text());
	return pages;
}

static uint64_t dirty_of(quarry_pages *pages)
{
	quarry_pages_stats stats = { .struct_size = sizeof(stats) };

	cr_assert_eq(quarry_pages_stats_get(pages, &stats), 0);
	return stats.dirty;
}

static size_t purge(quarry_pages *pages, unsigned flags)
{
	went_count = 0;
	return quarry_pages_purge(pages, flags);
}

static void expect_went(unsigned i, const void *p, size_t n)
{
	cr_assert_lt(i, went_count, "call %u was not made", i);
	cr_expect_eq(went[i].p, p, "call %u", i);
	cr_expect_eq(went[i].n, n, "call %u: %zu bytes", i, went[i].n);
}

/* In three huge pages, of the first a page stays in use, of the second nothing, of the third the last. */
static void purge_three(size_t page_size)
{
	uint64_t per = HUGE / page_size, count = 3 * per;
	quarry_pages *pages = make(count, page_size, QUARRY_PAGES_THP);
	char *base = quarry_pages_at(pages, 0), *p = quarry_pages_alloc(pages, count), *last;

	cr_assert_eq(p, base);
	memset(p, 'x', 3 * HUGE);
	cr_assert_not_null(last = quarry_pages_split(pages, p, count - 1));
	cr_assert_eq(quarry_pages_resize(pages, p, 1), 0);
	cr_expect_eq(purge(pages, 0), HUGE);
	cr_expect_eq(went_count, 1);
	expect_went(0, base + HUGE, HUGE);
	cr_expect_eq(dirty_of(pages), 2 * (per - 1));
	cr_expect(base[HUGE] == 0 && base[page_size] == 'x', "a part stays");
	/* Once more: there is a whole one, which went. */
	cr_expect_eq(purge(pages, 0), 0);
	cr_expect_eq(went_count, 0);
	/* Asked for. */
	cr_expect_eq(purge(pages, QUARRY_PAGES_PURGE_PARTS), 2 * (per - 1) * page_size);
	cr_expect_eq(went_count, 2);
	expect_went(0, base + page_size, HUGE - page_size);
	expect_went(1, base + 2 * HUGE, HUGE - page_size);
	cr_expect_eq(dirty_of(pages), 0);
	cr_expect(base[0] == 'x' && *last == 'x', "what is in use stays");
	cr_assert_eq(quarry_pages_destroy(pages), 0);
}

Test(pages_purge, whole_huge_pages_go_and_parts_when_asked_for)
{
	purge_three(4 * KIB);
	purge_three(32 * KIB);
	purge_three(256 * KIB);
}

Test(pages_purge, a_huge_page_of_which_little_was_used_goes_whole)
{
	quarry_pages *pages = make(1024, 4 * KIB, QUARRY_PAGES_THP);
	char *p = quarry_pages_alloc_at(pages, quarry_pages_at(pages, 700), 1);

	*p = 'x';
	cr_assert_eq(quarry_pages_free(pages, p), 0);
	cr_expect_eq(purge(pages, 0), HUGE);
	expect_went(0, quarry_pages_at(pages, 512), HUGE);
	cr_expect(went_count == 1 && dirty_of(pages) == 0 && *p == 0);
	cr_assert_eq(quarry_pages_destroy(pages), 0);
}

Test(pages_purge, parts_go_when_they_are_all_that_there_is)
{
	quarry_pages *pages = make(1024, 4 * KIB, QUARRY_PAGES_THP);
	char *base = quarry_pages_alloc(pages, 1024);

	memset(base, 'x', 2 * HUGE);
	cr_assert_not_null(quarry_pages_split(pages, base, 600));
	cr_assert_eq(quarry_pages_resize(pages, base, 500), 0);
	cr_expect_eq(purge(pages, 0), 100 * 4 * KIB);
	cr_expect_eq(dirty_of(pages), 0);
	cr_assert_eq(quarry_pages_destroy(pages), 0);
	/* Less than a huge page, and what begins one at the end. */
	pages = make(600, 4 * KIB, QUARRY_PAGES_THP);
	base = quarry_pages_alloc(pages, 600);
	memset(base, 'x', 600 * 4 * KIB);
	cr_assert_eq(quarry_pages_free(pages, base), 0);
	cr_expect_eq(purge(pages, 0) + purge(pages, QUARRY_PAGES_PURGE_PARTS), 600 * 4 * KIB);
	cr_expect_eq(dirty_of(pages), 0);
	cr_assert_eq(quarry_pages_destroy(pages), 0);
}

/* Where there are no huge pages, nothing is taken apart. */
Test(pages_purge, of_base_pages_all_go)
{
	quarry_pages *pages = make(1024, 4 * KIB, QUARRY_PAGES_BASE);
	char *base = quarry_pages_alloc(pages, 1024);

	memset(base, 'x', 2 * HUGE);
	cr_assert_eq(quarry_pages_resize(pages, base, 10), 0);
	cr_expect_eq(purge(pages, 0), 1014 * 4 * KIB);
	cr_expect_eq(went_count, 1);
	cr_expect_eq(dirty_of(pages), 0);
	cr_assert_eq(quarry_pages_destroy(pages), 0);
}

Test(pages_purge, what_the_kernel_refuses_is_as_dirty_as_before)
{
	quarry_pages *pages = make(1024, 4 * KIB, QUARRY_PAGES_THP);
	char *p = quarry_pages_alloc(pages, 3);

	memset(p, 'x', 3 * 4 * KIB);
	cr_assert_eq(quarry_pages_free(pages, p), 0);
	fake_os_fail(FAKE_MADVISE, EPERM);
	cr_expect_eq(purge(pages, 0), 0);
	fake_os_fail(FAKE_MADVISE, 0);
	cr_expect_eq(dirty_of(pages), 3);
	cr_expect_eq(*p, 'x');
	errno = 0;
	cr_expect(purge(pages, 2) == 0 && errno == EINVAL);
	cr_assert_eq(quarry_pages_destroy(pages), 0);
}
