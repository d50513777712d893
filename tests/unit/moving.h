/* SPDX-License-Identifier: MIT */
/* Threads that move from node to node, on the machine of eight_nodes.h. To be included once, by a test. */
#ifndef QUARRY_TESTS_MOVING_H
#define QUARRY_TESTS_MOVING_H

#include <criterion/criterion.h>

#include "include/quarry/quarry.h"
#include "lib/manager/manager.h"
#include "tests/unit/eight_nodes.h"

static inline int node_of_memory(const void *p)
{
	return (int)qy_manager_of(p)->index;
}

/* Where rseq would have it, for threads that ask for that. */
static __thread volatile int32_t cpu_now;

static inline void run_on_cpu(int cpu)
{
	cpu_now = cpu;
	fake_os_this_thread_on_cpu(cpu);
}

static inline void run_on_node(int k)
{
	run_on_cpu(4 * k + 1);
}

/* The fake kernel has no rseq: the thread gets one here. */
static inline void with_rseq(void)
{
	quarry_free(quarry_malloc(1));
	qy_tls.thread->cpu_now = &cpu_now;
	cr_assert_eq(quarry_thread_rebind(-1), 0);
}

#define SIZE 112
#define MANY 2000

static inline quarry_stats stats_of(quarry_arena *arena)
{
	quarry_stats stats = { .version = QUARRY_STATS_VERSION };

	cr_assert_eq(quarry_stats_get(arena, &stats), 0);
	return stats;
}

static inline uint64_t moves(void)
{
	return stats_of(NULL).node_moves;
}

/* Allocate so many, for good. */
static inline void allocate(int n)
{
	for (; n > 0; n--)
		cr_assert_not_null(quarry_malloc(SIZE));
}

/* Allocate until memory is of another node than the one before; at most MANY. */
static inline void *allocate_until_node(int k)
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

/* The objects that are left in the list that plain allocations of SIZE come from. */
static inline unsigned in_list(void)
{
	unsigned n = 0;

	for (void *p = qy_tls.cache->head[qy_class_of(SIZE)]; p != NULL; p = qy_next_object(p))
		n++;
	return n;
}

static inline unsigned caches_of(const struct qy_thread *t)
{
	unsigned n = 0;

	for (struct qy_cache *c = t->caches; c != NULL; c = c->next)
		n++;
	cr_assert_eq(n, t->table_used);
	return n;
}

#endif
