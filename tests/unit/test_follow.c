/* SPDX-License-Identifier: MIT */
/* Nodes and the threads on them, from malloc down to what the kernel was told: each node's arena has memory of that
 * node, a thread allocates where it runs, and what it frees goes home. On the machine that the fake kernel plays. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>

#include "include/quarry/quarry.h"
#include "lib/manager/manager.h"
#include "tests/unit/eight_nodes.h"

/* ---- nodes' arenas ---- */

Test(follow, each_node_has_a_default_arena_of_its_own_memory)
{
	size_t zone[NODES];

	begin();
	for (int k = 0; k < NODES; k++) {
		struct qy_manager *m = qy_manager_of_node(k);
		int nodes[2], count;
		char name[32];
		bool zero;
		char *p;

		cr_assert(m != NULL && m->of_node && m->index == (uint32_t)k && qy_manager_of_node(k) == m);
		snprintf(name, sizeof(name), "node %d", ids[k]);
		cr_assert_str_eq(m->name, name);
		for (size_t size = 50000; size < 20000000; size *= 7) {
			p = qy_large_alloc(m, size, QY_PAGE, &zero);
			cr_assert_not_null(p);
			for (size_t at = 0; at < size; at += size - 1) {
				cr_assert_eq(fake_os_policy_at(p + at, nodes, 2, &count), QY_MPOL_PREFERRED);
				cr_assert(count == 1 && nodes[0] == ids[k], "node %d", nodes[0]);
				cr_assert_eq(fake_os_node_at(p + at), ids[k]);
			}
			cr_assert_eq(qy_manager_of(p), m);
		}
		zone[k] = qy_window_offset(p) >> QY_ZONE_SHIFT;
		for (int other = 0; other < k; other++)
			cr_assert_neq(zone[k], zone[other], "the side arrays of a node's memory are its own");
	}
	cr_assert_eq(all_refused(), 0);
}

Test(follow, strict_default_arenas_fail_where_others_fall)
{
	bool zero;

	begin();
	fake_os_fail_numa(EPERM);
	cr_assert_not_null(qy_large_alloc(qy_manager_of_node(3), 100000, QY_PAGE, &zero));
	cr_assert_eq(qy_read(&qy_manager_of_node(3)->unplaced), QY_FRAME);
	cr_assert_eq(quarry_ctl_set("strict", "1"), 0);
	cr_assert_null(qy_large_alloc(qy_manager_of_node(4), 100000, QY_PAGE, &zero));
	cr_assert_eq(qy_read(&qy_manager_of_node(4)->mapped), 0);
}

/* ---- a thread that moves ---- */

static int node_of_memory(const void *p)
{
	return (int)qy_manager_of(p)->index;
}

static void run_on_node(int k)
{
	fake_os_this_thread_on_cpu(4 * k + 1);
}

#define SIZE 112
#define MANY 2000

static quarry_stats stats_of(quarry_arena *arena)
{
	quarry_stats stats = { .version = QUARRY_STATS_VERSION };

	cr_assert_eq(quarry_stats_get(arena, &stats), 0);
	return stats;
}

static uint64_t moves(void)
{
	return stats_of(NULL).node_moves;
}

/* Allocate until memory is of another node than the one before; at most MANY. */
static void *allocate_until_node(int k)
{
	for (int n = 0; n < MANY; n++) {
		void *p = quarry_malloc(SIZE);

		cr_assert_not_null(p);
		memset(p, 1, SIZE);
		if (node_of_memory(p) == k)
			return p;
	}
	cr_assert(false, "the thread's memory did not follow it");
	return NULL;
}

Test(follow, a_thread_allocates_where_it_is_after_its_next_refill)
{
	static const int way[] = { 3, 5, 0, 7, 6, 3 };
	uint64_t before;
	char *p;

	begin();
	run_on_node(way[0]);
	p = quarry_malloc(SIZE);
	cr_assert_eq(node_of_memory(p), way[0]);
	before = moves();
	for (unsigned i = 1; i < sizeof(way) / sizeof(way[0]); i++) {
		run_on_node(way[i]);
		allocate_until_node(way[i]);
		for (int n = 0; n < MANY; n++) {
			p = quarry_malloc(n % 3 ? SIZE : SIZE + 100);
			cr_assert_eq(node_of_memory(p), way[i], "it stays there while the thread does");
			cr_assert_eq(fake_os_node_at(p), ids[way[i]]);
		}
		cr_assert_eq(node_of_memory(quarry_malloc(100000)), way[i]);
		cr_assert_eq(node_of_memory(quarry_malloc(5000000)), way[i]);
	}
	cr_assert_eq(moves(), before + 5);
}

Test(follow, what_is_freed_goes_home_to_the_node_it_came_from)
{
	static void *of_3[MANY];
	uint64_t used, mapped;
	struct qy_slab *s;

	begin();
	run_on_node(3);
	for (int n = 0; n < MANY; n++)
		of_3[n] = quarry_malloc(SIZE);
	used = qy_read(&qy_manager_of_node(3)->used);
	mapped = qy_read(&qy_manager_of_node(5)->mapped);
	cr_assert_eq(mapped, 0);
	run_on_node(5);
	allocate_until_node(5);
	mapped = qy_read(&qy_manager_of_node(5)->mapped);
	s = qy_slab_of(of_3[0]);
	for (int n = 0; n < MANY; n++)
		quarry_free(of_3[n]);
	quarry_thread_flush();
	cr_assert_eq(qy_read(&qy_manager_of_node(5)->mapped), mapped);
	cr_assert_lt(qy_read(&qy_manager_of_node(3)->used), used, "empty slabs went back to node 3");
	cr_assert(qy_slab_of(of_3[0]) == NULL || qy_slab_of(of_3[0]) == s);
	/* Back on node 3, that memory is had again: nothing more is asked of the kernel. */
	mapped = qy_read(&qy_manager_of_node(3)->mapped);
	run_on_node(3);
	allocate_until_node(3);
	for (int n = 0; n < MANY; n++)
		cr_assert_eq(node_of_memory(quarry_malloc(SIZE)), 3);
	cr_assert_eq(qy_read(&qy_manager_of_node(3)->mapped), mapped);
}

static void *crossing[MANY];
static int node_of_other; /* where the other thread's own memory is */

static void *free_elsewhere(void *unused)
{
	run_on_node(6);
	node_of_other = node_of_memory(quarry_malloc(SIZE));
	for (int n = 0; n < MANY; n++)
		quarry_free(crossing[n]);
	quarry_thread_flush();
	return unused;
}

Test(follow, another_threads_frees_go_home_in_batches)
{
	pthread_t thread;
	bool again[MANY] = { false };
	int found = 0;

	begin();
	run_on_node(2);
	for (int n = 0; n < MANY; n++)
		crossing[n] = quarry_malloc(SIZE);
	cr_assert_eq(pthread_create(&thread, NULL, free_elsewhere, NULL), 0);
	pthread_join(thread, NULL);
	cr_assert_eq(node_of_other, 6);
	cr_assert_lt(qy_read(&qy_manager_of_node(6)->used), (uint64_t)MANY * SIZE);
	for (int n = 0; n < 2 * MANY; n++) {
		void *p = quarry_malloc(SIZE);

		cr_assert_eq(node_of_memory(p), 2);
		for (int k = 0; k < MANY; k++)
			if (crossing[k] == p && !again[k]) {
				again[k] = true;
				found++;
			}
	}
	cr_assert_eq(found, MANY, "all of it was had again, where it came from");
	cr_assert_eq(stats_of(quarry_arena_of_node(ids[2])).remote_frees, MANY, "by way of the owner");
	cr_assert_eq(stats_of(quarry_arena_of_node(ids[6])).remote_frees, 0);
}

/* A CPU whose node has no memory, and one that the cpuset does not allow. */
Test(follow, a_node_without_memory_is_not_asked)
{
	void *p;

	begin();
	fake_os_memory(1, 0, 0);
	fake_os_distance(1, 4, 11);
	run_on_node(1);
	p = quarry_malloc(SIZE);
	cr_assert_eq(node_of_memory(p), 4, "the nearest that has memory");
}
