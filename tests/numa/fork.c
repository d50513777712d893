/* SPDX-License-Identifier: MIT */
/* After fork, parent and child write all of their hugetlb memory, with the pool dry: copy on write would need pages
 * that are not there, and the kernel would kill. */
#include "tests/numa/suite.h"

#include <signal.h>
#include <sys/wait.h>

#define BLOCK (2 * MIB)
#define BLOCKS 6

static int node;
static quarry_arena *arena;
static char *blocks[BLOCKS];
static struct object small[2000];

static void make(void)
{
	quarry_nodeset set;

	need_nodes(1, 1);
	node = machine.node[machine.home[machine.homes - 1]].id;
	need_pools(BLOCKS + 6);
	set = one_node(node);
	arena = make_arena(QUARRY_POLICY_BIND, QUARRY_PAGES_2M, 0, &set);
	MUST(arena != NULL);
	for (int i = 0; i < BLOCKS; i++) {
		MUST((blocks[i] = quarry_arena_malloc(arena, BLOCK)) != NULL);
		memset(blocks[i], i + 1, BLOCK);
		verify_on_node(blocks[i], BLOCK, node, "before fork");
		if (backing(blocks[i]) != BACKED_HUGETLB)
			fail("the pool has pages, and hugetlb was not got");
	}
	for (int i = 0; i < 2000; i++) {
		small[i].size = 16 + (size_t)i % 500;
		MUST((small[i].p = quarry_arena_malloc(arena, small[i].size)) != NULL);
		object_write(&small[i]);
	}
}

/* Threads write while a child has not copied yet, and the pool is dry at home: their copies may be of another pool. */
static bool copied_anywhere;

/* All of it holds what it should, can be written, and used further. */
static void use(int fill)
{
	for (int i = 0; i < BLOCKS; i++) {
		for (size_t at = 0; at < BLOCK; at += 512)
			if (blocks[i][at] != i + 1)
				fail("after fork, block %d holds %d at %zu (%s)", i, blocks[i][at], at,
				     fill ? "child" : "parent");
		memset(blocks[i], fill + 100, BLOCK);
	}
	for (int i = 0; i < 2000; i++) {
		if (!object_right(&small[i]))
			fail("after fork, a small object has changed (%s)", fill ? "child" : "parent");
		memset(small[i].p, fill, small[i].size);
		if (i % 2)
			quarry_free(small[i].p);
	}
	for (int i = 0; i < 200; i++) {
		size_t size = i % 20 == 0 ? 2 * BLOCK : (size_t)i * 50 + 1;
		char *p = quarry_arena_malloc(arena, size);

		if (p == NULL)
			fail("after fork, no memory (%s, errno %d)", fill ? "child" : "parent", errno);
		memset(p, fill, size);
		if (copied_anywhere) {
			quarry_nodeset all = all_memory();

			verify_on(p, size, &all, "the parent's new memory");
		} else {
			verify_on_node(p, size, node, fill ? "the child's new memory" : "the parent's new memory");
		}
		quarry_free(p);
	}
	for (int i = 0; i < BLOCKS; i++)
		for (size_t at = 0; at < BLOCK; at += 512)
			if (blocks[i][at] != fill + 100)
				fail("after fork, what was written is not there (%s)", fill ? "child" : "parent");
}

static void check_child(pid_t pid)
{
	int status;

	MUST(waitpid(pid, &status, 0) == pid);
	if (WIFSIGNALED(status))
		fail("the child was killed by SIG%s", sigabbrev_np(WTERMSIG(status)));
	/* A child that failed has said why already. */
	if (WEXITSTATUS(status) != 0)
		_exit(1);
}

static void run_dry(void)
{
	struct helper taker;
	pid_t pid;

	make();
	taker = take_pool(node, 0);
	for (int i = 0; i < machine.memories; i++)
		pool_set(machine.node[machine.memory[i]].id, 0);
	pid = fork();
	MUST(pid >= 0);
	if (pid == 0) {
		use(1);
		_exit(0);
	}
	use(0);
	check_child(pid);
	helper_end(&taker);
}

/* The parent waits, so that the child is the one that writes first; and the other way round. */
static void run_first(void)
{
	bool child_first = this_test->b;
	struct helper taker;
	int ends[2];
	char byte = 0;
	pid_t pid;

	make();
	MUST(pipe(ends) == 0);
	taker = take_pool(node, 1);
	pid = fork();
	MUST(pid >= 0);
	if (pid == 0) {
		if (!child_first)
			MUST(read(ends[0], &byte, 1) == 1);
		use(1);
		if (child_first)
			MUST(write(ends[1], &byte, 1) == 1);
		_exit(0);
	}
	if (child_first)
		MUST(read(ends[0], &byte, 1) == 1 || true);
	use(0);
	if (!child_first)
		MUST(write(ends[1], &byte, 1) == 1);
	check_child(pid);
	helper_end(&taker);
}

/* A child's child, and a child that only execs: cheap or not, never killed. */
static void run_deep(void)
{
	struct helper taker;
	pid_t pid;

	make();
	taker = take_pool(node, 0);
	pid = fork();
	MUST(pid >= 0);
	if (pid == 0) {
		pid_t inner = fork();

		MUST(inner >= 0);
		if (inner == 0) {
			use(1);
			_exit(0);
		}
		check_child(inner);
		use(2);
		_exit(0);
	}
	use(0);
	check_child(pid);
	pid = fork();
	MUST(pid >= 0);
	if (pid == 0) {
		execl("/proc/self/exe", "suite", "--list", (char *)NULL);
		_exit(1);
	}
	check_child(pid);
	helper_end(&taker);
}

/* Threads that allocate meanwhile. */
static _Atomic(bool) over;

static void *allocate_on(void *unused)
{
	uint64_t state = seed_of(5);

	(void)unused;
	while (!over) {
		size_t size = random_size(rnd(&state) % 8 ? SMALL : LARGE, &state);
		char *p = quarry_arena_malloc(arena, size);

		MUST(p != NULL);
		memset(p, 1, size);
		quarry_free(p);
	}
	return NULL;
}

static void run_threads(void)
{
	struct helper taker;
	pthread_t threads[3];

	make();
	taker = take_pool(node, 0);
	for (int i = 0; i < 3; i++)
		MUST(pthread_create(&threads[i], NULL, allocate_on, NULL) == 0);
	for (int round = 0; round < 5; round++) {
		pid_t pid = fork();

		MUST(pid >= 0);
		if (pid == 0) {
			use(1);
			_exit(0);
		}
		check_child(pid);
	}
	over = true;
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	copied_anywhere = true;
	use(0);
	helper_end(&taker);
}

/* More than fork_copy allows is left to copy-on-write, and that is counted. With pages in the pool nobody is killed. */
static void run_limit(void)
{
	pid_t pid;

	make();
	need_pools(3 * BLOCKS);
	MUST(quarry_ctl_set("fork_copy", "0") == 0);
	pid = fork();
	MUST(pid >= 0);
	if (pid == 0) {
		use(1);
		_exit(0);
	}
	if (stats_of(NULL).refused[QUARRY_REFUSED_FORK] == 0)
		fail("fork_copy=0, and refused[fork] does not say that memory was left to copy-on-write");
	check_child(pid);
	use(0);
}

void add_fork(void)
{
	TEST("fork", "dry", run_dry);
	TEST("fork", "child-first", run_first, .b = 1);
	TEST("fork", "parent-first", run_first, .b = 0);
	TEST("fork", "deep", run_deep);
	TEST("fork", "threads", run_threads);
	TEST("fork", "limit", run_limit);
}
