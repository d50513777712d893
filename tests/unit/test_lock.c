/* SPDX-License-Identifier: MIT */
/* The lock: exclusion, sleeping and waking without lost wakes, errno, fork; and the ranks, which stop a program that
 * takes locks in an order that could deadlock. tests/stress/lock.c is the same under load, for ThreadSanitizer. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#undef QY_DEBUG
#define QY_DEBUG 1 /* the ranks are checked here, however the library is built */
#include "lib/base/lock.h"

static uint32_t state_of(struct qy_lock *lock)
{
	return atomic_load(&lock->state);
}

static void wait_until(struct qy_lock *lock, uint32_t state)
{
	while (state_of(lock) != state)
		sched_yield();
}

Test(lock, one_word_free_and_held)
{
	struct qy_lock lock = QY_LOCK_INIT(QY_RANK_LEAF), made;

	cr_assert_eq(state_of(&lock), 0);
	qy_lock(&lock);
	cr_assert_eq(state_of(&lock), 1);
	cr_assert_not(qy_trylock(&lock));
	qy_unlock(&lock);
	cr_assert_eq(state_of(&lock), 0);
	cr_assert(qy_trylock(&lock));
	qy_unlock(&lock);
	qy_lock_init(&made, QY_RANK_WINDOW);
	cr_assert_eq(state_of(&made), 0);
	cr_assert_eq(made.rank, QY_RANK_WINDOW);
}

struct counted {
	struct qy_lock lock;
	long count;
	unsigned inside;
	long wrong;
};

#define ROUNDS 100000

static void *count_up(void *arg)
{
	struct counted *c = arg;

	for (int i = 0; i < ROUNDS; i++) {
		if (i % 16 == 0) {
			while (!qy_trylock(&c->lock))
				sched_yield();
		} else {
			qy_lock(&c->lock);
		}
		c->wrong += c->inside++ != 0;
		c->count++;
		if (i % 1024 == 0)
			sched_yield(); /* so that others run into the lock, and sleep */
		c->inside--;
		qy_unlock(&c->lock);
	}
	return NULL;
}

Test(lock, four_threads_exclude_each_other, .timeout = 120)
{
	static struct counted c = { .lock = QY_LOCK_INIT(QY_RANK_MANAGER) };
	pthread_t thread[4];

	for (int i = 0; i < 4; i++)
		cr_assert_eq(pthread_create(&thread[i], NULL, count_up, &c), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(thread[i], NULL);
	cr_assert_eq(c.count, 4L * ROUNDS);
	cr_assert_eq(c.wrong, 0);
	cr_assert_eq(state_of(&c.lock), 0);
}

static void *take_once(void *arg)
{
	struct qy_lock *lock = arg;

	errno = 99;
	qy_lock(lock);
	qy_unlock(lock);
	return (void *)(intptr_t)errno;
}

/* The waiters are known to have given up spinning: only they write 2. All must come out. */
Test(lock, sleepers_are_woken_and_errno_is_kept, .timeout = 60)
{
	static struct qy_lock lock = QY_LOCK_INIT(QY_RANK_LEAF);
	pthread_t thread[3];

	for (int round = 0; round < 50; round++) {
		qy_lock(&lock);
		for (int i = 0; i < 3; i++)
			cr_assert_eq(pthread_create(&thread[i], NULL, take_once, &lock), 0);
		wait_until(&lock, 2);
		errno = 98;
		qy_unlock(&lock);
		cr_assert_eq(errno, 98);
		for (int i = 0; i < 3; i++) {
			void *err;
			pthread_join(thread[i], &err);
			cr_assert_eq((intptr_t)err, 99);
		}
	}
	cr_assert_eq(state_of(&lock), 0);
}

static void nothing(int sig)
{
	(void)sig;
}

static _Atomic int taken;
static void *take_and_tell(void *arg)
{
	qy_lock(arg);
	atomic_store(&taken, 1);
	qy_unlock(arg);
	return NULL;
}

Test(lock, a_signal_does_not_let_a_sleeper_in, .timeout = 60)
{
	static struct qy_lock lock = QY_LOCK_INIT(QY_RANK_LEAF);
	struct sigaction act = { .sa_handler = nothing };
	pthread_t thread;

	sigaction(SIGUSR1, &act, NULL);
	qy_lock(&lock);
	cr_assert_eq(pthread_create(&thread, NULL, take_and_tell, &lock), 0);
	wait_until(&lock, 2);
	for (int i = 0; i < 100; i++) {
		pthread_kill(thread, SIGUSR1);
		sched_yield();
		cr_assert_eq(atomic_load(&taken), 0);
	}
	qy_unlock(&lock);
	pthread_join(thread, NULL);
	cr_assert_eq(atomic_load(&taken), 1);
}

/* In the child nobody sleeps on the lock any more: what the parent's thread held is unlocked there as everywhere. */
Test(lock, held_over_fork_with_a_sleeper, .timeout = 60)
{
	static struct qy_lock lock = QY_LOCK_INIT(QY_RANK_REGISTRY);
	pthread_t thread;
	int status;
	pid_t pid;

	qy_lock(&lock);
	cr_assert_eq(pthread_create(&thread, NULL, take_once, &lock), 0);
	wait_until(&lock, 2);
	pid = fork();
	cr_assert_geq(pid, 0);
	if (pid == 0) {
		alarm(30);
		qy_unlock(&lock);
		qy_lock(&lock);
		qy_unlock(&lock);
		_exit(0);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0);
	qy_unlock(&lock);
	pthread_join(thread, NULL);
}

/* ---- ranks ---- */

static struct qy_lock by_rank[QY_RANK_LEAF + 1]; /* 0 has no rank */

static void make_ranks(void)
{
	for (uint32_t r = 0; r <= QY_RANK_LEAF; r++)
		by_rank[r].rank = r;
}

TestSuite(lock_rank, .init = make_ranks);

Test(lock_rank, rising_order_passes)
{
	for (int round = 0; round < 3; round++) {
		for (int r = 1; r <= QY_RANK_LEAF; r++)
			qy_lock(&by_rank[r]);
		for (int r = 1; r <= QY_RANK_LEAF; r++) /* and given back in any order */
			qy_unlock(&by_rank[r]);
	}
}

Test(lock_rank, a_lock_given_back_does_not_count)
{
	qy_lock(&by_rank[QY_RANK_LEAF]);
	qy_unlock(&by_rank[QY_RANK_LEAF]);
	qy_lock(&by_rank[QY_RANK_MANAGER]);
	qy_unlock(&by_rank[QY_RANK_MANAGER]);
}

Test(lock_rank, a_try_that_failed_does_not_count)
{
	struct qy_lock held = { 1, QY_RANK_WINDOW };

	cr_assert_not(qy_trylock(&held));
	qy_lock(&by_rank[QY_RANK_MANAGER]);
	qy_unlock(&by_rank[QY_RANK_MANAGER]);
}

Test(lock_rank, fork_takes_all_of_a_rank)
{
	static struct qy_lock managers[4000];

	qy_lock(&by_rank[QY_RANK_FORK]);
	for (int i = 0; i < 4000; i++) {
		qy_lock_init(&managers[i], QY_RANK_MANAGER);
		qy_lock(&managers[i]);
	}
	qy_lock(&by_rank[QY_RANK_WINDOW]);
	qy_unlock(&by_rank[QY_RANK_WINDOW]);
	for (int i = 0; i < 4000; i++)
		qy_unlock(&managers[i]);
	qy_unlock(&by_rank[QY_RANK_FORK]);
	qy_lock(&managers[0]);
	qy_unlock(&managers[0]);
}

Test(lock_rank, falling_order_stops, .signal = SIGABRT)
{
	qy_lock(&by_rank[QY_RANK_WINDOW]);
	qy_lock(&by_rank[QY_RANK_MANAGER]);
}

Test(lock_rank, two_of_one_rank_stop, .signal = SIGABRT)
{
	struct qy_lock other = QY_LOCK_INIT(QY_RANK_MANAGER);
	qy_lock(&by_rank[QY_RANK_MANAGER]);
	qy_lock(&other);
}

Test(lock_rank, taking_a_lock_twice_stops_and_does_not_hang, .signal = SIGABRT, .timeout = 30)
{
	qy_lock(&by_rank[QY_RANK_LEAF]);
	qy_lock(&by_rank[QY_RANK_LEAF]);
}

Test(lock_rank, nothing_inside_a_leaf, .signal = SIGABRT)
{
	struct qy_lock other = QY_LOCK_INIT(QY_RANK_LEAF);
	qy_lock(&by_rank[QY_RANK_LEAF]);
	qy_lock(&other);
}

Test(lock_rank, unlocking_what_is_not_held_stops, .signal = SIGABRT)
{
	struct qy_lock held = { 1, QY_RANK_LEAF };
	qy_unlock(&held);
}

Test(lock_rank, a_lock_without_a_rank_stops, .signal = SIGABRT)
{
	qy_lock(&by_rank[0]);
}

/* ---- what a failed assertion says ---- */

Test(base, a_failed_assertion_is_one_line)
{
	char said[1024] = "";
	int fds[2], status;
	ssize_t n;
	pid_t pid;

	cr_assert_eq(pipe(fds), 0);
	pid = fork();
	cr_assert_geq(pid, 0);
	if (pid == 0) {
		signal(SIGABRT, SIG_DFL);
		dup2(fds[1], STDERR_FILENO);
		qy_assert_failed("a == b", "some/file.c", 1234567);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	n = read(fds[0], said, sizeof(said) - 1);
	cr_assert_gt(n, 0);
	cr_assert_str_eq(said, "quarry: some/file.c:1234567: assertion failed: a == b\n");
	cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

Test(base, a_failed_assertion_too_long_for_the_line)
{
	static char what[4096];
	char said[1024] = "";
	int fds[2], status;
	ssize_t n;
	pid_t pid;

	for (size_t i = 0; i < sizeof(what) - 1; i++)
		what[i] = 'x';
	cr_assert_eq(pipe(fds), 0);
	pid = fork();
	cr_assert_geq(pid, 0);
	if (pid == 0) {
		signal(SIGABRT, SIG_DFL);
		dup2(fds[1], STDERR_FILENO);
		qy_assert_failed(what, "f.c", -1);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	n = read(fds[0], said, sizeof(said) - 1);
	cr_assert_eq(n, 512);
	cr_assert_eq(said[511], '\n');
	cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}
