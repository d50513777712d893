/* SPDX-License-Identifier: MIT */
/* How memory is used by what lives (quarry_view_uses, quarry_view_print): each row against what the visit of the same view
 * tells, summed up here in another way; rows of a small heap that are known; the text's width, JSON, wrong arguments. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "include/quarry/quarry.h"
#include "tests/unit/model.h"

#define MOST 100000
#define ROWS 1000
#define HUGE ((size_t)2 << 20)

static quarry_view_use rows[ROWS];
static long row_count;

static const quarry_view_use *row_of(int kind, const quarry_arena *arena, size_t object_size)
{
	const quarry_view_use *found = NULL;

	for (long i = 0; i < row_count; i++)
		if (rows[i].kind == kind && rows[i].arena == arena && rows[i].object_size == object_size) {
			model_must(found == NULL, "one row for each");
			found = &rows[i];
		}
	return found;
}

/* ---- another way to sum up: by arrays over all of the address space that the view has ---- */

static struct sum {
	quarry_arena *arena;
	int kind;
	size_t object_size;
	uint64_t count, held, objects, live, cached, live_bytes, cached_bytes, by_use[4];
} sums[ROWS];
static size_t sum_count;
static struct { uintptr_t at; quarry_arena *arena; uint64_t live; } frames[5000];
static size_t frame_count;

static struct sum *sum_of(int kind, quarry_arena *arena, size_t object_size)
{
	size_t i = 0;

	while (i < sum_count && (sums[i].kind != kind || sums[i].arena != arena || sums[i].object_size != object_size))
		i++;
	if (i == sum_count)
		sums[sum_count++] = (struct sum){ .arena = arena, .kind = kind, .object_size = object_size };
	return &sums[i];
}

static void add_to_frame(quarry_arena *arena, uintptr_t at, uint64_t live)
{
	uintptr_t frame = at / HUGE * HUGE;
	size_t i = 0;

	while (i < frame_count && frames[i].at != frame)
		i++;
	if (i == frame_count)
		frames[frame_count++].at = frame;
	frames[i].arena = arena;
	frames[i].live += live;
}

static struct sum *slab;
static uint64_t slab_size, slab_live;

static void end_slab(void)
{
	if (slab != NULL)
		slab->by_use[slab_live * 4 < slab_size ? 0 : slab_live * 2 < slab_size ? 1 : slab_live * 4 < slab_size * 3 ? 2 : 3] +=
			slab_size;
	slab = NULL;
	slab_live = 0;
}

static int sum_up(const quarry_view_item *item, void *ctx)
{
	(void)ctx;
	if (item->kind == QUARRY_VIEW_OBJECT) {
		bool live = item->state == QUARRY_VIEW_LIVE, cached = item->state == QUARRY_VIEW_CACHED;

		slab->objects++;
		slab->live += live;
		slab->cached += cached;
		slab->live_bytes += live ? item->size : 0;
		slab->cached_bytes += cached ? item->size : 0;
		slab_live += live ? item->size : 0;
		add_to_frame(item->arena, (uintptr_t)item->address, live ? item->size : 0);
		return 0;
	}
	end_slab();
	if (item->kind == QUARRY_VIEW_SLAB) {
		slab = sum_of(item->kind, item->arena, item->object_size);
		slab_size = item->size;
		slab->count++;
		slab->held += item->size;
		add_to_frame(item->arena, (uintptr_t)item->address, 0);
	} else {
		struct sum *s = sum_of(item->kind, item->arena, 0);

		s->count++;
		s->live++;
		s->held += item->size;
		s->live_bytes += item->size;
		s->by_use[3] += item->size;
		for (size_t i = 0; i < item->size; i += 4096)
			add_to_frame(item->arena, (uintptr_t)item->address + i, 4096);
	}
	return 0;
}

static void sum_frames(void)
{
	for (size_t i = 0; i < frame_count; i++) {
		struct sum *s = sum_of(QUARRY_VIEW_REGION, frames[i].arena, 0);
		uint64_t live = frames[i].live;

		s->count++;
		s->held += HUGE;
		s->live_bytes += live;
		s->by_use[live < HUGE / 4 ? 0 : live < HUGE / 2 ? 1 : live < HUGE / 4 * 3 ? 2 : 3] += HUGE;
	}
}

static void compare(const struct sum *s)
{
	const quarry_view_use *r = row_of(s->kind, s->arena, s->object_size);

	model_must(r != NULL, "a row for %d, %zu", s->kind, s->object_size);
	model_must(r->struct_size == sizeof(*r), "the size is told");
	model_must(r->count == s->count && r->held == s->held, "%d %zu: %" PRIu64 " of %" PRIu64, s->kind, s->object_size,
		   r->count, s->count);
	model_must(r->objects == s->objects && r->live == s->live && r->cached == s->cached, "%d %zu: %" PRIu64 " objects, %" PRIu64,
		   s->kind, s->object_size, r->objects, s->objects);
	model_must(r->live_bytes == s->live_bytes && r->cached_bytes == s->cached_bytes, "%d %zu: %" PRIu64 " bytes, %" PRIu64,
		   s->kind, s->object_size, r->live_bytes, s->live_bytes);
	for (int i = 0; i < 4; i++)
		model_must(r->held_by_use[i] == s->by_use[i], "%d %zu: quarter %d", s->kind, s->object_size, i);
}

static void check(const quarry_view *v)
{
	row_count = quarry_view_uses(v, rows, ROWS, sizeof(rows[0]));
	sum_count = frame_count = 0;
	memset(frames, 0, sizeof(frames));
	quarry_view_visit(v, QUARRY_VIEW_SLAB | QUARRY_VIEW_OBJECT | QUARRY_VIEW_BLOCK, sum_up, NULL);
	end_slab();
	sum_frames();
	cr_assert_eq((size_t)row_count, sum_count);
	for (size_t i = 0; i < sum_count; i++)
		compare(&sums[i]);
}

Test(use, against_what_is_there)
{
	static void *p[MOST];
	quarry_arena_attr attr = { .name = "second" };
	quarry_arena *second = quarry_arena_create(&attr);

	model_start("use/against");
	for (int round = 0; round < 4; round++) {
		quarry_view *v;

		for (size_t i = 0; i < MOST; i++)
			if (p[i] == NULL)
				p[i] = quarry_arena_malloc(model_one_in(3) ? second : NULL,
							   model_one_in(500) ? model_size(5 << 20) : model_size(2000));
		for (size_t i = 0; i < MOST; i++)
			if (model_below(10) < (unsigned)round * 3) {
				quarry_free(p[i]);
				p[i] = NULL;
			}
		v = quarry_view_open();
		cr_assert_not_null(v);
		check(v);
		quarry_view_close(v);
	}
}

Test(use, of_a_few)
{
	quarry_arena_attr attr = { .name = "few" };
	quarry_arena *few = quarry_arena_create(&attr);
	const quarry_view_use *use;
	quarry_view *v;

	for (int i = 0; i < 10; i++)
		cr_assert_not_null(quarry_arena_malloc(few, 1000));
	cr_assert_not_null(quarry_arena_malloc(few, 100000));
	v = quarry_view_open();
	row_count = quarry_view_uses(v, rows, ROWS, sizeof(rows[0]));
	use = row_of(QUARRY_VIEW_SLAB, few, 1024);
	cr_assert_not_null(use);
	cr_assert(use->count == 1 && use->held == 65536 && use->objects == 64 && use->live == 10 && use->live_bytes == 10240);
	cr_assert_eq(use->held_by_use[0], 65536);
	cr_assert_str_eq(use->arena_name, "few");
	use = row_of(QUARRY_VIEW_BLOCK, few, 0);
	cr_assert(use != NULL && use->count == 1 && use->live_bytes == 102400 && use->held == 102400);
	use = row_of(QUARRY_VIEW_REGION, few, 0);
	cr_assert(use != NULL && use->held == use->count * HUGE && use->live_bytes == 10240 + 102400);
	cr_assert_eq(use->held_by_use[0], use->held);
	quarry_view_close(v);
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

Test(use, printed)
{
	quarry_arena_attr attr = { .name = "a \"name\"\n that is long" };
	quarry_arena *named = quarry_arena_create(&attr);
	quarry_view *v;

	for (size_t size = 1; size < 40000; size += 100)
		cr_assert_not_null(quarry_arena_malloc(size % 300 == 1 ? named : NULL, size));
	v = quarry_view_open();
	print(v, 0);
	for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n"))
		cr_assert_leq(strlen(line), 80, "%s", line);
	print(v, 0);
	cr_assert_not_null(strstr(text, "a \"name\"? that     by 2M"), "%s", text);
	cr_assert_not_null(strstr(text, "25 %    50 %    75 %    more"));
	print(v, 1);
	cr_assert_not_null(strstr(text, "{\"arena\":\"a \\\"name\\\"\\u000a that is long\",\"kind\":\"huge_pages\",\"object_size\":0,"));
	cr_assert_not_null(strstr(text, "\"kind\":\"slabs\",\"object_size\":112,\"count\":1,\"held\":65536,\"objects\":585,"));
	cr_assert_eq(quarry_view_print(v, -1, 0), -1);
	cr_assert_eq(errno, EBADF);
	cr_assert_eq(quarry_view_print(NULL, 1, 0), -1);
	cr_assert_eq(errno, EINVAL);
	cr_assert_eq(quarry_view_uses(v, NULL, 1, sizeof(rows[0])), -1);
	cr_assert_eq(quarry_view_uses(NULL, rows, 1, sizeof(rows[0])), -1);
	cr_assert_eq(quarry_view_uses(v, rows, 1, 0), -1);
	cr_assert_str_eq(quarry_error_text(), "size: 0");
	cr_assert_gt(quarry_view_uses(v, NULL, 0, 0), 10);
	quarry_view_close(v);
}
