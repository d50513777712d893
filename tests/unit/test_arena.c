/* SPDX-License-Identifier: MIT */
/* Arenas, thread default arenas and quarry_where: every promise that the header makes for them, errors among them. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "include/quarry/quarry.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define COUNT(a) (sizeof(a) / sizeof *(a))

static const size_t sizes[] = { 1, 16, 100, 1000, 5000, 20 * KIB, 40 * KIB, 200 * KIB, MIB, 5 * MIB };

static quarry_arena *make(const char *name, uint32_t flags, int policy, int pages)
{
	quarry_arena_attr attr = { .struct_size = sizeof attr, .flags = flags, .policy = policy, .page_kind = pages };
	quarry_arena *arena;

	if (policy != QUARRY_POLICY_LOCAL)
		quarry_nodeset_add(&attr.nodes, (unsigned)quarry_node_id(0));
	snprintf(attr.name, sizeof attr.name, "%s", name);
	arena = quarry_arena_create(&attr);
	cr_assert_not_null(arena, "arena \"%s\": errno %d: %s", name, errno, quarry_error_text());
	return arena;
}

static quarry_stats stats_of(quarry_arena *arena)
{
	quarry_stats stats = { .version = QUARRY_STATS_VERSION };

	cr_assert_eq(quarry_stats_get(arena, &stats), 0);
	return stats;
}

#define expect_error(call, error) \
	do { \
		errno = 0; \
		cr_expect((call) == -1 && errno == (error), "%s: errno %d", #call, errno); \
	} while (0)

/* ------------------------------------------------------------------------------------------------------ */
/* Making and naming                                                                                      */

/* Arenas that have much one after the other never had it together. */
Test(arena, the_peak_of_all_is_of_one_moment)
{
	uint64_t alone = 0, at_start = stats_of(NULL).peak_mapped, mapped;

	for (int i = 0; i < 4; i++) {
		quarry_arena *arena = make("one after the other", 0, QUARRY_POLICY_LOCAL, QUARRY_PAGES_BASE);

		cr_assert_not_null(quarry_arena_malloc(arena, 64 * MIB));
		alone = stats_of(arena).peak_mapped;
		cr_assert_eq(quarry_arena_destroy(arena), 0);
	}
	cr_assert_geq(alone, 64 * MIB);
	cr_assert_geq(stats_of(NULL).peak_mapped, alone);
	cr_assert_lt(stats_of(NULL).peak_mapped, at_start + 2 * alone);
	mapped = stats_of(NULL).mapped;
	cr_assert_geq(stats_of(NULL).peak_mapped, mapped);
}

Test(arena, made_with_and_without_attributes)
{
	quarry_arena_attr attr = { .name = "buffers", .hard_limit = 8 * MIB, .soft_limit = MIB }; /* struct_size 0: this
	                                                                                           * one */
	quarry_arena *plain = quarry_arena_create(NULL), *named = quarry_arena_create(&attr);
	quarry_stats stats;

	cr_assert(plain != NULL && named != NULL && plain != named);
	cr_assert_str_eq(quarry_arena_name(plain), "");
	cr_assert_str_eq(quarry_arena_name(named), "buffers");
	stats = stats_of(named);
	cr_assert_str_eq(stats.name, "buffers");
	cr_assert(stats.node == -1 && stats.arenas == 1 && stats.hard_limit == 8 * MIB && stats.soft_limit == MIB);
	cr_assert_eq(quarry_arena_destroy(plain), 0);
	cr_assert_eq(quarry_arena_destroy(named), 0);
}

Test(arena, a_bad_field_is_named)
{
	quarry_arena_attr good = { .struct_size = sizeof good }, attr;
	static const struct {
		const char *word;
	} field[] = { { "polic" }, { "polic" }, { "page" }, { "page" }, { "flag" }, { "size" }, { "node" } };

	for (unsigned i = 0; i < COUNT(field); i++) {
		attr = good;
		switch (i) {
		case 0: attr.policy = 99; break;
		case 1: attr.policy = -1; break;
		case 2: attr.page_kind = 77; break;
		case 3: attr.page_kind = -1; break;
		case 4: attr.flags = 0x80000; break;
		case 5: attr.struct_size = 3; break;
		default: /* a node that no machine of today has */
			attr.policy = QUARRY_POLICY_BIND;
			quarry_nodeset_add(&attr.nodes, 1023);
			break;
		}
		errno = 0;
		cr_expect(quarry_arena_create(&attr) == NULL && errno == EINVAL, "case %u: errno %d", i, errno);
		cr_expect_not_null(strstr(quarry_error_text(), field[i].word), "case %u: \"%s\" names no %s", i,
				   quarry_error_text(), field[i].word);
	}
}

Test(arena, a_name_without_an_end_is_no_overrun)
{
	quarry_arena_attr attr = { .struct_size = sizeof attr };
	quarry_arena *arena;

	memset(attr.name, 'x', sizeof attr.name);
	errno = 0;
	arena = quarry_arena_create(&attr);
	if (arena == NULL) {
		cr_assert_eq(errno, EINVAL);
		return;
	}
	cr_assert_lt(strlen(quarry_arena_name(arena)), QUARRY_ARENA_NAME_MAX);
	cr_assert_eq(quarry_arena_destroy(arena), 0);
}

Test(arena, the_list_has_all_oldest_first)
{
	quarry_arena *a = make("one", 0, 0, 0), *b = make("two", 0, 0, 0), *list[64];
	size_t n = quarry_arenas(list, COUNT(list)), ia = n, ib = n;

	cr_assert(n >= 2 && n < COUNT(list));
	for (size_t i = 0; i < n; i++) {
		ia = list[i] == a ? i : ia;
		ib = list[i] == b ? i : ib;
	}
	cr_assert(ia < ib && ib < n);
	list[1] = NULL;
	cr_assert_eq(quarry_arenas(list, 1), n);
	cr_assert_null(list[1]);
	cr_assert_eq(quarry_arenas(NULL, 0), n);
	cr_assert(quarry_arena_destroy(a) == 0 && quarry_arena_destroy(b) == 0);
	cr_assert_eq(quarry_arenas(NULL, 0), n - 2);
}

/* ------------------------------------------------------------------------------------------------------ */
/* Where pointers belong                                                                                  */

Test(arena, pointers_know_their_arena)
{
	quarry_arena *a = make("a", 0, 0, 0), *b = make("b", 0, 0, 0);

	for (unsigned i = 0; i < COUNT(sizes); i++) {
		size_t got;
		unsigned char *p[5] = { quarry_arena_malloc(a, sizes[i]), quarry_arena_calloc(a, 1, sizes[i]),
					quarry_arena_aligned_alloc(a, 256, sizes[i]), quarry_arena_realloc(a, NULL, sizes[i]),
					quarry_arena_malloc_at_least(a, sizes[i], &got) };
		for (unsigned k = 0; k < 5; k++) {
			cr_assert_not_null(p[k]);
			cr_assert_eq(quarry_arena_of(p[k]), a, "%zu bytes, way %u", sizes[i], k);
			/* Not b's: refused, and left alone. */
			p[k][0] = 0x77;
			expect_error(quarry_arena_free(b, p[k]), EINVAL);
			cr_assert(p[k][0] == 0x77 && quarry_arena_of(p[k]) == a);
			/* Resized it stays, whatever arena is named and whatever the thread's default is. */
			cr_assert_eq(quarry_thread_set_arena(b, NULL), 0);
			p[k] = quarry_realloc(p[k], sizes[i] * 3 + 100);
			cr_assert_eq(quarry_arena_of(p[k]), a);
			p[k] = quarry_arena_realloc(b, p[k], sizes[i]);
			cr_assert(quarry_arena_of(p[k]) == a && p[k][0] == 0x77);
			cr_assert_eq(quarry_thread_set_arena(NULL, NULL), 0);
		}
		cr_assert_eq(got, quarry_usable_size(p[4]));
		for (unsigned k = 0; k < 4; k++)
			cr_assert_eq(quarry_arena_free(a, p[k]), 0);
		quarry_free(p[4]);
	}
	quarry_thread_flush();
	cr_assert_eq(stats_of(a).in_use, 0);
	cr_assert(quarry_arena_destroy(a) == 0 && quarry_arena_destroy(b) == 0);
}

Test(arena, node_arenas_are_arenas)
{
	char name[32];
	void *p = quarry_malloc(100);
	quarry_arena *node = quarry_arena_of_node(quarry_node_current());

	cr_assert_not_null(node);
	cr_assert_eq(quarry_arena_of(p), node);
	snprintf(name, sizeof name, "node %d", quarry_node_current());
	cr_assert_str_eq(quarry_arena_name(node), name);
	cr_assert_eq(stats_of(node).node, quarry_node_current());
	quarry_free(p);
	p = quarry_arena_malloc(node, 3000);
	cr_assert_eq(quarry_arena_of(p), node);
	cr_assert_eq(quarry_arena_free(node, p), 0);
	expect_error(quarry_arena_destroy(node), EPERM);
	expect_error(quarry_arena_reset(node), EPERM);
	errno = 0;
	cr_assert(quarry_arena_of_node(QUARRY_NODES_MAX - 1) == NULL && errno == EINVAL);
	errno = 0;
	cr_assert(quarry_arena_of_node(-1) == NULL && errno == EINVAL);
	errno = 0;
	cr_assert(quarry_arena_of(NULL) == NULL && errno == EINVAL);
}

/* A large block that was shrunk in place and then moved by its pages leaves its old tail behind, full of the program's
 * bytes: calloc must not take that for fresh. In base pages and in transparent huge ones, where pages can be moved. */
Test(arena, what_a_moved_block_leaves_is_zeroed)
{
	for (int kind = QUARRY_PAGES_BASE; kind <= QUARRY_PAGES_THP; kind++) {
		quarry_arena *a = make("moved", 0, 0, kind);
		unsigned char *p = quarry_arena_malloc(a, 4 * MIB), *wall = quarry_arena_malloc(a, 4 * MIB);
		cr_assert(p != NULL && wall != NULL);
		memset(p, 0xff, 4 * MIB);
		memset(wall, 0xff, 4 * MIB);
		p = quarry_realloc(p, 2 * MIB + 4096);
		cr_assert_not_null(p);
		p = quarry_realloc(p, 40 * MIB);
		cr_assert_not_null(p);
		for (size_t i = 0; i < 2 * MIB + 4096; i++)
			cr_assert_eq(p[i], 0xff);
		for (unsigned i = 0; i < 8; i++) {
			unsigned char *q = quarry_arena_calloc(a, 1, 4 * MIB);
			cr_assert_not_null(q);
			for (size_t k = 0; k < 4 * MIB; k++)
				cr_assert(q[k] == 0, "page kind %d: byte %zu is %#x", kind, k, q[k]);
		}
		cr_assert_eq(quarry_arena_destroy(a), 0);
	}
}

/* ------------------------------------------------------------------------------------------------------ */
/* Limits                                                                                                 */

Test(arena, a_hard_limit_is_hard)
{
	static const size_t pieces[] = { 64, 1000, 10000, 60 * KIB, 300 * KIB };
	static void *p[300000];

	for (unsigned s = 0; s < COUNT(pieces); s++) {
		quarry_arena_attr attr = { .struct_size = sizeof attr, .hard_limit = 4 * MIB };
		quarry_arena *a = quarry_arena_create(&attr);
		uint64_t refused = stats_of(NULL).refused[QUARRY_REFUSED_LIMIT];
		for (unsigned round = 0; round < 3; round++) {
			size_t n = 0, total = 0;
			errno = 0;
			while ((p[n] = quarry_arena_malloc(a, pieces[s])) != NULL) {
				total += quarry_usable_size(p[n++]);
				cr_assert_lt(n, COUNT(p));
			}
			cr_assert_eq(errno, ENOMEM);
			cr_assert(total <= 4 * MIB && total >= 3 * MIB, "pieces of %zu: %zu bytes were got", pieces[s], total);
			errno = 0;
			cr_assert(quarry_arena_calloc(a, 1, MIB) == NULL && errno == ENOMEM);
			errno = 0;
			cr_assert(quarry_arena_aligned_alloc(a, 4096, MIB) == NULL && errno == ENOMEM);
			errno = 0;
			cr_assert(quarry_realloc(p[0], 4 * MIB) == NULL && errno == ENOMEM);
			cr_assert_eq(quarry_arena_of(p[0]), a);
			/* Freed, it can be had again; not even the caches need be flushed for what this thread
			 * freed. */
			while (n > 0)
				quarry_free(p[--n]);
		}
		cr_assert_gt(stats_of(NULL).refused[QUARRY_REFUSED_LIMIT], refused);
		cr_assert_eq(quarry_arena_destroy(a), 0);
	}
}

Test(arena, limits_change)
{
	quarry_arena *a = make("limits", 0, 0, 0);
	void *p = quarry_arena_malloc(a, 2 * MIB), *q;

	cr_assert_not_null(p);
	cr_assert_eq(quarry_arena_set_limits(a, MIB, 0), 0); /* under what is in use: only stops new ones */
	memset(p, 1, 2 * MIB);
	errno = 0;
	cr_assert(quarry_arena_malloc(a, 100 * KIB) == NULL && errno == ENOMEM);
	cr_assert_eq(stats_of(a).hard_limit, MIB);
	cr_assert_eq(quarry_arena_set_limits(a, 0, 0), 0);
	q = quarry_arena_malloc(a, 3 * MIB);
	cr_assert_not_null(q);
	cr_assert_eq(quarry_arena_set_limits(a, 4 * MIB, MIB), 0);
	quarry_free(p);
	p = quarry_arena_malloc(a, MIB / 2);
	cr_assert_not_null(p);
	cr_assert_eq(quarry_arena_destroy(a), 0);
	expect_error(quarry_arena_set_limits(a, 0, 0), EINVAL);
}

/* ------------------------------------------------------------------------------------------------------ */
/* The thread's default                                                                                   */

static void *in_another_thread(void *arg)
{
	quarry_arena *theirs = arg, *mine = quarry_thread_arena();
	void *p = quarry_malloc(100);

	if (mine != NULL || p == NULL || quarry_arena_of(p) == theirs)
		return arg;
	quarry_free(p);
	return NULL;
}

Test(arena, a_threads_default_is_set_and_restored)
{
	quarry_arena *a = make("a", 0, 0, 0), *b = make("b", 0, 0, 0), *previous = b;
	static uint64_t garbage[1024];
	pthread_t thread;
	void *bad;

	cr_assert_null(quarry_thread_arena());
	cr_assert(quarry_thread_set_arena(a, &previous) == 0 && previous == NULL && quarry_thread_arena() == a);
	for (unsigned i = 0; i < COUNT(sizes); i++) {
		void *p[4] = { quarry_malloc(sizes[i]), quarry_calloc(2, sizes[i]), quarry_aligned_alloc(128, sizes[i]),
			       quarry_realloc(NULL, sizes[i]) };
		for (unsigned k = 0; k < 4; k++) {
			cr_assert_eq(quarry_arena_of(p[k]), a, "%zu bytes, way %u", sizes[i], k);
			quarry_free(p[k]);
		}
	}
	cr_assert_eq(pthread_create(&thread, NULL, in_another_thread, a), 0);
	cr_assert(pthread_join(thread, &bad) == 0 && bad == NULL, "another thread allocates here");
	cr_assert(quarry_thread_set_arena(b, &previous) == 0 && previous == a);
	expect_error(quarry_arena_destroy(b), EBUSY);
	expect_error(quarry_arena_reset(b), EBUSY);
	cr_assert_eq(quarry_arena_destroy(a), 0); /* no longer anyone's */
	expect_error(quarry_thread_set_arena((quarry_arena *)(void *)garbage, NULL), EINVAL);
	expect_error(quarry_thread_set_arena(a, NULL), EINVAL); /* gone */
	cr_assert_eq(quarry_thread_arena(), b);
	cr_assert(quarry_thread_set_arena(NULL, &previous) == 0 && previous == b);
	cr_assert_null(quarry_thread_arena());
	bad = quarry_malloc(10);
	cr_assert_eq(quarry_arena_of(bad), quarry_arena_of_node(quarry_node_current()));
	quarry_free(bad);
	cr_assert_eq(quarry_arena_destroy(b), 0);
}

struct holder {
	quarry_arena *arena;
	sem_t is_set, may_end;
};

static void *hold_as_default(void *arg)
{
	struct holder *h = arg;
	int result = quarry_thread_set_arena(h->arena, NULL);

	sem_post(&h->is_set);
	while (sem_wait(&h->may_end) != 0)
		;
	return result == 0 ? NULL : h; /* ends with the arena still its default */
}

Test(arena, another_threads_default_is_busy_until_it_ends)
{
	struct holder h = { .arena = make("held", 0, 0, 0) };
	pthread_t thread;
	void *bad;

	sem_init(&h.is_set, 0, 0);
	sem_init(&h.may_end, 0, 0);
	cr_assert_eq(pthread_create(&thread, NULL, hold_as_default, &h), 0);
	while (sem_wait(&h.is_set) != 0)
		;
	expect_error(quarry_arena_destroy(h.arena), EBUSY);
	expect_error(quarry_arena_reset(h.arena), EBUSY);
	sem_post(&h.may_end);
	cr_assert(pthread_join(thread, &bad) == 0 && bad == NULL);
	cr_assert_eq(quarry_arena_destroy(h.arena), 0);
}

/* ------------------------------------------------------------------------------------------------------ */
/* Reset and destroy                                                                                      */

static void fill(quarry_arena *a, void **p, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		size_t size = sizes[i % COUNT(sizes)];
		p[i] = quarry_arena_malloc(a, size);
		cr_assert_not_null(p[i]);
		memset(p[i], (int)i, size);
	}
}

Test(arena, reset_frees_all_and_keeps_the_arena)
{
	quarry_arena *a = make("again", 0, 0, 0);
	void *p[60];
	uint64_t mapped = 0;

	for (unsigned round = 0; round < 50; round++) {
		fill(a, p, COUNT(p));
		for (unsigned i = 0; i < COUNT(p); i++)
			cr_assert_eq(((unsigned char *)p[i])[0], (unsigned char)i);
		if (round == 4)
			mapped = stats_of(a).mapped;
		for (unsigned i = 0; i < round % 3 * 20; i++) /* sometimes some are freed before */
			quarry_free(p[i]);
		cr_assert_eq(quarry_arena_reset(a), 0);
		cr_assert_eq(stats_of(a).in_use, 0);
		cr_assert_str_eq(quarry_arena_name(a), "again");
	}
	/* (While a piece is on its way back to the kernel, what wants its place gets another region, of an eighth
	 * more.) */
	cr_assert_leq(stats_of(a).mapped, mapped + mapped / 2, "memory of before a reset is not used again");
	cr_assert_eq(quarry_arena_destroy(a), 0);
}

Test(arena, destroy_frees_all)
{
	quarry_arena *a;
	uint64_t in_use, mapped, bad;
	void *p[60];

	quarry_arena_destroy(make("first", 0, 0, 0));
	in_use = stats_of(NULL).in_use;
	mapped = stats_of(NULL).mapped;
	for (unsigned round = 0; round < 50; round++) {
		a = make("gone", 0, 0, 0);
		fill(a, p, COUNT(p));
		cr_assert_eq(quarry_arena_destroy(a), 0);
	}
	cr_assert_leq(stats_of(NULL).in_use, in_use);
	cr_assert_leq(stats_of(NULL).mapped, mapped + 64 * MIB);
	/* What is freed late is ignored and counted; nothing was allocated since. */
	bad = stats_of(NULL).bad_frees;
	for (unsigned i = 0; i < COUNT(p); i++)
		quarry_free(p[i]);
	cr_assert_eq(stats_of(NULL).bad_frees, bad + COUNT(p));
	errno = 0;
	cr_assert(quarry_arena_of(p[0]) == NULL && errno == EINVAL);
}

Test(arena, what_is_no_arena_is_told)
{
	static uint64_t garbage[1024];
	quarry_arena *no[] = { (quarry_arena *)(void *)garbage, (quarry_arena *)(void *)16, make("gone", 0, 0, 0) };
	quarry_stats stats = { .version = QUARRY_STATS_VERSION };

	cr_assert_eq(quarry_arena_destroy(no[2]), 0);
	for (unsigned i = 0; i < COUNT(no); i++) {
		expect_error(quarry_arena_destroy(no[i]), EINVAL);
		expect_error(quarry_arena_reset(no[i]), EINVAL);
		expect_error(quarry_arena_set_limits(no[i], 1, 1), EINVAL);
		expect_error(quarry_stats_get(no[i], &stats), EINVAL);
		expect_error(quarry_arena_free(no[i], &garbage[0]), EINVAL);
	}
	expect_error(quarry_arena_destroy(NULL), EINVAL);
	expect_error(quarry_arena_reset(NULL), EINVAL);
}

Test(arena, purge_gives_back)
{
	quarry_arena *a = make("purged", 0, 0, QUARRY_PAGES_BASE);
	char *p = quarry_arena_malloc(a, 32 * MIB);

	memset(p, 1, 32 * MIB);
	cr_assert_geq(stats_of(a).resident, 32 * MIB);
	quarry_free(p);
	quarry_purge(a); /* what the reclaimer's thread gave back before is not in its result */
	cr_assert_lt(stats_of(a).resident, 2 * MIB);
	cr_assert_geq(stats_of(a).purged, 32 * MIB);
	cr_assert_eq(quarry_arena_destroy(a), 0);
}

/* ------------------------------------------------------------------------------------------------------ */
/* Placement: policies, page kinds, flags, where                                                          */

static void check_page(const quarry_page_info *page, int policy, int node)
{
	cr_assert(page->node == node || page->node == QUARRY_NODE_UNKNOWN, "policy %d: on node %d, not %d", policy, page->node,
		  node);
	cr_assert_eq(page->policy, policy);
	if (policy != QUARRY_POLICY_LOCAL)
		cr_assert_eq(page->wanted_node, node);
	if (!page->policy_applied) {
		quarry_stats stats = stats_of(NULL);
		uint64_t refused = 0;
		for (unsigned i = QUARRY_REFUSED_MBIND_EPERM; i <= QUARRY_REFUSED_MBIND_OTHER; i++)
			refused += stats.refused[i];
		cr_assert_gt(refused, 0, "policy %d is not applied, and no refusal is counted", policy);
	}
}

Test(arena, every_policy_on_one_node)
{
	static quarry_page_info page[256];
	int node = quarry_node_id(0);

	for (int policy = QUARRY_POLICY_BIND; policy <= QUARRY_POLICY_WEIGHTED_INTERLEAVE; policy++) {
		quarry_arena *a = make("placed", 0, policy, QUARRY_PAGES_BASE);
		char *p = quarry_arena_aligned_alloc(a, 4096, MIB), *small = quarry_arena_malloc(a, 50);
		long n;
		cr_assert(p != NULL && small != NULL);
		memset(p, 1, MIB);
		*small = 1;
		n = quarry_where(p, MIB, page, COUNT(page));
		cr_assert_gt(n, 0);
		for (long i = 0; i < n && i < (long)COUNT(page); i++)
			check_page(&page[i], policy, node);
		cr_assert_eq(quarry_where(small, 50, page, 1), 1);
		check_page(&page[0], policy, node);
		cr_assert_eq(quarry_arena_destroy(a), 0);
	}
}

Test(arena, where_counts_pages_and_touches_none)
{
	size_t size = (size_t)sysconf(_SC_PAGESIZE), pages = 16 * MIB / size;
	quarry_arena *a = make("where", 0, 0, QUARRY_PAGES_BASE);
	quarry_page_info *page = calloc(pages + 1, sizeof *page);
	char *p = quarry_arena_aligned_alloc(a, size, 16 * MIB);
	bool unknown;
	int stranger;

	cr_assert(p != NULL && page != NULL);
	cr_assert_eq(quarry_where(p, 16 * MIB, NULL, 0), (long)pages);
	cr_assert_eq(quarry_where(p, 1, NULL, 0), 1);
	cr_assert_eq(quarry_where(p + size - 1, 2, NULL, 0), 2);
	cr_assert_eq(quarry_where(p + 1, size, NULL, 0), 2);
	memset(p, 1, 4 * MIB);
	page[pages].size = 4711;
	cr_assert_eq(quarry_where(p, 16 * MIB, page, pages), (long)pages);
	cr_assert_eq(page[pages].size, 4711);
	unknown = page[0].node == QUARRY_NODE_UNKNOWN;
	if (unknown)
		cr_assert_gt(stats_of(NULL).refused[QUARRY_REFUSED_MOVE_PAGES], 0);
	for (size_t i = 0; i < pages; i++) {
		cr_assert_eq((char *)page[i].address, p + i * size);
		cr_assert_eq(page[i].wanted_kind, QUARRY_PAGES_BASE);
		if (i < 4 * MIB / size) {
			cr_assert(unknown || (page[i].node >= 0 && page[i].node == quarry_node_id(0)) || quarry_node_count() > 1);
			cr_assert(page[i].size == size && page[i].page_kind == QUARRY_PAGES_BASE, "touched page %zu", i);
		} else {
			cr_assert(unknown || page[i].node == QUARRY_NODE_NONE, "untouched page %zu: node %d", i, page[i].node);
			cr_assert_eq(page[i].size, 0);
		}
	}
	page[5].size = 4711;
	cr_assert_eq(quarry_where(p, 16 * MIB, page, 5), (long)pages);
	cr_assert_eq(page[5].size, 4711);
	expect_error(quarry_where(&stranger, 4, page, 1), EINVAL);
	expect_error(quarry_where(NULL, 4, page, 1), EINVAL);
	cr_assert_eq(quarry_arena_destroy(a), 0);
	free(page);
}

static uint64_t huge_free(bool gigantic)
{
	quarry_node_info info = { .struct_size = sizeof info };
	uint64_t sum = 0;

	for (int i = 0; i < quarry_node_count(); i++) {
		cr_assert_eq(quarry_node_info_get(quarry_node_id(i), &info), 0);
		sum += gigantic ? info.huge_free_1g : info.huge_free_2m;
	}
	return sum;
}

/* A huge page kind whose pool is empty: strict fails with an error, else the next rung is taken, and both are told. */
static void without_a_pool(int kind, int refusal)
{
	quarry_arena_attr attr = { .struct_size = sizeof attr, .flags = QUARRY_ARENA_STRICT, .page_kind = kind };
	quarry_arena *a;
	quarry_stats stats;
	char *p, node[32];

	attr.policy = QUARRY_POLICY_BIND;
	quarry_nodeset_add(&attr.nodes, (unsigned)quarry_node_id(0));
	if (quarry_arena_create(&attr) == NULL && errno == ENOMEM) {
		/* What is missing, and where. */
		snprintf(node, sizeof(node), " the pool of node %d has none ", quarry_node_id(0));
		cr_assert_eq(strncmp(quarry_error_text(), kind == QUARRY_PAGES_2M ? "page_kind: 2m, strictly, "
										  : "page_kind: 1g, strictly, ",
				     strlen("page_kind: 2m, strictly, ")), 0, "%s", quarry_error_text());
		cr_assert_not_null(strstr(quarry_error_text(), node), "%s", quarry_error_text());
	}
	attr.policy = QUARRY_POLICY_LOCAL;
	attr.nodes = (quarry_nodeset){ 0 };
	errno = 0;
	a = quarry_arena_create(&attr);
	if (a != NULL) {
		errno = 0;
		cr_assert_null(quarry_arena_malloc(a, 100));
		cr_assert_null(quarry_arena_malloc(a, 3 * MIB));
		cr_assert_eq(stats_of(a).in_use, 0);
		cr_assert_eq(quarry_arena_destroy(a), 0);
	}
	cr_assert(errno == ENOMEM || errno == EPERM || errno == ENOSYS, "errno %d", errno);
	a = make("falls", 0, 0, kind);
	p = quarry_arena_malloc(a, 3 * MIB);
	cr_assert_not_null(p);
	memset(p, 1, 3 * MIB);
	stats = stats_of(a);
	cr_assert(stats.kind_wanted[kind] > 0 && stats.kind_got[kind] == 0);
	cr_assert_gt(stats_of(NULL).refused[refusal], 0);
	cr_assert_eq(quarry_arena_destroy(a), 0);
}

Test(arena, strict_fails_rather_than_falls)
{
	if (huge_free(true) == 0)
		without_a_pool(QUARRY_PAGES_1G, QUARRY_REFUSED_HUGE_1G);
	if (huge_free(false) == 0)
		without_a_pool(QUARRY_PAGES_2M, QUARRY_REFUSED_HUGE_2M);
}

/* Does the mapping that p is in have this flag in smaps? -1: cannot be told. */
static int vm_flag(const void *p, const char *flag)
{
	FILE *file = fopen("/proc/self/smaps", "r");
	char line[1024];
	unsigned long from, to;
	bool inside = false;
	int found = -1;

	while (file != NULL && found < 0 && fgets(line, sizeof line, file) != NULL) {
		if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
			inside = from <= (unsigned long)p && (unsigned long)p < to;
		else if (inside && strncmp(line, "VmFlags:", 8) == 0)
			found = strstr(line, flag) != NULL;
	}
	if (file != NULL)
		fclose(file);
	return found;
}

Test(arena, flags)
{
	quarry_arena *plain = make("plain", 0, 0, 0), *nodump = make("nodump", QUARRY_ARENA_NODUMP, 0, 0);
	quarry_arena *locked = make("locked", QUARRY_ARENA_LOCKED, 0, 0);
	quarry_arena *populated = make("populated", QUARRY_ARENA_POPULATE, 0, QUARRY_PAGES_BASE);
	static quarry_page_info page[512];
	char *p[4] = { quarry_arena_malloc(plain, 100), quarry_arena_malloc(nodump, 100), quarry_arena_malloc(locked, 100),
		       quarry_arena_malloc(populated, MIB) };
	long n;

	for (unsigned i = 0; i < 3; i++) {
		cr_assert_not_null(p[i]);
		memset(p[i], 1, 100);
	}
	cr_assert_neq(vm_flag(p[1], " dd"), 0, "what should stay out of core dumps would be in them");
	cr_assert_neq(vm_flag(p[0], " dd"), 1);
	cr_assert(vm_flag(p[2], " lo") != 0 || stats_of(NULL).refused[QUARRY_REFUSED_LOCK] > 0);
	n = quarry_where(p[3], MIB, page, COUNT(page));
	cr_assert(n > 0 && n <= (long)COUNT(page));
	for (long i = 0; i < n && stats_of(NULL).refused[QUARRY_REFUSED_POPULATE] == 0; i++)
		cr_assert_neq(page[i].size, 0, "page %ld of a populated arena is not in memory", i);
	cr_assert(quarry_arena_destroy(plain) == 0 && quarry_arena_destroy(nodump) == 0);
	cr_assert(quarry_arena_destroy(locked) == 0 && quarry_arena_destroy(populated) == 0);
}

/* As programs have it that were built when the struct was shorter and knew fewer refusals. */
#define OLDER_REFUSALS 24

Test(arena, stats_of_older_programs)
{
	const size_t first = offsetof(quarry_stats, refused) + OLDER_REFUSALS * sizeof(uint64_t);
	const size_t lengths[] = { 0, first, first + 4 * sizeof(uint64_t), offsetof(quarry_stats, pass_ns) };
	quarry_arena *arena = make("older", 0, 0, 0);
	quarry_stats before = { .version = QUARRY_STATS_VERSION }, now = before, older;
	void *p = quarry_arena_malloc(arena, 100000);

	cr_assert_not_null(p);
	for (uint32_t version = 1; version <= 3; version++) {
		const unsigned char *behind = (unsigned char *)&older + lengths[version];

		/* Figures of the process go on meanwhile: of page faults, of the reclaimer's passes. */
		do {
			memset(&older, 0x5a, sizeof(older));
			older.version = version;
			cr_assert_eq(quarry_stats_get(arena, &before), 0);
			cr_assert_eq(quarry_stats_get(arena, &older), 0);
			cr_assert_eq(quarry_stats_get(arena, &now), 0);
		} while (memcmp(&before, &now, offsetof(quarry_stats, pass_ns)) != 0);
		cr_assert_eq(older.version, version);
		cr_assert_eq(memcmp(&older.node, &now.node, lengths[version] - offsetof(quarry_stats, node) -
				    (version == 2 ? 4 * sizeof(uint64_t) : 0)), 0);
		if (version == 2)
			cr_assert_eq(memcmp((char *)&older + first, &now.placed_less, 4 * sizeof(uint64_t)), 0);
		for (size_t i = 0; i < sizeof(older) - lengths[version]; i++)
			cr_assert_eq(behind[i], 0x5a, "version %u: byte %zu behind its end", version, i);
	}
	quarry_free(p);
	cr_assert_eq(quarry_arena_destroy(arena), 0);
}
