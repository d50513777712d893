/* SPDX-License-Identifier: MIT */
/* The circuit breaker's life: closed, open, half open, and closed again, with a clock that the test moves. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <stdlib.h>

#include "tests/unit/limits.h"

#define CLOSED QUARRY_BREAKER_CLOSED
#define OPEN QUARRY_BREAKER_OPEN
#define HALF QUARRY_BREAKER_HALF_OPEN
#define SMALL_BLOCK (512 * KIB) /* below breaker_min */

static void *blocks[1000];
static unsigned count;
static uint64_t base;

/* A hard limit of 100 MiB more than what is used, and a breaker. */
static void begin_at(const char *mode)
{
	begin();
	quarry_free(quarry_malloc(100));
	base = sum_used();
	set("breaker", mode);
	set_bytes("hard_limit", base + 100 * MIB);
	tick_after(1000);
	cr_assert_eq(qy_breaker_now, CLOSED);
	expect_no_event();
}

/* Half MiBs in use beyond the base, in small requests. */
static void use(unsigned halves)
{
	for (; count < halves; count++)
		cr_assert_not_null(blocks[count] = quarry_malloc(SMALL_BLOCK), "%u", count);
	while (count > halves)
		quarry_free(blocks[--count]);
}

/* The level of pressure falls late, and is not what is tried here. */
static void hear_of_the_breaker(const quarry_event *event, void *ctx)
{
	if (event->kind == QUARRY_EVENT_BREAKER)
		hear(event, ctx);
}

static bool refused(size_t size)
{
	void *p;

	errno = 0;
	p = quarry_malloc(size);
	cr_assert(p != NULL || errno == ENOMEM);
	quarry_free(p);
	return p == NULL;
}

Test(breaker, opens_refuses_and_closes)
{
	struct qy_breaker_figures f;
	uint64_t counted;

	begin_at("refuse");
	quarry_on_event(hear_of_the_breaker, NULL);
	use(187);
	cr_assert_not(refused(MIB), "to 94.5 %%");
	use(189);
	tick_after(100);
	cr_assert_eq(qy_breaker_now, CLOSED, "94.5 %%");
	use(190);
	cr_assert(tick_after(100), "it is looked at again");
	expect_event(QUARRY_EVENT_BREAKER, OPEN, CLOSED);
	counted = qy_read(&qy_refused[QUARRY_REFUSED_BREAKER]);
	cr_assert(refused(MIB));
	cr_assert(refused(50 * MIB));
	cr_assert_null(quarry_calloc(4, MIB));
	cr_assert_null(quarry_aligned_alloc(8192, MIB));
	cr_assert_eq(qy_read(&qy_refused[QUARRY_REFUSED_BREAKER]), counted + 4);
	cr_assert_not(refused(MIB - 1), "not a large one");
	f = qy_breaker_figures();
	cr_assert_eq(f.opened, 1);
	cr_assert_eq(f.refused, 4);
	cr_assert_eq(f.probes, 0);
	/* 90.0 is not below 90. */
	use(180);
	tick_after(100);
	cr_assert_eq(qy_breaker_now, OPEN);
	use(179);
	tick_after(99);
	cr_assert_eq(qy_breaker_now, OPEN, "looked at too soon");
	tick_after(1);
	expect_event(QUARRY_EVENT_BREAKER, CLOSED, OPEN);
	cr_assert_not(refused(MIB));
}

/* Each probe that leads beyond the threshold makes the next one come later. */
Test(breaker, probes_come_ever_more_rarely)
{
	static const uint64_t waits[] = { 100, 200, 400, 800, 1600, 3200, 6400, 10000, 10000 };

	begin_at("refuse");
	quarry_on_event(hear_of_the_breaker, NULL);
	use(190);
	tick_after(100);
	expect_event(QUARRY_EVENT_BREAKER, OPEN, CLOSED);
	for (size_t i = 0; i < sizeof(waits) / sizeof(waits[0]); i++) {
		uint64_t probes = qy_breaker_figures().probes;
		void *p;

		fake_os_advance(waits[i] - 1);
		cr_assert(refused(MIB), "wait %zu", i);
		fake_os_advance(1);
		p = quarry_malloc(MIB);
		cr_assert_not_null(p, "the probe, %zu", i);
		cr_assert_eq(qy_breaker_figures().probes, probes + 1);
		cr_assert_eq(qy_breaker_now, OPEN, "beyond the threshold still");
		quarry_free(p);
		cr_assert(refused(MIB));
		qy_events_deliver();
		cr_assert_eq(heard_count, 2);
		cr_assert_eq(heard[0].state, HALF);
		cr_assert_eq(heard[1].state, OPEN);
		heard_count = 0;
	}
	/* Once closed, it begins anew. */
	use(100);
	tick_after(100);
	cr_assert_eq(qy_breaker_now, CLOSED);
	use(190);
	tick_after(100);
	cr_assert_eq(qy_breaker_now, OPEN);
	cr_assert_eq(qy_breaker_figures().retry_ms, 100);
}

Test(breaker, a_probe_that_goes_well_closes_it)
{
	begin_at("refuse");
	quarry_on_event(hear_of_the_breaker, NULL);
	use(190);
	tick_after(100);
	expect_event(QUARRY_EVENT_BREAKER, OPEN, CLOSED);
	/* Between the threshold and what is below it. */
	use(184);
	tick_after(100);
	expect_no_event();
	cr_assert_not_null(quarry_malloc(MIB));
	qy_events_deliver();
	cr_assert_eq(heard_count, 2);
	cr_assert_eq(heard[0].state, HALF);
	cr_assert_eq(heard[1].state, CLOSED);
	cr_assert_eq(heard[1].was, HALF);
	cr_assert_not_null(quarry_malloc(MIB));
}

Test(breaker, a_probe_that_gets_nothing_opens_it_again)
{
	begin_at("refuse");
	use(196);
	tick_after(100);
	fake_os_advance(100);
	cr_assert(refused(3 * MIB));
	cr_assert_eq(qy_breaker_figures().probes, 1);
	cr_assert_eq(qy_breaker_figures().refused, 0, "the limit refused it, not the breaker");
	cr_assert_eq(qy_breaker_now, OPEN);
	cr_assert_eq(qy_breaker_figures().retry_ms, 200);
}

static void *judge_one(void *arena)
{
	const quarry_arena *a = arena;

	return (void *)(uintptr_t)qy_breaker_judge(MIB, MIB, &a, true);
}

static enum qy_verdict judge_elsewhere(void)
{
	pthread_t thread;
	void *verdict;

	pthread_create(&thread, NULL, judge_one, NULL);
	pthread_join(thread, &verdict);
	return (enum qy_verdict)(uintptr_t)verdict;
}

/* While one tries, the others are refused; when it never comes back, another may try. */
Test(breaker, one_probe_at_a_time)
{
	begin_at("refuse");
	use(190);
	tick_after(100);
	cr_assert_eq(judge_elsewhere(), QY_BREAKER_REFUSE);
	fake_os_advance(100);
	cr_assert_eq(judge_elsewhere(), QY_BREAKER_PROBE);
	cr_assert_eq(qy_breaker_now, HALF);
	cr_assert_eq(judge_elsewhere(), QY_BREAKER_REFUSE);
	tick_after(5000);
	cr_assert_eq(qy_breaker_now, HALF);
	fake_os_advance(4999);
	cr_assert_eq(judge_elsewhere(), QY_BREAKER_REFUSE);
	fake_os_advance(1);
	cr_assert_eq(judge_elsewhere(), QY_BREAKER_PROBE);
	cr_assert_eq(judge_elsewhere(), QY_BREAKER_REFUSE);
}

/* No large request leads beyond the threshold, though nobody looks meanwhile; and when none can be had any more, it is
 * open. One that is only too large says nothing of others. */
Test(breaker, the_hard_limit_opens_it_without_waiting_for_a_look)
{
	unsigned got = 0;

	begin_at("refuse");
	quarry_on_event(hear_of_the_breaker, NULL);
	cr_assert(refused(96 * MIB), "it fits under the limit, and not under the threshold");
	cr_assert(refused(200 * MIB));
	cr_assert_eq(qy_breaker_now, CLOSED);
	cr_assert_eq(qy_breaker_figures().refused, 2);
	expect_no_event();
	while (quarry_malloc(2 * MIB) != NULL)
		got++;
	cr_assert_eq(got, 47, "94 of 95 MiB: %u", got);
	cr_assert_eq(qy_quota_used(), sum_used());
	expect_event(QUARRY_EVENT_BREAKER, OPEN, CLOSED);
	cr_assert(refused(MIB));
	cr_assert_eq(qy_breaker_figures().refused, 4);
	use(11);
	cr_assert_not(refused(SMALL_BLOCK), "small ones have what it kept for them");
}

/* While one that is smaller still fits, one that does not is refused, and it stays closed. */
Test(breaker, what_still_fits_under_the_threshold_is_had)
{
	begin_at("refuse");
	use(186);
	cr_assert(refused(3 * MIB));
	cr_assert_eq(qy_breaker_now, CLOSED);
	cr_assert_not(refused(MIB));
	cr_assert_eq(qy_breaker_now, CLOSED);
	use(188);
	cr_assert(refused(3 * MIB));
	cr_assert_eq(qy_breaker_now, OPEN);
}

/* What other arenas have in hand of the budget, and do not use, is not counted. */
Test(breaker, what_arenas_have_in_hand_is_not_in_use)
{
	quarry_arena *arenas[8];

	begin_at("refuse");
	for (int i = 0; i < 8; i++) {
		cr_assert_not_null(arenas[i] = quarry_arena_create(NULL));
		quarry_free(quarry_arena_malloc(arenas[i], 8 * MIB));
	}
	cr_assert_gt(qy_quota_taken(), sum_used() + 32 * MIB);
	use(80);
	cr_assert_not(refused(54 * MIB), "%" PRIu64 " of %" PRIu64, qy_quota_taken() / MIB, sum_used() / MIB);
	cr_assert(refused(55 * MIB));
}

Test(breaker, the_hard_limit_redirects_at_the_request)
{
	quarry_arena *overflow, *own;
	unsigned there = 0;
	char *p, *q;

	begin_at("redirect");
	set("breaker_at", "50");
	overflow = quarry_arena_create(NULL);
	own = quarry_arena_create(NULL);
	cr_assert_eq(quarry_breaker_redirect(overflow), 0);
	cr_assert_not_null(q = quarry_arena_malloc(own, 900 * KIB));
	for (int i = 0; i < 40; i++) {
		cr_assert_not_null(p = quarry_malloc(2 * MIB), "%d", i);
		there += quarry_arena_of(p) == overflow;
	}
	cr_assert_eq(there, 16, "40 less 24: %u", there);
	/* What is in an arena of its own gets no more there, and moves to no other. */
	cr_assert_null(quarry_arena_realloc(own, q, 3 * MIB));
	cr_assert_eq(quarry_arena_of(q), own);
}

/* Before it opens, growing what is in another arena is not sent elsewhere either. */
Test(breaker, what_grows_in_an_arena_stays_there)
{
	quarry_arena *overflow, *own;
	char *q;

	begin_at("redirect");
	overflow = quarry_arena_create(NULL);
	own = quarry_arena_create(NULL);
	cr_assert_eq(quarry_breaker_redirect(overflow), 0);
	cr_assert_not_null(q = quarry_arena_malloc(own, 900 * KIB));
	cr_assert_null(quarry_arena_realloc(own, q, 97 * MIB));
	cr_assert_eq(qy_breaker_now, CLOSED);
	cr_assert_eq(quarry_arena_of(q), own);
	cr_assert_not_null(quarry_arena_realloc(own, q, 4 * MIB));
}

/* A program that only grows what it has hears of it when no large request has room. */
Test(breaker, growing_opens_it)
{
	char *p, *q;

	begin_at("refuse");
	cr_assert_not_null(p = quarry_malloc(50 * MIB));
	use(90);
	cr_assert_eq(qy_breaker_now, CLOSED);
	cr_assert_not_null(q = quarry_malloc(100 * KIB));
	cr_assert_null(quarry_realloc(p, 51 * MIB));
	cr_assert_eq(qy_breaker_now, OPEN);
	cr_assert_not_null(quarry_realloc(q, 200 * KIB), "not a large one");
}

/* What a block grows by is judged like a request of that size. */
Test(breaker, growing_leads_no_further_than_a_request)
{
	char *p;

	begin_at("refuse");
	cr_assert_not_null(p = quarry_malloc(24 * MIB));
	cr_assert_eq(quarry_realloc(p, 20 * MIB), p);
	use(140);
	cr_assert_null(quarry_realloc(p, 26 * MIB));
	cr_assert_eq(errno, ENOMEM);
	cr_assert_eq(qy_breaker_now, CLOSED, "there is room for others");
	use(136);
	cr_assert_not_null(p = quarry_realloc(p, 26 * MIB), "it is not judged as a whole");
}

static void mapped(uint64_t mib)
{
	file("/proc/self/statm", "%" PRIu64 " 1 1 1 0 1 0\n", mib * MIB / qy_os_page_size());
}

/* The process's own mappings count in RLIMIT_AS, and what quarry has mapped already takes no more of it. */
Test(breaker, the_address_space_opens_it_without_waiting_for_a_look)
{
	begin();
	set("breaker", "refuse");
	set("breaker_at", "80");
	quarry_free(quarry_malloc(MIB));
	mapped(100);
	fake_os_address_limit(1000 * MIB);
	cr_assert_not(refused(600 * MIB));
	cr_assert(refused(701 * MIB));
	cr_assert_eq(qy_breaker_now, CLOSED);
	mapped(799);
	cr_assert_not(refused(MIB));
	cr_assert_not(refused(2 * MIB), "of what is mapped and free");
	mapped(800);
	cr_assert(refused(MIB));
	cr_assert_eq(qy_breaker_now, OPEN);
	cr_assert_not(refused(SMALL_BLOCK));
}

/* What must move to grow is mapped beside what it was. */
Test(breaker, growing_elsewhere_takes_address_space_for_all)
{
	char *p;

	begin();
	set("breaker", "refuse");
	set("breaker_at", "80");
	cr_assert_not_null(p = quarry_malloc(200 * MIB));
	cr_assert_not_null(quarry_malloc(24 * MIB)); /* (so that it has no room behind it) */
	mapped(500);
	fake_os_address_limit(1000 * MIB);
	cr_assert_null(quarry_realloc(p, 340 * MIB));
	cr_assert_eq(qy_breaker_now, CLOSED);
	cr_assert_not_null(quarry_realloc(p, 260 * MIB));
}

Test(breaker, critical_pressure_opens_it)
{
	begin();
	set("breaker", "refuse");
	fake_os_file("/proc/pressure/memory", "some total=0\nfull avg10=0 total=0\nsome avg10=0 total=0\n");
	fake_os_file("/proc/pressure/memory", "some avg10=0 total=0\nfull avg10=0 total=0\n");
	tick_after(1000);
	fake_os_file("/proc/pressure/memory", "some avg10=0 total=500000\nfull avg10=0 total=500000\n");
	tick_after(1000);
	cr_assert_eq(qy_pressure_level(), QUARRY_PRESSURE_CRITICAL);
	cr_assert_eq(qy_breaker_now, OPEN);
	cr_assert(refused(MIB));
	tick_after(1000);
	cr_assert_eq(qy_pressure_level(), QUARRY_PRESSURE_HIGH);
	cr_assert_eq(qy_breaker_now, CLOSED);
}

Test(breaker, the_group_opens_it)
{
	begin();
	set("breaker", "refuse");
	set("breaker_at", "80");
	/* Of 1000 MiB, malloc uses all but 8 MiB and a 32nd part. */
	group(1000, 768);
	tick_after(1000);
	cr_assert_eq(qy_breaker_now, CLOSED);
	used_in_group(769);
	tick_after(1000);
	cr_assert_eq(qy_breaker_now, OPEN);
	used_in_group(720);
	tick_after(1000);
	cr_assert_eq(qy_breaker_now, CLOSED);
}

/* A limit that is fuller, as it reads, hides no group of which less is left that malloc may use. */
Test(breaker, the_group_opens_it_beside_a_fuller_limit)
{
	quarry_health_report r = { .struct_size = sizeof(r) };

	begin_at("refuse");
	use(187);
	group(1000, 912);
	tick_after(1000);
	cr_assert_eq(qy_breaker_now, CLOSED);
	used_in_group(913);
	tick_after(1000);
	cr_assert_eq(quarry_health(&r), 0);
	cr_assert_eq(r.limit_kind, QUARRY_LIMIT_PROCESS, "%u of 1000", r.limit_per_mille);
	cr_assert_eq(qy_breaker_now, OPEN, "the group is at 91.3 of 96.1");
	/* Nor does the group, when it is lower again, close it for the other one. */
	used_in_group(800);
	tick_after(1000);
	cr_assert_eq(qy_breaker_now, OPEN);
	use(160);
	tick_after(1000);
	cr_assert_eq(qy_breaker_now, CLOSED);
}

Test(breaker, off_is_off)
{
	begin_at("off");
	use(199);
	tick_after(1000);
	cr_assert_eq(qy_breaker_now, CLOSED);
	cr_assert(refused(MIB));
	cr_assert_eq(qy_breaker_now, CLOSED);
	set("breaker", "refuse");
	tick_after(1000);
	cr_assert_eq(qy_breaker_now, OPEN);
	set("breaker", "off");
	cr_assert_not(refused(512 * KIB));
	tick_after(1000);
	cr_assert_eq(qy_breaker_now, CLOSED);
}

Test(breaker, what_is_large_can_be_said)
{
	begin_at("refuse");
	use(190);
	set("breaker_min", "64k");
	tick_after(100);
	cr_assert(refused(64 * KIB));
	cr_assert_not(refused(64 * KIB - 1));
	cr_assert_eq(quarry_ctl_set("breaker_min", "65535"), -1, "what caches hand out is none of its business");
	set("breaker_min", "2m");
	cr_assert_not(refused(2 * MIB - 1));
	cr_assert(refused(2 * MIB));
}

Test(breaker, large_requests_go_to_the_arena_that_was_named)
{
	quarry_arena_attr attr = { .hard_limit = 4 * MIB, .name = "overflow" };
	struct qy_breaker_figures f;
	quarry_arena *overflow, *other;
	void *p, *q;

	begin_at("redirect");
	overflow = quarry_arena_create(&attr);
	other = quarry_arena_create(NULL);
	use(190);
	tick_after(100);
	cr_assert(refused(MIB), "none was named");
	cr_assert_eq(quarry_breaker_redirect(overflow), 0);
	cr_assert_not_null(p = quarry_malloc(MIB));
	cr_assert_eq(quarry_arena_of(p), overflow);
	cr_assert_not_null(q = quarry_arena_malloc(other, MIB));
	cr_assert_eq(quarry_arena_of(q), overflow, "whatever arena was asked for");
	quarry_free(q);
	cr_assert_not_null(q = quarry_arena_malloc(overflow, MIB));
	f = qy_breaker_figures();
	cr_assert_eq(f.redirected, 2, "what it was asked for itself does not count");
	/* It has room for no more. */
	cr_assert(refused(3 * MIB));
	quarry_free(p);
	quarry_free(q);
	/* An arena that ends is forgotten, and none takes its place. */
	cr_assert_eq(quarry_arena_destroy(overflow), 0);
	cr_assert(refused(MIB));
	cr_assert_eq(quarry_breaker_redirect(overflow), -1);
	cr_assert_eq(errno, EINVAL);
	cr_assert(refused(MIB));
	cr_assert_eq(quarry_breaker_redirect(other), 0);
	cr_assert_not(refused(MIB));
	cr_assert_eq(quarry_breaker_redirect(NULL), 0);
	cr_assert(refused(MIB));
}

Test(breaker, growing_is_a_request)
{
	quarry_arena *overflow, *own;
	char *p, *q, *r;

	begin_at("redirect");
	overflow = quarry_arena_create(NULL);
	own = quarry_arena_create(NULL);
	p = quarry_malloc(600 * KIB);
	memset(p, 42, 600 * KIB);
	q = quarry_arena_malloc(own, 600 * KIB);
	use(188);
	tick_after(100);
	cr_assert_eq(qy_breaker_now, OPEN);
	cr_assert_null(quarry_realloc(p, MIB));
	cr_assert_eq(errno, ENOMEM);
	cr_assert_eq(p[600 * KIB - 1], 42);
	cr_assert_not_null(p = quarry_realloc(p, 700 * KIB), "not a large one");
	cr_assert_eq(quarry_breaker_redirect(overflow), 0);
	cr_assert_null(quarry_arena_realloc(own, q, MIB), "it stays in its arena, and gets no more there");
	r = quarry_realloc(p, MIB);
	cr_assert_not_null(r);
	cr_assert_eq(quarry_arena_of(r), overflow);
	cr_assert_eq(r[600 * KIB - 1], 42);
	cr_assert_not_null(r = quarry_realloc(r, MIB + 64 * KIB), "there already");
	cr_assert_eq(quarry_arena_of(r), overflow);
	/* A probe by way of realloc, which allocates and copies on its way. */
	fake_os_advance(100);
	cr_assert_not_null(quarry_arena_realloc(own, q, MIB));
	cr_assert_eq(qy_breaker_figures().probes, 1);
	cr_assert_neq(qy_breaker_now, HALF);
	/* Less is never refused. */
	cr_assert_not_null(quarry_realloc(r, MIB));
}

Test(breaker, in_the_report)
{
	quarry_health_report r = { .struct_size = sizeof(r) };
	char text[300];

	begin_at("refuse");
	use(190);
	tick_after(100);
	cr_assert(refused(MIB));
	cr_assert_eq(quarry_health(&r), 0);
	cr_assert_eq(r.state, QUARRY_HEALTH_RED);
	cr_assert_eq(r.breaker, OPEN);
	cr_assert_eq(r.breaker_opened, 1);
	cr_assert_eq(r.breaker_refused, 1);
	cr_assert(r.reasons & QUARRY_HEALTH_BREAKER);
	quarry_health_text(&r, text, sizeof(text));
	cr_assert_not_null(strstr(text, "red: process limit of "), "%s", text);
	cr_assert_not_null(strstr(text, "; the breaker is open"), "%s", text);
}

static void *hammer(void *unused)
{
	unsigned bad = 0;

	(void)unused;
	for (int i = 0; i < 5000; i++) {
		void *p = quarry_malloc(MIB);

		bad += p == NULL && errno != ENOMEM;
		if (i % 7 == 0)
			fake_os_advance(13);
		if (i % 11 == 0)
			qy_limits_tick(qy_os->now_ms());
		quarry_free(p);
	}
	return (void *)(uintptr_t)bad;
}

/* By many at once it goes through all its states, and is closed when all is well. */
Test(breaker, eight_threads, .timeout = 60)
{
	pthread_t threads[8];
	void *bad;

	begin_at("refuse");
	use(185);
	for (int i = 0; i < 8; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, hammer, NULL), 0);
	for (int i = 0; i < 8; i++) {
		pthread_join(threads[i], &bad);
		cr_assert_null(bad);
	}
	use(0);
	for (int i = 0; i < 30 && qy_breaker_now != CLOSED; i++)
		tick_after(1000);
	cr_assert_eq(qy_breaker_now, CLOSED);
	cr_assert_eq(qy_quota_used(), sum_used());
}
