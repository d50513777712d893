/* SPDX-License-Identifier: MIT */
/* Stress: each thread owns a slab, and its buffers are released by every other. What a thread takes out it fills and
 * leaves in a slot of one table; what it finds there it looks through and releases, adopts, or releases against another
 * thread that releases the same: one of the two wins, each time, also when the number is out again by then. Who finds
 * his slab empty waits, and collects only when he is called. */
#include "include/quarry/buffers.h"
#include "tests/stress/stress.h"

#include <sched.h>

#define SLOTS 64
#define COUNT 48
#define SIZE 8192

/* A buffer on its way; with `racers` above 1, in so many slots. */
struct sent {
	quarry_buffer b;
	uint64_t key;
	uint32_t filled;
	_Atomic(uint32_t) racers, won;
};

static _Atomic(struct sent *) slot[SLOTS];

static struct owner {
	quarry_buffers *slab;
	quarry_buffers_waiter waiter;
	struct st_worker *w;
	bool waits;
	_Atomic(uint32_t) called;
} owner[ST_THREADS_MAX];

static _Atomic(uint64_t) races, moved, waited, pinned;

/* What is pinned stays, where pins are counted; there may be too many that are. */
static void pin_for_a_moment(quarry_buffer b)
{
	if (quarry_buffer_pin(b, 0) == NULL) {
		ST_CHECK(errno == EAGAIN && (b.flags & QUARRY_BUFFER_COUNTED));
		return;
	}
	if (b.flags & QUARRY_BUFFER_COUNTED) {
		ST_CHECK(quarry_buffer_release(b) == -1 && errno == EBUSY);
		atomic_fetch_add(&pinned, 1);
	}
	ST_CHECK(quarry_buffer_unpin(b) == 0);
}

static void take_in(struct sent *sent, struct st_rng *rng)
{
	bool lost;

	if (sent == NULL)
		return;
	if (sent->filled != 0) {
		ST_CHECK(quarry_buffer_check(sent->b) == sent->b.p);
		st_verify(sent->b.p, 0, sent->filled, sent->key, sent->key, sent->filled);
		if (st_below(rng, 8) == 0)
			pin_for_a_moment(sent->b);
	}
	if (sent->filled != 0 && st_below(rng, 64) == 0) {
		ST_CHECK(quarry_buffer_adopt(&sent->b, NULL, st_next(rng) & 1 ? QUARRY_ADOPT_COPY : 0) == 0);
		if (sent->b.flags & QUARRY_BUFFER_MOVED)
			atomic_fetch_add(&moved, 1);
		st_verify(sent->b.p, 0, sent->filled, sent->key, sent->key, sent->filled);
	}
	lost = quarry_buffer_release(sent->b) != 0;
	ST_CHECK(!lost || errno == EALREADY);
	if (!lost)
		atomic_fetch_add(&sent->won, 1);
	if (atomic_fetch_sub(&sent->racers, 1) != 1)
		return;
	if (atomic_load(&sent->won) != 1)
		st_fail("a buffer was released %u times", atomic_load(&sent->won));
	quarry_free(sent);
}

static void send(struct owner *o, quarry_buffer b)
{
	struct st_rng *rng = &o->w->rng;
	struct sent *sent = quarry_malloc(sizeof *sent);
	bool race = o->w->number % 2 == 0 && st_below(rng, 4) == 0;

	ST_CHECK(sent != NULL);
	*sent = (struct sent){ .b = b, .key = o->w->next_id++ };
	atomic_store(&sent->racers, race ? 2 : 1);
	if (race) {
		atomic_fetch_add(&races, 1);
	} else {
		sent->filled = 1 + (uint32_t)st_below(rng, st_below(rng, 8) == 0 ? SIZE : 256);
		sent->b.len = sent->filled;
		st_fill(b.p, 0, sent->filled, sent->key);
	}
	for (int i = race ? 2 : 1; i > 0; i--)
		take_in(atomic_exchange(&slot[st_below(rng, SLOTS)], sent), rng);
}

static void ready(quarry_buffers_waiter *waiter, quarry_buffer b)
{
	struct owner *o = waiter->ctx;

	o->waits = false;
	send(o, b);
}

static void wake(void *ctx)
{
	atomic_store(&((struct owner *)ctx)->called, 1);
}

static void own(struct st_worker *w)
{
	struct owner *o = &owner[w->number];
	quarry_buffer b;

	ST_CHECK(quarry_buffers_own(o->slab) == 0);
	o->w = w;
	while (st_more(w)) {
		if (atomic_exchange(&o->called, 0))
			quarry_buffers_collect(o->slab);
		if (o->waits) {
			take_in(atomic_exchange(&slot[st_below(&w->rng, SLOTS)], NULL), &w->rng);
		} else if (quarry_buffers_get(o->slab, &b) == 0) {
			send(o, b);
		} else {
			ST_CHECK(errno == ENOBUFS);
			atomic_fetch_add(&waited, 1);
			o->waits = true;
			quarry_buffers_wait(o->slab, &o->waiter);
		}
	}
}

static void end(struct owner *o)
{
	quarry_buffers_stats stats = { .struct_size = sizeof stats };

	ST_CHECK(quarry_buffers_own(o->slab) == 0);
	if (o->waits) {
		ST_CHECK(atomic_load(&o->called) == 1); /* nobody is left who would */
		ST_CHECK(quarry_buffers_cancel(o->slab, &o->waiter) == 0);
	}
	quarry_buffers_collect(o->slab);
	ST_CHECK(quarry_buffers_stats_get(o->slab, &stats) == 0);
	ST_CHECK(stats.free == COUNT);
	ST_CHECK(stats.gets == stats.puts + stats.returns);
	ST_CHECK(quarry_buffers_destroy(o->slab) == 0);
}

/* The owner and one other release or adopt the same buffer at the same moment, many times. */
static struct {
	_Atomic(uint64_t) turn, done;
	_Atomic(uint32_t) won;
	quarry_buffer b;
	uint64_t turns;
} duel;

static void await(_Atomic(uint64_t) *what, uint64_t turn)
{
	for (unsigned spins = 1; atomic_load_explicit(what, memory_order_acquire) != turn; spins++)
		if (spins % 512 == 0)
			sched_yield();
}

/* Who loses has the buffer as it was; who wins has what was in it. */
static bool adopts(void)
{
	quarry_buffer mine = duel.b;

	if (quarry_buffer_adopt(&mine, NULL, 0) != 0) {
		ST_CHECK(errno == ESTALE);
		ST_CHECK(mine.p == duel.b.p && mine.flags == duel.b.flags && mine.generation == duel.b.generation);
		return false;
	}
	st_verify(mine.p, 0, SIZE, duel.turn, duel.turn, SIZE);
	quarry_free(mine.p);
	return true;
}

static void *second(void *arg)
{
	(void)arg;
	for (uint64_t turn = 1; turn <= duel.turns; turn++) {
		await(&duel.turn, turn);
		if (turn % 2 == 0 ? adopts() : quarry_buffer_release(duel.b) == 0)
			atomic_fetch_add(&duel.won, 1);
		atomic_store_explicit(&duel.done, turn, memory_order_release);
	}
	return NULL;
}

static void fight(void)
{
	quarry_buffers_attr attr = { .struct_size = sizeof attr, .size = SIZE, .count = 4, .alignment = 4096,
		.flags = QUARRY_BUFFERS_CHECKED };
	quarry_buffers *slab = quarry_buffers_create(&attr);
	pthread_t thread;

	ST_CHECK(slab != NULL);
	duel.turns = st_scaled(50000, 1000);
	ST_CHECK(pthread_create(&thread, NULL, second, NULL) == 0);
	for (uint64_t turn = 1; turn <= duel.turns; turn++) {
		ST_CHECK(quarry_buffers_get(slab, &duel.b) == 0);
		atomic_store(&duel.won, 0);
		if (turn % 2 == 0)
			st_fill(duel.b.p, 0, SIZE, turn);
		atomic_store_explicit(&duel.turn, turn, memory_order_release);
		/* The other has some way to go. */
		for (volatile unsigned wait = (unsigned)turn % 61 * (turn % 2 == 0 ? 32 : 1); wait > 0;)
			wait = wait - 1;
		if (turn % 4 == 2 ? adopts() : quarry_buffer_release(duel.b) == 0)
			atomic_fetch_add(&duel.won, 1);
		await(&duel.done, turn);
		if (atomic_load(&duel.won) != 1)
			st_fail("of two releases at one moment %u counted", atomic_load(&duel.won));
		quarry_buffers_collect(slab);
	}
	ST_CHECK(pthread_join(thread, NULL) == 0);
	ST_CHECK(quarry_buffers_destroy(slab) == 0);
}

int main(int argc, char **argv)
{
	struct st_rng rng;

	st_begin(argc, argv, "buffers", 600000, 4);
	rng = st_rng_for(1000);
	for (unsigned i = 0; i < st.threads; i++) {
		quarry_buffers_attr attr = { .struct_size = sizeof attr, .size = SIZE, .count = COUNT, .alignment = 4096,
			.flags = i % 2 == 0 ? QUARRY_BUFFERS_CHECKED : 0, .wake = wake, .ctx = &owner[i],
			.held_ms = i % 4, .pins_max = i % 4 / 2 * 2 };

		owner[i].slab = quarry_buffers_create(&attr);
		owner[i].waiter = (quarry_buffers_waiter){ .ready = ready, .ctx = &owner[i] };
		ST_CHECK(owner[i].slab != NULL);
	}
	st_threads(own);
	for (int i = 0; i < SLOTS; i++)
		take_in(atomic_exchange(&slot[i], NULL), &rng);
	printf("buffers: %llu races, %llu moved, %llu waits, %llu pinned\n", (unsigned long long)atomic_load(&races),
	       (unsigned long long)atomic_load(&moved), (unsigned long long)atomic_load(&waited),
	       (unsigned long long)atomic_load(&pinned));
	ST_CHECK(atomic_load(&races) > 0);
	for (unsigned i = 0; i < st.threads; i++)
		end(&owner[i]);
	fight();
	return st_end(64 * 1024, 0);
}
