/* SPDX-License-Identifier: MIT */
/* What one pointer is in. Records outside the objects tell most of it; which of a slab's objects are free stands in lists,
 * that their owner alone may go along: the calling thread its own, whoever has the manager's lock those of slabs that nobody
 * holds. What was written over may lead anywhere: no link is followed out of quarry's memory, and none for ever. */
#include <errno.h>
#include <string.h>

#include "include/quarry/quarry.h"
#include "lib/api/error.h"
#include "lib/cache/thread.h"
#include "lib/manager/grains.h"
#include "lib/manager/manager.h"
#include "lib/manager/mixed.h"
#include "lib/manager/sites.h"
#include "lib/manager/snapshot.h"
#include "lib/manager/sparse.h"
#include "numa/os.h"
#include "numa/topology.h"

#define MOST 16384 /* objects of a list that are looked at */

enum found { NOT_THERE, THERE, NOT_TOLD };

/* ---- lists ---- */

static enum found look_in_list(const void *list, const void *object)
{
	for (unsigned n = 0; list != NULL; n++) {
		if (n == MOST || !qy_snapshot_may_be_object(list))
			return NOT_TOLD;
		if (list == object)
			return THERE;
		list = qy_next_object((void *)list);
	}
	return NOT_THERE;
}

/* The thread's lists in front of the slab's heap, and what others sent. */
static enum found look_in_cache(const struct qy_cache *c, unsigned cls, const void *object)
{
	const void *remote = atomic_load_explicit(&c->heap.remote, memory_order_acquire);
	const void *lists[] = { c->head[cls], c->freed[cls].head, c->heap.mail, remote == QY_REMOTE_CLOSED ? NULL : remote };
	enum found found = NOT_THERE;

	for (unsigned i = 0; i < sizeof(lists) / sizeof(lists[0]) && found != THERE; i++) {
		enum found here = look_in_list(lists[i], object);

		found = here == NOT_THERE ? found : here;
	}
	return found;
}

/* ---- an object's state ---- */

static int state_of_mine(struct qy_thread *t, const struct qy_slab *s, const void *object)
{
	enum found found = look_in_list(s->local, object);

	if (found == THERE)
		return QUARRY_VIEW_FREE;
	for (struct qy_cache *c = t->caches; c != NULL; c = c->next)
		if (&c->heap == atomic_load_explicit(&s->heap, memory_order_relaxed)) {
			enum found cached = look_in_cache(c, s->cls, object);

			if (cached == THERE)
				return QUARRY_VIEW_CACHED;
			return found == NOT_TOLD || cached == NOT_TOLD ? QUARRY_VIEW_UNKNOWN : QUARRY_VIEW_LIVE;
		}
	return QUARRY_VIEW_UNKNOWN;
}

/* Of a slab that nobody holds; with the manager's lock, unless somebody is at its pages. */
static int state_of_nobodys(struct qy_manager *m, const struct qy_slab *s, const void *object)
{
	enum found found;

	if (atomic_load_explicit(&s->heap, memory_order_acquire) != &m->orphans)
		return QUARRY_VIEW_UNKNOWN;
	found = look_in_list(s->local, object);
	return found == THERE ? QUARRY_VIEW_FREE : found == NOT_THERE ? QUARRY_VIEW_LIVE : QUARRY_VIEW_UNKNOWN;
}

/* ---- where it is ---- */

static void set_object(quarry_inspection *out, const struct qy_slab *s, uint32_t begin, uint32_t size, const void *p)
{
	out->kind = QUARRY_VIEW_OBJECT;
	out->address = qy_slab_memory(s) + begin;
	out->size = size;
	out->offset = (size_t)((const char *)p - (const char *)out->address);
}

static void inspect_plain(struct qy_thread *t, struct qy_manager *m, const struct qy_slab *s, const void *p,
			  quarry_inspection *out)
{
	const struct qy_class *c = &qy_classes[qy_peek(s->cls)];
	uint32_t i = (uint32_t)(((const char *)p - qy_slab_memory(s)) / c->size);

	if (i >= c->capacity)
		return;
	set_object(out, s, i * c->size, c->size, p);
	if (i >= qy_peek(s->carved) || (out->mine != 0 && (qy_slab_gone(s) & qy_slab_pages_of(c, i)) != 0))
		out->state = QUARRY_VIEW_FREE;
	else if (out->mine == 1)
		out->state = state_of_mine(t, s, out->address);
	else if (out->mine < 0)
		out->state = state_of_nobodys(m, s, out->address);
	else
		out->state = QUARRY_VIEW_UNKNOWN;
}

/* The lock is held. An object begins behind the last end, or the last free grain, before it. */
static void inspect_mixed(const struct qy_slab *s, const void *p, quarry_inspection *out)
{
	const struct qy_mixed_slab *r = s->local;
	uint32_t i = qy_grain_of(s, p), first = i;

	if (qy_grain_is(r->free, i) || qy_grain_is_parked(qy_slab_gone(s), i))
		return;
	while (first > 0 && !qy_grain_is(r->free, first - 1) && !qy_grain_is(r->end, first - 1) &&
	       !qy_grain_is_parked(qy_slab_gone(s), first - 1))
		first--;
	set_object(out, s, first * QY_MIXED_GRAIN, qy_grains_length(r, first) * QY_MIXED_GRAIN, p);
	out->state = QUARRY_VIEW_LIVE;
}

/* With the lock held: neither becomes it a mixed one, nor is one that nobody holds taken, meanwhile. */
static void inspect_slab(struct qy_thread *t, struct qy_manager *m, const struct qy_slab *s, const void *p,
			 quarry_inspection *out)
{
	uintptr_t owner = atomic_load_explicit(&s->owner, memory_order_acquire);

	out->kind = QUARRY_VIEW_SLAB;
	out->address = out->slab = qy_slab_memory(s);
	out->size = out->slab_size = qy_classes[qy_peek(s->cls)].units * QY_UNIT;
	out->offset = (size_t)((const char *)p - (const char *)out->address);
	out->mine = owner == 0 ? -1 : (owner & ~QY_OWNER_SHARED) == (uintptr_t)t;
	if (qy_slab_is_mixed(s))
		inspect_mixed(s, p, out);
	else
		inspect_plain(t, m, s, p, out);
}

static const struct qy_slab *slab_with(const void *p)
{
	const struct qy_slab *s = qy_slab_at(qy_window_offset(p));

	if (qy_peek(s->kind) == QY_SLAB_INNER)
		s -= s->inner;
	return qy_peek(s->kind) == QY_SLAB_HEAD ? s : NULL;
}

/* Entered, so that the arena does not end meanwhile. False where there is nothing of quarry's. */
static bool inspect(struct qy_thread *t, const void *p, quarry_inspection *out)
{
	struct qy_manager *m = qy_manager_of(p);
	const struct qy_slab *s = NULL;
	struct qy_region *r;
	void *begin;
	int node;

	if (m == NULL)
		return false;
	qy_lock(&m->lock);
	r = qy_region_of_frame(qy_frame_at((uint32_t)(qy_window_offset(p) >> QY_FRAME_SHIFT)));
	if (r == NULL || qy_peek(r->owner) != m) {
		qy_unlock(&m->lock);
		return false;
	}
	out->kind = QUARRY_VIEW_REGION;
	out->address = out->region = qy_window_at((uintptr_t)qy_region_frame(r) << QY_FRAME_SHIFT);
	out->size = out->region_size = (size_t)r->frames << QY_FRAME_SHIFT;
	out->offset = (size_t)((const char *)p - (const char *)out->region);
	out->arena = &qy_arenas[m->head->index];
	memcpy(out->arena_name, m->head->name, sizeof(out->arena_name) - 1);
	node = qy_peek(r->placement)->node;
	out->node = node < 0 ? -1 : qy_node_kernel_id(node);
	out->page_kind = r->kind;
	out->state = QUARRY_VIEW_LIVE;
	if (qy_frame_at((uint32_t)(qy_window_offset(p) >> QY_FRAME_SHIFT))->filler == QY_FILL_SLABS + 1)
		s = slab_with(p);
	if (s != NULL)
		inspect_slab(t, m, s, p, out);
	qy_unlock(&m->lock);
	if (s == NULL && qy_large_find(p, &begin, &out->size)) {
		out->kind = QUARRY_VIEW_BLOCK;
		out->address = begin;
		out->offset = (size_t)((const char *)p - (const char *)begin);
	} else if (s == NULL) {
		out->size = out->region_size;
	}
	return true;
}

_Static_assert(QUARRY_STACK_MAX >= QY_SITE_FRAMES, "a site's stack has room");

/* Where it was allocated. The profile forgets a sample when it is freed: one that is known lives. */
static void inspect_sample(quarry_inspection *out)
{
	struct qy_sample sample;
	uint64_t now;

	if ((out->kind != QUARRY_VIEW_OBJECT && out->kind != QUARRY_VIEW_BLOCK) || !qy_sample_find(out->address, &sample))
		return;
	now = qy_os->now_ms();
	out->state = QUARRY_VIEW_LIVE;
	out->sampled = 1;
	out->asked = sample.asked;
	out->age_ms = now > sample.born ? now - sample.born : 0;
	out->depth = (unsigned)qy_min(sample.site->depth, QUARRY_STACK_MAX);
	memcpy(out->stack, sample.site->frames, out->depth * sizeof(out->stack[0]));
}

QUARRY_API int quarry_inspect(const void *p, quarry_inspection *out, size_t size)
{
	quarry_inspection found = { .struct_size = sizeof(found), .mine = -1, .node = -1 };
	struct qy_thread *t;
	bool ours;

	if (out == NULL || size == 0)
		return qy_fail(EINVAL, out == NULL ? "out: NULL" : "size: 0");
	t = qy_window_has(p) ? qy_thread_enter() : NULL;
	ours = t != NULL && inspect(t, p, &found);
	if (t != NULL)
		qy_thread_leave(t);
	if (!ours)
		return qy_fail(ENOENT, "p: %p is not in quarry's memory", (void *)(uintptr_t)p);
	inspect_sample(&found);
	memcpy(out, &found, qy_min(size, sizeof(found)));
	return 0;
}
