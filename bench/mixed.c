/* SPDX-License-Identifier: MIT */
/* Pattern: threads that hold blocks of random sizes, 8 bytes to 16 KiB (each power of two as likely), for random
 * times, and pass some of them, in bundles, to whichever thread comes next.
 * Source: test-stress ("mstress") of D. Leijen, B. Zorn, L. de Moura, "Mimalloc: Free List Sharding in Action",
 * APLAS 2019, and M. Jansson, rpmalloc-benchmark, 2017. */
#include "bench.h"

#include <stdatomic.h>

#define BUNDLE 16       /* blocks passed at once */
#define PASS_EVERY 64   /* operations between two passes */
#define SHELVES 64      /* where bundles lie until someone takes them */

struct bundle {
	uint32_t count;
	struct bench_slot slot[BUNDLE];
};

struct worker {
	struct bench_slot *slots;
	uint64_t index;
	uint64_t random;
	uint64_t done;
	uint32_t tag;
};

static uint64_t slots = 2000;
static const struct bench_extra extra[] = { { "slots", &slots, "blocks that a thread holds, at most" } };
static struct bench bench = {
	.name = "mixed", .op = "one block allocated or freed", .ops = 20000000, .threads = 2, .seed = 1,
	.extra = extra, .extras = sizeof(extra) / sizeof(extra[0]),
};
static _Atomic(struct bundle *) shelf[SHELVES];

static uint32_t any_size(struct worker *w)
{
	uint32_t octave = 8u << bench_below(&w->random, 11);

	return octave + bench_below(&w->random, octave);
}

static void drop(struct bundle *b)
{
	if (!b)
		return;
	for (uint32_t i = 0; i < b->count; i++)
		bench_empty(&b->slot[i]);
	free(b);
}

/* Lays a bundle of own blocks on a shelf, and frees the bundle that lay there. The bundle is itself a block. */
static void pass(struct worker *w)
{
	struct bundle *b = malloc(sizeof(*b));

	if (!b)
		bench_no_memory(sizeof(*b));
	b->count = 0;
	for (uint32_t i = 0; i < BUNDLE; i++) {
		struct bench_slot *s = &w->slots[bench_below(&w->random, (uint32_t)slots)];

		if (s->p) {
			b->slot[b->count++] = *s;
			s->p = NULL;
		}
	}
	drop(atomic_exchange(&shelf[bench_below(&w->random, SHELVES)], b));
}

static void *work(void *argument)
{
	struct worker *w = argument;
	struct bench_quota quota = bench_share(&bench, w->index, bench.threads);
	uint64_t n;

	while ((n = bench_take(&quota, PASS_EVERY)) > 0) {
		for (uint64_t i = 0; i < n; i++) {
			struct bench_slot *s = &w->slots[bench_below(&w->random, (uint32_t)slots)];

			if (s->p)
				bench_empty(s);
			else
				bench_fill(s, any_size(w), w->tag++);
		}
		w->done += n;
		pass(w);
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
	workers = bench_table(bench.threads * sizeof(*workers));
	bench_start(&bench);
	for (uint64_t i = 0; i < bench.threads; i++) {
		workers[i].slots = bench_table(slots * sizeof(struct bench_slot));
		workers[i].index = i;
		workers[i].random = bench_seed(&bench, i);
	}
	bench_threads(bench.threads, work, workers, sizeof(*workers));
	for (uint32_t i = 0; i < SHELVES; i++)
		drop(atomic_exchange(&shelf[i], NULL));
	for (uint64_t i = 0; i < bench.threads; i++)
		done += workers[i].done;
	bench_stop(&bench);
	bench_report(&bench, done);
	return 0;
}
