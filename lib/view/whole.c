/* SPDX-License-Identifier: MIT */
#include "lib/view/whole.h"

#include <errno.h>
#include <limits.h>
#include <sys/stat.h>

#include "lib/base/text.h"
#include "numa/os.h"

/* One that a thread of the same numbers left behind, which did not come to the end, is in the way. */
static int make_file(const char *path)
{
	int fd = qy_os->create_file(path);

	if (fd < 0 && errno == EEXIST && qy_os->remove_file(path) == 0)
		fd = qy_os->create_file(path);
	return fd;
}

/* 0 or an errno. */
static int fill(int fd, int (*write_it)(int fd, const void *ctx), const void *ctx)
{
	int error = write_it(fd, ctx) == 0 ? 0 : errno;

	if (qy_os->close(fd) != 0 && error == 0)
		error = errno;
	return error;
}

static int done(int error)
{
	if (error == 0)
		return 0;
	errno = error;
	return -1;
}

int qy_write_whole(const char *path, int (*write_it)(int fd, const void *ctx), const void *ctx)
{
	char beside[PATH_MAX];
	struct qy_text name;
	struct stat st;
	bool there = lstat(path, &st) == 0, plain = !there || S_ISREG(st.st_mode);
	int fd, error;

	qy_text_init(&name, beside, sizeof(beside), -1);
	qy_text_format(&name, "%s.%d-%d.tmp", path, qy_os->process_id(), qy_os->thread_id());
	if (name.total >= sizeof(beside))
		return done(ENAMETOOLONG);
	fd = plain ? make_file(beside) : -1;
	/* (Nothing is emptied for want of memory or room.) */
	if (!plain || (fd < 0 && there && (errno == EACCES || errno == EPERM || errno == EROFS))) {
		fd = qy_os->create(path);
		return fd < 0 ? -1 : done(fill(fd, write_it, ctx));
	}
	if (fd < 0)
		return -1;
	error = fill(fd, write_it, ctx);
	if (error == 0 && qy_os->rename_file(beside, path) != 0)
		error = errno;
	if (error != 0)
		(void)qy_os->remove_file(beside);
	return done(error);
}
