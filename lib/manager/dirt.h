/* SPDX-License-Identifier: MIT */
/* The manager's dirty list: frames with free memory that is still in memory, those left alone longest first. An entry
 * is a frame that pages are carved from, or the first frame of a free dirty run. Under the manager's lock. */
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

static inline bool qy_dirt_has(uint32_t f)
{
	return qy_frame_at(f)->dirt[0] != 0;
}

static inline void qy_dirt_remove(struct qy_manager *m, uint32_t f)
{
	struct qy_chain chain = qy_dirt_chain();

	if (qy_dirt_has(f))
		qy_chain_remove(&chain, &m->dirty_first, f);
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
	qy_chain_push_back(&chain, &m->dirty_first, f);
	if (atomic_load_explicit(&qy_dirt_seen, memory_order_relaxed) == 0)
		atomic_store_explicit(&qy_dirt_seen, 1, memory_order_relaxed);
}

#endif
