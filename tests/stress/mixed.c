/* SPDX-License-Identifier: MIT */
/* Stress: sizes from 1 byte to 4 MiB, every way to allocate, resize and free, short and long lives side by side.
 * Each thread has its own table; low slots are replaced all the time, high ones live long, so that long-lived
 * blocks come to stand between short-lived ones. Now and then a thread frees all it has, as after a spike. */
#include "tests/stress/stress.h"

#define SLOTS 4096
#define MAX_BITS 22
#define LIVE_MAX (64 * ST_MIB) /* per thread; above it blocks are freed rather than made or grown */

struct table {
	struct st_block slot[SLOTS];
	size_t live;
};

static void drop(struct table *t, unsigned i, struct st_rng *rng)
{
	if (t->slot[i].p == NULL)
		return;
	t->live -= t->slot[i].size;
	st_drop(&t->slot[i], rng);
}

/* Free everything: upwards, downwards, or every other one first, which leaves holes before it leaves nothing. */
static void spike_over(struct table *t, struct st_rng *rng)
{
	unsigned order = (unsigned)st_below(rng, 3);

	for (unsigned k = 0; k < SLOTS; k++) {
		unsigned i = order == 0 ? k : order == 1 ? SLOTS - 1 - k : (2 * k) % SLOTS + (2 * k) / SLOTS;
		drop(t, i, rng);
	}
	ST_CHECK(t->live == 0);
}

static void resize(struct table *t, struct st_block *b, struct st_rng *rng)
{
	size_t size = st_size(rng, MAX_BITS);

	/* Half of the time a step nearby, as growing vectors do. */
	if (st_next(rng) & 1) {
		size = b->size + b->size / 2 + 1;
		if (size > (ST_MIB << 2) || st_below(rng, 4) == 0)
			size = b->size / 2 + 1;
	}
	t->live -= b->size;
	st_resize(b, rng, size);
	t->live += b->size;
}

static void churn(struct st_worker *w)
{
	struct table *t = st_pages(sizeof *t);
	struct st_rng *rng = &w->rng;

	while (st_more(w)) {
		/* The product of two: low slots come up often. */
		unsigned i = (unsigned)(st_below(rng, SLOTS) * st_below(rng, SLOTS) / SLOTS);
		struct st_block *b = &t->slot[i];

		if (b->p == NULL) {
			st_make(b, rng, NULL, w->next_id++, st_size(rng, t->live > LIVE_MAX ? 10 : MAX_BITS));
			t->live += b->size;
		} else if (t->live < LIVE_MAX && st_below(rng, 4) == 0) {
			resize(t, b, rng);
		} else {
			drop(t, i, rng);
		}
		if (w->done % 100000 == 99999)
			spike_over(t, rng);
		if (w->done % 8192 == 8191)
			quarry_thread_flush();
		if (w->done % 50000 == 49999)
			quarry_purge(NULL);
	}
	spike_over(t, rng);
	munmap(t, sizeof *t);
}

int main(int argc, char **argv)
{
	st_begin(argc, argv, "mixed", 2000000, 4);
	st_threads(churn);
	return st_end(ST_SLACK, 0);
}
