/* SPDX-License-Identifier: MIT */
/* What tests/leaks.sh looks for leaks in: a list of many objects that can be reached, and, as it is told, one that cannot,
 * and what that holds, and a ring. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct node {
	struct node *next;
	long value[3];
};

static struct node *list;

/* (The compiler takes away what is allocated and used for nothing.) */
static void *kept_from_it(void *p)
{
	__asm__ volatile("" : "+r"(p) : : "memory");
	return p;
}

static __attribute__((noinline)) struct node *make_node(struct node *next)
{
	struct node *n = kept_from_it(malloc(sizeof(*n)));

	if (n == NULL)
		exit(1);
	n->next = next;
	return n;
}

__attribute__((noinline)) void plant_a_leak(void);
void plant_a_leak(void)
{
	(void)make_node(NULL);
}

__attribute__((noinline)) void plant_a_chain(void);
void plant_a_chain(void)
{
	(void)make_node(make_node(make_node(NULL)));
}

__attribute__((noinline)) void plant_a_ring(void);
void plant_a_ring(void)
{
	struct node *last = make_node(NULL);

	last->next = make_node(make_node(last));
}

static __attribute__((noinline)) void clear_stack(void)
{
	volatile char junk[16384];

	for (size_t i = 0; i < sizeof(junk); i++)
		junk[i] = 1;
}

int main(int argc, char **argv)
{
	long count = argc > 1 ? atol(argv[1]) : 1000;

	for (long i = 0; i < count; i++) {
		list = make_node(list);
		for (int a = 2; a < argc && i == count / 2; a++) {
			if (strcmp(argv[a], "leak") == 0)
				plant_a_leak();
			else if (strcmp(argv[a], "chain") == 0)
				plant_a_chain();
			else if (strcmp(argv[a], "ring") == 0)
				plant_a_ring();
		}
	}
	clear_stack();
	return 0;
}
