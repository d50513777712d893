/* SPDX-License-Identifier: MIT */
/* Growing: chunks come from the arena of a depot, and objects are begun with and constructed in them, some at a time,
 * so that memory that nobody needed is never touched. */
#include "lib/object/pool.h"

#include <errno.h>
#include <string.h>

#include "lib/api/error.h"
#include "lib/cache/taken.h"

/* ---- the index ---- */

struct qy_pool_index *qy_pool_index_make(quarry_arena *arena, uint32_t numbers)
{
	size_t places = 4 * (size_t)numbers;
	struct qy_pool_index *index =
		qy_arena_alloc_held(arena, sizeof(*index) + (places + numbers) * sizeof(index->by_base[0]), 16, true);

	if (index == NULL)
		return NULL;
	index->mask = (uint32_t)(places - 1);
	index->shift = 64 - qy_log2_floor(places);
	index->numbers = numbers;
	index->by_number = index->by_base + places;
	return index;
}

static struct qy_record *at(struct qy_pool_index *index, uint32_t i)
{
	return atomic_load_explicit(&index->by_base[i], memory_order_relaxed);
}

static uint32_t home_of(const quarry_pool *pool, const struct qy_pool_index *index, struct qy_record *r)
{
	return qy_pool_hash(index, atomic_load_explicit(&r->base, memory_order_relaxed) >> pool->chunk_shift);
}

void qy_pool_index_add(const quarry_pool *pool, struct qy_pool_index *index, struct qy_record *r)
{
	uint32_t i = home_of(pool, index, r);

	while (at(index, i) != NULL)
		i = (i + 1) & index->mask;
	atomic_store_explicit(&index->by_base[i], r, memory_order_release);
}

/* What moves up stands in both places for a moment. Who comes past the one before that, and to the other after it,
 * misses it. */
void qy_pool_index_remove(quarry_pool *pool, struct qy_record *r)
{
	struct qy_pool_index *index = atomic_load_explicit(&pool->index, memory_order_relaxed);
	uint32_t i = home_of(pool, index, r), gap;
	struct qy_record *other;

	while (at(index, i) != r)
		i = (i + 1) & index->mask;
	gap = i;
	while ((other = at(index, i = (i + 1) & index->mask)) != NULL) {
		/* It would be found in the gap if its way from home comes by there, being no shorter than the gap's. */
		if (((i - home_of(pool, index, other)) & index->mask) < ((i - gap) & index->mask))
			continue;
		atomic_store_explicit(&index->by_base[gap], other, memory_order_release);
		gap = i;
	}
	atomic_store_explicit(&index->by_base[gap], NULL, memory_order_release);
}

struct qy_slot *qy_pool_find(quarry_pool *pool, const void *p)
{
	struct qy_slot *s = qy_pool_slot_of(pool, p);

	if (s != NULL)
		return s;
	pthread_mutex_lock(&pool->lock);
	s = qy_pool_slot_of(pool, p);
	pthread_mutex_unlock(&pool->lock);
	return s;
}

/* Room for so many records, by number and by base. */
static bool index_reserve(quarry_pool *pool, uint32_t numbers)
{
	struct qy_pool_index *index = atomic_load_explicit(&pool->index, memory_order_relaxed), *more;

	if (numbers <= index->numbers)
		return true;
	more = qy_pool_index_make(pool->arena, 2 * index->numbers);
	if (more == NULL)
		return false;
	for (uint32_t i = 0; i < pool->chunks; i++) {
		struct qy_record *r = atomic_load_explicit(&index->by_number[i], memory_order_relaxed);

		atomic_store_explicit(&more->by_number[i], r, memory_order_relaxed);
		if (atomic_load_explicit(&r->base, memory_order_relaxed) != QY_POOL_HOLLOW)
			qy_pool_index_add(pool, more, r);
	}
	more->before = index;
	atomic_store_explicit(&pool->index, more, memory_order_release);
	return true;
}

/* ---- chunks; pool->lock is held ---- */

static struct qy_record *new_record(quarry_pool *pool, struct qy_depot *d)
{
	size_t bytes = sizeof(struct qy_record) + pool->per_chunk * sizeof(struct qy_slot);
	struct qy_record *r;

	if (pool->chunks >= (uint64_t)1 << (32 - pool->index_shift) || !index_reserve(pool, pool->chunks + 1))
		return NULL;
	r = qy_arena_alloc_held(d->arena, bytes, _Alignof(struct qy_record), false);
	if (r == NULL)
		return NULL;
	memset(r, 0, sizeof(*r));
	r->base = QY_POOL_HOLLOW;
	r->depot = d;
	r->number = pool->chunks++;
	r->next = d->records;
	d->records = r;
	r->next_hollow = d->hollow;
	d->hollow = r;
	pool->bytes += bytes;
	atomic_store_explicit(&atomic_load_explicit(&pool->index, memory_order_relaxed)->by_number[r->number], r,
			      memory_order_release);
	return r;
}

/* A record of before that has lost its chunk, or a new one. */
static struct qy_record *new_chunk(quarry_pool *pool, struct qy_depot *d)
{
	size_t bytes = (size_t)1 << pool->chunk_shift;
	struct qy_record *r = d->hollow;
	void *base;

	if (r == NULL)
		r = new_record(pool, d);
	if (r == NULL)
		return NULL;
	base = qy_arena_alloc_held(d->arena, bytes, bytes, false);
	if (base == NULL || !qy_taken_add(base)) {
		qy_arena_free_held(base);
		return NULL;
	}
	d->hollow = r->next_hollow;
	pool->bytes += bytes;
	atomic_store_explicit(&r->base, (uintptr_t)base, memory_order_relaxed);
	qy_pool_index_add(pool, atomic_load_explicit(&pool->index, memory_order_relaxed), r);
	return r;
}

/* The next place of a chunk; NULL when it is used up for ever. */
static struct qy_slot *carve_from(const quarry_pool *pool, struct qy_record *r)
{
	uint32_t i = r->carved++;
	struct qy_slot *s = &r->slot[i];
	void *object = (char *)atomic_load_explicit(&r->base, memory_order_relaxed) + (size_t)i * pool->stride;

	if (i >= atomic_load_explicit(&r->made, memory_order_relaxed)) {
		memset(s, 0, sizeof(*s));
		s->word = QY_POOL_LIFE; /* no token is all zero */
		s->record = r;
		s->index = r->number << pool->index_shift | i;
		atomic_store_explicit(&s->object, object, memory_order_relaxed);
		atomic_store_explicit(&r->made, i + 1, memory_order_release);
	} else if (atomic_load_explicit(&s->word, memory_order_relaxed) & QY_POOL_RETIRED) {
		r->retired++;
		return NULL;
	}
	atomic_store_explicit(&s->object, object, memory_order_relaxed);
	return s;
}

static struct qy_slot *carve(quarry_pool *pool, struct qy_depot *d)
{
	struct qy_slot *s = d->raw;

	if (s != NULL) {
		d->raw = s->next;
		s->record->raw--;
	}
	while (s == NULL) {
		if (d->growing == NULL || d->growing->carved == pool->per_chunk)
			d->growing = new_chunk(pool, d);
		if (d->growing == NULL)
			return NULL;
		s = carve_from(pool, d->growing);
	}
	atomic_fetch_or_explicit(&s->word, QY_POOL_RAW, memory_order_relaxed);
	return s;
}

/* ---- objects ---- */

static struct qy_slot *reserve(quarry_pool *pool, struct qy_depot *d, uint32_t want)
{
	struct qy_slot *chain = NULL, *s;

	if (pool->max != 0)
		want = (uint32_t)qy_min(want, pool->max - pool->objects);
	errno = EAGAIN;
	for (; want > 0 && (s = carve(pool, d)) != NULL; want--) {
		s->next = chain;
		chain = s;
		pool->objects++;
	}
	if (want > 0)
		errno = ENOMEM;
	return chain;
}

static void put_raw(quarry_pool *pool, struct qy_depot *d, struct qy_slot *chain)
{
	pthread_mutex_lock(&pool->lock);
	for (struct qy_slot *s = chain, *next; s != NULL; s = next) {
		next = s->next;
		s->next = d->raw;
		d->raw = s;
		s->record->raw++;
		pool->objects--;
	}
	pthread_mutex_unlock(&pool->lock);
}

/* Constructs until one fails: what is left goes back as it is. */
static struct qy_slot *construct(quarry_pool *pool, struct qy_depot *d, struct qy_slot *raw)
{
	struct qy_slot *chain = NULL, *s;
	uint32_t length = 0;
	int error = 0;

	while ((s = raw) != NULL) {
		void *object = qy_slot_object(s);

		memset(object, 0, pool->stride);
		error = pool->construct == NULL ? 0 : pool->construct(object, pool->context);
		if (error != 0)
			break;
		raw = s->next;
		s->chain = NULL;
		if (pool->checked)
			qy_pool_hide(pool, s);
		atomic_fetch_and_explicit(&s->word, ~QY_POOL_RAW, memory_order_release);
		s->next = chain;
		chain = s;
		length++;
	}
	if (raw != NULL)
		put_raw(pool, d, raw);
	pthread_mutex_lock(&pool->lock);
	pool->grown += length;
	pthread_mutex_unlock(&pool->lock);
	if (chain == NULL)
		errno = error;
	else
		chain->length = length;
	return chain;
}

struct qy_slot *qy_pool_grow(quarry_pool *pool, struct qy_depot *d, uint32_t want)
{
	struct qy_slot *raw;
	int error;

	pthread_mutex_lock(&pool->lock);
	raw = reserve(pool, d, want);
	error = errno;
	pthread_mutex_unlock(&pool->lock);
	errno = error;
	return raw == NULL ? NULL : construct(pool, d, raw);
}

/* Nobody will have that place again. What is damaged is not destroyed: its contents would lead anywhere. */
void qy_pool_retire(quarry_pool *pool, struct qy_slot *s, bool destroy)
{
	if (destroy && pool->destroy != NULL)
		pool->destroy(qy_slot_object(s), pool->context);
	pthread_mutex_lock(&pool->lock);
	atomic_fetch_or_explicit(&s->word, QY_POOL_RETIRED, memory_order_relaxed);
	s->record->retired++;
	s->record->lost++;
	pool->retired++;
	pool->objects--;
	pthread_mutex_unlock(&pool->lock);
}
