/* SPDX-License-Identifier: MIT */
/* See latency.h. */
#include "latency.h"

#include <stdio.h>

#define CALIBRATION 0.02 /* s */
#define ROWS 50
#define READINGS 1000

uint64_t latency_cost, latency_step;

static double ns_per_tick = 1;

/* The readings of a row, by their number: their differences add up, however coarse the steps are in which the counter
 * moves. The fastest row was not interrupted. The step is what divides all differences. */
static void find_cost(void)
{
	uint64_t first, ticks;

	latency_step = 0;
	for (int i = 0; i < READINGS; i++) {
		first = latency_ticks();
		ticks = latency_ticks() - first;
		while (ticks) {
			uint64_t rest = latency_step % ticks;

			latency_step = ticks;
			ticks = rest;
		}
	}
	latency_cost = UINT64_MAX;
	for (int row = 0; row < ROWS; row++) {
		first = latency_ticks();
		for (int i = 1; i < READINGS; i++)
			latency_ticks();
		ticks = (latency_ticks() - first) / READINGS;
		if (ticks < latency_cost)
			latency_cost = ticks;
	}
}

void latency_begin(void)
{
	double from, to;
	uint64_t first, last;

	from = bench_now();
	first = latency_ticks();
	do {
		to = bench_now();
		last = latency_ticks();
	} while (to < from + CALIBRATION);
	ns_per_tick = (to - from) * 1e9 / (double)(last - first);
	find_cost();
}

double latency_ns(uint64_t ticks)
{
	return (double)ticks * ns_per_tick;
}

double latency_quantile(const struct latency *l, double share)
{
	uint64_t below = 0, wanted = (uint64_t)((double)l->count * share);
	uint64_t ticks;

	if (l->count == 0)
		return 0;
	for (unsigned i = 0; i < LATENCY_BUCKETS; i++) {
		below += l->bucket[i];
		if (below <= wanted && below < l->count)
			continue;
		/* The upper end of the bucket. */
		ticks = i < 1u << LATENCY_SUB ? i :
			((uint64_t)(1u << LATENCY_SUB) + (i & ((1u << LATENCY_SUB) - 1)) + 1) << ((i >> LATENCY_SUB) - 1);
		return latency_ns(ticks < l->most ? ticks : l->most);
	}
	return latency_ns(l->most);
}

struct latency *latency_new(void)
{
	struct latency *l = bench_table(sizeof(*l));

	memset(l, 0, sizeof(*l));
	return l;
}

void latency_merge(struct latency *into, const struct latency *from)
{
	into->count += from->count;
	if (from->most > into->most)
		into->most = from->most;
	for (unsigned i = 0; i < LATENCY_BUCKETS; i++)
		into->bucket[i] += from->bucket[i];
}

void latency_report(const struct bench *b, const char *name, const struct latency *l)
{
	static const struct { const char *name; double share; } figures[] = {
		{ "p50", 0.5 }, { "p90", 0.9 }, { "p99", 0.99 }, { "p999", 0.999 }, { "p9999", 0.9999 },
		{ "p99999", 0.99999 }, { "max", 1 },
	};
	char what[48];

	for (size_t i = 0; i < sizeof(figures) / sizeof(figures[0]); i++) {
		snprintf(what, sizeof(what), "%s.%s", name, figures[i].name);
		bench_figure(b, what, latency_quantile(l, figures[i].share), "ns");
	}
}
