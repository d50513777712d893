/* SPDX-License-Identifier: MIT */
/* For oom.sh: memory runs out, and the heap stays whole. The program uses malloc as any does. Its blocks are a list
 * that runs through the blocks, so that it needs no memory of its own when there is none; every byte of each is known
 * and verified.
 *
 *   oom until THREADS MIN MAX   allocate MIN to MAX bytes at a time until NULL with ENOMEM, several times: between,
 *                               all is verified, half is freed and must be there again, then all is freed
 *   oom churn THREADS MIB       allocate and free MIB in all, again and again, each time in another size, in a cgroup
 *                               with little more than that
 * Prints what it got; exits with 0, or 1 with the reason on standard error. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)
#define THREADS_MAX 32
#define ROUNDS 3

struct block {
	struct block *next;
	size_t size;
	uint64_t seed;
};

struct worker {
	pthread_t thread;
	unsigned number;
	uint64_t random;
	struct block *list;
	size_t first;       /* bytes got in the first round */
	size_t held;        /* bytes on the list */
};

static unsigned threads;
static size_t size_min, size_max, churn_bytes;
static pthread_barrier_t barrier;
static struct worker workers[THREADS_MAX];
static size_t freed[THREADS_MAX], regained[THREADS_MAX], biggest;

static __attribute__((noreturn, format(printf, 1, 2))) void fail(const char *format, ...)
{
	char text[256];
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(text, sizeof text - 1, format, args);
	va_end(args);
	text[n++] = '\n';
	if (write(2, "oom: FAIL: ", 11) < 0 || write(2, text, (size_t)n) < 0)
		_exit(1);
	_exit(1);
}

static uint64_t next_random(struct worker *w)
{
	uint64_t x = w->random += 0x9e3779b97f4a7c15u;

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

static size_t next_size(struct worker *w)
{
	return size_min + next_random(w) % (size_max - size_min + 1);
}

/* The bytes behind the header: words by the seed, and a tail of its low bytes. */
static void paint(struct block *b)
{
	size_t n = b->size - sizeof *b, i;
	unsigned char *p = (unsigned char *)(b + 1);

	for (i = 0; i + 8 <= n; i += 8) {
		uint64_t word = b->seed + i;
		memcpy(p + i, &word, 8);
	}
	for (; i < n; i++)
		p[i] = (unsigned char)(b->seed + i);
}

static void verify(const struct block *b)
{
	size_t n = b->size - sizeof *b, i;
	const unsigned char *p = (const unsigned char *)(b + 1);

	for (i = 0; i + 8 <= n; i += 8) {
		uint64_t word;
		memcpy(&word, p + i, 8);
		if (word != b->seed + i)
			fail("block %p of %zu bytes: byte %zu is overwritten", (const void *)b, b->size, i);
	}
	for (; i < n; i++) {
		if (p[i] != (unsigned char)(b->seed + i))
			fail("block %p of %zu bytes: byte %zu is overwritten", (const void *)b, b->size, i);
	}
}

static int take(struct worker *w, size_t size)
{
	struct block *b;

	errno = 0;
	b = next_random(w) % 4 == 0 ? calloc(1, size) : malloc(size);
	if (b == NULL) {
		if (errno != ENOMEM)
			fail("no memory, but errno is %d", errno);
		return 0;
	}
	*b = (struct block){ .next = w->list, .size = size, .seed = next_random(w) };
	paint(b);
	w->list = b;
	w->held += size;
	return 1;
}

/* Free every step-th block; all for 1. Each is verified before. Returns the bytes freed. */
static size_t drop(struct worker *w, unsigned step)
{
	struct block **at = &w->list, *b;
	size_t bytes = 0;

	for (unsigned i = 0; (b = *at) != NULL; i++) {
		verify(b);
		if (i % step != 0) {
			at = &b->next;
			continue;
		}
		*at = b->next;
		bytes += b->size;
		free(b);
	}
	w->held -= bytes;
	return bytes;
}

/* When there is none: what fails must leave everything as it was. */
static void refuse(struct worker *w)
{
	struct block *b = w->list;
	size_t size;

	if (b == NULL)
		return;
	size = b->size;
	errno = 0;
	if (realloc(b, (size_t)1 << 46) != NULL || errno != ENOMEM)
		fail("realloc of %zu bytes to 64 TiB is not refused, or with errno %d", size, errno);
	verify(b);
}

static size_t sum(const size_t *x)
{
	size_t all = 0;

	for (unsigned i = 0; i < threads; i++)
		all += x[i];
	return all;
}

static void *until(void *arg)
{
	struct worker *w = arg;

	for (unsigned round = 0; round < ROUNDS; round++) {
		pthread_barrier_wait(&barrier);
		while (take(w, next_size(w)))
			;
		refuse(w);
		pthread_barrier_wait(&barrier);
		if (round == 0)
			w->first = w->held;
		/* Half is freed by all before anyone takes it again. */
		freed[w->number] = drop(w, 2);
		pthread_barrier_wait(&barrier);
		regained[w->number] = 0;
		while (regained[w->number] < freed[w->number]) {
			/* The holes are of all sizes: what does not fit in one is tried smaller. */
			size_t before = w->held, size = next_size(w);
			while (!take(w, size) && size > size_min)
				size = size / 2 < size_min ? size_min : size / 2;
			if (w->held == before)
				break;
			regained[w->number] += w->held - before;
		}
		pthread_barrier_wait(&barrier);
		if (w->number == 0 && sum(regained) < sum(freed) / 5 * 3)
			fail("of %zu MiB that were freed, %zu MiB could be had again", sum(freed) / MIB, sum(regained) / MIB);
		drop(w, 1);
	}
	return NULL;
}

/* The sum of all threads' shares stays the same, the size is another in each round. */
static void *churn(void *arg)
{
	/* Sizes that waste little when they are rounded up, by any allocator. */
	static const size_t round_size[] = { 64, 100000, 1008, 3000000, 32, 10000, 400, 32700, 500000, 2000 };
	struct worker *w = arg;

	for (unsigned round = 0; round < 2 * sizeof round_size / sizeof *round_size; round++) {
		size_t size = round_size[round % (sizeof round_size / sizeof *round_size)];
		pthread_barrier_wait(&barrier);
		while (w->held + size <= churn_bytes / threads) {
			if (!take(w, size))
				fail("NULL after %zu of %zu MiB, in blocks of %zu bytes", w->held / MIB, churn_bytes / threads / MIB, size);
		}
		drop(w, 3);
		drop(w, 1);
		pthread_barrier_wait(&barrier);
	}
	return NULL;
}

static void run(void *(*body)(void *))
{
	pthread_barrier_init(&barrier, NULL, threads);
	for (unsigned i = 0; i < threads; i++) {
		workers[i].number = i;
		workers[i].random = 4711 + i;
		if (pthread_create(&workers[i].thread, NULL, body, &workers[i]) != 0)
			fail("no thread");
	}
	for (unsigned i = 0; i < threads; i++)
		pthread_join(workers[i].thread, NULL);
}

/* All is freed: half of what there was must be there in one block. */
static void in_one_piece(size_t size)
{
	unsigned char *p = malloc(size);

	if (p == NULL)
		fail("all is freed, and a block of %zu MiB cannot be had", size / MIB);
	memset(p, 1, size);
	free(p);
}

int main(int argc, char **argv)
{
	size_t first = 0;

	size_min = 64;
	size_max = 100000;
	threads = argc > 2 ? (unsigned)atoi(argv[2]) : 0;
	if (argc == 5 && strcmp(argv[1], "until") == 0 && threads >= 1 && threads <= THREADS_MAX) {
		size_min = (size_t)atol(argv[3]) < sizeof(struct block) ? sizeof(struct block) : (size_t)atol(argv[3]);
		size_max = (size_t)atol(argv[4]) < size_min ? size_min : (size_t)atol(argv[4]);
		run(until);
	} else if (argc == 4 && strcmp(argv[1], "churn") == 0 && threads >= 1 && threads <= THREADS_MAX) {
		churn_bytes = (size_t)atol(argv[3]) * MIB;
		run(churn);
	} else {
		fprintf(stderr, "usage: oom until THREADS MIN MAX | churn THREADS MIB\n");
		return 2;
	}
	for (unsigned i = 0; i < threads; i++)
		first += workers[i].first;
	if (churn_bytes == 0 && first / 2 < 2048 * MIB) {
		biggest = first / 2;
		in_one_piece(biggest);
	}
	if (churn_bytes == 0)
		printf("oom: %zu MiB were got before the first NULL, %zu MiB in one block at the end\n", first / MIB,
		       biggest / MIB);
	return 0;
}
