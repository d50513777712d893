/* SPDX-License-Identifier: MIT */
/* What every layer may use: attributes, assertions, arithmetic, intrusive lists. No state. */
#ifndef QUARRY_BASE_H
#define QUARRY_BASE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QY_LIKELY(x) __builtin_expect(!!(x), 1)
#define QY_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define QY_COLD __attribute__((noinline, cold))
#define QY_NOINLINE __attribute__((noinline))
/* What runs once as the library is loaded stands side by side, so that nothing else is read from the file for it: pages of
 * code come 16 at a time. */
#define QY_STARTUP __attribute__((noinline, section(".text.startup")))
#define QY_INLINE static inline __attribute__((always_inline))
/* On declarations of variables that fast paths read: without it, each is reached through an address in a register. */
#define QY_HIDDEN __attribute__((visibility("hidden")))
#define QY_CACHE_LINE 64

/* Three tiers of assertion. qy_check: always on, for slow paths, where going on would corrupt memory.
 * qy_assert: with --enable-debug. qy_assert_deep: walks structures; with --enable-debug=deep. All of them compile. */
#ifndef QY_DEBUG
#define QY_DEBUG 0
#endif
void qy_assert_failed(const char *what, const char *file, int line) __attribute__((noreturn, cold));
#define qy_check(x) ((void)(QY_LIKELY(x) || (qy_assert_failed(#x, __FILE__, __LINE__), 0)))
#define qy_assert(x) ((void)(QY_DEBUG < 1 || QY_LIKELY(x) || (qy_assert_failed(#x, __FILE__, __LINE__), 0)))
#define qy_assert_deep(x) ((void)(QY_DEBUG < 2 || (x) || (qy_assert_failed(#x, __FILE__, __LINE__), 0)))

/* Have a line come that is about to be written to; p may be anything. Without the instruction for it the line comes for
 * reading, and those who share it are asked a second time at the first write. (Compilers emit it only where they are
 * told that the processor has it. Intel's have it since Broadwell, and do nothing before, as far as is known of all but
 * the first with 64 bits, of 2004.) */
QY_INLINE void qy_prefetch_write(const void *p)
{
#if defined(__x86_64__)
	__asm__ volatile("prefetchw (%0)" : : "r"(p));
#else
	__builtin_prefetch(p, 1);
#endif
}

QY_INLINE size_t qy_align_up(size_t n, size_t to)
{
	return (n + to - 1) & ~(to - 1);
}

QY_INLINE size_t qy_align_down(size_t n, size_t to)
{
	return n & ~(to - 1);
}

QY_INLINE bool qy_is_pow2(size_t n)
{
	return n != 0 && (n & (n - 1)) == 0;
}

QY_INLINE unsigned qy_log2_floor(size_t n)
{
	return 63u - (unsigned)__builtin_clzll((unsigned long long)n);
}

QY_INLINE size_t qy_min(size_t a, size_t b)
{
	return a < b ? a : b;
}

QY_INLINE size_t qy_max(size_t a, size_t b)
{
	return a > b ? a : b;
}

/* An intrusive doubly linked list with a head that is itself a link; empty when it points to itself. */
struct qy_link {
	struct qy_link *next, *prev;
};

#define qy_container(ptr, type, member) ((type *)(void *)((char *)(ptr) - offsetof(type, member)))

QY_INLINE void qy_list_init(struct qy_link *head)
{
	head->next = head->prev = head;
}

QY_INLINE bool qy_list_empty(const struct qy_link *head)
{
	return head->next == head;
}

QY_INLINE void qy_list_insert_after(struct qy_link *at, struct qy_link *item)
{
	item->next = at->next;
	item->prev = at;
	at->next->prev = item;
	at->next = item;
}

QY_INLINE void qy_list_push_front(struct qy_link *head, struct qy_link *item)
{
	qy_list_insert_after(head, item);
}

QY_INLINE void qy_list_push_back(struct qy_link *head, struct qy_link *item)
{
	qy_list_insert_after(head->prev, item);
}

QY_INLINE void qy_list_remove(struct qy_link *item)
{
	item->prev->next = item->next;
	item->next->prev = item->prev;
	item->next = item->prev = item;
}

/* A field that its owner writes and others may look at: the owner's writes must not tear, its own reads may be
 * plain. */
#define qy_publish(field, value) __atomic_store_n(&(field), (value), __ATOMIC_RELAXED)
#define qy_peek(field) __atomic_load_n(&(field), __ATOMIC_RELAXED)

/* field -= 1 by the only thread that writes it, others looking on; true when it became 0. A relaxed load and a relaxed
 * store: on x86 that is one instruction, which no compiler makes of the two. */
QY_INLINE bool qy_count_down(uint32_t *field)
{
#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
	bool zero;

	__asm__("subl $1, %0" : "+m"(*field), "=@ccz"(zero));
	return zero;
#else
	uint32_t n = qy_peek(*field) - 1;

	qy_publish(*field, n);
	return n == 0;
#endif
}

/* Counters that one thread writes and any thread reads: no read-modify-write, no tearing. */
typedef _Atomic(uint64_t) qy_counter;

QY_INLINE void qy_count(qy_counter *c, uint64_t n)
{
	atomic_store_explicit(c, atomic_load_explicit(c, memory_order_relaxed) + n, memory_order_relaxed);
}

QY_INLINE void qy_uncount(qy_counter *c, uint64_t n)
{
	atomic_store_explicit(c, atomic_load_explicit(c, memory_order_relaxed) - n, memory_order_relaxed);
}

QY_INLINE uint64_t qy_read(qy_counter *c)
{
	return atomic_load_explicit(c, memory_order_relaxed);
}

/* Counters that any thread may add to. */
QY_INLINE void qy_count_shared(qy_counter *c, uint64_t n)
{
	atomic_fetch_add_explicit(c, n, memory_order_relaxed);
}

/* What was counted here is counted there from now on. Who reads `to` before `from` never has it twice. */
QY_INLINE void qy_hand_over(qy_counter *to, qy_counter *from)
{
	uint64_t n = qy_read(from);

	atomic_store_explicit(from, 0, memory_order_relaxed);
	atomic_fetch_add_explicit(to, n, memory_order_release);
}

/* How much of a processor tidying may take, in percent, for so much that is wasted: from `least` at `start` percent of waste to
 * `most` at `full`. */
QY_INLINE uint64_t qy_share_for(uint64_t waste, uint64_t start, uint64_t full, uint64_t least, uint64_t most)
{
	if (waste <= start)
		return least;
	return waste >= full ? most : least + (waste - start) * (most - least) / (full - start);
}

/* Times of 32 bits, in milliseconds, come again after 49 days. What seems to be ahead by no more than hours is ahead
 * (it was written since `now` was read, or is yet to come); all else is past. */
#define QY_AHEAD_MS ((uint32_t)1 << 24)

QY_INLINE bool qy_ms_is_past(uint32_t now, uint32_t then)
{
	return now - then <= UINT32_MAX - QY_AHEAD_MS;
}

/* How long ago it was; 0 where it is ahead. */
QY_INLINE uint32_t qy_ms_since(uint32_t now, uint32_t then)
{
	return qy_ms_is_past(now, then) ? now - then : 0;
}

#endif
