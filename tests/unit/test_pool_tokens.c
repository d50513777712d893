/* SPDX-License-Identifier: MIT */
/* Object pools: mistakes, tokens, waiting, and random steps against a plain model. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <sched.h>
#include <signal.h>
#include <stdlib.h>

#include "tests/unit/model.h"
#include "tests/unit/pool.h"

/* ---- mistakes ---- */

Test(pool, what_nobody_has_and_what_is_no_object)
{
	struct calls calls = { 0 };
	quarry_pool_attr attr = attr_of(&calls);
	quarry_pool *pool = make(&attr), *other = make(&attr);
	void *heap = quarry_malloc(100);
	char stack[100], *p = get(pool), *q = get(other);

	expect_error(quarry_pool_put(pool, p, (enum quarry_pool_how)2), EINVAL);
	expect_error(quarry_pool_put(pool, NULL, QUARRY_POOL_SAFE), EINVAL);
	expect_error(quarry_pool_put(pool, p + 8, QUARRY_POOL_SAFE), EINVAL);
	expect_error(quarry_pool_put(pool, p + 64 * 10000, QUARRY_POOL_SAFE), EINVAL);
	expect_error(quarry_pool_put(pool, stack, QUARRY_POOL_SAFE), EINVAL);
	expect_error(quarry_pool_put(pool, heap, QUARRY_POOL_SAFE), EINVAL);
	expect_error(quarry_pool_put(pool, (void *)1, QUARRY_POOL_SAFE), EINVAL);
	expect_error(quarry_pool_put(pool, (void *)UINTPTR_MAX, QUARRY_POOL_SAFE), EINVAL);
	expect_error(quarry_pool_put(pool, q, QUARRY_POOL_SAFE), EINVAL);
	cr_expect_eq(calls.mistakes[QUARRY_POOL_FOREIGN], 8);
	cr_expect(!is_token(quarry_pool_token(pool, q)) && errno == EINVAL);
	put(pool, p);
	expect_error(quarry_pool_put(pool, p, QUARRY_POOL_SAFE), EALREADY);
	expect_error(quarry_pool_put(pool, p, QUARRY_POOL_FAST), EALREADY);
	cr_expect(!is_token(quarry_pool_token(pool, p)) && errno == EALREADY);
	expect_error(quarry_pool_cleanup_add(pool, p, free, NULL), EALREADY);
	cr_expect(calls.mistakes[QUARRY_POOL_TWICE] == 2 && stats_of(pool).mistakes == 10);
	cr_expect(calls.reset == 1 && stats_of(pool).put == 1, "nothing is touched");
	put(other, q);
	end(pool);
	end(other);
	quarry_free(heap);
}

/* Each write after the put, wherever in the object and whatever, is told once: at the next get, or when it goes back.
 * */
Test(pool, checked_every_planted_write_is_found)
{
	struct calls calls = { 0 };
	quarry_pool_attr attr = attr_of(&calls);
	quarry_pool *pool;
	unsigned planted = 0;

	model_start("checked_every_planted_write_is_found");
	attr.flags = QUARRY_POOL_CHECKED;
	pool = make(&attr);
	for (int i = 0; i < 5000; i++) {
		unsigned char *p = get(pool);

		put(pool, p);
		if (model_one_in(2)) {
			p[model_below(sizeof(struct object))] ^= (unsigned char)(1 + model_below(255));
			planted++;
		}
		if (model_one_in(50))
			(void)quarry_pool_trim(pool);
		else
			put(pool, get(pool));
		cr_assert_eq(calls.mistakes[QUARRY_POOL_WRITTEN], planted, "at %d", i);
	}
	/* And when the pool ends. */
	for (int i = 0; i < 20; i++) {
		struct object *o[2] = { get(pool), get(pool) };

		put(pool, o[0]);
		o[0]->payload[1]++;
		put(pool, o[1]);
	}
	planted = atomic_load(&calls.mistakes[QUARRY_POOL_WRITTEN]);
	struct object *last = get(pool);
	put(pool, last);
	last->payload[3]--;
	end(pool);
	cr_assert_eq(calls.mistakes[QUARRY_POOL_WRITTEN], planted + 2, "the last of the loop, and this");
	cr_assert_leq(calls.destroyed, calls.constructed);
}

Test(pool, checked_every_planted_double_put_is_found_and_reads_are_nonsense)
{
	struct calls calls = { 0 };
	quarry_pool_attr attr = attr_of(&calls);
	quarry_pool *pool;
	struct object *o[64];

	attr.flags = QUARRY_POOL_CHECKED;
	pool = make(&attr);
	for (unsigned round = 1; round <= 50; round++) {
		cr_assert_eq(quarry_pool_get_bulk(pool, (void **)o, COUNT(o)), COUNT(o));
		for (unsigned i = 0; i < COUNT(o); i++)
			o[i]->payload[0] = (uint64_t)(uintptr_t)o[i];
		for (unsigned i = 0; i < COUNT(o); i++)
			put(pool, o[i]);
		for (unsigned i = 0; i < COUNT(o); i++) {
			cr_assert_neq(o[i]->payload[0], (uint64_t)(uintptr_t)o[i]);
			expect_error(quarry_pool_put(pool, o[i], QUARRY_POOL_SAFE), EALREADY);
		}
		cr_assert_eq(calls.mistakes[QUARRY_POOL_TWICE], round * COUNT(o));
	}
	cr_assert_eq(calls.mistakes[QUARRY_POOL_WRITTEN], 0);
	end(pool);
}

static pthread_barrier_t start_line;

struct twice {
	quarry_pool *pool;
	void *object;
	atomic_uint won;
	int rounds;
};

static void *put_at_once(void *arg)
{
	struct twice *t = arg;

	for (int i = 0; i < t->rounds; i++) {
		pthread_barrier_wait(&start_line);
		if (quarry_pool_put(t->pool, t->object, QUARRY_POOL_SAFE) == 0)
			atomic_fetch_add(&t->won, 1);
		pthread_barrier_wait(&start_line);
	}
	return NULL;
}

/* By address: in a checked pool, and where there is a token, one of two wins, always. */
Test(pool, two_puts_at_once)
{
	for (int checked = 0; checked < 2; checked++) {
		struct calls calls = { 0 };
		quarry_pool_attr attr = attr_of(&calls);
		struct twice t = { .rounds = 2000 };
		pthread_t thread[2];

		attr.flags = checked ? QUARRY_POOL_CHECKED : 0;
		t.pool = make(&attr);
		pthread_barrier_init(&start_line, NULL, 3);
		for (int i = 0; i < 2; i++)
			cr_assert_eq(pthread_create(&thread[i], NULL, put_at_once, &t), 0);
		for (int i = 0; i < t.rounds; i++) {
			t.object = get(t.pool);
			if (!checked)
				(void)quarry_pool_token(t.pool, t.object);
			pthread_barrier_wait(&start_line);
			pthread_barrier_wait(&start_line);
		}
		for (int i = 0; i < 2; i++)
			pthread_join(thread[i], NULL);
		cr_assert_eq(t.won, (unsigned)t.rounds);
		cr_assert_eq(calls.mistakes[QUARRY_POOL_TWICE], (unsigned)t.rounds);
		cr_assert_eq(stats_of(t.pool).in_use, 0);
		end(t.pool);
	}
}

/* ---- tokens ---- */

Test(pool, a_token_is_of_one_life)
{
	struct calls calls = { 0 };
	quarry_pool_attr attr = attr_of(&calls);
	quarry_pool *pool = make(&attr);
	struct object *o = get(pool);
	quarry_token t = quarry_pool_token(pool, o), again = quarry_pool_token(pool, o), next;
	uint32_t word = 0;

	cr_assert(is_token(t) && t.index == again.index && t.generation == again.generation);
	cr_assert_eq(quarry_pool_resolve(pool, t), o);
	put(pool, o);
	for (int life = 0; life < 2; life++) {
		expect_null(quarry_pool_resolve(pool, t), ESTALE);
		expect_null(quarry_pool_enter(pool, t), ESTALE);
		expect_error(quarry_pool_put_token(pool, t, QUARRY_POOL_SAFE), ESTALE);
		expect_error(quarry_pool_wait(pool, t, &word, 0, 0), ESTALE);
		expect_error(quarry_pool_wake(pool, t), ESTALE);
		expect_error(quarry_pool_leave(pool, t), EINVAL);
		if (life == 0)
			cr_assert_eq(quarry_pool_get(pool), o, "the next life, of the same place");
	}
	next = quarry_pool_token(pool, o);
	cr_assert(next.index == t.index && next.generation != t.generation);
	expect_error(quarry_pool_put_token(pool, next, (enum quarry_pool_how)7), EINVAL);
	cr_assert_eq(quarry_pool_put_token(pool, next, QUARRY_POOL_FAST), 0);
	expect_error(quarry_pool_put_token(pool, next, QUARRY_POOL_SAFE), ESTALE);
	cr_assert(calls.reset == 2 && stats_of(pool).put == 2 && stats_of(pool).mistakes == 0);
	/* Tokens that nobody made. */
	for (uint32_t index = 0; index < 100000; index = index < 100 ? index + 1 : index * 7) {
		quarry_token forged = { index, 99 }, zero = { index, 0 };

		expect_null(quarry_pool_enter(pool, forged), ESTALE);
		expect_null(quarry_pool_resolve(pool, zero), ESTALE);
	}
	o = get(pool);
	next.generation++;
	expect_null(quarry_pool_enter(pool, next), ESTALE); /* the life has none */
	put(pool, o);
	end(pool);
}

Test(pool, what_is_entered_is_reset_when_the_last_leaves)
{
	struct calls calls = { 0 };
	quarry_pool_attr attr = attr_of(&calls);
	quarry_pool *pool = make(&attr);
	struct object *o = get(pool), *other;
	quarry_token t = quarry_pool_token(pool, o);

	o->state = 7;
	cr_assert(quarry_pool_enter(pool, t) == o && quarry_pool_enter(pool, t) == o);
	cr_assert_eq(quarry_pool_leave(pool, t), 0);
	put(pool, o);
	cr_assert(calls.reset == 0 && o->state == 7, "somebody has it still");
	expect_null(quarry_pool_enter(pool, t), ESTALE);
	expect_error(quarry_pool_put(pool, o, QUARRY_POOL_SAFE), EALREADY);
	cr_assert_eq(stats_of(pool).in_use, 1);
	other = get(pool);
	cr_assert_neq(other, o);
	put(pool, other);
	cr_assert_eq(quarry_pool_leave(pool, t), 0);
	cr_assert(calls.reset == 2 && calls.last_reset == o);
	expect_error(quarry_pool_leave(pool, t), EINVAL);
	cr_assert_eq(stats_of(pool).in_use, 0);
	end(pool);
}

/* All lives of a place that a counter of some bits has: no token comes twice, and none is ever good again. */
Test(pool, a_counter_that_is_used_up_retires_its_place)
{
	static quarry_token seen[70000];

	for (uint32_t bits = 1; bits <= 16; bits += 5) {
		struct calls calls = { 0 };
		quarry_pool_attr attr = attr_of(&calls);
		const uint32_t lives = (1u << bits) - 1;
		quarry_pool *pool;
		uint32_t place = 0;
		size_t n = 0;

		attr.generation_bits = bits;
		attr.max = 1;
		pool = make(&attr);
		for (; n < lives + 3; n++) {
			void *p = get(pool);

			seen[n] = quarry_pool_token(pool, p);
			cr_assert(n == 0 || seen[n].index != seen[n - 1].index ||
				  seen[n].generation == seen[n - 1].generation % lives + 1);
			if (n < lives) {
				cr_assert(n == 0 || seen[n].index == place);
				place = seen[n].index;
			} else {
				cr_assert_neq(seen[n].index, place, "its lives are used up");
			}
			cr_assert(seen[n].generation >= 1 && seen[n].generation <= lives);
			if (n + 1 == lives) /* the last life, with somebody in it */
				cr_assert_eq(quarry_pool_enter(pool, seen[n]), p);
			put(pool, p);
			if (n + 1 == lives)
				cr_assert_eq(quarry_pool_leave(pool, seen[n]), 0);
		}
		for (size_t i = 0; i < n; i++) {
			expect_null(quarry_pool_enter(pool, seen[i]), ESTALE);
			expect_error(quarry_pool_put_token(pool, seen[i], QUARRY_POOL_SAFE), ESTALE);
		}
		cr_assert_eq(stats_of(pool).retired, 1 + (lives == 1 ? 3 : 0), "%u bits", bits);
		cr_assert_eq(calls.destroyed, stats_of(pool).retired);
		end(pool);
		cr_assert_eq(calls.destroyed, calls.constructed);
	}
}

/* Places and lives of pools that were used alike are the same; their tokens are not. */
Test(pool, anothers_tokens_are_stale)
{
	struct calls calls = { 0 };
	quarry_pool_attr attr = attr_of(&calls);
	quarry_pool *pools[40];
	quarry_token tokens[40];
	void *objects[40];
	uint32_t word = 0;

	for (int i = 0; i < 40; i++) {
		pools[i] = make(&attr);
		objects[i] = get(pools[i]);
		tokens[i] = quarry_pool_token(pools[i], objects[i]);
		cr_assert_eq(tokens[i].index, tokens[0].index);
	}
	for (int i = 0; i < 40; i++)
		for (int k = 0; k < 40; k++) {
			if (i == k)
				continue;
			expect_null(quarry_pool_resolve(pools[i], tokens[k]), ESTALE);
			expect_null(quarry_pool_enter(pools[i], tokens[k]), ESTALE);
			expect_error(quarry_pool_put_token(pools[i], tokens[k], QUARRY_POOL_SAFE), ESTALE);
			expect_error(quarry_pool_wait(pools[i], tokens[k], &word, 0, 0), ESTALE);
			expect_error(quarry_pool_wake(pools[i], tokens[k]), ESTALE);
			expect_error(quarry_pool_leave(pools[i], tokens[k]), EINVAL);
		}
	for (int i = 0; i < 40; i++) {
		cr_assert_eq(quarry_pool_enter(pools[i], tokens[i]), objects[i]);
		cr_assert_eq(quarry_pool_leave(pools[i], tokens[i]), 0);
		cr_assert_eq(quarry_pool_put_token(pools[i], tokens[i], QUARRY_POOL_SAFE), 0);
		end(pools[i]);
	}
}

/* A chunk of which no place is left comes no more. */
static void count(void *argument)
{
	++*(unsigned *)argument;
}

/* It is put, in its last life, and somebody is in it still: that is one that is out. */
Test(pool, ended_by_force_with_the_last_life_entered)
{
	struct calls calls = { 0 };
	quarry_arena_attr arena_attr = { .name = "forced" };
	quarry_pool_attr attr = attr_of(&calls);
	quarry_stats stats = { .version = QUARRY_STATS_VERSION };
	unsigned cleaned = 0;
	quarry_pool *pool;
	void *o;

	attr.arena = quarry_arena_create(&arena_attr);
	attr.generation_bits = 1;
	pool = make(&attr);
	o = get(pool);
	cr_assert_eq(quarry_pool_cleanup_add(pool, o, count, &cleaned), 0);
	cr_assert_eq(quarry_pool_enter(pool, quarry_pool_token(pool, o)), o);
	put(pool, o);
	cr_assert(cleaned == 0 && calls.destroyed == 0);
	expect_error(quarry_pool_destroy(pool, 0), EBUSY);
	cr_assert_eq(quarry_pool_destroy(pool, 1), 0);
	cr_assert(cleaned == 1 && calls.destroyed == calls.constructed);
	quarry_thread_flush();
	cr_assert_eq(quarry_stats_get(attr.arena, &stats), 0);
	cr_assert_eq(stats.in_use, 0);
	cr_assert_eq(quarry_arena_destroy(attr.arena), 0);
}

Test(pool, places_that_are_used_up_cost_no_memory)
{
	quarry_pool_attr attr = { .struct_size = sizeof attr, .size = 1 << 16, .generation_bits = 1, .magazine = 8 };
	const uint64_t chunk = 1 << 21; /* of 32 objects */
	quarry_pool *pool = make(&attr);

	for (uint64_t n = 1; n <= 2000; n++) {
		void *p = get(pool);

		cr_assert(is_token(quarry_pool_token(pool, p)));
		put(pool, p);
		cr_assert_eq(stats_of(pool).retired, n);
		/* Chunks of before, as they are, are given back by trimming alone. */
		if (n % 32 == 0)
			(void)quarry_pool_trim(pool);
		cr_assert_lt(stats_of(pool).bytes, 3 * chunk + n * 128);
	}
	end(pool);
}

Test(pool, lives_without_tokens_use_up_nothing)
{
	quarry_pool_attr attr = { .struct_size = sizeof attr, .size = 64, .generation_bits = 1, .max = 1 };
	quarry_pool *pool = make(&attr);

	for (int i = 0; i < 100; i++)
		put(pool, get(pool));
	cr_assert_eq(stats_of(pool).retired, 0);
	end(pool);
}

/* ---- waiting ---- */

struct waiter {
	quarry_pool *pool;
	quarry_token token;
	struct object *object;
	int result, error;
};

static void *wait_there(void *arg)
{
	struct waiter *w = arg;

	w->result = quarry_pool_wait(w->pool, w->token, &w->object->word, 5, -1);
	w->error = errno;
	return NULL;
}

/* Threads that wait at an object, begun to sleep (or about to: then they do not, which is as good). */
static void start_waiting(struct waiter *w, pthread_t *thread, int n)
{
	uint64_t waits = stats_of(w->pool).waits;

	for (int i = 0; i < n; i++)
		cr_assert_eq(pthread_create(&thread[i], NULL, wait_there, &w[i]), 0);
	while (stats_of(w->pool).waits < waits + (uint64_t)n)
		sched_yield();
}

#define WAITERS 3

static void with_waiters(quarry_pool *pool, int how)
{
	struct object *o = get(pool);
	struct waiter w[WAITERS];
	pthread_t thread[WAITERS];
	const int is_put = how <= QUARRY_POOL_FAST;

	o->word = 5;
	for (int i = 0; i < WAITERS; i++)
		w[i] = (struct waiter){ .pool = pool, .token = quarry_pool_token(pool, o), .object = o };
	start_waiting(w, thread, WAITERS);
	if (is_put) {
		cr_assert_eq(quarry_pool_put(pool, o, (enum quarry_pool_how)how), 0);
	} else {
		__atomic_store_n(&o->word, 6, __ATOMIC_RELEASE);
		cr_assert_eq(quarry_pool_wake(pool, w[0].token), 0);
	}
	for (int i = 0; i < WAITERS; i++) {
		pthread_join(thread[i], NULL);
		cr_assert(is_put ? w[i].result == -1 && w[i].error == ECANCELED : w[i].result == 0, "%d", w[i].error);
	}
	if (!is_put)
		put(pool, o);
}

Test(pool, who_waits_is_woken_or_cancelled)
{
	struct calls calls = { 0 };
	quarry_pool_attr attr = attr_of(&calls);
	quarry_pool *pool;
	struct object *o;
	quarry_token t;

	attr.flags = QUARRY_POOL_CHECKED; /* which tells of FAST, and wakes */
	pool = make(&attr);
	for (unsigned i = 1; i <= 20; i++) {
		with_waiters(pool, 9);
		with_waiters(pool, QUARRY_POOL_SAFE);
		cr_assert_eq(calls.mistakes[QUARRY_POOL_WAITED], i - 1);
		with_waiters(pool, QUARRY_POOL_FAST);
		cr_assert(calls.mistakes[QUARRY_POOL_WAITED] == i && calls.reset == 3 * i);
	}
	cr_assert_eq(stats_of(pool).cancelled, 20 * 2 * WAITERS);
	o = get(pool);
	t = quarry_pool_token(pool, o);
	o->word = 5;
	expect_error(quarry_pool_wait(pool, t, &o->word, 5, 0), ETIMEDOUT);
	expect_error(quarry_pool_wait(pool, t, &o->word, 5, 2), ETIMEDOUT);
	expect_error(quarry_pool_wait(pool, t, NULL, 5, 2), EINVAL);
	expect_error(quarry_pool_wait(pool, t, (uint32_t *)(void *)((char *)&o->word + 2), 5, 2), EINVAL);
	cr_assert_eq(quarry_pool_wait(pool, t, &o->word, 4, -1), 0);
	put(pool, o);
	cr_assert_eq(stats_of(pool).in_use, 0);
	end(pool);
}

#ifdef __x86_64__

/* A thread puts an object that another one has entered, and is stopped after each instruction (the trap flag). When it
 * has just ended the life, the other leaves, gets the object anew, if it is to be had, and waits at it, as it may. */
static struct stepped {
	quarry_pool *pool;
	struct object *object;
	quarry_token token;
	_Atomic int closed, passed;
	bool again; /* it was to be had */
} stepped;

static void step(int signal)
{
	(void)signal;
	if (atomic_load(&stepped.closed) || quarry_pool_resolve(stepped.pool, stepped.token) != NULL)
		return;
	atomic_store(&stepped.closed, 1);
	while (!atomic_load(&stepped.passed))
		sched_yield();
}

static void *put_in_steps(void *arg)
{
	int result;

	(void)arg;
	__asm__ volatile("subq $128, %%rsp; pushfq; orq $0x100, (%%rsp); popfq; addq $128, %%rsp" ::: "memory", "cc");
	result = quarry_pool_put(stepped.pool, stepped.object, QUARRY_POOL_FAST);
	__asm__ volatile("subq $128, %%rsp; pushfq; andq $~0x100, (%%rsp); popfq; addq $128, %%rsp" ::: "memory", "cc");
	cr_assert_eq(result, 0);
	atomic_store(&stepped.passed, 2);
	return NULL;
}

static void *leave_and_wait(void *arg)
{
	struct object *o;
	quarry_token t;

	(void)arg;
	while (!atomic_load(&stepped.closed))
		sched_yield();
	cr_assert_eq(quarry_pool_leave(stepped.pool, stepped.token), 0);
	o = quarry_pool_get(stepped.pool);
	stepped.again = o != NULL;
	if (o == NULL) {
		atomic_store(&stepped.passed, 1);
		return NULL;
	}
	o->word = 5;
	t = quarry_pool_token(stepped.pool, o);
	(void)quarry_pool_wait(stepped.pool, t, &o->word, 5, -1);
	put(stepped.pool, o);
	return NULL;
}

Test(pool, waiters_of_the_next_life_are_no_mistake)
{
	struct sigaction action = { .sa_handler = step };
	struct calls calls = { 0 };
	quarry_pool_attr attr = attr_of(&calls);
	pthread_t thread[2];
	uint64_t waits;

	attr.flags = QUARRY_POOL_CHECKED;
	attr.max = 1;
	stepped.pool = make(&attr);
	stepped.object = get(stepped.pool);
	stepped.token = quarry_pool_token(stepped.pool, stepped.object);
	cr_assert_eq(quarry_pool_enter(stepped.pool, stepped.token), stepped.object);
	waits = stats_of(stepped.pool).waits;
	sigaction(SIGTRAP, &action, NULL);
	cr_assert_eq(pthread_create(&thread[0], NULL, leave_and_wait, NULL), 0);
	cr_assert_eq(pthread_create(&thread[1], NULL, put_in_steps, NULL), 0);
	while (!atomic_load(&stepped.passed))
		if (stats_of(stepped.pool).waits > waits)
			atomic_store(&stepped.passed, 1);
		else
			sched_yield();
	pthread_join(thread[1], NULL);
	cr_assert_eq(calls.mistakes[QUARRY_POOL_WAITED], 0);
	if (stepped.again) {
		__atomic_store_n(&stepped.object->word, 6, __ATOMIC_RELEASE);
		(void)quarry_pool_wake(stepped.pool, quarry_pool_token(stepped.pool, stepped.object));
	}
	pthread_join(thread[0], NULL);
	cr_assert_eq(stats_of(stepped.pool).in_use, 0);
	end(stepped.pool);
}

#endif

/* ---- against a model ---- */

#define LIVE_MAX 3000

struct life {
	struct object *object;
	quarry_token token;
	uint64_t id;
	unsigned entered;
	bool out, closing;
};

static struct life lives[LIVE_MAX];
static unsigned life_count;
static quarry_token gone[4096];
static unsigned gone_count;

static void verify(const struct life *l)
{
	for (unsigned i = 0; i < COUNT(l->object->payload); i++)
		cr_assert_eq(l->object->payload[i], l->id * (i + 1), "object %p is damaged", (void *)l->object);
	cr_assert_eq(l->object->state, 2);
}

static void end_life(unsigned at)
{
	if (is_token(lives[at].token)) {
		gone[gone_count < COUNT(gone) ? gone_count++ : model_below(gone_count)] = lives[at].token;
	}
	lives[at] = lives[--life_count];
}

static void begin_life(quarry_pool *pool, struct object *o, uint64_t id)
{
	struct life *l = &lives[life_count++];

	cr_assert(o->made == MADE && o->state == 1);
	for (unsigned i = 0; i + 1 < life_count; i++)
		if (i % 16 == life_count % 16)
			cr_assert_neq(lives[i].object, o, "it is handed out twice");
	*l = (struct life){ .object = o, .id = id, .out = true };
	o->state = 2;
	for (unsigned i = 0; i < COUNT(o->payload); i++)
		o->payload[i] = id * (i + 1);
	if (model_one_in(2))
		l->token = quarry_pool_token(pool, o);
}

/* Something with one that is there. */
static void live_on(quarry_pool *pool)
{
	unsigned at = model_below(life_count);
	struct life *l = &lives[at];
	bool named = is_token(l->token);

	verify(l);
	switch (model_below(4)) {
	case 0:
		if (named && l->out) {
			cr_assert_eq(quarry_pool_enter(pool, l->token), l->object);
			l->entered++;
		}
		break;
	case 1:
		if (l->entered > 0) {
			cr_assert_eq(quarry_pool_leave(pool, l->token), 0);
			if (--l->entered == 0 && l->closing)
				end_life(at);
		}
		break;
	default:
		if (!l->out) {
			expect_null(quarry_pool_enter(pool, l->token), ESTALE);
			break;
		}
		if (named && model_one_in(2))
			cr_assert_eq(quarry_pool_put_token(pool, l->token, QUARRY_POOL_SAFE), 0);
		else
			put(pool, l->object);
		l->out = false;
		l->closing = l->entered > 0;
		if (!l->closing)
			end_life(at);
	}
}

Test(pool, random_steps_against_a_model)
{
	model_start("random_steps_against_a_model");
	for (int run = 0; run < 8; run++) {
		struct calls calls = { 0 };
		quarry_pool_attr attr = attr_of(&calls);
		quarry_pool *pool;
		uint64_t id = 1;
		unsigned most = 1 + model_below(LIVE_MAX - 64);

		attr.flags = run % 2 ? QUARRY_POOL_CHECKED : 0;
		attr.magazine = run < 2 ? 0 : 1 + model_below(100);
		attr.generation_bits = run < 4 ? 0 : 3;
		pool = make(&attr);
		life_count = gone_count = 0;
		for (int step = 0; step < 40000; step++) {
			void *some[64];
			uint32_t what = model_below(1000);

			if (what < 450 && life_count < most) {
				begin_life(pool, get(pool), id++);
			} else if (what < 460 && life_count + 64 < most) {
				size_t n = quarry_pool_get_bulk(pool, some, 1 + model_below(64));

				while (n > 0)
					begin_life(pool, some[--n], id++);
			} else if (what < 980 && life_count > 0) {
				live_on(pool);
			} else if (what < 996 && gone_count > 0) {
				quarry_token t = gone[model_below(gone_count)];

				expect_null(quarry_pool_enter(pool, t), ESTALE);
				expect_error(quarry_pool_put_token(pool, t, QUARRY_POOL_FAST), ESTALE);
			} else if (what == 996) {
				(void)quarry_pool_trim(pool);
			} else if (what == 997) {
				(void)quarry_pool_flush(pool);
			}
			if (step % 1000 == 0) {
				quarry_pool_stats stats = stats_of(pool);

				cr_assert_eq(stats.in_use, life_count);
				cr_assert_eq(stats.grown - stats.trimmed - stats.retired, stats.objects);
			}
		}
		while (life_count > 0)
			live_on(pool);
		cr_assert(stats_of(pool).mistakes == 0 && stats_of(pool).got == id - 1);
		end(pool);
		cr_assert_eq(calls.destroyed, calls.constructed);
	}
}
