/* SPDX-License-Identifier: MIT */
/* Sorting in place, by a number of each element (a heap sort, as qsort(3) may allocate). */
#ifndef QUARRY_VIEW_SORT_H
#define QUARRY_VIEW_SORT_H

#include "lib/base/base.h"

#define QY_SORT_SIZE 192 /* an element's, at most */

/* Ascending. Equal ones come in any order. */
void qy_sort(void *list, size_t n, size_t size, uint64_t (*key)(const void *element));

/* Of all that are offered, keep the max with the least keys: in the order of a heap, until they are sorted. *count, at first
 * 0, is how many there are. */
void qy_sort_offer(void *list, size_t *count, size_t max, const void *element, size_t size,
		   uint64_t (*key)(const void *element));

#endif
