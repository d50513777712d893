/* SPDX-License-Identifier: MIT */
#include "numa/memfd.h"

#include <errno.h>
#include <sys/mman.h>

#include "include/quarry/quarry.h"
#include "lib/base/refused.h"
#include "numa/os.h"

/* Against being executed, where the kernel knows it (Linux 6.3): some administrators demand it. */
static int create(const char *name, unsigned flags)
{
	int fd = qy_os->memfd(name, flags | QY_MFD_CLOEXEC | QY_MFD_ALLOW_SEALING | QY_MFD_NOEXEC_SEAL);

	if (fd < 0 && errno == EINVAL)
		fd = qy_os->memfd(name, flags | QY_MFD_CLOEXEC | QY_MFD_ALLOW_SEALING);
	return fd;
}

bool qy_memfd_make(struct qy_memfd *file, size_t len, int kind)
{
	unsigned flags = kind == QUARRY_PAGES_1G   ? QY_MFD_HUGETLB | QY_MAP_HUGE_1GB
			 : kind == QUARRY_PAGES_2M ? QY_MFD_HUGETLB | QY_MAP_HUGE_2MB
						   : 0;
	int fd = create("quarry", flags), error;

	file->fd = 0;
	/* A kernel without a pool of that size, or (before 4.16) without seals there: the ladder's affair. */
	if (fd < 0 && flags != 0 && (errno == EINVAL || errno == ENODEV || errno == EOPNOTSUPP)) {
		errno = ENOTSUP;
		return false;
	}
	if (fd >= 0 && qy_os->set_size(fd, len) == 0 &&
	    qy_os->seal(fd, QY_SEAL_SHRINK | QY_SEAL_GROW | QY_SEAL_SEAL) == 0 && qy_os->file_id(fd, &file->id) == 0) {
		file->fd = fd;
		return true;
	}
	error = errno;
	if (fd >= 0)
		qy_os->close(fd);
	qy_refuse(QUARRY_REFUSED_FD);
	errno = error;
	return false;
}

bool qy_memfd_is(const struct qy_memfd *file)
{
	uint64_t id;

	return file->fd > 0 && qy_os->file_id(file->fd, &id) == 0 && id == file->id;
}

void qy_memfd_close(struct qy_memfd *file)
{
	int error = errno;

	if (qy_memfd_is(file))
		qy_os->close(file->fd);
	file->fd = 0;
	errno = error;
}

/* (That nobody else may write is known since Linux 5.1. Before, those who may trace the process may.) */
static bool seal_shared(int fd)
{
	const int seals = QY_SEAL_SHRINK | QY_SEAL_GROW | QY_SEAL_SEAL;

	return qy_os->seal(fd, seals | QY_SEAL_FUTURE_WRITE) == 0 || (errno == EINVAL && qy_os->seal(fd, seals) == 0);
}

static void *map_shared(int fd, size_t len)
{
	void *p = MAP_FAILED;

	if (qy_os->set_size(fd, len) == 0 && (!qy_memfd_may_run_dry() || qy_os->allocate(fd, 0, len) == 0))
		p = qy_os->mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		return NULL;
	if (seal_shared(fd) && qy_os->madvise(p, len, QY_MADV_DONTFORK) == 0)
		return p;
	qy_os->munmap(p, len);
	return NULL;
}

void *qy_memfd_shared(const char *name, size_t len)
{
	int fd = create(name, 0), error;
	void *p;

	if (fd < 0)
		return NULL;
	p = map_shared(fd, len);
	error = errno;
	qy_os->close(fd);
	errno = error;
	return p;
}

bool qy_memfd_may_run_dry(void)
{
	char text[16];

	return qy_os->read_file("/proc/sys/vm/overcommit_memory", text, sizeof(text)) > 0 && text[0] == '2';
}

/* To look around in, which moves an offset: the parent, and whoever was handed the descriptor, share that of ours. -1
 * where it cannot be had. */
static int open_apart(const struct qy_memfd *file)
{
	int fd = qy_os->reopen(file->fd);
	uint64_t id;

	if (fd >= 0 && (qy_os->file_id(fd, &id) != 0 || id != file->id)) {
		qy_os->close(fd);
		return -1;
	}
	return fd;
}

static bool copy_written(int fd, char *to, size_t len)
{
	uint64_t begin, end = 0;

	while (end < len && qy_os->next_data(fd, end, &begin, &end) == 0) {
		if (begin >= len)
			return true;
		end = qy_min(end, len);
		if (qy_os->read_at(fd, to + begin, end - begin, begin) != 0)
			return false;
	}
	return end >= len || errno == ENXIO;
}

bool qy_memfd_copy(const struct qy_memfd *file, char *to, size_t len)
{
	int fd = open_apart(file), error;
	bool copied;

	/* (Holes are memory then, in the copy: room for it was looked for before.) */
	if (fd < 0)
		return qy_os->read_at(file->fd, to, len, 0) == 0;
	copied = copy_written(fd, to, len);
	error = errno;
	qy_os->close(fd);
	errno = error;
	return copied;
}
