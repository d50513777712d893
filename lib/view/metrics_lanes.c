/* SPDX-License-Identifier: MIT */
/* Metrics of lanes: of each, of their classes and groups (with QUARRY_METRICS_ARENAS), moves by why, and lifetimes as histograms. */
#include "lib/view/metrics_page.h"

#include <string.h>

#include "lib/view/lanes.h"

static unsigned long long long_of(uint64_t n)
{
	return n;
}

static void labels_of(const struct qy_metrics_page *page, const quarry_lanes_figures *g, const char *more, const char *value)
{
	qy_text_format(page->out, "{lanes=\"%u\",name=\"", g->number);
	qy_metrics_label(page->out, g->name, strnlen(g->name, sizeof(g->name)));
	if (more != NULL)
		qy_text_format(page->out, "\",%s=\"%s", more, value);
	qy_text_format(page->out, "\"}");
}

static bool next(const struct qy_metrics_page *page, size_t i, quarry_lanes_figures *g)
{
	g->struct_size = sizeof(*g);
	return quarry_published_lanes(page->picture, page->size, i, g) == 0;
}

static void of_lanes(const struct qy_metrics_page *page, const struct qy_lanes_field *field)
{
	quarry_lanes_figures g;

	qy_metrics_head(page, "lanes_", field->name, field->unit, field->counter, field->help);
	for (size_t i = 0; next(page, i, &g); i++) {
		qy_text_format(page->out, "quarry_lanes_%s%s", field->name, field->counter ? "_total" : "");
		labels_of(page, &g, NULL, NULL);
		qy_text_format(page->out, " %llu\n", long_of(qy_lanes_value(field, &g)));
	}
}

static void moves(const struct qy_metrics_page *page)
{
	quarry_lanes_figures g;

	qy_metrics_head(page, "lanes_", "moved_objects", "", true, "Objects that are somewhere else than they were, by why.");
	for (size_t i = 0; next(page, i, &g); i++)
		for (int why = 0; why < QUARRY_MOVES; why++) {
			qy_text_format(page->out, "quarry_lanes_moved_objects_total");
			labels_of(page, &g, "why", quarry_move_name(why));
			qy_text_format(page->out, " %llu\n", long_of(g.moved[why]));
		}
	qy_metrics_head(page, "lanes_", "mover_seconds", "seconds", true, "Time that the mover in the background ran.");
	for (size_t i = 0; next(page, i, &g); i++) {
		qy_text_format(page->out, "quarry_lanes_mover_seconds_total");
		labels_of(page, &g, NULL, NULL);
		qy_text_format(page->out, " %llu.%09llu\n", long_of(g.mover_ns / 1000000000), long_of(g.mover_ns % 1000000000));
	}
}

/* ---- lifetimes ---- */

static void lane_labels(const struct qy_metrics_page *page, const quarry_lanes_figures *g, int fast)
{
	qy_text_format(page->out, "{lanes=\"%u\",lane=\"%s\",name=\"", g->number, fast ? "fast" : "slow");
	qy_metrics_label(page->out, g->name, strnlen(g->name, sizeof(g->name)));
}

static void histogram(const struct qy_metrics_page *page, const quarry_lanes_figures *g, int fast)
{
	uint64_t below = 0;

	for (int i = 0; i < QUARRY_LIFETIMES; i++) {
		uint64_t us = UINT64_C(1) << i;

		below += g->lifetimes[fast][i];
		qy_text_format(page->out, "quarry_lanes_lifetime_seconds_bucket");
		lane_labels(page, g, fast);
		if (i + 1 == QUARRY_LIFETIMES)
			qy_text_format(page->out, "\",le=\"+Inf\"} %llu\n", long_of(below));
		else
			qy_text_format(page->out, "\",le=\"%llu.%06llu\"} %llu\n", long_of(us / 1000000), long_of(us % 1000000),
				       long_of(below));
	}
	qy_text_format(page->out, "quarry_lanes_lifetime_seconds_count");
	lane_labels(page, g, fast);
	qy_text_format(page->out, "\"} %llu\nquarry_lanes_lifetime_seconds_sum", long_of(below));
	lane_labels(page, g, fast);
	qy_text_format(page->out, "\"} %llu.%06llu\n", long_of(g->lived_us[fast] / 1000000),
		       long_of(g->lived_us[fast] % 1000000));
}

static void lifetimes(const struct qy_metrics_page *page)
{
	quarry_lanes_figures g;

	qy_text_format(page->out, "# HELP quarry_lanes_lifetime_seconds How long objects lived, as samples tell.\n"
				  "# TYPE quarry_lanes_lifetime_seconds histogram\n");
	if (!page->classic)
		qy_text_format(page->out, "# UNIT quarry_lanes_lifetime_seconds seconds\n");
	for (size_t i = 0; next(page, i, &g); i++)
		for (int fast = 0; fast < 2; fast++)
			histogram(page, &g, fast);
}

/* ---- classes and groups ---- */

static bool next_part(const struct qy_metrics_page *page, size_t i, quarry_lanes_part *p)
{
	p->struct_size = sizeof(*p);
	return quarry_published_lanes_part(page->picture, page->size, i, p) == 0;
}

/* (Groups may have any name, also the same: those are told apart by their place.) */
static void part_labels(const struct qy_metrics_page *page, const quarry_lanes_part *p, size_t index)
{
	bool group = p->kind == QUARRY_PART_GROUP;

	qy_text_format(page->out, "{lanes=\"%u\",%s=\"", p->lanes, group ? "group" : p->kind == QUARRY_PART_TAG ? "tag" : "class");
	qy_metrics_label(page->out, p->name, strnlen(p->name, sizeof(p->name)));
	if (group)
		qy_text_format(page->out, "\",place=\"%zu", index);
	qy_text_format(page->out, "\"}");
}

static void of_parts(const struct qy_metrics_page *page, const struct qy_lanes_field *field)
{
	quarry_lanes_part p;

	qy_metrics_head(page, "lanes_part_", field->name, field->unit, field->counter, field->help);
	for (size_t i = 0; next_part(page, i, &p); i++) {
		qy_text_format(page->out, "quarry_lanes_part_%s%s", field->name, field->counter ? "_total" : "");
		part_labels(page, &p, i);
		qy_text_format(page->out, " %llu\n", long_of(qy_lanes_value(field, &p)));
	}
}

static void part_lifetimes(const struct qy_metrics_page *page)
{
	quarry_lanes_part p;

	qy_metrics_head(page, "lanes_part_", "lived_seconds", "seconds", true, "And how long, all together.");
	for (size_t i = 0; next_part(page, i, &p); i++) {
		qy_text_format(page->out, "quarry_lanes_part_lived_seconds_total");
		part_labels(page, &p, i);
		qy_text_format(page->out, " %llu.%06llu\n", long_of(p.lived_us / 1000000), long_of(p.lived_us % 1000000));
	}
}

void qy_metrics_lanes(const struct qy_metrics_page *page)
{
	const struct qy_lanes_field *field;

	if (page->head.lanes_offset == 0 || page->head.lanes_count == 0)
		return;
	for (int i = 0; (field = qy_lanes_field(i)) != NULL; i++)
		of_lanes(page, field);
	moves(page);
	lifetimes(page);
	if (!page->by_arena || page->head.parts_count == 0)
		return;
	for (int i = 0; (field = qy_part_field(i)) != NULL; i++)
		of_parts(page, field);
	part_lifetimes(page);
}
