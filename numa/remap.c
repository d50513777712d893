/* SPDX-License-Identifier: MIT */
/* Moving memory from one region to another by page tables. */
#include "numa/region.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "numa/os.h"
#include "numa/policy.h"

#define TRIES_MAX 512 /* for one move, those that fail with them: beyond, the rest is copied */
#define COPIED_AT_ONCE (16 * QY_FRAME) /* so much is in memory twice at most */

struct move {
	struct qy_region *from_region, *to_region;
	char *from, *to, *hint;
	unsigned tries;
	bool begun; /* something is there by now: there is no way back */
};

/* Locked memory is not: what mremap(2) leaves in the place is not locked any more, nor is all else of that mapping, be
 * it somebody else's block, while it still counts as locked. Where a file's memory stands says where it is in the
 * file. */
bool qy_region_movable(const struct qy_region *r)
{
	return !qy_region_settled(r) && !(qy_peek(r->placement->flags) & QUARRY_ARENA_LOCKED);
}

/* Where so much could be moved to with huge pages staying whole: the kernel moves what is as far from a multiple of
 * their size on both sides by its tables alone, and takes huge pages apart otherwise. Only a hint: NULL will do. */
static char *aligned_hint(size_t len)
{
	char *p = qy_os->mmap(NULL, len + QY_FRAME, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	qy_os->munmap(p, len + QY_FRAME);
	return (char *)qy_align_up((uintptr_t)p, QY_FRAME);
}

/* By way of a place of the kernel's choice: where the source is of several mappings a move fails, and must not have
 * taken the target away then. False with errno, and nothing has changed. */
static bool move_piece(struct move *mv, size_t at, size_t len)
{
	char *from = mv->from + at, *to = mv->to + at, *between;
	int error;

	mv->tries++;
	between = qy_os->mremap_away(from, len, mv->hint == NULL ? NULL : mv->hint + at);
	if (between == MAP_FAILED)
		return false;
	if (qy_os->mremap_to(between, len, to) != MAP_FAILED) {
		/* Its policy came along, which may be one from before its arena moved. */
		qy_policy_apply(qy_peek(mv->to_region->placement), to, len);
		qy_region_moved(mv->from_region, from, (len + QY_FRAME - 1) >> QY_FRAME_SHIFT, mv->to_region, to);
		mv->begun = true;
		return true;
	}
	error = errno;
	/* No more mappings to be had. The way back is to copy, and that needs none. */
	memcpy(from, between, len);
	qy_os->munmap(between, len);
	errno = error;
	return false;
}

static void copy_piece(struct move *mv, size_t at, size_t len)
{
	for (size_t end = at + len, step; at < end; at += step) {
		step = qy_min(end - at, COPIED_AT_ONCE);
		memcpy(mv->to + at, mv->from + at, step);
		if (!qy_region_purge(mv->from_region, mv->from + at, step))
			memset(mv->from + at, 0, step);
	}
	mv->begun = true;
}

/* What was moved to its place before is a mapping of its own for good, and what stands behind it another one, since
 * anonymous memory that was touched keeps its first address as its offset; mremap(2) moves one at a time (EFAULT).
 * Where they meet is found by halving. Halves of one mapping are one again where they come to. */
static bool move_range(struct move *mv, size_t at, size_t len)
{
	size_t half = qy_align_up(len / 2, QY_FRAME);
	bool several;

	if (mv->tries < TRIES_MAX && move_piece(mv, at, len))
		return true;
	several = mv->tries < TRIES_MAX && errno == EFAULT;
	if (several && len > QY_FRAME)
		return move_range(mv, at, half) && move_range(mv, at + half, len - half);
	if (!several && !mv->begun)
		return false;
	copy_piece(mv, at, len);
	return true;
}

bool qy_region_move(struct qy_region *from_region, void *from, size_t len, struct qy_region *to_region, void *to)
{
	struct move mv = { from_region, to_region, from, to, NULL, 0, false };

	if (!qy_region_movable(from_region) || !qy_region_movable(to_region))
		return false;
	/* Other pages come to be at both. */
	qy_region_tell(from_region, QUARRY_REGION_PURGE, from, len);
	qy_region_tell(to_region, QUARRY_REGION_PURGE, to, len);
	if (len >= QY_FRAME)
		mv.hint = aligned_hint(len);
	/* What was told differently is of several mappings. */
	for (size_t at = 0, piece; at < len; at += piece) {
		piece = qy_region_alike(from_region, mv.from + at, len - at);
		if (!move_range(&mv, at, piece))
			return false;
	}
	return true;
}
