/* SPDX-License-Identifier: MIT */
/* Memory that goes to other nodes: arenas that are moved, pages that strayed and are brought home, what is strict and
 * fails instead, and what a forked child gets of huge pages. On the machine that the fake kernel plays, which is asked
 * where each page is. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <sys/wait.h>
#include <unistd.h>

#include "include/quarry/quarry.h"
#include "lib/manager/events.h"
#include "lib/manager/homing.h"
#include "lib/manager/manager.h"
#include "tests/unit/eight_nodes.h"

#define MIB ((size_t)1 << 20)
#define BLOCKS 40

/* ---- a kernel that lets pages stray, and will not move some ---- */

#define STRAYS 8192

static struct {
	uintptr_t page;
	int node;
} strays[STRAYS];
static size_t stray_count;
static int stuck;      /* so many pages in a row are busy */
static uint64_t asked; /* pages that were to be moved */
static long (*real_move_pages)(unsigned long count, void **pages, const int *nodes, int *status, int flags);

static long straying_move_pages(unsigned long count, void **pages, const int *nodes, int *status, int flags)
{
	long r = real_move_pages(count, pages, NULL, status, 0);

	for (unsigned long i = 0; i < count && r == 0; i++) {
		size_t s = 0;

		while (s < stray_count && strays[s].page != (uintptr_t)pages[i])
			s++;
		if (nodes == NULL) {
			if (s < stray_count && status[i] >= 0)
				status[i] = strays[s].node;
			continue;
		}
		asked++;
		if (stuck > 0) {
			stuck--;
			status[i] = -EBUSY;
			continue;
		}
		if (s < stray_count)
			strays[s] = strays[--stray_count];
		r = real_move_pages(1, &pages[i], &nodes[i], &status[i], flags);
	}
	return r;
}

static void begin_straying(void)
{
	begin();
	real_move_pages = kernel.move_pages;
	kernel.move_pages = straying_move_pages;
	stray_count = 0;
	stuck = 0;
	asked = 0;
}

static void stray(const void *p, size_t len, int node)
{
	for (uintptr_t at = (uintptr_t)p & ~(QY_PAGE - 1); at < (uintptr_t)p + len; at += QY_PAGE) {
		cr_assert_lt(stray_count, STRAYS);
		strays[stray_count].page = at;
		strays[stray_count++].node = node;
	}
}

/* ---- an arena with something in it ---- */

static quarry_arena *arena;
static unsigned char *blocks[BLOCKS];
static size_t sizes[BLOCKS];

static quarry_nodeset set_of(const int *nodes)
{
	quarry_nodeset set = { { 0 } };

	for (; *nodes >= 0; nodes++)
		quarry_nodeset_add(&set, (unsigned)*nodes);
	return set;
}

#define on(...) set_of((const int[]){ __VA_ARGS__, -1 })

static void *get(size_t size)
{
	unsigned char *p = quarry_arena_malloc(arena, size);

	cr_assert_not_null(p, "%s", strerror(errno));
	for (size_t at = 0; at < size; at += 512)
		p[at] = (unsigned char)(size ^ at >> 9);
	return p;
}

static void check(const unsigned char *p, size_t size)
{
	for (size_t at = 0; at < size; at += 512)
		cr_assert_eq(p[at], (unsigned char)(size ^ at >> 9), "at %zu of %zu", at, size);
}

static void fill_arena(int policy, int kind, uint32_t flags, quarry_nodeset nodes)
{
	quarry_arena_attr attr = { .policy = policy, .page_kind = kind, .flags = flags, .nodes = nodes, .name = "moving" };

	arena = quarry_arena_create(&attr);
	cr_assert_not_null(arena, "%s", quarry_error_text());
	for (int i = 0; i < BLOCKS; i++) {
		sizes[i] = i % 4 == 0 ? 40 + 70 * (size_t)i : i % 4 == 3 ? 3 * MIB + 4096 * (size_t)i : 50000 + 9000 * (size_t)i;
		blocks[i] = get(sizes[i]);
	}
}

static void check_arena(void)
{
	for (int i = 0; i < BLOCKS; i++)
		check(blocks[i], sizes[i]);
}

/* How many of the arena's pages are on each node; by place in `ids`. */
static uint64_t count_pages(uint64_t pages[NODES])
{
	uint64_t sum = 0;

	memset(pages, 0, NODES * sizeof(pages[0]));
	for (int i = 0; i < BLOCKS; i++) {
		for (uintptr_t at = (uintptr_t)blocks[i] & ~(QY_PAGE - 1); at < (uintptr_t)blocks[i] + sizes[i]; at += QY_PAGE) {
			void *page = (void *)at;
			int node;

			cr_assert_eq(kernel.move_pages(1, &page, NULL, &node, 0), 0);
			cr_assert_geq(node, 0, "the page is in memory");
			for (int k = 0; k < NODES; k++)
				pages[k] += node == ids[k];
			sum++;
		}
	}
	return sum;
}

#define all_on(first, last) all_on_at(first, last, __LINE__)
static void all_on_at(int first, int last, int line)
{
	uint64_t pages[NODES], there = 0, all = count_pages(pages);

	for (int k = first; k <= last; k++)
		there += pages[k];
	cr_assert_eq(there, all, "line %d: %lu of %lu pages are there", line, (unsigned long)there, (unsigned long)all);
}

/* ---- moving ---- */

static quarry_move_report move(quarry_nodeset nodes, int result, int error)
{
	quarry_move_report report = { .struct_size = sizeof(report) };

	errno = 0;
	cr_assert_eq(quarry_arena_move(arena, &nodes, &report), result, "%s", strerror(errno));
	if (error != 0)
		cr_assert_eq(errno, error, "%s", strerror(errno));
	return report;
}

Test(move, what_is_there_goes_and_what_comes_follows)
{
	quarry_move_report report;
	uint64_t pages[NODES], all;
	quarry_stats stats = { .version = QUARRY_STATS_VERSION };

	begin_straying();
	fill_arena(QUARRY_POLICY_BIND, QUARRY_PAGES_BASE, 0, on(1));
	all_on(1, 1);
	all = (count_pages(pages) - BLOCKS) * QY_PAGE; /* small ones share pages */
	report = move(on(65), 0, 0);
	all_on(6, 6);
	check_arena();
	cr_assert_geq(report.moved, all);
	cr_assert_eq(report.left, 0);
	cr_assert_eq(report.there, 0);
	cr_assert_eq(report.rounds, 1);
	cr_assert_eq(fake_os_node_at(get(9 * MIB)), 65);
	cr_assert_eq(fake_os_node_at(get(100)), 65);
	cr_assert_eq(quarry_stats_get(arena, &stats), 0);
	cr_assert_eq(stats.moved, report.moved);
	cr_assert_eq(stats.strayed, 0);
	/* What is there need not go. */
	asked = 0;
	report = move(on(65), 0, 0);
	cr_assert_eq(asked, 0);
	cr_assert_eq(report.moved, 0);
	cr_assert_geq(report.there, all);
	cr_assert_eq(quarry_arena_destroy(arena), 0);
}

Test(move, each_policy_goes_as_it_is)
{
	uint64_t pages[NODES], all;

	begin_straying();
	fill_arena(QUARRY_POLICY_INTERLEAVE, QUARRY_PAGES_BASE, 0, on(0, 1));
	move(on(1, 2, 3), 0, 0);
	all_on(1, 3);
	all = count_pages(pages);
	for (int k = 1; k <= 3; k++)
		cr_assert(pages[k] > all * 3 / 10 && pages[k] < all * 4 / 10, "node %d has %lu of %lu", k,
			  (unsigned long)pages[k], (unsigned long)all);
	check_arena();
	quarry_arena_destroy(arena);

	fill_arena(QUARRY_POLICY_PREFERRED, QUARRY_PAGES_THP, 0, on(2));
	move(on(4, 5), 0, 0);
	all_on(4, 4);
	check_arena();
	quarry_arena_destroy(arena);

	/* What is on one of the set stays. */
	fill_arena(QUARRY_POLICY_PREFERRED_MANY, QUARRY_PAGES_BASE, 0, on(2));
	asked = 0;
	move(on(2, 4), 0, 0);
	cr_assert_eq(asked, 0);
	move(on(3, 4), 0, 0);
	all_on(3, 4);
	check_arena();
	quarry_arena_destroy(arena);

	for (int k = 0; k < NODES; k++)
		fake_os_pool(ids[k], 21, 100);
	fill_arena(QUARRY_POLICY_BIND, QUARRY_PAGES_2M, 0, on(2));
	move(on(1000), 0, 0);
	all_on(7, 7);
	check_arena();
	quarry_arena_destroy(arena);
}

Test(move, those_of_the_local_policy_go_to_the_nearest)
{
	unsigned char *p, *q;
	quarry_arena_attr attr = { .policy = QUARRY_POLICY_LOCAL };
	quarry_nodeset set = on(1, 3);

	begin_straying();
	fake_os_distance(0, 1, 40);
	fake_os_distance(0, 3, 21);
	arena = quarry_arena_create(&attr);
	fake_os_this_thread_on_cpu(0);
	p = get(3 * MIB);
	fake_os_this_thread_on_cpu(4);
	q = get(3 * MIB);
	cr_assert_eq(fake_os_node_at(p), 0);
	cr_assert_eq(fake_os_node_at(q), 1);
	move(set, 0, 0);
	cr_assert_eq(fake_os_node_at(p), 3);
	cr_assert_eq(fake_os_node_at(q), 1);
	fake_os_this_thread_on_cpu(0);
	cr_assert_eq(fake_os_node_at(get(3 * MIB)), 3);
	check(p, 3 * MIB);
	/* And back, each to its own. */
	set = on(0, 1, 2, 3, 4, 5);
	move(set, 0, 0);
	cr_assert_eq(fake_os_node_at(p), 0);
	cr_assert_eq(fake_os_node_at(q), 1);
	cr_assert_eq(fake_os_node_at(get(3 * MIB)), 0);
	cr_assert_eq(quarry_arena_destroy(arena), 0);
}

Test(move, what_cannot_go_yet_is_told_and_tried_again)
{
	quarry_move_report report;

	begin_straying();
	fill_arena(QUARRY_POLICY_BIND, QUARRY_PAGES_BASE, 0, on(1));
	stuck = 100; /* less than are tried in one round, so that the second gets them */
	report = move(on(4), 0, 0);
	cr_assert_eq(report.rounds, 2, "%u rounds, %lu left", report.rounds, (unsigned long)report.left);
	cr_assert_eq(report.left, 0);
	all_on(4, 4);
	stuck = 1000000000;
	report = move(on(2), -1, EAGAIN);
	cr_assert_gt(report.left, 0);
	cr_assert_eq(report.moved, 0);
	check_arena();
	cr_assert_eq(fake_os_node_at(get(20 * MIB)), 2, "what comes is there");
	/* The reclaimer goes on with it. */
	stuck = 0;
	for (uint64_t now = 1, next = 0; now < 1000000 && next != UINT64_MAX; now += 1000)
		qy_homing_pass(now, SIZE_MAX, &next);
	all_on(2, 2);
}

Test(move, refusals_change_nothing)
{
	quarry_nodeset set = on(4);

	begin_straying();
	fill_arena(QUARRY_POLICY_BIND, QUARRY_PAGES_BASE, 0, on(1));
	fake_os_fail(FAKE_MOVE_PAGES, EPERM);
	move(set, -1, EPERM);
	fake_os_heal();
	fake_os_fail(FAKE_MBIND, ENOSYS);
	move(set, -1, ENOSYS);
	fake_os_heal();
	all_on(1, 1);
	cr_assert_eq(fake_os_node_at(get(20 * MIB)), 1);
	check_arena();
	move(on(77), -1, EINVAL);
	cr_assert(strstr(quarry_error_text(), "77") != NULL, "%s", quarry_error_text());
	memset(&set, 0, sizeof(set));
	move(set, -1, EINVAL);
	fake_os_allowed("0-2");
	move(on(4), -1, EINVAL);
	cr_assert_eq(quarry_arena_move((quarry_arena *)&set, NULL, NULL), -1);
	cr_assert_eq(errno, EINVAL);
	{
		quarry_move_report wrong = { .struct_size = 3 };

		cr_assert_eq(quarry_arena_move(arena, NULL, &wrong), -1);
		cr_assert_eq(errno, EINVAL);
	}
}

/* ---- strayed ---- */

static uint64_t strayed_of(quarry_arena *a)
{
	quarry_stats stats = { .version = QUARRY_STATS_VERSION };

	cr_assert_eq(quarry_stats_get(a, &stats), 0);
	return stats.strayed;
}

/* The kernel has turned pages away from a node, so many since boot. */
static void turned_away(int node, int pages)
{
	char path[64], text[64];

	snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/numastat", node);
	snprintf(text, sizeof(text), "numa_hit 7\nnuma_miss 0\nnuma_foreign %d\n", pages);
	fake_os_file(path, text);
}

static quarry_event heard;

static void hear(const quarry_event *event, void *ctx)
{
	(void)ctx;
	if (event->kind == QUARRY_EVENT_FALLBACK)
		heard = *event;
}

Test(homing, pages_come_home_when_there_is_room)
{
	quarry_stats stats = { .version = QUARRY_STATS_VERSION };
	uint64_t next, now = 5000;
	unsigned char *p, *q;

	begin_straying();
	quarry_on_event(hear, NULL);
	arena = quarry_arena_of_node(3);
	p = get(8 * MIB);
	q = get(5000);
	qy_homing_pass(now, SIZE_MAX, &next);
	cr_assert(next > now && next != UINT64_MAX, "memory came: it is looked at soon");
	/* Nothing strayed, says the kernel: nobody looks. */
	fake_os_forget_calls();
	qy_homing_pass(now += 1000, SIZE_MAX, &next);
	cr_assert_eq(fake_os_calls(FAKE_MOVE_PAGES), 0);
	cr_assert_gt(next, now + 1000, "and less often");
	/* The node is full. */
	stray(p, 3 * MIB, 4);
	stray(q, 4096, 5);
	fake_os_memory(3, (uint64_t)1 << 30, 1 * MIB);
	turned_away(3, 768);
	qy_homing_pass(now += 100000, SIZE_MAX, &next);
	cr_assert_eq(strayed_of(arena), stray_count * QY_PAGE, "%lu, not %zu", (unsigned long)strayed_of(arena),
		     stray_count * QY_PAGE);
	cr_assert_eq(asked, 0, "there is no room");
	cr_assert_leq(next, now + 1000, "it is known that some are abroad");
	qy_events_deliver();
	cr_assert_eq(heard.what, QUARRY_FALLBACK_NODE);
	cr_assert_eq(heard.arena, arena);
	cr_assert_eq(heard.was, 3);
	cr_assert_eq(heard.state, -1);
	cr_assert_eq(heard.bytes, stray_count * QY_PAGE);
	/* It has room again. */
	fake_os_memory(3, (uint64_t)1 << 30, (uint64_t)1 << 30);
	for (int pass = 0; pass < 40 && strayed_of(arena) > 0; pass++)
		qy_homing_pass(now += 1000, 8 * MIB, &next);
	cr_assert_eq(strayed_of(arena), 0);
	cr_assert_eq(stray_count, 0);
	cr_assert_eq(quarry_stats_get(arena, &stats), 0);
	cr_assert_geq(stats.brought_home, 3 * MIB + QY_PAGE);
	cr_assert_eq(fake_os_node_at(p), 3);
	check(p, 8 * MIB);
	check(q, 5000);
}

Test(homing, not_when_it_is_off_nor_where_there_is_no_home)
{
	uint64_t next, now = 5000;

	begin_straying();
	arena = quarry_arena_of_node(3);
	stray(get(4 * MIB), 4 * MIB, 4);
	cr_assert_eq(quarry_ctl_set("bring_home", "0"), 0);
	turned_away(3, 1);
	for (int pass = 0; pass < 10; pass++)
		qy_homing_pass(now += 1000, SIZE_MAX, &next);
	cr_assert_eq(next, UINT64_MAX);
	cr_assert_eq(asked, 0);
	cr_assert_eq(quarry_ctl_set("bring_home", "1"), 0);
	fake_os_allowed("0,1");
	for (int pass = 0; pass < 10; pass++)
		qy_homing_pass(now += 1000, SIZE_MAX, &next);
	cr_assert_eq(asked, 0, "the node is forbidden");
	fake_os_allowed("0-5,65,1000");
	turned_away(3, 2);
	for (int pass = 0; pass < 10; pass++)
		qy_homing_pass(now += 1000, SIZE_MAX, &next);
	cr_assert_eq(stray_count, 0);
}

/* The kernel moves pages to where a cpuset's new nodes are after it has told of them, and counts none as turned away. */
Test(homing, what_the_kernel_moves_after_a_cpuset_changed_comes_home)
{
	uint64_t next, now = 5000, moved;
	unsigned char *p;
	int seen = 0;

	begin_straying();
	arena = quarry_arena_of_node(3);
	p = get(4 * MIB);
	for (int pass = 0; pass < 20; pass++) {
		qy_homing_pass(now, SIZE_MAX, &next);
		now = next;
	}
	fake_os_allowed("2-4");
	qy_homing_pass(now += 1000, SIZE_MAX, &next);
	stray(p, 4 * MIB, 4);
	for (moved = now; stray_count > 0 && now < moved + 60000; now = next)
		qy_homing_pass(now, SIZE_MAX, &next);
	cr_assert_eq(stray_count, 0, "%zu pages are abroad after a minute", stray_count);
	cr_assert_leq(now, moved + 4000, "%lu ms later", (unsigned long)(now - moved));
	/* That is kept up for a while, not for ever: then one look in sixteen goes and sees. */
	for (int look = 0; look < 40; look++) {
		fake_os_forget_calls();
		qy_homing_pass(now, SIZE_MAX, &next);
		now = next;
		seen += look >= 24 && fake_os_calls(FAKE_MOVE_PAGES) > 0;
	}
	cr_assert_eq(seen, 1, "%d", seen);
}

Test(homing, asked_for_by_name)
{
	quarry_move_report report = { .struct_size = sizeof(report) };

	begin_straying();
	arena = quarry_arena_of_node(2);
	stray(get(4 * MIB), 4 * MIB, 4);
	cr_assert_eq(quarry_arena_move(arena, NULL, &report), 0);
	cr_assert_eq(report.moved, 4 * MIB);
	cr_assert_eq(stray_count, 0);
}

/* ---- strict ---- */

Test(strict, a_full_node_is_an_error_and_nobody_is_killed)
{
	size_t got = 0;

	begin();
	fake_os_memory(5, (uint64_t)1 << 30, 100 * MIB);
	fill_arena(QUARRY_POLICY_BIND, QUARRY_PAGES_BASE, QUARRY_ARENA_STRICT, on(4));
	quarry_arena_destroy(arena);
	arena = quarry_arena_create(&(quarry_arena_attr){ .policy = QUARRY_POLICY_BIND, .flags = QUARRY_ARENA_STRICT,
							   .nodes = on(5) });
	cr_assert_not_null(arena);
	for (errno = 0; quarry_arena_malloc(arena, 8 * MIB) != NULL; got++) {
		uint64_t left = got * 8 * MIB < 100 * MIB ? 100 * MIB - got * 8 * MIB : 0;

		cr_assert_lt(got, 20);
		fake_os_memory(5, (uint64_t)1 << 30, left);
	}
	cr_assert_eq(errno, ENOMEM);
	cr_assert_geq(got, 5);
	cr_assert_gt(refused(QUARRY_REFUSED_NODE_FULL), 0);
}

static int bound;
static int (*real_madvise)(void *addr, size_t len, int advice);

/* Counts what is filled while it is bound. */
static int bound_madvise(void *addr, size_t len, int advice)
{
	if (advice == QY_MADV_POPULATE_WRITE)
		bound += fake_os_policy_at(addr, NULL, 0, NULL) == QY_MPOL_BIND;
	return real_madvise(addr, len, advice);
}

/* What is preferred, and may not fall, is bound. */
Test(strict, the_kernel_is_told_to_bind)
{
	static const int policies[] = { QUARRY_POLICY_LOCAL, QUARRY_POLICY_PREFERRED, QUARRY_POLICY_PREFERRED_MANY };

	begin();
	real_madvise = kernel.madvise;
	kernel.madvise = bound_madvise;
	for (size_t i = 0; i < 3; i++) {
		quarry_arena_attr attr = { .policy = policies[i], .flags = QUARRY_ARENA_STRICT, .nodes = on(2) };
		int nodes[2], count;
		void *p;

		bound = 0;
		arena = quarry_arena_create(&attr);
		cr_assert_not_null(arena, "%s", quarry_error_text());
		p = get(3 * MIB);
		/* While it is filled; then it may not have the kernel kill for a copy. */
		cr_assert_geq(bound, 1);
		cr_assert_neq(fake_os_policy_at(p, nodes, 2, &count), QY_MPOL_BIND);
		cr_assert(count == 1 && nodes[0] == 2);
		cr_assert_eq(quarry_arena_destroy(arena), 0);
	}
}

/* ---- pools ---- */

Test(pools, dry_on_one_node_the_next_rung_is_taken_there)
{
	quarry_page_info info;
	void *p;

	begin();
	fake_os_pool(4, 21, 50);
	arena = quarry_arena_create(&(quarry_arena_attr){ .policy = QUARRY_POLICY_PREFERRED, .page_kind = QUARRY_PAGES_2M,
							   .nodes = on(3) });
	p = get(3 * MIB);
	cr_assert_eq(fake_os_node_at(p), 3);
	cr_assert_eq(quarry_where(p, 1, &info, 1), 1);
	cr_assert_eq(info.node, 3);
	cr_assert_eq(info.wanted_kind, QUARRY_PAGES_2M);
	cr_assert_neq(info.page_kind, QUARRY_PAGES_2M);
	cr_assert_eq(fake_os_pool_left(4, 21), 50, "nobody took from the other's pool");
	cr_assert_gt(refused(QUARRY_REFUSED_HUGE_2M), 0);
	/* Strictly: an error. */
	cr_assert_null(quarry_arena_create(&(quarry_arena_attr){ .policy = QUARRY_POLICY_PREFERRED,
								  .page_kind = QUARRY_PAGES_2M,
								  .flags = QUARRY_ARENA_STRICT, .nodes = on(3) }));
	cr_assert_eq(errno, ENOMEM);
}

/* ---- fork ---- */

Test(fork, a_child_has_its_own_copy_of_huge_pages)
{
	int status;
	pid_t child;

	begin();
	fake_os_pool(3, 21, 200);
	fill_arena(QUARRY_POLICY_BIND, QUARRY_PAGES_2M, 0, on(3));
	cr_assert_gt(qy_read(&qy_manager_of(blocks[0])->kind_got[QUARRY_PAGES_2M]), 0);
	child = fork();
	if (child == 0) {
		struct qy_manager *m = qy_manager_of(blocks[0]);
		unsigned bad = 0;

		for (int i = 0; i < BLOCKS; i++)
			for (size_t at = 0; at < sizes[i]; at += 512)
				bad += blocks[i][at] != (unsigned char)(sizes[i] ^ at >> 9);
		bad += qy_read(&m->kind_got[QUARRY_PAGES_2M]) != 0;
		bad += qy_read(&m->kind_got[QUARRY_PAGES_THP]) == 0;
		bad += quarry_arena_malloc(arena, 5 * MIB) == NULL;
		_exit(bad > 100 ? 100 : (int)bad);
	}
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert_eq(status, 0, "%x", (unsigned)status);
	cr_assert_gt(qy_read(&qy_manager_of(blocks[0])->kind_got[QUARRY_PAGES_2M]), 0);
	check_arena();
	cr_assert_eq(refused(QUARRY_REFUSED_FORK), 0);
	/* More than fork_copy is left to the kernel, and counted. */
	cr_assert_eq(quarry_ctl_set("fork_copy", "1m"), 0);
	child = fork();
	if (child == 0)
		_exit(qy_read(&qy_manager_of(blocks[0])->kind_got[QUARRY_PAGES_2M]) == 0);
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert_eq(status, 0);
	cr_assert_eq(refused(QUARRY_REFUSED_FORK), 1);
}

/* ---- the program's own policy ---- */

Test(policy, what_the_program_decided_for_its_threads_holds)
{
	unsigned long mask[FAKE_NODES / 64] = { 0x6 };
	int nodes[2], count;
	void *before, *during, *after;
	uint64_t next, now = 5000;

	begin_straying();
	arena = quarry_arena_of_node(3);
	before = get(8 * MIB);
	cr_assert_eq(qy_os->set_mempolicy(QY_MPOL_INTERLEAVE, mask, FAKE_NODES), 0);
	during = get(80 * MIB);
	cr_assert_eq(fake_os_policy_at(during, nodes, 2, &count), QY_MPOL_DEFAULT);
	/* Nothing of it strayed, wherever it is. */
	turned_away(3, 5);
	for (int pass = 0; pass < 10; pass++)
		qy_homing_pass(now += 1000, SIZE_MAX, &next);
	cr_assert_eq(asked, 0);
	cr_assert_eq(strayed_of(arena), 0);
	cr_assert_eq(qy_os->set_mempolicy(QY_MPOL_DEFAULT, NULL, 0), 0);
	after = get(160 * MIB);
	cr_assert_eq(fake_os_policy_at(after, nodes, 2, &count), QY_MPOL_PREFERRED);
	cr_assert_eq(fake_os_node_at(before), 3);
	/* Who asks for it to go, has it go. */
	move(on(4), 0, 0);
	cr_assert_eq(fake_os_node_at(during), 4);
	cr_assert_eq(fake_os_node_at(after), 4);
}
