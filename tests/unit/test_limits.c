/* SPDX-License-Identifier: MIT */
/* The level of pressure, the limits of the process and of arenas, who is told, and hugetlb pages under a control group,
 * on a machine that the test plays. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/limits.h"

#define NONE QUARRY_PRESSURE_NONE
#define SOME QUARRY_PRESSURE_SOME
#define HIGH QUARRY_PRESSURE_HIGH
#define CRITICAL QUARRY_PRESSURE_CRITICAL

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
	quarry_free(p);
	quarry_purge(a);
	tick_after(100);
	expect_event(QUARRY_EVENT_SOFT_LIMIT, 0, 1);
	cr_assert_eq(quarry_arena_destroy(a), 0);
}

/* ---- hard limits ---- */

Test(limits, the_processs_hard_limit_is_exact)
{
	quarry_health_report r = { .struct_size = sizeof(r) };
	uint64_t before, refused;
	void *p[64];

	begin();
	cr_assert_not_null(quarry_malloc(100)); /* (an empty slab would serve, too) */
	before = sum_used();
	refused = qy_read(&qy_refused[QUARRY_REFUSED_LIMIT]);
	set_bytes("hard_limit", before + 64 * MIB);
	for (int i = 0; i < 64; i++)
		cr_assert_not_null(p[i] = quarry_malloc(MIB), "block %d", i);
	cr_assert_eq(qy_quota_used(), before + 64 * MIB);
	cr_assert_eq(sum_used(), before + 64 * MIB);
	errno = 0;
	cr_assert_null(quarry_malloc(40 * KIB));
	cr_assert_eq(errno, ENOMEM);
	cr_assert_gt(qy_read(&qy_refused[QUARRY_REFUSED_LIMIT]), refused);
	cr_assert_null(quarry_realloc(p[0], 2 * MIB));
	cr_assert_null(quarry_aligned_alloc(4096, 40 * KIB));
	cr_assert_eq(quarry_health(&r), 0);
	cr_assert_eq(r.limit_kind, QUARRY_LIMIT_PROCESS);
	cr_assert_eq(r.limit_per_mille, 1000);
	cr_assert_gt(r.denied_process, 0);
	cr_assert(r.reasons & QUARRY_HEALTH_DENIED);
	quarry_free(p[63]);
	cr_assert_not_null(p[63] = quarry_malloc(MIB));
	/* Lowered under what is in use, it only stops new ones. */
	set_bytes("hard_limit", before + 10 * MIB);
	for (int i = 0; i < 53; i++) {
		cr_assert_null(quarry_malloc(MIB), "%d freed", i);
		quarry_free(p[i]);
	}
	quarry_free(p[53]);
	cr_assert_null(quarry_malloc(MIB));
	quarry_free(p[54]);
	cr_assert_not_null(p[54] = quarry_malloc(MIB));
	set_bytes("hard_limit", 0);
	cr_assert_not_null(quarry_malloc(100 * MIB));
}

/* What one arena does not use, another gets: nobody's quantum is lost. */
Test(limits, what_is_in_other_hands_is_taken_back)
{
	quarry_arena *a[20];
	uint64_t before;
	void *p;

	begin();
	cr_assert_not_null(quarry_malloc(100));
	for (int i = 0; i < 20; i++) {
		quarry_arena_attr attr = { .policy = i % 2 ? QUARRY_POLICY_LOCAL : QUARRY_POLICY_INTERLEAVE };

		a[i] = quarry_arena_create(&attr);
		cr_assert_not_null(a[i]);
		quarry_free(quarry_arena_malloc(a[i], 3 * MIB));
	}
	before = sum_used();
	cr_assert_eq(qy_quota_used(), before);
	cr_assert_gt(qy_quota_taken(), before + 20 * MIB, "they have quanta in hand");
	set_bytes("hard_limit", before + 5 * MIB);
	p = quarry_arena_malloc(a[3], 5 * MIB);
	cr_assert_not_null(p);
	cr_assert_eq(qy_quota_taken(), before + 5 * MIB);
	cr_assert_null(quarry_arena_malloc(a[4], 40 * KIB));
	quarry_free(p);
	cr_assert_not_null(quarry_arena_malloc(a[4], 5 * MIB));
	set_bytes("hard_limit", 0);
	/* An arena that ends gives all of it back, used or in hand. */
	before = sum_used() - 5 * MIB;
	for (int i = 0; i < 20; i++)
		cr_assert_eq(quarry_arena_destroy(a[i]), 0);
	cr_assert_leq(qy_quota_used(), before);
	cr_assert_eq(qy_quota_used(), sum_used());
	cr_assert_leq(qy_quota_taken(), before + 2 * QY_QUOTA_MOST);
}

#define THREADS 8
#define BLOCK (256 * KIB)

static pthread_barrier_t barrier;
static uint64_t limit_now;
static unsigned share;
static _Atomic(unsigned) denied, beyond;

static uint64_t next_random(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

/* All have their share at the same time, again and again; the shares are all that the limit allows. */
static void *take_shares(void *arg)
{
	quarry_arena *arena = arg;
	void *p[64];

	for (int round = 0; round < 200; round++) {
		pthread_barrier_wait(&barrier);
		for (unsigned i = 0; i < share; i++) {
			p[i] = quarry_arena_malloc(arena, BLOCK);
			denied += p[i] == NULL;
		}
		pthread_barrier_wait(&barrier);
		beyond += qy_quota_used() > limit_now || sum_used() > limit_now;
		pthread_barrier_wait(&barrier);
		for (unsigned i = 0; i < share; i++)
			quarry_free(p[i]);
	}
	return NULL;
}

static _Atomic(uint64_t) wanted;

static size_t random_size(uint64_t *random)
{
	return next_random(random) % (next_random(random) % 8 ? 3000 : MIB);
}

/* Whatever is asked for, the limit holds at every moment. First all take as much as they will ever have at once, and
 * only then does anybody free: one that is done before the next has begun would never come to the limit. */
static void *take_at_random(void *arg)
{
	uint64_t random = 20251121 + (uintptr_t)arg;
	void *p[64];

	for (int i = 0; i < 64; i++) {
		size_t size = random_size(&random);

		wanted += size;
		p[i] = quarry_malloc(size);
		denied += p[i] == NULL;
	}
	pthread_barrier_wait(&barrier);
	for (int i = 0; i < 20000; i++) {
		unsigned at = next_random(&random) % 64;
		size_t size = random_size(&random);

		quarry_free(p[at]);
		p[at] = quarry_malloc(size);
		denied += p[at] == NULL;
		beyond += qy_quota_taken() > limit_now;
	}
	for (int i = 0; i < 64; i++)
		quarry_free(p[i]);
	quarry_thread_flush();
	return NULL;
}

static void run(void *(*body)(void *), void *const *args)
{
	pthread_t threads[THREADS];

	pthread_barrier_init(&barrier, NULL, THREADS);
	denied = beyond = 0;
	for (int i = 0; i < THREADS; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, body, args[i]), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
}

Test(limits, exact_under_eight_threads, .timeout = 120)
{
	void *arenas[THREADS] = { NULL };
	uint64_t before;

	begin();
	share = 16;
	limit_now = UINT64_MAX;
	arenas[0] = quarry_arena_create(NULL);
	for (int i = 1; i < THREADS; i++)
		arenas[i] = i < 5 ? quarry_arena_create(NULL) : arenas[0];
	run(take_shares, arenas); /* everybody is known, and has what it needs besides */
	cr_assert_eq(denied, 0);
	before = qy_quota_used();
	cr_assert_eq(before, sum_used());
	limit_now = before + THREADS * share * BLOCK;
	set_bytes("hard_limit", limit_now);
	run(take_shares, arenas);
	cr_assert_eq(denied, 0, "%u requests that fit were refused", denied);
	cr_assert_eq(beyond, 0, "%u times beyond the limit", beyond);
	cr_assert_eq(qy_quota_used(), sum_used());
	/* One block less, and somebody is refused. */
	limit_now = before + THREADS * share * BLOCK - 1;
	set_bytes("hard_limit", limit_now);
	run(take_shares, arenas);
	cr_assert_geq(denied, 200, "%u", denied);
	cr_assert_eq(beyond, 0);
}

Test(limits, held_at_every_moment_under_eight_threads, .timeout = 120)
{
	void *numbers[THREADS];

	begin();
	for (uintptr_t i = 0; i < THREADS; i++)
		numbers[i] = (void *)i;
	quarry_free(quarry_malloc(1));
	limit_now = sum_used() + 24 * MIB;
	set_bytes("hard_limit", limit_now);
	run(take_at_random, numbers);
	fprintf(stderr, "test_limits: %u of %d requests refused\n", denied, THREADS * 20064);
	cr_assert_gt(wanted, 24 * MIB, "they want more than there is");
	cr_assert_gt(denied, 0);
	cr_assert_eq(beyond, 0, "%u times beyond the limit", beyond);
	/* (Two figures, read one after the other: the reclaimer may be putting a slab back. What is wrong stays so.) */
	for (int tries = 0; tries < 10000 && qy_quota_used() != sum_used(); tries++)
		sched_yield();
	cr_assert_eq(qy_quota_used(), sum_used());
}

/* The first is told at once, those that follow once a second. */
Test(limits, denials_are_told_as_a_series)
{
	quarry_arena_attr attr = { .hard_limit = 10 * MIB };
	quarry_arena *a;

	begin();
	a = quarry_arena_create(&attr);
	cr_assert_null(quarry_arena_malloc(a, 11 * MIB));
	cr_assert_eq(heard_count, 1, "it is told by the call that is refused");
	cr_assert_eq(heard[0].kind, QUARRY_EVENT_HARD_LIMIT);
	cr_assert_eq(heard[0].arena, a);
	cr_assert_eq(heard[0].count, 1);
	cr_assert_eq(heard[0].bytes, 11 * MIB);
	cr_assert_eq(heard[0].limit, 10 * MIB);
	heard_count = 0;
	for (int i = 0; i < 50; i++)
		cr_assert_null(quarry_arena_malloc(a, 12 * MIB));
	cr_assert(tick_after(500), "something is to be told later");
	expect_no_event();
	tick_after(500);
	expect_event(QUARRY_EVENT_HARD_LIMIT, 1, 0);
	cr_assert_eq(heard[0].count, 50, "%" PRIu64, heard[0].count);
	cr_assert_eq(heard[0].bytes, 12 * MIB);
	tick_after(5000);
	expect_no_event();
	cr_assert_null(quarry_arena_malloc(a, 11 * MIB));
	cr_assert_eq(heard_count, 1);
}

/* ---- being told ---- */

static unsigned depth, deepest, calls;
static pthread_t caller;

static void use_everything(const quarry_event *event, void *ctx)
{
	quarry_arena_attr attr = { .hard_limit = MIB };
	quarry_health_report r = { .struct_size = sizeof(r) };
	quarry_stats stats = { .version = QUARRY_STATS_VERSION };
	quarry_arena *a;
	void *p[200];

	(void)event;
	cr_assert_eq(ctx, &calls);
	calls++;
	caller = pthread_self();
	if (++depth > deepest)
		deepest = depth;
	for (int i = 0; i < 200; i++)
		cr_assert_not_null(p[i] = quarry_malloc((size_t)i * 5000));
	for (int i = 0; i < 200; i++)
		quarry_free(p[i]);
	cr_assert_not_null(a = quarry_arena_create(&attr));
	/* An event from inside: told afterwards, not from here. */
	cr_assert_null(quarry_arena_malloc(a, 2 * MIB));
	cr_assert_eq(quarry_arena_destroy(a), 0);
	cr_assert_eq(quarry_health(&r), 0);
	cr_assert_eq(quarry_stats_get(NULL, &stats), 0);
	quarry_purge(NULL);
	if (calls == 3)
		cr_assert_eq(quarry_on_event(NULL, NULL), 0);
	depth--;
}

Test(limits, the_function_may_do_anything_and_is_not_called_from_inside)
{
	quarry_arena_attr attr = { .hard_limit = MIB };
	quarry_arena *a;

	begin();
	a = quarry_arena_create(&attr);
	quarry_on_event(use_everything, &calls);
	errno = 0;
	cr_assert_null(quarry_arena_malloc(a, 2 * MIB));
	cr_assert_eq(errno, ENOMEM, "%d", errno);
	cr_assert_eq(calls, 3, "its own events came after it, until it wanted no more: %u", calls);
	cr_assert_eq(deepest, 1);
	cr_assert(pthread_equal(caller, pthread_self()));
	fake_os_advance(5000);
	cr_assert_null(quarry_arena_malloc(a, 2 * MIB));
	qy_events_deliver();
	cr_assert_eq(calls, 3);
}

static void note(int state)
{
	quarry_event event = { .kind = QUARRY_EVENT_PRESSURE, .state = state, .count = 1 };

	qy_events_note(&event);
}

Test(limits, a_full_ring_counts_what_it_drops)
{
	begin();
	for (int i = 0; i < 100; i++)
		note(i);
	cr_assert_eq(qy_events_lost(), 36);
	qy_events_deliver();
	cr_assert_eq(heard_count, 64);
	for (int i = 0; i < 64; i++)
		cr_assert_eq(heard[i].state, i, "in their order");
	cr_assert_eq(heard[0].lost, 36);
	heard_count = 0;
	/* Round and round. */
	for (int i = 0; i < 1000; i++) {
		note(i);
		expect_event(QUARRY_EVENT_PRESSURE, i, 0);
	}
	/* Nobody listens: nothing is kept. */
	quarry_on_event(NULL, NULL);
	note(1);
	quarry_on_event(hear, NULL);
	expect_no_event();
	note(1);
	quarry_on_event(NULL, NULL);
	quarry_on_event(hear, NULL);
	expect_no_event();
	cr_assert_eq(qy_events_lost(), 36);
}

static _Atomic(unsigned) inside;

static void *note_many(void *unused)
{
	(void)unused;
	for (int i = 0; i < 20000; i++) {
		note(i);
		if (i % 4 == 0)
			qy_events_deliver();
	}
	return NULL;
}

static void hear_alone(const quarry_event *event, void *ctx)
{
	beyond += atomic_fetch_add(&inside, 1) != 0;
	hear(event, ctx);
	atomic_fetch_sub(&inside, 1);
}

Test(limits, no_event_is_told_twice_or_forgotten, .timeout = 60)
{
	void *none[THREADS] = { NULL };
	uint64_t lost;

	begin();
	quarry_on_event(hear_alone, NULL);
	lost = qy_events_lost();
	run(note_many, none);
	qy_events_deliver();
	cr_assert_eq(beyond, 0, "two at once");
	cr_assert_eq(heard_count + qy_events_lost() - lost, THREADS * 20000, "%u heard, %" PRIu64 " lost", heard_count,
		     qy_events_lost());
	cr_assert_eq(qy_events_waiting, 0);
}

static _Atomic(uint32_t) entered, may_leave, left;

static void stay(const quarry_event *event, void *ctx)
{
	(void)event;
	(void)ctx;
	atomic_store(&entered, 1);
	while (atomic_load(&may_leave) == 0)
		sched_yield();
	atomic_store(&left, 1);
}

static void *deliver(void *unused)
{
	(void)unused;
	qy_events_deliver();
	return NULL;
}

static void *let_leave(void *unused)
{
	(void)unused;
	for (int i = 0; i < 1000; i++)
		sched_yield();
	atomic_store(&may_leave, 1);
	return NULL;
}

Test(limits, the_function_before_has_ended, .timeout = 60)
{
	pthread_t one, two;

	begin();
	quarry_on_event(stay, NULL);
	note(1);
	pthread_create(&one, NULL, deliver, NULL);
	while (atomic_load(&entered) == 0)
		sched_yield();
	/* Whoever comes meanwhile is not held up. */
	note(2);
	qy_events_deliver();
	pthread_create(&two, NULL, let_leave, NULL);
	quarry_on_event(NULL, NULL);
	cr_assert_eq(left, 1);
	pthread_join(one, NULL);
	pthread_join(two, NULL);
}

static int child_status;

static void fork_inside(const quarry_event *event, void *ctx)
{
	pid_t child;

	(void)event;
	(void)ctx;
	if (calls++ > 0)
		return;
	child = fork();
	if (child == 0) {
		note(7); /* of its own, told when this returns */
		return;
	}
	waitpid(child, &child_status, 0);
}

Test(limits, a_forked_child_is_told_of_its_own, .timeout = 60)
{
	pid_t parent = getpid(), child;
	int status = -1;

	begin();
	note(1);
	child = fork();
	if (child == 0) {
		qy_events_deliver();
		if (heard_count != 0)
			_exit(1);
		note(2);
		qy_events_deliver();
		_exit(heard_count == 1 && heard[0].state == 2 ? 0 : 2);
	}
	waitpid(child, &status, 0);
	cr_assert_eq(status, 0, "status %x", (unsigned)status);
	qy_events_deliver();
	cr_assert_eq(heard_count, 1);
	quarry_on_event(fork_inside, NULL);
	note(1);
	qy_events_deliver();
	if (getpid() != parent)
		_exit(calls == 2 ? 0 : 3);
	cr_assert_eq(child_status, 0, "status %x", (unsigned)child_status);
	cr_assert_eq(calls, 1);
}

/* ---- health ---- */

Test(limits, health_in_words)
{
	quarry_health_report r = { .struct_size = sizeof(r) }, old = { .struct_size = 8 };
	struct {
		quarry_health_report r;
		uint64_t more;
	} newer = { .r = { .struct_size = sizeof(newer) }, .more = 1 };
	char text[300], few[10];

	begin();
	cr_assert_eq(quarry_health(NULL), -1);
	cr_assert_eq(errno, EINVAL);
	cr_assert_eq(quarry_health(&old), -1);
	cr_assert_eq(quarry_health(&newer.r), 0);
	cr_assert_eq(newer.more, 0);
	cr_assert_eq(newer.r.struct_size, sizeof(newer));
	cr_assert_eq(quarry_health(&r), 0);
	cr_assert_eq(r.state, QUARRY_HEALTH_GREEN);
	cr_assert_eq(quarry_health_text(&r, text, sizeof(text)), 5);
	cr_assert_str_eq(text, "green");
	group(1000, 931);
	fake_os_advance(100);
	cr_assert_eq(quarry_health(&r), 0, "a small process, but it was asked for");
	cr_assert_eq(r.level, HIGH);
	cr_assert_eq(r.state, QUARRY_HEALTH_YELLOW);
	quarry_health_text(&r, text, sizeof(text));
	cr_assert_str_eq(text, "yellow: cgroup limit of 1000.0 MiB filled to 93.1 %");
	cr_assert_eq(quarry_health_text(&r, few, sizeof(few)), (int)strlen(text));
	cr_assert_str_eq(few, "yellow: c");
	cr_assert_eq(quarry_health_text(&r, NULL, 0), (int)strlen(text));
	cr_assert_eq(quarry_health_text(&r, NULL, 1), -1);
	used_in_group(990);
	fake_os_advance(100);
	quarry_health(&r);
	cr_assert_eq(r.state, QUARRY_HEALTH_RED);
	/* Everything at once, and numbers that no library has written. */
	memset(&r, 0xff, sizeof(r));
	r.struct_size = sizeof(r);
	cr_assert_gt(quarry_health_text(&r, text, sizeof(text)), 100);
}

/* ---- hugetlb pages under a control group ---- */

static void hugetlb_group(const char *max, uint64_t used, const char *rsvd)
{
	group(1000, 0);
	fake_os_file(OWN "/cgroup.controllers", "memory hugetlb\n");
	fake_os_file(OWN "/hugetlb.2MB.max", max);
	file(OWN "/hugetlb.2MB.current", "%" PRIu64 "\n", used);
	fake_os_file(OWN "/hugetlb.2MB.rsvd.max", rsvd);
	file(OWN "/hugetlb.2MB.rsvd.current", "%" PRIu64 "\n", used);
}

Test(limits, room_for_hugetlb_pages)
{
	begin();
	cr_assert_eq(qy_cgroup_hugetlb_room(false), UINT64_MAX, "no group");
	hugetlb_group("16777216\n", 4 * MIB, "max\n");
	cr_assert_eq(qy_cgroup_hugetlb_room(false), 12 * MIB);
	cr_assert_eq(qy_cgroup_hugetlb_room(true), UINT64_MAX);
	hugetlb_group("16777216\n", 4 * MIB, "6291456\n");
	cr_assert_eq(qy_cgroup_hugetlb_room(false), 2 * MIB, "promised ones count too");
	hugetlb_group("2097152\n", 4 * MIB, "max\n");
	cr_assert_eq(qy_cgroup_hugetlb_room(false), 0, "lowered under what is used");
	hugetlb_group("max\n", 4 * MIB, NULL);
	cr_assert_eq(qy_cgroup_hugetlb_room(false), UINT64_MAX);
	/* The root shows no limits, a level in between may. */
	hugetlb_group("max\n", 0, "max\n");
	fake_os_file("/sys/fs/cgroup/hugetlb.2MB.max", "8388608\n");
	fake_os_file("/sys/fs/cgroup/hugetlb.2MB.current", "6291456\n");
	cr_assert_eq(qy_cgroup_hugetlb_room(false), 2 * MIB);
}

Test(limits, room_for_hugetlb_pages_v1)
{
	begin();
	fake_os_file("/proc/self/cgroup", "7:memory:/other\n5:hugetlb:/jobs/one\n0::/x\n");
	fake_os_file("/proc/self/mountinfo", "32 31 0:29 / /sys/fs/cgroup/hugetlb rw - cgroup cgroup rw,hugetlb\n");
	for (int i = 0; i < 2; i++) {
		static const char *const at[] = { "/sys/fs/cgroup/hugetlb/jobs/one", "/sys/fs/cgroup/hugetlb/jobs" };
		char path[100];

		snprintf(path, sizeof(path), "%s/hugetlb.2MB.limit_in_bytes", at[i]);
		fake_os_file(path, i == 0 ? "9223372036852678656\n" : "10485760\n");
		snprintf(path, sizeof(path), "%s/hugetlb.2MB.usage_in_bytes", at[i]);
		fake_os_file(path, "4194304\n");
		snprintf(path, sizeof(path), "%s/hugetlb.1GB.limit_in_bytes", at[i]);
		fake_os_file(path, i == 0 ? "1073741824\n" : "9223372036854771712\n");
		snprintf(path, sizeof(path), "%s/hugetlb.1GB.usage_in_bytes", at[i]);
		fake_os_file(path, "0\n");
	}
	qy_cgroup_forget();
	cr_assert_eq(qy_cgroup_hugetlb_room(false), 6 * MIB);
	cr_assert_eq(qy_cgroup_hugetlb_room(true), GIB);
}

/* What would be beyond it is not tried: the next rung, and it is told why. */
Test(limits, pages_that_the_group_does_not_allow_are_not_tried)
{
	quarry_arena_attr attr = { .page_kind = QUARRY_PAGES_2M };
	uint64_t group_refused, pool_refused;
	quarry_stats s = { .version = QUARRY_STATS_VERSION };
	quarry_arena *a;
	char *p, *q;

	begin();
	fake_os_pool(0, 21, 64);
	hugetlb_group("16777216\n", 0, "max\n");
	group_refused = qy_read(&qy_refused[QUARRY_REFUSED_HUGE_CGROUP]);
	pool_refused = qy_read(&qy_refused[QUARRY_REFUSED_HUGE_2M]);
	a = quarry_arena_create(&attr);
	p = quarry_arena_malloc(a, 8 * MIB);
	cr_assert_not_null(p);
	quarry_stats_get(a, &s);
	cr_assert_eq(s.kind_got[QUARRY_PAGES_2M], s.mapped);
	file(OWN "/hugetlb.2MB.current", "%" PRIu64 "\n", 8 * MIB);
	q = quarry_arena_malloc(a, 10 * MIB);
	cr_assert_not_null(q);
	memset(q, 1, 10 * MIB);
	quarry_stats_get(a, &s);
	cr_assert_geq(s.kind_got[QUARRY_PAGES_THP] + s.kind_got[QUARRY_PAGES_BASE], 10 * MIB);
	cr_assert_gt(qy_read(&qy_refused[QUARRY_REFUSED_HUGE_CGROUP]), group_refused);
	cr_assert_eq(qy_read(&qy_refused[QUARRY_REFUSED_HUGE_2M]), pool_refused, "the pool has pages");
	/* Strictly, it is an error. */
	attr.flags = QUARRY_ARENA_STRICT;
	hugetlb_group("1048576\n", 0, "max\n");
	cr_assert_null(quarry_arena_create(&attr));
	cr_assert_eq(errno, ENOMEM);
	/* A dry pool is told as that. */
	hugetlb_group("max\n", 0, "max\n");
	fake_os_pool(0, 21, 0);
	fake_os_pool(1, 21, 0);
	cr_assert_null(quarry_arena_create(&attr));
	cr_assert_gt(qy_read(&qy_refused[QUARRY_REFUSED_HUGE_2M]), pool_refused);
}
