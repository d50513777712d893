/* SPDX-License-Identifier: MIT */
/* A new heap out of a dump that may be nonsense, or meant ill. Of a dump only this is believed: where things are, and what is in them,
 * after it was found that there can be such a thing there, and nothing else is. All that a heap knows of itself is made anew. While it is
 * made, the file is none of a heap, and nobody comes to it (OPEN is held): so the books are written here without the heap's lock, and whoever
 * dies leaves nothing that could be taken for a heap. */
#include <errno.h>
#include <string.h>

#include "lib/api/error.h"
#include "lib/mapped/dump.h"
#include "lib/object/own.h"
#include "numa/os.h"

#define RUN_MOST ((uint64_t)1 << 62)

struct restoring {
	quarry_mapped_read_fn *read;
	void *ctx;
	struct heap *h;
	struct qy_dump_end sum; /* of what was there so far */
	struct qy_dump_head head;
	uint64_t slabs;
	/* What content is for: a slab with its map, or a block. */
	uint64_t off, end, content; /* content: nothing before it may be written any more */
	struct qy_dump_slab slab;
	uint64_t live[QY_DUMP_SLAB_WORDS];
	bool user, done;
	struct qy_dump_record record;
	char *payload;
};

static int wrong(const struct restoring *r, const char *what)
{
	return qy_fail(EUCLEAN, "dump: record %llu: %s", (unsigned long long)r->sum.records, what);
}

static int read_all(struct restoring *r, void *to, size_t n)
{
	for (size_t done = 0; done < n;) {
		long got = r->read(r->ctx, (char *)to + done, n - done);

		if (got < 0)
			return qy_fail(errno, "dump: it cannot be read");
		if (got == 0)
			return wrong(r, "it is cut short");
		if ((size_t)got > n - done)
			return qy_fail(EINVAL, "dump: what reads it gave more than was asked for");
		done += (size_t)got;
	}
	return 0;
}

static int read_record(struct restoring *r)
{
	if (read_all(r, &r->record, sizeof(r->record)) != 0)
		return -1;
	if (r->record.length > QY_DUMP_MOST)
		return wrong(r, "it is too long");
	if (read_all(r, r->payload, (size_t)r->record.length) != 0)
		return -1;
	if (qy_dump_crc(0, r->payload, (size_t)r->record.length) != r->record.crc)
		return wrong(r, "it does not have its checksum");
	return 0;
}

/* ---- memory for what is said to be there ---- */

static uint64_t file_at(const struct heap *h, uint64_t seg)
{
	return (uint64_t)(qy_seg_at(h, seg) - h->pub.base);
}

/* The file reaches to an end. Only what is in use becomes memory: the rest stays holes. */
static int reach(struct heap *h, uint64_t end)
{
	if (end <= h->live->end)
		return 0;
	if (qy_os->set_size(h->fd, end) != 0)
		return qy_fail(errno, "mapped heap: the file cannot grow");
	qy_put(h->live->end, end);
	return 0;
}

static int memory(struct heap *h, uint64_t from, uint64_t end)
{
	if (reach(h, end) != 0)
		return -1;
	if (qy_os->allocate(h->fd, from, end - from) != 0 && errno != EOPNOTSUPP)
		return qy_fail(errno, "mapped heap: no room for it");
	return 0;
}

/* Segments up to that one are there; those that were passed over are nobody's. */
static void reach_segment(struct heap *h, uint64_t seg)
{
	for (uint64_t s = h->live->segments; s < seg; s++)
		h->segtab[s] = QY_SEG_FREE | (uint64_t)QY_MAPPED_SEG_UNITS << 8;
}

static int segment_of_units(struct heap *h, uint64_t seg)
{
	if (seg < h->live->segments)
		return 0;
	if (memory(h, file_at(h, seg), file_at(h, seg) + QY_MAPPED_META_UNITS * QY_MAPPED_UNIT) != 0)
		return -1;
	reach_segment(h, seg);
	qy_seg_head(h, seg)->born = QY_MAPPED_META_UNITS;
	qy_seg_head(h, seg)->punched = 1;
	h->segtab[seg] = QY_SEG_UNITS;
	h->live->segments = seg + 1;
	return 0;
}

/* A run of units that are nobody's yet, behind all that are in use: what comes comes in order. */
static int take_units(struct restoring *r, uint64_t off, uint64_t units, uint64_t *unit)
{
	struct heap *h = r->h;
	uint64_t segs = (uint64_t)(h->segs - h->pub.base), seg, at;
	struct qy_mapped_seghead *head;

	if (off < segs || off - segs >= h->seg_bytes || (off - segs) % QY_MAPPED_UNIT != 0)
		return wrong(r, "there can be nothing there");
	*unit = (off - segs) >> QY_MAPPED_UNIT_SHIFT;
	seg = *unit / QY_MAPPED_SEG_UNITS;
	at = *unit % QY_MAPPED_SEG_UNITS;
	if (at < QY_MAPPED_META_UNITS || units == 0 || units > QY_MAPPED_SEG_UNITS - at)
		return wrong(r, "there can be nothing there");
	if (seg + 1 < h->live->segments ||
	    (seg < h->live->segments && (h->segtab[seg] != QY_SEG_UNITS || at < qy_seg_head(h, seg)->born)))
		return wrong(r, "it is not behind the one before");
	if (segment_of_units(h, seg) != 0 || reach(h, off + units * QY_MAPPED_UNIT) != 0)
		return -1;
	head = qy_seg_head(h, seg);
	for (uint64_t u = head->born; u < at; u++)
		head->free[u / 64] |= (uint64_t)1 << u % 64;
	head->born = at + units;
	for (uint64_t u = 1; u < units; u++)
		qy_unit_at(h, *unit + u)->state = qy_unit_state(QY_UNIT_TAIL, 0, 0, u);
	return 0;
}

/* ---- what a dump has ---- */

static int take_slab(struct restoring *r)
{
	struct heap *h = r->h;
	uint32_t cls, count, owner, live = 0;
	struct qy_mapped_lane *lane;
	uint64_t unit;

	if (r->record.length < sizeof(r->slab))
		return wrong(r, "a slab of another length");
	memcpy(&r->slab, r->payload, sizeof(r->slab));
	cls = r->slab.size == 0 || r->slab.size > QY_MAPPED_SMALL ? 0 : qy_mapped_class_of(r->slab.size);
	count = qy_mapped_classes[cls].limit / qy_mapped_classes[cls].size;
	if (qy_mapped_classes[cls].size != r->slab.size || r->slab.units != qy_mapped_classes[cls].units ||
	    r->slab.words != (count + 63) / 64 || r->record.length != sizeof(r->slab) + r->slab.words * sizeof(uint64_t))
		return wrong(r, "there is no slab of such objects");
	memset(r->live, 0, sizeof(r->live));
	memcpy(r->live, r->payload + sizeof(r->slab), r->slab.words * sizeof(uint64_t));
	for (uint32_t w = 0; w < r->slab.words; w++) {
		uint64_t mask = (w + 1) * 64 <= count ? ~(uint64_t)0 : ((uint64_t)1 << count % 64) - 1;

		if ((r->live[w] & ~mask) != 0)
			return wrong(r, "a slab with more objects than it has room for");
		live += (uint32_t)__builtin_popcountll(r->live[w]);
	}
	if (live == 0 || live != r->slab.live)
		return wrong(r, "a slab's objects are not as many as it says");
	if (take_units(r, r->slab.off, r->slab.units, &unit) != 0 ||
	    memory(h, r->slab.off, r->slab.off + r->slab.units * QY_MAPPED_UNIT) != 0)
		return -1;
	owner = (uint32_t)(r->slabs++ / QY_MAPPED_WALK_MOST % h->sb.lanes) + 1;
	lane = &h->lanes[owner - 1];
	for (uint32_t w = 0; w < r->slab.words; w++) {
		uint64_t mask = (w + 1) * 64 <= count ? ~(uint64_t)0 : ((uint64_t)1 << count % 64) - 1;

		qy_unit_bits(h, unit)[w] = ~r->live[w] & mask;
	}
	qy_unit_at(h, unit)->state = qy_unit_state(QY_UNIT_SLAB, cls, owner, r->slab.units);
	qy_unit_at(h, unit)->next = lane->slabs[cls];
	if (lane->slabs[cls] != 0)
		qy_unit_at(h, lane->slabs[cls])->prev = unit;
	lane->slabs[cls] = unit;
	lane->slab_count++;
	lane->state = QY_LANE_IDLE;
	r->sum.objects += live;
	r->sum.bytes += (uint64_t)live * r->slab.size;
	r->off = r->content = r->slab.off;
	r->end = r->off + qy_mapped_classes[cls].limit;
	return 0;
}

/* One of more units than a segment has room for stands in segments of its own. */
static int take_segments(struct restoring *r, const struct qy_dump_block *b)
{
	struct heap *h = r->h;
	uint64_t segs = (uint64_t)(h->segs - h->pub.base), seg = (b->off - segs) >> QY_MAPPED_SEG_SHIFT, n;

	if (b->bytes > h->seg_bytes - (b->off - segs) || b->bytes / QY_MAPPED_UNIT <= QY_MAPPED_SEG_UNITS - QY_MAPPED_META_UNITS)
		return wrong(r, "a block of a size that cannot be there");
	n = qy_align_up(b->bytes, QY_MAPPED_SEG) >> QY_MAPPED_SEG_SHIFT;
	if (seg < h->live->segments)
		return wrong(r, "it is not behind the one before");
	if (reach(h, b->off + b->bytes) != 0)
		return -1;
	reach_segment(h, seg);
	h->segtab[seg] = QY_SEG_BLOCK | b->bytes / QY_MAPPED_UNIT << 8;
	for (uint64_t s = seg + 1; s < seg + n; s++)
		h->segtab[s] = QY_SEG_TAIL;
	h->live->segments = seg + n;
	return 0;
}

/* It has no memory before it has content, or the whole dump is there (finish_blocks): a few bytes can say that there is a terabyte. */
static int take_block(struct restoring *r)
{
	struct heap *h = r->h;
	uint64_t segs = (uint64_t)(h->segs - h->pub.base), unit;
	struct qy_dump_block b;

	if (r->record.length != sizeof(b))
		return wrong(r, "a block of another length");
	memcpy(&b, r->payload, sizeof(b));
	if (b.bytes == 0 || b.bytes % QY_MAPPED_UNIT != 0 || b.off < segs || b.off - segs >= h->seg_bytes)
		return wrong(r, "a block that cannot be");
	if ((b.off - segs) % QY_MAPPED_SEG == 0) {
		if (take_segments(r, &b) != 0)
			return -1;
	} else {
		if (take_units(r, b.off, b.bytes >> QY_MAPPED_UNIT_SHIFT, &unit) != 0)
			return -1;
		qy_unit_at(h, unit)->state = qy_unit_state(QY_UNIT_BLOCK, 0, 0, b.bytes >> QY_MAPPED_UNIT_SHIFT);
	}
	memset(&r->slab, 0, sizeof(r->slab));
	r->sum.objects++;
	r->sum.bytes += b.bytes;
	r->off = r->content = b.off;
	r->end = b.off + b.bytes;
	return 0;
}

/* Only objects in use have some. */
static int take_content(struct restoring *r)
{
	uint64_t off, n = r->record.length - sizeof(off);

	if (r->record.length <= sizeof(off) || n > QY_DUMP_DATA)
		return wrong(r, "content of a length that cannot be");
	memcpy(&off, r->payload, sizeof(off));
	if (r->end == 0 || off < r->content || off >= r->end || n > r->end - off)
		return wrong(r, "content of nothing that is there");
	for (uint64_t i = r->slab.size == 0 ? 1 : (off - r->off) / r->slab.size;
	     r->slab.size != 0 && i <= (off + n - 1 - r->off) / r->slab.size; i++) {
		if ((r->live[i / 64] >> i % 64 & 1) == 0)
			return wrong(r, "content of an object that is not in use");
	}
	if (r->slab.size == 0 && memory(r->h, off, off + n) != 0)
		return -1;
	memcpy(r->h->pub.base + off, r->payload + sizeof(off), (size_t)n);
	r->content = off + n;
	return 0;
}

static int take_root(struct restoring *r)
{
	char name[QUARRY_MAPPED_NAME + 1] = { 0 };
	struct qy_dump_root root;

	if (r->record.length < sizeof(root))
		return wrong(r, "a root of another length");
	memcpy(&root, r->payload, sizeof(root));
	if (root.length == 0 || root.length > QUARRY_MAPPED_NAME || r->record.length != sizeof(root) + root.length ||
	    memchr(r->payload + sizeof(root), 0, root.length) != NULL)
		return wrong(r, "a root with a name that cannot be");
	memcpy(name, r->payload + sizeof(root), root.length);
	if (quarry_mapped_root_slot(&r->h->pub, name) != NULL)
		return wrong(r, "a root that was there already");
	return quarry_mapped_root_put(&r->h->pub, name, root.off, root.tag);
}

static int take_user(struct restoring *r)
{
	if (r->user || r->record.length != r->head.user_bytes)
		return wrong(r, "a user area of another length, or a second one");
	r->user = true;
	r->end = 0;
	memcpy(r->h->user, r->payload, r->head.user_bytes);
	return 0;
}

static int take_end(struct restoring *r)
{
	struct qy_dump_end end;

	if (!r->user || r->record.length != sizeof(end))
		return wrong(r, "an end that cannot be");
	memcpy(&end, r->payload, sizeof(end));
	if (memcmp(&end, &r->sum, sizeof(end)) != 0)
		return wrong(r, "there was more, or less, than its end says");
	r->done = true;
	return 0;
}

/* Things in use, then the user area, then roots. */
static int take_record(struct restoring *r)
{
	uint32_t kind = r->record.kind;

	if (r->user ? kind != QY_DUMP_ROOT && kind != QY_DUMP_END : kind == QY_DUMP_ROOT)
		return wrong(r, "it does not come at this place");
	switch (kind) {
	case QY_DUMP_SLAB:
		return take_slab(r);
	case QY_DUMP_BLOCK:
		return take_block(r);
	case QY_DUMP_CONTENT:
		return take_content(r);
	case QY_DUMP_USER:
		return take_user(r);
	case QY_DUMP_ROOT:
		return take_root(r);
	case QY_DUMP_END:
		return take_end(r);
	default:
		return wrong(r, "of a kind that is not known");
	}
}

/* ---- all of it ---- */

/* The heap is made of just these numbers: none is rounded, and 0 is not the default. */
static bool can_be(const struct qy_dump_head *head)
{
	struct qy_mapped_sb sb = { .max_bytes = head->max_bytes, .sessions = head->sessions, .lanes = head->lanes, .roots = head->roots,
				   .user_bytes = head->user_bytes };
	uint64_t at[6];

	return head->user_bytes != 0 && qy_mapped_layout(&sb, at);
}

static int read_head(struct restoring *r)
{
	char magic[8];

	if (read_all(r, magic, sizeof(magic)) != 0)
		return -1;
	if (memcmp(magic, QY_DUMP_MAGIC, sizeof(magic)) != 0)
		return qy_fail(EMEDIUMTYPE, "dump: it is none of a heap");
	if (read_record(r) != 0)
		return -1;
	if (r->record.kind != QY_DUMP_HEAD || r->record.length < sizeof(r->head))
		return wrong(r, "it is no head");
	memcpy(&r->head, r->payload, sizeof(r->head));
	if (r->head.version != QY_DUMP_VERSION || r->record.length != sizeof(r->head))
		return qy_fail(ENOTSUP, "dump: version %u; this is for %u", r->head.version, QY_DUMP_VERSION);
	if (r->head.incompat != 0)
		return qy_fail(ENOTSUP, "dump: incompatible feature %u is not known", (unsigned)__builtin_ctz(r->head.incompat));
	if (r->head.abi != (sizeof(pthread_mutex_t) << 8 | sizeof(void *)))
		return qy_fail(ENOTSUP, "dump: it is of another kind of machine, or C library");
	if (r->head.run > RUN_MOST)
		return wrong(r, "it has been opened too often");
	if (!can_be(&r->head))
		return wrong(r, "there is no heap of such numbers");
	r->sum.records++;
	return 0;
}

static int finish_segment(struct heap *h, uint64_t seg)
{
	const struct qy_mapped_seghead *head = qy_seg_head(h, seg);
	uint64_t n;

	for (uint64_t u = QY_MAPPED_META_UNITS; u < head->born; u += n) {
		uint64_t unit = seg * QY_MAPPED_SEG_UNITS + u, state = qy_unit_at(h, unit)->state;
		uint64_t at = (uint64_t)(qy_unit_memory(h, unit) - h->pub.base);

		n = 1;
		if ((head->free[u / 64] >> u % 64 & 1) != 0)
			continue;
		n = qy_unit_units(state);
		if (qy_unit_kind(state) == QY_UNIT_BLOCK && memory(h, at, at + n * QY_MAPPED_UNIT) != 0)
			return -1;
	}
	return 0;
}

/* What of blocks is zero: a full file system is an error now, and no fault later. (What is in memory alone has it when it is used.) */
static int finish_blocks(struct heap *h)
{
	int rc = 0;

	for (uint64_t s = 0; rc == 0 && s < h->live->segments && h->sb.mode != QUARRY_MAPPED_VOLATILE; s++) {
		if ((h->segtab[s] & 0xff) == QY_SEG_BLOCK)
			rc = memory(h, file_at(h, s), file_at(h, s) + (h->segtab[s] >> 8) * QY_MAPPED_UNIT);
		else if ((h->segtab[s] & 0xff) == QY_SEG_UNITS)
			rc = finish_segment(h, s);
	}
	return rc;
}

/* Behind its end there is nothing, and no error. Once the heap has been said to be one, others may have it, and it is too late to look. */
static int look_behind(struct restoring *r)
{
	char more;
	long got = r->read(r->ctx, &more, 1);

	if (got < 0)
		return qy_fail(errno, "dump: it cannot be read");
	return got == 0 ? 0 : qy_fail(EUCLEAN, "dump: there is more behind its end");
}

static int fill(struct restoring *r)
{
	quarry_mapped_report report;

	while (!r->done) {
		if (read_record(r) != 0 || take_record(r) != 0)
			return -1;
		r->sum.records++;
	}
	if (look_behind(r) != 0)
		return -1;
	/* Locks in it bear threads of before: they are of an earlier run. */
	qy_put(r->h->live->run, r->head.run + 1);
	if (quarry_mapped_check(&r->h->pub, &report, sizeof(report)) != 0)
		return qy_fail(EUCLEAN, "dump: what it makes is no heap: %s", report.first);
	return finish_blocks(r->h) != 0 ? -1 : qy_mapped_say(r->h);
}

static quarry_mapped *restore(struct restoring *r, const char *path)
{
	quarry_mapped_attr attr = { .struct_size = sizeof(attr) };

	r->payload = qy_own_calloc(1, QY_DUMP_MOST);
	if (r->payload == NULL || read_head(r) != 0)
		return NULL;
	attr.mode = path == NULL ? QUARRY_MAPPED_VOLATILE : QUARRY_MAPPED_DIRECT;
	attr.flags = r->head.flags & (path == NULL ? QUARRY_MAPPED_SHRINK | QUARRY_MAPPED_HUGE : QUARRY_MAPPED_SHRINK);
	attr.max_bytes = r->head.max_bytes;
	attr.sessions = r->head.sessions;
	attr.lanes = r->head.lanes;
	attr.roots = r->head.roots;
	attr.user_bytes = r->head.user_bytes;
	r->h = qy_mapped_make(path, &attr);
	if (r->h == NULL || fill(r) == 0)
		return r->h == NULL ? NULL : &r->h->pub;
	qy_mapped_unmake(r->h, path);
	return NULL;
}

QUARRY_API quarry_mapped *quarry_mapped_restore(const char *path, quarry_mapped_read_fn *read, void *ctx)
{
	struct restoring r = { .read = read, .ctx = ctx };
	quarry_mapped *heap;

	if (read == NULL) {
		qy_fail(EINVAL, "restore: nothing to read by");
		return NULL;
	}
	heap = restore(&r, path);
	quarry_free(r.payload);
	return heap;
}
