/* SPDX-License-Identifier: MIT */
/* Which pages of the live image were written. The kernel notes it in each process's page tables, for the mapping that the process
 * has; whoever makes a checkpoint asks for all of them by /proc/PID/pagemap, which takes no thread and no signal there. What a process
 * knows when it leaves, it leaves in bits beside the image. What it knew when it was killed nobody knows: then pages are
 * compared with what the file has. */
#include <errno.h>
#include <string.h>

#include "lib/api/error.h"
#include "lib/mapped/durable.h"

#define RANGES 1024
#define LEAVING 256 /* on the stack */

/* Of a mapping that nothing was written by yet: what the page tables say of it means nothing. False where it is not noted. */
static bool begin_anew(const struct heap *h)
{
	struct qy_page_range ranges[64];
	uintptr_t at = (uintptr_t)h->pub.base, end = at + h->sb.head_bytes;

	if (h->live->end > h->sb.head_bytes && h->live->end <= h->pub.length)
		end = at + h->live->end;
	while (at < end) {
		if (qy_os->written(h->durable->pagemap, &at, end, ranges, sizeof(ranges) / sizeof(ranges[0])) < 0)
			return false;
	}
	return true;
}

void qy_dirty_arm(struct heap *h)
{
	struct qy_durable *d = h->durable;

	/* (A huge page that was written may leave the page table, whole, before anybody asked.) */
	(void)qy_os->madvise(h->map, h->map_len, QY_MADV_NOHUGEPAGE);
	d->track = qy_os->track_writes(h->map, h->map_len);
	if (d->track < 0)
		return;
	d->pagemap = qy_os->open_pagemap(qy_os->process_id());
	if (d->pagemap >= 0 && begin_anew(h))
		return;
	if (d->pagemap >= 0)
		(void)qy_os->close(d->pagemap);
	(void)qy_os->close(d->track);
	d->track = d->pagemap = -1;
}

void qy_dirty_publish(struct heap *h)
{
	struct qy_durable *d = h->durable;
	struct qy_side_session *s = &d->sessions[h->session];

	s->pid = (uint64_t)qy_os->process_id();
	s->base = (uintptr_t)h->pub.base;
	s->pid_space = qy_os->process_space();
	QY_DURABLE_POINT();
	qy_put(s->state, d->track >= 0 && s->pid_space != 0 ? QY_TRACK_ASKED : QY_TRACK_NOT);
	QY_DURABLE_POINT();
}

void qy_dirty_note(struct heap *h, uint64_t at, uint64_t len)
{
	uint64_t first = at >> QY_PAGE_SHIFT, behind = (at + len + QY_PAGE - 1) >> QY_PAGE_SHIFT;

	for (uint64_t i = first; i < qy_min(behind, h->durable->max_pages);) {
		uint64_t in = qy_min(64 - i % 64, behind - i), bits = in == 64 ? ~(uint64_t)0 : (((uint64_t)1 << in) - 1) << i % 64;

		__atomic_fetch_or(&h->durable->bits[i / 64], bits, __ATOMIC_RELEASE);
		i += in;
	}
}

void qy_dirty_suspect(struct heap *h)
{
	qy_put(h->durable->side->suspect, 1);
}

bool qy_dirty_is_known(const struct heap *h, uint32_t session)
{
	return qy_peek(h->durable->sessions[session].state) != QY_TRACK_NONE;
}

void qy_dirty_died(struct heap *h, uint32_t session)
{
	struct qy_durable *d = h->durable;

	if (qy_peek(d->sessions[session].state) == QY_TRACK_NONE)
		return;
	qy_put(d->side->suspect, 1);
	QY_DURABLE_POINT();
	qy_put(d->sessions[session].state, QY_TRACK_NONE);
	QY_DURABLE_POINT();
}

QUARRY_API int quarry_mapped_wrote(quarry_mapped *heap, const void *p, size_t n)
{
	struct heap *h = qy_heap(heap);
	uintptr_t at = (uintptr_t)p - (uintptr_t)heap->base;

	if (qy_mapped_refuse(h) != 0)
		return -1;
	if (at > heap->length || n > heap->length - at)
		return qy_fail(EINVAL, "mapped heap: the bytes are not in it");
	if (h->durable != NULL && n != 0)
		qy_dirty_note(h, at, n);
	return 0;
}

/* ---- asking sessions ---- */

bool qy_asked_open(const struct heap *h, struct qy_asked *asked)
{
	asked->pagemap = quarry_malloc(h->sb.sessions * sizeof(*asked->pagemap));
	asked->ranges = quarry_malloc(RANGES * sizeof(*asked->ranges));
	for (uint32_t i = 0; asked->pagemap != NULL && i < h->sb.sessions; i++)
		asked->pagemap[i] = -1;
	return asked->pagemap != NULL && asked->ranges != NULL;
}

void qy_asked_close(const struct heap *h, struct qy_asked *asked)
{
	for (uint32_t i = 0; asked->pagemap != NULL && i < h->sb.sessions; i++) {
		if (asked->pagemap[i] >= 0)
			(void)qy_os->close(asked->pagemap[i]);
	}
	quarry_free(asked->pagemap);
	quarry_free(asked->ranges);
}

static void set_range(uint64_t *bits, uint64_t from, uint64_t to)
{
	for (uint64_t i = from; i < to;) {
		if (i % 64 == 0 && to - i >= 64) {
			bits[i / 64] = ~(uint64_t)0;
			i += 64;
		} else {
			qy_bit_set(bits, i++);
		}
	}
}

/* One session's, into bits. That its process was there all the time is known afterwards: its memory goes from the lowest address on,
 * and the live page, which each session has had a look at, is below all others. */
static bool ask(struct heap *h, const struct qy_side_session *s, int pagemap, struct qy_page_range *ranges, uint64_t *bits,
		uint64_t pages)
{
	uintptr_t base = (uintptr_t)s->base, at = base, end = base + pages * QY_PAGE;

	(void)h;
	while (at < end) {
		long n = qy_os->written(pagemap, &at, end, ranges, RANGES);

		if (n < 0)
			return false;
		for (long i = 0; i < n; i++)
			set_range(bits, (ranges[i].from - base) >> QY_PAGE_SHIFT,
				  qy_min(pages, (ranges[i].to - base + QY_PAGE - 1) >> QY_PAGE_SHIFT));
	}
	return qy_os->is_tracked(pagemap, base + QY_LIVE_PAGE * QY_PAGE);
}

/* (A session that is dead is cleaned up after by the next who looks for such: until then it is one that cannot be asked.) */
static bool ask_session(struct heap *h, struct qy_asked *asked, uint32_t i, uint64_t *bits, uint64_t pages)
{
	const struct qy_side_session *s = &h->durable->sessions[i];

	if (i == h->session)
		return h->durable->track >= 0 && ask(h, s, h->durable->pagemap, asked->ranges, bits, pages);
	if (s->state != QY_TRACK_ASKED || s->pid_space != qy_os->process_space())
		return false;
	if (asked->pagemap[i] < 0)
		asked->pagemap[i] = qy_os->open_pagemap((int)s->pid);
	return asked->pagemap[i] >= 0 && ask(h, s, asked->pagemap[i], asked->ranges, bits, pages) &&
	       qy_os->range_locked(h->fd, QY_MAPPED_LOCK_SESSION + i, 1) == 1;
}

bool qy_dirty_gather(struct heap *h, struct qy_asked *asked, uint64_t *bits, uint64_t pages)
{
	struct qy_durable *d = h->durable;
	bool all_known = true;

	/* (Of pages behind those that are asked for, bits stay.) */
	for (uint64_t w = 0; w * 64 < pages; w++) {
		uint64_t mask = pages - w * 64 >= 64 ? ~(uint64_t)0 : ((uint64_t)1 << (pages - w * 64)) - 1;

		if ((qy_peek(d->bits[w]) & mask) != 0)
			bits[w] |= __atomic_fetch_and(&d->bits[w], ~mask, __ATOMIC_ACQ_REL) & mask;
	}
	QY_DURABLE_POINT();
	for (uint32_t i = 0; i < h->sb.sessions; i++) {
		if (__atomic_load_n(&d->sessions[i].state, __ATOMIC_ACQUIRE) != QY_TRACK_NONE &&
		    !ask_session(h, asked, i, bits, pages))
			all_known = false;
	}
	return all_known;
}

/* Whoever makes a checkpoint has the lock when it asks for the last time: so either this process is asked, or its bits are there. (What
 * the lock's own words do afterwards is of the live page, which is always in.) Bits that are set for nothing, where it dies midway, do no
 * harm: its session is known until all are there. */
void qy_dirty_retire(struct heap *h)
{
	struct qy_durable *d = h->durable;
	uint64_t end = qy_min(h->live->end, d->max_pages << QY_PAGE_SHIFT);
	uintptr_t base = (uintptr_t)h->pub.base, at = base;
	struct qy_page_range ranges[LEAVING];
	bool known = d->track >= 0;

	while (known && at < base + end) {
		long n = qy_os->written(d->pagemap, &at, base + end, ranges, LEAVING);

		known = n >= 0;
		QY_DURABLE_POINT();
		for (long i = 0; i < n; i++)
			qy_dirty_note(h, ranges[i].from - base, ranges[i].to - ranges[i].from);
	}
	if (!known || !qy_os->is_tracked(d->pagemap, base + QY_LIVE_PAGE * QY_PAGE))
		qy_put(d->side->suspect, 1);
	QY_DURABLE_POINT();
	qy_put(d->sessions[h->session].state, QY_TRACK_NONE);
	QY_DURABLE_POINT();
}
