/* SPDX-License-Identifier: MIT */
/* The lock under load: threads add to plain words under locks of every rank, nested as quarry nests them, hold them
 * long now and then so that others sleep. A plain program, for ThreadSanitizer.
 * Arguments: --ops N (rounds of one thread), --seed N. Exit status 0 or 1. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#undef QY_DEBUG
#define QY_DEBUG 1
#include "lib/base/lock.h"

#define THREADS 4
#define LOCKS 3

/* Plain, not atomic: a lock that does not exclude, or does not order, is a race that the sanitizer tells, and here and
 * there a sum that is wrong. */
static struct {
	struct qy_lock lock;
	unsigned long sum;
	unsigned owner;
} cell[LOCKS] = {
	{ .lock = QY_LOCK_INIT(QY_RANK_REGISTRY) },
	{ .lock = QY_LOCK_INIT(QY_RANK_MANAGER) },
	{ .lock = QY_LOCK_INIT(QY_RANK_LEAF) },
};

static long rounds = 200000;
static unsigned first_seed;
static _Atomic unsigned long wrong;

static void work_on(int i, unsigned me, unsigned *seed)
{
	cell[i].owner = me;
	cell[i].sum++;
	if (rand_r(seed) % 4096 == 0)
		sched_yield();
	if (cell[i].owner != me)
		atomic_fetch_add(&wrong, 1);
}

static void *work(void *arg)
{
	unsigned me = (unsigned)(uintptr_t)arg, seed = first_seed * 31 + me;

	for (long r = 0; r < rounds; r++) {
		int from = (int)(rand_r(&seed) % LOCKS), to = from + (int)(rand_r(&seed) % (LOCKS - (unsigned)from));
		for (int i = from; i <= to; i++) {
			if (rand_r(&seed) % 8 == 0)
				while (!qy_trylock(&cell[i].lock))
					sched_yield();
			else
				qy_lock(&cell[i].lock);
		}
		for (int i = from; i <= to; i++)
			work_on(i, me, &seed);
		for (int i = to; i >= from; i--)
			qy_unlock(&cell[i].lock);
	}
	return NULL;
}

/* The same random numbers, without the threads: how often each lock was taken. */
static void replay(unsigned me, unsigned long expected[LOCKS])
{
	unsigned seed = first_seed * 31 + me;

	for (long r = 0; r < rounds; r++) {
		int from = (int)(rand_r(&seed) % LOCKS), to = from + (int)(rand_r(&seed) % (LOCKS - (unsigned)from));
		for (int i = from; i <= to; i++) {
			(void)rand_r(&seed);
			expected[i]++;
		}
		for (int i = from; i <= to; i++)
			(void)rand_r(&seed);
	}
}

int main(int argc, char **argv)
{
	unsigned long expected[LOCKS] = { 0 };
	pthread_t thread[THREADS];

	first_seed = (unsigned)time(NULL);
	for (int i = 1; i + 1 < argc; i += 2) {
		if (strcmp(argv[i], "--ops") == 0)
			rounds = atol(argv[i + 1]);
		else if (strcmp(argv[i], "--seed") == 0)
			first_seed = (unsigned)strtoul(argv[i + 1], NULL, 0);
	}
	printf("lock: seed %u, %ld rounds of %d threads\n", first_seed, rounds, THREADS);
	for (uintptr_t i = 0; i < THREADS; i++)
		if (pthread_create(&thread[i], NULL, work, (void *)(i + 1)) != 0) {
			perror("lock: pthread_create");
			return 1;
		}
	for (int i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	for (unsigned i = 0; i < THREADS; i++)
		replay(i + 1, expected);
	for (int i = 0; i < LOCKS; i++)
		if (cell[i].sum != expected[i] || atomic_load(&wrong) || atomic_load(&cell[i].lock.state)) {
			printf("lock: FAIL (seed %u): lock %d: %lu of %lu, %lu intrusions, state %u\n", first_seed, i,
			       cell[i].sum, expected[i], atomic_load(&wrong), atomic_load(&cell[i].lock.state));
			return 1;
		}
	printf("lock: ok\n");
	return 0;
}
