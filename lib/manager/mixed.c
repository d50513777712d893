/* SPDX-License-Identifier: MIT */
#include "lib/manager/mixed.h"

#include <string.h>

#include "lib/manager/budget.h"
#include "lib/manager/collapse.h"
#include "lib/manager/mistakes.h"
#include "lib/manager/sparse.h"

#define LEAST 16       /* slabs that nobody holds, mixed ones too, before one of them becomes mixed */
#define RECORDS 12     /* made at a time: a page of them */
/* What may be lost of an object in its last slot: one part in so many; and where there is nothing better, since what stands
 * in no gap takes clean memory. */
#define WASTE 8
#define WASTE_MOST 3
#define LARGER 4       /* classes above its own, in whose slots an object may stand */
#define TRIES 4        /* slabs made mixed for one list of objects, at most */
#define BATCH 32       /* slabs that pages are given back of at a time, */
#define LOOKS 256      /* of so many looked at with the lock held once */

/* ---- slots ---- */

static bool bit(const uint64_t *bits, uint32_t i)
{
	return bits[i / 64] >> (i % 64) & 1;
}

static void set(uint64_t *bits, uint32_t i)
{
	qy_publish(bits[i / 64], bits[i / 64] | (uint64_t)1 << (i % 64));
}

static void unset(uint64_t *bits, uint32_t i)
{
	qy_publish(bits[i / 64], bits[i / 64] & ~((uint64_t)1 << (i % 64)));
}

/* The free bits of a word, and of the next, from the bit j of the word on. */
static uint64_t from_bit(const struct qy_mixed_slab *r, uint32_t w, uint32_t j)
{
	uint64_t behind = w + 1 < QY_MIXED_WORDS ? r->free[w + 1] : 0;

	return j == 0 ? r->free[w] : r->free[w] >> j | behind << (64 - j);
}

/* The slots of a word at which a run of k free ones begins. */
static uint64_t runs(const struct qy_mixed_slab *r, uint32_t w, uint32_t k)
{
	uint64_t starts = r->free[w];

	for (uint32_t j = 1; j < k && starts != 0; j++)
		starts &= from_bit(r, w, j);
	return starts;
}

static uint8_t longest_run(const struct qy_mixed_slab *r)
{
	uint8_t longest = 0;

	for (uint32_t w = 0; w < QY_MIXED_WORDS && longest < QY_MIXED_RUN; w++)
		while (longest < QY_MIXED_RUN && runs(r, w, longest + 1u) != 0)
			longest++;
	return longest;
}

static uint32_t slot_of(const struct qy_slab *s, const void *p)
{
	uint64_t in = (uint64_t)((const char *)p - qy_slab_memory(s));

	return (uint32_t)(in * qy_classes[qy_peek(s->cls)].magic >> 40);
}

/* The slots of the object that begins at slot i. */
static uint32_t length_at(const struct qy_mixed_slab *r, uint32_t i)
{
	uint32_t k = 1;

	for (; k < QY_MIXED_RUN && i + 1 < QY_MIXED_SLOTS && (qy_peek(r->end[i / 64]) >> (i % 64) & 1) == 0; i++)
		k++;
	return k;
}

static bool is_parked(const struct qy_slab *s, uint64_t gone, uint32_t i)
{
	return gone != 0 && (qy_slab_pages_of(&qy_classes[s->cls], i) & gone) != 0;
}

size_t qy_mixed_size(const struct qy_slab *s, const void *p)
{
	const struct qy_mixed_slab *r = s->local;
	uint32_t i = slot_of(s, p);

	/* (Of what was freed before, the ends behind it are others'.) */
	if (qy_peek(r->free[i / 64]) >> (i % 64) & 1)
		return 0;
	return (size_t)length_at(r, i) * qy_classes[s->cls].size;
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

static struct qy_mixed_slab **ring_of(struct qy_mixed *mixed, const struct qy_mixed_slab *r)
{
	return &mixed->by_run[r->longest][r->slab->cls - QY_MIXED_FIRST];
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

/* Its longest run has changed. */
static void relist(struct qy_mixed *mixed, struct qy_mixed_slab *r, uint8_t longest)
{
	if (longest == r->longest)
		return;
	ring_remove(ring_of(mixed, r), r, QY_MIXED_BY_RUN);
	r->longest = longest;
	ring_add(ring_of(mixed, r), r, QY_MIXED_BY_RUN);
}

static void put_unused(struct qy_mixed *mixed, struct qy_mixed_slab *r)
{
	r->ring[QY_MIXED_BY_RUN].next = mixed->unused;
	qy_publish(mixed->unused, r);
}

/* ---- becoming mixed, and ending ---- */

void qy_mixed_provide(struct qy_manager *m)
{
	struct qy_mixed *mixed = __atomic_load_n(&m->mixed, __ATOMIC_ACQUIRE);
	struct qy_mixed_slab *records;

	if (qy_read(&m->orphans.slabs) + (mixed == NULL ? 0 : qy_read(&mixed->slabs)) < LEAST ||
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
	struct qy_slab *s = r->slab;
	const struct qy_class *c = &qy_classes[s->cls];
	uint64_t gone = qy_slab_gone(s);

	if (gone == 0 || !qy_budget_take((size_t)__builtin_popcountll(gone) << QY_PAGE_SHIFT))
		return;
	for (uint32_t i = 0; i < c->capacity; i++)
		if (is_parked(s, gone, i)) {
			unset(r->end, i);
			set(r->free, i);
		}
	qy_slab_set_gone(s, 0);
	qy_publish(s->carved, (uint16_t)c->capacity);
	ring_remove(&mixed->parked, r, QY_MIXED_PARKED);
	relist(mixed, r, longest_run(r));
	qy_collapse_wake();
}

/* An orphan with room, taken out of its queue; there is a record for it. NULL when its list is not sound. */
static struct qy_mixed_slab *make_mixed(struct qy_manager *m, struct qy_slab *s)
{
	const struct qy_class *c = &qy_classes[s->cls];
	struct qy_mixed *mixed = m->mixed;
	struct qy_mixed_slab *r = mixed->unused;
	uint64_t free_ones[QY_SLAB_WORDS], gone = qy_slab_gone(s);
	uint32_t used = 0, parked = 0;

	if (!qy_slab_find_free(s, free_ones))
		return NULL;
	qy_publish(mixed->unused, r->ring[QY_MIXED_BY_RUN].next);
	memset(r, 0, sizeof(*r));
	r->slab = s;
	r->clean = qy_slab_clean_pages(s);
	for (uint32_t i = 0; i < c->capacity; i++) {
		bool away = is_parked(s, gone, i);

		set(bit(free_ones, i) && !away ? r->free : r->end, i);
		parked += away;
		used += !bit(free_ones, i);
	}
	qy_publish(s->linked, used);
	qy_publish(s->carved, (uint16_t)(c->capacity - parked));
	r->seen = used;
	s->local = r;
	atomic_store_explicit(&s->heap, &mixed->heap, memory_order_release);
	__atomic_store_n(&s->state, QY_SLAB_MIXED, __ATOMIC_RELEASE);
	r->longest = longest_run(r);
	ring_add(ring_of(mixed, r), r, QY_MIXED_BY_RUN);
	if (gone != 0)
		ring_add(&mixed->parked, r, QY_MIXED_PARKED);
	unpark(mixed, r);
	qy_count(&mixed->slabs, 1);
	return r;
}

/* Out of all rings. */
static void forget(struct qy_mixed *mixed, struct qy_mixed_slab *r)
{
	unnote_freed(mixed, r);
	ring_remove(&mixed->parked, r, QY_MIXED_PARKED);
	ring_remove(ring_of(mixed, r), r, QY_MIXED_BY_RUN);
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
	for (unsigned longest = 0; longest <= QY_MIXED_RUN; longest++)
		for (unsigned i = 0; i < QY_MIXED_CLASSES; i++)
			while (mixed->by_run[longest][i] != NULL)
				forget(mixed, mixed->by_run[longest][i]);
	atomic_store_explicit(&mixed->slabs, 0, memory_order_relaxed);
	qy_heap_open(&mixed->heap, m, 0);
}

/* ---- taking ---- */

/* The objects that are wanted, and those that were found. */
struct want {
	uint32_t count;    /* still wanted */
	uint32_t slots;    /* of each */
	uint32_t multiple; /* each begins at a slot whose number is a multiple of this, a power of two */
	void *first, **end;
};

static uint32_t lowest_bit(uint32_t n)
{
	return n & -n;
}

/* How objects of class cls would stand in the slots of class c; false when they should not. */
static bool fit(unsigned cls, unsigned c, unsigned waste, struct want *want)
{
	uint32_t size = qy_classes[cls].size, slot = qy_classes[c].size;

	want->slots = (size + slot - 1) / slot;
	want->multiple = (uint32_t)qy_max(lowest_bit(size) / lowest_bit(slot), 1);
	return want->slots * slot - size <= size / waste && want->slots + want->multiple - 1 <= QY_MIXED_RUN;
}

static void take_from(struct qy_mixed *mixed, struct qy_mixed_slab *r, struct want *want)
{
	/* Slots at multiples of 1, 2, 4 and 8. */
	static const uint64_t every[] = { UINT64_MAX, UINT64_MAX / 3, UINT64_MAX / 15, UINT64_MAX / 255 };
	uint64_t at = every[qy_log2_floor(want->multiple)], starts;
	struct qy_slab *s = r->slab;
	const struct qy_class *c = &qy_classes[s->cls];
	uint32_t taken = 0;

	for (uint32_t w = 0; w < QY_MIXED_WORDS && want->count > 0; w++)
		while (want->count > 0 && (starts = runs(r, w, want->slots) & at) != 0) {
			uint32_t i = w * 64 + (uint32_t)__builtin_ctzll(starts);
			void *p = qy_slab_memory(s) + (size_t)i * c->size;

			for (uint32_t k = 0; k < want->slots; k++) {
				unset(r->free, i + k);
				r->clean &= ~qy_slab_pages_of(c, i + k);
			}
			set(r->end, i + want->slots - 1);
			*want->end = p;
			want->end = p;
			want->count--;
			taken++;
		}
	qy_publish(s->countdown, s->countdown + taken);
	qy_publish(s->linked, s->linked + taken * want->slots);
	relist(mixed, r, longest_run(r));
}

/* From slabs of class c that are mixed. In a run of so many slots one at a right place begins. */
static void take_of_class(struct qy_mixed *mixed, unsigned c, struct want *want)
{
	struct qy_mixed_slab *r;

	for (uint32_t n = want->slots + want->multiple - 1; n <= QY_MIXED_RUN && want->count > 0; n++)
		while (want->count > 0 && (r = mixed->by_run[n][c - QY_MIXED_FIRST]) != NULL)
			take_from(mixed, r, want);
}

/* Whether so little lives in it, and that for so long, that its class will hardly fill it again soon. */
static bool is_deserted(const struct qy_slab *s)
{
	return s->countdown * 2 <= qy_classes[s->cls].capacity && s->seen == s->countdown + 1;
}

/* Another slab of class c with free slots, out of those that nobody holds. */
static bool make_one(struct qy_manager *m, unsigned c)
{
	struct qy_slab_list *queue = &m->orphans.queue[c];
	struct qy_slab *s = queue->last; /* left alone for longest */

	if (s == NULL || m->mixed->unused == NULL || !is_deserted(s))
		return false;
	qy_slab_list_remove(queue, s);
	if (make_mixed(m, s) == NULL) {
		/* (Nor is it looked at again until it changes.) */
		s->seen = 0;
		qy_slab_list_push_front(queue, s);
		return false;
	}
	qy_uncount(&m->orphans.slabs, 1);
	return true;
}

/* Slots that were parked, before others become mixed, and before clean memory is used: it would be touched just so. */
static void take_parked(struct qy_mixed *mixed, unsigned cls, struct want *want)
{
	struct qy_mixed_slab *r;

	for (unsigned tries = 0; tries < TRIES && want->first == NULL && (r = mixed->parked) != NULL; tries++) {
		mixed->parked = r->ring[QY_MIXED_PARKED].next;
		if (!fit(cls, r->slab->cls, WASTE_MOST, want) || r->busy)
			continue;
		unpark(mixed, r);
		if (r->longest >= want->slots + want->multiple - 1)
			take_from(mixed, r, want);
	}
}

/* From all classes in which it fits, be it that more slabs become mixed for it (at most *tries). */
static void take_from_all(struct qy_manager *m, unsigned cls, unsigned waste, unsigned *tries, struct want *want)
{
	unsigned c = (unsigned)qy_min(cls + LARGER, QY_MIXED_FIRST + QY_MIXED_CLASSES - 1);

	for (; c >= QY_MIXED_FIRST && want->first == NULL; c--) {
		if (qy_classes[c].size * QY_MIXED_RUN < qy_classes[cls].size)
			break;
		if (!fit(cls, c, waste, want))
			continue;
		take_of_class(m->mixed, c, want);
		for (; *tries > 0 && want->first == NULL && make_one(m, c); --*tries)
			take_of_class(m->mixed, c, want);
	}
}

void *qy_mixed_take(struct qy_manager *m, unsigned cls)
{
	struct want want = { .count = qy_classes[cls].carve, .first = NULL };
	unsigned none = 0, tries = TRIES;

	if (m->mixed == NULL || cls < QY_MIXED_FIRST)
		return NULL;
	want.end = &want.first;
	/* Those that are there come first. */
	take_from_all(m, cls, WASTE, &none, &want);
	if (want.first == NULL)
		take_from_all(m, cls, WASTE_MOST, &none, &want);
	if (want.first == NULL)
		take_parked(m->mixed, cls, &want);
	if (want.first == NULL)
		take_from_all(m, cls, WASTE, &tries, &want);
	if (want.first == NULL)
		take_from_all(m, cls, WASTE_MOST, &tries, &want);
	*want.end = NULL;
	return want.first;
}

/* ---- freeing ---- */

/* The free run around a slot, as far as it matters. */
static uint8_t run_around(const struct qy_mixed_slab *r, uint32_t i)
{
	uint32_t n = 1;

	for (uint32_t at = i; at > 0 && n < QY_MIXED_RUN && bit(r->free, at - 1); at--)
		n++;
	for (uint32_t at = i; at + 1 < QY_MIXED_SLOTS && n < QY_MIXED_RUN && bit(r->free, at + 1); at++)
		n++;
	return (uint8_t)n;
}

/* Whether an object begins at the slot. */
static bool begins(const struct qy_slab *s, const struct qy_mixed_slab *r, uint32_t i)
{
	return !bit(r->free, i) && !is_parked(s, qy_slab_gone(s), i) &&
	       (i == 0 || bit(r->free, i - 1) || bit(r->end, i - 1));
}

/* False when p was no live object. The slab is one of m's mixed ones. */
static bool free_one(struct qy_manager *m, struct qy_slab *s, void *p)
{
	struct qy_mixed_slab *r = s->local;
	uint32_t i = slot_of(s, p), slots;

	if (!begins(s, r, i)) {
		qy_mistake(QY_MISTAKE_DOUBLE_FREE, p);
		return false;
	}
	slots = length_at(r, i);
	unset(r->end, i + slots - 1);
	for (uint32_t k = 0; k < slots; k++)
		set(r->free, i + k);
	qy_publish(s->countdown, s->countdown - 1);
	qy_publish(s->linked, s->linked - slots);
	if (s->countdown == 0 && !r->busy) {
		end(m, r);
		return true;
	}
	relist(m->mixed, r, (uint8_t)qy_max(r->longest, run_around(r, i)));
	note_freed(m->mixed, r);
	return true;
}

/* Returns how many. (What was freed twice by others may have made a circle of the list.) */
static uint32_t file_some(struct qy_manager *m, uint32_t at_most)
{
	struct qy_heap *h = &m->mixed->heap;
	void *p = h->mail;
	uint32_t filed = 0;

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

/* Park the slots of pages in which nothing lives, and which are not away yet: the pages to be purged, as bits. */
static uint64_t thin(struct qy_mixed *mixed, struct qy_mixed_slab *r)
{
	struct qy_slab *s = r->slab;
	const struct qy_class *c = &qy_classes[s->cls];
	uint32_t parked = 0;
	uint64_t was = qy_slab_gone(s), live = 0, standing = 0, pages;

	for (uint32_t i = 0; i < c->capacity; i++) {
		standing |= qy_slab_pages_of(c, i);
		if (!bit(r->free, i) && !is_parked(s, was, i))
			live |= qy_slab_pages_of(c, i);
	}
	pages = standing & ~live & ~was;
	for (uint32_t i = 0; i < c->capacity; i++) {
		if (!bit(r->free, i) || (qy_slab_pages_of(c, i) & pages) == 0)
			continue;
		unset(r->free, i);
		set(r->end, i);
		parked++;
	}
	if (pages != 0) {
		qy_slab_set_gone(s, was | pages);
		qy_publish(s->carved, (uint16_t)(s->carved - parked));
		relist(mixed, r, longest_run(r));
		ring_add(&mixed->parked, r, QY_MIXED_PARKED);
	}
	return qy_slab_all_pages(c) & ~live & ~r->clean;
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

/* Those whose turn it is, and which did not change since they were looked at before. The lock is held. */
static unsigned pick_some(struct qy_manager *m, uint64_t now, bool at_once, struct pick *picks, uint32_t *left,
			  bool *again)
{
	struct qy_mixed *mixed = m->mixed;
	unsigned n = 0, looks = 0;

	for (; n < BATCH && looks < LOOKS && *left > 0 && mixed->freed != NULL; looks++, --*left) {
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
	unsigned n;
	size_t total = 0;

	m->sparse.mixed_cut = false;
	if (mixed == NULL || qy_read(&mixed->slabs) == 0)
		return 0;
	while (left > 0 && total < at_most && !m->sparse.mixed_cut) {
		size_t bytes = 0;

		qy_lock(&m->lock);
		qy_manager_receive(m);
		left = (uint32_t)qy_min(left, mixed->freed_count);
		n = pick_some(m, now, at_once, picks, &left, again);
		qy_unlock(&m->lock);
		for (unsigned i = 0; i < n; i++)
			bytes += purge(&picks[i]);
		qy_lock(&m->lock);
		for (unsigned i = 0; i < n; i++) {
			picks[i].record->busy = false;
			picks[i].record->clean |= picks[i].pages;
			if (picks[i].record->slab->countdown == 0)
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
