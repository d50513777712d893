/* SPDX-License-Identifier: MIT */
/* Arenas: managers that the program names. Whatever a thread does in one happens between enter and leave, and the
 * handle is looked up inside: an arena's end waits for those who are in, and turns away those who come after. */
#ifndef QUARRY_CACHE_ARENA_H
#define QUARRY_CACHE_ARENA_H

#include "lib/cache/cache.h"

/* The first node of the set that the machine does not have; -1 for none. */
int qy_arena_unknown_node(const quarry_nodeset *nodes);

/* As quarry_arena_create, with fields that were checked. NULL with errno. */
quarry_arena *qy_arena_create(const quarry_arena_attr *attr);

/* Another life of it begins (taken.h), with all threads held: after what lived there was told to be gone. */
void qy_arena_begin_life(struct qy_manager *head);

/* Free all of it at once; with the arena itself when destroy. 0, or -1 with EBUSY, EPERM, EINVAL. */
int qy_arena_end(quarry_arena *arena, bool destroy);

/* The arena of a live block; NULL with EINVAL when p is none of quarry's. */
quarry_arena *qy_arena_of(const void *p);

/* The default arena of a node, by the kernel's id; NULL with EINVAL or ENOMEM. */
quarry_arena *qy_arena_of_node(int node);

/* The breaker has sent p where it is. */
void qy_arena_note_sent(const void *p);

/* The calling thread's default arena, NULL while it follows its node; and setting it. 0, or -1 with errno. */
quarry_arena *qy_arena_chosen(void);
int qy_arena_choose(quarry_arena *arena);

/* NULL with EINVAL when it is no arena. */
const char *qy_arena_name(const quarry_arena *arena);

/* Bytes, 0 for none. 0, or -1 with EINVAL. */
int qy_arena_limit(quarry_arena *arena, uint64_t hard, uint64_t soft);

/* How long its free memory stays (ms), as quarry_arena_set_decay. 0, or -1 with EINVAL. */
int qy_arena_set_decay(quarry_arena *arena, long decay_ms);

/* Where large requests go while the breaker is open; NULL: nowhere. 0, or -1 with EINVAL when it is no arena. */
int qy_arena_redirect(const quarry_arena *arena);

/* Bring memory of a block in. 0, or -1 with errno: EINVAL when it is not all ours. */
size_t qy_arena_left(const void *p); /* bytes to the end of the block that p is in */
int qy_arena_populate(void *p, size_t len);

/* Whether what is at p, in a live block, may be a part of a huge page. */
bool qy_arena_may_be_huge(const void *p);

/* Give memory of a live block back. 0; -1 with ENOTSUP. */
int qy_arena_discard(void *p, size_t len);

/* The descriptor of what p is in, and where in it. -1 with EINVAL, ENOTSUP, EBADF. */
int qy_arena_fd(const void *p, uint64_t *offset);

/* Put all that the calling thread's caches hold back where others can have it. */
void qy_arena_flush_thread(void);

/* Free memory goes back to the kernel now (NULL: of all arenas). Returns the bytes. */
size_t qy_arena_purge(quarry_arena *arena);

/* All arenas, oldest first; returns how many there are and fills at most max. */
size_t qy_arena_list(quarry_arena **list, size_t max);

#endif
