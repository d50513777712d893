/* SPDX-License-Identifier: MIT */
/* Stress: blocks that are never freed where they were made. First as pairs, a producer and a consumer; then as a ring
 * of threads, where a block goes round for some hops, is resized on the way, and is freed far from home. Memory must
 * not grow without bound: a monitor samples what is live and what quarry has mapped. */
#include "tests/stress/stress.h"

#define DEPTH 1024
#define MAX_BITS 15
/* Mapped may be at most FACTOR times the most that was live, and SLACK_MIB for what is there before the first block;
 * from the second quarter of a phase to its end it may grow by a quarter, and GROWTH_MIB. */
#define FACTOR 3
#define SLACK_MIB 64
#define GROWTH_MIB 16

struct parcel {
	struct st_card *card;
	unsigned hops;
};

/* From one thread to the next: one producer, one consumer, a power of two of places. */
struct belt {
	_Alignas(64) _Atomic uint64_t head; /* the consumer's */
	_Alignas(64) _Atomic uint64_t tail; /* the producer's */
	_Alignas(64) struct parcel at[DEPTH];
};

/* Written by one thread, summed by the monitor. */
struct tally {
	_Alignas(64) _Atomic uint64_t made;
	_Atomic uint64_t freed;
};

static struct belt *belts;
static struct tally *tallies;
static bool ring;
static _Atomic unsigned producing; /* threads that have not yet made all of theirs */
static _Atomic unsigned running;

static bool push(struct belt *b, struct parcel parcel)
{
	uint64_t tail = atomic_load_explicit(&b->tail, memory_order_relaxed);

	if (tail - atomic_load_explicit(&b->head, memory_order_acquire) == DEPTH)
		return false;
	b->at[tail % DEPTH] = parcel;
	atomic_store_explicit(&b->tail, tail + 1, memory_order_release);
	return true;
}

static bool pop(struct belt *b, struct parcel *parcel)
{
	uint64_t head = atomic_load_explicit(&b->head, memory_order_relaxed);

	if (head == atomic_load_explicit(&b->tail, memory_order_acquire))
		return false;
	*parcel = b->at[head % DEPTH];
	atomic_store_explicit(&b->head, head + 1, memory_order_release);
	return true;
}

static size_t weight(const struct st_card *card)
{
	return quarry_usable_size(card->block.p) + sizeof *card;
}

static void add(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n, memory_order_relaxed);
}

static void drop(struct st_worker *w, struct st_card *card)
{
	add(&tallies[w->number].freed, weight(card));
	st_card_drop(card, &w->rng);
}

static void make(struct st_worker *w)
{
	struct parcel parcel = { .hops = ring ? 1 + (unsigned)st_below(&w->rng, 2 * st.threads) : 1 };

	parcel.card = st_card_make(&w->rng, w->next_id++, st_size(&w->rng, MAX_BITS));
	add(&tallies[w->number].made, weight(parcel.card));
	while (!push(&belts[w->number], parcel)) {
		if (ring) {
			drop(w, parcel.card);
			return;
		}
		sched_yield();
	}
}

/* Take one and pass it on or free it. False when there was none. */
static bool take(struct st_worker *w)
{
	unsigned from = (w->number + st.threads - 1) % st.threads;
	struct parcel parcel;

	if (!pop(&belts[from], &parcel))
		return false;
	if (--parcel.hops == 0) {
		drop(w, parcel.card);
		return true;
	}
	st_block_verify(&parcel.card->block);
	if (st_below(&w->rng, 8) == 0) {
		add(&tallies[w->number].freed, weight(parcel.card));
		st_resize(&parcel.card->block, &w->rng, st_size(&w->rng, MAX_BITS));
		parcel.card->seal = st_card_seal(parcel.card);
		add(&tallies[w->number].made, weight(parcel.card));
	}
	if (!push(&belts[w->number], parcel))
		drop(w, parcel.card);
	return true;
}

static void work(struct st_worker *w)
{
	bool produces = ring || w->number % 2 == 0;

	if (produces) {
		while (st_more(w)) {
			make(w);
			while (ring && take(w) && (st_next(&w->rng) & 1))
				;
		}
	}
	atomic_fetch_sub(&producing, 1);
	/* Until all are done making and nothing comes any more. In the ring parcels may still go round, so that all
	 * leave only when every belt is seen empty; what arrives later is freed below. */
	for (;;) {
		bool last = atomic_load(&producing) == 0;
		if (take(w))
			continue;
		if (last)
			break;
		sched_yield();
	}
	atomic_fetch_sub(&running, 1);
}

static uint64_t live_now(void)
{
	uint64_t made = 0, freed = 0;

	/* Freed first: what is made meanwhile makes it more, never less than nothing. */
	for (unsigned i = 0; i < st.threads; i++)
		freed += atomic_load_explicit(&tallies[i].freed, memory_order_relaxed);
	for (unsigned i = 0; i < st.threads; i++)
		made += atomic_load_explicit(&tallies[i].made, memory_order_relaxed);
	return made > freed ? made - freed : 0;
}

static void phase(const char *name, bool as_ring)
{
	static struct st_worker workers[ST_THREADS_MAX];
	static const struct timespec tick = { 0, 2 * 1000 * 1000 };
	enum { SAMPLES = 1 << 16 };
	uint64_t *mapped = st_pages(SAMPLES * sizeof *mapped);
	uint64_t live_peak = 0, peak = 0, second = 0, last = 0;
	unsigned n = 0;
	quarry_stats stats;
	struct st_rng rng = st_rng_for(3000);

	ring = as_ring;
	atomic_store(&producing, st.threads);
	atomic_store(&running, st.threads);
	st_start(workers, st.threads, work);
	while (atomic_load(&running) != 0) {
		uint64_t live = live_now();
		st_stats(NULL, &stats);
		live_peak = live > live_peak ? live : live_peak;
		mapped[n % SAMPLES] = stats.mapped;
		n++;
		nanosleep(&tick, NULL);
	}
	st_join(workers, st.threads);
	for (unsigned i = 0; i < st.threads; i++) {
		struct parcel parcel;
		while (pop(&belts[i], &parcel)) {
			tallies[0].freed += weight(parcel.card);
			st_card_drop(parcel.card, &rng);
		}
	}
	ST_CHECK(live_now() == 0);
	n = n < SAMPLES ? n : SAMPLES;
	for (unsigned i = 0; i < n; i++) {
		peak = mapped[i] > peak ? mapped[i] : peak;
		if (i >= n / 4 && i < n / 2)
			second = mapped[i] > second ? mapped[i] : second;
		if (i >= n - n / 4)
			last = mapped[i] > last ? mapped[i] : last;
	}
	printf("remote: %s: live at most %.1f MiB, mapped at most %.1f MiB (2nd quarter %.1f, last %.1f), %u samples\n", name,
	       (double)live_peak / (double)ST_MIB, (double)peak / (double)ST_MIB, (double)second / (double)ST_MIB,
	       (double)last / (double)ST_MIB, n);
	if (peak > FACTOR * live_peak + SLACK_MIB * ST_MIB)
		st_fail("%s: mapped exceeds %d times what was live and %d MiB", name, FACTOR, SLACK_MIB);
	if (n >= 32 && last > second + second / 4 + GROWTH_MIB * ST_MIB)
		st_fail("%s: mapped grew from %.1f to %.1f MiB at the same load", name, (double)second / (double)ST_MIB,
			(double)last / (double)ST_MIB);
	munmap(mapped, SAMPLES * sizeof *mapped);
}

int main(int argc, char **argv)
{
	st_begin(argc, argv, "remote", 5000000, 4);
	if (st.threads < 2 || st.threads % 2 != 0) {
		fprintf(stderr, "remote: --threads: an even number, 2 at least\n");
		return 1;
	}
	/* --seconds is shared by the two. */
	if (st.deadline > 0)
		st.deadline -= st.seconds / 2;
	belts = st_pages(st.threads * sizeof *belts);
	tallies = st_pages(st.threads * sizeof *tallies);
	phase("pairs", false);
	if (st.deadline > 0)
		st.deadline += st.seconds / 2;
	phase("ring", true);
	return st_end(ST_SLACK, 0);
}
