/* SPDX-License-Identifier: MIT */
/* What every public function that can be a program's first does first. */
#ifndef QUARRY_API_INIT_H
#define QUARRY_API_INIT_H

/* Make quarry usable, if it is not yet. What fails for want of memory fails again, and says so, where it matters. */
void qy_init_once(void);

#endif
