/* SPDX-License-Identifier: MIT */
/* Nodes and the threads on them, from malloc down to what the kernel was told: each node's arena has memory of that
 * node, a thread allocates where it runs, and what it frees goes home. On the machine that the fake kernel plays. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>

#include "include/quarry/quarry.h"
#include "lib/manager/manager.h"
#include "lib/manager/move.h"
#include "tests/unit/moving.h"

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
	quarry_purge(quarry_arena_of_node(ids[3])); /* who looks after the node takes in what was sent there */
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

/* ---- without entering ---- */

Test(follow, a_thread_that_stays_put_refills_quickly)
{
	unsigned long calls;

	begin();
	run_on_node(2);
	with_rseq();
	for (int n = 0; n < MANY; n++)
		cr_assert_eq(node_of_memory(quarry_malloc(SIZE)), 2);
	fake_os_forget_calls();
	for (int n = 0; n < 20 * MANY; n++)
		cr_assert_eq(node_of_memory(quarry_malloc(SIZE)), 2);
	calls = fake_os_calls(FAKE_GETCPU);
	cr_assert_lt(calls, 20 * MANY / 36 / 10, "%lu looks in %d allocations", calls, 20 * MANY);
	/* Another CPU of the same node is nothing to speak of. */
	run_on_cpu(4 * 2 + 3);
	fake_os_forget_calls();
	for (int n = 0; n < 20 * MANY; n++)
		cr_assert_eq(node_of_memory(quarry_malloc(SIZE)), 2);
	cr_assert_lt(fake_os_calls(FAKE_GETCPU), 20 * MANY / 36 / 10);
}

Test(follow, and_follows_at_its_next_refill)
{
	uint64_t before;

	begin();
	run_on_node(2);
	with_rseq();
	before = moves();
	for (int round = 1; round < 200; round++) {
		int from = qy_tls.thread->node, to = (from + round) % NODES;
		static void *freed[50];
		unsigned left;

		allocate(7 * (round % 40));
		/* What it has freed of the old node, in its caches, is left behind. */
		for (int n = 0; n < round % 50; n++)
			freed[n] = quarry_malloc(SIZE);
		for (int n = 0; n < round % 50; n++)
			quarry_free(freed[n]);
		left = in_list();
		run_on_node(to);
		for (unsigned n = 0; n < left; n++)
			cr_assert_eq(node_of_memory(quarry_malloc(SIZE)), from);
		cr_assert_eq(node_of_memory(quarry_malloc(SIZE)), to, "round %d", round);
		cr_assert_eq(node_of_memory(quarry_malloc(SIZE + 200)), to, "of another class as well");
	}
	cr_assert_eq(moves(), before + 199 - 199 / NODES);
}

/* A CPU's node may change while the CPU stays: found when the thread looks after everything. */
Test(follow, a_cpuset_that_changes_is_followed)
{
	int n = 0;

	begin();
	fake_os_distance(4, 3, 11);
	run_on_node(4);
	with_rseq();
	allocate(MANY);
	fake_os_allowed("0-3");
	qy_managers_follow_cpuset();
	while (node_of_memory(quarry_malloc(SIZE)) == 4)
		cr_assert_lt(n++, 10000);
	for (int i = 0; i < MANY; i++)
		cr_assert_eq(node_of_memory(quarry_malloc(SIZE)), 3);
}

/* ---- arenas that a thread chose ---- */

Test(follow, what_is_of_no_node_stays)
{
	quarry_arena_attr attr = { .policy = QUARRY_POLICY_BIND };
	quarry_arena *bound;
	unsigned caches;

	begin();
	quarry_nodeset_add(&attr.nodes, 2);
	bound = quarry_arena_create(&attr);
	run_on_node(0);
	allocate(1);
	cr_assert_not_null(quarry_arena_malloc(bound, SIZE));
	cr_assert_not_null(quarry_arena_malloc(quarry_arena_of_node(ids[6]), SIZE));
	caches = caches_of(qy_tls.thread);
	cr_assert_eq(caches, 3);
	run_on_node(5);
	allocate_until_node(5);
	cr_assert_eq(caches_of(qy_tls.thread), caches, "node 0's for node 5's");
	/* A node's arena that was chosen is no matter of where the thread runs. */
	cr_assert_eq(quarry_thread_set_arena(quarry_arena_of_node(ids[5]), NULL), 0);
	run_on_node(1);
	for (int n = 0; n < MANY; n++)
		cr_assert_eq(node_of_memory(quarry_malloc(SIZE)), 5);
	cr_assert_eq(quarry_arena_of(quarry_arena_malloc(bound, SIZE)), bound);
	for (int n = 0; n < MANY; n++)
		cr_assert_eq(node_of_memory(quarry_malloc(SIZE)), 5);
	cr_assert_eq(quarry_thread_set_arena(NULL, NULL), 0);
	allocate_until_node(1);
}
