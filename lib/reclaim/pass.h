/* SPDX-License-Identifier: MIT */
/* What the ways of the reclaimer share (pass.c): its thread and passes in series (reclaim.c), the program's calls
 * (tend.c), and the timer (timer.c). Not for other layers. */
#ifndef QUARRY_RECLAIM_PASS_H
#define QUARRY_RECLAIM_PASS_H

#include "lib/reclaim/reclaim.h"

#define QY_SHORTEST_SLEEP_MS 20
#define QY_LIMITS_MS 500 /* between two looks at pressure and limits, while there is something to look at */

extern QY_HIDDEN const struct qy_reclaim_layer *qy_layer;

/* Somebody is to be woken when dirt is seen: the thread, or the timer. */
extern QY_HIDDEN _Atomic(uint32_t) qy_asleep;

/* How often what passes go by was changed (qy_reclaim_look): who then sets a time by what was before looks again. */
extern QY_HIDDEN _Atomic(uint32_t) qy_looks;

/* One pass at a time, whoever makes it. */
bool qy_pass_begin(void);
void qy_pass_end(void);

/* Count a pass, and begin a round (qy_reclaim_round) when the last one is old. */
void qy_pass_note(uint64_t now, long decay_ms);

/* What a pass gives back of managers. */
struct qy_pass {
	uint64_t now;
	long decay_ms;
	size_t at_most, each; /* bytes: of all managers, and of one */
	uint64_t until_ns;    /* nothing new is begun then; UINT64_MAX: there is time */
	bool locked;          /* by whoever has the purge lock by qy_purge_try */
	/* Results. */
	size_t total;         /* bytes that went back */
	uint64_t next;        /* when (ms) more falls due */
};

/* Go over all managers, those first for which the last pass that was short of time had none, or the first might always
 * have it all. False where some had none. By one pass at a time, or with no bounds. */
bool qy_pass_over_managers(struct qy_pass *pass);

/* How soon after dirt was seen a look is worth the while, and how long after another one at the least: ms. */
uint64_t qy_pass_step(long decay_ms);

/* The same, by what is set for the process and by the shortest that an arena has (found by qy_pass_note, since an arena
 * may end, or be given another). */
uint64_t qy_pass_soonest(void);

/* A decay was set: look for the shortest anew. */
void qy_pass_look(void);

/* Whether what is due next (ms) is so late (by the time that others have, or since a program at work was left alone for
 * longer) that new dirt would be left lying: then who waits for it hears of dirt as well. */
bool qy_pass_comes_late(uint64_t now, uint64_t next);

/* ---- a pass that waits for nobody (tend.c) ---- */

enum qy_tending {
	QY_TEND_CALLED,  /* by the program, from no slow path */
	QY_TEND_WAITING, /* by the timer's signal, in a thread that waited in a system call of its own */
	QY_TEND_RUNNING  /* in one that may be anywhere but in a slow path: nothing that is the thread's may be touched,
	                  * and there may be as little stack as a handler can have (3 KiB are taken) */
};

/* Whether the calling thread is where a pass may begin: in no slow path, holding no lock, and in no other pass. */
bool qy_tend_may(void);

/* Do what is due, for a few milliseconds at most. Returns when (ms) more is; UINT64_MAX: when more is freed. */
uint64_t qy_tend_pass(uint64_t now, enum qy_tending how);

/* Whether there is so much to give back, or that may come of it, that it is worth a signal. */
bool qy_tend_is_worth_it(void);

/* What threads hold was not looked at for some time, since signals found the program at work. */
bool qy_tend_put_off(void);

/* Something that a pass goes by was changed: the next call is one that is due. */
void qy_tend_look(void);

/* Whether the program calls quarry_tend, and has not stopped. */
bool qy_tended(uint64_t now);
void qy_tend_after_fork(void);

/* ---- the timer (timer.c) ---- */

/* The mode is `timer`: see that somebody is waiting for dirt. False when no timer is to be had. */
bool qy_timer_begin(void);

/* Dirt was seen, and qy_asleep was 1 and is 0: the caller has the timer to himself. */
void qy_timer_wake(void);

/* What follows a pass: ring again then; UINT64_MAX: sleep until there is dirt. */
void qy_timer_settle(uint64_t now, uint64_t next);

/* What is next is worth a wake no matter how little dirt there is. */
void qy_timer_must(void);

/* Something that a pass goes by was changed: ring soon, when there may be something to do. */
void qy_timer_look(void);

/* The program has allocated and freed for a while: what was put off for it may be worth a look soon. */
void qy_timer_stir(void);

bool qy_timer_there(void);
void qy_timer_after_fork(void);

#endif
