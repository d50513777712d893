/* SPDX-License-Identifier: MIT */
/* Being told that memory was had otherwise than it was asked for (QUARRY_EVENT_FALLBACK): what was wanted, what was got,
 * whose it is, and how often it is told. (Pages that strayed: test_move.c.) */
#include "tests/unit/limits.h"

static quarry_arena *make(int policy, int kind)
{
	quarry_arena_attr attr = { .policy = policy, .page_kind = kind, .name = "falls" };
	quarry_arena *a;

	quarry_nodeset_add(&attr.nodes, 1);
	if (policy != QUARRY_POLICY_BIND)
		quarry_nodeset_add(&attr.nodes, 0);
	cr_assert_not_null(a = quarry_arena_create(&attr));
	return a;
}

static void expect_fallback(const quarry_arena *a, int what, int was, int state, uint64_t count)
{
	expect_event(QUARRY_EVENT_FALLBACK, state, was);
	cr_assert_eq(heard[0].what, what);
	cr_assert_eq(heard[0].arena, a);
	cr_assert_eq(heard[0].count, count, "%" PRIu64, heard[0].count);
	cr_assert_gt(heard[0].bytes, 0);
	cr_assert_eq(heard[0].bytes % (2 * MIB), 0);
}

/* A region for each. */
static void take(quarry_arena *a)
{
	cr_assert_not_null(quarry_arena_malloc(a, 64 * MIB));
}

Test(fallback, pages_of_another_kind)
{
	quarry_arena *a;

	begin();
	a = make(QUARRY_POLICY_BIND, QUARRY_PAGES_2M);
	fake_os_fail_advice(QY_MADV_HUGEPAGE, EINVAL);
	take(a);
	expect_fallback(a, QUARRY_FALLBACK_PAGES, QUARRY_PAGES_2M, QUARRY_PAGES_BASE, 1);
	/* Those that follow within a second are one event, told when it is over. */
	take(a);
	take(a);
	take(a);
	expect_no_event();
	tick_after(500);
	expect_no_event();
	tick_after(600);
	expect_fallback(a, QUARRY_FALLBACK_PAGES, QUARRY_PAGES_2M, QUARRY_PAGES_BASE, 3);
	tick_after(2000);
	expect_no_event();
	/* Another arena has a series of its own. */
	take(a);
	heard_count = 0;
	a = make(QUARRY_POLICY_BIND, QUARRY_PAGES_2M);
	take(a);
	qy_events_deliver();
	cr_assert_eq(heard[heard_count - 1].arena, a);
}

Test(fallback, as_it_was_asked_for)
{
	begin();
	fake_os_pool(1, 21, 200);
	take(make(QUARRY_POLICY_BIND, QUARRY_PAGES_2M));
	take(make(QUARRY_POLICY_INTERLEAVE, QUARRY_PAGES_BASE));
	cr_assert_not_null(quarry_malloc(64 * MIB));
	expect_no_event();
}

Test(fallback, no_policy_at_all)
{
	quarry_arena *a;

	begin();
	a = make(QUARRY_POLICY_BIND, QUARRY_PAGES_BASE);
	fake_os_fail(FAKE_MBIND, EPERM);
	take(a);
	expect_fallback(a, QUARRY_FALLBACK_POLICY, QUARRY_POLICY_BIND, -1, 1);
}

Test(fallback, the_policy_of_an_older_kernel)
{
	quarry_arena *a;

	begin();
	fake_os_newest_policy(QY_MPOL_LOCAL);
	a = make(QUARRY_POLICY_WEIGHTED_INTERLEAVE, QUARRY_PAGES_BASE);
	take(a);
	expect_fallback(a, QUARRY_FALLBACK_POLICY, QUARRY_POLICY_WEIGHTED_INTERLEAVE, QUARRY_POLICY_INTERLEAVE, 1);
	a = make(QUARRY_POLICY_PREFERRED_MANY, QUARRY_PAGES_BASE);
	take(a);
	expect_fallback(a, QUARRY_FALLBACK_POLICY, QUARRY_POLICY_PREFERRED_MANY, QUARRY_POLICY_PREFERRED, 1);
}
