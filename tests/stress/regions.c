/* SPDX-License-Identifier: MIT */
/* Stress: functions for regions (quarry_on_region). A table of frames, kept by what is told alone: what comes was not
 * there, what goes or is purged was. The functions allocate, resize and free while memory of the same arenas comes and
 * goes in other threads, in the reclaimer's, and in forked children; others are put in and taken out all the while, and
 * must not run any more when that returns. */
#include "tests/stress/stress.h"

#include <sys/wait.h>

#define FRAME_SHIFT 21
#define FRAMES ((size_t)1 << (47 - FRAME_SHIFT))
#define KEPT 16
#define ALL (QUARRY_REGION_MAP | QUARRY_REGION_UNMAP | QUARRY_REGION_PURGE)

static _Atomic uint8_t *there; /* by frame: 1 while the region is mapped, by what was told */
static _Atomic uint64_t maps, unmaps, purges, nested, changes;
static _Thread_local unsigned depth;
static _Thread_local struct st_rng inside;

static void allocate_some(void)
{
	unsigned char *p[4];
	size_t size[4];

	for (unsigned i = 0; i < 4; i++) {
		size[i] = st_below(&inside, 20) == 0 ? 3 * ST_MIB : 1 + st_below(&inside, 20000);
		p[i] = quarry_malloc(size[i]);
		ST_CHECK(p[i] != NULL);
		memset(p[i], 17, 1 + size[i] / 100);
	}
	p[0] = quarry_realloc(p[0], size[0] * 2);
	ST_CHECK(p[0] != NULL && p[0][0] == 17);
	for (unsigned i = 0; i < 4; i++)
		quarry_free(p[i]);
}

static void keep_table(const quarry_region_event *e, void *ctx)
{
	size_t first = (uintptr_t)e->address >> FRAME_SHIFT, end = ((uintptr_t)e->address + e->size - 1) >> FRAME_SHIFT;
	uint8_t was = e->kind == QUARRY_REGION_MAP ? 0 : 1, next = e->kind == QUARRY_REGION_UNMAP ? 0 : 1;

	(void)ctx;
	if (end >= FRAMES)
		st_fail("%p is no address", e->address);
	for (size_t f = first; f <= end; f++) {
		uint8_t old = atomic_exchange(&there[f], next);

		if (old != was)
			st_fail("kind %d of frame %zx (%p, %zu): it is %d", e->kind, f, e->address, e->size, old);
	}
	if (e->kind != QUARRY_REGION_PURGE)
		(void)*(volatile char *)e->address; /* it is there, still or by now */
	atomic_fetch_add(e->kind == QUARRY_REGION_MAP ? &maps : e->kind == QUARRY_REGION_UNMAP ? &unmaps : &purges, 1);
	if (depth >= 2)
		return;
	depth++;
	if (depth > 1)
		atomic_fetch_add(&nested, 1);
	if (inside.state == 0)
		inside = st_rng_for((uint64_t)(uintptr_t)&inside);
	allocate_some();
	depth--;
}

/* One that comes and goes: not called when it is out. */
struct guest {
	_Atomic int in;
};

static void visit(const quarry_region_event *e, void *ctx)
{
	struct guest *g = ctx;

	(void)e;
	ST_CHECK(atomic_load(&g->in) == 1);
	quarry_free(quarry_malloc(500));
	ST_CHECK(atomic_load(&g->in) == 1);
}

static void change(struct guest *g)
{
	atomic_store(&g->in, 1);
	ST_CHECK(quarry_on_region(visit, g, ALL) == 0);
	quarry_free(quarry_malloc(5 * ST_MIB));
	ST_CHECK(quarry_on_region(visit, g, 0) == 0);
	atomic_store(&g->in, 0);
	atomic_fetch_add(&changes, 1);
}

static void fork_once(struct st_worker *w)
{
	int status = -1;
	pid_t child = fork();

	ST_CHECK(child >= 0);
	if (child == 0) {
		struct st_block b;

		st_make(&b, &w->rng, NULL, 1, 6 * ST_MIB);
		st_drop(&b, &w->rng);
		ST_CHECK(quarry_on_region(keep_table, NULL, 0) == 0);
		_exit(0);
	}
	ST_CHECK(waitpid(child, &status, 0) == child && status == 0);
}

static void body(struct st_worker *w)
{
	struct st_block block[KEPT] = { 0 };
	struct guest guest = { 0 };

	while (st_more(w)) {
		struct st_block *b = &block[st_below(&w->rng, KEPT)];
		quarry_arena *a = st_below(&w->rng, 4) == 0 ? quarry_arena_create(NULL) : NULL;

		if (b->p != NULL)
			st_drop(b, &w->rng);
		st_make(b, &w->rng, NULL, w->next_id++, 1 + st_below(&w->rng, 5 * ST_MIB));
		if (st_below(&w->rng, 4) == 0)
			st_resize(b, &w->rng, b->size * 2);
		if (a != NULL) {
			memset(quarry_arena_malloc(a, 3 * ST_MIB), 1, 5000);
			ST_CHECK(quarry_arena_destroy(a) == 0);
		}
		if (st_below(&w->rng, 8) == 0)
			quarry_purge(NULL);
		if (st_below(&w->rng, 8) == 0)
			change(&guest);
		if (st_below(&w->rng, 100) == 0)
			fork_once(w);
	}
	for (unsigned i = 0; i < KEPT; i++)
		if (block[i].p != NULL)
			st_drop(&block[i], &w->rng);
}

int main(int argc, char **argv)
{
	there = st_pages(FRAMES);
	/* Before anything is mapped. */
	if (quarry_on_region(keep_table, NULL, ALL) != 0)
		return 1;
	st_begin(argc, argv, "regions", 1500, 6);
	st_threads(body);
	printf("regions: %llu came, %llu went, %llu purges, %llu from inside, %llu guests\n", (unsigned long long)maps,
	       (unsigned long long)unmaps, (unsigned long long)purges, (unsigned long long)nested,
	       (unsigned long long)changes);
	ST_CHECK(maps > 10 && unmaps > 10 && purges > 100);
	ST_CHECK(quarry_on_region(keep_table, NULL, 0) == 0);
	/* (The reclaimer's thread has slabs of its own, since the functions allocate there too.) */
	return st_end(16 * ST_SLACK, 0);
}
