/* SPDX-License-Identifier: MIT */
/* The block layer against a plain model, and the mistakes that such layers are known to have made. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <sys/mman.h>

#include "tests/fuzz/block_model.h"

#define STEPS 3000000
#define LOOK_EVERY 1021

static void random_steps(size_t stride)
{
	static struct block_model m;

	block_model_init(&m, stride);
	for (uint32_t n = 0; n < STEPS; n++) {
		/* Splits and coalescing in waves, so that there are long blocks and short ones. */
		uint32_t r = model_below(16);
		enum block_op op = r < BLOCK_OPS ? (enum block_op)r : n >> 14 & 1 ? BLOCK_COALESCE : BLOCK_SPLIT;

		if (op == BLOCK_ERASE && !model_one_in(16))
			continue;
		block_step(&m, op, model_below(BLOCK_PAGES), (uint32_t)model_random());
		if (n % LOOK_EVERY == 0)
			block_compare_all(&m);
	}
	block_compare_all(&m);
	block_model_free(&m);
}

Test(block, random_steps_against_a_model, .timeout = 120)
{
	model_start("block");
	random_steps(sizeof(struct qy_block));
}

Test(block, random_steps_with_headers_far_apart, .timeout = 120)
{
	model_start("block");
	random_steps(256);
}

/* ---- one by one ---- */

static struct qy_block headers[64];
static const struct qy_block_map map = { (char *)headers, sizeof(headers[0]) };

static unsigned unlinks;

static void count_unlink(void *last, qy_page n)
{
	unlinks++;
	*(qy_page *)last = n;
}

static qy_page coalesce(qy_page b)
{
	qy_page last;

	unlinks = 0;
	return qy_block_coalesce(&map, b, count_unlink, &last);
}

static long check(qy_page first, uint32_t length)
{
	qy_page bad = 0;

	return qy_block_check(&map, first, length, &bad);
}

Test(block, a_split_writes_both_headers_and_the_parts_do_not_overlap)
{
	qy_block_format(&map, 1, 20, true);
	cr_assert_eq(qy_block_split(&map, 1, 5), 6);
	cr_assert_eq(qy_block_split(&map, 6, 5), 11);
	cr_assert(qy_block_is(&map, 1) && qy_block_is(&map, 6) && qy_block_is(&map, 11));
	cr_assert_eq(qy_block_length(&map, 1), 5);
	cr_assert_eq(qy_block_length(&map, 6), 5);
	cr_assert_eq(qy_block_length(&map, 11), 10);
	cr_assert_eq(qy_block_next(&map, 1), 6);
	cr_assert_eq(qy_block_next(&map, 6), 11);
	cr_assert_eq(qy_block_prev(&map, 11), 6);
	cr_assert_eq(qy_block_prev(&map, 6), 1);
	cr_assert_eq(check(1, 20), 3);
}

/* The block behind both parts must learn that what stands before it became shorter. */
Test(block, a_split_tells_the_block_behind)
{
	qy_block_format(&map, 1, 20, false);
	qy_block_split(&map, 1, 15);
	qy_block_split(&map, 1, 5);
	cr_assert_eq(qy_block_prev(&map, 16), 6);
}

Test(block, a_split_keeps_flags_and_tag_and_drops_links)
{
	qy_block_format(&map, 1, 20, true);
	qy_block_set_used(&map, 1, true);
	qy_block_set_tag(&map, 1, 13);
	qy_block_at(&map, 1)->link[0] = 7;
	qy_block_split(&map, 1, 19);
	for (qy_page b = 1; b <= 20; b += 19) {
		cr_assert(qy_block_used(&map, b) && qy_block_clean(&map, b));
		cr_assert_eq(qy_block_tag(&map, b), 13);
	}
	cr_assert_eq(qy_block_at(&map, 1)->link[0], 7);
	cr_assert_eq(qy_block_at(&map, 20)->link[0], 0);
	cr_assert(qy_block_first(&map, 1) && !qy_block_last(&map, 1));
	cr_assert(!qy_block_first(&map, 20) && qy_block_last(&map, 20));
}

/* A free list's order is not the order in memory. */
Test(block, list_neighbours_that_do_not_touch_are_not_coalesced)
{
	qy_block_format(&map, 1, 30, false);
	qy_block_split(&map, 1, 10);
	qy_block_split(&map, 11, 10);
	qy_block_set_used(&map, 11, true);
	qy_block_at(&map, 1)->link[0] = 21;
	qy_block_at(&map, 21)->link[1] = 1;
	cr_assert_eq(coalesce(1), 1);
	cr_assert_eq(unlinks, 0);
	cr_assert_eq(coalesce(21), 21);
	cr_assert_eq(unlinks, 0);
	cr_assert_eq(qy_block_length(&map, 1), 10);
	cr_assert_eq(qy_block_length(&map, 21), 10);
	cr_assert_eq(check(1, 30), 3);
}

Test(block, flags_and_tag_are_no_part_of_the_length)
{
	qy_block_format(&map, 1, 30, false);
	qy_block_split(&map, 1, 10);
	for (int n = 0; n < 3; n++) {
		qy_block_set_used(&map, 1, true);
		qy_block_set_clean(&map, 1, true);
		qy_block_set_tag(&map, 11, 15);
		cr_assert_eq(qy_block_length(&map, 1), 10);
		cr_assert_eq(qy_block_next(&map, 1), 11);
		cr_assert_eq(qy_block_prev(&map, 11), 1);
		qy_block_set_used(&map, 1, false);
		cr_assert_eq(qy_block_length(&map, 1), 10);
		cr_assert_not(qy_block_used(&map, 1));
	}
	/* A block whose used bit were left in its size would swallow the rest here. */
	qy_block_set_used(&map, 11, true);
	qy_block_absorb_next(&map, 1);
	cr_assert_eq(qy_block_length(&map, 1), 30);
	cr_assert_not(qy_block_used(&map, 1));
	cr_assert_eq(check(1, 30), 1);
}

Test(block, the_walk_comes_to_the_last_block)
{
	qy_page bad = 0;

	qy_block_format(&map, 1, 30, false);
	qy_block_split(&map, 1, 10);
	qy_block_split(&map, 11, 19);
	cr_assert_eq(check(1, 30), 3);
	qy_block_at(&map, 30)->length &= ~QY_BLOCK_LAST;
	cr_assert_eq(qy_block_check(&map, 1, 30, &bad), -1);
	cr_assert_eq(bad, 30);
}

/* Two regions can be neighbours in the address space. */
Test(block, coalescing_stops_at_the_edge_of_a_run)
{
	qy_block_format(&map, 1, 10, false);
	qy_block_format(&map, 11, 10, false);
	qy_block_format(&map, 21, 10, false);
	cr_assert_not(qy_block_joins_next(&map, 11));
	cr_assert_not(qy_block_joins_prev(&map, 11));
	cr_assert_eq(coalesce(11), 11);
	cr_assert_eq(unlinks, 0);
	for (qy_page b = 1; b <= 21; b += 10)
		cr_assert_eq(check(b, 10), 1);
	qy_block_split(&map, 11, 4);
	cr_assert_eq(coalesce(15), 11);
	cr_assert_eq(unlinks, 1);
	cr_assert_eq(qy_block_length(&map, 11), 10);
}

Test(block, memory_that_is_zero_is_not_coalesced_with_memory_that_is_not)
{
	qy_block_format(&map, 1, 30, true);
	qy_block_split(&map, 1, 10);
	qy_block_split(&map, 11, 10);
	qy_block_set_clean(&map, 11, false);
	cr_assert_eq(coalesce(11), 11);
	cr_assert_eq(unlinks, 0);
	qy_block_absorb_next(&map, 1); /* by force: then nothing is known of it */
	cr_assert_not(qy_block_clean(&map, 1));
	cr_assert(qy_block_clean(&map, 21));
}

Test(block, a_run_is_erased_without_trace)
{
	static const struct qy_block zero;

	qy_block_format(&map, 1, 30, true);
	qy_block_split(&map, 1, 10);
	qy_block_set_tag(&map, 1, 9);
	qy_block_absorb_next(&map, 1);
	qy_block_erase(&map, 1);
	for (unsigned i = 0; i < 64; i++)
		cr_assert_arr_eq(&headers[i], &zero, sizeof(zero));
}

/* The walk tells every header that is wrong in what the walk can know. */
Test(block, the_walk_finds_every_damage)
{
	static const struct {
		qy_page at;
		int32_t length, previous; /* added to the words */
	} damage[] = {
		{ 1, 1, 0 },   { 1, -1, 0 },  { 11, 1, 0 },  { 11, -1, 0 },  { 21, 1, 0 },
		{ 21, -1, 0 }, { 11, 0, 1 },  { 11, 0, -1 }, { 21, 0, 1 },   { 1, 0, 1 },
		{ 1, -10, 0 }, { 11, -10, 0 }, { 5, 1, 0 },  { 20, 3, 0 },   { 30, 1, 0 },
		{ 1, (int32_t)QY_BLOCK_LAST, 0 }, { 11, (int32_t)QY_BLOCK_FIRST, 0 }, { 11, (int32_t)QY_BLOCK_LAST, 0 },
		{ 21, (int32_t)QY_BLOCK_FIRST, 0 }, { 1, -(int32_t)QY_BLOCK_FIRST, 0 },
	};

	for (unsigned i = 0; i < sizeof(damage) / sizeof(damage[0]); i++) {
		memset(headers, 0, sizeof(headers));
		qy_block_format(&map, 1, 30, false);
		qy_block_split(&map, 1, 10);
		qy_block_split(&map, 11, 10);
		cr_assert_eq(check(1, 30), 3);
		headers[damage[i].at].length += (uint32_t)damage[i].length;
		headers[damage[i].at].previous += (uint32_t)damage[i].previous;
		cr_expect_eq(check(1, 30), -1, "damage %u", i);
	}
}

/* 1 TiB in one run. */
Test(block, the_longest_block_there_can_be)
{
	const uint32_t most = QY_BLOCK_LENGTH_MAX;
	const size_t len = (size_t)(most + 1) * sizeof(struct qy_block);
	char *memory = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	struct qy_block_map large = { memory, sizeof(struct qy_block) };
	qy_page last = 0;

	if (memory == MAP_FAILED)
		cr_skip_test("no address space for it");
	qy_block_format(&large, 1, most, true);
	qy_block_set_used(&large, 1, true);
	qy_block_set_tag(&large, 1, 15);
	cr_assert_eq(qy_block_length(&large, 1), most);
	cr_assert_eq(qy_block_split(&large, 1, most - 1), most);
	cr_assert_eq(qy_block_length(&large, 1), most - 1);
	cr_assert_eq(qy_block_length(&large, most), 1);
	cr_assert_eq(qy_block_prev(&large, most), 1);
	cr_assert_eq(qy_block_next(&large, 1), most);
	cr_assert_eq(qy_block_tag(&large, most), 15);
	qy_block_set_used(&large, 1, false);
	qy_block_set_used(&large, most, false);
	cr_assert_eq(qy_block_coalesce(&large, most, count_unlink, &last), 1);
	cr_assert_eq(last, 1);
	cr_assert_eq(qy_block_length(&large, 1), most);
	cr_assert(qy_block_clean(&large, 1) && qy_block_first(&large, 1) && qy_block_last(&large, 1));
	munmap(memory, len);
}
