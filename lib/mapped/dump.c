/* SPDX-License-Identifier: MIT */
/* A heap as a stream of bytes: what is in use, each thing with the place where it stands, since nobody but the program knows which words
 * of it refer to others. The heap is checked before, and nobody else has it open meanwhile. */
#include "lib/mapped/dump.h"

#include <errno.h>
#include <string.h>

#include "lib/api/error.h"
#include "numa/os.h"

/* ---- checksums ---- */

/* Eight bytes at a time, by eight tables: a gigabyte in a second. */
static uint32_t tables[8][256];
static pthread_once_t tables_once = PTHREAD_ONCE_INIT;

static void make_tables(void)
{
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t crc = i;

		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
		tables[0][i] = crc;
	}
	for (uint32_t i = 0; i < 256; i++) {
		for (int t = 1; t < 8; t++)
			tables[t][i] = tables[t - 1][i] >> 8 ^ tables[0][tables[t - 1][i] & 255];
	}
}

uint32_t qy_dump_crc(uint32_t crc, const void *p, size_t n)
{
	const uint8_t *b = p;

	pthread_once(&tables_once, make_tables);
	crc = ~crc;
	for (; n >= 8; n -= 8, b += 8) {
		uint32_t low = crc ^ (b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24);

		crc = tables[7][low & 255] ^ tables[6][low >> 8 & 255] ^ tables[5][low >> 16 & 255] ^ tables[4][low >> 24] ^
		      tables[3][b[4]] ^ tables[2][b[5]] ^ tables[1][b[6]] ^ tables[0][b[7]];
	}
	for (; n > 0; n--, b++)
		crc = crc >> 8 ^ tables[0][(crc ^ *b) & 255];
	return ~crc;
}

/* ---- records ---- */

struct dumping {
	struct heap *h;
	quarry_mapped_write_fn *write;
	void *ctx;
	struct qy_dump_end sum;
};

/* A payload in two parts. */
static int put(struct dumping *d, uint32_t kind, const void *a, size_t a_len, const void *b, size_t b_len)
{
	struct qy_dump_record r = { .kind = kind, .length = a_len + b_len };

	r.crc = qy_dump_crc(qy_dump_crc(0, a, a_len), b, b_len);
	d->sum.records++;
	if (d->write(d->ctx, &r, sizeof(r)) != 0 || (a_len != 0 && d->write(d->ctx, a, a_len) != 0) ||
	    (b_len != 0 && d->write(d->ctx, b, b_len) != 0))
		return -1;
	return 0;
}

static bool is_zero(const char *p, size_t n)
{
	return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

/* What is zero is not written: a new heap's memory is. */
static int put_content(struct dumping *d, uint64_t off, uint64_t n)
{
	for (uint64_t done = 0; done < n;) {
		size_t part = (size_t)qy_min(n - done, (uint64_t)QY_DUMP_DATA);
		const char *p = d->h->pub.base + off + done;
		uint64_t at = off + done;

		if (!is_zero(p, part) && put(d, QY_DUMP_CONTENT, &at, sizeof(at), p, part) != 0)
			return -1;
		done += part;
	}
	return 0;
}

static int put_block(struct dumping *d, uint64_t off, uint64_t bytes)
{
	struct qy_dump_block block = { off, bytes };

	d->sum.objects++;
	d->sum.bytes += bytes;
	if (put(d, QY_DUMP_BLOCK, &block, sizeof(block), NULL, 0) != 0)
		return -1;
	return put_content(d, off, bytes);
}

/* Objects in a row are one piece of content. */
static int put_slab(struct dumping *d, uint64_t unit, uint32_t cls)
{
	const struct qy_mapped_class *k = &qy_mapped_classes[cls];
	const uint64_t *own = qy_unit_bits(d->h, unit);
	uint32_t count = k->limit / k->size, run = 0;
	uint64_t live[QY_DUMP_SLAB_WORDS] = { 0 };
	struct qy_dump_slab slab = {
		.off = (uint64_t)(qy_unit_memory(d->h, unit) - d->h->pub.base), .size = k->size, .units = k->units,
		.words = (count + 63) / 64,
	};

	for (uint32_t i = 0; i < count; i++) {
		if (((qy_peek(own[i / 64]) | qy_peek(own[i / 64 + QY_REMOTE_WORDS])) >> i % 64 & 1) == 0) {
			live[i / 64] |= (uint64_t)1 << i % 64;
			slab.live++;
		}
	}
	d->sum.objects += slab.live;
	d->sum.bytes += (uint64_t)slab.live * k->size;
	if (slab.live == 0)
		return 0;
	if (put(d, QY_DUMP_SLAB, &slab, sizeof(slab), live, slab.words * sizeof(live[0])) != 0)
		return -1;
	for (uint32_t i = 0; i <= count; i++) {
		if (i < count && (live[i / 64] >> i % 64 & 1) != 0) {
			run++;
		} else if (run != 0) {
			if (put_content(d, slab.off + (uint64_t)(i - run) * k->size, (uint64_t)run * k->size) != 0)
				return -1;
			run = 0;
		}
	}
	return 0;
}

static int put_segment(struct dumping *d, uint64_t s)
{
	const struct qy_mapped_seghead *head = qy_seg_head(d->h, s);
	uint32_t born = (uint32_t)qy_min(head->born, QY_MAPPED_SEG_UNITS), n;
	int rc = 0;

	for (uint32_t u = QY_MAPPED_META_UNITS; rc == 0 && u < born; u += n) {
		uint64_t unit = s * QY_MAPPED_SEG_UNITS + u, state = qy_unit_at(d->h, unit)->state;

		n = 1;
		if ((head->free[u / 64] >> u % 64 & 1) != 0)
			continue;
		n = qy_unit_units(state);
		if (!qy_run_is(d->h, unit, n) || (qy_unit_kind(state) == QY_UNIT_SLAB && qy_unit_class(state) >= QY_MAPPED_CLASSES))
			return qy_fail(EUCLEAN, "mapped heap: unit %llu cannot be", (unsigned long long)unit);
		if (qy_unit_kind(state) == QY_UNIT_SLAB)
			rc = put_slab(d, unit, qy_unit_class(state));
		else
			rc = put_block(d, (uint64_t)(qy_unit_memory(d->h, unit) - d->h->pub.base), n * QY_MAPPED_UNIT);
	}
	return rc;
}

static int put_root(void *ctx, const char *name, quarry_off off, uint32_t tag)
{
	struct qy_dump_root root = { off, tag, (uint32_t)strlen(name) };

	return put(ctx, QY_DUMP_ROOT, &root, sizeof(root), name, root.length);
}

/* ---- all of it ---- */

static int put_all(struct dumping *d)
{
	const struct heap *h = d->h;
	struct qy_dump_head head = {
		.version = QY_DUMP_VERSION, .abi = h->sb.abi, .flags = h->sb.flags, .run = h->live->run, .max_bytes = h->sb.max_bytes,
		.sessions = h->sb.sessions, .lanes = h->sb.lanes, .roots = h->sb.roots, .user_bytes = h->sb.user_bytes,
	};
	uint64_t segments = qy_min(h->live->segments, h->seg_bytes >> QY_MAPPED_SEG_SHIFT);
	struct qy_dump_end end;

	memcpy(head.uuid, h->sb.uuid, sizeof(head.uuid));
	if (d->write(d->ctx, QY_DUMP_MAGIC, 8) != 0 || put(d, QY_DUMP_HEAD, &head, sizeof(head), NULL, 0) != 0)
		return -1;
	for (uint64_t s = 0; s < segments; s++) {
		uint64_t bytes = (h->segtab[s] & 0xff) == QY_SEG_BLOCK ? qy_run_block_usable(h, s << QY_MAPPED_SEG_SHIFT) : 0;

		if (bytes != 0 && put_block(d, (uint64_t)(qy_seg_at(h, s) - h->pub.base), bytes) != 0)
			return -1;
		if ((h->segtab[s] & 0xff) == QY_SEG_UNITS && put_segment(d, s) != 0)
			return -1;
	}
	if (put(d, QY_DUMP_USER, h->user, h->sb.user_bytes, NULL, 0) != 0 ||
	    quarry_mapped_root_list(&h->pub, put_root, d) != 0)
		return -1;
	end = d->sum;
	return put(d, QY_DUMP_END, &end, sizeof(end), NULL, 0);
}

static int check_whole(struct heap *h, quarry_mapped_report *report)
{
	*report = (quarry_mapped_report){ 0 };
	if (quarry_mapped_check(&h->pub, report, sizeof(*report)) == 0)
		return 0;
	return qy_fail(EUCLEAN, "mapped heap: it is damaged: %s", report->wrong != 0 ? report->first : "its lock cannot be had");
}

static int dump_checked(struct dumping *d)
{
	struct heap *h = d->h;
	quarry_mapped_report report;

	/* Nobody comes, and nobody else is there to write: what the dead left is as it is, unless this one can finish it. */
	if (h->read_only && h->live->broken == 0 && h->live->redo_count != 0)
		return qy_fail(EAGAIN, "mapped heap: a change in it is to be finished: open it to write");
	if (!h->read_only && h->live->broken == 0 && quarry_mapped_recover(&h->pub) < 0)
		return -1;
	if (check_whole(h, &report) != 0)
		return -1;
	if (report.reserved != 0 && h->read_only)
		return qy_fail(EAGAIN, "mapped heap: a set of one who died is to be undone: open it to write");
	if (report.reserved != 0)
		return qy_fail(EBUSY, "mapped heap: a set of changes is under way");
	return put_all(d);
}

QUARRY_API int quarry_mapped_dump(quarry_mapped *heap, quarry_mapped_write_fn *write, void *ctx)
{
	struct heap *h = qy_heap(heap);
	struct dumping d = { .h = h, .write = write, .ctx = ctx };
	int others, rc;

	if (heap == NULL || write == NULL)
		return qy_fail(EINVAL, "dump: there is no heap, or nothing to write by");
	if (h->stale)
		return qy_fail(ESTALE, "mapped heap: this process has no session of it");
	/* Nobody opens it from here on; who reads may stay. */
	if (qy_os->range_lock(h->fd, h->read_only ? QY_RANGE_READ : QY_RANGE_WRITE, QY_MAPPED_LOCK_OPEN, 1, true) != 0)
		return qy_fail(errno, "mapped heap: no locks of open file descriptions");
	others = qy_os->range_locked(h->fd, QY_MAPPED_LOCK_SESSION, h->sb.sessions);
	rc = others == 0 ? dump_checked(&d) : qy_fail(others < 0 ? errno : EBUSY, "mapped heap: others have it open to write");
	(void)qy_os->range_lock(h->fd, QY_RANGE_NONE, QY_MAPPED_LOCK_OPEN, 1, false);
	return rc;
}

/* ---- less of a file ---- */

/* Of what is damaged nothing is thrown away: what is wrong may be what says that it is in use. */
static int64_t cut(struct heap *h)
{
	quarry_mapped_report report;
	struct qy_file_info info;
	uint64_t end;

	if (check_whole(h, &report) != 0)
		return -1;
	(void)quarry_mapped_trim(&h->pub);
	if (qy_os->file_info(h->fd, &info) != 0 || qy_mapped_enter(h) != 0)
		return -1;
	qy_units_shrink(h);
	end = h->live->end;
	qy_mapped_leave(h);
	if (end < info.size && qy_os->set_size(h->fd, end) != 0)
		return qy_fail(errno, "mapped heap: the file cannot be cut");
	return end < info.size ? (int64_t)(info.size - end) : 0;
}

QUARRY_API int64_t quarry_mapped_shrink(quarry_mapped *heap)
{
	struct heap *h = qy_heap(heap);
	int others;
	int64_t rc;

	if (heap == NULL || qy_mapped_refuse(h) != 0)
		return heap == NULL ? qy_fail(EINVAL, "heap: there is none") : -1;
	if (h->sb.mode != QUARRY_MAPPED_DIRECT)
		return qy_fail(ENOTSUP, "mapped heap: only the file of a direct one can be cut");
	if (qy_os->range_lock(h->fd, QY_RANGE_WRITE, QY_MAPPED_LOCK_OPEN, 1, true) != 0)
		return qy_fail(errno, "mapped heap: no locks of open file descriptions");
	others = qy_os->range_locked(h->fd, QY_MAPPED_LOCK_READ, 1);
	if (others == 0)
		others = qy_os->range_locked(h->fd, QY_MAPPED_LOCK_SESSION, h->sb.sessions);
	if (others != 0)
		rc = qy_fail(others < 0 ? errno : EBUSY, "mapped heap: others have it open");
	else
		rc = cut(h);
	(void)qy_os->range_lock(h->fd, QY_RANGE_NONE, QY_MAPPED_LOCK_OPEN, 1, false);
	return rc;
}
