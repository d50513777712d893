/* SPDX-License-Identifier: MIT */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "lib/base/spawn.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>

#define STACK_SIZE ((size_t)256 << 10) /* the C library may take the static TLS of all libraries out of it: more
                                        * is tried */
#define STACK_TRIES 3

static int create(pthread_attr_t *attr, void *(*run)(void *))
{
	pthread_t id;
	int failed = EINVAL;

	for (unsigned i = 0; i < STACK_TRIES && failed == EINVAL; i++) {
		pthread_attr_setstacksize(attr, STACK_SIZE << (2 * i));
		failed = pthread_create(&id, attr, run, NULL);
	}
	return failed;
}

bool qy_spawn(void *(*run)(void *))
{
	int error = errno, failed;
	sigset_t all, before;
	pthread_attr_t attr;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	failed = create(&attr, run);
	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	errno = error;
	return failed == 0;
}
