/* SPDX-License-Identifier: MIT */
/* Memory with descriptors on the machine that the fake kernel plays: what is refused, pools that are dry, older
 * kernels. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "include/quarry/quarry.h"
#include "lib/manager/manager.h"
#include "numa/cgroup.h"
#include "numa/thp.h"
#include "tests/unit/eight_nodes.h"
#include "tests/unit/fds.h"

#define MIB ((size_t)1 << 20)
#define KIB ((size_t)1 << 10)
#define THP "/sys/kernel/mm/transparent_hugepage/"
#define OVERCOMMIT "/proc/sys/vm/overcommit_memory"

static quarry_arena *arena;

static quarry_arena *make(uint32_t flags, int kind, int node)
{
	quarry_arena_attr attr = { .flags = QUARRY_ARENA_FD | flags, .page_kind = kind };

	if (node >= 0) {
		attr.policy = QUARRY_POLICY_BIND;
		quarry_nodeset_add(&attr.nodes, (unsigned)node);
	}
	return quarry_arena_create(&attr);
}

static char *get(size_t size)
{
	char *p = quarry_arena_malloc(arena, size);

	cr_assert_not_null(p, "errno %d", errno);
	memset(p, 1, size);
	return p;
}

static quarry_stats stats_of(quarry_arena *of)
{
	quarry_stats stats = { .version = QUARRY_STATS_VERSION };

	cr_assert_eq(quarry_stats_get(of, &stats), 0);
	return stats;
}

static uint64_t got(int kind)
{
	return stats_of(arena).kind_got[kind];
}

/* ---- refused ---- */

static void expect_none(enum fake_call call, int err, int expected)
{
	uint64_t before = refused(QUARRY_REFUSED_FD);
	int fds = count_fds();

	fake_os_fail(call, err);
	errno = 0;
	cr_expect_null(make(0, QUARRY_PAGES_BASE, -1));
	cr_expect_eq(errno, expected, "call %d: %d", (int)call, errno);
	cr_expect_gt(refused(QUARRY_REFUSED_FD), before);
	cr_expect_neq(quarry_error_text()[0], 0);
	/* In an arena that is there. */
	errno = 0;
	cr_expect_null(quarry_arena_malloc(arena, 90 * MIB));
	cr_expect_eq(errno, ENOMEM);
	fake_os_heal();
	cr_expect_eq(count_fds(), fds, "descriptors were left behind");
	quarry_free(get(90 * MIB));
	quarry_purge(arena);
}

Test(memfd, refused)
{
	begin();
	arena = make(0, QUARRY_PAGES_BASE, -1);
	cr_assert_not_null(arena);
	expect_none(FAKE_MEMFD, ENOSYS, ENOSYS);
	expect_none(FAKE_MEMFD, EPERM, EPERM);
	expect_none(FAKE_MEMFD, EMFILE, EMFILE);
	expect_none(FAKE_SET_SIZE, EFBIG, EFBIG);
	expect_none(FAKE_SET_SIZE, ENOMEM, ENOMEM);
	/* Without a seal others could take the memory away: none at all, then. */
	expect_none(FAKE_SEAL, EPERM, EPERM);
	expect_none(FAKE_SEAL, EINVAL, ENOMEM);
	expect_none(FAKE_FILE_ID, EIO, ENOMEM);
	/* Nor where a forked child would share it. */
	begin();
	fake_os_fail_advice(QY_MADV_DONTFORK, EINVAL);
	cr_assert_null(make(0, QUARRY_PAGES_BASE, -1));
	cr_assert_eq(errno, ENOMEM);
	cr_assert_eq(refused(QUARRY_REFUSED_FD), 1);
	fake_os_heal();
	/* Arenas without descriptors know nothing of all this. */
	fake_os_fail(FAKE_MEMFD, EPERM);
	arena = quarry_arena_create(NULL);
	get(50 * MIB);
	cr_assert_eq(quarry_fd_of(get(10), NULL), -1);
	cr_assert_eq(errno, ENOTSUP);
}

/* Kernels before 6.3 do not know one of the flags. */
static int (*memfd_of_today)(const char *name, unsigned flags);

static int older_memfd(const char *name, unsigned flags)
{
	if (flags & QY_MFD_NOEXEC_SEAL) {
		errno = EINVAL;
		return -1;
	}
	return memfd_of_today(name, flags);
}

/* And before 4.16 no seals in files of huge pages. */
static int much_older_memfd(const char *name, unsigned flags)
{
	if (flags & QY_MFD_HUGETLB) {
		errno = EINVAL;
		return -1;
	}
	return older_memfd(name, flags);
}

static void of_kernel(int (*memfd)(const char *, unsigned))
{
	memfd_of_today = kernel.memfd;
	kernel.memfd = memfd;
}

Test(memfd, older_kernels)
{
	begin();
	of_kernel(older_memfd);
	fake_os_pool(0, 21, 50);
	arena = make(0, QUARRY_PAGES_2M, 0);
	cr_assert_not_null(arena);
	get(3 * MIB);
	cr_assert_eq(got(QUARRY_PAGES_2M), stats_of(arena).mapped);
	cr_assert_eq(quarry_arena_destroy(arena), 0);
	kernel.memfd = much_older_memfd;
	arena = make(0, QUARRY_PAGES_2M, 0);
	cr_assert_not_null(arena);
	get(3 * MIB);
	cr_assert_eq(got(QUARRY_PAGES_2M), 0);
	cr_assert_gt(got(QUARRY_PAGES_BASE), 0);
	cr_assert_geq(quarry_fd_of(get(10), NULL), 3);
	cr_assert_gt(refused(QUARRY_REFUSED_HUGE_2M), 0);
	cr_assert_eq(refused(QUARRY_REFUSED_FD), 0);
	cr_assert_null(make(QUARRY_ARENA_STRICT, QUARRY_PAGES_2M, 0));
}

/* ---- pools ---- */

/* What is free of pages that are there whether used or not is not free of cost; and all of it goes back. */
Test(memfd, an_arena_of_huge_pages_gives_all_back)
{
	static const uint32_t flags[] = { 0, QUARRY_ARENA_POPULATE, QUARRY_ARENA_FD, QUARRY_ARENA_STRICT,
					  QUARRY_ARENA_FD | QUARRY_ARENA_POPULATE | QUARRY_ARENA_STRICT };

	begin();
	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
		quarry_arena_attr attr = { .flags = flags[i], .page_kind = QUARRY_PAGES_2M, .policy = QUARRY_POLICY_BIND };
		uint64_t pages = 50, before;
		void *p;

		fake_os_pool(3, 21, pages);
		quarry_nodeset_add(&attr.nodes, 3);
		cr_assert_not_null(arena = quarry_arena_create(&attr));
		/* Made, and nothing asked for: */
		before = (pages - fake_os_pool_left(3, 21)) * 2 * MIB;
		cr_assert_eq(stats_of(arena).free_dirty, before, "flags %u: %lu", flags[i], stats_of(arena).free_dirty);
		cr_assert_eq(stats_of(arena).free_clean, 0);
		cr_assert_eq(quarry_purge(arena), before);
		cr_assert_eq(fake_os_pool_left(3, 21), pages, "flags %u", flags[i]);
		/* And after use, of a part of it. */
		cr_assert_not_null(p = quarry_arena_malloc(arena, 100 * KIB));
		cr_assert_eq(stats_of(arena).free_dirty, 2 * MIB - 100 * KIB);
		cr_assert_eq(stats_of(arena).free_clean, 0);
		quarry_free(p);
		cr_assert_not_null(p = quarry_arena_malloc(arena, 5 * MIB));
		cr_assert_eq(stats_of(arena).free_dirty + 5 * MIB, (pages - fake_os_pool_left(3, 21)) * 2 * MIB);
		cr_assert_eq(stats_of(arena).free_clean, 0);
		quarry_free(p);
		quarry_purge(arena);
		cr_assert_eq(fake_os_pool_left(3, 21), pages, "flags %u", flags[i]);
		cr_assert_eq(stats_of(arena).free_dirty + stats_of(arena).free_clean, 0);
		cr_assert_eq(quarry_arena_destroy(arena), 0);
	}
}

Test(memfd, from_a_pool)
{
	uint64_t offset;
	char *p;
	int fds, nodes[2], count;

	begin();
	fake_os_pool(3, 21, 50);
	fake_os_pool(4, 21, 50);
	arena = make(0, QUARRY_PAGES_2M, 3);
	p = get(6 * MIB);
	cr_assert_eq(got(QUARRY_PAGES_2M), stats_of(arena).mapped);
	cr_assert_eq(stats_of(arena).in_files, stats_of(arena).mapped);
	cr_assert_eq(fake_os_pool_left(3, 21), 50 - stats_of(arena).mapped / (2 * MIB));
	cr_assert_eq(fake_os_node_at(p), 3);
	cr_assert_eq(fake_os_policy_at(p, nodes, 2, &count), QY_MPOL_PREFERRED_MANY);
	cr_assert_geq(quarry_fd_of(p, &offset), 3);
	/* It goes back by whole regions, descriptors and all, and as no part of one. */
	fds = count_fds();
	fake_os_forget_calls();
	quarry_free(p);
	quarry_purge(arena);
	cr_assert_eq(fake_os_advised(QY_MADV_REMOVE), 0);
	cr_assert_leq(stats_of(arena).mapped, 2 * MIB, "but the small one that it began with");
	cr_assert_eq(stats_of(arena).in_files, stats_of(arena).mapped);
	cr_assert_eq(fake_os_pool_left(3, 21), 50 - stats_of(arena).mapped / (2 * MIB));
	cr_assert_lt(count_fds(), fds);
	cr_assert_eq(fake_os_pool_left(4, 21), 50);
}

Test(memfd, a_pool_that_runs_dry)
{
	quarry_page_info info;
	char *p;

	begin();
	fake_os_pool(3, 21, 4);
	fake_os_pool(4, 21, 100);
	arena = make(0, QUARRY_PAGES_2M, 3);
	p = get(30 * MIB);
	cr_assert_eq(got(QUARRY_PAGES_BASE), 30 * MIB);
	cr_assert_eq(stats_of(arena).kind_wanted[QUARRY_PAGES_2M], stats_of(arena).mapped);
	cr_assert_eq(quarry_where(p, 1, &info, 1), 1);
	cr_assert(info.node == 3 && info.wanted_kind == QUARRY_PAGES_2M && info.page_kind == QUARRY_PAGES_BASE);
	cr_assert_gt(refused(QUARRY_REFUSED_HUGE_2M), 0);
	cr_assert_eq(fake_os_pool_left(4, 21), 100, "nobody took from the other's pool");
	cr_assert_geq(quarry_fd_of(p, NULL), 3);
	/* Others took what was there a moment ago. */
	fake_os_pool(3, 21, 100);
	fake_os_fail_advice(QY_MADV_POPULATE_WRITE, EFAULT);
	get(50 * MIB);
	cr_assert_eq(got(QUARRY_PAGES_BASE), 80 * MIB);
	errno = 0;
	cr_assert_null(make(QUARRY_ARENA_STRICT, QUARRY_PAGES_2M, 3));
	cr_assert_eq(errno, ENOMEM);
	fake_os_heal();
	cr_assert_eq(fake_os_pool_left(3, 21), 100, "what was taken for nothing went back");
}

/* Before Linux 5.14, where touching would be SIGBUS: by the file. */
Test(memfd, a_pool_of_a_kernel_that_cannot_populate)
{
	begin();
	fake_os_pool(3, 21, 50);
	fake_os_fail_advice(QY_MADV_POPULATE_WRITE, EINVAL);
	arena = make(0, QUARRY_PAGES_2M, 3);
	get(6 * MIB);
	cr_assert_eq(got(QUARRY_PAGES_2M), stats_of(arena).mapped);
	cr_assert_gt(fake_os_calls(FAKE_ALLOCATE), 0);
	fake_os_fail(FAKE_ALLOCATE, ENOSPC);
	get(20 * MIB);
	cr_assert_eq(got(QUARRY_PAGES_BASE), 20 * MIB);
	/* Memory without a descriptor cannot be had so. */
	arena = quarry_arena_create(&(quarry_arena_attr){ .page_kind = QUARRY_PAGES_2M });
	get(6 * MIB);
	cr_assert_eq(got(QUARRY_PAGES_2M), 0);
}

/* ---- plain files ---- */

/* Where the kernel commits no more than there is, a file's page that is touched may be SIGBUS: all are there at once,
 * and stay. */
Test(memfd, where_memory_is_not_overcommitted)
{
	char *p, *q;

	begin();
	fake_os_file(OVERCOMMIT, "2\n");
	arena = make(0, QUARRY_PAGES_BASE, -1);
	fake_os_forget_calls();
	p = get(40 * MIB);
	cr_assert_gt(fake_os_calls(FAKE_ALLOCATE), 0);
	cr_assert_eq(stats_of(arena).resident, stats_of(arena).mapped);
	q = quarry_realloc(p, 5 * MIB);
	cr_assert_eq(q, p);
	quarry_purge(arena);
	cr_assert_eq(fake_os_advised(QY_MADV_REMOVE), 0, "it could not be had back for sure");
	quarry_free(q);
	quarry_purge(arena);
	cr_assert_leq(stats_of(arena).mapped, 4 * MIB, "%zu", (size_t)stats_of(arena).mapped);
	fake_os_fail(FAKE_ALLOCATE, ENOSPC);
	errno = 0;
	cr_assert_null(quarry_arena_malloc(arena, 40 * MIB));
	cr_assert_eq(errno, ENOMEM);
	fake_os_heal();
	fake_os_file(OVERCOMMIT, "0\n");
	fake_os_forget_calls();
	quarry_free(get(40 * MIB));
	cr_assert_eq(fake_os_calls(FAKE_ALLOCATE), 0);
	quarry_purge(arena);
	cr_assert_gt(fake_os_advised(QY_MADV_REMOVE), 0);
}

Test(memfd, holes_that_are_refused)
{
	char *p;

	begin();
	arena = make(0, QUARRY_PAGES_BASE, -1);
	p = get(20 * MIB);
	fake_os_fail_advice(QY_MADV_REMOVE, EINVAL);
	p = quarry_realloc(p, 3 * MIB);
	quarry_purge(arena);
	cr_assert_gt(refused(QUARRY_REFUSED_PURGE), 0);
	cr_assert_geq(stats_of(arena).free_dirty, 16 * MIB);
	p = quarry_arena_calloc(arena, 1, 10 * MIB);
	for (size_t i = 0; i < 10 * MIB; i++)
		cr_assert_eq(p[i], 0, "%zu", i);
}

/* Huge pages in files have a setting of their own. */
static void expect_kind(const char *shmem, const char *of_size, int kind, int wanted, unsigned huge, unsigned base)
{
	fake_os_file(THP "enabled", "always [madvise] never\n");
	fake_os_file(THP "shmem_enabled", shmem);
	fake_os_file(THP "hugepages-2048kB/shmem_enabled", of_size);
	qy_thp_forget();
	fake_os_forget_calls();
	arena = make(0, wanted, -1);
	cr_assert_not_null(arena);
	get(1000);
	cr_expect_eq(got(kind), stats_of(arena).mapped, "%s %s", shmem, of_size != NULL ? of_size : "");
	cr_expect_eq(fake_os_advised(QY_MADV_HUGEPAGE), huge, "%s %lu", shmem, fake_os_advised(QY_MADV_HUGEPAGE));
	cr_expect_eq(fake_os_advised(QY_MADV_NOHUGEPAGE), base, "%s %lu", shmem, fake_os_advised(QY_MADV_NOHUGEPAGE));
}

Test(memfd, transparent_huge_pages_by_their_own_setting)
{
	uint64_t before;

	begin();
	/* (What quarry keeps of it has advice, too.) */
	cr_assert_not_null(make(0, QUARRY_PAGES_BASE, -1));
	expect_kind("always within_size advise [never] deny force\n", NULL, QUARRY_PAGES_BASE, QUARRY_PAGES_THP, 0, 0);
	cr_assert_gt(before = refused(QUARRY_REFUSED_THP), 0);
	expect_kind("always within_size [advise] never deny force\n", NULL, QUARRY_PAGES_THP, QUARRY_PAGES_THP, 1, 0);
	expect_kind("[always] within_size advise never deny force\n", NULL, QUARRY_PAGES_THP, QUARRY_PAGES_THP, 1, 0);
	expect_kind("[always] within_size advise never deny force\n", NULL, QUARRY_PAGES_BASE, QUARRY_PAGES_BASE, 0, 1);
	expect_kind("always within_size [advise] never deny force\n", NULL, QUARRY_PAGES_BASE, QUARRY_PAGES_BASE, 0, 0);
	expect_kind("always within_size [advise] never deny force\n", "always inherit within_size advise [never]\n",
		    QUARRY_PAGES_BASE, QUARRY_PAGES_THP, 0, 0);
	expect_kind("always within_size advise [never] deny force\n", "always [inherit] within_size advise never\n",
		    QUARRY_PAGES_BASE, QUARRY_PAGES_THP, 0, 0);
	expect_kind("always within_size advise never deny [force]\n", "always inherit within_size advise [never]\n",
		    QUARRY_PAGES_THP, QUARRY_PAGES_THP, 1, 0);
	cr_assert_gt(refused(QUARRY_REFUSED_THP), before);
}

/* What is asked for by thread: each node has a file of its own. */
Test(memfd, of_the_local_policy)
{
	char *p, *q;

	begin();
	arena = make(0, QUARRY_PAGES_BASE, -1);
	p = get(3 * MIB);
	fake_os_on_cpu(4 * 3);
	cr_assert_eq(quarry_thread_rebind(-1), 0);
	q = get(3 * MIB);
	cr_assert_eq(fake_os_node_at(p), 0);
	cr_assert_eq(fake_os_node_at(q), 3);
	cr_assert_neq(quarry_fd_of(p, NULL), quarry_fd_of(q, NULL));
	cr_assert_eq(quarry_arena_destroy(arena), 0);
	errno = 0;
	cr_assert(quarry_fd_of(p, NULL) == -1 && errno == EINVAL);
}

/* ---- fork ---- */

static int fork_and(int (*run)(char *p), char *p)
{
	int status;
	pid_t child = fork();

	if (child == 0)
		_exit(run(p));
	cr_assert_eq(waitpid(child, &status, 0), child);
	return status;
}

static int expect_copy(char *p)
{
	int bad = p[0] != 1 || p[6 * MIB - 1] != 1;

	memset(p, 2, 6 * MIB);
	bad += stats_of(arena).in_files != 0 || got(QUARRY_PAGES_2M) != 0;
	bad += quarry_fd_of(p, NULL) != -1 || errno != ENOTSUP;
	return bad != 0;
}

static int expect_nothing(char *p)
{
	int bad = stats_of(arena).mapped != 0 || stats_of(arena).in_files != 0 || refused(QUARRY_REFUSED_FORK) == 0;

	quarry_free(p);
	p = quarry_arena_malloc(arena, 3 * MIB);
	bad += p == NULL || quarry_fd_of(p, NULL) < 3;
	memset(p, 3, 3 * MIB);
	return bad != 0;
}

Test(memfd, a_child_that_cannot_have_a_copy)
{
	char *p;

	begin();
	fake_os_pool(0, 21, 50);
	arena = make(0, QUARRY_PAGES_2M, 0);
	p = get(6 * MIB);
	cr_assert_eq(fork_and(expect_copy, p), 0);
	fake_os_fail(FAKE_READ_AT, EIO);
	cr_assert_eq(fork_and(expect_nothing, p), 0);
	fake_os_heal();
	/* The child's own map of it is the first that it makes. */
	fake_os_fail_kth(FAKE_FILE_ID, 1, EBADF);
	cr_assert_eq(fork_and(expect_nothing, p), 0);
	fake_os_heal();
	cr_assert_eq(p[6 * MIB - 1], 1);
	cr_assert_eq(got(QUARRY_PAGES_2M), stats_of(arena).mapped);
	cr_assert_eq(fork_and(expect_copy, p), 0);
}

static int open_another(int fd)
{
	(void)fd;
	return kernel.memfd("another", QY_MFD_CLOEXEC);
}

static void expect_copy_and_offset(char *p)
{
	int fd = quarry_fd_of(p, NULL);

	cr_assert_eq(lseek(fd, 123, SEEK_SET), 123);
	cr_assert_eq(fork_and(expect_copy, p), 0);
	cr_assert_eq(lseek(fd, 0, SEEK_CUR), 123, "moved to %ld", (long)lseek(fd, 0, SEEK_CUR));
}

/* The offset is the program's, and that of whoever it handed the descriptor to. */
Test(memfd, a_child_moves_nobodys_offset)
{
	int (*reopen_of_today)(int fd);
	char *p;

	begin();
	arena = make(0, QUARRY_PAGES_BASE, -1);
	p = get(6 * MIB);
	expect_copy_and_offset(p);
	/* Without /proc, and with another one. */
	fake_os_fail(FAKE_REOPEN, ENOENT);
	expect_copy_and_offset(p);
	fake_os_fail(FAKE_READ_AT, EIO);
	cr_assert_eq(fork_and(expect_nothing, p), 0);
	fake_os_heal();
	reopen_of_today = kernel.reopen;
	kernel.reopen = open_another;
	expect_copy_and_offset(p);
	kernel.reopen = reopen_of_today;
}

/* One that fork did not know of when it asked, and does by the time that all are held still. */
static int (*pair_of_today)(int ends[2]);
static _Atomic(bool) go, there, over;
static char *apart; /* in pages of a pool, in no file */

static void *come_late(void *unused)
{
	(void)unused;
	while (!go)
		sched_yield();
	quarry_free(quarry_malloc(64));
	there = true;
	while (!over)
		sched_yield();
	return NULL;
}

static int pair_and_wait(int ends[2])
{
	int made = pair_of_today(ends);

	go = true;
	while (!there)
		sched_yield();
	return made;
}

static int expect_copy_of_what_is_apart(char *p)
{
	int bad = stats_of(quarry_arena_of(apart)).kind_got[QUARRY_PAGES_2M] != 0;

	return bad != 0 || apart[0] != 4 || apart[6 * MIB - 1] != 4 || expect_nothing(p);
}

static void fork_while_one_comes(int (*expect)(char *p), char *p)
{
	uint64_t before = refused(QUARRY_REFUSED_FORK);
	int fds = count_fds();
	pthread_t thread;

	go = there = over = false;
	cr_assert_eq(pthread_create(&thread, NULL, come_late, NULL), 0);
	pair_of_today = kernel.pair;
	kernel.pair = pair_and_wait;
	cr_assert_eq(fork_and(expect, p), 0);
	kernel.pair = pair_of_today;
	over = true;
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert(there);
	cr_assert_eq(count_fds(), fds);
	cr_assert_eq(refused(QUARRY_REFUSED_FORK), before + 1);
	cr_assert_eq(p[6 * MIB - 1], 1);
}

Test(memfd, a_thread_that_comes_while_its_process_forks)
{
	quarry_arena_attr attr = { .page_kind = QUARRY_PAGES_2M };
	quarry_arena *plain;
	char *p;

	begin();
	fake_os_pool(0, 21, 50);
	arena = make(0, QUARRY_PAGES_2M, 0);
	p = get(6 * MIB);
	fork_while_one_comes(expect_nothing, p);
	/* What is in no file is copied, whoever comes. */
	plain = quarry_arena_create(&attr);
	apart = quarry_arena_malloc(plain, 6 * MIB);
	cr_assert_not_null(apart);
	memset(apart, 4, 6 * MIB);
	cr_assert_gt(stats_of(plain).kind_got[QUARRY_PAGES_2M], 0);
	fork_while_one_comes(expect_copy_of_what_is_apart, p);
	/* It went. */
	cr_assert_eq(fork_and(expect_copy, p), 0);
}

static int (*send_of_today)(int end, const void *bytes, size_t len, unsigned ms);

/* The parent's end is closed when it waits no longer. */
static int send_too_late(int end, const void *bytes, size_t len, unsigned ms)
{
	struct pollfd gone = { .fd = end };

	poll(&gone, 1, 60000);
	return send_of_today(end, bytes, len, ms);
}

static int receive_nothing(int end, void *bytes, size_t len, unsigned ms)
{
	(void)end, (void)bytes, (void)len, (void)ms;
	errno = ETIMEDOUT;
	return -1;
}

static int expect_nothing_late(char *p)
{
	return refused(QUARRY_REFUSED_FORK) != 1 || expect_nothing(p);
}

Test(memfd, a_child_that_is_not_waited_for)
{
	char *p;

	begin();
	arena = make(0, QUARRY_PAGES_BASE, 0);
	p = get(6 * MIB);
	send_of_today = kernel.send;
	kernel.send = send_too_late;
	kernel.receive = receive_nothing;
	cr_assert_eq(fork_and(expect_nothing_late, p), 0);
	cr_assert_eq(refused(QUARRY_REFUSED_FORK), 1);
}

/* ---- the control group's limit ---- */

#define OWN "/sys/fs/cgroup/app"

static void number_file(const char *path, const char *format, uint64_t n)
{
	char text[128];

	snprintf(text, sizeof(text), format, n);
	fake_os_file(path, text);
}

/* A group of 400 MiB, of which 150 are used, with so many MiB of pages in files mapped by this process. */
static void be_in_group(uint64_t in_files)
{
	fake_os_file("/proc/self/cgroup", "0::/app\n");
	fake_os_file("/proc/self/mountinfo",
		     "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n");
	fake_os_file("/sys/fs/cgroup/cgroup.controllers", "memory\n");
	fake_os_file(OWN "/cgroup.controllers", "memory\n");
	fake_os_file(OWN "/memory.stat", "anon 0\n");
	fake_os_file(OWN "/memory.high", "max\n");
	number_file(OWN "/memory.max", "%" PRIu64 "\n", 400 * MIB);
	number_file(OWN "/memory.current", "%" PRIu64 "\n", 150 * MIB);
	fake_os_file("/proc/self/statm", "500000 300000 300000 1 0 100 0\n");
	number_file("/proc/self/status",
		    "Name:\tRssShmem:\nRssFile:\t    9999 kB\nRssShmem:\t  %" PRIu64 " kB\nVmData:\t 5 kB\n",
		    in_files * 1024);
	qy_cgroup_forget();
}

/* Whether memory that is in no file is to be had, which nobody touches. */
static bool may_have(size_t bytes)
{
	void *p = quarry_malloc(bytes);

	cr_assert(p != NULL || errno == ENOMEM);
	quarry_free(p);
	quarry_purge(NULL);
	return p != NULL;
}

/* About 229 MiB are left, less what was handed out and is in nobody's memory yet. */
Test(memfd, memory_in_files_counts_once_against_the_group)
{
	quarry_arena *plain;
	char *p, *q;

	begin();
	arena = make(0, QUARRY_PAGES_BASE, -1);
	p = get(150 * MIB);
	be_in_group(150);
	cr_assert(may_have(200 * MIB));
	cr_assert_not(may_have(240 * MIB));
	q = quarry_arena_malloc(arena, 200 * MIB);
	cr_assert_not_null(q);
	quarry_free(q);
	quarry_purge(arena);
	/* A third of it was not touched. */
	be_in_group(100);
	cr_assert(may_have(150 * MIB));
	cr_assert_not(may_have(200 * MIB));
	/* Files of the program's own hide nothing that is to come. */
	be_in_group(1000);
	q = quarry_malloc(100 * MIB);
	cr_assert_not_null(q);
	cr_assert(may_have(110 * MIB));
	cr_assert_not(may_have(150 * MIB));
	quarry_free(q);
	quarry_free(p);
	cr_assert_eq(quarry_arena_destroy(arena), 0);
	plain = quarry_arena_create(NULL);
	q = quarry_arena_malloc(plain, 150 * MIB);
	cr_assert_not_null(q);
	cr_assert_not(may_have(200 * MIB));
	cr_assert_eq(quarry_arena_destroy(plain), 0);
	/* A kernel before 4.5. */
	arena = make(0, QUARRY_PAGES_BASE, -1);
	fake_os_file("/proc/self/status", "Name:\tx\n");
	p = get(150 * MIB);
	cr_assert_not(may_have(200 * MIB));
	cr_assert(may_have(50 * MIB));
}
