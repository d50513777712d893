/* SPDX-License-Identifier: MIT */
/* Stress: arenas. 4,000 at once; arenas that are used by many threads while others reset, destroy and make them anew,
 * with thread default arenas and limits; arenas destroyed while other threads free what is in them; hard limits met by
 * several threads at once. For each pointer quarry_arena_of must name the arena it was allocated in. */
#include "tests/stress/stress.h"

#define MANY 4000
#define SPOTS 24
#define CARDS 96
#define MAX_BITS 16
#define RACERS_MAX 16
#define RACE_BLOCKS 128

/* ------------------------------------------------------------------------------------------------------ */
/* Many at once                                                                                           */

static void name_of(char *name, unsigned i)
{
	snprintf(name, QUARRY_ARENA_NAME_MAX, "stress arena %u", i);
}

struct held {
	quarry_arena *arena;
	struct st_block block[3];
};

static void many(void)
{
	struct held *held = st_pages(MANY * sizeof *held);
	quarry_arena **list = st_pages((MANY + 64) * sizeof *list);
	struct st_rng rng = st_rng_for(1000);
	char name[QUARRY_ARENA_NAME_MAX];
	size_t before = quarry_arenas(NULL, 0), n;

	for (unsigned i = 0; i < MANY; i++) {
		quarry_arena_attr attr = { .struct_size = sizeof attr };
		name_of(attr.name, i);
		held[i].arena = quarry_arena_create(&attr);
		if (held[i].arena == NULL)
			st_fail("arena %u of %u: errno %d: %s", i, MANY, errno, quarry_error_text());
		for (unsigned k = 0; k < 3; k++)
			st_make(&held[i].block[k], &rng, held[i].arena, i * 4 + k, st_size(&rng, 14));
	}
	n = quarry_arenas(list, MANY + 64);
	if (n != before + MANY)
		st_fail("%zu arenas listed, %zu before %u more", n, before, MANY);
	for (unsigned i = 0; i < MANY; i++) {
		name_of(name, i);
		ST_CHECK(strcmp(quarry_arena_name(held[i].arena), name) == 0);
		ST_CHECK(n > MANY + 64 || list[before + i] == held[i].arena); /* oldest first */
		for (unsigned k = 0; k < 3; k++) {
			st_block_verify(&held[i].block[k]);
			ST_CHECK(quarry_arena_of(held[i].block[k].p) == held[i].arena);
		}
	}
	/* Destroyed in an order of its own: 4,000 and 1,571 have no common factor. */
	for (unsigned i = 0; i < MANY; i++) {
		struct held *h = &held[i * 1571u % MANY];
		if (i & 1)
			st_drop(&h->block[1], &rng);
		ST_CHECK(quarry_arena_destroy(h->arena) == 0);
	}
	ST_CHECK(quarry_arenas(NULL, 0) == before);
	munmap(held, MANY * sizeof *held);
	munmap(list, (MANY + 64) * sizeof *list);
}

/* ------------------------------------------------------------------------------------------------------ */
/* Under load                                                                                             */

/* Who uses the arena holds the lock for reading, who resets or destroys it for writing: an arena's name for the
 * program dies with it. The cards and the records of them live in the arena itself. */
struct spot {
	pthread_rwlock_t lock;
	quarry_arena *arena;
	_Atomic(struct st_card *) card[CARDS];
	char name[QUARRY_ARENA_NAME_MAX];
};

static struct spot *spots;
static _Atomic uint64_t destroyed, resets, refused;

static void make_arena(struct spot *s, struct st_rng *rng)
{
	quarry_arena_attr attr = { .struct_size = sizeof attr };

	snprintf(attr.name, sizeof attr.name, "spot %u.%u", (unsigned)(s - spots), (unsigned)st_below(rng, 1000));
	attr.policy = (int32_t)st_below(rng, 6);
	attr.page_kind = (int32_t)st_below(rng, 3); /* no hugetlb: the pool is not ours to drain */
	attr.flags = st_below(rng, 4) == 0 ? QUARRY_ARENA_NODUMP : 0;
	attr.hard_limit = st_below(rng, 3) == 0 ? 256 * ST_KIB << st_below(rng, 3) : 0;
	attr.soft_limit = st_below(rng, 4) == 0 ? ST_MIB : 0;
	if (attr.hard_limit != 0 && attr.soft_limit > attr.hard_limit)
		attr.soft_limit = attr.hard_limit;
	memcpy(s->name, attr.name, sizeof s->name);
	s->arena = quarry_arena_create(&attr);
	if (s->arena == NULL)
		st_fail("arena_create (policy %d, pages %d): errno %d: %s", attr.policy, attr.page_kind, errno,
			quarry_error_text());
}

static void drop_card(struct st_card *card, quarry_arena *arena, struct st_rng *rng)
{
	ST_CHECK(quarry_arena_of(card->block.p) == arena && quarry_arena_of(card) == arena);
	if (st_next(rng) & 1) {
		st_card_drop(card, rng);
		return;
	}
	st_block_verify(&card->block);
	ST_CHECK(quarry_arena_free(arena, card->block.p) == 0);
	ST_CHECK(quarry_arena_free(arena, card) == 0);
}

/* One allocation in the arena; with a limit it may be refused, by ENOMEM alone. */
static void trade(struct spot *s, struct st_worker *w)
{
	struct st_card *card = quarry_arena_malloc(s->arena, sizeof *card);
	size_t size = st_size(&w->rng, MAX_BITS);

	if (card == NULL) {
		ST_CHECK(errno == ENOMEM);
		atomic_fetch_add_explicit(&refused, 1, memory_order_relaxed);
		return;
	}
	if (!st_try_make(&card->block, &w->rng, s->arena, w->next_id++, size)) {
		ST_CHECK(errno == ENOMEM);
		atomic_fetch_add_explicit(&refused, 1, memory_order_relaxed);
		quarry_free(card);
		return;
	}
	ST_CHECK(quarry_arena_of(card->block.p) == s->arena);
	card->seal = st_card_seal(card);
	card = atomic_exchange(&s->card[st_below(&w->rng, CARDS)], card);
	if (card != NULL)
		drop_card(card, s->arena, &w->rng);
}

/* Take a block out, resize it (it must stay in its arena), put it back. */
static void resize(struct spot *s, struct st_worker *w)
{
	_Atomic(struct st_card *) *place = &s->card[st_below(&w->rng, CARDS)];
	struct st_card *card = atomic_exchange(place, NULL);
	size_t size = st_size(&w->rng, MAX_BITS);
	struct st_block *b;
	unsigned char *p;

	if (card == NULL)
		return;
	b = &card->block;
	p = quarry_realloc(b->p, size);
	if (p == NULL) {
		ST_CHECK(errno == ENOMEM);
		st_block_verify(b);
	} else {
		st_verify(p, 0, b->size < size ? b->size : size, st_key(b->id, b->size), b->id, b->size);
		*b = (struct st_block){ .p = p, .asked = size, .size = size, .id = b->id };
		st_block_fill(b);
	}
	ST_CHECK(quarry_arena_of(b->p) == s->arena);
	card->seal = st_card_seal(card);
	card = atomic_exchange(place, card);
	if (card != NULL)
		drop_card(card, s->arena, &w->rng);
}

/* Plain calls go to the thread's default arena, which cannot be destroyed meanwhile. */
static void as_default(struct spot *s, struct st_worker *w)
{
	quarry_arena *before = NULL;
	void *p[8];

	ST_CHECK(quarry_thread_set_arena(s->arena, &before) == 0);
	ST_CHECK(before == NULL && quarry_thread_arena() == s->arena);
	for (unsigned i = 0; i < 8; i++) {
		size_t size = st_size(&w->rng, 12);
		p[i] = i & 1 ? quarry_malloc(size) : quarry_calloc(1, size);
		ST_CHECK(p[i] != NULL ? quarry_arena_of(p[i]) == s->arena : errno == ENOMEM);
	}
	errno = 0;
	ST_CHECK(quarry_arena_destroy(s->arena) == -1 && errno == EBUSY);
	ST_CHECK(quarry_thread_set_arena(before, NULL) == 0 && quarry_thread_arena() == NULL);
	for (unsigned i = 0; i < 8; i++)
		quarry_free(p[i]);
}

static void look(struct spot *s, struct st_worker *w)
{
	quarry_stats stats;

	st_stats(s->arena, &stats);
	ST_CHECK(strcmp(stats.name, s->name) == 0 && strcmp(quarry_arena_name(s->arena), s->name) == 0);
	ST_CHECK(stats.node == -1);
	if (st_next(&w->rng) & 1)
		quarry_purge(s->arena);
	else
		ST_CHECK(quarry_arena_set_limits(s->arena, stats.hard_limit, stats.soft_limit) == 0);
}

/* With the lock held for writing. */
static void clear(struct spot *s, struct st_worker *w, bool anew)
{
	for (unsigned i = 0; i < CARDS; i++) {
		struct st_card *card = atomic_exchange(&s->card[i], NULL);
		if (card == NULL)
			continue;
		ST_CHECK(card->seal == st_card_seal(card));
		st_block_verify(&card->block);
	}
	if (anew) {
		ST_CHECK(quarry_arena_destroy(s->arena) == 0);
		make_arena(s, &w->rng);
		atomic_fetch_add_explicit(&destroyed, 1, memory_order_relaxed);
	} else {
		quarry_stats stats;
		ST_CHECK(quarry_arena_reset(s->arena) == 0);
		st_stats(s->arena, &stats);
		if (stats.in_use != 0)
			st_fail("after reset %llu bytes are in use", (unsigned long long)stats.in_use);
		atomic_fetch_add_explicit(&resets, 1, memory_order_relaxed);
	}
}

static void load(struct st_worker *w)
{
	while (st_more(w)) {
		struct spot *s = &spots[st_below(&w->rng, SPOTS)];
		unsigned what = (unsigned)st_below(&w->rng, 1000);
		if (what < 4) {
			pthread_rwlock_wrlock(&s->lock);
			clear(s, w, what < 2);
			pthread_rwlock_unlock(&s->lock);
			continue;
		}
		pthread_rwlock_rdlock(&s->lock);
		if (what < 50)
			as_default(s, w);
		else if (what < 60)
			look(s, w);
		else if (what < 200)
			resize(s, w);
		else
			trade(s, w);
		pthread_rwlock_unlock(&s->lock);
	}
}

static void under_load(void)
{
	struct st_rng rng = st_rng_for(2000);

	spots = st_pages(SPOTS * sizeof *spots);
	for (unsigned i = 0; i < SPOTS; i++) {
		ST_CHECK(pthread_rwlock_init(&spots[i].lock, NULL) == 0);
		make_arena(&spots[i], &rng);
	}
	st_threads(load);
	for (unsigned i = 0; i < SPOTS; i++)
		ST_CHECK(quarry_arena_destroy(spots[i].arena) == 0);
	munmap(spots, SPOTS * sizeof *spots);
}

/* ------------------------------------------------------------------------------------------------------ */
/* Destroyed while others free; limits met together                                                       */

struct race {
	pthread_barrier_t barrier;
	quarry_arena *_Atomic arena;
	unsigned racers, rounds;
	_Atomic uint64_t frees, busy, live;
};

static struct race race;

/* Nobody allocates between the two barriers, so that no address gets a new meaning while old ones are freed. */
static void destroy_race(struct st_worker *w)
{
	struct st_block block[RACE_BLOCKS];

	for (unsigned round = 0; round < race.rounds; round++) {
		bool gone = false;
		if (w->number == 0)
			atomic_store(&race.arena, quarry_arena_create(NULL));
		pthread_barrier_wait(&race.barrier);
		ST_CHECK(atomic_load(&race.arena) != NULL);
		for (unsigned i = 0; i < RACE_BLOCKS; i++) {
			st_make(&block[i], &w->rng, atomic_load(&race.arena), w->next_id++, st_size(&w->rng, 15));
			st_block_verify(&block[i]);
		}
		pthread_barrier_wait(&race.barrier);
		if (w->number == 0) {
			gone = quarry_arena_destroy(atomic_load(&race.arena)) == 0;
			ST_CHECK(gone || errno == EBUSY);
			atomic_fetch_add(&race.busy, !gone);
		} else {
			for (unsigned i = 0; i < RACE_BLOCKS; i++)
				quarry_free(block[i].p);
			atomic_fetch_add(&race.frees, RACE_BLOCKS);
		}
		pthread_barrier_wait(&race.barrier);
		if (w->number == 0 && !gone)
			ST_CHECK(quarry_arena_destroy(atomic_load(&race.arena)) == 0);
		w->done += RACE_BLOCKS;
	}
}

/* All take until there is no more: what they have together is at most the limit, and not much less. Then it can be had
 * again. */
static void limit_race(struct st_worker *w)
{
	enum { LIMIT = 16 << 20, HOLD = 40000 };
	struct st_block *held = st_pages(HOLD * sizeof *held);

	if (w->number == 0) {
		atomic_store(&race.arena, quarry_arena_create(NULL));
		ST_CHECK(race.arena != NULL && quarry_arena_set_limits(race.arena, LIMIT, 0) == 0);
	}
	for (unsigned round = 0; round < 3; round++) {
		unsigned n = 0;
		pthread_barrier_wait(&race.barrier);
		while (n < HOLD && st_try_make(&held[n], &w->rng, race.arena, w->next_id++, st_size(&w->rng, 13))) {
			atomic_fetch_add(&race.live, quarry_usable_size(held[n].p));
			n++;
		}
		ST_CHECK(n < HOLD && errno == ENOMEM);
		pthread_barrier_wait(&race.barrier);
		if (atomic_load(&race.live) > LIMIT || atomic_load(&race.live) < LIMIT / 4)
			st_fail("with a hard limit of %d bytes, %llu were got", LIMIT, (unsigned long long)race.live);
		pthread_barrier_wait(&race.barrier);
		for (unsigned i = 0; i < n; i++) {
			atomic_fetch_sub(&race.live, quarry_usable_size(held[i].p));
			st_drop(&held[i], &w->rng);
		}
		quarry_thread_flush();
		w->done += n;
	}
	pthread_barrier_wait(&race.barrier);
	if (w->number == 0)
		ST_CHECK(quarry_arena_destroy(race.arena) == 0);
	munmap(held, HOLD * sizeof *held);
}

static void races(unsigned racers)
{
	static struct st_worker workers[RACERS_MAX];

	race.racers = racers;
	race.rounds = (unsigned)st_scaled(400, 10);
	ST_CHECK(pthread_barrier_init(&race.barrier, NULL, racers) == 0);
	st_start(workers, racers, destroy_race);
	st_join(workers, racers);
	st_start(workers, racers, limit_race);
	st_join(workers, racers);
	pthread_barrier_destroy(&race.barrier);
}

int main(int argc, char **argv)
{
	st_begin(argc, argv, "arenas", 1500000, 4);
	many();
	printf("arenas: %u at once\n", MANY);
	under_load();
	printf("arenas: %llu destroyed, %llu reset under load; %llu allocations refused by limits\n",
	       (unsigned long long)destroyed, (unsigned long long)resets, (unsigned long long)refused);
	races(st.threads < 2 ? 2 : st.threads > RACERS_MAX ? RACERS_MAX : st.threads);
	printf("arenas: %llu frees raced with destroy, which was refused %llu times\n", (unsigned long long)race.frees,
	       (unsigned long long)race.busy);
	return st_end(ST_SLACK, race.frees);
}
