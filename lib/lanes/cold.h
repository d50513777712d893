/* SPDX-License-Identifier: MIT */
/* Cold objects: a store of extents. An extent has up to 64 KiB of objects of one size, compressed in blocks, each with a
 * checksum, so that one of them comes back at the price of its block. A block is one object (some of the smallest ones), by
 * a dictionary of what objects of its size are like, or, where that does not help, about 4 KiB of them. What has gone of an
 * extent does not stay in memory for long. Extents are in memory, or, the
 * oldest of them, in a file. What failed to be read, or is not what was written, is corrupt, and only that: the
 * rest of the store goes on; a file that fails or is full is not written to for a while.
 *
 * The store knows nothing of handles. An object is an extent's number and a place in it; who has its last reference says
 * so by qy_cold_drop.
 *
 * Locks: an extent's shard -> the store's. Both are leaves of the lanes' (lanes.h), but that memory is allocated
 * under a shard's. */
#ifndef QUARRY_LANES_COLD_H
#define QUARRY_LANES_COLD_H

#include <pthread.h>

#include "include/quarry/lanes.h"
#include "lib/base/base.h"

#define QY_COLD_RAW ((size_t)64 << 10) /* of an extent's objects, unless one is larger */
#define QY_COLD_BLOCK ((size_t)4 << 10) /* of a block's, the same, without a dictionary, */
#define QY_COLD_PIECE ((size_t)256)     /* and with one, at the least */
#define QY_COLD_OBJECTS_BITS 12
#define QY_COLD_OBJECTS ((uint32_t)1 << QY_COLD_OBJECTS_BITS)
#define QY_COLD_SHARDS 16 /* all are held around fork: checkers of locks know 64 at most */
#define QY_COLD_EXTENTS ((uint32_t)1 << 22)

/* ---- codecs (codec.c) ---- */

struct qy_codec {
	const char *name;
	size_t state; /* bytes that compressing needs */
	/* Bytes made of them, or 0: they do not fit. */
	size_t (*compress)(void *state, const void *from, size_t size, void *to, size_t room);
	bool (*decompress)(const void *from, size_t size, void *to, size_t is); /* exactly so many */
	/* The same by what was seen before (any bytes, which stay where they are); learn NULL: it cannot. learned: `state`
	 * bytes, made by learn. */
	void (*learn)(void *learned, const void *dictionary, size_t size);
	size_t (*compress_by)(void *state, const void *learned, const void *from, size_t size, void *to, size_t room);
	bool (*decompress_by)(const void *dictionary, size_t known, const void *from, size_t size, void *to, size_t is);
};

/* By name: "lz4", "zstd", whose libraries are loaded here, or "none". NULL with ENOENT (no library), EINVAL. */
const struct qy_codec *qy_codec_find(const char *name);

/* CRC-32C (Castagnoli). */
uint32_t qy_crc32c(const void *bytes, size_t size);

/* ---- the store ---- */

struct qy_cold_figures {
	uint64_t objects, bytes; /* that are cold: count, and as large as they were */
	uint64_t compressed;     /* bytes in memory instead */
	uint64_t evicted;        /* bytes in the file instead */
	uint64_t extents, corrupt, failures; /* counts; extents that are corrupt, failures of the file */
	uint64_t loaded, incompressible;     /* objects that came back; extents that were not worth it */
	uint64_t copies;                     /* of objects that stayed */
	uint64_t stalled;                    /* ns that those took who brought objects back */
	uint64_t deepened;                   /* extents that were compressed anew */
	uint64_t dictionaries, dictionary_bytes; /* that there are */
};

struct qy_cold;

/* @param memory bytes in memory above which the oldest go to the file; 0: any. directory: of the file; NULL: none.
 * file_limit: bytes of the file at most; 0: any. arena: of compressed bytes. NULL with ENOMEM, or as the file has it. */
struct qy_cold *qy_cold_make(const struct qy_codec *codec, quarry_arena *arena, uint64_t memory, const char *directory,
			     uint64_t file_limit);
void qy_cold_end(struct qy_cold *c);

/* Objects per block for objects so large, and per extent. */
uint32_t qy_cold_objects_for(size_t size);

/* Store `count` objects of `size` bytes each, which stand side by side at raw, and for each 10 bits of the caller's. The
 * extent's number; -1 with ERANGE (they do not become smaller by an eighth), ENOMEM. One thread at a time. */
int64_t qy_cold_store(struct qy_cold *c, const void *raw, uint32_t count, uint32_t size, const uint16_t *what);

/* Keep an extent as it is while something is decided by it. An object's reference, looked at under this, holds it. */
void qy_cold_lock(struct qy_cold *c, uint32_t extent);
void qy_cold_unlock(struct qy_cold *c, uint32_t extent);

/* Under its lock: how large an object of it is, and what the caller has of it; its bytes are on their way. */
uint32_t qy_cold_find(const struct qy_cold *c, uint32_t extent, uint32_t index, uint16_t *what);
/* Under its lock: an object's bytes. 0; -1 with EIO: they are lost. */
int qy_cold_load(struct qy_cold *c, uint32_t extent, uint32_t index, void *to);
/* The same of an object that stays. */
int qy_cold_copy(struct qy_cold *c, uint32_t extent, uint32_t index, void *to);
/* Under its lock: somebody asks for it. Whether it was asked for so often that it had better come back. (qy_cold_shrink, which is
 * called behind each pass, forgets half of the times.) */
bool qy_cold_glanced(struct qy_cold *c, uint32_t extent, uint32_t index);
#define QY_STALLS_TOLD 16 /* one in so many slots is asked how long it took */
/* Somebody took so long to have an object back. */
void qy_cold_stalled(struct qy_cold *c, uint64_t ns);
/* Before the lock: the lines that loading it needs, on their way. */
void qy_cold_expect(const struct qy_cold *c, uint32_t extent, uint32_t index);
uint32_t qy_cold_size(const struct qy_cold *c, uint32_t extent);
uint16_t qy_cold_what(const struct qy_cold *c, uint32_t extent, uint32_t index);
bool qy_cold_is_evicted(const struct qy_cold *c, uint32_t extent);
/* It was asked for, and is not what was written. (Until it is: the device may have been at fault.) */
bool qy_cold_is_corrupt(const struct qy_cold *c, uint32_t extent, uint32_t index);
/* Under its lock: one object of it is no more, or is somewhere else; the last one ends it. */
void qy_cold_drop(struct qy_cold *c, uint32_t extent, uint32_t index);

/* Under its lock, from the one to the other: have all of an extent that is in the file read at once, for the loads that
 * follow. */
void qy_cold_stage(struct qy_cold *c, uint32_t extent);
void qy_cold_unstage(struct qy_cold *c, uint32_t extent);

/* Have extents compressed anew by a second codec, once, when they are so many passes old, or go to the file. Before there
 * are any. 0; -1 with ENOMEM. */
int qy_deep_make(struct qy_cold *c, const struct qy_codec *codec, uint32_t periods);
/* A pass is over. */
void qy_cold_pass(struct qy_cold *c);
/* One of them is, if one is old enough. train: it may take as long as making a dictionary does. One thread at a time, the
 * one that stores. */
bool qy_cold_deepen(struct qy_cold *c, bool train);

/* Let go what extents still have of objects that are gone, and forget half of how often the others were asked for: of some extents,
 * from a number on. Whether there are more. */
bool qy_cold_shrink(struct qy_cold *c, uint32_t *number);

/* When there are more compressed bytes than the limit, the oldest extent goes to the file, or is compressed anew, which may be
 * enough. False: there are not, or it cannot. The thread that stores; train: as above. */
bool qy_cold_evict(struct qy_cold *c, bool train);

void qy_cold_count(struct qy_cold *c, struct qy_cold_figures *figures);

/* Around fork(2). What was in the file at a fork stays there as it is, for the child reads it; the child writes nothing
 * to it. */
void qy_cold_before_fork(struct qy_cold *c);
void qy_cold_after_fork(struct qy_cold *c, bool child);

#endif
