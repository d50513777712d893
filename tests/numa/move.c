/* SPDX-License-Identifier: MIT */
/* quarry_arena_move: a live arena goes to other nodes while threads allocate, use and free its memory. */
#include "tests/numa/suite.h"

#include <stdatomic.h>

#define WORKERS 4
#define SLOTS 600

struct worker {
	pthread_t thread;
	uint64_t state;
	struct object slot[SLOTS];
	size_t bytes, most;
	_Atomic(uint64_t) operations;
};

static struct worker workers[WORKERS];
static quarry_arena *arena;
static _Atomic(bool) over;
static _Atomic(bool) hold;
static pthread_barrier_t held;
static int from, to;

/* ---- those that use it meanwhile ---- */

static void step(struct worker *w)
{
	struct object *o = &w->slot[rnd(&w->state) % SLOTS];
	uint64_t r = rnd(&w->state);

	if (o->p != NULL) {
		if (!object_right(o))
			fail("the contents of an object of %zu bytes have changed", o->size);
		if (r % 4 == 0) {
			object_write(o);
			return;
		}
		quarry_free(o->p);
		w->bytes -= o->size;
		o->p = NULL;
		return;
	}
	o->size = random_size(r % 64 == 0 ? LARGE : r % 1024 == 1 ? HUGE : SMALL, &w->state);
	if (w->bytes + o->size > w->most)
		o->size = 64;
	o->p = quarry_arena_malloc(arena, o->size);
	if (o->p == NULL)
		fail("no memory while the arena moves (errno %d)", errno);
	object_write(o);
	w->bytes += o->size;
}

static void *work(void *arg)
{
	struct worker *w = arg;

	while (!atomic_load_explicit(&over, memory_order_relaxed)) {
		if (atomic_load_explicit(&hold, memory_order_relaxed)) {
			pthread_barrier_wait(&held);
			pthread_barrier_wait(&held);
		}
		step(w);
		/* A CPU that never rests makes every move wait for it: under emulation, for very long. */
		if (++w->operations % 64 == 0)
			pause_ms(2);
	}
	return NULL;
}

static void start_workers(size_t bytes)
{
	pthread_barrier_init(&held, NULL, WORKERS + 1);
	for (int i = 0; i < WORKERS; i++) {
		workers[i].state = seed_of((unsigned)i);
		workers[i].most = bytes / WORKERS;
		MUST(pthread_create(&workers[i].thread, NULL, work, &workers[i]) == 0);
	}
}

static void stop_workers(void)
{
	over = true;
	for (int i = 0; i < WORKERS; i++)
		pthread_join(workers[i].thread, NULL);
}

static uint64_t operations(void)
{
	uint64_t sum = 0;

	for (int i = 0; i < WORKERS; i++)
		sum += workers[i].operations;
	return sum;
}

/* All of the workers' objects, with the workers still. */
static void tally_workers(struct tally *t)
{
	for (int i = 0; i < WORKERS; i++)
		for (int s = 0; s < SLOTS; s++)
			if (workers[i].slot[s].p != NULL)
				tally_add(t, workers[i].slot[s].p, workers[i].slot[s].size);
}

/* ---- moving ---- */

static quarry_move_report move_to(const quarry_nodeset *set, int expected, const char *what)
{
	quarry_move_report report = { .struct_size = sizeof(report) };
	int r;

	errno = 0;
	r = quarry_arena_move(arena, set, &report);
	if (r != (expected == 0 ? 0 : -1) || (expected != 0 && errno != expected))
		fail("%s: quarry_arena_move returned %d, errno %d (%s), left %llu of %llu bytes", what, r, errno,
		     strerror(errno), (unsigned long long)report.left,
		     (unsigned long long)(report.left + report.moved + report.there));
	return report;
}

static void check_where(const quarry_nodeset *set, const char *what)
{
	quarry_residency list[128];
	long n = quarry_arena_where(arena, list, 128);

	for (long i = 0; i < n && i < 128; i++)
		if (list[i].node < 0 || !quarry_nodeset_has(set, (unsigned)list[i].node) || list[i].strayed != 0)
			fail("%s: quarry_arena_where says %llu bytes on node %d, %llu strayed", what,
			     (unsigned long long)list[i].bytes, list[i].node, (unsigned long long)list[i].strayed);
}

static void two_nodes(void)
{
	need_nodes(2, 1);
	from = machine.node[machine.memory[0]].id;
	to = machine.node[machine.memory[machine.memories - 1]].id;
}

/* How much the test can have: a part of what is free on both nodes. */
static size_t room(void)
{
	uint64_t least = node_free(from) < node_free(to) ? node_free(from) : node_free(to);

	least = least / 3;
	return least > 64 * MIB ? 64 * MIB : least;
}

static void fresh_on(const quarry_nodeset *set, const char *what)
{
	struct objects o = { .state = seed_of(77) };
	struct tally t = { 0 };

	for (int s = 0; s < SIZES; s++)
		MUST(objects_make(&o, s, 4 * MIB, from_arena, arena));
	objects_tally(&o, &t);
	verify_tally(&t, set, what);
	objects_free(&o);
	free(o.list);
}

/* A still part with contents, and four threads at work. */
static void run_live(void)
{
	int kind = this_test->b;
	struct objects still = { .state = seed_of(50) };
	quarry_nodeset here, there;
	quarry_move_report report;
	size_t bytes;
	uint64_t began, before, before_operations, home;

	two_nodes();
	if (kind == QUARRY_PAGES_2M)
		need_pools(36);
	bytes = kind == QUARRY_PAGES_2M ? 36 * MIB : room();
	here = one_node(from);
	there = one_node(to);
	arena = make_arena(this_test->a, kind, 0, &here);
	MUST(arena != NULL);
	MUST(objects_make(&still, SMALL, bytes / 8, from_arena, arena));
	MUST(objects_make(&still, LARGE, bytes / 8, from_arena, arena));
	MUST(objects_make(&still, HUGE, bytes / 4, from_arena, arena));
	start_workers(kind == QUARRY_PAGES_2M ? 4 * MIB : bytes / 4);
	for (int round = 0; round < 2; round++) {
		struct tally t = { 0 };
		char what[80];

		snprintf(what, sizeof(what), "round %d", round);
		began = now_ms();
		before = stats_of(arena).moved;
		home = stats_of(arena).brought_home;
		before_operations = operations();
		report = move_to(&there, 0, what);
		/* The reclaimer sees pages on the wrong nodes, too, and may take a part of the work. */
		home = stats_of(arena).brought_home - home;
		if (report.left != 0 || report.moved + home < still.bytes || report.rounds == 0 || report.ns == 0 ||
		    report.ns > (now_ms() - began + 20) * 1000000)
			fail("%s: the report says %llu bytes moved, %llu there, %llu left, %u rounds, %llu ns; %zu "
			     "were elsewhere", what, (unsigned long long)report.moved, (unsigned long long)report.there,
			     (unsigned long long)report.left, report.rounds, (unsigned long long)report.ns,
			     still.bytes);
		if (stats_of(arena).moved - before != report.moved)
			fail("%s: the statistics say %llu bytes moved, the report %llu", what,
			     (unsigned long long)(stats_of(arena).moved - before), (unsigned long long)report.moved);
		/* Hold the workers, and look at every page. */
		hold = true;
		pthread_barrier_wait(&held);
		objects_tally(&still, &t);
		tally_workers(&t);
		verify_tally(&t, &there, what);
		check_where(&there, what);
		hold = false;
		pthread_barrier_wait(&held);
		objects_check(&still);
		fresh_on(&there, "new memory after the move");
		note("%s: %llu KiB in %llu ms, %u rounds, %llu operations meanwhile", what,
		     (unsigned long long)(report.moved >> 10), (unsigned long long)(report.ns / 1000000), report.rounds,
		     (unsigned long long)(operations() - before_operations));
		/* Back again. */
		there = here;
		here = one_node(to);
	}
	stop_workers();
	objects_check(&still);
	MUST(quarry_arena_destroy(arena) == 0);
}

/* The kind of page is kept where that can be. */
static void run_kind(void)
{
	quarry_nodeset here, there;
	struct objects o = { .state = seed_of(51) };
	uint64_t huge = 0, after = 0;

	two_nodes();
	need_thp();
	here = one_node(from);
	there = one_node(to);
	arena = make_arena(QUARRY_POLICY_BIND, QUARRY_PAGES_THP, 0, &here);
	MUST(objects_make(&o, HUGE, 32 * MIB, from_arena, arena));
	huge = rollup("AnonHugePages:");
	move_to(&there, 0, "transparent huge pages");
	after = rollup("AnonHugePages:");
	if (after < huge / 2)
		fail("of %llu bytes in huge pages, %llu are after the move", (unsigned long long)huge,
		     (unsigned long long)after);
	count_pages(o.bytes / PAGE);
}

/* A set: spread over it as its policy says. */
static void run_set(void)
{
	quarry_nodeset here, there = { { 0 } };
	struct objects o = { .state = seed_of(52) };
	struct tally t = { 0 };
	uint64_t least = UINT64_MAX, most = 0;
	char where[200];

	two_nodes();
	need_nodes(3, 1);
	here = one_node(from);
	for (int i = 1; i < machine.memories; i++)
		quarry_nodeset_add(&there, (unsigned)machine.node[machine.memory[i]].id);
	arena = make_arena(this_test->a, QUARRY_PAGES_BASE, 0, &here);
	MUST(arena != NULL);
	for (int s = 0; s < SIZES; s++)
		MUST(objects_make(&o, s, 12 * MIB, from_arena, arena));
	move_to(&there, 0, "to a set");
	objects_tally(&o, &t);
	verify_tally(&t, &there, "moved to a set");
	objects_check(&o);
	for (int i = 1; i < machine.memories; i++) {
		uint64_t n = t.on[machine.node[machine.memory[i]].id];

		least = n < least ? n : least;
		most = n > most ? n : most;
	}
	if (this_test->a == QUARRY_POLICY_INTERLEAVE && most - least > t.total / 10 + 64)
		fail("moved to a set to be interleaved over, but: %s", tally_text(&t, where, sizeof(where)));
	fresh_on(&there, "new memory after the move to a set");
	move_to(&here, 0, "and back");
	memset(&t, 0, sizeof(t));
	objects_tally(&o, &t);
	verify_tally(&t, &here, "moved back");
	objects_check(&o);
}

/* ---- no room ---- */

/* More than the kernel keeps for itself: who fills below that is killed. */
#define FULL_LEAVE (64 * MIB)
/* Much more than that: beside what is free the kernel finds what it can drop (files' pages), and what it has in lists
 * of its CPUs, which MemFree does not count. */
#define FULL_MOVED (160 * MIB)

static struct objects left;
static quarry_nodeset goal;

static bool there_now(void *unused)
{
	struct tally t = { 0 };

	(void)unused;
	objects_tally(&left, &t);
	return tally_foreign(&t, &goal) == 0;
}

static void drive(void *unused)
{
	(void)unused;
	for (int i = 0; i < 5000; i++) {
		void *p = quarry_malloc(40000 + (size_t)i);

		MUST(p != NULL);
		*(volatile char *)p = 1;
		quarry_free(p);
	}
}

static void run_full(void)
{
	quarry_nodeset here;
	struct helper filler;
	quarry_move_report report;
	struct tally t = { 0 };

	two_nodes();
	here = one_node(from);
	goal = one_node(to);
	if (node_free(from) < FULL_MOVED + 40 * MIB)
		skip("node %d has too little memory", from);
	left.state = seed_of(53);
	/* Not bound there, since then the kernel would have to kill for new memory. */
	arena = make_arena(QUARRY_POLICY_PREFERRED, QUARRY_PAGES_BASE, 0, &here);
	MUST(arena != NULL);
	MUST(objects_make(&left, LARGE, FULL_MOVED, from_arena, arena));
	filler = fill_node(to, FULL_LEAVE);
	report = move_to(&goal, EAGAIN, "no room there");
	if (report.left == 0)
		fail("EAGAIN, and the report says nothing is left");
	objects_tally(&left, &t);
	/* What the kernel has is what the report says, give or take what is not objects. */
	if (tally_foreign(&t, &goal) * PAGE > report.left)
		fail("the report says %llu bytes are left, the kernel has %llu", (unsigned long long)report.left,
		     (unsigned long long)(tally_foreign(&t, &goal) * PAGE));
	objects_check(&left);
	helper_must_live(&filler);
	helper_end(&filler);
	if (this_test->b)
		move_to(NULL, 0, "there is room again");
	else if (!wait_until(there_now, NULL, drive, 60))
		fail("there is room again, and the reclaimer did not go on with it");
	memset(&t, 0, sizeof(t));
	objects_tally(&left, &t);
	verify_tally(&t, &goal, "moved later");
	objects_check(&left);
}

/* ---- a node's default arena ---- */

static void run_default(void)
{
	struct objects o = { .state = seed_of(54) };
	quarry_nodeset there;
	struct tally t = { 0 };

	need_nodes(2, 2);
	two_nodes();
	from = machine.node[machine.home[0]].id;
	there = one_node(to);
	pin_to_node(from);
	MUST(quarry_thread_rebind(-1) == 0);
	for (int s = 0; s < SIZES; s++)
		MUST(objects_make(&o, s, 8 * MIB, from_malloc, NULL));
	arena = quarry_arena_of_node(from);
	MUST(arena != NULL && quarry_arena_of(o.list[0].p) == arena);
	move_to(&there, 0, "a node's default arena");
	objects_tally(&o, &t);
	verify_tally(&t, &there, "a node's default arena, moved");
	objects_check(&o);
	/* It stays the arena of its node's threads. */
	for (int i = 0; i < 3000; i++) {
		size_t size = 16 + (size_t)i % 4000;
		void *p = quarry_malloc(size);

		MUST(p != NULL && quarry_arena_of(p) == arena);
		verify_on_node(memset(p, 1, size), size, to, "malloc after the default arena moved");
	}
	there = one_node(from);
	move_to(&there, 0, "home again");
	memset(&t, 0, sizeof(t));
	objects_tally(&o, &t);
	verify_tally(&t, &there, "home again");
}

/* LOCAL: what is outside of the set goes to the nearest in it. */
static void run_local(void)
{
	struct objects o[128] = { { 0 } };
	quarry_nodeset set = { { 0 } };

	need_nodes(3, 3);
	two_nodes();
	quarry_nodeset_add(&set, (unsigned)machine.node[machine.home[1]].id);
	quarry_nodeset_add(&set, (unsigned)machine.node[machine.home[2]].id);
	arena = make_arena(QUARRY_POLICY_LOCAL, QUARRY_PAGES_BASE, 0, NULL);
	MUST(arena != NULL);
	for (int i = 0; i < machine.homes; i++) {
		pin_to_node(machine.node[machine.home[i]].id);
		o[i].state = seed_of((unsigned)i);
		for (int s = 0; s < SIZES; s++)
			MUST(objects_make(&o[i], s, 4 * MIB, from_arena, arena));
	}
	move_to(&set, 0, "local");
	for (int i = 0; i < machine.homes; i++) {
		quarry_nodeset near = nearest_of(&set, machine.node[machine.home[i]].id);
		struct tally t = { 0 };

		objects_tally(&o[i], &t);
		verify_tally(&t, &near, "local, moved to a smaller set");
		objects_check(&o[i]);
	}
	for (int i = 0; i < machine.homes; i++) {
		quarry_nodeset near = nearest_of(&set, machine.node[machine.home[i]].id);

		pin_to_node(machine.node[machine.home[i]].id);
		fresh_on(&near, "local, new memory after the move");
	}
}

/* ---- mistakes ---- */

static void refuse(quarry_arena *a, const quarry_nodeset *set, quarry_move_report *report, const char *what)
{
	errno = 0;
	if (quarry_arena_move(a, set, report) != -1 || errno != EINVAL)
		fail("%s: errno %d, not EINVAL", what, errno);
}

static void run_mistakes(void)
{
	quarry_nodeset here, unknown;
	quarry_move_report report = { .struct_size = sizeof(report) }, bad = { 0 };
	int id = 0;
	char *p;

	two_nodes();
	while (node_index(id) >= 0)
		id++;
	here = one_node(from);
	unknown = one_node(id);
	arena = make_arena(QUARRY_POLICY_BIND, QUARRY_PAGES_BASE, 0, &here);
	MUST((p = quarry_arena_malloc(arena, MIB)) != NULL);
	memset(p, 1, MIB);
	refuse(arena, &unknown, &report, "no such node");
	refuse((quarry_arena *)&here, &here, &report, "no arena");
	refuse(arena, &here, &bad, "no struct_size");
	verify_on_node(p, MIB, from, "after refused moves");
	MUST(quarry_arena_move(arena, &here, NULL) == 0);
	MUST(quarry_arena_move(arena, NULL, &report) == 0);
	if (report.moved != 0 || report.there < MIB)
		fail("nothing was to be moved, and the report says %llu, %llu there", (unsigned long long)report.moved,
		     (unsigned long long)report.there);
	MUST(quarry_arena_destroy(arena) == 0);
	refuse(arena, &here, &report, "a destroyed arena");
}

void add_move(void)
{
	TEST("move", "live-base", run_live, .a = QUARRY_POLICY_BIND, .b = QUARRY_PAGES_BASE,
				 .seconds = 150);
	TEST("move", "live-thp", run_live, .a = QUARRY_POLICY_BIND, .b = QUARRY_PAGES_THP,
				 .seconds = 150);
	TEST("move", "live-2m", run_live, .a = QUARRY_POLICY_BIND, .b = QUARRY_PAGES_2M,
				 .seconds = 150);
	TEST("move", "live-preferred", run_live, .a = QUARRY_POLICY_PREFERRED,
				 .b = QUARRY_PAGES_AUTO, .seconds = 150);
	TEST("move", "kind", run_kind);
	TEST("move", "interleave", run_set, .a = QUARRY_POLICY_INTERLEAVE);
	TEST("move", "bind-set", run_set, .a = QUARRY_POLICY_BIND);
	TEST("move", "local", run_local);
	TEST("move", "full-then-again", run_full, .b = 1);
	TEST("move", "full-then-reclaimer", run_full, .b = 0, .seconds = 120);
	TEST("move", "default", run_default);
	TEST("move", "mistakes", run_mistakes);
}
