/* SPDX-License-Identifier: MIT */
/* Stress: objects behind handles. Threads make, read, write, pin and free objects of all sizes, some shared under locks,
 * some immutable and read without any while they are replaced and freed; meanwhile one of the threads compacts, in full,
 * in part and by budgets. Every byte is known and looked at; what was got in a scope stays what it was until the scope is
 * left; no stale handle is ever taken for a live one; a pinned object stays where it is. At the end all is free. */
#include "tests/stress/stress.h"

#include "include/quarry/lanes.h"

#define SHARED 6000
#define FIXED 256 /* immutable ones */
#define STALE 1024
#define HUGE_SIZE ((size_t)3 << 20)

static quarry_lanes *lanes;

static struct shared {
	pthread_mutex_t lock;
	quarry_handle h;
	void *pinned; /* where */
	size_t size;
	uint64_t tag;
} shared[SHARED];

static _Atomic(quarry_handle) fixed[FIXED];
static _Atomic(quarry_handle) stale[STALE];
static _Atomic(uint64_t) compactions, moved_away, seen_free, next_tag = 1;

/* ---- contents: the tag, the size, and bytes that follow from them ---- */

static uint64_t byte_of(uint64_t tag, size_t at)
{
	return st_mix(tag + at);
}

static void fill(void *at, size_t size, uint64_t tag)
{
	uint64_t *p = at;

	p[0] = tag;
	p[1] = size;
	for (size_t i = 2; i < size / 8; i += 1 + size / 512)
		p[i] = byte_of(tag, i);
}

static void verify(const void *at, uint64_t tag, size_t size, const char *what)
{
	const uint64_t *p = at;

	if (p[0] != tag || (size != 0 && p[1] != size))
		st_fail("%s: tag %llu, size %llu instead of %llu, %zu", what, (unsigned long long)p[0],
			(unsigned long long)p[1], (unsigned long long)tag, size);
	size = p[1];
	for (size_t i = 2; i < size / 8; i += 1 + size / 512)
		if (p[i] != byte_of(tag, i))
			st_fail("%s: word %zu of %zu bytes is %llx", what, i, size, (unsigned long long)p[i]);
}

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

static void end_shared(struct shared *s, struct st_rng *rng)
{
	ST_CHECK(quarry_hfree(lanes, s->h) == 0);
	ST_CHECK(quarry_hfree(lanes, s->h) == -1 && (errno == ESTALE || errno == EINVAL));
	if (s->pinned != NULL) { /* its memory stays until it is unpinned */
		verify(s->pinned, s->tag, s->size, "freed while pinned");
		ST_CHECK(quarry_unpin(lanes, s->h) == 0);
	}
	remember(rng, s->h);
	s->h = 0;
}

static void read_shared(struct shared *s)
{
	const void *p;

	quarry_enter();
	p = quarry_get(lanes, s->h);
	ST_CHECK(p != NULL && (s->pinned == NULL || s->pinned == p));
	verify(p, s->tag, s->size, "shared");
	quarry_leave();
}

static void write_shared(struct shared *s)
{
	void *p;

	quarry_enter();
	p = quarry_get_mut(lanes, s->h);
	ST_CHECK(p != NULL);
	verify(p, s->tag, s->size, "to be written");
	s->tag = atomic_fetch_add(&next_tag, 1);
	fill(p, s->size, s->tag);
	quarry_leave();
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
		end_shared(s, &w->rng);
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
			end_shared(s, &w->rng);
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

static void read_fixed(struct st_worker *w)
{
	const void *p[4];
	quarry_handle h[4];

	quarry_enter();
	for (int i = 0; i < 4; i++) {
		h[i] = atomic_load(&fixed[st_below(&w->rng, FIXED)]);
		p[i] = quarry_get(lanes, h[i]);
		if (p[i] == NULL && h[i] != 0) {
			ST_CHECK(errno == ESTALE);
			atomic_fetch_add(&seen_free, 1);
		}
	}
	for (int round = 0; round < 2; round++)
		for (int i = 0; i < 4; i++)
			if (p[i] != NULL)
				verify(p[i], h[i], 0, "immutable");
	for (int i = 0; i < 4; i++)
		if (p[i] != NULL && quarry_get(lanes, h[i]) != p[i])
			atomic_fetch_add(&moved_away, 1);
	quarry_leave();
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

static void everything(struct st_worker *w)
{
	uint64_t which = st_below(&w->rng, 100);

	if (w->number == 0 && which < 3)
		compact(w);
	else if (which == 3 && st_below(&w->rng, 100) == 0)
		end_many(w);
	else if (which < 50)
		step_shared(w);
	else if (which < 60)
		replace_fixed(w);
	else if (which < 90)
		read_fixed(w);
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
	struct st_rng rng;
	quarry_lanes_attr attr = { .generations = 200 };
	quarry_lanes_stats stats = { 0 };

	st_begin(argc, argv, "lanes", 300000, 4);
	rng = st_rng_for(1000);
	lanes = quarry_lanes_create(&attr);
	ST_CHECK(lanes != NULL);
	for (int i = 0; i < SHARED; i++)
		ST_CHECK(pthread_mutex_init(&shared[i].lock, NULL) == 0);
	st_threads(work);
	for (int i = 0; i < SHARED; i++)
		if (shared[i].h != 0)
			end_shared(&shared[i], &rng);
	for (int i = 0; i < FIXED; i++)
		if (fixed[i] != 0)
			ST_CHECK(quarry_hfree(lanes, fixed[i]) == 0);
	ST_CHECK(quarry_compact(lanes, QUARRY_COMPACT_FULL, 0, 0) >= 0);
	ST_CHECK(quarry_lanes_stats_get(lanes, &stats) == 0);
	printf("lanes: %llu compactions moved %llu objects, gave %llu up; %llu moved while somebody read them, %llu freed; "
	       "%llu handles, %llu retired\n",
	       (unsigned long long)compactions, (unsigned long long)stats.moved, (unsigned long long)stats.given_up,
	       (unsigned long long)moved_away, (unsigned long long)seen_free, (unsigned long long)stats.handles,
	       (unsigned long long)stats.retired);
	ST_CHECK(stats.objects == 0 && stats.live == 0);
	ST_CHECK(quarry_lanes_destroy(lanes) == 0);
	return st_end(ST_SLACK, 0);
}
