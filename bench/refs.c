/* SPDX-License-Identifier: MIT */
/* What counts of blocks cost, by one thread: a reference more and one less, by address, by handle and by a weak
 * reference; a block made and ended; a mark, an allocation on the scratch stack and its release; each beside a pair of
 * malloc and free, and beside two bare atomic additions, in the same round. The medians of so many rounds, in ns, and their
 * ratios to the pair of malloc and free. Then two threads that count at one block. The last line says whether a reference more
 * and less keeps to 14 ns, by the medians and by the least of the rounds: others on the machine slow these instructions
 * more than any, which the two additions show.
 *
 *	refs [ROUNDS [OPERATIONS]] (15, 1 million) */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "include/quarry/block.h"
#include "include/quarry/stack.h"
#include "median.h"

#define ROUNDS_MAX 101
#define WHATS 9
#define BOUND_NS 14.0

static const char *const names[WHATS] = { "malloc, free", "two bare atomic additions", "quarry_ref, quarry_unref", "quarry_block_ref, _unref",
					  "quarry_weak_lock, quarry_block_unref", "quarry_block_alloc, _unref",
					  "mark, quarry_stack_alloc, release", "quarry_block_alloc of an arena, _unref",
					  "quarry_ref, quarry_unref of 64 blocks in turn" };
static double ns[WHATS][ROUNDS_MAX];
static quarry_block b, many[64];
static _Atomic uint64_t word;
static quarry_weak weak;
static quarry_manager *arena;
static long operations = 1000000;

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void keep(void *p)
{
	__asm__ volatile("" : : "r"(p) : "memory");
}

static void run(int what)
{
	_Alignas(32) quarry_block copy; /* in one cache line: what is stored across two waits for both */
	quarry_stack *s = quarry_scratch();
	quarry_mark mark;
	void *p;

	for (long i = 0; i < operations; i++)
		switch (what) {
		case 0:
			p = quarry_malloc(64);
			keep(p);
			quarry_free(p);
			break;
		case 1:
			atomic_fetch_add_explicit(&word, 1, memory_order_acquire);
			atomic_fetch_sub_explicit(&word, 1, memory_order_acq_rel);
			break;
		case 2:
			quarry_ref(b.p);
			quarry_unref(b.p);
			break;
		case 3:
			copy = b;
			quarry_block_ref(&copy);
			quarry_block_unref(&copy);
			break;
		case 4:
			quarry_weak_lock(weak, &copy);
			quarry_block_unref(&copy);
			break;
		case 5:
			copy = quarry_block_alloc(NULL, 64);
			keep(copy.p);
			quarry_block_unref(&copy);
			break;
		case 6:
			mark = quarry_stack_mark(s);
			keep(quarry_stack_alloc(s, 64));
			quarry_stack_release(s, mark);
			break;
		case 7:
			copy = quarry_block_alloc(arena, 64);
			keep(copy.p);
			quarry_block_unref(&copy);
			break;
		default:
			quarry_ref(many[i % 64].p);
			quarry_unref(many[i % 64].p);
		}
}

static void *contend(void *unused)
{
	(void)unused;
	run(2);
	return NULL;
}

int main(int argc, char **argv)
{
	int rounds = argc > 1 ? atoi(argv[1]) : 15;
	double pair, worst = 0, least = 0, since;
	pthread_t thread;

	if (argc > 2)
		operations = atol(argv[2]);
	if (rounds < 1 || rounds > ROUNDS_MAX || operations < 1) {
		fprintf(stderr, "usage: refs [ROUNDS [OPERATIONS]]: 1 to %d rounds\n", ROUNDS_MAX);
		return 2;
	}
	b = quarry_block_alloc(NULL, 64);
	for (int i = 0; i < 64; i++)
		many[i] = quarry_block_alloc(NULL, 64);
	weak = quarry_weak_of(&b);
	arena = quarry_manager_of_arena(quarry_arena_create(NULL));
	for (int r = -1; r < rounds; r++)
		for (int what = 0; what < WHATS; what++) {
			since = now();
			run(what);
			if (r >= 0)
				ns[what][r] = (now() - since) / (double)operations;
		}
	for (int what = 0; what < WHATS; what++)
		median_sort(ns[what], (size_t)rounds);
	pair = ns[0][rounds / 2];
	for (int what = 0; what < WHATS; what++)
		printf("%-46s %7.2f ns  %5.2f times malloc, free  (best %.2f)\n", names[what], ns[what][rounds / 2],
		       ns[what][rounds / 2] / pair, ns[what][0]);
	if (pthread_create(&thread, NULL, contend, NULL) == 0) {
		since = now();
		run(2);
		pthread_join(thread, NULL);
		printf("%-46s %7.2f ns\n", "quarry_ref, quarry_unref, two threads at one", (now() - since) / (double)operations);
	}
	for (int what = 2; what <= 3; what++) {
		worst = ns[what][rounds / 2] > worst ? ns[what][rounds / 2] : worst;
		least = ns[what][0] > least ? ns[what][0] : least;
	}
	printf("a reference more and one less: %.2f ns (least %.2f), %s\n", worst, least,
	       worst <= BOUND_NS   ? "as promised"
	       : least <= BOUND_NS ? "as promised where nobody else is at work"
				   : "more than the 14 that are promised");
	return 0;
}
