/* SPDX-License-Identifier: MIT */
/* Making, opening and closing heaps. Who opens, or closes, has a lock of the file for that time, so that it is known who is the
 * first and the last one. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "lib/api/error.h"
#include "lib/mapped/mapped.h"
#include "lib/object/own.h"
#include "numa/os.h"

#define HUGE_SHIFT 21
#define TRIES 1000

/* ---- mapping ---- */

/* NULL with errno and text. */
static void *map(struct heap *h, uint64_t at[6])
{
	uint64_t len = h->sb.head_bytes + h->sb.max_bytes, huge = (uint64_t)1 << HUGE_SHIFT;
	char *room = qy_os->mmap(NULL, len + huge, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0), *base;

	if (room == MAP_FAILED) {
		qy_fail(ENOMEM, "mapped heap: no %llu bytes of addresses", (unsigned long long)h->sb.max_bytes);
		return NULL;
	}
	base = (char *)qy_align_up((uintptr_t)room, huge);
	if (qy_os->mmap(base, len, h->read_only ? PROT_READ : PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE,
			h->out, 0) == MAP_FAILED) {
		int error = errno;

		(void)qy_os->munmap(room, len + huge);
		qy_fail(error, "mapped heap: its file cannot be mapped");
		return NULL;
	}
	if ((h->sb.flags & QUARRY_MAPPED_HUGE) != 0)
		(void)qy_os->madvise(base, len, QY_MADV_HUGEPAGE); /* (what comes of it, quarry_mapped_where tells) */
	if (base != room)
		(void)qy_os->munmap(room, (size_t)(base - room));
	(void)qy_os->munmap(base + len, (size_t)(room + huge - base));
	h->map = base;
	h->map_len = len;
	h->pub = (quarry_mapped){ base, len };
	h->live = (void *)(base + QY_MAPPED_LIVE_AT);
	h->sessions = (void *)(base + at[0]);
	h->lanes = (void *)(base + at[1]);
	h->roots = (void *)(base + at[2]);
	h->user = base + at[3];
	h->segtab = (void *)(base + at[4]);
	h->segs = base + at[5];
	h->seg_bytes = h->sb.max_bytes;
	if (h->durable != NULL)
		qy_dirty_arm(h);
	return base;
}

static void drop(struct heap *h)
{
	int error = errno;

	qy_mapped_let_go(h);
	if (h->map != NULL)
		(void)qy_os->munmap(h->map, h->map_len);
	(void)qy_os->close(h->out);
	if (h->of >= 0)
		(void)qy_os->close(h->of);
	quarry_free(h);
	errno = error;
}

/* Of a descriptor that is ours from now on. */
static struct heap *make(int out, bool read_only, struct qy_durable *durable)
{
	struct heap *h = qy_own_calloc(1, sizeof(*h));
	int error;

	if (h != NULL) {
		h->fd = h->of = -1;
		h->out = out;
		h->durable = durable;
		h->read_only = read_only;
		h->session = UINT32_MAX;
		qy_list_init(&h->locals);
		if (qy_heap_register(h) == 0)
			return h;
	}
	error = errno;
	if (durable != NULL)
		qy_durable_free(durable);
	quarry_free(h);
	(void)qy_os->close(out);
	errno = error;
	return NULL;
}

/* ---- what is in the file ---- */

static int cannot_be(uint64_t seg)
{
	return qy_fail(EUCLEAN, "mapped heap: segment %llu cannot be", (unsigned long long)seg);
}

/* Whether a segment is what it must be; *n: how many it is. Of it nothing behind `end` is touched. */
static int check_segment(const struct heap *h, uint64_t s, uint64_t segments, uint64_t end, uint64_t *n)
{
	uint64_t entry = __atomic_load_n(&h->segtab[s], __ATOMIC_ACQUIRE), kind = entry & 0xff, units = entry >> 8;
	uint64_t at = (uint64_t)(qy_seg_at(h, s) - h->pub.base), bytes = QY_MAPPED_META_UNITS * QY_MAPPED_UNIT, born;

	*n = kind == QY_SEG_UNITS ? 1 : (units + QY_MAPPED_SEG_UNITS - 1) / QY_MAPPED_SEG_UNITS;
	if ((kind != QY_SEG_UNITS && kind != QY_SEG_BLOCK && kind != QY_SEG_FREE) || *n == 0 || *n > segments - s ||
	    (kind == QY_SEG_UNITS && units != 0))
		return cannot_be(s);
	if (kind == QY_SEG_BLOCK)
		bytes = units * QY_MAPPED_UNIT;
	if (kind != QY_SEG_FREE && at + bytes > end)
		return cannot_be(s);
	for (uint64_t t = s + 1; t < s + *n; t++) { /* (free ones that were beside each other are one) */
		uint64_t behind = qy_peek(h->segtab[t]) & 0xff;

		if (behind != QY_SEG_TAIL && (kind != QY_SEG_FREE || (behind != QY_SEG_FREE && behind != QY_SEG_NONE)))
			return cannot_be(t);
	}
	born = kind == QY_SEG_UNITS ? __atomic_load_n(&qy_seg_head(h, s)->born, __ATOMIC_ACQUIRE) : QY_MAPPED_META_UNITS;
	if (born > QY_MAPPED_SEG_UNITS || born < QY_MAPPED_META_UNITS || (kind == QY_SEG_UNITS && at + born * QY_MAPPED_UNIT > end))
		return cannot_be(s);
	return 0;
}

/* Where the heap ends, which is memory. (A file is made longer before it is said.) */
static int find_end(const struct heap *h, uint64_t *end)
{
	struct qy_file_info info;

	*end = __atomic_load_n(&h->live->end, __ATOMIC_ACQUIRE);
	if (*end < h->sb.head_bytes || *end > h->pub.length)
		return qy_fail(EUCLEAN, "mapped heap: its size cannot be");
	if (qy_os->file_info(h->fd, &info) != 0)
		return qy_fail(errno, "mapped heap: the file cannot be looked at");
	if (*end > info.size)
		return qy_fail(EUCLEAN, "mapped heap: cut short: %llu bytes, it has %llu", (unsigned long long)info.size,
			       (unsigned long long)*end);
	return 0;
}

/* Whether segments are what they must be, and memory: before anything of them is touched. The heap's lock is held, or nobody else is
 * there; or, for a reader, others may have it grow meanwhile: `end` comes before what is in front of it. */
static int check_segments(const struct heap *h)
{
	uint64_t segments = __atomic_load_n(&h->live->segments, __ATOMIC_ACQUIRE), end, n;

	if (segments > h->sb.max_bytes >> QY_MAPPED_SEG_SHIFT)
		return qy_fail(EUCLEAN, "mapped heap: its size cannot be");
	if (find_end(h, &end) != 0)
		return -1;
	for (uint64_t s = 0; s < segments; s += n) {
		if (check_segment(h, s, segments, end, &n) != 0 &&
		    (find_end(h, &end) != 0 || check_segment(h, s, segments, end, &n) != 0))
			return -1;
	}
	return 0;
}

/* Entries behind the last segment mean nothing, and are none from now on: quarry_mapped_free's short way asks the table alone
 * whether there is a record to be read. The heap's lock is held. */
static void clear_behind(struct heap *h)
{
	for (uint64_t s = h->live->segments; s < h->sb.max_bytes >> QY_MAPPED_SEG_SHIFT; s++) {
		if (qy_peek(h->segtab[s]) != QY_SEG_NONE)
			qy_put(h->segtab[s], QY_SEG_NONE);
	}
}

/* 1 where another process has it open to write, 0, or -1. */
static int others(const struct heap *h)
{
	return qy_os->range_locked(h->fd, QY_MAPPED_LOCK_SESSION, h->sb.sessions);
}

/* Locks in it bear threads' numbers, which are other threads' in another PID namespace. (OPEN is held: nobody comes.) */
static int check_spaces(const struct heap *h)
{
	uint64_t mine = qy_os->process_space();

	for (uint32_t i = 0; i < h->sb.sessions; i++) {
		uint64_t space = qy_peek(h->sessions[i].space);

		if (qy_peek(h->sessions[i].state) != 0 && space != mine && space != 0 && mine != 0 &&
		    qy_os->range_locked(h->fd, QY_MAPPED_LOCK_SESSION + i, 1) == 1)
			return qy_fail(ENOTSUP, "mapped heap: process %llu of another PID namespace has it open",
				       (unsigned long long)h->sessions[i].pid);
	}
	return 0;
}

static int something_wrong(void)
{
	return qy_fail(EUCLEAN, "mapped heap: something in it cannot be, or not be finished: it can be opened to be read");
}

/* Whoever is first finishes what is under way before anything is looked at: until then it may be half done. */
static int begin_it(struct heap *h)
{
	int is = others(h), rc;

	if (is < 0)
		return qy_fail(errno, "mapped heap: no locks of open file descriptions");
	if (is != 0 && check_spaces(h) != 0)
		return -1;
	if (is == 0)
		qy_mapped_replay(h);
	if (h->live->broken != 0)
		return something_wrong();
	if (is == 0 && (check_segments(h) != 0 || qy_session_fresh(h) != 0))
		return -1;
	if (qy_mapped_enter(h) != 0)
		return h->live->broken != 0 ? something_wrong() : -1;
	rc = check_segments(h);
	if (rc == 0) {
		clear_behind(h);
		(void)qy_sessions_reap(h);
	}
	if (rc == 0)
		rc = qy_session_begin(h);
	if (rc != 0 && h->durable != NULL) /* (a checkpoint that asks when the lock is let go does not ask this process) */
		qy_dirty_suspect(h);
	qy_mapped_leave(h);
	if (rc == 0 && h->sb.clean != 0) {
		h->sb.clean = 0;
		(void)qy_mapped_sb_write(h->fd, &h->sb);
	}
	return rc;
}

/* What was written by one that has no session then nobody can be asked for. */
static int begin(struct heap *h)
{
	int rc = begin_it(h);

	if (rc != 0 && h->durable != NULL)
		qy_dirty_suspect(h);
	return rc;
}

/* (While others change it there is no moment in which all of it is as it must be.) */
static int begin_reading(struct heap *h)
{
	int is = others(h), rc = -1;

	if (is == 0 && h->live->broken == 0 && h->live->redo_count != 0)
		return qy_fail(EAGAIN, "mapped heap: a change in it is to be finished: open it to write");
	for (unsigned i = 0; i < (is == 0 ? 1 : TRIES) && rc != 0; i++)
		rc = check_segments(h);
	if (rc != 0 && is != 0 && qy_peek(h->live->redo_count) != 0)
		return qy_fail(EAGAIN, "mapped heap: a change in it is to be finished by those who have it");
	return rc != 0 ? -1 : qy_os->range_lock(h->fd, QY_RANGE_READ, QY_MAPPED_LOCK_READ, 1, false);
}

/* The superblock, and that the file has the head. 1 where it is a durable heap's file, which has none: unless what is opened is such a
 * heap's memory, or a version of it. -1 with errno and text. */
static int read_head(struct heap *h, bool live)
{
	struct qy_file_info info;

	if (qy_mapped_sb_read(h->fd, &h->sb) != 0)
		return -1;
	if (!live && h->sb.mode == QUARRY_MAPPED_DURABLE)
		return 1;
	if (qy_os->file_info(h->fd, &info) != 0)
		return qy_fail(errno, "mapped heap: the file cannot be looked at");
	if (info.size < h->sb.head_bytes)
		return qy_fail(EUCLEAN, "mapped heap: cut short: %llu bytes, the head has %llu", (unsigned long long)info.size,
			       (unsigned long long)h->sb.head_bytes);
	return 0;
}

/* Memory must not become shorter under those who have it, nor be sealed any further by one of them, whatever it says that it is. Files in
 * memory have seals as well, which nobody can change: they have names, and are files. */
static int seal(const struct heap *h)
{
	int seals = qy_os->seals(h->fd);
	struct qy_file_info info;

	if (seals < 0 || (seals & QY_SEAL_SHRINK) != 0) {
		if (seals >= 0)
			(void)qy_os->seal(h->fd, QY_SEAL_SEAL);
		return 0;
	}
	if (qy_os->seal(h->fd, QY_SEAL_SHRINK | QY_SEAL_SEAL) == 0)
		return 0;
	if (h->sb.mode != QUARRY_MAPPED_VOLATILE && qy_os->file_info(h->fd, &info) == 0 && info.named)
		return 0;
	return qy_fail(EPERM, "mapped heap: its memory could be cut short by others, and cannot be sealed");
}

/* What stands in the file, now that nobody comes or goes: the superblock, which is no longer what it was, and all else. */
int qy_mapped_begin_session(struct heap *h)
{
	struct qy_mapped_sb was = h->sb;
	int rc = qy_os->range_lock(h->fd, h->read_only ? QY_RANGE_READ : QY_RANGE_WRITE, QY_MAPPED_LOCK_OPEN, 1, true);

	if (rc != 0)
		return qy_fail(errno, "mapped heap: no locks of open file descriptions");
	rc = read_head(h, true);
	if (rc == 0 && (was.max_bytes != h->sb.max_bytes || was.head_bytes != h->sb.head_bytes || was.mode != h->sb.mode))
		rc = qy_fail(EUCLEAN, "mapped heap: it is another one than a moment ago");
	if (rc == 0)
		rc = h->read_only ? begin_reading(h) : begin(h);
	(void)qy_os->range_lock(h->fd, QY_RANGE_NONE, QY_MAPPED_LOCK_OPEN, 1, false);
	return rc;
}

/* It was none, or another one, a moment ago: its maker has said what it is since. errno and text are another's. */
static quarry_mapped *open_as_durable(struct heap *h)
{
	int again = h->read_only ? qy_os->reopen(h->out) : qy_os->reopen_to_write(h->out);
	struct qy_mapped_sb sb = h->sb;
	bool read_only = h->read_only;

	if (again < 0)
		qy_fail(errno, "mapped heap: its file cannot be opened a second time");
	drop(h);
	return again < 0 ? NULL : qy_durable_open(again, read_only, &sb, 0);
}

/* live: as read_head. */
static quarry_mapped *open_in(int fd, bool read_only, struct qy_durable *durable, bool live)
{
	struct heap *h = make(fd, read_only, durable);
	uint64_t at[6];
	int rc;

	if (h == NULL)
		return NULL;
	rc = qy_os->range_lock(h->fd, read_only ? QY_RANGE_READ : QY_RANGE_WRITE, QY_MAPPED_LOCK_OPEN, 1, true);
	if (rc != 0)
		qy_fail(errno, "mapped heap: no locks of open file descriptions");
	if (rc == 0)
		rc = read_head(h, live);
	if (rc > 0)
		return open_as_durable(h);
	if (rc == 0 && !read_only)
		rc = seal(h);
	if (rc == 0 && !read_only && (h->sb.ro_compat & ~QY_MAPPED_RO_COMPAT_KNOWN) != 0)
		rc = qy_fail(ENOTSUP, "mapped heap: feature %u is not known: it can be opened to be read",
			     (unsigned)__builtin_ctz(h->sb.ro_compat & ~QY_MAPPED_RO_COMPAT_KNOWN));
	if (rc == 0 && (!qy_mapped_layout(&h->sb, at) || map(h, at) == NULL))
		rc = -1;
	if (rc == 0)
		rc = read_only ? begin_reading(h) : begin(h);
	if (rc != 0) {
		drop(h);
		return NULL;
	}
	qy_mapped_opened(h);
	(void)qy_os->range_lock(h->fd, QY_RANGE_NONE, QY_MAPPED_LOCK_OPEN, 1, false);
	return &h->pub;
}

quarry_mapped *qy_mapped_open_by(int fd, bool read_only, struct qy_durable *durable)
{
	return open_in(fd, read_only, durable, true);
}

/* Of a descriptor that is ours from now on. A file that is no heap is told where it is opened. */
static quarry_mapped *open_by(int fd, bool read_only)
{
	struct qy_mapped_sb sb = { 0 };

	if (fd < 0)
		return NULL;
	if (qy_mapped_sb_read(fd, &sb) == 0 && sb.mode == QUARRY_MAPPED_DURABLE)
		return qy_durable_open(fd, read_only, &sb, 0);
	return open_in(fd, read_only, NULL, false);
}

QUARRY_API quarry_mapped *quarry_mapped_open(const char *path)
{
	int fd = qy_os->open_file(path, QY_OPEN_WRITE);

	if (fd < 0)
		qy_fail(errno, "mapped heap: %s cannot be opened", path);
	return open_by(fd, false);
}

QUARRY_API quarry_mapped *quarry_mapped_open_read(const char *path)
{
	int fd = qy_os->open_file(path, QY_OPEN_READ);

	if (fd < 0)
		qy_fail(errno, "mapped heap: %s cannot be opened", path);
	return open_by(fd, true);
}

/* An open file description of its own: the other one's locks are the sender's. */
QUARRY_API quarry_mapped *quarry_mapped_attach(int fd)
{
	struct qy_file_info info;
	int own;

	if (qy_os->file_info(fd, &info) != 0) {
		qy_fail(errno, "mapped heap: descriptor %d is none", fd);
		return NULL;
	}
	own = qy_os->reopen_to_write(fd);
	if (own < 0)
		qy_fail(errno, "mapped heap: descriptor %d cannot be opened anew", fd);
	return open_by(own, false);
}

QUARRY_API int quarry_mapped_fd(const quarry_mapped *heap)
{
	const struct heap *h = qy_heap(heap);

	return h->durable != NULL ? qy_durable_fd(h) : h->of >= 0 ? h->of : h->out;
}

/* ---- a new one ---- */

/* All but the superblocks. */
static int fill(struct heap *h)
{
	uint64_t at[6];

	(void)qy_mapped_layout(&h->sb, at);
	qy_mapped_uuid(h->sb.uuid);
	(void)qy_os->read_file("/proc/sys/kernel/random/boot_id", h->sb.boot, sizeof(h->sb.boot));
	if (qy_os->set_size(h->fd, h->durable != NULL ? qy_durable_size(h) : h->sb.head_bytes) != 0)
		return qy_fail(errno, "mapped heap: no room for its head");
	if (map(h, at) == NULL)
		return -1;
	if ((h->sb.flags & QUARRY_MAPPED_ON_NODE) != 0 && qy_mapped_bind(h) != 0)
		return -1;
	if (qy_os->allocate(h->fd, 0, h->sb.head_bytes) != 0 && errno != EOPNOTSUPP)
		return qy_fail(errno, "mapped heap: no room for its head");
	h->live->on_node = (h->sb.flags & QUARRY_MAPPED_ON_NODE) != 0 ? (uint64_t)h->node + 1 : 0;
	h->live->end = h->sb.head_bytes;
	return qy_session_fresh(h) != 0 ? -1 : qy_session_begin(h);
}

int qy_mapped_new_file(const char *path)
{
	int fd, error;

	if (path != NULL)
		return qy_os->open_file(path, QY_OPEN_NEW);
	fd = qy_os->memfd("quarry heap", QY_MFD_CLOEXEC | QY_MFD_ALLOW_SEALING | QY_MFD_NOEXEC_SEAL);
	if (fd < 0 && errno == EINVAL)
		fd = qy_os->memfd("quarry heap", QY_MFD_CLOEXEC | QY_MFD_ALLOW_SEALING);
	if (fd < 0 || qy_os->seal(fd, QY_SEAL_SHRINK | QY_SEAL_SEAL) == 0)
		return fd;
	error = errno;
	(void)qy_os->close(fd);
	errno = error;
	return -1;
}

static struct heap *make_in(int fd, const struct qy_mapped_sb *sb, struct qy_durable *durable, int node)
{
	struct heap *h = make(fd, false, durable);

	if (h == NULL)
		return NULL;
	h->sb = *sb;
	h->node = node;
	if (qy_os->range_lock(h->fd, QY_RANGE_WRITE, QY_MAPPED_LOCK_OPEN, 1, true) == 0 && fill(h) == 0)
		return h;
	drop(h);
	return NULL;
}

int qy_mapped_say(struct heap *h)
{
	if (qy_mapped_sb_write(h->fd, &h->sb) != 0 || qy_mapped_sb_write(h->fd, &h->sb) != 0)
		return qy_fail(errno, "mapped heap: its head cannot be written");
	qy_mapped_opened(h);
	(void)qy_os->range_lock(h->fd, QY_RANGE_NONE, QY_MAPPED_LOCK_OPEN, 1, false);
	return 0;
}

quarry_mapped *qy_mapped_create_in(int fd, const struct qy_mapped_sb *sb, struct qy_durable *durable, int node)
{
	struct heap *h = make_in(fd, sb, durable, node);

	if (h == NULL || qy_mapped_say(h) == 0)
		return h == NULL ? NULL : &h->pub;
	drop(h);
	return NULL;
}

static void remove_quietly(const char *path)
{
	int error = errno;

	if (path != NULL)
		(void)qy_os->remove_file(path);
	errno = error;
}

void qy_mapped_unmake(struct heap *h, const char *path)
{
	int error = errno;

	remove_quietly(path);
	qy_heap_unregister(h);
	drop(h);
	errno = error;
}

static struct heap *make_file(const char *path, const struct qy_mapped_sb *sb, int node)
{
	int fd = qy_mapped_new_file(path);
	struct heap *h;

	if (fd < 0) {
		qy_fail(errno, "mapped heap: %s cannot be made", path == NULL ? "its memory" : path);
		return NULL;
	}
	h = make_in(fd, sb, NULL, node);
	if (h == NULL)
		remove_quietly(path);
	return h;
}

struct heap *qy_mapped_make(const char *path, const quarry_mapped_attr *attr)
{
	struct qy_mapped_sb sb = { 0 };
	uint32_t versions;

	return qy_mapped_sb_take(&sb, attr, path, &versions) != 0 ? NULL : make_file(path, &sb, -1);
}

QUARRY_API quarry_mapped *quarry_mapped_create(const char *path, const quarry_mapped_attr *attr)
{
	struct qy_mapped_sb sb = { 0 };
	uint32_t versions = 0;
	struct heap *h;
	bool bound;

	if (qy_mapped_sb_take(&sb, attr, path, &versions) != 0)
		return NULL;
	bound = (sb.flags & QUARRY_MAPPED_ON_NODE) != 0 && attr->struct_size > offsetof(quarry_mapped_attr, node);
	if (sb.mode == QUARRY_MAPPED_DURABLE)
		return qy_durable_create(path, &sb, versions);
	h = make_file(path, &sb, bound ? attr->node : -1);
	if (h == NULL || qy_mapped_say(h) == 0)
		return h == NULL ? NULL : &h->pub;
	qy_mapped_unmake(h, path);
	return NULL;
}

/* ---- closing ---- */

/* The last one: nobody can come before OPEN is let go. */
static void close_last(struct heap *h)
{
	if ((h->sb.flags & QUARRY_MAPPED_SHRINK) != 0 && h->sb.mode == QUARRY_MAPPED_DIRECT && qy_mapped_enter(h) == 0) {
		qy_units_shrink(h);
		qy_mapped_leave(h);
		if (qy_os->range_locked(h->fd, QY_MAPPED_LOCK_READ, 1) == 0)
			(void)qy_os->set_size(h->fd, h->live->end);
	}
	h->sb.clean = 1;
	(void)qy_mapped_sb_write(h->fd, &h->sb);
}

QUARRY_API int quarry_mapped_close(quarry_mapped *heap)
{
	struct heap *h = qy_heap(heap);

	if (heap == NULL)
		return qy_fail(EINVAL, "heap: there is none");
	if (h->durable != NULL)
		qy_durable_closing(h);
	if (!h->read_only && !h->stale)
		(void)qy_os->range_lock(h->fd, QY_RANGE_WRITE, QY_MAPPED_LOCK_OPEN, 1, true);
	qy_heap_unregister(h);
	if (!h->read_only && !h->stale && h->live->broken == 0 && others(h) == 0)
		close_last(h);
	drop(h);
	return 0;
}

QUARRY_API int quarry_mapped_delete(const char *path)
{
	struct qy_mapped_sb sb;
	int fd = qy_os->open_file(path, QY_OPEN_READ), rc;

	if (fd < 0)
		return qy_fail(errno, "mapped heap: %s cannot be opened", path);
	rc = qy_mapped_sb_read(fd, &sb);
	if (rc != 0 && (errno == EUCLEAN || errno == ENOTSUP)) /* one that cannot be opened, but one */
		rc = 0;
	(void)qy_os->close(fd);
	if (rc == 0 && qy_os->remove_file(path) != 0)
		rc = qy_fail(errno, "mapped heap: %s cannot be removed", path);
	return rc;
}
