/* SPDX-License-Identifier: MIT */
/* Chains: every operation against a flat string, at random; every error; who frees what, and when; and that warm chains
 * allocate nothing, by the heap profile, which knows each allocation with a mean of 1. */
#include "tests/unit/chain_model.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/object/storage.h"

#define CHAINS 6
#define STEPS 40000

#define expect_error(call, error) \
	do { \
		errno = 0; \
		cr_expect((call) == -1 && errno == (error), "%s: errno %d", #call, errno); \
	} while (0)

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
Test(chain, copies_past_the_caches_are_the_same)
{
	static unsigned char from[4096], to[4096], want[4096];
	struct rng rng = rng_start(9);
	struct model m;

	cr_assert_eq(quarry_copy_set_stream_min(1), QUARRY_COPY_STREAM_MIN);
	for (int i = 0; i < 20000; i++) {
		size_t at = rng_below(&rng, 200), n = rng_below(&rng, rng_next(&rng) & 1 ? 3500 : 200), src = rng_below(&rng, 200);

		for (size_t k = src; k < src + n; k++)
			from[k] = (unsigned char)rng_next(&rng);
		memset(to, 0x11, sizeof(to));
		memset(want, 0x11, sizeof(want));
		memcpy(want + at, from + src, n);
		cr_assert_eq(quarry_copy_checked(to + at, n, from + src, n), 0);
		cr_assert_eq(memcmp(to, want, sizeof(to)), 0, "%zu bytes from %zu to %zu", n, src, at);
	}
	cr_assert_eq(quarry_copy_set_stream_min(100), 1);
	model_init(&m);
	for (int i = 0; i < scaled(STEPS / 4); i++)
		step(&rng, &m, &m);
	model_end(&m);
	cr_assert_eq(wrapped_live, 0);
	cr_assert_eq(quarry_copy_set_stream_min(0), 100);
	cr_assert_eq(quarry_copy_set_stream_min(QUARRY_COPY_STREAM_MIN), SIZE_MAX);
}

/* ---- who frees what ---- */

static int releases;

static void count_release(void *ctx, void *p, size_t n)
{
	(void)p;
	(void)n;
	++*(int *)ctx;
}

Test(chain, the_last_share_releases_once)
{
	static char memory[100];
	quarry_chain a = { .len = 0 }, b = { .len = 0 }, c = { .len = 0 };
	quarry_storage *s = quarry_storage_wrap(memory, 100, count_release, &releases, 0);

	cr_assert_eq(quarry_storage_refs(s), 1);
	cr_assert_eq(quarry_chain_append(&a, s, memory + 10, 80), 0);
	cr_assert_eq(quarry_storage_refs(s), 2);
	quarry_storage_unref(s);
	cr_assert_eq(quarry_chain_clone(&a, 0, QUARRY_CHAIN_ALL, &b), 0);
	cr_assert_eq(quarry_chain_split(&b, 40, &c), 0);
	cr_assert_eq(quarry_storage_refs(s), 3);
	quarry_chain_free(&a);
	cr_assert_eq(quarry_chain_trim_front(&b, 39), 0);
	cr_assert_eq(quarry_chain_trim_back(&b, 1), 0);
	cr_assert_eq(releases, 0);
	cr_assert_eq(quarry_storage_refs(s), 1);
	quarry_chain_free(&c);
	cr_assert_eq(releases, 1);
	quarry_chain_free(&c);
	quarry_chain_free(NULL);
	quarry_storage_unref(NULL);
	cr_assert_eq(releases, 1);
}

static uint64_t in_use(quarry_arena *arena)
{
	quarry_stats stats = { .version = QUARRY_STATS_VERSION };

	quarry_thread_flush();
	cr_assert_eq(quarry_stats_get(arena, &stats), 0);
	return stats.large;
}

Test(chain, owned_memory_goes_back_to_its_arena)
{
	quarry_arena *arena = quarry_arena_create(NULL);
	quarry_chain a = { .len = 0 }, b = { .len = 0 };
	void *p = quarry_arena_malloc(arena, 1 << 20);
	quarry_storage *s = quarry_storage_alloc(arena, 2 << 20);

	memset(p, 'x', 1 << 20);
	cr_assert_geq(in_use(arena), 3 << 20);
	cr_assert_eq(quarry_chain_append_owned(&a, p, 1 << 20), 0);
	cr_assert_eq(quarry_chain_clone(&a, 1000, 5, &b), 0);
	quarry_chain_free(&a);
	cr_assert_geq(in_use(arena), 3 << 20);
	cr_assert_eq(quarry_chain_compare_bytes(&b, "xxxxx", 5), 0);
	quarry_chain_free(&b);
	cr_assert_lt(in_use(arena), 3 << 20);
	cr_assert_geq(quarry_storage_size(s), 2 << 20);
	quarry_storage_unref(s);
	cr_assert_eq(in_use(arena), 0);
	cr_assert_eq(quarry_arena_destroy(arena), 0);
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
	cr_assert_eq(quarry_chain_append_copy(&a, "tail", 4), 0);
	cr_assert_eq(quarry_chain_prepend_copy(&a, "head", 4), 0);
	cr_assert_eq(quarry_chain_copy_in(&a, 0, "HE", 2), 0);
	expect_error(quarry_chain_copy_in(&a, 3, "xx", 2), EACCES);
	cr_assert_eq(memcmp(quarry_chain_coalesce(&a, QUARRY_CHAIN_ALL), "HEad34567890123456tail", 22), 0);
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

/* ---- errors ---- */

static uint64_t bad_frees(void)
{
	quarry_stats stats = { .version = QUARRY_STATS_VERSION };

	cr_assert_eq(quarry_stats_get(NULL, &stats), 0);
	return stats.bad_frees;
}

Test(chain, errors_change_nothing)
{
	static char memory[64], foreign[64];
	quarry_chain a = { .len = 0 }, b = { .len = 0 };
	quarry_storage *s = quarry_storage_wrap(memory, 64, NULL, NULL, 0);
	quarry_chain_buf bufs[] = { { s, memory, 10 }, { NULL, foreign, 0 }, { s, memory + 60, 5 } };
	struct iovec iov[2] = { { memory, 4 }, { NULL, 4 } };
	void *p = quarry_malloc(1 << 20); /* a block freed twice is always noticed */
	uint64_t bad = bad_frees();

	errno = 0;
	cr_expect(quarry_storage_wrap(NULL, 5, NULL, NULL, 0) == NULL && errno == EINVAL);
	cr_expect(quarry_storage_wrap(memory, 0, NULL, NULL, 0) == NULL && errno == EINVAL);
	cr_expect(quarry_storage_wrap(memory, SIZE_MAX, NULL, NULL, 0) == NULL && errno == EINVAL);
	cr_expect(quarry_storage_wrap(memory, 5, NULL, NULL, 8) == NULL && errno == EINVAL);
	cr_expect(quarry_storage_own(NULL) == NULL && quarry_storage_own(foreign) == NULL && errno == EINVAL);
	cr_expect(quarry_storage_alloc(NULL, 0) == NULL && errno == EINVAL);
	cr_expect(quarry_storage_alloc(NULL, SIZE_MAX / 2) == NULL && errno == ENOMEM);
	cr_expect(quarry_storage_ref(NULL) == NULL && errno == EINVAL);
	cr_expect(quarry_storage_data(NULL) == NULL && quarry_storage_size(NULL) == 0 && quarry_storage_refs(NULL) == 0);
	expect_error(quarry_chain_append(&a, NULL, memory, 5), EINVAL);
	expect_error(quarry_chain_append(NULL, s, memory, 5), EINVAL);
	expect_error(quarry_chain_append(&a, s, memory + 60, 5), ERANGE);
	expect_error(quarry_chain_append(&a, s, foreign, 5), ERANGE);
	expect_error(quarry_chain_prepend(&a, s, memory + 63, 2), ERANGE);
	expect_error(quarry_chain_append(&a, s, memory + 1, SIZE_MAX), ERANGE);
	cr_expect_eq(quarry_chain_append(&a, s, memory + 64, 0), 0);
	expect_error(quarry_chain_append_owned(&a, foreign, 5), EINVAL);
	expect_error(quarry_chain_append_owned(&a, p, quarry_usable_size(p) + 1), ERANGE);
	expect_error(quarry_chain_append_owned(&a, p, 0), EINVAL);
	expect_error(quarry_chain_append_wrapped(&a, NULL, 5, NULL, NULL), EINVAL);
	expect_error(quarry_chain_append_borrowed(&a, NULL, 5), EINVAL);
	expect_error(quarry_chain_append_copy(&a, NULL, 5), EINVAL);
	expect_error(quarry_chain_prepend_copy(NULL, "x", 1), EINVAL);
	expect_error(quarry_chain_from_bufs(&a, bufs, 3), ERANGE);
	expect_error(quarry_chain_from_iov(&a, iov, 2), EINVAL);
	cr_expect(a.len == 0 && a.first == NULL && quarry_storage_refs(s) == 1);
	quarry_free(p); /* it is still ours */
	cr_expect_eq(bad_frees(), bad);
	bufs[2].n = 4;
	cr_expect_eq(quarry_chain_from_bufs(&a, bufs, 3), 0);
	cr_expect(a.len == 14 && a.segs == 2 && quarry_storage_refs(s) == 3);
	expect_error(quarry_chain_append_chain(&a, &a), EINVAL);
	expect_error(quarry_chain_prepend_chain(&a, &a), EINVAL);
	expect_error(quarry_chain_split(&a, 15, &b), ERANGE);
	expect_error(quarry_chain_split(&a, 5, &a), EINVAL);
	cr_expect_eq(quarry_chain_append_borrowed(&b, "x", 1), 0);
	expect_error(quarry_chain_split(&a, 5, &b), EINVAL);
	expect_error(quarry_chain_trim_front(&a, 15), ERANGE);
	expect_error(quarry_chain_trim_back(&a, 15), ERANGE);
	expect_error(quarry_chain_clone(&a, 15, 0, &b), ERANGE);
	expect_error(quarry_chain_clone(&a, 15, QUARRY_CHAIN_ALL, &b), ERANGE);
	expect_error(quarry_chain_clone(&a, 5, 10, &b), ERANGE);
	expect_error(quarry_chain_copy_out(&a, 5, foreign, 10), ERANGE);
	expect_error(quarry_chain_copy_out(&a, 1, foreign, SIZE_MAX), ERANGE);
	expect_error(quarry_chain_copy_out(&a, 0, NULL, 1), EINVAL);
	expect_error(quarry_chain_copy_in(&a, 0, foreign, 5), EBUSY);
	expect_error(quarry_chain_iov(&a, 15, iov, 2, NULL), ERANGE);
	expect_error(quarry_chain_find(&a, 0, "", 0), EINVAL);
	expect_error(quarry_chain_find(&a, 15, "x", 1), ERANGE);
	expect_error(quarry_chain_find(&a, 0, "xyz", 3), ENOENT);
	expect_error(quarry_copy_chain(foreign, 13, &a), ERANGE);
	cr_expect_eq(quarry_copy_chain(foreign, 14, &a), 14);
	memset(foreign, 0, sizeof(foreign));
	memcpy(memory, "abcdefghij", 10);
	expect_error(quarry_copy_bufs(foreign, 13, bufs, 3), ERANGE);
	expect_error(quarry_copy_bufs(NULL, 14, bufs, 3), EINVAL);
	expect_error(quarry_copy_bufs(foreign, 14, NULL, 3), EINVAL);
	cr_expect(foreign[0] == 0 && quarry_copy_bufs(foreign, 14, bufs, 3) == 14);
	cr_expect(memcmp(foreign, memory, 10) == 0 && memcmp(foreign + 10, memory + 60, 4) == 0 && foreign[14] == 0);
	cr_expect(quarry_copy_bufs(NULL, 0, NULL, 0) == 0 && quarry_copy_bufs(foreign, 10, bufs, 1) == 10);
	expect_error(quarry_cseg_copy_in(a.first, 5, foreign, 6), ERANGE);
	expect_error(quarry_cseg_copy_in(a.first, 11, foreign, 0), ERANGE);
	expect_error(quarry_cseg_copy_in(NULL, 0, foreign, 1), EINVAL);
	cr_expect(quarry_cseg_copy_in(a.first, 5, "54321", 5) == 0 && memcmp(memory + 5, "54321", 5) == 0);
	expect_error(quarry_copy_checked(foreign, 5, memory, 6), ERANGE);
	expect_error(quarry_copy_checked(NULL, 5, memory, 5), EINVAL);
	cr_expect_eq(quarry_copy_checked(foreign, 5, memory, 5), 0);
	errno = 0;
	cr_expect(quarry_chain_coalesce(&a, 15) == NULL && errno == ERANGE);
	cr_expect(quarry_chain_coalesce(&a, 0) == NULL && errno == EINVAL);
	cr_expect_eq(quarry_chain_iov(&a, 0, NULL, 0, NULL), 2);
	cr_expect(a.len == 14 && a.segs == 2 && b.len == 1);
	quarry_chain_free(&a);
	quarry_chain_free(&b);
	cr_expect_eq(quarry_storage_refs(s), 1);
	quarry_storage_unref(s);
}

/* A storage with as many shares as can be. */
Test(chain, too_many_shares_are_an_error)
{
	static unsigned char memory[100];
	quarry_storage *s = quarry_storage_wrap(memory, 100, count_release, &releases, 0);
	quarry_chain a = { .len = 0 }, b = { .len = 0 };

	cr_assert_eq(quarry_chain_append_borrowed(&a, memory, 50), 0);
	cr_assert_eq(quarry_chain_append(&a, s, memory, 100), 0);
	atomic_store(&s->refs, QY_STORAGE_REFS_MAX);
	errno = 0;
	cr_expect(quarry_storage_ref(s) == NULL && errno == EOVERFLOW);
	expect_error(quarry_chain_append(&a, s, memory, 100), EOVERFLOW);
	expect_error(quarry_chain_split(&a, 100, &b), EOVERFLOW);
	expect_error(quarry_chain_clone(&a, 0, QUARRY_CHAIN_ALL, &b), EOVERFLOW);
	cr_expect(b.len == 0 && b.first == NULL && a.len == 150 && a.segs == 2);
	cr_expect_eq(quarry_storage_refs(s), QY_STORAGE_REFS_MAX);
	atomic_store(&s->refs, 2);
	cr_expect_eq(quarry_chain_clone(&a, 0, QUARRY_CHAIN_ALL, &b), 0);
	quarry_chain_free(&a);
	quarry_chain_free(&b);
	cr_expect_eq(releases, 0);
	quarry_storage_unref(s);
	cr_expect_eq(releases, 1);
}

/* All arenas of nodes are full: no records come, and no memory for copies. */
static void limit_all(uint64_t limit)
{
	for (int i = 0; i < quarry_node_count(); i++)
		cr_assert_eq(quarry_arena_set_limits(quarry_arena_of_node(quarry_node_id(i)), limit, 0), 0);
}

Test(chain, without_memory_nothing_changes)
{
	static unsigned char memory[1000];
	quarry_storage *s = quarry_storage_wrap(memory, 1000, count_release, &releases, 0);
	quarry_chain_buf bufs[3] = { { s, memory, 10 }, { NULL, memory, 10 }, { s, memory, 10 } };
	quarry_chain a = { .len = 0 }, b = { .len = 0 };
	void *owned = quarry_malloc(1 << 20);
	uint64_t len, bad = bad_frees();
	size_t segs;

	cr_assert_eq(quarry_chain_append(&a, s, memory, 1000), 0);
	limit_all(1);
	while (quarry_chain_append(&a, s, memory, 10) == 0)
		cr_assert_lt(a.segs, 100000);
	cr_expect_eq(errno, ENOMEM);
	len = a.len;
	segs = a.segs;
	cr_expect_eq(quarry_storage_refs(s), segs + 1);
	expect_error(quarry_chain_prepend(&a, s, memory, 10), ENOMEM);
	expect_error(quarry_chain_append_borrowed(&a, memory, 10), ENOMEM);
	expect_error(quarry_chain_append_owned(&a, owned, 10), ENOMEM);
	expect_error(quarry_chain_append_wrapped(&a, memory, 10, count_release, &releases), ENOMEM);
	expect_error(quarry_chain_append_copy(&a, memory, 10), ENOMEM);
	expect_error(quarry_chain_prepend_copy(&a, memory, 10), ENOMEM);
	expect_error(quarry_chain_split(&a, 500, &b), ENOMEM);
	expect_error(quarry_chain_clone(&a, 0, QUARRY_CHAIN_ALL, &b), ENOMEM);
	cr_expect(quarry_chain_coalesce(&a, 1010) == NULL && errno == ENOMEM);
	cr_expect(quarry_storage_own(owned) == NULL && errno == ENOMEM);
	/* Two records: for a part of what is wanted. */
	cr_assert_eq(quarry_chain_trim_back(&a, 20), 0);
	expect_error(quarry_chain_from_bufs(&a, bufs, 3), ENOMEM);
	expect_error(quarry_chain_clone(&a, 0, QUARRY_CHAIN_ALL, &b), ENOMEM);
	cr_expect(a.len == len - 20 && a.segs == segs - 2 && b.len == 0 && quarry_storage_refs(s) == segs - 1);
	/* What needs no memory goes on. */
	cr_expect(quarry_chain_split(&a, 1000, &b) == 0 && a.len == 1000 && quarry_chain_prepend_chain(&a, &b) == 0);
	limit_all(0);
	cr_expect_eq(quarry_chain_clone(&a, 0, QUARRY_CHAIN_ALL, &b), 0);
	quarry_chain_free(&a);
	quarry_chain_free(&b);
	cr_expect(quarry_storage_refs(s) == 1 && releases == 0 && bad_frees() == bad);
	quarry_storage_unref(s);
	quarry_free(owned);
	cr_expect(releases == 1 && bad_frees() == bad);
}

/* ---- nothing is allocated once warm ---- */

#define PIECES 300

static void round_of_all(quarry_chain *a, unsigned char *memory)
{
	quarry_storage *s = quarry_storage_wrap(memory, PIECES * 10, NULL, NULL, 0);
	quarry_chain b = { .len = 0 }, c = { .len = 0 };

	for (int i = 0; i < PIECES; i++)
		cr_assert_eq(quarry_chain_append(a, s, memory + 10 * i, 10), 0);
	quarry_storage_unref(s);
	cr_assert_eq(quarry_chain_clone(a, 5, 10 * PIECES - 10, &b), 0);
	for (int i = 1; i < PIECES / 2; i++) {
		cr_assert_eq(quarry_chain_split(&b, b.len - 15, &c), 0);
		quarry_chain_free(&c);
	}
	cr_assert_eq(quarry_chain_prepend_chain(a, &b), 0);
	cr_assert_eq(quarry_chain_trim_front(a, 77), 0);
	quarry_chain_free(a);
}

Test(chain, warm_chains_allocate_nothing)
{
	static unsigned char memory[PIECES * 10];
	quarry_chain a = { .len = 0 };
	uint64_t before;

	cr_assert_eq(quarry_profile_start(1), 0);
	before = allocations();
	quarry_free(quarry_malloc(100));
	cr_assert_eq(allocations(), before + 1, "the counter counts");
	round_of_all(&a, memory);
	before = allocations();
	for (int i = 0; i < 2000; i++)
		round_of_all(&a, memory);
	cr_assert_eq(allocations(), before, "%llu allocations", (unsigned long long)(allocations() - before));
	/* The operations that copy write where there is room. */
	cr_assert_eq(quarry_chain_append_copy(&a, memory, 1000), 0);
	before = allocations();
	for (int i = 0; i < 100; i++) {
		cr_assert_eq(quarry_chain_append_copy(&a, memory, 1000), 0);
		cr_assert_eq(quarry_chain_trim_front(&a, 500), 0);
		cr_assert_eq(quarry_chain_prepend_copy(&a, memory, 500), 0);
		cr_assert_eq(quarry_chain_trim_back(&a, 1000), 0);
	}
	cr_assert_eq(allocations(), before);
	quarry_chain_free(&a);
	quarry_profile_stop();
}

/* ---- records: from thread to thread, and what ends leave ---- */

struct handed {
	quarry_chain chain;
	int rounds;
};

static void *free_there(void *arg)
{
	quarry_chain_free(&((struct handed *)arg)->chain);
	return NULL;
}

static void *make_there(void *arg)
{
	struct handed *h = arg;

	for (int i = 0; i < PIECES; i++)
		if (quarry_chain_append_borrowed(&h->chain, "there", 5) != 0)
			return arg;
	return NULL;
}

static void in_thread(void *(*fn)(void *), struct handed *h)
{
	pthread_t thread;
	void *failed;

	cr_assert_eq(pthread_create(&thread, NULL, fn, h), 0);
	cr_assert_eq(pthread_join(thread, &failed), 0);
	cr_assert_null(failed);
}

/* Threads come and go; what they made, and what they freed, is used by those that come after. */
Test(chain, records_of_threads_that_ended_are_used_again)
{
	struct handed h = { .rounds = 0 };
	uint64_t made = 0;

	for (int i = 0; i < 200; i++) {
		in_thread(make_there, &h);
		cr_assert_eq(h.chain.segs, PIECES);
		in_thread(free_there, &h);
		if (i == 20)
			made = qy_records_made();
	}
	cr_assert_eq(qy_records_made(), made);
	for (int i = 0; i < 200; i++) {
		cr_assert_null(make_there(&h));
		in_thread(free_there, &h);
		in_thread(make_there, &h);
		quarry_chain_free(&h.chain);
		if (i == 20)
			made = qy_records_made();
	}
	cr_assert_eq(qy_records_made(), made);
}

/* A list that was taken and came back has another head: who saw the first one, and was held up, is told that it is late. */
Test(chain, the_depot_never_looks_as_it_did_before)
{
	enum { CYCLES = 1000, MANY = 3 * QY_RECORDS_BATCH };
	static uint64_t seen[CYCLES];
	void *record[MANY];
	uint64_t made = 0;

	for (int i = 0; i < CYCLES; i++) {
		for (int k = 0; k < MANY; k++)
			cr_assert_not_null(record[k] = qy_record_get());
		/* (Two fit the thread's own lists.) */
		for (int k = MANY; k-- > 0;)
			qy_record_put(record[k]);
		seen[i] = qy_records_depot();
		for (int k = 0; k < i; k++)
			cr_assert_neq(seen[i], seen[k], "cycles %d and %d", k, i);
		if (i == 0)
			made = qy_records_made();
	}
	cr_assert_eq(qy_records_made(), made);
}

Test(chain, a_child_goes_on_with_copies)
{
	struct handed h = { .rounds = 0 };
	int status;
	pid_t pid;

	cr_assert_eq(quarry_chain_append_copy(&h.chain, "shared memory is not", 20), 0);
	cr_assert_null(make_there(&h));
	pid = fork();
	if (pid == 0) {
		quarry_chain other = { .len = 0 }, tail = { .len = 0 };
		bool fine = quarry_chain_clone(&h.chain, 0, QUARRY_CHAIN_ALL, &other) == 0;

		fine = fine && quarry_chain_split(&h.chain, 7, &tail) == 0;
		fine = fine && quarry_chain_append_copy(&other, "child", 5) == 0;
		fine = fine && quarry_chain_compare_bytes(&h.chain, "shared ", 7) == 0;
		fine = fine && other.len == 25 + 5 * PIECES && tail.len == 13 + 5 * PIECES;
		quarry_chain_free(&h.chain);
		quarry_chain_free(&other);
		quarry_chain_free(&tail);
		_exit(fine ? 0 : 1);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	cr_assert_eq(h.chain.len, 20 + 5 * PIECES);
	quarry_chain_free(&h.chain);
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
