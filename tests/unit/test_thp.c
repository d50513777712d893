/* SPDX-License-Identifier: MIT */
/* What the machine allows of transparent huge pages, as the fake kernel says it; and what regions are told, frame by
 * frame, by that. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "numa/region.h"
#include "numa/thp.h"
#include "tests/unit/eight_nodes.h"

#define THP "/sys/kernel/mm/transparent_hugepage/"
#define MIB ((uint64_t)1 << 20)

static int owner;

/* ---- the machine ---- */

static void set(const char *enabled, const char *defrag)
{
	fake_os_file(THP "enabled", enabled);
	fake_os_file(THP "defrag", defrag);
	qy_thp_forget();
}

/* The calls of madvise that have to do with huge pages, in order. */
static struct told {
	char *addr;
	size_t len;
	int advice;
} calls[64];
static unsigned call_count;
static int (*real_madvise)(void *addr, size_t len, int advice);

static int watching_madvise(void *addr, size_t len, int advice)
{
	if (advice == QY_MADV_HUGEPAGE || advice == QY_MADV_NOHUGEPAGE || advice == QY_MADV_COLLAPSE || advice == QY_MADV_COLD)
		calls[call_count++ % 64] = (struct told){ addr, len, advice };
	return real_madvise(addr, len, advice);
}

static void begin_watching(void)
{
	begin();
	if (real_madvise == NULL)
		real_madvise = kernel.madvise;
	kernel.madvise = watching_madvise;
	call_count = 0;
}

static void expect(unsigned n, const char *p, size_t len, int advice)
{
	cr_assert_lt(n, call_count, "call %u was not made", n);
	cr_assert_eq(calls[n].advice, advice, "call %u is advice %d", n, calls[n].advice);
	cr_assert_eq(calls[n].addr, p, "call %u is at +%td", n, calls[n].addr - p);
	cr_assert_eq(calls[n].len, len);
}

static struct qy_region *create(size_t frames, int kind)
{
	static struct qy_placement placement = { .policy = QUARRY_POLICY_BIND, .node = 0, .bind = true };
	struct qy_region *r;

	quarry_nodeset_add(&placement.nodes, 0);
	r = qy_region_create(&placement, frames, 1, kind, &owner);
	cr_assert_not_null(r);
	return r;
}

/* ---- what is allowed ---- */

Test(thp, settings)
{
	static const struct {
		const char *enabled, *defrag, *of_2m;
		int disabled;
		bool possible, unasked, stalls, stalls_all;
	} each[] = {
		{ "always [madvise] never", "always defer defer+madvise [madvise] never", NULL, 0, 1, 0, 1, 0 },
		{ "[always] madvise never", "always defer defer+madvise [madvise] never", NULL, 0, 1, 1, 1, 0 },
		{ "[always] madvise never", "[always] defer defer+madvise madvise never", NULL, 0, 1, 1, 1, 1 },
		{ "always [madvise] never", "always defer [defer+madvise] madvise never", NULL, 0, 1, 0, 1, 0 },
		{ "always [madvise] never", "always [defer] defer+madvise madvise never", NULL, 0, 1, 0, 0, 0 },
		{ "always [madvise] never", "always defer defer+madvise madvise [never]", NULL, 0, 1, 0, 0, 0 },
		{ "always madvise [never]", "always defer defer+madvise [madvise] never", NULL, 0, 0, 0, 1, 0 },
		/* The size has a setting of its own. */
		{ "always madvise [never]", "always defer defer+madvise [madvise] never", "always inherit [madvise] never", 0, 1, 0,
		  1, 0 },
		{ "[always] madvise never", "always defer defer+madvise [madvise] never", "always inherit madvise [never]", 0, 0, 0,
		  1, 0 },
		{ "[always] madvise never", "always defer defer+madvise [madvise] never", "always [inherit] madvise never", 0, 1, 1,
		  1, 0 },
		/* The process has said no, or only where asked for. */
		{ "[always] madvise never", "always defer defer+madvise [madvise] never", NULL, 1, 0, 0, 1, 0 },
		{ "[always] madvise never", "always defer defer+madvise [madvise] never", NULL, 3, 1, 0, 1, 0 },
		/* No sysfs: the worst is assumed. */
		{ NULL, NULL, NULL, 0, 1, 1, 1, 1 },
	};

	begin();
	for (unsigned i = 0; i < sizeof(each) / sizeof(each[0]); i++) {
		struct qy_thp thp;

		fake_os_file(THP "hugepages-2048kB/enabled", each[i].of_2m);
		fake_os_thp_disabled(each[i].disabled);
		set(each[i].enabled, each[i].defrag);
		errno = 77;
		thp = qy_thp_get();
		cr_assert_eq(errno, 77);
		cr_assert_eq(thp.possible, each[i].possible, "possible, %u", i);
		cr_assert_eq(thp.unasked, each[i].unasked, "unasked, %u", i);
		cr_assert_eq(thp.stalls, each[i].stalls, "stalls, %u", i);
		cr_assert_eq(thp.stalls_all, each[i].stalls_all, "stalls_all, %u", i);
		cr_assert(thp.refills);
		cr_assert_not(thp.smaller);
	}
}

Test(thp, smaller_sizes_khugepaged_and_other_huge_pages)
{
	begin();
	set("[always] madvise never", "always defer defer+madvise [madvise] never");
	fake_os_file(THP "hugepages-64kB/enabled", "always [inherit] madvise never");
	fake_os_file(THP "khugepaged/max_ptes_none", "0\n");
	qy_thp_forget();
	cr_assert(qy_thp_get().smaller);
	cr_assert_not(qy_thp_get().refills);
	fake_os_file(THP "hugepages-64kB/enabled", "always inherit [madvise] never");
	fake_os_file(THP "khugepaged/max_ptes_none", "511\n");
	qy_thp_forget();
	cr_assert_not(qy_thp_get().smaller);
	cr_assert(qy_thp_get().refills);
	fake_os_file(THP "hpage_pmd_size", "536870912\n"); /* base pages of 64 KiB */
	qy_thp_forget();
	cr_assert_not(qy_thp_get().possible);
}

Test(thp, files_are_read_now_and_then)
{
	unsigned long reads;

	begin();
	fake_os_clock(50000);
	set("always [madvise] never", "always defer defer+madvise [madvise] never");
	cr_assert(qy_thp_get().possible);
	cr_assert_gt(qy_thp_room(0, false), 0);
	reads = fake_os_calls(FAKE_READ_FILE);
	fake_os_file(THP "enabled", "always madvise [never]");
	fake_os_memory(0, 1 << 30, 0);
	for (int i = 0; i < 100; i++) {
		cr_assert(qy_thp_get().possible);
		cr_assert_gt(qy_thp_room(0, false), 0);
	}
	cr_assert_eq(fake_os_calls(FAKE_READ_FILE), reads);
	fake_os_advance(100);
	cr_assert_eq(qy_thp_room(0, false), 0);
	cr_assert(qy_thp_get().possible);
	fake_os_advance(10000);
	cr_assert_not(qy_thp_get().possible);
}

Test(thp, room)
{
	static const char info[] = "Node 0, zone      DMA      0      0      0      0      0      0      0      0      1      1      3 \n"
				   "Node 0, zone   Normal    491   2168   7906   5592   3799   2670   1956   1697   1442     10     60 \n"
				   "Node 65, zone   Normal     1      1      1      1      1      1      1      1      9   1000      0 \n"
				   "Node 1000, zone   Normal   1      1      1      1      1      1      1      1      9   4000";
	uint64_t of_0 = (1 * 2 + 3 * 4 + 10 * 2 + 60 * 4) * MIB, of_65 = 2000 * MIB;

	if (qy_os_page_size() != 4096)
		cr_skip("the numbers are those of base pages of 4 KiB");
	begin();
	fake_os_clock(50000);
	fake_os_file("/proc/buddyinfo", info);
	set("always [madvise] never", "always defer defer+madvise [madvise] never");
	cr_assert_eq(qy_thp_room(0, false), of_0 - of_0 / 16 - 32 * MIB);
	cr_assert_eq(qy_thp_room(qy_node_dense(65), false), of_65 - of_65 / 16 - 32 * MIB);
	cr_assert_eq(qy_thp_room(qy_node_dense(1000), false), 0, "a line that was cut off");
	cr_assert_eq(qy_thp_room(1, false), 0, "of which nothing is told");
	cr_assert_eq(qy_thp_room(-1, false), 0);
	/* What was promised is gone, and half of it comes back with each look at what is left. */
	qy_thp_promise(0, 100 * MIB);
	cr_assert_eq(qy_thp_room(0, false), of_0 - of_0 / 16 - 132 * MIB);
	cr_assert_eq(qy_thp_room(0, true), of_0 - of_0 / 16 - 32 * MIB);
	fake_os_advance(100);
	cr_assert_eq(qy_thp_room(0, false), of_0 - of_0 / 16 - 82 * MIB);
	qy_thp_promise(0, 1000 * MIB);
	cr_assert_eq(qy_thp_room(0, false), 0);
	fake_os_file("/proc/buddyinfo", NULL);
	qy_thp_forget();
	cr_assert_eq(qy_thp_room(0, false), 0);
}

Test(thp, whether_there_is_room_for_a_placement)
{
	struct qy_placement one = { .node = 2, .bind = true }, all = { .node = -1 }, spread = { .node = -1, .bind = true };

	begin();
	set("always [madvise] never", "always defer defer+madvise [madvise] never");
	fake_os_memory(1, 1 << 30, 0);
	fake_os_memory(2, 1 << 30, 256 << 20);
	qy_thp_forget();
	cr_assert(qy_region_has_room(&one, 128 * MIB, false));
	cr_assert_not(qy_region_has_room(&one, 128 * MIB, false), "it was promised");
	cr_assert(qy_region_has_room(&one, 128 * MIB, true));
	cr_assert(qy_region_has_room(&all, 4096 * MIB, false));
	cr_assert_not(qy_region_has_room(&all, 4096 * MIB, false));
	spread.policy = QUARRY_POLICY_INTERLEAVE;
	quarry_nodeset_add(&spread.nodes, 1);
	quarry_nodeset_add(&spread.nodes, 5);
	cr_assert_not(qy_region_has_room(&spread, 2 * MIB, false), "node 1 has none");
	/* Where no fault waits, nobody asks. */
	set("always [madvise] never", "always [defer] defer+madvise madvise never");
	cr_assert(qy_region_has_room(&spread, 1 << 30, false));
	set("[always] madvise never", "always defer defer+madvise [madvise] never");
	cr_assert(qy_region_has_room(&spread, 1 << 30, false));
	set("always madvise [never]", "always [defer] defer+madvise madvise never");
	cr_assert_not(qy_region_has_room(&one, 1, false));
}

/* ---- what regions are told ---- */

Test(thp, what_a_new_region_is_told)
{
	static const struct {
		const char *enabled, *defrag, *smaller;
		int kind, advice, got;
	} each[] = {
		{ "always [madvise] never", "[madvise]", NULL, QUARRY_PAGES_BASE, 0, QUARRY_PAGES_BASE },
		{ "[always] madvise never", "[madvise]", NULL, QUARRY_PAGES_BASE, QY_MADV_NOHUGEPAGE, QUARRY_PAGES_BASE },
		{ "[always] madvise never", "[madvise]", "[always]", QUARRY_PAGES_BASE, 0, QUARRY_PAGES_BASE },
		{ NULL, NULL, NULL, QUARRY_PAGES_BASE, QY_MADV_NOHUGEPAGE, QUARRY_PAGES_BASE },
		{ "always [madvise] never", "[madvise]", NULL, QUARRY_PAGES_THP, QY_MADV_HUGEPAGE, QUARRY_PAGES_THP },
		{ "[always] madvise never", "[madvise]", NULL, QUARRY_PAGES_THP, QY_MADV_HUGEPAGE, QUARRY_PAGES_THP },
		{ "always [madvise] never", "[madvise]", NULL, QY_PAGES_BORN_HUGE, QY_MADV_HUGEPAGE, QUARRY_PAGES_THP },
		{ "[always] madvise never", "[madvise]", NULL, QY_PAGES_BORN_HUGE, 0, QUARRY_PAGES_THP },
		{ "[always] madvise never", "[always]", NULL, QY_PAGES_BORN_HUGE, QY_MADV_HUGEPAGE, QUARRY_PAGES_THP },
	};

	begin_watching();
	for (unsigned i = 0; i < sizeof(each) / sizeof(each[0]); i++) {
		struct qy_region *r;

		fake_os_file(THP "hugepages-64kB/enabled", each[i].smaller);
		set(each[i].enabled, each[i].defrag);
		call_count = 0;
		r = create(3, each[i].kind);
		cr_assert_eq(call_count, each[i].advice != 0, "%u", i);
		if (each[i].advice != 0)
			expect(0, qy_region_addr(r), 3 * QY_FRAME, each[i].advice);
		cr_assert_eq(r->kind, each[i].got);
		cr_assert_neq(r->kind_wanted, QY_PAGES_BORN_HUGE);
		qy_region_destroy(r);
	}
	cr_assert_eq(qy_region_exceptions(), 0);
}

/* A part of a huge page goes back: once, the page is split, and khugepaged is kept away; a frame that goes whole is as
 * new. */
Test(thp, a_part_given_back)
{
	struct qy_region *r;
	char *p;

	begin_watching();
	set("always [madvise] never", "[madvise]");
	r = create(4, QUARRY_PAGES_THP);
	p = qy_region_addr(r);
	memset(p, 1, 4 * QY_FRAME);
	call_count = 0;
	cr_assert(qy_region_purge(r, p + QY_FRAME + 4 * QY_PAGE, 8 * QY_PAGE));
	expect(0, p + QY_FRAME + 4 * QY_PAGE, qy_os_page_size(), QY_MADV_COLD);
	expect(1, p + QY_FRAME, QY_FRAME, QY_MADV_NOHUGEPAGE);
	cr_assert(qy_region_purge(r, p + QY_FRAME + 32 * QY_PAGE, 8 * QY_PAGE));
	cr_assert_eq(call_count, 2, "it is known to be broken");
	cr_assert_eq(qy_region_exceptions(), 1);
	cr_assert_eq(qy_region_splits(), 1);
	cr_assert_not(qy_region_may_be_huge(r, p + QY_FRAME));
	cr_assert(qy_region_may_be_huge(r, p));
	/* From the middle of the first frame to the middle of the last: two are broken, two go whole. */
	call_count = 0;
	cr_assert(qy_region_purge(r, p + QY_FRAME / 2, 3 * QY_FRAME));
	cr_assert_eq(call_count, 5);
	expect(0, p + QY_FRAME / 2, qy_os_page_size(), QY_MADV_COLD);
	expect(1, p, QY_FRAME, QY_MADV_NOHUGEPAGE);
	expect(2, p + 3 * QY_FRAME, qy_os_page_size(), QY_MADV_COLD);
	expect(3, p + 3 * QY_FRAME, QY_FRAME, QY_MADV_NOHUGEPAGE);
	expect(4, p + QY_FRAME, QY_FRAME, QY_MADV_HUGEPAGE);
	cr_assert_eq(qy_region_exceptions(), 2);
	cr_assert(qy_region_may_be_huge(r, p + QY_FRAME));
	cr_assert(p[QY_FRAME / 2 - 1] == 1 && p[QY_FRAME / 2] == 0 && p[3 * QY_FRAME + QY_FRAME / 2] == 1);
	qy_region_destroy(r);
	cr_assert_eq(qy_region_exceptions(), 0);
}

Test(thp, no_more_is_told_than_has_to_be)
{
	struct qy_region *r;
	char *p;

	begin_watching();
	set("always [madvise] never", "[madvise]");
	r = create(2, QUARRY_PAGES_BASE);
	p = qy_region_addr(r);
	memset(p, 1, 2 * QY_FRAME);
	cr_assert(qy_region_purge(r, p + QY_PAGE, QY_PAGE));
	cr_assert_eq(call_count, 0, "it never was huge");
	cr_assert(qy_region_want(r, p, 2, QY_WANT_BASE));
	cr_assert(qy_region_want(r, p, 2, QY_WANT_COLLAPSIBLE));
	cr_assert_eq(call_count, 0);
	cr_assert(qy_region_want(r, p, 1, QY_WANT_HUGE));
	cr_assert(qy_region_want(r, p, 1, QY_WANT_HUGE));
	cr_assert_eq(call_count, 1);
	cr_assert_eq(qy_region_exceptions(), 1);
	/* khugepaged fills no holes here, so that it need not be told; but the page is split. */
	fake_os_file(THP "khugepaged/max_ptes_none", "0");
	qy_thp_forget();
	cr_assert(qy_region_purge(r, p, QY_PAGE));
	cr_assert_eq(call_count, 2);
	expect(1, p, qy_os_page_size(), QY_MADV_COLD);
	/* All of it by and by is the region. */
	cr_assert(qy_region_want(r, p + QY_FRAME, 1, QY_WANT_HUGE));
	cr_assert_eq(qy_region_exceptions(), 0);
	cr_assert_eq(r->advice, QY_ADVICE_HUGE);
}

Test(thp, so_many_exceptions_and_no_more)
{
	struct qy_region *r;
	char *p;

	begin_watching();
	set("always [madvise] never", "[madvise]");
	fake_os_file("/proc/sys/vm/max_map_count", "80\n");
	r = create(64, QUARRY_PAGES_THP);
	p = qy_region_addr(r);
	call_count = 0;
	for (int i = 0; i < 32; i++)
		cr_assert_eq(qy_region_want(r, p + (size_t)i * 2 * QY_FRAME, 1, QY_WANT_BASE), i < 10, "%d", i);
	cr_assert_eq(call_count, 10);
	cr_assert_eq(qy_region_exceptions(), 10);
	cr_assert_eq(qy_region_untold(), 22);
	/* To undo one makes room for another. */
	cr_assert(qy_region_want(r, p, 1, QY_WANT_HUGE));
	cr_assert_eq(qy_region_exceptions(), 9);
	cr_assert(qy_region_want(r, p + 62 * QY_FRAME, 1, QY_WANT_BASE));
	/* A whole region needs none. */
	cr_assert(qy_region_want(r, p, 64, QY_WANT_HUGE));
	cr_assert_eq(qy_region_exceptions(), 0);
}

/* ---- the real kernel ---- */

static bool real_kernel_has_it(void)
{
	char text[64];

	return qy_os_linux.read_file(THP "enabled", text, sizeof(text)) > 0 && strstr(text, "[never]") == NULL &&
	       qy_os_linux.madvise(NULL, 0, QY_MADV_COLLAPSE) == 0;
}

static bool is_huge(const char *p)
{
	bool huge = false;

	if (qy_os_linux.page_is_huge(p, &huge) != 0)
		cr_skip("this kernel does not tell (PAGEMAP_SCAN, Linux 6.7)");
	return huge;
}

Test(thp, collapsed_broken_and_collapsed_again)
{
	struct qy_region *r;
	char *p;

	if (!real_kernel_has_it())
		cr_skip("no transparent huge pages here, or no MADV_COLLAPSE");
	begin_watching();
	set("always [madvise] never", "[madvise]");
	r = create(3, QUARRY_PAGES_BASE);
	p = qy_region_addr(r);
	for (size_t i = 0; i < 3 * QY_FRAME; i += 8)
		*(size_t *)(void *)(p + i) = i;
	cr_assert_not(is_huge(p + QY_FRAME));
	if (!qy_region_collapse(r, p + QY_FRAME, QY_FRAME))
		cr_skip("no huge page to be had: errno %d", errno);
	cr_assert(is_huge(p + QY_FRAME) && !is_huge(p));
	cr_assert(qy_region_purge(r, p + QY_FRAME, 8 * QY_PAGE));
	cr_assert_not(is_huge(p + QY_FRAME));
	cr_assert(qy_region_collapse(r, p + QY_FRAME, QY_FRAME));
	cr_assert(is_huge(p + QY_FRAME));
	for (size_t i = 0; i < 3 * QY_FRAME; i += 8)
		cr_assert_eq(*(size_t *)(void *)(p + i), i >= QY_FRAME && i < QY_FRAME + 8 * QY_PAGE ? 0 : i);
}

/* A group of our own that counts memory, or "": what is charged to it is what the kernel holds for us, whatever RSS
 * says. */
static char group[300];

static bool enter_group(void)
{
	static const char *const roots[] = { "/sys/fs/cgroup/memory", "/sys/fs/cgroup" };
	char path[400];
	FILE *f;

	for (unsigned i = 0; i < 2; i++) {
		snprintf(group, sizeof(group), "%s/quarry-test-thp-%d", roots[i], (int)getpid());
		if (mkdir(group, 0755) != 0)
			continue;
		snprintf(path, sizeof(path), "%s/cgroup.procs", group);
		f = fopen(path, "we");
		if (f != NULL && fprintf(f, "%d", (int)getpid()) > 0 && fclose(f) == 0)
			return true;
		rmdir(group);
	}
	return false;
}

static void leave_group(void)
{
	char path[400], *slash;
	FILE *f;

	strcpy(path, group);
	slash = strrchr(path, '/');
	strcpy(slash, "/cgroup.procs");
	f = fopen(path, "we");
	if (f != NULL) {
		fprintf(f, "%d", (int)getpid());
		fclose(f);
	}
	rmdir(group);
}

static uint64_t charged(void)
{
	static const char *const names[] = { "memory.usage_in_bytes", "memory.current" };
	char path[400], text[32];

	for (unsigned i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/%s", group, names[i]);
		if (qy_os_linux.read_file(path, text, sizeof(text)) > 0)
			return strtoull(text, NULL, 10);
	}
	return 0;
}

/* Half of each of 32 huge pages. Unmapped alone, the kernel would keep all of them. */
Test(thp, what_is_split_is_free)
{
	uint64_t before, after;
	struct qy_region *r;
	char *p;

	if (!real_kernel_has_it())
		cr_skip("no transparent huge pages here, or no MADV_COLLAPSE");
	if (!enter_group())
		cr_skip("no control group can be made here");
	begin_watching();
	set("always [madvise] never", "[madvise]");
	r = create(32, QUARRY_PAGES_THP);
	p = qy_region_addr(r);
	memset(p, 1, 32 * QY_FRAME);
	if (!qy_region_collapse(r, p, 32 * QY_FRAME) || charged() < 32 * QY_FRAME) {
		leave_group();
		cr_skip("no huge pages to be had, or nothing is charged");
	}
	before = charged();
	for (int i = 0; i < 32; i++)
		cr_expect(qy_region_purge(r, p + (size_t)i * QY_FRAME, QY_FRAME / 2));
	after = charged();
	leave_group();
	cr_assert_lt(after + 28 * MIB, before, "%llu bytes went back", (unsigned long long)(before - after));
}

/* By page tables, piece by piece where the pieces were told differently; huge pages stay whole. */
Test(thp, moving_what_was_told_differently)
{
	struct qy_region *from, *to;
	char *p, *q;

	if (!real_kernel_has_it())
		cr_skip("no transparent huge pages here, or no MADV_COLLAPSE");
	begin_watching();
	set("always [madvise] never", "[madvise]");
	from = create(4, QUARRY_PAGES_THP);
	to = create(8, QUARRY_PAGES_THP);
	p = qy_region_addr(from);
	q = qy_region_addr(to);
	cr_assert(qy_region_want(from, p + 3 * QY_FRAME, 1, QY_WANT_BASE));
	for (size_t i = 0; i < 3 * QY_FRAME + 8 * QY_PAGE; i += 8)
		*(size_t *)(void *)(p + i) = i;
	if (!qy_region_collapse(from, p, 3 * QY_FRAME))
		cr_skip("no huge page to be had: errno %d", errno);
	fake_os_forget_calls();
	cr_assert(qy_region_move(from, p, 3 * QY_FRAME + 8 * QY_PAGE, to, q));
	cr_assert_eq(fake_os_calls(FAKE_MREMAP), 4, "two pieces, there and back");
	for (size_t i = 0; i < 3 * QY_FRAME + 8 * QY_PAGE; i += 8)
		cr_assert_eq(*(size_t *)(void *)(q + i), i);
	cr_assert(is_huge(q) && is_huge(q + QY_FRAME) && is_huge(q + 2 * QY_FRAME) && !is_huge(q + 3 * QY_FRAME));
	cr_assert_eq(qy_region_alike(to, q, 8 * QY_FRAME), 3 * QY_FRAME);
	cr_assert_eq(p[0], 0);
	cr_assert_eq(p[3 * QY_FRAME], 0);
	/* The second piece that will not go is copied, since there is no way back for the first. */
	fake_os_fail_kth(FAKE_MREMAP, 3, ENOMEM);
	cr_assert(qy_region_move(to, q, 3 * QY_FRAME + 8 * QY_PAGE, from, p));
	for (size_t i = 0; i < 3 * QY_FRAME + 8 * QY_PAGE; i += 8)
		cr_assert_eq(*(size_t *)(void *)(p + i), i);
	cr_assert_eq(q[3 * QY_FRAME], 0);
	/* The first changes nothing. */
	fake_os_fail(FAKE_MREMAP, ENOMEM);
	cr_assert_not(qy_region_move(from, p, 3 * QY_FRAME + 8 * QY_PAGE, to, q));
	cr_assert_eq(*(size_t *)(void *)(p + 2 * QY_FRAME), 2 * QY_FRAME);
}
