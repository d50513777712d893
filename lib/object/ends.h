/* SPDX-License-Identifier: MIT */
/* Functions for the ends of blocks, beside their words (count.h): each with the last 16 bits of the generation of the block
 * that it is of. So what was left behind, or comes late, is not called for the next block there, and who takes what is of an
 * old one does not take the new one's. A beginning drops what is there of others, before their bits come round. */
#ifndef QUARRY_OBJECT_ENDS_H
#define QUARRY_OBJECT_ENDS_H

#include "include/quarry/block.h"
#include "lib/base/base.h"

#define QY_END_SHIFT 48

QY_INLINE uint64_t qy_end_tag(uint32_t generation)
{
	return (uint64_t)generation << QY_END_SHIFT;
}

/* Whether it is one, of that generation. */
QY_INLINE bool qy_end_is(uint64_t end, uint32_t generation)
{
	return end != 0 && end >> QY_END_SHIFT == qy_end_tag(generation) >> QY_END_SHIFT;
}

QY_INLINE bool qy_end_fits(quarry_end_fn *fn)
{
	return (uint64_t)(uintptr_t)fn >> QY_END_SHIFT == 0;
}

/* False: a later block there has one already, and keeps it. (Whoever comes so late names a block that is over.) */
QY_INLINE bool qy_end_set(_Atomic(uint64_t) *end, uint32_t generation, quarry_end_fn *fn)
{
	uint64_t to = fn == NULL ? 0 : (uint64_t)(uintptr_t)fn | qy_end_tag(generation);
	uint64_t at = atomic_load_explicit(end, memory_order_relaxed);

	do {
		if (at != 0 && (int16_t)((at >> QY_END_SHIFT) - generation) > 0)
			return false;
	} while (!atomic_compare_exchange_weak_explicit(end, &at, to, memory_order_release, memory_order_relaxed));
	return true;
}

/* The one to call for the block that was there in that life: once. */
QY_INLINE quarry_end_fn *qy_end_take(_Atomic(uint64_t) *end, uint32_t generation)
{
	uint64_t at = atomic_load_explicit(end, memory_order_acquire);

	while (qy_end_is(at, generation))
		if (atomic_compare_exchange_weak_explicit(end, &at, 0, memory_order_acquire, memory_order_acquire))
			return (quarry_end_fn *)(uintptr_t)(at & (((uint64_t)1 << QY_END_SHIFT) - 1));
	return NULL;
}

/* A life of that generation is about to begin. */
QY_INLINE void qy_end_drop(_Atomic(uint64_t) *end, uint32_t generation)
{
	uint64_t at = atomic_load_explicit(end, memory_order_relaxed);

	if (QY_UNLIKELY(at != 0 && !qy_end_is(at, generation)))
		(void)atomic_compare_exchange_strong_explicit(end, &at, 0, memory_order_relaxed, memory_order_relaxed);
}

/* The block goes on as the next generation, and its function with it. */
QY_INLINE void qy_end_keep(_Atomic(uint64_t) *end, uint32_t generation)
{
	uint64_t at = atomic_load_explicit(end, memory_order_acquire);

	while (qy_end_is(at, generation) &&
	       !atomic_compare_exchange_weak_explicit(end, &at, at - qy_end_tag(generation) + qy_end_tag(generation + 1),
						      memory_order_acq_rel, memory_order_acquire))
		;
}

#endif
