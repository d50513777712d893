/* SPDX-License-Identifier: MIT */
#include "lib/manager/collapse.h"

#include <errno.h>

#include "lib/base/probe.h"
#include "lib/manager/manager.h"
#include "numa/os.h"
#include "numa/thp.h"
#include "numa/topology.h"

#define DENSE (QY_FRAME_PAGES * 15 / 16) /* pages of a frame that are to be in use, and in memory */
#define STABLE_MS 100       /* so long, at least */
#define SOON_MS 100
#define RETRY_MS 1000       /* a frame that would not go */
#define ONCE_MS 5000        /* a frame is made huge once in so long: one that swings is not worth it each time */
#define RARELY_MS 64000
#define SHARE 4             /* of the time, one part in so many */
#define SHORTEST_MS 20      /* between two passes of one cycle */
#define FORKED_MS 10000     /* after a fork, pages are shared, and to collapse them would copy them */
#define WAIT_MS 1000        /* for a node that has no huge page, to begin with */
#define WAIT_MOST_MS 60000
#define STUBBORN 16         /* frames that would not go, with none in between that did: */
#define GIVE_UP_MS 600000   /* the kernel will have no more of it for a while */
#define SCAN_FRAMES 512     /* looked at with the manager's lock held */

static _Atomic(uint32_t) woken, forked;

/* The rest is of one pass at a time, under the purge lock where it is held over more than one access. */
static uint64_t due;         /* ms; when a cycle begins, or goes on */
static uint64_t interval = SOON_MS;
static bool in_cycle;
static uint64_t not_before;  /* ms; after a fork, or while the kernel has no more of it */
static bool relook;          /* in this cycle, what is known to be huge is looked at again */
static bool unfinished;      /* something found in this cycle is to be looked at again soon, */
static uint64_t waits;       /* or then (ms), when its node may have huge pages again; UINT64_MAX never */
static unsigned stubborn;
static struct {
	uint32_t wait;
	uint64_t until;
} nodes[QY_NODES_MAX + 1];   /* by dense node; the last is for sets of nodes */

void qy_collapse_wake(void)
{
	if (atomic_load_explicit(&woken, memory_order_relaxed) != 0)
		return;
	atomic_store_explicit(&woken, 1, memory_order_relaxed);
	/* The reclaimer may be asleep until there is dirt. */
	qy_dirt_call(QY_DIRT_FOR_SLEEPER);
}

void qy_collapse_forked(void)
{
	atomic_store_explicit(&forked, 1, memory_order_relaxed);
}

/* ---- one frame ---- */

struct found {
	struct qy_region *region;
	uint32_t frame;
	uint32_t frames; /* of a free run; 0 for a frame to be collapsed */
	uint16_t used;
};

static unsigned node_index(const struct qy_region *r)
{
	int node = qy_peek(r->placement)->node;

	return node >= 0 && node < QY_NODES_MAX ? (unsigned)node : QY_NODES_MAX;
}

/* Whether the frame, which is dense, has been so for long enough. */
static bool is_stable(struct qy_frame_pages *pages, const struct found *found, uint32_t now)
{
	if (!pages->dense || found->used < pages->used) {
		pages->dense = true;
		pages->used = found->used;
		pages->since = now;
	}
	return qy_ms_since(now, pages->since) >= STABLE_MS;
}

static void note_failure(struct qy_manager *m, const struct found *found, struct qy_frame_pages *pages, int error,
			 uint64_t now)
{
	unsigned node = node_index(found->region);

	qy_count(&m->huge.collapse_failed, 1);
	if (error == ENOMEM || error == EBUSY) {
		nodes[node].wait = (uint32_t)qy_min(qy_max(nodes[node].wait * 2, WAIT_MS), WAIT_MOST_MS);
		nodes[node].until = now + nodes[node].wait;
		waits = qy_min(waits, nodes[node].until);
		return;
	}
	pages->fails = (uint8_t)qy_min(pages->fails + 1u, 255);
	pages->again = (uint32_t)now + (error == EAGAIN && pages->fails == 1 ? RETRY_MS : WAIT_MOST_MS);
	pages->again += pages->again == 0;
	unfinished = unfinished || (error == EAGAIN && pages->fails == 1);
	if (error != EAGAIN && error != ENOSPC && ++stubborn >= STUBBORN) {
		stubborn = 0;
		not_before = now + GIVE_UP_MS;
		in_cycle = false;
	}
}

/* Make it huge if it is not, and mostly in memory. The purge lock is held. Whether it was made. */
static bool collapse(struct qy_manager *m, const struct found *found, uint64_t now)
{
	void *addr = qy_window_at((uintptr_t)found->frame << QY_FRAME_SHIFT);
	struct qy_frame_pages *pages = qy_pages_of_frame(found->frame);
	uint64_t until = nodes[node_index(found->region)].until;
	unsigned in_memory;
	bool huge = false;

	if (now < until) {
		waits = qy_min(waits, until);
		return false;
	}
	in_memory = qy_region_resident(addr);
	if (in_memory == QY_FRAME_PAGES && qy_os->page_is_huge(addr, &huge) == 0 && huge) {
		atomic_store_explicit(&pages->state, QY_PAGES_HUGE, memory_order_relaxed);
		return false;
	}
	if (atomic_load_explicit(&pages->state, memory_order_relaxed) == QY_PAGES_HUGE)
		atomic_store_explicit(&pages->state, QY_PAGES_SMALL, memory_order_relaxed);
	if (in_memory < DENSE || !is_stable(pages, found, (uint32_t)now)) {
		unfinished = unfinished || in_memory >= DENSE;
		return false;
	}
	if (!qy_region_collapse(found->region, addr, QY_FRAME)) {
		QY_PROBE2(collapse, addr, errno);
		note_failure(m, found, pages, errno, now);
		return false;
	}
	QY_PROBE2(collapse, addr, 0);
	stubborn = 0;
	nodes[node_index(found->region)].wait = 0;
	pages->fails = 0;
	pages->again = (uint32_t)now + ONCE_MS;
	pages->again += pages->again == 0;
	qy_count(&m->huge.collapsed, 1);
	return true;
}

/* ---- finding them ---- */

/* Whether a frame of a used run is worth a look. The lock is held. */
static bool is_candidate(uint32_t run, uint32_t f, uint32_t now, uint16_t *used)
{
	const struct qy_frame *frame = qy_frame_at(f);
	struct qy_frame_pages *pages = qy_pages_of_frame(f);
	uint8_t state = atomic_load_explicit(&pages->state, memory_order_relaxed);

	if (frame->filler != 0) {
		*used = frame->used;
	} else {
		size_t bytes = atomic_load_explicit(&qy_frame_at(run)->bytes, memory_order_relaxed);
		size_t before = (size_t)(f - run) << QY_FRAME_SHIFT;

		*used = bytes <= before ? 0 : (uint16_t)(qy_min(bytes - before, QY_FRAME) >> QY_PAGE_SHIFT);
	}
	if (*used < DENSE) {
		pages->dense = false;
		return false;
	}
	return (state != QY_PAGES_HUGE || relook) && (pages->again == 0 || qy_ms_is_past(now, pages->again));
}

/* The region that has the frame, or the next one. The lock is held. */
static struct qy_region *region_at(struct qy_manager *m, uint32_t frame)
{
	struct qy_region *best = NULL;

	for (struct qy_region *r = m->regions; r != NULL; r = r->next)
		if (qy_region_frame(r) + r->frames > frame &&
		    (best == NULL || qy_region_frame(r) < qy_region_frame(best)))
			best = r;
	return best;
}

/* The next frame to be looked at closely, or free run with frames that were told something. False when there was none
 * in the frames that were gone over; m->huge.frame is where it goes on, m->huge.looking whether there is more. */
static bool find(struct qy_manager *m, uint64_t now, struct found *found)
{
	uint32_t at = m->huge.frame, end, run;
	bool got = false;

	qy_lock(&m->lock);
	found->region = region_at(m, at);
	/* (What has memory is all there, and nobody makes it anew.) */
	m->huge.looking = found->region != NULL && qy_huge_profits(m);
	if (!m->huge.looking) {
		qy_unlock(&m->lock);
		return false;
	}
	run = (uint32_t)qy_region_frame(found->region);
	end = run + found->region->frames;
	at = (uint32_t)qy_max(at, run);
	for (unsigned n = 0; run < end && n < SCAN_FRAMES && !got && !qy_region_settled(found->region);) {
		uint32_t behind = run + qy_block_length(&qy_run_map, run);
		bool used = qy_block_used(&qy_run_map, run);

		if (behind <= at) {
			run = behind;
			continue;
		}
		for (; used && at < behind && !got && n < SCAN_FRAMES; at++, n++) {
			found->frame = at;
			found->frames = 0;
			got = is_candidate(run, at, (uint32_t)now, &found->used);
		}
		if (!used && at <= run && qy_block_clean(&qy_run_map, run)) {
			found->frame = run;
			found->frames = behind - run;
			got = atomic_load_explicit(&found->region->exceptions, memory_order_relaxed) != 0 ||
			      found->region->kind == QUARRY_PAGES_THP;
		}
		if (!used)
			at = behind;
		n++;
	}
	m->huge.frame = qy_region_settled(found->region) ? end : at;
	qy_unlock(&m->lock);
	return got;
}

/* Free memory that nobody has touched is to be born huge as its region is, unless there is no room for it by now. What
 * is taken of it meanwhile comes by qy_huge_born, with the same question. */
static void settle_free(const struct found *found)
{
	void *addr = qy_window_at((uintptr_t)found->frame << QY_FRAME_SHIFT);
	struct qy_region *r = found->region;

	if (r->kind == QUARRY_PAGES_THP && r->kind_wanted == QUARRY_PAGES_THP &&
	    !qy_region_has_room(qy_peek(r->placement), (size_t)found->frames << QY_FRAME_SHIFT, true))
		qy_region_want(r, addr, found->frames, QY_WANT_BASE);
	else
		qy_region_emptied(r, addr, found->frames);
}

/* ---- the pass ---- */

/* The next frames of a manager that is not done with, until something was collapsed or there is no more. The purge lock
 * is held: no manager ends meanwhile. *more: not all are done with. */
static bool step(uint64_t now, bool *more)
{
	struct found found = { .frames = 0 };
	struct qy_manager *m = qy_manager_next(NULL);

	while (m != NULL && !m->huge.looking)
		m = qy_manager_next(m);
	*more = m != NULL;
	if (m == NULL || !find(m, now, &found))
		return false;
	if (found.frames == 0)
		return collapse(m, &found, now);
	settle_free(&found);
	return false;
}

static bool begin_cycle(void)
{
	if (!qy_purge_try())
		return false;
	relook = atomic_exchange_explicit(&forked, 0, memory_order_relaxed) != 0;
	in_cycle = true;
	unfinished = false;
	waits = UINT64_MAX;
	for (struct qy_manager *m = qy_manager_next(NULL); m != NULL; m = qy_manager_next(m)) {
		m->huge.frame = 0;
		m->huge.looking = true;
	}
	qy_purge_done();
	return true;
}

static void end_cycle(uint64_t now, bool any)
{
	in_cycle = false;
	interval = any || unfinished || waits != UINT64_MAX ? SOON_MS : qy_min(interval * 2, RARELY_MS);
	due = now + interval;
	if (!any && !unfinished && waits != UINT64_MAX)
		due = qy_max(due, waits);
}

/* Whether to begin, or go on. */
static bool is_due(uint64_t now)
{
	if (atomic_exchange_explicit(&woken, 0, memory_order_relaxed)) {
		interval = SOON_MS;
		due = qy_min(due, now + SOON_MS);
	}
	if (atomic_load_explicit(&forked, memory_order_relaxed) == 1) {
		atomic_store_explicit(&forked, 2, memory_order_relaxed);
		in_cycle = false;
		not_before = qy_max(not_before, now + FORKED_MS);
	}
	due = qy_max(due, not_before);
	return now >= due;
}

static qy_counter collapse_ns;

uint64_t qy_collapse_ns(void)
{
	return qy_read(&collapse_ns);
}

bool qy_collapse_pass(uint64_t now, uint64_t budget_ns, uint64_t *next)
{
	uint64_t began = qy_os->now_ns(), spent = 0;
	bool any = false, more = true;

	*next = due;
	if (!is_due(now)) {
		*next = interval > RARELY_MS / 2 && !in_cycle ? UINT64_MAX : due;
		return false;
	}
	if (!qy_thp_get().possible) {
		due = now + RARELY_MS;
		*next = UINT64_MAX;
		return false;
	}
	if (!in_cycle && !begin_cycle()) {
		*next = due = now + SHORTEST_MS;
		return false;
	}
	while (more && in_cycle && spent < budget_ns) {
		/* A fork, or an arena's end, waits for one frame at most, and is not waited for. */
		if (!qy_purge_try())
			break;
		any = step(now, &more) || any;
		qy_purge_done();
		spent = qy_os->now_ns() - began;
	}
	qy_count_shared(&collapse_ns, spent);
	if (!more && in_cycle)
		end_cycle(now, any);
	else if (in_cycle)
		due = now + qy_max((size_t)(spent * SHARE / 1000000), SHORTEST_MS);
	*next = interval >= RARELY_MS && !in_cycle ? UINT64_MAX : due;
	return any;
}
