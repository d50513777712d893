/* SPDX-License-Identifier: MIT */
#include "lib/manager/heap.h"

#include <errno.h>
#include <string.h>

#include "lib/base/refused.h"
#include "lib/base/settings.h"
#include "lib/manager/budget.h"
#include "lib/manager/mail.h"
#include "lib/manager/mistakes.h"
#include "lib/manager/manager.h"
#include "lib/manager/snapshot.h"
#include "lib/manager/sparse.h"

void qy_heap_open(struct qy_heap *h, struct qy_manager *m, uintptr_t owner)
{
	qy_publish(h->manager, m);
	qy_publish(h->owner, owner);
	if (owner != 0)
		atomic_fetch_add_explicit(&m->heaps, 1, memory_order_relaxed);
	qy_publish(h->mail, NULL);
	atomic_store_explicit(&h->remote, NULL, memory_order_release);
}

void qy_heap_clear(struct qy_heap *h)
{
	qy_publish(h->mail, NULL);
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
void qy_heap_repair(struct qy_slab *s)
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
	qy_publish(s->countdown, s->linked - kept);
}

#define LOOK_AT 32 /* objects of a list, each time */

/* Whether the list holds as many objects as the count says, each where one stands; of a long one, its beginning. They
 * are about to be handed out, so that to look at them is no cache miss more. */
static bool is_sound(const struct qy_slab *s)
{
	const struct qy_class *c = &qy_classes[s->cls];
	const char *memory = qy_slab_memory(s);
	const char *p = s->local;
	uint32_t n = s->linked - s->countdown, looks = (uint32_t)qy_min(n, LOOK_AT);

	for (uint32_t i = 0; i < looks; i++) {
		uint64_t in = (uint64_t)(p - memory);

		if (in >= (uint64_t)s->carved * c->size || (in * c->magic >> 40) * c->size != in ||
		    qy_next_object((void *)p) == p)
			return false;
		p = qy_next_object((void *)p);
	}
	return n > looks ? p != NULL : p == NULL;
}

static void check_list(struct qy_slab *s)
{
	if (QY_UNLIKELY(s->countdown > s->linked || !is_sound(s) || qy_setting(on_error) != QY_ERROR_IGNORE))
		qy_heap_repair(s);
}

static void *take_local(struct qy_heap *h, struct qy_slab *s)
{
	void *list;

	check_list(s);
	list = s->local;
	h->got = s->linked - s->countdown;
	s->local = NULL;
	qy_publish(s->countdown, s->linked);
	qy_slab_direct(s, qy_heap_list_for(atomic_load_explicit(&s->heap, memory_order_relaxed), s, s->cls));
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
	qy_publish(s->carved, (uint16_t)(s->carved + n));
	qy_publish(s->linked, s->linked + n);
	qy_publish(s->countdown, s->countdown + n);
	return first;
}

void qy_heap_make_full(struct qy_heap *h, struct qy_slab *s)
{
	qy_assert(s->linked == qy_classes[s->cls].capacity && s->local == NULL && s->countdown == s->linked);
	qy_publish(s->state, QY_SLAB_FULL);
	qy_publish(s->countdown, 1);
	qy_slab_list_push_back(&h->full, s);
}

static void make_active(struct qy_heap *h, struct qy_slab *s)
{
	s->seen = 0;
	qy_publish(s->state, QY_SLAB_ACTIVE);
	h->active[s->cls] = s;
}

/* A slab that comes to a queue was not looked at in this round. Of those that nobody holds the last to be used comes
 * first: its pages may be there still, where those of others were given back. */
static void queue_slab(struct qy_heap *h, struct qy_slab *s)
{
	qy_publish(s->state, QY_SLAB_QUEUED);
	s->epoch = (uint8_t)(h->shed_epoch - 1);
	if (h->owner == 0)
		qy_slab_list_push_front(&h->queue[s->cls], s);
	else
		qy_slab_list_push_back(&h->queue[s->cls], s);
}

/* ---- where the heap would grow ---- */

#define SPILL_FROM 64 /* slabs of a heap, */
#define SURPLUS 16    /* and more than so many with room of one class, before some of these are given to all classes: */
#define SPILL 4       /* so many at a time, of so many that are looked at */
#define SPILL_LOOKS 16

static void orphan_all(struct qy_heap *h, struct qy_slab **slabs, unsigned n);

/* Before memory is touched that is not there: a class that has much more than it can use, as when most of its objects
 * were freed, gives half-empty slabs up, so that objects of any class find room in them (mixed.h). */
static QY_COLD void spill(struct qy_heap *h, unsigned cls)
{
	struct qy_slab *sparse[SPILL];
	unsigned n = 0, looks = SPILL_LOOKS;

	for (unsigned i = 0; i < QY_CLASSES && looks > 0 && n < SPILL; i++) {
		unsigned of = h->spill_class++ % QY_CLASSES;
		struct qy_slab_list *queue = &h->queue[of];

		if (of == cls || qy_classes[of].units != 1)
			continue;
		for (; queue->count > SURPLUS && looks > 0 && n < SPILL; looks--) {
			struct qy_slab *s = queue->first;

			qy_slab_list_remove(queue, s);
			if (s->countdown * 2 <= qy_classes[of].capacity)
				sparse[n++] = s;
			else
				qy_slab_list_push_back(queue, s);
		}
	}
	if (n > 0)
		orphan_all(h, sparse, n);
}

/* From the manager; NULL with *list where that has objects, and no slab. */
static struct qy_slab *another_slab(struct qy_heap *h, unsigned cls, struct qy_slab *spare, void **list)
{
	bool fresh = qy_read(&h->slabs) < SPILL_FROM, at_once = fresh;
	struct qy_slab *s = qy_manager_get_slab(h->manager, h, cls, spare, list, &fresh);

	if (s != NULL || *list != NULL || fresh == at_once)
		return s;
	spill(h, cls);
	return qy_manager_get_slab(h->manager, h, cls, NULL, list, &fresh);
}

static void drop_active(struct qy_heap *h, unsigned cls);

/* Make another slab active: one with room, or from the manager. False with *list where that has objects, and no slab.
 * (A patched mmap may allocate while the manager maps: then there is an active one by now.) */
static bool next_slab(struct qy_heap *h, unsigned cls, void **list)
{
	struct qy_slab *s = h->queue[cls].first;

	if (s != NULL) {
		qy_slab_list_remove(&h->queue[cls], s);
	} else {
		if (h->spares > 0 && qy_classes[cls].units == 1)
			s = h->spare[--h->spares];
		s = another_slab(h, cls, s, list);
		if (s == NULL)
			return false;
		qy_count(&h->slabs, 1);
	}
	drop_active(h, cls);
	make_active(h, s);
	return true;
}

/* Its pages will be touched again, which the control group may not allow. */
bool qy_heap_unpark(struct qy_slab *s)
{
	size_t bytes = qy_align_up(qy_classes[s->cls].size, QY_PAGE);

	if (!qy_budget_take(bytes) && !(qy_budget_refresh(bytes) && qy_budget_take(bytes))) {
		qy_refuse(QUARRY_REFUSED_CGROUP);
		errno = ENOMEM;
		return false;
	}
	/* (A patched open may have allocated, and done it.) */
	if (s->linked < s->carved)
		qy_slab_unpark(s);
	return true;
}

/* How many steps of mail are worth while before a list is had elsewhere: one where the heap has memory for it, and else
 * so many that what comes home is filed at least as fast as slabs are taken. (In steps of 32 objects, 64 threads that
 * hand over what they make had 83 MiB instead of 28; until it has what it wants, a producer took twice as long.) */
static unsigned mail_steps(const struct qy_heap *h, const struct qy_slab *s, unsigned cls)
{
	if ((s != NULL && s->linked < qy_classes[cls].capacity) || h->queue[cls].first != NULL)
		return 1;
	return QY_MAIL_STEPS;
}

/* (Where each free is looked at, each goes into its slab.) */
static void receive_part(struct qy_heap *h)
{
	if (h->freed != NULL && qy_setting(on_error) == QY_ERROR_IGNORE)
		qy_heap_receive_for_use(h, QY_MAIL_STEP);
	else
		qy_heap_receive_some(h, QY_MAIL_STEP);
}

void *qy_heap_refill(struct qy_heap *h, unsigned cls, bool *zero)
{
	unsigned steps = 0;
	void *list = NULL;

	qy_count(&h->refills, 1);
	*zero = false;
	h->got = 0;
	for (;;) {
		struct qy_slab *s = h->active[cls];

		if (s != NULL && s->local != NULL)
			list = take_local(h, s);
		/* (A list that was repaired may be empty.) */
		if (list != NULL)
			return list;
		if (qy_heap_has_mail(h) && steps < mail_steps(h, s, cls)) {
			receive_part(h);
			steps++;
			list = h->freed == NULL ? NULL : qy_freelist_take(&h->freed[cls]);
			if (list != NULL)
				return list;
			continue;
		}
		if (s != NULL && s->carved < qy_classes[cls].capacity) {
			*zero = s->zero;
			h->got = (uint32_t)qy_min(qy_classes[cls].capacity - s->carved, qy_classes[cls].carve);
			return qy_slab_carve(s);
		}
		if (s != NULL && s->linked < s->carved) {
			if (!qy_heap_unpark(s))
				return NULL;
			continue;
		}
		if (s != NULL) {
			h->active[cls] = NULL;
			qy_heap_make_full(h, s);
		}
		if (!next_slab(h, cls, &list))
			return list;
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
		qy_snap_slab_ends(s);
		qy_slab_set_gone(s, 0);
		/* (What is freed into it now is freed twice, and must not come into a list.) */
		atomic_store_explicit(&s->owner, 0, memory_order_relaxed);
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
		qy_slab_list_remove(&h->full, s);
		qy_publish(s->countdown, s->linked - 1);
		queue_slab(h, s);
	} else if (s->state == QY_SLAB_QUEUED) {
		if (qy_setting(on_error) != QY_ERROR_IGNORE) {
			qy_heap_repair(s);
			if (s->countdown != 0)
				return;
		}
		qy_slab_list_remove(&h->queue[s->cls], s);
		drop_slab(h, s);
	}
}

void qy_heap_note_due(struct qy_heap *h)
{
	for (struct qy_slab *s = h->full.first, *next; s != NULL; s = next) {
		next = qy_slab_numbered(s->next);
		if (s->countdown == 0)
			qy_heap_event(s);
	}
}

bool qy_heap_free_here(struct qy_heap *h, void *p)
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

	qy_heap_own(orphans, s, s->cls);
	atomic_store_explicit(&s->heap, orphans, memory_order_release);
	/* It was left alone already: it need not be found unchanged once more. */
	s->seen = (uint16_t)(s->countdown + 1);
	s->thinned = false;
	if (s->state == QY_SLAB_FULL || !qy_slab_has_room(s)) {
		if (s->state != QY_SLAB_FULL)
			qy_heap_make_full(orphans, s);
		else
			qy_slab_list_push_back(&orphans->full, s);
	} else {
		queue_slab(orphans, s);
	}
	qy_count(&orphans->slabs, 1);
	qy_uncount(&h->slabs, 1);
	qy_call_reclaimer(h->manager);
}

void qy_heap_take_over(struct qy_heap *h, struct qy_heap *from, struct qy_slab *s)
{
	qy_slab_list_remove(s->state == QY_SLAB_FULL ? &from->full : &from->queue[s->cls], s);
	atomic_store_explicit(&s->heap, h, memory_order_release);
	qy_heap_own(h, s, s->cls);
	s->seen = 0;
	if (s->state == QY_SLAB_FULL)
		qy_slab_list_push_back(&h->full, s);
	else
		queue_slab(h, s);
	qy_uncount(&from->slabs, 1);
	qy_count(&h->slabs, 1);
	qy_count(&h->adopted, 1);
}

#define ORPHANS_AT_A_TIME 64 /* under one hold of the lock: a cold slab is a cache miss or two */

/* False when the time is over, after a step at least: it gets on, however short the time. */
static bool orphan_list(struct qy_heap *h, struct qy_slab_list *list, uint64_t until_ns)
{
	while (list->first != NULL) {
		qy_lock(&h->manager->lock);
		for (unsigned n = 0; n < ORPHANS_AT_A_TIME && list->first != NULL; n++) {
			struct qy_slab *s = list->first;

			qy_slab_list_remove(list, s);
			orphan(h, s);
		}
		qy_unlock(&h->manager->lock);
		if (!qy_in_time(until_ns))
			return false;
	}
	return true;
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
	if (qy_slab_has_room(s))
		queue_slab(h, s);
	else
		qy_heap_make_full(h, s);
}

void qy_heap_tidy(struct qy_heap *h)
{
	for (unsigned cls = 0; cls < QY_CLASSES; cls++)
		if (h->active[cls] != NULL && h->active[cls]->countdown == 0)
			drop_active(h, cls);
	qy_heap_trim(h);
}

static void orphan_all(struct qy_heap *h, struct qy_slab **slabs, unsigned n)
{
	qy_lock(&h->manager->lock);
	for (unsigned i = 0; i < n; i++)
		orphan(h, slabs[i]);
	qy_unlock(&h->manager->lock);
}

#define SHED_BATCH 64

/* What is unchanged is known by its live objects: one that was taken and given back in between is not missed. Each goes
 * to the end of its queue in turn, so that their order stays. */
bool qy_heap_shed(struct qy_heap *h, unsigned at_most)
{
	struct qy_slab *cold[SHED_BATCH];
	unsigned n = 0;

	for (; h->shed_class < QY_CLASSES; h->shed_class++) {
		struct qy_slab_list *queue = &h->queue[h->shed_class];
		struct qy_slab *s;

		while ((s = queue->first) != NULL && s->epoch != h->shed_epoch) {
			uint16_t now = (uint16_t)(s->countdown + 1);

			if (at_most-- == 0 || n == SHED_BATCH) {
				orphan_all(h, cold, n);
				return false;
			}
			s->epoch = h->shed_epoch;
			qy_slab_list_remove(queue, s);
			if (s->seen == now) {
				cold[n++] = s;
				continue;
			}
			s->seen = now;
			qy_slab_list_push_back(queue, s);
		}
	}
	if (n > 0)
		orphan_all(h, cold, n);
	h->shed_class = 0;
	h->shed_epoch++;
	return true;
}

void qy_heap_let_go(struct qy_heap *h)
{
	qy_heap_receive(h);
	for (unsigned cls = 0; cls < QY_CLASSES; cls++)
		drop_active(h, cls);
	qy_heap_trim(h);
	for (unsigned cls = 0; cls < QY_CLASSES; cls++)
		(void)orphan_list(h, &h->queue[cls], UINT64_MAX);
}

/* (Of the mail, two lists at most: others may send for ever.) */
bool qy_heap_lighten(struct qy_heap *h, uint64_t until_ns)
{
	uint32_t lists = h->mail_lists;

	while (qy_heap_has_mail(h) && (h->mail != NULL || h->mail_lists - lists < 2)) {
		qy_heap_receive_some(h, QY_MAIL_STEP);
		if (!qy_in_time(until_ns))
			return false;
	}
	for (unsigned cls = 0; cls < QY_CLASSES; cls++)
		if (!orphan_list(h, &h->queue[cls], until_ns))
			return false;
	return orphan_list(h, &h->full, until_ns);
}

void qy_heap_keep_counts(struct qy_heap *h)
{
	qy_hand_over(&h->manager->past_refills, &h->refills);
	qy_hand_over(&h->manager->past_received, &h->remote_received);
	qy_hand_over(&h->manager->past_adopted, &h->adopted);
}

void qy_heap_abandon(struct qy_heap *h)
{
	qy_heap_let_go(h);
	(void)orphan_list(h, &h->full, UINT64_MAX);
	atomic_fetch_sub_explicit(&h->manager->heaps, 1, memory_order_relaxed);
	qy_heap_keep_counts(h);
	/* What came late is others' by now. */
	qy_publish(h->mail, atomic_exchange_explicit(&h->remote, QY_REMOTE_CLOSED, memory_order_acq_rel));
	h->mail_mistakes = 0;
	(void)qy_heap_file(h, UINT32_MAX);
}
