/* SPDX-License-Identifier: MIT */
/* Slabs of buffers in a forked child.
 *
 * Its one thread is the one that forked. What the others were at stays where it was: buffers that they had are out for
 * ever, unless the child knows them; but what they had released, or the owner had in its hands, is free in the child, and
 * nobody is waited for who is not there. All of that is settled in the handler of pthread_atfork(3): later the child may
 * have threads of its own that are in the midst of something. Slabs are read through there, and written to only where
 * something was under way, since a child may be about to call exec(3). */
#include <pthread.h>
#include <stddef.h>
#include <string.h>

#include "lib/object/buffers.h"

_Atomic(uint32_t) qy_buffers_forks;

static uint32_t words(const struct qy_buffers *s)
{
	return (uint32_t)(((size_t)s->head.count + 63) / 64);
}

static uint32_t generation(struct qy_buffers *s, uint32_t id)
{
	return atomic_load_explicit(&s->generation[id], memory_order_relaxed);
}

/* The kernel's ring is the parent's in any case; of an owner who is not here nobody knows how far he was with it, nor
 * is there anybody who waits. The ring stays as an empty one, to be unregistered. */
static void forget_owner(struct qy_buffers *s)
{
	struct qy_ring *ring = &s->ring;

	s->serving = false;
	s->first_waiter = s->asked = NULL;
	s->last_waiter = &s->first_waiter;
	s->waiting = 0;
	ring->tail = ring->written;
	ring->held = 0;
	if (ring->has != NULL)
		memset(ring->has, 0, words(s) * sizeof(*ring->has));
	if (ring->of != NULL)
		memset(ring->of, 0, words(s) * sizeof(*ring->of));
	for (uint32_t id = 0; ring->pieces != NULL && id < s->head.count; id++)
		if (atomic_load_explicit(&ring->pieces[id].out, memory_order_relaxed) & QY_KERNELS)
			atomic_fetch_and_explicit(&ring->pieces[id].out, ~QY_KERNELS, memory_order_relaxed);
	qy_buffers_mode(s);
}

/* Whoever brought the last piece of a buffer back may not have come to release the buffer. */
static void settle_pieces(struct qy_buffers *s)
{
	for (uint32_t id = 0; id < s->fresh; id++) {
		const uint32_t now = generation(s, id);

		if ((now & 1) && atomic_load_explicit(&s->ring.pieces[id].out, memory_order_relaxed) == (uint64_t)now << 32)
			atomic_store_explicit(&s->generation[id], now + 1, memory_order_relaxed);
	}
}

static bool kernels(const struct qy_buffers *s, uint32_t id)
{
	return s->ring.has != NULL && qy_bit(s->ring.has, id);
}

/* The bits above those that there are. How many there are. */
static uint32_t settle_above(struct qy_buffers *s)
{
	uint32_t n = 0;

	for (uint32_t word = 0; word < words(s); word++) {
		const uint64_t bits = atomic_load_explicit(&s->returned[word], memory_order_relaxed);
		const uint32_t group = word >> s->group;

		n += (uint32_t)__builtin_popcountll(bits);
		if (bits != 0)
			atomic_fetch_or_explicit(&s->above[group / 64], (uint64_t)1 << (group % 64),
						 memory_order_relaxed);
	}
	return n;
}

/* Free ones that are nowhere. */
static bool some_are_lost(struct qy_buffers *s, uint32_t returned)
{
	uint32_t n = 0;

	for (uint32_t id = 0; id < s->fresh; id++)
		n += !(generation(s, id) & 1) && !kernels(s, id);
	return n != s->stacked + returned;
}

static void gather(struct qy_buffers *s)
{
	memset((void *)s->returned, 0, words(s) * sizeof(*s->returned));
	s->stacked = 0;
	for (uint32_t id = s->fresh; id-- > 0;)
		if (!(generation(s, id) & 1) && !kernels(s, id))
			qy_buffers_come_home(s, id);
	qy_ring_tell(s);
}

static void settle(struct qy_buffers *s)
{
	uint32_t returned;

	atomic_store_explicit(&s->callers, 0, memory_order_relaxed);
	atomic_store_explicit(&s->moving, 0, memory_order_relaxed);
	if (s->pins != NULL)
		qy_buffers_settle_pins(s);
	s->fixed.pending = 0; /* the tags come to the parent */
	if (!qy_buffers_mine(s))
		forget_owner(s);
	/* Who has seen that somebody waits calls `wake` in the parent alone. */
	atomic_store_explicit(&s->waits, s->first_waiter != NULL, memory_order_relaxed);
	if (s->ring.pieces != NULL)
		settle_pieces(s);
	returned = settle_above(s);
	if (some_are_lost(s, returned))
		gather(s);
}

/* One that was being made, or ended, by a thread that is not here: its number is free again, its memory lost. */
static void abandon(struct qy_buffers *s, uint32_t number)
{
	atomic_store_explicit(&qy_buffers_table[number], NULL, memory_order_relaxed);
	memset(s, 0, offsetof(struct qy_buffers, waits));
	atomic_store_explicit(&s->waits, 0, memory_order_relaxed);
	atomic_store_explicit(&s->callers, 0, memory_order_relaxed);
	atomic_store_explicit(&s->taken, 0, memory_order_relaxed);
}

static void in_child(void)
{
	const uint32_t numbers = atomic_load_explicit(&qy_buffers_numbers, memory_order_relaxed);

	atomic_fetch_add_explicit(&qy_buffers_forks, 1, memory_order_relaxed);
	for (uint32_t i = 0; i < numbers; i++) {
		struct qy_buffers *s = &qy_buffers_all[i];

		if (atomic_load_explicit(&s->taken, memory_order_relaxed) == 0)
			continue;
		if (s->ending || atomic_load_explicit(&qy_buffers_table[i], memory_order_relaxed) == NULL)
			abandon(s, i);
		else
			settle(s);
	}
}

static bool minded;

QY_STARTUP static void prepare(void)
{
	minded = pthread_atfork(NULL, NULL, in_child) == 0;
}

QY_STARTUP bool qy_buffers_mind_forks(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, prepare);
	return minded;
}

/* Before the program's own handlers, which may use slabs in the child: these run in the order in which they were
 * registered. */
__attribute__((constructor)) static void prepare_early(void)
{
	(void)qy_buffers_mind_forks();
}
