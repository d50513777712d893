/* SPDX-License-Identifier: MIT */
/* Stress: threads that are moved from node to node all the time, on four nodes that the fake kernel plays. What they
 * allocate is freed by others; arenas of the local policy are used, reset, destroyed and made anew under them; they are
 * bound to homes and let go. What is allocated by a slow path must be of the node that the thread is on by then. Every
 * other thread reads its CPU as from rseq, and refills without entering while it stays. */
#include "tests/stress/stress.h"

#include "lib/cache/thread.h"
#include "lib/manager/manager.h"
#include "tests/fake_os.h"

#define NODES 4
#define SLOTS 2048
#define SPOTS 6
#define CARDS 64
#define MAX_BITS 17

/* The library starts before main, so the machine is made before that. */
static __attribute__((constructor(101))) void make_machine(void)
{
	fake_os_install();
	fake_os_nodes("0-3");
	fake_os_cpus(0, "0-1");
	fake_os_cpus(1, "2-3");
	fake_os_cpus(2, "4-5");
	fake_os_cpus(3, "6-7");
	for (int k = 0; k < NODES; k++)
		fake_os_memory(k, (uint64_t)1 << 40, (uint64_t)1 << 39);
}

static __thread volatile int32_t cpu_now;
static __thread int home;

static void move_to(int cpu)
{
	cpu_now = cpu;
	fake_os_this_thread_on_cpu(cpu);
}

static uint32_t node_now(void)
{
	return (uint32_t)(home >= 0 ? home : cpu_now / 2);
}

static _Atomic(struct st_card *) *table;
static _Atomic(uint64_t) moved, rebound, resets, destroyed;

/* ------------------------------------------------------------------------------------------------------ */
/* Plain allocations, which others free                                                                   */

static void swap_one(struct st_worker *w)
{
	struct st_card *card = st_card_make(&w->rng, w->next_id++, st_size(&w->rng, MAX_BITS));

	card = atomic_exchange(&table[st_below(&w->rng, SLOTS)], card);
	if (card != NULL)
		st_card_drop(card, &w->rng);
}

static void check_plain(void)
{
	void *p = quarry_malloc(40000);

	ST_CHECK(p != NULL && qy_manager_of(p)->of_node);
	if (qy_manager_of(p)->index != node_now())
		st_fail("memory of node %u, on node %u", qy_manager_of(p)->index, node_now());
	quarry_free(p);
}

/* ------------------------------------------------------------------------------------------------------ */
/* Families                                                                                               */

struct spot {
	pthread_rwlock_t lock;
	quarry_arena *arena;
	_Atomic(struct st_card *) card[CARDS];
};

static struct spot spots[SPOTS];

static void make_spot(struct spot *s, struct st_rng *rng)
{
	quarry_arena_attr attr = { .name = "spot", .hard_limit = st_next(rng) & 1 ? 0 : 4 * ST_MIB };

	s->arena = quarry_arena_create(&attr);
	if (s->arena == NULL)
		st_fail("arena_create: errno %d: %s", errno, quarry_error_text());
	ST_CHECK(qy_manager_of_arena(s->arena)->locals != NULL);
}

static void trade(struct spot *s, struct st_worker *w)
{
	struct st_card *card = quarry_arena_malloc(s->arena, sizeof *card);

	if (card == NULL) {
		ST_CHECK(errno == ENOMEM);
		return;
	}
	ST_CHECK(quarry_arena_of(card) == s->arena);
	/* (A list may hold what was got before a move, for the node that the thread was on; it goes when it looks.) */
	if (qy_manager_of(card)->local != node_now())
		st_fail("a family's memory of node %u, on node %u", qy_manager_of(card)->local, node_now());
	if (!st_try_make(&card->block, &w->rng, s->arena, w->next_id++, st_size(&w->rng, MAX_BITS))) {
		ST_CHECK(errno == ENOMEM);
		quarry_free(card);
		return;
	}
	card->seal = st_card_seal(card);
	card = atomic_exchange(&s->card[st_below(&w->rng, CARDS)], card);
	if (card != NULL)
		st_card_drop(card, &w->rng);
}

static void as_default(struct spot *s, struct st_worker *w)
{
	void *p[40];

	ST_CHECK(quarry_thread_set_arena(s->arena, NULL) == 0);
	for (unsigned i = 0; i < 40; i++) {
		p[i] = quarry_malloc(st_size(&w->rng, 12));
		ST_CHECK(p[i] == NULL || quarry_arena_of(p[i]) == s->arena);
		if (i % 16 == 7)
			move_to((int)st_below(&w->rng, 2 * NODES));
	}
	ST_CHECK(quarry_thread_set_arena(NULL, NULL) == 0);
	for (unsigned i = 0; i < 40; i++)
		quarry_free(p[i]);
}

/* With the lock held for writing. */
static void clear(struct spot *s, struct st_worker *w)
{
	bool anew = st_next(&w->rng) & 1;
	quarry_stats stats;

	for (unsigned i = 0; i < CARDS; i++) {
		struct st_card *card = atomic_exchange(&s->card[i], NULL);

		if (card != NULL)
			st_block_verify(&card->block);
	}
	if (anew) {
		ST_CHECK(quarry_arena_destroy(s->arena) == 0);
		make_spot(s, &w->rng);
		atomic_fetch_add(&destroyed, 1);
		return;
	}
	ST_CHECK(quarry_arena_reset(s->arena) == 0);
	st_stats(s->arena, &stats);
	if (stats.in_use != 0 || qy_manager_used(qy_manager_of_arena(s->arena)) != 0)
		st_fail("after reset %llu bytes are in use", (unsigned long long)stats.in_use);
	atomic_fetch_add(&resets, 1);
}

static void use_spot(struct st_worker *w)
{
	struct spot *s = &spots[st_below(&w->rng, SPOTS)];
	unsigned what = (unsigned)st_below(&w->rng, 1000);

	if (what < 4) {
		pthread_rwlock_wrlock(&s->lock);
		clear(s, w);
	} else {
		pthread_rwlock_rdlock(&s->lock);
		if (what < 30)
			as_default(s, w);
		else if (what < 35)
			quarry_purge(s->arena);
		else
			trade(s, w);
	}
	pthread_rwlock_unlock(&s->lock);
}

/* ------------------------------------------------------------------------------------------------------ */

static void rebind(struct st_worker *w)
{
	home = st_next(&w->rng) & 1 ? -1 : (int)st_below(&w->rng, NODES);
	ST_CHECK(quarry_thread_rebind(home) == 0);
	atomic_fetch_add(&rebound, 1);
}

static void live(struct st_worker *w)
{
	quarry_stats stats;

	home = -1;
	move_to((int)st_below(&w->rng, 2 * NODES));
	quarry_free(quarry_malloc(1));
	if (w->number % 2) {
		qy_tls.thread->cpu_now = &cpu_now;
		rebind(w);
	}
	while (st_more(w)) {
		unsigned what = (unsigned)st_below(&w->rng, 2000);

		if (what < 40) {
			move_to((int)st_below(&w->rng, 2 * NODES));
			atomic_fetch_add(&moved, 1);
		} else if (what < 42) {
			rebind(w);
		} else if (what < 43) {
			quarry_thread_flush();
		} else if (what < 44) {
			st_stats(NULL, &stats);
		} else if (what < 60) {
			check_plain();
		} else if (what < 900) {
			use_spot(w);
		} else {
			swap_one(w);
		}
	}
	fake_os_this_thread_on_cpu(-1);
}

/* Threads come and go, so that records change hands. */
static void generations(void)
{
	static struct st_worker workers[ST_THREADS_MAX];
	uint64_t ops = st.ops;

	st.ops = ops / 8;
	for (unsigned i = 0; i < 8; i++) {
		st_start(workers, st.threads, live);
		st_join(workers, st.threads);
	}
	st.ops = ops;
}

int main(int argc, char **argv)
{
	struct st_rng rng;

	st_begin(argc, argv, "nodes", 800000, 6);
	rng = st_rng_for(ST_THREADS_MAX);
	table = st_pages(SLOTS * sizeof *table);
	for (unsigned i = 0; i < SPOTS; i++) {
		ST_CHECK(pthread_rwlock_init(&spots[i].lock, NULL) == 0);
		make_spot(&spots[i], &rng);
	}
	generations();
	for (unsigned i = 0; i < SLOTS; i++)
		if (table[i] != NULL)
			st_card_drop(table[i], &rng);
	for (unsigned i = 0; i < SPOTS; i++)
		ST_CHECK(quarry_arena_destroy(spots[i].arena) == 0);
	printf("nodes: %llu moves, %llu times given a home or let go; arenas %llu times reset, %llu destroyed\n",
	       (unsigned long long)moved, (unsigned long long)rebound, (unsigned long long)resets,
	       (unsigned long long)destroyed);
	return st_end(ST_SLACK, 0);
}
