/* SPDX-License-Identifier: MIT */
/* Size classes: 16-byte steps up to 128 bytes, then eight to the doubling (at most 12.5 % apart), up to 32 KiB.
 * A class whose size is a multiple of a power of two gives objects aligned to it: slabs begin at 64 KiB borders and
 * objects stand at multiples of their size. */
#ifndef QUARRY_MANAGER_CLASS_H
#define QUARRY_MANAGER_CLASS_H

#include "lib/base/base.h"
#include "lib/base/place.h"

#define QY_CLASSES 72
#define QY_CLASS_MAX 32768 /* the largest class; above it memory comes in blocks */
#define QY_TABLE_MAX 1024  /* up to here a class is found by table, on the fast path */
#define QY_CARVE 4096      /* at most so many bytes of a slab are linked at a time: what is not needed is not touched */

/* What is held back for another thread counts by its size, and as so much at least, so that there is one count. */
#define QY_WEIGHT(size) ((size) < 256 ? 256u : (uint32_t)(size))

struct qy_class {
	uint32_t size;
	uint32_t capacity; /* objects in a slab */
	uint64_t magic;    /* offset / size == offset * magic >> 40, for offsets inside a slab */
	uint32_t carve;    /* objects carved at a time */
	uint32_t units;    /* of a slab */
	uint16_t keep;     /* freed objects that a thread's cache keeps: at first, */
	uint16_t keep_max; /* and where more are of use */
	uint32_t weight;   /* of an object that is gathered for another thread (lib/cache/send.h) */
};

extern const struct qy_class qy_classes[QY_CLASSES];

/* (n + 15) / 16 -> class, for n <= QY_TABLE_MAX. */
extern const uint8_t qy_class_table[QY_TABLE_MAX / 16 + 1];

/* The class for n <= QY_CLASS_MAX bytes. */
QY_INLINE unsigned qy_class_of(size_t n)
{
	unsigned k;

	if (n <= 128)
		return n == 0 ? 0 : (unsigned)((n - 1) >> 4);
	k = qy_log2_floor(n - 1);
	return 8 + (k - 7) * 8 + (unsigned)((n - 1) >> (k - 3) & 7);
}

#endif
