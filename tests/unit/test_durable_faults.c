/* SPDX-License-Identifier: MIT */
/* Durable heaps: superblocks that reach the disk or do not, processes that die at the gate and in closing, and forks beside an
 * opening. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "include/quarry/mapped.h"
#include "lib/mapped/durable.h"
#include "tests/fake_os.h"
#include "tests/unit/durable_pages.h"

#define MIB ((size_t)1 << 20)

static char path[256], image[272];

static const char *place(void)
{
	const char *dir = getenv("TMPDIR");

	snprintf(path, sizeof(path), "%s/quarry-durable-XXXXXX", dir != NULL ? dir : "/tmp");
	close(mkstemp(path));
	unlink(path);
	snprintf(image, sizeof(image), "%s-image", path);
	return path;
}

static void leave(void)
{
	unlink(path);
	unlink(image);
}

TestSuite(durable_faults, .fini = leave, .timeout = 60);

static quarry_mapped *new_heap_at(uint32_t versions)
{
	quarry_mapped_attr attr = { .struct_size = sizeof(attr), .mode = QUARRY_MAPPED_DURABLE, .max_bytes = 64 * MIB,
				    .sessions = 8, .lanes = 8, .roots = 8, .versions = versions };
	quarry_mapped *h = quarry_mapped_create(path, &attr);

	cr_assert(h != NULL, "%s", quarry_error_text());
	return h;
}

static quarry_mapped *new_heap(uint32_t versions)
{
	place();
	return new_heap_at(versions);
}

static quarry_mapped_checkpoint_info checkpoint(quarry_mapped *h)
{
	quarry_mapped_checkpoint_info info;

	cr_assert_eq(quarry_mapped_checkpoint(h, &info, sizeof(info)), 0, "%s", quarry_error_text());
	return info;
}

static quarry_mapped *opened(const char *which)
{
	quarry_mapped *h = quarry_mapped_open(which);

	cr_assert(h != NULL, "%s", quarry_error_text());
	return h;
}

/* A new version is what is in memory. */
static quarry_mapped_checkpoint_info is_in_new_version(quarry_mapped *h, unsigned i, uint64_t value)
{
	quarry_mapped_checkpoint_info info = checkpoint(h);
	quarry_mapped *old = quarry_mapped_open_version(path, info.version);

	cr_assert(old != NULL, "%s", quarry_error_text());
	cr_assert_eq(*word(old, i), value, "%llu", (unsigned long long)*word(old, i));
	quarry_mapped_close(old);
	return info;
}

/* ---- the disk ---- */

static struct qy_os table;
static char on_disk[2 * QY_PAGE]; /* superblocks */
static unsigned syncs, fail_at;   /* the fail_at-th from when that was set */
static bool reaches, power_goes;

static void read_file(int fd, void *to, size_t len, off_t at)
{
	cr_assert_eq(pread(fd, to, len, at), (ssize_t)len);
}

/* What the disk has when power goes: all of the file, as it may be, but superblocks only as they were synced. */
static void make_image(int fd)
{
	struct stat is;
	char *bytes;
	int to = open(image, O_RDWR | O_CREAT | O_TRUNC, 0600);

	cr_assert_eq(fstat(fd, &is), 0);
	bytes = mmap(NULL, (size_t)is.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	cr_assert(bytes != MAP_FAILED && to >= 0);
	memcpy(bytes, on_disk, sizeof(on_disk));
	cr_assert_eq(pwrite(to, bytes, (size_t)is.st_size, 0), is.st_size);
	munmap(bytes, (size_t)is.st_size);
	close(to);
}

static int sync_by_plan(int fd)
{
	bool fails = ++syncs == fail_at;

	if (power_goes) {
		make_image(fd);
		errno = EIO;
		return -1;
	}
	if (!fails || reaches)
		read_file(fd, on_disk, sizeof(on_disk), 0);
	errno = EIO;
	return fails ? -1 : 0;
}

/* The superblock of the first try reaches the disk, and that of the second one does not, in its place. */
static void two_superblocks(quarry_mapped *(*next)(quarry_mapped *h))
{
	quarry_mapped *h = new_heap(0), *by = h;

	table = qy_os_linux;
	table.sync_data = sync_by_plan;
	qy_os = &table;
	for (uint64_t value = 1; value <= 2; value++) {
		set_all(h, value);
		checkpoint(h);
	}
	for (unsigned try = 1; try <= 2; try++) {
		set_all(h, 2 + try);
		syncs = 0;
		fail_at = 2;
		reaches = try == 1;
		cr_assert_eq(quarry_mapped_checkpoint(by, NULL, 0), -1);
		cr_assert_eq(errno, EIO);
		by = next(h);
	}
	set_all(h, 5);
	power_goes = true;
	cr_assert_eq(quarry_mapped_checkpoint(by, NULL, 0), -1);
	qy_os = &qy_os_linux;
	if (by != h)
		quarry_mapped_close(by);
	quarry_mapped_close(h);
	h = opened(image);
	cr_assert(*word(h, 0) >= 2 && *word(h, 0) <= 4);
	all_are(h, *word(h, 0));
	quarry_mapped_close(h);
}

static quarry_mapped *itself(quarry_mapped *h)
{
	return h;
}

static quarry_mapped *another(quarry_mapped *h)
{
	static quarry_mapped *peer;

	(void)h;
	return peer != NULL ? peer : (peer = opened(path));
}

Test(durable_faults, superblocks_that_may_be_on_the_disk)
{
	two_superblocks(itself);
}

Test(durable_faults, superblocks_of_one_who_goes_on_for_another)
{
	two_superblocks(another);
}

/* ---- deaths ---- */

static int line[2][2];

static pid_t begin(void (*fn)(quarry_mapped *h))
{
	pid_t pid = fork();

	if (pid == 0) {
		fn(opened(path));
		_exit(0);
	}
	cr_assert_gt(pid, 0);
	return pid;
}

static void dies(void (*fn)(quarry_mapped *h))
{
	pid_t pid = begin(fn);
	int status;

	cr_assert(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void stays(quarry_mapped *h)
{
	char byte = 0;

	if (write(line[0][1], &byte, 1) != 1 || read(line[1][0], &byte, 1) != 1 || quarry_mapped_close(h) != 0)
		_exit(1);
}

/* A process that has the heap, for as long as it is not told to go. */
static pid_t stay(void)
{
	pid_t pid;
	char byte;

	cr_assert(pipe(line[0]) == 0 && pipe(line[1]) == 0);
	pid = begin(stays);
	cr_assert_eq(read(line[0][0], &byte, 1), 1);
	return pid;
}

static void go(pid_t pid)
{
	int status;

	cr_assert_eq(write(line[1][1], "", 1), 1);
	cr_assert(waitpid(pid, &status, 0) == pid && status == 0);
}

static void at_the_gate(quarry_mapped *h)
{
	(void)qy_gate_close(qy_heap(h));
	kill(getpid(), SIGKILL);
}

Test(durable_faults, a_gate_of_the_dead_whose_number_another_has)
{
	quarry_mapped *h = new_heap(0);
	pid_t pid;

	set_all(h, 1);
	dies(at_the_gate);
	pid = stay();
	cr_assert_eq(quarry_mapped_enter(h), 0);
	quarry_mapped_leave(h);
	cr_assert_eq(qy_heap(h)->durable->side->gate, 0);
	go(pid);
	quarry_mapped_close(h);
}

static quarry_mapped *waited_for;

static void breaks(const uint32_t *at, uint32_t value, uint64_t ns)
{
	qy_heap(waited_for)->live->broken = 1;
	qy_os_linux.wait_word(at, value, ns);
}

Test(durable_faults, a_heap_that_breaks_at_the_gate)
{
	quarry_mapped *h = waited_for = new_heap(0);

	set_all(h, 1);
	qy_heap(h)->durable->lanes[3].inside = 1;
	table = qy_os_linux;
	table.wait_word = breaks;
	qy_os = &table;
	cr_assert_eq(quarry_mapped_checkpoint(h, NULL, 0), -1);
	cr_assert_eq(errno, EROFS, "%d", errno);
	qy_os = &qy_os_linux;
	quarry_mapped_close(h);
}

static long killed_when_asked(int pagemap, uintptr_t *from, uintptr_t to, struct qy_page_range *ranges, size_t most)
{
	(void)pagemap, (void)from, (void)to, (void)ranges, (void)most;
	kill(getpid(), SIGKILL);
	return -1;
}

/* Where it says what it has written. */
static void in_closing(quarry_mapped *h)
{
	*word(h, 7) = 77;
	table = qy_os_linux;
	table.written = killed_when_asked;
	qy_os = &table;
	quarry_mapped_close(h);
}

Test(durable_faults, a_death_in_closing)
{
	quarry_mapped *h = new_heap(1);

	set_all(h, 1);
	checkpoint(h);
	dies(in_closing);
	is_in_new_version(h, 7, 77);
	cr_assert_eq(checkpoint(h).compared, 0, "all pages are compared for good");
	quarry_mapped_close(h);
}

static int later[2][2];

static pid_t begin_later(void (*fn)(quarry_mapped *h), int end)
{
	pid_t pid = fork();
	char byte;

	if (pid == 0) {
		if (read(end, &byte, 1) != 1)
			_exit(1);
		fn(opened(path));
		_exit(0);
	}
	cr_assert_gt(pid, 0);
	return pid;
}

/* (Both have nothing of this process's heap: what a forked child has by itself would be one of the dead as well, and they are told.) */
Test(durable_faults, a_death_in_closing_whose_number_another_has)
{
	quarry_mapped *h;
	pid_t first, second;
	int status;
	char byte;

	cr_assert(pipe(line[0]) == 0 && pipe(line[1]) == 0 && pipe(later[0]) == 0 && pipe(later[1]) == 0);
	place();
	first = begin_later(in_closing, later[0][0]);
	second = begin_later(stays, later[1][0]);
	h = new_heap_at(1);
	set_all(h, 1);
	checkpoint(h);
	cr_assert(write(later[0][1], "", 1) == 1 && waitpid(first, &status, 0) == first && WIFSIGNALED(status));
	cr_assert(write(later[1][1], "", 1) == 1 && read(line[0][0], &byte, 1) == 1);
	is_in_new_version(h, 7, 77);
	go(second);
	cr_assert_eq(checkpoint(h).compared, 0);
	quarry_mapped_close(h);
}

/* ---- what page tables do not tell ---- */

Test(durable_faults, what_was_written_otherwise)
{
	quarry_mapped *h = new_heap(1);
	uint64_t value = 55, *p;

	set_all(h, 1);
	checkpoint(h);
	p = word(h, 9);
	cr_assert_eq(pwrite(qy_heap(h)->out, &value, sizeof(value), (char *)p - (char *)h->base), (ssize_t)sizeof(value));
	cr_assert_eq(*p, 55);
	cr_assert_eq(quarry_mapped_wrote(h, p, sizeof(*p)), 0);
	is_in_new_version(h, 9, 55);
	cr_assert_eq(quarry_mapped_wrote(h, p, h->length), -1);
	cr_assert_eq(errno, EINVAL);
	cr_assert_eq(quarry_mapped_wrote(h, (char *)h->base - 1, 1), -1);
	cr_assert_eq(quarry_mapped_wrote(h, p, 0), 0);
	quarry_mapped_close(h);
}

/* ---- no memory ---- */

Test(durable_faults, no_memory_to_ask_by)
{
	enum { MOST = 100000 };
	static void *taken[MOST];
	quarry_mapped *h = new_heap(0);
	int fd = open("/dev/null", O_RDONLY), *like[64];
	unsigned n = 0;

	set_all(h, 1);
	fake_os_install();
	/* What a session's descriptor stands in is memory that had this one in it. */
	for (unsigned i = 0; i < 64; i++) {
		like[i] = quarry_malloc(8 * sizeof(int));
		for (unsigned k = 0; k < 8; k++)
			like[i][k] = fd;
	}
	fake_os_fail(FAKE_MMAP, ENOMEM);
	while (n < MOST && (taken[n] = quarry_malloc(1024 * sizeof(struct qy_page_range))) != NULL)
		n++;
	cr_assert_lt(n, MOST);
	for (unsigned i = 0; i < 64; i++)
		quarry_free(like[i]);
	{
		struct qy_asked asked = { 0 };

		cr_assert(!qy_asked_open(qy_heap(h), &asked));
		cr_assert_not_null(asked.pagemap);
		qy_asked_close(qy_heap(h), &asked);
	}
	cr_assert_neq(fcntl(fd, F_GETFD), -1, "it has closed a descriptor that is not its own");
	fake_os_fail(FAKE_MMAP, 0);
	while (n-- > 0)
		quarry_free(taken[n]);
	fake_os_remove();
	quarry_mapped_close(h);
}

/* ---- forks ---- */

static pid_t beside;
static bool forked;

/* A fork when the file's lock has just been had, as of another thread. It tells when what the library does in a child is
 * done: before, it has the descriptors of its parent. */
static int lock_and_fork(int fd, int kind, uint64_t at, uint64_t len, bool wait)
{
	int rc = qy_os_linux.range_lock(fd, kind, at, len, wait);

	if (at == QY_MAPPED_LOCK_OPEN && kind != QY_RANGE_NONE && !forked) {
		forked = true;
		beside = fork();
		if (beside == 0) {
			char byte;

			close(line[1][1]);
			_exit(write(line[0][1], "", 1) != 1 || read(line[1][0], &byte, 1) != 0);
		}
	}
	return rc;
}

static void killed_beside(bool make)
{
	int status;
	pid_t pid;
	char byte;
	quarry_mapped *h;

	cr_assert(pipe(line[0]) == 0 && pipe(line[1]) == 0);
	pid = fork();
	if (pid == 0) {
		quarry_mapped_attr attr = { .struct_size = sizeof(attr), .mode = QUARRY_MAPPED_DURABLE, .max_bytes = 64 * MIB };

		table = qy_os_linux;
		table.range_lock = lock_and_fork;
		qy_os = &table;
		h = make ? quarry_mapped_create(path, &attr) : quarry_mapped_open(path);
		if (h == NULL || !forked || write(line[0][1], "", 1) != 1)
			_exit(1);
		pause();
	}
	close(line[0][1]);
	cr_assert(read(line[0][0], &byte, 1) == 1 && read(line[0][0], &byte, 1) == 1);
	kill(pid, SIGKILL);
	cr_assert(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status));
	h = quarry_mapped_open(path); /* and the fork lives */
	cr_assert(h != NULL, "%s", quarry_error_text());
	quarry_mapped_close(h);
	close(line[1][1]); /* the fork ends */
}

Test(durable_faults, a_fork_beside_an_opening)
{
	quarry_mapped_close(new_heap(0));
	killed_beside(false);
}

Test(durable_faults, a_fork_beside_a_making)
{
	place();
	killed_beside(true);
}
