/* SPDX-License-Identifier: MIT */
/* Buffers that are out, or pinned, for too long. Slabs that do not ask for it have neither of the arrays here.
 *
 * Since when a buffer is out is a word of a generation's low 16 bits and 48 of milliseconds, written by the owner right
 * after the generation became odd: a word of another generation says that it was taken this moment. Since when one is
 * pinned is such a word too. Pins are a word of the whole generation, how many there are, and that the buffer is being
 * released: it decides, and is the life's from its beginning on, when the owner writes it. */
#include <errno.h>

#include "lib/api/error.h"
#include "lib/object/buffers.h"
#include "numa/os.h"

#define TIME_BITS 48
#define PINS_MAX 255u
#define CLOSED 256u /* whoever set it releases the buffer */

static int error(int number)
{
	errno = number;
	return -1;
}

/* Since this moment, in a life. */
static uint64_t time_word(uint32_t generation)
{
	return (uint64_t)generation << TIME_BITS | (qy_os->now_ms() & (((uint64_t)1 << TIME_BITS) - 1));
}

/* For how long. */
static uint64_t age(uint64_t word, uint32_t generation, uint64_t now)
{
	const uint64_t then = word & (((uint64_t)1 << TIME_BITS) - 1);

	return (uint16_t)(word >> TIME_BITS) == (uint16_t)generation && now > then ? now - then : 0;
}

/* ---- when one is given out ---- */

static uint64_t pin_word(uint32_t generation, uint32_t pins)
{
	return (uint64_t)generation << 32 | pins;
}

void qy_buffers_note_taken(struct qy_buffers *s, uint32_t id)
{
	const uint32_t generation = atomic_load_explicit(&s->generation[id], memory_order_relaxed);

	if (s->since != NULL)
		atomic_store_explicit(&s->since[id], time_word(generation), memory_order_relaxed);
	if (s->pins != NULL)
		atomic_store_explicit(&s->pins[id], pin_word(generation, 0), memory_order_relaxed);
}

/* ---- pins ---- */

static bool is_of(uint64_t word, uint32_t generation)
{
	return word >> 32 == generation;
}

static uint32_t pins_in(uint64_t word)
{
	return (uint32_t)word & PINS_MAX;
}

static uint32_t pins_of_pieces(uint64_t out)
{
	return (uint32_t)((out & QY_PIECE_PINS) / QY_PIECE_PIN);
}

static uint64_t pieces(struct qy_buffers *s, uint32_t id)
{
	return s->ring.pieces != NULL ? atomic_load_explicit(&s->ring.pieces[id].out, memory_order_acquire) : 0;
}

bool qy_buffers_pinned(struct qy_buffers *s, uint32_t id, uint32_t generation)
{
	const uint64_t word = atomic_load_explicit(&s->pins[id], memory_order_acquire), out = pieces(s, id);

	return out >> 32 == generation ? pins_of_pieces(out) != 0 : is_of(word, generation) && pins_in(word) != 0;
}

int qy_buffers_close_pins(struct qy_buffers *s, uint32_t id, uint32_t generation)
{
	uint64_t was = atomic_load_explicit(&s->pins[id], memory_order_relaxed);

	do {
		if (!is_of(was, generation) || (was & CLOSED))
			return EALREADY;
		if (pins_in(was) != 0)
			return EBUSY;
	} while (!atomic_compare_exchange_weak_explicit(&s->pins[id], &was, pin_word(generation, CLOSED),
							memory_order_acq_rel, memory_order_relaxed));
	return 0;
}

void qy_buffers_settle_pins(struct qy_buffers *s)
{
	uint32_t n = 0;

	for (uint32_t id = 0; id < s->fresh; id++) {
		const uint32_t generation = atomic_load_explicit(&s->generation[id], memory_order_relaxed);
		const uint64_t word = atomic_load_explicit(&s->pins[id], memory_order_relaxed);

		n += pins_in(word) != 0 || pins_of_pieces(pieces(s, id)) != 0;
		if ((generation & 1) && is_of(word, generation) && (word & CLOSED))
			atomic_store_explicit(&s->generation[id], generation + 1, memory_order_relaxed);
	}
	atomic_store_explicit(&s->pinned, n, memory_order_relaxed);
}

/* One more buffer may be pinned, and counts as that. */
static bool take_room(struct qy_buffers *s)
{
	uint32_t n = atomic_load_explicit(&s->pinned, memory_order_relaxed);

	while (n < s->pins_max)
		if (atomic_compare_exchange_weak_explicit(&s->pinned, &n, n + 1, memory_order_relaxed,
							  memory_order_relaxed))
			return true;
	atomic_fetch_add_explicit(&s->pins_refused, 1, memory_order_relaxed);
	return false;
}

static void leave_room(struct qy_buffers *s)
{
	atomic_fetch_sub_explicit(&s->pinned, 1, memory_order_relaxed);
}

/* What must be so for one more pin of what is pinned n times: there is room for one more pinned buffer (taken in *room),
 * and in the count. */
static bool may_pin(struct qy_buffers *s, uint32_t n, bool *room)
{
	if (n < PINS_MAX && (n != 0 || *room || (*room = take_room(s))))
		return true;
	errno = EAGAIN;
	return false;
}

/* The end of that: of several who took room for the same buffer one keeps it. */
static int ended(struct qy_buffers *s, bool keep, bool room, int result)
{
	if (room && !keep)
		leave_room(s);
	return result;
}

static void note_pinned(struct qy_buffers *s, uint32_t id, uint32_t generation)
{
	atomic_store_explicit(&s->pinned_since[id], time_word(generation), memory_order_relaxed);
}

/* The pins of a whole buffer, and that it is being released, are one word: who comes first, does. */
static int pin(struct qy_buffers *s, uint32_t id, uint32_t generation)
{
	uint64_t was = atomic_load_explicit(&s->pins[id], memory_order_relaxed);
	bool room = false;
	uint32_t n;

	do {
		n = pins_in(was);
		if (!is_of(was, generation) || (was & CLOSED))
			return ended(s, false, room, error(ESTALE));
		if (!may_pin(s, n, &room))
			return ended(s, false, room, -1);
		if (n == 0) /* before it is pinned: who looks finds no time of a pin before */
			note_pinned(s, id, generation);
	} while (!atomic_compare_exchange_weak_explicit(&s->pins[id], &was, pin_word(generation, n + 1),
							memory_order_acq_rel, memory_order_relaxed));
	return ended(s, n == 0, room, 0);
}

static int unpin(struct qy_buffers *s, uint32_t id, uint32_t generation)
{
	uint64_t was = atomic_load_explicit(&s->pins[id], memory_order_relaxed);
	uint32_t n;

	do {
		n = pins_in(was);
		if (!is_of(was, generation) || n == 0)
			return error(EINVAL);
	} while (!atomic_compare_exchange_weak_explicit(&s->pins[id], &was, pin_word(generation, n - 1),
							memory_order_release, memory_order_relaxed));
	return ended(s, n != 1, true, 0);
}

/* Of one in pieces that is the word of the pieces. */
static int pin_piece(struct qy_buffers *s, uint32_t id, uint32_t generation, unsigned piece)
{
	_Atomic(uint64_t) *out = &s->ring.pieces[id].out;
	uint64_t was = atomic_load_explicit(out, memory_order_relaxed);
	bool room = false;
	uint32_t n;

	do {
		n = pins_of_pieces(was);
		if (was >> 32 != generation || piece >= QY_PIECES_COUNTED || !(was >> piece & 1))
			return ended(s, false, room, error(ESTALE));
		if (!may_pin(s, n, &room))
			return ended(s, false, room, -1);
		if (n == 0)
			note_pinned(s, id, generation);
	} while (!atomic_compare_exchange_weak_explicit(out, &was, was + QY_PIECE_PIN, memory_order_acq_rel,
							memory_order_relaxed));
	return ended(s, n == 0, room, 0);
}

static int unpin_piece(struct qy_buffers *s, uint32_t id, uint32_t generation)
{
	_Atomic(uint64_t) *out = &s->ring.pieces[id].out;
	uint64_t was = atomic_load_explicit(out, memory_order_relaxed);

	do {
		if (was >> 32 != generation || pins_of_pieces(was) == 0)
			return error(EINVAL);
	} while (!atomic_compare_exchange_weak_explicit(out, &was, was - QY_PIECE_PIN, memory_order_release,
							memory_order_relaxed));
	return ended(s, pins_of_pieces(was) != 1, true, 0);
}

QUARRY_API int quarry_buffer_pin_counted(quarry_buffer b)
{
	struct qy_buffers *s;

	if (quarry_buffer_check(b) == NULL)
		return -1;
	s = qy_buffers_of(b.id, b.flags);
	if (s == NULL || s->pins == NULL)
		return error(EINVAL);
	return b.flags & QUARRY_BUFFER_PIECE ? pin_piece(s, b.id, b.generation - s->seed, qy_buffer_piece(b.flags)) :
					       pin(s, b.id, b.generation - s->seed);
}

QUARRY_API int quarry_buffer_unpin_counted(quarry_buffer b)
{
	struct qy_buffers *s = qy_buffers_of(b.id, b.flags);

	if (s == NULL || s->pins == NULL || ((b.flags & QUARRY_BUFFER_PIECE) && s->ring.pieces == NULL))
		return error(EINVAL);
	return b.flags & QUARRY_BUFFER_PIECE ? unpin_piece(s, b.id, b.generation - s->seed) :
					       unpin(s, b.id, b.generation - s->seed);
}

/* ---- asked ---- */

/* Whether the program has a buffer of that generation, or a piece of it. */
static bool is_out(struct qy_buffers *s, uint32_t id, uint32_t generation)
{
	const uint64_t out = pieces(s, id);

	if (!(generation & 1))
		return false;
	return out >> 32 != generation || (out & QY_PIECES_OUT);
}

static void look_at_times(struct qy_buffers *s, uint32_t id, uint64_t ms, uint64_t now, quarry_buffers_held *held)
{
	const uint64_t word = atomic_load_explicit(&s->since[id], memory_order_relaxed);
	const uint32_t generation = atomic_load_explicit(&s->generation[id], memory_order_relaxed);
	uint64_t old;

	if (!is_out(s, id, generation))
		return;
	old = age(word, generation, now);
	held->out++;
	held->held += old > ms;
	if (held->oldest == UINT32_MAX || old > held->oldest_ms) {
		held->oldest = id;
		held->oldest_ms = old;
	}
}

static void look_at_pins(struct qy_buffers *s, uint32_t id, uint64_t ms, uint64_t now, quarry_buffers_held *held)
{
	const uint64_t word = atomic_load_explicit(&s->pins[id], memory_order_relaxed);
	uint64_t old;

	if (pins_in(word) == 0 && pins_of_pieces(pieces(s, id)) == 0)
		return;
	old = age(atomic_load_explicit(&s->pinned_since[id], memory_order_relaxed),
		  atomic_load_explicit(&s->generation[id], memory_order_relaxed), now);
	held->pinned++;
	held->pinned_held += old > ms;
	if (held->oldest_pin == UINT32_MAX || old > held->oldest_pin_ms) {
		held->oldest_pin = id;
		held->oldest_pin_ms = old;
	}
}

QUARRY_API int quarry_buffers_held_get(quarry_buffers *slab, uint64_t ms, quarry_buffers_held *held)
{
	struct qy_buffers *s = qy_buffers_slab(slab, false);
	uint64_t now;
	uint32_t fresh;

	if (s == NULL)
		return -1;
	if (held == NULL || held->struct_size != sizeof(*held))
		return qy_fail(EINVAL, "struct_size: it is not the size of a quarry_buffers_held");
	if (s->since == NULL && s->pins == NULL)
		return qy_fail(ENOTSUP, "slab: it notes no times (held_ms) and counts no pins (pins_max)");
	*held = (quarry_buffers_held){ .struct_size = sizeof(*held), .oldest = UINT32_MAX, .oldest_pin = UINT32_MAX };
	if (ms == 0)
		ms = s->held_ms;
	now = qy_os->now_ms();
	fresh = qy_peek(s->fresh);
	for (uint32_t id = 0; id < fresh; id++) {
		if (s->since != NULL)
			look_at_times(s, id, ms, now, held);
		if (s->pins != NULL)
			look_at_pins(s, id, ms, now, held);
	}
	held->refused = atomic_load_explicit(&s->pins_refused, memory_order_relaxed);
	return 0;
}
