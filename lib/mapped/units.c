/* SPDX-License-Identifier: MIT */
/* Units of 64 KiB, segments of 512 of them, blocks of whole units, and how a heap grows. All of it under the heap's lock; what
 * changes is staged in the redo record, and the caller commits. What nobody can reach yet is written at once. */
#include <errno.h>
#include <string.h>

#include "lib/api/error.h"
#include "lib/mapped/mapped.h"
#include "numa/os.h"

#define BLOCK_MOST (QY_MAPPED_SEG_UNITS - QY_MAPPED_META_UNITS) /* units of one within a segment */
#define LOOK_BACK 64u                                           /* segments that are asked before there is a new one */
#define GROW_LEAST 16u                                          /* units: 1 MiB */

static uint32_t seg_kind(uint64_t entry)
{
	return entry & 0xff;
}

static uint64_t seg_units(uint64_t entry)
{
	return entry >> 8;
}

static uint64_t seg_entry(uint32_t kind, uint64_t units)
{
	return kind | units << 8;
}

static uint64_t segs_of(uint64_t units)
{
	return (units + QY_MAPPED_SEG_UNITS - 1) / QY_MAPPED_SEG_UNITS;
}

/* How many segments an entry of the table is for, at least; whatever else stands in it. */
static uint64_t segs_at(uint64_t entry)
{
	return seg_kind(entry) == QY_SEG_UNITS ? 1 : qy_max(1, segs_of(seg_units(entry)));
}

bool qy_unit_is(const struct heap *h, uint64_t unit)
{
	uint64_t seg = unit / QY_MAPPED_SEG_UNITS, at = unit % QY_MAPPED_SEG_UNITS;

	return seg < h->seg_bytes >> QY_MAPPED_SEG_SHIFT && seg < qy_peek(h->live->segments) &&
	       seg_kind(qy_peek(h->segtab[seg])) == QY_SEG_UNITS && at >= QY_MAPPED_META_UNITS &&
	       at < qy_min(qy_peek(qy_seg_head(h, seg)->born), QY_MAPPED_SEG_UNITS);
}

bool qy_run_is(const struct heap *h, uint64_t unit, uint64_t count)
{
	return count != 0 && count <= QY_MAPPED_SEG_UNITS && qy_unit_is(h, unit) &&
	       (unit + count - 1) / QY_MAPPED_SEG_UNITS == unit / QY_MAPPED_SEG_UNITS && qy_unit_is(h, unit + count - 1);
}

/* ---- growing ---- */

/* Have the file reach to an end, in bytes from its beginning, with memory behind it; what is staged says so. More than that is
 * there already where somebody died before he could say so. */
static bool reach(struct heap *h, uint64_t from, uint64_t end)
{
	struct qy_file_info info;

	QY_POINT();
	if (qy_os->file_info(h->fd, &info) != 0)
		return false;
	if (info.size < end && qy_os->set_size(h->fd, end) != 0)
		return false;
	/* (Where there is no such thing, a full file system is a SIGBUS, as for any mapped file there.) */
	if (qy_os->allocate(h->fd, from, end - from) != 0 && errno != EOPNOTSUPP)
		return false;
	QY_POINT();
	if (end > qy_redo_get(h, &h->live->end))
		qy_redo_store(h, &h->live->end, end);
	return true;
}

static uint64_t file_at(const struct heap *h, const char *p)
{
	return (uint64_t)(p - h->pub.base);
}

/* Bits [from, to) of a segment's map set, by staging. */
static void stage_free(struct heap *h, uint64_t *map, uint32_t from, uint32_t to)
{
	for (uint32_t w = from / 64; w * 64 < to; w++) {
		uint32_t low = w * 64 > from ? 0 : from - w * 64, high = to - w * 64 < 64 ? to - w * 64 : 64;
		uint64_t bits = (high == 64 ? ~(uint64_t)0 : ((uint64_t)1 << high) - 1) & ~(uint64_t)0 << low;

		qy_redo_store(h, &map[w], qy_redo_get(h, &map[w]) | bits);
	}
}

static void stage_taken(struct heap *h, uint64_t *map, uint32_t from, uint32_t to)
{
	for (uint32_t w = from / 64; w * 64 < to; w++) {
		uint32_t low = w * 64 > from ? 0 : from - w * 64, high = to - w * 64 < 64 ? to - w * 64 : 64;
		uint64_t bits = (high == 64 ? ~(uint64_t)0 : ((uint64_t)1 << high) - 1) & ~(uint64_t)0 << low;

		qy_redo_store(h, &map[w], qy_redo_get(h, &map[w]) & ~bits);
	}
}

/* The first place for so many segments in a row: those of blocks that are gone, or behind all. Segments of blocks that are
 * gone beside each other are one run by then. */
static bool find_segs(struct heap *h, uint64_t want, uint64_t *seg)
{
	uint64_t most = h->seg_bytes >> QY_MAPPED_SEG_SHIFT, count = qy_redo_get(h, &h->live->segments);

	for (uint64_t s = 0; s < count;) {
		uint64_t n = qy_max(1, segs_of(seg_units(h->segtab[s]))), run = n;

		if (seg_kind(h->segtab[s]) != QY_SEG_FREE) {
			s += seg_kind(h->segtab[s]) == QY_SEG_BLOCK ? n : 1;
			continue;
		}
		while (s + run < count && seg_kind(h->segtab[s + run]) == QY_SEG_FREE)
			run += qy_max(1, segs_of(seg_units(h->segtab[s + run])));
		if (s + run > count)
			break;
		if (run > n) { /* by itself: those behind the first mean nothing from then on */
			qy_check(h->staged == 0);
			qy_redo_store(h, &h->segtab[s], seg_entry(QY_SEG_FREE, run * QY_MAPPED_SEG_UNITS));
			qy_redo_commit(h);
		}
		if (run >= want || s + run == count) {
			*seg = s;
			return s + want <= most;
		}
		s += run;
	}
	*seg = count;
	return count + want <= most;
}

/* Segments [seg, seg + n) are one thing from now on; what is left of a free run stays one. */
static void stage_segs(struct heap *h, uint64_t seg, uint64_t n, uint32_t kind, uint64_t units)
{
	uint64_t count = h->live->segments, run = 0;

	while (seg + run < count && run < n)
		run += qy_max(1, segs_of(seg_units(h->segtab[seg + run])));
	/* Those behind the first mean nothing by themselves: they can be written before. */
	for (uint64_t s = seg + 1; s < seg + n; s++)
		qy_put(h->segtab[s], seg_entry(QY_SEG_TAIL, 0));
	if (run > n)
		qy_redo_store(h, &h->segtab[seg + n], seg_entry(QY_SEG_FREE, (run - n) * QY_MAPPED_SEG_UNITS));
	qy_redo_store(h, &h->segtab[seg], seg_entry(kind, units));
	if (seg + n > count) /* last: who looks without the lock sees nothing half */
		qy_redo_store(h, &h->live->segments, seg + n);
}

/* There may be free units in a segment. (One that was a block's may be in front of all others.) */
static void lower_hint(struct heap *h, uint64_t seg)
{
	if (seg < h->live->hint)
		qy_put(h->live->hint, seg);
}

/* A segment more for units, with so many of them at least. */
static bool new_segment(struct heap *h, uint32_t count)
{
	uint32_t born = QY_MAPPED_META_UNITS + (count > GROW_LEAST ? count : GROW_LEAST);
	struct qy_mapped_seghead *head;
	uint64_t seg, at;

	if (!find_segs(h, 1, &seg)) {
		errno = ENOMEM;
		return false;
	}
	if (born > QY_MAPPED_SEG_UNITS)
		born = QY_MAPPED_SEG_UNITS;
	at = file_at(h, qy_seg_at(h, seg));
	if (!reach(h, at, at + born * QY_MAPPED_UNIT))
		return false;
	head = qy_seg_head(h, seg);
	/* Nobody looks there before the table says what it is; what was a block's has anything in it. */
	memset(qy_seg_at(h, seg), 0, QY_MAPPED_BITS_AT);
	memset(head, 0, sizeof(*head));
	head->born = born;
	for (uint32_t u = QY_MAPPED_META_UNITS; u < born; u++)
		head->free[u / 64] |= (uint64_t)1 << u % 64;
	QY_POINT();
	stage_segs(h, seg, 1, QY_SEG_UNITS, 0);
	lower_hint(h, seg);
	return true;
}

/* A segment's units that are not memory yet: so many free ones at least at its end, an eighth of the heap at most. */
static bool more_units(struct heap *h, uint64_t seg, uint32_t count)
{
	uint32_t step = (uint32_t)qy_min(QY_MAPPED_SEG_UNITS, qy_max(GROW_LEAST, h->live->end / 8 / QY_MAPPED_UNIT));
	struct qy_mapped_seghead *head = qy_seg_head(h, seg);
	uint64_t at = file_at(h, qy_seg_at(h, seg));
	uint32_t born, free_before = 0, to;

	if (seg_kind(h->segtab[seg]) != QY_SEG_UNITS)
		return false;
	born = (uint32_t)qy_min(head->born, QY_MAPPED_SEG_UNITS);
	while (born > QY_MAPPED_META_UNITS + free_before &&
	       (head->free[(born - free_before - 1) / 64] >> (born - free_before - 1) % 64 & 1) != 0)
		free_before++;
	if (born - free_before + count > QY_MAPPED_SEG_UNITS)
		return false;
	to = born - free_before + count;
	to = (uint32_t)qy_min(QY_MAPPED_SEG_UNITS, to > born + step ? to : born + step);
	if (to == born || !reach(h, at + born * QY_MAPPED_UNIT, at + to * QY_MAPPED_UNIT))
		return false;
	qy_redo_store(h, &head->born, to);
	stage_free(h, head->free, born, to);
	lower_hint(h, seg);
	return true;
}

/* In one of the segments [from, to), the last one first. False with errno, which is 0 where none has so many. */
static bool more_in(struct heap *h, uint64_t from, uint64_t to, uint32_t count)
{
	errno = 0;
	for (uint64_t s = to; s > from; s--) {
		if (more_units(h, s - 1, count))
			return true;
		qy_redo_drop(h);
		if (errno == ENOSPC || errno == EFBIG || errno == EDQUOT)
			return false;
	}
	return false;
}

/* Committed by itself: the units are free then, and are looked for again. Nothing is staged. Segments between blocks may have been
 * left with few units: those next to the end are asked first, and all where there are no addresses for a new one. */
static bool grow(struct heap *h, uint32_t count)
{
	uint64_t segments = h->live->segments, near = segments > LOOK_BACK ? segments - LOOK_BACK : 0;

	if (!more_in(h, near, segments, count) &&
	    (errno != 0 || (!new_segment(h, count) && (errno != ENOMEM || !more_in(h, 0, near, count))))) {
		qy_redo_drop(h);
		errno = errno != 0 ? errno : ENOMEM;
		return false;
	}
	qy_redo_commit(h);
	return true;
}

/* ---- runs of units ---- */

/* Where so many bits in a row are set; 0: nowhere. */
static uint32_t find_in(const struct qy_mapped_seghead *head, uint32_t count)
{
	uint32_t born = (uint32_t)qy_min(head->born, QY_MAPPED_SEG_UNITS), run = 0;

	for (uint32_t u = QY_MAPPED_META_UNITS; u < born; u++) {
		uint64_t rest = head->free[u / 64] >> u % 64;

		if (rest == 0) {
			u |= 63;
			run = 0;
		} else if ((rest & 1) == 0) {
			u += (uint32_t)__builtin_ctzll(rest) - 1;
			run = 0;
		} else if (++run == count) {
			return u + 1 - count;
		}
	}
	return 0;
}

static uint64_t find_run(struct heap *h, uint32_t count)
{
	uint64_t hint = h->live->hint, segments = qy_min(h->live->segments, h->seg_bytes >> QY_MAPPED_SEG_SHIFT);
	bool first = true;

	for (uint64_t s = hint; s < segments; s++) {
		uint32_t at = seg_kind(h->segtab[s]) == QY_SEG_UNITS ? find_in(qy_seg_head(h, s), count) : 0;

		if (at != 0) {
			if (first && count == 1)
				qy_put(h->live->hint, s);
			return s * QY_MAPPED_SEG_UNITS + at;
		}
		first = first && (count == 1 || seg_kind(h->segtab[s]) != QY_SEG_UNITS);
	}
	if (count == 1)
		qy_put(h->live->hint, segments);
	return 0;
}

uint64_t qy_units_take(struct heap *h, uint32_t count)
{
	uint64_t unit = find_run(h, count);

	qy_check(h->staged == 0);
	if (unit == 0 && qy_sessions_reap(h) > 0) /* what the dead had may do */
		unit = find_run(h, count);
	if (unit == 0 && grow(h, count))
		unit = find_run(h, count);
	if (unit == 0)
		return 0;
	/* Memory again, with an error rather than a fault that cannot be had. */
	if (qy_seg_head(h, unit / QY_MAPPED_SEG_UNITS)->punched != 0 &&
	    qy_os->allocate(h->fd, file_at(h, qy_unit_memory(h, unit)), count * QY_MAPPED_UNIT) != 0 && errno != EOPNOTSUPP)
		return 0;
	/* Those behind the first: nobody looks at them before the first one's record reaches them. */
	for (uint32_t i = 1; i < count; i++)
		qy_unit_at(h, unit + i)->state = qy_unit_state(QY_UNIT_TAIL, 0, 0, i);
	QY_POINT();
	stage_taken(h, qy_seg_head(h, unit / QY_MAPPED_SEG_UNITS)->free, (uint32_t)(unit % QY_MAPPED_SEG_UNITS),
		    (uint32_t)(unit % QY_MAPPED_SEG_UNITS) + count);
	return unit;
}

void qy_units_give(struct heap *h, uint64_t unit, uint32_t count)
{
	uint64_t seg = unit / QY_MAPPED_SEG_UNITS;

	qy_redo_store(h, &qy_unit_at(h, unit)->state, 0);
	stage_free(h, qy_seg_head(h, seg)->free, (uint32_t)(unit % QY_MAPPED_SEG_UNITS),
		   (uint32_t)(unit % QY_MAPPED_SEG_UNITS) + count);
	lower_hint(h, seg);
}

/* ---- blocks ---- */

uint64_t qy_run_block_take(struct heap *h, size_t size)
{
	uint64_t units = (size + QY_MAPPED_UNIT - 1) >> QY_MAPPED_UNIT_SHIFT, unit, seg, at;
	bool found;

	if (size > h->seg_bytes) {
		errno = ENOMEM;
		return UINT64_MAX;
	}
	if (units <= BLOCK_MOST) {
		unit = qy_units_take(h, (uint32_t)units);
		if (unit == 0)
			return UINT64_MAX;
		qy_redo_store(h, &qy_unit_at(h, unit)->state, qy_unit_state(QY_UNIT_BLOCK, 0, 0, units));
		return unit << QY_MAPPED_UNIT_SHIFT;
	}
	found = find_segs(h, segs_of(units), &seg);
	if ((!found || seg + segs_of(units) > h->live->segments) && qy_sessions_reap(h) > 0)
		found = find_segs(h, segs_of(units), &seg);
	if (!found) {
		errno = ENOMEM;
		return UINT64_MAX;
	}
	at = file_at(h, qy_seg_at(h, seg));
	if (!reach(h, at, at + units * QY_MAPPED_UNIT))
		return UINT64_MAX;
	stage_segs(h, seg, segs_of(units), QY_SEG_BLOCK, units);
	return seg << QY_MAPPED_SEG_SHIFT;
}

uint64_t qy_run_block_usable(const struct heap *h, uint64_t off)
{
	uint64_t seg = off >> QY_MAPPED_SEG_SHIFT, unit = off >> QY_MAPPED_UNIT_SHIFT, entry, state;

	if (off % QY_MAPPED_UNIT != 0 || off >= h->seg_bytes || seg >= qy_peek(h->live->segments))
		return 0;
	entry = qy_peek(h->segtab[seg]);
	if (seg_kind(entry) == QY_SEG_BLOCK)
		return off % QY_MAPPED_SEG == 0 && seg + segs_of(seg_units(entry)) <= qy_peek(h->live->segments)
			       ? seg_units(entry) << QY_MAPPED_UNIT_SHIFT : 0;
	if (seg_kind(entry) != QY_SEG_UNITS || !qy_unit_is(h, unit))
		return 0;
	state = qy_peek(qy_unit_at(h, unit)->state);
	return qy_unit_kind(state) == QY_UNIT_BLOCK && qy_run_is(h, unit, qy_unit_units(state))
		       ? (uint64_t)qy_unit_units(state) << QY_MAPPED_UNIT_SHIFT : 0;
}

int qy_run_block_give(struct heap *h, uint64_t off)
{
	uint64_t bytes = qy_run_block_usable(h, off), seg = off >> QY_MAPPED_SEG_SHIFT;

	if (bytes == 0) {
		errno = EINVAL;
		return -1;
	}
	if (seg_kind(h->segtab[seg]) == QY_SEG_BLOCK)
		qy_redo_store(h, &h->segtab[seg], seg_entry(QY_SEG_FREE, bytes >> QY_MAPPED_UNIT_SHIFT));
	else
		qy_units_give(h, off >> QY_MAPPED_UNIT_SHIFT, (uint32_t)(bytes >> QY_MAPPED_UNIT_SHIFT));
	return 0;
}

/* ---- giving back ---- */

static uint64_t punch(struct heap *h, uint64_t seg, uint64_t from, uint64_t to)
{
	uint64_t at = file_at(h, qy_seg_at(h, seg)) + from * QY_MAPPED_UNIT, len = (to - from) * QY_MAPPED_UNIT;

	len = at >= h->live->end ? 0 : qy_min(len, h->live->end - at);
	if (len == 0)
		return 0;
	if (seg_kind(h->segtab[seg]) == QY_SEG_UNITS)
		qy_put(qy_seg_head(h, seg)->punched, 1);
	/* Before, where this process dies; and after, for a checkpoint that has looked meanwhile. */
	if (h->durable != NULL)
		qy_dirty_note(h, at, len);
	if (qy_os->punch(h->fd, at, len) != 0)
		len = 0;
	if (h->durable != NULL && len != 0)
		qy_dirty_note(h, at, len);
	return len;
}

/* Holes where units are free, in runs of 2 MiB at least. Who takes them has them allocated before. */
uint64_t qy_units_trim(struct heap *h)
{
	uint64_t back = 0;

	uint64_t count = qy_min(h->live->segments, h->seg_bytes >> QY_MAPPED_SEG_SHIFT), n;

	for (uint64_t s = 0; s < count; s += n) {
		const struct qy_mapped_seghead *head = qy_seg_head(h, s);
		uint64_t entry = h->segtab[s];
		uint32_t run = 0;

		n = segs_at(entry);
		if (seg_kind(entry) == QY_SEG_FREE && n <= count - s)
			back += punch(h, s, 0, seg_units(entry));
		if (seg_kind(entry) != QY_SEG_UNITS)
			continue;
		for (uint32_t u = QY_MAPPED_META_UNITS; u <= qy_min(head->born, QY_MAPPED_SEG_UNITS); u++) {
			bool is = u < head->born && u < QY_MAPPED_SEG_UNITS && (head->free[u / 64] >> u % 64 & 1) != 0;

			if (is)
				run++;
			if (!is && run >= 32)
				back += punch(h, s, u - run, u);
			if (!is)
				run = 0;
		}
	}
	return back;
}

/* Where the last thing in use ends; nothing else behind it is the heap's any more. Nobody else has the heap. */
void qy_units_shrink(struct heap *h)
{
	for (;;) {
		uint64_t last = h->live->segments, end = h->sb.head_bytes;
		struct qy_mapped_seghead *head;
		uint32_t born;

		for (uint64_t s = 0; s < h->live->segments; s += segs_at(h->segtab[s]))
			last = s;
		if (last == h->live->segments)
			return;
		end = file_at(h, qy_seg_at(h, last));
		if (seg_kind(h->segtab[last]) == QY_SEG_BLOCK) {
			qy_redo_store(h, &h->live->end, end + seg_units(h->segtab[last]) * QY_MAPPED_UNIT);
			qy_redo_commit(h);
			return;
		}
		head = qy_seg_head(h, last);
		born = seg_kind(h->segtab[last]) == QY_SEG_UNITS ? (uint32_t)qy_min(head->born, QY_MAPPED_SEG_UNITS) : 0;
		while (born > QY_MAPPED_META_UNITS && (head->free[(born - 1) / 64] >> (born - 1) % 64 & 1) != 0)
			born--;
		if (born > QY_MAPPED_META_UNITS) {
			if (born < head->born)
				stage_taken(h, head->free, born, (uint32_t)qy_min(head->born, QY_MAPPED_SEG_UNITS));
			qy_redo_store(h, &head->born, born);
			qy_redo_store(h, &h->live->end, end + born * QY_MAPPED_UNIT);
			qy_redo_commit(h);
			return;
		}
		qy_redo_store(h, &h->live->segments, last);
		qy_redo_store(h, &h->segtab[last], QY_SEG_NONE);
		qy_redo_store(h, &h->live->end, end);
		qy_redo_commit(h);
		qy_put(h->live->hint, 0);
	}
}
