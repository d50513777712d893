/* SPDX-License-Identifier: MIT */
/* What it costs to allocate and free runs of pages: quarry_pages_alloc and _free of 1, 8, 64 and 1,000 pages of 4 KiB,
 * by 1 and 2 threads of one allocator, beside malloc and free, and mmap and munmap, of as many bytes. The first word of
 * the run is written each time. Rounds of the three take turns; what is printed is the median of each in ns a pair, and
 * the ratio of pages to malloc in the same round, its median. Beside each pair stand others: HELD runs are held at a
 * time, and the one that was allocated first is freed. Then the numbers: an id of 64 bits from an address and back.
 *
 *	pages [ROUNDS [HELD]] (51, 16). A round is short, so that on a busy machine most are not interrupted. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "include/quarry/pages.h"
#include "median.h"

#define PAGE 4096
#define COUNT 65536
#define ROUNDS_MAX 101
#define HELD_MAX 64
#define THREADS_MAX 2

enum way { PAGES, MALLOC, MMAP, WAYS };

struct job {
	enum way way;
	size_t n;
	uint64_t pairs;
	pthread_barrier_t *barrier;
	double ns; /* a pair */
};

static quarry_pages *pages;
static unsigned rounds = 51, held = 16;

static double now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void *get(enum way way, size_t n)
{
	void *p;

	switch (way) {
	case PAGES:
		p = quarry_pages_alloc(pages, n);
		break;
	case MALLOC:
		p = quarry_malloc(n * PAGE);
		break;
	default:
		p = mmap(NULL, n * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		p = p == MAP_FAILED ? NULL : p;
	}
	if (p == NULL)
		exit(1);
	*(volatile uint64_t *)p = n;
	return p;
}

static void put(enum way way, void *p, size_t n)
{
	if (way == PAGES && quarry_pages_free(pages, p) != 0)
		exit(1);
	if (way == MALLOC)
		quarry_free(p);
	if (way == MMAP)
		munmap(p, n * PAGE);
}

static void *work(void *arg)
{
	struct job *job = arg;
	void *run[HELD_MAX];
	double start;

	for (unsigned i = 0; i < held; i++)
		run[i] = get(job->way, job->n);
	pthread_barrier_wait(job->barrier);
	start = now_ns();
	for (uint64_t i = 0; i < job->pairs; i++) {
		put(job->way, run[i % held], job->n);
		run[i % held] = get(job->way, job->n);
	}
	job->ns = (now_ns() - start) / (double)job->pairs;
	for (unsigned i = 0; i < held; i++)
		put(job->way, run[i], job->n);
	return NULL;
}

/* ns a pair, of the slower thread. */
static double measure(enum way way, size_t n, unsigned threads)
{
	pthread_barrier_t barrier;
	pthread_t thread[THREADS_MAX];
	struct job job[THREADS_MAX];
	double ns = 0;

	pthread_barrier_init(&barrier, NULL, threads);
	for (unsigned i = 0; i < threads; i++) {
		job[i] = (struct job){ way, n, way == MMAP ? 300 : n <= 64 ? 30000 : 3000, &barrier, 0 };
		if (pthread_create(&thread[i], NULL, work, &job[i]) != 0)
			exit(1);
	}
	for (unsigned i = 0; i < threads; i++) {
		pthread_join(thread[i], NULL);
		ns = job[i].ns > ns ? job[i].ns : ns;
	}
	pthread_barrier_destroy(&barrier);
	return ns;
}

static void compare(size_t n, unsigned threads)
{
	static double ns[WAYS][ROUNDS_MAX], to_malloc[ROUNDS_MAX], to_mmap[ROUNDS_MAX];

	for (unsigned round = 0; round < rounds; round++) {
		for (unsigned i = 0; i < WAYS; i++)
			ns[(round + i) % WAYS][round] = measure((enum way)((round + i) % WAYS), n, threads);
		to_malloc[round] = ns[PAGES][round] / ns[MALLOC][round];
		to_mmap[round] = ns[PAGES][round] / ns[MMAP][round];
	}
	printf("%4zu pages, %u thread%s: pages %8.1f ns, malloc %8.1f ns, mmap %9.1f ns; to malloc %6.2f, to mmap %6.3f\n",
	       n, threads, threads > 1 ? "s" : " ", median(ns[PAGES], rounds), median(ns[MALLOC], rounds),
	       median(ns[MMAP], rounds), median(to_malloc, rounds), median(to_mmap, rounds));
	fflush(stdout);
}

/* An address to an id, and back. */
static void numbers(void)
{
	static double ns[ROUNDS_MAX];
	const uint64_t times = 100000;
	void *run[64];

	for (unsigned i = 0; i < 64; i++)
		run[i] = get(PAGES, 3);
	for (unsigned round = 0; round < rounds; round++) {
		double start = now_ns();

		for (uint64_t i = 0; i < times; i++) {
			quarry_page_id64 id;

			if (quarry_pages_to_id64(pages, run[i % 64], &id) != 0 ||
			    quarry_pages_resolve(pages, id, NULL) != run[i % 64])
				exit(1);
		}
		ns[round] = (now_ns() - start) / (double)times;
	}
	printf("an id from an address and back: %.1f ns\n", median(ns, rounds));
}

int main(int argc, char **argv)
{
	static const size_t sizes[] = { 1, 8, 64, 1000 };
	quarry_pages_attr attr = { .count = COUNT };

	if (argc > 1)
		rounds = (unsigned)atoi(argv[1]);
	if (argc > 2)
		held = (unsigned)atoi(argv[2]);
	pages = quarry_pages_create(&attr);
	if (pages == NULL || rounds == 0 || rounds > ROUNDS_MAX || held == 0 || held > HELD_MAX)
		return 1;
	for (unsigned threads = 1; threads <= THREADS_MAX; threads++)
		for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
			compare(sizes[i], threads);
	numbers();
	return quarry_pages_destroy(pages) == 0 ? 0 : 1;
}
