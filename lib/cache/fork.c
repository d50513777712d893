/* SPDX-License-Identifier: MIT */
#include "lib/cache/fork.h"

#include <errno.h>
#include <pthread.h>

#include "lib/cache/arena.h"
#include "lib/cache/taken.h"
#include "lib/cache/thread.h"
#include "lib/cache/watch.h"
#include "lib/manager/collapse.h"
#include "lib/manager/forkcopy.h"
#include "lib/manager/late.h"
#include "lib/manager/manager.h"
#include "lib/manager/regions.h"
#include "lib/manager/registry.h"
#include "lib/reclaim/reclaim.h"
#include "numa/os.h"

static __thread struct qy_forkcopy copy __attribute__((tls_model("initial-exec")));
static __thread bool skipped __attribute__((tls_model("initial-exec")));
static __thread unsigned forks __attribute__((tls_model("initial-exec"))); /* that the thread is in, one within the other */

/* No other thread of the program's is known: none can hit in memory that is shared with the child. */
static bool is_alone(void)
{
	return qy_threads_live() == (qy_tls.thread != NULL);
}

/* The purge lock first: who holds it may be in a patched madvise that calls malloc, and must not be held up. */
static void before(void)
{
	/* A signal handler that forks out of the middle of a slow path, or of a pass of the reclaimer: the thread may
	 * hold any lock, and cannot wait for itself. The child is as the parent is then; what it must not do, it must
	 * not do after any such fork. (Out of the middle of a fork as well: what that one has held it lets go of itself.) */
	if (forks++ != 0)
		return;
	skipped = qy_arena_is_inside();
	if (skipped)
		return;
	qy_collapse_forked();
	qy_forkcopy_before(&copy, is_alone());
	qy_purge_hold();
	qy_threads_pause();
	/* Nobody becomes known from here on. What was asked above was asked with nobody held. */
	if (!is_alone())
		qy_forkcopy_leave_files(&copy);
	qy_registry_fork_lock();
}

/* Whether the fork that ends is not within another. (None: this was registered within it.) */
static bool is_outermost(void)
{
	if (forks > 1) {
		forks--;
		return false;
	}
	return forks == 1;
}

static void release(void)
{
	if (skipped)
		return;
	qy_registry_fork_unlock();
	qy_threads_resume();
	qy_purge_release();
}

static void in_parent(void)
{
	if (!is_outermost())
		return;
	/* What the child copies out of files must not change: nobody is let go before that is done. */
	if (!skipped && copy.files)
		qy_forkcopy_in_parent(&copy);
	release();
	if (!skipped && !copy.files)
		qy_forkcopy_in_parent(&copy);
	forks = 0;
}

/* Arenas of which the child has no memory. All threads, the one that is left, are held still. */
static void empty_lost(void)
{
	for (struct qy_manager *m = qy_manager_next(NULL); m != NULL; m = qy_manager_next(m)) {
		if (!m->lost)
			continue;
		qy_threads_forget(m);
		qy_taken_end(m);
		qy_manager_empty(m);
		qy_arena_begin_life(m);
	}
}

/* The thread's own default arena may be one of them: it begins anew there, with the record of the cache that it
 * lost. */
static void find_again(void)
{
	struct qy_thread *t = qy_tls.thread;

	for (struct qy_manager *m = qy_manager_next(NULL); m != NULL; m = qy_manager_next(m)) {
		bool lost = m->lost;

		m->lost = false;
		if (!lost || t == NULL || t->chosen != m)
			continue;
		qy_thread_enter();
		(void)qy_thread_choose(t, m);
		qy_thread_leave(t);
	}
}

/* What leads through free objects (late.h): lists in front of heaps, what was sent to those, and what was gathered for
 * others. */
static void cut_lists(void *unused, struct qy_thread *t)
{
	(void)unused;
	for (unsigned i = 0; i < QY_OUT_RINGS; i++) {
		struct qy_outgoing *out = &t->out[i];
		void **end = qy_late_cut(&out->first);

		out->last = out->first == NULL ? NULL : (void *)end;
		if (out->first == NULL)
			out->room = 0;
	}
	for (struct qy_cache *c = t->caches; c != NULL; c = c->next) {
		for (unsigned cls = 0; cls < QY_CLASSES; cls++) {
			qy_late_cut(&c->head[cls]);
			qy_late_cut(&c->freed[cls].head);
		}
		qy_late_cut_mail(&c->heap);
	}
}

static void mend_late(void)
{
	qy_threads_visit(cut_lists, NULL);
	for (struct qy_manager *m = qy_manager_next(NULL); m != NULL; m = qy_manager_next(m))
		qy_late_mend(m);
	qy_late_forget();
}

/* All locks are held by the one thread that is left. */
static void in_child(void)
{
	bool lost;

	qy_watch_after_fork();
	qy_reclaim_after_fork();
	qy_registry_after_fork();
	if (!is_outermost())
		return;
	forks -= skipped;
	if (skipped)
		return;
	qy_quota_recount();
	qy_threads_after_fork();
	qy_registry_fork_unlock();
	lost = qy_forkcopy_in_child(&copy);
	if (lost) {
		qy_regions_hush(true);
		empty_lost();
		qy_regions_hush(false);
	}
	qy_threads_resume();
	if (qy_late_any())
		mend_late();
	qy_purge_release();
	forks = 0;
	if (lost)
		find_again();
}

/* ---- a copy of the process (fork.h) ---- */

struct work {
	int (*fn)(void *ctx, const struct qy_stopped *stopped);
	void *ctx;
	struct qy_stopped stopped;
};

/* All locks are held by the one thread that is there. (What is mapped may be by a patched mmap, that allocates.) */
static int work_in_copy(void *ctx)
{
	struct work *w = ctx;

	qy_watch_after_fork();
	qy_reclaim_after_fork();
	qy_registry_after_fork();
	qy_threads_after_fork();
	qy_registry_fork_unlock();
	qy_threads_resume();
	qy_purge_release();
	return qy_forkcopy_show_files() ? w->fn(w->ctx, &w->stopped) : QY_COPY_FAILED;
}

static void count_threads(const struct qy_stopped *stopped, struct qy_copy_report *report)
{
	report->threads = (uint32_t)stopped->count;
	for (size_t i = 0; i < stopped->count; i++)
		report->unread += stopped->thread[i].words == 0;
	if (report->stop_error != 0)
		report->threads = report->unread =
			(uint32_t)qy_max(stopped->others, qy_threads_live() - (qy_tls.thread != NULL));
}

static bool any_in_files(void)
{
	for (struct qy_manager *m = qy_manager_next(NULL); m != NULL; m = qy_manager_next(m))
		if (qy_read(&m->in_files) > 0)
			return true;
	return false;
}

/* Returns the copy's number, or -1. */
static int make_copy(struct work *w, struct qy_copy_report *report)
{
	uint64_t since;
	int pid, error;

	qy_purge_hold();
	since = qy_os->now_ns();
	qy_threads_pause();
	qy_registry_fork_lock();
	if (report->stop_error == 0 && qy_os->stop_threads(&w->stopped) != 0)
		report->stop_error = errno;
	pid = qy_os->copy_process(work_in_copy, w);
	error = errno;
	count_threads(&w->stopped, report);
	qy_os->let_go(&w->stopped);
	report->files = any_in_files();
	qy_registry_fork_unlock();
	qy_threads_resume();
	report->held_ns = qy_os->now_ns() - since;
	qy_purge_release();
	errno = error;
	return pid;
}

int qy_fork_copy(int (*fn)(void *ctx, const struct qy_stopped *stopped), void *ctx, struct qy_copy_report *report)
{
	struct work w = { .fn = fn, .ctx = ctx };
	int pid, error, status;

	*report = (struct qy_copy_report){ .held_ns = 0 };
	if (qy_arena_is_inside()) {
		errno = EDEADLK;
		return -1;
	}
	qy_collapse_forked();
	if (qy_os->stop_room(&w.stopped) != 0)
		report->stop_error = errno;
	pid = make_copy(&w, report);
	error = errno;
	qy_os->stop_forget(&w.stopped);
	errno = error;
	return pid < 0 || qy_os->await_copy(pid, &status) != 0 ? -1 : status;
}

/* Registered before the first allocation, so that of all handlers ours hold the locks for the shortest time: prepare
 * runs last, and the others run first. */
void qy_fork_register(void)
{
	pthread_atfork(before, in_parent, in_child);
}
