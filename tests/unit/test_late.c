/* SPDX-License-Identifier: MIT */
/* A forked child that gets pages of a later moment from its parent, whose other threads have used every free object in
 * them by then, and left there what looks like links to blocks that live. On the machine that the fake kernel plays:
 * every page, or some of them, cannot be copied, and no page is sent before the threads are done. What the child is
 * given must be nobody's, and zero where it is to be; what it had is its own, to be freed. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/wait.h>
#include <unistd.h>

#include "include/quarry/quarry.h"
#include "lib/base/place.h"
#include "numa/os.h"
#include "tests/fake_os.h"

#define MODEL_FAIL(...) abort() /* in children and threads, too */
#include "tests/unit/model.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define WORKERS 3
#define EACH 4000                        /* blocks of one thread */
#define OWNERS (1 + WORKERS + 2)         /* the thread that forks, those that go on, and two that have ended */
#define CELLS ((size_t)1 << 30 >> 4)     /* of the window that the test looks at */

/* The library starts before main (lib/api/init.c), so the machine is made before that. */
static __attribute__((constructor(101))) void make_machine(void)
{
	setenv("QUARRY_OPTIONS", "reclaim=off,pages=2m", 1);
	fake_os_install();
	fake_os_memory(0, (uint64_t)16 << 30, (uint64_t)16 << 30);
	fake_os_pool(0, 21, 500);
}

/* ---- blocks ---- */

struct block {
	char *p;
	size_t size;
	uint64_t mark;
	bool zeroed;
};

static struct block blocks[OWNERS][EACH];
static uint32_t counts[OWNERS];
static quarry_arena *arena;

static uint8_t cells[CELLS]; /* of memory, 16 bytes each: whether a block has them */

static uint32_t below(uint64_t *state, uint32_t n)
{
	return (uint32_t)((model_mix(state) >> 32) * n >> 32);
}

static size_t any_size(uint64_t *state)
{
	uint32_t kind = below(state, 200);

	if (kind == 0)
		return 40 * KIB + below(state, 400 * KIB);
	return kind < 20 ? 1 + below(state, 20000) : kind < 100 ? 1 + below(state, 100) : 1 + below(state, 1500);
}

static char *get(size_t size, bool of_arena, bool zeroed)
{
	char *p = of_arena ? (zeroed ? quarry_arena_calloc(arena, 1, size) : quarry_arena_malloc(arena, size))
			   : (zeroed ? quarry_calloc(1, size) : quarry_malloc(size));

	model_must(p != NULL, "%zu bytes, errno %d", size, errno);
	return p;
}

static void write_block(const struct block *b)
{
	memset(b->p, (int)b->mark, b->size);
	for (size_t at = 0; at + 8 <= b->size; at += 8)
		memcpy(b->p + at, &b->mark, 8);
}

static void check_block(const struct block *b)
{
	for (size_t at = 0; at + 8 <= b->size; at += 8)
		model_must(memcmp(b->p + at, &b->mark, 8) == 0, "%zu bytes at %p, at %zu", b->size, (void *)b->p, at);
}

/* Its memory is nobody's, and becomes the block's; and the other way round. */
static void claim(const struct block *b, bool free_before)
{
	uintptr_t first = qy_window_offset(b->p) >> 4, last = (qy_window_offset(b->p) + b->size - 1) >> 4;

	model_must(last < CELLS, "%p is further up than the test looks", (void *)b->p);
	for (uintptr_t c = first; c <= last; c++) {
		model_must(cells[c] == !free_before, "%zu bytes at %p %s", b->size, (void *)b->p,
			   free_before ? "are somebody's already" : "are nobody's");
		cells[c] = free_before;
	}
}

static void free_block(struct block *b)
{
	quarry_free(b->p);
	b->p = NULL;
}

/* ---- threads that do one thing after the other ---- */

static uint64_t states[OWNERS];

/* Blocks of all sizes, of which half are freed again. */
static void fill(unsigned owner)
{
	uint64_t *state = &states[owner];

	for (counts[owner] = 0; counts[owner] < EACH; counts[owner]++) {
		struct block *b = &blocks[owner][counts[owner]];

		*b = (struct block){ .size = any_size(state), .mark = model_mix(state) };
		b->p = get(b->size, below(state, 3) == 0, false);
		write_block(b);
		if (below(state, 2))
			free_block(&blocks[owner][below(state, counts[owner] + 1)]);
	}
}

/* A part of all others' blocks goes home, or is on its way there. */
static void free_others(unsigned owner)
{
	for (unsigned other = 0; other < OWNERS; other++)
		for (uint32_t i = 0; other != owner && i < EACH; i++)
			if (blocks[other][i].p != NULL && below(&states[owner], 12) == 0)
				free_block(&blocks[other][i]);
}

/* What becomes of the arena meanwhile. */
static enum { STAYS, IS_RESET, ENDS } fate;

/* After the fork: what was free at the fork is used, and is full of what looks like links to blocks that live. */
static void scribble(unsigned owner)
{
	uint64_t *state = &states[owner];

	if (owner == 1) {
		quarry_purge(NULL);
		if (fate == IS_RESET)
			model_must(quarry_arena_reset(arena) == 0, "errno %d", errno);
		else if (fate == ENDS)
			model_must(quarry_arena_destroy(arena) == 0, "errno %d", errno);
	}
	for (uint32_t i = 0; i < 4 * EACH; i++) {
		size_t size = i % 400 == 0 ? below(state, 2 * MIB) : any_size(state);
		char *p = get(size, below(state, 3) == 0 && fate != ENDS, false);

		for (size_t at = 0; at + 8 <= size; at += 8) {
			const struct block *b = &blocks[below(state, OWNERS)][below(state, EACH)];

			memcpy(p + at, &b->p, 8);
		}
		if (below(state, 8) == 0)
			quarry_free(p);
	}
}

static struct worker {
	pthread_t thread;
	sem_t go, done;
	void (*job)(unsigned owner);
} workers[WORKERS];

static void *work(void *arg)
{
	struct worker *w = arg;

	for (;;) {
		while (sem_wait(&w->go) != 0)
			;
		if (w->job == NULL)
			return NULL;
		w->job((unsigned)(w - workers) + 1);
		sem_post(&w->done);
	}
}

/* One after the other, so that it is the same each time. */
static void by_workers(void (*job)(unsigned owner))
{
	for (struct worker *w = workers; w < workers + WORKERS; w++) {
		w->job = job;
		sem_post(&w->go);
		while (sem_wait(&w->done) != 0)
			;
	}
}

static void by_all(void (*job)(unsigned owner))
{
	job(0);
	by_workers(job);
}

static void *fill_and_end(void *owner)
{
	fill((unsigned)(uintptr_t)owner);
	return NULL;
}

static void run_and_end(unsigned owner)
{
	pthread_t thread;

	cr_assert_eq(pthread_create(&thread, NULL, fill_and_end, (void *)(uintptr_t)owner), 0);
	cr_assert_eq(pthread_join(thread, NULL), 0);
}

/* What all of quarry's threads may hold: lists, mail, what is gathered; of those that ended, too, parked or given
 * up. */
static void make_heap(void)
{
	const quarry_arena_attr attr = { .page_kind = QUARRY_PAGES_2M };

	arena = quarry_arena_create(&attr);
	cr_assert_not_null(arena);
	for (unsigned i = 0; i < OWNERS; i++)
		states[i] = model_random();
	run_and_end(OWNERS - 1);
	quarry_purge(NULL);
	for (struct worker *w = workers; w < workers + WORKERS; w++) {
		cr_assert(sem_init(&w->go, 0, 0) == 0 && sem_init(&w->done, 0, 0) == 0);
		cr_assert_eq(pthread_create(&w->thread, NULL, work, w), 0);
	}
	by_all(fill);
	run_and_end(OWNERS - 2);
	by_all(free_others);
	for (unsigned i = 0; i < OWNERS; i++)
		for (uint32_t n = 0; n < EACH; n++)
			if (blocks[i][n].p != NULL)
				claim(&blocks[i][n], true);
}

static void end_workers(void)
{
	for (struct worker *w = workers; w < workers + WORKERS; w++) {
		w->job = NULL;
		sem_post(&w->go);
		cr_assert_eq(pthread_join(w->thread, NULL), 0);
	}
}

/* ---- a kernel that takes pages away ---- */

static const struct qy_os *inner;
static struct qy_os wrapped;
static pid_t parent;
static unsigned late_percent;
static bool scribbled;

static int copy_some(void *to, const void *from, size_t len)
{
	uint64_t state = (uintptr_t)from >> 21;

	if (getpid() != parent && below(&state, 100) < late_percent) {
		errno = EFAULT;
		return -1;
	}
	return inner->copy(to, from, len);
}

static int send_later(int end, const void *bytes, size_t len, unsigned ms)
{
	if (getpid() == parent && !scribbled) {
		scribbled = true;
		by_workers(scribble);
	}
	return inner->send(end, bytes, len, ms);
}

/* ---- the child ---- */

static struct block fresh[4][EACH];

static void allocate(unsigned owner)
{
	uint64_t state = states[owner] + 1;

	for (uint32_t i = 0; i < EACH; i++) {
		struct block *b = &fresh[owner][i];

		*b = (struct block){ .size = i % 500 == 0 ? 1 + below(&state, 3 * MIB) : any_size(&state),
				     .mark = model_mix(&state), .zeroed = below(&state, 3) == 0 };
		b->p = get(b->size, below(&state, 3) == 0, b->zeroed);
		for (size_t at = 0; b->zeroed && at < b->size; at++)
			model_must(b->p[at] == 0, "%zu bytes at %p are not zero at %zu", b->size, (void *)b->p, at);
		write_block(b);
	}
}

static void *allocate_in_thread(void *owner)
{
	allocate((unsigned)(uintptr_t)owner);
	return NULL;
}

/* By threads that take over what the parent's held, or by one when all that was given up. */
static void allocate_all(bool by_threads)
{
	pthread_t threads[4];

	if (!by_threads)
		quarry_purge(NULL);
	for (unsigned i = 0; i < 4; i++) {
		if (!by_threads || i == 0)
			allocate(i);
		else
			model_must(pthread_create(&threads[i], NULL, allocate_in_thread, (void *)(uintptr_t)i) == 0, "thread");
	}
	for (unsigned i = 1; by_threads && i < 4; i++)
		pthread_join(threads[i], NULL);
	for (unsigned i = 0; i < 4; i++)
		for (uint32_t n = 0; n < EACH; n++)
			claim(&fresh[i][n], true);
}

static void free_all(struct block *of, uint32_t n, bool contents)
{
	for (uint32_t i = 0; i < n; i++) {
		if (of[i].p == NULL)
			continue;
		if (contents)
			check_block(&of[i]);
		claim(&of[i], false);
		free_block(&of[i]);
	}
}

static void live_on(bool by_threads)
{
	quarry_stats stats = { .version = QUARRY_STATS_VERSION };

	allocate_all(by_threads);
	for (unsigned i = 0; i < OWNERS; i++)
		free_all(blocks[i], EACH, fate == STAYS);
	for (unsigned i = 0; i < 4; i++)
		free_all(fresh[i], EACH, true);
	allocate_all(!by_threads);
	for (unsigned i = 0; i < 4; i++)
		free_all(fresh[i], EACH, true);
	quarry_purge(NULL);
	model_must(quarry_stats_get(NULL, &stats) == 0, "errno %d", errno);
	model_must(stats.bad_frees == 0, "%" PRIu64 " mistakes were seen", stats.bad_frees);
	model_must(late_percent == 0 || stats.refused[QUARRY_REFUSED_FORK] > 0, "no page came late");
}

/* A child's child, of ordinary memory by then: nothing is late there. */
static void fork_again(bool by_threads)
{
	pid_t child;
	int status;

	late_percent = 0;
	child = fork();
	if (child == 0) {
		live_on(by_threads);
		_exit(0);
	}
	model_must(waitpid(child, &status, 0) == child && status == 0, "the child's child: %x", (unsigned)status);
}

static void fork_late(unsigned percent, bool by_threads, int arena_fate)
{
	pid_t child;
	int status;

	model_start("late");
	make_heap();
	inner = qy_os;
	wrapped = *qy_os;
	wrapped.copy = copy_some;
	wrapped.send = send_later;
	parent = getpid();
	late_percent = percent;
	fate = arena_fate;
	qy_os = &wrapped;
	child = fork();
	cr_assert_geq(child, 0);
	if (child == 0) {
		quarry_stats stats = { .version = QUARRY_STATS_VERSION };

		model_must(quarry_stats_get(NULL, &stats) == 0 && stats.kind_got[QUARRY_PAGES_2M] == 0,
			   "a region was not replaced");
		fork_again(by_threads);
		live_on(by_threads);
		_exit(0);
	}
	qy_os = inner;
	cr_assert_eq(scribbled, percent > 0);
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert_eq(status, 0, "the child's status is %x", (unsigned)status);
	end_workers();
	/* The parent has what it had. */
	for (unsigned i = 0; i < OWNERS && fate == STAYS; i++)
		free_all(blocks[i], EACH, true);
}

Test(late, all_pages_and_one_thread, .timeout = 120)
{
	fork_late(100, false, STAYS);
}

Test(late, all_pages_and_threads_that_take_over, .timeout = 120)
{
	fork_late(100, true, STAYS);
}

Test(late, some_pages_and_one_thread, .timeout = 120)
{
	fork_late(40, false, STAYS);
}

Test(late, some_pages_and_threads_that_take_over, .timeout = 120)
{
	fork_late(40, true, STAYS);
}

Test(late, an_arena_that_is_reset_meanwhile, .timeout = 120)
{
	fork_late(100, false, IS_RESET);
}

/* What is no more in the parent can still be copied, or is zeros; and all else comes as before. */
Test(late, an_arena_that_ends_meanwhile, .timeout = 120)
{
	fork_late(100, true, ENDS);
}

Test(late, none, .timeout = 120)
{
	fork_late(0, true, STAYS);
}
