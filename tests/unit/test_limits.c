/* SPDX-License-Identifier: MIT */
/* The level of pressure, and the soft limits of the process and of arenas, on a machine that the test plays. Hard
 * limits: test_hard_limit.c. What is told of them: test_events.c. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <sched.h>

#include "tests/unit/eight_threads.h"
#include "tests/unit/limits.h"

static void psi(uint64_t some, uint64_t full)
{
	char text[256];

	snprintf(text, sizeof(text), "some avg10=0.00 avg60=0.00 avg300=0.00 total=%" PRIu64
		 "\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=%" PRIu64 "\n", some, full);
	fake_os_file("/proc/pressure/memory", text);
}

/* A process that is large enough to be looked after. Nothing of it is touched. */
static void *be_large(void)
{
	void *p = quarry_malloc(64 * MIB);

	cr_assert_not_null(p);
	return p;
}

/* ---- the level ---- */

Test(limits, a_filled_limit_is_pressure_at_once)
{
	begin();
	be_large();
	group(1000, 700);
	cr_assert(tick_after(100), "a large process is looked at again");
	cr_assert_eq(qy_pressure_level(), NONE);
	used_in_group(849);
	tick_after(100);
	cr_assert_eq(qy_pressure_level(), NONE);
	expect_no_event();
	used_in_group(850);
	tick_after(99);
	cr_assert_eq(qy_pressure_level(), NONE, "looked at too soon");
	tick_after(1);
	cr_assert_eq(qy_pressure_level(), SOME);
	expect_event(QUARRY_EVENT_PRESSURE, SOME, NONE);
	used_in_group(985);
	tick_after(100);
	cr_assert_eq(qy_pressure_level(), CRITICAL, "and by more than one step");
	expect_event(QUARRY_EVENT_PRESSURE, CRITICAL, SOME);
}

Test(limits, pressure_falls_by_steps_and_late)
{
	uint64_t since;

	begin();
	be_large();
	group(1000, 980);
	tick_after(100);
	expect_event(QUARRY_EVENT_PRESSURE, CRITICAL, NONE);
	used_in_group(100);
	for (int level = CRITICAL; level > NONE; level--) {
		since = qy_os->now_ms();
		while (qy_pressure_level() == level) {
			expect_no_event();
			cr_assert(tick_after(100));
		}
		cr_assert_eq(qy_os->now_ms() - since, 1000, "step %d after %" PRIu64 " ms", level, qy_os->now_ms() - since);
		expect_event(QUARRY_EVENT_PRESSURE, level - 1, level);
	}
}

/* What hovers about a threshold changes nothing. */
Test(limits, hysteresis)
{
	begin();
	be_large();
	group(1000, 851);
	tick_after(100);
	expect_event(QUARRY_EVENT_PRESSURE, SOME, NONE);
	for (int i = 0; i < 100; i++) {
		used_in_group(i % 2 ? 849 : 801);
		tick_after(500);
	}
	expect_no_event();
	cr_assert_eq(qy_pressure_level(), SOME);
	used_in_group(799);
	tick_after(500);
	/* Just before it would have fallen, it is as high again. */
	used_in_group(801);
	tick_after(400);
	used_in_group(799);
	tick_after(900);
	expect_no_event();
	tick_after(100);
	expect_event(QUARRY_EVENT_PRESSURE, NONE, SOME);
	used_in_group(849);
	tick_after(500);
	expect_no_event();
}

Test(limits, waiting_for_memory_is_pressure)
{
	static const struct {
		unsigned some, full; /* 1/1000 */
		int level;
	} cases[] = {
		{ 49, 0, NONE }, { 50, 0, SOME },	 { 199, 0, SOME },   { 200, 0, HIGH },	    { 1000, 0, HIGH },
		{ 0, 19, NONE }, { 20, 20, SOME }, { 50, 50, HIGH }, { 249, 249, HIGH }, { 250, 250, CRITICAL },
	};
	uint64_t some = 0, full = 0;

	begin();
	be_large();
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		psi(some, full);
		tick_after(1000);
		for (int n = 0; n < 4 && qy_pressure_level() != NONE; n++)
			tick_after(1000);
		cr_assert_eq(qy_pressure_level(), NONE);
		some += 1000 * cases[i].some;
		full += 1000 * cases[i].full;
		psi(some, full);
		tick_after(1000);
		cr_assert_eq(qy_pressure_level(), cases[i].level, "case %zu: level %d", i, qy_pressure_level());
	}
}

Test(limits, the_kernel_reclaiming_at_a_limit_is_high_pressure)
{
	begin();
	be_large();
	group(1000, 100);
	fake_os_file(OWN "/memory.events", "low 0\nhigh 3\nmax 0\noom 0\n");
	tick_after(100);
	cr_assert_eq(qy_pressure_level(), NONE);
	fake_os_file(OWN "/memory.events", "low 0\nhigh 4\nmax 0\noom 0\n");
	tick_after(100);
	expect_event(QUARRY_EVENT_PRESSURE, HIGH, NONE);
	tick_after(1000);
	tick_after(1000);
	cr_assert_eq(qy_pressure_level(), NONE);
	qy_events_deliver();
	heard_count = 0;
	file(OWN "/memory.high", "%" PRIu64 "\n", 101 * MIB);
	tick_after(100);
	expect_event(QUARRY_EVENT_PRESSURE, HIGH, NONE);
}

Test(limits, a_machine_with_little_left)
{
	begin();
	be_large();
	fake_os_file("/proc/meminfo", "MemTotal: 67108864 kB\nMemFree: 0 kB\nMemAvailable: 4194304 kB\n");
	tick_after(100);
	cr_assert_eq(qy_pressure_level(), NONE, "6 %% of 64 GiB is much");
	fake_os_file("/proc/meminfo", "MemTotal: 67108864 kB\nMemFree: 0 kB\nMemAvailable: 2097151 kB\n");
	tick_after(100);
	cr_assert_eq(qy_pressure_level(), HIGH);
	fake_os_file("/proc/meminfo", "MemTotal: 1048576 kB\nMemFree: 0 kB\nMemAvailable: 20000 kB\n");
	tick_after(100);
	cr_assert_eq(qy_pressure_level(), CRITICAL);
}

Test(limits, the_address_space_is_a_limit)
{
	quarry_health_report r = { .struct_size = sizeof(r) };

	begin();
	be_large();
	fake_os_address_limit(1000 * MIB);
	file("/proc/self/statm", "%" PRIu64 " 1 1 1 0 1 0\n", 930 * MIB / qy_os_page_size());
	tick_after(100);
	cr_assert_eq(qy_pressure_level(), HIGH);
	cr_assert_eq(quarry_health(&r), 0);
	cr_assert_eq(r.limit_kind, QUARRY_LIMIT_ADDRESS_SPACE);
	cr_assert_eq(r.limit_per_mille, 930);
}

/* ENOMEM for the group's sake comes before the kernel knows: that counts as well. */
Test(limits, what_the_group_refuses_is_pressure)
{
	begin();
	be_large();
	group(1000, 100);
	tick_after(100);
	cr_assert_eq(qy_pressure_level(), NONE);
	cr_assert_null(quarry_malloc(2000 * MIB));
	cr_assert_eq(errno, ENOMEM);
	tick_after(100);
	cr_assert_eq(qy_pressure_level(), HIGH);
}

Test(limits, a_small_process_reads_no_file)
{
	unsigned long reads;

	begin();
	quarry_free(quarry_malloc(100));
	group(1000, 990);
	tick_after(100);
	reads = fake_os_calls(FAKE_READ_FILE);
	for (int i = 0; i < 100; i++)
		cr_assert_not(tick_after(500), "and need not be looked at again");
	cr_assert_eq(fake_os_calls(FAKE_READ_FILE), reads);
	cr_assert_eq(qy_pressure_level(), NONE);
	used_in_group(100);
	be_large();
	used_in_group(990);
	cr_assert(tick_after(500));
	cr_assert_eq(qy_pressure_level(), CRITICAL);
}

Test(limits, what_the_level_makes_of_the_decay)
{
	begin();
	be_large();
	group(1000, 100);
	tick_after(100);
	cr_assert_eq(qy_limits_decay(1000), 1000);
	used_in_group(860);
	tick_after(100);
	cr_assert_eq(qy_limits_decay(1000), 250);
	cr_assert_eq(qy_limits_decay(0), 0);
	cr_assert_eq(qy_limits_decay(-1), -1);
	used_in_group(930);
	tick_after(100);
	cr_assert_eq(qy_limits_decay(1000), 0);
	cr_assert_eq(qy_limits_decay(-1), 0, "never by time, but what presses is not time");
	used_in_group(100);
	for (int i = 0; i < 4; i++)
		tick_after(1000);
	cr_assert_eq(qy_limits_decay(1), 1);
	cr_assert_eq(qy_limits_decay(-1), -1);
	set_bytes("soft_limit", 1);
	tick_after(100);
	cr_assert_eq(qy_limits_decay(-1), 0, "the limit that the program set");
}

/* Dirty memory goes back at once when pressure comes, by the pass that sees it. */
Test(limits, high_pressure_gives_back_what_is_dirty)
{
	struct qy_manager *node;
	void *p;

	begin();
	set("reclaim", "series");
	set("reclaim_interval", "1");
	set("decay_ms", "3600000");
	p = be_large();
	memset(p, 1, 64 * MIB);
	quarry_free(p);
	group(1000, 100);
	node = qy_manager_of_node(0);
	cr_assert_geq(qy_read(&node->dirty_pages) * QY_PAGE, 64 * MIB);
	for (uint32_t n = 1; n < 200; n++) {
		fake_os_advance(100);
		qy_reclaim_tick(n * 4096);
	}
	cr_assert_geq(qy_read(&node->dirty_pages) * QY_PAGE, 60 * MIB, "%" PRIu64 " pages",
		      qy_read(&node->dirty_pages));
	used_in_group(930);
	for (uint32_t n = 1; n < 2000 && qy_read(&node->dirty_pages) != 0; n++) {
		fake_os_advance(100);
		qy_reclaim_tick(n * 4096);
	}
	cr_assert_eq(qy_read(&node->dirty_pages), 0, "%" PRIu64 " pages", qy_read(&node->dirty_pages));
}

/* ---- soft limits ---- */

Test(limits, the_processs_soft_limit)
{
	uint64_t before;
	void *p;

	begin();
	p = quarry_malloc(100);
	before = sum_used();
	set_bytes("soft_limit", before + 10 * MIB);
	tick_after(100);
	expect_no_event();
	quarry_free(p);
	p = quarry_malloc(12 * MIB);
	cr_assert_not_null(p, "it is soft");
	cr_assert(tick_after(100));
	expect_event(QUARRY_EVENT_SOFT_LIMIT, 1, 0);
	cr_assert_null(heard[0].arena);
	cr_assert_geq(heard[0].bytes, before + 12 * MIB);
	cr_assert_eq(heard[0].limit, before + 10 * MIB);
	cr_assert_eq(qy_limits_decay(1000), 0);
	quarry_free(p);
	tick_after(100);
	expect_no_event();
	qy_reclaim_now();
	tick_after(100);
	expect_event(QUARRY_EVENT_SOFT_LIMIT, 0, 1);
	cr_assert_eq(qy_limits_decay(1000), 1000);
	/* Without a limit there is nothing to be above of. */
	set_bytes("soft_limit", 1);
	tick_after(100);
	expect_event(QUARRY_EVENT_SOFT_LIMIT, 1, 0);
	set_bytes("soft_limit", 0);
	tick_after(100);
	expect_event(QUARRY_EVENT_SOFT_LIMIT, 0, 1);
}

Test(limits, an_arenas_soft_limit)
{
	quarry_arena_attr attr = { .soft_limit = 10 * MIB, .name = "soft" };
	quarry_health_report r = { .struct_size = sizeof(r) };
	quarry_arena *a;
	void *p;

	begin();
	a = quarry_arena_create(&attr);
	p = quarry_arena_malloc(a, 11 * MIB);
	cr_assert_not_null(p);
	cr_assert(tick_after(100), "so long as one is above, it is looked at again");
	expect_event(QUARRY_EVENT_SOFT_LIMIT, 1, 0);
	cr_assert_eq(heard[0].arena, a);
	cr_assert_eq(heard[0].limit, 10 * MIB);
	cr_assert_eq(quarry_health(&r), 0);
	cr_assert_eq(r.arenas_above_soft, 1);
	cr_assert_eq(r.reasons, QUARRY_HEALTH_SOFT_LIMIT);
	cr_assert_eq(r.state, QUARRY_HEALTH_YELLOW);
	cr_assert_eq(qy_limits_decay(1000), 1000, "others are not concerned");
	/* But for what threads hold, which is of all arenas. */
	cr_assert_eq(qy_limits_threads_decay(-1), 1000);
	cr_assert_eq(qy_limits_threads_decay(60000), 1000);
	cr_assert_eq(qy_limits_threads_decay(100), 100);
	quarry_free(p);
	quarry_purge(a);
	tick_after(100);
	cr_assert_eq(qy_limits_threads_decay(-1), -1);
	expect_event(QUARRY_EVENT_SOFT_LIMIT, 0, 1);
	cr_assert_eq(quarry_arena_destroy(a), 0);
}

static uint64_t sum_held(void)
{
	uint64_t sum = sum_used();

	for (struct qy_manager *m = qy_manager_next(NULL); m != NULL; m = qy_manager_next(m))
		sum += qy_read(&m->dirty_pages) << QY_PAGE_SHIFT;
	return sum;
}

/* 60 blocks of a megabyte, and all of them free; the clock stands still, and nobody calls again. */
static void use_and_free(quarry_arena *a)
{
	void *blocks[60];

	for (int i = 0; i < 60; i++)
		cr_assert_not_null(blocks[i] = quarry_arena_malloc(a, 1000000));
	for (int i = 0; i < 60; i++)
		quarry_free(blocks[i]);
}

/* Of slabs that a few survivors keep, what counts is in memory: where all the rest has gone back, nothing is above. */
Test(limits, pages_that_were_given_back_do_not_count)
{
	static char *p[2000];

	begin();
	for (int i = 0; i < 2000; i++)
		cr_assert_not_null(p[i] = memset(quarry_malloc(30000), 1, 30000));
	set_bytes("soft_limit", 20 * MIB);
	tick_after(1000);
	expect_event(QUARRY_EVENT_SOFT_LIMIT, 1, 0);
	for (int i = 0; i < 2000; i++)
		if (i % 20 != 0)
			quarry_free(p[i]);
	quarry_purge(NULL);
	cr_assert_gt(sum_used(), 20 * MIB, "the slabs stay");
	tick_after(1000);
	expect_event(QUARRY_EVENT_SOFT_LIMIT, 0, 1);
	/* And count again as they are used. */
	for (int i = 0; i < 2000; i++)
		if (i % 20 != 0)
			cr_assert_not_null(p[i] = quarry_malloc(30000));
	tick_after(1000);
	expect_event(QUARRY_EVENT_SOFT_LIMIT, 1, 0);
	/* Nor when their slabs are no more. */
	for (int i = 0; i < 2000; i++)
		if (i % 20 != 0)
			quarry_free(p[i]);
	quarry_purge(NULL);
	for (int i = 0; i < 2000; i += 20)
		quarry_free(p[i]);
	quarry_purge(NULL);
	for (struct qy_manager *m = qy_manager_next(NULL); m != NULL; m = qy_manager_next(m))
		cr_assert_eq(qy_read(&m->absent_pages), 0);
}

/* Without a thread, what is free above a soft limit goes back by the very calls that free it. */
Test(limits, free_memory_above_the_processs_soft_limit_goes_at_once)
{
	static const char *const modes[] = { "series", "timer" };
	uint64_t limit;

	begin();
	quarry_free(quarry_malloc(100));
	limit = sum_held() + 20 * MIB;
	set_bytes("soft_limit", limit);
	use_and_free(NULL);
	cr_assert_gt(sum_held(), limit + 30 * MIB, "nobody reclaims");
	qy_reclaim_now();
	tick_after(100);
	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		quarry_stats stats = { .version = QUARRY_STATS_VERSION };

		set("reclaim", modes[i]);
		heard_count = 0;
		use_and_free(NULL);
		cr_assert_leq(sum_held(), limit + MIB, "%s: %" PRIu64, modes[i], sum_held() - limit);
		cr_assert_eq(quarry_stats_get(NULL, &stats), 0);
		cr_assert_eq(stats.reclaimer, 0);
		expect_event(QUARRY_EVENT_SOFT_LIMIT, 1, 0);
		set("reclaim", "off");
		qy_reclaim_now();
		tick_after(100);
		expect_event(QUARRY_EVENT_SOFT_LIMIT, 0, 1);
	}
	/* Below it, all of it stays for its time. */
	set("reclaim", "series");
	set_bytes("soft_limit", limit + 100 * MIB);
	use_and_free(NULL);
	cr_assert_gt(sum_held(), limit + 30 * MIB);
}

Test(limits, free_memory_above_an_arenas_soft_limit_goes_at_once)
{
	quarry_arena_attr attr = { .soft_limit = 20 * MIB, .name = "soft" };
	quarry_arena *a, *later;
	uint64_t before;

	begin();
	set("reclaim", "series");
	quarry_free(quarry_malloc(100));
	before = sum_held();
	use_and_free(NULL);
	cr_assert_gt(sum_held(), before + 30 * MIB, "there is no limit");
	qy_reclaim_now();
	a = quarry_arena_create(&attr);
	later = quarry_arena_create(NULL);
	cr_assert_eq(quarry_arena_set_limits(later, 0, 20 * MIB), 0);
	before = sum_held();
	use_and_free(a);
	cr_assert_leq(sum_held(), before + 21 * MIB, "%" PRIu64, sum_held() - before);
	use_and_free(later);
	cr_assert_leq(sum_held(), before + 42 * MIB, "%" PRIu64, sum_held() - before);
}

/* A buffer that is used again and again is little beside the limit, and costs no call of the kernel each time. */
Test(limits, a_little_free_memory_above_the_soft_limit_waits_for_a_pass)
{
	quarry_stats stats = { .version = QUARRY_STATS_VERSION };
	void *p;

	begin();
	set("reclaim", "series");
	cr_assert_not_null(p = quarry_malloc(70 * MIB));
	set_bytes("soft_limit", 64 * MIB);
	for (int i = 0; i < 100; i++)
		quarry_free(quarry_malloc(MIB));
	cr_assert_eq(quarry_stats_get(NULL, &stats), 0);
	cr_assert_eq(stats.purges, 0);
	quarry_free(p);
}
