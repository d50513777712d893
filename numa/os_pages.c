/* SPDX-License-Identifier: MIT */
/* Pages that were written, by the Linux behind qy_os: as numa/os.c, which has the table. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "numa/os_pages.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "lib/base/text.h"

#ifndef SYS_userfaultfd
#define SYS_userfaultfd (-1)
#endif

/* The kernel's numbers that older headers lack. */
#define USER_MODE_ONLY 1             /* Linux 5.11 */
#define WP_SHMEM (1u << 12)          /* Linux 5.19 */
#define WP_ASYNC (1u << 15)          /* Linux 6.7, as all below */
#define SCAN _IOWR('f', 16, struct scan)
#define SCAN_PROTECT 1u
#define SCAN_CHECK 2u /* fail rather than pass over memory that is not noted */
#define PAGE_TRACKED 1u
#define PAGE_WRITTEN 2u
#define PAGE_PRESENT 8u

struct scan {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t inverted, all_of, any_of, returned;
};

static int failed(int fd)
{
	int error = errno;

	(void)syscall(SYS_close, fd);
	errno = error;
	return -1;
}

int qy_linux_track_writes(void *addr, size_t len)
{
	struct uffdio_api api = { .api = UFFD_API, .features = WP_SHMEM | WP_ASYNC };
	struct uffdio_register mapping = {
		.range = { (uintptr_t)addr, len },
		.mode = UFFDIO_REGISTER_MODE_WP,
	};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | USER_MODE_ONLY);

	if (fd < 0)
		return -1;
	if (ioctl(fd, UFFDIO_API, &api) != 0 || ioctl(fd, UFFDIO_REGISTER, &mapping) != 0)
		return failed(fd);
	return fd;
}

static int open_of_process(int pid, const char *what, int number, int flags)
{
	char path[64];
	struct qy_text text;
	long fd;

	qy_text_init(&text, path, sizeof(path), -1);
	if (number < 0)
		qy_text_format(&text, "/proc/%d/%s", pid, what);
	else
		qy_text_format(&text, "/proc/%d/%s/%d", pid, what, number);
	do
		fd = syscall(SYS_openat, AT_FDCWD, path, flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0);
	while (fd < 0 && errno == EINTR);
	return (int)fd;
}

int qy_linux_open_pagemap(int pid)
{
	return open_of_process(pid, "pagemap", -1, O_RDONLY);
}

int qy_linux_open_of(int pid, int fd, bool to_write)
{
	return open_of_process(pid, "fd", fd, to_write ? O_RDWR : O_RDONLY);
}

long qy_linux_written(int pagemap, uintptr_t *from, uintptr_t to, struct qy_page_range *ranges, size_t most)
{
	struct scan scan = {
		.size = sizeof(scan), .flags = SCAN_PROTECT | SCAN_CHECK, .start = *from, .end = to,
		.vec = (uintptr_t)ranges, .vec_len = most, .all_of = PAGE_WRITTEN, .returned = PAGE_WRITTEN,
	};
	long n;

	do
		n = ioctl(pagemap, SCAN, &scan);
	while (n < 0 && errno == EINTR);
	if (n >= 0)
		*from = (uintptr_t)scan.walk_end;
	return n;
}

bool qy_linux_is_tracked(int pagemap, uintptr_t addr)
{
	struct qy_page_range range;
	struct scan scan = {
		.size = sizeof(scan), .start = addr, .end = addr + qy_os_page_size(), .vec = (uintptr_t)&range, .vec_len = 1,
		.all_of = PAGE_TRACKED | PAGE_PRESENT, .returned = PAGE_TRACKED,
	};

	return ioctl(pagemap, SCAN, &scan) == 1;
}

int qy_linux_find_data(int fd, uint64_t from, uint64_t *at)
{
	off_t is = lseek(fd, (off_t)from, SEEK_DATA);

	if (is < 0)
		return -1;
	*at = (uint64_t)is;
	return 0;
}

int qy_linux_sync_data(int fd)
{
	long rc;

	do
		rc = syscall(SYS_fdatasync, fd);
	while (rc != 0 && errno == EINTR);
	return (int)rc;
}

int qy_linux_sync_directory(const char *path)
{
	char directory[4096];
	size_t len = 0;
	long fd, rc;

	for (size_t i = 0; path[i] != 0; i++) {
		if (i + 1 == sizeof(directory)) {
			errno = ENAMETOOLONG;
			return -1;
		}
		directory[i] = path[i];
		if (path[i] == '/')
			len = i + 1;
	}
	directory[len] = 0;
	fd = syscall(SYS_openat, AT_FDCWD, len == 0 ? "." : directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	do
		rc = syscall(SYS_fsync, fd);
	while (rc != 0 && errno == EINTR);
	if (rc != 0)
		return failed((int)fd);
	(void)syscall(SYS_close, fd);
	return 0;
}

void qy_linux_wait_word(const uint32_t *word, uint32_t value, uint64_t ns)
{
	struct timespec most = { (time_t)(ns / 1000000000u), (long)(ns % 1000000000u) };
	int error = errno;

	(void)syscall(SYS_futex, word, FUTEX_WAIT, value, &most, NULL, 0);
	errno = error;
}

void qy_linux_wake_word(const uint32_t *word)
{
	int error = errno;

	(void)syscall(SYS_futex, word, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
	errno = error;
}

uint64_t qy_linux_wall_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}
