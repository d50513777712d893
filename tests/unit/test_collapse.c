/* SPDX-License-Identifier: MIT */
/* Which memory is born huge, which is collapsed and when, and which huge page may be broken; on a kernel that refuses
 * in every way, and on the real one. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "include/quarry/quarry.h"
#include "lib/cache/thread.h"
#include "lib/manager/collapse.h"
#include "lib/manager/limits.h"
#include "lib/manager/manager.h"
#include "numa/thp.h"
#include "tests/fake_os.h"

#define THP "/sys/kernel/mm/transparent_hugepage/"
#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define LONG_NS UINT64_C(1000000000000)

/* ---- the kernel ---- */

static struct qy_os kernel;
static const struct qy_os *fake_table;
static int collapse_error; /* what MADV_COLLAPSE says, 0: done (in word only, unless real) */
static bool real;
static char *huge[4096];   /* what was collapsed */
static unsigned huge_count, attempts, base_advice, huge_advice;
static uint64_t ns, ns_each;

static int playing_madvise(void *addr, size_t len, int advice)
{
	base_advice += advice == QY_MADV_NOHUGEPAGE && qy_window_has(addr);
	huge_advice += advice == QY_MADV_HUGEPAGE && qy_window_has(addr);
	if (advice == QY_MADV_COLLAPSE && len != 0) {
		attempts++;
		cr_assert_eq(len, QY_FRAME, "one at a time");
		ns += ns_each;
		if (collapse_error != 0) {
			errno = collapse_error;
			return -1;
		}
		if (!real) {
			huge[huge_count++ % 4096] = addr;
			return 0;
		}
	}
	return fake_table->madvise(addr, len, advice);
}

static int playing_page_is_huge(const void *addr, bool *is)
{
	if (real)
		return fake_table->page_is_huge(addr, is);
	*is = false;
	for (unsigned i = 0; i < huge_count && i < 4096; i++)
		*is = *is || huge[i] == addr;
	return 0;
}

static uint64_t playing_now_ns(void)
{
	return ns;
}

/* The library starts before main (lib/api/init.c), so the machine is made before that. */
static __attribute__((constructor(101))) void make_machine(void)
{
	setenv("QUARRY_OPTIONS", "reclaim=off", 1);
	fake_os_install();
	fake_os_memory(0, UINT64_C(16) << 30, UINT64_C(16) << 30);
	fake_os_file(THP "enabled", "always [madvise] never");
	fake_os_file(THP "defrag", "always defer defer+madvise [madvise] never");
	fake_os_clock(100000);
	fake_table = qy_os;
	kernel = *qy_os;
	kernel.madvise = playing_madvise;
	kernel.page_is_huge = playing_page_is_huge;
	kernel.now_ns = playing_now_ns;
	qy_os = &kernel;
}

/* An arena; its manager, where it is of one node. */
static quarry_arena *arena;
static struct qy_manager *m;

static void begin(int kind)
{
	quarry_arena_attr attr = { .policy = QUARRY_POLICY_PREFERRED, .page_kind = kind };

	cr_assert(qy_start());
	qy_thp_forget();
	quarry_nodeset_add(&attr.nodes, 0);
	arena = quarry_arena_create(&attr);
	cr_assert_not_null(arena);
	m = qy_manager_of_arena(arena);
}

static void set(const char *name, const char *value)
{
	cr_assert_eq(quarry_ctl_set(name, value), 0);
}

static bool pass(uint64_t *next)
{
	uint64_t unused;

	return qy_collapse_pass(qy_os->now_ms(), LONG_NS, next != NULL ? next : &unused);
}

/* So many passes, each after so many ms. Returns how many frames were made huge. */
static unsigned passes(unsigned n, uint64_t each)
{
	uint64_t before = qy_read(&m->huge.collapsed);

	while (n-- > 0) {
		fake_os_advance(each);
		pass(NULL);
	}
	return (unsigned)(qy_read(&m->huge.collapsed) - before);
}

static uint64_t kind_got(int kind)
{
	return qy_read(&m->kind_got[kind]);
}

static char *filled(size_t size)
{
	char *p = quarry_arena_malloc(arena, size);

	cr_assert_not_null(p);
	memset(p, 0x5a, size);
	return p;
}

static bool is_filled(const char *p, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (p[i] != 0x5a)
			return false;
	return true;
}

/* ---- born huge ---- */

Test(huge, a_small_heap_has_base_pages_and_a_large_one_huge_ones)
{
	begin(QUARRY_PAGES_AUTO);
	set("thp_min", "32m");
	for (int i = 0; i < 20; i++)
		filled(MIB);
	cr_assert_eq(kind_got(QUARRY_PAGES_THP), 0);
	cr_assert_eq(huge_advice, 0);
	for (int i = 0; i < 40; i++)
		filled(MIB);
	cr_assert_gt(kind_got(QUARRY_PAGES_THP), 20 * MIB);
	cr_assert_leq(kind_got(QUARRY_PAGES_BASE), 48 * MIB);
}

Test(huge, a_large_block_is_huge_at_once)
{
	begin(QUARRY_PAGES_AUTO);
	set("thp_min", "16m");
	filled(30 * MIB);
	cr_assert_eq(kind_got(QUARRY_PAGES_THP), 0);
	quarry_arena_destroy(arena);
	begin(QUARRY_PAGES_AUTO);
	filled(32 * MIB);
	cr_assert_eq(kind_got(QUARRY_PAGES_BASE), 0);
	cr_assert_eq(kind_got(QUARRY_PAGES_THP), 32 * MIB);
}

/* Stacks of coroutines, of which the last pages are used. */
static void ask_for_stacks(unsigned n, size_t size, char **stacks)
{
	for (unsigned i = 0; i < n; i++) {
		stacks[i] = quarry_arena_malloc(arena, size);
		cr_assert_not_null(stacks[i]);
		memset(stacks[i] + size - 8 * KIB, 1, 8 * KIB);
	}
}

Test(huge, not_where_what_was_asked_for_is_not_used)
{
	static const size_t sizes[] = { 256 * KIB, 1 * MIB, 8 * MIB, 13 * MIB };
	static const unsigned counts[] = { 100, 100, 20, 10 };
	char *stacks[100];

	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		begin(QUARRY_PAGES_AUTO);
		set("thp_min", "8m");
		ask_for_stacks(counts[i], sizes[i], stacks);
		cr_assert_eq(kind_got(QUARRY_PAGES_THP), 0, "of %zu KiB", sizes[i] / KIB);
		cr_assert_eq(huge_advice, 0);
		/* Once they are used, and what comes behind them. */
		for (unsigned k = 0; k < counts[i]; k++)
			memset(stacks[k], 1, sizes[i]);
		for (unsigned k = 0; k < counts[i]; k++)
			filled(sizes[i]);
		cr_assert_gt(kind_got(QUARRY_PAGES_THP), 0, "of %zu KiB", sizes[i] / KIB);
		quarry_arena_destroy(arena);
		huge_advice = 0;
	}
}

/* However many threads there are, a heap is large at some size. */
Test(huge, so_is_the_heap_of_many_threads)
{
	begin(QUARRY_PAGES_AUTO);
	set("thp_min", "8m");
	atomic_fetch_add(&m->heaps, 100);
	for (int i = 0; i < 100; i++)
		filled(MIB);
	cr_assert_eq(kind_got(QUARRY_PAGES_THP), 0);
	for (int i = 0; i < 100; i++)
		filled(MIB);
	cr_assert_gt(kind_got(QUARRY_PAGES_THP), 0);
	atomic_fetch_sub(&m->heaps, 100);
}

Test(huge, not_where_the_node_has_no_room)
{
	begin(QUARRY_PAGES_AUTO);
	set("thp_min", "32m");
	fake_os_memory(0, UINT64_C(16) << 30, 128 << 20);
	qy_thp_forget();
	filled(128 * MIB);
	cr_assert_eq(kind_got(QUARRY_PAGES_THP), 0);
	filled(64 * MIB);
	cr_assert_eq(kind_got(QUARRY_PAGES_THP), 64 * MIB);
	filled(64 * MIB);
	cr_assert_eq(kind_got(QUARRY_PAGES_THP), 64 * MIB, "what was promised is not to be had again");
	/* Where no fault waits for compaction, it does not matter. */
	fake_os_file(THP "defrag", "always [defer] defer+madvise madvise never");
	qy_thp_forget();
	filled(128 * MIB);
	cr_assert_eq(kind_got(QUARRY_PAGES_THP), 192 * MIB);
}

Test(huge, not_where_they_are_disabled)
{
	begin(QUARRY_PAGES_AUTO);
	set("thp_min", "0");
	fake_os_thp_disabled(1);
	qy_thp_forget();
	filled(64 * MIB);
	cr_assert_eq(kind_got(QUARRY_PAGES_THP), 0);
	cr_assert_eq(huge_advice, 0);
	cr_assert_eq(passes(5, 1000), 0);
	cr_assert_eq(attempts, 0);
	fake_os_thp_disabled(0);
	fake_os_file(THP "enabled", "always madvise [never]");
	qy_thp_forget();
	filled(64 * MIB);
	cr_assert_eq(kind_got(QUARRY_PAGES_THP), 0);
	cr_assert_eq(passes(5, 70000), 0);
	cr_assert_eq(attempts, 0);
}

/* A block's tail is not to hold a huge page that is mostly empty, unless it hardly counts. */
Test(huge, the_tail_of_a_block)
{
	char *p;

	begin(QUARRY_PAGES_AUTO);
	set("thp_min", "0");
	cr_assert_not_null(quarry_arena_malloc(arena, 3 * MIB));
	cr_assert_eq(base_advice, 1);
	cr_assert_eq(qy_region_exceptions(), 1);
	cr_assert_not_null(quarry_arena_malloc(arena, 4 * MIB));
	cr_assert_not_null(quarry_arena_malloc(arena, 6 * MIB - 64 * KIB));
	cr_assert_not_null(quarry_arena_malloc(arena, 24 * MIB + 64 * KIB));
	cr_assert_eq(base_advice, 1);
	p = quarry_arena_malloc(arena, 22 * MIB + 64 * KIB);
	cr_assert_eq(base_advice, 2);
	memset(p, 1, 22 * MIB + 64 * KIB);
	/* What was given back whole is as its region again. */
	quarry_free(p);
	huge_advice = 0;
	quarry_purge(arena);
	cr_assert_eq(qy_region_exceptions(), 1);
	cr_assert_leq(huge_advice, 1);
}

Test(huge, strict_and_explicit_kinds_are_as_asked)
{
	begin(QUARRY_PAGES_THP);
	fake_os_memory(0, UINT64_C(16) << 30, 0);
	qy_thp_forget();
	filled(3 * MIB);
	cr_assert_eq(kind_got(QUARRY_PAGES_BASE), 0);
	cr_assert_eq(base_advice, 0);
	begin(QUARRY_PAGES_BASE);
	set("thp_min", "0");
	filled(64 * MIB);
	cr_assert_eq(kind_got(QUARRY_PAGES_THP), 0);
	cr_assert_eq(passes(5, 1000), 0);
}

/* ---- collapsed ---- */

/* A heap on base pages that has become large. */
static char *large_on_base(size_t size)
{
	char *p;

	begin(QUARRY_PAGES_AUTO);
	set("thp_min", "1t");
	p = filled(size);
	cr_assert_eq(kind_got(QUARRY_PAGES_THP), 0);
	set("thp_min", "0");
	return p;
}

Test(collapse, dense_memory_after_a_while)
{
	char *p = large_on_base(8 * MIB);

	cr_assert_eq(passes(1, 1000), 0, "at first sight");
	cr_assert_eq(passes(1, 1000), 4);
	cr_assert_eq(passes(20, 1000), 0, "and once");
	cr_assert_eq(attempts, 4);
	cr_assert(is_filled(p, 8 * MIB));
	cr_assert_eq(huge_advice, 0, "which needs no advice here");
}

Test(collapse, small_objects)
{
	enum { COUNT = 100000 };
	char **p;

	large_on_base(8 * KIB);
	set("thp_min", "1t");
	p = quarry_calloc(COUNT, sizeof(*p));
	for (int i = 0; i < COUNT; i++)
		p[i] = filled(80);
	set("thp_min", "0");
	cr_assert_geq(passes(3, 1000), 3);
	for (int i = 0; i < COUNT; i++)
		cr_assert(is_filled(p[i], 80));
}

Test(collapse, not_in_a_small_heap)
{
	large_on_base(8 * MIB);
	set("thp_min", "32m");
	cr_assert_eq(passes(10, 1000), 0);
	cr_assert_eq(attempts, 0);
}

Test(collapse, only_what_is_in_memory)
{
	char *p;

	large_on_base(4 * KIB);
	set("thp_min", "1t");
	p = quarry_arena_malloc(arena, 16 * MIB);
	set("thp_min", "0");
	memset(p, 1, 4 * MIB);
	memset(p + 8 * MIB, 1, 7 * QY_FRAME / 8); /* not enough */
	memset(p + 10 * MIB, 1, 31 * QY_FRAME / 32);
	cr_assert_eq(passes(5, 1000), 3);
	for (unsigned i = 0; i < huge_count; i++)
		cr_assert(huge[i] == p || huge[i] == p + 2 * MIB || huge[i] == p + 10 * MIB);
}

/* A frame that loses pages between two looks is left alone until it loses no more. */
Test(collapse, not_what_is_being_emptied)
{
	char *blocks[256];

	large_on_base(4 * KIB);
	set("thp_min", "1t");
	for (int i = 0; i < 256; i++)
		blocks[i] = filled(40 * KIB);
	set("thp_min", "0");
	pass(NULL);
	for (int round = 0; round < 3; round++) {
		for (int i = round; i < 256; i += 51) /* 51 of them are a frame */
			quarry_free(blocks[i]);
		cr_assert_eq(passes(1, 1000), 0, "round %d", round);
	}
	cr_assert_geq(passes(1, 1000), 4);
	for (int i = 0; i < 256; i++)
		cr_assert(i % 51 < 3 || is_filled(blocks[i], 40 * KIB));
}

Test(collapse, a_kernel_that_has_no_huge_page_is_asked_ever_more_rarely)
{
	unsigned before;

	large_on_base(64 * MIB);
	collapse_error = ENOMEM;
	passes(2, 1000);
	cr_assert_eq(attempts, 1, "one is enough for the node");
	passes(60, 1000);
	cr_assert_leq(attempts, 7, "1, 2, 4 .. 32 s");
	cr_assert_geq(attempts, 5);
	before = attempts;
	passes(600, 1000);
	cr_assert_leq(attempts - before, 12, "once a minute");
	cr_assert_geq(attempts - before, 8);
	collapse_error = 0;
	cr_assert_eq(passes(130, 1000), 32);
	cr_assert_geq(qy_read(&m->huge.collapse_failed), 12);
}

Test(collapse, a_frame_that_will_not_go_is_tried_once_more_and_left)
{
	large_on_base(2 * MIB + 64 * KIB);
	collapse_error = EAGAIN;
	passes(2, 1000);
	cr_assert_eq(attempts, 1);
	passes(1, 1000);
	cr_assert_eq(attempts, 2);
	passes(50, 1000);
	cr_assert_eq(attempts, 2);
	passes(60, 1000);
	cr_assert_eq(attempts, 3, "once it is a minute");
}

Test(collapse, a_kernel_that_knows_no_such_thing_is_left_alone)
{
	large_on_base(200 * MIB);
	collapse_error = EINVAL;
	passes(500, 1000);
	cr_assert_eq(attempts, 16);
}

/* A pass has so much time, and is followed by three times as much without. */
Test(collapse, in_its_time)
{
	uint64_t next, spent = 0, from;

	large_on_base(200 * MIB);
	ns_each = 600000;
	pass(NULL);
	fake_os_advance(1000);
	from = qy_os->now_ms();
	while (huge_count < 100) {
		unsigned before = huge_count;

		cr_assert(qy_collapse_pass(qy_os->now_ms(), 2000000, &next));
		cr_assert_leq(huge_count - before, 4);
		spent += (huge_count - before) * ns_each;
		if (huge_count == 100)
			break;
		cr_assert_neq(next, UINT64_MAX);
		cr_assert_gt(next, qy_os->now_ms());
		/* Too early it does nothing. */
		before = huge_count;
		fake_os_advance(next - qy_os->now_ms() - 1);
		cr_assert_not(qy_collapse_pass(qy_os->now_ms(), 2000000, &next));
		cr_assert_eq(huge_count, before);
		fake_os_advance(1);
	}
	cr_assert_leq(spent * 7 / 2, (qy_os->now_ms() - from) * 1000000, "a quarter of the time");
	cr_assert_eq(qy_collapse_ns(), spent, "%lu instead of %lu ns", qy_collapse_ns(), spent);
}

/* When there is nothing to be had, the looks become rare, until memory is mapped. */
Test(collapse, an_idle_process_is_left_in_peace)
{
	uint64_t next = 0, from, looks = 0;

	large_on_base(8 * MIB);
	cr_assert_eq(passes(3, 1000), 4);
	from = qy_os->now_ms();
	for (; next != UINT64_MAX && looks < 100; looks++) {
		cr_assert_not(pass(&next));
		if (next != UINT64_MAX)
			fake_os_advance(next - qy_os->now_ms());
	}
	cr_assert_leq(looks, 10);
	cr_assert_geq(qy_os->now_ms() - from, 60000);
	set("thp_min", "1t");
	filled(8 * MIB);
	set("thp_min", "0");
	cr_assert_eq(passes(3, 1000), 4);
}

/* Pages that are shared with a child would be copied; and what the child or the parent writes takes huge pages
 * apart. */
Test(collapse, after_a_fork)
{
	int status;
	pid_t child;

	large_on_base(8 * MIB);
	cr_assert_eq(passes(2, 1000), 4);
	filled(8 * MIB);
	set("thp_min", "1t");
	filled(8 * MIB);
	set("thp_min", "0");
	child = fork();
	if (child == 0)
		_exit(0);
	cr_assert_eq(waitpid(child, &status, 0), child);
	huge_count = 0; /* all that was huge is not any more */
	cr_assert_eq(passes(9, 1000), 0);
	cr_assert_geq(passes(4, 1000), 8);
}

Test(collapse, arenas_that_end_and_regions_that_go)
{
	large_on_base(64 * MIB);
	pass(NULL);
	cr_assert_eq(quarry_arena_destroy(arena), 0);
	fake_os_advance(1000);
	pass(NULL);
	large_on_base(64 * MIB);
	ns_each = 1000;
	for (int i = 0; i < 5; i++) {
		uint64_t next;

		fake_os_advance(1000);
		qy_collapse_pass(qy_os->now_ms(), 5000, &next);
	}
	quarry_arena_reset(arena);
	quarry_purge(arena);
	fake_os_advance(1000);
	pass(NULL);
	cr_assert_eq(qy_region_exceptions(), 0);
}

/* Memory that nobody has touched yet, in a region that was to be huge, when the node runs out of huge pages; and when
 * it has some again. */
Test(collapse, free_memory_of_a_node_that_ran_out_is_to_be_of_base_pages)
{
	begin(QUARRY_PAGES_AUTO);
	set("thp_min", "0");
	for (int i = 0; i < 40; i++)
		filled(MIB + 512 * KIB);
	cr_assert_gt(kind_got(QUARRY_PAGES_THP), 0);
	set("thp_min", "1");
	base_advice = huge_advice = 0;
	fake_os_memory(0, UINT64_C(16) << 30, 0);
	fake_os_advance(1000);
	pass(NULL);
	if (base_advice == 0)
		cr_skip("no memory was left over");
	cr_assert_gt(qy_region_exceptions(), 0);
	fake_os_memory(0, UINT64_C(16) << 30, UINT64_C(16) << 30);
	passes(4, 1000);
	cr_assert_eq(qy_region_exceptions(), 0);
	cr_assert_gt(huge_advice, 0);
}

Test(collapse, by_the_real_kernel)
{
	char *p, text[64];
	bool is = false;

	if (qy_os_linux.read_file(THP "enabled", text, sizeof(text)) <= 0 || strstr(text, "[never]") != NULL ||
	    qy_os_linux.madvise(NULL, 0, QY_MADV_COLLAPSE) != 0)
		cr_skip("no transparent huge pages here, or no MADV_COLLAPSE");
	real = true;
	p = large_on_base(16 * MIB);
	passes(2, 1000);
	if (attempts > 0 && qy_read(&m->huge.collapsed) == 0)
		cr_skip("no huge page to be had");
	if (qy_os_linux.page_is_huge(p, &is) == 0)
		for (size_t i = 0; i < 16 * MIB; i += QY_FRAME)
			cr_assert(qy_os_linux.page_is_huge(p + i, &is) == 0 && is, "at %zu", i);
	cr_assert_eq(qy_read(&m->huge.collapsed), 8);
	cr_assert(is_filled(p, 16 * MIB));
}

/* ---- broken ---- */

/* 30 MiB of 100 KiB blocks, of which all but one in ten go. */
static char *blocks[300];

static uint32_t mostly_freed(void)
{
	begin(QUARRY_PAGES_AUTO);
	set("thp_min", "0");
	for (int i = 0; i < 300; i++)
		blocks[i] = filled(100 * KIB);
	qy_purge_hold();
	qy_huge_note_demand(m, qy_os->now_ms());
	qy_purge_release();
	for (int i = 0; i < 300; i++)
		if (i % 10 != 0)
			quarry_free(blocks[i]);
	return (uint32_t)(qy_window_offset(blocks[0]) >> QY_FRAME_SHIFT);
}

static bool may_break(uint32_t frame)
{
	bool may;

	qy_purge_hold();
	qy_lock(&m->lock);
	may = qy_huge_may_break(m, frame, qy_os->now_ms());
	qy_unlock(&m->lock);
	qy_purge_release();
	return may;
}

Test(broken, what_was_in_use_lately_may_be_wanted_again)
{
	uint32_t frame = mostly_freed();

	cr_assert_not(may_break(frame));
	fake_os_advance(125);
	cr_assert_not(may_break(frame));
	fake_os_advance(125);
	cr_assert(may_break(frame), "a quarter of decay_ms is over");
}

/* Demand is remembered for the time that counts: not forgotten when pressure comes, but not for as long. */
Test(broken, under_pressure_demand_is_over_sooner)
{
	uint32_t frame = mostly_freed();

	cr_assert_not(may_break(frame));
	qy_pressure_now = QUARRY_PRESSURE_SOME;
	cr_assert_not(may_break(frame));
	fake_os_advance(63);
	cr_assert(may_break(frame), "a quarter of a quarter of decay_ms is over");
	frame = mostly_freed();
	cr_assert_not(may_break(frame));
	qy_pressure_now = QUARRY_PRESSURE_NONE;
	fake_os_advance(63);
	cr_assert_not(may_break(frame), "it is in demand for longer again");
	fake_os_advance(250);
	cr_assert(may_break(frame));
}

Test(broken, what_swings_keeps_its_huge_pages)
{
	uint32_t frame = mostly_freed();

	for (int i = 0; i < 10; i++) {
		fake_os_advance(175);
		cr_assert_not(may_break(frame), "%d", i);
		for (int k = 0; k < 300; k++)
			if (k % 10 != 0)
				blocks[k] = filled(100 * KIB);
		qy_purge_hold();
		qy_huge_note_demand(m, qy_os->now_ms());
		qy_purge_release();
		for (int k = 0; k < 300; k++)
			if (k % 10 != 0)
				quarry_free(blocks[k]);
	}
	fake_os_advance(5000);
	cr_assert(may_break(frame));
}

Test(broken, what_is_not_huge_is_no_loss)
{
	uint32_t frame;

	begin(QUARRY_PAGES_AUTO);
	set("thp_min", "1t");
	blocks[0] = filled(100 * KIB);
	blocks[1] = filled(100 * KIB);
	frame = (uint32_t)(qy_window_offset(blocks[0]) >> QY_FRAME_SHIFT);
	may_break(frame);
	quarry_free(blocks[1]);
	cr_assert(may_break(frame));
}

Test(broken, demand_that_fits_elsewhere_is_none)
{
	uint32_t frame = mostly_freed();
	char *p = filled(64 * MIB);

	quarry_free(p); /* 64 MiB are in memory, and would do */
	may_break(frame);
	fake_os_advance(100);
	cr_assert(may_break(frame));
}
