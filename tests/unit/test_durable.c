/* SPDX-License-Identifier: MIT */
/* Durable heaps: versions, sessions of several processes, kernels that tell less, disks that fail and files that are not as they were. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
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

#define MIB ((size_t)1 << 20)
#define PAGES 64u

static char path[256];

static const char *place(void)
{
	const char *dir = getenv("TMPDIR");

	snprintf(path, sizeof(path), "%s/quarry-durable-XXXXXX", dir != NULL ? dir : "/tmp");
	close(mkstemp(path));
	unlink(path);
	return path;
}

static void leave(void)
{
	unlink(path);
}

TestSuite(durable, .fini = leave, .timeout = 120);

static quarry_mapped *new_heap(uint32_t versions)
{
	quarry_mapped_attr attr = { .struct_size = sizeof(attr), .mode = QUARRY_MAPPED_DURABLE, .max_bytes = 256 * MIB,
				    .versions = versions };
	quarry_mapped *h = quarry_mapped_create(place(), &attr);

	cr_assert(h != NULL, "%s", quarry_error_text());
	return h;
}

/* So many pages by the name "pages"; each one's first word says which value it has. */
static uint64_t *pages_of(quarry_mapped *h)
{
	uint64_t *p = quarry_mapped_at(h, quarry_mapped_root_get(h, "pages", NULL));

	if (p == NULL) {
		p = quarry_mapped_alloc_into(h, PAGES * QY_PAGE, (quarry_off *)quarry_mapped_user(h, NULL));
		cr_assert(p != NULL, "%s", quarry_error_text());
		cr_assert_eq(quarry_mapped_root_put(h, "pages", quarry_mapped_off(h, p), 0), 0);
	}
	return p;
}

static void set(quarry_mapped *h, unsigned page, uint64_t value)
{
	pages_of(h)[page * 512 + page % 512] = value;
}

static uint64_t get(quarry_mapped *h, unsigned page)
{
	return pages_of(h)[page * 512 + page % 512];
}

static quarry_mapped_checkpoint_info checkpoint(quarry_mapped *h)
{
	quarry_mapped_checkpoint_info info;

	cr_assert_eq(quarry_mapped_checkpoint(h, &info, sizeof(info)), 0, "%s", quarry_error_text());
	return info;
}

static quarry_mapped *opened(void)
{
	quarry_mapped *h = quarry_mapped_open(path);

	cr_assert(h != NULL, "%s", quarry_error_text());
	return h;
}

static void all_well(quarry_mapped *h)
{
	quarry_mapped_report report;

	cr_assert_eq(quarry_mapped_check(h, &report, sizeof(report)), 0, "%s", report.first);
}

Test(durable, what_no_checkpoint_has_is_gone_with_the_last)
{
	quarry_mapped *h = new_heap(0);

	set(h, 3, 33);
	checkpoint(h);
	set(h, 3, 44);
	set(h, 4, 55);
	cr_assert_eq(quarry_mapped_close(h), 0);
	h = opened();
	all_well(h);
	cr_assert_eq(get(h, 3), 33);
	cr_assert_eq(get(h, 4), 0);
	set(h, 4, 66); /* and it goes on from there */
	checkpoint(h);
	quarry_mapped_close(h);
	h = opened();
	cr_assert_eq(get(h, 4), 66);
	quarry_mapped_close(h);
}

Test(durable, what_changed_is_written_and_little_else)
{
	quarry_mapped *h = new_heap(0);
	quarry_mapped_checkpoint_info info;
	char *p = quarry_mapped_alloc(h, 64 * MIB);

	memset(p, 1, 64 * MIB);
	info = checkpoint(h);
	cr_assert_geq(info.pages, 64 * MIB / QY_PAGE);
	info = checkpoint(h);
	cr_assert_leq(info.pages, 2, "%llu", (unsigned long long)info.pages);
	for (size_t i = 0; i < 160; i++)
		p[i * 100 * QY_PAGE + 77] = 2;
	info = checkpoint(h);
	cr_assert(info.pages >= 160 && info.pages <= 164, "%llu", (unsigned long long)info.pages);
	cr_assert_leq(info.bytes * 10, info.pages * QY_PAGE * 21, "%llu", (unsigned long long)info.bytes);
	cr_assert_eq(info.compared, 0);
	quarry_mapped_close(h);
}

Test(durable, versions_are_kept_and_opened_by_number)
{
	quarry_mapped *h = new_heap(3), *old;
	quarry_mapped_version v[8];
	uint64_t number[8];
	struct stat is;
	off_t size = 0;

	for (unsigned i = 0; i < 8; i++) {
		set(h, 1, 100 + i);
		set(h, 2 + i, i);
		number[i] = checkpoint(h).version;
	}
	cr_assert_eq(quarry_mapped_versions(path, v, 8), 4);
	for (unsigned i = 0; i < 4; i++) {
		cr_assert_eq(v[i].number, number[7 - i]);
		cr_assert(v[i].made_ns > 0 && v[i].bytes > 2 * MIB);
		old = quarry_mapped_open_version(path, v[i].number);
		cr_assert(old != NULL, "%s", quarry_error_text());
		all_well(old);
		cr_assert_eq(get(old, 1), 107 - i);
		cr_assert_null(quarry_mapped_alloc(old, 1));
		cr_assert_eq(errno, EROFS);
		cr_assert_eq(quarry_mapped_checkpoint(old, NULL, 0), -1);
		cr_assert_eq(quarry_mapped_close(old), 0);
	}
	cr_assert_null(quarry_mapped_open_version(path, number[3]));
	cr_assert_eq(errno, ENOENT);
	cr_assert_null(quarry_mapped_open_version(path, 0));
	cr_assert_eq(errno, ENOENT);
	/* Slots of versions that are gone are used again. */
	for (unsigned i = 0; i < 40; i++) {
		set(h, 1, i);
		set(h, 2 + i % 8, i);
		checkpoint(h);
		cr_assert_eq(stat(path, &is), 0);
		if (i == 25)
			size = is.st_size;
	}
	cr_assert_eq(is.st_size, size);
	quarry_mapped_close(h);
	h = quarry_mapped_create(path, NULL);
	cr_assert_null(h);
	cr_assert_eq(errno, EEXIST);
	cr_assert_eq(quarry_mapped_delete(path), 0);
}

Test(durable, what_it_refuses)
{
	quarry_mapped_attr attr = { .struct_size = sizeof(attr), .mode = QUARRY_MAPPED_DURABLE };
	quarry_mapped_version v;
	quarry_mapped *h;

	cr_assert_null(quarry_mapped_create(NULL, &attr));
	cr_assert_eq(errno, EINVAL);
	attr.versions = 32;
	cr_assert_null(quarry_mapped_create(place(), &attr));
	cr_assert_eq(errno, EINVAL);
	attr = (quarry_mapped_attr){ .struct_size = sizeof(attr), .versions = 1 };
	cr_assert_null(quarry_mapped_create(place(), &attr));
	cr_assert_eq(errno, EINVAL);
	attr.versions = 0;
	h = quarry_mapped_create(place(), &attr); /* a direct one */
	cr_assert_eq(quarry_mapped_checkpoint(h, NULL, 0), -1);
	cr_assert_eq(errno, ENOTSUP);
	cr_assert_eq(quarry_mapped_enter(h), 0);
	quarry_mapped_leave(h);
	cr_assert_eq(quarry_mapped_versions(path, &v, 1), -1);
	cr_assert_eq(errno, ENOTSUP);
	cr_assert_null(quarry_mapped_open_version(path, 1));
	cr_assert_eq(errno, ENOTSUP);
	quarry_mapped_close(h);
}

/* ---- several processes ---- */

static int child(void (*fn)(quarry_mapped *h, unsigned n), unsigned n)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		quarry_mapped *h = opened();

		fn(h, n);
		_exit(0);
	}
	cr_assert(pid > 0 && waitpid(pid, &status, 0) == pid);
	return status;
}

static void sets_and_closes(quarry_mapped *h, unsigned n)
{
	set(h, n, 1000 + n);
	if (quarry_mapped_close(h) != 0)
		_exit(1);
}

static void sets_and_dies(quarry_mapped *h, unsigned n)
{
	set(h, n, 1000 + n);
	kill(getpid(), SIGKILL);
}

static void sets_and_saves(quarry_mapped *h, unsigned n)
{
	set(h, n, 1000 + n);
	if (quarry_mapped_checkpoint(h, NULL, 0) != 0)
		_exit(1);
	kill(getpid(), SIGKILL);
}

static quarry_mapped_checkpoint_info is_in_new_version(quarry_mapped *h, unsigned n)
{
	quarry_mapped_checkpoint_info info = checkpoint(h);
	quarry_mapped *old = quarry_mapped_open_version(path, info.version);

	cr_assert(old != NULL, "%s", quarry_error_text());
	cr_assert_eq(get(old, n), 1000 + n);
	all_well(old);
	quarry_mapped_close(old);
	return info;
}

Test(durable, pages_of_all_processes)
{
	quarry_mapped *h = new_heap(1);

	set(h, 0, 1);
	checkpoint(h);
	cr_assert_eq(child(sets_and_closes, 5), 0);
	cr_assert_eq(get(h, 5), 1005);
	cr_assert_eq(is_in_new_version(h, 5).compared, 0); /* it has said what it wrote */
	cr_assert(WIFSIGNALED(child(sets_and_dies, 6)));
	cr_assert_eq(is_in_new_version(h, 6).compared, 0); /* compared while nobody was held up */
	cr_assert(WIFSIGNALED(child(sets_and_saves, 7)));
	is_in_new_version(h, 7);
	quarry_mapped_close(h);
	/* The last one was another process. */
	cr_assert(WIFSIGNALED(child(sets_and_saves, 8)));
	h = opened();
	cr_assert_eq(get(h, 8), 1008);
	quarry_mapped_close(h);
}

static int line[2][2];

/* A peer that is asked while it lives, and a forked child that has the heap by itself. */
Test(durable, pages_of_those_who_stay)
{
	quarry_mapped *h = new_heap(1);
	quarry_mapped_checkpoint_info info;
	int status;
	char byte = 0;
	pid_t pid;

	set(h, 0, 1);
	checkpoint(h);
	cr_assert(pipe(line[0]) == 0 && pipe(line[1]) == 0);
	pid = fork();
	if (pid == 0) {
		for (unsigned i = 0; i < 3; i++) {
			set(h, 20 + i, 1020 + i);
			if (write(line[0][1], &byte, 1) != 1 || read(line[1][0], &byte, 1) != 1)
				_exit(1);
		}
		_exit(quarry_mapped_close(h));
	}
	for (unsigned i = 0; i < 3; i++) {
		cr_assert_eq(read(line[0][0], &byte, 1), 1);
		is_in_new_version(h, 20 + i);
		info = checkpoint(h);
		cr_assert_eq(info.compared, 0);
		cr_assert_leq(info.pages, 2);
		cr_assert_eq(write(line[1][1], &byte, 1), 1);
	}
	cr_assert(waitpid(pid, &status, 0) == pid && status == 0);
	quarry_mapped_close(h);
}

static void attaches(quarry_mapped *h, unsigned fd)
{
	quarry_mapped *own = quarry_mapped_attach((int)fd);

	if (own == NULL || own->base == h->base)
		_exit(1);
	set(own, 9, 1009);
	_exit(quarry_mapped_close(own) != 0 || get(h, 9) != 1009);
}

Test(durable, attached_by_the_descriptor_and_read)
{
	quarry_mapped *h = new_heap(0), *reader;

	set(h, 0, 1);
	cr_assert_eq(child(attaches, (unsigned)quarry_mapped_fd(h)), 0);
	is_in_new_version(h, 9);
	set(h, 10, 10); /* in no version: of the memory */
	reader = quarry_mapped_open_read(path);
	cr_assert(reader != NULL, "%s", quarry_error_text());
	cr_assert_eq(get(reader, 10), 10);
	quarry_mapped_close(reader);
	quarry_mapped_close(h);
	reader = quarry_mapped_open_read(path);
	cr_assert(reader != NULL, "%s", quarry_error_text());
	cr_assert_eq(get(reader, 9), 1009);
	cr_assert_eq(get(reader, 10), 0);
	h = opened(); /* beside one who only reads */
	quarry_mapped_close(h);
	quarry_mapped_close(reader);
}

/* ---- the gate ---- */

static pthread_barrier_t meet;

static void *stays(void *heap)
{
	cr_assert_eq(quarry_mapped_enter(heap), 0);
	cr_assert_eq(quarry_mapped_enter(heap), 0);
	quarry_mapped_leave(heap);
	set(heap, 1, 11);
	pthread_barrier_wait(&meet);
	pthread_barrier_wait(&meet);
	set(heap, 2, 11);
	quarry_mapped_leave(heap);
	return NULL;
}

Test(durable, sections)
{
	quarry_mapped *h = new_heap(0);
	pthread_t thread;

	set(h, 0, 1);
	pthread_barrier_init(&meet, NULL, 2);
	cr_assert_eq(quarry_mapped_enter(h), 0);
	cr_assert_eq(quarry_mapped_checkpoint(h, NULL, 0), -1);
	cr_assert_eq(errno, EDEADLK);
	quarry_mapped_leave(h);
	quarry_mapped_leave(h); /* once too often: nothing */
	pthread_create(&thread, NULL, stays, h);
	pthread_barrier_wait(&meet);
	cr_assert_eq(quarry_mapped_checkpoint(h, NULL, 0), -1);
	cr_assert_eq(errno, ETIMEDOUT);
	cr_assert_eq(quarry_mapped_enter(h), 0); /* it is open again */
	quarry_mapped_leave(h);
	pthread_barrier_wait(&meet);
	pthread_join(thread, NULL);
	checkpoint(h);
	quarry_mapped_close(h);
	h = opened();
	cr_assert(get(h, 1) == 11 && get(h, 2) == 11);
	quarry_mapped_close(h);
}

static void dies_inside(quarry_mapped *h, unsigned n)
{
	set(h, n, 1000 + n);
	(void)quarry_mapped_enter(h);
	kill(getpid(), SIGKILL);
}

/* As if whoever closed it had died: nobody has that session. */
Test(durable, a_gate_of_the_dead_is_opened)
{
	quarry_mapped *h = new_heap(0);
	struct heap *in = qy_heap(h);

	set(h, 0, 1);
	cr_assert(WIFSIGNALED(child(dies_inside, 3)));
	is_in_new_version(h, 3);
	in->durable->side->gate = 1u << 13 | (in->session + 7);
	cr_assert_eq(quarry_mapped_enter(h), 0);
	cr_assert_eq(in->durable->side->gate, 0);
	quarry_mapped_leave(h);
	quarry_mapped_close(h);
}

/* ---- kernels and disks ---- */

static void kernel(enum fake_call call, int error)
{
	quarry_mapped *h;
	quarry_mapped_checkpoint_info info;

	fake_os_install();
	fake_os_fail(call, error);
	h = new_heap(1);
	for (unsigned i = 1; i < 4; i++) {
		set(h, i, 1000 + i);
		info = checkpoint(h);
		cr_assert_eq(info.compared, 1);
		cr_assert_leq(info.pages, 40);
		is_in_new_version(h, i);
	}
	quarry_mapped_close(h);
	fake_os_remove();
	h = opened();
	all_well(h);
	for (unsigned i = 1; i < 4; i++)
		cr_assert_eq(get(h, i), 1000 + i);
	quarry_mapped_close(h);
}

Test(durable, a_kernel_that_does_not_note_writes)
{
	kernel(FAKE_TRACK_WRITES, ENOSYS);
}

Test(durable, page_tables_that_cannot_be_asked)
{
	kernel(FAKE_OPEN_PAGEMAP, EACCES);
	kernel(FAKE_WRITTEN, ENOTTY);
}

Test(durable, disks_that_fail)
{
	static const struct {
		enum fake_call call;
		int error;
	} how[] = { { FAKE_WRITE_AT, ENOSPC }, { FAKE_WRITE_AT, EIO }, { FAKE_SYNC_DATA, EIO } };
	quarry_mapped *h, *old;
	uint64_t before;

	fake_os_install();
	h = new_heap(1);
	set(h, 0, 1);
	before = checkpoint(h).version;
	for (unsigned i = 0; i < 3; i++) {
		set(h, 1 + i, 1001 + i);
		fake_os_fail(how[i].call, how[i].error);
		cr_assert_eq(quarry_mapped_checkpoint(h, NULL, 0), -1);
		cr_assert_eq(errno, how[i].error);
		fake_os_fail(how[i].call, 0);
		old = quarry_mapped_open_version(path, before);
		cr_assert(old != NULL && get(old, 1 + i) == 0, "%s", quarry_error_text());
		quarry_mapped_close(old);
		is_in_new_version(h, 1 + i);
		before = checkpoint(h).version;
	}
	fake_os_fail(FAKE_OPEN_OF, EACCES); /* its memory cannot be had: not two of them */
	cr_assert_null(quarry_mapped_open(path));
	cr_assert_eq(errno, EBUSY);
	quarry_mapped_close(h);
	fake_os_fail(FAKE_OPEN_OF, 0);
	fake_os_fail(FAKE_SYNC_DIRECTORY, EIO);
	unlink(path);
	cr_assert_null(quarry_mapped_create(path, &(quarry_mapped_attr){ .struct_size = sizeof(quarry_mapped_attr), .mode = QUARRY_MAPPED_DURABLE }));
	cr_assert_eq(errno, EIO);
	cr_assert_eq(access(path, F_OK), -1);
	fake_os_remove();
}

Test(durable, a_file_that_is_cut_short)
{
	quarry_mapped *h = new_heap(0);
	struct stat is;

	for (unsigned i = 0; i < PAGES; i++)
		set(h, i, i + 1);
	checkpoint(h);
	cr_assert_eq(stat(path, &is), 0);
	cr_assert_eq(truncate(path, is.st_size - 3 * (off_t)QY_PAGE), 0);
	cr_assert_eq(quarry_mapped_checkpoint(h, NULL, 0), -1);
	cr_assert_eq(errno, EUCLEAN);
	quarry_mapped_close(h);
	for (off_t size = is.st_size - (off_t)QY_PAGE; size >= 0; size -= size > 70 * 4096 ? 4096 : size > 8192 ? 100000 : 512) {
		cr_assert_eq(truncate(path, size), 0);
		h = quarry_mapped_open(path);
		cr_assert_null(h, "%ld bytes", (long)size);
		cr_assert(errno == EUCLEAN || errno == EMEDIUMTYPE, "%ld bytes: %d %s", (long)size, errno, quarry_error_text());
	}
}

/* Each byte that counts is of a page that has a checksum: a damaged file is told, or is what it was, or (its newest superblock) the version
 * before. */
Test(durable, a_file_that_is_damaged)
{
	quarry_mapped *h = new_heap(0);
	uint64_t seed = 20260118;
	unsigned told = 0, same = 0;
	struct stat is;
	int fd;

	for (unsigned round = 1; round < 3; round++) {
		for (unsigned i = 0; i < PAGES; i++)
			set(h, i, round * 100 + i);
		checkpoint(h);
	}
	quarry_mapped_close(h);
	cr_assert_eq(stat(path, &is), 0);
	fd = open(path, O_RDWR);
	for (unsigned n = 0; n < 600; n++) {
		unsigned char was, changed;
		off_t at;

		seed = seed * 6364136223846793005u + 1442695040888963407u;
		at = n % 3 == 0 ? (off_t)(seed >> 33) % 8192 : (off_t)(seed >> 33) % is.st_size;
		cr_assert_eq(pread(fd, &was, 1, at), 1);
		changed = (unsigned char)(was ^ 1u << (seed >> 29 & 7));
		cr_assert_eq(pwrite(fd, &changed, 1, at), 1);
		h = quarry_mapped_open_read(path);
		if (h == NULL) {
			told++;
			cr_assert(errno == EUCLEAN || errno == EMEDIUMTYPE || errno == ENOTSUP, "%d %s", errno, quarry_error_text());
		} else {
			uint64_t round = get(h, 0) / 100;

			same++;
			all_well(h);
			cr_assert(round == 1 || round == 2);
			for (unsigned i = 0; i < PAGES; i++)
				cr_assert_eq(get(h, i), round * 100 + i);
			quarry_mapped_close(h);
		}
		cr_assert_eq(pwrite(fd, &was, 1, at), 1);
	}
	close(fd);
	cr_assert(told > 100 && same > 100, "%u told, %u the same", told, same);
}

/* ---- memory that goes and comes ---- */

Test(durable, memory_that_was_given_back)
{
	quarry_mapped *h = new_heap(0);
	quarry_mapped_checkpoint_info info;
	unsigned char *p, last;
	struct stat is;
	quarry_off off;

	p = quarry_mapped_alloc(h, 40 * MIB);
	memset(p, 0xaa, 40 * MIB);
	checkpoint(h);
	cr_assert_eq(quarry_mapped_free(h, p), 0);
	cr_assert_gt(quarry_mapped_trim(h), 30 * MIB);
	info = checkpoint(h);
	cr_assert_lt(info.bytes, 4 * MIB, "%llu", (unsigned long long)info.bytes);
	cr_assert_eq(fstat(qy_heap(h)->fd, &is), 0);
	cr_assert_lt((size_t)is.st_blocks * 512, 20 * MIB, "looking at it had it again");
	quarry_mapped_close(h);
	h = opened();
	cr_assert_eq(fstat(qy_heap(h)->fd, &is), 0);
	cr_assert_lt((size_t)is.st_blocks * 512, 20 * MIB);
	p = quarry_mapped_alloc(h, 40 * MIB); /* (of any content, but the same for all) */
	off = quarry_mapped_off(h, p);
	p[0] = 1;
	p[33 * MIB] = 2;
	last = p[34 * MIB];
	quarry_mapped_root_put(h, "block", off, 0);
	checkpoint(h);
	quarry_mapped_close(h);
	h = opened();
	p = quarry_mapped_ptr(h, quarry_mapped_root_get(h, "block", NULL), 40 * MIB);
	cr_assert(p != NULL && p[0] == 1 && p[33 * MIB] == 2 && p[34 * MIB] == last);
	all_well(h);
	quarry_mapped_close(h);
}

/* What is reserved is noted where it is taken, in each version: opened, it goes back. */
Test(durable, sets_that_a_version_cut_off)
{
	quarry_mapped *h = new_heap(0);
	quarry_mapped_report report;
	quarry_mapped_set s;

	set(h, 0, 1);
	cr_assert_eq(quarry_mapped_begin(h, &s), 0);
	cr_assert_not_null(quarry_mapped_reserve(&s, 100));
	cr_assert_not_null(quarry_mapped_reserve(&s, 100000));
	checkpoint(h);
	quarry_mapped_close(h);
	h = opened();
	cr_assert_eq(quarry_mapped_check(h, &report, sizeof(report)), 0, "%s", report.first);
	cr_assert_eq(report.objects, 1);
	cr_assert_eq(report.reserved, 0);
	quarry_mapped_close(h);
}
