/* SPDX-License-Identifier: MIT */
/* Objects behind handles, packed: what is in memory before and after, how fast, what readers lose by it, and whether a
 * budget is kept. A heap of objects of 32 bytes to 1 KiB is filled, and 7 of 10 are freed at random.
 *
 *	lanes pack [MIB]              by one call
 *	lanes background [MIB]        by the mover in the background
 *	lanes readers [MIB [ROUNDS]]  one thread reads at random beside it; rounds without and with the mover alternate
 *	lanes budget [MIB [CALLS [MICROSECONDS]]]
 *
 * Resident is what the kernel counts, less what was there before the lanes; live is what was asked for. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "include/quarry/lanes.h"

#define MIB 1048576.0

static quarry_lanes *lanes;
static quarry_handle *handles;
static uint16_t *sizes;
static size_t count, most;
static uint64_t live, state = 88172645463325252u;
static double base;

static uint64_t next(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x;
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void *table(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (p == MAP_FAILED)
		exit(1);
	return p;
}

/* MiB that the kernel counts, page by page. */
static double resident(const char *what)
{
	char line[256];
	double mib = 0;
	FILE *f = fopen("/proc/self/smaps_rollup", "r");

	while (f != NULL && fgets(line, sizeof(line), f) != NULL)
		if (strncmp(line, what, strlen(what)) == 0)
			mib = strtod(line + strlen(what), NULL) / 1024;
	if (f != NULL)
		fclose(f);
	return mib;
}

static quarry_lanes_stats stats(void)
{
	quarry_lanes_stats s = { 0 };

	if (quarry_lanes_stats_get(lanes, &s) != 0)
		exit(1);
	return s;
}

static void make(size_t i)
{
	void *p;

	sizes[i] = (uint16_t)(32 + next(&state) % 993);
	handles[i] = quarry_halloc(lanes, sizes[i]);
	if (handles[i] == 0)
		exit(1);
	quarry_enter();
	p = quarry_get_mut(lanes, handles[i]);
	memset(p, (int)i, sizes[i]);
	quarry_leave();
	live += sizes[i];
}

static void begin(size_t mib, uint32_t flags)
{
	quarry_lanes_attr attr = { .flags = flags };

	most = (mib << 20) / 500;
	handles = table(most * sizeof(*handles));
	sizes = table(most * sizeof(*sizes));
	lanes = quarry_lanes_create(&attr);
	if (lanes == NULL)
		exit(1);
	base = resident("Anonymous:");
	while (live < mib << 20 && count < most)
		make(count++);
}

static void thin(void)
{
	for (size_t i = 0; i < count; i++)
		if (handles[i] != 0 && next(&state) % 10 < 7) {
			quarry_hfree(lanes, handles[i]);
			live -= sizes[i];
			handles[i] = 0;
		}
}

static void refill(void)
{
	for (size_t i = 0; i < count; i++)
		if (handles[i] == 0)
			make(i);
}

static double tell(const char *when)
{
	quarry_lanes_stats s = stats();
	double rss = resident("Anonymous:") - base;

	printf("%-8s live %.1f MiB, resident %.1f (%.3f), huge %.1f; held %.1f in %u segments (%.3f), waiting %.1f\n", when,
	       (double)live / MIB, rss, rss * MIB / (double)live, resident("AnonHugePages:"), (double)s.held / MIB, s.segments,
	       (double)s.held / (double)live, (double)s.waiting / MIB);
	return rss;
}

static void told_moved(const quarry_lanes_stats *before, uint64_t ns, double freed)
{
	quarry_lanes_stats s = stats();
	double bytes = (double)(s.moved_bytes - before->moved_bytes), whole = (s.freed_segments - before->freed_segments) * 2.0;

	printf("moved    %.1f MiB, %llu objects, in %.3f s: %.2f GB/s; %.0f MiB in whole segments, of %.1f freed (%.0f %%)\n",
	       bytes / MIB, (unsigned long long)(s.moved - before->moved), (double)ns / 1e9, bytes / (double)ns, whole, freed,
	       100 * whole / freed);
}

static int pack(size_t mib)
{
	quarry_lanes_stats before;
	uint64_t t;
	double rss;

	begin(mib, QUARRY_LANES_NO_MOVER);
	tell("filled");
	thin();
	rss = tell("thinned");
	before = stats();
	t = now();
	quarry_compact(lanes, QUARRY_COMPACT_FULL, 0, 0);
	t = now() - t;
	rss -= tell("packed");
	told_moved(&before, t, rss);
	return 0;
}

static void nap(uint64_t ms)
{
	struct timespec t = { (time_t)(ms / 1000), (long)(ms % 1000 * 1000000) };

	nanosleep(&t, NULL);
}

static int background(size_t mib)
{
	quarry_lanes_stats before, last, s;
	uint64_t t, at;
	double rss;

	begin(mib, 0);
	tell("filled");
	before = stats();
	thin();
	rss = tell("thinned");
	t = at = now();
	last = stats();
	for (int still = 0; still < 10; still++) {
		nap(100);
		s = stats();
		if (s.moved != last.moved || s.segments != last.segments) {
			still = 0;
			at = now();
		}
		last = s;
	}
	rss -= tell("packed");
	told_moved(&before, last.mover_ns, rss);
	printf("the mover was at it for %.2f s and ran %.3f s (%.1f %%), %llu plans, %llu caches recalled\n",
	       (double)(at - t) / 1e9, (double)last.mover_ns / 1e9, 100.0 * (double)last.mover_ns / (double)(at - t),
	       (unsigned long long)last.mover_plans, (unsigned long long)last.recalled);
	return 0;
}

/* ---- budgets ---- */

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void distribution(const char *what, uint64_t *t, size_t n, uint64_t limit)
{
	size_t over = 0;

	if (n == 0)
		return;
	qsort(t, n, sizeof(*t), by_value);
	for (size_t i = 0; i < n; i++)
		over += t[i] > limit;
	printf("%-24s %zu calls: p50 %.1f us, p99 %.1f, p99.9 %.1f, p99.99 %.1f, max %.1f; %zu over %.0f us\n", what, n,
	       (double)t[n / 2] / 1e3, (double)t[n * 99 / 100] / 1e3, (double)t[n * 999 / 1000] / 1e3,
	       (double)t[n - 1 - n / 10000] / 1e3, (double)t[n - 1] / 1e3, over, (double)limit / 1e3);
}

static long switches(void)
{
	struct rusage r;

	getrusage(RUSAGE_THREAD, &r);
	return r.ru_nivcsw;
}

static uint64_t cpu(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* Calls in which the thread lost its processor are told apart: that time is nobody's. */
static int budget(size_t mib, size_t calls, uint64_t us)
{
	uint64_t *all = table(calls * sizeof(*all)), *alone = table(calls * sizeof(*alone)), *used = table(calls * sizeof(*used));
	size_t n = 0, refills = 0;
	quarry_lanes_stats before;
	uint64_t sum = 0, moved = 0;

	begin(mib, QUARRY_LANES_NO_MOVER);
	thin();
	before = stats();
	for (size_t i = 0; i < calls; i++) {
		uint64_t t, c;
		long s = switches();

		t = now();
		c = cpu();
		quarry_compact(lanes, QUARRY_COMPACT_FULL, 0, us);
		used[i] = cpu() - c;
		all[i] = now() - t;
		sum += all[i];
		if (switches() == s)
			alone[n++] = all[i];
		if (i % 100 == 99) {
			uint64_t last = moved;

			moved = stats().moved_bytes;
			if (moved - last < MIB) {
				refill();
				thin();
				refills++;
			}
		}
	}
	told_moved(&before, sum, 1);
	printf("heap thinned %zu times\n", refills + 1);
	distribution("all", all, calls, us * 3 / 2 * 1000);
	distribution("not preempted", alone, n, us * 3 / 2 * 1000);
	distribution("processor time", used, calls, us * 3 / 2 * 1000);
	return 0;
}

/* ---- readers ---- */

enum { PAUSED, WITHOUT, WITH, PHASES };
#define BUCKETS 4096 /* of 250 ns */

static _Atomic(int) phase;
static _Atomic(int) seen;
static uint64_t took[PHASES][BUCKETS + 1], reads[PHASES], sum;

/* Each read has a scope of its own, and is timed. */
static void *read_on(void *unused)
{
	uint64_t x = 4242;

	(void)unused;
	for (int at; (at = atomic_load(&phase)) >= 0;) {
		uint64_t t, last;

		atomic_store(&seen, at);
		if (at == PAUSED)
			continue;
		last = now();
		for (int i = 0; i < 1000; i++) {
			const unsigned char *p;

			quarry_enter();
			p = quarry_get(lanes, handles[next(&x) % count]);
			if (p != NULL)
				sum += p[0];
			quarry_leave();
			t = now();
			took[at][t - last < BUCKETS * 250 ? (t - last) / 250 : BUCKETS]++;
			last = t;
		}
		reads[at] += 1000;
	}
	return NULL;
}

static void enter_phase(int at)
{
	atomic_store(&phase, at);
	while (atomic_load(&seen) != at)
		nap(1);
}

static double quantile(const uint64_t *h, uint64_t n, double q)
{
	uint64_t want = (uint64_t)((double)n * q), at = 0;
	int i = 0;

	while (i < BUCKETS && (at += h[i]) <= want)
		i++;
	return (i + 1) * 0.25;
}

static int by_double(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static int readers(size_t mib, size_t rounds)
{
	double *ratio = table(rounds * sizeof(*ratio));
	pthread_t thread;

	begin(mib, QUARRY_LANES_NO_MOVER);
	if (pthread_create(&thread, NULL, read_on, NULL) != 0)
		return 1;
	for (size_t i = 0; i < rounds; i++) {
		uint64_t before, t;
		double rate[PHASES];

		thin();
		for (int at = WITHOUT; at <= WITH; at++) {
			before = reads[at];
			t = now();
			enter_phase(at);
			if (at == WITHOUT)
				nap(200);
			else
				quarry_compact(lanes, QUARRY_COMPACT_FULL, 0, 0);
			enter_phase(PAUSED);
			rate[at] = (double)(reads[at] - before) / (double)(now() - t);
		}
		ratio[i] = rate[WITH] / rate[WITHOUT];
		refill();
	}
	atomic_store(&phase, -1);
	pthread_join(thread, NULL);
	qsort(ratio, rounds, sizeof(*ratio), by_double);
	printf("reads a second with the mover / without: median %.3f (%.3f to %.3f) of %zu rounds\n", ratio[rounds / 2], ratio[0],
	       ratio[rounds - 1], rounds);
	for (int at = WITHOUT; at <= WITH; at++)
		printf("%-8s p50 %.2f us, p99.9 %.2f, p99.99 %.2f, p99.999 %.2f\n", at == WITH ? "with" : "without",
		       quantile(took[at], reads[at], 0.5), quantile(took[at], reads[at], 0.999),
		       quantile(took[at], reads[at], 0.9999), quantile(took[at], reads[at], 0.99999));
	return sum == 0;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "pack";
	size_t mib = argc > 2 ? strtoul(argv[2], NULL, 0) : 1024;

	if (strcmp(what, "pack") == 0)
		return pack(mib);
	if (strcmp(what, "background") == 0)
		return background(mib);
	if (strcmp(what, "readers") == 0)
		return readers(mib, argc > 3 ? strtoul(argv[3], NULL, 0) : 9);
	if (strcmp(what, "budget") == 0)
		return budget(mib, argc > 3 ? strtoul(argv[3], NULL, 0) : 10000, argc > 4 ? strtoul(argv[4], NULL, 0) : 200);
	fprintf(stderr, "usage: lanes pack|background|readers|budget [MIB ...]\n");
	return 2;
}
