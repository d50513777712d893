/* SPDX-License-Identifier: MIT */
/* What a heap (heap.c) and its mail (mail.c) have of each other. For no others: they go by heap.h. */
#ifndef QUARRY_MANAGER_MAIL_H
#define QUARRY_MANAGER_MAIL_H

#include "lib/manager/heap.h"

/* Put an object back into its slab, or send it to where that is now. False when p was no live object: a mistake of the
 * program's, counted. By the owner. */
bool qy_heap_free_here(struct qy_heap *h, void *p);

/* In a list that is sent, the last object of a run of one unit has a second word: the last one of the run so many
 * behind, or NULL; so that who walks along the list, which is in another processor's cache, can have several on their
 * way at once (jump pointers: Luk, Mowry, ASPLOS 1996). It is only a hint: the program may have written over it. */
#define QY_MAIL_AHEAD 8

QY_INLINE void qy_mail_hint(void *p, void *behind)
{
	((void **)p)[1] = behind;
}

/* File so many objects of the list that was taken, and the rest of the run that the last of them is in. Returns how many;
 * the list may be filed by then. By the owner. */
uint32_t qy_heap_file(struct qy_heap *h, uint32_t at_most);

/* There is something for whoever looks after what nobody holds. */
void qy_call_reclaimer(struct qy_manager *m);

#endif
