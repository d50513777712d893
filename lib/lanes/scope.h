/* SPDX-License-Identifier: MIT */
/* Scopes, and what threads have of lanes. (scope.c) */
#ifndef QUARRY_LANES_SCOPE_H
#define QUARRY_LANES_SCOPE_H

#include "lib/lanes/state.h"

/* A thread's: the epoch in which its outermost scope began, 0 outside, and what it has of lanes. */
struct qy_lanes_record {
	_Alignas(QY_CACHE_LINE) _Atomic(uint64_t) epoch;
	uint32_t depth; /* of scopes; and QY_DEPTH_GLANCED, */
	_Atomic(bool) used;
	uint8_t frees; /* while something beyond segments waited for scopes */
	uint8_t refused_by; /* the number of the lanes, */
	struct qy_lanes_record *next;
	struct qy_glances *glances; /* with copies in there then (glance.h); NULL: it never had one */
	uint32_t refused; /* and the slot, + 1, of what was cold when it was last tried without waiting: the next get brings it back */
	_Atomic(uint32_t) taking; /* the thread uses a cache outside of scopes */
	/* Set under the registry's lock. The thread itself uses one in a scope, or between qy_cache_begin and qy_cache_end:
	 * so it can be taken from it. */
	_Atomic(struct qy_lanes_cache *) cache[QY_LANES_MAX];
};

#define QY_DEPTH_GLANCED ((uint32_t)1 << 31)

extern QY_HIDDEN __thread struct qy_lanes_record *qy_lanes_record __attribute__((tls_model("initial-exec")));

extern QY_HIDDEN _Atomic(bool) qy_fenceless; /* the kernel fences threads for us */

/* The calling thread's cache of these lanes, in a scope, or after qy_cache_begin; NULL (ENOMEM). */
struct qy_lanes_cache *qy_lanes_cache_make(quarry_lanes *l);
struct qy_lanes_record *qy_lanes_record_make(void);

QY_INLINE struct qy_lanes_cache *qy_lanes_cache(quarry_lanes *l)
{
	struct qy_lanes_record *r = qy_lanes_record;
	struct qy_lanes_cache *c = r == NULL ? NULL : atomic_load_explicit(&r->cache[l->id], memory_order_acquire);

	return QY_LIKELY(c != NULL) ? c : qy_lanes_cache_make(l);
}

/* Its cache of these lanes is in use until taking is 0 again; NULL: it has none. */
QY_INLINE struct qy_lanes_cache *qy_record_taking(struct qy_lanes_record *r, const quarry_lanes *l)
{
	atomic_store_explicit(&r->taking, 1, memory_order_relaxed);
	if (QY_LIKELY(atomic_load_explicit(&qy_fenceless, memory_order_relaxed)))
		atomic_signal_fence(memory_order_seq_cst);
	else
		qy_scope_fence();
	return atomic_load_explicit(&r->cache[l->id], memory_order_acquire);
}

/* It stays the thread's until qy_cache_end. (A scope would do, but that holds up the sweep in which room is found.) */
QY_INLINE struct qy_lanes_cache *qy_cache_begin(quarry_lanes *l)
{
	struct qy_lanes_record *r = qy_lanes_record;
	struct qy_lanes_cache *c;

	if (QY_UNLIKELY(r == NULL) && (r = qy_lanes_record_make()) == NULL)
		return NULL;
	c = qy_record_taking(r, l);
	return QY_LIKELY(c != NULL) ? c : qy_lanes_cache_make(l);
}

QY_INLINE void qy_cache_end(void)
{
	if (QY_LIKELY(qy_lanes_record != NULL))
		atomic_store_explicit(&qy_lanes_record->taking, 0, memory_order_release);
}

/* Take all threads' caches of these lanes from them, under l->moving: how many. They are emptied by qy_recall_end, when
 * nobody uses them any more: false, some are still in use. */
uint32_t qy_recall_begin(quarry_lanes *l);
bool qy_recall_end(quarry_lanes *l);
/* The same where nobody is waited for, and until a time (ns; 0: none), but one of them at least. */
void qy_recall_try(quarry_lanes *l);
bool qy_recall_end_by(quarry_lanes *l, uint64_t deadline);

/* The next lanes from id on (by number) that are due, or have news, with l->moving locked; NULL: none. */
quarry_lanes *qy_lanes_due(uint32_t *id, uint64_t now, uint64_t *next);

/* What the calling thread takes objects from goes back. */
void qy_lanes_flush(quarry_lanes *l);
int qy_lanes_register(quarry_lanes *l);
void qy_lanes_unregister(quarry_lanes *l);
bool qy_in_scope(void);

/* The epoch that a scope begins in. Nothing in the scope is loaded before it: who saw a word of before must not say that it
 * began afterwards. */
QY_INLINE uint64_t qy_epoch_to_enter(void)
{
	return atomic_load_explicit(&qy_epoch, memory_order_acquire);
}

/* A scope of a thread that has a record. */
QY_INLINE void qy_scope_enter(struct qy_lanes_record *r)
{
	if (r->depth++ > 0)
		return;
	atomic_store_explicit(&r->epoch, qy_epoch_to_enter(), memory_order_relaxed);
	if (QY_LIKELY(atomic_load_explicit(&qy_fenceless, memory_order_relaxed)))
		atomic_signal_fence(memory_order_seq_cst);
	else
		qy_scope_fence();
}

/* glance.c: the outermost scope of a thread that has copies is over. */
void qy_glances_end(struct qy_lanes_record *r) __attribute__((noinline, cold));

QY_INLINE void qy_scope_leave(struct qy_lanes_record *r)
{
	if (--r->depth == 0)
		atomic_store_explicit(&r->epoch, 0, memory_order_release);
	else if (QY_UNLIKELY(r->depth == QY_DEPTH_GLANCED))
		qy_glances_end(r);
}

/* The same without being counted, where no other scope is entered in it: whether it is the outermost. */
QY_INLINE bool qy_scope_begin(struct qy_lanes_record *r)
{
	if (r->depth > 0)
		return false;
	atomic_store_explicit(&r->epoch, qy_epoch_to_enter(), memory_order_relaxed);
	if (QY_LIKELY(atomic_load_explicit(&qy_fenceless, memory_order_relaxed)))
		atomic_signal_fence(memory_order_seq_cst);
	else
		qy_scope_fence();
	return true;
}

QY_INLINE void qy_scope_end(struct qy_lanes_record *r, bool outermost)
{
	if (outermost)
		atomic_store_explicit(&r->epoch, 0, memory_order_release);
}

#endif
