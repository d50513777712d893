/* SPDX-License-Identifier: MIT */
#include "lib/manager/heap.h"

#include <string.h>

#include "lib/base/settings.h"
#include "lib/manager/mistakes.h"
#include "lib/manager/manager.h"

static void list_push_back(struct qy_slab_list *list, struct qy_slab *s)
{
	s->next = NULL;
	s->prev = list->last;
	if (list->last != NULL)
		list->last->next = s;
	else
		list->first = s;
	list->last = s;
}

static void list_remove(struct qy_slab_list *list, struct qy_slab *s)
{
	if (s->prev != NULL)
		s->prev->next = s->next;
	else
		list->first = s->next;
	if (s->next != NULL)
		s->next->prev = s->prev;
	else
		list->last = s->prev;
	s->next = s->prev = NULL;
}

void qy_heap_open(struct qy_heap *h, struct qy_manager *m, uintptr_t owner)
{
	qy_publish(h->manager, m);
	h->owner = owner;
	if (owner != 0)
		atomic_fetch_add_explicit(&m->heaps, 1, memory_order_relaxed);
	atomic_store_explicit(&h->remote, NULL, memory_order_release);
}

void qy_heap_clear(struct qy_heap *h)
{
	memset(h->active, 0, sizeof(h->active));
	memset(h->queue, 0, sizeof(h->queue));
	memset(&h->full, 0, sizeof(h->full));
	h->spares = 0;
	atomic_store_explicit(&h->refills, 0, memory_order_relaxed);
	atomic_store_explicit(&h->remote_received, 0, memory_order_relaxed);
	atomic_store_explicit(&h->adopted, 0, memory_order_relaxed);
	atomic_store_explicit(&h->slabs, 0, memory_order_relaxed);
}

/* ---- taking lists ---- */

/* A list with an object twice in it, or one that is not of the slab: the program freed twice or wrote after free.
 * Rebuild it from what is sound, so that nothing is handed out twice; the rest is counted and lost to the slab. */
static QY_COLD void repair(struct qy_slab *s)
{
	uint64_t seen[QY_UNIT / 16 / 64] = { 0 };
	const struct qy_class *c = &qy_classes[s->cls];
	char *memory = qy_slab_memory(s);
	void *p = s->local, **end = &s->local;
	uint32_t kept = 0;

	while (p != NULL) {
		uint64_t in = (uint64_t)((char *)p - memory), i = in * c->magic >> 40;

		if (in >= (uint64_t)s->carved * c->size || i * c->size != in || (seen[i / 64] >> (i % 64) & 1)) {
			qy_mistake(QY_MISTAKE_DOUBLE_FREE, p);
			break;
		}
		seen[i / 64] |= (uint64_t)1 << (i % 64);
		*end = p;
		end = (void **)p;
		p = *end;
		kept++;
	}
	*end = NULL;
	qy_publish(s->countdown, s->carved - kept);
}

#define LOOK_AT 32 /* objects of a list, each time */

/* Whether the list holds as many objects as the count says, each where one stands; of a long one, its beginning. They
 * are about to be handed out, so that to look at them is no cache miss more. */
static bool is_sound(const struct qy_slab *s)
{
	const struct qy_class *c = &qy_classes[s->cls];
	const char *memory = qy_slab_memory(s);
	const char *p = s->local;
	uint32_t n = s->carved - s->countdown, looks = (uint32_t)qy_min(n, LOOK_AT);

	for (uint32_t i = 0; i < looks; i++) {
		uint64_t in = (uint64_t)(p - memory);

		if (in >= (uint64_t)s->carved * c->size || (in * c->magic >> 40) * c->size != in)
			return false;
		p = qy_next_object((void *)p);
	}
	return n > looks ? p != NULL : p == NULL;
}

static void check_list(struct qy_slab *s)
{
	if (QY_UNLIKELY(s->countdown > s->carved || !is_sound(s) || qy_setting(on_error) != QY_ERROR_IGNORE))
		repair(s);
}

static void *take_local(struct qy_slab *s)
{
	void *list;

	check_list(s);
	list = s->local;
	s->local = NULL;
	qy_publish(s->countdown, s->carved);
	return list;
}

void *qy_slab_carve(struct qy_slab *s)
{
	const struct qy_class *c = &qy_classes[s->cls];
	uint32_t n = (uint32_t)qy_min(c->carve, c->capacity - s->carved);
	char *first = qy_slab_memory(s) + (size_t)s->carved * c->size, *p = first;

	for (uint32_t i = 1; i < n; i++, p += c->size)
		qy_link_object(p, p + c->size);
	qy_link_object(p, NULL);
	/* In this order: a child forked in between finds objects that nobody has, not live ones that do not count. */
	s->carved += n;
	qy_publish(s->countdown, s->countdown + n);
	return first;
}

static void make_full(struct qy_heap *h, struct qy_slab *s)
{
	qy_assert(s->carved == qy_classes[s->cls].capacity && s->local == NULL && s->countdown == s->carved);
	qy_publish(s->state, QY_SLAB_FULL);
	qy_publish(s->countdown, 1);
	list_push_back(&h->full, s);
}

static void make_active(struct qy_heap *h, struct qy_slab *s)
{
	qy_publish(s->state, QY_SLAB_ACTIVE);
	h->active[s->cls] = s;
}

static bool has_room(const struct qy_slab *s)
{
	return s->local != NULL || s->carved < qy_classes[s->cls].capacity;
}

/* Make another slab active: one with room, or from the manager. */
static struct qy_slab *next_slab(struct qy_heap *h, unsigned cls)
{
	struct qy_slab *s = h->queue[cls].first;

	if (s != NULL) {
		list_remove(&h->queue[cls], s);
	} else {
		if (h->spares > 0 && qy_classes[cls].units == 1)
			s = h->spare[--h->spares];
		s = qy_manager_get_slab(h->manager, h, cls, s);
		if (s == NULL)
			return NULL;
		qy_count(&h->slabs, 1);
	}
	make_active(h, s);
	return s;
}

void *qy_heap_refill(struct qy_heap *h, unsigned cls, bool *zero)
{
	struct qy_slab *s = h->active[cls];

	qy_count(&h->refills, 1);
	*zero = false;
	for (;;) {
		void *list = s != NULL && s->local != NULL ? take_local(s) : NULL;

		/* (A list that was repaired may be empty.) */
		if (list != NULL)
			return list;
		if (qy_heap_has_mail(h)) {
			qy_heap_receive(h);
			s = h->active[cls];
			continue;
		}
		if (s != NULL && s->carved < qy_classes[cls].capacity) {
			*zero = s->zero;
			return qy_slab_carve(s);
		}
		if (s != NULL) {
			h->active[cls] = NULL;
			make_full(h, s);
		}
		s = next_slab(h, cls);
		if (s == NULL)
			return NULL;
	}
}

/* ---- freeing ---- */

static void drop_slab(struct qy_heap *h, struct qy_slab *s)
{
	qy_uncount(&h->slabs, 1);
	if (h->owner == 0) {
		qy_manager_put_slab(h->manager, s);
		return;
	}
	if (h->spares < QY_HEAP_SPARES && qy_classes[s->cls].units == 1) {
		qy_publish(s->state, QY_SLAB_SPARE);
		qy_publish(s->kind, QY_SLAB_NONE);
		h->spare[h->spares++] = s;
		return;
	}
	qy_manager_put_slabs(h->manager, &s, 1);
}

void qy_heap_event(struct qy_slab *s)
{
	struct qy_heap *h = atomic_load_explicit(&s->heap, memory_order_relaxed);

	if (s->state == QY_SLAB_FULL) {
		list_remove(&h->full, s);
		qy_publish(s->state, QY_SLAB_QUEUED);
		qy_publish(s->countdown, s->carved - 1);
		list_push_back(&h->queue[s->cls], s);
	} else if (s->state == QY_SLAB_QUEUED) {
		if (qy_setting(on_error) != QY_ERROR_IGNORE) {
			repair(s);
			if (s->countdown != 0)
				return;
		}
		list_remove(&h->queue[s->cls], s);
		drop_slab(h, s);
	}
}

/* False when p was no live object: a mistake of the program's, counted. */
static bool free_here(struct qy_heap *h, void *p)
{
	struct qy_slab *s = qy_slab_of(p);
	struct qy_heap *of = s == NULL ? NULL : atomic_load_explicit(&s->heap, memory_order_acquire);

	if (s == NULL) {
		qy_mistake(QY_MISTAKE_FOREIGN, p);
		return false;
	} else if (of != h) {
		qy_heap_send(of, p, p);
	} else if (p == s->local || s->countdown == 0) {
		qy_mistake(QY_MISTAKE_DOUBLE_FREE, p);
		return false;
	} else if (qy_slab_push(s, p)) {
		qy_heap_event(s);
	}
	return true;
}

void qy_heap_put_back(struct qy_heap *h, void *list)
{
	while (list != NULL) {
		void *p = list;

		list = qy_next_object(p);
		free_here(h, p);
	}
}

void qy_heap_send(struct qy_heap *h, void *first, void *last)
{
	void *was = atomic_load_explicit(&h->remote, memory_order_relaxed);

	for (;;) {
		if (was == QY_REMOTE_CLOSED)
			break;
		qy_link_object(last, was);
		if (atomic_compare_exchange_weak_explicit(&h->remote, &was, first, memory_order_release,
							  memory_order_acquire))
			return;
	}
	/* The heap was given up after its slabs had gone elsewhere: look where each object's slab is now. */
	atomic_thread_fence(memory_order_acquire);
	qy_link_object(last, NULL);
	while (first != NULL) {
		void *p = first;
		struct qy_slab *s = qy_slab_of(p);

		first = qy_next_object(p);
		if (s != NULL)
			qy_heap_send(atomic_load_explicit(&s->heap, memory_order_acquire), p, p);
		else
			qy_mistake(QY_MISTAKE_FOREIGN, p);
	}
}

/* The objects at the front of a list that are in one unit, as those gathered together mostly are: their number and the
 * last of them. More than a unit has means that the list leads in a circle. */
static uint32_t run_of(void *first, void **last)
{
	uintptr_t unit = qy_window_offset(first) >> QY_UNIT_SHIFT;
	uint32_t n = 1;
	void *p = first, *next;

	while ((next = qy_next_object(p)) != NULL && qy_window_offset(next) >> QY_UNIT_SHIFT == unit &&
	       n <= QY_UNIT / 16) {
		p = next;
		n++;
	}
	*last = p;
	return n;
}

#define MISTAKES_MAX 64 /* in one list, before the rest is given up */

/* Put n objects of one slab back as they are linked: only the last is written to, so that the others' lines are not
 * taken from whoever freed them before they are used again. False, and nothing done, when they must go one by one. */
static bool splice(struct qy_heap *h, struct qy_slab *s, void *first, void *last, uint32_t n)
{
	if (s == NULL || atomic_load_explicit(&s->heap, memory_order_acquire) != h || s->state == QY_SLAB_FULL ||
	    s->countdown < n || s->local == first)
		return false;
	qy_link_object(last, s->local);
	s->local = first;
	qy_publish(s->countdown, s->countdown - n);
	if (s->countdown == 0)
		qy_heap_event(s);
	return true;
}

void qy_heap_receive(struct qy_heap *h)
{
	void *p = atomic_exchange_explicit(&h->remote, NULL, memory_order_acquire);
	unsigned mistakes = 0;
	uint64_t received = 0;

	/* What was freed twice by others may have made a circle of the list: the rest is lost then. */
	while (p != NULL && mistakes < MISTAKES_MAX) {
		void *last, *next;
		uint32_t n = run_of(p, &last);

		next = qy_next_object(last);
		if (n > QY_UNIT / 16) {
			qy_mistake(QY_MISTAKE_DOUBLE_FREE, p);
			break;
		}
		received += n;
		/* A full slab takes the first by itself, and has room then. */
		if (n > 1) {
			struct qy_slab *s = qy_slab_of(p);

			if (s != NULL && s->state == QY_SLAB_FULL &&
			    atomic_load_explicit(&s->heap, memory_order_acquire) == h) {
				void *second = qy_next_object(p);

				mistakes += !free_here(h, p);
				p = second;
				n--;
			}
			if (splice(h, s, p, last, n)) {
				p = next;
				continue;
			}
		}
		for (; n > 0; n--) {
			void *following = qy_next_object(p);

			mistakes += !free_here(h, p);
			p = following;
		}
		p = next;
	}
	qy_count(&h->remote_received, received);
}

/* ---- giving up ---- */

void qy_heap_trim(struct qy_heap *h)
{
	if (h->spares > 0)
		qy_manager_put_slabs(h->manager, h->spare, h->spares);
	h->spares = 0;
}

static void orphan(struct qy_heap *h, struct qy_slab *s)
{
	struct qy_heap *orphans = &h->manager->orphans;

	atomic_store_explicit(&s->owner, orphans->owner, memory_order_relaxed);
	atomic_store_explicit(&s->heap, orphans, memory_order_release);
	if (s->state == QY_SLAB_FULL || !has_room(s)) {
		if (s->state != QY_SLAB_FULL)
			make_full(orphans, s);
		else
			list_push_back(&orphans->full, s);
	} else {
		qy_publish(s->state, QY_SLAB_QUEUED);
		list_push_back(&orphans->queue[s->cls], s);
	}
	qy_count(&orphans->slabs, 1);
	qy_uncount(&h->slabs, 1);
}

static void orphan_list(struct qy_heap *h, struct qy_slab_list *list)
{
	struct qy_slab *s;

	while ((s = list->first) != NULL) {
		list_remove(list, s);
		orphan(h, s);
	}
}

static void drop_active(struct qy_heap *h, unsigned cls)
{
	struct qy_slab *s = h->active[cls];

	h->active[cls] = NULL;
	if (s == NULL)
		return;
	if (s->countdown == 0) {
		qy_uncount(&h->slabs, 1);
		qy_manager_put_slabs(h->manager, &s, 1);
		return;
	}
	qy_publish(s->state, has_room(s) ? QY_SLAB_QUEUED : QY_SLAB_ACTIVE);
	if (s->state == QY_SLAB_QUEUED)
		list_push_back(&h->queue[cls], s);
	else
		make_full(h, s);
}

void qy_heap_tidy(struct qy_heap *h)
{
	for (unsigned cls = 0; cls < QY_CLASSES; cls++)
		if (h->active[cls] != NULL && h->active[cls]->countdown == 0)
			drop_active(h, cls);
	qy_heap_trim(h);
}

/* A count of the heap's becomes one of the manager's. */
static void hand_over(qy_counter *to, qy_counter *from)
{
	uint64_t n = qy_read(from);

	atomic_store_explicit(from, 0, memory_order_relaxed);
	qy_count_shared(to, n);
}

void qy_heap_abandon(struct qy_heap *h)
{
	void *late;

	qy_heap_receive(h);
	for (unsigned cls = 0; cls < QY_CLASSES; cls++)
		drop_active(h, cls);
	qy_heap_trim(h);
	qy_lock(&h->manager->lock);
	for (unsigned cls = 0; cls < QY_CLASSES; cls++)
		orphan_list(h, &h->queue[cls]);
	orphan_list(h, &h->full);
	qy_unlock(&h->manager->lock);
	atomic_fetch_sub_explicit(&h->manager->heaps, 1, memory_order_relaxed);
	hand_over(&h->manager->past_refills, &h->refills);
	hand_over(&h->manager->past_received, &h->remote_received);
	hand_over(&h->manager->past_adopted, &h->adopted);
	late = atomic_exchange_explicit(&h->remote, QY_REMOTE_CLOSED, memory_order_acq_rel);
	while (late != NULL) {
		void *p = late;

		late = qy_next_object(p);
		free_here(h, p);
	}
}
