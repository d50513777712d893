/* SPDX-License-Identifier: MIT */
/* Cold memory: each promise of include/quarry/lanes.h on what nobody looks at, alone, where each get brings an object back. (Copies
 * of what stays cold are test_lanes_glance.c's.) With readers, writers, moves and forks
 * at once it is tests/stress/lanes_order.c. The file's device is one that fails when the test says so. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/lanes/group.h"
#include "lib/lanes/lanes.h"
#include "tests/fake_os.h"

#define COUNT 20000
#define DIRECTORY "/tmp"

static quarry_handle handle[COUNT];

static quarry_lanes *make(const quarry_cold_attr *as)
{
	quarry_cold_attr cold = *as;
	quarry_lanes_attr attr = { .flags = QUARRY_LANES_NO_MOVER, .cold = &cold };
	quarry_lanes *l;

	cold.flags |= QUARRY_COLD_NO_COPIES;
	l = quarry_lanes_create(&attr);
	cr_assert(l != NULL, "errno %d: %s", errno, quarry_error_text());
	return l;
}

static size_t size_of(unsigned i)
{
	return i % 1000 == 999 ? 200000 : i % 100 == 99 ? 5000 + i % 7 * 1000 : 16 + i % 60 * 16;
}

/* Text that becomes smaller, another for each. */
static void fill(char *p, size_t size, unsigned i)
{
	for (size_t at = 0; at < size; at++)
		p[at] = (char)('a' + (at / 8 + i) % 16);
	memcpy(p, &i, sizeof(i));
}

static bool is_right(quarry_lanes *l, unsigned i)
{
	static _Thread_local char should[200000];
	const char *p;
	bool right;

	quarry_enter();
	p = quarry_get(l, handle[i]);
	fill(should, size_of(i), i);
	right = p != NULL && memcmp(p, should, size_of(i)) == 0;
	quarry_leave();
	return right;
}

static void verify(quarry_lanes *l, unsigned i)
{
	errno = 0;
	cr_assert(is_right(l, i), "object %u of %zu bytes: errno %d", i, size_of(i), errno);
}

static void make_objects(quarry_lanes *l, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		char *p;

		handle[i] = quarry_halloc_typed(l, size_of(i), i % 50 == 0 ? 256 : 0, i % 256);
		cr_assert(handle[i] != 0);
		quarry_enter();
		p = quarry_get_mut(l, handle[i]);
		fill(p, size_of(i), i);
		quarry_leave();
	}
}

static quarry_cold_stats figures(quarry_lanes *l)
{
	quarry_cold_stats s = { 0 };

	cr_assert(quarry_cold_stats_get(l, &s) == 0);
	return s;
}

/* Records of a kind: what they have in common is their names, and what differs looks random. */
static void fill_record(char *p, unsigned i)
{
	uint64_t x = (i + 1) * 0x9e3779b97f4a7c15u;

	memset(p, 0, 256);
	(void)snprintf(p, 256, "{\"customer\":{\"identifier\":%llu,\"surname\":\"%llx\"},\"balance\":{\"amount\":%llu,\"currency\":\"EUR\"},"
			       "\"address\":{\"street\":\"%llx\",\"postcode\":%llu},\"active\":%s}",
		       (unsigned long long)(x >> 20), (unsigned long long)(x * x), (unsigned long long)(x >> 40),
		       (unsigned long long)(x * 77), (unsigned long long)(x >> 47), i % 3 ? "true" : "false");
}

static bool record_is_right(quarry_lanes *l, unsigned i)
{
	char should[256];
	const char *p;
	bool right;

	fill_record(should, i);
	quarry_enter();
	p = quarry_get(l, handle[i]);
	right = p != NULL && memcmp(p, should, 256) == 0;
	quarry_leave();
	return right;
}

static void make_records(quarry_lanes *l, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		handle[i] = quarry_halloc(l, 256);
		quarry_enter();
		fill_record(quarry_get_mut(l, handle[i]), i);
		quarry_leave();
	}
}

/* But for what is so little that an extent would take more. */
static void all_evicted(quarry_lanes *l, unsigned count)
{
	int64_t gone = quarry_evict(l, handle, count);

	cr_assert(gone + 64 >= (int64_t)count, "%lld of %u, errno %d: %s", (long long)gone, count, errno, quarry_error_text());
}

/* ---- there and back ---- */

static void there_and_back(const char *codec)
{
	quarry_cold_attr cold = { .codec = codec };
	quarry_lanes *l = make(&cold);
	quarry_lanes_stats all = { 0 };
	const void *p;

	make_objects(l, COUNT);
	all_evicted(l, COUNT);
	cr_assert(figures(l).objects + 64 >= COUNT && figures(l).compressed > 0 && figures(l).bytes > COUNT * 64);
	if (strcmp(codec, "none") != 0)
		cr_assert(figures(l).compressed < figures(l).bytes / 2, "%llu of %llu", (unsigned long long)figures(l).compressed,
			  (unsigned long long)figures(l).bytes);
	cr_assert(quarry_compact(l, QUARRY_COMPACT_FULL, 0, 0) >= 0);
	cr_assert(quarry_lanes_stats_get(l, &all) == 0 && all.segments == 0 && all.objects == 0);
	for (unsigned i = 0; i < COUNT; i++) {
		cr_assert(quarry_handle_state(l, handle[i]) == QUARRY_HANDLE_COLD && quarry_handle_valid(l, handle[i]));
		cr_assert(quarry_hsize(l, handle[i]) >= size_of(i));
		cr_assert(quarry_try_get(l, handle[i], &p) == -1 && errno == EAGAIN);
		verify(l, i);
		cr_assert(quarry_handle_state(l, handle[i]) == QUARRY_HANDLE_VALID);
		if (i % 50 == 0) {
			quarry_enter();
			cr_assert((uintptr_t)quarry_get(l, handle[i]) % 256 == 0);
			quarry_leave();
		}
	}
	cr_assert(figures(l).objects == 0 && figures(l).compressed == 0 && figures(l).loaded == COUNT);
	cr_assert(quarry_lanes_destroy(l) == 0);
}

Test(lanes_cold, objects_go_and_come_back_by_lz4, .timeout = 120)
{
	there_and_back("lz4");
}

Test(lanes_cold, objects_go_and_come_back_by_zstd, .timeout = 120)
{
	there_and_back("zstd");
}

Test(lanes_cold, objects_go_and_come_back_as_they_are, .timeout = 120)
{
	there_and_back("none");
}

/* All ways to have an object bring it back; those that only ask do not. */
Test(lanes_cold, every_way_to_get_it)
{
	quarry_cold_attr cold = { 0 };
	quarry_lanes *l = make(&cold);
	char *p;

	make_objects(l, 4000);
	(void)quarry_evict(l, handle, 4000);
	for (unsigned i = 0; i < 100; i++)
		cr_assert(quarry_handle_state(l, handle[i]) == QUARRY_HANDLE_COLD);
	quarry_enter();
	p = quarry_get_mut(l, handle[0]);
	cr_assert(p != NULL);
	p[4] = '!';
	p = (char *)(uintptr_t)quarry_get_range(l, handle[1], 8, 8);
	cr_assert(p != NULL && p[0] == 'a' + 2);
	cr_assert(quarry_get_range(l, handle[2], 8, 100000) == NULL && errno == ERANGE);
	cr_assert(quarry_handle_state(l, handle[2]) == QUARRY_HANDLE_COLD);
	quarry_leave();
	p = quarry_pin(l, handle[3]);
	cr_assert(p != NULL && quarry_evict(l, &handle[3], 1) == 0, "what is pinned stays");
	cr_assert(quarry_unpin(l, handle[3]) == 0 && quarry_unpin(l, handle[4]) == -1 && errno == EINVAL);
	cr_assert(quarry_prefetch(l, &handle[4], 96) == 96 && quarry_prefetch(l, handle, 100) == 1);
	(void)quarry_evict(l, handle, 4000);
	cr_assert(quarry_handle_state(l, handle[0]) == QUARRY_HANDLE_COLD);
	quarry_enter();
	p = (char *)(uintptr_t)quarry_get(l, handle[0]);
	cr_assert(p != NULL && p[4] == '!');
	quarry_leave();
	cr_assert(quarry_lanes_destroy(l) == 0);
}

Test(lanes_cold, a_cold_object_is_freed_where_it_is)
{
	quarry_cold_attr cold = { 0 };
	quarry_lanes *l = make(&cold);

	make_objects(l, 2000);
	all_evicted(l, 2000);
	for (unsigned i = 0; i < 2000; i++) {
		quarry_handle other = handle[i] ^ (quarry_handle)1 << 48; /* of another type */

		cr_assert(!quarry_handle_valid(l, other) && quarry_hfree(l, other) == -1 && errno == EINVAL);
		cr_assert(quarry_hfree(l, handle[i]) == 0 && quarry_hfree(l, handle[i]) == -1 && errno == ESTALE);
		cr_assert(quarry_handle_state(l, handle[i]) == QUARRY_HANDLE_FREED);
		quarry_enter();
		cr_assert(quarry_get(l, handle[i]) == NULL && errno == ESTALE);
		quarry_leave();
	}
	cr_assert(figures(l).objects == 0 && figures(l).loaded == 0 && figures(l).compressed == 0);
	cr_assert(quarry_lanes_destroy(l) == 0);
}

/* ---- which ---- */

/* Objects that somebody gets between two passes stay. */
Test(lanes_cold, what_nobody_gets_becomes_cold)
{
	quarry_cold_attr cold = { .period_ms = 1 };
	quarry_lanes *l = make(&cold);

	make_objects(l, 3000);
	for (int pass = 0; pass < 3; pass++) {
		uint64_t before = figures(l).objects;

		while (quarry_cool(l, 0) == 0 && pass > 0 && figures(l).objects == before)
			for (unsigned i = 0; i < 3000; i += 3)
				verify(l, i); /* its time has not come: looked at again */
		for (unsigned i = 0; i < 3000; i += 3)
			verify(l, i);
		if (pass == 0)
			cr_assert(figures(l).objects == 0);
		else
			break;
	}
	for (unsigned i = 0; i < 3000; i++) {
		int state = quarry_handle_state(l, handle[i]);

		cr_assert(state == (i % 3 == 0 ? QUARRY_HANDLE_VALID : QUARRY_HANDLE_COLD), "object %u: %d", i, state);
	}
	cr_assert(figures(l).loaded == 0);
	cr_assert(quarry_lanes_destroy(l) == 0);
}

/* Nobody calls anything: a thread of the library's does it. */
Test(lanes_cold, in_the_background_as_well, .timeout = 120)
{
	quarry_cold_attr cold = { .flags = QUARRY_COLD_NO_COPIES, .period_ms = 1 };
	quarry_lanes_attr attr = { .cold = &cold };
	quarry_lanes *l = quarry_lanes_create(&attr);

	cr_assert(l != NULL);
	make_objects(l, 3000);
	while (figures(l).objects < 2500)
		sched_yield();
	for (unsigned i = 0; i < 3000; i++)
		verify(l, i);
	cr_assert(figures(l).loaded >= 2500);
	cr_assert(quarry_evict(l, handle, 3000) >= 0, "the thread steps aside");
	cr_assert(quarry_lanes_destroy(l) == 0);
}

/* What is random is known not to become smaller, soon, and stays. */
Test(lanes_cold, what_does_not_become_smaller_stays)
{
	quarry_cold_attr cold = { 0 };
	quarry_lanes *l = make(&cold);
	uint64_t x = 1;

	for (unsigned i = 0; i < 5000; i++) {
		uint64_t *p;

		handle[i] = quarry_halloc(l, 512);
		quarry_enter();
		p = quarry_get_mut(l, handle[i]);
		for (unsigned n = 0; n < 64; n++)
			p[n] = x = x * 0x5851f42d4c957f2du + 0x14057b7ef767814fu;
		quarry_leave();
	}
	cr_assert(quarry_evict(l, handle, 5000) == 0);
	cr_assert(figures(l).objects == 0 && figures(l).incompressible > 0 && figures(l).incompressible < 10, "%llu tries",
		  (unsigned long long)figures(l).incompressible);
	for (unsigned i = 0; i < 5000; i++)
		cr_assert(quarry_handle_state(l, handle[i]) == QUARRY_HANDLE_VALID);
	cr_assert(quarry_lanes_destroy(l) == 0);
}

/* ---- the file ---- */

Test(lanes_cold, above_the_limit_the_oldest_are_in_the_file, .timeout = 120)
{
	quarry_cold_attr cold = { .memory_limit = 100000, .directory = DIRECTORY };
	quarry_lanes *l = make(&cold);
	uint64_t file;

	make_objects(l, COUNT);
	all_evicted(l, COUNT);
	cr_assert(figures(l).compressed <= 100000 && figures(l).evicted > 100000);
	cr_assert(quarry_handle_state(l, handle[0]) == QUARRY_HANDLE_EVICTED);
	file = figures(l).evicted;
	for (unsigned i = 0; i < COUNT; i++)
		verify(l, i);
	cr_assert(figures(l).evicted == 0 && figures(l).objects == 0 && figures(l).failures == 0);
	for (int round = 0; round < 3; round++) { /* the file's space is used again: it has a limit in the next test */
		all_evicted(l, COUNT);
		cr_assert(figures(l).evicted >= file / 2);
		cr_assert(quarry_prefetch(l, handle, COUNT) == COUNT);
	}
	for (unsigned i = 0; i < COUNT; i++)
		verify(l, i);
	cr_assert(quarry_lanes_destroy(l) == 0);
}

/* A file that is full is left alone, and what has no room there stays in memory. */
Test(lanes_cold, a_full_file_is_no_failure_of_anything_else, .timeout = 120)
{
	quarry_cold_attr cold = { .memory_limit = 1, .directory = DIRECTORY, .file_limit = 65536 };
	quarry_lanes *l = make(&cold);

	make_objects(l, COUNT);
	for (int round = 0; round < 3; round++) {
		all_evicted(l, COUNT);
		cr_assert(figures(l).evicted <= 65536 && figures(l).compressed > 100000 && figures(l).failures == 1);
		for (unsigned i = 0; i < COUNT; i++)
			verify(l, i);
	}
	cr_assert(quarry_lanes_destroy(l) == 0);
}

Test(lanes_cold, a_device_that_fails_loses_nothing_and_is_tried_again, .timeout = 120)
{
	quarry_cold_attr cold = { .memory_limit = 1, .directory = DIRECTORY };
	quarry_lanes *l;

	fake_os_install();
	l = make(&cold);
	make_objects(l, 3000);
	fake_os_fail(FAKE_WRITE_AT, EIO);
	all_evicted(l, 3000);
	cr_assert(figures(l).evicted == 0 && figures(l).failures == 1 && figures(l).objects == 3000);
	fake_os_fail(FAKE_WRITE_AT, 0);
	cr_assert(quarry_evict(l, handle, 0) == 0 && figures(l).evicted == 0, "it is left alone for a while");
	fake_os_clock(qy_os->now_ms() + 10000);
	cr_assert(quarry_evict(l, handle, 0) == 0);
	cr_assert(figures(l).evicted > 0 && figures(l).compressed <= 1);
	/* Nothing can be read: nobody gets it now, and all do afterwards. */
	fake_os_fail(FAKE_READ_AT, EIO);
	quarry_enter();
	cr_assert(quarry_get(l, handle[5]) == NULL && errno == EIO);
	cr_assert(quarry_get_mut(l, handle[5]) == NULL && errno == EIO);
	quarry_leave();
	cr_assert(quarry_pin(l, handle[5]) == NULL && errno == EIO);
	cr_assert(quarry_handle_valid(l, handle[5]) && quarry_handle_state(l, handle[5]) == QUARRY_HANDLE_EVICTED);
	fake_os_fail(FAKE_READ_AT, 0);
	for (unsigned i = 0; i < 3000; i++)
		verify(l, i);
	cr_assert(quarry_lanes_destroy(l) == 0);
	fake_os_remove();
}

/* The process's file without a name: a descriptor of it. */
static int open_file(void)
{
	DIR *d = opendir("/proc/self/fd");
	int fd = -1;

	for (struct dirent *e; d != NULL && fd < 0 && (e = readdir(d)) != NULL;) {
		struct stat st;
		int n = atoi(e->d_name);

		if (n > 2 && n != dirfd(d) && fstat(n, &st) == 0 && S_ISREG(st.st_mode) && st.st_nlink == 0 && st.st_size > 0)
			fd = n;
	}
	closedir(d);
	return fd;
}

/* What the device has changed is lost, and that alone. */
Test(lanes_cold, bytes_that_are_not_what_was_written_are_lost_alone, .timeout = 120)
{
	/* By the checksum alone: this codec believes all. */
	quarry_cold_attr cold = { .memory_limit = 1, .directory = DIRECTORY, .codec = "none" };
	quarry_lanes *l = make(&cold);
	char garbage[64];
	unsigned lost = 0;

	memset(garbage, 0x5a, sizeof(garbage));
	make_objects(l, COUNT);
	all_evicted(l, COUNT);
	cr_assert(open_file() >= 0 && pwrite(open_file(), garbage, sizeof(garbage), 200) == (ssize_t)sizeof(garbage));
	for (unsigned i = 0; i < COUNT; i++) {
		quarry_enter();
		if (quarry_get(l, handle[i]) == NULL) {
			cr_assert(errno == EIO, "object %u: errno %d", i, errno);
			cr_assert(quarry_handle_state(l, handle[i]) == QUARRY_HANDLE_LOST);
			lost++;
			quarry_leave();
			continue;
		}
		quarry_leave();
		verify(l, i);
	}
	cr_assert(lost > 0 && lost < 1000, "%u objects are lost", lost);
	cr_assert(figures(l).corrupt == 1 && figures(l).objects == lost);
	for (unsigned i = 0; i < COUNT; i++)
		cr_assert(quarry_hfree(l, handle[i]) == 0, "also what is lost");
	cr_assert(figures(l).objects == 0 && figures(l).corrupt == 0 && figures(l).evicted == 0);
	cr_assert(quarry_lanes_destroy(l) == 0);
}

/* What was read wrongly is lost, and that block alone, until it is read again as it was written. */
Test(lanes_cold, a_block_is_lost_until_it_is_there_again, .timeout = 120)
{
	quarry_cold_attr cold = { .memory_limit = 1, .directory = DIRECTORY, .codec = "none" };
	quarry_lanes *l = make(&cold);
	char was[64], garbage[64];
	unsigned told = 0;

	memset(garbage, 0x5a, sizeof(garbage));
	make_records(l, 1024);
	all_evicted(l, 1024);
	cr_assert(pread(open_file(), was, sizeof(was), 200) == (ssize_t)sizeof(was));
	cr_assert(pwrite(open_file(), garbage, sizeof(garbage), 200) == (ssize_t)sizeof(garbage));
	for (unsigned i = 0; i < 1024; i++)
		if (!record_is_right(l, i) && told == 0)
			for (unsigned n = 0; n < 1024; n++)
				told += quarry_handle_state(l, handle[n]) == QUARRY_HANDLE_LOST;
	cr_assert(figures(l).corrupt == 1 && told == 16 && figures(l).objects == 16, "%u objects", told);
	cr_assert(pwrite(open_file(), was, sizeof(was), 200) == (ssize_t)sizeof(was));
	for (unsigned i = 0, left = (unsigned)figures(l).objects; i < 1024; i++) {
		if (quarry_handle_state(l, handle[i]) == QUARRY_HANDLE_VALID)
			continue;
		cr_assert(record_is_right(l, i) && figures(l).corrupt == 0, "record %u", i);
		if (--left > 0)
			continue;
		cr_assert(figures(l).objects == 0);
	}
	cr_assert(quarry_lanes_destroy(l) == 0);
}

/* A child has what was in the file when it was forked, whatever the parent does with the file since. */
Test(lanes_cold, a_child_reads_what_its_parent_had_evicted, .timeout = 120)
{
	quarry_cold_attr cold = { .memory_limit = 1, .directory = DIRECTORY };
	quarry_lanes *l = make(&cold);
	int ends[2], status = 0;
	char go = 0;
	pid_t child;

	make_objects(l, 5000);
	all_evicted(l, 5000);
	cr_assert(pipe(ends) == 0);
	child = fork();
	cr_assert(child >= 0);
	if (child == 0) {
		if (read(ends[0], &go, 1) != 1)
			_exit(1);
		for (unsigned i = 0; i < 5000; i++)
			if (!is_right(l, i))
				_exit(3);
		/* It has no file of its own, and goes on in memory. */
		_exit(quarry_evict(l, handle, 5000) + 64 >= 5000 && figures(l).evicted == 0 ? 0 : 2);
	}
	for (unsigned i = 0; i < 5000; i++)
		cr_assert(quarry_hfree(l, handle[i]) == 0);
	make_objects(l, 5000);
	for (unsigned i = 0; i < 5000; i++) { /* other bytes, in the file */
		quarry_enter();
		memset(quarry_get_mut(l, handle[i]), 'Z', size_of(i));
		quarry_leave();
	}
	all_evicted(l, 5000);
	cr_assert(write(ends[1], &go, 1) == 1);
	cr_assert(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", status);
	cr_assert(quarry_lanes_destroy(l) == 0);
}

/* ---- many at once ---- */

/* In whichever order they are asked for, what is in the file is read once for each extent; one by one it is for each block. */
Test(lanes_cold, what_is_prefetched_is_read_at_once, .timeout = 120)
{
	quarry_cold_attr cold = { .memory_limit = 1, .directory = DIRECTORY, .codec = "none" };
	static quarry_handle some[200];
	quarry_lanes *l;
	unsigned long extents;

	fake_os_install();
	l = make(&cold);
	for (unsigned i = 0; i < 1024; i++) { /* of 1 KiB: 64 in an extent, 4 in a block */
		handle[i] = quarry_halloc(l, 1024);
		quarry_enter();
		memset(quarry_get_mut(l, handle[i]), (int)i, 1024);
		quarry_leave();
	}
	cr_assert(quarry_evict(l, handle, 1024) == 1024 && figures(l).evicted == 1024 * 1024 + 256 * sizeof(uint32_t), "and checksums");
	extents = 1024 / 64;
	for (unsigned i = 0; i < 200; i++)
		some[i] = handle[(i * 37) % 1024]; /* no two neighbours */
	fake_os_forget_calls();
	cr_assert(quarry_prefetch(l, some, 200) == 200);
	cr_assert(fake_os_calls(FAKE_READ_AT) == extents, "%lu reads", fake_os_calls(FAKE_READ_AT));
	cr_assert(quarry_prefetch(l, some, 200) == 0 && fake_os_calls(FAKE_READ_AT) == extents);
	fake_os_fail(FAKE_READ_AT, EIO);
	cr_assert(quarry_prefetch(l, handle, 1024) == 0, "those that cannot be read are left alone");
	fake_os_fail(FAKE_READ_AT, 0);
	fake_os_fail_kth(FAKE_READ_AT, 1, EIO);
	cr_assert(quarry_prefetch(l, handle, 1024) == 824, "all of an extent failed, and its blocks did not");
	for (unsigned i = 0; i < 1024; i++) {
		const char *p;

		quarry_enter();
		p = quarry_get(l, handle[i]);
		cr_assert(p != NULL && p[0] == (char)i && p[1023] == (char)i);
		quarry_leave();
	}
	cr_assert(quarry_lanes_destroy(l) == 0);
	fake_os_remove();
}

/* ---- what comes back steers what goes ---- */

/* Passes of a clock that the test sets. */
static void pass_now(quarry_lanes *l)
{
	fake_os_advance(figures(l).period_ms);
	cr_assert(quarry_cool(l, 0) >= 0);
}

/* Beyond what is enough it is longer, by as much as that is; never by more than twice, nor shorter by more than a quarter. */
Test(lanes_cold, a_period_is_as_long_as_waiting_says)
{
	cr_assert(qy_cool_steer(1000, 0, 100) == 750 && qy_cool_steer(1000, 50, 100) == 750);
	cr_assert(qy_cool_steer(1000, 75, 100) == 875 && qy_cool_steer(1000, 100, 100) == 1000);
	cr_assert(qy_cool_steer(1000, 200, 100) == 1500 && qy_cool_steer(1000, 300, 100) == 2000);
	cr_assert(qy_cool_steer(1000, UINT64_MAX, 100) == 2000 && qy_cool_steer(1000, 1, 1) == 1000);
}

Test(lanes_cold, the_period_follows_what_comes_back, .timeout = 120)
{
	quarry_cold_attr cold = { .period_ms = 1000, .stall_percent = 1 };
	uint64_t cpu = 1, before;
	quarry_lanes *l;

	fake_os_install();
	fake_os_clock(1000000);
	fake_os_cpu(cpu);
	l = make(&cold);
	make_objects(l, 3000);
	pass_now(l);
	pass_now(l);
	cr_assert(figures(l).objects + 64 >= 3000 && figures(l).period_ms == 1000);
	for (int i = 0; i < 10; i++) { /* the process had next to no time, and waited */
		for (unsigned n = 0; n < 3000; n++)
			verify(l, n);
		before = figures(l).period_ms;
		pass_now(l);
		cr_assert(figures(l).period_ms >= before * 3 / 4, "%llu", (unsigned long long)figures(l).period_ms);
		(void)quarry_evict(l, handle, 3000);
	}
	before = figures(l).period_ms;
	for (unsigned n = 0; n < 3000; n++)
		verify(l, n);
	fake_os_cpu(cpu += (uint64_t)1 << 50); /* it had a lot: that is nothing */
	pass_now(l);
	cr_assert(figures(l).period_ms == qy_max(before * 3 / 4, 1000), "%llu after %llu", (unsigned long long)figures(l).period_ms,
		  (unsigned long long)before);
	for (int i = 0; i < 20; i++) {
		fake_os_cpu(cpu += (uint64_t)1 << 40);
		pass_now(l);
	}
	cr_assert(figures(l).period_ms == 1000, "until it is what was asked for");
	cr_assert(quarry_lanes_destroy(l) == 0);
	fake_os_remove();
}

/* Got once since it came back, it goes with the next pass; got twice it stays for one more, as what was prefetched. */
Test(lanes_cold, what_came_back_is_on_trial, .timeout = 120)
{
	quarry_cold_attr cold = { .period_ms = 1000 };
	quarry_lanes *l;

	fake_os_install();
	fake_os_clock(1000000);
	l = make(&cold);
	make_records(l, 900);
	cr_assert(quarry_evict(l, handle, 900) == 900);
	pass_now(l);
	for (unsigned i = 0; i < 600; i++)
		for (unsigned n = 0; n < 1 + i / 300; n++)
			cr_assert(record_is_right(l, i));
	cr_assert(quarry_prefetch(l, &handle[600], 300) == 300);
	pass_now(l);
	for (unsigned i = 0; i < 900; i++)
		cr_assert((quarry_handle_state(l, handle[i]) == QUARRY_HANDLE_VALID) == (i >= 300), "object %u", i);
	pass_now(l);
	for (unsigned i = 0; i < 900; i++)
		cr_assert(quarry_handle_state(l, handle[i]) == QUARRY_HANDLE_COLD, "object %u", i);
	cr_assert(quarry_lanes_destroy(l) == 0);
	fake_os_remove();
}

/* In the background a pass takes all of its period: half of it after half. */
Test(lanes_cold, in_the_background_a_pass_takes_its_time, .timeout = 120)
{
	quarry_cold_attr cold = { .period_ms = 100000 };
	_Atomic(uint32_t) wanted = 0;
	quarry_lanes *l;
	uint64_t now = (uint64_t)1 << 62;

	fake_os_install();
	fake_os_clock(1000000);
	l = make(&cold);
	make_records(l, COUNT);
	pthread_mutex_lock(&l->moving);
	(void)qy_cool_slice(l, now, &wanted);
	fake_os_advance(100000);
	(void)qy_cool_slice(l, now, &wanted); /* all are marked */
	cr_assert(figures(l).objects == 0);
	for (int i = 1; i <= 4; i++) {
		if (i > 1)
			fake_os_advance(25000);
		(void)qy_cool_slice(l, now, &wanted);
		if (i == 3)
			cr_assert(figures(l).objects > COUNT / 3 && figures(l).objects < COUNT * 5 / 8, "%llu",
				  (unsigned long long)figures(l).objects);
	}
	fake_os_advance(25000);
	(void)qy_cool_slice(l, now, &wanted);
	cr_assert(figures(l).objects + 64 >= COUNT, "%llu", (unsigned long long)figures(l).objects);
	pthread_mutex_unlock(&l->moving);
	cr_assert(quarry_lanes_destroy(l) == 0);
	fake_os_remove();
}

/* A child's processor time begins anew. */
Test(lanes_cold, a_process_whose_time_goes_back_has_not_had_all_of_it, .timeout = 120)
{
	quarry_cold_attr cold = { .period_ms = 1000 };
	quarry_lanes *l;

	fake_os_install();
	fake_os_clock(1000000);
	fake_os_cpu((uint64_t)1 << 50);
	l = make(&cold);
	make_records(l, 3000);
	cr_assert(quarry_evict(l, handle, 3000) == 3000);
	for (unsigned i = 0; i < 3000; i++)
		cr_assert(record_is_right(l, i));
	fake_os_cpu(1);
	pass_now(l);
	cr_assert(figures(l).period_ms > 1000, "%llu", (unsigned long long)figures(l).period_ms);
	cr_assert(quarry_lanes_destroy(l) == 0);
	fake_os_remove();
}

/* Whatever way it is used. */
Test(lanes_cold, what_is_pinned_or_tried_or_got_in_part_is_seen, .timeout = 120)
{
	quarry_cold_attr cold = { .period_ms = 1000 };
	const void *p;
	quarry_lanes *l;

	fake_os_install();
	fake_os_clock(1000000);
	l = make(&cold);
	make_records(l, 900);
	for (int round = 0; round < 2; round++) {
		pass_now(l);
		for (unsigned i = 0; i < 300; i++) /* (to use it would bring it back) */
			cr_assert(quarry_handle_state(l, handle[i]) == QUARRY_HANDLE_VALID, "object %u", i);
		for (unsigned i = 0; i < 100; i++) {
			cr_assert(quarry_pin(l, handle[i]) != NULL && quarry_unpin(l, handle[i]) == 0);
			quarry_enter();
			cr_assert(quarry_get_range(l, handle[100 + i], 8, 8) != NULL);
			cr_assert(quarry_try_get(l, handle[200 + i], &p) == 0);
			quarry_leave();
		}
	}
	cr_assert(figures(l).objects == 600);
	cr_assert(quarry_lanes_destroy(l) == 0);
	fake_os_remove();
}

/* ---- steps aside ---- */

/* One slice in the background, while somebody waits for his turn. */
static void slice_while_wanted(quarry_lanes *l)
{
	_Atomic(uint32_t) wanted = 1;

	pthread_mutex_lock(&l->moving);
	(void)qy_cool_slice(l, (uint64_t)1 << 62, &wanted);
	pthread_mutex_unlock(&l->moving);
}

/* What a pass has gathered of many sizes goes by one of them at a time, and all of it in the end. */
Test(lanes_cold, who_wants_to_move_waits_for_one_extent, .timeout = 120)
{
	quarry_cold_attr cold = { .period_ms = 1000 };
	uint64_t most = 0;
	quarry_lanes *l;

	fake_os_install();
	fake_os_clock(1000000);
	l = make(&cold);
	make_objects(l, 3000);
	for (int i = 0; i < 4000 && figures(l).objects + 64 < 3000; i++) {
		uint64_t before = figures(l).objects;

		slice_while_wanted(l);
		fake_os_advance(500);
		most = qy_max(most, figures(l).objects - before);
	}
	cr_assert(figures(l).objects + 64 >= 3000, "%llu", (unsigned long long)figures(l).objects);
	cr_assert(most <= 128, "%llu at once", (unsigned long long)most);
	cr_assert(quarry_lanes_destroy(l) == 0);
	fake_os_remove();
}

Test(lanes_cold, who_wants_to_move_waits_for_one_extent_that_goes_to_the_file, .timeout = 120)
{
	quarry_cold_attr cold = { .memory_limit = 1, .directory = DIRECTORY };
	unsigned long extents, calls;
	quarry_lanes *l;

	fake_os_install();
	fake_os_clock(1000000);
	l = make(&cold);
	make_records(l, COUNT);
	fake_os_fail(FAKE_WRITE_AT, EIO);
	cr_assert(quarry_evict(l, handle, COUNT) == COUNT && figures(l).evicted == 0);
	fake_os_fail(FAKE_WRITE_AT, 0);
	fake_os_advance(10000);
	fake_os_forget_calls();
	slice_while_wanted(l);
	cr_assert((calls = fake_os_calls(FAKE_WRITE_AT)) == 1, "%lu extents", calls);
	cr_assert(quarry_cool(l, 1) >= 0 && fake_os_calls(FAKE_WRITE_AT) == 2, "its time is over");
	cr_assert(quarry_cool(l, 0) >= 0 && figures(l).compressed <= 1);
	extents = (COUNT + 255) / 256;
	cr_assert((calls = fake_os_calls(FAKE_WRITE_AT)) == extents, "%lu of %lu extents", calls, extents);
	cr_assert(quarry_lanes_destroy(l) == 0);
	fake_os_remove();
}

/* ---- others, in the midst ---- */

static quarry_lanes *with_locks;
static struct qy_os os_of_test;
static unsigned under_lock, read_often;

/* (Also who has a lock cannot take it.) */
static int read_and_look(int fd, void *to, size_t size, uint64_t at)
{
	read_often++;
	if (pthread_mutex_trylock(&with_locks->groups.lock) != 0)
		under_lock++;
	else
		pthread_mutex_unlock(&with_locks->groups.lock);
	return qy_os_linux.read_at(fd, to, size, at);
}

Test(lanes_cold, nobody_waits_for_a_group_until_a_disk_has_answered, .timeout = 120)
{
	quarry_cold_attr cold = { .memory_limit = 1, .directory = DIRECTORY };
	quarry_halloc_attr attr = { 0 };
	quarry_group *g;

	with_locks = make(&cold);
	g = quarry_group_create(with_locks, NULL);
	make_records(with_locks, 2000);
	cr_assert(g != NULL && quarry_group_add(g, handle[0]) == 0);
	all_evicted(with_locks, 2000);
	os_of_test = *qy_os;
	os_of_test.read_at = read_and_look;
	qy_os = &os_of_test;
	cr_assert(quarry_group_remove(g, handle[0]) == 0 && quarry_group_add(g, handle[500]) == 0);
	cr_assert(quarry_hint(with_locks, handle[1000], 0, QUARRY_PRIORITY_LOW) == 0);
	cr_assert(quarry_handle_attr(with_locks, handle[1500], &attr) == 0);
	qy_os = &qy_os_linux;
	cr_assert(read_often == 4 && under_lock == 0, "%u of %u reads", under_lock, read_often);
	cr_assert(quarry_lanes_destroy(with_locks) == 0);
}

/* Marks that were read of an object that has another slot since say nothing of the slot: there may be no record. */
Test(lanes_cold, a_record_that_is_not_there_says_nothing)
{
	quarry_lanes *l = make(&(quarry_cold_attr){ 0 });

	handle[0] = quarry_halloc(l, 64);
	cr_assert(qy_flags_of(l, (uint32_t)handle[0], QY_MARK_SIDE) == 0);
	cr_assert(qy_priority_of(l, (uint32_t)handle[0], QY_MARK_SIDE) == QUARRY_PRIORITY_NORMAL);
	cr_assert(quarry_hint(l, handle[0], QUARRY_HALLOC_NOSPILL, QUARRY_PRIORITY_LOW) == 0);
	cr_assert(qy_flags_of(l, (uint32_t)handle[0], QY_MARK_SIDE) == QUARRY_HALLOC_NOSPILL);
	cr_assert(qy_flags_of(l, (uint32_t)handle[0] + QY_SIDES, QY_MARK_SIDE) == 0);
	cr_assert(quarry_lanes_destroy(l) == 0);
}

static void *cool_it(void *l)
{
	(void)quarry_cool(l, 0);
	return NULL;
}

/* Forked while an extent is being made, of a list that is full: the child's pass goes on. */
Test(lanes_cold, a_child_goes_on_with_the_pass_that_it_was_forked_in, .timeout = 120)
{
	quarry_cold_attr cold = { .period_ms = 1000 };
	quarry_lanes *l;
	pthread_t t;
	int status = 0;
	pid_t child;

	fake_os_install();
	fake_os_clock(1000000);
	l = make(&cold);
	make_records(l, COUNT);
	pass_now(l);
	fake_os_advance(1000);
	quarry_enter(); /* so the move waits */
	cr_assert(pthread_create(&t, NULL, cool_it, l) == 0);
	while (!(atomic_load(&l->word[(uint32_t)handle[0]]) & QUARRY_WORD_MOVING))
		sched_yield();
	child = fork();
	cr_assert(child >= 0);
	quarry_leave();
	if (child == 0) {
		if (quarry_cool(l, 0) < 0)
			_exit(1);
		if (figures(l).objects + 300 < COUNT)
			_exit(2);
		for (unsigned i = 0; i < COUNT; i++)
			if (!record_is_right(l, i))
				_exit(3);
		_exit(0);
	}
	cr_assert(pthread_join(t, NULL) == 0 && figures(l).objects + 64 >= COUNT);
	cr_assert(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", status);
	cr_assert(quarry_lanes_destroy(l) == 0);
	fake_os_remove();
}

/* ---- what is gained ---- */

static uint64_t held_by(quarry_lanes *l)
{
	quarry_lanes_stats s = { 0 };

	cr_assert(quarry_lanes_stats_get(l, &s) == 0);
	return s.held;
}

/* What has become cold leaves holes, and they are packed, by the thread alone, in a program that does nothing; and again when all of it
 * was wanted in between. */
Test(lanes_cold, an_idle_programs_memory_is_less_and_stays_less, .timeout = 300)
{
	quarry_cold_attr cold = { .flags = QUARRY_COLD_NO_COPIES, .period_ms = 300 };
	quarry_lanes_attr attr = { .cold = &cold };
	quarry_lanes *l = quarry_lanes_create(&attr);
	uint64_t full;
	char *p;

	cr_assert(l != NULL);
	for (unsigned i = 0; i < COUNT; i++) {
		handle[i] = quarry_halloc(l, 3000);
		quarry_enter();
		p = quarry_get_mut(l, handle[i]);
		fill(p, 3000, i);
		quarry_leave();
	}
	full = held_by(l);
	for (int round = 0; round < 2; round++) {
		while (held_by(l) > full / 3)
			sched_yield();
		cr_assert(figures(l).objects > COUNT / 2);
		for (unsigned i = 0; i < COUNT && round == 0; i++) {
			quarry_enter();
			cr_assert(quarry_get(l, handle[i]) != NULL);
			quarry_leave();
		}
	}
	cr_assert(quarry_lanes_destroy(l) == 0);
}

/* ---- cold for long ---- */

/* By a dictionary of their own they become smaller than by what knows none; it is there for as long as they are. */
Test(lanes_cold, what_is_cold_for_long_is_compressed_by_a_dictionary, .timeout = 120)
{
	quarry_cold_attr cold = { .period_ms = 1000, .long_codec = "zstd", .long_periods = 3 };
	quarry_lanes *l;
	uint64_t before;

	fake_os_install();
	fake_os_clock(1000000);
	l = make(&cold);
	make_records(l, COUNT);
	cr_assert(quarry_evict(l, handle, COUNT) == COUNT);
	before = figures(l).compressed;
	for (int i = 0; i < 3; i++) {
		cr_assert(figures(l).deepened == 0 && figures(l).dictionaries == 1, "the first codec's");
		pass_now(l);
	}
	pass_now(l);
	cr_assert(figures(l).deepened >= COUNT / 256, "%llu extents", (unsigned long long)figures(l).deepened);
	cr_assert(figures(l).dictionaries == 2 && figures(l).dictionary_bytes > 256);
	cr_assert(figures(l).compressed < before * 4 / 5, "%llu of %llu", (unsigned long long)figures(l).compressed,
		  (unsigned long long)before);
	for (unsigned i = 0; i < COUNT; i++)
		cr_assert(record_is_right(l, i), "record %u: errno %d", i, errno);
	cr_assert(figures(l).objects == 0 && figures(l).compressed == 0 && figures(l).corrupt == 0);
	cr_assert(figures(l).dictionaries == 2, "the next ones will want them");
	cr_assert(quarry_lanes_destroy(l) == 0);
	fake_os_remove();
}

/* Two sizes, whose extents take turns: each has its own. */
Test(lanes_cold, each_size_has_a_dictionary_of_its_own, .timeout = 120)
{
	quarry_cold_attr cold = { .period_ms = 1000, .long_codec = "zstd", .long_periods = 1 };
	quarry_lanes *l;
	char should[512];

	fake_os_install();
	fake_os_clock(1000000);
	l = make(&cold);
	for (unsigned i = 0; i < COUNT; i++) {
		char *p;

		handle[i] = quarry_halloc(l, i % 2 ? 512 : 256);
		quarry_enter();
		p = quarry_get_mut(l, handle[i]);
		fill_record(p, i);
		if (i % 2)
			memset(p + 256, (int)(i * 31), 256);
		quarry_leave();
	}
	for (unsigned i = 0; i < COUNT; i += 1000) /* so that they take turns */
		cr_assert(quarry_evict(l, handle + i, 1000) == 1000);
	pass_now(l);
	pass_now(l);
	cr_assert(figures(l).dictionaries == 4, "%llu", (unsigned long long)figures(l).dictionaries);
	for (unsigned i = 0; i < COUNT; i++) {
		cr_assert(record_is_right(l, i), "record %u: errno %d", i, errno);
		memset(should, (int)(i * 31), sizeof(should));
		quarry_enter();
		cr_assert(i % 2 == 0 || memcmp((const char *)quarry_get(l, handle[i]) + 256, should, 256) == 0);
		quarry_leave();
	}
	cr_assert(figures(l).corrupt == 0);
	cr_assert(quarry_lanes_destroy(l) == 0);
	fake_os_remove();
}

/* After so many extents there is another, and the one before stays for those that need it. */
Test(lanes_cold, a_dictionary_is_there_for_as_long_as_it_is_needed, .timeout = 300)
{
	quarry_cold_attr cold = { .period_ms = 1000, .long_codec = "zstd", .long_periods = 1 };
	enum { FIRST = 2000 };
	quarry_lanes *l;

	fake_os_install();
	fake_os_clock(1000000);
	l = make(&cold);
	make_records(l, COUNT);
	cr_assert(quarry_evict(l, handle, COUNT) == COUNT);
	pass_now(l);
	pass_now(l);
	cr_assert(figures(l).dictionaries == 2);
	for (int round = 0; round < 12 && figures(l).dictionaries == 2; round++) { /* the first ones stay where they are */
		for (unsigned i = FIRST; i < COUNT; i++)
			cr_assert(record_is_right(l, i));
		(void)quarry_evict(l, handle + FIRST, COUNT - FIRST);
		pass_now(l);
		pass_now(l);
	}
	cr_assert(figures(l).dictionaries == 3, "%llu", (unsigned long long)figures(l).dictionaries);
	for (unsigned i = 0; i < COUNT; i++)
		cr_assert(record_is_right(l, i), "record %u", i);
	cr_assert(figures(l).dictionaries == 2 && figures(l).objects == 0, "%llu", (unsigned long long)figures(l).dictionaries);
	cr_assert(quarry_lanes_destroy(l) == 0);
	fake_os_remove();
}

/* Too few of a size for a dictionary: without. And what goes to the file is compressed anew before. */
Test(lanes_cold, few_go_without_a_dictionary_and_the_file_gets_what_is_smallest, .timeout = 120)
{
	quarry_cold_attr cold = { .memory_limit = 1, .directory = DIRECTORY, .long_codec = "zstd" };
	quarry_lanes *l = make(&cold), *plain;
	uint64_t evicted;

	make_records(l, 1000);
	cr_assert(quarry_evict(l, handle, 1000) == 1000 && figures(l).deepened > 0 && figures(l).dictionaries == 1);
	for (unsigned i = 0; i < 1000; i++)
		cr_assert(record_is_right(l, i));
	make_records(l, COUNT);
	cr_assert(quarry_evict(l, handle, COUNT) == COUNT && figures(l).dictionaries == 2);
	evicted = figures(l).evicted;
	for (unsigned i = 0; i < COUNT; i += 2)
		cr_assert(record_is_right(l, i));
	cr_assert(quarry_prefetch(l, handle, COUNT) == COUNT / 2 && figures(l).objects == 0);
	for (unsigned i = 0; i < COUNT; i++)
		cr_assert(record_is_right(l, i));
	cr_assert(quarry_lanes_destroy(l) == 0);
	cold.long_codec = NULL;
	plain = make(&cold);
	make_records(plain, COUNT);
	cr_assert(quarry_evict(plain, handle, COUNT) == COUNT && figures(plain).deepened == 0);
	cr_assert(evicted < figures(plain).evicted * 3 / 4, "%llu of %llu", (unsigned long long)evicted,
		  (unsigned long long)figures(plain).evicted);
	cr_assert(quarry_lanes_destroy(plain) == 0);
}

/* A child has the dictionaries, and may make others. */
Test(lanes_cold, a_child_reads_what_its_parent_compressed_by_dictionaries, .timeout = 120)
{
	quarry_cold_attr cold = { .memory_limit = 1, .directory = DIRECTORY, .long_codec = "zstd" };
	quarry_lanes *l = make(&cold);
	int status = 0;
	pid_t child;

	make_records(l, COUNT);
	cr_assert(quarry_evict(l, handle, COUNT) == COUNT && figures(l).dictionaries == 2);
	child = fork();
	cr_assert(child >= 0);
	if (child == 0) {
		for (unsigned i = 0; i < COUNT; i++)
			if (!record_is_right(l, i))
				_exit(1);
		_exit(quarry_evict(l, handle, COUNT) == COUNT && quarry_prefetch(l, handle, COUNT) == COUNT ? 0 : 2);
	}
	cr_assert(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", status);
	cr_assert(quarry_lanes_destroy(l) == 0);
}

/* ---- alone, by what others are like ---- */

/* Half of an extent came back: what is left takes half of the memory, in memory; and all of it is right. */
Test(lanes_cold, what_has_gone_of_an_extent_takes_no_memory, .timeout = 120)
{
	for (int anew = 0; anew < 2; anew++) {
		quarry_cold_attr cold = { .long_codec = anew ? "zstd" : NULL, .long_periods = 1, .period_ms = 1000 };
		quarry_lanes *l;
		uint64_t before;

		fake_os_install();
		fake_os_clock(1000000);
		l = make(&cold);
		make_records(l, COUNT);
		cr_assert(quarry_evict(l, handle, COUNT) == COUNT && figures(l).dictionaries == 1);
		before = figures(l).compressed;
		for (unsigned i = 0; i < COUNT; i += 2)
			cr_assert(record_is_right(l, i));
		cr_assert(figures(l).objects == COUNT / 2);
		cr_assert(figures(l).compressed < before * 3 / 4, "%llu of %llu", (unsigned long long)figures(l).compressed,
			  (unsigned long long)before);
		for (unsigned i = 1; i < COUNT; i += 20)
			cr_assert(quarry_hfree(l, handle[i]) == 0);
		pass_now(l);
		pass_now(l); /* those that came back go again, and what is left of the others is compressed anew */
		cr_assert(!anew || figures(l).deepened > 0);
		for (unsigned i = 0; i < COUNT; i++)
			cr_assert(i % 20 == 1 || record_is_right(l, i), "record %u: errno %d", i, errno);
		cr_assert(figures(l).objects == 0 && figures(l).compressed == 0 && figures(l).corrupt == 0);
		cr_assert(quarry_lanes_destroy(l) == 0);
		fake_os_remove();
	}
}

/* What a pass comes by of extents that are partly gone is let go as well, if it is less. */
Test(lanes_cold, behind_a_pass_extents_shrink, .timeout = 120)
{
	quarry_cold_attr cold = { .period_ms = 1000 };
	quarry_lanes *l;
	uint64_t before;

	fake_os_install();
	fake_os_clock(1000000);
	l = make(&cold);
	make_records(l, COUNT);
	cr_assert(quarry_evict(l, handle, COUNT) == COUNT);
	before = figures(l).compressed;
	for (unsigned i = 0; i < COUNT; i += 8)
		cr_assert(quarry_prefetch(l, &handle[i], 1) == 1);
	cr_assert(figures(l).compressed == before);
	pass_now(l);
	cr_assert(figures(l).compressed < before * 15 / 16 && figures(l).objects == COUNT - COUNT / 8);
	for (unsigned i = 0; i < COUNT; i++)
		cr_assert(record_is_right(l, i));
	cr_assert(quarry_lanes_destroy(l) == 0);
	fake_os_remove();
}

/* Records of another kind under the same size: the dictionary is of no use for them, and there is another. */
Test(lanes_cold, a_dictionary_that_is_of_no_use_any_more_is_learned_anew, .timeout = 120)
{
	quarry_cold_attr cold = { 0 };
	quarry_lanes *l = make(&cold);
	uint64_t first;

	make_records(l, COUNT / 2);
	cr_assert(quarry_evict(l, handle, COUNT / 2) == COUNT / 2 && figures(l).dictionaries == 1);
	first = figures(l).compressed;
	for (unsigned i = COUNT / 2; i < COUNT; i++) { /* the same with other letters */
		char *p;

		handle[i] = quarry_halloc(l, 256);
		quarry_enter();
		p = quarry_get_mut(l, handle[i]);
		fill_record(p, i);
		for (unsigned n = 0; n < 256; n++)
			p[n] = (char)(p[n] ^ 0x55);
		quarry_leave();
	}
	cr_assert(quarry_evict(l, &handle[COUNT / 2], COUNT / 2) == COUNT / 2);
	cr_assert(figures(l).dictionaries == 2, "%llu", (unsigned long long)figures(l).dictionaries);
	cr_assert(figures(l).compressed < 3 * first, "%llu, %llu", (unsigned long long)first,
		  (unsigned long long)figures(l).compressed);
	for (unsigned i = 0; i < COUNT / 2; i++)
		cr_assert(record_is_right(l, i));
	cr_assert(figures(l).dictionaries == 1, "the first one went with the last who needed it");
	cr_assert(quarry_lanes_destroy(l) == 0);
}

/* ---- what is asked wrongly ---- */

Test(lanes_cold, what_cannot_be_is_refused_by_name)
{
	static const struct {
		quarry_cold_attr attr;
		int error;
		const char *named;
	} wrong[] = {
		{ { .struct_size = 3 }, EINVAL, "struct_size" },
		{ { .flags = 2 }, EINVAL, "flags" },
		{ { .stall_percent = 101 }, EINVAL, "stall_percent" },
		{ { .codec = "lzma" }, EINVAL, "lzma" },
		{ { .codec = "" }, EINVAL, "codec" },
		{ { .long_codec = "lz4" }, EINVAL, "long_codec" },
		{ { .long_reserved = 1 }, EINVAL, "reserved" },
		{ { .memory_limit = 1 }, EINVAL, "directory" },
		{ { .file_limit = 1 }, EINVAL, "directory" },
		{ { .directory = "/no/such/place" }, ENOENT, "/no/such/place" },
		{ { .directory = "/proc/self/exe" }, ENOTDIR, "/proc/self/exe" },
	};
	quarry_cold_stats small = { .struct_size = 8 };
	quarry_lanes *l;

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		quarry_lanes_attr attr = { .cold = &wrong[i].attr };

		errno = 0;
		cr_assert(quarry_lanes_create(&attr) == NULL && errno == wrong[i].error, "case %zu: errno %d", i, errno);
		cr_assert(strstr(quarry_error_text(), wrong[i].named) != NULL, "case %zu: %s", i, quarry_error_text());
	}
	l = quarry_lanes_create(NULL);
	cr_assert(quarry_cool(l, 0) == -1 && errno == ENOTSUP && quarry_evict(l, NULL, 0) == -1 && errno == ENOTSUP);
	cr_assert(quarry_prefetch(l, NULL, 0) == 0 && figures(l).objects == 0);
	cr_assert(quarry_cold_stats_get(l, &small) == -1 && errno == EINVAL && quarry_cold_stats_get(l, NULL) == -1);
	cr_assert(quarry_cool(NULL, 0) == -1 && errno == EINVAL && quarry_prefetch(NULL, NULL, 0) == -1 && errno == EINVAL);
	cr_assert(quarry_lanes_destroy(l) == 0);
	l = make(&(quarry_cold_attr){ 0 });
	quarry_enter();
	cr_assert(quarry_cool(l, 0) == -1 && errno == EDEADLK && quarry_evict(l, NULL, 0) == -1 && errno == EDEADLK);
	quarry_leave();
	handle[0] = 0;
	handle[1] = ~(quarry_handle)0;
	handle[2] = 12345;
	cr_assert(quarry_evict(l, handle, 3) == 0 && quarry_prefetch(l, handle, 3) == 0);
	cr_assert(quarry_lanes_destroy(l) == 0);
}

Test(lanes_cold, checksums_are_those_of_the_standard)
{
	unsigned char zeros[32] = { 0 };

	cr_assert(qy_crc32c("123456789", 9) == 0xe3069283u, "RFC 3720 and its kin");
	cr_assert(qy_crc32c(zeros, 32) == 0x8a9136aau);
	cr_assert(qy_crc32c("", 0) == 0);
}
