/* SPDX-License-Identifier: MIT */
/* A heap: the slabs that one thread holds of one manager (or, as a manager's `orphans`, that nobody holds). The thread
 * cache in front of it takes lists of objects from it.
 *
 * Everything but `remote` is the owner's alone; for orphans the owner is whoever has the manager's lock. `remote` is
 * where others leave freed objects, in batches, by one compare-and-swap. A remote list can be closed, when the heap
 * is given up: a sender then looks again whose the slab is.
 *
 * The owner takes the remote list as a whole, and files the objects in it, which are mail until then, in steps: there
 * may be millions, each a cache miss, and the owner is somebody's malloc, or has a lock that others wait for.
 *
 * Heaps are type-stable: their memory never becomes anything else, so a late sender finds a list, open or closed. An
 * object that arrives at a heap that no longer has its slab is sent on. */
#ifndef QUARRY_MANAGER_HEAP_H
#define QUARRY_MANAGER_HEAP_H

#include "lib/manager/slab.h"

struct qy_manager;

#define QY_HEAP_SPARES 4

struct qy_slab_list {
	struct qy_slab *first, *last; /* (whether there is a first one is looked at without the lock, too) */
	uint32_t count;
};

struct qy_heap {
	struct qy_manager *manager;
	uintptr_t owner;        /* what is written into slabs as their owner */
	struct qy_freelist *freed; /* one for each class, of the cache in front of it; NULL: there is none */
	struct qy_slab *active[QY_CLASSES];    /* carved from; not in a queue */
	struct qy_slab_list queue[QY_CLASSES]; /* slabs with room, those that got it last at the end */
	struct qy_slab_list full;
	struct qy_slab *spare[QY_HEAP_SPARES]; /* empty slabs of one unit, kept for any class */
	unsigned spares;
	/* The look for slabs that were left alone, by the owner (qy_heap_shed), or at orphans (sparse.c): where it goes
	 * on, and its number. */
	uint8_t shed_class, shed_epoch;
	uint8_t spill_class; /* where the look for slabs that others may use goes on */
	/* Of the looks for the fullest slabs of a class (dense.c): the number of the one by which the queue was parted, and
	 * the one in which the manager's orphans had none. */
	uint8_t dense_parted[QY_CLASSES], dense_none[QY_CLASSES];
	uint32_t shed_round; /* the last qy_reclaim_round for which it was done (lib/cache) */
	/* Of what others sent: the list that was taken and is not filed yet, what was wrong with it so far, and how
	 * many lists were taken. */
	void *mail;
	uint32_t mail_mistakes, mail_lists;
	uint32_t got; /* objects of the list that was refilled last; 0: it is not known */
	/* Counters: the owner writes, anybody reads. */
	qy_counter refills, remote_received, adopted, slabs;
	/* Written by other threads: a line of its own. */
	_Alignas(QY_CACHE_LINE) _Atomic(void *) remote;
};

static inline void qy_slab_list_push_back(struct qy_slab_list *list, struct qy_slab *s)
{
	list->count++;
	s->next = 0;
	s->prev = qy_slab_number(list->last);
	if (list->last != NULL)
		list->last->next = qy_slab_number(s);
	else
		qy_publish(list->first, s);
	list->last = s;
}

static inline void qy_slab_list_push_front(struct qy_slab_list *list, struct qy_slab *s)
{
	list->count++;
	s->prev = 0;
	s->next = qy_slab_number(list->first);
	if (list->first != NULL)
		list->first->prev = qy_slab_number(s);
	else
		list->last = s;
	qy_publish(list->first, s);
}

static inline void qy_slab_list_remove(struct qy_slab_list *list, struct qy_slab *s)
{
	struct qy_slab *next = qy_slab_numbered(s->next), *prev = qy_slab_numbered(s->prev);

	list->count--;
	if (prev != NULL)
		prev->next = s->next;
	else
		qy_publish(list->first, next);
	if (next != NULL)
		next->prev = s->prev;
	else
		list->last = prev;
	s->next = s->prev = 0;
}

#define QY_REMOTE_CLOSED ((void *)1)

/* Make a heap of zeroed memory usable. */
void qy_heap_open(struct qy_heap *h, struct qy_manager *m, uintptr_t owner);

/* The cache's free list of a class, or else the slab's own. */
QY_INLINE struct qy_freelist *qy_heap_list_for(const struct qy_heap *h, struct qy_slab *s, unsigned cls)
{
	return h->freed == NULL ? qy_slab_list(s) : &h->freed[cls];
}

/* A slab of that class is this heap's. By its owner, or whoever has the manager's lock. */
QY_INLINE void qy_heap_own(const struct qy_heap *h, struct qy_slab *s, unsigned cls)
{
	struct qy_freelist *to = qy_heap_list_for(h, s, cls);

	for (uint32_t i = 0; i < qy_classes[cls].units; i++) {
		s[i].to = to;
		atomic_store_explicit(&s[i].owner, h->owner, memory_order_release);
	}
}

/* Forget all slabs: their memory is being taken away, or was given up. Nobody uses the heap but late senders, and its
 * counters may be looked at. */
void qy_heap_clear(struct qy_heap *h);

/* A list of free objects of class cls (or larger ones, from mixed slabs: mixed.h), linked by their first words,
 * NULL-terminated; NULL with ENOMEM. *zero is set when all of them read as zero but for the link. By the owner. */
void *qy_heap_refill(struct qy_heap *h, unsigned cls, bool *zero);

/* One object of class cls, from one of the fullest slabs (dense.c). NULL with ENOMEM. By the owner. */
void *qy_heap_take_dense(struct qy_heap *h, unsigned cls);

/* What is due when a slab's countdown ran out. By the owner. */
void qy_heap_event(struct qy_slab *s);

/* A full slab into which something was freed, and nobody came to qy_heap_event. By the owner. */
void qy_heap_note_due(struct qy_heap *h);

/* Send a chain of objects of one slab-owning heap home. Reads each object's owner anew when the heap is closed. */
void qy_heap_send(struct qy_heap *h, void *first, void *last);

#define QY_MAIL_STEP 256         /* objects filed at a time, and the run that the last of them is in: some 40 us */
#define QY_MAIL_STEPS 16         /* before memory is taken instead: the smallest objects that fill a slab are as many */
#define QY_MAIL_MISTAKES_MAX 64  /* in one list, before the rest is given up */

/* Take in what others sent, all that is there. By the owner. */
void qy_heap_receive(struct qy_heap *h);

/* The same for so many objects, and those in the same unit as the last of them: a run of one unit is filed whole. */
void qy_heap_receive_some(struct qy_heap *h, uint32_t at_most);

/* The same where the cache in front is about to use it: what it has room for goes onto its lists. */
void qy_heap_receive_for_use(struct qy_heap *h, uint32_t at_most);

/* Whether there is something to be received. */
QY_INLINE bool qy_heap_has_mail(struct qy_heap *h)
{
	void *r = atomic_load_explicit(&h->remote, memory_order_relaxed);

	return (r != NULL && r != QY_REMOTE_CLOSED) || qy_peek(h->mail) != NULL;
}

/* Take the list that others left, when the one before is filed. False when there is none. By the owner. */
bool qy_heap_take_mail(struct qy_heap *h);

/* What is behind p in a list that came from others, where p may be no object at all: NULL when its link cannot be
 * read. */
void *qy_heap_next_mail(const void *p);

/* Put a list of free objects of any slabs of this heap back into them. By the owner. */
void qy_heap_put_back(struct qy_heap *h, void *list);

/* A slab of `from`, full or with room, becomes this heap's. By the owner of both. */
void qy_heap_take_over(struct qy_heap *h, struct qy_heap *from, struct qy_slab *s);

/* Return empty slabs kept as spares. By the owner. */
void qy_heap_trim(struct qy_heap *h);

/* The same, and active slabs in which nothing is live. By the owner, whose lists were put back. */
void qy_heap_tidy(struct qy_heap *h);

/* Give slabs with room that did not change since the last round to the manager's orphans: there, others find them, and
 * pages of theirs in which nothing lives go back (sparse.c). Looks at so many of them at most; true when the round is
 * through. By the owner. */
bool qy_heap_shed(struct qy_heap *h, unsigned at_most);

/* What takes long of giving up, until that time (CLOCK_MONOTONIC; UINT64_MAX: there is time): mail is filed, and slabs
 * that are not in use go to the manager's orphans. True when all is done; the heap is a sound one either way. By the
 * owner, whose lists were put back. */
bool qy_heap_lighten(struct qy_heap *h, uint64_t until_ns);

/* Give empty slabs to the manager and all others with room to its orphans, without waiting for whether they change. By
 * the owner, whose lists were put back. */
void qy_heap_let_go(struct qy_heap *h);

/* Give up all slabs: empty ones to the manager, the others to its orphans, where any thread of the node finds them.
 * The remote list is closed. By the owner, or for a dead one. */
void qy_heap_abandon(struct qy_heap *h);

/* What it counted becomes its manager's count. */
void qy_heap_keep_counts(struct qy_heap *h);

/* ---- for dense.c ---- */

/* A slab that has nothing free is noted as full; it is in no list. */
void qy_heap_make_full(struct qy_heap *h, struct qy_slab *s);

/* Objects whose pages were given back come back. False with ENOMEM. */
bool qy_heap_unpark(struct qy_slab *s) QY_COLD;

/* What is wrong with the slab's list, is so no more. */
void qy_heap_repair(struct qy_slab *s) QY_COLD;

QY_INLINE bool qy_slab_has_room(const struct qy_slab *s)
{
	return s->local != NULL || s->linked < qy_classes[s->cls].capacity;
}

#endif
