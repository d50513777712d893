/* SPDX-License-Identifier: MIT */
/* Slabs of buffers: made, asked about, ended. */
#include "lib/object/buffers.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "lib/api/error.h"
#include "lib/base/lock.h"
#include "lib/base/tables.h"
#include "lib/cache/taken.h"
#include "lib/object/own.h"

#define HUGE_PAGE ((size_t)1 << 21)
#define BASE_PAGE ((size_t)1 << 12)
#define TOTAL_MAX ((uint64_t)1 << 40)
#define AWAKE 1000

_Atomic(struct qy_buffers *) qy_buffers_table[QUARRY_BUFFERS_MAX];
struct qy_buffers qy_buffers_all[QUARRY_BUFFERS_MAX]; /* address space until it is used */
QY_SPARSE_TABLE(qy_buffers_all);
_Atomic(uint32_t) qy_buffers_numbers;
static _Atomic(uint32_t) slabs_made;
__thread uint64_t qy_buffers_thread;

struct qy_buffers *qy_buffers_slab(const quarry_buffers *slab, bool mine)
{
	/* Looked for in the table, so that nothing is read of what may be no slab any more. */
	for (unsigned i = 0; slab != NULL && i < QUARRY_BUFFERS_MAX; i++) {
		struct qy_buffers *s = atomic_load_explicit(&qy_buffers_table[i], memory_order_acquire);

		if (s == NULL || &s->head != slab)
			continue;
		if (!mine || qy_buffers_mine(s))
			return s;
		qy_fail(EPERM, "slab: another thread owns it (quarry_buffers_own)");
		return NULL;
	}
	qy_fail(EINVAL, "slab: there is none at %p", (const void *)slab);
	return NULL;
}

void *qy_buffers_zeroed(size_t bytes)
{
	void *p = qy_own_aligned(QY_CACHE_LINE, qy_align_up(bytes, QY_CACHE_LINE));

	if (p != NULL)
		memset(p, 0, bytes);
	return p;
}

/* ---- made ---- */

static bool check(const quarry_buffers_attr *attr)
{
	const uint32_t flags = QUARRY_BUFFERS_POPULATE | QUARRY_BUFFERS_STRICT | QUARRY_BUFFERS_CHECKED;

	if (attr == NULL || attr->struct_size != sizeof(*attr))
		qy_fail(EINVAL, "struct_size: it is not the size of a quarry_buffers_attr");
	else if (attr->flags & ~flags)
		qy_fail(EINVAL, "flags: unknown bits in 0x%x", (unsigned)attr->flags);
	else if (attr->size == 0 || attr->size > QY_CHUNK_MAX)
		qy_fail(EINVAL, "size: %lu bytes are not within 1 and 1 GiB", (unsigned long)attr->size);
	else if (attr->alignment != 0 && (!qy_is_pow2(attr->alignment) || attr->alignment < QY_CACHE_LINE ||
					  attr->alignment > HUGE_PAGE))
		qy_fail(EINVAL, "alignment: %u is no power of two of 64 to 2 MiB", (unsigned)attr->alignment);
	else if (attr->count == 0 || attr->count == UINT32_MAX)
		qy_fail(EINVAL, "count: %u is none", (unsigned)attr->count);
	else if (attr->low_water >= attr->count)
		qy_fail(EINVAL, "low_water: of %u buffers there are never more than %u", (unsigned)attr->count,
			(unsigned)attr->low_water);
	else if (attr->on_node > 1)
		qy_fail(EINVAL, "on_node: %u is neither 0 nor 1", (unsigned)attr->on_node);
	else if (qy_align_up(attr->size, attr->alignment ? attr->alignment : QY_CACHE_LINE) > TOTAL_MAX / attr->count)
		qy_fail(EINVAL, "count: %u buffers are more than 1 TiB", (unsigned)attr->count);
	else if (attr->page_kind < QUARRY_PAGES_AUTO || attr->page_kind > QUARRY_PAGES_1G)
		qy_fail(EINVAL, "page_kind: %d is none", (int)attr->page_kind);
	else
		return true;
	return false;
}

static quarry_arena *make_arena(const quarry_buffers_attr *attr, uint64_t total)
{
	quarry_arena_attr a = { .struct_size = sizeof(a), .page_kind = attr->page_kind, .name = "buffers" };

	if (attr->page_kind == QUARRY_PAGES_AUTO && total >= HUGE_PAGE)
		a.page_kind = QUARRY_PAGES_THP;
	if (attr->flags & QUARRY_BUFFERS_STRICT)
		a.flags |= QUARRY_ARENA_STRICT;
	if (attr->flags & QUARRY_BUFFERS_POPULATE)
		a.flags |= QUARRY_ARENA_POPULATE;
	if (attr->on_node) {
		if (attr->node < 0 || attr->node >= QUARRY_NODES_MAX) {
			qy_fail(EINVAL, "node: there is no node %d", (int)attr->node);
			return NULL;
		}
		a.policy = attr->flags & QUARRY_BUFFERS_STRICT ? QUARRY_POLICY_BIND : QUARRY_POLICY_PREFERRED;
		quarry_nodeset_add(&a.nodes, (unsigned)attr->node);
	}
	return quarry_arena_create(&a);
}

/* Ends what was begun, and lets the number go. */
static void forget(struct qy_buffers *s)
{
	quarry_free(s->stack);
	quarry_free((void *)s->generation);
	quarry_free((void *)s->returned);
	quarry_free(s->ring.has);
	quarry_free(s->ring.of);
	quarry_free(s->ring.pieces);
	quarry_free(s->ring.next);
	quarry_free((void *)s->since);
	quarry_free((void *)s->pins);
	quarry_free((void *)s->pinned_since);
	quarry_free((void *)s->chained);
	memset(s, 0, offsetof(struct qy_buffers, waits));
	atomic_store_explicit(&s->taken, 0, memory_order_release);
}

/* What stands beside the buffers, not in their arena: that has huge pages, and few bytes would cost a whole one. */
static bool make_beside(struct qy_buffers *s, const quarry_buffers_attr *attr)
{
	const uint32_t count = attr->count;
	const size_t words = ((size_t)count + 63) / 64;

	/* The stack is written to as it grows, so that it costs nothing before. */
	s->stack = qy_own_calloc(count, sizeof(*s->stack));
	s->generation = qy_own_calloc(count, sizeof(*s->generation));
	s->returned = qy_buffers_zeroed(words * sizeof(*s->returned));
	if (attr->held_ms != 0)
		s->since = qy_own_calloc(count, sizeof(*s->since));
	if (attr->pins_max != 0) {
		s->pins = qy_own_calloc(count, sizeof(*s->pins));
		s->pinned_since = qy_own_calloc(count, sizeof(*s->pinned_since));
	}
	if (attr->flags & QUARRY_BUFFERS_CHECKED)
		s->chained = qy_own_calloc(count, sizeof(*s->chained));
	if ((attr->held_ms != 0 && s->since == NULL) || (attr->pins_max != 0 && (s->pins == NULL || s->pinned_since == NULL)) ||
	    ((attr->flags & QUARRY_BUFFERS_CHECKED) && s->chained == NULL))
		return false;
	while (words > (size_t)QY_ABOVE * 64 << s->group)
		s->group++;
	return s->stack != NULL && s->generation != NULL && s->returned != NULL;
}

/* A number, and the struct that is its own. */
static struct qy_buffers *take_number(void)
{
	for (unsigned i = 0; i < QUARRY_BUFFERS_MAX; i++) {
		struct qy_buffers *s = &qy_buffers_all[i];

		if (atomic_load_explicit(&s->taken, memory_order_relaxed) == 0 &&
		    atomic_exchange_explicit(&s->taken, 1, memory_order_acquire) == 0) {
			uint32_t numbers = atomic_load_explicit(&qy_buffers_numbers, memory_order_relaxed);

			while (numbers <= i && !atomic_compare_exchange_weak(&qy_buffers_numbers, &numbers, i + 1))
				;
			s->number = (uint16_t)i;
			return s;
		}
	}
	qy_fail(EAGAIN, "there are %d slabs of buffers already", QUARRY_BUFFERS_MAX);
	return NULL;
}

static void make_own(struct qy_buffers *s)
{
	static _Atomic(uint64_t) threads;

	if (qy_buffers_thread == 0)
		qy_buffers_thread = atomic_fetch_add_explicit(&threads, 1, memory_order_relaxed) + 1;
	atomic_store_explicit(&s->owner, qy_buffers_thread, memory_order_relaxed);
}

static void fill(struct qy_buffers *s, const quarry_buffers_attr *attr, uint64_t size)
{
	s->head.size = size;
	s->head.count = attr->count;
	s->head.shift = qy_is_pow2(size) ? (uint8_t)qy_log2_floor(size) : 0;
	s->total = size * attr->count;
	s->chunk = qy_min(s->total, QY_CHUNK_MAX / size * size);
	s->last_waiter = &s->first_waiter;
	s->low_water = attr->low != NULL ? attr->low_water : 0;
	s->low = attr->low;
	s->held_ms = attr->held_ms;
	s->pins_max = attr->pins_max;
	s->get_more = s->low_water != 0 || s->since != NULL || s->pins != NULL;
	s->tag = (uint32_t)s->number << 16 | (s->pins != NULL ? QUARRY_BUFFER_COUNTED : 0);
	s->wake = attr->wake;
	s->ctx = attr->ctx;
	s->checked = attr->flags & QUARRY_BUFFERS_CHECKED;
	qy_buffers_mode(s);
	/* Even, and far from that of the slabs before: by the golden ratio. */
	s->seed = (atomic_fetch_add_explicit(&slabs_made, 1, memory_order_relaxed) + 1) * 2654435770u & ~1u;
	make_own(s);
}

QUARRY_API quarry_buffers *quarry_buffers_create(const quarry_buffers_attr *attr)
{
	size_t size, alignment;
	struct qy_buffers *s;
	void *base;

	if (!check(attr))
		return NULL;
	alignment = attr->alignment != 0 ? attr->alignment : QY_CACHE_LINE;
	size = qy_align_up(attr->size, alignment);
	if (!qy_buffers_mind_forks()) {
		qy_fail(ENOMEM, "no memory for what forked children are to do (pthread_atfork)");
		return NULL;
	}
	s = take_number();
	if (s == NULL)
		return NULL;
	if (!make_beside(s, attr)) {
		forget(s);
		qy_fail(ENOMEM, "no memory for a slab of %u buffers", (unsigned)attr->count);
		return NULL;
	}
	fill(s, attr, size);
	s->arena = make_arena(attr, s->total);
	if (s->arena == NULL) {
		forget(s);
		return NULL;
	}
	alignment = qy_max(alignment, s->total >= HUGE_PAGE ? HUGE_PAGE : BASE_PAGE);
	base = qy_arena_alloc_held(s->arena, qy_align_up(s->total, BASE_PAGE), alignment, false);
	if (base == NULL || !qy_taken_add(base)) {
		(void)qy_arena_end_with(s->arena, &base, 1);
		forget(s);
		qy_fail(ENOMEM, "no memory, no address space (ulimit -v, vm.overcommit_memory), or a hard limit, "
			"for %u buffers of %lu bytes",
			(unsigned)attr->count, (unsigned long)size);
		return NULL;
	}
	s->head.base = base;
	atomic_store_explicit(&qy_buffers_table[s->number], s, memory_order_release);
	return &s->head;
}

/* (Awake for a moment, since most are through by then; then by sleeping, so that one who is not to run before us is. They
 * wake nobody.) */
void qy_buffers_await(_Atomic(uint32_t) *who)
{
	uint32_t n;

	for (unsigned round = 0; (n = atomic_load_explicit(who, memory_order_seq_cst)) != 0; round++) {
		if (round < AWAKE)
			qy_spin();
		else
			qy_sleep_on(who, n, 1);
	}
}

/* Whoever returned a buffer and is about to call `wake`, or is in it, is waited for; who comes later finds that nobody
 * waits. */
static void let_callers_go(struct qy_buffers *s)
{
	atomic_store_explicit(&s->waits, 0, memory_order_seq_cst);
	qy_buffers_await(&s->callers);
}

QUARRY_API int quarry_buffers_destroy(quarry_buffers *slab)
{
	struct qy_buffers *s;
	void *base;

	if (slab == NULL)
		return 0;
	s = qy_buffers_slab(slab, true);
	if (s == NULL)
		return -1;
	if (s->serving)
		return qy_fail(EBUSY, "slab: who waits for a buffer is being called");
	qy_buffers_collect(s);
	if (s->ring.entry != NULL || s->fixed.held != 0 || s->fixed.pending != 0)
		return qy_fail(EBUSY, "slab: the kernel has it registered");
	/* (And nobody waits, where none is out.) */
	if (qy_buffers_free(s) != s->head.count)
		return qy_fail(EBUSY, "slab: %u of its buffers are out",
			       (unsigned)(s->head.count - qy_buffers_free(s)));
	let_callers_go(s);
	qy_publish(s->ending, true);
	base = s->head.base;
	if (qy_own_end(s->arena, &base, 1) != 0) {
		qy_publish(s->ending, false);
		return -1;
	}
	atomic_store_explicit(&qy_buffers_table[s->number], NULL, memory_order_release);
	forget(s);
	return 0;
}

QUARRY_API int quarry_buffers_own(quarry_buffers *slab)
{
	struct qy_buffers *s = qy_buffers_slab(slab, false);

	if (s == NULL)
		return -1;
	make_own(s);
	return 0;
}

/* ---- asked ---- */

QUARRY_API int quarry_buffers_stats_get(quarry_buffers *slab, quarry_buffers_stats *stats)
{
	struct qy_buffers *s = qy_buffers_slab(slab, false);
	uint32_t stacked, fresh;

	if (s == NULL)
		return -1;
	if (stats == NULL || stats->struct_size != sizeof(*stats))
		return qy_fail(EINVAL, "struct_size: it is not the size of a quarry_buffers_stats");
	stacked = qy_peek(s->stacked);
	fresh = qy_peek(s->fresh);
	*stats = (quarry_buffers_stats){ .struct_size = sizeof(*stats), .count = s->head.count,
		.free = stacked + (s->head.count - fresh), .in_ring = qy_peek(s->ring.held),
		.waiting = qy_peek(s->waiting), .incremental = qy_peek(s->ring.incremental),
		.fixed = qy_peek(s->fixed.held) != 0, .gets = qy_read(&s->gets), .puts = qy_read(&s->puts),
		.returns = qy_read(&s->returns), .batches = qy_read(&s->batches), .refused = qy_read(&s->refused),
		.starved = qy_read(&s->starved), .served = qy_read(&s->served), .low = qy_read(&s->lows),
		.late = atomic_load_explicit(&s->late, memory_order_relaxed),
		.moved = atomic_load_explicit(&s->moved, memory_order_relaxed),
		.copied = atomic_load_explicit(&s->copied, memory_order_relaxed),
		.published = qy_read(&s->published), .tails = qy_read(&s->tails) };
	if (stats->free + stats->in_ring <= stats->count)
		stats->out = stats->count - stats->free - stats->in_ring;
	return 0;
}

QUARRY_API size_t quarry_buffers_iovecs(const quarry_buffers *slab, struct iovec *list, size_t max)
{
	struct qy_buffers *s = qy_buffers_slab(slab, false);
	size_t n = 0;

	if (s == NULL)
		return 0;
	for (uint64_t at = 0; at < s->total; at += s->chunk, n++)
		if (n < max && list != NULL)
			list[n] = (struct iovec){ s->head.base + at, qy_min(s->chunk, s->total - at) };
	return n;
}
