/* SPDX-License-Identifier: MIT */
/* Giving memory back. Blocks are taken as if allocated, purged with no lock held, and freed as clean. */
#include "lib/base/settings.h"
#include "lib/manager/dirt.h"
#include "lib/manager/huge.h"
#include "lib/manager/manager.h"
#include "lib/manager/mixed.h"
#include "lib/manager/regions.h"
#include "lib/manager/sparse.h"
#include "numa/os.h"

#define BATCH 32
#define PIECE_FRAMES 16      /* purged by one call: the kernel holds up faults in them, and mappings anywhere,
                              * meanwhile */
#define LEAST 4              /* parts of frames that were in use less than decay_ms / 4 ago are left alone */
/* In a pass that is somebody's malloc, which asks for so little at most: breaking up a huge page takes 0.3 ms. */
#define IN_PASSING ((size_t)1 << 30)
#define PARTS_IN_PASSING 4
#define SPARSE_IN_PASSING 16 /* one part in so many may be pages inside slabs, which are purged one by one */
#define BATCH_IN_TIME ((size_t)8 << 20) /* between two looks at the clock, of a pass that has so much time */
#define REGIONS_IN_TIME 4    /* the same, of free regions that are unmapped */
#define LAST_REGION_FRAMES 4 /* an arena keeps so much address space when all of it is free */

/* Rank QY_RANK_PURGE. Held while memory is taken, purged and put back; nothing that allocates ever waits for it (but
 * who was refused, and looks for what others can do without). A patched madvise may allocate while its caller holds it:
 * then `purging` says not to come here again. */
static struct qy_lock purge_lock = QY_LOCK_INIT(QY_RANK_PURGE);
_Atomic(uint32_t) qy_dirt_seen, qy_heap_grew;
static __thread bool purging __attribute__((tls_model("initial-exec")));

void qy_purge_hold(void)
{
	qy_lock(&purge_lock);
}

void qy_purge_release(void)
{
	qy_unlock(&purge_lock);
}

/* (In a signal handler as well, at any point of qy_manager_purge: its own thread's flag tells before the lock
 * would.) */
bool qy_purge_try(void)
{
	if (purging || !qy_trylock(&purge_lock))
		return false;
	purging = true;
	return true;
}

void qy_purge_done(void)
{
	qy_unlock(&purge_lock);
	purging = false;
}

bool qy_purge_is_caller(void)
{
	return purging;
}

bool qy_in_time(uint64_t until_ns)
{
	return until_ns == UINT64_MAX || qy_os->now_ns() < until_ns;
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

/* The first frames of a dirty run, at most so many; the rest stays as it is. The lock is held. */
static unsigned take_run(struct qy_manager *m, uint32_t run, uint32_t at_most, struct piece *pieces)
{
	uint32_t stamp = qy_frame_at(run)->stamp;
	bool zero;

	if (!qy_runs_take(m, run, &zero))
		return 0;
	if (qy_block_length(&qy_run_map, run) > at_most) {
		uint32_t rest = qy_block_split(&qy_run_map, run, at_most);

		qy_runs_put(m, rest, false);
		qy_dirt_keep_first(m, rest, stamp);
	}
	pieces[0] = (struct piece){ run, true, (size_t)qy_block_length(&qy_run_map, run) << QY_FRAME_SHIFT };
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

/* The dirty run that goes next: the one left alone longest. A pinned region is worth more than what it holds, for the
 * pool may not give it again: it stays until all of decay_ms is over. 0 when there is none. The lock is held. */
static uint32_t next_run(struct qy_manager *m, uint32_t now, uint32_t decay_ms)
{
	struct qy_chain chain = qy_dirt_chain();
	uint32_t first = m->dirty[QY_DIRT_RUNS], f = first;

	if (f == 0)
		return 0;
	do {
		if (!qy_region_pinned(qy_region_of_frame(qy_frame_at(f))) ||
		    qy_ms_since(now, qy_frame_at(f)->stamp) >= decay_ms)
			return f;
		f = qy_chain_next(&chain, f);
	} while (f != first);
	return 0;
}

#define PARTS_TRIED 64

/* The frame of which free pages go next: the one left alone longest, for a while at least, and not while what it would
 * cost is a huge page that is soon wanted again. 0 when there is none. The lock is held. */
static uint32_t next_part(struct qy_manager *m, uint64_t now, uint32_t decay_ms)
{
	struct qy_chain chain = qy_dirt_chain();
	uint32_t first = m->dirty[QY_DIRT_PARTS], f = first;

	if (f == 0)
		return 0;
	for (unsigned tries = 0; tries < PARTS_TRIED; tries++) {
		if (qy_ms_since((uint32_t)now, qy_frame_at(f)->stamp) < decay_ms / LEAST)
			return 0;
		if (decay_ms == 0 || qy_huge_may_break(m, f, now))
			return f;
		f = qy_chain_next(&chain, f);
		if (f == first)
			return 0;
	}
	return 0;
}

/* Collect a batch, at most so many bytes and one piece, and so many parts of frames; whole huge pages before those, and
 * pinned regions apart. The lock is held. */
static unsigned take_due(struct qy_manager *m, uint64_t now, uint32_t decay_ms, size_t at_most, unsigned parts,
			 struct piece *pieces, struct qy_region **gone)
{
	unsigned n = 0;
	size_t bytes = 0;
	uint32_t f;

	while (n < BATCH && bytes < at_most && (f = next_run(m, (uint32_t)now, decay_ms)) != 0) {
		if (qy_region_pinned(qy_region_of_frame(qy_frame_at(f)))) {
			bytes += (size_t)qy_region_of_frame(qy_frame_at(f))->frames << QY_FRAME_SHIFT;
			take_region(m, f, gone);
			continue;
		}
		if (take_run(m, f, (uint32_t)qy_min(PIECE_FRAMES, (at_most - bytes + QY_FRAME - 1) >> QY_FRAME_SHIFT),
			     pieces + n) == 0)
			break;
		bytes += pieces[n++].bytes;
	}
	parts = qy_min(parts, BATCH - n);
	while (parts > 0 && bytes < at_most && (f = next_part(m, now, decay_ms)) != 0) {
		unsigned got = take_pages(m, f, at_most - bytes, pieces + n, parts);

		if (got == 0)
			break;
		for (parts -= got; got > 0; got--)
			bytes += pieces[n++].bytes;
	}
	return n;
}

/* ---- purging ---- */

static void put_back(struct qy_manager *m, const struct piece *piece, bool clean)
{
	if (piece->run)
		qy_runs_put(m, piece->block, clean);
	else
		qy_filler_put(m, piece->block, clean);
}

/* Purge a batch with no lock held. Returns the bytes; refused is set when the kernel would not. */
static size_t purge_batch(const struct piece *pieces, unsigned n, bool *clean)
{
	size_t bytes = 0;

	for (unsigned i = 0; i < n; i++) {
		void *addr = address_of(&pieces[i]);
		uint32_t frame = (uint32_t)(qy_window_offset(addr) >> QY_FRAME_SHIFT);
		struct qy_region *r = qy_region_of_frame(qy_frame_at(frame));

		clean[i] = qy_region_purge(r, addr, pieces[i].bytes);
		if (clean[i])
			bytes += pieces[i].bytes;
	}
	return bytes;
}

/* Regions that are one free clean run go back whole, but for a small last one (not of pages that are there whether used
 * or not), and for one that somebody has just asked for: that is spared once. Returns how many; what was memory is
 * added to *bytes. */
static unsigned drop_some_regions(struct qy_manager *m, unsigned at_most, size_t *bytes)
{
	struct qy_region *free_ones[BATCH];
	size_t memory = 0;
	unsigned n = 0;

	qy_lock(&m->lock);
	for (struct qy_region *r = m->regions, *next; r != NULL && n < at_most; r = next) {
		uint32_t run = (uint32_t)qy_region_frame(r);

		next = r->next;
		if (qy_block_used(&qy_run_map, run) || !qy_block_last(&qy_run_map, run) ||
		    !qy_block_clean(&qy_run_map, run) ||
		    (r == m->regions && next == NULL && r->frames <= LAST_REGION_FRAMES && !qy_region_pinned(r)))
			continue;
		if (r->fresh) {
			r->fresh = false;
			qy_dirt_call(QY_DIRT_FOR_REFUSED);
			continue;
		}
		qy_manager_unbook_region(m, r);
		qy_runs_drop_region(m, run);
		free_ones[n++] = r;
		memory += qy_region_pinned(r) ? (size_t)r->frames << QY_FRAME_SHIFT : 0;
	}
	qy_count(&m->purged, memory);
	qy_unlock(&m->lock);
	*bytes += memory;
	for (unsigned i = 0; i < n; i++)
		qy_region_destroy(free_ones[i]);
	return n;
}

/* The limit is the arena's, and so is what counts: all of its family. */
static bool over_soft_limit(struct qy_manager *m)
{
	uint64_t soft = atomic_load_explicit(&qy_peek(m->head)->soft_limit, memory_order_relaxed);

	return soft != 0 && qy_family_held(m) > soft;
}

/* Purge a batch of what is due. Returns the bytes; *refused is set when the kernel would not, *done when no more is,
 * and *due to when more may be (ms). */
static size_t purge_some(struct qy_manager *m, uint64_t now, long decay_ms, size_t at_most, bool *refused, bool *done,
			 uint64_t *due)
{
	struct qy_region *gone = NULL;
	struct piece pieces[BATCH];
	bool clean[BATCH];
	uint64_t dirty, stays = 0;
	unsigned n = 0;
	size_t bytes;

	qy_lock(&m->lock);
	qy_manager_receive(m);
	if (decay_ms == 0)
		qy_filler_close_empty(m);
	dirty = qy_read(&m->dirty_pages);
	if (decay_ms > 0)
		stays = qy_decay_allows(&m->decay, dirty, now, decay_ms);
	if (dirty > stays)
		n = take_due(m, now, (uint32_t)decay_ms, qy_min(at_most, (dirty - stays) << QY_PAGE_SHIFT),
			     at_most > IN_PASSING ? BATCH : PARTS_IN_PASSING, pieces, &gone);
	if (m->dirty[QY_DIRT_RUNS] == 0 && m->dirty[QY_DIRT_PARTS] == 0)
		*due = UINT64_MAX;
	else
		*due = decay_ms == 0 ? now + 100 : (m->decay.step + 1) * m->decay.step_ms;
	qy_unlock(&m->lock);
	*done = n == 0 && gone == NULL;
	if (*done)
		return 0;
	bytes = destroy_regions(gone) + purge_batch(pieces, n, clean);
	qy_lock(&m->lock);
	for (unsigned i = 0; i < n; i++) {
		put_back(m, &pieces[i], clean[i]);
		*refused = *refused || !clean[i];
	}
	qy_count(&m->purges, n);
	qy_count(&m->purged, bytes);
	qy_unlock(&m->lock);
	return bytes;
}

static bool was_cut(const struct qy_manager *m)
{
	return m->sparse.goes_on != QY_SPARSE_WHOLE || m->sparse.mixed_cut;
}

/* Pages inside slabs that nobody holds: again soon while there is something to be found, and otherwise when others have
 * come, or objects of theirs (heap.c calls). */
static size_t purge_sparse(struct qy_manager *m, uint64_t now, long decay_ms, size_t at_most, uint64_t until_ns)
{
	_Atomic(uint64_t) *due = &m->decay.sparse_due;
	size_t most = at_most > IN_PASSING ? at_most : at_most / SPARSE_IN_PASSING, bytes;
	uint64_t none = UINT64_MAX;
	bool again = false, soon;

	if (decay_ms != 0 && now < atomic_load_explicit(due, memory_order_relaxed))
		return 0;
	/* (Called meanwhile: a pass that goes on may be past who called.) */
	if (atomic_exchange_explicit(due, UINT64_MAX, memory_order_relaxed) == 0 &&
	    m->sparse.goes_on != QY_SPARSE_WHOLE)
		m->sparse.again = true;
	bytes = qy_sparse_pass(m, now, decay_ms == 0, most, until_ns, &again);
	bytes += qy_mixed_pass(m, now, decay_ms == 0, most, until_ns, &again);
	soon = bytes >= most || was_cut(m);
	/* (Not, where others came meanwhile.) */
	if (again || bytes > 0)
		atomic_compare_exchange_strong_explicit(
			due, &none, now + (soon ? QY_PASS_CUT_MS : qy_max((size_t)decay_ms / 8, QY_PASS_CUT_MS)),
			memory_order_relaxed, memory_order_relaxed);
	return bytes;
}

/* Runs and parts that are free. */
static size_t purge_free(struct qy_manager *m, uint64_t now, long decay_ms, size_t at_most, uint64_t until_ns,
			 uint64_t *next)
{
	size_t total = 0, batch = until_ns == UINT64_MAX ? SIZE_MAX : BATCH_IN_TIME;
	bool refused = false, done = false;

	/* The program's function may free what it has allocated while it was told of the last batch: of that there need be
	 * no end. */
	if (qy_regions_heard())
		at_most = qy_min(at_most, (qy_read(&m->dirty_pages) << QY_PAGE_SHIFT) + BATCH_IN_TIME);
	while (total < at_most && !refused && !done) {
		total += purge_some(m, now, decay_ms, qy_min(at_most - total, batch), &refused, &done, next);
		if (!qy_in_time(until_ns))
			break;
	}
	if (refused || (total >= at_most && until_ns == UINT64_MAX))
		*next = now + (uint64_t)qy_max((size_t)decay_ms, 100);
	else if (!done)
		*next = now;
	return total;
}

/* Pages in slabs come first, since slabs may become free thereby; but where the time is short they come last: they may
 * take all of it for nothing. It is a batch of each even so. */
static size_t purge(struct qy_manager *m, uint64_t now, long decay_ms, size_t at_most, uint64_t until_ns,
		    uint64_t *next)
{
	bool in_time = until_ns != UINT64_MAX;
	unsigned regions = in_time ? REGIONS_IN_TIME : BATCH;
	size_t total = 0;
	uint64_t sparse;

	if (over_soft_limit(m))
		decay_ms = 0;
	if (decay_ms < 0)
		return 0;
	qy_huge_note_demand(m, now);
	if (in_time)
		total = purge_free(m, now, decay_ms, at_most, until_ns, next);
	total += purge_sparse(m, now, decay_ms, at_most, until_ns);
	if (!in_time)
		total += purge_free(m, now, decay_ms, at_most - qy_min(total, at_most), until_ns, next);
	if (total > 0 || decay_ms == 0 || m->dropping)
		do
			m->dropping = drop_some_regions(m, regions, &total) == regions;
		while (m->dropping && qy_in_time(until_ns));
	if (m->dropping)
		*next = now;
	/* Who calls in between is heard then: they may be many. What was cut short goes on. */
	sparse = atomic_load_explicit(&m->decay.sparse_due, memory_order_relaxed);
	*next = qy_min(*next, qy_max(sparse, now + (was_cut(m) ? QY_PASS_CUT_MS : qy_max((size_t)decay_ms / 16, 10))));
	return total;
}

void qy_manager_collect(struct qy_manager *m)
{
	if (purging)
		return;
	qy_lock(&purge_lock);
	qy_sparse_forward_mail(m);
	qy_unlock(&purge_lock);
	qy_lock(&m->lock);
	qy_manager_receive(m);
	qy_unlock(&m->lock);
}

long qy_manager_decay_set(const struct qy_manager *m)
{
	long own = atomic_load_explicit(&qy_peek(m->head)->decay_ms, memory_order_relaxed);

	return own == QUARRY_DECAY_DEFAULT ? qy_setting(decay_ms) : own;
}

long qy_manager_decay(const struct qy_manager *m, long decay_ms)
{
	long own = atomic_load_explicit(&qy_peek(m->head)->decay_ms, memory_order_relaxed);

	if (decay_ms == QY_DECAY_ALL)
		return 0;
	return own == QUARRY_DECAY_DEFAULT ? decay_ms : qy_limits_decay(own);
}

size_t qy_manager_purge(struct qy_manager *m, uint64_t now, long decay_ms, size_t at_most, uint64_t *next)
{
	return qy_manager_purge_in_time(m, now, decay_ms, at_most, UINT64_MAX, next);
}

size_t qy_manager_purge_in_time(struct qy_manager *m, uint64_t now, long decay_ms, size_t at_most, uint64_t until_ns,
				uint64_t *next)
{
	size_t bytes;

	*next = UINT64_MAX;
	if (purging || !qy_setting(give_back))
		return 0;
	purging = true;
	qy_lock(&purge_lock);
	bytes = purge(m, now, decay_ms, at_most, until_ns, next);
	qy_unlock(&purge_lock);
	purging = false;
	return bytes;
}

size_t qy_manager_purge_until(struct qy_manager *m, uint64_t now, long decay_ms, size_t at_most, uint64_t until_ns,
			      uint64_t *next)
{
	*next = UINT64_MAX;
	if (!qy_setting(give_back))
		return 0;
	return purge(m, now, decay_ms, at_most, until_ns, next);
}
