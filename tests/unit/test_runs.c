/* SPDX-License-Identifier: MIT */
/* The manager's upper level, runs of frames in regions, and what is done to all of a manager's memory:
 * giving back, reset, the end. Random steps against a list of what was given out, the books made anew from the
 * headers. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>

#include "lib/cache/thread.h"
#include "tests/fake_os.h"
#include "tests/unit/manager_model.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define BLOCKS 64

/* The library starts before main (lib/api/init.c), so the machine is made before that. */
static __attribute__((constructor(101))) void make_machine(void)
{
	setenv("QUARRY_OPTIONS", "reclaim=off", 1);
	fake_os_install();
	fake_os_clock(1000);
}

static struct qy_manager *m;
static struct books books;
static uint64_t next_mark;

static void begin(const char *name)
{
	model_start(name);
	cr_assert(qy_start());
	m = new_manager(0);
	next_mark = 1;
}

static size_t purge(uint64_t now, long decay_ms)
{
	uint64_t next;

	return qy_manager_purge(m, now, decay_ms, SIZE_MAX, &next);
}

/* ---- runs alone ---- */

struct run {
	uint32_t first, frames;
	uint64_t mark;
};

static struct run runs[BLOCKS];
static uint64_t held_frames;
static uint8_t frame_held[BOOKS_FRAMES];

/* Two pages of each frame stand for it. */
static void hold_run(struct run *r, uint32_t first, uint32_t frames, bool zero)
{
	*r = (struct run){ first, frames, next_mark += 1000 };
	held_frames += frames;
	for (uint32_t f = first; f < first + frames; f++) {
		model_must(!frame_held[f]++, "frame %u is one run's only", f);
		for (size_t at = 0; at < QY_FRAME; at += QY_FRAME - QY_PAGE) {
			if (zero)
				content_check_zero(frame_address(f) + at, 1);
			content_write(frame_address(f) + at, 1, r->mark + f);
		}
	}
}

static void let_go(struct run *r)
{
	for (uint32_t f = r->first; f < r->first + r->frames; f++) {
		frame_held[f] = 0;
		for (size_t at = 0; at < QY_FRAME; at += QY_FRAME - QY_PAGE)
			content_check(frame_address(f) + at, 1, r->mark + f);
	}
	held_frames -= r->frames;
	r->frames = 0;
}

static uint32_t dirty_run_that_fits(uint32_t frames)
{
	for (struct qy_region *r = m->regions; r != NULL; r = r->next) {
		uint32_t first = (uint32_t)qy_region_frame(r);

		for (uint32_t f = first; f < first + r->frames; f += qy_block_length(&qy_run_map, f))
			if (!qy_block_used(&qy_run_map, f) && !qy_block_clean(&qy_run_map, f) &&
			    qy_block_length(&qy_run_map, f) >= frames)
				return f;
	}
	return 0;
}

static void step_get(struct run *r)
{
	uint32_t frames = model_size(12), align = model_one_in(4) ? 1u << model_below(5) : 1, run;
	uint32_t dirty = dirty_run_that_fits(2 * frames);
	bool zero = false;

	run = qy_runs_get(m, frames, align, &zero);
	if (run == 0) {
		/* Among runs that may be too short only the first few are tried; one that is sure to do is found. */
		model_must(dirty == 0 || align != 1, "the dirty run at %u fits", dirty);
		if (qy_read(&m->mapped) < 160 * QY_FRAME)
			model_must(add_frames(m, frames + model_below(20)), "more frames");
		return;
	}
	model_must((uintptr_t)frame_address(run) % ((uintptr_t)align << QY_FRAME_SHIFT) == 0, "run %u, aligned to %u",
		   run, align);
	model_must(qy_block_used(&qy_run_map, run) && qy_block_length(&qy_run_map, run) == frames, "run %u", run);
	model_must(!zero || dirty == 0 || align != 1, "the dirty run at %u comes first", dirty);
	hold_run(r, run, frames, zero);
}

static void step_put(struct run *r)
{
	uint32_t first = r->first, frames = r->frames;
	bool clean = model_one_in(8);

	let_go(r);
	if (clean)
		purge_now(frame_address(first), (size_t)frames * QY_FRAME_PAGES);
	qy_runs_put(m, first, clean);
}

static void step_grow(struct run *r)
{
	uint32_t first = r->first, have = r->frames, want = have + 1 + model_below(6);

	if (!qy_runs_grow(m, first, want)) {
		model_must(qy_block_length(&qy_run_map, first) == have, "run %u is as it was", first);
		return;
	}
	let_go(r);
	hold_run(r, first, want, false);
}

static void step_shrink(struct run *r)
{
	uint32_t first = r->first, have = r->frames, want;

	if (have == 1)
		return;
	want = 1 + model_below(have - 1);
	let_go(r);
	qy_runs_put(m, qy_block_split(&qy_run_map, first, want), false);
	hold_run(r, first, want, false);
}

static void step_take(struct run *r)
{
	uint32_t run = dirty_run_that_fits(1), frames;
	bool zero = true;

	if (run == 0)
		return;
	frames = qy_block_length(&qy_run_map, run);
	model_must(qy_runs_take(m, run, &zero), "run %u is free", run);
	model_must(!zero, "run %u is dirty", run);
	model_must(!qy_runs_take(m, run, &zero), "run %u is not free any more", run);
	hold_run(r, run, frames, zero);
}

static void compare_runs(void)
{
	books_compare(m, &books);
	model_must(books.used_pages == held_frames * QY_FRAME_PAGES, "%" PRIu64 " frames are held", held_frames);
	model_must(books.frames == held_frames + books.free_frames, "%u frames", books.frames);
}

Test(runs, random_steps_against_a_model, .timeout = 240)
{
	begin("runs");
	for (uint32_t n = 0; n < 400000; n++) {
		struct run *r = &runs[model_below(n >> 14 & 1 ? BLOCKS : BLOCKS / 4)];
		uint32_t what = model_below(8);

		if (r->frames == 0)
			what == 0 ? step_take(r) : step_get(r);
		else if (what == 0)
			step_grow(r);
		else if (what == 1)
			step_shrink(r);
		else
			step_put(r);
		if (model_one_in(64))
			fake_os_advance(model_below(20));
		if (n % 500 == 0)
			compare_runs();
	}
	for (unsigned i = 0; i < BLOCKS; i++)
		if (runs[i].frames != 0)
			step_put(&runs[i]);
	compare_runs();
	cr_assert_eq(books.free_frames, books.frames);
	purge(5000000, 0);
	compare_runs();
	cr_assert_eq(books.dirty_pages, 0);
	cr_assert_leq(books.regions, 1, "all regions but a small last one go back");
	cr_assert_eq(qy_read(&m->mapped), m->regions == NULL ? 0 : (uint64_t)m->regions->frames * QY_FRAME);
	cr_assert_eq(qy_read(&m->region_count), books.regions);
}

static char *get(size_t size)
{
	bool zero;
	char *p = qy_large_alloc(m, size, QY_PAGE, &zero);

	cr_assert_not_null(p, "errno %d", errno);
	return p;
}

/* ---- giving back ---- */

Test(runs, purging_gives_back_what_is_free_and_nothing_else)
{
	char *p[6];
	size_t bytes;

	begin("runs");
	for (unsigned i = 0; i < 6; i++) {
		p[i] = get(i % 2 ? 100 * KIB : 3 * MIB);
		content_write(p[i], qy_large_size(p[i]) / QY_PAGE, 1000000 * (i + 1));
	}
	cr_assert(qy_large_free(p[1]) && qy_large_free(p[2]));
	bytes = purge(2000, 0);
	cr_assert_geq(bytes, 100 * KIB + 3 * MIB);
	cr_assert_eq(qy_read(&m->purged), bytes);
	cr_assert_eq(resident_pages(p[1], 25), 0);
	for (unsigned i = 0; i < 6; i++) {
		if (i == 1 || i == 2)
			continue;
		cr_assert_eq(resident_pages(p[i], qy_large_size(p[i]) / QY_PAGE), qy_large_size(p[i]) / QY_PAGE);
		content_check(p[i], qy_large_size(p[i]) / QY_PAGE, 1000000 * (i + 1));
	}
	books_compare(m, &books);
	cr_assert_eq(books.dirty_pages, 0);
	cr_assert_eq(purge(2000, 0), 0, "there is no more");
}

Test(runs, purged_memory_is_had_again_and_is_zero)
{
	bool zero = false;
	char *p;

	begin("runs");
	p = get(5 * MIB);
	content_write(p, 5 * MIB / QY_PAGE, 3);
	cr_assert(qy_large_free(p));
	cr_assert_eq(purge(2000, 0), 6 * MIB);
	cr_assert_eq((char *)qy_large_alloc(m, 5 * MIB, QY_PAGE, &zero), p);
	cr_assert(zero);
	content_check_zero(p, 5 * MIB / QY_PAGE);
}

/* Regions that are free go back whole, but for one. */
Test(runs, free_regions_are_dropped)
{
	char *p[5];
	unsigned char in;

	begin("runs");
	for (int i = 0; i < 5; i++) {
		cr_assert(add_frames(m, 4 + (uint32_t)i));
		p[i] = get((size_t)(4 + i) * QY_FRAME);
		memset(p[i], 1, QY_PAGE);
	}
	books_compare(m, &books);
	cr_assert_eq(books.regions, 5);
	for (int i = 0; i < 4; i++)
		cr_assert(qy_large_free(p[i]));
	purge(2000, 0);
	books_compare(m, &books);
	cr_assert_eq(books.regions, 1);
	cr_assert_null(qy_manager_of(p[0]));
	cr_assert_not(qy_large_is(p[0]));
	cr_assert_eq(qy_manager_of(p[4]), m);
	cr_assert_eq(qy_os->mincore(p[4], QY_PAGE, &in), 0);
	cr_assert_eq(qy_read(&m->mapped), 8 * QY_FRAME);
	cr_assert_eq(qy_read(&m->peak_mapped), 30 * QY_FRAME);
	/* And the address space is had again. */
	for (int i = 0; i < 4; i++)
		get((size_t)(4 + i) * QY_FRAME);
	cr_assert_eq(qy_read(&m->mapped), 30 * QY_FRAME);
}

/* ---- reset and end ---- */

static struct qy_slab *slab_of_class(struct qy_heap *h, unsigned cls)
{
	bool zero;
	void *p = qy_heap_refill(h, cls, &zero);

	return qy_slab_of(p);
}

Test(runs, reset_leaves_all_of_it_free_and_dirty)
{
	static struct qy_heap heap;
	bool zero = true;
	char *p;

	begin("runs");
	qy_heap_open(&heap, m, 64);
	cr_assert_not_null(slab_of_class(&heap, 3));
	cr_assert_not_null(slab_of_class(&heap, QY_CLASSES - 1));
	for (int i = 0; i < 40; i++) {
		p = get(model_size(5 << 20));
		content_write(p, qy_large_size(p) / QY_PAGE, 9);
	}
	books_compare(m, &books);
	qy_manager_reset(m);
	books_compare(m, &books);
	cr_assert_eq(books.used_pages + books.filled, 0);
	cr_assert_eq(books.free_frames, books.frames);
	cr_assert_eq(books.dirty_pages, (uint64_t)books.frames * QY_FRAME_PAGES);
	cr_assert_eq(qy_read(&m->used) + qy_read(&m->large), 0);
	cr_assert_eq(qy_read(&m->mapped), books.frames * QY_FRAME);
	for (size_t at = 0; at < qy_window_claimed(); at += QY_UNIT)
		cr_assert_null(qy_slab_of(qy_window_at(at)));
	cr_assert_not(qy_large_is(p));
	p = qy_large_alloc(m, 3 * MIB, QY_PAGE, &zero);
	cr_assert_not(zero);
	purge(5000, 0);
	books_compare(m, &books);
	cr_assert_eq(books.dirty_pages, 0);
}

Test(runs, the_end_gives_back_every_address)
{
	uint64_t frames;
	char *p;

	begin("runs");
	frames = qy_window_claimed();
	for (int n = 0; n < 500; n++) {
		p = get(20 * MIB);
		memset(p, 1, QY_PAGE);
		get(MIB);
		qy_manager_destroy(m);
		cr_assert_null(qy_manager_of(p));
		m = new_manager(0);
	}
	cr_assert_leq(qy_window_claimed(), frames + QY_ZONE);
}

/* Memory on its way back to the kernel is in no list: an arena that is reset then must neither lose it nor have it
 * twice. The kernel here holds a purge up until the reset is done, or has waited for a while as it should. */
static struct qy_os kernel;
static _Atomic(int) in_kernel, reset_done;

static int slow_madvise(void *addr, size_t len, int advice)
{
	struct timespec pause = { 0, 1000000 };

	if (advice == MADV_DONTNEED) {
		atomic_store(&in_kernel, 1);
		for (int n = 0; n < 300 && !atomic_load(&reset_done); n++)
			nanosleep(&pause, NULL);
	}
	return qy_os_linux.madvise(addr, len, advice);
}

static void *purge_all(void *unused)
{
	purge(2000, 0);
	return unused;
}

Test(runs, a_reset_while_memory_is_on_its_way_back, .timeout = 60)
{
	pthread_t thread;
	bool zero = false;
	char *p, *q;

	begin("runs");
	p = get(6 * MIB);
	content_write(p, 6 * MIB / QY_PAGE, 1);
	cr_assert(qy_large_free(p));
	kernel = *qy_os;
	kernel.madvise = slow_madvise;
	qy_os = &kernel;
	cr_assert_eq(pthread_create(&thread, NULL, purge_all, NULL), 0);
	while (!atomic_load(&in_kernel))
		sched_yield();
	cr_assert_eq(quarry_arena_reset(&qy_arenas[m->index]), 0, "errno %d", errno);
	p = qy_large_alloc(m, 6 * MIB, QY_PAGE, &zero);
	content_write(p, 6 * MIB / QY_PAGE, 100);
	atomic_store(&reset_done, 1);
	pthread_join(thread, NULL);
	content_check(p, 6 * MIB / QY_PAGE, 100);
	q = get(6 * MIB);
	cr_assert_neq(p, q, "one block, given out twice");
	books_compare(m, &books);
	cr_assert_eq(qy_read(&m->used), 12 * MIB);
}
