/* SPDX-License-Identifier: MIT */
/* One arena of the local policy, shared by threads on every node: each gets its own node's memory, and still does when
 * objects were freed crosswise. */
#include "tests/numa/suite.h"

#define ROUNDS 3
#define BYTES (3 * MIB)

static pthread_barrier_t barrier;
static quarry_arena *shared;
static quarry_nodeset nodes;
static int threads;

struct worker {
	pthread_t thread;
	int id; /* of the node */
	struct objects o[SIZES];
};

static struct worker workers[128];

static void *work(void *arg)
{
	struct worker *w = arg, *next = &workers[(w - workers + 1) % threads];
	quarry_nodeset set = nearest_of(&nodes, w->id);
	char what[100];

	pin_to_node(w->id);
	for (int round = 0; round < ROUNDS; round++) {
		for (int s = 0; s < SIZES; s++) {
			struct tally t = { 0 };

			if (!objects_make(&w->o[s], s, BYTES, from_arena, shared))
				fail("no memory on node %d (errno %d)", w->id, errno);
			objects_tally(&w->o[s], &t);
			snprintf(what, sizeof(what), "round %d: %s objects of the thread on node %d", round,
				 size_names[s], w->id);
			verify_tally(&t, &set, what);
		}
		pthread_barrier_wait(&barrier);
		for (int s = 0; s < SIZES; s++) {
			objects_check(&next->o[s]);
			objects_free(&next->o[s]);
		}
		pthread_barrier_wait(&barrier);
	}
	return NULL;
}

static void share(int kind, const quarry_nodeset *set)
{
	nodes = set_empty(set) ? all_memory() : *set;
	shared = make_arena(QUARRY_POLICY_LOCAL, kind, 0, set);
	if (shared == NULL)
		fail("no arena: %s", quarry_error_text());
	threads = machine.processors;
	pthread_barrier_init(&barrier, NULL, (unsigned)threads);
	for (int i = 0; i < threads; i++) {
		workers[i].id = machine.node[machine.processor[i]].id;
		for (int s = 0; s < SIZES; s++)
			workers[i].o[s].state = seed_of((unsigned)(i * SIZES + s));
		MUST(pthread_create(&workers[i].thread, NULL, work, &workers[i]) == 0);
	}
	for (int i = 0; i < threads; i++)
		pthread_join(workers[i].thread, NULL);
	MUST(quarry_arena_destroy(shared) == 0);
}

static void run_shared(void)
{
	quarry_nodeset none = { { 0 } };

	need_nodes(2, 2);
	share(this_test->b, &none);
}

/* Threads that run outside of the arena's nodes get the nearest of them. */
static void run_subset(void)
{
	quarry_nodeset pair = { { 0 } };

	need_nodes(3, 2);
	quarry_nodeset_add(&pair, (unsigned)machine.node[machine.memory[0]].id);
	quarry_nodeset_add(&pair, (unsigned)machine.node[machine.memory[machine.memories - 1]].id);
	share(this_test->b, &pair);
}

/* The limits are the arena's, not each node's. */
static void run_limit(void)
{
	quarry_arena_attr attr = { .struct_size = sizeof(attr), .policy = QUARRY_POLICY_LOCAL, .hard_limit = 16 * MIB };
	quarry_arena *arena = quarry_arena_create(&attr);
	size_t got = 0;

	need_nodes(2, 2);
	MUST(arena != NULL);
	for (int i = 0; i < machine.homes; i++) {
		pin_to_node(machine.node[machine.home[i]].id);
		for (int n = 0; n < 24; n++) {
			void *p = quarry_arena_malloc(arena, MIB);

			if (p == NULL)
				continue;
			memset(p, 1, MIB);
			verify_on_node(p, MIB, machine.node[machine.home[i]].id, "under the limit");
			got += MIB;
		}
	}
	if (got < 15 * MIB || got > 16 * MIB)
		fail("with a hard limit of 16 MiB over all nodes, %zu MiB were got", got / MIB);
	MUST(quarry_arena_destroy(arena) == 0);
}

/* Reset and destroyed while it has memory on every node: all of it is gone. */
static void run_end(void)
{
	uint64_t before[IDS], after[IDS];
	quarry_arena *arena = make_arena(QUARRY_POLICY_LOCAL, QUARRY_PAGES_BASE, 0, NULL);
	struct objects o = { .state = seed_of(1) };

	need_nodes(2, 2);
	MUST(arena != NULL);
	no_huge_pages_from_now_on();
	process_pages(before);
	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < machine.homes; i++) {
			struct tally t = { 0 };
			quarry_nodeset set = one_node(machine.node[machine.home[i]].id);

			pin_to_node(machine.node[machine.home[i]].id);
			o.count = 0;
			MUST(objects_make(&o, i % SIZES, 8 * MIB, from_arena, arena));
			objects_tally(&o, &t);
			verify_tally(&t, &set, "before the arena's end");
		}
		if (round == 0)
			MUST(quarry_arena_reset(arena) == 0);
	}
	MUST(quarry_arena_destroy(arena) == 0);
	process_pages(after);
	for (int i = 0; i < machine.memories; i++) {
		int id = machine.node[machine.memory[i]].id;

		if (after[id] > before[id] + 1024)
			fail("%llu pages more on node %d than before the arena",
			     (unsigned long long)(after[id] - before[id]), id);
	}
}

void add_local(void)
{
	TEST("local", "shared-base", run_shared, .b = QUARRY_PAGES_BASE);
	TEST("local", "shared-thp", run_shared, .b = QUARRY_PAGES_THP);
	TEST("local", "subset", run_subset, .b = QUARRY_PAGES_BASE);
	TEST("local", "limit", run_limit);
	TEST("local", "end", run_end);
}
