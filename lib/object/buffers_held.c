/* SPDX-License-Identifier: MIT */
/* Buffers that are out, or pinned, for too long. Slabs that do not ask for it have neither of the arrays here.
 *
 * Since when a buffer is out is a word of a generation's low 16 bits and 48 of milliseconds, written by the owner right
 * after the generation became odd: a word of another generation says that it was taken this moment. Pins are a word of 16
 * bits of the generation, 8 of how many there are, and 40 of since when there is one. */
#include <errno.h>

#include "lib/api/error.h"
#include "lib/object/buffers.h"
#include "numa/os.h"

#define TIME_BITS 48
#define PIN_TIME_BITS 40
#define PINS_MAX 255u

static int error(int number)
{
	errno = number;
	return -1;
}

static uint64_t low_bits(uint64_t word, unsigned bits)
{
	return word & (((uint64_t)1 << bits) - 1);
}

/* ---- since when they are out ---- */

void qy_buffers_note_time(struct qy_buffers *s, uint32_t id)
{
	const uint64_t generation = atomic_load_explicit(&s->generation[id], memory_order_relaxed);

	atomic_store_explicit(&s->since[id], generation << TIME_BITS | low_bits(qy_os->now_ms(), TIME_BITS),
			      memory_order_relaxed);
}

/* ---- pins ---- */

static uint32_t pins_in(uint64_t word)
{
	return word >> PIN_TIME_BITS & PINS_MAX;
}

static uint32_t pins_of(uint64_t word, uint32_t generation)
{
	return (uint16_t)(word >> TIME_BITS) == (uint16_t)generation ? pins_in(word) : 0;
}

static uint64_t pin_word(uint32_t generation, uint32_t pins, uint64_t since)
{
	return pins == 0 ? 0 : (uint64_t)generation << TIME_BITS | (uint64_t)pins << PIN_TIME_BITS | since;
}

bool qy_buffers_pinned(struct qy_buffers *s, uint32_t id, uint32_t generation)
{
	return pins_of(atomic_load_explicit(&s->pins[id], memory_order_seq_cst), generation) != 0;
}

void qy_buffers_recount_pins(struct qy_buffers *s)
{
	uint32_t n = 0;

	for (uint32_t id = 0; id < s->head.count; id++)
		n += pins_in(atomic_load_explicit(&s->pins[id], memory_order_relaxed)) != 0;
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

static int pin(struct qy_buffers *s, uint32_t id, uint32_t generation)
{
	const uint64_t now = low_bits(qy_os->now_ms(), PIN_TIME_BITS);
	uint64_t was = atomic_load_explicit(&s->pins[id], memory_order_relaxed), word;
	bool room = false;

	do {
		const uint32_t n = pins_of(was, generation);

		if (n == 0 && !room && !(room = take_room(s)))
			return error(EAGAIN);
		if (n == PINS_MAX) {
			if (room)
				leave_room(s);
			return error(EAGAIN);
		}
		word = pin_word(generation, n + 1, n == 0 ? now : low_bits(was, PIN_TIME_BITS));
	} while (!atomic_compare_exchange_weak_explicit(&s->pins[id], &was, word, memory_order_seq_cst,
							memory_order_relaxed));
	if (room && pins_of(was, generation) != 0) /* another thread was first to pin it */
		leave_room(s);
	return 0;
}

static int unpin(struct qy_buffers *s, uint32_t id, uint32_t generation)
{
	uint64_t was = atomic_load_explicit(&s->pins[id], memory_order_relaxed), word;
	uint32_t n;

	do {
		n = pins_of(was, generation);
		if (n == 0)
			return error(EINVAL);
		word = pin_word(generation, n - 1, low_bits(was, PIN_TIME_BITS));
	} while (!atomic_compare_exchange_weak_explicit(&s->pins[id], &was, word, memory_order_release,
							memory_order_relaxed));
	if (n == 1)
		leave_room(s);
	return 0;
}

QUARRY_API int quarry_buffer_pin_counted(quarry_buffer b)
{
	struct qy_buffers *s;

	if (quarry_buffer_check(b) == NULL)
		return -1;
	s = qy_buffers_of(b.id, b.flags);
	if (s == NULL || s->pins == NULL)
		return error(EINVAL);
	if (pin(s, b.id, b.generation - s->seed) != 0)
		return -1;
	/* (Who releases it at this moment sees the pin, or is seen here.) */
	if (atomic_load_explicit(&s->generation[b.id], memory_order_seq_cst) == b.generation - s->seed)
		return 0;
	(void)unpin(s, b.id, b.generation - s->seed);
	return error(ESTALE);
}

QUARRY_API int quarry_buffer_unpin_counted(quarry_buffer b)
{
	struct qy_buffers *s = qy_buffers_of(b.id, b.flags);

	return s != NULL && s->pins != NULL ? unpin(s, b.id, b.generation - s->seed) : error(EINVAL);
}

/* ---- asked ---- */

/* Whether the program has a buffer of that generation, or a piece of it. */
static bool is_out(struct qy_buffers *s, uint32_t id, uint32_t generation)
{
	uint64_t pieces = s->ring.pieces != NULL ?
				  atomic_load_explicit(&s->ring.pieces[id].out, memory_order_relaxed) : 0;

	if (!(generation & 1))
		return false;
	return pieces >> 32 != generation || (pieces & QY_PIECES_OUT);
}

static uint64_t age(uint64_t now, uint64_t then)
{
	return now > then ? now - then : 0;
}

static void look_at_times(struct qy_buffers *s, uint32_t id, uint64_t ms, uint64_t now, quarry_buffers_held *held)
{
	const uint64_t word = atomic_load_explicit(&s->since[id], memory_order_relaxed);
	const uint32_t generation = atomic_load_explicit(&s->generation[id], memory_order_relaxed);
	uint64_t old;

	if (!is_out(s, id, generation))
		return;
	old = (uint16_t)(word >> TIME_BITS) == (uint16_t)generation ? age(now, low_bits(word, TIME_BITS)) : 0;
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
	const uint64_t old = age(now, low_bits(word, PIN_TIME_BITS));

	if (pins_in(word) == 0)
		return;
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
