/* SPDX-License-Identifier: MIT */
/* Pattern: the latency of each malloc and of each free by itself, in a service whose threads hold blocks of 16 bytes
 * to 32 KiB (each power of two as likely), replace random ones and exchange some with the other threads. A mean hides
 * what a request sees that meets the refill, the lock or the system call: the figures are percentiles. The tables are
 * full before the first sample: what a start costs is not in it. What reading the clock takes is subtracted
 * (tail.clock; it moves in steps of tail.step). The stamps are written and read outside, so the page faults in it are
 * the allocator's own. What the kernel and the host do between two readings is in the top percentiles, whoever's
 * malloc it meets: tail.none has the percentiles of nothing between two readings (the longer a time, the more often it
 * is met), tail.preempted says how often the kernel took the processor away, tail.waited how often a thread slept by
 * itself.
 * Source: of this project; why tails count: J. Dean, L. Barroso, "The Tail at Scale", CACM 2013. */
#define _GNU_SOURCE
#include "latency.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>

#define MIN_SIZE 16u
#define OCTAVES 11
#define EXCHANGE_EVERY 4
#define SHARED 256

struct entry {
	struct bench_slot block;
} __attribute__((aligned(64)));

struct worker {
	struct entry **own;
	struct latency *mallocs, *frees, *none;
	uint64_t index;
	uint64_t random;
	uint64_t done;
	uint64_t preempted, waited;
	uint32_t tag;
};

static uint64_t slots = 2000;
static const struct bench_extra extra[] = { { "slots", &slots, "blocks that a thread holds" } };
static struct bench bench = {
	.name = "tail", .op = "one block replaced, a sample of free and of malloc", .ops = 6000000, .threads = 2,
	.seed = 1, .extra = extra, .extras = sizeof(extra) / sizeof(extra[0]),
};
static _Atomic(struct entry *) shared[SHARED];
static pthread_barrier_t full;

static uint32_t any_size(uint64_t *random)
{
	uint32_t octave = MIN_SIZE << bench_below(random, OCTAVES);

	return octave + bench_below(random, octave);
}

static void replace(struct worker *w, struct bench_slot *s)
{
	uint32_t size = any_size(&w->random);
	uint64_t from, to;

	bench_check(s);
	from = latency_ticks();
	free(s->p);
	to = latency_ticks();
	latency_add(w->frees, latency_net(to - from));
	from = latency_ticks();
	s->p = malloc(size);
	to = latency_ticks();
	latency_add(w->mallocs, latency_net(to - from));
	from = latency_ticks();
	to = latency_ticks();
	latency_add(w->none, latency_net(to - from));
	if (!s->p)
		bench_no_memory(size);
	bench_stamp(s, size, w->tag++);
}

static void *work(void *argument)
{
	struct worker *w = argument;
	struct bench_quota quota;
	struct rusage before, after;
	uint64_t n;

	for (uint64_t i = 0; i < slots; i++)
		bench_fill(&w->own[i]->block, any_size(&w->random), w->tag++);
	pthread_barrier_wait(&full);
	quota = bench_share(&bench, w->index, bench.threads);
	getrusage(RUSAGE_THREAD, &before);
	while ((n = bench_take(&quota, 1000)) > 0) {
		for (uint64_t i = 0; i < n; i++) {
			struct entry **mine = &w->own[bench_below(&w->random, (uint32_t)slots)];

			if (i % EXCHANGE_EVERY == 0)
				*mine = atomic_exchange(&shared[bench_below(&w->random, SHARED)], *mine);
			replace(w, &(*mine)->block);
		}
		w->done += n;
	}
	getrusage(RUSAGE_THREAD, &after);
	w->preempted = (uint64_t)(after.ru_nivcsw - before.ru_nivcsw);
	w->waited = (uint64_t)(after.ru_nvcsw - before.ru_nvcsw);
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
	w->mallocs = latency_new();
	w->frees = latency_new();
	w->none = latency_new();
	w->index = index;
	w->random = bench_seed(&bench, index);
	w->tag = (uint32_t)index << 24;
}

static void report(struct worker *workers)
{
	uint64_t preempted = 0, waited = 0;

	for (uint64_t i = 0; i < bench.threads; i++) {
		if (i) {
			latency_merge(workers[0].mallocs, workers[i].mallocs);
			latency_merge(workers[0].frees, workers[i].frees);
			latency_merge(workers[0].none, workers[i].none);
		}
		preempted += workers[i].preempted;
		waited += workers[i].waited;
	}
	latency_report(&bench, "malloc", workers[0].mallocs);
	latency_report(&bench, "free", workers[0].frees);
	latency_report(&bench, "none", workers[0].none);
	bench_figure(&bench, "clock", latency_ns(latency_cost), "ns");
	bench_figure(&bench, "step", latency_ns(latency_step), "ns");
	bench_figure(&bench, "preempted", (double)preempted, "count");
	bench_figure(&bench, "waited", (double)waited, "count");
}

int main(int argc, char **argv)
{
	struct worker *workers;
	struct entry *lying;
	uint64_t done = 0, random;

	bench_begin(&bench, argc, argv);
	latency_begin();
	workers = bench_table(bench.threads * sizeof(*workers));
	lying = bench_table(SHARED * sizeof(*lying));
	pthread_barrier_init(&full, NULL, (unsigned)bench.threads);
	random = bench_seed(&bench, bench.threads);
	for (uint64_t i = 0; i < bench.threads; i++)
		prepare(&workers[i], i);
	bench_start(&bench);
	for (uint32_t i = 0; i < SHARED; i++) {
		bench_fill(&lying[i].block, any_size(&random), UINT32_MAX - i);
		atomic_store(&shared[i], &lying[i]);
	}
	bench_threads(bench.threads, work, workers, sizeof(*workers));
	for (uint32_t i = 0; i < SHARED; i++)
		bench_empty(&atomic_load(&shared[i])->block);
	for (uint64_t i = 0; i < bench.threads; i++)
		done += workers[i].done;
	bench_stop(&bench);
	bench_report(&bench, done);
	report(workers);
	return 0;
}
