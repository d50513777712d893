/* SPDX-License-Identifier: MIT */
/* Stress: realloc. Blocks grow and shrink over every border there is (of size classes, found by asking; of pages;
 * of 2 MiB) up to 64 MiB, in place where the neighbour is free and moving where it is not; the content is verified
 * after each step. The pattern depends on the id alone here, so that what was kept need not be written again. */
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

int main(int argc, char **argv)
{
	st_begin(argc, argv, "reallocs", 400, 2);
	find_borders();
	printf("reallocs: %u borders, %u of them up to 64 KiB\n", borders, small_borders);
	st_threads(work);
	return st_end(ST_SLACK, 0);
}
