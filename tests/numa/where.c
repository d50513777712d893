/* SPDX-License-Identifier: MIT */
/* Where memory is, as quarry_where and quarry_arena_where tell it, is where the kernel has it. */
#include "tests/numa/suite.h"

#include <sys/mman.h>

#define BYTES (16 * MIB)
#define ENTRIES (BYTES / PAGE)
#define LIST_MAX 128

static quarry_page_info info[ENTRIES + 2];

/* Every entry against move_pages(2) and the page's flags. How many are in memory. */
static uint64_t compare(const char *p, size_t bytes, int wanted, int wanted_kind, const char *what)
{
	long n = quarry_where(p, bytes, info, ENTRIES + 2);
	uint64_t present = 0;

	if (n <= 0 || (size_t)n > ENTRIES + 2 || quarry_where(p, bytes, NULL, 0) != n)
		fail("%s: quarry_where returned %ld", what, n);
	for (long i = 0; i < n; i++) {
		const quarry_page_info *page = &info[i];
		int node = node_of_page(page->address), back = backing(page->address);

		/* khugepaged may have had it in its hands between the two looks. */
		for (int tries = 0; tries < 20 && page->node != (node < 0 ? QUARRY_NODE_NONE : node); tries++) {
			pause_ms(5);
			MUST(quarry_where(page->address, 1, &info[i], 1) == 1);
			node = node_of_page(page->address);
			back = backing(page->address);
		}
		if (page->node != (node < 0 ? QUARRY_NODE_NONE : node))
			fail("%s: entry %ld says node %d, the kernel %d", what, i, page->node, node);
		if (page->wanted_node != wanted || page->wanted_kind != wanted_kind || !page->policy_applied)
			fail("%s: entry %ld says wanted node %d, kind %s, applied %d", what, i, page->wanted_node,
			     kind_names[page->wanted_kind], page->policy_applied);
		if ((page->size == 0) != (node < 0))
			fail("%s: entry %ld on node %d says size %zu", what, i, node, page->size);
		if (node < 0 || back == BACKED_UNKNOWN)
			continue;
		present++;
		/* AUTO: the kernel would not say. Else it is right. */
		if ((page->page_kind == QUARRY_PAGES_BASE && back != BACKED_BASE) ||
		    (page->page_kind == QUARRY_PAGES_THP && back != BACKED_THP) ||
		    (page->page_kind == QUARRY_PAGES_2M) != (back == BACKED_HUGETLB))
			fail("%s: entry %ld says kind %s, its flags say %d", what, i, kind_names[page->page_kind],
			     back);
		if (page->page_kind == QUARRY_PAGES_2M && page->size != PAGE_2M)
			fail("%s: entry %ld of 2 MiB says size %zu", what, i, page->size);
	}
	count_pages(present);
	return present;
}

static char *block(quarry_arena **arena, int kind, int id)
{
	quarry_nodeset set = one_node(id);
	char *p;

	need_nodes(2, 1);
	*arena = make_arena(QUARRY_POLICY_BIND, kind, 0, &set);
	MUST(*arena != NULL);
	p = quarry_arena_aligned_alloc(*arena, PAGE_2M, BYTES);
	MUST(p != NULL);
	return p;
}

static int last_memory(void)
{
	return machine.node[machine.memory[machine.memories - 1]].id;
}

static void run_touched(void)
{
	quarry_arena *arena;
	int id = last_memory();
	char *p = block(&arena, QUARRY_PAGES_BASE, id);

	if (compare(p, BYTES, id, QUARRY_PAGES_BASE, "untouched") != 0)
		fail("memory that was never touched is there");
	for (size_t at = 0; at < BYTES; at += 3 * PAGE)
		p[at] = 1;
	if (compare(p, BYTES, id, QUARRY_PAGES_BASE, "every third page touched") != (ENTRIES + 2) / 3)
		fail("every third page was touched, and so many are there: %d", (int)ENTRIES);
	memset(p, 1, BYTES);
	if (compare(p, BYTES, id, QUARRY_PAGES_BASE, "all touched") != ENTRIES)
		fail("not all of it is there");
	/* Part of it, from the middle of a page to the middle of another. */
	if (quarry_where(p + 100, PAGE, info, 4) != 2 || info[0].address != p || info[1].address != p + PAGE)
		fail("a range over two pages is not two entries");
}

static void run_thp(void)
{
	quarry_arena *arena;
	int id = last_memory();
	char *p;
	uint64_t present;

	need_thp();
	p = block(&arena, QUARRY_PAGES_THP, id);
	p[0] = 1;
	present = compare(p, BYTES, id, QUARRY_PAGES_THP, "one byte touched");
	if (present != 1 && present != 512)
		fail("one byte was touched, and %llu pages are there", (unsigned long long)present);
	memset(p, 1, BYTES);
	compare(p, BYTES, id, QUARRY_PAGES_THP, "huge pages");
	/* Split one: a page of it goes, the others stay. */
	MUST(madvise(p + PAGE_2M + 5 * PAGE, PAGE, MADV_DONTNEED) == 0);
	if (compare(p, BYTES, id, QUARRY_PAGES_THP, "a huge page split") != ENTRIES - 1)
		fail("one page was given back, and it is not the one that is missing");
	if (info[512 + 5].node != QUARRY_NODE_NONE || info[512 + 4].node != id)
		fail("the page that was given back is said to be on node %d", info[512 + 5].node);
}

/* Read and never written: the kernel shows its zero page, small or huge, which is nobody's. */
static void run_zero(void)
{
	quarry_arena *arena;
	int id = last_memory();
	volatile char sum = 0;
	char *p;

	for (int kind = QUARRY_PAGES_BASE; kind <= QUARRY_PAGES_THP; kind++) {
		quarry_residency list[LIST_MAX];
		long n;

		p = block(&arena, kind, id);
		for (size_t at = 0; at < BYTES; at += PAGE)
			sum += p[at];
		MUST(sum == 0);
		if (compare(p, BYTES, id, kind, "read, not written") != 0)
			fail("%s: memory that was only read is said to be there", kind_names[kind]);
		n = quarry_arena_where(arena, list, LIST_MAX);
		for (long i = 0; i < n; i++)
			if (list[i].bytes > 0)
				fail("%s: quarry_arena_where counts %llu bytes of zero page on node %d",
				     kind_names[kind], (unsigned long long)list[i].bytes, list[i].node);
		memset(p, 1, BYTES);
		compare(p, BYTES, id, kind, "then written");
	}
}

static void run_2m(void)
{
	quarry_arena *arena;
	int id = last_memory();
	char *p;

	need_pools(16);
	p = block(&arena, QUARRY_PAGES_2M, id);
	memset(p, 1, BYTES);
	if (compare(p, BYTES, id, QUARRY_PAGES_2M, "hugetlb") != BYTES / PAGE_2M)
		fail("16 MiB of hugetlb memory are not 8 entries");
	/* One entry a page, wherever in it the range begins. */
	MUST(quarry_where(p + 12345, 1, info, 4) == 1 && info[0].address == p);
}

static void run_purged(void)
{
	quarry_arena *arena;
	int id = last_memory();
	char *p = block(&arena, QUARRY_PAGES_BASE, id), *keep;
	struct tally t = { 0 };

	memset(p, 1, BYTES);
	keep = quarry_arena_malloc(arena, 64 * 1024);
	memset(keep, 1, 64 * 1024);
	verify_on_node(p, BYTES, id, "before the purge");
	quarry_free(p);
	quarry_purge(arena);
	tally_add(&t, p, BYTES);
	if (t.on[id] != 0)
		fail("freed and purged, and %llu pages are still there", (unsigned long long)t.on[id]);
	compare(keep, 64 * 1024, id, QUARRY_PAGES_BASE, "what is in use");
	verify_on_node(keep, 64 * 1024, id, "what is in use, after the purge");
}

/* ---- the whole arena ---- */

/* Its sums are what the process has more than before in mappings of its policy, by numa_maps. (Of others khugepaged may make
 * huge pages meanwhile, of the test's own variables too.) */
static void run_arena(void)
{
	int kind = this_test->b;
	uint64_t before[IDS], after[IDS];
	quarry_residency list[LIST_MAX];
	struct objects o = { .state = seed_of(1) };
	quarry_nodeset all = all_memory();
	quarry_arena *arena;
	long n;

	need_nodes(2, 1);
	if (kind == QUARRY_PAGES_2M)
		need_pools(24);
	o.room = 65536;
	MUST((o.list = calloc(o.room, sizeof(*o.list))) != NULL);
	memset(o.list, 1, o.room * sizeof(*o.list));
	arena = make_arena(QUARRY_POLICY_INTERLEAVE, kind, 0, &all);
	MUST(arena != NULL);
	process_pages_with(" interleave", before);
	for (int s = 0; s < SIZES; s++)
		MUST(objects_make(&o, s, 8 * MIB, from_arena, arena));
	process_pages_with(" interleave", after);
	n = quarry_arena_where(arena, list, LIST_MAX);
	if (n != machine.memories || quarry_arena_where(arena, NULL, 0) != n)
		fail("interleaved over %d nodes, and quarry_arena_where says %ld", machine.memories, n);
	for (long i = 0; i < n; i++) {
		uint64_t kernel = (after[list[i].node] - before[list[i].node]) * PAGE, sum = 0;

		if (i > 0 && list[i].node <= list[i - 1].node)
			fail("the nodes are not ascending");
		for (int k = 0; k < 5; k++)
			sum += list[i].by_kind[k];
		if (sum != list[i].bytes)
			fail("node %d: the kinds are %llu bytes, all is %llu", list[i].node, (unsigned long long)sum,
			     (unsigned long long)list[i].bytes);
		if (list[i].bytes > kernel + MIB || kernel > list[i].bytes + MIB)
			fail("node %d: quarry_arena_where says %llu bytes, the kernel has %llu", list[i].node,
			     (unsigned long long)list[i].bytes, (unsigned long long)kernel);
		if (kind == QUARRY_PAGES_2M && list[i].by_kind[QUARRY_PAGES_2M] == 0)
			fail("node %d: no hugetlb memory is told of", list[i].node);
		count_pages(list[i].bytes / PAGE);
	}
	errno = 0;
	MUST(quarry_arena_where((quarry_arena *)&n, list, LIST_MAX) == -1 && errno == EINVAL);
}

/* ---- the policy that the kernel has for it ---- */

static void run_policy(void)
{
	/* By enum quarry_policy: MPOL_PREFERRED_MANY, MPOL_PREFERRED, MPOL_PREFERRED_MANY, MPOL_INTERLEAVE. */
	static const int modes[] = { 0, 5, 1, 5, 3 }; /* bind: and no killer */
	unsigned long mask[IDS / 64];
	quarry_nodeset all = all_memory();

	need_nodes(2, 1);
	for (int policy = QUARRY_POLICY_BIND; policy <= QUARRY_POLICY_INTERLEAVE; policy++) {
		static const size_t sizes[] = { 100, 100000, 10 * MIB };
		quarry_arena *arena = make_arena(policy, QUARRY_PAGES_AUTO, 0, &all);

		for (int i = 0; i < 3; i++) {
			char *p = quarry_arena_malloc(arena, sizes[i]);
			int mode;

			MUST(p != NULL);
			mode = policy_of(p, mask);
			if (mode != modes[policy])
				fail("%s: the kernel has mode %d", policy_names[policy], mode);
			for (unsigned id = 0; id < IDS; id++) {
				bool in = mask[id / 64] >> id % 64 & 1;
				bool wanted = policy == QUARRY_POLICY_PREFERRED ?
						      (int)id == machine.node[machine.memory[0]].id :
						      quarry_nodeset_has(&all, id);

				if (in != wanted)
					fail("%s: node %u is%s in the kernel's mask", policy_names[policy], id,
					     in ? "" : " not");
			}
		}
	}
}

void add_where(void)
{
	TEST("where", "touched", run_touched);
	TEST("where", "thp", run_thp);
	TEST("where", "zero", run_zero);
	TEST("where", "2m", run_2m);
	TEST("where", "purged", run_purged);
	TEST("where", "arena-base", run_arena, .b = QUARRY_PAGES_BASE);
	TEST("where", "arena-thp", run_arena, .b = QUARRY_PAGES_THP);
	TEST("where", "arena-2m", run_arena, .b = QUARRY_PAGES_2M);
	TEST("where", "policy", run_policy);
}
