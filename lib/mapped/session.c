/* SPDX-License-Identifier: MIT */
/* Who has a heap: sessions of processes, lanes of threads; and what is done for those who died.
 *
 * A session is a byte of the file that the process's open file description has locked: the kernel lets it go with the last
 * descriptor, however the process ends, and after it has marked the locks that its threads had. Nobody else ever has that description:
 * a mapping keeps the one that it was made by, and a descriptor may be handed on, so both are of another one. A forked child has a
 * copy of all descriptors; it opens the file anew, at once, and closes that one: else its parent would live for others as long as it
 * does. */
#include <errno.h>
#include <string.h>

#include "lib/api/error.h"
#include "lib/mapped/mapped.h"
#include "lib/object/own.h"
#include "numa/os.h"

#define DYING_LOOKS 50u /* of a ms, with the heap's lock: a process is between two descriptors of those that its end closes */

__thread struct qy_mapped_local *qy_mapped_mine __attribute__((tls_model("initial-exec")));

static pthread_mutex_t registry = PTHREAD_MUTEX_INITIALIZER;
static struct qy_link heaps = { &heaps, &heaps };
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t end_key;
static bool minded;

/* ---- what the dead had ---- */

/* An object that was reserved for a set, or was about to be. It is of a slab of that lane's, or the note is nonsense. */
void qy_note_back(struct heap *h, struct qy_mapped_lane *lane, uint64_t *note, struct qy_mapped_local *l)
{
	uint64_t segs = (uint64_t)(h->segs - h->pub.base), off = *note, v;
	struct qy_mapped_object o;

	if (off >= segs && qy_object_find(h, off - segs, &o)) {
		v = *o.word;
		if (o.owner == (uint32_t)(lane - h->lanes) + 1 && qy_object_live(&o) && !qy_mapped_is_bad(h, o.cls)) {
			qy_put(*o.word, v | o.bit);
			if (l != NULL && v == 0)
				qy_slab_has_room(h, l, o.unit, o.cls);
		}
		QY_POINT();
	} else if (off >= segs && qy_run_block_usable(h, off - segs) != 0) {
		(void)qy_run_block_give(h, off - segs);
		qy_redo_store(h, note, 0);
		qy_redo_commit(h);
	}
	qy_put(*note, 0);
	QY_POINT();
}

/* A lane that its thread does not have any more. The lock is held. */
static void let_lane_go(struct heap *h, struct qy_mapped_lane *lane)
{
	for (uint32_t i = 0; i < QY_MAPPED_RESERVED; i++) {
		if (lane->reserved[i] != 0)
			qy_note_back(h, lane, &lane->reserved[i], NULL);
	}
	if (h->durable != NULL)
		qy_gate_out(h, (uint32_t)(lane - h->lanes));
	qy_put(lane->state, QY_LANE_IDLE);
	QY_POINT();
}

static void let_session_go(struct heap *h, uint32_t session)
{
	if (h->durable != NULL) {
		qy_gate_died(h, session);
		qy_dirty_died(h, session);
	}
	for (uint32_t i = 0; i < h->sb.lanes; i++) {
		if (h->lanes[i].state == QY_LANE_OF(session))
			let_lane_go(h, &h->lanes[i]);
	}
	QY_POINT();
	qy_put(h->sessions[session].state, 0);
}

/* (Who died in beginning or in closing may be known to one of the two only.) */
static bool is_somebodys(const struct heap *h, uint32_t session)
{
	return qy_peek(h->sessions[session].state) != 0 || (h->durable != NULL && qy_dirty_is_known(h, session));
}

int qy_sessions_reap(struct heap *h)
{
	int dead = 0;

	for (uint32_t i = 0; i < h->sb.sessions; i++) {
		if (i == h->session || !is_somebodys(h, i) ||
		    qy_os->range_lock(h->fd, QY_RANGE_WRITE, QY_MAPPED_LOCK_SESSION + i, 1, false) != 0)
			continue;
		if (is_somebodys(h, i)) {
			QY_POINT();
			let_session_go(h, i);
			qy_count_shared((qy_counter *)(void *)&h->live->recovered, 1);
			dead++;
		}
		(void)qy_os->range_lock(h->fd, QY_RANGE_NONE, QY_MAPPED_LOCK_SESSION + i, 1, false);
	}
	return dead;
}

/* Nobody else has the heap, and what was under way is finished: its lock is made anew, for a lock in a file may bear the number of a thread that another thread
 * has by now, or that was before the machine's start. Whoever dies in here leaves the same to do. */
int qy_session_fresh(struct heap *h)
{
	int dead = 0;

	if (qy_mapped_lock_make(h) != 0)
		return -1;
	h->staged = 0;
	QY_POINT();
	for (uint32_t i = 0; i < h->sb.sessions; i++) {
		if (h->sessions[i].state != 0) {
			let_session_go(h, i);
			dead++;
		}
	}
	for (uint32_t i = 0; i < h->sb.lanes; i++) { /* (of no session that there is) */
		if (h->lanes[i].state > QY_LANE_IDLE)
			let_lane_go(h, &h->lanes[i]);
	}
	h->live->recovered += (uint64_t)dead;
	qy_put(h->live->run, h->live->run + 1 == 0 ? 1 : h->live->run + 1); /* (0: none) */
	QY_POINT();
	return 0;
}

/* What is empty becomes free units, where that is soon known, or wanted. The lock is held. */
static void tidy(struct heap *h, struct qy_mapped_lane *lane)
{
	if (lane->slab_count <= QY_MAPPED_WALK_MOST || (h->sb.flags & QUARRY_MAPPED_SHRINK) != 0)
		(void)qy_slabs_trim(h, lane, NULL);
}

/* ---- sessions ---- */

void qy_mapped_pause(void)
{
	uint32_t nobody = 0;

	qy_os->wait_word(&nobody, 0, 1000000);
}

/* That session, whose lock is held, is this process's. Else 1 where it cannot be yet, or -1 with errno and text: nothing is left of it. */
static int begin_as(struct heap *h, uint32_t i)
{
	int rc;

	if (h->durable != NULL)
		qy_gate_died(h, i);
	h->session = i;
	qy_put(h->sessions[i].began, h->sessions[i].began + 1);
	rc = h->durable != NULL ? qy_durable_begin(h) : 0;
	if (rc != 0) {
		h->session = UINT32_MAX;
		return rc;
	}
	h->sessions[i].pid = (uint64_t)qy_os->process_id();
	h->sessions[i].space = qy_os->process_space();
	QY_POINT();
	qy_put(h->sessions[i].state, h->live->run);
	h->owner = qy_session_owner(h->sessions, i);
	QY_POINT();
	return 0;
}

/* Any session that nobody has; 1 where there is only one of a process whose memory is let go already, and whose file is not. */
static int begin_any(struct heap *h)
{
	bool dying = false;

	for (uint32_t i = 0; i < h->sb.sessions; i++) {
		int rc = 1, error;

		if (is_somebodys(h, i) ||
		    qy_os->range_lock(h->fd, QY_RANGE_WRITE, QY_MAPPED_LOCK_SESSION + i, 1, false) != 0)
			continue;
		if (!is_somebodys(h, i)) { /* (of a dead one, just now: that is for the next who reaps) */
			rc = begin_as(h, i);
			dying |= rc > 0;
		}
		if (rc == 0)
			return 0;
		error = errno;
		(void)qy_os->range_lock(h->fd, QY_RANGE_NONE, QY_MAPPED_LOCK_SESSION + i, 1, false);
		errno = error;
		if (rc < 0)
			return -1;
	}
	return dying ? 1 : qy_fail(EUSERS, "mapped heap: all %u sessions are taken", h->sb.sessions);
}

int qy_session_begin(struct heap *h)
{
	int rc = begin_any(h);

	for (unsigned looks = 0; rc > 0 && looks < DYING_LOOKS; looks++) {
		qy_mapped_pause();
		rc = begin_any(h);
	}
	return rc <= 0 ? rc : qy_fail(EAGAIN, "mapped heap: its file has other processes than its memory");
}

/* All that its threads had is anybody's. The registry's lock is held, and the heap is in no list any more. */
void qy_session_end(struct heap *h)
{
	if (qy_mapped_enter(h) != 0)
		return;
	for (uint32_t i = 0; i < h->sb.lanes; i++) {
		if (h->lanes[i].state != QY_LANE_OF(h->session))
			continue;
		let_lane_go(h, &h->lanes[i]);
		tidy(h, &h->lanes[i]);
	}
	qy_put(h->sessions[h->session].state, 0);
	if (h->durable != NULL) /* (that store is the last one) */
		qy_dirty_retire(h);
	qy_mapped_leave(h);
}

/* ---- threads ---- */

/* Destructors of other keys may use the heap after this: the thread has a lane anew then, and this runs again. */
static void thread_ends(void *any)
{
	struct qy_mapped_local *l = qy_mapped_mine, *next; /* (what the key has may be gone since) */

	(void)any;
	qy_mapped_mine = NULL;
	pthread_mutex_lock(&registry);
	for (; l != NULL; l = next) {
		struct heap *h = l->heap;

		next = l->next;
		if (h != NULL && qy_mapped_enter(h) == 0) {
			let_lane_go(h, qy_local_lane(l));
			tidy(h, qy_local_lane(l));
			qy_mapped_leave(h);
		}
		if (h != NULL)
			qy_list_remove(&l->link);
		quarry_free(l);
	}
	pthread_mutex_unlock(&registry);
}

/* Those of heaps that are closed. */
static void forget_closed(void)
{
	struct qy_mapped_local **at = &qy_mapped_mine, *l;

	while ((l = *at) != NULL) {
		if (__atomic_load_n(&l->heap, __ATOMIC_ACQUIRE) != NULL) {
			at = &l->next;
		} else {
			*at = l->next;
			quarry_free(l);
		}
	}
}

/* One with slabs, unless there are so many that looking at them all would keep others waiting: these are taken one by one, when
 * room is wanted (slab.c). */
static struct qy_mapped_lane *find_lane(struct heap *h)
{
	static const struct {
		uint64_t state, most;
	} wanted[] = { { QY_LANE_IDLE, QY_MAPPED_WALK_MOST }, { QY_LANE_FREE, UINT64_MAX }, { QY_LANE_IDLE, UINT64_MAX } };

	for (unsigned w = 0; w < sizeof(wanted) / sizeof(wanted[0]); w++) {
		for (uint32_t i = 0; i < h->sb.lanes; i++) {
			if (h->lanes[i].state == wanted[w].state && h->lanes[i].slab_count <= wanted[w].most)
				return &h->lanes[i];
		}
	}
	return NULL;
}

struct qy_mapped_local *qy_local_find(struct heap *h)
{
	struct qy_mapped_local *l = qy_local_known(h);
	struct qy_mapped_lane *lane;

	if (l != NULL)
		return l;
	forget_closed();
	l = qy_own_calloc(1, sizeof(*l));
	if (l == NULL || qy_mapped_enter(h) != 0) {
		quarry_free(l);
		return NULL;
	}
	lane = find_lane(h);
	if (lane == NULL && qy_sessions_reap(h) > 0)
		lane = find_lane(h);
	if (lane != NULL) {
		qy_put(lane->state, QY_LANE_OF(h->session));
		QY_POINT();
		l->lane_at = (char *)lane;
		l->owner = (uint32_t)(lane - h->lanes) + 1;
		qy_local_adopt(h, l);
	}
	qy_mapped_leave(h);
	if (lane == NULL) {
		quarry_free(l);
		qy_fail(EUSERS, "mapped heap: all %u lanes are taken", h->sb.lanes);
		return NULL;
	}
	pthread_mutex_lock(&registry);
	l->heap = h;
	l->next = qy_mapped_mine;
	qy_mapped_mine = l;
	qy_list_push_back(&h->locals, &l->link);
	pthread_mutex_unlock(&registry);
	(void)pthread_setspecific(end_key, l); /* where that fails, its lane is the session's until that ends */
	return l;
}

/* What each thread knows of its lane is made anew: none is in a call, and the lock is held. */
void qy_locals_adopt(struct heap *h)
{
	for (struct qy_link *at = h->locals.next; at != &h->locals; at = at->next)
		qy_local_adopt(h, qy_container(at, struct qy_mapped_local, link));
}

/* ---- processes ---- */

static void before_fork(void)
{
	pthread_mutex_lock(&registry);
}

static void after_fork(void)
{
	pthread_mutex_unlock(&registry);
}

static void forget_locals(struct heap *h)
{
	while (!qy_list_empty(&h->locals)) {
		struct qy_mapped_local *l = qy_container(h->locals.next, struct qy_mapped_local, link);

		qy_list_remove(&l->link);
		__atomic_store_n(&l->heap, NULL, __ATOMIC_RELEASE); /* its thread may free it from now on (forget_closed) */
	}
}

/* It has no session here, nor any lock: others can have all of them. (Who waits in a channel yet looks by h->fd whether its other end
 * lives.) */
static void give_up(struct heap *h)
{
	if (h->fd >= 0)
		(void)qy_os->range_lock(h->fd, QY_RANGE_NONE, QY_MAPPED_LOCK_OPEN, 0, false);
	h->stale = true;
	if (h->durable != NULL)
		qy_durable_stale(h);
}

/* The lanes are the parent's, and the session. What was being opened, or closed, by another thread, is not there at all: its descriptors go,
 * for a description's locks live as long as anybody has it, and its memory. The file's come first: whom an opener finds there
 * is expected to have the heap's memory. */
static void leave_parents(struct heap *h)
{
	bool lost = h->durable != NULL && qy_durable_in_child(h) != 0;

	forget_locals(h);
	(void)qy_os->close(h->fd);
	h->fd = -1;
	h->session = UINT32_MAX;
	h->owner = 0;
	if (h->passing) {
		if (h->map != NULL)
			(void)qy_os->munmap(h->map, h->map_len);
		(void)qy_os->close(h->out);
	} else if (!lost) {
		h->fd = h->read_only ? qy_os->reopen(h->out) : qy_os->reopen_to_write(h->out);
	}
	if (h->fd < 0)
		give_up(h);
}

/* No session is begun before all of the parent's descriptions are gone: one of them may have the lock that the beginning waits for, of
 * a heap that is opened a second time, and this process would keep it when the parent dies. */
static void in_child(void)
{
	struct qy_link *next;

	qy_durable_openings_in_child();
	for (struct qy_link *at = heaps.next; at != &heaps; at = next) {
		struct heap *h = qy_container(at, struct heap, link);

		next = at->next;
		leave_parents(h);
		if (h->passing)
			qy_list_remove(at);
	}
	for (struct qy_link *at = heaps.next; at != &heaps; at = at->next) {
		struct heap *h = qy_container(at, struct heap, link);

		if (!h->stale && (h->durable != NULL ? qy_durable_begin_in_child(h) : qy_mapped_begin_session(h)) != 0)
			give_up(h);
	}
	pthread_mutex_unlock(&registry);
}

QY_STARTUP static void prepare(void)
{
	qy_mapped_classes_init();
	minded = pthread_key_create(&end_key, thread_ends) == 0 && pthread_atfork(before_fork, after_fork, in_child) == 0;
}

/* From the moment on at which there is a description that will have locks, a fork knows of it. */
int qy_registry_enter(void)
{
	pthread_once(&once, prepare);
	if (!minded)
		return qy_fail(ENOMEM, "mapped heap: no memory for what ends of threads and forks are to do");
	pthread_mutex_lock(&registry);
	return 0;
}

void qy_registry_leave(void)
{
	pthread_mutex_unlock(&registry);
}

int qy_heap_register(struct heap *h)
{
	if (qy_registry_enter() != 0)
		return -1;
	h->passing = true;
	h->fd = h->read_only ? qy_os->reopen(h->out) : qy_os->reopen_to_write(h->out);
	if (h->fd >= 0)
		qy_list_push_back(&heaps, &h->link);
	if (h->fd >= 0 && h->durable != NULL)
		qy_durable_registered(h->durable);
	pthread_mutex_unlock(&registry);
	return h->fd >= 0 ? 0 : qy_fail(errno, "mapped heap: its file cannot be opened a second time");
}

void qy_mapped_opened(struct heap *h)
{
	pthread_mutex_lock(&registry);
	h->passing = false;
	pthread_mutex_unlock(&registry);
}

void qy_heap_unregister(struct heap *h)
{
	pthread_mutex_lock(&registry);
	h->passing = true;
	forget_locals(h);
	if (!h->read_only && !h->stale)
		qy_session_end(h);
	pthread_mutex_unlock(&registry);
}

/* The locks by hand: where anybody has the description yet, they would stay. */
void qy_mapped_let_go(struct heap *h)
{
	int error = errno;

	pthread_mutex_lock(&registry);
	if (h->link.next != NULL)
		qy_list_remove(&h->link);
	if (h->durable != NULL)
		qy_durable_drop(h);
	if (h->fd >= 0) {
		(void)qy_os->range_lock(h->fd, QY_RANGE_NONE, QY_MAPPED_LOCK_OPEN, 0, false);
		(void)qy_os->close(h->fd);
	}
	h->fd = -1;
	pthread_mutex_unlock(&registry);
	errno = error;
}
