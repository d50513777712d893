/* SPDX-License-Identifier: MIT */
/* Buckets by length: exact below 32, then eight to the doubling; with one bit per bucket that is not empty. */
#ifndef QUARRY_MANAGER_BINS_H
#define QUARRY_MANAGER_BINS_H

#include "lib/base/base.h"

/* The bucket that length is in. */
QY_INLINE unsigned qy_bin_of(uint32_t length)
{
	unsigned k;

	if (length < 32)
		return length;
	k = qy_log2_floor(length);
	return 32 + (k - 5) * 8 + (length >> (k - 3) & 7);
}

/* The first bucket in which every length is enough. */
QY_INLINE unsigned qy_bin_above(uint32_t length)
{
	unsigned k;

	if (length <= 32)
		return length;
	k = qy_log2_floor(length);
	return qy_bin_of(length) + ((length & (((uint32_t)1 << (k - 3)) - 1)) != 0);
}

/* The first set bit at or after from, in so many words; -1 for none. */
static inline int qy_bin_next(const uint64_t *bits, unsigned words, unsigned from)
{
	for (unsigned w = from / 64; w < words; w++) {
		uint64_t b = bits[w];

		if (w == from / 64)
			b &= ~(uint64_t)0 << (from % 64);
		if (b != 0)
			return (int)(w * 64 + (unsigned)__builtin_ctzll(b));
	}
	return -1;
}

QY_INLINE void qy_bin_mark(uint64_t *bits, unsigned bin, bool set)
{
	uint64_t bit = (uint64_t)1 << (bin % 64);

	bits[bin / 64] = set ? bits[bin / 64] | bit : bits[bin / 64] & ~bit;
}

#endif
