/* SPDX-License-Identifier: MIT */
#include "numa/region.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "numa/os.h"
#include "numa/policy.h"
#include "lib/base/refused.h"

/* Fault everything in by MADV_POPULATE_WRITE (Linux 5.14), which answers with an error where touching would give
 * SIGBUS. */
static bool populate(void *addr, size_t len)
{
	int r;

	do
		r = qy_os->madvise(addr, len, QY_MADV_POPULATE_WRITE);
	while (r != 0 && errno == EINTR);
	if (r != 0)
		qy_refuse(QUARRY_REFUSED_POPULATE);
	return r == 0;
}

static void advise(const struct qy_placement *placement, void *addr, size_t len)
{
	if (qy_peek(placement->flags) & QUARRY_ARENA_NODUMP)
		qy_os->madvise(addr, len, QY_MADV_DONTDUMP);
	if ((qy_peek(placement->flags) & QUARRY_ARENA_LOCKED) && qy_os->mlock_onfault(addr, len) != 0)
		qy_refuse(QUARRY_REFUSED_LOCK);
}

/* Map one rung of the ladder at claimed address space. On success *kind is what it became and *placed how. */
static bool map_rung(const struct qy_placement *placement, void *addr, size_t len, int *kind, uint8_t *placed)
{
	bool strict = qy_peek(placement->flags) & QUARRY_ARENA_STRICT;
	int flags = *kind == QUARRY_PAGES_1G   ? (int)(MAP_HUGETLB | QY_MAP_HUGE_1GB)
		    : *kind == QUARRY_PAGES_2M ? (int)(MAP_HUGETLB | QY_MAP_HUGE_2MB)
					       : 0;
	int error;

	if (qy_window_map(addr, len, flags) != 0) {
		qy_refuse(*kind == QUARRY_PAGES_1G   ? QUARRY_REFUSED_HUGE_1G
			  : *kind == QUARRY_PAGES_2M ? QUARRY_REFUSED_HUGE_2M
						     : QUARRY_REFUSED_MAP);
		return false;
	}
	*placed = qy_policy_apply(placement, addr, len);
	if (*placed == QY_PLACED_NO && strict)
		goto fail;
	advise(placement, addr, len);
	if (*kind >= QUARRY_PAGES_2M) {
		if (populate(addr, len))
			return true;
		qy_refuse(*kind == QUARRY_PAGES_1G ? QUARRY_REFUSED_HUGE_1G : QUARRY_REFUSED_HUGE_2M);
		goto fail;
	}
	if (*kind == QUARRY_PAGES_THP && qy_os->madvise(addr, len, QY_MADV_HUGEPAGE) != 0) {
		qy_refuse(QUARRY_REFUSED_THP);
		if (strict)
			goto fail;
		*kind = QUARRY_PAGES_BASE;
	}
	/* Where THP is set to `always`, the first touch of a small heap would take 2 MiB. EINVAL: no THP, as good. */
	if (*kind == QUARRY_PAGES_BASE)
		qy_os->madvise(addr, len, QY_MADV_NOHUGEPAGE);
	if ((qy_peek(placement->flags) & QUARRY_ARENA_POPULATE) && !populate(addr, len) && strict)
		goto fail;
	return true;
fail:
	error = errno;
	qy_window_unmap(addr, len);
	errno = error;
	return false;
}

/* Claim frames and map them. In a sparse window somebody else's mapping may be in the way: such frames stay claimed,
 * so that they are not tried again and again, and the next ones are taken. */
static char *map_somewhere(const struct qy_placement *placement, size_t frames, size_t align, int *kind,
			   uint8_t *placed)
{
	int wanted = *kind;

	for (int tries = 0; tries < 64; tries++) {
		char *addr = qy_window_claim(frames, align, placement->node);

		if (addr == NULL)
			return NULL;
		*kind = wanted;
		if (map_rung(placement, addr, frames << QY_FRAME_SHIFT, kind, placed))
			return addr;
		if (errno != EEXIST) {
			int error = errno;

			qy_window_release(addr, frames);
			errno = error;
			return NULL;
		}
	}
	return NULL;
}

struct qy_region *qy_region_create(const struct qy_placement *placement, size_t frames, size_t align_frames, int kind,
				   void *owner)
{
	bool strict = qy_peek(placement->flags) & QUARRY_ARENA_STRICT;
	int error = ENOMEM;

	for (int rung = kind; rung >= QUARRY_PAGES_BASE; rung--) {
		size_t grain = rung == QUARRY_PAGES_1G ? QY_ZONE_FRAMES : 1;
		size_t count = qy_align_up(frames, grain);
		struct qy_region *r;
		uint8_t placed;
		int got = rung;
		char *addr = map_somewhere(placement, count, qy_max(align_frames, grain), &got, &placed);

		if (addr == NULL) {
			error = errno;
			if (strict)
				break;
			continue;
		}
		r = qy_region_slot(qy_window_offset(addr) >> QY_FRAME_SHIFT);
		r->placement = placement;
		r->next = r->prev = NULL;
		r->frames = (uint32_t)count;
		r->kind_wanted = (uint8_t)kind;
		r->kind = (uint8_t)got;
		r->placed = placed;
		qy_publish(r->owner, owner);
		return r;
	}
	errno = strict && (error == EPERM || error == ENOSYS || error == EINVAL) ? error : ENOMEM;
	return NULL;
}

void qy_region_destroy(struct qy_region *r)
{
	void *addr = qy_region_addr(r);
	size_t frames = r->frames;

	qy_publish(r->owner, NULL);
	/* When not even address space can be put back (a full table of mappings), the range stays claimed and mapped:
	 * lost to quarry, but never handed out twice. */
	if (qy_window_unmap(addr, frames << QY_FRAME_SHIFT) == 0)
		qy_window_release(addr, frames);
	else
		qy_refuse(QUARRY_REFUSED_PURGE);
}

bool qy_region_purge(const struct qy_region *r, void *addr, size_t len)
{
	size_t page = qy_os_page_size();
	uintptr_t first = qy_align_up((uintptr_t)addr, page), end = qy_align_down((uintptr_t)addr + len, page);

	if (qy_region_pinned(r) || (qy_peek(r->placement->flags) & QUARRY_ARENA_LOCKED))
		return false;
	/* A piece inside one of the kernel's pages (64 KiB on some machines). */
	if (first >= end) {
		memset(addr, 0, len);
		return true;
	}
	if (qy_os->madvise((void *)first, end - first, MADV_DONTNEED) != 0) {
		qy_refuse(QUARRY_REFUSED_PURGE);
		return false;
	}
	/* Where base pages are larger than quarry's, the edges are cleared by hand. */
	if (first != (uintptr_t)addr)
		memset(addr, 0, first - (uintptr_t)addr);
	if (end != (uintptr_t)addr + len)
		memset((void *)end, 0, (uintptr_t)addr + len - end);
	return true;
}

bool qy_region_collapse(struct qy_region *r, void *addr, size_t len)
{
	if (qy_region_pinned(r))
		return true;
	if (qy_os->madvise(addr, len, QY_MADV_HUGEPAGE) == 0 && qy_os->madvise(addr, len, QY_MADV_COLLAPSE) == 0)
		return true;
	qy_refuse(QUARRY_REFUSED_THP);
	return false;
}

bool qy_region_move(const struct qy_region *from_region, void *from, size_t len, const struct qy_region *to_region,
		    void *to)
{
	if (qy_region_pinned(from_region) || qy_region_pinned(to_region) || from_region->kind != to_region->kind)
		return false;
	return qy_os->mremap_to(from, len, len, to) != MAP_FAILED;
}
