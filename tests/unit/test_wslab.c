/* SPDX-License-Identifier: MIT */
/* Write slabs: every operation at random against a flat string of what is written and not sent, with what the kernel
 * holds looked at again when it lets go; marshalled numbers, read back by a cursor; errors; a socket with partial sends;
 * and that nothing is allocated between init and fini. */
#include "tests/unit/chain_model.h"

#include <linux/errqueue.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "include/quarry/wslab.h"

#define STEPS 60000
#define HELD_MAX 6
#define IOV_MAX_HERE 64

#define expect_error(call, error) \
	do { \
		errno = 0; \
		cr_expect((call) == -1 && errno == (error), "%s: errno %d", #call, errno); \
	} while (0)

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
	cr_assert(quarry_wslab_iov(&w, iov, 3) == 2 && iov[0].iov_base == w.half[1].p && iov[1].iov_base == w.half[0].p);
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
	expect_error(quarry_wslab_drop(&w, 0), EINVAL);
	expect_error(quarry_wslab_drop(&w, -1), EINVAL);
	expect_error(quarry_wslab_drop(&w, 1 << 20), EINVAL);
	cr_assert_eq(quarry_wslab_fini(&w), 0);
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

Test(wslab, errors)
{
	quarry_wslab_attr good = { .struct_size = sizeof(good) }, attr;
	quarry_wslab w = { .size = 0 };
	quarry_wslab_prefix prefix;

	cr_expect_eq(quarry_wslab_fini(&w), 0);
	expect_error(quarry_wslab_write(&w, "x", 1), EINVAL);
	expect_error(quarry_wslab_flush_begin(&w), EINVAL);
	expect_error(quarry_wslab_sent(NULL, 0), EINVAL);
	expect_error(quarry_wslab_fini(NULL), EINVAL);
	expect_error(quarry_wslab_init(NULL, NULL), EINVAL);
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
	attr.size = 65;
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

/* ---- a socket, and allocations ---- */

Test(wslab, through_a_socket_in_parts_and_nothing_is_allocated)
{
	struct rng rng = rng_start(78);
	unsigned char bytes[3000], back[4096];
	quarry_wslab w;
	uint64_t before, sent = 0, expected = 0, got = 0;
	int fd[2], partial = 0, full = 0, size = 4096;

	cr_assert_eq(quarry_wslab_init(&w, NULL), 0);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
	cr_assert_eq(setsockopt(fd[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)), 0);
	cr_assert_eq(quarry_profile_start(1), 0);
	before = allocations();
	while (got < 2000000) {
		size_t n = rng_below(&rng, sizeof(bytes));
		struct iovec iov[2];
		ssize_t k;

		for (size_t i = 0; i < n; i++)
			bytes[i] = (unsigned char)((sent + i) * 31 >> 3);
		if (sent < 2000000 && quarry_wslab_write(&w, bytes, n) == 0)
			sent += n;
		else
			full++;
		if (quarry_wslab_iov(&w, iov, 2) == 0)
			cr_assert_geq(quarry_wslab_flush_begin(&w), 0);
		k = writev(fd[0], iov, (int)quarry_wslab_iov(&w, iov, 2));
		if (k > 0)
			partial += quarry_wslab_sent(&w, (uint64_t)k) > 0;
		k = read(fd[1], back, 1 + rng_below(&rng, sizeof(back) / 2));
		for (ssize_t i = 0; i < k; i++, expected++)
			cr_assert_eq(back[i], (unsigned char)(expected * 31 >> 3), "byte %llu", (unsigned long long)expected);
		got += k > 0 ? (uint64_t)k : 0;
		if (got == sent && sent >= 2000000)
			break;
	}
	cr_assert_eq(allocations(), before);
	quarry_profile_stop();
	cr_assert(got >= 2000000 && partial > 0 && full > 0, "%d partial sends, %d times full", partial, full);
	cr_assert_eq(quarry_wslab_fini(&w), 0);
	close(fd[0]);
	close(fd[1]);
}

/* ---- without a copy by the kernel ---- */

/* A pair of connected sockets of TCP on the loopback; false when they cannot be had. */
static bool connect_pair(int fd[2])
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(address);
	int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;
	bool fine = listener >= 0 && bind(listener, (void *)&address, size) == 0 && listen(listener, 1) == 0 &&
		    getsockname(listener, (void *)&address, &size) == 0;

	fd[0] = fine ? socket(AF_INET, SOCK_STREAM, 0) : -1;
	fine = fine && connect(fd[0], (void *)&address, size) == 0 && (fd[1] = accept(listener, NULL, NULL)) >= 0;
	close(listener);
	return fine && setsockopt(fd[0], SOL_SOCKET, SO_ZEROCOPY, &on, sizeof(on)) == 0;
}

/* The kernel's notices: of sends so many to so many. Returns how many sends they are about, 0: none came yet. */
static unsigned notices(int fd, unsigned *first)
{
	char control[128];
	struct msghdr msg = { .msg_control = control, .msg_controllen = sizeof(control) };
	const struct sock_extended_err *e;

	if (recvmsg(fd, &msg, MSG_ERRQUEUE | MSG_DONTWAIT) < 0)
		return 0;
	e = (const void *)CMSG_DATA(CMSG_FIRSTHDR(&msg));
	cr_assert_eq(e->ee_origin, SO_EE_ORIGIN_ZEROCOPY);
	*first = e->ee_info;
	return e->ee_data - e->ee_info + 1;
}

Test(wslab, sent_without_a_copy_and_held_until_the_kernel_says_so)
{
	enum { ALL = 1000000, SENDS = 4096 };
	struct rng rng = rng_start(79);
	quarry_wslab_attr attr = { .struct_size = sizeof(attr), .flags = QUARRY_WSLAB_GROW, .size = 8192 };
	static int hold[SENDS];
	unsigned char bytes[3000], back[8192];
	uint64_t written = 0, got = 0;
	unsigned sends = 0, told = 0, first, n;
	quarry_wslab w;
	int fd[2];

	if (!connect_pair(fd))
		cr_skip("no MSG_ZEROCOPY here");
	cr_assert_eq(quarry_wslab_init(&w, &attr), 0);
	while (got < ALL || told < sends) {
		struct iovec iov[16];
		struct msghdr msg = { .msg_iov = iov };
		size_t len = rng_below(&rng, sizeof(bytes));
		ssize_t k;

		for (size_t i = 0; i < len; i++)
			bytes[i] = (unsigned char)((written + i) * 37 >> 4);
		if (written + len <= ALL && quarry_wslab_pending(&w) < 60000) {
			cr_assert_eq(quarry_wslab_write(&w, bytes, len), 0);
			written += len;
		} else if (written + len > ALL && written < ALL) {
			cr_assert_eq(quarry_wslab_write(&w, bytes, ALL - written), 0);
			written = ALL;
		}
		if (quarry_wslab_iov(&w, iov, 16) == 0)
			cr_assert_geq(quarry_wslab_flush_begin(&w), 0);
		msg.msg_iovlen = (size_t)quarry_wslab_iov(&w, iov, 16);
		if (msg.msg_iovlen > 0 && sends < SENDS) {
			int h = quarry_wslab_hold(&w);

			k = sendmsg(fd[0], &msg, MSG_DONTWAIT | (h > 0 ? MSG_ZEROCOPY : 0));
			if (k > 0 && h > 0)
				hold[sends++] = h;
			else if (h > 0)
				cr_assert_eq(quarry_wslab_drop(&w, h), 0);
			if (k > 0)
				cr_assert_geq(quarry_wslab_sent(&w, (uint64_t)k), 0);
		}
		k = recv(fd[1], back, 1 + rng_below(&rng, sizeof(back)), MSG_DONTWAIT);
		for (ssize_t i = 0; i < k; i++, got++)
			cr_assert_eq(back[i], (unsigned char)(got * 37 >> 4), "byte %llu", (unsigned long long)got);
		while ((n = notices(fd[0], &first)) > 0) {
			for (told += n; n-- > 0; first++)
				cr_assert_eq(quarry_wslab_drop(&w, hold[first]), 0);
		}
	}
	cr_assert(sends > 10 && quarry_wslab_pending(&w) == 0);
	cr_assert_eq(quarry_wslab_fini(&w), 0);
	close(fd[0]);
	close(fd[1]);
}

/* ---- inflight buffers ---- */

Test(wslab, inflight_bytes_against_a_flat_string)
{
	struct rng rng = rng_start(20260805);
	quarry_inflight in = { .p = NULL };
	struct model m; /* its flat string alone */
	uint64_t before;
	unsigned char *p;

	model_init(&m);
	cr_assert_eq(quarry_inflight_get(&in, NULL, 1000), 0);
	cr_assert(in.size == 1024 && (uintptr_t)in.p % 64 == 0);
	p = in.p;
	cr_assert_eq(quarry_profile_start(1), 0);
	before = allocations();
	for (int i = 0; i < 20000; i++) {
		size_t n, room = 1;
		void *to = quarry_inflight_space(&in, &room);
		const void *at;

		cr_assert(to != NULL ? room > 0 && m.len + room <= 1024 : room == 0 && errno == ENOBUFS && m.len == 1024);
		expect_error(quarry_inflight_filled(&in, room + 1), ERANGE);
		if (to != NULL) {
			n = rng_below(&rng, room + 1);
			rng_fill(&rng, to, n);
			model_edit(&m, m.len, 0, to, n);
			cr_assert_eq(quarry_inflight_filled(&in, n), 0);
		}
		at = quarry_inflight_data(&in, &n);
		cr_assert(n == m.len && (at != NULL) == (n > 0) && memcmp(at != NULL ? at : m.flat, m.flat, n) == 0);
		expect_error(quarry_inflight_take(&in, n + 1), ERANGE);
		n = rng_below(&rng, 3) == 0 ? n : rng_below(&rng, n + 1);
		cr_assert_eq(quarry_inflight_take(&in, n), 0);
		model_edit(&m, 0, n, NULL, 0);
	}
	cr_assert(allocations() == before && in.p == p);
	quarry_profile_stop();
	model_end(&m);
	quarry_inflight_put(&in);
	quarry_inflight_put(&in);
	quarry_inflight_put(NULL);
	expect_error(quarry_inflight_take(&in, 0), EINVAL);
	expect_error(quarry_inflight_filled(&in, 0), EINVAL);
	expect_error(quarry_inflight_get(&in, NULL, SIZE_MAX), EINVAL);
	expect_error(quarry_inflight_get(NULL, NULL, 5), EINVAL);
	cr_expect(quarry_inflight_data(NULL, NULL) == NULL);
	cr_assert(quarry_inflight_get(&in, NULL, 0) == 0 && in.size == 16384);
	quarry_inflight_put(&in);
}
