/* SPDX-License-Identifier: MIT */
#include "lib/manager/huge.h"

#include <string.h>

#include "lib/base/settings.h"
#include "lib/manager/budget.h"
#include "lib/manager/limits.h"
#include "lib/manager/manager.h"
#include "numa/thp.h"

/* Used bytes beyond thp_min for each thread but the first, up to a bound: every thread has a slab or more of each class
 * that it uses, mostly empty, and would have them padded to huge pages. */
#define DENSE_PER_HEAP ((size_t)24 << 20)
#define DENSE_FOR_HEAPS 5
#define TAIL_SHARE 12   /* of a block that may be empty memory in a huge page at its end: one part in so many */
#define LOOKS 8         /* frames looked at to see whether a heap uses what it has, */
#define LOOK_REGIONS 4  /* in so many regions, the newest, */
#define LOOK_RUNS 8     /* and among so many runs of each */
#define LOOK_AGAIN ((uint64_t)QY_FRAME) /* when so much more or less is in use, or an eighth of it */

static int kind_of(const struct qy_manager *m)
{
	return qy_peek(m->of_node) ? (int)qy_setting(pages) : qy_peek(m->kind);
}

bool qy_huge_from_pools(const struct qy_manager *m)
{
	return kind_of(m) >= QUARRY_PAGES_2M;
}

static bool is_large(struct qy_manager *m, size_t more)
{
	size_t least = (size_t)qy_setting(thp_min);

	least += qy_min(qy_max(atomic_load_explicit(&m->heaps, memory_order_relaxed), 1) - 1, DENSE_FOR_HEAPS) *
		 DENSE_PER_HEAP;
	return qy_read(&m->used) + more > least;
}

struct look {
	char *addr;
	uint32_t used; /* pages */
};

/* A frame of each of the first runs in use, but the one that begins with `fresh`. The lock is held. */
static unsigned choose_in(const struct qy_region *r, uint32_t fresh, struct look *looks, unsigned most)
{
	uint32_t run = (uint32_t)qy_region_frame(r), end = run + r->frames;
	unsigned n = 0;

	for (unsigned i = 0; run < end && i < LOOK_RUNS && n < most; i++, run += qy_block_length(&qy_run_map, run)) {
		uint32_t f = run + qy_block_length(&qy_run_map, run) / 2;
		const struct qy_frame *frame = qy_frame_at(f);
		uint32_t used = frame->filler != 0 ? frame->used : QY_FRAME_PAGES;

		if (!qy_block_used(&qy_run_map, run) || used == 0 || run == fresh)
			continue;
		looks[n++] = (struct look){ qy_window_at((uintptr_t)f << QY_FRAME_SHIFT), used };
	}
	return n;
}

static unsigned choose(struct qy_manager *m, uint32_t fresh, struct look *looks)
{
	unsigned n = 0, regions = 0;

	qy_lock(&m->lock);
	for (const struct qy_region *r = m->regions; r != NULL && regions < LOOK_REGIONS; r = r->next, regions++)
		n += choose_in(r, fresh, looks + n, qy_min(LOOKS - n, LOOKS / 2));
	qy_unlock(&m->lock);
	return n;
}

/* Whether what is in use is in memory: half of some frames of it. Nothing in use is nothing known, which counts as no.
 * (A frame may be given back meanwhile: then it counts as not in memory, once.) fresh is the first frame of a block that
 * nobody has touched yet, or 0. No lock may be held. */
static bool is_dense(struct qy_manager *m, uint32_t fresh)
{
	uint64_t used = qy_read(&m->used), at = atomic_load_explicit(&m->huge.looked_at, memory_order_relaxed);
	uint64_t change = used > at ? used - at : at - used, in_memory = 0, in_use = 0;
	struct look looks[LOOKS];
	unsigned n;

	if (at != 0 && change < qy_max(LOOK_AGAIN, at / 8))
		return atomic_load_explicit(&m->huge.dense, memory_order_relaxed);
	n = choose(m, fresh, looks);
	for (unsigned i = 0; i < n; i++) {
		in_use += looks[i].used;
		in_memory += qy_min(looks[i].used, qy_region_resident(looks[i].addr));
	}
	atomic_store_explicit(&m->huge.dense, in_use > 0 && in_memory * 2 >= in_use, memory_order_relaxed);
	atomic_store_explicit(&m->huge.looked_at, used, memory_order_relaxed);
	return in_use > 0 && in_memory * 2 >= in_use;
}

bool qy_huge_profits(struct qy_manager *m)
{
	int kind = kind_of(m);

	return kind == QUARRY_PAGES_THP || (kind == QUARRY_PAGES_AUTO && is_large(m, 0) && qy_budget_roomy());
}

/* Whether a block, or anything in a region of so many bytes, is to be huge if it can. */
static bool is_wanted(struct qy_manager *m, size_t block, size_t bytes, uint32_t fresh)
{
	return (block / 2 >= (size_t)qy_setting(thp_min) || (is_large(m, bytes) && is_dense(m, fresh))) && qy_budget_roomy();
}

int qy_huge_kind(struct qy_manager *m, const struct qy_placement *placement, uint32_t frames, uint32_t *want)
{
	int kind = kind_of(m);
	size_t block = (size_t)frames << QY_FRAME_SHIFT, bytes = (size_t)*want << QY_FRAME_SHIFT;

	if (kind != QUARRY_PAGES_AUTO)
		return kind;
	if (!is_wanted(m, block, bytes, 0) || !qy_thp_get().possible ||
	    ((qy_peek(placement->flags) & QUARRY_ARENA_FD) && !qy_thp_get().shared))
		return QUARRY_PAGES_BASE;
	/* What is strict is filled and looked at when it is mapped: it is there, or it is an error. */
	if (qy_peek(placement->flags) & QUARRY_ARENA_STRICT)
		return QUARRY_PAGES_THP;
	if (qy_region_has_room(placement, bytes, false))
		return QY_PAGES_BORN_HUGE;
	if (frames < *want && qy_region_has_room(placement, block, false)) {
		*want = frames;
		return QY_PAGES_BORN_HUGE;
	}
	return QUARRY_PAGES_BASE;
}

void qy_huge_born(struct qy_manager *m, void *block, size_t bytes)
{
	struct qy_region *r = qy_region_of_frame(qy_frame_at((uint32_t)(qy_window_offset(block) >> QY_FRAME_SHIFT)));
	size_t whole = bytes >> QY_FRAME_SHIFT, tail = bytes & (QY_FRAME - 1);
	bool born_huge = r->kind == QUARRY_PAGES_THP, room;
	char *end = (char *)block + (whole << QY_FRAME_SHIFT);

	if (kind_of(m) != QUARRY_PAGES_AUTO || qy_region_settled(r) || !qy_thp_get().possible)
		return;
	if (!born_huge && !is_wanted(m, bytes, 0, (uint32_t)(qy_window_offset(block) >> QY_FRAME_SHIFT)))
		return;
	room = whole == 0 || qy_region_has_room(qy_peek(r->placement), whole << QY_FRAME_SHIFT, born_huge);
	if (!born_huge) {
		if (room)
			qy_region_want(r, block, whole, QY_WANT_HUGE);
	} else if (!room) {
		/* There was when it was mapped, and others have taken it. */
		qy_region_want(r, block, whole + (tail != 0), QY_WANT_BASE);
	} else if (tail != 0 && (QY_FRAME - tail) * TAIL_SHARE > bytes) {
		qy_region_want(r, end, 1, QY_WANT_BASE);
	}
}

/* ---- what is in demand ---- */

static uint64_t peak_of(const struct qy_demand *demand)
{
	uint64_t peak = 0;

	for (unsigned i = 0; i < QY_DEMAND_STEPS; i++)
		peak = qy_max(peak, demand->peak[i]);
	return peak;
}

void qy_huge_note_demand(struct qy_manager *m, uint64_t now)
{
	struct qy_demand *demand = &m->huge.demand;
	long decay_ms = qy_limits_decay(qy_manager_decay_set(m));
	uint32_t step_ms = (uint32_t)qy_max((size_t)(decay_ms > 0 ? decay_ms : 0) / (4 * QY_DEMAND_STEPS), 1);
	uint64_t step = now / step_ms, steps = step - demand->step;

	if (demand->step_ms != step_ms || step < demand->step) {
		/* Pressure came or went: what was in demand until now is so for the time that counts from now on. */
		uint64_t peak = peak_of(demand);

		memset(demand->peak, 0, sizeof(demand->peak));
		demand->peak[0] = peak;
		demand->step_ms = step_ms;
		steps = 0;
	}
	if (steps > 0)
		for (unsigned i = QY_DEMAND_STEPS; i-- > 0;)
			demand->peak[i] = i >= steps ? demand->peak[i - steps] : 0;
	demand->step = step;
	demand->peak[0] = qy_max(demand->peak[0], qy_read(&m->used));
}

bool qy_huge_may_break(struct qy_manager *m, uint32_t frame, uint64_t now)
{
	const struct qy_frame *f = qy_frame_at(frame);
	uint64_t used = qy_read(&m->used), rest = qy_read(&m->dirty_pages), here = f->filler != 0 ? f->dirty : 0;

	if (!qy_region_may_be_huge(qy_region_of_frame(f), qy_window_at((uintptr_t)frame << QY_FRAME_SHIFT)))
		return true;
	qy_huge_note_demand(m, now);
	rest = rest > here ? (rest - here) << QY_PAGE_SHIFT : 0;
	return peak_of(&m->huge.demand) <= used + rest;
}
