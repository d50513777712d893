/* SPDX-License-Identifier: MIT */
/* Stress: page allocators. Threads allocate, split, resize, hand over and free runs of one small allocator, so that all
 * are in each other's way and memory runs out all the time; each page is stamped with its run, and verified before it
 * goes. One of the threads purges, walks and counts meanwhile. Then races: of several that free the same run, by
 * address and by id, exactly one gets it; ids that are stale never reach what came after. Then a place that is hardly
 * large enough: what there is room for is not refused, and no summary hides what is free. At the end all is free. */
#include "tests/stress/stress.h"

#include "lib/object/pages.h"

#define PAGE 4096
#define COUNT 9000 /* pages: three groups of words, the last of them in part */
#define HELD 24    /* runs of each thread, at most */
#define CARDS 64
#define ROUND 64 /* runs that are raced for at a time */
#define RACERS_MAX 16

struct held {
	char *p;
	uint64_t length, tag;
};

static quarry_pages *pages;
static _Atomic(uint64_t) no_room, coherent, walks, quiet;
static _Atomic(quarry_page_id64) latest; /* a run's, that may be gone */

/* ------------------------------------------------------------------------------------------------------ */
/* Runs with contents                                                                                     */

static void stamp(const struct held *run)
{
	for (uint64_t i = 0; i < run->length; i++) {
		uint64_t *words = (uint64_t *)(void *)(run->p + i * PAGE);

		words[0] = words[PAGE / 8 - 1] = run->tag + i;
	}
}

static void verify(const struct held *run)
{
	for (uint64_t i = 0; i < run->length; i++) {
		const uint64_t *words = (const uint64_t *)(void *)(run->p + i * PAGE);

		if (words[0] != run->tag + i || words[PAGE / 8 - 1] != run->tag + i)
			st_fail("page %llu of the run at %p, %llu long: %llx and %llx instead of %llx",
				(unsigned long long)i, (void *)run->p, (unsigned long long)run->length,
				(unsigned long long)words[0],
				(unsigned long long)words[PAGE / 8 - 1], (unsigned long long)(run->tag + i));
	}
}

static uint64_t some_length(struct st_rng *rng)
{
	static const uint16_t most[] = { 1, 1, 1, 4, 40, 100, 400, 1500 };

	return 1 + st_below(rng, most[st_below(rng, 8)]);
}

static bool take(struct held *run, struct st_worker *w)
{
	uint64_t length = some_length(&w->rng);
	uint64_t align = st_below(&w->rng, 4) == 0 ? (uint64_t)1 << st_below(&w->rng, 9) : 1;
	uint64_t at = st_below(&w->rng, COUNT);

	if (st_below(&w->rng, 8) == 0)
		run->p = quarry_pages_alloc_at(pages, quarry_pages_at(pages, at), length = 1 + st_below(&w->rng, 3));
	else if (align > 1)
		run->p = quarry_pages_alloc_aligned(pages, length, align * PAGE);
	else
		run->p = quarry_pages_alloc(pages, length);
	if (run->p == NULL) {
		ST_CHECK(errno == ENOMEM || errno == EBUSY || errno == EINVAL);
		atomic_fetch_add_explicit(&no_room, 1, memory_order_relaxed);
		return false;
	}
	ST_CHECK((uintptr_t)run->p % PAGE == 0);
	run->length = length;
	run->tag = w->next_id += 100000;
	stamp(run);
	return true;
}

static void let_go(struct held *run, struct st_worker *w)
{
	quarry_page_id64 id64 = 0;
	quarry_page_id id = 0;
	size_t bytes = 0;

	verify(run);
	ST_CHECK(quarry_pages_length(pages, run->p) == run->length);
	ST_CHECK(quarry_pages_to_id64(pages, run->p, &id64) == 0 && quarry_pages_to_id(pages, run->p, &id) == 0);
	ST_CHECK(quarry_pages_resolve(pages, id64, &bytes) == run->p && bytes == run->length * PAGE);
	atomic_store_explicit(&latest, id64, memory_order_relaxed);
	switch (st_below(&w->rng, 3)) {
	case 0:
		ST_CHECK(quarry_pages_free(pages, run->p) == 0);
		break;
	case 1:
		ST_CHECK(quarry_pages_free_id(pages, id) == 0);
		break;
	default:
		ST_CHECK(quarry_pages_free_id64(pages, id64) == 0);
	}
	ST_CHECK(quarry_pages_free_id64(pages, id64) == -1 && errno == ESTALE);
	ST_CHECK(quarry_pages_resolve(pages, id64, NULL) == NULL && errno == ESTALE);
	run->p = NULL;
}

static void resize(struct held *run, struct st_worker *w)
{
	uint64_t n = 1 + st_below(&w->rng, run->length < 2000 ? 2 * run->length : 4000); /* (ids have 12 bits) */

	verify(run);
	if (quarry_pages_resize(pages, run->p, n) != 0) {
		ST_CHECK(errno == ENOMEM && n > run->length);
		return;
	}
	run->length = n < run->length ? n : run->length;
	verify(run);
	run->length = n;
	stamp(run);
}

static void split(struct held *run, struct held *second, struct st_worker *w)
{
	if (run->length < 2 || run == second || second->p != NULL)
		return;
	second->length = 1 + st_below(&w->rng, run->length - 1);
	run->length -= second->length;
	second->p = quarry_pages_split(pages, run->p, run->length);
	second->tag = run->tag + run->length;
	ST_CHECK(second->p == run->p + run->length * PAGE);
	verify(run);
	verify(second);
}

/* ------------------------------------------------------------------------------------------------------ */
/* Everybody at once                                                                                      */

static struct {
	_Atomic int busy;
	struct held run;
} card[CARDS];

/* What lies on the card, for what is in the hand. */
static void exchange(struct held *run, struct st_worker *w)
{
	unsigned i = (unsigned)st_below(&w->rng, CARDS);
	int free_one = 0;
	struct held other;

	if (!atomic_compare_exchange_strong(&card[i].busy, &free_one, 1))
		return;
	other = card[i].run;
	card[i].run = *run;
	*run = other;
	atomic_store(&card[i].busy, 0);
}

static int look_at_run(const quarry_run *run, void *ctx)
{
	uint64_t *end = ctx;

	ST_CHECK(run->index >= *end && run->length > 0 && run->index + run->length <= COUNT);
	*end = run->index + run->length;
	return 0;
}

static void look(void)
{
	quarry_pages_stats stats = { .struct_size = sizeof stats };
	uint64_t end = 0;

	ST_CHECK(quarry_pages_walk(pages, look_at_run, &end) == 0);
	ST_CHECK(quarry_pages_stats_get(pages, &stats) == 0);
	if (stats.coherent) {
		if (stats.committed != stats.allocated + stats.free || stats.committed + stats.retired != COUNT)
			st_fail("of %llu pages %llu are allocated and %llu free", (unsigned long long)stats.committed,
				(unsigned long long)stats.allocated, (unsigned long long)stats.free);
		atomic_fetch_add_explicit(&coherent, 1, memory_order_relaxed);
	}
	atomic_fetch_add_explicit(&walks, 1, memory_order_relaxed);
}

/* Between two equal epochs an id is stale, or is not. */
static void watch(void)
{
	quarry_page_id64 id = atomic_load_explicit(&latest, memory_order_relaxed);
	uint64_t epoch = quarry_pages_epoch(pages);
	bool first = quarry_pages_resolve(pages, id, NULL) != NULL;
	bool second = quarry_pages_resolve(pages, id, NULL) != NULL;

	if (quarry_pages_epoch(pages) != epoch)
		return;
	if (first != second)
		st_fail("an id went stale, and the epoch was %llx before and after", (unsigned long long)epoch);
	atomic_fetch_add_explicit(&quiet, 1, memory_order_relaxed);
}

static void step(struct held *held, struct st_worker *w)
{
	struct held *run = &held[st_below(&w->rng, HELD)], *other = &held[st_below(&w->rng, HELD)];
	uint64_t what = st_below(&w->rng, 16);

	if (run->p == NULL)
		take(run, w);
	else if (what < 8)
		let_go(run, w);
	else if (what < 10)
		resize(run, w);
	else if (what < 12)
		split(run, other, w);
	else
		exchange(run, w);
}

static void everything(struct st_worker *w)
{
	struct held held[HELD] = { { NULL, 0, 0 } };

	while (st_more(w)) {
		step(held, w);
		if (w->done % 4 == 0)
			watch();
		if (w->done % 4096 == 0 && w->number == 0)
			quarry_pages_purge(pages, 0);
		if (w->done % 1024 == 0 && w->number <= 1)
			look();
	}
	for (int i = 0; i < HELD; i++)
		if (held[i].p != NULL)
			let_go(&held[i], w);
}

/* ------------------------------------------------------------------------------------------------------ */
/* Races for the same run                                                                                 */

static struct {
	pthread_barrier_t barrier;
	quarry_page_id64 id[ROUND], old[ROUND];
	_Atomic(uint64_t) won[ROUND];
	uint64_t rounds;
} race;

static void begin_round(uint64_t round)
{
	for (unsigned i = 0; i < ROUND; i++) {
		void *p = quarry_pages_alloc(pages, 1 + (i + round) % 70);

		ST_CHECK(p != NULL);
		race.old[i] = race.id[i];
		ST_CHECK(quarry_pages_to_id64(pages, p, &race.id[i]) == 0);
		race.won[i] = 0;
	}
}

static void free_all(struct st_worker *w)
{
	for (unsigned i = 0; i < ROUND; i++) {
		quarry_page_id64 id = race.id[i], old = race.old[i];
		void *p = quarry_pages_at(pages, quarry_page_id64_index(id));
		int result = (w->number + i) % 3 == 0 ? quarry_pages_free(pages, p) : quarry_pages_free_id64(pages, id);

		if (result == 0)
			atomic_fetch_add(&race.won[i], 1);
		else
			ST_CHECK(errno == ESTALE || errno == EINVAL);
		ST_CHECK(old == 0 || (quarry_pages_free_id64(pages, old) == -1 && errno == ESTALE));
	}
}

static void race_for_runs(struct st_worker *w)
{
	for (uint64_t round = 0; round < race.rounds; round++) {
		if (w->number == 0)
			begin_round(round);
		pthread_barrier_wait(&race.barrier);
		free_all(w);
		w->done += ROUND;
		pthread_barrier_wait(&race.barrier);
		for (unsigned i = 0; w->number == 0 && i < ROUND; i++)
			if (race.won[i] != 1)
				st_fail("a run was freed %llu times", (unsigned long long)race.won[i]);
	}
}

/* ------------------------------------------------------------------------------------------------------ */

/* All in a place that is hardly large enough, and each round a look at whether a summary hides what is free. Half of
 * the threads take single pages, of which there are always enough: none is refused. Then in one that is too small,
 * whose words are full at every moment. */
static struct {
	quarry_pages *pages;
	bool enough;
	pthread_barrier_t barrier;
	uint64_t rounds, count;
} crowd;

static void crowd_step(struct st_worker *w)
{
	quarry_pages *p = crowd.pages;
	uint64_t n = 1 + st_below(&w->rng, 60);
	void *run;

	if (w->number % 2 == 0)
		run = quarry_pages_alloc(p, n = 1);
	else if (st_below(&w->rng, 2) == 0)
		run = quarry_pages_alloc_at(p, quarry_pages_at(p, st_below(&w->rng, crowd.count - n)), n);
	else
		run = quarry_pages_alloc(p, n);
	if (run == NULL && w->number % 2 == 0 && crowd.enough)
		st_fail("there is room for a page, and it was refused: errno %d", errno);
	if (run != NULL)
		ST_CHECK(quarry_pages_free(p, run) == 0);
}

static void check_summaries(const quarry_pages *p)
{
	for (uint64_t i = 0; i < p->groups * 64; i++)
		if (p->full[i / 64] >> i % 64 & 1 && i < p->words && p->used[i] != UINT64_MAX)
			st_fail("word %llu is full, it says, and has %llx", (unsigned long long)i,
				(unsigned long long)p->used[i]);
	for (uint64_t i = 0; i < p->tops * 64; i++)
		if (p->full_groups[i / 64] >> i % 64 & 1 && i < p->groups && p->full[i] != UINT64_MAX)
			st_fail("group %llu is full, it says", (unsigned long long)i);
}

static void crowded(struct st_worker *w)
{
	for (uint64_t round = 0; round < crowd.rounds; round++) {
		pthread_barrier_wait(&crowd.barrier);
		for (int i = 0; i < 40; i++)
			crowd_step(w);
		w->done += 40;
		pthread_barrier_wait(&crowd.barrier);
		if (w->number == 0)
			check_summaries(crowd.pages);
	}
}

static void in_a_crowd(uint64_t count, bool enough)
{
	quarry_pages_attr attr = { .count = count };

	crowd.count = count;
	crowd.enough = enough;
	crowd.rounds = st_scaled(4000, 20);
	ST_CHECK((crowd.pages = quarry_pages_create(&attr)) != NULL);
	ST_CHECK(pthread_barrier_init(&crowd.barrier, NULL, st.threads) == 0);
	st_threads(crowded);
	ST_CHECK(quarry_pages_destroy(crowd.pages) == 0);
}

/* ------------------------------------------------------------------------------------------------------ */

static void check_empty(void)
{
	quarry_pages_stats stats = { .struct_size = sizeof stats };

	ST_CHECK(quarry_pages_stats_get(pages, &stats) == 0);
	check_summaries(pages);
	ST_CHECK(stats.coherent == 1 && stats.allocated == 0 && stats.free == COUNT && stats.largest == COUNT);
}

int main(int argc, char **argv)
{
	quarry_pages_attr attr = { .count = COUNT };

	st_begin(argc, argv, "pages", 400000, 4);
	pages = quarry_pages_create(&attr);
	ST_CHECK(pages != NULL);
	st_threads(everything);
	for (int i = 0; i < CARDS; i++)
		if (card[i].run.p != NULL) {
			verify(&card[i].run);
			ST_CHECK(quarry_pages_free(pages, card[i].run.p) == 0);
		}
	check_empty();
	/* All of it in one piece: nothing was forgotten by any summary. */
	ST_CHECK(quarry_pages_free(pages, quarry_pages_alloc(pages, COUNT)) == 0);

	race.rounds = st_scaled(3000, 20);
	st.threads = st.threads < RACERS_MAX ? st.threads : RACERS_MAX;
	ST_CHECK(pthread_barrier_init(&race.barrier, NULL, st.threads) == 0);
	st_threads(race_for_runs);
	check_empty();
	in_a_crowd(61 + 60 * (st.threads / 2) + (st.threads + 1) / 2, true);
	in_a_crowd(66, false);
	printf("pages: %llu calls found no room, %llu of %llu looks saw one moment, %llu epochs were quiet\n",
	       (unsigned long long)no_room, (unsigned long long)coherent, (unsigned long long)walks,
	       (unsigned long long)quiet);
	ST_CHECK(quarry_pages_destroy(pages) == 0);
	return st_end(ST_SLACK, 0);
}
