/* SPDX-License-Identifier: MIT */
/* Idle threads: what a thread holds that has been blocked in a system call for a while goes back, without its doing. */
#ifndef QUARRY_CACHE_IDLE_H
#define QUARRY_CACHE_IDLE_H

#include "lib/cache/thread.h"

/* Look for threads that have not refilled for idle_ms (0: all) and are blocked now, and give up what they hold. now is
 * in ms. One look at some of the threads when the reclaimer's thread or idle_ms of 0 asks, at few of them otherwise.
 * Returns whether there are threads that may become idle later, so that it should be called again within about
 * idle_ms; for idle_ms of 0, whether any other thread still has something, or may have. After until_ns it goes on with
 * no other. Called by anybody, not entered; what another call is about is left to that. */
bool qy_threads_idle(uint64_t now, uint64_t idle_ms, uint64_t until_ns);

/* All that dead and sleeping threads hold, at once. again: nothing is done where the calling thread saw the last time
 * that nobody else holds anything, and nobody has stirred since. Returns whether anybody still has something, or
 * may have. */
bool qy_threads_give_up_all(bool again);

/* The same for the calling thread, at a moment at which it is in none of its caches, nor in a slow path: what it holds
 * goes back when it has not refilled for idle_ms, as far as there is time until until_ns. Returns when (ms) to ask
 * again; UINT64_MAX: it tells when it is back. */
uint64_t qy_idle_own(uint64_t now, uint64_t idle_ms, uint64_t until_ns);

/* The calling thread, entered, was found idle: it takes its caches back, empty as they are. */
void qy_thread_return(struct qy_thread *t);

/* Its thread-local storage leads to slow paths from here on. It is held, or paused. False when that is not its storage:
 * it has died, and something else is there. */
bool qy_thread_turn(struct qy_thread *t);

/* The calling thread has entered, and is watched (watch.h): it stays turned. */
void qy_thread_be_watched(struct qy_thread *t);

/* There is a thread that may become idle. */
void qy_idle_note(void);

/* Look again, whatever was found at the last look. */
void qy_idle_again(void);

/* Give up what a thread's caches hold that is held, or was taken from the parked ones; the caches stay, their heaps are
 * closed. False when the time was over first: then some of it has gone, and the caches are as sound as before.
 * Entered. */
bool qy_thread_give_up(struct qy_thread *t, uint64_t until_ns);

/* In the child of fork. */
void qy_idle_after_fork(void);

/* How often the caches of a thread went back so, and how often one that seemed idle had to be left as it was. */
extern QY_HIDDEN qy_counter qy_idle_given_up, qy_idle_refused;

#endif
