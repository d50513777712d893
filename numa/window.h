/* SPDX-License-Identifier: MIT */
/* The window: the one range of address space in which all of quarry's regions lie, so that `p - base < size` sorts
 * out NULL, foreign and stack pointers in one compare and what is known of an address is found by arithmetic.
 *
 * The window is reserved at start (PROT_NONE, not counted against overcommit, left out of core dumps). Under
 * RLIMIT_AS, or where the reservation is refused, nothing is reserved: regions are placed one by one at addresses of
 * the window's range (MAP_FIXED_NOREPLACE), and the window is only arithmetic ("sparse").
 *
 * What stands where in it, and beside it, is in lib/base/place.h.
 *
 * Lock: one, rank QY_RANK_WINDOW, held over mmap and mprotect of side arrays (rare), never over madvise. */
#ifndef QUARRY_NUMA_WINDOW_H
#define QUARRY_NUMA_WINDOW_H

#include "lib/base/place.h"

/* The window and its sides, as far as they are quarry's. */
void qy_window_memory(void (*tell)(void *ctx, const void *from, size_t bytes), void *ctx);

/* Reserve the window. wanted: bytes, 0 by the machine's memory. Before any other call; falls to smaller windows and
 * then to a sparse one; 0, or -1 with ENOMEM. */
int qy_window_init(size_t wanted);

/* Claim frames consecutive frames, the first aligned to align_frames (a power of two), in a zone of the node
 * (dense; -1 for memory of no one node). Only address space: nothing is mapped but side arrays. NULL with ENOMEM. */
void *qy_window_claim(size_t frames, size_t align_frames, int node);

/* Give claimed frames back; their memory must be unmapped (qy_window_unmap). */
void qy_window_release(void *addr, size_t frames);

/* Map claimed address space for reading and writing; flags are added to MAP_PRIVATE|MAP_ANONYMOUS. 0 or -1, errno. */
int qy_window_map(void *addr, size_t len, int flags);

/* The same with a file from its beginning, and MAP_SHARED; -1: memory as above. */
int qy_window_map_file(void *addr, size_t len, int flags, int fd);

/* Take the memory away and leave the address space as it was before qy_window_map. */
int qy_window_unmap(void *addr, size_t len);

bool qy_window_sparse(void);
size_t qy_window_metadata(void);         /* bytes of side arrays committed */
size_t qy_window_metadata_touched(void); /* and in memory */
void qy_window_fork_lock(void);
void qy_window_fork_unlock(void); /* in the parent and in the child */

/* Where records stand: all of it is quarry's own. */
void qy_meta_memory(void (*tell)(void *ctx, const void *from, size_t bytes), void *ctx);

/* Memory for quarry's own structures: zeroed, never given back, on the node of whoever touches it first.
 * NULL with ENOMEM. Thread-safe. align is a power of two, at most 4096. */
void *qy_meta_alloc(size_t size, size_t align);
size_t qy_meta_used(void);

#endif
