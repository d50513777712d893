/* SPDX-License-Identifier: MIT */
/* Slots: who has which number, and for which life. A free slot's word has the generation of its next object, FREE, and
 * the next free slot where an address would be; one whose generations are used up is never in a list again. */
#include <errno.h>

#include "lib/lanes/lanes.h"

#define FRESH 32 /* never used ones that are taken at once */

static uint32_t next_of(uint64_t word)
{
	return (uint32_t)((word & QUARRY_WORD_ADDRESS) >> 5);
}

bool qy_slots_more(quarry_lanes *l, struct qy_lanes_cache *c)
{
	uint32_t next;

	pthread_mutex_lock(&l->slots.lock);
	while (l->slots.first != 0 && c->slots < QY_SLOTS_CACHED / 2) {
		uint32_t slot = l->slots.first - 1;

		l->slots.first = next_of(atomic_load_explicit(&l->word[slot], memory_order_relaxed));
		c->slot[c->slots++] = slot;
	}
	next = atomic_load_explicit(&l->slots.next, memory_order_relaxed);
	while (c->slots < FRESH && next < l->map.slots) {
		atomic_store_explicit(&l->word[next], (uint64_t)1 << 48 | QUARRY_WORD_FREE, memory_order_relaxed);
		c->slot[c->slots++] = next++;
	}
	atomic_store_explicit(&l->slots.next, next, memory_order_release);
	pthread_mutex_unlock(&l->slots.lock);
	if (c->slots == 0)
		errno = ENOMEM;
	return c->slots > 0;
}

void qy_slots_flush(quarry_lanes *l, struct qy_lanes_cache *c, uint32_t keep)
{
	pthread_mutex_lock(&l->slots.lock);
	while (c->slots > keep) {
		uint32_t slot = c->slot[--c->slots];
		uint64_t word = atomic_load_explicit(&l->word[slot], memory_order_relaxed);

		word = (word & QUARRY_WORD_GENERATION) | (uint64_t)l->slots.first << 5 | QUARRY_WORD_FREE;
		atomic_store_explicit(&l->word[slot], word, memory_order_relaxed);
		l->slots.first = slot + 1;
	}
	pthread_mutex_unlock(&l->slots.lock);
}

void qy_slot_give(quarry_lanes *l, struct qy_lanes_cache *c, uint32_t slot)
{
	uint64_t generation = atomic_load_explicit(&l->word[slot], memory_order_relaxed) >> 48;

	if (generation > l->generations || c == NULL) {
		pthread_mutex_lock(&l->slots.lock);
		if (generation > l->generations) {
			l->slots.retired++;
		} else { /* no memory for a cache: into the list at once */
			atomic_store_explicit(&l->word[slot],
					      generation << 48 | (uint64_t)l->slots.first << 5 | QUARRY_WORD_FREE,
					      memory_order_relaxed);
			l->slots.first = slot + 1;
		}
		pthread_mutex_unlock(&l->slots.lock);
		return;
	}
	if (c->slots == QY_SLOTS_CACHED) {
		qy_slots_flush(l, c, QY_SLOTS_CACHED / 2);
		qy_news(l);
	}
	c->slot[c->slots++] = slot;
}
