/* SPDX-License-Identifier: MIT */
/* A slab: a block divided into objects of one size class. Its record stands outside, in the window's slab side, one
 * cache line per unit, found from any object by arithmetic.
 *
 * A slab belongs to one heap (what one thread, or nobody, holds of a manager). Only the owner frees into it, with no
 * lock and no atomic; others send objects home through the heap's remote list.
 *
 * What the owner frees goes where `to` says: onto the class's free list of the owner's cache, where the next malloc
 * finds it, or onto the slab's own, `local`, when the cache's list has enough (lib/cache/freelist.h). The two are laid
 * out alike, so that a free does not have to know.
 *
 * Free objects of a slab are in `local`, or in a thread cache's list (those count as live), or were never carved, or
 * are parked: they stand, with a byte or more, in pages that were given back to the kernel while the slab had others
 * that live (sparse.c), and are linked again when they are wanted (qy_slab_unpark).
 * Invariants, for the owner:
 *   not full: countdown == live objects, `local` holds linked - countdown objects, and carved - linked are parked: all
 *             those that reach into a page whose bit is set in `gone`. While there is such a bit, carved == capacity;
 *   full:     linked == carved == capacity, nothing is free, countdown == 1: the first free into it leaves the fast path, and
 *             the slab goes to the end of its heap's queue, not the front (else each malloc would take one object and
 *             go slow);
 *   mixed:    objects of other classes stand in it (mixed.h).
 * So the fast path of free has one counter and one test for "something is to be done", whichever list it is.
 *
 * The viewer looks at kind, cls, state and countdown while the owner goes on: they are written with qy_publish. */
#ifndef QUARRY_MANAGER_SLAB_H
#define QUARRY_MANAGER_SLAB_H

#include "lib/base/place.h"
#include "lib/manager/class.h"

struct qy_heap;

enum qy_slab_kind { QY_SLAB_NONE, QY_SLAB_HEAD, QY_SLAB_INNER };
enum qy_slab_state { QY_SLAB_ACTIVE, QY_SLAB_QUEUED, QY_SLAB_FULL, QY_SLAB_SPARE, QY_SLAB_MIXED };

/* A list that objects are freed onto: one of a cache's (lib/cache/freelist.h), or a slab's own, which is laid out alike
 * as far as `room`. */
struct __attribute__((may_alias)) qy_freelist {
	void *head;       /* linked by their first words */
	uint32_t room;    /* frees until something is to be done */
	/* Of a cache's: */
	uint16_t most;    /* objects that are enough: room is what is left of that */
	uint8_t was_full; /* since objects were last fetched from the heap */
};

/* One line. What a free touches comes first; inner units have the first two fields, too. */
struct qy_slab {
	_Alignas(1 << QY_SLAB_SIDE_SHIFT)
	_Atomic(uintptr_t) owner;       /* the token of the thread that may free here with no lock; 0 none */
	struct qy_freelist *to;             /* where that thread's frees go */
	void *local;                    /* free objects (as in struct qy_freelist), */
	uint32_t countdown;             /* frees until something is to be done */
	uint32_t linked;                /* objects live or in local */
	_Atomic(struct qy_heap *) heap; /* whose it is */
	uint32_t next, prev;            /* in the heap's queue of the class, or its list of full slabs: qy_slab_number */
	uint8_t kind;                   /* enum qy_slab_kind */
	uint8_t cls;
	uint8_t state;                  /* enum qy_slab_state */
	uint8_t inner;                  /* QY_SLAB_INNER: units back to the head */
	uint8_t zero;                   /* what was never carved reads as zero */
	/* Of slabs that nobody holds, and of those that their owner looks at to give them up (sparse.c, heap.c). */
	uint8_t epoch;                  /* when it was last looked at */
	uint16_t carved;                /* objects ever linked */
	uint16_t gone;                  /* pages of this unit that were given back; inner units have their own */
	uint16_t seen;                  /* its live objects at that look, and one; 0: never */
	bool thinned;                   /* it was as it is now when its pages were given back */
};

_Static_assert(sizeof(struct qy_slab) == 1 << QY_SLAB_SIDE_SHIFT, "a slab's record is one cache line");
_Static_assert(offsetof(struct qy_slab, countdown) - offsetof(struct qy_slab, local) == offsetof(struct qy_freelist, room),
	       "a slab's own list is laid out as any");

QY_INLINE struct qy_slab *qy_slab_at(uintptr_t offset)
{
	return (struct qy_slab *)(void *)(qy_slab_side + (offset >> QY_UNIT_SHIFT << QY_SLAB_SIDE_SHIFT));
}

/* A slab by number, which takes half the room that an address does; 0 is none. */
QY_INLINE uint32_t qy_slab_number(const struct qy_slab *s)
{
	return s == NULL ? 0 : (uint32_t)(((uintptr_t)s - (uintptr_t)qy_slab_side) >> QY_SLAB_SIDE_SHIFT) + 1;
}

QY_INLINE struct qy_slab *qy_slab_numbered(uint32_t number)
{
	return number == 0 ? NULL
			   : (struct qy_slab *)(void *)(qy_slab_side + ((uintptr_t)(number - 1) << QY_SLAB_SIDE_SHIFT));
}

/* A slab's own list. */
QY_INLINE struct qy_freelist *qy_slab_list(struct qy_slab *s)
{
	return (struct qy_freelist *)(void *)&s->local;
}

/* The first byte of the memory of a slab (or of a unit). */
QY_INLINE char *qy_slab_memory(const struct qy_slab *s)
{
	return qy_window_at((uintptr_t)((const char *)s - qy_slab_side) >> QY_SLAB_SIDE_SHIFT << QY_UNIT_SHIFT);
}

QY_INLINE void *qy_next_object(void *p)
{
	return *(void **)p;
}

QY_INLINE void qy_link_object(void *p, void *next)
{
	*(void **)p = next;
}

/* Put a free object onto a list, by its owner. True when `room` ran out. The order of the two stores matters to a child
 * forked in between: a list must never lead through an object not yet linked. */
QY_INLINE bool qy_freelist_push(struct qy_freelist *list, void *p)
{
	qy_link_object(p, list->head);
	__atomic_store_n(&list->head, p, __ATOMIC_RELEASE);
	return qy_count_down(&list->room);
}

/* Whether one of the first two objects was freed twice, in a row or with one other in between, and leads to itself. */
QY_INLINE bool qy_leads_round(const void *list)
{
	const void *next = qy_next_object((void *)list), *third;

	if (next == NULL)
		return false;
	third = qy_next_object((void *)next);
	return next == list || third == list || third == next;
}

/* All that was freed; NULL when there is nothing, or when it leads round. */
QY_INLINE void *qy_freelist_take(struct qy_freelist *l)
{
	void *list = l->head;

	if (list == NULL || QY_UNLIKELY(qy_leads_round(list)))
		return NULL;
	l->head = NULL;
	l->room = l->most;
	return list;
}

/* Put a free object into its slab, by the owner. True when countdown ran out: qy_heap_event() is due. */
QY_INLINE bool qy_slab_push(struct qy_slab *s, void *p)
{
	return qy_freelist_push(qy_slab_list(s), p);
}

/* Have the owner's frees go onto that list from now on. By the owner, or whoever gives it the slab. */
QY_INLINE void qy_slab_direct(struct qy_slab *s, struct qy_freelist *to)
{
	for (uint32_t i = 0; i < qy_classes[s->cls].units; i++)
		s[i].to = to;
}

/* All that was freed into the slab, by the owner; it counts as live from then on. NULL when there is nothing, or when
 * the count shows that something was freed twice (qy_heap_refill sees to that). A child forked in between loses at
 * most the list. */
QY_INLINE void *qy_slab_take(struct qy_slab *s)
{
	void *list = s->local;

	/* (An object that was freed twice in a row is its own next one.) */
	if (list == NULL || QY_UNLIKELY(s->countdown > s->linked || qy_next_object(list) == list))
		return NULL;
	s->local = NULL;
	qy_publish(s->countdown, s->linked);
	return list;
}

/* Link the next objects that were never used, a page's worth at most: what is not asked for is not touched. There must
 * be some (carved < capacity). They count as live. By the owner. */
void *qy_slab_carve(struct qy_slab *s);

/* Link parked objects again, those of a page or of one object's pages. There must be some (linked < carved). By the
 * owner. (sparse.c) */
void qy_slab_unpark(struct qy_slab *s);

/* The pages of the slab that were given back, a bit for each. */
QY_INLINE uint64_t qy_slab_gone(const struct qy_slab *s)
{
	uint64_t gone = 0;

	for (uint32_t i = 0; i < qy_classes[s->cls].units; i++)
		gone |= (uint64_t)s[i].gone << (i * (QY_UNIT >> QY_PAGE_SHIFT));
	return gone;
}

/* The head slab that p is in, when p is where an object of a slab stands; else NULL. Reads only what is constant while
 * the slab lives, so anybody may ask. */
static inline struct qy_slab *qy_slab_of(const void *p)
{
	uintptr_t offset = qy_window_offset(p);
	const struct qy_class *c;
	struct qy_slab *s;
	uint64_t in;

	if (offset >= qy_window_size)
		return NULL;
	s = qy_slab_at(offset);
	if (s->kind == QY_SLAB_INNER)
		s -= s->inner;
	if (s->kind != QY_SLAB_HEAD)
		return NULL;
	/* (It may become mixed, whose class has objects where those of all others stand: mixed.h.) */
	c = &qy_classes[qy_peek(s->cls)];
	in = (uint64_t)((const char *)p - qy_slab_memory(s));
	if ((in * c->magic >> 40) * c->size != in || in >= (uint64_t)c->capacity * c->size)
		return NULL;
	return s;
}

#endif
