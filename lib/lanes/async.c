/* SPDX-License-Identifier: MIT */
/* Migrations that somebody else does: a thread for each node that has some to do, which ends when it has none. */
#define _GNU_SOURCE /* pthread_setname_np */
#include <errno.h>
#include <string.h>

#include "lib/api/error.h"
#include "lib/base/lock.h"
#include "lib/base/spawn.h"
#include "lib/lanes/lanes.h"

#define WORKERS 64 /* nodes are told apart by so much */
#define MAGIC 0x636e797361u
#define LONG_MS 1000 /* a sleep; who is woken looks in any case */

struct quarry_migration {
	struct qy_link link; /* of its worker's */
	uint64_t magic;
	quarry_lanes *lanes;
	quarry_handle *handles;
	size_t count;
	int node, error;
	int64_t went;
	void (*done)(void *arg, int64_t went, int error);
	void *arg;
	_Atomic(uint32_t) over;
};

struct worker {
	struct qy_link queue;
	struct quarry_migration *current; /* it is being done */
	bool runs;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* the last of all */
static struct worker workers[WORKERS];

/* ---- the threads ---- */

/* Somebody else moves: until he does no more. (The library's own thread stays out of calls' way by itself.) */
static int64_t migrate(const struct quarry_migration *m)
{
	int64_t went;

	while ((went = quarry_handles_migrate(m->lanes, m->handles, m->count, m->node)) < 0 && errno == EBUSY) {
		qy_hold(&m->lanes->moving);
		qy_let_go(&m->lanes->moving);
	}
	return went;
}

static void do_one(struct worker *w, struct quarry_migration *m)
{
	m->went = migrate(m);
	m->error = m->went < 0 ? errno : 0;
	if (m->done != NULL)
		m->done(m->arg, m->went, m->error);
	qy_hold(&lock);
	w->current = NULL;
	atomic_store(&m->over, 1); /* with the lock, so that in a child of fork(2) it is one or the other; from here on it is the waiter's, and */
	qy_let_go(&lock);
	qy_wake(&m->over); /* this is an address alone */
}

/* Under the lock: the next of a worker's; NULL: none, and it runs no more. */
static struct quarry_migration *next(struct worker *w)
{
	struct quarry_migration *m = NULL;

	qy_hold(&lock);
	if (qy_list_empty(&w->queue)) {
		w->runs = false;
	} else {
		m = qy_container(w->queue.next, struct quarry_migration, link);
		qy_list_remove(&m->link);
	}
	w->current = m;
	qy_let_go(&lock);
	return m;
}

/* Whichever worker has something to do, and no thread. */
static struct worker *unmanned(void)
{
	struct worker *w = NULL;

	qy_hold(&lock);
	for (unsigned i = 0; i < WORKERS && w == NULL; i++)
		if (workers[i].queue.next != NULL && !qy_list_empty(&workers[i].queue) && !workers[i].runs)
			w = &workers[i];
	if (w != NULL)
		w->runs = true;
	qy_let_go(&lock);
	return w;
}

static void *run(void *unused)
{
	struct worker *w = unmanned();
	struct quarry_migration *m;

	(void)unused;
	pthread_setname_np(pthread_self(), "quarry-migrate");
	while (w != NULL && (m = next(w)) != NULL)
		do_one(w, m);
	return NULL;
}

/* ---- calls ---- */

static bool is_migration(const quarry_migration *m)
{
	if (m != NULL && m->magic == MAGIC)
		return true;
	(void)qy_fail(EINVAL, "this is no migration");
	return false;
}

static void end(quarry_migration *m)
{
	m->magic = 0;
	quarry_free(m->handles);
	quarry_free(m);
}

/* Put into its worker's queue: whether that needs a thread. */
static bool put(quarry_migration *m)
{
	struct worker *w = &workers[(unsigned)m->node % WORKERS];
	bool needed;

	qy_hold(&lock);
	if (w->queue.next == NULL)
		qy_list_init(&w->queue);
	qy_list_push_back(&w->queue, &m->link);
	needed = !w->runs;
	qy_let_go(&lock);
	return needed;
}

/* Nobody has begun it: it is nobody's. False: somebody has. */
static bool take_back(quarry_migration *m)
{
	struct worker *w = &workers[(unsigned)m->node % WORKERS];
	bool found = false;

	qy_hold(&lock);
	for (struct qy_link *k = w->queue.next; k != &w->queue && !found; k = k->next)
		found = k == &m->link;
	if (found)
		qy_list_remove(&m->link);
	qy_let_go(&lock);
	return found;
}

quarry_migration *quarry_migrate_async(quarry_lanes *l, const quarry_handle *h, size_t count, int node,
				       void (*done)(void *arg, int64_t went, int error), void *arg)
{
	quarry_migration *m;

	if (!qy_lanes_check(l))
		return NULL;
	if ((h == NULL && count > 0) || quarry_arena_of_node(node) == NULL) {
		(void)qy_fail(EINVAL, h == NULL ? "handles: NULL" : "node: there is no node %d", node);
		return NULL;
	}
	m = quarry_calloc(1, sizeof(*m));
	if (m != NULL)
		m->handles = count > SIZE_MAX / sizeof(*h) ? NULL : quarry_malloc(qy_max(count, 1) * sizeof(*h));
	if (m == NULL || m->handles == NULL) {
		quarry_free(m);
		(void)qy_fail(ENOMEM, "no memory for %lu handles", (unsigned long)count);
		return NULL;
	}
	if (count > 0)
		memcpy(m->handles, h, count * sizeof(*h));
	m->magic = MAGIC;
	m->lanes = l;
	m->count = count;
	m->node = node;
	m->done = done;
	m->arg = arg;
	if (put(m) && !qy_spawn(run) && take_back(m)) {
		end(m);
		(void)qy_fail(EAGAIN, "no thread is to be had");
		return NULL;
	}
	return m;
}

int quarry_migration_done(const quarry_migration *m)
{
	return is_migration(m) ? (int)atomic_load(&m->over) : -1;
}

int64_t quarry_migration_wait(quarry_migration *m)
{
	int64_t went;
	int error;

	if (!is_migration(m))
		return -1;
	if (qy_in_scope())
		return qy_fail(EDEADLK, "the thread is in a scope, which the migration would wait for");
	while (atomic_load(&m->over) == 0)
		qy_sleep_on(&m->over, 0, LONG_MS);
	went = m->went;
	error = m->error;
	end(m);
	if (went < 0)
		return qy_fail(error, "the migration failed");
	return went;
}

/* ---- fork(2) ---- */

void qy_async_before_fork(void)
{
	pthread_mutex_lock(&lock);
}

static void cancel(struct quarry_migration *m)
{
	m->went = -1;
	m->error = ECANCELED;
	atomic_store(&m->over, 1);
}

/* Nobody is at it in a child: what waits there, or was begun, is over. */
void qy_async_after_fork(bool child)
{
	for (unsigned i = 0; i < WORKERS && child; i++) {
		struct worker *w = &workers[i];

		if (w->current != NULL)
			cancel(w->current);
		w->current = NULL;
		w->runs = false;
		while (w->queue.next != NULL && !qy_list_empty(&w->queue)) {
			struct quarry_migration *m = qy_container(w->queue.next, struct quarry_migration, link);

			qy_list_remove(&m->link);
			cancel(m);
		}
	}
	pthread_mutex_unlock(&lock);
}
