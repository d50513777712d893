/* SPDX-License-Identifier: MIT */
/* What is known of one sample (quarry_inspect), its stack before all: by unwind tables and by frame pointers, and what an
 * unwinder does meanwhile. (What samples stand for: test_profile.c.) */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "include/quarry/quarry.h"
#include "tests/unit/profile.h"

static void *blocks[1000];

/* ---- one pointer ---- */

static quarry_inspection inspected(const void *p)
{
	quarry_inspection i;

	memset(&i, 0x55, sizeof(i));
	cr_assert_eq(quarry_inspect(p, &i, sizeof(i)), 0);
	return i;
}

static void check_sample(const char *p, size_t asked, uintptr_t where, uint64_t age)
{
	quarry_inspection i = inspected(p + asked - 1);

	cr_expect(i.sampled == 1 && i.state == QUARRY_VIEW_LIVE && i.address == p);
	cr_expect_eq(i.asked, asked);
	cr_expect_eq(i.age_ms, age, "%llu ms", (unsigned long long)i.age_ms);
	cr_expect(i.depth == 3 && i.stack[0] == (void *)where && i.stack[1] == place[1] && i.stack[2] == place[2]);
}

/* The only sample of its place: as figures have it. */
static void check_asked(uintptr_t where, uint64_t asked, uint64_t live)
{
	const struct qy_site *s = site_at(where);

	cr_assert_not_null(s);
	cr_expect(s->asked == asked && s->asked - s->asked_freed == asked * live && s->made == 1,
		  "%llu asked for, %llu freed", (unsigned long long)s->asked, (unsigned long long)s->asked_freed);
}

Test(profile, inspected_with_their_stacks)
{
	char *before = quarry_malloc(3000), *small, *large;
	quarry_inspection i;

	begin(1);
	os.now_ms = later;
	sleeps = 1000;
	at(0x77770);
	small = quarry_malloc(100);
	sleeps += 300;
	at(0x77771);
	large = quarry_malloc(100000);
	sleeps += 40;
	check_sample(small, 100, 0x77770, 340);
	check_sample(large, 100000, 0x77771, 40);
	/* Who allocated what there is now, not who allocated it first. */
	at(0x77772);
	large = quarry_realloc(large, 50000);
	sleeps += 2;
	check_sample(large, 50000, 0x77772, 2);
	/* What has room as it is stays the sample that it is, and is asked for otherwise. */
	at(0x77773);
	cr_assert_eq(quarry_realloc(small, 80), small);
	cr_assert_eq(quarry_realloc(large, 49000), large);
	at(0x77770);
	check_sample(small, 80, 0x77770, 342);
	at(0x77772);
	check_sample(large, 49000, 0x77772, 2);
	check_asked(0x77770, 80, 1);
	check_asked(0x77772, 49000, 1);
	/* Nothing is known of others: of what was there before, of what was freed, of a gap. */
	i = inspected(before);
	cr_expect(i.sampled == 0 && i.depth == 0 && i.asked == 0 && i.age_ms == 0 && i.stack[0] == NULL && i.stack[63] == NULL);
	quarry_free(small);
	cr_expect_eq(inspected(small).sampled, 0);
	check_asked(0x77770, 80, 0);
	/* A caller that knows less gets no more. */
	small = quarry_malloc(100);
	memset(&i, 0x55, sizeof(i));
	cr_expect_eq(quarry_inspect(small, &i, offsetof(quarry_inspection, sampled)), 0);
	cr_expect(i.mine == -1 && i.sampled == 0x55555555 && i.struct_size == sizeof(i));
}

/* What is allocated while a stack is looked at is none, and does no harm. */
static unsigned stack_that_allocates(void **frames, unsigned most)
{
	quarry_free(quarry_malloc(100));
	blocks[0] = quarry_realloc(quarry_malloc(100000), 300000);
	quarry_free(blocks[0]);
	return fake_stack(frames, most);
}

Test(profile, unwinder_may_allocate)
{
	begin(1);
	os.stack = stack_that_allocates;
	for (unsigned i = 1; i < 1000; i++)
		blocks[i] = quarry_malloc(i);
	cr_expect_eq(report().live, 999);
	for (unsigned i = 1; i < 1000; i++)
		quarry_free(blocks[i]);
	cr_expect_eq(report().live, 0);
}

/* ---- stacks ---- */

/* The real ones: whoever calls is found. */
static __attribute__((noinline)) void *call_malloc(size_t n)
{
	void *p = quarry_malloc(n);

	/* (With a frame, also where others have none.) */
	__asm__ volatile("" : : "r"(p), "r"(__builtin_frame_address(0)) : "memory");
	return p;
}

static void check_caller(const char *how)
{
	void *frames[QY_SITE_FRAMES], *p;
	bool inside = false;
	int n;

	cr_assert_eq(quarry_ctl_set("profile_stacks", how), 0);
	cr_assert_eq(quarry_profile_start(1), 0);
	quarry_thread_flush();
	p = call_malloc(100);
	n = quarry_profile_stack(p, frames, QY_SITE_FRAMES);
	cr_assert_gt(n, 0, "%s: no stack", how);
	for (int i = 0; i < n; i++)
		inside = inside || (uintptr_t)frames[i] - (uintptr_t)call_malloc < 200;
	cr_expect(inside, "%s: its caller is not among the %d frames", how, n);
	quarry_free(p);
}

Test(profile, stacks_by_tables)
{
	check_caller("tables");
}

Test(profile, stacks_by_frames)
{
	check_caller("frames");
}

static void *check_in_thread(void *how)
{
	check_caller(how);
	return NULL;
}

Test(profile, stacks_of_a_thread)
{
	pthread_t other;

	cr_assert_eq(pthread_create(&other, NULL, check_in_thread, "frames"), 0);
	cr_assert_eq(pthread_join(other, NULL), 0);
}
