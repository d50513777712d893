/* SPDX-License-Identifier: MIT */
/* Threads: how they come to quarry, leave it, die without telling, and are held still.
 *
 * Locks: qy_threads_pause_lock (rank QY_RANK_FORK), held by whoever holds threads still; qy_threads_lock (rank QY_RANK_REGISTRY)
 * over the lists of threads. Neither is ever taken by a thread that has entered. */
#ifndef QUARRY_CACHE_THREAD_H
#define QUARRY_CACHE_THREAD_H

#include "lib/base/lock.h"
#include "lib/cache/cache.h"
#include "lib/cache/send.h"

enum qy_thread_state { QY_THREAD_UNUSED, QY_THREAD_LIVE, QY_THREAD_PARKED, QY_THREAD_GIVING_UP };

/* How things stand with a thread that seems idle (idle.c): bits of one word that is looked at when a slow path is
 * entered. The first is set by whoever holds the thread, the others by that one or by the thread when it has
 * entered. */
enum {
	QY_HELD = 1,   /* it is not to go into a slow path: somebody is at what it holds */
	QY_TURNED = 2, /* its thread-local storage leads to slow paths, until it comes to one */
	QY_EMPTY = 4,  /* its caches were given up, and their heaps are closed */
	QY_WATCHED = 8 /* a snapshot is made (watch.h): it is turned and stays so; it enters for all that it does */
};

/* What was seen of a thread at the last look. Of whoever looks for idle threads: one at a time. */
struct qy_idle_look {
	int tid;                /* of whom */
	uint32_t refusals;      /* in a row */
	uint64_t at, again;     /* ms: since when it has not refilled, and when it is to be looked at after a refusal */
	uint64_t refills;
};

/* Its address is the token in slabs. Type-stable: never freed, used again for another thread, together with all that
 * the one before held (a parked thread's memory is adopted whole). */
struct qy_thread {
	_Atomic(uint32_t) busy;    /* in a slow path */
	_Atomic(uint32_t) idle;    /* QY_HELD, ... */
	uint32_t depth;            /* (others look on) a patched mmap may call malloc inside one */
	uint32_t calls;            /* slow paths taken */
	uint32_t shed_round;       /* the last qy_reclaim_round in which it gave up what it had left alone */
	int node;                  /* where it was last found, or its home (dense): plain allocations come from there */
	int home;                  /* the node that it was bound to (dense); -1 while it follows its CPU */
	const volatile int32_t *cpu_now; /* where its CPU can be read; NULL: nowhere, or it does not matter */
	int32_t cpu;               /* on which it last looked where it is */
	uint32_t reroutes;         /* as qy_manager_reroutes was then */
	struct qy_manager *chosen; /* the thread's default arena, NULL while it follows its node */
	struct qy_cache *caches;   /* all of them */
	struct qy_cache **table;   /* by manager, open addressing */
	uint32_t table_size, table_used;
	uint32_t rings;            /* how many of these have something, */
	uint64_t sending;          /* and which, as bits */
	struct qy_outgoing out[QY_OUT_RINGS];
	/* The registry's. */
	struct qy_link link;   /* in the bucket of the tid, or in a list of parked or unused ones */
	int pid, tid;          /* (tid, state, service: written with the lock held, read atomically without) */
	uint64_t quiet;        /* qy_threads_stirred when it last saw that all others hold nothing; 0: it did not */
	uint8_t state;         /* enum qy_thread_state */
	bool service;          /* the reclaimer's: not a thread of the program */
	bool left_behind;      /* by a fork, and nobody has had it since */
	uint64_t parked_at;    /* ms */
	struct qy_tls *tls;    /* while it lives, and will tell when it ends (atomic); else NULL */
	struct qy_cache *turned; /* what its plain allocations came from when it was turned */
	struct qy_idle_look look;
	struct qy_thread *made_before; /* the record made before this one */
	_Atomic(uint32_t) waits; /* it was held, and sleeps until that is over: then it is its turn */
	uint32_t settled;        /* the snapshot of which it is known that nothing begun before it is under way */
	uint32_t rings_seen;     /* the one whose maker has looked at the rings, */
	uint32_t unnoted;        /* the one of which not all was noted that it did, */
	uint32_t given_up;       /* and the one whose maker could not hold it */
	uint64_t ran;            /* ns on a CPU when that was first asked */
	uint64_t sampled;        /* what was just allocated is a sample (sample.h), of so many bytes one; 0: it is not */
	uint32_t resizes;        /* 1: inside a resize, which notes it */
	/* Counters: the thread writes, anybody reads. */
	qy_counter moves;      /* to other nodes */
};

/* The calling thread, entered: made known first when it is not. NULL with ENOMEM. */
struct qy_thread *qy_thread_enter(void);
void qy_thread_leave(struct qy_thread *t);

/* The cache of the thread's plain allocations. */
struct qy_cache *qy_thread_cache(struct qy_thread *t);

/* Follow the thread to the node that it runs on now (follow.c). What its caches hold of the node that it left goes
 * back, for others. Entered. */
void qy_thread_follow(struct qy_thread *t);

/* A thread comes to be on a node, with nothing but what it took over. False with ENOMEM. Entered, by itself. */
bool qy_thread_arrive(struct qy_thread *t, int node);

/* Whether its refills need not enter each time to see where the thread is. */
bool qy_thread_may_be_quick(const struct qy_thread *t);

/* As quarry_thread_rebind. The caller has not entered. */
int qy_thread_rebind(int kernel_id);

/* Send what was gathered for other heaps. Entered. */
void qy_thread_send(struct qy_thread *t);

/* Gather an object of another thread's slab, and send what is ready. Entered. */
void qy_thread_gather(struct qy_thread *t, struct qy_slab *s, void *p);

/* Set the thread's default arena (NULL: follow the node). 0, or -1 with ENOMEM. Entered. */
int qy_thread_choose(struct qy_thread *t, struct qy_manager *m);

/* Hold all other threads out of slow paths, and let them go. The caller has not entered. */
void qy_threads_pause(void);
void qy_threads_resume(void);

/* With all paused: whether a thread's plain allocations go to m; forget all that threads hold of m. */
bool qy_threads_use(const struct qy_manager *m);
void qy_threads_forget(struct qy_manager *m);

/* Find threads that died without telling; give up what parked ones hold, when nobody took it over for keep_ms.
 * After until_ns it goes on with no other. Returns whether any parked one is left, or might be. Called by the
 * reclaimer, not entered. */
bool qy_threads_tidy(uint64_t now, uint64_t keep_ms, uint64_t until_ns);

/* The calling thread had not enough time for what it found to be given up, since it cleared this. */
extern QY_HIDDEN __thread bool qy_threads_cut __attribute__((tls_model("initial-exec")));

/* Hold a live thread with the given number out of slow paths, by itself, and let it go. The caller has entered, and
 * must neither wait for a lock of this module nor leave in between. False when the thread is in a slow path, or gone,
 * or the registry cannot be looked at right now. */
bool qy_thread_hold(struct qy_thread *t, int tid);
void qy_thread_let_go(struct qy_thread *t);

/* Live threads in buckets: visit those of one with the registry's lock held. */
#define QY_THREAD_BUCKETS 256 /* by tid */
void qy_threads_visit_bucket(unsigned bucket, void (*visit)(void *ctx, struct qy_thread *t), void *ctx);

/* The calling thread's plain allocations come from this cache (follow.c). Entered. */
void qy_thread_use(struct qy_thread *t, struct qy_cache *c);

/* Park those that died without telling. */
void qy_threads_find_dead(void);

/* All records there ever were, the last made first; NULL: the first. */
struct qy_thread *qy_threads_all(void);

/* With all paused: have all threads be watched from here on, those too that come to be known; or none. */
void qy_threads_watch(bool on);
void qy_threads_watch_forget(void); /* in a child, of one thread: whoever comes is not */

/* For whoever looks at what a watched thread holds: hold it, if it is settled, out of slow paths, and in none; or, where
 * nobody has the record, keep it from being had. False when that is not so right now. The caller has entered, and lets
 * go soon. */
enum qy_look { QY_LOOK_NOT_NOW, QY_LOOK_HELD, QY_LOOK_LOCKED, QY_LOOK_OWN };
enum qy_look qy_thread_look_begin(struct qy_thread *t, uint32_t snapshot);
void qy_thread_look_end(struct qy_thread *t, enum qy_look look);

/* Visit live and parked threads with the registry's lock held. */
void qy_threads_visit(void (*visit)(void *ctx, struct qy_thread *t), void *ctx);

unsigned qy_threads_live(void);

/* As quarry_tend: in how many ms it is to be called again, or -1. */
int64_t qy_thread_tend(void);

/* An option that passes go by was changed. */
void qy_thread_look(void);

/* Grows when a thread comes, goes, or is back from where its caches were given up: who had nothing may have
 * something. */
extern QY_HIDDEN _Atomic(uint64_t) qy_threads_stirred;

/* The calling thread is the library's own, and counts as none of the program's: before it allocates. */
void qy_thread_serve(void);

/* Whether the calling thread has ended, as far as quarry was told. */
bool qy_thread_gone(void);

/* Make quarry usable; may be called at any time, by any thread, again and again. False with ENOMEM, and when another
 * copy of quarry does the work (qy_elsewhere, set by then). */
bool qy_start(void);

extern QY_HIDDEN const struct qy_elsewhere *qy_elsewhere;

#endif
