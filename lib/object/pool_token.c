/* SPDX-License-Identifier: MIT */
/* Tokens: late operations against the put, and waiting at an object. The word of a slot decides all of it (pool.h). */
#include "lib/object/pool.h"

#include <errno.h>

#include "lib/api/error.h"
#include "lib/base/lock.h"
#include "numa/os.h"

static bool is_life(uint64_t w, uint32_t generation)
{
	return (w & QY_POOL_LIVE) && w >> 32 == generation;
}

/* Generations go from 1 to the last; a token has them begin elsewhere, in each pool, so that one of another pool is nearly
 * always of a life that is not there. None is 0 in either. */
static uint32_t told(const quarry_pool *pool, uint64_t w)
{
	const uint64_t t = (w >> 32) + pool->seed;

	return (uint32_t)(t > pool->generations ? t - pool->generations : t);
}

static uint32_t meant(const quarry_pool *pool, quarry_token token)
{
	if (token.generation == 0 || token.generation > pool->generations)
		return 0;
	return token.generation > pool->seed ? token.generation - pool->seed :
					       token.generation + (pool->generations - pool->seed);
}

/* Of no pool, and of one that was destroyed, where that can be seen: EINVAL. */
static bool is_none(const quarry_pool *pool)
{
	return QY_UNLIKELY(pool == NULL || pool->magic != QY_POOL_MAGIC) && qy_pool_bad(pool);
}

/* The slot that a token's index means, whatever became of it; NULL when there never was one. */
static struct qy_slot *slot_at(quarry_pool *pool, quarry_token token)
{
	struct qy_pool_index *index = atomic_load_explicit(&pool->index, memory_order_acquire);
	uint32_t number = (uint32_t)((uint64_t)token.index >> pool->index_shift);
	uint32_t i = token.index - (uint32_t)((uint64_t)number << pool->index_shift);
	struct qy_record *r;

	if (number >= index->numbers)
		return NULL;
	r = atomic_load_explicit(&index->by_number[number], memory_order_acquire);
	return r != NULL && i < atomic_load_explicit(&r->made, memory_order_acquire) ? &r->slot[i] : NULL;
}

static int stale(void)
{
	errno = ESTALE; /* no text: this is an answer that programs wait for, not a mistake */
	return -1;
}

QUARRY_API quarry_token quarry_pool_token(quarry_pool *pool, void *object)
{
	const quarry_token none = { 0, 0 };
	struct qy_slot *s;
	uint64_t w;

	if (qy_pool_bad(pool))
		return none;
	s = qy_pool_find(pool, object);
	if (s == NULL)
		return qy_fail(EINVAL, "object: %p is none of this pool", object), none;
	w = atomic_load_explicit(&s->word, memory_order_relaxed);
	/* By compare and swap: two who hold the object may both ask, and who got the first token may have entered. */
	while ((w & (QY_POOL_LIVE | QY_POOL_SHARED)) == QY_POOL_LIVE)
		if (atomic_compare_exchange_weak_explicit(&s->word, &w, w | QY_POOL_SHARED, memory_order_relaxed,
							  memory_order_relaxed))
			break;
	if (!(w & QY_POOL_LIVE))
		return qy_fail(EALREADY, "object: nobody has %p", object), none;
	return (quarry_token){ s->index, told(pool, w) };
}

QUARRY_API void *quarry_pool_resolve(quarry_pool *pool, quarry_token token)
{
	struct qy_slot *s;
	uint32_t generation;
	void *object;

	if (is_none(pool))
		return NULL;
	s = slot_at(pool, token);
	generation = meant(pool, token);
	if (s != NULL && is_life(atomic_load_explicit(&s->word, memory_order_acquire), generation)) {
		object = atomic_load_explicit(&s->object, memory_order_acquire);
		/* The same life still: then that is where it is. */
		if (is_life(atomic_load_explicit(&s->word, memory_order_relaxed), generation))
			return object;
	}
	return stale(), NULL;
}

/* ---- entering and leaving ---- */

static struct qy_slot *enter(quarry_pool *pool, quarry_token token)
{
	struct qy_slot *s;
	uint32_t generation;
	uint64_t w;

	if (is_none(pool))
		return NULL;
	s = slot_at(pool, token);
	if (s == NULL)
		return stale(), NULL;
	generation = meant(pool, token);
	w = atomic_load_explicit(&s->word, memory_order_relaxed);
	do {
		if (!is_life(w, generation))
			return stale(), NULL;
		if ((w & QY_POOL_PINS) == QY_POOL_PINS)
			return qy_fail(EAGAIN, "token: its object is entered too often"), NULL;
		if (!(w & QY_POOL_SHARED)) /* (a token that nobody made, of a life that is yet to have one) */
			return stale(), NULL;
	} while (!atomic_compare_exchange_weak_explicit(&s->word, &w, w + 1, memory_order_acquire,
							memory_order_relaxed));
	return s;
}

static int leave(quarry_pool *pool, struct qy_slot *s, uint32_t generation)
{
	uint64_t w = atomic_load_explicit(&s->word, memory_order_relaxed), next;
	bool last;

	do {
		/* What was put has the next generation, or had the last. */
		uint32_t of = (uint32_t)(w >> 32);
		bool closing = w & QY_POOL_CLOSING, same = of == generation;

		if ((w & QY_POOL_PINS) == 0 || !(closing ? same || of == generation + 1 : same))
			return qy_fail(EINVAL, "token: its object is not entered");
		last = closing && (w & QY_POOL_PINS) == 1;
		next = w - 1;
		if (last)
			next &= ~QY_POOL_CLOSING;
	} while (!atomic_compare_exchange_weak_explicit(&s->word, &w, next, memory_order_acq_rel,
							memory_order_relaxed));
	if (last)
		qy_pool_finish(pool, s);
	return 0;
}

QUARRY_API void *quarry_pool_enter(quarry_pool *pool, quarry_token token)
{
	struct qy_slot *s = enter(pool, token);

	return s == NULL ? NULL : qy_slot_object(s);
}

QUARRY_API int quarry_pool_leave(quarry_pool *pool, quarry_token token)
{
	struct qy_slot *s;

	if (qy_pool_bad(pool))
		return -1;
	s = slot_at(pool, token);
	return s == NULL ? qy_fail(EINVAL, "token: there is no such object") : leave(pool, s, meant(pool, token));
}

/* ---- putting ---- */

/* Who waits counts itself, reads events, and looks at its words then: where it is not counted here, it reads what is
 * written here, and sees what was done before. */
static void wake(struct qy_slot *s)
{
	atomic_fetch_add(&s->events, 1);
	if (atomic_load(&s->waiters) != 0)
		qy_wake_all(&s->events);
}

/* The generation and the closing, at one stroke. Who waits has entered first and counted himself then, and looks at the
 * word after that: either he is seen here, or he sees what was done here. (All of these are sequentially consistent.)
 * */
int qy_pool_close(quarry_pool *pool, struct qy_slot *s, bool by_token, uint32_t generation, enum quarry_pool_how how)
{
	uint64_t w = atomic_load_explicit(&s->word, memory_order_relaxed), next;
	const bool tells = how != QUARRY_POOL_SAFE && pool->checked;
	bool stays;

	do {
		if (!(w & QY_POOL_LIVE) || (by_token && (w >> 32 != generation || !(w & QY_POOL_SHARED))))
			return by_token ? ESTALE : EALREADY;
		next = w & ~(QY_POOL_LIVE | QY_POOL_SHARED);
		if ((w & QY_POOL_SHARED) && w >> 32 == pool->generations)
			next |= QY_POOL_RETIRED;
		else if (w & QY_POOL_SHARED)
			next += QY_POOL_LIFE;
		if (w & QY_POOL_PINS)
			next |= QY_POOL_CLOSING;
		/* Who is to look for waiters enters it himself: those are of this life then, and not of the next. */
		stays = tells && (w & QY_POOL_PINS) != 0 && (w & QY_POOL_PINS) != QY_POOL_PINS;
		next += stays;
	} while (!atomic_compare_exchange_weak(&s->word, &w, next));
	if ((w & QY_POOL_PINS) == 0) {
		qy_pool_finish(pool, s);
		return 0;
	}
	/* From here on the object may be anybody's, unless this stays: the slot's own words are all that is touched. */
	if (how == QUARRY_POOL_SAFE) {
		wake(s);
	} else if (stays) {
		if (atomic_load(&s->waiters) != 0) {
			qy_pool_tell(pool, qy_slot_object(s), QUARRY_POOL_WAITED);
			wake(s);
		}
		(void)leave(pool, s, (uint32_t)(w >> 32));
	}
	return 0;
}

QUARRY_API int quarry_pool_put_token(quarry_pool *pool, quarry_token token, enum quarry_pool_how how)
{
	struct qy_slot *s;

	if (qy_pool_bad(pool))
		return -1;
	if (how != QUARRY_POOL_SAFE && how != QUARRY_POOL_FAST)
		return qy_fail(EINVAL, "how: %d is none", (int)how);
	s = slot_at(pool, token);
	return s == NULL || qy_pool_close(pool, s, true, meant(pool, token), how) != 0 ? stale() : 0;
}

/* ---- waiting ---- */

/* Milliseconds until then, at least 1; 0 when it has come. */
static uint64_t left(uint64_t until_ns)
{
	uint64_t now = until_ns == UINT64_MAX ? 0 : qy_os->now_ns();

	if (until_ns == UINT64_MAX)
		return UINT64_MAX;
	return now >= until_ns ? 0 : (until_ns - now + 999999) / 1000000;
}

static int sleep_at(quarry_pool *pool, struct qy_slot *s, const uint32_t *word, uint32_t expected, uint64_t until_ns)
{
	for (;;) {
		uint32_t seen = atomic_load(&s->events);
		uint64_t ms;

		if (!(atomic_load(&s->word) & QY_POOL_LIVE)) {
			qy_count_shared(&pool->cancelled, 1);
			return ECANCELED;
		}
		if (__atomic_load_n(word, __ATOMIC_SEQ_CST) != expected)
			return 0;
		ms = left(until_ns);
		if (ms == 0)
			return ETIMEDOUT;
		qy_count_shared(&pool->waits, 1);
		qy_sleep_on(&s->events, seen, ms);
	}
}

QUARRY_API int quarry_pool_wait(quarry_pool *pool, quarry_token token, const uint32_t *word, uint32_t expected,
				int64_t timeout_ms)
{
	uint64_t until = UINT64_MAX;
	struct qy_slot *s;
	int error;

	if (qy_pool_bad(pool))
		return -1;
	if (word == NULL || (uintptr_t)word % sizeof(*word) != 0)
		return qy_fail(EINVAL, "word: %p is none", (const void *)word);
	s = enter(pool, token);
	if (s == NULL)
		return -1;
	if (timeout_ms >= 0 && timeout_ms < INT64_MAX / 2000000)
		until = qy_os->now_ns() + (uint64_t)timeout_ms * 1000000;
	atomic_fetch_add(&s->waiters, 1);
	error = sleep_at(pool, s, word, expected, until);
	atomic_fetch_sub(&s->waiters, 1);
	(void)leave(pool, s, meant(pool, token));
	errno = error;
	return error == 0 ? 0 : -1;
}

QUARRY_API int quarry_pool_wake(quarry_pool *pool, quarry_token token)
{
	struct qy_slot *s;

	if (qy_pool_bad(pool))
		return -1;
	s = slot_at(pool, token);
	if (s == NULL || !is_life(atomic_load_explicit(&s->word, memory_order_acquire), meant(pool, token)))
		return stale();
	wake(s);
	return 0;
}
