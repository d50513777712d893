/* SPDX-License-Identifier: MIT */
/* For tests/dump.sh: makes a heap of objects of all sizes, large blocks, two arenas and mixed slabs, and writes of one view
 * of it DIR/a.bin and DIR/a.json, and what a visit tells to DIR/a.txt; then more lives, and DIR/b.bin and b.json are of
 * that. DIR/more.txt has what there is more: arena, object size (large blocks: 0), objects, bytes. DIR/c and d are the same
 * with a profile in which all is a sample; DIR/stacks.txt has what each function has in c and in d: objects, bytes. */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "include/quarry/quarry.h"
#include "tests/unit/model.h"

#undef model_must

#define MOST 60000

static void *blocks[MOST];
static const char *folder;

static void must(int holds, const char *what)
{
	if (!holds) {
		fprintf(stderr, "dumps: %s: %s\n", what, quarry_error_text());
		exit(1);
	}
}

static const char *in_folder(const char *name, const char *kind)
{
	static char path[4096];

	snprintf(path, sizeof(path), "%s/%s.%s", folder, name, kind);
	return path;
}

static void dump(const quarry_view *v, const char *name, const char *kind, int format)
{
	int fd = open(in_folder(name, kind), O_WRONLY | O_CREAT | O_TRUNC, 0666);

	must(fd >= 0 && quarry_view_dump(v, fd, format) == 0, kind);
	close(fd);
}

static int tell(const quarry_view_item *item, void *file)
{
	fprintf(file, "%d %" PRIuPTR " %zu %d\n", item->kind, (uintptr_t)item->address, item->size, item->state);
	return 0;
}

static void look(const char *name)
{
	quarry_view *v = quarry_view_open();
	FILE *file = fopen(in_folder(name, "txt"), "w");

	must(v != NULL && file != NULL, "view");
	must(quarry_view_visit(v, QUARRY_VIEW_REGION | QUARRY_VIEW_SLAB | QUARRY_VIEW_OBJECT | QUARRY_VIEW_BLOCK, tell, file) == 0,
	     "visit");
	fclose(file);
	dump(v, name, "bin", QUARRY_DUMP_BINARY);
	dump(v, name, "json", QUARRY_DUMP_JSON);
	must(quarry_view_dump(v, -1, QUARRY_DUMP_JSON) == -1 && quarry_view_dump(v, 1, 3) == -1 &&
	     quarry_view_dump(NULL, 1, QUARRY_DUMP_JSON) == -1, "what is wrong is refused");
	quarry_view_close(v);
}

static void make(quarry_arena *arena, size_t n, size_t size)
{
	for (size_t i = 0; i < n; i++) {
		char *p = quarry_arena_malloc(arena, size);

		must(p != NULL, "memory");
		p[0] = 1;
	}
}

/* So that slabs become mixed: few of one size survive, in slabs that nobody holds, and others come. */
static void fill_gaps(void)
{
	for (int phase = 0; phase < 3; phase++) {
		for (size_t i = 0; i < MOST; i++)
			if (blocks[i] == NULL)
				blocks[i] = quarry_malloc(model_one_in(3000) ? model_size(300000) : 100u + 130u * (unsigned)phase);
		for (size_t i = 0; i < MOST; i++)
			if (!model_one_in(phase == 2 ? 2 : 12)) {
				quarry_free(blocks[i]);
				blocks[i] = NULL;
			}
		quarry_purge(NULL);
	}
}

/* ---- by stack ---- */

static void *kept[3000];
static size_t kept_count;

static void keep(quarry_arena *arena, size_t n, size_t size)
{
	for (size_t i = 0; i < n; i++) {
		kept[kept_count] = quarry_arena_malloc(arena, size);
		must(kept[kept_count++] != NULL, "memory");
	}
}

/* (Each is in stacks by its name: what follows keeps the call from being a jump.) */
#define ALLOCATES(name)                                                \
	__attribute__((noinline)) void name(quarry_arena *arena, size_t n, size_t size); \
	void name(quarry_arena *arena, size_t n, size_t size)          \
	{                                                              \
		keep(arena, n, size);                                  \
		__asm__ volatile("" ::: "memory");                     \
	}

ALLOCATES(stays_as_it_is)
ALLOCATES(grows_most)
ALLOCATES(grows_a_little)
ALLOCATES(shrinks)

static void tell_stacks(void)
{
	FILE *file = fopen(in_folder("stacks", "txt"), "w");

	must(file != NULL, "stacks");
	/* 3000 bytes are of the class of 3072, 7000 of that of 7168, 100000 are 25 pages. */
	fprintf(file, "stays_as_it_is 500 1536000 500 1536000\n");
	fprintf(file, "grows_most 0 0 120 12288000\n");
	fprintf(file, "grows_a_little 10 71680 30 215040\n");
	fprintf(file, "shrinks 200 1433600 50 358400\n");
	fclose(file);
}

static void look_at_stacks(quarry_arena *arena)
{
	size_t first;

	must(quarry_profile_start(1) == 0, "profile");
	quarry_thread_flush();
	stays_as_it_is(arena, 500, 3000);
	first = kept_count;
	shrinks(arena, 200, 7000);
	grows_a_little(arena, 10, 7000);
	look("c");
	for (size_t i = 0; i < 150; i++)
		quarry_free(kept[first + i]);
	for (int i = 0; i < 2; i++)
		grows_a_little(arena, 10, 7000);
	grows_most(arena, 120, 100000);
	look("d");
	quarry_profile_stop();
	tell_stacks();
}

int main(int argc, char **argv)
{
	quarry_arena_attr attr = { .name = "cache \"one\"\xff" }, second = { .name = "second" };
	quarry_arena *one, *two;
	FILE *more;

	folder = argc > 1 ? argv[1] : ".";
	model_start("dumps");
	one = quarry_arena_create(&attr);
	two = quarry_arena_create(&second);
	must(one != NULL && two != NULL, "arenas");
	fill_gaps();
	for (size_t size = 16; size <= 32768; size += 496)
		make(one, 3, size);
	make(two, 5, 5000000);
	make(two, 1000, 48);
	look("a");
	make(two, 20000, 64);
	make(two, 3, 1 << 20);
	make(one, 7, 2000);
	look("b");
	more = fopen(in_folder("more", "txt"), "w");
	must(more != NULL, "more");
	fprintf(more, "second 0 3 3145728\nsecond 64 20000 1280000\ncache 2048 7 14336\n");
	fclose(more);
	look_at_stacks(two);
	return 0;
}
