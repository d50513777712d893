/* SPDX-License-Identifier: MIT */
/* Cold memory: each promise of include/quarry/lanes.h on what nobody looks at, alone. With readers, writers, moves and forks
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

#include "lib/lanes/lanes.h"
#include "tests/fake_os.h"

#define COUNT 20000
#define DIRECTORY "/tmp"

static quarry_handle handle[COUNT];

static quarry_lanes *make(const quarry_cold_attr *cold)
{
	quarry_lanes_attr attr = { .flags = QUARRY_LANES_NO_MOVER, .cold = cold };
	quarry_lanes *l = quarry_lanes_create(&attr);

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

	make_objects(l, 2000);
	(void)quarry_evict(l, handle, 2000);
	for (unsigned i = 0; i < 100; i++)
		cr_assert(quarry_handle_state(l, handle[i]) == QUARRY_HANDLE_COLD);
	quarry_enter();
	p = quarry_get_mut(l, handle[0]);
	cr_assert(p != NULL);
	p[4] = '!';
	p = (char *)(uintptr_t)quarry_get_range(l, handle[1], 8, 8);
	cr_assert(p != NULL && p[0] == 'a' + 2);
	cr_assert(quarry_get_range(l, handle[2], 8, 100000) == NULL && errno == ERANGE);
	quarry_leave();
	p = quarry_pin(l, handle[3]);
	cr_assert(p != NULL && quarry_evict(l, &handle[3], 1) == 0, "what is pinned stays");
	cr_assert(quarry_unpin(l, handle[3]) == 0 && quarry_unpin(l, handle[4]) == -1 && errno == EINVAL);
	cr_assert(quarry_prefetch(l, &handle[4], 96) == 96 && quarry_prefetch(l, handle, 100) == 0);
	(void)quarry_evict(l, handle, 2000);
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

		cr_assert(!quarry_handle_valid(l, other) && quarry_hfree(l, other) == -1 && errno == ESTALE);
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
	quarry_cold_attr cold = { .period_ms = 1 };
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

/* ---- what is asked wrongly ---- */

Test(lanes_cold, what_cannot_be_is_refused_by_name)
{
	static const struct {
		quarry_cold_attr attr;
		int error;
		const char *named;
	} wrong[] = {
		{ { .struct_size = 3 }, EINVAL, "struct_size" },
		{ { .flags = 1 }, EINVAL, "flags" },
		{ { .reserved = 1 }, EINVAL, "reserved" },
		{ { .codec = "lzma" }, EINVAL, "lzma" },
		{ { .codec = "" }, EINVAL, "codec" },
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
