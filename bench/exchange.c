/* SPDX-License-Identifier: MIT */
/* Pattern: threads that in each turn free 100 random blocks of the 1000 they hold, allocate 100 others, and then
 * exchange some with whatever lies in a slot of an array that all share, one atomic instruction each. After a while
 * most of what a thread frees is another's. Sizes are 16 bytes to 32 KiB, the larger the rarer (their density falls in
 * a straight line to 0).
 * Source: M. Jansson, rpmalloc-benchmark, 2017 (sizes falling linearly, blocks crossing threads). */
#include "bench.h"

#include <stdatomic.h>

#define MIN_SIZE 16
#define TURN 100   /* blocks freed, then as many allocated */
#define SHARED 256 /* slots where blocks lie until someone takes them */

/* On a cache line of its own, so that what two threads pull at is the blocks and not this table. */
struct entry {
	struct bench_slot block;
} __attribute__((aligned(64)));

struct worker {
	struct entry **own; /* in no order; all full between two turns */
	uint64_t index;
	uint64_t random;
	uint64_t done;
	uint32_t tag;
};

static uint64_t slots = 1000, largest = 32768, cross = 50;
static const struct bench_extra extra[] = {
	{ "slots", &slots, "blocks that a thread holds" },
	{ "largest", &largest, "the largest size, in bytes" },
	{ "cross", &cross, "blocks exchanged for each 100 replaced" },
};
static struct bench bench = {
	.name = "exchange", .op = "one block replaced", .ops = 6000000, .threads = 2, .seed = 1,
	.extra = extra, .extras = sizeof(extra) / sizeof(extra[0]),
};
static _Atomic(struct entry *) shared[SHARED];

/* The smaller of two is what makes the density fall linearly. */
static uint32_t any_size(struct worker *w)
{
	uint32_t span = (uint32_t)largest - MIN_SIZE + 1;
	uint32_t one = bench_below(&w->random, span), other = bench_below(&w->random, span);

	return MIN_SIZE + (one < other ? one : other);
}

/* Those that are freed change places with the last of the table: none is met twice in a turn. */
static void replace(struct worker *w, uint64_t n)
{
	for (uint64_t left = slots; left > slots - n; left--) {
		struct entry **at = &w->own[bench_below(&w->random, (uint32_t)left)], *e = *at;

		*at = w->own[left - 1];
		w->own[left - 1] = e;
		bench_empty(&e->block);
	}
	for (uint64_t i = slots - n; i < slots; i++)
		bench_fill(&w->own[i]->block, any_size(w), w->tag++);
}

static void *work(void *argument)
{
	struct worker *w = argument;
	struct bench_quota quota = bench_share(&bench, w->index, bench.threads);
	uint64_t n;

	for (uint64_t i = 0; i < slots; i++)
		bench_fill(&w->own[i]->block, any_size(w), w->tag++);
	while ((n = bench_take(&quota, TURN)) > 0) {
		replace(w, n);
		for (uint64_t i = 0; i < cross * n / TURN; i++) {
			struct entry **mine = &w->own[bench_below(&w->random, (uint32_t)slots)];

			*mine = atomic_exchange(&shared[bench_below(&w->random, SHARED)], *mine);
		}
		w->done += n;
	}
	for (uint64_t i = 0; i < slots; i++)
		bench_empty(&w->own[i]->block);
	return NULL;
}

static void prepare(struct worker *w, uint64_t index)
{
	struct entry *entries = bench_table(slots * sizeof(*entries));

	w->own = bench_table(slots * sizeof(struct entry *));
	for (uint64_t i = 0; i < slots; i++)
		w->own[i] = &entries[i];
	w->index = index;
	w->random = bench_seed(&bench, index);
	w->tag = (uint32_t)index << 24;
}

int main(int argc, char **argv)
{
	struct worker *workers, first;
	struct entry *lying;
	uint64_t done = 0;

	bench_begin(&bench, argc, argv);
	if (slots < TURN || largest < MIN_SIZE)
		bench_die("--slots must be at least %d, --largest at least %d", TURN, MIN_SIZE);
	workers = bench_table(bench.threads * sizeof(*workers));
	lying = bench_table(SHARED * sizeof(*lying));
	bench_start(&bench);
	for (uint64_t i = 0; i < bench.threads; i++)
		prepare(&workers[i], i);
	/* So that nobody ever gets nothing for a block. */
	first = (struct worker){ .random = bench_seed(&bench, bench.threads), .tag = UINT32_MAX - SHARED };
	for (uint32_t i = 0; i < SHARED; i++) {
		bench_fill(&lying[i].block, any_size(&first), first.tag++);
		atomic_store(&shared[i], &lying[i]);
	}
	bench_threads(bench.threads, work, workers, sizeof(*workers));
	for (uint32_t i = 0; i < SHARED; i++)
		bench_empty(&atomic_load(&shared[i])->block);
	for (uint64_t i = 0; i < bench.threads; i++)
		done += workers[i].done;
	bench_stop(&bench);
	bench_report(&bench, done);
	return 0;
}
