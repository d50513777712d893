/* SPDX-License-Identifier: MIT */
/* Cleanups of an object: a list with the last that was added first. Some of its links are kept by the thread that ran
 * them, for the next: not all, since it may be one that only puts what others have got. */
#include "lib/object/pool.h"

#include <errno.h>

#include "lib/api/error.h"

/* The live slot of an object; NULL, and the error is set. */
static struct qy_slot *held(quarry_pool *pool, void *object)
{
	struct qy_slot *s;

	if (qy_pool_bad(pool))
		return NULL;
	s = qy_pool_find(pool, object);
	if (s == NULL)
		qy_fail(EINVAL, "object: %p is none of this pool", object);
	else if (atomic_load_explicit(&s->word, memory_order_relaxed) & QY_POOL_LIVE)
		return s;
	else
		qy_fail(EALREADY, "object: nobody has %p", object);
	return NULL;
}

QUARRY_API int quarry_pool_cleanup_add(quarry_pool *pool, void *object, void (*fn)(void *argument), void *argument)
{
	struct qy_slot *s = held(pool, object);
	struct qy_pool_cache *c;
	struct qy_cleanup *one;

	if (s == NULL)
		return -1;
	if (fn == NULL)
		return qy_fail(EINVAL, "fn: it is NULL");
	c = qy_pool_cache(pool);
	one = c == NULL ? NULL : c->cleanups;
	if (one != NULL) {
		c->cleanups = one->next;
		c->cleanup_count--;
	} else {
		one = quarry_arena_malloc(pool->arena, sizeof(*one));
	}
	if (one == NULL)
		return qy_fail(ENOMEM, "no memory for a cleanup");
	*one = (struct qy_cleanup){ s->cleanups, fn, argument };
	s->cleanups = one;
	return 0;
}

static void keep(struct qy_pool_cache *c, struct qy_cleanup *one)
{
	if (c == NULL || c->cleanup_count == QY_POOL_CLEANUPS_KEPT) {
		quarry_free(one);
		return;
	}
	one->next = c->cleanups;
	c->cleanups = one;
	c->cleanup_count++;
}

QUARRY_API int quarry_pool_cleanup_cancel(quarry_pool *pool, void *object, void (*fn)(void *argument), void *argument)
{
	struct qy_slot *s = held(pool, object);

	if (s == NULL)
		return -1;
	for (struct qy_cleanup **at = &s->cleanups; *at != NULL; at = &(*at)->next) {
		struct qy_cleanup *one = *at;

		if (one->fn != fn || one->argument != argument)
			continue;
		*at = one->next;
		keep(qy_pool_cache(pool), one);
		return 0;
	}
	return qy_fail(ENOENT, "object: %p has no such cleanup", object);
}

void qy_pool_run_cleanups(quarry_pool *pool, struct qy_slot *s)
{
	struct qy_cleanup *one;

	while ((one = s->cleanups) != NULL) {
		s->cleanups = one->next;
		one->fn(one->argument);
		keep(qy_pool_cache(pool), one);
	}
}

void qy_pool_free_cleanups(struct qy_cleanup *list)
{
	for (struct qy_cleanup *next; list != NULL; list = next) {
		next = list->next;
		quarry_free(list);
	}
}

void qy_pool_flush_cleanups(struct qy_pool_cache *c)
{
	struct qy_cleanup *list = c->cleanups;

	c->cleanups = NULL;
	c->cleanup_count = 0;
	qy_pool_free_cleanups(list);
}
