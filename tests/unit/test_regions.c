/* SPDX-License-Identifier: MIT */
/* What is told of regions (quarry_on_region): each call of the kernel that takes memory away is seen here, and must have
 * been announced before; what may be done from inside; who is told, and who no longer. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "include/quarry/quarry.h"
#include "lib/cache/thread.h"
#include "lib/manager/manager.h"
#include "lib/manager/regions.h"
#include "tests/fake_os.h"
#include "tests/unit/staying.h"

#define MIB ((size_t)1 << 20)
#define ALL (QUARRY_REGION_MAP | QUARRY_REGION_UNMAP | QUARRY_REGION_PURGE)
#define TOLD_MAX 4096

static struct qy_os watching;
static const struct qy_os *inner;
static quarry_region_event told[TOLD_MAX];
static unsigned told_count, taken_away, unannounced, unmapped;

static __attribute__((constructor(101))) void make_machine(void)
{
	setenv("QUARRY_OPTIONS", "reclaim=off,pages=base", 1);
	fake_os_install();
}

static void note(const quarry_region_event *event, void *ctx)
{
	(void)ctx;
	cr_assert_eq(event->struct_size, sizeof(*event));
	cr_assert_lt(told_count, TOLD_MAX);
	told[told_count++] = *event;
	/* It is there still, or by now. */
	if (event->kind != QUARRY_REGION_PURGE)
		cr_assert_geq(*(volatile char *)event->address, 0);
}

static bool covers(const quarry_region_event *e, const char *addr, size_t len)
{
	return addr >= (char *)e->address && addr + len <= (char *)e->address + e->size;
}

static unsigned count(int kind)
{
	unsigned n = 0;

	for (unsigned i = 0; i < told_count; i++)
		n += told[i].kind == kind;
	return n;
}

/* The kernel is asked to take memory away: the last that was told must have been of that. */
static void taken(const char *addr, size_t len)
{
	bool announced = false;

	if (!qy_window_has(addr))
		return;
	taken_away++;
	for (unsigned i = 0; i < told_count; i++)
		announced = announced || (told[i].kind != QUARRY_REGION_MAP && covers(&told[i], addr, len));
	unannounced += !announced;
}

static void *watch_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	if (prot == PROT_NONE && (flags & MAP_FIXED)) {
		taken(addr, len);
		unmapped += qy_window_has(addr);
	}
	return inner->mmap(addr, len, prot, flags, fd, off);
}

static int watch_madvise(void *addr, size_t len, int advice)
{
	if (advice == MADV_DONTNEED || advice == QY_MADV_REMOVE)
		taken(addr, len);
	return inner->madvise(addr, len, advice);
}

static void *watch_mremap_away(void *old, size_t len, void *hint)
{
	taken(old, len);
	return inner->mremap_away(old, len, hint);
}

static void *watch_mremap_to(void *old, size_t len, void *to)
{
	taken(to, len);
	return inner->mremap_to(old, len, to);
}

static void begin(unsigned kinds)
{
	cr_assert(qy_start());
	inner = qy_os;
	watching = *qy_os;
	watching.mmap = watch_mmap;
	watching.madvise = watch_madvise;
	watching.mremap_away = watch_mremap_away;
	watching.mremap_to = watch_mremap_to;
	qy_os = &watching;
	cr_assert_eq(quarry_on_region(note, NULL, kinds), 0);
}

static quarry_arena *make(uint32_t flags, int kind)
{
	quarry_arena_attr attr = { .flags = flags, .page_kind = kind, .name = "told" };
	quarry_arena *a = quarry_arena_create(&attr);

	cr_assert_not_null(a, "%s", quarry_error_text());
	return a;
}

Test(regions, are_told_of_when_they_come_and_before_they_go)
{
	quarry_arena *a;
	char *p;

	begin(ALL);
	a = make(0, QUARRY_PAGES_AUTO);
	p = quarry_arena_malloc(a, 12 * MIB);
	cr_assert_eq(count(QUARRY_REGION_MAP), 1);
	cr_assert(covers(&told[0], p, 12 * MIB));
	cr_assert_eq(told[0].arena, a);
	cr_assert_eq(told[0].page_kind, QUARRY_PAGES_BASE);
	cr_assert_eq(told[0].fd, -1);
	cr_assert_eq(told_count, 1);
	memset(p, 1, 12 * MIB);
	cr_assert_not_null(quarry_arena_malloc(a, 100)); /* in a region of its own, which stays */
	quarry_free(p);
	quarry_purge(a);
	cr_assert_eq(count(QUARRY_REGION_MAP), 2);
	cr_assert_eq(count(QUARRY_REGION_UNMAP), 1);
	cr_assert_eq(unmapped, 1);
	cr_assert_gt(count(QUARRY_REGION_PURGE), 0);
	cr_assert_eq(quarry_arena_destroy(a), 0);
	cr_assert_eq(count(QUARRY_REGION_UNMAP), 2);
	cr_assert_eq(told[told_count - 1].kind, QUARRY_REGION_UNMAP);
	cr_assert_null(told[told_count - 1].arena, "it has ended");
	cr_assert_eq(unmapped, 2);
	cr_assert_gt(taken_away, 1);
	cr_assert_eq(unannounced, 0);
}

Test(regions, all_that_goes_was_announced)
{
	enum { MANY = 60000 };
	static char *small[MANY];
	quarry_arena *a;
	char *big;

	begin(ALL);
	a = make(0, QUARRY_PAGES_AUTO);
	for (int i = 0; i < MANY; i++) {
		cr_assert_not_null(small[i] = quarry_arena_malloc(a, 200));
		memset(small[i], 1, 200);
	}
	/* A block that moves as it grows. */
	big = quarry_arena_malloc(a, 8 * MIB);
	memset(big, 2, 8 * MIB);
	for (size_t size = 16; size <= 256; size *= 2) {
		cr_assert_not_null(quarry_arena_malloc(a, 3 * MIB));
		cr_assert_not_null(big = quarry_realloc(big, size * MIB));
	}
	cr_assert_eq(big[8 * MIB - 1], 2);
	/* Pages inside slabs, parts of frames, runs, regions. */
	for (int i = 0; i < MANY; i++)
		if (i % 500 != 0)
			quarry_free(small[i]);
	quarry_free(big);
	quarry_thread_flush();
	quarry_purge(a);
	quarry_purge(a);
	cr_assert_gt(taken_away, 50);
	cr_assert_eq(unannounced, 0, "%u of %u", unannounced, taken_away);
	cr_assert_eq(quarry_arena_destroy(a), 0);
	cr_assert_eq(unannounced, 0);
	cr_assert_eq(count(QUARRY_REGION_MAP), count(QUARRY_REGION_UNMAP));
}

Test(regions, of_which_kinds_it_is_told)
{
	quarry_arena *a;
	char *p;

	begin(QUARRY_REGION_UNMAP);
	a = make(QUARRY_ARENA_FD, QUARRY_PAGES_BASE);
	p = quarry_arena_malloc(a, 5 * MIB);
	memset(p, 1, 5 * MIB);
	cr_assert_eq(told_count, 0);
	/* The same function and context: other kinds. */
	cr_assert_eq(quarry_on_region(note, NULL, QUARRY_REGION_PURGE), 0);
	quarry_free(p);
	quarry_purge(a);
	cr_assert_gt(told_count, 0);
	cr_assert_eq(count(QUARRY_REGION_PURGE), told_count);
	cr_assert_geq(told[0].fd, 3);
	cr_assert_eq(quarry_on_region(note, NULL, 0), 0);
	told_count = 0;
	cr_assert_eq(quarry_arena_destroy(a), 0);
	cr_assert_eq(told_count, 0);
	cr_assert_not(qy_regions_heard());
	cr_assert_eq(quarry_on_region(note, NULL, 0), -1);
	cr_assert_eq(errno, ENOENT);
	cr_assert_eq(quarry_on_region(NULL, NULL, ALL), -1);
	cr_assert_eq(errno, EINVAL);
	cr_assert_eq(quarry_on_region(note, NULL, 8), -1);
	cr_assert_eq(errno, EINVAL);
}

Test(regions, no_more_than_can_be_kept)
{
	static int ctx[17];

	cr_assert(qy_start());
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 16; i++)
			cr_assert_eq(quarry_on_region(note, &ctx[i], ALL), 0, "%d", i);
		cr_assert_eq(quarry_on_region(note, &ctx[16], ALL), -1);
		cr_assert_eq(errno, ENOSPC);
		cr_assert_eq(quarry_on_region(note, &ctx[3], QUARRY_REGION_MAP), 0);
		for (int i = 0; i < 16; i++)
			cr_assert_eq(quarry_on_region(note, &ctx[i], 0), 0);
		cr_assert_not(qy_regions_heard());
	}
}

/* ---- from inside ---- */

static unsigned depth, deepest, calls;

static void expect_deadlock(int r, const char *what)
{
	cr_assert(r != 0 && errno == EDEADLK, "%s: %d", what, errno);
	cr_assert_str_eq(quarry_error_text(), "called from inside a function of quarry_on_region");
}

static void do_all(const quarry_region_event *event, void *ctx)
{
	quarry_stats stats = { .version = QUARRY_STATS_VERSION };
	quarry_arena_attr attr = { .name = "inside" };
	quarry_page_info page;
	void *p[100], *big;

	calls++;
	if (++depth > deepest)
		deepest = depth;
	cr_assert(qy_regions_telling());
	if (depth == 1) {
		/* More than there is: a region, of which this function is told; and more than it was told of goes
		 * back by each call. */
		for (int i = 0; i < 100; i++)
			cr_assert_not_null(p[i] = quarry_malloc((size_t)i * 500));
		cr_assert_not_null(big = quarry_malloc(30 * MIB));
		cr_assert_not_null(big = quarry_realloc(big, 60 * MIB));
		for (int i = 0; i < 100; i++)
			quarry_free(p[i]);
		quarry_free(big);
	}
	expect_deadlock(quarry_arena_destroy(event->arena), "destroy");
	expect_deadlock(quarry_arena_reset(event->arena), "reset");
	expect_deadlock(quarry_arena_move(event->arena, NULL, NULL), "move");
	expect_deadlock(quarry_thread_set_arena(NULL, NULL), "set_arena");
	expect_deadlock(quarry_thread_rebind(-1), "rebind");
	expect_deadlock(quarry_arena_create(&attr) == NULL, "create");
	expect_deadlock(quarry_view_open() == NULL, "view");
	cr_assert_eq(quarry_purge(NULL), 0);
	quarry_thread_flush();
	cr_assert_eq(quarry_stats_get(NULL, &stats), 0);
	/* Nothing is there yet, or any more. */
	if (event->kind != QUARRY_REGION_PURGE)
		cr_assert_eq(quarry_usable_size(event->address), 0);
	(void)quarry_where(event->address, 1, &page, 1);
	errno = 77;
	if (ctx != NULL)
		cr_assert_eq(quarry_on_region(do_all, ctx, 0), 0);
	depth--;
}

Test(regions, the_function_may_allocate)
{
	quarry_arena *a;
	char *p;

	cr_assert(qy_start());
	cr_assert_eq(quarry_on_region(do_all, NULL, ALL), 0);
	a = make(0, QUARRY_PAGES_AUTO);
	errno = 5;
	p = quarry_arena_malloc(a, 20 * MIB);
	cr_assert_eq(errno, 5);
	cr_assert_gt(deepest, 1, "what it allocates is told to itself");
	memset(p, 1, 20 * MIB);
	quarry_free(p);
	calls = 0;
	quarry_purge(NULL);
	cr_assert_gt(calls, 0);
	cr_assert_not_null(quarry_arena_malloc(a, 100));
	calls = 0;
	cr_assert_eq(quarry_arena_destroy(a), 0);
	cr_assert_gt(calls, 0);
	cr_assert_not(qy_regions_telling());
	/* It takes itself out, from inside. */
	cr_assert_eq(quarry_on_region(do_all, NULL, 0), 0);
	cr_assert_eq(quarry_on_region(do_all, &calls, QUARRY_REGION_MAP), 0);
	calls = 0;
	cr_assert_not_null(quarry_malloc(200 * MIB));
	cr_assert_geq(calls, 1);
	cr_assert_not(qy_regions_heard());
}

static void stay(const quarry_region_event *event, void *ctx)
{
	(void)event;
	(void)ctx;
	stay_until_let();
}

static void *map(void *unused)
{
	(void)unused;
	return quarry_malloc(100 * MIB);
}

Test(regions, who_is_taken_out_has_ended, .timeout = 60)
{
	pthread_t one, two;

	cr_assert(qy_start());
	cr_assert_eq(quarry_on_region(stay, NULL, QUARRY_REGION_MAP), 0);
	pthread_create(&one, NULL, map, NULL);
	while (atomic_load(&entered) == 0)
		sched_yield();
	/* Others map meanwhile, and are told of to others. */
	cr_assert_eq(quarry_on_region(note, NULL, QUARRY_REGION_MAP), 0);
	pthread_create(&two, NULL, let_leave, NULL);
	cr_assert_eq(quarry_on_region(stay, NULL, 0), 0);
	cr_assert_eq(left, 1);
	pthread_join(one, NULL);
	pthread_join(two, NULL);
}

/* ---- others ---- */

Test(regions, a_child_keeps_the_functions_and_is_not_told_of_what_it_has_not, .timeout = 60)
{
	quarry_arena *a;
	int status = -1;
	pid_t child;

	begin(ALL);
	/* More than fork_copy: the child has none of it. */
	cr_assert_eq(quarry_ctl_set("fork_copy", "0"), 0);
	a = make(QUARRY_ARENA_FD, QUARRY_PAGES_BASE);
	cr_assert_not_null(quarry_arena_malloc(a, 5 * MIB));
	told_count = 0;
	child = fork();
	if (child == 0) {
		if (told_count != 0 || quarry_malloc(100 * MIB) == NULL || count(QUARRY_REGION_MAP) != 1)
			_exit(1);
		_exit(quarry_on_region(note, NULL, 0) == 0 ? 0 : 2);
	}
	waitpid(child, &status, 0);
	cr_assert_eq(status, 0, "status %x", (unsigned)status);
	cr_assert_eq(told_count, 0);
}

Test(regions, not_in_a_signal_handler)
{
	quarry_stats stats = { .version = QUARRY_STATS_VERSION };
	char *p;

	cr_assert(qy_start());
	cr_assert_eq(quarry_ctl_set("reclaim", "timer"), 0);
	cr_assert_eq(quarry_on_region(note, NULL, ALL), 0);
	p = quarry_malloc(20 * MIB);
	memset(p, 1, 20 * MIB);
	quarry_free(p);
	for (int i = 0; i < 5000; i++)
		quarry_free(quarry_malloc(40000));
	cr_assert_eq(fake_os_timer(), 0);
	cr_assert_eq(quarry_stats_get(NULL, &stats), 0);
	cr_assert_gt(stats.refused[QUARRY_REFUSED_TIMER], 0);
	cr_assert_eq(stats.reclaimed_by, QUARRY_RECLAIMER_SERIES);
}
