/* SPDX-License-Identifier: MIT */
#include "lib/manager/homing.h"

#include "lib/base/settings.h"
#include "lib/manager/move.h"
#include "numa/topology.h"

#define SOON_MS 1000
#define RARELY_MS 64000
#define AGAIN_MS 20     /* between two passes of one cycle */
#define TRUST 16        /* looks by the count alone, between two that go and see */
#define AFTER_CHANGE 6  /* looks that go and see after a cpuset has changed, 1, 2, 4 … s apart */

static _Atomic(uint64_t) due = UINT64_MAX; /* ms; when to look again */
static _Atomic(uint32_t) soon;             /* memory came: do not wait as long as the last time */
static _Atomic(uint32_t) forced;           /* so many times: nor for the kernel's count */

/* The rest is under the purge lock: of one pass at a time. */
static uint64_t wait_ms = SOON_MS;
static unsigned looks;
static uint64_t moved; /* bytes, in this cycle */
static unsigned fruitless; /* cycles in a row that found strays and moved none */
static bool cycle; /* some managers are not looked at yet */
static uint64_t last_foreign[QY_NODES_MAX]; /* by dense node */

void qy_homing_wake(void)
{
	if (qy_node_count() == 1)
		return;
	atomic_store_explicit(&soon, 1, memory_order_relaxed);
	/* The reclaimer may sleep for long. */
	qy_dirt_call(QY_DIRT_FOR_SLEEPER);
}

void qy_homing_restart(void)
{
	atomic_store_explicit(&forced, AFTER_CHANGE, memory_order_relaxed);
	atomic_store_explicit(&due, 0, memory_order_relaxed);
}

/* Whether any node has turned pages away since the last look. */
static bool pages_strayed(void)
{
	bool any = false;

	for (int i = 0; i < qy_node_count(); i++) {
		uint64_t foreign = qy_node_foreign(i);

		any = any || foreign != last_foreign[i];
		last_foreign[i] = foreign;
	}
	return any;
}

/* A manager whose nodes are all forbidden by now has no home. */
static bool has_home(const struct qy_manager *m)
{
	const struct qy_placement *placement = qy_peek(m->placement);

	return placement->bind && qy_node_nearest(&placement->nodes, -1) >= 0;
}

static bool some_are_known(void)
{
	for (struct qy_manager *m = qy_manager_next(NULL); m != NULL; m = qy_manager_next(m))
		if (qy_read(&m->strayed) != 0)
			return true;
	return false;
}

/* The kernel moves a process's pages after it has changed the cpuset, in a work queue (cpuset_migrate_mm(), 4.6 on), and
 * counts none of them as turned away: one look may come before all of it. */
static bool take_forced(void)
{
	uint32_t left = atomic_load_explicit(&forced, memory_order_relaxed);

	while (left != 0)
		if (atomic_compare_exchange_weak_explicit(&forced, &left, left - 1, memory_order_relaxed,
							  memory_order_relaxed))
			return true;
	return false;
}

/* What strays is looked at soon again; when it cannot come home (the node is somebody else's, the pages are shared with
 * a child), ever more rarely. */
static uint64_t until_next_cycle(void)
{
	uint64_t wait = wait_ms;

	if (some_are_known())
		return qy_min((uint64_t)SOON_MS << qy_min(fruitless / 2, 8), RARELY_MS);
	if (atomic_load_explicit(&forced, memory_order_relaxed) != 0)
		wait_ms = qy_min(wait_ms * 2, RARELY_MS);
	return wait;
}

static void begin_cycle(void)
{
	cycle = true;
	for (struct qy_manager *m = qy_manager_next(NULL); m != NULL; m = qy_manager_next(m)) {
		/* One that is being moved is looked after by its mover. */
		m->homing.pending = !m->homing.moving && has_home(m);
		m->homing.frame = 0;
		m->homing.left = 0;
		if (!m->homing.pending && !m->homing.moving)
			atomic_store_explicit(&m->strayed, 0, memory_order_relaxed);
	}
}

/* One manager's next pieces. Returns the bytes looked at. */
static size_t look_at(struct qy_manager *m, size_t at_most)
{
	struct qy_move move = { .frame = m->homing.frame, .only_if_room = true };
	int more = 1;

	while (more > 0 && move.looked < at_most)
		more = qy_move_step(m, &move);
	m->homing.frame = move.frame;
	m->homing.left += move.sum.left;
	moved += move.sum.moved;
	qy_count_shared(&m->brought_home, move.sum.moved);
	if (more <= 0) {
		m->homing.pending = false;
		qy_fallback_strayed(m, m->homing.left, qy_read(&m->strayed));
		atomic_store_explicit(&m->strayed, m->homing.left, memory_order_relaxed);
	}
	return move.looked;
}

static bool begin_if_due(uint64_t now)
{
	uint64_t at = atomic_load_explicit(&due, memory_order_relaxed);

	if (atomic_exchange_explicit(&soon, 0, memory_order_relaxed)) {
		wait_ms = SOON_MS;
		at = qy_min(at, now + SOON_MS);
	}
	atomic_store_explicit(&due, at, memory_order_relaxed);
	if (now < at)
		return false;
	if (take_forced() || pages_strayed() || some_are_known() || ++looks % TRUST == 0) {
		begin_cycle();
		return true;
	}
	wait_ms = qy_min(wait_ms * 2, RARELY_MS);
	atomic_store_explicit(&due, now + wait_ms, memory_order_relaxed);
	return false;
}

static void pass(uint64_t now, size_t at_most)
{
	size_t looked = 0;

	if (!cycle && !begin_if_due(now))
		return;
	cycle = false;
	for (struct qy_manager *m = qy_manager_next(NULL); m != NULL; m = qy_manager_next(m)) {
		if (m->homing.pending && looked < at_most)
			looked += look_at(m, at_most - looked);
		cycle = cycle || m->homing.pending;
	}
	if (cycle) {
		atomic_store_explicit(&due, now + AGAIN_MS, memory_order_relaxed);
		return;
	}
	fruitless = !some_are_known() || moved > 0 ? 0 : fruitless + 1;
	moved = 0;
	atomic_store_explicit(&due, now + until_next_cycle(), memory_order_relaxed);
}

bool qy_homing_pass(uint64_t now, size_t at_most, uint64_t *next)
{
	bool more;

	*next = UINT64_MAX;
	if (qy_node_count() == 1 || qy_nodes_made_up() || !qy_setting(bring_home))
		return false;
	/* Who gives back, forks, or moves or ends an arena does not hold this up. */
	if (!qy_purge_try()) {
		*next = now + AGAIN_MS;
		return false;
	}
	qy_managers_follow_cpuset();
	pass(now, at_most);
	more = cycle;
	qy_purge_done();
	*next = atomic_load_explicit(&due, memory_order_relaxed);
	return more;
}
