/* SPDX-License-Identifier: MIT */
#include "lib/manager/snapshot.h"

#include <errno.h>
#include <sys/mman.h>

#include "lib/manager/grains.h"
#include "lib/manager/manager.h"
#include "lib/manager/sparse.h"
#include "numa/os.h"

struct qy_snapshot *qy_snapshot_now;

/* ---- marks ---- */

static void mark_at(struct qy_snapshot *s, uintptr_t offset, enum qy_snap_mark mark)
{
	uintptr_t grain = offset / QY_SNAP_GRAIN;
	_Atomic(uint64_t) *word = &s->marks[grain / 32];
	unsigned shift = (unsigned)(grain % 32) * 2;

	if (offset < s->bytes && (atomic_load_explicit(word, memory_order_relaxed) >> shift & 3) == QY_SNAP_SAME)
		atomic_fetch_or_explicit(word, (uint64_t)mark << shift, memory_order_relaxed);
}

void qy_snapshot_mark(const void *p, enum qy_snap_mark mark)
{
	struct qy_snapshot *s = qy_snapshot_of_now();

	if (s != NULL)
		mark_at(s, qy_window_offset(p), mark);
}

void qy_snapshot_freed(const void *p, bool entered)
{
	struct qy_manager *m = entered ? NULL : qy_manager_of(p);

	if (entered) {
		qy_snapshot_mark(p, QY_SNAP_LIVED);
	} else if (m != NULL) {
		qy_lock(&m->lock);
		qy_snapshot_mark(p, QY_SNAP_LIVED);
		qy_unlock(&m->lock);
	}
}

bool qy_snapshot_may_be_object(const void *p)
{
	return (uintptr_t)p % QY_SNAP_GRAIN == 0 && qy_manager_of(p) != NULL;
}

/* Where a list ended otherwise than it should. */
static void note_unsound(struct qy_snapshot *s)
{
	atomic_fetch_add_explicit(&s->unsound, 1, memory_order_relaxed);
}

#define LIST_MAX (QY_UNIT / 16 * 4)

void qy_snapshot_mark_list(void *list, uint32_t at_most, enum qy_snap_mark mark)
{
	struct qy_snapshot *s = qy_snapshot_of_now();

	at_most = (uint32_t)qy_min(at_most, LIST_MAX);
	for (; s != NULL && list != NULL && at_most > 0 && qy_snapshot_may_be_object(list); at_most--) {
		mark_at(s, qy_window_offset(list), mark);
		list = qy_next_object(list);
	}
	if (s != NULL && list != NULL)
		note_unsound(s);
}

void qy_snapshot_mark_mail(void *list, uint32_t at_most)
{
	struct qy_snapshot *s = qy_snapshot_of_now();
	struct qy_snap_round round = { NULL, 0, 0 };
	uintptr_t last = 0;

	for (uint64_t n = 0; s != NULL && list != NULL; n++) {
		if (n >= at_most && (n - at_most > QY_UNIT / 16 || ((uintptr_t)list ^ last) >> QY_UNIT_SHIFT != 0))
			break;
		if (!qy_snapshot_may_be_object(list) || qy_snap_goes_round(&round, list)) {
			note_unsound(s);
			break;
		}
		mark_at(s, qy_window_offset(list), QY_SNAP_CACHED);
		last = (uintptr_t)list;
		list = qy_next_object(list);
	}
}

/* ---- slabs ---- */

static uintptr_t unit_of(const struct qy_slab *s)
{
	return qy_window_offset(qy_slab_memory(s)) >> QY_UNIT_SHIFT;
}

/* The first that is noted is kept. Whether it was this one. */
static bool note_class(struct qy_snapshot *s, uintptr_t unit, unsigned what)
{
	uint8_t none = 0;

	return unit < s->bytes >> QY_UNIT_SHIFT &&
	       atomic_compare_exchange_strong_explicit(&s->classes[unit], &none, (uint8_t)what, memory_order_relaxed,
						       memory_order_relaxed);
}

void qy_snapshot_slab_begins(const struct qy_slab *slab)
{
	struct qy_snapshot *s = qy_snapshot_of_now();

	if (s != NULL)
		(void)note_class(s, unit_of(slab), QY_SNAP_NO_SLAB);
}

/* (All of a mixed one's grains were noted by whoever changed them. A spare one was none.) */
void qy_snapshot_slab_ends(const struct qy_slab *slab)
{
	struct qy_snapshot *s = qy_snapshot_of_now();

	if (s != NULL)
		(void)note_class(s, unit_of(slab),
				 slab->kind == QY_SLAB_HEAD ? (qy_peek(slab->cls) + 1u) | QY_SNAP_ENDED : QY_SNAP_NO_SLAB);
}

void qy_snapshot_note_full(struct qy_snapshot *s, const struct qy_slab *slab, unsigned cls)
{
	(void)note_class(s, unit_of(slab), cls + 1);
}

static uint32_t mark_free_ones(struct qy_snapshot *s, const struct qy_slab *slab)
{
	uint32_t n = 1;
	const struct qy_class *c = &qy_classes[slab->cls];
	uintptr_t offset = qy_window_offset(qy_slab_memory(slab));
	uint64_t free_ones[QY_SLAB_WORDS];

	if (!qy_slab_find_free(slab, free_ones)) {
		note_unsound(s);
		return n;
	}
	for (uint32_t i = 0; i < c->capacity; i++)
		if (free_ones[i / 64] >> (i % 64) & 1) {
			mark_at(s, offset + (uintptr_t)i * c->size, QY_SNAP_FREE);
			n++;
		}
	return n;
}

static void mark_free_grains(struct qy_snapshot *s, const struct qy_slab *slab)
{
	const struct qy_mixed_slab *r = slab->local;
	uint64_t gone = qy_slab_gone(slab);
	uintptr_t offset = qy_window_offset(qy_slab_memory(slab));

	for (uint32_t i = 0; i < QY_MIXED_GRAINS; i++)
		if (qy_grain_is(r->free, i) || qy_grain_is_parked(gone, i))
			mark_at(s, offset + (uintptr_t)i * QY_MIXED_GRAIN, QY_SNAP_FREE);
	for (uint32_t w = 0; w < QY_MIXED_WORDS; w++)
		atomic_store_explicit(&s->ends[offset / QY_SNAP_GRAIN / 64 + w], r->end[w], memory_order_relaxed);
}

uint32_t qy_snapshot_look_at_slab(const struct qy_slab *slab)
{
	struct qy_snapshot *s = qy_snapshot_of_now();
	uintptr_t unit = unit_of(slab);
	uint32_t n = 1;

	if (s == NULL || unit >= s->bytes >> QY_UNIT_SHIFT ||
	    atomic_load_explicit(&s->classes[unit], memory_order_relaxed) != 0)
		return n;
	if (slab->state == QY_SLAB_MIXED)
		mark_free_grains(s, slab);
	else
		n = mark_free_ones(s, slab);
	(void)note_class(s, unit, slab->state == QY_SLAB_MIXED ? QY_SNAP_MIXED : slab->cls + 1u);
	return n;
}

/* ---- blocks ---- */

void qy_snapshot_large(const void *p, size_t bytes)
{
	struct qy_snapshot *s = qy_snapshot_of_now();
	uintptr_t offset = qy_window_offset(p);
	uint64_t n;

	if (s == NULL || offset >= s->bytes || qy_snapshot_mark_of(s, offset) != QY_SNAP_SAME)
		return;
	mark_at(s, offset, QY_SNAP_LIVED);
	n = atomic_fetch_add_explicit(&s->block_count, 1, memory_order_relaxed);
	if (n < s->block_room)
		s->blocks[n] = (struct qy_snap_block){ offset, bytes };
}

/* ---- making one ---- */

bool qy_snapshot_map(struct qy_snapshot *s)
{
	/* (What is claimed between now and the moment is left out of the marks: so there is some more.) */
	size_t bytes = qy_window_claimed() + QY_ZONE, grains = bytes / QY_SNAP_GRAIN;
	size_t marks = grains / 4, ends = grains / 8, classes = qy_align_up(bytes >> QY_UNIT_SHIFT, QY_PAGE);
	size_t blocks = (bytes >> QY_PAGE_SHIFT) * sizeof(struct qy_snap_block);
	char *p;

	*s = (struct qy_snapshot){ .bytes = bytes, .mapped = marks + ends + classes + blocks };
	p = qy_os->mmap(NULL, s->mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED) {
		errno = ENOMEM;
		return false;
	}
	s->marks = (void *)p;
	s->ends = (void *)(p + marks);
	s->classes = (void *)(p + marks + ends);
	s->blocks = (void *)(p + marks + ends + classes);
	s->block_room = bytes >> QY_PAGE_SHIFT;
	return true;
}

static void touch(volatile char *from, volatile char *to)
{
	for (from = (volatile char *)qy_align_down((uintptr_t)from, QY_PAGE); from < to; from += QY_PAGE)
		*from = 0;
}

void qy_snapshot_touch(struct qy_snapshot *s)
{
	uint32_t frames = (uint32_t)(qy_min(qy_window_claimed(), s->bytes) >> QY_FRAME_SHIFT);

	for (uint32_t f = 1; f < frames; f++) {
		uintptr_t offset = (uintptr_t)f << QY_FRAME_SHIFT;
		volatile char *marks = (volatile char *)s->marks + offset / QY_SNAP_GRAIN / 4;

		if (qy_region_of_frame(qy_frame_at(f)) != NULL && qy_peek(qy_frame_at(f)->filler) != 0)
			touch(marks, marks + QY_FRAME / QY_SNAP_GRAIN / 4);
	}
}

void qy_snapshot_unmap(struct qy_snapshot *s)
{
	if (s->marks != NULL)
		qy_os->munmap((void *)s->marks, s->mapped);
	s->marks = NULL;
}

void qy_snapshot_begin(struct qy_snapshot *s)
{
	s->bytes = qy_min(s->bytes, qy_window_claimed());
	__atomic_store_n(&qy_snapshot_now, s, __ATOMIC_RELEASE);
}

void qy_snapshot_end(void)
{
	__atomic_store_n(&qy_snapshot_now, NULL, __ATOMIC_RELEASE);
}
