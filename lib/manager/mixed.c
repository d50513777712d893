/* SPDX-License-Identifier: MIT */
#include "lib/manager/mixed.h"

#include <string.h>

#include "lib/manager/budget.h"
#include "lib/manager/collapse.h"
#include "lib/manager/grains.h"
#include "lib/manager/mistakes.h"
#include "lib/manager/snapshot.h"
#include "lib/manager/sparse.h"

#define LEAST 16    /* slabs that nobody holds, mixed ones too, before one of them becomes mixed */
#define RECORDS 7   /* made at a time: two pages of them */
#define TRIES 4     /* slabs made mixed for one list of objects, at most; also of each ring that are looked at */
#define SLABS 8     /* from which the objects of one list come, at most */
#define BATCH 32    /* slabs that pages are given back of at a time, */
#define BATCH_IN_TIME 8 /* where the time is short, */
#define LOOKS 256   /* of so many looked at with the lock held once */

_Atomic(bool) qy_mixed_keeps_apart;

size_t qy_mixed_size(const struct qy_slab *s, const void *p)
{
	const struct qy_mixed_slab *r = s->local;
	uint32_t i = qy_grain_of(s, p);

	/* (Of what was freed before, the ends behind it are others'.) */
	if (qy_peek(r->free[i / 64]) >> (i % 64) & 1)
		return 0;
	return (size_t)qy_grains_length(r, i) * QY_MIXED_GRAIN;
}

uint32_t qy_mixed_empty_pages(const struct qy_slab *s)
{
	const struct qy_mixed_slab *r = s->local;
	uint64_t gone = qy_slab_gone(s);
	uint32_t n = 0;

	for (uint32_t page = 0; page < QY_UNIT_PAGES; page++)
		n += (gone >> page & 1) || qy_grains_all_free(r, page);
	return n;
}

/* ---- rings ---- */

/* A ring is known by the one that is looked at next. */
static void ring_add(struct qy_mixed_slab **ring, struct qy_mixed_slab *r, enum qy_mixed_ring which)
{
	struct qy_mixed_slab *first = *ring == NULL ? r : *ring;

	if (r->ring[which].next != NULL)
		return;
	r->ring[which].next = first;
	r->ring[which].prev = first == r ? r : first->ring[which].prev;
	r->ring[which].prev->ring[which].next = r;
	first->ring[which].prev = r;
	*ring = first;
}

static void ring_remove(struct qy_mixed_slab **ring, struct qy_mixed_slab *r, enum qy_mixed_ring which)
{
	struct qy_mixed_slab *next = r->ring[which].next;

	if (next == NULL)
		return;
	next->ring[which].prev = r->ring[which].prev;
	r->ring[which].prev->ring[which].next = next;
	if (*ring == r)
		*ring = next == r ? NULL : next;
	r->ring[which].next = r->ring[which].prev = NULL;
}

/* Rings of slabs whose longest run is about the same: four for each power of two. Later ones have longer runs. */
static unsigned bin_of(uint32_t run)
{
	unsigned log = run == 0 ? 0 : qy_log2_floor(run);

	return run == 0 ? 0 : 1 + log * 4 + ((run << 2 >> log) & 3);
}

_Static_assert(QY_MIXED_BINS == 2 + 12 * 4 && QY_MIXED_GRAINS == 1 << 12 && QY_MIXED_BINS <= 64, "bins for all runs");

/* The first one in which all runs are that long. */
static unsigned bin_above(uint32_t run)
{
	return run <= 1 ? run : bin_of(run - 1) + 1;
}

static void list(struct qy_mixed *mixed, struct qy_mixed_slab *r, uint32_t longest)
{
	r->longest = (uint16_t)longest;
	r->bin = (uint8_t)bin_of(longest);
	if (r->apart) {
		ring_add(&mixed->apart, r, QY_MIXED_BY_RUN);
		return;
	}
	ring_add(&mixed->by_run[r->bin], r, QY_MIXED_BY_RUN);
	mixed->bins |= (uint64_t)1 << r->bin;
}

static void unlist(struct qy_mixed *mixed, struct qy_mixed_slab *r)
{
	if (r->apart) {
		ring_remove(&mixed->apart, r, QY_MIXED_BY_RUN);
		return;
	}
	ring_remove(&mixed->by_run[r->bin], r, QY_MIXED_BY_RUN);
	if (mixed->by_run[r->bin] == NULL)
		mixed->bins &= ~((uint64_t)1 << r->bin);
}

static void note_freed(struct qy_mixed *mixed, struct qy_mixed_slab *r)
{
	mixed->freed_count += r->ring[QY_MIXED_FREED].next == NULL;
	ring_add(&mixed->freed, r, QY_MIXED_FREED);
}

static void unnote_freed(struct qy_mixed *mixed, struct qy_mixed_slab *r)
{
	mixed->freed_count -= r->ring[QY_MIXED_FREED].next != NULL;
	ring_remove(&mixed->freed, r, QY_MIXED_FREED);
}

/* Its longest run has changed, or what is known of it. */
static void relist(struct qy_mixed *mixed, struct qy_mixed_slab *r, uint32_t longest)
{
	if (r->apart || bin_of(longest) == r->bin) {
		r->longest = (uint16_t)longest;
		return;
	}
	unlist(mixed, r);
	list(mixed, r, longest);
}

static void put_unused(struct qy_mixed *mixed, struct qy_mixed_slab *r)
{
	r->ring[QY_MIXED_BY_RUN].next = mixed->unused;
	qy_publish(mixed->unused, r);
}

/* ---- becoming mixed, and ending ---- */

void qy_mixed_provide(struct qy_manager *m, bool at_any_rate)
{
	struct qy_mixed *mixed = __atomic_load_n(&m->mixed, __ATOMIC_ACQUIRE);
	struct qy_mixed_slab *records;

	if ((!at_any_rate && qy_read(&m->orphans.slabs) + (mixed == NULL ? 0 : qy_read(&mixed->slabs)) < LEAST) ||
	    (mixed != NULL && qy_peek(mixed->unused) != NULL))
		return;
	/* (Two that come here at once make more than is needed: the records are kept, and of the other one is lost.) */
	if (mixed == NULL && (mixed = qy_meta_alloc(sizeof(*mixed), QY_CACHE_LINE)) == NULL)
		return;
	records = qy_meta_alloc(RECORDS * sizeof(*records), QY_CACHE_LINE);
	qy_lock(&m->lock);
	if (m->mixed == NULL) {
		qy_heap_open(&mixed->heap, m, 0);
		__atomic_store_n(&m->mixed, mixed, __ATOMIC_RELEASE);
	}
	for (unsigned i = 0; records != NULL && i < RECORDS; i++)
		put_unused(m->mixed, &records[i]);
	qy_unlock(&m->lock);
}

/* The pages that were given back may be touched again, so far as the control group allows it. */
static void unpark(struct qy_mixed *mixed, struct qy_mixed_slab *r)
{
	uint64_t gone = qy_slab_gone(r->slab);

	qy_snap_slab_changes(r->slab);
	if (gone == 0 || !qy_budget_take((size_t)__builtin_popcountll(gone) << QY_PAGE_SHIFT))
		return;
	for (uint32_t page = 0; page < QY_UNIT_PAGES; page++)
		if (gone >> page & 1) {
			qy_grains_set(r->end, page * QY_PAGE_GRAINS, (page + 1) * QY_PAGE_GRAINS, false);
			qy_grains_set(r->free, page * QY_PAGE_GRAINS, (page + 1) * QY_PAGE_GRAINS, true);
		}
	qy_slab_set_gone(r->slab, 0);
	qy_publish(r->slab->carved, QY_MIXED_GRAINS);
	ring_remove(&mixed->parked, r, QY_MIXED_PARKED);
	relist(mixed, r, qy_grains_longest_run(r));
	qy_collapse_wake();
}

/* Free grains of pages that are no longer in memory. */
static void park(struct qy_mixed *mixed, struct qy_mixed_slab *r, uint64_t pages)
{
	for (uint32_t page = 0; page < QY_UNIT_PAGES; page++)
		if (pages >> page & 1) {
			qy_grains_set(r->free, page * QY_PAGE_GRAINS, (page + 1) * QY_PAGE_GRAINS, false);
			qy_grains_set(r->end, page * QY_PAGE_GRAINS, (page + 1) * QY_PAGE_GRAINS, true);
		}
	qy_publish(r->slab->carved, (uint16_t)(r->slab->carved - QY_PAGE_GRAINS * (uint32_t)__builtin_popcountll(pages)));
	if (pages != 0)
		ring_add(&mixed->parked, r, QY_MIXED_PARKED);
}

/* What lives in it, by its list and class. False when the list is not sound. */
static bool begin_record(struct qy_mixed_slab *r, struct qy_slab *s)
{
	const struct qy_class *c = &qy_classes[s->cls];
	uint64_t free_ones[QY_SLAB_WORDS];
	uint32_t n = c->size / QY_MIXED_GRAIN, used = 0;

	if (s->carved != 0 && !qy_slab_find_free(s, free_ones))
		return false;
	memset(r, 0, sizeof(*r));
	r->slab = s;
	r->clean = qy_slab_clean_pages(s);
	if (s->carved == 0) {
		qy_grains_set(r->free, 0, QY_MIXED_GRAINS, true);
		return true;
	}
	for (uint32_t i = 0; i < c->capacity; i++)
		if (qy_grain_is(free_ones, i)) {
			qy_grains_set(r->free, i * n, (i + 1) * n, true);
		} else {
			qy_grains_set(r->end, (i + 1) * n - 1, (i + 1) * n, true);
			used += n;
		}
	qy_grains_set(r->free, c->capacity * n, QY_MIXED_GRAINS, true);
	r->seen = used;
	return true;
}

/* A slab with room that nobody holds, and that is in no queue; there is a record for it. NULL when its list is not
 * sound. */
static struct qy_mixed_slab *make_mixed(struct qy_manager *m, struct qy_slab *s, bool apart)
{
	struct qy_mixed *mixed = m->mixed;
	struct qy_mixed_slab *r = mixed->unused, *unused = r->ring[QY_MIXED_BY_RUN].next;

	qy_snap_slab_changes(s);
	if (!begin_record(r, s)) {
		r->ring[QY_MIXED_BY_RUN].next = unused;
		return NULL;
	}
	r->apart = apart;
	qy_publish(mixed->unused, unused);
	qy_publish(s->linked, r->seen);
	qy_publish(s->carved, QY_MIXED_GRAINS);
	s->local = r;
	atomic_store_explicit(&s->heap, &mixed->heap, memory_order_release);
	/* In this order: who reads the class first, and then finds that the slab is not mixed, has the one of
	 * before. */
	__atomic_store_n(&s->state, QY_SLAB_MIXED, __ATOMIC_RELEASE);
	__atomic_store_n(&s->cls, QY_MIXED_CLASS, __ATOMIC_RELEASE);
	park(mixed, r, qy_slab_gone(s));
	list(mixed, r, qy_grains_longest_run(r));
	unpark(mixed, r);
	qy_count(&mixed->slabs, 1);
	return r;
}

/* Out of all rings. */
static void forget(struct qy_mixed *mixed, struct qy_mixed_slab *r)
{
	unnote_freed(mixed, r);
	ring_remove(&mixed->parked, r, QY_MIXED_PARKED);
	unlist(mixed, r);
	put_unused(mixed, r);
}

static void end(struct qy_manager *m, struct qy_mixed_slab *r)
{
	struct qy_slab *s = r->slab;

	forget(m->mixed, r);
	qy_uncount(&m->mixed->slabs, 1);
	qy_manager_put_slab(m, s);
}

void qy_mixed_clear(struct qy_manager *m)
{
	struct qy_mixed *mixed = m->mixed;

	if (mixed == NULL)
		return;
	for (unsigned bin = 0; bin < QY_MIXED_BINS; bin++)
		while (mixed->by_run[bin] != NULL)
			forget(mixed, mixed->by_run[bin]);
	while (mixed->apart != NULL)
		forget(mixed, mixed->apart);
	atomic_store_explicit(&mixed->slabs, 0, memory_order_relaxed);
	qy_heap_open(&mixed->heap, m, 0);
}

/* ---- taking ---- */

/* The objects that are wanted, and those that were found. */
struct want {
	uint32_t count;    /* still wanted */
	uint32_t grains;   /* of each */
	uint32_t multiple; /* each begins at a grain whose number is a multiple of this, a power of two */
	uint32_t slabs;    /* more that may be looked at */
	void *first, **end;
};

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
	relist(mixed, r, i < QY_MIXED_GRAINS ? (uint32_t)qy_max(longest, r->longest) : longest);
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
		take_from_bins(mixed, bin_of(want->grains), sure, want);
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
	r = make_mixed(m, s, false);
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
		unpark(mixed, r);
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
			unpark(m->mixed, r);
		if (r->longest >= want.grains)
			take_from(m->mixed, r, &want);
		/* The next one is looked at first from now on where this one has no room. */
		if (want.first == NULL)
			m->mixed->apart = r->ring[QY_MIXED_BY_RUN].next;
	}
	return want.first;
}

bool qy_mixed_add_apart(struct qy_manager *m, struct qy_slab *s)
{
	struct qy_mixed_slab *r = m->mixed == NULL || m->mixed->unused == NULL ? NULL : make_mixed(m, s, true);

	if (r != NULL)
		m->mixed->apart = r;
	return r != NULL;
}

/* ---- freeing ---- */

/* Whether an object begins at the grain. */
static bool begins(const struct qy_slab *s, const struct qy_mixed_slab *r, uint32_t i)
{
	return !qy_grain_is(r->free, i) && !qy_grain_is_parked(qy_slab_gone(s), i) &&
	       (i == 0 || qy_grain_is(r->free, i - 1) || qy_grain_is(r->end, i - 1));
}

/* (One is enough.) */
static bool is_kept(const struct qy_manager *m, const struct qy_mixed_slab *r)
{
	return r->apart && r->ring[QY_MIXED_BY_RUN].next == r && m->mixed->apart == r &&
	       atomic_load_explicit(&qy_mixed_keeps_apart, memory_order_relaxed);
}

/* False when p was no live object. The slab is one of m's mixed ones. */
static bool free_one(struct qy_manager *m, struct qy_slab *s, void *p)
{
	struct qy_mixed_slab *r = s->local;
	uint32_t i = qy_grain_of(s, p), grains, run;

	qy_snap_slab_changes(s);
	if (!begins(s, r, i)) {
		qy_mistake(QY_MISTAKE_DOUBLE_FREE, p);
		return false;
	}
	grains = qy_grains_length(r, i);
	qy_grains_set(r->end, i + grains - 1, i + grains, false);
	qy_grains_set(r->free, i, i + grains, true);
	qy_publish(s->countdown, s->countdown - 1);
	qy_publish(s->linked, s->linked - grains);
	if (s->countdown == 0 && !r->busy && !is_kept(m, r)) {
		end(m, r);
		return true;
	}
	run = qy_grains_next_used(r, i + grains) - qy_grains_run_before(r, i);
	relist(m->mixed, r, (uint32_t)qy_max(r->longest, run));
	note_freed(m->mixed, r);
	return true;
}

/* Returns how many. (What was freed twice by others may have made a circle of the list.) */
static uint32_t file_some(struct qy_manager *m, uint32_t at_most)
{
	struct qy_heap *h = &m->mixed->heap;
	void *p = h->mail;
	uint32_t filed = 0;

	qy_snap_filed(p, at_most);
	for (; p != NULL && filed < at_most && h->mail_mistakes < QY_MAIL_MISTAKES_MAX; filed++) {
		struct qy_slab *s = qy_slab_of(p);
		struct qy_heap *of = s == NULL ? NULL : atomic_load_explicit(&s->heap, memory_order_acquire);
		void *next = s == NULL ? qy_heap_next_mail(p) : qy_next_object(p);

		if (s == NULL) {
			qy_mistake(QY_MISTAKE_FOREIGN, p);
			h->mail_mistakes++;
		} else if (of != h) {
			qy_heap_send(of, p, p);
		} else {
			h->mail_mistakes += !free_one(m, s, p);
		}
		p = next;
	}
	qy_publish(h->mail, h->mail_mistakes < QY_MAIL_MISTAKES_MAX ? p : NULL);
	qy_count(&h->remote_received, filed);
	return filed;
}

void qy_mixed_receive(struct qy_manager *m, uint32_t at_most)
{
	uint32_t filed = file_some(m, at_most);

	if (filed < at_most && qy_heap_take_mail(&m->mixed->heap))
		(void)file_some(m, at_most - filed);
}

/* ---- giving back ---- */

/* Park the grains of pages in which nothing lives, and which are not away yet: the pages to be purged, as bits. */
static uint64_t thin(struct qy_mixed *mixed, struct qy_mixed_slab *r)
{
	struct qy_slab *s = r->slab;
	uint64_t was = qy_slab_gone(s), empty = 0;

	qy_snap_slab_changes(s);
	for (uint32_t page = 0; page < QY_UNIT_PAGES; page++)
		empty |= (uint64_t)qy_grains_all_free(r, page) << page;
	if (empty != 0) {
		qy_slab_set_gone(s, was | empty);
		park(mixed, r, empty);
		relist(mixed, r, qy_grains_longest_run(r));
	}
	return (empty | was) & ~r->clean;
}

struct pick {
	struct qy_mixed_slab *record;
	uint64_t pages;
};

/* With no lock held. What the kernel refuses is not clean. */
static size_t purge(struct pick *pick)
{
	size_t bytes = qy_slab_purge_pages(pick->record->slab, pick->pages);

	if (bytes != (size_t)__builtin_popcountll(pick->pages) << QY_PAGE_SHIFT)
		pick->pages = 0;
	return bytes;
}

/* One that was kept, and is not needed any more. The lock is held. */
static void end_kept(struct qy_manager *m)
{
	struct qy_mixed_slab *r = m->mixed->apart;

	if (r != NULL && r->slab->countdown == 0 && !r->busy && !is_kept(m, r))
		end(m, r);
}

/* Those whose turn it is, and which did not change since they were looked at before. The lock is held. */
static unsigned pick_some(struct qy_manager *m, uint64_t now, bool at_once, unsigned batch, struct pick *picks,
			  uint32_t *left, bool *again)
{
	struct qy_mixed *mixed = m->mixed;
	unsigned n = 0, looks = 0;

	for (; n < batch && looks < LOOKS && *left > 0 && mixed->freed != NULL; looks++, --*left) {
		struct qy_mixed_slab *r = mixed->freed;
		struct qy_slab *s = r->slab;

		mixed->freed = r->ring[QY_MIXED_FREED].next;
		if (!at_once && r->seen != s->linked) {
			r->seen = s->linked;
			*again = true;
			continue;
		}
		if (!at_once && !qy_sparse_may_break(m, s, now, again))
			continue;
		unnote_freed(mixed, r);
		r->seen = s->linked;
		if (!qy_slab_can_go(m, s))
			continue;
		picks[n] = (struct pick){ r, thin(mixed, r) };
		if (picks[n].pages == 0)
			continue;
		r->busy = true;
		n++;
	}
	return n;
}

size_t qy_mixed_pass(struct qy_manager *m, uint64_t now, bool at_once, size_t at_most, uint64_t until_ns, bool *again)
{
	struct qy_mixed *mixed = __atomic_load_n(&m->mixed, __ATOMIC_ACQUIRE);
	struct pick picks[BATCH];
	uint32_t left = UINT32_MAX; /* of the ring, until it was gone round once */
	unsigned n, batch = until_ns == UINT64_MAX ? BATCH : BATCH_IN_TIME;
	size_t total = 0;

	m->sparse.mixed_cut = false;
	if (mixed == NULL || qy_read(&mixed->slabs) == 0)
		return 0;
	while (left > 0 && total < at_most && !m->sparse.mixed_cut) {
		size_t bytes = 0;

		qy_lock(&m->lock);
		qy_manager_receive(m);
		end_kept(m);
		left = (uint32_t)qy_min(left, mixed->freed_count);
		n = pick_some(m, now, at_once, batch, picks, &left, again);
		qy_unlock(&m->lock);
		for (unsigned i = 0; i < n; i++)
			bytes += purge(&picks[i]);
		qy_lock(&m->lock);
		for (unsigned i = 0; i < n; i++) {
			picks[i].record->busy = false;
			picks[i].record->clean |= picks[i].pages;
			if (picks[i].record->slab->countdown == 0 && !is_kept(m, picks[i].record))
				end(m, picks[i].record);
		}
		qy_count(&m->purges, bytes != 0);
		qy_count(&m->purged, bytes);
		qy_unlock(&m->lock);
		total += bytes;
		m->sparse.mixed_cut = left > 0 && !qy_in_time(until_ns);
	}
	*again = *again || left > 0;
	return total;
}
