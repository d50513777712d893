/* SPDX-License-Identifier: MIT */
/* Stress: many threads at a few objects, of both lanes. So two of them are at one object most of the time, and each look at a
 * word or a pin that is to see another thread's step is tried in the moment in which that is taken: an object is pinned
 * while it is freed, freed while it is moved, moved while it is put into a group, read without a scope while its
 * place becomes another's. Every byte is known; what is pinned stays what and where it is until it is unpinned. */
#include "tests/stress/lanes_objects.h"

#include <sched.h>

#define PLACES 3

static _Atomic(quarry_handle) place[PLACES];
static quarry_group *group;
static _Atomic(uint64_t) pins, misses, ends;

static quarry_handle make(struct st_rng *rng)
{
	size_t size = 16 + (size_t)st_below(rng, 16) * 16;
	quarry_halloc_attr attr = { .lane = st_below(rng, 2) ? QUARRY_LANE_FAST : QUARRY_LANE_SLOW };
	quarry_handle h = quarry_halloc_with(lanes, size, &attr);
	void *p;

	ST_CHECK(h != 0);
	quarry_enter();
	p = quarry_get_mut(lanes, h);
	ST_CHECK(p != NULL);
	fill(p, size, h);
	quarry_leave();
	return h;
}

static quarry_handle some_handle(struct st_rng *rng)
{
	return atomic_load(&place[st_below(rng, PLACES)]);
}

static void replace(struct st_rng *rng)
{
	_Atomic(quarry_handle) *at = &place[st_below(rng, PLACES)];
	quarry_handle h = make(rng), old = atomic_exchange(at, h);

	if (old != 0)
		ST_CHECK(quarry_hfree(lanes, old) == 0 || errno == ESTALE);
	atomic_fetch_add_explicit(&ends, 1, memory_order_relaxed);
}

/* Freed and left where it is, for others to find; what comes next takes its memory. */
static void end(struct st_rng *rng)
{
	quarry_handle h = some_handle(rng), next[8];

	ST_CHECK(quarry_hfree(lanes, h) == 0 || errno == ESTALE || errno == EINVAL);
	for (int i = 0; i < 8; i++)
		next[i] = make(rng);
	for (int i = 0; i < 8; i++)
		ST_CHECK(quarry_hfree(lanes, next[i]) == 0);
	replace(rng);
}

static void pin(struct st_rng *rng)
{
	quarry_handle h = some_handle(rng);
	const void *p = quarry_pin(lanes, h), *now;

	if (p == NULL) {
		ST_CHECK(errno == ESTALE || errno == EINVAL);
		atomic_fetch_add_explicit(&misses, 1, memory_order_relaxed);
		return;
	}
	verify(p, h, 0, "pinned");
	for (uint64_t i = st_below(rng, 4); i > 0; i--)
		quarry_hfree(lanes, make(rng));
	if (st_below(rng, 16) == 0)
		sched_yield();
	quarry_enter();
	now = quarry_get(lanes, h);
	if (now != p && now != NULL)
		st_fail("a pinned object is at %p, not at %p", now, p);
	quarry_leave();
	verify(p, h, 0, "pinned for long");
	ST_CHECK(quarry_unpin(lanes, h) == 0);
	atomic_fetch_add_explicit(&pins, 1, memory_order_relaxed);
}

static void group_it(struct st_rng *rng)
{
	quarry_handle h = some_handle(rng);

	if (st_below(rng, 64) == 0)
		ST_CHECK(quarry_group_free_all(group) >= 0);
	else
		ST_CHECK(quarry_group_add(group, h) == 0 || errno == ESTALE || errno == EINVAL);
}

static void move(struct st_rng *rng)
{
	quarry_handle h = some_handle(rng);

	switch (st_below(rng, 8)) {
	case 0:
		ST_CHECK(quarry_oneway_flush(lanes) >= 0 || errno == EBUSY);
		break;
	case 1:
		ST_CHECK(quarry_lanes_tick(lanes) >= 0);
		break;
	case 2:
		ST_CHECK(quarry_compact(lanes, QUARRY_COMPACT_FULL, 0, 0) >= 0 || errno == EBUSY);
		break;
	case 3:
		ST_CHECK(quarry_evict(lanes, &h, 1) >= 0 || errno == EBUSY);
		break;
	case 4:
		ST_CHECK(quarry_prefetch(lanes, &h, 1) >= 0);
		break;
	case 5:
		(void)quarry_demote(lanes, h);
		break;
	default:
		(void)quarry_promote(lanes, h);
	}
}

static void step(struct st_worker *w)
{
	uint64_t which = st_below(&w->rng, 100);

	if (w->number == 0 && which < 30)
		move(&w->rng);
	else if (which < 55)
		pin(&w->rng);
	else if (which < 70)
		replace(&w->rng);
	else if (which < 80)
		end(&w->rng);
	else if (which < 85)
		group_it(&w->rng);
	else if (which < 92)
		read_fixed_optimistically(&w->rng, NULL);
	else
		read_fixed_objects(&w->rng, NULL);
}

/* What is read is what the places have. */
static void work(struct st_worker *w)
{
	while (st_more(w)) {
		step(w);
		if (w->number == 1)
			for (int i = 0; i < PLACES; i++)
				atomic_store(&fixed[i], atomic_load(&place[i]));
	}
}

int main(int argc, char **argv)
{
	quarry_cold_attr cold = { .codec = "none", .period_ms = 1 };
	quarry_lanes_attr attr = { .cold = &cold, .generations = 2000, .threshold = 64, .max_fast_age_ticks = 2,
				   .fast_lane_size = 4 * ST_MIB };
	quarry_lanes_stats stats = { 0 };
	quarry_group_stats of = { 0 };
	struct st_rng rng;

	st_begin(argc, argv, "lanes_few", 400000, 6);
	rng = st_rng_for(1000);
	lanes = quarry_lanes_create(&attr);
	group = quarry_group_create(lanes, NULL);
	ST_CHECK(lanes != NULL && group != NULL);
	for (int i = 0; i < PLACES; i++)
		atomic_store(&place[i], make(&rng));
	st_threads(work);
	for (int i = 0; i < PLACES; i++)
		(void)quarry_hfree(lanes, place[i]);
	ST_CHECK(quarry_compact(lanes, QUARRY_COMPACT_FULL, 0, 0) >= 0 && quarry_lanes_stats_get(lanes, &stats) == 0);
	ST_CHECK(quarry_group_stats_get(group, &of) == 0 && of.objects == 0 && of.bytes == 0);
	printf("lanes_few: %llu pinned, %llu too late, %llu ended, %llu moved, %llu moved while read, %llu optimistic reads, %llu in vain\n",
	       (unsigned long long)pins, (unsigned long long)misses, (unsigned long long)ends, (unsigned long long)stats.moved,
	       (unsigned long long)moved_away, (unsigned long long)optimistic, (unsigned long long)in_vain);
	ST_CHECK(stats.objects == 0 && stats.live == 0 && quarry_stub_count(lanes) == 0);
	ST_CHECK(quarry_lanes_destroy(lanes) == 0);
	return st_end(ST_SLACK, 0);
}
