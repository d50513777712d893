/* SPDX-License-Identifier: MIT */
/* What lib/object asks of huge pages before it gives parts of a block back. */
#ifndef QUARRY_API_HUGE_H
#define QUARRY_API_HUGE_H

#include <stdbool.h>

/* Whether what is at p, in a live block, may be a part of a huge page, as far as is known without asking the kernel. No
 * lock is taken. (lib/api/arena.c) */
bool qy_may_be_huge(const void *p);

#endif
