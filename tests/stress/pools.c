/* SPDX-License-Identifier: MIT */
/* Stress: puts race with late operations. Threads get objects, write into them who they are, and lay their tokens on a
 * table; all threads enter what tokens they find there, look whether the object is the one that the token meant, all
 * through their stay, and put it, several at once. Who has kept a token for long must be told so. Objects are handed
 * from thread to thread, the pool shrinks meanwhile, and threads end. --ops 100000000: as many races. At last the
 * process is forked while threads get and put: the child must have each object that is free once. */
#include "tests/stress/stress.h"

#include <sched.h>
#include <sys/wait.h>

#include "include/quarry/pool.h"

#define SLOTS 64 /* few, so that they meet */
#define CLEANUPS_OF 16
#define STAYS 4
#define ROUNDS 8 /* threads end so often */

struct object {
	_Atomic uint64_t name;    /* the token that it was given; 0 while nobody has it */
	_Atomic uint64_t inside;  /* who has entered it, and believes so */
	uint64_t key;             /* of a name: not atomic, since who has entered has synchronised */
	unsigned char bytes[64];  /* of the key */
	uint32_t word;
};

static quarry_pool *pool;
static _Atomic uint64_t table[SLOTS];
static _Atomic uint64_t gets, put_count, lost, entered, late, cleaned, cancelled, waited;

static uint64_t pack(quarry_token t)
{
	return (uint64_t)t.index << 32 | t.generation;
}

static quarry_token unpack(uint64_t name)
{
	return (quarry_token){ (uint32_t)(name >> 32), (uint32_t)name };
}

static int construct(void *object, void *context)
{
	(void)context;
	((struct object *)object)->word = 7;
	return 0;
}

/* Nobody may be inside, whoever does this. */
static void reset(void *object, void *context)
{
	struct object *o = object;

	(void)context;
	if (atomic_load(&o->inside) != 0)
		st_fail("%p is reset while %llu have entered it", object, (unsigned long long)atomic_load(&o->inside));
	atomic_store(&o->name, 0);
	o->key = 0;
	memset(o->bytes, 0, sizeof o->bytes);
}

static void count_cleanup(void *argument)
{
	struct object *o = argument;

	if (atomic_load(&o->name) == 0)
		st_fail("%p is cleaned up after its reset", argument);
	atomic_fetch_add_explicit(&cleaned, 1, memory_order_relaxed);
}

static void verify(const struct object *o, uint64_t name)
{
	if (atomic_load(&o->name) != name)
		st_fail("%p is %llx, and was entered as %llx", (const void *)o,
			(unsigned long long)atomic_load(&o->name), (unsigned long long)name);
	if (o->key != st_mix(name))
		st_fail("%p: the key of %llx is %llx", (const void *)o, (unsigned long long)name,
			(unsigned long long)o->key);
	for (size_t i = 0; i < sizeof o->bytes; i++)
		if (o->bytes[i] != (unsigned char)(o->key >> i % 8 * 8))
			st_fail("%p: byte %zu of %llx is overwritten", (const void *)o, i, (unsigned long long)name);
}

static void put_by(uint64_t name, enum quarry_pool_how how)
{
	if (quarry_pool_put_token(pool, unpack(name), how) == 0)
		atomic_fetch_add_explicit(&put_count, 1, memory_order_relaxed);
	else if (errno == ESTALE)
		atomic_fetch_add_explicit(&lost, 1, memory_order_relaxed);
	else
		st_fail("put_token: errno %d", errno);
}

/* A new object on the table; what lay there is put, by this thread or by whoever was quicker. */
static void lay(struct st_worker *w)
{
	struct object *o = quarry_pool_get(pool);
	uint64_t name, was;

	ST_CHECK(o != NULL);
	atomic_fetch_add_explicit(&gets, 1, memory_order_relaxed);
	if (atomic_load(&o->name) != 0 || atomic_load(&o->inside) != 0 || o->key != 0 || o->word != 7)
		st_fail("%p is handed out, and is not reset", (void *)o);
	name = pack(quarry_pool_token(pool, o));
	ST_CHECK(name != 0);
	o->key = st_mix(name);
	for (size_t i = 0; i < sizeof o->bytes; i++)
		o->bytes[i] = (unsigned char)(o->key >> i % 8 * 8);
	atomic_store(&o->name, name);
	if (w->done % CLEANUPS_OF == 0 && quarry_pool_cleanup_add(pool, o, count_cleanup, o) != 0)
		st_fail("cleanup_add: errno %d", errno);
	was = atomic_exchange(&table[st_below(&w->rng, SLOTS)], name);
	if (was != 0)
		put_by(was, QUARRY_POOL_SAFE);
}

static void visit(uint64_t name, bool wait, bool put)
{
	struct object *o = quarry_pool_enter(pool, unpack(name));

	if (o == NULL) {
		if (errno != ESTALE)
			st_fail("enter: errno %d", errno);
		atomic_fetch_add_explicit(&late, 1, memory_order_relaxed);
		return;
	}
	atomic_fetch_add_explicit(&entered, 1, memory_order_relaxed);
	atomic_fetch_add(&o->inside, 1);
	verify(o, name);
	if (put)
		put_by(name, QUARRY_POOL_SAFE);
	/* Without end, if the put did not wake: the watchdog tells. */
	if (wait && quarry_pool_wait(pool, unpack(name), &o->word, 7, -1) == 0)
		st_fail("wait: the word is 7, and it returned");
	else if (wait && errno == ECANCELED)
		atomic_fetch_add_explicit(&cancelled, 1, memory_order_relaxed);
	else if (wait && errno != ESTALE)
		st_fail("wait: errno %d", errno);
	if (wait)
		atomic_fetch_add_explicit(&waited, 1, memory_order_relaxed);
	verify(o, name);
	atomic_fetch_sub(&o->inside, 1);
	if (quarry_pool_leave(pool, unpack(name)) != 0)
		st_fail("leave: errno %d", errno);
}

static void race(struct st_worker *w)
{
	uint64_t kept[STAYS] = { 0 };

	while (st_more(w)) {
		uint64_t name = atomic_load(&table[st_below(&w->rng, SLOTS)]);
		unsigned what = (unsigned)st_below(&w->rng, 1000);
		uint64_t *old = &kept[st_below(&w->rng, STAYS)];

		if (what < 300 || name == 0) {
			lay(w);
		} else if (what < 600) {
			visit(name, false, what < 350);
			*old = name;
		} else if (what < 800) {
			put_by(name, QUARRY_POOL_SAFE);
		} else if (what < 980) {
			visit(*old == 0 ? name : *old, false, false);
		} else if (what < 990) {
			struct object *o = quarry_pool_resolve(pool, unpack(name));
			if (o == NULL && errno != ESTALE)
				st_fail("resolve: errno %d", errno);
		} else if (what < 992 && w->number > 0) {
			/* Thread 0 never waits: it lays, and so puts, whatever others wait at. */
			visit(name, true, false);
		} else if (what == 993) {
			(void)quarry_pool_trim(pool);
		} else if (what == 994) {
			(void)quarry_pool_flush(pool);
		}
	}
}

/* Whoever is still asleep when the others have ended would wait for ever: the first thread puts until all have. */
static _Atomic unsigned over;

static void body(struct st_worker *w)
{
	race(w);
	atomic_fetch_add(&over, 1);
	while (w->number == 0 && atomic_load(&over) < st.threads) {
		for (unsigned i = 0; i < SLOTS; i++)
			put_by(atomic_load(&table[i]), QUARRY_POOL_SAFE);
		sched_yield();
	}
}

static void end_round(void)
{
	quarry_pool_stats stats = { .struct_size = sizeof stats };

	for (unsigned i = 0; i < SLOTS; i++)
		put_by(atomic_exchange(&table[i], 0), QUARRY_POOL_SAFE);
	ST_CHECK(quarry_pool_stats_get(pool, &stats) == 0);
	if (stats.in_use != 0 || stats.got != stats.put || stats.put != atomic_load(&put_count) ||
	    stats.got != atomic_load(&gets))
		st_fail("%llu got, %llu put, by its figures %llu and %llu", (unsigned long long)atomic_load(&gets),
			(unsigned long long)atomic_load(&put_count), (unsigned long long)stats.got,
			(unsigned long long)stats.put);
	if (stats.mistakes != 0)
		st_fail("%llu mistakes were told of", (unsigned long long)stats.mistakes);
}

static void run(uint32_t flags, uint32_t bits)
{
	quarry_pool_attr attr = { .struct_size = sizeof attr, .size = sizeof(struct object), .flags = flags,
				  .construct = construct, .reset = reset, .magazine = 8, .generation_bits = bits };
	quarry_pool_stats stats = { .struct_size = sizeof stats };
	uint64_t ops = st.ops;

	pool = quarry_pool_create(&attr);
	ST_CHECK(pool != NULL);
	atomic_store(&gets, 0);
	atomic_store(&put_count, 0);
	st.ops = ops / (2 * ROUNDS);
	for (int i = 0; i < ROUNDS; i++) {
		atomic_store(&over, 0);
		st_threads(body);
		end_round();
	}
	st.ops = ops;
	ST_CHECK(quarry_pool_stats_get(pool, &stats) == 0);
	printf("%s: %llu lives in %llu places, %llu used up; puts that lost %llu; entered %llu, too late %llu; "
	       "waited %llu, cancelled %llu, slept %llu; cleanups %llu\n", st.name, (unsigned long long)stats.got,
	       (unsigned long long)stats.grown, (unsigned long long)stats.retired,
	       (unsigned long long)atomic_load(&lost), (unsigned long long)atomic_load(&entered),
	       (unsigned long long)atomic_load(&late), (unsigned long long)atomic_load(&waited),
	       (unsigned long long)atomic_load(&cancelled), (unsigned long long)stats.waits,
	       (unsigned long long)atomic_load(&cleaned));
	if (quarry_pool_destroy(pool, 0) != 0)
		st_fail("destroy: errno %d", errno);
}

/* ---- forks ---- */

#define HELD 24
#define CHILD_TAKES 400

static atomic_bool enough;

static void get_and_put(struct st_worker *w)
{
	struct object *o[HELD];

	while (!atomic_load(&enough)) {
		size_t n = 1 + st_below(&w->rng, HELD);

		ST_CHECK(quarry_pool_get_bulk(pool, (void **)o, n) == n);
		for (size_t i = 0; i < n; i++)
			if (atomic_exchange(&o[i]->name, w->number + 1) != 0)
				st_fail("%p is handed out twice", (void *)o[i]);
		for (size_t i = 0; i < n; i++) {
			if (atomic_exchange(&o[i]->name, 0) != w->number + 1)
				st_fail("%p is somebody else's, too", (void *)o[i]);
			ST_CHECK(quarry_pool_put(pool, o[i], QUARRY_POOL_SAFE) == 0);
		}
		w->done += n;
	}
}

/* More than there are: those of the other threads' magazines, and new ones. */
static int in_child(void)
{
	static struct object *o[CHILD_TAKES];

	for (int i = 0; i < CHILD_TAKES; i++) {
		o[i] = quarry_pool_get(pool);
		if (o[i] == NULL || atomic_exchange(&o[i]->name, 99) != 0 || o[i]->word != 7)
			return 1;
	}
	for (int i = 0; i < CHILD_TAKES; i++) {
		atomic_store(&o[i]->name, 0);
		if (quarry_pool_put(pool, o[i], QUARRY_POOL_SAFE) != 0)
			return 2;
	}
	return 0;
}

static void run_forks(void)
{
	static struct st_worker worker[ST_THREADS_MAX];
	quarry_pool_attr attr = { .struct_size = sizeof attr, .size = sizeof(struct object), .construct = construct,
				  .magazine = 8 };
	uint64_t forks = st_scaled(100, 10);

	pool = quarry_pool_create(&attr);
	ST_CHECK(pool != NULL);
	st_start(worker, st.threads, get_and_put);
	for (uint64_t i = 0; i < forks; i++) {
		int status = 0;
		pid_t child = fork();

		ST_CHECK(child >= 0);
		if (child == 0) {
			st_watchdog_start(60);
			_exit(in_child());
		}
		ST_CHECK(waitpid(child, &status, 0) == child);
		if (status != 0)
			st_fail("the status of child %llu is 0x%x", (unsigned long long)i, (unsigned)status);
	}
	atomic_store(&enough, true);
	st_join(worker, st.threads);
	printf("%s: %llu forks\n", st.name, (unsigned long long)forks);
	if (quarry_pool_destroy(pool, 0) != 0)
		st_fail("destroy: errno %d", errno);
}

int main(int argc, char **argv)
{
	st_begin(argc, argv, "pools", 5000000, 4);
	run(0, 0);
	run(QUARRY_POOL_CHECKED, 4); /* lives are used up all the time */
	fflush(stdout);
	run_forks();
	return st_end(ST_SLACK, 0);
}
