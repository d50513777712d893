/* SPDX-License-Identifier: MIT */
/* Stress: what lanes tell those who made them (quarry_lanes_on_event), while functions are set and taken away, lanes made and
 * ended, and all threads have something to tell.
 *
 * All threads grow lanes that all have, whose function the first thread changes all the time; and make lanes of their own, be
 * told of those, and end them at once, as often as not with somebody else in their function, or with the mover about to tell of
 * what it packed. A function uses the lanes that it is told of. None runs beside another, with another's argument, after
 * it was taken away, or for lanes that ended; and nobody goes round for ever. */
#include "tests/stress/stress.h"

#include "include/quarry/lanes.h"
#include "include/quarry/track.h"

#define OWN 4096     /* contexts of lanes that one thread made: used again only when all the others were */
#define ROOM 1024    /* objects beyond this are blobs: each grows its lanes */
#define PACKED 12000 /* of 1 KiB: enough for the mover to come */

struct context {
	quarry_lanes *lanes;
	_Atomic(int) may; /* be told */
	int which;
};

static quarry_lanes *shared;
static struct context both[2];
static struct context own[ST_THREADS_MAX][OWN];
static _Atomic(int) inside;
static _Atomic(uint64_t) told, changed, ended;
static _Atomic(unsigned) working;

static void use(quarry_lanes *l)
{
	quarry_lanes_stats s = { 0 };
	quarry_handle h;

	ST_CHECK(quarry_lanes_stats_get(l, &s) == 0);
	for (size_t i = 0; i < 8; i++) {
		h = quarry_halloc(l, i == 0 ? 2 * ROOM : 16 + 48 * i);
		ST_CHECK(h != 0 && quarry_hfree(l, h) == 0);
	}
}

static void hear(const quarry_lanes_event *e, const struct context *c, int which)
{
	ST_CHECK(atomic_fetch_add(&inside, 1) == 0);
	ST_CHECK(c->which == which && c->lanes == e->lanes && e->count > 0);
	ST_CHECK(atomic_load(&c->may) != 0);
	use(e->lanes);
	ST_CHECK(atomic_load(&c->may) != 0);
	atomic_fetch_add(&told, 1);
	atomic_fetch_sub(&inside, 1);
}

static void hear_one(const quarry_lanes_event *e, void *ctx)
{
	hear(e, ctx, 0);
}

static void hear_other(const quarry_lanes_event *e, void *ctx)
{
	hear(e, ctx, 1);
}

/* Until the others have done what there is to do. */
static void keep_setting(struct st_rng *rng)
{
	int now = -1, next;

	for (; atomic_load(&working) > 0; now = next) {
		next = (int)st_below(rng, 3) - 1;
		if (next >= 0)
			atomic_store(&both[next].may, 1);
		ST_CHECK(quarry_lanes_on_event(shared, next < 0 ? NULL : next == 0 ? hear_one : hear_other,
					       next < 0 ? NULL : &both[next]) == 0);
		if (now >= 0 && now != next)
			atomic_store(&both[now].may, 0);
		atomic_fetch_add(&changed, 1);
	}
	ST_CHECK(quarry_lanes_on_event(shared, NULL, NULL) == 0);
}

/* The mover is given something to pack. */
static void waste(quarry_lanes *l)
{
	quarry_handle *h = quarry_malloc(PACKED * sizeof(*h));

	ST_CHECK(h != NULL);
	for (size_t i = 0; i < PACKED; i++)
		ST_CHECK((h[i] = quarry_halloc(l, 1000)) != 0);
	for (size_t i = 0; i < PACKED; i++)
		ST_CHECK(i % 8 == 0 || quarry_hfree(l, h[i]) == 0);
	quarry_free(h);
}

static void have_own(struct st_worker *w)
{
	struct context *c = &own[w->number][atomic_fetch_add(&ended, 1) % OWN];
	bool large = st_below(&w->rng, 64) == 0, in_scope = st_below(&w->rng, 4) == 0;
	quarry_lanes_attr attr = { .handles = 16384, .flags = large ? 0 : QUARRY_LANES_NO_MOVER, .blob_threshold = ROOM };

	c->lanes = quarry_lanes_create(&attr);
	ST_CHECK(c->lanes != NULL);
	c->which = (int)st_below(&w->rng, 2);
	atomic_store(&c->may, 1);
	ST_CHECK(quarry_lanes_on_event(c->lanes, c->which == 0 ? hear_one : hear_other, c) == 0);
	if (large)
		waste(c->lanes);
	if (in_scope)
		quarry_enter();
	for (uint64_t n = st_below(&w->rng, 20); n > 0; n--)
		ST_CHECK(quarry_halloc(c->lanes, ROOM + st_below(&w->rng, 4 * ROOM)) != 0);
	if (in_scope)
		quarry_leave();
	if (st_below(&w->rng, 2) == 0) {
		ST_CHECK(quarry_lanes_on_event(c->lanes, NULL, NULL) == 0);
		atomic_store(&c->may, 0);
	}
	ST_CHECK(quarry_lanes_destroy(c->lanes) == 0);
	atomic_store(&c->may, 0);
}

static void work(struct st_worker *w)
{
	if (w->number == 0) {
		keep_setting(&w->rng);
		return;
	}
	while (st_more(w)) {
		quarry_handle h = quarry_halloc(shared, ROOM + 1 + st_below(&w->rng, 8 * ROOM));

		ST_CHECK(h != 0 && quarry_hfree(shared, h) == 0);
		if (st_below(&w->rng, 16) == 0)
			have_own(w);
	}
	atomic_fetch_sub(&working, 1);
}

int main(int argc, char **argv)
{
	quarry_lanes_attr attr = { .blob_threshold = ROOM };

	st_begin(argc, argv, "lanes_events", 60000, 4);
	ST_CHECK(st.threads > 1);
	shared = quarry_lanes_create(&attr);
	ST_CHECK(shared != NULL);
	for (int i = 0; i < 2; i++)
		both[i] = (struct context){ .lanes = shared, .which = i };
	atomic_store(&working, st.threads - 1);
	st_threads(work);
	printf("lanes_events: %llu told, %llu times another function, %llu lanes ended\n", (unsigned long long)told,
	       (unsigned long long)changed, (unsigned long long)ended);
	ST_CHECK(told > 0 && quarry_lanes_destroy(shared) == 0);
	return st_end(4 * ST_SLACK, 0); /* (what the mover and the reclaimer have at hand is in use) */
}
