/* SPDX-License-Identifier: MIT */
/* What the kernel refused, counted by cause for quarry_stats. Process-wide; any thread adds. */
#ifndef QUARRY_BASE_REFUSED_H
#define QUARRY_BASE_REFUSED_H

#include "include/quarry/quarry.h"
#include "lib/base/base.h"

extern QY_HIDDEN qy_counter qy_refused[QUARRY_REFUSED_COUNT];

static inline void qy_refuse(enum quarry_refusal cause)
{
	qy_count_shared(&qy_refused[cause], 1);
}

#endif
