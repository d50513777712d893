/* SPDX-License-Identifier: MIT */
/* For fastpath.sh, under callgrind: 64 objects are allocated and freed, in the same order or against it, for sizes
 * from 16 to 512 bytes. ROUNDS times 2,048 pairs, so that the difference of two runs has no start-up in it.
 * Usage: pairs same|reverse ROUNDS [SIZE]   (SIZE: that one alone, 2,048 pairs a round all the same) */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OBJECTS 64
#define SIZES 32

static void *object[OBJECTS];

static __attribute__((noinline)) void same(size_t size)
{
	for (unsigned i = 0; i < OBJECTS; i++)
		object[i] = malloc(size);
	for (unsigned i = 0; i < OBJECTS; i++)
		free(object[i]);
}

static __attribute__((noinline)) void reverse(size_t size)
{
	for (unsigned i = 0; i < OBJECTS; i++)
		object[i] = malloc(size);
	for (unsigned i = OBJECTS; i-- > 0;)
		free(object[i]);
}

int main(int argc, char **argv)
{
	void (*one)(size_t);
	long rounds;
	size_t only;

	if (argc < 3 || (strcmp(argv[1], "same") != 0 && strcmp(argv[1], "reverse") != 0)) {
		fprintf(stderr, "usage: pairs same|reverse ROUNDS [SIZE]\n");
		return 2;
	}
	one = strcmp(argv[1], "same") == 0 ? same : reverse;
	rounds = atol(argv[2]);
	only = argc > 3 ? (size_t)atol(argv[3]) : 0;
	for (size_t k = 1; k <= SIZES; k++) {
		for (long r = 0; r < rounds; r++)
			one(only != 0 ? only : 16 * k);
	}
	return 0;
}
