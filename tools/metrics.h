/* SPDX-License-Identifier: MIT */
#ifndef QUARRY_TOOLS_METRICS_H
#define QUARRY_TOOLS_METRICS_H

#include "tools/published.h"

/* Answer HTTP on a Unix socket with the metrics of the process, to several at once, until the process ends or a signal ends
 * this one. flags: enum quarry_metrics_flags. */
int metrics_serve(struct published *from, const char *path, unsigned flags);

#endif
