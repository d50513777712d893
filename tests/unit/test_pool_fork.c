/* SPDX-License-Identifier: MIT */
/* Forks in the middle of a trim: by another thread, whose child is left with half a trim, and by a destructor. Each
 * process destroys each object once. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/pool.h"

#define OBJECTS_MAX 8192
#define CHUNK 1024 /* objects of 64 bytes, in a chunk of 64 KiB */

/* What a process knows; a child has it as it was, and goes on with it. */
static struct {
	quarry_pool *pool;
	unsigned made, destroyed, mistakes;
	unsigned of[OBJECTS_MAX]; /* how often each was destroyed */
	unsigned stops_at;        /* the how many-th destructor; 0: none */
	void (*stop)(void);
} seen;

static int numbered(void *object, void *context)
{
	(void)context;
	*(unsigned *)object = seen.made++;
	return 0;
}

static void once(void *object, void *context)
{
	unsigned number = *(unsigned *)object;

	(void)context;
	if (number < seen.made)
		seen.of[number]++;
	else
		seen.mistakes++;
	*(unsigned *)object = UINT32_MAX;
	if (++seen.destroyed == seen.stops_at)
		seen.stop();
}

static void told(void *object, enum quarry_pool_mistake what, void *context)
{
	(void)object;
	(void)what;
	(void)context;
	seen.mistakes++;
}

/* 0 when each of all that was ever made was destroyed, once. */
static int each_once(void)
{
	for (unsigned i = 0; i < seen.made; i++)
		if (seen.of[i] != 1)
			return 1;
	return seen.mistakes != 0;
}

/* A pool whose records are in memory that was somebody's: what is not written to is not zero. */
static quarry_pool *make_in(quarry_arena *arena, uint32_t flags)
{
	quarry_pool_attr attr = { .struct_size = sizeof(attr), .flags = flags, .size = 64, .arena = arena,
				  .construct = numbered, .destroy = once, .mistake = told, .magazine = 32 };
	void *junk[8];

	for (int i = 0; i < 8; i++) {
		junk[i] = quarry_arena_malloc(arena, 100000);
		memset(junk[i], 0x11, 100000);
	}
	for (int i = 0; i < 8; i++)
		quarry_free(junk[i]);
	memset(&seen, 0, sizeof(seen));
	return seen.pool = make(&attr);
}

/* ---- by another thread ---- */

static pthread_barrier_t stopped;

static void wait_for_the_fork(void)
{
	pthread_barrier_wait(&stopped);
	pthread_barrier_wait(&stopped);
}

static void *trim(void *pool)
{
	quarry_pool_trim(pool);
	return NULL;
}

static int child_destroys(void)
{
	alarm(20);
	if (quarry_pool_destroy(seen.pool, 0) != 0)
		return 2;
	return each_once();
}

static int child_destroys_by_force(void)
{
	alarm(20);
	if (quarry_pool_destroy(seen.pool, 0) == 0)
		return 3;
	if (quarry_pool_destroy(seen.pool, 1) != 0)
		return 2;
	return each_once();
}

static int child_trims_and_goes_on(void)
{
	static void *p[CHUNK];
	size_t left = seen.made - seen.destroyed;
	quarry_pool_stats stats = { .struct_size = sizeof(stats) };

	alarm(20);
	if (quarry_pool_trim(seen.pool) != left || each_once() != 0)
		return 4;
	if (quarry_pool_stats_get(seen.pool, &stats) != 0 || stats.objects != 0 || stats.trimmed != seen.made)
		return 5;
	if (quarry_pool_get_bulk(seen.pool, p, CHUNK) != CHUNK ||
	    quarry_pool_put_bulk(seen.pool, p, CHUNK, QUARRY_POOL_SAFE) != CHUNK)
		return 6;
	return child_destroys();
}

/* With one that is out in a chunk of its own; and where the first chunk was trimmed before, or never had more objects. */
static void fork_in_a_trim(uint32_t flags, unsigned objects, bool one_is_out, bool before, int (*child)(void))
{
	static void *p[OBJECTS_MAX];
	quarry_arena *arena = quarry_arena_create(NULL);
	quarry_pool *pool = make_in(arena, flags);
	pthread_t thread;
	int status;
	pid_t pid;

	if (before) {
		cr_assert_eq(quarry_pool_prefill(pool, CHUNK), 0);
		cr_assert_eq(quarry_pool_trim(pool), CHUNK);
	}
	cr_assert_eq(quarry_pool_get_bulk(pool, p, objects), objects);
	cr_assert_eq(quarry_pool_put_bulk(pool, p, objects - one_is_out, QUARRY_POOL_SAFE), objects - one_is_out);
	cr_assert_gt(quarry_pool_flush(pool), 0);
	seen.stops_at = seen.destroyed + 10;
	seen.stop = wait_for_the_fork;
	pthread_barrier_init(&stopped, NULL, 2);
	cr_assert_eq(pthread_create(&thread, NULL, trim, pool), 0);
	pthread_barrier_wait(&stopped);
	pid = fork();
	if (pid == 0)
		_exit(child());
	pthread_barrier_wait(&stopped);
	pthread_join(thread, NULL);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_expect_eq(status, 0, "flags %u, %u objects, %strimmed before: the child's status is %x", flags, objects,
		     before ? "" : "not ", (unsigned)status);
	if (one_is_out)
		put(pool, p[objects - 1]);
	end(pool);
	cr_expect_eq(each_once(), 0);
	quarry_arena_destroy(arena);
}

Test(pool_fork, a_child_ends_a_pool_that_was_being_trimmed)
{
	for (unsigned i = 0; i < 4; i++) {
		fork_in_a_trim(i & 1, 100, false, i >> 1, child_destroys);
		fork_in_a_trim(i & 1, CHUNK + 100, true, i >> 1, child_destroys_by_force);
	}
}

Test(pool_fork, a_child_goes_on_with_a_pool_that_was_being_trimmed)
{
	for (unsigned i = 0; i < 4; i++) {
		fork_in_a_trim(i & 1, 100, false, i >> 1, child_trims_and_goes_on);
		fork_in_a_trim(i & 1, 3 * CHUNK, false, i >> 1, child_trims_and_goes_on);
	}
}

/* ---- by a destructor ---- */

static bool is_child;
static pid_t forked;

static void fork_here(void)
{
	forked = fork();
	is_child = forked == 0;
	if (is_child && quarry_pool_trim(seen.pool) != 0) /* it is being trimmed, by this thread */
		_exit(7);
}

Test(pool_fork, a_destructor_that_forks)
{
	quarry_arena *arena = quarry_arena_create(NULL);
	quarry_pool *pool = make_in(arena, 0);
	int status;

	cr_assert_eq(quarry_pool_prefill(pool, 100), 0);
	seen.stops_at = 10;
	seen.stop = fork_here;
	quarry_pool_trim(pool);
	if (is_child)
		_exit(quarry_pool_trim(pool) != 0 ? 8 : child_destroys());
	cr_assert_eq(waitpid(forked, &status, 0), forked);
	cr_expect_eq(status, 0, "the child's status is %x", (unsigned)status);
	end(pool);
	cr_expect_eq(each_once(), 0);
	quarry_arena_destroy(arena);
}
