/* SPDX-License-Identifier: MIT */
/* After fork, parent and child write all of their hugetlb memory, with the pool dry: copy on write would need pages
 * that are not there, and the kernel would kill. */
#include "tests/numa/suite.h"

#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
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
	uint64_t state = seed_of(5), operations = 0;

	(void)unused;
	while (!over) {
		size_t size = random_size(rnd(&state) % 8 ? SMALL : LARGE, &state);
		char *p = quarry_arena_malloc(arena, size);

		MUST(p != NULL);
		memset(p, 1, size);
		quarry_free(p);
		rest_now_and_then(++operations);
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

/* Threads that write to all of it meanwhile, with the pools dry: the child gets those pages later than they were at the
 * fork. What it finds in the slots was live then, and is its own. */
#define SLOTS 6000
#define FRESH 6000
#define ROUNDS 8

static char *_Atomic slots[SLOTS];
static _Atomic(uint64_t) exchanges;

static void *exchange_on(void *which)
{
	uint64_t state = seed_of(6 + (unsigned)(uintptr_t)which), operations = 0;

	while (!over) {
		size_t size = random_size(SMALL, &state) / 4 + 1;
		char *p = rnd(&state) % 2 ? quarry_arena_malloc(arena, size) : NULL;

		if (p != NULL)
			memset(p, (int)(rnd(&state) >> 8), size);
		quarry_free(atomic_exchange(&slots[rnd(&state) % SLOTS], p));
		exchanges++;
		rest_now_and_then(++operations);
	}
	return NULL;
}

static struct object all[SLOTS + FRESH + BLOCKS + 2000];
static int all_count;

static void add_object(void *p, size_t size)
{
	all[all_count++] = (struct object){ p, size };
}

static int by_address(const void *a, const void *b)
{
	const struct object *x = a, *y = b;

	return x->p < y->p ? -1 : x->p > y->p;
}

/* None over another, and each holds what it should. */
static void check_objects(void)
{
	qsort(all, (size_t)all_count, sizeof(*all), by_address);
	for (int i = 0; i < all_count; i++) {
		if (i > 0 && all[i - 1].p + all[i - 1].size > all[i].p)
			fail("after fork, %zu bytes at %p and %zu at %p", all[i - 1].size, (void *)all[i - 1].p, all[i].size,
			     (void *)all[i].p);
		object_write(&all[i]);
	}
	for (int i = 0; i < all_count; i++)
		if (!object_right(&all[i]))
			fail("after fork, an object of %zu bytes at %p has changed", all[i].size, (void *)all[i].p);
}

static void allocate_fresh(void)
{
	uint64_t state = seed_of(5);

	for (int i = 0; i < FRESH; i++) {
		size_t size = i % 300 == 0 ? random_size(LARGE, &state) : random_size(SMALL, &state) / 4 + 1;
		unsigned char *p = rnd(&state) % 4 ? quarry_arena_malloc(arena, size) : quarry_arena_calloc(arena, 1, size);

		MUST(p != NULL);
		add_object(p, size);
	}
}

/* How many pages came late. */
static int live_on(int round)
{
	uint64_t late = stats_of(NULL).refused[QUARRY_REFUSED_FORK];

	/* What no thread wrote to is as it was. */
	for (int i = 0; i < BLOCKS; i++)
		for (size_t at = 0; at < BLOCK; at += 512)
			if (blocks[i][at] != i + 1)
				fail("after fork, block %d holds %d at %zu", i, blocks[i][at], at);
	for (int i = 0; i < 2000; i++)
		if (!object_right(&small[i]))
			fail("after fork, a small object has changed");
	if (round % 2)
		quarry_purge(NULL);
	for (int i = 0; i < BLOCKS; i++)
		add_object(blocks[i], BLOCK);
	for (int i = 0; i < 2000; i++)
		add_object(small[i].p, small[i].size);
	for (int i = 0; i < SLOTS; i++)
		if (slots[i] != NULL)
			add_object(slots[i], quarry_usable_size(slots[i]));
	for (int times = 0; times < 2; times++) {
		allocate_fresh();
		check_objects();
		while (all_count > 0)
			quarry_free(all[--all_count].p);
	}
	quarry_purge(NULL);
	if (stats_of(NULL).bad_frees != 0)
		fail("after fork, %" PRIu64 " mistakes were seen", stats_of(NULL).bad_frees);
	return late > 100 ? 100 : (int)late;
}

static void run_late(void)
{
	struct helper taker;
	pthread_t threads[3];
	int late = 0;

	make();
	for (uintptr_t i = 0; i < 3; i++)
		MUST(pthread_create(&threads[i], NULL, exchange_on, (void *)i) == 0);
	while (exchanges < 5 * SLOTS)
		pause_ms(10);
	taker = take_pool(node, 0);
	for (int i = 0; i < machine.memories; i++)
		pool_set(machine.node[machine.memory[i]].id, 0);
	for (int round = 0; round < ROUNDS; round++) {
		pid_t pid = fork();
		int status;

		MUST(pid >= 0);
		if (pid == 0)
			_exit(100 + live_on(round));
		MUST(waitpid(pid, &status, 0) == pid);
		if (WIFSIGNALED(status))
			fail("round %d: the child was killed by SIG%s", round, sigabbrev_np(WTERMSIG(status)));
		/* A child that failed has said why already. */
		if (WEXITSTATUS(status) < 100)
			_exit(1);
		late += WEXITSTATUS(status) - 100;
	}
	over = true;
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	note("%d pages came late in %d children", late, ROUNDS);
	if (late == 0)
		fail("no page came late: nothing was tried");
	live_on(0);
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
	TEST("fork", "late", run_late);
	TEST("fork", "limit", run_limit);
}
