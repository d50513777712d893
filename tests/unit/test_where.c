/* SPDX-License-Identifier: MIT */
/* Where an arena's memory is: quarry_arena_where, and the policy that quarry_where says was got, against what the fake
 * kernel knows of each page that the test has touched. A machine of forty nodes, two of them with ids above 63. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "include/quarry/quarry.h"
#include "lib/base/place.h"
#include "numa/topology.h"
#include "tests/fake_os.h"

#define NODES 40
#define MIB ((size_t)1 << 20)
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static int id_of(int k)
{
	return k < 38 ? k : k == 38 ? 65 : 1000;
}

/* Node k has the CPUs 2k and 2k + 1. The library starts before main, and the machine is made before that. */
static __attribute__((constructor(101))) void make_machine(void)
{
	char cpus[16];

	setenv("QUARRY_OPTIONS", "reclaim=off", 1);
	fake_os_install();
	fake_os_nodes("0-37,65,1000");
	for (int k = 0; k < NODES; k++) {
		snprintf(cpus, sizeof(cpus), "%d-%d", 2 * k, 2 * k + 1);
		fake_os_cpus(id_of(k), cpus);
	}
}

static uint64_t state;

static uint64_t next(void) /* splitmix64 */
{
	uint64_t z = state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

/* SEED in the environment repeats a run. */
static void seed(void)
{
	state = getenv("SEED") ? strtoull(getenv("SEED"), NULL, 0) : 4711;
	fprintf(stderr, "SEED=%llu\n", (unsigned long long)state);
}

static quarry_arena *arena_on(int policy, int kind, const char *name, int first, int last)
{
	quarry_arena_attr attr = { .struct_size = sizeof(attr), .policy = policy, .page_kind = kind };
	quarry_arena *a;

	snprintf(attr.name, sizeof(attr.name), "%s", name);
	for (int k = first; k <= last; k++)
		quarry_nodeset_add(&attr.nodes, (unsigned)id_of(k));
	a = quarry_arena_create(&attr);
	cr_assert_not_null(a, "%s: %s", name, quarry_error_text());
	return a;
}

/* ---- what is to be: bytes by node, as the fake kernel says ---- */

static uint64_t expected[FAKE_NODES];

static void expect_page(const char *page, size_t size)
{
	int node = fake_os_node_at(page);

	cr_assert(node >= 0 && node < FAKE_NODES);
	expected[node] += size;
}

/* Touch some pages of a block, and note where they are. */
static size_t touch(char *p, size_t size)
{
	size_t bytes = 0;

	for (size_t at = 0; at < size; at += QY_PAGE) {
		if (next() % 3 == 0)
			continue;
		p[at] = 1;
		expect_page(p + at, QY_PAGE);
		bytes += QY_PAGE;
	}
	return bytes;
}

/* The list is what was noted, each node once, ascending. Returns the bytes that strayed. */
static uint64_t assert_expected(quarry_arena *a, int kind)
{
	quarry_residency list[NODES + 1];
	long n = quarry_arena_where(a, list, COUNT(list));
	uint64_t strayed = 0;
	size_t nodes = 0;

	cr_assert_geq(n, 0);
	cr_assert_eq(quarry_arena_where(a, NULL, 0), n);
	for (int node = 0; node < FAKE_NODES; node++)
		nodes += expected[node] != 0;
	cr_assert_eq((size_t)n, nodes, "%ld nodes instead of %zu", n, nodes);
	for (long i = 0; i < n; i++) {
		cr_assert(i == 0 || list[i - 1].node < list[i].node, "ascending");
		cr_assert(list[i].node >= 0 && list[i].node < FAKE_NODES);
		cr_assert_eq(list[i].bytes, expected[list[i].node], "node %d: %llu bytes instead of %llu", list[i].node,
			     (unsigned long long)list[i].bytes, (unsigned long long)expected[list[i].node]);
		cr_assert_eq(list[i].by_kind[kind], list[i].bytes, "node %d", list[i].node);
		strayed += list[i].strayed;
	}
	return strayed;
}

/* ---- policies ---- */

Test(where, every_page_of_every_policy_is_counted_where_it_is)
{
	static const struct {
		int policy, first, last;
	} cases[] = {
		{ QUARRY_POLICY_BIND, 38, 38 },		    { QUARRY_POLICY_BIND, 3, 5 },
		{ QUARRY_POLICY_PREFERRED, 39, 39 },	    { QUARRY_POLICY_PREFERRED_MANY, 2, 4 },
		{ QUARRY_POLICY_INTERLEAVE, 0, 39 },	    { QUARRY_POLICY_INTERLEAVE, 7, 9 },
		{ QUARRY_POLICY_WEIGHTED_INTERLEAVE, 30, 39 },
	};

	seed();
	for (size_t c = 0; c < COUNT(cases); c++) {
		quarry_arena *a = arena_on(cases[c].policy, QUARRY_PAGES_BASE, "a", cases[c].first, cases[c].last);

		memset(expected, 0, sizeof(expected));
		cr_assert_eq(quarry_arena_where(a, NULL, 0), 0, "nothing yet");
		for (int i = 0; i < 40; i++) {
			size_t size = MIB + next() % (5 * MIB);
			char *p = quarry_arena_malloc(a, size);

			cr_assert_not_null(p);
			touch(p, size);
		}
		cr_assert_eq(assert_expected(a, QUARRY_PAGES_BASE), 0, "case %zu: nothing strayed", c);
		cr_assert_eq(quarry_arena_destroy(a), 0);
	}
}

/* More than are looked at in one step: each block is larger than the regions before it. */
Test(where, many_regions)
{
	quarry_arena *a = arena_on(QUARRY_POLICY_BIND, QUARRY_PAGES_BASE, "a", 6, 6);
	quarry_stats stats = { .version = QUARRY_STATS_VERSION };

	for (size_t i = 0; i < 80; i++) {
		char *p = quarry_arena_malloc(a, (i + 1) * 4 * MIB);

		cr_assert_not_null(p);
		for (size_t at = 0; at < 5 * QY_PAGE; at += QY_PAGE) {
			p[at] = 1;
			expect_page(p + at, QY_PAGE);
		}
	}
	cr_assert_eq(quarry_stats_get(a, &stats), 0);
	cr_assert_gt(stats.regions, 70);
	cr_assert_eq(assert_expected(a, QUARRY_PAGES_BASE), 0);
}

Test(where, of_a_node_that_is_full_the_neighbours_memory_has_strayed)
{
	quarry_arena *a = arena_on(QUARRY_POLICY_PREFERRED, QUARRY_PAGES_BASE, "a", 4, 6);
	size_t size = 6 * MIB, bytes;
	char *p = quarry_arena_malloc(a, size);

	seed();
	fake_os_memory(4, (uint64_t)1 << 30, 0);
	fake_os_distance(4, 5, 12);
	bytes = touch(p, size);
	cr_assert_eq(expected[5], bytes);
	cr_assert_eq(assert_expected(a, QUARRY_PAGES_BASE), bytes, "preferred: the first node of the set, no other of it");
}

Test(where, pages_that_were_moved_away_have_strayed)
{
	quarry_arena *one = arena_on(QUARRY_POLICY_BIND, QUARRY_PAGES_BASE, "one", 2, 2);
	quarry_arena *set = arena_on(QUARRY_POLICY_INTERLEAVE, QUARRY_PAGES_BASE, "set", 2, 3);
	char *p = quarry_arena_malloc(one, MIB), *q = quarry_arena_malloc(set, MIB);
	void *pages[4] = { p, p + QY_PAGE, q, q + QY_PAGE };
	const int to[4] = { 3, 65, 2, 65 };
	int status[4];

	memset(p, 1, MIB);
	memset(q, 1, MIB);
	cr_assert_eq(qy_os->move_pages(4, pages, to, status, 2), 0);
	for (size_t at = 0; at < MIB; at += QY_PAGE)
		expect_page(p + at, QY_PAGE);
	cr_assert_eq(expected[65], QY_PAGE);
	cr_assert_eq(assert_expected(one, QUARRY_PAGES_BASE), 2 * QY_PAGE);
	memset(expected, 0, sizeof(expected));
	for (size_t at = 0; at < MIB; at += QY_PAGE)
		expect_page(q + at, QY_PAGE);
	cr_assert_eq(assert_expected(set, QUARRY_PAGES_BASE), QY_PAGE, "within the set nothing strays");
}

Test(where, what_the_kernel_refused_to_place_does_not_stray)
{
	quarry_arena *a = arena_on(QUARRY_POLICY_BIND, QUARRY_PAGES_BASE, "a", 9, 9);
	char *p;

	seed();
	fake_os_fail(FAKE_MBIND, EPERM);
	fake_os_on_cpu(4);
	p = quarry_arena_malloc(a, 3 * MIB);
	touch(p, 3 * MIB);
	cr_assert_eq(expected[9], 0);
	cr_assert_eq(assert_expected(a, QUARRY_PAGES_BASE), 0);
}

/* ---- families ---- */

struct visitor {
	quarry_arena *arena;
	int k;
	char *p;
};

static void *visit(void *arg)
{
	struct visitor *v = arg;

	fake_os_this_thread_on_cpu(2 * v->k);
	v->p = quarry_arena_malloc(v->arena, 3 * MIB);
	return NULL;
}

Test(where, an_arena_of_the_local_policy_has_memory_on_each_of_its_threads_nodes)
{
	quarry_arena *a = arena_on(QUARRY_POLICY_LOCAL, QUARRY_PAGES_BASE, "local", 0, 39);
	struct visitor visitors[] = { { a, 0, NULL }, { a, 17, NULL }, { a, 38, NULL }, { a, 39, NULL } };

	seed();
	for (size_t i = 0; i < COUNT(visitors); i++) {
		pthread_t thread;

		cr_assert_eq(pthread_create(&thread, NULL, visit, &visitors[i]), 0);
		cr_assert_eq(pthread_join(thread, NULL), 0);
		cr_assert_not_null(visitors[i].p);
		touch(visitors[i].p, 3 * MIB);
	}
	for (size_t i = 0; i < COUNT(visitors); i++)
		cr_assert_gt(expected[id_of(visitors[i].k)], 0);
	cr_assert_eq(assert_expected(a, QUARRY_PAGES_BASE), 0);
}

/* ---- page kinds ---- */

Test(where, hugetlb_pages_are_asked_of_one_by_one)
{
	quarry_arena *a;
	unsigned long before;

	fake_os_pool(5, 21, 64);
	a = arena_on(QUARRY_POLICY_BIND, QUARRY_PAGES_2M, "pool", 5, 5);
	cr_assert_not_null(quarry_arena_malloc(a, 40 * MIB));
	expected[5] = (64 - fake_os_pool_left(5, 21)) * QY_FRAME;
	cr_assert_geq(expected[5], 40 * MIB);
	fake_os_forget_calls();
	before = fake_os_calls(FAKE_MOVE_PAGES);
	cr_assert_geq(quarry_arena_where(a, NULL, 0), 1);
	cr_assert_leq(fake_os_calls(FAKE_MOVE_PAGES) - before, 2, "pages are asked of in batches");
	cr_assert_eq(assert_expected(a, QUARRY_PAGES_2M), 0);
}

/* Without PAGEMAP_SCAN: what is not whole is not huge, what was never to be huge is not, and the rest is not told. */
Test(where, kinds_when_the_kernel_does_not_tell)
{
	quarry_arena *base = arena_on(QUARRY_POLICY_BIND, QUARRY_PAGES_BASE, "base", 1, 1);
	quarry_arena *thp = arena_on(QUARRY_POLICY_BIND, QUARRY_PAGES_THP, "thp", 1, 1);
	char *p = quarry_arena_malloc(base, 4 * MIB), *q = quarry_arena_malloc(thp, 4 * MIB);
	quarry_residency list[2];

	fake_os_fail(FAKE_PAGE_IS_HUGE, ENOTTY);
	memset(p, 1, 4 * MIB);
	cr_assert_eq(quarry_arena_where(base, list, 2), 1);
	cr_assert_eq(list[0].by_kind[QUARRY_PAGES_BASE], list[0].bytes);
	cr_assert_geq(list[0].bytes, 4 * MIB);
	memset(q, 1, 4 * MIB);
	cr_assert_eq(quarry_arena_where(thp, list, 2), 1);
	cr_assert_eq(list[0].by_kind[QUARRY_PAGES_AUTO], list[0].bytes, "a whole frame may be huge");
	/* One page of a frame elsewhere: it cannot be. */
	cr_assert_eq(qy_os->move_pages(1, (void *[]){ q + 5 * QY_PAGE }, (const int[]){ 7 }, (int[]){ 0 }, 2), 0);
	cr_assert_eq(quarry_arena_where(thp, list, 2), 2);
	cr_assert_eq(list[0].by_kind[QUARRY_PAGES_BASE], QY_FRAME - QY_PAGE);
	cr_assert_eq(list[0].by_kind[QUARRY_PAGES_AUTO], list[0].bytes - (QY_FRAME - QY_PAGE));
	cr_assert(list[1].node == 7 && list[1].by_kind[QUARRY_PAGES_BASE] == QY_PAGE && list[1].strayed == QY_PAGE);
}

/* ---- a kernel that refuses ---- */

Test(where, without_move_pages_memory_is_counted_and_its_node_is_not_known)
{
	quarry_arena *a = arena_on(QUARRY_POLICY_BIND, QUARRY_PAGES_BASE, "a", 9, 9);
	char *p = quarry_arena_malloc(a, 5 * MIB);
	quarry_residency list[2];
	size_t bytes;

	seed();
	bytes = touch(p, 5 * MIB);
	fake_os_fail(FAKE_MOVE_PAGES, EPERM);
	cr_assert_eq(quarry_arena_where(a, list, 2), 1);
	cr_assert_eq(list[0].node, QUARRY_NODE_UNKNOWN);
	cr_assert_eq(list[0].bytes, bytes);
	cr_assert_eq(list[0].by_kind[QUARRY_PAGES_BASE], bytes);
	cr_assert_eq(list[0].strayed, 0);
	fake_os_heal();
	cr_assert_eq(quarry_arena_where(a, list, 2), 1);
	cr_assert_eq(list[0].node, 9);
}

Test(where, without_memory_for_the_list_the_sum_is_right)
{
	quarry_arena *a = arena_on(QUARRY_POLICY_INTERLEAVE, QUARRY_PAGES_BASE, "a", 0, 39);
	char *p = quarry_arena_malloc(a, 4 * MIB);
	quarry_residency list[NODES + 1];
	uint64_t sum = 0;
	size_t bytes;
	long n;

	seed();
	bytes = touch(p, 4 * MIB);
	fake_os_fail(FAKE_MMAP, ENOMEM);
	n = quarry_arena_where(a, list, COUNT(list));
	cr_assert(n > 1 && n < NODES, "%ld", n);
	cr_assert_eq(list[0].node, QUARRY_NODE_UNKNOWN);
	for (long i = 0; i < n; i++) {
		sum += list[i].bytes;
		cr_assert(i == 0 || (list[i].node > list[i - 1].node && list[i].bytes == expected[list[i].node]));
	}
	cr_assert_eq(sum, bytes);
}

/* ---- arguments ---- */

Test(where, lists_that_are_too_short_and_what_is_no_arena)
{
	quarry_arena *a = arena_on(QUARRY_POLICY_INTERLEAVE, QUARRY_PAGES_BASE, "a", 10, 19);
	char *p = quarry_arena_malloc(a, MIB);
	quarry_residency list[4];

	memset(p, 1, MIB);
	memset(list, 0x5a, sizeof(list));
	cr_assert_eq(quarry_arena_where(a, list, 3), 10);
	for (int i = 0; i < 3; i++)
		cr_assert_eq(list[i].node, 10 + i);
	cr_assert_eq(list[3].node, 0x5a5a5a5a, "not written");
	errno = 0;
	cr_assert(quarry_arena_where(a, NULL, 1) == -1 && errno == EINVAL);
	errno = 0;
	cr_assert(quarry_arena_where(NULL, list, 4) == -1 && errno == EINVAL);
	errno = 0;
	cr_assert(quarry_arena_where((quarry_arena *)(void *)list, list, 4) == -1 && errno == EINVAL);
	cr_assert_eq(quarry_arena_destroy(a), 0);
	errno = 0;
	cr_assert(quarry_arena_where(a, list, 4) == -1 && errno == EINVAL);
}

/* ---- the policy that was got ---- */

static void assert_got(int policy, int newest, int got, int applied)
{
	quarry_arena *a;
	quarry_page_info page;
	char *p;

	fake_os_newest_policy(newest);
	a = arena_on(policy, QUARRY_PAGES_BASE, "got", 2, 4);
	p = quarry_arena_malloc(a, MIB);
	cr_assert_not_null(p);
	p[0] = 1;
	cr_assert_eq(quarry_where(p, 1, &page, 1), 1);
	cr_assert_eq(page.policy, policy);
	cr_assert_eq(page.policy_got, got, "asked for %d, got %d instead of %d", policy, page.policy_got, got);
	cr_assert_eq(page.policy_applied, applied);
	cr_assert_eq(page.wanted_node, 2);
	cr_assert_eq(quarry_arena_destroy(a), 0);
}

Test(where, the_policy_that_was_got)
{
	for (int policy = QUARRY_POLICY_BIND; policy <= QUARRY_POLICY_WEIGHTED_INTERLEAVE; policy++)
		assert_got(policy, QY_MPOL_WEIGHTED_INTERLEAVE, policy, 1);
	assert_got(QUARRY_POLICY_PREFERRED_MANY, QY_MPOL_LOCAL, QUARRY_POLICY_PREFERRED, 1);
	assert_got(QUARRY_POLICY_WEIGHTED_INTERLEAVE, QY_MPOL_PREFERRED_MANY, QUARRY_POLICY_INTERLEAVE, 1);
	fake_os_fail(FAKE_MBIND, EPERM);
	assert_got(QUARRY_POLICY_BIND, QY_MPOL_WEIGHTED_INTERLEAVE, QUARRY_POLICY_LOCAL, 0);
}

/* ---- of what a view tells ---- */

static struct seen {
	const char *block;
	size_t told, resident, there, huge, regions_resident, slabs_resident;
	int node;
} seen;

static int see(const quarry_view_item *item, void *ctx)
{
	(void)ctx;
	if (item->kind == QUARRY_VIEW_REGION) {
		seen.regions_resident += item->resident;
	} else if (item->kind == QUARRY_VIEW_SLAB) {
		seen.slabs_resident += item->resident;
	} else if (item->kind == QUARRY_VIEW_OBJECT) {
		cr_assert(item->resident == 0 && item->resident_node == QUARRY_NODE_NONE);
	} else if (item->address == seen.block) {
		seen.told++;
		seen.resident = item->resident;
		seen.there = item->resident_there;
		seen.huge = item->huge;
		seen.node = item->resident_node;
	}
	return 0;
}

#define ALL (QUARRY_VIEW_REGION | QUARRY_VIEW_SLAB | QUARRY_VIEW_OBJECT | QUARRY_VIEW_BLOCK)

Test(where, pages_of_a_view)
{
	quarry_arena *a = arena_on(QUARRY_POLICY_BIND, QUARRY_PAGES_BASE, "seen", 2, 2);
	quarry_arena *two = arena_on(QUARRY_POLICY_INTERLEAVE, QUARRY_PAGES_BASE, "two", 3, 4);
	char *p = quarry_arena_malloc(a, 5 * MIB + 12345), *q = quarry_arena_malloc(two, 3 * MIB);
	char *small = quarry_arena_malloc(a, 100);
	quarry_view *v = quarry_view_open();
	size_t bytes;

	seed();
	cr_assert_not_null(v);
	small[0] = 1;
	bytes = touch(p, 5 * MIB);
	/* Also what was touched after the moment: it is of now. */
	memset(&seen, 0, sizeof(seen));
	seen.block = p;
	cr_assert_eq(quarry_view_visit(v, ALL | QUARRY_VIEW_PAGES, see, NULL), 0);
	cr_assert_eq(seen.told, 1);
	cr_assert_eq(seen.resident, bytes, "%zu instead of %zu", seen.resident, bytes);
	cr_assert(seen.there == bytes && seen.node == id_of(2) && seen.huge == 0);
	cr_assert_geq(seen.regions_resident, bytes + QY_PAGE);
	cr_assert_geq(seen.slabs_resident, QY_PAGE);
	/* Some here, more there. */
	memset(expected, 0, sizeof(expected));
	bytes = touch(q, 3 * MIB);
	memset(&seen, 0, sizeof(seen));
	seen.block = q;
	quarry_view_visit(v, QUARRY_VIEW_BLOCK | QUARRY_VIEW_PAGES, see, NULL);
	cr_assert_eq(seen.resident, bytes);
	cr_assert_eq(seen.there, expected[3] > expected[4] ? expected[3] : expected[4]);
	cr_assert_eq(seen.node, expected[3] >= expected[4] ? 3 : 4);
	cr_assert_eq(seen.regions_resident, 0, "regions were not asked for");
	/* It is asked for. */
	memset(&seen, 0, sizeof(seen));
	seen.block = q;
	quarry_view_visit(v, ALL, see, NULL);
	cr_assert(seen.told == 1 && seen.resident == 0 && seen.node == QUARRY_NODE_NONE);
	/* What has gone since is not in memory. */
	quarry_arena_destroy(two);
	quarry_view_visit(v, ALL | QUARRY_VIEW_PAGES, see, NULL);
	cr_assert(seen.told == 2 && seen.resident == 0 && seen.node == QUARRY_NODE_NONE);
	cr_assert_eq(quarry_view_visit(v, QUARRY_VIEW_PAGES, see, NULL), -1);
	cr_assert_eq(quarry_view_visit(v, 32, see, NULL), -1);
	quarry_view_close(v);
}
