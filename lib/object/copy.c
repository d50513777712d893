/* SPDX-License-Identifier: MIT */
#include "lib/object/copy.h"

#include <errno.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "include/quarry/chain.h"
#include "lib/api/error.h"
#include "lib/object/chain.h"

#define LINE ((size_t)QY_CACHE_LINE)

_Atomic(size_t) qy_copy_stream_min = QUARRY_COPY_STREAM_MIN;
_Atomic(uint64_t) qy_copy_streamed;

QUARRY_API size_t quarry_copy_set_stream_min(size_t n)
{
	return atomic_exchange_explicit(&qy_copy_stream_min, n == 0 ? SIZE_MAX : n, memory_order_relaxed);
}

QUARRY_API size_t quarry_copy_stream_min(void)
{
	return atomic_load_explicit(&qy_copy_stream_min, memory_order_relaxed);
}

#ifdef __SSE2__
/* n bytes, a multiple of a line, to where a line begins. Of the processor's own kind of order: nobody else may see it
 * later than what is written after it, so that a fence ends it. */
static void stream(unsigned char *to, const unsigned char *from, size_t n)
{
	for (size_t i = 0; i < n; i += LINE) {
		const __m128i *f = (const void *)(from + i);
		__m128i *t = (void *)(to + i);
		__m128i a = _mm_loadu_si128(f), b = _mm_loadu_si128(f + 1);
		__m128i c = _mm_loadu_si128(f + 2), d = _mm_loadu_si128(f + 3);

		_mm_stream_si128(t, a);
		_mm_stream_si128(t + 1, b);
		_mm_stream_si128(t + 2, c);
		_mm_stream_si128(t + 3, d);
	}
	_mm_sfence();
}
#else
/* (The C library knows other processors.) */
static void stream(unsigned char *to, const unsigned char *from, size_t n)
{
	memcpy(to, from, n);
}
#endif

QY_NOINLINE void qy_copy_past_caches(void *dst, const void *src, size_t n)
{
	unsigned char *to = dst;
	const unsigned char *from = src;
	size_t head = qy_min((size_t)-(uintptr_t)to & (LINE - 1), n), lines = (n - head) & ~(LINE - 1);

	if ((uintptr_t)to - (uintptr_t)from < n || (uintptr_t)from - (uintptr_t)to < n) {
		memmove(to, from, n);
		return;
	}
	atomic_fetch_add_explicit(&qy_copy_streamed, 1, memory_order_relaxed);
	memcpy(to, from, head);
	if (lines > 0)
		stream(to + head, from + head, lines);
	memcpy(to + head + lines, from + head + lines, n - head - lines);
}

QUARRY_API int64_t quarry_copy_bufs(void *dst, size_t room, const quarry_chain_buf *bufs, size_t n)
{
	unsigned char *to = dst;
	size_t sum = 0;

	if (bufs == NULL && n > 0)
		return qy_chain_fail_null();
	room = qy_min(room, (size_t)QY_CHAIN_TOP);
	for (size_t i = 0; i < n; i++) {
		if (bufs[i].n > room - sum)
			return qy_fail(ERANGE, "room: %lu bytes are less than the buffers have", (unsigned long)room);
		if (bufs[i].n > 0 && (bufs[i].p == NULL || dst == NULL))
			return qy_chain_fail_null();
		sum += bufs[i].n;
	}
	for (size_t i = 0; i < n; i++) {
		if (bufs[i].n > 0)
			qy_copy(to, bufs[i].p, bufs[i].n);
		to += bufs[i].n;
	}
	return (int64_t)sum;
}

/* ---- vectors ---- */

/* How many bytes vectors have, no more than room; -1, and the error is set. */
static int64_t length_of(quarry_seg s, const struct iovec *iov, size_t n)
{
	size_t sum = 0, room = qy_min(s.n, (size_t)QY_CHAIN_TOP);

	if (iov == NULL && n > 0)
		return qy_chain_fail_null();
	for (size_t i = 0; i < n; i++) {
		if (iov[i].iov_len > room - sum)
			return qy_fail(ERANGE, "iov: %lu bytes are less than the vectors have", (unsigned long)room);
		if (iov[i].iov_len > 0 && (iov[i].iov_base == NULL || s.p == NULL))
			return qy_chain_fail_null();
		sum += iov[i].iov_len;
	}
	return (int64_t)sum;
}

QUARRY_API int64_t quarry_marshal(quarry_seg dst, const struct iovec *iov, size_t n)
{
	int64_t sum = length_of(dst, iov, n);
	unsigned char *to = dst.p;

	for (size_t i = 0; sum > 0 && i < n; i++) {
		if (iov[i].iov_len > 0)
			qy_copy(to, iov[i].iov_base, iov[i].iov_len);
		to += iov[i].iov_len;
	}
	return sum;
}

QUARRY_API int64_t quarry_unmarshal(quarry_seg src, const struct iovec *iov, size_t n)
{
	int64_t sum = length_of(src, iov, n);
	const unsigned char *from = src.p;

	for (size_t i = 0; sum > 0 && i < n; i++) {
		if (iov[i].iov_len > 0)
			qy_copy(iov[i].iov_base, from, iov[i].iov_len);
		from += iov[i].iov_len;
	}
	return sum;
}
