/* SPDX-License-Identifier: MIT */
/* Arenas, paging, pooling: three ways to have memory at hand. An arena is a heap of its own, with a limit; pages are runs that are
 * found by number; a pool hands out objects that are made once and used again. */
#include <stdio.h>
#include <string.h>

#include <quarry/pages.h>
#include <quarry/pool.h>
#include <quarry/quarry.h>

/* So much, and no more: who is at the limit is refused, and nobody else notices. */
static int with_a_limit(void)
{
	quarry_arena_attr attr = { .name = "tenant", .hard_limit = (size_t)16 << 20 };
	quarry_arena *tenant = quarry_arena_create(&attr);
	size_t got = 0;

	if (tenant == NULL)
		return -1;
	while (got < 1000 && quarry_arena_malloc(tenant, (size_t)1 << 20) != NULL)
		got++;
	printf("an arena of 16 MiB gave %s MiB\n", got > 0 && got <= 16 ? "up to 16" : "too many");
	return quarry_arena_destroy(tenant) != 0 || got == 0 || got > 16;
}

/* Pages have numbers, which may stand in a file: an address may not. */
static int by_number(void)
{
	quarry_pages_attr attr = { .page_size = 16384, .count = 1000 };
	quarry_pages *pages = quarry_pages_create(&attr);
	char *page = pages == NULL ? NULL : quarry_pages_alloc(pages, 1);
	quarry_page_id id;

	if (page == NULL || quarry_pages_to_id(pages, page, &id) != 0)
		return -1;
	strcpy(page, "root");
	printf("a page is found by its number: %s\n", (char *)quarry_pages_from_id(pages, id, NULL));
	return quarry_pages_destroy(pages);
}

static int made;

static int make(void *object, void *context)
{
	(void)object;
	(void)context;
	made++;
	return 0;
}

/* What is costly to make is made once, and got and put as often as it is needed. */
static int used_again(void)
{
	quarry_pool_attr attr = { .struct_size = sizeof(attr), .size = 512, .construct = make };
	quarry_pool *connections = quarry_pool_create(&attr);

	if (connections == NULL)
		return -1;
	for (int i = 0; i < 100000; i++) {
		void *one = quarry_pool_get(connections);

		if (one == NULL || quarry_pool_put(connections, one, QUARRY_POOL_SAFE) != 0)
			return -1;
	}
	printf("a pool made %s for 100000 uses\n", made < 1000 ? "few" : "many");
	return quarry_pool_destroy(connections, 0);
}

int main(void)
{
	if (with_a_limit() != 0 || by_number() != 0 || used_again() != 0) {
		printf("arenas: %s\n", quarry_error_text());
		return 1;
	}
	return 0;
}
