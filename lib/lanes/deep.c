/* SPDX-License-Identifier: MIT */
/* What has been cold for long, and what goes to the file, is compressed anew, by Zstandard and a dictionary for objects
 * of its size: blocks of 4 KiB are too small to learn in what all of them have in common.
 *
 * A dictionary is trained on blocks of many extents (the cover algorithm: see ZDICT_trainFromBuffer), once for so many
 * extents. Then there is a new one, for what is stored changes; the old one stays for as long as an extent needs it. Where there are
 * too few extents of a size, or training fails, it goes without.
 *
 * One thread does all this (lanes->moving). An extent is not locked while it is compressed: it may end meanwhile, and
 * its number is not used again, as this thread is the one that makes extents. */
#include <errno.h>
#include <string.h>

#include "lib/base/quiet.h"
#include "lib/lanes/dictionary.h"
#include "lib/lanes/extent.h"

#define SAMPLED 16          /* extents, at least, that a dictionary is trained on, */
#define EVERY 4             /* every so manieth block of them */
#define SAMPLES ((size_t)256 << 10)
#define DICTIONARY ((size_t)8 << 10)
#define USES 512            /* extents that are compressed by one dictionary */

/* ---- dictionaries ---- */

static void dictionary_free(struct qy_dictionary *d)
{
	qy_decoder_free(d->decoder);
	quarry_free(d->bytes);
	quarry_free(d);
}

void qy_dictionary_leave(struct qy_cold *c, struct qy_dictionary *d)
{
	if (d == NULL || --d->refs > 0)
		return;
	atomic_fetch_sub(&c->dictionaries, 1);
	atomic_fetch_sub(&c->dictionary_bytes, d->size);
	dictionary_free(d);
}

static struct qy_dictionary *dictionary_make(struct qy_cold *c, const void *samples, const size_t *sizes, uint32_t count)
{
	struct qy_dictionary *d = quarry_calloc(1, sizeof(*d));

	if (d == NULL)
		return NULL;
	d->bytes = quarry_malloc(DICTIONARY);
	d->size = d->bytes == NULL ? 0 : qy_dictionary_train(d->bytes, DICTIONARY, samples, sizes, count);
	d->decoder = d->size == 0 ? NULL : qy_decoder_make(d->bytes, d->size);
	if (d->decoder == NULL) {
		dictionary_free(d);
		return NULL;
	}
	d->refs = 1; /* its class's */
	atomic_fetch_add(&c->dictionaries, 1);
	atomic_fetch_add(&c->dictionary_bytes, d->size);
	return d;
}

/* Numbers of extents of this size that are in memory. */
static uint32_t some_of(struct qy_cold *c, uint32_t size, uint32_t *number)
{
	uint32_t count = 0;

	qy_hold(&c->lock);
	for (struct qy_link *k = c->by_age.next; k != &c->by_age && count < SAMPLED; k = k->next) {
		const struct qy_extent *e = qy_container(k, struct qy_extent, link);

		if (e->size == size)
			number[count++] = e->number;
	}
	qy_let_go(&c->lock);
	return count;
}

/* Blocks of extents, side by side. How many. */
static uint32_t sample(struct qy_cold *c, const uint32_t *number, unsigned char *samples, size_t *sizes)
{
	size_t used = 0;
	uint32_t count = 0;

	for (uint32_t i = 0; i < SAMPLED; i++) {
		struct qy_extent *e;

		qy_cold_lock(c, number[i]);
		e = qy_extent_of(c, number[i]);
		for (uint32_t b = i % EVERY; e != NULL && b < e->blocks; b += EVERY) {
			size_t size = (size_t)qy_objects_of(e, b) * e->size;

			if (qy_block_bytes(e, b) == 0)
				continue;
			if (used + size > SAMPLES || qy_block_load(c, e, b, samples + used) != 0)
				break;
			used += size;
			sizes[count++] = size;
		}
		qy_cold_unlock(c, number[i]);
	}
	return count;
}

static struct qy_dictionary *train(struct qy_cold *c, uint32_t size)
{
	uint32_t number[SAMPLED], count;
	size_t sizes[SAMPLED * QY_EXTENT_BLOCKS / EVERY];
	struct qy_dictionary *d = NULL;
	unsigned char *samples;

	if (size > QY_COLD_BLOCK || some_of(c, size, number) < SAMPLED)
		return NULL;
	samples = quarry_malloc(SAMPLES);
	if (samples == NULL)
		return NULL;
	count = sample(c, number, samples, sizes);
	if (count > 0)
		d = dictionary_make(c, samples, sizes, count);
	quarry_free(samples);
	return d;
}

/* For objects of this size; NULL: it goes without. */
static struct qy_dictionary *dictionary_for(struct qy_cold *c, uint32_t size, bool may_train)
{
	struct qy_deep *k = &c->deep;
	struct qy_dictionary *d;
	uint32_t i = 0;

	while (i < k->classes && k->of[i].size != size)
		i++;
	if (i == QY_DEEP_CLASSES || !qy_dictionaries_load())
		return NULL;
	if (i == k->classes) {
		k->of[i].size = size;
		k->classes++;
	}
	if ((k->of[i].dictionary == NULL || k->of[i].used >= USES) && k->of[i].used % SAMPLED == 0 && may_train) {
		d = train(c, size);
		if (d != NULL) {
			if (k->encoder_of == k->of[i].dictionary) {
				qy_encoder_free(k->encoder);
				k->encoder = NULL;
			}
			qy_hold(&c->lock);
			qy_dictionary_leave(c, k->of[i].dictionary);
			qy_let_go(&c->lock);
			k->of[i].dictionary = d;
			k->of[i].used = 0;
		}
	}
	k->of[i].used++;
	return k->of[i].dictionary;
}

/* ---- compressed anew ---- */

static bool prepare(struct qy_cold *c, struct qy_dictionary *d)
{
	struct qy_deep *k = &c->deep;

	if (k->context == NULL)
		k->context = qy_compression_make();
	if (k->context != NULL && (k->encoder == NULL || k->encoder_of != d)) {
		qy_encoder_free(k->encoder);
		k->encoder = qy_encoder_make(d->bytes, d->size);
		k->encoder_of = d;
	}
	return k->context != NULL && k->encoder != NULL;
}

/* All blocks of raw into c->out: whether they are fewer bytes than `most`. e: its shape, which says then where they are. */
static bool squeeze(struct qy_cold *c, struct qy_extent *e, struct qy_dictionary *d, uint32_t most)
{
	const unsigned char *from = c->deep.raw;
	uint32_t used = 0;

	for (uint32_t b = 0; b < e->blocks; b++) {
		size_t size = (size_t)qy_objects_of(e, b) * e->size, made;
		unsigned char *to = c->out + used + QY_BLOCK_HEAD;
		uint32_t room = most - qy_min(used + (uint32_t)QY_BLOCK_HEAD, most), crc;

		if (d != NULL)
			made = qy_compress_by(c->deep.context, c->deep.encoder, from, size, to, room);
		else
			made = c->deep.codec->compress(c->deep.state, from, size, to, room);
		if (made == 0 || made >= room)
			return false;
		qy_block_put(e, b, used);
		crc = qy_crc32c(to, made);
		memcpy(c->out + used, &crc, sizeof(crc));
		used += (uint32_t)(QY_BLOCK_HEAD + made);
		from += size;
	}
	e->bytes = used;
	return true;
}

/* Under its shard's lock: its objects, as they were, but for what is gone; and its shape, c->shape. */
static bool unpack(struct qy_cold *c, struct qy_extent *e)
{
	struct qy_deep *k = &c->deep;
	size_t size = (size_t)e->count * e->size, at = 0;

	if (k->raw_size < size) {
		unsigned char *more = quarry_malloc(size);

		if (more == NULL)
			return false;
		quarry_free(k->raw);
		k->raw = more;
		k->raw_size = size;
	}
	for (uint32_t b = 0; b < e->blocks; b++) {
		size_t is = (size_t)qy_objects_of(e, b) * e->size;

		if (qy_block_bytes(e, b) == 0)
			memset(k->raw + at, 0, is);
		else if (qy_block_load(c, e, b, k->raw + at) != 0)
			return false;
		at += is;
	}
	qy_hold(&c->lock); /* (the links) */
	memcpy(c->shape, e, sizeof(*e) + e->count * sizeof(e->place[0]));
	qy_let_go(&c->lock);
	return true;
}

/* Under its shard's lock: it has other bytes from now on, and blocks of that shape. */
static void replace(struct qy_cold *c, struct qy_extent *e, struct qy_dictionary *d, unsigned char *data,
		    const struct qy_extent *shape)
{
	struct qy_shard *s = &c->shard[e->number % QY_COLD_SHARDS];

	if (s->extent == e->number)
		s->which = 0;
	atomic_fetch_add(&c->compressed, (uint64_t)shape->bytes - e->bytes);
	for (uint32_t b = 0; b < e->blocks; b++) /* it was read all the same, and blocks may be others now */
		qy_block_lost(c, e, b, false);
	quarry_free(e->data);
	e->data = data;
	e->bytes = shape->bytes;
	qy_extent_divide(e, shape->per_block);
	for (uint32_t b = 0; b < e->blocks; b++)
		qy_block_put(e, b, qy_block_at(shape, b));
	qy_hold(&c->lock);
	qy_dictionary_leave(c, e->dictionary);
	if (d != NULL)
		d->refs++;
	qy_let_go(&c->lock);
	e->deep = true;
	e->dictionary = d;
	e->dead = qy_extent_dead(e);
	qy_extent_shrink(c, e, QY_SHRINK);
	atomic_fetch_add(&c->deepened, 1);
}

static void deepen(struct qy_cold *c, uint32_t number, bool may_train)
{
	struct qy_extent *shape = c->shape, *e;
	struct qy_dictionary *d;
	unsigned char *data = NULL;

	qy_cold_lock(c, number);
	e = qy_extent_of(c, number);
	if (e == NULL || e->deep || e->data == NULL || !unpack(c, e)) {
		qy_cold_unlock(c, number);
		return;
	}
	qy_cold_unlock(c, number);
	d = dictionary_for(c, shape->size, may_train);
	if (d != NULL && !prepare(c, d))
		d = NULL;
	if (d == NULL) /* alone they are too little */
		qy_extent_divide(shape, qy_objects_per_block(shape->size));
	if (qy_room_for_output(c, shape->bytes) && squeeze(c, shape, d, shape->bytes))
		data = qy_cold_bytes(c, shape->bytes);
	if (data == NULL)
		return;
	memcpy(data, c->out, shape->bytes);
	qy_cold_lock(c, number);
	if (qy_extent_of(c, number) == e)
		replace(c, e, d, data, shape);
	else
		quarry_free(data); /* it has ended */
	qy_cold_unlock(c, number);
}

void qy_deepen(struct qy_cold *c, uint32_t number, bool may_train)
{
	struct qy_extent *e;

	if (c->deep.codec == NULL)
		return;
	c->deep.busy = true;
	deepen(c, number, may_train);
	c->deep.busy = false;
	/* Once is enough, whether it was worth it or not. */
	qy_cold_lock(c, number);
	e = qy_extent_of(c, number);
	if (e != NULL) {
		qy_hold(&c->lock);
		qy_list_remove(&e->shallow);
		qy_let_go(&c->lock);
	}
	qy_cold_unlock(c, number);
}

bool qy_cold_deepen(struct qy_cold *c, bool may_train)
{
	int64_t number = -1;

	if (c->deep.codec == NULL)
		return false;
	qy_hold(&c->lock);
	if (!qy_list_empty(&c->shallow)) {
		const struct qy_extent *e = qy_container(c->shallow.next, struct qy_extent, shallow);

		if (c->pass - e->born >= c->deep.periods)
			number = e->number;
	}
	qy_let_go(&c->lock);
	if (number >= 0)
		qy_deepen(c, (uint32_t)number, may_train);
	return number >= 0;
}

bool qy_deep_decompress(struct qy_cold *c, const struct qy_extent *e, const void *from, size_t size, void *to, size_t is)
{
	struct qy_shard *s = &c->shard[e->number % QY_COLD_SHARDS];

	if (e->dictionary == NULL)
		return c->deep.codec->decompress(from, size, to, is);
	return qy_decompress_by(s->context, e->dictionary->decoder, from, size, to, is);
}

/* ---- begun and ended ---- */

int qy_deep_make(struct qy_cold *c, const struct qy_codec *codec, uint32_t periods)
{
	c->deep.codec = codec;
	c->deep.periods = periods;
	c->deep.state = codec->state == 0 ? NULL : quarry_malloc(codec->state);
	return codec->state != 0 && c->deep.state == NULL ? -1 : 0;
}

/* What the thread was at that does it is half done, and lost. */
void qy_deep_in_child(struct qy_cold *c)
{
	struct qy_deep *k = &c->deep;

	if (!k->busy)
		return;
	k->context = k->encoder = NULL;
	k->raw = c->out = NULL;
	k->raw_size = c->out_size = 0;
	for (uint32_t i = 0; i < k->classes; i++)
		k->of[i].dictionary = NULL;
	k->busy = false;
}

void qy_deep_end(struct qy_cold *c)
{
	struct qy_deep *k = &c->deep;

	qy_encoder_free(k->encoder);
	qy_compression_free(k->context);
	for (uint32_t i = 0; i < k->classes; i++)
		qy_dictionary_leave(c, k->of[i].dictionary);
	for (int i = 0; i < QY_COLD_SHARDS; i++)
		qy_decompression_free(c->shard[i].context);
	quarry_free(k->state);
	quarry_free(k->raw);
}
