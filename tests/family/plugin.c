/* SPDX-License-Identifier: MIT */
/* Plugins that allocate come and go, from several threads at once, and what they made outlives them.
 * variants: preload linked archive */
#include <dlfcn.h>
#include <pthread.h>

#include "tests/family/family.h"

#define ROUNDS 200

static const char *path;
static _Thread_local void *parting;

static void tell(void *p)
{
	parting = p;
}

static void round_trip(uint64_t *random)
{
	char *kept[20];
	size_t size[20];
	void *plugin = dlopen(path, RTLD_NOW | RTLD_LOCAL);

	CHECK(plugin != NULL);
	char *(*make)(size_t, int) = (char *(*)(size_t, int))dlsym(plugin, "plugin_make");
	int (*started)(void) = (int (*)(void))dlsym(plugin, "plugin_started");
	CHECK(make != NULL && started != NULL);
	CHECK(started() == 1);
	for (int i = 0; i < 20; i++) {
		size[i] = family_size(random, 18);
		kept[i] = make(size[i], i);
		CHECK(kept[i] != NULL);
	}
	CHECK(dlclose(plugin) == 0);
	for (int i = 0; i < 20; i++) {
		CHECK(family_holds(kept[i], size[i], (unsigned char)i));
		free(kept[i]);
	}
}

static void *thread(void *arg)
{
	uint64_t random = 100 + (uint64_t)(uintptr_t)arg;

	for (int i = 0; i < ROUNDS; i++)
		round_trip(&random);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t threads[4];
	uint64_t random = 99;

	family_in_use();
	CHECK(argc == 2);
	path = argv[1];
	for (int i = 0; i < ROUNDS; i++)
		round_trip(&random);
	/* What its destructor allocated is whole after it is gone. */
	void *plugin = dlopen(path, RTLD_NOW);
	CHECK(plugin != NULL);
	void (*plugin_tell)(void (*)(void *)) = (void (*)(void (*)(void *)))dlsym(plugin, "plugin_tell");
	CHECK(plugin_tell != NULL);
	plugin_tell(tell);
	CHECK(dlclose(plugin) == 0);
	CHECK(parting != NULL);
	memset(parting, 1, 77);
	free(parting);
	for (uintptr_t i = 0; i < 4; i++)
		CHECK(pthread_create(&threads[i], NULL, thread, (void *)i) == 0);
	for (int i = 0; i < 4; i++)
		CHECK(pthread_join(threads[i], NULL) == 0);
	return 0;
}
