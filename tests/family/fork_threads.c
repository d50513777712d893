/* SPDX-License-Identifier: MIT */
/* A program with threads that never stop allocating forks from each of them in turn; the child frees what it
 * inherited, allocates, starts threads of its own and forks again. A lock held by a thread that is not in the child
 * shows as a hang. variants: preload linked archive static */
#include <pthread.h>
#include <sys/wait.h>

#include "tests/family/family.h"

#define THREADS 4
#define SLOTS 256
#define FORKS 60

static _Atomic int stop;

struct slot {
	unsigned char *p;
	size_t size;
	unsigned char with;
};

struct worker {
	pthread_t thread;
	uint64_t random;
	int forks;
	struct slot slot[SLOTS];
};

static struct worker workers[THREADS];
/* Each thread's slots are its own, except in a child, where its one thread has all. The fork happens between two
 * changes, never in the middle of one, for the forking thread only; the others' may be half changed, so the child only
 * touches its own and this table. */
static struct slot shared[SLOTS];

static void step(struct slot *s, uint64_t *random)
{
	if (s->p) {
		CHECK(family_holds(s->p, s->size, s->with));
		if (family_random(random) % 4 == 0) {
			size_t to = family_size(random, 14);
			s->p = realloc(s->p, to);
			CHECK(s->p != NULL);
			CHECK(family_holds(s->p, to < s->size ? to : s->size, s->with));
			s->size = to;
			family_fill(s->p, to, s->with);
			return;
		}
		free(s->p);
		s->p = NULL;
		return;
	}
	s->size = family_size(random, family_random(random) % 50 ? 10 : 19);
	s->with = (unsigned char)family_random(random);
	s->p = malloc(s->size);
	CHECK(s->p != NULL);
	family_fill(s->p, s->size, s->with);
}

static void *childs_thread(void *arg)
{
	struct slot s[64] = { { 0 } };
	uint64_t random = 1 + (uint64_t)(uintptr_t)arg;

	for (int i = 0; i < 2000; i++)
		step(&s[family_random(&random) % 64], &random);
	for (int i = 0; i < 64; i++)
		free(s[i].p);
	return NULL;
}

static void wait_for(pid_t pid)
{
	int status;

	CHECK(pid > 0);
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void child(struct worker *w)
{
	pthread_t t;

	for (int i = 0; i < SLOTS; i++) {
		CHECK(family_holds(shared[i].p, shared[i].size, shared[i].with));
		free(shared[i].p);
		CHECK(w->slot[i].p == NULL || family_holds(w->slot[i].p, w->slot[i].size, w->slot[i].with));
		free(w->slot[i].p);
		w->slot[i].p = NULL;
	}
	for (int i = 0; i < 3000; i++)
		step(&w->slot[family_random(&w->random) % SLOTS], &w->random);
	CHECK(pthread_create(&t, NULL, childs_thread, w) == 0);
	childs_thread(NULL);
	CHECK(pthread_join(t, NULL) == 0);
	pid_t pid = fork();
	if (pid == 0) {
		childs_thread(w);
		_exit(0);
	}
	wait_for(pid);
	_exit(0);
}

static void *run(void *arg)
{
	struct worker *w = arg;
	int forked = 0;

	while (forked < FORKS / THREADS) {
		for (int i = 0; i < 1000; i++)
			step(&w->slot[family_random(&w->random) % SLOTS], &w->random);
		pid_t pid = fork();
		if (pid == 0)
			child(w);
		wait_for(pid);
		forked++;
	}
	while (!stop)
		step(&w->slot[family_random(&w->random) % SLOTS], &w->random);
	return NULL;
}

int main(void)
{
	uint64_t random = 3;

	family_in_use();
	for (int i = 0; i < SLOTS; i++)
		step(&shared[i], &random);
	for (int i = 0; i < THREADS; i++) {
		workers[i].random = 10 + (uint64_t)i;
		CHECK(pthread_create(&workers[i].thread, NULL, run, &workers[i]) == 0);
	}
	for (int i = 0; i < FORKS; i++) {
		pid_t pid = fork();
		if (pid == 0) {
			childs_thread(NULL);
			for (int j = 0; j < SLOTS; j++)
				free(shared[j].p);
			exit(0); /* with all that is to run at exit */
		}
		wait_for(pid);
	}
	stop = 1;
	for (int i = 0; i < THREADS; i++)
		CHECK(pthread_join(workers[i].thread, NULL) == 0);
	for (int i = 0; i < SLOTS; i++)
		CHECK(family_holds(shared[i].p, shared[i].size, shared[i].with));
	return 0;
}
