/* SPDX-License-Identifier: MIT */
/* Getting and putting: the hits, and what stands behind them (pool.h). */
#include "lib/object/pool.h"

#include <errno.h>

#include "lib/api/error.h"

bool qy_pool_bad(const quarry_pool *pool)
{
	if (pool != NULL && pool->magic == QY_POOL_MAGIC)
		return false;
	qy_fail(EINVAL, "pool: there is none at %p", (const void *)pool);
	return true;
}

/* The same, and that of many objects there is an array. */
static bool bad_bulk(const quarry_pool *pool, const void *objects, size_t count)
{
	if (qy_pool_bad(pool))
		return true;
	if (objects != NULL || count == 0)
		return false;
	qy_fail(EINVAL, "objects: it is NULL");
	return true;
}

/* ---- get ---- */

/* A new life begins. Nobody can meet it before a token is made of it. */
QY_INLINE void *begin(struct qy_slot *s)
{
	uint64_t w = atomic_load_explicit(&s->word, memory_order_relaxed);

	qy_assert(!(w & (QY_POOL_LIVE | QY_POOL_CLOSING | QY_POOL_RETIRED | QY_POOL_RAW | QY_POOL_PINS)));
	atomic_store_explicit(&s->word, (w & QY_POOL_LIVES) | QY_POOL_LIVE, memory_order_release);
	return qy_slot_object(s);
}

/* One slot, and more in c, which is empty; or NULL. */
static struct qy_slot *refill_from(struct qy_pool_cache *c, struct qy_depot *d, struct qy_slot *chain)
{
	struct qy_slot *rest = chain->next;
	uint32_t length = chain->length - 1;

	if (c != NULL) {
		c->count = length;
		qy_publish(c->head, rest);
	} else if (rest != NULL) {
		qy_depot_give(d, rest, length);
	}
	return chain;
}

/* What is of other nodes stays apart from the magazines, so that those go to the depot as they are. */
static struct qy_slot *take_away(quarry_pool *pool, struct qy_pool_cache *c)
{
	struct qy_slot *s = c == NULL ? NULL : c->away;

	for (uint32_t i = 0; s == NULL && i < pool->depots; i++) {
		s = qy_depot_take(&pool->depot[i]);
		if (s != NULL && c == NULL)
			return refill_from(NULL, &pool->depot[i], s);
		if (s != NULL)
			c->away_count = s->length;
	}
	if (s != NULL && c != NULL) {
		c->away_count--;
		qy_publish(c->away, s->next);
	}
	return s;
}

/* The node that the thread runs on may be another by now: then all that it holds goes home. */
static void settle(quarry_pool *pool, struct qy_pool_cache *c)
{
	struct qy_depot *d = qy_depot_here(pool, c->depot);

	if (QY_LIKELY(d == c->depot))
		return;
	qy_pool_cache_give(pool, c);
	c->depot = d;
}

static QY_COLD struct qy_slot *refill(quarry_pool *pool, struct qy_pool_cache *c)
{
	struct qy_slot *s = c == NULL ? NULL : c->spare;
	struct qy_depot *d;

	if (s != NULL) {
		c->count = c->spare_count - 1;
		qy_publish(c->spare, NULL);
		qy_publish(c->head, s->next);
		return s;
	}
	if (c != NULL)
		settle(pool, c);
	d = c != NULL ? c->depot : qy_depot_here(pool, NULL);
	s = qy_depot_take(d);
	/* (Who trims has the depot's chains for a moment, under the lock.) */
	if (s == NULL && (atomic_load_explicit(&pool->any_dead, memory_order_acquire) ||
			  atomic_load_explicit(&pool->trimmer, memory_order_acquire) != NULL)) {
		pthread_mutex_lock(&pool->lock);
		qy_pool_adopt_dead(pool);
		pthread_mutex_unlock(&pool->lock);
		s = qy_depot_take(d);
	}
	if (s == NULL)
		s = qy_pool_grow(pool, d, pool->magazine);
	return s != NULL ? refill_from(c, d, s) : take_away(pool, c);
}

struct qy_slot *qy_pool_next_free(quarry_pool *pool, struct qy_pool_cache *c)
{
	struct qy_slot *s = c == NULL ? NULL : c->head;

	if (s == NULL)
		return refill(pool, c);
	c->count--;
	qy_publish(c->head, s->next);
	return s;
}

static void *get(quarry_pool *pool, struct qy_pool_cache *c)
{
	struct qy_slot *s;

	while ((s = qy_pool_next_free(pool, c)) != NULL) {
		if (pool->checked && !qy_pool_show(pool, s)) {
			qy_pool_tell(pool, qy_slot_object(s), QUARRY_POOL_WRITTEN);
			qy_pool_retire(pool, s, false);
			continue;
		}
		if (c != NULL)
			qy_count(&c->got, 1);
		else
			qy_count_shared(&pool->gone_got, 1);
		return begin(s);
	}
	return NULL;
}

static QY_COLD void *get_slow(quarry_pool *pool)
{
	return qy_pool_bad(pool) ? NULL : get(pool, qy_pool_cache(pool));
}

QUARRY_API void *quarry_pool_get(quarry_pool *pool)
{
	struct qy_pool_cache *c = pool == NULL ? NULL : qy_pool_cache_found(pool);
	struct qy_slot *s;

	if (QY_UNLIKELY(c == NULL || (s = c->head) == NULL || pool->checked))
		return get_slow(pool);
	c->count--;
	qy_publish(c->head, s->next);
	qy_count(&c->got, 1);
	return begin(s);
}

/* As many as the loaded magazine has. */
static size_t get_loaded(struct qy_pool_cache *c, void **objects, size_t count)
{
	struct qy_slot *s = c->head;
	size_t n = 0;

	for (; n < count && s != NULL; n++) {
		struct qy_slot *next = s->next;

		qy_publish(c->head, next);
		objects[n] = begin(s);
		s = next;
	}
	c->count -= (uint32_t)n;
	qy_count(&c->got, n);
	return n;
}

QUARRY_API size_t quarry_pool_get_bulk(quarry_pool *pool, void **objects, size_t count)
{
	struct qy_pool_cache *c;
	size_t n = 0;

	if (bad_bulk(pool, objects, count))
		return 0;
	c = qy_pool_cache(pool);
	while (n < count) {
		if (c != NULL && !pool->checked)
			n += get_loaded(c, objects + n, count - n);
		if (n == count || (objects[n] = get(pool, c)) == NULL)
			break;
		n++;
	}
	return n;
}

/* ---- put ---- */

/* Both magazines are full: the one that was not touched for longer goes to the depot. */
static QY_COLD void overflow(quarry_pool *pool, struct qy_pool_cache *c)
{
	struct qy_slot *old;
	uint32_t length;

	settle(pool, c);
	old = c->spare;
	length = c->spare_count;
	c->spare_count = c->count;
	qy_publish(c->spare, c->head);
	qy_publish(c->head, NULL);
	c->count = 0;
	if (old != NULL)
		qy_depot_give(c->depot, old, length);
}

static QY_COLD void put_away(quarry_pool *pool, struct qy_pool_cache *c, struct qy_slot *s)
{
	s->next = c->away;
	__atomic_store_n(&c->away, s, __ATOMIC_RELEASE);
	if (++c->away_count < c->limit)
		return;
	s = c->away;
	c->away_count = 0;
	qy_publish(c->away, NULL);
	qy_count_shared(&pool->homed, qy_depot_send_home(pool, s));
}

QY_INLINE void push(struct qy_pool_cache *c, struct qy_slot *s)
{
	s->next = c->head;
	__atomic_store_n(&c->head, s, __ATOMIC_RELEASE); /* whoever has stopped the thread finds the chain whole */
	c->count++;
}

void qy_pool_push(quarry_pool *pool, struct qy_pool_cache *c, struct qy_slot *s)
{
	if (c == NULL) {
		s->next = NULL;
		qy_depot_give(s->record->depot, s, 1);
		return;
	}
	if (c->count >= c->limit)
		overflow(pool, c);
	if (s->record->depot == c->depot)
		push(c, s);
	else
		put_away(pool, c, s);
}

void qy_pool_finish(quarry_pool *pool, struct qy_slot *s)
{
	struct qy_pool_cache *c;

	if (s->cleanups != NULL)
		qy_pool_run_cleanups(pool, s);
	if (pool->reset != NULL)
		pool->reset(qy_slot_object(s), pool->context);
	c = qy_pool_cache(pool);
	if (c != NULL)
		qy_count(&c->put, 1);
	else
		qy_count_shared(&pool->gone_put, 1);
	if (atomic_load_explicit(&s->word, memory_order_relaxed) & QY_POOL_RETIRED) {
		qy_pool_retire(pool, s, true);
		return;
	}
	if (pool->checked)
		qy_pool_hide(pool, s);
	qy_pool_push(pool, c, s);
}

static QY_COLD int put_slow(quarry_pool *pool, void *object, enum quarry_pool_how how)
{
	struct qy_slot *s;
	int error;

	if (qy_pool_bad(pool))
		return -1;
	if (how != QUARRY_POOL_SAFE && how != QUARRY_POOL_FAST)
		return qy_fail(EINVAL, "how: %d is none", (int)how);
	s = qy_pool_find(pool, object);
	if (s == NULL) {
		qy_pool_tell(pool, object, QUARRY_POOL_FOREIGN);
		return qy_fail(EINVAL, "object: %p is none of this pool", object);
	}
	error = qy_pool_close(pool, s, false, 0, how);
	if (error == 0)
		return 0;
	qy_pool_tell(pool, object, QUARRY_POOL_TWICE);
	return qy_fail(error, "object: nobody has %p, it is put twice", object);
}

/* (Apart, so that who has nothing to reset saves no registers.) */
static QY_NOINLINE int reset_and_push(quarry_pool *pool, struct qy_pool_cache *c, struct qy_slot *s)
{
	pool->reset(qy_slot_object(s), pool->context);
	qy_count(&c->put, 1);
	push(c, s);
	return 0;
}

/* Who puts what it does not have is told by the word. That two threads put the same at once is told where a token was
 * made, and in a checked pool: then one of them loses a compare and swap. */
QY_INLINE int put(quarry_pool *pool, struct qy_pool_cache *c, void *object, enum quarry_pool_how how)
{
	struct qy_slot *s;
	uint64_t w;

	if (QY_UNLIKELY(c == NULL || !pool->plain || (unsigned)how > QUARRY_POOL_FAST ||
			(s = qy_pool_slot_of(pool, object)) == NULL))
		return put_slow(pool, object, how);
	w = atomic_load_explicit(&s->word, memory_order_relaxed);
	if (QY_UNLIKELY((w & (QY_POOL_LIVE | QY_POOL_SHARED)) != QY_POOL_LIVE || s->cleanups != NULL ||
			s->record->depot != c->depot || c->count >= c->limit))
		return put_slow(pool, object, how);
	atomic_store_explicit(&s->word, w & ~QY_POOL_LIVE, memory_order_release);
	if (pool->reset != NULL)
		return reset_and_push(pool, c, s);
	qy_count(&c->put, 1);
	push(c, s);
	return 0;
}

QUARRY_API int quarry_pool_put(quarry_pool *pool, void *object, enum quarry_pool_how how)
{
	return put(pool, pool == NULL ? NULL : qy_pool_cache_found(pool), object, how);
}

QUARRY_API size_t quarry_pool_put_bulk(quarry_pool *pool, void *const *objects, size_t count, enum quarry_pool_how how)
{
	struct qy_pool_cache *c;
	size_t n = 0;

	if (bad_bulk(pool, objects, count))
		return 0;
	c = qy_pool_cache(pool);
	for (size_t i = 0; i < count; i++)
		n += put(pool, c, objects[i], how) == 0;
	return n;
}
