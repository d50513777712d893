/* SPDX-License-Identifier: MIT */
/* What a thread that is found on another node leaves behind, for others; and threads that were given a home. On the
 * machine that the fake kernel plays. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "include/quarry/quarry.h"
#include "lib/manager/manager.h"
#include "lib/manager/move.h"
#include "tests/unit/moving.h"

/* ---- what it leaves behind ---- */

static void *had_by_other[MANY];

static void *have_on_3(void *unused)
{
	run_on_node(3);
	for (int n = 0; n < MANY; n++)
		had_by_other[n] = quarry_malloc(SIZE);
	return unused;
}

static int by_address(const void *a, const void *b)
{
	uintptr_t x = *(const uintptr_t *)a, y = *(const uintptr_t *)b;

	return x < y ? -1 : x > y;
}

Test(leave, what_a_thread_held_of_its_node_others_get_at_once)
{
	static void *mine[2 * MANY];
	uint64_t used;
	pthread_t thread;
	int same = 0;

	begin();
	run_on_node(3);
	for (int n = 0; n < 2 * MANY; n++)
		mine[n] = quarry_malloc(SIZE);
	for (int n = 0; n < 2 * MANY; n += 2) /* each slab keeps half of its objects */
		quarry_free(mine[n]);
	used = qy_read(&qy_manager_of_node(3)->used);
	run_on_node(5);
	allocate_until_node(5);
	cr_assert_eq(caches_of(qy_tls.thread), 1);
	cr_assert_gt(qy_read(&qy_manager_of_node(3)->orphans.slabs), 0);
	cr_assert_eq(atomic_load(&qy_manager_of_node(3)->heaps), 0);
	cr_assert_eq(pthread_create(&thread, NULL, have_on_3, NULL), 0);
	pthread_join(thread, NULL);
	cr_assert_leq(qy_read(&qy_manager_of_node(3)->used), used, "no memory was asked for beside what was left");
	qsort(mine, 2 * MANY, sizeof(*mine), by_address);
	for (int n = 0; n < MANY; n++)
		same += bsearch(&had_by_other[n], mine, 2 * MANY, sizeof(*mine), by_address) != NULL;
	cr_assert_gt(same, MANY * 9 / 10, "%d of %d", same, MANY);
}

static pthread_barrier_t step;
static void *sent[MANY];

/* Gathers objects of the other's heap, and sends them when that heap was given up, and is another's by then. */
static void *send_late(void *unused)
{
	run_on_node(3);
	quarry_free(quarry_malloc(SIZE));
	pthread_barrier_wait(&step);
	for (int n = 0; n < 20; n++)
		quarry_free(sent[n]);
	pthread_barrier_wait(&step);
	pthread_barrier_wait(&step);
	quarry_thread_flush();
	return unused;
}

static void *take_over(void *unused)
{
	run_on_node(3);
	allocate(1);
	return unused;
}

static void given_up_meanwhile(bool taken_over)
{
	pthread_t late, other;
	struct qy_cache *was;
	uint64_t bad, had;

	begin();
	run_on_node(3);
	pthread_barrier_init(&step, NULL, 2);
	cr_assert_eq(pthread_create(&late, NULL, send_late, NULL), 0);
	for (int n = 0; n < MANY; n++)
		sent[n] = quarry_malloc(SIZE);
	was = qy_tls.cache;
	had = in_list();
	pthread_barrier_wait(&step);
	pthread_barrier_wait(&step);
	run_on_node(5);
	allocate_until_node(5);
	cr_assert_neq(qy_tls.cache, was);
	if (taken_over) {
		cr_assert_eq(pthread_create(&other, NULL, take_over, NULL), 0);
		pthread_join(other, NULL);
		had++;
	}
	bad = stats_of(NULL).bad_frees;
	pthread_barrier_wait(&step);
	pthread_join(late, NULL);
	for (int n = 20; n < MANY; n++)
		quarry_free(sent[n]);
	quarry_thread_flush();
	quarry_ctl_set("decay_ms", "0");
	quarry_purge(NULL);
	cr_assert_eq(stats_of(NULL).bad_frees, bad);
	/* All came home but for what was in the list, and the other's one. (A slab is not all objects.) */
	cr_assert_eq(stats_of(quarry_arena_of_node(ids[3])).in_use / SIZE, had);
}

Test(leave, what_comes_late_for_a_heap_that_was_given_up_goes_on)
{
	given_up_meanwhile(false);
}

Test(leave, and_when_the_heap_is_anothers_by_then)
{
	given_up_meanwhile(true);
}

/* Thousands of times to and fro: nothing grows, and what it allocates is right at each turn. */
Test(leave, to_and_fro_nothing_leaks, .timeout = 120)
{
	enum { WARM = 200, TURNS = 10000 };
	static void *kept[TURNS + 1][4];
	uint64_t used[2] = { 0, 0 }, mapped[2] = { 0, 0 };
	size_t meta = 0;
	struct qy_thread *t;

	begin();
	run_on_node(1);
	with_rseq();
	t = qy_tls.thread;
	for (int turn = 0; turn < TURNS; turn++) {
		int k = turn % 2 ? 1 : 6;

		run_on_node(k);
		for (int i = 0; i < 4; i++) {
			void *p = quarry_malloc((size_t)(100 * i + 8));

			kept[turn][i] = p;
			memset(p, turn, (size_t)(100 * i + 8));
		}
		quarry_free(quarry_malloc(40000)); /* looks, whatever is in lists */
		cr_assert_eq(t->node, k);
		for (int i = 0; i < 4 && turn > 50; i++)
			quarry_free(kept[turn - 50][i]);
		if (turn == WARM) {
			quarry_purge(NULL);
			meta = qy_meta_used();
			for (int i = 0; i < 2; i++) {
				used[i] = qy_read(&qy_manager_of_node(i ? 6 : 1)->used);
				mapped[i] = qy_read(&qy_manager_of_node(i ? 6 : 1)->mapped);
			}
		}
	}
	quarry_purge(NULL);
	cr_assert_eq(qy_meta_used(), meta);
	cr_assert_leq(caches_of(t), 2);
	for (int i = 0; i < 2; i++) {
		struct qy_manager *m = qy_manager_of_node(i ? 6 : 1);

		cr_assert_leq(qy_read(&m->used), used[i] + 4 * QY_UNIT);
		cr_assert_eq(qy_read(&m->mapped), mapped[i]);
		cr_assert_leq(atomic_load(&m->heaps), 1);
	}
	cr_assert_geq(moves(), TURNS);
}

/* Figures of what a thread left behind are the node's: counted once. */
Test(leave, figures_survive_a_move)
{
	uint64_t refills, frees;

	begin();
	run_on_node(3);
	allocate(MANY);
	refills = stats_of(quarry_arena_of_node(ids[3])).refills;
	frees = stats_of(NULL).remote_frees;
	cr_assert_gt(refills, 10);
	run_on_node(5);
	allocate_until_node(5);
	cr_assert_eq(stats_of(quarry_arena_of_node(ids[3])).refills, refills);
	cr_assert_eq(stats_of(NULL).remote_frees, frees);
	run_on_node(3);
	allocate_until_node(3);
	cr_assert_lt(stats_of(quarry_arena_of_node(ids[3])).refills, refills + 5);
}

/* ---- a home of its own ---- */

Test(leave, a_thread_can_be_given_a_home)
{
	uint64_t used;
	void *p;

	begin();
	run_on_node(2);
	with_rseq();
	p = quarry_malloc(SIZE);
	used = qy_read(&qy_manager_of_node(2)->used);
	cr_assert_geq(used, QY_UNIT);
	quarry_free(p);
	cr_assert_eq(quarry_thread_rebind(ids[6]), 0);
	cr_assert_eq(qy_read(&qy_manager_of_node(2)->used), 0, "what it held went back at once");
	for (int k = 0; k < NODES; k++) {
		run_on_node(k);
		for (int n = 0; n < MANY; n++)
			cr_assert_eq(node_of_memory(quarry_malloc(SIZE)), 6);
		cr_assert_eq(node_of_memory(quarry_malloc(100000)), 6);
	}
	cr_assert_eq(quarry_thread_rebind(ids[1]), 0);
	cr_assert_eq(node_of_memory(quarry_malloc(SIZE)), 1, "at once");
	run_on_node(5);
	cr_assert_eq(quarry_thread_rebind(-1), 0);
	cr_assert_eq(node_of_memory(quarry_malloc(SIZE)), 5);
	run_on_node(3);
	allocate_until_node(3);
}

Test(leave, a_home_must_be_one)
{
	static const int none[] = { -2, 6, 64, 999, QUARRY_NODES_MAX, 1 << 30 };

	begin();
	fake_os_memory(1, 0, 0);
	fake_os_allowed("0-2,65");
	run_on_node(2);
	allocate(1);
	for (unsigned i = 0; i < sizeof(none) / sizeof(*none); i++) {
		errno = 0;
		cr_assert(quarry_thread_rebind(none[i]) == -1 && errno == EINVAL, "node %d", none[i]);
	}
	errno = 0;
	cr_assert(quarry_thread_rebind(1) == -1 && errno == EINVAL, "a node without memory");
	errno = 0;
	cr_assert(quarry_thread_rebind(3) == -1 && errno == EINVAL, "one that is not allowed");
	for (int n = 0; n < MANY; n++)
		cr_assert_eq(node_of_memory(quarry_malloc(SIZE)), 2, "nothing has changed");
	cr_assert_eq(quarry_thread_rebind(65), 0);
	cr_assert_eq(node_of_memory(quarry_malloc(SIZE)), 6);
}

Test(leave, a_home_that_is_forbidden_is_none)
{
	int n = 0;

	begin();
	run_on_node(2);
	with_rseq();
	cr_assert_eq(quarry_thread_rebind(ids[6]), 0);
	for (int i = 0; i < MANY; i++)
		cr_assert_eq(node_of_memory(quarry_malloc(SIZE)), 6);
	fake_os_allowed("0-5");
	qy_managers_follow_cpuset();
	while (node_of_memory(quarry_malloc(SIZE)) == 6)
		cr_assert_lt(n++, 10000);
	for (int i = 0; i < MANY; i++)
		cr_assert_eq(node_of_memory(quarry_malloc(SIZE)), 2);
	/* From then on it follows. */
	run_on_node(4);
	allocate((int)in_list());
	cr_assert_eq(node_of_memory(quarry_malloc(SIZE)), 4);
}

static struct qy_thread *record;
static bool followed;

static void *with_a_home(void *unused)
{
	run_on_node(3);
	with_rseq();
	quarry_thread_rebind(ids[4]);
	for (int n = 0; n < MANY; n++)
		quarry_free(quarry_malloc(SIZE));
	record = qy_tls.thread;
	return unused;
}

/* On the node where the one before was at home, so that its record is taken over. */
static void *without_one(void *unused)
{
	run_on_node(4);
	followed = node_of_memory(quarry_malloc(SIZE)) == 4 && qy_tls.thread == record;
	allocate(3 * MANY);
	run_on_node(6);
	allocate(MANY);
	followed = followed && node_of_memory(quarry_malloc(SIZE)) == 6;
	return unused;
}

Test(leave, a_home_is_not_inherited)
{
	pthread_t thread;

	begin();
	run_on_node(0);
	allocate(1);
	cr_assert_eq(pthread_create(&thread, NULL, with_a_home, NULL), 0);
	pthread_join(thread, NULL);
	cr_assert_eq(pthread_create(&thread, NULL, without_one, NULL), 0);
	pthread_join(thread, NULL);
	cr_assert(followed);
}
