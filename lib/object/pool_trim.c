/* SPDX-License-Identifier: MIT */
/* Giving back: a chunk of which all objects are in the depot goes back to the arena. Its record stays, with the
 * generation of each of its places, for the next chunk.
 *
 * Destructors run with no lock held, so that a fork(2) by another thread may leave its child a trim that nobody goes on
 * with: records that are doomed and have their chunk, of whose objects those are raw that were begun with. No object is
 * destroyed twice there: the next trim of the child's, or the pool's end, does those that are not raw. */
#include "lib/object/pool.h"

#include <errno.h>

#include "lib/api/error.h"
#include "lib/cache/taken.h"

#define DOOMED UINT32_MAX /* in qy_record.seen */

/* Which records can go; their slots, one chain. All chains of the depot are the caller's, and pool->lock is held. */
static void doom(struct qy_depot *d, struct qy_slot *all)
{
	for (struct qy_record *r = d->records; r != NULL; r = r->next)
		if (r->seen != DOOMED)
			r->seen = 0;
	for (struct qy_slot *s = all; s != NULL; s = s->next)
		s->record->seen++;
	for (struct qy_record *r = d->records; r != NULL; r = r->next) {
		bool has_chunk = atomic_load_explicit(&r->base, memory_order_relaxed) != QY_POOL_HOLLOW;

		if (!has_chunk || r->seen == DOOMED || r->raw > 0 || r->carved == 0 ||
		    r->seen + r->retired != r->carved)
			continue;
		r->seen = DOOMED;
		if (d->growing == r) /* nobody grows there */
			d->growing = NULL;
	}
}

/* What a trim that a fork cut off was still to destroy, as one chain. pool->lock is held. */
static struct qy_slot *cut_off(struct qy_depot *d)
{
	struct qy_slot *chain = NULL;

	for (struct qy_record *r = d->records; r != NULL; r = r->next)
		for (uint32_t i = 0; r->seen == DOOMED && i < r->carved; i++) {
			struct qy_slot *s = &r->slot[i];

			if (atomic_load_explicit(&s->word, memory_order_relaxed) & (QY_POOL_RAW | QY_POOL_RETIRED))
				continue;
			s->next = chain;
			chain = s;
		}
	return chain;
}

/* All chains of a depot as one, which is nobody else's from here on. */
static struct qy_slot *empty(struct qy_depot *d)
{
	struct qy_slot *all = NULL, *head, *s;

	while ((head = qy_depot_take(d)) != NULL) {
		for (s = head; s->next != NULL; s = s->next)
			;
		s->next = all;
		all = head;
	}
	return all;
}

static void split(struct qy_slot *all, struct qy_slot **doomed, struct qy_slot **kept)
{
	*doomed = *kept = NULL;
	for (struct qy_slot *s = all, *next; s != NULL; s = next) {
		struct qy_slot **to = s->record->seen == DOOMED ? doomed : kept;

		next = s->next;
		s->next = *to;
		*to = s;
	}
}

static size_t length_of(const struct qy_slot *chain)
{
	size_t n = 0;

	for (; chain != NULL; chain = chain->next)
		n++;
	return n;
}

static void destroy_chain(quarry_pool *pool, struct qy_slot *chain)
{
	for (struct qy_slot *s = chain; s != NULL; s = s->next) {
		atomic_fetch_or_explicit(&s->word, QY_POOL_RAW, memory_order_release);
		if (pool->checked && !qy_pool_show(pool, s))
			qy_pool_tell(pool, qy_slot_object(s), QUARRY_POOL_WRITTEN);
		else if (pool->destroy != NULL)
			pool->destroy(qy_slot_object(s), pool->context);
	}
}

/* A record that has hardly any place left stays as it is, for tokens. */
static void make_hollow(quarry_pool *pool, struct qy_depot *d, struct qy_record *r)
{
	qy_pool_index_remove(pool, r);
	r->seen = r->carved = r->retired = 0;
	atomic_store_explicit(&r->base, QY_POOL_HOLLOW, memory_order_release);
	if (r->lost >= pool->per_chunk - pool->per_chunk / 8)
		return;
	r->next_hollow = d->hollow;
	d->hollow = r;
}

static void free_doomed(quarry_pool *pool, struct qy_depot *d)
{
	pthread_mutex_lock(&pool->lock);
	for (struct qy_record *r = d->records; r != NULL; r = r->next) {
		uintptr_t base = atomic_load_explicit(&r->base, memory_order_relaxed);

		if (base == QY_POOL_HOLLOW || r->seen != DOOMED)
			continue;
		make_hollow(pool, d, r);
		pool->bytes -= (uint64_t)1 << pool->chunk_shift;
		qy_arena_free_held((void *)base);
	}
	pthread_mutex_unlock(&pool->lock);
}

/* What is to be destroyed is none of the pool's objects from here on, and the others are back in the depot before the
 * lock is let go: whoever finds the depot empty meanwhile may grow the pool then, up to its limit, and is not told that
 * there is nothing to be had while a destructor takes its time. */
static size_t trim(quarry_pool *pool, struct qy_depot *d)
{
	struct qy_slot *all, *doomed, *kept, *rest;
	size_t n;

	pthread_mutex_lock(&pool->lock);
	qy_pool_adopt_dead(pool);
	rest = cut_off(d);
	all = empty(d);
	doom(d, all);
	split(all, &doomed, &kept);
	(void)qy_depot_send_home(pool, kept);
	n = length_of(doomed);
	pool->objects -= n;
	pool->trimmed += n;
	n += length_of(rest); /* (counted above by whoever was cut off) */
	pthread_mutex_unlock(&pool->lock);
	destroy_chain(pool, rest);
	destroy_chain(pool, doomed);
	free_doomed(pool, d);
	return n;
}

QUARRY_API size_t quarry_pool_trim(quarry_pool *pool)
{
	void *nobody = NULL;
	size_t n = 0;

	if (qy_pool_bad(pool) ||
	    !atomic_compare_exchange_strong_explicit(&pool->trimmer, &nobody, &qy_pool_table, memory_order_acquire,
						     memory_order_relaxed))
		return 0;
	(void)quarry_pool_flush(pool);
	for (uint32_t i = 0; i < pool->depots; i++)
		n += trim(pool, &pool->depot[i]);
	atomic_store_explicit(&pool->trimmer, NULL, memory_order_release);
	return n;
}
