/* SPDX-License-Identifier: MIT */
/* The calls that write metrics: of this process, to a descriptor, into memory and into a file; and of a copy of what
 * another has published. No heap is used: the figures stand in a mapping while they are written. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "lib/api/error.h"
#include "lib/api/init.h"
#include "lib/view/gather.h"
#include "lib/view/metrics.h"
#include "lib/view/print.h"
#include "lib/view/whole.h"
#include "numa/os.h"

#define SOME_MORE 16 /* arenas that are made meanwhile */

static int check_flags(unsigned flags)
{
	if (flags & ~(unsigned)QY_METRICS_KNOWN)
		return qy_fail(EINVAL, "flags: 0x%x is not of enum quarry_metrics_flags, or-ed", flags);
	qy_init_once();
	return 0;
}

static int write_own(struct qy_text *out, unsigned flags)
{
	size_t room = flags & QUARRY_METRICS_ARENAS ? qy_gather_arenas() + SOME_MORE : 0;
	size_t size = qy_gather_size(room);
	void *picture = qy_os->mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int result;

	if (picture == MAP_FAILED)
		return qy_fail(ENOMEM, "no memory for the figures of %zu arenas", room);
	(void)qy_gather(picture, room, true);
	result = qy_metrics_write(out, picture, size, flags);
	qy_os->munmap(picture, size);
	return result;
}

QUARRY_API int quarry_metrics_print(int fd, unsigned flags)
{
	char buffer[QY_PRINT_BUFFER];
	struct qy_text out;

	if (fd < 0)
		return qy_fail(EBADF, "fd: %d is no descriptor", fd);
	qy_text_init(&out, buffer, sizeof(buffer), fd);
	if (check_flags(flags) != 0 || write_own(&out, flags) != 0)
		return -1;
	return qy_text_flush(&out) == 0 ? 0 : qy_fail(errno, "fd: not all could be written to %d", fd);
}

QUARRY_API long quarry_metrics_text(char *text, size_t size, unsigned flags)
{
	char none[1];
	struct qy_text out;

	if (text == NULL && size > 0)
		return qy_fail(EINVAL, "text: NULL, for %zu bytes", size);
	qy_text_init(&out, size > 0 ? text : none, qy_max(size, 1), -1);
	if (check_flags(flags) != 0 || write_own(&out, flags) != 0)
		return -1;
	return (long)out.total;
}

QUARRY_API int quarry_published_metrics(const void *copy, size_t size, int fd, unsigned flags)
{
	char buffer[QY_PRINT_BUFFER];
	struct qy_text out;

	if (fd < 0)
		return qy_fail(EBADF, "fd: %d is no descriptor", fd);
	qy_text_init(&out, buffer, sizeof(buffer), fd);
	if (check_flags(flags) != 0 || qy_metrics_write(&out, copy, size, flags) != 0)
		return -1;
	return qy_text_flush(&out) == 0 ? 0 : qy_fail(errno, "fd: not all could be written to %d", fd);
}

/* ---- into a file ---- */

static int write_metrics(int fd, const void *flags)
{
	return quarry_metrics_print(fd, *(const unsigned *)flags);
}

QUARRY_API int quarry_metrics_write(const char *path, unsigned flags)
{
	if (path == NULL || *path == '\0')
		return qy_fail(EINVAL, "path: there is none");
	if (check_flags(flags) != 0)
		return -1;
	if (qy_write_whole(path, write_metrics, &flags) == 0)
		return 0;
	return errno == ENAMETOOLONG ? qy_fail(ENAMETOOLONG, "path: too long") : qy_fail(errno, "path: %s could not be written", path);
}
