/* SPDX-License-Identifier: MIT */
/* How an extent's objects are compressed when they become cold, and how what is left of it stays small.
 *
 * Who asks for one cold object pays for its block. A block of 4 KiB takes a microsecond, of which nine tenths are for
 * neighbours that nobody asked for; but an object alone is too little to become smaller by itself. So objects of a size
 * have a dictionary: some of them, as they are, from which LZ4 copies what others have in common. Where objects have less in
 * common than neighbours have, extents of that size go in blocks, and it is tried again after longer and longer waits.
 * A dictionary is learned anew when it makes clearly more of objects than it did at first. */
#include <string.h>

#include "lib/base/quiet.h"
#include "lib/lanes/extent.h"

#define DICTIONARY ((size_t)8 << 10)
#define LEARN_FROM ((size_t)32 << 10) /* bytes of objects, at the least */
#define SAVED 8                       /* compressed by less than one of so many is not worth it */
#define DEARER 8                      /* one part of so many more is what it may take to have objects alone */
#define WORSE 4                       /* as much, and it is learned anew, */
#define AGAIN 16                      /* after so many extents, */
#define BACKOFF_MOST 1024             /* or, where it was of no use, up to so many */

/* ---- one way and the other ---- */

struct way {
	const struct qy_kind *kind; /* by its dictionary; NULL: by none */
	size_t most;                /* bytes that it must be less than */
	bool plain;                 /* whatever comes of it */
};

static size_t compress(struct qy_cold *c, const struct way *w, const void *from, size_t size, void *to, size_t room)
{
	if (w->kind != NULL)
		return c->codec->compress_by(c->state, w->kind->learned, from, size, to, room);
	return c->codec->compress(c->state, from, size, to, room);
}

/* All blocks to c->out. False: that is not worth it, which is known after some of them, mostly. */
static bool squeeze(struct qy_cold *c, struct qy_extent *e, const unsigned char *raw, const struct way *w)
{
	size_t used = 0, done = 0;

	for (uint32_t b = 0; b < e->blocks; b++) {
		size_t size = (size_t)qy_objects_of(e, b) * e->size;
		size_t made = used + QY_BLOCK_HEAD >= w->most ? 0 : compress(c, w, raw + done, size, c->out + used + QY_BLOCK_HEAD,
									      w->most - used - QY_BLOCK_HEAD);
		uint32_t crc;

		if (made == 0)
			return false;
		qy_block_put(e, b, (uint32_t)used);
		crc = qy_crc32c(c->out + used + QY_BLOCK_HEAD, made);
		memcpy(c->out + used, &crc, sizeof(crc));
		used += QY_BLOCK_HEAD + made;
		if (!w->plain && done < 2 * QY_COLD_BLOCK && done + size >= 2 * QY_COLD_BLOCK && b + 1 < e->blocks &&
		    used > (done + size) - (done + size) / SAVED)
			return false;
		done += size;
	}
	e->bytes = (uint32_t)used;
	return true;
}

static size_t record_bytes(const struct qy_extent *e)
{
	return sizeof(*e) + e->count * sizeof(e->place[0]);
}

/* What it must be less than, so that it is worth it. */
static size_t bytes_worth(const struct qy_extent *e)
{
	size_t total = (size_t)e->count * e->size, most = total - total / SAVED;

	return most - qy_min(record_bytes(e), most);
}

static bool in_blocks(struct qy_cold *c, struct qy_extent *e, const unsigned char *raw)
{
	struct way w = { .plain = strcmp(c->codec->name, "none") == 0 };

	qy_extent_divide(e, qy_objects_per_block(e->size));
	w.most = w.plain ? (size_t)e->count * e->size + e->blocks * QY_BLOCK_HEAD + 1 : bytes_worth(e);
	return squeeze(c, e, raw, &w);
}

static bool in_pieces(struct qy_cold *c, struct qy_extent *e, const unsigned char *raw, const struct qy_kind *k)
{
	struct way w = { .kind = k };

	qy_extent_divide(e, qy_objects_per_piece(e->size));
	w.most = bytes_worth(e);
	if (!squeeze(c, e, raw, &w))
		return false;
	e->dictionary = k->dictionary;
	return true;
}

/* ---- what is known of a size ---- */

/* NULL: of objects so large nothing can be learned. */
static struct qy_kind *kind_of(struct qy_cold *c, uint32_t size)
{
	struct qy_kinds *k = &c->kinds;
	uint32_t i = 0;

	if (c->codec->learn == NULL || size > QY_COLD_BLOCK / 2)
		return NULL;
	while (i < k->count && k->of[i].size != size)
		i++;
	if (i == QY_DEEP_CLASSES)
		return NULL;
	if (i == k->count)
		k->of[k->count++].size = size;
	return &k->of[i];
}

static void forget(struct qy_cold *c, struct qy_kind *k)
{
	qy_hold(&c->lock);
	qy_dictionary_leave(c, k->dictionary);
	qy_let_go(&c->lock);
	k->dictionary = NULL;
}

/* Pieces that are in the dictionary: one in so many. */
static uint32_t stride(const struct qy_extent *e)
{
	return (uint32_t)(((size_t)e->count * e->size + DICTIONARY - 1) / DICTIONARY);
}

/* Some of the objects at raw are a dictionary from now on. False: no memory. */
static bool learn(struct qy_cold *c, struct qy_kind *k, const struct qy_extent *e, const unsigned char *raw)
{
	struct qy_dictionary *d = quarry_calloc(1, sizeof(*d));
	size_t piece = (size_t)e->per_block * e->size;

	if (k->learned == NULL)
		k->learned = quarry_malloc(c->codec->state);
	if (d != NULL)
		d->bytes = quarry_malloc(DICTIONARY);
	if (d == NULL || d->bytes == NULL || k->learned == NULL) {
		if (d != NULL)
			quarry_free(d->bytes);
		quarry_free(d);
		return false;
	}
	for (uint32_t b = 0; b + 1 < e->blocks && d->size + piece <= DICTIONARY; b += stride(e)) {
		memcpy((unsigned char *)d->bytes + d->size, raw + b * piece, piece);
		d->size += piece;
	}
	d->refs = 1;
	c->codec->learn(k->learned, d->bytes, d->size);
	k->dictionary = d;
	k->used = 0;
	atomic_fetch_add(&c->dictionaries, 1);
	atomic_fetch_add(&c->dictionary_bytes, d->size);
	return true;
}

/* What the dictionary makes of 64 KiB, by those of the extent that are not in it. */
static uint64_t promise(const struct qy_extent *e)
{
	uint64_t bytes = 0, objects = 0;

	for (uint32_t b = 0; b < e->blocks; b++) {
		if (b % stride(e) == 0)
			continue;
		bytes += qy_block_bytes(e, b);
		objects += qy_objects_of(e, b);
	}
	return objects == 0 ? UINT64_MAX : bytes * QY_COLD_RAW / (objects * e->size);
}

/* The extent was compressed in blocks: whether it is better off in pieces, and is so then. */
static bool try_pieces(struct qy_cold *c, struct qy_extent *e, const unsigned char *raw, struct qy_kind *k)
{
	uint64_t total = (uint64_t)e->count * e->size;
	uint64_t blocks = e->bytes * QY_COLD_RAW / total, pieces;

	qy_extent_divide(e, qy_objects_per_piece(e->size));
	if (!learn(c, k, e, raw))
		return false;
	pieces = in_pieces(c, e, raw, k) ? promise(e) : UINT64_MAX;
	if (pieces <= blocks + blocks / DEARER) {
		k->promised = (uint32_t)pieces;
		k->backoff = 0;
		return true;
	}
	e->dictionary = NULL;
	forget(c, k);
	k->backoff = (uint32_t)qy_min(k->backoff * 2 + AGAIN, BACKOFF_MOST);
	k->skip = k->backoff;
	return false;
}

static bool by_kind(struct qy_cold *c, struct qy_extent *e, const unsigned char *raw, struct qy_kind *k)
{
	size_t total = (size_t)e->count * e->size;

	if (k->dictionary != NULL) {
		bool worth = in_pieces(c, e, raw, k);
		uint64_t made = e->bytes * QY_COLD_RAW / total;

		if (k->used++ < AGAIN || total < LEARN_FROM || (worth && made <= k->promised + k->promised / WORSE))
			return worth || in_blocks(c, e, raw);
		e->dictionary = NULL;
		forget(c, k);
	} else if (k->skip > 0 || total < LEARN_FROM) {
		k->skip -= k->skip > 0;
		return in_blocks(c, e, raw);
	}
	return in_blocks(c, e, raw) && (try_pieces(c, e, raw, k) || in_blocks(c, e, raw));
}

bool qy_squeeze(struct qy_cold *c, struct qy_extent *e, const unsigned char *raw)
{
	struct qy_kind *k = kind_of(c, e->size);
	bool worth;

	e->dictionary = NULL;
	if (k == NULL)
		return in_blocks(c, e, raw);
	c->kinds.busy = true;
	worth = by_kind(c, e, raw, k);
	c->kinds.busy = false;
	return worth;
}

/* ---- what is left of an extent ---- */

#define SHRINK_SOON 16     /* one part of so many is gone, for who has the time, */
#define SHRINK_LEAST 1024u /* and so many bytes */

bool qy_block_is_gone(const struct qy_extent *e, uint32_t block)
{
	for (uint32_t i = 0; i < qy_objects_of(e, block); i++)
		if (!(e->place[block * e->per_block + i] & QY_PLACE_GONE))
			return false;
	return true;
}

uint32_t qy_extent_dead(const struct qy_extent *e)
{
	uint32_t dead = 0;

	for (uint32_t b = 0; b < e->blocks; b++)
		dead += qy_block_is_gone(e, b) ? qy_block_bytes(e, b) : 0;
	return dead;
}

void qy_extent_shrink(struct qy_cold *c, struct qy_extent *e, uint32_t part)
{
	uint32_t used = 0, from = 0;
	unsigned char *data;

	if (e->data == NULL || e->dead < SHRINK_LEAST || e->dead < e->bytes / part)
		return;
	data = qy_cold_bytes(c, e->bytes - e->dead);
	if (data == NULL)
		return;
	for (uint32_t b = 0; b < e->blocks; b++) {
		uint32_t next = b + 1 < e->blocks ? qy_block_at(e, b + 1) : e->bytes;

		qy_block_put(e, b, used);
		if (!qy_block_is_gone(e, b)) {
			memcpy(data + used, e->data + from, next - from);
			used += next - from;
		}
		from = next;
	}
	quarry_free(e->data);
	e->data = data;
	e->bytes = used;
	atomic_fetch_sub(&c->compressed, e->dead);
	e->dead = 0;
}

/* Under its shard's lock: half of how often its objects were asked for. */
static void forget_half(struct qy_extent *e)
{
	bool asked = false;

	for (uint32_t i = 0; e->asked && i < e->count; i++) {
		uint32_t half = (e->place[i] & QY_PLACE_ASKED) >> 1 & QY_PLACE_ASKED;

		e->place[i] = (e->place[i] & ~QY_PLACE_ASKED) | half;
		asked = asked || half != 0;
	}
	e->asked = asked;
}

bool qy_cold_shrink(struct qy_cold *c, uint32_t *number)
{
	uint32_t next = qy_peek(c->next);

	for (uint32_t i = 0; i < 64 && *number < next; i++, ++*number) {
		struct qy_extent *e;

		qy_cold_lock(c, *number);
		e = qy_extent_of(c, *number);
		if (e != NULL) {
			forget_half(e);
			qy_extent_shrink(c, e, SHRINK_SOON);
		}
		qy_cold_unlock(c, *number);
	}
	return *number < next;
}

/* ---- begun and ended ---- */

/* As qy_deep_in_child. */
void qy_kinds_in_child(struct qy_cold *c)
{
	if (!c->kinds.busy)
		return;
	for (uint32_t i = 0; i < c->kinds.count; i++) {
		c->kinds.of[i].dictionary = NULL;
		c->kinds.of[i].learned = NULL;
	}
	c->kinds.busy = false;
}

void qy_kinds_end(struct qy_cold *c)
{
	for (uint32_t i = 0; i < c->kinds.count; i++) {
		qy_dictionary_leave(c, c->kinds.of[i].dictionary);
		quarry_free(c->kinds.of[i].learned);
	}
}
