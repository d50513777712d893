/* SPDX-License-Identifier: MIT */
/* Chains: who frees what, and when; every error; too little memory; that warm chains allocate nothing, by the heap
 * profile, which knows each allocation with a mean of 1; and records between threads, and in a child. */
#include "tests/unit/chain_model.h"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/object/storage.h"

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

static quarry_chain used;

static void use_chain(void *ctx, void *p, size_t n)
{
	(void)p;
	(void)n;
	cr_assert_eq(quarry_chain_append_copy(&used, ctx, 1), 0);
	cr_assert_eq(quarry_chain_prepend_copy(&used, "<", 1), 0);
}

/* Three pieces, with what comes when one is let go of. */
static void three(void)
{
	static char memory[3][8];

	while (used.len > 0)
		quarry_chain_free(&used);
	memcpy(memory, "abcde\0\0\0fghij\0\0\0klmno", 22);
	cr_assert_eq(quarry_chain_append_wrapped(&used, memory[0], 5, use_chain, "A"), 0);
	cr_assert_eq(quarry_chain_append_wrapped(&used, memory[1], 5, use_chain, "B"), 0);
	cr_assert_eq(quarry_chain_append_wrapped(&used, memory[2], 5, use_chain, "C"), 0);
}

static void is_used(const char *bytes)
{
	struct model m = { .chain = used, .flat = (unsigned char *)(uintptr_t)bytes, .len = strlen(bytes) };

	model_check(&m);
}

/* It finds the chain whole, and what it does there stays. */
Test(chain, a_release_may_use_the_chain_that_lets_go)
{
	three();
	cr_assert_eq(quarry_chain_trim_back(&used, 7), 0);
	is_used("<abcdefghC");
	three();
	cr_assert_eq(quarry_chain_trim_back(&used, 15), 0);
	is_used("<<<ABC");
	three();
	cr_assert_eq(quarry_chain_trim_front(&used, 12), 0);
	is_used("<<mnoAB");
	three();
	quarry_chain_free(&used);
	is_used("<<<ABC");
	three();
	cr_assert_eq(memcmp(quarry_chain_coalesce(&used, 12), "abcdefghijkl", 12), 0);
	is_used("<<abcdefghijklmnoAB");
	/* Pulled up to behind the first. */
	three();
	cr_assert_eq(quarry_chain_prepend_copy(&used, "first", 5), 0);
	memcpy(used.first->data = used.first->storage->base, "first", 5);
	cr_assert_eq(memcmp(quarry_chain_coalesce(&used, 17), "firstabcdefghijkl", 17), 0);
	cr_assert_eq(used.first->next->len, 17);
	is_used("<<firstabcdefghijklmnoAB");
	while (used.len > 0)
		quarry_chain_free(&used);
}

static void aborts(quarry_storage *s)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		signal(SIGABRT, SIG_DFL);
		(void)!freopen("/dev/null", "w", stderr);
		quarry_storage_unref(s);
		_exit(0);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "status 0x%x", (unsigned)status);
}

Test(chain, a_share_let_go_of_twice_ends_the_process)
{
	static char memory[100];
	quarry_storage *s = quarry_storage_wrap(memory, 100, NULL, NULL, 0);
	quarry_chain a = { .len = 0 };

	quarry_storage_unref(s);
	aborts(s);
	for (int i = 0; i < 2; i++)
		cr_assert_eq(quarry_chain_append_borrowed(&a, memory, 100), 0);
	cr_assert_eq((void *)a.first, (void *)s, "its record is a segment now");
	if (QY_DEBUG > 0)
		aborts(s);
	quarry_chain_free(&a);
	s = quarry_storage_wrap(memory, 100, NULL, NULL, QUARRY_STORAGE_READONLY);
	cr_assert_eq(quarry_storage_ref(s), s);
	quarry_storage_unref(s);
	quarry_storage_unref(s);
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
	cr_expect(quarry_storage_data(NULL) == NULL && quarry_storage_size(NULL) == 0);
	cr_expect(quarry_storage_refs(NULL) == 0);
	expect_error(quarry_chain_append(&a, NULL, memory, 5), EINVAL);
	expect_error(quarry_chain_append(NULL, s, memory, 5), EINVAL);
	expect_error(quarry_chain_append(&a, s, memory + 60, 5), ERANGE);
	expect_error(quarry_chain_append(&a, s, foreign, 5), ERANGE);
	expect_error(quarry_chain_prepend(&a, s, memory + 63, 2), ERANGE);
	expect_error(quarry_chain_append(&a, s, memory + 1, SIZE_MAX), ERANGE);
	cr_expect_eq(quarry_chain_append(&a, s, memory + 64, 0), 0);
	cr_expect(quarry_chain_append(&a, s, NULL, 0) == 0 && quarry_chain_prepend(&a, s, foreign + 63, 0) == 0);
	cr_expect(quarry_chain_from_bufs(&a, (quarry_chain_buf[]){ { s, NULL, 0 }, { NULL, NULL, 0 } }, 2) == 0);
	expect_error(quarry_chain_append(&a, NULL, NULL, 0), EINVAL);
	expect_error(quarry_chain_append(&a, s, NULL, 1), EINVAL);
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
	expect_error(quarry_cseg_copy_in(a.first, 5, "54321", 5), EBUSY);
	cr_expect_eq(memcmp(memory, "abcdefghij", 10), 0);
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

/* Lengths that others tell of: none makes a chain that is longer than can be told. */
Test(chain, too_many_bytes_are_an_error)
{
	static char memory[16] = "0123456789";
	const size_t half = (size_t)1 << 62;
	struct iovec beyond = { memory, SIZE_MAX }, two[2] = { { memory, 5 }, { memory, 2 * half - 5 } };
	quarry_chain_buf bufs[2] = { { NULL, memory, half }, { NULL, memory, half } };
	quarry_chain a = { .len = 0 }, b = { .len = 0 }, rest = { .len = 0 };

	expect_error(quarry_chain_append_borrowed(&a, memory, SIZE_MAX), EINVAL);
	expect_error(quarry_chain_append_borrowed(&a, memory, UINTPTR_MAX - (uintptr_t)memory + 1), EINVAL);
	expect_error(quarry_chain_from_iov(&a, &beyond, 1), EINVAL);
	expect_error(quarry_chain_append_borrowed(&a, memory, 2 * half), EOVERFLOW);
	expect_error(quarry_chain_append_wrapped(&a, memory, 2 * half, count_release, &releases), EOVERFLOW);
	expect_error(quarry_chain_from_iov(&a, two, 2), EOVERFLOW);
	expect_error(quarry_chain_from_bufs(&a, bufs, 2), EOVERFLOW);
	expect_error(quarry_copy_bufs(memory, SIZE_MAX, bufs, 2), ERANGE);
	cr_assert(a.len == 0 && a.first == NULL && releases == 0);
	cr_assert_eq(quarry_chain_append_borrowed(&a, memory, half), 0);
	cr_assert_eq(quarry_chain_append_borrowed(&a, memory, half - 1), 0);
	cr_assert_eq(quarry_chain_append_borrowed(&b, memory, 1), 0);
	expect_error(quarry_chain_append_borrowed(&a, memory, 1), EOVERFLOW);
	expect_error(quarry_chain_append_copy(&a, memory, 1), EOVERFLOW);
	expect_error(quarry_chain_prepend_copy(&a, memory, 1), EOVERFLOW);
	expect_error(quarry_chain_from_iov(&a, two, 1), EOVERFLOW);
	expect_error(quarry_chain_clone(&a, 0, 1, &a), EOVERFLOW);
	expect_error(quarry_chain_append_chain(&a, &b), EOVERFLOW);
	expect_error(quarry_chain_prepend_chain(&a, &b), EOVERFLOW);
	expect_error(quarry_copy_chain(memory, 16, &a), ERANGE);
	cr_assert(a.len == INT64_MAX && a.segs == 2 && b.len == 1 && b.segs == 1);
	/* As long as can be is no different from others. */
	cr_assert_eq(quarry_chain_split(&a, half - 1, &rest), 0);
	cr_assert(quarry_chain_append_chain(&a, &b) == 0 && quarry_chain_trim_front(&rest, 1) == 0);
	cr_assert(quarry_chain_append_chain(&a, &rest) == 0 && a.len == INT64_MAX && a.segs == 3);
	quarry_chain_free(&a);
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

/* As many as go to the depot when they are put, but for what the thread's own lists have room for. */
#define MANY (5 * QY_RECORDS_BATCH)

static void fill_depot(void)
{
	void *record[MANY];

	for (int k = 0; k < MANY; k++)
		cr_assert_not_null(record[k] = qy_record_get());
	for (int k = MANY; k-- > 0;)
		qy_record_put(record[k]);
}

static atomic_bool has_taken;

static void *take_there(void *arg)
{
	void *record = qy_record_get();

	atomic_store(&has_taken, true);
	qy_record_put(record);
	return record == NULL ? arg : NULL;
}

/* Of two, one could be held up until what it saw on top is there again, over another list. */
Test(chain, one_at_a_time_takes_of_the_depot)
{
	struct handed h = { .rounds = 0 };
	pthread_t thread;
	uint64_t made;

	fill_depot();
	made = qy_records_made();
	qy_lock(&qy_records_taking);
	cr_assert_eq(pthread_create(&thread, NULL, take_there, &h), 0);
	while (atomic_load(&qy_records_taking.state) != 2 && !atomic_load(&has_taken))
		sched_yield();
	cr_expect(!atomic_load(&has_taken), "it waits for its turn");
	qy_record_put_slow(qy_record_get()); /* whoever gives does not */
	qy_unlock(&qy_records_taking);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert(atomic_load(&has_taken));
	cr_assert_eq(qy_records_made(), made);
}

static pthread_barrier_t at_it;

static void *be_taking(void *arg)
{
	qy_lock(&qy_records_taking);
	pthread_barrier_wait(&at_it);
	pthread_barrier_wait(&at_it);
	qy_unlock(&qy_records_taking);
	return arg;
}

Test(chain, a_child_takes_what_another_thread_was_just_taking)
{
	uint64_t made;
	pthread_t thread;
	int status;
	pid_t pid;

	fill_depot();
	made = qy_records_made();
	pthread_barrier_init(&at_it, NULL, 2);
	cr_assert_eq(pthread_create(&thread, NULL, be_taking, NULL), 0);
	pthread_barrier_wait(&at_it);
	pid = fork();
	if (pid == 0) {
		alarm(20);
		fill_depot();
		_exit(qy_records_made() != made);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0, "the child's status is %x", (unsigned)status);
	pthread_barrier_wait(&at_it);
	pthread_join(thread, NULL);
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
