/* SPDX-License-Identifier: MIT */
/* The public allocation calls, the node questions, options and statistics: every promise that the header makes for
 * them, errors among them. Arenas and placement are test_arena's. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "include/quarry/quarry.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

/* The compiler knows sizes that cannot be had when it sees them, and what a free does to errno when it thinks so. */
static volatile size_t too_much[] = { (size_t)PTRDIFF_MAX + 1, SIZE_MAX, SIZE_MAX - 15, SIZE_MAX - 4096,
				      SIZE_MAX - 2 * MIB, PTRDIFF_MAX };
static void *volatile sink;
#define COUNT(a) (sizeof(a) / sizeof *(a))

static quarry_stats stats_now(void)
{
	quarry_stats stats = { .version = QUARRY_STATS_VERSION };

	cr_assert_eq(quarry_stats_get(NULL, &stats), 0);
	return stats;
}

static size_t usable_of(size_t size)
{
	void *p = quarry_malloc(size);
	size_t usable;

	cr_assert(p != NULL, "no memory for %zu bytes: errno %d", size, errno);
	usable = quarry_usable_size(p);
	quarry_free(p);
	return usable;
}

#define expect_enomem(call) \
	do { \
		errno = 0; \
		sink = (call); \
		cr_expect(sink == NULL && errno == ENOMEM, "%s: %p, errno %d", #call, sink, errno); \
	} while (0)

/* ------------------------------------------------------------------------------------------------------ */
/* Errors                                                                                                 */

Test(api, sizes_that_cannot_be_had_give_enomem)
{
	unsigned char *p = quarry_malloc(100);

	memset(p, 0x5a, 100);
	for (size_t i = 0; i < COUNT(too_much); i++) {
		size_t n = too_much[i], got = 1234;
		expect_enomem(quarry_malloc(n));
		expect_enomem(quarry_calloc(1, n));
		expect_enomem(quarry_calloc(n, 1));
		expect_enomem(quarry_realloc(NULL, n));
		expect_enomem(quarry_realloc(p, n));
		expect_enomem(quarry_reallocarray(p, n, 1));
		expect_enomem(quarry_aligned_alloc(16, n));
		expect_enomem(quarry_aligned_alloc(4096, n));
		expect_enomem(quarry_malloc_at_least(n, &got));
		expect_enomem(quarry_arena_malloc(NULL, n));
	}
	for (unsigned i = 0; i < 100; i++)
		cr_assert_eq(p[i], 0x5a, "a realloc that failed changed byte %u", i);
	quarry_free(p);
}

/* Also where the block is made of pages: a size in pages that is cut to 32 bits would seem small. */
Test(api, blocks_do_not_grow_beyond_memory)
{
	static const size_t have[] = { 16, 30 * KIB, 50 * KIB, 100000, MIB, 3 * MIB, 10 * MIB };
	static volatile size_t want[] = { (size_t)1 << 44, ((size_t)1 << 44) + MIB, (size_t)1 << 46, ((size_t)1 << 53) + 5,
					  (size_t)1 << 62 };

	for (size_t i = 0; i < COUNT(have); i++) {
		unsigned char *p = quarry_malloc(have[i]);
		size_t usable = quarry_usable_size(p);
		memset(p, 0x5a, usable);
		for (size_t k = 0; k < COUNT(want); k++) {
			expect_enomem(quarry_realloc(p, want[k]));
			expect_enomem(quarry_reallocarray(p, want[k] / 4, 4));
			expect_enomem(quarry_malloc(want[k]));
			expect_enomem(quarry_calloc(want[k], 1));
			expect_enomem(quarry_aligned_alloc(MIB, want[k]));
			cr_assert_eq(quarry_usable_size(p), usable, "after realloc from %zu to %zu: %zu usable", have[i],
				     want[k], quarry_usable_size(p));
		}
		for (size_t k = 0; k < usable; k++)
			cr_assert_eq(p[k], 0x5a);
		quarry_free(p);
	}
	cr_assert_eq(stats_now().bad_frees, 0);
}

Test(api, products_that_overflow_give_enomem)
{
	static volatile size_t factor[][2] = { { SIZE_MAX, 2 }, { 2, SIZE_MAX }, { SIZE_MAX / 2 + 1, 2 },
					       { (size_t)1 << 32, (size_t)1 << 32 }, { SIZE_MAX, SIZE_MAX },
					       { SIZE_MAX / 16 + 1, 16 }, { 48, SIZE_MAX / 48 + 1 } };
	unsigned char *p = quarry_malloc(10);

	memcpy(p, "untouched", 10);
	for (size_t i = 0; i < COUNT(factor); i++) {
		expect_enomem(quarry_calloc(factor[i][0], factor[i][1]));
		expect_enomem(quarry_reallocarray(NULL, factor[i][0], factor[i][1]));
		expect_enomem(quarry_reallocarray(p, factor[i][0], factor[i][1]));
		expect_enomem(quarry_arena_calloc(NULL, factor[i][0], factor[i][1]));
	}
	cr_assert_str_eq((char *)p, "untouched");
	quarry_free(p);
}

Test(api, alignments_that_are_no_power_of_two_give_einval)
{
	static volatile size_t bad[] = { 0, 3, 5, 12, 24, 48, 100, 4095, 4097, SIZE_MAX, 3 * MIB };

	for (size_t i = 0; i < COUNT(bad); i++) {
		errno = 0;
		sink = quarry_aligned_alloc(bad[i], 100);
		cr_expect(sink == NULL && errno == EINVAL, "alignment %zu: %p, errno %d", bad[i], sink, errno);
		errno = 0;
		sink = quarry_arena_aligned_alloc(NULL, bad[i], 100);
		cr_expect(sink == NULL && errno == EINVAL, "alignment %zu: %p, errno %d", bad[i], sink, errno);
	}
}

Test(api, posix_memalign_returns_its_error_and_touches_nothing_else)
{
	static volatile size_t bad[] = { 0, 1, 2, 4, 3, 12, 24, 48, 4095, SIZE_MAX };
	int mark;
	void *out = &mark;

	for (size_t i = 0; i < COUNT(bad); i++) {
		errno = EXFULL;
		cr_expect_eq(quarry_posix_memalign(&out, bad[i], 64), EINVAL, "alignment %zu", bad[i]);
		cr_expect(out == &mark && errno == EXFULL);
	}
	for (size_t i = 0; i < COUNT(too_much); i++) {
		errno = EXFULL;
		cr_expect_eq(quarry_posix_memalign(&out, 64, too_much[i]), ENOMEM, "size %zu", too_much[i]);
		cr_expect(out == &mark && errno == EXFULL, "errno %d", errno);
	}
	for (size_t align = sizeof(void *); align <= 64 * KIB; align *= 2) {
		errno = EXFULL;
		cr_assert_eq(quarry_posix_memalign(&out, align, 3 * align + 1), 0);
		cr_assert(out != NULL && (uintptr_t)out % align == 0 && errno == EXFULL);
		memset(out, 1, 3 * align + 1);
		quarry_free(out);
	}
}

/* ------------------------------------------------------------------------------------------------------ */
/* What is returned                                                                                       */

Test(api, nothing_asked_for_is_unlike_any_other)
{
	enum { N = 2000 };
	static char *p[N];
	static const char *const how[] = { "malloc(0)", "calloc(0, 5)", "calloc(5, 0)", "aligned_alloc(64, 0)",
					   "realloc(NULL, 0)" };

	for (unsigned i = 0; i < N; i++) {
		switch (i % 5) {
		case 0: p[i] = quarry_malloc(0); break;
		case 1: p[i] = quarry_calloc(0, 5); break;
		case 2: p[i] = quarry_calloc(5, 0); break;
		case 3: p[i] = quarry_aligned_alloc(64, 0); break;
		default: p[i] = quarry_realloc(NULL, 0); break;
		}
		cr_assert(p[i] != NULL, "%s", how[i % 5]);
		cr_assert((uintptr_t)p[i] % (i % 5 == 3 ? 64 : 16) == 0);
	}
	for (unsigned i = 0; i < N; i++) {
		for (unsigned k = i + 1; k < N; k++)
			cr_assert(p[i] != p[k], "%s and %s gave the same pointer", how[i % 5], how[k % 5]);
	}
	for (unsigned i = 0; i < N; i++)
		quarry_free(p[i]);
	cr_assert_eq(stats_now().bad_frees, 0);
}

Test(api, realloc_to_nothing_frees)
{
	quarry_stats before, held, after;
	void *p;

	quarry_free(quarry_malloc(1));
	before = stats_now();
	p = quarry_malloc(8 * MIB);
	/* (What is in this thread's lists counts as in use until a round of the reclaimer has it shed them, which the
	 * malloc in between may do.) */
	held = stats_now();
	cr_assert(p != NULL && held.large == before.large + 8 * MIB && held.in_use + MIB >= before.in_use + 8 * MIB);
	cr_assert_null(quarry_realloc(p, 0));
	after = stats_now();
	cr_assert(after.large == before.large && after.in_use < before.in_use + MIB, "%lu in use",
		  (unsigned long)after.in_use);
	cr_assert_null(quarry_reallocarray(quarry_malloc(100), 0, 10));
	cr_assert_null(quarry_reallocarray(quarry_malloc(100), 10, 0));
	cr_assert_eq(stats_now().bad_frees, before.bad_frees);
}

Test(api, every_alignment_up_to_2_mib)
{
	for (size_t align = 1; align <= 2 * MIB; align *= 2) {
		size_t sizes[] = { 0, 1, align - 1, align, align + 1, 3 * align, 100 };
		void *held[2 * COUNT(sizes)];
		for (size_t i = 0; i < 2 * COUNT(sizes); i++) {
			size_t size = sizes[i / 2];
			held[i] = quarry_aligned_alloc(align, size);
			cr_assert(held[i] != NULL, "aligned_alloc(%zu, %zu): errno %d", align, size, errno);
			cr_assert((uintptr_t)held[i] % align == 0 && (uintptr_t)held[i] % 16 == 0);
			cr_assert_geq(quarry_usable_size(held[i]), size);
			memset(held[i], (int)i + 1, quarry_usable_size(held[i]));
		}
		for (size_t i = 0; i < 2 * COUNT(sizes); i++) {
			unsigned char *p = held[i];
			size_t n = quarry_usable_size(p);
			for (size_t k = 0; k < n; k++)
				cr_assert(p[k] == i + 1, "alignment %zu, size %zu: byte %zu", align, sizes[i / 2], k);
			if (i & 1)
				quarry_free(p);
			else
				quarry_free_aligned_sized(p, align, sizes[i / 2]);
		}
	}
	cr_assert_eq(stats_now().bad_frees, 0);
}

Test(api, an_alignment_of_1_gib_is_given_or_refused)
{
	void *p;

	errno = 0;
	p = quarry_aligned_alloc((size_t)1 << 30, 100);
	cr_assert(p != NULL ? (uintptr_t)p % ((size_t)1 << 30) == 0 : errno == ENOMEM || errno == EINVAL);
	quarry_free(p);
}

Test(api, an_aligned_block_keeps_its_content_in_realloc)
{
	for (size_t align = 16; align <= 2 * MIB; align *= 4) {
		unsigned char *p = quarry_aligned_alloc(align, 300);
		for (unsigned i = 0; i < 300; i++)
			p[i] = (unsigned char)i;
		p = quarry_realloc(p, 300 * KIB);
		cr_assert(p != NULL && (uintptr_t)p % 16 == 0);
		p = quarry_realloc(p, 200);
		cr_assert_not_null(p);
		for (unsigned i = 0; i < 200; i++)
			cr_assert_eq(p[i], (unsigned char)i);
		quarry_free(p);
	}
}

Test(api, calloc_is_zero_after_dirty_reuse)
{
	static const size_t sizes[] = { 1, 16, 24, 100, 128, 129, 1000, 4096, 5000, 32 * KIB, 33 * KIB, 100 * KIB, MIB,
					2 * MIB + 1, 5 * MIB };
	enum { N = 40 };

	for (unsigned round = 0; round < 4; round++) {
		for (size_t s = 0; s < COUNT(sizes); s++) {
			unsigned n = sizes[s] >= MIB ? 3 : N;
			unsigned char *p[N];
			for (unsigned i = 0; i < n; i++) {
				p[i] = quarry_calloc(1, sizes[s]);
				cr_assert_not_null(p[i]);
				for (size_t k = 0; k < sizes[s]; k++)
					cr_assert(p[i][k] == 0, "calloc(1, %zu): byte %zu is %#x", sizes[s], k, p[i][k]);
				memset(p[i], 0xff, quarry_usable_size(p[i]));
			}
			for (unsigned i = 0; i < n; i++)
				quarry_free(p[i]);
			if (round == 2)
				quarry_purge(NULL);
		}
	}
}

Test(api, usable_bytes_are_the_programs)
{
	enum { N = 600 };
	static unsigned char *p[N];
	static size_t n[N];

	for (unsigned i = 0; i < N; i++) {
		size_t size = i < 300 ? i * 7 : (size_t)i * i / 2;
		if (i % 3 == 0) {
			p[i] = quarry_malloc_at_least(size, &n[i]);
			cr_assert(p[i] != NULL && n[i] == quarry_usable_size(p[i]));
		} else {
			p[i] = quarry_malloc(size);
			n[i] = quarry_usable_size(p[i]);
		}
		cr_assert(p[i] != NULL && n[i] >= size, "%zu usable of %zu", n[i], size);
		memset(p[i], (int)(i % 251), n[i]);
	}
	for (unsigned i = 0; i < N; i++) {
		for (size_t k = 0; k < n[i]; k++)
			cr_assert(p[i][k] == i % 251, "block %u: byte %zu of %zu is another's", i, k, n[i]);
		quarry_free(p[i]);
	}
	cr_assert_eq(quarry_usable_size(NULL), 0);
	sink = quarry_malloc_at_least(100, NULL);
	cr_assert_not_null(sink);
	quarry_free(sink);
}

Test(api, classes_are_close_enough)
{
	size_t last = 0, size = 1;

	for (size = 1; size <= 128; size++)
		cr_assert_eq(usable_of(size), (size + 15) / 16 * 16, "%zu bytes: %zu usable", size, usable_of(size));
	last = 128;
	for (size = 129; size < 16 * MIB; size = last + 1) {
		size_t usable = usable_of(size);
		cr_assert_geq(usable, size);
		cr_assert(usable - last <= (last / 8 > 16 ? last / 8 : 16),
			  "from %zu the next size is %zu: more than 12.5 %%", last, usable);
		cr_assert(usable_of(usable) == usable, "%zu bytes have %zu usable, not exactly", usable, usable_of(usable));
		last = usable;
	}
}

/* ------------------------------------------------------------------------------------------------------ */
/* free                                                                                                   */

static void *free_in_thread(void *p)
{
	errno = EXFULL;
	quarry_free(p);
	return errno == EXFULL ? p : NULL;
}

Test(api, free_preserves_errno)
{
	static const size_t sizes[] = { 0, 1, 100, 5000, 40 * KIB, 300 * KIB, 3 * MIB, 70 * MIB };
	pthread_t thread;
	void *result;
	int on_stack;

	for (size_t i = 0; i < COUNT(sizes); i++) {
		for (unsigned k = 0; k < 3; k++) {
			void *p = quarry_malloc(sizes[i]);
			cr_assert_not_null(p);
			errno = EXFULL;
			if (k == 0)
				quarry_free(p);
			else if (k == 1)
				quarry_free_sized(p, sizes[i]);
			else
				quarry_free_aligned_sized(p, 16, sizes[i]);
			cr_assert_eq(errno, EXFULL, "%zu bytes: errno %d", sizes[i], errno);
		}
		result = quarry_malloc(sizes[i]);
		cr_assert_eq(pthread_create(&thread, NULL, free_in_thread, result), 0);
		cr_assert(pthread_join(thread, &result) == 0 && result != NULL, "%zu bytes in another thread", sizes[i]);
	}
	errno = EXFULL;
	quarry_free(NULL);
	quarry_free_sized(NULL, 10);
	quarry_free(&on_stack);
	cr_assert_eq(errno, EXFULL);
}

Test(api, foreign_pointers_are_left_alone_and_counted)
{
	static char in_data[256] __attribute__((aligned(64)));
	char on_stack[256] __attribute__((aligned(64)));
	char *mapped = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *of_libc = malloc(500);
	void *foreign[] = { in_data, in_data + 1, on_stack, on_stack + 16, mapped, mapped + 4096, of_libc,
			    (void *)16, (void *)1, (void *)(uintptr_t)0xffffffffffff0000u, (void *)(uintptr_t)0xffff800000000000u };

	memset(of_libc, 0x33, 500);
	for (size_t i = 0; i < COUNT(foreign); i++) {
		uint64_t before = stats_now().bad_frees;
		quarry_free(foreign[i]);
		cr_expect_eq(stats_now().bad_frees, before + 1, "%p is not counted", foreign[i]);
		cr_expect_eq(quarry_usable_size(foreign[i]), 0);
		errno = 0;
		cr_expect(quarry_arena_of(foreign[i]) == NULL && errno == EINVAL);
		errno = 0;
		cr_expect(quarry_realloc(foreign[i], 100) == NULL && errno == EINVAL, "realloc of %p: errno %d", foreign[i],
			  errno);
	}
	for (unsigned i = 0; i < 500; i++)
		cr_assert_eq(of_libc[i], 0x33);
	free(of_libc);
	munmap(mapped, 65536);
}

Test(api, mistakes_with_large_blocks_are_counted)
{
	unsigned char *p = quarry_malloc(MIB), *q;
	uint64_t before = stats_now().bad_frees;

	memset(p, 0x44, MIB);
	quarry_free(p + 64 * KIB); /* inside */
	quarry_free(p + 16);
	cr_expect_eq(stats_now().bad_frees, before + 2);
	for (size_t i = 0; i < MIB; i++)
		cr_assert_eq(p[i], 0x44);
	cr_assert_eq(quarry_usable_size(p) >= MIB, 1);
	quarry_free(p);
	quarry_free(p); /* twice */
	cr_expect_eq(stats_now().bad_frees, before + 3);
	/* The heap is whole: two blocks that do not overlap. */
	p = quarry_malloc(MIB);
	q = quarry_malloc(MIB);
	cr_assert(p != NULL && q != NULL && p != q);
	memset(p, 1, MIB);
	memset(q, 2, MIB);
	for (size_t i = 0; i < MIB; i++)
		cr_assert(p[i] == 1 && q[i] == 2);
	quarry_free(p);
	quarry_free(q);
}

Test(api, a_small_object_freed_again_after_its_slab_went_is_counted)
{
	void *p[64];
	uint64_t before;

	for (unsigned i = 0; i < 64; i++)
		p[i] = quarry_malloc(1000);
	for (unsigned i = 0; i < 64; i++)
		quarry_free(p[i]);
	quarry_thread_flush();
	quarry_purge(NULL);
	before = stats_now().bad_frees;
	for (unsigned i = 0; i < 64; i++)
		quarry_free(p[i]);
	cr_assert_eq(stats_now().bad_frees, before + 64);
	for (unsigned i = 0; i < 64; i++) {
		p[i] = quarry_malloc(1000);
		cr_assert_not_null(p[i]);
		for (unsigned k = 0; k < i; k++)
			cr_assert(p[k] != p[i], "an object is given out twice");
	}
	for (unsigned i = 0; i < 64; i++)
		quarry_free(p[i]);
}

/* ------------------------------------------------------------------------------------------------------ */
/* Nodes, options, statistics, version                                                                    */

Test(api, nodes)
{
	quarry_node_info info = { .struct_size = sizeof info };
	int n = quarry_node_count(), current = quarry_node_current(), found = 0;

	cr_assert_geq(n, 1);
	for (int i = 0; i < n; i++) {
		int id = quarry_node_id(i);
		cr_assert_geq(id, 0);
		cr_assert_eq(quarry_node_info_get(id, &info), 0);
		cr_assert_eq(info.id, id);
		cr_assert_eq(quarry_node_distance(id, id), 10);
		found += id == current;
	}
	cr_assert_eq(found, 1, "the current node, %d, is none of them", current);
	errno = 0;
	cr_assert(quarry_node_id(n) == -1 && errno == EINVAL);
	errno = 0;
	cr_assert(quarry_node_id(-1) == -1 && errno == EINVAL);
	errno = 0;
	cr_assert(quarry_node_info_get(QUARRY_NODES_MAX, &info) == -1 && errno == EINVAL);
	info.struct_size = 0;
	errno = 0;
	cr_assert(quarry_node_info_get(current, &info) == -1 && errno == EINVAL);
	errno = 0;
	cr_assert(quarry_node_distance(current, QUARRY_NODES_MAX) == -1 && errno == EINVAL);
	errno = 0;
	cr_assert(quarry_node_of_cpu(1 << 20) == -1 && errno == EINVAL);
}

Test(api, options_by_name_and_number)
{
	char text[32];
	quarry_option_info info;
	int i;

	for (i = 0; quarry_option_describe(i, &info) == 0; i++) {
		cr_assert(info.name != NULL && info.help != NULL && info.minimum <= info.def && info.def <= info.maximum);
		cr_assert_gt(quarry_ctl_get(info.name, text, sizeof text), 0, "%s", info.name);
	}
	cr_assert_gt(i, 0);
	cr_assert_eq(quarry_ctl_set("decay_ms", "250"), 0);
	cr_assert_eq(quarry_ctl_get("decay_ms", text, sizeof text), 3);
	cr_assert_str_eq(text, "250");
	cr_assert_eq(quarry_ctl_get("decay_ms", text, 2), 3);
	cr_assert_str_eq(text, "2");
	cr_assert_eq(quarry_mallopt(QUARRY_OPT_DECAY_MS, 300), 1);
	cr_assert_eq(quarry_ctl_get("decay_ms", text, sizeof text), 3);
	cr_assert_str_eq(text, "300");
	cr_assert_eq(quarry_mallopt(M_ARENA_MAX, 2), 1);
	cr_assert_eq(quarry_mallopt(M_MMAP_THRESHOLD, 1 << 20), 1);
}

Test(api, option_errors_name_the_option)
{
	char text[32];

	errno = 0;
	cr_assert(quarry_ctl_set("no_such_thing", "1") == -1 && errno == ENOENT);
	cr_assert_not_null(strstr(quarry_error_text(), "no_such_thing"), "\"%s\"", quarry_error_text());
	errno = 0;
	cr_assert(quarry_ctl_get("no_such_thing", text, sizeof text) == -1 && errno == ENOENT);
	errno = 0;
	cr_assert(quarry_ctl_set("decay_ms", "soon") == -1 && errno == EINVAL);
	cr_assert_not_null(strstr(quarry_error_text(), "decay_ms"), "\"%s\"", quarry_error_text());
	errno = 0;
	cr_assert(quarry_ctl_set("window", "0") == -1 && errno == EPERM);
	cr_assert_not_null(strstr(quarry_error_text(), "window"), "\"%s\"", quarry_error_text());
	errno = 0;
	cr_assert(quarry_mallopt(QUARRY_OPT_DECAY_MS, -5) == 0 && errno == EINVAL);
	cr_assert_not_null(strstr(quarry_error_text(), "decay_ms"), "\"%s\"", quarry_error_text());
	errno = 0;
	cr_assert(quarry_mallopt(987654, 1) == 0 && errno == EINVAL);
	cr_assert_neq(quarry_error_text()[0], 0);
}

Test(api, statistics)
{
	quarry_stats stats = { .version = 0 }, before, during;
	FILE *file = tmpfile();
	void *p;

	errno = 0;
	cr_assert(quarry_stats_get(NULL, &stats) == -1 && errno == EINVAL);
	stats.version = QUARRY_STATS_VERSION + 100;
	errno = 0;
	cr_assert(quarry_stats_get(NULL, &stats) == -1 && errno == EINVAL);
	before = stats_now();
	p = quarry_malloc(10 * MIB);
	during = stats_now();
	cr_assert(during.in_use >= before.in_use + 10 * MIB && during.in_use < before.in_use + 11 * MIB);
	cr_assert(during.large >= before.large + 10 * MIB && during.mapped >= during.in_use && during.arenas >= 1);
	quarry_free(p);
	cr_assert_lt(stats_now().in_use, before.in_use + MIB);
	cr_assert_not_null(quarry_refusal_name(QUARRY_REFUSED_MBIND_EPERM));
	cr_assert_null(quarry_refusal_name(QUARRY_REFUSED_COUNT));
	cr_assert_eq(quarry_stats_print(fileno(file), 0), 0);
	cr_assert_eq(quarry_stats_print(fileno(file), 1), 0);
	errno = 0;
	cr_assert(quarry_stats_print(-1, 1) == -1 && errno == EBADF);
	fclose(file);
}

Test(api, version)
{
	char text[32];
	unsigned v = quarry_version();

	cr_assert_geq(v, QUARRY_API_VERSION);
	snprintf(text, sizeof text, "%u.%u.%u", v >> 16, v >> 8 & 0xff, v & 0xff);
	cr_assert_str_eq(quarry_version_string(), text);
}

/* ---- what is said of a failed call ---- */

static const char *text_of(long r, int error)
{
	cr_assert_eq(r, -1);
	cr_assert_eq(errno, error, "%d", errno);
	return quarry_error_text();
}
#define expect_text(call, error, text)                                                                         \
	do {                                                                                                   \
		const char *got_;                                                                              \
		quarry_mallopt(-12345, 0); /* another text */                                                  \
		errno = 0;                                                                                     \
		got_ = text_of((long)(call), error);                                                           \
		cr_assert_eq(strncmp(got_, text, strlen(text)), 0, "%s", got_);                                \
	} while (0)

/* Every public call that fails sets it: none leaves the text of another. */
Test(api, each_failure_has_its_text)
{
	quarry_arena *none = (quarry_arena *)&none, *a = quarry_arena_create(NULL), *chosen;
	quarry_stats stats = { .version = 0 };
	quarry_health_report report = { .struct_size = 1 };
	quarry_node_info info = { .struct_size = 1 };
	char *p = quarry_malloc(100);
	uint64_t offset;

	cr_assert_not_null(a);
	expect_text(quarry_arena_destroy(none), EINVAL, "arena: there is none at 0x");
	expect_text(quarry_arena_reset(none), EINVAL, "arena: there is none at 0x");
	expect_text(quarry_arena_destroy(quarry_arena_of(p)), EPERM, "arena: it is the default arena of a node");
	cr_assert_eq(quarry_thread_set_arena(a, &chosen), 0);
	expect_text(quarry_arena_destroy(a), EBUSY, "arena: it is the default arena of a thread");
	cr_assert_eq(quarry_thread_set_arena(chosen, NULL), 0);
	expect_text(quarry_arena_set_limits(none, 0, 0), EINVAL, "arena: there is none at 0x");
	expect_text(quarry_arena_set_limits(a, 1, 1000), EINVAL, "soft_limit: 1000 bytes are more than the 1 of ");
	expect_text(quarry_arena_set_decay(none, 0), EINVAL, "arena: there is none at 0x");
	expect_text(quarry_thread_set_arena(none, NULL), EINVAL, "arena: there is none at 0x");
	expect_text(quarry_breaker_redirect(none), EINVAL, "arena: there is ");
	expect_text(quarry_arena_free(a, p), EINVAL, "p: 0x");
	expect_text(quarry_fd_of(&offset, &offset), EINVAL, "p: 0x");
	expect_text(quarry_fd_of(p, &offset), ENOTSUP, "p: what is at 0x");
	expect_text(quarry_thread_rebind(12345), EINVAL, "node: 12345 is ");
	expect_text(quarry_stats_get(NULL, &stats), EINVAL, "stats: ");
	stats.version = QUARRY_STATS_VERSION;
	expect_text(quarry_stats_get(none, &stats), EINVAL, "arena: there is none at 0x");
	expect_text(quarry_stats_print(-1, 0), EBADF, "fd: -1 is ");
	expect_text(quarry_where(&offset, 1, NULL, 0), EINVAL, "p: 1 bytes from 0x");
	expect_text(quarry_where(p, 1, NULL, 3), EINVAL, "info: NULL, for 3 ");
	expect_text(quarry_arena_where(none, NULL, 0), EINVAL, "arena: there is none at 0x");
	expect_text(quarry_arena_where(a, NULL, 3), EINVAL, "list: NULL, for 3 ");
	expect_text(quarry_health(&report), EINVAL, "report: ");
	expect_text(quarry_health_text(&report, NULL, 0), EINVAL, "report: ");
	expect_text(quarry_node_id(12345), EINVAL, "index: there is no node with the logical number 12345");
	expect_text(quarry_node_info_get(0, &info), EINVAL, "info: ");
	info.struct_size = sizeof(info);
	expect_text(quarry_node_info_get(12345, &info), EINVAL, "node: there is no node 12345");
	expect_text(quarry_nodes(NULL, 1), EINVAL, "list: ");
	expect_text(quarry_node_of_cpu(1 << 20), EINVAL, "cpu: there is no CPU 1048576");
	expect_text(quarry_node_distance(quarry_node_id(0), 12345), EINVAL, "node: there is no node 12345");
	expect_text(quarry_node_attr_get(12345, 0, -1, &offset), EINVAL, "node: there is no node 12345");
	expect_text(quarry_node_best(99, -1), EINVAL, "attr: there is none of number 99");
	errno = 0;
	cr_assert_null(quarry_arena_of_node(12345));
	cr_assert_str_eq(text_of(-1, EINVAL), "node: there is no node 12345");
	errno = 0;
	cr_assert_null(quarry_arena_of(&offset));
	cr_assert_eq(strncmp(text_of(-1, EINVAL), "p: 0x", 5), 0);
	quarry_free(p);
	quarry_arena_destroy(a);
}

Test(api, limits_the_wrong_way_round)
{
	quarry_arena_attr attr = { .hard_limit = 1000, .soft_limit = 1001 };

	errno = 0;
	cr_assert_null(quarry_arena_create(&attr));
	cr_assert_eq(errno, EINVAL);
	cr_assert_str_eq(quarry_error_text(), "soft_limit: 1001 bytes are more than the 1000 of hard_limit");
	attr.soft_limit = 1000;
	cr_assert_not_null(quarry_arena_create(&attr));
	attr = (quarry_arena_attr){ .flags = 0x80000000 };
	cr_assert_null(quarry_arena_create(&attr));
	cr_assert_str_eq(quarry_error_text(), "flags: unknown bits in 0x80000000");
}
