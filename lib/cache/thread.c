/* SPDX-License-Identifier: MIT */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "lib/cache/thread.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>

#include "lib/base/checker.h"
#include "lib/base/settings.h"
#include "lib/base/tables.h"
#include "lib/cache/caches.h"
#include "lib/cache/fork.h"
#include "lib/cache/idle.h"
#include "lib/cache/threads.h"
#include "lib/manager/limits.h"
#include "lib/manager/manager.h"
#include "lib/reclaim/reclaim.h"
#include "numa/os.h"

#define BUCKETS QY_THREAD_BUCKETS

/* The cache of a thread that has none yet: every list is empty, so every malloc comes to the slow path. */
const struct qy_cache qy_no_cache;

/* Until qy_start fills it in, nobody's cache has a table of classes; index 0 of zeros will do. */
__thread struct qy_tls qy_tls __attribute__((tls_model("initial-exec"))) = {
	(struct qy_cache *)&qy_no_cache, QY_OWNER_NONE, NULL
};

struct qy_lock qy_threads_pause_lock = QY_LOCK_INIT(QY_RANK_FORK);
struct qy_lock qy_threads_lock = QY_LOCK_INIT(QY_RANK_REGISTRY);
struct qy_link qy_thread_buckets[BUCKETS], qy_thread_parks[QY_THREAD_PARKS], qy_threads_giving_up, qy_threads_unused;
_Atomic(uint32_t) qy_threads_paused;
static _Atomic(uint32_t) live;
static _Atomic(bool) had_threads; /* of the program's */
_Atomic(uint64_t) qy_threads_stirred = 1;
static pthread_key_t exit_key;
static bool have_exit_key;
struct qy_thread *qy_thread_records;
bool qy_threads_watching;

/* ---- start ---- */

const struct qy_elsewhere *qy_elsewhere;

enum { START_NOT, START_RUNNING, START_DONE, START_FAILED };
static _Atomic(int) start_state;
static __thread bool starting __attribute__((tls_model("initial-exec")));

static void leave_thread(void *thread);

/* The thread has said good-bye: what it does after that must start nothing, or the process might never end. */
static __thread bool gone __attribute__((tls_model("initial-exec")));

/* The reclaimer's does, and who called qy_thread_serve. */
static __thread bool serves __attribute__((tls_model("initial-exec")));

void qy_thread_serve(void)
{
	serves = true;
}

bool qy_thread_gone(void)
{
	return gone;
}

static void make_lists(void)
{
	for (unsigned i = 0; i < BUCKETS; i++)
		qy_list_init(&qy_thread_buckets[i]);
	for (unsigned i = 0; i < QY_THREAD_PARKS; i++)
		qy_list_init(&qy_thread_parks[i]);
	qy_list_init(&qy_threads_giving_up);
	qy_list_init(&qy_threads_unused);
}

__thread bool qy_threads_cut __attribute__((tls_model("initial-exec")));

static enum qy_chore_left chore(uint64_t now, uint64_t until_ns)
{
	long decay = qy_limits_threads_decay(qy_limits_decay(qy_setting(decay_ms)));
	bool more;

	if (now >= QY_CHORE_ALL_AGAIN)
		return qy_threads_give_up_all(now == QY_CHORE_ALL_AGAIN) ? QY_CHORE_MORE : QY_CHORE_NONE;
	if (atomic_load_explicit(&had_threads, memory_order_relaxed) && qy_threads_live() == 0)
		qy_reclaim_stop();
	qy_threads_cut = false;
	more = qy_threads_tidy(now, decay < 0 ? UINT64_MAX : (uint64_t)decay, until_ns);
	if (qy_setting(idle_threads) && decay >= 0)
		more |= qy_threads_idle(now, qy_max((uint64_t)decay / 4, 1), until_ns);
	return qy_threads_cut ? QY_CHORE_CUT : more ? QY_CHORE_MORE : QY_CHORE_NONE;
}

/* What the caller's own thread holds, at a moment at which it is in none of its caches. */
static uint64_t own(uint64_t now, uint64_t until_ns)
{
	long decay = qy_limits_threads_decay(qy_limits_decay(qy_setting(decay_ms)));

	return decay < 0 || !qy_setting(idle_threads)
		       ? UINT64_MAX
		       : qy_idle_own(now, qy_max((uint64_t)decay / 4, 1), until_ns);
}

static bool inside(void)
{
	return qy_tls.thread != NULL && qy_tls.thread->depth > 0;
}

static bool known(void)
{
	return qy_tls.thread != NULL && !gone;
}

static const struct qy_reclaim_layer layer = { .chore = chore, .own = own, .inside = inside, .known = known };

static bool start_once(void)
{
	qy_elsewhere = qy_find_elsewhere();
	if (qy_elsewhere != NULL)
		return false;
	qy_options_init();
	qy_checker_init();
	qy_threads_watching = qy_checker != QY_CHECKER_NONE;
	make_lists();
	if (!qy_managers_start())
		return false;
	qy_reclaim_set_layer(&layer);
	qy_fork_register();
	have_exit_key = pthread_key_create(&exit_key, leave_thread) == 0;
	return true;
}

bool qy_start(void)
{
	int state = atomic_load_explicit(&start_state, memory_order_acquire);

	if (QY_LIKELY(state == START_DONE))
		return true;
	if (state == START_FAILED || starting)
		return false;
	qy_tables_begin();
	state = START_NOT;
	if (atomic_compare_exchange_strong(&start_state, &state, START_RUNNING)) {
		starting = true;
		state = start_once() ? START_DONE : START_FAILED;
		starting = false;
		atomic_store_explicit(&start_state, state, memory_order_release);
	}
	while ((state = atomic_load_explicit(&start_state, memory_order_acquire)) == START_RUNNING)
		sched_yield();
	return state == START_DONE;
}

struct qy_cache *qy_thread_cache(struct qy_thread *t)
{
	return QY_UNLIKELY(atomic_load_explicit(&t->idle, memory_order_relaxed) & QY_TURNED) ? t->turned : qy_tls.cache;
}

/* ---- entering ---- */

#define SPINS 5000 /* some 0.1 ms */

/* Who looks at what a watched thread holds lets it go so soon that to sleep and be woken up would take longer. */
static bool is_soon_let_go(struct qy_thread *t, uint32_t idle)
{
	for (unsigned n = 0; (idle & QY_WATCHED) && n < SPINS; n++) {
		qy_spin();
		if (!(atomic_load_explicit(&t->idle, memory_order_relaxed) & QY_HELD))
			return true;
	}
	return false;
}

/* All are paused, or this one is held: it waits as one that is out. (It has a depth, which tells the holder that it
 * waits here and not in a call of the program's.) */
static QY_COLD void wait_to_enter(struct qy_thread *t)
{
	uint32_t idle;

	for (;;) {
		bool pausing = atomic_load_explicit(&qy_threads_paused, memory_order_seq_cst);

		idle = atomic_load_explicit(&t->idle, memory_order_seq_cst);
		if (!pausing && !(idle & QY_HELD))
			break;
		atomic_store_explicit(&t->busy, 0, memory_order_release);
		if (pausing) {
			qy_lock(&qy_threads_pause_lock);
			qy_unlock(&qy_threads_pause_lock);
		} else {
			atomic_store_explicit(&t->waits, 1, memory_order_relaxed);
			if (!is_soon_let_go(t, idle))
				qy_sleep_on(&t->idle, idle, UINT64_MAX);
		}
		atomic_store_explicit(&t->busy, 1, memory_order_seq_cst);
	}
	if (atomic_load_explicit(&t->waits, memory_order_relaxed) != 0)
		atomic_store_explicit(&t->waits, 0, memory_order_relaxed);
	if (idle & QY_WATCHED)
		qy_thread_be_watched(t);
	else if (idle != 0)
		qy_thread_return(t);
}

/* Either the pauser, or holder, sees this thread busy and waits, or lets it be; or this thread sees that it is to wait
 * (both orders are sequentially consistent). */
static void enter(struct qy_thread *t)
{
	uint32_t depth = t->depth;

	qy_publish(t->depth, depth + 1);
	if (depth > 0)
		return;
	qy_checker_hush(true);
	atomic_store_explicit(&t->busy, 1, memory_order_seq_cst);
	if (QY_UNLIKELY((atomic_load_explicit(&qy_threads_paused, memory_order_seq_cst) |
			 atomic_load_explicit(&t->idle, memory_order_seq_cst)) != 0))
		wait_to_enter(t);
}

void qy_thread_leave(struct qy_thread *t)
{
	uint32_t depth = t->depth - 1;

	qy_publish(t->depth, depth);
	if (depth > 0)
		return;
	atomic_store_explicit(&t->busy, 0, memory_order_release);
	qy_checker_hush(false);
}

static struct qy_link *park_of(int node)
{
	return &qy_thread_parks[(unsigned)node % QY_THREAD_PARKS];
}

void qy_thread_park(struct qy_thread *t)
{
	if (t->chosen != NULL)
		atomic_fetch_sub_explicit(&t->chosen->default_users, 1, memory_order_relaxed);
	t->chosen = NULL;
	t->home = -1;
	t->cpu_now = NULL;
	qy_publish(t->tls, NULL);
	t->depth = 0;
	t->sampled = 0;
	t->resizes = 0;
	/* In a forked child: it may have been about to see that it is to wait. */
	atomic_store_explicit(&t->busy, 0, memory_order_relaxed);
	atomic_store_explicit(&t->waits, 0, memory_order_relaxed);
	qy_publish(t->state, QY_THREAD_PARKED);
	atomic_fetch_add_explicit(&qy_threads_stirred, 1, memory_order_seq_cst);
	t->parked_at = qy_os->now_ms();
	qy_list_remove(&t->link);
	qy_list_push_front(park_of(t->node), &t->link);
	if (!t->service)
		atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
}

/* A thread that is gone but never said so has left its slow path, or died in it (then its lists cannot be trusted, and
 * its memory is left as it is). Not the caller itself: after a fork that no handler saw, it has another number. The
 * registry's lock is held. */
static void bury_if_dead(struct qy_thread *t, int newcomer)
{
	/* (Who holds one looks itself whether it lives.) */
	if (atomic_load_explicit(&t->idle, memory_order_relaxed) & QY_HELD)
		return;
	/* Who has the number of a newcomer had it before. */
	if (t == qy_tls.thread || (t->tid != newcomer && qy_os->thread_alive(t->pid, t->tid)))
		return;
	if (atomic_load_explicit(&t->busy, memory_order_acquire) == 0) {
		qy_thread_park(t);
		return;
	}
	qy_list_remove(&t->link);
	if (!t->service)
		atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
}

/* Look at some threads of a bucket, those that were not looked at longest. The registry's lock is held. */
static void bury_some(struct qy_link *bucket, unsigned at_most, int newcomer)
{
	struct qy_link *last = bucket->prev;

	while (at_most-- > 0 && !qy_list_empty(bucket)) {
		struct qy_link *l = bucket->next;

		qy_list_remove(l);
		qy_list_push_back(bucket, l);
		bury_if_dead(qy_container(l, struct qy_thread, link), newcomer);
		if (l == last)
			return;
	}
}

void qy_threads_find_dead(void)
{
	for (unsigned i = 0; i < BUCKETS; i++) {
		qy_lock(&qy_threads_lock);
		bury_some(&qy_thread_buckets[i], UINT_MAX, -1);
		qy_unlock(&qy_threads_lock);
	}
}

/* Threads that come one after the other have rings in others' records that do not get into each other's way
 * (send.h). */
static struct qy_thread *new_record(void)
{
	static _Atomic(unsigned) made;
	char *p = qy_manager_records(sizeof(struct qy_thread) + QY_OUT_RINGS * QY_CACHE_LINE, QY_CACHE_LINE);
	struct qy_thread *t;
	unsigned want;

	if (p == NULL)
		return NULL;
	want = atomic_fetch_add_explicit(&made, 1, memory_order_relaxed);
	t = (void *)(p + (want - qy_out_index((uintptr_t)p)) % QY_OUT_RINGS * QY_CACHE_LINE);
	t->made_before = __atomic_load_n(&qy_thread_records, __ATOMIC_RELAXED);
	while (!__atomic_compare_exchange_n(&qy_thread_records, &t->made_before, t, true, __ATOMIC_RELEASE, __ATOMIC_RELAXED)) {
	}
	return t;
}

/* The rest of what was due when a fork left the record behind (note_due). By whoever has it now. */
static void look_at_left_behind(struct qy_thread *t)
{
	if (QY_LIKELY(!t->left_behind))
		return;
	t->left_behind = false;
	for (struct qy_cache *c = t->caches; c != NULL; c = c->next)
		qy_heap_note_due(&c->heap);
}

/* A parked thread of this node with all its memory, or a new one. */
static struct qy_thread *take_thread(int node, int tid)
{
	static unsigned next_bucket;
	struct qy_thread *t = NULL;
	struct qy_link *from = NULL;

	qy_lock(&qy_threads_lock);
	/* Each newcomer looks at a few others, so that those who die without telling are found as fast as
	 * others come. */
	bury_some(&qy_thread_buckets[(unsigned)tid % BUCKETS], 4, tid);
	for (int n = 0; n < 8; n++)
		bury_some(&qy_thread_buckets[next_bucket++ % BUCKETS], 1, -1);
	serves |= qy_reclaim_is_caller();
	/* (Such a thread has no use for what others left, and would keep it.) */
	if (!serves && !qy_list_empty(park_of(node)))
		from = park_of(node)->next;
	else if (!qy_list_empty(&qy_threads_unused))
		from = qy_threads_unused.next;
	if (from != NULL) {
		t = qy_container(from, struct qy_thread, link);
		qy_list_remove(&t->link);
		for (struct qy_cache *c = t->caches; c != NULL; c = c->next)
			qy_count(&c->heap.adopted, qy_read(&c->heap.slabs));
	} else {
		/* A patched mmap may allocate: not with the lock held. */
		qy_unlock(&qy_threads_lock);
		t = new_record();
		qy_lock(&qy_threads_lock);
	}
	/* (One that was parked is where it was, until it arrives with all that it has.) */
	if (t != NULL && t->caches == NULL)
		t->node = node;
	if (t != NULL) {
		t->pid = qy_os->process_id();
		qy_publish(t->tid, tid);
		qy_publish(t->state, QY_THREAD_LIVE);
		t->quiet = 0;
		atomic_fetch_add_explicit(&qy_threads_stirred, 1, memory_order_seq_cst);
		qy_publish(t->service, serves);
		if (qy_threads_watching)
			atomic_fetch_or_explicit(&t->idle, QY_WATCHED, memory_order_seq_cst);
		qy_list_push_front(&qy_thread_buckets[(unsigned)tid % BUCKETS], &t->link);
		if (!t->service) {
			atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
			atomic_store_explicit(&had_threads, true, memory_order_relaxed);
		}
	}
	qy_unlock(&qy_threads_lock);
	return t;
}

static QY_COLD struct qy_thread *attach(void)
{
	struct qy_thread *t;
	int node;

	if (!qy_start()) {
		errno = ENOMEM;
		return NULL;
	}
	node = qy_manager_node();
	t = take_thread(node, qy_os->thread_id());
	if (t == NULL)
		return NULL;
	enter(t);
	look_at_left_behind(t);
	if (!qy_thread_arrive(t, node)) {
		qy_thread_leave(t);
		qy_lock(&qy_threads_lock);
		qy_thread_park(t);
		qy_unlock(&qy_threads_lock);
		errno = ENOMEM;
		return NULL;
	}
	/* glibc allocates for keys above 31; by now that works. Whoever will not tell when it ends is never held: its
	 * thread-local storage might be gone. */
	if (have_exit_key && pthread_setspecific(exit_key, t) == 0 && !gone && !t->service)
		__atomic_store_n(&t->tls, &qy_tls, __ATOMIC_RELEASE);
	/* One that has said good-bye only frees what is left of it: that is no new thread. */
	if (!gone) {
		qy_reclaim_note_threads(qy_threads_live());
		qy_idle_note();
	}
	return t;
}

struct qy_thread *qy_thread_enter(void)
{
	struct qy_thread *t = qy_tls.thread;

	if (QY_UNLIKELY(t == NULL))
		return attach();
	enter(t);
	return t;
}

/* ---- leaving ---- */

static void leave_thread(void *thread)
{
	struct qy_thread *t = thread;

	if (qy_tls.thread != t)
		return;
	enter(t);
	qy_thread_send(t);
	qy_publish(t->tls, NULL);
	qy_tls.cache = (struct qy_cache *)&qy_no_cache;
	qy_tls.owner = QY_OWNER_NONE;
	qy_tls.thread = NULL;
	qy_thread_leave(t);
	gone = true;
	qy_lock(&qy_threads_lock);
	qy_thread_park(t);
	qy_unlock(&qy_threads_lock);
	if (qy_threads_live() == 0)
		qy_reclaim_stop();
	else
		qy_reclaim_wake();
}

/* Entered, by whoever took t from the parked ones. False when there was not enough time. */
static bool give_up(struct qy_thread *t, uint64_t until_ns)
{
	look_at_left_behind(t);
	if (!qy_thread_give_up(t, until_ns))
		return false;
	atomic_fetch_and_explicit(&t->idle, ~(uint32_t)QY_EMPTY, memory_order_relaxed);
	qy_caches_drop(t);
	return true;
}

/* One that was parked for keep_ms, moved to the list of those that are giving up. The registry's lock is held. */
static struct qy_thread *take_stale(uint64_t now, uint64_t keep_ms, unsigned *park, bool *more)
{
	for (unsigned i = 0; i < QY_THREAD_PARKS; i++) {
		struct qy_link *l = qy_thread_parks[i].prev; /* parked longest ago */
		struct qy_thread *t = qy_container(l, struct qy_thread, link);

		if (l == &qy_thread_parks[i])
			continue;
		*more = true;
		if (now - t->parked_at < keep_ms)
			continue;
		qy_list_remove(&t->link);
		qy_list_push_front(&qy_threads_giving_up, &t->link);
		qy_publish(t->state, QY_THREAD_GIVING_UP);
		*park = i;
		return t;
	}
	return NULL;
}

/* Whoever gives up what a dead thread held is in a slow path like any other: fork and an arena's end wait for it. It
 * must not wait for them then, so the registry's lock is only tried. (One that is put back half done was never seen by
 * those two: who has little time has the purge lock, which they take first.) */
static bool give_up_one(uint64_t now, uint64_t keep_ms, uint64_t until_ns, bool *more)
{
	struct qy_thread *self = qy_thread_enter(), *t = NULL;
	unsigned park = 0;
	bool done;

	*more = true;
	if (self == NULL)
		return false;
	if (qy_trylock(&qy_threads_lock)) {
		*more = false;
		t = take_stale(now, keep_ms, &park, more);
		qy_unlock(&qy_threads_lock);
	}
	done = t != NULL && give_up(t, until_ns);
	qy_threads_cut = qy_threads_cut || (t != NULL && !done);
	qy_thread_leave(self);
	if (t == NULL)
		return false;
	qy_lock(&qy_threads_lock);
	qy_list_remove(&t->link);
	if (done) {
		qy_publish(t->state, QY_THREAD_UNUSED);
		qy_list_push_front(&qy_threads_unused, &t->link);
	} else {
		/* It comes first again. */
		qy_publish(t->state, QY_THREAD_PARKED);
		qy_list_push_back(&qy_thread_parks[park], &t->link);
		*more = true;
	}
	qy_unlock(&qy_threads_lock);
	return done;
}

/* (Who gives up what they hold enters, and is no longer idle himself.) */
static bool any_parked(void)
{
	bool any = false;

	if (!qy_trylock(&qy_threads_lock))
		return true;
	for (unsigned i = 0; i < QY_THREAD_PARKS && !any; i++)
		any = !qy_list_empty(&qy_thread_parks[i]);
	qy_unlock(&qy_threads_lock);
	return any;
}

bool qy_threads_tidy(uint64_t now, uint64_t keep_ms, uint64_t until_ns)
{
	static _Atomic(uint64_t) looked;
	bool more = false;

	/* UINT64_MAX: everything, now. */
	if (now == UINT64_MAX) {
		qy_threads_find_dead();
	} else if (now - atomic_load_explicit(&looked, memory_order_relaxed) >= 1000) {
		atomic_store_explicit(&looked, now, memory_order_relaxed);
		qy_threads_find_dead();
	}
	while (any_parked() && give_up_one(now, keep_ms, until_ns, &more))
		if (!qy_in_time(until_ns)) {
			qy_threads_cut = any_parked();
			return true;
		}
	return more;
}

unsigned qy_threads_live(void)
{
	return atomic_load_explicit(&live, memory_order_relaxed);
}
