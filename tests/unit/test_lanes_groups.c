/* SPDX-License-Identifier: MIT */
/* Groups of objects behind handles: each promise of include/quarry/lanes.h alone. */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

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
