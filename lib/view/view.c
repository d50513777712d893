/* SPDX-License-Identifier: MIT */
/* The view of what lived at one moment (lib/cache/watch.h makes it): walking through it, and finding in it. All of it is
 * in two mappings of its own, and constant once it is made. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "include/quarry/quarry.h"
#include "lib/api/error.h"
#include "lib/api/init.h"
#include "lib/cache/watch.h"
#include "lib/manager/manager.h"
#include "lib/manager/mixed.h"
#include "lib/view/pages.h"
#include "lib/view/sort.h"
#include "lib/view/view.h"
#include "numa/os.h"
#include "numa/topology.h"

#define MORE 64 /* regions and arenas that may come between the count and the moment, beside a quarter */

/* ---- making ---- */

/* All is held. */
static void note_region(struct quarry_view *v, const struct qy_region *r, size_t arena)
{
	int node = qy_peek(r->placement)->node;

	/* (What was claimed last may be more than there is room for.) */
	if (v->region_count == v->region_room ||
	    (qy_region_frame(r) + r->frames) << QY_FRAME_SHIFT > v->snapshot.bytes) {
		v->not_noted++;
		return;
	}
	v->regions[v->region_count++] = (struct qy_view_region){
		.frame = (uint32_t)qy_region_frame(r),
		.frames = r->frames,
		.arena = (uint32_t)arena,
		.node = node < 0 ? -1 : qy_node_kernel_id(node),
		.kind = r->kind,
	};
}

static void note_arena(struct quarry_view *v, struct qy_manager *m)
{
	struct qy_view_arena *a;

	if (v->arena_count == v->arena_room) {
		v->not_noted += qy_read(&m->region_count);
		return;
	}
	a = &v->arenas[v->arena_count];
	a->manager = m;
	a->handle = &qy_arenas[m->head->index];
	memcpy(a->name, m->head->name, sizeof(a->name));
	a->name[sizeof(a->name) - 1] = 0;
	m->wiped = false;
	for (struct qy_region *r = m->regions; r != NULL; r = r->next)
		note_region(v, r, v->arena_count);
	v->arena_count++;
}

static void at_moment(void *view)
{
	for (struct qy_manager *m = qy_manager_next(NULL); m != NULL; m = qy_manager_next(m))
		note_arena(view, m);
}

static void at_end(void *view)
{
	struct quarry_view *v = view;

	for (size_t i = 0; i < v->arena_count; i++)
		v->arenas[i].wiped = v->arenas[i].manager->wiped;
}

static void *map(size_t bytes)
{
	void *p = qy_os->mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static struct quarry_view *make_room(void)
{
	size_t regions = 0, arenas = 0, mapped;
	struct quarry_view *v;

	for (struct qy_manager *m = qy_manager_next(NULL); m != NULL; m = qy_manager_next(m)) {
		arenas++;
		regions += qy_read(&m->region_count);
	}
	regions += regions / 4 + MORE;
	arenas += arenas / 4 + MORE;
	mapped = qy_align_up(sizeof(*v) + regions * sizeof(struct qy_view_region) +
				     arenas * sizeof(struct qy_view_arena),
			     QY_PAGE);
	v = map(mapped);
	if (v == NULL)
		return NULL;
	v->mapped = mapped;
	v->arenas = (void *)(v + 1);
	v->arena_room = arenas;
	v->regions = (void *)(v->arenas + arenas);
	v->region_room = regions;
	return v;
}

static uint64_t key_of_region(const void *region)
{
	return ((const struct qy_view_region *)region)->frame;
}

static uint64_t key_of_block(const void *block)
{
	return ((const struct qy_snap_block *)block)->offset;
}

/* ---- what is there ---- */

struct visit {
	const struct quarry_view *view;
	unsigned kinds;
	int (*fn)(const quarry_view_item *item, void *ctx);
	void *ctx;
	size_t block; /* the next */
	quarry_view_item base; /* what is the same for all in a region */
};

static int tell(const struct visit *visit, const quarry_view_item *item)
{
	quarry_view_item with_pages;

	if ((visit->kinds & (unsigned)item->kind) == 0)
		return 0;
	if (!(visit->kinds & QUARRY_VIEW_PAGES) || item->kind == QUARRY_VIEW_OBJECT)
		return visit->fn(item, visit->ctx);
	with_pages = *item;
	qy_item_look_at_pages(&with_pages);
	return visit->fn(&with_pages, visit->ctx);
}

/* What stood in a unit, if a slab began there. */
static bool slab_at(const struct quarry_view *v, uintptr_t offset, struct qy_view_slab *slab)
{
	unsigned what = atomic_load_explicit(&v->snapshot.classes[offset >> QY_UNIT_SHIFT], memory_order_relaxed);

	*slab = (struct qy_view_slab){ offset, (what & ~(unsigned)QY_SNAP_ENDED) - 1, what & QY_SNAP_ENDED };
	if (what == QY_SNAP_MIXED)
		slab->cls = QY_CLASSES;
	return what == QY_SNAP_MIXED || slab->cls < QY_CLASSES;
}

static int state_of(enum qy_snap_mark mark, bool ended)
{
	switch (mark) {
	case QY_SNAP_FREE:
		return QUARRY_VIEW_FREE;
	case QY_SNAP_CACHED:
		return QUARRY_VIEW_CACHED;
	case QY_SNAP_LIVED:
		return QUARRY_VIEW_LIVE;
	default:
		return ended ? QUARRY_VIEW_FREE : QUARRY_VIEW_LIVE;
	}
}

/* Where the object ends that begins at a grain of a mixed slab. */
static uintptr_t end_of(const struct qy_snapshot *s, uintptr_t offset, uintptr_t limit)
{
	uintptr_t grain = offset / QY_SNAP_GRAIN, end = limit / QY_SNAP_GRAIN;

	while (grain < end - 1 && !(atomic_load_explicit(&s->ends[grain / 64], memory_order_relaxed) >> grain % 64 & 1))
		grain++;
	return (grain + 1) * QY_SNAP_GRAIN;
}

/* The next object of the slab from an offset on, free grains of mixed ones being none; false when there is none. */
static bool next_object(const struct quarry_view *v, const struct qy_view_slab *slab, uintptr_t *at,
			quarry_view_item *item)
{
	const struct qy_snapshot *s = &v->snapshot;
	uintptr_t limit = slab->offset;

	if (slab->cls < QY_CLASSES) {
		const struct qy_class *c = &qy_classes[slab->cls];

		if (*at >= slab->offset + (uintptr_t)c->capacity * c->size)
			return false;
		item->address = qy_window_at(*at);
		item->size = c->size;
		item->state = state_of(qy_snapshot_mark_of(s, *at), slab->ended);
		*at += c->size;
		return true;
	}
	limit += QY_UNIT;
	while (*at < limit && qy_snapshot_mark_of(s, *at) == QY_SNAP_FREE)
		*at += QY_SNAP_GRAIN;
	if (*at >= limit)
		return false;
	item->address = qy_window_at(*at);
	item->state = state_of(qy_snapshot_mark_of(s, *at), false);
	item->size = end_of(s, *at, limit) - *at;
	*at += item->size;
	return true;
}

static quarry_view_item item_of_kind(const struct visit *visit, int kind)
{
	quarry_view_item item = visit->base;

	item.kind = kind;
	item.state = QUARRY_VIEW_LIVE;
	return item;
}

static int visit_slab(struct visit *visit, const struct qy_view_slab *slab)
{
	quarry_view_item item = item_of_kind(visit, QUARRY_VIEW_SLAB), object = item_of_kind(visit, QUARRY_VIEW_OBJECT);
	bool mixed = slab->cls == QY_CLASSES;
	uintptr_t at;
	int r;

	item.address = qy_window_at(slab->offset);
	item.size = mixed ? QY_UNIT : qy_classes[slab->cls].units * QY_UNIT;
	item.object_size = mixed ? 0 : qy_classes[slab->cls].size;
	for (at = slab->offset; next_object(visit->view, slab, &at, &object);) {
		item.objects++;
		item.live += object.state == QUARRY_VIEW_LIVE;
		item.live_bytes += object.state == QUARRY_VIEW_LIVE ? object.size : 0;
		item.cached += object.state == QUARRY_VIEW_CACHED;
		item.cached_bytes += object.state == QUARRY_VIEW_CACHED ? object.size : 0;
	}
	r = tell(visit, &item);
	if ((visit->kinds & QUARRY_VIEW_OBJECT) == 0)
		return r;
	for (at = slab->offset; r == 0 && next_object(visit->view, slab, &at, &object);)
		r = tell(visit, &object);
	return r;
}

static int visit_blocks_before(struct visit *visit, uintptr_t end)
{
	const struct quarry_view *v = visit->view;
	int r = 0;

	for (; r == 0 && visit->block < v->block_count && v->snapshot.blocks[visit->block].offset < end; visit->block++) {
		quarry_view_item item = item_of_kind(visit, QUARRY_VIEW_BLOCK);

		item.address = qy_window_at(v->snapshot.blocks[visit->block].offset);
		item.size = v->snapshot.blocks[visit->block].bytes;
		r = tell(visit, &item);
	}
	return r;
}

static uintptr_t offset_of_region(const struct qy_view_region *r)
{
	return (uintptr_t)r->frame << QY_FRAME_SHIFT;
}

static uintptr_t end_of_region(const struct qy_view_region *r)
{
	return (uintptr_t)(r->frame + r->frames) << QY_FRAME_SHIFT;
}

static int visit_inside(struct visit *visit, const struct qy_view_region *r)
{
	uintptr_t end = end_of_region(r);
	struct qy_view_slab slab;
	int result = 0;

	for (uintptr_t at = offset_of_region(r); result == 0 && at < end; at += QY_UNIT) {
		result = visit_blocks_before(visit, at + QY_UNIT);
		if (result == 0 && slab_at(visit->view, at, &slab))
			result = visit_slab(visit, &slab);
	}
	return result;
}

/* Sums up what is in a region. */
static int add_up(const quarry_view_item *item, void *sum)
{
	quarry_view_item *region = sum;

	if (item->kind == QUARRY_VIEW_SLAB) {
		region->objects += item->objects;
		region->live += item->live;
		region->cached += item->cached;
		region->live_bytes += item->live_bytes;
		region->cached_bytes += item->cached_bytes;
	} else {
		region->live_bytes += item->size;
	}
	return 0;
}

static void set_base(struct visit *visit, const struct qy_view_region *r)
{
	const struct qy_view_arena *a = &visit->view->arenas[r->arena];

	visit->base = (quarry_view_item){
		.struct_size = sizeof(visit->base),
		.arena = a->handle,
		.arena_name = a->name,
		.node = r->node,
		.page_kind = r->kind,
		.resident_node = QUARRY_NODE_NONE,
	};
}

static int visit_region(struct visit *visit, const struct qy_view_region *r)
{
	quarry_view_item item;
	int result = 0;

	while (visit->block < visit->view->block_count &&
	       visit->view->snapshot.blocks[visit->block].offset < offset_of_region(r))
		visit->block++;
	set_base(visit, r);
	if (visit->kinds & QUARRY_VIEW_REGION) {
		struct visit inside = *visit;

		item = item_of_kind(visit, QUARRY_VIEW_REGION);
		item.address = qy_window_at(offset_of_region(r));
		item.size = (size_t)r->frames << QY_FRAME_SHIFT;
		inside.kinds = QUARRY_VIEW_SLAB | QUARRY_VIEW_BLOCK;
		inside.fn = add_up;
		inside.ctx = &item;
		visit_inside(&inside, r);
		result = tell(visit, &item);
	}
	if (result != 0 || !(visit->kinds & (QUARRY_VIEW_SLAB | QUARRY_VIEW_OBJECT | QUARRY_VIEW_BLOCK)))
		return result;
	return visit_inside(visit, r);
}

static int visit_all(struct visit *visit)
{
	int result = 0;

	for (size_t i = 0; result == 0 && i < visit->view->region_count; i++)
		if (!visit->view->arenas[visit->view->regions[i].arena].wiped)
			result = visit_region(visit, &visit->view->regions[i]);
	return result;
}

/* ---- the calls ---- */

static int count(const quarry_view_item *item, void *report)
{
	quarry_view_report *r = report;

	if (item->kind == QUARRY_VIEW_REGION) {
		r->regions++;
	} else if (item->kind == QUARRY_VIEW_SLAB) {
		r->slabs++;
		r->objects += item->live;
		r->objects_bytes += item->live_bytes;
		r->cached += item->cached;
		r->cached_bytes += item->cached_bytes;
	} else {
		r->blocks++;
		r->blocks_bytes += item->size;
	}
	return 0;
}

static void finish(struct quarry_view *v, const struct qy_watch_report *watch)
{
	uint64_t blocks = atomic_load(&v->snapshot.block_count);
	struct visit visit = { .view = v, .kinds = QUARRY_VIEW_REGION | QUARRY_VIEW_SLAB | QUARRY_VIEW_BLOCK, .fn = count,
			       .ctx = &v->report };

	v->block_count = qy_min(blocks, v->snapshot.block_room);
	qy_sort(v->snapshot.blocks, v->block_count, sizeof(v->snapshot.blocks[0]), key_of_block);
	qy_sort(v->regions, v->region_count, sizeof(v->regions[0]), key_of_region);
	v->report = (quarry_view_report){
		.struct_size = sizeof(v->report),
		.unsettled = watch->unsettled,
		.missed = watch->missed + (uint32_t)(blocks - v->block_count) + (uint32_t)v->not_noted,
		.threads = watch->threads,
		.moment_ns = watch->moment_ns,
		.longest_ns = watch->longest_ns,
		.took_ns = watch->took_ns,
	};
	for (size_t i = 0; i < v->arena_count; i++)
		v->report.arenas_ended += v->arenas[i].wiped;
	v->report.exact = v->report.unsettled == 0 && v->report.missed == 0 && v->report.arenas_ended == 0;
	visit_all(&visit);
}

QUARRY_API quarry_view *quarry_view_open(void)
{
	static const struct qy_watch_calls calls = { at_moment, at_end };
	struct qy_watch_report watch;
	struct quarry_view *v;
	int error;

	qy_init_once();
	if (qy_fail_inside())
		return NULL;
	v = make_room();
	if (v == NULL || qy_watch(&v->snapshot, &calls, v, &watch) != 0) {
		error = v == NULL ? ENOMEM : errno;
		quarry_view_close(v);
		(void)qy_fail(error, error == EDEADLK	  ? "inside another call of quarry's"
				     : error == ECANCELED ? "in a child that was forked meanwhile"
							  : "no address space for a view of the heap");
		return NULL;
	}
	finish(v, &watch);
	return v;
}

QUARRY_API void quarry_view_close(quarry_view *view)
{
	int error = errno;

	if (view != NULL) {
		qy_snapshot_unmap(&view->snapshot);
		qy_os->munmap(view, view->mapped);
	}
	errno = error;
}

QUARRY_API int quarry_view_visit(const quarry_view *view, unsigned kinds,
				 int (*fn)(const quarry_view_item *item, void *ctx), void *ctx)
{
	struct visit visit = { .view = view, .kinds = kinds, .fn = fn, .ctx = ctx };

	if (view == NULL || fn == NULL || (kinds & ~(unsigned)QUARRY_VIEW_PAGES) == 0 || kinds >= 2 * QUARRY_VIEW_PAGES)
		return view == NULL ? qy_fail(EINVAL, "view: NULL")
		       : fn == NULL ? qy_fail(EINVAL, "fn: NULL")
				    : qy_fail(EINVAL, "kinds: 0x%x is not of enum quarry_view_kind, or-ed", kinds);
	return visit_all(&visit);
}

static const struct qy_view_region *region_with(const struct quarry_view *v, uintptr_t offset)
{
	size_t low = 0, high = v->region_count;

	while (low < high) {
		size_t i = low + (high - low) / 2;

		if (offset >= end_of_region(&v->regions[i]))
			low = i + 1;
		else
			high = i;
	}
	return low < v->region_count && offset >= offset_of_region(&v->regions[low]) ? &v->regions[low] : NULL;
}

/* The object that a byte of a slab is in. */
static bool find_object(const struct quarry_view *v, const struct qy_view_slab *slab, uintptr_t offset, quarry_view_item *item)
{
	uintptr_t at = slab->offset;

	if (slab->cls < QY_CLASSES)
		at += (offset - at) / qy_classes[slab->cls].size * qy_classes[slab->cls].size;
	while (next_object(v, slab, &at, item))
		if (at > offset)
			return qy_window_offset(item->address) <= offset;
	return false;
}

/* (Slabs are four units at most.) */
bool qy_view_find_slab(const struct quarry_view *v, uintptr_t offset, struct qy_view_slab *slab)
{
	uintptr_t unit = qy_align_down(offset, QY_UNIT);

	for (unsigned back = 0; back < 4 && unit >= back * QY_UNIT; back++)
		if (slab_at(v, unit - back * QY_UNIT, slab))
			return back < (slab->cls == QY_CLASSES ? 1 : qy_classes[slab->cls].units);
	return false;
}

static bool find_block(const struct quarry_view *v, uintptr_t offset, quarry_view_item *item)
{
	size_t low = 0, high = v->block_count;

	while (low < high) {
		size_t i = low + (high - low) / 2;

		if (v->snapshot.blocks[i].offset <= offset)
			low = i + 1;
		else
			high = i;
	}
	if (low == 0 || offset - v->snapshot.blocks[low - 1].offset >= v->snapshot.blocks[low - 1].bytes)
		return false;
	item->kind = QUARRY_VIEW_BLOCK;
	item->state = QUARRY_VIEW_LIVE;
	item->address = qy_window_at(v->snapshot.blocks[low - 1].offset);
	item->size = v->snapshot.blocks[low - 1].bytes;
	return true;
}

QUARRY_API int quarry_view_find(const quarry_view *view, const void *p, quarry_view_item *item, size_t size)
{
	uintptr_t offset = qy_window_offset(p);
	struct visit visit = { .view = view };
	const struct qy_view_region *r;
	struct qy_view_slab slab;
	bool found;

	if (view == NULL || item == NULL || size == 0)
		return qy_fail(EINVAL, view == NULL ? "view: NULL" : item == NULL ? "item: NULL" : "size: 0");
	r = offset < view->snapshot.bytes ? region_with(view, offset) : NULL;
	if (r == NULL || view->arenas[r->arena].wiped)
		return qy_fail(ENOENT, "p: %p was not in quarry's memory", (void *)(uintptr_t)p);
	set_base(&visit, r);
	visit.base.kind = QUARRY_VIEW_OBJECT;
	found = find_block(view, offset, &visit.base) ||
		(qy_view_find_slab(view, offset, &slab) && find_object(view, &slab, offset, &visit.base));
	if (!found || visit.base.state == QUARRY_VIEW_FREE)
		return qy_fail(ENOENT, "p: nothing stood at %p", (void *)(uintptr_t)p);
	memcpy(item, &visit.base, qy_min(size, sizeof(visit.base)));
	return 0;
}

QUARRY_API int quarry_view_report_get(const quarry_view *view, quarry_view_report *report)
{
	uint32_t size;

	if (view == NULL || report == NULL || report->struct_size < sizeof(report->struct_size))
		return qy_fail(EINVAL, view == NULL ? "view: NULL" : "report: NULL, or struct_size not set");
	size = (uint32_t)qy_min(report->struct_size, sizeof(view->report));
	memcpy(report, &view->report, size);
	report->struct_size = size;
	return 0;
}
