/* SPDX-License-Identifier: MIT */
/* Pattern: 64 blocks of one size allocated, then the 64 freed in the same order, again and again, for each of seven
 * sizes: nothing but the fast path, all of it in the processor's first cache.
 * Source: glibc's benchtests, bench-malloc-simple, 2019. */
#include "bench.h"

#define GROUP 64

struct worker {
	uint64_t index;
	uint64_t done;
	struct bench_slot slots[GROUP];
};

static const uint32_t sizes[] = { 16, 32, 64, 128, 256, 512, 1024 };
static struct bench bench = {
	.name = "pairs", .op = "one block allocated and freed", .ops = 100000000, .threads = 1, .seed = 1,
};

static void *work(void *argument)
{
	struct worker *w = argument;
	struct bench_quota quota = bench_share(&bench, w->index, bench.threads);
	uint32_t tag = (uint32_t)bench_seed(&bench, w->index);
	uint64_t n, group = 0;

	while ((n = bench_take(&quota, GROUP * 1024)) > 0) {
		uint32_t size = sizes[group++ % (sizeof(sizes) / sizeof(sizes[0]))];

		for (uint64_t left = n; left > 0;) {
			uint64_t now = left < GROUP ? left : GROUP;

			for (uint64_t i = 0; i < now; i++)
				bench_fill(&w->slots[i], size, tag++);
			for (uint64_t i = 0; i < now; i++)
				bench_empty(&w->slots[i]);
			left -= now;
		}
		w->done += n;
	}
	return NULL;
}

int main(int argc, char **argv)
{
	struct worker *workers;
	uint64_t done = 0;

	bench_begin(&bench, argc, argv);
	workers = bench_table(bench.threads * sizeof(*workers));
	bench_start(&bench);
	for (uint64_t i = 0; i < bench.threads; i++)
		workers[i].index = i;
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
