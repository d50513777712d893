/* SPDX-License-Identifier: MIT */
/* What slabs of buffers cost (include/quarry/buffers.h), beside a malloc and free of the same size in the same round:
 *
 *	got and put by the owner; returned by another thread (on the other processor), and collected by the owner;
 *	checked; adopted by moving and by copying, with the slab's fresh pages touched; memory before and after use.
 *
 *	make bench-buffers        eleven rounds, in turn; medians, the quarter and three quarter marks, and ratios */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <quarry/buffers.h>

#include "median.h"

#define ROUNDS 11
#define COUNT 4096u
#define PAIRS 4000000u
#define KIB ((size_t)1 << 10)

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static quarry_buffers *make(size_t size, uint32_t count, uint32_t flags)
{
	quarry_buffers_attr attr = { .struct_size = sizeof attr, .size = size, .count = count, .alignment = 4096,
				     .flags = flags };
	quarry_buffers *slab = quarry_buffers_create(&attr);

	if (slab == NULL) {
		perror(quarry_error_text());
		exit(1);
	}
	return slab;
}

/* ---- one after the other, by the owner ---- */

static void *volatile sink;

/* (Inline, so that what is timed are plain calls.) */
static inline __attribute__((always_inline)) double pairs(void *(*take)(size_t size), void (*give)(void *p), size_t size)
{
	double start = now();

	for (unsigned i = 0; i < PAIRS; i++) {
		void *p = take(size);
		sink = p;
		give(p);
	}
	return (now() - start) / PAIRS;
}

static double pairs_malloc(size_t size)
{
	return pairs(quarry_malloc, quarry_free, size);
}

static double pairs_libc(size_t size)
{
	return pairs(malloc, free, size);
}

static double pairs_slab(quarry_buffers *slab)
{
	double start = now();

	for (unsigned i = 0; i < PAIRS; i++) {
		quarry_buffer b;
		if (quarry_buffers_get(slab, &b) != 0)
			exit(1);
		sink = b.p;
		quarry_buffer_release(b);
	}
	return (now() - start) / PAIRS;
}

static double checks(quarry_buffers *slab)
{
	quarry_buffer b;
	double start;

	if (quarry_buffers_get(slab, &b) != 0)
		exit(1);
	start = now();
	for (unsigned i = 0; i < PAIRS; i++)
		sink = quarry_buffer_check(b);
	start = (now() - start) / PAIRS;
	quarry_buffer_release(b);
	return start;
}

/* ---- returned by another ---- */

static struct {
	pthread_barrier_t go, done;
	quarry_buffer b[COUNT];
	void *p[COUNT];
	int what; /* 0 buffers, 1 quarry_free, 2 free, 3 end */
	double ns;
} other;

static void *returns(void *arg)
{
	(void)arg;
	for (;;) {
		double start;

		pthread_barrier_wait(&other.go);
		if (other.what == 3)
			return NULL;
		start = now();
		if (other.what == 0)
			for (unsigned i = 0; i < COUNT; i++)
				quarry_buffer_release(other.b[i]);
		else if (other.what == 1)
			for (unsigned i = 0; i < COUNT; i++)
				quarry_free(other.p[i]);
		else
			for (unsigned i = 0; i < COUNT; i++)
				free(other.p[i]);
		other.ns += now() - start;
		pthread_barrier_wait(&other.done);
	}
}

#define TURNS 50

/* Each side's time for one of them: the other's to return, and the owner's to get and collect. */
static void across(int what, quarry_buffers *slab, size_t size, double *returning, double *owning)
{
	double start, owner = 0;

	other.what = what;
	other.ns = 0;
	for (int turn = 0; turn < TURNS; turn++) {
		start = now();
		for (unsigned i = 0; i < COUNT; i++)
			if (what == 0)
				quarry_buffers_get(slab, &other.b[i]);
			else
				other.p[i] = what == 1 ? quarry_malloc(size) : malloc(size);
		owner += now() - start;
		pthread_barrier_wait(&other.go);
		pthread_barrier_wait(&other.done);
		start = now();
		if (what == 0)
			quarry_buffers_collect(slab);
		owner += now() - start;
	}
	*returning = other.ns / COUNT / TURNS;
	*owning = owner / COUNT / TURNS;
}

/* ---- adopted ---- */

static double adopts(size_t size, unsigned flags)
{
	enum { TIMES = 400 };
	quarry_buffers *slab = make(size, 16, QUARRY_BUFFERS_POPULATE);
	void *kept[TIMES];
	double start = now();

	for (int i = 0; i < TIMES; i++) {
		quarry_buffer b;

		if (quarry_buffers_get(slab, &b) != 0)
			exit(1);
		/* As what is received: written to before, and after. */
		memset(b.p, i, size);
		if (quarry_buffer_adopt(&b, NULL, flags) != 0)
			exit(1);
		kept[i] = b.p;
	}
	start = (now() - start) / TIMES;
	for (int i = 0; i < TIMES; i++)
		quarry_free(kept[i]);
	quarry_buffers_destroy(slab);
	quarry_purge(NULL);
	return start;
}

/* ---- told ---- */

static double tell(const char *what, double *ns, double beside)
{
	median_sort(ns, ROUNDS);
	printf("%-46s %9.2f ns  (%.2f to %.2f, least %.2f)", what, ns[ROUNDS / 2], ns[ROUNDS / 4], ns[ROUNDS * 3 / 4],
	       ns[0]);
	if (beside > 0)
		printf("  %.2f of quarry_malloc's", ns[ROUNDS / 2] / beside);
	putchar('\n');
	return ns[ROUNDS / 2];
}

static size_t resident(void)
{
	unsigned long size = 0, pages = 0;
	FILE *f = fopen("/proc/self/statm", "r");

	if (f == NULL || fscanf(f, "%lu %lu", &size, &pages) != 2)
		return 0;
	fclose(f);
	return pages * (size_t)getpagesize() / KIB;
}

static void lean(void)
{
	size_t before;
	quarry_buffers *slab;
	quarry_buffer b;

	quarry_buffers_destroy(make(64, 1, 0));
	before = resident();
	slab = make(32 * KIB, 16384, 0);
	printf("a slab of 16384 buffers of 32 KiB (512 MiB): %zu KiB in memory", resident() - before);
	if (quarry_buffers_get(slab, &b) != 0)
		exit(1);
	memset(b.p, 1, b.len);
	printf(", %zu with one buffer used\n", resident() - before);
	quarry_buffer_release(b);
	quarry_buffers_destroy(slab);
}

static double r[16][ROUNDS];

static void rounds(quarry_buffers *slab, quarry_buffers *checked, size_t size)
{
	for (int i = 0; i < ROUNDS; i++) {
		r[0][i] = pairs_malloc(size);
		r[1][i] = pairs_slab(slab);
		r[2][i] = pairs_slab(checked);
		r[3][i] = pairs_libc(size);
		r[4][i] = checks(slab);
		across(0, slab, size, &r[5][i], &r[6][i]);
		across(1, slab, size, &r[7][i], &r[8][i]);
		across(2, slab, size, &r[9][i], &r[10][i]);
	}
}

/* With an argument: without what is adopted. */
int main(int argc, char **argv)
{
	static const size_t sizes[] = { 16 * KIB, 32 * KIB, 64 * KIB, 256 * KIB, 1024 * KIB, 4096 * KIB };
	const size_t size = 2 * KIB;
	pthread_t thread;
	quarry_buffers *slab, *checked;
	double beside;

	(void)argv;
	lean();
	slab = make(size, COUNT, 0);
	checked = make(size, COUNT, QUARRY_BUFFERS_CHECKED);
	pthread_barrier_init(&other.go, NULL, 2);
	pthread_barrier_init(&other.done, NULL, 2);
	pthread_create(&thread, NULL, returns, NULL);
	rounds(slab, checked, size);
	printf("buffers of %zu bytes; medians of %d rounds in turn\n", size, ROUNDS);
	beside = tell("quarry_malloc and quarry_free", r[0], 0);
	tell("buffer got and put, by the owner", r[1], beside);
	tell("the same, checked", r[2], beside);
	tell("malloc and free of the C library", r[3], beside);
	tell("quarry_buffer_check", r[4], 0);
	beside = tell("quarry_free by another thread", r[7], 0);
	tell("buffer returned by another thread", r[5], beside);
	tell("free of the C library, by another thread", r[9], beside);
	beside = tell("quarry_malloc of what others freed", r[8], 0);
	tell("buffer got of what others returned, collected", r[6], beside);
	tell("malloc of what others freed", r[10], beside);
	other.what = 3;
	pthread_barrier_wait(&other.go);
	pthread_join(thread, NULL);
	quarry_buffers_destroy(slab);
	quarry_buffers_destroy(checked);
	for (size_t s = argc > 1 ? 9 : 0; s < sizeof sizes / sizeof *sizes; s++) {
		char what[64];

		for (int i = 0; i < ROUNDS; i++) {
			r[0][i] = adopts(sizes[s], 0);
			r[1][i] = adopts(sizes[s], QUARRY_ADOPT_COPY);
		}
		snprintf(what, sizeof what, "%zu KiB written and adopted by moving", sizes[s] / KIB);
		tell(what, r[0], 0);
		snprintf(what, sizeof what, "%zu KiB written and adopted by copying", sizes[s] / KIB);
		tell(what, r[1], 0);
	}
	return 0;
}
