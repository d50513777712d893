/* SPDX-License-Identifier: MIT */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tools/top.h"

#include <stdlib.h>
#include <string.h>

#define ROWS_MAX 4096 /* a page of ours has room for fewer */

static const char *const names[TOP_COLUMNS] = { "name", "node", "mapped", "resident", "in_use", "cached", "free",
						"huge", "frag", "limit", "refills", "remote", "purged" };

const char *top_column_name(int column)
{
	return column >= 0 && column < TOP_COLUMNS ? names[column] : NULL;
}

/* ---- shares ---- */

static unsigned per_mille(double part, double whole)
{
	double share = whole > 0 ? part * 1000 / whole : 0;

	return share < 0 ? 0 : share > 99999 ? 99999 : (unsigned)share;
}

unsigned top_huge(const quarry_stats *stats)
{
	return per_mille((double)stats->kind_got[QUARRY_PAGES_THP] + (double)stats->kind_got[QUARRY_PAGES_2M] +
				 (double)stats->kind_got[QUARRY_PAGES_1G], (double)stats->mapped);
}

unsigned top_fragmentation(const quarry_stats *stats)
{
	return per_mille((double)stats->resident - (double)stats->in_use, (double)stats->resident);
}

unsigned top_limit(const quarry_stats *stats)
{
	return per_mille((double)stats->in_use, (double)(stats->hard_limit ? stats->hard_limit : stats->soft_limit));
}

/* ---- rates ---- */

static const struct top_rates unknown = { -1, -1, -1, -1, -1, -1, -1 };

/* What is less than before has begun anew. */
static double rate(uint64_t now, uint64_t before, double seconds)
{
	return now < before ? -1 : (double)(now - before) / seconds;
}

static struct top_rates rates_of(const quarry_stats *now, const quarry_stats *before, double seconds)
{
	return (struct top_rates){
		.refills = rate(now->refills, before->refills, seconds),
		.remote = rate(now->remote_frees, before->remote_frees, seconds),
		.purged = rate(now->purged, before->purged, seconds),
		.passes = rate(now->passes, before->passes, seconds),
		.collapsed = rate(now->collapsed, before->collapsed, seconds),
		.minor = -1,
		.major = -1,
	};
}

/* (Rows are in the order in which they are sorted: those of before too.) */
static const struct top_row *row_before(const struct top *before, const struct top_row *row, size_t guess)
{
	if (guess < before->head.arena_count && before->rows[guess].id == row->id)
		return &before->rows[guess];
	for (size_t i = 0; i < before->head.arena_count; i++)
		if (before->rows[i].id == row->id)
			return &before->rows[i];
	return NULL;
}

static void take_rates(struct top *top, const struct top *before)
{
	double seconds = ((double)top->head.time_ns - (double)before->head.time_ns) / 1e9;
	double faults = ((double)top->now_ns - (double)before->now_ns) / 1e9;
	bool same = top->head.generation == before->head.generation || seconds <= 0;

	top->rates = same ? before->rates : rates_of(&top->total, &before->total, seconds);
	for (size_t i = 0; i < top->head.arena_count; i++) {
		const struct top_row *was = row_before(before, &top->rows[i], i);

		if (was)
			top->rows[i].rates = same ? was->rates : rates_of(&top->rows[i].stats, &was->stats, seconds);
	}
	if (faults > 0) {
		top->rates.minor = rate(top->minor, before->minor, faults);
		top->rates.major = rate(top->major, before->major, faults);
	}
}

/* ---- taking ---- */

bool top_take(struct top *top, const struct published *p, const struct top *before)
{
	quarry_published_arena arena = { .stats.version = QUARRY_STATS_VERSION };

	*top = (struct top){ .pid = p->pid, .now_ns = published_now(), .minor = p->minor, .major = p->major,
			     .health.struct_size = sizeof(top->health), .total.version = QUARRY_STATS_VERSION,
			     .rates = unknown };
	memcpy(top->program, p->program, sizeof(top->program));
	if (quarry_published_look(p->copy, p->size, &top->head, sizeof(top->head), &top->health, &top->total) != 0)
		return false;
	if (top->head.arena_count > ROWS_MAX) {
		top->head.arenas_left_out += top->head.arena_count - ROWS_MAX;
		top->head.arena_count = ROWS_MAX;
	}
	top->rows = calloc(top->head.arena_count + 1, sizeof(*top->rows));
	if (!top->rows)
		return false;
	for (size_t i = 0; i < top->head.arena_count; i++) {
		if (quarry_published_arena_get(p->copy, p->size, i, &arena) != 0)
			return false;
		top->rows[i] = (struct top_row){ .id = arena.id, .stats = arena.stats, .rates = unknown };
	}
	top_trends_take(top, p);
	if (before && before->rows)
		take_rates(top, before);
	return top_lanes_take(&top->lanes, p, before && before->rows ? &before->lanes : NULL,
			      before && before->head.generation != top->head.generation ?
				      ((double)top->head.time_ns - (double)before->head.time_ns) / 1e9 : 0);
}

void top_free(struct top *top)
{
	top_lanes_free(&top->lanes);
	free(top->rows);
	top->rows = NULL;
}

/* ---- sorting ---- */

static double value_of(const struct top_row *row, enum top_column by)
{
	const quarry_stats *s = &row->stats;

	switch (by) {
	case TOP_NODE: return -(double)s->node;
	case TOP_MAPPED: return (double)s->mapped;
	case TOP_RESIDENT: return (double)s->resident;
	case TOP_IN_USE: return (double)s->in_use;
	case TOP_CACHED: return (double)s->cached;
	case TOP_FREE: return (double)s->free_dirty;
	case TOP_HUGE: return top_huge(s);
	case TOP_FRAG: return top_fragmentation(s);
	case TOP_LIMIT: return top_limit(s);
	case TOP_REFILLS: return row->rates.refills;
	case TOP_REMOTE: return row->rates.remote;
	case TOP_PURGED: return row->rates.purged;
	default: return 0;
	}
}

struct order {
	enum top_column by;
	bool turned;
};

static int compare(const void *left, const void *right, void *arg)
{
	const struct order *order = arg;
	const struct top_row *a = left, *b = right;
	double x = value_of(a, order->by), y = value_of(b, order->by);
	int c = order->by == TOP_NAME ? strncmp(a->stats.name, b->stats.name, sizeof(a->stats.name)) : (x < y) - (x > y);

	if (order->turned)
		c = -c;
	return c ? c : (a->id > b->id) - (a->id < b->id);
}

void top_sort(struct top *top, enum top_column by, bool turned)
{
	struct order order = { by, turned };

	qsort_r(top->rows, top->head.arena_count, sizeof(*top->rows), compare, &order);
}
