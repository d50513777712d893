/* SPDX-License-Identifier: MIT */
/* Leaks: what is told of is what a model of pointers says, whatever points to what; by which stacks, and without what is
 * suppressed. (Where roots are: test_leaks_roots.c. In real programs, with stacks by name: tests/leaks.sh.) */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "include/quarry/quarry.h"
#include "lib/view/leaks.h"
#include "numa/os.h"
#include "tests/unit/leaks.h"
#include "tests/unit/stacks.h"

#define THINGS 3000
#define EDGES 3
#define ROOTS 40

struct thing {
	uint64_t masked;
	size_t bytes;
	unsigned edge[EDGES];
	bool live, reachable;
};

static struct thing things[THINGS];
static void *roots[ROOTS];
static uint64_t state;

static uint64_t draw(uint64_t below)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % below;
}

TestSuite(leaks, .init = without_reclaimer);

/* ---- against the model ---- */

static size_t draw_size(void)
{
	switch (draw(40)) {
	case 0:
		return 1 * MIB + draw(8 * MIB);
	case 1:
	case 2:
		return 8192 + draw(100000);
	default:
		return 8 * EDGES + draw(4000);
	}
}

static __attribute__((noinline)) void make_things(quarry_arena *arena)
{
	for (unsigned i = 0; i < THINGS; i++) {
		struct thing *t = &things[i];
		size_t bytes = draw_size();
		void *p = draw(3) == 0 ? quarry_arena_malloc(arena, bytes) : quarry_malloc(bytes);

		cr_assert_not_null(p);
		t->masked = mask(p);
		t->bytes = quarry_usable_size(p);
		t->live = true;
		memset(p, 0, t->bytes);
	}
}

/* Pointers to the beginning, or into the middle; few enough that some things are led to by none. */
static __attribute__((noinline)) void tie_things(void)
{
	for (unsigned i = 0; i < THINGS; i++)
		for (unsigned e = 0; e < EDGES; e++) {
			unsigned to = (unsigned)draw(THINGS);
			uintptr_t *word = (uintptr_t *)at(things[i].masked) + e;

			things[i].edge[e] = to;
			if (draw(5) < 3) {
				things[i].edge[e] = i;
				to = i;
			}
			*word = (uintptr_t)at(things[to].masked) + (draw(4) == 0 ? draw(things[to].bytes) : 0);
		}
	for (unsigned i = 0; i < ROOTS; i++)
		roots[i] = at(things[draw(THINGS)].masked);
}

static __attribute__((noinline)) void free_some(void)
{
	for (unsigned n = 0; n < THINGS / 10; n++) {
		struct thing *t = &things[draw(THINGS)];
		bool is_root = false;

		for (unsigned i = 0; i < ROOTS; i++)
			is_root = is_root || roots[i] == at(t->masked);
		if (t->live && !is_root)
			quarry_free(at(t->masked));
		t->live = t->live && is_root;
	}
}

static void flood(unsigned i, bool seen[THINGS])
{
	if (seen[i] || !things[i].live)
		return;
	seen[i] = true;
	for (unsigned e = 0; e < EDGES; e++)
		flood(things[i].edge[e], seen);
}

/* Of what leaked, those that all others are behind: sources of the graph, one of each ring of them. */
static unsigned count_sources(const bool reachable[THINGS])
{
	static bool seen[THINGS], behind[THINGS];
	static unsigned order[THINGS];
	unsigned n = 0, sources = 0;

	memset(seen, 0, sizeof(seen));
	for (unsigned i = 0; i < THINGS; i++)
		if (things[i].live && !reachable[i] && !seen[i]) {
			order[n++] = i;
			flood(i, seen);
		}
	memcpy(behind, reachable, sizeof(behind));
	while (n-- > 0)
		if (!behind[order[n]]) {
			sources++;
			flood(order[n], behind);
		}
	return sources;
}

static int add_group(const quarry_leak *l, void *ctx)
{
	quarry_leaks_report *sum = ctx;

	cr_assert_eq(l->struct_size, sizeof(*l));
	cr_assert_gt(l->objects, 0);
	cr_assert_eq(l->bytes, l->objects * l->object_size);
	sum->groups++;
	sum->objects += l->objects;
	sum->bytes += l->bytes;
	sum->held_objects += l->held_objects;
	sum->held_bytes += l->held_bytes;
	for (unsigned i = 0; i < 4 && l->example[i] != NULL; i++) {
		unsigned n = 0;

		while (n < THINGS && at(things[n].masked) != l->example[i])
			n++;
		cr_assert_lt(n, THINGS, "%p is none of ours", l->example[i]);
		cr_assert(things[n].live && !things[n].reachable);
	}
	return 0;
}

/* (Samples stand in slabs of mixed sizes.) */
static void check_model(bool sampled)
{
	static bool reachable[THINGS];
	const char *given = getenv("QUARRY_TEST_SEED");

	if (sampled) {
		cr_assert_eq(quarry_profile_start(1), 0);
		quarry_thread_flush();
	}
	for (unsigned round = 0; round < 4; round++) {
		quarry_arena_attr attr = { .name = "other" };
		quarry_arena *arena = quarry_arena_create(&attr);
		quarry_leaks_report r, sum = { 0 };
		uint64_t objects = 0, bytes = 0, seed = given != NULL ? strtoull(given, NULL, 10) : 1000 + round;

		state = seed * 0x9e3779b97f4a7c15u + 1;
		make_things(arena);
		tie_things();
		free_some();
		forget();
		memset(reachable, 0, sizeof(reachable));
		for (unsigned i = 0; i < ROOTS; i++)
			for (unsigned n = 0; n < THINGS; n++)
				if (at(things[n].masked) == roots[i])
					flood(n, reachable);
		for (unsigned i = 0; i < THINGS; i++) {
			things[i].reachable = reachable[i];
			objects += things[i].live && !reachable[i];
			bytes += things[i].live && !reachable[i] ? things[i].bytes : 0;
		}
		cr_assert_gt(objects, THINGS / 20, "seed %lu", (unsigned long)seed);
		r = look(0, add_group, &sum);
		cr_assert_eq(r.objects + r.held_objects, objects, "seed %lu: %lu and %lu, not %lu", (unsigned long)seed,
			     (unsigned long)r.objects, (unsigned long)r.held_objects, (unsigned long)objects);
		cr_assert_eq(r.bytes + r.held_bytes, bytes, "seed %lu", (unsigned long)seed);
		cr_assert_eq(r.objects, count_sources(reachable), "seed %lu: %lu, not %u", (unsigned long)seed,
			     (unsigned long)r.objects, count_sources(reachable));
		cr_assert_eq(r.scans, 1);
		cr_assert_eq(sum.groups, r.groups);
		cr_assert_eq(sum.objects, r.objects);
		cr_assert_eq(sum.bytes, r.bytes);
		cr_assert_eq(sum.held_objects, r.held_objects);
		cr_assert_eq(sum.held_bytes, r.held_bytes);
		for (unsigned i = 0; i < THINGS; i++)
			if (things[i].live)
				quarry_free(at(things[i].masked));
		memset(roots, 0, sizeof(roots));
		cr_assert_eq(quarry_arena_destroy(arena), 0);
		cr_assert_eq(look(0, NULL, NULL).objects, 0);
	}
}

Test(leaks, are_what_a_model_says)
{
	check_model(false);
}

Test(leaks, are_what_a_model_says_of_samples)
{
	check_model(true);
}

static uint64_t ring[2][2];

static __attribute__((noinline)) void make_rings(void)
{
	for (unsigned i = 0; i < 4; i++) {
		void **p = quarry_malloc(5000);

		memset(p, 0, 5000);
		ring[i / 2][i % 2] = mask(p);
	}
	if (ring[0][0] > ring[1][0]) /* in the order of their addresses */
		for (unsigned k = 0; k < 2; k++) {
			uint64_t other = ring[0][k];

			ring[0][k] = ring[1][k];
			ring[1][k] = other;
		}
	for (unsigned i = 0; i < 4; i++)
		*(void **)at(ring[i / 2][i % 2]) = at(ring[i / 2][1 - i % 2]);
}

/* One ring holds another: whichever stands first in memory. */
static __attribute__((noinline)) void tie_rings(unsigned from, unsigned to)
{
	((void **)at(ring[from][0]))[1] = at(ring[to][1]);
}

static __attribute__((noinline)) void untie_rings(void)
{
	((void **)at(ring[0][0]))[1] = ((void **)at(ring[1][0]))[1] = NULL;
}

Test(leaks, of_rings_the_one_that_holds_the_other)
{
	quarry_leaks_report r;

	make_rings();
	forget();
	r = look(0, NULL, NULL);
	cr_assert(r.objects == 2 && r.held_objects == 2);
	for (unsigned from = 0; from < 2; from++) {
		tie_rings(from, 1 - from);
		forget();
		r = look(0, NULL, NULL);
		cr_assert(r.objects == 1 && r.held_objects == 3, "%lu, %lu", (unsigned long)r.objects,
			  (unsigned long)r.held_objects);
		untie_rings();
		forget();
	}
}

/* A star: one that holds a thousand, and a ring that holds it; there is nothing else, and no room to spare. */
static uint64_t star;

static __attribute__((noinline)) void make_star(void)
{
	void **leaf[1000], **middle, **one, **other;

	/* (First, so that each is a ring that is looked at before the middle, and pushed from there once more.) */
	for (unsigned i = 0; i < 1000; i++) {
		leaf[i] = quarry_malloc(32);
		memset(leaf[i], 0, 32);
		leaf[i][0] = leaf[i];
	}
	one = quarry_malloc(64);
	other = quarry_malloc(64);
	middle = quarry_malloc(sizeof(leaf));
	memset(one, 0, 64);
	memset(other, 0, 64);
	memcpy(middle, leaf, sizeof(leaf));
	middle[500] = middle; /* a ring of its own, too */
	leaf[500][1] = one;
	one[0] = other;
	other[0] = one;
	other[1] = middle;
	written(middle);
	written(one);
	written(other);
	star = mask(middle);
}

Test(leaks, rings_that_hold_all_there_is)
{
	quarry_leaks_report r;

	make_star();
	forget();
	r = look(0, NULL, NULL);
	cr_assert(r.objects == 1 && r.held_objects == 1002, "%lu, %lu", (unsigned long)r.objects,
		  (unsigned long)r.held_objects);
}

/* ---- by stack ---- */

Test(leaks, are_told_by_where_they_came_from)
{
	static void *kept[10];

	begin(1);
	quarry_thread_flush();
	for (unsigned i = 0; i < 10; i++)
		kept[i] = quarry_malloc(200);
	lose_one(200);
	lose_one(200);
	place[0] = (void *)0x1005;
	lose_one(200);
	place[0] = (void *)0x1007;
	kept[9] = (quarry_free(kept[9]), quarry_malloc(200));
	told_count = 0;
	look(0, keep, NULL);
	cr_assert_eq(told_count, 2);
	cr_assert_eq(told[0].objects, 2);
	cr_assert_eq(told[0].depth, 3);
	cr_assert_eq(told[0].frames[0], (void *)0x1001);
	cr_assert_eq(told[0].frames[2], (void *)0x3001);
	cr_assert_eq(told[0].reachable_objects, 9);
	cr_assert_not_null(told[0].example[1]);
	cr_assert_null(told[0].example[2]);
	cr_assert_eq(told[1].objects, 1);
	cr_assert_eq((uintptr_t)told[1].example[0], masked_one);
	cr_assert_eq(told[1].frames[0], (void *)0x1005);
	cr_assert_eq(told[1].reachable_objects, 0);
	told_count = 0;
	look(QUARRY_LEAKS_REACHABLE, keep, NULL);
	cr_assert_eq(told_count, 3);
	cr_assert_eq(told[2].objects, 0);
	cr_assert_eq(told[2].reachable_objects, 1);
	cr_assert_eq(told[2].frames[0], (void *)0x1007);
}

/* ---- calls ---- */

Test(leaks, a_forked_child_has_its_own)
{
	int status;
	pid_t pid;

	lose_one(10);
	pid = fork();
	if (pid == 0) {
		quarry_leaks_report r = { .struct_size = sizeof(r) };

		lose_one(20);
		forget();
		_exit(quarry_leaks_find(0, NULL, NULL, &r) == 0 && r.objects == 2 && r.inexact == 0 ? 0 : 1);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0);
	cr_assert_eq(look(0, NULL, NULL).objects, 1);
}

static int end_at_once(const quarry_leak *l, void *ctx)
{
	(void)l;
	(*(unsigned *)ctx)++;
	return 7;
}

static int inside_error;

static void look_inside(const quarry_region_event *event, void *ctx)
{
	(void)event;
	(void)ctx;
	if (quarry_leaks_find(0, NULL, NULL, NULL) == -1)
		inside_error = errno;
}

Test(leaks, wrong_calls_are_refused)
{
	quarry_leaks_report r = { .struct_size = 0 };
	unsigned calls = 0;

	cr_assert_eq(quarry_leaks_find(2, NULL, NULL, NULL), -1);
	cr_assert_eq(errno, EINVAL);
	cr_assert_eq(quarry_leaks_find(0, NULL, NULL, &r), -1);
	cr_assert_eq(errno, EINVAL);
	cr_assert_eq(quarry_leaks_print(-1, 0), -1);
	cr_assert_eq(errno, EBADF);
	lose_one(10);
	lose_one(10000);
	forget();
	cr_assert_eq(quarry_leaks_find(0, end_at_once, &calls, NULL), 7);
	cr_assert_eq(calls, 1);
	cr_assert_eq(quarry_on_region(look_inside, NULL, QUARRY_REGION_MAP | QUARRY_REGION_UNMAP), 0);
	quarry_free(quarry_malloc(300 * MIB));
	quarry_purge(NULL);
	cr_assert_eq(inside_error, EDEADLK);
}

/* ---- suppressions ---- */

Test(leaks, suppressions_are_those_of_the_field)
{
	void *frames[] = { (char *)(uintptr_t)getenv + 1 };

	cr_assert_eq(quarry_leaks_suppress("leak:nobody\nleek:wrong\n"), -1);
	cr_assert_eq(errno, EINVAL);
	cr_assert(strstr(quarry_error_text(), "line 2") != NULL, "%s", quarry_error_text());
	cr_assert_eq(quarry_leaks_suppress("leak:"), -1);
	cr_assert_eq(quarry_leaks_suppress(NULL), -1);
	cr_assert_eq(quarry_leaks_suppress("# nothing\n\n  \n"), 0);
	cr_assert_null(qy_leak_suppressed(frames, 1));
	cr_assert_eq(quarry_leaks_suppress("leak:^etenv\nleak:geten$\nleak:get*nvv\nleak:^libc.so\n"), 0);
	cr_assert_null(qy_leak_suppressed(frames, 1));
	cr_assert_eq(quarry_leaks_suppress("  leak:^g*te*v$ \r\n"), 0);
	cr_assert_str_eq(qy_leak_suppressed(frames, 1), "^g*te*v$");
	cr_assert_null(qy_leak_suppressed(frames, 0));
	cr_assert_eq(quarry_leaks_suppress("leak:/libc.so"), 0);
	cr_assert_str_eq(qy_leak_suppressed(frames, 1), "/libc.so");
}
