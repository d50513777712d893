/* SPDX-License-Identifier: MIT */
/* Dumps of heaps: what stands in one (doc/heap-format.md), for who writes them (dump.c) and who reads them (restore.c). */
#ifndef QUARRY_MAPPED_DUMP_H
#define QUARRY_MAPPED_DUMP_H

#include "lib/mapped/mapped.h"

#define QY_DUMP_MAGIC "QUARRY\x1a" "D"
#define QY_DUMP_VERSION 1u
#define QY_DUMP_DATA ((size_t)1 << 16) /* bytes of content in a record, at most */
#define QY_DUMP_MOST (QY_DUMP_DATA + 64 + ((size_t)1 << 20)) /* of any payload: the user area's is the largest */
#define QY_DUMP_SLAB_WORDS 64 /* of a slab's map, at most */

enum { QY_DUMP_HEAD = 1, QY_DUMP_SLAB, QY_DUMP_BLOCK, QY_DUMP_CONTENT, QY_DUMP_USER, QY_DUMP_ROOT, QY_DUMP_END };

/* In front of each record. */
struct qy_dump_record {
	uint32_t kind, crc; /* CRC-32C of the payload */
	uint64_t length;    /* of the payload */
};

struct qy_dump_head {
	uint32_t version, incompat; /* features without which it cannot be read: none yet */
	uint32_t abi, flags;
	uint8_t uuid[16];
	uint64_t run, max_bytes;
	uint32_t sessions, lanes, roots, user_bytes;
};

struct qy_dump_slab {
	uint64_t off; /* from the base, as all offsets here */
	uint32_t size, units;
	uint32_t live, words; /* objects in use; words of the map that follow, with a bit set for each */
};

struct qy_dump_block {
	uint64_t off, bytes;
};

struct qy_dump_root {
	uint64_t off;
	uint32_t tag, length; /* of the name, which follows */
};

struct qy_dump_end {
	uint64_t objects, bytes, records; /* in use; records before this one */
};

/* CRC-32C of much. */
uint32_t qy_dump_crc(uint32_t crc, const void *p, size_t n);

#endif
