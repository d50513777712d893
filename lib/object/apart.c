/* SPDX-License-Identifier: MIT */
#include "lib/object/apart.h"

#define NEAR 8 /* places that an address may stand in */

_Static_assert(QY_APART_MOST == 1 << 8, "the upper 8 bits of a hash; quarry/block.h says so");

static _Atomic(uintptr_t) table[QY_APART_MOST]; /* 0: free */
static _Atomic(uint32_t) made, turn;

static _Atomic(uintptr_t) *place_of(const void *p, unsigned i)
{
	return &table[(((uintptr_t)p * 0x9e3779b97f4a7c15u >> 56) + i) % QY_APART_MOST];
}

bool qy_apart_is_due(void)
{
	return atomic_fetch_add_explicit(&made, 1, memory_order_relaxed) % QY_APART_EVERY == QY_APART_EVERY - 1;
}

void qy_apart_note(const void *p)
{
	if (qy_apart_has(p)) /* of a block that was freed behind its count */
		return;
	for (unsigned i = 0; i < NEAR; i++) {
		uintptr_t none = 0;

		if (atomic_compare_exchange_strong_explicit(place_of(p, i), &none, (uintptr_t)p, memory_order_relaxed,
							    memory_order_relaxed))
			return;
	}
	atomic_store_explicit(place_of(p, atomic_fetch_add_explicit(&turn, 1, memory_order_relaxed) % NEAR), (uintptr_t)p,
			      memory_order_relaxed);
}

bool qy_apart_has(const void *p)
{
	for (unsigned i = 0; i < NEAR; i++)
		if (atomic_load_explicit(place_of(p, i), memory_order_relaxed) == (uintptr_t)p)
			return true;
	return false;
}

void qy_apart_forget(const void *p)
{
	for (unsigned i = 0; i < NEAR; i++) {
		uintptr_t at = (uintptr_t)p;

		(void)atomic_compare_exchange_strong_explicit(place_of(p, i), &at, 0, memory_order_relaxed,
							      memory_order_relaxed);
	}
}

void qy_apart_forget_all(void)
{
	for (unsigned i = 0; i < QY_APART_MOST; i++)
		atomic_store_explicit(&table[i], 0, memory_order_relaxed);
}
