/* SPDX-License-Identifier: MIT */
/* What getting and putting an object costs, beside quarry_malloc and quarry_free of as many bytes in the same run:
 * medians of ROUNDS rounds, in which all of them take turns. ns of the thread's CPU time for a pair, and its ratio to
 * a pair of malloc and free (the last three: for one operation, or a pair that is none of these).
 *
 *	pool [ROUNDS [OBJECTS]] (11, 2 million) */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "include/quarry/pool.h"
#include "median.h"

#define ROUNDS_MAX 101
#define BATCH 1024
#define SIZE 256

static quarry_pool *pool;
static size_t count = 2000000;
static void *objects[BATCH];

static double now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static inline void touch(void *p)
{
	*(volatile char *)p = 1;
}

static void malloc_pair(void)
{
	for (size_t i = 0; i < count; i++) {
		void *p = quarry_malloc(SIZE);

		touch(p);
		quarry_free(p);
	}
}

static void pool_pair(void)
{
	for (size_t i = 0; i < count; i++) {
		void *p = quarry_pool_get(pool);

		touch(p);
		quarry_pool_put(pool, p, QUARRY_POOL_SAFE);
	}
}

static void malloc_many(void)
{
	for (size_t i = 0; i < count; i += BATCH) {
		for (size_t k = 0; k < BATCH; k++)
			touch(objects[k] = quarry_malloc(SIZE));
		for (size_t k = 0; k < BATCH; k++)
			quarry_free(objects[k]);
	}
}

static void pool_many(void)
{
	for (size_t i = 0; i < count; i += BATCH) {
		for (size_t k = 0; k < BATCH; k++)
			touch(objects[k] = quarry_pool_get(pool));
		for (size_t k = 0; k < BATCH; k++)
			quarry_pool_put(pool, objects[k], QUARRY_POOL_SAFE);
	}
}

static void pool_bulk(void)
{
	for (size_t i = 0; i < count; i += BATCH) {
		quarry_pool_get_bulk(pool, objects, BATCH);
		for (size_t k = 0; k < BATCH; k++)
			touch(objects[k]);
		quarry_pool_put_bulk(pool, objects, BATCH, QUARRY_POOL_SAFE);
	}
}

/* Each life has a token, and is put by it. */
static void pool_token(void)
{
	for (size_t i = 0; i < count; i++) {
		void *p = quarry_pool_get(pool);
		quarry_token t = quarry_pool_token(pool, p);

		touch(p);
		quarry_pool_put_token(pool, t, QUARRY_POOL_SAFE);
	}
}

static void pool_enter(void)
{
	void *p = quarry_pool_get(pool);
	quarry_token t = quarry_pool_token(pool, p);

	for (size_t i = 0; i < count; i++) {
		touch(quarry_pool_enter(pool, t));
		quarry_pool_leave(pool, t);
	}
	quarry_pool_put(pool, p, QUARRY_POOL_SAFE);
}

/* ---- what one thread gets, another puts; the putting thread's time for an object ---- */

static void *shelf[BATCH * 64];
static atomic_int turn; /* 0: to be filled; 1: to be emptied; 2: over */
static double spent;
static int by_pool;

static void *putter(void *unused)
{
	(void)unused;
	for (;;) {
		int t;
		double since;

		while ((t = atomic_load_explicit(&turn, memory_order_acquire)) == 0)
			;
		if (t == 2)
			return NULL;
		since = now_ns();
		for (size_t k = 0; k < sizeof(shelf) / sizeof(*shelf); k++) {
			if (by_pool)
				quarry_pool_put(pool, shelf[k], QUARRY_POOL_SAFE);
			else
				quarry_free(shelf[k]);
		}
		spent += now_ns() - since;
		atomic_store_explicit(&turn, 0, memory_order_release);
	}
}

static double crossing(int pools)
{
	size_t n = sizeof(shelf) / sizeof(*shelf), turns = count / n + 1;
	pthread_t thread;

	by_pool = pools;
	spent = 0;
	atomic_store(&turn, 0);
	pthread_create(&thread, NULL, putter, NULL);
	for (size_t i = 0; i < turns; i++) {
		for (size_t k = 0; k < n; k++)
			touch(shelf[k] = pools ? quarry_pool_get(pool) : quarry_malloc(SIZE));
		atomic_store_explicit(&turn, 1, memory_order_release);
		while (atomic_load_explicit(&turn, memory_order_acquire) == 1)
			;
	}
	atomic_store_explicit(&turn, 2, memory_order_release);
	pthread_join(thread, NULL);
	return spent / (double)(turns * n);
}

/* ---- rounds ---- */

static double time_of(void (*fn)(void))
{
	double since = now_ns();

	fn();
	return (now_ns() - since) / (double)count;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*fn)(void);
		int beside; /* which of these it is compared to */
	} what[] = {
		{ "malloc, free", malloc_pair, 0 },
		{ "get, put", pool_pair, 0 },
		{ "1024 of malloc, then free", malloc_many, 2 },
		{ "1024 of get, then put", pool_many, 2 },
		{ "get_bulk, put_bulk of 1024", pool_bulk, 2 },
		{ "get, token, put_token", pool_token, 0 },
		{ "enter, leave", pool_enter, 0 },
		{ "free, of another thread's", NULL, 7 },
		{ "put, of what another got", NULL, 7 },
	};
	enum { KINDS = sizeof(what) / sizeof(*what) };
	static double took[KINDS][ROUNDS_MAX];
	quarry_pool_attr attr = { .struct_size = sizeof(attr), .size = SIZE };
	int rounds = argc > 1 ? atoi(argv[1]) : 11;
	double middle[KINDS];

	if (argc > 2)
		count = strtoul(argv[2], NULL, 10);
	if (rounds < 1 || rounds > ROUNDS_MAX || count < BATCH || (pool = quarry_pool_create(&attr)) == NULL) {
		fprintf(stderr, "usage: pool [ROUNDS [OBJECTS]]\n");
		return 1;
	}
	count -= count % BATCH;
	for (int r = -1; r < rounds; r++) /* the first is for warming up */
		for (int k = 0; k < KINDS; k++)
			took[k][r < 0 ? 0 : r] = what[k].fn != NULL ? time_of(what[k].fn) : crossing(k == KINDS - 1);
	printf("%d rounds of %zu objects of %d bytes; ns, medians\n", rounds, count, SIZE);
	for (int k = 0; k < KINDS; k++) {
		middle[k] = median(took[k], rounds);
		printf("%-28s %7.2f   x %.2f\n", what[k].name, middle[k], middle[k] / middle[what[k].beside]);
	}
	return quarry_pool_destroy(pool, 0) != 0;
}
