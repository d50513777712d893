/* SPDX-License-Identifier: MIT */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tools/tools.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATH_SIZE 4096

bool read_text(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t used = 0;
	ssize_t n = 0;

	if (fd < 0)
		return false;
	while (used < size - 1 && (n = read(fd, text + used, size - 1 - used)) != 0) {
		if (n > 0)
			used += (size_t)n;
		else if (errno != EINTR)
			break;
	}
	close(fd);
	if (used > 0 && text[used - 1] == '\n')
		used--;
	text[used] = '\0';
	return n >= 0;
}

bool read_number(const char *path, uint64_t *number)
{
	char text[64], *end;

	if (!read_text(path, text, sizeof(text)))
		return false;
	errno = 0;
	*number = strtoull(text, &end, 10);
	return end != text && *end == '\0' && errno == 0;
}

bool read_choice(const char *path, char *choice, size_t size)
{
	char text[256], *open, *close;

	if (!read_text(path, text, sizeof(text)))
		return false;
	open = strchr(text, '[');
	close = open ? strchr(open, ']') : NULL;
	if (!close || (size_t)(close - open) > size)
		return false;
	*close = '\0';
	memcpy(choice, open + 1, (size_t)(close - open));
	return true;
}

const char *bytes_text(uint64_t bytes)
{
	static char texts[4][24];
	static unsigned next;
	static const char units[] = "BKMGTPE";
	char *text = texts[next++ % 4];
	double n = (double)bytes;
	int unit = 0;

	for (; n >= 1024 && unit < 6; unit++)
		n /= 1024;
	if (unit == 0)
		snprintf(text, sizeof(texts[0]), "%d B", (int)bytes);
	else
		snprintf(text, sizeof(texts[0]), "%.1f %ciB", n, units[unit]);
	return text;
}

/* Is word one of those that list has, with commas between? */
static bool in_list(const char *list, const char *word)
{
	size_t n = strlen(word);

	for (;; list++) {
		if (strncmp(list, word, n) == 0 && (list[n] == ',' || list[n] == '\0'))
			return true;
		list = strchr(list, ',');
		if (!list)
			return false;
	}
}

/* Where this process stands in a controller's hierarchy, from /proc/self/cgroup: "4:memory:/path", or "0::/path". */
static bool cgroup_path(const char *controller, char *path, size_t size)
{
	FILE *file = fopen("/proc/self/cgroup", "re");
	char line[PATH_SIZE];
	bool found = false;

	while (file && !found && fgets(line, sizeof(line), file)) {
		char *list = strchr(line, ':');
		char *where = list ? strchr(list + 1, ':') : NULL;
		if (!where)
			continue;
		*where++ = '\0';
		where[strcspn(where, "\n")] = '\0';
		found = controller ? in_list(list + 1, controller) : list[1] == '\0';
		if (found)
			snprintf(path, size, "%s", where);
	}
	if (file)
		fclose(file);
	return found;
}

/* Where the hierarchy is mounted: the first of its kind. */
static bool cgroup_mount(const char *controller, char *mount, size_t size)
{
	FILE *file = fopen("/proc/self/mounts", "re");
	char line[PATH_SIZE];
	bool found = false;

	while (file && !found && fgets(line, sizeof(line), file)) {
		char at[PATH_SIZE], type[64], options[1024];
		if (sscanf(line, "%*s %4095s %63s %1023s", at, type, options) != 3)
			continue;
		found = controller ? strcmp(type, "cgroup") == 0 && in_list(options, controller) :
				     strcmp(type, "cgroup2") == 0;
		if (found)
			snprintf(mount, size, "%s", at);
	}
	if (file)
		fclose(file);
	return found;
}

/* The limits from the process's cgroup up to the mount. In a container without a cgroup namespace the path is the
 * host's and not there: then only the mount itself is looked at. */
static bool walk_up(const char *controller, const char *file, uint64_t *limit, char *where, size_t size)
{
	char mount[PATH_SIZE], path[PATH_SIZE], name[3 * PATH_SIZE];
	bool found = false;

	if (!cgroup_mount(controller, mount, sizeof(mount)) || !cgroup_path(controller, path, sizeof(path)))
		return false;
	for (;;) {
		uint64_t n;
		char *slash = strrchr(path, '/');
		snprintf(name, sizeof(name), "%s%s/%s", mount, strcmp(path, "/") ? path : "", file);
		/* "max" is no number; version 1 writes the largest multiple of the page size for none. */
		if (read_number(name, &n) && n < UINT64_C(1) << 62 && (!found || n < *limit)) {
			*limit = n;
			snprintf(where, size, "%s", name);
			found = true;
		}
		if (!slash)
			return found;
		*slash = '\0';
	}
}

bool cgroup_limit(const char *controller, const char *v2, const char *v1, uint64_t *limit, char *where, size_t size)
{
	char other[PATH_SIZE];
	uint64_t n;
	bool found = walk_up(NULL, v2, limit, where, size);

	if (walk_up(controller, v1, &n, other, sizeof(other)) && (!found || n < *limit)) {
		*limit = n;
		snprintf(where, size, "%s", other);
		found = true;
	}
	return found;
}

#define WHOLE_MAX ((size_t)512 << 20) /* statistics of 65,000 arenas are some 150 MB; a view of 100 million objects 70 */

/* How much there is cannot be asked for: it may be a pipe. -1 with errno, EFBIG where it is more than makes sense. */
static int read_whole(int fd, char **text, size_t *length)
{
	size_t size = 0, used = 0;
	ssize_t n;

	*text = NULL;
	do {
		if (used + 1 >= size) {
			char *more = size < WHOLE_MAX ? realloc(*text, size ? 2 * size : 65536) : NULL;

			if (!more) {
				errno = size < WHOLE_MAX ? ENOMEM : EFBIG;
				return -1;
			}
			*text = more;
			size = size ? 2 * size : 65536;
		}
		n = read(fd, *text + used, size - used - 1);
		if (n > 0)
			used += (size_t)n;
	} while (n > 0 || (n < 0 && errno == EINTR));
	(*text)[used] = '\0';
	*length = used;
	return n < 0 ? -1 : 0;
}

static bool is_standard_input(const char *path)
{
	return strcmp(path, "-") == 0;
}

const char *input_name(const char *path)
{
	return is_standard_input(path) ? "standard input" : path;
}

int read_input(const char *command, const char *path, char **text, size_t *length)
{
	int fd = is_standard_input(path) ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC), error;

	*text = NULL;
	if (fd < 0)
		return fail(STATUS_FAILED, "%s: %s: %s", command, path, strerror(errno));
	error = read_whole(fd, text, length) == 0 ? 0 : errno;
	if (fd != STDIN_FILENO)
		close(fd);
	return error ? fail(STATUS_FAILED, "%s: %s: %s", command, input_name(path), strerror(error)) : STATUS_OK;
}

/* (Close is where a full disk may be told of.) */
static int close_written(int fd, int error)
{
	return close(fd) != 0 && !error ? errno : error;
}

static int write_as_it_is(const char *path, int (*write)(int fd, const void *ctx), const void *ctx)
{
	int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);

	return fd < 0 ? errno : close_written(fd, write(fd, ctx));
}

struct writing {
	enum write_for whom;
	int (*write)(int fd, const void *ctx);
	const void *ctx;
	bool made; /* the file beside is there */
};

/* With the rights that the other has, once all is written: until then nobody else reads it, who may not read what it is to be. */
static int write_beside(const char *beside, const struct stat *other, struct writing *w)
{
	int fd = open(beside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, other || w->whom == WRITE_AND_KEEP ? 0600 : 0666), error;

	w->made = fd >= 0;
	if (fd < 0)
		return errno;
	error = w->write(fd, w->ctx);
	if (!error && other)
		(void)fchmod(fd, other->st_mode & 0777);
	/* (EINVAL: a file system that has no disk to wait for.) */
	if (!error && w->whom == WRITE_AND_KEEP && fsync(fd) != 0 && errno != EINVAL)
		error = errno;
	return close_written(fd, error);
}

int write_at_once(const char *path, enum write_for whom, int (*write)(int fd, const void *ctx), const void *ctx)
{
	struct writing w = { whom, write, ctx, false };
	char real[PATH_MAX], beside[PATH_MAX + 32];
	struct stat is;
	bool there = stat(path, &is) == 0;
	int error = 0;

	if (there && !S_ISREG(is.st_mode))
		return write_as_it_is(path, write, ctx);
	/* (Of a link, what it leads to.) */
	if (!there || !realpath(path, real))
		snprintf(real, sizeof(real), "%s", path);
	snprintf(beside, sizeof(beside), "%s.%d.tmp", real, (int)getpid());
	error = write_beside(beside, there ? &is : NULL, &w);
	/* (Of one with our number that was killed.) */
	if (error == EEXIST && !w.made && unlink(beside) == 0)
		error = write_beside(beside, there ? &is : NULL, &w);
	/* (A file that may be written to, in a folder that may not. What it has would be gone before the first byte comes.) */
	if (error == EACCES && there && !w.made && whom != WRITE_AND_KEEP)
		return write_as_it_is(path, write, ctx);
	if (!error && rename(beside, real) != 0)
		error = errno;
	if (error && w.made)
		(void)unlink(beside);
	return error;
}
