/* SPDX-License-Identifier: MIT */
/* Which segments are emptied, and whether there is room for what is in them. Counting and choosing are done some segments
 * at a time, for nobody may wait long for the lock, and a call that has microseconds goes on where the last one
 * stopped. What has changed since is no harm: an object that finds no room stays where it is. */
#include <string.h>

#include "lib/lanes/lanes.h"

#define FULL_PERCENT 90 /* of a segment: fuller ones stay as they are */
#define GAINED 256      /* a plan that frees a smaller part of the segments, less those that it took, gained little */
#define COUNTED 2       /* segments that are counted, */
#define CHOSEN 2        /* or looked at as candidates, at once: some 10 us each, where their headers are in no cache */
#define FEW 64          /* segments, of which one is so much that it is emptied in part, */
#define PARTLY_PAGES 4  /* when so many pages of it become free */
#define BORROW_PAGES (QY_SEGMENT_PAGES / 4) /* that a victim may lack, */
#define BORROW_SHARE 4                      /* and victims for each segment that is taken for such */

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

/* (There may be none that has a segment: then it is the first.) */
static unsigned home_after(const quarry_lanes *l, unsigned home)
{
	for (unsigned i = 1; i <= l->homes; i++)
		if (atomic_load_explicit(&l->home[(home + i) % l->homes]->segments, memory_order_relaxed) > 0)
			return (home + i) % l->homes;
	return 0;
}

bool qy_plan_last(const quarry_lanes *l)
{
	return home_after(l, l->plan.home) <= l->plan.home;
}

/* All at once, however many they are: none of them is looked at. */
static void forget_candidates(struct qy_plan *p)
{
	for (int i = 0; i < QY_BUCKETS; i++) {
		struct qy_link *from = &p->bucket[i], *to = &p->forgotten;

		if (qy_list_empty(from))
			continue;
		from->next->prev = to->prev;
		to->prev->next = from->next;
		from->prev->next = to;
		to->prev = from->prev;
		qy_list_init(from);
	}
}

void qy_plan_begin(quarry_lanes *l, uint64_t now)
{
	struct qy_plan *p = &l->plan;

	qy_hold(&l->lock);
	forget_candidates(p);
	if (p->victim != NULL) /* of another home, or emptied in part: it is counted like the others */
		qy_undrain(l, p->victim);
	p->victim = NULL;
	p->next = l->segments.next;
	qy_let_go(&l->lock);
	memset(p->room, 0, sizeof(p->room));
	p->pages = p->owned = p->freed = p->borrowed = 0;
	p->live = p->held = p->moved = 0;
	p->recalled = false;
	p->home = home_after(l, p->home);
	p->partly = 0;
	p->begun = now;
	p->state = QY_PLAN_COUNTING;
}

bool qy_plan_gained(const quarry_lanes *l)
{
	uint64_t was = l->plan.held / QY_SEGMENT_SIZE,
		 is = atomic_load_explicit(&l->home[l->plan.home]->segments, memory_order_relaxed);

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
	qy_list_remove(&g->order); /* it may be a forgotten one */
	if (!owned)
		qy_list_push_back(&p->bucket[live * QY_BUCKETS / QY_SEGMENT_SIZE], &g->order);
}

bool qy_plan_count(quarry_lanes *l)
{
	struct qy_plan *p = &l->plan;

	qy_hold(&l->lock);
	for (int n = 0; n < COUNTED && p->next != &l->segments; n++) {
		struct qy_segment *g = qy_container(p->next, struct qy_segment, link);

		p->next = p->next->next;
		if (!g->draining && g->free != UINT32_MAX && g->home == p->home)
			count(p, g);
	}
	if (p->next == &l->segments)
		p->state = QY_PLAN_MADE;
	qy_let_go(&l->lock);
	return p->state == QY_PLAN_MADE;
}

/* What it has of the room is none for its own objects. */
static void own_room_out(uint32_t *room, const struct qy_segment *g)
{
	for (unsigned i = 0; i < QY_SEGMENT_PAGES; i++) {
		const struct qy_span *s = &g->span[i];

		if (qy_is_span(s) && s->class < QY_CLASSES_MAX)
			room[s->class] -= (uint32_t)qy_min(room[s->class], s->count - qy_live_of(s));
	}
}

/* Pages of its spans whose objects have room in others, in the order in which they are emptied. Whole spans alone: so no
 * object goes back to where another came from. */
static unsigned emptied_pages(const struct qy_segment *g, const uint32_t *room_of_all)
{
	uint32_t room[QY_CLASSES_MAX];
	unsigned pages = 0;

	memcpy(room, room_of_all, sizeof(room));
	own_room_out(room, g);
	for (unsigned i = 0; i < QY_SEGMENT_PAGES; i++) {
		const struct qy_span *s = &g->span[i];

		if (!qy_is_span(s) || s->class >= QY_CLASSES_MAX || qy_live_of(s) > room[s->class])
			continue;
		room[s->class] -= qy_live_of(s);
		pages += s->pages;
	}
	return pages;
}

/* Under l->lock: room in the plan's home, in spans that nobody owns. */
static void count_room(quarry_lanes *l, uint32_t *room)
{
	for (struct qy_link *k = l->segments.next; k != &l->segments; k = k->next) {
		const struct qy_segment *g = qy_container(k, struct qy_segment, link);

		if (g->home != l->plan.home)
			continue;
		for (unsigned i = 0; i < QY_SEGMENT_PAGES && !g->draining; i++)
			if (qy_is_span(&g->span[i]) && g->span[i].class < QY_CLASSES_MAX &&
			    atomic_load_explicit(&g->span[i].place, memory_order_relaxed) != QY_SPAN_OWNED)
				room[g->span[i].class] += g->span[i].count - qy_live_of(&g->span[i]);
	}
}

/* Room is of classes: with the last of one gone no victim that has such an object would go, whatever others have. So pages
 * that few victims lack may come of a new segment. */
static bool borrow(struct qy_plan *plan, uint32_t lacking)
{
	if (lacking > BORROW_PAGES || plan->borrowed * BORROW_SHARE > plan->freed)
		return false;
	plan->borrowed++;
	return true;
}

/* Whether its objects have room in the others: then that room is theirs. */
static bool reserve(struct qy_plan *plan, const struct qy_segment *g, size_t most, bool may_borrow)
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
	if (needed > pages) {
		if (!may_borrow || !borrow(plan, needed - pages))
			return false;
		pages += QY_SEGMENT_PAGES;
	}
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

static void take(struct qy_plan *p, struct qy_segment *g)
{
	drain(g);
	p->victim = g;
	p->page = p->object = 0;
}

bool qy_plan_partly(quarry_lanes *l)
{
	struct qy_plan *p = &l->plan;
	struct qy_segment *best = NULL;
	unsigned most = PARTLY_PAGES, pages;
	uint32_t segments = (uint32_t)atomic_load_explicit(&l->segment_count, memory_order_relaxed);

	/* As often as that comes to something, and not for ever beside others who make and free. */
	if (p->victim != NULL || segments > FEW || p->partly >= segments / 4 + 1 || (p->partly > 0 && p->moved == p->moved_before))
		return false;
	memset(p->room, 0, sizeof(p->room));
	qy_hold(&l->lock);
	count_room(l, p->room);
	for (struct qy_link *k = l->segments.next; k != &l->segments; k = k->next) {
		struct qy_segment *g = qy_container(k, struct qy_segment, link);

		if (g->home != p->home || g->draining || g->free == UINT32_MAX || live_bytes(g) == SIZE_MAX)
			continue;
		pages = emptied_pages(g, p->room);
		if (pages < most)
			continue;
		most = pages;
		best = g;
	}
	if (best != NULL) {
		qy_list_remove(&best->order); /* it may be a candidate still */
		take(p, best);
		own_room_out(p->room, best);
		p->partly++;
		p->moved_before = p->moved;
		p->state = QY_PLAN_MADE;
	}
	qy_let_go(&l->lock);
	return best != NULL;
}

bool qy_plan_choose(quarry_lanes *l, size_t most, bool may_borrow)
{
	struct qy_plan *p = &l->plan;
	unsigned looked = 0;
	int i = 0;

	qy_hold(&l->lock);
	for (; p->victim == NULL && looked < CHOSEN && i < QY_BUCKETS; i++)
		while (p->victim == NULL && looked < CHOSEN && !qy_list_empty(&p->bucket[i])) {
			struct qy_segment *g = qy_container(p->bucket[i].next, struct qy_segment, order);

			looked++;
			qy_list_remove(&g->order);
			if (live_bytes(g) == SIZE_MAX || !reserve(p, g, most, may_borrow))
				continue;
			take(p, g);
		}
	qy_let_go(&l->lock);
	if (p->victim == NULL && i == QY_BUCKETS && looked < CHOSEN)
		p->state = QY_PLAN_NONE;
	return p->victim != NULL || p->state == QY_PLAN_NONE;
}
