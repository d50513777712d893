/* SPDX-License-Identifier: MIT */
/* Channels: making them, opening and closing their ends, sending. What is true of a ring stands in lib/mapped/channel.h. */
#include "lib/mapped/channel.h"

#include <errno.h>
#include <string.h>

#include "lib/api/error.h"
#include "lib/object/own.h"
#include "numa/os.h"

#define MAGIC 0x32676e6972796571u

/* ---- making ---- */

static uint64_t name_of(const struct heap *h)
{
	uint64_t half[2];

	memcpy(half, h->sb.uuid, sizeof(half));
	return half[0] ^ half[1];
}

static void fill(struct heap *h, struct qy_ring *ring, uint64_t cells, uint32_t producers)
{
	char *first = (char *)(ring + 1);
	uint64_t key = qy_os->now_ns() ^ (uint64_t)(uintptr_t)ring;

	key = (key ^ name_of(h)) * 0xbf58476d1ce4e5b9u;
	memset(ring, 0, sizeof(*ring));
	*ring = (struct qy_ring){ .magic = MAGIC, .cells = cells, .key = key ^ key >> 29, .producers = producers, .heap = name_of(h) };
	for (uint64_t p = 0; p < cells; p++)
		*(uint64_t *)(void *)(first + p * QY_CHANNEL_CELL) = qy_channel_free_word(ring->key, p);
}

/* Neither end enters the gate of checkpoints, which would be dearer than a message: a version would have cells of the ring and its words from different
 * moments. Told by what the heap is, for who has it open to read as well. */
static int refuse_durable(const struct heap *h)
{
	return h->sb.mode != QUARRY_MAPPED_DURABLE ? 0 : qy_fail(ENOTSUP, "channel: durable heaps have none: a checkpoint would tear the ring");
}

QUARRY_API quarry_off quarry_channel_make(quarry_mapped *heap, quarry_off *slot, const quarry_channel_attr *attr)
{
	quarry_channel_attr a = { 0 };
	quarry_mapped_set set;
	struct qy_ring *ring;
	int error;

	if (attr != NULL)
		memcpy(&a, attr, qy_min(attr->struct_size, sizeof(a)));
	a.bytes = a.bytes == 0 ? 256 << 10 : a.bytes;
	a.producers = a.producers == 0 ? 64 : a.producers;
	if ((attr != NULL && attr->struct_size == 0) || !qy_is_pow2(a.bytes) || a.bytes < 64 << 10 || a.bytes > 1u << 30 ||
	    a.producers > QY_CHANNEL_PRODUCERS) {
		qy_fail(EINVAL, "attr: a ring is of 2^16 to 2^30 bytes, for 1 to %u producers", QY_CHANNEL_PRODUCERS);
		return 0;
	}
	if (refuse_durable(qy_heap(heap)) != 0 || quarry_mapped_begin(heap, &set) != 0)
		return 0;
	/* (What is of whole units of 64 KiB is aligned to them.) */
	ring = quarry_mapped_reserve(&set, sizeof(*ring) + a.bytes);
	if (ring != NULL) {
		fill(qy_heap(heap), ring, a.bytes / QY_CHANNEL_CELL, a.producers);
		if (quarry_mapped_link(&set, slot, 0, quarry_mapped_off(heap, ring)) == 0) {
			if (quarry_mapped_publish(&set) == 0)
				return quarry_mapped_off(heap, ring);
			if (errno == EAGAIN)
				qy_fail(EEXIST, "slot: it is not 0");
			return 0;
		}
	}
	error = errno;
	quarry_mapped_cancel(&set);
	errno = error;
	return 0;
}

/* ---- opening and closing ---- */

/* Offsets and sizes that anybody may have written, and may be writing: what was checked is what is taken. */
static bool take_ring(quarry_channel *c, quarry_off off)
{
	struct qy_ring *ring = quarry_mapped_ptr(&c->heap->pub, off, sizeof(*ring));
	uint64_t cells;
	uint32_t producers;

	if (ring == NULL || off % QY_CHANNEL_CELL != 0 || qy_peek(ring->magic) != MAGIC)
		return false;
	cells = qy_peek(ring->cells);
	producers = qy_peek(ring->producers);
	QY_POINT();
	if (!qy_is_pow2(cells) || cells < 1024 || cells > 1u << 24 || producers == 0 || producers > QY_CHANNEL_PRODUCERS ||
	    quarry_mapped_ptr(&c->heap->pub, off, sizeof(*ring) + cells * QY_CHANNEL_CELL) == NULL)
		return false;
	c->ring = ring;
	c->cells = (char *)(ring + 1);
	c->count = cells;
	c->mask = cells - 1;
	c->key = qy_peek(ring->key);
	c->producers = producers;
	c->alone = producers == 1;
	return true;
}

/* Of a dump: all of its owners are of another heap's sessions, and nobody else has it open before this. Whoever dies in here leaves the
 * rest to do. The lock is held. */
static void adopt(const quarry_channel *c)
{
	struct qy_ring *ring = c->ring;

	(void)qy_channel_bury_locked(c, true);
	if (qy_peek(ring->consumer) >> QY_OWNER_SHIFT != 0)
		qy_put(ring->consumer, QY_CHANNEL_GONE);
	QY_POINT();
	qy_put(ring->heap, name_of(c->heap));
	QY_POINT();
}

/* The lock is held. */
static int be_producer(quarry_channel *c)
{
	struct qy_ring *ring = c->ring;
	unsigned dead = qy_channel_bury_locked(c, false);

	if (dead != 0)
		qy_channel_wake_consumer(c);
	for (uint32_t i = 0; i < c->producers; i++) {
		uint64_t is = __atomic_load_n(&ring->slot[i], __ATOMIC_ACQUIRE), tag = (is + 1) & QY_CHANNEL_TAG;

		if (is >> QY_OWNER_SHIFT != 0)
			continue;
		/* (In this order: who sees in the count that it has come, sees it there.) */
		qy_redo_store(c->heap, &ring->slot[i], c->me | tag);
		qy_redo_store(c->heap, &ring->producers_had, qy_peek(ring->producers_had) + 1);
		qy_redo_commit(c->heap);
		c->slot = i;
		c->header = tag << 10 | (uint64_t)i << 2;
		c->head = __atomic_load_n(&ring->head, __ATOMIC_ACQUIRE);
		return 0;
	}
	return qy_fail(EUSERS, "channel: it has all %u producers", c->producers);
}

/* What the one before was giving back is given back: it may have written some of the words. */
static int be_consumer(quarry_channel *c)
{
	uint64_t is = __atomic_load_n(&c->ring->consumer, __ATOMIC_ACQUIRE), head, to;

	do { /* (It may be found dead meanwhile, or another have come.) */
		if (is >> QY_OWNER_SHIFT != 0 && qy_channel_alive(c, is))
			return qy_fail(EUSERS, "channel: it has a consumer");
		QY_POINT();
	} while (!__atomic_compare_exchange_n(&c->ring->consumer, &is, c->me, false, __ATOMIC_SEQ_CST, __ATOMIC_ACQUIRE));
	QY_POINT();
	head = __atomic_load_n(&c->ring->head, __ATOMIC_ACQUIRE);
	to = __atomic_load_n(&c->ring->releasing, __ATOMIC_ACQUIRE);
	if (to > head && to - head <= c->count) {
		for (uint64_t p = head; p < to; p++)
			qy_put(*qy_channel_word(c, p), qy_channel_free_word(c->key, p + c->count));
		__atomic_store_n(&c->ring->head, to, __ATOMIC_SEQ_CST);
		head = to;
	}
	c->head = c->next = c->told = c->tail = head;
	c->look_in = QY_CHANNEL_LOOK_EACH;
	/* (The dead one may have moved the head itself, and told nobody.) */
	qy_channel_wake_producers(c);
	return 0;
}

static int begin(quarry_channel *c)
{
	bool foreign = __atomic_load_n(&c->ring->heap, __ATOMIC_ACQUIRE) != name_of(c->heap);
	int rc = 0;

	if (!c->consumer || foreign) {
		if (qy_mapped_enter(c->heap) != 0)
			return -1;
		if (foreign && qy_peek(c->ring->heap) != name_of(c->heap))
			adopt(c);
		if (!c->consumer)
			rc = be_producer(c);
		qy_mapped_leave(c->heap);
	}
	return c->consumer ? be_consumer(c) : rc;
}

QUARRY_API quarry_channel *quarry_channel_open(quarry_mapped *heap, quarry_off off, int role)
{
	struct heap *h = qy_heap(heap);
	quarry_channel *c;
	int rc;

	if (role != QUARRY_CHANNEL_PRODUCER && role != QUARRY_CHANNEL_CONSUMER) {
		qy_fail(EINVAL, "role: %d is none", role);
		return NULL;
	}
	c = refuse_durable(h) == 0 && qy_mapped_refuse(h) == 0 ? qy_own_calloc(1, sizeof(*c)) : NULL;
	if (c == NULL)
		return NULL;
	c->heap = h;
	c->me = h->owner;
	c->consumer = role == QUARRY_CHANNEL_CONSUMER;
	rc = take_ring(c, off) ? begin(c) : qy_fail(EMEDIUMTYPE, "channel: there is none");
	if (rc == 0)
		return c;
	rc = errno;
	quarry_free(c);
	errno = rc;
	return NULL;
}

/* Whether it is this process's, and of that kind. */
static bool is_mine(const quarry_channel *c, bool consumer)
{
	if (QY_LIKELY(c->consumer == consumer && qy_channel_is_mine(c)))
		return true;
	if (c->consumer != consumer)
		qy_fail(EINVAL, "channel: this is the other end");
	else
		qy_fail(ESTALE, "channel: this end is the parent process's");
	return false;
}

/* Nobody looks at a closed end's reservations but as those of somebody who is gone. */
QUARRY_API void quarry_channel_close(quarry_channel *c)
{
	int error = errno;

	if (c == NULL)
		return;
	if (qy_channel_is_mine(c) && c->consumer) {
		uint64_t is = c->me;

		qy_channel_told(c);
		(void)__atomic_compare_exchange_n(&c->ring->consumer, &is, QY_CHANNEL_GONE, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
		QY_POINT();
		qy_channel_wake_producers(c);
	} else if (qy_channel_is_mine(c)) {
		__atomic_and_fetch(&c->ring->slot[c->slot], QY_CHANNEL_TAG, __ATOMIC_SEQ_CST);
		QY_POINT();
		qy_channel_wake_consumer(c);
	}
	quarry_free(c);
	errno = error;
}

/* ---- sending ---- */

/* What it finds there is a header only if the tail is at that place still; then nobody else is there. */
void qy_channel_help(const quarry_channel *c, uint64_t place, uint64_t header)
{
	uint64_t n = qy_header_cells(header);

	if (qy_header_state(header) != QY_CHANNEL_FREE && n != 0 && n <= c->count)
		(void)__atomic_compare_exchange_n(&c->ring->tail, &place, place + n, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

/* A producer that slept may look at a cell that is somebody's message by now: what it finds there is no free word of its place, and it goes
 * on. ThreadSanitizer is not to see that; what orders messages is elsewhere (publishing them, and the head). */
static bool __attribute__((no_sanitize_thread, noinline)) exchange(uint64_t *word, uint64_t *is, uint64_t header)
{
	return __atomic_compare_exchange_n(word, is, header, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

/* Put a header where the tail is. 0: somebody else did; -1: what stands there is no header of anybody's. */
static int put_header(quarry_channel *c, uint64_t place, uint64_t header, uint64_t n)
{
	uint64_t *word = qy_channel_word(c, place), is = qy_channel_free_word(c->key, place);

	if (c->alone) {
		if (__atomic_load_n(word, __ATOMIC_ACQUIRE) == is) {
			__atomic_store_n(word, header, __ATOMIC_RELEASE);
			QY_POINT();
			__atomic_store_n(&c->ring->tail, place + n, __ATOMIC_RELEASE);
			return 1;
		}
		is = __atomic_load_n(word, __ATOMIC_ACQUIRE);
	} else if (exchange(word, &is, header)) {
		QY_POINT();
		(void)__atomic_compare_exchange_n(&c->ring->tail, &place, place + n, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
		return 1;
	}
	qy_channel_help(c, place, is);
	if (__atomic_load_n(&c->ring->tail, __ATOMIC_ACQUIRE) != place ||
	    __atomic_load_n(word, __ATOMIC_ACQUIRE) != is || is == qy_channel_free_word(c->key, place))
		return 0;
	return qy_fail(EUCLEAN, "channel: what stands in the ring cannot be");
}

static bool consumer_gone(const quarry_channel *c, uint64_t head)
{
	(void)head;
	return __atomic_load_n(&c->ring->consumer, __ATOMIC_SEQ_CST) == QY_CHANNEL_GONE;
}

/* 0: look again. */
static int await_room(quarry_channel *c, struct qy_waiting *w)
{
	uint64_t consumer;
	int rc;

	if (consumer_gone(c, c->head))
		return qy_fail(EPIPE, "channel: it is full, and its consumer has gone");
	rc = qy_channel_await(c, &c->ring->head, c->head, w);
	if (rc <= 0)
		return rc;
	consumer = __atomic_load_n(&c->ring->consumer, __ATOMIC_ACQUIRE);
	if (consumer >> QY_OWNER_SHIFT != 0 && !qy_channel_alive(c, consumer)) {
		QY_POINT();
		if (__atomic_compare_exchange_n(&c->ring->consumer, &consumer, QY_CHANNEL_GONE, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) {
			QY_POINT();
			qy_channel_wake_producers(c);
		}
	}
	return 0;
}

static void *__attribute__((noinline)) reserve_slow(quarry_channel *c, size_t size, int64_t timeout_ms)
{
	uint64_t n = qy_cells_for(size), place, left;
	struct qy_waiting w = { .timeout_ms = timeout_ms, .over = consumer_gone };
	int put;

	for (;;) {
		place = __atomic_load_n(&c->ring->tail, __ATOMIC_ACQUIRE);
		left = c->count - (place & c->mask);
		if (place + (left < n ? left : n) - c->head > c->count) {
			uint64_t head = __atomic_load_n(&c->ring->head, __ATOMIC_SEQ_CST);

			if (head == c->head && await_room(c, &w) != 0)
				return NULL;
			c->head = __atomic_load_n(&c->ring->head, __ATOMIC_ACQUIRE);
			continue;
		}
		if (left < n)
			put = put_header(c, place, left << 32 | c->header | QY_CHANNEL_SKIP, left);
		else
			put = put_header(c, place, (uint64_t)size << 32 | c->header | QY_CHANNEL_BUSY, n);
		if (put > 0 && left >= n)
			return qy_channel_word(c, place) + 1;
		if (put < 0)
			return NULL;
	}
}

QUARRY_API void *quarry_channel_reserve(quarry_channel *c, size_t size, int64_t timeout_ms)
{
	if (!is_mine(c, false))
		return NULL;
	if (QY_UNLIKELY(size > c->count * QY_CHANNEL_CELL / 8)) {
		qy_fail(EMSGSIZE, "channel: %zu bytes are more than an eighth of the ring", size);
		return NULL;
	}
	return reserve_slow(c, size, timeout_ms);
}

/* The header of a reservation of this end, and what it is; NULL. */
static uint64_t *header_of(quarry_channel *c, void *room, uint64_t *is)
{
	uint64_t at = (uint64_t)((char *)room - c->cells), *word = (uint64_t *)(void *)((char *)room - sizeof(uint64_t));

	if (!is_mine(c, false))
		return NULL;
	if (at < c->count * QY_CHANNEL_CELL && at % QY_CHANNEL_CELL == sizeof(uint64_t)) {
		*is = __atomic_load_n(word, __ATOMIC_RELAXED);
		if ((*is & 0xffffffff) == (c->header | QY_CHANNEL_BUSY))
			return word;
	}
	qy_fail(EINVAL, "channel: no room that this end has reserved");
	return NULL;
}

/* (A store that is sequentially consistent is a dear one: where nobody is to be woken, it is another.) */
QUARRY_API int quarry_channel_publish(quarry_channel *c, void *room, unsigned flags)
{
	uint64_t is, *header = header_of(c, room, &is);

	if (header == NULL)
		return -1;
	QY_POINT();
	if ((flags & QUARRY_CHANNEL_MORE) != 0) {
		__atomic_store_n(header, is ^ QY_CHANNEL_BUSY ^ QY_CHANNEL_READY, __ATOMIC_RELEASE);
		QY_POINT();
		return 0;
	}
	__atomic_store_n(header, is ^ QY_CHANNEL_BUSY ^ QY_CHANNEL_READY, __ATOMIC_SEQ_CST);
	QY_POINT();
	qy_channel_wake_consumer(c);
	return 0;
}

QUARRY_API int quarry_channel_cancel(quarry_channel *c, void *room)
{
	uint64_t is, *header = header_of(c, room, &is);

	if (header == NULL)
		return -1;
	__atomic_store_n(header, qy_header_cells(is) << 32 | c->header | QY_CHANNEL_SKIP, __ATOMIC_SEQ_CST);
	QY_POINT();
	qy_channel_wake_consumer(c);
	return 0;
}

QUARRY_API void quarry_channel_flush(quarry_channel *c)
{
	if (!qy_channel_is_mine(c))
		return;
	/* (Changed by nothing, so that what was published is seen by who changes it after this, to sleep.) */
	if (__atomic_fetch_or(&c->ring->consumer_sleeps, 0, __ATOMIC_SEQ_CST) != 0)
		qy_channel_wake_consumer(c);
}

QUARRY_API int quarry_channel_send(quarry_channel *c, const void *message, size_t size, int64_t timeout_ms)
{
	void *room = quarry_channel_reserve(c, size, timeout_ms);

	if (room == NULL)
		return -1;
	memcpy(room, message, size);
	return quarry_channel_publish(c, room, 0);
}

QUARRY_API int quarry_channel_info_get(const quarry_channel *c, quarry_channel_info *info, size_t size)
{
	const struct qy_ring *ring = c->ring;
	quarry_channel_info i = { .bytes = c->count * QY_CHANNEL_CELL, .most = c->count * QY_CHANNEL_CELL / 8,
				  .died = __atomic_load_n(&ring->died, __ATOMIC_RELAXED),
				  .skipped = __atomic_load_n(&ring->skipped, __ATOMIC_RELAXED),
				  .consumer = __atomic_load_n(&ring->consumer, __ATOMIC_RELAXED) >> QY_OWNER_SHIFT != 0 };
	uint64_t head = __atomic_load_n(&ring->head, __ATOMIC_ACQUIRE), tail;

	if (info == NULL || size == 0)
		return qy_fail(EINVAL, "info: there is none");
	QY_POINT();
	/* (It may have gone on by more than the ring since.) */
	tail = __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE);
	i.used = qy_min(tail - head, c->count) * QY_CHANNEL_CELL;
	for (uint32_t k = 0; k < c->producers; k++)
		i.producers += __atomic_load_n(&ring->slot[k], __ATOMIC_RELAXED) >> QY_OWNER_SHIFT != 0;
	memset(info, 0, size);
	memcpy(info, &i, qy_min(size, sizeof(i)));
	return 0;
}
