/* SPDX-License-Identifier: MIT */
/* Pattern: a few live blocks of 5 to 25 MiB, replaced at random, one word of every page written and read back: what
 * counts is whether the allocator keeps such memory for the next one, and what the page faults cost when it does not.
 * Source: malloc-large of mimalloc-bench (D. Leijen, from 2019). */
#include "bench.h"

#define MIB (1u << 20)

struct worker {
	struct bench_slot *slots;
	uint64_t index;
	uint64_t random;
	uint64_t done;
};

static uint64_t slots = 8;
static const struct bench_extra extra[] = { { "slots", &slots, "live blocks of a thread, at most" } };
static struct bench bench = {
	.name = "large", .op = "one block replaced", .ops = 300, .threads = 1, .seed = 1,
	.extra = extra, .extras = sizeof(extra) / sizeof(extra[0]),
};

static void leave(struct bench_slot *s)
{
	for (uint32_t at = BENCH_PAGE; bench_has_page(s, at); at += BENCH_PAGE) {
		uint64_t word;

		memcpy(&word, s->p + at, sizeof(word));
		if (word != bench_page_stamp(s, at))
			bench_wrong(s, "inner");
	}
	bench_empty(s);
}

static void *work(void *argument)
{
	struct worker *w = argument;
	struct bench_quota quota = bench_share(&bench, w->index, bench.threads);
	uint32_t tag = 0;

	while (bench_take(&quota, 1)) {
		struct bench_slot *s = &w->slots[bench_below(&w->random, (uint32_t)slots)];

		if (s->p)
			leave(s);
		bench_fill(s, 5 * MIB + bench_below(&w->random, 20 * MIB), tag++);
		w->done++;
	}
	for (uint64_t i = 0; i < slots; i++)
		if (w->slots[i].p)
			leave(&w->slots[i]);
	return NULL;
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
		workers[i].index = i;
		workers[i].random = bench_seed(&bench, i);
	}
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
