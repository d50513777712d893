/* SPDX-License-Identifier: MIT */
/* What every public function that can be a program's first does first. */
#ifndef QUARRY_API_INIT_H
#define QUARRY_API_INIT_H

#include "lib/base/base.h"

/* Make quarry usable, if it is not yet. What fails for want of memory fails again, and says so, where it matters. */
void qy_init_once(void);

/* Of what is told at exit (lib/view/exit.c), which has no more than a constructor and a destructor, so that nothing else
 * would take it into a static program. */
extern QY_HIDDEN const char qy_at_exit;

#endif
