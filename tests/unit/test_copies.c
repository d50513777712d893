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
