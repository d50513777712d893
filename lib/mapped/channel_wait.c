/* SPDX-License-Identifier: MIT */
/* Waiting at the ends of channels: spinning for a moment, sleeping in futex(2) on words that processes share, and seeing that the other end has died.
 *
 * Nobody is missed: who is to sleep says so, and then looks once more at what it waits for, and whether the other end is closed; who has
 * changed that looks afterwards whether anybody said so. All four are sequentially consistent. */
#include <errno.h>
#include <limits.h>

#include "lib/api/error.h"
#include "lib/base/lock.h"
#include "lib/mapped/channel.h"
#include "numa/os.h"

#define SPINS_MOST 400u /* some microseconds: as long as waking somebody takes */
#define SPINS_TRIED 20u
#define NS_PER_MS ((uint64_t)1000000)

bool qy_channel_alive(const quarry_channel *c, uint64_t owner)
{
	const struct heap *h = c->heap;
	uint64_t session = (owner >> QY_OWNER_SHIFT & 0x1fff) - 1;

	owner &= ~(uint64_t)QY_CHANNEL_TAG;
	if (owner == h->owner)
		return true;
	if (session >= h->sb.sessions || qy_session_owner(h->sessions, (uint32_t)session) != owner)
		return false;
	/* (What cannot be told is taken for life.) */
	return qy_peek(h->sessions[session].state) != 0 &&
	       qy_os->range_locked(h->fd, QY_MAPPED_LOCK_SESSION + session, 1) != 0;
}

static bool is_dead(const quarry_channel *c, uint64_t slot, bool all)
{
	return slot >> QY_OWNER_SHIFT != 0 && (all || !qy_channel_alive(c, slot));
}

unsigned qy_channel_bury_locked(const quarry_channel *c, bool all)
{
	struct qy_ring *ring = c->ring;
	unsigned dead = 0;

	for (uint32_t i = 0; i < c->producers; i++) {
		uint64_t is = __atomic_load_n(&ring->slot[i], __ATOMIC_ACQUIRE);

		if (!is_dead(c, is, all))
			continue;
		/* (In this order: who sees that its place is free sees it counted.) */
		qy_redo_store(c->heap, &ring->died, qy_peek(ring->died) + 1);
		qy_redo_store(c->heap, &ring->slot[i], is & QY_CHANNEL_TAG);
		qy_redo_commit(c->heap);
		dead++;
	}
	return dead;
}

int qy_channel_bury(const quarry_channel *c)
{
	bool any = false;
	int rc;

	for (uint32_t i = 0; i < c->producers && !any; i++)
		any = is_dead(c, __atomic_load_n(&c->ring->slot[i], __ATOMIC_ACQUIRE), false);
	if (!any)
		return 0;
	/* (Who has the lock may be stopped, and the caller has its time.) */
	rc = qy_mapped_try_enter(c->heap);
	if (rc != 0)
		return rc < 0 ? -1 : 0;
	(void)qy_channel_bury_locked(c, false);
	qy_mapped_leave(c->heap);
	return 0;
}

void qy_channel_wake_consumer(const quarry_channel *c)
{
	if (QY_UNLIKELY(__atomic_load_n(&c->ring->consumer_sleeps, __ATOMIC_SEQ_CST) != 0) &&
	    __atomic_exchange_n(&c->ring->consumer_sleeps, 0, __ATOMIC_SEQ_CST) != 0)
		qy_os->wake_shared(&c->ring->consumer_sleeps, 1);
}

void qy_channel_wake_producers(const quarry_channel *c)
{
	if (__atomic_load_n(&c->ring->producers_sleep, __ATOMIC_SEQ_CST) != 0 &&
	    __atomic_exchange_n(&c->ring->producers_sleep, 0, __ATOMIC_SEQ_CST) != 0)
		qy_os->wake_shared(&c->ring->producers_sleep, INT_MAX);
}

/* Until when, in ns; UINT64_MAX: for ever. */
static uint64_t deadline(uint64_t now, int64_t timeout_ms)
{
	return timeout_ms < 0 || (uint64_t)timeout_ms > (UINT64_MAX - 1 - now) / NS_PER_MS ? UINT64_MAX : now + (uint64_t)timeout_ms * NS_PER_MS;
}

/* Where it comes at once, spinning is worth while, and more of it; where both ends run on one processor it keeps the other from
 * working, and is only tried now and then. */
static bool spun(quarry_channel *c, const uint64_t *word, uint64_t is)
{
	uint32_t most = c->spins != 0 ? c->spins : ++c->waits % 64 == 0 ? SPINS_TRIED : 0;

	for (uint32_t i = 0; i < most; i++) {
		if (__atomic_load_n(word, __ATOMIC_ACQUIRE) != is) {
			c->spins = qy_min(SPINS_MOST, most * 2);
			return true;
		}
		qy_spin();
	}
	c->spins = most / 4 >= SPINS_TRIED ? most / 4 : 0;
	return __atomic_load_n(word, __ATOMIC_ACQUIRE) != is;
}

bool qy_channel_is_time(quarry_channel *c, uint64_t now)
{
	if (now - c->looked < QY_CHANNEL_LOOK_MS * NS_PER_MS)
		return false;
	c->looked = now;
	return true;
}

/* Looks are by the time since the last one, whatever ended the sleep, and whoever never sleeps looks too. */
int qy_channel_await(quarry_channel *c, const uint64_t *word, uint64_t is, struct qy_waiting *w)
{
	uint32_t *sleeps = c->consumer ? &c->ring->consumer_sleeps : &c->ring->producers_sleep;
	uint64_t now, until;

	if (w->timeout_ms != 0 && !w->spun && spun(c, word, is))
		return 0;
	w->spun = true;
	now = qy_os->now_ns();
	if (qy_channel_is_time(c, now))
		return 1;
	if (w->timeout_ms == 0)
		return qy_fail(EAGAIN, "channel: %s", c->consumer ? "no message is there" : "there is no room");
	if (w->until == 0)
		w->until = deadline(now, w->timeout_ms);
	if (now >= w->until)
		return qy_fail(ETIMEDOUT, "channel: the time is over");
	until = qy_min(w->until, c->looked + QY_CHANNEL_LOOK_MS * NS_PER_MS);
	QY_POINT();
	(void)__atomic_exchange_n(sleeps, 1, __ATOMIC_SEQ_CST);
	QY_POINT();
	if (__atomic_load_n(word, __ATOMIC_SEQ_CST) == is && !w->over(c, is))
		(void)qy_os->sleep_shared(sleeps, 1, (until - now) / NS_PER_MS + 1);
	if (c->consumer) /* nobody else sleeps there */
		__atomic_store_n(sleeps, 0, __ATOMIC_RELAXED);
	if (__atomic_load_n(word, __ATOMIC_ACQUIRE) != is)
		w->spun = false;
	return 0;
}
