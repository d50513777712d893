/* SPDX-License-Identifier: MIT */
/* How the process is doing with memory (quarry_health), and its lines in quarry_stats_print. */
#ifndef QUARRY_VIEW_HEALTH_H
#define QUARRY_VIEW_HEALTH_H

#include "include/quarry/quarry.h"
#include "lib/base/text.h"

/* "pressure", with a line for each thing to tell; and the object of that name. */
void qy_health_print(struct qy_text *out);
void qy_health_json(struct qy_text *out);

#endif
