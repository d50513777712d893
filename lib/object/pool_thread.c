/* SPDX-License-Identifier: MIT */
/* Which thread has which magazines: found by a table of each thread's, by the pool's number. The end of a thread is
 * heard by a key of pthreads', as any program would; fork holds all locks. */
#include "lib/object/pool.h"

#include <errno.h>
#include <string.h>

#include "lib/api/error.h"
#include "lib/object/own.h"

#define TABLE_MIN 8

static struct qy_pool_table nobody; /* of a thread that has none: no pool is found in it */

pthread_mutex_t qy_pool_registry = PTHREAD_MUTEX_INITIALIZER;
__thread struct qy_pool_table *qy_pool_table __attribute__((tls_model("initial-exec"))) = &nobody;

/* Under the registry's lock. */
static quarry_pool **pools; /* by number; NULL: free */
static uint32_t pools_size;
static struct qy_link tables = { &tables, &tables };

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t end_key;
static bool have_key;

/* ---- caches ---- */

/* pool->lock is held, or nobody else has the pool. */
static void forget_cache(quarry_pool *pool, struct qy_pool_cache *c)
{
	qy_list_remove(&c->link);
	qy_count_shared(&pool->gone_got, qy_read(&c->got));
	qy_count_shared(&pool->gone_put, qy_read(&c->put));
	qy_pool_free_cleanups(c->cleanups);
	quarry_free(c);
}

/* What comes after this in the thread has a table anew, and its end is heard again (POSIX: as often as
 * PTHREAD_DESTRUCTOR_ITERATIONS). */
static void thread_ends(void *ending)
{
	struct qy_pool_table *table = ending;

	qy_pool_table = &nobody;
	pthread_mutex_lock(&qy_pool_registry);
	for (uint32_t id = 0; id < table->size; id++) {
		struct qy_pool_cache *c = table->of[id];
		quarry_pool *pool;

		if (c == NULL)
			continue;
		pool = c->pool;
		qy_pool_cache_give(pool, c);
		pthread_mutex_lock(&pool->lock);
		forget_cache(pool, c);
		pthread_mutex_unlock(&pool->lock);
	}
	qy_list_remove(&table->link);
	pthread_mutex_unlock(&qy_pool_registry);
	quarry_free(table);
}

/* A table that has room for a pool's number; the registry's lock is held. */
static struct qy_pool_table *table_for(uint32_t id)
{
	struct qy_pool_table *old = qy_pool_table, *table;
	uint32_t size = (uint32_t)qy_max(qy_max(TABLE_MIN, 2 * (size_t)old->size), (size_t)id + 1);

	if (id < old->size)
		return old;
	table = qy_own_calloc(1, sizeof(*table) + size * sizeof(table->of[0]));
	if (table == NULL || pthread_setspecific(end_key, table) != 0) {
		quarry_free(table);
		return NULL;
	}
	table->size = size;
	for (uint32_t i = 0; i < old->size; i++) {
		table->of[i] = old->of[i];
		if (table->of[i] != NULL)
			table->of[i]->table = table;
	}
	qy_list_push_back(&tables, &table->link);
	qy_pool_table = table;
	if (old != &nobody) {
		qy_list_remove(&old->link);
		quarry_free(old);
	}
	return table;
}

/* NULL when there is no memory for it: the caller goes to the depots then. errno stays. */
struct qy_pool_cache *qy_pool_cache_make(quarry_pool *pool)
{
	struct qy_pool_table *table;
	struct qy_pool_cache *c = NULL;
	int error = errno;

	pthread_mutex_lock(&qy_pool_registry);
	table = have_key ? table_for(pool->id) : NULL;
	if (table != NULL)
		c = qy_own_calloc(1, sizeof(*c));
	if (c != NULL) {
		c->limit = pool->magazine;
		c->depot = qy_depot_here(pool, NULL);
		c->pool = pool;
		c->table = table;
		pthread_mutex_lock(&pool->lock);
		qy_list_push_back(&pool->caches, &c->link);
		pthread_mutex_unlock(&pool->lock);
		table->of[pool->id] = c;
	}
	pthread_mutex_unlock(&qy_pool_registry);
	errno = error;
	return c;
}

/* ---- fork ---- */

static void before_fork(void)
{
	pthread_mutex_lock(&qy_pool_registry);
	for (uint32_t id = 0; id < pools_size; id++) {
		if (pools[id] == NULL)
			continue;
		pthread_mutex_lock(&pools[id]->lock);
		for (uint32_t i = 0; i < pools[id]->depots; i++)
			pthread_mutex_lock(&pools[id]->depot[i].lock);
	}
}

static void after_fork(void)
{
	for (uint32_t id = 0; id < pools_size; id++) {
		if (pools[id] == NULL)
			continue;
		for (uint32_t i = 0; i < pools[id]->depots; i++)
			pthread_mutex_unlock(&pools[id]->depot[i].lock);
		pthread_mutex_unlock(&pools[id]->lock);
	}
	pthread_mutex_unlock(&qy_pool_registry);
}

/* Other threads are not there. What they had in their magazines is looked for when the depot is empty, not here: most
 * children run another program soon. */
static void in_child(void)
{
	struct qy_link *l, *next;

	for (l = tables.next; l != &tables; l = next) {
		struct qy_pool_table *table = qy_container(l, struct qy_pool_table, link);

		next = l->next;
		if (table == qy_pool_table)
			continue;
		for (uint32_t id = 0; id < table->size; id++) {
			struct qy_pool_cache *c = table->of[id];

			if (c == NULL)
				continue;
			qy_list_remove(&c->link);
			qy_list_push_back(&c->pool->dead, &c->link);
			atomic_store_explicit(&c->pool->any_dead, true, memory_order_release);
		}
		qy_list_remove(&table->link);
		quarry_free(table);
	}
	/* (A destructor may have forked: its trim goes on here.) */
	for (uint32_t id = 0; id < pools_size; id++)
		if (pools[id] != NULL && atomic_load_explicit(&pools[id]->trimmer, memory_order_relaxed) != &qy_pool_table)
			atomic_store_explicit(&pools[id]->trimmer, NULL, memory_order_relaxed);
	after_fork();
}

/* ---- pools ---- */

static void start(void)
{
	have_key = pthread_key_create(&end_key, thread_ends) == 0;
	(void)pthread_atfork(before_fork, after_fork, in_child);
}

static int find_number(void)
{
	uint32_t id = 0, size = pools_size == 0 ? TABLE_MIN : 2 * pools_size;
	quarry_pool **more;

	while (id < pools_size && pools[id] != NULL)
		id++;
	if (id < pools_size)
		return (int)id;
	if (pools_size == QY_POOL_MAX_ID) {
		errno = EAGAIN;
		return -1;
	}
	more = qy_own_calloc(size, sizeof(*pools));
	if (more == NULL)
		return -1;
	if (pools_size != 0)
		memcpy(more, pools, pools_size * sizeof(*more));
	quarry_free(pools);
	pools = more;
	pools_size = size;
	return (int)id;
}

int qy_pool_register(quarry_pool *pool)
{
	int id;

	pthread_once(&once, start);
	pthread_mutex_lock(&qy_pool_registry);
	id = find_number();
	if (id >= 0) {
		pool->id = (uint32_t)id;
		pools[id] = pool;
	}
	pthread_mutex_unlock(&qy_pool_registry);
	return id < 0 ? -1 : 0;
}

int qy_pool_unregister(quarry_pool *pool, bool force)
{
	struct qy_link *lists[] = { &pool->caches, &pool->dead };
	uint64_t got, put;
	bool out;

	pthread_mutex_lock(&qy_pool_registry);
	pthread_mutex_lock(&pool->lock);
	out = qy_pool_out(pool, &got, &put) != 0;
	pthread_mutex_unlock(&pool->lock);
	if (out && !force) {
		pthread_mutex_unlock(&qy_pool_registry);
		return EBUSY;
	}
	for (int i = 0; i < 2; i++)
		while (!qy_list_empty(lists[i])) {
			struct qy_pool_cache *c = qy_container(lists[i]->next, struct qy_pool_cache, link);

			if (i == 0) /* (the tables of dead threads are gone) */
				c->table->of[pool->id] = NULL;
			forget_cache(pool, c);
		}
	pools[pool->id] = NULL;
	pthread_mutex_unlock(&qy_pool_registry);
	return 0;
}
