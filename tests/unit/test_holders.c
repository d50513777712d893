/* SPDX-License-Identifier: MIT */
/* Which stacks hold what lives (quarry_view_holders): against a table of who allocated what, with all sampled, so that it is
 * exact; as quarry_view_print tells of it; wrong arguments. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "include/quarry/quarry.h"
#include "numa/os.h"
#include "tests/unit/model.h"

#define MOST 20000
#define PLACES 7
#define ROWS 400

static struct qy_os os;
static uintptr_t place;
static uint64_t clock_ms = 5000000;

static unsigned fake_stack(void **frames, unsigned most)
{
	cr_assert_geq(most, 2);
	frames[0] = (void *)(0x1001 + place);
	frames[1] = (void *)0x2001;
	return 2;
}

static uint64_t fake_now(void)
{
	return clock_ms;
}

static void begin(void)
{
	os = *qy_os;
	os.stack = fake_stack;
	os.now_ms = fake_now;
	qy_os = &os;
	cr_assert_eq(quarry_profile_start(1), 0);
	quarry_thread_flush();
}

/* ---- who allocated what ---- */

static struct {
	void *p;
	quarry_arena *arena;
	size_t size; /* that can be used */
	uintptr_t place;
	uint64_t born;
} made[MOST];

static unsigned decade(uint64_t ms)
{
	static const uint64_t ends[] = { 1, 10, 100, 1000, 10000, 100000, 1000000 };
	unsigned i = 0;

	while (i < 7 && ms >= ends[i])
		i++;
	return i;
}

static bool is_of(size_t i, const quarry_view_use *use)
{
	bool large = made[i].size > 32768;

	if (made[i].p == NULL || made[i].arena != use->arena)
		return false;
	return use->kind == QUARRY_VIEW_REGION || (use->kind == QUARRY_VIEW_BLOCK && large) ||
	       (use->kind == QUARRY_VIEW_SLAB && made[i].size == use->object_size && !large);
}

static void check_holder(const quarry_view_use *use, const quarry_view_holder *h)
{
	uint64_t objects = 0, ages[QUARRY_VIEW_AGES] = { 0 };

	model_must(h->struct_size == sizeof(*h) && h->depth == 2 && h->stack[1] == (void *)0x2001 && h->stack[2] == NULL,
		   "a row of its size, with its stack");
	for (size_t i = 0; i < MOST; i++)
		if (is_of(i, use) && made[i].size == h->object_size && h->stack[0] == (void *)(0x1001 + made[i].place)) {
			objects++;
			ages[decade(clock_ms - made[i].born)]++;
		}
	model_must(h->objects == objects && h->samples == objects && h->bytes == objects * h->object_size,
		   "%zu bytes at %p: %" PRIu64 " objects, and %" PRIu64 " live", h->object_size, h->stack[0], h->objects, objects);
	for (unsigned i = 0; i < QUARRY_VIEW_AGES; i++)
		model_must(h->ages[i] == ages[i], "decade %u: %" PRIu64 " and not %" PRIu64, i, h->ages[i], ages[i]);
}

/* All of them, each once, and the first ones are the same when fewer are asked for. */
static size_t check_use(const quarry_view_use *use)
{
	static quarry_view_holder list[ROWS], few[3];
	uint64_t objects = 0, told = 0;
	long n = quarry_view_holders(use, list, ROWS, sizeof(list[0]));

	model_must(n >= 0 && n <= ROWS && quarry_view_holders(use, NULL, 0, 0) == n, "%ld rows", n);
	for (size_t i = 0; i < MOST; i++)
		objects += is_of(i, use);
	for (long i = 0; i < n; i++) {
		check_holder(use, &list[i]);
		model_must(i == 0 || list[i - 1].bytes >= list[i].bytes, "most bytes first");
		told += list[i].objects;
	}
	model_must(told == objects, "kind %d, %zu: %" PRIu64 " of %" PRIu64, use->kind, use->object_size, told, objects);
	model_must(quarry_view_holders(use, few, 3, sizeof(few[0])) == n, "as many");
	for (long i = 0; i < n && i < 3; i++)
		model_must(few[i].bytes == list[i].bytes, "the first ones");
	return (size_t)n;
}

static size_t check_all(void)
{
	static quarry_view_use uses[ROWS];
	quarry_view *v = quarry_view_open();
	long n = quarry_view_uses(v, uses, ROWS, sizeof(uses[0]));
	size_t holders = 0;

	cr_assert(n > 0 && n <= ROWS);
	quarry_view_close(v);
	for (long i = 0; i < n; i++)
		if (uses[i].kind != QUARRY_VIEW_SLAB || uses[i].object_size != 0)
			holders += check_use(&uses[i]);
		else
			model_must(quarry_view_holders(&uses[i], NULL, 0, 0) == 0, "nothing of mixed sizes");
	return holders;
}

static void replace(size_t i, quarry_arena *const arenas[2])
{
	static const size_t sizes[] = { 16, 100, 100, 2000, 9000, 40000 };

	quarry_free(made[i].p);
	made[i].p = NULL;
	if (model_one_in(3))
		return;
	place = model_below(PLACES) * 16;
	made[i].arena = arenas[model_below(2)];
	made[i].p = quarry_arena_malloc(made[i].arena, sizes[model_below(sizeof(sizes) / sizeof(sizes[0]))]);
	cr_assert_not_null(made[i].p);
	made[i].size = quarry_usable_size(made[i].p);
	made[i].place = place;
	made[i].born = clock_ms;
}

Test(holders, against_who_allocated_what)
{
	quarry_arena *arenas[2] = { quarry_arena_create(NULL), quarry_arena_create(NULL) };
	size_t holders = 0;

	model_start("holders/against");
	begin();
	for (int round = 0; round < 6; round++) {
		for (size_t i = 0; i < MOST; i++)
			if (model_one_in(2))
				replace(i, arenas);
		clock_ms += (uint64_t)model_size(200000);
		holders += check_all();
	}
	cr_assert_gt(holders, 50);
}

/* More stacks than are told of at a time. Each tenth has two objects, and these come first. */
Test(holders, more_than_rows)
{
	static quarry_view_holder list[1100];
	enum { STACKS = 3000, OF_TWO = STACKS / 10, TOLD = 1024 };
	quarry_arena *arena = quarry_arena_create(NULL);
	quarry_view_use use = { .kind = QUARRY_VIEW_SLAB, .arena = arena };

	model_start("holders/more");
	begin();
	for (size_t i = 0; i < STACKS + OF_TWO; i++) {
		place = (i < STACKS ? i : (i - STACKS) * 10) * 16;
		clock_ms += i == STACKS ? 5000 : 0;
		use.object_size = quarry_usable_size(quarry_arena_malloc(arena, 100));
	}
	cr_assert_eq(quarry_view_holders(&use, list, 1100, sizeof(list[0])), STACKS);
	for (size_t i = 0; i < TOLD; i++) {
		uint64_t objects = i < OF_TWO ? 2 : 1;

		model_must(list[i].objects == objects && list[i].bytes == objects * use.object_size, "row %zu", i);
		model_must(list[i].ages[4] == 1 && list[i].ages[0] == objects - 1, "row %zu has its ages", i);
	}
	for (size_t i = TOLD; i < 1100; i++)
		model_must(list[i].struct_size == 0, "row %zu is told of", i);
}

/* ---- printed ---- */

static char text[1 << 20];

static void print(const quarry_view *v, int json)
{
	FILE *file = tmpfile();
	size_t n;

	cr_assert_eq(quarry_view_print(v, fileno(file), json), 0);
	rewind(file);
	n = fread(text, 1, sizeof(text) - 1, file);
	text[n] = '\0';
	fclose(file);
}

Test(holders, printed)
{
	quarry_arena_attr attr = { .name = "kept" };
	quarry_arena *kept = quarry_arena_create(&attr);
	quarry_view *v;

	(void)!quarry_arena_malloc(kept, 1000);
	v = quarry_view_open();
	print(v, 0);
	cr_expect_null(strstr(text, "who allocated"), "%s", text);
	print(v, 1);
	cr_expect_not_null(strstr(text, "\"holders\":[]}\n"));
	quarry_view_close(v);
	begin();
	place = 0x70;
	for (int i = 0; i < 30; i++)
		(void)!quarry_arena_malloc(kept, 3000);
	clock_ms += 2000;
	place = 0x30;
	for (int i = 0; i < 4; i++)
		(void)!quarry_arena_malloc(kept, 1000);
	/* (The slab of 1024 has one object that was there before; what is a sample stands elsewhere.) */
	v = quarry_view_open();
	print(v, 0);
	cr_expect_not_null(strstr(text, "\nheld by slabs used to less than 50 %, and who allocated what lives of that size\n"), "%s",
			   text);
	cr_expect_not_null(strstr(text, "     64K by 1024 bytes of kept: 1 stacks\n"), "%s", text);
	cr_expect_not_null(strstr(text, "    4.0K in 4 objects (4 samples), half of them younger than 1 ms\n        0x1031\n"
					"        0x2001\n"),
			   "%s", text);
	for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n"))
		cr_expect_leq(strlen(line), 80, "%s", line);
	clock_ms += 2000000;
	print(v, 0);
	cr_expect_not_null(strstr(text, "half of them older than 1000 s\n"), "%s", text);
	print(v, 1);
	cr_expect_not_null(strstr(text, "{\"arena\":\"kept\",\"object_size\":1024,\"held\":65536,\"stacks\":1,\"most\":[\n"
					"{\"samples\":4,\"objects\":4,\"bytes\":4096,\"ages_ms\":{\"<1\":0,"),
			   "%s", text);
	cr_expect_not_null(strstr(text, "\">=1000000\":4},\"stack\":[\"0x1031\",\"0x2001\"],\"names\":[\"0x1031\",\"0x2001\"]}"),
			   "%s", text);
	quarry_view_close(v);
}

Test(holders, wrong_arguments)
{
	quarry_view_use use = { .kind = QUARRY_VIEW_SLAB, .object_size = 16 };
	quarry_view_holder one;

	cr_expect_eq(quarry_view_holders(NULL, &one, 1, sizeof(one)), -1);
	cr_expect_eq(errno, EINVAL);
	cr_expect_eq(quarry_view_holders(&use, NULL, 1, sizeof(one)), -1);
	cr_expect_eq(quarry_view_holders(&use, &one, 1, 0), -1);
	cr_expect_str_eq(quarry_error_text(), "size: 0");
	cr_expect_eq(quarry_view_holders(&use, &one, 1, sizeof(one)), 0);
}
