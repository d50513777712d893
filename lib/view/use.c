/* SPDX-License-Identifier: MIT */
#include "lib/view/use.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "lib/api/error.h"
#include "lib/manager/manager.h"
#include "lib/view/print.h"
#include "numa/os.h"

/* Of each arena, in this order. */
enum { PAGES = 0, CLASSES = 1, MIXED = CLASSES + QY_CLASSES, BLOCKS, ROWS };

struct sums {
	struct qy_uses *uses;
	size_t room;
	uint32_t *row_of;       /* of arenas, by their place in the registry, the first row's number and 1 more */
	quarry_view_use *arena; /* the first row of the one that was last told of */
	uintptr_t frame; /* the huge page that is summed up, */
	uint64_t frame_live; /* what lives in it, */
	bool frame_held;     /* and whether anything is there */
};

/* ---- rows ---- */

/* Those of the arena that the item is of; NULL when it is a new one and there is no room. */
static quarry_view_use *rows_of(struct sums *sums, const quarry_view_item *item)
{
	uint32_t *first = &sums->row_of[qy_arena_number(item->arena)];
	struct qy_uses *uses = sums->uses;

	if (*first == 0) {
		if (uses->count + ROWS > sums->room)
			return NULL;
		*first = (uint32_t)uses->count + 1;
		for (size_t n = 0; n < ROWS; n++, uses->count++) {
			uses->rows[uses->count].arena = item->arena;
			uses->rows[uses->count].arena_name = item->arena_name;
		}
	}
	sums->arena = &uses->rows[*first - 1];
	return sums->arena;
}

static void add_held(quarry_view_use *row, int kind, uint64_t held, uint64_t live)
{
	unsigned quarter = (unsigned)(live * 4 / held);

	row->struct_size = sizeof(*row);
	row->kind = kind;
	row->count++;
	row->held += held;
	row->live_bytes += live;
	row->held_by_use[quarter < 3 ? quarter : 3] += held;
}

/* ---- huge pages ---- */

static void end_frame(struct sums *sums)
{
	if (sums->frame_held)
		add_held(&sums->arena[PAGES], QUARRY_VIEW_REGION, QY_FRAME, sums->frame_live);
	sums->frame_held = false;
	sums->frame_live = 0;
}

/* What stands from p on, of which so much lives, wherever in it. (More than one huge page is a block's, and all lives.) */
static void add_to_frames(struct sums *sums, const void *p, size_t size, uint64_t live)
{
	uintptr_t at = (uintptr_t)p, end = at + size;

	while (at < end) {
		uintptr_t frame = qy_align_down(at, QY_FRAME), part = qy_min(end, frame + QY_FRAME) - at;

		if (frame != sums->frame)
			end_frame(sums);
		sums->frame = frame;
		sums->frame_held = true;
		sums->frame_live += part == size ? live : part;
		at += part;
	}
}

/* ---- what the view tells of ---- */

static void add_slab(quarry_view_use *rows, const quarry_view_item *item)
{
	quarry_view_use *row = &rows[item->object_size == 0 ? MIXED : CLASSES + qy_class_of(item->object_size)];

	add_held(row, QUARRY_VIEW_SLAB, item->size, item->live_bytes);
	row->object_size = item->object_size;
	row->objects += item->objects;
	row->live += item->live;
	row->cached += item->cached;
	row->cached_bytes += item->cached_bytes;
}

static int add(const quarry_view_item *item, void *ctx)
{
	struct sums *sums = ctx;
	quarry_view_use *rows;

	/* (Regions come before what is in them: no huge page is of two arenas.) */
	if (item->kind == QUARRY_VIEW_REGION) {
		end_frame(sums);
		return rows_of(sums, item) == NULL ? -1 : 0;
	}
	rows = sums->arena;
	if (item->kind == QUARRY_VIEW_SLAB) {
		add_slab(rows, item);
		add_to_frames(sums, item->address, item->size, item->live_bytes);
	} else {
		add_held(&rows[BLOCKS], QUARRY_VIEW_BLOCK, item->size, item->size);
		rows[BLOCKS].live++;
		add_to_frames(sums, item->address, item->size, item->size);
	}
	return 0;
}

static int count_region(const quarry_view_item *item, void *count)
{
	(void)item;
	++*(size_t *)count;
	return 0;
}

static void *map(size_t bytes)
{
	void *p = qy_os->mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

bool qy_uses_get(struct qy_uses *uses, const quarry_view *view)
{
	const size_t mapped = QY_ARENAS_MAX * sizeof(uint32_t);
	struct sums sums = { .uses = uses, .row_of = map(mapped) };
	size_t regions = 0;

	*uses = (struct qy_uses){ NULL, 0, 0 };
	if (sums.row_of == NULL) {
		errno = ENOMEM;
		return false;
	}
	/* (No more arenas have anything than there are regions. What is not used is not touched.) */
	(void)quarry_view_visit(view, QUARRY_VIEW_REGION, count_region, &regions);
	sums.room = regions * ROWS;
	uses->mapped = qy_align_up((sums.room + 1) * sizeof(uses->rows[0]), qy_os_page_size());
	uses->rows = map(uses->mapped);
	if (uses->rows != NULL) {
		(void)quarry_view_visit(view, QUARRY_VIEW_REGION | QUARRY_VIEW_SLAB | QUARRY_VIEW_BLOCK, add, &sums);
		end_frame(&sums);
	}
	qy_os->munmap(sums.row_of, mapped);
	errno = uses->rows == NULL ? ENOMEM : errno;
	return uses->rows != NULL;
}

void qy_uses_put(struct qy_uses *uses)
{
	if (uses->rows != NULL)
		qy_os->munmap(uses->rows, uses->mapped);
	uses->rows = NULL;
}

QUARRY_API long quarry_view_uses(const quarry_view *view, quarry_view_use *list, size_t max, size_t size)
{
	struct qy_uses uses;
	size_t n = 0;

	if (view == NULL || (list == NULL && max > 0) || (size == 0 && max > 0))
		return qy_fail(EINVAL, view == NULL ? "view: NULL" : list == NULL ? "list: NULL" : "size: 0");
	if (!qy_uses_get(&uses, view))
		return qy_fail(ENOMEM, "no memory for the rows");
	for (size_t i = 0; i < uses.count; i++) {
		if (uses.rows[i].kind == 0)
			continue;
		if (n < max)
			memcpy((char *)list + n * size, &uses.rows[i], qy_min(size, sizeof(uses.rows[i])));
		n++;
	}
	qy_uses_put(&uses);
	return (long)n;
}
