/* SPDX-License-Identifier: MIT */
/* Blocks are resized. Their arena may be reset or end at any moment, and what is at their address is another's then: so
 * whatever is done there is done with that held up, in the life of the arena in which the block was, or not at all. */
#include <errno.h>
#include <string.h>

#include "lib/api/error.h"
#include "lib/base/settings.h"
#include "lib/cache/taken.h"
#include "lib/object/apart.h"
#include "lib/object/block.h"
#include "lib/object/count.h"
#include "lib/object/manager.h"

static int fail(int error)
{
	errno = error;
	return -1;
}

static int zero_behind(const quarry_block *b, size_t old, uint64_t life)
{
	void *held;

	if (b->n <= old)
		return 0;
	if (!qy_life_hold(b->p, life, &held))
		return fail(ESTALE);
	memset((char *)b->p + old, 0, b->n - old);
	qy_life_let_go(held);
	return 0;
}

/* The manager of the arena that the memory is in; NULL where that is over. */
static quarry_manager *manager_of(const void *p, uint64_t life)
{
	quarry_arena *arena;
	void *held;

	if (life == QY_LIFE_NODES)
		return quarry_manager_default();
	if (!qy_life_hold(p, life, &held))
		return NULL;
	arena = quarry_arena_of(p);
	qy_life_let_go(held);
	return arena == NULL ? NULL : quarry_manager_of_arena(arena);
}

/* At an address that is used up: a copy elsewhere. */
static int begin_elsewhere(quarry_block *b, const quarry_manager *manager, size_t n, uint64_t life)
{
	const quarry_manager *meant = manager == NULL ? manager_of(b->p, life) : qy_stack_meant(manager, b->p);
	quarry_block to = { 0 };
	void *held;

	if (meant != NULL)
		to = qy_block_make((quarry_manager *)(uintptr_t)meant, 0, n);
	if (to.p == NULL) {
		*b = to;
		return meant == NULL ? fail(ESTALE) : -1;
	}
	if (!qy_life_hold(b->p, life, &held)) {
		(void)quarry_block_unref(&to);
		return fail(ESTALE);
	}
	memcpy(to.p, b->p, n);
	qy_life_let_go(held);
	*b = to;
	return 0;
}

/* Begin anew where the memory is now, which is of the same life as it was. */
static int begin_again(quarry_block *b, const quarry_manager *manager, size_t n, uint64_t life)
{
	struct quarry_count *c;
	void *p = b->p, *held;
	int error;

	if (!qy_life_hold(p, life, &held))
		return fail(ESTALE);
	c = qy_count_begin(p, qy_block_usable(manager, p), manager, &b->generation);
	error = errno;
	qy_life_let_go(held);
	if (QY_LIKELY(c != NULL)) {
		b->count = c;
		return 0;
	}
	if (error == ERANGE)
		return begin_elsewhere(b, manager, n, life);
	if (manager == NULL && life != QY_LIFE_NODES)
		qy_arena_free_in(p, life);
	else
		qy_block_give_back(manager, p);
	*b = (quarry_block){ 0 };
	return qy_fail(ENOMEM, "no memory for the counts of blocks");
}

/* A block elsewhere with the same contents, and an end for the old place as any block has it. False where there is no
 * memory for both, or its life is over. */
static bool move(quarry_block *b, size_t n, uint64_t life) QY_COLD;
static bool move(quarry_block *b, size_t n, uint64_t life)
{
	quarry_manager *manager = manager_of(b->p, life);
	quarry_block to = { 0 };
	void *held;

	if (manager != NULL)
		to = qy_block_make(manager, 0, n);
	if (to.p == NULL)
		return false;
	if (!qy_life_hold(b->p, life, &held)) {
		(void)quarry_block_unref(&to);
		return false;
	}
	memcpy(to.p, b->p, qy_min(quarry_usable_size(b->p), n));
	qy_life_let_go(held);
	qy_block_free(NULL, b->p, life);
	*b = to;
	return true;
}

static int take(const quarry_block *b, uint64_t life)
{
	void *held;
	int r;

	if (!qy_life_hold(b->p, life, &held))
		return fail(ESTALE);
	r = qy_count_take(b->count, b->p, b->generation);
	qy_life_let_go(held);
	return r;
}

/* What failed leaves the block as it was; errno says why, or that it went meanwhile. */
static int put_back(const quarry_block *b, uint64_t life)
{
	int error = errno;
	bool done = false;
	void *held;

	if (qy_life_hold(b->p, life, &held)) {
		done = qy_count_put_back(b->count, b->generation);
		qy_life_let_go(held);
	}
	return fail(done ? error : ESTALE);
}

static void *resize_memory(const quarry_block *b, const quarry_manager *manager, size_t n, uint64_t life)
{
	if (manager == NULL && life != QY_LIFE_NODES)
		return qy_arena_resize_in(b->p, n, life);
	return quarry_manager_resize((quarry_manager *)(uintptr_t)qy_stack_meant(manager, b->p), b->p, n);
}

/* Nobody else has a reference, nor can have one until it is counted again. */
static int resize(quarry_block *b, const quarry_manager *manager, size_t n, uint64_t life)
{
	void *p;

	if (take(b, life) != 0)
		return -1;
	if (QY_UNLIKELY(qy_setting(checked) != 0) && manager == NULL) {
		if (move(b, n, life))
			return 0;
		if (life == QY_LIFE_NODES)
			qy_apart_forget(b->p);
	}
	p = resize_memory(b, manager, qy_max(n, 1), life);
	if (p == NULL)
		return put_back(b, life);
	b->p = p;
	b->n = n;
	return begin_again(b, manager, n, life);
}

/* Where it is; -1 with EBUSY, ESTALE, or ERANGE: its address is used up. Handles that know of less than it is to have are
 * of a life that is over: or they could fill with zeros, as new to them, what is in use. */
static int resize_here(quarry_block *b, size_t n)
{
	if (n <= b->n && !qy_count_is_free(b->count, b->p))
		errno = EBUSY;
	else if (n <= b->n || qy_count_renew(b->count, b->p, &b->generation) == 0) {
		b->n = n;
		return 0;
	}
	return errno == EBUSY ? qy_fail(EBUSY, "block: it is shared or borrowed, or has a function for its end") : -1;
}

/* (The life is read before the word is looked at that is to be taken: as before an end, see end_at.) */
QUARRY_API int quarry_block_resize(quarry_block *b, size_t n, unsigned flags)
{
	struct qy_leaf *leaf;
	const quarry_manager *manager;
	struct quarry_count *c;
	int error = errno;
	uint64_t word, life;
	size_t old, usable;
	void *held, *at;
	bool stays;

	if (b == NULL || b->count == NULL || (flags & ~(unsigned)(QUARRY_RESIZE_ZERO | QUARRY_RESIZE_IN_PLACE)))
		return qy_fail(EINVAL, b == NULL || b->count == NULL ? "block: it is none" : "flags: unknown bits");
	word = atomic_load_explicit(&b->count->word, memory_order_acquire);
	if (word >> (QY_COUNT_GENERATION_SHIFT - 1) != ((uint64_t)b->generation << 1 | 1))
		return qy_block_fail_late(b->p);
	if (qy_count_refs(word) != 1)
		return qy_fail(EBUSY, "block: others have references");
	c = qy_count_find(b->p, &leaf, &word);
	if (c != b->count)
		return fail(ESTALE);
	old = b->n;
	at = b->p;
	manager = qy_count_manager(leaf, c);
	life = qy_block_life(manager, b->p);
	if (!qy_life_hold(b->p, life, &held))
		return fail(ESTALE);
	usable = qy_block_usable(manager, b->p);
	qy_life_let_go(held);
	if (n > usable && (flags & QUARRY_RESIZE_IN_PLACE))
		return qy_fail(ENOMEM, "block: it has room for %zu bytes where it is", usable);
	stays = n <= usable && (n >= usable / 2 || (flags & QUARRY_RESIZE_IN_PLACE));
	if (!stays || resize_here(b, n) != 0) {
		if (stays && errno != ERANGE)
			return -1;
		if (flags & QUARRY_RESIZE_IN_PLACE)
			return qy_fail(ENOMEM, "block: its address is used up");
		if (resize(b, manager, n, life) != 0)
			return -1;
	}
	/* (Where it has moved it may be another arena's: the breaker's choice.) */
	if ((flags & QUARRY_RESIZE_ZERO) && zero_behind(b, old, b->p == at || manager != NULL ? life : qy_arena_life(b->p)) != 0)
		return -1;
	errno = error;
	return 0;
}
