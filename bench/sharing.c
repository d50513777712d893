/* SPDX-License-Identifier: MIT */
/* Pattern: false sharing. Each thread allocates small objects, writes to each many times, frees them, and so on; no
 * object is ever two threads'. Where the allocator puts objects of two threads on one cache line, every write waits
 * for the other processor (active). With --passive 1 each thread begins with objects that the main thread made for
 * all, one after the other, and frees them: where an allocator lets a thread reuse what it freed of a shared line, the
 * sharing goes on for ever. The sources' threads have one object at a time; ours have 8, so that it is not the luck of
 * one address.
 * Source: cache-thrash and cache-scratch of E. Berger, K. McKinley, R. Blumofe, P. Wilson, "Hoard: A Scalable Memory
 * Allocator for Multithreaded Applications", ASPLOS 2000. */
#include "bench.h"

#define MIN_SIZE 8
#define MOST_OBJECTS 64

struct worker {
	uint64_t index;
	uint64_t done;
	uint32_t tag;
	struct bench_slot first[MOST_OBJECTS]; /* of the main thread, when passive */
} __attribute__((aligned(128)));

static uint64_t passive, size = 8, objects = 8, writes = 100;
static const struct bench_extra extra[] = {
	{ "passive", &passive, "1: begin with objects that another thread made" },
	{ "size", &size, "bytes of an object" },
	{ "objects", &objects, "live objects of a thread" },
	{ "writes", &writes, "writes to each object before it is freed" },
};
static struct bench bench = {
	.name = "sharing", .op = "one object allocated, written and freed", .ops = 16000000, .threads = 2, .seed = 1,
	.extra = extra, .extras = sizeof(extra) / sizeof(extra[0]),
};

/* Counts the objects' first words up, in memory, and then back to their stamps. By turns, so that the writes do not wait
 * for each other. */
static void write_to(struct bench_slot *slots, uint64_t n)
{
	for (uint64_t w = 0; w < writes; w++)
		for (uint64_t i = 0; i < n; i++)
			++*(volatile uint64_t *)slots[i].p;
	for (uint64_t i = 0; i < n; i++)
		*(volatile uint64_t *)slots[i].p -= writes;
}

static void *work(void *argument)
{
	struct worker *w = argument;
	struct bench_quota quota = bench_share(&bench, w->index, bench.threads);
	struct bench_slot slots[MOST_OBJECTS];
	uint64_t n;

	for (uint64_t i = 0; i < objects && w->first[i].p; i++) {
		write_to(&w->first[i], 1);
		bench_empty(&w->first[i]);
	}
	while ((n = bench_take(&quota, objects)) > 0) {
		for (uint64_t i = 0; i < n; i++)
			bench_fill(&slots[i], (uint32_t)size, w->tag++);
		write_to(slots, n);
		for (uint64_t i = 0; i < n; i++)
			bench_empty(&slots[i]);
		w->done += n;
	}
	return NULL;
}

int main(int argc, char **argv)
{
	struct worker *workers;
	uint64_t done = 0;

	bench_begin(&bench, argc, argv);
	if (passive > 1 || size < MIN_SIZE || size > 4096 || objects > MOST_OBJECTS)
		bench_die("--passive is 0 or 1, --size %d to 4096, --objects at most %d", MIN_SIZE, MOST_OBJECTS);
	workers = bench_table(bench.threads * sizeof(*workers));
	bench_start(&bench);
	for (uint64_t i = 0; i < bench.threads; i++) {
		workers[i].index = i;
		workers[i].tag = (uint32_t)bench_seed(&bench, i);
	}
	for (uint64_t k = 0; passive && k < objects; k++)
		for (uint64_t i = 0; i < bench.threads; i++)
			bench_fill(&workers[i].first[k], (uint32_t)size, workers[i].tag++);
	bench_threads(bench.threads, work, workers, sizeof(*workers));
	for (uint64_t i = 0; i < bench.threads; i++)
		done += workers[i].done;
	bench_stop(&bench);
	bench_report(&bench, done);
	return 0;
}
