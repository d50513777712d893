/* SPDX-License-Identifier: MIT */
/* Durable heaps: how one comes to be, how a process finds the live image that others have or makes it from the newest version, and
 * versions by number.
 *
 * The live image has no name, so that nothing is left of it when the last process is gone. Who has it open has a byte of the file
 * locked, as in the image itself, and has said in the file's record for that byte where its descriptor is. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "lib/api/error.h"
#include "lib/mapped/durable.h"
#include "lib/object/own.h"

#define LOOKS 250u /* of a ms: for how long a process may be about to end, or a fork to begin */

/* ---- the side ---- */

uint64_t qy_side_bytes(const struct qy_mapped_sb *sb, uint64_t at[3])
{
	uint64_t pages = (sb->head_bytes + sb->max_bytes) >> QY_PAGE_SHIFT;

	at[0] = QY_PAGE;
	at[1] = qy_align_up(at[0] + sb->sessions * sizeof(struct qy_side_session), QY_PAGE);
	at[2] = qy_align_up(at[1] + sb->lanes * sizeof(struct qy_side_lane), QY_PAGE);
	return qy_align_up(at[2] + pages / 8, (uint64_t)1 << 16); /* (whatever pages the kernel has) */
}

static uint64_t side_begins(const struct qy_mapped_sb *sb)
{
	return sb->head_bytes + sb->max_bytes;
}

uint64_t qy_durable_size(const struct heap *h)
{
	return h->durable->side_at + h->durable->side_len;
}

static int map_side(struct qy_durable *d, const struct qy_mapped_sb *sb, int live)
{
	uint64_t at[3];
	char *side;

	d->side_len = qy_side_bytes(sb, at);
	d->side_at = side_begins(sb);
	side = qy_os->mmap(NULL, d->side_len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, live, (off_t)d->side_at);
	if (side == MAP_FAILED)
		return qy_fail(ENOMEM, "mapped heap: no addresses for what stands beside it");
	d->side = (void *)side;
	d->sessions = (void *)(side + at[0]);
	d->lanes = (void *)(side + at[1]);
	d->bits = (void *)(side + at[2]);
	d->max_pages = d->side_at >> QY_PAGE_SHIFT;
	return 0;
}

static void close_one(int *fd)
{
	if (*fd >= 0)
		(void)qy_os->close(*fd);
	*fd = -1;
}

int qy_durable_fd(const struct heap *h)
{
	return h->durable->out;
}

/* Who opens it meanwhile waits until this process's bytes are not locked any more. */
void qy_durable_closing(struct heap *h)
{
	if (!h->stale)
		(void)qy_os->range_lock(h->durable->fd, QY_RANGE_WRITE, QY_MAPPED_LOCK_OPEN, 1, true);
}

/* Locks go by hand: where a child of a fork has the description yet, they would stay. */
static void let_file_go(int *fd)
{
	if (*fd >= 0)
		(void)qy_os->range_lock(*fd, QY_RANGE_NONE, QY_MAPPED_LOCK_OPEN, 0, false);
	close_one(fd);
}

/* ---- descriptions that a fork must know of before there is a heap ---- */

static struct qy_link openings = { &openings, &openings }; /* the registry's lock */

/* Of a file whose descriptor is d->out from then on; NULL with errno and text. */
static struct qy_durable *new_one(int out, bool read_only)
{
	struct qy_durable *d = qy_own_calloc(1, sizeof(*d));

	if (d == NULL || qy_registry_enter() != 0) {
		quarry_free(d);
		return NULL;
	}
	d->out = out;
	d->track = d->pagemap = -1;
	d->fd = read_only ? qy_os->reopen(out) : qy_os->reopen_to_write(out);
	if (d->fd >= 0)
		qy_list_push_back(&openings, &d->opening);
	qy_registry_leave();
	if (d->fd < 0) {
		qy_fail(errno, "mapped heap: its file cannot be opened a second time");
		quarry_free(d);
		return NULL;
	}
	pthread_mutex_init(&d->busy, NULL);
	return d;
}

/* There is a heap that has it. The registry's lock is held. */
void qy_durable_registered(struct qy_durable *d)
{
	if (d->opening.next != NULL)
		qy_list_remove(&d->opening);
	d->opening.next = NULL;
}

/* What another thread was opening, or closing, when this process was forked. */
static void let_memory_go(struct qy_durable *d)
{
	close_one(&d->out);
	if (d->side != NULL)
		(void)qy_os->munmap(d->side, d->side_len);
	d->side = NULL;
}

void qy_durable_openings_in_child(void)
{
	for (struct qy_link *at = openings.next; at != &openings; at = at->next) {
		struct qy_durable *d = qy_container(at, struct qy_durable, opening);

		close_one(&d->fd);
		let_memory_go(d);
	}
	qy_list_init(&openings);
}

static void free_it(struct qy_durable *d)
{
	close_one(&d->track);
	close_one(&d->pagemap);
	if (d->side != NULL)
		(void)qy_os->munmap(d->side, d->side_len);
	qy_tree_free(&d->tree);
	qy_slots_free(&d->slots);
	(void)pthread_mutex_destroy(&d->busy);
	let_file_go(&d->fd);
	close_one(&d->out);
	quarry_free(d);
}

void qy_durable_free(struct qy_durable *d)
{
	int error = errno;

	(void)qy_registry_enter();
	qy_durable_registered(d);
	let_file_go(&d->fd); /* (not after it is in no list) */
	qy_registry_leave();
	free_it(d);
	errno = error;
}

void qy_durable_drop(struct heap *h)
{
	struct qy_durable *d = h->durable;

	/* What was written by one that never had a session, or that could not be locked at its end, nobody can be asked for. */
	if (!h->stale && h->map != NULL && (h->session == UINT32_MAX || qy_dirty_is_known(h, h->session))) {
		qy_dirty_suspect(h);
		if (h->session != UINT32_MAX)
			qy_dirty_died(h, h->session);
	}
	QY_DURABLE_POINT();
	h->durable = NULL;
	free_it(d);
}

/* ---- finding the live image ---- */

static void take_boot(char boot[40])
{
	memset(boot, 0, 40);
	(void)qy_os->read_file("/proc/sys/kernel/random/boot_id", boot, 40);
}

int qy_durable_begin(struct heap *h)
{
	struct qy_finder finder = { .pid = (uint64_t)qy_os->process_id(), .fd = (uint64_t)h->out,
				    .pid_space = qy_os->process_space() };
	struct qy_durable *d = h->durable;

	take_boot(finder.boot);
	if (qy_os->range_lock(d->fd, QY_RANGE_WRITE, QY_MAPPED_LOCK_SESSION + h->session, 1, false) != 0)
		return errno == EAGAIN ? 1 : qy_fail(errno, "mapped heap: its file cannot be locked");
	QY_DURABLE_POINT();
	if (qy_os->write_at(d->fd, &finder, sizeof(finder), QY_FINDERS_AT + h->session * sizeof(finder)) != 0) {
		int error = errno;

		(void)qy_os->range_lock(d->fd, QY_RANGE_NONE, QY_MAPPED_LOCK_SESSION + h->session, 1, false);
		return qy_fail(error, "mapped heap: its file cannot be written");
	}
	QY_DURABLE_POINT();
	qy_dirty_publish(h);
	return 0;
}

/* Whether that is the live image of this heap, in all its numbers. */
static bool is_live(int fd, const struct qy_mapped_sb *sb)
{
	struct qy_mapped_sb head = { 0 };
	struct qy_file_info info;
	struct qy_side side;
	uint64_t at[3];

	return qy_os->file_info(fd, &info) == 0 && info.size == side_begins(sb) + qy_side_bytes(sb, at) &&
	       qy_mapped_sb_read(fd, &head) == 0 && qy_durable_same(&head, sb) &&
	       qy_os->read_at(fd, &side, sizeof(side), side_begins(sb)) == 0 && memcmp(side.uuid, sb->uuid, sizeof(side.uuid)) == 0;
}

/* The note of the file's session i, which somebody has locked; false where it is of another system, or none. */
static bool read_finder(int fd, uint32_t i, const char boot[40], struct qy_finder *f)
{
	return qy_os->read_at(fd, f, sizeof(*f), QY_FINDERS_AT + i * sizeof(*f)) == 0 && f->pid_space == qy_os->process_space() &&
	       memcmp(f->boot, boot, sizeof(f->boot)) == 0 && f->pid != 0 && f->pid <= INT32_MAX && f->fd <= INT32_MAX;
}

/* *gone: there is a session whose process has ended, or is about to. */
static int find_live(int fd, const struct qy_mapped_sb *sb, bool to_write, bool *gone)
{
	char boot[40];

	take_boot(boot);
	*gone = false;
	for (uint32_t i = 0; i < sb->sessions; i++) {
		struct qy_finder f;
		int live;

		if (qy_os->range_locked(fd, QY_MAPPED_LOCK_SESSION + i, 1) != 1 || !read_finder(fd, i, boot, &f))
			continue;
		live = qy_os->open_of((int)f.pid, (int)f.fd, to_write);
		if (live >= 0 && is_live(live, sb))
			return live;
		*gone |= live >= 0 || errno == ENOENT || errno == ESRCH;
		close_one(&live);
	}
	return qy_fail(EBUSY, "mapped heap: another process has it open, whose memory cannot be had (/proc/PID/fd)");
}

/* ---- from a version ---- */

static const struct qy_version *version_of(const struct qy_durable_sb *sb, uint64_t number)
{
	for (uint32_t k = 0; k < sb->count; k++) {
		if (number == 0 || sb->version[k].number == number)
			return &sb->version[k];
	}
	qy_fail(ENOENT, "mapped heap: it has no version %llu any more, or not yet", (unsigned long long)number);
	return NULL;
}

/* What is in the image, and what is beside it. */
static int pour(int fd, int live, const struct qy_durable_sb *sb, const struct qy_version *v)
{
	struct qy_mapped_sb head = sb->sb;
	struct qy_side side = { .sequence = sb->sequence };
	struct qy_tree tree = { 0 };
	uint64_t at[3], end = side_begins(&head);
	char *map;
	int rc;

	if (v->end < head.head_bytes || v->end > end || v->end % QY_PAGE != 0)
		return qy_fail(EUCLEAN, "mapped heap: its size cannot be");
	if (qy_os->set_size(live, end + qy_side_bytes(&head, at)) != 0)
		return qy_fail(errno, "mapped heap: no memory for it");
	rc = qy_tree_read(fd, v, &tree);
	if (rc != 0)
		return -1;
	map = qy_os->mmap(NULL, v->end, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, live, 0);
	if (map == MAP_FAILED) {
		rc = qy_fail(ENOMEM, "mapped heap: no %llu bytes of addresses", (unsigned long long)v->end);
	} else {
		rc = qy_tree_restore(fd, &tree, v->end >> QY_PAGE_SHIFT, map);
		(void)qy_os->munmap(map, v->end);
	}
	qy_tree_free(&tree);
	memcpy(side.uuid, head.uuid, sizeof(side.uuid));
	if (rc == 0 && (qy_mapped_sb_write(live, &head) != 0 || qy_mapped_sb_write(live, &head) != 0 ||
			qy_os->write_at(live, &side, sizeof(side), end) != 0))
		rc = qy_fail(errno, "mapped heap: no memory for it");
	return rc;
}

/* What is in memory has no name. number 0: the newest. -1 with errno and text. Nobody makes a checkpoint meanwhile. */
static int load(int fd, const struct qy_mapped_sb *sb, uint64_t number)
{
	struct qy_durable_sb *both = quarry_malloc(2 * sizeof(*both));
	const struct qy_version *v = NULL;
	int live = -1, newest, rc = -1;
	bool valid[2];

	if (both == NULL)
		return qy_fail(ENOMEM, "mapped heap: no memory for its tables");
	newest = qy_durable_sb_read(fd, both, valid);
	if (newest >= 0 && !qy_durable_is_of(&both[newest], sb))
		qy_fail(EUCLEAN, "mapped heap: its superblocks are of two heaps");
	else if (newest >= 0)
		v = version_of(&both[newest], number);
	if (v != NULL) {
		live = qy_mapped_new_file(NULL);
		rc = live < 0 ? qy_fail(errno, "mapped heap: no memory for it") : pour(fd, live, &both[newest], v);
	}
	if (rc != 0) {
		int error = errno;

		close_one(&live);
		errno = error;
	}
	quarry_free(both);
	return live;
}

/* ---- opening ---- */

/* Who dies has its locks for a moment more than its descriptors; a fork has those of its parent until what the library does in a child
 * is done: where nobody else has it open, these are waited for. OPEN is held. */
static int live_for(int fd, const struct qy_mapped_sb *sb, bool to_write, uint64_t version)
{
	bool gone = true;
	int live, is;

	for (unsigned looks = 0; version == 0; looks++) {
		is = qy_os->range_locked(fd, QY_MAPPED_LOCK_SESSION, sb->sessions);
		if (is < 0)
			return qy_fail(errno, "mapped heap: no locks of open file descriptions");
		if (is == 0)
			break;
		live = find_live(fd, sb, to_write, &gone);
		if (live >= 0 || !gone || looks == LOOKS)
			return live;
		qy_mapped_pause();
	}
	if (qy_os->range_lock(fd, QY_RANGE_READ, QY_LOCK_CHECKPOINT, 1, true) != 0)
		return qy_fail(errno, "mapped heap: its file cannot be locked");
	live = load(fd, sb, version);
	(void)qy_os->range_lock(fd, QY_RANGE_NONE, QY_LOCK_CHECKPOINT, 1, false);
	return live;
}

quarry_mapped *qy_durable_open(int out, bool read_only, const struct qy_mapped_sb *sb, uint64_t version)
{
	struct qy_durable *d = new_one(out, read_only);
	quarry_mapped *heap = NULL;
	int live = -1, error;

	if (d == NULL) {
		error = errno;
		close_one(&out);
		errno = error;
		return NULL;
	}
	if (qy_os->range_lock(d->fd, read_only ? QY_RANGE_READ : QY_RANGE_WRITE, QY_MAPPED_LOCK_OPEN, 1, true) != 0)
		qy_fail(errno, "mapped heap: no locks of open file descriptions");
	else
		live = live_for(d->fd, sb, !read_only, version);
	if (live >= 0 && read_only) {
		heap = qy_mapped_open_by(live, true, NULL);
		live = -1;
		if (heap != NULL && qy_registry_enter() == 0) {
			qy_heap(heap)->of = d->out;
			d->out = -1;
			qy_registry_leave();
		}
	} else if (live >= 0 && map_side(d, sb, live) == 0) {
		int fd = d->fd;

		heap = qy_mapped_open_by(live, false, d); /* which has both, or frees them */
		if (heap != NULL)
			(void)qy_os->range_lock(fd, QY_RANGE_NONE, QY_MAPPED_LOCK_OPEN, 1, false);
		return heap;
	}
	error = errno;
	close_one(&live);
	qy_durable_free(d);
	errno = error;
	return heap;
}

QUARRY_API quarry_mapped *quarry_mapped_open_version(const char *path, uint64_t number)
{
	int fd = qy_os->open_file(path, QY_OPEN_READ);
	struct qy_mapped_sb sb = { 0 };

	if (fd < 0) {
		qy_fail(errno, "mapped heap: %s cannot be opened", path);
		return NULL;
	}
	if (number != 0 && qy_mapped_sb_read(fd, &sb) == 0) {
		if (sb.mode == QUARRY_MAPPED_DURABLE)
			return qy_durable_open(fd, true, &sb, number);
		qy_fail(ENOTSUP, "mapped heap: it is not durable, and has no versions");
	} else if (number == 0) {
		qy_fail(ENOENT, "mapped heap: versions are numbered from 1");
	}
	number = (uint64_t)errno;
	close_one(&fd);
	errno = (int)number;
	return NULL;
}

QUARRY_API int quarry_mapped_versions(const char *path, quarry_mapped_version *versions, unsigned most)
{
	int fd = qy_os->open_file(path, QY_OPEN_READ), rc = -1, error;
	struct qy_durable_sb *both = quarry_malloc(2 * sizeof(*both));
	struct qy_mapped_sb sb = { 0 };
	bool valid[2];

	if (both == NULL)
		qy_fail(ENOMEM, "mapped heap: no memory for its tables");
	else if (fd < 0)
		qy_fail(errno, "mapped heap: %s cannot be opened", path);
	else if (qy_mapped_sb_read(fd, &sb) == 0 && sb.mode != QUARRY_MAPPED_DURABLE)
		qy_fail(ENOTSUP, "mapped heap: it is not durable, and has no versions");
	else if (sb.mode == QUARRY_MAPPED_DURABLE && (rc = qy_durable_sb_read(fd, both, valid)) >= 0) {
		const struct qy_durable_sb *is = &both[rc];

		for (unsigned k = 0; k < is->count && k < most; k++)
			versions[k] = (quarry_mapped_version){ is->version[k].number, is->version[k].end, is->version[k].made };
		rc = (int)is->count;
	}
	error = errno;
	quarry_free(both);
	close_one(&fd);
	errno = error;
	return rc;
}

/* ---- a new one ---- */

quarry_mapped *qy_durable_create(const char *path, const struct qy_mapped_sb *sb, uint32_t versions)
{
	int out = qy_mapped_new_file(path), live = -1, error;
	quarry_mapped *heap = NULL;
	struct qy_durable *d = NULL;

	if (out < 0) {
		qy_fail(errno, "mapped heap: %s cannot be made", path);
		return NULL;
	}
	d = new_one(out, false);
	if (d != NULL && qy_os->range_lock(d->fd, QY_RANGE_WRITE, QY_MAPPED_LOCK_OPEN, 1, true) != 0)
		qy_fail(errno, "mapped heap: no locks of open file descriptions");
	else if (d != NULL)
		live = qy_mapped_new_file(NULL);
	if (live >= 0 && map_side(d, sb, live) == 0) {
		d->known = true;
		d->sb.keep = versions;
		out = -1;
		heap = qy_mapped_create_in(live, sb, d, -1); /* which has both, or frees them */
		live = -1;
		d = heap != NULL ? d : NULL;
	}
	if (heap != NULL) {
		d->sb.sb = qy_heap(heap)->sb;
		memcpy(d->side->uuid, d->sb.sb.uuid, sizeof(d->side->uuid));
		if (quarry_mapped_checkpoint(heap, NULL, 0) == 0 && qy_os->sync_directory(path) == 0) {
			(void)qy_os->range_lock(d->fd, QY_RANGE_NONE, QY_MAPPED_LOCK_OPEN, 1, false);
			return heap;
		}
	}
	error = errno;
	(void)qy_os->remove_file(path);
	close_one(&live);
	if (heap != NULL)
		(void)quarry_mapped_close(heap);
	else if (d != NULL)
		qy_durable_free(d);
	else
		close_one(&out);
	errno = error;
	return NULL;
}

/* ---- forks ---- */

/* Descriptions with locks are the parent's, and what they know of pages is of its memory; as are locks of other threads there. The mappings are
 * by descriptions without locks, and stay; nothing is in this process's page tables of them yet. */
int qy_durable_in_child(struct heap *h)
{
	struct qy_durable *d = h->durable;

	close_one(&d->fd);
	close_one(&d->track);
	close_one(&d->pagemap);
	if (h->passing) {
		let_memory_go(d);
		return 0;
	}
	pthread_mutex_init(&d->busy, NULL);
	d->known = false;
	memset(&d->tree, 0, sizeof(d->tree));
	memset(&d->slots, 0, sizeof(d->slots));
	d->fd = qy_os->reopen_to_write(d->out);
	if (d->fd < 0)
		return -1;
	qy_dirty_arm(h);
	return 0;
}

/* A process that has this image, and is in the file: nobody has another one then. The file's OPEN is held, so that nobody is
 * in between. *gone: there is a session that may be of one who has ended, or is about to. */
static bool somebody_has(const struct heap *h, bool *gone)
{
	char boot[40];

	take_boot(boot);
	*gone = false;
	for (uint32_t i = 0; i < h->sb.sessions; i++) {
		struct qy_finder f;

		if (qy_os->range_locked(h->durable->fd, QY_MAPPED_LOCK_SESSION + i, 1) != 1 || !read_finder(h->durable->fd, i, boot, &f))
			continue;
		if (qy_peek(h->sessions[i].state) != 0 && f.pid == h->sessions[i].pid && f.pid_space == h->sessions[i].space &&
		    qy_os->range_locked(h->fd, QY_MAPPED_LOCK_SESSION + i, 1) == 1)
			return true;
		*gone = true;
	}
	return false;
}

/* Whether what this process has is the heap's live image yet, or, where nobody has the heap, what the file's newest version came from. */
static int is_the_image(struct heap *h)
{
	struct qy_durable *d = h->durable;
	struct qy_durable_sb sb[2];
	bool valid[2], gone;
	int is, newest;

	for (unsigned looks = 0;; looks++) {
		is = qy_os->range_locked(d->fd, QY_MAPPED_LOCK_SESSION, h->sb.sessions);
		if (is < 0)
			return qy_fail(errno, "mapped heap: no locks of open file descriptions");
		if (is == 0)
			break;
		if (somebody_has(h, &gone))
			return 0;
		if (!gone || looks == LOOKS)
			return qy_fail(ESTALE, "mapped heap: others have it open by now, with memory of their own");
		qy_mapped_pause();
	}
	newest = qy_durable_sb_read(d->fd, sb, valid);
	if (newest >= 0 && !qy_durable_is_own(d->side, &sb[newest]))
		return qy_fail(ESTALE, "mapped heap: others have made a version of it by now, from memory of their own");
	return newest < 0 ? -1 : 0;
}

int qy_durable_begin_in_child(struct heap *h)
{
	int rc = qy_os->range_lock(h->durable->fd, QY_RANGE_WRITE, QY_MAPPED_LOCK_OPEN, 1, true);

	if (rc != 0)
		return qy_fail(errno, "mapped heap: no locks of open file descriptions");
	rc = is_the_image(h);
	if (rc == 0)
		rc = qy_mapped_begin_session(h);
	(void)qy_os->range_lock(h->durable->fd, QY_RANGE_NONE, QY_MAPPED_LOCK_OPEN, 1, false);
	return rc;
}

void qy_durable_stale(struct heap *h)
{
	let_file_go(&h->durable->fd);
}
