/* SPDX-License-Identifier: MIT */
#include "lib/object/quarantine.h"

#include <string.h>

#include "lib/manager/mistakes.h"

#define PLACES 1024
#define BYTES_MAX ((size_t)16 << 20)

struct held {
	void *p; /* NULL: nothing */
	size_t n;
};

static struct place {
	_Atomic(uint32_t) taken;
	struct held held;
} places[PLACES];

static _Atomic(uint32_t) next_in, next_out; /* places, ever rising */
static _Atomic(uint64_t) bytes, blocks, late_writes;

static struct place *next_place(_Atomic(uint32_t) *next)
{
	return &places[atomic_fetch_add_explicit(next, 1, memory_order_relaxed) % PLACES];
}

static bool take(struct place *place)
{
	return atomic_exchange_explicit(&place->taken, 1, memory_order_acquire) == 0;
}

static void leave(struct place *place)
{
	atomic_store_explicit(&place->taken, 0, memory_order_release);
}

/* Filled anew where it was not as it should be, so that it is told once. */
static bool was_written(const struct held *held)
{
	const unsigned char *at = held->p;
	size_t n = held->n;

	if (n == 0 || (at[0] == QY_QUARANTINE_FILL && memcmp(at, at + 1, n - 1) == 0))
		return false;
	memset(held->p, QY_QUARANTINE_FILL, n);
	atomic_fetch_add_explicit(&late_writes, 1, memory_order_relaxed);
	return true;
}

/* Whether it was written to. */
static bool let_go(const struct held *held)
{
	bool written;

	if (held->p == NULL)
		return false;
	written = was_written(held);
	if (written)
		qy_mistake(QY_MISTAKE_DOUBLE_FREE, held->p);
	atomic_fetch_sub_explicit(&bytes, held->n, memory_order_relaxed);
	atomic_fetch_sub_explicit(&blocks, 1, memory_order_relaxed);
	quarry_free(held->p);
	return written;
}

/* What is in the place goes out, and what is given (all zero: nothing) in. False when the place is taken. */
static bool exchange(struct place *place, const struct held *in, struct held *out)
{
	if (!take(place))
		return false;
	*out = place->held;
	place->held = *in;
	leave(place);
	return true;
}

bool qy_quarantine_put(void *p, size_t n)
{
	static const struct held nothing;
	struct held in = { p, n }, out = nothing;
	bool is_in = false;

	if (n > QY_QUARANTINE_BLOCK_MAX)
		return false;
	memset(p, QY_QUARANTINE_FILL, n);
	atomic_fetch_add_explicit(&bytes, n, memory_order_relaxed);
	atomic_fetch_add_explicit(&blocks, 1, memory_order_relaxed);
	for (unsigned tries = 0; tries < PLACES && !is_in; tries++)
		is_in = exchange(next_place(&next_in), &in, &out);
	if (!is_in)
		out = in;
	(void)let_go(&out);
	/* Not always the oldest of all, but never the same one twice before the others. */
	for (unsigned i = 0; i < PLACES && atomic_load_explicit(&bytes, memory_order_relaxed) > BYTES_MAX; i++)
		if (exchange(next_place(&next_out), &nothing, &out))
			(void)let_go(&out);
	return true;
}

long qy_quarantine_check(bool release)
{
	static const struct held nothing;
	struct held out;
	long written = 0;

	for (unsigned i = 0; i < PLACES; i++) {
		struct place *place = &places[i];

		if (release) {
			if (exchange(place, &nothing, &out))
				written += let_go(&out);
		} else if (take(place)) {
			bool late = place->held.p != NULL && was_written(&place->held);
			void *p = place->held.p;

			leave(place);
			if (late)
				qy_mistake(QY_MISTAKE_DOUBLE_FREE, p);
			written += late;
		}
	}
	return written;
}

void qy_quarantine_figures(struct qy_quarantine_figures *figures)
{
	figures->late_writes = atomic_load_explicit(&late_writes, memory_order_relaxed);
	figures->blocks = atomic_load_explicit(&blocks, memory_order_relaxed);
	figures->bytes = atomic_load_explicit(&bytes, memory_order_relaxed);
}
