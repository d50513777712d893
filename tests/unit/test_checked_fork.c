/* SPDX-License-Identifier: MIT */
/* The option checked and fork: what a child has of what is held back, on hugetlb memory too (which the fake kernel plays),
 * and where the parent's other threads were at it. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include "include/quarry/block.h"
#include "lib/manager/manager.h"
#include "lib/object/apart.h"
#include "tests/unit/eight_nodes.h"
#include "tests/unit/model.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))
#define MIB ((size_t)1 << 20)

static quarry_block_figures figures(void)
{
	quarry_block_figures f;

	cr_assert_eq(quarry_block_figures_get(&f, sizeof f), 0);
	return f;
}

static bool is_nothing_held(void)
{
	quarry_block_figures f = figures();

	return f.quarantined == 0 && f.quarantined_bytes == 0 && f.closed == 0 && f.closed_bytes == 0;
}

static bool is_closed(const void *p)
{
	char byte;

	return qy_os->copy(&byte, p, 1) != 0;
}

/* A child must not fail an assertion: it has a number for what is wrong. */
static void child_is_fine(pid_t child)
{
	int status;

	cr_assert_gt(child, 0);
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%x", (unsigned)status);
}

/* Samples, some of them ended: closed, and a page's contents to be copied beside them. */
Test(checked_fork, hugetlb_memory_that_is_closed)
{
	static quarry_block b[64 * QY_APART_EVERY];
	const void *closed[COUNT(b) / QY_APART_EVERY];
	size_t n = 0;
	pid_t child;

	begin();
	for (int k = 0; k < NODES; k++)
		fake_os_pool(ids[k], 21, 200);
	cr_assert_eq(quarry_ctl_set("pages", "2m"), 0);
	cr_assert_eq(quarry_ctl_set("checked", "1"), 0);
	for (size_t i = 0; i < COUNT(b); i++)
		b[i] = quarry_block_alloc(NULL, 1000);
	cr_assert_gt(qy_read(&qy_manager_of(b[0].p)->kind_got[QUARRY_PAGES_2M]), 0);
	for (size_t i = 0; i < COUNT(b); i++) {
		const void *p = b[i].p;
		bool is_sample = qy_apart_has(p);

		cr_assert_eq(quarry_block_unref(&b[i]), 1);
		if (is_sample)
			closed[n++] = p;
	}
	cr_assert_eq(n, COUNT(closed));
	cr_assert_eq(figures().closed, n);
	child = fork();
	if (child == 0) {
		size_t open = 0;

		if (qy_read(&qy_manager_of(closed[0])->kind_got[QUARRY_PAGES_2M]) != 0)
			_exit(1);
		for (size_t i = 0; i < n; i++)
			open += !is_closed(closed[i]);
		if (open != 0)
			_exit(2);
		if (quarry_block_check(0) != 0 || figures().closed != n)
			_exit(3);
		if (quarry_block_check(QUARRY_CHECK_RELEASE) != 0 || figures().late_writes != 0 || !is_nothing_held())
			_exit(4);
		for (size_t i = 0; i < n; i++)
			open += !is_closed(closed[i]);
		_exit(open == n ? 0 : 5);
	}
	child_is_fine(child);
	cr_assert_eq(quarry_block_check(QUARRY_CHECK_RELEASE), 0);
	cr_assert(is_nothing_held());
}

static void *switch_off(void *arg)
{
	(void)arg;
	cr_assert_eq(quarry_ctl_set("checked", "0"), 0);
	return NULL;
}

/* Standard error that nobody reads: who tells of a mistake there waits, until the end is given back. */
static int block_stderr(int ends[2])
{
	static const char full[4096];
	int was = dup(2);

	cr_assert(was >= 0 && pipe(ends) == 0);
	cr_assert_eq(fcntl(ends[1], F_SETFL, O_NONBLOCK), 0);
	while (write(ends[1], full, sizeof full) > 0)
		;
	cr_assert_eq(errno, EAGAIN);
	cr_assert_eq(fcntl(ends[1], F_SETFL, 0), 0);
	cr_assert_eq(dup2(ends[1], 2), 2);
	return was;
}

/* The thread that lets all go is in the midst of it, with one in hand, and is not there in the child: which lets the others
 * go, and says that nothing is held. */
Test(checked_fork, while_another_thread_lets_all_go)
{
	static quarry_block b[8 * QY_APART_EVERY];
	quarry_block first;
	pthread_t thread;
	char dummy[4096];
	int ends[2], was;
	pid_t child;

	begin();
	cr_assert_eq(quarry_ctl_set("checked", "1"), 0);
	first = quarry_block_alloc(NULL, 1000);
	for (size_t i = 0; i < COUNT(b); i++)
		b[i] = quarry_block_alloc(NULL, 1000);
	memset(first.p, 1, 1000);
	{
		unsigned char *late = first.p;

		cr_assert_eq(quarry_block_unref(&first), 1);
		late[10]++;
	}
	for (size_t i = 0; i < COUNT(b); i++)
		cr_assert_eq(quarry_block_unref(&b[i]), 1);
	cr_assert_geq(figures().closed, 7);
	cr_assert_eq(quarry_ctl_set("on_error", "report"), 0);
	was = block_stderr(ends);
	cr_assert_eq(pthread_create(&thread, NULL, switch_off, NULL), 0);
	while (figures().late_writes == 0)
		;
	child = fork();
	if (child == 0)
		_exit(is_nothing_held() && figures().late_writes == 1 ? 0 : 1);
	dup2(was, 2);
	cr_assert_gt(read(ends[0], dummy, sizeof dummy), 0);
	pthread_join(thread, NULL);
	child_is_fine(child);
	cr_assert(is_nothing_held());
}

static int (*real_mprotect)(void *addr, size_t len, int prot);
static pid_t forked;

/* As a signal handler would that comes in the midst of it. */
static int forking_mprotect(void *addr, size_t len, int prot)
{
	if (forked == 0) {
		forked = fork();
		if (forked == 0)
			_exit(quarry_block_check(0) == 0 ? 0 : 1);
	}
	return real_mprotect(addr, len, prot);
}

/* A thread that is at a place does not wait for itself, nor does its child. */
Test(checked_fork, out_of_the_midst_of_it, .timeout = 60)
{
	static quarry_block b[QY_APART_EVERY];

	begin();
	cr_assert_eq(quarry_ctl_set("checked", "1"), 0);
	real_mprotect = kernel.mprotect;
	cr_assert_eq(quarry_unref(quarry_block_alloc(NULL, 1000).p), 1);
	for (size_t i = 0; i < COUNT(b); i++)
		b[i] = quarry_block_alloc(NULL, 1000);
	kernel.mprotect = forking_mprotect;
	for (size_t i = 0; i < COUNT(b); i++)
		cr_assert_eq(quarry_block_unref(&b[i]), 1);
	kernel.mprotect = real_mprotect;
	cr_assert_neq(forked, 0);
	child_is_fine(forked);
	cr_assert_eq(quarry_block_check(QUARRY_CHECK_RELEASE), 0);
	cr_assert(is_nothing_held());
}

/* ---- forks out of forks, and beside threads that are not there ---- */

static _Atomic int held_up, go_on;
static __thread bool waits;
static bool is_in_child;

/* One thread waits with a place of its own; another forks, with one as well. */
static int mprotect_beside_another(void *addr, size_t len, int prot)
{
	if (waits) {
		atomic_store(&held_up, 1);
		while (!atomic_load(&go_on))
			sched_yield();
	} else if (forked == 0 && atomic_load(&held_up)) {
		forked = fork();
		is_in_child = forked == 0;
		forked += is_in_child;
	}
	return real_mprotect(addr, len, prot);
}

static quarry_block theirs[QY_APART_EVERY];

static void *end_theirs(void *arg)
{
	waits = true;
	for (size_t i = 0; i < COUNT(theirs); i++)
		cr_assert_eq(quarry_block_unref(&theirs[i]), 1);
	return arg;
}

/* In a child, of one thread. */
static int fork_once_more(void)
{
	pid_t child = fork();
	int status;

	if (child == 0)
		_exit(quarry_block_check(QUARRY_CHECK_RELEASE) == 0 ? 0 : 1);
	return waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : 99;
}

/* The place that another thread had is nobody's in the child: what it forks later does not wait for it. */
Test(checked_fork, a_child_forks_without_the_others, .timeout = 60)
{
	static quarry_block b[QY_APART_EVERY];
	pthread_t thread;

	begin();
	cr_assert_eq(quarry_ctl_set("checked", "1"), 0);
	real_mprotect = kernel.mprotect;
	cr_assert_eq(quarry_unref(quarry_block_alloc(NULL, 1000).p), 1);
	for (size_t i = 0; i < COUNT(b); i++) /* one of them is a sample */
		b[i] = quarry_block_alloc(NULL, 1000);
	for (size_t i = 0; i < COUNT(theirs); i++)
		theirs[i] = quarry_block_alloc(NULL, 1000);
	kernel.mprotect = mprotect_beside_another;
	cr_assert_eq(pthread_create(&thread, NULL, end_theirs, NULL), 0);
	while (!atomic_load(&held_up))
		sched_yield();
	for (size_t i = 0; i < COUNT(b); i++) {
		int r = quarry_block_unref(&b[i]);

		if (is_in_child) {
			alarm(20);
			_exit(r != 1 ? 50 : fork_once_more());
		}
		cr_assert_eq(r, 1);
	}
	atomic_store(&go_on, 1);
	pthread_join(thread, NULL);
	kernel.mprotect = real_mprotect;
	cr_assert_neq(forked, 0);
	child_is_fine(forked);
	cr_assert_eq(quarry_block_check(QUARRY_CHECK_RELEASE), 0);
	cr_assert(is_nothing_held());
}

static bool nests;
static pid_t nested;

/* A signal handler that forks within a fork. */
static void fork_within(void)
{
	if (!nests)
		return;
	nests = false;
	nested = fork();
	if (nested == 0)
		_exit(0);
}

/* The outer one goes on with all places, and leaves them. */
Test(checked_fork, a_fork_within_a_fork, .timeout = 60)
{
	uint64_t held;
	pid_t child;

	begin();
	/* Before the quarantine's own: what prepares is called in the other order. */
	cr_assert_eq(pthread_atfork(fork_within, NULL, NULL), 0);
	cr_assert_eq(quarry_ctl_set("checked", "1"), 0);
	cr_assert_eq(quarry_unref(quarry_block_alloc(NULL, 1000).p), 1);
	held = figures().quarantined;
	nests = true;
	child = fork();
	if (child == 0)
		_exit(quarry_unref(quarry_block_alloc(NULL, 1000).p) == 1 && figures().quarantined == held + 1 ? fork_once_more()
													       : 1);
	child_is_fine(nested);
	child_is_fine(child);
	cr_assert_eq(quarry_unref(quarry_block_alloc(NULL, 1000).p), 1);
	cr_assert_eq(figures().quarantined, held + 1, "there are places");
	alarm(20);
	cr_assert_eq(fork_once_more(), 0);
}

static _Atomic bool over;

static void *make_and_end(void *arg)
{
	(void)arg;
	for (unsigned i = 0; !atomic_load(&over); i++) {
		quarry_block b = quarry_block_alloc(NULL, i % 500 == 0 ? 5 * MIB : 100 + i % 1000);

		model_must(quarry_block_unref(&b) == 1, "errno %d", errno);
	}
	return NULL;
}

/* Wherever they are: what the child has in its places is whole, and all of it can go. */
Test(checked_fork, while_others_end_blocks)
{
	pthread_t thread[2];

	begin();
	cr_assert_eq(quarry_ctl_set("checked", "1"), 0);
	atomic_store(&over, false);
	for (unsigned i = 0; i < COUNT(thread); i++)
		cr_assert_eq(pthread_create(&thread[i], NULL, make_and_end, NULL), 0);
	while (figures().closed < 20)
		;
	for (unsigned round = 0; round < 60; round++) {
		pid_t child = fork();

		if (child == 0) {
			quarry_block b;

			if (quarry_block_check(QUARRY_CHECK_RELEASE) != 0 || !is_nothing_held())
				_exit(1);
			b = quarry_block_alloc(NULL, 100);
			_exit(quarry_block_unref(&b) == 1 && figures().quarantined == 1 && figures().late_writes == 0 ? 0 : 2);
		}
		child_is_fine(child);
	}
	atomic_store(&over, true);
	for (unsigned i = 0; i < COUNT(thread); i++)
		pthread_join(thread[i], NULL);
	cr_assert_eq(figures().late_writes, 0);
}
