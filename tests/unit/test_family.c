/* SPDX-License-Identifier: MIT */
/* Arenas of the local policy on a machine of several nodes: a family of managers that is one arena to the program. Each
 * thread gets memory of its node, or of the nearest of the arena's nodes; limits, statistics, purging, resetting and
 * destroying are of all of it. On the machine that the fake kernel plays. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "include/quarry/quarry.h"
#include "lib/manager/manager.h"
#include "lib/manager/move.h"
#include "lib/manager/registry.h"
#include "tests/unit/moving.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

static const size_t sizes[] = { 16, 500, 9000, 100 * KIB, 5 * MIB };
#define COUNT (sizeof(sizes) / sizeof(*sizes))

static quarry_arena *make(uint32_t flags, uint64_t hard, uint64_t soft)
{
	quarry_arena_attr attr = { .flags = flags, .hard_limit = hard, .soft_limit = soft, .name = "family" };
	quarry_arena *a = quarry_arena_create(&attr);

	cr_assert_not_null(a, "%s", quarry_error_text());
	return a;
}

static quarry_arena *make_on(const int *nodes, int count)
{
	quarry_arena_attr attr = { .name = "some" };
	quarry_arena *a;

	for (int i = 0; i < count; i++)
		quarry_nodeset_add(&attr.nodes, (unsigned)nodes[i]);
	a = quarry_arena_create(&attr);
	cr_assert_not_null(a);
	return a;
}

static struct qy_manager *head_of(quarry_arena *a)
{
	return qy_manager_of_arena(a);
}

static int members(quarry_arena *a)
{
	int n = 0;

	for (struct qy_manager *m = qy_family_next(head_of(a), NULL); m != NULL; m = qy_family_next(head_of(a), m))
		n++;
	return n;
}

/* What is in use in the family by the books of each of its managers. */
static uint64_t sum_of_used(quarry_arena *a)
{
	uint64_t sum = 0;

	for (struct qy_manager *m = qy_family_next(head_of(a), NULL); m != NULL; m = qy_family_next(head_of(a), m))
		sum += qy_read(&m->used);
	return sum;
}

static void expect_on(const void *p, int k, int mode)
{
	int nodes[2], count;

	cr_assert_eq(fake_os_policy_at(p, nodes, 2, &count), mode);
	cr_assert(count == 1 && nodes[0] == ids[k], "%d nodes, the first %d", count, nodes[0]);
	cr_assert_eq(fake_os_node_at(p), ids[k]);
}

/* ---- where ---- */

Test(family, each_thread_has_memory_of_its_node)
{
	quarry_arena *a, *strict;

	begin();
	a = make(0, 0, 0);
	strict = make(QUARRY_ARENA_STRICT, 0, 0);
	for (int round = 0; round < 2; round++) {
		for (int k = 0; k < NODES; k++) {
			run_on_node(k);
			for (unsigned i = 0; i < COUNT; i++) {
				char *p = quarry_arena_malloc(a, sizes[i]), *q = quarry_arena_malloc(strict, sizes[i]);

				cr_assert(p != NULL && q != NULL);
				memset(p, 1, sizes[i]);
				memset(q, 1, sizes[i]);
				expect_on(p, k, QY_MPOL_PREFERRED);
				expect_on(p + sizes[i] - 1, k, QY_MPOL_PREFERRED);
				expect_on(q, k, QY_MPOL_PREFERRED); /* it is all there */
				cr_assert(quarry_arena_of(p) == a && quarry_arena_of(q) == strict);
				/* It stays the arena's, whoever resizes it. */
				run_on_node((k + 3) % NODES);
				p = quarry_realloc(p, 3 * sizes[i] + 100);
				cr_assert_eq(quarry_arena_of(p), a);
				run_on_node(k);
				cr_assert_eq(quarry_arena_free(strict, p), -1);
				cr_assert_eq(quarry_arena_free(a, p), 0);
				quarry_free(q);
			}
		}
	}
	cr_assert_eq(members(a), NODES);
	for (struct qy_manager *m = qy_family_next(head_of(a), NULL); m != NULL; m = qy_family_next(head_of(a), m)) {
		cr_assert(m->head == head_of(a) && m->index == head_of(a)->index && !m->of_node);
		cr_assert_str_eq(m->name, "family");
	}
	cr_assert_eq(qy_read(&head_of(a)->mapped), 0);
	cr_assert_eq(all_refused(), 0);
}

Test(family, the_nearest_of_the_nodes_serves)
{
	static const int nodes[] = { 1, 4, 65 };
	static const int serves[NODES] = { 1, 1, 4, 4, 4, 6, 6, 1 };
	quarry_arena *a;

	begin();
	for (int k = 0; k < NODES; k++)
		for (int i = 0; i < 3; i++)
			fake_os_distance(ids[k], nodes[i], nodes[i] == ids[serves[k]] ? 12 : 20);
	a = make_on(nodes, 3);
	for (int k = 0; k < NODES; k++) {
		void *p;

		run_on_node(k);
		p = quarry_arena_malloc(a, 1000);
		memset(p, 1, 1000);
		expect_on(p, serves[k], QY_MPOL_PREFERRED);
	}
	cr_assert_eq(members(a), 3);
	cr_assert_eq(quarry_arena_destroy(a), 0);
}

/* The node of a member may no longer be used: its threads are served by another, and when it may be, by it again. */
Test(family, a_cpuset_that_changes_is_followed)
{
	static const int two[] = { 3, 1000 };
	quarry_arena *a, *of_two;
	void *p;

	begin();
	a = make(0, 0, 0);
	of_two = make_on(two, 2);
	fake_os_distance(1000, 3, 11);
	run_on_node(7);
	p = quarry_arena_malloc(a, 100);
	cr_assert_eq(qy_manager_of(p)->local, 7);
	cr_assert_eq(qy_manager_of(quarry_malloc(SIZE))->index, 7);
	cr_assert_eq(qy_manager_of(quarry_arena_malloc(of_two, 100))->local, 7);
	run_on_node(6);
	cr_assert_eq(qy_manager_of(quarry_arena_malloc(of_two, 100))->local, 3);
	fake_os_allowed("0,2,65,1000");
	qy_managers_follow_cpuset();
	cr_assert_eq(qy_manager_of(quarry_arena_malloc(of_two, 100))->local, 7, "the only one left");
	run_on_node(7);
	fake_os_allowed("0-5");
	qy_managers_follow_cpuset();
	p = quarry_arena_malloc(a, 100);
	cr_assert_eq(qy_manager_of(p)->local, 3);
	expect_on(p, 3, QY_MPOL_PREFERRED);
	fake_os_allowed("0-5,65,1000");
	qy_managers_follow_cpuset();
	p = quarry_arena_malloc(a, 100);
	cr_assert_eq(qy_manager_of(p)->local, 7);
}

/* One that a thread has chosen follows it as a node's default arena does. */
Test(family, as_a_threads_default_it_follows)
{
	struct qy_manager *at_2;
	quarry_arena *a;

	begin();
	a = make(0, 0, 0);
	run_on_node(2);
	with_rseq();
	cr_assert_eq(quarry_thread_set_arena(a, NULL), 0);
	for (int n = 0; n < MANY; n++)
		cr_assert_eq(quarry_arena_of(quarry_malloc(SIZE)), a);
	at_2 = qy_manager_serving(head_of(a), 2);
	cr_assert_eq(qy_manager_of(quarry_malloc(SIZE)), at_2);
	for (int k = 0; k < NODES; k++) {
		run_on_node(k);
		allocate((int)in_list());
		for (int n = 0; n < 100; n++) {
			void *p = quarry_malloc(SIZE);

			memset(p, 1, SIZE);
			cr_assert(quarry_arena_of(p) == a && qy_manager_of(p)->local == (uint32_t)k);
			expect_on(p, k, QY_MPOL_PREFERRED);
		}
	}
	cr_assert_eq(atomic_load(&at_2->heaps), 0, "what it had of node 2 was given back");
	cr_assert_gt(qy_read(&at_2->orphans.slabs), 0);
	cr_assert(quarry_arena_destroy(a) == -1 && errno == EBUSY);
	cr_assert_eq(quarry_thread_set_arena(NULL, NULL), 0);
	cr_assert_eq(quarry_arena_destroy(a), 0);
}

Test(family, what_a_thread_held_of_many_goes_back_when_it_moves)
{
	enum { ARENAS = 300 };
	static quarry_arena *a[ARENAS];

	begin();
	run_on_node(2);
	for (int i = 0; i < ARENAS; i++) {
		a[i] = make(0, 0, 0);
		cr_assert_not_null(quarry_arena_malloc(a[i], 100));
	}
	allocate(1);
	cr_assert_eq(caches_of(qy_tls.thread), ARENAS + 1);
	run_on_node(3);
	cr_assert_not_null(quarry_arena_malloc(a[7], 100));
	cr_assert_eq(caches_of(qy_tls.thread), 2, "its node's and that arena's");
	for (int i = 0; i < ARENAS; i++) {
		struct qy_manager *at_2 = qy_manager_serving(head_of(a[i]), 2);

		cr_assert(atomic_load(&at_2->heaps) == 0 && qy_read(&at_2->orphans.slabs) == 1);
		cr_assert_eq(quarry_arena_destroy(a[i]), 0);
	}
	cr_assert_eq(caches_of(qy_tls.thread), 1);
}

/* ---- limits ---- */

Test(family, a_hard_limit_is_of_all_nodes_together)
{
	quarry_arena *a;
	void *p[64], *q;

	begin();
	a = make(0, 64 * 64 * KIB, 0);
	for (int n = 0; n < 64; n++) {
		run_on_node(n % NODES);
		p[n] = quarry_arena_malloc(a, 64 * KIB);
		cr_assert_not_null(p[n], "block %d", n);
	}
	cr_assert_eq(qy_manager_used(head_of(a)), 64 * 64 * KIB);
	for (int k = 0; k < NODES; k++) {
		run_on_node(k);
		errno = 0;
		cr_assert(quarry_arena_malloc(a, 40 * KIB) == NULL && errno == ENOMEM);
		cr_assert_null(quarry_arena_malloc(a, 100));
		cr_assert_null(quarry_arena_malloc(a, 3 * MIB));
		cr_assert_null(quarry_realloc(p[k], 68 * KIB), "no page more");
	}
	cr_assert_eq(qy_manager_used(head_of(a)), 64 * 64 * KIB, "what was refused does not count");
	cr_assert_geq(refused(QUARRY_REFUSED_LIMIT), (uint64_t)NODES);
	/* What is freed on one node can be had on another, to the page. */
	run_on_node(5);
	quarry_free(p[3]);
	p[3] = quarry_arena_malloc(a, 56 * KIB);
	q = quarry_arena_malloc(a, 40 * KIB);
	cr_assert(p[3] != NULL && q == NULL);
	p[4] = quarry_realloc(p[4], 36 * KIB);
	q = quarry_arena_malloc(a, 32 * KIB + 1);
	cr_assert_not_null(q, "28 KiB were given back, and 8 were left");
	cr_assert_null(quarry_arena_malloc(a, 64 * KIB));
	quarry_free(q);
	for (int n = 0; n < 64; n++)
		quarry_free(p[n]);
	cr_assert_eq(qy_manager_used(head_of(a)), 0);
	cr_assert_eq(stats_of(a).hard_limit, 64 * 64 * KIB);
	cr_assert_eq(quarry_arena_set_limits(a, 0, 0), 0);
	cr_assert_not_null(quarry_arena_malloc(a, 64 * MIB));
	cr_assert_eq(quarry_arena_destroy(a), 0);
}

Test(family, small_objects_count_by_their_slabs_everywhere)
{
	static void *p[MANY];
	quarry_arena *a;
	size_t total = 0;
	uint64_t used;

	begin();
	a = make(0, 4 * MIB, 0);
	for (int k = 0; k < NODES; k++) {
		run_on_node(k);
		for (int n = 0; quarry_arena_malloc(a, 1000) != NULL && n < 700 * (k + 1); n++)
			total += 1000;
		cr_assert_eq(qy_manager_used(head_of(a)), sum_of_used(a));
	}
	cr_assert_leq(total, 4 * MIB);
	cr_assert_gt(total, 3 * MIB);
	cr_assert_leq(qy_manager_used(head_of(a)), 4 * MIB);
	/* And no longer when the slabs have gone back. */
	cr_assert_eq(quarry_arena_set_limits(a, 0, 0), 0);
	for (int n = 0; n < MANY; n++)
		p[n] = quarry_arena_malloc(a, 1000);
	used = qy_manager_used(head_of(a));
	for (int n = 0; n < MANY; n++)
		quarry_free(p[n]);
	quarry_thread_flush();
	cr_assert_leq(qy_manager_used(head_of(a)), used - MIB);
	cr_assert_eq(qy_manager_used(head_of(a)), sum_of_used(a));
	cr_assert_eq(quarry_arena_reset(a), 0);
	cr_assert_eq(qy_manager_used(head_of(a)), 0);
}

enum { RACERS = NODES, FIT = 500 };
static quarry_arena *raced;
static pthread_barrier_t start_line;
static _Atomic(unsigned) got_in_all;

static void *race_for_it(void *number)
{
	unsigned got = 0;
	void *p[FIT];

	run_on_node((int)(intptr_t)number);
	for (int round = 0; round < 20; round++) {
		got = 0;
		pthread_barrier_wait(&start_line);
		while (got < FIT && (p[got] = quarry_arena_malloc(raced, 100 * KIB)) != NULL)
			got++;
		atomic_fetch_add(&got_in_all, got);
		pthread_barrier_wait(&start_line);
		if (number == NULL && atomic_exchange(&got_in_all, 0) != FIT)
			return number == NULL ? (void *)1 : NULL;
		while (got > 0)
			quarry_free(p[--got]);
		pthread_barrier_wait(&start_line);
	}
	return NULL;
}

/* One that fails because another has it for a moment is right as well: that one gets it then. Exactly so many are
 * had. */
Test(family, a_hard_limit_holds_in_a_race, .timeout = 120)
{
	pthread_t thread[RACERS];
	void *bad;

	begin();
	raced = make(0, FIT * 100 * KIB, 0);
	/* Memory is there on all nodes: then nobody claims what he cannot have. */
	for (int k = 0; k < RACERS; k++) {
		run_on_node(k);
		quarry_free(quarry_arena_malloc(raced, FIT * 100 * KIB));
	}
	pthread_barrier_init(&start_line, NULL, RACERS);
	for (int k = 0; k < RACERS; k++)
		cr_assert_eq(pthread_create(&thread[k], NULL, race_for_it, (void *)(intptr_t)k), 0);
	for (int k = 0; k < RACERS; k++) {
		pthread_join(thread[k], &bad);
		cr_assert_null(bad, "the limit was not met to the byte");
	}
	cr_assert(qy_manager_used(head_of(raced)) == 0 && sum_of_used(raced) == 0);
}

static void *claim_and_give_back(void *number)
{
	struct qy_manager *m = qy_manager_serving(head_of(raced), (int)(intptr_t)number);
	bool all = true;

	pthread_barrier_wait(&start_line);
	for (int n = 0; n < 300000; n++) {
		qy_lock(&m->lock);
		all = all && qy_manager_allows(m, 64 * KIB);
		qy_manager_unclaim(m, 64 * KIB);
		qy_unlock(&m->lock);
	}
	return all ? NULL : number;
}

Test(family, what_all_use_is_summed_exactly, .timeout = 120)
{
	pthread_t thread[RACERS];
	void *bad;

	begin();
	raced = make(0, RACERS * 64 * KIB, 0);
	pthread_barrier_init(&start_line, NULL, RACERS);
	for (int k = 0; k < RACERS; k++)
		cr_assert_eq(pthread_create(&thread[k], NULL, claim_and_give_back, (void *)(intptr_t)k), 0);
	for (int k = 0; k < RACERS; k++) {
		pthread_join(thread[k], &bad);
		cr_assert_null(bad);
	}
	cr_assert_eq(qy_manager_used(head_of(raced)), 0);
}

Test(family, above_its_soft_limit_it_keeps_nothing)
{
	quarry_arena *a;
	void *p[NODES];
	uint64_t next;

	begin();
	cr_assert_eq(quarry_ctl_set("decay_ms", "100000"), 0);
	a = make(0, 0, 8 * MIB);
	/* On each node under the limit, together above it. */
	for (int k = 0; k < NODES; k++) {
		run_on_node(k);
		p[k] = quarry_arena_malloc(a, 2 * MIB);
		memset(p[k], 1, 2 * MIB);
	}
	for (int k = 0; k < NODES; k++)
		quarry_free(p[k]);
	cr_assert_eq(stats_of(a).free_dirty, NODES * 2 * MIB);
	for (struct qy_manager *m = qy_family_next(head_of(a), NULL); m != NULL; m = qy_family_next(head_of(a), m))
		qy_manager_purge(m, qy_os->now_ms(), 100000, SIZE_MAX, &next);
	cr_assert_leq(stats_of(a).free_dirty, 8 * MIB);
	cr_assert_gt(stats_of(a).free_dirty, 0, "under it, decay_ms decides");
}

/* ---- one arena to the program ---- */

Test(family, it_is_one_arena)
{
	quarry_arena *a, *list[64];
	size_t n, before;
	quarry_stats stats;
	unsigned seen = 0;
	uint64_t arenas;
	char *p[NODES];

	begin();
	allocate(1);
	before = quarry_arenas(NULL, 0);
	arenas = stats_of(NULL).arenas;
	a = make(0, 20 * MIB, 5 * MIB);
	for (int k = 0; k < NODES; k++) {
		run_on_node(k);
		p[k] = quarry_arena_malloc(a, MIB);
		memset(p[k], 1, MIB);
		cr_assert_not_null(quarry_arena_malloc(a, 100));
	}
	n = quarry_arenas(list, 64);
	for (size_t i = 0; i < n; i++)
		seen += list[i] == a;
	/* (The thread has been on seven nodes more.) */
	cr_assert(seen == 1 && n <= before + 1 + NODES - 1);
	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < i; j++)
			cr_assert_neq(list[i], list[j]);
	cr_assert_eq(stats_of(NULL).arenas, arenas + n - before);
	stats = stats_of(a);
	cr_assert(stats.arenas == 1 && stats.node == -1 && stats.regions >= NODES && stats.large == NODES * MIB);
	cr_assert(stats.hard_limit == 20 * MIB && stats.soft_limit == 5 * MIB);
	cr_assert(stats.mapped >= NODES * QY_FRAME && stats.mapped <= 2 * NODES * QY_FRAME, "%zu", (size_t)stats.mapped);
	cr_assert_geq(stats.resident, NODES * MIB);
	cr_assert(stats.in_use > NODES * MIB && stats.in_use < NODES * (MIB + 64 * KIB));
	cr_assert_geq(stats.refills, (uint64_t)NODES);
	for (int k = 0; k < NODES; k++)
		quarry_free(p[k]);
	cr_assert_geq(quarry_purge(a), NODES * MIB);
	cr_assert_eq(stats_of(a).free_dirty, 0);
	cr_assert_eq(quarry_arena_destroy(a), 0);
}

static void *elsewhere(void *a)
{
	run_on_node(5);
	for (int n = 0; n < 100; n++)
		cr_assert_not_null(quarry_arena_malloc(a, 300));
	return NULL;
}

Test(family, reset_and_destroy_are_of_all_of_it)
{
	quarry_arena *a;
	pthread_t thread;
	uint64_t mapped;
	void *p;

	begin();
	a = make(0, 0, 0);
	for (int round = 0; round < 20; round++) {
		for (int k = 0; k < NODES; k++) {
			run_on_node(k);
			for (unsigned i = 0; i < COUNT; i++)
				cr_assert_not_null(quarry_arena_malloc(a, sizes[i]));
		}
		cr_assert_eq(pthread_create(&thread, NULL, elsewhere, a), 0);
		pthread_join(thread, NULL);
		if (round == 1)
			mapped = stats_of(a).mapped;
		cr_assert_gt(stats_of(a).in_use, 0);
		cr_assert_eq(quarry_arena_reset(a), 0);
		cr_assert(stats_of(a).in_use == 0 && sum_of_used(a) == 0 && qy_manager_used(head_of(a)) == 0);
		for (struct qy_manager *m = qy_family_next(head_of(a), NULL); m != NULL;
		     m = qy_family_next(head_of(a), m))
			cr_assert_eq(atomic_load(&m->heaps), 0);
	}
	cr_assert_eq(stats_of(a).mapped, mapped, "memory of before a reset is used again");
	p = quarry_arena_malloc(a, 100);
	mapped = stats_of(NULL).mapped - stats_of(a).mapped;
	cr_assert_eq(quarry_arena_destroy(a), 0);
	cr_assert_eq(stats_of(NULL).mapped, mapped, "all of it was unmapped");
	cr_assert(quarry_arena_of(p) == NULL);
	errno = 0;
	cr_assert(quarry_arena_malloc(a, 1) == NULL && errno == EINVAL);
}

/* Records are used again: thousands of families come and go in the room of a few. */
Test(family, coming_and_going_they_leak_nothing, .timeout = 120)
{
	size_t meta = 0;

	begin();
	for (int round = 0; round < 2000; round++) {
		quarry_arena *a = make(0, round % 2 ? 10 * MIB : 0, 0);

		for (int k = 0; k < 3; k++) {
			run_on_node((round + k) % NODES);
			cr_assert_not_null(quarry_arena_malloc(a, 100));
		}
		cr_assert_eq(qy_manager_used(head_of(a)), sum_of_used(a));
		cr_assert_eq(quarry_arena_destroy(a), 0);
		if (round == 20)
			meta = qy_meta_used();
	}
	cr_assert_eq(qy_meta_used(), meta);
}

Test(family, what_is_strict_fails_when_it_is_made)
{
	quarry_arena_attr attr = { .flags = QUARRY_ARENA_STRICT };

	begin();
	fake_os_fail_numa(EPERM);
	errno = 0;
	cr_assert(quarry_arena_create(&attr) == NULL && errno == EPERM);
	fake_os_heal();
	cr_assert_not_null(quarry_arena_create(&attr));
}

/* ---- fork ---- */

Test(family, fork_holds_all_of_its_locks)
{
	quarry_arena *a;

	begin();
	a = make(0, 0, 0);
	for (int k = 0; k < NODES; k++) {
		run_on_node(k);
		cr_assert_not_null(quarry_arena_malloc(a, 100));
	}
	qy_purge_hold();
	qy_threads_pause();
	qy_registry_fork_lock();
	for (struct qy_manager *m = qy_family_next(head_of(a), NULL); m != NULL; m = qy_family_next(head_of(a), m))
		cr_expect_neq(atomic_load(&m->lock.state), 0, "node %u", m->local);
	qy_registry_fork_unlock();
	qy_threads_resume();
	qy_purge_release();
	for (struct qy_manager *m = qy_family_next(head_of(a), NULL); m != NULL; m = qy_family_next(head_of(a), m))
		cr_expect_eq(atomic_load(&m->lock.state), 0, "node %u", m->local);
}

Test(family, a_child_has_all_of_it, .timeout = 60)
{
	quarry_arena *a;
	char *p[NODES];
	int status;
	pid_t pid;

	begin();
	a = make(0, 0, 0);
	for (int k = 0; k < NODES; k++) {
		run_on_node(k);
		p[k] = quarry_arena_malloc(a, 3000);
		memset(p[k], k, 3000);
	}
	pid = fork();
	if (pid == 0) {
		for (int k = 0; k < NODES; k++) {
			run_on_node((k + 1) % NODES);
			for (int i = 0; i < 3000; i++)
				if (p[k][i] != k)
					_exit(1);
			quarry_free(p[k]);
			if (quarry_arena_malloc(a, 200 * KIB) == NULL || quarry_arena_malloc(a, 20) == NULL)
				_exit(2);
		}
		_exit(quarry_arena_reset(a) != 0 || quarry_arena_destroy(a) != 0);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %#x", status);
	for (int k = 0; k < NODES; k++) {
		run_on_node(k);
		cr_assert_not_null(quarry_arena_malloc(a, 200 * KIB), "and the parent's locks are free");
	}
	cr_assert_eq(quarry_arena_destroy(a), 0);
}

/* ---- what is none ---- */

Test(family, other_policies_are_no_families)
{
	static const int policies[] = { QUARRY_POLICY_BIND, QUARRY_POLICY_PREFERRED, QUARRY_POLICY_PREFERRED_MANY,
					QUARRY_POLICY_INTERLEAVE, QUARRY_POLICY_WEIGHTED_INTERLEAVE };

	begin();
	for (unsigned i = 0; i < sizeof(policies) / sizeof(*policies); i++) {
		quarry_arena_attr attr = { .policy = policies[i] };
		struct qy_manager *m;
		quarry_arena *a;

		quarry_nodeset_add(&attr.nodes, 2);
		quarry_nodeset_add(&attr.nodes, 65);
		a = quarry_arena_create(&attr);
		m = head_of(a);
		cr_assert(m->locals == NULL && m->head == m && qy_manager_serving(m, 5) == m);
		cr_assert_eq(qy_manager_of(quarry_arena_malloc(a, 100)), m);
		cr_assert_eq(m->placement->node, policies[i] == QUARRY_POLICY_PREFERRED ? 2 : -1);
		cr_assert_eq(quarry_arena_destroy(a), 0);
	}
}

/* A machine of one node, and one that tells of none, so that its one node is made up and nothing may be bound to it. */
Test(family, one_node_is_no_family)
{
	begin();
	for (int told = 1; told >= 0; told--) {
		quarry_arena_attr attr = { .policy = QUARRY_POLICY_BIND };
		quarry_arena *a, *bound;

		fake_os_reset();
		if (!told)
			fake_os_no_sysfs();
		qy_topology_init(true);
		cr_assert(qy_node_count() == 1 && qy_nodes_made_up() == !told);
		a = make(0, 0, 0);
		cr_assert(head_of(a)->locals == NULL && !head_of(a)->placement->bind);
		cr_assert_eq(qy_manager_of(quarry_arena_malloc(a, 100)), head_of(a));
		for (int policy = QUARRY_POLICY_BIND; policy <= QUARRY_POLICY_WEIGHTED_INTERLEAVE; policy++) {
			attr.policy = policy;
			bound = quarry_arena_create(&attr);
			cr_assert_eq(head_of(bound)->placement->bind, told);
			cr_assert_eq(head_of(bound)->placement->node, 0);
		}
	}
}
