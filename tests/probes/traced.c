/* SPDX-License-Identifier: MIT */
/* What tests/probes.sh watches: an arena whose region comes, is purged, refuses a request and goes. Prints what a
 * debugger should see of it, a line for each probe: its name and its first two arguments. */
#include <quarry/quarry.h>

#include <stdio.h>
#include <string.h>

#define MIB ((size_t)1 << 20)

static void told(const quarry_region_event *e, void *ctx)
{
	const char *name = e->kind == QUARRY_REGION_MAP	    ? "region_map"
			   : e->kind == QUARRY_REGION_UNMAP ? "region_unmap"
							    : "purge";

	if (e->arena == *(quarry_arena **)ctx || e->arena == NULL)
		printf("%s %llu %llu\n", name, (unsigned long long)(uintptr_t)e->address, (unsigned long long)e->size);
}

int main(void)
{
	quarry_arena_attr attr = { .page_kind = QUARRY_PAGES_BASE, .hard_limit = 64 * MIB, .name = "traced" };
	static quarry_arena *arena;
	char *p;

	setvbuf(stdout, NULL, _IONBF, 0);
	arena = quarry_arena_create(&attr);
	if (arena == NULL ||
	    quarry_on_region(told, &arena, QUARRY_REGION_MAP | QUARRY_REGION_UNMAP | QUARRY_REGION_PURGE) != 0)
		return 1;
	p = quarry_arena_malloc(arena, 5 * MIB);
	if (p == NULL || quarry_arena_malloc(arena, 1) == NULL)
		return 1;
	memset(p, 1, 5 * MIB);
	quarry_free(p);
	quarry_purge(arena);
	if (quarry_arena_malloc(arena, 64 * MIB) != NULL)
		return 1;
	printf("limit %llu %llu\n", (unsigned long long)(64 * MIB), (unsigned long long)(64 * MIB));
	return quarry_arena_destroy(arena) == 0 ? 0 : 1;
}
