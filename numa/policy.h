/* SPDX-License-Identifier: MIT */
/* Memory policy: quarry's policies in the kernel's terms. */
#ifndef QUARRY_NUMA_POLICY_H
#define QUARRY_NUMA_POLICY_H

#include "numa/region.h"

/* Bind [addr, addr + len) as the placement asks; when it is strict, so that no other node is ever taken.
 * QY_PLACED_NO with errno when the kernel refused; counted by cause. */
enum qy_placed qy_policy_apply(const struct qy_placement *placement, void *addr, size_t len);

/* The same as if it were strict, whatever it is: for while a region is filled from a pool of huge pages. */
enum qy_placed qy_policy_apply_firm(const struct qy_placement *placement, void *addr, size_t len);

/* Whether the calling thread was given a memory policy of its own (set_mempolicy(2), numactl(8)): what the program or
 * its administrator decided is not this library's to overrule, where it was not asked to. */
bool qy_policy_is_set(void);

/* The same as if it were not strict: for memory that is all there. */
enum qy_placed qy_policy_apply_soft(const struct qy_placement *placement, void *addr, size_t len);

/* Bind to one node (the kernel's id) and no other, for while pages are taken there. Counted when refused. */
bool qy_policy_bind_one(int kernel_id, void *addr, size_t len);

/* Prefer one node (dense) for quarry's own records; nothing on a machine of one node, and for -1. */
void qy_policy_prefer(int dense, void *addr, size_t len);

#endif
