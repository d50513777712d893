/* SPDX-License-Identifier: MIT */
/* Telling while the program runs, when somebody sends it the signal of the option report_signal. The handler does no more
 * than to wake a thread that waits for it; that is the process's own, and a forked child has none until it is asked
 * itself: then it is started where the signal found the child waiting, or else by the next of its threads that comes by
 * (lib/manager/events.h). */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <pthread.h>
#include <signal.h>

#include "include/quarry/quarry.h"
#include "lib/base/lock.h"
#include "lib/base/settings.h"
#include "lib/cache/thread.h"
#include "lib/manager/events.h"
#include "lib/reclaim/pass.h"
#include "lib/view/tell.h"
#include "numa/os.h"

/* Processes, by number: a forked child finds its parent's here, and none of it is meant for it. */
static _Atomic(uint32_t) asked; /* futex: who was asked; wakes the thread */
static _Atomic(uint32_t) waits; /* who has a thread */

static uint32_t self(void)
{
	return (uint32_t)qy_os->process_id();
}

static void *run(void *unused)
{
	(void)unused;
	qy_thread_serve();
	(void)pthread_setname_np(pthread_self(), "quarry-report");
	for (;;) {
		qy_sleep_on(&asked, 0, UINT64_MAX);
		if (atomic_exchange(&asked, 0) != self())
			continue;
		qy_tell();
		(void)quarry_thread_flush();
	}
	return NULL;
}

static void start_thread(void)
{
	int error = errno, failed;
	sigset_t all, before;
	pthread_attr_t attr;
	pthread_t id;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	failed = pthread_create(&id, &attr, run, NULL);
	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (failed != 0) {
		atomic_store(&waits, 0);
		qy_tell_error("report_signal: no thread", failed);
	}
	errno = error;
}

/* In a child that was asked; or in its parent, which has a thread. */
static void start_in_child(void)
{
	if (atomic_load(&asked) == self() && atomic_exchange(&waits, self()) != self())
		start_thread();
}

/* In a signal handler. A child that waits in a system call of its own holds nothing that making a thread needs; of any other
 * that cannot be told, and it is at work. */
static void on_signal(const void *context)
{
	atomic_store(&asked, self());
	if (atomic_load(&waits) == self())
		qy_wake(&asked);
	else if (qy_tend_may() && qy_os->was_waiting(context))
		start_in_child();
	else
		qy_events_call(start_in_child);
}

void qy_asked_begin(void)
{
	if (qy_setting(report_signal) == qy_setting(reclaim_signal)) {
		qy_tell_error("report_signal: it is reclaim_signal, too", EBUSY);
		return;
	}
	if (qy_os->signal_take((int)qy_setting(report_signal), on_signal) != 0) {
		qy_tell_error("report_signal", errno);
		return;
	}
	atomic_store(&waits, self());
	start_thread();
}
