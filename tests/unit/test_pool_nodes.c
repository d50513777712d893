/* SPDX-License-Identifier: MIT */
/* Object pools on a machine of eight nodes: objects are of the node that the thread runs on, and go home, whoever puts
 * them, and wherever. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>

#include "include/quarry/pool.h"
#include "tests/unit/moving.h"

#define OBJECTS 40

static quarry_pool_stats figures(quarry_pool *pool)
{
	quarry_pool_stats stats = { .struct_size = sizeof stats };

	cr_assert_eq(quarry_pool_stats_get(pool, &stats), 0);
	return stats;
}

static void get_on_each(quarry_pool *pool, void *p[NODES][OBJECTS])
{
	for (int k = 0; k < NODES; k++) {
		run_on_node(k);
		(void)quarry_pool_flush(pool);
		cr_assert_eq(quarry_pool_get_bulk(pool, p[k], OBJECTS), OBJECTS);
		for (int i = 0; i < OBJECTS; i++)
			cr_assert_eq(node_of_memory(p[k][i]), k);
	}
}

Test(pool_nodes, objects_are_of_the_threads_node_and_go_home)
{
	quarry_pool_attr attr = { .struct_size = sizeof attr, .size = 200, .magazine = 8 };
	static void *p[NODES][OBJECTS];
	quarry_pool *pool;
	uint64_t grown;

	begin();
	with_rseq();
	pool = quarry_pool_create(&attr);
	cr_assert_not_null(pool);
	cr_assert_eq(figures(pool).depots, NODES);
	get_on_each(pool, p);
	grown = figures(pool).grown;
	for (int round = 0; round < 10; round++) {
		uint64_t homed = figures(pool).homed;

		/* All by a thread on one node. */
		run_on_node(round % NODES);
		for (int i = 0; i < OBJECTS; i++)
			for (int k = 0; k < NODES; k++)
				cr_assert_eq(quarry_pool_put(pool, p[k][i], QUARRY_POOL_SAFE), 0);
		cr_assert_geq(figures(pool).homed, homed + (NODES - 1) * OBJECTS - 8);
		(void)quarry_pool_flush(pool);
		get_on_each(pool, p);
		cr_assert_eq(figures(pool).grown, grown, "what came home is there");
	}
	for (int k = 0; k < NODES; k++)
		cr_assert_eq(quarry_pool_put_bulk(pool, p[k], OBJECTS, QUARRY_POOL_SAFE), OBJECTS);
	cr_assert_eq(quarry_pool_trim(pool), figures(pool).grown);
	cr_assert_eq(figures(pool).objects, 0);
	cr_assert_eq(quarry_pool_destroy(pool, 0), 0);
}

Test(pool_nodes, at_the_limit_others_nodes_objects_are_better_than_none)
{
	quarry_pool_attr attr = { .struct_size = sizeof attr, .size = 200, .magazine = 4, .max = 24 };
	void *p[24];
	quarry_pool *pool;

	begin();
	with_rseq();
	pool = quarry_pool_create(&attr);
	cr_assert_not_null(pool);
	for (int round = 0; round < 20; round++) {
		run_on_node(round % NODES);
		cr_assert_eq(quarry_pool_get_bulk(pool, p, 24), 24);
		errno = 0;
		cr_assert(quarry_pool_get(pool) == NULL && errno == EAGAIN);
		run_on_node((round + 3) % NODES);
		cr_assert_eq(quarry_pool_put_bulk(pool, p, 24, QUARRY_POOL_SAFE), 24);
	}
	cr_assert(figures(pool).grown == 24 && figures(pool).in_use == 0);
	cr_assert_eq(quarry_pool_destroy(pool, 0), 0);
}
