/* SPDX-License-Identifier: MIT */
/* Pattern: blocks made by one thread in batches of 1000 and freed by another in another order: backwards, in strides,
 * in disorder. The threads stand in a ring and each makes batches for the next one and frees those of the one before
 * it; with two, batches go both ways. Sizes are small and mixed. Every free is another thread's, and none of them only
 * allocates, as it is in prodcons.
 * Source: sh8bench of MicroQuill (from 1997), whose threads free in several orders; xmalloc-test, after C. Lever, D.
 * Boreham, "malloc() Performance in a Multithreaded Linux Environment", USENIX 2000 (FREENIX), whose batches change
 * hands. */
#include "bench.h"

#include <pthread.h>

#define BATCH 1000
#define RING 8
#define ORDERS 4

struct batch {
	uint32_t count; /* 0: the maker has made its last */
	struct bench_slot slot[BATCH];
};

/* Of one maker and one taker. A batch is filled and emptied where it lies: between head and tail it is the taker's,
 * outside the maker's. */
struct queue {
	pthread_mutex_t lock;
	pthread_cond_t not_empty, not_full;
	uint64_t head, tail;
	struct batch batch[RING];
};

struct worker {
	struct queue *in, *out;
	uint64_t index;
	uint64_t random;
	uint64_t done;
	uint64_t taken; /* batches */
	uint32_t tag;
};

static const uint32_t sizes[] = { 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512 };
static struct bench bench = {
	.name = "batch", .op = "one block made, passed and freed", .ops = 16000000, .threads = 2, .seed = 1,
};
static uint32_t order[ORDERS][BATCH];

static struct batch *room(struct queue *q)
{
	struct batch *b;

	pthread_mutex_lock(&q->lock);
	while (q->tail - q->head == RING)
		pthread_cond_wait(&q->not_full, &q->lock);
	b = &q->batch[q->tail % RING];
	pthread_mutex_unlock(&q->lock);
	return b;
}

static void put(struct queue *q)
{
	pthread_mutex_lock(&q->lock);
	q->tail++;
	pthread_cond_signal(&q->not_empty);
	pthread_mutex_unlock(&q->lock);
}

static struct batch *oldest(struct queue *q)
{
	struct batch *b;

	pthread_mutex_lock(&q->lock);
	while (q->tail == q->head)
		pthread_cond_wait(&q->not_empty, &q->lock);
	b = &q->batch[q->head % RING];
	pthread_mutex_unlock(&q->lock);
	return b;
}

static void taken(struct queue *q)
{
	pthread_mutex_lock(&q->lock);
	q->head++;
	pthread_cond_signal(&q->not_full);
	pthread_mutex_unlock(&q->lock);
}

static void make(struct worker *w, uint64_t n)
{
	struct batch *b = room(w->out);

	for (uint64_t i = 0; i < n; i++)
		bench_fill(&b->slot[i], sizes[bench_below(&w->random, sizeof(sizes) / sizeof(sizes[0]))], w->tag++);
	b->count = (uint32_t)n;
	put(w->out);
}

/* Frees the next batch; 0 when it was the mark of the end. */
static uint32_t take(struct worker *w)
{
	struct batch *b = oldest(w->in);
	const uint32_t *way = order[w->taken++ % ORDERS];
	uint32_t count = b->count;

	for (uint32_t i = 0; i < BATCH && count; i++)
		if (way[i] < count)
			bench_empty(&b->slot[way[i]]);
	taken(w->in);
	w->done += count;
	return count;
}

/* Makes one, takes one: all of them cannot be waiting for room at once, as each took all but the last of what it made
 * and a queue has room for more than one. */
static void *work(void *argument)
{
	struct worker *w = argument;
	struct bench_quota quota = bench_share(&bench, w->index, bench.threads);
	uint64_t n;
	int more = 1;

	while ((n = bench_take(&quota, BATCH)) > 0) {
		make(w, n);
		if (more)
			more = take(w) > 0;
	}
	make(w, 0);
	while (more)
		more = take(w) > 0;
	return NULL;
}

static void make_orders(void)
{
	uint64_t random = bench_seed(&bench, bench.threads);

	for (uint32_t i = 0; i < BATCH; i++) {
		order[0][i] = BATCH - 1 - i;
		order[1][i] = (i * 7) % BATCH; /* 7 and 1000 have no common divisor: each comes once */
		order[2][i] = order[3][i] = i;
	}
	bench_shuffle(&random, order[2], BATCH);
	bench_shuffle(&random, order[3], BATCH);
}

int main(int argc, char **argv)
{
	struct worker *workers;
	struct queue *queues;
	uint64_t done = 0;

	bench_begin(&bench, argc, argv);
	workers = bench_table(bench.threads * sizeof(*workers));
	queues = bench_table(bench.threads * sizeof(*queues));
	make_orders();
	bench_start(&bench);
	for (uint64_t i = 0; i < bench.threads; i++) {
		pthread_mutex_init(&queues[i].lock, NULL);
		pthread_cond_init(&queues[i].not_empty, NULL);
		pthread_cond_init(&queues[i].not_full, NULL);
		workers[i].in = &queues[i];
		workers[i].out = &queues[(i + 1) % bench.threads];
		workers[i].index = i;
		workers[i].random = bench_seed(&bench, i);
	}
	bench_threads(bench.threads, work, workers, sizeof(*workers));
	for (uint64_t i = 0; i < bench.threads; i++)
		done += workers[i].done;
	bench_stop(&bench);
	bench_report(&bench, done);
	return 0;
}
