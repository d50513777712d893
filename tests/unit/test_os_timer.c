/* SPDX-License-Identifier: MIT */
/* The kernel's timer, as numa/os.h has it: whose signal it is, and what it came in the midst of. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/unit/tend_model.h"

/* ---- the real one, without a signal ---- */

static void handler(int sig)
{
	(void)sig;
}

static void nothing(const void *context)
{
	(void)context;
}

Test(os, a_timer_takes_no_handler_from_the_program)
{
	struct sigaction action = { .sa_handler = handler }, is;

	cr_assert_eq(sigaction(SIGUSR1, &action, NULL), 0);
	errno = 0;
	cr_assert_eq(qy_os_linux.timer_make(SIGUSR1, nothing), -1);
	cr_assert_eq(errno, EBUSY);
	cr_assert_eq(sigaction(SIGUSR1, NULL, &is), 0);
	cr_assert_eq(is.sa_handler, handler);
	errno = 0;
	cr_assert_eq(qy_os_linux.timer_make(SIGSEGV, nothing), -1);
	cr_assert_eq(errno, EINVAL);
	cr_assert_eq(qy_os_linux.timer_make(SIGKILL, nothing), -1);
	cr_assert_eq(qy_os_linux.timer_make(33, nothing), -1, "libc's own");
}

static volatile sig_atomic_t taken;

static void take(const void *context)
{
	taken += context != NULL;
	errno = 12345;
}

Test(os, a_signal_that_is_taken_calls_and_keeps_errno)
{
	struct sigaction action = { .sa_handler = handler }, is;

	cr_assert_eq(sigaction(SIGUSR1, &action, NULL), 0);
	errno = 0;
	cr_assert_eq(qy_os_linux.signal_take(SIGUSR1, take), -1);
	cr_assert_eq(errno, EBUSY);
	cr_assert_eq(sigaction(SIGUSR1, NULL, &is), 0);
	cr_assert_eq(is.sa_handler, handler);
	cr_assert_eq(qy_os_linux.signal_take(SIGBUS, take), -1);
	cr_assert_eq(errno, EINVAL);
	cr_assert_eq(qy_os_linux.signal_take(SIGUSR2, take), 0);
	errno = 0;
	raise(SIGUSR2);
	cr_assert_eq(taken, 1);
	cr_assert_eq(errno, 0);
	cr_assert_eq(qy_os_linux.signal_take(SIGUSR2, take), 0, "ours already");
}

/* Without a timer it does again what it did. */
Test(os, a_signal_is_let_go_when_there_is_no_timer)
{
	struct rlimit none = { 0, 0 };
	struct sigaction is, ignored = { .sa_handler = SIG_IGN };

	cr_assert_eq(setrlimit(RLIMIT_SIGPENDING, &none), 0);
	errno = 0;
	cr_assert_eq(qy_os_linux.timer_make(SIGURG, nothing), -1);
	cr_assert_eq(errno, EAGAIN);
	cr_assert_eq(sigaction(SIGURG, NULL, &is), 0);
	cr_assert_eq(is.sa_handler, SIG_DFL);
	cr_assert_eq(sigaction(40, &ignored, NULL), 0);
	cr_assert_eq(qy_os_linux.timer_make(40, nothing), -1);
	cr_assert_eq(sigaction(40, NULL, &is), 0);
	cr_assert_eq(is.sa_handler, SIG_IGN);
}

Test(os, a_timer_is_lost_to_a_program_that_takes_its_signal)
{
	struct sigaction action = { .sa_handler = handler };
	int timer = qy_os_linux.timer_make(SIGURG, nothing);
	struct itimerspec left;

	cr_assert_geq(timer, 0);
	cr_assert_eq(qy_os_linux.timer_set(timer, 3600000), 0);
	cr_assert_eq(qy_os_linux.timer_set(timer, 0), 0);
	cr_assert_geq(qy_os_linux.timer_make(SIGURG, nothing), 0, "again, as a child does");
	cr_assert_eq(qy_os_linux.timer_set(timer, 3600000), 0);
	cr_assert_eq(sigaction(SIGURG, &action, NULL), 0);
	errno = 0;
	cr_assert_eq(qy_os_linux.timer_set(timer, 1), -1);
	cr_assert_eq(errno, EBUSY);
	cr_assert_eq(syscall(SYS_timer_gettime, timer, &left), 0);
	cr_assert(left.it_value.tv_sec == 0 && left.it_value.tv_nsec == 0, "what it was armed for does not come");
}

Test(os, what_can_be_read)
{
	char here[16] = "";

	cr_assert(qy_os_linux.readable(here));
	cr_assert_not(qy_os_linux.readable(NULL));
	cr_assert_not(qy_os_linux.readable((void *)(uintptr_t)4096));
}

/* ---- where a signal came ---- */

static volatile sig_atomic_t rang, was_waiting;
static int lines[2];

static void look(const void *context)
{
	was_waiting = qy_os_linux.was_waiting(context);
	rang++;
}

static void wait_in_handler(int sig)
{
	(void)sig;
	while (rang == 0)
		poll(NULL, 0, 10000);
}

static void make_ring(unsigned ms)
{
	static int timer = -1;

	if (timer < 0)
		timer = qy_os_linux.timer_make(SIGURG, look);
	cr_assert_geq(timer, 0);
	rang = 0;
	was_waiting = -1;
	cr_assert_eq(qy_os_linux.timer_set(timer, ms), 0);
}

Test(os, a_wait_is_told_from_work, .timeout = 60)
{
	volatile uint64_t sum = 0;
	struct sigaction action = { .sa_handler = wait_in_handler, .sa_flags = SA_RESTART };
	sigset_t none, one;
	char byte;

	make_ring(20);
	while (rang == 0)
		sum++;
	cr_assert_eq(was_waiting, 0, "it computes");

	make_ring(20);
	while (rang == 0)
		poll(NULL, 0, 10000);
	cr_assert_eq(was_waiting, 1, "poll, which ends with EINTR");

	make_ring(20);
	cr_assert_eq(pause(), -1);
	cr_assert_eq(was_waiting, 1);

	/* With another mask than its own. */
	sigemptyset(&none);
	make_ring(20);
	while (rang == 0)
		ppoll(NULL, 0, NULL, &none);
	cr_assert_eq(was_waiting, 1);

	/* A read, which is restarted: the handler feeds it. */
	cr_assert_eq(pipe(lines), 0);
	make_ring(20);
	if (fork() == 0) {
		poll(NULL, 0, 1000);
		cr_assert_eq(write(lines[1], "x", 1), 1);
		_exit(0);
	}
	cr_assert_eq(read(lines[0], &byte, 1), 1);
	cr_assert_eq(was_waiting, 1);

	/* In another handler, which may have interrupted anything. */
	cr_assert_eq(sigaction(SIGUSR1, &action, NULL), 0);
	make_ring(50);
	raise(SIGUSR1);
	cr_assert_eq(was_waiting, 0);

	/* A signal that has a handler is blocked: it may be that one. */
	sigemptyset(&one);
	sigaddset(&one, SIGUSR1);
	cr_assert_eq(sigprocmask(SIG_BLOCK, &one, NULL), 0);
	make_ring(20);
	while (rang == 0)
		poll(NULL, 0, 10000);
	cr_assert_eq(was_waiting, 0);
}

static void wait_on(size_t size)
{
	stack_t stack = { .ss_sp = malloc(size), .ss_size = size };

	cr_assert_not_null(stack.ss_sp);
	cr_assert_eq(sigaltstack(&stack, NULL), 0);
	make_ring(20);
	while (rang == 0)
		poll(NULL, 0, 10000);
}

Test(os, a_small_alternate_stack_is_not_for_long_work, .timeout = 60)
{
	wait_on(16 * KIB);
	cr_assert_eq(was_waiting, 0);
	wait_on(128 * KIB);
	cr_assert_eq(was_waiting, 1);
}
