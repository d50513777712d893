/* SPDX-License-Identifier: MIT */
/* What the tests of memory with descriptors share that run on the machine's own kernel. To be included once, by a
 * test. */
#ifndef QUARRY_TESTS_MEMFD_H
#define QUARRY_TESTS_MEMFD_H

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "include/quarry/quarry.h"
#include "numa/os.h"
#include "tests/unit/fds.h"
#include "tests/unit/model.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

static __attribute__((constructor(101))) void settings(void)
{
	setenv("QUARRY_OPTIONS", "reclaim=off", 1);
}

static quarry_arena *arena;
static pid_t test_pid; /* the other processes are of the test's own making, and say by their status how it went */

static inline void must(bool well, const char *what)
{
	if (well)
		return;
	if (test_pid != 0 && getpid() != test_pid) {
		fprintf(stderr, "in a child: %s: %s\n", what, strerror(errno));
		_exit(99);
	}
	cr_assert(false, "%s: %s", what, strerror(errno));
}

static inline void begin(void)
{
	test_pid = getpid();
	alarm(60); /* a child that waits for its parent for ever is a failure, too */
}

static inline quarry_arena *make(uint32_t flags, int kind)
{
	quarry_arena_attr attr = { .flags = QUARRY_ARENA_FD | flags, .page_kind = kind, .name = "shared" };

	return quarry_arena_create(&attr);
}

static inline char *get(quarry_arena *of, size_t size)
{
	char *p = quarry_arena_malloc(of, size);

	must(p != NULL, "no memory");
	return p;
}

static inline quarry_stats stats_of(quarry_arena *of)
{
	quarry_stats stats = { .version = QUARRY_STATS_VERSION };

	must(quarry_stats_get(of, &stats) == 0, "no figures");
	return stats;
}

static inline int fd_of(const void *p, uint64_t *offset)
{
	int fd = quarry_fd_of(p, offset);

	must(fd >= 3, "no descriptor");
	return fd;
}

static inline uint64_t in_file(int fd)
{
	struct stat is;

	cr_assert_eq(fstat(fd, &is), 0);
	return (uint64_t)is.st_blocks * 512;
}

/* What the file has where the pointer says. */
static inline bool same_in_file(const char *p, size_t len)
{
	static char part[64 * KIB];
	uint64_t offset;
	int fd = quarry_fd_of(p, &offset);

	for (size_t at = 0; at < len; at += sizeof(part)) {
		size_t n = len - at < sizeof(part) ? len - at : sizeof(part);

		if (fd < 0 || pread(fd, part, n, (off_t)(offset + at)) != (ssize_t)n || memcmp(part, p + at, n) != 0)
			return false;
	}
	return true;
}

/* ---- another process ---- */

struct message {
	uint64_t offset, len;
};

static inline void send_fd(int to, int fd, struct message message)
{
	char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec data = { &message, sizeof(message) };
	struct msghdr header = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = control,
				 .msg_controllen = sizeof(control) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&header);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	cr_assert_eq(sendmsg(to, &header, 0), (ssize_t)sizeof(message));
}

static inline int receive_fd(int from, struct message *message)
{
	char control[CMSG_SPACE(sizeof(int))];
	struct iovec data = { message, sizeof(*message) };
	struct msghdr header = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = control,
				 .msg_controllen = sizeof(control) };
	int fd;

	if (recvmsg(from, &header, 0) != (ssize_t)sizeof(*message))
		return -1;
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&header)), sizeof(fd));
	return fd;
}

/* Knows nothing of the parent's memory but what it is sent. */
static inline int serve(int from)
{
	struct message message;
	int fd = receive_fd(from, &message);
	struct stat is;
	char *file, *at;

	if (fd < 0 || fstat(fd, &is) != 0)
		return 1;
	file = mmap(NULL, (size_t)is.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (file == MAP_FAILED || message.offset + message.len > (uint64_t)is.st_size)
		return 2;
	at = file + message.offset;
	for (uint64_t i = 0; i < message.len; i++)
		if (at[i] != (char)(i * 7))
			return 3;
	/* Nobody can take it away under the others' feet. */
	if (ftruncate(fd, 0) == 0 || errno != EPERM || ftruncate(fd, is.st_size * 2) == 0 || errno != EPERM)
		return 4;
	for (uint64_t i = 0; i < message.len; i++)
		at[i] = (char)(i * 3);
	return write(from, "x", 1) == 1 ? 0 : 5;
}

static inline void hand_over(quarry_arena *from, size_t len)
{
	struct message message = { .len = len };
	int ends[2], status;
	char byte, *p;
	pid_t child;

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	child = fork();
	cr_assert_geq(child, 0);
	if (child == 0) {
		close(ends[0]);
		_exit(serve(ends[1]));
	}
	close(ends[1]);
	get(from, 100);
	p = get(from, len);
	for (size_t i = 0; i < len; i++)
		p[i] = (char)(i * 7);
	send_fd(ends[0], fd_of(p, &message.offset), message);
	must(read(ends[0], &byte, 1) >= 0, "read");
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert_eq(status, 0, "%#x", (unsigned)status);
	for (size_t i = 0; i < len; i++)
		cr_assert_eq(p[i], (char)(i * 3), "%zu", i);
	close(ends[0]);
}

#endif
