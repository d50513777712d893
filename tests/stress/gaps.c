/* SPDX-License-Identifier: MIT */
/* Stress: phases in which threads fill their tables with blocks of a few sizes, and others free nine in ten of them, so
 * that the next phase's blocks come to stand in the gaps (mixed slabs). Who frees is never who allocated; memory is
 * given back in the middle of it, and blocks are resized in their gaps. */
#include "tests/stress/stress.h"

#define SLOTS 20000
#define TABLES 64

static struct st_block *tables[TABLES];
static unsigned phase; /* each has threads of its own, so that what they held is nobody's in the next */
static uint64_t mixed_most;

/* Small classes and those next to them, another few in each phase. */
static size_t size_in(struct st_rng *rng, unsigned number)
{
	static const size_t from[] = { 100, 300, 70, 900, 160, 2200, 400, 64, 1300 };
	size_t size = from[number % (sizeof(from) / sizeof(from[0]))];

	return size + st_below(rng, size / 2);
}

static void fill(struct st_worker *w)
{
	struct st_block *table = tables[w->number];

	w->rng = st_rng_for(phase * TABLES + w->number);
	for (unsigned i = 0; i < SLOTS; i++, w->done++)
		if (table[i].p == NULL)
			st_make(&table[i], &w->rng, NULL, w->next_id++, size_in(&w->rng, phase));
}

/* The next thread's table; now and then a block changes its size where it is, or moves. */
static void thin_out(struct st_worker *w)
{
	struct st_block *table = tables[(w->number + 1) % st.threads];

	w->rng = st_rng_for(phase * TABLES + w->number);
	for (unsigned i = 0; i < SLOTS; i++, w->done++) {
		if (st_below(&w->rng, 10) != 0)
			st_drop(&table[i], &w->rng);
		else if (st_below(&w->rng, 50) == 0)
			st_resize(&table[i], &w->rng, size_in(&w->rng, phase + 1));
		if (i % 8192 == 8191)
			quarry_purge(NULL);
	}
}

static void clear(struct st_worker *w)
{
	struct st_block *table = tables[w->number];

	for (unsigned i = 0; i < SLOTS; i++)
		if (table[i].p != NULL)
			st_drop(&table[i], &w->rng);
}

static void look(void)
{
	quarry_stats stats;

	st_stats(NULL, &stats);
	mixed_most = stats.mixed > mixed_most ? stats.mixed : mixed_most;
}

int main(int argc, char **argv)
{
	uint64_t phases;

	st_begin(argc, argv, "gaps", 4000000, 4);
	if (st.threads > TABLES)
		st_fail("at most %d threads", TABLES);
	for (unsigned i = 0; i < st.threads; i++)
		tables[i] = st_pages(SLOTS * sizeof(*tables[i]));
	phases = st.ops / (2 * SLOTS * (uint64_t)st.threads);
	for (phase = 0; phase < 2 || (phase < phases && (st.deadline == 0 || st_now() < st.deadline)); phase++) {
		st_threads(fill);
		look();
		st_threads(thin_out);
		quarry_purge(NULL);
	}
	st_threads(clear);
	printf("gaps: %u phases, at most %.1f MiB of mixed slabs\n", phase, (double)mixed_most / (double)ST_MIB);
	if (mixed_most == 0)
		st_fail("nothing came to stand in a gap");
	return st_end(ST_SLACK, 0);
}
