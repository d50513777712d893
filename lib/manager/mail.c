/* SPDX-License-Identifier: MIT */
/* What others free of a heap's objects: how it comes home, and is filed. */
#include "lib/manager/mail.h"

#include "lib/manager/dirt.h"
#include "lib/manager/manager.h"
#include "lib/manager/mistakes.h"
#include "lib/manager/snapshot.h"

void qy_call_reclaimer(struct qy_manager *m)
{
	atomic_store_explicit(&m->decay.sparse_due, 0, memory_order_relaxed);
	atomic_store_explicit(&qy_dirt_seen, QY_DIRT_NEW, memory_order_relaxed);
}

#define CLOSED_LOOKS 1000

/* Where a slab of a heap that was seen closed is now. It went elsewhere before; it may have come back, to a heap that
 * is open again. NULL where it has not: the program has written over it. */
static struct qy_heap *home_now(const struct qy_heap *closed, const struct qy_slab *s)
{
	for (unsigned looks = 0; looks < CLOSED_LOOKS; looks++) {
		struct qy_heap *h = atomic_load_explicit(&s->heap, memory_order_acquire);

		if (h != closed || atomic_load_explicit(&h->remote, memory_order_acquire) != QY_REMOTE_CLOSED)
			return h;
	}
	return NULL;
}

void qy_heap_send(struct qy_heap *h, void *first, void *last)
{
	/* Who sees it closed sees also where its slabs went before. */
	void *was = atomic_load_explicit(&h->remote, memory_order_acquire);

	for (;;) {
		if (was == QY_REMOTE_CLOSED)
			break;
		qy_link_object(last, was);
		if (atomic_compare_exchange_weak_explicit(&h->remote, &was, first, memory_order_release,
							  memory_order_acquire)) {
			if (qy_peek(h->owner) == 0 && was == NULL)
				qy_call_reclaimer(qy_peek(h->manager));
			return;
		}
	}
	/* The heap was given up after its slabs had gone elsewhere: look where each object's slab is now. */
	qy_link_object(last, NULL);
	while (first != NULL) {
		void *p = first;
		struct qy_slab *s = qy_slab_of(p);

		struct qy_heap *of = s == NULL ? NULL : home_now(h, s);

		first = s != NULL ? qy_next_object(p) : qy_heap_next_mail(p);
		if (of != NULL)
			qy_heap_send(of, p, p);
		else
			qy_mistake(QY_MISTAKE_FOREIGN, p);
	}
}

void *qy_heap_next_mail(const void *p)
{
	return (uintptr_t)p % sizeof(void *) == 0 && qy_manager_of(p) != NULL ? qy_next_object((void *)p) : NULL;
}

bool qy_heap_take_mail(struct qy_heap *h)
{
	void *list = atomic_load_explicit(&h->remote, memory_order_relaxed);

	if (h->mail != NULL || list == NULL || list == QY_REMOTE_CLOSED)
		return false;
	qy_publish(h->mail, atomic_exchange_explicit(&h->remote, NULL, memory_order_acquire));
	h->mail_mistakes = 0;
	h->mail_lists++;
	return true;
}

QY_INLINE bool in_one_unit(const void *p, const void *q)
{
	return ((uintptr_t)p ^ (uintptr_t)q) >> QY_UNIT_SHIFT == 0;
}

/* The objects at the front of a list that are in one unit, as those gathered together mostly are: their number and the
 * last of them. More than a unit has means that the list leads in a circle. The first one is an object; what the
 * program made of a link behind it may lead anywhere else, and also to where a link would reach out of the unit. */
static uint32_t run_of(void *first, void **last)
{
	const uintptr_t within = QY_UNIT - 2 * sizeof(void *);
	uint32_t n = 1;
	void *p = first, *next;

	while ((next = qy_next_object(p)) != NULL &&
	       ((qy_window_offset(next) ^ qy_window_offset(first)) & ~within) == 0 && n <= QY_UNIT / 16) {
		p = next;
		n++;
	}
	*last = p;
	return n;
}

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

/* The slab that p is in, when it is one that the heap's thread may free into, and p stands where an object does; else
 * NULL. (It may be another heap's of that thread, as where it moved to another node: no matter.) */
QY_INLINE struct qy_slab *own_slab_of(const struct qy_heap *h, const void *p)
{
	uintptr_t offset = qy_window_offset(p);
	const struct qy_class *c;
	struct qy_slab *s;
	uint64_t in, index;

	if (offset >= qy_window_size)
		return NULL;
	s = qy_slab_at(offset);
	if (atomic_load_explicit(&s->owner, memory_order_relaxed) != h->owner)
		return NULL;
	s -= s->inner;
	c = &qy_classes[s->cls];
	in = (uint64_t)((const char *)p - qy_slab_memory(s));
	index = in * c->magic >> 40;
	return index * c->size == in && index < c->capacity ? s : NULL;
}

/* What comes home goes where its owner's frees go, if there is room: to the next mallocs, or into its slab. Only the
 * last object is written to. False, and nothing done, otherwise. */
QY_INLINE bool hand_on(const struct qy_slab *s, void *first, void *last, uint32_t n)
{
	struct qy_freelist *list = s->to;

	if (list->room <= n || list->head == first)
		return false;
	qy_link_object(last, list->head);
	__atomic_store_n(&list->head, first, __ATOMIC_RELEASE);
	/* (The viewer may be looking at it, where the list is a slab's own.) */
	qy_publish(list->room, list->room - n);
	return true;
}

/* The same for as many objects at the front of a list as are runs by themselves, which is what there is where sizes are
 * mixed. Returns how many. */
static uint32_t hand_on_singles(struct qy_heap *h, void **list, uint32_t at_most)
{
	void *p = *list;
	uint32_t n = 0;

	for (; p != NULL && n < at_most; n++) {
		const struct qy_slab *s = own_slab_of(h, p);
		void *next;

		/* (What is no object may not even be there to be read.) */
		if (s == NULL || in_one_unit(p, next = qy_next_object(p)))
			break;
		qy_prefetch_write(((void **)p)[1]);
		if (!hand_on(s, p, p, 1))
			break;
		p = next;
	}
	*list = p;
	return n;
}

/* File a run of a list, of n objects of the slab. */
static void file_run(struct qy_heap *h, struct qy_slab *s, void *first, void *last, uint32_t n)
{
	void *p = first;

	/* A full slab takes the first by itself, and has room then. (Whose it is comes first: what came late is
	 * another's by now, who writes it.) */
	if (n > 1 && atomic_load_explicit(&s->heap, memory_order_acquire) == h && s->state == QY_SLAB_FULL) {
		p = qy_next_object(first);
		h->mail_mistakes += !qy_heap_free_here(h, first);
		n--;
	}
	if (n > 1 && splice(h, s, p, last, n))
		return;
	for (; n > 0; n--) {
		void *following = qy_next_object(p);

		h->mail_mistakes += !qy_heap_free_here(h, p);
		p = following;
	}
}

/* File the run at the front of a list. Returns how many objects it had, *list is what is behind it; 0 where the list
 * leads in a circle. */
static uint32_t file_first(struct qy_heap *h, void **list, bool for_use)
{
	void *p = *list, *last;
	struct qy_slab *s = qy_slab_of(p);
	uint32_t n;

	if (s == NULL) {
		qy_mistake(QY_MISTAKE_FOREIGN, p);
		h->mail_mistakes++;
		*list = qy_heap_next_mail(p);
		return 1;
	}
	n = run_of(p, &last);
	if (for_use)
		qy_prefetch_write(((void **)last)[1]);
	if (n > QY_UNIT / 16) {
		qy_mistake(QY_MISTAKE_DOUBLE_FREE, p);
		return 0;
	}
	*list = qy_next_object(last);
	if (!for_use || own_slab_of(h, p) != s || !hand_on(s, p, last, n))
		file_run(h, s, p, last, n);
	return n;
}

/* What was freed twice by others may have made a circle of it, or the program may have written where a link stood: the
 * rest is lost then. */
static uint32_t file(struct qy_heap *h, uint32_t at_most, bool for_use)
{
	void *p = h->mail;
	uint32_t filed = 0;

	qy_snap_filed(p, at_most);
	while (p != NULL && filed < at_most && h->mail_mistakes < QY_MAIL_MISTAKES_MAX) {
		uint32_t n = for_use ? hand_on_singles(h, &p, at_most - filed) : 0;

		if (n == 0 && (n = file_first(h, &p, for_use)) == 0)
			h->mail_mistakes = QY_MAIL_MISTAKES_MAX;
		filed += n;
	}
	qy_publish(h->mail, h->mail_mistakes < QY_MAIL_MISTAKES_MAX ? p : NULL);
	qy_count(&h->remote_received, filed);
	return filed;
}

#define LIST_MAX (QY_UNIT / 16 * 4) /* a slab's objects, and what a cache keeps */

/* (The same, of the owner's own mistakes.) */
void qy_heap_put_back(struct qy_heap *h, void *list)
{
	uint32_t mistakes = h->mail_mistakes, filed = 0, n = 1;

	h->mail_mistakes = 0;
	for (; list != NULL && n != 0 && filed <= LIST_MAX && h->mail_mistakes < QY_MAIL_MISTAKES_MAX; filed += n)
		n = file_first(h, &list, false);
	if (filed > LIST_MAX)
		qy_mistake(QY_MISTAKE_DOUBLE_FREE, list);
	h->mail_mistakes = mistakes;
}

static void receive(struct qy_heap *h, uint32_t at_most, bool for_use)
{
	uint32_t filed = file(h, at_most, for_use);

	if (filed < at_most && qy_heap_take_mail(h))
		(void)file(h, at_most - filed, for_use);
}

void qy_heap_receive_for_use(struct qy_heap *h, uint32_t at_most)
{
	receive(h, at_most, true);
}

void qy_heap_receive_some(struct qy_heap *h, uint32_t at_most)
{
	receive(h, at_most, false);
}

uint32_t qy_heap_file(struct qy_heap *h, uint32_t at_most)
{
	return file(h, at_most, false);
}

void qy_heap_receive(struct qy_heap *h)
{
	qy_heap_receive_some(h, UINT32_MAX);
}
