/* SPDX-License-Identifier: MIT */
/* What the kernel does when it is really asked: each probe runs in a child, on a mapping of its own. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tools/tools.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/membarrier.h>
#include <linux/mempolicy.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "include/quarry/quarry.h"

#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)
#define PROBE_SECONDS 20

/* Numbers that Debian 12's headers lack. */
#define POLICY_PREFERRED_MANY 5
#define POLICY_WEIGHTED_INTERLEAVE 6
#define ADVICE_POPULATE_WRITE 23
#define ADVICE_COLLAPSE 25
#ifndef MLOCK_ONFAULT
#define MLOCK_ONFAULT 1
#endif

#define NODE_BITS QUARRY_NODES_MAX
#define LONG_BITS (8 * sizeof(unsigned long))

struct node_mask {
	unsigned long bits[NODE_BITS / LONG_BITS];
};

int probe_in_child(probe *what)
{
	struct rlimit no_core = { 0, 0 };
	int status;
	pid_t child;

	fflush(NULL);
	child = fork();
	if (child < 0)
		return PROBE_NO_CHILD;
	if (child == 0) {
		setrlimit(RLIMIT_CORE, &no_core);
		alarm(PROBE_SECONDS);
		_exit(what());
	}
	while (waitpid(child, &status, 0) < 0) {
		if (errno != EINTR)
			return PROBE_NO_CHILD;
	}
	return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

/* The names of what kernels answer to the calls tried here. */
static const char *error_name(int error)
{
	static const struct {
		int error;
		const char *name;
	} names[] = { { EPERM, "EPERM" },   { ENOSYS, "ENOSYS" }, { EINVAL, "EINVAL" }, { ENOMEM, "ENOMEM" },
		      { EAGAIN, "EAGAIN" }, { EACCES, "EACCES" }, { ENOTTY, "ENOTTY" }, { ENODEV, "ENODEV" },
		      { ENOENT, "ENOENT" }, { EFAULT, "EFAULT" }, { EBUSY, "EBUSY" },	{ EOPNOTSUPP, "EOPNOTSUPP" } };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (names[i].error == error)
			return names[i].name;
	}
	return "error";
}

const char *probe_text(int answer)
{
	static char text[128];

	switch (answer) {
	case 0:
		return "works";
	case PROBE_NOT_DONE:
		return "the kernel says yes and does not do it";
	case PROBE_NOT_TOLD:
		return "the kernel does not show whether it did";
	case PROBE_NO_CHILD:
		return "not tried: no process could be started";
	case -SIGALRM:
		return "no answer from the kernel in time";
	}
	if (answer < 0)
		snprintf(text, sizeof(text), "the kernel ends the process (signal %d, %s)", -answer, strsignal(-answer));
	else
		snprintf(text, sizeof(text), "%s: %s", error_name(answer), strerror(answer));
	return text;
}

static void *map_memory(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		_exit(errno);
	return p;
}

static size_t page_size(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

static void touch(void *p, size_t size)
{
	for (size_t i = 0; i < size; i += page_size())
		((volatile char *)p)[i] = 1;
}

/* What the report itself asks the library: under a filter that kills, better here than there. */
int probe_nodes(void)
{
	if (quarry_nodes(NULL, 0) < 1)
		return errno;
	for (int id = 0; id < QUARRY_NODES_MAX; id++) {
		quarry_node_info info = { .struct_size = sizeof(info) };
		if (quarry_node_info_get(id, &info) != 0 && errno != EINVAL)
			return errno;
	}
	return 0;
}

/* Whether hwloc can be loaded and asked, not what it knows. */
int probe_hwloc(void)
{
	uint64_t value;

	if (quarry_node_attr_get(quarry_node_id(0), QUARRY_ATTR_BANDWIDTH, -1, &value) == 0 || errno == ENODATA)
		return 0;
	return errno;
}

/* A node that this process may have memory on, and its mask. */
static int some_node(struct node_mask *mask)
{
	int id = -1;

	for (int i = 0; i < quarry_node_count() && id < 0; i++) {
		quarry_node_info info = { .struct_size = sizeof(info) };
		if (quarry_node_info_get(quarry_node_id(i), &info) == 0 && info.allowed && info.has_memory)
			id = info.id;
	}
	if (id < 0)
		id = quarry_node_id(0);
	*mask = (struct node_mask){ { 0 } };
	mask->bits[(size_t)id / LONG_BITS] |= 1UL << ((size_t)id % LONG_BITS);
	return id;
}

/* The kernel counts one bit fewer than it is told. */
static int bind_policy(int policy)
{
	struct node_mask mask;
	int node = some_node(&mask), at = -1;
	size_t size = 4 * page_size();
	void *p = map_memory(size);

	if (syscall(SYS_mbind, p, size, policy, mask.bits, NODE_BITS + 1, 0) != 0)
		return errno;
	touch(p, size);
	if (syscall(SYS_get_mempolicy, &at, NULL, 0, p, MPOL_F_NODE | MPOL_F_ADDR) != 0)
		return policy == MPOL_BIND ? PROBE_NOT_TOLD : 0;
	return policy == MPOL_BIND && at != node ? PROBE_NOT_DONE : 0;
}

int probe_mbind(void)
{
	return bind_policy(MPOL_BIND);
}

int probe_preferred_many(void)
{
	return bind_policy(POLICY_PREFERRED_MANY);
}

int probe_weighted_interleave(void)
{
	return bind_policy(POLICY_WEIGHTED_INTERLEAVE);
}

int probe_set_mempolicy(void)
{
	struct node_mask mask;

	some_node(&mask);
	if (syscall(SYS_set_mempolicy, MPOL_PREFERRED, mask.bits, NODE_BITS + 1) != 0)
		return errno;
	return syscall(SYS_set_mempolicy, MPOL_DEFAULT, NULL, 0) ? errno : 0;
}

int probe_get_mempolicy(void)
{
	struct node_mask mask;

	return syscall(SYS_get_mempolicy, NULL, mask.bits, NODE_BITS + 1, NULL, MPOL_F_MEMS_ALLOWED) ? errno : 0;
}

int probe_move_pages(void)
{
	void *p = map_memory(page_size());
	int status = -ENOENT;

	touch(p, page_size());
	if (syscall(SYS_move_pages, 0, 1UL, &p, NULL, &status, 0) != 0)
		return errno;
	return status < 0 ? -status : 0;
}

int probe_membarrier(void)
{
	if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0) != 0)
		return errno;
	return syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0) ? errno : 0;
}

/* glibc 2.35 and later say so by a symbol; weak, so that the command starts under an older one. */
extern const unsigned int __rseq_size __attribute__((weak));

int probe_rseq(void)
{
	return &__rseq_size && __rseq_size > 0 ? 0 : ENOSYS;
}

static void *no_work(void *nothing)
{
	return nothing;
}

int probe_thread(void)
{
	pthread_t thread;
	int error = pthread_create(&thread, NULL, no_work, NULL);

	if (error == 0)
		pthread_join(thread, NULL);
	return error;
}

/* By the kernel's own call, as the library does it: a timer that rings, and its signal comes. */
int probe_timer(void)
{
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGURG };
	struct itimerspec soon = { { 0, 0 }, { 0, 1000000 } };
	struct timespec limit = { 10, 0 };
	sigset_t urgent;
	int timer;

	sigemptyset(&urgent);
	sigaddset(&urgent, SIGURG);
	if (sigprocmask(SIG_BLOCK, &urgent, NULL) != 0 || syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &timer) != 0 ||
	    syscall(SYS_timer_settime, timer, 0, &soon, NULL) != 0)
		return errno;
	return sigtimedwait(&urgent, NULL, &limit) == SIGURG ? 0 : errno;
}

/* struct pm_scan_arg and struct page_region of <linux/fs.h>, Linux 6.7. */
struct scan_argument {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages, inverted, mask, any_mask, return_mask;
};
struct scan_region {
	uint64_t start, end, categories;
};
#define SCAN_REQUEST _IOWR('f', 16, struct scan_argument)
#define SCAN_PRESENT (1 << 3)

int probe_pagemap_scan(void)
{
	char *p = map_memory(2 * page_size());
	struct scan_region region = { 0, 0, 0 };
	struct scan_argument arg = {
		.size = sizeof(arg),
		.start = (uintptr_t)p,
		.end = (uintptr_t)p + 2 * page_size(),
		.vec = (uintptr_t)&region,
		.vec_len = 1,
		.mask = SCAN_PRESENT,
		.return_mask = SCAN_PRESENT,
	};
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return errno;
	touch(p, page_size());
	if (ioctl(fd, SCAN_REQUEST, &arg) < 0)
		return errno;
	return region.start == (uintptr_t)p && region.end == region.start + page_size() ? 0 : PROBE_NOT_DONE;
}

int probe_populate_write(void)
{
	size_t size = 16 * page_size();
	unsigned char there[16];
	void *p = map_memory(size);

	if (madvise(p, size, ADVICE_POPULATE_WRITE) != 0)
		return errno;
	if (mincore(p, size, there) != 0)
		return PROBE_NOT_TOLD;
	for (size_t i = 0; i < sizeof(there); i++) {
		if (!(there[i] & 1))
			return PROBE_NOT_DONE;
	}
	return 0;
}

static size_t huge_size(void)
{
	uint64_t size;

	return read_number("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size", &size) && size ? (size_t)size : 2 * MIB;
}

/* One huge page's worth of address space, aligned, in a mapping of its own that has no neighbour to merge with. */
static char *map_huge_aligned(size_t huge)
{
	char *p = mmap(NULL, 3 * huge, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	char *at;

	if (p == MAP_FAILED)
		_exit(errno);
	at = (char *)(((uintptr_t)p + huge) & ~(uintptr_t)(huge - 1));
	if (mprotect(at, huge, PROT_READ | PROT_WRITE) != 0)
		_exit(errno);
	return at;
}

/* Is the mapping that starts at p in a huge page? From smaps, as PAGEMAP_SCAN is newer than most kernels. */
static int seen_huge(const void *p)
{
	FILE *file = fopen("/proc/self/smaps", "re");
	char line[512];
	bool ours = false;

	if (!file)
		return PROBE_NOT_TOLD;
	while (fgets(line, sizeof(line), file)) {
		unsigned long start, end, kib;
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			ours = start == (uintptr_t)p;
		else if (ours && sscanf(line, "AnonHugePages: %lu kB", &kib) == 1)
			return kib ? 0 : PROBE_NOT_DONE;
	}
	return PROBE_NOT_TOLD;
}

int probe_thp(void)
{
	size_t huge = huge_size();
	char *p = map_huge_aligned(huge);

	if (madvise(p, huge, MADV_HUGEPAGE) != 0)
		return errno;
	touch(p, 1);
	return seen_huge(p);
}

int probe_collapse(void)
{
	size_t huge = huge_size();
	char *p = map_huge_aligned(huge);

	madvise(p, huge, MADV_NOHUGEPAGE); /* else the fault itself may bring a huge page */
	touch(p, huge);
	madvise(p, huge, MADV_HUGEPAGE);
	if (madvise(p, huge, ADVICE_COLLAPSE) != 0)
		return errno;
	return seen_huge(p) == PROBE_NOT_DONE ? PROBE_NOT_DONE : 0;
}

static int map_hugetlb(size_t size, unsigned shift)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | (int)(shift << 26), -1, 0);

	if (p == MAP_FAILED)
		return errno;
	*(volatile char *)p = 1; /* SIGBUS where the cgroup or the node's pool has none after all */
	return 0;
}

int probe_huge_2m(void)
{
	return map_hugetlb(2 * MIB, 21);
}

int probe_huge_1g(void)
{
	return map_hugetlb(GIB, 30);
}

static int reserve(size_t size)
{
	void *p = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? errno : 0;
}

int probe_reserve_1t(void)
{
	return reserve(1024 * GIB);
}

int probe_reserve_64g(void)
{
	return reserve(64 * GIB);
}

static int lock_on_fault(size_t size)
{
	void *p = map_memory(size);

	return syscall(SYS_mlock2, p, size, MLOCK_ONFAULT) ? errno : 0;
}

int probe_mlock(void)
{
	return lock_on_fault(16 * page_size());
}

int probe_mlock_64m(void)
{
	return lock_on_fault(64 * MIB);
}
