/* SPDX-License-Identifier: MIT */
/* Stress: objects behind handles. Threads make, read, write, pin and free objects of all sizes, some shared under locks,
 * some immutable and read without any while they are replaced and freed; meanwhile one of the threads compacts, in full,
 * in part and by budgets. Every byte is known and looked at; what was got in a scope stays what it was until the scope is
 * left; no stale handle is ever taken for a live one; a pinned object stays where it is. At the end all is free. */
#include "tests/stress/lanes_objects.h"

#define SHARED 6000
#define STALE 1024
#define HUGE_SIZE ((size_t)3 << 20)

static struct shared shared[SHARED];
static _Atomic(quarry_handle) stale[STALE];
static _Atomic(uint64_t) compactions, migrated;

static size_t some_size(struct st_rng *rng)
{
	static const uint32_t most[] = { 64, 64, 256, 256, 1024, 1024, 8192, 40000 };
	uint64_t which = st_below(rng, 400);

	if (which == 0)
		return HUGE_SIZE + 16;
	if (which < 4)
		return (size_t)200000 + (size_t)st_below(rng, 400000) / 8 * 8;
	return 16 + (size_t)st_below(rng, most[which % 8]) / 8 * 8;
}

static void remember(struct st_rng *rng, quarry_handle h)
{
	atomic_store(&stale[st_below(rng, STALE)], h);
}

/* ---- shared ones, under their locks ---- */

static void make_shared(struct shared *s, struct st_rng *rng)
{
	unsigned type = (unsigned)st_below(rng, 256);
	size_t alignment = st_below(rng, 8) == 0 ? (size_t)16 << st_below(rng, 9) : 0;

	s->size = some_size(rng);
	s->tag = atomic_fetch_add(&next_tag, 1);
	s->h = quarry_halloc_typed(lanes, s->size, alignment, type);
	ST_CHECK(s->h != 0);
	quarry_enter();
	s->pinned = NULL;
	{
		void *p = quarry_get_mut(lanes, s->h);

		ST_CHECK(p != NULL && (alignment == 0 || (uintptr_t)p % alignment == 0));
		fill(p, s->size, s->tag);
	}
	quarry_leave();
}

static void end_and_remember(struct shared *s, struct st_rng *rng)
{
	quarry_handle h = s->h;

	end_shared(s);
	remember(rng, h);
}

static void step_shared(struct st_worker *w)
{
	struct shared *s = &shared[st_below(&w->rng, SHARED)];

	pthread_mutex_lock(&s->lock);
	if (s->h == 0)
		make_shared(s, &w->rng);
	switch (st_below(&w->rng, 8)) {
	case 0:
	case 1:
		end_and_remember(s, &w->rng);
		break;
	case 2:
		if (s->pinned == NULL)
			ST_CHECK((s->pinned = quarry_pin(lanes, s->h)) != NULL);
		else
			ST_CHECK((s->pinned = NULL, quarry_unpin(lanes, s->h)) == 0);
		break;
	case 3:
	case 4:
		write_shared(s);
		break;
	default:
		read_shared(s);
	}
	pthread_mutex_unlock(&s->lock);
}

/* Many at once, so that there is something to pack. */
static void end_many(struct st_worker *w)
{
	uint64_t first = st_below(&w->rng, SHARED);

	for (uint64_t i = 0; i < SHARED; i++) {
		struct shared *s = &shared[(first + i) % SHARED];

		if (st_below(&w->rng, 4) == 0 || pthread_mutex_trylock(&s->lock) != 0)
			continue;
		if (s->h != 0)
			end_and_remember(s, &w->rng);
		pthread_mutex_unlock(&s->lock);
	}
}

/* ---- immutable ones, without a lock ---- */

static void replace_fixed(struct st_worker *w)
{
	size_t size = some_size(&w->rng);
	quarry_handle h = quarry_halloc(lanes, size), old;
	void *p;

	ST_CHECK(h != 0);
	quarry_enter();
	p = quarry_get_mut(lanes, h);
	ST_CHECK(p != NULL);
	fill(p, size, h);
	quarry_leave();
	old = atomic_exchange(&fixed[st_below(&w->rng, FIXED)], h);
	if (old == 0)
		return;
	ST_CHECK(quarry_hfree(lanes, old) == 0);
	remember(&w->rng, old);
}

static void probe_stale(struct st_worker *w)
{
	quarry_handle h = atomic_load(&stale[st_below(&w->rng, STALE)]);
	const void *p;

	if (h == 0)
		return;
	quarry_enter();
	ST_CHECK(quarry_get(lanes, h) == NULL && quarry_get_mut(lanes, h) == NULL);
	ST_CHECK(quarry_try_get(lanes, h, &p) == -1 && !quarry_handle_valid(lanes, h));
	quarry_leave();
	ST_CHECK(quarry_pin(lanes, h) == NULL && quarry_unpin(lanes, h) == -1);
	ST_CHECK(quarry_hfree(lanes, h) == -1);
}

/* ---- all of it ---- */

static void compact(struct st_worker *w)
{
	static const uint64_t budgets[] = { 0, 50, 200, 2000 };
	uint64_t which = st_below(&w->rng, 8);
	int64_t back = quarry_compact(lanes, which < 6 ? QUARRY_COMPACT_FULL : which < 7 ? QUARRY_COMPACT_ENOUGH : QUARRY_COMPACT_NONE,
				      (size_t)4 << 20, budgets[which % 4]);

	if (back < 0)
		ST_CHECK(errno == EBUSY);
	else
		atomic_fetch_add(&compactions, 1);
}

/* To a node's memory, out of their own; and figures, which look at all of it. */
static void migrate(struct st_worker *w)
{
	quarry_lanes_figures g = { 0 };
	int64_t went = quarry_lanes_migrate(lanes, QUARRY_LANE_ANY, quarry_node_id(0), st_below(&w->rng, 2) * 500);

	if (went < 0)
		ST_CHECK(errno == EBUSY || errno == EAGAIN);
	else
		atomic_fetch_add(&migrated, (uint64_t)went);
	ST_CHECK(quarry_lanes_figures_get(lanes, &g) == 0 && g.live <= g.held && quarry_lanes_parts(lanes, NULL, 0) >= 0);
}

static void everything(struct st_worker *w)
{
	uint64_t which = st_below(&w->rng, 100);

	if (w->number == 0 && which < 3)
		compact(w);
	else if (w->number == 1 && which == 4 && st_below(&w->rng, 40) == 0)
		migrate(w);
	else if (which == 3 && st_below(&w->rng, 100) == 0)
		end_many(w);
	else if (which < 50)
		step_shared(w);
	else if (which < 60)
		replace_fixed(w);
	else if (which < 80)
		read_fixed_objects(&w->rng, NULL);
	else if (which < 90)
		read_fixed_optimistically(&w->rng, NULL);
	else
		probe_stale(w);
}

static void work(struct st_worker *w)
{
	while (st_more(w))
		everything(w);
}

int main(int argc, char **argv)
{
	quarry_arena_attr memory = { .name = "lanes" };
	quarry_lanes_attr attr = { .generations = 200, .memory = &memory };
	quarry_lanes_stats stats = { 0 };

	st_begin(argc, argv, "lanes", 300000, 4);
	lanes = quarry_lanes_create(&attr);
	ST_CHECK(lanes != NULL);
	for (int i = 0; i < SHARED; i++)
		ST_CHECK(pthread_mutex_init(&shared[i].lock, NULL) == 0);
	st_threads(work);
	for (int i = 0; i < SHARED; i++)
		if (shared[i].h != 0)
			end_shared(&shared[i]);
	for (int i = 0; i < FIXED; i++)
		if (fixed[i] != 0)
			ST_CHECK(quarry_hfree(lanes, fixed[i]) == 0);
	ST_CHECK(quarry_compact(lanes, QUARRY_COMPACT_FULL, 0, 0) >= 0);
	ST_CHECK(quarry_lanes_stats_get(lanes, &stats) == 0);
	printf("lanes: %llu compactions moved %llu objects, gave %llu up; %llu moved while somebody read them, %llu freed; "
	       "%llu handles, %llu retired; %llu optimistic reads, %llu in vain; %llu went to a node\n",
	       (unsigned long long)compactions, (unsigned long long)stats.moved, (unsigned long long)stats.given_up,
	       (unsigned long long)moved_away, (unsigned long long)seen_free, (unsigned long long)stats.handles,
	       (unsigned long long)stats.retired, (unsigned long long)optimistic, (unsigned long long)in_vain,
	       (unsigned long long)migrated);
	ST_CHECK(stats.objects == 0 && stats.live == 0);
	ST_CHECK(quarry_lanes_destroy(lanes) == 0);
	return st_end(ST_SLACK, 0);
}
