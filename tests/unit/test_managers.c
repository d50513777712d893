/* SPDX-License-Identifier: MIT */
/* Managers: one suite that runs over all of them, and what each alone promises. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "include/quarry/chain.h"
#include "include/quarry/pages.h"
#include "include/quarry/pool.h"
#include "include/quarry/stack.h"
#include "lib/object/count.h"
#include "tests/unit/blocks.h"

#define SLOTS 200
#define STEPS 20000

/* ---- one that the program brings: libc's malloc, a header of 16 bytes, nothing that may be left out ---- */

static size_t mine_live;

static void *mine_alloc(void *ctx, size_t size)
{
	size_t *p = size > PTRDIFF_MAX - 16 ? NULL : aligned_alloc(16, (size + 31) / 16 * 16);

	(void)ctx;
	if (p == NULL) {
		errno = ENOMEM;
		return NULL;
	}
	mine_live++;
	*p = size;
	return p + 2;
}

static int mine_free(void *ctx, void *p)
{
	(void)ctx;
	mine_live--;
	free((size_t *)p - 2);
	return 0;
}

static size_t mine_usable(void *ctx, const void *p)
{
	(void)ctx;
	return ((const size_t *)p)[-2];
}

static const quarry_manager_ops mine_ops = {
	.struct_size = sizeof mine_ops, .name = "mine", .alloc = mine_alloc, .free = mine_free, .usable = mine_usable,
};
static quarry_manager mine = { &mine_ops, NULL };

/* ---- all of them ---- */

static struct {
	const char *name;
	quarry_manager *m;
} all[5];

static void make_all(void)
{
	quarry_arena_attr attr = { .name = "managed" };
	quarry_arena *arena = quarry_arena_create(&attr);
	quarry_stack *stack = quarry_stack_create(NULL);

	cr_assert(arena != NULL && stack != NULL);
	all[0].name = "NULL";
	all[1].name = "default";
	all[1].m = quarry_manager_default();
	all[2].name = "arena";
	all[2].m = quarry_manager_of_arena(arena);
	all[3].name = "stack";
	all[3].m = quarry_stack_manager(stack);
	all[4].name = "mine";
	all[4].m = &mine;
	for (unsigned i = 1; i < COUNT(all); i++)
		cr_assert_not_null(all[i].m, "%s", all[i].name);
}

struct piece {
	unsigned char *p;
	size_t n;
	unsigned char value;
};

static void verify(const char *name, const struct piece *o, size_t n)
{
	for (size_t i = 0; i < n; i++)
		cr_assert_eq(o->p[i], o->value, "%s: byte %zu of %zu is %u, should be %u", name, i, n, o->p[i], o->value);
}

static void fill(const char *name, quarry_manager *m, struct piece *o)
{
	cr_assert_not_null(o->p, "%s: errno %d", name, errno);
	cr_assert_eq((uintptr_t)o->p % 16, 0, "%s", name);
	cr_assert_geq(quarry_manager_usable(m, o->p), o->n, "%s", name);
	o->value = (unsigned char)model_random();
	memset(o->p, o->value, o->n);
}

static void drop(quarry_manager *m, struct piece *o)
{
	cr_assert_eq(quarry_manager_free(m, o->p), 0);
	*o = (struct piece){ NULL, 0, 0 };
}

static void step(const char *name, quarry_manager *m, struct piece *o)
{
	size_t n = model_random() % 16 == 0 ? model_random() % 40000 : model_random() % 300;

	if (o->p == NULL) {
		size_t alignment = (size_t)16 << model_random() % 4;

		o->n = n;
		if (model_random() % 4 == 0 && m != &mine) {
			o->p = quarry_manager_alloc_aligned(m, alignment, n);
			cr_assert_eq((uintptr_t)o->p % alignment, 0, "%s: %p, %zu", name, (void *)o->p, alignment);
		} else {
			o->p = quarry_manager_alloc(m, n);
		}
		fill(name, m, o);
		return;
	}
	verify(name, o, o->n);
	if (model_random() % 3 == 0) {
		size_t both = n < o->n ? n : o->n;

		n += n == 0;
		o->p = quarry_manager_resize(m, o->p, n);
		verify(name, o, both);
		o->n = n;
		fill(name, m, o);
	} else {
		drop(m, o);
	}
}

Test(managers, the_same_program_runs_on_any)
{
	static struct piece pieces[SLOTS];

	make_all();
	model_start("managers: the same program");
	for (unsigned i = 0; i < COUNT(all); i++) {
		for (unsigned k = 0; k < STEPS; k++)
			step(all[i].name, all[i].m, &pieces[model_random() % SLOTS]);
		for (unsigned k = 0; k < SLOTS; k++)
			if (pieces[k].p != NULL) {
				verify(all[i].name, &pieces[k], pieces[k].n);
				drop(all[i].m, &pieces[k]);
			}
	}
	cr_assert_eq(mine_live, 0);
}

Test(managers, blocks_of_any_go_without_naming_it)
{
	make_all();
	for (unsigned i = 0; i < COUNT(all); i++) {
		quarry_block b = quarry_block_alloc(all[i].m, 100);

		cr_assert(b.p != NULL && b.n == 100, "%s", all[i].name);
		memset(b.p, 0x5a, 100);
		cr_assert_eq(quarry_ref(b.p), 0);
		cr_assert_eq(quarry_block_resize(&b, 200, 0), -1);
		cr_assert_eq(errno, EBUSY);
		cr_assert_eq(quarry_unref(b.p), 0);
		cr_assert_eq(quarry_block_resize(&b, 5000, QUARRY_RESIZE_ZERO), 0, "%s: errno %d", all[i].name, errno);
		for (unsigned k = 0; k < 5000; k++)
			cr_assert_eq(((unsigned char *)b.p)[k], k < 100 ? 0x5a : 0, "%s: byte %u", all[i].name, k);
		cr_assert_eq(quarry_unref(b.p), 1, "%s", all[i].name);
		cr_assert_eq(quarry_block_live(&b), 0);
	}
	cr_assert_eq(mine_live, 0, "the block went to where it came from");
}

/* Managers whose memory lies side by side: each gets its own back. */
static size_t among_live;

static void *among_alloc(void *ctx, size_t size)
{
	(void)ctx;
	among_live++;
	return quarry_malloc(size);
}

static int among_free(void *ctx, void *p)
{
	(void)ctx;
	among_live--;
	quarry_free(p);
	return 0;
}

static size_t among_usable(void *ctx, const void *p)
{
	(void)ctx;
	return quarry_usable_size(p);
}

Test(managers, blocks_of_several_side_by_side)
{
	enum { MANY = 3000 };
	static const quarry_manager_ops ops = {
		.struct_size = sizeof ops, .name = "among", .alloc = among_alloc, .free = among_free, .usable = among_usable,
	};
	static quarry_block b[MANY];
	quarry_manager among = { &ops, NULL };
	size_t live = 0;

	model_start("managers: side by side");
	for (unsigned i = 0; i < 30000; i++) {
		unsigned k = (unsigned)(model_random() % MANY);

		if (b[k].p == NULL) {
			b[k] = quarry_block_alloc(k % 3 == 0 ? &among : NULL, 64);
			live += k % 3 == 0;
			cr_assert_eq(quarry_refcount(b[k].p), 1);
		} else {
			cr_assert_eq(model_random() % 2 ? quarry_block_unref(&b[k]) : quarry_unref(b[k].p), 1);
			b[k].p = NULL;
			live -= k % 3 == 0;
		}
		cr_assert_eq(among_live, live);
	}
}

/* ---- managers come and go ---- */

/* Each has its memory of libc's malloc, with its name in front of it. */
struct named {
	quarry_manager manager;
	size_t live;
};

static void *named_alloc(void *ctx, size_t size)
{
	size_t *p = mine_alloc(NULL, size);
	struct named *n = ctx;

	if (p != NULL) {
		p[-1] = (uintptr_t)ctx;
		n->live++;
	}
	return p;
}

static int named_free(void *ctx, void *p)
{
	struct named *n = ctx;

	cr_assert_eq(((size_t *)p)[-1], (uintptr_t)ctx, "it went to a manager that it is not of");
	n->live--;
	return mine_free(NULL, p);
}

static const quarry_manager_ops named_ops = {
	.struct_size = sizeof named_ops, .name = "named", .alloc = named_alloc, .free = named_free, .usable = mine_usable,
};

static size_t leaves_at(const void *p)
{
	size_t n = 0;

	for (uintptr_t entry = qy_count_entry(p); entry != 0; entry = qy_leaf_at(entry)->next)
		n++;
	return n;
}

/* However many managers there were: what a block costs is the same, and nothing is kept of them. A manager that is gone is
 * not looked at any more, whoever is late. */
Test(managers, those_that_were_leave_nothing_behind)
{
	enum { MANY = 3000 };
	size_t most = 0;

	for (unsigned i = 0; i < MANY; i++) {
		struct named *n = calloc(1, sizeof *n);
		quarry_block b, late;
		quarry_weak w;

		n->manager = (quarry_manager){ &named_ops, n };
		late = b = quarry_block_alloc(&n->manager, 10);
		cr_assert_not_null(b.p);
		w = quarry_weak_of(&b);
		most = leaves_at(b.p) > most ? leaves_at(b.p) : most;
		cr_assert_eq(quarry_block_unref(&b), 1);
		cr_assert_eq(n->live, 0);
		memset(n, 0x5a, sizeof *n);
		free(n);
		refused(quarry_block_unref(&late), ESTALE);
		refused(quarry_weak_lock(w, &b), ESTALE);
		refused(quarry_unref(late.p), ESTALE);
	}
	cr_assert_eq(most, 1, "%zu arrays of words in one unit", most);
	cr_assert_eq(mine_live, 0);
}

/* Side by side in the same arrays, each block goes to its own manager; some are resized there. */
Test(managers, many_have_their_words_in_one_place)
{
	enum { MANAGERS = 300, MANY = 2000 };
	static struct named n[MANAGERS];
	static quarry_block b[MANY];
	size_t most = 0;

	model_start("managers: many");
	for (unsigned i = 0; i < MANAGERS; i++)
		n[i].manager = (quarry_manager){ &named_ops, &n[i] };
	for (unsigned i = 0; i < 40000; i++) {
		unsigned k = (unsigned)(model_random() % MANY);
		size_t size = 1 + model_random() % 300;

		if (b[k].p == NULL) {
			b[k] = quarry_block_alloc(&n[model_random() % MANAGERS].manager, size);
			cr_assert_eq(quarry_refcount(b[k].p), 1);
			most = leaves_at(b[k].p) > most ? leaves_at(b[k].p) : most;
		} else if (model_random() % 4 == 0) {
			cr_assert_eq(quarry_block_resize(&b[k], size, 0), 0);
			cr_assert_eq(quarry_refcount(b[k].p), 1);
		} else {
			cr_assert_eq(model_random() % 2 ? quarry_block_unref(&b[k]) : quarry_unref(b[k].p), 1);
			b[k] = (quarry_block){ .p = NULL };
		}
	}
	for (unsigned k = 0; k < MANY; k++)
		if (b[k].p != NULL)
			cr_assert_eq(quarry_block_unref(&b[k]), 1);
	for (unsigned i = 0; i < MANAGERS; i++)
		cr_assert_eq(n[i].live, 0, "manager %u", i);
	/* Of 1 to 300 bytes: a length's logarithm, from 4 to 8. */
	cr_assert_leq(most, 5, "%zu arrays of words in one unit", most);
}

/* A manager that hands out what it has from another: the block within has a count of its own, although it is so large that
 * both have a place in the same words; and the one that it is in keeps its own. */
static char *inner_at;
static size_t inner_size, inner_live, outer_live;

static void *inner_alloc(void *ctx, size_t size)
{
	(void)ctx;
	(void)size;
	inner_live++;
	return inner_at;
}

static int inner_free(void *ctx, void *p)
{
	(void)ctx;
	inner_live -= p == inner_at;
	return 0;
}

static size_t inner_usable(void *ctx, const void *p)
{
	(void)ctx;
	(void)p;
	return inner_size;
}

static _Alignas(64) char outer_memory[128];

static void *outer_alloc(void *ctx, size_t size)
{
	(void)ctx;
	(void)size;
	outer_live++;
	return outer_memory;
}

static int outer_free(void *ctx, void *p)
{
	(void)ctx;
	outer_live -= p == (void *)outer_memory;
	return 0;
}

static size_t outer_usable(void *ctx, const void *p)
{
	(void)ctx;
	(void)p;
	return 127;
}

static const quarry_manager_ops inner_ops = {
	.struct_size = sizeof inner_ops, .name = "inner", .alloc = inner_alloc, .free = inner_free, .usable = inner_usable,
};

Test(managers, a_block_within_anothers_block)
{
	static const quarry_manager_ops outer_ops = {
		.struct_size = sizeof outer_ops, .name = "outer", .alloc = outer_alloc, .free = outer_free, .usable = outer_usable,
	};
	quarry_manager inner = { &inner_ops, NULL }, outer = { &outer_ops, NULL };

	for (unsigned round = 0; round < 3; round++) {
		quarry_block o = quarry_block_alloc(&outer, 100), i;

		inner_at = (char *)o.p + 16;
		inner_size = 111;
		i = quarry_block_alloc(&inner, 100);
		cr_assert(o.p != NULL && i.p == (void *)inner_at && i.count != o.count);
		cr_assert_eq(quarry_ref(i.p), 0);
		cr_assert_eq(quarry_refcount(o.p), 1);
		cr_assert_eq(quarry_refcount(i.p), 2);
		cr_assert_eq(quarry_unref(i.p), 0);
		cr_assert_eq(round == 1 ? quarry_unref(o.p) : quarry_unref(i.p), 1);
		cr_assert_eq(inner_live, round == 1);
		cr_assert_eq(outer_live, round != 1);
		cr_assert_eq(round == 1 ? quarry_unref(i.p) : quarry_unref(o.p), 1);
		cr_assert_eq(inner_live + outer_live, 0);
		refused(quarry_unref(i.p), ESTALE);
		refused(quarry_unref(o.p), ESTALE);
	}
	cr_assert_leq(leaves_at(outer_memory), 2);
}

Test(managers, edges_are_the_same)
{
	make_all();
	for (unsigned i = 0; i < COUNT(all); i++) {
		quarry_manager *m = all[i].m;
		void *p = quarry_manager_resize(m, NULL, 10);

		cr_assert_not_null(p, "%s", all[i].name);
		cr_assert_null(quarry_manager_resize(m, p, 0));
		cr_assert_eq(quarry_manager_free(m, NULL), 0);
		cr_assert_eq(quarry_manager_usable(m, NULL), 0);
		errno = 0;
		cr_assert_null(quarry_manager_alloc(m, SIZE_MAX / 2 + 1), "%s", all[i].name);
		cr_assert_eq(errno, ENOMEM, "%s: errno %d", all[i].name, errno);
		cr_assert_null(quarry_manager_alloc(m, SIZE_MAX));
		cr_assert_null(quarry_manager_alloc_aligned(m, 24, 100), "%s", all[i].name);
		cr_assert_eq(errno, EINVAL, "%s: errno %d", all[i].name, errno);
		cr_assert_gt(quarry_manager_max_alloc(m), (size_t)1 << 30);
	}
}

/* As they come, with sums that overflow. */
static size_t asked_most;

static void *naive_alloc(void *ctx, size_t size)
{
	asked_most = size > asked_most ? size : asked_most;
	return mine_alloc(ctx, size);
}

static void *naive_aligned(void *ctx, size_t alignment, size_t size)
{
	(void)alignment;
	return naive_alloc(ctx, size);
}

static void *naive_resize(void *ctx, void *p, size_t size)
{
	asked_most = size > asked_most ? size : asked_most;
	return mine_free(ctx, p) == 0 ? mine_alloc(ctx, size) : NULL;
}

Test(managers, none_is_asked_for_more_than_there_can_be)
{
	const volatile size_t much = SIZE_MAX, more = (size_t)PTRDIFF_MAX + 1;
	quarry_manager_ops ops = mine_ops;
	quarry_manager m = { &ops, NULL };
	void *p;

	ops.alloc = naive_alloc;
	ops.alloc_aligned = naive_aligned;
	p = quarry_manager_alloc(&m, 100);
	for (int i = 0; i < 2; i++) {
		cr_assert(quarry_manager_alloc(&m, much) == NULL && errno == ENOMEM);
		cr_assert_not_null(strstr(quarry_error_text(), "size: 18446744073709551615"), "%s", quarry_error_text());
		cr_assert(quarry_manager_alloc(&m, more) == NULL && errno == ENOMEM);
		cr_assert(quarry_manager_alloc_aligned(&m, 64, much) == NULL && errno == ENOMEM);
		cr_assert(quarry_manager_resize(&m, NULL, much) == NULL && errno == ENOMEM);
		cr_assert(quarry_manager_resize(&m, p, much) == NULL && errno == ENOMEM);
		cr_assert(quarry_block_alloc(&m, much).p == NULL && errno == ENOMEM);
		ops.resize = naive_resize;
	}
	cr_assert_eq(asked_most, 100);
	cr_assert_eq(quarry_manager_free(&m, p), 0);
}

/* The first of them has its block's address. */
Test(managers, what_pools_and_their_like_have_is_nobodys_to_use)
{
	quarry_pool_attr pool_attr = { .struct_size = sizeof(pool_attr), .size = 64 };
	quarry_buffers_attr slab_attr = { .struct_size = sizeof(slab_attr), .size = 4096, .count = 4 };
	quarry_pages_attr pages_attr = { .count = 10 };
	quarry_pool *pool = quarry_pool_create(&pool_attr);
	quarry_pages *pages = quarry_pages_create(&pages_attr);
	quarry_buffers *slab = quarry_buffers_create(&slab_attr);
	void *p[] = { pool != NULL ? quarry_pool_get(pool) : NULL, pages != NULL ? quarry_pages_alloc(pages, 1) : NULL,
		      slab != NULL ? quarry_buffers_at(slab, 0) : NULL };

	for (unsigned i = 0; i < COUNT(p); i++) {
		quarry_manager *of;

		cr_assert_not_null(p[i]);
		of = quarry_manager_of_arena(quarry_arena_of(p[i]));
		cr_assert_gt(quarry_usable_size(p[i]), 0, "%u is where a block begins", i);
		cr_expect_eq(quarry_manager_usable(NULL, p[i]), 0, "%u", i);
		cr_expect_eq(quarry_manager_usable(of, p[i]), 0, "%u", i);
		cr_expect_eq(quarry_manager_owns(NULL, p[i]), 0, "%u", i);
	}
	cr_assert_eq(quarry_pool_destroy(pool, 1), 0);
	cr_assert_eq(quarry_pages_destroy(pages), 0);
	cr_assert_eq(quarry_buffers_destroy(slab), 0);
}

Test(managers, each_knows_its_own)
{
	void *p[COUNT(all)];

	make_all();
	for (unsigned i = 0; i < COUNT(all); i++)
		p[i] = quarry_manager_alloc(all[i].m, 100);
	cr_assert_eq(quarry_manager_owns(all[4].m, p[4]), -1);
	cr_assert_eq(errno, ENOTSUP);
	cr_assert_eq(quarry_manager_owns(NULL, p[2]), 1, "an arena's is quarry's");
	cr_assert_eq(quarry_manager_owns(NULL, p[4]), 0);
	cr_assert_eq(quarry_manager_owns(all[2].m, p[2]), 1);
	cr_assert_eq(quarry_manager_owns(all[2].m, p[1]), 0);
	cr_assert_eq(quarry_manager_owns(all[3].m, p[3]), 1);
	cr_assert_eq(quarry_manager_owns(all[3].m, p[1]), 0);
	cr_assert_eq(quarry_manager_free(all[2].m, p[1]), -1);
	cr_assert_eq(errno, EINVAL);
	cr_assert_eq(quarry_manager_free(all[3].m, p[1]), -1);
	cr_assert_eq(errno, EINVAL);
	cr_assert_eq(quarry_manager_free(all[4].m, p[4]), 0);
}

/* Each manager of an arena resizes its own, and nothing else: not even where that would stay where it is. The default one
 * does for all of them. */
Test(managers, none_resizes_anothers)
{
	static struct named other = { { &named_ops, &other }, 0 };
	quarry_manager *a, *b;
	size_t many = sizeof(size_t);
	unsigned char *p;

	make_all();
	a = all[2].m;
	b = quarry_manager_of_arena(quarry_arena_create(NULL));
	for (size_t n = 100; n <= 10 * MIB; n *= 10) {
		p = quarry_manager_alloc(a, n);
		memset(p, 0x5a, n);
		for (size_t to = 0; to <= 2 * n; to += n / 2) {
			errno = 0;
			cr_assert_null(quarry_manager_resize(b, p, to), "%zu of another's %zu", to, n);
			cr_assert_eq(errno, EINVAL);
			cr_assert(quarry_manager_owns(a, p) == 1 && quarry_manager_usable(a, p) >= n && p[n - 1] == 0x5a);
		}
		p = quarry_manager_resize(NULL, p, 2 * n);
		cr_assert(quarry_manager_owns(a, p) == 1 && p[n - 1] == 0x5a);
		p = quarry_manager_resize(a, p, 3 * n);
		cr_assert(quarry_manager_owns(a, p) == 1 && p[n - 1] == 0x5a);
		cr_assert_eq(quarry_manager_free(a, p), 0);
	}
	p = quarry_manager_alloc(NULL, 100);
	cr_assert_null(quarry_manager_resize(b, p, 10000));
	cr_assert_eq(errno, EINVAL);
	cr_assert_null(quarry_manager_resize(b, &many, 10));
	cr_assert_eq(errno, EINVAL);
	cr_assert_eq(quarry_manager_free(NULL, p), 0);
}

/* One that has no resize, and says of a stranger that it is none. */
static void *strict_alloc(void *ctx, size_t size)
{
	(*(size_t *)ctx)++;
	return mine_alloc(NULL, size);
}

static int strict_free(void *ctx, void *p)
{
	if (quarry_usable_size(p) != 0) {
		errno = EINVAL;
		return -1;
	}
	(*(size_t *)ctx)--;
	return mine_free(NULL, p);
}

static size_t strict_usable(void *ctx, const void *p)
{
	(void)ctx;
	return quarry_usable_size(p) != 0 ? 0 : mine_usable(NULL, p);
}

Test(managers, what_cannot_be_freed_is_not_copied)
{
	static const quarry_manager_ops ops = {
		.struct_size = sizeof ops, .name = "strict", .alloc = strict_alloc, .free = strict_free, .usable = strict_usable,
	};
	size_t live = 0;
	quarry_manager m = { &ops, &live };
	void *p = quarry_malloc(100), *own = quarry_manager_alloc(&m, 100);

	errno = 0;
	cr_assert_null(quarry_manager_resize(&m, p, 1000));
	cr_assert(errno == EINVAL && live == 1);
	own = quarry_manager_resize(&m, own, 1000);
	cr_assert(own != NULL && live == 1);
	cr_assert_eq(quarry_manager_free(&m, own), 0);
	quarry_free(p);
}

/* A block goes by its references: not by who looks at it as memory. */
Test(managers, what_is_counted_is_no_mere_memory)
{
	const size_t sizes[] = { 10, 3000, MIB };
	quarry_chain chain = { 0 };

	make_all();
	for (unsigned i = 0; i < 3; i++) /* (the default one, twice, and an arena) */
		for (unsigned k = 0; k < COUNT(sizes); k++) {
			quarry_block b = quarry_block_alloc(all[i].m, sizes[k]);
			void *p = b.p, *plain = quarry_manager_alloc(all[i].m, sizes[k]);

			refused(quarry_manager_free(all[i].m, b.p), EBUSY);
			for (size_t n = 0; n <= 2 * sizes[k]; n += sizes[k]) {
				errno = 0;
				cr_assert_null(quarry_manager_resize(all[i].m, b.p, n));
				cr_assert_eq(errno, EBUSY, "%zu: errno %d", n, errno);
			}
			errno = 0;
			cr_assert_null(quarry_storage_own(b.p));
			cr_assert_eq(errno, EBUSY);
			refused(quarry_chain_append_owned(&chain, b.p, 1), EBUSY);
			cr_assert_eq(quarry_refcount(b.p), 1);
			cr_assert_eq(quarry_block_unref(&b), 1);
			/* Memory that was a block is memory. */
			for (unsigned t = 0; t < 1000 && plain != p; t++)
				plain = quarry_manager_alloc(all[i].m, sizes[k]);
			if (sizes[k] < MIB)
				cr_assert_eq(plain, p, "the address did not come again");
			cr_assert_eq(quarry_manager_free(all[i].m, quarry_manager_resize(all[i].m, plain, 2 * sizes[k])), 0);
		}
	cr_assert_eq(chain.segs, 0);
}

/* The memory that a manager has from below may go with what it gave: also where that begins where the whole does. */
Test(managers, a_managers_memory_goes_from_below)
{
	quarry_manager inner = { &inner_ops, NULL };
	quarry_block b;

	inner_at = quarry_manager_alloc(NULL, 4096);
	inner_size = 100;
	b = quarry_block_alloc(&inner, 100);
	cr_assert(b.p == (void *)inner_at && quarry_refcount(b.p) == 1);
	inner_at = quarry_manager_resize(NULL, inner_at, 20000);
	cr_assert_not_null(inner_at);
	b = quarry_block_alloc(&inner, 100);
	cr_assert_eq(quarry_manager_free(NULL, inner_at), 0);
}

/* What is said of memory that was freed before: as of any that is not the manager's, where that can be known. */
Test(managers, large_memory_is_not_freed_twice)
{
	make_all();
	for (unsigned i = 0; i < 3; i++) {
		void *p = quarry_manager_alloc(all[i].m, MIB);

		cr_assert_eq(quarry_manager_free(all[i].m, p), 0);
		refused(quarry_manager_free(all[i].m, p), EINVAL);
	}
}

/* ---- errno ---- */

static int lost_free(void *ctx, void *p)
{
	errno = EINVAL;
	(void)mine_free(ctx, p);
	return -1;
}

static void fails_within(void *p)
{
	(void)p;
	errno = EIO;
}

/* The last reference went, whatever became of the memory: errno is as it was. */
Test(managers, what_succeeds_leaves_errno)
{
	quarry_manager_ops ops = mine_ops;
	quarry_manager lost = { &ops, NULL };
	quarry_stack *s = quarry_stack_create(NULL);
	quarry_block b[5];

	ops.free = lost_free;
	b[0] = quarry_block_alloc(&lost, 100);
	b[1] = quarry_block_alloc(NULL, 100);
	cr_assert_eq(quarry_block_at_end(&b[1], fails_within), 0);
	b[2] = quarry_block_alloc(quarry_stack_manager(s), 100);
	b[3] = quarry_block_alloc(quarry_stack_manager(s), 100);
	cr_assert_eq(quarry_block_ref(&b[3]), 0);
	quarry_stack_reset(s);
	b[4] = quarry_block_alloc(&lost, 100);
	errno = 77;
	cr_assert_eq(quarry_block_resize(&b[4], 50, QUARRY_RESIZE_IN_PLACE), 0);
	cr_assert_eq(errno, 77);
	for (unsigned i = 0; i < COUNT(b); i++) {
		cr_assert_eq(quarry_unref(b[i].p), i != 3, "%u", i);
		cr_assert_eq(errno, 77, "%u", i);
	}
	cr_assert_eq(quarry_unref(b[3].p), 1);
	cr_assert_eq(errno, 77);
	quarry_stack_destroy(s);
}

Test(managers, the_default_one_cannot_end)
{
	cr_assert_eq(quarry_manager_clear(NULL), -1);
	cr_assert_eq(errno, EPERM);
	cr_assert_eq(quarry_manager_destroy(quarry_manager_default()), -1);
	cr_assert_eq(errno, EPERM);
	cr_assert_eq(quarry_manager_of_arena(NULL), quarry_manager_default());
}

Test(managers, an_arena_as_one)
{
	quarry_arena *arena = quarry_arena_create(NULL);
	quarry_manager *m = quarry_manager_of_arena(arena);
	quarry_manager_stats stats;
	void *p;

	cr_assert_eq(quarry_manager_of_arena(arena), m);
	p = quarry_manager_alloc(m, 100000);
	cr_assert_eq(quarry_arena_of(p), arena);
	cr_assert_eq(quarry_manager_stats_get(m, &stats), 0);
	cr_assert(stats.in_use >= 100000 && stats.held >= stats.in_use && stats.limit == 0);
	cr_assert_eq(quarry_manager_clear(m), 0);
	cr_assert_eq(quarry_manager_owns(m, p), 0);
	cr_assert_eq(quarry_manager_stats_get(m, &stats), 0);
	cr_assert_lt(stats.in_use, 100000);
	cr_assert_eq(quarry_manager_destroy(m), 0);
	errno = 0;
	cr_assert_null(quarry_manager_of_arena(arena));
	cr_assert_eq(errno, EINVAL);
	cr_assert_null(quarry_manager_of_arena((quarry_arena *)&stats));
	cr_assert_eq(errno, EINVAL);
}

Test(managers, what_is_missing_is_named)
{
	quarry_manager_ops ops = mine_ops;
	quarry_manager m = { NULL, NULL };

	cr_assert_null(quarry_manager_alloc(&m, 10));
	cr_assert_eq(errno, EINVAL);
	m.ops = &ops;
	ops.usable = NULL;
	cr_assert_null(quarry_manager_alloc(&m, 10));
	cr_assert_eq(errno, EINVAL);
	cr_assert_not_null(strstr(quarry_error_text(), "usable"));
	cr_assert_null(quarry_block_alloc(&m, 10).p);
	cr_assert_eq(errno, EINVAL);
	ops = mine_ops;
	ops.struct_size = 8;
	cr_assert_null(quarry_manager_alloc(&m, 10));
	cr_assert_eq(errno, EINVAL);
	cr_assert_eq(quarry_manager_clear(&mine), -1);
	cr_assert_eq(errno, ENOTSUP);
	cr_assert_eq(quarry_manager_destroy(&mine), -1);
	cr_assert_eq(errno, ENOTSUP);
	cr_assert_null(quarry_manager_alloc_aligned(&mine, 64, 10));
	cr_assert_eq(errno, ENOTSUP);
}

/* ---- older programs ---- */

static int never(void *ctx)
{
	(void)ctx;
	cr_assert_fail("what stands behind the end of its table is not the program's");
	return 0;
}

static int never_owns(void *ctx, const void *p)
{
	(void)p;
	return never(ctx);
}

static int never_stats(void *ctx, quarry_manager_stats *stats)
{
	(void)stats;
	return never(ctx);
}

static size_t never_most(void *ctx)
{
	return (size_t)never(ctx);
}

/* A table that ends earlier, at each operation from the last that must be there on: it works, and what is behind it is
 * lacking, whatever stands there. */
Test(managers, tables_of_older_programs)
{
	const size_t least = offsetof(quarry_manager_ops, usable) + sizeof(mine_ops.usable);
	quarry_manager_ops ops = mine_ops;
	quarry_manager m = { &ops, NULL };
	quarry_manager_stats stats;
	quarry_block b;
	void *p;

	ops.owns = never_owns;
	ops.clear = never;
	ops.destroy = never;
	ops.stats = never_stats;
	ops.max_alloc = never_most;
	ops.struct_size = least;
	p = quarry_manager_alloc(&m, 100);
	cr_assert_not_null(p);
	p = quarry_manager_resize(&m, p, 1000);
	cr_assert_geq(quarry_manager_usable(&m, p), 1000);
	refused(quarry_manager_owns(&m, p), ENOTSUP);
	refused(quarry_manager_clear(&m), ENOTSUP);
	refused(quarry_manager_destroy(&m), ENOTSUP);
	refused(quarry_manager_stats_get(&m, &stats), ENOTSUP);
	cr_assert_eq(quarry_manager_max_alloc(&m), PTRDIFF_MAX);
	cr_assert_eq(quarry_manager_free(&m, p), 0);
	b = quarry_block_alloc(&m, 100);
	cr_assert_not_null(b.p);
	cr_assert_eq(quarry_block_resize(&b, 5000, 0), 0);
	cr_assert_eq(quarry_block_unref(&b), 1);
	ops.owns = NULL;
	for (size_t size = least; size <= sizeof ops + 64; size++) {
		ops.struct_size = size;
		refused(quarry_manager_owns(&m, &m), ENOTSUP);
	}
	for (size_t size = 0; size < least; size++) {
		ops.struct_size = size;
		cr_assert(quarry_manager_alloc(&m, 10) == NULL && errno == EINVAL, "%zu", size);
	}
}

/* Figures are given as far as a program knows of them, and no further. */
Test(managers, figures_of_older_programs)
{
	quarry_block_figures whole, part;

	cr_assert_eq(quarry_block_figures_get(&whole, sizeof whole), 0);
	for (size_t size = sizeof(uint64_t); size <= sizeof part; size += sizeof(uint64_t)) {
		memset(&part, 0x5a, sizeof part);
		cr_assert_eq(quarry_block_figures_get(&part, size), 0);
		cr_assert_eq(memcmp(&part, &whole, size), 0);
		for (size_t i = size; i < sizeof part; i++)
			cr_assert_eq(((unsigned char *)&part)[i], 0x5a, "byte %zu behind %zu", i, size);
	}
	refused(quarry_block_figures_get(&part, 0), EINVAL);
}
