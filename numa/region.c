/* SPDX-License-Identifier: MIT */
#include "numa/region.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "numa/fill.h"
#include "numa/os.h"
#include "numa/policy.h"
#include "numa/thp.h"
#include "lib/base/checker.h"
#include "lib/base/probe.h"
#include "lib/base/refused.h"

_Atomic(qy_region_told *) qy_region_teller;

static bool is_strict(const struct qy_placement *placement)
{
	return qy_peek(placement->flags) & QUARRY_ARENA_STRICT;
}

static void advise(const struct qy_placement *placement, void *addr, size_t len)
{
	if (qy_peek(placement->flags) & QUARRY_ARENA_NODUMP)
		qy_os->madvise(addr, len, QY_MADV_DONTDUMP);
	if ((qy_peek(placement->flags) & QUARRY_ARENA_LOCKED) && qy_os->mlock_onfault(addr, len) != 0)
		qy_refuse(QUARRY_REFUSED_LOCK);
}

static void refuse_rung(int kind)
{
	qy_refuse(kind == QUARRY_PAGES_1G   ? QUARRY_REFUSED_HUGE_1G
		  : kind == QUARRY_PAGES_2M ? QUARRY_REFUSED_HUGE_2M
					    : QUARRY_REFUSED_MAP);
}

struct as_mapped {
	uint8_t placed; /* enum qy_placed */
	uint8_t advice; /* enum qy_advice */
	bool whole;     /* all of it is there, and has to stay */
	struct qy_memfd file;
};

/* Filled at once from the pools of the nodes asked for, and of no others. Once it is full, the policy that was asked
 * for stands: what a forked child copies may come from anywhere. */
static bool map_hugetlb(const struct qy_placement *placement, void *addr, size_t len, int kind,
			const struct qy_memfd *file, uint8_t *placed)
{
	*placed = qy_policy_apply_firm(placement, addr, len);
	if (*placed == QY_PLACED_NO && is_strict(placement))
		return false;
	advise(placement, addr, len);
	if ((!qy_fill_pool(placement, addr, len, *placed == QY_PLACED_NO ? 0 : qy_kind_grain(kind)) &&
	     !(errno == EINVAL && qy_fill_file(placement, file, addr, len, qy_kind_grain(kind)))) ||
	    (*placed != QY_PLACED_NO && !qy_fill_verify(placement, addr, len, qy_kind_grain(kind))))
		return false;
	if (*placed != QY_PLACED_NO)
		*placed = qy_policy_apply_soft(placement, addr, len);
	/* Evenly, that is (see qy_fill_pool). */
	if (*placed == QY_PLACED_YES && placement->bind && placement->policy == QUARRY_POLICY_WEIGHTED_INTERLEAVE)
		*placed = QY_PLACED_LESS;
	return true;
}

/* *kind becomes base when the kernel knows no transparent huge pages. Where they come unasked, base memory is told
 * otherwise, or the first touch of a small heap would take 2 MiB; not so where the administrator has smaller sizes come
 * as well, which the same advice would keep away. */
static bool advise_pages(char *addr, size_t len, bool gently, int *kind, uint8_t *advice)
{
	struct qy_thp thp = qy_thp_get();

	*advice = QY_ADVICE_NONE;
	if (*kind == QUARRY_PAGES_THP && !(gently && thp.unasked && !thp.stalls_all)) {
		if (qy_os->madvise(addr, len, QY_MADV_HUGEPAGE) == 0) {
			*advice = QY_ADVICE_HUGE;
			return true;
		}
		qy_refuse(QUARRY_REFUSED_THP);
		*kind = QUARRY_PAGES_BASE;
		return false;
	}
	if (*kind == QUARRY_PAGES_BASE && thp.unasked && !thp.smaller &&
	    qy_os->madvise(addr, len, QY_MADV_NOHUGEPAGE) == 0)
		*advice = QY_ADVICE_BASE;
	return true;
}

/* The same for a file, of which huge pages are by settings of their own. Strictly, they are made whatever these say
 * (qy_fill_strictly). */
static bool advise_file(char *addr, size_t len, bool strict, int *kind, uint8_t *advice)
{
	struct qy_thp thp = qy_thp_get();

	*advice = QY_ADVICE_NONE;
	if (*kind == QUARRY_PAGES_THP && (thp.shared || strict) && qy_os->madvise(addr, len, QY_MADV_HUGEPAGE) == 0) {
		*advice = QY_ADVICE_HUGE;
		return true;
	}
	if (*kind == QUARRY_PAGES_THP) {
		qy_refuse(QUARRY_REFUSED_THP);
		*kind = QUARRY_PAGES_BASE;
		if (strict)
			return false;
	}
	if (thp.shared_unasked && qy_os->madvise(addr, len, QY_MADV_NOHUGEPAGE) == 0)
		*advice = QY_ADVICE_BASE;
	return true;
}

static bool advise_kind(char *addr, size_t len, bool gently, bool strict, int *kind, struct as_mapped *as)
{
	if (as->file.fd != 0)
		return advise_file(addr, len, strict, kind, &as->advice);
	return advise_pages(addr, len, gently, kind, &as->advice) ||
	       (!strict && advise_pages(addr, len, gently, kind, &as->advice));
}

static bool map_plain(const struct qy_placement *placement, void *addr, size_t len, bool gently, int *kind,
		      struct as_mapped *as)
{
	bool strict = is_strict(placement);

	as->placed = qy_policy_apply(placement, addr, len);
	if (as->placed == QY_PLACED_NO && strict)
		return false;
	advise(placement, addr, len);
	if (!advise_kind(addr, len, gently, strict, kind, as))
		return false;
	as->whole = qy_fill_is_due(placement, *kind);
	if (as->whole)
		return qy_fill_strictly(placement, addr, len, *kind);
	as->whole = as->file.fd != 0 && qy_memfd_may_run_dry();
	if (as->whole)
		return qy_fill_file(placement, &as->file, addr, len, qy_os_page_size());
	return !(qy_peek(placement->flags) & QUARRY_ARENA_POPULATE) || qy_fill(placement, addr, len) || !strict;
}

/* Memory at claimed address space, of no kind yet. A file's is kept from forked children by the kernel itself, however
 * they are forked. */
static bool map_memory(const struct qy_placement *placement, void *addr, size_t len, int flags, int kind,
		       struct as_mapped *as)
{
	bool wanted = qy_peek(placement->flags) & QUARRY_ARENA_FD;

	*as = (struct as_mapped){ .advice = QY_ADVICE_NONE };
	if (wanted && !qy_memfd_make(&as->file, len, kind))
		return false;
	if (qy_window_map_file(addr, len, flags, wanted ? as->file.fd : -1) != 0) {
		qy_memfd_close(&as->file);
		return false;
	}
	if (!wanted || qy_os->madvise(addr, len, QY_MADV_DONTFORK) == 0)
		return true;
	qy_refuse(QUARRY_REFUSED_FD);
	qy_memfd_close(&as->file);
	qy_window_unmap(addr, len);
	errno = ENOMEM;
	return false;
}

/* Map one rung of the ladder at claimed address space. On success *kind is what it became and *as how. */
static bool map_rung(const struct qy_placement *placement, void *addr, size_t len, bool gently, int *kind,
		     struct as_mapped *as)
{
	int flags = *kind == QUARRY_PAGES_1G   ? (int)(MAP_HUGETLB | QY_MAP_HUGE_1GB)
		    : *kind == QUARRY_PAGES_2M ? (int)(MAP_HUGETLB | QY_MAP_HUGE_2MB)
					       : 0;
	bool huge = *kind >= QUARRY_PAGES_2M;
	int error;

	/* mmap(2) only looks at the pools of all nodes together: a dry one is found here, or when it is filled. */
	if (huge && !qy_fill_has_pool(placement, len, *kind)) {
		errno = ENOMEM;
		return false;
	}
	if (!map_memory(placement, addr, len, flags, *kind, as)) {
		refuse_rung(*kind);
		return false;
	}
	if (huge ? map_hugetlb(placement, addr, len, *kind, &as->file, &as->placed)
		 : map_plain(placement, addr, len, gently, kind, as))
		return true;
	error = errno;
	if (huge)
		refuse_rung(*kind);
	qy_window_unmap(addr, len);
	qy_memfd_close(&as->file);
	errno = error;
	return false;
}

/* Claim frames and map them. In a sparse window somebody else's mapping may be in the way: such frames stay claimed,
 * so that they are not tried again and again, and the next ones are taken. */
static char *map_somewhere(const struct qy_placement *placement, size_t frames, size_t align, bool gently, int *kind,
			   struct as_mapped *as)
{
	int wanted = *kind;

	for (int tries = 0; tries < 64; tries++) {
		char *addr = qy_window_claim(frames, align, placement->node);

		if (addr == NULL)
			return NULL;
		*kind = wanted;
		if (map_rung(placement, addr, frames << QY_FRAME_SHIFT, gently, kind, as))
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

/* Whether an error says what the kernel refuses that was asked for without an alternative. */
static bool is_telling(const struct qy_placement *placement, int error)
{
	if (is_strict(placement) && (error == EPERM || error == ENOSYS || error == EINVAL))
		return true;
	return (qy_peek(placement->flags) & QUARRY_ARENA_FD) && (error == EPERM || error == EACCES || error == ENOSYS ||
								 error == EMFILE || error == ENFILE || error == EFBIG);
}

struct qy_region *qy_region_create(const struct qy_placement *placement, size_t frames, size_t align_frames, int kind,
				   void *owner)
{
	bool strict = is_strict(placement), gently = kind == QY_PAGES_BORN_HUGE && !strict;
	int error = ENOMEM;

	if (kind == QY_PAGES_BORN_HUGE)
		kind = QUARRY_PAGES_THP;
	for (int rung = kind; rung >= QUARRY_PAGES_BASE; rung--) {
		size_t grain = rung == QUARRY_PAGES_1G ? QY_ZONE_FRAMES : 1;
		size_t count = qy_align_up(frames, grain);
		struct qy_region *r;
		struct as_mapped as;
		int got = rung;
		char *addr = map_somewhere(placement, count, qy_max(align_frames, grain), gently, &got, &as);

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
		r->placed = as.placed;
		r->whole = as.whole;
		r->file = as.file;
		r->fresh = true;
		r->ended = false;
		qy_publish(r->advice, as.advice);
		qy_region_forget(r);
		qy_publish(r->owner, owner);
		if (QY_UNLIKELY(qy_checker != QY_CHECKER_NONE))
			qy_checker_mapped(addr, count << QY_FRAME_SHIFT);
		QY_PROBE4(region_map, addr, count << QY_FRAME_SHIFT, kind, got);
		qy_region_tell(r, QUARRY_REGION_MAP, addr, count << QY_FRAME_SHIFT);
		return r;
	}
	errno = is_telling(placement, error) ? error : ENOMEM;
	return NULL;
}

bool qy_region_is_threads_choice(void)
{
	return qy_policy_is_set();
}

enum qy_placed qy_region_apply(const struct qy_region *r, const struct qy_placement *placement)
{
	/* What was filled when it was mapped is all there: see qy_fill_strictly. */
	return (qy_region_pinned(r) ? qy_policy_apply_soft : qy_policy_apply)(placement, qy_region_addr(r),
									      (size_t)r->frames << QY_FRAME_SHIFT);
}

bool qy_region_place(struct qy_region *r, const struct qy_placement *placement)
{
	enum qy_placed placed = qy_region_apply(r, placement);

	if (placed == QY_PLACED_NO)
		return false;
	r->placed = (uint8_t)placed;
	qy_publish(r->placement, placement);
	return true;
}

static qy_counter purge_ns;

uint64_t qy_region_purge_ns(void)
{
	return qy_read(&purge_ns);
}

static void count_purge(uint64_t begun)
{
	qy_count_shared(&purge_ns, qy_os->now_ns() - begun);
}

static int unmap(void *addr, size_t len)
{
	uint64_t begun = qy_os->now_ns();
	int r = qy_window_unmap(addr, len);

	count_purge(begun);
	return r;
}

void qy_region_destroy(struct qy_region *r)
{
	void *addr = qy_region_addr(r);
	struct qy_memfd file = r->file;
	size_t frames = r->frames;

	QY_PROBE3(region_unmap, addr, frames << QY_FRAME_SHIFT, r->kind);
	qy_region_tell(r, QUARRY_REGION_UNMAP, addr, frames << QY_FRAME_SHIFT);
	if (QY_UNLIKELY(qy_checker != QY_CHECKER_NONE))
		qy_checker_unmapped(addr, frames << QY_FRAME_SHIFT);
	r->file.fd = 0;
	qy_publish(r->owner, NULL);
	qy_region_forget(r);
	qy_memfd_close(&file);
	/* When not even address space can be put back (a full table of mappings), the range stays claimed and mapped:
	 * lost to quarry, but never handed out twice. */
	if (unmap(addr, frames << QY_FRAME_SHIFT) == 0)
		qy_window_release(addr, frames);
	else
		qy_refuse(QUARRY_REFUSED_PURGE);
}

/* Before pages of a frame that is not to go whole are given back. */
static void break_frame(struct qy_region *r, uintptr_t from, uintptr_t end)
{
	uintptr_t frame = qy_align_down(from, QY_FRAME);

	if (from < end && (from != frame || end < frame + QY_FRAME))
		qy_region_broken(r, (void *)frame, (void *)from);
}

/* (Of a file, only a hole in it gives memory back.) */
static bool give_back(const struct qy_region *r, uintptr_t first, uintptr_t end)
{
	uint64_t begun = qy_os->now_ns();
	bool done = qy_os->madvise((void *)first, end - first, qy_region_is_file(r) ? QY_MADV_REMOVE : MADV_DONTNEED) == 0;

	count_purge(begun);
	return done;
}

bool qy_region_purge(struct qy_region *r, void *addr, size_t len)
{
	size_t page = qy_os_page_size();
	uintptr_t first = qy_align_up((uintptr_t)addr, page), end = qy_align_down((uintptr_t)addr + len, page);
	uintptr_t whole = qy_align_up(first, QY_FRAME), whole_end = qy_align_down(end, QY_FRAME);

	if (qy_region_pinned(r) || (qy_peek(r->placement->flags) & QUARRY_ARENA_LOCKED))
		return false;
	/* A piece inside one of the kernel's pages (64 KiB on some machines). */
	if (first >= end) {
		memset(addr, 0, len);
		return true;
	}
	qy_region_tell(r, QUARRY_REGION_PURGE, (void *)first, end - first);
	break_frame(r, first, qy_min(whole, end));
	if (whole_end >= whole)
		break_frame(r, whole_end, end);
	if (!give_back(r, first, end)) {
		QY_PROBE3(purge, first, end - first, 1);
		qy_refuse(QUARRY_REFUSED_PURGE);
		return false;
	}
	QY_PROBE3(purge, first, end - first, 0);
	if (whole_end > whole)
		qy_region_emptied(r, (void *)whole, (whole_end - whole) >> QY_FRAME_SHIFT);
	/* Where base pages are larger than quarry's, the edges are cleared by hand. */
	if (first != (uintptr_t)addr)
		memset(addr, 0, first - (uintptr_t)addr);
	if (end != (uintptr_t)addr + len)
		memset((void *)end, 0, (uintptr_t)addr + len - end);
	return true;
}

/* A page that was taken away answers with an error; to look at it would be a signal. */
static bool copy_page(char *to, const char *from, size_t len)
{
	if (qy_os->copy(to, from, len) == 0)
		return true;
	if (errno == EFAULT || qy_os->madvise((void *)from, len, QY_MADV_POPULATE_READ) != 0)
		return false;
	memcpy(to, from, len);
	return true;
}

bool qy_region_copy(struct qy_region *r, bool (*fetch)(void *ctx, void *to, const void *from, size_t len), void *ctx)
{
	size_t len = (size_t)r->frames << QY_FRAME_SHIFT, grain = qy_kind_grain(r->kind);
	const struct qy_placement *placement = qy_peek(r->placement);
	char *at = qy_region_addr(r), *fresh, *aligned;
	bool done = true;

	fresh = qy_os->mmap(NULL, len + QY_FRAME, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (fresh == MAP_FAILED) {
		qy_refuse(QUARRY_REFUSED_FORK);
		return false;
	}
	aligned = (char *)qy_align_up((uintptr_t)fresh, QY_FRAME);
	/* Never firmly, strict or not: the kernel would kill for want of room, and a child has no way to be told. */
	qy_policy_prefer(placement->node, aligned, len);
	qy_os->madvise(aligned, len, QY_MADV_HUGEPAGE);
	if (qy_peek(placement->flags) & QUARRY_ARENA_NODUMP)
		qy_os->madvise(aligned, len, QY_MADV_DONTDUMP);
	for (size_t i = 0; i < len && done; i += grain)
		done = copy_page(aligned + i, at + i, grain) || fetch(ctx, aligned + i, at + i, grain);
	done = done && qy_os->mremap_to(aligned, len, at) != MAP_FAILED;
	if (done) {
		r->kind = QUARRY_PAGES_THP;
		qy_publish(r->advice, QY_ADVICE_HUGE);
	} else {
		qy_refuse(QUARRY_REFUSED_FORK);
		qy_os->munmap(aligned, len);
	}
	/* What was for alignment. */
	if (aligned > fresh)
		qy_os->munmap(fresh, (size_t)(aligned - fresh));
	qy_os->munmap(aligned + len, (size_t)(fresh + QY_FRAME - aligned));
	return done;
}

bool qy_region_has_fd(const struct qy_region *r)
{
	return qy_memfd_is(&r->file);
}

bool qy_region_unshare(struct qy_region *r)
{
	const struct qy_placement *placement = qy_peek(r->placement);
	size_t len = (size_t)r->frames << QY_FRAME_SHIFT;
	struct qy_memfd file = r->file;
	void *at = qy_region_addr(r);

	if (!qy_memfd_is(&file) || qy_window_map(at, len, 0) != 0) {
		qy_refuse(QUARRY_REFUSED_FORK);
		return false;
	}
	/* Never firmly, as above. */
	qy_policy_prefer(placement->node, at, len);
	r->kind = (uint8_t)qy_min(r->kind, QUARRY_PAGES_THP);
	qy_publish(r->advice, QY_ADVICE_NONE);
	if (r->kind == QUARRY_PAGES_THP && qy_os->madvise(at, len, QY_MADV_HUGEPAGE) == 0)
		qy_publish(r->advice, QY_ADVICE_HUGE);
	if (qy_peek(placement->flags) & QUARRY_ARENA_NODUMP)
		qy_os->madvise(at, len, QY_MADV_DONTDUMP);
	if (!qy_memfd_copy(&file, at, len)) {
		qy_refuse(QUARRY_REFUSED_FORK);
		qy_window_unmap(at, len);
		return false;
	}
	qy_memfd_close(&r->file);
	return true;
}

bool qy_region_show(const struct qy_region *r)
{
	return qy_memfd_is(&r->file) &&
	       qy_os->mmap(qy_region_addr(r), (size_t)r->frames << QY_FRAME_SHIFT, PROT_READ, MAP_SHARED | MAP_FIXED,
			   r->file.fd, 0) != MAP_FAILED;
}

unsigned qy_region_resident(void *addr)
{
	unsigned char in[QY_FRAME_PAGES];
	size_t page = qy_os_page_size(), count = QY_FRAME / page;
	unsigned n = 0;

	if (qy_os->mincore(addr, QY_FRAME, in) != 0)
		return 0;
	for (size_t i = 0; i < count; i++)
		n += in[i] & 1;
	return n * (unsigned)(page >> QY_PAGE_SHIFT);
}
