/* SPDX-License-Identifier: MIT */
/* Pools made and ended, their figures, and all that is out put at once. */
#include "lib/object/pool.h"

#include <errno.h>
#include <string.h>

#include "lib/api/error.h"
#include "lib/cache/taken.h"
#include "lib/object/manager.h"
#include "lib/object/own.h"

#define SIZE_MAX_OBJECT ((size_t)1 << 30)
#define ALIGNMENT_MAX ((size_t)1 << 21)
#define CHUNK_MIN ((size_t)1 << 16)
#define CHUNK_MAX ((size_t)1 << 21) /* but for objects that are larger */
#define CHUNK_OBJECTS 32
#define MAGAZINE_BYTES ((size_t)1 << 18)

/* ---- made ---- */

static bool check(const quarry_pool_attr *attr)
{
	if (attr == NULL || attr->struct_size != sizeof(*attr))
		qy_fail(EINVAL, "struct_size: it is not that of a quarry_pool_attr");
	else if (attr->flags & ~(uint32_t)QUARRY_POOL_CHECKED)
		qy_fail(EINVAL, "flags: unknown bits in 0x%x", (unsigned)attr->flags);
	else if (attr->size == 0 || attr->size > SIZE_MAX_OBJECT)
		qy_fail(EINVAL, "size: %lu is not within 1 and 1 GiB", (unsigned long)attr->size);
	else if (attr->alignment != 0 && (!qy_is_pow2(attr->alignment) || attr->alignment > ALIGNMENT_MAX))
		qy_fail(EINVAL, "alignment: %lu is no power of two up to 2 MiB", (unsigned long)attr->alignment);
	else if (attr->magazine > QY_POOL_MAGAZINE_MAX)
		qy_fail(EINVAL, "magazine: %u is above %d", attr->magazine, QY_POOL_MAGAZINE_MAX);
	else if (attr->generation_bits > 32)
		qy_fail(EINVAL, "generation_bits: %u is above 32", attr->generation_bits);
	else if (attr->arena != NULL && !qy_manager_is_arena(attr->arena))
		qy_fail(EINVAL, "arena: there is none at %p", (const void *)attr->arena);
	else
		return true;
	return false;
}

static unsigned log2_ceil(size_t n)
{
	return n <= 1 ? 0 : qy_log2_floor(n - 1) + 1;
}

/* Chunks are powers of two, aligned to their size, so that the chunk of an object is found by its address. */
static void shape(quarry_pool *pool, const quarry_pool_attr *attr)
{
	size_t alignment = attr->alignment != 0 ? attr->alignment : attr->size < 64 ? 16 : 64;
	size_t stride = qy_align_up(attr->size, qy_max(alignment, 16));
	size_t chunk = qy_min(stride * CHUNK_OBJECTS, CHUNK_MAX);

	pool->stride = (uint32_t)stride;
	pool->chunk_shift = (uint8_t)log2_ceil(qy_max(qy_max(chunk, CHUNK_MIN), stride));
	pool->per_chunk = (uint32_t)(((size_t)1 << pool->chunk_shift) / stride);
	pool->index_shift = (uint8_t)log2_ceil(pool->per_chunk);
	/* Rounded up; for one object, whose only offset is 0, anything will do. */
	pool->reciprocal = (uint32_t)((((uint64_t)1 << 32) + stride - 1) / stride);
}

static uint32_t magazine_of(const quarry_pool *pool, const quarry_pool_attr *attr)
{
	size_t n = attr->magazine != 0 ? attr->magazine : qy_max(1, qy_min(64, MAGAZINE_BYTES / pool->stride));

	/* Where there is a limit, most objects are to be for all. */
	if (attr->magazine == 0 && attr->max != 0)
		n = qy_max(1, qy_min(n, attr->max / 16));
	return (uint32_t)n;
}

/* Numbers that follow each other are far apart (Knuth, volume 3, 6.4, on Fibonacci hashing). */
static uint32_t next_seed(uint32_t generations)
{
	static _Atomic(uint32_t) pools;
	const uint32_t hash = atomic_fetch_add_explicit(&pools, 1, memory_order_relaxed) * 0x9e3779b9u;

	return (uint32_t)((uint64_t)hash * generations >> 32);
}

static void fill(quarry_pool *pool, const quarry_pool_attr *attr, uint32_t depots)
{
	unsigned bits = attr->generation_bits == 0 ? 32 : attr->generation_bits;

	shape(pool, attr);
	pool->magic = QY_POOL_MAGIC;
	pool->checked = QY_DEBUG >= 1 || (attr->flags & QUARRY_POOL_CHECKED);
	pool->plain = !pool->checked;
	pool->generations = (uint32_t)(((uint64_t)1 << bits) - 1);
	pool->seed = next_seed(pool->generations);
	pool->magazine = magazine_of(pool, attr);
	pool->max = attr->max;
	pool->construct = attr->construct;
	pool->reset = attr->reset;
	pool->destroy = attr->destroy;
	pool->mistake = attr->mistake;
	pool->context = attr->context;
	pthread_mutex_init(&pool->lock, NULL);
	qy_list_init(&pool->caches);
	qy_list_init(&pool->dead);
	pool->depots = depots;
	for (uint32_t i = 0; i < depots; i++) {
		struct qy_depot *d = &pool->depot[i];

		pthread_mutex_init(&d->lock, NULL);
		d->node = quarry_node_id((int)i);
		d->arena = attr->arena != NULL ? attr->arena : quarry_arena_of_node(d->node);
	}
}

static void forget(quarry_pool *pool)
{
	quarry_arena *arena = pool->arena;

	for (struct qy_pool_index *index = pool->index, *before; index != NULL; index = before) {
		before = index->before;
		qy_arena_free_held(index);
	}
	for (uint32_t i = 0; i < pool->depots; i++)
		pthread_mutex_destroy(&pool->depot[i].lock);
	pthread_mutex_destroy(&pool->lock);
	pool->magic = 0;
	qy_arena_free_held(pool);
	qy_arena_let_go(arena);
}

QUARRY_API quarry_pool *quarry_pool_create(const quarry_pool_attr *attr)
{
	uint32_t depots = (uint32_t)quarry_node_count();
	size_t bytes = sizeof(quarry_pool) + depots * sizeof(struct qy_depot);
	quarry_arena *arena;
	quarry_pool *pool;

	if (!check(attr))
		return NULL;
	arena = attr->arena != NULL ? attr->arena : qy_own_arena();
	if (arena != NULL && !qy_arena_hold(arena)) /* until `forget`: chunks will come from it */
		return errno == EINVAL ? qy_fail_arena(arena) : qy_fail(ENOMEM, "no memory for a pool"), NULL;
	pool = arena == NULL ? NULL : qy_arena_alloc_held(arena, bytes, _Alignof(quarry_pool), false);
	if (pool == NULL) {
		qy_arena_let_go(arena);
		return qy_fail(ENOMEM, "no memory for a pool"), NULL;
	}
	memset(pool, 0, bytes);
	fill(pool, attr, depots);
	pool->arena = arena;
	pool->index = qy_pool_index_make(arena, 8);
	if (pool->index == NULL)
		qy_fail(ENOMEM, "no memory for a pool");
	else if (qy_pool_register(pool) != 0)
		qy_fail(errno, errno == EAGAIN ? "there are as many pools as can be" : "no memory for a pool");
	else
		return pool;
	int error = errno;
	forget(pool);
	errno = error;
	return NULL;
}

/* ---- ended ---- */

/* Nobody else is there. What is out, or was put and is entered still, is cleaned up first; what is retired, and nobody
 * was left in, was destroyed, or is damaged. */
static void destroy_slot(quarry_pool *pool, struct qy_slot *s)
{
	uint64_t w = atomic_load_explicit(&s->word, memory_order_relaxed);
	void *object = qy_slot_object(s);

	if ((w & QY_POOL_RAW) || (w & (QY_POOL_RETIRED | QY_POOL_CLOSING)) == QY_POOL_RETIRED)
		return;
	if (w & (QY_POOL_LIVE | QY_POOL_CLOSING)) {
		for (struct qy_cleanup *one = s->cleanups; one != NULL; one = one->next)
			one->fn(one->argument);
		qy_pool_free_cleanups(s->cleanups);
	} else if (pool->checked && !qy_pool_show(pool, s)) {
		qy_pool_tell(pool, object, QUARRY_POOL_WRITTEN);
		return;
	}
	if (pool->destroy != NULL)
		pool->destroy(object, pool->context);
}

static void destroy_records(quarry_pool *pool, struct qy_depot *d)
{
	for (struct qy_record *r = d->records, *next; r != NULL; r = next) {
		uintptr_t base = atomic_load_explicit(&r->base, memory_order_relaxed);

		next = r->next;
		for (uint32_t i = 0; base != QY_POOL_HOLLOW && i < r->carved; i++)
			destroy_slot(pool, &r->slot[i]);
		if (base != QY_POOL_HOLLOW)
			qy_arena_free_held((void *)base);
		qy_arena_free_held(r);
	}
}

QUARRY_API int quarry_pool_destroy(quarry_pool *pool, int force)
{
	if (pool == NULL)
		return 0;
	if (qy_pool_bad(pool))
		return -1;
	if (qy_pool_unregister(pool, force != 0) != 0)
		return qy_fail(EBUSY, "pool: objects of it are out");
	for (uint32_t i = 0; i < pool->depots; i++)
		destroy_records(pool, &pool->depot[i]);
	qy_pool_free_cleanups(pool->cleanups);
	forget(pool);
	return 0;
}

/* ---- all of it ---- */

/* The next object that is out, from a place on; its slot. Records are never fewer, nor elsewhere. */
static struct qy_slot *next_out(quarry_pool *pool, uint32_t *number, uint32_t *place)
{
	struct qy_slot *found = NULL;

	pthread_mutex_lock(&pool->lock);
	while (found == NULL && *number < pool->chunks) {
		struct qy_pool_index *index = atomic_load_explicit(&pool->index, memory_order_relaxed);
		struct qy_record *r = atomic_load_explicit(&index->by_number[*number], memory_order_relaxed);

		if (*place >= qy_min(r->carved, atomic_load_explicit(&r->made, memory_order_relaxed))) {
			++*number;
			*place = 0;
			continue;
		}
		found = &r->slot[(*place)++];
		if (!(atomic_load_explicit(&found->word, memory_order_relaxed) & QY_POOL_LIVE))
			found = NULL;
	}
	pthread_mutex_unlock(&pool->lock);
	return found;
}

QUARRY_API size_t quarry_pool_put_all(quarry_pool *pool, enum quarry_pool_how how)
{
	uint32_t number = 0, place = 0;
	struct qy_slot *s;
	size_t n = 0;

	if (qy_pool_bad(pool))
		return 0;
	while ((s = next_out(pool, &number, &place)) != NULL)
		n += qy_pool_close(pool, s, false, 0, how) == 0;
	return n;
}

/* pool->lock is held: no cache goes meanwhile, and those of dead threads are counted once. */
uint64_t qy_pool_out(quarry_pool *pool, uint64_t *got, uint64_t *put)
{
	struct qy_link *lists[] = { &pool->caches, &pool->dead };

	/* Puts first: what is put meanwhile was got before that. */
	*put = qy_read(&pool->gone_put);
	for (int i = 0; i < 2; i++)
		for (struct qy_link *l = lists[i]->next; l != lists[i]; l = l->next)
			*put += qy_read(&qy_container(l, struct qy_pool_cache, link)->put);
	*got = qy_read(&pool->gone_got);
	for (int i = 0; i < 2; i++)
		for (struct qy_link *l = lists[i]->next; l != lists[i]; l = l->next)
			*got += qy_read(&qy_container(l, struct qy_pool_cache, link)->got);
	return *got > *put ? *got - *put : 0;
}

QUARRY_API int quarry_pool_stats_get(quarry_pool *pool, quarry_pool_stats *stats)
{
	if (qy_pool_bad(pool))
		return -1;
	if (stats == NULL || stats->struct_size != sizeof(*stats))
		return qy_fail(EINVAL, "struct_size: it is not that of a quarry_pool_stats");
	memset(stats, 0, sizeof(*stats));
	stats->struct_size = sizeof(*stats);
	pthread_mutex_lock(&pool->lock);
	stats->depots = pool->depots;
	stats->in_use = qy_pool_out(pool, &stats->got, &stats->put);
	stats->grown = pool->grown;
	stats->trimmed = pool->trimmed;
	stats->retired = pool->retired;
	stats->objects = pool->objects;
	stats->cached = stats->objects > stats->in_use ? stats->objects - stats->in_use : 0;
	stats->bytes = pool->bytes;
	for (uint32_t i = 0; i < pool->depots; i++) {
		pthread_mutex_lock(&pool->depot[i].lock);
		stats->exchanges += pool->depot[i].exchanges;
		pthread_mutex_unlock(&pool->depot[i].lock);
	}
	pthread_mutex_unlock(&pool->lock);
	stats->waits = qy_read(&pool->waits);
	stats->cancelled = qy_read(&pool->cancelled);
	stats->mistakes = qy_read(&pool->mistakes);
	stats->homed = qy_read(&pool->homed);
	return 0;
}
