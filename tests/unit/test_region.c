/* SPDX-License-Identifier: MIT */
/* Regions on a machine that the fake kernel plays: eight nodes, two of them with ids above 63, pools of huge pages,
 * refusals of every kind. What was asked for and what was got is to be recorded, and true. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "numa/region.h"
#include "tests/unit/eight_nodes.h"

static int owner;

/* A placement on the nodes that are named, ended by -1. */
static struct qy_placement placement_of(int policy, uint32_t flags, const int *nodes)
{
	struct qy_placement p = { .policy = policy, .flags = flags, .node = -1, .bind = policy != QUARRY_POLICY_LOCAL };
	int n = 0;

	for (; nodes[n] >= 0; n++)
		quarry_nodeset_add(&p.nodes, (unsigned)nodes[n]);
	if (n == 1)
		p.node = qy_node_dense(nodes[0]);
	return p;
}

#define on(...) ((const int[]){ __VA_ARGS__, -1 })

static struct qy_region *create(const struct qy_placement *placement, size_t frames, int kind)
{
	errno = 0;
	return qy_region_create(placement, frames, 1, kind, &owner);
}

static void expect_policy(const struct qy_region *r, int mode, const int *nodes)
{
	int got[NODES + 1], count = 0, n = 0;
	char *p = qy_region_addr(r);

	for (size_t at = 0; at < r->frames; at += r->frames - (r->frames > 1)) {
		cr_assert_eq(fake_os_policy_at(p + at * QY_FRAME, got, NODES + 1, &count), mode);
		for (n = 0; nodes[n] >= 0; n++)
			cr_assert(n < count && got[n] == nodes[n], "node %d is the %d. in the set", nodes[n], n);
		cr_assert_eq(count, n);
	}
}

/* All of it can be written, is aligned, and is in the books of the frames. */
static void use(struct qy_region *r)
{
	char *p = qy_region_addr(r);

	cr_assert_eq((uintptr_t)p % QY_FRAME, 0);
	cr_assert_eq(r->owner, &owner);
	for (size_t at = 0; at < (size_t)r->frames * QY_FRAME; at += QY_FRAME / 2) {
		cr_assert_eq(p[at], 0);
		p[at] = 1;
	}
}

/* ---- placing ---- */

Test(region, each_policy_is_the_kernels_own)
{
	static const struct {
		int policy, mode;
	} each[] = {
		{ QUARRY_POLICY_BIND, QY_MPOL_PREFERRED_MANY }, /* and no killer; strictly it is bound */
		{ QUARRY_POLICY_PREFERRED_MANY, QY_MPOL_PREFERRED_MANY },
		{ QUARRY_POLICY_INTERLEAVE, QY_MPOL_INTERLEAVE },
		{ QUARRY_POLICY_WEIGHTED_INTERLEAVE, QY_MPOL_WEIGHTED_INTERLEAVE },
	};

	begin();
	for (unsigned i = 0; i < sizeof(each) / sizeof(each[0]); i++) {
		struct qy_placement placement = placement_of(each[i].policy, 0, on(1, 4, 65));
		struct qy_region *r = create(&placement, 3, QUARRY_PAGES_BASE);

		cr_assert_not_null(r);
		use(r);
		expect_policy(r, each[i].mode, on(1, 4, 65));
		cr_assert_eq(r->placed, QY_PLACED_YES);
		cr_assert_eq(mode_seen & ~0xff, QY_MPOL_F_STATIC_NODES);
		qy_region_destroy(r);
	}
	cr_assert_eq(all_refused(), 0);
}

Test(region, preferred_is_of_one_node_and_local_of_none)
{
	struct qy_placement preferred, local;
	struct qy_region *r;

	begin();
	preferred = placement_of(QUARRY_POLICY_PREFERRED, 0, on(3, 5));
	r = create(&preferred, 1, QUARRY_PAGES_BASE);
	expect_policy(r, QY_MPOL_PREFERRED, on(3));
	local = placement_of(QUARRY_POLICY_LOCAL, 0, on(0, 1));
	fake_os_forget_calls();
	r = create(&local, 1, QUARRY_PAGES_BASE);
	cr_assert_eq(fake_os_calls(FAKE_MBIND), 0, "nothing is asked for");
	cr_assert_eq(r->placed, QY_PLACED_YES);
	expect_policy(r, QY_MPOL_DEFAULT, on(-1));
}

/* The mask has as many bits as the kernel has nodes, and exactly those that are meant. */
Test(region, ids_above_63_are_in_the_mask)
{
	static const int sets[][3] = { { 65, -1, -1 }, { 1000, -1, -1 }, { 65, 1000, -1 }, { 0, 1000, -1 } };

	begin();
	for (unsigned i = 0; i < 4; i++) {
		struct qy_placement placement = placement_of(QUARRY_POLICY_BIND, 0, sets[i]);
		struct qy_region *r = create(&placement, 2, QUARRY_PAGES_THP);

		cr_assert_not_null(r);
		expect_policy(r, QY_MPOL_PREFERRED_MANY, sets[i]);
		cr_assert_geq(bits_seen, 1001);
		for (int n = 0; n < FAKE_NODES; n++) {
			bool meant = false;

			for (int k = 0; sets[i][k] >= 0; k++)
				meant = meant || sets[i][k] == n;
			cr_assert_eq(mask_seen[n / 64] >> (n % 64) & 1, meant, "bit %d", n);
		}
		cr_assert_eq(fake_os_node_at(qy_region_addr(r)), sets[i][0]);
		qy_region_destroy(r);
	}
}

Test(region, an_older_kernel_gets_an_older_policy)
{
	struct qy_placement many, weighted;
	struct qy_region *r;

	begin();
	fake_os_newest_policy(QY_MPOL_LOCAL);
	many = placement_of(QUARRY_POLICY_PREFERRED_MANY, 0, on(2, 65));
	r = create(&many, 1, QUARRY_PAGES_BASE);
	cr_assert_eq(r->placed, QY_PLACED_LESS);
	expect_policy(r, QY_MPOL_PREFERRED, on(2));
	cr_assert_eq(refused(QUARRY_REFUSED_MBIND_EINVAL), 1);
	fake_os_newest_policy(QY_MPOL_PREFERRED_MANY);
	weighted = placement_of(QUARRY_POLICY_WEIGHTED_INTERLEAVE, 0, on(2, 65));
	r = create(&weighted, 1, QUARRY_PAGES_BASE);
	cr_assert_eq(r->placed, QY_PLACED_LESS);
	expect_policy(r, QY_MPOL_INTERLEAVE, on(2, 65));
	cr_assert_eq(refused(QUARRY_REFUSED_MBIND_EINVAL), 2);
	/* But not for who said strict. */
	weighted.flags = QUARRY_ARENA_STRICT;
	cr_assert_null(create(&weighted, 1, QUARRY_PAGES_BASE));
	cr_assert_eq(errno, EINVAL);
}

/* For it, the oldest policies say the same. */
Test(region, to_bind_needs_no_newer_kernel)
{
	struct qy_placement one, two;
	struct qy_region *r;

	begin();
	fake_os_newest_policy(QY_MPOL_LOCAL);
	one = placement_of(QUARRY_POLICY_BIND, 0, on(65));
	r = create(&one, 1, QUARRY_PAGES_BASE);
	cr_assert_eq(r->placed, QY_PLACED_YES);
	expect_policy(r, QY_MPOL_PREFERRED, on(65));
	two = placement_of(QUARRY_POLICY_BIND, 0, on(2, 65));
	r = create(&two, 1, QUARRY_PAGES_BASE);
	cr_assert_eq(r->placed, QY_PLACED_YES);
	expect_policy(r, QY_MPOL_BIND, on(2, 65));
	cr_assert_eq(refused(QUARRY_REFUSED_MBIND_EINVAL), 0);
}

Test(region, a_kernel_that_refuses_mbind)
{
	static const struct {
		int err;
		enum quarry_refusal cause;
	} each[] = {
		{ EPERM, QUARRY_REFUSED_MBIND_EPERM },
		{ ENOSYS, QUARRY_REFUSED_MBIND_ENOSYS },
		{ EINVAL, QUARRY_REFUSED_MBIND_EINVAL },
		{ EIO, QUARRY_REFUSED_MBIND_OTHER },
	};

	begin();
	for (unsigned i = 0; i < 4; i++) {
		struct qy_placement placement = placement_of(QUARRY_POLICY_BIND, 0, on(1));
		struct qy_region *r;

		fake_os_fail(FAKE_MBIND, each[i].err);
		r = create(&placement, 1, QUARRY_PAGES_BASE);
		cr_assert_not_null(r, "not strict: first touch");
		use(r);
		cr_assert_eq(r->placed, QY_PLACED_NO);
		cr_assert_eq(refused(each[i].cause), 1);
		qy_region_destroy(r);
		placement.flags = QUARRY_ARENA_STRICT;
		cr_assert_null(create(&placement, 1, QUARRY_PAGES_BASE));
		cr_assert_eq(errno, each[i].err == EIO ? ENOMEM : each[i].err);
		cr_assert_eq(refused(each[i].cause), 2);
		fake_os_heal();
		r = create(&placement, 1, QUARRY_PAGES_BASE);
		cr_assert_eq(r->placed, QY_PLACED_YES, "and when it relents, all is well");
		qy_region_destroy(r);
	}
}

/* ---- page kinds ---- */

Test(region, the_ladder)
{
	static const struct {
		int wanted;
		uint64_t pool_1g, pool_2m;
		bool thp;
		int got;
		uint64_t no_1g, no_2m, no_thp;
	} each[] = {
		{ QUARRY_PAGES_1G, 1, 9, true, QUARRY_PAGES_1G, 0, 0, 0 },
		{ QUARRY_PAGES_1G, 0, 9, true, QUARRY_PAGES_2M, 1, 0, 0 },
		{ QUARRY_PAGES_1G, 0, 2, true, QUARRY_PAGES_THP, 1, 1, 0 },
		{ QUARRY_PAGES_1G, 0, 0, false, QUARRY_PAGES_BASE, 1, 1, 1 },
		{ QUARRY_PAGES_2M, 1, 3, true, QUARRY_PAGES_2M, 0, 0, 0 },
		{ QUARRY_PAGES_2M, 1, 0, true, QUARRY_PAGES_THP, 0, 1, 0 },
		{ QUARRY_PAGES_2M, 1, 0, false, QUARRY_PAGES_BASE, 0, 1, 1 },
		{ QUARRY_PAGES_THP, 1, 9, true, QUARRY_PAGES_THP, 0, 0, 0 },
		{ QUARRY_PAGES_THP, 1, 9, false, QUARRY_PAGES_BASE, 0, 0, 1 },
		{ QUARRY_PAGES_BASE, 1, 9, true, QUARRY_PAGES_BASE, 0, 0, 0 },
	};

	for (unsigned i = 0; i < sizeof(each) / sizeof(each[0]); i++) {
		struct qy_placement placement;
		struct qy_region *r;
		bool pinned = each[i].got >= QUARRY_PAGES_2M;

		begin();
		placement = placement_of(QUARRY_POLICY_BIND, 0, on(65));
		fake_os_pool(65, 30, each[i].pool_1g);
		fake_os_pool(65, 21, each[i].pool_2m);
		fake_os_pool(3, 21, 100); /* of no use to who is bound elsewhere */
		fake_os_fail_advice(QY_MADV_HUGEPAGE, each[i].thp ? 0 : EINVAL);
		r = create(&placement, 3, each[i].wanted);
		cr_assert_not_null(r, "case %u", i);
		cr_expect(r->kind_wanted == each[i].wanted && r->kind == each[i].got, "case %u: got %u", i, r->kind);
		cr_expect_eq(refused(QUARRY_REFUSED_HUGE_1G), each[i].no_1g, "case %u", i);
		cr_expect_eq(refused(QUARRY_REFUSED_HUGE_2M), each[i].no_2m, "case %u", i);
		cr_expect_eq(refused(QUARRY_REFUSED_THP), each[i].no_thp, "case %u", i);
		cr_expect_eq(r->frames, each[i].got == QUARRY_PAGES_1G ? QY_ZONE_FRAMES : 3, "case %u", i);
		cr_expect_eq(qy_region_pinned(r), pinned);
		cr_expect_eq(fake_os_pool_left(65, 30), each[i].pool_1g - (each[i].got == QUARRY_PAGES_1G));
		cr_expect_eq(fake_os_pool_left(65, 21), each[i].pool_2m - (each[i].got == QUARRY_PAGES_2M ? 3 : 0));
		cr_expect_eq(fake_os_pool_left(3, 21), 100);
		cr_expect_eq(fake_os_node_at(qy_region_addr(r)), 65);
		if (each[i].got == QUARRY_PAGES_1G)
			cr_expect_eq((uintptr_t)qy_region_addr(r) % QY_ZONE, 0);
		else
			use(r);
		qy_region_destroy(r);
		cr_expect_eq(fake_os_pool_left(65, 30), each[i].pool_1g, "case %u", i);
		cr_expect_eq(fake_os_pool_left(65, 21), each[i].pool_2m, "case %u", i);
	}
}

Test(region, strict_is_no_ladder)
{
	struct qy_placement placement;

	begin();
	placement = placement_of(QUARRY_POLICY_BIND, QUARRY_ARENA_STRICT, on(2));
	cr_assert_null(create(&placement, 1, QUARRY_PAGES_1G));
	cr_assert_eq(errno, ENOMEM);
	cr_assert_null(create(&placement, 1, QUARRY_PAGES_2M));
	cr_assert_eq(errno, ENOMEM);
	fake_os_pool(2, 21, 1);
	cr_assert_null(create(&placement, 2, QUARRY_PAGES_2M));
	cr_assert_eq(fake_os_pool_left(2, 21), 1);
	cr_assert_not_null(create(&placement, 1, QUARRY_PAGES_2M));
	fake_os_fail_advice(QY_MADV_HUGEPAGE, EINVAL);
	cr_assert_null(create(&placement, 1, QUARRY_PAGES_THP));
	cr_assert_not_null(create(&placement, 1, QUARRY_PAGES_BASE));
	cr_assert_eq(refused(QUARRY_REFUSED_HUGE_1G), 1);
	cr_assert_eq(refused(QUARRY_REFUSED_HUGE_2M), 2);
	cr_assert_eq(refused(QUARRY_REFUSED_THP), 1);
}

/* Where touching would be SIGBUS: pages that the pool seems to have and that cannot be faulted in. */
Test(region, huge_pages_that_cannot_be_populated)
{
	struct qy_placement placement;
	struct qy_region *r;

	begin();
	placement = placement_of(QUARRY_POLICY_BIND, 0, on(1));
	fake_os_pool(1, 21, 8);
	fake_os_fail_advice(QY_MADV_POPULATE_WRITE, EFAULT);
	r = create(&placement, 2, QUARRY_PAGES_2M);
	cr_assert_eq(r->kind, QUARRY_PAGES_THP);
	use(r);
	cr_assert_eq(refused(QUARRY_REFUSED_POPULATE), 1);
	cr_assert_eq(refused(QUARRY_REFUSED_HUGE_2M), 1);
	cr_assert_eq(fake_os_pool_left(1, 21), 8, "what was reserved went back");
	fake_os_fail_advice(QY_MADV_POPULATE_WRITE, EINVAL); /* a kernel before 5.14 */
	r = create(&placement, 2, QUARRY_PAGES_2M);
	cr_assert_eq(r->kind, QUARRY_PAGES_THP, "not verified is not got");
}

/* EINTR from populating is no refusal. */
static int interrupts;
static int (*real_madvise)(void *addr, size_t len, int advice);

static int interrupted_madvise(void *addr, size_t len, int advice)
{
	if (advice == QY_MADV_POPULATE_WRITE && interrupts > 0) {
		interrupts--;
		errno = EINTR;
		return -1;
	}
	return real_madvise(addr, len, advice);
}

Test(region, populating_is_interrupted_and_goes_on)
{
	struct qy_placement placement;
	struct qy_region *r;

	begin();
	placement = placement_of(QUARRY_POLICY_BIND, 0, on(1));
	fake_os_pool(1, 21, 8);
	real_madvise = kernel.madvise;
	kernel.madvise = interrupted_madvise;
	interrupts = 5;
	r = create(&placement, 2, QUARRY_PAGES_2M);
	cr_assert_eq(r->kind, QUARRY_PAGES_2M);
	cr_assert_eq(interrupts, 0);
	cr_assert_eq(all_refused(), 0);
}

static size_t resident(const struct qy_region *r)
{
	static unsigned char in[16 * QY_FRAME_PAGES];
	size_t n = 0, pages = r->frames * QY_FRAME_PAGES;

	cr_assert_eq(qy_os->mincore(qy_region_addr(r), pages * QY_PAGE, in), 0);
	for (size_t i = 0; i < pages; i++)
		n += in[i] & 1;
	return n;
}

Test(region, populate_faults_in_and_says_when_it_cannot)
{
	struct qy_placement placement;
	struct qy_region *r;

	begin();
	placement = placement_of(QUARRY_POLICY_BIND, QUARRY_ARENA_POPULATE, on(4));
	r = create(&placement, 2, QUARRY_PAGES_BASE);
	cr_assert_eq(resident(r), 2 * QY_FRAME_PAGES);
	qy_region_destroy(r);
	fake_os_memory(4, 1 << 30, 0); /* the node is full */
	r = create(&placement, 2, QUARRY_PAGES_BASE);
	cr_assert_eq(resident(r), 2 * QY_FRAME_PAGES, "elsewhere, rather than nowhere");
	qy_region_destroy(r);
	fake_os_fail_advice(QY_MADV_POPULATE_WRITE, ENOMEM);
	r = create(&placement, 2, QUARRY_PAGES_BASE);
	cr_assert_not_null(r);
	cr_assert_eq(resident(r), 0);
	cr_assert_eq(refused(QUARRY_REFUSED_POPULATE), 1);
	fake_os_heal();
	placement.flags |= QUARRY_ARENA_STRICT;
	cr_assert_null(create(&placement, 2, QUARRY_PAGES_BASE));
	placement.flags = 0;
	r = create(&placement, 2, QUARRY_PAGES_BASE);
	cr_assert_eq(resident(r), 0, "unasked, nothing is touched");
}

Test(region, flags_for_dumps_and_locking)
{
	struct qy_placement placement;
	struct qy_region *r;
	unsigned long dumps;

	begin();
	placement = placement_of(QUARRY_POLICY_LOCAL, QUARRY_ARENA_NODUMP | QUARRY_ARENA_LOCKED, on(0));
	dumps = fake_os_advised(QY_MADV_DONTDUMP);
	fake_os_fail(FAKE_MLOCK, EPERM);
	r = create(&placement, 1, QUARRY_PAGES_BASE);
	cr_assert_not_null(r);
	cr_assert_eq(fake_os_advised(QY_MADV_DONTDUMP), dumps + 1);
	cr_assert_eq(refused(QUARRY_REFUSED_LOCK), 1);
	memset(qy_region_addr(r), 1, QY_PAGE);
	cr_assert_not(qy_region_purge(r, qy_region_addr(r), QY_PAGE), "what is to stay in memory stays");
	cr_assert_eq(*(char *)qy_region_addr(r), 1);
}

/* ---- afterwards ---- */

Test(region, purged_memory_is_zero_and_refused_memory_is_kept)
{
	struct qy_placement placement;
	struct qy_region *r, *huge;
	char *p;

	begin();
	placement = placement_of(QUARRY_POLICY_BIND, 0, on(1));
	r = create(&placement, 2, QUARRY_PAGES_BASE);
	p = qy_region_addr(r);
	memset(p, 1, 2 * QY_FRAME);
	cr_assert(qy_region_purge(r, p + QY_PAGE, QY_FRAME));
	cr_assert_eq(resident(r), QY_FRAME_PAGES);
	cr_assert(p[QY_PAGE - 1] == 1 && p[QY_PAGE] == 0);
	cr_assert(p[QY_FRAME + QY_PAGE - 1] == 0 && p[QY_FRAME + QY_PAGE] == 1);
	fake_os_fail_advice(MADV_DONTNEED, EINVAL); /* mlockall */
	cr_assert_not(qy_region_purge(r, p + QY_FRAME, QY_FRAME));
	cr_assert_eq(p[2 * QY_FRAME - 1], 1);
	cr_assert_eq(refused(QUARRY_REFUSED_PURGE), 1);
	fake_os_heal();
	fake_os_pool(1, 21, 1);
	huge = create(&placement, 1, QUARRY_PAGES_2M);
	memset(qy_region_addr(huge), 1, QY_FRAME);
	cr_assert_not(qy_region_purge(huge, qy_region_addr(huge), QY_FRAME), "the pool's pages are kept");
	cr_assert_eq(*(char *)qy_region_addr(huge), 1);
}

Test(region, collapsing)
{
	struct qy_placement placement;
	struct qy_region *r;

	begin();
	placement = placement_of(QUARRY_POLICY_BIND, 0, on(1));
	r = create(&placement, 2, QUARRY_PAGES_BASE);
	memset(qy_region_addr(r), 1, 2 * QY_FRAME);
	fake_os_fail_advice(QY_MADV_COLLAPSE, EAGAIN);
	cr_assert_not(qy_region_collapse(r, qy_region_addr(r), QY_FRAME));
	cr_assert_eq(refused(QUARRY_REFUSED_THP), 1);
	fake_os_pool(1, 21, 1);
	cr_assert(qy_region_collapse(create(&placement, 1, QUARRY_PAGES_2M), NULL, QY_FRAME), "huge already");
}

Test(region, moving_takes_the_content_and_leaves_zero_with_its_policy)
{
	struct qy_placement placement;
	struct qy_region *from, *to, *other;
	char *a, *b;

	begin();
	fake_os_pool(65, 21, 3);
	placement = placement_of(QUARRY_POLICY_BIND, 0, on(65));
	from = create(&placement, 3, QUARRY_PAGES_BASE);
	to = create(&placement, 3, QUARRY_PAGES_BASE);
	other = create(&placement, 3, QUARRY_PAGES_2M);
	a = qy_region_addr(from);
	b = qy_region_addr(to);
	for (size_t at = 0; at < 3 * QY_FRAME; at += QY_PAGE)
		a[at] = (char)(at >> QY_PAGE_SHIFT);
	cr_assert_not(qy_region_move(from, a, QY_FRAME, other, qy_region_addr(other)), "not to what is of a pool");
	fake_os_fail(FAKE_MREMAP, ENOMEM);
	cr_assert_not(qy_region_move(from, a, QY_FRAME, to, b));
	fake_os_heal();
	cr_assert_eq(a[QY_PAGE], 1);
	cr_assert(qy_region_move(from, a, 2 * QY_FRAME, to, b + QY_FRAME));
	for (size_t at = 0; at < 2 * QY_FRAME; at += QY_PAGE)
		cr_assert(a[at] == 0 && b[QY_FRAME + at] == (char)(at >> QY_PAGE_SHIFT));
	cr_assert_eq(a[2 * QY_FRAME + QY_PAGE], 1, "what was not moved");
	expect_policy(from, QY_MPOL_PREFERRED_MANY, on(65));
	expect_policy(to, QY_MPOL_PREFERRED_MANY, on(65));
}

/* Every call fails once, at every turn it has: a whole region or an error, and nothing is lost. */
Test(region, every_failure_leaves_nothing_behind, .timeout = 60)
{
	static const enum fake_call calls[] = { FAKE_MMAP, FAKE_MBIND, FAKE_MADVISE, FAKE_MLOCK, FAKE_MPROTECT };
	static const uint32_t flags[] = { 0, QUARRY_ARENA_STRICT, QUARRY_ARENA_POPULATE | QUARRY_ARENA_NODUMP,
					  QUARRY_ARENA_STRICT | QUARRY_ARENA_POPULATE | QUARRY_ARENA_LOCKED };
	struct qy_placement placement;
	char *first;

	begin();
	fake_os_pool(1, 21, 4);
	placement = placement_of(QUARRY_POLICY_BIND, 0, on(1));
	first = qy_region_addr(create(&placement, 1, QUARRY_PAGES_BASE));
	first += QY_FRAME;
	for (int kind = QUARRY_PAGES_BASE; kind <= QUARRY_PAGES_2M; kind++)
		for (unsigned f = 0; f < 4; f++)
			for (unsigned c = 0; c < sizeof(calls) / sizeof(calls[0]); c++)
				for (unsigned k = 1; k <= 6; k++) {
					struct qy_region *r;

					placement.flags = flags[f];
					fake_os_fail_kth(calls[c], k, ENOMEM);
					r = create(&placement, 3, kind);
					fake_os_heal();
					if (r == NULL) {
						cr_assert_neq(errno, 0);
						continue;
					}
					cr_assert_eq((char *)qy_region_addr(r), first, "address space was lost");
					use(r);
					qy_region_destroy(r);
				}
	cr_assert_eq(fake_os_pool_left(1, 21), 4);
}

/* What cannot be unmapped is not handed out again. */
Test(region, a_region_that_cannot_be_unmapped_is_lost_and_not_given_twice)
{
	struct qy_placement placement;
	struct qy_region *r;
	char *p;

	begin();
	placement = placement_of(QUARRY_POLICY_BIND, 0, on(1));
	r = create(&placement, 2, QUARRY_PAGES_BASE);
	p = qy_region_addr(r);
	fake_os_fail(FAKE_MMAP, ENOMEM);
	fake_os_fail(FAKE_MUNMAP, ENOMEM);
	qy_region_destroy(r);
	fake_os_heal();
	cr_assert_gt(all_refused(), 0);
	r = create(&placement, 2, QUARRY_PAGES_BASE);
	cr_assert_neq((char *)qy_region_addr(r), p);
	use(r);
}

static const struct qy_os *inner;
static uint64_t clock_ns;

static uint64_t slow_now_ns(void)
{
	return clock_ns;
}

static void *slow_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	clock_ns += prot == PROT_NONE ? 5000000 : 0;
	return inner->mmap(addr, len, prot, flags, fd, offset);
}

static int slow_madvise(void *addr, size_t len, int advice)
{
	clock_ns += advice == MADV_DONTNEED ? 300 : 0;
	return inner->madvise(addr, len, advice);
}

/* Whatever way memory goes back, pages or a whole region. */
Test(region, time_of_what_goes_back_is_counted)
{
	static struct qy_os slow;
	struct qy_placement placement;
	struct qy_region *r;

	begin();
	inner = qy_os;
	slow = *qy_os;
	slow.now_ns = slow_now_ns;
	slow.mmap = slow_mmap;
	slow.madvise = slow_madvise;
	qy_os = &slow;
	placement = placement_of(QUARRY_POLICY_BIND, 0, on(4));
	r = create(&placement, 2, QUARRY_PAGES_BASE);
	cr_assert_eq(qy_region_purge_ns(), 0);
	use(r);
	cr_assert(qy_region_purge(r, qy_region_addr(r), QY_FRAME));
	cr_assert_eq(qy_region_purge_ns(), 300);
	qy_region_destroy(r);
	cr_assert_eq(qy_region_purge_ns(), 5000300);
	qy_os = inner;
}
