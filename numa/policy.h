/* SPDX-License-Identifier: MIT */
/* Memory policy: quarry's policies in the kernel's terms. */
#ifndef QUARRY_NUMA_POLICY_H
#define QUARRY_NUMA_POLICY_H

#include "numa/region.h"

/* Bind [addr, addr + len) as the placement asks. QY_PLACED_NO with errno when the kernel refused; counted by cause. */
enum qy_placed qy_policy_apply(const struct qy_placement *placement, void *addr, size_t len);

#endif
