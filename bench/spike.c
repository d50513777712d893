/* SPDX-License-Identifier: MIT */
/* Pattern: a process after a spike of load. 512 MiB of small objects are made, all but 5 % of them freed, and then
 * it does nothing: what does it still hold at once, after 1 s, after 3 s? The survivors are scattered at random
 * (--cluster N: in runs of N objects), so a page is free only where all of its objects were among the freed.
 * The result in seconds is the time of filling and freeing; the sleep is not in it.
 * Source: J. Evans, "Tick Tock, Malloc Needs a Clock", Applicative 2015; B. Powers, D. Tench, E. Berger,
 * A. McGregor, "Mesh: Compacting Memory Management for C/C++ Applications", PLDI 2019 (its Redis case). */
#include "bench.h"

#include <pthread.h>

#define MIB (1u << 20)
#define MIN_SIZE 16
#define MAX_SIZE 512

struct worker {
	struct bench_slot *slots;
	size_t bytes;   /* of the table */
	uint64_t index;
	uint64_t count; /* entries of the table in use */
	uint64_t live;  /* bytes */
};

static uint64_t keep = 5, cluster = 1;
static const struct bench_extra extra[] = {
	{ "keep", &keep, "survivors, in percent" },
	{ "cluster", &cluster, "objects that survive or go together" },
};
static struct bench bench = {
	.name = "spike", .op = "one MiB of objects", .ops = 512, .threads = 1, .seed = 1, .work_only = 1,
	.extra = extra, .extras = sizeof(extra) / sizeof(extra[0]),
};
static pthread_barrier_t barrier;

static void fill(struct worker *w)
{
	uint64_t bytes = bench_share(&bench, w->index, bench.threads).left * MIB;
	uint64_t random = bench_seed(&bench, w->index);

	while (w->live < bytes) {
		uint32_t size = MIN_SIZE + bench_below(&random, MAX_SIZE - MIN_SIZE + 1);

		bench_fill(&w->slots[w->count], size, (uint32_t)w->count);
		w->count++;
		w->live += size;
	}
}

/* Frees in the order of making. The survivors' entries move to the front of the table and its rest goes back to the
 * kernel, so that what stays resident is the allocator's doing. */
static void shrink(struct worker *w)
{
	uint64_t random = bench_seed(&bench, w->index + bench.threads), kept = 0;
	int survives = 0;

	for (uint64_t i = 0; i < w->count; i++) {
		if (i % cluster == 0)
			survives = bench_below(&random, 100) < keep;
		if (survives) {
			w->slots[kept++] = w->slots[i];
		} else {
			w->live -= w->slots[i].size;
			bench_empty(&w->slots[i]);
		}
	}
	w->count = kept;
	bench_table_trim(w->slots, kept * sizeof(*w->slots), w->bytes);
}

/* The main thread is worker 0; the others wait, alive, until it has looked. */
static void *work(void *argument)
{
	struct worker *w = argument;

	fill(w);
	pthread_barrier_wait(&barrier);
	/* Here the main thread looks at the peak. */
	pthread_barrier_wait(&barrier);
	shrink(w);
	pthread_barrier_wait(&barrier);
	/* And here at what is left. */
	pthread_barrier_wait(&barrier);
	for (uint64_t i = 0; i < w->count; i++)
		bench_empty(&w->slots[i]);
	return NULL;
}

static void look_on(struct worker *workers)
{
	double live = 0;

	for (uint64_t i = 0; i < bench.threads; i++)
		live += (double)workers[i].live;
	bench_figure(&bench, "live", live / MIB, "MiB");
	bench_figure(&bench, "freed", bench_resident(), "MiB");
	bench_sleep_until(bench_now() + 1);
	bench_figure(&bench, "after1s", bench_resident(), "MiB");
	bench_sleep_until(bench_now() + 2);
	bench_figure(&bench, "after3s", bench_resident(), "MiB");
}

int main(int argc, char **argv)
{
	struct worker *workers;
	pthread_t thread;

	bench_begin(&bench, argc, argv);
	workers = bench_table(bench.threads * sizeof(*workers));
	pthread_barrier_init(&barrier, NULL, (unsigned)bench.threads);
	for (uint64_t i = 0; i < bench.threads; i++) {
		struct worker *w = &workers[i];

		/* Room for twice the expected number; untouched pages cost nothing. */
		w->index = i;
		w->bytes = (bench_share(&bench, i, bench.threads).left * MIB / ((MIN_SIZE + MAX_SIZE) / 4) + MIB) *
			   sizeof(*w->slots);
		w->slots = bench_table(w->bytes);
	}
	bench_start(&bench);
	for (uint64_t i = 1; i < bench.threads; i++)
		if (pthread_create(&thread, NULL, work, &workers[i]))
			bench_die("pthread_create failed");
	fill(workers);
	pthread_barrier_wait(&barrier);
	pthread_barrier_wait(&barrier);
	shrink(workers);
	pthread_barrier_wait(&barrier);
	bench_stop(&bench);
	bench_report(&bench, bench.ops);
	look_on(workers);
	pthread_barrier_wait(&barrier);
	for (uint64_t i = 0; i < workers[0].count; i++)
		bench_empty(&workers[0].slots[i]);
	return 0;
}
