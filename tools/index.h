/* SPDX-License-Identifier: MIT */
/* Finds things by hash that stand in lists, and so are known by number: what equals what, its user knows.
 *
 *	for (size_t step = 0; (i = index_next(&x, hash, &step)) != INDEX_NONE;)
 *		if (list[i] is the one)
 *			return i;
 *	return index_add(&x, hash, count) ? count++ : ...
 *
 * Hashes have the process's own seed, so that nobody can make a file whose names all fall together. */
#ifndef QUARRY_TOOLS_INDEX_H
#define QUARRY_TOOLS_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define INDEX_NONE UINT32_MAX

struct index_slot {
	uint32_t hash, number; /* number: and one; 0: empty */
};

/* Zeroes are an empty one. */
struct index {
	struct index_slot *slots;
	size_t size, count;
};

/* The next number that may be it; INDEX_NONE: there is no more. *step is 0 before the first call. */
uint32_t index_next(const struct index *x, uint64_t hash, size_t *step);
/* False without memory. A number is less than INDEX_NONE. */
bool index_add(struct index *x, uint64_t hash, uint32_t number);
void index_free(struct index *x);

uint64_t index_hash(uint64_t a, uint64_t b);
uint64_t index_hash_text(const char *text, uint64_t with);

#endif
