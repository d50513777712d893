/* SPDX-License-Identifier: MIT */
/* A picture of all figures as metrics. No state. */
#ifndef QUARRY_VIEW_METRICS_H
#define QUARRY_VIEW_METRICS_H

#include "include/quarry/quarry.h"
#include "lib/base/text.h"

#define QY_METRICS_KNOWN (QUARRY_METRICS_ARENAS | QUARRY_METRICS_CLASSIC)

/* -1 with the errors of quarry_published_look, nothing written. flags: enum quarry_metrics_flags, or-ed. */
int qy_metrics_write(struct qy_text *out, const void *picture, size_t size, unsigned flags);

#endif
