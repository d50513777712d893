/* SPDX-License-Identifier: MIT */
/* Pattern: short-lived threads. Each is born, makes a few hundred blocks, frees most of them in random order, leaves
 * some for the next one of its line, and dies. What counts is the price of a thread's first block and of its end.
 * Source: W. Gloger, t-test1 of ptmalloc, 1996. */
#include "bench.h"

#include <pthread.h>

#define MIN_SIZE 16
#define MAX_SIZE 1024

struct line {
	struct bench_slot *slots; /* what a thread makes */
	struct bench_slot *left;  /* what its predecessor left */
	uint64_t index;
	uint64_t random;
	uint64_t done;
	uint32_t tag;
};

static uint64_t blocks = 300, leave = 16;
static const struct bench_extra extra[] = {
	{ "blocks", &blocks, "blocks that a thread makes" },
	{ "leave", &leave, "of these, left for the next thread" },
};
static struct bench bench = {
	.name = "threads", .op = "one thread's life", .ops = 8000, .threads = 2, .seed = 1,
	.extra = extra, .extras = sizeof(extra) / sizeof(extra[0]),
};

static void *live(void *argument)
{
	struct line *l = argument;
	struct bench_slot swap;

	for (uint64_t i = 0; i < blocks; i++) {
		bench_fill(&l->slots[i], MIN_SIZE + bench_below(&l->random, MAX_SIZE - MIN_SIZE + 1), l->tag++);
		if (i < leave && l->left[i].p)
			bench_empty(&l->left[i]);
	}
	for (uint64_t i = blocks; i > leave; i--) {
		struct bench_slot *s = &l->slots[bench_below(&l->random, (uint32_t)i)];

		swap = *s;
		*s = l->slots[i - 1];
		bench_empty(&swap);
	}
	memcpy(l->left, l->slots, leave * sizeof(*l->left));
	return NULL;
}

/* A line of threads, one after the other. */
static void *work(void *argument)
{
	struct line *l = argument;
	struct bench_quota quota = bench_share(&bench, l->index, bench.threads);
	pthread_t thread;

	while (bench_take(&quota, 1)) {
		if (pthread_create(&thread, NULL, live, l))
			bench_die("pthread_create failed");
		pthread_join(thread, NULL);
		l->done++;
	}
	for (uint64_t i = 0; i < leave; i++)
		if (l->left[i].p)
			bench_empty(&l->left[i]);
	return NULL;
}

int main(int argc, char **argv)
{
	struct line *lines;
	uint64_t done = 0;

	bench_begin(&bench, argc, argv);
	if (leave > blocks)
		bench_die("--leave must be at most --blocks");
	lines = bench_table(bench.threads * sizeof(*lines));
	bench_start(&bench);
	for (uint64_t i = 0; i < bench.threads; i++) {
		lines[i].slots = bench_table(blocks * sizeof(struct bench_slot));
		lines[i].left = bench_table(leave * sizeof(struct bench_slot));
		lines[i].index = i;
		lines[i].random = bench_seed(&bench, i);
	}
	bench_threads(bench.threads, work, lines, sizeof(*lines));
	for (uint64_t i = 0; i < bench.threads; i++)
		done += lines[i].done;
	bench_stop(&bench);
	bench_report(&bench, done);
	return 0;
}
