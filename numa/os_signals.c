/* SPDX-License-Identifier: MIT */
/* Signals, and a timer that sends one, by the Linux behind qy_os: as numa/os.c, which has the table. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "numa/os_signals.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* The kernel's own struct, as x86-64 and arm64 have it; libc's is another, and libc hides its own signals. */
struct kernel_sigaction {
	uintptr_t handler;
	unsigned long flags;
	uintptr_t restorer;
	uint64_t mask;
};

int qy_linux_signal_action(int sig, struct qy_signal_action *action)
{
#if defined(__x86_64__) || defined(__aarch64__)
	struct kernel_sigaction is = { 0, 0, 0, 0 };

	if (syscall(SYS_rt_sigaction, sig, NULL, &is, sizeof(is.mask)) != 0)
		return -1;
	action->handled = is.handler > (uintptr_t)SIG_IGN;
	action->ignored = is.handler == (uintptr_t)SIG_IGN;
	action->flags = is.flags;
	action->mask = is.mask;
	return 0;
#else
	(void)sig;
	(void)action;
	errno = ENOSYS;
	return -1;
#endif
}

/* ---- whose a signal is ---- */

static bool has_handler(const struct sigaction *action)
{
	return (action->sa_flags & SA_SIGINFO) != 0 || (action->sa_handler != SIG_DFL && action->sa_handler != SIG_IGN);
}

static bool tells_of_a_crash(int sig)
{
	return sig == SIGSEGV || sig == SIGBUS || sig == SIGILL || sig == SIGFPE || sig == SIGTRAP || sig == SIGABRT ||
	       sig == SIGSYS;
}

static bool is_ours(const struct sigaction *action, void (*ours)(int, siginfo_t *, void *))
{
	return (action->sa_flags & SA_SIGINFO) != 0 && action->sa_sigaction == ours;
}

/* The signal's handler is ours from here on, or it is as it was. *before is written where it was not ours yet. */
static int take(int sig, void (*handler)(int, siginfo_t *, void *), struct sigaction *before)
{
	struct sigaction ours = { .sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK }, was;

	if (tells_of_a_crash(sig)) {
		errno = EINVAL;
		return -1;
	}
	ours.sa_sigaction = handler;
	sigfillset(&ours.sa_mask);
	if (sigaction(sig, NULL, &was) != 0)
		return -1;
	if (is_ours(&was, handler))
		return 0;
	if (!has_handler(&was) && sigaction(sig, &ours, &was) != 0)
		return -1;
	if (!has_handler(&was)) {
		*before = was;
		return 0;
	}
	/* (Another thread of the program may just have come.) */
	(void)sigaction(sig, &was, NULL);
	errno = EBUSY;
	return -1;
}

/* ---- a timer's ---- */

static int timer_signal;
static struct sigaction timer_was; /* what was set for the signal before */
static void (*timer_ring)(const void *context);

static void on_timer(int sig, siginfo_t *info, void *context)
{
	int saved = errno;

	/* (Somebody may send the signal by hand: what is ignored by default is ignored then.) */
	(void)sig;
	if (info->si_code == SI_TIMER && info->si_value.sival_ptr == &timer_ring)
		timer_ring(context);
	errno = saved;
}

/* No timer will send it: it does again what it did, unless the program has made it its own since. */
static void leave_signal(int sig)
{
	struct sigaction was;
	int saved = errno;

	if (sigaction(sig, &timer_was, &was) == 0 && !is_ours(&was, on_timer))
		(void)sigaction(sig, &was, NULL);
	errno = saved;
}

int qy_linux_timer_make(int sig, void (*ring)(const void *context))
{
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = sig };
	int timer = -1;

	timer_ring = ring;
	timer_signal = sig;
	event.sigev_value.sival_ptr = &timer_ring;
	if (take(sig, on_timer, &timer_was) != 0)
		return -1;
	if (syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &timer) == 0)
		return timer;
	leave_signal(sig);
	return -1;
}

static int timer_ring_in(int timer, uint64_t ms)
{
	struct itimerspec spec = { { 0, 0 }, { (time_t)(ms / 1000), (long)(ms % 1000) * 1000000 } };

	return (int)syscall(SYS_timer_settime, timer, 0, &spec, NULL);
}

int qy_linux_timer_set(int timer, uint64_t ms)
{
	struct sigaction is;

	if (sigaction(timer_signal, NULL, &is) != 0 || !is_ours(&is, on_timer)) {
		/* What it was armed for before would come to a handler that knows nothing of it. */
		(void)timer_ring_in(timer, 0);
		errno = EBUSY;
		return -1;
	}
	return timer_ring_in(timer, ms);
}

/* ---- one that somebody sends ---- */

static void (*taken_by)(const void *context);

static void on_taken(int sig, siginfo_t *info, void *context)
{
	int saved = errno;

	(void)sig;
	(void)info;
	taken_by(context);
	errno = saved;
}

int qy_linux_signal_take(int sig, void (*fn)(const void *context))
{
	struct sigaction before;

	taken_by = fn;
	return take(sig, on_taken, &before);
}
