/* SPDX-License-Identifier: MIT */
/* Pools of 2 MiB pages that are dry on one node while others have some. The kernel's reservation counts all nodes
 * together, so that mmap(2) proves nothing and the fault would be a SIGBUS: never here. */
#include "tests/numa/suite.h"

#include <signal.h>
#include <sys/wait.h>

#define BLOCK (2 * MIB)

static int dry; /* the node whose pool is dry */

/* One node's pool has so many pages, the others' have plenty. */
static void pools(long here)
{
	need_nodes(2, 1);
	dry = machine.node[machine.home[machine.homes - 1]].id;
	need_pools(24);
	if (!pool_set(dry, here))
		skip("node %d cannot have a pool of %ld pages", dry, here);
}

static void *block(quarry_arena *arena, size_t size, int fill)
{
	void *p = quarry_arena_malloc(arena, size);

	return p == NULL ? NULL : memset(p, fill, size);
}

/* Of the right node, whatever they are made of; and not of hugetlb where there were none. */
static void not_hugetlb(quarry_arena *arena, int count, const char *what)
{
	for (int i = 0; i < count; i++) {
		size_t size = i % 3 == 0 ? 3 * BLOCK : i % 3 == 1 ? 100000 : 1000;
		char *p = block(arena, size, i);

		if (p == NULL)
			fail("%s: no memory, though a smaller page would do (errno %d)", what, errno);
		verify_on_node(p, size, dry, what);
		if (backing(p) == BACKED_HUGETLB)
			fail("%s: a hugetlb page, where the pool is dry", what);
	}
}

static void run_dry(void)
{
	quarry_nodeset set;
	quarry_arena *arena;
	uint64_t before = rollup("Private_Hugetlb");

	pools(0);
	set = one_node(dry);
	arena = make_arena(this_test->a, QUARRY_PAGES_2M, 0, &set);
	MUST(arena != NULL);
	not_hugetlb(arena, 12, "a dry pool");
	if (rollup("Private_Hugetlb") != before)
		fail("smaps says there are hugetlb pages");
	if (stats_of(NULL).refused[QUARRY_REFUSED_HUGE_2M] == 0)
		fail("refused[huge-2m] does not count it");
	MUST(stats_of(arena).kind_got[QUARRY_PAGES_2M] == 0 && stats_of(arena).kind_wanted[QUARRY_PAGES_2M] > 0);
	/* Once there are some again, they are used. */
	if (pool_set(dry, 16)) {
		bool huge = false;

		for (int i = 0; i < 12 && !huge; i++) {
			char *p = block(arena, 2 * BLOCK, i);

			MUST(p != NULL);
			verify_on_node(p, 2 * BLOCK, dry, "a pool that was filled");
			huge = backing(p) == BACKED_HUGETLB;
		}
		if (!huge)
			fail("the pool has pages again, and they are not used");
	}
}

/* The pool dries while the arena lives: what it has stays, what comes is smaller. */
static void run_middle(void)
{
	quarry_nodeset set;
	quarry_arena *arena;
	struct helper taker;
	char *had[4];

	pools(12);
	set = one_node(dry);
	arena = make_arena(QUARRY_POLICY_BIND, QUARRY_PAGES_2M, 0, &set);
	MUST(arena != NULL);
	for (int i = 0; i < 4; i++) {
		MUST((had[i] = block(arena, BLOCK, i)) != NULL);
		verify_on_node(had[i], BLOCK, dry, "a pool with pages");
		MUST(backing(had[i]) == BACKED_HUGETLB);
	}
	taker = take_pool(dry, 0);
	/* What the arena holds of the pool already is used up first. */
	for (int i = 0; i < 30; i++) {
		char *p = block(arena, BLOCK, i);

		if (p == NULL)
			fail("the pool dried up, and there is no memory at all (errno %d)", errno);
		verify_on_node(p, BLOCK, dry, "a pool that dried up");
	}
	for (int i = 0; i < 4; i++) {
		for (size_t at = 0; at < BLOCK; at += 4096)
			MUST(had[i][at] == i);
		memset(had[i], 9, BLOCK);
	}
	helper_end(&taker);
}

/* Somebody takes and gives back all the time. */
static void run_race(void)
{
	uint64_t end = now_ms() + 4000;
	quarry_nodeset set;
	unsigned rounds = 0;

	pools(10);
	set = one_node(dry);
	while (now_ms() < end) {
		quarry_arena *arena = make_arena(QUARRY_POLICY_BIND, QUARRY_PAGES_2M, 0, &set);
		struct helper taker = take_pool(dry, (long)(rounds % 5));

		MUST(arena != NULL);
		for (int i = 0; i < 8; i++) {
			char *p = block(arena, BLOCK, i);

			MUST(p != NULL);
			verify_on_node(p, BLOCK, dry, "others take from the pool");
			if (i == 4)
				helper_end(&taker);
		}
		MUST(quarry_arena_destroy(arena) == 0);
		rounds++;
	}
	note("%u rounds", rounds);
}

static void run_strict(void)
{
	quarry_nodeset set;
	quarry_arena *arena;
	char *p;
	int got = 0;

	pools(this_test->b);
	set = one_node(dry);
	errno = 0;
	arena = make_arena(this_test->a, QUARRY_PAGES_2M, QUARRY_ARENA_STRICT, &set);
	/* It may be refused as a whole. */
	if (arena == NULL && errno == ENOMEM && this_test->b == 0)
		return;
	MUST(arena != NULL);
	for (errno = 0; got < 40 && (p = block(arena, BLOCK, got)) != NULL; got++) {
		verify_on_node(p, BLOCK, dry, "strict, from the pool");
		if (backing(p) != BACKED_HUGETLB)
			fail("strict, and not a hugetlb page");
	}
	if (got > this_test->b)
		fail("%d pages were got of a pool of %d", got, this_test->b);
	if (errno != ENOMEM)
		fail("a dry pool, strict: errno %d (%s), not ENOMEM", errno, strerror(errno));
	if (got < this_test->b - 1)
		fail("%d pages were got of a pool of %d", got, this_test->b);
	if (quarry_arena_malloc(arena, 10 * BLOCK) != NULL)
		fail("strict, and memory was got of a dry pool");
}

/* Over all nodes: the pools that have pages give them, at the right nodes. */
static void run_interleave(void)
{
	quarry_nodeset set = all_memory();
	quarry_arena *arena;

	pools(0);
	arena = make_arena(QUARRY_POLICY_INTERLEAVE, QUARRY_PAGES_2M, 0, &set);
	MUST(arena != NULL);
	for (int i = 0; i < 10; i++) {
		char *p = block(arena, 2 * BLOCK, i);

		MUST(p != NULL);
		verify_on(p, 2 * BLOCK, &set, "interleaved, one pool dry");
	}
}

/* ---- limits of a control group ---- */

/* hugetlb.2MB.max is looked at when a page is touched (a SIGBUS), hugetlb.2MB.rsvd.max at mmap(2) (ENOMEM). */
static bool prepare_limit(void)
{
	char bytes[32];

	need_nodes(1, 1);
	group_make("hugetlb");
	snprintf(bytes, sizeof(bytes), "%zu", 4 * PAGE_2M);
	return group_set(this_test->b ? "hugetlb.2MB.rsvd.max" : "hugetlb.2MB.max", bytes) && group_join();
}

static void run_limit(void)
{
	quarry_nodeset set;
	quarry_arena *arena;
	int huge = 0, status;
	pid_t pid;
	char *all[12];

	need_pools(24);
	dry = machine.node[machine.home[machine.homes - 1]].id;
	set = one_node(dry);
	arena = make_arena(QUARRY_POLICY_BIND, QUARRY_PAGES_2M, 0, &set);
	MUST(arena != NULL);
	for (int i = 0; i < 12; i++) {
		all[i] = block(arena, BLOCK, i);
		if (all[i] == NULL)
			fail("the group's limit is reached, and there is no memory (errno %d)", errno);
		verify_on_node(all[i], BLOCK, dry, "under the group's limit");
		huge += backing(all[i]) == BACKED_HUGETLB;
	}
	if (huge == 0 || huge > 4)
		fail("under a limit of 4 pages, %d are hugetlb", huge);
	if (stats_of(NULL).refused[QUARRY_REFUSED_HUGE_CGROUP] == 0)
		fail("refused[huge-cgroup] does not count it");
	/* A child has as much to write, and the limit is reached. */
	pid = fork();
	MUST(pid >= 0);
	for (int i = 0; i < 12; i++) {
		MUST(all[i][4096] == i);
		memset(all[i], 100 + i, BLOCK);
	}
	if (pid == 0)
		_exit(0);
	MUST(waitpid(pid, &status, 0) == pid);
	if (WIFSIGNALED(status))
		fail("the child was killed by SIG%s", sigabbrev_np(WTERMSIG(status)));
	if (WEXITSTATUS(status) != 0)
		_exit(1);
}

void add_hugetlb(void)
{
	TEST("hugetlb", "group-limit", run_limit, .prepare = prepare_limit, .b = 0);
	TEST("hugetlb", "group-reserved", run_limit, .prepare = prepare_limit, .b = 1);
	TEST("hugetlb", "dry-bind", run_dry, .a = QUARRY_POLICY_BIND);
	TEST("hugetlb", "dry-preferred", run_dry, .a = QUARRY_POLICY_PREFERRED);
	TEST("hugetlb", "dries", run_middle);
	TEST("hugetlb", "race", run_race);
	TEST("hugetlb", "strict-bind-dry", run_strict, .a = QUARRY_POLICY_BIND, .b = 0);
	TEST("hugetlb", "strict-bind", run_strict, .a = QUARRY_POLICY_BIND, .b = 7);
	TEST("hugetlb", "strict-preferred", run_strict, .a = QUARRY_POLICY_PREFERRED, .b = 7);
	TEST("hugetlb", "interleave", run_interleave);
}
