/* SPDX-License-Identifier: MIT */
/* Pattern: a large table at random. 8-byte words of a table of 1 GiB (--table N MiB) are read, changed and written at
 * random places; nearly every access misses the caches, and with base pages the TLB too. The table is touched once
 * before. In the same process the same is done on a table that the program mapped by hand, in turns, so that whatever
 * disturbs the machine disturbs both: on hugetlb pages where the pool has them (--hand 1), or on memory advised
 * MADV_HUGEPAGE (--hand 2). The figures are ns per update and the ratio of the two, each by the lower quartile of the
 * turns: what disturbs a turn makes it slower, never faster.
 * --arena N takes the table from a quarry arena of that page kind (2 thp, 3 hugetlb of 2 MiB), where malloc is
 * quarry's; the program then says what it got, by quarry_where.
 * Source: the RandomAccess benchmark (GUPS) of the HPC Challenge, Luszczek and others, 2005. */
#define _GNU_SOURCE
#include "bench.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "include/quarry/quarry.h"
#include "median.h"

#define MIB (1u << 20)
#define HUGE_PAGE (2u * MIB)
#define MAX_TURNS 64

static uint64_t table_mib = 1024, hand, kind, turns = 20;
static const struct bench_extra extra[] = {
	{ "table", &table_mib, "MiB of the table" },
	{ "hand", &hand, "beside it a table by hand: 1 on hugetlb pages, 2 by MADV_HUGEPAGE" },
	{ "arena", &kind, "quarry only: in an arena of this page kind, as enum quarry_page_kind" },
	{ "turns", &turns, "turns that the work is cut in" },
};
static struct bench bench = {
	.name = "update", .op = "one update", .ops = 50000000, .threads = 1, .seed = 1, .work_only = 1,
	.extra = extra, .extras = sizeof(extra) / sizeof(extra[0]),
};

/* What is in quarry's library, when that is the one that is preloaded. */
static void *of_quarry(const char *name)
{
	void *f = dlsym(RTLD_DEFAULT, name);

	if (!f)
		bench_die("--arena: this malloc is not quarry's (no %s)", name);
	return f;
}

static void *from_arena(size_t bytes)
{
	quarry_arena *(*create)(const quarry_arena_attr *);
	void *(*arena_malloc)(quarry_arena *, size_t);
	quarry_arena_attr attr = { .struct_size = sizeof(attr), .page_kind = (int32_t)kind, .name = "update" };
	quarry_arena *arena;

	*(void **)&create = of_quarry("quarry_arena_create");
	*(void **)&arena_malloc = of_quarry("quarry_arena_malloc");
	arena = create(&attr);
	return arena ? arena_malloc(arena, bytes) : NULL;
}

/* Which page kinds the kernel really gave, in percent of the table. */
static void say_got(const void *table, size_t bytes)
{
	static const char *const names[] = { "got.unknown", "got.base", "got.thp", "got.2m", "got.1g" };
	long (*where)(const void *, size_t, quarry_page_info *, size_t);
	size_t room = bytes / 4096 + 2, sum[5] = { 0 };
	quarry_page_info *info = bench_table(room * sizeof(*info));
	long n;

	*(void **)&where = of_quarry("quarry_where");
	n = where(table, bytes, info, room);
	if (n <= 0)
		bench_die("quarry_where does not know the table");
	for (long i = 0; i < n && (size_t)i < room; i++)
		sum[info[i].page_kind < 5 ? info[i].page_kind : 0]++;
	for (int i = 0; i < 5; i++)
		if (sum[i])
			bench_figure(&bench, names[i], 100.0 * (double)sum[i] / (double)n, "%");
	munmap(info, room * sizeof(*info));
}

static void *by_hand(size_t bytes)
{
	uintptr_t p;

	if (hand == 1) {
		void *table = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);

		if (table == MAP_FAILED)
			bench_die("--hand 1: the pool of huge pages has not %zu MiB free", bytes / MIB);
		return table;
	}
	p = ((uintptr_t)bench_table(bytes + HUGE_PAGE) + HUGE_PAGE - 1) & ~(uintptr_t)(HUGE_PAGE - 1);
	madvise((void *)p, bytes, MADV_HUGEPAGE);
	return (void *)p;
}

static double turn(uint64_t *table, uint64_t words, uint64_t updates, uint64_t *random)
{
	double from = bench_now();
	uint64_t state = *random;

	for (uint64_t i = 0; i < updates; i++) {
		uint64_t x = bench_random(&state);
		uint64_t *word = &table[(uint64_t)(((unsigned __int128)x * words) >> 64)];

		*word ^= x;
	}
	*random = state;
	return (bench_now() - from) * 1e9 / (double)updates;
}

static double quartile(double *v, size_t n)
{
	median_sort(v, n);
	return v[n / 4];
}

int main(int argc, char **argv)
{
	double mine[MAX_TURNS], other[MAX_TURNS];
	uint64_t random, *table, *beside = NULL;
	struct bench_memory memory;
	size_t bytes;

	bench_begin(&bench, argc, argv);
	if (turns > MAX_TURNS)
		bench_die("--turns: at most %d", MAX_TURNS);
	random = bench_seed(&bench, 0);
	bytes = table_mib * MIB;
	table = kind ? from_arena(bytes) : malloc(bytes);
	if (!table)
		bench_no_memory(bytes);
	bench_start(&bench);
	memset(table, 1, bytes);
	memory = bench_memory(0);
	bench_stop(&bench);
	bench_report(&bench, bench.ops);
	bench_figure(&bench, "rss", memory.rss, "MiB");
	bench_figure(&bench, "huge", memory.anonymous > 0 ? 100 * memory.huge / memory.anonymous : 0, "%");
	if (kind)
		say_got(table, bytes);
	if (hand) {
		beside = by_hand(bytes);
		memset(beside, 1, bytes);
	}
	for (uint64_t i = 0; i < turns; i++) {
		/* Now the one first, now the other. */
		if (beside && i % 2)
			other[i] = turn(beside, bytes / 8, bench.ops / turns, &random);
		mine[i] = turn(table, bytes / 8, bench.ops / turns, &random);
		if (beside && i % 2 == 0)
			other[i] = turn(beside, bytes / 8, bench.ops / turns, &random);
	}
	bench_figure(&bench, "each", quartile(mine, turns), "ns");
	if (beside) {
		bench_figure(&bench, "hand", quartile(other, turns), "ns");
		bench_figure(&bench, "ratio", quartile(mine, turns) / quartile(other, turns), "x");
	}
	free(table);
	return 0;
}
