/* SPDX-License-Identifier: MIT */
/* What the machine allows, whatever the allocator: a fault on a page of each size with its zeroing, memset of what is
 * there, a load from memory that nothing has fetched before, a cache line to another processor and back, a system call.
 * No malloc is in it. Each is measured in every look, and the best look counts: what is wanted is the machine, not what
 * else it did. What cannot be had (no huge pages, one processor) is not printed.
 * Source: the latencies of lmbench (McVoy, Staelin, USENIX 1996). */
#define _GNU_SOURCE
#include "bench.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define REGION ((size_t)256 << 20) /* more than a processor's caches hold */
#define LINE 64
#define LINES (REGION / LINE)
#define HOPS 1000000
#define ROUND_TRIPS 200000
#define CALLS 500000

enum { FAULT_BASE, FAULT_HUGE, MEMSET, MISS_BASE, MISS_HUGE, THERE_AND_BACK, CALL, FIGURES };

static struct bench bench = {
	.name = "limits", .op = "one look at everything", .ops = 3, .threads = 1, .seed = 1, .work_only = 1,
};
static struct {
	const char *name, *unit;
	double best;
	int more; /* is better */
} figures[FIGURES] = {
	[FAULT_BASE] = { "fault.base", "us", 0, 0 }, [FAULT_HUGE] = { "fault.huge", "us", 0, 0 },
	[MEMSET] = { "memset", "GB/s", 0, 1 },	     [MISS_BASE] = { "miss.base", "ns", 0, 0 },
	[MISS_HUGE] = { "miss.huge", "ns", 0, 0 },   [THERE_AND_BACK] = { "line", "ns", 0, 0 },
	[CALL] = { "call", "ns", 0, 0 },
};
static size_t base_page, huge_page;
static uint32_t *order; /* of lines, no two neighbours together */
static _Atomic uint32_t ball __attribute__((aligned(128)));
static char *volatile end_of_chase; /* so that it is not left out */

static void look(int which, double value)
{
	double best = figures[which].best;

	if (best == 0 || (figures[which].more ? value > best : value < best))
		figures[which].best = value;
}

/* Touches each page of this size; the seconds a page. */
static double touch(volatile char *p, size_t page)
{
	double from = bench_now();

	for (size_t at = 0; at < REGION; at += page)
		p[at] = 1;
	return (bench_now() - from) / (double)(REGION / page);
}

/* Each line leads to the next of the order, in a ring: no load can start before the last one is there. */
static double chase(char *region)
{
	char *p = region + (size_t)LINE * order[0];
	double from;

	for (size_t i = 0; i < LINES; i++)
		*(char **)(region + (size_t)LINE * order[i]) = region + (size_t)LINE * order[(i + 1) % LINES];
	from = bench_now();
	for (int i = 0; i < HOPS; i++)
		p = *(char **)p;
	end_of_chase = p;
	return (bench_now() - from) / HOPS;
}

static void look_at_base_pages(void)
{
	char *p = bench_table(REGION);

	madvise(p, REGION, MADV_NOHUGEPAGE);
	look(FAULT_BASE, touch(p, base_page) * 1e6);
	look(MISS_BASE, chase(p) * 1e9);
	munmap(p, REGION);
}

static void look_at_huge_pages(void)
{
	char *all = bench_table(REGION + huge_page), *p = all;
	double before = bench_memory(0).huge, took, from;

	p += -(uintptr_t)p & (huge_page - 1);
	madvise(p, REGION, MADV_HUGEPAGE);
	took = touch(p, huge_page);
	/* The kernel may have had none: what was touched was a base page then, and the rest was not. */
	if (bench_memory(0).huge - before > 0.9 * (double)(REGION >> 20)) {
		look(FAULT_HUGE, took * 1e6);
		from = bench_now();
		memset(p, 1, REGION);
		look(MEMSET, (double)REGION / (bench_now() - from) / 1e9);
		look(MISS_HUGE, chase(p) * 1e9);
	} else {
		memset(p, 1, REGION);
		from = bench_now();
		memset(p, 2, REGION);
		look(MEMSET, (double)REGION / (bench_now() - from) / 1e9);
	}
	munmap(all, REGION + huge_page);
}

/* Two threads, one for the odd numbers, one for the even ones. */
static void *play(void *argument)
{
	uint32_t mine = *(uint32_t *)argument;

	for (; mine < 2 * ROUND_TRIPS; mine += 2) {
		while (atomic_load_explicit(&ball, memory_order_acquire) != mine)
			;
		atomic_store_explicit(&ball, mine + 1, memory_order_release);
	}
	return NULL;
}

static void look_at_a_line(void)
{
	uint32_t first[2] = { 0, 1 };
	cpu_set_t allowed;
	double from;

	/* On one processor each would wait for the other's time to be over. */
	if (sched_getaffinity(0, sizeof(allowed), &allowed) == 0 && CPU_COUNT(&allowed) < 2)
		return;
	atomic_store(&ball, 0);
	from = bench_now();
	bench_threads(2, play, first, sizeof(first[0]));
	look(THERE_AND_BACK, (bench_now() - from) / ROUND_TRIPS * 1e9);
}

static void look_at_a_call(void)
{
	double from = bench_now();

	for (int i = 0; i < CALLS; i++)
		syscall(SYS_getppid);
	look(CALL, (bench_now() - from) / CALLS * 1e9);
}

/* What a virtual machine has not used for a while its host may have taken away; finding it again is not the page's
 * price. */
static void warm(void)
{
	char *p = bench_table(2 * REGION);

	madvise(p, 2 * REGION, MADV_HUGEPAGE);
	for (size_t at = 0; at < 2 * REGION; at += base_page)
		p[at] = 1;
	munmap(p, 2 * REGION);
}

int main(int argc, char **argv)
{
	const char *told;
	uint64_t random;

	bench_begin(&bench, argc, argv);
	base_page = (size_t)sysconf(_SC_PAGESIZE);
	told = bench_read_text("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size");
	huge_page = told ? strtoul(told, NULL, 10) : 0;
	if (huge_page < base_page || huge_page > REGION)
		huge_page = 2 << 20;
	order = bench_table(LINES * sizeof(*order));
	for (size_t i = 0; i < LINES; i++)
		order[i] = (uint32_t)i;
	random = bench_seed(&bench, 0);
	bench_shuffle(&random, order, LINES);
	bench_start(&bench);
	for (uint64_t i = 0; i < bench.ops; i++) {
		warm();
		look_at_base_pages();
		look_at_huge_pages();
		look_at_a_line();
		look_at_a_call();
	}
	bench_stop(&bench);
	for (int i = 0; i < FIGURES; i++)
		if (figures[i].best > 0)
			bench_figure(&bench, figures[i].name, figures[i].best, figures[i].unit);
	bench_report(&bench, bench.ops);
	return 0;
}
