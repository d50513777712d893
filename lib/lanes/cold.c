/* SPDX-License-Identifier: MIT */
/* The store of cold objects: extents, in memory and in a file. (cold.h has what it is.) */
#include "lib/lanes/cold.h"

#include <errno.h>
#include <string.h>

#include "lib/api/error.h"
#include "lib/base/quiet.h"
#include "lib/lanes/dictionary.h"
#include "lib/lanes/extent.h"
#include "numa/os.h"

#define ASKED_MOST 2 /* times that an object is copied before it comes back (less those that are forgotten) */
_Static_assert(ASKED_MOST < QY_PLACE_ASKED >> QY_PLACE_ASKED_SHIFT, "they can be counted");

/* ---- extents ---- */

uint32_t qy_cold_objects_for(size_t size)
{
	size_t count = qy_max(1, QY_COLD_RAW / size);

	return (uint32_t)qy_min(count, QY_COLD_OBJECTS);
}

/* Under the lock: -1 when there is none. */
static int64_t number_take(struct qy_cold *c)
{
	struct qy_extent *_Atomic *chunk;

	if (c->free_count > 0)
		return c->free[--c->free_count];
	if (c->next == QY_COLD_EXTENTS)
		return -1;
	if (c->next % QY_EXTENT_CHUNK == 0) {
		chunk = quarry_calloc(QY_EXTENT_CHUNK, sizeof(*chunk));
		if (chunk == NULL)
			return -1;
		atomic_store_explicit(&c->chunk[c->next / QY_EXTENT_CHUNK], chunk, memory_order_release);
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

/* Of c->shape; its bytes are c->out's. NULL: no memory. */
static struct qy_extent *extent_make(struct qy_cold *c)
{
	size_t size = sizeof(struct qy_extent) + c->shape->count * sizeof(c->shape->place[0]);
	struct qy_extent *e = c->arena == NULL ? quarry_aligned_alloc(QY_CACHE_LINE, size)
					       : quarry_arena_aligned_alloc(c->arena, QY_CACHE_LINE, size);

	if (e == NULL)
		return NULL;
	memcpy(e, c->shape, size);
	e->data = qy_cold_bytes(c, e->bytes);
	if (e->data == NULL) {
		quarry_free(e);
		return NULL;
	}
	memcpy(e->data, c->out, e->bytes);
	qy_list_init(&e->link);
	qy_list_init(&e->shallow);
	return e;
}

bool qy_room_for_output(struct qy_cold *c, size_t size)
{
	void *old;

	if (c->out_size >= size)
		return true;
	old = c->out; /* (a fork may be at any place) */
	c->out = NULL;
	c->out_size = 0;
	quarry_free(old);
	c->out = quarry_malloc(size);
	if (c->out == NULL)
		return false;
	c->out_size = size;
	return true;
}

void *qy_cold_bytes(struct qy_cold *c, size_t size)
{
	return c->arena == NULL ? quarry_malloc(size) : quarry_arena_malloc(c->arena, size);
}

int64_t qy_cold_store(struct qy_cold *c, const void *raw, uint32_t count, uint32_t size, const uint16_t *what)
{
	struct qy_extent *e;
	int64_t number = -1;

	errno = ENOMEM;
	if (!qy_room_for_output(c, 2 * (size_t)count * size))
		return -1;
	*c->shape = (struct qy_extent){ .count = count, .live = count, .size = size };
	for (uint32_t i = 0; i < count; i++)
		c->shape->place[i] = (uint32_t)what[i] << QY_PLACE_WHAT_SHIFT;
	if (!qy_squeeze(c, c->shape, raw)) {
		atomic_fetch_add(&c->incompressible, 1);
		errno = ERANGE;
		return -1;
	}
	e = extent_make(c);
	if (e == NULL)
		return -1;
	qy_hold(&c->lock);
	number = number_take(c);
	if (number >= 0) {
		e->number = (uint32_t)number;
		e->born = c->pass;
		if (e->dictionary != NULL)
			e->dictionary->refs++;
		qy_list_push_back(&c->by_age, &e->link);
		if (c->deep.codec != NULL)
			qy_list_push_back(&c->shallow, &e->shallow);
		atomic_store_explicit(&c->chunk[number / QY_EXTENT_CHUNK][number % QY_EXTENT_CHUNK], e, memory_order_release);
	}
	qy_let_go(&c->lock);
	if (number < 0) {
		quarry_free(e->data);
		quarry_free(e);
		errno = ENOMEM;
		return -1;
	}
	atomic_fetch_add(&c->objects, count);
	atomic_fetch_add(&c->bytes, (uint64_t)count * size);
	atomic_fetch_add(&c->compressed, c->shape->bytes);
	atomic_fetch_add(&c->extents, 1);
	return number;
}

/* Under its shard's lock. */
static void extent_end(struct qy_cold *c, struct qy_extent *e)
{
	struct qy_shard *s = &c->shard[e->number % QY_COLD_SHARDS];

	if (s->extent == e->number)
		s->which = 0;
	qy_hold(&c->lock);
	qy_list_remove(&e->link);
	qy_list_remove(&e->shallow);
	qy_dictionary_leave(c, e->dictionary);
	if (e->spilled.size != 0)
		qy_spill_free(&c->spill, &e->spilled);
	atomic_store_explicit(&c->chunk[e->number / QY_EXTENT_CHUNK][e->number % QY_EXTENT_CHUNK], NULL, memory_order_relaxed);
	number_give(c, e->number);
	qy_let_go(&c->lock);
	if (e->data != NULL)
		atomic_fetch_sub(&c->compressed, e->bytes);
	else
		atomic_fetch_sub(&c->evicted, e->bytes);
	if (e->lost != 0)
		atomic_fetch_sub(&c->corrupt, 1);
	atomic_fetch_sub(&c->extents, 1);
	quarry_free(e->data);
	quarry_free(e);
}

void qy_cold_drop(struct qy_cold *c, uint32_t extent, uint32_t index)
{
	struct qy_extent *e = qy_extent_of(c, extent);
	uint32_t block = e->per_block == 1 ? index : index / e->per_block;

	atomic_fetch_sub(&c->objects, 1);
	atomic_fetch_sub(&c->bytes, e->size);
	if (--e->live == 0) {
		extent_end(c, e);
		return;
	}
	e->place[index] |= QY_PLACE_GONE;
	if (e->per_block == 1 || qy_block_is_gone(e, block)) {
		qy_block_lost(c, e, block, false);
		e->dead += qy_block_bytes(e, block);
		qy_extent_shrink(c, e, QY_SHRINK);
	}
}

/* ---- objects of them ---- */

void qy_cold_lock(struct qy_cold *c, uint32_t extent)
{
	qy_hold(&c->shard[extent % QY_COLD_SHARDS].lock);
}

void qy_cold_unlock(struct qy_cold *c, uint32_t extent)
{
	qy_let_go(&c->shard[extent % QY_COLD_SHARDS].lock);
}

void qy_cold_stalled(struct qy_cold *c, uint64_t ns)
{
	atomic_fetch_add_explicit(&c->stalled, ns, memory_order_relaxed);
}

static uint16_t what_of(const struct qy_extent *e, uint32_t index)
{
	return (uint16_t)((e->place[index] & QY_PLACE_WHAT) >> QY_PLACE_WHAT_SHIFT);
}

void qy_cold_expect(const struct qy_cold *c, uint32_t extent, uint32_t index)
{
	const struct qy_extent *e = qy_extent_of(c, extent);

	/* (It may have ended: then this is of no use, and no harm. So it is not looked at.) */
	__builtin_prefetch(e);
	__builtin_prefetch((const char *)e + offsetof(struct qy_extent, place) + index * sizeof(e->place[0]));
}

uint32_t qy_cold_find(const struct qy_cold *c, uint32_t extent, uint32_t index, uint16_t *what)
{
	const struct qy_extent *e = qy_extent_of(c, extent);
	uint32_t block = e->per_block == 1 ? index : index / e->per_block;

	if (e->data != NULL) {
		const unsigned char *bytes = e->data + qy_block_at(e, block);

		__builtin_prefetch(bytes);
		__builtin_prefetch(bytes + QY_CACHE_LINE);
	}
	*what = what_of(e, index);
	return e->size;
}

uint32_t qy_cold_size(const struct qy_cold *c, uint32_t extent)
{
	return qy_extent_of(c, extent)->size;
}

uint16_t qy_cold_what(const struct qy_cold *c, uint32_t extent, uint32_t index)
{
	return what_of(qy_extent_of(c, extent), index);
}

bool qy_cold_is_evicted(const struct qy_cold *c, uint32_t extent)
{
	return qy_extent_of(c, extent)->where == QY_IN_FILE;
}

bool qy_cold_is_corrupt(const struct qy_cold *c, uint32_t extent, uint32_t index)
{
	const struct qy_extent *e = qy_extent_of(c, extent);

	return qy_block_is_lost(e, index / e->per_block);
}

void qy_block_lost(struct qy_cold *c, struct qy_extent *e, uint32_t block, bool lost)
{
	if (qy_block_is_lost(e, block) == lost)
		return;
	e->place[block * e->per_block] ^= QY_PLACE_LOST;
	if (lost && e->lost++ == 0)
		atomic_fetch_add(&c->corrupt, 1);
	else if (!lost && --e->lost == 0)
		atomic_fetch_sub(&c->corrupt, 1);
}

/* A block's bytes, as they were compressed; those of the file stand in memory of their own, which is *read, unless the
 * whole of it was read before. */
static const unsigned char *block_bytes(struct qy_cold *c, struct qy_extent *e, uint32_t block, unsigned char **read)
{
	const struct qy_shard *s = &c->shard[e->number % QY_COLD_SHARDS];
	uint32_t from = qy_block_at(e, block), size = qy_block_bytes(e, block);

	if (e->data != NULL)
		return e->data + from;
	if (s->staged != NULL)
		return s->staged + from;
	*read = quarry_malloc(size);
	if (*read == NULL || qy_spill_read(&c->spill, &e->spilled, *read, from, size) != 0)
		return NULL;
	return *read;
}

void qy_cold_unstage(struct qy_cold *c, uint32_t extent)
{
	struct qy_shard *s = &c->shard[extent % QY_COLD_SHARDS];

	quarry_free(s->staged);
	s->staged = NULL;
}

void qy_cold_stage(struct qy_cold *c, uint32_t extent)
{
	const struct qy_extent *e = qy_extent_of(c, extent);
	struct qy_shard *s = &c->shard[extent % QY_COLD_SHARDS];

	if (e->where != QY_IN_FILE)
		return;
	s->staged = quarry_malloc(e->bytes);
	if (s->staged != NULL && qy_spill_read(&c->spill, &e->spilled, s->staged, 0, e->bytes) != 0)
		qy_cold_unstage(c, extent); /* a block may be had all the same */
}

static bool unpack(struct qy_cold *c, const struct qy_extent *e, const void *from, size_t is, void *to, size_t size)
{
	if (e->deep)
		return qy_deep_decompress(c, e, from, is, to, size);
	if (e->dictionary != NULL)
		return c->codec->decompress_by(e->dictionary->bytes, e->dictionary->size, from, is, to, size);
	return c->codec->decompress(from, is, to, size);
}

static bool is_whole(const unsigned char *block, uint32_t size)
{
	uint32_t crc;

	memcpy(&crc, block, sizeof(crc));
	return crc == qy_crc32c(block + QY_BLOCK_HEAD, size - QY_BLOCK_HEAD);
}

/* What decompressing it needs, and is made when it is needed. */
static bool has_context(struct qy_cold *c, const struct qy_extent *e)
{
	struct qy_shard *s = &c->shard[e->number % QY_COLD_SHARDS];

	if (!e->deep || e->dictionary == NULL)
		return true;
	if (s->context == NULL)
		s->context = qy_decompression_make();
	return s->context != NULL;
}

int qy_block_load(struct qy_cold *c, struct qy_extent *e, uint32_t block, void *to)
{
	size_t size = (size_t)qy_objects_of(e, block) * e->size;
	unsigned char *read = NULL;
	const unsigned char *bytes = has_context(c, e) ? block_bytes(c, e, block, &read) : NULL;
	uint32_t is = qy_block_bytes(e, block);
	int error = bytes != NULL ? 0 : read != NULL ? EIO : ENOMEM; /* the next try may be luckier */

	if (error == 0) {
		if (!is_whole(bytes, is) || !unpack(c, e, bytes + QY_BLOCK_HEAD, is - QY_BLOCK_HEAD, to, size))
			error = EIO;
		if (QY_UNLIKELY(error != 0 || e->lost != 0))
			qy_block_lost(c, e, block, error != 0);
	}
	quarry_free(read);
	if (error != 0)
		errno = error;
	return error == 0 ? 0 : -1;
}

/* An object's bytes. */
static int load(struct qy_cold *c, uint32_t extent, uint32_t index, void *to)
{
	struct qy_extent *e = qy_extent_of(c, extent);
	struct qy_shard *s = &c->shard[extent % QY_COLD_SHARDS];
	uint32_t block = e->per_block == 1 ? index : index / e->per_block; /* (a division takes as long as a cache) */

	if (e->per_block == 1) {
		if (qy_block_load(c, e, block, to) != 0)
			return -1;
	} else {
		if (s->block == NULL && (s->block = quarry_malloc(QY_COLD_BLOCK)) == NULL) {
			errno = ENOMEM;
			return -1;
		}
		if (s->extent != extent || s->which != block + 1) {
			s->which = 0;
			if (qy_block_load(c, e, block, s->block) != 0)
				return -1;
			s->extent = extent;
			s->which = block + 1;
		}
		memcpy(to, s->block + (size_t)(index % e->per_block) * e->size, e->size);
	}
	return 0;
}

int qy_cold_load(struct qy_cold *c, uint32_t extent, uint32_t index, void *to)
{
	if (load(c, extent, index, to) != 0)
		return -1;
	atomic_fetch_add_explicit(&c->loaded, 1, memory_order_relaxed);
	return 0;
}

int qy_cold_copy(struct qy_cold *c, uint32_t extent, uint32_t index, void *to)
{
	struct qy_shard *s = &c->shard[extent % QY_COLD_SHARDS];

	if (load(c, extent, index, to) != 0)
		return -1;
	qy_publish(s->copies, s->copies + 1);
	return 0;
}

bool qy_cold_glanced(struct qy_cold *c, uint32_t extent, uint32_t index)
{
	struct qy_extent *e = qy_extent_of(c, extent);
	uint32_t *place = &e->place[index];

	if ((*place & QY_PLACE_ASKED) >> QY_PLACE_ASKED_SHIFT == ASKED_MOST)
		return true;
	*place += (uint32_t)1 << QY_PLACE_ASKED_SHIFT;
	e->asked = true;
	return false;
}

/* ---- to the file ---- */

/* The oldest that is in memory: its number, and whether it was never compressed anew; -1: there is none. */
static int64_t oldest(struct qy_cold *c, bool *shallow)
{
	int64_t number = -1;

	qy_hold(&c->lock);
	if (!qy_list_empty(&c->by_age)) {
		const struct qy_extent *e = qy_container(c->by_age.next, struct qy_extent, link);

		number = e->number;
		*shallow = !qy_list_empty(&e->shallow);
	}
	qy_let_go(&c->lock);
	return number;
}

/* Under its shard's lock: to the file. */
static void send(struct qy_cold *c, struct qy_extent *e)
{
	if (qy_spill_write(&c->spill, &c->lock, &e->spilled, e->data, e->bytes) != 0)
		return;
	qy_hold(&c->lock);
	qy_list_remove(&e->link);
	qy_list_remove(&e->shallow);
	qy_let_go(&c->lock);
	quarry_free(e->data);
	e->data = NULL;
	e->where = QY_IN_FILE;
	atomic_fetch_sub(&c->compressed, e->bytes);
	atomic_fetch_add(&c->evicted, e->bytes);
}

bool qy_cold_evict(struct qy_cold *c, bool train)
{
	bool shallow = false;
	struct qy_extent *e;
	int64_t number;

	if (c->memory == 0 || atomic_load(&c->compressed) <= c->memory || !qy_spill_ready(&c->spill))
		return false;
	number = oldest(c, &shallow);
	if (number < 0)
		return false;
	if (shallow) {
		qy_deepen(c, (uint32_t)number, train);
		return true;
	}
	qy_cold_lock(c, (uint32_t)number);
	e = qy_extent_of(c, (uint32_t)number);
	if (e != NULL && e->data != NULL) /* (else it has ended meanwhile) */
		send(c, e);
	qy_cold_unlock(c, (uint32_t)number);
	return true;
}

void qy_cold_pass(struct qy_cold *c)
{
	qy_hold(&c->lock);
	c->pass++;
	qy_let_go(&c->lock);
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
	qy_list_init(&c->shallow);
	pthread_mutex_init(&c->lock, NULL);
	for (int i = 0; i < QY_COLD_SHARDS; i++)
		pthread_mutex_init(&c->shard[i].lock, NULL);
	c->state = codec->state == 0 ? NULL : quarry_malloc(codec->state);
	c->shape = quarry_aligned_alloc(QY_CACHE_LINE, sizeof(*c->shape) + QY_COLD_OBJECTS * sizeof(c->shape->place[0]));
	if (c->shape != NULL && (codec->state == 0 || c->state != NULL) && qy_spill_open(&c->spill, directory, file_limit) == 0)
		return c;
	quarry_free(c->shape);
	quarry_free(c->state);
	quarry_free(c);
	return NULL;
}

void qy_cold_end(struct qy_cold *c)
{
	if (c == NULL)
		return;
	for (uint32_t n = 0; n < c->next; n++) {
		struct qy_extent *e = qy_extent_of(c, n);

		if (e != NULL) {
			qy_dictionary_leave(c, e->dictionary);
			quarry_free(e->data);
		}
		quarry_free(e);
	}
	qy_kinds_end(c);
	qy_deep_end(c);
	for (uint32_t i = 0; i * QY_EXTENT_CHUNK < c->next; i++)
		quarry_free((void *)atomic_load(&c->chunk[i]));
	for (int i = 0; i < QY_COLD_SHARDS; i++)
		quarry_free(c->shard[i].block);
	qy_spill_close(&c->spill);
	quarry_free(c->free);
	quarry_free(c->out);
	quarry_free(c->shape);
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
	f->stalled = atomic_load(&c->stalled);
	f->copies = 0;
	for (int i = 0; i < QY_COLD_SHARDS; i++)
		f->copies += qy_peek(c->shard[i].copies);
	f->deepened = atomic_load(&c->deepened);
	f->dictionaries = atomic_load(&c->dictionaries);
	f->dictionary_bytes = atomic_load(&c->dictionary_bytes);
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
	if (child) {
		qy_kinds_in_child(c);
		qy_deep_in_child(c);
	}
	pthread_mutex_unlock(&c->lock);
	for (int i = QY_COLD_SHARDS; i-- > 0;)
		pthread_mutex_unlock(&c->shard[i].lock);
}
