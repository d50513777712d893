/* SPDX-License-Identifier: MIT */
/* The upper level: runs of frames in regions. Free runs stand in buckets by length, dirty ones and clean ones apart;
 * dirty ones also in the manager's dirty list, by their first frame. The manager's lock is held throughout. */
#include <string.h>

#include "lib/manager/bins.h"
#include "lib/manager/dirt.h"
#include "lib/manager/manager.h"

static struct qy_chain run_chain(void)
{
	/* A free run's links are those of its header. */
	return (struct qy_chain){ qy_window.frame_side + offsetof(struct qy_frame, run.link),
				  (size_t)1 << QY_FRAME_SIDE_SHIFT };
}

static void list_run(struct qy_manager *m, uint32_t run)
{
	struct qy_runs *runs = &m->runs[qy_block_clean(&qy_run_map, run)];
	struct qy_chain chain = run_chain();
	unsigned bin = qy_bin_of(qy_block_length(&qy_run_map, run));

	qy_chain_push_front(&chain, &runs->bucket[bin], run);
	qy_bin_mark(runs->bits, bin, true);
}

static void unlist_run(void *manager, qy_page run)
{
	struct qy_manager *m = manager;
	struct qy_runs *runs = &m->runs[qy_block_clean(&qy_run_map, run)];
	struct qy_chain chain = run_chain();
	unsigned bin = qy_bin_of(qy_block_length(&qy_run_map, run));

	qy_chain_remove(&chain, &runs->bucket[bin], run);
	qy_bin_mark(runs->bits, bin, runs->bucket[bin] != 0);
	qy_dirt_remove(m, run);
}

static void book_dirt(struct qy_manager *m, uint32_t frames, bool add)
{
	uint64_t pages = (uint64_t)frames * QY_FRAME_PAGES;

	if (add) {
		qy_dirt_note(m);
		qy_count(&m->dirty_pages, pages);
	} else {
		qy_uncount(&m->dirty_pages, pages);
	}
}

void qy_frame_clear(uint32_t f)
{
	struct qy_frame *frame = qy_frame_at(f);

	memset((void *)frame, 0, offsetof(struct qy_frame, filler));
	qy_publish(frame->filler, 0);
	atomic_store_explicit(&frame->region, NULL, memory_order_relaxed);
	atomic_store_explicit(&frame->bytes, 0, memory_order_relaxed);
}

void qy_runs_add_region(struct qy_manager *m, struct qy_region *r)
{
	uint32_t first = (uint32_t)qy_region_frame(r);

	for (uint32_t f = first; f < first + r->frames; f++)
		atomic_store_explicit(&qy_frame_at(f)->region, r, memory_order_relaxed);
	r->prev = NULL;
	r->next = m->regions;
	if (m->regions != NULL)
		m->regions->prev = r;
	m->regions = r;
	qy_block_format(&qy_run_map, first, r->frames, true);
	list_run(m, first);
}

uint32_t qy_manager_next_region(struct qy_manager *m, uint32_t frame)
{
	uint32_t next = 0;

	qy_lock(&m->lock);
	for (struct qy_region *r = m->regions; r != NULL; r = r->next) {
		uint32_t first = (uint32_t)qy_region_frame(r);

		if (first >= frame && (next == 0 || first < next))
			next = first;
	}
	qy_unlock(&m->lock);
	return next;
}

void qy_runs_drop_region(struct qy_manager *m, uint32_t run)
{
	struct qy_region *r = qy_region_of_frame(qy_frame_at(run));

	if (!qy_block_clean(&qy_run_map, run))
		book_dirt(m, r->frames, false);
	unlist_run(m, run);
	qy_block_erase(&qy_run_map, run);
	if (r->prev != NULL)
		r->prev->next = r->next;
	else
		m->regions = r->next;
	if (r->next != NULL)
		r->next->prev = r->prev;
	/* The region's own record is in the first frame's second half and is cleared by qy_region_destroy. */
	for (uint32_t f = run; f < run + r->frames; f++)
		qy_frame_clear(f);
}

/* How many frames of b must be skipped for alignment; -1 when what is then left is too short. */
static long skip_for(qy_page b, uint32_t length, uint32_t frames, uint32_t align)
{
	uintptr_t addr = (uintptr_t)qy_window_at((uintptr_t)b << QY_FRAME_SHIFT) >> QY_FRAME_SHIFT;
	uint32_t skip = (uint32_t)(qy_align_up(addr, align) - addr);

	return skip + frames <= length ? (long)skip : -1;
}

/* Best fit by bucket; in the bucket that may hold too short ones, the first few are tried. */
static uint32_t find_run(const struct qy_runs *runs, uint32_t frames, uint32_t align)
{
	struct qy_chain chain = run_chain();
	unsigned sure = qy_bin_above(frames + align - 1);
	int bin = (int)qy_bin_of(frames) - 1;

	while ((bin = qy_bin_next(runs->bits, 4, (unsigned)bin + 1)) >= 0) {
		uint32_t first = runs->bucket[bin], run = first;
		int tries = (unsigned)bin >= sure ? 1 : 8;

		do {
			if (skip_for(run, qy_block_length(&qy_run_map, run), frames, align) >= 0)
				return run;
			run = qy_chain_next(&chain, run);
		} while (--tries > 0 && run != first);
	}
	return 0;
}

bool qy_runs_has_dirty(struct qy_manager *m)
{
	return find_run(&m->runs[false], 1, 1) != 0;
}

/* Take frames out of a free run that has them; what is before and behind them stays free. */
static uint32_t carve(struct qy_manager *m, uint32_t run, uint32_t frames, uint32_t align, bool *zero)
{
	bool clean = qy_block_clean(&qy_run_map, run);
	uint32_t skip;

	*zero = clean;
	qy_region_of_frame(qy_frame_at(run))->fresh = false;
	unlist_run(m, run);
	skip = (uint32_t)skip_for(run, qy_block_length(&qy_run_map, run), frames, align);
	if (skip > 0) {
		uint32_t rest = qy_block_split(&qy_run_map, run, skip);

		list_run(m, run);
		if (!clean)
			qy_dirt_add(m, run);
		run = rest;
	}
	if (qy_block_length(&qy_run_map, run) > frames) {
		uint32_t rest = qy_block_split(&qy_run_map, run, frames);

		list_run(m, rest);
		if (!clean)
			qy_dirt_add(m, rest);
	}
	if (!clean)
		book_dirt(m, frames, false);
	qy_block_set_used(&qy_run_map, run, true);
	return run;
}

uint32_t qy_runs_get(struct qy_manager *m, uint32_t frames, uint32_t align, bool *zero)
{
	uint32_t run = find_run(&m->runs[false], frames, align);

	if (run == 0)
		run = find_run(&m->runs[true], frames, align);
	return run == 0 ? 0 : carve(m, run, frames, align, zero);
}

uint32_t qy_runs_get_roomy(struct qy_manager *m, uint32_t frames, uint32_t room)
{
	uint32_t run = find_run(&m->runs[true], frames + room, 1);
	bool zero;

	return run == 0 ? 0 : carve(m, run, frames, 1, &zero);
}

bool qy_runs_take(struct qy_manager *m, uint32_t run, bool *zero)
{
	if (qy_block_used(&qy_run_map, run))
		return false;
	*zero = qy_block_clean(&qy_run_map, run);
	unlist_run(m, run);
	if (!*zero)
		book_dirt(m, qy_block_length(&qy_run_map, run), false);
	qy_block_set_used(&qy_run_map, run, true);
	return true;
}

void qy_runs_put(struct qy_manager *m, uint32_t run, bool clean)
{
	uint32_t frames = qy_block_length(&qy_run_map, run);

	qy_assert(qy_block_used(&qy_run_map, run));
	qy_block_set_used(&qy_run_map, run, false);
	qy_block_set_clean(&qy_run_map, run, clean);
	qy_block_set_tag(&qy_run_map, run, QY_USE_FREE);
	atomic_store_explicit(&qy_frame_at(run)->bytes, 0, memory_order_relaxed);
	if (!clean)
		book_dirt(m, frames, true);
	run = qy_block_coalesce(&qy_run_map, run, unlist_run, m);
	list_run(m, run);
	if (!clean)
		qy_dirt_add(m, run);
}

/* Make the used run longer by what is free behind it. */
bool qy_runs_grow(struct qy_manager *m, uint32_t run, uint32_t frames)
{
	uint32_t have = qy_block_length(&qy_run_map, run), next, more = frames - have;
	bool clean;

	if (qy_block_last(&qy_run_map, run))
		return false;
	next = qy_block_next(&qy_run_map, run);
	if (qy_block_used(&qy_run_map, next) || qy_block_length(&qy_run_map, next) < more)
		return false;
	clean = qy_block_clean(&qy_run_map, next);
	unlist_run(m, next);
	if (qy_block_length(&qy_run_map, next) > more) {
		uint32_t rest = qy_block_split(&qy_run_map, next, more);

		list_run(m, rest);
		if (!clean)
			qy_dirt_add(m, rest);
	}
	if (!clean)
		book_dirt(m, more, false);
	qy_block_absorb_next(&qy_run_map, run);
	return true;
}
