/* SPDX-License-Identifier: MIT */
/* Heaps in shared memory beside the process's own: pairs of an allocation and a free (64 objects, then all of them, seven sizes, as
 * bench/pairs.c), one object linked and freed as one, and a list walked by offsets. With libpmemobj (BENCH_PMEMOBJ, -lpmemobj) its pairs
 * of pmemobj_alloc and pmemobj_free in the same file system, which are what it has that does not log more. Median of rounds, taken in
 * turn; /dev/shm. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "median.h"
#include "quarry/mapped.h"

#ifdef BENCH_PMEMOBJ
#include <libpmemobj.h>
#endif

enum { ROUNDS = 9, GROUP = 64, NODES = 1 << 20 };

static const size_t sizes[] = { 16, 32, 64, 128, 256, 512, 1024 };

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static double own_pairs(unsigned long n)
{
	double from = now();
	void *p[GROUP];

	for (unsigned long i = 0; i < n; i += GROUP) {
		size_t size = sizes[i / GROUP % 7];

		for (int k = 0; k < GROUP; k++)
			*(volatile char *)(p[k] = quarry_malloc(size)) = 1;
		for (int k = 0; k < GROUP; k++)
			quarry_free(p[k]);
	}
	return (now() - from) / (double)n;
}

static double pairs(quarry_mapped *h, unsigned long n)
{
	double from = now();
	void *p[GROUP];

	for (unsigned long i = 0; i < n; i += GROUP) {
		size_t size = sizes[i / GROUP % 7];

		for (int k = 0; k < GROUP; k++)
			*(volatile char *)(p[k] = quarry_mapped_alloc(h, size)) = 1;
		for (int k = 0; k < GROUP; k++)
			quarry_mapped_free(h, p[k]);
	}
	return (now() - from) / (double)n;
}

static double linked(quarry_mapped *h, unsigned long n)
{
	quarry_off *slot = quarry_mapped_user(h, NULL);
	double from = now();

	for (unsigned long i = 0; i < n; i++) {
		quarry_mapped_alloc_into(h, sizes[i % 7], slot);
		quarry_mapped_free_from(h, slot);
	}
	return (now() - from) / (double)n;
}

#ifdef BENCH_PMEMOBJ
static double pmem_pairs(PMEMobjpool *pool, unsigned long n)
{
	double from = now();
	PMEMoid o[GROUP];

	for (unsigned long i = 0; i < n; i += GROUP) {
		size_t size = sizes[i / GROUP % 7];

		for (int k = 0; k < GROUP; k++) {
			if (pmemobj_alloc(pool, &o[k], size, 1, NULL, NULL) != 0)
				exit(1);
			*(volatile char *)pmemobj_direct(o[k]) = 1;
		}
		for (int k = 0; k < GROUP; k++)
			pmemobj_free(&o[k]);
	}
	return (now() - from) / (double)n;
}
#endif

struct node {
	quarry_off off;
	quarry_rel rel;
	struct node *raw;
	uint64_t value;
};

static volatile uint64_t sink;

static double walk(const quarry_mapped *h, struct node *first, int how)
{
	double from = now();
	uint64_t sum = 0;

	if (how == 0) {
		for (struct node *n = first; n != NULL; n = n->raw)
			sum += n->value;
	} else if (how == 1) {
		for (struct node *n = first; n != NULL; n = quarry_mapped_at(h, n->off))
			sum += n->value;
	} else {
		for (struct node *n = first; n != NULL; n = quarry_rel_get(&n->rel))
			sum += n->value;
	}
	sink = sum;
	return (now() - from) / NODES;
}

/* In an order that no prefetcher knows: through memory, 64 MiB, and through what the cache holds. */
static struct node *make_list(quarry_mapped *h)
{
	struct node **all = malloc(NODES * sizeof(*all)), *first;
	uint64_t state = 88172645463325252u;

	for (unsigned i = 0; i < NODES; i++) {
		all[i] = quarry_mapped_alloc(h, sizeof(struct node));
		all[i]->value = i;
	}
	for (unsigned i = NODES - 1; i > 0; i--) {
		struct node *t = all[i];
		unsigned k;

		state ^= state << 13, state ^= state >> 7, state ^= state << 17;
		k = (unsigned)(state % i);
		all[i] = all[k];
		all[k] = t;
	}
	for (unsigned i = 0; i < NODES; i++) {
		struct node *next = i + 1 < NODES ? all[i + 1] : NULL;

		all[i]->off = quarry_mapped_off(h, next);
		all[i]->raw = next;
		quarry_rel_set(&all[i]->rel, next);
	}
	first = all[0];
	free(all);
	return first;
}

int main(void)
{
	double own[ROUNDS], mapped[ROUNDS], into[ROUNDS], w[3][ROUNDS];
	char path[64];
	quarry_mapped *h;
	struct node *first;
#ifdef BENCH_PMEMOBJ
	char pool_path[64];
	double pmem[ROUNDS];
	PMEMobjpool *pool;

	snprintf(pool_path, sizeof(pool_path), "/dev/shm/bench-pmemobj-%d", (int)getpid());
	pool = pmemobj_create(pool_path, "bench", (size_t)256 << 20, 0600);
	if (pool == NULL) {
		fprintf(stderr, "mapped: libpmemobj: %s\n", pmemobj_errormsg());
		return 1;
	}
#endif
	snprintf(path, sizeof(path), "/dev/shm/bench-mapped-%d", (int)getpid());
	h = quarry_mapped_create(path, NULL);
	if (h == NULL) {
		fprintf(stderr, "mapped: %s\n", quarry_error_text());
		return 1;
	}
	unlink(path);
	for (int r = 0; r < ROUNDS; r++) {
		own[r] = own_pairs(2000000);
		mapped[r] = pairs(h, 2000000);
		into[r] = linked(h, 100000);
#ifdef BENCH_PMEMOBJ
		pmem[r] = pmem_pairs(pool, 20 * 64 * 7);
#endif
	}
	first = make_list(h);
	for (int r = 0; r < ROUNDS; r++) {
		for (int how = 0; how < 3; how++)
			w[how][r] = walk(h, first, how);
	}
	printf("mapped.own_pair %.2f ns\n", median(own, ROUNDS));
	printf("mapped.pair %.2f ns\n", median(mapped, ROUNDS));
	printf("mapped.pair_rate %.2f of the process's own\n", own[ROUNDS / 2] / mapped[ROUNDS / 2]);
	printf("mapped.linked_pair %.1f ns\n", median(into, ROUNDS));
#ifdef BENCH_PMEMOBJ
	printf("mapped.pmemobj_pair %.1f ns\n", median(pmem, ROUNDS));
	printf("mapped.pmemobj_times %.1f times as fast\n", pmem[ROUNDS / 2] / mapped[ROUNDS / 2]);
	pmemobj_close(pool);
	unlink(pool_path);
#else
	printf("mapped: without libpmemobj-dev: NOT compared with it\n");
#endif
	printf("mapped.walk_raw %.1f ns\n", median(w[0], ROUNDS));
	printf("mapped.walk_offsets %.3f of raw\n", median(w[1], ROUNDS) / w[0][ROUNDS / 2]);
	printf("mapped.walk_relative %.3f of raw\n", median(w[2], ROUNDS) / w[0][ROUNDS / 2]);
	return quarry_mapped_close(h);
}
