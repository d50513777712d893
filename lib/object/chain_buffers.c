/* SPDX-License-Identifier: MIT */
/* Buffers and blocks as pieces of chains: they go back where they came from when the last chain lets go of them. */
#include <errno.h>

#include "lib/api/error.h"
#include "lib/object/buffers.h"
#include "lib/object/chain.h"
#include "lib/object/count.h"
#include "lib/object/storage.h"

/* Where it is noted that a chain has a buffer of a checked slab, and the bit; NULL where none is. */
static _Atomic(uint64_t) *chained(uint32_t id, uint32_t flags, uint32_t *bit)
{
	struct qy_buffers *s = flags & (QUARRY_BUFFER_SLAB | QUARRY_BUFFER_RING) ? qy_buffers_of(id, flags) : NULL;

	*bit = flags & QUARRY_BUFFER_PIECE ? qy_chained_piece(qy_buffer_piece(flags)) : QY_CHAINED_WHOLE;
	return s == NULL || s->chained == NULL ? NULL : &s->chained[id];
}

/* False when another chain has it, or this one twice: the second would read what is somebody else's by then. */
static bool enter(quarry_buffer b)
{
	const uint64_t life = (uint64_t)b.generation << 32;
	uint64_t was, now;
	uint32_t bit;
	_Atomic(uint64_t) *word = chained(b.id, b.flags, &bit);

	if ((b.flags & QUARRY_BUFFER_OWNED) && b.generation != 0)
		return qy_owned_enter(qy_owned_begin(b.p, b.id), b.generation);
	if (word == NULL)
		return true;
	was = atomic_load_explicit(word, memory_order_relaxed);
	do {
		now = (was >> 32 == b.generation ? was : life) | bit;
		if (now == was)
			return false;
	} while (!atomic_compare_exchange_weak_explicit(word, &was, now, memory_order_relaxed, memory_order_relaxed));
	return true;
}

static void leave(const void *p, uint32_t id, uint32_t generation, uint32_t flags)
{
	uint32_t bit;
	_Atomic(uint64_t) *word = chained(id, flags, &bit);

	if ((flags & QUARRY_BUFFER_OWNED) && generation != 0)
		qy_owned_leave(p, generation); /* (p is where its memory begins) */
	/* (Nobody else makes it another life's: the buffer is out.) */
	if (word != NULL && atomic_load_explicit(word, memory_order_relaxed) >> 32 == generation)
		atomic_fetch_and_explicit(word, ~(uint64_t)bit, memory_order_relaxed);
}

void qy_storage_end_buffer(void *p, uint32_t id, uint32_t generation, uint32_t flags)
{
	leave(p, id, generation, flags);
	(void)quarry_buffer_release_parts(p, id, generation, flags);
}

/* The buffer is the program's again: the storage's end releases nothing. */
static void disarm(quarry_storage *s)
{
	if (s == NULL || s->buffer == 0)
		return;
	leave(s->base, (uint32_t)(uintptr_t)s->ctx, (uint32_t)((uintptr_t)s->ctx >> 32), s->buffer);
	s->buffer = 0;
}

static int append(quarry_chain *chain, quarry_buffer b)
{
	quarry_storage *s;
	void *begin = b.p;
	int result;

	if (quarry_buffer_check(b) == NULL)
		return -1;
	if (quarry_buffer_kind(b) & QUARRY_BUFFER_BORROWED)
		return quarry_chain_append_borrowed(chain, b.p, b.len);
	if (b.flags & QUARRY_BUFFER_OWNED)
		begin = qy_owned_begin(b.p, b.id);
	if ((b.flags & QUARRY_BUFFER_OWNED) && qy_count_is_held(begin))
		return qy_fail(EBUSY, "buffer: what is at %p is a block with references", begin);
	if (!enter(b))
		return qy_fail(EALREADY, "buffer: a chain has it");
	s = quarry_storage_wrap(begin, (size_t)((char *)b.p - (char *)begin) + b.len, NULL, (void *)((uintptr_t)b.generation << 32 | b.id), 0);
	if (s == NULL) {
		leave(begin, b.id, b.generation, b.flags);
		return -1;
	}
	s->buffer = b.flags;
	result = quarry_chain_append(chain, s, b.p, b.len);
	if (result != 0)
		disarm(s);
	quarry_storage_unref(s);
	return result;
}

QUARRY_API int quarry_chain_append_buffer(quarry_chain *chain, quarry_buffer buffer)
{
	if (chain == NULL)
		return qy_chain_fail_null();
	return buffer.len == 0 ? quarry_buffer_release(buffer) : append(chain, buffer);
}

QUARRY_API int quarry_chain_from_buffers(quarry_chain *chain, const quarry_buffer *buffers, size_t n)
{
	quarry_chain made = { .first = NULL };
	int error;

	if (chain == NULL || (buffers == NULL && n > 0))
		return qy_chain_fail_null();
	for (size_t i = 0; i < n; i++)
		if (buffers[i].len == 0 ? quarry_buffer_check(buffers[i]) == NULL : append(&made, buffers[i]) != 0)
			goto failed;
	if (quarry_chain_append_chain(chain, &made) != 0)
		goto failed;
	for (size_t i = 0; i < n; i++)
		if (buffers[i].len == 0)
			(void)quarry_buffer_release(buffers[i]);
	return 0;
failed:
	error = errno;
	for (quarry_cseg *seg = made.first; seg != NULL; seg = seg->next)
		disarm(seg->storage);
	quarry_chain_free(&made);
	errno = error;
	return -1;
}

/* The chain's reference, which no handle names, is why the address is still the block's. */
static void unref(void *ctx, void *p, size_t n)
{
	(void)ctx;
	(void)n;
	(void)quarry_unref(p);
}

QUARRY_API int quarry_chain_append_block(quarry_chain *chain, const quarry_block *block, size_t at, size_t n)
{
	quarry_storage *s;
	int result, error;

	if (chain == NULL || block == NULL)
		return qy_chain_fail_null();
	if (at > block->n || n > block->n - at)
		return qy_fail(ERANGE, "n: %lu bytes from %lu on are more than the block has", (unsigned long)n,
			       (unsigned long)at);
	if (quarry_block_ref(block) != 0)
		return -1;
	s = n == 0 ? NULL : quarry_storage_wrap(block->p, block->n, unref, NULL, 0);
	if (s == NULL) {
		error = errno;
		(void)quarry_unref(block->p);
		errno = error;
		return n == 0 ? 0 : -1;
	}
	result = quarry_chain_append(chain, s, (char *)block->p + at, n);
	error = errno;
	quarry_storage_unref(s);
	errno = error;
	return result;
}
