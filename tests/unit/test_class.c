/* SPDX-License-Identifier: MIT */
/* Size classes: their spacing, the three ways to a class, and the division that tells an object's start. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>

#include "lib/manager/class.h"
#include "lib/manager/slab.h"
#include "numa/window.h"
#include "numa/os.h"
#include "tests/unit/model.h"

#define UNITS_MAX 4
#define SLAB_MAX (UNITS_MAX * QY_UNIT)

Test(class, sizes_rise_in_steps_of_16_then_of_an_eighth)
{
	uint32_t before = 0;

	for (unsigned c = 0; c < QY_CLASSES; c++) {
		uint32_t size = qy_classes[c].size, step = size - before;

		model_must(size > before, "class %u", c);
		model_must(size % 16 == 0, "class %u: %u", c, size);
		if (size <= 128)
			model_must(step == 16, "class %u: %u", c, size);
		else
			model_must((uint64_t)step * 8 <= before, "class %u: %u after %u", c, size, before);
		before = size;
	}
	cr_assert_eq(before, QY_CLASS_MAX);
}

/* The plain model: the first class that is large enough. */
Test(class, every_size_has_the_smallest_class_that_holds_it)
{
	unsigned c = 0;

	for (size_t n = 0; n <= QY_CLASS_MAX; n++) {
		while (qy_classes[c].size < n)
			c++;
		model_must(qy_class_of(n) == c, "%zu: class %u, not %u", n, c, qy_class_of(n));
		if (n <= QY_TABLE_MAX)
			model_must(qy_class_table[(n + 15) / 16] == c, "%zu: class %u in the table, not %u", n, c,
				   qy_class_table[(n + 15) / 16]);
	}
	cr_assert_eq(c, QY_CLASSES - 1);
}

Test(class, slabs_hold_what_they_say_and_waste_little)
{
	for (unsigned c = 0; c < QY_CLASSES; c++) {
		const struct qy_class *k = &qy_classes[c];
		size_t bytes = k->units * QY_UNIT;

		model_must(k->units >= 1 && k->units <= UNITS_MAX, "class %u", c);
		model_must(k->capacity == bytes / k->size, "class %u", c);
		model_must(k->capacity >= 8, "class %u: a slab of %u objects", c, k->capacity);
		model_must((bytes - (size_t)k->capacity * k->size) * 8 < bytes, "class %u wastes an eighth", c);
		/* Carving links the objects of a page at most, and always one. */
		model_must(k->carve >= 1 && k->carve <= k->capacity, "class %u", c);
		model_must(k->carve == 1 || k->carve * k->size <= QY_CARVE, "class %u", c);
	}
}

/* offset * magic >> 40 is offset / size for every offset in a slab, so the start of an object is told from all else. */
Test(class, the_magic_division_is_exact)
{
	for (unsigned c = 0; c < QY_CLASSES; c++) {
		const struct qy_class *k = &qy_classes[c];
		uint64_t index = 0, in = 0;

		for (uint64_t offset = 0; offset < k->units * QY_UNIT; offset++) {
			bool starts = in == 0;

			model_must(offset * k->magic >> 40 == index, "class %u, offset %" PRIu64, c, offset);
			model_must(((offset * k->magic >> 40) * k->size == offset) == starts,
				   "class %u, offset %" PRIu64, c, offset);
			if (++in == k->size) {
				in = 0;
				index++;
			}
		}
	}
}

/* A size that is a multiple of a power of two gives objects aligned to it. */
Test(class, objects_are_aligned_as_their_size_is)
{
	for (unsigned c = 0; c < QY_CLASSES; c++) {
		const struct qy_class *k = &qy_classes[c];
		size_t align = k->size & -k->size;

		model_must(QY_UNIT % align == 0, "class %u", c);
		for (uint32_t i = 0; i < k->capacity; i++)
			model_must((size_t)i * k->size % align == 0, "class %u, object %u", c, i);
	}
	for (size_t align = 16; align <= QY_CLASS_MAX; align *= 2)
		cr_assert_eq(qy_classes[qy_class_of(align)].size, align);
}

/* qy_slab_of on a slab's record made by hand: every byte of it, and around it. */
Test(class, only_the_start_of_an_object_is_an_object)
{
	cr_assert_eq(qy_window_init(QY_ZONE), 0);
	cr_assert_not_null(qy_window_claim(1, 1, -1));
	for (unsigned c = 0; c < QY_CLASSES; c++) {
		const struct qy_class *k = &qy_classes[c];
		char *memory = qy_window_at(QY_FRAME);
		struct qy_slab *s = qy_slab_at(QY_FRAME);

		memset((void *)s, 0, 2 * UNITS_MAX * sizeof(*s));
		cr_assert_eq((char *)qy_slab_memory(s), memory);
		cr_assert_null(qy_slab_of(memory));
		s->kind = QY_SLAB_HEAD;
		s->cls = (uint8_t)c;
		for (uint32_t u = 1; u < k->units; u++) {
			s[u].kind = QY_SLAB_INNER;
			s[u].inner = (uint8_t)u;
		}
		for (size_t offset = 0; offset < SLAB_MAX; offset++) {
			bool object = offset % k->size == 0 && offset / k->size < k->capacity &&
				      offset < k->units * QY_UNIT;

			model_must(qy_slab_of(memory + offset) == (object ? s : NULL), "class %u, offset %zu", c,
				   offset);
		}
	}
	cr_assert_null(qy_slab_of(NULL));
	cr_assert_null(qy_slab_of(&qy_window));
	cr_assert_null(qy_slab_of((char *)qy_window_base - 16));
	cr_assert_null(qy_slab_of((char *)qy_window_base + qy_window_size));
}
