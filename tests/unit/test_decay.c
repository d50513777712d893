/* SPDX-License-Identifier: MIT */
/* An arena's own decay, with a clock that the test moves and passes of the reclaimer in series that it makes. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "include/quarry/quarry.h"
#include "lib/manager/manager.h"
#include "lib/reclaim/reclaim.h"
#include "tests/fake_os.h"
#include "tests/unit/model.h"

#define MIB ((size_t)1 << 20)
#define START 1000000u
#define SIZE (8 * MIB)

static __attribute__((constructor(101))) void make_machine(void)
{
	setenv("QUARRY_OPTIONS", "reclaim=off,decay_ms=1000,return=on,idle_threads=off", 1);
	fake_os_install();
	fake_os_nodes("0,1");
	fake_os_cpus(0, "0");
	fake_os_cpus(1, "1");
	fake_os_clock(START);
}

static void begin(void)
{
	model_start("decay");
	cr_assert_eq(quarry_ctl_set("reclaim", "series"), 0);
}

/* Passes until nothing is due: each gives back some megabytes at most. */
static void pass_at(uint64_t ms)
{
	fake_os_clock(START + ms);
	for (int i = 0; i < 64; i++)
		qy_reclaim_tick(0);
}

static quarry_stats stats_of(quarry_arena *arena)
{
	quarry_stats stats = { .version = QUARRY_STATS_VERSION };

	cr_assert_eq(quarry_stats_get(arena, &stats), 0);
	return stats;
}

static uint64_t dirty_of(quarry_arena *arena)
{
	return stats_of(arena).free_dirty;
}

/* An arena with so much that is free and in memory, since now. */
static void make_dirt(quarry_arena *arena)
{
	char *p = quarry_arena_malloc(arena, SIZE);

	cr_assert_not_null(p);
	memset(p, 1, SIZE);
	quarry_free(p);
	cr_assert_geq(dirty_of(arena), SIZE);
}

static quarry_arena *make(int policy, long decay_ms)
{
	quarry_arena_attr attr = { .policy = policy, .flags = QUARRY_ARENA_DECAY, .decay_ms = decay_ms };
	quarry_arena *arena = quarry_arena_create(&attr);

	cr_assert_not_null(arena, "%s", quarry_error_text());
	make_dirt(arena);
	return arena;
}

Test(decay, each_arena_by_its_own)
{
	quarry_arena *at_once, *soon, *usual, *later, *never;

	begin();
	at_once = make(QUARRY_POLICY_BIND, 0);
	soon = make(QUARRY_POLICY_PREFERRED, 100);
	usual = make(QUARRY_POLICY_BIND, QUARRY_DECAY_DEFAULT);
	later = make(QUARRY_POLICY_BIND, 20000);
	never = make(QUARRY_POLICY_BIND, -1);
	pass_at(0);
	cr_assert_eq(dirty_of(at_once), 0);
	cr_assert_geq(dirty_of(soon), SIZE);
	pass_at(60);
	cr_assert_lt(dirty_of(soon), SIZE);
	pass_at(130);
	cr_assert_eq(dirty_of(soon), 0);
	cr_assert_geq(dirty_of(usual), SIZE * 3 / 4);
	pass_at(1100);
	cr_assert_eq(dirty_of(usual), 0);
	cr_assert_geq(dirty_of(later), SIZE * 3 / 4);
	pass_at(22000);
	cr_assert_eq(dirty_of(later), 0);
	pass_at(4000000);
	cr_assert_geq(dirty_of(never), SIZE);
	/* Who asks for it has it. */
	cr_assert_geq(quarry_purge(never), SIZE);
	cr_assert_eq(dirty_of(never), 0);
}

/* The option in its place may be shorter than an arena's own, or never; quarry_purge(NULL) is for all. */
Test(decay, whatever_the_option_says)
{
	quarry_arena *later, *soon;

	begin();
	cr_assert_eq(quarry_ctl_set("decay_ms", "0"), 0);
	later = make(QUARRY_POLICY_BIND, 5000);
	pass_at(100);
	cr_assert_geq(dirty_of(later), SIZE * 3 / 4);
	cr_assert_geq(quarry_purge(NULL), SIZE);
	cr_assert_eq(dirty_of(later), 0);
	cr_assert_eq(quarry_ctl_set("decay_ms", "-1"), 0);
	soon = make(QUARRY_POLICY_BIND, 50);
	pass_at(200);
	cr_assert_eq(dirty_of(soon), 0);
}

/* Those of a family, one for each node, go by their arena. */
Test(decay, of_a_family)
{
	quarry_arena *arena;

	begin();
	arena = make(QUARRY_POLICY_LOCAL, 20000);
	fake_os_on_cpu(1);
	cr_assert_eq(quarry_thread_rebind(-1), 0);
	make_dirt(arena);
	cr_assert_geq(dirty_of(arena), 2 * SIZE);
	pass_at(2000);
	cr_assert_geq(dirty_of(arena), SIZE * 3 / 2);
	cr_assert_eq(quarry_arena_set_decay(arena, 100), 0);
	pass_at(2200);
	pass_at(2400);
	cr_assert_eq(dirty_of(arena), 0);
}

Test(decay, changed_while_it_lives)
{
	quarry_arena *arena, *node = quarry_arena_of_node(0);

	begin();
	arena = make(QUARRY_POLICY_BIND, QUARRY_DECAY_DEFAULT);
	cr_assert_eq(stats_of(arena).decay, 1000);
	cr_assert_eq(quarry_arena_set_decay(arena, -1), 0);
	cr_assert_eq(stats_of(arena).decay, UINT64_MAX);
	cr_assert_eq(stats_of(NULL).decay, 1000);
	pass_at(5000);
	cr_assert_geq(dirty_of(arena), SIZE);
	cr_assert_eq(quarry_arena_set_decay(arena, 0), 0);
	cr_assert_eq(stats_of(arena).decay, 0);
	pass_at(5001);
	cr_assert_eq(dirty_of(arena), 0);
	cr_assert_eq(quarry_arena_set_decay(arena, QUARRY_DECAY_DEFAULT), 0);
	cr_assert_eq(quarry_ctl_set("decay_ms", "70"), 0);
	cr_assert_eq(stats_of(arena).decay, 70);
	/* A node's arena too. */
	cr_assert_eq(quarry_arena_set_decay(node, 12), 0);
	cr_assert_eq(stats_of(node).decay, 12);
	/* One that comes into the place of another knows nothing of it. */
	cr_assert_eq(quarry_arena_set_decay(arena, 3), 0);
	cr_assert_eq(quarry_arena_destroy(arena), 0);
	for (int i = 0; i < 3; i++) {
		arena = quarry_arena_create(NULL);
		cr_assert_eq(stats_of(arena).decay, 70);
	}
}

/* What presses shortens an arena's own as it does the option. */
Test(decay, shortened_under_pressure)
{
	quarry_arena *later, *never;
	char *p;

	begin();
	later = make(QUARRY_POLICY_BIND, 1000000);
	never = make(QUARRY_POLICY_BIND, -1);
	pass_at(1000);
	cr_assert_geq(dirty_of(later), SIZE * 3 / 4);
	pass_at(900000);
	cr_assert_gt(dirty_of(never), 0);
	p = quarry_arena_malloc(never, 95 * MIB);
	cr_assert_not_null(p);
	cr_assert_eq(quarry_ctl_set("hard_limit", "100m"), 0);
	for (int i = 1; i < 20 && dirty_of(later) + dirty_of(never) > 0; i++)
		pass_at(900000 + (uint64_t)i * 1000);
	cr_assert_eq(dirty_of(later), 0);
	cr_assert_eq(dirty_of(never), 0, "never is never by time: high pressure is something else");
}

static void expect_refused(quarry_arena_attr attr, const char *word)
{
	errno = 0;
	cr_expect_null(quarry_arena_create(&attr));
	cr_expect_eq(errno, EINVAL);
	cr_expect_not_null(strstr(quarry_error_text(), word), "\"%s\" names no %s", quarry_error_text(), word);
}

Test(decay, what_is_wrong_is_named)
{
	const uint32_t first = offsetof(quarry_arena_attr, decay_ms);
	struct {
		quarry_arena_attr attr;
		char behind[8];
	} older;
	quarry_arena *arena;

	begin();
	expect_refused((quarry_arena_attr){ .flags = QUARRY_ARENA_DECAY, .decay_ms = -3 }, "decay_ms");
	expect_refused((quarry_arena_attr){ .flags = QUARRY_ARENA_DECAY, .decay_ms = 3600001 }, "decay_ms");
	expect_refused((quarry_arena_attr){ .struct_size = sizeof(quarry_arena_attr), .decay_ms = 5 }, "QUARRY_ARENA_DECAY");
	expect_refused((quarry_arena_attr){ .struct_size = first, .flags = QUARRY_ARENA_DECAY, .decay_ms = 5 }, "struct_size");
	expect_refused((quarry_arena_attr){ .struct_size = first + 4 }, "struct_size");
	/* A program that was built when the struct was shorter: what is behind it is not looked at. */
	memset(&older, 0x5a, sizeof(older));
	memset(&older.attr, 0, first);
	for (uint32_t size = 0; size <= first; size += first) {
		older.attr.struct_size = size;
		arena = quarry_arena_create(&older.attr);
		cr_assert_not_null(arena, "%s", quarry_error_text());
		cr_assert_eq(stats_of(arena).decay, 1000);
	}
	cr_assert_neq(quarry_ctl_set("nonsense", "1"), 0);
	errno = 0;
	cr_assert(quarry_arena_set_decay(arena, -3) == -1 && errno == EINVAL);
	cr_assert_str_eq(quarry_error_text(), "decay_ms: -3 is not within -2 and 3600000");
	errno = 0;
	cr_assert(quarry_arena_set_decay(arena, 3600001) == -1 && errno == EINVAL);
	cr_assert_str_eq(quarry_error_text(), "decay_ms: 3600001 is not within -2 and 3600000");
	errno = 0;
	cr_assert(quarry_arena_set_decay((quarry_arena *)&older, 5) == -1 && errno == EINVAL);
	cr_assert(strstr(quarry_error_text(), "arena: there is none at 0x"), "%s", quarry_error_text());
	cr_assert_eq(stats_of(arena).decay, 1000);
}
