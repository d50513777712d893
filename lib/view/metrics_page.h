/* SPDX-License-Identifier: MIT */
/* What metrics are written by, for those that have a file of their own. */
#ifndef QUARRY_VIEW_METRICS_PAGE_H
#define QUARRY_VIEW_METRICS_PAGE_H

#include "include/quarry/quarry.h"
#include "lib/base/text.h"

struct qy_metrics_page {
	struct qy_text *out;
	const void *picture;
	size_t size;
	bool classic, by_arena;
	quarry_published head;
	quarry_health_report health;
	quarry_stats total;
	quarry_profile_report profile;
	bool has_profile;
};

/* The lines before a family's samples, which are named quarry_, `of` and `name`. */
void qy_metrics_head(const struct qy_metrics_page *page, const char *of, const char *name, const char *unit, bool counter,
		     const char *help);
/* A label's value, of bytes that somebody chose. */
void qy_metrics_label(struct qy_text *out, const char *text, size_t n);

/* Lanes (metrics_lanes.c): nothing where there are none. */
void qy_metrics_lanes(const struct qy_metrics_page *page);

#endif
