/* SPDX-License-Identifier: MIT */
#include "lib/reclaim/pass.h"

#include <limits.h>

#include "lib/base/checker.h"
#include "lib/base/probe.h"
#include "lib/base/settings.h"
#include "lib/manager/limits.h"
#include "lib/manager/manager.h"
#include "numa/os.h"

#define LEAST_STEP_MS 50
#define STEP_NEVER_MS 1000 /* a decay that stands in for "never by time" */

static _Atomic(uint32_t) running;   /* one pass at a time */
static qy_counter passes, pass_ns;
static uint64_t begun_ns;           /* of the one pass */
_Atomic(uint32_t) qy_reclaim_round;
static _Atomic(uint64_t) round_at;  /* ms, when it began; 0: none has */
static unsigned place;              /* in the list of managers, where the last pass was ended; of one pass at a time */
static _Atomic(long) shortest = -1; /* ms, of what arenas have as a decay of their own; -1: none */

bool qy_pass_begin(void)
{
	if (atomic_exchange_explicit(&running, 1, memory_order_acquire) != 0)
		return false;
	qy_checker_hush(true);
	begun_ns = qy_os->now_ns();
	return true;
}

void qy_pass_end(void)
{
	qy_checker_hush(false);
	qy_count_shared(&pass_ns, qy_os->now_ns() - begun_ns);
	atomic_store_explicit(&running, 0, memory_order_release);
}

uint64_t qy_reclaim_passes(void)
{
	return qy_read(&passes);
}

uint64_t qy_reclaim_pass_ns(void)
{
	return qy_read(&pass_ns);
}

uint64_t qy_pass_step(long decay_ms)
{
	return qy_max((size_t)(decay_ms < 0 ? STEP_NEVER_MS : decay_ms) / 8, LEAST_STEP_MS);
}

void qy_pass_look(void)
{
	long found = -1;

	for (struct qy_manager *m = qy_manager_next(NULL); m != NULL; m = qy_manager_next(m)) {
		long own = atomic_load_explicit(&qy_peek(m->head)->decay_ms, memory_order_relaxed);

		if (own >= 0 && (found < 0 || own < found))
			found = own;
	}
	atomic_store_explicit(&shortest, found, memory_order_relaxed);
}

void qy_pass_note(uint64_t now, long decay_ms)
{
	uint64_t begun;

	qy_count_shared(&passes, 1);
	qy_pass_look();
	/* (By the decay that is in force now: with pressure, that is less than when the round began.) */
	begun = atomic_load_explicit(&round_at, memory_order_relaxed);
	if (begun != 0 && now >= begun && now - begun < qy_pass_step(qy_limits_threads_decay(decay_ms)))
		return;
	atomic_fetch_add_explicit(&qy_reclaim_round, 1, memory_order_relaxed);
	atomic_store_explicit(&round_at, now, memory_order_relaxed);
}

static uint64_t step_of_process(void)
{
	return qy_pass_step(qy_limits_decay(qy_setting(decay_ms)));
}

uint64_t qy_pass_soonest(void)
{
	long own = atomic_load_explicit(&shortest, memory_order_relaxed);

	return own < 0 ? step_of_process() : qy_min(step_of_process(), qy_pass_step(qy_limits_decay(own)));
}

bool qy_pass_comes_late(uint64_t now, uint64_t next)
{
	return next != UINT64_MAX && next > now + qy_pass_soonest();
}

static size_t purge_one(struct qy_manager *m, const struct qy_pass *p, uint64_t *due)
{
	size_t most = qy_min(p->each, p->at_most - p->total);
	long decay_ms = qy_manager_decay(m, p->decay_ms);

	return p->locked ? qy_manager_purge_until(m, p->now, decay_ms, most, p->until_ns, due)
			 : qy_manager_purge_in_time(m, p->now, decay_ms, most, p->until_ns, due);
}

/* One after the other, those from number first to before number end, as far as the bounds allow. */
static bool purge_some(struct qy_pass *p, unsigned first, unsigned end)
{
	uint64_t due;
	unsigned i = 0;

	for (struct qy_manager *m = qy_manager_next(NULL); m != NULL && i < end; m = qy_manager_next(m), i++) {
		if (i < first)
			continue;
		if (p->total >= p->at_most || (p->until_ns != UINT64_MAX && qy_os->now_ns() >= p->until_ns)) {
			place = i;
			return false;
		}
		p->total += purge_one(m, p, &due);
		p->next = qy_min(p->next, due);
	}
	return true;
}

bool qy_pass_over_managers(struct qy_pass *pass)
{
	unsigned from = pass->until_ns == UINT64_MAX ? 0 : place;
	bool done;

	pass->total = 0;
	pass->next = UINT64_MAX;
	QY_PROBE1(reclaim_begin, pass->decay_ms);
	done = purge_some(pass, from, UINT_MAX) && purge_some(pass, 0, from);
	QY_PROBE2(reclaim_end, pass->total, done);
	return done;
}

void qy_reclaim_note_decay(long decay_ms)
{
	long was = atomic_load_explicit(&shortest, memory_order_relaxed);
	uint64_t step = qy_pass_soonest();

	while (decay_ms >= 0 && (was < 0 || decay_ms < was))
		if (atomic_compare_exchange_weak(&shortest, &was, decay_ms))
			break;
	/* Who waits may do so for as long as all others allow. */
	if (qy_pass_soonest() < step)
		qy_reclaim_look();
}
