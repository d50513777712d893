/* SPDX-License-Identifier: MIT */
/* Stress: realloc. Blocks grow and shrink over every border there is (of size classes, found by asking; of pages;
 * of 2 MiB) up to 64 MiB, in place where the neighbour is free and moving where it is not; the content is verified
 * after each step. The pattern depends on the id alone here, so that what was kept need not be written again.
 *
 * At the end, alone and on base pages: blocks that double, and that grow by turns. Of those it is counted how many
 * pages a realloc faults in (as many as the block has, where it copies) and how often they move. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <sys/mman.h>
#include <sys/resource.h>

#include "tests/stress/stress.h"

#define BORDERS_MAX 1024
#define TOP (64 * ST_MIB)
#define HUGE (2 * ST_MIB)

static size_t border[BORDERS_MAX];
static unsigned borders, small_borders; /* the first small_borders are up to 64 KiB */

static void add_border(size_t size)
{
	if (borders < BORDERS_MAX && (borders == 0 || border[borders - 1] < size))
		border[borders++] = size;
}

/* Sizes after which the usable size jumps, up to 1 MiB; then pages and huge pages. */
static void find_borders(void)
{
	size_t size = 1;

	while (size < ST_MIB && borders < 300) {
		void *p = quarry_malloc(size);
		ST_CHECK(p != NULL);
		size = st_usable(p, size);
		quarry_free(p);
		add_border(size);
		if (size <= 64 * ST_KIB)
			small_borders = borders;
		size++;
	}
	for (size = ST_MIB; size <= HUGE; size += 64 * ST_KIB)
		add_border(size);
	for (size = HUGE; size <= TOP; size += HUGE)
		add_border(size);
	ST_CHECK(small_borders > 8);
}

struct grown {
	unsigned char *p;
	size_t size;
	uint64_t id;
};

static void step(struct grown *g, size_t size)
{
	uint64_t key = st_key(g->id, 0);
	size_t kept = g->size < size ? g->size : size;
	unsigned char *p = quarry_realloc(g->p, size);

	if (p == NULL)
		st_fail("realloc from %zu to %zu bytes (errno %d)", g->size, size, errno);
	st_usable(p, size);
	st_verify(p, 0, kept, key, g->id, g->size);
	st_fill(p, kept, size, key);
	g->p = p;
	g->size = size;
}

static void finish(struct grown *g)
{
	st_verify(g->p, 0, g->size, st_key(g->id, 0), g->id, g->size);
	quarry_free(g->p);
	*g = (struct grown){ 0 };
}

/* One byte below, at and above a border. */
static size_t near(struct st_rng *rng, unsigned upto)
{
	size_t size = border[st_below(rng, upto)] + st_below(rng, 3) - 1;

	return size == 0 ? 1 : size;
}

/* Every border upwards, then downwards; with rivals allocated between, so that growing in place is blocked. */
static void climb(struct st_worker *w, unsigned upto, bool blocked)
{
	struct grown g = { .id = w->next_id++ };
	void *rival[2] = { NULL, NULL };

	for (unsigned i = 0; i < 2 * upto; i++) {
		unsigned at = i < upto ? i : 2 * upto - 1 - i;
		step(&g, border[at]);
		step(&g, border[at] + 1);
		if (border[at] > 1)
			step(&g, border[at] - 1);
		if (!blocked)
			continue;
		/* Zeroed: it may get what the block left when it moved, and that must not be taken for fresh. */
		quarry_free(rival[i % 2]);
		rival[i % 2] = quarry_calloc(1, border[at]);
		ST_CHECK(rival[i % 2] != NULL);
		st_verify_zero(rival[i % 2], border[at]);
		memset(rival[i % 2], 0xee, border[at]);
	}
	quarry_free(rival[0]);
	quarry_free(rival[1]);
	finish(&g);
}

/* A vector that doubles, or grows by half, to the top, and is trimmed at the end. */
static void vector(struct st_worker *w, size_t top)
{
	struct grown g = { .id = w->next_id++ };
	bool half = st_next(&w->rng) & 1;

	for (size_t size = 1 + st_below(&w->rng, 64); size < top; size = half ? size + size / 2 + 1 : size * 2)
		step(&g, size);
	step(&g, g.size / 2 + 1);
	finish(&g);
}

/* Many vectors that grow side by side, in each other's way, and free each other's neighbours. */
static void crowd(struct st_worker *w, unsigned upto, unsigned rounds)
{
	enum { CROWD = 64 };
	struct grown g[CROWD];

	for (unsigned i = 0; i < CROWD; i++)
		g[i] = (struct grown){ .id = w->next_id++ };
	for (unsigned i = 0; i < rounds; i++) {
		struct grown *one = &g[st_below(&w->rng, CROWD)];
		if (one->p != NULL && st_below(&w->rng, 8) == 0) {
			finish(one);
			one->id = w->next_id++;
		} else {
			step(one, near(&w->rng, upto));
		}
	}
	for (unsigned i = 0; i < CROWD; i++) {
		if (g[i].p != NULL)
			finish(&g[i]);
	}
}

/* realloc of what has an alignment of its own, and of what another thread's death left behind, is crowd's and
 * mixed's; here: a block that was asked for with a large alignment keeps its content when it moves. */
static void aligned_first(struct st_worker *w)
{
	struct grown g = { .id = w->next_id++ };
	size_t align = (size_t)16 << st_below(&w->rng, 18);

	g.size = near(&w->rng, small_borders);
	g.p = quarry_aligned_alloc(align, g.size);
	ST_CHECK(g.p != NULL && ((uintptr_t)g.p & (align - 1)) == 0);
	st_fill(g.p, 0, g.size, st_key(g.id, 0));
	for (unsigned i = 0; i < 8; i++)
		step(&g, near(&w->rng, small_borders));
	finish(&g);
}

static void work(struct st_worker *w)
{
	unsigned up_to_mib = 0, up_to_8 = 0;

	for (unsigned i = 0; i < borders; i++) {
		up_to_mib += border[i] <= ST_MIB;
		up_to_8 += border[i] <= 8 * ST_MIB;
	}
	while (st_more(w)) {
		unsigned what = (unsigned)st_below(&w->rng, 64);
		if (what < 20)
			crowd(w, small_borders, 4000);
		else if (what < 26)
			crowd(w, up_to_mib, 1000);
		else if (what < 28)
			crowd(w, up_to_8, 100);
		else if (what < 34)
			climb(w, small_borders, what & 1);
		else if (what < 36)
			climb(w, up_to_mib, what & 1);
		else if (what < 50)
			vector(w, (size_t)1 << (10 + st_below(&w->rng, 14)));
		else
			aligned_first(w);
	}
	/* To the very top, once for each thread, blocked and not; not every step of it under a sanitizer. */
	vector(w, TOP);
	if (w->number < 2)
		climb(w, ST_ASAN || ST_TSAN ? up_to_8 : borders, w->number == 1);
}

/* ---- what a step costs ---- */

#define GROWN_TO ((size_t)(ST_ASAN || ST_TSAN ? 64 : 256) * ST_MIB)

static long faults(void)
{
	struct rusage usage;

	ST_CHECK(getrusage(RUSAGE_THREAD, &usage) == 0);
	return usage.ru_minflt;
}

/* Whether page tables can be moved and leave their place mapped (Linux 5.7). */
static bool kernel_moves(void)
{
	void *p = mmap(NULL, ST_MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	void *to = mremap(p, ST_MIB, ST_MIB, MREMAP_MAYMOVE | 4 /* MREMAP_DONTUNMAP */, NULL);
	bool moves = to != MAP_FAILED;

	munmap(p, ST_MIB);
	if (moves)
		munmap(to, ST_MIB);
	return moves;
}

/* A region that may be larger than what is in it: not where address space is counted. */
static bool space_is_free(void)
{
	FILE *f = fopen("/proc/sys/vm/overcommit_memory", "r");
	int how = f == NULL ? '0' : fgetc(f);
	struct rlimit limit;

	if (f != NULL)
		fclose(f);
	return how != '2' && getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur == RLIM_INFINITY;
}

static unsigned grow_quickly(struct grown *g, size_t size)
{
	uint64_t key = st_key(g->id, 0);
	unsigned char *was = g->p;
	long before = faults(), more;

	g->p = quarry_realloc(g->p, size);
	more = faults() - before;
	if (g->p == NULL)
		st_fail("realloc from %zu to %zu bytes (errno %d)", g->size, size, errno);
	/* Records of the blocks are touched as well, and what is smaller than 4 MiB may be copied. */
	if (g->size >= 4 * ST_MIB && (size_t)more * 4096 > g->size / 4)
		st_fail("realloc from %zu to %zu MiB faulted %ld times: it was copied", g->size / ST_MIB, size / ST_MIB,
			more);
	st_fill(g->p, g->size, size, key);
	g->size = size;
	return g->p != was;
}

static void grow_alone(void)
{
	struct grown g[2] = { { .id = 1 }, { .id = 2 } };
	unsigned moves = 0;

	if (!kernel_moves()) {
		printf("reallocs: SKIPPED what a step costs: the kernel moves no page tables\n");
		return;
	}
	ST_CHECK(quarry_mallopt(QUARRY_OPT_PAGES, QUARRY_PAGES_BASE) == 1);
	for (size_t size = ST_MIB; size <= GROWN_TO; size *= 2)
		for (unsigned i = 0; i < 2; i++)
			grow_quickly(&g[i], size);
	finish(&g[0]);
	finish(&g[1]);
	g[0].id = 3;
	g[1].id = 4;
	for (size_t size = 4 * ST_MIB; size <= GROWN_TO / 2; size += ST_MIB)
		for (unsigned i = 0; i < 2; i++)
			moves += grow_quickly(&g[i], size);
	finish(&g[0]);
	finish(&g[1]);
	printf("reallocs: two that grow by 1 MiB moved %u times\n", moves);
	if (!space_is_free())
		printf("reallocs: SKIPPED how often: address space is not free here\n");
	else
		ST_CHECK(moves <= 16);
}

int main(int argc, char **argv)
{
	st_begin(argc, argv, "reallocs", 400, 2);
	find_borders();
	printf("reallocs: %u borders, %u of them up to 64 KiB\n", borders, small_borders);
	st_threads(work);
	grow_alone();
	return st_end(ST_SLACK, 0);
}
