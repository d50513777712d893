/* SPDX-License-Identifier: MIT */
/* The lower level: pages in frames. A filler keeps its frames in buckets by their longest free run of pages; a request
 * goes to the frame with the smallest longest run that is enough, which tends to be the fullest, so that frames that
 * are emptying are left to empty (as in "Beyond malloc efficiency to fleet efficiency", OSDI 2021). Inside a frame it
 * is best fit, dirty blocks before clean ones. The manager's lock is held throughout. */
#include "lib/manager/bins.h"
#include "lib/manager/dirt.h"
#include "lib/manager/manager.h"

static struct qy_chain frame_chain(void)
{
	return (struct qy_chain){ qy_window.frame_side + offsetof(struct qy_frame, list),
				  (size_t)1 << QY_FRAME_SIDE_SHIFT };
}

static struct qy_chain page_chain(void)
{
	return (struct qy_chain){ qy_window.page_side + offsetof(struct qy_block, link),
				  (size_t)1 << QY_PAGE_SIDE_SHIFT };
}

static uint32_t frame_of(qy_page b)
{
	return b / QY_FRAME_PAGES;
}

static void unlist_frame(struct qy_filler *filler, uint32_t f)
{
	struct qy_frame *frame = qy_frame_at(f);
	struct qy_chain chain = frame_chain();

	qy_chain_remove(&chain, &filler->bucket[frame->bucket], f);
	qy_bin_mark(filler->bits, frame->bucket, filler->bucket[frame->bucket] != 0);
}

/* In its bucket, a frame that is mostly full comes before those that are not. */
static void list_frame(struct qy_filler *filler, uint32_t f)
{
	struct qy_frame *frame = qy_frame_at(f);
	struct qy_chain chain = frame_chain();

	frame->bucket = (uint8_t)qy_bin_of(frame->longest);
	if (frame->used > QY_FRAME_PAGES / 2)
		qy_chain_push_front(&chain, &filler->bucket[frame->bucket], f);
	else
		qy_chain_push_back(&chain, &filler->bucket[frame->bucket], f);
	qy_bin_mark(filler->bits, frame->bucket, true);
}

static void measure_longest(uint32_t f)
{
	struct qy_frame *frame = qy_frame_at(f);
	struct qy_chain chain = page_chain();
	uint32_t longest = 0, b = frame->free;

	if (b != 0) {
		do {
			longest = (uint32_t)qy_max(longest, qy_block_length(&qy_page_map, b));
			b = qy_chain_next(&chain, b);
		} while (b != frame->free);
	}
	frame->longest = (uint16_t)longest;
}

/* After a change of the frame's free blocks: find its place again. */
static void relist_frame(struct qy_manager *m, uint32_t f)
{
	struct qy_frame *frame = qy_frame_at(f);
	struct qy_filler *filler = &m->fillers[frame->filler - 1];

	unlist_frame(filler, f);
	measure_longest(f);
	list_frame(filler, f);
}

static void add_free(uint32_t f, qy_page b)
{
	struct qy_chain chain = page_chain();

	qy_chain_push_front(&chain, &qy_frame_at(f)->free, b);
}

static void remove_free(void *frame, qy_page b)
{
	struct qy_chain chain = page_chain();

	qy_chain_remove(&chain, &((struct qy_frame *)frame)->free, b);
}

static void book_dirt(struct qy_manager *m, uint32_t f, uint32_t pages, bool add)
{
	struct qy_frame *frame = qy_frame_at(f);

	if (add) {
		frame->dirty = (uint16_t)(frame->dirty + pages);
		qy_dirt_note(m);
		qy_count(&m->dirty_pages, pages);
		qy_dirt_add(m, f);
	} else {
		frame->dirty = (uint16_t)(frame->dirty - pages);
		qy_uncount(&m->dirty_pages, pages);
		if (frame->dirty == 0)
			qy_dirt_remove(m, f);
	}
}

/* A new frame for a filler, from the runs. */
static uint32_t open_frame(struct qy_manager *m, enum qy_filler_kind kind)
{
	bool clean;
	uint32_t f = qy_runs_get(m, 1, 1, &clean);
	struct qy_frame *frame = qy_frame_at(f);

	if (f == 0)
		return 0;
	qy_block_format(&qy_page_map, f * QY_FRAME_PAGES, QY_FRAME_PAGES, clean);
	frame->used = 0;
	frame->dirty = 0;
	frame->free = 0;
	qy_publish(frame->filler, (uint8_t)(kind + 1));
	add_free(f, f * QY_FRAME_PAGES);
	if (!clean)
		book_dirt(m, f, QY_FRAME_PAGES, true);
	measure_longest(f);
	list_frame(&m->fillers[kind], f);
	return f;
}

/* A frame with nothing in it goes back to the runs: clean when all of it is, else dirty. */
static void close_frame(struct qy_manager *m, uint32_t f)
{
	struct qy_frame *frame = qy_frame_at(f);
	qy_page first = f * QY_FRAME_PAGES;
	bool clean = frame->dirty == 0;

	unlist_frame(&m->fillers[frame->filler - 1], f);
	if (m->fillers[frame->filler - 1].empty == f)
		m->fillers[frame->filler - 1].empty = 0;
	if (!clean)
		book_dirt(m, f, frame->dirty, false);
	while (!qy_block_last(&qy_page_map, first))
		qy_block_absorb_next(&qy_page_map, first);
	qy_block_erase(&qy_page_map, first);
	frame->free = 0;
	qy_publish(frame->filler, 0);
	qy_runs_put(m, f, clean);
}

/* One empty frame per filler is kept open, so that what goes up and down by a block does not open and close one. */
static void keep_empty(struct qy_manager *m, struct qy_filler *filler, uint32_t f)
{
	uint32_t kept = filler->empty;

	filler->empty = f;
	if (kept != 0)
		close_frame(m, kept);
}

bool qy_filler_close_empty(struct qy_manager *m)
{
	bool closed = false;

	for (int kind = 0; kind < QY_FILLERS; kind++) {
		closed = closed || m->fillers[kind].empty != 0;
		keep_empty(m, &m->fillers[kind], 0);
	}
	return closed;
}

static uint32_t skip_for(qy_page b, uint32_t align)
{
	return (uint32_t)qy_align_up(b, align) - b;
}

/* Best fit among the frame's free blocks; 0 when none is long enough with the alignment. */
static qy_page fit_in_frame(uint32_t f, uint32_t pages, uint32_t align)
{
	struct qy_frame *frame = qy_frame_at(f);
	struct qy_chain chain = page_chain();
	uint32_t best_cost = UINT32_MAX;
	qy_page b = frame->free, best = 0;

	do {
		uint32_t length = qy_block_length(&qy_page_map, b);
		uint32_t cost = length + (qy_block_clean(&qy_page_map, b) ? 2 * QY_FRAME_PAGES : 0);

		if (cost < best_cost && skip_for(b, align) + pages <= length) {
			best_cost = cost;
			best = b;
		}
		b = qy_chain_next(&chain, b);
	} while (b != frame->free);
	return best;
}

static qy_page find_pages(const struct qy_filler *filler, uint32_t pages, uint32_t align)
{
	struct qy_chain chain = frame_chain();
	unsigned sure = qy_bin_above(pages + align - 1);
	int bin = (int)qy_bin_of(pages) - 1;

	while ((bin = qy_bin_next(filler->bits, 2, (unsigned)bin + 1)) >= 0) {
		uint32_t first = filler->bucket[bin], f = first;
		int tries = (unsigned)bin >= sure ? 1 : 4;

		do {
			qy_page b = fit_in_frame(f, pages, align);

			if (b != 0)
				return b;
			f = qy_chain_next(&chain, f);
		} while (--tries > 0 && f != first);
	}
	return 0;
}

bool qy_filler_has_dirty(struct qy_manager *m, enum qy_filler_kind kind, uint32_t pages, uint32_t align)
{
	qy_page b = find_pages(&m->fillers[kind], pages, align);

	return b != 0 ? !qy_block_clean(&qy_page_map, b) : qy_runs_has_dirty(m);
}

/* Slab frames hold multiples of 64 KiB only, so everything in them is aligned to that. */
qy_page qy_filler_get(struct qy_manager *m, enum qy_filler_kind kind, uint32_t pages, uint32_t align, unsigned use,
		      bool *zero)
{
	struct qy_filler *filler = &m->fillers[kind];
	qy_page b = find_pages(filler, pages, align);
	struct qy_frame *frame;
	uint32_t f, skip;

	if (b == 0) {
		f = open_frame(m, kind);
		if (f == 0)
			return 0;
		b = fit_in_frame(f, pages, align);
	}
	f = frame_of(b);
	frame = qy_frame_at(f);
	*zero = qy_block_clean(&qy_page_map, b);
	remove_free(frame, b);
	skip = skip_for(b, align);
	if (skip > 0) {
		qy_page rest = qy_block_split(&qy_page_map, b, skip);

		add_free(f, b);
		b = rest;
	}
	if (qy_block_length(&qy_page_map, b) > pages)
		add_free(f, qy_block_split(&qy_page_map, b, pages));
	qy_block_set_used(&qy_page_map, b, true);
	qy_block_set_tag(&qy_page_map, b, use);
	frame->used = (uint16_t)(frame->used + pages);
	if (!*zero)
		book_dirt(m, f, pages, false);
	relist_frame(m, f);
	if (filler->empty == f)
		filler->empty = 0;
	return b;
}

void qy_filler_take(struct qy_manager *m, qy_page b, unsigned use)
{
	uint32_t f = frame_of(b), pages = qy_block_length(&qy_page_map, b);
	struct qy_frame *frame = qy_frame_at(f);

	remove_free(frame, b);
	if (!qy_block_clean(&qy_page_map, b))
		book_dirt(m, f, pages, false);
	qy_block_set_used(&qy_page_map, b, true);
	qy_block_set_tag(&qy_page_map, b, use);
	frame->used = (uint16_t)(frame->used + pages);
	if (m->fillers[frame->filler - 1].empty == f)
		m->fillers[frame->filler - 1].empty = 0;
	relist_frame(m, f);
}

void qy_filler_put(struct qy_manager *m, qy_page b, bool clean)
{
	uint32_t f = frame_of(b), pages = qy_block_length(&qy_page_map, b);
	struct qy_frame *frame = qy_frame_at(f);

	qy_block_set_used(&qy_page_map, b, false);
	qy_block_set_clean(&qy_page_map, b, clean);
	qy_block_set_tag(&qy_page_map, b, QY_USE_FREE);
	frame->used = (uint16_t)(frame->used - pages);
	if (!clean)
		book_dirt(m, f, pages, true);
	b = qy_block_coalesce(&qy_page_map, b, remove_free, frame);
	add_free(f, b);
	relist_frame(m, f);
	if (frame->used != 0)
		return;
	/* Once all of it is clean there is nothing to be gained by keeping it. */
	if (frame->dirty == 0)
		close_frame(m, f);
	else
		keep_empty(m, &m->fillers[frame->filler - 1], f);
}

bool qy_filler_grow(struct qy_manager *m, qy_page b, uint32_t pages)
{
	uint32_t f = frame_of(b), more = pages - qy_block_length(&qy_page_map, b);
	struct qy_frame *frame = qy_frame_at(f);
	qy_page next;
	bool clean;

	if (qy_block_last(&qy_page_map, b))
		return false;
	next = qy_block_next(&qy_page_map, b);
	if (qy_block_used(&qy_page_map, next) || qy_block_length(&qy_page_map, next) < more)
		return false;
	clean = qy_block_clean(&qy_page_map, next);
	remove_free(frame, next);
	if (qy_block_length(&qy_page_map, next) > more)
		add_free(f, qy_block_split(&qy_page_map, next, more));
	qy_block_absorb_next(&qy_page_map, b);
	frame->used = (uint16_t)(frame->used + more);
	if (!clean)
		book_dirt(m, f, more, false);
	relist_frame(m, f);
	return true;
}

void qy_filler_shrink(struct qy_manager *m, qy_page b, uint32_t pages)
{
	qy_page rest = qy_block_split(&qy_page_map, b, pages);

	qy_filler_put(m, rest, false);
}
