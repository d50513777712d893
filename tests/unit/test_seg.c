/* SPDX-License-Identifier: MIT */
/* Segments: parts, comparing, casts, and copies that stay inside. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tests/unit/blocks.h"

static char text[] = "0123456789abcdef";

Test(seg, parts)
{
	quarry_seg s = quarry_seg_make(text, 16), a = { NULL, 0 }, b = { NULL, 0 };

	cr_assert(s.p == text && s.n == 16 && quarry_seg_end(s) == text + 16);
	cr_assert_eq(quarry_seg_slice(s, 4, 8, &a), 0);
	cr_assert(a.p == text + 4 && a.n == 8);
	cr_assert_eq(quarry_seg_slice(s, 16, 0, &b), 0);
	cr_assert(b.p == text + 16 && b.n == 0);
	refused(quarry_seg_slice(s, 16, 1, &a), ERANGE);
	refused(quarry_seg_slice(s, 17, 0, &a), ERANGE);
	refused(quarry_seg_slice(s, 1, SIZE_MAX, &a), ERANGE);
	refused(quarry_seg_slice(s, SIZE_MAX, 2, &a), ERANGE);
	cr_assert(a.p == text + 4 && a.n == 8, "an error leaves it");
	cr_assert_eq(quarry_seg_split(s, 6, &a, &b), 0);
	cr_assert(a.p == text && a.n == 6 && b.p == text + 6 && b.n == 10);
	cr_assert_eq(quarry_seg_split(s, 16, NULL, &b), 0);
	cr_assert_eq(b.n, 0);
	refused(quarry_seg_split(s, 17, &a, &b), ERANGE);
	s = quarry_seg_make(NULL, 3);
	cr_assert(s.p == NULL && s.n == 0);
	s = quarry_seg_make(text, SIZE_MAX);
	cr_assert(s.p == NULL && s.n == 0);
}

Test(seg, compared_and_contained)
{
	char other[] = "0123456789abcdeX";
	quarry_seg s = quarry_seg_make(text, 16), same = quarry_seg_make(other, 15), o = quarry_seg_make(other, 16);

	cr_assert_gt(quarry_seg_compare(s, same), 0, "longer is greater");
	cr_assert_lt(quarry_seg_compare(same, s), 0);
	cr_assert_gt(quarry_seg_compare(s, o), 0);
	o.n = s.n = 15;
	cr_assert_eq(quarry_seg_compare(s, o), 0);
	s.n = 16;
	cr_assert_eq(quarry_seg_contains(s, text, 16), 1);
	cr_assert_eq(quarry_seg_contains(s, text + 16, 0), 1);
	cr_assert_eq(quarry_seg_contains(s, text + 15, 2), 0);
	cr_assert_eq(quarry_seg_contains(quarry_seg_make(text + 1, 15), text, 1), 0);
	cr_assert_eq(quarry_seg_contains(s, text + 1, SIZE_MAX), 0);
}

Test(seg, as_arrays)
{
	_Alignas(8) char memory[40];
	quarry_seg s = quarry_seg_make(memory, 39);
	size_t n = 0;
	uint64_t *p = QUARRY_SEG_AS(uint64_t, s, &n);

	cr_assert(p == (void *)memory && n == 4);
	s.p = memory + 4;
	errno = 0;
	cr_assert_null(QUARRY_SEG_AS(uint64_t, s, &n));
	cr_assert_eq(errno, EINVAL);
	cr_assert_not_null(QUARRY_SEG_AS(uint32_t, s, &n));
	cr_assert_null(quarry_seg_cast(s, 0, 1, &n));
	cr_assert_null(quarry_seg_cast(s, 4, 3, &n));
}

/* Every offset and length of a short segment, against guards on both sides. */
Test(seg, copies_stay_inside)
{
	char src[24], memory[32];

	memset(src, 's', sizeof src);
	for (size_t at = 0; at < 12; at++)
		for (size_t n = 0; n < 12; n++) {
			quarry_seg s = quarry_seg_make(memory + 8, 8);
			size_t copied = 0;
			int r;

			memset(memory, '.', sizeof memory);
			errno = 0;
			r = quarry_copy_in(s, at, src, n);
			cr_assert_eq(r, at + n <= 8 ? 0 : -1, "%zu from %zu", n, at);
			cr_assert_eq(errno, r == 0 ? 0 : ERANGE);
			for (size_t i = 0; i < sizeof memory; i++)
				copied += memory[i] == 's';
			cr_assert_eq(copied, r == 0 ? n : 0);
			cr_assert(r != 0 || n == 0 || memory[8 + at] == 's');
			memset(memory + 8, 's', 8);
			memset(src, '.', sizeof src);
			r = quarry_copy_out(s, at, src + 4, n);
			cr_assert_eq(r, at + n <= 8 ? 0 : -1);
			for (size_t i = 0; i < sizeof src; i++)
				cr_assert_eq(src[i], r == 0 && i >= 4 && i < 4 + n ? 's' : '.');
			memset(src, 's', sizeof src);
		}
	refused(quarry_copy_in(quarry_seg_make(memory, 8), 2, src, SIZE_MAX), ERANGE);
	refused(quarry_copy_in(quarry_seg_make(memory, 8), 2, NULL, 1), EINVAL);
	refused(quarry_copy_out(quarry_seg_make(memory, 8), 2, NULL, 1), EINVAL);
	cr_assert_eq(quarry_copy_in(quarry_seg_make(memory, 8), 8, NULL, 0), 0);
}

Test(seg, of_segments_that_overlap)
{
	char memory[] = "abcdefgh";

	cr_assert_eq(quarry_copy_seg(quarry_seg_make(memory + 2, 6), quarry_seg_make(memory, 6)), 0);
	cr_assert_str_eq(memory, "ababcdef");
	refused(quarry_copy_seg(quarry_seg_make(memory, 3), quarry_seg_make(memory, 4)), ERANGE);
}

Test(seg, in_the_heap)
{
	char *p = quarry_malloc(1000);
	int local = 0;

	cr_assert_eq(quarry_seg_in_heap(quarry_seg_make(p, 1000)), 1);
	cr_assert_eq(quarry_seg_in_heap(quarry_seg_make(p + 500, 500)), 1);
	cr_assert_eq(quarry_seg_in_heap(quarry_seg_make(p + 500, 5000)), 0);
	cr_assert_eq(quarry_seg_in_heap(quarry_seg_make(&local, 4)), 0);
	cr_assert_eq(quarry_seg_in_heap(quarry_seg_make(NULL, 0)), 0);
	quarry_free(p);
	cr_assert_eq(quarry_seg_in_heap(quarry_seg_make(p, 1000)), 0);
}

/* A part is a segment, and no block. */
Test(seg, only_a_beginning_is_a_block)
{
	quarry_block b = quarry_block_alloc(NULL, 1000), c;
	quarry_seg s = quarry_block_seg(&b), first, second;
	void *plain = quarry_malloc(1000);
	size_t usable = quarry_usable_size(b.p);

	cr_assert(s.p == b.p && s.n == 1000);
	cr_assert_eq(quarry_seg_split(s, 512, &first, &second), 0);
	cr_assert_eq(quarry_block_from_seg(s, &c), 0);
	cr_assert(c.p == b.p && c.n == usable && c.count == b.count && c.generation == b.generation);
	cr_assert_eq(quarry_refcount(b.p), 1);
	cr_assert_eq(quarry_block_from_seg(first, &c), 0);
	cr_assert_eq(c.n, usable, "the block is whole, whatever it was found by");
	cr_assert_eq(quarry_block_from_seg(quarry_seg_make(b.p, 0), &c), 0);
	cr_assert_eq(c.n, usable);
	refused(quarry_block_from_seg(second, &c), EINVAL);
	refused(quarry_block_from_seg(quarry_seg_make((char *)b.p + 3, 4), &c), EINVAL);
	refused(quarry_block_from_seg(quarry_seg_make(b.p, 1 << 20), &c), EINVAL);
	refused(quarry_block_from_seg(quarry_seg_make(plain, 10), &c), EINVAL);
	refused(quarry_block_from_seg(quarry_seg_make(&c, sizeof c), &c), EINVAL);
	quarry_unref(b.p);
	refused(quarry_block_from_seg(s, &c), ESTALE);
	quarry_free(plain);
}

static void all_are(const quarry_block *b, size_t from, size_t to, int value)
{
	for (size_t i = from; i < to; i++)
		cr_assert_eq(((unsigned char *)b->p)[i], value, "byte %zu of %zu", i, b->n);
}

/* What is new is zero, and what was in use is not cleared: whatever handle, of whatever moment, it is resized by. */
Test(seg, zeroes_come_behind_what_is_in_use)
{
	const unsigned how[] = { QUARRY_RESIZE_ZERO, QUARRY_RESIZE_ZERO | QUARRY_RESIZE_IN_PLACE };

	for (unsigned i = 0; i < COUNT(how); i++)
		for (size_t n = 100; n < 300 * KIB; n = n * 5 / 2) {
			quarry_block b = quarry_block_alloc(NULL, n), c, old;
			size_t usable = quarry_usable_size(b.p);
			quarry_weak w;

			memset(b.p, 7, n);
			cr_assert_eq(quarry_block_from_seg(quarry_seg_make(b.p, 10), &c), 0);
			cr_assert_eq(quarry_block_resize(&c, usable, how[i]), 0);
			all_are(&c, 0, n, 7);
			memset(c.p, 7, usable);
			/* A handle and a weak reference that know of less than is in use. */
			cr_assert_eq(quarry_block_resize(&c, usable - usable / 3, how[i]), 0);
			w = quarry_weak_of(&c);
			old = c;
			cr_assert_eq(quarry_block_resize(&c, usable, how[i]), 0);
			all_are(&c, 0, usable - usable / 3, 7);
			all_are(&c, usable - usable / 3, usable, 0);
			memset(c.p, 7, usable);
			refused(quarry_block_resize(&old, usable, how[i]), ESTALE);
			refused(quarry_weak_lock(w, &old), ESTALE);
			all_are(&c, 0, usable, 7);
			if (!(how[i] & QUARRY_RESIZE_IN_PLACE)) {
				cr_assert_eq(quarry_block_resize(&c, 3 * usable, how[i]), 0);
				all_are(&c, 0, usable, 7);
				all_are(&c, usable, 3 * usable, 0);
			}
			cr_assert_eq(quarry_refcount(c.p), 1);
			cr_assert_eq(quarry_block_unref(&c), 1);
		}
}
