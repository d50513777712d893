/* SPDX-License-Identifier: MIT */
/* Where a process's own pointers stand: all private memory that can be read and is none of quarry's, as far as it was ever
 * written, which is data, stacks, thread-local storage, what other allocators have; and registers. Of a stack whose
 * thread's stack pointer is known, what is below that is left out: it is what calls left behind that have returned. Memory
 * that is shared with other processes is left out, but what the program names (quarry_leaks_root). */
#ifndef QUARRY_VIEW_ROOTS_H
#define QUARRY_VIEW_ROOTS_H

#include "lib/view/reach.h"
#include "numa/os.h"

struct qy_roots {
	char *text; /* /proc/self/maps */
	size_t length, mapped;
};

/* What is mapped now: before there is anything of one's own that is not to be looked at. False with errno. */
bool qy_roots_read(struct qy_roots *roots);
void qy_roots_end(struct qy_roots *roots);

/* Reach from all of them. stack: where the stack of the thread that looks is in use, from
 * there on up. False with ENOMEM. */
bool qy_reach_from_roots(struct qy_reach *r, const struct qy_roots *roots, const struct qy_stopped *stopped,
			 uintptr_t stack);

#endif
