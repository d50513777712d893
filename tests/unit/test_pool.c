/* SPDX-License-Identifier: MIT */
/* Object pools, made, used by threads and children, trimmed and ended, by every promise of include/quarry/pool.h. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <sched.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/object/pool.h"
#include "tests/unit/model.h"
#include "tests/unit/pool.h"

/* ---- made and ended ---- */

Test(pool, a_bad_field_is_named)
{
	struct calls calls = { 0 };
	static const char *const word[] = { "struct_size", "flags", "size", "size", "alignment", "alignment",
					    "magazine", "generation_bits" };

	expect_null(quarry_pool_create(NULL), EINVAL);
	for (unsigned i = 0; i < COUNT(word); i++) {
		quarry_pool_attr attr = attr_of(&calls);

		switch (i) {
		case 0: attr.struct_size--; break;
		case 1: attr.flags = 2; break;
		case 2: attr.size = 0; break;
		case 3: attr.size = ((size_t)1 << 30) + 1; break;
		case 4: attr.alignment = 48; break;
		case 5: attr.alignment = (size_t)1 << 22; break;
		case 6: attr.magazine = 1025; break;
		default: attr.generation_bits = 33; break;
		}
		expect_null(quarry_pool_create(&attr), EINVAL);
		cr_expect_not_null(strstr(quarry_error_text(), word[i]), "%u: \"%s\"", i, quarry_error_text());
	}
}

Test(pool, nothing_at_all_is_an_error_and_no_crash)
{
	quarry_pool_stats stats = { .struct_size = sizeof stats };
	quarry_token none = { 0, 0 };
	uint32_t word = 0;
	void *p;

	cr_assert_eq(quarry_pool_destroy(NULL, 0), 0);
	expect_null(quarry_pool_get(NULL), EINVAL);
	expect_error(quarry_pool_put(NULL, &word, QUARRY_POOL_SAFE), EINVAL);
	cr_expect(quarry_pool_get_bulk(NULL, &p, 1) == 0 && quarry_pool_put_bulk(NULL, &p, 1, QUARRY_POOL_SAFE) == 0);
	cr_expect(quarry_pool_put_all(NULL, QUARRY_POOL_SAFE) == 0 && quarry_pool_trim(NULL) == 0);
	cr_expect_eq(quarry_pool_flush(NULL), 0);
	expect_error(quarry_pool_prefill(NULL, 1), EINVAL);
	expect_error(quarry_pool_stats_get(NULL, &stats), EINVAL);
	cr_expect(!is_token(quarry_pool_token(NULL, &word)) && errno == EINVAL);
	expect_null(quarry_pool_resolve(NULL, none), EINVAL);
	expect_null(quarry_pool_enter(NULL, none), EINVAL);
	expect_error(quarry_pool_leave(NULL, none), EINVAL);
	expect_error(quarry_pool_put_token(NULL, none, QUARRY_POOL_SAFE), EINVAL);
	expect_error(quarry_pool_wait(NULL, none, &word, 0, 0), EINVAL);
	expect_error(quarry_pool_wake(NULL, none), EINVAL);
	expect_error(quarry_pool_cleanup_add(NULL, &word, free, NULL), EINVAL);
	expect_error(quarry_pool_cleanup_cancel(NULL, &word, free, NULL), EINVAL);
}

Test(pool, constructed_once_reset_at_each_put_destroyed_at_the_end)
{
	struct calls calls = { 0 };
	quarry_pool_attr attr = attr_of(&calls);
	quarry_pool *pool = make(&attr);
	quarry_pool_stats stats;

	cr_assert_eq(calls.constructed, 0);
	for (int i = 0; i < 1000; i++) {
		struct object *o = get(pool);

		cr_assert(o->made == MADE && o->state == 1 && (i == 0 || o->payload[0] == (uint64_t)i - 1),
			  "contents stay from life to life");
		o->state = 2;
		o->payload[0] = (uint64_t)i;
		put(pool, o);
		cr_assert(calls.last_reset == o && calls.reset == (unsigned)i + 1);
	}
	stats = stats_of(pool);
	cr_assert(stats.got == 1000 && stats.put == 1000 && stats.in_use == 0 && stats.grown == calls.constructed);
	cr_assert(stats.objects == stats.grown && stats.cached == stats.objects && stats.objects <= 64);
	end(pool);
	cr_assert_eq(calls.destroyed, calls.constructed);
}

Test(pool, ended_with_objects_out_only_by_force)
{
	struct calls calls = { 0 };
	quarry_pool_attr attr = attr_of(&calls);
	quarry_pool *pool = make(&attr);
	void *p = get(pool);

	expect_error(quarry_pool_destroy(pool, 0), EBUSY);
	put(pool, p);
	get(pool);
	cr_assert_eq(quarry_pool_destroy(pool, 1), 0);
	cr_assert_eq(calls.destroyed, calls.constructed);
}

Test(pool, all_sizes_and_alignments)
{
	static const size_t sizes[] = { 1, 15, 16, 24, 63, 64, 65, 100, 1000, 4096, 5000, 65536, 100000, 3000000 };

	for (unsigned i = 0; i < COUNT(sizes); i++)
		for (size_t alignment = 0; alignment <= 1 << 16; alignment = alignment == 0 ? 1 : alignment * 16) {
			quarry_pool_attr attr = { .struct_size = sizeof attr, .size = sizes[i],
						  .alignment = alignment };
			size_t want = alignment != 0 ? alignment : sizes[i] < 64 ? 16 : 64;
			quarry_pool *pool = make(&attr);
			unsigned char *p[40];

			for (unsigned k = 0; k < COUNT(p); k++) {
				p[k] = get(pool);
				cr_assert_eq((uintptr_t)p[k] % want, 0);
				memset(p[k], (int)k, sizes[i]);
			}
			for (unsigned k = 0; k < COUNT(p); k++) {
				cr_assert(p[k][0] == k && p[k][sizes[i] - 1] == k, "objects overlap");
				put(pool, p[k]);
			}
			end(pool);
		}
}

Test(pool, limits_and_constructors_that_fail)
{
	struct calls calls = { 0 };
	quarry_pool_attr attr = attr_of(&calls);
	quarry_pool *pool;
	void *p[11];

	attr.max = 10;
	calls.construct_fails_at = 4;
	pool = make(&attr);
	for (unsigned i = 0; i < 3; i++)
		p[i] = get(pool);
	expect_null(quarry_pool_get(pool), EXDEV);
	cr_assert_eq(quarry_pool_get_bulk(pool, p + 3, 8), 7);
	cr_assert_eq(errno, EAGAIN);
	cr_assert(stats_of(pool).objects == 10 && stats_of(pool).in_use == 10);
	put(pool, p[4]);
	cr_assert_eq(quarry_pool_get(pool), p[4]);
	cr_assert_eq(quarry_pool_put_bulk(pool, p, 10, QUARRY_POOL_SAFE), 10);
	end(pool);
	cr_assert(calls.constructed == 10 && calls.destroyed == 10);
}

Test(pool, no_memory_is_enomem_and_passes)
{
	quarry_arena_attr tight = { .hard_limit = 1 << 20 };
	quarry_pool_attr attr = { .struct_size = sizeof attr, .size = 1000, .arena = quarry_arena_create(&tight) };
	quarry_pool *pool = make(&attr);
	static void *p[4096];
	size_t n = quarry_pool_get_bulk(pool, p, COUNT(p));

	cr_assert(n > 100 && n < 1048 && errno == ENOMEM, "%zu, errno %d", n, errno);
	cr_assert_eq(quarry_pool_put_bulk(pool, p, n, QUARRY_POOL_SAFE), n);
	cr_assert_eq(quarry_pool_get_bulk(pool, p, n), n);
	cr_assert_eq(quarry_pool_put_all(pool, QUARRY_POOL_SAFE), n);
	end(pool);
	cr_assert_eq(quarry_arena_destroy(attr.arena), 0);
}

/* ---- cleanups ---- */

static unsigned order[8], ran;
static struct calls *cleanup_calls;
static unsigned resets; /* so many were before */
static pthread_barrier_t start_line;

static void note(void *argument)
{
	order[ran++ % COUNT(order)] = (unsigned)(uintptr_t)argument;
	cr_assert_eq(cleanup_calls->reset, resets, "it is not reset yet");
}

Test(pool, cleanups_run_in_reverse_before_the_reset_and_once)
{
	struct calls calls = { 0 };
	quarry_arena_attr arena_attr = { .name = "cleanups" };
	quarry_pool_attr attr = attr_of(&calls);
	quarry_stats before = { .version = QUARRY_STATS_VERSION }, after = before;
	quarry_pool *pool;

	cleanup_calls = &calls;
	attr.arena = quarry_arena_create(&arena_attr);
	pool = make(&attr);
	for (unsigned round = 0; round < 100; round++) {
		void *p = get(pool);

		ran = 0;
		resets = round;
		for (uintptr_t i = 1; i <= 5; i++)
			cr_assert_eq(quarry_pool_cleanup_add(pool, p, note, (void *)i), 0);
		cr_assert_eq(quarry_pool_cleanup_cancel(pool, p, note, (void *)(uintptr_t)3), 0);
		expect_error(quarry_pool_cleanup_cancel(pool, p, note, (void *)(uintptr_t)3), ENOENT);
		expect_error(quarry_pool_cleanup_add(pool, p, NULL, NULL), EINVAL);
		cr_assert_eq(calls.reset, round);
		put(pool, p);
		cr_assert(ran == 4 && order[0] == 5 && order[1] == 4 && order[2] == 2 && order[3] == 1);
		put(pool, get(pool));
		cr_assert_eq(ran, 4);
		atomic_store(&calls.reset, round + 1);
		cr_assert_eq(quarry_stats_get(attr.arena, round == 0 ? &before : &after), 0);
	}
	cr_assert_eq(after.in_use, before.in_use, "what is warm allocates nothing");
	void *p = get(pool);
	cr_assert_eq(quarry_pool_cleanup_add(pool, p, note, (void *)(uintptr_t)8), 0);
	ran = 0;
	resets = atomic_load(&calls.reset);
	cr_assert_eq(quarry_pool_destroy(pool, 1), 0);
	cr_assert(ran == 1 && order[0] == 8);
	quarry_thread_flush();
	cr_assert_eq(quarry_stats_get(attr.arena, &after), 0);
	cr_assert_eq(after.in_use, 0, "%llu bytes are left", (unsigned long long)after.in_use);
	cr_assert_eq(quarry_arena_destroy(attr.arena), 0);
}

static void nothing(void *argument)
{
	(void)argument;
}

/* One thread adds cleanups, and another runs them, as a producer and a consumer do: neither keeps ever more. */
static void *run_them(void *arg)
{
	void **both = arg;
	quarry_pool *pool = both[0];
	struct qy_cleanup *one;
	unsigned kept = 0;

	for (int i = 0; i < 500; i++) {
		pthread_barrier_wait(&start_line);
		put(pool, both[1]);
		pthread_barrier_wait(&start_line);
	}
	for (one = qy_pool_cache_found(pool)->cleanups; one != NULL; one = one->next)
		kept++;
	cr_assert(kept > 0 && kept <= QY_POOL_CLEANUPS_KEPT, "%u links", kept);
	quarry_pool_flush(pool);
	cr_assert_null(qy_pool_cache_found(pool)->cleanups);
	return NULL;
}

Test(pool, who_only_runs_cleanups_keeps_few_of_them)
{
	quarry_pool_attr attr = { .struct_size = sizeof attr, .size = 64 };
	quarry_pool *pool = make(&attr);
	void *both[2] = { pool, NULL };
	pthread_t thread;

	pthread_barrier_init(&start_line, NULL, 2);
	cr_assert_eq(pthread_create(&thread, NULL, run_them, both), 0);
	for (int i = 0; i < 500; i++) {
		both[1] = get(pool);
		cr_assert_eq(quarry_pool_cleanup_add(pool, both[1], nothing, NULL), 0);
		pthread_barrier_wait(&start_line);
		pthread_barrier_wait(&start_line);
	}
	pthread_join(thread, NULL);
	end(pool);
}

/* ---- giving back ---- */

Test(pool, trimmed_and_grown_again_tokens_stay_stale)
{
	struct calls calls = { 0 };
	quarry_arena_attr arena_attr = { .name = "trimmed" };
	quarry_pool_attr attr = attr_of(&calls);
	quarry_stats stats = { .version = QUARRY_STATS_VERSION };
	static void *p[5000];
	static quarry_token t[5000], next;
	quarry_pool *pool;
	uint64_t empty;

	attr.arena = quarry_arena_create(&arena_attr);
	pool = make(&attr);
	empty = stats_of(pool).bytes;
	for (unsigned round = 0; round < 20; round++) {
		cr_assert_eq(quarry_pool_get_bulk(pool, p, COUNT(p)), COUNT(p));
		for (unsigned i = 0; i < COUNT(p); i++) {
			next = quarry_pool_token(pool, p[i]);
			cr_assert(is_token(next));
			if (round > 0 && i % 100 == 0) {
				expect_null(quarry_pool_enter(pool, t[i]), ESTALE);
			}
			t[i] = next;
		}
		cr_assert_eq(quarry_pool_trim(pool), 0, "what is free is in a chunk with others");
		cr_assert_eq(quarry_pool_put_bulk(pool, p, COUNT(p) - 1, QUARRY_POOL_SAFE), COUNT(p) - 1);
		cr_assert_gt(quarry_pool_trim(pool), 0);
		cr_assert_eq(quarry_pool_resolve(pool, t[COUNT(p) - 1]), p[COUNT(p) - 1], "its chunk stays");
		put(pool, p[COUNT(p) - 1]);
		cr_assert_gt(quarry_pool_trim(pool), 0);
		cr_assert(stats_of(pool).objects == 0 && stats_of(pool).cached == 0);
		cr_assert_eq(calls.destroyed, calls.constructed);
		expect_null(quarry_pool_resolve(pool, t[7]), ESTALE);
		expect_error(quarry_pool_put(pool, p[7], QUARRY_POOL_SAFE), EINVAL);
	}
	cr_assert_geq(stats_of(pool).bytes, empty);
	cr_assert_eq(quarry_stats_get(attr.arena, &stats), 0);
	cr_assert_lt(stats.in_use, 5000 * 100, "records alone are left: %llu", (unsigned long long)stats.in_use);
	end(pool);
	cr_assert_eq(quarry_arena_destroy(attr.arena), 0);
}

struct slowly {
	quarry_pool *pool;
	_Atomic int destroying, go_on;
};

static void destroy_slowly(void *object, void *context)
{
	struct slowly *s = context;

	(void)object;
	atomic_store(&s->destroying, 1);
	while (!atomic_load(&s->go_on))
		sched_yield();
}

static void *trim_slowly(void *arg)
{
	struct slowly *s = arg;

	cr_assert_gt(quarry_pool_trim(s->pool), 0);
	return NULL;
}

/* With a limit, and all objects free: who gets while another thread destroys some is given one. */
Test(pool, what_is_trimmed_does_not_count)
{
	struct slowly s = { .pool = NULL };
	quarry_pool_attr attr = { .struct_size = sizeof attr, .size = 1024, .max = 100, .magazine = 8,
				  .destroy = destroy_slowly, .context = &s };
	void *p[100], *held[100];
	pthread_t thread;

	for (int part = 0; part < 2; part++) {
		atomic_store(&s.destroying, 0);
		atomic_store(&s.go_on, 0);
		s.pool = make(&attr);
		cr_assert_eq(quarry_pool_get_bulk(s.pool, p, 100), 100);
		/* In the second part one stays out, and its chunk is kept. */
		cr_assert_eq(quarry_pool_put_bulk(s.pool, p, 100 - (size_t)part, QUARRY_POOL_SAFE), 100 - part);
		quarry_pool_flush(s.pool);
		cr_assert_eq(pthread_create(&thread, NULL, trim_slowly, &s), 0);
		while (!atomic_load(&s.destroying))
			sched_yield();
		cr_assert_eq(quarry_pool_get_bulk(s.pool, held, 100), 100 - part, "errno %d", errno);
		cr_assert_eq(stats_of(s.pool).objects, 100);
		atomic_store(&s.go_on, 1);
		pthread_join(thread, NULL);
		cr_assert_eq(stats_of(s.pool).in_use, 100);
		cr_assert_eq(quarry_pool_put_all(s.pool, QUARRY_POOL_SAFE), 100);
		end(s.pool);
	}
}

/* How many places of the index are looked at for an object. */
static unsigned probes(quarry_pool *pool, void *object)
{
	struct qy_pool_index *index = pool->index;
	uintptr_t number = (uintptr_t)object >> pool->chunk_shift;
	unsigned n = 1;

	for (uint32_t i = qy_pool_hash(index, number); index->by_base[i] != NULL; i = (i + 1) & index->mask, n++)
		if (index->by_base[i]->base == number << pool->chunk_shift)
			return n;
	cr_assert_fail("%p is not in the index", object);
	return 0;
}

/* Chunks come back at other addresses, since what is freed and had meanwhile is of random sizes. */
Test(pool, objects_are_found_as_fast_after_many_trims)
{
	quarry_pool_attr attr = { .struct_size = sizeof attr, .size = 1024 };
	quarry_pool *pool = make(&attr);
	static void *p[64 * 40];
	void *others[64] = { 0 };

	model_start("objects_are_found_as_fast_after_many_trims");
	for (unsigned round = 0; round < 1500; round++) {
		size_t n = 64 * (1 + model_below(40)), sum = 0, used = 0;
		unsigned other = (unsigned)model_below(COUNT(others));

		cr_assert_eq(quarry_pool_get_bulk(pool, p, n), n);
		quarry_free(others[other]);
		others[other] = quarry_malloc(65536 * (1 + model_below(8)));
		for (size_t i = 0; i < n; i += 16) {
			unsigned one = probes(pool, p[i]);

			cr_assert_leq(one, 12, "round %u", round);
			sum += one;
		}
		cr_assert_leq(sum, n / 16 * 3, "round %u", round);
		for (uint32_t i = 0; i <= pool->index->mask; i++)
			used += pool->index->by_base[i] != NULL;
		cr_assert(used <= pool->chunks && pool->index->numbers <= 64);
		for (size_t i = n - 1; i > 0; i--) {
			size_t k = model_below(i + 1);
			void *swapped = p[i];

			p[i] = p[k];
			p[k] = swapped;
		}
		cr_assert_eq(quarry_pool_put_bulk(pool, p, n, QUARRY_POOL_SAFE), n);
		(void)quarry_pool_trim(pool);
	}
	for (unsigned i = 0; i < COUNT(others); i++)
		quarry_free(others[i]);
	end(pool);
}

/* An index alone, of records of chunks that are not there. */
static quarry_pool *indexed(uint32_t numbers)
{
	quarry_pool *pool = quarry_calloc(1, sizeof(*pool));

	pool->chunk_shift = 16;
	pool->index = qy_pool_index_make(NULL, numbers);
	return pool;
}

static void not_indexed(quarry_pool *pool)
{
	quarry_free(pool->index);
	quarry_free(pool);
}

Test(pool, two_runs_of_chunks_do_not_lie_on_each_other)
{
	enum { RUN = 500 };
	quarry_pool *pool = indexed(1024);
	struct qy_record *r = quarry_aligned_alloc(64, 2 * RUN * sizeof *r);
	unsigned sum = 0;

	for (uintptr_t i = 0; i < 2 * RUN; i++) {
		uintptr_t number = 0x7f0000 + i % RUN + i / RUN * (pool->index->mask + 1);

		r[i].base = number << pool->chunk_shift;
		qy_pool_index_add(pool, pool->index, &r[i]);
	}
	for (unsigned i = 0; i < 2 * RUN; i++)
		sum += probes(pool, (void *)r[i].base);
	cr_assert_leq(sum, 2 * RUN * 3);
	quarry_free(r);
	not_indexed(pool);
}

/* Chunks that all want one of three places, come and gone at random: what is there is found, and nothing else. */
Test(pool, chunks_that_meet_in_the_index)
{
	quarry_pool *pool = indexed(8);
	struct qy_record *r = quarry_aligned_alloc(64, 16 * sizeof *r);
	bool there[16] = { false };
	uintptr_t number = 1;

	model_start("chunks_that_meet_in_the_index");
	for (unsigned i = 0; i < 16; i++) {
		while ((qy_pool_hash(pool->index, number) + 1) % (pool->index->mask + 1) > 2)
			number++;
		r[i].base = number++ << pool->chunk_shift;
	}
	for (unsigned step = 0; step < 20000; step++) {
		unsigned one = (unsigned)model_below(16), used = 0, live = 0;

		if (there[one])
			qy_pool_index_remove(pool, &r[one]);
		else
			qy_pool_index_add(pool, pool->index, &r[one]);
		there[one] = !there[one];
		for (unsigned i = 0; i < 16; i++) {
			cr_assert_eq(qy_pool_record_of(pool, (void *)r[i].base), there[i] ? &r[i] : NULL, "%u", step);
			live += there[i];
		}
		for (uint32_t i = 0; i <= pool->index->mask; i++)
			used += pool->index->by_base[i] != NULL;
		cr_assert_eq(used, live);
	}
	quarry_free(r);
	not_indexed(pool);
}

struct mover {
	quarry_pool *pool;
	void *object;
	_Atomic int thread, done;
	int result;
};

static void *put_what_moves(void *arg)
{
	struct mover *m = arg;

	atomic_store(&m->thread, (int)gettid());
	m->result = quarry_pool_put(m->pool, m->object, QUARRY_POOL_SAFE);
	atomic_store(&m->done, 1);
	return NULL;
}

static bool sleeps(int thread)
{
	char path[64], text[256] = "";
	const char *state;
	FILE *file;

	snprintf(path, sizeof path, "/proc/self/task/%d/stat", thread);
	file = fopen(path, "r");
	if (file == NULL)
		return false;
	(void)!fread(text, 1, sizeof text - 1, file);
	fclose(file);
	state = strrchr(text, ')');
	return state != NULL && state[1] == ' ' && state[2] == 'S';
}

/* A chunk that is nowhere to be seen, since it moves up in the index just then, is waited for. */
Test(pool, what_moves_in_the_index_is_found)
{
	struct calls calls = { 0 };
	quarry_pool_attr attr = attr_of(&calls);
	struct mover m = { .pool = make(&attr) };
	_Atomic(struct qy_record *) *place;
	struct qy_record *record;
	pthread_t thread;

	m.object = get(m.pool);
	pthread_mutex_lock(&m.pool->lock);
	record = qy_pool_record_of(m.pool, m.object);
	place = &m.pool->index->by_base[qy_pool_hash(m.pool->index, (uintptr_t)m.object >> m.pool->chunk_shift)];
	cr_assert_eq(*place, record);
	*place = NULL;
	cr_assert_eq(pthread_create(&thread, NULL, put_what_moves, &m), 0);
	while (m.thread == 0)
		sched_yield();
	while (!m.done && !sleeps(m.thread))
		sched_yield();
	*place = record;
	pthread_mutex_unlock(&m.pool->lock);
	pthread_join(thread, NULL);
	cr_assert_eq(m.result, 0);
	end(m.pool);
}

Test(pool, filled_beforehand_it_grows_no_more)
{
	struct calls calls = { 0 };
	quarry_pool_attr attr = attr_of(&calls);
	quarry_pool *pool = make(&attr);
	void *p[1000];
	unsigned made;

	cr_assert_eq(quarry_pool_prefill(pool, 1000), 0);
	made = atomic_load(&calls.constructed);
	cr_assert(made >= 1000 && made < 1100);
	cr_assert_eq(quarry_pool_prefill(pool, 500), 0);
	cr_assert_eq(quarry_pool_get_bulk(pool, p, 1000), 1000);
	cr_assert_eq(calls.constructed, made);
	cr_assert_eq(quarry_pool_put_all(pool, QUARRY_POOL_SAFE), 1000);
	cr_assert_eq(quarry_pool_put_all(pool, QUARRY_POOL_SAFE), 0);
	end(pool);
	attr.max = 10;
	pool = make(&attr);
	expect_error(quarry_pool_prefill(pool, 11), EAGAIN);
	cr_assert_eq(stats_of(pool).objects, 10);
	/* Those in the caller's magazines are as good. */
	cr_assert_eq(quarry_pool_get_bulk(pool, p, 10), 10);
	expect_error(quarry_pool_prefill(pool, 10), EAGAIN);
	cr_assert_eq(quarry_pool_put_bulk(pool, p, 10, QUARRY_POOL_SAFE), 10);
	cr_assert_eq(quarry_pool_prefill(pool, 10), 0);
	cr_assert_eq(stats_of(pool).objects, 10);
	end(pool);
}

/* What has been made is destroyed with the pool; far too few are ever made to run the machine out of memory. */
static int construct_few(void *object, void *context)
{
	unsigned *made = context;

	(void)object;
	return ++*made <= 1000 ? 0 : ENOSPC;
}

static void expect_none_made(quarry_pool *pool, const unsigned *made, size_t count)
{
	expect_error(quarry_pool_prefill(pool, count), ENOMEM);
	cr_expect_eq(*made, 0, "%u objects were made, of %zu", *made, count);
	cr_expect_eq(stats_of(pool).objects, 0);
}

Test(pool, more_than_there_can_be_are_not_begun_with)
{
	quarry_arena_attr small = { .struct_size = sizeof(small), .hard_limit = 1 << 20 };
	quarry_pool_attr attr = { .struct_size = sizeof(attr), .size = 16, .construct = construct_few };
	size_t memory = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
	unsigned made = 0;
	quarry_pool *pool;

	attr.context = &made;
	pool = make(&attr);
	expect_none_made(pool, &made, SIZE_MAX);
	expect_none_made(pool, &made, SIZE_MAX / 16 + 1);
	expect_none_made(pool, &made, ((size_t)1 << 32) + 1);
	expect_none_made(pool, &made, memory / 16 + 1);
	cr_expect_neq(strstr(quarry_error_text(), "count: "), NULL, "%s", quarry_error_text());
	cr_expect_eq(quarry_pool_prefill(pool, 100), 0);
	end(pool);
	made = 0;
	attr.max = SIZE_MAX; /* is no limit either */
	pool = make(&attr);
	expect_none_made(pool, &made, SIZE_MAX);
	end(pool);
	attr.max = 0;
	attr.arena = quarry_arena_create(&small);
	cr_assert_not_null(attr.arena);
	pool = make(&attr);
	expect_none_made(pool, &made, (1 << 20) / 16 + 1);
	end(pool);
	cr_expect_eq(quarry_arena_destroy(attr.arena), 0);
}

/* ---- threads and children ---- */

#define HELD 200

static void *take_and_put(void *arg)
{
	quarry_pool *pool = arg;
	void *p[HELD];

	cr_assert_eq(quarry_pool_get_bulk(pool, p, HELD), HELD);
	cr_assert_eq(quarry_pool_put_bulk(pool, p, HELD, QUARRY_POOL_SAFE), HELD);
	return NULL;
}

static void *take_put_and_wait(void *arg)
{
	take_and_put(arg);
	pthread_barrier_wait(&start_line);
	pthread_barrier_wait(&start_line);
	return NULL;
}

Test(pool, what_a_thread_had_in_magazines_is_there_when_it_has_ended)
{
	struct calls calls = { 0 };
	quarry_pool_attr attr = attr_of(&calls);
	quarry_pool *pool;
	pthread_t thread;

	attr.max = HELD;
	attr.magazine = 64;
	pool = make(&attr);
	for (int i = 0; i < 50; i++) {
		cr_assert_eq(pthread_create(&thread, NULL, take_and_put, pool), 0);
		pthread_join(thread, NULL);
	}
	take_and_put(pool);
	cr_assert(stats_of(pool).objects == HELD && stats_of(pool).got == 51 * HELD && stats_of(pool).in_use == 0);
	end(pool);
	/* A pool that ends before its threads, and one that has its number after it. */
	pool = make(&attr);
	pthread_barrier_init(&start_line, NULL, 2);
	cr_assert_eq(pthread_create(&thread, NULL, take_put_and_wait, pool), 0);
	pthread_barrier_wait(&start_line);
	end(pool);
	pool = make(&attr);
	take_and_put(pool);
	pthread_barrier_wait(&start_line);
	pthread_join(thread, NULL);
	quarry_pool_flush(pool);
	take_and_put(pool);
	end(pool);
}

static int child_of_threads(quarry_pool *pool, void *out, quarry_token token)
{
	void *p[HELD];

	alarm(20); /* a lock that stayed held is no reason to hang */
	/* All but the one that is out: also those that the other thread has in its magazines. */
	if (quarry_pool_get_bulk(pool, p, HELD) != HELD - 1)
		return 1;
	if (quarry_pool_resolve(pool, token) != out || quarry_pool_put_token(pool, token, QUARRY_POOL_SAFE) != 0)
		return 2;
	if (quarry_pool_put_bulk(pool, p, HELD - 1, QUARRY_POOL_SAFE) != HELD - 1)
		return 3;
	return quarry_pool_destroy(pool, 0) == 0 ? 0 : 4;
}

Test(pool, a_forked_child_has_all_that_is_free)
{
	struct calls calls = { 0 };
	quarry_pool_attr attr = attr_of(&calls);
	quarry_pool *pool;
	pthread_t thread;
	quarry_token token;
	int status;
	void *p;

	attr.max = HELD;
	attr.magazine = 30;
	pool = make(&attr);
	pthread_barrier_init(&start_line, NULL, 2);
	cr_assert_eq(pthread_create(&thread, NULL, take_put_and_wait, pool), 0);
	pthread_barrier_wait(&start_line);
	p = get(pool);
	token = quarry_pool_token(pool, p);
	for (int i = 0; i < 3; i++) {
		pid_t child = fork();

		if (child == 0)
			_exit(child_of_threads(pool, p, token));
		cr_assert_eq(waitpid(child, &status, 0), child);
		cr_assert_eq(status, 0, "the child's status is %x", (unsigned)status);
	}
	pthread_barrier_wait(&start_line);
	pthread_join(thread, NULL);
	put(pool, p);
	take_and_put(pool);
	end(pool);
}

/* ---- a thread caught in between ---- */

static struct qy_slot *caught; /* is in a chain, and out */
static uint32_t lost;          /* in no chain */

/* As if it had been stopped while a full magazine becomes the other one, and another thing while one was got. */
static void *stop_in_between(void *arg)
{
	quarry_pool *pool = arg;
	struct qy_pool_cache *c;
	struct qy_slot *spare;

	take_and_put(pool);
	c = qy_pool_cache_found(pool);
	spare = c->spare;
	cr_assert(spare != NULL && c->head != NULL && c->head->next != NULL);
	lost = c->spare_count;
	c->spare = c->head;
	caught = c->head->next;
	atomic_fetch_or(&caught->word, QY_POOL_LIVE);
	pthread_barrier_wait(&start_line);
	pthread_barrier_wait(&start_line);
	atomic_fetch_and(&caught->word, ~QY_POOL_LIVE);
	c->spare = spare;
	return NULL;
}

static int child_of_one_in_between(quarry_pool *pool)
{
	struct object *p[HELD];
	size_t n;

	alarm(20);
	n = quarry_pool_get_bulk(pool, (void **)p, HELD);
	for (size_t i = 0; i < n; i++) {
		if (p[i] == qy_slot_object(caught))
			return 1;
		for (size_t k = 0; k < i; k++)
			if (p[i] == p[k])
				return 2;
	}
	return n == HELD - 1 - lost ? 0 : 3;
}

Test(pool, a_child_has_nothing_twice_of_a_thread_that_was_in_between)
{
	quarry_pool_attr attr = { .struct_size = sizeof attr, .size = 100, .max = HELD, .magazine = 30 };
	quarry_pool *pool = make(&attr);
	pthread_t thread;
	pid_t child;
	int status;

	pthread_barrier_init(&start_line, NULL, 2);
	cr_assert_eq(pthread_create(&thread, NULL, stop_in_between, pool), 0);
	pthread_barrier_wait(&start_line);
	child = fork();
	if (child == 0)
		_exit(child_of_one_in_between(pool));
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert_eq(status, 0, "the child's status is %x", (unsigned)status);
	pthread_barrier_wait(&start_line);
	pthread_join(thread, NULL);
	take_and_put(pool);
	end(pool);
}
