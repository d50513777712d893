/* SPDX-License-Identifier: MIT */
/* Memory with descriptors, of the kernel that the test runs on: written by pointer and read by descriptor, in other
 * processes, given back, forked. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <dirent.h>
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
#include "tests/unit/model.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define POOL "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"

static __attribute__((constructor(101))) void settings(void)
{
	setenv("QUARRY_OPTIONS", "reclaim=off", 1);
}

static quarry_arena *arena;
static pid_t test_pid; /* the other processes are of the test's own making, and say by their status how it went */

static void must(bool well, const char *what)
{
	if (well)
		return;
	if (test_pid != 0 && getpid() != test_pid) {
		fprintf(stderr, "in a child: %s: %s\n", what, strerror(errno));
		_exit(99);
	}
	cr_assert(false, "%s: %s", what, strerror(errno));
}

static void begin(void)
{
	test_pid = getpid();
	alarm(60); /* a child that waits for its parent for ever is a failure, too */
}

static quarry_arena *make(uint32_t flags, int kind)
{
	quarry_arena_attr attr = { .flags = QUARRY_ARENA_FD | flags, .page_kind = kind, .name = "shared" };

	return quarry_arena_create(&attr);
}

static char *get(quarry_arena *of, size_t size)
{
	char *p = quarry_arena_malloc(of, size);

	must(p != NULL, "no memory");
	return p;
}

static quarry_stats stats_of(quarry_arena *of)
{
	quarry_stats stats = { .version = QUARRY_STATS_VERSION };

	must(quarry_stats_get(of, &stats) == 0, "no figures");
	return stats;
}

static int fd_of(const void *p, uint64_t *offset)
{
	int fd = quarry_fd_of(p, offset);

	must(fd >= 3, "no descriptor");
	return fd;
}

static uint64_t in_file(int fd)
{
	struct stat is;

	cr_assert_eq(fstat(fd, &is), 0);
	return (uint64_t)is.st_blocks * 512;
}

static int count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int n = 0;

	cr_assert_not_null(dir);
	while (readdir(dir) != NULL)
		n++;
	closedir(dir);
	return n;
}

/* What the file has where the pointer says. */
static bool same_in_file(const char *p, size_t len)
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

static void send_fd(int to, int fd, struct message message)
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

static int receive_fd(int from, struct message *message)
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
static int serve(int from)
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

static void hand_over(quarry_arena *from, size_t len)
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

Test(real, written_by_pointer_and_read_by_descriptor_elsewhere, .init = begin)
{
	static const size_t sizes[] = { 24, 5000, 100 * KIB, 3 * MIB, 70 * MIB };

	model_start("memfd");
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		arena = make(0, QUARRY_PAGES_BASE);
		cr_assert_not_null(arena, "%s", quarry_error_text());
		hand_over(arena, sizes[i]);
		cr_assert_eq(quarry_arena_destroy(arena), 0);
	}
}

/* ---- the descriptor ---- */

Test(real, what_a_descriptor_is, .init = begin)
{
	quarry_arena *plain = quarry_arena_create(NULL);
	uint64_t offset, other;
	int local, fd, before = count_fds(), foreign;
	char *p, *q, *in_plain;

	arena = make(0, QUARRY_PAGES_AUTO);
	cr_assert_not_null(arena);
	p = get(arena, 3 * MIB);
	fd = fd_of(p, &offset);
	cr_assert_eq(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	cr_assert_eq(fcntl(fd, F_GET_SEALS) & (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL | F_SEAL_WRITE),
		     F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
	/* Anywhere in it. */
	cr_assert_eq(fd_of(p + 2 * MIB + 5, &other), fd);
	cr_assert_eq(other, offset + 2 * MIB + 5);
	cr_assert_eq(quarry_fd_of(p, NULL), fd);
	cr_assert_geq(stats_of(arena).in_files, 3 * MIB);
	cr_assert_eq(stats_of(arena).in_files, stats_of(arena).mapped);
	errno = 0;
	cr_assert(quarry_fd_of(&local, &other) == -1 && errno == EINVAL);
	errno = 0;
	cr_assert(quarry_fd_of(NULL, &other) == -1 && errno == EINVAL);
	in_plain = get(plain, 100);
	errno = 0;
	cr_assert(quarry_fd_of(in_plain, &other) == -1 && errno == ENOTSUP);
	cr_assert_eq(stats_of(plain).in_files, 0);
	/* The program closes it, and another file gets its number: that one is not ours to tell of, nor to close. */
	q = get(arena, 100 * MIB);
	memset(q, 5, 100 * MIB);
	fd = fd_of(q, &offset);
	foreign = open("/dev/null", O_RDONLY);
	cr_assert_eq(dup2(foreign, fd), fd);
	errno = 0;
	cr_assert(quarry_fd_of(q, &offset) == -1 && errno == EBADF);
	memset(q, 6, 100 * MIB);
	cr_assert_eq(quarry_arena_destroy(arena), 0);
	cr_assert_geq(fcntl(fd, F_GETFD), 0, "somebody else's descriptor was closed");
	close(fd);
	close(foreign);
	cr_assert_eq(count_fds(), before, "descriptors were left behind");
}

/* What is printed must not go into the heap. */
Test(real, never_one_of_the_first_three, .init = begin)
{
	uint64_t offset;
	int status;
	pid_t child = fork();

	if (child == 0) {
		close(0);
		close(1);
		close(2);
		arena = make(0, QUARRY_PAGES_BASE);
		_exit(arena == NULL ? 99 : quarry_fd_of(get(arena, 100), &offset));
	}
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) >= 3 && WEXITSTATUS(status) < 99, "%#x", (unsigned)status);
}

Test(real, no_descriptors_left, .init = begin)
{
	struct rlimit limit, before;
	int used;

	arena = make(0, QUARRY_PAGES_BASE);
	get(arena, 100);
	cr_assert_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
	used = dup(0);
	close(used);
	limit = before;
	limit.rlim_cur = (rlim_t)used;
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	errno = 0;
	cr_assert_null(make(0, QUARRY_PAGES_BASE));
	cr_assert_eq(errno, EMFILE);
	errno = 0;
	cr_assert_null(quarry_arena_malloc(arena, 500 * MIB));
	cr_assert_eq(errno, ENOMEM);
	cr_assert_geq(stats_of(NULL).refused[QUARRY_REFUSED_FD], 2);
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
	memset(get(arena, 50 * MIB), 1, 50 * MIB);
}

Test(real, no_larger_files, .init = begin)
{
	struct rlimit limit, before;

	arena = make(0, QUARRY_PAGES_BASE);
	cr_assert_eq(getrlimit(RLIMIT_FSIZE, &before), 0);
	limit = before;
	limit.rlim_cur = MIB;
	cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	errno = 0;
	cr_assert_null(make(0, QUARRY_PAGES_BASE));
	cr_assert_eq(errno, EFBIG);
	cr_assert_null(quarry_arena_malloc(arena, 50 * MIB));
	cr_assert_eq(setrlimit(RLIMIT_FSIZE, &before), 0);
	get(arena, 50 * MIB);
}

/* ---- giving back ---- */

Test(real, free_memory_leaves_the_file, .init = begin)
{
	char *p, *wall;
	uint64_t offset, with;
	int fd;

	arena = make(0, QUARRY_PAGES_BASE);
	p = get(arena, 24 * MIB);
	fd = fd_of(p, &offset);
	memset(p, 1, 24 * MIB);
	/* In place, so that what stays is in the same file. */
	wall = quarry_realloc(p, 4 * MIB);
	cr_assert_eq(wall, p);
	with = in_file(fd);
	cr_assert_geq(with, 24 * MIB);
	cr_assert_geq(quarry_purge(arena), 20 * MIB);
	cr_assert_leq(in_file(fd), with - 20 * MIB);
	cr_assert_geq(in_file(fd), 4 * MIB);
	for (size_t i = 0; i < 4 * MIB; i++)
		cr_assert_eq(wall[i], 1);
	/* And reads as zero when it is there again. */
	p = quarry_realloc(wall, 24 * MIB);
	cr_assert_eq(p, wall);
	for (size_t i = 4 * MIB; i < 24 * MIB; i++)
		cr_assert_eq(p[i], 0, "%zu", i);
	quarry_free(p);
	p = quarry_arena_calloc(arena, 1, 10 * MIB);
	for (size_t i = 0; i < 10 * MIB; i++)
		cr_assert_eq(p[i], 0, "%zu", i);
}

#define OBJECTS 40000

static char *objects[OBJECTS];
static uint64_t most;

static void *leave_few(void *unused)
{
	(void)unused;
	for (int i = 0; i < OBJECTS; i++) {
		objects[i] = get(arena, 512);
		memset(objects[i], i, 512);
	}
	most = stats_of(arena).resident;
	for (int i = 0; i < OBJECTS; i++)
		if (i % 100 != 0)
			quarry_free(objects[i]);
	return NULL;
}

/* Pages between small objects that live, too. */
Test(real, free_pages_inside_slabs_leave_the_file, .init = begin)
{
	pthread_t thread;

	arena = make(0, QUARRY_PAGES_BASE);
	cr_assert_eq(pthread_create(&thread, NULL, leave_few, NULL), 0);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert_geq(most, OBJECTS * (size_t)512);
	quarry_purge(NULL);
	cr_assert_leq(stats_of(arena).resident, most / 4);
	for (int i = 0; i < OBJECTS; i += 100) {
		for (size_t k = 0; k < 512; k++)
			cr_assert_eq(objects[i][k], (char)i);
		cr_assert(same_in_file(objects[i], 512));
	}
	for (int i = 0; i < OBJECTS; i++)
		if (i % 100 != 0) {
			objects[i] = quarry_arena_calloc(arena, 1, 512);
			for (size_t k = 0; k < 512; k++)
				cr_assert_eq(objects[i][k], 0);
		}
}

/* ---- used as any memory ---- */

#define SLOTS 300

Test(real, random_use_is_seen_by_descriptor, .init = begin)
{
	static struct {
		char *p;
		size_t size;
		unsigned char fill;
	} slot[SLOTS];

	arena = make(0, QUARRY_PAGES_AUTO);
	model_start("memfd");
	for (int step = 0; step < 6000; step++) {
		size_t i = model_random() % SLOTS, keep, size = model_random() % ((size_t)1 << (model_random() % 23 + 1)) + 1;
		char *p;

		for (size_t k = 0; k < slot[i].size; k += 512)
			cr_assert_eq((unsigned char)slot[i].p[k], slot[i].fill, "step %d", step);
		if (slot[i].p != NULL && model_random() % 64 == 0)
			cr_assert(same_in_file(slot[i].p, slot[i].size), "step %d", step);
		if (slot[i].p != NULL && model_random() % 3 == 0) {
			quarry_free(slot[i].p);
			slot[i].p = NULL;
			slot[i].size = 0;
			continue;
		}
		p = quarry_arena_realloc(arena, slot[i].p, size);
		cr_assert_not_null(p);
		keep = slot[i].size < size ? slot[i].size : size;
		for (size_t k = 0; k < keep; k += 512)
			cr_assert_eq((unsigned char)p[k], slot[i].fill, "step %d", step);
		slot[i].p = p;
		slot[i].size = size;
		slot[i].fill = (unsigned char)model_random();
		memset(p, slot[i].fill, size);
		if (step % 500 == 499)
			quarry_purge(arena);
	}
}

/* Growing by page tables would leave the file elsewhere. */
Test(real, a_block_that_grows_is_where_it_says, .init = begin)
{
	char *p;

	arena = make(0, QUARRY_PAGES_BASE);
	p = get(arena, 10 * MIB);
	for (size_t size = 10 * MIB; size < 300 * MIB; size *= 2) {
		memset(p, (int)(size >> 20), size);
		get(arena, 5 * MIB);
		p = quarry_realloc(p, size * 2);
		cr_assert_not_null(p);
		for (size_t i = 0; i < size; i += KIB)
			cr_assert_eq(p[i], (char)(size >> 20));
		cr_assert(same_in_file(p, size));
	}
}

Test(real, where_and_move, .init = begin)
{
	quarry_page_info info[4];
	quarry_residency there;
	char *p;

	arena = make(0, QUARRY_PAGES_BASE);
	p = get(arena, 4 * MIB);
	memset(p, 1, 4 * MIB);
	cr_assert_geq(quarry_where(p, 4 * 4096, info, 4), 4);
	if (info[0].node == QUARRY_NODE_UNKNOWN)
		cr_skip_test("the kernel does not say where pages are");
	cr_assert_geq(info[3].node, 0);
	cr_assert_eq(info[3].page_kind, QUARRY_PAGES_BASE);
	cr_assert_eq(quarry_arena_where(arena, &there, 1), 1);
	cr_assert_geq(there.bytes, 4 * MIB);
	cr_assert_eq(quarry_arena_move(arena, NULL, NULL), 0, "errno %d", errno);
	cr_assert(same_in_file(p, 4 * MIB));
	cr_assert_eq(quarry_arena_reset(arena), 0);
	p = get(arena, 4 * MIB);
	fd_of(p, NULL);
}

/* ---- fork ---- */

#define BIG (12 * MIB)
#define SMALL 3000

static char *big, *small[SMALL];

static void fill(int with)
{
	memset(big, with, BIG);
	for (int i = 0; i < SMALL; i++)
		memset(small[i], with + i, 64);
}

static int filled(int with)
{
	int bad = 0;

	for (size_t i = 0; i < BIG; i += 64)
		bad += big[i] != (char)with;
	for (int i = 0; i < SMALL; i++)
		for (size_t k = 0; k < 64; k++)
			bad += small[i][k] != (char)(with + i);
	return bad;
}

static void make_for_fork(int kind, uint32_t flags)
{
	arena = make(flags, kind);
	cr_assert_not_null(arena, "%s", quarry_error_text());
	big = get(arena, BIG);
	for (int i = 0; i < SMALL; i++)
		small[i] = get(arena, 64);
	fill(1);
}

/* What a child, or its parent, can do with it from now on. */
static int use_on(int with, bool of_file)
{
	int bad = 0;
	char *p;

	fill(with);
	for (int i = 0; i < SMALL; i += 2)
		quarry_free(small[i]);
	for (int i = 0; i < SMALL; i += 2)
		if ((small[i] = quarry_arena_malloc(arena, 64)) == NULL)
			return 1000;
	p = quarry_arena_malloc(arena, 40 * MIB);
	if (p == NULL)
		return 1001;
	memset(p, with, 40 * MIB);
	bad += quarry_fd_of(p, NULL) < 3 || !same_in_file(p, 40 * MIB);
	bad += (quarry_fd_of(big, NULL) >= 3) != of_file;
	quarry_free(p);
	fill(with);
	quarry_purge(arena);
	return bad + filled(with);
}

static int wait_for(pid_t child)
{
	int status;

	must(waitpid(child, &status, 0) == child, "no child");
	return status;
}

/* Both write, in both orders, and none sees the other. */
static void fork_and_write(bool of_file)
{
	int to_child[2], to_parent[2];
	char byte = 0;
	pid_t child;

	cr_assert(pipe(to_child) == 0 && pipe(to_parent) == 0);
	child = fork();
	cr_assert_geq(child, 0);
	if (child == 0) {
		int bad = 0;

		/* The parent has written by now. */
		bad += read(to_child[0], &byte, 1) != 1;
		bad += filled(1) != 0;
		bad += use_on(2, false) != 0;
		bad += write(to_parent[1], &byte, 1) != 1;
		bad += read(to_child[0], &byte, 1) != 1;
		bad += filled(2) != 0;
		_exit(bad);
	}
	fill(3);
	cr_assert_eq(write(to_child[1], &byte, 1), 1);
	cr_assert_eq(read(to_parent[0], &byte, 1), 1);
	cr_assert_eq(filled(3), 0);
	cr_assert_eq(use_on(4, of_file), 0);
	cr_assert_eq(write(to_child[1], &byte, 1), 1);
	cr_assert_eq(wait_for(child), 0);
	cr_assert_eq(filled(4), 0);
}

Test(fork, a_child_has_a_copy, .init = begin)
{
	make_for_fork(QUARRY_PAGES_BASE, 0);
	fork_and_write(true);
	cr_assert_eq(stats_of(NULL).refused[QUARRY_REFUSED_FORK], 0);
	cr_assert_eq(stats_of(arena).in_files, stats_of(arena).mapped);
	quarry_arena_destroy(arena);
	make_for_fork(QUARRY_PAGES_AUTO, QUARRY_ARENA_POPULATE);
	fork_and_write(true);
}

/* A child's child, and what was never written stays unwritten in both. */
Test(fork, a_childs_child, .init = begin)
{
	pid_t child;
	char *sparse;
	uint64_t offset, before;
	int fd;

	make_for_fork(QUARRY_PAGES_BASE, 0);
	sparse = get(arena, 400 * MIB);
	sparse[200 * MIB] = 7;
	fd = fd_of(sparse, &offset);
	before = in_file(fd);
	child = fork();
	if (child == 0) {
		int bad = filled(1) + (sparse[200 * MIB] != 7) + (sparse[100 * MIB] != 0);
		pid_t inner;

		bad += stats_of(arena).resident > 60 * MIB;
		bad += stats_of(arena).in_files != 0;
		fill(5);
		inner = fork();
		if (inner == 0)
			_exit(filled(5) + use_on(6, false) != 0);
		bad += wait_for(inner) != 0;
		_exit(bad + filled(5) != 0);
	}
	cr_assert_eq(wait_for(child), 0);
	cr_assert_eq(filled(1), 0);
	cr_assert_leq(in_file(fd), before + MIB);
}

static int touch_and_see(const char *p)
{
	pid_t child;
	int status = 0;

	child = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0); /* no handler of fork's hears of it */
	if (child == 0)
		_exit(*(const volatile char *)p);
	waitpid(child, &status, 0);
	return status;
}

static bool was_killed_by(int status, int sig)
{
	return WIFSIGNALED(status) && WTERMSIG(status) == sig;
}

/* However it is forked. */
Test(fork, none_that_the_kernel_was_not_asked_for, .init = begin)
{
	make_for_fork(QUARRY_PAGES_BASE, 0);
	cr_assert(was_killed_by(touch_and_see(big), SIGSEGV));
	cr_assert(was_killed_by(touch_and_see(small[0]), SIGSEGV));
}

/* In a child without a copy: nothing is there, and it begins anew. */
static int empty_and_anew(void)
{
	quarry_stats stats = stats_of(arena);
	int bad = 0;

	bad += stats.mapped != 0 || stats.in_files != 0 || stats.in_use != 0;
	bad += !was_killed_by(touch_and_see(big), SIGSEGV);
	quarry_free(big);
	quarry_free(small[1]);
	big = quarry_arena_malloc(arena, BIG);
	for (int i = 0; i < SMALL; i++)
		small[i] = quarry_arena_malloc(arena, 64);
	bad += big == NULL || small[SMALL - 1] == NULL;
	fill(7);
	bad += use_on(8, true);
	bad += quarry_arena_destroy(arena) != 0;
	return bad != 0;
}

Test(fork, more_than_may_be_copied, .init = begin)
{
	quarry_arena *plain = quarry_arena_create(NULL);
	char *other = get(plain, 5 * MIB);
	pid_t child;

	memset(other, 9, 5 * MIB);
	make_for_fork(QUARRY_PAGES_BASE, 0);
	cr_assert_eq(quarry_ctl_set("fork_copy", "1m"), 0);
	child = fork();
	if (child == 0)
		_exit(empty_and_anew() || other[4 * MIB] != 9);
	cr_assert_eq(wait_for(child), 0);
	cr_assert_eq(stats_of(NULL).refused[QUARRY_REFUSED_FORK], 1);
	cr_assert_eq(filled(1), 0);
	cr_assert_eq(use_on(2, true), 0);
}

Test(fork, of_the_threads_default_arena, .init = begin)
{
	quarry_arena *was;
	pid_t child;

	make_for_fork(QUARRY_PAGES_BASE, 0);
	cr_assert_eq(quarry_thread_set_arena(arena, &was), 0);
	cr_assert_eq(quarry_arena_of(quarry_malloc(40)), arena);
	child = fork();
	if (child == 0) {
		char *p = quarry_malloc(40);
		int bad = quarry_arena_of(p) != arena || filled(1) != 0;

		quarry_free(p);
		_exit(bad);
	}
	cr_assert_eq(wait_for(child), 0);
	cr_assert_eq(quarry_ctl_set("fork_copy", "0"), 0);
	child = fork();
	if (child == 0) {
		int bad = 0;

		for (int i = 0; i < 1000; i++) {
			char *p = quarry_malloc((size_t)i * 50 + 1);

			bad += p == NULL || quarry_arena_of(p) != arena;
			memset(p, i, (size_t)i * 50 + 1);
			if (i % 2)
				quarry_free(p);
		}
		bad += quarry_thread_set_arena(was, NULL) != 0;
		bad += quarry_arena_of(quarry_malloc(40)) == arena;
		bad += quarry_arena_destroy(arena) != 0;
		_exit(bad != 0);
	}
	cr_assert_eq(wait_for(child), 0);
	cr_assert_eq(quarry_arena_of(quarry_malloc(40)), arena);
}

static _Atomic(bool) over, started;

static void *allocate_on(void *unused)
{
	(void)unused;
	for (unsigned i = 0; !over; i++) {
		char *p = quarry_arena_malloc(arena, i % 5000 + 1), *q = quarry_arena_malloc(arena, 200 * KIB);

		memset(p, (int)i, i % 5000 + 1);
		quarry_free(q);
		quarry_free(p);
		started = true;
	}
	return NULL;
}

/* Other threads write on while a copy would be made: there is none. */
Test(fork, with_other_threads, .init = begin)
{
	pthread_t thread;

	make_for_fork(QUARRY_PAGES_BASE, 0);
	cr_assert_eq(pthread_create(&thread, NULL, allocate_on, NULL), 0);
	while (!started)
		sched_yield();
	for (int round = 0; round < 10; round++) {
		pid_t child = fork();

		cr_assert_geq(child, 0);
		if (child == 0)
			_exit(empty_and_anew());
		cr_assert_eq(wait_for(child), 0, "round %d", round);
		cr_assert_eq(filled(1), 0);
	}
	over = true;
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert_eq(use_on(2, true), 0);
	/* It has ended: alone again, with what it left behind. */
	fill(1);
	fork_and_write(true);
}

/* The reclaimer's thread is none of the program's, and waits too. */
Test(fork, with_the_reclaimers_thread, .init = begin)
{
	cr_assert_eq(quarry_ctl_set("reclaim", "parallel"), 0);
	cr_assert_eq(quarry_ctl_set("decay_ms", "5"), 0);
	make_for_fork(QUARRY_PAGES_BASE, 0);
	for (int round = 0; round < 5; round++) {
		for (int i = 0; i < 200; i++)
			quarry_free(memset(get(arena, 300 * KIB), 1, 300 * KIB));
		fill(1);
		fork_and_write(true);
	}
	cr_assert_eq(stats_of(NULL).reclaimer, 1);
}

/* ---- huge pages ---- */

static long read_pool(void)
{
	char text[32];

	return qy_os->read_file(POOL, text, sizeof(text)) > 0 ? atol(text) : -1;
}

static bool write_pool(long pages)
{
	FILE *file = fopen(POOL, "we");
	bool written = file != NULL && fprintf(file, "%ld", pages) > 0;

	return file != NULL && fclose(file) == 0 && written;
}

/* More pages in the pool, as long as this process lives: another one takes them out again, however it ends. */
static bool with_pool(long pages)
{
	long before = read_pool();
	int ends[2];
	char byte;

	if (before < 0 || pipe(ends) != 0 || !write_pool(before + pages))
		return false;
	if (fork() == 0) {
		alarm(0);
		close(ends[1]);
		while (read(ends[0], &byte, 1) > 0)
			;
		write_pool(before);
		_exit(0);
	}
	close(ends[0]);
	return read_pool() == before + pages;
}

Test(huge, from_a_pool, .init = begin)
{
	uint64_t offset;
	char *p, *q;
	int fd;

	if (!with_pool(40))
		cr_skip_test("no pool of 2 MiB pages, no right to fill it, or none to be had");
	arena = make(0, QUARRY_PAGES_2M);
	cr_assert_not_null(arena, "%s", quarry_error_text());
	hand_over(arena, 3 * MIB);
	p = get(arena, 6 * MIB);
	memset(p, 1, 6 * MIB);
	cr_assert_eq(stats_of(arena).kind_got[QUARRY_PAGES_2M], stats_of(arena).mapped);
	fd = fd_of(p, &offset);
	cr_assert_eq(fcntl(fd, F_GET_SEALS) & F_SEAL_SHRINK, F_SEAL_SHRINK);
	cr_assert(same_in_file(p, 6 * MIB));
	/* The pool runs dry: the next rung, with a descriptor too. */
	q = get(arena, 200 * MIB);
	memset(q, 2, 200 * MIB);
	cr_assert_gt(stats_of(arena).kind_got[QUARRY_PAGES_BASE], 0);
	cr_assert(same_in_file(q, 200 * MIB));
	cr_assert_gt(stats_of(NULL).refused[QUARRY_REFUSED_HUGE_2M], 0);
	quarry_free(q);
	quarry_free(p);
	cr_assert_eq(quarry_arena_destroy(arena), 0);
	/* Parent and child write, with nothing left in the pool. */
	make_for_fork(QUARRY_PAGES_2M, 0);
	cr_assert_gt(stats_of(arena).kind_got[QUARRY_PAGES_2M], 0);
	while (stats_of(arena).kind_got[QUARRY_PAGES_BASE] == 0)
		memset(get(arena, 2 * MIB), 1, 2 * MIB);
	fork_and_write(true);
	cr_assert_eq(quarry_arena_destroy(arena), 0);
	/* All went back. */
	arena = make(QUARRY_ARENA_STRICT, QUARRY_PAGES_2M);
	cr_assert_not_null(arena, "%s", quarry_error_text());
	p = get(arena, 30 * MIB);
	memset(p, 1, 30 * MIB);
	errno = 0;
	cr_assert_null(quarry_arena_malloc(arena, 200 * MIB));
	cr_assert_eq(errno, ENOMEM);
	quarry_free(p);
	quarry_purge(arena);
	cr_assert_leq(stats_of(arena).mapped, 2 * MIB);
	cr_assert_eq(quarry_arena_destroy(arena), 0);
}

/* Strictly, they are made and looked at, whatever shmem_enabled says of faults. */
Test(huge, transparent_ones_strictly, .init = begin)
{
	quarry_page_info info;
	char *p;

	arena = make(QUARRY_ARENA_STRICT, QUARRY_PAGES_THP);
	if (arena == NULL)
		cr_skip_test("the kernel makes no huge pages in files (MADV_COLLAPSE, Linux 6.1)");
	p = get(arena, 6 * MIB);
	memset(p, 3, 6 * MIB);
	cr_assert_eq(stats_of(arena).kind_got[QUARRY_PAGES_THP], stats_of(arena).mapped);
	cr_assert_eq(quarry_where(p, 1, &info, 1), 1);
	cr_assert(info.page_kind == QUARRY_PAGES_THP || info.page_kind == QUARRY_PAGES_AUTO);
	cr_assert(same_in_file(p, 6 * MIB));
}
