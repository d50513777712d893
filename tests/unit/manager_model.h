/* SPDX-License-Identifier: MIT */
/* A manager's books made anew from the block headers, and memory whose contents are known, for the tests of the
 * manager.
 *
 * Content: whatever a test is given it marks, four words in every page, and what is said to read as zero is looked at
 * in those places before. So a page that was ever in use and is called zero without having been purged is found. */
#ifndef QUARRY_TESTS_MANAGER_MODEL_H
#define QUARRY_TESTS_MANAGER_MODEL_H

#include <string.h>

#include "lib/base/settings.h"
#include "lib/manager/bins.h"
#include "lib/manager/dirt.h"
#include "lib/manager/manager.h"
#include "numa/os.h"
#include "tests/unit/model.h"

/* ---- content ---- */

static inline uint64_t *content_word(char *page, unsigned n)
{
	static const unsigned at[4] = { 0, 1016, 2056, 4088 };

	return (uint64_t *)(void *)(page + at[n]);
}

/* Mark pages as the mark's. A mark says whose memory it is, and never is 0. */
static inline void content_write(char *p, size_t pages, uint64_t mark)
{
	for (size_t i = 0; i < pages; i++)
		for (unsigned n = 0; n < 4; n++)
			*content_word(p + i * QY_PAGE, n) = mark + i;
}

static inline void content_check(char *p, size_t pages, uint64_t mark)
{
	for (size_t i = 0; i < pages; i++)
		for (unsigned n = 0; n < 4; n++)
			model_must(*content_word(p + i * QY_PAGE, n) == mark + i,
				   "page %zu of the block at %p has %#" PRIx64 ", not %#" PRIx64, i, (void *)p,
				   *content_word(p + i * QY_PAGE, n), mark + i);
}

static inline void content_check_zero(char *p, size_t pages)
{
	for (size_t i = 0; i < pages; i++)
		for (unsigned n = 0; n < 4; n++)
			model_must(*content_word(p + i * QY_PAGE, n) == 0,
				   "page %zu of the block at %p, said to be zero, has %#" PRIx64, i, (void *)p,
				   *content_word(p + i * QY_PAGE, n));
}

/* ---- books ---- */

#define BOOKS_FRAMES (4 * QY_ZONE_FRAMES)

/* What the headers say. */
struct books {
	uint32_t regions, frames, free_frames, runs_free[2], filled, filled_with[QY_FILLERS], dirty_entries;
	uint64_t dirty_pages, used_pages;
	bool dirty[BOOKS_FRAMES]; /* frames that must be in the dirty list */
};

static inline struct qy_region *region_of_frame(uint32_t f)
{
	return atomic_load_explicit(&qy_frame_at(f)->region, memory_order_relaxed);
}

/* Whether n is in the circular list that begins at head; ends in any case. */
static inline bool chain_has(const struct qy_chain *chain, uint32_t head, uint32_t n)
{
	uint32_t at = head, steps = 0;

	if (head == 0)
		return false;
	do {
		if (at == n)
			return true;
		model_must(++steps < BOOKS_FRAMES * QY_FRAME_PAGES, "a list without end");
		at = qy_chain_next(chain, at);
	} while (at != head);
	return false;
}

static inline uint32_t chain_length(const struct qy_chain *chain, uint32_t head)
{
	uint32_t n = 0, at = head;

	if (head == 0)
		return 0;
	do {
		uint32_t next = qy_chain_next(chain, at);

		model_must(qy_chain_links(chain, next)[1] == at, "the list leads back from %u to %u", next, at);
		model_must(++n < BOOKS_FRAMES * QY_FRAME_PAGES, "a list without end");
		at = next;
	} while (at != head);
	return n;
}

static inline struct qy_chain chain_of(char *side, size_t offset, unsigned shift)
{
	return (struct qy_chain){ side + offset, (size_t)1 << shift };
}

static inline void books_note_dirt(struct books *books, const struct qy_manager *m, uint32_t f, uint64_t pages)
{
	if (pages == 0)
		return;
	books->dirty_pages += pages;
	if (qy_region_pinned(region_of_frame(f)) || (m->placement->flags & QUARRY_ARENA_LOCKED))
		return;
	books->dirty[f] = true;
	books->dirty_entries++;
}

/* A frame that pages are carved from. */
static inline void books_read_frame(struct books *books, struct qy_manager *m, uint32_t f)
{
	struct qy_frame *frame = qy_frame_at(f);
	struct qy_chain pages = chain_of(qy_window.page_side, offsetof(struct qy_block, link), QY_PAGE_SIDE_SHIFT);
	struct qy_chain frames = chain_of(qy_window.frame_side, offsetof(struct qy_frame, list), QY_FRAME_SIDE_SHIFT);
	struct qy_filler *filler = &m->fillers[frame->filler - 1];
	uint32_t used = 0, dirty = 0, longest = 0, free_blocks = 0;
	qy_page first = f * QY_FRAME_PAGES, bad = 0;

	model_must(frame->filler <= QY_FILLERS, "frame %u", f);
	model_must(qy_block_check(&qy_page_map, first, QY_FRAME_PAGES, &bad) > 0, "page %u is wrong", bad);
	for (qy_page b = first; b < first + QY_FRAME_PAGES; b += qy_block_length(&qy_page_map, b)) {
		uint32_t length = qy_block_length(&qy_page_map, b);

		if (frame->filler == QY_FILL_SLABS + 1)
			model_must(b % (QY_UNIT / QY_PAGE) == 0, "page block %u stands where a slab can", b);
		if (qy_block_used(&qy_page_map, b)) {
			used += length;
			model_must(qy_block_tag(&qy_page_map, b) != QY_USE_FREE, "page block %u", b);
			continue;
		}
		model_must(!qy_block_joins_next(&qy_page_map, b), "page block %u was not coalesced", b);
		model_must(chain_has(&pages, frame->free, b), "page block %u is listed", b);
		longest = length > longest ? length : longest;
		dirty += qy_block_clean(&qy_page_map, b) ? 0 : length;
		free_blocks++;
	}
	model_must(chain_length(&pages, frame->free) == free_blocks, "frame %u has %u free blocks", f, free_blocks);
	model_must(frame->used == used, "frame %u: %u pages in use, not %u", f, used, frame->used);
	model_must(frame->dirty == dirty, "frame %u: %u pages dirty, not %u", f, dirty, frame->dirty);
	model_must(frame->longest == longest, "frame %u: at most %u pages, not %u", f, longest, frame->longest);
	model_must(frame->bucket == qy_bin_of(longest), "frame %u: bucket %u", f, frame->bucket);
	model_must(chain_has(&frames, filler->bucket[frame->bucket], f), "frame %u is in its bucket", f);
	if (used == 0)
		model_must(filler->empty == f, "frame %u is empty and not the one that is kept", f);
	books_note_dirt(books, m, f, dirty);
	books->filled++;
	books->filled_with[frame->filler - 1]++;
	books->used_pages += used;
}

static inline void books_read_run(struct books *books, struct qy_manager *m, uint32_t run)
{
	struct qy_chain runs = chain_of(qy_window.frame_side, offsetof(struct qy_frame, run.link), QY_FRAME_SIDE_SHIFT);
	uint32_t length = qy_block_length(&qy_run_map, run);
	bool clean = qy_block_clean(&qy_run_map, run);

	if (qy_block_used(&qy_run_map, run)) {
		if (qy_frame_at(run)->filler != 0) {
			model_must(length == 1, "run %u: a filler has one frame at a time", run);
			books_read_frame(books, m, run);
		} else {
			books->used_pages += (uint64_t)length * QY_FRAME_PAGES;
		}
		return;
	}
	model_must(qy_frame_at(run)->filler == 0, "run %u", run);
	model_must(!qy_block_joins_next(&qy_run_map, run), "run %u was not coalesced", run);
	model_must(chain_has(&runs, m->runs[clean].bucket[qy_bin_of(length)], run), "run %u is in its bucket", run);
	model_must(atomic_load(&qy_frame_at(run)->bytes) == 0, "run %u is nobody's", run);
	books->runs_free[clean]++;
	books->free_frames += length;
	books_note_dirt(books, m, run, clean ? 0 : (uint64_t)length * QY_FRAME_PAGES);
}

static inline void books_read_region(struct books *books, struct qy_manager *m, struct qy_region *r)
{
	uint32_t first = (uint32_t)qy_region_frame(r);
	qy_page bad = 0;

	model_must(first + r->frames <= BOOKS_FRAMES, "the test's books are too small");
	model_must(r->owner == m && r->frames > 0, "region at frame %u", first);
	model_must(r->prev == NULL ? m->regions == r : r->prev->next == r, "region at frame %u", first);
	model_must(qy_block_check(&qy_run_map, first, r->frames, &bad) > 0, "frame %u is wrong", bad);
	for (uint32_t f = first; f < first + r->frames; f++)
		model_must(region_of_frame(f) == r, "frame %u is of its region", f);
	for (uint32_t f = first; f < first + r->frames; f += qy_block_length(&qy_run_map, f))
		books_read_run(books, m, f);
	books->regions++;
	books->frames += r->frames;
}

static inline void books_compare_buckets(const struct books *books, const struct qy_manager *m)
{
	struct qy_chain runs = chain_of(qy_window.frame_side, offsetof(struct qy_frame, run.link), QY_FRAME_SIDE_SHIFT);
	struct qy_chain frames = chain_of(qy_window.frame_side, offsetof(struct qy_frame, list), QY_FRAME_SIDE_SHIFT);

	for (int clean = 0; clean < 2; clean++) {
		uint32_t n = 0;

		for (unsigned b = 0; b < QY_RUN_BUCKETS; b++) {
			n += chain_length(&runs, m->runs[clean].bucket[b]);
			model_must((m->runs[clean].bits[b / 64] >> (b % 64) & 1) == (m->runs[clean].bucket[b] != 0),
				   "the bit of bucket %u", b);
		}
		model_must(n == books->runs_free[clean], "%u free runs are listed, and there are %u", n,
			   books->runs_free[clean]);
	}
	for (int kind = 0; kind < QY_FILLERS; kind++) {
		const struct qy_filler *filler = &m->fillers[kind];
		uint32_t n = 0;

		for (unsigned b = 0; b < QY_FILL_BUCKETS; b++) {
			n += chain_length(&frames, filler->bucket[b]);
			model_must((filler->bits[b / 64] >> (b % 64) & 1) == (filler->bucket[b] != 0),
				   "the bit of bucket %u", b);
		}
		model_must(n == books->filled_with[kind], "%u frames are listed, and there are %u", n,
			   books->filled_with[kind]);
		if (filler->empty != 0)
			model_must(qy_frame_at(filler->empty)->filler == kind + 1 &&
					   qy_frame_at(filler->empty)->used == 0, "frame %u is empty", filler->empty);
	}
}

/* The dirty lists: all that is dirty and can be given back, that which was left alone longest first. */
static inline void books_compare_dirt(const struct books *books, const struct qy_manager *m)
{
	struct qy_chain dirt = qy_dirt_chain();
	uint32_t entries = 0;

	for (unsigned list = 0; list < QY_DIRT_LISTS; list++) {
		uint32_t f = m->dirty[list], before = 0, length = chain_length(&dirt, f);

		for (uint32_t n = 0; n < length; n++, f = qy_chain_next(&dirt, f)) {
			model_must(books->dirty[f], "frame %u is not dirty", f);
			model_must((qy_frame_at(f)->filler != 0) == (list == QY_DIRT_PARTS), "frame %u", f);
			model_must(n == 0 || qy_frame_at(f)->stamp - before < UINT32_MAX / 2, "frame %u is older", f);
			before = qy_frame_at(f)->stamp;
		}
		entries += length;
	}
	model_must(entries == books->dirty_entries, "%u entries are dirty, not %u", books->dirty_entries, entries);
}

/* Make the books anew and compare them with the manager's. */
static inline void books_compare(struct qy_manager *m, struct books *books)
{
	memset(books, 0, sizeof(*books));
	for (struct qy_region *r = m->regions; r != NULL; r = r->next)
		books_read_region(books, m, r);
	books_compare_buckets(books, m);
	books_compare_dirt(books, m);
	model_must(qy_read(&m->dirty_pages) == books->dirty_pages, "%" PRIu64 " pages are dirty, not %" PRIu64,
		   books->dirty_pages, qy_read(&m->dirty_pages));
}

/* ---- a manager to try ---- */

static inline struct qy_manager *new_manager(uint32_t flags)
{
	static struct qy_placement placement;
	struct qy_manager *m;

	placement.flags = flags;
	m = qy_manager_create(&placement, QUARRY_PAGES_BASE, "test");
	model_must(m != NULL, "errno");
	return m;
}

static inline bool add_frames(struct qy_manager *m, uint32_t frames)
{
	return qy_manager_more(m, frames, 1);
}

static inline char *page_address(qy_page b)
{
	return qy_window_at((uintptr_t)b << QY_PAGE_SHIFT);
}

static inline char *frame_address(uint32_t f)
{
	return qy_window_at((uintptr_t)f << QY_FRAME_SHIFT);
}

/* As the kernel does when memory is given back to it. */
static inline void purge_now(char *p, size_t pages)
{
	model_must(qy_os->madvise(p, pages * QY_PAGE, 4 /* MADV_DONTNEED */) == 0, "the kernel gives back");
}

/* How many pages of a range are in memory. */
static inline size_t resident_pages(char *p, size_t pages)
{
	unsigned char in[QY_FRAME_PAGES];
	size_t n = 0;

	for (size_t at = 0; at < pages; at += QY_FRAME_PAGES) {
		size_t part = pages - at < QY_FRAME_PAGES ? pages - at : QY_FRAME_PAGES;

		model_must(qy_os->mincore(p + at * QY_PAGE, part * QY_PAGE, in) == 0, "mincore");
		for (size_t i = 0; i < part; i++)
			n += in[i] & 1;
	}
	return n;
}

#endif
