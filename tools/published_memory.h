/* SPDX-License-Identifier: MIT */
#ifndef QUARRY_TOOLS_PUBLISHED_MEMORY_H
#define QUARRY_TOOLS_PUBLISHED_MEMORY_H

#include "tools/published.h"

/* Copy the process's page, the first of p->places that is not another process's, as much of it as there is something
 * in; p->places is that one then. 0; an errno, ESRCH, EIO or EFAULT where it is not there any more; ENODATA: all are
 * others'; EAGAIN: it is being written all the time; ETIMEDOUT: whoever should fill its memory does not. */
int published_copy(struct published *p);

#endif
