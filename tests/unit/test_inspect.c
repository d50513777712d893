/* SPDX-License-Identifier: MIT */
/* quarry_inspect: of each object and block of a heap that is known, from any byte of it; states of what the calling thread,
 * another one, and nobody holds; against a view of the same heap; wild pointers. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "include/quarry/quarry.h"
#include "tests/unit/model.h"

#define MOST 30000

static __attribute__((constructor(101))) void set_options(void)
{
	setenv("QUARRY_OPTIONS", "reclaim=off", 1);
}

static char *blocks[MOST];

static quarry_inspection of(const void *p)
{
	quarry_inspection found;

	memset(&found, 0x55, sizeof(found));
	model_must(quarry_inspect(p, &found, sizeof(found)) == 0, "%p is known", p);
	model_must(found.struct_size == sizeof(found), "the size is told");
	return found;
}

static void make(quarry_arena *arena)
{
	for (size_t i = 0; i < MOST; i++) {
		blocks[i] = quarry_arena_malloc(arena, model_one_in(100) ? model_size(3 << 20) : model_size(3000));
		cr_assert_not_null(blocks[i]);
	}
}

static void check_block(const char *p, int state, quarry_arena *arena, const char *name)
{
	size_t size = quarry_usable_size(p), at = model_below((uint32_t)size);
	quarry_inspection found = of(p + at);

	model_must(found.address == p && found.size == size && found.offset == at, "%p of %zu bytes is %p of %zu", (const void *)p,
		   size, found.address, found.size);
	model_must(found.kind == (size > 32768 ? QUARRY_VIEW_BLOCK : QUARRY_VIEW_OBJECT), "%zu bytes are %d", size, found.kind);
	model_must(found.state == (size > 32768 ? QUARRY_VIEW_LIVE : state), "%zu bytes: %d", size, found.state);
	model_must(found.arena == arena && strcmp(found.arena_name, name) == 0, "%s", found.arena_name);
	model_must((const char *)found.region <= p && p + size <= (const char *)found.region + found.region_size, "its region");
	if (size <= 32768)
		model_must((const char *)found.slab <= p && p + size <= (const char *)found.slab + found.slab_size, "its slab");
	else
		model_must(found.slab == NULL, "no slab");
}

Test(inspect, what_lives_from_any_byte_of_it)
{
	quarry_arena_attr attr = { .name = "looked at" };
	quarry_arena *a = quarry_arena_create(&attr);

	model_start("inspect/lives");
	make(a);
	for (size_t i = 0; i < MOST; i++)
		check_block(blocks[i], QUARRY_VIEW_LIVE, a, "looked at");
}

static int compare(const quarry_view_item *item, void *ctx)
{
	quarry_inspection found = of((const char *)item->address + model_below((uint32_t)(item->size < 4096 ? item->size : 4096)));

	model_must(found.kind == item->kind && found.address == item->address && found.size == item->size, "%p: %d", item->address,
		   found.kind);
	model_must(found.state == item->state, "%p of %zu bytes is %d, and was %d", item->address, item->size, found.state,
		   item->state);
	model_must(found.arena == item->arena && found.node == item->node && found.page_kind == item->page_kind, "its region");
	++*(size_t *)ctx;
	return 0;
}

/* One thread alone holds all: what it can tell of its own is all that there is. */
Test(inspect, as_a_view_has_it)
{
	size_t n = 0;
	quarry_view *v;

	model_start("inspect/view");
	make(NULL);
	for (size_t i = 0; i < MOST; i += 1 + model_below(3))
		quarry_free(blocks[i]);
	v = quarry_view_open();
	cr_assert_not_null(v);
	cr_assert_eq(quarry_view_visit(v, QUARRY_VIEW_OBJECT | QUARRY_VIEW_BLOCK, compare, &n), 0);
	cr_assert_gt(n, MOST / 2);
	quarry_view_close(v);
}

/* So that slabs become mixed: few of one size survive, in slabs that nobody holds, and others come. */
Test(inspect, in_gaps)
{
	size_t mixed = 0;

	model_start("inspect/gaps");
	for (unsigned phase = 0; phase < 3; phase++) {
		for (size_t i = 0; i < MOST; i++)
			if (blocks[i] == NULL)
				blocks[i] = quarry_malloc(100 + 130 * phase);
		for (size_t i = 0; i < MOST; i++)
			if (!model_one_in(phase == 2 ? 2 : 12)) {
				quarry_free(blocks[i]);
				blocks[i] = NULL;
			}
		quarry_purge(NULL);
	}
	for (size_t i = 0; i < MOST; i++) {
		const void *p = blocks[i];
		quarry_move_hint hint = { 0 };

		if (p == NULL)
			continue;
		quarry_should_move_hints(&p, 1, &hint, sizeof(hint));
		mixed += hint.mixed;
		model_must(of(blocks[i] + model_below(100)).address == p, "%p", p);
	}
	cr_assert_gt(mixed, 100);
}

static void *make_some(void *unused)
{
	(void)unused;
	make(NULL);
	return NULL;
}

static void *hold(void *lock)
{
	make(NULL);
	pthread_mutex_unlock((pthread_mutex_t *)lock);
	pthread_mutex_lock((pthread_mutex_t *)lock + 1);
	return NULL;
}

Test(inspect, what_others_hold)
{
	static pthread_mutex_t locks[2] = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER };
	char name[QUARRY_ARENA_NAME_MAX];
	pthread_t thread;
	quarry_inspection found;
	size_t unknown = 0;

	model_start("inspect/others");
	pthread_mutex_lock(&locks[0]);
	pthread_mutex_lock(&locks[1]);
	pthread_create(&thread, NULL, hold, locks);
	pthread_mutex_lock(&locks[0]);
	for (size_t i = 0; i < MOST; i++) {
		found = of(blocks[i]);
		model_must(found.address == blocks[i], "%p", found.address);
		if (found.kind == QUARRY_VIEW_BLOCK)
			continue;
		model_must(found.state == QUARRY_VIEW_UNKNOWN && found.mine == 0, "state %d, %d", found.state, found.mine);
		unknown++;
	}
	cr_assert_gt(unknown, MOST / 2);
	pthread_mutex_unlock(&locks[1]);
	pthread_join(thread, NULL);
	/* When it has ended, and what it held was given up, they are nobody's. */
	quarry_purge(NULL);
	found = of(blocks[5]);
	strcpy(name, found.arena_name);
	for (size_t i = 0; i < MOST; i++) {
		check_block(blocks[i], QUARRY_VIEW_LIVE, found.arena, name);
		model_must(of(blocks[i]).mine == -1, "nobody's");
	}
}

Test(inspect, what_was_freed_and_is_nobodys)
{
	pthread_t thread;
	size_t freed = 0, told = 0;

	model_start("inspect/freed");
	pthread_create(&thread, NULL, make_some, NULL);
	pthread_join(thread, NULL);
	quarry_purge(NULL);
	for (size_t i = 0; i < MOST; i += 2)
		quarry_free(blocks[i]);
	quarry_thread_flush();
	quarry_purge(NULL);
	for (size_t i = 0; i < MOST; i++) {
		quarry_inspection found;

		if (quarry_inspect(blocks[i], &found, sizeof(found)) != 0 || found.kind != QUARRY_VIEW_OBJECT)
			continue;
		if (i % 2 == 1)
			model_must(found.state == QUARRY_VIEW_LIVE || found.mine == 1, "%zu lives", i);
		freed += i % 2 == 0;
		told += i % 2 == 0 && found.state == QUARRY_VIEW_FREE;
	}
	cr_assert(freed > 1000 && told == freed, "%zu of %zu", told, freed);
}

Test(inspect, wild_pointers)
{
	static char foreign[16];
	quarry_inspection found;
	char *p = quarry_malloc(100);

	model_start("inspect/wild");
	make(NULL);
	for (size_t i = 0; i < MOST; i++)
		if (i % 3 != 0 || quarry_usable_size(blocks[i]) > 32768)
			blocks[i] = NULL;
		else
			quarry_free(blocks[i]);
	/* What is free is written over: links lead anywhere, also in quarry's own memory. */
	for (size_t i = 0; i < MOST; i++)
		if (blocks[i] != NULL)
			*(uint64_t *)(void *)blocks[i] = model_one_in(2) ? (uintptr_t)p + (model_random() >> 40) :
									 model_random() >> model_below(64);
	for (int i = 0; i < 300000; i++)
		(void)quarry_inspect(p + (int64_t)(model_random() >> (8 + model_below(50))) - (1 << 22), &found, sizeof(found));
	cr_assert_eq(quarry_inspect(NULL, &found, sizeof(found)), -1);
	cr_assert_eq(errno, ENOENT);
	cr_assert_eq(quarry_inspect(foreign, &found, sizeof(found)), -1);
	cr_assert_eq(quarry_inspect(&found, &found, sizeof(found)), -1);
	cr_assert_eq(quarry_inspect((void *)UINTPTR_MAX, &found, sizeof(found)), -1);
	cr_assert_eq(quarry_inspect(p, NULL, sizeof(found)), -1);
	cr_assert_eq(errno, EINVAL);
	cr_assert_eq(quarry_inspect(p, &found, 0), -1);
	found.arena = NULL;
	cr_assert_eq(quarry_inspect(p, &found, sizeof(found.struct_size)), 0);
	cr_assert_null(found.arena);
}
