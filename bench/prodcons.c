/* SPDX-License-Identifier: MIT */
/* Pattern: producers that only allocate and consumers that only free, objects of 64 bytes: every single free is
 * another thread's. The ring between them is bounded, and holds batches, so that its lock costs little.
 * Source: C. Lever, D. Boreham, "malloc() Performance in a Multithreaded Linux Environment", USENIX 2000 (FREENIX),
 * and the xmalloc-test of its descent. */
#include "bench.h"

#include <pthread.h>

#define SIZE 64
#define BATCH 256
#define RING 64

struct batch {
	uint32_t count; /* 0: no more will come, for the one consumer that takes it */
	struct bench_slot slot[BATCH];
};

struct ring {
	pthread_mutex_t lock;
	pthread_cond_t not_empty, not_full;
	uint64_t head, tail; /* tail - head batches are ready */
	struct batch batch[RING];
};

struct worker {
	struct ring *ring;
	uint64_t index; /* even: producer, odd: consumer */
	uint64_t done;
	struct batch own;
};

static struct bench bench = {
	.name = "prodcons", .op = "one object made, passed and freed", .ops = 24000000, .threads = 2, .seed = 1,
};

/* A batch is copied under the lock (4 KiB): a slot of the ring is never in two hands. */
static void put(struct ring *r, const struct batch *b)
{
	pthread_mutex_lock(&r->lock);
	while (r->tail - r->head == RING)
		pthread_cond_wait(&r->not_full, &r->lock);
	memcpy(&r->batch[r->tail++ % RING], b, offsetof(struct batch, slot) + b->count * sizeof(b->slot[0]));
	pthread_cond_signal(&r->not_empty);
	pthread_mutex_unlock(&r->lock);
}

static void get(struct ring *r, struct batch *b)
{
	const struct batch *from;

	pthread_mutex_lock(&r->lock);
	while (r->tail == r->head)
		pthread_cond_wait(&r->not_empty, &r->lock);
	from = &r->batch[r->head++ % RING];
	memcpy(b, from, offsetof(struct batch, slot) + from->count * sizeof(from->slot[0]));
	pthread_cond_signal(&r->not_full);
	pthread_mutex_unlock(&r->lock);
}

static void produce(struct worker *w)
{
	uint64_t pairs = bench.threads / 2;
	struct bench_quota quota = bench_share(&bench, w->index / 2, pairs);
	uint32_t tag = (uint32_t)(bench_seed(&bench, w->index));
	uint64_t n;

	while ((n = bench_take(&quota, BATCH)) > 0) {
		for (uint64_t i = 0; i < n; i++)
			bench_fill(&w->own.slot[i], SIZE, tag++);
		w->own.count = (uint32_t)n;
		put(w->ring, &w->own);
	}
	w->own.count = 0;
	put(w->ring, &w->own);
}

static void consume(struct worker *w)
{
	for (;;) {
		get(w->ring, &w->own);
		if (!w->own.count)
			return;
		for (uint32_t i = 0; i < w->own.count; i++)
			bench_empty(&w->own.slot[i]);
		w->done += w->own.count;
	}
}

static void *work(void *argument)
{
	struct worker *w = argument;

	if (w->index % 2)
		consume(w);
	else
		produce(w);
	return NULL;
}

int main(int argc, char **argv)
{
	struct worker *workers;
	struct ring *ring;
	uint64_t done = 0;

	bench_begin(&bench, argc, argv);
	if (bench.threads % 2)
		bench_die("--threads must be even: half of them produce, half consume");
	workers = bench_table(bench.threads * sizeof(*workers));
	ring = bench_table(sizeof(*ring));
	pthread_mutex_init(&ring->lock, NULL);
	pthread_cond_init(&ring->not_empty, NULL);
	pthread_cond_init(&ring->not_full, NULL);
	bench_start(&bench);
	for (uint64_t i = 0; i < bench.threads; i++) {
		workers[i].ring = ring;
		workers[i].index = i;
	}
	bench_threads(bench.threads, work, workers, sizeof(*workers));
	for (uint64_t i = 0; i < bench.threads; i++)
		done += workers[i].done;
	bench_stop(&bench);
	bench_report(&bench, done);
	return 0;
}
