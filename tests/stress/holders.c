/* SPDX-License-Identifier: MIT */
/* Stress: what stands in an arena comes and goes while another thread ends that arena, or resets it, as often as it may.
 * Page allocators, stacks and pools: each is made whole or not at all, has its memory to itself as long as it is there,
 * and the arena is not ended before it is gone. */
#include <sched.h>

#include "include/quarry/pages.h"
#include "include/quarry/pool.h"
#include "include/quarry/stack.h"
#include "tests/stress/stress.h"

#define PAGES 16
#define PAGE ((size_t)4096)
#define OBJECTS 24
#define BESIDE 6 /* blocks of the arena beside it */
#define MAKERS_MAX 64

enum turn { IDLE, RESET, END, ENDED, OVER };

/* A thread that makes, and one that ends. */
struct pair {
	_Atomic(int) turn;
	_Atomic(quarry_arena *) arena;
	_Atomic(uint64_t) tries; /* to end it, or to reset it */
	pthread_t ender;
};

static struct pair pairs[MAKERS_MAX];
static _Atomic(uint64_t) resets, refused, made, gone;

static void end_or_reset(struct pair *pair, int turn)
{
	quarry_arena *arena = atomic_load(&pair->arena);

	atomic_fetch_add(&pair->tries, 1);
	if ((turn == END ? quarry_arena_destroy(arena) : quarry_arena_reset(arena)) != 0) {
		ST_CHECK(errno == EBUSY);
		atomic_fetch_add(&refused, 1);
	} else if (turn == END) {
		atomic_store(&pair->turn, ENDED);
	} else {
		atomic_fetch_add(&resets, 1);
	}
}

static void *ender(void *arg)
{
	struct pair *pair = arg;

	for (unsigned idle = 0;; idle++) {
		int turn = atomic_load(&pair->turn);

		if (turn == OVER)
			return NULL;
		if (turn == RESET || turn == END)
			end_or_reset(pair, turn);
		else if (idle % 1024 == 0)
			sched_yield();
	}
}

/* ---- what is made ---- */

struct thing {
	quarry_pages *pages;
	quarry_stack *stack;
	quarry_pool *pool;
	unsigned char *part[OBJECTS]; /* its memory */
	size_t size;
	unsigned parts;
};

/* False: the arena was gone. */
static bool make(struct thing *thing, unsigned kind, quarry_arena *arena, quarry_manager *manager)
{
	*thing = (struct thing){ 0 };
	errno = 0;
	if (kind == 0) {
		quarry_pages_attr attr = { .page_size = PAGE, .count = PAGES, .arena = arena };

		thing->pages = quarry_pages_create(&attr);
	} else if (kind == 1) {
		quarry_stack_attr attr = { .manager = manager, .chunk = 2048, .flags = QUARRY_STACK_SPILL };

		thing->stack = quarry_stack_create(&attr);
	} else {
		quarry_pool_attr attr = { .struct_size = sizeof attr, .size = 200, .arena = arena };

		thing->pool = quarry_pool_create(&attr);
	}
	if (thing->pages != NULL || thing->stack != NULL || thing->pool != NULL)
		return true;
	if (errno != EINVAL)
		st_fail("kind %u: errno %d: %s", kind, errno, quarry_error_text());
	return false;
}

static void take_parts(struct thing *thing)
{
	thing->size = thing->pages != NULL ? PAGE : thing->stack != NULL ? 700 : 200;
	thing->parts = thing->pages != NULL ? PAGES : OBJECTS;
	for (unsigned i = 0; i < thing->parts; i++) {
		thing->part[i] = thing->pages != NULL ? quarry_pages_alloc(thing->pages, 1)
				 : thing->stack != NULL ? quarry_stack_alloc(thing->stack, thing->size)
							: quarry_pool_get(thing->pool);
		ST_CHECK(thing->part[i] != NULL);
	}
}

/* Its memory is its own, and of no block that its arena gives meanwhile. */
static void use(struct thing *thing, quarry_arena *arena, struct st_worker *w)
{
	struct st_block beside[BESIDE];
	uint64_t key = st_key(w->next_id++, thing->size);

	take_parts(thing);
	for (unsigned i = 0; i < thing->parts; i++)
		st_fill(thing->part[i], 0, thing->size, key + i);
	for (unsigned i = 0; i < BESIDE; i++)
		st_make(&beside[i], &w->rng, arena, w->next_id++, st_size(&w->rng, 16));
	for (unsigned i = 0; i < thing->parts; i++)
		st_verify(thing->part[i], 0, thing->size, key + i, i, thing->size);
	for (unsigned i = 0; i < BESIDE; i++)
		st_drop(&beside[i], &w->rng);
	for (unsigned i = 0; thing->pool != NULL && i < thing->parts; i++)
		ST_CHECK(quarry_pool_put(thing->pool, thing->part[i], QUARRY_POOL_SAFE) == 0);
}

static void unmake(struct thing *thing)
{
	if (thing->pages != NULL)
		ST_CHECK(quarry_pages_destroy(thing->pages) == 0);
	quarry_stack_destroy(thing->stack);
	ST_CHECK(quarry_pool_destroy(thing->pool, 0) == 0);
}

/* ---- rounds ---- */

/* Until the other one is at it. */
static void meet(struct pair *pair)
{
	uint64_t tries = atomic_load(&pair->tries);

	while (atomic_load(&pair->tries) == tries)
		sched_yield();
}

static void linger(struct st_rng *rng)
{
	for (volatile uint64_t i = st_below(rng, 3000); i > 0; i--)
		;
}

/* In an arena that comes to an end as soon as it may: before, or when it is no more used. (Another maker's may have the
 * handle by then, and be the one that it is made in.) */
static void make_at_the_end(struct pair *pair, struct st_worker *w)
{
	quarry_arena *kept = atomic_load(&pair->arena), *arena = quarry_arena_create(NULL);
	quarry_manager *manager = quarry_manager_of_arena(arena);
	struct thing thing;

	ST_CHECK(arena != NULL && manager != NULL);
	atomic_store(&pair->arena, arena);
	atomic_store(&pair->turn, END);
	linger(&w->rng);
	if (make(&thing, (unsigned)st_below(&w->rng, 3), arena, manager)) {
		atomic_fetch_add(&made, 1);
		use(&thing, arena, w);
		meet(pair);
		linger(&w->rng);
		unmake(&thing);
	} else {
		atomic_fetch_add(&gone, 1);
	}
	while (atomic_load(&pair->turn) != ENDED)
		sched_yield();
	atomic_store(&pair->arena, kept);
}

static void maker(struct st_worker *w)
{
	struct pair *pair = &pairs[w->number];
	quarry_arena *arena = quarry_arena_create(NULL);
	quarry_manager *manager = quarry_manager_of_arena(arena);
	struct thing thing;

	ST_CHECK(arena != NULL && manager != NULL);
	atomic_store(&pair->arena, arena);
	while (st_more(w)) {
		if (w->done % 8 == 0) {
			make_at_the_end(pair, w);
			continue;
		}
		if (w->done % 8 == 1) {
			atomic_store(&pair->turn, RESET);
			meet(pair);
		}
		linger(&w->rng);
		ST_CHECK(make(&thing, (unsigned)st_below(&w->rng, 3), arena, manager));
		use(&thing, arena, w);
		if (w->done % 8 == 4)
			meet(pair);
		unmake(&thing);
		if (w->done % 8 == 7)
			atomic_store(&pair->turn, IDLE);
	}
	atomic_store(&pair->turn, OVER);
	ST_CHECK(pthread_join(pair->ender, NULL) == 0);
	ST_CHECK(quarry_arena_destroy(arena) == 0);
}

int main(int argc, char **argv)
{
	st_begin(argc, argv, "holders", 12000, 2);
	if (st.threads > MAKERS_MAX)
		st_fail("--threads: %d at most", MAKERS_MAX);
	for (unsigned i = 0; i < st.threads; i++)
		ST_CHECK(pthread_create(&pairs[i].ender, NULL, ender, &pairs[i]) == 0);
	st_threads(maker);
	printf("holders: %llu resets, %llu refused; of arenas that ended %llu had something made in them, %llu were gone\n",
	       (unsigned long long)resets, (unsigned long long)refused, (unsigned long long)made,
	       (unsigned long long)gone);
	ST_CHECK(made > 0 && refused > 0 && resets > 0);
	return st_end(ST_SLACK, 0);
}
