/* SPDX-License-Identifier: MIT */
/* Optimistic reads. (include/quarry/lanes.h has the rules.)
 *
 * What the word leads to is read in a scope: its memory may be freed meanwhile, and then even its addresses go back to the kernel
 * when nobody is in one. The scope says that the memory stays, and not whose it is; the rest is by looking twice.
 *
 * A reader loads a counter of writers, the epoch and the word, reads, and loads them again. The word has changed when
 * the object was moved, cooled or freed. Where it is what it was, the object may still have been away and come back to its old
 * place, or the place may have been another's; but a place that was given up is used again when the scopes of then are over,
 * and nobody knows that they are but by an epoch that was begun since (lanes.h). So where the epoch is the same as well, no
 * byte there was anybody else's.
 *
 * The counters are few: two objects that share one make each other's reads fail, no more. A writer is counted before it
 * writes. (A move that copies what is being written is one that the writer has stopped, and nobody sees the copy.) */
#include <errno.h>
#include <string.h>

#include "lib/api/error.h"
#include "lib/lanes/object.h"

#define TRIES 16
#define WRITER ((uint64_t)1)
#define WRITTEN ((uint64_t)1 << 16)

_Static_assert(sizeof(_Atomic(uint64_t)) == sizeof(uint64_t) && QUARRY_OPT_WRITING + 1 == WRITTEN, "as the header has it");

static _Atomic(uint64_t) *counter_of(quarry_lanes *l, quarry_handle h)
{
	return &l->writes[qy_slot_of(h) % QUARRY_OPT_COUNTERS];
}

/* The object is looked at by its word alone: outside of scopes nothing else of it may be. */
int quarry_opt_begin_slow(quarry_lanes *l, quarry_handle h, quarry_look *look)
{
	qy_word *at;
	uint64_t word, states;

	if (!qy_lanes_check(l))
		return -1;
	if (look == NULL)
		return qy_fail(EINVAL, "look: NULL");
	if (!qy_is_ours(l, h)) {
		look->word = 0;
		return qy_fail_handle(l, h);
	}
	at = &l->word[qy_slot_of(h)];
	look->slot = qy_slot_of(h);
	look->writes = atomic_load_explicit(counter_of(l, h), memory_order_acquire);
	look->epoch = atomic_load_explicit(&qy_epoch, memory_order_acquire);
	word = atomic_load_explicit(at, memory_order_acquire);
	while ((states = (word ^ h << 16) & QY_WORD_STATES) == 0 && (word & QUARRY_WORD_UNSEEN))
		if (atomic_compare_exchange_weak(at, &word, word & ~QUARRY_WORD_PASSING)) /* (both: quarry_get_slow) */
			word &= ~QUARRY_WORD_PASSING;
	look->word = word;
	look->at = qy_word_address(word);
	if (states == 0 && (look->writes & QUARRY_OPT_WRITING) == 0)
		return 0;
	if (states != 0 && states != QUARRY_WORD_COLD)
		return qy_fail_handle(l, h);
	return states != 0 ? qy_fail_cold(l, h) : qy_fail_ready(EAGAIN, QY_ERROR_WRITTEN);
}

/* No checker is told. */
__attribute__((no_sanitize("thread", "address"))) void quarry_opt_copy(void *to, const void *from, size_t size)
{
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__) /* whose memcpy looks at what is copied */
	volatile unsigned char *t = to;
	const volatile unsigned char *f = from;

	for (size_t i = 0; i < size; i++)
		t[i] = f[i];
#else
	memcpy(to, from, size);
#endif
}

/* In a scope. */
QY_INLINE int read_some_time(quarry_lanes *l, quarry_handle h, size_t offset, void *to, size_t size)
{
	quarry_look look;

	for (int i = 0; i < TRIES; i++) {
		if (quarry_opt_begin(l, h, &look) != 0) {
			if (errno != EAGAIN || (look.word & QUARRY_WORD_COLD))
				return -1;
			continue;
		}
		quarry_opt_copy(to, (const char *)look.at + offset, size);
		if (quarry_opt_end(l, &look))
			return 0;
	}
	return qy_fail(EAGAIN, "it was written to or moved each time");
}

int quarry_opt_read(quarry_lanes *l, quarry_handle h, size_t offset, void *to, size_t size)
{
	struct qy_lanes_record *r = qy_lanes_record;
	bool outermost;
	int result;

	if (!qy_lanes_check(l))
		return -1;
	if (QY_UNLIKELY(r == NULL)) {
		quarry_enter();
		result = read_some_time(l, h, offset, to, size);
		quarry_leave();
		return result;
	}
	outermost = qy_scope_begin(r);
	result = read_some_time(l, h, offset, to, size);
	qy_scope_end(r, outermost);
	return result;
}

void *quarry_write_begin(quarry_lanes *l, quarry_handle h)
{
	uint64_t word;

	if (!qy_lanes_check(l))
		return NULL;
	word = qy_settle_word(l, h);
	if (word == 0)
		return NULL;
	atomic_fetch_add(counter_of(l, h), WRITER);
	atomic_thread_fence(memory_order_release); /* no byte is written before who reads it could know of it */
	return qy_word_address(word);
}

void quarry_write_end(quarry_lanes *l, quarry_handle h)
{
	if (qy_lanes_check(l))
		atomic_fetch_add_explicit(counter_of(l, h), WRITTEN - WRITER, memory_order_release);
}

void qy_opt_in_child(quarry_lanes *l)
{
	for (unsigned i = 0; i < QUARRY_OPT_COUNTERS; i++)
		atomic_store(&l->writes[i], (atomic_load(&l->writes[i]) & ~QUARRY_OPT_WRITING) + WRITTEN);
}
