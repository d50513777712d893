/* SPDX-License-Identifier: MIT */
#ifndef QUARRY_TOOLS_PUBLISHED_MEMORY_H
#define QUARRY_TOOLS_PUBLISHED_MEMORY_H

#include "tools/published.h"

/* Copy the page at p->place, as much of it as there is something in. 0; an errno, ESRCH, EIO or EFAULT where it is not
 * there any more; EAGAIN: it is being written all the time; ETIMEDOUT: whoever should fill its memory does not. */
int published_copy(struct published *p);

#endif
