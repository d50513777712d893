/* SPDX-License-Identifier: MIT */
/* Write slabs: every operation at random against a flat string of what is written and not sent, with what the kernel
 * holds looked at again when it lets go; marshalled numbers, read back by a cursor; errors. */
#include "include/quarry/wslab.h"
#include "tests/unit/chain_model.h"

#define STEPS 60000
#define HELD_MAX 6
#define IOV_MAX_HERE 64

/* ---- random steps ---- */

/* What the kernel was given, and what it was to read there. */
struct held {
	int hold; /* 0: none */
	struct iovec iov[IOV_MAX_HERE];
	long n;
	unsigned char *bytes;
};

struct slab_model {
	quarry_wslab w;
	struct model m; /* its flat string alone */
	size_t flushing;
	struct held held[HELD_MAX];
	bool grows;
};

static size_t vectors(const struct slab_model *s, struct iovec *iov, long *n)
{
	size_t sum = 0;

	*n = quarry_wslab_iov(&s->w, iov, IOV_MAX_HERE);
	cr_assert(*n >= 0 && *n <= IOV_MAX_HERE);
	for (long i = 0; i < *n; i++) {
		cr_assert(iov[i].iov_len > 0 && sum + iov[i].iov_len <= s->flushing);
		cr_assert_eq(memcmp(iov[i].iov_base, s->m.flat + sum, iov[i].iov_len), 0);
		sum += iov[i].iov_len;
	}
	return sum;
}

static void check(const struct slab_model *s)
{
	struct iovec iov[IOV_MAX_HERE];
	long n;

	cr_assert_eq(quarry_wslab_pending(&s->w), s->m.len);
	cr_assert(vectors(s, iov, &n) == s->flushing || n == IOV_MAX_HERE);
	cr_assert(s->grows || n <= 2);
}

static void step_write(struct rng *rng, struct slab_model *s, const unsigned char *bytes, size_t n)
{
	size_t room = quarry_wslab_room(&s->w), size = s->w.size;
	int rc;

	(void)rng;
	errno = 0;
	rc = quarry_wslab_write(&s->w, bytes, n);
	if (s->grows || n <= room) {
		cr_assert_eq(rc, 0);
		model_edit(&s->m, s->m.len, 0, bytes, n);
		cr_assert(s->grows || quarry_wslab_room(&s->w) == room - n);
	} else {
		cr_assert(rc == -1 && errno == (n > 2 * size ? EMSGSIZE : EAGAIN), "errno %d", errno);
		cr_assert_eq(quarry_wslab_room(&s->w), room);
	}
}

static void step_reserve(struct rng *rng, struct slab_model *s, const unsigned char *bytes, size_t n)
{
	void *p;

	n += n == 0;
	errno = 0;
	p = quarry_wslab_reserve(&s->w, n);
	if (p == NULL) {
		cr_assert(!s->grows && errno == (n > s->w.size ? EMSGSIZE : EAGAIN));
		return;
	}
	cr_assert(s->grows || n <= s->w.size);
	memset(p, '#', n);
	if (rng_below(rng, 5) == 0)
		return;
	expect_error(quarry_wslab_advance(&s->w, n + 1), ERANGE);
	memcpy(p, bytes, n);
	if (rng_below(rng, 3) == 0)
		n = rng_below(rng, n + 1);
	cr_assert_eq(quarry_wslab_advance(&s->w, n), 0);
	model_edit(&s->m, s->m.len, 0, bytes, n);
	expect_error(quarry_wslab_advance(&s->w, 1), ERANGE);
}

static void step_prefix(struct rng *rng, struct slab_model *s, const unsigned char *bytes, size_t n)
{
	unsigned width = 1u << rng_below(rng, 4);
	unsigned char length[8] = { 0 };
	bool big = rng_next(rng) & 1;
	size_t before = s->m.len, room = quarry_wslab_room(&s->w), first = rng_below(rng, n + 1);
	quarry_wslab_prefix prefix, inner = { .at = NULL };
	int rc;

	if (quarry_wslab_prefix_begin(&s->w, &prefix, width) != 0) {
		cr_assert(!s->grows && errno == EAGAIN);
		return;
	}
	expect_error(quarry_wslab_flush_begin(&s->w), s->flushing > 0 ? EALREADY : EBUSY);
	model_edit(&s->m, s->m.len, 0, length, width);
	rc = quarry_wslab_write(&s->w, bytes, first);
	if (rc == 0)
		model_edit(&s->m, s->m.len, 0, bytes, first);
	if (rc == 0)
		rc = quarry_wslab_prefix_begin(&s->w, &inner, 1);
	if (rc == 0 && rng_next(rng) % 4 == 0 && s->flushing > 0) {
		/* What was sent meanwhile makes room, which is left again by a cancel. */
		n = rng_below(rng, s->flushing + 1);
		first = n;
		s->flushing -= n;
		cr_assert_eq(quarry_wslab_sent(&s->w, n), (int64_t)s->flushing);
		model_edit(&s->m, 0, n, NULL, 0);
		before -= n;
		room = SIZE_MAX;
		rc = -1;
	}
	if (rc == 0)
		rc = quarry_wslab_write(&s->w, bytes + first, n - first);
	if (rc == 0) {
		expect_error(quarry_wslab_prefix_end(&s->w, &prefix, big), EINVAL);
		model_edit(&s->m, s->m.len, 0, "\0", 1);
		model_edit(&s->m, s->m.len, 0, bytes + first, n - first);
		rc = quarry_wslab_prefix_end(&s->w, &inner, big);
		cr_assert(rc == 0 ? n - first < 256 : errno == EOVERFLOW && n - first > 255);
		if (rc == 0)
			s->m.flat[s->m.len - (n - first) - 1] = (unsigned char)(n - first);
	}
	if (rc == 0 && rng_next(rng) % 4 != 0 && (width > 1 || n + 1 < 256)) {
		cr_assert_eq(quarry_wslab_prefix_end(&s->w, &prefix, big), 0);
		for (unsigned i = 0; i < width && i < 4; i++)
			s->m.flat[before + (big ? width - 1 - i : i)] = (unsigned char)((n + 1) >> 8 * i);
		return;
	}
	cr_assert_eq(quarry_wslab_prefix_cancel(&s->w, &prefix), 0);
	expect_error(quarry_wslab_prefix_cancel(&s->w, &inner), EINVAL);
	s->m.len = before;
	cr_assert(room == SIZE_MAX || quarry_wslab_room(&s->w) == room);
}

static void step_flush(struct slab_model *s)
{
	if (s->flushing > 0) {
		expect_error(quarry_wslab_flush_begin(&s->w), EALREADY);
		return;
	}
	cr_assert_eq(quarry_wslab_flush_begin(&s->w), (int64_t)s->m.len);
	s->flushing = s->m.len;
}

static void step_sent(struct rng *rng, struct slab_model *s)
{
	size_t n = rng_next(rng) & 1 ? s->flushing : rng_below(rng, s->flushing + 1);

	expect_error(quarry_wslab_sent(&s->w, s->flushing + 1), ERANGE);
	s->flushing -= n;
	cr_assert_eq(quarry_wslab_sent(&s->w, n), (int64_t)s->flushing);
	model_edit(&s->m, 0, n, NULL, 0);
}

static void step_hold(struct slab_model *s)
{
	struct held *h = s->held;
	size_t sum;

	while (h < s->held + HELD_MAX && h->hold != 0)
		h++;
	if (h == s->held + HELD_MAX)
		return;
	if (s->flushing == 0) {
		expect_error(quarry_wslab_hold(&s->w), EINVAL);
		return;
	}
	h->hold = quarry_wslab_hold(&s->w);
	if (h->hold < 0) {
		cr_assert(s->grows && errno == EAGAIN);
		h->hold = 0;
		return;
	}
	sum = vectors(s, h->iov, &h->n);
	h->bytes = malloc(sum);
	memcpy(h->bytes, s->m.flat, sum);
}

static void step_drop(struct slab_model *s, struct held *h)
{
	size_t at = 0;

	if (h->hold == 0)
		return;
	for (long i = 0; i < h->n; i++) {
		cr_assert_eq(memcmp(h->iov[i].iov_base, h->bytes + at, h->iov[i].iov_len), 0, "it was written over");
		at += h->iov[i].iov_len;
	}
	free(h->bytes);
	cr_assert_eq(quarry_wslab_drop(&s->w, h->hold), 0);
	h->hold = 0;
}

static void step_reset(struct rng *rng, struct slab_model *s)
{
	bool held = false;

	for (int i = 0; i < HELD_MAX; i++)
		held |= s->held[i].hold != 0;
	if (held) {
		expect_error(quarry_wslab_reset(&s->w), EBUSY);
		expect_error(quarry_wslab_fini(&s->w), EBUSY);
	} else if (rng_below(rng, 10) == 0) {
		cr_assert_eq(quarry_wslab_reset(&s->w), 0);
		s->m.len = s->flushing = 0;
		cr_assert_eq(quarry_wslab_room(&s->w), 2 * s->w.size);
	}
}

static void run(struct rng *rng, uint32_t size, uint32_t flags)
{
	static unsigned char bytes[2 * MODEL_MAX];
	quarry_wslab_attr attr = { .struct_size = sizeof(attr), .flags = flags, .size = size };
	struct slab_model s = { .grows = flags & QUARRY_WSLAB_GROW };

	model_init(&s.m);
	cr_assert_eq(quarry_wslab_init(&s.w, &attr), 0);
	cr_assert_eq((uintptr_t)s.w.half[0].p % 64 + (uintptr_t)s.w.half[1].p % 64, 0);
	for (int i = 0; i < scaled(STEPS); i++) {
		size_t n = rng_below(rng, 3 * size >> rng_below(rng, 7));

		rng_fill(rng, bytes, n);
		if (s.m.len + n > MODEL_MAX)
			n = 0;
		switch (rng_below(rng, 12)) {
		case 0:
		case 1:
		case 2: step_write(rng, &s, bytes, n); break;
		case 3: step_reserve(rng, &s, bytes, n); break;
		case 4: step_prefix(rng, &s, bytes, n); break;
		case 5:
		case 6: step_flush(&s); break;
		case 7:
		case 8: step_sent(rng, &s); break;
		case 9: step_hold(&s); break;
		case 10: step_drop(&s, &s.held[rng_below(rng, HELD_MAX)]); break;
		default: step_reset(rng, &s); break;
		}
		check(&s);
	}
	for (int i = 0; i < HELD_MAX; i++)
		step_drop(&s, &s.held[i]);
	cr_assert(quarry_wslab_fini(&s.w) == 0 && quarry_wslab_fini(&s.w) == 0);
	model_end(&s.m);
}

Test(wslab, random_steps_against_a_flat_string)
{
	struct rng rng = rng_start(20260803);

	run(&rng, 64, 0);
	run(&rng, 1024, 0);
}

Test(wslab, random_steps_with_a_chain_behind_the_halves)
{
	struct rng rng = rng_start(20260804);

	run(&rng, 64, QUARRY_WSLAB_GROW);
	run(&rng, 1024, QUARRY_WSLAB_GROW);
}

/* ---- as it is meant ---- */

Test(wslab, writing_goes_on_during_a_flush_until_both_halves_are_full)
{
	static unsigned char block[QUARRY_WSLAB_SIZE];
	struct iovec iov[3];
	quarry_wslab w;

	cr_assert_eq(quarry_wslab_init(&w, NULL), 0);
	cr_assert(w.size == 16384 && (uintptr_t)w.half[0].p % 64 == 0);
	cr_assert_eq(quarry_wslab_write(&w, block, 10000), 0);
	cr_assert_eq(quarry_wslab_flush_begin(&w), 10000);
	cr_assert_eq(quarry_wslab_write(&w, block, 16384), 0);
	expect_error(quarry_wslab_write(&w, block, 1), EAGAIN);
	cr_assert(quarry_wslab_iov(&w, iov, 3) == 1 && iov[0].iov_len == 10000 && iov[0].iov_base == w.half[0].p);
	cr_assert_eq(quarry_wslab_sent(&w, 4000), 6000);
	cr_assert(quarry_wslab_iov(&w, iov, 3) == 1 && iov[0].iov_len == 6000 && iov[0].iov_base == w.half[0].p + 4000);
	expect_error(quarry_wslab_write(&w, block, 1), EAGAIN);
	cr_assert_eq(quarry_wslab_sent(&w, 6000), 0);
	cr_assert(w.half[0].head == 0 && w.half[0].tail == 0);
	cr_assert_eq(quarry_wslab_iov(&w, iov, 3), 0);
	cr_assert_eq(quarry_wslab_write(&w, block, 16384), 0);
	cr_assert_eq(quarry_wslab_flush_begin(&w), 32768);
	cr_assert(quarry_wslab_iov(&w, iov, 3) == 2);
	cr_assert(iov[0].iov_base == w.half[1].p && iov[1].iov_base == w.half[0].p);
	cr_assert_eq(quarry_wslab_sent(&w, 32768), 0);
	cr_assert_eq(quarry_wslab_room(&w), 32768);
	cr_assert_eq(quarry_wslab_fini(&w), 0);
}

Test(wslab, what_is_sent_is_held_until_the_second_notice)
{
	quarry_wslab_attr attr = { .struct_size = sizeof(attr), .size = 64 };
	unsigned char block[64];
	quarry_wslab w;
	int first, second;

	memset(block, 'a', sizeof(block));
	cr_assert_eq(quarry_wslab_init(&w, &attr), 0);
	cr_assert_eq(quarry_wslab_write(&w, block, 64), 0);
	cr_assert_eq(quarry_wslab_flush_begin(&w), 64);
	first = quarry_wslab_hold(&w);
	second = quarry_wslab_hold(&w);
	cr_assert(first > 0 && second > 0);
	cr_assert_eq(quarry_wslab_sent(&w, 64), 0);
	cr_assert_eq(quarry_wslab_room(&w), 64);
	cr_assert_eq(quarry_wslab_write(&w, block, 64), 0);
	expect_error(quarry_wslab_write(&w, block, 1), EAGAIN);
	expect_error(quarry_wslab_reset(&w), EBUSY);
	cr_assert_eq(quarry_wslab_drop(&w, first), 0);
	expect_error(quarry_wslab_write(&w, block, 1), EAGAIN);
	cr_assert_eq(quarry_wslab_drop(&w, second), 0);
	cr_assert_eq(quarry_wslab_write(&w, block, 64), 0);
	expect_error(quarry_wslab_drop(&w, second), EINVAL);
	expect_error(quarry_wslab_drop(&w, first), EINVAL);
	expect_error(quarry_wslab_drop(&w, 0), EINVAL);
	expect_error(quarry_wslab_drop(&w, -1), EINVAL);
	expect_error(quarry_wslab_drop(&w, 1 << 20), EINVAL);
	cr_assert_eq(quarry_wslab_fini(&w), 0);
}

/* ---- prefixes ---- */

/* What was reserved goes with what was written, in a half and in the chain. */
Test(wslab, a_prefix_taken_back_takes_what_is_reserved_too)
{
	static const size_t before[] = { 4, 100, 128, 300 };
	quarry_wslab_attr attr = { .struct_size = sizeof(attr), .flags = QUARRY_WSLAB_GROW, .size = 64 };
	char block[300] = { 0 };
	quarry_wslab_prefix prefix;
	quarry_wslab w;

	for (unsigned i = 0; i < 8; i++) {
		cr_assert_eq(quarry_wslab_init(&w, &attr), 0);
		cr_assert_eq(quarry_wslab_write(&w, block, before[i / 2]), 0);
		cr_assert_eq(quarry_wslab_prefix_begin(&w, &prefix, 4), 0);
		if (i % 2)
			cr_assert_eq(quarry_wslab_write(&w, "SECRETSECRET", 12), 0);
		cr_assert_not_null(quarry_wslab_reserve(&w, 10));
		cr_assert_eq(quarry_wslab_prefix_cancel(&w, &prefix), 0);
		expect_error(quarry_wslab_advance(&w, 10), ERANGE);
		cr_assert_eq(quarry_wslab_flush_begin(&w), (int64_t)before[i / 2]);
		cr_assert_eq(quarry_wslab_fini(&w), 0);
	}
}

/* One that ended, was taken back or reset is not taken for the one that is open where it was. */
Test(wslab, a_prefix_that_is_gone_is_not_another_one)
{
	quarry_wslab_attr attr = { .struct_size = sizeof(attr), .flags = QUARRY_WSLAB_GROW, .size = 64 };
	quarry_wslab_prefix gone, outer, inner, ended, dead, lost, now;
	char block[200] = { 0 };
	quarry_wslab w, other;

	cr_assert(quarry_wslab_init(&w, &attr) == 0 && quarry_wslab_init(&other, &attr) == 0);
	cr_assert_eq(quarry_wslab_prefix_begin(&other, &lost, 4), 0);
	for (int i = 0; i < 2; i++) {
		/* Gone by the end of all that was, and by a reset. */
		cr_assert_eq(quarry_wslab_write(&w, block, 200), 0);
		cr_assert_eq(quarry_wslab_prefix_begin(&w, &gone, 4), 0);
		cr_assert_eq(i == 0 ? quarry_wslab_fini(&w) : quarry_wslab_reset(&w), 0);
		if (i == 0)
			cr_assert_eq(quarry_wslab_init(&w, &attr), 0);
		cr_assert_eq(quarry_wslab_prefix_begin(&w, &now, 4), 0);
		cr_assert_eq(quarry_wslab_write(&w, "abc", 3), 0);
		expect_error(quarry_wslab_prefix_end(&w, &gone, 0), EINVAL);
		expect_error(quarry_wslab_prefix_cancel(&w, &gone), EINVAL);
		expect_error(quarry_wslab_prefix_end(&other, &now, 0), EINVAL);
		cr_assert_eq(quarry_wslab_prefix_end(&w, &now, 0), 0);
		cr_assert(w.half[0].tail == 7 && memcmp(w.half[0].p, "\3\0\0\0abc", 7) == 0);
		cr_assert_eq(quarry_wslab_reset(&w), 0);
	}
	/* Within another one: by an end (as a copy has it), and with the one that it was in. */
	cr_assert_eq(quarry_wslab_prefix_begin(&w, &outer, 2), 0);
	cr_assert_eq(quarry_wslab_prefix_begin(&w, &inner, 2), 0);
	ended = inner;
	cr_assert_eq(quarry_wslab_prefix_end(&w, &inner, 0), 0);
	cr_assert_eq(quarry_wslab_prefix_begin(&w, &dead, 2), 0);
	expect_error(quarry_wslab_prefix_cancel(&w, &ended), EINVAL);
	cr_assert_eq(quarry_wslab_prefix_begin(&w, &lost, 2), 0);
	cr_assert_eq(quarry_wslab_prefix_cancel(&w, &outer), 0);
	cr_assert(quarry_wslab_pending(&w) == 0 && w.prefixes == 0);
	cr_assert_eq(quarry_wslab_prefix_begin(&w, &now, 2), 0);
	cr_assert_eq(quarry_wslab_prefix_begin(&w, &inner, 2), 0);
	expect_error(quarry_wslab_prefix_end(&w, &dead, 0), EINVAL);
	expect_error(quarry_wslab_prefix_cancel(&w, &dead), EINVAL);
	expect_error(quarry_wslab_prefix_cancel(&w, &lost), EINVAL);
	cr_assert_eq(quarry_wslab_pending(&w), 4);
	/* As deep as can be, and taken back by the outermost. */
	for (int i = 2; i < QUARRY_WSLAB_NESTED; i++)
		cr_assert_eq(quarry_wslab_prefix_begin(&w, &inner, 2), 0);
	expect_error(quarry_wslab_prefix_begin(&w, &lost, 2), EOVERFLOW);
	cr_assert_eq(quarry_wslab_prefix_end(&w, &inner, 0), 0);
	cr_assert(quarry_wslab_prefix_cancel(&w, &now) == 0 && quarry_wslab_pending(&w) == 0);
	cr_assert(quarry_wslab_fini(&w) == 0 && quarry_wslab_fini(&other) == 0);
}

/* ---- marshalled and read back ---- */

Test(wslab, numbers_are_read_back_by_a_cursor)
{
	quarry_wslab_attr attr = { .struct_size = sizeof(attr), .flags = QUARRY_WSLAB_GROW, .size = 64 };
	struct rng rng = rng_start(5);
	quarry_wslab w;
	quarry_chain chain = { .len = 0 };
	quarry_cursor c;
	struct iovec iov[IOV_MAX_HERE];
	uint64_t want[100], got = 0;
	uint32_t v32;
	uint16_t v16;
	uint8_t v8;

	cr_assert_eq(quarry_wslab_init(&w, &attr), 0);
	for (int i = 0; i < 100; i++) {
		want[i] = rng_next(&rng) >> rng_below(&rng, 64);
		cr_assert_eq(quarry_wslab_put_varint(&w, want[i]), 0);
		cr_assert_eq(quarry_wslab_put_u8(&w, (uint8_t)want[i]), 0);
		cr_assert_eq(quarry_wslab_put_u16le(&w, (uint16_t)want[i]), 0);
		cr_assert_eq(quarry_wslab_put_u16be(&w, (uint16_t)want[i]), 0);
		cr_assert_eq(quarry_wslab_put_u32le(&w, (uint32_t)want[i]), 0);
		cr_assert_eq(quarry_wslab_put_u32be(&w, (uint32_t)want[i]), 0);
		cr_assert_eq(quarry_wslab_put_u64le(&w, want[i]), 0);
		cr_assert_eq(quarry_wslab_put_u64be(&w, want[i]), 0);
	}
	cr_assert_gt(quarry_wslab_flush_begin(&w), 3000);
	cr_assert_eq(quarry_chain_from_iov(&chain, iov, (size_t)quarry_wslab_iov(&w, iov, IOV_MAX_HERE)), 0);
	cr_assert_eq(quarry_cursor_init(&c, &chain), 0);
	for (int i = 0; i < 100; i++) {
		cr_assert(quarry_cursor_varint(&c, &got) == 0 && got == want[i]);
		cr_assert(quarry_cursor_u8(&c, &v8) == 0 && v8 == (uint8_t)want[i]);
		cr_assert(quarry_cursor_u16le(&c, &v16) == 0 && v16 == (uint16_t)want[i]);
		cr_assert(quarry_cursor_u16be(&c, &v16) == 0 && v16 == (uint16_t)want[i]);
		cr_assert(quarry_cursor_u32le(&c, &v32) == 0 && v32 == (uint32_t)want[i]);
		cr_assert(quarry_cursor_u32be(&c, &v32) == 0 && v32 == (uint32_t)want[i]);
		cr_assert(quarry_cursor_u64le(&c, &got) == 0 && got == want[i]);
		cr_assert(quarry_cursor_u64be(&c, &got) == 0 && got == want[i]);
	}
	cr_assert_eq(quarry_cursor_remaining(&c), 0);
	quarry_chain_free(&chain);
	cr_assert_eq(quarry_wslab_fini(&w), 0);
}

/* ---- errors ---- */

/* And not by the text of the error before, which is another one here. */
static void expect_arena_named(void)
{
	cr_expect_not_null(strstr(quarry_error_text(), "arena: "), "%s", quarry_error_text());
	expect_error(quarry_wslab_fini(NULL), EINVAL);
}

Test(wslab, errors)
{
	quarry_wslab_attr good = { .struct_size = sizeof(good) }, attr;
	quarry_wslab w = { .size = 0 };
	quarry_inflight in = { .p = NULL };
	quarry_wslab_prefix prefix;

	cr_expect_eq(quarry_wslab_fini(&w), 0);
	expect_error(quarry_wslab_write(&w, "x", 1), EINVAL);
	expect_error(quarry_wslab_flush_begin(&w), EINVAL);
	expect_error(quarry_wslab_sent(NULL, 0), EINVAL);
	expect_error(quarry_wslab_fini(NULL), EINVAL);
	expect_error(quarry_wslab_init(NULL, NULL), EINVAL);
	errno = 0;
	cr_expect(quarry_wslab_room(&w) == 0 && errno == EINVAL);
	errno = 0;
	cr_expect(quarry_wslab_pending(NULL) == 0 && errno == EINVAL);
	for (int i = 0; i < 5; i++) {
		attr = good;
		switch (i) {
		case 0: attr.struct_size = 5; break;
		case 1: attr.flags = 2; break;
		case 2: attr.size = 63; break;
		case 3: attr.size = (1u << 30) + 1; break;
		default: attr.reserved = 1; break;
		}
		expect_error(quarry_wslab_init(&w, &attr), EINVAL);
	}
	attr = good;
	attr.arena = (quarry_arena *)(void *)&good;
	expect_error(quarry_wslab_init(&w, &attr), EINVAL);
	expect_arena_named();
	expect_error(quarry_inflight_get(&in, attr.arena, 100), EINVAL);
	expect_arena_named();
	errno = 0;
	cr_expect(quarry_storage_alloc(attr.arena, 100) == NULL && errno == EINVAL);
	expect_arena_named();
	attr = good;
	attr.size = 65;
	attr.struct_size = 0;
	cr_assert_eq(quarry_wslab_init(&w, &attr), 0);
	cr_expect(w.size == 128 && quarry_wslab_room(&w) == 256);
	expect_error(quarry_wslab_write(&w, NULL, 1), EINVAL);
	expect_error(quarry_wslab_write(&w, &attr, 257), EMSGSIZE);
	errno = 0;
	cr_expect(quarry_wslab_reserve(&w, 0) == NULL && errno == EINVAL);
	cr_expect(quarry_wslab_reserve(&w, 129) == NULL && errno == EMSGSIZE);
	expect_error(quarry_wslab_iov(&w, NULL, 1), EINVAL);
	expect_error(quarry_wslab_prefix_begin(&w, &prefix, 3), EINVAL);
	expect_error(quarry_wslab_prefix_begin(&w, NULL, 4), EINVAL);
	cr_expect_eq(quarry_wslab_flush_begin(&w), 0);
	cr_expect_eq(quarry_wslab_prefix_begin(&w, &prefix, 4), 0);
	cr_expect_eq(quarry_wslab_reset(&w), 0);
	expect_error(quarry_wslab_prefix_end(&w, &prefix, 0), EINVAL);
	cr_expect(quarry_wslab_pending(&w) == 0 && quarry_wslab_pending(NULL) == 0 && quarry_wslab_room(NULL) == 0);
	cr_assert_eq(quarry_wslab_fini(&w), 0);
}
