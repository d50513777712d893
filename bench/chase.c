/* SPDX-License-Identifier: MIT */
/* Pattern: small objects that point to each other. A list of 4 M nodes of 64 bytes, each allocated by itself, one after
 * the other, and linked in a random order; then it is gone through from end to end: each hop waits for the one before
 * and misses the caches, and where the nodes lie in base pages the TLB too. The figures are ns per hop and what the
 * process has in memory, its own table given back.
 * Source: the list chase of lmbench (McVoy, Staelin, USENIX 1996), on an allocator's nodes. */
#include "bench.h"

#include <sys/mman.h>

#define MIB (1u << 20)

struct node {
	struct node *next;
	uint64_t payload[7];
};

static uint64_t rounds = 2;
static const struct bench_extra extra[] = { { "rounds", &rounds, "times that the list is gone through" } };
static struct bench bench = {
	.name = "chase", .op = "one node", .ops = 4u << 20, .threads = 1, .seed = 1, .work_only = 1,
	.extra = extra, .extras = sizeof(extra) / sizeof(extra[0]),
};

static struct node *make_list(uint64_t count)
{
	size_t bytes = count * sizeof(struct node *);
	struct node **table = bench_table(bytes), *first;
	uint64_t random = bench_seed(&bench, 0);

	for (uint64_t i = 0; i < count; i++) {
		table[i] = malloc(sizeof(struct node));
		if (!table[i])
			bench_no_memory(sizeof(struct node));
		memset(table[i], (int)i, sizeof(struct node));
	}
	for (uint64_t i = count - 1; i > 0; i--) {
		uint64_t j = (uint64_t)(((unsigned __int128)bench_random(&random) * (i + 1)) >> 64);
		struct node *t = table[i];

		table[i] = table[j];
		table[j] = t;
	}
	for (uint64_t i = 0; i < count; i++)
		table[i]->next = table[(i + 1) % count];
	first = table[0];
	munmap(table, bytes);
	return first;
}

int main(int argc, char **argv)
{
	struct bench_memory memory;
	struct node *at, *next;
	double base, best = 0;

	bench_begin(&bench, argc, argv);
	bench_resident();
	base = bench_resident();
	bench_start(&bench);
	at = make_list(bench.ops);
	bench_stop(&bench);
	bench_report(&bench, bench.ops);
	memory = bench_memory(0);
	bench_figure(&bench, "rss", memory.rss - base, "MiB");
	bench_figure(&bench, "huge", memory.anonymous > 0 ? 100 * memory.huge / memory.anonymous : 0, "%");
	for (uint64_t r = 0; r < rounds; r++) {
		double from = bench_now(), took;

		for (uint64_t i = 0; i < bench.ops; i++)
			at = at->next;
		/* The compiler must not know that nobody looks at it. */
		__asm__ volatile("" : "+r"(at));
		took = (bench_now() - from) * 1e9 / (double)bench.ops;
		if (r == 0 || took < best)
			best = took;
	}
	bench_figure(&bench, "hop", best, "ns");
	for (uint64_t i = 0; i < bench.ops; i++) {
		next = at->next;
		free(at);
		at = next;
	}
	return 0;
}
