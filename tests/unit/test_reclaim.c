/* SPDX-License-Identifier: MIT */
/* The reclaimer, with a clock that the test moves: what goes back when, what does not, and who does it. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "include/quarry/quarry.h"
#include "lib/cache/thread.h"
#include "lib/reclaim/reclaim.h"
#include "lib/base/refused.h"
#include "tests/fake_os.h"
#include "tests/unit/manager_model.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define START 1000000u
#define DECAY 1000

/* The library starts before main (lib/api/init.c), so the machine is made before that. */
static __attribute__((constructor(101))) void make_machine(void)
{
	setenv("QUARRY_OPTIONS", "reclaim=off,decay_ms=1000,return=on", 1);
	fake_os_install();
	fake_os_clock(START);
}

static struct qy_manager *m;
static struct books books;
static uint64_t next_due;

static void begin(uint32_t flags)
{
	model_start("reclaim");
	cr_assert(qy_start());
	m = new_manager(flags);
}

static void set(const char *name, const char *value)
{
	cr_assert_eq(quarry_ctl_set(name, value), 0, "%s", quarry_error_text());
}

static char *get(size_t size)
{
	bool zero;
	char *p = qy_large_alloc(m, size, QY_PAGE, &zero);

	cr_assert_not_null(p);
	content_write(p, qy_large_size(p) / QY_PAGE, 42);
	return p;
}

/* Make so many bytes dirty now. Multiples of 2 MiB, so that they are runs. */
static char *make_dirt(size_t size)
{
	char *p = get(size);

	cr_assert(qy_large_free(p));
	return p;
}

static size_t purge(long decay_ms)
{
	return qy_manager_purge(m, qy_os->now_ms(), decay_ms, SIZE_MAX, &next_due);
}

static uint64_t dirty(void)
{
	books_compare(m, &books);
	return books.dirty_pages * QY_PAGE;
}

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

/* ---- who ---- */

static uint64_t passes(void)
{
	return qy_reclaim_passes();
}

Test(reclaim, off_is_off)
{
	begin(0);
	make_dirt(4 * MIB);
	fake_os_advance(10 * DECAY);
	for (uint32_t n = 1; n < 100000; n++)
		qy_reclaim_tick(n);
	cr_assert_eq(passes(), 0);
	cr_assert_not(qy_reclaim_running());
	cr_assert_eq(dirty(), 4 * MIB);
}

Test(reclaim, in_series_each_so_many_calls)
{
	uint64_t before;

	begin(0);
	set("reclaim", "series");
	set("reclaim_interval", "100");
	before = passes();
	for (uint32_t n = 1; n < 100; n++)
		qy_reclaim_tick(n);
	cr_assert_eq(passes(), before, "not yet");
	qy_reclaim_tick(100);
	cr_assert_eq(passes(), before + 1);
	make_dirt(4 * MIB);
	for (uint32_t n = 101; n <= 2000; n++)
		qy_reclaim_tick(n);
	cr_assert_gt(passes(), before + 1);
	cr_assert_eq(dirty(), 4 * MIB, "it has not decayed");
	fake_os_advance(DECAY);
	for (uint32_t n = 2001; n <= 200 * 300 && dirty() != 0; n++)
		qy_reclaim_tick(n);
	cr_assert_eq(dirty(), 0);
	cr_assert_not(qy_reclaim_running());
}

/* While there is nothing to do, passes become rare; and they become frequent when there is. */
Test(reclaim, in_series_rarely_while_there_is_nothing_to_do)
{
	uint64_t early, late;
	uint32_t n = 0;

	begin(0);
	set("reclaim", "series");
	set("reclaim_interval", "10");
	while (n < 1000)
		qy_reclaim_tick(++n);
	early = passes();
	cr_assert_gt(early, 0);
	while (n < 100000)
		qy_reclaim_tick(++n);
	late = passes();
	cr_assert_lt(late - early, 10 * early, "100 times the calls");
}

/* Slabs that nobody holds, of whose objects every other lives: there is much to look at, and nothing to give back. */
static void make_half_empty(uint32_t slabs)
{
	static struct qy_heap heap;
	uint64_t wanted = qy_read(&m->used) + (uint64_t)slabs * QY_UNIT;
	void *list, *next, *kept = NULL;
	bool zero;

	qy_heap_open(&heap, m, 64);
	while (qy_read(&m->used) < wanted)
		for (list = qy_heap_refill(&heap, 6, &zero); list != NULL; list = next) {
			next = qy_next_object(list);
			if ((uintptr_t)list / qy_classes[6].size % 2 != 0)
				continue;
			qy_link_object(list, kept);
			kept = list;
		}
	qy_heap_put_back(&heap, kept);
	qy_heap_abandon(&heap);
}

static uint64_t slow_ns(void)
{
	static uint64_t ns;

	return ns += 3000000;
}

/* A pass that was cut before it came to anything goes on with the next calls, not with ever later ones. */
Test(reclaim, in_series_what_was_cut_goes_on)
{
	const struct qy_os *inner;
	struct qy_os slow;
	uint64_t before;

	begin(0);
	make_half_empty(400);
	cr_assert_geq(qy_read(&m->orphans.slabs), 390);
	slow = *(inner = qy_os);
	slow.now_ns = slow_ns;
	qy_os = &slow;
	set("reclaim", "series");
	set("reclaim_interval", "10");
	before = passes();
	for (uint32_t n = 1; n <= 300; n++) {
		fake_os_advance(1);
		qy_reclaim_tick(n);
	}
	cr_assert_geq(passes() - before, 20, "%zu passes", (size_t)(passes() - before));
	qy_os = inner;
}

/* Through malloc: a program of one thread that goes on gets smaller by itself. */
Test(reclaim, a_program_that_goes_on_shrinks_in_series)
{
	static void *p[64];
	quarry_stats stats = { .version = QUARRY_STATS_VERSION };
	uint64_t peak;

	begin(0);
	set("reclaim", "series");
	set("reclaim_interval", "50");
	for (int i = 0; i < 64; i++) {
		p[i] = quarry_malloc(MIB);
		memset(p[i], 1, MIB);
	}
	cr_assert_eq(quarry_stats_get(NULL, &stats), 0);
	peak = stats.resident;
	cr_assert_geq(peak, 64 * MIB);
	for (int i = 0; i < 64; i++)
		quarry_free(p[i]);
	for (int n = 0; n < 20000; n++) {
		quarry_free(quarry_malloc(100 * KIB));
		fake_os_advance(1);
	}
	stats.version = QUARRY_STATS_VERSION;
	cr_assert_eq(quarry_stats_get(NULL, &stats), 0);
	cr_assert_lt(stats.resident, 8 * MIB);
	cr_assert_geq(stats.purged, 60 * MIB);
	cr_assert_gt(stats.passes, 0);
	cr_assert_not(qy_reclaim_running());
}

/* On demand too pages between survivors go back, at once, be the slabs those of the thread that asks. */
Test(reclaim, on_demand_pages_between_survivors_as_well)
{
	static void *p[100000];
	quarry_arena *arenas[2] = { NULL, NULL };
	quarry_stats stats;

	begin(0);
	arenas[1] = quarry_arena_create(NULL);
	for (int k = 0; k < 2; k++) {
		uint64_t full;

		for (int i = 0; i < 100000; i++) {
			p[i] = quarry_arena_malloc(arenas[k], 300);
			memset(p[i], 1, 300);
		}
		stats.version = QUARRY_STATS_VERSION;
		cr_assert_eq(quarry_stats_get(arenas[k], &stats), 0);
		full = stats.in_use;
		for (int i = 0; i < 100000; i++)
			if (i % 50 != 0)
				quarry_free(p[i]);
		cr_assert_geq(quarry_purge(arenas[k]), full / 2);
		cr_assert_eq(quarry_purge(arenas[k]), 0, "once is all of it");
		for (int i = 0; i < 100000; i += 50)
			quarry_free(p[i]);
	}
}

/* The thread does by itself what falls due. The clock is the test's; the waiting has no bound but the test's own. */
Test(reclaim, in_parallel_by_a_thread_of_its_own, .timeout = 60)
{
	begin(0);
	set("decay_ms", "30");
	set("reclaim", "parallel");
	qy_reclaim_tick(1024);
	while (!qy_reclaim_running())
		sched_yield();
	make_dirt(4 * MIB);
	qy_reclaim_tick(1);
	fake_os_advance(1000);
	while (qy_read(&m->purged) < 4 * MIB) {
		qy_reclaim_tick(1);
		sched_yield();
	}
	/* Asleep since there was nothing, it wakes for what is new. */
	make_dirt(4 * MIB);
	fake_os_advance(1000);
	while (qy_read(&m->purged) < 8 * MIB) {
		qy_reclaim_tick(1);
		sched_yield();
	}
	qy_lock(&m->lock);
	cr_assert_eq(dirty(), 0);
	qy_unlock(&m->lock);
}

static void wait_for_purged(struct qy_manager *of, uint64_t bytes)
{
	while (qy_read(&of->purged) < bytes) {
		qy_reclaim_tick(1);
		sched_yield();
	}
}

/* What others free stays for an hour, and the thread sleeps for as long as that allows. */
Test(reclaim, the_thread_hears_of_dirt_that_falls_due_before_all_else, .timeout = 60)
{
	struct qy_manager *soon;
	uint64_t before;

	fake_os_thp_disabled(1); /* what looks for dense memory comes by often at first, and would do all of it */
	begin(0);
	soon = new_manager(0);
	atomic_store(&soon->decay_ms, 30);
	set("decay_ms", "3600000");
	set("reclaim", "parallel");
	qy_reclaim_tick(1024);
	while (!qy_reclaim_running())
		sched_yield();
	before = passes();
	make_dirt(4 * MIB);
	qy_reclaim_tick(1);
	while (passes() == before)
		sched_yield();
	for (uint64_t n = 1; n <= 3; n++) {
		bool zero;
		char *p = qy_large_alloc(soon, 4 * MIB, QY_PAGE, &zero);

		cr_assert_not_null(p);
		content_write(p, 4 * MIB / QY_PAGE, 42);
		cr_assert(qy_large_free(p));
		qy_reclaim_tick(1);
		fake_os_advance(1000);
		wait_for_purged(soon, n * 4 * MIB);
		/* (It has gone to sleep again, most likely, and is to be woken.) */
		usleep(100000);
	}
	cr_assert_eq(qy_read(&m->purged), 0);
	/* It has its rest while all that there is to wait for is the others. */
	before = passes();
	usleep(300000);
	cr_assert_leq(passes(), before + 2);
}

Test(reclaim, a_thread_that_cannot_be_had_is_done_without)
{
	int status;
	pid_t child;

	begin(0);
	set("reclaim", "auto");
	set("reclaim_interval", "10");
	/* In a child, which has one thread for sure: the test runner may have started one of its own in this process. */
	child = fork();
	cr_assert_geq(child, 0);
	if (child == 0) {
		for (uint32_t n = 1; n <= 1000; n++)
			qy_reclaim_tick(n);
		_exit(qy_reclaim_running() ? 1 : passes() == 0 ? 2 : 0);
	}
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert_eq(status, 0, "one thread, a small heap: a guest starts no threads");
}

/* ---- chores ---- */

static void *allocate_and_leave(void *p)
{
	for (int i = 0; i < 3000; i++)
		((void **)p)[i % 10] = quarry_malloc(1000);
	return NULL;
}

/* What a thread that is gone held goes back after a while, and what of it is live stays. */
Test(reclaim, what_dead_threads_held_goes_back, .timeout = 60)
{
	static void *live[10];
	struct qy_manager *node;
	uint64_t used;
	pthread_t thread;

	begin(0);
	node = qy_manager_of_node(0);
	quarry_free(quarry_malloc(1)); /* this thread is known, and takes over nobody's memory */
	cr_assert_eq(pthread_create(&thread, NULL, allocate_and_leave, live), 0);
	pthread_join(thread, NULL);
	used = qy_read(&node->used);
	cr_assert_geq(used, 3000 * 1000);
	for (int i = 0; i < 10; i++)
		content_write(live[i], 0, 1);
	set("reclaim", "series");
	set("reclaim_interval", "1");
	qy_reclaim_tick(1);
	cr_assert_eq(qy_read(&node->orphans.slabs), 0, "kept whole for a thread that may come");
	fake_os_advance(DECAY);
	for (uint32_t n = 2; n < 100000 && qy_read(&node->orphans.slabs) == 0; n++)
		qy_reclaim_tick(n);
	cr_assert_gt(qy_read(&node->orphans.slabs), 0, "its slabs are nobody's now, for anyone to take over");
	for (int i = 0; i < 10; i++)
		cr_assert_geq(quarry_usable_size(live[i]), 1000);
	qy_reclaim_now();
	cr_assert_leq(qy_read(&node->used), used);
}

/* Objects sent home to slabs that nobody holds are taken in by the pass, and the slabs go back. */
Test(reclaim, mail_for_slabs_that_nobody_holds_is_taken_in)
{
	static struct qy_heap heap;
	static void *out[64];
	bool zero;
	void *list;
	unsigned n = 0;

	begin(0);
	qy_heap_open(&heap, m, 64);
	for (int k = 0; k < 4; k++)
		for (list = qy_heap_refill(&heap, 60, &zero); list != NULL; list = qy_next_object(list))
			out[n++] = list;
	qy_heap_abandon(&heap);
	cr_assert_gt(qy_read(&m->used), 0);
	for (unsigned i = 0; i < n; i++)
		qy_heap_send(&m->orphans, out[i], out[i]);
	fake_os_advance(DECAY);
	purge(DECAY);
	cr_assert_eq(qy_read(&m->used), 0);
	fake_os_advance(DECAY);
	purge(DECAY);
	cr_assert_eq(dirty(), 0);
}

/* All managers are looked at. */
Test(reclaim, now_is_all_of_it)
{
	struct qy_manager *all[5];
	size_t bytes = 0;

	begin(0);
	for (int i = 0; i < 5; i++) {
		all[i] = m = new_manager(0);
		make_dirt((size_t)(i + 1) * 4 * MIB);
	}
	bytes = qy_reclaim_now();
	cr_assert_eq(bytes, 60 * MIB);
	for (int i = 0; i < 5; i++)
		cr_assert_eq(qy_read(&all[i]->dirty_pages), 0);
	cr_assert_eq(qy_reclaim_now(), 0);
}
