/* SPDX-License-Identifier: MIT */
/* malloc before main and after it: in the arrays that the loader runs first, in constructors, in functions that
 * atexit runs, in the last destructors, and in the destructors of threads' own data, which run again and again while
 * they leave new data behind. variants: preload linked archive static */
#include <pthread.h>

#include "tests/family/family.h"

static int steps;
static char *made[8];

static void make(int i)
{
	size_t n = (size_t)1 << (3 * i);

	made[i] = malloc(n);
	CHECK(made[i] != NULL);
	family_fill(made[i], n, (unsigned char)(i + 1));
	steps++;
}

static void unmake(int i)
{
	CHECK(made[i] != NULL && family_holds(made[i], (size_t)1 << (3 * i), (unsigned char)(i + 1)));
	free(made[i]);
	made[i] = NULL;
}

static void first(void)
{
	make(0);
	make(7);
}

static void second(void)
{
	make(1);
}

__attribute__((section(".preinit_array"), used)) static void (*preinit)(void) = first;
__attribute__((section(".init_array"), used)) static void (*init)(void) = second;

__attribute__((constructor(101))) static void third(void)
{
	make(2);
	made[2] = realloc(made[2], 100);
	CHECK(made[2] != NULL);
}

__attribute__((constructor)) static void fourth(void)
{
	make(3);
}

static void last(void)
{
	void *p = malloc(100000);

	CHECK(p != NULL);
	family_fill(p, 100000, 1);
	free(p);
	unmake(0);
	unmake(7);
	p = calloc(100, 100);
	CHECK(p != NULL && family_holds(p, 10000, 0));
	free(p);
}

__attribute__((section(".fini_array"), used)) static void (*fini)(void) = last;

__attribute__((destructor)) static void before_last(void)
{
	unmake(1);
	make(1);
	unmake(1);
}

static void at_exit(void)
{
	make(4);
	unmake(4);
	unmake(3);
}

/* Threads' own data: destructors of keys made before and after the library may have made its own. */
static pthread_key_t early, late;
static _Atomic int destroyed;

struct data {
	pthread_key_t *key;
	int left;
	unsigned char bytes[500];
};

static void plant(pthread_key_t *key, int left)
{
	struct data *d = malloc(sizeof *d);

	CHECK(d != NULL);
	*d = (struct data){ .key = key, .left = left };
	family_fill(d->bytes, sizeof d->bytes, (unsigned char)left);
	CHECK(pthread_setspecific(*key, d) == 0);
}

static void destroy(void *p)
{
	struct data *d = p;
	void *many[200];

	for (int i = 0; i < 200; i++)
		CHECK((many[i] = malloc((size_t)i * 37 + 1)) != NULL);
	for (int i = 0; i < 200; i++)
		free(many[i]);
	CHECK(family_holds(d->bytes, sizeof d->bytes, (unsigned char)d->left));
	destroyed++;
	if (d->left > 0)
		plant(d->key, d->left - 1);
	free(d);
}

static void *thread(void *keep)
{
	plant(&early, 3);
	plant(&late, 3);
	void *p = malloc(1000);
	CHECK(p != NULL);
	family_fill(p, 1000, 5);
	*(void **)keep = p;
	return NULL;
}

int main(void)
{
	CHECK(steps == 5);
	family_in_use();
	CHECK(family_holds(made[0], 1, 1) && family_holds(made[1], 8, 2) && family_holds(made[3], 512, 4));
	CHECK(family_holds(made[7], (size_t)1 << 21, 8));
	free(made[2]);
	CHECK(pthread_key_create(&early, destroy) == 0);
	free(malloc(10));
	CHECK(pthread_key_create(&late, destroy) == 0);
	for (int i = 0; i < 300; i++) {
		pthread_t t[4];
		void *kept[4];
		for (int j = 0; j < 4; j++)
			CHECK(pthread_create(&t[j], NULL, thread, &kept[j]) == 0);
		for (int j = 0; j < 4; j++) {
			CHECK(pthread_join(t[j], NULL) == 0);
			CHECK(family_holds(kept[j], 1000, 5));
			free(kept[j]);
		}
	}
	CHECK(destroyed == 300 * 4 * 2 * 4);
	CHECK(atexit(at_exit) == 0);
	return 0;
}
