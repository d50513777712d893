/* SPDX-License-Identifier: MIT */
/* Memory in files that have a descriptor and no name (memfd_create(2), Linux 3.17), for those who hand it to others:
 * one file for each region, so that who gets the descriptor sees that region and no other, pages of one size are in one
 * file, and the memory goes back when the region does. (A descriptor for each region counts against RLIMIT_NOFILE.)
 *
 * Its size is sealed when it is made: nobody who has the descriptor can shorten it, which would be SIGBUS for all
 * others.
 *
 * The descriptor is the process's like any other, and the program may close it, knowing or not (closefrom(3)), and open
 * another file by the same number. So it is looked at before it is used: closing somebody else's file would be worse
 * than keeping ours. */
#ifndef QUARRY_NUMA_MEMFD_H
#define QUARRY_NUMA_MEMFD_H

#include "lib/base/base.h"

struct qy_memfd {
	uint64_t id; /* of the file */
	int fd;      /* 0: no file */
};

/* A file of len bytes for pages of a kind (enum quarry_page_kind), sealed. False with errno, counted; ENOTSUP where
 * there are no such files of huge pages from a pool. */
bool qy_memfd_make(struct qy_memfd *file, size_t len, int kind);

/* Whether its descriptor still leads to it. */
bool qy_memfd_is(const struct qy_memfd *file);

/* Close its descriptor, if it is; *file is none then. errno stays. */
void qy_memfd_close(struct qy_memfd *file);

/* A mapping of a new file of that name, which is only ours to write and a forked child does not have; it stays until the
 * process ends, and no descriptor does. NULL with errno, not counted. */
void *qy_memfd_shared(const char *name, size_t len);

/* Whether a fault in such memory may be SIGBUS: where the kernel commits no more memory than there is, ordinary memory
 * is counted when it is mapped, and that of files when it is touched. */
bool qy_memfd_may_run_dry(void);

/* What was written to the file, into memory that reads as zero. Nobody's offset in it moves. False with errno. */
bool qy_memfd_copy(const struct qy_memfd *file, char *to, size_t len);

#endif
