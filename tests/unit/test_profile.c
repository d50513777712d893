/* SPDX-License-Identifier: MIT */
/* Heap profiles: that what samples stand for is what was allocated, that each is known as long as it lives, wherever it
 * is freed and however it is resized, and what is written of them. (Stacks: test_profile_stacks.c. Beside threads:
 * tests/stress/profile.c; what tools make of the files: tests/profile.sh.) */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "include/quarry/quarry.h"
#include "tests/unit/profile.h"

#define MOST 100000

static void *blocks[MOST];

/* ---- what samples stand for ---- */

/* Some of each size, by malloc; how many the profile says there were is within five standard deviations. */
static void check_estimate(size_t size, unsigned count, size_t mean)
{
	quarry_profile_report before = report(), after;
	double p, sigma, usable;

	for (unsigned i = 0; i < count; i++)
		blocks[i] = quarry_malloc(size);
	usable = (double)quarry_usable_size(blocks[0]);
	after = report();
	p = 1 - exp(-usable / (double)mean);
	sigma = sqrt(count * (1 - p) / p) + 1;
	cr_expect_float_eq((double)(after.in_use_objects - before.in_use_objects), count, 5 * sigma,
			   "size %zu: %llu objects, and %u were allocated (sigma %.1f)", size,
			   (unsigned long long)(after.in_use_objects - before.in_use_objects), count, sigma);
	cr_expect_float_eq((double)(after.in_use_bytes - before.in_use_bytes), count * usable, 5 * sigma * usable);
	for (unsigned i = 0; i < count; i++)
		quarry_free(blocks[i]);
	after = report();
	cr_expect_eq(after.live, before.live);
	cr_expect_eq(after.in_use_bytes, before.in_use_bytes);
}

Test(profile, samples_stand_for_all_that_there_is)
{
	static const size_t sizes[] = { 1, 16, 64, 100, 700, 1500, 5000, 9000, 30000, 40000, 100000 };

	begin(8192);
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		check_estimate(sizes[i], sizes[i] > 2000 ? 2000 : 50000, 8192);
	/* What was freed is used again: that counts, too. */
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		check_estimate(sizes[i], sizes[i] > 2000 ? 2000 : 50000, 8192);
}

/* One object at a time, from the list of what was freed. */
Test(profile, what_is_replaced_counts)
{
	double p = 1 - exp(-64.0 / 4096), sigma = sqrt(1e6 * (1 - p) / p);
	quarry_profile_report r;

	begin(4096);
	for (unsigned i = 0; i < 1000000; i++)
		quarry_free(quarry_malloc(64));
	r = report();
	cr_expect_float_eq((double)r.allocated_objects, 1e6, 5 * sigma, "%llu (sigma %.0f)",
			   (unsigned long long)r.allocated_objects, sigma);
	cr_expect_eq(r.live, 0);
}

/* Slabs that a few keep have long lists: all that is handed out of them is drawn for. */
Test(profile, what_comes_from_long_lists_counts)
{
	static void *many[400000];
	const size_t mean = 16384, count = sizeof(many) / sizeof(many[0]);
	double p = 1 - exp(-16.0 / (double)mean), sigma;
	uint64_t before;
	size_t made = 0;

	begin(mean);
	for (size_t i = 0; i < count; i++)
		many[i] = quarry_malloc(16);
	for (unsigned round = 0; round < 5; round++) {
		for (size_t i = 0; i < count; i++)
			if (i % 500 != 0)
				quarry_free(many[i]);
		before = round == 0 ? report().allocated_objects : before;
		for (size_t i = 0; i < count; i++)
			if (i % 500 != 0) {
				many[i] = quarry_malloc(16);
				made++;
			}
	}
	sigma = sqrt((double)made * (1 - p) / p);
	cr_expect_float_eq((double)(report().allocated_objects - before), (double)made, 5 * sigma,
			   "%llu of %zu (sigma %.0f)", (unsigned long long)(report().allocated_objects - before), made,
			   sigma);
	for (size_t i = 0; i < count; i++)
		quarry_free(many[i]);
	cr_expect_eq(report().live, 0);
}

/* ---- all of it ---- */

static size_t usable_of(unsigned count)
{
	size_t sum = 0;

	for (unsigned i = 0; i < count; i++)
		sum += quarry_usable_size(blocks[i]);
	return sum;
}

Test(profile, mean_of_one_samples_all)
{
	quarry_profile_report r;
	unsigned count = 0;

	begin(1);
	for (size_t size = 0; size < 200000; size += 1 + size / 7)
		blocks[count++] = quarry_malloc(size);
	for (size_t align = 16; align <= 1 << 16; align *= 2) {
		blocks[count] = quarry_aligned_alloc(align, 3 * align);
		cr_expect_eq((uintptr_t)blocks[count++] % align, 0);
	}
	for (size_t size = 1; size < 100000; size *= 3) {
		const char *p = blocks[count++] = quarry_calloc(1, size);

		for (size_t i = 0; i < size; i++)
			cr_assert_eq(p[i], 0);
	}
	r = report();
	cr_expect_eq(r.live, count, "%llu of %u", (unsigned long long)r.live, count);
	cr_expect_eq(r.in_use_objects, count);
	cr_expect_eq(r.in_use_bytes, usable_of(count));
	for (unsigned i = 0; i < count; i++)
		quarry_free(blocks[i]);
	cr_expect_eq(report().live, 0);
	cr_expect_eq(report().in_use_bytes, 0);
}

/* As a loader and libraries leave a process: before it is known that a profile is wanted. */
Test(profile, what_stood_in_lists_is_drawn_for)
{
	for (unsigned i = 0; i < 300; i++)
		blocks[i] = quarry_malloc(8 + i % 8 * 16);
	for (unsigned i = 0; i < 200; i++)
		quarry_free(blocks[i]);
	begin(1);
	for (unsigned i = 0; i < 2000; i++)
		blocks[i] = quarry_malloc(8 + i % 8 * 16);
	cr_assert_eq(report().samples, 2000);
}

Test(profile, contents_are_nobody_elses)
{
	begin(1);
	for (unsigned i = 0; i < 3000; i++) {
		blocks[i] = quarry_malloc(i % 900);
		memset(blocks[i], (int)(i % 251), i % 900);
	}
	for (unsigned i = 0; i < 3000; i++)
		for (unsigned k = 0; k < i % 900; k++)
			cr_assert_eq(((unsigned char *)blocks[i])[k], i % 251);
	for (unsigned i = 0; i < 3000; i++)
		quarry_free(blocks[i]);
}

static void *free_all(void *count)
{
	for (unsigned i = 0; i < *(unsigned *)count; i++)
		quarry_free(blocks[i]);
	return NULL;
}

Test(profile, others_may_free)
{
	unsigned count = 5000;
	pthread_t other;

	begin(1);
	for (unsigned i = 0; i < count; i++)
		blocks[i] = quarry_malloc(i % 3000);
	cr_assert_eq(pthread_create(&other, NULL, free_all, &count), 0);
	cr_assert_eq(pthread_join(other, NULL), 0);
	cr_expect_eq(report().live, 0);
}

Test(profile, resizing)
{
	char *p;

	begin(1);
	at(0x11110);
	p = quarry_malloc(100);
	at(0x22220);
	/* In place: it is the same object. */
	p = quarry_realloc(p, 101);
	cr_expect_eq(site_at(0x11110)->made - site_at(0x11110)->freed, 1);
	/* Then each is a new one, also where large ones stay where they are. */
	for (size_t size = 1000; size < (size_t)64 << 20; size *= 2) {
		memset(p, 1, 100);
		p = quarry_realloc(p, size);
		cr_assert_not_null(p);
		cr_expect_eq(report().live, 1);
		cr_expect_eq(report().in_use_bytes, quarry_usable_size(p), "size %zu", size);
	}
	cr_expect_eq(site_at(0x11110)->made, site_at(0x11110)->freed);
	for (size_t size = (size_t)32 << 20; size > 1000; size /= 2) {
		p = quarry_realloc(p, size);
		cr_expect_eq(report().live, 1);
		cr_expect_eq(report().in_use_bytes, quarry_usable_size(p), "size %zu", size);
	}
	quarry_free(p);
	cr_expect_eq(report().live, 0);
}

Test(profile, arenas)
{
	quarry_arena_attr attr = { .struct_size = sizeof(attr) };
	quarry_arena *a = quarry_arena_create(&attr);
	const struct qy_site *s;
	void *p;

	cr_assert_not_null(a);
	begin(1);
	at(0x33330);
	for (unsigned i = 0; i < 1000; i++)
		cr_assert_not_null(quarry_arena_malloc(a, 500));
	at(0x44440);
	p = quarry_arena_malloc(a, 700);
	at(0x55550);
	p = quarry_realloc(p, 5000);
	cr_assert_eq(quarry_arena_of(p), a);
	cr_expect_eq(report().live, 1001);
	s = site_at(0x33330);
	cr_expect_eq(s->arena, site_at(0x55550)->arena);
	cr_expect_eq(s->made, 1000);
	cr_expect_eq(site_at(0x44440)->freed, 1);
	cr_expect_eq(quarry_arena_destroy(a), 0);
	cr_expect_eq(report().live, 0);
}

/* Where there is no memory for a slab of samples, what the thread has serves. */
Test(profile, at_a_limit)
{
	quarry_arena_attr attr = { .struct_size = sizeof(attr), .hard_limit = 1 << 20 };
	quarry_arena *a = quarry_arena_create(&attr);
	unsigned count = 0;

	cr_assert_not_null(a);
	while (count < MOST && (blocks[count] = quarry_arena_malloc(a, 20000)) != NULL)
		count++;
	cr_expect_eq(errno, ENOMEM);
	cr_assert_gt(count, 20);
	quarry_free(blocks[0]);
	quarry_free(blocks[1]);
	begin(1); /* neither was a sample: where they stood, none can */
	for (unsigned i = 0; i < 100; i++) {
		void *p = quarry_arena_malloc(a, 20000);

		quarry_free(p);
		p = quarry_arena_malloc(a, 100);
		quarry_free(p);
	}
	cr_expect_eq(quarry_arena_destroy(a), 0);
	cr_expect_eq(report().live, 0);
}

/* An mmap that allocates, as those that RDMA libraries patch: samples are noted inside of it. */
static void *mmap_that_allocates(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	quarry_free(quarry_malloc(300));
	return qy_os_linux.mmap(addr, len, prot, flags, fd, off);
}

Test(profile, mmap_may_allocate)
{
	begin(1);
	quarry_free(quarry_malloc(1)); /* who is not known yet would be made known in it, and again in that */
	os.mmap = mmap_that_allocates;
	for (unsigned i = 0; i < 20000; i++)
		cr_assert_not_null(blocks[i] = quarry_malloc(i % 100));
	for (unsigned i = 0; i < 20000; i++)
		quarry_free(blocks[i]);
	cr_expect_eq(report().live, 0);
}

Test(profile, stacks_of_living_samples)
{
	void *frames[2] = { NULL, NULL }, *p;

	begin(1);
	at(0x66660);
	p = quarry_malloc(48);
	cr_expect_eq(quarry_profile_stack(p, frames, 2), 3);
	cr_expect_eq(frames[0], (void *)0x66660);
	cr_expect_eq(frames[1], (void *)0x2001);
	cr_expect_eq(quarry_profile_stack((char *)p + 16, frames, 2), -1);
	quarry_free(p);
	errno = 0;
	cr_expect_eq(quarry_profile_stack(p, frames, 2), -1);
	cr_expect_eq(errno, ENOENT);
	cr_expect_eq(quarry_profile_stack(NULL, frames, 2), -1);
}

Test(profile, stopping_and_beginning_anew)
{
	void *kept, *gone;

	begin(1);
	at(0x77770);
	kept = quarry_malloc(100);
	gone = quarry_malloc(100);
	quarry_free(gone);
	cr_expect_eq(quarry_profile_stop(), 0);
	cr_expect_eq(report().mean, 0);
	quarry_thread_flush();
	quarry_free(quarry_malloc(100));
	gone = quarry_malloc(200000);
	cr_expect_eq(report().samples, 2);
	cr_expect_eq(report().live, 1);
	cr_expect_eq(quarry_profile_reset(), 0);
	cr_expect_eq(report().samples, 1);
	cr_expect_eq(report().live, 1);
	cr_expect_eq(report().allocated_objects, 1);
	quarry_free(kept);
	quarry_free(gone);
	cr_expect_eq(report().live, 0);
	/* An empty slab was kept for the next sample. */
	quarry_purge(NULL);
}

Test(profile, a_child_goes_on)
{
	void *p;
	int status;
	pid_t child;

	begin(1);
	p = quarry_malloc(100);
	child = fork();
	cr_assert_geq(child, 0);
	if (child == 0) {
		bool good = report().live == 1;

		blocks[0] = quarry_malloc(100);
		good = good && report().live == 2;
		quarry_free(p);
		quarry_free(blocks[0]);
		_exit(good && report().live == 0 ? 0 : 1);
	}
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_expect_eq(status, 0);
	cr_expect_eq(report().live, 1);
	quarry_free(p);
}

Test(profile, how_long_they_live)
{
	void *p;

	begin(1);
	os.now_ms = later;
	at(0x88880);
	sleeps = 1000;
	p = quarry_malloc(100);
	quarry_free(p);
	p = quarry_malloc(100);
	sleeps += 50;
	quarry_free(p);
	p = quarry_malloc(100);
	sleeps += 5000;
	quarry_free(p);
	p = quarry_malloc(100);
	sleeps += 2000000;
	quarry_free(p);
	cr_expect_eq(site_at(0x88880)->lives[0], QY_WEIGHT_ONE);
	cr_expect_eq(site_at(0x88880)->lives[2], QY_WEIGHT_ONE);
	cr_expect_eq(site_at(0x88880)->lives[4], QY_WEIGHT_ONE);
	cr_expect_eq(site_at(0x88880)->lives[7], QY_WEIGHT_ONE);
}

/* ---- what is wrong ---- */

Test(profile, wrong_arguments)
{
	quarry_profile_report r = { .struct_size = 0 };

	cr_expect_eq(quarry_profile_start(((size_t)1 << 30) + 1), -1);
	cr_expect_eq(errno, EINVAL);
	cr_expect(strstr(quarry_error_text(), "mean") != NULL);
	cr_expect_eq(quarry_profile_report_get(NULL), -1);
	cr_expect_eq(quarry_profile_report_get(&r), -1);
	cr_expect_eq(quarry_profile_write(-1, QUARRY_PROFILE_PPROF), -1);
	cr_expect_eq(errno, EBADF);
	cr_expect_eq(quarry_profile_write(1, 99), -1);
	cr_expect_eq(errno, EINVAL);
	begin(1);
	blocks[0] = quarry_malloc(100);
	for (int format = QUARRY_PROFILE_PPROF; format <= QUARRY_PROFILE_JSON; format++) {
		int full = open("/dev/full", O_WRONLY);

		cr_expect_eq(quarry_profile_write(full, format), -1, "format %d", format);
		cr_expect_eq(errno, ENOSPC, "format %d", format);
		close(full);
	}
	quarry_free(blocks[0]);
}

/* No memory for what is known of them: they are counted as lost, and all else works. */
static void *no_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	(void)addr, (void)len, (void)prot, (void)flags, (void)fd, (void)off;
	errno = ENOMEM;
	return (void *)-1;
}

Test(profile, no_memory_for_samples)
{
	begin(1);
	quarry_free(quarry_malloc(100));
	os.mmap = no_mmap;
	for (unsigned i = 0; i < 10000; i++)
		cr_assert_not_null(blocks[i] = quarry_malloc(32));
	cr_expect_gt(report().lost, 0);
	cr_expect_eq(report().lost + report().live, 10000);
	for (unsigned i = 0; i < 10000; i++)
		quarry_free(blocks[i]);
	cr_expect_eq(report().live, 0);
}
