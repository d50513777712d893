/* SPDX-License-Identifier: MIT */
/* The caches of a thread, one per manager: a list, and a table to find them by. */
#include "lib/cache/caches.h"

#include <string.h>

#include "lib/base/lock.h"
#include "lib/manager/manager.h"

#define TABLE_FIRST 8

/* Over the lists of unused caches, the managers' ones too. */
static struct qy_lock caches_lock = QY_LOCK_INIT(QY_RANK_LEAF);
static struct qy_cache *unused_caches; /* linked by next_unused */

static size_t table_hash(const struct qy_manager *m)
{
	return ((uintptr_t)m >> 6) * 0x9e3779b97f4a7c15u >> 32;
}

static size_t table_slot(const struct qy_thread *t, const struct qy_manager *m)
{
	size_t i = table_hash(m);

	while (t->table[i & (t->table_size - 1)] != NULL &&
	       t->table[i & (t->table_size - 1)]->heap.manager != m)
		i++;
	return i & (t->table_size - 1);
}

/* The table at least half empty. Old tables are not freed: their sizes double, so they sum up to one more. */
static bool grow_table(struct qy_thread *t)
{
	uint32_t size = t->table_size == 0 ? TABLE_FIRST : t->table_size * 2;
	struct qy_cache **table;

	if (2 * (t->table_used + 1) <= t->table_size)
		return true;
	table = qy_manager_records(size * sizeof(*table), sizeof(void *));
	if (table == NULL)
		return false;
	t->table = table;
	t->table_size = size;
	for (struct qy_cache *c = t->caches; c != NULL; c = c->next)
		t->table[table_slot(t, c->heap.manager)] = c;
	return true;
}

/* With open addressing, a hole would hide others: what stands behind it and may stand in it moves there. */
static void table_remove(struct qy_thread *t, const struct qy_manager *m)
{
	size_t mask = t->table_size - 1, hole = table_slot(t, m);

	for (size_t i = (hole + 1) & mask; t->table[i] != NULL; i = (i + 1) & mask) {
		size_t wants = table_hash(t->table[i]->heap.manager) & mask;

		if (((i - wants) & mask) >= ((i - hole) & mask)) {
			t->table[hole] = t->table[i];
			hole = i;
		}
	}
	t->table[hole] = NULL;
}

/* A cache that was given up is used again for the same manager only, as long as that lives: others may still hold
 * objects for its heap, and must not take them for another manager's. */
static struct qy_cache *new_cache(struct qy_manager *m)
{
	struct qy_cache **from, *c;

	qy_lock(&caches_lock);
	from = m->unused_caches != NULL ? (struct qy_cache **)&m->unused_caches : &unused_caches;
	c = *from;
	if (c != NULL)
		*from = c->next_unused;
	qy_unlock(&caches_lock);
	if (c == NULL)
		return qy_manager_records(sizeof(*c), QY_CACHE_LINE);
	/* A late sender may still look at the heap's remote list; it stays closed until the heap is opened. */
	memset(c, 0, offsetof(struct qy_cache, next));
	qy_heap_clear(&c->heap);
	return c;
}

static void put_cache(struct qy_cache *c)
{
	struct qy_manager *m = c->heap.manager;

	qy_lock(&caches_lock);
	c->next_unused = m->unused_caches;
	m->unused_caches = c;
	qy_unlock(&caches_lock);
}

void qy_caches_release(struct qy_manager *m)
{
	struct qy_cache *c;

	qy_lock(&caches_lock);
	while ((c = m->unused_caches) != NULL) {
		m->unused_caches = c->next_unused;
		c->next_unused = unused_caches;
		unused_caches = c;
	}
	qy_unlock(&caches_lock);
}

struct qy_cache *qy_cache_for(struct qy_thread *t, struct qy_manager *m)
{
	struct qy_cache *c = t->table_size == 0 ? NULL : t->table[table_slot(t, m)];

	if (QY_LIKELY(c != NULL))
		return c;
	if (!grow_table(t))
		return NULL;
	c = new_cache(m);
	if (c == NULL)
		return NULL;
	memcpy(c->class_of, qy_class_table, sizeof(c->class_of));
	for (unsigned cls = 0; cls < QY_CLASSES; cls++)
		qy_freelist_init(&c->freed[cls], cls);
	c->thread = t;
	c->quick = c->quick_set = 1;
	c->cpu_now = &c->cpu;
	qy_heap_open(&c->heap, m, (uintptr_t)t + (m->of_node ? 0 : QY_OWNER_SHARED));
	c->heap.freed = c->freed;
	qy_publish(c->next, t->caches);
	__atomic_store_n(&t->caches, c, __ATOMIC_RELEASE); /* the viewer walks the list */
	t->table[table_slot(t, m)] = c;
	t->table_used++;
	return c;
}

void qy_caches_drop(struct qy_thread *t)
{
	while (t->caches != NULL)
		qy_cache_drop(t, &t->caches);
}

void qy_cache_drop(struct qy_thread *t, struct qy_cache **at)
{
	struct qy_cache *c = *at;

	table_remove(t, c->heap.manager);
	t->table_used--;
	__atomic_store_n(at, c->next, __ATOMIC_RELEASE);
	put_cache(c);
}
