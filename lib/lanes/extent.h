/* SPDX-License-Identifier: MIT */
/* The store of cold objects, as its parts know it: cold.c (extents, in memory and in the file), squeeze.c (how they are
 * compressed first) and deep.c (compressed anew, by better dictionaries). cold.h has what it is. */
#ifndef QUARRY_LANES_EXTENT_H
#define QUARRY_LANES_EXTENT_H

#include "lib/lanes/cold.h"
#include "lib/lanes/spill.h"

#define QY_EXTENT_CHUNK 4096 /* extents of a piece of the table */
#define QY_EXTENT_BLOCKS 512 /* at most */

/* What an extent has of an object, 4 bytes: what the caller has of it; whether it is gone, no more or somewhere else; how
 * often somebody asked for it and it stayed; and of a block's first one, where the block begins in the
 * extent's bytes, and whether it is lost. */
#define QY_PLACE_GONE ((uint32_t)1 << 31)
#define QY_PLACE_LOST ((uint32_t)1 << 30)
#define QY_PLACE_WHAT_SHIFT 17
#define QY_PLACE_WHAT ((uint32_t)0x3ff << QY_PLACE_WHAT_SHIFT)
#define QY_PLACE_ASKED_SHIFT 27
#define QY_PLACE_ASKED ((uint32_t)7 << QY_PLACE_ASKED_SHIFT)
#define QY_PLACE_AT (((uint32_t)1 << QY_PLACE_WHAT_SHIFT) - 1)
_Static_assert(2 * QY_COLD_RAW <= QY_PLACE_AT + 1, "room for what does not become smaller, and checksums");
#define QY_BLOCK_HEAD sizeof(uint32_t) /* a block begins with the checksum of all else of it */
#define QY_DEEP_CLASSES 192  /* sizes that may have a dictionary */

enum qy_where { QY_IN_MEMORY, QY_IN_FILE };

/* What was learned of objects of a size. Extents that were compressed by it refer to it, and it is there while one does.
 * refs under the store's lock, all else stays as it is. */
struct qy_dictionary {
	void *bytes, *decoder; /* decoder: of the second codec's alone */
	size_t size;
	uint32_t refs;
};

/* Under its shard's lock, but for the links: under the store's. What coming back needs is a line of this, and of places,
 * which can be had at once; and then one of the bytes. (A cold object's lines are in no cache.) */
struct qy_extent {
	unsigned char *data;    /* QY_IN_MEMORY */
	struct qy_dictionary *dictionary; /* it was compressed by this; NULL: none */
	uint32_t number, bytes;
	uint32_t size, count, live;
	uint32_t dead;          /* bytes of blocks whose objects are gone */
	uint16_t per_block, blocks;
	uint8_t where;
	bool deep;              /* by the second codec */
	bool asked;             /* somebody did for one of its objects, that stayed */
	uint16_t lost;          /* blocks that were asked for, and are not what was written */
	struct qy_link link;    /* in memory: by age */
	struct qy_link shallow; /* in memory, and not yet compressed anew: by age */
	struct qy_spilled spilled; /* QY_IN_FILE */
	uint32_t born;          /* in this pass */
	_Alignas(QY_CACHE_LINE) uint32_t place[]; /* of each object */
};
_Static_assert(offsetof(struct qy_extent, link) <= QY_CACHE_LINE, "what coming back needs is in one line");

/* A shard has the block that was asked for last, as its neighbours are often next; and, for who prefetches, all of an
 * extent's bytes. */
struct qy_shard {
	pthread_mutex_t lock;
	unsigned char *block;
	uint32_t extent, which; /* which: a block of it, + 1; 0: none */
	uint64_t copies;        /* of objects that stayed, count */
	unsigned char *staged;  /* as they are in the file; NULL: nobody who holds the lock has them */
	void *context;          /* to decompress by dictionaries */
};

/* What is known of objects of a size: of the thread that stores. */
struct qy_kind {
	uint32_t size;
	uint32_t skip, backoff; /* so many extents go in blocks of 4 KiB before there is another try */
	uint32_t used;          /* extents since the dictionary was made */
	uint32_t promised;      /* bytes that it made of 64 KiB then */
	struct qy_dictionary *dictionary;
	void *learned;          /* of it */
};

struct qy_kinds {
	bool busy; /* as qy_deep's */
	uint32_t count;
	struct qy_kind of[QY_DEEP_CLASSES];
};

/* What compresses anew: of one thread at a time. */
struct qy_deep {
	const struct qy_codec *codec; /* NULL: nothing is */
	uint32_t periods;
	void *state, *context; /* to compress */
	void *encoder;         /* of this dictionary: */
	struct qy_dictionary *encoder_of;
	unsigned char *raw;
	size_t raw_size;
	bool busy;             /* a fork now leaves the child half of it */
	struct {
		uint32_t size; /* of objects */
		uint32_t used; /* by so many extents; or so many went without */
		struct qy_dictionary *dictionary;
	} of[QY_DEEP_CLASSES];
	uint32_t classes;
};

struct qy_cold {
	const struct qy_codec *codec;
	quarry_arena *arena;
	uint64_t memory;
	struct qy_spill spill;
	void *state;
	unsigned char *out; /* what is compressed goes here first */
	size_t out_size;
	struct qy_shard shard[QY_COLD_SHARDS];
	pthread_mutex_t lock;
	struct qy_extent *_Atomic *_Atomic chunk[QY_COLD_EXTENTS / QY_EXTENT_CHUNK];
	uint32_t next, free_count, free_room, *free; /* numbers: never used from here on; to be used again */
	struct qy_link by_age, shallow;
	uint32_t pass;
	struct qy_extent *shape; /* of what is being compressed: with QY_COLD_OBJECTS places */
	struct qy_kinds kinds;
	struct qy_deep deep;
	_Atomic(uint64_t) objects, bytes, compressed, evicted, extents, corrupt, loaded, incompressible;
	_Atomic(uint64_t) stalled, deepened, dictionaries, dictionary_bytes;
};

/* NULL: it has ended. */
QY_INLINE struct qy_extent *qy_extent_of(const struct qy_cold *c, uint32_t number)
{
	struct qy_extent *_Atomic *chunk = atomic_load_explicit(&c->chunk[number / QY_EXTENT_CHUNK], memory_order_acquire);

	return atomic_load_explicit(&chunk[number % QY_EXTENT_CHUNK], memory_order_acquire);
}

/* Objects of a block. */
QY_INLINE uint32_t qy_objects_of(const struct qy_extent *e, uint32_t block)
{
	return (uint32_t)qy_min(e->per_block, e->count - block * e->per_block);
}

/* ---- cold.c ---- */

/* Under its shard's lock: a block's bytes, as they were before. 0; -1 with EIO, ENOMEM. */
int qy_block_load(struct qy_cold *c, struct qy_extent *e, uint32_t block, void *to);
/* c->out has so much room. */
bool qy_room_for_output(struct qy_cold *c, size_t size);
/* Compressed bytes of the store's. */
void *qy_cold_bytes(struct qy_cold *c, size_t size);

/* Its blocks are of so many objects from now on; an extent has room for as many as it was made for. */
QY_INLINE void qy_extent_divide(struct qy_extent *e, uint32_t per_block)
{
	e->per_block = (uint16_t)per_block;
	e->blocks = (uint16_t)((e->count + per_block - 1) / per_block);
}

/* Where a block begins, and how many bytes it is; none: all of its objects are gone. */
QY_INLINE uint32_t qy_block_at(const struct qy_extent *e, uint32_t block)
{
	return e->place[block * e->per_block] & QY_PLACE_AT;
}

QY_INLINE uint32_t qy_block_bytes(const struct qy_extent *e, uint32_t block)
{
	return (block + 1 < e->blocks ? qy_block_at(e, block + 1) : e->bytes) - qy_block_at(e, block);
}

QY_INLINE void qy_block_put(struct qy_extent *e, uint32_t block, uint32_t at)
{
	uint32_t *place = &e->place[block * e->per_block];

	*place = (*place & ~QY_PLACE_AT) | at;
}

/* Objects of a block of 4 KiB; and of a piece, as dictionaries have them. */
QY_INLINE uint32_t qy_objects_per_block(uint32_t size)
{
	return (uint32_t)qy_max(1, QY_COLD_BLOCK / size);
}

QY_INLINE uint32_t qy_objects_per_piece(uint32_t size)
{
	return (uint32_t)qy_max(1, QY_COLD_PIECE / size);
}

QY_INLINE bool qy_block_is_lost(const struct qy_extent *e, uint32_t block)
{
	return e->place[block * e->per_block] & QY_PLACE_LOST;
}

/* Under its shard's lock: it is, or is not. */
void qy_block_lost(struct qy_cold *c, struct qy_extent *e, uint32_t block, bool lost);

/* ---- squeeze.c ---- */

/* Compress the objects at raw to c->out, in whichever way becomes of them: e's blocks, bytes and dictionary. False: that is
 * not worth it, with what the extent's record takes. The thread that stores. */
bool qy_squeeze(struct qy_cold *c, struct qy_extent *e, const unsigned char *raw);
/* Under its shard's lock: what the extent has of objects that are gone is let go, when it is one part of so many. */
void qy_extent_shrink(struct qy_cold *c, struct qy_extent *e, uint32_t part);
#define QY_SHRINK 4 /* `part`, for who wants an object */
bool qy_block_is_gone(const struct qy_extent *e, uint32_t block);
/* Under the lock: how many bytes of blocks have no object any more. */
uint32_t qy_extent_dead(const struct qy_extent *e);
void qy_kinds_in_child(struct qy_cold *c);
void qy_kinds_end(struct qy_cold *c);

/* ---- deep.c ---- */

/* Decompress a block of an extent that is deep. */
bool qy_deep_decompress(struct qy_cold *c, const struct qy_extent *e, const void *from, size_t size, void *to, size_t is);
/* Under its shard's lock: an extent that is in memory and not yet compressed anew is, if it becomes smaller by it. It is not
 * locked for all of that time. train: a dictionary may be made, which takes long. */
void qy_deepen(struct qy_cold *c, uint32_t number, bool train);
/* Under the store's lock: an extent has no need of it any more. */
void qy_dictionary_leave(struct qy_cold *c, struct qy_dictionary *d);
void qy_deep_in_child(struct qy_cold *c);
void qy_deep_end(struct qy_cold *c);

#endif
