/* SPDX-License-Identifier: MIT */
/* Objects out of the gaps of mixed slabs: which slab is looked at, and which becomes mixed for it. */
#include "lib/manager/mixed.h"

#include "lib/manager/grains.h"
#include "lib/manager/mixed_rings.h"
#include "lib/manager/snapshot.h"

#define TRIES 4 /* slabs made mixed for one list of objects, at most; also of each ring that are looked at */
#define SLABS 8 /* from which the objects of one list come, at most */

/* The objects that are wanted, and those that were found. */
struct want {
	uint32_t count;    /* still wanted */
	uint32_t grains;   /* of each */
	uint32_t multiple; /* each begins at a grain whose number is a multiple of this, a power of two */
	uint32_t slabs;    /* more that may be looked at */
	void *first, **end;
};

/* The first one in which all runs are that long. */
static unsigned bin_above(uint32_t run)
{
	return run <= 1 ? run : qy_mixed_bin(run - 1) + 1;
}

static uint32_t lowest_bit(uint32_t n)
{
	return n & -n;
}

/* In a run of so many one at a right place begins. */
static uint32_t sure_run(const struct want *want)
{
	return want->grains + want->multiple - 1;
}

static void take_at(struct qy_mixed_slab *r, uint32_t i, struct want *want)
{
	void *p = qy_slab_memory(r->slab) + (size_t)i * QY_MIXED_GRAIN;

	qy_grains_set(r->free, i, i + want->grains, false);
	qy_grains_set(r->end, i + want->grains - 1, i + want->grains, true);
	r->clean &= ~qy_grains_pages(i, i + want->grains);
	*want->end = p;
	want->end = p;
	want->count--;
}

/* By address. What is known of its longest run is never too short. */
static void take_from(struct qy_mixed *mixed, struct qy_mixed_slab *r, struct want *want)
{
	uint32_t longest = 0, before = want->count, end, i, at;

	qy_snap_slab_changes(r->slab);
	for (i = qy_grains_next_free(r, 0); i < QY_MIXED_GRAINS && want->count > 0; i = qy_grains_next_free(r, end)) {
		end = qy_grains_next_used(r, i);
		while (want->count > 0 && (at = (uint32_t)qy_align_up(i, want->multiple)) + want->grains <= end) {
			take_at(r, at, want);
			longest = (uint32_t)qy_max(longest, at - i);
			i = at + want->grains;
		}
		longest = (uint32_t)qy_max(longest, end - i);
	}
	qy_publish(r->slab->countdown, r->slab->countdown + before - want->count);
	qy_publish(r->slab->linked, r->slab->linked + (before - want->count) * want->grains);
	want->slabs--;
	qy_mixed_relist(mixed, r, i < QY_MIXED_GRAINS ? (uint32_t)qy_max(longest, r->longest) : longest);
}

/* From those with the shortest runs that are long enough, first. */
static void take_from_bins(struct qy_mixed *mixed, unsigned from, unsigned to, struct want *want)
{
	for (unsigned bin = from; bin < to && want->count > 0 && want->slabs > 0; bin++) {
		uint64_t bins = mixed->bins >> bin;

		if (bins == 0)
			return;
		bin += (unsigned)__builtin_ctzll(bins);
		for (unsigned tries = 0; bin < to && tries < TRIES && want->count > 0 && want->slabs > 0; tries++) {
			struct qy_mixed_slab *r = mixed->by_run[bin];

			if (r == NULL)
				break;
			mixed->by_run[bin] = r->ring[QY_MIXED_BY_RUN].next;
			take_from(mixed, r, want);
		}
	}
}

static void take_from_mixed(struct qy_mixed *mixed, struct want *want)
{
	unsigned sure = bin_above(sure_run(want));

	take_from_bins(mixed, sure, QY_MIXED_BINS, want);
	if (want->first == NULL)
		take_from_bins(mixed, qy_mixed_bin(want->grains), sure, want);
}

/* Whether so little lives in it, and that for so long, that its class will hardly fill it again soon. (While nobody
 * holds it, it can only get emptier.) */
static bool is_deserted(const struct qy_slab *s)
{
	return s->countdown * 2 <= qy_classes[s->cls].capacity && s->seen > s->countdown;
}

/* Of a class: the one that was left alone for longest, or the last that was given up. */
static struct qy_slab *deserted_of(struct qy_manager *m, unsigned cls)
{
	struct qy_slab_list *queue = &m->orphans.queue[cls];

	if (queue->last == NULL || is_deserted(queue->last))
		return queue->last;
	return is_deserted(queue->first) ? queue->first : NULL;
}

/* The one with the narrowest gaps in which objects of that many bytes find room. */
static struct qy_slab *find_deserted(struct qy_manager *m, uint32_t size)
{
	struct qy_slab *best = NULL;
	uint32_t best_gap = UINT32_MAX;

	for (unsigned cls = 0; cls < QY_CLASSES && qy_classes[cls].units == 1; cls++) {
		struct qy_slab *s = deserted_of(m, cls);
		uint32_t gap;

		if (s == NULL)
			continue;
		gap = (qy_classes[cls].capacity - s->countdown) * qy_classes[cls].size / (s->countdown + 1);
		if (gap * 2 >= size && gap < best_gap) {
			best_gap = gap;
			best = s;
		}
	}
	return best;
}

/* Another one, out of those that nobody holds. */
static struct qy_mixed_slab *make_one(struct qy_manager *m, uint32_t size)
{
	struct qy_slab *s = m->mixed->unused == NULL ? NULL : find_deserted(m, size);
	struct qy_mixed_slab *r;

	if (s == NULL)
		return NULL;
	qy_slab_list_remove(&m->orphans.queue[s->cls], s);
	r = qy_mixed_make(m, s, false);
	if (r == NULL) {
		/* (Nor is it looked at again until it changes.) */
		s->seen = 0;
		qy_slab_list_push_front(&m->orphans.queue[s->cls], s);
		return NULL;
	}
	qy_uncount(&m->orphans.slabs, 1);
	return r;
}

/* Pages next to each other that are gone: the most of them. */
static uint32_t gone_in_a_row(uint64_t gone)
{
	uint32_t n = 0;

	for (; gone != 0; gone &= gone << 1)
		n++;
	return n;
}

/* Grains that were parked, before others become mixed, and before clean memory is used: it would be touched just so. */
static void take_parked(struct qy_mixed *mixed, struct want *want)
{
	struct qy_mixed_slab *r;

	for (unsigned tries = 0; tries < TRIES && want->first == NULL && (r = mixed->parked) != NULL; tries++) {
		mixed->parked = r->ring[QY_MIXED_PARKED].next;
		if (r->busy || r->apart || gone_in_a_row(qy_slab_gone(r->slab)) * QY_PAGE_GRAINS < sure_run(want))
			continue;
		qy_mixed_unpark(mixed, r);
		if (r->longest >= want->grains)
			take_from(mixed, r, want);
	}
}

static struct want want_of(unsigned cls, uint32_t count)
{
	uint32_t size = qy_classes[cls].size;

	return (struct want){
		.count = count,
		.grains = size / QY_MIXED_GRAIN,
		.multiple = lowest_bit(size) / QY_MIXED_GRAIN,
		.slabs = SLABS,
	};
}

void *qy_mixed_take(struct qy_manager *m, unsigned cls)
{
	uint32_t size = qy_classes[cls].size;
	struct want want = want_of(cls, qy_classes[cls].carve);
	struct qy_mixed_slab *r;

	if (m->mixed == NULL)
		return NULL;
	want.end = &want.first;
	/* Those that are there come first. */
	take_from_mixed(m->mixed, &want);
	if (want.first == NULL)
		take_parked(m->mixed, &want);
	for (unsigned tries = TRIES; want.first == NULL && tries > 0 && (r = make_one(m, size)) != NULL; tries--)
		if (r->longest >= want.grains)
			take_from(m->mixed, r, &want);
	*want.end = NULL;
	return want.first;
}

/* ---- single objects ---- */

/* (The pages of theirs that went back are used again before another slab is.) */
void *qy_mixed_take_one(struct qy_manager *m, unsigned cls)
{
	struct want want = want_of(cls, 1);

	if (m->mixed == NULL)
		return NULL;
	want.end = &want.first;
	for (unsigned tries = 0; tries < TRIES && want.first == NULL && m->mixed->apart != NULL; tries++) {
		struct qy_mixed_slab *r = m->mixed->apart;

		if (r->longest < want.grains && !r->busy)
			qy_mixed_unpark(m->mixed, r);
		if (r->longest >= want.grains)
			take_from(m->mixed, r, &want);
		/* The next one is looked at first from now on where this one has no room. */
		if (want.first == NULL)
			m->mixed->apart = r->ring[QY_MIXED_BY_RUN].next;
	}
	return want.first;
}
