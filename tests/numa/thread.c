/* SPDX-License-Identifier: MIT */
/* A thread that moves to another node has its memory from there after at most one refill, and leaves nothing behind. */
#include "tests/numa/suite.h"

#define SLAB (64 * 1024)

static int first, second; /* nodes */

static void two_nodes(void)
{
	need_nodes(2, 2);
	first = machine.node[machine.home[0]].id;
	second = machine.node[machine.home[machine.homes - 1]].id;
}

static int node_of(void *p)
{
	*(volatile char *)p = 1;
	return node_of_page(p);
}

static uint64_t on_nodes(int id)
{
	return process_pages_on(id);
}

/* How many objects of a size come from the old node still. */
static unsigned until_on(int id, size_t size, unsigned most)
{
	for (unsigned n = 0; n <= most; n++) {
		void *p = quarry_malloc(size);

		MUST(p != NULL);
		if (node_of(p) == id)
			return n;
	}
	return most + 1;
}

static void run_moved(void)
{
	static const size_t sizes[] = { 16, 64, 256, 1024, 4096, 32768 };

	two_nodes();
	for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
		size_t size = sizes[s], list = size > 8192 ? 4 * SLAB / size : SLAB / size;
		void **held = calloc(list * 4, sizeof(*held));
		unsigned late;

		MUST(held != NULL);
		pin_to_node(first);
		MUST(quarry_thread_rebind(-1) == 0);
		/* Lists as long as they get: a slab that was full and freed whole. */
		for (size_t i = 0; i < list * 4; i++)
			MUST((held[i] = quarry_malloc(size)) != NULL && node_of(held[i]) == first);
		for (size_t i = 0; i < list * 4; i++)
			quarry_free(held[i]);
		pin_to_node(second);
		late = until_on(second, size, (unsigned)list);
		if (late > list)
			fail("moved to node %d, but more than a list of %zu objects of %zu bytes came from node %d",
			     second, list, size, first);
		/* From then on, all of them, of every class. */
		for (size_t i = 0; i < 2000; i++) {
			size_t n = i % 2 ? size : 16 + i * 13 % 32000;
			void *p = quarry_malloc(n);

			MUST(p != NULL);
			if (i % 2)
				verify_on_node(memset(p, 1, n), n, second, "after the first refill");
		}
		free(held);
	}
}

/* One that asks for large blocks alone never refills: each of them is a chance to look. */
static void run_large(void)
{
	unsigned late = 0;

	two_nodes();
	pin_to_node(first);
	MUST(quarry_thread_rebind(-1) == 0);
	for (int i = 0; i < 20; i++)
		verify_on_node(memset(quarry_malloc(100000), 1, 100000), 100000, first, "before");
	pin_to_node(second);
	while (node_of(quarry_malloc(100000)) != second)
		if (++late > 1)
			fail("moved to node %d, but large blocks keep coming from node %d", second, first);
	for (int i = 0; i < 20; i++)
		verify_on_node(memset(quarry_malloc(100000), 1, 100000), 100000, second, "after");
}

/* ---- what it leaves behind ---- */

static void *use_first(void *arg)
{
	struct objects *o = arg;
	quarry_nodeset set = one_node(first);
	struct tally t = { 0 };

	pin_to_node(first);
	MUST(objects_make(o, SMALL, 8 * MIB, from_malloc, NULL));
	objects_tally(o, &t);
	verify_tally(&t, &set, "another thread, on the old node");
	return NULL;
}

/* Some refills on a node, of all classes. */
static void refill_all(void)
{
	struct objects o = { .state = seed_of(7) };

	MUST(objects_make(&o, SMALL, 8 * MIB, from_malloc, NULL));
	objects_free(&o);
	free(o.list);
}

static uint64_t floor_pages;

static bool purged(void *unused)
{
	(void)unused;
	quarry_purge(NULL);
	return on_nodes(first) <= floor_pages;
}

static void run_given_back(void)
{
	struct objects o = { .state = seed_of(1) }, other = { .state = seed_of(1) };
	uint64_t before, used, shared;
	pthread_t thread;

	two_nodes();
	no_huge_pages_from_now_on();
	pin_to_node(first);
	MUST(quarry_thread_rebind(-1) == 0);
	before = on_nodes(first);
	MUST(objects_make(&o, SMALL, 8 * MIB, from_malloc, NULL));
	objects_free(&o);
	used = on_nodes(first);
	pin_to_node(second);
	refill_all();
	/* Another thread on the old node wants the same: it is there to be had. */
	MUST(pthread_create(&thread, NULL, use_first, &other) == 0);
	pthread_join(thread, NULL);
	shared = on_nodes(first);
	if (shared > used + (used - before) / 4 + 512)
		fail("the old node's cached objects were not to be had: %llu pages, %llu, and %llu with another thread",
		     (unsigned long long)before, (unsigned long long)used, (unsigned long long)shared);
	objects_free(&other);
	floor_pages = before + 512;
	/* What is left is quarry's own: the records of threads and slabs. The ended thread's memory goes later. */
	if (!wait_until(purged, NULL, NULL, 20))
		fail("all is freed, but %llu pages are left on the old node, %llu before",
		     (unsigned long long)on_nodes(first), (unsigned long long)before);
	count_pages(used - before);
}

static uint64_t max_of(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static void run_back_and_forth(void)
{
	uint64_t early = 0, late = 0;

	two_nodes();
	no_huge_pages_from_now_on();
	for (int i = 0; i < 1000; i++) {
		struct objects o = { .state = seed_of((unsigned)i % 50) };
		int id = i % 2 ? second : first;

		pin_to_node(id);
		if (i % 4 < 2)
			MUST(quarry_thread_rebind(-1) == 0);
		MUST(objects_make(&o, SMALL, 256 * 1024, from_malloc, NULL));
		if (i % 4 < 2) {
			struct tally t = { 0 };
			quarry_nodeset set = one_node(id);

			objects_tally(&o, &t);
			verify_tally(&t, &set, "back and forth");
		}
		objects_free(&o);
		free(o.list);
		/* The most in a while: at one moment something has just gone back, at another not. */
		if (i > 100 && i <= 200)
			early = max_of(early, process_rss());
		else if (i >= 900)
			late = max_of(late, process_rss());
	}
	if (late > early + 512)
		fail("resident memory grew from %llu to %llu pages over 800 moves (the most in 100)", (unsigned long long)early,
		     (unsigned long long)late);
	if (stats_of(NULL).node_moves < 400)
		fail("moved 1000 times, and quarry counted %llu", (unsigned long long)stats_of(NULL).node_moves);
}

/* ---- rebind ---- */

static void refuse(int node, const char *what)
{
	errno = 0;
	if (quarry_thread_rebind(node) != -1 || errno != EINVAL)
		fail("quarry_thread_rebind(%d), %s: errno %d, not EINVAL", node, what, errno);
}

static void run_rebind(void)
{
	int unknown = 0;

	two_nodes();
	pin_to_node(first);
	for (int i = 0; i < machine.memories; i++) {
		int id = machine.node[machine.memory[i]].id;
		void *p;

		MUST(quarry_thread_rebind(id) == 0);
		/* From now on means from the next object on. */
		p = quarry_malloc(100);
		MUST(p != NULL);
		if (quarry_arena_of(p) != quarry_arena_of_node(id))
			fail("rebound to node %d, the next object is of another arena", id);
		verify_on_node(memset(p, 1, 100), 100, id, "the next object after rebind");
		for (int n = 0; n < 2000; n++) {
			size_t size = n % 100 ? (size_t)16 + (size_t)n * 7 % 2000 : 100000;

			p = quarry_malloc(size);
			MUST(p != NULL);
			verify_on_node(memset(p, 1, size), size, id, "rebound");
		}
		/* It is where the thread runs no more that counts. */
		pin_to_node(machine.node[machine.home[i % machine.homes]].id);
		for (int n = 0; n < 2000; n++)
			MUST((p = quarry_malloc(64)) != NULL && node_of(p) == id);
	}
	pin_to_node(second);
	MUST(quarry_thread_rebind(-1) == 0);
	for (int n = 0; n < 500; n++)
		verify_on_node(memset(quarry_malloc(64), 1, 64), 64, second, "following the CPU again");
	pin_to_node(first);
	MUST(until_on(first, 64, SLAB / 64) <= SLAB / 64);
	while (node_index(unknown) >= 0)
		unknown++;
	refuse(unknown, "no such node");
	refuse(-2, "no node");
	refuse(QUARRY_NODES_MAX, "past all nodes");
	refuse(INT32_MAX, "past all nodes");
	refuse(INT32_MIN, "no node");
}

/* Other threads' homes are not touched by it. */
static void *stay(void *arg)
{
	pthread_barrier_t *barrier = arg;

	pin_to_node(first);
	verify_on_node(memset(quarry_malloc(64), 1, 64), 64, first, "before the other's rebind");
	pthread_barrier_wait(barrier);
	pthread_barrier_wait(barrier);
	for (int i = 0; i < 3000; i++)
		verify_on_node(memset(quarry_malloc(64), 1, 64), 64, first, "after the other's rebind");
	return NULL;
}

static void run_own(void)
{
	pthread_barrier_t barrier;
	pthread_t thread;

	two_nodes();
	pthread_barrier_init(&barrier, NULL, 2);
	MUST(pthread_create(&thread, NULL, stay, &barrier) == 0);
	pthread_barrier_wait(&barrier);
	MUST(quarry_thread_rebind(second) == 0);
	MUST(node_of(quarry_malloc(64)) == second);
	pthread_barrier_wait(&barrier);
	pthread_join(thread, NULL);
}

/* A thread's memory that ended on one node goes to the next thread of that node, not to one of another. */
static void *short_life(void *arg)
{
	struct objects o = { .state = seed_of(3) };
	quarry_nodeset set = one_node(*(int *)arg);
	struct tally t = { 0 };

	pin_to_node(*(int *)arg);
	MUST(objects_make(&o, SMALL, 2 * MIB, from_malloc, NULL));
	objects_tally(&o, &t);
	verify_tally(&t, &set, "a thread after another one's end");
	for (size_t i = 0; i < o.count; i += 2)
		quarry_free(o.list[i].p);
	free(o.list);
	return NULL;
}

static void run_heirs(void)
{
	two_nodes();
	for (int i = 0; i < 24; i++) {
		pthread_t thread;

		MUST(pthread_create(&thread, NULL, short_life, i % 3 == 0 ? &second : &first) == 0);
		pthread_join(thread, NULL);
	}
}

void add_thread(void)
{
	TEST("thread", "moved", run_moved);
	TEST("thread", "moved-large", run_large);
	TEST("thread", "given-back", run_given_back);
	TEST("thread", "back-and-forth", run_back_and_forth);
	TEST("thread", "rebind", run_rebind);
	TEST("thread", "rebind-own", run_own);
	TEST("thread", "heirs", run_heirs);
}
