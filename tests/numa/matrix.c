/* SPDX-License-Identifier: MIT */
/* The matrix: every policy with every page kind, in arenas of every node, pair of nodes and of all, and in the nodes'
 * default arenas, with small, large and huge objects. All pages are where they were promised, and of the kind. */
#include "tests/numa/suite.h"

#include <sys/mman.h>

#define POOL 28 /* 2 MiB pages on each node */

static const size_t amount[SIZES] = { 8 * MIB, 6 * MIB, 10 * MIB };

/* Interleaved memory is spread evenly: by page in a huge object, and nearly so over small ones, which do not begin and
 * end on all nodes alike. */
static void check_spread(const struct tally *t, const quarry_nodeset *set, uint64_t unit, enum sizes sizes)
{
	uint64_t least = UINT64_MAX, most = 0, nodes = 0, slack;
	char where[300];

	for (unsigned i = 0; i < IDS; i++) {
		if (!quarry_nodeset_has(set, i))
			continue;
		nodes++;
		least = t->on[i] < least ? t->on[i] : least;
		most = t->on[i] > most ? t->on[i] : most;
	}
	/* A region begins on any of the nodes: each piece adds at most a page of difference. */
	slack = unit + (sizes == HUGE ? 2 * unit : unit + t->total / 10);
	if (most - least > slack)
		fail("interleaved over %llu nodes, but %s", (unsigned long long)nodes,
		     tally_text(t, where, sizeof(where)));
}

/* One long run of pages that follow one another goes round the nodes, page by page. */
static void check_round(const struct object *o, const quarry_nodeset *set, size_t unit)
{
	uintptr_t at = ((uintptr_t)o->p + unit - 1) & ~(unit - 1), end = (uintptr_t)o->p + o->size;
	int last = -1, nodes = 0;

	for (unsigned i = 0; i < IDS; i++)
		nodes += quarry_nodeset_has(set, i);
	for (; at + unit <= end; at += unit) {
		int node = node_of_page((void *)at), next = last;

		if (last >= 0) {
			do
				next = (next + 1) % IDS;
			while (!quarry_nodeset_has(set, (unsigned)next));
			if (node != next)
				fail("interleaved, but after node %d comes node %d, not %d", last, node, next);
		}
		last = node;
	}
}

struct kinds {
	uint64_t frames, of[5];
};

/* The kind of each whole 2 MiB of an object, by the kernel's flags. */
static void add_kinds(const struct object *o, struct kinds *k)
{
	uintptr_t at = ((uintptr_t)o->p + PAGE_2M - 1) & ~(PAGE_2M - 1), end = (uintptr_t)o->p + o->size;

	for (; at + PAGE_2M <= end; at += PAGE_2M) {
		k->frames++;
		k->of[backing((void *)at)]++;
	}
}

static void check_kinds(const struct objects *o, int kind, bool strict)
{
	struct kinds k = { 0 };
	uint64_t got;

	for (size_t i = 0; i < o->count; i++)
		add_kinds(&o->list[i], &k);
	if (k.frames == 0 || k.of[BACKED_UNKNOWN] != 0)
		return;
	got = k.of[kind == QUARRY_PAGES_2M ? BACKED_HUGETLB : kind == QUARRY_PAGES_THP ? BACKED_THP : BACKED_BASE];
	/* Transparent huge pages are the kernel's to grant, but for strict arenas. */
	if (got < (kind == QUARRY_PAGES_THP && !strict ? k.frames * 8 / 10 : k.frames))
		fail("of %llu times 2 MiB, %llu are in pages of kind %s (base %llu, thp %llu, hugetlb %llu)",
		     (unsigned long long)k.frames, (unsigned long long)got, kind_names[kind],
		     (unsigned long long)k.of[BACKED_BASE], (unsigned long long)k.of[BACKED_THP],
		     (unsigned long long)k.of[BACKED_HUGETLB]);
}

/* Small and large objects in hugetlb arenas have no whole 2 MiB, but none is in another page. */
static void check_hugetlb(const struct objects *o)
{
	for (size_t i = 0; i < o->count; i += 16)
		if (backing(o->list[i].p) != BACKED_HUGETLB && backing(o->list[i].p) != BACKED_UNKNOWN)
			fail("an object of %zu bytes is not in a hugetlb page", o->list[i].size);
}

static quarry_nodeset promised(int policy, const quarry_nodeset *nodes, int here)
{
	quarry_nodeset all = all_memory(), set = set_empty(nodes) ? all : *nodes;

	if (policy == QUARRY_POLICY_LOCAL)
		return nearest_of(&set, here);
	if (policy == QUARRY_POLICY_PREFERRED)
		for (unsigned i = 0; i < IDS; i++)
			if (quarry_nodeset_has(&set, i))
				return one_node((int)i);
	return set;
}

/* What quarry says of the whole arena is in line with it, too. */
static void check_arena_where(quarry_arena *arena, const quarry_nodeset *set, uint64_t bytes)
{
	quarry_residency list[128];
	long n = quarry_arena_where(arena, list, 128);
	uint64_t sum = 0;

	if (n <= 0)
		fail("quarry_arena_where returned %ld", n);
	for (long i = 0; i < n && i < 128; i++) {
		if (list[i].strayed != 0 || list[i].node < 0 || !quarry_nodeset_has(set, (unsigned)list[i].node))
			fail("quarry_arena_where says %llu bytes on node %d, %llu of them strayed",
			     (unsigned long long)list[i].bytes, list[i].node, (unsigned long long)list[i].strayed);
		sum += list[i].bytes;
	}
	if (sum < bytes)
		fail("quarry_arena_where says %llu bytes in all, the kernel has %llu of the objects alone",
		     (unsigned long long)sum, (unsigned long long)bytes);
}

/* What quarry says it got: on kernels before 6.9 weighted interleave is plain interleave, and that is told. */
static int policy_to_get(int policy, quarry_arena *arena)
{
	static int weighted = -1;
	void *p;

	if (policy != QUARRY_POLICY_WEIGHTED_INTERLEAVE)
		return policy;
	if (weighted < 0) {
		unsigned long mask[2] = { 1, 0 };

		p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		mask[0] = 1ul << machine.node[machine.memory[0]].id % 64;
		/* 6: MPOL_WEIGHTED_INTERLEAVE; the ids of these tests' machines begin under 64. */
		weighted = syscall(237 /* mbind */, p, PAGE, 6, mask, 65ul, 0) == 0;
		munmap(p, PAGE);
	}
	if (weighted)
		return policy;
	if (stats_of(arena).placed_less == 0 || stats_of(NULL).refused[QUARRY_REFUSED_MBIND_EINVAL] == 0)
		fail("weighted interleave was not got, and neither placed_less nor refused says so");
	return QUARRY_POLICY_INTERLEAVE;
}

static void check_objects(const struct objects *o, int policy, int kind, unsigned flags, enum sizes sizes,
			  const quarry_nodeset *set, const char *what)
{
	bool interleaved = policy == QUARRY_POLICY_INTERLEAVE || policy == QUARRY_POLICY_WEIGHTED_INTERLEAVE;
	size_t unit = kind == QUARRY_PAGES_BASE ? PAGE : PAGE_2M;
	struct tally t = { 0 };

	objects_tally(o, &t);
	verify_tally(&t, set, what);
	objects_check(o);
	if (kind == QUARRY_PAGES_2M && sizes != HUGE)
		check_hugetlb(o);
	if (sizes != HUGE && !interleaved)
		return;
	if (sizes == HUGE)
		check_kinds(o, kind, flags & QUARRY_ARENA_STRICT);
	if (!interleaved)
		return;
	check_spread(&t, set, unit / PAGE, sizes);
	/* Where some 2 MiB were not to be had as one page, the round is another one. */
	if (sizes == HUGE && kind != QUARRY_PAGES_THP)
		for (size_t i = 0; i < o->count; i++)
			check_round(&o->list[i], set, unit);
}

static void one_cell(int policy, int kind, unsigned flags, enum sizes sizes, const quarry_nodeset *nodes, int here)
{
	struct objects o = { .state = seed_of((unsigned)sizes) };
	quarry_nodeset set = promised(policy, nodes, here);
	quarry_arena *arena = make_arena(policy, kind, flags, nodes);
	char what[200], names[100];
	int got;

	set_name(nodes, names, sizeof(names));
	snprintf(what, sizeof(what), "%s%s, %s pages, %s objects, %s, from node %d",
		 flags & QUARRY_ARENA_STRICT ? "strict " : "", policy_names[policy], kind_names[kind],
		 size_names[sizes], names, here);
	if (arena == NULL)
		fail("%s: no arena: %s", what, quarry_error_text());
	if (!objects_make(&o, sizes, amount[sizes], from_arena, arena))
		fail("%s: no memory after %zu bytes (errno %d)", what, o.bytes, errno);
	got = policy_to_get(policy, arena);
	check_objects(&o, policy, kind, flags, sizes, &set, what);
	objects_where(&o, got, true);
	check_arena_where(arena, &set, o.bytes);
	objects_free(&o);
	free(o.list);
	if (quarry_arena_destroy(arena) != 0)
		fail("%s: the arena cannot be destroyed (errno %d)", what, errno);
}

static void all_sizes(int policy, int kind, unsigned flags, const quarry_nodeset *nodes)
{
	static unsigned turn;

	for (int s = 0; s < SIZES; s++) {
		int here = machine.node[machine.processor[turn++ % (unsigned)machine.processors]].id;

		pin_to_node(here);
		one_cell(policy, kind, flags, s, nodes, here);
	}
}

/* Weighted interleave, strictly, on a kernel without it, is an error. */
static void strict_weighted(int kind)
{
	quarry_nodeset all = all_memory();
	quarry_arena *plain = make_arena(QUARRY_POLICY_WEIGHTED_INTERLEAVE, kind, 0, &all);
	quarry_arena *arena;
	void *p = quarry_arena_malloc(plain, 100);

	MUST(p != NULL);
	if (policy_to_get(QUARRY_POLICY_WEIGHTED_INTERLEAVE, plain) == QUARRY_POLICY_WEIGHTED_INTERLEAVE) {
		all_sizes(QUARRY_POLICY_WEIGHTED_INTERLEAVE, kind, QUARRY_ARENA_STRICT, &all);
		return;
	}
	errno = 0;
	arena = make_arena(QUARRY_POLICY_WEIGHTED_INTERLEAVE, kind, QUARRY_ARENA_STRICT, &all);
	if (arena != NULL && quarry_arena_malloc(arena, 100) != NULL)
		fail("weighted interleave, strict, was given where the kernel has none");
	if (errno != EINVAL && errno != ENOMEM && errno != ENOSYS)
		fail("weighted interleave, strict: errno %d, %s", errno, strerror(errno));
}

static void run_cell(void)
{
	int policy = this_test->a, kind = this_test->b;
	quarry_nodeset all = { { 0 } };
	int n = machine.memories;

	if (kind == QUARRY_PAGES_2M)
		need_pools(POOL);
	if (kind == QUARRY_PAGES_THP)
		need_thp();
	all_sizes(policy, kind, 0, &all);
	for (int i = 0; i < n; i++) {
		quarry_nodeset single = one_node(machine.node[machine.memory[i]].id);

		if (options.full || i == n - 1)
			all_sizes(policy, kind, 0, &single);
		for (int j = i + 1; j < n; j++) {
			quarry_nodeset pair = single;

			quarry_nodeset_add(&pair, (unsigned)machine.node[machine.memory[j]].id);
			if (options.full || (i == 0 && j == n - 1))
				all_sizes(policy, kind, 0, &pair);
		}
	}
	all = all_memory();
	if (policy == QUARRY_POLICY_WEIGHTED_INTERLEAVE)
		strict_weighted(kind);
	else
		all_sizes(policy, kind, QUARRY_ARENA_STRICT, &all);
	if (policy == QUARRY_POLICY_BIND) {
		all = one_node(machine.node[machine.memory[n - 1]].id);
		all_sizes(policy, kind, QUARRY_ARENA_STRICT, &all);
	}
}

/* ---- the nodes' default arenas ---- */

static void default_cell(quarry_arena *arena, int kind, enum sizes sizes, const quarry_nodeset *set, const char *what)
{
	struct objects o = { .state = seed_of((unsigned)sizes + 10) };

	if (!objects_make(&o, sizes, amount[sizes], arena == NULL ? from_malloc : from_arena, arena))
		fail("%s: no memory after %zu bytes (errno %d)", what, o.bytes, errno);
	check_objects(&o, QUARRY_POLICY_PREFERRED, kind, 0, sizes, set, what);
	objects_where(&o, -1, true);
	for (size_t i = 0; i < o.count; i += 64)
		if (quarry_arena_of(o.list[i].p) == NULL)
			fail("%s: quarry_arena_of does not know its own", what);
	objects_free(&o);
	free(o.list);
	quarry_purge(NULL);
}

/* By the node's arena, from another node, and by malloc of a thread that runs on the node (or, where it has no memory,
 * nearest to it). */
static void run_defaults(void)
{
	int kind = this_test->b;
	char what[120];

	if (machine.memories < 2)
		skip("with one node, default arenas ask the kernel for no policy");
	if (kind == QUARRY_PAGES_2M)
		need_pools(POOL);
	if (kind == QUARRY_PAGES_THP)
		need_thp();
	MUST(quarry_mallopt(QUARRY_OPT_PAGES, kind) == 1);
	for (int i = 0; i < machine.memories; i++) {
		int id = machine.node[machine.memory[i]].id;
		quarry_arena *arena = quarry_arena_of_node(id);
		quarry_nodeset set = one_node(id);

		if (arena == NULL)
			fail("quarry_arena_of_node(%d) is NULL", id);
		pin_to_node(machine.node[machine.processor[(i + 1) % machine.processors]].id);
		snprintf(what, sizeof(what), "node %d's arena, %s pages", id, kind_names[kind]);
		for (int s = 0; s < SIZES; s++)
			default_cell(arena, kind, s, &set, what);
	}
	for (int i = 0; i < machine.processors; i++) {
		int id = machine.node[machine.processor[i]].id;
		quarry_nodeset all = all_memory(), set = nearest_of(&all, id);

		pin_to_node(id);
		MUST(quarry_thread_rebind(-1) == 0);
		snprintf(what, sizeof(what), "malloc on node %d, %s pages", id, kind_names[kind]);
		for (int s = 0; s < SIZES; s++)
			default_cell(NULL, kind, s, &set, what);
	}
}

void add_matrix(void)
{
	static char names[32][64];
	int n = 0;

	for (int kind = QUARRY_PAGES_BASE; kind <= QUARRY_PAGES_2M; kind++) {
		for (int policy = QUARRY_POLICY_LOCAL; policy <= QUARRY_POLICY_WEIGHTED_INTERLEAVE; policy++, n++) {
			snprintf(names[n], sizeof(names[n]), "%s-%s", policy_names[policy], kind_names[kind]);
			TEST("matrix", names[n], run_cell, .a = policy, .b = kind, .seconds = 240);
		}
		snprintf(names[n], sizeof(names[n]), "default-%s", kind_names[kind]);
		TEST("matrix", names[n], run_defaults, .b = kind, .seconds = 240);
		n++;
	}
}
