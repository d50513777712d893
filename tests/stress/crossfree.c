/* SPDX-License-Identifier: MIT */
/* Stress: every thread frees for every other. Threads put what they allocate into slots of one table and free what
 * they find there, so that most blocks die in another thread than the one that made them: one by one, in bursts
 * that all belong to one owner, and in bursts that belong to many. */
#include "tests/stress/stress.h"

#define SLOTS 4096
#define BURST 192
#define MAX_BITS 20

static _Atomic(struct st_card *) *table;
/* One shelf for each thread: bursts made by one thread and taken whole by another. */
static _Atomic(struct st_card *) (*shelf)[BURST];

static void swap_one(struct st_worker *w)
{
	struct st_card *card = st_card_make(&w->rng, w->next_id++, st_size(&w->rng, MAX_BITS));

	card = atomic_exchange(&table[st_below(&w->rng, SLOTS)], card);
	if (card != NULL)
		st_card_drop(card, &w->rng);
}

/* Take what lies on another thread's shelf: one owner's blocks, freed in a row. */
static void clear_shelf(struct st_worker *w, unsigned owner)
{
	unsigned start = (unsigned)st_below(&w->rng, BURST);

	for (unsigned i = 0; i < BURST; i++) {
		struct st_card *card = atomic_exchange(&shelf[owner][(start + i) % BURST], NULL);
		if (card != NULL)
			st_card_drop(card, &w->rng);
	}
}

static void fill_shelf(struct st_worker *w)
{
	size_t size = st_log_size(&w->rng, 11);
	bool same = st_next(&w->rng) & 1;

	for (unsigned i = 0; i < BURST; i++) {
		struct st_card *card = st_card_make(&w->rng, w->next_id++, same ? size : st_log_size(&w->rng, 11));
		card = atomic_exchange(&shelf[w->number][i], card);
		if (card != NULL)
			st_card_drop(card, &w->rng);
	}
}

/* Collect blocks of many owners, then free them in the order of the table or against it. */
static void sweep(struct st_worker *w)
{
	struct st_card *held[BURST];
	unsigned n = 0, start = (unsigned)st_below(&w->rng, SLOTS);

	for (unsigned i = 0; i < BURST; i++) {
		held[n] = atomic_exchange(&table[(start + i) % SLOTS], NULL);
		n += held[n] != NULL;
	}
	if (st_next(&w->rng) & 1) {
		while (n > 0)
			st_card_drop(held[--n], &w->rng);
	} else {
		for (unsigned i = 0; i < n; i++)
			st_card_drop(held[i], &w->rng);
	}
}

static void trade(struct st_worker *w)
{
	while (st_more(w)) {
		unsigned what = (unsigned)st_below(&w->rng, 1000);
		if (what < 990) {
			swap_one(w);
		} else if (what < 993) {
			fill_shelf(w);
			w->done += BURST;
		} else if (what < 996) {
			clear_shelf(w, (unsigned)st_below(&w->rng, st.threads));
		} else if (what < 998) {
			sweep(w);
		} else {
			quarry_thread_flush();
		}
	}
}

int main(int argc, char **argv)
{
	struct st_rng rng;

	st_begin(argc, argv, "crossfree", 4000000, 6);
	table = st_pages(SLOTS * sizeof *table);
	shelf = st_pages(st.threads * sizeof *shelf);
	st_threads(trade);
	/* The rest is freed by a thread that made none of it, its makers dead. */
	rng = st_rng_for(ST_THREADS_MAX);
	for (unsigned i = 0; i < SLOTS; i++) {
		struct st_card *card = atomic_exchange(&table[i], NULL);
		if (card != NULL)
			st_card_drop(card, &rng);
	}
	for (unsigned i = 0; i < st.threads * BURST; i++) {
		struct st_card *card = atomic_exchange(&shelf[i / BURST][i % BURST], NULL);
		if (card != NULL)
			st_card_drop(card, &rng);
	}
	return st_end(ST_SLACK, 0);
}
