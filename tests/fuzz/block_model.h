/* SPDX-License-Identifier: MIT */
/* The block layer against a plain model: who owns each page, written down page by page. Used by the unit test, which
 * draws the steps from a seed, and by the fuzz target, which draws them from its input.
 *
 * The map has room for several runs. Some follow each other without a gap, so that a block layer that looks beyond
 * the end of a run finds a header there. */
#ifndef QUARRY_TESTS_BLOCK_MODEL_H
#define QUARRY_TESTS_BLOCK_MODEL_H

#include <string.h>

#include "lib/block/block.h"
#include "tests/unit/model.h"

#define BLOCK_RUNS 12
#define BLOCK_PAGES 2048
#define BLOCK_NOBODY UINT32_MAX

struct block_expected {
	uint32_t start; /* of the block that the page is in; BLOCK_NOBODY outside of runs */
	/* of a block's first page: */
	uint32_t length, link[2];
	unsigned tag;
	bool used, clean;
};

struct block_model {
	struct qy_block_map map;
	char *memory;
	struct {
		uint32_t first, length;
		bool formatted;
	} run[BLOCK_RUNS];
	struct block_expected page[BLOCK_PAGES];
	/* What coalescing said it unlinks, in order. */
	qy_page unlinked[2];
	unsigned unlinks;
};

/* Runs of all lengths from 1; every other one follows the one before it at once. */
static inline void block_model_init(struct block_model *m, size_t stride)
{
	uint32_t at = 1, left = BLOCK_PAGES - 1 - BLOCK_RUNS;

	memset(m, 0, sizeof(*m));
	m->memory = calloc(BLOCK_PAGES + 1, stride);
	m->map = (struct qy_block_map){ m->memory, stride };
	for (unsigned i = 0; i < BLOCK_RUNS; i++) {
		uint32_t length = i == 0 ? 1 : i == 1 ? 2 : i == 2 ? 3 : left / BLOCK_RUNS * (1 + i % 2) * 2 / 3;

		at += i % 2;
		m->run[i].first = at;
		m->run[i].length = length;
		at += length;
	}
	for (uint32_t p = 0; p < BLOCK_PAGES; p++)
		m->page[p].start = BLOCK_NOBODY;
	model_must(at <= BLOCK_PAGES, "the model's runs fit");
}

static inline void block_model_free(struct block_model *m)
{
	free(m->memory);
}

static inline unsigned block_run_of(const struct block_model *m, uint32_t p)
{
	for (unsigned i = 0;; i++)
		if (p >= m->run[i].first && p < m->run[i].first + m->run[i].length)
			return i;
}

static inline bool block_is_first(const struct block_model *m, qy_page b)
{
	return b == m->run[block_run_of(m, b)].first;
}

static inline bool block_is_last(const struct block_model *m, qy_page b)
{
	unsigned i = block_run_of(m, b);

	return b + m->page[b].length == m->run[i].first + m->run[i].length;
}

/* Look at one block through the layer's eyes. */
static inline void block_compare(const struct block_model *m, qy_page b)
{
	const struct block_expected *e = &m->page[b];
	const struct qy_block_map *map = &m->map;

	model_must(qy_block_is(map, b), "page %u starts a block", b);
	model_must(qy_block_length(map, b) == e->length, "block %u: %u pages, not %u", b, e->length,
		   qy_block_length(map, b));
	model_must(qy_block_used(map, b) == e->used, "block %u", b);
	model_must(qy_block_clean(map, b) == e->clean, "block %u", b);
	model_must(qy_block_tag(map, b) == e->tag, "block %u: tag %u, not %u", b, e->tag, qy_block_tag(map, b));
	model_must(qy_block_at(map, b)->link[0] == e->link[0] && qy_block_at(map, b)->link[1] == e->link[1],
		   "block %u's links are the owner's", b);
	model_must(qy_block_first(map, b) == block_is_first(m, b), "block %u", b);
	model_must(qy_block_last(map, b) == block_is_last(m, b), "block %u", b);
	if (!block_is_last(m, b))
		model_must(qy_block_next(map, b) == b + e->length, "block %u", b);
	if (!block_is_first(m, b))
		model_must(qy_block_prev(map, b) == m->page[b - 1].start, "block %u: before it %u, not %u", b,
			   m->page[b - 1].start, qy_block_prev(map, b));
}

/* Look at everything: every page, every run. */
static inline void block_compare_all(const struct block_model *m)
{
	static const struct qy_block zero;
	long blocks[BLOCK_RUNS] = { 0 };

	for (uint32_t p = 0; p < BLOCK_PAGES; p++) {
		if (m->page[p].start == p) {
			block_compare(m, p);
			blocks[block_run_of(m, p)]++;
		} else {
			model_must(!qy_block_is(&m->map, p), "page %u starts no block", p);
			model_must(memcmp(qy_block_at(&m->map, p), &zero, sizeof(zero)) == 0, "slot %u is zero", p);
		}
	}
	for (unsigned i = 0; i < BLOCK_RUNS; i++) {
		qy_page bad = 0;

		if (m->run[i].formatted)
			model_must(qy_block_check(&m->map, m->run[i].first, m->run[i].length, &bad) == blocks[i],
				   "run %u has %ld blocks; at %u", i, blocks[i], bad);
	}
}

static inline void block_note_unlink(void *model, qy_page n)
{
	struct block_model *m = model;

	model_must(m->unlinks < 2, "at most two neighbours");
	model_must(qy_block_is(&m->map, n), "%u is told of while it is still there", n);
	m->unlinked[m->unlinks++] = n;
}

/* ---- the model's own ways of doing it ---- */

static inline void block_expect_owner(struct block_model *m, qy_page b)
{
	for (uint32_t i = 0; i < m->page[b].length; i++)
		m->page[b + i].start = b;
}

static inline void block_expect_split(struct block_model *m, qy_page b, uint32_t length)
{
	qy_page second = b + length;

	m->page[second] = m->page[b];
	m->page[second].length = m->page[b].length - length;
	m->page[second].link[0] = m->page[second].link[1] = 0;
	m->page[b].length = length;
	block_expect_owner(m, second);
}

static inline void block_expect_absorb(struct block_model *m, qy_page b)
{
	qy_page n = b + m->page[b].length;

	m->page[b].length += m->page[n].length;
	m->page[b].clean = m->page[b].clean && m->page[n].clean;
	block_expect_owner(m, b);
}

static inline bool block_expect_joins(const struct block_model *m, qy_page a, qy_page b)
{
	return !m->page[a].used && !m->page[b].used && m->page[a].clean == m->page[b].clean;
}

static inline void block_step_coalesce(struct block_model *m, qy_page b)
{
	qy_page expected[2], from = b, result;
	unsigned n = 0;

	if (!block_is_last(m, b) && block_expect_joins(m, b, b + m->page[b].length)) {
		expected[n++] = b + m->page[b].length;
		block_expect_absorb(m, b);
	}
	if (!block_is_first(m, b) && block_expect_joins(m, b, m->page[b - 1].start)) {
		expected[n++] = m->page[b - 1].start;
		b = m->page[b - 1].start;
		block_expect_absorb(m, b);
	}
	m->unlinks = 0;
	result = qy_block_coalesce(&m->map, from, block_note_unlink, m);
	model_must(result == b, "the coalesced block is %u, not %u", b, result);
	model_must(m->unlinks == n, "%u neighbours, not %u", n, m->unlinks);
	for (unsigned i = 0; i < n; i++)
		model_must(m->unlinked[i] == expected[i], "neighbour %u", i);
}

/* ---- one step ---- */

enum block_op {
	BLOCK_FORMAT, BLOCK_ERASE, BLOCK_USED, BLOCK_CLEAN, BLOCK_TAG, BLOCK_LINK, BLOCK_SPLIT, BLOCK_COALESCE,
	BLOCK_ABSORB, BLOCK_JOINS, BLOCK_OPS
};

static inline void block_step_run(struct block_model *m, enum block_op op, unsigned i, uint32_t value)
{
	uint32_t first = m->run[i].first;

	if (op == BLOCK_FORMAT && !m->run[i].formatted) {
		m->page[first] = (struct block_expected){ .length = m->run[i].length, .clean = value & 1 };
		block_expect_owner(m, first);
		qy_block_format(&m->map, first, m->run[i].length, value & 1);
		m->run[i].formatted = true;
	} else if (op == BLOCK_ERASE && m->run[i].formatted && m->page[first].length == m->run[i].length) {
		qy_block_erase(&m->map, first);
		for (uint32_t p = first; p < first + m->run[i].length; p++)
			m->page[p].start = BLOCK_NOBODY;
		m->run[i].formatted = false;
	}
}

/* Do op to the block that page p is in, or to its run, if it can be done there. value gives what is to be set. */
static inline void block_step(struct block_model *m, enum block_op op, uint32_t p, uint32_t value)
{
	qy_page b;

	p %= BLOCK_PAGES;
	if (op == BLOCK_FORMAT || op == BLOCK_ERASE) {
		block_step_run(m, op, p % BLOCK_RUNS, value);
		return;
	}
	b = m->page[p].start;
	if (b == BLOCK_NOBODY)
		return;
	switch (op) {
	case BLOCK_USED:
		m->page[b].used = value & 1;
		qy_block_set_used(&m->map, b, value & 1);
		break;
	case BLOCK_CLEAN:
		m->page[b].clean = value & 1;
		qy_block_set_clean(&m->map, b, value & 1);
		break;
	case BLOCK_TAG:
		m->page[b].tag = value & 15;
		qy_block_set_tag(&m->map, b, value & 15);
		break;
	case BLOCK_LINK:
		m->page[b].link[value & 1] = qy_block_at(&m->map, b)->link[value & 1] = value >> 1;
		break;
	case BLOCK_SPLIT:
		if (m->page[b].length == 1)
			return;
		value = 1 + value % (m->page[b].length - 1);
		block_expect_split(m, b, value);
		model_must(qy_block_split(&m->map, b, value) == b + value, "the second part of %u", b);
		block_compare(m, b + value);
		break;
	case BLOCK_COALESCE:
		if (m->page[b].used)
			return;
		block_step_coalesce(m, b);
		break;
	case BLOCK_ABSORB:
		if (block_is_last(m, b))
			return;
		block_expect_absorb(m, b);
		qy_block_absorb_next(&m->map, b);
		break;
	default:
		if (!block_is_last(m, b))
			model_must(qy_block_joins_next(&m->map, b) ==
					   block_expect_joins(m, b, b + m->page[b].length), "block %u", b);
		else
			model_must(!qy_block_joins_next(&m->map, b), "block %u is the last", b);
		if (!block_is_first(m, b))
			model_must(qy_block_joins_prev(&m->map, b) == block_expect_joins(m, b, m->page[b - 1].start),
				   "block %u", b);
		else
			model_must(!qy_block_joins_prev(&m->map, b), "block %u is the first", b);
		break;
	}
	block_compare(m, m->page[b].start);
}

#endif
