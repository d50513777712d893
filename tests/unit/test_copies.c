/* SPDX-License-Identifier: MIT */
/* Copies past the caches: the same bytes as memmove's at all places and lengths, and one threshold for all that copy. */
#include "tests/unit/chain_model.h"

#include "lib/object/copy.h"

#define PLAIN 4096 /* bytes of plain memory, */
#define AT 300     /* and within it there is room for this much on both sides */

/* Both from one memory, so that they overlap as often as not. */
Test(copies, bytes_are_the_same_also_where_they_overlap)
{
	static unsigned char memory[PLAIN], want[PLAIN];
	struct rng rng = rng_start(11);

	for (size_t min = 1; min <= 200; min += 199) {
		quarry_copy_set_stream_min(min);
		for (int i = 0; i < 20000; i++) {
			size_t from = rng_below(&rng, AT), to = rng_below(&rng, AT);
			size_t n = rng_below(&rng, rng_next(&rng) & 1 ? PLAIN - AT : AT);

			rng_fill(&rng, memory, sizeof(memory));
			memcpy(want, memory, sizeof(want));
			memmove(want + to, want + from, n);
			cr_assert_eq(quarry_copy_in(quarry_seg_make(memory, PLAIN), to, memory + from, n), 0);
			cr_assert_eq(memcmp(memory, want, PLAIN), 0, "%zu bytes from %zu to %zu", n, from, to);
		}
	}
}

Test(copies, bytes_are_the_same_far_apart)
{
	static unsigned char from[PLAIN], to[PLAIN], want[PLAIN];
	struct rng rng = rng_start(12);

	quarry_copy_set_stream_min(1);
	for (int i = 0; i < 20000; i++) {
		size_t at = rng_below(&rng, AT), src = rng_below(&rng, AT);
		size_t n = rng_below(&rng, rng_next(&rng) & 1 ? PLAIN - AT : AT);

		rng_fill(&rng, from, sizeof(from));
		memset(to, 0x11, sizeof(to));
		memset(want, 0x11, sizeof(want));
		memcpy(want + at, from + src, n);
		cr_assert_eq(quarry_copy_in(quarry_seg_make(to + at, n), 0, from + src, n), 0);
		cr_assert_eq(memcmp(to, want, sizeof(to)), 0, "%zu bytes from %zu to %zu", n, src, at);
	}
}

Test(copies, the_threshold_is_set_and_asked)
{
	cr_assert_eq(quarry_copy_stream_min(), QUARRY_COPY_STREAM_MIN);
	cr_assert_eq(quarry_copy_set_stream_min(100), QUARRY_COPY_STREAM_MIN);
	cr_assert_eq(quarry_copy_stream_min(), 100);
	cr_assert_eq(quarry_copy_set_stream_min(0), 100);
	cr_assert_eq(quarry_copy_stream_min(), SIZE_MAX);
	cr_assert_eq(quarry_copy_set_stream_min(1), SIZE_MAX);
}

/* ---- to and from vectors ---- */

/* At random, between guards, with room for less than there is, too: then nothing is written. */
Test(copies, vectors_are_marshalled_and_back_within_bounds)
{
	enum { VECTORS = 8, MOST = 40 };
	struct rng rng = rng_start(13);

	for (int round = 0; round < 20000; round++) {
		unsigned char source[VECTORS * MOST], flat[VECTORS * MOST + 2], back[VECTORS][MOST + 2], want[MOST + 2];
		struct iovec from[VECTORS], to[VECTORS];
		size_t n = rng_below(&rng, VECTORS + 1), sum = 0, room;
		bool fits;

		for (size_t i = 0; i < n; i++) {
			size_t len = rng_below(&rng, MOST + 1);

			from[i] = (struct iovec){ len == 0 ? NULL : source + sum, len };
			memset(back[i], '#', sizeof(back[i]));
			to[i] = (struct iovec){ len == 0 ? NULL : back[i] + 1, len };
			sum += len;
		}
		rng_fill(&rng, source, sum);
		memset(flat, '#', sizeof(flat));
		room = rng_next(&rng) & 1 ? sum : rng_below(&rng, VECTORS * MOST + 1);
		fits = sum <= room;
		errno = 0;
		cr_assert_eq(quarry_marshal(quarry_seg_make(flat + 1, room), from, n), fits ? (int64_t)sum : -1);
		cr_assert(fits || errno == ERANGE);
		cr_assert(flat[0] == '#' && flat[1 + sum] == '#' && (sum == 0 || fits || flat[1] == '#'));
		cr_assert(!fits || memcmp(flat + 1, source, sum) == 0);
		errno = 0;
		cr_assert_eq(quarry_unmarshal(quarry_seg_make(source, room), to, n), fits ? (int64_t)sum : -1);
		cr_assert(fits || errno == ERANGE);
		for (size_t i = 0; i < n; i++) {
			memset(want, '#', sizeof(want));
			if (fits && from[i].iov_len > 0)
				memcpy(want + 1, from[i].iov_base, from[i].iov_len);
			cr_assert_eq(memcmp(back[i], want, sizeof(want)), 0, "vector %zu of %zu", i, n);
		}
	}
}

Test(copies, vectors_that_are_none)
{
	char memory[8];
	quarry_seg s = quarry_seg_make(memory, 8);
	struct iovec nowhere = { NULL, 1 }, too_much[] = { { memory, 4 }, { memory, SIZE_MAX } }, one = { memory, 1 };

	expect_error(quarry_marshal(s, NULL, 1), EINVAL);
	expect_error(quarry_unmarshal(s, NULL, 1), EINVAL);
	expect_error(quarry_marshal(s, &nowhere, 1), EINVAL);
	expect_error(quarry_unmarshal(s, &nowhere, 1), EINVAL);
	expect_error(quarry_marshal(s, too_much, 2), ERANGE);
	expect_error(quarry_unmarshal(s, too_much, 2), ERANGE);
	expect_error(quarry_marshal((quarry_seg){ NULL, 5 }, &one, 1), EINVAL);
	cr_expect_eq(quarry_marshal(quarry_seg_make(NULL, 0), NULL, 0), 0);
	cr_expect_eq(quarry_unmarshal(quarry_seg_make(NULL, 0), NULL, 0), 0);
}

/* ---- one threshold ---- */

#define SIZE 10000 /* bytes that each of the ways below copies in one piece */

static struct {
	unsigned char from[SIZE], to[SIZE];
	quarry_buffers *slab;
	quarry_buffer buffer;
	quarry_chain chain; /* SIZE bytes in one piece */
	quarry_chain other;
	quarry_cursor cursor;
} of;

static void segment_in(void)
{
	cr_assert_eq(quarry_copy_in(quarry_seg_make(of.to, SIZE), 0, of.from, SIZE), 0);
}

static void segment_out(void)
{
	cr_assert_eq(quarry_copy_out(quarry_seg_make(of.from, SIZE), 0, of.to, SIZE), 0);
}

static void segment_to_segment(void)
{
	cr_assert_eq(quarry_copy_seg(quarry_seg_make(of.to, SIZE), quarry_seg_make(of.from, SIZE)), 0);
}

static void buffer_in(void)
{
	cr_assert_eq(quarry_buffer_copy_in(of.buffer, 0, of.from, SIZE), SIZE);
}

static void buffer_out(void)
{
	cr_assert_eq(quarry_buffer_copy_out(of.to, SIZE, &of.buffer, 1), SIZE);
}

static void buffer_adopted(void)
{
	quarry_buffer b;

	cr_assert_eq(quarry_buffers_get(of.slab, &b), 0);
	b.len = SIZE;
	cr_assert_eq(quarry_buffer_adopt(&b, NULL, QUARRY_ADOPT_COPY), 0);
	cr_assert_eq(quarry_buffer_release(b), 0);
}

static void appended(void)
{
	cr_assert_eq(quarry_chain_append_copy(&of.other, of.from, SIZE), 0);
	quarry_chain_free(&of.other);
}

static void appended_where_there_is_room(void)
{
	quarry_storage *s = quarry_storage_alloc(NULL, SIZE + 1);

	cr_assert_eq(quarry_chain_append(&of.other, s, quarry_storage_data(s), 1), 0);
	quarry_storage_unref(s);
	cr_assert_eq(quarry_chain_append_copy(&of.other, of.from, SIZE), 0);
	cr_assert_eq(of.other.segs, 1);
	quarry_chain_free(&of.other);
}

static void prepended(void)
{
	cr_assert_eq(quarry_chain_prepend_copy(&of.other, of.from, SIZE), 0);
	quarry_chain_free(&of.other);
}

static void chain_in(void)
{
	cr_assert_eq(quarry_chain_copy_in(&of.chain, 0, of.from, SIZE), 0);
}

static void chain_segment_in(void)
{
	cr_assert_eq(quarry_cseg_copy_in(of.chain.first, 0, of.from, SIZE), 0);
}

static void chain_out(void)
{
	cr_assert_eq(quarry_copy_chain(of.to, SIZE, &of.chain), SIZE);
}

static void chain_buffers_out(void)
{
	quarry_chain_buf buf = { .p = of.from, .n = SIZE };

	cr_assert_eq(quarry_copy_bufs(of.to, SIZE, &buf, 1), SIZE);
}

static void marshalled(void)
{
	struct iovec iov = { of.from, SIZE };

	cr_assert_eq(quarry_marshal(quarry_seg_make(of.to, SIZE), &iov, 1), SIZE);
}

static void unmarshalled(void)
{
	struct iovec iov = { of.to, SIZE };

	cr_assert_eq(quarry_unmarshal(quarry_seg_make(of.from, SIZE), &iov, 1), SIZE);
}

static void read_by_a_cursor(void)
{
	cr_assert_eq(quarry_cursor_init(&of.cursor, &of.chain), 0);
	cr_assert_eq(quarry_cursor_read(&of.cursor, of.to, SIZE), 0);
}

#define EACH(f) { f, #f }

static const struct {
	void (*copy)(void);
	const char *name;
} ways[] = {
	EACH(segment_in),     EACH(segment_out), EACH(segment_to_segment),           EACH(buffer_in), EACH(buffer_out),
	EACH(buffer_adopted), EACH(appended),    EACH(appended_where_there_is_room), EACH(prepended), EACH(chain_in),
	EACH(chain_segment_in), EACH(chain_out), EACH(chain_buffers_out),            EACH(read_by_a_cursor),
	EACH(marshalled),     EACH(unmarshalled),
};

Test(copies, one_threshold_is_everybodys)
{
	quarry_buffers_attr attr = { .struct_size = sizeof(attr), .size = SIZE, .count = 4 };

	of.slab = quarry_buffers_create(&attr);
	cr_assert_not_null(of.slab);
	cr_assert_eq(quarry_buffers_get(of.slab, &of.buffer), 0);
	of.buffer.len = SIZE;
	cr_assert_eq(quarry_chain_append_copy(&of.chain, of.from, SIZE), 0);
	cr_assert_eq(of.chain.segs, 1);
	for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		uint64_t before = atomic_load(&qy_copy_streamed);

		quarry_copy_set_stream_min(SIZE + 1);
		ways[i].copy();
		cr_expect_eq(atomic_load(&qy_copy_streamed), before, "%s: below the threshold", ways[i].name);
		quarry_copy_set_stream_min(SIZE);
		ways[i].copy();
		cr_expect_eq(atomic_load(&qy_copy_streamed), before + 1, "%s: at the threshold", ways[i].name);
	}
	quarry_chain_free(&of.chain);
	quarry_buffer_release(of.buffer);
	cr_assert_eq(quarry_buffers_destroy(of.slab), 0);
}
