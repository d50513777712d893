/* SPDX-License-Identifier: MIT */
/* What the process's memory control group still allows. A control group kills where malloc should have said NULL:
 * the kernel finds out when memory is touched, long after it was asked for. So under such a limit quarry counts what
 * it hands out of memory that was not touched yet, against what the group has left, and says ENOMEM first.
 *
 * Without a limit, and in a process that has little memory, none of this costs more than a load. */
#ifndef QUARRY_MANAGER_BUDGET_H
#define QUARRY_MANAGER_BUDGET_H

#include "lib/base/base.h"

extern QY_HIDDEN _Atomic(int64_t) qy_budget_left; /* INT64_MAX: no limit */

bool qy_budget_take_slow(size_t bytes);

/* Before so many bytes of clean memory are handed out. Any locks may be held. What was read counts for a tenth of a
 * second and for some megabytes, since a limit may be lowered: so this may say no where there is room, and whoever is
 * refused refreshes and tries again. */
QY_INLINE bool qy_budget_take(size_t bytes)
{
	if (QY_LIKELY(atomic_load_explicit(&qy_budget_left, memory_order_relaxed) == INT64_MAX))
		return true;
	return qy_budget_take_slow(bytes);
}

/* How much of such a limit is left to page tables, stacks, quarry's records and what the kernel counts late: bytes. */
uint64_t qy_budget_reserve(uint64_t limit);

/* Whether there is room for huge pages, which hold more than is asked for: no limit, or a wide one not half used. */
bool qy_budget_roomy(void);

/* Before a take that cannot be tried again. No lock may be held: files may be read. */
void qy_budget_prepare(size_t bytes);

/* Read what the group has left. Files are read: no lock may be held. Returns whether so many bytes can be taken. */
bool qy_budget_refresh(size_t bytes);

#endif
