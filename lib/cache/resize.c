/* SPDX-License-Identifier: MIT */
#include "lib/cache/resize.h"

#include <errno.h>
#include <string.h>

#include "lib/base/checker.h"
#include "lib/cache/arena.h"
#include "lib/cache/cache.h"
#include "lib/cache/sample.h"
#include "lib/cache/taken.h"
#include "lib/cache/thread.h"
#include "lib/manager/breaker.h"
#include "lib/manager/limits.h"
#include "lib/manager/manager.h"
#include "lib/manager/mistakes.h"
#include "lib/reclaim/reclaim.h"

/* An object stays where it is while the new size needs its class, or does not waste more than half of it. */
static bool fits_object(size_t usable, size_t size)
{
	return size <= usable && (size > usable / 2 || usable <= 64);
}

/* What p has, which its life's end may change unless that is held up. */
struct room {
	size_t usable; /* bytes */
	bool is_object;
};

/* Entered, so that it stays so. (QY_LIFE_NODES: whoever resizes knows that p lives.) */
static bool is_over(const void *p, uint64_t life)
{
	if (QY_LIKELY(life == QY_LIFE_NODES) || qy_arena_life(p) == life)
		return false;
	errno = ESTALE;
	return true;
}

/* In place, or by page tables, for blocks; near a limit by a copy in the same manager. NULL when it must be copied to
 * wherever. (What moves takes address space for all of it, while both are there.) */
static void *resize_block(void *p, size_t size, uint64_t life)
{
	struct qy_thread *t = qy_thread_enter();
	struct qy_manager *m;
	void *to = p;

	if (t == NULL)
		return NULL;
	m = qy_manager_of(p);
	if (is_over(p, life)) {
		to = NULL;
	} else if (!qy_large_resize(p, size)) {
		bool may_map = m != NULL && qy_breaker_may_map(size);

		to = may_map ? qy_large_remap(p, size) : NULL;
		if (to == NULL && may_map && qy_manager_is_at_limit(m, size))
			to = qy_large_copy(p, size);
	}
	qy_thread_leave(t);
	return to;
}

/* Where a copy of p is to be: NULL for the thread's default, when that is where p is as well. */
static const quarry_arena *home_of(const void *p)
{
	struct qy_manager *m = qy_manager_of(p);

	return m == NULL || m->of_node ? NULL : &qy_arenas[m->index];
}

static void *copy(void *p, size_t usable, size_t size, const quarry_arena *arena)
{
	void *to = arena == NULL ? qy_cache_malloc(size) : qy_cache_alloc(arena, size, 16, false);

	/* A block that is to be smaller can always stay what it is. */
	if (to == NULL)
		return size <= usable ? p : NULL;
	memcpy(to, p, qy_min(usable, size));
	qy_cache_free(p);
	return to;
}

/* In an arena that can be destroyed, all of it happens inside one enter and leave: its end waits, or came before. */
static void *copy_in_arena(void *p, size_t size, uint64_t life)
{
	struct qy_thread *t = qy_thread_enter();
	uint64_t mean = 0;
	size_t usable;
	void *to = NULL;

	if (t == NULL)
		return NULL;
	t->resizes = t->depth == 1;
	/* (First: what is left of a block that is over may be others' by now, its size too.) */
	if (!is_over(p, life)) {
		usable = qy_cache_usable(p);
		if (usable != 0)
			to = copy(p, usable, size, home_of(p));
		else
			errno = EINVAL;
	}
	t->resizes = 0;
	if (t->depth == 1)
		mean = qy_sample_taken(t);
	qy_thread_leave(t);
	return QY_UNLIKELY(mean != 0) ? qy_sample_note(mean, to, size) : to;
}

/* To what is better elsewhere, an object or a block of pages. Where there is no memory for that it stays, and all but
 * its beginning goes back: nothing is refused. */
static void *shrink_block(void *p, size_t size, uint64_t life)
{
	void *to = copy_in_arena(p, size, life);
	struct qy_thread *t;

	if (to != NULL && to != p)
		return to;
	t = qy_thread_enter();
	to = p;
	if (t != NULL) {
		if (is_over(p, life))
			to = NULL;
		else
			qy_large_cut(p, size);
		qy_thread_leave(t);
	}
	return to;
}

/* A large block; NULL when it must be copied to wherever. */
static void *resize_large(void *p, size_t usable, size_t size, uint64_t life)
{
	struct qy_sample was;
	void *to;

	if (size <= usable && size > QY_CLASS_MAX && usable - size < QY_LARGE_SLACK)
		return p;
	(void)qy_sample_resizes(p, &was);
	to = resize_block(p, size, life);
	if (to == NULL && size < usable) {
		to = shrink_block(p, size, life);
		qy_sample_resized(p, &was, to == p ? p : NULL, size);
		return to;
	}
	if (to == NULL && qy_limits_denied_by() != QY_DENIED_BY_NONE && qy_cache_make_room())
		to = resize_block(p, size, life);
	if (to != NULL)
		qy_sample_resized(p, &was, to, size);
	else if (was.site != NULL)
		qy_sample_put_back(p, &was);
	return to;
}

/* (An object may have more than the largest class, in a mixed slab.) */
static bool is_object(const void *p, size_t usable)
{
	return usable <= QY_CLASS_MAX || qy_slab_of(p) != NULL;
}

static void *resize(void *p, struct room room, size_t size, uint64_t life)
{
	size_t usable = room.usable;
	void *to;

	if (!room.is_object) {
		to = resize_large(p, usable, size, life);
		if (to != NULL)
			return to;
	} else if (fits_object(usable, size)) {
		return p;
	}
	if (life == QY_LIFE_NODES && home_of(p) == NULL)
		return copy(p, usable, size, NULL);
	qy_limits_forget_denial(); /* what came before says nothing of a copy */
	to = copy_in_arena(p, size, life);
	/* (Inside, nothing could be given back to make room.) */
	if (to == NULL && errno == ENOMEM && qy_cache_make_room())
		to = copy_in_arena(p, size, life);
	return to;
}

/* To a large size, where there is a breaker. What is in an arena of its own stays there, and cannot be sent to
 * another. */
static QY_COLD void *resize_judged(void *p, struct room room, size_t size, uint64_t life)
{
	const quarry_arena *arena = home_of(p);
	enum qy_verdict verdict = qy_breaker_judge(size, size - room.usable, &arena, arena == NULL && life == QY_LIFE_NODES);
	void *to;

	switch (verdict) {
	case QY_BREAKER_REFUSE:
		errno = ENOMEM;
		return NULL;
	case QY_BREAKER_REDIRECT:
		to = copy(p, room.usable, size, arena);
		if (to != NULL && to != p)
			qy_arena_note_sent(to);
		return to;
	case QY_BREAKER_PROBE:
		to = resize(p, room, size, life);
		qy_breaker_probed(to != NULL);
		return to;
	case QY_BREAKER_PASS:
		break;
	}
	return resize(p, room, size, life);
}

static void *resize_live(void *p, struct room room, size_t size, uint64_t life)
{
	void *to;

	if (size > PTRDIFF_MAX) {
		errno = ENOMEM;
		return NULL;
	}
	qy_limits_forget_denial();
	/* (Another block, so that whoever goes on with the old one is found out.) */
	if (QY_UNLIKELY(qy_checker != QY_CHECKER_NONE))
		to = copy_in_arena(p, size, life);
	else
		to = size > room.usable && qy_breaker_minds(size) ? resize_judged(p, room, size, life)
								  : resize(p, room, size, life);
	if (QY_UNLIKELY(to == NULL))
		return qy_cache_refused();
	if (to == p && qy_samples_any())
		qy_sample_asked(p, size);
	return to;
}

void *qy_resize(void *p, size_t size)
{
	size_t usable;

	if (p == NULL)
		return qy_cache_malloc(size);
	if (size == 0) {
		qy_cache_free(p);
		return NULL;
	}
	usable = qy_cache_usable(p);
	if (QY_UNLIKELY((usable == 0 || qy_taken_has(p)) && size <= PTRDIFF_MAX)) {
		qy_mistake(QY_MISTAKE_FOREIGN, p);
		errno = EINVAL;
		return NULL;
	}
	return resize_live(p, (struct room){ usable, is_object(p, usable) }, size, QY_LIFE_NODES);
}

void *qy_arena_resize_in(void *p, size_t size, uint64_t life)
{
	struct room room = { 0 };
	void *held;

	if (qy_life_hold(p, life, &held)) {
		room.usable = qy_cache_usable(p);
		room.is_object = is_object(p, room.usable);
		qy_life_let_go(held);
	}
	if (room.usable != 0)
		return resize_live(p, room, size, life);
	errno = ESTALE;
	return NULL;
}
