/* SPDX-License-Identifier: MIT */
#include "lib/view/sort.h"

#include <string.h>

static void sift(char *at, size_t i, size_t n, size_t size, uint64_t (*key)(const void *), void *spare)
{
	for (size_t child; (child = 2 * i + 1) < n; i = child) {
		if (child + 1 < n && key(at + (child + 1) * size) > key(at + child * size))
			child++;
		if (key(at + i * size) >= key(at + child * size))
			return;
		memcpy(spare, at + i * size, size);
		memcpy(at + i * size, at + child * size, size);
		memcpy(at + child * size, spare, size);
	}
}

static void make_heap(char *at, size_t n, size_t size, uint64_t (*key)(const void *), void *spare)
{
	for (size_t i = n / 2; i-- > 0;)
		sift(at, i, n, size, key, spare);
}

void qy_sort(void *list, size_t n, size_t size, uint64_t (*key)(const void *))
{
	char *at = list, spare[QY_SORT_SIZE];

	qy_assert(size <= sizeof(spare));
	make_heap(at, n, size, key, spare);
	for (size_t end = n; end-- > 1;) {
		memcpy(spare, at, size);
		memcpy(at, at + end * size, size);
		memcpy(at + end * size, spare, size);
		sift(at, 0, end, size, key, spare);
	}
}

void qy_sort_offer(void *list, size_t *count, size_t max, const void *element, size_t size,
		   uint64_t (*key)(const void *))
{
	char *at = list, spare[QY_SORT_SIZE];

	qy_assert(size <= sizeof(spare));
	if (*count < max) {
		memcpy(at + (*count)++ * size, element, size);
		if (*count == max)
			make_heap(at, max, size, key, spare);
	} else if (max > 0 && key(element) < key(at)) {
		memcpy(at, element, size);
		sift(at, 0, max, size, key, spare);
	}
}
