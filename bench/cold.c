/* SPDX-License-Identifier: MIT */
/* What cold memory saves, and what it costs: rows of JSON behind handles, some of which are asked for far more often than others
 * (Zipf, exponent 0.99, by the method of J. Gray et al., Quickly generating billion-record synthetic databases, 1994).
 * Two lanes have the same rows, and the second ones compress what nobody looks at: a thread calls quarry_cool and quarry_compact
 * for them all the time but when it is the others' turn. They take turns of a second; a reader reads each row that it gets.
 * Printed each time: resident memory of both (arenas, as the kernel has them), and the ratio of their rates; at the end the
 * medians of the second half of the turns, by when what is cold is known.
 *
 *	cold [MIB [TURNS [PERIOD_MS [CODEC]]]] (512 MiB, 40 turns, 5000 ms, lz4) */
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "include/quarry/lanes.h"
#include "median.h"

#define TURNS_MAX 1000
#define EXPONENT 0.99
#define BATCH 256

static struct side {
	quarry_arena *arena;
	quarry_lanes *lanes;
	quarry_handle *row;
	double rate[TURNS_MAX];
	uint64_t resident;
} side[2];

static uint64_t rows, state = 88172645463325252u;
static double zeta, alpha, eta;
static _Atomic(bool) over, cooling;

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static uint64_t next_random(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	return state ^= state << 17;
}

static void zipf_prepare(void)
{
	double zeta2 = 1 + pow(0.5, EXPONENT);

	for (uint64_t i = 1; i <= rows; i++)
		zeta += 1 / pow((double)i, EXPONENT);
	alpha = 1 / (1 - EXPONENT);
	eta = (1 - pow(2.0 / (double)rows, 1 - EXPONENT)) / (1 - zeta2 / zeta);
}

/* A row; which are asked for often is scattered over all of them. */
static uint64_t zipf(void)
{
	double u = (double)(next_random() >> 11) * 0x1p-53, uz = u * zeta;
	uint64_t rank = uz < 1 ? 0 : uz < 1 + pow(0.5, EXPONENT) ? 1 : (uint64_t)((double)rows * pow(eta * u - eta + 1, alpha));

	return rank % rows * 0x9e3779b97f4a7c15u % rows;
}

static size_t make_row(char *to, size_t room, uint64_t i)
{
	static const char *const towns[] = { "Aarhus", "Bergamo", "Coimbra", "Dundee", "Eindhoven", "Freiburg", "Graz", "Haarlem" };
	uint64_t x = i * 0xbf58476d1ce4e5b9u ^ i >> 7;

	return (size_t)snprintf(to, room,
				"{\"id\":%llu,\"name\":\"customer %llx\",\"mail\":\"%llx@example.org\",\"town\":\"%s\","
				"\"street\":\"%llu Main Street\",\"balance\":%llu.%02llu,\"orders\":[%llu,%llu,%llu],"
				"\"active\":%s,\"note\":\"%.*s\"}",
				(unsigned long long)i, (unsigned long long)(x & 0xffffff), (unsigned long long)(x >> 20 & 0xffffffff),
				towns[x >> 5 & 7], (unsigned long long)(x >> 9 & 511), (unsigned long long)(x >> 13 & 0xffff),
				(unsigned long long)(x >> 3 & 63), (unsigned long long)(x & 0xfffff), (unsigned long long)(x >> 11 & 0xfffff),
				(unsigned long long)(x >> 30 & 0xfffff), x & 1 ? "true" : "false", (int)(x >> 17 & 127),
				"called on Monday about the delivery, which was late; wants to be told by mail when the next one "
				"leaves; was offered a discount");
}

static void fill(struct side *s, const quarry_cold_attr *cold)
{
	quarry_lanes_attr attr = { .handles = rows + 1, .cold = cold };
	char text[1024];

	s->arena = attr.arena = quarry_arena_create(NULL);
	s->lanes = quarry_lanes_create(&attr);
	s->row = malloc(rows * sizeof(*s->row));
	if (s->lanes == NULL || s->row == NULL) {
		fprintf(stderr, "cold: %s\n", quarry_error_text());
		exit(1);
	}
	for (uint64_t i = 0; i < rows; i++) {
		size_t size = make_row(text, sizeof(text), i) + 1;
		void *p;

		s->row[i] = quarry_halloc(s->lanes, size);
		quarry_enter();
		p = quarry_get_mut(s->lanes, s->row[i]);
		if (p == NULL) {
			fprintf(stderr, "cold: no memory\n");
			exit(1);
		}
		memcpy(p, text, size);
		quarry_leave();
	}
}

static double read_rows(struct side *s, double seconds)
{
	double began = now(), took;
	uint64_t done = 0, sum = 0;

	do {
		for (int i = 0; i < BATCH; i++) {
			uint64_t row = zipf(), id;
			const char *p;

			quarry_enter();
			p = quarry_get(s->lanes, s->row[row]);
			if (p == NULL || sscanf(p + 6, "%20lu", &id) != 1 || id != row) {
				fprintf(stderr, "cold: row %llu is not itself\n", (unsigned long long)row);
				exit(1);
			}
			for (; *p != 0; p++)
				sum += (unsigned char)*p;
			quarry_leave();
		}
		done += BATCH;
		took = now() - began;
	} while (took < seconds);
	__asm__ volatile("" : : "r"(sum));
	return (double)done / took;
}

static void *cool(void *unused)
{
	static const struct timespec tick = { 0, 2000000 };

	while (!atomic_load(&over)) {
		if (atomic_load(&cooling)) {
			(void)quarry_cool(side[1].lanes, 5000);
			(void)quarry_compact(side[1].lanes, QUARRY_COMPACT_FULL, 0, 5000);
		}
		nanosleep(&tick, NULL);
	}
	return unused;
}

static uint64_t resident(const struct side *s)
{
	quarry_stats stats = { .version = QUARRY_STATS_VERSION };

	return quarry_stats_get(s->arena, &stats) == 0 ? stats.resident : 0;
}

int main(int argc, char **argv)
{
	uint64_t mib = argc > 1 ? strtoull(argv[1], NULL, 10) : 512;
	int turns = argc > 2 ? atoi(argv[2]) : 40;
	quarry_cold_attr cold = { .period_ms = argc > 3 ? (uint32_t)atoi(argv[3]) : 5000, .codec = argc > 4 ? argv[4] : "lz4" };
	double ratio[TURNS_MAX];
	quarry_cold_stats away = { 0 };
	pthread_t thread;

	if (mib == 0 || turns < 2 || turns > TURNS_MAX) {
		fprintf(stderr, "usage: cold [MIB [TURNS [PERIOD_MS [CODEC]]]]\n");
		return 2;
	}
	rows = (mib << 20) / 300;
	zipf_prepare();
	fill(&side[0], NULL);
	fill(&side[1], &cold);
	if (pthread_create(&thread, NULL, cool, NULL) != 0)
		return 1;
	for (int t = 0; t < turns; t++) {
		for (int k = 0; k < 2; k++) {
			int which = (t + k) % 2;

			atomic_store(&cooling, which == 1);
			side[which].rate[t] = read_rows(&side[which], 1.0);
		}
		ratio[t] = side[1].rate[t] / side[0].rate[t];
		side[0].resident = resident(&side[0]);
		side[1].resident = resident(&side[1]);
		(void)quarry_cold_stats_get(side[1].lanes, &away);
		printf("turn %3d: %7.1f MiB as it is, %7.1f with cold memory (%2.0f %% less); %.2f M/s, %.3f times as many; "
		       "%llu cold, %llu came back, a period of %llu ms\n",
		       t, (double)side[0].resident / 1048576, (double)side[1].resident / 1048576,
		       100 - 100.0 * (double)side[1].resident / (double)side[0].resident, side[0].rate[t] / 1e6, ratio[t],
		       (unsigned long long)away.objects, (unsigned long long)away.loaded, (unsigned long long)away.period_ms);
		fflush(stdout);
	}
	atomic_store(&over, true);
	pthread_join(thread, NULL);
	printf("cold: %s, %llu rows, %.1f MiB: %.1f %% of resident memory saved, %.3f times the rate without; %.2f times "
	       "smaller\n",
	       cold.codec, (unsigned long long)rows, (double)side[0].resident / 1048576,
	       100 - 100.0 * (double)side[1].resident / (double)side[0].resident, median(ratio + turns / 2, turns - turns / 2),
	       (double)away.bytes / (double)(away.compressed == 0 ? 1 : away.compressed));
	return 0;
}
