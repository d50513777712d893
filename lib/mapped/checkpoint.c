/* SPDX-License-Identifier: MIT */
/* Checkpoints: a cut, its pages and nodes to slots that nobody needs, fdatasync(2), then the superblock over the older of the
 * two, and fdatasync(2) again. What a superblock that may be on the disk leads to is not written over before there
 * are two newer ones. */
#include <errno.h>
#include <string.h>

#include "lib/api/error.h"
#include "lib/mapped/durable.h"

/* All slots that either superblock leads to. */
static int mark_all(struct qy_durable *d, const struct qy_durable_sb sb[2], const bool valid[2])
{
	int rc = 0;

	qy_slots_free(&d->slots);
	for (unsigned i = 0; i < 2; i++) {
		for (uint32_t k = 0; rc == 0 && valid[i] && k < sb[i].count; k++)
			rc = qy_slots_mark(&d->slots, d->fd, &sb[i].version[k], k + 1 < sb[i].count ? &sb[i].version[k + 1] : NULL, true);
	}
	d->slots.next = QY_SLOT_FIRST;
	return rc;
}

static int not_whole(const struct qy_durable *d)
{
	struct qy_file_info info;
	uint64_t w = d->slots.count / 64;

	while (w > 0 && d->slots.bits[w - 1] == 0)
		w--;
	if (qy_os->file_info(d->fd, &info) != 0)
		return qy_fail(errno, "mapped heap: the file cannot be looked at");
	if (w > 0 && info.size >> QY_PAGE_SHIFT < w * 64 - (uint64_t)__builtin_clzll(d->slots.bits[w - 1]))
		return qy_fail(EUCLEAN, "mapped heap: its file was cut short since it was opened");
	return 0;
}

/* What the file has, as far as it is not known already. *other: what the superblock says that will be written over; count 0 where that is
 * nothing. Which one is newest is believed the file where nobody of those who have it open knows: what it shows may not be
 * on the disk, so it is written once more before the other one is. One that is newer than what this image made is of another one, whose
 * version would be lost. */
static int know(struct heap *h, struct qy_durable_sb *other, uint32_t *place)
{
	struct qy_durable *d = h->durable;
	struct qy_side *side = d->side;
	struct qy_durable_sb sb[2];
	bool valid[2];
	int newest;

	memset(other, 0, sizeof(*other));
	if (side->sequence == 0 && d->known) { /* a new one */
		*place = 0;
		return 0;
	}
	newest = qy_durable_sb_read(d->fd, sb, valid);
	if (newest < 0)
		return -1;
	if (!qy_durable_is_own(side, &sb[newest]))
		return qy_fail(EUCLEAN, "mapped heap: its file has a version that is not of this memory");
	if (side->settled != 0)
		newest = (int)side->place;
	if (!valid[newest] || sb[newest].sequence < side->sequence || !qy_durable_is_of(&sb[newest], &h->sb))
		return qy_fail(EUCLEAN, "mapped heap: its file is not as it was written");
	qy_put(side->sequence, sb[newest].sequence);
	*place = (uint32_t)newest ^ 1;
	if (valid[*place])
		*other = sb[*place];
	if (!d->known || d->sb.sequence != sb[newest].sequence) {
		d->known = false;
		d->sb = sb[newest];
		if (mark_all(d, sb, valid) != 0 || qy_tree_read(d->fd, &d->sb.version[0], &d->tree) != 0)
			return -1;
	}
	return not_whole(d);
}

/* The versions of what was written over that are in no superblock any more. They are the oldest; the next newer one has what
 * it shares with all others. */
static int forget(struct qy_durable *d, const struct qy_durable_sb *was, const struct qy_durable_sb *kept)
{
	uint64_t oldest = kept->count == 0 ? 0 : kept->version[kept->count - 1].number;
	int rc = 0;

	for (uint32_t k = was->count; rc == 0 && k-- > 0 && was->version[k].number < oldest;)
		rc = qy_slots_mark(&d->slots, d->fd, &was->version[k],
				   k > 0 ? &was->version[k - 1] : &kept->version[kept->count - 1], false);
	return rc;
}

static void next_version(struct qy_durable_sb *sb, const struct qy_durable_sb *other, const struct qy_cut *c)
{
	uint64_t number = sb->count == 0 ? 0 : sb->version[0].number;

	if (other->count != 0)
		number = qy_max(number, other->version[0].number);
	sb->sequence = qy_max(sb->sequence, other->sequence) + 1;
	sb->count = qy_min(sb->count + 1, sb->keep + 1);
	memmove(&sb->version[1], &sb->version[0], (sb->count - 1) * sizeof(sb->version[0]));
	sb->version[0] = (struct qy_version){ .number = number + 1, .end = c->end, .made = qy_os->wall_ns() };
	memcpy(sb->version[0].root, c->h->durable->tree.root, sizeof(sb->version[0].root));
	qy_durable_sb_seal(sb);
}

/* From here on it may be on the disk or not, whatever comes of it: the next one to try believes the file again, and knows it for one of this
 * image's. */
static void note_tried(struct qy_side *side, const struct qy_durable_sb *next)
{
	qy_put(side->tried, 0);
	QY_DURABLE_POINT();
	qy_put(side->tried_crc, next->crc);
	QY_DURABLE_POINT();
	qy_put(side->tried, next->sequence);
	QY_DURABLE_POINT();
	qy_put(side->settled, 0);
	QY_DURABLE_POINT();
}

/* `next` is the superblock that is on the disk now. */
static void settle(struct heap *h, const struct qy_durable_sb *next, const struct qy_durable_sb *other, uint32_t place)
{
	struct qy_durable *d = h->durable;
	struct qy_durable_sb was = d->sb;

	qy_put(d->side->settled, 0);
	QY_DURABLE_POINT();
	qy_put(d->side->place, place);
	QY_DURABLE_POINT();
	qy_put(d->side->sequence, next->sequence);
	QY_DURABLE_POINT();
	qy_put(d->side->settled, 1);
	QY_DURABLE_POINT();
	d->sb = *next;
	/* Of a list that is not the one before this one nothing is known: the slots are found anew, the next time. */
	d->known = other->sequence <= was.sequence && (other->count == 0 || forget(d, other, &was) == 0);
}

static int commit(struct qy_cut *c, const struct qy_durable_sb *other, uint32_t place, struct qy_durable_sb *next)
{
	struct qy_durable *d = c->h->durable;

	if (qy_cut_write(c) != 0)
		return -1;
	QY_DURABLE_POINT();
	if (d->side->settled == 0 && d->sb.sequence != 0) {
		if (qy_durable_sb_write(d->fd, &d->sb, place ^ 1) != 0)
			return qy_fail(errno, "mapped heap: its file cannot be written");
		c->out.bytes += QY_PAGE;
	}
	if (qy_os->sync_data(d->fd) != 0)
		return qy_fail(errno, "mapped heap: what was written to its file did not reach the disk");
	QY_DURABLE_POINT();
	*next = d->sb;
	next_version(next, other, c);
	note_tried(d->side, next);
	if (qy_durable_sb_write(d->fd, next, place) != 0 || qy_os->sync_data(d->fd) != 0)
		return qy_fail(errno, "mapped heap: the superblock did not reach the disk");
	c->out.bytes += QY_PAGE;
	settle(c->h, next, other, place);
	return 0;
}

static int make_it(struct heap *h, quarry_mapped_checkpoint_info *info)
{
	struct qy_durable_sb *sb = quarry_malloc(2 * sizeof(*sb));
	struct qy_durable *d = h->durable;
	struct qy_cut c = { .h = h, .out = { .fd = d->fd, .buffer = quarry_malloc(QY_BATCH * QY_PAGE) } };
	uint32_t place = 0;
	int rc = sb != NULL && c.out.buffer != NULL ? 0 : qy_fail(ENOMEM, "mapped heap: no memory for a checkpoint's tables");

	if (rc == 0 && (quarry_mapped_recover(&h->pub) < 0 || know(h, &sb[0], &place) != 0))
		rc = -1;
	if (rc == 0)
		rc = qy_cut_make(&c, h);
	if (rc == 0)
		rc = commit(&c, &sb[0], place, &sb[1]);
	if (rc != 0) {
		int error = errno;

		d->known = false; /* what was changed of the tables is undone by reading them again */
		qy_cut_undo(&c);
		errno = error;
	} else {
		*info = (quarry_mapped_checkpoint_info){
			.version = d->sb.version[0].number, .pages = c.changed, .bytes = c.out.bytes, .stopped_ns = c.stopped_ns,
			.rounds = c.rounds, .compared = c.compared,
		};
	}
	qy_cut_end(&c);
	quarry_free(sb);
	return rc;
}

QUARRY_API int quarry_mapped_checkpoint(quarry_mapped *heap, quarry_mapped_checkpoint_info *info, size_t size)
{
	struct heap *h = qy_heap(heap);
	uint64_t from = qy_os->now_ns();
	quarry_mapped_checkpoint_info is = { 0 };
	struct qy_mapped_local *l;
	int rc;

	if (qy_mapped_refuse(h) != 0)
		return -1;
	if (h->durable == NULL)
		return qy_fail(ENOTSUP, "mapped heap: it is not durable");
	l = qy_local_known(h);
	if (l != NULL && l->inside != 0)
		return qy_fail(EDEADLK, "mapped heap: the caller is in a section");
	pthread_mutex_lock(&h->durable->busy);
	rc = qy_os->range_lock(h->durable->fd, QY_RANGE_WRITE, QY_LOCK_CHECKPOINT, 1, true);
	if (rc != 0) {
		qy_fail(errno, "mapped heap: its file cannot be locked");
	} else {
		int error;

		rc = make_it(h, &is);
		error = errno;
		(void)qy_os->range_lock(h->durable->fd, QY_RANGE_NONE, QY_LOCK_CHECKPOINT, 1, false);
		errno = error;
	}
	pthread_mutex_unlock(&h->durable->busy);
	if (rc == 0 && info != NULL) {
		is.took_ns = qy_os->now_ns() - from;
		memset(info, 0, size);
		memcpy(info, &is, qy_min(size, sizeof(is)));
	}
	return rc;
}
