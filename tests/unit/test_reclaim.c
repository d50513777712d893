/* SPDX-License-Identifier: MIT */
/* Giving back, with a clock that the test moves: what goes when, and what does not. Who does it: test_reclaimer.c. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tests/unit/reclaim_model.h"

/* ---- when ---- */

/* All of it after decay_ms, nothing at once, and in between along the curve, to the frame. */
Test(reclaim, it_goes_back_along_a_smooth_curve)
{
	const double whole = 64.0 * MIB;
	size_t before;
	char *p;

	begin(0);
	p = make_dirt(64 * MIB);
	before = resident_pages(p, 64 * MIB / QY_PAGE);
	cr_assert_eq(before, 64 * MIB / QY_PAGE);
	cr_assert_eq(purge(DECAY), 0);
	while (qy_os->now_ms() < START + DECAY) {
		double age, least, most;
		size_t left;

		cr_assert_gt(next_due, qy_os->now_ms(), "there is more to come");
		cr_assert_leq(next_due, START + DECAY);
		fake_os_clock(next_due);
		purge(DECAY);
		left = resident_pages(p, 64 * MIB / QY_PAGE) * QY_PAGE;
		cr_assert_leq(left, before * QY_PAGE);
		before = left / QY_PAGE;
		/* It may be a step and a frame off, and is done a little early. */
		age = (double)(qy_os->now_ms() - START) / DECAY;
		least = whole * (1 - age * age * (3 - 2 * age)) - whole * 0.2 - 2 * MIB;
		most = whole * (1 - age * age * (3 - 2 * age)) + whole * 0.1 + 2 * MIB;
		cr_expect(least <= 0 || (double)left >= least, "%zu bytes left at %.3f, and not %.0f", left, age, least);
		cr_expect((double)left <= most, "%zu bytes left at %.3f, more than %.0f", left, age, most);
		if (left == 0)
			break;
	}
	cr_assert_eq(dirty(), 0);
	cr_assert_eq(next_due, UINT64_MAX);
	cr_assert_leq(qy_os->now_ms(), START + DECAY);
	cr_assert_eq(purge(DECAY), 0);
}

/* Pages of a frame in use, as well: the small and the large. */
Test(reclaim, pages_between_live_ones_go_back_too)
{
	char *p[40];

	begin(0);
	for (unsigned i = 0; i < 40; i++)
		p[i] = get(40 * KIB);
	for (unsigned i = 0; i < 40; i += 2)
		cr_assert(qy_large_free(p[i]));
	fake_os_advance(DECAY);
	cr_assert_eq(purge(DECAY), 20 * 40 * KIB);
	for (unsigned i = 0; i < 40; i++) {
		cr_assert_eq(resident_pages(p[i], 10), i % 2 ? 10 : 0);
		if (i % 2)
			content_check(p[i], 10, 42);
	}
	cr_assert_eq(dirty(), 0);
}

Test(reclaim, what_was_left_alone_longest_goes_first)
{
	char *p[3], *wall[3];
	size_t left[3];

	begin(0);
	for (int i = 0; i < 3; i++) {
		p[i] = get(4 * MIB);
		wall[i] = get(4 * MIB);
	}
	for (int i = 2; i >= 0; i--) {
		cr_assert(qy_large_free(p[i]));
		fake_os_advance(100);
	}
	for (int n = 0; n < 40 && next_due != UINT64_MAX; n++) {
		purge(DECAY);
		for (int k = 0; k < 3; k++)
			left[k] = resident_pages(p[k], 4 * MIB / QY_PAGE);
		cr_assert(left[2] == 0 || left[1] == 4 * MIB / QY_PAGE, "%zu %zu", left[2], left[1]);
		cr_assert(left[1] == 0 || left[0] == 4 * MIB / QY_PAGE, "%zu %zu", left[1], left[0]);
		fake_os_advance(31);
	}
	cr_assert_eq(dirty(), 0);
	content_check(wall[1], 4 * MIB / QY_PAGE, 42);
}

/* Whole huge pages go before parts of others that are in use, though these were left alone longer. */
Test(reclaim, whole_huge_pages_go_first)
{
	char *part, *wall, *whole;

	begin(0);
	part = get(1 * MIB);
	wall = get(512 * KIB);
	whole = get(4 * MIB);
	cr_assert(qy_large_free(part));
	fake_os_advance(100);
	cr_assert(qy_large_free(whole));
	fake_os_advance(400);
	cr_assert_gt(purge(DECAY), 0);
	cr_assert_eq(resident_pages(whole, 4 * MIB / QY_PAGE), 0);
	cr_assert_eq(resident_pages(part, 1 * MIB / QY_PAGE), 1 * MIB / QY_PAGE);
	fake_os_advance(DECAY);
	cr_assert_eq(purge(DECAY), 1 * MIB);
	content_check(wall, 512 * KIB / QY_PAGE, 42);
}

/* Used again before it fell due, memory is young again when it is freed. */
Test(reclaim, memory_that_is_used_again_begins_anew)
{
	char *p;

	begin(0);
	p = make_dirt(4 * MIB);
	fake_os_advance(DECAY - 1);
	cr_assert_eq(get(4 * MIB), p);
	cr_assert(qy_large_free(p));
	cr_assert_eq(purge(DECAY), 0);
	fake_os_advance(DECAY / 10);
	cr_assert_leq(purge(DECAY), 2 * MIB);
	fake_os_advance(DECAY);
	cr_assert_geq(purge(DECAY), 2 * MIB);
	cr_assert_eq(dirty(), 0);
}

/* A pass in series is somebody's malloc: it goes over its bound by one piece at most. */
Test(reclaim, a_pass_has_a_bound)
{
	char *p[8], *wall[8];
	size_t total = 0, bytes;
	uint64_t next;

	begin(0);
	for (int i = 0; i < 8; i++) {
		p[i] = get(4 * MIB);
		wall[i] = get(2 * MIB + 1);
	}
	for (int i = 0; i < 8; i++)
		cr_assert(qy_large_free(p[i]));
	fake_os_advance(DECAY);
	while ((bytes = qy_manager_purge(m, qy_os->now_ms(), DECAY, 6 * MIB, &next)) > 0) {
		cr_expect_leq(bytes, 10 * MIB, "%zu bytes in one pass", bytes);
		total += bytes;
		if (total < 32 * MIB)
			cr_expect(next != UINT64_MAX, "there is more to come");
	}
	cr_assert_eq(total, 32 * MIB);
	cr_assert_eq(dirty(), 0);
	content_check(wall[7], 1, 42);
}

/* Of when parts of frames were used the clock's low 32 bits are kept: 49 days are no edge. */
Test(reclaim, the_clock_may_wrap)
{
	char *p, *wall;

	begin(0);
	fake_os_clock(UINT32_MAX - 100);
	p = get(1 * MIB);
	wall = get(64 * KIB);
	cr_assert(qy_large_free(p));
	fake_os_clock((uint64_t)UINT32_MAX + 100);
	cr_assert_eq(purge(DECAY), 0, "too young");
	fake_os_clock((uint64_t)UINT32_MAX - 100 + DECAY);
	cr_assert_eq(purge(DECAY), 1 * MIB);
	content_check(wall, 64 * KIB / QY_PAGE, 42);
}

/* Nor are 25 days, after which a stamp seems to lie ahead to whoever takes the difference for a signed one. */
Test(reclaim, what_was_left_alone_for_weeks_goes)
{
	char *p[40];

	for (unsigned never = 0; never < 2; never++) {
		if (never == 0)
			begin(0);
		for (unsigned i = 0; i < 40; i++)
			p[i] = get(40 * KIB);
		for (unsigned i = 0; i < 40; i += 2)
			cr_assert(qy_large_free(p[i]));
		fake_os_advance(((uint64_t)1 << 31) + DECAY);
		cr_assert_eq(purge(never ? 0 : DECAY), 20 * 40 * KIB, "decay %s", never ? "0" : "1000");
		for (unsigned i = 1; i < 40; i += 2)
			cr_assert(qy_large_free(p[i]));
		purge(0);
	}
}

/* What became free since the pass was begun is as due as all else when everything is to go. */
Test(reclaim, what_is_younger_than_the_pass_goes_too)
{
	uint64_t now;
	char *p[4];

	begin(0);
	for (unsigned i = 0; i < 4; i++)
		p[i] = get(40 * KIB);
	now = qy_os->now_ms();
	fake_os_advance(5);
	cr_assert(qy_large_free(p[1]));
	cr_assert_eq(qy_manager_purge(m, now, DECAY, SIZE_MAX, &next_due), 0);
	cr_assert_eq(qy_manager_purge(m, now, 0, SIZE_MAX, &next_due), 40 * KIB);
}

/* Between mapping a region and taking from it there is a moment without the lock: the reclaimer must not have taken it
 * away then. One that nobody takes from goes at the second look. */
Test(reclaim, a_region_just_mapped_is_spared_once)
{
	uint64_t before;

	begin(0);
	get(64 * KIB);
	before = qy_read(&m->region_count);
	cr_assert(qy_manager_more(m, 16, 1));
	cr_assert_eq(qy_read(&m->region_count), before + 1);
	purge(0);
	cr_assert_eq(qy_read(&m->region_count), before + 1);
	purge(0);
	cr_assert_eq(qy_read(&m->region_count), before);
	/* One that was used goes at once. */
	make_dirt(64 * MIB);
	cr_assert_eq(qy_read(&m->region_count), before + 1);
	purge(0);
	cr_assert_eq(qy_read(&m->region_count), before);
}

/* ---- what does not go back ---- */

Test(reclaim, decay_of_minus_one_is_never)
{
	begin(0);
	make_dirt(4 * MIB);
	fake_os_advance(1000000);
	cr_assert_eq(purge(-1), 0);
	cr_assert_eq(next_due, UINT64_MAX);
	cr_assert_eq(dirty(), 4 * MIB);
}

Test(reclaim, return_off_keeps_everything)
{
	char *p;

	begin(0);
	set("return", "0");
	p = make_dirt(4 * MIB);
	fake_os_advance(10 * DECAY);
	fake_os_forget_calls();
	cr_assert_eq(purge(DECAY), 0);
	cr_assert_eq(qy_reclaim_now(), 0);
	cr_assert_eq(quarry_purge(NULL), 0);
	cr_assert_eq(fake_os_calls(FAKE_MADVISE), 0);
	cr_assert_eq(resident_pages(p, 4 * MIB / QY_PAGE), 4 * MIB / QY_PAGE);
	cr_assert_eq(dirty(), 4 * MIB);
	set("return", "1");
	cr_assert_eq(qy_reclaim_now(), 4 * MIB);
}

/* mlockall(MCL_FUTURE), for one: MADV_DONTNEED is EINVAL. The memory is kept, and not said to be zero. */
Test(reclaim, memory_that_the_kernel_will_not_take_is_kept_as_it_is)
{
	uint64_t before;
	bool zero = true;
	char *p, *q;

	begin(0);
	before = qy_read(&qy_refused[QUARRY_REFUSED_PURGE]);
	q = get(100 * KIB);
	get(100 * KIB);
	p = make_dirt(4 * MIB);
	cr_assert(qy_large_free(q));
	fake_os_fail_advice(MADV_DONTNEED, EINVAL);
	cr_assert_eq(purge(0), 0);
	cr_assert_gt(qy_read(&qy_refused[QUARRY_REFUSED_PURGE]), before);
	cr_assert_gt(next_due, qy_os->now_ms(), "it is not tried at once again");
	cr_assert_lt(next_due, UINT64_MAX, "but it is tried again");
	cr_assert_eq(dirty(), 4 * MIB + 100 * KIB);
	cr_assert_eq(qy_read(&m->purged), 0);
	cr_assert_eq((char *)qy_large_alloc(m, 100 * KIB, QY_PAGE, &zero), q);
	cr_assert_not(zero);
	zero = true;
	cr_assert_eq((char *)qy_large_alloc(m, 4 * MIB, QY_PAGE, &zero), p);
	cr_assert_not(zero);
	content_check(p, 4 * MIB / QY_PAGE, 42);
	fake_os_heal();
	cr_assert(qy_large_free(p));
	cr_assert_eq(purge(0), 4 * MIB);
}

Test(reclaim, memory_to_be_locked_is_never_given_back)
{
	char *p;

	begin(QUARRY_ARENA_LOCKED);
	p = make_dirt(4 * MIB);
	fake_os_forget_calls();
	cr_assert_eq(purge(0), 0);
	cr_assert_eq(next_due, UINT64_MAX);
	cr_assert_eq(fake_os_advised(MADV_DONTNEED), 0);
	content_check(p, 4 * MIB / QY_PAGE, 42);
	cr_assert_eq(dirty(), 4 * MIB, "though it is free and dirty");
}

Test(reclaim, pages_of_a_pool_go_back_by_whole_regions)
{
	static struct qy_placement placement;
	bool zero = true;
	char *p;

	begin(0);
	fake_os_pool(0, 21, 16);
	m = qy_manager_create(&placement, QUARRY_PAGES_2M, "huge");
	p = make_dirt(8 * MIB);
	cr_assert_eq(m->regions->kind, QUARRY_PAGES_2M);
	cr_assert_eq(purge(DECAY), 0);
	cr_assert_eq((char *)qy_large_alloc(m, 8 * MIB, QY_PAGE, &zero), p);
	cr_assert_not(zero);
	content_check(p, 8 * MIB / QY_PAGE, 42);
	/* While a page of it is used, all of it stays. */
	cr_assert(qy_large_resize(p, 3 * MIB));
	fake_os_advance(2 * DECAY);
	fake_os_forget_calls();
	cr_assert_eq(purge(DECAY), 0);
	cr_assert_eq(fake_os_advised(MADV_DONTNEED), 0);
	cr_assert_eq(fake_os_pool_left(0, 21), 12);
	cr_assert(qy_large_free(p));
	cr_assert_eq(purge(DECAY), 0, "not due yet");
	fake_os_advance(2 * DECAY);
	cr_assert_eq(purge(DECAY), 8 * MIB);
	cr_assert_eq(fake_os_pool_left(0, 21), 16);
	cr_assert_eq(next_due, UINT64_MAX);
}

/* ---- limits ---- */

Test(reclaim, above_its_soft_limit_an_arena_keeps_nothing)
{
	begin(0);
	atomic_store(&m->soft_limit, 8 * MIB);
	make_dirt(6 * MIB);
	cr_assert_eq(purge(DECAY), 0, "under the limit, decay is decay");
	get(2 * MIB + 64 * KIB); /* uses dirty memory: still under */
	cr_assert_eq(purge(DECAY), 0);
	get(6 * MIB);
	cr_assert_gt(purge(DECAY), 0, "over it, at once");
	cr_assert_eq(dirty(), 0);
	make_dirt(4 * MIB);
	cr_assert_gt(purge(-1), 0, "even where memory never decays");
}
