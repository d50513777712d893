/* SPDX-License-Identifier: MIT */
/* Holding threads: all of them, for fork and an arena's end; one, to look at what it has or to give it up; and what a
 * forked child makes of those that stayed behind. */
#include <sched.h>
#include <string.h>

#include "lib/cache/caches.h"
#include "lib/base/checker.h"
#include "lib/cache/fork.h"
#include "lib/cache/idle.h"
#include "lib/cache/threads.h"
#include "lib/manager/manager.h"
#include "lib/manager/sites.h"
#include "numa/os.h"

/* ---- going over them ---- */

static void visit_list(struct qy_link *list, void (*visit)(void *ctx, struct qy_thread *t), void *ctx)
{
	for (struct qy_link *l = list->next, *next; l != list; l = next) {
		next = l->next;
		visit(ctx, qy_container(l, struct qy_thread, link));
	}
}

static void visit_locked(void (*visit)(void *ctx, struct qy_thread *t), void *ctx)
{
	for (unsigned i = 0; i < QY_THREAD_BUCKETS; i++)
		visit_list(&qy_thread_buckets[i], visit, ctx);
	for (unsigned i = 0; i < QY_THREAD_PARKS; i++)
		visit_list(&qy_thread_parks[i], visit, ctx);
}

void qy_threads_visit_bucket(unsigned bucket, void (*visit)(void *ctx, struct qy_thread *t), void *ctx)
{
	qy_lock(&qy_threads_lock);
	visit_list(&qy_thread_buckets[bucket], visit, ctx);
	qy_unlock(&qy_threads_lock);
}

/* ---- one ---- */

/* One at a time holds a thread; false when somebody does. The registry's lock is held. */
static bool begin_hold(struct qy_thread *t)
{
	return (atomic_fetch_or_explicit(&t->idle, QY_HELD, memory_order_seq_cst) & QY_HELD) == 0;
}

/* Who holds a thread has entered, and must not wait for those who wait for it: the registry's lock is only tried. */
bool qy_thread_hold(struct qy_thread *t, int tid)
{
	bool held = false;

	if (!qy_trylock(&qy_threads_lock))
		return false;
	if (t->state == QY_THREAD_LIVE && t->tid == tid) {
		bool ours = begin_hold(t);

		held = ours && atomic_load_explicit(&t->busy, memory_order_seq_cst) == 0 && qy_peek(t->tls) != NULL;
		if (ours && !held)
			qy_thread_let_go(t);
	}
	qy_unlock(&qy_threads_lock);
	return held;
}

struct qy_thread *qy_threads_all(void)
{
	return __atomic_load_n(&qy_thread_records, __ATOMIC_ACQUIRE);
}

/* Its thread-local storage is turned as that of an idle one; where that may be gone, the thread does it, when it enters.
 * What is left turned afterwards is put back when the thread enters. */
static void watch(void *ctx, struct qy_thread *t)
{
	(void)ctx;
	atomic_fetch_or_explicit(&t->idle, QY_WATCHED, memory_order_seq_cst);
	if (t->state == QY_THREAD_LIVE && qy_peek(t->tls) != NULL)
		qy_thread_turn(t);
}

static void watch_no_more(void *ctx, struct qy_thread *t)
{
	(void)ctx;
	atomic_fetch_and_explicit(&t->idle, ~(uint32_t)QY_WATCHED, memory_order_seq_cst);
}

void qy_threads_watch(bool on)
{
	/* For a memory checker they are watched for good. */
	if (!on && qy_checker != QY_CHECKER_NONE)
		return;
	qy_threads_watching = on;
	visit_locked(on ? watch : watch_no_more, NULL);
	visit_list(&qy_threads_giving_up, on ? watch : watch_no_more, NULL);
	visit_list(&qy_threads_unused, on ? watch : watch_no_more, NULL);
}

void qy_threads_watch_forget(void)
{
	qy_threads_watching = qy_checker != QY_CHECKER_NONE;
}

static enum qy_look hold_settled(struct qy_thread *t, uint32_t snapshot)
{
	uint32_t idle = atomic_load_explicit(&t->idle, memory_order_seq_cst);

	/* (Who is at what it holds already is soon done; and a thread that was held has its turn before it is again.) */
	if (qy_peek(t->settled) != snapshot || !(idle & QY_TURNED) || (idle & QY_HELD) ||
	    atomic_load_explicit(&t->waits, memory_order_relaxed) != 0 || !begin_hold(t))
		return QY_LOOK_NOT_NOW;
	if (atomic_load_explicit(&t->busy, memory_order_seq_cst) == 0)
		return QY_LOOK_HELD;
	qy_thread_let_go(t);
	return QY_LOOK_NOT_NOW;
}

enum qy_look qy_thread_look_begin(struct qy_thread *t, uint32_t snapshot)
{
	enum qy_look look = QY_LOOK_NOT_NOW;

	if (t == qy_tls.thread)
		return QY_LOOK_OWN;
	if (!qy_trylock(&qy_threads_lock))
		return QY_LOOK_NOT_NOW;
	if (t->state == QY_THREAD_PARKED || t->state == QY_THREAD_UNUSED)
		return QY_LOOK_LOCKED;
	if (t->state == QY_THREAD_LIVE)
		look = hold_settled(t, snapshot);
	qy_unlock(&qy_threads_lock);
	if (look == QY_LOOK_HELD && qy_peek(t->tls) != NULL)
		qy_sanitizer_acquire(qy_peek(t->tls));
	return look;
}

void qy_thread_look_end(struct qy_thread *t, enum qy_look look)
{
	if (look == QY_LOOK_LOCKED)
		qy_unlock(&qy_threads_lock);
	else if (look == QY_LOOK_HELD)
		qy_thread_let_go(t);
}

void qy_thread_let_go(struct qy_thread *t)
{
	atomic_fetch_and_explicit(&t->idle, ~(uint32_t)QY_HELD, memory_order_seq_cst);
	qy_wake(&t->idle);
}

void qy_threads_visit(void (*visit)(void *ctx, struct qy_thread *t), void *ctx)
{
	qy_lock(&qy_threads_lock);
	visit_locked(visit, ctx);
	qy_unlock(&qy_threads_lock);
}

/* ---- all ---- */

/* Yields first, then sleeps, since a thread of higher priority would yield to nobody; and does not wait for
 * the dead. */
static void wait_until_out(void *self, struct qy_thread *t)
{
	for (unsigned n = 0; t != self && atomic_load_explicit(&t->busy, memory_order_seq_cst) != 0; n++) {
		if (n < 100)
			sched_yield();
		else
			qy_sleep_on(&t->busy, 1, 1);
		if (n >= 1000 && n % 100 == 0 && !qy_os->thread_alive(t->pid, t->tid))
			return;
	}
}

void qy_threads_pause(void)
{
	qy_lock(&qy_threads_pause_lock);
	atomic_store_explicit(&qy_threads_paused, 1, memory_order_seq_cst);
	qy_lock(&qy_threads_lock);
	visit_locked(wait_until_out, qy_tls.thread);
}

void qy_threads_resume(void)
{
	qy_unlock(&qy_threads_lock);
	atomic_store_explicit(&qy_threads_paused, 0, memory_order_seq_cst);
	qy_unlock(&qy_threads_pause_lock);
}

/* ---- in a child ---- */

/* A thread may have counted down to what is due, and was about to enter for it, or was waiting to: in the child it does
 * not come to that, and whoever has the record next would count on from nothing. (Full slabs are many: they are looked
 * at by whom they concern.) */
static void note_due(struct qy_thread *t)
{
	for (struct qy_cache *c = t->caches; c != NULL; c = c->next) {
		c->quick += c->quick == 0;
		for (unsigned cls = 0; cls < QY_CLASSES; cls++)
			c->freed[cls].room += c->freed[cls].room == 0;
	}
	t->left_behind = true;
}

static void note_dead(void *self, struct qy_thread *t)
{
	if (t == self)
		return;
	note_due(t);
	if (t->state == QY_THREAD_LIVE)
		qy_thread_park(t);
	/* One whose memory was given up had only to be moved to the unused ones. */
	if (t->caches == NULL) {
		qy_list_remove(&t->link);
		qy_publish(t->state, QY_THREAD_UNUSED);
		qy_list_push_front(&qy_threads_unused, &t->link);
	}
}

/* In the child of fork only the calling thread is left; the others were out of their slow paths, so what they held is
 * whole and can be adopted. */
void qy_threads_after_fork(void)
{
	struct qy_thread *self = qy_tls.thread;

	qy_idle_after_fork();
	qy_threads_watch(false);
	visit_locked(note_dead, self);
	visit_list(&qy_threads_giving_up, note_dead, self);
	if (self != NULL) {
		self->pid = qy_os->process_id();
		self->tid = qy_os->thread_id();
		qy_list_remove(&self->link);
		qy_list_push_front(&qy_thread_buckets[(unsigned)self->tid % QY_THREAD_BUCKETS], &self->link);
	}
}

/* ---- an arena's end ---- */

struct question {
	struct qy_manager *manager;
	bool used;
};

static void ask_use(void *ctx, struct qy_thread *t)
{
	struct question *q = ctx;

	q->used = q->used || t->chosen == q->manager;
}

bool qy_threads_use(const struct qy_manager *m)
{
	struct question q = { (struct qy_manager *)m, false };

	visit_locked(ask_use, &q);
	return q.used;
}

static void forget(void *ctx, struct qy_thread *t)
{
	struct qy_manager *m = ctx;

	for (unsigned i = 0; i < QY_OUT_RINGS; i++)
		if (t->out[i].heap != NULL && t->out[i].heap->manager->head == m) {
			memset(&t->out[i], 0, sizeof(t->out[i]));
			t->rings -= t->sending >> i & 1;
			t->sending &= ~((uint64_t)1 << i);
		}
	for (struct qy_cache **at = &t->caches, *c; (c = *at) != NULL;) {
		if (c->heap.manager->head != m) {
			at = &c->next;
			continue;
		}
		/* (That of an idle thread was closed, and no longer counts.) */
		if (atomic_exchange_explicit(&c->heap.remote, QY_REMOTE_CLOSED, memory_order_relaxed) !=
		    QY_REMOTE_CLOSED)
			atomic_fetch_sub_explicit(&c->heap.manager->heaps, 1, memory_order_relaxed);
		qy_heap_keep_counts(&c->heap);
		qy_cache_drop(t, at);
	}
}

void qy_threads_forget(struct qy_manager *m)
{
	qy_samples_forget((uint16_t)m->index);
	/* Those that are giving up have given up: their lists are empty. */
	visit_locked(forget, m);
	for (struct qy_manager *one = qy_family_next(m, NULL); one != NULL; one = qy_family_next(m, one))
		qy_caches_release(one);
}
