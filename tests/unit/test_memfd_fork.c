/* SPDX-License-Identifier: MIT */
/* Memory with descriptors, of the kernel that the test runs on: what a forked child has of it, and huge pages. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "include/quarry/block.h"
#include "tests/unit/memfd.h"

#include <sys/file.h>

/* ---- fork ---- */

#define BIG (12 * MIB)
#define SMALL 3000

static char *big, *small[SMALL];

static void fill(int with)
{
	memset(big, with, BIG);
	for (int i = 0; i < SMALL; i++)
		memset(small[i], with + i, 64);
}

static int filled(int with)
{
	int bad = 0;

	for (size_t i = 0; i < BIG; i += 64)
		bad += big[i] != (char)with;
	for (int i = 0; i < SMALL; i++)
		for (size_t k = 0; k < 64; k++)
			bad += small[i][k] != (char)(with + i);
	return bad;
}

static void make_for_fork(int kind, uint32_t flags)
{
	arena = make(flags, kind);
	cr_assert_not_null(arena, "%s", quarry_error_text());
	big = get(arena, BIG);
	for (int i = 0; i < SMALL; i++)
		small[i] = get(arena, 64);
	fill(1);
}

/* What a child, or its parent, can do with it from now on. */
static int use_on(int with, bool of_file)
{
	int bad = 0;
	char *p;

	fill(with);
	for (int i = 0; i < SMALL; i += 2)
		quarry_free(small[i]);
	for (int i = 0; i < SMALL; i += 2)
		if ((small[i] = quarry_arena_malloc(arena, 64)) == NULL)
			return 1000;
	p = quarry_arena_malloc(arena, 40 * MIB);
	if (p == NULL)
		return 1001;
	memset(p, with, 40 * MIB);
	bad += quarry_fd_of(p, NULL) < 3 || !same_in_file(p, 40 * MIB);
	bad += (quarry_fd_of(big, NULL) >= 3) != of_file;
	quarry_free(p);
	fill(with);
	quarry_purge(arena);
	return bad + filled(with);
}

static int wait_for(pid_t child)
{
	int status;

	must(waitpid(child, &status, 0) == child, "no child");
	return status;
}

/* Both write, in both orders, and none sees the other. */
static void fork_and_write(bool of_file)
{
	int to_child[2], to_parent[2];
	char byte = 0;
	pid_t child;

	cr_assert(pipe(to_child) == 0 && pipe(to_parent) == 0);
	child = fork();
	cr_assert_geq(child, 0);
	if (child == 0) {
		int bad = 0;

		/* The parent has written by now. */
		bad += read(to_child[0], &byte, 1) != 1;
		bad += filled(1) != 0;
		bad += use_on(2, false) != 0;
		bad += write(to_parent[1], &byte, 1) != 1;
		bad += read(to_child[0], &byte, 1) != 1;
		bad += filled(2) != 0;
		_exit(bad);
	}
	fill(3);
	cr_assert_eq(write(to_child[1], &byte, 1), 1);
	cr_assert_eq(read(to_parent[0], &byte, 1), 1);
	cr_assert_eq(filled(3), 0);
	cr_assert_eq(use_on(4, of_file), 0);
	cr_assert_eq(write(to_child[1], &byte, 1), 1);
	cr_assert_eq(wait_for(child), 0);
	cr_assert_eq(filled(4), 0);
}

Test(fork, a_child_has_a_copy, .init = begin)
{
	make_for_fork(QUARRY_PAGES_BASE, 0);
	fork_and_write(true);
	cr_assert_eq(stats_of(NULL).refused[QUARRY_REFUSED_FORK], 0);
	cr_assert_eq(stats_of(arena).in_files, stats_of(arena).mapped);
	quarry_arena_destroy(arena);
	make_for_fork(QUARRY_PAGES_AUTO, QUARRY_ARENA_POPULATE);
	fork_and_write(true);
}

/* quarry's descriptor is closed in the child, whose memory is its own; what the program made of it before is not. */
Test(fork, a_duplicate_is_what_is_shared, .init = begin)
{
	uint64_t offset;
	char *p, *shared;
	pid_t child;
	int fd, own;

	make_for_fork(QUARRY_PAGES_BASE, 0);
	p = memset(get(arena, MIB), 1, MIB);
	fd = fd_of(p, &offset);
	own = dup(fd);
	cr_assert_geq(own, 0);
	child = fork();
	cr_assert_geq(child, 0);
	if (child == 0) {
		int bad = fcntl(fd, F_GETFD) != -1 || errno != EBADF;

		bad += 2 * (quarry_fd_of(p, NULL) != -1 || errno != ENOTSUP);
		shared = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_SHARED, own, (off_t)offset);
		if (shared == MAP_FAILED)
			_exit(99);
		bad += 4 * (shared[MIB - 1] != 1);
		shared[0] = 2;
		p[1] = 3;
		_exit(bad);
	}
	cr_assert_eq(wait_for(child), 0);
	cr_assert_eq(p[0], 2, "what the child wrote by the duplicate");
	cr_assert_eq(p[1], 1, "what it wrote into its copy");
	close(own);
	quarry_free(p);
}

static void *sit(void *over)
{
	pthread_barrier_wait(over); /* it is there */
	pthread_barrier_wait(over);
	return NULL;
}

/* A thread that never asked quarry for anything does not count. */
Test(fork, a_thread_that_never_called_does_not_count, .init = begin)
{
	pthread_barrier_t over;
	pthread_t thread;

	make_for_fork(QUARRY_PAGES_BASE, 0);
	pthread_barrier_init(&over, NULL, 2);
	cr_assert_eq(pthread_create(&thread, NULL, sit, &over), 0);
	pthread_barrier_wait(&over);
	fork_and_write(true);
	cr_assert_eq(stats_of(NULL).refused[QUARRY_REFUSED_FORK], 0);
	pthread_barrier_wait(&over);
	pthread_join(thread, NULL);
}

/* A child's child, and what was never written stays unwritten in both. */
Test(fork, a_childs_child, .init = begin)
{
	pid_t child;
	char *sparse;
	uint64_t offset, before;
	int fd;

	make_for_fork(QUARRY_PAGES_BASE, 0);
	sparse = get(arena, 400 * MIB);
	sparse[200 * MIB] = 7;
	fd = fd_of(sparse, &offset);
	before = in_file(fd);
	child = fork();
	if (child == 0) {
		int bad = filled(1) + (sparse[200 * MIB] != 7) + (sparse[100 * MIB] != 0);
		pid_t inner;

		bad += stats_of(arena).resident > 60 * MIB;
		bad += stats_of(arena).in_files != 0;
		fill(5);
		inner = fork();
		if (inner == 0)
			_exit(filled(5) + use_on(6, false) != 0);
		bad += wait_for(inner) != 0;
		_exit(bad + filled(5) != 0);
	}
	cr_assert_eq(wait_for(child), 0);
	cr_assert_eq(filled(1), 0);
	cr_assert_leq(in_file(fd), before + MIB);
}

/* The descriptor's offset, which is the program's, stays where it is. */
Test(fork, no_offset_moves, .init = begin)
{
	int fd;

	make_for_fork(QUARRY_PAGES_BASE, 0);
	fd = fd_of(big, NULL);
	cr_assert_eq(lseek(fd, 123, SEEK_SET), 123);
	fork_and_write(true);
	cr_assert_eq(lseek(fd, 0, SEEK_CUR), 123);
}

static int touch_and_see(const char *p)
{
	pid_t child;
	int status = 0;

	child = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0); /* no handler of fork's hears of it */
	if (child == 0) {
		signal(SIGSEGV, SIG_DFL); /* AddressSanitizer would make an exit of it */
		_exit(*(const volatile char *)p);
	}
	waitpid(child, &status, 0);
	return status;
}

static bool was_killed_by(int status, int sig)
{
	return WIFSIGNALED(status) && WTERMSIG(status) == sig;
}

/* However it is forked. */
Test(fork, none_that_the_kernel_was_not_asked_for, .init = begin)
{
	make_for_fork(QUARRY_PAGES_BASE, 0);
	cr_assert(was_killed_by(touch_and_see(big), SIGSEGV));
	cr_assert(was_killed_by(touch_and_see(small[0]), SIGSEGV));
}

/* In a child without a copy: nothing is there, and it begins anew. */
static int empty_and_anew(void)
{
	quarry_stats stats = stats_of(arena);
	int bad = 0;

	bad += stats.mapped != 0 || stats.in_files != 0 || stats.in_use != 0;
	bad += !was_killed_by(touch_and_see(big), SIGSEGV);
	quarry_free(big);
	quarry_free(small[1]);
	big = quarry_arena_malloc(arena, BIG);
	for (int i = 0; i < SMALL; i++)
		small[i] = quarry_arena_malloc(arena, 64);
	bad += big == NULL || small[SMALL - 1] == NULL;
	fill(7);
	bad += use_on(8, true);
	bad += quarry_arena_destroy(arena) != 0;
	return bad != 0;
}

Test(fork, more_than_may_be_copied, .init = begin)
{
	quarry_arena *plain = quarry_arena_create(NULL);
	char *other = get(plain, 5 * MIB);
	quarry_block b, again;
	pid_t child;

	memset(other, 9, 5 * MIB);
	make_for_fork(QUARRY_PAGES_BASE, 0);
	b = quarry_block_alloc(quarry_manager_of_arena(arena), 100);
	cr_assert_not_null(b.p);
	cr_assert_eq(quarry_ctl_set("fork_copy", "1m"), 0);
	child = fork();
	if (child == 0) {
		/* Blocks are gone there with the arena's memory. */
		if (quarry_weak_lock((quarry_weak){ b.p, b.n, b.count, b.generation, 0 }, &again) == 0 || errno != ESTALE)
			_exit(2);
		_exit(empty_and_anew() || other[4 * MIB] != 9);
	}
	cr_assert_eq(wait_for(child), 0);
	cr_assert_eq(quarry_block_unref(&b), 1);
	cr_assert_eq(stats_of(NULL).refused[QUARRY_REFUSED_FORK], 1);
	cr_assert_eq(filled(1), 0);
	cr_assert_eq(use_on(2, true), 0);
}

Test(fork, of_the_threads_default_arena, .init = begin)
{
	quarry_arena *was;
	pid_t child;

	make_for_fork(QUARRY_PAGES_BASE, 0);
	cr_assert_eq(quarry_thread_set_arena(arena, &was), 0);
	cr_assert_eq(quarry_arena_of(quarry_malloc(40)), arena);
	child = fork();
	if (child == 0) {
		char *p = quarry_malloc(40);
		int bad = quarry_arena_of(p) != arena || filled(1) != 0;

		quarry_free(p);
		_exit(bad);
	}
	cr_assert_eq(wait_for(child), 0);
	cr_assert_eq(quarry_ctl_set("fork_copy", "0"), 0);
	child = fork();
	if (child == 0) {
		int bad = 0;

		for (int i = 0; i < 1000; i++) {
			char *p = quarry_malloc((size_t)i * 50 + 1);

			bad += p == NULL || quarry_arena_of(p) != arena;
			memset(p, i, (size_t)i * 50 + 1);
			if (i % 2)
				quarry_free(p);
		}
		bad += quarry_thread_set_arena(was, NULL) != 0;
		bad += quarry_arena_of(quarry_malloc(40)) == arena;
		bad += quarry_arena_destroy(arena) != 0;
		_exit(bad != 0);
	}
	cr_assert_eq(wait_for(child), 0);
	cr_assert_eq(quarry_arena_of(quarry_malloc(40)), arena);
}

static _Atomic(bool) over, started;

static void *allocate_on(void *unused)
{
	(void)unused;
	for (unsigned i = 0; !over; i++) {
		char *p = quarry_arena_malloc(arena, i % 5000 + 1), *q = quarry_arena_malloc(arena, 200 * KIB);

		memset(p, (int)i, i % 5000 + 1);
		quarry_free(q);
		quarry_free(p);
		started = true;
	}
	return NULL;
}

/* Other threads write on while a copy would be made: there is none. */
Test(fork, with_other_threads, .init = begin)
{
	pthread_t thread;

	make_for_fork(QUARRY_PAGES_BASE, 0);
	cr_assert_eq(pthread_create(&thread, NULL, allocate_on, NULL), 0);
	while (!started)
		sched_yield();
	for (int round = 0; round < 10; round++) {
		pid_t child = fork();

		cr_assert_geq(child, 0);
		if (child == 0)
			_exit(empty_and_anew());
		cr_assert_eq(wait_for(child), 0, "round %d", round);
		cr_assert_eq(filled(1), 0);
		cr_assert_eq(stats_of(NULL).refused[QUARRY_REFUSED_FORK], (uint64_t)round + 1);
	}
	over = true;
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert_eq(use_on(2, true), 0);
	/* It has ended: alone again, with what it left behind. */
	fill(1);
	fork_and_write(true);
	cr_assert_eq(stats_of(NULL).refused[QUARRY_REFUSED_FORK], 10);
}

/* The reclaimer's thread is none of the program's, and waits too. */
Test(fork, with_the_reclaimers_thread, .init = begin)
{
	cr_assert_eq(quarry_ctl_set("reclaim", "parallel"), 0);
	cr_assert_eq(quarry_ctl_set("decay_ms", "5"), 0);
	make_for_fork(QUARRY_PAGES_BASE, 0);
	for (int round = 0; round < 5; round++) {
		for (int i = 0; i < 200; i++)
			quarry_free(memset(get(arena, 300 * KIB), 1, 300 * KIB));
		fill(1);
		fork_and_write(true);
	}
	cr_assert_eq(stats_of(NULL).reclaimer, 1);
}

/* ---- huge pages ---- */

#define POOL "/sys/kernel/mm/hugepages/hugepages-2048kB"
#define POOL_PAGES 40

static long read_pool(const char *leaf)
{
	char path[128], text[32];

	snprintf(path, sizeof(path), POOL "/%s", leaf);
	return qy_os->read_file(path, text, sizeof(text)) > 0 ? atol(text) : -1;
}

static bool write_pool(int fd, long pages)
{
	return dprintf(fd, "%ld", pages) > 0;
}

/* More pages in the pool, as long as this process lives: another one takes them out again, however it ends, and
 * keeps the pool locked, so that two such tests at once take turns. Returns more bytes than the pool has then,
 * whoever filled it before; 0 without a pool, or with one too large to run dry. */
static size_t with_pool(void)
{
	int fd = open(POOL "/nr_hugepages", O_RDWR | O_CLOEXEC);
	long before, has;
	int ends[2];
	char byte;

	if (fd < 0 || flock(fd, LOCK_EX) != 0 || pipe(ends) != 0)
		return 0;
	before = read_pool("nr_hugepages");
	if (before < 0 || before > 1000 || !write_pool(fd, before + POOL_PAGES))
		return 0;
	if (fork() == 0) {
		alarm(0);
		setsid();
		close(ends[1]);
		while (read(ends[0], &byte, 1) > 0)
			;
		write_pool(fd, before);
		_exit(0);
	}
	close(fd);
	close(ends[0]);
	has = read_pool("free_hugepages");
	return has < POOL_PAGES ? 0 : (size_t)(has + 2 * POOL_PAGES) * 2 * MIB;
}

Test(huge, from_a_pool, .init = begin)
{
	uint64_t offset;
	size_t too_much = with_pool();
	char *p, *q;
	int fd;

	if (too_much == 0)
		cr_skip_test("no pool of 2 MiB pages, no right to fill it, none to be had, or too many to use up");
	arena = make(0, QUARRY_PAGES_2M);
	cr_assert_not_null(arena, "%s", quarry_error_text());
	hand_over(arena, 3 * MIB);
	p = get(arena, 6 * MIB);
	memset(p, 1, 6 * MIB);
	cr_assert_eq(stats_of(arena).kind_got[QUARRY_PAGES_2M], stats_of(arena).mapped);
	fd = fd_of(p, &offset);
	cr_assert_eq(fcntl(fd, F_GET_SEALS) & F_SEAL_SHRINK, F_SEAL_SHRINK);
	cr_assert(same_in_file(p, 6 * MIB));
	/* The pool runs dry: the next rung, with a descriptor too. */
	q = get(arena, too_much);
	memset(q, 2, too_much);
	cr_assert_gt(stats_of(arena).kind_got[QUARRY_PAGES_BASE], 0);
	cr_assert(same_in_file(q, too_much));
	cr_assert_gt(stats_of(NULL).refused[QUARRY_REFUSED_HUGE_2M], 0);
	quarry_free(q);
	quarry_free(p);
	cr_assert_eq(quarry_arena_destroy(arena), 0);
	/* Parent and child write, with nothing left in the pool. */
	make_for_fork(QUARRY_PAGES_2M, 0);
	cr_assert_gt(stats_of(arena).kind_got[QUARRY_PAGES_2M], 0);
	while (stats_of(arena).kind_got[QUARRY_PAGES_BASE] == 0)
		memset(get(arena, 2 * MIB), 1, 2 * MIB);
	fork_and_write(true);
	cr_assert_eq(quarry_arena_destroy(arena), 0);
	/* All went back. */
	arena = make(QUARRY_ARENA_STRICT, QUARRY_PAGES_2M);
	cr_assert_not_null(arena, "%s", quarry_error_text());
	p = get(arena, 30 * MIB);
	memset(p, 1, 30 * MIB);
	errno = 0;
	cr_assert_null(quarry_arena_malloc(arena, too_much));
	cr_assert_eq(errno, ENOMEM);
	quarry_free(p);
	quarry_purge(arena);
	cr_assert_leq(stats_of(arena).mapped, 2 * MIB);
	cr_assert_eq(quarry_arena_destroy(arena), 0);
}

/* Strictly, they are made and looked at, whatever shmem_enabled says of faults. */
Test(huge, transparent_ones_strictly, .init = begin)
{
	quarry_page_info info;
	char *p;

	arena = make(QUARRY_ARENA_STRICT, QUARRY_PAGES_THP);
	if (arena == NULL)
		cr_skip_test("the kernel makes no huge pages in files (MADV_COLLAPSE, Linux 6.1)");
	p = get(arena, 6 * MIB);
	memset(p, 3, 6 * MIB);
	cr_assert_eq(stats_of(arena).kind_got[QUARRY_PAGES_THP], stats_of(arena).mapped);
	cr_assert_eq(quarry_where(p, 1, &info, 1), 1);
	cr_assert(info.page_kind == QUARRY_PAGES_THP || info.page_kind == QUARRY_PAGES_AUTO);
	cr_assert(same_in_file(p, 6 * MIB));
}

/* ---- a fork within a fork ---- */

static struct qy_os os;
static int (*real_close)(int fd);
static bool nests;
static pid_t nested;

/* A signal handler that forks while the parent copies for its child, and holds all. */
static int close_and_fork(int fd)
{
	if (nests) {
		nests = false;
		nested = fork();
		if (nested == 0)
			_exit(0);
	}
	return real_close(fd);
}

/* The outer fork lets go of what it holds: the parent goes on. */
Test(fork, within_a_fork, .timeout = 60)
{
	pid_t child;

	begin();
	make_for_fork(QUARRY_PAGES_AUTO, 0);
	os = *qy_os;
	real_close = os.close;
	os.close = close_and_fork;
	qy_os = &os;
	test_pid = getpid();
	nests = true;
	child = fork();
	if (child == 0)
		_exit(filled(1) != 0);
	cr_assert(!nests && nested > 0, "there was none within");
	cr_assert_eq(wait_for(nested), 0);
	cr_assert_eq(wait_for(child), 0);
	fork_and_write(true);
}
