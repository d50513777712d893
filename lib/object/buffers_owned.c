/* SPDX-License-Identifier: MIT */
/* Which OWNED buffers came of checked slabs, by address and a number for each: lists that only grow, whose places are
 * used again, so that nobody needs a lock and a forked child finds them whole. Whoever makes a place's word 0 has
 * released the buffer, and nobody else can. What the program frees without a release leaves its word, until the address
 * is noted again, or the place is wanted: whoever finds none that is free looks at a few, in turn, whether their memory is
 * live, so that there come to be few more places than live buffers. */
#include <errno.h>

#include "lib/object/buffers.h"
#include "lib/object/manager.h"
#include "numa/window.h"

#define LISTS 256
#define SERIAL_BITS 21 /* above the address, of which the lowest 4 bits are 0 */
#define LOOKS 8 /* at places whose memory may have been freed, for each that is noted */
#define SERIALS (((uint32_t)1 << SERIAL_BITS) - 1)

struct place {
	_Atomic(uint64_t) word; /* 0: free */
	_Atomic(uint32_t) chained; /* the number of the buffer that a chain has */
	struct place *next;
};

static _Atomic(struct place *) lists[LISTS];
static _Atomic(uint32_t) serials;
_Atomic(uint32_t) qy_owned_places;

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

static const void *address_in(uint64_t word)
{
	return (const void *)(uintptr_t)(word >> SERIAL_BITS << 4);
}

static bool take(struct place *place, uint64_t was, uint64_t word)
{
	return atomic_compare_exchange_strong_explicit(&place->word, &was, word, memory_order_acq_rel,
						       memory_order_relaxed);
}

/* (What stands around it now is another's.) */
static bool is_freed(const void *p)
{
	quarry_inspection i;
	int error = errno;
	bool inside = quarry_inspect(p, &i, sizeof(i)) == 0 && i.offset != 0;

	errno = error;
	return inside || !qy_manager_is_live(p);
}

/* From the place on that the number says, so that the looks come to all of them. */
QY_COLD static bool reuse_freed(struct place *first, uint32_t places, uint64_t word)
{
	uint32_t skip = (uint32_t)(word & SERIALS) % places;
	struct place *place = first;

	for (; skip > 0; skip--)
		place = place->next;
	for (uint32_t looks = 0; looks < LOOKS; looks++) {
		uint64_t was = atomic_load_explicit(&place->word, memory_order_relaxed);

		if ((was == 0 || is_freed(address_in(was))) && take(place, was, word))
			return true;
		place = place->next != NULL ? place->next : first;
	}
	return false;
}

static bool reuse(struct place *first, uint64_t word)
{
	uint32_t places = 0;

	for (struct place *place = first; place != NULL; place = place->next, places++)
		if (atomic_load_explicit(&place->word, memory_order_relaxed) == 0 && take(place, 0, word))
			return true;
	return places > 0 && reuse_freed(first, places, word);
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
	atomic_init(&place->chained, 0);
	atomic_fetch_add_explicit(&qy_owned_places, 1, memory_order_relaxed);
	place->next = first_of(p);
	while (!atomic_compare_exchange_weak_explicit(list_of(p), &place->next, place, memory_order_release,
						      memory_order_relaxed))
		;
	return serial;
}

static struct place *place_of(const void *p, uint32_t serial)
{
	struct place *place = first_of(p);

	while (place != NULL && atomic_load_explicit(&place->word, memory_order_relaxed) != word_of(p, serial))
		place = place->next;
	return place;
}

/* (What the program has freed by another call is none, as long as the memory is not live again.) */
bool qy_owned_is(const void *p, uint32_t serial)
{
	return place_of(p, serial) != NULL && qy_manager_is_live(p);
}

bool qy_owned_end(const void *p, uint32_t serial)
{
	struct place *place = place_of(p, serial);

	return place != NULL && end(place, word_of(p, serial));
}

bool qy_owned_enter(const void *p, uint32_t serial)
{
	struct place *place = place_of(p, serial);

	return place == NULL || atomic_exchange_explicit(&place->chained, serial, memory_order_relaxed) != serial;
}

bool qy_owned_is_entered(const void *p, uint32_t serial)
{
	struct place *place = place_of(p, serial);

	return place != NULL && atomic_load_explicit(&place->chained, memory_order_relaxed) == serial;
}

void qy_owned_leave(const void *p, uint32_t serial)
{
	struct place *place = place_of(p, serial);

	if (place != NULL)
		(void)atomic_compare_exchange_strong_explicit(&place->chained, &serial, 0, memory_order_relaxed,
							      memory_order_relaxed);
}
