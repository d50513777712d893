/* SPDX-License-Identifier: MIT */
/* Stacks: against a plain model, at their limits, as managers, and one for each thread. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "include/quarry/stack.h"
#include "tests/unit/blocks.h"

static volatile size_t far_too_much = SIZE_MAX; /* (compilers refuse it where they see it) */

static quarry_stack_stats stats_of(const quarry_stack *s)
{
	quarry_stack_stats stats;

	cr_assert_eq(quarry_stack_stats_get(s, &stats), 0);
	return stats;
}

static uint64_t in_use(void)
{
	quarry_stats stats = { .version = QUARRY_STATS_VERSION };

	quarry_thread_flush();
	cr_assert_eq(quarry_stats_get(NULL, &stats), 0);
	return stats.in_use;
}

/* What is taken stays as it was written until its mark goes; whatever the sizes. */
Test(stack, model)
{
	enum { DEEP = 400, STEPS = 40000 };
	static struct {
		unsigned char *p;
		size_t n;
		unsigned char value;
		quarry_mark before;
	} o[DEEP];
	quarry_stack_attr attr = { .flags = QUARRY_STACK_SPILL, .chunk = 4 * KIB };
	quarry_stack *s = quarry_stack_create(&attr);
	unsigned top = 0;

	model_start("stack: model");
	for (unsigned step = 0; step < STEPS; step++) {
		if (top < DEEP && model_random() % 100 < 52) {
			size_t alignment = (size_t)1 << model_random() % 9;

			o[top].n = model_random() % 30 == 0 ? model_random() % (20 * KIB) : model_random() % 400;
			o[top].before = quarry_stack_mark(s);
			o[top].p = quarry_stack_alloc_aligned(s, alignment, o[top].n);
			cr_assert(o[top].p != NULL && (uintptr_t)o[top].p % alignment == 0);
			memset(o[top].p, o[top].value = (unsigned char)model_random(), o[top].n);
			top++;
		} else if (top > 0) {
			unsigned to = model_random() % 50 == 0 ? 0 : top - 1 - (unsigned)(model_random() % (top < 5 ? top : 5));

			for (unsigned i = to; i < top; i++)
				for (size_t k = 0; k < o[i].n; k++)
					cr_assert_eq(o[i].p[k], o[i].value, "%u of %u, byte %zu of %zu", i, top, k, o[i].n);
			cr_assert_eq(quarry_stack_release(s, o[to].before), 0);
			if (to + 1 < top)
				refused(quarry_stack_release(s, o[to + 1].before), EINVAL);
			top = to;
		}
		if (step % 1000 == 0)
			cr_assert_geq(stats_of(s).held, stats_of(s).used);
	}
	quarry_stack_reset(s);
	cr_assert_eq(stats_of(s).used, 0);
	quarry_stack_destroy(s);
}

/* Once warm it takes nothing from its manager, and gives nothing back. */
Test(stack, reset_keeps_the_memory)
{
	quarry_stack *s = quarry_stack_create(NULL);
	quarry_stack_stats warm;
	uint64_t used;

	for (unsigned i = 0; i < 500; i++)
		cr_assert_not_null(quarry_stack_alloc(s, KIB));
	warm = stats_of(s);
	used = in_use();
	cr_assert_geq(warm.held, 500 * KIB);
	cr_assert_gt(warm.chunks, 5);
	for (unsigned round = 0; round < 20; round++) {
		quarry_stack_reset(s);
		for (unsigned i = 0; i < 500; i++)
			cr_assert_not_null(quarry_stack_alloc(s, KIB));
	}
	cr_assert(stats_of(s).held == warm.held && stats_of(s).spills == warm.spills && stats_of(s).chunks == warm.chunks);
	cr_assert_eq(in_use(), used);
	quarry_stack_reset(s);
	cr_assert_eq(quarry_stack_trim(s), warm.held - 64 * KIB);
	cr_assert(stats_of(s).held == 64 * KIB && stats_of(s).chunks == 1);
	quarry_stack_destroy(s);
	cr_assert_lt(in_use(), used);
}

Test(stack, full_without_spilling)
{
	quarry_stack_attr attr = { .struct_size = sizeof attr, .chunk = KIB };
	quarry_stack *s = quarry_stack_create(&attr);
	quarry_mark m = quarry_stack_mark(s);
	size_t n = 0;

	errno = 0;
	while (quarry_stack_alloc(s, 64) != NULL)
		n += 64;
	cr_assert_eq(errno, ENOMEM);
	cr_assert(n >= 832 && n <= KIB, "%zu", n);
	cr_assert_null(quarry_stack_alloc(s, far_too_much));
	cr_assert_eq(errno, ENOMEM);
	cr_assert_null(quarry_stack_alloc_aligned(s, (size_t)1 << 40, far_too_much - 100));
	cr_assert_eq(stats_of(s).chunks, 1);
	cr_assert_eq(quarry_stack_release(s, m), 0);
	cr_assert_not_null(quarry_stack_alloc(s, n));
	quarry_stack_destroy(s);
}

Test(stack, a_limit_is_kept)
{
	quarry_stack_attr attr = { .flags = QUARRY_STACK_SPILL, .chunk = 4 * KIB, .limit = 10 * KIB };
	quarry_stack *s = quarry_stack_create(&attr);
	size_t n = 0;

	errno = 0;
	while (quarry_stack_alloc(s, 512) != NULL)
		n += 512;
	cr_assert_eq(errno, ENOMEM);
	cr_assert_not_null(strstr(quarry_error_text(), "limit"));
	cr_assert(n >= 7 * KIB && stats_of(s).held <= 10 * KIB, "%zu in %zu", n, stats_of(s).held);
	cr_assert_null(quarry_stack_alloc(s, MIB));
	quarry_stack_reset(s);
	cr_assert_not_null(quarry_stack_alloc(s, 5 * KIB), "chunks that are too short make room");
	cr_assert_leq(stats_of(s).held, 10 * KIB);
	quarry_stack_destroy(s);
}

/* And not one for each that is taken, of just its size. */
Test(stack, the_last_chunk_has_all_that_a_limit_leaves)
{
	quarry_stack_attr attr = { .flags = QUARRY_STACK_SPILL, .chunk = 4 * KIB, .limit = 10000 };
	quarry_stack *s = quarry_stack_create(&attr);
	size_t n = 0;

	while (quarry_stack_alloc(s, 100) != NULL)
		n++;
	cr_assert_eq(stats_of(s).chunks, 3, "%zu chunks", stats_of(s).chunks);
	cr_assert_eq(stats_of(s).spills, 2, "%zu spills", stats_of(s).spills);
	cr_assert_leq(stats_of(s).held, 10000);
	cr_assert_geq(n, 9000 / 112, "%zu", n);
	quarry_stack_destroy(s);
}

Test(stack, bad_attributes_are_named)
{
	static const struct {
		quarry_stack_attr attr;
		const char *word;
	} bad[] = {
		{ { .struct_size = 3 }, "struct_size" },
		{ { .flags = 8 }, "flags" },
		{ { .chunk = 10 }, "chunk" },
		{ { .chunk = SIZE_MAX }, "chunk" },
		{ { .limit = 100 }, "limit" },
	};
	quarry_manager none = { NULL, NULL };
	quarry_stack_attr attr = { .manager = &none };

	for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
		errno = 0;
		cr_assert(quarry_stack_create(&bad[i].attr) == NULL && errno == EINVAL, "%s", bad[i].word);
		cr_assert_not_null(strstr(quarry_error_text(), bad[i].word), "%s", quarry_error_text());
	}
	cr_assert(quarry_stack_create(&attr) == NULL && errno == EINVAL);
	refused(quarry_stack_stats_get(NULL, NULL), EINVAL);
	refused(quarry_stack_release(NULL, quarry_stack_mark(NULL)), EINVAL);
	cr_assert(quarry_stack_alloc(NULL, 1) == NULL && errno == EINVAL);
	cr_assert(quarry_stack_manager(NULL) == NULL && quarry_stack_trim(NULL) == 0);
	quarry_stack_reset(NULL);
	quarry_stack_destroy(NULL);
}

Test(stack, marks_that_are_none)
{
	quarry_stack *s = quarry_stack_create(NULL), *other = quarry_stack_create(NULL);
	quarry_mark first = quarry_stack_mark(s), second, far;

	cr_assert_not_null(quarry_stack_alloc(s, 100));
	second = quarry_stack_mark(s);
	cr_assert_not_null(quarry_stack_alloc(s, 200 * KIB));
	far = quarry_stack_mark(s);
	refused(quarry_stack_release(other, first), EINVAL);
	cr_assert_eq(quarry_stack_release(s, second), 0);
	refused(quarry_stack_release(s, far), EINVAL);
	refused(quarry_stack_release(s, second), EINVAL);
	cr_assert_eq(quarry_stack_release(s, first), 0);
	cr_assert_null(quarry_stack_alloc_aligned(s, 3, 10));
	cr_assert_eq(errno, EINVAL);
	quarry_stack_destroy(s);
	quarry_stack_destroy(other);
}

/* Its memory is its manager's. */
Test(stack, in_an_arena)
{
	quarry_arena *arena = quarry_arena_create(NULL);
	quarry_stack_attr attr = { .flags = QUARRY_STACK_SPILL, .manager = quarry_manager_of_arena(arena) };
	quarry_stack *s = quarry_stack_create(&attr);
	void *p = quarry_stack_alloc(s, 300 * KIB);

	cr_assert_eq(quarry_seg_in_heap(quarry_seg_make(p, 300 * KIB)), 1);
	cr_assert_gt(quarry_arena_where(arena, NULL, 0), -1);
	quarry_stack_destroy(s);
	cr_assert_eq(quarry_arena_destroy(arena), 0);
}

Test(stack, the_last_one_is_resized_and_freed_where_it_is)
{
	quarry_stack *s = quarry_stack_create(NULL);
	quarry_manager *m = quarry_stack_manager(s);
	char *a = quarry_manager_alloc(m, 100), *b = quarry_manager_alloc(m, 100), *c;
	size_t used = stats_of(s).used;

	cr_assert_eq(quarry_manager_resize(m, b, 1000), b);
	cr_assert_eq(stats_of(s).used, used + 1008 - 112);
	c = quarry_manager_resize(m, a, 500);
	cr_assert(c != NULL && c != a && c > b);
	cr_assert_eq(quarry_manager_free(m, c), 0);
	cr_assert_eq(quarry_manager_free(m, b), 0);
	cr_assert_eq(stats_of(s).used, used - 128);
	cr_assert_eq(quarry_manager_alloc(m, 100), b, "it is taken again");
	cr_assert_eq(quarry_manager_destroy(m), 0);
}

/* ---- one for each thread ---- */

static void *use_scratch(void *other)
{
	quarry_stack *mine = quarry_scratch();

	cr_assert(mine != NULL && mine != other && quarry_scratch() == mine);
	for (unsigned i = 0; i < 100; i++) {
		QUARRY_AUTO(quarry_frame) f = quarry_frame_begin(NULL);

		cr_assert_eq(f.stack, mine);
		memset(quarry_stack_alloc(f.stack, 10 * KIB), 1, 10 * KIB);
	}
	cr_assert_eq(stats_of(mine).used, 0);
	return NULL;
}

Test(stack, scratch_ends_with_its_thread)
{
	quarry_stack *mine = quarry_scratch();
	uint64_t used = 0;

	for (unsigned i = 0; i < 50; i++) {
		pthread_t thread;

		cr_assert_eq(pthread_create(&thread, NULL, use_scratch, mine), 0);
		cr_assert_eq(pthread_join(thread, NULL), 0);
		if (i == 4)
			used = in_use();
	}
	cr_assert_lt(in_use(), used + 20 * 64 * KIB, "stacks of threads that ended are left");
}

Test(stack, frames_nest)
{
	quarry_stack *s = quarry_stack_create(NULL);
	quarry_frame outer = quarry_frame_begin(s), inner;
	char *p = quarry_stack_alloc(s, 10), *q;

	inner = quarry_frame_begin(s);
	q = quarry_stack_alloc(s, 10);
	quarry_frame_end(&inner);
	cr_assert_eq(quarry_stack_alloc(s, 10), q);
	cr_assert_null(inner.stack);
	quarry_frame_end(&inner);
	quarry_frame_end(&outer);
	cr_assert_eq(quarry_stack_alloc(s, 10), p);
	quarry_frame_end(NULL);
	errno = 0;
	cr_expect(quarry_stack_trim(NULL) == 0 && errno == EINVAL);
	{
		QUARRY_AUTO_PTR(quarry_stack) t = quarry_stack_create(NULL);

		cr_assert_not_null(quarry_stack_alloc(t, 10));
	}
	quarry_stack_destroy(s);
	/* (Nobody has its memory since.) */
	errno = 0;
	inner = quarry_frame_begin(s);
	cr_expect(inner.stack == NULL && errno == EINVAL);
	errno = 0;
	cr_expect(quarry_stack_alloc(inner.stack, 10) == NULL && errno == EINVAL);
	quarry_frame_end(&inner);
}

Test(stack, checked_fills_what_went)
{
	quarry_stack *s = quarry_stack_create(NULL);
	quarry_mark m = quarry_stack_mark(s);
	volatile unsigned char *p = quarry_stack_alloc(s, 1000), *q; /* (compilers know of nobody else who writes there) */

	cr_assert_eq(quarry_ctl_set("checked", "1"), 0);
	q = quarry_stack_alloc(s, 100 * KIB);
	memset((void *)(uintptr_t)p, 1, 1000);
	memset((void *)(uintptr_t)q, 1, 100 * KIB);
	cr_assert_eq(quarry_stack_release(s, m), 0);
	for (unsigned i = 0; i < 1000; i++)
		cr_assert_eq(p[i], 0xde);
	for (unsigned i = 0; i < 100 * KIB; i++)
		cr_assert_eq(q[i], 0xde);
	quarry_stack_destroy(s);
}

/* What was taken before a mark stays as it is until the mark goes: freed or grown, it would move the mark's place. */
Test(stack, what_a_mark_is_above_stays)
{
	quarry_stack *s = quarry_stack_create(NULL);
	quarry_manager *m = quarry_stack_manager(s);
	char *p = quarry_manager_alloc(m, 100), *q;
	quarry_frame outer = quarry_frame_begin(s), inner = quarry_frame_begin(s);

	q = quarry_manager_resize(m, p, 200);
	cr_assert(q != NULL && q != p);
	cr_assert_eq(quarry_manager_free(m, q), 0);
	quarry_frame_end(&inner);
	p = quarry_manager_alloc(m, 100);
	inner = quarry_frame_begin(s);
	cr_assert_eq(quarry_manager_free(m, p), 0);
	cr_assert_not_null(quarry_stack_alloc(s, 8));
	cr_assert_eq(quarry_stack_release(s, inner.mark), 0, "%s", quarry_error_text());
	p = quarry_manager_alloc(m, 100);
	cr_assert_eq(quarry_manager_resize(m, p, 200), p, "no mark is above it");
	quarry_frame_end(&outer);
	for (unsigned i = 0; i < 1000; i++) {
		quarry_frame around = quarry_frame_begin(s), f;

		p = quarry_manager_alloc(m, 100);
		f = quarry_frame_begin(s);
		cr_assert_eq(quarry_manager_free(m, p), 0);
		cr_assert_not_null(quarry_stack_alloc(s, 40));
		quarry_frame_end(&f);
		quarry_frame_end(&around);
	}
	cr_assert_leq(stats_of(s).used, 128);
	quarry_stack_destroy(s);
}

/* Whatever the program writes into its memory, no address inside it is a beginning; nor is what was freed. */
Test(stack, only_beginnings_are_its_own)
{
	quarry_stack *s = quarry_stack_create(NULL);
	quarry_manager *m = quarry_stack_manager(s);
	char *p = quarry_manager_alloc(m, 1000);

	for (unsigned i = 0; i < 2; i++) {
		for (size_t at = 16; at + 16 <= 1000; at += 16) {
			size_t words[2] = { 1000 - at, 0 };

			if (i == 0)
				memcpy(p + at - 16, words, sizeof words);
			else
				memcpy(p + at - 16, p - 16, 16);
		}
		for (size_t at = 1; at < 1000; at++) {
			cr_assert_eq(quarry_manager_owns(m, p + at), 0);
			cr_assert_eq(quarry_manager_usable(m, p + at), 0);
			refused(quarry_manager_free(m, p + at), EINVAL);
			cr_assert_null(quarry_manager_resize(m, p + at, 2000));
		}
	}
	cr_assert_eq(quarry_manager_owns(m, p), 1);
	cr_assert_not_null(quarry_manager_alloc(m, 10));
	cr_assert_eq(quarry_manager_free(m, p), 0);
	cr_assert_eq(quarry_manager_owns(m, p), 0);
	refused(quarry_manager_free(m, p), EINVAL);
	quarry_stack_destroy(s);
}

Test(stack, in_another_stack_all_goes_back)
{
	quarry_stack *s = quarry_stack_create(NULL);
	quarry_stack_attr attr = { .flags = QUARRY_STACK_SPILL, .chunk = 512, .manager = quarry_stack_manager(s) };

	for (unsigned i = 0; i < 100; i++) {
		quarry_stack *t = quarry_stack_create(&attr);

		for (unsigned k = 0; k < 10; k++)
			cr_assert_not_null(quarry_stack_alloc(t, 200));
		quarry_stack_destroy(t);
		cr_assert_eq(stats_of(s).used, 0);
	}
	quarry_stack_destroy(s);
}

Test(stack, scratch_is_not_ended_by_hand)
{
	quarry_stack *s = quarry_scratch();

	cr_assert_not_null(quarry_stack_alloc(s, 100));
	quarry_stack_destroy(s);
	cr_assert_eq(stats_of(s).used, 0);
	refused(quarry_manager_destroy(quarry_stack_manager(s)), EPERM);
	cr_assert_eq(quarry_scratch(), s);
	cr_assert_not_null(quarry_stack_alloc(s, 100));
}

/* What cannot be had changes nothing; and what the manager says is the most can be had. */
Test(stack, limits_are_told_as_they_are)
{
	static const size_t limits[] = { 4 * KIB, 5 * KIB, 10 * KIB, 100 * KIB };

	for (unsigned i = 0; i < 4; i++) {
		quarry_stack_attr attr = { .flags = QUARRY_STACK_SPILL, .chunk = 4 * KIB, .limit = limits[i] };
		quarry_stack *s = quarry_stack_create(&attr);
		quarry_manager *m = quarry_stack_manager(s);
		size_t most = quarry_manager_max_alloc(m) / 16 * 16, held;

		cr_assert_null(quarry_manager_alloc(m, most + 16), "%zu", limits[i]);
		cr_assert_not_null(quarry_manager_alloc(m, most), "%zu: %zu", limits[i], most);
		quarry_stack_reset(s);
		held = stats_of(s).held;
		cr_assert_null(quarry_stack_alloc(s, limits[i]));
		cr_assert_null(quarry_stack_alloc(s, SIZE_MAX / 2));
		cr_assert_eq(stats_of(s).held, held, "what was kept is kept");
		quarry_stack_destroy(s);
	}
}

/* Stacks that come and go leave no words of counts behind for each. */
Test(stack, blocks_of_many_share_their_words)
{
	quarry_stats was = { .version = QUARRY_STATS_VERSION }, now = was;
	enum { MANY = 300 };
	quarry_stack *s[MANY];

	for (unsigned round = 0; round < 6; round++) {
		if (round == 1)
			quarry_stats_get(NULL, &was);
		for (unsigned i = 0; i < MANY; i++) {
			quarry_stack_attr attr = { .chunk = 1024 + round % 3 * 16 };
			quarry_block b;

			s[i] = quarry_stack_create(&attr);
			b = quarry_block_alloc(quarry_stack_manager(s[i]), 32);
			cr_assert_eq(quarry_block_resize(&b, 100, 0), 0);
			cr_assert_eq(quarry_block_unref(&b), 1);
			cr_assert_eq(stats_of(s[i]).used, 0, "it went to its stack");
		}
		for (unsigned i = 0; i < MANY; i++)
			quarry_stack_destroy(s[(i * 7 + round) % MANY]);
	}
	quarry_stats_get(NULL, &now);
	cr_assert_lt(now.metadata - was.metadata, 4 * MIB);
}

/* ---- stacks in each other's blocks ---- */

static char *inner_at;

static void *inner_alloc(void *end, size_t size)
{
	size_t *p = (void *)inner_at;

	size = (size + 15) & ~(size_t)15;
	if (size + 16 > (size_t)((char *)end - inner_at)) {
		errno = ENOMEM;
		return NULL;
	}
	inner_at += size + 16;
	*p = size;
	return p + 2;
}

static int inner_free(void *end, void *p)
{
	(void)end;
	(void)p;
	return 0;
}

static size_t inner_usable(void *end, const void *p)
{
	(void)end;
	return ((const size_t *)p)[-2];
}

/* Counted blocks of a stack that stands in a counted block of another's have words of their own: the outer one lives. */
Test(stack, in_a_block_of_another_stack)
{
	static const quarry_manager_ops ops = { .struct_size = sizeof ops, .name = "inner", .alloc = inner_alloc,
						.free = inner_free, .usable = inner_usable };
	quarry_stack *outer = quarry_stack_create(&(quarry_stack_attr){ .chunk = 65536 }), *inner;
	quarry_block in_outer = quarry_block_alloc(quarry_stack_manager(outer), 12000), in_inner;
	quarry_manager manager = { &ops, (char *)in_outer.p + in_outer.n };

	cr_assert_not_null(inner_at = in_outer.p);
	for (int i = 0; i < 3; i++) {
		inner = quarry_stack_create(&(quarry_stack_attr){ .manager = &manager, .chunk = 10000 });
		cr_assert_not_null(inner);
		in_inner = quarry_block_alloc(quarry_stack_manager(inner), 9000);
		cr_assert_not_null(in_inner.p);
		cr_assert_eq(quarry_block_ref(&in_outer), 0, "%d: errno %d", i, errno);
		cr_expect_eq(quarry_block_ref(&in_inner), 0);
		/* (Forgotten, as the stack is: the next one's is at another address in the same word, or there.) */
		quarry_stack_destroy(inner);
		inner_at = (char *)in_outer.p + (i + 1) * 16;
	}
	quarry_stack_destroy(outer);
}
