/* SPDX-License-Identifier: MIT */
/* Pattern: one thread (or several that share nothing) replaces random entries of a large table; sizes are
 * distributed exponentially (the source has a Pareto distribution). Most of the time are the program's own cache
 * misses, so dense packing decides.
 * Source: S. Ignatchenko and others, "Testing Memory Allocators ... While Trying to Simulate Real-World Loads"
 * (alloc-test), 2018. */
#include "bench.h"

#include <math.h>

#define QUANTILES 4096
#define MIN_SIZE 8

struct worker {
	struct bench_slot *slots;
	uint64_t index;
	uint64_t random;
	uint64_t done;
};

static uint64_t slots = 1 << 18, mean = 120;
static const struct bench_extra extra[] = {
	{ "slots", &slots, "entries of a thread's table" },
	{ "mean", &mean, "mean size in bytes, over the least of 8" },
};
static struct bench bench = {
	.name = "replace", .op = "one entry replaced", .ops = 4000000, .threads = 1, .seed = 1,
	.extra = extra, .extras = sizeof(extra) / sizeof(extra[0]),
};
static uint32_t quantile[QUANTILES];

static void *work(void *argument)
{
	struct worker *w = argument;
	struct bench_quota quota = bench_share(&bench, w->index, bench.threads);
	uint32_t tag = 0;
	uint64_t n;

	while ((n = bench_take(&quota, 1024)) > 0) {
		for (uint64_t i = 0; i < n; i++) {
			struct bench_slot *s = &w->slots[bench_below(&w->random, (uint32_t)slots)];

			if (s->p)
				bench_empty(s);
			bench_fill(s, quantile[bench_below(&w->random, QUANTILES)], tag++);
		}
		w->done += n;
	}
	for (uint64_t i = 0; i < slots; i++)
		if (w->slots[i].p)
			bench_empty(&w->slots[i]);
	return NULL;
}

int main(int argc, char **argv)
{
	struct worker *workers;
	uint64_t done = 0;

	bench_begin(&bench, argc, argv);
	for (int i = 0; i < QUANTILES; i++)
		quantile[i] = MIN_SIZE + (uint32_t)(-log((i + 0.5) / QUANTILES) * (double)mean);
	workers = bench_table(bench.threads * sizeof(*workers));
	bench_start(&bench);
	for (uint64_t i = 0; i < bench.threads; i++) {
		workers[i].slots = bench_table(slots * sizeof(struct bench_slot));
		workers[i].index = i;
		workers[i].random = bench_seed(&bench, i);
	}
	/* With one thread the process stays single-threaded, as the pattern has it. */
	if (bench.threads == 1)
		work(workers);
	else
		bench_threads(bench.threads, work, workers, sizeof(*workers));
	for (uint64_t i = 0; i < bench.threads; i++)
		done += workers[i].done;
	bench_stop(&bench);
	bench_report(&bench, done);
	return 0;
}
