/* SPDX-License-Identifier: MIT */
/* Which segments are emptied, and whether there is room for what is in them. Counting and choosing are done some segments
 * at a time, for nobody may wait long for the lock, and a call that has microseconds goes on where the last one
 * stopped. What has changed since is no harm: an object that finds no room stays where it is. */
#include <string.h>

#include "lib/lanes/lanes.h"

#define FULL_PERCENT 90 /* of a segment: fuller ones stay as they are */
#define GAINED 64       /* a plan that frees a smaller part of the segments, less those that it took, gained little */
#define COUNTED 8       /* segments that are counted, */
#define CHOSEN 8        /* or looked at as candidates, at once */

/* The bytes of its live objects; SIZE_MAX: somebody takes from it. */
static size_t live_bytes(const struct qy_segment *g)
{
	size_t live = 0;

	for (unsigned i = 0; i < QY_SEGMENT_PAGES; i++) {
		const struct qy_span *s = &g->span[i];

		if (!qy_is_span(s))
			continue;
		if (atomic_load_explicit(&s->place, memory_order_relaxed) == QY_SPAN_OWNED)
			return SIZE_MAX;
		live += (size_t)qy_live_of(s) * s->size;
	}
	return live;
}

void qy_plan_begin(quarry_lanes *l, uint64_t now)
{
	struct qy_plan *p = &l->plan;

	pthread_mutex_lock(&l->lock);
	for (int i = 0; i < QY_BUCKETS; i++)
		while (!qy_list_empty(&p->bucket[i]))
			qy_list_remove(p->bucket[i].next);
	p->next = l->segments.next;
	pthread_mutex_unlock(&l->lock);
	memset(p->room, 0, sizeof(p->room));
	p->pages = p->owned = p->freed = 0;
	p->live = p->held = p->moved = 0;
	p->recalled = false;
	p->begun = now;
	p->state = QY_PLAN_COUNTING;
}

bool qy_plan_gained(const quarry_lanes *l)
{
	uint64_t was = l->plan.held / QY_SEGMENT_SIZE, is = atomic_load_explicit(&l->segment_count, memory_order_relaxed);

	return is + was / GAINED < was;
}

static void count(struct qy_plan *p, struct qy_segment *g)
{
	size_t live = 0;
	bool owned = false;

	p->held += QY_SEGMENT_SIZE;
	p->pages += (uint32_t)__builtin_popcount(g->free);
	for (unsigned i = 0; i < QY_SEGMENT_PAGES; i++) {
		const struct qy_span *s = &g->span[i];

		if (!qy_is_span(s))
			continue;
		live += (size_t)qy_live_of(s) * s->size;
		if (atomic_load_explicit(&s->place, memory_order_relaxed) == QY_SPAN_OWNED)
			owned = true;
		else if (s->class < QY_CLASSES_MAX)
			p->room[s->class] += s->count - qy_live_of(s);
	}
	p->live += live;
	if (live >= QY_SEGMENT_SIZE / 100 * FULL_PERCENT)
		return;
	p->owned += owned;
	if (!owned)
		qy_list_push_back(&p->bucket[live * QY_BUCKETS / QY_SEGMENT_SIZE], &g->order);
}

bool qy_plan_count(quarry_lanes *l)
{
	struct qy_plan *p = &l->plan;

	pthread_mutex_lock(&l->lock);
	for (int n = 0; n < COUNTED && p->next != &l->segments; n++) {
		struct qy_segment *g = qy_container(p->next, struct qy_segment, link);

		p->next = p->next->next;
		if (!g->draining && g->free != UINT32_MAX)
			count(p, g);
	}
	if (p->next == &l->segments)
		p->state = QY_PLAN_MADE;
	pthread_mutex_unlock(&l->lock);
	return p->state == QY_PLAN_MADE;
}

/* Whether its objects have room in the others: then that room is theirs. */
static bool reserve(struct qy_plan *plan, const struct qy_segment *g, size_t most)
{
	struct { uint32_t room, live; } own[QY_CLASSES_MAX] = { { 0, 0 } };
	uint32_t own_pages = (uint32_t)__builtin_popcount(g->free), needed = 0;
	uint32_t pages = plan->pages - (uint32_t)qy_min(plan->pages, own_pages);

	for (unsigned i = 0; i < QY_SEGMENT_PAGES; i++) {
		const struct qy_span *s = &g->span[i];

		if (!qy_is_span(s))
			continue;
		if (s->size > most)
			return false;
		if (s->class == QY_CLASS_WHOLE) {
			needed += qy_live_of(s) * s->pages;
			continue;
		}
		own[s->class].live += qy_live_of(s);
		own[s->class].room += s->count - qy_live_of(s);
	}
	for (unsigned class = 0; class < qy_class_count(); class++) {
		uint32_t room = plan->room[class] - (uint32_t)qy_min(own[class].room, plan->room[class]);

		if (own[class].live > room)
			needed += qy_pages_for(class, own[class].live - room);
	}
	if (needed > pages)
		return false;
	plan->pages = pages - needed;
	for (unsigned class = 0; class < qy_class_count(); class++)
		plan->room[class] -= (uint32_t)qy_min(own[class].room + own[class].live, plan->room[class]);
	return true;
}

/* Nothing is taken from it any more. */
static void drain(struct qy_segment *g)
{
	g->draining = true;
	for (unsigned i = 0; i < QY_SEGMENT_PAGES; i++) {
		struct qy_span *s = &g->span[i];
		uint8_t place = atomic_load(&s->place);

		if (place == QY_SPAN_LISTED)
			qy_list_remove(&s->link);
		if (place == QY_SPAN_LISTED || place == QY_SPAN_FULL)
			atomic_store(&s->place, QY_SPAN_DRAINING);
	}
}

void qy_undrain(quarry_lanes *l, struct qy_segment *g)
{
	g->draining = false;
	qy_list_remove(&g->order);
	for (unsigned i = 0; i < QY_SEGMENT_PAGES; i++)
		if (atomic_load(&g->span[i].place) == QY_SPAN_DRAINING)
			qy_span_settle(l, &g->span[i]);
	if (g->free == UINT32_MAX)
		qy_list_push_back(&l->spares, &g->order);
}

bool qy_plan_choose(quarry_lanes *l, size_t most)
{
	struct qy_plan *p = &l->plan;
	unsigned looked = 0;
	int i = 0;

	pthread_mutex_lock(&l->lock);
	for (; p->victim == NULL && looked < CHOSEN && i < QY_BUCKETS; i++)
		while (p->victim == NULL && looked < CHOSEN && !qy_list_empty(&p->bucket[i])) {
			struct qy_segment *g = qy_container(p->bucket[i].next, struct qy_segment, order);

			looked++;
			qy_list_remove(&g->order);
			if (live_bytes(g) == SIZE_MAX || !reserve(p, g, most))
				continue;
			drain(g);
			p->victim = g;
			p->page = p->object = 0;
		}
	pthread_mutex_unlock(&l->lock);
	if (p->victim == NULL && i == QY_BUCKETS && looked < CHOSEN)
		p->state = QY_PLAN_NONE;
	return p->victim != NULL || p->state == QY_PLAN_NONE;
}
