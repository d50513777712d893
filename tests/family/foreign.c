/* SPDX-License-Identifier: MIT */
/* Pointers that are not the allocator's, given to every function that takes one: nothing is printed, nothing crashes,
 * nothing that they point to changes, and quarry_stats counts them. variants: preload linked archive static */
#include <malloc.h>
#include <sys/mman.h>

#include "tests/family/family.h"

static char static_memory[8192] __attribute__((aligned(4096)));
static const char constant[64] = "not to be written to";

static uint64_t bad_frees(void)
{
	quarry_stats stats = { .version = QUARRY_STATS_VERSION };

	CHECK(quarry_stats_get != NULL);
	CHECK(quarry_stats_get(NULL, &stats) == 0);
	return stats.bad_frees;
}

static void offer(void *p)
{
	uint64_t before = bad_frees();

	errno = 60;
	free(p);
	CHECK(errno == 60);
	CHECK(bad_frees() == before + 1);
	free_sized(p, 100);
	free_aligned_sized(p, 64, 100);
	cfree(p);
	CHECK(bad_frees() == before + 4);
	errno = 0;
	CHECK(realloc(p, 100) == NULL);
	CHECK(errno == EINVAL);
	CHECK(malloc_usable_size(p) == 0);
	CHECK(quarry_arena_of(p) == NULL);
	CHECK(bad_frees() >= before + 4);
}

static void all(void)
{
	char on_stack[256];
	char *mapped = mmap(NULL, 8 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *forbidden = mmap(NULL, 1 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *gone = mmap(NULL, 1 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uintptr_t numbers[] = { 1, 8, 16, 4096, 65536, 0x7fffffff, (uintptr_t)1 << 46, ((uintptr_t)1 << 47) - 16,
				(uintptr_t)1 << 47, (uintptr_t)1 << 56, (uintptr_t)1 << 63, UINTPTR_MAX, UINTPTR_MAX - 15,
				UINTPTR_MAX - 4095, 0xffff800000000000 };

	CHECK(mapped != MAP_FAILED && forbidden != MAP_FAILED && gone != MAP_FAILED);
	munmap(gone, 1 << 20);
	memset(on_stack, 1, sizeof on_stack);
	memset(static_memory, 2, sizeof static_memory);
	memset(mapped, 3, 8 << 20);
	offer(on_stack + 16);
	offer(on_stack + 33);
	offer(static_memory);
	offer(static_memory + 4096);
	offer((void *)(uintptr_t)constant);
	offer((void *)(uintptr_t)&offer);
	offer(mapped);
	offer(mapped + 64);
	offer((void *)(((uintptr_t)mapped + (2 << 20)) & ~(uintptr_t)((2 << 20) - 1)));
	offer(forbidden);
	offer(forbidden + 4096);
	offer(gone);
	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
		offer((void *)numbers[i]);
	CHECK(family_holds(on_stack, sizeof on_stack, 1));
	CHECK(family_holds(static_memory, sizeof static_memory, 2));
	CHECK(family_holds(mapped, 8 << 20, 3));
	munmap(mapped, 8 << 20);
	munmap(forbidden, 1 << 20);
}

/* Near the allocator's own memory, and in it where nothing is. */
static void near(void)
{
	char *large = malloc((size_t)48 << 20);
	char *small = malloc(48);

	CHECK(large != NULL && small != NULL);
	memset(large, 4, (size_t)48 << 20);
	memset(small, 4, 48);
	for (uintptr_t step = (uintptr_t)1 << 30; step <= (uintptr_t)1 << 46; step <<= 1) {
		void *above = (void *)((uintptr_t)large + step), *below = (void *)((uintptr_t)large - step);
		uint64_t before = bad_frees();
		free(above);
		free(below);
		CHECK(malloc_usable_size(above) == 0 && malloc_usable_size(below) == 0);
		CHECK(bad_frees() == before + 2);
	}
	/* Inside a large block: not its start. */
	uint64_t before = bad_frees();
	free(large + 4096);
	free(large + ((size_t)4 << 20));
	free(large + 16);
	CHECK(bad_frees() == before + 3);
	CHECK(family_holds(large, (size_t)48 << 20, 4) && family_holds(small, 48, 4));
	free(large);
	free(small);
}

int main(void)
{
	/* The first thing that the process says to the allocator, perhaps. */
	free(NULL);
	offer(static_memory);
	family_in_use();
	all();
	near();
	for (int i = 0; i < 1000; i++) {
		char *p = malloc((size_t)i * 100);
		CHECK(p != NULL);
		memset(p, i, (size_t)i * 100);
		free(p);
	}
	return 0;
}
