/* SPDX-License-Identifier: MIT */
/* libquarry and libquarry-malloc in one process are one allocator: what malloc gave, quarry_free takes, and the
 * other way about. variants: both linked twice archive */
#include <malloc.h>
#include <pthread.h>

#include "tests/family/family.h"

/* Linked, so not weak here. */
extern void *quarry_calloc(size_t count, size_t size);
extern void *quarry_aligned_alloc(size_t alignment, size_t size);

static uint64_t bad_frees(void)
{
	quarry_stats stats = { .version = QUARRY_STATS_VERSION };

	CHECK(quarry_stats_get(NULL, &stats) == 0);
	return stats.bad_frees;
}

static void crosswise(uint64_t *random, int rounds)
{
	for (int i = 0; i < rounds; i++) {
		size_t n = family_size(random, 20), m = family_size(random, 20), least = n < m ? n : m;
		char *p = malloc(n);
		char *q = i % 2 ? quarry_malloc(n) : quarry_aligned_alloc(64, n);

		CHECK(p != NULL && q != NULL);
		CHECK(quarry_usable_size(p) == malloc_usable_size(p) && quarry_usable_size(p) >= n);
		CHECK(quarry_usable_size(q) == malloc_usable_size(q) && malloc_usable_size(q) >= n);
		CHECK(quarry_arena_of(p) != NULL);
		CHECK(quarry_arena_of(q) != NULL);
		family_fill(p, n, 1);
		family_fill(q, n, 2);
		p = quarry_realloc(p, m);
		q = realloc(q, m);
		CHECK(p != NULL && q != NULL);
		CHECK(family_holds(p, least, 1) && family_holds(q, least, 2));
		quarry_free(p);
		free(q);
		p = calloc(1, n);
		q = quarry_calloc(1, n);
		CHECK(p != NULL && q != NULL && family_holds(p, n, 0) && family_holds(q, n, 0));
		quarry_free(p);
		free(q);
	}
}

static void *thread(void *arg)
{
	uint64_t random = 7 + (uint64_t)(uintptr_t)arg;

	crosswise(&random, 2000);
	return NULL;
}

int main(void)
{
	pthread_t threads[4];
	uint64_t random = 6, before;

	family_in_use();
	before = bad_frees();
	crosswise(&random, 3000);
	for (uintptr_t i = 0; i < 4; i++)
		CHECK(pthread_create(&threads[i], NULL, thread, (void *)i) == 0);
	for (int i = 0; i < 4; i++)
		CHECK(pthread_join(threads[i], NULL) == 0);
	CHECK(bad_frees() == before);
	return 0;
}
