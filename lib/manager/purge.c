/* SPDX-License-Identifier: MIT */
/* Giving memory back. Blocks are taken as if allocated, purged with no lock held, and freed as clean. */
#include "lib/base/settings.h"
#include "lib/manager/dirt.h"
#include "lib/manager/manager.h"

#define BATCH 32
#define LAST_REGION_FRAMES 4 /* an arena keeps so much address space when all of it is free */

/* Rank QY_RANK_PURGE. Held while memory is taken, purged and put back; nothing that allocates ever waits for it, but
 * a patched madvise may allocate while its caller holds it: then `purging` says not to come here again. */
static struct qy_lock purge_lock = QY_LOCK_INIT(QY_RANK_PURGE);
_Atomic(uint32_t) qy_dirt_seen;
static __thread bool purging __attribute__((tls_model("initial-exec")));

void qy_purge_hold(void)
{
	qy_lock(&purge_lock);
}

void qy_purge_release(void)
{
	qy_unlock(&purge_lock);
}

/* One piece to be purged: pages of a frame, or a run of frames. */
struct piece {
	uint32_t block;
	bool run;
	size_t bytes;
};

static void *address_of(const struct piece *piece)
{
	return qy_window_at((uintptr_t)piece->block << (piece->run ? QY_FRAME_SHIFT : QY_PAGE_SHIFT));
}

/* Take the dirty free blocks of a frame. The lock is held. */
static unsigned take_pages(struct qy_manager *m, uint32_t f, size_t at_most, struct piece *pieces, unsigned room)
{
	qy_page first = f * QY_FRAME_PAGES, b = first;
	unsigned n = 0;
	size_t bytes = 0;

	for (;;) {
		bool last = qy_block_last(&qy_page_map, b);
		qy_page next = b + qy_block_length(&qy_page_map, b);

		if (!qy_block_used(&qy_page_map, b) && !qy_block_clean(&qy_page_map, b)) {
			if (n == room || bytes >= at_most)
				break;
			pieces[n++] = (struct piece){ b, false,
						      (size_t)qy_block_length(&qy_page_map, b) << QY_PAGE_SHIFT };
			bytes += pieces[n - 1].bytes;
			qy_filler_take(m, b, QY_USE_PURGE);
		}
		if (last)
			break;
		b = next;
	}
	return n;
}

static unsigned take_run(struct qy_manager *m, uint32_t run, struct piece *pieces)
{
	bool zero;

	pieces[0] = (struct piece){ run, true, (size_t)qy_block_length(&qy_run_map, run) << QY_FRAME_SHIFT };
	if (!qy_runs_take(m, run, &zero))
		return 0;
	qy_block_set_tag(&qy_run_map, run, QY_USE_PURGE);
	return 1;
}

/* A pinned region that is free goes as it is, be it the last one: it is memory, and not address space. The lock is
 * held. */
static void take_region(struct qy_manager *m, uint32_t run, struct qy_region **gone)
{
	struct qy_region *r = qy_region_of_frame(qy_frame_at(run));

	qy_manager_unbook_region(m, r);
	qy_runs_drop_region(m, run);
	r->next = *gone;
	*gone = r;
}

static size_t destroy_regions(struct qy_region *list)
{
	size_t bytes = 0;

	while (list != NULL) {
		struct qy_region *next = list->next;

		bytes += (size_t)list->frames << QY_FRAME_SHIFT;
		qy_region_destroy(list);
		list = next;
	}
	return bytes;
}

/* Collect a batch of what fell due, at most so many bytes and one piece; pinned regions apart. The lock is held. */
static unsigned take_due(struct qy_manager *m, uint32_t now, long decay_ms, size_t at_most, struct piece *pieces,
			 struct qy_region **gone)
{
	unsigned n = 0;
	size_t bytes = 0;

	while (n < BATCH && bytes < at_most && m->dirty_first != 0) {
		uint32_t f = m->dirty_first;
		struct qy_frame *frame = qy_frame_at(f);
		unsigned got;

		if (decay_ms != 0 && (int32_t)(now - frame->stamp) < (int32_t)decay_ms)
			break;
		if (qy_region_pinned(qy_region_of_frame(frame))) {
			bytes += (size_t)qy_region_of_frame(frame)->frames << QY_FRAME_SHIFT;
			take_region(m, f, gone);
			continue;
		}
		if (frame->filler != 0)
			got = take_pages(m, f, at_most - bytes, pieces + n, BATCH - n);
		else
			got = take_run(m, f, pieces + n);
		if (got == 0)
			break;
		for (; got > 0; got--)
			bytes += pieces[n++].bytes;
	}
	return n;
}

static void put_back(struct qy_manager *m, const struct piece *piece, bool clean)
{
	if (piece->run)
		qy_runs_put(m, piece->block, clean);
	else
		qy_filler_put(m, piece->block, clean);
}

/* Purge a batch with no lock held. Returns the bytes; refused is set when the kernel would not. */
static size_t purge_batch(struct qy_manager *m, const struct piece *pieces, unsigned n, bool *clean)
{
	size_t bytes = 0;

	for (unsigned i = 0; i < n; i++) {
		void *addr = address_of(&pieces[i]);
		const struct qy_region *r = qy_region_of_frame(qy_frame_at((uint32_t)(qy_window_offset(addr) >> QY_FRAME_SHIFT)));

		clean[i] = qy_region_purge(r, addr, pieces[i].bytes);
		if (clean[i])
			bytes += pieces[i].bytes;
	}
	(void)m;
	return bytes;
}

/* Regions that are one free clean run go back whole, but for a small last one. Returns how many. */
static unsigned drop_some_regions(struct qy_manager *m)
{
	struct qy_region *free_ones[BATCH];
	unsigned n = 0;

	qy_lock(&m->lock);
	for (struct qy_region *r = m->regions, *next; r != NULL && n < BATCH; r = next) {
		uint32_t run = (uint32_t)qy_region_frame(r);

		next = r->next;
		if (qy_block_used(&qy_run_map, run) || !qy_block_last(&qy_run_map, run) ||
		    !qy_block_clean(&qy_run_map, run) || (r == m->regions && next == NULL && r->frames <= LAST_REGION_FRAMES))
			continue;
		qy_manager_unbook_region(m, r);
		qy_runs_drop_region(m, run);
		free_ones[n++] = r;
	}
	qy_unlock(&m->lock);
	for (unsigned i = 0; i < n; i++)
		qy_region_destroy(free_ones[i]);
	return n;
}

/* The limit is the arena's, and so is what counts: all of its family. */
static bool over_soft_limit(struct qy_manager *m)
{
	struct qy_manager *head = m->head;
	uint64_t soft = atomic_load_explicit(&head->soft_limit, memory_order_relaxed), dirty = 0;

	if (soft == 0)
		return false;
	for (struct qy_manager *one = qy_family_next(head, NULL); one != NULL; one = qy_family_next(head, one))
		dirty += qy_read(&one->dirty_pages);
	return qy_manager_used(m) + (dirty << QY_PAGE_SHIFT) > soft;
}

static size_t purge(struct qy_manager *m, uint64_t now, long decay_ms, size_t at_most, uint64_t *next)
{
	struct piece pieces[BATCH];
	bool clean[BATCH];
	size_t total = 0;
	bool refused = false;

	if (over_soft_limit(m))
		decay_ms = 0;
	if (decay_ms < 0)
		return 0;
	while (total < at_most && !refused) {
		struct qy_region *gone = NULL;
		unsigned n;
		size_t bytes;

		qy_lock(&m->lock);
		qy_manager_receive(m);
		if (decay_ms == 0)
			qy_filler_close_empty(m);
		n = take_due(m, (uint32_t)now, decay_ms, at_most - total, pieces, &gone);
		if (n == 0 && gone == NULL && m->dirty_first != 0)
			*next = now + (uint64_t)decay_ms - (uint32_t)((uint32_t)now - qy_frame_at(m->dirty_first)->stamp);
		qy_unlock(&m->lock);
		if (n == 0 && gone == NULL)
			break;
		bytes = destroy_regions(gone) + purge_batch(m, pieces, n, clean);
		qy_lock(&m->lock);
		for (unsigned i = 0; i < n; i++) {
			put_back(m, &pieces[i], clean[i]);
			refused = refused || !clean[i];
		}
		qy_count(&m->purges, n);
		qy_count(&m->purged, bytes);
		qy_unlock(&m->lock);
		total += bytes;
	}
	if (total > 0 || decay_ms == 0)
		while (drop_some_regions(m) == BATCH)
			;
	if (refused || total >= at_most)
		*next = now + (uint64_t)qy_max((size_t)decay_ms, 100);
	return total;
}

size_t qy_manager_purge(struct qy_manager *m, uint64_t now, long decay_ms, size_t at_most, uint64_t *next)
{
	size_t bytes;

	*next = UINT64_MAX;
	if (purging || !qy_setting(give_back))
		return 0;
	purging = true;
	qy_lock(&purge_lock);
	bytes = purge(m, now, decay_ms, at_most, next);
	qy_unlock(&purge_lock);
	purging = false;
	return bytes;
}
