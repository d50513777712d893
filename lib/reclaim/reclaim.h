/* SPDX-License-Identifier: MIT */
/* The reclaimer: what tidies behind everyone's back. It takes in what was sent to slabs that nobody holds, gives dirty
 * memory back, and does the chores of the layers above it (dead threads).
 *
 * In series: a slow path, each so many calls, does a bounded pass after it has left its own work. In parallel: a
 * thread of its own, with all signals blocked, that sleeps while there is nothing to do. `auto`: in series in a
 * process of one thread with a small heap, since a guest should not start threads there (glibc and libstdc++ lose
 * their single-threaded shortcuts, unshare(2) and setns(2) fail); else in parallel. By the program's own calls
 * (quarry_tend, tend.c), or by a timer's signal (timer.c): for a process that sleeps and wants no thread. */
#ifndef QUARRY_RECLAIM_RECLAIM_H
#define QUARRY_RECLAIM_RECLAIM_H

#include "include/quarry/quarry.h"
#include "lib/base/base.h"

/* After a slow path, not entered, no lock held. calls: how many slow paths this thread has taken. */
void qy_reclaim_tick(uint32_t calls);

/* A number that changes every so often, while the reclaimer runs: by it threads know that it is time to look for what
 * they have left alone. */
extern QY_HIDDEN _Atomic(uint32_t) qy_reclaim_round;

/* Everything that is free goes back at once. Returns the bytes. */
size_t qy_reclaim_now(void);

enum qy_chore_left { QY_CHORE_NONE, QY_CHORE_MORE, QY_CHORE_CUT };

/* What the layer above has to do with it. */
struct qy_reclaim_layer {
	/* Called in each pass with the time (ms), by a thread in no slow path; after until_ns (CLOCK_MONOTONIC;
	 * UINT64_MAX: there is time) it goes on with nothing new. Returns whether it wants to be called again soon, or
	 * at once, since there was not enough time. */
	enum qy_chore_left (*chore)(uint64_t now, uint64_t until_ns);
	/* What the calling thread holds itself, when it has nothing under way, as far as there is time; returns when
	 * (ms) to ask again, UINT64_MAX: it tells (qy_reclaim_wake). */
	uint64_t (*own)(uint64_t now, uint64_t until_ns);
	bool (*inside)(void); /* the calling thread is in a slow path */
	bool (*known)(void);  /* and can enter one without being made known first */
};

void qy_reclaim_set_layer(const struct qy_reclaim_layer *layer);

/* How the figures are published, by the viewer: called in no slow path, with no lock held, one at a time. */
struct qy_publisher {
	void (*publish)(void);
	void (*after_fork)(void); /* in the child */
};

void qy_reclaim_set_publisher(const struct qy_publisher *how);

/* As quarry_tend. */
int64_t qy_reclaim_tend(void);

/* Which way it works now. */
enum quarry_reclaimer qy_reclaim_way(void);

/* A request was refused: by the process's hard limit, when limited; else by the kernel. Have what is free and in other
 * hands, those of ended threads and of sleeping ones, be free for all; what threads hold is looked for again only where
 * there may be something that was not there when the calling thread came here last. When it was the kernel, what is
 * free goes back to it as well. All of it only where something is free, or was sent home, that was not when anybody
 * came here last: a program that is refused again and again is not held up by it. */
void qy_reclaim_for_refused(bool limited);

/* Times that are none, for the chore: everything is to be done now; the same where it may do something that it could
 * not when this thread called it so before. */
#define QY_CHORE_ALL UINT64_MAX
#define QY_CHORE_ALL_AGAIN (UINT64_MAX - 1)

/* There is work that no dirt tells of: a thread has ended and left its memory. */
void qy_reclaim_wake(void);

/* Something that a pass goes by was changed: whatever the thread, the program's loop or the timer waits for, the next
 * look is soon. In no slow path, and no lock held. */
void qy_reclaim_look(void);

/* There is an arena with a decay of its own (ms; negative: none). */
void qy_reclaim_note_decay(long decay_ms);

/* Tell that the process has more than one thread that allocates. */
void qy_reclaim_note_threads(unsigned live);

/* No thread of the program's is left that quarry knows of: the reclaimer's thread ends, or it would keep the process
 * alive (glibc exits when the last thread ends). The next slow path may start it again. */
void qy_reclaim_stop(void);

bool qy_reclaim_is_caller(void); /* the calling thread is the reclaimer's */
bool qy_reclaim_running(void);
uint64_t qy_reclaim_passes(void);
uint64_t qy_reclaim_pass_ns(void); /* that they took */
void qy_reclaim_after_fork(void); /* in the child */

#endif
