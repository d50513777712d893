/* SPDX-License-Identifier: MIT */
/* Chains: every operation against a flat string, at random, and through a socket; what is written in place, and what
 * never is. */
#include "tests/unit/chain_model.h"

#include <sys/socket.h>
#include <unistd.h>

#define CHAINS 6
#define STEPS 40000

/* ---- random steps ---- */

static size_t wrapped_live; /* memory that was wrapped and not yet released */

static void released(void *ctx, void *p, size_t n)
{
	cr_assert_eq(ctx, (void *)((char *)p + n), "it is told of its own memory");
	memset(p, '!', n); /* who still reads it sees that */
	free(p);
	wrapped_live--;
}

static void step_append(struct rng *rng, struct model *m, unsigned char *bytes, size_t n)
{
	switch (rng_below(rng, 4)) {
	case 0:
		cr_assert_eq(quarry_chain_append_copy(&m->chain, bytes, n), 0);
		break;
	case 1: {
		unsigned char *p = quarry_malloc(n + 1);

		memcpy(p, bytes, n);
		cr_assert_eq(quarry_chain_append_owned(&m->chain, p, n + 1), 0);
		cr_assert_eq(quarry_chain_trim_back(&m->chain, 1), 0);
		break;
	}
	case 2: {
		unsigned char *p = malloc(n + 1);

		memcpy(p, bytes, n);
		p[n] = '?';
		wrapped_live++;
		cr_assert_eq(quarry_chain_append_wrapped(&m->chain, p, n + 1, released, p + n + 1), 0);
		cr_assert_eq(quarry_chain_trim_back(&m->chain, 1), 0);
		break;
	}
	default: {
		static unsigned char constant[MODEL_MAX];
		static bool filled;
		size_t at = rng_below(rng, MODEL_MAX - n + 1);

		if (!filled)
			rng_fill(rng, constant, sizeof(constant));
		filled = true;
		cr_assert_eq(quarry_chain_append_borrowed(&m->chain, constant + at, n), 0);
		model_edit(m, m->len, 0, constant + at, n);
		return;
	}
	}
	model_edit(m, m->len, 0, bytes, n);
}

static void step_prepend(struct rng *rng, struct model *m, unsigned char *bytes, size_t n)
{
	if (rng_next(rng) & 1) {
		cr_assert_eq(quarry_chain_prepend_copy(&m->chain, bytes, n), 0);
	} else {
		quarry_storage *s = quarry_storage_alloc(NULL, n + 100);
		unsigned char *p = (unsigned char *)quarry_storage_data(s) + rng_below(rng, 100);

		memcpy(p, bytes, n);
		cr_assert_eq(quarry_chain_prepend(&m->chain, s, p, n), 0);
		quarry_storage_unref(s);
	}
	model_edit(m, 0, 0, bytes, n);
}

/* Cut a piece out, and put it on another chain's front or end. */
static void step_split(struct rng *rng, struct model *m, struct model *other)
{
	quarry_chain tail = { .len = 0 };
	size_t at = rng_below(rng, m->len + 1);

	cr_assert_eq(quarry_chain_split(&m->chain, at, &tail), 0);
	cr_assert_eq(tail.len, m->len - at);
	if (m == other || other->len + m->len - at > MODEL_MAX || rng_below(rng, 3) == 0) {
		cr_assert_eq(quarry_chain_append_chain(&m->chain, &tail), 0);
	} else if (rng_next(rng) & 1) {
		cr_assert_eq(quarry_chain_append_chain(&other->chain, &tail), 0);
		model_edit(other, other->len, 0, m->flat + at, m->len - at);
		m->len = at;
	} else {
		cr_assert_eq(quarry_chain_prepend_chain(&other->chain, &tail), 0);
		model_edit(other, 0, 0, m->flat + at, m->len - at);
		m->len = at;
	}
	cr_assert(tail.len == 0 && tail.first == NULL && tail.last == NULL && tail.segs == 0);
}

static void step_clone(struct rng *rng, struct model *m, struct model *other)
{
	size_t at = rng_below(rng, m->len + 1), n = rng_below(rng, m->len - at + 1);
	unsigned char *copy = malloc(n + 1);

	memcpy(copy, m->flat + at, n);
	if (other->len + n <= MODEL_MAX) {
		bool all = n == m->len - at && (rng_next(rng) & 1);

		cr_assert_eq(quarry_chain_clone(&m->chain, at, all ? QUARRY_CHAIN_ALL : n, &other->chain), 0);
		model_edit(other, other->len, 0, copy, n);
	}
	free(copy);
}

static void step_copy_in(struct rng *rng, struct model *m, const unsigned char *bytes, size_t n)
{
	size_t at = rng_below(rng, m->len + 1);

	if (at + n > m->len) {
		expect_error(quarry_chain_copy_in(&m->chain, at, bytes, n), ERANGE);
	} else if (quarry_chain_copy_in(&m->chain, at, bytes, n) == 0) {
		model_edit(m, at, n, bytes, n);
	} else {
		cr_assert(errno == EBUSY || errno == EACCES);
	}
}

static void step_read(struct rng *rng, struct model *m, struct model *other)
{
	size_t at = rng_below(rng, m->len + 1), n = rng_below(rng, m->len - at + 1), sum = 0, max = rng_below(rng, 20);
	unsigned char *copy = malloc(n + 1), what[5];
	size_t k = 1 + rng_below(rng, sizeof(what));
	struct iovec iov[20];
	void *found;
	int64_t told;
	int order;
	uint64_t bytes;

	copy[n] = '#';
	cr_assert_eq(quarry_chain_copy_out(&m->chain, at, copy, n), 0);
	cr_assert(memcmp(copy, m->flat + at, n) == 0 && copy[n] == '#');
	free(copy);
	told = quarry_chain_iov(&m->chain, at, iov, max, &bytes);
	cr_assert(told >= 0 && (size_t)told <= max);
	for (int64_t i = 0; i < told; i++) {
		cr_assert_eq(memcmp(iov[i].iov_base, m->flat + at + sum, iov[i].iov_len), 0);
		sum += iov[i].iov_len;
	}
	cr_assert(sum == bytes && ((size_t)told == max || sum == m->len - at));
	rng_fill(rng, what, k);
	found = memmem(m->flat + at, m->len - at, what, k);
	told = quarry_chain_find(&m->chain, at, what, k);
	cr_assert_eq(told, found == NULL ? -1 : (unsigned char *)found - m->flat);
	order = memcmp(m->flat, other->flat, m->len < other->len ? m->len : other->len);
	if (order == 0)
		order = (m->len > other->len) - (m->len < other->len);
	told = quarry_chain_compare(&m->chain, &other->chain);
	cr_assert((told < 0) == (order < 0) && (told > 0) == (order > 0));
	cr_assert_eq(quarry_chain_compare_bytes(&m->chain, m->flat, m->len), 0);
}

static void step(struct rng *rng, struct model *m, struct model *other)
{
	static unsigned char bytes[MODEL_MAX];
	size_t n = rng_size(rng, MODEL_MAX - m->len);

	rng_fill(rng, bytes, n);
	switch (rng_below(rng, 12)) {
	case 0:
	case 1: step_append(rng, m, bytes, n); break;
	case 2: step_prepend(rng, m, bytes, n); break;
	case 3: step_split(rng, m, other); break;
	case 4:
	case 5: step_clone(rng, m, other); break;
	case 6: step_copy_in(rng, m, bytes, n); break;
	case 7:
		n = rng_below(rng, m->len + 1);
		cr_assert_eq(quarry_chain_trim_front(&m->chain, n), 0);
		model_edit(m, 0, n, NULL, 0);
		break;
	case 8:
		n = rng_below(rng, m->len + 1);
		cr_assert_eq(quarry_chain_trim_back(&m->chain, n), 0);
		m->len -= n;
		break;
	case 9:
		n = rng_below(rng, m->len + 1);
		if (n > 0)
			cr_assert_eq(memcmp(quarry_chain_coalesce(&m->chain, n), m->flat, n), 0);
		if (n > 0)
			cr_assert_geq(m->chain.first->len, n);
		break;
	case 10:
		if (rng_below(rng, 30) == 0) {
			quarry_chain_free(&m->chain);
			m->len = 0;
		}
		break;
	default: step_read(rng, m, other); break;
	}
	model_check(m);
	model_check(other);
}

Test(chain, random_steps_against_a_flat_string)
{
	struct rng rng = rng_start(20260801);
	struct model m[CHAINS];

	for (int i = 0; i < CHAINS; i++)
		model_init(&m[i]);
	for (int i = 0; i < scaled(STEPS); i++)
		step(&rng, &m[rng_below(&rng, CHAINS)], &m[rng_below(&rng, CHAINS)]);
	for (int i = 0; i < CHAINS; i++)
		model_check(&m[i]);
	for (int i = 0; i < CHAINS; i++)
		model_end(&m[i]);
	cr_assert_eq(wrapped_live, 0, "%zu wrapped were not released", wrapped_live);
}

/* The same with copies past the caches, of what is long enough for both kinds to be in one. */
Test(chain, random_steps_past_the_caches)
{
	struct rng rng = rng_start(9);
	struct model m;

	quarry_copy_set_stream_min(100);
	model_init(&m);
	for (int i = 0; i < scaled(STEPS / 4); i++)
		step(&rng, &m, &m);
	model_end(&m);
	cr_assert_eq(wrapped_live, 0);
}

/* ---- in place or not ---- */

Test(chain, room_is_used_where_nobody_shares_it)
{
	quarry_storage *s = quarry_storage_alloc(NULL, 1000);
	unsigned char *base = quarry_storage_data(s);
	size_t size = quarry_storage_size(s);
	quarry_chain a = { .len = 0 }, b = { .len = 0 };

	memset(base, '.', size);
	memcpy(base + 100, "middle", 6);
	cr_assert_eq(quarry_chain_append(&a, s, base + 100, 6), 0);
	cr_assert(quarry_chain_headroom(&a) == 0 && quarry_chain_tailroom(&a) == 0, "it is shared with s");
	quarry_storage_unref(s);
	cr_assert(quarry_chain_headroom(&a) == 100 && quarry_chain_tailroom(&a) == size - 106);
	cr_assert_eq(quarry_chain_clone(&a, 0, 6, &b), 0);
	cr_assert(quarry_chain_headroom(&a) == 0 && quarry_chain_tailroom(&a) == 0);
	cr_assert_eq(quarry_chain_append_copy(&a, "behind", 6), 0);
	cr_assert(a.segs == 2 && base[106] == '.');
	cr_assert_eq(quarry_chain_trim_back(&a, 6), 0);
	quarry_chain_free(&b);
	cr_assert_eq(quarry_chain_append_copy(&a, "-end", 4), 0);
	cr_assert_eq(quarry_chain_prepend_copy(&a, "header-", 7), 0);
	cr_assert(a.segs == 1 && a.first->data == base + 93);
	cr_assert_eq(memcmp(base + 92, ".header-middle-end.", 19), 0);
	cr_assert_eq(quarry_chain_compare_bytes(&a, "header-middle-end", 17), 0);
	/* Two segments have two shares, though nobody else has one. */
	cr_assert(quarry_chain_split(&a, 7, &b) == 0 && quarry_chain_append_chain(&a, &b) == 0);
	cr_assert(a.segs == 2 && quarry_chain_headroom(&a) == 0 && quarry_chain_tailroom(&a) == 0);
	expect_error(quarry_chain_copy_in(&a, 0, "H", 1), EBUSY);
	cr_assert_eq(quarry_chain_trim_back(&a, 10), 0);
	cr_assert_eq(quarry_chain_copy_in(&a, 0, "H", 1), 0);
	cr_assert_eq(quarry_chain_tailroom(&a), size - 100);
	quarry_chain_free(&a);
}

Test(chain, what_is_borrowed_or_for_reading_is_never_written_to)
{
	static char memory[] = "0123456789";
	quarry_storage *s = quarry_storage_wrap(memory, 10, NULL, NULL, QUARRY_STORAGE_READONLY);
	quarry_chain a = { .len = 0 };

	cr_assert_eq(quarry_chain_append_borrowed(&a, memory, 10), 0);
	cr_assert_eq(quarry_chain_append(&a, s, memory, 10), 0);
	quarry_storage_unref(s);
	cr_assert_eq(quarry_chain_trim_front(&a, 3), 0);
	cr_assert_eq(quarry_chain_trim_back(&a, 3), 0);
	cr_assert(quarry_chain_headroom(&a) == 0 && quarry_chain_tailroom(&a) == 0);
	expect_error(quarry_chain_copy_in(&a, 0, "x", 1), EACCES);
	expect_error(quarry_chain_copy_in(&a, 8, "x", 1), EACCES);
	expect_error(quarry_cseg_copy_in(a.first, 0, "x", 1), EACCES);
	expect_error(quarry_cseg_copy_in(a.last, 0, "x", 1), EACCES);
	cr_assert_eq(quarry_chain_append_copy(&a, "tail", 4), 0);
	cr_assert_eq(quarry_chain_prepend_copy(&a, "head", 4), 0);
	cr_assert_eq(quarry_chain_copy_in(&a, 0, "HE", 2), 0);
	cr_assert_eq(quarry_cseg_copy_in(a.last, 1, "AIL", 3), 0);
	expect_error(quarry_cseg_copy_in(a.last, 1, NULL, 3), EINVAL);
	expect_error(quarry_chain_copy_in(&a, 3, "xx", 2), EACCES);
	cr_assert_eq(memcmp(quarry_chain_coalesce(&a, QUARRY_CHAIN_ALL), "HEad34567890123456tAIL", 22), 0);
	cr_assert(a.segs == 1 && a.len == 22);
	cr_assert_str_eq(memory, "0123456789");
	quarry_chain_free(&a);
}

/* A header in front of each clone of one payload, as a server that sends to many has it. */
Test(chain, coalescing_a_part_leaves_the_rest_where_it_is)
{
	quarry_chain a = { .len = 0 };
	unsigned char *second;

	cr_assert_eq(quarry_chain_append_borrowed(&a, "abc", 3), 0);
	cr_assert_eq(quarry_chain_append_borrowed(&a, "defghi", 6), 0);
	second = a.last->data;
	cr_assert_eq(quarry_chain_coalesce(&a, 3), a.first->data);
	cr_assert_eq(a.segs, 2);
	cr_assert_eq(memcmp(quarry_chain_coalesce(&a, 5), "abcde", 5), 0);
	cr_assert(a.segs == 2 && a.first->len == 5 && a.last->data == second + 2 && a.len == 9);
	cr_assert_eq(memcmp(quarry_chain_coalesce(&a, 7), "abcdefg", 7), 0);
	cr_assert(a.last->data == second + 4, "the new memory had room");
	cr_assert_eq(quarry_chain_compare_bytes(&a, "abcdefghi", 9), 0);
	quarry_chain_free(&a);
}

/* ---- real writev and readv, with partial sends ---- */

static void receive(int fd, quarry_chain *in, size_t chunk)
{
	struct iovec iov[2];
	unsigned char *p = quarry_malloc(chunk);
	ssize_t n;

	iov[0] = (struct iovec){ p, chunk / 3 };
	iov[1] = (struct iovec){ p + chunk / 3, chunk - chunk / 3 };
	n = readv(fd, iov, 2);
	if (n > 0)
		cr_assert_eq(quarry_chain_append_owned(in, p, (size_t)n), 0);
	else
		quarry_free(p);
}

Test(chain, through_a_socket_in_parts)
{
	struct rng rng = rng_start(77);
	struct model m;
	quarry_chain out = { .len = 0 }, in = { .len = 0 };
	struct iovec iov[7];
	int fd[2], partial = 0, size = 4096;

	model_init(&m);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
	cr_assert_eq(setsockopt(fd[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)), 0);
	while (m.len < MODEL_MAX - 20000) {
		unsigned char bytes[16384];
		size_t n = 1 + rng_below(&rng, sizeof(bytes));

		rng_fill(&rng, bytes, n);
		step_append(&rng, &m, bytes, n);
	}
	cr_assert_eq(quarry_chain_clone(&m.chain, 0, QUARRY_CHAIN_ALL, &out), 0);
	while (in.len < m.len) {
		uint64_t told = 0;
		long n = quarry_chain_iov(&out, 0, iov, 7, &told);
		ssize_t sent = n > 0 ? writev(fd[0], iov, (int)n) : 0;

		if (sent > 0)
			cr_assert_eq(quarry_chain_trim_front(&out, (uint64_t)sent), 0);
		partial += sent > 0 && (uint64_t)sent < told;
		receive(fd[1], &in, 1 + rng_below(&rng, 3000));
	}
	cr_assert_gt(partial, 0, "no send was partial");
	cr_assert_eq(quarry_chain_compare(&in, &m.chain), 0);
	cr_assert_eq(out.len, 0);
	quarry_chain_free(&in);
	model_end(&m);
	close(fd[0]);
	close(fd[1]);
}
