/* SPDX-License-Identifier: MIT */
/* Objects behind handles are moved from node to node, beside threads that read them on all nodes: where the kernel has them,
 * that packing leaves them there, and what copying between nodes is said to cost. */
#include <stdatomic.h>

#include "include/quarry/lanes.h"
#include "tests/numa/suite.h"

#define OBJECTS 2500

static quarry_lanes *lanes;
static quarry_handle handle[OBJECTS];
static size_t size_of[OBJECTS];
static _Atomic(bool) over;

static void make(void)
{
	quarry_lanes_attr attr = { .flags = QUARRY_LANES_NO_MOVER };
	uint64_t state = seed_of(1);

	pin_to_node(machine.node[machine.home[0]].id);
	lanes = quarry_lanes_create(&attr);
	MUST(lanes != NULL);
	for (int i = 0; i < OBJECTS; i++) {
		size_of[i] = i % 1000 == 5 ? 3 * MIB : i % 200 == 7 ? 200000 : 16 + rnd(&state) % 2000;
		MUST((handle[i] = quarry_halloc(lanes, size_of[i])) != 0);
		quarry_enter();
		memset(quarry_get_mut(lanes, handle[i]), i, size_of[i]);
		quarry_leave();
	}
}

static void *read_all(void *id)
{
	uint64_t n = 0;

	pin_to_node(*(int *)id);
	while (!atomic_load(&over)) {
		int i = (int)(n++ % OBJECTS);
		const unsigned char *p;

		quarry_enter();
		p = quarry_get(lanes, handle[i]);
		MUST(p != NULL && p[0] == (unsigned char)i && p[size_of[i] - 1] == (unsigned char)i);
		quarry_leave();
		rest_now_and_then(n);
	}
	return NULL;
}

/* Nobody moves them meanwhile. */
static void verify(int step, int id, const char *what)
{
	struct tally t = { 0 };
	quarry_nodeset set = one_node(id);

	for (int i = 0; i < OBJECTS; i += step) {
		const unsigned char *p;

		quarry_enter();
		p = quarry_get(lanes, handle[i]);
		MUST(p != NULL);
		for (size_t k = 0; k < size_of[i]; k += 511)
			MUST(p[k] == (unsigned char)i);
		tally_add(&t, p, size_of[i]);
		quarry_leave();
	}
	verify_tally(&t, &set, what);
}

static void run_there_and_back(void)
{
	pthread_t readers[128];
	char what[64];

	need_nodes(2, 1);
	make();
	for (int i = 0; i < machine.processors; i++)
		MUST(pthread_create(&readers[i], NULL, read_all, &machine.node[machine.processor[i]].id) == 0);
	for (int i = 0; i <= machine.memories; i++) {
		int id = machine.node[machine.memory[(i + 1) % machine.memories]].id;

		MUST(quarry_lanes_migrate(lanes, QUARRY_LANE_ANY, id, 0) > 0);
		snprintf(what, sizeof(what), "objects sent to node %d", id);
		verify(1, id, what);
		MUST(quarry_lanes_migrate(lanes, QUARRY_LANE_ANY, id, 0) == 0);
	}
	atomic_store(&over, true);
	for (int i = 0; i < machine.processors; i++)
		pthread_join(readers[i], NULL);
	MUST(quarry_lanes_destroy(lanes) == 0);
}

static void run_packed(void)
{
	int id;

	need_nodes(2, 1);
	make();
	id = machine.node[machine.memory[machine.memories - 1]].id;
	MUST(quarry_lanes_migrate(lanes, QUARRY_LANE_ANY, id, 0) > 0);
	for (int i = 0; i < OBJECTS; i++)
		if (i % 10 != 0)
			MUST(quarry_hfree(lanes, handle[i]) == 0);
	MUST(quarry_compact(lanes, QUARRY_COMPACT_FULL, 0, 0) > 0);
	verify(10, id, "what is packed on its node");
	MUST(quarry_lanes_destroy(lanes) == 0);
}

static void run_cost(void)
{
	quarry_migrate_cost cost = { 0 };

	need_nodes(2, 1);
	make();
	for (int i = 0; i < machine.memories; i++) {
		int id = machine.node[machine.memory[i]].id;
		uint64_t mib_s = 0;
		int known = quarry_node_copy(machine.node[machine.home[0]].id, id, &mib_s);

		MUST(known >= 0 && mib_s > 0);
		MUST(quarry_lanes_migrate_cost(lanes, QUARRY_LANE_ANY, id, &cost) == 0);
		MUST(cost.objects + cost.there == OBJECTS && (cost.objects == 0) == (cost.ns == 0));
		note("to node %d: %llu MiB/s (%s), %llu us for %llu bytes", id, (unsigned long long)mib_s,
		     known == QUARRY_COPY_MEASURED ? "measured" : known == QUARRY_COPY_TOLD ? "told" : "guessed",
		     (unsigned long long)(cost.ns / 1000), (unsigned long long)cost.bytes);
	}
	MUST(quarry_lanes_destroy(lanes) == 0);
}

void add_lanes(void)
{
	TEST("lanes", "there-and-back", run_there_and_back, .options = "reclaim=off", .seconds = 120);
	TEST("lanes", "packed", run_packed, .options = "reclaim=off", .seconds = 60);
	TEST("lanes", "cost", run_cost, .options = "reclaim=off", .seconds = 60);
}
