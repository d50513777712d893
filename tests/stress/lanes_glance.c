/* SPDX-License-Identifier: MIT */
/* Stress: rows that are cold most of the time are read by all threads, while each writes to rows of its own and replaces them,
 * and the first thread has all of them become cold again and again. So a get has a copy, or brings the row back, or finds it
 * there, as it comes.
 *
 * A row's number only grows, from life to life as well. Who reads knows the number that was there at least when he began, and
 * must not see less: a copy is of no moment before the get. Until his scope is over each row that he got is whole: who writes
 * puts the number into some of its words, from the first to the last, and then where it stands; so who reads them the other way
 * round sees none that is less than the one before, be it in place or of any moment. */
#include "tests/stress/stress.h"

#include <sched.h>

#include "include/quarry/lanes.h"

#define ROWS 4000
#define HELD 24 /* got in a scope: more than there may be copies */

struct body {
	uint64_t tag; /* the handle */
	_Atomic(uint64_t) number;
	uint64_t word[];
};

static struct row {
	_Atomic(uint64_t) h, least;
} row[ROWS];
static quarry_lanes *lanes;
static _Atomic(uint64_t) reads, writes, replaced, late;
static _Atomic(unsigned) working;

/* Of some classes. */
static uint32_t words_of(unsigned i)
{
	static const uint32_t words[] = { 6, 14, 30, 62, 510 };

	return words[i % 50 == 0 ? 4 : i % 4];
}

/* Of the words, those that have the number. */
static bool is_number(uint32_t at)
{
	return at % 8 == 5;
}

static void write_number(struct body *b, unsigned i, uint64_t number)
{
	for (uint32_t at = 0; at < words_of(i); at++)
		if (is_number(at))
			__atomic_store_n(&b->word[at], number, __ATOMIC_RELEASE);
	atomic_store_explicit(&b->number, number, memory_order_release);
}

/* The others: much the same in all of them, so they become smaller. */
static uint64_t word_of(uint64_t tag, uint32_t at)
{
	return at % 4 == 0 ? tag : at * 0x0101010101010101u;
}

static quarry_handle make(unsigned i, uint64_t number)
{
	uint32_t words = words_of(i);
	quarry_handle h = quarry_halloc(lanes, sizeof(struct body) + words * sizeof(uint64_t));
	struct body *b;

	ST_CHECK(h != 0);
	quarry_enter();
	b = quarry_get_mut(lanes, h);
	ST_CHECK(b != NULL);
	b->tag = h;
	for (uint32_t at = 0; at < words; at++)
		if (!is_number(at))
			b->word[at] = word_of(h, at);
	write_number(b, i, number);
	quarry_leave();
	return h;
}

static void verify(const struct body *b, quarry_handle h, unsigned i, uint64_t least)
{
	uint64_t number = atomic_load(&((struct body *)(uintptr_t)b)->number), before = number;

	if (b->tag != h || number < least)
		st_fail("row %u: tag %llx instead of %llx, number %llu, at least %llu", i, (unsigned long long)b->tag,
			(unsigned long long)h, (unsigned long long)number, (unsigned long long)least);
	for (uint32_t at = words_of(i); at-- > 0;) {
		uint64_t word = __atomic_load_n(&b->word[at], __ATOMIC_ACQUIRE);

		if (is_number(at) ? word < before : word != word_of(h, at))
			st_fail("row %u, number %llu: word %u is %llx", i, (unsigned long long)number, at, (unsigned long long)word);
		if (is_number(at))
			before = word;
	}
}

static void read_some(struct st_rng *rng)
{
	unsigned n = 1 + (unsigned)st_below(rng, st_below(rng, 4) == 0 ? HELD : 3), i[HELD];
	const struct body *b[HELD];
	quarry_handle h[HELD];
	uint64_t least[HELD];

	quarry_enter();
	for (unsigned k = 0; k < n; k++) {
		i[k] = (unsigned)st_below(rng, ROWS);
		least[k] = atomic_load(&row[i[k]].least);
		h[k] = atomic_load(&row[i[k]].h);
		b[k] = quarry_get(lanes, h[k]);
		if (b[k] == NULL) {
			ST_CHECK(errno == ESTALE && atomic_load(&row[i[k]].h) != h[k]);
			atomic_fetch_add(&late, 1);
			continue;
		}
		verify(b[k], h[k], i[k], least[k]);
	}
	if (st_below(rng, 64) == 0)
		sched_yield();
	for (unsigned k = 0; k < n; k++)
		if (b[k] != NULL)
			verify(b[k], h[k], i[k], least[k]);
	quarry_leave();
	atomic_fetch_add_explicit(&reads, n, memory_order_relaxed);
}

/* A row of the thread's own. What it got before shows what was then. */
static void write_one(struct st_worker *w)
{
	unsigned i = (unsigned)(st_below(&w->rng, ROWS / (st.threads - 1)) * (st.threads - 1) + w->number - 1);
	quarry_handle h = atomic_load(&row[i].h);
	uint64_t number;
	const struct body *b = NULL;
	struct body *m;

	quarry_enter();
	if (st_below(&w->rng, 2) == 0)
		b = quarry_get(lanes, h);
	m = quarry_get_mut(lanes, h);
	ST_CHECK(m != NULL);
	number = atomic_load(&m->number) + 1;
	ST_CHECK(number == atomic_load(&row[i].least) + 1);
	write_number(m, i, number);
	if (b != NULL)
		verify(b, h, i, number - 1);
	verify(quarry_get(lanes, h), h, i, number);
	quarry_leave();
	atomic_store(&row[i].least, number);
	atomic_fetch_add_explicit(&writes, 1, memory_order_relaxed);
}

static void replace_one(struct st_worker *w)
{
	unsigned i = (unsigned)(st_below(&w->rng, ROWS / (st.threads - 1)) * (st.threads - 1) + w->number - 1);
	uint64_t number = atomic_load(&row[i].least) + 1;
	quarry_handle old = atomic_exchange(&row[i].h, make(i, number));

	atomic_store(&row[i].least, number);
	ST_CHECK(quarry_hfree(lanes, old) == 0);
	atomic_fetch_add_explicit(&replaced, 1, memory_order_relaxed);
}

/* Until the others have done what there is to do. */
static void keep_cooling(struct st_rng *rng)
{
	static quarry_handle h[ROWS];

	while (atomic_load(&working) > 0) {
		for (unsigned i = 0; i < ROWS; i++)
			h[i] = atomic_load(&row[i].h);
		ST_CHECK(quarry_evict(lanes, h, ROWS) >= 0 || errno == EBUSY);
		if (st_below(rng, 4) == 0)
			ST_CHECK(quarry_cool(lanes, 0) >= 0 || errno == EBUSY);
	}
}

static void work(struct st_worker *w)
{
	if (w->number == 0) {
		keep_cooling(&w->rng);
		return;
	}
	while (st_more(w)) {
		uint64_t which = st_below(&w->rng, 100);

		if (which < 90)
			read_some(&w->rng);
		else if (which < 98)
			write_one(w);
		else
			replace_one(w);
	}
	atomic_fetch_sub(&working, 1);
}

int main(int argc, char **argv)
{
	quarry_cold_attr cold = { .period_ms = 5 };
	quarry_lanes_attr attr = { .cold = &cold };
	quarry_cold_stats away = { 0 };

	st_begin(argc, argv, "lanes_glance", 3000000, 4);
	ST_CHECK(st.threads > 1);
	if (st.seed % 2 == 0) {
		cold.long_codec = "zstd";
		cold.long_periods = 1;
	}
	lanes = quarry_lanes_create(&attr);
	ST_CHECK(lanes != NULL);
	for (unsigned i = 0; i < ROWS; i++)
		atomic_store(&row[i].h, make(i, 0));
	atomic_store(&working, st.threads - 1);
	st_threads(work);
	ST_CHECK(quarry_cold_stats_get(lanes, &away) == 0);
	printf("lanes_glance: %llu reads, %llu too late, %llu writes, %llu replaced; %llu copies, %llu came back\n",
	       (unsigned long long)reads, (unsigned long long)late, (unsigned long long)writes, (unsigned long long)replaced,
	       (unsigned long long)away.copies, (unsigned long long)away.loaded);
	ST_CHECK(away.copies > 0 && away.loaded > 0 && away.corrupt == 0);
	for (unsigned i = 0; i < ROWS; i++)
		ST_CHECK(quarry_hfree(lanes, atomic_load(&row[i].h)) == 0);
	ST_CHECK(quarry_lanes_destroy(lanes) == 0);
	return st_end(ST_SLACK, 0);
}
