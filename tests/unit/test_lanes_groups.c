/* SPDX-License-Identifier: MIT */
/* Groups of objects behind handles: each promise of include/quarry/lanes.h alone. */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/lanes/group.h"

#define N 500

struct set {
	quarry_lanes *l;
	quarry_group *g;
	quarry_handle h[N];
};

static quarry_group_stats stats_of(quarry_group *g)
{
	quarry_group_stats s = { 0 };

	cr_assert(quarry_group_stats_get(g, &s) == 0);
	return s;
}

/* Half of them begin in the fast lane, half in the slow one; they are of all sizes. */
static struct set *make(void)
{
	quarry_lanes_attr attr = { .threshold = 4096 };
	struct set *s = calloc(1, sizeof *s);

	s->l = quarry_lanes_create(&attr);
	s->g = quarry_group_create(s->l, &(quarry_group_attr){ .name = "set" });
	cr_assert(s->l != NULL && s->g != NULL);
	for (int i = 0; i < N; i++) {
		quarry_halloc_attr a = { .group = s->g, .lane = i % 2 ? QUARRY_LANE_FAST : QUARRY_LANE_SLOW,
					 .type = (uint32_t)i % 256 };

		s->h[i] = quarry_halloc_with(s->l, 16 + (size_t)i, &a);
		cr_assert(s->h[i] != 0);
		quarry_enter();
		memset(quarry_get_mut(s->l, s->h[i]), i, 16 + (size_t)i);
		quarry_leave();
	}
	return s;
}

static void check(const struct set *s, int lane)
{
	for (int i = 0; i < N; i++) {
		const char *p;

		quarry_enter();
		p = quarry_get(s->l, s->h[i]);
		cr_assert(p != NULL && p[0] == (char)i && p[15 + i] == (char)i);
		quarry_leave();
		cr_assert(lane == 0 || quarry_handle_lane(s->l, s->h[i]) == lane);
	}
}

static void end(struct set *s)
{
	cr_assert(quarry_lanes_destroy(s->l) == 0);
	free(s);
}

Test(lanes_groups, are_freed_as_one)
{
	struct set *s = make();
	quarry_handle other = quarry_halloc(s->l, 100);

	check(s, 0);
	cr_assert(stats_of(s->g).objects == N && stats_of(s->g).bytes >= N * (16 + N / 2 - 1) && !strcmp(stats_of(s->g).name, "set"));
	cr_assert(quarry_hfree(s->l, s->h[7]) == 0 && quarry_hfree(s->l, s->h[0]) == 0, "one alone leaves it");
	cr_assert(stats_of(s->g).objects == N - 2);
	cr_assert(quarry_group_free_all(s->g) == N - 2);
	cr_assert(stats_of(s->g).objects == 0 && stats_of(s->g).bytes == 0 && quarry_group_free_all(s->g) == 0);
	for (int i = 0; i < N; i++)
		cr_assert(!quarry_handle_valid(s->l, s->h[i]));
	cr_assert(quarry_handle_valid(s->l, other));
	end(s);
}

Test(lanes_groups, are_moved_as_one)
{
	struct set *s = make();

	cr_assert(quarry_group_migrate(s->g, QUARRY_LANE_SLOW) == N / 2);
	check(s, QUARRY_LANE_SLOW);
	cr_assert(quarry_group_migrate(s->g, QUARRY_LANE_FAST) == N);
	check(s, QUARRY_LANE_FAST);
	cr_assert(stats_of(s->g).objects == N && quarry_group_free_all(s->g) == N);
	cr_assert(quarry_group_migrate(s->g, 0) == -1 && errno == EINVAL);
	quarry_enter();
	cr_assert(quarry_group_migrate(s->g, QUARRY_LANE_SLOW) == 0, "there is nothing to wait for");
	quarry_leave();
	end(s);
}

Test(lanes_groups, are_pinned_as_one)
{
	struct set *s = make();
	void *p[N];

	cr_assert(quarry_pin(s->l, s->h[3]) != NULL);
	cr_assert(quarry_group_pin(s->g) == N);
	for (int i = 0; i < N; i++) {
		cr_assert(quarry_handle_state(s->l, s->h[i]) == QUARRY_HANDLE_PINNED);
		quarry_enter();
		p[i] = quarry_get_mut(s->l, s->h[i]);
		quarry_leave();
	}
	cr_assert(quarry_group_migrate(s->g, QUARRY_LANE_SLOW) == 0 && quarry_compact(s->l, QUARRY_COMPACT_FULL, 0, 0) >= 0);
	for (int i = 0; i < N; i++) {
		quarry_enter();
		cr_assert(quarry_get(s->l, s->h[i]) == p[i]);
		quarry_leave();
	}
	/* Freed, its memory stays for as long. */
	cr_assert(quarry_hfree(s->l, s->h[9]) == 0 && quarry_hfree(s->l, s->h[10]) == 0);
	cr_assert(((char *)p[9])[0] == 9 && ((char *)p[10])[0] == 10);
	cr_assert(quarry_group_free_all(s->g) == N - 2);
	cr_assert(stats_of(s->g).objects == N, "as long as they are pinned they count");
	cr_assert(quarry_group_unpin(s->g) == N);
	cr_assert(stats_of(s->g).objects == 1, "the one with another pin");
	cr_assert(quarry_unpin(s->l, s->h[3]) == 0 && stats_of(s->g).objects == 0);
	cr_assert(quarry_group_unpin(s->g) == 0);
	end(s);
}

Test(lanes_groups, only_the_groups_own_pins_are_taken_back)
{
	struct set *s = make();

	cr_assert(quarry_pin(s->l, s->h[0]) != NULL);
	cr_assert(quarry_group_unpin(s->g) == 0);
	cr_assert(quarry_handle_state(s->l, s->h[0]) == QUARRY_HANDLE_PINNED);
	cr_assert(quarry_group_pin(s->g) == N && quarry_group_pin(s->g) == N);
	cr_assert(quarry_group_unpin(s->g) == N && quarry_handle_state(s->l, s->h[1]) == QUARRY_HANDLE_PINNED);
	cr_assert(quarry_group_unpin(s->g) == N && quarry_handle_state(s->l, s->h[1]) == QUARRY_HANDLE_VALID);
	cr_assert(quarry_unpin(s->l, s->h[0]) == 0);
	/* Who leaves the group leaves its pins. */
	cr_assert(quarry_group_pin(s->g) == N && quarry_group_pin(s->g) == N);
	cr_assert(quarry_group_remove(s->g, s->h[0]) == 0 && quarry_handle_state(s->l, s->h[0]) == QUARRY_HANDLE_VALID);
	cr_assert(quarry_group_add(quarry_group_create(s->l, NULL), s->h[1]) == 0);
	cr_assert(quarry_handle_state(s->l, s->h[1]) == QUARRY_HANDLE_VALID);
	cr_assert(quarry_hfree(s->l, s->h[2]) == 0 && quarry_group_destroy(s->g) == 0);
	for (int i = 3; i < N; i++)
		cr_assert(quarry_handle_state(s->l, s->h[i]) == QUARRY_HANDLE_VALID);
	end(s);
}

Test(lanes_groups, are_limited_as_one)
{
	quarry_lanes *l = quarry_lanes_create(NULL);
	quarry_group *g = quarry_group_create(l, &(quarry_group_attr){ .limit = 10000 });
	quarry_halloc_attr in = { .group = g };
	quarry_lanes_stats s = { 0 };
	quarry_handle h, last = 0;
	int n = 0;

	while ((h = quarry_halloc_with(l, 1000, &in)) != 0) {
		last = h;
		n++;
	}
	cr_assert(errno == ENOMEM && n == 9 && stats_of(g).refused == 1, "%d", n);
	cr_assert(quarry_lanes_stats_get(l, &s) == 0 && s.objects == 9, "what was refused is free again");
	h = quarry_halloc(l, 1000);
	cr_assert(quarry_group_add(g, h) == -1 && errno == ENOMEM);
	cr_assert(quarry_hfree(l, last) == 0 && quarry_group_add(g, h) == 0 && quarry_group_add(g, h) == 0);
	cr_assert(quarry_group_limit(g, 0) == 0 && quarry_halloc_with(l, 100000, &in) != 0);
	cr_assert(stats_of(g).peak == stats_of(g).bytes && stats_of(g).objects == 10);
	cr_assert(quarry_lanes_destroy(l) == 0);
}

Test(lanes_groups, an_object_is_in_one)
{
	struct set *s = make();
	quarry_group *g = quarry_group_create(s->l, NULL);
	quarry_halloc_attr a = { 0 };
	quarry_handle h[N];

	for (int i = 0; i < N; i += 5)
		cr_assert(quarry_group_add(g, s->h[i]) == 0);
	cr_assert(stats_of(g).objects == N / 5 && stats_of(s->g).objects == N - N / 5);
	cr_assert(quarry_handle_attr(s->l, s->h[5], &a) == 0 && a.group == g);
	cr_assert(quarry_group_remove(s->g, s->h[5]) == -1 && errno == EINVAL);
	cr_assert(quarry_group_remove(g, s->h[5]) == 0 && quarry_group_remove(g, s->h[5]) == -1);
	cr_assert(quarry_group_handles(g, h, N) == N / 5 - 1 && quarry_group_handles(g, h, 3) == N / 5 - 1);
	for (int i = 0; i < 3; i++)
		cr_assert(quarry_handle_valid(s->l, h[i]) && quarry_handle_attr(s->l, h[i], &a) == 0 && a.group == g);
	cr_assert(quarry_group_destroy(g) == 0);
	check(s, 0);
	cr_assert(quarry_handle_attr(s->l, s->h[0], &a) == 0 && a.group == NULL);
	cr_assert(quarry_hfree(s->l, s->h[0]) == 0 && quarry_group_add(s->g, s->h[0]) == -1 && errno == ESTALE);
	cr_assert(quarry_group_destroy(NULL) == -1 && quarry_group_create(NULL, NULL) == NULL && errno == EINVAL);
	end(s);
}

/* The slot's next object is not in the group that its last one was in. */
Test(lanes_groups, the_next_life_is_in_none)
{
	struct set *s = make();
	quarry_halloc_attr a = { 0 };

	for (int i = 0; i < 2000; i++) {
		quarry_halloc_attr in = { .group = s->g };
		quarry_handle h = quarry_halloc_with(s->l, 100, &in), next;

		cr_assert(quarry_hfree(s->l, h) == 0);
		next = quarry_halloc(s->l, 100);
		cr_assert(quarry_handle_attr(s->l, next, &a) == 0 && a.group == NULL);
		cr_assert(quarry_hfree(s->l, next) == 0);
	}
	cr_assert(stats_of(s->g).objects == N);
	end(s);
}

static void *free_odd(void *arg)
{
	struct set *s = arg;

	for (int i = 1; i < N; i += 2)
		if (quarry_hfree(s->l, s->h[i]) != 0 && errno != ESTALE)
			return arg;
	return NULL;
}

Test(lanes_groups, beside_others_who_free)
{
	for (int round = 0; round < 40; round++) {
		struct set *s = make();
		int64_t freed;
		pthread_t thread;
		void *failed;

		cr_assert(pthread_create(&thread, NULL, free_odd, s) == 0);
		freed = quarry_group_free_all(s->g);
		pthread_join(thread, &failed);
		cr_assert(failed == NULL && freed >= N / 2 && freed <= N);
		cr_assert(stats_of(s->g).objects == 0 && stats_of(s->g).bytes == 0);
		end(s);
	}
}

/* ---- cold ones ---- */

#define ROWS 3000

/* Lanes with cold memory, and a group of text, all in the slow lane. */
static struct set *make_cold(quarry_handle *h, const char *directory, uint64_t memory)
{
	quarry_cold_attr cold = { .period_ms = 1, .directory = directory, .memory_limit = memory };
	quarry_lanes_attr attr = { .flags = QUARRY_LANES_NO_MOVER, .cold = &cold };
	struct set *s = calloc(1, sizeof *s);

	s->l = quarry_lanes_create(&attr);
	s->g = quarry_group_create(s->l, NULL);
	cr_assert(s->l != NULL && s->g != NULL, "%s", quarry_error_text());
	for (int i = 0; i < ROWS; i++) {
		quarry_halloc_attr a = { .group = s->g, .type = (uint32_t)i % 256, .flags = i % 3 == 0 ? QUARRY_HALLOC_OLD : 0 };

		h[i] = quarry_halloc_with(s->l, 128, &a);
		cr_assert(h[i] != 0);
		quarry_enter();
		memset(quarry_get_mut(s->l, h[i]), i, 128);
		quarry_leave();
	}
	return s;
}

static int state_of(const struct set *s, quarry_handle h)
{
	return quarry_handle_state(s->l, h);
}

static void check_rows(const struct set *s, const quarry_handle *h)
{
	for (int i = 0; i < ROWS; i++) {
		quarry_halloc_attr a = { 0 };
		const char *p;

		quarry_enter();
		p = quarry_get(s->l, h[i]);
		cr_assert(p != NULL && p[0] == (char)i && p[127] == (char)i);
		quarry_leave();
		cr_assert(quarry_handle_attr(s->l, h[i], &a) == 0 && a.group == s->g);
		cr_assert(a.flags == (i % 3 == 0 ? QUARRY_HALLOC_OLD : 0) && a.type == (uint32_t)i % 256);
	}
}

/* They are in it while they are cold, and are what they were when they come back. */
Test(lanes_groups, are_evicted_and_come_back_as_one)
{
	static quarry_handle h[ROWS], again[ROWS];
	struct set *s = make_cold(h, NULL, 0);
	quarry_handle other = quarry_halloc(s->l, 128);

	cr_assert(quarry_group_evict(s->g) == ROWS, "errno %d: %s", errno, quarry_error_text());
	for (int i = 0; i < ROWS; i++)
		cr_assert(state_of(s, h[i]) == QUARRY_HANDLE_COLD);
	cr_assert(state_of(s, other) == QUARRY_HANDLE_VALID, "who is in none stays");
	cr_assert(quarry_group_handles(s->g, again, ROWS) == ROWS);
	for (int i = 0; i < ROWS; i++)
		cr_assert(again[i] == h[i] && state_of(s, h[i]) == QUARRY_HANDLE_COLD, "asking does not bring them back");
	cr_assert(quarry_group_prefetch(s->g) == ROWS && quarry_group_prefetch(s->g) == 0);
	for (int i = 0; i < ROWS; i++)
		cr_assert(state_of(s, h[i]) == QUARRY_HANDLE_VALID);
	check_rows(s, h);
	cr_assert(quarry_group_evict(s->g) == ROWS && stats_of(s->g).objects == ROWS);
	check_rows(s, h); /* one by one */
	quarry_enter();
	cr_assert(quarry_group_evict(s->g) == -1 && errno == EDEADLK);
	quarry_leave();
	cr_assert(quarry_group_evict(NULL) == -1 && errno == EINVAL && quarry_group_prefetch(NULL) == -1);
	end(s);
}

Test(lanes_groups, are_freed_and_pinned_while_cold)
{
	static quarry_handle h[ROWS];
	struct set *s = make_cold(h, NULL, 0);

	cr_assert(quarry_group_pin(s->g) == ROWS && quarry_group_evict(s->g) == 0, "what is pinned stays");
	cr_assert(quarry_group_unpin(s->g) == ROWS && quarry_group_evict(s->g) == ROWS);
	for (int i = 0; i < ROWS / 2; i++)
		cr_assert(quarry_hfree(s->l, h[i]) == 0 && state_of(s, h[i]) == QUARRY_HANDLE_FREED);
	cr_assert(stats_of(s->g).objects == ROWS / 2 && stats_of(s->g).bytes == ROWS / 2 * 128);
	cr_assert(quarry_group_remove(s->g, h[ROWS - 1]) == 0 && state_of(s, h[ROWS - 1]) == QUARRY_HANDLE_VALID);
	cr_assert(quarry_group_pin(s->g) == ROWS / 2 - 1 && state_of(s, h[ROWS - 2]) == QUARRY_HANDLE_PINNED, "pinned, it is back");
	cr_assert(quarry_group_unpin(s->g) == ROWS / 2 - 1 && quarry_group_evict(s->g) == ROWS / 2 - 1);
	cr_assert(quarry_group_free_all(s->g) == ROWS / 2 - 1 && stats_of(s->g).objects == 0 && stats_of(s->g).bytes == 0);
	quarry_halloc_attr a = { .group = s->g };
	quarry_handle next = quarry_halloc_with(s->l, 64, &a), plain = quarry_halloc(s->l, 64);

	cr_assert(next != 0 && stats_of(s->g).objects == 1, "their slots are used again, and by objects of no group");
	cr_assert(quarry_handle_attr(s->l, plain, &a) == 0 && a.group == NULL && a.flags == 0);
	end(s);
}

/* Those hinted to be cold go at each pass, whoever got them; others do not; some never do. */
Test(lanes_groups, hints_say_what_becomes_cold)
{
	static quarry_handle h[ROWS];
	struct set *s = make_cold(h, NULL, 0);
	quarry_cold_stats now = { 0 };

	for (int i = 0; i < ROWS; i++) {
		if (i % 4 == 0)
			cr_assert(quarry_hint(s->l, h[i], QUARRY_HALLOC_COLD, QUARRY_PRIORITY_NORMAL) == 0);
		if (i % 4 == 1)
			cr_assert(quarry_hint(s->l, h[i], QUARRY_HALLOC_NOSPILL, QUARRY_PRIORITY_NORMAL) == 0);
		if (i % 4 == 2)
			cr_assert(quarry_hint(s->l, h[i], 0, QUARRY_PRIORITY_CRITICAL) == 0);
	}
	cr_assert(quarry_cool(s->l, 0) == ROWS / 4, "the first pass: nobody was unseen before it");
	for (int i = 0; i < ROWS; i++)
		cr_assert((state_of(s, h[i]) == QUARRY_HANDLE_COLD) == (i % 4 == 0));
	for (int pass = 0; pass < 100 && now.objects < ROWS / 2; pass++)
		cr_assert(quarry_cool(s->l, 0) >= 0 && usleep(2000) == 0 && quarry_cold_stats_get(s->l, &now) == 0);
	for (int i = 0; i < ROWS; i++)
		cr_assert((state_of(s, h[i]) == QUARRY_HANDLE_COLD) == (i % 4 == 0 || i % 4 == 3));
	cr_assert(quarry_group_evict(s->g) == 0, "by call neither");
	end(s);
}
