/* SPDX-License-Identifier: MIT */
/* libquarry.so is loaded by dlopen into a process whose malloc is libquarry-malloc's, and its functions are taken from
 * its own handle, so that the loader does not lead them to the first library. Still one allocator.
 * variants: preload linked */
#include <dlfcn.h>
#include <malloc.h>
#include <stdio.h>

#include "tests/family/family.h"

static void *function(void *library, const char *name)
{
	void *f = dlsym(library, name);

	CHECK(f != NULL);
	return f;
}

int main(void)
{
	char path[4096];
	const char *folder = getenv("QUARRY_LIBDIR");
	quarry_stats stats = { .version = QUARRY_STATS_VERSION };

	family_in_use();
	CHECK(folder != NULL);
	snprintf(path, sizeof path, "%s/libquarry.so", folder);
	void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	CHECK(library != NULL);
	void *(*make)(size_t) = (void *(*)(size_t))function(library, "quarry_malloc");
	void (*give_back)(void *) = (void (*)(void *))function(library, "quarry_free");
	void *(*resize)(void *, size_t) = (void *(*)(void *, size_t))function(library, "quarry_realloc");
	size_t (*usable)(const void *) = (size_t(*)(const void *))function(library, "quarry_usable_size");
	quarry_arena *(*arena_of)(const void *) = (quarry_arena * (*)(const void *))function(library, "quarry_arena_of");
	int (*look)(quarry_arena *, quarry_stats *) =
		(int (*)(quarry_arena *, quarry_stats *))function(library, "quarry_stats_get");

	for (size_t n = 1; n < 3000000; n = n * 2 + 1) {
		char *p = malloc(n), *q = make(n);
		CHECK(p != NULL && q != NULL);
		CHECK(usable(p) == malloc_usable_size(p) && malloc_usable_size(q) == usable(q) && usable(q) >= n);
		CHECK(arena_of(p) != NULL && arena_of(q) != NULL);
		family_fill(p, n, 1);
		family_fill(q, n, 2);
		p = resize(p, n + 100);
		q = realloc(q, n + 100);
		CHECK(p != NULL && q != NULL && family_holds(p, n, 1) && family_holds(q, n, 2));
		give_back(p);
		free(q);
	}
	CHECK(look(NULL, &stats) == 0);
	CHECK(stats.bad_frees == 0);
	/* NODELETE or not, closing it must not take what is in use. */
	char *left = make(1000);
	CHECK(left != NULL);
	family_fill(left, 1000, 3);
	CHECK(dlclose(library) == 0);
	CHECK(family_holds(left, 1000, 3));
	free(left);
	family_in_use();
	return 0;
}
