/* SPDX-License-Identifier: MIT */
/* What becomes of objects by what was said of them: groups in segments of their own, times to live, what goes first. */
#include <stdlib.h>

#include "lib/lanes/group.h"
#include "numa/os.h"
#include "tests/unit/lanes.h"

/* A clock that goes on when the test says so. */
static uint64_t ms = 5000;
static struct qy_os os;

static uint64_t now_ms(void)
{
	return ms;
}

static void stop_the_clock(void)
{
	os = *qy_os;
	os.now_ms = now_ms;
	qy_os = &os;
}

static uint64_t objects_of(quarry_group *g)
{
	quarry_group_stats s = { 0 };

	cr_assert(quarry_group_stats_get(g, &s) == 0);
	return s.objects;
}

/* ---- segments of its own ---- */

static const struct qy_segment *segment_of(quarry_lanes *l, quarry_handle h)
{
	return qy_segment_of(writable(l, h));
}

/* A clock whose reader, who holds the lock, has turned the ring as one who visits the group would have just before. */
static quarry_group *turned;

static uint64_t turning_ms(void)
{
	for (int i = 0; i < 700 && turned->first != 0; i++)
		turned->first = qy_side_of(turned->lanes, turned->first - 1)->next;
	return ms;
}

#define N 12000

Test(lanes_policy, a_group_is_packed_into_segments_of_its_own)
{
	static const quarry_arena_attr own;
	quarry_lanes_attr attr = { .flags = QUARRY_LANES_NO_MOVER, .memory = &own };
	quarry_lanes *l = lanes_made(&attr);
	quarry_group *g[2] = { quarry_group_create(l, NULL), quarry_group_create(l, NULL) };
	static quarry_handle h[N];
	uint32_t segments;

	for (int i = 0; i < N; i++) {
		h[i] = filled(l, 1000, i % 100);
		if (i % 3 < 2)
			cr_assert(quarry_group_add(g[i % 3], h[i]) == 0);
	}
	cr_assert(segment_of(l, h[0]) == segment_of(l, h[1]), "they stand among each other");
	cr_assert(quarry_group_compact(g[0]) == N / 3 && quarry_group_compact(g[1]) == N / 3);
	cr_assert(quarry_group_compact(g[0]) == 0, "they are there");
	for (int i = 0; i < N; i++) {
		check(l, h[i], 1000, i % 100);
		cr_assert(l->home[segment_of(l, h[i])->home]->owner == (i % 3 < 2 ? g[i % 3] : NULL));
	}
	cr_assert(quarry_compact(l, QUARRY_COMPACT_FULL, 0, 0) >= 0);
	segments = figures_of(l).segments;
	for (int i = 0; i < N; i++)
		cr_assert(l->home[segment_of(l, h[i])->home]->owner == (i % 3 < 2 ? g[i % 3] : NULL), "packing leaves them there");
	cr_assert(quarry_group_free_all(g[0]) == N / 3 && quarry_compact(l, QUARRY_COMPACT_NONE, 0, 0) >= 0);
	cr_assert(figures_of(l).segments + 1 <= segments, "%u, %u", figures_of(l).segments, segments);
	for (int i = 1; i < N; i++)
		if (i % 3 != 0)
			check(l, h[i], 1000, i % 100);
	cr_assert(quarry_group_destroy(g[0]) == 0 && quarry_group_destroy(g[1]) == 0);
	for (int i = 0; i < 100; i++) { /* what a group had is another's */
		quarry_group *one = quarry_group_create(l, NULL);

		cr_assert(quarry_group_add(one, h[i * 3 + 2]) == 0 && quarry_group_compact(one) == 1 && l->homes <= 3);
		cr_assert(l->home[segment_of(l, h[i * 3 + 2])->home]->owner == one && segment_of(l, h[1])->home != segment_of(l, h[i * 3 + 2])->home,
			  "but where the last one's objects are still");
		cr_assert(quarry_group_free_all(one) == 1 && quarry_group_destroy(one) == 0);
		cr_assert(quarry_compact(l, QUARRY_COMPACT_NONE, 0, 0) >= 0);
	}
	quarry_enter();
	cr_assert(quarry_group_compact(quarry_group_create(l, NULL)) == -1 && errno == EDEADLK);
	quarry_leave();
	cr_assert(quarry_group_compact(NULL) == -1 && errno == EINVAL);
	cr_assert(quarry_lanes_destroy(l) == 0);
}

Test(lanes_policy, there_are_63_of_them)
{
	quarry_lanes *l = lanes_made(&(quarry_lanes_attr){ .flags = QUARRY_LANES_NO_MOVER, .threshold = 100 });

	for (int i = 0; i < 64; i++) {
		quarry_group *g = quarry_group_create(l, NULL);
		quarry_handle h = filled(l, 64, i);

		cr_assert(quarry_group_add(g, h) == 0);
		cr_assert(quarry_group_compact(g) == (i < 63 ? 1 : -1), "%d", i);
		cr_assert(quarry_handle_lane(l, h) == (i < 63 ? QUARRY_LANE_SLOW : QUARRY_LANE_FAST) && (i < 63 || errno == ENOSPC));
		check(l, h, 64, i);
	}
	cr_assert(quarry_lanes_destroy(l) == 0);
}

/* ---- a time to live ---- */

Test(lanes_policy, what_was_long_enough_in_a_group_is_freed)
{
	quarry_lanes *l;
	quarry_group *g, *other;
	static quarry_handle h[3000];

	stop_the_clock();
	l = lanes_made(NULL);
	g = quarry_group_create(l, NULL);
	other = quarry_group_create(l, NULL);
	for (int i = 0; i < 3000; i++) {
		ms = 5000 + (uint64_t)i;
		h[i] = quarry_halloc_with(l, 64, &(quarry_halloc_attr){ .group = g });
	}
	cr_assert(quarry_group_add(other, filled(l, 64, 1)) == 0);
	cr_assert(quarry_group_expire(g) == 0 && quarry_lanes_tick(l) == 0 && objects_of(g) == 3000, "for ever");
	cr_assert(quarry_group_ttl(g, 1000) == 0 && quarry_group_ttl(g, 2000) == 0 && atomic_load(&l->groups.mortal) == 1);
	ms = 8000; /* 5000 to 6000 are over */
	cr_assert(quarry_group_expire(g) == 1001 && objects_of(g) == 1999);
	for (int i = 0; i < 3000; i++)
		cr_assert(quarry_handle_valid(l, h[i]) == (i > 1000));
	ms = 8100;
	cr_assert(quarry_lanes_tick(l) == 0 && objects_of(g) == 1999, "not looked at so soon");
	ms = 8500;
	cr_assert(quarry_lanes_tick(l) == 0 && objects_of(g) == 1499, "%d", (int)objects_of(g));
	ms = 9000;
	cr_assert(quarry_maintain(l, 0) >= 0 && objects_of(g) == 999, "%d", (int)objects_of(g));
	ms = 100000;
	cr_assert(quarry_group_ttl(g, 0) == 0 && quarry_group_expire(g) == 0 && objects_of(g) == 999);
	cr_assert(quarry_group_ttl(g, 10) == 0 && quarry_pin(l, h[2999]) != NULL && quarry_lanes_tick(l) == 0);
	cr_assert(objects_of(other) == 1 && objects_of(g) == 1 && quarry_unpin(l, h[2999]) == 0 && objects_of(g) == 0, "a pin keeps its memory");
	for (int i = 0; i < 64; i++)
		cr_assert(quarry_group_add(g, filled(l, 64, 1)) == 0);
	ms += 3000;
	cr_assert(quarry_group_ttl(other, 10) == 0 && quarry_lanes_tick(l) == 0 && objects_of(g) == 0 && objects_of(other) == 0,
		  "both, though one has as many as go at once");
	cr_assert(quarry_group_ttl(other, 0) == 0 && quarry_group_ttl(g, ((uint64_t)1 << 31) + 1) == -1 && errno == EINVAL && quarry_group_ttl(NULL, 1) == -1);
	cr_assert(quarry_group_destroy(g) == 0 && atomic_load(&l->groups.mortal) == 0 && quarry_group_expire(NULL) == -1);
	cr_assert(quarry_lanes_destroy(l) == 0);
}

/* Whoever comes while others are freed is young, whatever the clock says where. */
#define OLD 20000
#define YOUNG 20000

static _Atomic(uint64_t) moving;
static _Atomic(int) came;
static _Atomic(bool) enough;
static quarry_handle young[YOUNG];

static uint64_t moving_ms(void)
{
	return atomic_fetch_add(&moving, 1);
}

static void *come(void *arg)
{
	quarry_group *g = arg;

	for (int i = 0; i < YOUNG && !atomic_load(&enough); i++) {
		young[i] = quarry_halloc_with(g->lanes, 64, &(quarry_halloc_attr){ .group = g });
		atomic_store(&came, i + 1);
	}
	return NULL;
}

Test(lanes_policy, who_comes_while_others_are_freed_stays)
{
	quarry_lanes *l;
	quarry_group *g;
	quarry_handle h;
	pthread_t thread;

	stop_the_clock();
	os.now_ms = moving_ms;
	l = lanes_made(&(quarry_lanes_attr){ .flags = QUARRY_LANES_NO_MOVER });
	g = quarry_group_create(l, NULL);
	for (int i = 0; i < OLD; i++)
		cr_assert(quarry_halloc_with(l, 64, &(quarry_halloc_attr){ .group = g }) != 0);
	atomic_fetch_add(&moving, (uint64_t)1 << 31);
	cr_assert(quarry_group_ttl(g, (uint64_t)1 << 31) == 0);
	cr_assert(pthread_create(&thread, NULL, come, g) == 0);
	while (atomic_load(&came) == 0)
		;
	cr_assert(quarry_group_expire(g) == OLD);
	atomic_store(&enough, true);
	pthread_join(thread, NULL);
	for (int i = 0; i < atomic_load(&came); i++)
		cr_assert(quarry_handle_valid(l, young[i]), "%d of %d", i, atomic_load(&came));
	cr_assert(quarry_group_free_all(g) == atomic_load(&came));
	os.now_ms = now_ms;
	ms = 6000;
	h = quarry_halloc_with(l, 64, &(quarry_halloc_attr){ .group = g });
	ms = 5999; /* another processor's, which is behind */
	cr_assert(quarry_group_ttl(g, 1000) == 0 && quarry_group_expire(g) == 0 && quarry_handle_valid(l, h));
	ms = 6000 + ((uint64_t)1 << 32) + 1; /* it is long over, though its lower bits say no */
	cr_assert(quarry_group_expire(g) == 1 && objects_of(g) == 0);
	cr_assert(quarry_lanes_destroy(l) == 0);
}

/* None is left out because somebody else turns the ring meanwhile, or leaves it. */
Test(lanes_policy, all_that_are_over_go_whoever_else_visits)
{
	quarry_lanes *l;
	quarry_group *g;
	static quarry_handle h[OLD], seen[OLD];

	stop_the_clock();
	ms = 5000;
	l = lanes_made(&(quarry_lanes_attr){ .flags = QUARRY_LANES_NO_MOVER });
	g = quarry_group_create(l, NULL);
	for (int i = 0; i < 3000; i++)
		cr_assert((h[i] = quarry_halloc_with(l, 64, &(quarry_halloc_attr){ .group = g })) != 0);
	for (int i = 0; i < 500; i++) /* half of the group is young, and comes first when it is turned */
		cr_assert(quarry_group_remove(g, h[i]) == 0);
	ms = 6000;
	for (int i = 0; i < 500; i++)
		cr_assert(quarry_group_add(g, h[i]) == 0);
	cr_assert(quarry_group_ttl(g, 500) == 0);
	turned = g;
	os.now_ms = turning_ms;
	cr_assert(quarry_group_expire(g) == 2500 && objects_of(g) == 500);
	os.now_ms = now_ms;
	for (int i = 0; i < 3000; i++)
		cr_assert(quarry_handle_valid(l, h[i]) == (i < 500));
	cr_assert(quarry_group_handles(g, seen, OLD) == 500);
	for (int i = 0; i < 500; i++)
		cr_assert(quarry_group_remove(g, h[i]) == 0);
	cr_assert(quarry_group_expire(g) == 0 && quarry_group_add(g, h[7]) == 0);
	ms = 7000;
	cr_assert(quarry_group_expire(g) == 1 && !quarry_handle_valid(l, h[7]));
	cr_assert(quarry_lanes_destroy(l) == 0);
}

/* ---- what goes first ---- */

#define KINDS 6
#define EACH 200

Test(lanes_policy, what_is_wanted_least_goes_first)
{
	static const struct {
		uint32_t flags;
		int priority;
	} kind[KINDS] = { { QUARRY_HALLOC_COLD, QUARRY_PRIORITY_LOW }, { 0, QUARRY_PRIORITY_LOW }, { QUARRY_HALLOC_OLD, 0 }, { 0, 0 },
			  { 0, QUARRY_PRIORITY_CRITICAL }, { QUARRY_HALLOC_NOSPILL, 0 } };
	quarry_cold_attr cold = { .period_ms = 3600000 };
	quarry_lanes_attr attr = { .cold = &cold, .flags = QUARRY_LANES_NO_MOVER };
	quarry_lanes *l = quarry_lanes_create(&attr), *warm = lanes_made(NULL);
	quarry_handle h[KINDS][EACH];
	uint64_t part = EACH * 256;

	if (l == NULL)
		cr_skip_test("no liblz4 here");
	for (int k = KINDS - 1; k >= 0; k--)
		for (int i = 0; i < EACH; i++) {
			h[k][i] = filled(l, 256, k);
			if (kind[k].flags != 0 || kind[k].priority != 0)
				cr_assert(quarry_hint(l, h[k][i], kind[k].flags, kind[k].priority) == 0);
		}
	cr_assert(quarry_shed(l, 0) == 0);
	for (int k = 0; k < 4; k++) {
		cr_assert(quarry_shed(l, part) == (int64_t)part, "%d", k);
		for (int i = 0; i < EACH; i++)
			for (int n = 0; n < KINDS; n++)
				cr_assert((quarry_handle_state(l, h[n][i]) == QUARRY_HANDLE_COLD) == (n <= k), "%d, %d after %d", n, i, k);
	}
	cr_assert(quarry_shed(l, part) == 0, "others never go");
	for (int k = 0; k < KINDS; k++)
		for (int i = 0; i < EACH; i++)
			check(l, h[k][i], 256, k);
	cr_assert(quarry_shed(l, 1) == 256 && quarry_shed(NULL, 1) == -1 && quarry_shed(warm, 1) == -1 && errno == ENOTSUP);
	cr_assert(quarry_lanes_destroy(l) == 0 && quarry_lanes_destroy(warm) == 0);
}

Test(lanes_policy, what_nobody_got_goes_before_what_somebody_did)
{
	quarry_cold_attr cold = { .period_ms = 3600000 };
	quarry_lanes_attr attr = { .cold = &cold, .flags = QUARRY_LANES_NO_MOVER };
	quarry_lanes *l = quarry_lanes_create(&attr);
	quarry_handle h[400];

	if (l == NULL)
		cr_skip_test("no liblz4 here");
	for (int i = 0; i < 400; i++)
		h[i] = filled(l, 256, 1);
	cr_assert(quarry_cool(l, 0) == 0, "the first pass marks them");
	for (int i = 0; i < 200; i++)
		check(l, h[i], 256, 1);
	cr_assert(quarry_shed(l, 200 * 256) == 200 * 256);
	for (int i = 0; i < 400; i++)
		cr_assert((quarry_handle_state(l, h[i]) == QUARRY_HANDLE_COLD) == (i >= 200), "%d", i);
	cr_assert(quarry_lanes_destroy(l) == 0);
}
