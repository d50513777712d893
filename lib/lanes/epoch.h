/* SPDX-License-Identifier: MIT */
/* Epochs: which scopes are over. (scope.c) */
#ifndef QUARRY_LANES_EPOCH_H
#define QUARRY_LANES_EPOCH_H

#include "lib/lanes/word.h"

extern QY_HIDDEN _Atomic(uint64_t) qy_epoch;
extern QY_HIDDEN _Atomic(uint64_t) qy_epoch_safe; /* all scopes that began in epochs below it are over */

/* The epoch that a tombstone of now has: not one of before the exchange that ended the object. */
QY_INLINE uint32_t qy_epoch_now(void)
{
	return (uint32_t)atomic_load(&qy_epoch) & (QY_TOMB - 1);
}

/* Stamps of tombstones have 31 bits: they are compared around the end. */
#define QY_STAMP_MASK (QY_TOMB - 1)

/* Whether all scopes of that epoch and before are known to be over, `safe` being qy_epoch_safe of now or before. */
QY_INLINE bool qy_stamp_over(uint32_t stamp, uint64_t safe)
{
	return (((uint32_t)safe - stamp) & QY_STAMP_MASK) - 1 < QY_STAMP_MASK / 2;
}

QY_INLINE bool qy_epoch_over(uint32_t stamp)
{
	return qy_stamp_over(stamp, atomic_load_explicit(&qy_epoch_safe, memory_order_acquire));
}

/* Begin a grace period: the epoch to be waited for. All threads have had a fence. */
uint64_t qy_grace_begin(void);
/* Look whether it is over; if so qy_epoch_over knows. */
bool qy_grace_look(uint64_t epoch);
/* Wait until it is over, or the clock (ns; 0: never) says no. */
bool qy_grace_wait(uint64_t epoch, uint64_t deadline);

void qy_scope_fence(void);

#endif
