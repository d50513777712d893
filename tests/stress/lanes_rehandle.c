/* SPDX-License-Identifier: MIT */
/* Stress: objects that get other handles while threads pin, read, write, free and move them. Handles stand in places that
 * all share; who has another handle for an object puts it where the old one was, or frees the object when that is gone.
 * Nothing is lost or found twice, a pin's bytes stay, and words of slots come and go. An operation is one of a place. */
#include "tests/stress/stress.h"

#include "include/quarry/lanes.h"

#define PLACES 32768
#define PHASE 65536 /* operations of a thread: all is filled, then most of it ends, and what is left gets other handles */

static quarry_lanes *lanes;
static _Atomic(quarry_handle) place[PLACES];
static _Atomic(uint64_t) made, gone, changed;
static _Atomic(uint64_t) cursor; /* all are at work on the same objects: they get other handles one after the other */

/* What a place's objects say of themselves. */
struct object {
	_Atomic(uint64_t) at, not_at, written;
};

static void is_right(const struct object *o, uint64_t at)
{
	ST_CHECK(atomic_load(&o->at) == at && atomic_load(&o->not_at) == ~at);
}

static void make(uint64_t at, struct st_rng *rng)
{
	quarry_handle h = quarry_halloc(lanes, sizeof(struct object) + st_below(rng, 300)), none = 0;
	struct object *o;

	ST_CHECK(h != 0);
	quarry_enter();
	o = quarry_get_mut(lanes, h);
	atomic_store(&o->at, at);
	atomic_store(&o->not_at, ~at);
	quarry_leave();
	atomic_fetch_add(&made, 1);
	if (atomic_compare_exchange_strong(&place[at], &none, h))
		return;
	ST_CHECK(quarry_hfree(lanes, h) == 0);
	atomic_fetch_add(&gone, 1);
}

/* Somebody may give it another handle just then: who does sees that the place is empty. */
static void end(uint64_t at)
{
	quarry_handle h = atomic_exchange(&place[at], 0);

	if (h == 0)
		return;
	if (quarry_hfree(lanes, h) == 0)
		atomic_fetch_add(&gone, 1);
	else
		ST_CHECK(errno == ESTALE);
}

static void change(uint64_t at)
{
	quarry_handle h = atomic_load(&place[at]), was = h, new = h == 0 ? 0 : quarry_rehandle(lanes, h);

	if (new == 0 || new == h)
		return;
	atomic_fetch_add(&changed, 1);
	if (atomic_compare_exchange_strong(&place[at], &was, new))
		return;
	ST_CHECK(quarry_hfree(lanes, new) == 0);
	atomic_fetch_add(&gone, 1);
}

static void pin(uint64_t at)
{
	quarry_handle h = atomic_load(&place[at]);
	struct object *o = h == 0 ? NULL : quarry_pin(lanes, h);

	if (o == NULL)
		return;
	is_right(o, at);
	atomic_fetch_add(&o->written, 1);
	is_right(o, at);
	ST_CHECK(quarry_unpin(lanes, h) == 0);
}

static void look(uint64_t at)
{
	struct object *o;

	quarry_enter();
	o = quarry_get_mut(lanes, atomic_load(&place[at]));
	if (o != NULL)
		is_right(o, at);
	quarry_leave();
}

static void work(struct st_worker *w)
{
	while (st_more(w)) {
		uint64_t at = st_below(&w->rng, PLACES);
		bool fill = w->done % PHASE < PHASE / 2;

		if (w->done % 20000 == 1 && w->number == 0)
			ST_CHECK(quarry_compact(lanes, QUARRY_COMPACT_FULL, 0, 2000) >= 0);
		switch (st_below(&w->rng, 8)) {
		case 0:
		case 1:
			if (fill)
				make(at, &w->rng);
			else if (at % 8 != 0)
				end(at);
			break;
		case 2:
			if (st_below(&w->rng, 16) == 0)
				end(at);
			change(at);
			break;
		case 3:
			change((fill ? at : atomic_fetch_add(&cursor, 1)) % (PLACES / 8) * 8);
			break;
		case 4:
			look(at);
			break;
		default:
			for (int n = 0; n < 8; n++)
				pin(fill ? at : (atomic_load_explicit(&cursor, memory_order_relaxed) + (n & 1)) % (PLACES / 8) * 8);
		}
	}
}

int main(int argc, char **argv)
{
	quarry_lanes_stats stats = { 0 };

	st_begin(argc, argv, "lanes_rehandle", 8000000, 3);
	lanes = quarry_lanes_create(NULL);
	ST_CHECK(lanes != NULL);
	st_threads(work);
	for (uint64_t at = 0; at < PLACES; at++) {
		pin(at);
		end(at);
	}
	ST_CHECK(quarry_lanes_stats_get(lanes, &stats) == 0);
	printf("lanes_rehandle: %llu made, %llu gone, %llu other handles, %llu moved\n", (unsigned long long)made,
	       (unsigned long long)gone, (unsigned long long)changed, (unsigned long long)stats.moved);
	ST_CHECK(made == gone && stats.objects == 0);
	ST_CHECK(quarry_lanes_destroy(lanes) == 0);
	return st_end(ST_SLACK, 0);
}
