/* SPDX-License-Identifier: MIT */
/* Channels: the consumer's end. */
#include <errno.h>
#include <string.h>

#include "lib/api/error.h"
#include "lib/mapped/channel.h"
#include "numa/os.h"

/* Whether the one who reserved it has let its place go, or it was buried: it will never publish it. */
static bool is_abandoned(const quarry_channel *c, uint64_t header)
{
	uint32_t slot = qy_header_slot(header);
	uint64_t is = slot < c->producers ? __atomic_load_n(&c->ring->slot[slot], __ATOMIC_SEQ_CST) : 0;

	return is >> QY_OWNER_SHIFT == 0 || (is & QY_CHANNEL_TAG) != qy_header_tag(header);
}

/* A header that may be nonsense: how many cells it has; 0 where that cannot be. */
static uint64_t checked(const quarry_channel *c, uint64_t place, uint64_t header)
{
	uint64_t n = qy_header_cells(header);

	if (qy_header_state(header) == QY_CHANNEL_FREE || n == 0 || n > c->count - (place & c->mask) || place + n - c->head > c->count) {
		qy_fail(EUCLEAN, "channel: what stands in the ring cannot be");
		return 0;
	}
	return n;
}

/* All that there were. Where one came in the meantime it may have been before another went: places are looked at one by one. */
static bool all_gone(const quarry_channel *c)
{
	uint64_t had, then = __atomic_load_n(&c->ring->producers_had, __ATOMIC_SEQ_CST);

	do {
		had = then;
		for (uint32_t i = 0; i < c->producers; i++) {
			if (__atomic_load_n(&c->ring->slot[i], __ATOMIC_SEQ_CST) >> QY_OWNER_SHIFT != 0)
				return false;
			QY_POINT();
		}
		then = __atomic_load_n(&c->ring->producers_had, __ATOMIC_SEQ_CST);
	} while (then != had);
	return had != 0;
}

static bool is_empty(const quarry_channel *c, uint64_t is)
{
	return is == qy_channel_free_word(c->key, c->next);
}

static bool death_to_tell(const quarry_channel *c)
{
	return __atomic_load_n(&c->ring->told, __ATOMIC_RELAXED) != __atomic_load_n(&c->ring->died, __ATOMIC_SEQ_CST);
}

/* Whether there is nothing to wait for. */
static bool over(const quarry_channel *c, uint64_t is)
{
	return is_empty(c, is) ? death_to_tell(c) || all_gone(c) : is_abandoned(c, is);
}

/* A consumer that is killed before the program knows of it has a follower, which tells it again. */
void qy_channel_told(quarry_channel *c)
{
	if (QY_LIKELY(!c->telling))
		return;
	QY_POINT();
	qy_put(c->ring->told, c->ring->told + 1);
	c->telling = false;
	QY_POINT();
}

static int tell_death(quarry_channel *c)
{
	c->telling = true;
	return qy_fail(EOWNERDEAD, "channel: a producer has died");
}

/* Nothing is there. What those who have gone published before is seen by who looks once more; deaths come before the end. */
static int tell(quarry_channel *c, const uint64_t *word, uint64_t is)
{
	bool end = all_gone(c), death = death_to_tell(c);

	if ((!end && !death) || __atomic_load_n(word, __ATOMIC_SEQ_CST) != is)
		return 0;
	if (!death)
		return qy_fail(EPIPE, "channel: all producers have gone");
	return tell_death(c);
}

/* A ring that is never empty: the dead are buried beside its messages, and each death is told when all is received that was there when it was seen,
 * what the dead one published among it. */
static int look_in_passing(quarry_channel *c)
{
	uint64_t died, told = __atomic_load_n(&c->ring->told, __ATOMIC_RELAXED);

	c->look_in = QY_CHANNEL_LOOK_EACH;
	if (qy_channel_is_time(c, qy_os->now_ns()))
		(void)qy_channel_bury(c); /* (Why it cannot be told is told where the ring is empty.) */
	died = __atomic_load_n(&c->ring->died, __ATOMIC_SEQ_CST);
	if (died == told)
		return 0;
	if ((int64_t)(c->due - told) <= 0) {
		c->due = died;
		c->due_at = __atomic_load_n(&c->ring->tail, __ATOMIC_ACQUIRE);
	}
	if ((int64_t)(c->next - c->due_at) < 0)
		return 0;
	c->look_in = 1; /* there may be more */
	return tell_death(c);
}

/* Nothing comes that would end a wait where what is held is the room that producers need: the largest message's, behind what is left at the ring's
 * end if that is too short. */
static bool holds_too_much(const quarry_channel *c)
{
	uint64_t most = qy_cells_for(c->count * QY_CHANNEL_CELL / 8), left = c->count - (c->next & c->mask);

	return c->held != 0 && c->count - (c->next - c->head) < most + (left < most ? left : 0);
}

/* Nothing is there that can be had. 0: look again. */
static int wait(quarry_channel *c, uint64_t *word, uint64_t is, struct qy_waiting *w)
{
	bool empty = is_empty(c, is);
	int rc;

	if (!empty && is_abandoned(c, is)) {
		(void)__atomic_compare_exchange_n(word, &is, qy_header_cells(is) << 32 | (is & 0xfffffffc) | QY_CHANNEL_SKIP, false,
						  __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
		if (qy_header_state(is) == QY_CHANNEL_BUSY)
			__atomic_add_fetch(&c->ring->skipped, 1, __ATOMIC_RELAXED);
		return 0;
	}
	if (c->held == 0)
		quarry_channel_release(c); /* what was passed over */
	if (empty && tell(c, word, is) != 0)
		return -1;
	if (QY_UNLIKELY(holds_too_much(c)))
		return qy_fail(ENOBUFS, "channel: so much is received, and not given back, that there may be no room for what is to come");
	if (c->told != c->head) {
		c->told = c->head;
		/* (Changed by nothing: the head is seen by who changes it after this, to sleep.) */
		if (__atomic_fetch_or(&c->ring->producers_sleep, 0, __ATOMIC_SEQ_CST) != 0)
			qy_channel_wake_producers(c);
	}
	rc = qy_channel_await(c, word, is, w);
	return rc == 1 ? qy_channel_bury(c) : rc;
}

static const void *take(quarry_channel *c, size_t *size, int64_t timeout_ms)
{
	struct qy_waiting w = { .timeout_ms = timeout_ms, .over = over };

	for (;;) {
		uint64_t *word = qy_channel_word(c, c->next), is = __atomic_load_n(word, __ATOMIC_ACQUIRE), n;

		if (QY_UNLIKELY(c->next - c->head == c->count)) {
			if (c->held != 0) {
				qy_fail(ENOBUFS, "channel: all of the ring is received, and not given back");
				return NULL;
			}
			quarry_channel_release(c);
			continue;
		}
		if (is_empty(c, is)) {
			if (wait(c, word, is, &w) != 0)
				return NULL;
			continue;
		}
		n = checked(c, c->next, is);
		if (n == 0)
			return NULL;
		if (c->tail == c->next) { /* its producer may have died just there */
			qy_channel_help(c, c->next, is);
			c->tail = __atomic_load_n(&c->ring->tail, __ATOMIC_ACQUIRE);
			continue;
		}
		if (qy_header_state(is) == QY_CHANNEL_BUSY) {
			if (wait(c, word, is, &w) != 0)
				return NULL;
			continue;
		}
		if (QY_UNLIKELY(--c->look_in == 0) && look_in_passing(c) != 0)
			return NULL;
		c->next += n;
		if (qy_header_state(is) == QY_CHANNEL_READY) {
			*size = qy_header_size(is);
			c->held++;
			return word + 1;
		}
	}
}

QUARRY_API const void *quarry_channel_receive(quarry_channel *c, size_t *size, int64_t timeout_ms)
{
	if (QY_UNLIKELY(!c->consumer || !qy_channel_is_mine(c))) {
		qy_fail(c->consumer ? ESTALE : EINVAL, "channel: %s", c->consumer ? "this end is the parent process's" : "this is the other end");
		return NULL;
	}
	qy_channel_told(c);
	return take(c, size, timeout_ms);
}

/* How far is said before the first word is written: a death in between is finished by the next consumer. */
QUARRY_API void quarry_channel_release(quarry_channel *c)
{
	if (!c->consumer || !qy_channel_is_mine(c))
		return;
	qy_channel_told(c);
	if (c->next == c->head)
		return;
	qy_put(c->ring->releasing, c->next);
	QY_POINT();
	for (uint64_t p = c->head; p < c->next; p++)
		__atomic_store_n(qy_channel_word(c, p), qy_channel_free_word(c->key, p + c->count), __ATOMIC_RELAXED);
	QY_POINT();
	c->head = c->next;
	c->held = 0;
	if (c->head - c->told < c->count / 8) {
		__atomic_store_n(&c->ring->head, c->head, __ATOMIC_RELEASE);
		return;
	}
	__atomic_store_n(&c->ring->head, c->head, __ATOMIC_SEQ_CST);
	c->told = c->head;
	qy_channel_wake_producers(c);
}

QUARRY_API int64_t quarry_channel_read(quarry_channel *c, void *to, size_t room, int64_t timeout_ms)
{
	size_t size;
	const void *message = quarry_channel_receive(c, &size, timeout_ms);

	if (message == NULL)
		return -1;
	memcpy(to, message, qy_min(size, room));
	quarry_channel_release(c);
	return (int64_t)size;
}
