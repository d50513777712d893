/* SPDX-License-Identifier: MIT */
/* Which OWNED buffers came of checked slabs, by address and a number for each: lists that only grow, whose places are
 * used again, so that nobody needs a lock and a forked child finds them whole. Whoever makes a place's word 0 has
 * released the buffer, and nobody else can. What the program frees without a release leaves its word, until the address
 * is noted again. */
#include <errno.h>

#include "lib/object/buffers.h"
#include "numa/window.h"

#define LISTS 256
#define SERIAL_BITS 21 /* above the address, of which the lowest 4 bits are 0 */
#define SERIALS (((uint32_t)1 << SERIAL_BITS) - 1)

struct place {
	_Atomic(uint64_t) word; /* 0: free */
	struct place *next;
};

static _Atomic(struct place *) lists[LISTS];
static _Atomic(uint32_t) serials;

static uint64_t word_of(const void *p, uint32_t serial)
{
	return (uint64_t)(uintptr_t)p >> 4 << SERIAL_BITS | serial;
}

static _Atomic(struct place *) *list_of(const void *p)
{
	return &lists[((uintptr_t)p >> 4) * 0x9e3779b97f4a7c15u >> 56];
}

static struct place *first_of(const void *p)
{
	return atomic_load_explicit(list_of(p), memory_order_acquire);
}

static bool end(struct place *place, uint64_t word)
{
	return atomic_compare_exchange_strong_explicit(&place->word, &word, 0, memory_order_acq_rel,
						       memory_order_relaxed);
}

/* What was noted of that address before is of memory that was freed since. */
static void forget(const void *p)
{
	for (struct place *place = first_of(p); place != NULL; place = place->next) {
		uint64_t word = atomic_load_explicit(&place->word, memory_order_relaxed);

		if (word >> SERIAL_BITS == word_of(p, 0) >> SERIAL_BITS)
			end(place, word);
	}
}

static bool reuse(struct place *place, uint64_t word)
{
	for (uint64_t none = 0; place != NULL; place = place->next, none = 0)
		if (atomic_load_explicit(&place->word, memory_order_relaxed) == 0 &&
		    atomic_compare_exchange_strong_explicit(&place->word, &none, word, memory_order_release,
							    memory_order_relaxed))
			return true;
	return false;
}

uint32_t qy_owned_note(const void *p)
{
	uint32_t serial = atomic_fetch_add_explicit(&serials, 1, memory_order_relaxed) % SERIALS + 1;
	struct place *place;
	int error = errno;

	forget(p);
	if (reuse(first_of(p), word_of(p, serial)))
		return serial;
	place = qy_meta_alloc(sizeof(*place), 16);
	errno = error;
	if (place == NULL)
		return 0;
	atomic_init(&place->word, word_of(p, serial));
	place->next = first_of(p);
	while (!atomic_compare_exchange_weak_explicit(list_of(p), &place->next, place, memory_order_release,
						      memory_order_relaxed))
		;
	return serial;
}

bool qy_owned_is(const void *p, uint32_t serial)
{
	const struct place *place = first_of(p);

	while (place != NULL && atomic_load_explicit(&place->word, memory_order_relaxed) != word_of(p, serial))
		place = place->next;
	return place != NULL;
}

bool qy_owned_end(const void *p, uint32_t serial)
{
	for (struct place *place = first_of(p); place != NULL; place = place->next)
		if (atomic_load_explicit(&place->word, memory_order_relaxed) == word_of(p, serial))
			return end(place, word_of(p, serial));
	return false;
}
