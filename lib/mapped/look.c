/* SPDX-License-Identifier: MIT */
/* What a heap is, whether it is as it must be, and what is in it. */
#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "lib/api/error.h"
#include "lib/base/text.h"
#include "lib/mapped/mapped.h"

static uint64_t segments_of(const struct heap *h)
{
	return qy_min(h->live->segments, h->seg_bytes >> QY_MAPPED_SEG_SHIFT);
}

static bool is_free(const struct qy_mapped_seghead *head, uint32_t u)
{
	return (head->free[u / 64] >> u % 64 & 1) != 0;
}

QUARRY_API int quarry_mapped_info_get(const quarry_mapped *heap, quarry_mapped_info *info, size_t size)
{
	const struct heap *h = qy_heap(heap);
	quarry_mapped_info i = { .mode = h->sb.mode, .version = h->sb.version, .run = h->live->run, .max_bytes = h->sb.max_bytes,
				 .bytes = h->live->end, .sessions_max = h->sb.sessions, .lanes_max = h->sb.lanes,
				 .roots_max = h->sb.roots, .recovered = h->live->recovered,
				 .recovered_locks = h->live->recovered_locks, .replayed = h->live->replayed,
				 .bad_classes = h->live->bad_classes & ~QY_MAPPED_BROKEN, .broken = h->live->broken != 0, .read_only = h->read_only };

	if (info == NULL || size == 0)
		return qy_fail(EINVAL, "info: there is none");
	memcpy(i.uuid, h->sb.uuid, sizeof(i.uuid));
	for (uint32_t k = 0; k < h->sb.sessions; k++)
		i.sessions += qy_peek(h->sessions[k].state) != 0;
	for (uint32_t k = 0; k < h->sb.lanes; k++) {
		i.lanes += qy_peek(h->lanes[k].state) > QY_LANE_IDLE;
		i.lanes_idle += qy_peek(h->lanes[k].state) == QY_LANE_IDLE;
	}
	for (uint32_t k = 0; k < h->sb.roots; k++)
		i.roots += (qy_peek(h->roots[k].state) & 0xff) == QY_ROOT_USED;
	for (uint64_t s = 0; s < segments_of(h); s++) {
		if ((h->segtab[s] & 0xff) != QY_SEG_UNITS)
			continue;
		for (unsigned w = 0; w < QY_MAPPED_SEG_UNITS / 64; w++)
			i.free_bytes += (uint64_t)__builtin_popcountll(qy_peek(qy_seg_head(h, s)->free[w])) * QY_MAPPED_UNIT;
	}
	memset(info, 0, size);
	memcpy(info, &i, qy_min(size, sizeof(i)));
	return 0;
}

QUARRY_API int quarry_mapped_recover(quarry_mapped *heap)
{
	struct heap *h = qy_heap(heap);
	int dead;

	if (qy_mapped_enter(h) != 0)
		return -1;
	dead = qy_sessions_reap(h);
	qy_mapped_leave(h);
	return dead;
}

/* ---- check ---- */

struct checking {
	struct heap *h;
	quarry_mapped_report report;
	uint64_t slabs[QY_MAPPED_CLASSES];
};

static void wrong(struct checking *c, uint32_t cls, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void wrong(struct checking *c, uint32_t cls, const char *format, ...)
{
	if (c->report.wrong++ == 0) {
		struct qy_text text;
		va_list list;

		qy_text_init(&text, c->report.first, sizeof(c->report.first), -1);
		va_start(list, format);
		qy_text_vformat(&text, format, list);
		va_end(list);
	}
	if (!c->h->read_only)
		qy_mapped_bad_class(c->h, cls);
}

static void check_slab(struct checking *c, uint64_t unit, uint64_t state)
{
	uint32_t cls = qy_unit_class(state), count;
	const uint64_t *own = qy_unit_bits(c->h, unit);

	if (cls >= QY_MAPPED_CLASSES || qy_unit_units(state) != qy_mapped_classes[cls].units || qy_unit_owner(state) == 0 ||
	    qy_unit_owner(state) > c->h->sb.lanes) {
		wrong(c, cls, "unit %llu: a slab's record cannot be", (unsigned long long)unit);
		return;
	}
	c->slabs[cls]++;
	c->report.slabs++;
	count = qy_mapped_classes[cls].limit / qy_mapped_classes[cls].size;
	for (uint32_t w = 0; w < (count + 63) / 64; w++) {
		uint64_t mask = (w + 1) * 64 <= count ? ~(uint64_t)0 : ((uint64_t)1 << count % 64) - 1;
		uint64_t bits = qy_peek(own[w]) | qy_peek(own[w + QY_REMOTE_WORDS]);

		if ((bits & ~mask) != 0)
			wrong(c, cls, "unit %llu: there are no such objects", (unsigned long long)unit);
		c->report.objects += (uint64_t)__builtin_popcountll(~bits & mask);
		c->report.bytes += (uint64_t)__builtin_popcountll(~bits & mask) * qy_mapped_classes[cls].size;
	}
}

/* A run that is in use, by its first unit; how many units it has. */
static uint32_t check_run(struct checking *c, uint64_t unit, const struct qy_mapped_seghead *head)
{
	uint64_t state = qy_peek(qy_unit_at(c->h, unit)->state);
	uint32_t kind = qy_unit_kind(state), n = qy_unit_units(state), at = (uint32_t)(unit % QY_MAPPED_SEG_UNITS);

	if ((kind != QY_UNIT_SLAB && kind != QY_UNIT_BLOCK) || n == 0 || n > head->born - at) {
		wrong(c, UINT32_MAX, "unit %llu: it is not free, and nothing", (unsigned long long)unit);
		return 1;
	}
	for (uint32_t i = 1; i < n; i++) {
		if (is_free(head, at + i) || qy_unit_at(c->h, unit + i)->state != qy_unit_state(QY_UNIT_TAIL, 0, 0, i)) {
			wrong(c, kind == QY_UNIT_SLAB ? qy_unit_class(state) : UINT32_MAX, "unit %llu: it is not its run's",
			      (unsigned long long)(unit + i));
			return i;
		}
	}
	if (kind == QY_UNIT_SLAB) {
		check_slab(c, unit, state);
	} else {
		c->report.blocks++;
		c->report.objects++;
		c->report.bytes += n * QY_MAPPED_UNIT;
	}
	return n;
}

static void check_segment(struct checking *c, uint64_t s)
{
	const struct qy_mapped_seghead *head = qy_seg_head(c->h, s);

	if (head->born < QY_MAPPED_META_UNITS || head->born > QY_MAPPED_SEG_UNITS) {
		wrong(c, UINT32_MAX, "segment %llu: its units cannot be", (unsigned long long)s);
		return;
	}
	for (uint32_t u = 0; u < QY_MAPPED_SEG_UNITS; u++) {
		if (is_free(head, u) && (u < QY_MAPPED_META_UNITS || u >= head->born))
			wrong(c, UINT32_MAX, "segment %llu: unit %u is free, and not there", (unsigned long long)s, u);
	}
	for (uint32_t u = QY_MAPPED_META_UNITS; u < head->born;)
		u += is_free(head, u) ? 1 : check_run(c, s * QY_MAPPED_SEG_UNITS + u, head);
}

/* Every slab is in its lane's list, and nothing else. */
static void check_lists(struct checking *c)
{
	for (uint32_t cls = 0; cls < QY_MAPPED_CLASSES; cls++) {
		uint64_t listed = 0;

		for (uint32_t i = 0; i < c->h->sb.lanes; i++) {
			uint64_t before = 0, unit = c->h->lanes[i].slabs[cls];

			for (; unit != 0; before = unit, unit = qy_unit_at(c->h, unit)->next) {
				if (!qy_unit_is(c->h, unit) || qy_unit_at(c->h, unit)->prev != before ||
				    qy_unit_at(c->h, unit)->state !=
					    qy_unit_state(QY_UNIT_SLAB, cls, i + 1, qy_mapped_classes[cls].units)) {
					wrong(c, cls, "lane %u: its list of class %u is broken", i, cls);
					break;
				}
				listed++;
			}
		}
		if (listed != c->slabs[cls])
			wrong(c, cls, "class %u: %llu slabs, %llu in lists", cls, (unsigned long long)c->slabs[cls],
			      (unsigned long long)listed);
	}
}

QUARRY_API int quarry_mapped_check(quarry_mapped *heap, quarry_mapped_report *report, size_t size)
{
	struct heap *h = qy_heap(heap);
	struct checking c = { .h = h };

	if (report == NULL || size == 0)
		return qy_fail(EINVAL, "report: there is none");
	if (!h->read_only && qy_mapped_enter(h) != 0)
		return -1;
	for (uint64_t s = 0; s < segments_of(h); s++) {
		uint64_t entry = h->segtab[s];

		if ((entry & 0xff) == QY_SEG_UNITS) {
			check_segment(&c, s);
		} else if ((entry & 0xff) == QY_SEG_BLOCK) {
			c.report.blocks++;
			c.report.objects++;
			c.report.bytes += (entry >> 8) * QY_MAPPED_UNIT;
		}
	}
	check_lists(&c);
	for (uint32_t i = 0; i < h->sb.lanes; i++) {
		for (uint32_t k = 0; k < QY_MAPPED_RESERVED; k++)
			c.report.reserved += qy_peek(h->lanes[i].reserved[k]) != 0;
	}
	if (!h->read_only)
		qy_mapped_leave(h);
	memset(report, 0, size);
	memcpy(report, &c.report, qy_min(size, sizeof(c.report)));
	return c.report.wrong != 0;
}

/* ---- walk ---- */

static int walk_slab(const struct heap *h, uint64_t unit, uint32_t cls, quarry_mapped_walk_fn *fn, void *ctx)
{
	const struct qy_mapped_class *k = &qy_mapped_classes[cls];
	const uint64_t *own = qy_unit_bits(h, unit);
	uint32_t count = k->limit / k->size;
	int rc = 0;

	for (uint32_t i = 1; i < k->units; i++) { /* (else its objects are none) */
		if (qy_unit_at(h, unit + i)->state != qy_unit_state(QY_UNIT_TAIL, 0, 0, i))
			return 0;
	}
	for (uint32_t i = 0; rc == 0 && i < count;) { /* (fn may change the map: it is looked at anew each time) */
		uint64_t live = ~(own[i / 64] | own[i / 64 + QY_REMOTE_WORDS]) >> i % 64;
		uint32_t next = live == 0 ? (i | 63) + 1 : i + (uint32_t)__builtin_ctzll(live);

		if (live != 0 && next < count)
			rc = fn(ctx, qy_unit_memory(h, unit) + (uint64_t)next * k->size, k->size);
		i = next + (live != 0);
	}
	return rc;
}

static int walk_segment(const struct heap *h, uint64_t s, quarry_mapped_walk_fn *fn, void *ctx)
{
	const struct qy_mapped_seghead *head = qy_seg_head(h, s);
	struct qy_mapped_object first;
	int rc = 0;

	for (uint32_t u = QY_MAPPED_META_UNITS; rc == 0 && u < qy_min(head->born, QY_MAPPED_SEG_UNITS); u++) {
		uint64_t unit = s * QY_MAPPED_SEG_UNITS + u, state = qy_unit_at(h, unit)->state;

		if (is_free(head, u))
			continue;
		if (qy_unit_kind(state) == QY_UNIT_SLAB)
			QY_POINT();
		if (qy_unit_kind(state) == QY_UNIT_SLAB && qy_object_find(h, unit << QY_MAPPED_UNIT_SHIFT, &first))
			rc = walk_slab(h, unit, first.cls, fn, ctx);
		else if (qy_run_block_usable(h, unit << QY_MAPPED_UNIT_SHIFT) != 0)
			rc = fn(ctx, qy_unit_memory(h, unit), qy_run_block_usable(h, unit << QY_MAPPED_UNIT_SHIFT));
	}
	return rc;
}

QUARRY_API int quarry_mapped_walk(quarry_mapped *heap, quarry_mapped_walk_fn *fn, void *ctx)
{
	const struct heap *h = qy_heap(heap);
	int rc = 0;

	for (uint64_t s = 0; rc == 0 && s < segments_of(h); s++) {
		if ((h->segtab[s] & 0xff) == QY_SEG_UNITS)
			rc = walk_segment(h, s, fn, ctx);
		else if (qy_run_block_usable(h, s << QY_MAPPED_SEG_SHIFT) != 0)
			rc = fn(ctx, qy_seg_at(h, s), qy_run_block_usable(h, s << QY_MAPPED_SEG_SHIFT));
	}
	return rc;
}
