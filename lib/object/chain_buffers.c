/* SPDX-License-Identifier: MIT */
/* Buffers and blocks as pieces of chains: they go back where they came from when the last chain lets go of them. */
#include <errno.h>

#include "lib/api/error.h"
#include "lib/object/chain.h"
#include "lib/object/storage.h"

/* The buffer is the program's again: the storage's end releases nothing. */
static void disarm(quarry_storage *s)
{
	if (s != NULL)
		s->buffer = 0;
}

static int append(quarry_chain *chain, quarry_buffer b)
{
	quarry_storage *s;
	int result;

	if (quarry_buffer_check(b) == NULL)
		return -1;
	if (quarry_buffer_kind(b) & QUARRY_BUFFER_BORROWED)
		return quarry_chain_append_borrowed(chain, b.p, b.len);
	s = quarry_storage_wrap(b.p, b.len, NULL, (void *)((uintptr_t)b.generation << 32 | b.id), 0);
	if (s == NULL)
		return -1;
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
