/* SPDX-License-Identifier: MIT */
/* Stress: handles of objects that are gone. Threads free objects and make others in the same slots, whose generations
 * are few, so that slots retire all the time; and they probe handles that were freed, by themselves and by others, long
 * ago and just now (slots' words go back to the kernel meanwhile), and live ones with other generations, numbers and slots than theirs. None may be taken for a live
 * one, by any of the ways to ask; and live ones must be found. One thread compacts meanwhile. An operation is a probe;
 * 10^9 are --ops 1e9. */
#include "tests/stress/stress.h"

#include "include/quarry/lanes.h"

#define STALE 8192 /* of all threads */
#define LIVE 512   /* of each thread */
#define TURN 1024  /* probes between one turn of making and freeing and the next */

static quarry_lanes *lanes, *others;
static _Atomic(quarry_handle) stale[STALE];
static _Atomic(uint64_t) freed, probed;

struct own {
	quarry_handle live[LIVE], gone; /* gone: the last that this thread freed */
	quarry_handle foreign;
};

static void is_gone(struct own *own, struct st_rng *rng, quarry_handle h)
{
	atomic_store_explicit(&stale[st_below(rng, STALE)], h, memory_order_relaxed);
	own->gone = h;
	atomic_fetch_add_explicit(&freed, 1, memory_order_relaxed);
}

static void end_one(struct own *own, struct st_rng *rng, unsigned at)
{
	quarry_handle h = own->live[at];

	own->live[at] = 0;
	if (h == 0)
		return;
	ST_CHECK(quarry_hfree(lanes, h) == 0);
	is_gone(own, rng, h);
}

/* Now and then nearly all end, and what is left gets other handles: so words of slots go back to the kernel. */
static void end_many(struct own *own, struct st_rng *rng)
{
	for (unsigned at = 0; at < LIVE; at++)
		if (at % 32 != 0)
			end_one(own, rng, at);
	for (unsigned at = 0; at < LIVE; at += 32) {
		quarry_handle h = own->live[at];

		own->live[at] = h == 0 ? 0 : quarry_rehandle(lanes, h);
		ST_CHECK(own->live[at] != 0 || h == 0);
		if (own->live[at] != h)
			is_gone(own, rng, h);
	}
}

static void turn_over(struct own *own, struct st_rng *rng)
{
	bool many = st_below(rng, 64) == 0;

	if (many)
		end_many(own, rng);
	for (unsigned i = 0; i < (many ? LIVE : 16); i++) {
		unsigned at = many ? i : (unsigned)st_below(rng, LIVE);

		end_one(own, rng, at);
		own->live[at] = quarry_halloc_typed(lanes, 16 + (size_t)st_below(rng, 16) * 8, 0, (unsigned)st_below(rng, 256));
		ST_CHECK(own->live[at] != 0);
	}
}

static __attribute__((noreturn, cold)) void accepted(quarry_handle h, const void *p, const char *what)
{
	st_fail("%s: handle %llx, which is none of a live object, got %p", what, (unsigned long long)h, p);
}

/* By all the ways there are, now and then: they share their look with these two. */
static void probe_all(quarry_handle h, const char *what)
{
	const void *p = NULL;

	if ((p = quarry_get_mut(lanes, h)) != NULL || quarry_try_get(lanes, h, &p) == 0 ||
	    (p = quarry_get_range(lanes, h, 0, 1)) != NULL || (p = quarry_pin(lanes, h)) != NULL)
		accepted(h, p, what);
	if (quarry_handle_valid(lanes, h) || quarry_unpin(lanes, h) == 0 || quarry_hfree(lanes, h) == 0 ||
	    quarry_hsize(lanes, h) != 0 || quarry_handle_state(lanes, h) < QUARRY_HANDLE_FREED)
		accepted(h, NULL, what);
}

static void probe(struct own *own, struct st_rng *rng)
{
	uint64_t random = st_next(rng);
	quarry_handle live = own->live[random % LIVE], h;
	const char *what = "freed";
	const void *p;

	switch (random >> 32 & 7) {
	case 0: /* the slot's, in another life */
		h = live ^ (quarry_handle)(1 + (random >> 40 & 0xfffe)) << 32;
		what = "of another generation";
		break;
	case 1:
		h = live ^ (quarry_handle)(1 + (random >> 40 & 0x7e)) << 56;
		what = "of another number";
		break;
	case 2:
		h = live | (quarry_handle)0x80000000u;
		what = "of a slot that is none";
		break;
	case 3:
		h = random >> 63 ? own->foreign : own->gone;
		what = "foreign, or just freed";
		break;
	default:
		h = atomic_load_explicit(&stale[random >> 40 & (STALE - 1)], memory_order_relaxed);
	}
	if (live != 0 && quarry_get(lanes, live) == NULL)
		st_fail("handle %llx is live, and was not found", (unsigned long long)live);
	if (live == 0 || h == 0)
		return;
	p = quarry_get(lanes, h);
	if (p != NULL)
		accepted(h, p, what);
	if ((random >> 56 & 63) == 0)
		probe_all(h, what);
}

static void work(struct st_worker *w)
{
	struct own *own = calloc(1, sizeof(*own));

	ST_CHECK(own != NULL);
	own->foreign = quarry_halloc(others, 64);
	ST_CHECK(own->foreign != 0);
	while (st_more(w)) {
		if (w->done % TURN == 1) {
			if (w->done != 1)
				quarry_leave();
			turn_over(own, &w->rng);
			if (w->number == 0 && w->done / TURN % 8 == 0)
				ST_CHECK(quarry_compact(lanes, QUARRY_COMPACT_FULL, 0, 1000) >= 0);
			quarry_enter();
		}
		probe(own, &w->rng);
	}
	quarry_leave();
	for (unsigned i = 0; i < LIVE; i++)
		if (own->live[i] != 0)
			ST_CHECK(quarry_hfree(lanes, own->live[i]) == 0);
	ST_CHECK(quarry_hfree(others, own->foreign) == 0);
	atomic_fetch_add(&probed, w->done);
	free(own);
}

int main(int argc, char **argv)
{
	quarry_lanes_attr few = { .generations = 150 };
	quarry_lanes_stats stats = { 0 };

	st_begin(argc, argv, "lanes_stale", 5000000, 3);
	lanes = quarry_lanes_create(&few);
	others = quarry_lanes_create(NULL);
	ST_CHECK(lanes != NULL && others != NULL);
	st_threads(work);
	ST_CHECK(quarry_lanes_stats_get(lanes, &stats) == 0);
	printf("lanes_stale: %llu probes, none accepted; %llu freed, %llu slots, %llu retired, %llu objects moved\n",
	       (unsigned long long)probed, (unsigned long long)freed, (unsigned long long)stats.handles,
	       (unsigned long long)stats.retired, (unsigned long long)stats.moved);
	ST_CHECK(stats.objects == 0);
	ST_CHECK(quarry_lanes_destroy(lanes) == 0 && quarry_lanes_destroy(others) == 0);
	return st_end(ST_SLACK, 0);
}
