/* SPDX-License-Identifier: MIT */
/* Movable memory: what its parts know of each other.
 *
 * A slot has a word (generation, address, state), which alone says whether a handle's object is there and where. All
 * changes of a live word are compare-and-swaps: freeing one, moving one, stopping a move. So whoever wins did it, and
 * whoever loses knows.
 *
 * Objects lie in spans of 64 KiB pages, all of one class in a span; 32 pages are a segment, of 2 MiB, whose first 4 KiB
 * are its record. A span has a bit for each object (1: taken) and an entry that says whose it is: slot + 1, or that it
 * is a tombstone, with the epoch of its end. A tombstone's memory is used again when all scopes of that epoch are over:
 * no list, and no allocation for it. Whose it is is written by who made the object and then by who ended or moved it,
 * which is one; pins are counted by all.
 *
 * Who may take from a span: its owner (a thread, or the mover) takes its bits 64 at a time, without a lock. Bits are
 * cleared by who holds the span: its owner, or under lanes->lock when it has none. Anybody may make tombstones.
 *
 * To move an object (one thread at a time, the mover):
 *	1. MOVING in its word, by CAS. From here on a writer or a pin takes MOVING away before it goes on.
 *	2. A grace period: scopes in which somebody got the object for writing before are over; pins are looked at.
 *	3. The copy. Nobody writes to the old one; readers go on there.
 *	4. The new address by CAS from exactly the word of step 1. Where that fails the copy is dropped.
 *	5. The old one is a tombstone.
 *
 * Locks, from first to last: registry (scope.c) -> figures.walk -> lanes->moving -> groups.lock -> a shard of cold.c ->
 * lanes->lock -> slots.lock, and the lock of cold.c; figures->lock is the last of all. Under lanes->moving the registry is
 * locked too (qy_recall_begin): who has the registry only tries to lock lanes->moving. */
#ifndef QUARRY_LANES_LANES_H
#define QUARRY_LANES_LANES_H

#include "lib/lanes/scope.h"
#include "lib/lanes/slots.h"
#include "lib/lanes/warm.h"

/* ---- background.c ---- */

QY_INLINE void qy_news(quarry_lanes *l)
{
	if (QY_UNLIKELY(!atomic_load_explicit(&l->governor.news, memory_order_relaxed)) && l->governor.on)
		qy_news_slow(l);
}

/* ---- async.c ---- */

void qy_async_before_fork(void);
void qy_async_after_fork(bool child);

/* ---- opt.c ---- */

/* In a child of fork(2): those who were writing are not here. */
void qy_opt_in_child(quarry_lanes *l);

/* ---- find.c, object.c ---- */

/* In a scope: whether the handle's object is cold, and not lost; its word. */
bool qy_is_away(quarry_lanes *l, quarry_handle h, uint64_t *word);

/* Whether its slot, number and generation may be a handle's of these lanes. (No word that says 0 is a live one's: it was
 * never used, or went back.) */
QY_INLINE bool qy_is_ours(const quarry_lanes *l, quarry_handle h)
{
	return (uint32_t)h < l->map.slots && (h & QUARRY_HANDLE_NUMBER) == l->map.number && (h >> 32 & 0xffff) != 0;
}

/* The word of a live handle, all bits of which are looked at, which is brought back when it is cold. In a scope. 0, and errno
 * is set. */
uint64_t qy_look(quarry_lanes *l, quarry_handle h);
/* The same, with the errno set; and not moving: who moved it gives up. */
uint64_t qy_settle_word(quarry_lanes *l, quarry_handle h);
/* Why a handle that is not live is none: the errno; and the same set, with its text: -1. */
int qy_why_not(const quarry_lanes *l, quarry_handle h);
int qy_fail_handle(const quarry_lanes *l, quarry_handle h) __attribute__((cold));
/* EAGAIN, for who would not wait: -1. The thread's next quarry_get of it brings it back. */
int qy_fail_cold(const quarry_lanes *l, quarry_handle h) __attribute__((cold));
/* As quarry_try_get, but nobody is refused: 1, it is cold. */
int qy_try_live(quarry_lanes *l, quarry_handle h, const void **p);
/* In a scope: the address of a live handle's object, for reading, and how many bytes it has there. NULL with errno, as quarry_get. */
const void *qy_get_sized(quarry_lanes *l, quarry_handle h, size_t *size);
/* The same for who looks at all objects: they are not seen by that, and what is cold is copied where that may be, whatever how often. */
const void *qy_look_at(quarry_lanes *l, quarry_handle h, size_t *size);
size_t qy_size_of(uint64_t word);
/* Under the lock: whether the slow lane may grow by so much, for what the thread is doing (qy_urgency, enum quarry_priority). */
bool qy_slow_has_room(quarry_lanes *l, size_t more);
/* Bytes that it would be beyond that; 0: none. */
uint64_t qy_slow_over(quarry_lanes *l, size_t more);
extern QY_HIDDEN __thread uint8_t qy_urgency __attribute__((tls_model("initial-exec")));
/* The handle of an object of that slot with that word, and these marks. */
quarry_handle qy_handle_make(const quarry_lanes *l, uint32_t slot, uint64_t word, uint32_t marks);
/* ENOMEM, for an object of so many bytes: -1. */
int qy_fail_room(size_t size) __attribute__((cold));
/* Memory for an object in the slow lane, and its entry; states: what its word is to say of it. c: the thread's, or l->mover.
 * NULL: none. */
void *qy_take_any(quarry_lanes *l, struct qy_lanes_cache *c, size_t size, size_t alignment, struct qy_entry **entry,
		  uint64_t *states);
/* The same of an arena, for itself. */
void *qy_take_huge(quarry_lanes *l, quarry_arena *arena, size_t size, size_t alignment);
/* What was taken by the two is nobody's: no word ever said it. */
void qy_untake_any(quarry_lanes *l, void *p, uint64_t states);
/* The rest of freeing it, when its word says so. In a scope. */
void qy_freed(quarry_lanes *l, quarry_handle h, uint64_t freed);
/* An object beyond segments is freed, or was moved away. */
void qy_huge_release(quarry_lanes *l, struct qy_huge *record);
int qy_hfree_slow(quarry_lanes *l, quarry_handle h);
/* Freed objects beyond segments go back to the arena, when their scopes are over: so many; whether there may be more. */
bool qy_huge_bury(quarry_lanes *l, unsigned most);
/* All of them: the lanes end. */
void qy_huge_end(quarry_lanes *l);

#endif
