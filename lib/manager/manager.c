/* SPDX-License-Identifier: MIT */
#include "lib/manager/manager.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "lib/base/settings.h"
#include "lib/manager/budget.h"
#include "lib/manager/collapse.h"
#include "lib/manager/homing.h"
#include "lib/manager/mixed.h"
#include "lib/manager/move.h"
#include "lib/manager/sites.h"
#include "lib/manager/snapshot.h"
#include "lib/manager/sparse.h"
#include "lib/base/refused.h"
#include "numa/topology.h"

#define GROW_MAX_FRAMES 32 /* 64 MiB at a time, at most, when no more is needed */

struct qy_block_map qy_page_map, qy_run_map;

/* What a debugger needs of the arithmetic, and no type's debug info tells (tools/gdb/quarry-gdb.py). */
extern const struct qy_layout {
	uint64_t page, unit, frame, frame_record, region_offset;
	uint64_t block_length, block_used, block_tag_shift, grain, site_buckets, weight_one;
} qy_layout;

__attribute__((used)) const struct qy_layout qy_layout = {
	.page = QY_PAGE,
	.unit = QY_UNIT,
	.frame = QY_FRAME,
	.frame_record = 1 << QY_FRAME_SIDE_SHIFT,
	.region_offset = QY_REGION_SIDE_OFFSET,
	.block_length = QY_BLOCK_LENGTH_MAX,
	.block_used = QY_BLOCK_USED,
	.block_tag_shift = QY_BLOCK_LENGTH_BITS,
	.grain = QY_MIXED_GRAIN,
	.site_buckets = QY_SITE_BUCKETS,
	.weight_one = QY_WEIGHT_ONE,
};

bool qy_managers_start(void)
{
	qy_topology_init(qy_setting(numa) != 0);
	if (qy_window_init((size_t)qy_setting(window)) != 0)
		return false;
	if (!qy_node_by_rseq())
		qy_refuse(QUARRY_REFUSED_RSEQ);
	qy_page_map = (struct qy_block_map){ qy_window.page_side, (size_t)1 << QY_PAGE_SIDE_SHIFT };
	qy_run_map = (struct qy_block_map){ qy_window.frame_side, (size_t)1 << QY_FRAME_SIDE_SHIFT };
	return true;
}

void *qy_manager_records(size_t size, size_t align)
{
	return qy_meta_alloc(size, align);
}

int qy_manager_node(void)
{
	return qy_node_current();
}

int qy_manager_nodes(void)
{
	return qy_node_count();
}

const volatile int32_t *qy_manager_cpu_now(void)
{
	return qy_node_cpu_now();
}

bool qy_manager_may_use(int node)
{
	return qy_node_has_memory(node) && qy_node_allowed(node);
}

int qy_manager_usable_node(int kernel_id)
{
	int dense = qy_node_dense(kernel_id);

	return dense >= 0 && qy_manager_may_use(dense) ? dense : -1;
}

/* ---- slabs ---- */

static struct qy_slab *slab_of_page(qy_page b)
{
	return qy_slab_at((uintptr_t)b << QY_PAGE_SHIFT);
}

static qy_page page_of_slab(const struct qy_slab *s)
{
	return (qy_page)(qy_window_offset(qy_slab_memory(s)) >> QY_PAGE_SHIFT);
}

/* Write a slab's record, the owner last: from then on a free of its owner's takes the fast path. */
static void begin_slab(struct qy_slab *s, struct qy_heap *h, unsigned cls, bool zero)
{
	uint32_t units = qy_classes[cls].units;

	qy_snap_slab_begins(s);
	s->local = NULL;
	qy_publish(s->countdown, 0);
	qy_publish(s->linked, 0);
	qy_publish(s->carved, 0);
	s->gone = 0;
	s->seen = 0;
	s->next = s->prev = 0;
	qy_publish(s->cls, (uint8_t)cls);
	qy_publish(s->state, QY_SLAB_ACTIVE);
	s->inner = 0;
	s->zero = zero;
	atomic_store_explicit(&s->heap, h, memory_order_relaxed);
	for (uint32_t i = 1; i < units; i++) {
		qy_publish(s[i].kind, QY_SLAB_INNER);
		s[i].inner = (uint8_t)i;
		s[i].gone = 0;
	}
	qy_publish(s->kind, QY_SLAB_HEAD);
	qy_heap_own(h, s, cls);
}

static void end_slab(struct qy_slab *s)
{
	uint32_t units = qy_classes[s->cls].units;

	qy_snap_slab_ends(s);
	qy_slab_set_gone(s, 0);
	for (uint32_t i = 0; i < units; i++) {
		qy_publish(s[i].kind, QY_SLAB_NONE);
		atomic_store_explicit(&s[i].owner, 0, memory_order_relaxed);
	}
}

/* ---- mail for slabs that nobody holds ---- */

static bool has_mail(struct qy_manager *m)
{
	return qy_heap_has_mail(&m->orphans) || (m->mixed != NULL && qy_heap_has_mail(&m->mixed->heap));
}

bool qy_manager_receive(struct qy_manager *m)
{
	if (qy_heap_has_mail(&m->orphans))
		qy_heap_receive_some(&m->orphans, QY_MAIL_STEP);
	if (m->mixed != NULL && qy_heap_has_mail(&m->mixed->heap))
		qy_mixed_receive(m, QY_MAIL_STEP);
	return has_mail(m);
}

/* Whether the list is filed that was there when so many had been taken: a second one was begun. */
static bool is_through(struct qy_heap *h, uint32_t lists)
{
	return !qy_heap_has_mail(h) || h->mail_lists - lists > 1;
}

/* (Those who send may be quicker than we are: not for ever.) */
bool qy_manager_receive_until(struct qy_manager *m, uint64_t until_ns)
{
	uint32_t of_orphans, of_mixed;
	bool through;

	qy_lock(&m->lock);
	of_orphans = m->orphans.mail_lists;
	of_mixed = m->mixed == NULL ? 0 : m->mixed->heap.mail_lists;
	for (;;) {
		through = !qy_manager_receive(m) || (is_through(&m->orphans, of_orphans) &&
						     (m->mixed == NULL || is_through(&m->mixed->heap, of_mixed)));
		qy_unlock(&m->lock);
		if (through || !qy_in_time(until_ns))
			return through;
		qy_lock(&m->lock);
	}
}

/* All of it, for one who would be refused otherwise. False when there was none. */
static QY_COLD bool receive_for_refused(struct qy_manager *m)
{
	bool some;

	qy_lock(&m->lock);
	some = has_mail(m);
	qy_unlock(&m->lock);
	return some && qy_manager_receive_until(m, UINT64_MAX);
}

/* The first orphan of the class with room, for h. The lock is held. */
static struct qy_slab *adopt(struct qy_manager *m, struct qy_heap *h, unsigned cls)
{
	struct qy_slab_list *queue = &m->orphans.queue[cls];
	struct qy_slab *s = queue->first;

	if (s == NULL)
		return NULL;
	qy_slab_list_remove(queue, s);
	atomic_store_explicit(&s->heap, h, memory_order_release);
	qy_heap_own(h, s, cls);
	qy_uncount(&m->orphans.slabs, 1);
	qy_count(&h->adopted, 1);
	m->sparse.adopted[cls] += m->sparse.adopted[cls] < UINT16_MAX;
	return s;
}

bool qy_manager_is_at_limit(struct qy_manager *m, size_t bytes)
{
	uint64_t arena = atomic_load_explicit(&qy_peek(m->head)->hard_limit, memory_order_relaxed);
	uint64_t process = (uint64_t)qy_setting(hard_limit);

	return (arena != 0 && qy_manager_used(m) + bytes > arena) || (process != 0 && qy_quota_taken() + bytes > process);
}

/* The same, after what was sent home is taken in: so far as is worth while, or all of it before so many more bytes
 * would be refused. The lock is held, and let go of in between. */
static struct qy_slab *receive_and_adopt(struct qy_manager *m, struct qy_heap *h, unsigned cls, size_t bytes)
{
	for (unsigned steps = 1;; steps++) {
		bool more = qy_manager_receive(m);
		struct qy_slab *s = adopt(m, h, cls);

		if (s != NULL || !more || (steps >= QY_MAIL_STEPS && !qy_manager_is_at_limit(m, bytes)))
			return s;
		qy_unlock(&m->lock);
		qy_lock(&m->lock);
	}
}

static bool is_mostly_used(const struct qy_slab *s)
{
	return qy_peek(s->state) == QY_SLAB_FULL || qy_peek(s->countdown) * 2 > qy_classes[qy_peek(s->cls)].capacity;
}

bool qy_manager_claim_slab(struct qy_manager *m, struct qy_heap *h, struct qy_slab *s)
{
	bool claimed = false;

	if (atomic_load_explicit(&s->heap, memory_order_relaxed) != &m->orphans || !is_mostly_used(s))
		return false;
	qy_lock(&m->lock);
	if (atomic_load_explicit(&s->heap, memory_order_relaxed) == &m->orphans && is_mostly_used(s)) {
		qy_heap_take_over(h, &m->orphans, s);
		claimed = true;
	}
	qy_unlock(&m->lock);
	return claimed;
}

/* Whether a slab would have free memory that is in memory. (How much of that there is does not tell: where slabs do not
 * go it stays, as a buffer of a server's that comes and goes.) */
static bool has_dirty(struct qy_manager *m, uint32_t pages)
{
	return qy_read(&m->dirty_pages) >= pages && qy_filler_has_dirty(m, QY_FILL_SLABS, pages, 1);
}

/* Whether a new slab would stand in memory that is not there. Where such may be used, and there are no gaps instead, it
 * is no matter. */
static bool would_touch(struct qy_manager *m, uint32_t pages, bool fresh)
{
	return (!fresh || m->mixed != NULL) && !has_dirty(m, pages);
}

/* What became of a request for a new slab. */
struct attempt {
	bool allowed, short_of; /* by the limits; of the control group's budget */
};

/* The lock is held. */
static struct qy_slab *new_slab(struct qy_manager *m, struct qy_heap *h, unsigned cls, uint32_t pages,
				struct attempt *attempt)
{
	size_t bytes = (size_t)pages << QY_PAGE_SHIFT;
	struct qy_slab *s = NULL;
	bool zero = false;
	qy_page b = 0;

	attempt->allowed = qy_manager_allows(m, bytes);
	if (attempt->allowed)
		b = qy_filler_get(m, QY_FILL_SLABS, pages, 1, QY_USE_SLAB, &zero);
	attempt->short_of = b != 0 && zero && !qy_budget_take(bytes);
	if (attempt->short_of) {
		qy_filler_put(m, b, true);
	} else if (b != 0) {
		qy_count(&m->used, bytes);
		begin_slab(s = slab_of_page(b), h, cls, zero);
	}
	if (attempt->allowed && s == NULL)
		qy_manager_unclaim(m, bytes);
	return s;
}

/* After it was refused: whether memory was made, or found, for another try. The lock is not held. */
static bool may_try_again(struct qy_manager *m, size_t bytes, const struct attempt *attempt, int tries)
{
	if (attempt->short_of && tries < 3 && qy_budget_refresh(bytes))
		return true;
	if (attempt->allowed && !attempt->short_of && qy_manager_more(m, 1, 1))
		return true;
	if (tries < 3 && receive_for_refused(m))
		return true;
	if (attempt->short_of)
		qy_refuse(QUARRY_REFUSED_CGROUP);
	return false;
}

struct qy_slab *qy_manager_get_slab(struct qy_manager *m, struct qy_heap *h, unsigned cls, struct qy_slab *spare,
				    void **list, bool *fresh)
{
	uint32_t pages = qy_classes[cls].units << (QY_UNIT_SHIFT - QY_PAGE_SHIFT);
	size_t bytes = (size_t)pages << QY_PAGE_SHIFT;
	struct attempt attempt = { .allowed = true };
	struct qy_slab *s = spare;

	if (s != NULL && qy_peek(m->orphans.queue[cls].first) == NULL && !qy_heap_has_mail(&m->orphans)) {
		begin_slab(s, h, cls, false);
		return s;
	}
	qy_mixed_provide(m, false);
	for (int tries = 0; tries < 4; tries++) {
		bool refuse = false;

		qy_lock(&m->lock);
		s = receive_and_adopt(m, h, cls, spare == NULL ? bytes : 0);
		if (s != NULL) {
			if (spare != NULL)
				qy_manager_put_slab(m, spare);
		} else if (spare != NULL) {
			begin_slab(s = spare, h, cls, false);
		} else {
			/* (From gaps only where nothing better is: it is slower.) */
			bool touch = would_touch(m, pages, *fresh);

			*list = touch ? qy_mixed_take(m, cls) : NULL;
			refuse = *list == NULL && touch && !*fresh;
			if (*list == NULL && !refuse)
				s = new_slab(m, h, cls, pages, &attempt);
		}
		qy_unlock(&m->lock);
		if (s != NULL || *list != NULL)
			return s;
		if (refuse) {
			*fresh = true;
			return NULL;
		}
		if (!may_try_again(m, bytes, &attempt, tries))
			break;
	}
	errno = ENOMEM;
	return NULL;
}

void *qy_manager_get_one(struct qy_manager *m, unsigned cls)
{
	for (int tries = 0; tries < 4; tries++) {
		struct attempt attempt = { .allowed = true };
		bool lacking = false;
		struct qy_slab *s;
		void *p;

		qy_mixed_provide(m, true);
		qy_lock(&m->lock);
		(void)qy_manager_receive(m);
		p = qy_mixed_take_one(m, cls);
		if (p == NULL) {
			s = new_slab(m, &m->orphans, QY_MIXED_CLASS, QY_UNIT >> QY_PAGE_SHIFT, &attempt);
			lacking = s != NULL && !qy_mixed_add_apart(m, s);
			if (lacking)
				qy_manager_put_slab(m, s);
			else if (s != NULL)
				p = qy_mixed_take_one(m, cls);
		}
		qy_unlock(&m->lock);
		if (p != NULL)
			return p;
		/* (Others took all records.) */
		if (!lacking && !may_try_again(m, QY_UNIT, &attempt, tries))
			break;
	}
	errno = ENOMEM;
	return NULL;
}

void qy_manager_put_slab(struct qy_manager *m, struct qy_slab *s)
{
	qy_page b = page_of_slab(s);
	size_t bytes = (size_t)qy_block_length(&qy_page_map, b) << QY_PAGE_SHIFT;

	end_slab(s);
	qy_uncount(&m->used, bytes);
	qy_manager_unclaim(m, bytes);
	qy_filler_put(m, b, s->carved == 0 && qy_block_clean(&qy_page_map, b));
}

void qy_manager_put_slabs(struct qy_manager *m, struct qy_slab **slabs, unsigned count)
{
	qy_lock(&m->lock);
	for (unsigned i = 0; i < count; i++)
		qy_manager_put_slab(m, slabs[i]);
	qy_unlock(&m->lock);
}

/* ---- regions ---- */

/* The lock is held. */
static void book_placed(struct qy_manager *m, const struct qy_region *r, bool add)
{
	uint64_t bytes = (uint64_t)r->frames << QY_FRAME_SHIFT;
	qy_counter *figure = r->placed == QY_PLACED_NO ? &m->unplaced : &m->placed_less;

	if (r->placed == QY_PLACED_YES)
		return;
	if (add)
		qy_count(figure, bytes);
	else
		qy_uncount(figure, bytes);
}

/* Of all managers together, whose peaks are not at one time. */
static _Atomic(uint64_t) mapped_now, mapped_most;

static void note_peak(uint64_t bytes)
{
	uint64_t now = atomic_fetch_add_explicit(&mapped_now, bytes, memory_order_relaxed) + bytes;
	uint64_t most = atomic_load_explicit(&mapped_most, memory_order_relaxed);

	while (most < now && !atomic_compare_exchange_weak_explicit(&mapped_most, &most, now, memory_order_relaxed,
								     memory_order_relaxed))
		;
}

uint64_t qy_managers_peak_mapped(void)
{
	return atomic_load_explicit(&mapped_most, memory_order_relaxed);
}

/* The lock is held. */
static void book_region(struct qy_manager *m, const struct qy_region *r)
{
	uint64_t bytes = (uint64_t)r->frames << QY_FRAME_SHIFT;

	qy_count(&m->region_count, 1);
	qy_count(&m->mapped, bytes);
	note_peak(bytes);
	if (qy_read(&m->mapped) > qy_read(&m->peak_mapped))
		atomic_store_explicit(&m->peak_mapped, qy_read(&m->mapped), memory_order_relaxed);
	qy_count(&m->kind_wanted[r->kind_wanted], bytes);
	qy_count(&m->kind_got[r->kind], bytes);
	qy_count(&m->in_files, qy_region_is_file(r) ? bytes : 0);
	book_placed(m, r, true);
}

void qy_manager_unbook_region(struct qy_manager *m, const struct qy_region *r)
{
	uint64_t bytes = (uint64_t)r->frames << QY_FRAME_SHIFT;

	qy_uncount(&m->region_count, 1);
	qy_uncount(&m->mapped, bytes);
	atomic_fetch_sub_explicit(&mapped_now, bytes, memory_order_relaxed);
	qy_uncount(&m->kind_wanted[r->kind_wanted], bytes);
	qy_uncount(&m->kind_got[r->kind], bytes);
	qy_uncount(&m->in_files, qy_region_is_file(r) ? bytes : 0);
	book_placed(m, r, false);
}

void qy_manager_replace_region(struct qy_manager *m, struct qy_region *r, const struct qy_placement *placement,
			       enum qy_placed placed)
{
	book_placed(m, r, false);
	r->placed = (uint8_t)placed;
	qy_publish(r->placement, placement);
	book_placed(m, r, true);
}

/* How a new region is to be placed. A thread that numactl(8) or the program itself gave a memory policy keeps it. */
static struct qy_placement *placement_for(struct qy_manager *m)
{
	struct qy_placement *placement = qy_peek(m->placement), *unbound;

	if (!m->of_node || !placement->bind || !qy_region_is_threads_choice())
		return placement;
	unbound = qy_peek(m->unbound);
	if (unbound == NULL) {
		unbound = qy_meta_alloc(sizeof(*unbound), QY_CACHE_LINE);
		if (unbound == NULL)
			return placement;
		*unbound = (struct qy_placement){ .policy = placement->policy, .node = placement->node,
						  .nodes = placement->nodes };
		/* Two that come here at once make one each, which are the same. */
		qy_publish(m->unbound, unbound);
	}
	return unbound;
}

/* A new region that nobody has anything in yet, by another placement: what is filled already, once more from the
 * start. */
static struct qy_region *place_again(struct qy_manager *m, struct qy_region *r, const struct qy_placement *now,
				     uint32_t frames, uint32_t align, int kind)
{
	if (qy_region_pinned(r) || (qy_peek(now->flags) & QUARRY_ARENA_POPULATE)) {
		qy_region_destroy(r);
		return qy_region_create(now, frames, align, kind, m);
	}
	if (!qy_region_place(r, now))
		qy_publish(r->placement, now);
	return r;
}

/* Two threads that come here at once get a region each: holding a lock over mmap would be worse, since MPI and RDMA
 * libraries patch mmap and call malloc inside. A larger heap grows in larger steps. */
bool qy_manager_more(struct qy_manager *m, uint32_t frames, uint32_t align)
{
	uint32_t step = (uint32_t)qy_min(qy_read(&m->mapped) >> (QY_FRAME_SHIFT + 3), GROW_MAX_FRAMES);
	uint32_t want = (uint32_t)qy_max(frames, step);
	struct qy_placement *placement, *now;
	struct qy_region *r;
	bool more = true;
	int kind;

	qy_managers_follow_cpuset();
	placement = placement_for(m);
	/* A limit may have come, or have changed. */
	if (!qy_budget_refresh((size_t)want << QY_FRAME_SHIFT))
		want = frames;
	if (m->of_node)
		qy_publish(placement->flags, qy_setting(strict) ? QUARRY_ARENA_STRICT : 0);
	kind = qy_huge_kind(m, placement, frames, &want);
	/* What is filled at once: no more of it than is needed, and not beyond the control group's limit. */
	if (qy_peek(placement->flags) & (QUARRY_ARENA_STRICT | QUARRY_ARENA_POPULATE)) {
		want = frames;
		if (kind < QUARRY_PAGES_2M && !qy_budget_refresh((size_t)want << QY_FRAME_SHIFT)) {
			qy_refuse(QUARRY_REFUSED_CGROUP);
			errno = ENOMEM;
			return false;
		}
	}
	qy_manager_allow_threads();
	r = qy_region_create(placement, want, align, kind, m);
	if (r == NULL && want > frames)
		r = qy_region_create(placement, frames, align, kind, m);
	qy_homing_wake();
	qy_collapse_wake();
	qy_lock(&m->lock);
	/* The arena was moved meanwhile. (What comes after this look, the mover sees in the list.) */
	while (r != NULL && r->placement->bind && r->placement != (now = qy_peek(m->placement))) {
		qy_unlock(&m->lock);
		r = place_again(m, r, now, frames, align, kind);
		qy_lock(&m->lock);
	}
	if (r != NULL) {
		book_region(m, r);
		qy_runs_add_region(m, r);
		qy_fallback_region(m, r);
		atomic_store_explicit(&qy_heap_grew, 1, memory_order_relaxed);
		qy_dirt_call(QY_DIRT_FOR_REFUSED);
	} else {
		/* Empty frames that are kept open may make the run that is missing. */
		more = qy_filler_close_empty(m);
	}
	qy_unlock(&m->lock);
	return more;
}

void qy_manager_spare_none(struct qy_manager *m)
{
	qy_lock(&m->lock);
	for (struct qy_region *r = m->regions; r != NULL; r = r->next)
		r->fresh = false;
	qy_unlock(&m->lock);
}

struct qy_manager *qy_manager_of(const void *p)
{
	uintptr_t offset = qy_window_offset(p);
	struct qy_region *r;

	if (offset >= qy_window_claimed())
		return NULL;
	r = qy_region_of_frame(qy_frame_at((uint32_t)(offset >> QY_FRAME_SHIFT)));
	return r == NULL ? NULL : qy_peek(r->owner);
}

/* ---- reset ---- */

/* Forget everything about a region's memory; what it held is free and dirty. The lock is held. */
static void wipe_region(struct qy_region *r)
{
	uint32_t first = (uint32_t)qy_region_frame(r);

	for (uint32_t f = first; f < first + r->frames; f++) {
		struct qy_slab *units = qy_slab_at((uintptr_t)f << QY_FRAME_SHIFT);

		if (qy_frame_at(f)->filler != 0) {
			memset(qy_page_map.headers + ((size_t)f * QY_FRAME_PAGES << QY_PAGE_SIDE_SHIFT), 0,
			       (size_t)QY_FRAME_PAGES << QY_PAGE_SIDE_SHIFT);
			for (uint32_t u = 0; u < QY_FRAME_UNITS; u++) {
				qy_publish(units[u].kind, QY_SLAB_NONE);
				atomic_store_explicit(&units[u].owner, 0, memory_order_relaxed);
			}
		}
		qy_frame_clear(f);
	}
}

/* What was counted stays counted, so long as the arena is the same. */
static void keep_count(struct qy_manager *m, struct qy_heap *h)
{
	qy_hand_over(&m->past_received, &h->remote_received);
}

static void reset_one(struct qy_manager *m)
{
	struct qy_region *regions, *next;

	qy_lock(&m->lock);
	qy_publish(m->wiped, true);
	regions = m->regions;
	m->regions = NULL;
	memset(m->dirty, 0, sizeof(m->dirty));
	m->decay.step_ms = 0;
	memset(m->runs, 0, sizeof(m->runs));
	memset(m->fillers, 0, sizeof(m->fillers));
	qy_manager_unclaim(m, qy_read(&m->used));
	atomic_store_explicit(&m->used, 0, memory_order_relaxed);
	atomic_store_explicit(&m->large, 0, memory_order_relaxed);
	atomic_store_explicit(&m->dirty_pages, 0, memory_order_relaxed);
	atomic_store_explicit(&m->absent_pages, 0, memory_order_relaxed);
	keep_count(m, &m->orphans);
	if (m->mixed != NULL)
		keep_count(m, &m->mixed->heap);
	qy_heap_clear(&m->orphans);
	qy_heap_open(&m->orphans, m, 0);
	qy_heap_open(&m->thinning, m, 0);
	qy_mixed_clear(m);
	for (struct qy_region *r = regions; r != NULL; r = next) {
		uint32_t run = (uint32_t)qy_region_frame(r);
		bool zero;

		next = r->next;
		wipe_region(r);
		qy_runs_add_region(m, r);
		/* Make the one clean run dirty, through the doors that keep the books. */
		if (qy_runs_take(m, run, &zero))
			qy_runs_put(m, run, false);
	}
	qy_unlock(&m->lock);
}

void qy_manager_reset(struct qy_manager *m)
{
	for (struct qy_manager *one = qy_family_next(m, NULL); one != NULL; one = qy_family_next(m, one))
		reset_one(one);
}
