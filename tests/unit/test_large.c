/* SPDX-License-Identifier: MIT */
/* Blocks for the program, which stand on both levels of the manager: random steps against a list of what was given
 * out, the books made anew from the headers as they go; page tables that move, limits, what cannot be. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>

#include "lib/cache/thread.h"
#include "lib/base/refused.h"
#include "lib/manager/limits.h"
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

/* ---- random steps ---- */

struct block {
	char *p;
	size_t pages;
	uint64_t mark;
};

static struct block blocks[BLOCKS];
static uint64_t held_bytes;

static size_t random_size(void)
{
	return model_one_in(3) ? QY_CLASS_MAX + model_size(12 << 20) : QY_CLASS_MAX + model_size(QY_FRAME);
}

static void hold_block(struct block *h, char *p)
{
	h->p = p;
	h->pages = qy_large_size(p) / QY_PAGE;
	h->mark = next_mark += 10000;
	held_bytes += h->pages * QY_PAGE;
	content_write(p, h->pages, h->mark);
}

static void step_alloc(struct block *h)
{
	size_t size = random_size(), align = model_one_in(6) ? QY_PAGE << model_below(13) : QY_PAGE;
	bool zero = false;
	char *p = qy_large_alloc(m, size, align, &zero);

	if (p == NULL) {
		model_must(errno == ENOMEM && held_bytes + size > 160 * MIB, "errno %d", errno);
		return;
	}
	model_must((uintptr_t)p % align == 0, "%p is aligned to %zu", (void *)p, align);
	model_must(qy_large_is(p) && qy_large_size(p) >= size && qy_large_size(p) < size + QY_PAGE, "%zu bytes at %p",
		   size, (void *)p);
	model_must(qy_manager_of(p) == m, "%p is the manager's", (void *)p);
	if (zero)
		content_check_zero(p, qy_large_size(p) / QY_PAGE);
	hold_block(h, p);
}

static void step_free(struct block *h)
{
	content_check(h->p, h->pages, h->mark);
	model_must(!qy_large_free(h->p + QY_PAGE), "not its start");
	model_must(!qy_large_free(h->p + 16), "not its start");
	model_must(qy_large_free(h->p), "%p is live", (void *)h->p);
	model_must(!qy_large_free(h->p), "%p is not live any more", (void *)h->p);
	held_bytes -= h->pages * QY_PAGE;
	h->p = NULL;
}

static void step_resize(struct block *h, bool may_move)
{
	size_t size = random_size(), had = h->pages, before = qy_large_size(h->p);
	char *to = h->p;

	if (!qy_large_resize(h->p, size)) {
		model_must(qy_large_size(h->p) == before, "%p is as it was", (void *)h->p);
		to = may_move ? qy_large_remap(h->p, size) : NULL;
	}
	if (to == NULL) {
		content_check(h->p, had, h->mark);
		return;
	}
	model_must(qy_large_size(to) >= size, "%zu bytes at %p", size, (void *)to);
	content_check(to, qy_min(had, qy_large_size(to) / QY_PAGE), h->mark);
	held_bytes -= had * QY_PAGE;
	hold_block(h, to);
}

static void compare_blocks(void)
{
	books_compare(m, &books);
	model_must(qy_read(&m->large) == held_bytes && qy_read(&m->used) == held_bytes,
		   "%" PRIu64 " bytes are held, not %" PRIu64, held_bytes, qy_read(&m->large));
	model_must(qy_read(&m->mapped) == books.frames * QY_FRAME, "%u frames are mapped", books.frames);
	model_must(qy_read(&m->region_count) == books.regions, "%u regions", books.regions);
}

static void random_blocks(bool may_move)
{
	atomic_store(&m->hard_limit, 160 * MIB);
	for (uint32_t n = 0; n < 60000; n++) {
		struct block *h = &blocks[model_below(n >> 12 & 1 ? BLOCKS : BLOCKS / 4)];

		if (h->p == NULL)
			step_alloc(h);
		else if (model_one_in(3))
			step_resize(h, may_move);
		else
			step_free(h);
		if (model_one_in(16))
			fake_os_advance(model_below(50));
		/* Now and then the reclaimer comes by. */
		if (model_one_in(100))
			purge(qy_os->now_ms(), model_one_in(8) ? 0 : 500);
		if (n % 200 == 0)
			compare_blocks();
	}
	for (unsigned i = 0; i < BLOCKS; i++)
		if (blocks[i].p != NULL)
			step_free(&blocks[i]);
	compare_blocks();
}

Test(large, random_blocks_against_a_model, .timeout = 240)
{
	begin("large");
	random_blocks(false);
}

Test(large, random_blocks_moved_by_page_tables, .timeout = 240)
{
	begin("large");
	random_blocks(true);
}

/* ---- one by one ---- */

static char *get(size_t size)
{
	bool zero;
	char *p = qy_large_alloc(m, size, QY_PAGE, &zero);

	cr_assert_not_null(p, "errno %d", errno);
	return p;
}

Test(large, blocks_above_a_frame_are_frames)
{
	char *p;

	begin("large");
	p = get(QY_FRAME);
	cr_assert_eq(qy_frame_at((uint32_t)(qy_window_offset(p) >> QY_FRAME_SHIFT))->filler, QY_FILL_LARGE + 1);
	p = get(QY_FRAME + 1);
	cr_assert_eq(qy_window_offset(p) % QY_FRAME, 0);
	cr_assert_eq(qy_frame_at((uint32_t)(qy_window_offset(p) >> QY_FRAME_SHIFT))->filler, 0);
	cr_assert_eq(qy_large_size(p), QY_FRAME + QY_PAGE);
	books_compare(m, &books);
}

Test(large, what_cannot_be_is_enomem)
{
	static const size_t size[] = { SIZE_MAX, SIZE_MAX - QY_PAGE, (size_t)PTRDIFF_MAX + 1, PTRDIFF_MAX,
				       (size_t)1 << 50 };
	bool zero;

	begin("large");
	for (unsigned i = 0; i < sizeof(size) / sizeof(size[0]); i++) {
		errno = 0;
		cr_expect_null(qy_large_alloc(m, size[i], QY_PAGE, &zero), "%zu", size[i]);
		cr_expect_eq(errno, ENOMEM, "%zu", size[i]);
		errno = 0;
		cr_expect_null(qy_large_alloc(m, QY_PAGE, (size_t)1 << 46, &zero));
		cr_expect_eq(errno, ENOMEM);
	}
	books_compare(m, &books);
	cr_assert_eq(qy_read(&m->used), 0);
}

/* aligned_alloc takes any power of two; the window has room for this one many times. */
Test(large, alignment_above_a_gibibyte)
{
	bool zero;
	char *p;

	begin("large");
	if (qy_window_size < 24 * QY_ZONE)
		cr_skip_test("the window is too small");
	for (size_t align = QY_ZONE; align <= 8 * QY_ZONE; align *= 2) {
		p = qy_large_alloc(m, 5 * MIB, align, &zero);
		cr_expect_not_null(p, "aligned to %zu GiB: errno %d", align / QY_ZONE, errno);
		cr_expect_eq((uintptr_t)p % align, 0);
	}
}

Test(large, pointers_that_are_no_blocks)
{
	char *p, *q;
	int here;

	begin("large");
	p = get(3 * MIB);
	q = get(100 * KIB);
	cr_assert_not(qy_large_is(NULL));
	cr_assert_not(qy_large_is(&here));
	cr_assert_not(qy_large_is(p + QY_FRAME));
	cr_assert_not(qy_large_is(p + QY_PAGE));
	cr_assert_not(qy_large_is(q + QY_PAGE));
	cr_assert_not(qy_large_is(q + 1));
	cr_assert_not(qy_large_is(qy_window_at(0)));
	cr_assert_not(qy_large_is(qy_window_at(qy_window_claimed() - QY_FRAME)));
	cr_assert_eq(qy_large_size(q + QY_PAGE), 0);
	cr_assert_null(qy_manager_of(&here));
	cr_assert_null(qy_manager_of(NULL));
	cr_assert_not(qy_large_free(&here));
	cr_assert_not(qy_large_resize(p + QY_PAGE, 5 * MIB));
	cr_assert_null(qy_large_remap(q, 5 * MIB));
	books_compare(m, &books);
}

/* A block of frames that was shrunk keeps its last frame's tail, and what is in it. Moved away by its page tables,
 * it leaves only the part behind zero that was moved. */
Test(large, what_a_moved_block_leaves_is_not_called_zero)
{
	bool zero = false;
	char *p, *to, *again;

	begin("large");
	p = get(4 * MIB);
	content_write(p, 4 * MIB / QY_PAGE, 77);
	cr_assert(qy_large_resize(p, 5 * MIB / 2));
	to = qy_large_remap(p, 64 * MIB);
	if (to == NULL)
		cr_skip_test("the kernel does not move page tables");
	content_check(to, 5 * MIB / 2 / QY_PAGE, 77);
	again = qy_large_alloc(m, 4 * MIB, QY_PAGE, &zero);
	cr_assert_not_null(again);
	if (zero)
		content_check_zero(again, 4 * MIB / QY_PAGE);
	books_compare(m, &books);
}

/* As realloc does; counts those that moved it. The pages behind what it had are written. */
static char *grow(char *p, size_t size, uint64_t mark, unsigned *moves)
{
	size_t had = qy_large_size(p);
	char *to = p;

	if (!qy_large_resize(p, size)) {
		to = qy_large_remap(p, size);
		++*moves;
	}
	cr_assert_not_null(to, "page tables are moved whatever was moved before: %zu MiB", size / MIB);
	content_write(to + had, (size - had) / QY_PAGE, mark + had / QY_PAGE);
	return to;
}

static void need_remap(void)
{
	char *p = get(3 * MIB), *to = qy_large_remap(p, 8 * MIB);

	if (to == NULL)
		cr_skip_test("the kernel does not move page tables");
	cr_assert(qy_large_free(to));
}

/* Something else is always behind it, so that it moves each time. */
Test(large, a_block_that_doubles_is_never_copied)
{
	unsigned moves = 0, doublings = 0;
	char *p;

	begin("large");
	need_remap();
	p = get(3 * MIB);
	content_write(p, 3 * MIB / QY_PAGE, 1000);
	for (size_t size = 6 * MIB; size <= 192 * MIB; size *= 2) {
		uint32_t next = (uint32_t)((qy_window_offset(p) + qy_large_size(p) + QY_FRAME - 1) >> QY_FRAME_SHIFT);
		bool zero;

		/* (Where the next frame is another region's, or in use, the block cannot grow anyway.) */
		qy_lock(&m->lock);
		if (qy_region_of_frame(qy_frame_at(next)) == qy_region_of_frame(qy_frame_at(next - 1)) &&
		    !qy_block_used(&qy_run_map, next))
			qy_runs_take(m, next, &zero);
		qy_unlock(&m->lock);
		p = grow(p, size, 1000, &moves);
		content_check(p, size / QY_PAGE, 1000);
		doublings++;
	}
	cr_assert_eq(moves, doublings);
	cr_assert_eq(qy_read(&m->used), 192 * MIB);
}

/* Two in each other's way: each has room when it has moved. */
Test(large, blocks_that_grow_by_turns_move_rarely)
{
	unsigned moves = 0;
	char *p[2];

	begin("large");
	need_remap();
	for (int i = 0; i < 2; i++) {
		p[i] = get(4 * MIB);
		content_write(p[i], 4 * MIB / QY_PAGE, 1000 + (uint64_t)i * 1000000);
	}
	for (size_t size = 5 * MIB; size <= 96 * MIB; size += MIB)
		for (int i = 0; i < 2; i++)
			p[i] = grow(p[i], size, 1000 + (uint64_t)i * 1000000, &moves);
	for (int i = 0; i < 2; i++)
		content_check(p[i], 96 * MIB / QY_PAGE, 1000 + (uint64_t)i * 1000000);
	cr_assert_leq(moves, 12, "%u times, of 184", moves);
	cr_assert_eq(qy_read(&m->used), 192 * MIB);
	books_compare(m, &books);
	/* What room there is belongs to all. */
	cr_assert_eq(qy_read(&m->dirty_pages), 0);
	purge(qy_os->now_ms() + 10000, 0);
	books_compare(m, &books);
}

/* What is filled when it is mapped has none, nor what is counted when it is. */
Test(large, no_room_where_it_costs_memory)
{
	char *p, *to;
	bool zero;

	begin("large");
	need_remap();
	fake_os_file("/proc/sys/vm/overcommit_memory", "2\n");
	p = get(40 * MIB);
	to = qy_large_remap(p, 80 * MIB);
	cr_assert_not_null(to);
	cr_assert_eq(qy_region_of_frame(qy_frame_at((uint32_t)(qy_window_offset(to) >> QY_FRAME_SHIFT)))->frames, 40);
	fake_os_file("/proc/sys/vm/overcommit_memory", "0\n");
	to = qy_large_remap(to, 120 * MIB);
	cr_assert_not_null(to);
	cr_assert_eq(qy_region_of_frame(qy_frame_at((uint32_t)(qy_window_offset(to) >> QY_FRAME_SHIFT)))->frames, 120);
	cr_assert(qy_large_free(to));
	/* Where there is no such region to be had, the block is to be had all the same. */
	p = qy_large_alloc(m, 130 * MIB, QY_PAGE, &zero);
	cr_assert_not_null(p);
	fake_os_fail_kth(FAKE_MMAP, 1, ENOMEM);
	to = qy_large_remap(p, 260 * MIB);
	fake_os_heal();
	cr_assert_not_null(to);
	cr_assert_eq(qy_large_size(to), 260 * MIB);
	books_compare(m, &books);
}

Test(large, a_remap_that_is_refused_changes_nothing)
{
	char *p;

	begin("large");
	p = get(5 * MIB);
	content_write(p, 5 * MIB / QY_PAGE, 5);
	fake_os_fail(FAKE_MREMAP, ENOMEM);
	cr_assert_null(qy_large_remap(p, 12 * MIB));
	fake_os_heal();
	content_check(p, 5 * MIB / QY_PAGE, 5);
	cr_assert_eq(qy_read(&m->used), 5 * MIB);
	books_compare(m, &books);
}

Test(large, the_hard_limit_holds_and_is_counted)
{
	bool zero;
	char *p;

	begin("large");
	atomic_store(&m->hard_limit, 10 * MIB);
	p = get(9 * MIB);
	errno = 0;
	cr_assert_null(qy_large_alloc(m, 2 * MIB, QY_PAGE, &zero));
	cr_assert_eq(errno, ENOMEM);
	cr_assert_eq(qy_limits_denied_by(), QY_DENIED_BY_ARENA);
	cr_assert_not(qy_large_resize(p, 11 * MIB));
	cr_assert_not_null(qy_large_alloc(m, MIB, QY_PAGE, &zero));
	cr_assert_null(qy_large_alloc(m, QY_PAGE, QY_PAGE, &zero));
	cr_assert(qy_large_free(p));
	get(8 * MIB);
}

/* The kernel has no more: NULL, and all that is there stays usable. */
Test(large, no_more_regions)
{
	bool zero;
	char *p;

	begin("large");
	p = get(3 * MIB);
	fake_os_fail(FAKE_MMAP, ENOMEM);
	errno = 0;
	cr_assert_null(qy_large_alloc(m, 30 * MIB, QY_PAGE, &zero));
	cr_assert_eq(errno, ENOMEM);
	cr_assert_eq(qy_large_size(p), 3 * MIB);
	cr_assert(qy_large_free(p));
	cr_assert_not_null(qy_large_alloc(m, 3 * MIB, QY_PAGE, &zero));
	fake_os_heal();
	get(30 * MIB);
	books_compare(m, &books);
}

/* The one empty frame that is kept open is closed when it makes the run that is missing. */
Test(large, empty_frames_are_closed_before_it_says_no)
{
	char *p[3];

	begin("large");
	add_frames(m, 3);
	for (int i = 0; i < 3; i++)
		p[i] = get(QY_FRAME);
	for (int i = 0; i < 3; i++)
		cr_assert(qy_large_free(p[i]));
	fake_os_fail(FAKE_MMAP, ENOMEM);
	get(3 * QY_FRAME);
	fake_os_heal();
}
