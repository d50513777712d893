/* SPDX-License-Identifier: MIT */
#include "lib/manager/quota.h"

#include "lib/base/lock.h"
#include "lib/base/settings.h"
#include "lib/manager/manager.h"

#define QUANTUM_MAX ((uint64_t)8 << 20)
#define QUANTUM_SHARE 64 /* of what is left: the quantum is at most that part of it */

static struct qy_lock lock = QY_LOCK_INIT(QY_RANK_LEAF);
static long last_limit;
_Atomic(uint32_t) qy_quota_epoch;
static _Atomic(uint64_t) taken; /* bytes in use, and in managers' hands; written under the lock */

static uint64_t taken_now(void)
{
	return atomic_load_explicit(&taken, memory_order_relaxed);
}

static void set_taken(uint64_t bytes)
{
	atomic_store_explicit(&taken, bytes, memory_order_relaxed);
}

/* How much to take beyond what is needed. */
static uint64_t quantum(uint64_t limit)
{
	uint64_t left = limit > taken_now() ? limit - taken_now() : 0;

	return limit == 0 ? QUANTUM_MAX : qy_min(left / QUANTUM_SHARE, QUANTUM_MAX);
}

/* What the manager has in hand goes back. The lock is held. */
static void empty_hand(struct qy_quota *quota)
{
	set_taken(taken_now() - atomic_exchange_explicit(&quota->in_hand, 0, memory_order_relaxed));
}

/* The limit as it is now. Since the last look others may have taken more than it allows. The lock is held. */
static long look_at_limit(void)
{
	long limit = qy_setting(hard_limit);

	if (limit != last_limit)
		atomic_fetch_add_explicit(&qy_quota_epoch, 1, memory_order_relaxed);
	last_limit = limit;
	return limit;
}

/* The lock is held. */
static bool take(struct qy_quota *quota, size_t bytes, long limit)
{
	uint64_t now = taken_now(), more;

	if (limit != 0 && (now > (uint64_t)limit || bytes > (uint64_t)limit - now))
		return false;
	set_taken(now + bytes);
	more = quantum((uint64_t)limit);
	set_taken(now + bytes + more);
	atomic_fetch_add_explicit(&quota->in_hand, more, memory_order_relaxed);
	/* From now on no more is taken than it allows, so that what comes to be in hand may be used. */
	quota->limit = limit;
	quota->epoch = atomic_load_explicit(&qy_quota_epoch, memory_order_relaxed);
	return true;
}

/* Take from all managers what they have in hand. The lock is held. */
static void empty_all_hands(void)
{
	for (struct qy_manager *m = qy_manager_next(NULL); m != NULL; m = qy_manager_next(m))
		empty_hand(&m->quota);
}

bool qy_quota_charge_slow(struct qy_quota *quota, size_t bytes)
{
	bool allowed;
	long limit;

	qy_lock(&lock);
	limit = look_at_limit();
	empty_hand(quota);
	allowed = take(quota, bytes, limit);
	if (!allowed) {
		empty_all_hands();
		allowed = take(quota, bytes, limit);
	}
	qy_unlock(&lock);
	return allowed;
}

/* Keep a quantum. */
void qy_quota_give_back(struct qy_quota *quota)
{
	uint64_t in_hand = atomic_load_explicit(&quota->in_hand, memory_order_relaxed), keep;

	qy_lock(&lock);
	empty_hand(quota);
	keep = qy_min(quantum((uint64_t)look_at_limit()), in_hand);
	set_taken(taken_now() + keep);
	atomic_fetch_add_explicit(&quota->in_hand, keep, memory_order_relaxed);
	qy_unlock(&lock);
}

void qy_quota_end(struct qy_quota *quota)
{
	qy_lock(&lock);
	empty_hand(quota);
	qy_unlock(&lock);
}

uint64_t qy_quota_used(void)
{
	uint64_t sum = 0, now;

	qy_lock(&lock);
	now = taken_now();
	for (struct qy_manager *m = qy_manager_next(NULL); m != NULL; m = qy_manager_next(m))
		sum += atomic_load_explicit(&m->quota.in_hand, memory_order_relaxed);
	qy_unlock(&lock);
	/* (What is being charged or given back meanwhile may be seen once or twice.) */
	return now > sum ? now - sum : 0;
}

uint64_t qy_quota_settle(void)
{
	uint64_t now;

	qy_lock(&lock);
	empty_all_hands();
	now = taken_now();
	qy_unlock(&lock);
	return now;
}

uint64_t qy_quota_taken(void)
{
	return taken_now();
}

void qy_quota_after_fork(void)
{
	qy_lock_init(&lock, QY_RANK_LEAF);
}

void qy_quota_recount(void)
{
	uint64_t sum = 0;

	for (struct qy_manager *m = qy_manager_next(NULL); m != NULL; m = qy_manager_next(m))
		sum += qy_read(&m->used) + atomic_load_explicit(&m->quota.in_hand, memory_order_relaxed);
	set_taken(sum);
}
