/* SPDX-License-Identifier: MIT */
/* Memory with descriptors, by the Linux behind qy_os: as numa/os.c, which has the table. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "numa/os_files.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/base/text.h"

#ifndef SYS_memfd_create
#define SYS_memfd_create (-1)
#endif
#ifndef F_ADD_SEALS
#define ADD_SEALS 1033
#define GET_SEALS 1034
#else
#define ADD_SEALS F_ADD_SEALS
#define GET_SEALS F_GET_SEALS
#endif

#define FD_FIRST 3 /* above standard error */

int qy_linux_memfd(const char *name, unsigned flags)
{
	long fd = syscall(SYS_memfd_create, name, flags), higher;
	int saved;

	if (fd < 0 || fd >= FD_FIRST)
		return (int)fd;
	higher = syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, FD_FIRST);
	saved = errno;
	(void)syscall(SYS_close, fd);
	errno = saved;
	return (int)higher;
}

/* Where RLIMIT_FSIZE forbids it there is an error, and not SIGXFSZ. */
static bool may_be_so_large(uint64_t size)
{
	struct rlimit limit;

	if (size <= INT64_MAX &&
	    (getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY || size <= limit.rlim_cur))
		return true;
	errno = EFBIG;
	return false;
}

int qy_linux_set_size(int fd, uint64_t size)
{
	if (!may_be_so_large(size))
		return -1;
	return ftruncate(fd, (off_t)size);
}

int qy_linux_seal(int fd, int seals)
{
	return (int)syscall(SYS_fcntl, fd, ADD_SEALS, seals);
}

int qy_linux_seals(int fd)
{
	return (int)syscall(SYS_fcntl, fd, GET_SEALS);
}

/* A signal interrupts it, and what was done is undone then: in steps, so that a timer does not keep it from ever
 * ending. */
int qy_linux_allocate(int fd, uint64_t at, uint64_t len)
{
	const uint64_t step = (uint64_t)2 << 20, end = at + len;

	while (at < end) {
		uint64_t part = end - at < step ? end - at : step;

		if (syscall(SYS_fallocate, fd, 0, (long)at, (long)part) == 0)
			at += part;
		else if (errno != EINTR)
			return -1;
	}
	return 0;
}

int qy_linux_file_id(int fd, uint64_t *id)
{
	struct stat is;

	if (fstat(fd, &is) != 0)
		return -1;
	*id = ((uint64_t)is.st_dev << 40) ^ (uint64_t)is.st_ino;
	return 0;
}

uint64_t qy_linux_process_space(void)
{
	struct stat is;

	return stat("/proc/self/ns/pid", &is) == 0 ? (uint64_t)is.st_dev << 40 ^ (uint64_t)is.st_ino : 0;
}

/* (Here and below: opening what is no file at all, a named pipe, must not wait for anybody.) */
static int open_anew(int fd, int flags)
{
	char path[32];
	struct qy_text text;
	long own;

	qy_text_init(&text, path, sizeof(path), -1);
	qy_text_format(&text, "/proc/self/fd/%d", fd);
	do
		own = syscall(SYS_openat, AT_FDCWD, path, flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0);
	while (own < 0 && errno == EINTR);
	return (int)own;
}

int qy_linux_reopen(int fd)
{
	return open_anew(fd, O_RDONLY);
}

int qy_linux_reopen_to_write(int fd)
{
	return open_anew(fd, O_RDWR);
}

int qy_linux_open_file(const char *path, unsigned how)
{
	int flags = how == QY_OPEN_READ ? O_RDONLY : how == QY_OPEN_WRITE ? O_RDWR : O_RDWR | O_CREAT | O_EXCL;
	long fd;

	do
		fd = syscall(SYS_openat, AT_FDCWD, path, flags | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0600);
	while (fd < 0 && errno == EINTR);
	return (int)fd;
}

int qy_linux_replace(int fd, int with)
{
	long rc = syscall(SYS_dup3, with, fd, O_CLOEXEC);
	int error = errno;

	(void)syscall(SYS_close, with);
	errno = error;
	return rc < 0 ? -1 : 0;
}

int qy_linux_file_info(int fd, struct qy_file_info *info)
{
	struct stat is;

	if (fstat(fd, &is) != 0)
		return -1;
	info->size = (uint64_t)is.st_size;
	info->regular = S_ISREG(is.st_mode);
	info->named = is.st_nlink != 0;
	return 0;
}

/* (struct flock is the kernel's own on machines of 64 bits, which quarry is for.) */
int qy_linux_range_lock(int fd, int kind, uint64_t at, uint64_t len, bool wait)
{
	struct flock range = {
		.l_type = kind == QY_RANGE_READ ? F_RDLCK : kind == QY_RANGE_WRITE ? F_WRLCK : F_UNLCK,
		.l_whence = SEEK_SET,
		.l_start = (off_t)at,
		.l_len = (off_t)len,
	};
	long rc;

	do
		rc = syscall(SYS_fcntl, fd, wait ? F_OFD_SETLKW : F_OFD_SETLK, &range);
	while (rc != 0 && errno == EINTR);
	if (rc != 0 && errno == EACCES)
		errno = EAGAIN;
	return rc != 0 ? -1 : 0;
}

int qy_linux_range_locked(int fd, uint64_t at, uint64_t len)
{
	struct flock range = {
		.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)at, .l_len = (off_t)len,
	};

	if (syscall(SYS_fcntl, fd, F_OFD_GETLK, &range) != 0)
		return -1;
	return range.l_type != F_UNLCK;
}

int qy_linux_punch(int fd, uint64_t at, uint64_t len)
{
	return (int)syscall(SYS_fallocate, fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (long)at, (long)len);
}

int qy_linux_next_data(int fd, uint64_t from, uint64_t *begin, uint64_t *end)
{
	off_t at = lseek(fd, (off_t)from, SEEK_DATA), behind = at < 0 ? -1 : lseek(fd, at, SEEK_HOLE);

	if (behind < 0)
		return -1;
	*begin = (uint64_t)at;
	*end = (uint64_t)behind;
	return 0;
}

int qy_linux_read_at(int fd, void *to, size_t len, uint64_t at)
{
	for (size_t done = 0; done < len;) {
		long n = syscall(SYS_pread64, fd, (char *)to + done, len - done, (long)(at + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n == 0)
			errno = EIO;
		if (n <= 0)
			return -1;
		done += (size_t)n;
	}
	return 0;
}

int qy_linux_write_at(int fd, const void *from, size_t len, uint64_t at)
{
	if (!may_be_so_large(at + len))
		return -1;
	for (size_t done = 0; done < len;) {
		long n = syscall(SYS_pwrite64, fd, (const char *)from + done, len - done, (long)(at + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n == 0)
			errno = ENOSPC;
		if (n <= 0)
			return -1;
		done += (size_t)n;
	}
	return 0;
}

int qy_linux_create_file(const char *path)
{
	long fd;

	do
		fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOCTTY, 0644);
	while (fd < 0 && errno == EINTR);
	return (int)fd;
}

int qy_linux_rename_file(const char *from, const char *to)
{
	return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

int qy_linux_remove_file(const char *path)
{
	return (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}

/* Where there are no files without a name. */
static int removed_file(const char *directory)
{
	char path[4096];
	long fd = -1;

	for (unsigned n = 0; n < 100 && (n == 0 || (fd < 0 && errno == EEXIST)); n++) {
		struct qy_text text;

		qy_text_init(&text, path, sizeof(path), -1);
		qy_text_format(&text, "%s/.quarry-%d-%u", directory, qy_os->process_id(), n);
		if (text.total >= sizeof(path)) {
			errno = ENAMETOOLONG;
			return -1;
		}
		fd = syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	}
	if (fd >= 0)
		(void)qy_linux_remove_file(path);
	return (int)fd;
}

int qy_linux_nameless_file(const char *directory)
{
	long fd = syscall(SYS_openat, AT_FDCWD, directory, O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);

	if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL))
		return removed_file(directory);
	return (int)fd;
}
