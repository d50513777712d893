/* SPDX-License-Identifier: MIT */
/* Signals rain on threads that allocate: calls to the kernel are interrupted, errno is changed under way (and put
 * back, as a handler must), and signals that a thread has blocked stay blocked. Handlers do not allocate, which
 * POSIX forbids. variants: preload linked archive static */
#include <pthread.h>
#include <signal.h>
#include <sys/time.h>

#include "tests/family/family.h"

#define THREADS 3
#define STEPS 400000

static _Atomic long signals;
static _Atomic int done;

static void handler(int number)
{
	int saved = errno;

	(void)number;
	signals++;
	errno = EINTR;
	errno = saved;
}

static void *work(void *arg)
{
	static _Thread_local struct {
		unsigned char *p;
		size_t n;
	} slot[512];
	uint64_t random = 21 + (uint64_t)(uintptr_t)arg;

	for (int i = 0; i < STEPS; i++) {
		unsigned at = (unsigned)(family_random(&random) % 512);
		if (slot[at].p) {
			CHECK(slot[at].p[0] == (unsigned char)at && slot[at].p[slot[at].n - 1] == (unsigned char)at);
			errno = 40;
			free(slot[at].p);
			CHECK(errno == 40);
			slot[at].p = NULL;
			continue;
		}
		slot[at].n = family_size(&random, i % 300 ? 10 : 21);
		slot[at].p = i % 5 ? malloc(slot[at].n) : calloc(1, slot[at].n);
		CHECK(slot[at].p != NULL);
		slot[at].p[0] = slot[at].p[slot[at].n - 1] = (unsigned char)at;
	}
	done++;
	return NULL;
}

int main(void)
{
	struct sigaction action = { .sa_handler = handler }; /* no SA_RESTART */
	struct itimerval often = { { 0, 200 }, { 0, 200 } }, never = { { 0, 0 }, { 0, 0 } };
	sigset_t set, left;
	pthread_t threads[THREADS];

	family_in_use();
	CHECK(sigaction(SIGALRM, &action, NULL) == 0 && sigaction(SIGUSR1, &action, NULL) == 0 &&
	      sigaction(SIGUSR2, &action, NULL) == 0);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	CHECK(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
	CHECK(setitimer(ITIMER_REAL, &often, NULL) == 0);
	for (uintptr_t i = 0; i < THREADS; i++)
		CHECK(pthread_create(&threads[i], NULL, work, (void *)i) == 0);
	/* The threads are there until they are joined. */
	for (int i = 0; done < THREADS; i++) {
		CHECK(pthread_kill(threads[i % THREADS], SIGUSR1) == 0);
		if (i % 64 == 0)
			free(malloc((size_t)1 << 20));
	}
	for (int i = 0; i < THREADS; i++)
		CHECK(pthread_join(threads[i], NULL) == 0);
	work((void *)99);
	CHECK(setitimer(ITIMER_REAL, &never, NULL) == 0);
	CHECK(signals > 100);
	CHECK(pthread_sigmask(SIG_BLOCK, NULL, &left) == 0);
	CHECK(sigismember(&left, SIGUSR2) == 1 && sigismember(&left, SIGUSR1) == 0 && sigismember(&left, SIGALRM) == 0);
	return 0;
}
