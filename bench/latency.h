/* SPDX-License-Identifier: MIT */
/* Single short things timed, and how long they took: a clock of a few nanoseconds, and a histogram whose buckets are
 * 1/32 of a power of two wide, in memory of its own. One thread writes a histogram. */
#ifndef QUARRY_BENCH_LATENCY_H
#define QUARRY_BENCH_LATENCY_H

#include <stdint.h>
#include <time.h>

#include "bench.h"

#define LATENCY_SUB 5 /* a power of two is cut in 32 */
#define LATENCY_BUCKETS ((64 - LATENCY_SUB + 1) << LATENCY_SUB)

struct latency {
	uint64_t count, most; /* ticks */
	uint64_t bucket[LATENCY_BUCKETS];
};

/* A reading of the clock, in ticks of its own. On x86 the counter of the processor, which does not stop or change its
 * rate on those of the last fifteen years, fenced so that what is timed lies between two readings. */
static inline uint64_t latency_ticks(void)
{
#if defined(__x86_64__)
	uint64_t t;

	__builtin_ia32_lfence();
	t = __builtin_ia32_rdtsc();
	__builtin_ia32_lfence();
	return t;
#else
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
#endif
}

static inline unsigned latency_index(uint64_t ticks)
{
	unsigned high;

	if (ticks < 1u << LATENCY_SUB)
		return (unsigned)ticks;
	high = 63 - (unsigned)__builtin_clzll(ticks);
	return ((high - LATENCY_SUB + 1) << LATENCY_SUB) + (unsigned)(ticks >> (high - LATENCY_SUB) & ((1u << LATENCY_SUB) - 1));
}

static inline void latency_add(struct latency *l, uint64_t ticks)
{
	l->bucket[latency_index(ticks)]++;
	l->count++;
	if (ticks > l->most)
		l->most = ticks;
}

/* What two readings with nothing between them differ by on average, and the steps in which the clock moves: on some
 * processors 10 ns, and nothing shorter can be told apart. In ticks. */
extern uint64_t latency_cost, latency_step;

/* A time between two readings without what the readings themselves cost. */
static inline uint64_t latency_net(uint64_t ticks)
{
	return ticks > latency_cost ? ticks - latency_cost : 0;
}

/* Measures how long a tick is, and the two above; takes some milliseconds. Call it before the others below. */
void latency_begin(void);
double latency_ns(uint64_t ticks);
/* The time that this share (0 to 1) of all took at most, in ns; 0 when there are none. */
double latency_quantile(const struct latency *l, double share);
/* A histogram that is empty, all of it in memory already. */
struct latency *latency_new(void);
/* Adds all of one histogram to another; its writer must have ended. */
void latency_merge(struct latency *into, const struct latency *from);
/* Prints p50, p90, p99, p999, p9999, p99999 and max as figures "name.what". */
void latency_report(const struct bench *b, const char *name, const struct latency *l);

#endif
