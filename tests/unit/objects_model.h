/* SPDX-License-Identifier: MIT */
/* Objects of the heap model with known contents, and what of the manager's memory has something live in it. To be
 * included once, by a test. */
#ifndef QUARRY_TESTS_OBJECTS_MODEL_H
#define QUARRY_TESTS_OBJECTS_MODEL_H

#include "tests/unit/heap_model.h"

#define OBJECTS 20000

static struct object {
	char *p;
	uint64_t mark;
	unsigned cls;
} objects[OBJECTS];
static uint32_t count;

static void write_object(struct object *o)
{
	uint64_t *words = (void *)o->p;

	o->mark = model_random();
	for (uint32_t w = 0; w < size_of_class(o->cls) / 8; w++)
		words[w] = o->mark;
}

static void check_object(const struct object *o)
{
	const uint64_t *words = (const void *)o->p;

	for (uint32_t w = 0; w < size_of_class(o->cls) / 8; w++)
		model_must(words[w] == o->mark, "word %u of %p", w, (void *)o->p);
}

static void check_objects(void)
{
	for (uint32_t i = 0; i < count; i++)
		check_object(&objects[i]);
}

/* So many slabs' worth of a class, in heap 0. */
static void fill(unsigned cls, uint32_t slabs)
{
	uint32_t n = slabs * qy_classes[cls].capacity;

	for (uint32_t i = 0; i < n && count < OBJECTS; i++) {
		objects[count] = (struct object){ .p = take(0, cls), .cls = cls };
		write_object(&objects[count++]);
	}
}

/* Of each hundred, so many stay. */
static void thin_out(uint32_t percent)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < count; i++) {
		if (model_below(100) < percent)
			objects[kept++] = objects[i];
		else
			give_back(0, objects[i].p, false);
	}
	count = kept;
}

static void abandon(unsigned i)
{
	flush(i);
	qy_heap_abandon(&heaps[i]);
	memset((void *)&heaps[i], 0, offsetof(struct qy_heap, remote));
	qy_heap_open(&heaps[i], m, (uintptr_t)&heaps[i]);
}

static size_t purge(void)
{
	uint64_t next;

	return qy_manager_purge(m, qy_os->now_ms(), 0, SIZE_MAX, &next);
}

/* The pages of the frames in use that hold a byte of a live object. */
static size_t live_pages(void)
{
	static uint8_t live[PLACES >> 8];
	size_t n = 0;

	memset(live, 0, sizeof(live));
	for (uint32_t i = 0; i < count; i++) {
		uintptr_t first = qy_window_offset(objects[i].p), last = first + size_of_class(objects[i].cls) - 1;

		for (uintptr_t page = first >> QY_PAGE_SHIFT; page <= last >> QY_PAGE_SHIFT; page++) {
			n += !live[page];
			live[page] = 1;
		}
	}
	return n;
}

static size_t resident(void)
{
	size_t n = 0;

	for (struct qy_region *r = m->regions; r != NULL; r = r->next)
		n += resident_pages(qy_region_addr(r), (size_t)r->frames * QY_FRAME_PAGES);
	return n;
}

#endif
