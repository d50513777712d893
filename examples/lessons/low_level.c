/* SPDX-License-Identifier: MIT */
/* Low-level design: what the kernel gives for what is asked of it. Memory that was not touched is none; it comes by pages, of a node and a
 * size; it goes back by pages as well. Nothing of that is believed: it is asked. */
#include <stdio.h>
#include <string.h>

#include <quarry/quarry.h>

#define SIZE ((size_t)8 << 20)
#define PAGES 4096

/* How many bytes of it are in memory, as the kernel says. */
static size_t resident(const void *p)
{
	static quarry_page_info page[PAGES];
	long n = quarry_where(p, SIZE, page, PAGES);
	size_t bytes = 0;

	for (long i = 0; i < n && i < PAGES; i++)
		bytes += page[i].node == QUARRY_NODE_NONE ? 0 : SIZE / (size_t)n;
	return bytes;
}

int main(void)
{
	quarry_arena_attr attr = { .name = "lesson", .page_kind = QUARRY_PAGES_BASE };
	quarry_arena *arena = quarry_arena_create(&attr);
	char *p = arena == NULL ? NULL : quarry_arena_malloc(arena, SIZE);
	size_t asked, touched, back;

	if (p == NULL) {
		printf("low_level: %s\n", quarry_error_text());
		return 1;
	}
	asked = resident(p);
	memset(p, 1, SIZE);
	touched = resident(p);
	if (quarry_discard(p, SIZE) != 0)
		return 1;
	back = resident(p);
	printf("asked for, and not touched: little is there: %s\n", asked < SIZE / 2 ? "yes" : "no");
	printf("touched: all is there: %s\n", touched == SIZE ? "yes" : "no");
	printf("given back: little is there, and it is the program's still: %s\n", back < SIZE / 2 && p[SIZE / 2] == 0 ? "yes" : "no");
	p[SIZE / 2] = 1;
	printf("a byte costs a page: %s\n", resident(p) > back ? "yes" : "no");
	quarry_arena_free(arena, p);
	return quarry_arena_destroy(arena) != 0 || asked >= SIZE / 2 || touched != SIZE || back >= SIZE / 2;
}
