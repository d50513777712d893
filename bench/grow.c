/* SPDX-License-Identifier: MIT */
/* Pattern: a heap that grows, from 1 MiB to --most MiB, in steps. At each step random objects of it are replaced, and
 * what one free and one malloc cost should not depend on how much else there is: "grow.1GiB". In a larger heap the
 * program itself misses the processor's caches and its TLB more often; what that is, is "grow.1GiB.walk": the same
 * random objects read and written without being replaced. "grow.1GiB.fill" is what each new object cost on the way to
 * that size, with the page faults. Objects have 64 to 1024 bytes.
 * Source: of this project; random replacement after P.-Å. Larson, M. Krishnan, ISMM 1998. */
#include "bench.h"

#include <pthread.h>
#include <stdio.h>

#define MIB (1u << 20)
#define MIN_SIZE 64
#define MAX_SIZE 1024
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* The times are s of this worker at this step, and of how many operations. */
struct times {
	double fill, walk, replace;
	uint64_t filled, done;
};

static const struct {
	const char *name;
	uint64_t mib;
} steps[] = {
	{ "1MiB", 1 }, { "16MiB", 16 }, { "256MiB", 256 }, { "1GiB", 1024 }, { "4GiB", 4096 }, { "8GiB", 8192 },
};

struct worker {
	struct bench_slot *slots;
	uint64_t index;
	uint64_t count; /* objects */
	uint64_t live;  /* their bytes */
	uint64_t random;
	uint32_t tag;
	struct times at[COUNT(steps)];
};

static uint64_t most = 1024;
static const struct bench_extra extra[] = { { "most", &most, "the largest heap, MiB, at most 8192" } };
static struct bench bench = {
	.name = "grow", .op = "one object replaced, at each size", .ops = 300000, .threads = 1, .seed = 1,
	.work_only = 1, .extra = extra, .extras = COUNT(extra),
};
static pthread_barrier_t step;

static uint32_t any_size(struct worker *w)
{
	return MIN_SIZE + bench_below(&w->random, MAX_SIZE - MIN_SIZE + 1);
}

/* What each thread has of a heap of so many MiB. */
static uint64_t share(uint64_t mib)
{
	return mib * MIB / bench.threads;
}

static void fill(struct worker *w, uint64_t bytes)
{
	while (w->live < bytes) {
		struct bench_slot *s = &w->slots[w->count++];

		bench_fill(s, any_size(w), w->tag++);
		w->live += s->size;
	}
}

static struct bench_slot *any_object(struct worker *w)
{
	return &w->slots[bench_below(&w->random, (uint32_t)w->count)];
}

/* With the generator's part of any_size, too: what is left is the allocator's. */
static void walk(struct worker *w, uint64_t n)
{
	uint32_t sizes = 0;

	for (uint64_t i = 0; i < n; i++) {
		struct bench_slot *s = any_object(w);

		bench_check(s);
		sizes += any_size(w);
		bench_stamp(s, s->size, w->tag++);
	}
	/* So that the compiler does not leave the sizes out. */
	__asm__ volatile("" : : "r"(sizes));
}

static void replace(struct worker *w, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++) {
		struct bench_slot *s = any_object(w);

		w->live -= s->size;
		bench_empty(s);
		bench_fill(s, any_size(w), w->tag++);
		w->live += s->size;
	}
}

static void *work(void *argument)
{
	struct worker *w = argument;
	uint64_t n = bench_share(&bench, w->index, bench.threads).left;

	for (uint32_t i = 0; i < COUNT(steps) && steps[i].mib <= most; i++) {
		struct times *t = &w->at[i];
		uint64_t had = w->count;
		double from[4];

		from[0] = bench_now();
		fill(w, share(steps[i].mib));
		t->filled = w->count - had;
		/* Others' fills and walks are not in one's replacements. */
		t->fill = bench_now() - from[0];
		pthread_barrier_wait(&step);
		from[1] = bench_now();
		walk(w, n);
		from[2] = bench_now();
		pthread_barrier_wait(&step);
		from[3] = bench_now();
		replace(w, n);
		t->replace = bench_now() - from[3];
		t->walk = from[2] - from[1];
		t->done = n;
		pthread_barrier_wait(&step);
	}
	for (uint64_t i = 0; i < w->count; i++)
		bench_empty(&w->slots[i]);
	return NULL;
}

static void report(const struct worker *workers)
{
	for (uint32_t i = 0; i < COUNT(steps) && steps[i].mib <= most; i++) {
		struct times all = { 0 };
		char name[32];

		for (uint64_t t = 0; t < bench.threads; t++) {
			all.fill += workers[t].at[i].fill;
			all.walk += workers[t].at[i].walk;
			all.replace += workers[t].at[i].replace;
			all.filled += workers[t].at[i].filled;
			all.done += workers[t].at[i].done;
		}
		bench_figure(&bench, steps[i].name, all.replace * 1e9 / (double)all.done, "ns");
		snprintf(name, sizeof(name), "%s.walk", steps[i].name);
		bench_figure(&bench, name, all.walk * 1e9 / (double)all.done, "ns");
		snprintf(name, sizeof(name), "%s.fill", steps[i].name);
		bench_figure(&bench, name, all.fill * 1e9 / (double)all.filled, "ns");
	}
}

int main(int argc, char **argv)
{
	struct worker *workers;

	bench_begin(&bench, argc, argv);
	if (most > steps[COUNT(steps) - 1].mib)
		bench_die("--most: at most %lu MiB", (unsigned long)steps[COUNT(steps) - 1].mib);
	workers = bench_table(bench.threads * sizeof(*workers));
	pthread_barrier_init(&step, NULL, (unsigned)bench.threads);
	for (uint64_t i = 0; i < bench.threads; i++) {
		/* Room for objects of half the mean size; what is not touched costs nothing. */
		workers[i].slots = bench_table((share(most) / (MAX_SIZE / 4) + MIB) *
					       sizeof(struct bench_slot));
		workers[i].index = i;
		workers[i].random = bench_seed(&bench, i);
		workers[i].tag = (uint32_t)i << 24;
	}
	bench_start(&bench);
	/* With one thread the process stays single-threaded, as the pattern has it. */
	if (bench.threads == 1)
		work(workers);
	else
		bench_threads(bench.threads, work, workers, sizeof(*workers));
	bench_stop(&bench);
	bench_report(&bench, bench.ops);
	report(workers);
	return 0;
}
