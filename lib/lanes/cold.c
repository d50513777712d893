/* SPDX-License-Identifier: MIT */
/* The store of cold objects: extents, in memory and in a file. (cold.h has what it is.) */
#include "lib/lanes/cold.h"

#include <errno.h>
#include <string.h>

#include "lib/api/error.h"
#include "lib/lanes/spill.h"
#include "numa/os.h"

#define CHUNK 4096 /* extents of a piece of the table */

enum where { IN_MEMORY, IN_FILE, CORRUPT };

/* Under its shard's lock, but for the link: under the store's. */
struct extent {
	struct qy_link link; /* in memory: by age */
	unsigned char *data; /* IN_MEMORY */
	struct qy_spilled spilled; /* IN_FILE */
	uint32_t number, bytes;
	uint32_t size, count, live;
	uint32_t per_block, blocks;
	uint8_t where;
	uint32_t *offset; /* of each block, and behind the last */
	uint32_t *crc;
	uint16_t *what;
};

/* A shard has the block that was asked for last, as its neighbours are often next. */
struct shard {
	pthread_mutex_t lock;
	unsigned char *block;
	uint32_t extent, which; /* which: a block of it, + 1; 0: none */
};

struct qy_cold {
	const struct qy_codec *codec;
	quarry_arena *arena;
	uint64_t memory;
	struct qy_spill spill;
	void *state;
	unsigned char *out; /* what is compressed goes here first */
	size_t out_size;
	struct shard shard[QY_COLD_SHARDS];
	pthread_mutex_t lock;
	struct extent *_Atomic *_Atomic chunk[QY_COLD_EXTENTS / CHUNK];
	uint32_t next, free_count, free_room, *free; /* numbers: never used from here on; to be used again */
	struct qy_link by_age;
	_Atomic(uint64_t) objects, bytes, compressed, evicted, extents, corrupt, loaded, incompressible;
};

/* ---- extents ---- */

static struct extent *extent_of(const struct qy_cold *c, uint32_t number)
{
	struct extent *_Atomic *chunk = atomic_load_explicit(&c->chunk[number / CHUNK], memory_order_acquire);

	return atomic_load_explicit(&chunk[number % CHUNK], memory_order_acquire);
}

uint32_t qy_cold_objects_for(size_t size)
{
	size_t count = qy_max(1, QY_COLD_RAW / size);

	return (uint32_t)qy_min(count, QY_COLD_OBJECTS);
}

/* Under the lock: -1 when there is none. */
static int64_t number_take(struct qy_cold *c)
{
	struct extent *_Atomic *chunk;

	if (c->free_count > 0)
		return c->free[--c->free_count];
	if (c->next == QY_COLD_EXTENTS)
		return -1;
	if (c->next % CHUNK == 0) {
		chunk = quarry_calloc(CHUNK, sizeof(*chunk));
		if (chunk == NULL)
			return -1;
		atomic_store_explicit(&c->chunk[c->next / CHUNK], chunk, memory_order_release);
	}
	return c->next++;
}

/* Under the lock. Where there is no memory for the list the number is not used again. */
static void number_give(struct qy_cold *c, uint32_t number)
{
	if (c->free_count == c->free_room) {
		uint32_t room = c->free_room == 0 ? 256 : c->free_room * 2;
		uint32_t *more = quarry_realloc(c->free, room * sizeof(*more));

		if (more == NULL)
			return;
		c->free = more;
		c->free_room = room;
	}
	c->free[c->free_count++] = number;
}

static size_t record_bytes(uint32_t count, uint32_t blocks)
{
	return sizeof(struct extent) + (2 * (size_t)blocks + 1) * sizeof(uint32_t) + count * sizeof(uint16_t);
}

static struct extent *extent_make(uint32_t count, uint32_t size)
{
	uint32_t per_block = (uint32_t)qy_max(1, QY_COLD_BLOCK / size), blocks = (count + per_block - 1) / per_block;
	struct extent *e = quarry_calloc(1, record_bytes(count, blocks));

	if (e == NULL)
		return NULL;
	e->size = size;
	e->count = e->live = count;
	e->per_block = per_block;
	e->blocks = blocks;
	e->offset = (uint32_t *)(void *)(e + 1);
	e->crc = e->offset + blocks + 1;
	e->what = (uint16_t *)(void *)(e->crc + blocks);
	qy_list_init(&e->link);
	return e;
}

/* Objects of a block. */
static uint32_t objects_of(const struct extent *e, uint32_t block)
{
	return (uint32_t)qy_min(e->per_block, e->count - block * e->per_block);
}

/* Compress all blocks to c->out. False: that is not worth it, with what the extent's record takes; which is known after
 * the first two blocks, mostly. */
static bool squeeze(struct qy_cold *c, struct extent *e, const unsigned char *raw)
{
	bool plain = strcmp(c->codec->name, "none") == 0;
	size_t total = (size_t)e->count * e->size, record = record_bytes(e->count, e->blocks), used = 0, done = 0;
	size_t most = plain ? total : total - total / 8 - qy_min(record, total - total / 8);

	for (uint32_t b = 0; b < e->blocks; b++) {
		size_t size = (size_t)objects_of(e, b) * e->size, made;

		made = used >= most ? 0 : c->codec->compress(c->state, raw + done, size, c->out + used, most - used);
		if (made == 0)
			return false;
		e->offset[b] = (uint32_t)used;
		e->crc[b] = qy_crc32c(c->out + used, made);
		used += made;
		done += size;
		if (!plain && b == 1 && used > done - done / 8)
			return false;
	}
	e->offset[e->blocks] = e->bytes = (uint32_t)used;
	return true;
}

static bool room_for_output(struct qy_cold *c, size_t size)
{
	if (c->out_size >= size)
		return true;
	quarry_free(c->out);
	c->out_size = 0;
	c->out = quarry_malloc(size);
	if (c->out == NULL)
		return false;
	c->out_size = size;
	return true;
}

int64_t qy_cold_store(struct qy_cold *c, const void *raw, uint32_t count, uint32_t size, const uint16_t *what)
{
	struct extent *e = extent_make(count, size);
	int64_t number = -1;

	errno = ENOMEM;
	if (e == NULL || !room_for_output(c, (size_t)count * size))
		goto fail;
	if (!squeeze(c, e, raw)) {
		atomic_fetch_add(&c->incompressible, 1);
		errno = ERANGE;
		goto fail;
	}
	e->data = c->arena == NULL ? quarry_malloc(e->bytes) : quarry_arena_malloc(c->arena, e->bytes);
	if (e->data == NULL)
		goto fail;
	memcpy(e->data, c->out, e->bytes);
	memcpy(e->what, what, count * sizeof(*what));
	pthread_mutex_lock(&c->lock);
	number = number_take(c);
	if (number >= 0) {
		e->number = (uint32_t)number;
		qy_list_push_back(&c->by_age, &e->link);
		atomic_store_explicit(&c->chunk[number / CHUNK][number % CHUNK], e, memory_order_release);
	}
	pthread_mutex_unlock(&c->lock);
	if (number < 0) {
		errno = ENOMEM;
		goto fail;
	}
	atomic_fetch_add(&c->objects, count);
	atomic_fetch_add(&c->bytes, (uint64_t)count * size);
	atomic_fetch_add(&c->compressed, e->bytes);
	atomic_fetch_add(&c->extents, 1);
	return number;
fail:
	if (e != NULL)
		quarry_free(e->data);
	quarry_free(e);
	return -1;
}

/* Under its shard's lock. */
static void extent_end(struct qy_cold *c, struct extent *e)
{
	struct shard *s = &c->shard[e->number % QY_COLD_SHARDS];

	if (s->extent == e->number)
		s->which = 0;
	pthread_mutex_lock(&c->lock);
	qy_list_remove(&e->link);
	if (e->spilled.size != 0)
		qy_spill_free(&c->spill, &e->spilled);
	atomic_store_explicit(&c->chunk[e->number / CHUNK][e->number % CHUNK], NULL, memory_order_relaxed);
	number_give(c, e->number);
	pthread_mutex_unlock(&c->lock);
	if (e->data != NULL)
		atomic_fetch_sub(&c->compressed, e->bytes);
	else
		atomic_fetch_sub(&c->evicted, e->bytes);
	if (e->where == CORRUPT)
		atomic_fetch_sub(&c->corrupt, 1);
	atomic_fetch_sub(&c->extents, 1);
	quarry_free(e->data);
	quarry_free(e);
}

void qy_cold_drop(struct qy_cold *c, uint32_t extent)
{
	struct extent *e = extent_of(c, extent);

	atomic_fetch_sub(&c->objects, 1);
	atomic_fetch_sub(&c->bytes, e->size);
	if (--e->live == 0)
		extent_end(c, e);
}

/* ---- objects of them ---- */

void qy_cold_lock(struct qy_cold *c, uint32_t extent)
{
	pthread_mutex_lock(&c->shard[extent % QY_COLD_SHARDS].lock);
}

void qy_cold_unlock(struct qy_cold *c, uint32_t extent)
{
	pthread_mutex_unlock(&c->shard[extent % QY_COLD_SHARDS].lock);
}

uint32_t qy_cold_size(const struct qy_cold *c, uint32_t extent)
{
	return extent_of(c, extent)->size;
}

uint16_t qy_cold_what(const struct qy_cold *c, uint32_t extent, uint32_t index)
{
	return extent_of(c, extent)->what[index];
}

bool qy_cold_is_evicted(const struct qy_cold *c, uint32_t extent)
{
	return extent_of(c, extent)->where == IN_FILE;
}

bool qy_cold_is_corrupt(const struct qy_cold *c, uint32_t extent)
{
	return extent_of(c, extent)->where == CORRUPT;
}

/* A block's bytes, as they were compressed; those of the file stand in memory of their own, which is *read. */
static const unsigned char *block_bytes(struct qy_cold *c, struct extent *e, uint32_t block, unsigned char **read)
{
	uint32_t from = e->offset[block], size = e->offset[block + 1] - from;

	if (e->data != NULL)
		return e->data + from;
	*read = quarry_malloc(size);
	if (*read == NULL || qy_spill_read(&c->spill, &e->spilled, *read, from, size) != 0)
		return NULL;
	return *read;
}

static int block_load(struct qy_cold *c, struct extent *e, uint32_t block, void *to)
{
	size_t size = (size_t)objects_of(e, block) * e->size;
	unsigned char *read = NULL;
	const unsigned char *bytes = block_bytes(c, e, block, &read);
	uint32_t is = e->offset[block + 1] - e->offset[block];
	int error = bytes != NULL ? 0 : read != NULL ? EIO : ENOMEM; /* the next try may be luckier */

	if (error == 0 && (qy_crc32c(bytes, is) != e->crc[block] || !c->codec->decompress(bytes, is, to, size))) {
		if (e->where != CORRUPT)
			atomic_fetch_add(&c->corrupt, 1);
		e->where = CORRUPT;
		error = EIO;
	}
	quarry_free(read);
	if (error != 0)
		errno = error;
	return error == 0 ? 0 : -1;
}

int qy_cold_load(struct qy_cold *c, uint32_t extent, uint32_t index, void *to)
{
	struct extent *e = extent_of(c, extent);
	struct shard *s = &c->shard[extent % QY_COLD_SHARDS];
	uint32_t block = index / e->per_block;

	if (e->per_block == 1) {
		if (block_load(c, e, block, to) != 0)
			return -1;
	} else {
		if (s->block == NULL && (s->block = quarry_malloc(QY_COLD_BLOCK)) == NULL) {
			errno = ENOMEM;
			return -1;
		}
		if (s->extent != extent || s->which != block + 1) {
			s->which = 0;
			if (block_load(c, e, block, s->block) != 0)
				return -1;
			s->extent = extent;
			s->which = block + 1;
		}
		memcpy(to, s->block + (size_t)(index % e->per_block) * e->size, e->size);
	}
	atomic_fetch_add_explicit(&c->loaded, 1, memory_order_relaxed);
	return 0;
}

/* ---- to the file ---- */

/* The oldest that is in memory, its shard's lock held; NULL: there is none. */
static struct extent *oldest(struct qy_cold *c)
{
	for (;;) {
		struct extent *e = NULL;
		uint32_t number = 0;

		pthread_mutex_lock(&c->lock);
		if (!qy_list_empty(&c->by_age)) {
			e = qy_container(c->by_age.next, struct extent, link);
			number = e->number;
		}
		pthread_mutex_unlock(&c->lock);
		if (e == NULL)
			return NULL;
		qy_cold_lock(c, number);
		if (extent_of(c, number) == e && e->data != NULL)
			return e;
		qy_cold_unlock(c, number);
	}
}

uint64_t qy_cold_evict(struct qy_cold *c)
{
	uint64_t went = 0;

	while (c->memory != 0 && atomic_load(&c->compressed) > c->memory && qy_spill_ready(&c->spill)) {
		struct extent *e = oldest(c);
		bool written;

		if (e == NULL)
			break;
		written = qy_spill_write(&c->spill, &c->lock, &e->spilled, e->data, e->bytes) == 0;
		if (written) {
			pthread_mutex_lock(&c->lock);
			qy_list_remove(&e->link);
			pthread_mutex_unlock(&c->lock);
			quarry_free(e->data);
			e->data = NULL;
			e->where = IN_FILE;
			atomic_fetch_sub(&c->compressed, e->bytes);
			atomic_fetch_add(&c->evicted, e->bytes);
			went += e->bytes;
		}
		qy_cold_unlock(c, e->number);
	}
	return went;
}

/* ---- the store ---- */

struct qy_cold *qy_cold_make(const struct qy_codec *codec, quarry_arena *arena, uint64_t memory, const char *directory,
			     uint64_t file_limit)
{
	struct qy_cold *c = quarry_calloc(1, sizeof(*c));

	if (c == NULL)
		return NULL;
	c->codec = codec;
	c->arena = arena;
	c->memory = memory;
	qy_list_init(&c->by_age);
	pthread_mutex_init(&c->lock, NULL);
	for (int i = 0; i < QY_COLD_SHARDS; i++)
		pthread_mutex_init(&c->shard[i].lock, NULL);
	c->state = codec->state == 0 ? NULL : quarry_malloc(codec->state);
	if ((codec->state == 0 || c->state != NULL) && qy_spill_open(&c->spill, directory, file_limit) == 0)
		return c;
	quarry_free(c->state);
	quarry_free(c);
	return NULL;
}

void qy_cold_end(struct qy_cold *c)
{
	if (c == NULL)
		return;
	for (uint32_t n = 0; n < c->next; n++) {
		struct extent *e = extent_of(c, n);

		if (e != NULL)
			quarry_free(e->data);
		quarry_free(e);
	}
	for (uint32_t i = 0; i * CHUNK < c->next; i++)
		quarry_free((void *)atomic_load(&c->chunk[i]));
	for (int i = 0; i < QY_COLD_SHARDS; i++)
		quarry_free(c->shard[i].block);
	qy_spill_close(&c->spill);
	quarry_free(c->free);
	quarry_free(c->out);
	quarry_free(c->state);
	quarry_free(c);
}

void qy_cold_count(struct qy_cold *c, struct qy_cold_figures *f)
{
	f->objects = atomic_load(&c->objects);
	f->bytes = atomic_load(&c->bytes);
	f->compressed = atomic_load(&c->compressed);
	f->evicted = atomic_load(&c->evicted);
	f->extents = atomic_load(&c->extents);
	f->corrupt = atomic_load(&c->corrupt);
	f->failures = qy_spill_failures(&c->spill);
	f->loaded = atomic_load(&c->loaded);
	f->incompressible = atomic_load(&c->incompressible);
}

void qy_cold_before_fork(struct qy_cold *c)
{
	for (int i = 0; i < QY_COLD_SHARDS; i++)
		pthread_mutex_lock(&c->shard[i].lock);
	pthread_mutex_lock(&c->lock);
}

void qy_cold_after_fork(struct qy_cold *c, bool child)
{
	qy_spill_forked(&c->spill, child);
	pthread_mutex_unlock(&c->lock);
	for (int i = QY_COLD_SHARDS; i-- > 0;)
		pthread_mutex_unlock(&c->shard[i].lock);
}
