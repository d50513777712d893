/* SPDX-License-Identifier: MIT */
/* Whether a thread is blocked in a system call and in no signal handler: by what the kernel's files may say, played;
 * and by what the real kernel says of real threads. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "tests/fake_os.h"

/* ---- what the kernel says: the files ---- */

#define TID 4242

static unsigned long flags_of[65];
static uint64_t mask_of[65], handled, ignored;

static int play_action(int sig, struct qy_signal_action *action)
{
	*action = (struct qy_signal_action){ handled >> (sig - 1) & 1, ignored >> (sig - 1) & 1, flags_of[sig], mask_of[sig] };
	return 0;
}

static uint64_t bit(int sig)
{
	return (uint64_t)1 << (sig - 1);
}

static void files(const char *call, uint64_t blocked, const char *ids, int tracer, int times)
{
	char text[1024];

	snprintf(text, sizeof(text), "Name:\tsleeper\nTracerPid:\t%d\nNSpid:\t%s\nSigBlk:\t%016lx\nSigCgt:\t%016lx\n"
		 "voluntary_ctxt_switches:\t%d\nnonvoluntary_ctxt_switches:\t7\n", tracer, ids, (unsigned long)blocked,
		 (unsigned long)handled, times);
	fake_os_file("/proc/self/task/4242/status", text);
	fake_os_file("/proc/self/task/4242/syscall", call);
}

static char *call_text(long number, int argument, unsigned long value)
{
	static char text[256];
	unsigned long a6[6] = { 0x11, 0x22, 0, 0, 0, 0 };

	if (argument >= 0)
		a6[argument] = value;
	snprintf(text, sizeof(text), "%ld 0x%lx 0x%lx 0x%lx 0x%lx 0x%lx 0x%lx 0x7ffc0000 0x7f1234\n", number, a6[0], a6[1],
		 a6[2], a6[3], a6[4], a6[5]);
	return text;
}

static void begin_files(void)
{
	fake_os_install();
	fake_os_signals(play_action);
	handled = ignored = 0;
	memset(flags_of, 0, sizeof(flags_of));
	memset(mask_of, 0, sizeof(mask_of));
	if (qy_os_linux.thread_switches((int)syscall(SYS_gettid)) == 0)
		cr_skip_test("this kernel does not tell of threads, or is not the one under us");
}

static bool blocked_with(const char *call, uint64_t blocked)
{
	files(call, blocked, "4242", 0, 12);
	return qy_os->thread_blocked(TID);
}

Test(files, of_calls)
{
	begin_files();
	cr_assert(blocked_with(call_text(SYS_futex, -1, 0), 0));
	cr_assert(blocked_with(call_text(SYS_read, -1, 0), 0));
	cr_assert(blocked_with(call_text(SYS_ppoll, -1, 0), 0));
	cr_assert_not(blocked_with(call_text(SYS_ppoll, 3, 0x7ffc1000), 0), "another mask");
	cr_assert(blocked_with(call_text(SYS_epoll_pwait, 3, 0x7ffc1000), 0));
	cr_assert_not(blocked_with(call_text(SYS_epoll_pwait, 4, 0x7ffc1000), 0));
	cr_assert_not(blocked_with(call_text(SYS_pselect6, 5, 0x7ffc1000), 0));
	cr_assert_not(blocked_with(call_text(SYS_rt_sigsuspend, -1, 0), 0));
	cr_assert_not(blocked_with(call_text(SYS_rt_sigtimedwait, -1, 0), 0));
	cr_assert_not(blocked_with(call_text(SYS_rt_sigreturn, -1, 0), 0));
	cr_assert_not(blocked_with(call_text(SYS_clone, -1, 0), 0));
	cr_assert_not(blocked_with(call_text(999999, -1, 0), 0));
	cr_assert_not(blocked_with("running\n", 0));
	cr_assert_not(blocked_with("-1 0x7ffc0000 0x7f1234\n", 0));
	cr_assert_not(blocked_with("", 0));
	cr_assert_not(blocked_with("202\n", 0));
	cr_assert_not(blocked_with("202 0x1 0x2 0x3\n", 0));
	cr_assert_not(blocked_with("202 0x1 0x2 0x3 0x4 0x5 0x6 0x7 0x8 0x9\n", 0));
	cr_assert_not(blocked_with(NULL, 0), "no such file");
}

Test(files, of_state)
{
	const char *call = call_text(SYS_futex, -1, 0);

	begin_files();
	cr_assert(blocked_with(call, 0));
	files(call, 0, "17\t4242", 0, 12);
	cr_assert(qy_os->thread_blocked(TID), "in a namespace");
	cr_assert_eq(qy_os->thread_switches(TID), 12 + 7 + 1);
	files(call, 0, "4242\t17", 0, 12);
	cr_assert_not(qy_os->thread_blocked(TID), "somebody else, of another namespace");
	cr_assert_eq(qy_os->thread_switches(TID), 0);
	files(call, 0, "4242", 99, 12);
	cr_assert_not(qy_os->thread_blocked(TID), "a debugger");
	fake_os_file("/proc/self/task/4242/status", "Name:\tx\nSigBlk:\t0000000000000000\n");
	cr_assert_not(qy_os->thread_blocked(TID), "cut off");
	fake_os_file("/proc/self/task/4242/status", NULL);
	cr_assert_not(qy_os->thread_blocked(TID));
	cr_assert_eq(qy_os->thread_switches(TID), 0);
}

static int state_reads;
static ssize_t (*read_before)(const char *path, char *buffer, size_t size);
static struct qy_os moving;
static int moves_at;

/* It goes off its CPU once more when the file is read for the n-th time. */
static ssize_t read_moving(const char *path, char *buffer, size_t size)
{
	if (strstr(path, "/status") != NULL)
		files(call_text(SYS_futex, -1, 0), 0, "4242", 0, ++state_reads >= moves_at ? 13 : 12);
	return read_before(path, buffer, size);
}

Test(files, of_two_times)
{
	begin_files();
	read_before = qy_os->read_file;
	moving = *qy_os;
	moving.read_file = read_moving;
	qy_os = &moving;
	for (moves_at = 1; moves_at <= 5; moves_at++) {
		state_reads = 0;
		cr_assert_eq(qy_os->thread_blocked(TID), moves_at == 1 || moves_at > 3, "%d", moves_at);
	}
}

Test(files, of_signals)
{
	const char *call = call_text(SYS_futex, -1, 0);

	begin_files();
	cr_assert(blocked_with(call, ~(uint64_t)0), "all blocked, none has ever had an action");
	handled = bit(SIGUSR1) | bit(SIGSEGV);
	cr_assert(blocked_with(call, 0));
	cr_assert(blocked_with(call, bit(SIGUSR2)));
	cr_assert_not(blocked_with(call, bit(SIGUSR1)));
	flags_of[SIGUSR1] = SA_NODEFER;
	cr_assert_not(blocked_with(call, 0), "it cannot be seen");
	mask_of[SIGUSR1] = bit(SIGTERM) | bit(SIGINT);
	cr_assert(blocked_with(call, bit(SIGTERM)), "in the handler both were blocked");
	cr_assert_not(blocked_with(call, bit(SIGTERM) | bit(SIGINT)));
	flags_of[SIGUSR1] = 0;
	flags_of[SIGSEGV] = SA_NODEFER;
	cr_assert(blocked_with(call, 0), "a crash");
	/* One that was for one time, and is gone. */
	handled = 0;
	flags_of[SIGUSR1] = SA_RESETHAND;
	cr_assert(blocked_with(call, 0));
	cr_assert_not(blocked_with(call, bit(SIGUSR1)));
	flags_of[SIGUSR1] |= SA_NODEFER;
	mask_of[SIGUSR1] = 0;
	cr_assert_not(blocked_with(call, 0));
	flags_of[SIGUSR1] = 0;
	ignored = bit(SIGPIPE);
	flags_of[SIGPIPE] = SA_RESTART;
	cr_assert(blocked_with(call, bit(SIGPIPE)));
}

/* ---- and the real kernel ---- */

enum how { IN_READ, IN_FUTEX, IN_SLEEP, IN_POLL, RUNNING, HANDLING, HANDLING_SUSPENDED, HANDLING_MASKED, HOWS };

static const char *const how_names[HOWS] = { "read", "futex", "sleep", "poll", "running", "handling", "suspended",
					     "masked" };
static _Atomic(int) its_tid, in_handler;
static int nothing_comes[2];

static void on_signal(int sig)
{
	char c;

	(void)sig;
	atomic_store(&in_handler, 1);
	if (read(nothing_comes[0], &c, 1) < 0)
		_exit(3);
}

static void on_signal_masked(int sig)
{
	sigset_t none;

	(void)sig;
	sigemptyset(&none);
	atomic_store(&in_handler, 1);
	ppoll(NULL, 0, NULL, &none);
}

static void on_signal_suspended(int sig)
{
	sigset_t none;

	(void)sig;
	sigemptyset(&none);
	atomic_store(&in_handler, 1);
	sigsuspend(&none);
}

static void *be(void *arg)
{
	enum how how = (enum how)(intptr_t)arg;
	static _Atomic(uint32_t) word;
	char c;

	atomic_store(&its_tid, (int)syscall(SYS_gettid));
	switch (how) {
	case IN_READ:
		return (void *)(intptr_t)read(nothing_comes[0], &c, 1);
	case IN_FUTEX:
		return (void *)(intptr_t)syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
	case IN_SLEEP:
		return (void *)(intptr_t)sleep(1000);
	case IN_POLL:
		return (void *)(intptr_t)poll(NULL, 0, -1);
	default:
		for (;;)
			sched_yield();
	}
}

/* Asked as long as it may take until the thread is there. */
static bool becomes_blocked(void)
{
	struct timespec moment = { 0, 1000000 };

	for (int n = 0; n < 5000; n++) {
		if (qy_os_linux.thread_blocked(atomic_load(&its_tid)))
			return true;
		nanosleep(&moment, NULL);
	}
	return false;
}

static bool stays_unblocked(void)
{
	struct timespec moment = { 0, 1000000 };

	for (int n = 0; n < 100; n++) {
		if (qy_os_linux.thread_blocked(atomic_load(&its_tid)))
			return false;
		nanosleep(&moment, NULL);
	}
	return true;
}

Test(real, threads_in_calls_and_out, .timeout = 60)
{
	struct sigaction action = { .sa_handler = on_signal };

	begin_files();
	fake_os_signals(NULL);
	cr_assert_eq(pipe(nothing_comes), 0);
	for (int how = 0; how < HOWS; how++) {
		pthread_t thread;

		atomic_store(&its_tid, 0);
		atomic_store(&in_handler, 0);
		cr_assert_eq(pthread_create(&thread, NULL, be, (void *)(intptr_t)how), 0);
		while (atomic_load(&its_tid) == 0)
			sched_yield();
		if (how >= HANDLING) {
			action.sa_handler = how == HANDLING ? on_signal : how == HANDLING_MASKED ? on_signal_masked : on_signal_suspended;
			cr_assert_eq(sigaction(SIGUSR1, &action, NULL), 0);
			cr_assert_eq(pthread_kill(thread, SIGUSR1), 0);
			while (atomic_load(&in_handler) == 0)
				sched_yield();
		}
		if (how < RUNNING)
			cr_assert(becomes_blocked(), "%s", how_names[how]);
		else
			cr_assert(stays_unblocked(), "%s", how_names[how]);
	}
	cr_assert_not(qy_os_linux.thread_blocked(1 << 30), "no such thread");
}
