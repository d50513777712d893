/* SPDX-License-Identifier: MIT */
/* The manager's lower level, pages in frames: random steps against a list of what was given out, the books made anew
 * from the headers as they go, and the strategy's promises one by one. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>

#include "lib/cache/thread.h"
#include "tests/fake_os.h"
#include "tests/unit/manager_model.h"

#define FRAMES 48
#define BLOCKS 700
#define STEPS 1000000
#define LOOK_EVERY 2000

/* The library starts before main (lib/api/init.c), so the machine is made before that. */
static __attribute__((constructor(101))) void make_machine(void)
{
	setenv("QUARRY_OPTIONS", "reclaim=off", 1);
	fake_os_install();
	fake_os_clock(1000);
}

struct held {
	qy_page b;
	uint32_t pages;
	uint64_t mark;
};

static struct qy_manager *m;
static struct held held[BLOCKS];
static struct books books;
static uint64_t held_pages, next_mark;

static void begin(const char *name)
{
	model_start(name);
	cr_assert(qy_start());
	m = new_manager(0);
	next_mark = 1;
}

static void hold(struct held *h, qy_page b, uint32_t pages, bool zero)
{
	h->b = b;
	h->pages = pages;
	h->mark = next_mark += 1000;
	held_pages += pages;
	if (zero)
		content_check_zero(page_address(b), pages);
	content_write(page_address(b), pages, h->mark);
}

/* ---- what was chosen, against what there was ---- */

/* The free blocks as they were before a block was asked for. */
static struct {
	qy_page b;
	uint32_t length, frame;
	bool clean;
} seen[FRAMES * QY_FRAME_PAGES / 2];
static unsigned seen_count;
static uint8_t seen_bucket[BOOKS_FRAMES]; /* + 1; 0: not one of the filler's */

static void see_frames(enum qy_filler_kind kind)
{
	seen_count = 0;
	memset(seen_bucket, 0, sizeof(seen_bucket));
	for (struct qy_region *r = m->regions; r != NULL; r = r->next) {
		uint32_t first = (uint32_t)qy_region_frame(r);

		for (uint32_t f = first; f < first + r->frames; f++) {
			if (qy_frame_at(f)->filler != kind + 1)
				continue;
			seen_bucket[f] = (uint8_t)(qy_bin_of(qy_frame_at(f)->longest) + 1);
			for (qy_page b = f * QY_FRAME_PAGES; b < (f + 1) * QY_FRAME_PAGES;
			     b += qy_block_length(&qy_page_map, b)) {
				if (qy_block_used(&qy_page_map, b))
					continue;
				seen[seen_count].b = b;
				seen[seen_count].length = qy_block_length(&qy_page_map, b);
				seen[seen_count].clean = qy_block_clean(&qy_page_map, b);
				seen[seen_count++].frame = f;
			}
		}
	}
}

/* Dense first: no frame that fits for sure is in a bucket below that of the frame which was chosen, and a new frame is
 * opened only when there is none. In the frame: dirty before clean, then the shortest that fits. */
static void check_choice(qy_page b, uint32_t pages, uint32_t align)
{
	uint32_t f = b / QY_FRAME_PAGES;
	unsigned sure = qy_bin_above(pages + align - 1), bucket = seen_bucket[f] == 0 ? UINT8_MAX : seen_bucket[f] - 1u;
	unsigned from = 0;

	for (uint32_t other = 1; other < BOOKS_FRAMES; other++)
		if (seen_bucket[other] != 0 && seen_bucket[other] - 1u >= sure)
			model_must(bucket <= seen_bucket[other] - 1u, "frame %u fits and is fuller than %u", other, f);
	if (bucket == UINT8_MAX)
		return;
	while (!(seen[from].b <= b && b < seen[from].b + seen[from].length))
		model_must(++from < seen_count, "page %u was free", b);
	for (unsigned i = 0; i < seen_count; i++) {
		uint32_t skip = (uint32_t)qy_align_up(seen[i].b, align) - seen[i].b;

		if (seen[i].frame != f || skip + pages > seen[i].length)
			continue;
		model_must(!seen[from].clean || seen[i].clean, "page %u is dirty and fits, %u is clean", seen[i].b, b);
		if (seen[from].clean == seen[i].clean)
			model_must(seen[from].length <= seen[i].length, "the free block at %u is the shorter",
				   seen[i].b);
	}
}

/* ---- random steps ---- */

static void step_get(struct held *h)
{
	enum qy_filler_kind kind = model_below(2) ? QY_FILL_SLABS : QY_FILL_LARGE;
	uint32_t pages = kind == QY_FILL_SLABS ? (model_one_in(4) ? 64 : 16) : model_size(QY_FRAME_PAGES);
	uint32_t align = kind == QY_FILL_LARGE && model_one_in(4) ? 1u << model_below(9) : 1;
	bool zero = false, look = model_one_in(32);
	qy_page b;

	if (pages + align - 1 > QY_FRAME_PAGES)
		align = 1;
	if (look)
		see_frames(kind);
	b = qy_filler_get(m, kind, pages, align, kind == QY_FILL_SLABS ? QY_USE_SLAB : QY_USE_LARGE, &zero);
	if (b == 0) {
		if (qy_read(&m->mapped) < FRAMES * QY_FRAME)
			model_must(add_frames(m, 1 + model_below(3)), "more frames");
		return;
	}
	model_must(b % align == 0 && (kind == QY_FILL_LARGE || b % 16 == 0), "page %u is aligned to %u", b, align);
	model_must(qy_block_used(&qy_page_map, b) && qy_block_length(&qy_page_map, b) == pages, "page %u", b);
	model_must(b / QY_FRAME_PAGES == (b + pages - 1) / QY_FRAME_PAGES, "page %u stays in its frame", b);
	if (look)
		check_choice(b, pages, align);
	hold(h, b, pages, zero);
}

static void step_put(struct held *h)
{
	bool clean = model_one_in(64);

	content_check(page_address(h->b), h->pages, h->mark);
	if (clean)
		purge_now(page_address(h->b), h->pages);
	qy_filler_put(m, h->b, clean);
	held_pages -= h->pages;
	h->pages = 0;
}

static void step_resize(struct held *h)
{
	uint32_t have = h->pages, want = 1 + model_below(QY_FRAME_PAGES);

	if (qy_frame_at(h->b / QY_FRAME_PAGES)->filler == QY_FILL_SLABS + 1 || want == have)
		return;
	if (want < have) {
		qy_filler_shrink(m, h->b, want);
	} else if (!qy_filler_grow(m, h->b, want)) {
		model_must(qy_block_length(&qy_page_map, h->b) == have, "page %u is as it was", h->b);
		return;
	}
	content_check(page_address(h->b), qy_min(have, want), h->mark);
	held_pages += want - (uint64_t)have;
	h->pages = want;
	content_write(page_address(h->b), want, h->mark);
}

/* As the reclaimer takes what is dirty. */
static void step_take(struct held *h)
{
	qy_page b = m->dirty[QY_DIRT_PARTS] * QY_FRAME_PAGES;
	bool clean;

	if (b == 0 || qy_frame_at(m->dirty[QY_DIRT_PARTS])->filler == 0)
		return;
	while (qy_block_used(&qy_page_map, b) || (qy_block_clean(&qy_page_map, b) && model_below(2)))
		if (qy_block_last(&qy_page_map, b))
			return;
		else
			b = qy_block_next(&qy_page_map, b);
	clean = qy_block_clean(&qy_page_map, b);
	qy_filler_take(m, b, QY_USE_PURGE);
	hold(h, b, qy_block_length(&qy_page_map, b), clean);
}

static void compare(void)
{
	books_compare(m, &books);
	model_must(books.used_pages == held_pages, "%" PRIu64 " pages are held, not %" PRIu64, held_pages,
		   books.used_pages);
}

Test(filler, random_steps_against_a_model, .timeout = 240)
{
	begin("filler");
	for (uint32_t n = 0; n < STEPS; n++) {
		/* It fills and it empties, in waves. */
		struct held *h = &held[model_below(n >> 15 & 1 ? BLOCKS : BLOCKS / 8)];

		if (h->pages == 0)
			model_one_in(8) ? step_take(h) : step_get(h);
		else
			model_one_in(4) ? step_resize(h) : step_put(h);
		if (model_one_in(64))
			fake_os_advance(model_below(20));
		if (n % LOOK_EVERY == 0)
			compare();
	}
	for (unsigned i = 0; i < BLOCKS; i++)
		if (held[i].pages != 0)
			step_put(&held[i]);
	compare();
	qy_filler_close_empty(m);
	compare();
	cr_assert_eq(books.filled, 0, "all frames are back");
	cr_assert_eq(books.free_frames, books.frames);
}

/* ---- one by one ---- */

static qy_page get(enum qy_filler_kind kind, uint32_t pages, bool *zero)
{
	bool ignored;

	return qy_filler_get(m, kind, pages, 1, QY_USE_LARGE, zero != NULL ? zero : &ignored);
}

Test(filler, without_frames_there_are_no_pages)
{
	begin("filler");
	cr_assert_eq(get(QY_FILL_LARGE, 1, NULL), 0);
	compare();
	cr_assert(add_frames(m, 1));
	cr_assert_neq(get(QY_FILL_LARGE, 1, NULL), 0);
	cr_assert_eq(get(QY_FILL_SLABS, 16, NULL), 0, "the only frame is the other filler's");
	cr_assert_eq(get(QY_FILL_LARGE, QY_FRAME_PAGES, NULL), 0);
	cr_assert_neq(get(QY_FILL_LARGE, QY_FRAME_PAGES - 1, NULL), 0);
}

/* Three frames: full but for 20 pages, half full, nearly empty. */
Test(filler, the_fullest_frame_that_fits_is_chosen)
{
	qy_page full, half, sparse, b;

	begin("filler");
	add_frames(m, 3);
	full = get(QY_FILL_LARGE, 492, NULL);
	half = get(QY_FILL_LARGE, 300, NULL);
	sparse = get(QY_FILL_LARGE, 250, NULL);
	qy_filler_shrink(m, sparse, 10);
	cr_assert_neq(full / QY_FRAME_PAGES, half / QY_FRAME_PAGES);
	cr_assert_neq(half / QY_FRAME_PAGES, sparse / QY_FRAME_PAGES);
	b = get(QY_FILL_LARGE, 20, NULL);
	cr_assert_eq(b / QY_FRAME_PAGES, full / QY_FRAME_PAGES);
	for (int n = 0; n < 10; n++)
		cr_assert_eq(get(QY_FILL_LARGE, 20, NULL) / QY_FRAME_PAGES, half / QY_FRAME_PAGES);
	cr_assert_eq(get(QY_FILL_LARGE, 20, NULL) / QY_FRAME_PAGES, sparse / QY_FRAME_PAGES);
}

Test(filler, dirty_pages_are_used_before_clean_ones)
{
	qy_page a, b;
	bool zero = true;

	begin("filler");
	add_frames(m, 1);
	a = get(QY_FILL_LARGE, 30, &zero);
	cr_assert(zero);
	get(QY_FILL_LARGE, 1, NULL);
	b = get(QY_FILL_LARGE, 20, NULL);
	get(QY_FILL_LARGE, 1, NULL);
	purge_now(page_address(b), 20);
	qy_filler_put(m, b, true);
	qy_filler_put(m, a, false);
	cr_assert_eq(get(QY_FILL_LARGE, 10, &zero), a, "though the clean one fits better");
	cr_assert_not(zero);
	cr_assert_eq(get(QY_FILL_LARGE, 20, &zero), a + 10);
	cr_assert_eq(get(QY_FILL_LARGE, 20, &zero), b);
	cr_assert(zero);
	books_compare(m, &books);
}

Test(filler, a_whole_frame_goes_back_when_all_of_it_is_clean)
{
	qy_page b;

	begin("filler");
	add_frames(m, 2);
	b = get(QY_FILL_LARGE, 100, NULL);
	qy_filler_put(m, b, true);
	books_compare(m, &books);
	cr_assert_eq(books.filled, 0);
	cr_assert_eq(books.runs_free[true], 1, "and is one run with the other frame again");
}

Test(filler, one_empty_frame_is_kept_open)
{
	qy_page a, b;
	bool zero;

	begin("filler");
	add_frames(m, 3);
	a = get(QY_FILL_SLABS, 16, NULL);
	for (int n = 0; n < 31; n++)
		get(QY_FILL_SLABS, 16, NULL);
	b = get(QY_FILL_SLABS, 16, NULL);
	qy_filler_put(m, b, false);
	books_compare(m, &books);
	cr_assert_eq(books.filled, 2, "the second frame is empty and open");
	cr_assert_eq(m->fillers[QY_FILL_SLABS].empty, b / QY_FRAME_PAGES);
	for (uint32_t n = 0; n < 32; n++)
		qy_filler_put(m, a + n * 16, false);
	books_compare(m, &books);
	cr_assert_eq(books.filled, 1, "one of the two is closed");
	cr_assert_eq(get(QY_FILL_SLABS, 16, &zero) / QY_FRAME_PAGES, a / QY_FRAME_PAGES);
	cr_assert_eq(m->fillers[QY_FILL_SLABS].empty, 0);
	books_compare(m, &books);
}

/* A frame of which only a part is dirty is dirty as a run: nobody may read zeros in it. */
Test(filler, a_frame_that_is_partly_dirty_closes_dirty)
{
	qy_page a, b;
	bool zero = true;
	uint32_t run;

	begin("filler");
	add_frames(m, 1);
	a = get(QY_FILL_LARGE, 10, NULL);
	b = get(QY_FILL_LARGE, 10, NULL);
	content_write(page_address(b), 10, 7);
	qy_filler_put(m, b, false);
	qy_filler_put(m, a, true);
	qy_filler_close_empty(m);
	books_compare(m, &books);
	cr_assert_eq(books.runs_free[false], 1);
	run = qy_runs_get(m, 1, 1, &zero);
	cr_assert_eq(run, a / QY_FRAME_PAGES);
	cr_assert_not(zero);
}

/* Grown into clean memory, a block is no cleaner than it was; grown into dirty memory, it is dirty. */
Test(filler, grows_into_what_is_free_behind_and_no_further)
{
	qy_page a, b, c;

	begin("filler");
	add_frames(m, 1);
	a = get(QY_FILL_LARGE, 10, NULL);
	b = get(QY_FILL_LARGE, 10, NULL);
	c = get(QY_FILL_LARGE, 10, NULL);
	cr_assert(b == a + 10 && c == b + 10);
	cr_assert_not(qy_filler_grow(m, a, 11));
	qy_filler_put(m, b, false);
	cr_assert_not(qy_filler_grow(m, a, 21));
	cr_assert(qy_filler_grow(m, a, 15));
	books_compare(m, &books);
	cr_assert_eq(books.dirty_pages, 5);
	cr_assert(qy_filler_grow(m, a, 20));
	books_compare(m, &books);
	cr_assert_eq(books.dirty_pages, 0);
	cr_assert_not(qy_block_clean(&qy_page_map, a));
	cr_assert(qy_filler_grow(m, c, QY_FRAME_PAGES - 20));
	cr_assert_not(qy_filler_grow(m, c, QY_FRAME_PAGES), "the frame ends there");
	books_compare(m, &books);
	cr_assert_eq(books.used_pages, QY_FRAME_PAGES);
}

Test(filler, alignment_leaves_what_stands_before_free)
{
	bool zero;
	qy_page b;

	begin("filler");
	add_frames(m, 1);
	get(QY_FILL_LARGE, 3, NULL);
	b = qy_filler_get(m, QY_FILL_LARGE, 20, 256, QY_USE_LARGE, &zero);
	cr_assert_eq(b % 256, 0);
	cr_assert_eq(b % QY_FRAME_PAGES, 256);
	cr_assert_eq(get(QY_FILL_LARGE, 253, NULL) % QY_FRAME_PAGES, 3);
	books_compare(m, &books);
	cr_assert_eq(books.used_pages, 276);
}

/* The buckets: lengths rise with them, and what qy_bin_above names is enough. */
Test(filler, buckets_are_in_order_and_tell_what_is_enough)
{
	unsigned before = 0;
	static uint32_t least[256], most[256];

	for (uint32_t n = 1; n < 1u << 20; n++) {
		unsigned bin = qy_bin_of(n);

		model_must(bin == before || bin == before + 1, "%u pages: bucket %u after %u", n, bin, before);
		if (least[bin] == 0)
			least[bin] = n;
		most[bin] = n;
		before = bin;
	}
	for (uint32_t n = 1; n < 1u << 19; n++) {
		unsigned sure = qy_bin_above(n);

		model_must(least[sure] >= n, "%u pages: in bucket %u there may be %u", n, sure, least[sure]);
		model_must(most[sure - 1] < n || least[sure - 1] < n, "%u pages: bucket %u is enough too", n, sure - 1);
	}
	cr_assert_eq(qy_bin_of(QY_FRAME_PAGES), QY_FILL_BUCKETS - 1);
	cr_assert_eq(qy_bin_of(QY_BLOCK_LENGTH_MAX), QY_RUN_BUCKETS - 1);
}
