/* SPDX-License-Identifier: MIT */
/* Blocks for the program: runs of pages above the largest class and up to a frame, and runs of frames above that. */
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "lib/base/settings.h"
#include "lib/manager/budget.h"
#include "lib/manager/dirt.h"
#include "lib/manager/manager.h"
#include "lib/manager/mixed.h"
#include "lib/manager/snapshot.h"
#include "numa/os.h"
#include "lib/base/refused.h"

#define SIZE_LIMIT ((size_t)(QY_BLOCK_LENGTH_MAX / 2) << QY_FRAME_SHIFT) /* what a run's length can tell */

static uint32_t to_pages(size_t size)
{
	return (uint32_t)(qy_align_up(size, QY_PAGE) >> QY_PAGE_SHIFT);
}

static uint32_t to_frames(size_t size)
{
	return (uint32_t)(qy_align_up(size, QY_FRAME) >> QY_FRAME_SHIFT);
}

/* What is added was allowed before. */
static void book(struct qy_manager *m, size_t bytes, bool add)
{
	if (add) {
		qy_count(&m->used, bytes);
		qy_count(&m->large, bytes);
	} else {
		qy_uncount(&m->used, bytes);
		qy_uncount(&m->large, bytes);
		qy_manager_unclaim(m, bytes);
	}
}

struct request {
	size_t size, align;
	uint32_t room;  /* frames that are to be free behind it, of a block made of frames and aligned to no more than a
	                 * page, if that can be had */
	size_t charged; /* bytes that need not be: another block's, which goes when this one is had */
	bool moves;     /* that block's pages come here, and take no more memory */
};

static size_t bytes_of(const struct request *want)
{
	return qy_align_up(want->size, QY_PAGE);
}

/* And of them, those that are not in memory yet. */
static size_t touched_of(const struct request *want)
{
	return bytes_of(want) - (want->moves ? want->charged : 0);
}

/* A block made of pages. *short_of: the control group allows no more. The lock is held. */
static void *get_pages(struct qy_manager *m, const struct request *want, bool *zero, bool *short_of)
{
	qy_page b = qy_filler_get(m, QY_FILL_LARGE, to_pages(want->size),
				  (uint32_t)qy_max(want->align >> QY_PAGE_SHIFT, 1), QY_USE_LARGE, zero);

	if (b == 0)
		return NULL;
	if (*zero && !qy_budget_take(bytes_of(want))) {
		qy_filler_put(m, b, true);
		*short_of = true;
		return NULL;
	}
	book(m, bytes_of(want) - want->charged, true);
	qy_snap_born(qy_window_at((uintptr_t)b << QY_PAGE_SHIFT));
	return qy_window_at((uintptr_t)b << QY_PAGE_SHIFT);
}

/* A block made of frames. The lock is held. */
static void *get_frames(struct qy_manager *m, const struct request *want, bool *zero, bool *short_of)
{
	uint32_t frames = to_frames(want->size);
	uint32_t run = want->room == 0
			       ? qy_runs_get(m, frames, (uint32_t)qy_max(want->align >> QY_FRAME_SHIFT, 1), zero)
			       : qy_runs_get_roomy(m, frames, want->room);
	size_t bytes = bytes_of(want), touched = touched_of(want);

	if (run == 0)
		return NULL;
	*zero = want->room != 0 || *zero;
	/* Of what is said to be dirty, the slack behind earlier blocks may not be in memory. */
	if (!qy_budget_take(*zero ? touched : qy_min(touched, QY_FRAME))) {
		qy_runs_put(m, run, *zero);
		*short_of = true;
		return NULL;
	}
	qy_block_set_tag(&qy_run_map, run, QY_USE_LARGE);
	atomic_store_explicit(&qy_frame_at(run)->bytes, bytes, memory_order_relaxed);
	book(m, bytes - want->charged, true);
	qy_snap_born(qy_window_at((uintptr_t)run << QY_FRAME_SHIFT));
	return qy_window_at((uintptr_t)run << QY_FRAME_SHIFT);
}

static void *alloc_block(struct qy_manager *m, struct request want, bool *zero)
{
	bool small = want.size + want.align - QY_PAGE <= QY_FRAME;
	uint32_t frames = small ? 1 : to_frames(want.size);
	uint32_t align_frames = small ? 1 : (uint32_t)qy_max(want.align >> QY_FRAME_SHIFT, 1);
	size_t more = bytes_of(&want) - want.charged;

	for (int tries = 0; tries < 4; tries++) {
		bool allowed, short_of = false;
		void *p = NULL;

		qy_lock(&m->lock);
		allowed = qy_manager_allows(m, more);
		if (allowed)
			p = small ? get_pages(m, &want, zero, &short_of) : get_frames(m, &want, zero, &short_of);
		if (allowed && p == NULL)
			qy_manager_unclaim(m, more);
		qy_unlock(&m->lock);
		if (p != NULL && !small && *zero)
			qy_huge_born(m, p, bytes_of(&want));
		if (p != NULL)
			return p;
		if (short_of && tries < 3 && qy_budget_refresh(touched_of(&want)))
			continue;
		if (short_of)
			qy_refuse(QUARRY_REFUSED_CGROUP);
		if (!allowed || short_of)
			break;
		/* What has room is asked for once. */
		if (want.room > 0 && (tries > 0 || !qy_manager_more(m, frames + want.room, 1)))
			want.room = 0;
		else if (want.room == 0 && !qy_manager_more(m, frames, align_frames))
			break;
	}
	errno = ENOMEM;
	return NULL;
}

void *qy_large_alloc(struct qy_manager *m, size_t size, size_t align, bool *zero)
{
	if (size > SIZE_LIMIT || align > (size_t)1 << 40) {
		errno = ENOMEM;
		return NULL;
	}
	return alloc_block(m, (struct request){ .size = size == 0 ? 1 : size, .align = align }, zero);
}

/* What p is, by what is constant while it lives: QY_PAGE or QY_FRAME for a block made of those, 0 for none. */
static size_t grain_of(const void *p)
{
	uintptr_t offset = qy_window_offset(p);
	uint32_t f = (uint32_t)(offset >> QY_FRAME_SHIFT);
	const struct qy_frame *frame;

	if (offset >= qy_window_claimed() || (offset & (QY_PAGE - 1)) != 0)
		return 0;
	frame = qy_frame_at(f);
	if (qy_region_of_frame(frame) == NULL)
		return 0;
	if (frame->filler == QY_FILL_LARGE + 1) {
		qy_page b = (qy_page)(offset >> QY_PAGE_SHIFT);

		return qy_block_is(&qy_page_map, b) && qy_block_used(&qy_page_map, b) ? QY_PAGE : 0;
	}
	return frame->filler == 0 && (offset & (QY_FRAME - 1)) == 0 &&
			       atomic_load_explicit(&frame->bytes, memory_order_relaxed) != 0
		       ? QY_FRAME
		       : 0;
}

static qy_page page_of(const void *p)
{
	return (qy_page)(qy_window_offset(p) >> QY_PAGE_SHIFT);
}

static uint32_t run_of(const void *p)
{
	return (uint32_t)(qy_window_offset(p) >> QY_FRAME_SHIFT);
}

bool qy_large_is(const void *p)
{
	return grain_of(p) != 0;
}

size_t qy_large_size(const void *p)
{
	size_t grain = grain_of(p);

	if (grain == QY_PAGE)
		return (size_t)qy_block_length(&qy_page_map, page_of(p)) << QY_PAGE_SHIFT;
	return grain == 0 ? 0 : atomic_load_explicit(&qy_frame_at(run_of(p))->bytes, memory_order_relaxed);
}

bool qy_large_free(void *p)
{
	struct qy_manager *m = qy_manager_of(p);
	size_t grain;
	bool freed = true;

	if (m == NULL)
		return false;
	qy_lock(&m->lock);
	grain = grain_of(p);
	if (grain == QY_PAGE && qy_block_tag(&qy_page_map, page_of(p)) == QY_USE_LARGE) {
		qy_snap_large(p, qy_large_size(p));
		book(m, (size_t)qy_block_length(&qy_page_map, page_of(p)) << QY_PAGE_SHIFT, false);
		qy_filler_put(m, page_of(p), false);
	} else if (grain == QY_FRAME && qy_block_tag(&qy_run_map, run_of(p)) == QY_USE_LARGE) {
		qy_snap_large(p, qy_large_size(p));
		book(m, atomic_load_explicit(&qy_frame_at(run_of(p))->bytes, memory_order_relaxed), false);
		qy_runs_put(m, run_of(p), false);
	} else {
		freed = false;
	}
	qy_unlock(&m->lock);
	return freed;
}

/* The lock is held. */
static bool resize_pages(struct qy_manager *m, void *p, size_t size)
{
	uint32_t have = qy_block_length(&qy_page_map, page_of(p)), want;

	if (size > QY_FRAME)
		return false;
	want = to_pages(size);
	if (want > have) {
		size_t more = (size_t)(want - have) << QY_PAGE_SHIFT;

		if (!qy_manager_allows(m, more))
			return false;
		if (!qy_budget_take(more) || !qy_filler_grow(m, page_of(p), want)) {
			qy_manager_unclaim(m, more);
			return false;
		}
		book(m, more, true);
	} else if ((size_t)(have - want) << QY_PAGE_SHIFT >= QY_LARGE_SLACK) {
		qy_filler_shrink(m, page_of(p), want);
		book(m, (size_t)(have - want) << QY_PAGE_SHIFT, false);
	}
	return true;
}

/* The lock is held. */
static bool resize_frames(struct qy_manager *m, void *p, size_t size)
{
	uint32_t run = run_of(p), have = qy_block_length(&qy_run_map, run), want = to_frames(size);
	struct qy_frame *frame = qy_frame_at(run);
	size_t old = atomic_load_explicit(&frame->bytes, memory_order_relaxed), bytes = qy_align_up(size, QY_PAGE);

	if (bytes > old && !qy_manager_allows(m, bytes - old))
		return false;
	if (bytes > old && (!qy_budget_take(bytes - old) || (want > have && !qy_runs_grow(m, run, want)))) {
		qy_manager_unclaim(m, bytes - old);
		return false;
	}
	if (want < have) {
		uint32_t rest = qy_block_split(&qy_run_map, run, want);

		qy_runs_put(m, rest, false);
	}
	if (bytes > old)
		book(m, bytes - old, true);
	else
		book(m, old - bytes, false);
	atomic_store_explicit(&frame->bytes, bytes, memory_order_relaxed);
	return true;
}

static bool resize_in_place(struct qy_manager *m, void *p, size_t size, size_t grain)
{
	bool done;

	qy_lock(&m->lock);
	qy_snap_large(p, qy_large_size(p));
	done = grain == QY_PAGE ? resize_pages(m, p, size) : resize_frames(m, p, size);
	qy_unlock(&m->lock);
	return done;
}

bool qy_large_resize(void *p, size_t size)
{
	struct qy_manager *m = qy_manager_of(p);
	size_t grain = grain_of(p);

	/* A block of frames that became small is better moved than left holding a frame. */
	if (m == NULL || grain == 0 || size <= QY_CLASS_MAX || size > SIZE_LIMIT ||
	    (grain == QY_FRAME && size <= QY_FRAME / 2))
		return false;
	if (size > qy_large_size(p))
		qy_budget_prepare(size - qy_large_size(p) + QY_PAGE);
	return resize_in_place(m, p, size, grain);
}

void qy_large_cut(void *p, size_t size)
{
	struct qy_manager *m = qy_manager_of(p);
	size_t grain = grain_of(p);

	size = qy_max(size, QY_CLASS_MAX + 1);
	if (m != NULL && grain != 0 && size < qy_large_size(p))
		resize_in_place(m, p, size, grain);
}

/* What grew once is likely to grow again: as much again, if that costs nothing. */
static uint32_t room_behind(struct qy_manager *m, size_t size)
{
	const struct qy_placement *placement = qy_peek(m->placement);

	if ((qy_peek(placement->flags) & (QUARRY_ARENA_STRICT | QUARRY_ARENA_POPULATE)) || qy_huge_from_pools(m))
		return 0;
	return (uint32_t)qy_min(to_frames(size), qy_region_spare(placement, to_frames(size)));
}

/* They were charged no more than that for it. */
static void put_frames(struct qy_manager *m, void *p, size_t charged, bool clean)
{
	qy_lock(&m->lock);
	qy_snap_large(p, qy_large_size(p));
	book(m, charged, false);
	qy_runs_put(m, run_of(p), clean);
	qy_unlock(&m->lock);
}

static void put_pages(struct qy_manager *m, void *p)
{
	qy_lock(&m->lock);
	qy_snap_large(p, qy_large_size(p));
	qy_filler_put(m, page_of(p), false);
	qy_unlock(&m->lock);
}

/* Only what is added is charged: that a block must move to grow is no reason to refuse it near a limit. */
void *qy_large_remap(void *p, size_t size)
{
	struct qy_manager *m = qy_manager_of(p);
	size_t old, moved;
	struct qy_region *r;
	bool zero;
	void *to;

	if (m == NULL || grain_of(p) != QY_FRAME || size <= QY_FRAME || size > SIZE_LIMIT)
		return NULL;
	old = qy_large_size(p);
	r = qy_region_of_frame(qy_frame_at(run_of(p)));
	if (size <= old || !qy_region_movable(r))
		return NULL;
	to = alloc_block(m, (struct request){ size, QY_PAGE, room_behind(m, size), old, true }, &zero);
	if (to == NULL)
		return NULL;
	/* Whole frames: a mapping that ended within one would keep the next move from it, and break a huge page. */
	moved = (size_t)qy_block_length(&qy_run_map, run_of(p)) << QY_FRAME_SHIFT;
	qy_assert(moved <= qy_align_up(size, QY_FRAME));
	if (!qy_region_move(r, p, moved, qy_region_of_frame(qy_frame_at(run_of(to))), to)) {
		put_frames(m, to, qy_align_up(size, QY_PAGE) - old, false);
		return NULL;
	}
	/* (What was left behind was mapped anew.) */
	put_frames(m, p, 0, true);
	return to;
}

void *qy_large_copy(void *p, size_t size)
{
	struct qy_manager *m = qy_manager_of(p);
	size_t grain = grain_of(p), old;
	bool zero;
	void *to;

	if (m == NULL || grain == 0 || size > SIZE_LIMIT)
		return NULL;
	old = qy_large_size(p);
	if (size <= old)
		return NULL;
	to = alloc_block(m, (struct request){ .size = size, .align = QY_PAGE, .charged = old }, &zero);
	if (to == NULL)
		return NULL;
	memcpy(to, p, old);
	if (grain == QY_FRAME)
		put_frames(m, p, 0, false);
	else
		put_pages(m, p);
	return to;
}

void qy_manager_allow_threads(void)
{
	long most = qy_setting(populate_threads), mode = qy_setting(reclaim);
	bool none = mode == QY_RECLAIM_OFF || mode == QY_RECLAIM_SERIES || mode == QY_RECLAIM_TIMER;

	qy_region_allow_threads(none ? 1 : most > 0 ? (unsigned)most : UINT_MAX);
}

/* The block that page b of a map is in, of a run that begins with first; UINT32_MAX: the run has just been unmade. One
 * that has all of a region, as large ones do, is found at once. The lock is held. */
static qy_page block_with(const struct qy_block_map *map, qy_page b, qy_page first)
{
	if (qy_block_is(map, first) && b - first < qy_block_length(map, first))
		return first;
	while (!qy_block_is(map, b))
		if (b-- == first)
			return UINT32_MAX;
	return b;
}

/* Of a slab's object. (Which of a plain slab's objects live is not known.) */
static size_t left_in_object(const struct qy_slab *s, const char *p)
{
	uint32_t size;
	size_t in;

	s -= s->kind == QY_SLAB_INNER ? s->inner : 0;
	if (s->kind != QY_SLAB_HEAD)
		return 0;
	size = qy_classes[s->cls].size;
	in = (size_t)(p - qy_slab_memory(s));
	if (in >= (size_t)qy_classes[s->cls].capacity * size)
		return 0;
	/* (Of a mixed slab, from the grain on that p is in.) */
	size = (uint32_t)qy_object_size(s, p);
	return size == 0 ? 0 : size - in % qy_classes[s->cls].size;
}

/* The lock is held. */
static size_t left_here(const char *p)
{
	uintptr_t offset = qy_window_offset(p);
	uint32_t f = run_of(p), run;
	qy_page b;
	size_t bytes;

	if (qy_frame_at(f)->filler != 0) {
		b = block_with(&qy_page_map, page_of(p), f * QY_FRAME_PAGES);
		if (b == UINT32_MAX || !qy_block_used(&qy_page_map, b) || qy_block_tag(&qy_page_map, b) == QY_USE_PURGE)
			return 0;
		if (qy_block_tag(&qy_page_map, b) == QY_USE_SLAB)
			return left_in_object(qy_slab_at(offset), p);
		return ((size_t)(b + qy_block_length(&qy_page_map, b)) << QY_PAGE_SHIFT) - offset;
	}
	run = block_with(&qy_run_map, f, (uint32_t)qy_region_frame(qy_region_of_frame(qy_frame_at(f))));
	if (run == UINT32_MAX || !qy_block_used(&qy_run_map, run) || qy_block_tag(&qy_run_map, run) != QY_USE_LARGE)
		return 0;
	bytes = atomic_load_explicit(&qy_frame_at(run)->bytes, memory_order_relaxed);
	offset -= (uintptr_t)run << QY_FRAME_SHIFT;
	return bytes > offset ? bytes - offset : 0;
}

size_t qy_large_left(const void *p)
{
	struct qy_manager *m = qy_manager_of(p);
	size_t left = 0;

	if (m == NULL)
		return 0;
	qy_lock(&m->lock);
	/* (What does not live may be gone by now.) */
	if (qy_manager_of(p) == m)
		left = left_here(p);
	qy_unlock(&m->lock);
	return left;
}

/* The lock is held. */
static bool find_here(const void *p, void **begin, size_t *bytes)
{
	uint32_t f = run_of(p), run;
	qy_page b;

	if (qy_frame_at(f)->filler != 0) {
		b = block_with(&qy_page_map, page_of(p), f * QY_FRAME_PAGES);
		if (b == UINT32_MAX || !qy_block_used(&qy_page_map, b) || qy_block_tag(&qy_page_map, b) != QY_USE_LARGE)
			return false;
		*begin = qy_window_at((uintptr_t)b << QY_PAGE_SHIFT);
		*bytes = (size_t)qy_block_length(&qy_page_map, b) << QY_PAGE_SHIFT;
		return true;
	}
	run = block_with(&qy_run_map, f, (uint32_t)qy_region_frame(qy_region_of_frame(qy_frame_at(f))));
	if (run == UINT32_MAX || !qy_block_used(&qy_run_map, run) || qy_block_tag(&qy_run_map, run) != QY_USE_LARGE)
		return false;
	*begin = qy_window_at((uintptr_t)run << QY_FRAME_SHIFT);
	*bytes = atomic_load_explicit(&qy_frame_at(run)->bytes, memory_order_relaxed);
	return (uintptr_t)p - (uintptr_t)*begin < *bytes;
}

bool qy_large_find(const void *p, void **begin, size_t *bytes)
{
	struct qy_manager *m = qy_manager_of(p);
	bool found;

	if (m == NULL)
		return false;
	qy_lock(&m->lock);
	found = qy_manager_of(p) == m && find_here(p, begin, bytes);
	qy_unlock(&m->lock);
	return found;
}

int qy_large_populate(void *p, size_t len)
{
	/* A block is in one region. */
	struct qy_region *r = qy_region_of_frame(qy_frame_at(run_of(p)));

	qy_manager_allow_threads();
	return r != NULL && qy_region_populate(r, p, len) ? 0 : -1;
}

bool qy_large_may_be_huge(const void *p)
{
	uint32_t f = (uint32_t)(qy_window_offset(p) >> QY_FRAME_SHIFT);
	struct qy_region *r = qy_region_of_frame(qy_frame_at(f));

	return r != NULL && qy_region_may_be_huge(r, (const void *)qy_align_down((uintptr_t)p, QY_FRAME));
}

int qy_large_discard(void *p, size_t len)
{
	struct qy_region *r = qy_region_of_frame(qy_frame_at(run_of(p)));
	struct qy_manager *m = qy_manager_of(p);

	if (r == NULL || m == NULL || !qy_region_purge(r, p, len)) {
		errno = ENOTSUP;
		return -1;
	}
	qy_lock(&m->lock);
	qy_count(&m->purges, 1);
	qy_count(&m->purged, len);
	qy_unlock(&m->lock);
	return 0;
}

int qy_large_fd(const void *p, uint64_t *offset)
{
	struct qy_region *r;

	if (qy_manager_of(p) == NULL) {
		errno = EINVAL;
		return -1;
	}
	r = qy_region_of_frame(qy_frame_at((uint32_t)(qy_window_offset(p) >> QY_FRAME_SHIFT)));
	if (!qy_region_is_file(r)) {
		errno = ENOTSUP;
		return -1;
	}
	if (!qy_region_has_fd(r)) {
		errno = EBADF;
		return -1;
	}
	*offset = (uint64_t)((const char *)p - (const char *)qy_region_addr(r));
	return r->file.fd;
}
