/* SPDX-License-Identifier: MIT */
/* The page that a process publishes (quarry_published of the public header): made when it is written to first, written
 * by one thread at a time, and never read. */
#ifndef QUARRY_VIEW_PUBLISH_H
#define QUARRY_VIEW_PUBLISH_H

#include "lib/base/base.h"

/* Have the reclaimer call what is here. */
void qy_publish_begin(void);

/* Where the page is, and its bytes; NULL: there is none. For tests. */
void *qy_published_page(size_t *size);

#endif
