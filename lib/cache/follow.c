/* SPDX-License-Identifier: MIT */
/* Where a thread's plain allocations come from: the node that it runs on, the home that it was given, or the arena that
 * it has chosen; and what becomes of what it holds of a node when it has left that.
 *
 * A thread looks where it is whenever it is in the slow path of an allocation. Refills that do not enter compare the
 * CPU with the one of the last look, where it can be read (rseq): who stays put refills quickly, who was moved looks at
 * the next refill. A cpuset that changed is noticed when a thread enters, which it does every so often. */
#include "lib/cache/thread.h"

#include <errno.h>
#include <limits.h>

#include "lib/base/settings.h"
#include "lib/cache/caches.h"
#include "lib/manager/manager.h"
#include "lib/manager/move.h"

#define CPUSET_EVERY 16 /* slow calls between two looks at which nodes are allowed, a system call */

/* ---- the current cache ---- */

/* Whether it matters where the thread runs. */
static bool follows(const struct qy_thread *t)
{
	return qy_manager_nodes() > 1 && t->home < 0 && (t->chosen == NULL || t->chosen->locals != NULL);
}

bool qy_thread_may_be_quick(const struct qy_thread *t)
{
	return t->cpu_now != NULL || !follows(t);
}

static struct qy_cache *plain_cache(struct qy_thread *t)
{
	struct qy_manager *m = t->chosen != NULL ? qy_manager_serving(t->chosen, t->node) : qy_manager_of_node(t->node);

	return m == NULL ? NULL : qy_cache_for(t, m);
}

/* No quick refill before the next that enters. */
static void no_more_quick(struct qy_cache *c)
{
	qy_count(&c->heap.refills, c->quick_set - c->quick);
	c->quick = c->quick_set = 1;
}

/* With junk on, no free may take the fast path, which does not fill. */
void qy_thread_use(struct qy_thread *t, struct qy_cache *c)
{
	c->cpu_now = t->cpu_now != NULL && follows(t) ? t->cpu_now : &c->cpu;
	c->cpu = t->cpu;
	if (!qy_thread_may_be_quick(t))
		no_more_quick(c);
	qy_tls.thread = t;
	if (QY_UNLIKELY(atomic_load_explicit(&t->idle, memory_order_relaxed) & QY_WATCHED)) {
		t->turned = c;
		return;
	}
	qy_tls.cache = c;
	qy_tls.owner = qy_thread_token(t);
}

/* ---- what is left behind ---- */

/* Whether a cache is of a node that the thread has left. One of a node's default arena that the thread named stays,
 * unless the node is the one it comes from. */
static bool is_left(const struct qy_thread *t, const struct qy_cache *c, int was)
{
	struct qy_manager *m = c->heap.manager;

	if (c == qy_thread_cache((struct qy_thread *)t))
		return false;
	if (m->of_node)
		return was != t->node && m->index == (uint32_t)was;
	return m->head != m && qy_manager_known_serving(m->head, t->node) != m;
}

/* As for a thread that died: the lists go into their slabs, empty slabs to the manager, and the others to its orphans,
 * where the node's threads find them. What the program still has of those goes home by the orphans' list. */
static void leave_behind(struct qy_thread *t, int was)
{
	qy_thread_send(t);
	for (struct qy_cache **at = &t->caches, *c; (c = *at) != NULL;) {
		if (!is_left(t, c, was)) {
			at = &c->next;
			continue;
		}
		qy_cache_flush(c);
		qy_heap_abandon(&c->heap);
		qy_cache_drop(t, at);
	}
}

/* False with ENOMEM: then nothing has changed. */
static bool settle(struct qy_thread *t, int node)
{
	int was = t->node;
	struct qy_cache *c;

	t->node = node;
	c = plain_cache(t);
	if (c == NULL) {
		t->node = was;
		errno = ENOMEM;
		return false;
	}
	qy_thread_use(t, c);
	leave_behind(t, was);
	return true;
}

/* ---- looking ---- */

/* A home that may no longer be used is none. False with ENOMEM, when the thread should be elsewhere and could not. */
static bool look(struct qy_thread *t)
{
	uint32_t reroutes = qy_manager_reroutes();
	bool moved;
	int node;

	if (t->home >= 0 && reroutes != t->reroutes && !qy_manager_may_use(t->home))
		t->home = -1;
	/* The CPU first: who is moved in between finds another one at the next refill. */
	if (t->cpu_now != NULL)
		t->cpu = *t->cpu_now;
	node = t->home >= 0 ? t->home : qy_manager_node();
	moved = node != t->node;
	if (QY_LIKELY(!moved && reroutes == t->reroutes)) {
		qy_thread_cache(t)->cpu = t->cpu;
		return true;
	}
	if (!settle(t, node))
		return false;
	t->reroutes = reroutes;
	qy_count(&t->moves, moved);
	return true;
}

void qy_thread_follow(struct qy_thread *t)
{
	if (QY_LIKELY(!(atomic_load_explicit(&t->idle, memory_order_relaxed) & QY_TURNED)))
		qy_tls.owner = qy_thread_token(t);
	/* Inside another slow path, the heap that would be left may be in the middle of something. */
	if (QY_LIKELY(qy_manager_nodes() == 1) || t->depth > 1)
		return;
	/* Nobody tells when the cpuset changes. */
	if (t->calls % CPUSET_EVERY == 0)
		qy_managers_follow_cpuset();
	(void)look(t);
}

bool qy_thread_arrive(struct qy_thread *t, int node)
{
	t->home = -1;
	t->reroutes = qy_manager_reroutes();
	t->cpu_now = qy_manager_cpu_now();
	t->cpu = INT_MIN; /* none: it looks at its first refill */
	return settle(t, node);
}

/* ---- by its own wish ---- */

int qy_thread_choose(struct qy_thread *t, struct qy_manager *m)
{
	struct qy_manager *was = t->chosen;
	struct qy_cache *c;

	t->chosen = m;
	c = plain_cache(t);
	if (c == NULL) {
		t->chosen = was;
		errno = ENOMEM;
		return -1;
	}
	qy_thread_use(t, c);
	if (m != NULL)
		atomic_fetch_add_explicit(&m->default_users, 1, memory_order_relaxed);
	if (was != NULL)
		atomic_fetch_sub_explicit(&was->default_users, 1, memory_order_relaxed);
	return 0;
}

static bool go_home(struct qy_thread *t, int home)
{
	int was = t->home;

	t->home = home;
	/* What may be quick has changed with that; the next refill looks, when this call stands inside a slow path. */
	qy_thread_use(t, qy_thread_cache(t));
	no_more_quick(qy_thread_cache(t));
	if (t->depth > 1 || look(t))
		return true;
	t->home = was;
	qy_thread_use(t, qy_thread_cache(t));
	return false;
}

int qy_thread_rebind(int kernel_id)
{
	struct qy_thread *t = qy_thread_enter();
	int home = -1, r = -1;

	if (t == NULL)
		return -1;
	if (kernel_id == -1)
		qy_managers_follow_cpuset();
	else
		home = qy_manager_usable_node(kernel_id);
	if (kernel_id != -1 && home < 0)
		errno = EINVAL;
	else if (go_home(t, home))
		r = 0;
	qy_thread_leave(t);
	return r;
}
