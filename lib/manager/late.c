/* SPDX-License-Identifier: MIT */
#include "lib/manager/late.h"

#include <string.h>

#include "lib/manager/mixed.h"

static bool any;

static uint32_t frame_of(const void *p)
{
	return (uint32_t)(qy_window_offset(p) >> QY_FRAME_SHIFT);
}

void qy_late_note(const void *p, size_t len)
{
	for (uint32_t f = frame_of(p), end = f + (uint32_t)(len >> QY_FRAME_SHIFT); f < end; f++)
		qy_frame_at(f)->late = true;
	any = true;
}

bool qy_late_any(void)
{
	return any;
}

/* ---- lists ---- */

static bool can_be_read(const void *p)
{
	const struct qy_frame *frame;

	if (!qy_window_has(p))
		return false;
	frame = qy_frame_at(frame_of(p));
	return qy_region_of_frame(frame) != NULL && !frame->late;
}

/* (What was freed twice may have made a circle of it: one that goes round comes by the mark, which is set anew after
 * ever more steps.) */
void **qy_late_cut(void **list)
{
	void **at = list, *mark = NULL;
	size_t steps = 0, next = 64;

	while (*at != NULL && *at != mark && can_be_read(*at)) {
		at = *at;
		if (++steps == next) {
			mark = at;
			next *= 2;
		}
	}
	/* (Where nothing is cut, nothing is written.) */
	if (*at != NULL)
		*at = NULL;
	return at;
}

void qy_late_cut_mail(struct qy_heap *h)
{
	void *list = atomic_load_explicit(&h->remote, memory_order_relaxed);

	qy_late_cut(&h->mail);
	if (list == NULL || list == QY_REMOTE_CLOSED)
		return;
	qy_late_cut(&list);
	atomic_store_explicit(&h->remote, list, memory_order_relaxed);
}

/* ---- memory ---- */

/* Clean memory reads as zero, where it can be written. */
static void clear(const struct qy_region *r, uint32_t page, size_t from, uint32_t pages)
{
	size_t bytes = (size_t)pages << QY_PAGE_SHIFT;

	if (r->kind < QUARRY_PAGES_2M && from < bytes)
		memset(qy_window_at((uintptr_t)page << QY_PAGE_SHIFT) + from, 0, bytes - from);
}

/* A slab, or what is kept as a spare. Its list is within the slab, so in one frame: all of it goes. */
static void mend_slab(const struct qy_region *r, struct qy_slab *s, uint32_t page, uint32_t pages)
{
	if (s->kind != QY_SLAB_HEAD || s->state == QY_SLAB_MIXED)
		return;
	s->local = NULL;
	qy_publish(s->countdown, s->state == QY_SLAB_FULL ? 1 : s->linked);
	if (s->zero && s->carved < qy_classes[s->cls].capacity)
		clear(r, page, (size_t)s->carved * qy_classes[s->cls].size, pages);
}

static void mend_pages(const struct qy_region *r, uint32_t f)
{
	qy_page first = f * QY_FRAME_PAGES;

	for (qy_page b = first; b < first + QY_FRAME_PAGES; b += qy_block_length(&qy_page_map, b)) {
		uint32_t length = qy_block_length(&qy_page_map, b);

		if (qy_block_used(&qy_page_map, b) && qy_block_tag(&qy_page_map, b) == QY_USE_SLAB)
			mend_slab(r, qy_slab_at((uintptr_t)b << QY_PAGE_SHIFT), b, length);
		else if (!qy_block_used(&qy_page_map, b) && qy_block_clean(&qy_page_map, b))
			clear(r, b, 0, length);
	}
}

static void mend_region(const struct qy_region *r)
{
	uint32_t first = (uint32_t)qy_region_frame(r), end = first + r->frames, next;

	for (uint32_t run = first; run < end; run = next) {
		bool in_use = qy_block_used(&qy_run_map, run), clean = qy_block_clean(&qy_run_map, run);

		next = run + qy_block_length(&qy_run_map, run);
		for (uint32_t f = run; f < next; f++) {
			if (!qy_frame_at(f)->late)
				continue;
			if (in_use && qy_frame_at(f)->filler != 0)
				mend_pages(r, f);
			else if (!in_use && clean)
				clear(r, f * QY_FRAME_PAGES, 0, QY_FRAME_PAGES);
		}
	}
}

void qy_late_mend(struct qy_manager *m)
{
	qy_lock(&m->lock);
	qy_late_cut_mail(&m->orphans);
	qy_late_cut_mail(&m->thinning);
	if (m->mixed != NULL)
		qy_late_cut_mail(&m->mixed->heap);
	for (const struct qy_region *r = m->regions; r != NULL; r = r->next)
		mend_region(r);
	qy_unlock(&m->lock);
}

void qy_late_forget(void)
{
	for (struct qy_manager *m = qy_manager_next(NULL); m != NULL; m = qy_manager_next(m)) {
		qy_lock(&m->lock);
		for (const struct qy_region *r = m->regions; r != NULL; r = r->next)
			for (uint32_t f = 0; f < r->frames; f++)
				qy_frame_at((uint32_t)qy_region_frame(r) + f)->late = false;
		qy_unlock(&m->lock);
	}
	any = false;
}
