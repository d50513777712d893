/* SPDX-License-Identifier: MIT */
#include "lib/view/reach.h"

#include <sys/mman.h>

#include "numa/os.h"
#include "numa/region.h"

#define WORDS_AT_ONCE (QY_PAGE / sizeof(uint64_t))
#define PAGES_FROM ((size_t)256 << 10) /* bytes from which it is asked which pages there are */
#define PAGES_AT_ONCE 32768 /* 128 MiB: what was reserved and never written is passed over in large steps */

/* Documentation/admin-guide/mm/pagemap.rst */
#define PAGE_IS_FILE (UINT64_C(1) << 61)
#define PAGE_IS_SWAPPED (UINT64_C(1) << 62)
#define PAGE_IS_THERE (UINT64_C(1) << 63)

/* ---- what stands where ---- */

static void mixed_thing(const struct qy_snapshot *s, uintptr_t first, uintptr_t offset, struct qy_thing *thing)
{
	uintptr_t grain = offset / QY_SNAP_GRAIN, begin = first / QY_SNAP_GRAIN, end = begin + QY_UNIT / QY_SNAP_GRAIN;
	uintptr_t from = grain, to = grain;

	while (from > begin && qy_snapshot_mark_of(s, (from - 1) * QY_SNAP_GRAIN) != QY_SNAP_FREE &&
	       !(atomic_load_explicit(&s->ends[(from - 1) / 64], memory_order_relaxed) >> (from - 1) % 64 & 1))
		from--;
	while (to < end - 1 && !(atomic_load_explicit(&s->ends[to / 64], memory_order_relaxed) >> to % 64 & 1))
		to++;
	*thing = (struct qy_thing){ from * QY_SNAP_GRAIN, (to + 1 - from) * QY_SNAP_GRAIN };
}

static bool block_thing(const struct quarry_view *v, uintptr_t offset, struct qy_thing *thing)
{
	const struct qy_snap_block *blocks = v->snapshot.blocks;
	size_t low = 0, high = v->block_count;

	while (low < high) {
		size_t i = low + (high - low) / 2;

		if (blocks[i].offset <= offset)
			low = i + 1;
		else
			high = i;
	}
	if (low == 0 || offset - blocks[low - 1].offset >= blocks[low - 1].bytes)
		return false;
	*thing = (struct qy_thing){ blocks[low - 1].offset, blocks[low - 1].bytes };
	return true;
}

/* What a byte of the window is in, and is not free. */
static bool find_thing(const struct quarry_view *v, uintptr_t offset, struct qy_thing *thing)
{
	const struct qy_snapshot *s = &v->snapshot;
	struct qy_view_slab slab;
	enum qy_snap_mark mark;

	if (!qy_view_find_slab(v, offset, &slab))
		return block_thing(v, offset, thing);
	if (slab.cls < QY_CLASSES) {
		uint32_t size = qy_classes[slab.cls].size, i = (uint32_t)(offset - slab.offset) / size;

		if (slab.ended || i >= qy_classes[slab.cls].capacity)
			return false;
		*thing = (struct qy_thing){ slab.offset + (uintptr_t)i * size, size };
	} else {
		mixed_thing(s, slab.offset, offset, thing);
	}
	mark = qy_snapshot_mark_of(s, thing->offset);
	return mark != QY_SNAP_FREE && mark != QY_SNAP_CACHED;
}

/* ---- marks ---- */

bool qy_reached(const struct qy_reach *r, uint64_t offset)
{
	return qy_snapshot_mark_of(&r->view->snapshot, offset) == QY_SNAP_LIVED;
}

static void set_mark(struct qy_reach *r, uint64_t offset, enum qy_snap_mark mark)
{
	uint64_t grain = offset / QY_SNAP_GRAIN;
	_Atomic(uint64_t) *word = &r->view->snapshot.marks[grain / 32];
	unsigned shift = (unsigned)(grain % 32) * 2;
	uint64_t rest = atomic_load_explicit(word, memory_order_relaxed) & ~(UINT64_C(3) << shift);

	atomic_store_explicit(word, rest | (uint64_t)mark << shift, memory_order_relaxed);
}

static void push(struct qy_reach *r, const struct qy_thing *thing)
{
	if (qy_reached(r, thing->offset) || r->depth == r->room)
		return;
	set_mark(r, thing->offset, QY_SNAP_LIVED);
	r->stack[r->depth++] = *thing;
	r->objects++;
	r->bytes += thing->bytes;
}

/* ---- words ---- */

typedef void on_thing(struct qy_reach *r, const struct qy_thing *thing);

/* So many at once: they are copied out first, as reading may fail (what a program protects, or keeps from its children). */
static void some_words(struct qy_reach *r, uintptr_t from, size_t count, on_thing *fn)
{
	uint64_t word[WORDS_AT_ONCE];
	size_t bytes = r->view->snapshot.bytes;

	if (!qy_os->try_read(word, (const uint64_t *)from, count)) {
		r->skipped += count * sizeof(word[0]);
		return;
	}
	r->scanned += count * sizeof(word[0]);
	for (size_t i = 0; i < count; i++) {
		uintptr_t offset = (uintptr_t)word[i] - qy_window_base;
		struct qy_thing thing;

		if (QY_UNLIKELY(offset < bytes) && find_thing(r->view, offset, &thing))
			fn(r, &thing);
	}
}

/* All of [from, to): none across the border of a page. */
static void each_word(struct qy_reach *r, uintptr_t from, uintptr_t to, on_thing *fn)
{
	while (from < to) {
		uintptr_t end = qy_min(qy_align_down(from, QY_PAGE) + QY_PAGE, to);

		some_words(r, from, (end - from) / sizeof(uint64_t), fn);
		from = end;
	}
}

/* Pages without a file's contents, that were ever written to. */
static void each_page_that_is_there(struct qy_reach *r, uintptr_t from, uintptr_t to, on_thing *fn)
{
	size_t page = qy_os_page_size();
	uint64_t *entry = r->entries;

	while (from < to) {
		size_t count = qy_min(PAGES_AT_ONCE, (qy_align_up(to, page) - qy_align_down(from, page)) / page);
		bool told = qy_os->page_entries((void *)qy_align_down(from, page), count, entry) == 0;

		for (size_t i = 0; i < count && from < to; i++) {
			uintptr_t end = qy_min(qy_align_down(from, page) + page, to);
			bool there = (entry[i] & (PAGE_IS_THERE | PAGE_IS_SWAPPED)) != 0 && !(entry[i] & PAGE_IS_FILE);

			if (!told || there)
				each_word(r, from, end, fn);
			from = end;
		}
	}
}

static void each_word_of(struct qy_reach *r, const struct qy_thing *thing, on_thing *fn)
{
	uintptr_t from = (uintptr_t)qy_window_at(thing->offset);
	const struct qy_region *region;

	if (thing->bytes >= PAGES_FROM) {
		region = qy_region_of_frame(qy_frame_at((uint32_t)(thing->offset >> QY_FRAME_SHIFT)));
		if (region != NULL && !qy_region_is_file(region)) {
			each_page_that_is_there(r, from, from + thing->bytes, fn);
			return;
		}
	}
	each_word(r, from, from + qy_align_down(thing->bytes, sizeof(uint64_t)), fn);
}

static void drain(struct qy_reach *r, on_thing *fn)
{
	while (r->depth > 0) {
		struct qy_thing thing = r->stack[--r->depth];

		each_word_of(r, &thing, fn);
	}
}

/* ---- the calls ---- */

void qy_reach_from(struct qy_reach *r, const void *from, size_t bytes)
{
	uintptr_t at = qy_align_up((uintptr_t)from, sizeof(uint64_t));

	each_page_that_is_there(r, at, qy_align_down((uintptr_t)from + bytes, sizeof(uint64_t)), push);
	drain(r, push);
}

void qy_reach_from_words(struct qy_reach *r, const uint64_t *words, size_t count)
{
	each_word(r, (uintptr_t)words, (uintptr_t)(words + count), push);
	drain(r, push);
}

void qy_reach_thing(struct qy_reach *r, const struct qy_thing *thing)
{
	push(r, thing);
	drain(r, push);
}

static uint64_t pointing_from; /* (There is one thread in a copy.) */

static void note_target(struct qy_reach *r, const struct qy_thing *thing)
{
	uint64_t grain = thing->offset / QY_SNAP_GRAIN;

	if (thing->offset != pointing_from && !qy_reached(r, thing->offset))
		r->pointed[grain / 64] |= UINT64_C(1) << grain % 64;
}

void qy_reach_note_targets(struct qy_reach *r, const struct qy_thing *thing)
{
	pointing_from = thing->offset;
	each_word_of(r, thing, note_target);
}

bool qy_reach_is_target(const struct qy_reach *r, uint64_t offset)
{
	uint64_t grain = offset / QY_SNAP_GRAIN;

	return r->pointed[grain / 64] >> grain % 64 & 1;
}

static void sweep(struct qy_reach *r, const struct qy_thing *thing)
{
	uint64_t grain = thing->offset / QY_SNAP_GRAIN;

	if (qy_reached(r, thing->offset) || !qy_reach_is_target(r, thing->offset))
		return;
	r->pointed[grain / 64] &= ~(UINT64_C(1) << grain % 64);
	r->stack[r->depth++] = *thing;
}

void qy_reach_sweep(struct qy_reach *r, const struct qy_thing *thing)
{
	sweep(r, thing);
	drain(r, sweep);
	r->stack[r->room - ++r->kept] = *thing;
}

bool qy_reach_kept(struct qy_reach *r, struct qy_thing *thing)
{
	if (r->kept == 0)
		return false;
	*thing = r->stack[r->room - r->kept--];
	return true;
}

static void *map(size_t bytes)
{
	void *p = qy_os->mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

bool qy_reach_begin(struct qy_reach *r, struct quarry_view *v)
{
	/* (What is kept is pushed once more when it is told of.) */
	size_t most = 2 * (v->report.objects + v->report.blocks + 1);

	*r = (struct qy_reach){ .view = v, .room = most };
	r->mapped_stack = qy_align_up(most * sizeof(r->stack[0]), QY_PAGE);
	r->mapped_pointed = qy_align_up(v->snapshot.bytes / QY_SNAP_GRAIN / 8, QY_PAGE);
	r->stack = map(r->mapped_stack);
	r->pointed = map(r->mapped_pointed);
	r->entries = map(PAGES_AT_ONCE * sizeof(r->entries[0]));
	if (r->stack == NULL || r->pointed == NULL || r->entries == NULL) {
		qy_reach_end(r);
		return false;
	}
	for (size_t i = 0; i < v->block_count; i++)
		set_mark(r, v->snapshot.blocks[i].offset, QY_SNAP_SAME);
	return true;
}

void qy_reach_end(struct qy_reach *r)
{
	if (r->stack != NULL)
		qy_os->munmap(r->stack, r->mapped_stack);
	if (r->pointed != NULL)
		qy_os->munmap(r->pointed, r->mapped_pointed);
	if (r->entries != NULL)
		qy_os->munmap(r->entries, PAGES_AT_ONCE * sizeof(r->entries[0]));
}
