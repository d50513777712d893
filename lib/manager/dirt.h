/* SPDX-License-Identifier: MIT */
/* The manager's dirty lists: free memory that is still in memory, what was left alone longest first. One has the first
 * frames of free dirty runs, whole huge pages that can go as they are; the other has frames of which pages are carved
 * and some are free and dirty. Under the manager's lock. */
#ifndef QUARRY_MANAGER_DIRT_H
#define QUARRY_MANAGER_DIRT_H

#include "lib/base/chain.h"
#include "lib/manager/manager.h"
#include "numa/os.h"

static inline struct qy_chain qy_dirt_chain(void)
{
	return (struct qy_chain){ qy_window.frame_side + offsetof(struct qy_frame, dirt),
				  (size_t)1 << QY_FRAME_SIDE_SHIFT };
}

/* Before more pages are dirty. */
static inline void qy_dirt_note(struct qy_manager *m)
{
	qy_decay_note(&m->decay, qy_read(&m->dirty_pages), qy_os->now_ms(), qy_manager_decay_set(m));
}

static inline uint32_t *qy_dirt_list_of(struct qy_manager *m, uint32_t f)
{
	return &m->dirty[qy_frame_at(f)->filler != 0 ? QY_DIRT_PARTS : QY_DIRT_RUNS];
}

static inline bool qy_dirt_has(uint32_t f)
{
	return qy_frame_at(f)->dirt[0] != 0;
}

static inline void qy_dirt_remove(struct qy_manager *m, uint32_t f)
{
	struct qy_chain chain = qy_dirt_chain();

	if (qy_dirt_has(f))
		qy_chain_remove(&chain, qy_dirt_list_of(m, f), f);
}

/* Whether the run that begins at f is free and all of its region. */
static inline bool qy_dirt_is_region(uint32_t f)
{
	const struct qy_region *r = qy_region_of_frame(qy_frame_at(f));

	return qy_frame_at(f)->filler == 0 && f == qy_region_frame(r) && !qy_block_used(&qy_run_map, f) &&
	       qy_block_length(&qy_run_map, f) == r->frames;
}

/* Note that the frame became dirtier now: it goes to the end. Pinned memory goes back by whole regions, or not at all,
 * and is listed only so. */
static inline void qy_dirt_add(struct qy_manager *m, uint32_t f)
{
	struct qy_chain chain = qy_dirt_chain();
	struct qy_frame *frame = qy_frame_at(f);

	if ((qy_region_pinned(qy_region_of_frame(frame)) && !qy_dirt_is_region(f)) ||
	    (qy_peek(qy_peek(m->placement)->flags) & QUARRY_ARENA_LOCKED))
		return;
	qy_dirt_remove(m, f);
	frame->stamp = (uint32_t)qy_os->now_ms();
	qy_chain_push_back(&chain, qy_dirt_list_of(m, f), f);
	if (atomic_load_explicit(&qy_dirt_seen, memory_order_relaxed) != QY_DIRT_NEW)
		atomic_store_explicit(&qy_dirt_seen, QY_DIRT_NEW, memory_order_relaxed);
}

/* The entry of f is as old as it was before it was taken out: it comes first again. */
static inline void qy_dirt_keep_first(struct qy_manager *m, uint32_t f, uint32_t stamp)
{
	struct qy_chain chain = qy_dirt_chain();

	if (!qy_dirt_has(f))
		return;
	qy_dirt_remove(m, f);
	qy_frame_at(f)->stamp = stamp;
	qy_chain_push_front(&chain, qy_dirt_list_of(m, f), f);
}

#endif
