/* SPDX-License-Identifier: MIT */
/* Durable heaps have one live image: forked children whose parent is gone, or that cannot have a session; processes that are about to end; and
 * versions of another image. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "include/quarry/mapped.h"
#include "lib/mapped/durable.h"
#include "numa/os.h"

#define MIB ((size_t)1 << 20)

static char path[256];
static struct qy_os table;
static int at[2], go[2]; /* another process has come to where it waits; it may go on */

static void leave(void)
{
	unlink(path);
}

TestSuite(durable_forks, .fini = leave, .timeout = 60);

static quarry_mapped *new_heap(uint32_t sessions)
{
	quarry_mapped_attr attr = { .struct_size = sizeof(attr), .mode = QUARRY_MAPPED_DURABLE, .max_bytes = 32 * MIB,
				    .sessions = sessions, .lanes = 4, .roots = 4, .versions = 2 };
	const char *dir = getenv("TMPDIR");
	quarry_mapped *h;

	snprintf(path, sizeof(path), "%s/quarry-durable-XXXXXX", dir != NULL ? dir : "/tmp");
	close(mkstemp(path));
	unlink(path);
	h = quarry_mapped_create(path, &attr);
	cr_assert(h != NULL, "%s", quarry_error_text());
	cr_assert(pipe(at) == 0 && pipe(go) == 0);
	return h;
}

static uint64_t *word(quarry_mapped *h)
{
	return quarry_mapped_user(h, NULL);
}

static quarry_mapped *opened(void)
{
	quarry_mapped *h = quarry_mapped_open(path);

	cr_assert(h != NULL, "%s", quarry_error_text());
	return h;
}

static void checkpoint(quarry_mapped *h)
{
	cr_assert_eq(quarry_mapped_checkpoint(h, NULL, 0), 0, "%s", quarry_error_text());
}

static void file_has(uint64_t value)
{
	quarry_mapped *h = opened();

	cr_assert_eq(*word(h), value, "%llu", (unsigned long long)*word(h));
	quarry_mapped_close(h);
}

static void come_and_wait(void)
{
	char byte = 0;

	alarm(50); /* (whoever it waits for may have failed) */
	if (write(at[1], &byte, 1) != 1 || read(go[0], &byte, 1) != 1)
		_exit(2);
}

static void comes(void)
{
	char byte;

	cr_assert_eq(read(at[0], &byte, 1), 1);
}

static void goes(void)
{
	cr_assert_eq(write(go[1], "", 1), 1);
}

static void ends(pid_t pid)
{
	int status;

	cr_assert(waitpid(pid, &status, 0) == pid && status == 0);
}

/* ---- a fork whose parent is gone ---- */

static pid_t parent;
static bool waited;

/* In the child, at the first lock that it takes: all of the parent's are gone. */
static int lock_when_told(int fd, int kind, uint64_t from, uint64_t len, bool wait)
{
	if (getpid() != parent && kind == QY_RANGE_WRITE && from == QY_MAPPED_LOCK_OPEN && !waited) {
		waited = true;
		come_and_wait();
	}
	return qy_os_linux.range_lock(fd, kind, from, len, wait);
}

static int sync_superblocks_not(int fd)
{
	static unsigned n;

	(void)fd;
	errno = EIO;
	return ++n % 2 == 0 ? -1 : 0;
}

/* (The one that is there is written once more, before.) */
static int write_new_superblock_not(int fd, const void *from, size_t len, uint64_t to)
{
	static unsigned n;

	errno = EIO;
	return to < QY_FINDERS_AT && ++n == 2 ? -1 : qy_os_linux.write_at(fd, from, len, to);
}

enum { FAILED = 1, PEER = 2, LOST = 4 }; /* a last checkpoint's superblock is in the file, or not */

struct told {
	int rc, error;
	uint64_t had;
};

static int line[2];

/* A process that opens the heap, writes 5, forks and ends; its child tells what it has, and what comes of a checkpoint of 9. */
static pid_t begin(unsigned how)
{
	pid_t pid = fork();
	struct told told;
	quarry_mapped *h;

	if (pid != 0)
		return pid;
	h = quarry_mapped_open(path);
	come_and_wait();
	if (h == NULL)
		_exit(1);
	*word(h) = 5;
	table = qy_os_linux;
	qy_os = &table;
	if ((how & FAILED) != 0)
		table.sync_data = sync_superblocks_not;
	if ((how & LOST) != 0)
		table.write_at = write_new_superblock_not;
	if ((how & (FAILED | LOST)) != 0 && quarry_mapped_checkpoint(h, NULL, 0) == 0)
		_exit(1);
	table.sync_data = qy_os_linux.sync_data;
	table.write_at = qy_os_linux.write_at;
	table.range_lock = lock_when_told;
	parent = getpid();
	pid = fork();
	if (pid != 0)
		_exit(pid < 0);
	told.had = *word(h);
	*word(h) = 9;
	errno = 0;
	told.rc = quarry_mapped_checkpoint(h, NULL, 0);
	told.error = errno;
	if (write(line[1], &told, sizeof(told)) != sizeof(told))
		_exit(1);
	quarry_mapped_close(h);
	_exit(0);
}

static struct told orphan(void (*between)(void), unsigned how)
{
	quarry_mapped *h = new_heap(4), *peer = NULL;
	struct told told;
	pid_t pid;
	char byte;

	*word(h) = 1;
	checkpoint(h);
	quarry_mapped_close(h);
	cr_assert_eq(pipe(line), 0);
	pid = begin(how);
	comes();
	if ((how & PEER) != 0)
		peer = opened();
	goes();
	ends(pid);
	comes();
	between();
	goes();
	close(line[1]);
	cr_assert_eq(read(line[0], &told, sizeof(told)), (ssize_t)sizeof(told));
	cr_assert_eq(read(line[0], &byte, 1), 0); /* it has ended */
	cr_assert_eq(told.had, 5);
	if (peer != NULL) {
		cr_assert_eq(*word(peer), 9);
		quarry_mapped_close(peer);
	}
	return told;
}

static quarry_mapped *others;

static void nothing(void)
{
}

static void looks(void)
{
	quarry_mapped_close(opened());
}

static void saves(void)
{
	quarry_mapped *h = opened();

	*word(h) = 7;
	checkpoint(h);
	quarry_mapped_close(h);
}

static void opens(void)
{
	others = opened();
	*word(others) = 7;
}

static void opens_and_saves(void)
{
	opens();
	checkpoint(others);
}

static void is_stale(void (*between)(void), unsigned how)
{
	struct told told = orphan(between, how);

	cr_assert(told.rc == -1 && told.error == ESTALE, "%d %d", told.rc, told.error);
	if (others != NULL) {
		checkpoint(others);
		quarry_mapped_close(others);
	}
	file_has(7);
}

static void goes_on(void (*between)(void), unsigned how)
{
	struct told told = orphan(between, how);

	cr_assert_eq(told.rc, 0, "%d", told.error);
	file_has(9);
}

Test(durable_forks, another_one_made_a_version)
{
	is_stale(saves, 0);
}

Test(durable_forks, another_one_has_it)
{
	is_stale(opens, 0);
}

Test(durable_forks, another_one_has_it_and_made_a_version)
{
	is_stale(opens_and_saves, 0);
}

/* (Its number is that of the one which was tried and is not there.) */
Test(durable_forks, another_one_made_a_version_after_one_that_failed)
{
	is_stale(saves, LOST);
}

Test(durable_forks, nobody_came)
{
	goes_on(nothing, 0);
}

Test(durable_forks, somebody_came_and_made_no_version)
{
	goes_on(looks, 0);
}

/* (In the file there is a version, for all that can be read; it is this image's.) */
Test(durable_forks, after_a_checkpoint_that_failed)
{
	goes_on(nothing, FAILED);
}

Test(durable_forks, after_a_checkpoint_that_left_nothing)
{
	goes_on(nothing, LOST);
}

Test(durable_forks, a_peer_has_it)
{
	goes_on(nothing, PEER);
}

/* ---- versions of another image ---- */

/* As it would be in the file, in the older one's place. */
static void put_foreign(void)
{
	struct qy_durable_sb sb[2];
	int fd = open(path, O_RDWR), newest;
	bool valid[2];

	newest = qy_durable_sb_read(fd, sb, valid);
	cr_assert_geq(newest, 0);
	sb[newest].sequence++;
	sb[newest].version[0].number++;
	sb[newest].version[0].made++;
	qy_durable_sb_seal(&sb[newest]);
	cr_assert_eq(qy_durable_sb_write(fd, &sb[newest], (uint32_t)newest ^ 1), 0);
	close(fd);
}

static void is_refused(quarry_mapped *h)
{
	char before[2 * QY_PAGE], after[2 * QY_PAGE];
	int fd = open(path, O_RDONLY);

	put_foreign();
	cr_assert_eq(pread(fd, before, sizeof(before), 0), (ssize_t)sizeof(before));
	for (unsigned i = 0; i < 2; i++) {
		cr_assert_eq(quarry_mapped_checkpoint(h, NULL, 0), -1);
		cr_assert_eq(errno, EUCLEAN);
	}
	cr_assert_eq(pread(fd, after, sizeof(after), 0), (ssize_t)sizeof(after));
	cr_assert_eq(memcmp(before, after, sizeof(after)), 0, "it was written over");
	close(fd);
	quarry_mapped_close(h);
}

Test(durable_forks, a_version_that_is_not_of_this_memory)
{
	quarry_mapped *h = new_heap(4);

	checkpoint(h);
	is_refused(h); /* known to be on the disk */
	is_refused(opened()); /* not known */
	h = opened();
	qy_os = &table;
	table = qy_os_linux;
	table.sync_data = sync_superblocks_not;
	cr_assert_eq(quarry_mapped_checkpoint(h, NULL, 0), -1); /* once for the one that is there, then for the new one */
	cr_assert_eq(errno, EIO);
	qy_os = &qy_os_linux;
	is_refused(h);
}

/* Nor is the one that this image came from gone. */
Test(durable_forks, a_version_that_is_gone)
{
	quarry_mapped *h = new_heap(4);
	struct qy_durable_sb sb[2];
	int fd = open(path, O_RDWR), newest;
	bool valid[2];
	char byte = 'x';

	checkpoint(h);
	quarry_mapped_close(h);
	h = opened();
	newest = qy_durable_sb_read(fd, sb, valid);
	cr_assert(newest >= 0 && valid[0] && valid[1]);
	cr_assert_eq(pwrite(fd, &byte, 1, newest * (off_t)QY_PAGE + 2000), 1);
	cr_assert_eq(quarry_mapped_checkpoint(h, NULL, 0), -1);
	cr_assert_eq(errno, EUCLEAN);
	close(fd);
	quarry_mapped_close(h);
}

/* ---- who cannot have a session ---- */

static int no_note(int fd, const void *from, size_t len, uint64_t to)
{
	errno = EIO;
	return getpid() != parent && to >= QY_FINDERS_AT && to < QY_SLOT_FIRST * QY_PAGE ? -1 : qy_os_linux.write_at(fd, from, len, to);
}

static int to_nobody(void *ctx, const void *bytes, size_t n)
{
	(void)ctx, (void)bytes, (void)n;
	return 0;
}

/* All but the superblocks, and the live page. */
static void version_is_memory(quarry_mapped *h)
{
	quarry_mapped_checkpoint_info info;
	quarry_mapped *old;

	cr_assert_eq(quarry_mapped_checkpoint(h, &info, sizeof(info)), 0, "%s", quarry_error_text());
	old = quarry_mapped_open_version(path, info.version);
	cr_assert(old != NULL, "%s", quarry_error_text());
	for (uint64_t page = QY_LIVE_PAGE + 1; page < qy_heap(h)->live->end >> QY_PAGE_SHIFT; page++)
		cr_assert_eq(memcmp(h->base + page * QY_PAGE, old->base + page * QY_PAGE, QY_PAGE), 0, "page %llu", (unsigned long long)page);
	quarry_mapped_close(old);
}

Test(durable_forks, a_child_that_cannot_begin)
{
	quarry_mapped *h = new_heap(2), *second;
	pid_t pid;

	*word(h) = 1;
	checkpoint(h);
	table = qy_os_linux;
	table.write_at = no_note;
	qy_os = &table;
	parent = getpid();
	pid = fork();
	if (pid == 0) {
		bool good = quarry_mapped_checkpoint(h, NULL, 0) == -1 && errno == ESTALE;

		good = good && quarry_mapped_dump(h, to_nobody, NULL) == -1 && errno == ESTALE;
		come_and_wait();
		_exit(!good || quarry_mapped_close(h) != 0);
	}
	comes();
	version_is_memory(h); /* with what it wrote before it failed */
	second = opened();    /* in the session that it could not have */
	quarry_mapped_close(second);
	goes();
	ends(pid);
	version_is_memory(h);
	quarry_mapped_close(h);
}

/* ---- who is about to end ---- */

static int held = -1;
static unsigned pauses;

static int lock_session(unsigned i)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)(QY_MAPPED_LOCK_SESSION + i), .l_len = 1 };
	int fd = open(path, O_RDWR);

	cr_assert_eq(fcntl(fd, F_OFD_SETLK, &lock), 0);
	return fd;
}

static void let_go(const uint32_t *at_word, uint32_t value, uint64_t ns)
{
	(void)at_word, (void)value, (void)ns;
	if (++pauses == 3)
		close(held);
}

/* Its memory's descriptions are gone, and the file's is not. */
Test(durable_forks, beside_one_who_is_dying)
{
	quarry_mapped *h = new_heap(3), *second, *third;

	held = lock_session(1);
	second = opened();
	cr_assert_eq(qy_heap(second)->session, 2);
	cr_assert_null(quarry_mapped_open(path));
	cr_assert_eq(errno, EAGAIN);
	version_is_memory(h);
	table = qy_os_linux;
	table.wait_word = let_go;
	qy_os = &table;
	third = opened();
	cr_assert_eq(qy_heap(third)->session, 1);
	qy_os = &qy_os_linux;
	*word(third) = 3;
	version_is_memory(h);
	quarry_mapped_close(third);
	quarry_mapped_close(second);
	quarry_mapped_close(h);
}

/* In the child, at the first thing that the library closes there. */
static int close_when_told(int fd)
{
	if (getpid() != parent && !waited) {
		waited = true;
		come_and_wait();
		waited = false; /* and once more, at a lock */
		table.close = qy_os_linux.close;
	}
	return qy_os_linux.close(fd);
}

static void tell_fork(const uint32_t *at_word, uint32_t value, uint64_t ns)
{
	(void)at_word, (void)value, (void)ns;
	if (pauses++ == 0) {
		goes();
		comes();
	}
}

/* It has its parent's descriptors, and the parent is dead: nobody has the memory, and nobody will. */
Test(durable_forks, beside_a_fork_that_has_not_begun)
{
	quarry_mapped *h = new_heap(3);
	pid_t pid;

	*word(h) = 1;
	checkpoint(h);
	quarry_mapped_close(h);
	pid = fork();
	if (pid == 0) {
		h = opened();
		table = qy_os_linux;
		table.close = close_when_told;
		table.range_lock = lock_when_told;
		qy_os = &table;
		parent = getpid();
		pid = fork();
		if (pid != 0)
			_exit(pid < 0);
		come_and_wait();
		_exit(quarry_mapped_close(h) != 0);
	}
	ends(pid);
	comes();
	table = qy_os_linux;
	table.wait_word = tell_fork;
	qy_os = &table;
	h = opened();
	qy_os = &qy_os_linux;
	cr_assert_geq(pauses, 1);
	*word(h) = 2;
	goes();
	checkpoint(h);
	quarry_mapped_close(h);
	comes();
	goes();
	file_has(2);
}

/* ---- a fork beside another thread's opening, or closing ---- */

/* Mappings and descriptors of the heap's file, or memory. */
static unsigned traces(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	char text[512], link[64];
	unsigned n = 0;

	while (maps != NULL && fgets(text, sizeof(text), maps) != NULL)
		n += strstr(text, "quarry heap") != NULL || strstr(text, path) != NULL;
	if (maps != NULL)
		fclose(maps);
	for (int fd = 0; fd < 256; fd++) {
		ssize_t length;

		snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
		length = readlink(link, text, sizeof(text) - 1);
		text[length < 0 ? 0 : length] = 0;
		n += strstr(text, "quarry heap") != NULL || strstr(text, path) != NULL;
	}
	return n;
}

static pid_t beside;

static void fork_here(void)
{
	beside = fork();
	if (beside == 0)
		_exit(traces() != 0);
}

static int lock_and_fork(int fd, int kind, uint64_t from, uint64_t len, bool wait)
{
	if (from == QY_MAPPED_LOCK_SESSION && kind == QY_RANGE_WRITE && beside == 0)
		fork_here();
	return qy_os_linux.range_lock(fd, kind, from, len, wait);
}

static int locked_and_fork(int fd, uint64_t from, uint64_t len)
{
	if (from == QY_MAPPED_LOCK_SESSION && beside == 0)
		fork_here();
	return qy_os_linux.range_locked(fd, from, len);
}

static void leaves_nothing(void)
{
	quarry_mapped *h;

	table = qy_os_linux;
	qy_os = &table;
	beside = 0;
	table.range_lock = lock_and_fork;
	h = opened();
	cr_assert_gt(beside, 0);
	ends(beside);
	beside = 0;
	table.range_locked = locked_and_fork;
	quarry_mapped_close(h);
	cr_assert_gt(beside, 0);
	ends(beside);
	qy_os = &qy_os_linux;
}

Test(durable_forks, what_was_under_way_leaves_nothing)
{
	quarry_mapped_attr attr = { .struct_size = sizeof(attr), .max_bytes = 32 * MIB, .sessions = 4, .lanes = 4, .roots = 4 };
	quarry_mapped *h = new_heap(4);

	cr_assert_geq(traces(), 2);
	quarry_mapped_close(h);
	cr_assert_eq(traces(), 0);
	leaves_nothing();
	unlink(path);
	h = quarry_mapped_create(path, &attr);
	cr_assert_not_null(h);
	quarry_mapped_close(h);
	leaves_nothing();
}
