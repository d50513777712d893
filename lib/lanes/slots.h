/* SPDX-License-Identifier: MIT */
/* Slots: who has which. (slots.c) */
#ifndef QUARRY_LANES_SLOTS_H
#define QUARRY_LANES_SLOTS_H

#include "lib/lanes/state.h"

bool qy_slots_start(quarry_lanes *l);
void qy_slots_end(quarry_lanes *l);
/* Have the cache get some: false, and errno is set, when there are none. */
bool qy_slots_more(quarry_lanes *l, struct qy_lanes_cache *c);

/* A slot that nobody has: true, and its number. */
QY_INLINE bool qy_slot_take(quarry_lanes *l, struct qy_lanes_cache *c, uint32_t *slot)
{
	if (QY_UNLIKELY(c->slots == 0) && !qy_slots_more(l, c))
		return false;
	*slot = c->slot[--c->slots];
	return true;
}

/* Into the cache, which has room. Counted last: in a child of fork(2), which may have cut the thread off here, a slot that
 * is counted is one that nobody has. */
QY_INLINE void qy_slot_push(struct qy_lanes_cache *c, uint32_t slot)
{
	c->slot[c->slots] = slot;
	atomic_signal_fence(memory_order_seq_cst);
	c->slots++;
}

/* Its object is freed; its word says so already. */
void qy_slot_give(quarry_lanes *l, struct qy_lanes_cache *c, uint32_t slot);
void qy_slots_flush(quarry_lanes *l, struct qy_lanes_cache *c, uint32_t keep);
void qy_slots_give_all(quarry_lanes *l, struct qy_lanes_cache *c); /* and nothing of theirs goes back to the kernel */
/* Words of some empty pages go back to the kernel. Whether there may be more. */
bool qy_slots_trim(quarry_lanes *l);
/* Whether the slot may have had this handle's generation before its word, which reads as 0, went back. */
bool qy_slot_was_had(const quarry_lanes *l, quarry_handle h);

/* Of a page that was used. */
QY_INLINE struct qy_slot_page *qy_slot_page(const quarry_lanes *l, uint32_t page)
{
	return &l->slots.chunk[page / QY_SLOT_CHUNK][page % QY_SLOT_CHUNK];
}

/* Whether words of this slot's page, which was used, are in memory. */
QY_INLINE bool qy_slots_in_memory(const quarry_lanes *l, uint32_t slot)
{
	return qy_peek(qy_slot_page(l, slot / QY_SLOT_PAGE)->fresh) > 0;
}

/* The first of this and those behind it whose word is in memory; beyond slots.next: there is none. */
QY_INLINE uint32_t qy_slot_in_memory_from(const quarry_lanes *l, uint32_t slot)
{
	const uint32_t next = atomic_load_explicit(&l->slots.next, memory_order_acquire);

	while (slot < next && !qy_slots_in_memory(l, slot))
		slot += QY_SLOT_PAGE - slot % QY_SLOT_PAGE;
	return slot;
}

#endif
