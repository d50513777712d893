/* SPDX-License-Identifier: MIT */
/* One planted mistake, by its name, in memory of an arena (or, with "plain", of quarry_malloc); or none ("clean"), which
 * does what is easily reported by mistake. Run by tests/checkers.sh under memcheck, and built with AddressSanitizer.
 * BY_MALLOC: by malloc's own names, for a program that the library is preloaded to. */
#include <quarry/quarry.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define SIZE 40

static quarry_arena *arena;
static volatile char sink;

static char *get(size_t size)
{
#ifdef BY_MALLOC
	return malloc(size);
#else
	return arena != NULL ? quarry_arena_malloc(arena, size) : quarry_malloc(size);
#endif
}

static void give(char *p)
{
#ifdef BY_MALLOC
	free(p);
#else
	quarry_free(p);
#endif
}

static __attribute__((noinline)) char *planted_get(size_t size)
{
	return get(size);
}

static __attribute__((noinline)) void planted_give(char *p)
{
	give(p);
}

static void after_free(size_t size)
{
	char *p = planted_get(size);

	memset(p, 1, size);
	planted_give(p);
	sink = p[size / 2];
}

static void overrun(size_t size)
{
	char *p = planted_get(size);
	volatile size_t at = size;

	*(volatile char *)(p + at) = 1;
	give(p);
}

static void uninitialised(void)
{
	char *p = planted_get(SIZE);

	if (p[3] == 7)
		puts("seven");
	give(p);
}

static __attribute__((noinline)) void leak(void)
{
	char *p = planted_get(SIZE);

	memset(p, 1, SIZE);
	sink = p[0];
}

/* ---- nothing wrong ---- */

#define MANY 3000

/* Frees when the thread ends: after quarry has heard of that itself, whose key is older. */
static pthread_key_t late;

static void give_late(void *p)
{
	give(p);
}

static void *work(void *unused)
{
	static __thread char *kept[MANY];

	(void)unused;
	pthread_setspecific(late, get(SIZE));
	for (int round = 0; round < 4; round++) {
		for (int i = 0; i < MANY; i++) {
			size_t size = (size_t)(i * 37 % 700);

			kept[i] = get(size);
			memset(kept[i], i, size);
		}
		for (int i = 0; i < MANY; i++)
			give(kept[i]);
	}
	return NULL;
}

#ifndef BY_MALLOC
static void clean_arena(void)
{
	size_t got;
	int status = 0;
	char *p = quarry_calloc(10, 10), *q;

	for (int i = 0; i < 100; i++)
		if (p[i] != 0)
			abort();
	p = quarry_realloc(p, 5000);
	memset(p + 100, 2, 4900);
	p = quarry_realloc(p, 3000000);
	p = quarry_realloc(p, 200);
	if (p[150] != 2 || quarry_usable_size(p) < 200)
		abort();
	memset(p, 3, quarry_usable_size(p));
	q = quarry_malloc_at_least(100, &got);
	memset(q, 4, got);
	quarry_free_sized(q, 100);
	quarry_free(p);
	p = quarry_aligned_alloc(4096, 100);
	memset(p, 1, 100);
	quarry_free(p);
	/* What is in an arena that ends is no leak; and it can be used anew. */
	for (int i = 0; i < MANY; i++)
		memset(quarry_arena_malloc(arena, 100), 1, 100);
	memset(quarry_arena_malloc(arena, 5000000), 1, 100);
	if (quarry_arena_reset(arena) != 0)
		abort();
	for (int i = 0; i < MANY; i++)
		memset(quarry_arena_calloc(arena, 1, 100), 1, 100);
	quarry_thread_flush();
	quarry_purge(NULL);
	quarry_view_close(quarry_view_open());
	/* A child goes on as its parent: what it gets has margins, too. */
	if (fork() == 0) {
		for (int i = 1; i < 3000; i++) {
			p = quarry_malloc((size_t)i % 300);
			memset(p, 1, (size_t)i % 300);
			p = quarry_realloc(p, 200);
			if (p == NULL)
				abort();
			quarry_free(p);
		}
		/* (What is there of the parent's is no matter.) */
		execl("/bin/true", "true", (char *)NULL);
		_exit(1);
	}
	if (wait(&status) < 0 || status != 0)
		abort();
}
#endif

static void clean(void)
{
	pthread_t threads[3];

	pthread_key_create(&late, give_late);
	for (int i = 0; i < 3; i++)
		pthread_create(&threads[i], NULL, work, NULL);
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	work(NULL);
	give_late(pthread_getspecific(late));
	pthread_setspecific(late, NULL);
#ifndef BY_MALLOC
	clean_arena();
#endif
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	int keep = 0;

#ifndef BY_MALLOC
	if (argc < 3) {
		quarry_arena_attr attr = { .name = "checked" };

		arena = quarry_arena_create(&attr);
		if (arena == NULL)
			return 3;
	}
#endif
	if (strcmp(what, "clean") == 0)
		clean();
	else if (strcmp(what, "after-free") == 0)
		after_free(SIZE);
	else if (strcmp(what, "after-free-large") == 0)
		after_free(300000);
	else if (strcmp(what, "overrun") == 0)
		overrun(SIZE);
	else if (strcmp(what, "overrun-exact") == 0)
		overrun(64);
	else if (strcmp(what, "overrun-large") == 0)
		overrun(1 << 20);
	else if (strcmp(what, "double-free") == 0) {
		char *p = planted_get(SIZE);

		planted_give(p);
		planted_give(p);
	} else if (strcmp(what, "inside") == 0) {
		char *p = planted_get(SIZE);

		planted_give(p + 16);
		give(p);
	} else if (strcmp(what, "uninitialised") == 0)
		uninitialised();
	else if (strcmp(what, "leak") == 0) {
		leak();
		keep = 1; /* the arena must not end, or nothing is lost */
	} else
		return 2;
#ifndef BY_MALLOC
	if (arena != NULL && !keep && quarry_arena_destroy(arena) != 0)
		return 4;
#endif
	(void)keep;
	puts("ended");
	return 0;
}
