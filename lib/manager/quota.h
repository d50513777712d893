/* SPDX-License-Identifier: MIT */
/* What the whole process has in use, against the option hard_limit.
 *
 * Managers charge what they hand out to a quota that they have in hand of the process's budget, and go for more in
 * quanta of megabytes: a word of their own, under their own lock. The quanta shrink as the limit comes near, and what
 * other managers have in hand is taken back before anybody is refused. So the limit is exact in both directions (no
 * byte more is in use, and none that is left is refused), and far from it nobody shares a word with others. It is kept
 * whether there is a limit or not, so that one can be set at any time.
 *
 * Lock: a leaf, taken under a manager's; taken once for a quantum, and for each charge close to the limit. */
#ifndef QUARRY_MANAGER_QUOTA_H
#define QUARRY_MANAGER_QUOTA_H

#include "lib/base/base.h"
#include "lib/base/settings.h"

struct qy_manager;

/* A manager's part. */
struct qy_quota {
	_Atomic(uint64_t) in_hand; /* bytes, taken from the process's budget and not in use */
	/* What was in force when it was taken. A limit that was lowered may be under what is in use: then nothing may
	 * be had of what was in hand before. Under the manager's lock. */
	long limit;
	uint32_t epoch;
};

extern QY_HIDDEN _Atomic(uint32_t) qy_quota_epoch; /* grows when the limit is seen to have changed */

bool qy_quota_charge_slow(struct qy_quota *quota, size_t bytes) QY_COLD;
void qy_quota_give_back(struct qy_quota *quota) QY_COLD;

#define QY_QUOTA_MOST ((uint64_t)16 << 20) /* more than so much is not kept in hand */

/* Bytes are about to be used; false when the limit does not allow it. The manager's lock is held. */
QY_INLINE bool qy_quota_charge(struct qy_quota *quota, size_t bytes)
{
	uint64_t in_hand = atomic_load_explicit(&quota->in_hand, memory_order_relaxed);

	/* (Others can only take it back.) */
	if (QY_LIKELY(in_hand >= bytes && quota->limit == qy_setting(hard_limit) &&
		      quota->epoch == atomic_load_explicit(&qy_quota_epoch, memory_order_relaxed)) &&
	    QY_LIKELY(atomic_compare_exchange_strong_explicit(&quota->in_hand, &in_hand, in_hand - bytes,
							      memory_order_relaxed, memory_order_relaxed)))
		return true;
	return qy_quota_charge_slow(quota, bytes);
}

/* Bytes that were charged are not used after all, or no longer. The manager's lock is held. */
QY_INLINE void qy_quota_uncharge(struct qy_quota *quota, size_t bytes)
{
	uint64_t was = atomic_fetch_add_explicit(&quota->in_hand, bytes, memory_order_relaxed);

	if (QY_UNLIKELY(was + bytes > QY_QUOTA_MOST))
		qy_quota_give_back(quota);
}

/* The manager is no more: all that it has in hand goes back. */
void qy_quota_end(struct qy_quota *quota);

/* Bytes in use by the process; and what is known of them without a look at every manager, which may be some
 * quanta more. */
uint64_t qy_quota_used(void);
uint64_t qy_quota_taken(void);

/* Bytes in use, after what managers have in hand was taken back: for who decides by them again and again, near a limit,
 * where qy_quota_taken is right then until they take quanta again, which are small there. */
uint64_t qy_quota_settle(void);

void qy_quota_after_fork(void); /* in the child */

/* In the child of a fork that no slow path was in the midst of: another thread may have been between a hand and the
 * sum. */
void qy_quota_recount(void);

#endif
