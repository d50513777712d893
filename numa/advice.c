/* SPDX-License-Identifier: MIT */
/* Huge pages by frames: what the kernel is told of parts of regions, and how parts of huge pages are given back. */
#include <errno.h>

#include "lib/base/refused.h"
#include "numa/os.h"
#include "numa/region.h"
#include "numa/thp.h"

#define EXCEPTIONS_MAX 8192
#define MAP_COUNT_USUAL 65530

static _Atomic(uint64_t) exceptions;
static qy_counter untold, splits;

uint64_t qy_region_exceptions(void)
{
	return atomic_load_explicit(&exceptions, memory_order_relaxed);
}

uint64_t qy_region_untold(void)
{
	return qy_read(&untold);
}

uint64_t qy_region_splits(void)
{
	return qy_read(&splits);
}

/* Each exception may cost two mappings; all of them at most a quarter of what a process can have. */
static uint64_t most_exceptions(void)
{
	static _Atomic(uint64_t) known;
	uint64_t most = atomic_load_explicit(&known, memory_order_relaxed);
	char line[32];

	if (most != 0)
		return most;
	most = MAP_COUNT_USUAL;
	if (qy_os->read_file("/proc/sys/vm/max_map_count", line, sizeof(line)) > 0) {
		most = 0;
		for (const char *at = line; *at >= '0' && *at <= '9' && most < UINT32_MAX; at++)
			most = most * 10 + (uint64_t)(*at - '0');
	}
	most = qy_max(qy_min(most / 8, EXCEPTIONS_MAX), 1);
	atomic_store_explicit(&known, most, memory_order_relaxed);
	return most;
}

static struct qy_frame_pages *pages_at(const void *addr)
{
	return qy_pages_of_frame(qy_window_offset(addr) >> QY_FRAME_SHIFT);
}

static uint8_t told(const struct qy_region *r, struct qy_frame_pages *pages)
{
	uint8_t advice = atomic_load_explicit(&pages->advice, memory_order_relaxed);

	return advice != QY_ADVICE_NONE ? advice : qy_peek(r->advice);
}

/* Note what a frame was told. Counted by what was there before, so that the sums hold whoever else is at it. */
static void note(struct qy_region *r, struct qy_frame_pages *pages, uint8_t advice)
{
	uint8_t was;

	if (advice == qy_peek(r->advice))
		advice = QY_ADVICE_NONE;
	was = atomic_exchange_explicit(&pages->advice, advice, memory_order_relaxed);
	if (was == QY_ADVICE_NONE && advice != QY_ADVICE_NONE) {
		atomic_fetch_add_explicit(&exceptions, 1, memory_order_relaxed);
		atomic_fetch_add_explicit(&r->exceptions, 1, memory_order_relaxed);
	} else if (was != QY_ADVICE_NONE && advice == QY_ADVICE_NONE) {
		atomic_fetch_sub_explicit(&exceptions, 1, memory_order_relaxed);
		atomic_fetch_sub_explicit(&r->exceptions, 1, memory_order_relaxed);
	}
}

/* When all of a region has been told the same by and by, it is the region that was told. */
static void note_all(struct qy_region *r)
{
	uintptr_t first = qy_region_frame(r);
	uint8_t advice = atomic_load_explicit(&qy_pages_of_frame(first)->advice, memory_order_relaxed);

	if (atomic_load_explicit(&r->exceptions, memory_order_relaxed) != r->frames || advice == QY_ADVICE_NONE)
		return;
	for (uintptr_t f = first; f < first + r->frames; f++)
		if (atomic_load_explicit(&qy_pages_of_frame(f)->advice, memory_order_relaxed) != advice)
			return;
	qy_publish(r->advice, advice);
	for (uintptr_t f = first; f < first + r->frames; f++)
		note(r, qy_pages_of_frame(f), advice);
}

/* What a frame that was told `advice` must be told; none: it is well as it is. */
static uint8_t must_tell(uint8_t advice, enum qy_want want, const struct qy_thp *thp)
{
	switch (want) {
	case QY_WANT_HUGE:
		return advice == QY_ADVICE_HUGE || (advice == QY_ADVICE_NONE && thp->unasked) ? QY_ADVICE_NONE : QY_ADVICE_HUGE;
	case QY_WANT_COLLAPSIBLE:
		return advice != QY_ADVICE_BASE ? QY_ADVICE_NONE : QY_ADVICE_HUGE;
	case QY_WANT_BASE:
		return advice == QY_ADVICE_BASE || (advice == QY_ADVICE_NONE && !thp->unasked) ? QY_ADVICE_NONE
											       : QY_ADVICE_BASE;
	case QY_WANT_HOLES:
		return !thp->refills ? QY_ADVICE_NONE : must_tell(advice, QY_WANT_BASE, thp);
	}
	return QY_ADVICE_NONE;
}

/* Frames that have to be told the same. */
static bool tell(struct qy_region *r, char *addr, size_t frames, uint8_t advice)
{
	bool exceptional = advice != qy_peek(r->advice) && frames < r->frames;

	if (exceptional && qy_region_exceptions() + frames > most_exceptions()) {
		qy_count_shared(&untold, frames);
		return false;
	}
	if (qy_os->madvise(addr, frames << QY_FRAME_SHIFT,
			   advice == QY_ADVICE_HUGE ? QY_MADV_HUGEPAGE : QY_MADV_NOHUGEPAGE) != 0) {
		qy_refuse(QUARRY_REFUSED_THP);
		return false;
	}
	for (size_t i = 0; i < frames; i++)
		note(r, pages_at(addr + (i << QY_FRAME_SHIFT)), advice);
	note_all(r);
	return true;
}

bool qy_region_want(struct qy_region *r, void *addr, size_t frames, enum qy_want want)
{
	struct qy_thp thp;
	char *at = addr;
	bool all = true;

	if (qy_region_settled(r))
		return true;
	thp = qy_thp_get();
	for (size_t i = 0, end; i < frames; i = end) {
		uint8_t advice = must_tell(told(r, pages_at(at + (i << QY_FRAME_SHIFT))), want, &thp);

		for (end = i + 1; end < frames; end++)
			if (must_tell(told(r, pages_at(at + (end << QY_FRAME_SHIFT))), want, &thp) != advice)
				break;
		if (advice != QY_ADVICE_NONE && !tell(r, at + (i << QY_FRAME_SHIFT), end - i, advice))
			all = false;
	}
	return all;
}

static bool come_unasked(const struct qy_region *r)
{
	struct qy_thp thp = qy_thp_get();

	return qy_region_is_file(r) ? thp.shared_unasked : thp.unasked;
}

bool qy_region_may_be_huge(const struct qy_region *r, const void *addr)
{
	struct qy_frame_pages *pages = pages_at(addr);

	switch (atomic_load_explicit(&pages->state, memory_order_relaxed)) {
	case QY_PAGES_HUGE:
		return true;
	case QY_PAGES_AS_TOLD:
		return told(r, pages) == QY_ADVICE_HUGE || (told(r, pages) == QY_ADVICE_NONE && come_unasked(r));
	default:
		return false;
	}
}

/* MADV_COLD (Linux 5.4) of a part splits the huge page; it is meant for memory that goes anyway. Before, the kernel
 * splits when it runs short. Whatever it says, a page that is pinned or shared with a child stays whole. */
void qy_region_broken(struct qy_region *r, void *frame_addr, void *going)
{
	struct qy_frame_pages *pages = pages_at(frame_addr);
	int error = errno;

	if (!qy_region_may_be_huge(r, frame_addr))
		return;
	/* (A hole in a file takes a huge page apart by itself.) */
	if (!qy_region_is_file(r))
		qy_os->madvise((void *)qy_align_down((uintptr_t)going, qy_os_page_size()), qy_os_page_size(), QY_MADV_COLD);
	qy_count_shared(&splits, 1);
	atomic_store_explicit(&pages->state, QY_PAGES_BROKEN, memory_order_relaxed);
	qy_region_want(r, frame_addr, 1, QY_WANT_HOLES);
	errno = error;
}

void qy_region_emptied(struct qy_region *r, void *addr, size_t frames)
{
	char *at = addr;

	for (size_t i = 0, end; i < frames; i = end) {
		for (end = i; end < frames; end++) {
			struct qy_frame_pages *pages = pages_at(at + (end << QY_FRAME_SHIFT));

			atomic_store_explicit(&pages->state, QY_PAGES_AS_TOLD, memory_order_relaxed);
			if (told(r, pages) == qy_peek(r->advice) || qy_peek(r->advice) == QY_ADVICE_NONE)
				break;
		}
		if (end > i)
			tell(r, at + (i << QY_FRAME_SHIFT), end - i, qy_peek(r->advice));
		else
			end++;
	}
}

size_t qy_region_alike(const struct qy_region *r, const void *addr, size_t len)
{
	const char *at = addr;
	uint8_t advice = told(r, pages_at(at));
	size_t alike = QY_FRAME;

	while (alike < len && told(r, pages_at(at + alike)) == advice)
		alike += QY_FRAME;
	return qy_min(alike, len);
}

void qy_region_moved(struct qy_region *from_region, void *from, size_t frames, struct qy_region *to_region, void *to)
{
	uint8_t advice = told(from_region, pages_at(from)), wanted = qy_peek(to_region->advice);
	bool untold_there = advice == QY_ADVICE_NONE && wanted != QY_ADVICE_NONE;
	bool small = untold_there && !come_unasked(from_region);

	/* None is what cannot be noted of a part of a region that was told something: it is told as well. */
	if (untold_there &&
	    qy_os->madvise(to, frames << QY_FRAME_SHIFT,
			   wanted == QY_ADVICE_HUGE ? QY_MADV_HUGEPAGE : QY_MADV_NOHUGEPAGE) != 0)
		qy_refuse(QUARRY_REFUSED_THP);
	for (size_t i = 0; i < frames; i++) {
		struct qy_frame_pages *was = pages_at((char *)from + (i << QY_FRAME_SHIFT));
		struct qy_frame_pages *is = pages_at((char *)to + (i << QY_FRAME_SHIFT));
		uint8_t state = atomic_exchange_explicit(&was->state, QY_PAGES_AS_TOLD, memory_order_relaxed);

		if (small && state == QY_PAGES_AS_TOLD)
			state = QY_PAGES_SMALL;
		atomic_store_explicit(&is->state, state, memory_order_relaxed);
		note(to_region, is, untold_there ? wanted : advice);
	}
}

void qy_region_forget(struct qy_region *r)
{
	uintptr_t first = qy_region_frame(r);

	for (uintptr_t f = first; f < first + r->frames; f++) {
		struct qy_frame_pages *pages = qy_pages_of_frame(f);

		note(r, pages, qy_peek(r->advice));
		atomic_store_explicit(&pages->state, QY_PAGES_AS_TOLD, memory_order_relaxed);
		pages->fails = 0;
		pages->dense = false;
		pages->again = 0;
	}
}

bool qy_region_collapse(struct qy_region *r, void *addr, size_t len)
{
	char *at = addr;
	int error = 0;

	if (qy_region_settled(r))
		return true;
	for (size_t i = 0; i < len; i += QY_FRAME) {
		struct qy_frame_pages *pages = pages_at(at + i);

		errno = ENOSPC;
		if (qy_region_want(r, at + i, 1, QY_WANT_COLLAPSIBLE) &&
		    qy_os->madvise(at + i, QY_FRAME, QY_MADV_COLLAPSE) == 0) {
			atomic_store_explicit(&pages->state, QY_PAGES_HUGE, memory_order_relaxed);
			continue;
		}
		error = error == 0 ? errno : error;
		qy_refuse(QUARRY_REFUSED_THP);
	}
	errno = error;
	return error == 0;
}
