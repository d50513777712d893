/* SPDX-License-Identifier: MIT */
/* Heaps of one manager against a table with one entry for every place where an object can be: who has it. To be
 * included once, by a test. */
#ifndef QUARRY_TESTS_HEAP_MODEL_H
#define QUARRY_TESTS_HEAP_MODEL_H

#include <criterion/criterion.h>

#include "lib/cache/thread.h"
#include "lib/manager/mixed.h"
#include "lib/manager/sparse.h"
#include "tests/fake_os.h"
#include "tests/unit/manager_model.h"

#define HEAPS 4
#define PLACES ((size_t)4 << 30 >> 4)

/* The library starts before main (lib/api/init.c), so the machine is made before that. */
static __attribute__((constructor(101))) void make_machine(void)
{
	setenv("QUARRY_OPTIONS", "reclaim=off", 1);
	fake_os_install();
	fake_os_clock(1000);
}

enum place { PLACE_FREE, PLACE_OUT, PLACE_MAIL };

static _Atomic(uint8_t) places[PLACES]; /* by address / 16 */

static struct qy_manager *m;
static struct qy_heap heaps[HEAPS];

static _Atomic(uint8_t) *place_of(const void *p)
{
	return &places[qy_window_offset(p) >> 4];
}

static void begin(const char *name)
{
	model_start(name);
	cr_assert(qy_start());
	m = new_manager(0);
	for (unsigned i = 0; i < HEAPS; i++)
		qy_heap_open(&heaps[i], m, (uintptr_t)&heaps[i]);
}

static struct qy_heap *heap_of(const void *p)
{
	return atomic_load_explicit(&qy_slab_of(p)->heap, memory_order_acquire);
}

static bool is_in_gap(const void *p)
{
	return qy_slab_is_mixed(qy_slab_of(p));
}

static uint32_t size_of_class(unsigned cls)
{
	return qy_classes[cls].size;
}

/* ---- lists that a heap gives out ---- */

/* Each object of a new list: of the heap and the class, nobody's so far, and zero when it is said to be. */
static void check_list_of(struct qy_heap *h, unsigned cls, void *list, bool zero)
{
	uint32_t n = 0;

	for (void *p = list; p != NULL; p = qy_next_object(p)) {
		struct qy_slab *s = qy_slab_of(p);
		const uint64_t *words = p;

		model_must(s != NULL, "%p is an object", p);
		if (is_in_gap(p))
			model_must(heap_of(p) == &m->mixed->heap && !zero && qy_mixed_size(s, p) == size_of_class(cls) &&
				   (uintptr_t)p % (size_of_class(cls) & -size_of_class(cls)) == 0,
				   "%p stands in a gap, %zu bytes for %u", p, qy_mixed_size(s, p), size_of_class(cls));
		else
			model_must(s->cls == cls && heap_of(p) == h, "%p is the heap's", p);
		model_must(atomic_exchange(place_of(p), PLACE_OUT) == PLACE_FREE, "%p is given out twice", p);
		model_must(++n <= qy_classes[cls].capacity, "a list without end");
		for (uint32_t w = 1; zero && w < size_of_class(cls) / 8; w++)
			model_must(words[w] == 0, "word %u of %p, said to be zero", w, p);
	}
}

/* Lists in front of the heaps, as thread caches have them. */
static void *lists[HEAPS][QY_CLASSES];

static void *take(unsigned i, unsigned cls)
{
	void *p = lists[i][cls];

	if (p == NULL) {
		bool zero = false;

		p = qy_heap_refill(&heaps[i], cls, &zero);
		model_must(p != NULL, "there is memory");
		check_list_of(&heaps[i], cls, p, zero);
	}
	lists[i][cls] = qy_next_object(p);
	return p;
}

static void flush(unsigned i)
{
	for (unsigned cls = 0; cls < QY_CLASSES; cls++) {
		for (void *p = lists[i][cls]; p != NULL; p = qy_next_object(p))
			atomic_store(place_of(p), PLACE_FREE);
		qy_heap_put_back(&heaps[i], lists[i][cls]);
		lists[i][cls] = NULL;
	}
}

/* Free as the thread that has heap i: at home by push or in a list, else by the remote list of whose it is. */
static void give_back(unsigned i, void *p, bool listed)
{
	struct qy_heap *h = heap_of(p);

	atomic_store(place_of(p), PLACE_FREE);
	if (h != &heaps[i]) {
		qy_heap_send(h, p, p);
	} else if (listed) {
		qy_link_object(p, NULL);
		qy_heap_put_back(h, p);
	} else if (qy_slab_push(qy_slab_of(p), p)) {
		qy_heap_event(qy_slab_of(p));
	}
}

/* All that was sent to slabs that nobody holds. */
static inline void receive_all(void)
{
	qy_lock(&m->lock);
	while (qy_manager_receive(m))
		;
	qy_unlock(&m->lock);
}

/* ---- looking at everything ---- */

static uint32_t slabs_seen, spares_seen;

static void mark_mail(struct qy_heap *h, enum place from, enum place to)
{
	void *list = atomic_load(&h->remote);

	for (void *p = list == QY_REMOTE_CLOSED ? NULL : list; p != NULL; p = qy_next_object(p))
		model_must(atomic_exchange(place_of(p), to) == from, "%p is in a remote list once", p);
	for (void *p = h->mail; p != NULL; p = qy_next_object(p))
		model_must(atomic_exchange(place_of(p), to) == from, "%p is in a list that is not filed yet once", p);
}

static void check_slab(struct qy_heap *h, struct qy_slab *s, enum qy_slab_state state)
{
	const struct qy_class *c = &qy_classes[s->cls];
	char *memory = qy_slab_memory(s);
	uint32_t listed = 0, free_ones = 0, parked = 0;
	uint64_t gone = qy_slab_gone(s);

	slabs_seen++;
	model_must(s->kind == QY_SLAB_HEAD && s->state == state, "slab %p: state %d", (void *)s, s->state);
	model_must(atomic_load(&s->heap) == h && atomic_load(&s->owner) == h->owner, "slab %p", (void *)s);
	model_must(s->carved <= c->capacity, "slab %p", (void *)s);
	for (void *p = s->local; p != NULL; p = qy_next_object(p)) {
		model_must(qy_slab_of(p) == s && atomic_load(place_of(p)) == PLACE_FREE, "%p is free in its slab", p);
		model_must(++listed <= s->carved, "slab %p: a list without end", (void *)s);
	}
	for (uint32_t i = 0; i < s->carved; i++) {
		uint32_t first = i * c->size / QY_PAGE, last = ((i + 1) * c->size - 1) / QY_PAGE;

		free_ones += atomic_load(place_of(memory + (size_t)i * c->size)) == PLACE_FREE;
		for (uint32_t page = first; page <= last; page++)
			if (gone >> page & 1) {
				parked++;
				break;
			}
	}
	model_must(gone == 0 || s->carved == c->capacity, "slab %p: pages are gone before all is carved", (void *)s);
	model_must(parked == s->carved - s->linked, "slab %p: %u objects are parked, not %u", (void *)s, parked,
		   s->carved - s->linked);
	model_must(free_ones == listed + parked, "slab %p: %u objects are free, %u listed", (void *)s, free_ones, listed);
	if (state == QY_SLAB_FULL)
		model_must(s->carved == c->capacity && listed == 0 && s->countdown == 1, "slab %p is full", (void *)s);
	else
		model_must(s->countdown == s->linked - listed, "slab %p: %u live, not %u", (void *)s,
			   s->linked - listed, s->countdown);
}

static uint32_t check_slab_list(struct qy_heap *h, const struct qy_slab_list *list, enum qy_slab_state state)
{
	struct qy_slab *before = NULL;
	uint32_t n = 0;

	for (struct qy_slab *s = list->first; s != NULL; before = s, s = qy_slab_numbered(s->next), n++) {
		model_must(qy_slab_numbered(s->prev) == before, "slab %p", (void *)s);
		check_slab(h, s, state);
	}
	model_must(list->last == before, "the end of a list");
	return n;
}

static void check_heap(struct qy_heap *h)
{
	uint32_t n = 0;

	for (unsigned cls = 0; cls < QY_CLASSES; cls++) {
		if (h->active[cls] != NULL) {
			check_slab(h, h->active[cls], QY_SLAB_ACTIVE);
			n++;
		}
		n += check_slab_list(h, &h->queue[cls], QY_SLAB_QUEUED);
	}
	n += check_slab_list(h, &h->full, QY_SLAB_FULL);
	model_must(qy_read(&h->slabs) == n, "%u slabs, not %" PRIu64, n, qy_read(&h->slabs));
	model_must(h->spares <= QY_HEAP_SPARES, "%u spares", h->spares);
	for (unsigned i = 0; i < h->spares; i++)
		model_must(h->spare[i]->state == QY_SLAB_SPARE && qy_slab_of(qy_slab_memory(h->spare[i])) == NULL,
			   "spare %u", i);
	spares_seen += h->spares;
}

/* A mixed slab: each slot is free, parked, or of one object; and it is in the ring of its longest run. */
static void check_mixed_slab(const struct qy_mixed_slab *r, unsigned bin)
{
	const struct qy_slab *s = r->slab;
	uint32_t live = 0, used = 0, parked = 0, run = 0, most = 0;
	uint64_t gone = qy_slab_gone(s);

	slabs_seen++;
	model_must(s->state == QY_SLAB_MIXED && s->local == r && atomic_load(&s->owner) == 0 && s->cls == QY_MIXED_CLASS,
		   "slab %p is mixed", (void *)s);
	for (uint32_t i = 0, n; i < QY_MIXED_GRAINS; i += n) {
		char *p = qy_slab_memory(s) + (size_t)i * QY_MIXED_GRAIN;

		n = 1;
		if (r->free[i / 64] >> (i % 64) & 1) {
			model_must(atomic_load(place_of(p)) == PLACE_FREE, "%p is free", (void *)p);
			most = (uint32_t)qy_max(most, ++run);
			continue;
		}
		run = 0;
		if (gone >> (i * QY_MIXED_GRAIN / QY_PAGE) & 1) {
			model_must(atomic_load(place_of(p)) == PLACE_FREE, "%p is parked", (void *)p);
			parked++;
			continue;
		}
		model_must(atomic_load(place_of(p)) != PLACE_FREE, "an object begins at %p", (void *)p);
		n = (uint32_t)(qy_mixed_size(s, p) / QY_MIXED_GRAIN);
		for (uint32_t k = 1; k < n; k++)
			model_must(atomic_load(place_of(p + (size_t)k * QY_MIXED_GRAIN)) == PLACE_FREE &&
				   (r->free[(i + k) / 64] >> ((i + k) % 64) & 1) == 0, "%p has %u grains", (void *)p, n);
		live++;
		used += n;
	}
	model_must(live == s->countdown && used == s->linked && parked == QY_MIXED_GRAINS - s->carved, "slab %p", (void *)s);
	model_must(r->bin == bin && r->longest >= most, "slab %p: %u, and a run of %u", (void *)s, r->longest, most);
	model_must((gone != 0) == (r->ring[QY_MIXED_PARKED].next != NULL), "slab %p has parked grains", (void *)s);
}

static void check_mixed(void)
{
	uint32_t n = 0;

	for (unsigned bin = 0; m->mixed != NULL && bin < QY_MIXED_BINS; bin++) {
		const struct qy_mixed_slab *first = m->mixed->by_run[bin], *r = first;

		model_must((first != NULL) == (m->mixed->bins >> bin & 1), "bin %u", bin);
		for (; r != NULL; r = r->ring[QY_MIXED_BY_RUN].next == first ? NULL : r->ring[QY_MIXED_BY_RUN].next) {
			check_mixed_slab(r, bin);
			n++;
		}
	}
	model_must(m->mixed == NULL || n == qy_read(&m->mixed->slabs), "%u mixed slabs", n);
}

/* Every slab that the manager gave out is in one list of one heap. */
static void check_all(void)
{
	static struct books books;
	uint32_t heads = 0, units = 0;

	for (unsigned i = 0; i < HEAPS; i++)
		mark_mail(&heaps[i], PLACE_FREE, PLACE_MAIL);
	mark_mail(&m->orphans, PLACE_FREE, PLACE_MAIL);
	if (m->mixed != NULL)
		mark_mail(&m->mixed->heap, PLACE_FREE, PLACE_MAIL);
	slabs_seen = spares_seen = 0;
	for (unsigned i = 0; i < HEAPS; i++)
		check_heap(&heaps[i]);
	check_heap(&m->orphans);
	check_mixed();
	for (unsigned i = 0; i < HEAPS; i++)
		mark_mail(&heaps[i], PLACE_MAIL, PLACE_FREE);
	mark_mail(&m->orphans, PLACE_MAIL, PLACE_FREE);
	if (m->mixed != NULL)
		mark_mail(&m->mixed->heap, PLACE_MAIL, PLACE_FREE);
	for (size_t at = 0; at < qy_window_claimed(); at += QY_UNIT) {
		heads += qy_slab_at(at)->kind == QY_SLAB_HEAD;
		units += qy_slab_at(at)->kind != QY_SLAB_NONE;
	}
	model_must(heads == slabs_seen, "%u slabs, and %u in lists", heads, slabs_seen);
	model_must(qy_read(&m->used) == (uint64_t)(units + spares_seen) * QY_UNIT, "%" PRIu64 " bytes in use",
		   qy_read(&m->used));
	books_compare(m, &books);
}

#endif
