/* SPDX-License-Identifier: MIT */
#include "lib/manager/fallback.h"

#include "lib/base/probe.h"
#include "lib/manager/events.h"
#include "lib/manager/manager.h"
#include "numa/os.h"
#include "numa/region.h"
#include "numa/topology.h"

#define SERIES_MS 1000 /* between two events of a series */

static uint64_t packed(int was, int state, uint64_t bytes)
{
	return (uint64_t)(uint16_t)was << 48 | (uint64_t)(uint16_t)state << 32 | qy_min(bytes >> QY_PAGE_SHIFT, UINT32_MAX);
}

static void tell(struct qy_manager *head, int what, struct qy_fallback *f)
{
	uint64_t last = atomic_load_explicit(&f->last, memory_order_relaxed);
	quarry_event event = {
		.kind = QUARRY_EVENT_FALLBACK,
		.what = what,
		.state = (int16_t)(last >> 32),
		.was = (int16_t)(last >> 48),
		.arena = &qy_arenas[qy_peek(head->index)],
		.bytes = (last & UINT32_MAX) << QY_PAGE_SHIFT,
		.count = atomic_exchange_explicit(&f->untold, 0, memory_order_relaxed),
	};

	if (event.count != 0)
		qy_events_note(&event);
}

static bool may_tell(struct qy_fallback *f, uint64_t now)
{
	uint64_t before = atomic_load_explicit(&f->told_ms, memory_order_relaxed);

	return (before == 0 || now + 1 - before >= SERIES_MS) &&
	       atomic_compare_exchange_strong_explicit(&f->told_ms, &before, now + 1, memory_order_relaxed,
						       memory_order_relaxed);
}

static QY_COLD void note(struct qy_manager *m, int what, int was, int state, uint64_t bytes)
{
	struct qy_manager *head = qy_peek(m->head);
	struct qy_fallback *f = &head->fallback[what - 1];

	QY_PROBE4(fallback, what, was, state, bytes);
	atomic_store_explicit(&f->last, packed(was, state, bytes), memory_order_relaxed);
	qy_count_shared(&f->untold, 1);
	if (may_tell(f, qy_os->now_ms()))
		tell(head, what, f);
}

/* What an older kernel has instead. */
static int stands_in(int policy)
{
	return policy == QUARRY_POLICY_WEIGHTED_INTERLEAVE ? QUARRY_POLICY_INTERLEAVE
	       : policy == QUARRY_POLICY_PREFERRED_MANY	  ? QUARRY_POLICY_PREFERRED
							  : QUARRY_POLICY_LOCAL;
}

void qy_fallback_region(struct qy_manager *m, const struct qy_region *r)
{
	const struct qy_placement *placement = qy_peek(r->placement);
	uint64_t bytes = (uint64_t)r->frames << QY_FRAME_SHIFT;

	if (QY_UNLIKELY(r->kind < r->kind_wanted))
		note(m, QUARRY_FALLBACK_PAGES, r->kind_wanted, r->kind, bytes);
	if (QY_UNLIKELY(placement->bind && r->placed != QY_PLACED_YES))
		note(m, QUARRY_FALLBACK_POLICY, placement->policy,
		     r->placed == QY_PLACED_LESS ? stands_in(placement->policy) : -1, bytes);
}

void qy_fallback_strayed(struct qy_manager *m, uint64_t bytes, uint64_t before)
{
	const struct qy_placement *placement = qy_peek(m->placement);

	if (bytes > before)
		note(m, QUARRY_FALLBACK_NODE, placement->node < 0 ? -1 : qy_node_kernel_id(placement->node), -1, bytes);
}

bool qy_fallback_follow_up(struct qy_manager *head, uint64_t now)
{
	bool waiting = false;

	for (int what = 1; what <= QY_FALLBACKS; what++) {
		struct qy_fallback *f = &head->fallback[what - 1];

		if (atomic_load_explicit(&f->untold, memory_order_relaxed) == 0)
			continue;
		if (may_tell(f, now))
			tell(head, what, f);
		waiting = waiting || atomic_load_explicit(&f->untold, memory_order_relaxed) != 0;
	}
	return waiting;
}
