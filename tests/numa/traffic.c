/* SPDX-License-Identifier: MIT */
/* Traffic between nodes: memory goes home, nothing gathers where it does not belong, nothing grows. */
#include "tests/numa/suite.h"

#include <stdatomic.h>

#define BOX 512
#define BATCH 64

/* What one node's thread has sent to another's. */
struct box {
	_Atomic(uint32_t) head, tail; /* head: written by the reader */
	void *slot[BOX];
};

struct worker {
	pthread_t thread;
	int index, id;
	uint64_t state, quota, allocated, freed;
	struct tally fresh;
};

static struct worker workers[16];
static struct box boxes[16][16]; /* from, to */
static int threads;
static _Atomic(int) senders;
static pthread_barrier_t barrier;

static bool send_one(struct box *b, void *p)
{
	uint32_t tail = atomic_load_explicit(&b->tail, memory_order_relaxed);

	if (tail - atomic_load_explicit(&b->head, memory_order_acquire) == BOX)
		return false;
	b->slot[tail % BOX] = p;
	atomic_store_explicit(&b->tail, tail + 1, memory_order_release);
	return true;
}

/* The first word says whose it was. */
static uint32_t free_all(struct box *b, uint64_t owner)
{
	uint32_t head = atomic_load_explicit(&b->head, memory_order_relaxed);
	uint32_t tail = atomic_load_explicit(&b->tail, memory_order_acquire), n = tail - head;

	for (; head != tail; head++) {
		uint64_t *p = b->slot[head % BOX];

		if (*p != owner)
			fail("an object from thread %llu holds %llu", (unsigned long long)owner,
			     (unsigned long long)*p);
		quarry_free(p);
	}
	atomic_store_explicit(&b->head, head, memory_order_release);
	return n;
}

static size_t traffic_size(uint64_t *state)
{
	uint64_t r = rnd(state);

	/* Mostly small, some of every class, now and then a block. */
	return r % 256 == 0 ? 32768 + (r >> 8) % 65536 : r % 8 == 0 ? 16 + (r >> 8) % 8192 : 16 + (r >> 8) % 240;
}

static uint64_t take_in(struct worker *w)
{
	uint64_t n = 0;

	for (int from = 0; from < threads; from++)
		n += free_all(&boxes[from][w->index], (uint64_t)from);
	w->freed += n;
	return n;
}

/* Afterwards, with all of the traffic over: what the node hands out is its own. */
static void look_at_fresh(struct worker *w)
{
	struct objects o = { .state = w->state };
	quarry_nodeset set = one_node(w->id);
	char what[100];

	MUST(objects_make(&o, SMALL, 12 * MIB, from_malloc, NULL));
	MUST(objects_make(&o, LARGE, 8 * MIB, from_malloc, NULL));
	objects_tally(&o, &w->fresh);
	snprintf(what, sizeof(what), "after the traffic, on node %d", w->id);
	verify_tally(&w->fresh, &set, what);
	objects_check(&o);
	objects_free(&o);
	free(o.list);
}

static void *work(void *arg)
{
	struct worker *w = arg;
	int to = w->index;

	pin_to_node(w->id);
	pthread_barrier_wait(&barrier);
	while (w->allocated < w->quota) {
		struct box *b;

		to = (to + 1) % threads;
		if (to == w->index)
			continue;
		b = &boxes[w->index][to];
		for (int i = 0; i < BATCH; i++) {
			uint64_t *p;

			if (atomic_load_explicit(&b->tail, memory_order_relaxed) -
				    atomic_load_explicit(&b->head, memory_order_acquire) ==
			    BOX)
				break;
			p = quarry_malloc(traffic_size(&w->state));
			if (p == NULL)
				fail("no memory on node %d", w->id);
			*p = (uint64_t)w->index;
			send_one(b, p);
			w->allocated++;
		}
		if (take_in(w) == 0)
			sched_yield();
	}
	atomic_fetch_sub(&senders, 1);
	while (atomic_load(&senders) > 0)
		if (take_in(w) == 0)
			sched_yield();
	pthread_barrier_wait(&barrier);
	take_in(w);
	quarry_thread_flush();
	pthread_barrier_wait(&barrier);
	look_at_fresh(w);
	pthread_barrier_wait(&barrier);
	quarry_thread_flush();
	return NULL;
}

static void run_traffic(void)
{
	uint64_t before[IDS], after[IDS], allocated = 0, freed = 0, home = 0, began = now_ms();

	need_nodes(2, 2);
	threads = machine.homes < 16 ? machine.homes : 16;
	atomic_store(&senders, threads);
	pthread_barrier_init(&barrier, NULL, (unsigned)threads);
	process_pages(before);
	for (int i = 0; i < threads; i++) {
		struct worker *w = &workers[i];

		w->index = i;
		w->id = machine.node[machine.home[i]].id;
		w->state = seed_of((unsigned)i);
		w->quota = options.operations / 2 / (unsigned)threads;
		MUST(pthread_create(&w->thread, NULL, work, w) == 0);
	}
	for (int i = 0; i < threads; i++) {
		pthread_join(workers[i].thread, NULL);
		allocated += workers[i].allocated;
		freed += workers[i].freed;
	}
	if (freed != allocated)
		fail("%llu objects were allocated, %llu freed", (unsigned long long)allocated,
		     (unsigned long long)freed);
	note("%llu operations in %llu ms on %d nodes", (unsigned long long)(allocated + freed),
	     (unsigned long long)(now_ms() - began), threads);
	/* Objects are what remote_frees counts, blocks go home by themselves; one in 256 is a block. */
	for (int i = 0; i < threads; i++)
		home += stats_of(quarry_arena_of_node(workers[i].id)).remote_frees;
	if (home < freed - freed / 128 - 100)
		fail("of %llu objects that were freed on another node, %llu have gone home", (unsigned long long)freed,
		     (unsigned long long)home);
	quarry_purge(NULL);
	process_pages(after);
	/* Nothing is in use any more. A thread's record and quarry's side arrays stay. */
	for (int i = 0; i < machine.memories; i++) {
		int id = machine.node[machine.memory[i]].id;

		if (after[id] > before[id] + 2048)
			fail("all is freed and purged, but node %d has %llu pages more than before", id,
			     (unsigned long long)(after[id] - before[id]));
	}
}

/* ---- a producer and a consumer ---- */

static _Atomic(bool) over;
static _Atomic(uint64_t) passed_on;

static void *produce(void *arg)
{
	uint64_t state = seed_of(1);

	pin_to_node(*(int *)arg);
	while (!atomic_load_explicit(&over, memory_order_relaxed)) {
		uint64_t *p = quarry_malloc(traffic_size(&state));

		MUST(p != NULL);
		*p = 0;
		while (!send_one(&boxes[0][1], p)) {
			if (atomic_load(&over)) {
				quarry_free(p);
				break;
			}
			sched_yield();
		}
	}
	return NULL;
}

static void *consume(void *arg)
{
	pin_to_node(*(int *)arg);
	while (!atomic_load_explicit(&over, memory_order_relaxed)) {
		uint32_t n = free_all(&boxes[0][1], 0);

		if (n == 0)
			sched_yield();
		atomic_fetch_add_explicit(&passed_on, n, memory_order_relaxed);
	}
	return NULL;
}

static void run_producer(void)
{
	uint64_t began = now_ms(), length = options.seconds * 1000ull, t;
	uint64_t warm = 0, late = 0, sum_warm = 0, sum_late = 0;
	unsigned n_warm = 0, n_late = 0;
	pthread_t producer, consumer;
	int from, to;

	need_nodes(2, 2);
	from = machine.node[machine.home[0]].id;
	to = machine.node[machine.home[machine.homes - 1]].id;
	MUST(pthread_create(&producer, NULL, produce, &from) == 0);
	MUST(pthread_create(&consumer, NULL, consume, &to) == 0);
	/* From a fifth to two fifths of the time against the last fifth. */
	while ((t = now_ms() - began) < length) {
		uint64_t rss = process_rss();

		if (t > length / 5 && t < length * 2 / 5) {
			warm = rss > warm ? rss : warm;
			sum_warm += rss;
			n_warm++;
		} else if (t > length * 4 / 5) {
			late = rss > late ? rss : late;
			sum_late += rss;
			n_late++;
		}
		pause_ms(100);
	}
	atomic_store(&over, true);
	pthread_join(producer, NULL);
	pthread_join(consumer, NULL);
	free_all(&boxes[0][1], 0);
	MUST(n_warm > 0 && n_late > 0);
	note("%llu objects passed on in %u s; resident %llu to %llu KiB on average",
	     (unsigned long long)atomic_load(&passed_on), options.seconds, (unsigned long long)(sum_warm / n_warm * 4),
	     (unsigned long long)(sum_late / n_late * 4));
	/* (On a slow machine the lists of both have not come to their lengths after a fifth of the time.) */
	if (late > warm + warm / 10 + 1024)
		fail("memory grew from %llu to %llu pages", (unsigned long long)warm, (unsigned long long)late);
	pin_to_node(from);
	MUST(quarry_thread_rebind(-1) == 0);
	look_at_fresh(&(struct worker){ .id = from, .state = seed_of(2) });
}

void add_traffic(void)
{
	TEST("traffic", "crosswise", run_traffic, .seconds = 300);
	TEST("traffic", "producer", run_producer, .seconds = options.seconds + 60);
}
