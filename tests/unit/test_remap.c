/* SPDX-License-Identifier: MIT */
/* Regions' memory moved by page tables where it is of several mappings, as everything is that was moved before: by a
 * played mremap(2) that refuses such ranges, or fails at any call; the contents are verified each time. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "numa/region.h"
#include "tests/unit/eight_nodes.h"

#define WORDS (QY_PAGE / sizeof(uint64_t))

static int owner;
static struct qy_placement placement;

static void begin_on(int node, uint32_t flags)
{
	begin();
	placement = (struct qy_placement){ .policy = QUARRY_POLICY_BIND, .flags = flags, .node = qy_node_dense(node),
					   .bind = true };
	quarry_nodeset_add(&placement.nodes, (unsigned)node);
}

static struct qy_region *create(size_t frames, int kind)
{
	struct qy_region *r = qy_region_create(&placement, frames, 1, kind, &owner);

	cr_assert_not_null(r);
	return r;
}

/* Two words in each page, by its number. */
static void fill(char *p, size_t first_page, size_t pages)
{
	for (size_t i = first_page; i < first_page + pages; i++) {
		uint64_t *page = (uint64_t *)(void *)(p + i * QY_PAGE);

		page[0] = i + 1;
		page[WORDS - 1] = ~i;
	}
}

static void check(const char *p, size_t pages)
{
	for (size_t i = 0; i < pages; i++) {
		const uint64_t *page = (const uint64_t *)(const void *)(p + i * QY_PAGE);

		cr_assert(page[0] == i + 1 && page[WORDS - 1] == ~i, "page %zu of what was moved", i);
	}
}

static void check_empty(const char *p, size_t pages)
{
	for (size_t i = 0; i < pages; i++) {
		const uint64_t *page = (const uint64_t *)(const void *)(p + i * QY_PAGE);

		cr_assert(page[0] == 0 && page[WORDS - 1] == 0, "page %zu is still where it was", i);
	}
}

/* A block that was moved and grew behind that, so often: that many mappings and one. Its frames are filled. */
static struct qy_region *grown(unsigned moves, size_t step, int kind)
{
	struct qy_region *r = create(step, kind), *to;
	size_t have = step;

	fill(qy_region_addr(r), 0, have * QY_FRAME_PAGES);
	for (unsigned n = 0; n < moves; n++) {
		to = create(have + step, kind);
		cr_assert(qy_region_move(r, qy_region_addr(r), have * QY_FRAME, to, qy_region_addr(to)));
		fill(qy_region_addr(to), have * QY_FRAME_PAGES, step * QY_FRAME_PAGES);
		qy_region_destroy(r);
		r = to;
		have += step;
	}
	return r;
}

Test(remap, what_was_moved_before_is_moved_again)
{
	struct qy_region *from, *to;

	begin_on(65, 0);
	from = grown(1, 4, QUARRY_PAGES_BASE);
	to = create(16, QUARRY_PAGES_BASE);
	fake_os_forget_calls();
	cr_assert(qy_region_move(from, qy_region_addr(from), 8 * QY_FRAME, to, qy_region_addr(to)));
	cr_assert_eq(fake_os_calls(FAKE_MREMAP), 5, "one that fails, and two halves there and on: %lu calls",
		     fake_os_calls(FAKE_MREMAP));
	check(qy_region_addr(to), 8 * QY_FRAME_PAGES);
	check_empty(qy_region_addr(from), 8 * QY_FRAME_PAGES);
}

/* No call copies, the mappings may lie as they will, and the calls are few. */
Test(remap, many_moves_by_many_steps, .timeout = 60)
{
	begin_on(1, 0);
	for (unsigned moves = 1; moves <= 9; moves++)
		for (size_t step = 1; step <= 3; step++) {
			struct qy_region *from = grown(moves, step, QUARRY_PAGES_BASE), *to;
			size_t frames = (moves + 1) * step;

			to = create(frames, QUARRY_PAGES_BASE);
			fake_os_forget_calls();
			cr_assert(qy_region_move(from, qy_region_addr(from), frames * QY_FRAME, to,
						 qy_region_addr(to)));
			cr_assert_leq(fake_os_calls(FAKE_MREMAP), 4 * frames, "%lu calls for %zu frames",
				      fake_os_calls(FAKE_MREMAP), frames);
			cr_assert_eq(fake_os_advised(MADV_DONTNEED), 0, "nothing was copied");
			check(qy_region_addr(to), frames * QY_FRAME_PAGES);
			check_empty(qy_region_addr(from), frames * QY_FRAME_PAGES);
			qy_region_destroy(from);
			qy_region_destroy(to);
		}
}

/* One call fails, or all from some call on, for want of mappings: at the first piece nothing has changed, else the rest
 * is copied. */
static bool fails_at(unsigned k, bool for_good)
{
	struct qy_region *from = grown(3, 2, QUARRY_PAGES_BASE), *to = create(8, QUARRY_PAGES_BASE);
	char *p = qy_region_addr(from), *q = qy_region_addr(to);
	unsigned long calls;
	bool moved;

	fake_os_forget_calls();
	if (for_good)
		fake_os_fail_from(FAKE_MREMAP, k, ENOMEM);
	else
		fake_os_fail_kth(FAKE_MREMAP, k, ENOMEM);
	moved = qy_region_move(from, p, 8 * QY_FRAME, to, q);
	calls = fake_os_calls(FAKE_MREMAP);
	fake_os_heal();
	check(moved ? q : p, 8 * QY_FRAME_PAGES);
	if (moved)
		check_empty(p, 8 * QY_FRAME_PAGES);
	qy_region_destroy(from);
	qy_region_destroy(to);
	return calls >= k;
}

Test(remap, a_failure_in_the_midst_loses_nothing, .timeout = 60)
{
	unsigned k[2] = { 1, 1 };

	begin_on(1, 0);
	for (int for_good = 0; for_good < 2; for_good++)
		while (fails_at(k[for_good], for_good) && k[for_good] < 64)
			k[for_good]++;
	cr_assert(k[0] > 8 && k[0] < 64, "%u calls", k[0]);
	cr_assert(k[1] > 8 && k[1] < 64, "%u calls", k[1]);
}

/* By the program, or by a move that ended within a frame: that frame is copied, the others are not. */
Test(remap, a_border_within_a_frame)
{
	struct qy_region *from, *to, *first;
	char *p;

	begin_on(1, 0);
	first = create(2, QUARRY_PAGES_BASE);
	from = create(6, QUARRY_PAGES_BASE);
	to = create(6, QUARRY_PAGES_BASE);
	p = qy_region_addr(from);
	fill(qy_region_addr(first), 0, QY_FRAME_PAGES + 7);
	cr_assert(qy_region_move(first, qy_region_addr(first), QY_FRAME + 7 * QY_PAGE, from, p));
	fill(p, QY_FRAME_PAGES + 7, 5 * QY_FRAME_PAGES - 7);
	fake_os_forget_calls();
	cr_assert(qy_region_move(from, p, 6 * QY_FRAME, to, qy_region_addr(to)));
	cr_assert_eq(fake_os_advised(MADV_DONTNEED), 1, "one frame was copied");
	check(qy_region_addr(to), 6 * QY_FRAME_PAGES);
	check_empty(p, 6 * QY_FRAME_PAGES);
}

/* A border in each frame and between any two: what is left when the calls were too many is copied. */
Test(remap, the_calls_are_bounded, .timeout = 120)
{
	struct qy_region *from, *to, *odd;
	char *p, *q;

	begin_on(1, 0);
	from = create(384, QUARRY_PAGES_BASE);
	to = create(384, QUARRY_PAGES_BASE);
	odd = create(1, QUARRY_PAGES_BASE);
	p = qy_region_addr(from);
	for (size_t f = 0; f < 384; f += 2)
		cr_assert(qy_region_move(odd, qy_region_addr(odd), QY_FRAME, from, p + f * QY_FRAME));
	for (size_t i = 0; i < 384 * QY_FRAME_PAGES; i += 64)
		fill(p, i, 1);
	fake_os_forget_calls();
	cr_assert(qy_region_move(from, p, 384 * QY_FRAME, to, qy_region_addr(to)));
	cr_assert_leq(fake_os_calls(FAKE_MREMAP), 1024, "%lu calls", fake_os_calls(FAKE_MREMAP));
	cr_assert_gt(fake_os_advised(MADV_DONTNEED), 0, "the rest was copied");
	q = qy_region_addr(to);
	for (size_t i = 0; i < 384 * QY_FRAME_PAGES; i += 64)
		cr_assert(*(uint64_t *)(void *)(q + i * QY_PAGE) == i + 1 &&
			  *(uint64_t *)(void *)(p + i * QY_PAGE) == 0);
}

Test(remap, each_piece_has_the_policy_of_its_place)
{
	struct qy_region *from, *to;
	int nodes[2], count = 0;

	begin_on(65, 0);
	from = grown(2, 2, QUARRY_PAGES_BASE);
	placement.nodes = (quarry_nodeset){ 0 };
	quarry_nodeset_add(&placement.nodes, 1);
	placement.node = qy_node_dense(1);
	to = create(8, QUARRY_PAGES_BASE);
	cr_assert(qy_region_move(from, qy_region_addr(from), 6 * QY_FRAME, to, qy_region_addr(to)));
	for (size_t f = 0; f < 8; f++) {
		fake_os_policy_at((char *)qy_region_addr(to) + f * QY_FRAME, nodes, 2, &count);
		cr_assert(count == 1 && nodes[0] == 1, "frame %zu where it came to", f);
	}
	for (size_t f = 0; f < 6; f++) {
		fake_os_policy_at((char *)qy_region_addr(from) + f * QY_FRAME, nodes, 2, &count);
		cr_assert(count == 1 && nodes[0] == 65, "frame %zu where it was", f);
	}
}

/* mremap(2) would leave what else is of the mapping unlocked. */
Test(remap, locked_memory_stays)
{
	struct qy_region *from, *to;

	begin_on(1, QUARRY_ARENA_LOCKED);
	from = create(2, QUARRY_PAGES_BASE);
	to = create(2, QUARRY_PAGES_BASE);
	cr_assert_not(qy_region_movable(from));
	fill(qy_region_addr(from), 0, 2 * QY_FRAME_PAGES);
	fake_os_forget_calls();
	cr_assert_not(qy_region_move(from, qy_region_addr(from), QY_FRAME, to, qy_region_addr(to)));
	cr_assert_eq(fake_os_calls(FAKE_MREMAP), 0);
	check(qy_region_addr(from), 2 * QY_FRAME_PAGES);
}

/* ---- room ---- */

Test(remap, what_a_region_may_have_to_spare)
{
	size_t most;

	begin_on(1, 0);
	fake_os_file("/proc/sys/vm/overcommit_memory", "0\n");
	most = (qy_window_size >> QY_FRAME_SHIFT) / 8;
	cr_assert_leq(qy_region_spare(&placement, 4), most - 4);
	cr_assert_gt(qy_region_spare(&placement, 4), 0);
	cr_assert_eq(qy_region_spare(&placement, most), 0, "an eighth of the window is as much as there is for one");
	fake_os_file("/proc/sys/vm/overcommit_memory", "2\n");
	cr_assert_eq(qy_region_spare(&placement, 4), 0, "address space is counted as memory");
}

/* ---- huge pages ---- */

static bool is_huge(const char *p)
{
	bool huge = false;

	if (qy_os_linux.page_is_huge(p, &huge) != 0)
		cr_skip("this kernel does not tell (PAGEMAP_SCAN, Linux 6.7)");
	return huge;
}

Test(remap, huge_pages_stay_whole_in_pieces)
{
	struct qy_region *from, *to;
	char *q;

	if (qy_os_linux.madvise(NULL, 0, QY_MADV_COLLAPSE) != 0)
		cr_skip("no MADV_COLLAPSE here (Linux 6.1)");
	begin_on(1, 0);
	fake_os_file("/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never");
	from = grown(2, 2, QUARRY_PAGES_THP);
	if (!qy_region_collapse(from, qy_region_addr(from), 6 * QY_FRAME))
		cr_skip("no huge page to be had: errno %d", errno);
	to = create(12, QUARRY_PAGES_THP);
	q = qy_region_addr(to);
	cr_assert(qy_region_move(from, qy_region_addr(from), 6 * QY_FRAME, to, q));
	for (size_t f = 0; f < 6; f++)
		cr_assert(is_huge(q + f * QY_FRAME), "frame %zu", f);
	check(q, 6 * QY_FRAME_PAGES);
}

/* What was base memory is told what the others in its new region were; what was to be huge stays so. */
Test(remap, from_one_page_kind_to_another)
{
	struct qy_region *base, *huge;

	begin_on(1, 0);
	fake_os_file("/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never");
	base = create(4, QUARRY_PAGES_BASE);
	huge = create(4, QUARRY_PAGES_THP);
	if (huge->kind != QUARRY_PAGES_THP)
		cr_skip("no transparent huge pages here");
	fill(qy_region_addr(base), 0, 2 * QY_FRAME_PAGES);
	fake_os_forget_calls();
	cr_assert(qy_region_move(base, qy_region_addr(base), 2 * QY_FRAME, huge, qy_region_addr(huge)));
	cr_assert_eq(fake_os_advised(QY_MADV_HUGEPAGE), 1);
	cr_assert_eq(huge->exceptions, 0);
	cr_assert_not(qy_region_may_be_huge(huge, qy_region_addr(huge)), "it is of base pages as yet");
	check(qy_region_addr(huge), 2 * QY_FRAME_PAGES);
	cr_assert(qy_region_move(huge, qy_region_addr(huge), 2 * QY_FRAME, base, qy_region_addr(base)));
	cr_assert_eq(base->exceptions, 2, "told otherwise than their region");
	check(qy_region_addr(base), 2 * QY_FRAME_PAGES);
}
