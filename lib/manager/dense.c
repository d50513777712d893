/* SPDX-License-Identifier: MIT */
/* Objects for a program that moves its objects to where they stand closely: one at a time out of the slabs that are to be
 * filled (density.h), past the thread's cache. What is to be emptied is behind those in the queue, also for all else that
 * the heap takes. */
#include "lib/manager/density.h"
#include "lib/manager/heap.h"
#include "lib/manager/snapshot.h"

#define PARTED_MOST 4096 /* slabs of a queue looked at, for a look at how full all are */
#define ORPHANS_LOOKS 64 /* the same, with the manager's lock held */

/* ---- an object of a slab ---- */

/* What is carved stays in the slab, as if it had been freed into it. */
static void carve_some(struct qy_slab *s)
{
	uint32_t before = s->carved;

	s->local = qy_slab_carve(s);
	qy_publish(s->countdown, s->countdown - (s->carved - before));
}

/* Whether the first object of the slab's list is one. (A list that was written over leads anywhere.) */
static bool begins_well(const struct qy_slab *s)
{
	const struct qy_class *c = &qy_classes[s->cls];
	uint64_t in = (uint64_t)((const char *)s->local - qy_slab_memory(s));

	return s->countdown < s->linked && in < (uint64_t)s->carved * c->size && (in * c->magic >> 40) * c->size == in &&
	       qy_next_object(s->local) != s->local;
}

/* NULL where there is none after all, or with ENOMEM. */
static void *take_one(struct qy_slab *s)
{
	void *p;

	if (s->local == NULL && s->carved < qy_classes[s->cls].capacity)
		carve_some(s);
	else if (s->local == NULL && s->linked < s->carved && !qy_heap_unpark(s))
		return NULL;
	if (s->local != NULL && QY_UNLIKELY(!begins_well(s)))
		qy_heap_repair(s);
	p = s->local;
	if (p == NULL)
		return NULL;
	/* In this order: a child forked in between has an object that nobody has. */
	s->local = qy_next_object(p);
	qy_publish(s->countdown, s->countdown + 1);
	qy_link_object(p, NULL);
	qy_snap_refill(p);
	return p;
}

/* ---- which slab ---- */

/* Those to be filled come to the front of the queue; where there are none, the fullest of the others. */
static void part_queue(struct qy_heap *h, struct qy_slab_list *queue)
{
	struct qy_slab_list fill = { NULL, NULL, 0 };
	struct qy_slab *s, *fullest = NULL;

	for (uint32_t n = (uint32_t)qy_min(queue->count, PARTED_MOST); n > 0; n--) {
		s = queue->first;
		qy_slab_list_remove(queue, s);
		qy_slab_list_push_back(qy_density_is_to_go(h->manager, s) ? queue : &fill, s);
		if (fullest == NULL || s->countdown > fullest->countdown)
			fullest = s;
	}
	if (fill.first == NULL && fullest != NULL) {
		qy_slab_list_remove(queue, fullest);
		qy_slab_list_push_front(queue, fullest);
	}
	while ((s = fill.last) != NULL) {
		qy_slab_list_remove(&fill, s);
		qy_slab_list_push_front(queue, s);
	}
}

/* One to be filled of those that nobody holds. */
static struct qy_slab *adopt(struct qy_heap *h, unsigned cls, uint8_t round)
{
	struct qy_heap *orphans = &h->manager->orphans;
	struct qy_slab_list *queue = &orphans->queue[cls];
	struct qy_slab *found = NULL;

	if (qy_peek(queue->first) == NULL || h->dense_none[cls] == round)
		return NULL;
	qy_lock(&h->manager->lock);
	for (uint32_t n = (uint32_t)qy_min(queue->count, ORPHANS_LOOKS); n > 0 && found == NULL; n--) {
		struct qy_slab *s = queue->first;

		if (qy_density_is_to_go(h->manager, s)) {
			qy_slab_list_remove(queue, s);
			qy_slab_list_push_back(queue, s);
		} else {
			qy_heap_take_over(h, orphans, s);
			found = s;
		}
	}
	qy_unlock(&h->manager->lock);
	if (found == NULL) {
		h->dense_none[cls] = round;
	} else {
		qy_slab_list_remove(&h->queue[cls], found);
		qy_slab_list_push_front(&h->queue[cls], found);
	}
	return found;
}

/* One with room; NULL when the heap has none. */
static struct qy_slab *choose(struct qy_heap *h, unsigned cls)
{
	struct qy_slab_list *queue = &h->queue[cls];
	struct qy_slab *active = h->active[cls], *s;
	uint8_t round = (uint8_t)qy_density_round();

	if (h->dense_parted[cls] != round) {
		h->dense_parted[cls] = round;
		part_queue(h, queue);
	}
	if (queue->first != NULL && !qy_density_is_to_go(h->manager, queue->first))
		return queue->first;
	s = adopt(h, cls, round);
	if (s != NULL)
		return s;
	return active != NULL && qy_slab_has_room(active) ? active : queue->first;
}

void *qy_heap_take_dense(struct qy_heap *h, unsigned cls)
{
	struct qy_slab *s;
	void *p, *list;
	bool zero;

	while ((s = choose(h, cls)) != NULL) {
		p = take_one(s);
		if (s->state == QY_SLAB_QUEUED && !qy_slab_has_room(s)) {
			qy_slab_list_remove(&h->queue[cls], s);
			qy_heap_make_full(h, s);
		}
		if (p != NULL)
			return p;
		/* (Its list was mended, and nothing was left; or its pages cannot come back.) */
		if (qy_slab_has_room(s))
			break;
	}
	list = qy_heap_refill(h, cls, &zero);
	if (list == NULL)
		return NULL;
	p = list;
	list = qy_next_object(p);
	qy_link_object(p, NULL);
	qy_snap_refill(p);
	qy_heap_put_back(h, list);
	return p;
}
