/* SPDX-License-Identifier: MIT */
/* What a program wins that moves its objects as it is told: a heap in which one object of some survives, at random, is
 * gone over once, in random order, in batches; each object that is to be moved is allocated anew, copied and freed.
 * Which: by quarry_should_move ("quarry"), by the rule of a defragmenter for jemalloc ("below-average": slabs below 1.125
 * times the average of those with room), all ("all"), or all by plain malloc and free ("plain"). One line of figures: what
 * slabs held before and after, bytes moved, seconds, and how many rounds that took until less than a 100th was moved.
 *
 *	defrag RULE [MIB [ONE_IN [SIZE]]] (SIZE 0: of 16 to 1024 bytes) */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "include/quarry/quarry.h"

#define BATCH 32

static char **objects;
static size_t *sizes, count;
static uint64_t state = 88172645463325252u;

static uint64_t next(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void fill(char *p, size_t size, uint64_t what)
{
	memcpy(p, &what, sizeof(what));
	p[size - 1] = (char)what;
}

static size_t make(size_t bytes, unsigned one_in, size_t size)
{
	size_t made = 0, most = bytes / (size == 0 ? 200 : size), live = 0;

	objects = malloc(most * sizeof(*objects));
	sizes = malloc(most * sizeof(*sizes));
	for (size_t total = 0; total < bytes && made < most; made++) {
		sizes[made] = size != 0 ? size : 16 + next() % 1009;
		total += sizes[made];
		objects[made] = quarry_malloc(sizes[made]);
		if (objects[made] == NULL)
			exit(1);
	}
	for (size_t i = 0; i < made; i++) {
		if (next() % one_in != 0) {
			quarry_free(objects[i]);
			continue;
		}
		objects[count] = objects[i];
		sizes[count] = sizes[i];
		fill(objects[count], sizes[count], count);
		live += quarry_usable_size(objects[count]);
		count++;
	}
	quarry_thread_flush();
	return live;
}

static void shuffle(void)
{
	for (size_t i = count; i > 1; i--) {
		size_t j = next() % i, size = sizes[i - 1];
		char *p = objects[i - 1];

		objects[i - 1] = objects[j];
		sizes[i - 1] = sizes[j];
		objects[j] = p;
		sizes[j] = size;
	}
}

static uint64_t held(void)
{
	quarry_view *v = quarry_view_open();
	quarry_view_report report = { .struct_size = sizeof(report) };
	uint64_t bytes;

	if (v == NULL || quarry_view_report_get(v, &report) != 0)
		exit(1);
	bytes = report.slabs * 65536;
	quarry_view_close(v);
	return bytes;
}

static void ask_average(const void *const *ptrs, size_t n, uint8_t *move)
{
	quarry_move_hint hints[BATCH];

	quarry_should_move_hints(ptrs, n, hints, sizeof(hints[0]));
	for (size_t i = 0; i < n; i++) {
		const quarry_move_hint *h = &hints[i];
		uint64_t live = h->objects - h->free;

		/* live < 1.125 * slabs_live / slabs */
		move[i] = h->known && !h->current && h->free > 0 && h->slabs >= 2 &&
			  live * h->slabs * 8 < h->slabs_live * 9;
	}
}

static uint64_t round_of(const char *rule)
{
	uint64_t moved = 0;

	for (size_t at = 0; at < count; at += BATCH) {
		size_t n = count - at < BATCH ? count - at : BATCH;
		const void *const *ptrs = (const void *const *)(void *)&objects[at];
		uint8_t move[BATCH];

		memset(move, 1, sizeof(move));
		if (strcmp(rule, "quarry") == 0)
			quarry_should_move(ptrs, n, move);
		else if (strcmp(rule, "below-average") == 0)
			ask_average(ptrs, n, move);
		for (size_t i = 0; i < n; i++) {
			char *to;

			if (!move[i])
				continue;
			to = strcmp(rule, "plain") == 0 ? quarry_malloc(sizes[at + i]) : quarry_malloc_dense(sizes[at + i]);
			if (to == NULL)
				exit(1);
			memcpy(to, objects[at + i], sizes[at + i]);
			if (strcmp(rule, "plain") == 0)
				quarry_free(objects[at + i]);
			else
				quarry_free_dense(objects[at + i]);
			objects[at + i] = to;
			moved += quarry_usable_size(to);
		}
	}
	quarry_thread_flush();
	return moved;
}

int main(int argc, char **argv)
{
	const char *rule = argc > 1 ? argv[1] : "quarry";
	size_t mib = argc > 2 ? strtoul(argv[2], NULL, 0) : 256, live;
	unsigned one_in = argc > 3 ? (unsigned)strtoul(argv[3], NULL, 0) : 4;
	size_t size = argc > 4 ? strtoul(argv[4], NULL, 0) : 0;
	uint64_t before, after, moved = 0, last;
	unsigned rounds = 0;
	double begun;

	live = make(mib << 20, one_in, size);
	shuffle();
	before = held();
	begun = now();
	do {
		last = round_of(rule);
		moved += last;
		rounds++;
		if (rounds == 1)
			printf("%-14s live %.1f MiB, slabs %.1f; first round: slabs %.1f, moved %.1f\n", rule,
			       (double)live / 1048576, (double)before / 1048576, (double)held() / 1048576, (double)last / 1048576);
	} while (last * 100 > live && rounds < 6);
	begun = now() - begun;
	after = held();
	printf("%-14s %u rounds: slabs %.1f MiB, given back %.1f, moved %.1f, %.3f per byte, %.2f s\n", rule, rounds,
	       (double)after / 1048576, (double)(before - after) / 1048576, (double)moved / 1048576,
	       (double)moved / (double)(before - after + 1), begun);
	return 0;
}
