/* SPDX-License-Identifier: MIT */
/* A process confined to some of the nodes sees those, uses those, and follows when they change under way. */
#include "tests/numa/suite.h"

#include <sys/syscall.h>

/* ---- the cpuset ---- */

/* "0-1,2-3", from a set's nodes' own ids, or their CPUs. */
static void list_of(const quarry_nodeset *set, bool cpus, char *text, size_t size)
{
	size_t n = 0;

	text[0] = 0;
	for (int i = 0; i < machine.count; i++) {
		const struct node *node = &machine.node[i];

		if (!quarry_nodeset_has(set, (unsigned)node->id))
			continue;
		if (!cpus)
			n += (size_t)snprintf(text + n, size - n, "%s%d", n ? "," : "", node->id);
		for (int c = 0; cpus && c < CPU_SETSIZE; c++)
			if (CPU_ISSET((size_t)c, &node->cpus))
				n += (size_t)snprintf(text + n, size - n, "%s%d", n ? "," : "", c);
	}
}

static bool confine(const quarry_nodeset *set)
{
	char text[1024];

	list_of(set, true, text, sizeof(text));
	if (!group_set("cpuset.cpus", text))
		return false;
	list_of(set, false, text, sizeof(text));
	return group_set("cpuset.mems", text);
}

/* ---- which nodes ---- */

static quarry_nodeset middle(void)
{
	quarry_nodeset set = one_node(machine.node[machine.home[1]].id);

	quarry_nodeset_add(&set, (unsigned)machine.node[machine.home[2]].id);
	return set;
}

static quarry_nodeset later(void)
{
	quarry_nodeset set = one_node(machine.node[machine.home[2]].id);

	quarry_nodeset_add(&set, (unsigned)machine.node[machine.home[3]].id);
	return set;
}

static bool prepare_middle(void)
{
	quarry_nodeset set;

	need_nodes(this_test->a, this_test->a);
	set = middle();
	group_make("cpuset");
	return confine(&set) && group_join();
}

/* ---- confined ---- */

static bool lists(const quarry_nodeset *set)
{
	quarry_node_info list[128] = { { .struct_size = sizeof(list[0]) } };
	long n = quarry_nodes(list, 128);
	int index = 0;

	for (unsigned id = 0; id < IDS; id++) {
		if (!quarry_nodeset_has(set, id))
			continue;
		if (index >= n || list[index].id != (int)id || list[index].index != index || !list[index].allowed ||
		    quarry_node_id(index) != (int)id)
			return false;
		index++;
	}
	return n == index && quarry_node_count() == index;
}

/* Each policy, without nodes and with all there are. */
static void everything_inside(const quarry_nodeset *set)
{
	char what[100];

	for (int policy = 0; policy <= QUARRY_POLICY_WEIGHTED_INTERLEAVE; policy++) {
		for (int kind = QUARRY_PAGES_BASE; kind <= QUARRY_PAGES_THP; kind++) {
			quarry_arena *arena = make_arena(policy, kind, 0, NULL);
			struct objects o = { .state = seed_of((unsigned)policy) };
			struct tally t = { 0 };

			MUST(arena != NULL);
			snprintf(what, sizeof(what), "in the cpuset, %s, %s pages", policy_names[policy],
				 kind_names[kind]);
			for (int s = 0; s < SIZES; s++)
				MUST(objects_make(&o, s, 4 * MIB, from_arena, arena));
			objects_tally(&o, &t);
			verify_tally(&t, set, what);
			objects_free(&o);
			free(o.list);
			MUST(quarry_arena_destroy(arena) == 0);
		}
	}
}

/* What the thread gets when it runs on a node; freed again. */
static void get_on(int id, struct tally *t)
{
	struct objects o = { .state = seed_of((unsigned)id) };

	pin_to_node(id);
	MUST(quarry_thread_rebind(-1) == 0);
	for (int s = 0; s < SIZES; s++)
		MUST(objects_make(&o, s, 4 * MIB, from_malloc, NULL));
	objects_tally(&o, t);
	objects_free(&o);
	free(o.list);
}

static void own_node(int id)
{
	quarry_nodeset set = one_node(id);
	struct tally t = { 0 };

	get_on(id, &t);
	verify_tally(&t, &set, "malloc in the cpuset");
}

static void run_confined(void)
{
	quarry_nodeset set = middle();
	quarry_node_info info = { .struct_size = sizeof(info) };
	int outside = machine.node[machine.home[0]].id;

	if (quarry_node_count() != 2)
		fail("confined to two nodes, quarry_node_count() says %d", quarry_node_count());
	if (quarry_node_id(0) != machine.node[machine.home[1]].id)
		fail("quarry_node_id(0) says %d", quarry_node_id(0));
	errno = 0;
	if (quarry_node_id(2) != -1 || errno != EINVAL)
		fail("quarry_node_id(2) says %d", quarry_node_id(2));
	if (!lists(&set))
		fail("quarry_nodes does not list the two nodes");
	MUST(quarry_node_info_get(outside, &info) == 0);
	if (info.allowed || info.index != -1)
		fail("node %d is outside, and its info says allowed %d, index %d", outside, info.allowed, info.index);
	everything_inside(&set);
	own_node(machine.node[machine.home[1]].id);
	own_node(machine.node[machine.home[2]].id);
	MUST(quarry_node_best(QUARRY_ATTR_FREE, -1) >= 0);
	if (!quarry_nodeset_has(&set, (unsigned)quarry_node_best(QUARRY_ATTR_FREE, -1)))
		fail("the best node by free memory is one that may not be used");
	if (!quarry_nodeset_has(&set, (unsigned)quarry_node_best(QUARRY_ATTR_DISTANCE, -1)))
		fail("the nearest node is one that may not be used");
}

/* Bound to a node that may not be used. */
static void run_outside(void)
{
	int outside = machine.node[machine.home[0]].id;
	quarry_nodeset set = middle(), wrong = one_node(outside);
	uint64_t refused;
	quarry_arena *arena;
	char *p;

	errno = 0;
	arena = make_arena(QUARRY_POLICY_BIND, QUARRY_PAGES_BASE, QUARRY_ARENA_STRICT, &wrong);
	if (arena != NULL && quarry_arena_malloc(arena, 1000) != NULL)
		fail("an arena was bound strictly to node %d, which the cpuset forbids", outside);
	if (errno != EINVAL && errno != ENOMEM)
		fail("errno %d (%s), not EINVAL", errno, strerror(errno));
	refused = stats_of(NULL).refused[QUARRY_REFUSED_MBIND_EINVAL];
	arena = make_arena(QUARRY_POLICY_BIND, QUARRY_PAGES_BASE, 0, &wrong);
	if (arena == NULL) {
		MUST(errno == EINVAL);
	} else {
		MUST((p = quarry_arena_malloc(arena, MIB)) != NULL);
		verify_on(memset(p, 1, MIB), MIB, &set, "bound to a node outside of the cpuset, not strictly");
		if (stats_of(NULL).refused[QUARRY_REFUSED_MBIND_EINVAL] <= refused && stats_of(arena).unplaced == 0)
			fail("neither refused nor unplaced says that node %d was not to be had", outside);
	}
	/* Half in, half out: the half that is in. */
	quarry_nodeset_add(&wrong, (unsigned)machine.node[machine.home[1]].id);
	arena = make_arena(QUARRY_POLICY_INTERLEAVE, QUARRY_PAGES_BASE, 0, &wrong);
	MUST(arena != NULL && (p = quarry_arena_malloc(arena, MIB)) != NULL);
	verify_on_node(memset(p, 1, MIB), MIB, machine.node[machine.home[1]].id, "interleaved, half of it outside");
	errno = 0;
	MUST(quarry_thread_rebind(outside) == -1 && errno == EINVAL);
	arena = quarry_arena_of_node(outside);
	if (arena != NULL) {
		MUST((p = quarry_arena_malloc(arena, MIB)) != NULL);
		verify_on(memset(p, 1, MIB), MIB, &set, "the default arena of a node outside of the cpuset");
	}
}

/* ---- changed under way ---- */

static quarry_nodeset now_allowed;

static bool follows(void *unused)
{
	struct objects o = { .state = seed_of(9) };
	struct tally t = { 0 };

	(void)unused;
	MUST(objects_make(&o, SMALL, MIB, from_malloc, NULL));
	MUST(objects_make(&o, LARGE, 2 * MIB, from_malloc, NULL));
	objects_tally(&o, &t);
	objects_free(&o);
	free(o.list);
	return tally_foreign(&t, &now_allowed) == 0 && lists(&now_allowed);
}

static bool has_own(void *arg)
{
	int id = *(int *)arg;
	quarry_nodeset set = one_node(id);
	struct tally t = { 0 };

	get_on(id, &t);
	/* A thread that is in a fault while the kernel changes its cpuset may still get a page of the old one; and what
	 * was free and in memory was moved by the kernel in the order of its nodes. Both come home. */
	if (tally_foreign(&t, &set) != 0)
		return false;
	verify_tally(&t, &now_allowed, "malloc after the cpuset changed");
	return true;
}

static void drive(void *unused)
{
	(void)unused;
	for (int i = 0; i < 5000; i++)
		quarry_free(quarry_malloc(40000));
}

static void *runner(void *arg)
{
	_Atomic(bool) *over = arg;
	uint64_t state = seed_of(11), operations = 0;

	while (!*over) {
		size_t size = random_size(SMALL, &state);
		void *p = quarry_malloc(size);

		MUST(p != NULL);
		memset(p, 1, size);
		quarry_free(p);
		rest_now_and_then(++operations);
	}
	return NULL;
}

static void change(const quarry_nodeset *set, quarry_arena *anywhere)
{
	char what[100], nodes[60];
	struct objects o = { .state = seed_of(10) };
	struct tally t = { 0 };

	set_name(set, nodes, sizeof(nodes));
	snprintf(what, sizeof(what), "cpuset changed to %s", nodes);
	now_allowed = *set;
	if (!confine(set))
		fail("%s: errno %d", what, errno);
	if (!wait_until(follows, NULL, drive, 30))
		fail("%s: not followed: %d nodes, the first is %d", what, quarry_node_count(), quarry_node_id(0));
	/* A thread on each of the new nodes has its own. Not at once: the kernel moves a process's pages with its
	 * cpuset, from the first old node to the first new one and so on, and what is free among them has to be
	 * brought home. */
	for (int i = 0; i < machine.homes; i++) {
		int id = machine.node[machine.home[i]].id;

		if (quarry_nodeset_has(set, (unsigned)id) && !wait_until(has_own, &id, drive, 30))
			fail("%s: threads on node %d still get memory of other nodes", what, id);
	}
	for (int s = 0; s < SIZES; s++)
		MUST(objects_make(&o, s, 4 * MIB, from_arena, anywhere));
	objects_tally(&o, &t);
	verify_tally(&t, set, what);
	objects_free(&o);
	free(o.list);
	pin_to_cpus_of(set);
}

static void run_changed(void)
{
	quarry_nodeset before = middle(), after = later(), last = one_node(machine.node[machine.home[2]].id);
	_Atomic(bool) over = false;
	quarry_arena *anywhere;
	pthread_t threads[2];
	int count = this_test->b;

	now_allowed = before;
	pin_to_cpus_of(&before);
	MUST(follows(NULL));
	anywhere = make_arena(QUARRY_POLICY_LOCAL, QUARRY_PAGES_BASE, 0, NULL);
	MUST(anywhere != NULL);
	for (int i = 0; i < count; i++)
		MUST(pthread_create(&threads[i], NULL, runner, &over) == 0);
	change(&after, anywhere);
	change(&last, anywhere);
	change(&before, anywhere);
	over = true;
	for (int i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
}

/* ---- a policy of the task, as numactl sets one ---- */

static bool prepare_membind(void)
{
	unsigned long mask[IDS / 64 + 1] = { 0 };
	int id;

	need_nodes(2, 2);
	id = machine.node[machine.home[1]].id;
	mask[id / 64] |= 1ul << id % 64;
	return syscall(SYS_set_mempolicy, this_test->b, mask, (unsigned long)IDS + 1) == 0;
}

static void run_membind(void)
{
	struct objects o = { .state = seed_of(12) };
	struct tally t = { 0 };
	quarry_nodeset set = one_node(machine.node[machine.home[1]].id);
	char where[200];

	/* On another node than the policy's: who starts a program so means it. */
	pin_to_node(machine.node[machine.home[0]].id);
	for (int s = 0; s < SIZES; s++)
		MUST(objects_make(&o, s, 4 * MIB, from_malloc, NULL));
	objects_tally(&o, &t);
	verify_tally(&t, &set, "under a task policy");
	note("policy %d of node %d, running on node %d: %s", this_test->b, machine.node[machine.home[1]].id,
	     machine.node[machine.home[0]].id, tally_text(&t, where, sizeof(where)));
}

void add_cpuset(void)
{
	TEST("cpuset", "confined", run_confined, .prepare = prepare_middle, .a = 3);
	TEST("cpuset", "outside", run_outside, .prepare = prepare_middle, .a = 3);
	TEST("cpuset", "changed", run_changed, .prepare = prepare_middle, .a = 4, .seconds = 150);
	TEST("cpuset", "changed-threads", run_changed, .prepare = prepare_middle, .a = 4, .b = 2,
				 .seconds = 150);
	/* 2: MPOL_BIND, 3: MPOL_INTERLEAVE, as of numactl(8) --membind and --interleave. */
	TEST("cpuset", "task-bind", run_membind, .prepare = prepare_membind, .b = 2);
	TEST("cpuset", "task-interleave", run_membind, .prepare = prepare_membind, .b = 3);
}
