/* SPDX-License-Identifier: MIT */
/* Arenas: managers as the program sees them. Whatever a thread does in an arena happens between enter and leave, and
 * the handle is looked up inside: an arena's end waits for those who are in, and turns away those who come after. */
#include <errno.h>
#include <string.h>

#include "include/quarry/quarry.h"
#include "lib/api/error.h"
#include "lib/api/fast.h"
#include "lib/api/init.h"
#include "lib/api/resize.h"
#include "lib/base/settings.h"
#include "lib/cache/thread.h"
#include "lib/manager/manager.h"
#include "lib/reclaim/reclaim.h"
#include "numa/topology.h"

/* ---- made ---- */

static bool check_nodes(const quarry_nodeset *nodes)
{
	for (unsigned n = 0; n < QUARRY_NODES_MAX; n++) {
		if (quarry_nodeset_has(nodes, n) && qy_node_dense((int)n) < 0) {
			qy_fail(EINVAL, "nodes: there is no node %d", (int)n);
			return false;
		}
	}
	return true;
}

static bool check(const quarry_arena_attr *attr)
{
	const uint32_t flags = QUARRY_ARENA_STRICT | QUARRY_ARENA_NODUMP | QUARRY_ARENA_LOCKED | QUARRY_ARENA_POPULATE;

	if (attr->struct_size != 0 && attr->struct_size != sizeof(*attr))
		qy_fail(EINVAL, "struct_size: %d is not the size of any quarry_arena_attr", (int)attr->struct_size);
	else if (attr->flags & ~flags)
		qy_fail(EINVAL, "flags: unknown bits in %d", (int)attr->flags);
	else if (attr->policy < QUARRY_POLICY_LOCAL || attr->policy > QUARRY_POLICY_WEIGHTED_INTERLEAVE)
		qy_fail(EINVAL, "policy: %d is none", (int)attr->policy);
	else if (attr->page_kind < QUARRY_PAGES_AUTO || attr->page_kind > QUARRY_PAGES_1G)
		qy_fail(EINVAL, "page_kind: %d is none", (int)attr->page_kind);
	else if (memchr(attr->name, 0, sizeof(attr->name)) == NULL)
		qy_fail(EINVAL, "name: longer than %d characters", (int)sizeof(attr->name) - 1);
	else
		return check_nodes(&attr->nodes);
	return false;
}

/* The one node of a set (dense), or -1. */
static int only_node(const quarry_nodeset *nodes)
{
	int found = -1;

	for (int i = 0; i < qy_node_count(); i++) {
		if (!quarry_nodeset_has(nodes, (unsigned)qy_node_kernel_id(i)))
			continue;
		if (found >= 0)
			return -1;
		found = i;
	}
	return found;
}

static void place(struct qy_placement *placement, const quarry_arena_attr *attr)
{
	static const quarry_nodeset none;

	placement->policy = attr->policy;
	placement->flags = attr->flags;
	placement->nodes = attr->nodes;
	placement->bind = attr->policy != QUARRY_POLICY_LOCAL;
	if (memcmp(&attr->nodes, &none, sizeof(none)) == 0)
		qy_nodes_allowed(&placement->nodes);
	placement->node = placement->bind ? only_node(&placement->nodes) : -1;
	if (qy_node_count() == 1)
		placement->node = 0;
}

QUARRY_API quarry_arena *quarry_arena_create(const quarry_arena_attr *attr)
{
	static const quarry_arena_attr plain;
	struct qy_placement placement;
	struct qy_manager *m;
	int error;

	if (attr == NULL)
		attr = &plain;
	qy_init_once();
	if (!check(attr))
		return NULL;
	memset(&placement, 0, sizeof(placement));
	place(&placement, attr);
	m = qy_manager_create(&placement, attr->page_kind, attr->name);
	if (m == NULL) {
		qy_fail(errno, errno == EAGAIN ? "there are as many arenas as can be" : "no memory for an arena");
		return NULL;
	}
	atomic_store_explicit(&m->hard_limit, attr->hard_limit, memory_order_relaxed);
	atomic_store_explicit(&m->soft_limit, attr->soft_limit, memory_order_relaxed);
	/* What is strict, or has to be there at once, is asked for now, so that its failure is this call's. */
	if ((attr->flags & (QUARRY_ARENA_STRICT | QUARRY_ARENA_POPULATE)) && !qy_manager_more(m, 1, 1)) {
		error = errno;
		qy_manager_destroy(m);
		qy_fail(error, "the kernel does not give what was asked for, strictly");
		return NULL;
	}
	return &qy_arenas[m->index];
}

/* ---- unmade ---- */

/* With all threads out and held: drop what they hold of it, then do it. */
static int end_arena(quarry_arena *arena, void (*act)(struct qy_manager *m))
{
	struct qy_manager *m;
	int error = 0;

	qy_init_once();
	qy_purge_hold();
	qy_threads_pause();
	m = qy_manager_of_arena(arena);
	if (m == NULL)
		error = EINVAL;
	else if (m->of_node)
		error = EPERM;
	else if (qy_threads_use(m))
		error = EBUSY;
	else
		qy_threads_forget(m);
	if (error == 0)
		act(m);
	qy_threads_resume();
	qy_purge_release();
	if (error != 0)
		errno = error;
	return error == 0 ? 0 : -1;
}

QUARRY_API int quarry_arena_destroy(quarry_arena *arena)
{
	return end_arena(arena, qy_manager_destroy);
}

QUARRY_API int quarry_arena_reset(quarry_arena *arena)
{
	return end_arena(arena, qy_manager_reset);
}

/* ---- used ---- */

QUARRY_API void *quarry_arena_malloc(quarry_arena *arena, size_t size)
{
	return arena == NULL ? qy_fast_malloc(size) : qy_cache_alloc(arena, size, 16, false);
}

QUARRY_API void *quarry_arena_calloc(quarry_arena *arena, size_t count, size_t size)
{
	size_t n;

	if (__builtin_mul_overflow(count, size, &n)) {
		errno = ENOMEM;
		return NULL;
	}
	return qy_cache_alloc(arena, n, 16, true);
}

QUARRY_API void *quarry_arena_realloc(quarry_arena *arena, void *p, size_t size)
{
	return p == NULL ? quarry_arena_malloc(arena, size) : qy_resize(p, size);
}

QUARRY_API void *quarry_arena_aligned_alloc(quarry_arena *arena, size_t alignment, size_t size)
{
	if (!qy_is_pow2(alignment)) {
		errno = EINVAL;
		return NULL;
	}
	return qy_cache_alloc(arena, size, alignment, false);
}

QUARRY_API void *quarry_arena_malloc_at_least(quarry_arena *arena, size_t size, size_t *got)
{
	void *p = quarry_arena_malloc(arena, size);

	if (got != NULL && p != NULL)
		*got = qy_cache_usable(p);
	return p;
}

QUARRY_API int quarry_arena_free(quarry_arena *arena, void *p)
{
	struct qy_manager *m;

	if (p == NULL)
		return 0;
	m = arena == NULL ? qy_manager_of(p) : qy_manager_of_arena(arena);
	if (m == NULL || qy_manager_of(p) != m || qy_cache_usable(p) == 0) {
		errno = EINVAL;
		return -1;
	}
	qy_fast_free(p);
	return 0;
}

/* ---- asked ---- */

QUARRY_API quarry_arena *quarry_arena_of(const void *p)
{
	struct qy_manager *m = qy_cache_usable(p) == 0 ? NULL : qy_manager_of(p);

	if (m == NULL) {
		errno = EINVAL;
		return NULL;
	}
	return &qy_arenas[m->index];
}

QUARRY_API quarry_arena *quarry_arena_of_node(int node)
{
	struct qy_manager *m;
	int dense;

	qy_init_once();
	dense = qy_node_dense(node);
	if (dense < 0) {
		errno = EINVAL;
		return NULL;
	}
	m = qy_manager_of_node(dense);
	return m == NULL ? NULL : &qy_arenas[dense];
}

QUARRY_API quarry_arena *quarry_thread_arena(void)
{
	struct qy_thread *t = qy_tls.thread;

	return t == NULL || t->chosen == NULL ? NULL : &qy_arenas[t->chosen->index];
}

QUARRY_API int quarry_thread_set_arena(quarry_arena *arena, quarry_arena **previous)
{
	struct qy_thread *t = qy_thread_enter();
	quarry_arena *was = quarry_thread_arena();
	struct qy_manager *m = NULL;
	int r = -1;

	if (t == NULL)
		return -1;
	if (arena != NULL)
		m = qy_manager_of_arena(arena);
	if (arena == NULL || m != NULL)
		r = qy_thread_choose(t, m);
	qy_thread_leave(t);
	if (r == 0 && previous != NULL)
		*previous = was;
	return r;
}

QUARRY_API const char *quarry_arena_name(const quarry_arena *arena)
{
	struct qy_manager *m = qy_manager_of_arena(arena);

	return m == NULL ? "" : m->name;
}

QUARRY_API int quarry_arena_set_limits(quarry_arena *arena, uint64_t hard_limit, uint64_t soft_limit)
{
	struct qy_manager *m = qy_manager_of_arena(arena);

	if (m == NULL)
		return -1;
	atomic_store_explicit(&m->hard_limit, hard_limit, memory_order_relaxed);
	atomic_store_explicit(&m->soft_limit, soft_limit, memory_order_relaxed);
	return 0;
}

/* ---- given back ---- */

QUARRY_API void quarry_thread_flush(void)
{
	struct qy_thread *t = qy_tls.thread;

	if (t == NULL || qy_thread_enter() == NULL)
		return;
	qy_thread_send(t);
	for (struct qy_cache *c = t->caches; c != NULL; c = c->next) {
		qy_heap_receive(&c->heap);
		qy_cache_flush(c);
		qy_heap_tidy(&c->heap);
	}
	qy_thread_leave(t);
}

QUARRY_API size_t quarry_purge(quarry_arena *arena)
{
	struct qy_manager *m;
	uint64_t next;

	qy_init_once();
	quarry_thread_flush();
	if (arena == NULL)
		return qy_reclaim_now();
	m = qy_manager_of_arena(arena);
	return m == NULL ? 0 : qy_manager_purge(m, 0, 0, SIZE_MAX, &next);
}

QUARRY_API size_t quarry_arenas(quarry_arena **list, size_t max)
{
	size_t n = 0;

	for (struct qy_manager *m = qy_manager_next(NULL); m != NULL; m = qy_manager_next(m), n++)
		if (n < max)
			list[n] = &qy_arenas[m->index];
	return n;
}
