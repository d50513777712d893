/* SPDX-License-Identifier: MIT */
/* What becomes of objects by what the program said of them: those whose time is over are freed, those that are wanted least become
 * cold first. */
#include <errno.h>

#include "lib/api/error.h"
#include "lib/lanes/group.h"
#include "numa/os.h"

/* ---- a time to live ---- */

#define AT_ONCE 64     /* that are freed between two holds of the lock, */
#define LOOKED_AT 1024 /* and members that are looked at */
#define PARTS 8        /* a group is looked at so often in its time */

/* Under groups.lock, in a scope: some of a group that are over, as many as there is room for. False: it was gone over once.
 * (The clock may be behind who came last on another processor.) */
static bool some_over(quarry_group *g, uint64_t now, quarry_handle *h, size_t room, size_t *n)
{
	if (g->left == 0) {
		g->left = g->objects;
		g->look = g->first;
	}
	for (unsigned i = 0; g->left > 0 && g->first != 0 && i < LOOKED_AT && *n < room; g->left--, i++) {
		uint32_t slot = g->look - 1;
		const struct qy_side *side = qy_side_of(g->lanes, slot);
		uint64_t age = now > side->came ? now - side->came : 0;
		quarry_handle one = age >= g->ttl ? qy_handle_of(g->lanes, slot) : 0;

		g->look = side->next;
		if (one != 0)
			h[(*n)++] = one;
	}
	if (g->first == 0)
		g->left = 0;
	return g->left > 0;
}

/* Some of all groups, or of one: how many handles. *more: there may be others. (What the time is, is asked anew: who frees many takes a while,
 * and others come meanwhile.) */
static size_t gather(quarry_lanes *l, const quarry_group *only, quarry_handle *h, bool *more)
{
	uint64_t now;
	size_t n = 0;

	*more = false;
	qy_hold(&l->groups.lock);
	now = qy_os->now_ms();
	for (struct qy_link *k = l->groups.all.next; k != &l->groups.all && n < AT_ONCE && !*more; k = k->next) {
		quarry_group *g = qy_container(k, quarry_group, link);

		if ((only != NULL && g != only) || g->ttl == 0 || now < g->due)
			continue;
		*more = some_over(g, now, h, AT_ONCE, &n);
		if (!*more)
			g->due = now + qy_max(g->ttl / PARTS, 1);
	}
	qy_let_go(&l->groups.lock);
	*more |= n == AT_ONCE;
	return n;
}

/* (No group is used but under the lock: it may end meanwhile.) */
static int64_t expire(quarry_lanes *l, const quarry_group *only)
{
	quarry_handle h[AT_ONCE];
	int64_t freed = 0;
	bool more = true;

	while (more) {
		size_t n;

		quarry_enter();
		n = gather(l, only, h, &more);
		for (size_t i = 0; i < n; i++)
			freed += quarry_hfree(l, h[i]) == 0;
		quarry_leave();
	}
	return freed;
}

int64_t qy_groups_expire(quarry_lanes *l)
{
	return atomic_load_explicit(&l->groups.mortal, memory_order_relaxed) == 0 ? 0 : expire(l, NULL);
}

int64_t quarry_group_expire(quarry_group *g)
{
	if (!qy_group_check(g))
		return -1;
	qy_hold(&g->lanes->groups.lock);
	g->due = g->left = 0;
	qy_let_go(&g->lanes->groups.lock);
	return expire(g->lanes, g);
}

int quarry_group_ttl(quarry_group *g, uint64_t ttl_ms)
{
	if (!qy_group_check(g))
		return -1;
	if (ttl_ms > (uint64_t)1 << 31)
		return qy_fail(EINVAL, "ttl_ms: %lu is more than 2^31", (unsigned long)ttl_ms);
	qy_hold(&g->lanes->groups.lock);
	atomic_fetch_add(&g->lanes->groups.mortal, (ttl_ms != 0) - (uint32_t)(g->ttl != 0));
	g->ttl = ttl_ms;
	g->due = g->left = 0;
	qy_let_go(&g->lanes->groups.lock);
	return 0;
}

/* ---- shed ---- */

#define SHED_AT_ONCE 1024
#define RANKS 5

/* How soon an object goes: 0 the first, RANKS never. In a scope. */
static int rank_of(quarry_lanes *l, uint32_t slot, uint64_t word)
{
	uint32_t marks = atomic_load(&qy_entry_at(qy_word_address(word), word)->marks), flags = qy_flags_of(l, slot, marks);
	int priority = qy_priority_of(l, slot, marks);
	bool hinted = (flags & QUARRY_HALLOC_EVICTABLE) != 0;

	if ((marks & QY_MARK_HELD) || (flags & QUARRY_HALLOC_NOSPILL) || priority == QUARRY_PRIORITY_CRITICAL)
		return RANKS;
	if (priority == QUARRY_PRIORITY_LOW)
		return hinted ? 0 : 1;
	return hinted ? 2 : word & QUARRY_WORD_UNSEEN ? 3 : 4;
}

/* In a scope: the handle of a slot's object, when it goes in this turn. */
static quarry_handle goes(quarry_lanes *l, uint32_t slot, int rank, uint64_t *bytes)
{
	uint64_t word = atomic_load_explicit(&l->word[slot], memory_order_acquire);

	if ((word & (QUARRY_WORD_FREE | QUARRY_WORD_COLD | QUARRY_WORD_HEAD | QUARRY_WORD_MOVING)) || (word & QUARRY_WORD_ADDRESS) == 0 ||
	    rank_of(l, slot, word) != rank)
		return 0;
	*bytes += qy_size_of(word);
	return qy_handle_of(l, slot);
}

static uint64_t cold_bytes(quarry_lanes *l)
{
	quarry_cold_stats s = { 0 };

	return quarry_cold_stats_get(l, &s) == 0 ? s.bytes : 0;
}

/* The next ones of a rank, up to so many bytes, become cold. False: an error. */
static bool shed_some(quarry_lanes *l, uint32_t *slot, int rank, uint64_t bytes)
{
	quarry_handle h[SHED_AT_ONCE];
	uint64_t there = 0;
	size_t n = 0;

	while (n < SHED_AT_ONCE && there < bytes && (*slot = qy_slot_in_memory_from(l, *slot)) < atomic_load(&l->slots.next)) {
		quarry_enter();
		h[n] = goes(l, *slot, rank, &there);
		quarry_leave();
		n += h[n] != 0;
		(*slot)++;
	}
	return n == 0 || quarry_evict(l, h, n) >= 0;
}

int64_t quarry_shed(quarry_lanes *l, uint64_t bytes)
{
	uint64_t before, gone = 0;

	if (!qy_lanes_check(l))
		return -1;
	if (bytes == 0 || quarry_evict(l, NULL, 0) < 0)
		return bytes == 0 ? 0 : -1;
	before = cold_bytes(l);
	for (int rank = 0; rank < RANKS && gone < bytes; rank++)
		for (uint32_t slot = 0; slot < atomic_load(&l->slots.next) && gone < bytes;) {
			uint64_t now;

			if (!shed_some(l, &slot, rank, bytes - gone))
				return gone > 0 ? (int64_t)gone : -1;
			now = cold_bytes(l); /* (others may come back meanwhile: those do not count) */
			gone = now > before ? now - before : gone;
		}
	return (int64_t)gone;
}
