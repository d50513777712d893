/* SPDX-License-Identifier: MIT */
/* Pattern: none; the parts of which patterns consist, each by itself, in ns a call:
 *   malloc.S, free.S     64 blocks of S bytes allocated, then freed, in what every cache holds: the hit
 *   fresh.S              8 MiB of blocks allocated and none freed, in memory that the process never had
 *   refill.S             the same once that was all freed: what a run of mallocs costs beyond the hits
 *   remote.S, retake.S   1024 blocks freed by a thread that did not make them, and the maker's next 1024 mallocs,
 *                        which pay for what it has to do to get them back
 *   calloc.S, recalloc.S as fresh and refill, by calloc
 *   realloc.double, .half, .step   four vectors that grow in turn: to 1 MiB by doubling, to 1 MiB by half of what they
 *                        have, to 64 KiB by 64 bytes; with the writing of what was added
 *   align64, align4096   posix_memalign, and alignfree64, alignfree4096 the frees
 *   usable               malloc_usable_size
 * fresh, refill, calloc and recalloc have the first write to each page of the block in them, as someone pays the page
 * fault and it shall not matter when; in a virtual machine it can be mostly the host that finds the memory (see touch).
 * A figure is the median of many samples; fresh and calloc can have only one.
 * Source: the operations of glibc's bench-malloc-simple and bench-malloc-thread (2019, 2013), taken apart. */
#define _GNU_SOURCE
#include "latency.h"

#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define KIB 1024u
#define PAGE 4096u
#define GROUP 64    /* blocks of a warm group */
#define REPEAT 8    /* groups in one sample */
#define RUN (8192 * KIB)
#define BATCH 1024  /* blocks freed by another thread */
#define VECTORS 4
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

enum { WITH_MALLOC, WITH_CALLOC, WITH_ALIGN };

static struct bench bench = {
	.name = "parts", .op = "one sample of every part", .ops = 400, .threads = 1, .seed = 1, .work_only = 1,
};
static const uint32_t sizes[] = { 16, 64, 256, 1024, 8192 };
static const uint32_t cleared[] = { 64, 1024, 65536 };
static uint64_t *one, *other; /* samples, in ticks */
static uint32_t tag;

/* The median of the samples by its share of the calls. Shell's sort: qsort may allocate. */
static void figure(const char *what, uint32_t size, uint64_t *ticks, uint64_t samples, uint64_t calls)
{
	char name[32];

	for (uint64_t gap = samples / 2; gap > 0; gap /= 2) {
		for (uint64_t i = gap; i < samples; i++) {
			uint64_t v = ticks[i], j = i;

			for (; j >= gap && ticks[j - gap] > v; j -= gap)
				ticks[j] = ticks[j - gap];
			ticks[j] = v;
		}
	}
	snprintf(name, sizeof(name), size ? "%s%u" : "%s", what, size);
	bench_figure(&bench, name, latency_ns(ticks[samples / 2]) / (double)calls, "ns");
}

/* In place of a call through a pointer, which would be a part of what is timed. */
static inline __attribute__((always_inline)) void *make(int with, uint32_t align, uint32_t size)
{
	void *p;

	if (with == WITH_CALLOC)
		return calloc(1, size);
	if (with == WITH_ALIGN)
		return posix_memalign(&p, align, size) ? NULL : p;
	return malloc(size);
}

static void stamp_all(struct bench_slot *slots, uint64_t n, uint32_t size)
{
	for (uint64_t i = 0; i < n; i++) {
		if (!slots[i].p)
			bench_no_memory(size);
		bench_stamp(&slots[i], size, tag++);
	}
}

static void check_all(const struct bench_slot *slots, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++)
		bench_check(&slots[i]);
}

static inline __attribute__((always_inline)) void hits(struct bench_slot *slots, int with, uint32_t align,
						       uint32_t size)
{
	uint64_t from, to;

	/* The first two groups are not timed: they bring the blocks in. */
	for (uint64_t i = 0; i < (bench.ops + 2) * REPEAT; i++) {
		uint64_t at = i < 2 * REPEAT ? 0 : i / REPEAT - 2;

		if (i % REPEAT == 0)
			one[at] = other[at] = 0;
		from = latency_ticks();
		for (uint32_t k = 0; k < GROUP; k++)
			slots[k].p = make(with, align, size);
		to = latency_ticks();
		one[at] += latency_net(to - from);
		stamp_all(slots, GROUP, size);
		for (uint32_t k = 0; with == WITH_ALIGN && k < GROUP; k++)
			if ((uintptr_t)slots[k].p % align)
				bench_die("posix_memalign(%u) gave %p", align, (void *)slots[k].p);
		check_all(slots, GROUP);
		from = latency_ticks();
		for (uint32_t k = 0; k < GROUP; k++)
			free(slots[k].p);
		to = latency_ticks();
		other[at] += latency_net(to - from);
	}
}

static void warm(void)
{
	struct bench_slot *slots = bench_table(GROUP * sizeof(*slots));

	for (uint32_t i = 0; i < COUNT(sizes); i++) {
		hits(slots, WITH_MALLOC, 0, sizes[i]);
		figure("malloc.", sizes[i], one, bench.ops, REPEAT * GROUP);
		figure("free.", sizes[i], other, bench.ops, REPEAT * GROUP);
	}
	hits(slots, WITH_ALIGN, 64, 200);
	figure("align", 64, one, bench.ops, REPEAT * GROUP);
	figure("alignfree", 64, other, bench.ops, REPEAT * GROUP);
	hits(slots, WITH_ALIGN, PAGE, PAGE);
	figure("align", PAGE, one, bench.ops, REPEAT * GROUP);
	figure("alignfree", PAGE, other, bench.ops, REPEAT * GROUP);
}

/* Blocks of a run: the size, how they are made, and the table that holds them until the run is done again. */
struct run {
	struct bench_slot *slots;
	uint64_t count;
	uint32_t size;
	int with;
};

static void check_clear(const struct run *r)
{
	for (uint64_t i = 0; i < r->count; i++)
		if (*r->slots[i].p || memcmp(r->slots[i].p, r->slots[i].p + 1, r->size - 1))
			bench_die("calloc(%u) gave a byte that is not 0", r->size);
}

/* One run: the ticks from its first allocation to its last. The write is one of 0, so that what calloc gave can be
 * looked at; afterwards every byte is something else. */
static inline __attribute__((always_inline)) uint64_t run_with(struct run *r, int with)
{
	uint64_t from = latency_ticks();

	for (uint64_t i = 0; i < r->count; i++) {
		unsigned char *p = make(with, 0, r->size);

		if (__builtin_expect(!p, 0))
			bench_no_memory(r->size);
		r->slots[i].p = p;
		for (uint32_t at = 0; at < r->size; at += PAGE)
			*(volatile unsigned char *)(p + at) = 0;
	}
	return latency_net(latency_ticks() - from);
}

static uint64_t run(struct run *r)
{
	uint64_t ticks = r->with == WITH_CALLOC ? run_with(r, WITH_CALLOC) : run_with(r, WITH_MALLOC);

	if (r->with == WITH_CALLOC) {
		check_clear(r);
		for (uint64_t i = 0; i < r->count; i++)
			memset(r->slots[i].p, 0xa5, r->size);
	}
	stamp_all(r->slots, r->count, r->size);
	return ticks;
}

static void free_run(struct run *r)
{
	for (uint64_t i = 0; i < r->count; i++)
		bench_empty(&r->slots[i]);
}

/* All fresh runs are held until the last is made: none gets what another had. */
static void runs(void)
{
	struct run all[COUNT(sizes) + COUNT(cleared)], *r = all;
	uint64_t again = bench.ops < 20 ? 1 : bench.ops / 20;

	for (uint32_t i = 0; i < COUNT(sizes); i++)
		*r++ = (struct run){ .size = sizes[i], .with = WITH_MALLOC };
	for (uint32_t i = 0; i < COUNT(cleared); i++)
		*r++ = (struct run){ .size = cleared[i], .with = WITH_CALLOC };
	for (r = all; r < all + COUNT(all); r++) {
		r->count = RUN / r->size;
		r->slots = bench_table(r->count * sizeof(*r->slots));
		/* The table's own faults are before the run. */
		memset(r->slots, 1, r->count * sizeof(*r->slots));
		*one = run(r);
		figure(r->with == WITH_CALLOC ? "calloc." : "fresh.", r->size, one, 1, r->count);
	}
	for (r = all; r < all + COUNT(all); r++) {
		free_run(r);
		for (uint64_t i = 0; i < again; i++) {
			one[i] = run(r);
			free_run(r);
		}
		figure(r->with == WITH_CALLOC ? "recalloc." : "refill.", r->size, one, again, r->count);
		bench_table_trim(r->slots, 0, r->count * sizeof(*r->slots));
	}
}

/* Two threads by turns: never both at once, so that the calls are timed and not the wait for each other. */
static struct bench_slot *handed;
static pthread_barrier_t turn;

static void *free_remote(void *argument)
{
	(void)argument;
	for (uint64_t i = 0; i < COUNT(sizes) * (bench.ops + 1); i++) {
		uint64_t from;

		pthread_barrier_wait(&turn);
		check_all(handed, BATCH);
		from = latency_ticks();
		for (uint32_t k = 0; k < BATCH; k++)
			free(handed[k].p);
		one[i % (bench.ops + 1)] = latency_net(latency_ticks() - from);
		pthread_barrier_wait(&turn);
	}
	return NULL;
}

static void remote(void)
{
	pthread_t thread;
	uint64_t from;

	handed = bench_table(BATCH * sizeof(*handed));
	pthread_barrier_init(&turn, NULL, 2);
	if (pthread_create(&thread, NULL, free_remote, NULL))
		bench_die("pthread_create failed");
	for (uint32_t s = 0; s < COUNT(sizes); s++) {
		for (uint64_t i = 0; i < bench.ops + 1; i++) {
			from = latency_ticks();
			for (uint32_t k = 0; k < BATCH; k++)
				handed[k].p = malloc(sizes[s]);
			other[i] = latency_net(latency_ticks() - from);
			stamp_all(handed, BATCH, sizes[s]);
			pthread_barrier_wait(&turn);
			/* Here the other thread frees them. */
			pthread_barrier_wait(&turn);
		}
		/* The first mallocs of a size took nothing back. */
		other[0] = other[bench.ops];
		figure("remote.", sizes[s], one, bench.ops, BATCH);
		figure("retake.", sizes[s], other, bench.ops, BATCH);
	}
	pthread_join(thread, NULL);
}

/* What a vector of this size grows to. */
static uint32_t next_double(uint32_t size) { return size * 2; }
static uint32_t next_half(uint32_t size) { return size + size / 2; }
static uint32_t next_step(uint32_t size) { return size + 64; }

/* Several at once, so that none simply grows into the free memory behind it. */
static uint64_t grow(uint32_t (*next)(uint32_t), uint32_t most, uint64_t *calls)
{
	unsigned char *vector[VECTORS];
	uint32_t size = 16;
	uint64_t from = latency_ticks(), ticks;

	for (uint32_t v = 0; v < VECTORS; v++) {
		vector[v] = malloc(size);
		if (!vector[v])
			bench_no_memory(size);
		memset(vector[v], (int)v + 1, size);
	}
	for (*calls = 0; size < most; *calls += VECTORS) {
		uint32_t to = next(size);

		for (uint32_t v = 0; v < VECTORS; v++) {
			unsigned char *p = realloc(vector[v], to);

			if (!p)
				bench_no_memory(to);
			vector[v] = p;
			memset(p + size, (int)v + 1, to - size);
		}
		size = to;
	}
	ticks = latency_net(latency_ticks() - from);
	for (uint32_t v = 0; v < VECTORS; v++) {
		if (*vector[v] != v + 1 || memcmp(vector[v], vector[v] + 1, size - 1))
			bench_die("WRONG CONTENTS: realloc lost some of %u bytes", size);
		free(vector[v]);
	}
	return ticks;
}

static void vectors(void)
{
	static const struct {
		const char *name;
		uint32_t (*next)(uint32_t);
		uint32_t most;
	} kinds[] = {
		{ "realloc.double", next_double, 1024 * KIB },
		{ "realloc.half", next_half, 1024 * KIB },
		{ "realloc.step", next_step, 64 * KIB },
	};
	uint64_t samples = bench.ops < 5 ? 1 : bench.ops / 5, calls = 0;

	for (uint32_t k = 0; k < COUNT(kinds); k++) {
		for (uint64_t i = 0; i < samples; i++)
			one[i] = grow(kinds[k].next, kinds[k].most, &calls);
		figure(kinds[k].name, 0, one, samples, calls);
	}
}

static void usable(void)
{
	struct bench_slot *slots = bench_table(GROUP * sizeof(*slots));
	uint64_t from, random = bench_seed(&bench, 0), wanted = 0, sum;

	for (uint32_t i = 0; i < GROUP; i++) {
		bench_fill(&slots[i], 16 + bench_below(&random, KIB), tag++);
		wanted += slots[i].size;
	}
	for (uint64_t s = 0; s < bench.ops; s++) {
		sum = 0;
		from = latency_ticks();
		for (uint32_t r = 0; r < REPEAT; r++)
			for (uint32_t i = 0; i < GROUP; i++)
				sum += malloc_usable_size(slots[i].p);
		one[s] = latency_net(latency_ticks() - from);
		if (sum < wanted * REPEAT)
			bench_die("malloc_usable_size says less than was asked for");
	}
	figure("usable", 0, one, bench.ops, REPEAT * GROUP);
	for (uint32_t i = 0; i < GROUP; i++)
		bench_empty(&slots[i]);
}

int main(int argc, char **argv)
{
	bench_begin(&bench, argc, argv);
	if (bench.threads != 1)
		bench_die("--threads: the parts are timed in one thread");
	latency_begin();
	one = bench_table((bench.ops + 1) * sizeof(*one));
	other = bench_table((bench.ops + 1) * sizeof(*other));
	bench_start(&bench);
	runs();
	warm();
	remote();
	vectors();
	usable();
	bench_stop(&bench);
	bench_report(&bench, bench.ops);
	return 0;
}
