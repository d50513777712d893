/* SPDX-License-Identifier: MIT */
/* Files that are there when all of them is. */
#ifndef QUARRY_VIEW_WHOLE_H
#define QUARRY_VIEW_WHOLE_H

#include "lib/base/base.h"

/* Have write_it (0, or -1 with errno) write a file of its own beside the path, in a name that ends in .tmp, which gets the name
 * when it is whole: readers see what was there before, or all of it. What is there and is no plain file (a link, a pipe, a
 * terminal) is written to as it is, and so is one in a folder that takes no new files. 0; -1 with errno: nothing is left then,
 * and what was there before is as it was, but for those. */
int qy_write_whole(const char *path, int (*write_it)(int fd, const void *ctx), const void *ctx);

#endif
