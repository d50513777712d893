/* SPDX-License-Identifier: MIT */
/* What allocates and frees in a heap, and the heap as a manager. */
#include <errno.h>
#include <string.h>

#include "lib/api/error.h"
#include "lib/mapped/mapped.h"

/* ---- taking ---- */

static void *take_block(struct heap *h, size_t size, uint64_t *note)
{
	uint64_t off;
	int error;

	if (qy_mapped_enter(h) != 0)
		return NULL;
	off = qy_run_block_take(h, size);
	error = errno;
	if (off != UINT64_MAX && note != NULL)
		qy_redo_store(h, note, (uint64_t)(h->segs - h->pub.base) + off);
	if (off != UINT64_MAX)
		qy_redo_commit(h);
	qy_mapped_leave(h);
	if (off != UINT64_MAX)
		return h->segs + off;
	qy_fail(error, "mapped heap: no %zu bytes more", size);
	return NULL;
}

void *qy_mapped_take(struct heap *h, struct qy_mapped_local *l, size_t size, uint64_t *note)
{
	char *p;

	if (size > QY_MAPPED_SMALL)
		return take_block(h, size, note);
	return qy_small_reserve(h, l, qy_mapped_class_of(size), note, &p) ? p : NULL;
}

static void *__attribute__((noinline)) alloc_slow(struct heap *h, size_t size)
{
	struct qy_mapped_local *l;

	if (qy_mapped_refuse(h) != 0)
		return NULL;
	l = qy_local_find(h);
	if (l == NULL)
		return NULL;
	if (l != qy_mapped_mine) { /* to the front: the next one is a hit */
		struct qy_mapped_local **at = &qy_mapped_mine;

		while (*at != l)
			at = &(*at)->next;
		*at = l->next;
		l->next = qy_mapped_mine;
		qy_mapped_mine = l;
	}
	return qy_mapped_take(h, l, size, NULL);
}

QUARRY_API void *quarry_mapped_alloc(quarry_mapped *heap, size_t size)
{
	struct heap *h = qy_heap(heap);
	struct qy_mapped_local *l = qy_mapped_mine;

	if (QY_LIKELY(l != NULL && qy_peek(l->heap) == h && size <= QY_MAPPED_SMALL)) {
		struct qy_mapped_bin *b = &l->bin[qy_mapped_class_of(size)];
		uint64_t v = *b->word;

		if (QY_LIKELY(v != 0 && qy_peek(h->live->bad_classes) == 0)) {
			qy_publish(*b->word, v & (v - 1));
			QY_ORDER(); /* before the program says to anybody that it has it */
			return b->at + (size_t)__builtin_ctzll(v) * b->size;
		}
	}
	return alloc_slow(h, size);
}

/* Objects of a class stand at multiples of its size, from a multiple of 64 KiB on. */
QUARRY_API void *quarry_mapped_alloc_aligned(quarry_mapped *heap, size_t alignment, size_t size)
{
	if (!qy_is_pow2(alignment) || alignment > QY_MAPPED_UNIT) {
		qy_fail(EINVAL, "alignment: %zu is not a power of two up to 64 KiB", alignment);
		return NULL;
	}
	if (alignment > 16 && size <= QY_MAPPED_SMALL) {
		uint32_t cls = qy_mapped_class_of(size);

		while (cls < QY_MAPPED_CLASSES && qy_mapped_classes[cls].size % alignment != 0)
			cls++;
		size = cls < QY_MAPPED_CLASSES ? qy_mapped_classes[cls].size : QY_MAPPED_UNIT;
	}
	return quarry_mapped_alloc(heap, size);
}

/* ---- giving ---- */

static int no_object(void)
{
	return qy_fail(EINVAL, "mapped heap: no object in use begins there");
}

static int give_block(struct heap *h, uint64_t off)
{
	int rc;

	if (qy_run_block_usable(h, off) == 0)
		return no_object();
	if (qy_mapped_enter(h) != 0)
		return -1;
	rc = qy_run_block_give(h, off);
	qy_redo_commit(h);
	qy_mapped_leave(h);
	return rc == 0 ? 0 : no_object();
}

int qy_mapped_give(struct heap *h, uint64_t off)
{
	struct qy_mapped_local *l = qy_local_known(h);
	struct qy_mapped_object o;

	off -= (uint64_t)(h->segs - h->pub.base);
	if (!qy_object_find(h, off, &o))
		return give_block(h, off);
	if (!qy_object_live(&o))
		return no_object();
	if (qy_mapped_refuse_class(h, o.cls) != 0)
		return -1;
	QY_POINT();
	if (l != NULL && l->owner == o.owner) {
		uint64_t v = *o.word;

		qy_put(*o.word, v | o.bit);
		QY_POINT();
		if (v == 0)
			qy_slab_has_room(h, l, o.unit, o.cls);
		return 0;
	}
	/* Whoever sets it first has freed it. */
	if ((__atomic_fetch_or(o.word + QY_REMOTE_WORDS, o.bit, __ATOMIC_ACQ_REL) & o.bit) != 0)
		return no_object();
	QY_POINT();
	qy_object_freed_by_other(h, &o);
	return 0;
}

static int __attribute__((noinline)) free_slow(struct heap *h, const void *p)
{
	if (p == NULL)
		return 0;
	if (qy_mapped_refuse(h) != 0)
		return -1;
	return qy_mapped_give(h, (uint64_t)((const char *)p - h->pub.base));
}

QUARRY_API int quarry_mapped_free(quarry_mapped *heap, void *p)
{
	struct heap *h = qy_heap(heap);
	struct qy_mapped_local *l = qy_mapped_mine;
	uint64_t off = (uint64_t)((char *)p - h->segs);

	/* (The record of a unit that is memory can be read, whatever stands there; only slabs of this lane are freed
	 * to here, and these are as the lane's thread knows them.) */
	if (QY_LIKELY(l != NULL && qy_peek(l->heap) == h && off < h->seg_bytes &&
		      (uint8_t)qy_peek(h->segtab[off >> QY_MAPPED_SEG_SHIFT]) == QY_SEG_UNITS)) {
		uint64_t unit = off >> QY_MAPPED_UNIT_SHIFT, state = qy_peek(qy_unit_at(h, unit)->state);
		uint32_t cls = qy_unit_class(state) & 63, at = (uint32_t)(off & (QY_MAPPED_UNIT - 1)), index;
		const struct qy_mapped_class *k = &qy_mapped_classes[cls];
		uint64_t *word, v, bit;

		index = (uint32_t)((uint64_t)at * k->recip >> 32);
		word = qy_unit_bits(h, unit) + index / 64;
		bit = (uint64_t)1 << index % 64;
		if (QY_LIKELY((state & 0xffff00ff) == ((uint64_t)l->owner << 16 | QY_UNIT_SLAB) && at < k->limit &&
			      index * k->size == at)) {
			v = *word;
			if (QY_LIKELY((v & bit) == 0 && v != 0 && (qy_peek(word[QY_REMOTE_WORDS]) & bit) == 0 &&
				      qy_peek(h->live->bad_classes) == 0)) {
				QY_ORDER(); /* behind what the program did that nobody has it */
				qy_publish(*word, v | bit);
				return 0;
			}
		}
	}
	return free_slow(h, p);
}

/* ---- looking ---- */

QUARRY_API size_t quarry_mapped_usable(const quarry_mapped *heap, const void *p)
{
	const struct heap *h = qy_heap(heap);
	uint64_t off = (uint64_t)((const char *)p - h->segs);
	struct qy_mapped_object o;

	if (p == NULL)
		return 0;
	if (qy_object_find(h, off, &o))
		return qy_object_live(&o) ? qy_mapped_classes[o.cls].size : 0;
	return qy_run_block_usable(h, off);
}

/* Whether [off, off + n), from segs, are memory of one slab, or block. Where a block of many segments is, only its beginning is
 * looked for in the table, backwards. */
static bool is_memory(const struct heap *h, uint64_t off, uint64_t n)
{
	uint64_t seg = off >> QY_MAPPED_SEG_SHIFT, unit = off >> QY_MAPPED_UNIT_SHIFT, state;

	if (off >= h->seg_bytes || seg >= qy_peek(h->live->segments))
		return false;
	while (seg > 0 && (uint8_t)qy_peek(h->segtab[seg]) == QY_SEG_TAIL)
		seg--;
	if ((uint8_t)qy_peek(h->segtab[seg]) == QY_SEG_BLOCK) {
		uint64_t usable = qy_run_block_usable(h, seg << QY_MAPPED_SEG_SHIFT), at = off - (seg << QY_MAPPED_SEG_SHIFT);

		return usable != 0 && at < usable && n <= usable - at;
	}
	if (!qy_unit_is(h, unit))
		return false;
	state = qy_peek(qy_unit_at(h, unit)->state);
	if (qy_unit_kind(state) == QY_UNIT_TAIL && qy_unit_units(state) <= unit % QY_MAPPED_SEG_UNITS) {
		unit -= qy_unit_units(state);
		state = qy_peek(qy_unit_at(h, unit)->state);
	}
	if (qy_unit_kind(state) != QY_UNIT_SLAB && qy_unit_kind(state) != QY_UNIT_BLOCK)
		return false;
	off -= unit << QY_MAPPED_UNIT_SHIFT;
	return qy_run_is(h, unit, qy_unit_units(state)) &&
	       off < (uint64_t)qy_unit_units(state) << QY_MAPPED_UNIT_SHIFT &&
	       n <= ((uint64_t)qy_unit_units(state) << QY_MAPPED_UNIT_SHIFT) - off;
}

QUARRY_API void *quarry_mapped_ptr(const quarry_mapped *heap, quarry_off off, size_t n)
{
	const struct heap *h = qy_heap(heap);
	uint64_t user = (uint64_t)(h->user - h->pub.base), segs = (uint64_t)(h->segs - h->pub.base);

	if (off == 0)
		return NULL;
	if (off >= user && off - user < h->sb.user_bytes && n <= h->sb.user_bytes - (off - user))
		return h->pub.base + off;
	if (off >= segs && is_memory(h, off - segs, n))
		return h->pub.base + off;
	qy_fail(ERANGE, "mapped heap: offset %llu is of no memory in use", (unsigned long long)off);
	return NULL;
}

QUARRY_API void *quarry_mapped_resize(quarry_mapped *heap, void *p, size_t size)
{
	size_t usable;
	void *to;

	if (p == NULL)
		return quarry_mapped_alloc(heap, size);
	if (size == 0) {
		(void)quarry_mapped_free(heap, p);
		return NULL;
	}
	usable = quarry_mapped_usable(heap, p);
	if (usable == 0) {
		(void)no_object();
		return NULL;
	}
	if (qy_mapped_refuse(qy_heap(heap)) != 0)
		return NULL;
	if (usable <= QY_MAPPED_SMALL
		    ? size <= usable && qy_mapped_class_of(size) == qy_mapped_class_of(usable)
		    : size > QY_MAPPED_SMALL && qy_align_up(size, QY_MAPPED_UNIT) == usable)
		return p;
	to = quarry_mapped_alloc(heap, size);
	if (to == NULL)
		return NULL;
	memcpy(to, p, qy_min(usable, size));
	(void)quarry_mapped_free(heap, p);
	return to;
}

QUARRY_API uint64_t quarry_mapped_trim(quarry_mapped *heap)
{
	struct heap *h = qy_heap(heap);
	struct qy_mapped_local *l = qy_local_known(h);
	uint64_t back;

	if (qy_mapped_enter(h) != 0)
		return 0;
	for (uint32_t i = 0; i < h->sb.lanes; i++) {
		if (h->lanes[i].state == QY_LANE_IDLE)
			(void)qy_slabs_trim(h, &h->lanes[i], NULL);
	}
	if (l != NULL)
		(void)qy_slabs_trim(h, qy_local_lane(l), l);
	back = qy_units_trim(h);
	qy_mapped_leave(h);
	return back;
}

/* ---- as a manager ---- */

static void *m_alloc(void *ctx, size_t size)
{
	return quarry_mapped_alloc(ctx, size);
}

static void *m_aligned(void *ctx, size_t alignment, size_t size)
{
	return quarry_mapped_alloc_aligned(ctx, alignment, size);
}

static void *m_resize(void *ctx, void *p, size_t size)
{
	return quarry_mapped_resize(ctx, p, size);
}

static int m_free(void *ctx, void *p)
{
	return quarry_mapped_free(ctx, p);
}

static size_t m_usable(void *ctx, const void *p)
{
	return quarry_mapped_usable(ctx, p);
}

static int m_owns(void *ctx, const void *p)
{
	return quarry_mapped_usable(ctx, p) != 0;
}

static int m_destroy(void *ctx)
{
	return quarry_mapped_close(ctx);
}

static int m_stats(void *ctx, quarry_manager_stats *stats)
{
	quarry_mapped_info info;

	if (quarry_mapped_info_get(ctx, &info, sizeof(info)) != 0)
		return -1;
	*stats = (quarry_manager_stats){ info.bytes - info.free_bytes, info.bytes, info.max_bytes };
	return 0;
}

static size_t m_max(void *ctx)
{
	return qy_heap(ctx)->seg_bytes;
}

static const quarry_manager_ops ops = {
	.struct_size = sizeof(ops),
	.name = "mapped",
	.alloc = m_alloc,
	.alloc_aligned = m_aligned,
	.resize = m_resize,
	.free = m_free,
	.usable = m_usable,
	.owns = m_owns,
	.destroy = m_destroy,
	.stats = m_stats,
	.max_alloc = m_max,
};

QUARRY_API quarry_manager *quarry_mapped_manager(quarry_mapped *heap)
{
	struct heap *h = qy_heap(heap);

	h->manager = (quarry_manager){ &ops, heap };
	return &h->manager;
}
