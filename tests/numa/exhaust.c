/* SPDX-License-Identifier: MIT */
/* A node that is full: strict arenas say so, others go to the nearest, are counted, and their pages are brought home
 * when there is room. Nobody is killed (the harness looks at the kernel's count of that, too). */
#include "tests/numa/suite.h"

#define LEAVE (40 * MIB)
#define BLOCK (2 * MIB)
#define BLOCKS 256

static int full; /* the node that is filled */

/* The node to fill: one from which the nearest other is not the first by index, if there is such a one. */
static void choose(void)
{
	quarry_nodeset all = all_memory(), near;

	need_nodes(2, 1);
	full = machine.node[machine.home[machine.homes - 1]].id;
	for (int i = 0; i < machine.homes; i++) {
		int id = machine.node[machine.home[i]].id;
		int first = machine.node[machine.memory[id == machine.node[machine.memory[0]].id]].id;
		quarry_nodeset others = all;

		others.bits[id / 64] &= ~((uint64_t)1 << id % 64);
		near = nearest_of(&others, id);
		if (!quarry_nodeset_has(&near, (unsigned)first))
			full = id;
	}
	if (machine.node[node_index(full)].total < 2 * LEAVE)
		skip("node %d is too small to be filled", full);
}

/* The order in which the kernel falls back: by distance, but nodes before this one, and those with CPUs, count as one
 * unit further away each (find_next_best_node in mm/page_alloc.c). */
static int fallback_cost(const struct node *from, int to)
{
	const struct node *n = &machine.node[to];

	return from->distance[to] + (n->id < from->id) + n->has_cpus;
}

/* Where memory may go when the node is full. */
static quarry_nodeset next_best(void)
{
	const struct node *from = &machine.node[node_index(full)];
	int nearest = INT32_MAX, cheapest = INT32_MAX;
	quarry_nodeset set = one_node(full);

	for (int i = 0; i < machine.memories; i++) {
		int to = machine.memory[i];

		if (machine.node[to].id == full)
			continue;
		nearest = from->distance[to] < nearest ? from->distance[to] : nearest;
		cheapest = fallback_cost(from, to) < cheapest ? fallback_cost(from, to) : cheapest;
	}
	for (int i = 0; i < machine.memories; i++) {
		int to = machine.memory[i];

		if (machine.node[to].id != full &&
		    (from->distance[to] == nearest || fallback_cost(from, to) == cheapest))
			quarry_nodeset_add(&set, (unsigned)machine.node[to].id);
	}
	return set;
}

struct blocks {
	struct object list[BLOCKS];
	int count;
	quarry_arena *arena;
};

static struct blocks blocks;

/* Blocks until so many bytes or NULL. */
static size_t take(allocate *from, void *ctx, size_t bytes, struct helper *filler)
{
	size_t got = 0;

	while (got < bytes && blocks.count < BLOCKS) {
		struct object *o = &blocks.list[blocks.count];

		o->size = BLOCK;
		errno = 0;
		o->p = from(ctx, o->size);
		if (o->p == NULL)
			break;
		object_write(o);
		blocks.count++;
		got += o->size;
		if (filler != NULL)
			helper_must_live(filler);
	}
	return got;
}

static void tally_blocks(struct tally *t)
{
	memset(t, 0, sizeof(*t));
	for (int i = 0; i < blocks.count; i++) {
		if (!object_right(&blocks.list[i]))
			fail("the contents of a block have changed");
		tally_add(t, blocks.list[i].p, blocks.list[i].size);
	}
}

/* ---- strict ---- */

static void strict(int policy, const quarry_nodeset *set, int kind)
{
	quarry_arena *arena = make_arena(policy, kind, QUARRY_ARENA_STRICT, set);
	struct helper filler;
	struct tally t;
	size_t got;

	MUST(arena != NULL);
	pin_to_node(full);
	filler = fill_node(full, LEAVE);
	got = take(from_arena, arena, BLOCKS * BLOCK, &filler);
	if (got == BLOCKS * BLOCK)
		fail("%zu MiB were got where only %zu were left", got / MIB, LEAVE / MIB);
	if (errno != ENOMEM)
		fail("a full node: errno %d (%s), not ENOMEM", errno, strerror(errno));
	/* And it stays so, small and large. */
	for (int i = 0; i < 50; i++)
		if (quarry_arena_malloc(arena, 64 * MIB) != NULL)
			fail("64 MiB were got of a full node");
	tally_blocks(&t);
	if (blocks.count > 0)
		verify_tally(&t, set, "strict, what was got before the node was full");
	if (stats_of(NULL).refused[QUARRY_REFUSED_NODE_FULL] == 0)
		fail("refused[node-full] does not count it");
	helper_must_live(&filler);
	helper_end(&filler);
	/* There is room again, and it is found. */
	if (take(from_arena, arena, 8 * MIB, NULL) != 8 * MIB)
		fail("the node has room again, and the strict arena still says errno %d", errno);
	tally_blocks(&t);
	verify_tally(&t, set, "strict, after there is room");
}

static void run_strict(void)
{
	quarry_nodeset set;

	choose();
	set = one_node(full);
	strict(this_test->a, &set, this_test->b);
}

/* ---- preferred ---- */

static quarry_nodeset home;

static bool at_home(void *unused)
{
	struct tally t;

	(void)unused;
	tally_blocks(&t);
	return tally_foreign(&t, &home) == 0;
}

/* What a program does meanwhile; in series it is what drives the reclaimer. */
static void live_on(void *unused)
{
	(void)unused;
	for (int i = 0; i < 5000; i++) {
		void *p = quarry_malloc(40000 + (size_t)i);

		MUST(p != NULL);
		*(volatile char *)p = 1;
		quarry_free(p);
	}
}

static bool counted(void *arena)
{
	return stats_of(arena).strayed > 0;
}

static uint64_t told_strayed(quarry_arena *arena)
{
	quarry_residency list[128];
	long n = quarry_arena_where(arena, list, 128);
	uint64_t strayed = 0;

	for (long i = 0; i < n && i < 128; i++)
		strayed += list[i].strayed;
	return strayed;
}

/* Memory that strays to the nearest, is told of, and comes home. */
static void stray(allocate *from, quarry_arena *arena, const char *what)
{
	quarry_nodeset near = next_best();
	struct helper filler;
	struct tally t;
	uint64_t foreign;

	home = one_node(full);
	filler = fill_node(full, LEAVE);
	if (take(from, from == from_malloc ? NULL : arena, 2 * LEAVE, &filler) < 2 * LEAVE)
		fail("%s: no memory, though other nodes have some (errno %d)", what, errno);
	tally_blocks(&t);
	verify_tally(&t, &near, what);
	foreign = tally_foreign(&t, &home);
	if (foreign == 0)
		fail("%s: nothing strayed, the node was not full", what);
	/* Regions are populated beyond the blocks, so that the arena may have a little more. */
	if (told_strayed(arena) < foreign * PAGE)
		fail("%s: quarry_arena_where says %llu bytes strayed, the kernel %llu", what,
		     (unsigned long long)told_strayed(arena), (unsigned long long)(foreign * PAGE));
	if (!wait_until(counted, arena, live_on, 30))
		fail("%s: %llu pages strayed, and the statistics never say so", what, (unsigned long long)foreign);
	helper_must_live(&filler);
	helper_end(&filler);
	if (!wait_until(at_home, NULL, live_on, 60)) {
		char where[200];

		tally_blocks(&t);
		fail("%s: there is room again, and pages were not brought home: %s", what,
		     tally_text(&t, where, sizeof(where)));
	}
	tally_blocks(&t);
	verify_tally(&t, &home, "brought home");
	if (stats_of(arena).brought_home < foreign * PAGE / 2)
		fail("%s: brought_home says %llu bytes of %llu", what, (unsigned long long)stats_of(arena).brought_home,
		     (unsigned long long)(foreign * PAGE));
}

static void run_preferred(void)
{
	quarry_nodeset set;
	quarry_arena *arena;

	choose();
	set = one_node(full);
	pin_to_node(machine.node[machine.processor[0]].id);
	arena = make_arena(this_test->a, this_test->b, 0, &set);
	MUST(arena != NULL);
	stray(from_arena, arena, "an arena of a full node");
}

static void run_default(void)
{
	choose();
	pin_to_node(full);
	MUST(quarry_thread_rebind(-1) == 0);
	stray(from_malloc, quarry_arena_of_node(full), "malloc on a full node");
}

static void *idle(void *unused)
{
	(void)unused;
	quarry_free(quarry_malloc(100));
	pause();
	return NULL;
}

/* With threads, the reclaimer's own brings pages home, and the program does nothing for it. */
static void run_parallel(void)
{
	pthread_t thread;

	choose();
	pin_to_node(full);
	MUST(pthread_create(&thread, NULL, idle, NULL) == 0);
	MUST(quarry_thread_rebind(-1) == 0);
	stray(from_malloc, quarry_arena_of_node(full), "malloc on a full node, with a reclaimer");
}

/* Switched off, it leaves them. */
static void run_off(void)
{
	struct helper filler;
	struct tally before, after;

	choose();
	home = one_node(full);
	pin_to_node(full);
	MUST(quarry_thread_rebind(-1) == 0);
	filler = fill_node(full, LEAVE);
	MUST(take(from_malloc, NULL, 2 * LEAVE, &filler) == 2 * LEAVE);
	helper_end(&filler);
	tally_blocks(&before);
	for (int i = 0; i < 40; i++) {
		live_on(NULL);
		pause_ms(100);
	}
	tally_blocks(&after);
	if (tally_foreign(&after, &home) < tally_foreign(&before, &home))
		fail("bring_home=0, and pages were moved");
	count_pages(after.total);
}

/* ---- sets with one full node ---- */

static void run_set(void)
{
	int policy = this_test->a;
	quarry_nodeset set;
	struct helper filler;
	quarry_arena *arena;
	struct tally t;
	uint64_t others = 0;

	choose();
	set = next_best();
	pin_to_node(full);
	arena = make_arena(policy, QUARRY_PAGES_BASE, 0, &set);
	MUST(arena != NULL);
	filler = fill_node(full, LEAVE);
	if (take(from_arena, arena, 3 * LEAVE, &filler) < 3 * LEAVE)
		fail("no memory, though a node of the set has some (errno %d)", errno);
	tally_blocks(&t);
	verify_tally(&t, &set, "a set with one full node");
	for (int i = 0; i < machine.memories; i++)
		if (machine.node[machine.memory[i]].id != full)
			others += t.on[machine.node[machine.memory[i]].id];
	if (others < LEAVE / PAGE)
		fail("the node was not full");
	helper_must_live(&filler);
	helper_end(&filler);
}

/* Strict interleave keeps to the set, full or not; when that cannot be, it is ENOMEM. */
static void run_strict_set(void)
{
	quarry_nodeset set;
	struct helper filler;
	quarry_arena *arena;
	struct tally t;

	choose();
	need_nodes(3, 1);
	set = next_best();
	pin_to_node(machine.node[machine.processor[0]].id);
	arena = make_arena(this_test->a, QUARRY_PAGES_BASE, QUARRY_ARENA_STRICT, &set);
	MUST(arena != NULL);
	filler = fill_node(full, LEAVE);
	if (take(from_arena, arena, 3 * LEAVE, &filler) < 3 * LEAVE && errno != ENOMEM)
		fail("errno %d (%s), not ENOMEM", errno, strerror(errno));
	tally_blocks(&t);
	if (blocks.count > 0)
		verify_tally(&t, &set, "strict, a set with one full node");
	helper_must_live(&filler);
	helper_end(&filler);
}

void add_exhaust(void)
{
	TEST("exhaust", "strict-bind-base", run_strict, .a = QUARRY_POLICY_BIND,
				 .b = QUARRY_PAGES_BASE);
	TEST("exhaust", "strict-bind-thp", run_strict, .a = QUARRY_POLICY_BIND,
				 .b = QUARRY_PAGES_THP);
	TEST("exhaust", "strict-preferred", run_strict, .a = QUARRY_POLICY_PREFERRED,
				 .b = QUARRY_PAGES_BASE);
	TEST("exhaust", "strict-preferred-many", run_strict, .a = QUARRY_POLICY_PREFERRED_MANY,
				 .b = QUARRY_PAGES_AUTO);
	TEST("exhaust", "preferred-base", run_preferred, .a = QUARRY_POLICY_PREFERRED,
				 .b = QUARRY_PAGES_BASE, .seconds = 150);
	TEST("exhaust", "preferred-thp", run_preferred, .a = QUARRY_POLICY_PREFERRED,
				 .b = QUARRY_PAGES_THP, .seconds = 150);
	TEST("exhaust", "malloc", run_default, .seconds = 150);
	TEST("exhaust", "malloc-parallel", run_parallel, .seconds = 150);
	TEST("exhaust", "bring-home-off", run_off, .options = "bring_home=0");
	TEST("exhaust", "bind-set", run_set, .a = QUARRY_POLICY_BIND);
	TEST("exhaust", "preferred-many-set", run_set, .a = QUARRY_POLICY_PREFERRED_MANY);
	TEST("exhaust", "interleave-set", run_set, .a = QUARRY_POLICY_INTERLEAVE);
	TEST("exhaust", "strict-interleave-set", run_strict_set, .a = QUARRY_POLICY_INTERLEAVE);
}
