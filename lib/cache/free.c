/* SPDX-License-Identifier: MIT */
/* Freeing: the ways that are not hits. */
#include <errno.h>
#include <string.h>

#include "lib/base/settings.h"
#include "lib/base/checker.h"
#include "lib/cache/duties.h"
#include "lib/cache/sample.h"
#include "lib/cache/taken.h"
#include "lib/manager/manager.h"
#include "lib/manager/mistakes.h"
#include "lib/manager/mixed.h"
#include "lib/manager/snapshot.h"

static QY_COLD void fill_junk(void *p, const struct qy_slab *s)
{
	memset(p, 0xdf, s != NULL ? qy_object_size(s, p) : qy_large_size(p));
}

/* Whether a slab that nobody held is this thread's now. */
static bool claim(const struct qy_thread *t, struct qy_slab *s)
{
	struct qy_heap *h = &qy_thread_cache((struct qy_thread *)t)->heap;

	/* (Inside another slow path, the heap may be in the middle of something.) */
	return t->depth == 1 && h->manager != NULL && qy_manager_claim_slab(h->manager, h, s);
}

/* Entered. */
static void free_object(struct qy_thread *t, struct qy_slab *s, void *p)
{
	uintptr_t owner = atomic_load_explicit(&s->owner, memory_order_relaxed);

	if ((owner & ~QY_OWNER_SHARED) != (uintptr_t)t && !(owner == 0 && claim(t, s)))
		qy_thread_gather(t, s, p);
	else if (p == s->local || s->countdown == 0)
		qy_mistake(QY_MISTAKE_DOUBLE_FREE, p);
	else if (qy_slab_push(s, p))
		qy_heap_event(s);
}

/* Whether a list that is freed onto is a slab's own: by where it is, since what a thread has of caches may change before
 * it has entered. */
static bool is_slabs(const struct qy_freelist *list)
{
	return (uintptr_t)list - (uintptr_t)qy_slab_side < qy_window_size >> (QY_UNIT_SHIFT - QY_SLAB_SIDE_SHIFT);
}

/* The list is full: what was freed last goes into its slab, and so does from now on all that is freed into that one.
 * (Inside another slow path, the heap may be in the middle of something: the list grows by one, and is looked at again
 * at the next free.) */
static void turn_slab(const struct qy_thread *t, struct qy_freelist *l)
{
	void *p = l->head;
	struct qy_slab *s = qy_slab_of(p);

	if (QY_UNLIKELY(qy_freelist_is_circle(l))) {
		qy_freelist_mend(l);
		return;
	}
	l->room = 1;
	if (QY_UNLIKELY(t->depth > 1))
		return;
	l->was_full = 1;
	l->head = qy_next_object(p);
	if (s == NULL) {
		qy_mistake(QY_MISTAKE_FOREIGN, p);
		return;
	}
	qy_slab_direct(s, qy_slab_list(s));
	if (p == s->local || s->countdown == 0)
		qy_mistake(QY_MISTAKE_DOUBLE_FREE, p);
	else if (qy_slab_push(s, p))
		qy_heap_event(s);
}

void qy_free_event(struct qy_freelist *list)
{
	struct qy_slab *s = is_slabs(list) ? qy_container(list, struct qy_slab, local) : NULL;
	struct qy_thread *t;
	int error;

	/* The active slab is empty but for what is in the cache's list: nothing is due. */
	if (s != NULL && s->state == QY_SLAB_ACTIVE)
		return;
	error = errno;
	t = qy_thread_enter();
	qy_duties_send(t);
	if (s == NULL)
		turn_slab(t, list);
	else
		qy_heap_event(s);
	qy_duties_shed(t);
	qy_thread_leave(t);
	qy_duties_after(t);
	errno = error;
}

/* An object of another thread's slab in a node's default arena joins those that are gathered for that thread, as long
 * as they need not be sent yet. Nothing here is seen by others. (Arenas that can be destroyed, and slabs that nobody
 * holds, go the slower way: no ring is found by their owner; and so does what is in a slab's second unit or behind, whose
 * record has no class. Where in the slab the object is, is not checked, no more than by a hit.) */
QY_INLINE bool gather_quick(void *p)
{
	uintptr_t offset = qy_window_offset(p), me = qy_tls_read(owner), owner;
	struct qy_outgoing *out;
	const struct qy_slab *s;
	int32_t room;

	/* (What is no object at all would have the rest of the list lost, where it is filed.) */
	if (me == QY_OWNER_NONE || offset >= qy_window_size || offset % 16 != 0)
		return false;
	/* The owner first, and nothing else of a slab that an arena's end may be wiping. */
	s = qy_slab_at(offset);
	owner = atomic_load_explicit(&s->owner, memory_order_relaxed);
	out = &((struct qy_thread *)me)->out[qy_out_index(owner)];
	if (out->owner != owner || s->inner != 0)
		return false;
	room = out->room - (int32_t)qy_classes[qy_peek(s->cls)].weight;
	if (room < 0)
		return false;
	out->room = room;
	qy_out_push(out, p);
	qy_sanitizer_release();
	return true;
}

/* For a memory checker, which is told of it outside. */
static QY_COLD void not_live(struct qy_thread *t, void *p)
{
	const void *pool = qy_cache_pool(p);

	if (t != NULL)
		qy_thread_leave(t);
	qy_checker_not_live(pool, p);
	qy_mistake(QY_MISTAKE_DOUBLE_FREE, p);
}

/* Hold an arena's end up, in that life of it; or (QY_LIFE_NODES) enter. False: it is over. *t is NULL where there is no memory
 * even to know this thread, or it has ended. */
QY_INLINE bool enter(const void *p, uint64_t life, struct qy_thread **t)
{
	void *held;

	if (life != QY_LIFE_NODES) {
		if (!qy_life_hold(p, life, &held))
			return false;
		*t = held;
		return true;
	}
	*t = qy_thread_gone() && qy_tls.thread == NULL ? NULL : qy_thread_enter();
	return true;
}

/* With a life: of what was a block in it, and may be anything by now. */
QY_INLINE void free_in(void *p, uint64_t life)
{
	struct qy_thread *t;
	struct qy_slab *s;
	int error;

	if (QY_UNLIKELY(qy_tls.thread == NULL) && !qy_start() && qy_elsewhere != NULL) {
		qy_elsewhere->free(p);
		return;
	}
	error = errno;
	/* Foreign: no reason to make this thread known. */
	if (life == QY_LIFE_NODES && (!qy_window_has(p) || qy_taken_has(p))) {
		qy_mistake(QY_MISTAKE_FOREIGN, p);
		return;
	}
	if (!enter(p, life, &t)) {
		errno = error;
		return;
	}
	/* (Entered: an arena's end waits.) */
	if (QY_UNLIKELY(qy_checker != QY_CHECKER_NONE) && !qy_checker_taken(qy_cache_pool(p), p, qy_cache_room(p))) {
		not_live(t, p);
		if (t == NULL && life != QY_LIFE_NODES)
			qy_life_let_go(t);
		errno = error;
		return;
	}
	s = qy_slab_of(p);
	if (qy_samples_any())
		qy_sample_freed(p);
	if (s != NULL)
		qy_snap_freed(p, t != NULL);
	if (QY_UNLIKELY(t == NULL)) {
		/* The object goes home by itself. */
		qy_checker_hush(true);
		if (s != NULL)
			qy_heap_send(atomic_load_explicit(&s->heap, memory_order_acquire), p, p);
		else if (!qy_large_free(p))
			qy_mistake(QY_MISTAKE_FOREIGN, p);
		qy_checker_hush(false);
		if (life != QY_LIFE_NODES)
			qy_life_let_go(t);
		errno = error;
		return;
	}
	if (QY_UNLIKELY(qy_setting(junk)) && qy_checker == QY_CHECKER_NONE && (s != NULL || qy_large_is(p)))
		fill_junk(p, s);
	if (s != NULL)
		free_object(t, s, p);
	else if (!qy_large_free(p))
		qy_mistake(QY_MISTAKE_FOREIGN, p);
	if (++t->calls % QY_SEND_EVERY == 0)
		qy_duties_of_freeing(t);
	qy_thread_leave(t);
	qy_duties_after(t);
	errno = error;
}

static QY_NOINLINE void free_entered(void *p)
{
	free_in(p, QY_LIFE_NODES);
}

void qy_arena_free_in(void *p, uint64_t life)
{
	free_in(p, life);
}

void qy_free_slow(void *p)
{
	if (!gather_quick(p) && p != NULL)
		free_entered(p);
}

void qy_cache_free_dense(void *p)
{
	if (p != NULL)
		free_entered(p);
}

size_t qy_cache_room(const void *p)
{
	const struct qy_slab *s = qy_slab_of(p);

	return s != NULL ? qy_object_size(s, p) : qy_window_has(p) ? qy_large_size(p) : 0;
}

const void *qy_cache_pool(const void *p)
{
	const struct qy_manager *m = qy_manager_of(p);

	return m == NULL ? NULL : &qy_arenas[qy_peek(m->head)->index];
}

size_t qy_cache_usable(const void *p)
{
	size_t room = qy_cache_room(p);

	return QY_LIKELY(qy_checker == QY_CHECKER_NONE) ? room : qy_checker_size(p, room);
}

void qy_cache_check_size(const void *p, size_t size)
{
	if (QY_UNLIKELY(qy_setting(on_error) != QY_ERROR_IGNORE) && p != NULL && size > qy_cache_usable(p))
		qy_mistake(QY_MISTAKE_SIZE, p);
}
