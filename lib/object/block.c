/* SPDX-License-Identifier: MIT */
/* Blocks: their references, counted in the words of count.h, by address and by handle. */
#include <errno.h>
#include <string.h>

#include "lib/api/error.h"
#include "lib/base/settings.h"
#include "lib/cache/taken.h"
#include "lib/manager/mistakes.h"
#include "lib/object/apart.h"
#include "lib/object/block.h"
#include "lib/object/count.h"
#include "lib/object/manager.h"
#include "lib/object/quarantine.h"
#include "numa/os.h"

#define TRIES 16 /* addresses in one call that may turn out to be used up */

static const quarry_block none;

/* ---- memory ---- */

void qy_block_give_back(const quarry_manager *manager, void *p)
{
	if (manager == NULL)
		quarry_free(p);
	else
		(void)manager->ops->free(manager->ctx, p);
}

size_t qy_block_usable(const quarry_manager *manager, const void *p)
{
	return manager == NULL ? quarry_usable_size(p) : manager->ops->usable(manager->ctx, p);
}

/* Of a node's arena. What is held back is no sample any more, and leaves its place in their table to one that lives. (What is
 * not live was freed behind its count, and is told as a mistake.) */
static void hold_back(void *p)
{
	bool is_apart = qy_apart_has(p);
	size_t usable = quarry_usable_size(p);

	if (is_apart)
		qy_apart_forget(p);
	if (usable != 0 && qy_quarantine_put(p, usable, is_apart))
		return;
	if (usable != 0)
		memset(p, QY_QUARANTINE_FILL, qy_min(usable, QY_QUARANTINE_BLOCK_MAX));
	quarry_free(p);
}

static void free_checked(const quarry_manager *manager, void *p, uint64_t life) QY_COLD;
static void free_checked(const quarry_manager *manager, void *p, uint64_t life)
{
	if (manager != NULL) {
		memset(p, QY_QUARANTINE_FILL, qy_min(qy_block_usable(manager, p), QY_QUARANTINE_BLOCK_MAX));
		qy_block_give_back(manager, p);
	} else if (life == QY_LIFE_NODES) {
		hold_back(p);
	} else {
		qy_arena_free_filled(p, life, QY_QUARANTINE_FILL, QY_QUARANTINE_BLOCK_MAX);
	}
}

/* An arena may be reset or end at this moment, or has since the block's end was marked, and all that was in it with it: what is
 * at p then is another's. So what is done with it goes by the life that was read before the mark, and p is not asked again. */
void qy_block_free(const quarry_manager *manager, void *p, uint64_t life)
{
	if (QY_UNLIKELY(qy_setting(checked) != 0)) {
		free_checked(manager, p, life);
		return;
	}
	if (QY_LIKELY(manager == NULL && life == QY_LIFE_NODES))
		quarry_free(p);
	else if (manager == NULL)
		qy_arena_free_in(p, life);
	else
		(void)manager->ops->free(manager->ctx, p);
	if (QY_UNLIKELY(atomic_load_explicit(&qy_quarantine_left, memory_order_relaxed)))
		qy_quarantine_retry();
}

/* ---- making ---- */

/* What words call the manager: NULL for all whose memory quarry_free frees, so that these share leaves. */
static const quarry_manager *called(const quarry_manager *manager)
{
	return qy_manager_is_own(manager) ? NULL : qy_stack_called(manager);
}

static void *take_plain(quarry_manager *manager, size_t alignment, size_t n)
{
	if (manager == NULL && alignment == 0)
		return quarry_malloc(n);
	return alignment == 0 ? quarry_manager_alloc(manager, n) : quarry_manager_alloc_aligned(manager, alignment, n);
}

/* Whole pages, of which nothing else has a part. NULL where there is no memory, or the thread's arena can end: its memory
 * may become others' with its pages closed. */
static void *take_apart(size_t alignment, size_t n)
{
	size_t page = qy_os_page_size();
	void *p = quarry_aligned_alloc(qy_max(alignment, page), qy_align_up(qy_max(n, 1), page));

	if (p != NULL && !qy_arena_is_nodes(p)) {
		quarry_free(p);
		return NULL;
	}
	if (p != NULL)
		qy_apart_note(p);
	qy_quarantine_recheck();
	return p;
}

static void *take_checked(quarry_manager *manager, size_t alignment, size_t n) QY_COLD;
static void *take_checked(quarry_manager *manager, size_t alignment, size_t n)
{
	bool is_default = manager == NULL || manager == quarry_manager_default();
	struct qy_quarantine_figures held;
	int error = errno;
	void *p = NULL;

	if (is_default && n <= QY_QUARANTINE_BLOCK_MAX && qy_apart_is_due())
		p = take_apart(alignment, n);
	if (p == NULL)
		p = take_plain(manager, alignment, n);
	if (p == NULL && errno == ENOMEM) {
		qy_quarantine_figures(&held);
		if (!is_default || n > held.bytes + held.closed_bytes)
			return NULL; /* (what is held is of no use to a manager at its own limit) */
		(void)qy_quarantine_check(true); /* nobody is refused for the sake of what is held back */
		p = take_plain(manager, alignment, n);
	}
	if (p != NULL)
		errno = error;
	return p;
}

static void *take_memory(quarry_manager *manager, size_t alignment, size_t n)
{
	return QY_UNLIKELY(qy_setting(checked) != 0) ? take_checked(manager, alignment, n)
						     : take_plain(manager, alignment, n);
}

/* A block is begun with its arena held, in the life that it had before the memory was asked for: in another the memory may be
 * somebody else's block by now. False: it is left to the arena. (What the breaker sent elsewhere is in another arena, and
 * counts from here on.) */
static bool begin_in_time(quarry_block *b, const quarry_manager *called, const quarry_arena *arena, uint64_t life)
{
	uint64_t now = qy_arena_life(b->p);
	void *held;
	int error;

	if (QY_UNLIKELY(now != life)) {
		if (now == QY_LIFE_OVER || quarry_arena_of(b->p) == arena)
			return false;
		life = now;
	}
	if (!qy_life_hold(b->p, life, &held))
		return false;
	b->count = qy_count_begin(b->p, qy_block_usable(called, b->p), called, &b->generation);
	error = errno;
	qy_life_let_go(held);
	errno = error;
	return true;
}

/* An address whose generations are used up keeps its memory, so that nobody gets it again as a block. */
quarry_block qy_block_make(quarry_manager *manager, size_t alignment, size_t n)
{
	quarry_block b = { .n = n };
	const quarry_arena *arena = manager == NULL ? NULL : qy_manager_arena(manager);
	uint64_t life = 0;
	int error = errno;

	for (int i = 0; i < TRIES; i++) {
		if (arena != NULL)
			life = qy_arena_life_now(arena);
		b.p = take_memory(manager, alignment, n);
		if (b.p == NULL)
			return none;
		if (arena == NULL)
			b.count = qy_count_begin(b.p, qy_block_usable(called(manager), b.p), called(manager), &b.generation);
		else if (QY_UNLIKELY(!begin_in_time(&b, called(manager), arena, life)))
			continue;
		if (QY_LIKELY(b.count != NULL))
			return b;
		qy_apart_forget(b.p);
		if (errno != ERANGE) {
			error = errno;
			qy_block_give_back(called(manager), b.p);
			qy_fail(error, error == EINVAL ? "manager: it gave memory that is not aligned to 16, or beyond 2^48"
						       : "no memory for the counts of blocks");
			return none;
		}
		errno = error;
	}
	errno = ENOMEM;
	return none;
}

QUARRY_API quarry_block quarry_block_alloc(quarry_manager *manager, size_t n)
{
	return qy_manager_check(manager) ? qy_block_make(manager, 0, n) : none;
}

QUARRY_API quarry_block quarry_block_alloc_aligned(quarry_manager *manager, size_t alignment, size_t n)
{
	if (!qy_is_pow2(alignment)) {
		qy_fail(EINVAL, "alignment: %zu is not a power of two", alignment);
		return none;
	}
	return qy_manager_check(manager) ? qy_block_make(manager, alignment, n) : none;
}

#define IS_A_BLOCK "p: what is at %p is a block"

QUARRY_API int quarry_share(void *p, quarry_block *b)
{
	quarry_block made = { .p = p, .n = quarry_usable_size(p) };
	struct qy_leaf *leaf;
	uint64_t word;

	if (made.n == 0 || !qy_manager_is_live(p))
		return qy_fail(EINVAL, "p: no live memory of quarry's begins at %p", p);
	if (qy_count_find(p, &leaf, &word) != NULL && (word & QY_COUNT_LIVE))
		return qy_fail(EALREADY, IS_A_BLOCK, p);
	made.count = qy_count_begin_once(p, made.n, &made.generation);
	if (made.count == NULL && errno == EALREADY)
		return qy_fail(EALREADY, IS_A_BLOCK, p);
	if (made.count == NULL)
		return qy_fail(errno == ERANGE ? ENOMEM : errno, "p: there is no count for what is at %p", p);
	if (b != NULL)
		*b = made;
	return 0;
}

/* ---- errors ---- */

/* In checked builds a late use is a mistake of the program's; else it may well be meant, to find out. */
int qy_block_fail_late(const void *p)
{
	if (qy_setting(checked) != 0)
		qy_mistake(QY_MISTAKE_DOUBLE_FREE, p);
	errno = ESTALE;
	return -1;
}

static int fail(int error) QY_COLD;
static int fail(int error)
{
	errno = error;
	return -1;
}

/* Who only asks whether there is a block is told, and may well ask as it ends. */
static int fail_gone(const quarry_block *b) QY_COLD;
static int fail_gone(const quarry_block *b)
{
	return fail(b == NULL || b->count == NULL ? EINVAL : ESTALE);
}

/* A block that is none was never one: that is no late use. */
static int fail_block(const quarry_block *b) QY_COLD;
static int fail_block(const quarry_block *b)
{
	return b == NULL || b->count == NULL ? fail(EINVAL) : qy_block_fail_late(b->p);
}

/* ---- by address ---- */

#define PLACE_MASK (QY_COUNT_LIVE | QY_COUNT_NOTED | QY_COUNT_GRAIN_MASK)

static uint64_t want_of(const void *p)
{
	return QY_COUNT_LIVE | qy_count_grain(p);
}

/* Whether the word is of a live block at this address that nobody has noted. (Of noted ones the slow paths know.) */
static bool is_of(uint64_t word, const void *p)
{
	return (word & PLACE_MASK) == want_of(p);
}

static bool is_generation(uint64_t word, uint32_t generation)
{
	return word >> (QY_COUNT_GENERATION_SHIFT - 1) == ((uint64_t)generation << 1 | 1);
}

#define LIFE_MASK (~(QY_COUNT_LIVE - 1))

static uint64_t want_life(uint32_t generation)
{
	return (uint64_t)generation << QY_COUNT_GENERATION_SHIFT | QY_COUNT_LIVE;
}

static bool has_room(uint64_t word)
{
	return (word & QY_COUNT_MASK) < QUARRY_REFS_MAX * QY_COUNT_ONE;
}

/* What was meant is not, or is noted or full, at the first leaf, whose word was counted up. (Slow paths are tail calls, so
 * that the others need no frame.) */
static int ref_slow(const void *p, struct quarry_count *wrong, uint64_t seen) QY_COLD;
static int ref_slow(const void *p, struct quarry_count *wrong, uint64_t seen)
{
	struct qy_leaf *leaf;
	struct quarry_count *c;
	uint64_t word;
	uint32_t generation;

	if (has_room(seen) && qy_count_is_at(wrong, p, seen))
		return 0;
	qy_count_undo(wrong, p, seen);
	c = qy_count_find(p, &leaf, &word);
	if (c == NULL)
		return fail(EINVAL);
	if (!(word & QY_COUNT_LIVE))
		return fail(ESTALE);
	if (!has_room(word))
		return fail(EOVERFLOW);
	generation = qy_count_generation(word);
	word = atomic_fetch_add_explicit(&c->word, QY_COUNT_ONE, memory_order_acquire);
	if (is_generation(word, generation) && has_room(word))
		return 0;
	qy_count_undo(c, p, word);
	return fail(is_generation(word, generation) ? EOVERFLOW : ESTALE);
}

QUARRY_API int quarry_ref(const void *p)
{
	uintptr_t entry = qy_count_entry(p);
	struct quarry_count *c;
	uint64_t word;

	if (QY_UNLIKELY(entry == 0 || (uintptr_t)p % 16 != 0))
		return fail(EINVAL);
	c = qy_leaf_word(entry, p);
	word = atomic_fetch_add_explicit(&c->word, QY_COUNT_ONE, memory_order_acquire);
	if (QY_UNLIKELY(!is_of(word, p) || !has_room(word)))
		return ref_slow(p, c, word);
	qy_count_hint = word + QY_COUNT_ONE;
	return 0;
}

/* It is the last, is not in the first leaf's word, is noted, or others count there too. */
static int unref_slow(void *p, uintptr_t entry) QY_NOINLINE;
static int unref_slow(void *p, uintptr_t entry)
{
	struct qy_leaf *leaf;
	struct quarry_count *c;
	uint64_t word;
	int r = qy_count_drop(qy_leaf_word(entry, p), p, PLACE_MASK, want_of(p));

	if (QY_LIKELY(r != QY_COUNT_NOT_IT))
		return r;
	c = qy_count_find(p, &leaf, &word);
	if (c == NULL)
		return fail(EINVAL);
	if (word & QY_COUNT_LIVE)
		r = qy_count_drop(c, p, LIFE_MASK, want_life(qy_count_generation(word)));
	return r == QY_COUNT_NOT_IT ? qy_block_fail_late(p) : r;
}

QUARRY_API int quarry_unref(void *p)
{
	uintptr_t entry = qy_count_entry(p);

	if (QY_UNLIKELY(entry == 0 || (uintptr_t)p % 16 != 0))
		return fail(EINVAL);
	return qy_count_drop_fast(qy_leaf_word(entry, p), PLACE_MASK, want_of(p)) ? 0 : unref_slow(p, entry);
}

QUARRY_API long quarry_refcount(const void *p)
{
	struct qy_leaf *leaf;
	uint64_t word;

	if (qy_count_find(p, &leaf, &word) == NULL)
		return fail(EINVAL);
	return (word & QY_COUNT_LIVE) && qy_count_refs(word) > 0 ? (long)qy_count_refs(word) : fail(ESTALE);
}

/* ---- by handle ---- */

static int ref_failed(struct quarry_count *c, const void *p, uint64_t seen, int error) QY_COLD;
static int ref_failed(struct quarry_count *c, const void *p, uint64_t seen, int error)
{
	qy_count_undo(c, p, seen);
	errno = error;
	return -1;
}

QY_INLINE int ref(struct quarry_count *c, const void *p, uint32_t generation)
{
	uint64_t word = atomic_fetch_add_explicit(&c->word, QY_COUNT_ONE, memory_order_acquire);

	if (QY_UNLIKELY(!is_generation(word, generation)))
		return ref_failed(c, p, word, ESTALE);
	if (QY_UNLIKELY(!has_room(word)))
		return ref_failed(c, p, word, EOVERFLOW);
	qy_count_hint = word + QY_COUNT_ONE;
	return 0;
}

QUARRY_API int quarry_block_ref(const quarry_block *b)
{
	return QY_UNLIKELY(b == NULL || b->count == NULL) ? fail(EINVAL) : ref(b->count, b->p, b->generation);
}

/* The last one, or of a block that is gone: an error leaves *b as it was. */
static int block_unref_slow(quarry_block *b, void *p, size_t n, struct quarry_count *c, uint64_t life) QY_NOINLINE;
static int block_unref_slow(quarry_block *b, void *p, size_t n, struct quarry_count *c, uint64_t life)
{
	uint32_t generation = (uint32_t)(life >> 1);
	int r = qy_count_drop(c, p, LIFE_MASK, want_life(generation));

	if (QY_LIKELY(r >= 0))
		return r;
	*b = (quarry_block){ p, n, c, generation, 0 };
	return r == QY_COUNT_NOT_IT ? qy_block_fail_late(p) : r;
}

/* Nothing is written to *b once the reference is gone: it may stand in the block. */
QUARRY_API int quarry_block_unref(quarry_block *b)
{
	struct quarry_count *c;
	uint64_t life;
	size_t n;
	void *p;

	if (QY_UNLIKELY(b == NULL || b->count == NULL))
		return 0;
	p = b->p;
	n = b->n;
	c = b->count;
	life = (uint64_t)b->generation << 1 | 1;
	*b = (quarry_block){ 0 };
	return QY_LIKELY(qy_count_drop_life(c, life)) ? 0 : block_unref_slow(b, p, n, c, life);
}

QUARRY_API int quarry_block_live(const quarry_block *b)
{
	return b != NULL && b->count != NULL &&
	       is_generation(atomic_load_explicit(&b->count->word, memory_order_acquire), b->generation);
}

QUARRY_API quarry_seg quarry_block_seg(const quarry_block *b)
{
	if (QY_LIKELY(quarry_block_live(b)))
		return (quarry_seg){ b->p, b->n };
	(void)fail_gone(b);
	return (quarry_seg){ NULL, 0 };
}

QUARRY_API int quarry_block_from_seg(quarry_seg s, quarry_block *b)
{
	struct qy_leaf *leaf;
	uint64_t word;
	struct quarry_count *c = qy_count_find(s.p, &leaf, &word);
	size_t usable;

	if (c == NULL)
		return qy_fail(EINVAL, "segment: no block begins at %p", s.p);
	if (!(word & QY_COUNT_LIVE))
		return qy_fail(ESTALE, "segment: the block at %p is gone", s.p);
	usable = qy_block_usable(qy_count_manager(leaf, c), s.p);
	if (s.n > usable)
		return qy_fail(EINVAL, "segment: it is longer than the block at %p", s.p);
	if (b != NULL)
		*b = (quarry_block){ .p = s.p, .n = usable, .count = c, .generation = qy_count_generation(word) };
	return 0;
}

/* ---- notes ---- */

QUARRY_API int quarry_block_borrow(const quarry_block *b, quarry_seg *s)
{
	int r = b == NULL || b->count == NULL ? QY_COUNT_NOT_IT : qy_count_note(b->count, b->p, b->generation);

	if (r == QY_COUNT_NOT_IT)
		return fail_gone(b);
	if (r == 0 && s != NULL)
		*s = (quarry_seg){ b->p, b->n };
	return r;
}

QUARRY_API int quarry_block_give_back(const quarry_block *b)
{
	int r = b == NULL || b->count == NULL ? QY_COUNT_NOT_IT : qy_count_unnote(b->count, b->p, b->generation);

	return r == QY_COUNT_NOT_IT ? fail_block(b) : r;
}

QUARRY_API int quarry_block_at_end(const quarry_block *b, quarry_end_fn *fn)
{
	return quarry_block_live(b) ? qy_count_set_end_fn(b->count, b->p, b->generation, fn) : fail_block(b);
}

/* ---- weak ---- */

QUARRY_API quarry_weak quarry_weak_of(const quarry_block *b)
{
	if (quarry_block_live(b))
		return (quarry_weak){ .p = b->p, .n = b->n, .count = b->count, .generation = b->generation };
	(void)fail_gone(b);
	return (quarry_weak){ .p = NULL };
}

QUARRY_API int quarry_weak_lock(quarry_weak w, quarry_block *b)
{
	if (w.count == NULL || b == NULL)
		return fail(EINVAL);
	if (ref(w.count, w.p, w.generation) != 0)
		return -1;
	*b = (quarry_block){ .p = w.p, .n = w.n, .count = w.count, .generation = w.generation };
	return 0;
}

/* ---- told ---- */

QUARRY_API int quarry_block_figures_get(quarry_block_figures *figures, size_t size)
{
	struct qy_quarantine_figures held;
	quarry_block_figures all;

	if (figures == NULL || size == 0 || size > 4096)
		return qy_fail(EINVAL, "size: %zu is not the size of any quarry_block_figures", size);
	qy_quarantine_figures(&held);
	all = (quarry_block_figures){
		.retired = atomic_load_explicit(&qy_count_figures.retired, memory_order_relaxed),
		.overrun = atomic_load_explicit(&qy_count_figures.overrun, memory_order_relaxed),
		.late_writes = held.late_writes,
		.quarantined = held.blocks,
		.quarantined_bytes = held.bytes,
		.closed = held.closed,
		.closed_bytes = held.closed_bytes,
	};
	memset(figures, 0, size);
	memcpy(figures, &all, qy_min(size, sizeof(all)));
	return 0;
}

QUARRY_API long quarry_block_check(unsigned flags)
{
	int error = errno;
	long written;

	if (flags & ~(unsigned)QUARRY_CHECK_RELEASE)
		return qy_fail(EINVAL, "flags: unknown bits in 0x%x", flags);
	written = qy_quarantine_check(flags & QUARRY_CHECK_RELEASE);
	errno = error;
	return written;
}
