/* SPDX-License-Identifier: MIT */
/* What a heap (heap.c) and its mail (mail.c) have of each other. For no others: they go by heap.h. */
#ifndef QUARRY_MANAGER_MAIL_H
#define QUARRY_MANAGER_MAIL_H

#include "lib/manager/heap.h"

/* Put an object back into its slab, or send it to where that is now. False when p was no live object: a mistake of the
 * program's, counted. By the owner. */
bool qy_heap_free_here(struct qy_heap *h, void *p);

/* File so many objects of the list that was taken, and the rest of the run that the last of them is in. Returns how many;
 * the list may be filed by then. By the owner. */
uint32_t qy_heap_file(struct qy_heap *h, uint32_t at_most);

/* There is something for whoever looks after what nobody holds. */
void qy_call_reclaimer(struct qy_manager *m);

#endif
