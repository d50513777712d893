/* SPDX-License-Identifier: MIT */
/* Pattern: a server whose threads replace random objects, and hand all they hold over to a successor thread when
 * they end. Most objects are freed by another thread than the one that made them, and that one is dead by then.
 * Source: P.-Å. Larson, M. Krishnan, "Memory Allocation for Long-Running Server Applications", ISMM 1998. */
#include "bench.h"

#include <pthread.h>

#define MIN_SIZE 8
#define MAX_SIZE 1000

struct worker {
	struct bench_slot *slots;
	struct bench_quota quota;
	uint64_t random;
	uint64_t done;
	uint32_t tag;
};

static uint64_t slots = 5000, generation = 50000;
static const struct bench_extra extra[] = {
	{ "slots", &slots, "objects that a thread holds" },
	{ "generation", &generation, "replacements in a thread's life" },
};
static struct bench bench = {
	.name = "larson", .op = "one object replaced", .ops = 16000000, .threads = 2, .seed = 1,
	.extra = extra, .extras = sizeof(extra) / sizeof(extra[0]),
};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t ended = PTHREAD_COND_INITIALIZER;
static uint64_t running;

static void *live(void *argument);

static void start(struct worker *w)
{
	pthread_attr_t detached;
	pthread_t thread;

	pthread_attr_init(&detached);
	pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
	if (pthread_create(&thread, &detached, live, w))
		bench_die("pthread_create failed");
	pthread_attr_destroy(&detached);
}

static uint32_t any_size(struct worker *w)
{
	return MIN_SIZE + bench_below(&w->random, MAX_SIZE - MIN_SIZE + 1);
}

/* One thread's life; the successor is started by the dying thread, as in the paper. */
static void *live(void *argument)
{
	struct worker *w = argument;
	uint64_t n = bench_take(&w->quota, generation);

	for (uint64_t i = 0; i < n; i++) {
		struct bench_slot *s = &w->slots[bench_below(&w->random, (uint32_t)slots)];

		bench_empty(s);
		bench_fill(s, any_size(w), w->tag++);
	}
	w->done += n;
	if (n) {
		start(w);
		return NULL;
	}
	pthread_mutex_lock(&lock);
	if (--running == 0)
		pthread_cond_signal(&ended);
	pthread_mutex_unlock(&lock);
	return NULL;
}

/* The first objects are the main thread's, mixed over all workers, so that neighbours in memory have different
 * owners. */
static void fill(struct worker *workers)
{
	uint64_t count = slots * bench.threads;

	for (uint64_t i = 0; i < count; i++) {
		struct worker *w = &workers[i % bench.threads];

		bench_fill(&w->slots[i / bench.threads], any_size(w), w->tag++);
	}
}

int main(int argc, char **argv)
{
	struct worker *workers;
	uint64_t done = 0;

	bench_begin(&bench, argc, argv);
	workers = bench_table(bench.threads * sizeof(*workers));
	bench_start(&bench);
	for (uint64_t i = 0; i < bench.threads; i++) {
		workers[i].slots = bench_table(slots * sizeof(struct bench_slot));
		workers[i].random = bench_seed(&bench, i);
		workers[i].quota = bench_share(&bench, i, bench.threads);
	}
	fill(workers);
	running = bench.threads;
	for (uint64_t i = 0; i < bench.threads; i++)
		start(&workers[i]);
	pthread_mutex_lock(&lock);
	while (running)
		pthread_cond_wait(&ended, &lock);
	pthread_mutex_unlock(&lock);
	for (uint64_t i = 0; i < bench.threads; i++) {
		for (uint64_t j = 0; j < slots; j++)
			bench_empty(&workers[i].slots[j]);
		done += workers[i].done;
	}
	bench_stop(&bench);
	bench_report(&bench, done);
	return 0;
}
