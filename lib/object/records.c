/* SPDX-License-Identifier: MIT */
#include "lib/object/records.h"

#include <pthread.h>

#include "lib/object/own.h"

#define SLAB_BYTES 16384
#define SLAB_RECORDS (SLAB_BYTES / sizeof(struct qy_record))

_Static_assert(sizeof(struct qy_record) == QY_CACHE_LINE, "a record is a cache line");
_Static_assert(sizeof(struct qy_record_lists) <= QY_RECORD_BODY, "a thread's lists stand in a record");

/* The first record of what was carved: what leads to all of it, in addresses as they are, for who looks for leaks. */
struct slab {
	struct slab *next;
};

/* How many records a list has that is in the depot: in the body of its first. */
struct counted {
	uint32_t count;
};

__thread struct qy_record_lists *qy_record_lists;

struct qy_lock qy_records_taking = QY_LOCK_INIT(QY_RANK_LEAF);

static _Atomic(struct qy_record *) depot;
static _Atomic(struct slab *) slabs;
static _Atomic(uint64_t) made;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t exit_key;
static bool have_exit_key;

uint64_t qy_records_made(void)
{
	return atomic_load_explicit(&made, memory_order_relaxed);
}

/* ---- the depot ---- */

static void give(struct qy_record *list, uint32_t count)
{
	((struct counted *)(void *)list->body)->count = count;
	list->below = atomic_load_explicit(&depot, memory_order_relaxed);
	while (!atomic_compare_exchange_weak_explicit(&depot, &list->below, list, memory_order_release,
						      memory_order_relaxed))
		;
}

/* Nobody else takes meanwhile, so that what is on top stays in the depot, and what is below it stays there too. (Whoever
 * has just given is on top then, and that is taken. What was given is seen with what is below it: each giving read the
 * head from one before.) */
static struct qy_record *take(uint32_t *count)
{
	struct qy_record *r;

	if (atomic_load_explicit(&depot, memory_order_relaxed) == NULL)
		return NULL;
	qy_lock(&qy_records_taking);
	r = atomic_load_explicit(&depot, memory_order_acquire);
	while (r != NULL && !atomic_compare_exchange_weak_explicit(&depot, &r, r->below, memory_order_acquire,
								   memory_order_acquire))
		;
	qy_unlock(&qy_records_taking);
	if (r == NULL)
		return NULL;
	*count = ((struct counted *)(void *)r->body)->count;
	qy_check(*count > 0 && *count <= QY_RECORDS_BATCH);
	return r;
}

/* ---- more ---- */

/* Records first to last - 1 of a slab, as a list. */
static struct qy_record *carve(struct qy_record *slab, size_t first, size_t last)
{
	for (size_t i = first; i < last; i++)
		slab[i].next = i + 1 < last ? &slab[i + 1] : NULL;
	return &slab[first];
}

static struct qy_record *grow(uint32_t *count)
{
	struct qy_record *r = qy_own_aligned(QY_CACHE_LINE, SLAB_BYTES);
	struct slab *slab = (void *)r;

	if (r == NULL)
		return NULL;
	slab->next = atomic_load_explicit(&slabs, memory_order_relaxed);
	while (!atomic_compare_exchange_weak_explicit(&slabs, &slab->next, slab, memory_order_release,
						      memory_order_relaxed))
		;
	atomic_fetch_add_explicit(&made, SLAB_RECORDS - 1, memory_order_relaxed);
	for (size_t i = QY_RECORDS_BATCH; i < SLAB_RECORDS; i += QY_RECORDS_BATCH)
		give(carve(r, i, i + QY_RECORDS_BATCH), QY_RECORDS_BATCH);
	*count = QY_RECORDS_BATCH - 1;
	return carve(r, 1, QY_RECORDS_BATCH);
}

/* ---- threads ---- */

/* Another destructor of the thread may use chains after this: it has lists anew then, and this runs again. */
static void leave(void *lists)
{
	struct qy_record_lists *l = lists;
	struct qy_record *own = lists;

	qy_record_lists = NULL;
	if (l->full != NULL)
		give(l->full, QY_RECORDS_BATCH);
	if (l->list != NULL)
		give(l->list, l->count);
	own->next = NULL;
	give(own, 1);
}

/* Who was just taking is not here: either the list is gone with him, or it is still on top. */
static void in_child(void)
{
	qy_lock_init(&qy_records_taking, QY_RANK_LEAF);
}

QY_STARTUP static void prepare(void)
{
	have_exit_key = pthread_key_create(&exit_key, leave) == 0;
	(void)pthread_atfork(NULL, NULL, in_child);
}

/* Before the program's own handlers of forks, which may use chains in the child: these run in the order in which they
 * were registered. */
__attribute__((constructor)) static void prepare_early(void)
{
	pthread_once(&once, prepare);
}

/* A thread's lists, empty, in a record of theirs. */
static struct qy_record_lists *arrive(struct qy_record *r)
{
	struct qy_record_lists *l = (void *)r->body;

	*l = (struct qy_record_lists){ .count = 0 };
	qy_record_lists = l;
	pthread_once(&once, prepare);
	if (have_exit_key)
		(void)pthread_setspecific(exit_key, l); /* where that fails, its records are lost when it ends */
	return l;
}

QY_COLD static struct qy_record *find(uint32_t *count)
{
	struct qy_record *r = take(count);

	return r != NULL ? r : grow(count);
}

QY_NOINLINE void *qy_record_get_slow(void)
{
	struct qy_record_lists *l = qy_record_lists;
	struct qy_record *r;
	uint32_t count;

	if (l == NULL) {
		pthread_once(&once, prepare); /* before it takes of the depot */
		r = find(&count);
		if (r == NULL)
			return NULL;
		l = arrive(r);
		l->list = r->next;
		l->count = count - 1;
	}
	if (l->list == NULL && l->full != NULL) {
		l->list = l->full;
		l->full = NULL;
		l->count = QY_RECORDS_BATCH;
	} else if (l->list == NULL) {
		r = find(&count);
		if (r == NULL)
			return NULL;
		l->list = r;
		l->count = count;
	}
	r = l->list;
	l->list = r->next;
	l->count--;
	return r;
}

QY_NOINLINE void qy_record_put_slow(struct qy_record *r)
{
	struct qy_record_lists *l = qy_record_lists;

	if (l == NULL) {
		arrive(r);
		return;
	}
	if (l->full != NULL)
		give(l->full, QY_RECORDS_BATCH);
	l->full = l->list;
	r->next = NULL;
	l->list = r;
	l->count = 1;
}
