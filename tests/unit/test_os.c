/* SPDX-License-Identifier: MIT */
/* The table of calls. What the fake kernel claims to do like Linux is checked on both, on a machine of one node; what
 * only the fake can show (more nodes, pools, refusals) on the fake. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <unistd.h>

#include "tests/fake_os.h"

#define PAGE 4096ul
#define HUGE (2ul << 20)
#define WORDS (1024 / (8 * sizeof(unsigned long)))
#define ANON (MAP_PRIVATE | MAP_ANONYMOUS)

#define EXPECT_ERROR(call, err)                                                               \
	do {                                                                                  \
		errno = 0;                                                                    \
		cr_assert_eq((long)(call), -1, "%s: " #call, kernel);                         \
		cr_assert_eq(errno, (err), "%s: " #call ": %s", kernel, strerror(errno));     \
	} while (0)

static const char *kernel;

static char *map(size_t len)
{
	char *p = qy_os->mmap(NULL, len, PROT_READ | PROT_WRITE, ANON, -1, 0);
	cr_assert_neq(p, MAP_FAILED);
	return p;
}

static long node_of(const void *page)
{
	void *pages[1] = { (void *)(uintptr_t)page };
	int status = 12345;
	cr_assert_eq(qy_os->move_pages(1, pages, NULL, &status, 0), 0);
	return status;
}

static int policy_of(void *page)
{
	int mode = 12345;
	cr_assert_eq(qy_os->get_mempolicy(&mode, NULL, 0, page, QY_MPOL_F_ADDR), 0, "%s", strerror(errno));
	return mode & 0xff;
}

static void check_policy(void)
{
	char *between;
	unsigned long zero[WORDS] = { 1 }, none[WORDS] = { 0 }, absent[WORDS] = { 0 }, got[WORDS];
	char *p = map(8 * PAGE), *hole = map(3 * PAGE), *to = map(16 * PAGE);
	int mode = -1;

	absent[WORDS - 1] = 1ul << (8 * sizeof(absent[0]) - 1);
	cr_assert_eq(qy_os->mbind(p, 4 * PAGE, QY_MPOL_BIND, zero, 1024, 0), 0);
	cr_assert_eq(policy_of(p), QY_MPOL_BIND);
	cr_assert_eq(policy_of(p + 3 * PAGE), QY_MPOL_BIND);
	cr_assert_eq(policy_of(p + 4 * PAGE), QY_MPOL_DEFAULT);
	memset(got, 0xff, sizeof(got));
	cr_assert_eq(qy_os->get_mempolicy(&mode, got, 1024, p, QY_MPOL_F_ADDR), 0);
	cr_assert_eq(memcmp(got, zero, sizeof(got)), 0);

	EXPECT_ERROR(qy_os->mbind(p + 1, PAGE, QY_MPOL_BIND, zero, 1024, 0), EINVAL);
	EXPECT_ERROR(qy_os->mbind(p, PAGE, QY_MPOL_BIND, none, 1024, 0), EINVAL);
	EXPECT_ERROR(qy_os->mbind(p, PAGE, QY_MPOL_BIND, absent, 1024, 0), EINVAL);
	EXPECT_ERROR(qy_os->mbind(p, PAGE, QY_MPOL_INTERLEAVE, none, 1024, 0), EINVAL);
	EXPECT_ERROR(qy_os->mbind(p, PAGE, QY_MPOL_DEFAULT, zero, 1024, 0), EINVAL);
	EXPECT_ERROR(qy_os->mbind(p, PAGE, QY_MPOL_LOCAL, zero, 1024, 0), EINVAL);
	EXPECT_ERROR(qy_os->mbind(p, PAGE, 100, zero, 1024, 0), EINVAL);
	cr_assert_eq(qy_os->munmap(hole + PAGE, PAGE), 0);
	EXPECT_ERROR(qy_os->mbind(hole, 3 * PAGE, QY_MPOL_BIND, zero, 1024, 0), EFAULT);
	cr_assert_eq(policy_of(p), QY_MPOL_BIND);

	/* the middle of a range: both ends keep theirs */
	cr_assert_eq(qy_os->mbind(p + PAGE, PAGE, QY_MPOL_PREFERRED, zero, 1024, 0), 0);
	cr_assert_eq(policy_of(p), QY_MPOL_BIND);
	cr_assert_eq(policy_of(p + PAGE), QY_MPOL_PREFERRED);
	cr_assert_eq(policy_of(p + 2 * PAGE), QY_MPOL_BIND);
	cr_assert_eq(qy_os->mbind(p + 2 * PAGE, PAGE, QY_MPOL_DEFAULT, NULL, 0, 0), 0);
	cr_assert_eq(policy_of(p + PAGE), QY_MPOL_PREFERRED);
	cr_assert_eq(policy_of(p + 2 * PAGE), QY_MPOL_DEFAULT);
	cr_assert_eq(policy_of(p + 3 * PAGE), QY_MPOL_BIND);
	cr_assert_eq(qy_os->mbind(p, PAGE, QY_MPOL_DEFAULT, NULL, 0, 0), 0);
	cr_assert_eq(policy_of(p), QY_MPOL_DEFAULT);
	cr_assert_eq(qy_os->mbind(p, 4 * PAGE, QY_MPOL_BIND, zero, 1024, 0), 0);
	cr_assert_eq(qy_os->mbind(p + PAGE, PAGE, QY_MPOL_DEFAULT, NULL, 0, 0), 0);
	cr_assert_eq(policy_of(p), QY_MPOL_BIND);
	cr_assert_eq(policy_of(p + PAGE), QY_MPOL_DEFAULT);
	cr_assert_eq(policy_of(p + 2 * PAGE), QY_MPOL_BIND);
	cr_assert_eq(qy_os->mbind(p, PAGE, QY_MPOL_PREFERRED, NULL, 0, 0), 0); /* which means local */

	/* mremap takes it along, and what is left in the place keeps it; a new mapping has none */
	between = qy_os->mremap_away(p + 2 * PAGE, 2 * PAGE, NULL);
	cr_assert_neq(between, MAP_FAILED);
	cr_assert_eq(policy_of(between), QY_MPOL_BIND);
	cr_assert_eq(qy_os->mremap_to(between, 2 * PAGE, to + PAGE), to + PAGE);
	cr_assert_eq(policy_of(to), QY_MPOL_DEFAULT);
	cr_assert_eq(policy_of(to + PAGE), QY_MPOL_BIND);
	cr_assert_eq(policy_of(to + 2 * PAGE), QY_MPOL_BIND);
	cr_assert_eq(policy_of(to + 3 * PAGE), QY_MPOL_DEFAULT);
	cr_assert_eq(policy_of(p + 2 * PAGE), QY_MPOL_BIND);
	cr_assert_eq(qy_os->mmap(to, 2 * PAGE, PROT_NONE, ANON | MAP_FIXED, -1, 0), to);
	cr_assert_eq(policy_of(to + PAGE), QY_MPOL_DEFAULT);
	cr_assert_eq(policy_of(to + 2 * PAGE), QY_MPOL_BIND);
}

static void check_pages(void)
{
	unsigned char in_memory[4];
	int to[1] = { 0 }, away[1] = { 900 }, status[1] = { 12345 };
	char *p = map(4 * PAGE), *gone = map(PAGE);
	void *pages[1] = { p };
	bool huge = true;

	cr_assert_eq(node_of(p), -ENOENT);
	p[0] = p[2 * PAGE] = 1;
	cr_assert_eq(node_of(p), 0);
	cr_assert_eq(node_of(p + 100), 0);
	cr_assert_eq(node_of(p + 2 * PAGE), 0);
	cr_assert_eq(node_of(p + 3 * PAGE), -ENOENT);
	cr_assert_eq(qy_os->munmap(gone, PAGE), 0);
	cr_assert_eq(node_of(gone), -EFAULT);
	cr_assert_eq(qy_os->mincore(p, 4 * PAGE, in_memory), 0);
	cr_assert_eq(in_memory[0] & 1, 1);
	cr_assert_eq(in_memory[1] & 1, 0);
	cr_assert_eq(qy_os->madvise(p, PAGE, MADV_DONTNEED), 0);
	cr_assert_eq(node_of(p), -ENOENT);
	cr_assert_eq(qy_os->madvise(p, 4 * PAGE, QY_MADV_POPULATE_WRITE), 0);
	cr_assert_eq(node_of(p + 3 * PAGE), 0);
	cr_assert_eq(qy_os->move_pages(1, pages, to, status, 2), 0);
	cr_assert_eq(status[0], 0);
	EXPECT_ERROR(qy_os->move_pages(1, pages, away, status, 2), ENODEV);
	if (qy_os->page_is_huge(p, &huge) == 0)
		cr_assert_not(huge);
	else
		cr_assert(errno == ENOTTY || errno == ENOENT || errno == EPERM || errno == EACCES, "%s",
			  strerror(errno));
}

static void check_rest(void)
{
	unsigned long mask[WORDS], small[WORDS];
	unsigned cpu = 12345, node = 12345;
	char text[64];
	int mode = -1;

	memset(mask, 0xff, sizeof(mask));
	cr_assert_eq(qy_os->mems_allowed(mask, 1024), 0);
	cr_assert_eq(mask[0], 1ul);
	for (size_t i = 1; i < WORDS; i++)
		cr_assert_eq(mask[i], 0ul);
	cr_assert_eq(qy_os->mems_allowed(small, 8 * sizeof(small[0])), 0);
	cr_assert_eq(small[0], 1ul);
	cr_assert_eq(qy_os->get_mempolicy(&mode, NULL, 0, NULL, 0), 0);
	cr_assert_eq(mode, QY_MPOL_DEFAULT);
	cr_assert_eq(qy_os->set_mempolicy(QY_MPOL_PREFERRED, (unsigned long[WORDS]){ 1 }, 1024), 0);
	cr_assert_eq(qy_os->get_mempolicy(&mode, mask, 1024, NULL, 0), 0);
	cr_assert_eq(mode, QY_MPOL_PREFERRED);
	cr_assert_eq(qy_os->set_mempolicy(QY_MPOL_DEFAULT, NULL, 0), 0);
	cr_assert_eq(qy_os->getcpu(&cpu, &node), 0);
	cr_assert_eq(node, 0u);
	cr_assert_eq(qy_os->getcpu(NULL, NULL), 0);
	cr_assert_eq(qy_os->read_file("/sys/devices/system/node/online", text, sizeof(text)), 2);
	cr_assert_str_eq(text, "0\n");
	cr_assert_eq(qy_os->read_file("/sys/devices/system/node/online", text, 2), 1);
	cr_assert_str_eq(text, "0");
	EXPECT_ERROR(qy_os->read_file("/sys/devices/system/node/node7/cpumap", text, sizeof(text)), ENOENT);
	cr_assert_str_eq(text, "");
	cr_assert_gt(qy_os->total_memory(), 1u << 20);
	cr_assert_gt(qy_os->address_limit(), 1u << 20);
	cr_assert_geq(qy_os->now_ms(), 1u);
}

static bool one_node_here(void)
{
	unsigned long mask[WORDS];
	return qy_os_linux.mems_allowed(mask, 1024) == 0 && mask[0] == 1 &&
	       access("/sys/devices/system/node/node1", F_OK) != 0 &&
	       access("/sys/devices/system/node/node0", F_OK) == 0;
}

Test(os, linux_and_the_fake_agree_on_policy)
{
	kernel = "fake";
	fake_os_install();
	check_policy();
	fake_os_remove();
	kernel = "linux";
	if (!one_node_here())
		cr_skip_test("not a machine of one node with memory policies");
	check_policy();
}

Test(os, linux_and_the_fake_agree_on_pages)
{
	kernel = "fake";
	fake_os_install();
	check_pages();
	fake_os_remove();
	kernel = "linux";
	if (!one_node_here())
		cr_skip_test("not a machine of one node with memory policies");
	check_pages();
}

Test(os, linux_and_the_fake_agree_on_the_rest)
{
	kernel = "fake";
	fake_os_install();
	check_rest();
	fake_os_remove();
	kernel = "linux";
	if (!one_node_here())
		cr_skip_test("not a machine of one node with memory policies");
	check_rest();
}

/* ---- Linux alone ---- */

Test(os, no_descriptor_stays_open)
{
	char text[16];
	bool huge;
	int before = open("/dev/null", O_RDONLY), after;

	for (int i = 0; i < 100; i++) {
		qy_os->read_file("/proc/self/stat", text, sizeof(text));
		qy_os->read_file("/", text, sizeof(text)); /* opens, and cannot be read */
		(void)qy_os->page_is_huge(text, &huge);
	}
	after = open("/dev/null", O_RDONLY);
	cr_assert_eq(after, before + 1);
}

/* The kernel takes one off: with a mask as wide as its nodes are many, the last node would be lost. */
Test(os, what_is_read_where_there_is_no_socket_leaves_errno)
{
	char text[8] = "";
	struct iovec iov = { text, sizeof(text) };
	int fds[2];

	cr_assert_eq(pipe(fds), 0);
	cr_assert_eq(write(fds[1], "pipe", 4), 4);
	errno = EXDEV;
	cr_assert_eq(qy_os_linux.receive_into(fds[0], &iov, 1, 0), 4);
	cr_assert_eq(errno, EXDEV, "%s", strerror(errno));
	cr_assert_str_eq(text, "pipe");
	cr_assert_eq(close(fds[1]), 0);
	cr_assert_eq(qy_os_linux.receive_into(fds[0], &iov, 1, 1 /* any flag */), -1);
	cr_assert_eq(errno, ENOTSOCK, "flags are for sockets");
	cr_assert_eq(close(fds[0]), 0);
}

Test(os, masks_are_not_a_bit_short)
{
	unsigned long mask = 0, one = 1;
	char *p = map(PAGE);
	int mode = -1;

	if (!one_node_here())
		cr_skip_test("not a machine of one node with memory policies");
	cr_assert_eq(qy_os->mems_allowed(&mask, 1), 0);
	cr_assert_eq(mask, 1ul);
	cr_assert_eq(qy_os->mbind(p, PAGE, QY_MPOL_BIND, &one, 1, 0), 0);
	mask = 0;
	cr_assert_eq(qy_os->get_mempolicy(&mode, &mask, 1, p, QY_MPOL_F_ADDR), 0);
	cr_assert_eq(mask, 1ul);
	cr_assert_eq(qy_os->set_mempolicy(QY_MPOL_BIND, &one, 1), 0);
	cr_assert_eq(qy_os->get_mempolicy(&mode, NULL, 0, NULL, 0), 0);
	cr_assert_eq(mode, QY_MPOL_BIND);
}

Test(os, the_address_limit)
{
	struct rlimit limit = { 1ul << 36, 1ul << 36 };
	cr_assert_eq(setrlimit(RLIMIT_AS, &limit), 0);
	cr_assert_eq(qy_os->address_limit(), 1ul << 36);
	cr_assert_eq(qy_os_page_size(), (size_t)getpagesize());
}

Test(os, a_huge_page_is_told)
{
	char *p = map(2 * HUGE), *at = (char *)(((uintptr_t)p + HUGE - 1) & ~(HUGE - 1));
	bool huge = false;

	if (qy_os->madvise(at, HUGE, QY_MADV_HUGEPAGE) != 0)
		cr_skip_test("no transparent huge pages here");
	memset(at, 1, HUGE);
	if (qy_os->page_is_huge(at, &huge) != 0)
		cr_skip_test("no PAGEMAP_SCAN here");
	if (!huge && qy_os->madvise(at, HUGE, QY_MADV_COLLAPSE) != 0)
		cr_skip_test("the kernel gives no huge page now");
	for (size_t off = 0; off < HUGE; off += HUGE / 8 + 3) {
		cr_assert_eq(qy_os->page_is_huge(at + off, &huge), 0);
		cr_assert(huge);
	}
	cr_assert_eq(qy_os->munmap(at + HUGE / 2, PAGE), 0); /* the kernel splits it */
	cr_assert_eq(qy_os->page_is_huge(at, &huge), 0);
	cr_assert_not(huge);
}

/* ---- the fake alone ---- */

static void bind(void *p, size_t len, int mode, int first, int second)
{
	unsigned long mask[WORDS] = { 0 };
	mask[(size_t)first / 64] |= 1ul << (first % 64);
	if (second >= 0)
		mask[(size_t)second / 64] |= 1ul << (second % 64);
	cr_assert_eq(qy_os->mbind(p, len, mode, mask, 1024, 0), 0, "%s", strerror(errno));
}

Test(fake, places_pages_by_policy)
{
	char *p = map(32 * PAGE);
	int nodes[4], count;

	fake_os_install();
	fake_os_nodes("0,2,65,700");
	fake_os_cpus(2, "0-1");
	bind(p, 4 * PAGE, QY_MPOL_BIND, 700, -1);
	bind(p + 4 * PAGE, 4 * PAGE, QY_MPOL_INTERLEAVE, 0, 65);
	bind(p + 8 * PAGE, 4 * PAGE, QY_MPOL_PREFERRED, 65, -1);
	memset(p, 1, 32 * PAGE);
	cr_assert_eq(node_of(p), 700);
	for (int i = 4; i < 8; i++)
		cr_assert_eq(node_of(p + (size_t)i * PAGE), i % 2 ? 65 : 0);
	cr_assert_eq(node_of(p + 8 * PAGE), 65);
	cr_assert_eq(node_of(p + 12 * PAGE), 2);
	fake_os_memory(65, 1, 0); /* full: preferred goes elsewhere, bind stays */
	fake_os_distance(65, 700, 11);
	cr_assert_eq(node_of(p + 8 * PAGE), 700);
	fake_os_memory(700, 1, 0);
	cr_assert_eq(node_of(p), 700);
	errno = 0;
	cr_assert_eq(qy_os->madvise(p, PAGE, QY_MADV_POPULATE_WRITE), -1);
	cr_assert_eq(errno, ENOMEM);
	cr_assert_eq(fake_os_policy_at(p + 4 * PAGE, nodes, 4, &count), QY_MPOL_INTERLEAVE);
	cr_assert_eq(count, 2);
	cr_assert_eq(nodes[0], 0);
	cr_assert_eq(nodes[1], 65);
}

Test(fake, moves_pages)
{
	char *p = map(2 * PAGE);
	void *pages[2] = { p, p + PAGE };
	int to[2] = { 3, 3 }, status[2];

	memset(p, 1, 2 * PAGE);
	kernel = "fake";
	fake_os_install();
	fake_os_nodes("0-3");
	cr_assert_eq(qy_os->move_pages(1, pages, to, status, 2), 0);
	cr_assert_eq(status[0], 3);
	cr_assert_eq(node_of(p), 3);
	cr_assert_eq(node_of(p + PAGE), 0);
	fake_os_allowed("0-2");
	EXPECT_ERROR(qy_os->move_pages(2, pages, to, status, 2), EACCES);
	cr_assert_eq(qy_os->madvise(p, PAGE, MADV_DONTNEED), 0);
	p[0] = 1;
	cr_assert_eq(node_of(p), 0);
}

Test(fake, cpusets_and_old_kernels)
{
	unsigned long mask[WORDS] = { 6 }; /* nodes 1 and 2 */
	char *p = map(PAGE);
	int nodes[4], count;

	kernel = "fake";
	fake_os_install();
	fake_os_nodes("0-3");
	fake_os_allowed("0,2");
	cr_assert_eq(qy_os->mbind(p, PAGE, QY_MPOL_PREFERRED_MANY, mask, 1024, 0), 0);
	fake_os_policy_at(p, nodes, 4, &count);
	cr_assert_eq(count, 1);
	cr_assert_eq(nodes[0], 2);
	fake_os_allowed("0,3");
	EXPECT_ERROR(qy_os->mbind(p, PAGE, QY_MPOL_BIND, mask, 1024, 0), EINVAL);
	fake_os_newest_policy(QY_MPOL_LOCAL);
	fake_os_allowed("1");
	EXPECT_ERROR(qy_os->mbind(p, PAGE, QY_MPOL_PREFERRED_MANY, mask, 1024, 0), EINVAL);
	EXPECT_ERROR(qy_os->mems_allowed(mask, 0), EINVAL);
}

#define TLB (ANON | MAP_HUGETLB | (int)QY_MAP_HUGE_2MB)

Test(fake, pools_of_huge_pages)
{
	char *p, *q;
	bool huge;

	kernel = "fake";
	fake_os_install();
	fake_os_nodes("0,1");
	fake_os_pool(0, 21, 2);
	fake_os_pool(1, 21, 3);
	EXPECT_ERROR(qy_os->mmap(NULL, 6 * HUGE, PROT_WRITE, TLB, -1, 0), ENOMEM);
	p = qy_os->mmap(NULL, 4 * HUGE, PROT_WRITE, TLB, -1, 0);
	cr_assert_neq(p, MAP_FAILED);
	cr_assert_eq((uintptr_t)p % HUGE, 0);
	EXPECT_ERROR(qy_os->mmap(NULL, 2 * HUGE, PROT_WRITE, TLB, -1, 0), ENOMEM);
	bind(p, 4 * HUGE, QY_MPOL_BIND, 1, -1);
	cr_assert_eq(fake_os_pool_left(1, 21), 3);
	cr_assert_eq(qy_os->page_is_huge(p, &huge), 0);
	cr_assert_not(huge);
	cr_assert_eq(qy_os->madvise(p, 3 * HUGE, QY_MADV_POPULATE_WRITE), 0);
	cr_assert_eq(fake_os_pool_left(1, 21), 0);
	cr_assert_eq(node_of(p), 1);
	cr_assert_eq(node_of(p + 3 * HUGE), -ENOENT);
	cr_assert_eq(qy_os->page_is_huge(p + 5000, &huge), 0);
	cr_assert(huge);
	EXPECT_ERROR(qy_os->madvise(p + 3 * HUGE, HUGE, QY_MADV_POPULATE_WRITE), EFAULT);
	EXPECT_ERROR(qy_os->madvise(p, HUGE, QY_MADV_HUGEPAGE), EINVAL);
	EXPECT_ERROR(qy_os->munmap(p, PAGE), EINVAL);
	cr_assert_eq(qy_os->madvise(p, HUGE, MADV_DONTNEED), 0);
	cr_assert_eq(fake_os_pool_left(1, 21), 1);
	/* a right that was got back is not another's to take */
	EXPECT_ERROR(qy_os->mmap(NULL, 2 * HUGE, PROT_WRITE, TLB, -1, 0), ENOMEM);
	cr_assert_eq(qy_os->munmap(p, 4 * HUGE), 0);
	cr_assert_eq(fake_os_pool_left(0, 21) + fake_os_pool_left(1, 21), 5);
	q = qy_os->mmap(NULL, 5 * HUGE, PROT_WRITE, TLB, -1, 0);
	cr_assert_neq(q, MAP_FAILED);
	cr_assert_eq(qy_os->madvise(q, 5 * HUGE, QY_MADV_POPULATE_WRITE), 0);
	cr_assert_eq(fake_os_pool_left(0, 21) + fake_os_pool_left(1, 21), 0);
	cr_assert_eq(qy_os->munmap(q, 5 * HUGE), 0);
	/* without a reservation the mapping is had, and the pages are not */
	p = qy_os->mmap(NULL, 9 * HUGE, PROT_WRITE, TLB | MAP_NORESERVE, -1, 0);
	cr_assert_neq(p, MAP_FAILED);
	EXPECT_ERROR(qy_os->madvise(p, 9 * HUGE, QY_MADV_POPULATE_WRITE), EFAULT);
	cr_assert_eq(qy_os->munmap(p, 9 * HUGE), 0);
	cr_assert_eq(fake_os_pool_left(0, 21) + fake_os_pool_left(1, 21), 5);
}

Test(fake, refuses_and_counts)
{
	char *p;

	kernel = "fake";
	fake_os_install();
	p = map(PAGE);
	fake_os_forget_calls();
	fake_os_fail(FAKE_MADVISE, EAGAIN);
	EXPECT_ERROR(qy_os->madvise(p, PAGE, MADV_DONTNEED), EAGAIN);
	EXPECT_ERROR(qy_os->madvise(p, PAGE, MADV_DONTNEED), EAGAIN);
	fake_os_fail_kth(FAKE_MADVISE, 2, EBUSY);
	cr_assert_eq(qy_os->madvise(p, PAGE, MADV_DONTNEED), 0);
	EXPECT_ERROR(qy_os->madvise(p, PAGE, MADV_DONTNEED), EBUSY);
	cr_assert_eq(qy_os->madvise(p, PAGE, MADV_DONTNEED), 0);
	fake_os_fail_from(FAKE_MADVISE, 2, EIO);
	cr_assert_eq(qy_os->madvise(p, PAGE, MADV_DONTNEED), 0);
	EXPECT_ERROR(qy_os->madvise(p, PAGE, MADV_DONTNEED), EIO);
	EXPECT_ERROR(qy_os->madvise(p, PAGE, MADV_DONTNEED), EIO);
	fake_os_heal();
	fake_os_fail_advice(QY_MADV_COLLAPSE, EPERM);
	cr_assert_eq(qy_os->madvise(p, PAGE, MADV_DONTNEED), 0);
	EXPECT_ERROR(qy_os->madvise(p, PAGE, QY_MADV_COLLAPSE), EPERM);
	cr_assert_eq(fake_os_advised(QY_MADV_COLLAPSE), 1u);
	cr_assert_eq(fake_os_calls(FAKE_MADVISE), 10u);
	cr_assert_eq(fake_os_all_calls(), 10u);
	fake_os_fail_numa(EPERM);
	EXPECT_ERROR(qy_os->mbind(p, PAGE, QY_MPOL_LOCAL, NULL, 0, 0), EPERM);
	fake_os_fail(FAKE_MMAP, ENOMEM);
	errno = 0;
	cr_assert_eq(qy_os->mmap(NULL, PAGE, PROT_NONE, ANON, -1, 0), MAP_FAILED);
	cr_assert_eq(errno, ENOMEM);
	fake_os_clock(1000);
	cr_assert_eq(qy_os->now_ms(), 1000u);
	fake_os_advance(250);
	cr_assert_eq(qy_os->now_ms(), 1250u);
}
