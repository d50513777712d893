/* SPDX-License-Identifier: MIT */
/* Objects behind handles, packed: what is in memory before and after, how fast, what readers lose by it, and whether a
 * budget is kept. A heap of objects of 32 bytes to 1 KiB is filled, and 7 of 10 are freed at random.
 *
 *	lanes gets                    what it costs to get, to pin, to make and free; one thread
 *	lanes pack [MIB]              by one call
 *	lanes background [MIB]        by the mover in the background
 *	lanes readers [MIB [ROUNDS]]  one thread reads at random beside it; rounds without and with the mover alternate
 *	lanes budget [MIB [CALLS [MICROSECONDS]]]
 *
 * What is promised is said with its target, and whether it was met (`make bench-lanes` runs all of it).
 *
 * Resident is what the kernel counts, less what was there before the lanes; live is what was asked for. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
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

/* A promise: at most (or at least) so much. */
static void promise(const char *what, double value, bool at_most, double target, const char *unit)
{
	bool met = at_most ? value <= target : value >= target;

	printf("promise  %-52s %9.3f %-4s %s %.3f: %s\n", what, value, unit, at_most ? "<=" : ">=", target, met ? "met" : "NOT MET");
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

/* Part of what was freed that went as whole segments, GB/s. */
struct moved {
	double whole, speed;
};

static struct moved told_moved(const quarry_lanes_stats *before, uint64_t ns, double freed)
{
	quarry_lanes_stats s = stats();
	double bytes = (double)(s.moved_bytes - before->moved_bytes), whole = (s.freed_segments - before->freed_segments) * 2.0;

	printf("moved    %.1f MiB, %llu objects, in %.3f s: %.2f GB/s; %.0f MiB in whole segments, of %.1f freed (%.0f %%)\n",
	       bytes / MIB, (unsigned long long)(s.moved - before->moved), (double)ns / 1e9, bytes / (double)ns, whole, freed,
	       100 * whole / freed);
	return (struct moved){ whole / freed, bytes / (double)ns };
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
	promise("the mover, called", told_moved(&before, t, rss).speed, false, 1, "GB/s");
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
	double rss, thinned, packed;
	struct moved moved;

	begin(mib, 0);
	tell("filled");
	before = stats();
	thin();
	rss = thinned = tell("thinned");
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
	packed = tell("packed");
	rss -= packed;
	moved = told_moved(&before, last.mover_ns, rss);
	printf("the mover was at it for %.2f s and ran %.3f s (%.1f %%), %llu plans, %llu caches recalled\n",
	       (double)(at - t) / 1e9, (double)last.mover_ns / 1e9, 100.0 * (double)last.mover_ns / (double)(at - t),
	       (unsigned long long)last.mover_plans, (unsigned long long)last.recalled);
	promise("resident over live, 70 % freed at random", thinned * MIB / (double)live, false, 2.5, "");
	promise("the same, packed in the background", packed * MIB / (double)live, true, 1.12, "");
	promise("of what was freed then, as whole huge pages", 100 * moved.whole, false, 80, "%");
	promise("the mover, in the background, while it runs", moved.speed, false, 1, "GB/s");
	return 0;
}

/* ---- budgets ---- */

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static size_t distribution(const char *what, uint64_t *t, size_t n, uint64_t limit)
{
	size_t over = 0;

	if (n == 0)
		return 0;
	qsort(t, n, sizeof(*t), by_value);
	for (size_t i = 0; i < n; i++)
		over += t[i] > limit;
	printf("%-24s %zu calls: p50 %.1f us, p99 %.1f, p99.9 %.1f, p99.99 %.1f, max %.1f; %zu over %.0f us\n", what, n,
	       (double)t[n / 2] / 1e3, (double)t[n * 99 / 100] / 1e3, (double)t[n * 999 / 1000] / 1e3,
	       (double)t[n - 1 - n / 10000] / 1e3, (double)t[n - 1] / 1e3, over, (double)limit / 1e3);
	return over;
}

/* How often the thread lost its processor, and gave it up: for a lock, or a page. */
struct switches {
	long lost, gave;
};

static struct switches switches(void)
{
	struct rusage r;

	getrusage(RUSAGE_THREAD, &r);
	return (struct switches){ r.ru_nivcsw, r.ru_nvcsw };
}

static uint64_t cpu(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* Ticks (10 ms) that the host did not run this machine's processors, though they had work; -1: nobody says. */
static long long stolen(void)
{
	long long t[8] = { 0 };
	FILE *f = fopen("/proc/stat", "r");
	int n = f == NULL ? 0 : fscanf(f, "cpu %lld %lld %lld %lld %lld %lld %lld %lld", &t[0], &t[1], &t[2], &t[3], &t[4], &t[5],
				       &t[6], &t[7]);

	if (f != NULL)
		fclose(f);
	return n == 8 ? t[7] : -1;
}

/* What calls took, and which of those that took too long were whose. Processor time is what the kernel charges the thread
 * with: the library's work, and interrupts that come in between. Time in which it had no processor is told by its switches;
 * what neither explains is the host's, which ran something else on the processor. */
struct took {
	uint64_t *all, *used;
	size_t n, lost, gave, host;
};

static void note(struct took *k, uint64_t all, uint64_t used, struct switches before, uint64_t limit)
{
	struct switches after = switches();

	k->all[k->n] = all;
	k->used[k->n++] = used;
	if (all <= limit || used > limit)
		return;
	if (after.lost != before.lost)
		k->lost++;
	else if (after.gave != before.gave)
		k->gave++;
	else
		k->host++;
}

static size_t told_took(const char *what, struct took *k, uint64_t limit)
{
	size_t over;

	printf("%s\n", what);
	distribution("  by the clock", k->all, k->n, limit);
	over = distribution("  processor time", k->used, k->n, limit);
	printf("  over by the clock alone: %zu in which the thread lost its processor, %zu in which it waited, %zu neither: the host's\n",
	       k->lost, k->gave, k->host);
	return over;
}

/* Without quarry: the clock is looked at for as long as a call goes on, and nothing else is done. What takes longer is the
 * machine's: interrupts, its host, other processes. */
static void clock_alone(struct took *k, uint64_t us, uint64_t limit)
{
	struct switches s = switches();
	uint64_t t = now(), c = cpu(), at;

	do
		at = now();
	while (at - t < us * 1000 * 2 / 3);
	note(k, at - t, cpu() - c, s, limit);
}

/* Calls, and after each the clock alone. */
static int budget(size_t mib, size_t calls, uint64_t us)
{
	struct took ours = { .all = table(calls * 8), .used = table(calls * 8) };
	struct took machine = { .all = table(calls * 8), .used = table(calls * 8) };
	uint64_t sum = 0, moved = 0, limit = us * 3 / 2 * 1000;
	size_t refills = 0, over, machines;
	quarry_lanes_stats before;
	long long steal = stolen();

	begin(mib, QUARRY_LANES_NO_MOVER);
	thin();
	before = stats();
	for (size_t i = 0; i < calls; i++) {
		struct switches s = switches();
		uint64_t t = now(), c = cpu(), used;

		quarry_compact(lanes, QUARRY_COMPACT_FULL, 0, us);
		used = cpu() - c;
		t = now() - t;
		sum += t;
		note(&ours, t, used, s, limit);
		clock_alone(&machine, us, limit);
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
	printf("heap thinned %zu times; the host took %lld ms from this machine meanwhile\n", refills + 1, (stolen() - steal) * 10);
	over = told_took("calls", &ours, limit);
	machines = told_took("the clock alone, for two thirds of the budget, in between", &machine, limit);
	promise("calls with more processor time than 1.5 x their budget", (double)over, true, 0, "");
	promise("the same, beyond those of the clock alone", (double)over - (double)machines, true, 0, "");
	promise("calls that waited for others, and so took longer", (double)ours.gave, true, 0, "");
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
	promise("readers' throughput beside the mover", ratio[rounds / 2], false, 0.95, "");
	promise("added to the 99.99th percentile of a read",
		quantile(took[WITH], reads[WITH], 0.9999) - quantile(took[WITHOUT], reads[WITHOUT], 0.9999), true, 50, "us");
	return sum == 0;
}

/* ---- one thread ---- */

#define FEW 1024    /* objects that the first-level cache holds, with their words */
#define CHASED ((size_t)64 << 20)
#define CHASED_SIZE ((size_t)256)
#define GETS_ROUNDS 11

static volatile uint64_t sink;

static double ns_of(uint64_t t, size_t n)
{
	return (double)(now() - t) / (double)n;
}

static double gets_once(void)
{
	const size_t n = 20000000;
	uint64_t t = now(), x = 0;

	for (size_t i = 0; i < n; i += FEW) {
		quarry_enter();
		for (size_t k = 0; k < FEW; k++)
			x += (uintptr_t)quarry_get(lanes, handles[k]);
		quarry_leave();
	}
	sink = x;
	return ns_of(t, n);
}

static double pins_once(void)
{
	const size_t n = 2000000;
	uint64_t t = now();

	for (size_t i = 0; i < n; i++) {
		sink = (uintptr_t)quarry_pin(lanes, handles[i % FEW]);
		quarry_unpin(lanes, handles[i % FEW]);
	}
	return ns_of(t, n);
}

/* Each is freed when 64 others were made. */
static double pairs_once(bool with_malloc)
{
	const size_t n = 2000000;
	static uint64_t ring[64];
	uint64_t t = now();

	for (size_t i = 0; i < n; i++) {
		uint64_t *at = &ring[i % 64];

		if (with_malloc) {
			free((void *)(uintptr_t)*at);
			*at = (uintptr_t)malloc(64);
		} else {
			if (*at != 0)
				quarry_hfree(lanes, *at);
			*at = quarry_halloc(lanes, 64);
		}
	}
	for (size_t i = 0; i < 64; i++) {
		if (with_malloc)
			free((void *)(uintptr_t)ring[i]);
		else
			quarry_hfree(lanes, ring[i]);
		ring[i] = 0;
	}
	return ns_of(t, n);
}

/* From one object to the next, in an order that is no order, by handles and by addresses: both stand in the object. */
struct chased {
	quarry_handle next;
	struct chased *at;
};

static struct chased *chase_make(size_t n, quarry_handle *first)
{
	quarry_handle *h = table(n * sizeof(*h));
	struct chased **p = table(n * sizeof(struct chased *));

	for (size_t i = 0; i < n; i++)
		h[i] = quarry_halloc(lanes, CHASED_SIZE);
	for (size_t i = n - 1; i > 0; i--) {
		size_t k = next(&state) % (i + 1);
		quarry_handle t = h[i];

		h[i] = h[k];
		h[k] = t;
	}
	quarry_enter();
	for (size_t i = 0; i < n; i++)
		if ((p[i] = quarry_get_mut(lanes, h[i])) == NULL)
			exit(1);
	for (size_t i = 0; i < n; i++)
		*p[i] = (struct chased){ h[(i + 1) % n], p[(i + 1) % n] };
	quarry_leave();
	*first = h[0];
	return p[0];
}

static double chase_handles(quarry_handle at, size_t n)
{
	uint64_t t = now();

	quarry_enter();
	for (size_t i = 0; i < n; i++)
		at = ((const struct chased *)quarry_get(lanes, at))->next;
	quarry_leave();
	sink = at;
	return ns_of(t, n);
}

static double chase_addresses(const struct chased *at, size_t n)
{
	uint64_t t = now();

	for (size_t i = 0; i < n; i++)
		at = at->at;
	sink = (uintptr_t)at;
	return ns_of(t, n);
}

static double median(double *x)
{
	qsort(x, GETS_ROUNDS, sizeof(*x), by_double);
	return x[GETS_ROUNDS / 2];
}

static int gets(void)
{
	double get[GETS_ROUNDS], pin[GETS_ROUNDS], pair[GETS_ROUNDS], plain[GETS_ROUNDS], ratio[GETS_ROUNDS], by[GETS_ROUNDS];
	size_t n = CHASED / CHASED_SIZE;
	const struct chased *first;
	quarry_handle h;

	handles = table(FEW * sizeof(*handles));
	lanes = quarry_lanes_create(&(quarry_lanes_attr){ .flags = QUARRY_LANES_NO_MOVER });
	for (size_t i = 0; i < FEW; i++)
		handles[i] = quarry_halloc(lanes, 64);
	first = chase_make(n, &h);
	for (int i = 0; i < GETS_ROUNDS; i++) {
		double addresses;

		get[i] = gets_once();
		pin[i] = pins_once();
		plain[i] = pairs_once(true);
		pair[i] = pairs_once(false) - plain[i];
		addresses = chase_addresses(first, 4 * n);
		by[i] = chase_handles(h, 4 * n);
		ratio[i] = by[i] / addresses;
	}
	printf("medians of %d rounds; malloc and free %.2f ns, a step of the chase by handles %.1f ns\n", GETS_ROUNDS, median(plain),
	       median(by));
	promise("get in a scope, independent", median(get), true, 1.5, "ns");
	promise("chase over 64 MiB of 256 bytes, over addresses", median(ratio), true, 1.35, "");
	promise("pin and unpin", median(pin), true, 18, "ns");
	promise("quarry_halloc and quarry_hfree beyond malloc and free", median(pair), true, 15, "ns");
	return 0;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "pack";
	size_t mib = argc > 2 ? strtoul(argv[2], NULL, 0) : 1024;

	if (strcmp(what, "gets") == 0)
		return gets();
	if (strcmp(what, "pack") == 0)
		return pack(mib);
	if (strcmp(what, "background") == 0)
		return background(mib);
	if (strcmp(what, "readers") == 0)
		return readers(mib, argc > 3 ? strtoul(argv[3], NULL, 0) : 9);
	if (strcmp(what, "budget") == 0)
		return budget(mib, argc > 3 ? strtoul(argv[3], NULL, 0) : 10000, argc > 4 ? strtoul(argv[4], NULL, 0) : 200);
	fprintf(stderr, "usage: lanes gets|pack|background|readers|budget [MIB ...]\n");
	return 2;
}
