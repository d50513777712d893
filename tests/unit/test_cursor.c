/* SPDX-License-Identifier: MIT */
/* Cursors: every operation at random against a position in a flat string, while the chain grows and its front goes; the
 * integers in both byte orders, across every boundary; and what is not enough, at every length. */
#include "tests/unit/chain_model.h"

#define STEPS 60000

/* ---- random steps ---- */

/* Bytes come in pieces of few bytes, so that all is across boundaries. */
static void grow(struct rng *rng, struct model *m)
{
	unsigned char bytes[40];
	size_t n = 1 + rng_below(rng, rng_below(rng, 4) == 0 ? sizeof(bytes) : 5);
	quarry_chain more = { .len = 0 };
	unsigned char *p;

	if (m->len + n > MODEL_MAX)
		return;
	rng_fill(rng, bytes, n);
	switch (rng_below(rng, 3)) {
	case 0:
		cr_assert_eq(quarry_chain_append_copy(&m->chain, bytes, n), 0);
		break;
	case 1:
		p = quarry_malloc(n);
		memcpy(p, bytes, n);
		cr_assert_eq(quarry_chain_append_owned(&m->chain, p, n), 0);
		break;
	default:
		cr_assert_eq(quarry_chain_append_copy(&more, bytes, n), 0);
		cr_assert_eq(quarry_chain_append_chain(&m->chain, &more), 0);
		break;
	}
	model_edit(m, m->len, 0, bytes, n);
}

/* Read an integer of n bytes both ways, and again after going back. */
static void step_integer(quarry_cursor *c, const struct model *m, size_t *pos, unsigned which)
{
	const unsigned char *p = m->flat + *pos;
	size_t n = (size_t)1 << which / 2;
	uint64_t want = 0, got = 0, peeked = 0;
	bool big = which & 1;
	uint16_t v16 = 0, p16 = 0;
	uint32_t v32 = 0, p32 = 0;
	uint8_t v8 = 0, p8 = 0;
	int rc, rp;

	errno = 0;
	switch (which) {
	case 0:
	case 1: rp = quarry_cursor_peek_u8(c, &p8); rc = quarry_cursor_u8(c, &v8); break;
	case 2: rp = quarry_cursor_peek_u16le(c, &p16); rc = quarry_cursor_u16le(c, &v16); break;
	case 3: rp = quarry_cursor_peek_u16be(c, &p16); rc = quarry_cursor_u16be(c, &v16); break;
	case 4: rp = quarry_cursor_peek_u32le(c, &p32); rc = quarry_cursor_u32le(c, &v32); break;
	case 5: rp = quarry_cursor_peek_u32be(c, &p32); rc = quarry_cursor_u32be(c, &v32); break;
	case 6: rp = quarry_cursor_peek_u64le(c, &peeked); rc = quarry_cursor_u64le(c, &got); break;
	default: rp = quarry_cursor_peek_u64be(c, &peeked); rc = quarry_cursor_u64be(c, &got); break;
	}
	if (n > m->len - *pos) {
		cr_assert(rc == -1 && rp == -1 && errno == EAGAIN);
		return;
	}
	got += v8 + v16 + (uint64_t)v32;
	peeked += p8 + p16 + (uint64_t)p32;
	for (size_t i = 0; i < n; i++)
		want |= (uint64_t)p[i] << 8 * (big ? n - 1 - i : i);
	cr_assert(rc == 0 && rp == 0 && got == want && peeked == want, "%zu bytes: %llx, should be %llx", n,
		  (unsigned long long)got, (unsigned long long)want);
	*pos += n;
}

static void step_delimiter(struct rng *rng, quarry_cursor *c, const struct model *m, size_t *pos)
{
	unsigned char what[3], dst[200];
	size_t n = 1 + rng_below(rng, sizeof(what)), room = rng_below(rng, sizeof(dst)), got = 0;
	unsigned char *found;
	int64_t before;
	int rc;

	rng_fill(rng, what, n);
	found = memmem(m->flat + *pos, m->len - *pos, what, n);
	errno = 0;
	before = quarry_cursor_find(c, what, n);
	cr_assert_eq(before, found == NULL ? -1 : found - (m->flat + *pos));
	cr_assert(found != NULL || errno == EAGAIN);
	memset(dst, '#', sizeof(dst));
	rc = quarry_cursor_read_to(c, what, n, dst, room, &got);
	if (found == NULL) {
		cr_assert(rc == -1 && errno == EAGAIN);
	} else if ((size_t)before > room) {
		cr_assert(rc == -1 && errno == ERANGE && got == (size_t)before);
	} else {
		cr_assert(rc == 0 && got == (size_t)before && memcmp(dst, m->flat + *pos, got) == 0 && dst[got] == '#');
		*pos += got + n;
	}
}

static void step_is_next(struct rng *rng, quarry_cursor *c, const struct model *m, size_t *pos)
{
	unsigned char what[12];
	size_t n = rng_below(rng, sizeof(what)), left = m->len - *pos, alike = 0;
	int rc;

	memcpy(what, m->flat + *pos, n < left ? n : left);
	if (n > left)
		rng_fill(rng, what + left, n - left);
	if (n > 0 && rng_below(rng, 3) == 0)
		what[rng_below(rng, n)] = 'X';
	while (alike < n && alike < left && what[alike] == m->flat[*pos + alike])
		alike++;
	errno = 0;
	rc = quarry_cursor_is_next(c, what, n);
	if (alike == n) {
		cr_assert_eq(rc, 1);
		*pos += n;
	} else if (alike == left) {
		cr_assert(rc == -1 && errno == EAGAIN);
	} else {
		cr_assert_eq(rc, 0);
	}
}

static void step_move(struct rng *rng, quarry_cursor *c, const struct model *m, size_t *pos)
{
	size_t n = rng_below(rng, 30), left = m->len - *pos;

	switch (rng_below(rng, 5)) {
	case 0:
		n = rng_below(rng, m->len + 2);
		errno = 0;
		cr_assert_eq(quarry_cursor_seek(c, n), n <= m->len ? 0 : -1);
		cr_assert(n <= m->len || errno == ERANGE);
		*pos = n <= m->len ? n : *pos;
		break;
	case 1:
		errno = 0;
		cr_assert_eq(quarry_cursor_unread(c, n), n <= *pos ? 0 : -1);
		cr_assert(n <= *pos || errno == ERANGE);
		*pos -= n <= *pos ? n : 0;
		break;
	default:
		errno = 0;
		cr_assert_eq(quarry_cursor_skip(c, n), n <= left ? 0 : -1);
		cr_assert(n <= left || errno == EAGAIN);
		*pos += n <= left ? n : 0;
		break;
	}
}

static void step_bytes(struct rng *rng, quarry_cursor *c, const struct model *m, size_t *pos)
{
	unsigned char dst[64];
	size_t n = rng_below(rng, sizeof(dst)), left = m->len - *pos, len;
	quarry_chain out = { .len = 0 };
	const void *span = quarry_cursor_span(c, &len);

	cr_assert((span != NULL) == (left > 0) && (len > 0) == (left > 0) && len <= left);
	cr_assert(span == NULL || memcmp(span, m->flat + *pos, len) == 0);
	errno = 0;
	if (rng_next(rng) & 1) {
		int rc = quarry_cursor_share(c, n, &out);

		cr_assert(n <= left ? rc == 0 && out.len == n : rc == -1 && errno == EAGAIN && out.len == 0);
		cr_assert(n > left || quarry_chain_compare_bytes(&out, m->flat + *pos, n) == 0);
		quarry_chain_free(&out);
	} else {
		int rc = quarry_cursor_peek(c, dst, n);

		cr_assert(n <= left ? rc == 0 && memcmp(dst, m->flat + *pos, n) == 0 : rc == -1 && errno == EAGAIN);
		cr_assert_eq(quarry_cursor_position(c), *pos);
		cr_assert_eq(quarry_cursor_read(c, dst, n), rc);
		cr_assert(rc != 0 || memcmp(dst, m->flat + *pos, n) == 0);
	}
	*pos += n <= left ? n : 0;
}

static void step_trim(quarry_cursor *c, struct model *m, size_t *pos)
{
	cr_assert_eq(quarry_cursor_trim(c, &m->chain), 0);
	model_edit(m, 0, *pos, NULL, 0);
	*pos = 0;
}

Test(cursor, random_steps_against_a_position)
{
	struct rng rng = rng_start(20260802);
	quarry_cursor c, saved;
	size_t pos = 0, saved_pos = 0;
	struct model m;

	model_init(&m);
	cr_assert_eq(quarry_cursor_init(&c, &m.chain), 0); /* empty so far */
	saved = c;
	for (int i = 0; i < scaled(STEPS); i++) {
		switch (rng_below(&rng, 9)) {
		case 0:
		case 1: grow(&rng, &m); break;
		case 2:
		case 3: step_integer(&c, &m, &pos, (unsigned)rng_below(&rng, 8)); break;
		case 4: step_delimiter(&rng, &c, &m, &pos); break;
		case 5: step_is_next(&rng, &c, &m, &pos); break;
		case 6: step_move(&rng, &c, &m, &pos); break;
		case 7: step_bytes(&rng, &c, &m, &pos); break;
		default:
			if (rng_below(&rng, 20) == 0) {
				step_trim(&c, &m, &pos);
				saved = c;
				saved_pos = 0;
			} else if (rng_next(&rng) & 1) {
				saved = c;
				saved_pos = pos;
			} else {
				c = saved;
				pos = saved_pos;
			}
			break;
		}
		cr_assert_eq(quarry_cursor_position(&c), pos, "step %d: at %llu, should be %zu", i,
			     (unsigned long long)quarry_cursor_position(&c), pos);
		cr_assert_eq(quarry_cursor_remaining(&c), m.len - pos);
		if (i % 64 == 0)
			model_check(&m);
	}
	model_check(&m);
	model_end(&m);
}

/* ---- numbers of varying length ---- */

static size_t put_varint(unsigned char *p, uint64_t v)
{
	size_t n = 0;

	for (; v > 127; v >>= 7)
		p[n++] = (unsigned char)(v | 128);
	p[n++] = (unsigned char)v;
	return n;
}

static void one_varint(uint64_t want)
{
	unsigned char raw[10];
	size_t n = put_varint(raw, want);

	for (size_t at = 0; at <= n; at++) {
		quarry_chain chain = { .len = 0 };
		quarry_cursor c;
		uint64_t got = 1;

		cr_assert_eq(quarry_chain_append_borrowed(&chain, raw, at), 0);
		cr_assert_eq(quarry_cursor_init(&c, &chain), 0);
		if (at < n)
			expect_error(quarry_cursor_varint(&c, &got), EAGAIN);
		cr_assert_eq(quarry_cursor_position(&c), 0);
		cr_assert_eq(quarry_chain_append_borrowed(&chain, raw + at, n - at), 0);
		cr_assert_eq(quarry_chain_append_borrowed(&chain, "\x7f", 1), 0);
		cr_assert(quarry_cursor_varint(&c, &got) == 0 && got == want);
		cr_assert(quarry_cursor_varint(&c, &got) == 0 && got == 127);
		expect_error(quarry_cursor_varint(&c, &got), EAGAIN);
		quarry_chain_free(&chain);
	}
}

Test(cursor, varints_in_pieces)
{
	static const unsigned char wide[] = "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02";
	static const unsigned char wider[] = "\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00";
	quarry_chain chain = { .len = 0 };
	quarry_cursor c;
	uint64_t got = 7;

	for (unsigned bits = 0; bits < 64; bits++) {
		one_varint((uint64_t)1 << bits);
		one_varint(((uint64_t)1 << bits) - 1);
	}
	one_varint(UINT64_MAX);
	cr_assert_eq(quarry_chain_append_borrowed(&chain, wide, 10), 0);
	cr_assert_eq(quarry_cursor_init(&c, &chain), 0);
	expect_error(quarry_cursor_varint(&c, &got), EOVERFLOW);
	cr_assert_eq(quarry_cursor_position(&c), 0);
	quarry_chain_free(&chain);
	cr_assert_eq(quarry_chain_append_borrowed(&chain, wider, 11), 0);
	cr_assert_eq(quarry_cursor_init(&c, &chain), 0);
	expect_error(quarry_cursor_varint(&c, &got), EOVERFLOW);
	cr_assert_eq(got, 7);
	quarry_chain_free(&chain);
}

/* ---- errors ---- */

/* ---- what is released while the front goes uses chain and cursor ---- */

enum meddling { FREES, TRIMS, TRIMS_ALL, READS, APPENDS_ANEW };

static struct {
	quarry_chain chain;
	quarry_cursor cursor;
	enum meddling how;
	unsigned calls;
} meddler;

static void meddle(void *ctx, void *p, size_t n)
{
	uint8_t byte = 0;

	(void)ctx, (void)p, (void)n;
	if (meddler.calls++ != 0)
		return;
	cr_expect_eq(quarry_cursor_position(&meddler.cursor), 0);
	cr_expect_eq(quarry_cursor_remaining(&meddler.cursor), meddler.chain.len);
	switch (meddler.how) {
	case FREES: quarry_chain_free(&meddler.chain); break;
	case TRIMS: cr_expect_eq(quarry_chain_trim_front(&meddler.chain, 7), 0); break;
	case TRIMS_ALL: cr_expect_eq(quarry_chain_trim_back(&meddler.chain, meddler.chain.len), 0); break;
	case READS: cr_expect(quarry_cursor_u8(&meddler.cursor, &byte) == 0 && byte == 'c'); break;
	default:
		quarry_chain_free(&meddler.chain);
		cr_expect_eq(quarry_chain_append_copy(&meddler.chain, "!", 1), 0);
	}
}

/* 20 pieces of 3 bytes, each of one letter; the cursor is behind the second piece. */
static void trim_and_meddle(enum meddling how, size_t skipped)
{
	static char letters[60];

	meddler.how = how;
	meddler.calls = 0;
	meddler.chain = (quarry_chain){ .len = 0 };
	for (size_t i = 0; i < sizeof(letters); i++)
		letters[i] = (char)('a' + i / 3);
	for (size_t i = 0; i < 20; i++)
		cr_assert_eq(quarry_chain_append_wrapped(&meddler.chain, letters + 3 * i, 3, meddle, NULL), 0);
	cr_assert_eq(quarry_cursor_init(&meddler.cursor, &meddler.chain), 0);
	cr_assert_eq(quarry_cursor_skip(&meddler.cursor, skipped), 0);
	cr_assert_eq(quarry_cursor_trim(&meddler.cursor, &meddler.chain), 0);
	cr_assert_gt(meddler.calls, 0);
}

/* The next byte, none or one that was never in the chain being -1; and it is of a segment that the chain has. */
static int next_byte(void)
{
	uint8_t byte = 0;
	int rc = quarry_cursor_u8(&meddler.cursor, &byte);

	cr_assert(rc != 0 || (meddler.cursor.seg != NULL && meddler.cursor.p > meddler.cursor.seg->data &&
			      meddler.cursor.p <= meddler.cursor.seg->data + meddler.cursor.seg->len));
	return rc == 0 ? byte : -1;
}

Test(cursor, what_is_released_by_trimming_changes_the_chain)
{
	trim_and_meddle(FREES, 30);
	cr_expect_eq(meddler.chain.len, 0);
	cr_expect_eq(quarry_cursor_remaining(&meddler.cursor), 0);
	cr_expect_eq(next_byte(), -1);
	trim_and_meddle(TRIMS, 6);
	cr_expect_eq(meddler.chain.len, 60 - 6 - 7);
	cr_expect_eq(quarry_cursor_position(&meddler.cursor), 0);
	cr_expect_eq(next_byte(), 'a' + 13 / 3);
	quarry_chain_free(&meddler.chain);
	trim_and_meddle(TRIMS_ALL, 7);
	cr_expect_eq(meddler.chain.len, 0);
	cr_expect_eq(next_byte(), -1);
	trim_and_meddle(READS, 6);
	cr_expect_eq(quarry_cursor_position(&meddler.cursor), 1, "what was read stays read");
	quarry_chain_free(&meddler.chain);
	trim_and_meddle(APPENDS_ANEW, 6);
	cr_expect_eq(quarry_cursor_remaining(&meddler.cursor), 1);
	cr_expect_eq(next_byte(), '!');
	quarry_chain_free(&meddler.chain);
	trim_and_meddle(APPENDS_ANEW, 60); /* all of it went: what is appended then is what comes next */
	cr_expect_eq(next_byte(), '!');
	quarry_chain_free(&meddler.chain);
}

Test(cursor, errors)
{
	quarry_chain chain = { .len = 0 }, other = { .len = 0 };
	quarry_cursor c, none = { .chain = NULL };
	unsigned char byte;
	size_t n = 5;

	expect_error(quarry_cursor_init(&c, NULL), EINVAL);
	expect_error(quarry_cursor_init(NULL, &chain), EINVAL);
	expect_error(quarry_cursor_skip(&none, 0), EINVAL);
	expect_error(quarry_cursor_seek(NULL, 0), EINVAL);
	expect_error(quarry_cursor_unread(&none, 0), EINVAL);
	expect_error(quarry_cursor_u8(&none, &byte), EINVAL);
	cr_expect(quarry_cursor_position(&none) == 0 && quarry_cursor_remaining(NULL) == 0);
	cr_assert_eq(quarry_cursor_init(&c, &chain), 0);
	expect_error(quarry_cursor_u8(&c, &byte), EAGAIN);
	cr_expect(quarry_cursor_read(&c, NULL, 0) == 0 && quarry_cursor_skip(&c, 0) == 0 &&
		  quarry_cursor_unread(&c, 0) == 0 && quarry_cursor_seek(&c, 0) == 0);
	cr_expect(quarry_cursor_span(&c, &n) == NULL && n == 0);
	expect_error(quarry_cursor_is_next(&c, "x", 1), EAGAIN);
	cr_expect_eq(quarry_cursor_is_next(&c, NULL, 0), 1);
	expect_error(quarry_cursor_find(&c, "x", 0), EINVAL);
	expect_error(quarry_cursor_find(&c, NULL, 1), EINVAL);
	expect_error(quarry_cursor_read_to(&c, "x", 1, &byte, 1, NULL), EINVAL);
	expect_error(quarry_cursor_share(&c, 0, &chain), EINVAL);
	expect_error(quarry_cursor_share(&c, 1, &other), EAGAIN);
	expect_error(quarry_cursor_trim(&c, &other), EINVAL);
	cr_expect_eq(quarry_cursor_trim(&c, &chain), 0);
	expect_error(quarry_cursor_seek(&c, 1), ERANGE);
	expect_error(quarry_cursor_unread(&c, 1), ERANGE);
	/* What comes later is seen. */
	cr_assert_eq(quarry_chain_append_copy(&chain, "\x2a", 1), 0);
	cr_expect(quarry_cursor_u8(&c, &byte) == 0 && byte == 42);
	expect_error(quarry_cursor_u8(&c, &byte), EAGAIN);
	cr_assert_eq(quarry_chain_append_copy(&chain, "\x2b", 1), 0);
	cr_expect(quarry_cursor_u8(&c, &byte) == 0 && byte == 43 && chain.segs == 1);
	cr_expect(quarry_cursor_trim(&c, &chain) == 0 && chain.len == 0);
	cr_assert_eq(quarry_chain_append_copy(&chain, "\x2c", 1), 0);
	cr_expect(quarry_cursor_u8(&c, &byte) == 0 && byte == 44);
	quarry_chain_free(&chain);
}
