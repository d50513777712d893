/* SPDX-License-Identifier: MIT */
/* The same work done by eight threads at once, and what of it was refused or went too far. To be included once, by a
 * test. */
#ifndef QUARRY_TESTS_EIGHT_THREADS_H
#define QUARRY_TESTS_EIGHT_THREADS_H

#include <criterion/criterion.h>
#include <pthread.h>

#define THREADS 8

static pthread_barrier_t barrier;
static _Atomic(unsigned) denied, beyond;

static inline void run(void *(*body)(void *), void *const *args)
{
	pthread_t threads[THREADS];

	pthread_barrier_init(&barrier, NULL, THREADS);
	denied = beyond = 0;
	for (int i = 0; i < THREADS; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, body, args[i]), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
}

#endif
