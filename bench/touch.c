/* SPDX-License-Identifier: MIT */
/* Pattern: a program of page faults. Blocks of 4 to 64 MiB are allocated, each page of them is touched in order, and
 * freed; up to 64 are live, so that most of the memory is new. Each first touch of a 4 KiB page is timed by itself:
 * where the page is in memory it costs some nanoseconds, a base page faulted in about a microsecond, a huge page the
 * zeroing of 2 MiB, once in 512 touches. So that this can be told from a stall (the kernel compacting memory because it
 * was asked for a huge page), the program also maps a huge page by itself after each block, and times its first touch
 * (zero.*). malloc and free are timed, too.
 * Source: of this project; the question is that of Panwar, Bansal, Gopinath, HawkEye, ASPLOS 2019. */
#include "bench.h"
#include "latency.h"

#include <sys/mman.h>

#define MIB (1u << 20)
#define PAGE 4096
#define HUGE_PAGE ((size_t)2 * MIB)

static uint64_t least = 4, most = 64, slots = 64;
static const struct bench_extra extra[] = {
	{ "least", &least, "MiB of the smallest block" },
	{ "most", &most, "MiB of the largest block" },
	{ "slots", &slots, "blocks that are live at a time, at most" },
};
static struct bench bench = {
	.name = "touch", .op = "one MiB of blocks", .ops = 3072, .threads = 1, .seed = 1, .work_only = 1,
	.extra = extra, .extras = sizeof(extra) / sizeof(extra[0]),
};

/* The machine's own price of a huge page, at this moment. The pages are kept, so that each is another. */
static void time_huge_page(struct latency *l)
{
	volatile char *p = bench_table(2 * HUGE_PAGE);
	uint64_t from;

	p = (volatile char *)(((uintptr_t)p + HUGE_PAGE - 1) & ~(uintptr_t)(HUGE_PAGE - 1));
	madvise((void *)(uintptr_t)p, HUGE_PAGE, MADV_HUGEPAGE);
	from = latency_ticks();
	*p = 1;
	latency_add(l, latency_ticks() - from);
}

static void touch(volatile unsigned char *p, size_t bytes, struct latency *l)
{
	for (size_t at = 0; at < bytes; at += PAGE) {
		uint64_t from = latency_ticks();

		p[at] = 1;
		latency_add(l, latency_ticks() - from);
	}
}

int main(int argc, char **argv)
{
	struct latency *pages, *calls, *zero;
	unsigned char **slot;
	uint64_t random, done = 0, made = 0;

	bench_begin(&bench, argc, argv);
	if (most < least)
		bench_die("--most is less than --least");
	latency_begin();
	slot = bench_table(slots * sizeof(*slot));
	pages = latency_new();
	calls = latency_new();
	zero = latency_new();
	random = bench_seed(&bench, 0);
	bench_start(&bench);
	while (done < bench.ops) {
		uint64_t mib = least + bench_below(&random, (uint32_t)(most - least + 1));
		unsigned char **s = &slot[made < slots ? made : bench_below(&random, (uint32_t)slots)];
		uint64_t from = latency_ticks();

		if (mib > bench.ops - done)
			mib = bench.ops - done;
		free(*s);
		*s = malloc(mib * MIB);
		latency_add(calls, latency_ticks() - from);
		if (!*s)
			bench_no_memory(mib * MIB);
		touch(*s, mib * MIB, pages);
		time_huge_page(zero);
		done += mib;
		made++;
	}
	for (uint64_t i = 0; i < slots; i++)
		free(slot[i]);
	bench_stop(&bench);
	bench_report(&bench, done);
	latency_report(&bench, "page", pages);
	latency_report(&bench, "call", calls);
	latency_report(&bench, "zero", zero);
	return 0;
}
