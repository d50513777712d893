/* SPDX-License-Identifier: MIT */
#include "lib/manager/mixed.h"

#include <string.h>

#include "lib/manager/budget.h"
#include "lib/manager/collapse.h"
#include "lib/manager/grains.h"
#include "lib/manager/mistakes.h"
#include "lib/manager/mixed_rings.h"
#include "lib/manager/snapshot.h"
#include "lib/manager/sparse.h"

#define LEAST 16    /* slabs that nobody holds, mixed ones too, before one of them becomes mixed */
#define RECORDS 7   /* made at a time: two pages of them */
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

unsigned qy_mixed_bin(uint32_t run)
{
	unsigned log = run == 0 ? 0 : qy_log2_floor(run);

	return run == 0 ? 0 : 1 + log * 4 + ((run << 2 >> log) & 3);
}

_Static_assert(QY_MIXED_BINS == 2 + 12 * 4 && QY_MIXED_GRAINS == 1 << 12 && QY_MIXED_BINS <= 64, "bins for all runs");

static void list(struct qy_mixed *mixed, struct qy_mixed_slab *r, uint32_t longest)
{
	r->longest = (uint16_t)longest;
	r->bin = (uint8_t)qy_mixed_bin(longest);
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

void qy_mixed_relist(struct qy_mixed *mixed, struct qy_mixed_slab *r, uint32_t longest)
{
	if (r->apart || qy_mixed_bin(longest) == r->bin) {
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

void qy_mixed_unpark(struct qy_mixed *mixed, struct qy_mixed_slab *r)
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
	qy_mixed_relist(mixed, r, qy_grains_longest_run(r));
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

struct qy_mixed_slab *qy_mixed_make(struct qy_manager *m, struct qy_slab *s, bool apart)
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
	qy_mixed_unpark(mixed, r);
	qy_count(&mixed->slabs, 1);
	return r;
}

bool qy_mixed_add_apart(struct qy_manager *m, struct qy_slab *s)
{
	struct qy_mixed_slab *r = m->mixed == NULL || m->mixed->unused == NULL ? NULL : qy_mixed_make(m, s, true);

	if (r != NULL)
		m->mixed->apart = r;
	return r != NULL;
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
	qy_mixed_relist(m->mixed, r, (uint32_t)qy_max(r->longest, run));
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
		qy_mixed_relist(mixed, r, qy_grains_longest_run(r));
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
