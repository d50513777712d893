/* SPDX-License-Identifier: MIT */
#include "lib/cache/watch.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>

#include "lib/base/text.h"
#include "lib/cache/idle.h"
#include "lib/cache/thread.h"
#include "lib/cache/threads.h"
#include "lib/manager/mixed.h"
#include "lib/manager/registry.h"
#include "numa/os.h"

#define AT_ONCE 256             /* objects looked at while somebody is held, and what is left of a list of 1024, or of a
                                 * slab's: each may be a miss of the caches, and after the last it is some 0.1 ms */
#define FRAMES_AT_ONCE 16       /* frames of large blocks, with the manager's lock held */
#define RAN_NS 20000000         /* nothing that does not enter takes so long of a CPU's time, faults included */
#define SETTLE_MS 1000          /* how long a thread is waited for that is neither seen to run nor to be blocked, */
#define HOLD_MS 1000            /* and one that cannot be held; it is given up for good then */
#define ALL_MS 20000            /* what was not come to by then is not looked at */
#define TRIES 3                 /* at having room for all that is claimed by the moment */

static _Atomic(uint32_t) making; /* 0, or 1: somebody makes one */
static _Atomic(uint32_t) number;
static __thread bool making_here __attribute__((tls_model("initial-exec"))); /* this thread does */

struct walk {
	struct qy_watch_report *report;
	uint32_t number;
	uint64_t until; /* ms: when all of it is given up */
	uint64_t held, let_go; /* ns: how long the last thread was held, and since when it is not any more */
	uint32_t left; /* objects that may be looked at before who is held is let go */
	/* Of the mail that is looked at: whose, where it goes on, how far that is from where it began, and what the
	 * heap's counts were then. */
	struct {
		struct qy_heap *heap;
		void *at;
		uint64_t received, walked;
		struct qy_snap_round round;
		uint32_t lists_first, lists;
		bool remote, done;
	} mail;
};

uint32_t qy_watch_number(void)
{
	return atomic_load_explicit(&number, memory_order_relaxed);
}

/* ---- the moment ---- */

/* As for a fork. Returns since when threads wait. */
static uint64_t hold_all(void)
{
	uint64_t since;

	qy_purge_hold();
	since = qy_os->now_ns();
	qy_threads_pause();
	qy_registry_fork_lock();
	return since;
}

static uint64_t let_all_go(uint64_t since)
{
	qy_registry_fork_unlock();
	qy_threads_resume();
	since = qy_os->now_ns() - since;
	qy_purge_release();
	return since;
}

/* ---- holding one ---- */

/* Until it can be held, or it is given up. The caller enters for it, and has left when this returns NOT_NOW. */
static enum qy_look begin(struct walk *w, struct qy_thread *t, struct qy_thread **self, uint64_t *since)
{
	uint64_t until = qy_min(qy_os->now_ms() + HOLD_MS, w->until);

	if (t->given_up == w->number)
		return QY_LOOK_NOT_NOW;
	for (unsigned n = 0;; n++) {
		enum qy_look look;

		/* A thread has as long for itself as it was held. */
		while (qy_os->now_ns() - w->let_go < w->held)
			sched_yield();
		*self = qy_thread_enter();
		if (*self == NULL)
			return QY_LOOK_NOT_NOW;
		*since = qy_os->now_ns();
		look = qy_thread_look_begin(t, w->number);
		if (look != QY_LOOK_NOT_NOW)
			return look;
		qy_thread_leave(*self);
		if (n % 64 == 63 && (qy_peek(t->settled) != w->number || qy_os->now_ms() > until)) {
			t->given_up = w->number;
			return QY_LOOK_NOT_NOW;
		}
		sched_yield();
	}
}

static void note_time(struct walk *w, uint64_t since)
{
	w->report->longest_ns = qy_max(w->report->longest_ns, qy_os->now_ns() - since);
}

static void end(struct walk *w, struct qy_thread *t, enum qy_look look, struct qy_thread *self, uint64_t since)
{
	qy_thread_look_end(t, look);
	note_time(w, since);
	qy_thread_leave(self);
	w->let_go = qy_os->now_ns();
	w->held = look == QY_LOOK_HELD ? w->let_go - since : 0;
}

/* ---- lists ---- */

static void look_at_list(struct walk *w, void *list)
{
	uint32_t n = 0;

	for (; list != NULL && n < QY_UNIT / 16 && qy_snapshot_may_be_object(list); n++) {
		qy_snapshot_mark(list, QY_SNAP_CACHED);
		list = qy_next_object(list);
	}
	w->report->missed += list != NULL;
	w->left -= (uint32_t)qy_min(w->left, n + 1);
}

static void begin_mail(struct walk *w, struct qy_heap *h)
{
	w->mail.at = h->mail;
	w->mail.received = qy_read(&h->remote_received);
	w->mail.lists = h->mail_lists;
	w->mail.walked = 0;
	w->mail.round = (struct qy_snap_round){ NULL, 0, 0 };
	w->mail.remote = false;
}

static void begin_remote(struct walk *w, struct qy_heap *h)
{
	void *list = atomic_load_explicit(&h->remote, memory_order_acquire);

	w->mail.at = list == QY_REMOTE_CLOSED ? NULL : list;
	w->mail.remote = true;
	w->mail.walked = 0;
	w->mail.round = (struct qy_snap_round){ NULL, 0, 0 };
}

/* Whether it can go on where it was: the list is the same, and was not filed beyond that. */
static bool goes_on(const struct walk *w, struct qy_heap *h)
{
	if (w->mail.lists != h->mail_lists)
		return false;
	return w->mail.remote || qy_read(&h->remote_received) - w->mail.received < w->mail.walked;
}

/* What was there when the first look was taken: the list that had been taken, and the one that others had left, whoever
 * takes it meanwhile. What is filed meanwhile, who files it notes. The heap's owner is held. */
static bool look_at_mail(struct walk *w, struct qy_heap *h)
{
	if (w->mail.heap != h) {
		w->mail.heap = h;
		w->mail.done = false;
		w->mail.lists_first = h->mail_lists;
		begin_mail(w, h);
	} else if (!w->mail.done && !goes_on(w, h)) {
		begin_mail(w, h);
	}
	if (h->mail_lists - w->mail.lists_first > 1)
		w->mail.done = true;
	while (!w->mail.done && w->left > 0) {
		void *p = w->mail.at;

		if (p != NULL && qy_snapshot_may_be_object(p) && !qy_snap_goes_round(&w->mail.round, p)) {
			qy_snapshot_mark(p, QY_SNAP_CACHED);
			w->mail.at = qy_next_object(p);
			w->mail.walked++;
			w->left--;
		} else if (p != NULL) {
			w->report->missed++;
			w->mail.at = NULL;
		} else if (!w->mail.remote && h->mail_lists == w->mail.lists_first) {
			begin_remote(w, h);
		} else {
			w->mail.done = true;
		}
	}
	return w->mail.done;
}

/* ---- threads ---- */

static bool has_objects(const struct qy_cache *c)
{
	for (unsigned cls = 0; cls < QY_CLASSES; cls++)
		if (qy_peek(c->head[cls]) != NULL || qy_peek(c->freed[cls].head) != NULL)
			return true;
	return false;
}

/* (The reclaimer's own thread has caches, and mostly nothing in them: it is not turned, and need not be.) */
bool qy_watch_holds(struct qy_thread *t)
{
	struct qy_cache *c = __atomic_load_n(&t->caches, __ATOMIC_ACQUIRE);

	if (!qy_peek(t->service))
		return c != NULL;
	for (; c != NULL; c = qy_peek(c->next))
		if (qy_read(&c->heap.slabs) != 0 || qy_heap_has_mail(&c->heap) || has_objects(c))
			return true;
	return qy_peek(t->sending) != 0;
}

/* What is left of the cache; true when all was looked at. */
static bool look_at_cache(struct walk *w, struct qy_cache *c)
{
	if (c->seen != w->number) {
		c->seen = w->number;
		c->seen_class = 0;
	}
	for (; c->seen_class < QY_CLASSES && w->left > 0; c->seen_class++) {
		look_at_list(w, c->head[c->seen_class]);
		look_at_list(w, c->freed[c->seen_class].head);
	}
	if (c->seen_class == QY_CLASSES && w->left > 0 && look_at_mail(w, &c->heap))
		c->seen_class++;
	return c->seen_class > QY_CLASSES;
}

/* Held. True when all was looked at. (What comes to it from now on was looked at where it was, or is noted.) */
static bool look_at_some(struct walk *w, struct qy_thread *t)
{
	w->left = AT_ONCE;
	if (t->rings_seen != w->number) {
		t->rings_seen = w->number;
		for (unsigned i = 0; i < QY_OUT_RINGS; i++)
			if (t->sending >> i & 1)
				look_at_list(w, t->out[i].first);
	}
	for (struct qy_cache *c = t->caches; c != NULL; c = c->next)
		if ((c->seen != w->number || c->seen_class <= QY_CLASSES) && (w->left == 0 || !look_at_cache(w, c)))
			return false;
	return true;
}

static void look_at_thread(struct walk *w, struct qy_thread *t)
{
	bool done = false;

	if (!qy_watch_holds(t))
		return;
	w->report->threads++;
	while (!done) {
		struct qy_thread *self;
		uint64_t since;
		enum qy_look look = begin(w, t, &self, &since);

		if (look == QY_LOOK_NOT_NOW) {
			w->report->unsettled += qy_peek(t->settled) != w->number;
			w->report->missed += qy_peek(t->settled) == w->number;
			return;
		}
		done = look_at_some(w, t);
		end(w, t, look, self, since);
	}
}

/* ---- settling ---- */

/* How long it has been on a CPU; 0 where the kernel does not tell. */
static uint64_t ran_ns(int tid)
{
	char path[64], text[64];
	struct qy_text out;

	qy_text_init(&out, path, sizeof(path), -1);
	qy_text_format(&out, "/proc/self/task/%d/schedstat", tid);
	return qy_os->read_file(path, text, sizeof(text)) > 0 ? strtoull(text, NULL, 10) : 0;
}

/* Whether what the thread had begun at the moment has ended. (Without the registry's lock: where the record changes hands
 * meanwhile, who had it has ended, and who has it came after the moment.) */
static bool has_settled(struct qy_thread *t)
{
	int tid = qy_peek(t->tid);
	uint64_t ran;

	if (qy_peek(t->state) != QY_THREAD_LIVE)
		return true;
	/* (One that was not turned has to come itself.) */
	if (!(atomic_load_explicit(&t->idle, memory_order_seq_cst) & QY_TURNED))
		return false;
	if (qy_os->thread_blocked(tid))
		return true;
	ran = ran_ns(tid);
	if (t->ran == 0)
		t->ran = ran;
	return ran - t->ran >= RAN_NS;
}

/* All together: what one waits for, others do meanwhile. */
static void settle(struct walk *w)
{
	uint64_t until = qy_os->now_ms() + SETTLE_MS;
	bool some;

	do {
		some = false;
		for (struct qy_thread *t = qy_threads_all(); t != NULL; t = t->made_before) {
			if (qy_peek(t->settled) == w->number || t == qy_tls.thread || !qy_watch_holds(t))
				continue;
			if (has_settled(t))
				qy_publish(t->settled, w->number);
			else
				some = true;
		}
		if (some)
			qy_sleep_on(&making, 1, 1);
	} while (some && qy_os->now_ms() < until);
}

/* ---- slabs and blocks ---- */

/* With whoever is at it held: whether it is still his. */
static uint32_t look_at_slab(const struct qy_slab *s, uintptr_t owner)
{
	if (qy_peek(s->kind) == QY_SLAB_HEAD && atomic_load_explicit(&s->owner, memory_order_relaxed) == owner &&
	    s->state != QY_SLAB_FULL)
		return qy_snapshot_look_at_slab(s);
	return 1;
}

static bool is_to_be_seen(const struct qy_snapshot *s, const struct qy_slab *slab)
{
	uintptr_t unit = qy_window_offset(qy_slab_memory(slab)) >> QY_UNIT_SHIFT;

	return unit < s->bytes >> QY_UNIT_SHIFT && qy_peek(slab->kind) == QY_SLAB_HEAD &&
	       atomic_load_explicit(&s->classes[unit], memory_order_relaxed) == 0;
}

/* Nobody holds it: a manager's orphan, or mixed. False where it is being thinned, or was taken. */
static bool look_at_orphan(struct walk *w, const struct qy_slab *s)
{
	struct qy_thread *self = qy_thread_enter();
	struct qy_manager *m = qy_manager_of(qy_slab_memory(s));
	struct qy_heap *h;
	uint64_t since;

	if (self == NULL)
		return false;
	if (m == NULL) {
		qy_thread_leave(self);
		return true;
	}
	since = qy_os->now_ns();
	qy_lock(&m->lock);
	h = atomic_load_explicit(&s->heap, memory_order_acquire);
	if (h == &m->orphans || (m->mixed != NULL && h == &m->mixed->heap))
		(void)look_at_slab(s, 0);
	qy_unlock(&m->lock);
	note_time(w, since);
	qy_thread_leave(self);
	return h != &m->thinning;
}

/* And others of the same thread that follow in the frame. */
static bool look_at_owned(struct walk *w, const struct qy_snapshot *snapshot, const struct qy_slab *s, uintptr_t owner)
{
	struct qy_thread *t = (struct qy_thread *)(owner & ~QY_OWNER_SHARED), *self;
	const struct qy_slab *last = qy_slab_at(qy_window_offset(qy_slab_memory(s)) | (QY_FRAME - 1));
	uint64_t since;
	enum qy_look look = begin(w, t, &self, &since);

	if (look == QY_LOOK_NOT_NOW)
		return false;
	for (uint32_t n = 0; s <= last && n < AT_ONCE; s++)
		if (is_to_be_seen(snapshot, s) && atomic_load_explicit(&s->owner, memory_order_relaxed) == owner)
			n += look_at_slab(s, owner);
	end(w, t, look, self, since);
	return true;
}

static bool is_given_up(const struct walk *w, uintptr_t owner)
{
	const struct qy_thread *t = (const struct qy_thread *)(owner & ~QY_OWNER_SHARED);

	return t != NULL && t->given_up == w->number;
}

static void look_at_one(struct walk *w, struct qy_snapshot *snapshot, const struct qy_slab *s)
{
	uint64_t until = qy_min(qy_os->now_ms() + HOLD_MS, w->until);

	while (is_to_be_seen(snapshot, s)) {
		unsigned cls = qy_peek(s->cls);
		uintptr_t owner;

		/* (What became full was noted when it was emptied of what was free. The class before the state: a slab
		 * that became mixed is none that is full.) */
		if (__atomic_load_n(&s->state, __ATOMIC_ACQUIRE) == QY_SLAB_FULL) {
			qy_snapshot_note_full(snapshot, s, cls);
			return;
		}
		owner = atomic_load_explicit(&s->owner, memory_order_acquire);
		if (owner == 0 ? look_at_orphan(w, s) : look_at_owned(w, snapshot, s, owner)) {
			if (qy_os->now_ms() <= until)
				continue;
		} else if (qy_os->now_ms() <= until && !is_given_up(w, owner)) {
			sched_yield();
			continue;
		}
		w->report->missed++;
		return;
	}
}

static void look_at_slabs(struct walk *w, struct qy_snapshot *snapshot, uint32_t f)
{
	const struct qy_slab *units = qy_slab_at((uintptr_t)f << QY_FRAME_SHIFT);

	for (uint32_t u = 0; u < QY_FRAME_UNITS; u++)
		look_at_one(w, snapshot, &units[u]);
}

/* Of a frame that blocks are carved from. The lock is held. */
static void look_at_pages(uint32_t f)
{
	qy_page b = f * QY_FRAME_PAGES, end = b + QY_FRAME_PAGES;

	for (; b < end; b += qy_block_length(&qy_page_map, b))
		if (qy_block_used(&qy_page_map, b) && qy_block_tag(&qy_page_map, b) == QY_USE_LARGE)
			qy_snapshot_large(qy_window_at((uintptr_t)b << QY_PAGE_SHIFT),
					  (size_t)qy_block_length(&qy_page_map, b) << QY_PAGE_SHIFT);
}

/* Blocks that begin in some frames, all of the manager's. The lock is held. */
static void look_at_frame(const struct qy_manager *m, uint32_t f)
{
	struct qy_region *r = qy_region_of_frame(qy_frame_at(f));
	void *p = qy_window_at((uintptr_t)f << QY_FRAME_SHIFT);

	if (r == NULL || qy_peek(r->owner) != m)
		return;
	if (qy_frame_at(f)->filler == QY_FILL_LARGE + 1)
		look_at_pages(f);
	else if (qy_frame_at(f)->filler == 0 && qy_block_is(&qy_run_map, f) && qy_block_used(&qy_run_map, f) &&
		 qy_block_tag(&qy_run_map, f) == QY_USE_LARGE)
		qy_snapshot_large(p, qy_large_size(p));
}

static void look_at_blocks(struct walk *w, uint32_t f, uint32_t to)
{
	while (f < to) {
		struct qy_thread *self = qy_thread_enter();
		struct qy_manager *m = qy_manager_of(qy_window_at((uintptr_t)f << QY_FRAME_SHIFT));
		uint32_t end = (uint32_t)qy_min(f + FRAMES_AT_ONCE, to);
		uint64_t since = qy_os->now_ns();

		if (self == NULL) {
			w->report->missed++;
			return;
		}
		if (m == NULL) {
			f++;
		} else {
			qy_lock(&m->lock);
			for (; f < end && qy_manager_of(qy_window_at((uintptr_t)f << QY_FRAME_SHIFT)) == m; f++)
				look_at_frame(m, f);
			qy_unlock(&m->lock);
			note_time(w, since);
		}
		qy_thread_leave(self);
	}
}

/* What was sent home to slabs that nobody holds. */
static void look_at_manager(struct walk *w, struct qy_manager *m)
{
	struct qy_heap *heaps[] = { &m->orphans, m->mixed == NULL ? NULL : &m->mixed->heap, &m->thinning };

	for (unsigned i = 0; i < sizeof(heaps) / sizeof(heaps[0]); i++) {
		bool done = heaps[i] == NULL;

		while (!done) {
			struct qy_thread *self;
			uint64_t since;

			/* (Who thins slabs, and files what comes for them, has that lock.) */
			if (heaps[i] == &m->thinning)
				qy_purge_hold();
			self = qy_thread_enter();
			since = qy_os->now_ns();
			qy_lock(&m->lock);
			w->left = AT_ONCE;
			done = self == NULL || look_at_mail(w, heaps[i]);
			qy_unlock(&m->lock);
			note_time(w, since);
			if (self != NULL)
				qy_thread_leave(self);
			if (heaps[i] == &m->thinning)
				qy_purge_release();
		}
	}
}

static void go_through(struct walk *w, struct qy_snapshot *snapshot)
{
	uint32_t frames = (uint32_t)(snapshot->bytes >> QY_FRAME_SHIFT);

	w->until = qy_os->now_ms() + ALL_MS;
	settle(w);
	for (struct qy_thread *t = qy_threads_all(); t != NULL; t = t->made_before)
		look_at_thread(w, t);
	for (struct qy_manager *m = qy_manager_next(NULL); m != NULL; m = qy_manager_next(m))
		look_at_manager(w, m);
	for (uint32_t f = 1; f < frames; f++)
		if (qy_peek(qy_frame_at(f)->filler) == QY_FILL_SLABS + 1)
			look_at_slabs(w, snapshot, f);
	look_at_blocks(w, 1, frames);
}

/* ---- making one ---- */

static bool may_wait(void)
{
	struct qy_thread *t = qy_tls.thread;

	return (t == NULL || t->depth == 0) && qy_locks_held == 0 && !making_here;
}

/* Hold all, with room for all that is claimed by then, as far as it does not grow again and again; nobody is told yet. 0
 * with ENOMEM. */
static uint64_t hold_all_with_room(struct qy_snapshot *snapshot)
{
	for (unsigned tries = 1;; tries++) {
		uint64_t since;

		if (!qy_snapshot_map(snapshot))
			return 0;
		qy_snapshot_touch(snapshot);
		since = hold_all();
		if (qy_window_claimed() <= snapshot->bytes || tries == TRIES)
			return since;
		(void)let_all_go(since);
		qy_snapshot_unmap(snapshot);
	}
}

static uint32_t next_number(void)
{
	uint32_t n = atomic_load(&number) + 1;

	n += n == 0;
	atomic_store(&number, n);
	for (struct qy_thread *t = qy_threads_all(); t != NULL; t = t->made_before)
		t->ran = 0;
	return n;
}

static uint32_t count_unnoted(uint32_t of)
{
	uint32_t n = 0;

	for (struct qy_thread *t = qy_threads_all(); t != NULL; t = t->made_before)
		n += qy_peek(t->unnoted) == of;
	return n;
}

static int make(struct walk *w, struct qy_snapshot *snapshot, const struct qy_watch_calls *calls, void *ctx)
{
	struct qy_watch_report *report = w->report;
	uint64_t since, began;

	qy_threads_find_dead();
	since = hold_all_with_room(snapshot);
	if (since == 0)
		return -1;
	w->number = next_number();
	qy_threads_watch(true);
	qy_snapshot_begin(snapshot);
	calls->at_moment(ctx);
	began = qy_os->now_ns();
	report->moment_ns = let_all_go(since);
	go_through(w, snapshot);
	/* (A signal handler may have forked: this is its child.) */
	if (qy_snapshot_of_now() != snapshot) {
		errno = ECANCELED;
		return -1;
	}
	since = hold_all();
	qy_snapshot_end();
	qy_threads_watch(false);
	calls->at_end(ctx);
	report->took_ns = qy_os->now_ns() - began;
	report->unsettled += count_unnoted(w->number);
	report->missed += (uint32_t)atomic_load(&snapshot->unsound);
	report->moment_ns = qy_max(report->moment_ns, let_all_go(since));
	return 0;
}

int qy_watch(struct qy_snapshot *snapshot, const struct qy_watch_calls *calls, void *ctx, struct qy_watch_report *report)
{
	struct walk w = { .report = report };
	struct qy_thread *self;
	int result;

	*report = (struct qy_watch_report){ 0 };
	if (!may_wait()) {
		errno = EDEADLK;
		return -1;
	}
	/* (It is known before, since a record is made for it otherwise in the middle.) */
	self = qy_thread_enter();
	if (self == NULL)
		return -1;
	qy_thread_leave(self);
	while (atomic_exchange(&making, 1) != 0)
		qy_sleep_on(&making, 1, 10);
	making_here = true;
	result = make(&w, snapshot, calls, ctx);
	making_here = false;
	atomic_store(&making, 0);
	qy_wake(&making);
	qy_idle_again();
	return result;
}

void qy_watch_after_fork(void)
{
	struct qy_thread *self = qy_tls.thread;

	qy_snapshot_end();
	atomic_store(&making, 0);
	making_here = false;
	qy_threads_watch_forget();
	/* (Where a memory checker is, all are watched, always.) */
	if (self != NULL)
		atomic_fetch_and_explicit(&self->idle, ~(uint32_t)(QY_HELD | (qy_threads_watching ? 0 : QY_WATCHED)),
					  memory_order_seq_cst);
}
