/* SPDX-License-Identifier: MIT */
/* What a view of the heap costs, under load: OBJECTS of 16 to 128 bytes live while a thread replaces them at random, and one
 * view is made in each round. A line for each: how long all threads were held, how long any one of them at most, how long
 * all that they did took longer, the whole call, what an operation of that thread took meanwhile, on average and at most,
 * and what they take for as long without a view, beside another thread that is as busy: a machine that is not this
 * program's alone has stops of its own, of milliseconds. Then the medians and the worst. The last lines are of quarry_view_visit over all of it, and with
 * the kernel asked where pages are; and what finding one object among them that leaked takes, while they are replaced: how
 * long all threads stood still for the copy that is searched, and the whole of it.
 *
 *	view [OBJECTS [ROUNDS]] (10 million, 7) */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "include/quarry/quarry.h"
#include "median.h"

#define ROUNDS_MAX 101
#define FIRST_MS 300 /* without a view, before the first */

static _Atomic(size_t) operations;
static _Atomic(uint64_t) longest; /* ns: of an operation, since somebody made it 0 */
static atomic_bool over;
static void **objects;
static size_t count;

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static double now_ms(void)
{
	return (double)now_ns() / 1e6;
}

static uint64_t next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static void *some(uint64_t *state)
{
	void *p = quarry_malloc(16 + next(state) % 113);

	if (p == NULL)
		exit(1);
	memset(p, 1, 16);
	return p;
}

static void *replace(void *unused)
{
	uint64_t state = 88172645463325252u, before = now_ns();

	while (!atomic_load_explicit(&over, memory_order_relaxed)) {
		size_t i = next(&state) % count;
		uint64_t now;

		quarry_free(objects[i]);
		objects[i] = some(&state);
		now = now_ns();
		if (now - before > atomic_load_explicit(&longest, memory_order_relaxed))
			atomic_store_explicit(&longest, now - before, memory_order_relaxed);
		before = now;
		atomic_fetch_add_explicit(&operations, 1, memory_order_relaxed);
	}
	(void)unused;
	return NULL;
}

struct operations {
	double each, longest; /* us, ms */
};

/* Of what is under way between the two. */
static double begin_operations(size_t *before)
{
	*before = atomic_load(&operations);
	atomic_store(&longest, 0);
	return now_ms();
}

static struct operations end_operations(double begun, size_t before)
{
	double took = now_ms() - begun;

	return (struct operations){ took * 1e3 / (double)(atomic_load(&operations) - before + 1),
				    (double)atomic_load(&longest) / 1e6 };
}

/* Without a view, and this thread as busy. */
static struct operations without_view(double ms)
{
	size_t before;
	double begun = begin_operations(&before);

	while (now_ms() - begun < ms)
		;
	return end_operations(begun, before);
}

static void sum_up(const char *what, double *values, unsigned n, const char *unit)
{
	median_sort(values, n);
	printf("%-28s median %9.3f  worst %9.3f %s\n", what, values[n / 2], values[n - 1], unit);
}

static int add(const quarry_view_item *item, void *sum)
{
	*(size_t *)sum += item->size;
	return 0;
}

static void visit(const quarry_view *v, unsigned kinds, const char *what)
{
	double begun = now_ms();
	size_t sum = 0;

	quarry_view_visit(v, kinds, add, &sum);
	printf("%-28s %.1f ms for %.1f MiB\n", what, now_ms() - begun, (double)sum / 1048576);
}

/* (Not in the caller: nothing of it stays on the stack.) */
static __attribute__((noinline)) void plant(void)
{
	volatile char *p = quarry_malloc(100);

	if (p == NULL)
		exit(1);
	p[0] = 1;
}

static bool find_it(unsigned round)
{
	quarry_leaks_report r = { .struct_size = sizeof(r) };

	if (quarry_leaks_find(0, NULL, NULL, &r) != 0) {
		printf("no search for leaks: %s\n", quarry_error_text());
		return false;
	}
	printf("search %u for leaks: threads stood still %.3f ms, took %.1f ms for %.1f MiB, %llu of %llu objects leaked\n", round + 1,
	       (double)r.stopped_ns / 1e6, (double)r.took_ns / 1e6, (double)r.scanned_bytes / 1048576,
	       (unsigned long long)r.objects, (unsigned long long)r.live_objects);
	return r.objects == 1 && r.held_objects == 0 && r.unread == 0;
}

int main(int argc, char **argv)
{
	static double all[ROUNDS_MAX], one[ROUNDS_MAX], took[ROUNDS_MAX], call[ROUNDS_MAX], each[ROUNDS_MAX];
	static double most[ROUNDS_MAX], most_without[ROUNDS_MAX];
	unsigned rounds = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 0) : 7, exact = 0, found = 0;
	uint64_t state = 88172645463325253u;
	quarry_view *v = NULL;
	pthread_t thread;

	count = argc > 1 ? strtoul(argv[1], NULL, 0) : 10000000;
	if (rounds == 0 || rounds > ROUNDS_MAX || count == 0 || (objects = quarry_calloc(count, sizeof(*objects))) == NULL) {
		fprintf(stderr, "usage: view [OBJECTS [ROUNDS]], up to %d rounds\n", ROUNDS_MAX);
		return 2;
	}
	for (size_t i = 0; i < count; i++)
		objects[i] = some(&state);
	plant();
	if (pthread_create(&thread, NULL, replace, NULL) != 0)
		return 1;
	for (unsigned i = 0; i < rounds; i++) {
		quarry_view_report report = { .struct_size = sizeof(report) };
		struct operations with, without = without_view(i == 0 ? FIRST_MS : call[i - 1]);
		size_t before;
		double begun;

		quarry_view_close(v);
		begun = begin_operations(&before);
		v = quarry_view_open();
		call[i] = now_ms() - begun;
		if (v == NULL || quarry_view_report_get(v, &report) != 0)
			return 1;
		with = end_operations(begun, before);
		each[i] = with.each;
		most[i] = with.longest;
		most_without[i] = without.longest;
		all[i] = (double)report.moment_ns / 1e6;
		one[i] = (double)report.longest_ns / 1e6;
		took[i] = (double)report.took_ns / 1e6;
		exact += report.exact;
		printf("round %u: all held %.3f ms, one at most %.3f ms, took %.1f ms, call %.1f ms, %s, %llu objects; an operation "
		       "%.2f us, at most %.3f ms, else %.2f and %.3f\n", i + 1, all[i], one[i], took[i], call[i], report.exact ? "exact" : "NOT EXACT",
		       (unsigned long long)report.objects, each[i], most[i], without.each, without.longest);
	}
	for (unsigned i = 0; i < rounds; i++)
		found += find_it(i);
	atomic_store(&over, true);
	pthread_join(thread, NULL);
	sum_up("all threads held", all, rounds, "ms");
	sum_up("longest that one was held", one, rounds, "ms");
	sum_up("from the moment to the end", took, rounds, "ms");
	sum_up("the whole call", call, rounds, "ms");
	sum_up("an operation meanwhile", each, rounds, "us");
	sum_up("the longest meanwhile", most, rounds, "ms");
	sum_up("the longest without", most_without, rounds, "ms");
	printf("%-28s %u of %u\n", "exact", exact, rounds);
	printf("%-28s %u of %u\n", "found what leaked, alone", found, rounds);
	visit(v, QUARRY_VIEW_OBJECT | QUARRY_VIEW_BLOCK, "visiting all objects");
	visit(v, QUARRY_VIEW_REGION, "visiting regions");
	visit(v, QUARRY_VIEW_REGION | QUARRY_VIEW_PAGES, "the same, pages asked for");
	quarry_view_close(v);
	return exact == rounds ? 0 : 1;
}
