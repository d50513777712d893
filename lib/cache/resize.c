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

/* In place, or by page tables, for blocks; near a limit by a copy in the same manager. NULL when it must be copied to
 * wherever. (What moves takes address space for all of it, while both are there.) */
static void *resize_block(void *p, size_t size)
{
	struct qy_thread *t = qy_thread_enter();
	struct qy_manager *m;
	void *to = p;

	if (t == NULL)
		return NULL;
	m = qy_manager_of(p);
	if (!qy_large_resize(p, size)) {
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
static void *copy_in_arena(void *p, size_t size)
{
	struct qy_thread *t = qy_thread_enter();
	uint64_t mean = 0;
	size_t usable;
	void *to = NULL;

	if (t == NULL)
		return NULL;
	t->resizes = t->depth == 1;
	usable = qy_cache_usable(p);
	if (usable != 0)
		to = copy(p, usable, size, home_of(p));
	else
		errno = EINVAL;
	t->resizes = 0;
	if (t->depth == 1)
		mean = qy_sample_taken(t);
	qy_thread_leave(t);
	return QY_UNLIKELY(mean != 0) ? qy_sample_note(mean, to, size) : to;
}

/* To what is better elsewhere, an object or a block of pages. Where there is no memory for that it stays, and all but
 * its beginning goes back: nothing is refused. */
static void *shrink_block(void *p, size_t size)
{
	void *to = copy_in_arena(p, size);
	struct qy_thread *t;

	if (to != NULL && to != p)
		return to;
	t = qy_thread_enter();
	if (t != NULL) {
		qy_large_cut(p, size);
		qy_thread_leave(t);
	}
	return p;
}

/* A large block; NULL when it must be copied to wherever. */
static void *resize_large(void *p, size_t usable, size_t size)
{
	struct qy_sample was;
	void *to;

	if (size <= usable && size > QY_CLASS_MAX && usable - size < QY_LARGE_SLACK)
		return p;
	(void)qy_sample_resizes(p, &was);
	to = resize_block(p, size);
	if (to == NULL && size < usable) {
		to = shrink_block(p, size);
		qy_sample_resized(p, &was, to == p ? p : NULL, size);
		return to;
	}
	if (to == NULL && qy_limits_denied_by() != QY_DENIED_BY_NONE && qy_cache_make_room())
		to = resize_block(p, size);
	if (to != NULL)
		qy_sample_resized(p, &was, to, size);
	else if (was.site != NULL)
		qy_sample_put_back(p, &was);
	return to;
}

static void *resize(void *p, size_t usable, size_t size)
{
	void *to;

	/* (An object may have more than the largest class, in a mixed slab.) */
	if (usable > QY_CLASS_MAX && qy_slab_of(p) == NULL) {
		to = resize_large(p, usable, size);
		if (to != NULL)
			return to;
	} else if (fits_object(usable, size)) {
		return p;
	}
	if (home_of(p) == NULL)
		return copy(p, usable, size, NULL);
	qy_limits_forget_denial(); /* what came before says nothing of a copy */
	to = copy_in_arena(p, size);
	/* (Inside, nothing could be given back to make room.) */
	if (to == NULL && errno == ENOMEM && qy_cache_make_room())
		to = copy_in_arena(p, size);
	return to;
}

/* To a large size, where there is a breaker. What is in an arena of its own stays there, and cannot be sent to
 * another. */
static QY_COLD void *resize_judged(void *p, size_t usable, size_t size)
{
	const quarry_arena *arena = home_of(p);
	enum qy_verdict verdict = qy_breaker_judge(size, size - usable, &arena, arena == NULL);
	void *to;

	switch (verdict) {
	case QY_BREAKER_REFUSE:
		errno = ENOMEM;
		return NULL;
	case QY_BREAKER_REDIRECT:
		return copy(p, usable, size, arena);
	case QY_BREAKER_PROBE:
		to = resize(p, usable, size);
		qy_breaker_probed(to != NULL);
		return to;
	case QY_BREAKER_PASS:
		break;
	}
	return resize(p, usable, size);
}

void *qy_resize(void *p, size_t size)
{
	size_t usable;
	void *to;

	if (p == NULL)
		return qy_cache_malloc(size);
	if (size == 0) {
		qy_cache_free(p);
		return NULL;
	}
	if (size > PTRDIFF_MAX) {
		errno = ENOMEM;
		return NULL;
	}
	usable = qy_cache_usable(p);
	if (QY_UNLIKELY(usable == 0 || qy_taken_has(p))) {
		qy_mistake(QY_MISTAKE_FOREIGN, p);
		errno = EINVAL;
		return NULL;
	}
	qy_limits_forget_denial();
	/* (Another block, so that whoever goes on with the old one is found out.) */
	if (QY_UNLIKELY(qy_checker != QY_CHECKER_NONE))
		to = copy_in_arena(p, size);
	else
		to = size > usable && qy_breaker_minds(size) ? resize_judged(p, usable, size) : resize(p, usable, size);
	if (QY_UNLIKELY(to == NULL))
		return qy_cache_refused();
	if (to == p && qy_samples_any())
		qy_sample_asked(p, size);
	return to;
}
