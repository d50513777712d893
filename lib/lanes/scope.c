/* SPDX-License-Identifier: MIT */
/* Scopes, and grace periods: when all that were open are over. And what threads have of lanes, which ends with them.
 *
 * Each thread has a record with the epoch in which its outermost scope began, 0 outside. It is written without a fence.
 * Who waits moves the epoch on and has the kernel fence all threads: a thread whose record still says 0 then has not
 * loaded anything in its scope yet, and will see all that was written before. Records are never freed, for they are
 * read without a lock; those of threads that ended are used again. */
#include <errno.h>
#include <sched.h>

#include "lib/api/error.h"
#include "lib/base/lock.h"
#include "lib/lanes/events.h"
#include "lib/lanes/fast.h"
#include "lib/lanes/figures.h"
#include "numa/os.h"

__thread struct qy_lanes_record *qy_lanes_record;
static _Atomic(struct qy_lanes_record *) records;
_Atomic(uint64_t) qy_epoch = 1;
_Atomic(uint64_t) qy_epoch_safe = 1;
_Atomic(bool) qy_fenceless;

#define BUSY_NS 5000000 /* until lanes are asked again that somebody else is packing */
#define ROUND_STEP 257u /* generations */
#define YIELDS_NS 1000000 /* who has less time left keeps the processor: others may have it for longer than that */

static pthread_mutex_t registry = PTHREAD_MUTEX_INITIALIZER;
static quarry_lanes *all[QY_LANES_MAX]; /* under the registry's lock */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static bool key_made;

/* Threads in scopes without a record, for want of memory: the process goes on without anybody being moved or freed, rather
 * than without a scope. */
static _Atomic(uint32_t) unrecorded;
static __thread uint32_t unrecorded_depth;

/* ---- threads ---- */

void qy_lanes_flush(quarry_lanes *l)
{
	struct qy_lanes_cache *c = qy_lanes_record == NULL ? NULL : atomic_load(&qy_lanes_record->cache[l->id]);

	if (c != NULL)
		qy_takers_end(l, c);
}

static void cache_end(quarry_lanes *l, struct qy_lanes_cache *c)
{
	qy_takers_end(l, c);
	qy_slots_give_all(l, c);
	quarry_free(c);
}

static void thread_ends(void *ending)
{
	struct qy_lanes_record *r = ending;

	qy_hold(&registry);
	for (int id = 0; id < QY_LANES_MAX; id++) {
		struct qy_lanes_cache *c = atomic_exchange(&r->cache[id], NULL);

		if (c != NULL) {
			qy_slots_flush(all[id], c, 0);
			cache_end(all[id], c);
		}
	}
	qy_let_go(&registry);
	qy_lanes_record = NULL;
	quarry_free(r->glances);
	r->glances = NULL;
	r->refused = 0;
	r->depth = 0;
	atomic_store_explicit(&r->taking, 0, memory_order_release);
	atomic_store_explicit(&r->epoch, 0, memory_order_release);
	atomic_store_explicit(&r->used, false, memory_order_release);
}

/* (The program's own functions of pthread_atfork(3) run between this and what is done after the fork: what they allocate is in the
 * midst of lanes.) */
static void before_fork(void)
{
	qy_quiet++;
	pthread_mutex_lock(&registry);
	for (int id = 0; id < QY_LANES_MAX; id++)
		if (all[id] != NULL) {
			pthread_mutex_lock(&all[id]->groups.lock);
			if (all[id]->cold != NULL)
				qy_cold_before_fork(all[id]->cold);
			pthread_mutex_lock(&all[id]->lock);
			pthread_mutex_lock(&all[id]->slots.lock);
			pthread_mutex_lock(&all[id]->events.lock);
		}
	qy_async_before_fork();
}

static void unlock_all(bool child)
{
	qy_async_after_fork(child);
	for (int id = QY_LANES_MAX - 1; id >= 0; id--)
		if (all[id] != NULL) {
			pthread_mutex_unlock(&all[id]->events.lock);
			pthread_mutex_unlock(&all[id]->slots.lock);
			pthread_mutex_unlock(&all[id]->lock);
			if (all[id]->cold != NULL)
				qy_cold_after_fork(all[id]->cold, child);
			pthread_mutex_unlock(&all[id]->groups.lock);
		}
	pthread_mutex_unlock(&registry);
}

static void after_fork(void)
{
	unlock_all(false);
	qy_quiet--;
}

static void recount(struct qy_lanes_record *r)
{
	for (int id = 0; id < QY_LANES_MAX; id++) {
		struct qy_lanes_cache *c = atomic_load(&r->cache[id]);

		if (c != NULL)
			qy_takers_recount(all[id], c);
	}
}

/* The parent's other threads are not here: their scopes are over, and what they had of lanes goes back. A move that was
 * under way never ends, and is undone before the child does anything: later the places that it took may be others'. */
static void in_child(void)
{
	bool others = false;

	unlock_all(true);
	for (int id = 0; id < QY_LANES_MAX; id++)
		if (all[id] != NULL) {
			qy_moves_undo(all[id]);
			qy_transfers_undo(all[id]);
			qy_takers_recount(all[id], &all[id]->mover);
			for (struct qy_lanes_cache *c = all[id]->recalled; c != NULL; c = c->next)
				qy_takers_recount(all[id], c);
		}
	for (struct qy_lanes_record *r = atomic_load(&records); r != NULL; r = r->next)
		if (r != qy_lanes_record && atomic_load(&r->used)) {
			struct qy_lanes_record *me = qy_lanes_record;

			recount(r);
			thread_ends(r);
			qy_lanes_record = me;
			others = true;
		}
	for (int id = 0; id < QY_LANES_MAX; id++)
		if (all[id] != NULL) {
			pthread_mutex_init(&all[id]->moving, NULL);
			all[id]->confined = false;
			atomic_store(&all[id]->hurried, false);
			all[id]->mover_home = 0;
			qy_opt_in_child(all[id]);
			qy_figures_in_child(all[id]);
			qy_lanes_events_in_child(all[id]);
			atomic_store(&all[id]->governor.due, UINT64_MAX); /* nobody is at it here */
			atomic_store(&all[id]->governor.news, false);
			all[id]->governor.pack_due = UINT64_MAX;
			all[id]->governor.not_before = 0;
			all[id]->governor.packed = (quarry_lanes_event){ 0 };
			atomic_store(&all[id]->governor.inside, false);
			atomic_store(&all[id]->governor.wanted, 0);
			if (others)
				qy_fast_keep(all[id]);
		}
	atomic_store(&unrecorded, unrecorded_depth > 0);
	qy_background_in_child();
	qy_quiet--;
}

static void start(void)
{
	key_made = pthread_key_create(&key, thread_ends) == 0;
	(void)pthread_atfork(before_fork, after_fork, in_child);
	atomic_store(&qy_fenceless, qy_os->membarrier(QY_MEMBARRIER_REGISTER_PRIVATE_EXPEDITED) == 0);
}

QY_COLD struct qy_lanes_record *qy_lanes_record_make(void)
{
	struct qy_lanes_record *r = atomic_load(&records);

	pthread_once(&once, start);
	if (!key_made) {
		errno = ENOMEM;
		return NULL;
	}
	for (; r != NULL; r = r->next) {
		bool was = false;

		if (atomic_compare_exchange_strong(&r->used, &was, true))
			break;
	}
	if (r == NULL) {
		qy_quiet++;
		r = quarry_aligned_alloc(QY_CACHE_LINE, sizeof(*r));
		qy_quiet--;
		if (r == NULL)
			return NULL;
		*r = (struct qy_lanes_record){ .used = true };
		r->next = atomic_load(&records);
		while (!atomic_compare_exchange_weak(&records, &r->next, r))
			;
	}
	if (pthread_setspecific(key, r) != 0) {
		atomic_store_explicit(&r->used, false, memory_order_release);
		errno = ENOMEM;
		return NULL;
	}
	atomic_thread_fence(memory_order_seq_cst); /* is_alone */
	return qy_lanes_record = r;
}

/* ---- scopes ---- */

void qy_scope_fence(void)
{
	atomic_thread_fence(memory_order_seq_cst);
}

void quarry_enter(void)
{
	struct qy_lanes_record *r = qy_lanes_record;

	if (QY_UNLIKELY(r == NULL) && (unrecorded_depth > 0 || (r = qy_lanes_record_make()) == NULL)) {
		if (unrecorded_depth++ == 0)
			atomic_fetch_add(&unrecorded, 1);
		return;
	}
	qy_scope_enter(r);
}

void quarry_leave(void)
{
	struct qy_lanes_record *r = qy_lanes_record;

	if (QY_UNLIKELY(r == NULL || r->depth == 0)) {
		if (unrecorded_depth > 0 && --unrecorded_depth == 0)
			atomic_fetch_sub(&unrecorded, 1);
		return;
	}
	qy_scope_leave(r);
}

bool qy_in_scope(void)
{
	return (qy_lanes_record != NULL && qy_lanes_record->depth > 0) || unrecorded_depth > 0;
}

/* ---- grace periods ---- */

/* After a fence: whether no other thread has a record. Then nobody is to be fenced, and the system call, which may wait
 * for another processor, is saved: whoever gets a record after this look has a fence behind that, and sees what was
 * written before it. (Who reads optimistically needs none: the caller's own fence stands between the epoch and all that is
 * done by it.) */
static bool is_alone(void)
{
	if (QY_UNLIKELY(atomic_load(&unrecorded) != 0))
		return false;
	for (struct qy_lanes_record *r = atomic_load(&records); r != NULL; r = r->next)
		if (r != qy_lanes_record && atomic_load(&r->used))
			return false;
	return true;
}

uint64_t qy_grace_begin(void)
{
	uint64_t e = atomic_fetch_add(&qy_epoch, 1) + 1;

	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load_explicit(&qy_fenceless, memory_order_relaxed) && !is_alone() &&
	    qy_os->membarrier(QY_MEMBARRIER_PRIVATE_EXPEDITED) != 0)
		qy_check(!"membarrier(2) that was registered fails");
	return e;
}

bool qy_grace_look(uint64_t e)
{
	uint64_t was = atomic_load(&qy_epoch_safe);

	if (was >= e)
		return true;
	if (atomic_load(&unrecorded) != 0)
		return false;
	for (struct qy_lanes_record *r = atomic_load_explicit(&records, memory_order_acquire); r != NULL; r = r->next) {
		uint64_t began = atomic_load_explicit(&r->epoch, memory_order_acquire);

		if (began != 0 && began < e)
			return false;
	}
	while (was < e && !atomic_compare_exchange_weak(&qy_epoch_safe, &was, e))
		;
	return true;
}

bool qy_grace_wait(uint64_t e, uint64_t deadline)
{
	for (unsigned n = 0; !qy_grace_look(e); n++) {
		uint64_t now = deadline == 0 ? 0 : qy_os->now_ns();

		if (deadline != 0 && now >= deadline)
			return false;
		if (n > 16 && (deadline == 0 || deadline - now > YIELDS_NS))
			sched_yield();
		else
			qy_spin();
	}
	return true;
}

/* ---- lanes ---- */

QY_COLD struct qy_lanes_cache *qy_lanes_cache_make(quarry_lanes *l)
{
	struct qy_lanes_record *r = qy_lanes_record;
	struct qy_lanes_cache *c;

	if (r == NULL && (r = qy_lanes_record_make()) == NULL)
		return NULL;
	/* Without the registry's lock, which may not be waited for here (groups.lock may be held): only the thread itself has one
	 * where there was none, and who recalls it takes it by an exchange. */
	qy_quiet++;
	c = quarry_calloc(1, sizeof(*c));
	qy_quiet--;
	atomic_store_explicit(&r->cache[l->id], c, memory_order_release);
	return c;
}

/* With the registry locked, which this gives back. */
static uint32_t recall(quarry_lanes *l)
{
	uint32_t caches = 0;

	for (struct qy_lanes_record *r = atomic_load(&records); r != NULL; r = r->next) {
		struct qy_lanes_cache *c = atomic_exchange(&r->cache[l->id], NULL);

		if (c == NULL)
			continue;
		c->whose = r;
		c->next = l->recalled;
		l->recalled = c;
		caches++;
	}
	pthread_mutex_unlock(&registry);
	l->recalled_epoch = qy_grace_begin();
	qy_count(&l->recalls, caches);
	return caches;
}

uint32_t qy_recall_begin(quarry_lanes *l)
{
	if (l->recalled != NULL)
		return 0;
	pthread_mutex_lock(&registry);
	return recall(l);
}

void qy_recall_try(quarry_lanes *l)
{
	if (l->recalled == NULL && pthread_mutex_trylock(&registry) == 0)
		(void)recall(l);
}

bool qy_recall_end(quarry_lanes *l)
{
	return qy_recall_end_by(l, 0);
}

/* A thread that uses one since before is in a scope since before, or taking. */
bool qy_recall_end_by(quarry_lanes *l, uint64_t deadline)
{
	bool ended = false;

	if (l->recalled == NULL)
		return true;
	if (!qy_grace_look(l->recalled_epoch))
		return false;
	for (struct qy_lanes_cache **at = &l->recalled, *c; (c = *at) != NULL;) {
		if (ended && deadline != 0 && qy_os->now_ns() >= deadline)
			return false;
		if (atomic_load_explicit(&c->whose->taking, memory_order_acquire) != 0) {
			at = &c->next;
			continue;
		}
		*at = c->next;
		cache_end(l, c);
		ended = true;
	}
	return l->recalled == NULL;
}

quarry_lanes *qy_lanes_due(uint32_t *id, uint64_t now, uint64_t *next)
{
	quarry_lanes *l = NULL;

	pthread_mutex_lock(&registry);
	for (; l == NULL && *id < QY_LANES_MAX; (*id)++) {
		struct qy_governor *g = all[*id] == NULL ? NULL : &all[*id]->governor;
		uint64_t due = g == NULL || !g->on ? UINT64_MAX : atomic_load(&g->due);

		if (due == UINT64_MAX && g != NULL && atomic_load(&g->news))
			due = g->not_before;
		if (due <= now && qy_try_hold(&all[*id]->moving))
			l = all[*id];
		else if (due <= now)
			*next = qy_min(*next, now + BUSY_NS);
		else
			*next = qy_min(*next, due);
	}
	if (l != NULL)
		atomic_store(&l->governor.inside, true);
	pthread_mutex_unlock(&registry);
	return l;
}

quarry_lanes *qy_lanes_walk(uint32_t number, bool wait)
{
	quarry_lanes *l;
	bool busy;

	/* (Who walks may wait for one who waits for the registry: so nobody waits for him with that locked.) */
	for (;;) {
		if (wait)
			pthread_mutex_lock(&registry);
		else if (pthread_mutex_trylock(&registry) != 0)
			return NULL;
		l = number < QY_LANES_MAX ? all[number] : NULL;
		busy = l != NULL && !qy_try_hold(&l->figures->walk);
		pthread_mutex_unlock(&registry);
		if (!busy || !wait)
			return busy ? NULL : l;
		sched_yield();
	}
}

/* The numbers go round, and generations begin elsewhere each time (a sixteenth of them is given for it): so a handle of lanes
 * that ended is for long no handle of others. */
int qy_lanes_register(quarry_lanes *l)
{
	static uint32_t last; /* number that was given; */
	static uint16_t round[QY_LANES_MAX]; /* how often each was; both under the registry's lock */

	pthread_once(&once, start);
	pthread_mutex_lock(&registry);
	for (uint32_t n = 0; n < QY_LANES_MAX - 1 && l->id == 0; n++) {
		uint32_t id = (last + n) % (QY_LANES_MAX - 1) + 1;

		if (all[id] != NULL)
			continue;
		all[id] = l;
		l->id = last = id;
		l->slots.first = (uint16_t)(1 + round[id]++ * ROUND_STEP % (l->generations / 16 + 1));
	}
	pthread_mutex_unlock(&registry);
	return l->id == 0 ? qy_fail(EAGAIN, "there are 127 lanes already") : 0;
}

void qy_lanes_unregister(quarry_lanes *l)
{
	qy_hold(&registry);
	all[l->id] = NULL;
	for (struct qy_lanes_record *r = atomic_load(&records); r != NULL; r = r->next)
		quarry_free(atomic_exchange(&r->cache[l->id], NULL));
	qy_let_go(&registry);
	/* Who looks at them looks no longer, */
	pthread_mutex_lock(&l->figures->walk);
	pthread_mutex_unlock(&l->figures->walk);
	/* nor is the mover at them. */
	atomic_fetch_add(&l->governor.wanted, 1);
	pthread_mutex_lock(&l->moving);
	pthread_mutex_unlock(&l->moving);
	while (l->recalled != NULL) {
		struct qy_lanes_cache *c = l->recalled;

		l->recalled = c->next;
		quarry_free(c);
	}
}
