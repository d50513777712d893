/* SPDX-License-Identifier: MIT */
/* What a fixed split of memory between the fast lane and the slow one costs, beside a limit that both share.
 *
 * Phases take turns: in one a lot of objects live short and few stay, in the next it is the other way round. So either lane is too
 * small at times, wherever the border is. Told for each split: how long it took, how many objects were refused, how many were to
 * begin in the fast lane and did not, and how many left it for want of room. What no split has is one arena with that limit for both,
 * with the table of handles (2 MiB) and what movers keep in it as well; a split's arena has room for those beside.
 *
 *	split [ROUNDS]
 *
 * (One after the other, in each round; the first figure is a time, the others are counts, the same in each round.) */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "include/quarry/lanes.h"

#define MIB ((size_t)1 << 20)
#define PHASES 6
#define STEPS 100000
#define STAY_MANY 44000
#define STAY_FEW 8000
#define SHORT_MANY 40000
#define SHORT_FEW 4000
#define OLD_EACH 10    /* one step in so many replaces one that stays */
#define TICK_EACH 5000

struct split {
	const char *name;
	size_t fast, slow, limit; /* MiB */
};

static const struct split splits[] = {
	{ "shared, 34 MiB", 0, 0, 34 }, { "shared, 36 MiB", 0, 0, 36 }, { "8 and 24 MiB", 8, 24, 40 },
	{ "16 and 16 MiB", 16, 16, 40 }, { "24 and 8 MiB", 24, 8, 40 },
};

static quarry_handle stays[STAY_MANY], brief[SHORT_MANY];
static uint64_t state, made, refused;

static uint64_t below(uint64_t n)
{
	state = state * 6364136223846793005u + 1442695040888963407u;
	return (state >> 33) % n;
}

static void replace(quarry_lanes *l, quarry_handle *h, uint32_t flags)
{
	const quarry_halloc_attr attr = { .flags = flags };
	size_t size = 200 + below(600);

	if (*h != 0)
		quarry_hfree(l, *h);
	*h = flags == 0 ? quarry_halloc(l, size) : quarry_halloc_with(l, size, &attr);
	made++;
	refused += *h == 0;
}

static void leave(quarry_lanes *l, quarry_handle *h, size_t from, size_t to)
{
	for (; from < to; from++) {
		if (h[from] != 0)
			quarry_hfree(l, h[from]);
		h[from] = 0;
	}
}

static void run_phase(quarry_lanes *l, size_t staying, size_t short_lived)
{
	leave(l, stays, staying, STAY_MANY);
	leave(l, brief, short_lived, SHORT_MANY);
	for (int n = 0; n < STEPS; n++) {
		replace(l, &brief[below(short_lived)], 0);
		if (n % OLD_EACH == 0)
			replace(l, &stays[below(staying)], QUARRY_HALLOC_OLD);
		if (n % TICK_EACH == 0)
			quarry_lanes_tick(l);
	}
	for (size_t i = 0; i < staying; i++)
		if (stays[i] == 0)
			replace(l, &stays[i], QUARRY_HALLOC_OLD);
}

static void run(const struct split *s)
{
	const quarry_arena_attr memory = { .hard_limit = s->limit * MIB };
	const quarry_lanes_attr attr = { .flags = QUARRY_LANES_NO_MOVER, .memory = &memory, .handles = 1 << 18, .threshold = 1024,
					 .max_fast_age_ticks = 4, .fast_lane_size = s->fast * MIB, .slow_lane_size = s->slow * MIB,
					 .slow_lane_safety_margin = 1 };
	quarry_lanes *l = quarry_lanes_create(&attr);
	quarry_fast_stats f = { 0 };
	struct timespec begun, ended;

	if (l == NULL) {
		fprintf(stderr, "split: %s\n", quarry_error_text());
		exit(1);
	}
	state = 1;
	made = refused = 0;
	memset(stays, 0, sizeof(stays));
	memset(brief, 0, sizeof(brief));
	clock_gettime(CLOCK_MONOTONIC, &begun);
	for (int i = 0; i < PHASES; i++)
		run_phase(l, i % 2 ? STAY_MANY : STAY_FEW, i % 2 ? SHORT_FEW : SHORT_MANY);
	clock_gettime(CLOCK_MONOTONIC, &ended);
	quarry_fast_stats_get(l, &f);
	printf("%-15s %6.2f s, %6.2f %% of %llu refused, %llu spilled, %llu promoted for want of room\n", s->name,
	       (double)(ended.tv_sec - begun.tv_sec) + (double)(ended.tv_nsec - begun.tv_nsec) / 1e9, 100.0 * (double)refused / (double)made,
	       (unsigned long long)made, (unsigned long long)f.spilled,
	       (unsigned long long)(f.promoted[QUARRY_PROMOTED_FAILURE] + f.promoted[QUARRY_PROMOTED_USAGE]));
	(void)fflush(stdout);
	quarry_lanes_destroy(l);
}

int main(int argc, char **argv)
{
	for (int rounds = argc > 1 ? atoi(argv[1]) : 1; rounds > 0; rounds--)
		for (size_t i = 0; i < sizeof(splits) / sizeof(*splits); i++)
			run(&splits[i]);
	return 0;
}
