/* SPDX-License-Identifier: MIT */
/* Depots: chains of free objects, each of which was a thread's magazine, on each node; and what goes home to them. */
#include "lib/object/pool.h"

#include <errno.h>

#include "lib/api/error.h"
#include "lib/base/settings.h"
#include "numa/os.h"

void qy_depot_give(struct qy_depot *d, struct qy_slot *head, uint32_t length)
{
	head->length = length;
	pthread_mutex_lock(&d->lock);
	head->chain = d->chains;
	qy_publish(d->chains, head);
	d->free += length;
	d->exchanges++;
	pthread_mutex_unlock(&d->lock);
}

struct qy_slot *qy_depot_take(struct qy_depot *d)
{
	struct qy_slot *head;

	/* (Who finds nothing and sees a chain a moment later has lost nothing but that.) */
	if (qy_peek(d->chains) == NULL)
		return NULL;
	pthread_mutex_lock(&d->lock);
	head = d->chains;
	if (head != NULL) {
		qy_publish(d->chains, head->chain);
		d->free -= head->length;
		d->exchanges++;
		head->chain = NULL;
	}
	pthread_mutex_unlock(&d->lock);
	return head;
}

/* Of the node that the thread runs on; of a node that came since the pool was made, wherever the thread was before. */
struct qy_depot *qy_depot_here(quarry_pool *pool, struct qy_depot *last)
{
	int node;

	if (pool->depots == 1)
		return &pool->depot[0];
	node = quarry_node_current();
	if (last != NULL && last->node == node)
		return last;
	for (uint32_t i = 0; i < pool->depots; i++)
		if (pool->depot[i].node == node)
			return &pool->depot[i];
	return last != NULL ? last : &pool->depot[0];
}

uint64_t qy_depot_send_home(quarry_pool *pool, struct qy_slot *chain)
{
	uint64_t sent = 0;

	while (chain != NULL) {
		struct qy_depot *d = chain->record->depot;
		struct qy_slot *mine = NULL, *others = NULL, *next;
		uint32_t length = 0;

		for (struct qy_slot *s = chain; s != NULL; s = next) {
			bool take = s->record->depot == d && length < pool->magazine;

			next = s->next;
			s->next = take ? mine : others;
			*(take ? &mine : &others) = s;
			length += take;
		}
		qy_depot_give(d, mine, length);
		sent += length;
		chain = others;
	}
	return sent;
}

void qy_pool_cache_give(quarry_pool *pool, struct qy_pool_cache *c)
{
	struct qy_slot *lists[] = { c->head, c->spare, c->away };

	c->count = c->spare_count = c->away_count = 0;
	qy_publish(c->head, NULL);
	qy_publish(c->spare, NULL);
	qy_publish(c->away, NULL);
	for (int i = 0; i < 3; i++)
		(void)qy_depot_send_home(pool, lists[i]);
}

QUARRY_API size_t quarry_pool_flush(quarry_pool *pool)
{
	struct qy_pool_cache *c;
	size_t n;

	if (qy_pool_bad(pool))
		return 0;
	c = qy_pool_cache_found(pool);
	if (c == NULL)
		return 0;
	n = (size_t)c->count + (c->spare == NULL ? 0 : c->spare_count) + c->away_count;
	qy_pool_cache_give(pool, c);
	qy_pool_flush_cleanups(c);
	return n;
}

/* ---- what a fork left ---- */

/* In a forked child, the magazines of threads that are not there. They stopped anywhere, and a chain may hang in two
 * places, or have a slot that is out by now: so slots are marked, and each is taken once, and only where it is free. */
static struct qy_slot *gather(struct qy_slot *chain, struct qy_slot *found)
{
	const uint64_t unfit = QY_POOL_LIVE | QY_POOL_CLOSING | QY_POOL_RETIRED | QY_POOL_RAW | QY_POOL_MARK;

	for (struct qy_slot *s = chain, *next; s != NULL; s = next) {
		uint64_t w = atomic_load_explicit(&s->word, memory_order_relaxed);

		next = s->next;
		/* What is marked has another chain's next. */
		if (w & QY_POOL_MARK)
			break;
		if (w & unfit)
			continue;
		atomic_store_explicit(&s->word, w | QY_POOL_MARK, memory_order_relaxed);
		s->next = found;
		found = s;
	}
	return found;
}

void qy_pool_adopt_dead(quarry_pool *pool)
{
	struct qy_slot *found = NULL;

	while (!qy_list_empty(&pool->dead)) {
		struct qy_pool_cache *c = qy_container(pool->dead.next, struct qy_pool_cache, link);

		found = gather(c->away, gather(c->spare, gather(c->head, found)));
		qy_list_remove(&c->link);
		qy_count_shared(&pool->gone_got, qy_read(&c->got));
		qy_count_shared(&pool->gone_put, qy_read(&c->put));
		qy_pool_free_cleanups(c->cleanups);
		quarry_free(c);
	}
	atomic_store_explicit(&pool->any_dead, false, memory_order_release);
	for (struct qy_slot *s = found; s != NULL; s = s->next)
		atomic_fetch_and_explicit(&s->word, ~QY_POOL_MARK, memory_order_relaxed);
	(void)qy_depot_send_home(pool, found);
}

/* ---- prefill ---- */

static uint64_t least_limit(uint64_t least, uint64_t limit)
{
	return limit != 0 && limit < least ? limit : least;
}

/* Whether there can ever be so many: of what cannot, none is to be made, or a wrong count would take the memory of all
 * before it fails. What is constructed is written to: so the machine's memory is a limit like the others. */
static bool can_be(const quarry_pool *pool, const struct qy_depot *d, uint64_t count)
{
	uint64_t places = ((uint64_t)pool->per_chunk << 32) >> pool->index_shift;
	uint64_t most = least_limit(qy_os->address_limit(), qy_os->total_memory());
	quarry_stats stats = { .version = QUARRY_STATS_VERSION };

	most = least_limit(most, (uint64_t)qy_setting(hard_limit));
	if (d->arena != NULL && quarry_stats_get(d->arena, &stats) == 0)
		most = least_limit(most, stats.hard_limit);
	if (count <= places && count <= most / pool->stride)
		return true;
	return qy_fail(ENOMEM, "count: %lu objects of %lu bytes are more than there can be", (unsigned long)count,
		       (unsigned long)pool->stride) == 0;
}

QUARRY_API int quarry_pool_prefill(quarry_pool *pool, size_t count)
{
	struct qy_depot *d;

	if (qy_pool_bad(pool))
		return -1;
	d = qy_depot_here(pool, NULL);
	if (!can_be(pool, d, pool->max != 0 ? qy_min(count, pool->max) : count))
		return -1;
	for (;;) {
		struct qy_slot *chain;
		uint64_t there;

		pthread_mutex_lock(&d->lock);
		there = d->free;
		pthread_mutex_unlock(&d->lock);
		if (there >= count)
			return 0;
		chain = qy_pool_grow(pool, d, (uint32_t)qy_min(count - there, pool->magazine));
		/* What there may be none more of may be in the caller's own magazines. */
		if (chain == NULL && errno == EAGAIN && quarry_pool_flush(pool) != 0)
			continue;
		if (chain == NULL)
			return -1;
		qy_depot_give(d, chain, chain->length);
	}
}
