/* SPDX-License-Identifier: MIT */
/* Stress: blocks of arenas are let go, asked for, resized and noted by threads while another resets the arena or ends it. What was
 * late is told so, and touches nothing that is there since: plain memory of the arenas, and of the heap beside them, which each
 * thread fills and looks at, and frees itself. Who allocates in an arena does so under its lock, which a reset takes alone; who
 * uses a handle takes none. Each arena has a limit, so that some resizes fail and leave the block as it was. Half of the
 * time the option checked is on. */
#include "tests/stress/stress.h"

#include <pthread.h>

#include "include/quarry/block.h"

#define ARENAS 3
#define HANDLES 24 /* of each thread */
#define PLAIN 24
#define LIMIT ((uint64_t)24 << 20)
#define SWITCH_EVERY 20000 /* operations of a thread from one value of the option to the other */

struct arena {
	pthread_rwlock_t lock;
	quarry_arena *arena;
	quarry_manager *manager;
	uint64_t resets; /* that there were: under the lock */
};

static struct arena arenas[ARENAS];
static _Atomic(uint64_t) ended, gone, locked, moved, refused, late, resets, destroyed;

struct plain {
	unsigned char *p;
	size_t n;
	uint64_t key, resets;
	struct arena *of; /* NULL: the heap's */
};

static __thread struct {
	quarry_block handles[HANDLES];
	struct plain plain[PLAIN];
} mine;

static void count(_Atomic(uint64_t) *figure)
{
	atomic_fetch_add_explicit(figure, 1, memory_order_relaxed);
}

static size_t some_size(struct st_rng *rng)
{
	static const size_t sizes[] = { 48, 100, 3000, 40 * 1024, 300 * 1024 };

	return sizes[st_below(rng, 5)] + st_below(rng, 16);
}

static void make(struct arena *a)
{
	quarry_arena_attr attr = { .name = "lives", .hard_limit = LIMIT };

	a->arena = quarry_arena_create(&attr);
	ST_CHECK(a->arena != NULL);
	a->manager = quarry_manager_of_arena(a->arena);
	ST_CHECK(a->manager != NULL);
}

/* ---- handles: without a lock ---- */

/* (With the option on that counts as a bad free.) */
static void check_late(int r)
{
	ST_CHECK(r >= 0 || errno == ESTALE);
	if (r < 0)
		count(&late);
}

static void let_go(quarry_block *b)
{
	int r = b->count == NULL ? 0 : quarry_block_unref(b);

	check_late(r);
	count(r > 0 ? &ended : &gone);
	*b = (quarry_block){ 0 };
}

static void ask(quarry_block *b)
{
	quarry_weak w = { .p = b->p, .n = b->n, .count = b->count, .generation = b->generation };
	quarry_block other;

	if (b->count == NULL)
		return;
	if (quarry_weak_lock(w, &other) == 0) {
		count(&locked);
		check_late(quarry_block_unref(&other));
	} else {
		ST_CHECK(errno == ESTALE);
	}
}

static void resize(quarry_block *b, struct st_rng *rng)
{
	size_t n = st_below(rng, 8) == 0 ? 2 * LIMIT : some_size(rng);
	int r;

	if (b->count == NULL)
		return;
	r = quarry_block_resize(b, n, 0);
	/* (Somebody may just be at its word with a handle of long ago: EBUSY.) */
	if (r != 0 && errno != ENOMEM && errno != EBUSY)
		check_late(r);
	count(r == 0 ? &moved : &refused);
}

/* ---- plain memory: each thread's own ---- */

static void drop(struct plain *m)
{
	if (m->p == NULL)
		return;
	if (m->of != NULL)
		ST_CHECK(pthread_rwlock_rdlock(&m->of->lock) == 0);
	if (m->of == NULL || m->of->resets == m->resets) {
		st_verify(m->p, 0, m->n, m->key, 0, m->n);
		ST_CHECK(quarry_arena_free(m->of == NULL ? NULL : m->of->arena, m->p) == 0);
	}
	if (m->of != NULL)
		ST_CHECK(pthread_rwlock_unlock(&m->of->lock) == 0);
	m->p = NULL;
}

static void take(struct plain *m, struct arena *a, struct st_worker *w)
{
	drop(m);
	*m = (struct plain){ .n = some_size(&w->rng), .key = st_key(w->next_id++, 1), .of = a };
	if (a != NULL) {
		ST_CHECK(pthread_rwlock_rdlock(&a->lock) == 0);
		m->resets = a->resets;
	}
	m->p = a == NULL ? quarry_malloc(m->n) : quarry_arena_malloc(a->arena, m->n);
	if (m->p != NULL)
		st_fill(m->p, 0, m->n, m->key);
	else
		ST_CHECK(errno == ENOMEM && a != NULL);
	if (a != NULL)
		ST_CHECK(pthread_rwlock_unlock(&a->lock) == 0);
}

/* ---- all ---- */

static void begin_block(quarry_block *b, struct arena *a, struct st_rng *rng)
{
	let_go(b);
	ST_CHECK(pthread_rwlock_rdlock(&a->lock) == 0);
	*b = quarry_block_alloc(a->manager, some_size(rng));
	ST_CHECK(b->p != NULL || errno == ENOMEM);
	ST_CHECK(pthread_rwlock_unlock(&a->lock) == 0);
}

static void end_or_reset(struct arena *a, bool destroy)
{
	ST_CHECK(pthread_rwlock_wrlock(&a->lock) == 0);
	ST_CHECK((destroy ? quarry_arena_destroy(a->arena) : quarry_arena_reset(a->arena)) == 0);
	if (destroy)
		make(a);
	a->resets++;
	count(destroy ? &destroyed : &resets);
	ST_CHECK(pthread_rwlock_unlock(&a->lock) == 0);
}

static void work(struct st_worker *w)
{
	for (uint64_t i = 1; st_more(w); i++) {
		struct arena *a = &arenas[st_below(&w->rng, ARENAS)];
		quarry_block *b = &mine.handles[st_below(&w->rng, HANDLES)];
		struct plain *m = &mine.plain[st_below(&w->rng, PLAIN)];
		uint64_t what = st_below(&w->rng, 100);

		if (i % SWITCH_EVERY == 0 && w->number == 0)
			ST_CHECK(quarry_ctl_set("checked", i / SWITCH_EVERY % 2 ? "1" : "0") == 0);
		if (what < 1)
			end_or_reset(a, i % 4 == 0);
		else if (what < 30)
			begin_block(b, a, &w->rng);
		else if (what < 50)
			let_go(b);
		else if (what < 65)
			ask(b);
		else if (what < 80)
			resize(b, &w->rng);
		else if (what < 95)
			take(m, what < 85 ? NULL : a, w);
		else
			drop(m);
	}
	for (unsigned i = 0; i < HANDLES; i++)
		let_go(&mine.handles[i]);
	for (unsigned i = 0; i < PLAIN; i++)
		drop(&mine.plain[i]);
}

int main(int argc, char **argv)
{
	st_begin(argc, argv, "lives", 400000, 3);
	for (unsigned i = 0; i < ARENAS; i++) {
		ST_CHECK(pthread_rwlock_init(&arenas[i].lock, NULL) == 0);
		make(&arenas[i]);
	}
	st_threads(work);
	for (unsigned i = 0; i < ARENAS; i++)
		ST_CHECK(quarry_arena_destroy(arenas[i].arena) == 0);
	ST_CHECK(quarry_block_check(QUARRY_CHECK_RELEASE) == 0);
	printf("lives: %llu blocks ended, %llu were gone, %llu locked, %llu resized, %llu not; %llu resets, %llu arenas ended\n",
	       (unsigned long long)ended, (unsigned long long)gone, (unsigned long long)locked, (unsigned long long)moved,
	       (unsigned long long)refused, (unsigned long long)resets, (unsigned long long)destroyed);
	ST_CHECK(ended > 0 && gone > 0 && locked > 0 && moved > 0 && refused > 0 && resets > 0 && destroyed > 0);
	return st_end(ST_SLACK + 64 * destroyed, late); /* (what stays of an arena as a manager) */
}
